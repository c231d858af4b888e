//! A correct replica as a state machine: what it is made of, how it is built, and where each input goes.
//!
//! Each phase is a block of `impl Replica` in a file of its own, readable beside its section of PROTOCOL.md. A handler
//! first refuses what others may send, then asserts what must now hold, then changes state.

mod checkpoint;
mod commit;
mod epoch;
mod execution;
mod new_view;
mod pace;
mod participation;
mod pre_prepare;
mod prepare;
mod protocol_state;
mod reads;
mod recovery;
mod request;
mod retransmission;
mod rewriting;
mod room;
mod standby;
mod state_transfer;
mod status;
mod suspicion;
mod turns;
mod unshown;
mod view_change;
mod wanted;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};
use core::time::Duration;

use quorate_crypto::Digest;

use crate::Machine;
use crate::batch::{Batch, RequestId};
use crate::certificate::StableCertificate;
use crate::configuration::{Configuration, Parameters};
use crate::evidence::Evidence;
use crate::input::Input;
use crate::log::Log;
use crate::membership::Membership;
use crate::message::{Message, Outcome, PrePrepare, SharedNewView, SharedViewChange, StateRoot, Status, Want};
use crate::number::{RecordNumber, ReplicaId, Sequence, View};
use crate::outbox::Outbox;
use crate::output::{Output, Suspicion};
use crate::queue::Queue;
use crate::quorum::{Ballot, Counted};
use crate::refusal::Refusal;
use crate::rotation::Rotation;
use crate::sessions::Sessions;
use crate::statement::{Checkpoint, Commit, Prepare, Signer, Statement, Vote};
use crate::time::{Now, Time, WallTime};
use crate::timers::{Timer, Timers};
use crate::verify::{Payload, Verified};

use participation::Participation;
pub use protocol_state::{ProtocolSummary, founding_entries};
use reads::Reads;
pub use recovery::{DurableCheckpoint, Start, StartError};

/// The replica's state of affairs with views.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// In its view.
    Normal,
    /// It left its view and asks for another.
    ViewChange {
        /// The view that it asks for.
        to: View,
    },
}

/// A replica.
#[derive(Debug, Clone)]
pub struct Replica {
    id: ReplicaId,
    configuration: Arc<Configuration>,
    signer: Arc<dyn Signer + Send + Sync>,
    /// The view that it is in or was in last.
    view: View,
    mode: Mode,
    log: Log,
    sessions: Sessions,
    queue: Queue,
    proposer: Proposer,
    execution: Executing,
    checkpoints: Checkpoints,
    view_changes: ViewChanges,
    suspicion: Suspecting,
    /// Bound: one a member.
    peers: Vec<Peer>,
    catching_up: CatchingUp,
    outbox: Outbox,
    timers: Timers,
    /// Where the record of each slot that the log on disk still needs begins. Bound: two windows.
    first_records: BTreeMap<Sequence, RecordNumber>,
    /// Why the log has no room, if so: nothing is accepted until it has.
    shortage: room::Shortage,
    participation: Participation,
    reads: Reads,
    /// How often each refusal happened. Bound: one a variant.
    refusals: BTreeMap<Refusal, u64>,
    now: Now,
}

/// What a primary needs to propose.
#[derive(Debug, Clone, Hash, Default)]
struct Proposer {
    /// The slot that the next batch gets.
    next: Sequence,
    /// Requests in the batches proposed and not yet decided, by slot. Bound: the pipeline.
    in_flight: BTreeMap<Sequence, usize>,
    /// The last slot that the new view proposed itself: no other proposal counts up to it. (PROTOCOL §7.4)
    new_view_max: Sequence,
}

