//! A standby's folder: made from a client's, and given a member's place. (PROTOCOL §11)

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_protocol::number::ReplicaId;

use super::file_error::FileError;
use super::folder::{Staging, create_private_folder, sync_folder, write_new};
use super::genesis::Genesis;
use super::replica::{self, ReplicaConfiguration, Resources, Role};
use super::{address, key_file};

/// The genesis' name in the folder.
const GENESIS: &str = "genesis.toml";

/// Permission bits of a file that everyone may read.
const MODE_PUBLIC: u32 = 0o644;

/// The file's name while it is written.
const REPLICA_NEW: &str = "replica.toml.new";

/// The key's name in the folder of a standby that was promoted.
const REPLICA_KEY: &str = "replica.key";

/// Why a standby cannot be made, or not promoted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StandbyError {
    /// A file is wrong, or cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no such member.
    #[error("there is no replica {id}: the genesis lists the members 0 to {last}")]
    NoSuchMember {
        /// The one that was named.
        id: ReplicaId,
        /// The highest that there is.
        last: usize,
    },
    /// Where it is to listen is no address.
    #[error("`{address}` is {problem}")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The folder is that of a replica.
    #[error("{} is the folder of a replica, not of a standby", path.display())]
    NotAStandby {
        /// The folder.
        path: PathBuf,
    },
    /// The key is not the member's.
    #[error("{} holds another key than that of replica {id}", path.display())]
    OtherKey {
        /// The key file.
        path: PathBuf,
        /// The member.
        id: ReplicaId,
    },
}

/// Makes the folder of a standby beside the member `id`, where nothing or an empty folder may be. It gets a key of its own.
/// With `every` it is a warm one, which fetches a checkpoint so often; without a hot one.
///
/// # Errors
/// [`StandbyError`]; then nothing is left of the folder.
pub fn create(
    folder: &Path,
    genesis: &Genesis,
    id: ReplicaId,
    listen_client: &str,
    every: Option<Duration>,
) -> Result<(), StandbyError> {
    let configuration = genesis.configuration();
    if configuration.member(id).is_none() {
        return Err(StandbyError::NoSuchMember { id, last: configuration.size() - 1 });
    }
    if let Some(problem) = address::refuse(listen_client) {
        return Err(StandbyError::Address { address: listen_client.to_owned(), problem });
    }
    let staging = Staging::begin(folder)?;
    let resources = Resources::default().fitting(configuration.parameters());
    write_new(&staging.path().join(GENESIS), genesis.to_toml().as_bytes(), MODE_PUBLIC)?;
    key_file::create(&staging.path().join("standby.key"), &key_file::generate()?)?;
    create_private_folder(&staging.path().join(replica::DATA))?;
    let text = replica::standby_toml(id, listen_client, every, &resources);
    write_new(&staging.path().join(replica::FILE), text.as_bytes(), MODE_PUBLIC)?;
    staging.finish()?;
    Ok(())
}

