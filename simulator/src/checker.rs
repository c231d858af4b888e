//! What must hold after every step, whatever happens. (PROTOCOL §2)
//!
//! Each invariant is a file; each is fed with all that correct replicas take in and give out, and none asks production
//! code whether it was right: quorum sizes stand in a table here, written by hand.

mod agreement;
mod amnesia;
mod authenticity;
mod checkpoint;
mod durable_before_sent;
mod exactly_once;
mod joins;
mod linearizability;
mod liveness;
mod memory;
mod new_view;
mod prefix;
mod proposals;
mod reads;
mod time;
mod validity;
mod view_change;

use core::fmt;
use std::collections::BTreeSet;

use quorate_crypto::{Digest, PublicKey};
use quorate_protocol::Output;
use quorate_protocol::application::Results;
use quorate_protocol::batch::Request;
use quorate_protocol::codec::Blob;
use quorate_protocol::configuration::Parameters;
use quorate_protocol::message::Message;
use quorate_protocol::number::{RecordNumber, ReplicaId, Sequence};
use quorate_protocol::record::Recovered;
use quorate_protocol::time::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::client::{Answer, Ticket};
use crate::disk::Disk;
use crate::statement::{Said, in_message};

pub use agreement::Agreement;
pub use amnesia::Amnesia;
pub use authenticity::Authenticity;
pub use checkpoint::Checkpoints;
pub use durable_before_sent::DurableBeforeSent;
pub use exactly_once::ExactlyOnce;
pub use joins::Joins;
pub use linearizability::Linearizability;
pub use liveness::Liveness;
pub use memory::{Held, Memory};
pub use new_view::NewViews;
pub use prefix::Prefix;
pub use proposals::Proposals;
pub use reads::Reads;
pub use time::Times;
pub use validity::Validity;
pub use view_change::ViewChanges;

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Invariant {
    /// No two replicas execute different batches at the same slot. (PROTOCOL §2.1)
    Agreement,
    /// Every executed operation was signed by its client, and a quorum committed the batch. (PROTOCOL §2.2)
    Validity,
    /// A request executes at most once. (PROTOCOL §2.3)
    ExactlyOnce,
    /// Slots execute in order without a gap. (PROTOCOL §2.4)
    Prefix,
    /// All roots of the same slot are the same. (PROTOCOL §2.5)
    Checkpoint,
    /// No replica contradicts itself. (PROTOCOL §2.6)
    Amnesia,
    /// What is kept in a replica's name, that one said, and certificates have a quorum. (PROTOCOL §3)
    Authenticity,
    /// Every vote that is sent is on disk, with its batch. (PROTOCOL §3, §4.3)
    DurableBeforeSent,
    /// A view change hides nothing, what is left is left, and votes are cast in views that were entered. (PROTOCOL §7.1, §9)
    ViewChange,
    /// A new view proposes what follows from its view changes, and so whatever was decided. (PROTOCOL §7.3)
    NewView,
    /// A replica leaves its view because a correct one found something wrong. (PROTOCOL §6)
    Joins,
    /// A vote is for what the primary of its view proposed. (PROTOCOL §4.3, §7.4)
    Proposals,
    /// What operations see as the time never goes back, and is near the truth. (PROTOCOL §4.2)
    Time,
    /// What others say takes a bounded room. (PROTOCOL §3, §4)
    Memory,
    /// Answers are true, and their order agrees with real time. (PROTOCOL §2.7)
    Linearizability,
    /// Reads that nobody ordered find what was there while they were under way, and nothing older than others. (PROTOCOL §8)
    Reads,
    /// Requests are answered once faults have stopped. (PROTOCOL §2.8)
    Liveness,
    /// Correct replicas understand each other.
    Understanding,
    /// A replica uses its host as agreed.
    Contract,
}

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub invariant: Invariant,
    /// The step of the world.
    pub step: u64,
    /// When, in true time.
    pub time: Time,
    /// What happened, for a person.
    pub message: String,
}