/// Where execution stands.
#[derive(Debug, Clone, Hash)]
struct Executing {
    /// The last slot given to execution.
    issued: Sequence,
    /// The last slot whose results are back.
    executed: Sequence,
    /// The time that the last slot's operations saw.
    time: WallTime,
    /// The epoch of the state after the last slot given to execution, and who votes in it.
    membership: Membership,
    /// Since when slots have to fill up to the end of the epoch.
    ending_since: Option<Time>,
    /// What becomes of the requests of each slot in execution. Bound: [`execution::IN_EXECUTION_MAX`].
    in_execution: VecDeque<(Sequence, Vec<Effect>)>,
    /// Whether the state here differs from the certified one: nothing executes until it is replaced. (PROTOCOL §5)
    is_diverged: bool,
}

/// What becomes of one request of a slot once the slot's results are back.
#[derive(Debug, Clone, Hash)]
enum Effect {
    /// Its results are the next ones: keep them and answer.
    Complete(RequestId, u32),
    /// It is answered.
    Answer(RequestId, Outcome),
    /// Nothing.
    Skip(RequestId),
}

/// Checkpoints of this replica's own and others' votes for theirs.
#[derive(Debug, Clone, Hash)]
struct Checkpoints {
    /// Own ones not below the low watermark. Bound: one an interval in two windows.
    own: BTreeMap<Sequence, OwnCheckpoint>,
    /// Others' votes, and this replica's. Bound: the two highest slots a member.
    votes: Vec<Vec<Vote<Checkpoint>>>,
    /// The slot of the state that is durable.
    durable: Sequence,
    /// The slot up to which the log on disk was cut last.
    cut: Sequence,
    /// The record that had to be durable before that cut.
    cut_record: RecordNumber,
}

/// A checkpoint that this replica takes.
#[derive(Debug, Clone, Copy, Hash)]
struct OwnCheckpoint {
    /// The digest of all but the application's state.
    protocol: Digest,
    /// The application's root, once it is known.
    application: Option<Digest>,
    /// Whether the state is durable.
    is_durable: bool,
    /// This replica's vote, once it is cast.
    vote: Option<Vote<Checkpoint>>,
}

/// What a view change needs.
#[derive(Debug, Clone, Hash)]
struct ViewChanges {
    /// The view change of the highest view of each member. Bound: one a member.
    latest: Vec<Option<SharedViewChange>>,
    /// New views that lack a view change which they name, by who sent them: a primary that signs several for its view, or
    /// for views to come, keeps nobody from the one that others entered. Bound: one a member, the highest.
    incomplete: Vec<Option<Incomplete>>,
    /// The new view by which this replica entered its view, and the view changes that it rests on. None in view 0.
    entered: Option<(SharedNewView, Vec<SharedViewChange>)>,
    /// The record of that new view: until it is durable nobody is shown it, or a crash could make its primary sign another.
    entered_record: RecordNumber,
    /// This replica's own, once it is durable: only then is it sent.
    own: Option<SharedViewChange>,
    /// A view that it asked for or entered before it was started, by a message that is lost here: it votes in none up to it.
    forsaken: Option<View>,
    /// Proposals of a view that this replica is about to enter. Bound: the pipeline's default, a member.
    early: Vec<VecDeque<(Vote<Prepare>, Batch)>>,
}

impl ViewChanges {
    /// Those of view 0 among `members` members.
    fn none(members: usize) -> Self {
        Self {
            latest: (0..members).map(|_| None).collect(),
            incomplete: (0..members).map(|_| None).collect(),
            entered: None,
            entered_record: RecordNumber::ZERO,
            own: None,
            forsaken: None,
            early: (0..members).map(|_| VecDeque::new()).collect(),
        }
    }
}

/// A new view that waits for view changes which it names.
#[derive(Debug, Clone, Hash)]
struct Incomplete {
    new_view: SharedNewView,
    /// Those that are here, by the order in which they are named. Bound: a quorum.
    view_changes: Vec<Option<SharedViewChange>>,
    /// When they were asked for last, and how often.
    asked: Option<(Time, usize)>,
}

