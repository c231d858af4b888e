//! `genesis.toml`: members and parameters at the start, and the identity that follows from them (PROTOCOL §1, §3).
//!
//! The cluster's identity is the digest of a canonical encoding of everything in the file, so comments and order may
//! change, and nothing else: an edited genesis is refused when it is read.

use std::path::Path;

use quorate_crypto::{Digest, Domain, PublicKey, hash};
use quorate_protocol::codec::{List, encode};
use quorate_protocol::configuration::{ClusterId, Configuration, ConfigurationError, InitialState, Member, Parameters};
use quorate_protocol::number::ReplicaId;
use quorate_protocol::time::WallTime;
use serde::{Deserialize, Serialize};

use super::address;
use super::document::Document;
use super::file_error::FileError;
use super::parameters::ParametersTable;

/// The version of the file's format; part of what the cluster's identity is the digest of.
const FORMAT: u32 = 1;

const HEADING: &str = "\
# The genesis of a cluster: who takes part, and what all must agree on. Public; every replica and client has a copy.
# `cluster` is the digest of everything else here: if a value is edited, the file is refused. `quorate genesis check`
# verifies it.

";

/// A genesis, checked: its configuration of epoch 0 and what makes it unlike any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Genesis {
    created: Digest,
    configuration: Configuration,
}

impl Genesis {
    /// The genesis of `members` with `parameters`. `created` is drawn at random, so that no two clusters share an
    /// identity.
    ///
    /// # Errors
    /// [`ConfigurationError`] names the first relation that does not hold.
    pub fn new(created: Digest, members: Vec<Member>, parameters: Parameters) -> Result<Self, ConfigurationError> {
        Self::with_state(created, members, parameters, None)
    }

    /// The same for a cluster that begins with a state, if one is given.
    ///
    /// # Errors
    /// As [`Genesis::new`].
    pub fn with_state(
        created: Digest,
        members: Vec<Member>,
        parameters: Parameters,
        initial: Option<InitialState>,
    ) -> Result<Self, ConfigurationError> {
        let count = members.len();
        let members = List::new(members).ok_or(ConfigurationError::Members(count))?;
        let cluster = identity(&created, &members, &parameters, initial.as_ref());
        let configuration = Configuration::new(cluster, members, parameters)?.with_initial_state(initial);
        Ok(Self { created, configuration })
    }

    /// Reads and checks a genesis file.
    ///
    /// # Errors
    /// [`FileError`] says what is wrong in which line and how to mend it; a file that was edited is refused.
    pub fn load(path: &Path) -> Result<Self, FileError> {
        Self::read(&Document::read(path)?)
    }

    /// The same with the bytes of such a file, which stand at `path` as far as messages say.
    ///
    /// # Errors
    /// As [`Genesis::load`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, FileError> {
        Self::read(&Document::of(path, bytes.to_vec())?)
    }

    fn read(document: &Document) -> Result<Self, FileError> {
        let file: GenesisFile = document.parse()?;
        if file.format != FORMAT {
            let mend = "use the version of quorate that the cluster was founded with, or a later one";
            return Err(document.refuse_key("format", format!("this program reads format {FORMAT}"), mend));
        }
        let created = read_digest(document, "created", &file.created)?;
        let stated = read_digest(document, "cluster", &file.cluster)?;
        let members = read_members(document, &file.members)?;
        let initial = file.state.map(|table| table.read(document)).transpose()?;
        let genesis =
            Self::with_state(created, members, file.parameters, initial).map_err(|error| explain(document, &error))?;
        if genesis.cluster().digest() != &stated {
            let found = format!("the rest of the file has the digest {}: it was edited", genesis.cluster().digest());
            return Err(document.refuse_key("cluster", found, MEND_COPY));
        }
        Ok(genesis)
    }

    /// The cluster's identity.
    pub fn cluster(&self) -> &ClusterId {
        self.configuration.cluster()
    }

    /// The configuration of epoch 0.
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// The text of the file.
    pub fn to_toml(&self) -> String {
        let file = GenesisFile {
            format: FORMAT,
            cluster: self.cluster().digest().to_string(),
            created: self.created.to_string(),
            parameters: self.configuration.parameters().clone(),
            state: self.configuration.initial_state().map(StateTable::new),
            members: self.configuration.replicas().zip(self.configuration.members()).map(MemberTable::new).collect(),
        };
        let body = toml::to_string(&file);
        HEADING.to_owned() + &body.expect("numbers below 2^63, texts and tables have a form in TOML")
    }
}