/// Something that a checker may want to know. Only correct replicas are observed.
#[derive(Debug)]
pub enum Observation<'a> {
    /// A client signed a request.
    Signed(&'a Request),
    /// The next call of a client is a read that need not be ordered, by this operation.
    Reads(Ticket, &'a Blob),
    /// A client called.
    Called(Ticket),
    /// A call was answered.
    Answered(Ticket, &'a Answer),
    /// A replica was started on what its disk held.
    Started {
        /// The replica.
        replica: ReplicaId,
        /// The slot of the durable checkpoint.
        executed: Sequence,
        /// The log.
        records: &'a [(RecordNumber, Recovered)],
    },
    /// A replica asked something of its host.
    Did {
        /// The replica.
        replica: ReplicaId,
        /// What.
        output: &'a Output,
        /// Its disk as it was just before.
        disk: &'a Disk,
    },
    /// By that, it said something in its own name: shown right after it.
    Said {
        /// The replica.
        replica: ReplicaId,
        /// What, by this message and by the certificates in it.
        said: &'a [Said],
        /// The message.
        message: &'a Message,
        /// Its disk as it was just before.
        disk: &'a Disk,
    },
    /// The application ran a slot.
    Executed {
        /// The replica.
        replica: ReplicaId,
        /// The slot.
        sequence: Sequence,
        /// The results.
        results: &'a [Results],
    },
    /// The application's root at a checkpoint was computed.
    Taken {
        /// The replica.
        replica: ReplicaId,
        /// The slot.
        sequence: Sequence,
        /// The root of the application's state.
        root: Digest,
    },
    /// A transferred state replaced the replica's own, on disk too.
    Installed {
        /// The replica.
        replica: ReplicaId,
        /// The slot.
        sequence: Sequence,
        /// The root of the application's state.
        root: Digest,
    },
    /// A replica took something in, and holds so much since.
    Holds {
        /// The replica.
        replica: ReplicaId,
        /// How much.
        held: Held,
    },
    /// From now on a replica may do anything: it counts among the faulty.
    Exempted(ReplicaId),
    /// A test damaged the state of a replica: what it computes from it does not count until it is mended.
    Rotted(ReplicaId),
    /// From now on nothing is lost, and every replica runs.
    Healed,
    /// Faults begin again.
    Broken,
    /// Time passed.
    Tick,
}

/// When something was observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment {
    /// The step of the world.
    pub step: u64,
    /// True time.
    pub time: Time,
}

/// Looks after one invariant.
pub trait Checker: fmt::Debug {
    /// Which one.
    fn invariant(&self) -> Invariant;

    /// Takes note of something.
    ///
    /// # Errors
    /// What is wrong, if the invariant does not hold any more.
    fn observe(&mut self, moment: Moment, observation: &Observation<'_>) -> Result<(), String>;
}

/// How many a cluster needs for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quorums {
    /// The members, n.
    pub members: usize,
    /// Two of this size share a correct member.
    pub quorum: usize,
    /// One of this size has a correct member.
    pub weak: usize,
}

/// n, q and w, written by hand from PROTOCOL §1.
const QUORUMS: [(usize, usize, usize); 13] = [
    (4, 3, 2),
    (5, 4, 2),
    (6, 4, 2),
    (7, 5, 3),
    (8, 6, 3),
    (9, 6, 3),
    (10, 7, 4),
    (11, 8, 4),
    (12, 8, 4),
    (13, 9, 5),
    (16, 11, 6),
    (19, 13, 7),
    (31, 21, 11),
];

impl Quorums {
    /// Those of a cluster of `members`.
    ///
    /// # Panics
    /// If the table does not list that size.
    pub fn of(members: usize) -> Self {
        let row = QUORUMS.iter().find(|row| row.0 == members);
        let &(members, quorum, weak) = row.expect("a simulated cluster has a size that the table lists");
        Self { members, quorum, weak }
    }
}

/// All checkers of a run.
#[derive(Debug)]
pub struct Checkers {
    all: Vec<Box<dyn Checker>>,
    members: u64,
    faulty: BTreeSet<ReplicaId>,
    /// Correct, but for a state that rotted once: it may have to contradict what it said of it.
    rotted: BTreeSet<ReplicaId>,
    violation: Option<Violation>,
    /// Nothing is looked at any more.
    is_off: bool,
}

impl Checkers {
    /// Checkers for a cluster of `members` with these parameters, in which every call is answered within `bound` once nothing goes wrong any more.
    pub fn new(members: usize, parameters: &Parameters, bound: core::time::Duration) -> Self {
        let quorums = Quorums::of(members);
        let Parameters { checkpoint_interval, window, fast_reads, .. } = *parameters;
        let reads = fast_reads.then(|| Box::new(Reads::of_stores()) as Box<dyn Checker>);
        Self {
            all: reads
                .into_iter()
                .chain([
                    Box::new(Agreement::default()) as Box<dyn Checker>,
                    Box::new(Validity::new(quorums)),
                    Box::new(ExactlyOnce::default()),
                    Box::new(Prefix::new(checkpoint_interval)),
                    Box::new(Checkpoints::new(quorums)),
                    Box::new(Amnesia::default()),
                    Box::new(DurableBeforeSent::default()),
                    Box::new(ViewChanges::new(window)),
                    Box::new(NewViews::new(quorums)),
                    Box::new(Joins::default()),
                    Box::new(Proposals::default()),
                    Box::new(Times::default()),
                    Box::new(Authenticity::new(quorums)),
                    Box::new(Linearizability::default()),
                    Box::new(Memory::new(window)),
                    // The last: the one that looks at the time.
                    Box::new(Liveness::new(bound)),
                ])
                .collect(),
            members: members as u64,
            faulty: BTreeSet::new(),
            rotted: BTreeSet::new(),
            violation: None,
            is_off: false,
        }
    }

    /// From now on nothing is looked at, and what was found is forgotten: more than f are faulty, and what comes of it is wanted.
    pub fn switch_off(&mut self) {
        (self.is_off, self.violation) = (true, None);
    }

    /// From now on nothing that `replica` does is observed, and it may have said anything.
    pub fn exempt(&mut self, replica: ReplicaId) {
        self.faulty.insert(replica);
        self.observe(Moment::default(), &Observation::Exempted(replica));
    }

    /// Whether a replica is one that may do anything.
    pub fn is_faulty(&self, replica: ReplicaId) -> bool {
        self.faulty.contains(&replica)
    }

    /// Whether a proof against a replica may be true: it is faulty, or its state rotted once.
    pub fn may_be_accused(&self, replica: ReplicaId) -> bool {
        self.is_faulty(replica) || self.rotted.contains(&replica)
    }

    /// The first violation.
    pub const fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Shows something to all checkers. Nothing is shown after the first violation.
    pub fn observe(&mut self, moment: Moment, observation: &Observation<'_>) {
        if self.is_off
            || self.violation.is_some()
            || observation.replica().is_some_and(|replica| self.is_faulty(replica))
        {
            return;
        }
        if let Observation::Rotted(replica) = observation {
            self.rotted.insert(*replica);
        }
        self.show(moment, observation);
        if let Some((said, message)) = observation.said(self.members)
            && self.violation.is_none()
            && let Observation::Did { replica, disk, .. } = observation
        {
            self.show(moment, &Observation::Said { replica: *replica, said: &said, message, disk });
        }
    }

    fn show(&mut self, moment: Moment, observation: &Observation<'_>) {
        // Both come with every step, and concern the last two alone.
        let is_of_few = matches!(observation, Observation::Tick | Observation::Holds { .. });
        let first = if is_of_few { self.all.len() - 2 } else { 0 };
        for checker in &mut self.all[first..] {
            if let Err(message) = checker.observe(moment, observation) {
                let invariant = checker.invariant();
                self.violation = Some(Violation { invariant, step: moment.step, time: moment.time, message });
                return;
            }
        }
    }

    /// Notes what the world itself saw.
    pub fn report(&mut self, moment: Moment, invariant: Invariant, message: String) {
        if self.is_off {
            return;
        }
        let violation = Violation { invariant, step: moment.step, time: moment.time, message };
        self.violation.get_or_insert(violation);
    }
}

impl Observation<'_> {
    fn replica(&self) -> Option<ReplicaId> {
        match self {
            Self::Started { replica, .. }
            | Self::Did { replica, .. }
            | Self::Said { replica, .. }
            | Self::Executed { replica, .. }
            | Self::Taken { replica, .. }
            | Self::Installed { replica, .. }
            | Self::Holds { replica, .. }
            | Self::Rotted(replica) => Some(*replica),
            Self::Signed(_)
            | Self::Reads(..)
            | Self::Called(_)
            | Self::Answered(..)
            | Self::Exempted(_)
            | Self::Healed
            | Self::Broken
            | Self::Tick => None,
        }
    }
}

