//! `replica.toml`: which replica a folder belongs to, and what concerns its machine alone.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use quorate_crypto::SigningKey;
use quorate_protocol::configuration::Parameters;
use quorate_protocol::kv::LIMIT_BYTES_DEFAULT;
use quorate_protocol::number::ReplicaId;
use serde::Deserialize;

use super::address;
use super::document::Document;
use super::file_error::FileError;
use super::genesis::Genesis;
use super::key_file;
use super::quantity::{Size, parse_positive_duration};

/// The file's name in the replica's folder.
pub(super) const FILE: &str = "replica.toml";

/// The folder of what a replica writes, in its own, unless its file says otherwise.
pub(super) const DATA: &str = "data";

/// The folder of its log, in that.
pub(crate) const LOG: &str = "log";

/// The folder of its checkpoints, in that.
pub(crate) const STATE: &str = "state";

/// Largest datagram that is ever tried, in bytes: above it a burst of them no longer fits what the kernel takes at once.
const MTU_MAX: u16 = 6500;

/// Smallest datagram that QUIC works with, in bytes. (RFC 9000 §14)
const MTU_MIN: u16 = 1200;

/// Most threads of a runtime.
const THREADS_MAX: usize = 64;

/// The folder of proofs of misbehaviour, in that.
pub(crate) const EVIDENCE: &str = "evidence";

/// One MiB, in bytes.
const MIB: u64 = 1 << 20;

/// What a block of a log segment takes, in bytes.
const BLOCK_BYTES: u64 = 4096;

/// What a transferred state may take unless it is said: a full store of the default size, sessions and replies.
const STATE_BYTES_DEFAULT: u64 = 9 << 30;

const _: () = assert!(STATE_BYTES_DEFAULT >= LIMIT_BYTES_DEFAULT + (1 << 30), "a full store can be transferred");

/// What is fetched of a state in a second unless it is said.
const TRANSFER_RATE_DEFAULT: u64 = 20 << 20;

/// The least of that: one part of a state every few seconds.
const TRANSFER_RATE_MIN: u64 = 64 << 10;

/// What is read of the state on the disk in a second unless it is said: ten gigabytes in less than an hour.
const SCRUB_RATE_DEFAULT: u64 = 4 << 20;

/// What a replica may use of its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Length of a segment of the log: a multiple of 4 KiB, at least 1 MiB and at most 1 GiB.
    pub log_segment_bytes: Size,
    /// Most that the log takes on disk: at least [`Resources::disk_bytes_min`].
    pub disk_bytes_max: Size,
    /// Most that entries of a state that is fetched may take in memory before they can be checked, 64 bytes counted for each:
    /// what a peer that lies can make this replica hold. A bucket is checked as a whole and may hold any part of a state, so
    /// this is more than the cluster's state ever takes.
    pub state_bytes_max: Size,
    /// Most that is fetched of a state in a second, about: the rest of the machine's time is for the cluster.
    pub transfer_bytes_per_second: Size,
    /// Most that is read of the state on the disk in a second to see whether it is still what was written; with 0 nothing is.
    pub scrub_bytes_per_second: Size,
    /// Largest datagram that is tried, in bytes: 1200 to 6500. Above 1452 only where all links carry it.
    pub mtu_max: u16,
    /// Threads of the runtime, 1 to 64; `None` is one a processor.
    pub threads: Option<NonZeroUsize>,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            log_segment_bytes: Size::new(64 << 20),
            disk_bytes_max: Size::new(4 << 30),
            state_bytes_max: Size::new(STATE_BYTES_DEFAULT),
            transfer_bytes_per_second: Size::new(TRANSFER_RATE_DEFAULT),
            scrub_bytes_per_second: Size::new(SCRUB_RATE_DEFAULT),
            mtu_max: 1452,
            threads: None,
        }
    }
}

impl Resources {
    /// The least that the log may be given: twice the batches of a window, in the votes on them and in what was learned
    /// from others, and three segments, of which one is written, one is cut and one is made ahead. With less a log might
    /// be full before the next stable checkpoint, which alone gives it room again. In whole MiB.
    pub fn disk_bytes_min(&self, parameters: &Parameters) -> Size {
        let batches = parameters.window.saturating_mul(parameters.batch_bytes_max.into()).saturating_mul(2);
        let bytes = batches.saturating_add(self.log_segment_bytes.bytes().saturating_mul(3));
        Size::new(bytes.div_ceil(MIB).saturating_mul(MIB))
    }