const MEND_COPY: &str = "take an unchanged copy from another replica or a client, or found a new cluster with \
                         `quorate init`";

/// The file as it stands on disk.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GenesisFile {
    format: u32,
    cluster: String,
    created: String,
    #[serde(with = "ParametersTable")]
    parameters: Parameters,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<StateTable>,
    members: Vec<MemberTable>,
}

/// The state with which the cluster begins: that of slot 0.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateTable {
    application_root: String,
    /// In nanoseconds since 1970.
    time_ns: u64,
}

impl StateTable {
    fn new(state: &InitialState) -> Self {
        Self { application_root: state.application.to_string(), time_ns: state.time.nanoseconds() }
    }

    fn read(&self, document: &Document) -> Result<InitialState, FileError> {
        let application = read_digest(document, "state.application_root", &self.application_root)?;
        Ok(InitialState { application, time: WallTime::from_nanoseconds(self.time_ns) })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberTable {
    index: u8,
    role: Role,
    key: String,
    peer: String,
    client: String,
}

/// What a member does. Only voters take part from the start. (PROTOCOL §11)
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    Voter,
}

impl MemberTable {
    fn new((id, member): (ReplicaId, &Member)) -> Self {
        Self {
            index: id.value(),
            role: Role::Voter,
            key: member.key.to_string(),
            peer: member.peer_address.clone(),
            client: member.client_address.clone(),
        }
    }
}

/// The digest of everything in the file but itself. Each part has a fixed length or begins with its count; the state, where
/// there is one, is what follows the parameters.
fn identity(
    created: &Digest,
    members: &List<Member, { ReplicaId::COUNT_MAX }>,
    parameters: &Parameters,
    initial: Option<&InitialState>,
) -> ClusterId {
    let roles = vec![Role::Voter as u8; members.len()];
    // Addresses may be of any length until a configuration was built of them: they are bounded by the file or by
    // the command line, far below what an encoding may have.
    let members = encode(members).expect("31 members are far below the limit of an encoding");
    let parameters = encode(parameters).expect("parameters with bounded lists are far below the limit");
    let root = initial.map_or(&[][..], |state| state.application.as_bytes());
    let time = initial.map(|state| state.time.nanoseconds().to_le_bytes());
    let time = time.as_ref().map_or(&[][..], |time| &time[..]);
    let parts = [&FORMAT.to_le_bytes()[..], created.as_bytes(), &members, &roles, &parameters, root, time];
    ClusterId::new(hash(Domain::Genesis, &parts))
}

fn read_digest(document: &Document, key: &str, text: &str) -> Result<Digest, FileError> {
    text.parse().map_err(|error: quorate_crypto::HexError| document.refuse_key(key, error.to_string(), MEND_COPY))
}

fn read_members(document: &Document, tables: &[MemberTable]) -> Result<Vec<Member>, FileError> {
    tables.iter().enumerate().map(|(position, table)| read_member(document, position, table)).collect()
}

fn read_member(document: &Document, position: usize, table: &MemberTable) -> Result<Member, FileError> {
    let key_of = |name: &str| format!("members.{position}.{name}");
    if usize::from(table.index) != position {
        let mend = "members stand in the order of their indices, from 0 and without a gap";
        return Err(document.refuse_key(&key_of("index"), format!("expected {position}"), mend));
    }
    let Role::Voter = table.role;
    let key = table.key.parse::<PublicKey>().map_err(|error| {
        let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        document.refuse_key(&key_of("key"), reason, "a public key is written as 64 hexadecimal digits")
    })?;
    for (name, address) in [("peer", &table.peer), ("client", &table.client)] {
        if let Some(problem) = address::refuse(address) {
            return Err(document.refuse_key(&key_of(name), problem, address::MEND));
        }
    }
    Ok(Member { key, peer_address: table.peer.clone(), client_address: table.client.clone() })
}

/// The key of the file that an error of the configuration is about.
fn explain(document: &Document, error: &ConfigurationError) -> FileError {
    match error {
        ConfigurationError::Parameter { name, relation } => {
            document.refuse_key(&format!("parameters.{name}"), format!("must be {relation}"), MEND_COPY)
        }
        ConfigurationError::Key(id) => {
            document.refuse_key(&format!("members.{id}.key"), "not a point of the curve, so no key", MEND_COPY)
        }
        ConfigurationError::SameKey(earlier, id) => {
            let mend = "each member has a key of its own: found the cluster again with `quorate init`";
            document.refuse_key(&format!("members.{id}.key"), format!("also the key of member {earlier}"), mend)
        }
        other => document.refuse(1, other.to_string(), MEND_COPY),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use quorate_crypto::SigningKey;
    use quorate_protocol::configuration::ClientPolicy;
    use tempfile::TempDir;

    use super::*;

    fn key(seed: u8) -> PublicKey {
        SigningKey::from_seed([seed; 32]).public_key()
    }

    fn member(index: u8) -> Member {
        let (peer, client) = (4100 + 2 * u16::from(index), 4101 + 2 * u16::from(index));
        Member {
            key: key(index),
            peer_address: format!("127.0.0.1:{peer}"),
            client_address: format!("127.0.0.1:{client}"),
        }
    }

    fn genesis(parameters: Parameters) -> Genesis {
        Genesis::new(Digest::from_bytes([7; 32]), (0..4).map(member).collect(), parameters).unwrap()
    }

    fn written(text: &str) -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("genesis.toml");
        fs::write(&path, text).unwrap();
        (folder, path)
    }

    /// What is said of the default genesis with `from` replaced by `to`, without the path.
    fn problem_after(from: &str, to: &str) -> String {
        let text = genesis(Parameters::default()).to_toml();
        assert!(text.contains(from), "{from} in {text}");
        let (_folder, path) = written(&text.replacen(from, to, 1));
        let error = Genesis::load(&path).unwrap_err();
        assert!(error.mend().is_some(), "{error}");
        error.to_string().replace(&format!("{}:", path.display()), "")
    }

    #[test]
    fn a_genesis_is_read_back_with_the_same_identity() {
        let (_folder, path) = written(&genesis(Parameters::default()).to_toml());
        assert_eq!(Genesis::load(&path).unwrap(), genesis(Parameters::default()));
        let mut keys = vec![key(9), key(8)];
        keys.sort();
        let clients = ClientPolicy::Listed(List::new(keys).unwrap());
        let listed = genesis(Parameters { clients, ..Parameters::default() });
        let (_folder, path) = written(&listed.to_toml());
        assert_eq!(Genesis::load(&path).unwrap(), listed);
    }

    #[test]
    fn the_state_that_a_cluster_begins_with_is_part_of_its_identity() {
        let members: Vec<Member> = (0..4).map(member).collect();
        let with = |initial| {
            let created = Digest::from_bytes([7; 32]);
            Genesis::with_state(created, members.clone(), Parameters::default(), initial).unwrap()
        };
        let state = |root, time| {
            let (application, time) = (Digest::from_bytes([root; 32]), WallTime::from_nanoseconds(time));
            Some(InitialState { application, time })
        };
        let founded = with(state(5, 1_700_000_000_123_456_789));
        let others = [with(None), with(state(6, 1_700_000_000_123_456_789)), with(state(5, 0))];
        assert!(others.iter().all(|other| other.cluster() != founded.cluster()));
        assert_eq!(others[0], genesis(Parameters::default()), "those without one are what they were");
        let text = founded.to_toml();
        let (_folder, path) = written(&text);
        assert_eq!(Genesis::load(&path).unwrap(), founded);
        for (from, to) in [("application_root = \"05", "application_root = \"06"), ("6789", "6788")] {
            let (_folder, path) = written(&text.replacen(from, to, 1));
            let problem = Genesis::load(&path).unwrap_err().to_string();
            assert!(problem.ends_with("it was edited"), "{problem}");
        }
    }

    #[test]
    fn comments_and_blanks_do_not_count() {
        let text =
            genesis(Parameters::default()).to_toml().replace("window = 512", "\n# ours\nwindow   = 0x200 # slots");
        let (_folder, path) = written(&text);
        assert_eq!(Genesis::load(&path).unwrap(), genesis(Parameters::default()));
    }

    #[test]
    fn a_genesis_with_any_value_edited_is_refused() {
        let other_key = key(50).to_string();
        for (from, to) in [
            ("window = 512", "window = 1024"),
            ("heartbeat_ms = 100", "heartbeat_ms = 101"),
            ("127.0.0.1:4100", "127.0.0.2:4100"),
            ("127.0.0.1:4107", "127.0.0.1:4109"),
            (&*key(2).to_string(), &*other_key),
            ("clients = \"any\"", "clients = []"),
            ("created = \"07", "created = \"08"),
        ] {
            let problem = problem_after(from, to);
            assert!(problem.contains("key `cluster`") && problem.ends_with("it was edited"), "{problem}");
        }
    }

    #[test]
    fn every_parameter_is_part_of_the_identity() {
        let text = genesis(Parameters::default()).to_toml();
        let (_, parameters) = text.split_once("[parameters]\n").unwrap();
        for line in parameters.lines().take_while(|line| !line.is_empty()).filter(|line| !line.contains("clients")) {
            let (name, value) = line.split_once(" = ").unwrap();
            let other = match value {
                "false" => "true".to_owned(),
                "1" => "1".to_owned(),
                number => (number.parse::<u64>().unwrap() - 1).to_string(),
            };
            let problem = problem_after(line, &format!("{name} = {other}"));
            assert!(problem.contains("it was edited") || problem.contains(name), "{problem}");
        }
    }

    #[test]
    fn a_key_of_the_wrong_length_is_named_with_its_line() {
        let full = key(1).to_string();
        let text = genesis(Parameters::default()).to_toml();
        let line = text.lines().position(|line| line.contains(&full)).unwrap() + 1;
        let expected = format!(
            "{line}: key `members.1.key` is \"{}\": expected 64 hexadecimal digits, found 62 bytes of text",
            &full[2..]
        );
        assert_eq!(problem_after(&full, &full[2..]), expected);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_key_and_value() {
        for (from, to, expected) in [
            ("format = 1", "format = 2", "key `format` is 2: this program reads format 1"),
            ("127.0.0.1:4102", "127.0.0.1", "key `members.1.peer` is \"127.0.0.1\": not an address"),
            ("index = 3", "index = 4", "key `members.3.index` is 4: expected 3"),
            ("window = 512", "window = 4096", "key `parameters.window` is 4096: must be at most 1024 slots"),
            ("window = 512", "window = 512\nwidth = 3", "unknown field `width`"),
            ("role = \"voter\"", "role = \"king\"", "key `members.0.role` is \"king\": unknown variant `king`"),
            (&*key(1).to_string(), &*key(0).to_string(), "also the key of member 0"),
            ("clients = \"any\"", "clients = \"none\"", "key `parameters.clients` is \"none\": neither"),
        ] {
            let problem = problem_after(from, to);
            assert!(problem.contains(expected), "{problem}");
        }
    }

    #[test]
    fn three_members_are_no_cluster() {
        let text = genesis(Parameters::default()).to_toml();
        let (three, _) = text.rsplit_once("[[members]]").unwrap();
        let (_folder, path) = written(three);
        let problem = Genesis::load(&path).unwrap_err().to_string();
        assert!(problem.contains("3 members: at least 4"), "{problem}");
    }

    #[test]
    fn another_nonce_is_another_cluster() {
        let one = genesis(Parameters::default());
        let members = one.configuration().members().to_vec();
        let other = Genesis::new(Digest::from_bytes([8; 32]), members, Parameters::default()).unwrap();
        assert_ne!(one.cluster(), other.cluster());
    }
}