impl<'a> Observation<'a> {
    /// What a replica says in its own name by what it does, if anything, and with which message.
    fn said(&self, members: u64) -> Option<(Vec<Said>, &'a Message)> {
        let Self::Did { replica, output: Output::Send { message, .. } | Output::Broadcast(message), .. } = self else {
            return None;
        };
        let mut said = in_message(message, members);
        // Statements of others do not count: they may be faulty.
        said.retain(|said| said.replica == *replica);
        (!said.is_empty()).then_some((said, message))
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { invariant, step, time, message } = self;
        let seconds = time.nanoseconds() / 1_000_000_000;
        let microseconds = time.nanoseconds() / 1_000 % 1_000_000;
        write!(formatter, "{invariant:?} violated at step {step}, {seconds}.{microseconds:06} s: {message}")
    }
}

/// A client's name in an account: the first bytes of its key.
fn short(key: &PublicKey) -> String {
    key.to_string().chars().take(8).collect()
}

/// Shows something to a checker of a cluster of `members`, at no particular time, and what a replica says by it.
#[cfg(any(test, feature = "model"))]
pub(crate) fn show_in(members: u64, checker: &mut dyn Checker, observation: &Observation<'_>) -> Result<(), String> {
    checker.observe(Moment::default(), observation)?;
    let (Some((said, message)), Observation::Did { replica, disk, .. }) = (observation.said(members), observation)
    else {
        return Ok(());
    };
    checker.observe(Moment::default(), &Observation::Said { replica: *replica, said: &said, message, disk })
}

/// The same in a cluster of four.
#[cfg(test)]
fn show(checker: &mut dyn Checker, observation: &Observation<'_>) -> Result<(), String> {
    show_in(4, checker, observation)
}

/// What a checker finds wrong with a history of outputs.
#[cfg(test)]
fn violation_of(checker: &mut dyn Checker, history: &[(u8, Output)]) -> Option<String> {
    let disk = Disk::new(crate::disk::DiskOptions::default());
    history.iter().find_map(|(replica, output)| {
        let observation = Observation::Did { replica: ReplicaId::new(*replica), output, disk: &disk };
        show(checker, &observation).err()
    })
}