/// What this replica suspects, and from when.
#[derive(Debug, Clone, Hash)]
struct Suspecting {
    /// When the view was entered, or left.
    since: Time,
    /// Why it suspects the primary of the view that it is in or asks for.
    of_primary: Option<Suspicion>,
    /// View changes in a row that brought no progress.
    attempts: u32,
    /// When the primary last proposed something, or could again.
    last_proposal: Time,
    /// Since when all of the window is executed: nothing can be proposed before it moves.
    done_since: Option<Time>,
    /// When it was so last: until it moved.
    done: Option<(Time, Time)>,
    /// When the time-out for the new view began: a quorum asks for it.
    new_view_since: Option<Time>,
    /// When peers in a higher view were last asked for its new view.
    new_view_asked: Option<Time>,
    /// How long requests take from arrival to execution, smoothed.
    latency: Duration,
    /// How fast this primary and others get requests ordered.
    pace: pace::Pace,
    /// Who is not to be primary again soon.
    turns: turns::Turns,
    /// When the last input came: a long gap means that this replica itself was stopped.
    last_input: Time,
}

/// What is known of a peer.
#[derive(Debug, Clone, Hash, Default)]
struct Peer {
    /// When its last message came, whatever it was.
    heard: Option<Time>,
    /// Its last status.
    status: Option<Status>,
    /// Since when it asks for a higher view than this replica's.
    outside_since: Option<Time>,
    /// Its votes of this epoch on the highest slots: it is told of them at its next start, though their slots left the log.
    last_prepare: Option<Vote<Prepare>>,
    last_commit: Option<Vote<Commit>>,
    /// The view in which it was shown what the primary has signed here and not there.
    shown: Option<View>,
    /// What it may still ask for in this interval, in bytes.
    budget_bytes: usize,
    /// The part of a state that it asked for last beyond that: it waits for it. Bound: one.
    part_owed: Option<(Sequence, Want)>,
}

/// How a replica that is behind gets on.
#[derive(Debug, Clone, Hash, Default)]
struct CatchingUp {
    /// Whom decided slots were asked of, after which slot, and when.
    asked: Option<(ReplicaId, Sequence, Time)>,
    /// The slot after which nothing came last time, and since when it stands still.
    stuck: Option<(Sequence, Time)>,
    /// Batches that were asked for. Bound: a window.
    batches_asked: BTreeMap<Sequence, unshown::Asked>,
    /// What others vote for and the primary did not show this replica.
    unshown: unshown::Unshown,
    /// The state transfer under way.
    transfer: Option<state_transfer::Transfer>,
    /// The highest certificate of an epoch after this replica's.
    ahead: Option<StableCertificate>,
    /// Transfers in a row that took too long.
    slow_transfers: u32,
    /// Transfers in a row that were begun anew, for whatever reason.
    failed_transfers: u32,
    /// When the last status was sent.
    last_status: Option<Time>,
}

/// Two replicas that hash alike go on alike: all counts but what only tells others about it, and who signs, which the
/// number says.
impl Hash for Replica {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            id,
            configuration,
            signer: _,
            view,
            mode,
            log,
            sessions,
            queue,
            proposer,
            execution,
            checkpoints,
            view_changes,
            suspicion,
            peers,
            catching_up,
            outbox,
            // Follows from the rest.
            timers: _,
            first_records,
            shortage,
            participation,
            reads,
            refusals: _,
            now,
        } = self;
        (id, configuration, view, mode, log, sessions, queue, proposer, execution).hash(state);
        (checkpoints, view_changes, suspicion, peers, catching_up, outbox).hash(state);
        (first_records, shortage, participation, reads, now).hash(state);
    }
}

impl Replica {
    /// Its number.
    pub const fn id(&self) -> ReplicaId {
        self.id
    }

    /// The configuration that it follows.
    pub const fn configuration(&self) -> &Arc<Configuration> {
        &self.configuration
    }

    /// The view that it is in, or was in last.
    pub const fn view(&self) -> View {
        self.view
    }

