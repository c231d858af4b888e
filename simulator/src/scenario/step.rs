//! What is done to a cluster, and when.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pattern::Pattern;
use crate::span::Span;

/// Something that is done once: at a moment, or when something happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Written", into = "Written")]
#[schemars(with = "Written")]
pub struct Step {
    /// When.
    pub when: When,
    /// What.
    pub action: Action,
}

/// When something is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    /// At a moment, counted from the start.
    At(Span),
    /// When a replica does something.
    Does(Trap),
}

/// Something that is done once: at a moment, or when a replica does something. It has either `at` or `when`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Step")]
struct Written {
    /// The moment, counted from the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<Span>,
    /// What a replica does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    when: Option<Trap>,
    /// What is done.
    #[serde(rename = "do")]
    action: Action,
}

impl TryFrom<Written> for Step {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let when = match (written.at, written.when) {
            (Some(at), None) => When::At(at),
            (None, Some(trap)) => When::Does(trap),
            _ => return Err("a step has either `at` or `when`"),
        };
        Ok(Self { when, action: written.action })
    }
}

impl From<Step> for Written {
    fn from(step: Step) -> Self {
        let (at, when) = match step.when {
            When::At(at) => (Some(at), None),
            When::Does(trap) => (None, Some(trap)),
        };
        Self { at, when, action: step.action }
    }
}

/// Something that a replica does, at which something else is done: before it leaves the replica, so that a crash there
/// falls between the record on disk and the message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Trap {
    /// Which replica.
    pub replica: u8,
    /// What it does.
    pub does: Deed,
    /// At which time in a row: the first, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<u32>,
}

/// What a replica does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Deed {
    /// It sends a message to one or all: `from` and `to` of the pattern do not count.
    Send(Pattern),
    /// It appends a record to its log.
    Append,
    /// It executes this slot or a later one.
    Execute(u64),
    /// It takes a checkpoint of this slot or a later one.
    TakeCheckpoint(u64),
    /// It cuts its log.
    Cut,
    /// It installs a state that it was sent.
    Install,
    /// It enters this view or a higher one.
    EnterView(u64),
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// A replica loses its power.
    Crash(u8),
    /// All replicas lose their power at once.
    CrashAll,
    /// A replica that is down is started on what its disk holds.
    Restart(u8),
    /// All replicas that are down are started.
    RestartAll,
    /// A replica stops in the middle of what it does; its clocks go on.
    Pause(u8),
    /// A paused replica goes on, with all that came meanwhile.
    Resume(u8),
    /// The replicas are parted into groups that do not hear each other; one that is in no group is alone.
    Partition(Vec<Vec<u8>>),
    /// A replica is out of reach, for clients as well.
    Isolate(u8),
    /// What `0` says does not reach `1`.
    CutLink(u8, u8),
    /// Partitions, isolations and cut links end; rules and the links' own faults stay.
    Join,
    /// How all links behave from now on.
    Links(Links),
    /// How a replica's disk behaves from now on.
    Disk(u8, Disk),
    /// No sync of a replica's disk ends, until it is mended or the replica crashes.
    Stall(u8),
    /// A replica's disk is full: what was appended is kept, and the replica is told.
    Fill(u8),
    /// There is room on a replica's disk again.
    Free(u8),
    /// The next sync of a replica's log fails: its process ends.
    FailSync(u8),
    /// Syncs of a replica's log succeed and keep nothing: its next crash loses all that it recorded since, and so do later
    /// ones. A disk that does so is more than a replica can find out: campaigns have none.
    LieAboutSyncs(u8),
    /// The body of a record in a replica's log rots: counted from the first that is kept, over and over. Only while it is
    /// down; it is found at the next start.
    RotRecord(u8, u64),
    /// A write to a replica's log went astray: what was to be the one record stands in the place of the other, so that neither is
    /// there. Both are counted as for `rot-record`. Only while it is down.
    MisdirectRecord(u8, u64, u64),
    /// The log of a replica that runs is found damaged: it writes anew what a start would need.
    DamageLog(u8),
    /// The state that a replica's application holds in memory rots.
    RotState(u8),
    /// A replica that is down loses its durable checkpoint, but not its log.
    LoseCheckpoint(u8),
    /// A replica that is down loses its whole disk: log, votes and checkpoints.
    LoseDisk(u8),
    /// The disk of the standby beside a replica that is down takes the place of the replica's own, if there is one that took no
    /// place yet.
    Promote(u8),
    /// A copy is made of a replica's disk, with what is durable by then.
    KeepDisk(u8),
    /// A replica that is down gets the copy of its disk in the place of the disk. It may have said by then what the copy
    /// does not know, and to liars alone: it counts among the faulty from then on.
    RollBackDisk(u8),
    /// A replica's wall clock is set wrong by so many milliseconds, or right again by none.
    SetClock(u8, i64),
    /// A client calls: it puts a value under a key of the store.
    Put(u8, String, String),
    /// A client calls: it gets the value under a key of the store, by an ordered read.
    Get(u8, String),
    /// A client calls: it gets the value under a key of the store, by a read that nobody orders if the parameter `fast_reads`
    /// is 1 and enough replicas agree.
    FastGet(u8, String),
    /// A client calls: it deletes a key of the store.
    Delete(u8, String),
    /// A client calls: if the key holds the first value, it gets the second.
    CompareAndSet(u8, String, String, String),
    /// A client in the adversary's hands does one of the things that no correct one does: signs two requests under one name,
    /// numbers out of every window, sessions without end, other clients' names; for all replicas or for few. There are two.
    Abuse(u8),
    /// Everything is mended: the network, the disks, the clocks; whoever is down or paused runs, and from now on every call
    /// of a correct client has to be answered in time.
    Mend,
}

/// How links behave. Delays are `[shortest, mean]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Links {
    /// From sending to arrival.
    pub delay: [Span; 2],
    /// How many of a million never arrive.
    pub loss_ppm: u32,
    /// How many of a million arrive twice.
    pub duplication_ppm: u32,
    /// How many of a million arrive much later than others, up to a hundred times the mean delay.
    pub straggling_ppm: u32,
    /// Whether messages arrive in the order in which they were sent, as in a stream.
    pub in_order: bool,
    /// The region of each replica; all in one, if empty. Clients live in the region of the replica with their number.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<u8>,
    /// From sending to arrival between two regions.
    #[serde(skip_serializing_if = "is_no_time")]
    pub far_delay: [Span; 2],
}

/// How a disk behaves. Delays are `[shortest, mean]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Disk {
    /// How long a sync of the log takes.
    pub sync: [Span; 2],
    /// How long it takes to make a checkpoint durable.
    pub store: [Span; 2],
    /// How many crashes of a million tear the first record that was not synced, rather than losing it.
    pub torn_ppm: u32,
    /// How many records a segment of the log holds.
    pub segment_records: u64,
}

const fn microseconds(min: u64, mean: u64) -> [Span; 2] {
    [Span(core::time::Duration::from_micros(min)), Span(core::time::Duration::from_micros(mean))]
}

fn is_no_time(delay: &[Span; 2]) -> bool {
    *delay == [Span::default(); 2]
}

impl Default for Links {
    fn default() -> Self {
        Self {
            delay: microseconds(200, 500),
            loss_ppm: 0,
            duplication_ppm: 0,
            straggling_ppm: 0,
            in_order: false,
            regions: Vec::new(),
            far_delay: [Span::default(); 2],
        }
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self { sync: microseconds(50, 200), store: microseconds(500, 2_000), torn_ppm: 800_000, segment_records: 16 }
    }
}
