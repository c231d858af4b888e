//! The folder of a whole cluster: founding one, and finding what is in it.

use std::fs;
use std::path::{Path, PathBuf};

use quorate_crypto::{Digest, SigningKey};
use quorate_protocol::configuration::{InitialState, Member, Parameters};
use quorate_protocol::number::ReplicaId;

use super::file_error::FileError;
use super::folder::{Staging, create_private_folder, sync_folder, write_new};
use super::genesis::Genesis;
use super::replica::{self, ReplicaConfiguration, Resources};
use super::{address, client, founding, key_file};
use crate::storage::log::Identity;

/// The genesis' name in the cluster's folder and in the client's.
const GENESIS: &str = "genesis.toml";

/// Permission bits of a file that everyone may read.
const MODE_PUBLIC: u32 = 0o644;

/// Ports from a replica's first to the one that is set aside for its operator: more than all members on one host take.
const ADMIN_PORT_OFFSET: u16 = 100;

/// Most replicas on one host.
const MEMBERS_MAX: u16 = 31;

const _: () = assert!(MEMBERS_MAX as usize == ReplicaId::COUNT_MAX, "one number, two types");
const _: () = assert!(2 * MEMBERS_MAX <= ADMIN_PORT_OFFSET, "peers, clients and operators don't mix");

/// Highest port that replicas can be numbered from: all ports of 31 of them on one host are ports.
pub const BASE_PORT_MAX: u16 = u16::MAX - ADMIN_PORT_OFFSET - MEMBERS_MAX;

/// Where one replica is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// `host:port` for the other replicas.
    pub peer: String,
    /// `host:port` for clients.
    pub client: String,
    /// `host:port` that is set aside for the operator, on the replica's own machine.
    pub admin: String,
}

/// A cluster that is to be founded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where each replica is reached.
    pub addresses: Vec<Addresses>,
    /// What all agree on.
    pub parameters: Parameters,
    /// What each replica may use of its machine.
    pub resources: Resources,
    /// The state that it begins with, if it does: then that is to be put into each replica's folder.
    pub initial: Option<InitialState>,
}

impl Plan {
    /// A plan with the default parameters for one replica on each of `hosts`. The k-th replica on a host, from 0, takes
    /// the ports `base_port + 2k` for peers, one more for clients, and `base_port + 100 + k` for the operator.
    pub fn on_hosts(hosts: &[String], base_port: u16) -> Self {
        let place = |(index, host): (usize, &String)| {
            let earlier = hosts.iter().take(index).filter(|earlier| *earlier == host).count();
            let earlier = u16::try_from(earlier).unwrap_or(u16::MAX);
            let port = |offset: u16| base_port.saturating_add(offset);
            let peer = earlier.saturating_mul(2);
            Addresses {
                peer: address::join(host, port(peer)),
                client: address::join(host, port(peer.saturating_add(1))),
                admin: address::join("127.0.0.1", port(ADMIN_PORT_OFFSET.saturating_add(earlier))),
            }
        };
        Self {
            addresses: hosts.iter().enumerate().map(place).collect(),
            parameters: Parameters::default(),
            resources: Resources::default(),
            initial: None,
        }
    }

    /// Why `host` is neither a name nor an address, if it is none.
    pub fn refuse_host(host: &str) -> Option<&'static str> {
        address::refuse(&address::join(host, 1))
    }

    /// A plan for `count` replicas on this machine, at ports from `base_port` on as [`Plan::on_hosts`] deals them out.
    pub fn on_loopback(count: usize, base_port: u16) -> Self {
        Self::on_hosts(&vec!["127.0.0.1".to_owned(); count], base_port)
    }
}

/// The folder of a cluster, with its genesis.
#[derive(Debug)]
pub struct Network {
    folder: PathBuf,
    genesis: Genesis,
}

/// A cluster with all its files, not yet in its place. Unless it is finished, nothing is left of it when it is dropped.
#[derive(Debug)]
pub struct NewNetwork {
    staging: Staging,
    network: Network,
}