    /// The same with room for a log of these parameters.
    pub(super) fn fitting(self, parameters: &Parameters) -> Self {
        Self { disk_bytes_max: self.disk_bytes_max.max(self.disk_bytes_min(parameters)), ..self }
    }

    /// Threads of the runtime on this machine.
    pub fn threads(&self) -> usize {
        let processors = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.threads.map_or_else(processors, NonZeroUsize::get).min(THREADS_MAX)
    }
}

/// What is recorded of the core's inputs, for `quorate replay`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recording {
    /// Whether anything is.
    pub is_on: bool,
    /// Most that recordings take on disk: at least 1 MiB. The earliest starts make room; the last one ends there.
    pub bytes_max: Size,
}

impl Default for Recording {
    fn default() -> Self {
        Self { is_on: false, bytes_max: Size::new(1 << 30) }
    }
}

/// What the process of a replica's folder does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It is the member, and votes.
    #[default]
    Voter,
    /// It stands by the member, under a key of its own: it executes what the members decide, and never votes. (PROTOCOL §11)
    Standby,
}

/// What a replica's folder says of itself, whose key and genesis need not be there: a copy for others to read.
#[derive(Debug)]
pub(crate) struct Outline {
    /// Which member it is of, or stands by.
    pub(crate) id: ReplicaId,
    /// The folder of its log.
    pub(crate) data: PathBuf,
}

impl Outline {
    /// Reads `replica.toml` in `folder`, and nothing else.
    ///
    /// # Errors
    /// [`FileError`] says what is wrong in it and how to mend it.
    pub(crate) fn load(folder: &Path) -> Result<Self, FileError> {
        let file: ReplicaFile = Document::read(&folder.join(FILE))?.parse()?;
        Ok(Self { id: ReplicaId::new(file.replica), data: folder.join(&file.data) })
    }
}

/// Everything that a replica starts with.
#[derive(Debug)]
pub struct ReplicaConfiguration {
    /// Which member it is, or stands by.
    pub id: ReplicaId,
    /// Whether it is that member.
    pub role: Role,
    /// From one checkpoint that a warm standby fetches to the next; none where it is a hot one, or the member.
    pub every: Option<Duration>,
    /// The cluster that it belongs to.
    pub genesis: Genesis,
    /// Its private key: a voter's is the one whose public half the genesis lists.
    pub key: SigningKey,
    /// The folder of its log and checkpoints.
    pub data: PathBuf,
    /// `host:port` on which it listens for other replicas; a standby does not.
    pub listen_peer: String,
    /// `host:port` on which it listens for clients.
    pub listen_client: String,
    /// `host:port` that is set aside for its operator, at which nothing listens yet.
    pub admin: Option<String>,
    /// What it may use of its machine.
    pub resources: Resources,
    /// What it records.
    pub recording: Recording,
}

impl ReplicaConfiguration {
    /// Reads and checks `replica.toml` in `folder`, and the genesis and the key that it names.
    ///
    /// # Errors
    /// [`FileError`] says what is wrong in which file and how to mend it.
    pub fn load(folder: &Path) -> Result<Self, FileError> {
        let document = Document::read(&folder.join(FILE))?;
        let file: ReplicaFile = document.parse()?;
        let resources = file.resources.check(&document)?;
        let recording = file.recording.check(&document)?;
        let genesis = Genesis::load(&folder.join(&file.genesis))?;
        let disk_bytes_min = resources.disk_bytes_min(genesis.configuration().parameters());
        if resources.disk_bytes_max < disk_bytes_min {
            let problem = format!(
                "the log needs {disk_bytes_min}: twice `window` times `batch_bytes_max` of the genesis, and three segments"
            );
            let mend = format!("write disk_bytes_max = \"{disk_bytes_min}\" or more, if the disk has that room");
            return Err(document.refuse_key("resources.disk_bytes_max", problem, mend));
        }
        let id = ReplicaId::new(file.replica);
        let Some(member) = genesis.configuration().member(id) else {
            let problem = format!("the genesis lists the members 0 to {}", genesis.configuration().size() - 1);
            return Err(document.refuse_key("replica", problem, "give each machine the folder of its own replica"));
        };
        let key = key_file::load(&folder.join(&file.key))?;
        if file.role == Role::Standby && genesis.configuration().member_with_key(&key.public_key()).is_some() {
            let problem = "it holds the key of a member, and a standby has one of its own";
            let mend =
                "make the folder with `quorate standby create`; `quorate standby promote` gives it a member's key";
            return Err(document.refuse_key("key", problem, mend));
        }
        if file.role == Role::Voter && key.public_key() != member.key {
            let problem = format!("it holds the key {}, but replica {id} has {}", key.public_key(), member.key);
            return Err(document.refuse_key("key", problem, "give each machine the folder of its own replica"));
        }
        Ok(Self {
            listen_peer: listen(&document, "listen.peer", file.listen.peer, &member.peer_address)?,
            listen_client: listen(&document, "listen.client", file.listen.client, &member.client_address)?,
            admin: file.admin.map(|admin| checked(&document, "admin", admin)).transpose()?,
            data: folder.join(&file.data),
            id,
            role: file.role,
            every: file.every.map(|every| read_every(&document, file.role, &every)).transpose()?,
            key,
            genesis,
            resources,
            recording,
        })
    }
}

