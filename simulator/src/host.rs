//! One machine: clocks, a disk, a replica or an adversary that runs on it, and its copy of the application.
//!
//! The host does what `output.rs` of the protocol says, no more: the world calls it, and tells it how long things take.

use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use quorate_crypto::Digest;
use quorate_protocol::application::{Change, Execution, Reading, Replicated, Results};
use quorate_protocol::codec::Blob;
use quorate_protocol::configuration::Configuration;
use quorate_protocol::input::{Input, StageReady, TransferLimits};
use quorate_protocol::message::{Entry, Message, Part, Status, Want};
use quorate_protocol::number::{Epoch, RecordNumber, ReplicaId, Sequence, View};
use quorate_protocol::output::{NotVoting, StagedBucket};
use quorate_protocol::record::Recovered;
use quorate_protocol::refusal::Refusal;
use quorate_protocol::time::Time;
use quorate_protocol::{Machine, Now};

use crate::checker::Held;
use crate::clock::Clock;
use crate::disk::{Disk, Staged, State};
use crate::parts::part_of;
use crate::signature::SharedSigner;
use crate::staging::staged_entries;
use crate::world::Event;

/// Little, so that a transfer has to wait for both.
pub(crate) const TRANSFER_LIMITS: TransferLimits =
    TransferLimits { unchecked_bytes_max: 1 << 20, bytes_per_second: 1 << 20 };

/// How long a state stays readable after a peer last read a part of it.
const READ_LATELY: Duration = Duration::from_secs(5);

/// What a machine starts a replica with: all that is durable.
#[derive(Debug)]
pub struct Boot {
    /// Which replica it is.
    pub id: ReplicaId,
    /// The member beside which it is a standby, if it is one.
    pub stands_by: Option<ReplicaId>,
    /// The configuration of the cluster.
    pub configuration: Arc<Configuration>,
    /// The replica's key.
    pub signer: SharedSigner,
    /// The durable checkpoint.
    pub checkpoint: Option<BootCheckpoint>,
    /// The log.
    pub records: Vec<(RecordNumber, Recovered)>,
    /// The number of the next record.
    pub next_record: RecordNumber,
    /// A number that no start had before.
    pub token: u64,
}

/// The durable checkpoint, without the application's part.
#[derive(Debug, Clone)]
pub struct BootCheckpoint {
    /// Its slot.
    pub sequence: Sequence,
    /// The root of the application's state.
    pub application_root: Digest,
    /// The protocol's entries.
    pub protocol: Vec<Entry>,
}

/// How far a subject says that it came. Asked for by tests and accounts, never by checkers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The view that it is in or asks for.
    pub view: View,
    /// Whether it takes part in that view.
    pub is_in_view: bool,
    /// The last slot that it executed.
    pub executed: Sequence,
    /// The low watermark.
    pub stable: Sequence,
}

/// What runs on a host: a replica, or an adversary in its place.
pub trait Subject: Machine {
    /// How far it came, if it tells.
    fn standing(&self) -> Option<Standing> {
        None
    }

    /// What it is doing, for a person.
    fn occupation(&self) -> String {
        String::new()
    }

    /// How much it holds of what others said, if it tells.
    fn held(&self) -> Option<Held> {
        None
    }

    /// How often it did what a script says, since it was started.
    fn reactions(&self) -> u64 {
        0
    }

    /// Whether a message of a peer may still matter to it: what does not can be dropped unchecked.
    fn is_wanted(&self, _from: ReplicaId, _message: &Message) -> bool {
        true
    }

    /// The configuration of the epoch in which it takes part, if it tells.
    fn configuration(&self) -> Option<&Arc<Configuration>> {
        None
    }

    /// The epoch in which it may answer reads from its executed state, if it may.
    fn reads_in(&self) -> Option<Epoch> {
        None
    }

    /// Why it votes on nothing, if it tells and does not vote.
    fn not_voting(&self) -> Option<NotVoting> {
        None
    }

    /// What it answers to what a standby says of itself.
    fn tell_standby(&self, _said: &Status) -> Vec<Message> {
        Vec::new()
    }

