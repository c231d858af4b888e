//! What goes wrong around the replicas, by name: the shapes that partitions, losses and disks take in practice.

use core::fmt;
use core::str::FromStr;

/// A kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Schedule {
    /// None, but for crashes of correct replicas.
    Clean,
    /// One message in ten is lost.
    Loss10,
    /// Three messages in ten are lost.
    Loss30,
    /// Half of the messages arrive twice.
    Dup50,
    /// Messages overtake each other all the time.
    Reorder,
    /// Delays differ by a factor of hundreds; several regions.
    Jitter,
    /// Links stall, and then deliver everything at once.
    Clog,
    /// The replicas fall apart into two groups.
    PartitionHalf,
    /// One replica is cut off.
    IsolateOne,
    /// Somebody speaks and does not hear, or hears and is not heard.
    Asymmetric,
    /// Two groups that only one replica connects.
    Bridge,
    /// Each replica hears its neighbours only.
    Ring,
    /// Partitions come and go.
    Flap,
    /// Replicas stop for a while.
    Pause,
    /// All lose their power at once.
    CrashAll,
    /// Disks tear, rot, stall and refuse.
    DiskFaults,
    /// A replica loses its disk, or gets an old copy of it.
    LostVotes,
    /// Messages of one kind, view or phase are lost.
    Phases,
    /// Anything of all these.
    Mixed,
}

/// A name that is none of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there are no faults `{0}`; there are: {known}", known = Schedule::ALL.map(Schedule::name).join(", "))]
pub struct UnknownSchedule(String);

impl Schedule {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Clean,
        Self::Loss10,
        Self::Loss30,
        Self::Dup50,
        Self::Reorder,
        Self::Jitter,
        Self::Clog,
        Self::PartitionHalf,
        Self::IsolateOne,
        Self::Asymmetric,
        Self::Bridge,
        Self::Ring,
        Self::Flap,
        Self::Pause,
        Self::CrashAll,
        Self::DiskFaults,
        Self::LostVotes,
        Self::Phases,
        Self::Mixed,
    ];

    /// Its name, as on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Loss10 => "loss10",
            Self::Loss30 => "loss30",
            Self::Dup50 => "dup50",
            Self::Reorder => "reorder",
            Self::Jitter => "jitter",
            Self::Clog => "clog",
            Self::PartitionHalf => "partition-half",
            Self::IsolateOne => "isolate-one",
            Self::Asymmetric => "asymmetric",
            Self::Bridge => "bridge",
            Self::Ring => "ring",
            Self::Flap => "flap",
            Self::Pause => "pause",
            Self::CrashAll => "crash-all",
            Self::DiskFaults => "disk-faults",
            Self::LostVotes => "lost-votes",
            Self::Phases => "phases",
            Self::Mixed => "mixed",
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Schedule {
    type Err = UnknownSchedule;

    fn from_str(text: &str) -> Result<Self, UnknownSchedule> {
        let found = Self::ALL.into_iter().find(|schedule| schedule.name() == text);
        found.ok_or_else(|| UnknownSchedule(text.to_owned()))
    }
}