impl NewNetwork {
    /// Writes all files of a cluster that is to stand in `folder`, where nothing or an empty folder may be.
    ///
    /// # Errors
    /// [`FileError::Exists`] if something is there already; [`FileError::Plan`] if the plan is no configuration;
    /// [`FileError::Io`].
    pub fn build(folder: &Path, plan: Plan) -> Result<Self, FileError> {
        let staging = Staging::begin(folder)?;
        let keys = plan.addresses.iter().map(|_| key_file::generate()).collect::<Result<Vec<_>, _>>()?;
        let mut created = [0; 32];
        getrandom::fill(&mut created).map_err(|source| FileError::Randomness { source })?;
        let members = plan.addresses.iter().zip(&keys).map(|(addresses, key)| Member {
            key: key.public_key(),
            peer_address: addresses.peer.clone(),
            client_address: addresses.client.clone(),
        });
        let genesis =
            Genesis::with_state(Digest::from_bytes(created), members.collect(), plan.parameters, plan.initial)
                .map_err(|source| FileError::Plan { source })?;
        let text = genesis.to_toml();
        write_new(&staging.path().join(GENESIS), text.as_bytes(), MODE_PUBLIC)?;
        let resources = plan.resources.fitting(genesis.configuration().parameters());
        let replicas = genesis.configuration().replicas().zip(&plan.addresses).zip(&keys);
        for ((id, addresses), key) in replicas {
            let folder = replica_folder(staging.path(), id);
            create_replica(&folder, key, &replica::to_toml(id, &addresses.admin, &resources))?;
            found_log(&folder.join(replica::DATA), &genesis, id)?;
        }
        create_client(&client_folder(staging.path()), &text)?;
        Ok(Self { staging, network: Network { folder: folder.to_owned(), genesis } })
    }

    /// Its genesis.
    pub fn genesis(&self) -> &Genesis {
        &self.network.genesis
    }

    /// Where the states of its replicas are to be put while it is not in its place.
    pub fn state_folders(&self) -> Vec<PathBuf> {
        let folder = |id| replica_folder(self.staging.path(), id).join(replica::DATA).join(replica::STATE);
        self.network.genesis.configuration().replicas().map(folder).collect()
    }

    /// Puts it in its place.
    ///
    /// # Errors
    /// [`FileError::Exists`] if something came to stand there meanwhile; [`FileError::Io`].
    pub fn finish(self) -> Result<Network, FileError> {
        self.staging.finish()?;
        Ok(self.network)
    }
}

impl Network {
    /// Founds a cluster in `folder`, where nothing or an empty folder may be: afterwards it is there whole, or, when
    /// this fails, not at all.
    ///
    /// # Errors
    /// Those of [`NewNetwork::build`] and [`NewNetwork::finish`].
    pub fn create(folder: &Path, plan: Plan) -> Result<Self, FileError> {
        NewNetwork::build(folder, plan)?.finish()
    }

    /// The cluster that was founded in `folder`.
    ///
    /// # Errors
    /// [`FileError`] says what is wrong with its genesis.
    pub fn open(folder: &Path) -> Result<Self, FileError> {
        Ok(Self { folder: folder.to_owned(), genesis: Genesis::load(&folder.join(GENESIS))? })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its genesis.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The path of its genesis.
    pub fn genesis_path(&self) -> PathBuf {
        self.folder.join(GENESIS)
    }

    /// The folder to connect to it with.
    pub fn client_folder(&self) -> PathBuf {
        client_folder(&self.folder)
    }

    /// The folder of replica `id`.
    pub fn replica_folder(&self, id: ReplicaId) -> PathBuf {
        replica_folder(&self.folder, id)
    }

    /// All replicas' configurations, by index.
    ///
    /// # Errors
    /// [`FileError`] says what is wrong with the first that cannot be read.
    pub fn replicas(&self) -> Result<Vec<ReplicaConfiguration>, FileError> {
        self.genesis.configuration().replicas().map(|id| ReplicaConfiguration::load(&self.replica_folder(id))).collect()
    }
}

/// Whether there is a cluster in `folder`, or something that was one.
///
/// # Errors
/// [`FileError::Io`] if the folder cannot be looked into.
pub fn is_network(folder: &Path) -> Result<bool, FileError> {
    let path = folder.join(GENESIS);
    fs::exists(&path).map_err(FileError::io("look at", &path))
}

fn replica_folder(network: &Path, id: ReplicaId) -> PathBuf {
    network.join(format!("replica-{id}"))
}

pub(super) fn client_folder(network: &Path) -> PathBuf {
    network.join("client")
}

fn create_replica(folder: &Path, key: &SigningKey, text: &str) -> Result<(), FileError> {
    create_private_folder(folder)?;
    create_private_folder(&folder.join(replica::DATA))?;
    key_file::create(&folder.join("replica.key"), key)?;
    write_new(&folder.join(replica::FILE), text.as_bytes(), MODE_PUBLIC)?;
    sync_folder(folder)
}

/// The log's first record: without it a replica takes what it signed for lost.
fn found_log(data: &Path, genesis: &Genesis, id: ReplicaId) -> Result<(), FileError> {
    let cluster = *genesis.cluster().digest().as_bytes();
    founding::found(&data.join(replica::LOG), Identity { cluster, replica: id.value().into() })
        .map_err(|source| FileError::Log { source })
}

fn create_client(folder: &Path, genesis: &str) -> Result<(), FileError> {
    create_private_folder(folder)?;
    key_file::create(&folder.join("client.key"), &key_file::generate()?)?;
    write_new(&folder.join(GENESIS), genesis.as_bytes(), MODE_PUBLIC)?;
    write_new(&folder.join(client::FILE), client::TEXT.as_bytes(), MODE_PUBLIC)?;
    sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::configuration::{ClientConfiguration, Size};

    fn peers(plan: &Plan) -> Vec<&str> {
        plan.addresses.iter().map(|addresses| &*addresses.peer).collect()
    }

    #[test]
    fn a_founded_cluster_has_all_its_files_and_can_be_opened() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("net");
        let made = Network::create(&folder, Plan::on_loopback(7, 4100)).unwrap();
        let network = Network::open(&folder).unwrap();
        assert_eq!(network.genesis(), made.genesis());
        assert_eq!(network.replicas().unwrap().len(), 7);
        let client = ClientConfiguration::load(&network.client_folder()).unwrap();
        assert_eq!(&client.genesis, made.genesis());
        let same = ClientConfiguration::load(&folder).expect("the cluster's folder does, too");
        assert_eq!(same.key.public_key(), client.key.public_key());
        let mode = |path: &str| fs::metadata(folder.join(path)).unwrap().mode() & 0o777;
        assert_eq!((mode("replica-6/replica.key"), mode("client/client.key")), (0o600, 0o600));
        assert_eq!((mode("replica-0"), mode("replica-0/data"), mode("client")), (0o700, 0o700, 0o700));
    }