    /// The slots after this one that it hands out to a standby, with batches of about so many bytes.
    fn decided_for_standby(&self, _after: Sequence, _bytes_max: usize) -> Vec<Message> {
        Vec::new()
    }

    /// How often it refused something for this reason since it started, if it tells.
    fn refusals(&self, _refusal: Refusal) -> u64 {
        0
    }
}

/// Makes what runs on a host from what is durable there.
pub type Builder = Box<dyn FnMut(Boot, Now) -> Result<Box<dyn Subject>, String>>;

/// Makes an application in its initial state.
pub type ApplicationMaker = fn() -> Replicated;

/// Work for the application, done one after the other.
#[derive(Debug)]
pub(crate) enum Work {
    Execute(Execution),
    TakeCheckpoint {
        sequence: Sequence,
        protocol: Vec<Change>,
    },
    /// The checkpoint is hashed.
    Taken(Arc<State>),
    BeginStaging {
        afresh: bool,
    },
    EndStaging {
        sequence: Sequence,
        protocol: Vec<Entry>,
    },
    Install,
}

/// What came of a piece of work.
#[derive(Debug)]
pub(crate) enum Done {
    /// To be told to the replica.
    Input(Input),
    /// To be told to the replica; and a state to make durable.
    Taken { input: Input, state: Arc<State> },
    /// A transferred state to make durable.
    Installed(Arc<State>),
    /// What was asked for makes no sense here.
    Nonsense(&'static str),
}

/// A state that was put together.
#[derive(Debug)]
struct Whole {
    state: State,
    application: Replicated,
}

/// What became of rot in the application's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rot {
    /// There is none.
    None,
    Present,
    /// The state that replaces it is not durable yet: a crash brings it back.
    BeingReplaced,
}

/// One machine of the cluster.
pub(crate) struct Host {
    pub(crate) id: ReplicaId,
    /// The member beside which it is a standby, if it is one.
    stands_by: Option<ReplicaId>,
    pub(crate) clock: Clock,
    pub(crate) disk: Disk,
    /// `None` while it is down.
    pub(crate) subject: Option<Box<dyn Subject>>,
    /// How often it was started: what an earlier start began does not reach a later one.
    pub(crate) incarnation: u64,
    /// The earliest wake-up under way, in true time.
    pub(crate) wake_at: Option<Time>,
    /// Wake-ups in a row that left a deadline in the past.
    pub(crate) idle_wakes: u32,
    /// While it is paused: what happens to it, to be handled when it is resumed.
    pub(crate) held: Option<Vec<Event>>,
    pub(crate) work: VecDeque<Work>,
    application: Replicated,
    make_application: ApplicationMaker,
    /// The slot of the checkpoint that the application took last, or was restored from.
    base: Sequence,
    /// The application's entries as of the last checkpoint taken or installed.
    entries: BTreeMap<Bytes, Bytes>,
    /// The protocol's entries as of the same.
    protocol_entries: BTreeMap<Bytes, Bytes>,
    /// Checkpoints that may become stable: bounded by the window over the interval of checkpoints.
    taken: BTreeMap<Sequence, Arc<State>>,
    /// The stable checkpoint, as long as it is readable.
    stable: Option<Arc<State>>,
    /// The state that a peer read last, and when.
    read: Option<(Arc<State>, Time)>,
    /// The same for standbys, so that they change nothing for peers.
    lent: Option<(Arc<State>, Time)>,
    whole: Option<Whole>,
    /// Whether its disk has no room, but for records that were handed over already.
    pub(crate) is_disk_full: bool,
    rot: Rot,
    pub(crate) part_entries_max: usize,
}

impl fmt::Debug for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Host")
            .field("id", &self.id)
            .field("is_running", &self.subject.is_some())
            .field("incarnation", &self.incarnation)
            .finish_non_exhaustive()
    }
}

/// The leaves of an application's tree.
pub(crate) fn leaves_of(application: &Replicated) -> Vec<Digest> {
    application.index().row(application.index().depth())
}