/// The text of `replica.toml` for replica `id`.
pub(super) fn to_toml(id: ReplicaId, admin: &str, resources: &Resources) -> String {
    let resources = resources_toml(resources);
    format!(
        "\
# Replica {id}: what concerns its machine alone. Paths are relative to this folder.

replica = {id}
genesis = \"../genesis.toml\"
key = \"replica.key\"
data = \"data\"

# Set aside for the operator: nothing listens there yet. `quorate status` asks the replicas where their clients do.
admin = \"{admin}\"

# Where it listens, if that differs from its addresses in the genesis, for instance behind a translation of addresses.
[listen]
# peer = \"0.0.0.0:4100\"
# client = \"0.0.0.0:4101\"

{resources}"
    )
}

/// The text of `replica.toml` for a standby beside replica `id`.
pub(super) fn standby_toml(
    id: ReplicaId,
    listen_client: &str,
    every: Option<Duration>,
    resources: &Resources,
) -> String {
    let resources = resources_toml(resources);
    let every =
        every.map_or_else(|| "# every = \"60s\"".to_owned(), |every| format!("every = \"{}ms\"", every.as_millis()));
    format!(
        "\
# A standby beside replica {id}, whose place it may take. Paths are relative to this folder.

role = \"standby\"
replica = {id}
genesis = \"genesis.toml\"
key = \"standby.key\"
data = \"data\"

# A warm standby fetches a whole checkpoint so often; without this line it is a hot one, which executes every slot.
{every}

# Where it answers clients.
[listen]
client = \"{listen_client}\"

{resources}"
    )
}

/// The text of `replica.toml` for a standby that has become replica `id`.
pub(super) fn promoted_toml(id: ReplicaId, resources: &Resources) -> String {
    let resources = resources_toml(resources);
    format!(
        "\
# Replica {id}, which was a standby. Paths are relative to this folder.

replica = {id}
genesis = \"genesis.toml\"
key = \"replica.key\"
data = \"data\"

# Where it listens, if that differs from its addresses in the genesis, for instance behind a translation of addresses.
[listen]
# peer = \"0.0.0.0:4100\"
# client = \"0.0.0.0:4101\"

{resources}"
    )
}