    #[test]
    fn replicas_are_given_the_room_that_the_parameters_need() {
        let root = tempfile::tempdir().unwrap();
        let parameters = Parameters { window: 1024, batch_bytes_max: 4 << 20, ..Parameters::default() };
        let network = Network::create(&root.path().join("net"), Plan { parameters, ..Plan::on_loopback(4, 4100) });
        let replicas = network.unwrap().replicas().unwrap();
        assert!(replicas.iter().all(|replica| replica.resources.disk_bytes_max == Size::new((8 << 30) + (192 << 20))));
    }

    #[test]
    fn two_clusters_of_the_same_plan_differ() {
        let root = tempfile::tempdir().unwrap();
        let one = Network::create(&root.path().join("one"), Plan::on_loopback(4, 4100)).unwrap();
        let two = Network::create(&root.path().join("two"), Plan::on_loopback(4, 4100)).unwrap();
        assert_ne!(one.genesis().cluster(), two.genesis().cluster());
    }

    #[test]
    fn an_existing_cluster_is_not_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("net");
        let made = Network::create(&folder, Plan::on_loopback(4, 4100)).unwrap();
        let refused = Network::create(&folder, Plan::on_loopback(4, 4100));
        assert!(matches!(refused, Err(FileError::Exists { path }) if path == folder));
        assert_eq!(Network::open(&folder).unwrap().genesis(), made.genesis());
    }

    #[test]
    fn a_plan_that_is_no_configuration_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let parameters = Parameters { window: 1, ..Parameters::default() };
        let plan = Plan { parameters, ..Plan::on_loopback(4, 4100) };
        assert!(matches!(Network::create(&root.path().join("a/net"), plan), Err(FileError::Plan { .. })));
        assert!(matches!(
            Network::create(&root.path().join("net"), Plan::on_loopback(3, 4100)),
            Err(FileError::Plan { .. })
        ));
        assert!(fs::read_dir(root.path()).unwrap().next().is_none());
    }

    #[test]
    fn replicas_on_one_host_have_ports_of_their_own() {
        let plan = Plan::on_loopback(31, BASE_PORT_MAX);
        let mut all: Vec<_> = plan.addresses.iter().flat_map(|a| [&a.peer, &a.client, &a.admin]).collect();
        assert_eq!(all.last().map(|text| &***text), Some("127.0.0.1:65534"));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 3 * 31);
    }

    #[test]
    fn replicas_on_hosts_of_their_own_have_the_same_ports() {
        let hosts = ["10.0.0.1", "10.0.0.2", "fe80::1", "10.0.0.1"].map(str::to_owned);
        let plan = Plan::on_hosts(&hosts, 5000);
        assert_eq!(peers(&plan), ["10.0.0.1:5000", "10.0.0.2:5000", "[fe80::1]:5000", "10.0.0.1:5002"]);
        assert_eq!(plan.addresses[3].client, "10.0.0.1:5003");
        assert_eq!(plan.addresses[3].admin, "127.0.0.1:5101");
    }
}