impl Host {
    pub(crate) fn new(
        id: ReplicaId,
        clock: Clock,
        disk: Disk,
        make_application: ApplicationMaker,
        part_entries_max: usize,
    ) -> Self {
        Self {
            id,
            stands_by: None,
            clock,
            disk,
            subject: None,
            incarnation: 0,
            wake_at: None,
            idle_wakes: 0,
            held: None,
            work: VecDeque::new(),
            application: make_application(),
            make_application,
            base: Sequence::ZERO,
            entries: BTreeMap::new(),
            protocol_entries: BTreeMap::new(),
            taken: BTreeMap::new(),
            stable: None,
            read: None,
            lent: None,
            whole: None,
            is_disk_full: false,
            rot: Rot::None,
            part_entries_max,
        }
    }

    /// Whether the application's state rotted since it was last replaced.
    pub(crate) fn is_rotten(&self) -> bool {
        self.rot == Rot::Present
    }

    /// The same as that of a standby beside a member.
    pub(crate) fn standing_by(self, member: ReplicaId) -> Self {
        Self { stands_by: Some(member), ..self }
    }

    pub(crate) const fn stands_by(&self) -> Option<ReplicaId> {
        self.stands_by
    }

    pub(crate) fn is_running(&self) -> bool {
        self.subject.is_some()
    }