fn resources_toml(resources: &Resources) -> String {
    let Resources {
        log_segment_bytes,
        disk_bytes_max,
        state_bytes_max,
        transfer_bytes_per_second,
        scrub_bytes_per_second,
        mtu_max,
        threads,
    } = resources;
    let threads = threads.map_or_else(|| "# threads = 2".to_owned(), |threads| format!("threads = {threads}"));
    let recording = Recording::default().bytes_max;
    format!(
        "\
[resources]
# A segment of the log, and the most that all of them take on disk.
log_segment_bytes = \"{log_segment_bytes}\"
disk_bytes_max = \"{disk_bytes_max}\"
# The most that what is fetched of a state may take in memory until it can be checked: more than the cluster's state takes.
state_bytes_max = \"{state_bytes_max}\"
# The most that is fetched of a state in a second while the cluster goes on.
transfer_bytes_per_second = \"{transfer_bytes_per_second}\"
# The most that is read of the state on the disk in a second, to find what rots there. 0 to leave it alone.
scrub_bytes_per_second = \"{scrub_bytes_per_second}\"
# Largest datagram to try, in bytes. Up to 6500 where every link between the replicas carries it, else 1452.
mtu_max = {mtu_max}
# Threads of the runtime; one a processor if it is not set.
{threads}

# What the core is fed with, kept for `quorate replay`. It costs time and disk; --record switches it on for one run.
[recording]
# on = true
# The most that recordings take on disk: the earliest starts make room, and the last one ends there.
# bytes_max = \"{recording}\"
"
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplicaFile {
    replica: u8,
    #[serde(default)]
    role: Role,
    every: Option<String>,
    genesis: PathBuf,
    key: PathBuf,
    data: PathBuf,
    admin: Option<String>,
    #[serde(default)]
    listen: ListenTable,
    #[serde(default)]
    resources: ResourcesTable,
    #[serde(default)]
    recording: RecordingTable,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenTable {
    peer: Option<String>,
    client: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourcesTable {
    log_segment_bytes: Option<Size>,
    disk_bytes_max: Option<Size>,
    state_bytes_max: Option<Size>,
    transfer_bytes_per_second: Option<Size>,
    scrub_bytes_per_second: Option<Size>,
    mtu_max: Option<u16>,
    threads: Option<usize>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordingTable {
    on: Option<bool>,
    bytes_max: Option<Size>,
}

impl RecordingTable {
    fn check(self, document: &Document) -> Result<Recording, FileError> {
        let default = Recording::default();
        let bytes_max = self.bytes_max.unwrap_or(default.bytes_max);
        if bytes_max.bytes() < MIB {
            let mend = "correct it, or remove the line to have the default";
            return Err(document.refuse_key("recording.bytes_max", "must be at least 1MiB", mend));
        }
        Ok(Recording { is_on: self.on.unwrap_or(default.is_on), bytes_max })
    }
}

impl ResourcesTable {
    fn check(self, document: &Document) -> Result<Resources, FileError> {
        let default = Resources::default();
        let log_segment_bytes = self.log_segment_bytes.unwrap_or(default.log_segment_bytes);
        let disk_bytes_max = self.disk_bytes_max.unwrap_or(default.disk_bytes_max);
        let state_bytes_max = self.state_bytes_max.unwrap_or(default.state_bytes_max);
        let transfer_bytes_per_second = self.transfer_bytes_per_second.unwrap_or(default.transfer_bytes_per_second);
        let scrub_bytes_per_second = self.scrub_bytes_per_second.unwrap_or(default.scrub_bytes_per_second);
        let mtu_max = self.mtu_max.unwrap_or(default.mtu_max);
        let segment = log_segment_bytes.bytes();
        let segment_fits = (1 << 20..=1 << 30).contains(&segment) && segment.is_multiple_of(BLOCK_BYTES);
        let relations = [
            ("log_segment_bytes", "must be a multiple of 4KiB from 1MiB to 1GiB", segment_fits),
            (
                "transfer_bytes_per_second",
                "must be at least 64KiB",
                transfer_bytes_per_second.bytes() >= TRANSFER_RATE_MIN,
            ),
            ("mtu_max", "must be 1200 to 6500", (MTU_MIN..=MTU_MAX).contains(&mtu_max)),
            ("threads", "must be 1 to 64", self.threads.is_none_or(|threads| (1..=THREADS_MAX).contains(&threads))),
        ];
        if let Some((name, relation, _)) = relations.into_iter().find(|(_, _, holds)| !holds) {
            let mend = "correct it, or remove the line to have the default";
            return Err(document.refuse_key(&format!("resources.{name}"), relation, mend));
        }
        let threads = self.threads.and_then(NonZeroUsize::new);
        Ok(Resources {
            log_segment_bytes,
            disk_bytes_max,
            state_bytes_max,
            transfer_bytes_per_second,
            scrub_bytes_per_second,
            mtu_max,
            threads,
        })
    }
}

fn read_every(document: &Document, role: Role, text: &str) -> Result<Duration, FileError> {
    let every = match (role, parse_positive_duration(text)) {
        (Role::Standby, Ok(every)) => return Ok(every),
        (Role::Standby, Err(error)) => error.to_string(),
        (Role::Voter, _) => "only a standby fetches checkpoints at an interval".to_owned(),
    };
    Err(document.refuse_key("every", every, "write it like \"60s\", or remove the line for a hot standby"))
}

fn listen(document: &Document, key: &str, own: Option<String>, stated: &str) -> Result<String, FileError> {
    own.map_or_else(|| Ok(stated.to_owned()), |own| checked(document, key, own))
}

fn checked(document: &Document, key: &str, text: String) -> Result<String, FileError> {
    match address::refuse(&text) {
        Some(problem) => Err(document.refuse_key(key, problem, address::MEND)),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::configuration::network::{Network, Plan};

    fn network() -> TempDir {
        let root = tempfile::tempdir().unwrap();
        Network::create(&root.path().join("net"), Plan::on_loopback(4, 4100)).unwrap();
        root
    }

    /// What is said of replica 0's file with `from` replaced by `to`, from the line number on.
    fn problem_after(from: &str, to: &str) -> String {
        let root = network();
        let folder = root.path().join("net/replica-0");
        let text = fs::read_to_string(folder.join(FILE)).unwrap();
        assert!(text.contains(from), "{from} in {text}");
        fs::write(folder.join(FILE), text.replacen(from, to, 1)).unwrap();
        let error = ReplicaConfiguration::load(&folder).unwrap_err();
        assert!(error.mend().is_some(), "{error}");
        error.to_string().replace(&format!("{}:", folder.join(FILE).display()), "")
    }

    #[test]
    fn the_folder_of_a_replica_says_all_that_it_starts_with() {
        let root = network();
        let replica = ReplicaConfiguration::load(&root.path().join("net/replica-2")).unwrap();
        assert_eq!(replica.id, ReplicaId::new(2));
        assert_eq!((&*replica.listen_peer, &*replica.listen_client), ("127.0.0.1:4104", "127.0.0.1:4105"));
        assert_eq!(replica.admin.as_deref(), Some("127.0.0.1:4202"));
        assert_eq!(replica.resources, Resources::default());
        assert_eq!(replica.key.public_key(), replica.genesis.configuration().members()[2].key);
        assert!(replica.data.is_dir());
    }

    #[test]
    fn an_address_to_listen_on_may_differ_from_the_one_in_the_genesis() {
        let root = network();
        let folder = root.path().join("net/replica-0");
        let text = fs::read_to_string(folder.join(FILE)).unwrap();
        fs::write(folder.join(FILE), text.replace("# peer =", "peer =")).unwrap();
        let replica = ReplicaConfiguration::load(&folder).unwrap();
        assert_eq!((&*replica.listen_peer, &*replica.listen_client), ("0.0.0.0:4100", "127.0.0.1:4101"));
    }

    #[test]
    fn a_wrong_value_is_named_with_line_key_and_value() {
        for (from, to, expected) in [
            ("# peer = \"0.0.0.0:4100\"", "peer = \"1.2.3\"", "13: key `listen.peer` is \"1.2.3\": not an address"),
            ("127.0.0.1:4200", "here", "9: key `admin` is \"here\": not an address"),
            ("replica = 0", "replica = 4", "3: key `replica` is 4: the genesis lists the members 0 to 3"),
            ("mtu_max = 1452", "mtu_max = 9000", "27: key `resources.mtu_max` is 9000: must be 1200 to 6500"),
            ("\"64MiB\"", "\"64MB\"", "18: key `resources.log_segment_bytes` is \"64MB\": `MB` is no unit"),
            ("\"64MiB\"", "\"1000001\"", "18: key `resources.log_segment_bytes` is \"1000001\": must be a multiple"),
            ("\"4GiB\"", "\"703MiB\"", "19: key `resources.disk_bytes_max` is \"703MiB\": the log needs 704MiB: twice"),
            (
                "transfer_bytes_per_second = \"20MiB\"",
                "transfer_bytes_per_second = \"1KiB\"",
                "23: key `resources.transfer_bytes_per_second` is \"1KiB\": must be at least 64KiB",
            ),
            ("# threads = 2", "threads = 0", "29: key `resources.threads` is 0: must be 1 to 64"),
            ("# bytes_max = \"1GiB\"", "bytes_max = \"1KiB\"", "35: key `recording.bytes_max` is \"1KiB\": must be at"),
            ("data = ", "date = ", "6: unknown field `date`"),
        ] {
            let problem = problem_after(from, to);
            assert!(problem.starts_with(expected), "{problem}");
        }
    }

    #[test]
    fn a_folder_with_another_replicas_number_is_refused_by_its_key() {
        let problem = problem_after("replica = 0", "replica = 1");
        assert!(problem.starts_with("5: key `key` is \"replica.key\": it holds the key "), "{problem}");
    }
}