/// Gives a standby's folder the key of the member that it stands by: the next process that is started on it is that
/// member, which has lost votes. Until the last step the folder is that of a standby. Nobody else may use its data
/// meanwhile.
///
/// # Errors
/// [`StandbyError`]; then it is a standby's folder still.
pub fn promote(folder: &Path, key: &Path) -> Result<ReplicaId, StandbyError> {
    let configuration = ReplicaConfiguration::load(folder)?;
    if configuration.role != Role::Standby {
        return Err(StandbyError::NotAStandby { path: folder.to_owned() });
    }
    let id = configuration.id;
    let of_member = key_file::load(key)?;
    let member = configuration.genesis.configuration().member(id);
    if member.is_none_or(|member| member.key != of_member.public_key()) {
        return Err(StandbyError::OtherKey { path: key.to_owned(), id });
    }
    let (own_key, new) = (folder.join(REPLICA_KEY), folder.join(REPLICA_NEW));
    for unfinished in [&own_key, &new] {
        match fs::remove_file(unfinished) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(FileError::Io { action: "remove", path: unfinished.clone(), source: error }.into());
            }
            Ok(()) | Err(_) => {}
        }
    }
    key_file::create(&own_key, &of_member)?;
    let text = replica::promoted_toml(id, &configuration.resources);
    write_new(&new, text.as_bytes(), MODE_PUBLIC)?;
    sync_folder(folder)?;
    fs::rename(&new, folder.join(replica::FILE)).map_err(FileError::io("rename", &new))?;
    sync_folder(folder)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::configuration::network::{Network, Plan};

    /// A cluster, and a standby beside its replica 3.
    fn with_standby() -> (tempfile::TempDir, Network, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let network = Network::create(&root.path().join("net"), Plan::on_loopback(4, 4100)).unwrap();
        let folder = root.path().join("standby");
        create(&folder, network.genesis(), ReplicaId::new(3), "127.0.0.1:4300", None).unwrap();
        (root, network, folder)
    }

    #[test]
    fn a_standby_has_a_key_of_its_own_and_no_first_record() {
        let (_root, network, folder) = with_standby();
        let standby = ReplicaConfiguration::load(&folder).unwrap();
        assert_eq!((standby.id, standby.role), (ReplicaId::new(3), Role::Standby));
        assert_eq!(standby.listen_client, "127.0.0.1:4300");
        assert_eq!(network.genesis().configuration().member_with_key(&standby.key.public_key()), None);
        assert!(standby.data.is_dir() && !standby.data.join(replica::LOG).exists());
        assert_eq!(standby.every, None);
    }

    #[test]
    fn a_warm_standby_says_how_often_it_fetches_and_nobody_else_may() {
        let (root, network, hot) = with_standby();
        let warm = root.path().join("warm");
        let every = Duration::from_millis(1_500);
        create(&warm, network.genesis(), ReplicaId::new(3), "127.0.0.1:4300", Some(every)).unwrap();
        assert_eq!(ReplicaConfiguration::load(&warm).unwrap().every, Some(every));
        let write = |folder: &Path, from: &str, to: &str| {
            let path = folder.join(replica::FILE);
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, text.replacen(from, to, 1)).unwrap();
            ReplicaConfiguration::load(folder).unwrap_err().to_string()
        };
        let wrong = write(&hot, "# every = \"60s\"", "every = \"soon\"");
        assert!(wrong.contains("key `every` is \"soon\""), "{wrong}");
        let member = network.replica_folder(ReplicaId::new(0));
        let wrong = write(&member, "replica = 0", "replica = 0\nevery = \"60s\"");
        assert!(wrong.contains("only a standby fetches checkpoints"), "{wrong}");
    }

    #[test]
    fn a_standby_that_gets_the_members_key_is_the_member() {
        let (root, network, folder) = with_standby();
        let key = |id| network.replica_folder(ReplicaId::new(id)).join(REPLICA_KEY);
        assert!(matches!(promote(&folder, &key(2)), Err(StandbyError::OtherKey { .. })));
        assert_eq!(ReplicaConfiguration::load(&folder).unwrap().role, Role::Standby);
        // What an earlier try left behind is in nobody's way.
        fs::write(folder.join(REPLICA_NEW), "half").unwrap();
        fs::write(folder.join(REPLICA_KEY), "half").unwrap();
        assert_eq!(promote(&folder, &key(3)).unwrap(), ReplicaId::new(3));
        let member = ReplicaConfiguration::load(&folder).unwrap();
        let of_genesis = &network.genesis().configuration().members()[3];
        assert_eq!((member.role, member.key.public_key()), (Role::Voter, of_genesis.key));
        assert_eq!(
            (member.listen_peer, member.listen_client),
            (of_genesis.peer_address.clone(), of_genesis.client_address.clone())
        );
        assert!(matches!(promote(&folder, &key(3)), Err(StandbyError::NotAStandby { .. })));
        drop(root);
    }

    #[test]
    fn a_standby_under_a_members_key_is_refused() {
        let (_root, network, folder) = with_standby();
        let of_member = network.replica_folder(ReplicaId::new(1)).join(REPLICA_KEY);
        fs::copy(of_member, folder.join("standby.key")).unwrap();
        let error = ReplicaConfiguration::load(&folder).unwrap_err();
        assert!(error.to_string().contains("it holds the key of a member"), "{error}");
    }

    #[test]
    fn what_is_no_member_or_no_address_is_refused_and_nothing_is_left() {
        let (root, network, _) = with_standby();
        let folder = root.path().join("other");
        let made = |id, listen| create(&folder, network.genesis(), ReplicaId::new(id), listen, None).unwrap_err();
        assert!(made(4, "127.0.0.1:4300").to_string().ends_with("members 0 to 3"));
        assert!(made(3, "here").to_string().starts_with("`here` is not an address"));
        assert!(!folder.exists());
    }
}