    /// Whether it is in its view.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The last slot that it executed.
    pub const fn executed(&self) -> Sequence {
        self.execution.executed
    }

    /// The low watermark.
    pub fn stable(&self) -> Sequence {
        self.log.low()
    }

    /// The certificate of the low watermark.
    pub fn stable_certificate(&self) -> Option<&StableCertificate> {
        self.log.stable()
    }

    /// Slots above the low watermark of which it knows something.
    pub fn log_length(&self) -> usize {
        self.log.slots_after(self.log.low()).count()
    }

    /// Slots of which it knows something, executed or not.
    pub fn slot_count(&self) -> usize {
        self.log.slot_count()
    }

    /// Proposals for views that it has yet to enter, of the member of whom it holds most.
    pub fn early_proposals_max(&self) -> usize {
        self.view_changes.early.iter().map(VecDeque::len).max().unwrap_or(0)
    }

    /// The root of its own state after slot `sequence`, if it took a checkpoint there that is not below the low watermark.
    pub fn state_root_at(&self, sequence: Sequence) -> Option<Digest> {
        let own = self.checkpoints.own.get(&sequence)?;
        Some(state_root(&StateRoot { application: own.application?, protocol: own.protocol }))
    }

    /// Requests that wait to be ordered.
    pub fn queue_length(&self) -> usize {
        self.queue.len()
    }

    /// Sessions in the table.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// How often each refusal happened.
    pub const fn refusals(&self) -> &BTreeMap<Refusal, u64> {
        &self.refusals
    }

    /// The slot to which a state transfer is under way.
    pub fn transfer_target(&self) -> Option<Sequence> {
        self.catching_up.transfer.as_ref().map(state_transfer::Transfer::target)
    }

    /// The incarnations of the members in the epoch of its state.
    pub const fn membership(&self) -> &Membership {
        &self.execution.membership
    }

    /// The checkpoint that ends the epoch in which it takes part, once something is ordered that ends it.
    pub fn epoch_ends(&self) -> Option<Sequence> {
        self.epoch_end()
    }

    /// Whether its state differs from the one that a quorum vouches for.
    pub const fn is_diverged(&self) -> bool {
        self.execution.is_diverged
    }

    fn parameters(&self) -> &Parameters {
        self.configuration.parameters()
    }

    fn primary(&self) -> ReplicaId {
        self.configuration.primary(self.view)
    }

    /// Whether it is in its view and that view's primary.
    fn is_primary(&self) -> bool {
        self.mode == Mode::Normal && self.primary() == self.id
    }

    /// Whether a slot is still of interest: not executed, or between the watermarks.
    fn is_tracked(&self, sequence: Sequence) -> bool {
        sequence > self.log.low().min(self.execution.executed)
            && sequence <= self.log.high()
            && sequence.saturating_add(self.parameters().window) > self.log.low()
    }

    /// The other members, in the order in which they are asked for something.
    fn others(&self) -> Rotation {
        Rotation::new(self.configuration.size(), self.id)
    }

    fn refuse(&mut self, refusal: Refusal) {
        *self.refusals.entry(refusal).or_default() += 1;
    }

    fn sign<S: Statement>(&self, statement: S) -> Vote<S> {
        Vote::sign(statement, self.id, self.configuration.cluster(), &*self.signer)
    }

    fn send(&mut self, to: ReplicaId, message: Message) {
        assert!(to != self.id, "a replica sends nothing to itself");
        self.outbox.push(Output::Send { to, message });
    }