    /// How often the replica refused what since it was started.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = (Refusal, u64)> {
        let subject = self.subject.as_ref();
        Refusal::ALL.into_iter().filter_map(move |refusal| Some((refusal, subject?.refusals(refusal))))
    }

    /// Forgets all that is not on disk.
    pub(crate) fn lose_memory(&mut self) {
        self.subject = None;
        if self.rot == Rot::BeingReplaced {
            self.rot = Rot::Present;
        }
        self.incarnation += 1;
        self.wake_at = None;
        self.idle_wakes = 0;
        self.held = None;
        self.work.clear();
        self.taken.clear();
        self.stable = None;
        (self.read, self.lent) = (None, None);
        self.whole = None;
    }

    /// Reads what is durable, and brings the application to that state.
    pub(crate) fn boot(&mut self, configuration: &Arc<Configuration>, signer: SharedSigner) -> Result<Boot, String> {
        self.application = (self.make_application)();
        self.base = Sequence::ZERO;
        self.entries.clear();
        self.protocol_entries.clear();
        let mut checkpoint = None;
        if let Some(state) = self.disk.checkpoints.durable() {
            let root = self.application.restore(&mut State::entries(&state.application));
            if root != Ok(state.application_root) {
                return Err(format!("the state at {} has root {root:?} after a restart", state.sequence));
            }
            self.base = state.sequence;
            self.entries.clone_from(&state.application);
            self.protocol_entries.clone_from(&state.protocol);
            self.taken.insert(state.sequence, Arc::clone(state));
            let protocol = State::entries(&state.protocol).collect();
            let State { sequence, application_root, .. } = **state;
            checkpoint = Some(BootCheckpoint { sequence, application_root, protocol });
        }
        let records = self.disk.log.recover(configuration);
        let next_record = self.disk.log.end();
        let token = (self.incarnation + 1) << 8 | u64::from(self.id.value());
        let configuration = Arc::clone(configuration);
        let stands_by = self.stands_by;
        Ok(Boot { id: self.id, stands_by, configuration, signer, checkpoint, records, next_record, token })
    }

    /// Does the next piece of work.
    pub(crate) fn do_work(&mut self) -> Option<Done> {
        Some(match self.work.pop_front()? {
            Work::Execute(execution) => Done::Input(self.execute(&execution)),
            Work::TakeCheckpoint { sequence, protocol } => {
                self.take_checkpoint(sequence, &protocol);
                return self.do_work();
            }
            Work::Taken(state) => Done::Taken {
                input: Input::CheckpointTaken { sequence: state.sequence, application_root: state.application_root },
                state,
            },
            Work::BeginStaging { afresh } => Done::Input(Input::StageReady(self.begin_staging(afresh))),
            Work::EndStaging { sequence, protocol } => self.end_staging(sequence, protocol),
            Work::Install => self.install(),
        })
    }

    fn execute(&mut self, execution: &Execution) -> Input {
        let results: Vec<Results> = self.application.execute(execution);
        Input::Executed { sequence: execution.sequence, results }
    }

    /// What an operation reads from the executed state, if it only reads.
    pub(crate) fn read(&self, operation: &Blob) -> Option<Reading> {
        self.application.read(operation, self.base)
    }

    /// Slots that wait to execute do so while the checkpoint is hashed.
    fn take_checkpoint(&mut self, sequence: Sequence, protocol: &[Change]) {
        let image = self.application.checkpoint();
        self.base = sequence;
        State::apply(&mut self.entries, &image.changes);
        State::apply(&mut self.protocol_entries, protocol);
        let state = Arc::new(State {
            sequence,
            application_root: image.root,
            leaves: leaves_of(&self.application),
            application: self.entries.clone(),
            protocol: self.protocol_entries.clone(),
        });
        self.taken.insert(sequence, Arc::clone(&state));
        let is_other = |work: &Work| !matches!(work, Work::Execute(_));
        let place = self.work.iter().position(is_other).unwrap_or(self.work.len());
        self.work.insert(place, Work::Taken(state));
    }

    /// A checkpoint of this host's became stable: whether it has that state.
    pub(crate) fn checkpoint_stable(&mut self, sequence: Sequence) -> bool {
        let Some(state) = self.taken.get(&sequence) else {
            return false;
        };
        self.stable = Some(Arc::clone(state));
        self.taken = self.taken.split_off(&sequence);
        true
    }

    /// The root of the application's state at the stable checkpoint.
    pub(crate) fn stable_application_root(&self) -> Option<Digest> {
        self.stable.as_ref().map(|state| state.application_root)
    }

    /// A part of the state at `sequence`, if that state is the stable or the durable one, or the one that a peer read last, and
    /// lately: no other can be read.
    pub(crate) fn part(&mut self, now: Time, sequence: Sequence, want: &Want) -> Option<Part> {
        let state = self.readable(sequence, self.read.as_ref(), now)?;
        let part = part_of(&state, want, self.part_entries_max);
        self.read = Some((state, now));
        part
    }

    /// The same for a standby.
    pub(crate) fn lent_part(&mut self, now: Time, sequence: Sequence, want: &Want) -> Option<Part> {
        let state = self.readable(sequence, self.lent.as_ref(), now)?;
        let part = part_of(&state, want, self.part_entries_max);
        self.lent = Some((state, now));
        part
    }

    fn readable(&self, sequence: Sequence, read: Option<&(Arc<State>, Time)>, now: Time) -> Option<Arc<State>> {
        let read = read.filter(|(_, at)| now.since(*at) < READ_LATELY).map(|(state, _)| state);
        let readable = [self.stable.as_ref(), self.disk.checkpoints.durable(), read];
        readable.into_iter().flatten().find(|state| state.sequence == sequence).map(Arc::clone)
    }

    fn staged_entries(&self) -> BTreeMap<Bytes, Bytes> {
        let staged = &self.disk.staged;
        let durable = self.disk.checkpoints.durable().filter(|_| !staged.is_afresh);
        let base = durable.map_or(&BTreeMap::new(), |state| &state.application).clone();
        staged_entries(&base, &staged.buckets, self.application.index().depth())
    }

    fn begin_staging(&mut self, afresh: bool) -> StageReady {
        let base = self.disk.checkpoints.durable_sequence();
        if afresh || self.disk.staged.base != base {
            self.disk.staged = Staged { base, is_afresh: afresh, buckets: BTreeMap::new() };
        }
        let mut application = (self.make_application)();
        let entries = self.staged_entries();
        // What it is a state of does not matter yet: its leaves do.
        drop(application.restore(&mut State::entries(&entries)));
        StageReady { leaves: leaves_of(&application), limits: TRANSFER_LIMITS }
    }

    /// Replaces buckets of the staged state.
    pub(crate) fn stage_buckets(&mut self, buckets: Vec<StagedBucket>) {
        self.disk.staged.buckets.extend(buckets.into_iter().map(|bucket| (bucket.number, bucket)));
    }

    fn end_staging(&mut self, sequence: Sequence, protocol: Vec<Entry>) -> Done {
        let mut application = (self.make_application)();
        let entries = self.staged_entries();
        let root = application.restore(&mut State::entries(&entries)).ok();
        if let Some(application_root) = root {
            let protocol = protocol.into_iter().map(|entry| (entry.key.into_bytes(), entry.value.into_bytes()));
            let (leaves, protocol) = (leaves_of(&application), protocol.collect());
            let state = State { sequence, application_root, leaves, application: entries, protocol };
            self.whole = Some(Whole { state, application });
        }
        Done::Input(Input::StateStaged { sequence, application_root: root })
    }

    fn install(&mut self) -> Done {
        let Some(Whole { state, application }) = self.whole.take() else {
            return Done::Nonsense("a state was installed that had not been staged whole");
        };
        self.application = application;
        self.base = state.sequence;
        self.rot = if self.rot == Rot::None { Rot::None } else { Rot::BeingReplaced };
        self.entries.clone_from(&state.application);
        self.protocol_entries.clone_from(&state.protocol);
        let state = Arc::new(state);
        self.taken.insert(state.sequence, Arc::clone(&state));
        Done::Installed(state)
    }

    /// The state that was being put in place is durable.
    pub(crate) fn end_install(&mut self) {
        if self.rot == Rot::BeingReplaced {
            self.rot = Rot::None;
        }
    }

    /// Runs an operation that nobody ordered: the application's state rots.
    pub(crate) fn rot_application(&mut self, execution: &Execution) {
        self.application.execute(execution);
        self.rot = Rot::Present;
    }

    /// How long the next wake-up is away, if one is needed before those under way.
    pub(crate) fn next_wake(&mut self, now: Time) -> Option<Time> {
        let deadline = self.subject.as_ref()?.next_deadline()?;
        let when = self.clock.when(deadline);
        let when = if when <= now { now.after(Duration::from_micros(1)) } else { when };
        if self.wake_at.is_some_and(|at| at <= when) {
            return None;
        }
        self.wake_at = Some(when);
        Some(when)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ClockOptions;
    use crate::disk::DiskOptions;
    use crate::ledger::Ledger;
    use crate::random::{Random, Stream};

    fn state(sequence: u64) -> Arc<State> {
        let application_root = Digest::ZERO;
        let (application, protocol) = (BTreeMap::new(), BTreeMap::new());
        let sequence = Sequence::new(sequence);
        Arc::new(State { sequence, application_root, leaves: vec![Digest::ZERO], application, protocol })
    }

    /// A host whose last durable state is that of a slot.
    fn host_at(sequence: u64) -> Host {
        let clock = Clock::draw(ClockOptions::default(), &mut Random::new(0, Stream::Clock));
        let mut host = Host::new(ReplicaId::new(0), clock, Disk::new(DiskOptions::default()), Ledger::replicated, 1);
        go_on(&mut host, sequence);
        host
    }

    fn go_on(host: &mut Host, sequence: u64) {
        assert!(host.disk.checkpoints.write(state(sequence)), "nothing else is being written");
        host.disk.checkpoints.end_write();
    }

    type Read = fn(&mut Host, Time, Sequence) -> bool;

    #[test]
    fn what_a_peer_or_a_standby_reads_stays_readable_for_it_while_later_states_become_durable() {
        let by_peer: Read = |host, now, sequence| host.part(now, sequence, &Want::Crown).is_some();
        let by_standby: Read = |host, now, sequence| host.lent_part(now, sequence, &Want::Crown).is_some();
        let (begin, soon) = (Time::ZERO, Time::ZERO.after(READ_LATELY / 2));
        for (reads, other) in [(by_peer, by_standby), (by_standby, by_peer)] {
            let mut host = host_at(2);
            assert!(reads(&mut host, begin, Sequence::new(2)));
            go_on(&mut host, 4);
            go_on(&mut host, 6);
            assert!(!other(&mut host, soon, Sequence::new(2)), "nobody else began to read it");
            assert!(!reads(&mut host, soon, Sequence::new(4)), "nobody read it in its time");
            assert!(reads(&mut host, soon, Sequence::new(2)));
            assert!(!reads(&mut host, soon.after(READ_LATELY), Sequence::new(2)), "nobody went on reading");
        }
    }
}