    fn on_message(&mut self, from: ReplicaId, message: Verified<Payload>) {
        if message.epoch() != self.configuration.epoch() {
            return self.refuse(Refusal::Epoch);
        }
        if from == self.id || self.configuration.member(from).is_none() {
            return self.refuse(Refusal::Unasked);
        }
        self.peers[from.index()].heard = Some(self.now.monotonic);
        match message.into_content() {
            Payload::Request(request) => self.on_passed_request(from, request),
            Payload::PrePrepare(vote, batch) => self.on_pre_prepare(vote, batch),
            Payload::Prepare(vote) => self.on_prepare(vote),
            Payload::Commit(vote) => self.on_commit(vote),
            Payload::Checkpoint(vote) => self.on_checkpoint(vote),
            Payload::Stable(certificate) => self.on_stable(certificate),
            Payload::ViewChange(view_change) => self.on_view_change(view_change),
            Payload::NewView(new_view) => self.on_new_view(from, new_view),
            Payload::Status(status) => self.on_status(from, status),
            Payload::Fetch(fetch) => self.on_fetch(from, fetch),
            Payload::Batch(sequence, batch) => self.on_batch(from, sequence, batch),
            Payload::Decided(certificate, batch) => self.on_decided(certificate, batch),
            Payload::Part(part) => self.on_part(from, part),
            Payload::Statements(spoken) => self.on_statements(from, &spoken),
            Payload::Conflict(vote) => self.on_conflict(vote),
        }
    }

    /// Broadcasts and counts this replica's own votes that became durable.
    fn on_durable(&mut self, number: RecordNumber) {
        self.outbox.on_durable(number);
        while let Some(message) = self.outbox.release() {
            // The log does not hold it any more, and nobody waits for it; or it belongs to an epoch that ended.
            let is_cut = voted_slot(&message).is_some_and(|sequence| sequence <= self.checkpoints.cut);
            let is_over = message.epoch().is_some_and(|epoch| epoch != self.configuration.epoch());
            if is_cut || is_over || self.is_left(&message) {
                continue;
            }
            self.outbox.push(Output::Broadcast(message.clone()));
            self.count_own(message);
        }
    }

    /// Whether it begins a view that this replica has left by now: a cut since then may have taken its record.
    fn is_left(&self, message: &Message) -> bool {
        let Message::NewView(signed) = message else { return false };
        !self.view_changes.entered.as_ref().is_some_and(|(entered, _)| entered.signed == *signed)
    }

    /// A replica's own vote counts when it is sent, not before: what rests on it is then durable. (PROTOCOL §3)
    fn count_own(&mut self, message: Message) {
        match message {
            Message::PrePrepare(pre_prepare) => self.count_prepare(pre_prepare.vote),
            Message::Prepare(vote) => self.count_prepare(vote),
            Message::Commit(vote) => self.count_commit(vote),
            Message::ViewChange(signed) => self.count_own_view_change(&signed),
            Message::NewView(_)
            | Message::Checkpoint(_)
            | Message::Stable(_)
            | Message::Request(_)
            | Message::Status(_)
            | Message::Fetch(_)
            | Message::Batch(_)
            | Message::Decided(_)
            | Message::Part(_)
            | Message::Statements(_)
            | Message::Conflict(_) => {}
        }
    }

    /// Notes what became of a vote; keeps the proof if its voter contradicted itself.
    fn note_counted<S: Ballot>(
        &mut self,
        counted: &Counted<S>,
        vote: Vote<S>,
        proof: impl Fn(Vote<S>, Vote<S>) -> Evidence,
    ) {
        match counted {
            Counted::New => {}
            Counted::Known => self.refuse(Refusal::Duplicate),
            Counted::Outdated => self.refuse(Refusal::Outdated),
            Counted::Conflict(held) => {
                assert!(vote.voter != self.id, "this replica never contradicts itself");
                self.refuse(Refusal::Conflict);
                self.keep_evidence(proof(*held, vote));
            }
        }
    }

    fn assert_invariants(&self) {
        self.log.assert_invariants();
        let Executing { issued, executed, in_execution, .. } = &self.execution;
        assert!(executed <= issued, "results come only for what was given to execution");
        assert!(in_execution.len() as u64 == issued.distance_from(*executed));
        assert!(self.checkpoints.own.len() as u64 <= 2 * self.parameters().window + 2);
        let state = self.execution.membership.epoch();
        assert!(in_execution.is_empty() || state == self.configuration.epoch(), "a slot executes in its epoch");
        if let Mode::ViewChange { to } = self.mode {
            assert!(to > self.view, "a replica asks only for higher views");
        }
    }
}

impl Machine for Replica {
    fn handle(&mut self, now: Now, input: Input) {
        self.notice_own_pause(now.monotonic);
        self.now = now;
        match input {
            Input::Message { from, message } => self.on_message(from, message),
            Input::Request(request) => self.on_request(request),
            Input::Copy(request) => self.on_copy(request),
            Input::Misbehaviour(evidence) => self.on_misbehaviour(*evidence),
            Input::Wake => {}
            Input::Durable(number) => self.on_durable(number),
            Input::Executed { sequence, results } => self.on_executed(sequence, results),
            Input::CheckpointTaken { sequence, application_root } => {
                self.on_checkpoint_taken(sequence, application_root);
            }
            Input::CheckpointDurable { sequence } => self.on_checkpoint_durable(sequence),
            Input::StageReady(ready) => self.on_stage_ready(ready),
            Input::StateStaged { sequence, application_root } => self.on_state_staged(sequence, application_root),
            Input::StateInstalled { sequence } => self.on_state_installed(sequence),
            Input::StateDamaged => self.on_state_damaged(),
            Input::LogDamaged => self.on_log_damaged(),
            Input::LogFull => self.on_log_full(),
            Input::LogHasRoom => self.on_log_has_room(),
        }
        self.on_due();
        self.watch_backlog();
        self.try_propose();
        self.refresh_timers();
        self.assert_invariants();
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outbox.poll()
    }

    fn next_deadline(&self) -> Option<Time> {
        self.timers.next()
    }
}

impl Replica {
    /// Does what is due, whatever woke the replica.
    fn on_due(&mut self) {
        let now = self.now.monotonic;
        if self.timers.is_due(Timer::Suspicion, now) {
            self.suspect_if_due();
        }
        if self.timers.is_due(Timer::Copies, now) {
            self.pass_on_copies();
        }
        if self.timers.is_due(Timer::NewView, now) {
            self.suspect_if_new_view_is_late();
        }
        if self.timers.is_due(Timer::Fetch, now) {
            self.try_catch_up();
        }
        // Last, since what came before may have something to say; not by its timer, since that may not know yet.
        if self.status_due() <= now {
            self.send_status();
        }
    }

    fn refresh_timers(&mut self) {
        let status = self.status_due();
        let suspicion = self.suspicion_due();
        let new_view = self.new_view_due();
        let fetch = self.fetch_due();
        let copies = self.copies_due();
        self.timers.set(Timer::Status, Some(status));
        self.timers.set(Timer::Suspicion, suspicion);
        self.timers.set(Timer::NewView, new_view);
        self.timers.set(Timer::Fetch, fetch);
        self.timers.set(Timer::Copies, copies);
    }
}

/// The slot that a vote in the outbox is about.
fn voted_slot(message: &Message) -> Option<Sequence> {
    match message {
        Message::PrePrepare(PrePrepare { vote, .. }) | Message::Prepare(vote) => Some(vote.statement.sequence),
        Message::Commit(vote) => Some(vote.statement.sequence),
        Message::ViewChange(_)
        | Message::NewView(_)
        | Message::Checkpoint(_)
        | Message::Stable(_)
        | Message::Request(_)
        | Message::Status(_)
        | Message::Fetch(_)
        | Message::Batch(_)
        | Message::Decided(_)
        | Message::Part(_)
        | Message::Statements(_)
        | Message::Conflict(_) => None,
    }
}

/// The root of a replica's whole state. (PROTOCOL §5)
pub fn state_root(root: &StateRoot) -> Digest {
    use quorate_crypto::{Domain, hash};
    hash(Domain::State, &[root.application.as_bytes(), root.protocol.as_bytes()])
}
