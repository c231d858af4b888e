//! What drives a replica: sockets, disks, clocks and threads around the pure core.
//!
//! ```text
//! peers ----\                        /--> log thread (group commit) ----\
//! clients ---> verification pool --> host task: Machine --> executor --> checkpoint keeper
//!                                    ^------------ events from all of them ------------/
//! ```
//!
//! The host task owns the machine and nothing blocks it: each of the others is a thread with a bounded queue of its own,
//! and what a queue may hold is bounded by what the core has outstanding. What comes in is taken in bulk, so that one
//! wake-up of the task serves many messages; from each source, and from each peer, its share.

mod backlog;
mod carry_out;
mod chase;
mod clients;
mod conduct;
mod damage;
mod evidence;
mod executor;
mod inbox;
mod keeper;
mod lending;
mod others;
mod pieces;
mod priority;
mod readable;
mod report;
mod scrub;
mod stage;
mod standbys;
mod start;
mod subject;
#[cfg(test)]
mod tests;
mod turns;
mod verification;

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use quorate_crypto::Digest;
use quorate_protocol::application::{Application, Reading, Results};
use quorate_protocol::input::StageReady;
use quorate_protocol::message::{Message, ReplicaMessage, from_frame};
use quorate_protocol::number::{RecordNumber, ReplicaId, Sequence};
use quorate_protocol::time::{Time, WallTime};
use quorate_protocol::verify::{Invalid, verify};
use quorate_protocol::{Input, Now};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::recording::Recorder;
use crate::storage::log;
use crate::transport::{ClientEvent, CloseReason, PeerEvent, Permit};

pub use report::{LinkReport, Report};
pub use scrub::Progress as ScrubProgress;
#[cfg(feature = "lab")]
pub(crate) use start::run_with;
pub use start::{Build, ReplicaOptions, run};
pub(crate) use start::{identity, start_machine};
pub(crate) use subject::Subject;
#[cfg(feature = "lab")]
pub(crate) use subject::{MakeSubject, replica};
pub(crate) use verification::Zip215;

use backlog::Backlog;
use chase::Chase;
use clients::Clients;
use conduct::Conduct;
use evidence::EvidenceFolder;
use executor::{Command, Executor, WantedReading};
use inbox::{Frame, Inbox};
use keeper::Question;
use lending::{BackupQuestion, Pace};
use others::Others;
use report::{Counters, LastReport};
use scrub::Scrub;
use start::PEER_EVENTS_MAX;
use turns::Line as _;
use verification::{Checked, CheckedMessage, Pool};

/// Events of a source that are dealt with before it is another one's turn.
const BULK_MAX: usize = 256;

/// From how many events in a round on the host lets others have its thread. Yielding costs a look at the sockets, so with
/// fewer it is not worth it; the runtime bounds how long a task goes on in any case.
const YIELD_EVENTS_MIN: usize = 8;

/// Code of the reason for which a peer is disconnected.
const CODE_CONDUCT: u16 = 4;

/// What the host's own threads report. Bound: each command is answered by at most two of these, and those that others may
/// ask for keep their place until the host has the answer.
#[derive(Debug)]
enum Event {
    /// From the log's thread.
    Log(log::Event),
    /// A slot was executed.
    Executed { sequence: Sequence, results: Vec<Results> },
    /// The application's root at a checkpoint.
    CheckpointTaken { sequence: Sequence, application_root: Digest },
    /// A checkpoint is durable.
    CheckpointDurable { sequence: Sequence },
    /// A part of the stable checkpoint, for a peer.
    Part { to: ReplicaId, message: Box<Message>, place: OwnedSemaphorePermit },
    /// A transferred state is staged.
    Staged { sequence: Sequence, application_root: Option<Digest> },
    /// What is staged of a state can be read.
    StageReady(StageReady),
    /// The state on the disk is not what was written there.
    StateDamaged,
    /// The log on the disk is not what was written there.
    LogDamaged,
    /// A staged state is installed.
    Installed { sequence: Sequence, application: Rebuilt },
    /// What a client asked of the executed state; nothing if it cannot be read without being ordered.
    Read { wanted: WantedReading, reading: Option<Reading> },
    /// The answer to a question for a proof.
    Proved { question: Question, message: Box<ReplicaMessage> },
    /// A client's question for a piece of a checkpoint, whose turn has come.
    BackupDue(BackupQuestion),
    /// The answer to a question for a checkpoint, or a piece of it, and how many bytes were read for that.
    Lent { question: BackupQuestion, message: Box<ReplicaMessage>, read_bytes: usize },
    /// Messages and requests whose signatures were checked.
    Checked(Checked),
    /// Something failed that leaves the state on disk unknown: the process has to end.
    Failed(anyhow::Error),
}

/// An application that was rebuilt from a state that was fetched.
struct Rebuilt(Box<dyn Application + Send>);

impl fmt::Debug for Rebuilt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Rebuilt")
    }
}

/// The host of one replica.
struct Host {
    machine: Box<dyn Subject>,
    clock: Clock,
    others: Others,
    clients: Clients,
    log: log::Log,
    backlog: Backlog,
    executor: Executor,
    pool: Pool,
    inbox: Inbox,
    conduct: Conduct,
    chase: Chase,
    /// For what is checked at once, outside the pool.
    rule: Zip215,
    counters: Counters,
    last_report: LastReport,
    evidence: EvidenceFolder,
    /// Keeps what the machine is fed with, if that is wanted.
    recorder: Option<Recorder>,
    /// Of what is read for backups.
    pace: Pace,
    /// Looks after the state on the disk.
    scrub: Option<Scrub>,
    /// For what waits its turn.
    events: mpsc::UnboundedSender<Event>,
}

/// Both clocks of the machine.
#[derive(Debug, Clone, Copy)]
struct Clock {
    start: Instant,
}

impl Clock {
    fn now(self) -> Now {
        let monotonic = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let wall = u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX);
        Now { monotonic: Time::from_nanoseconds(monotonic), wall: WallTime::from_nanoseconds(wall) }
    }

    fn instant(self, time: Time) -> Instant {
        self.start + Duration::from_nanos(time.nanoseconds())
    }
}

/// Where everything comes from.
struct Sources {
    peers: mpsc::Receiver<PeerEvent>,
    clients: mpsc::Receiver<ClientEvent>,
    own: mpsc::UnboundedReceiver<Event>,
}

/// What came, and is dealt with before anything else is looked at.
#[derive(Default)]
struct Round {
    /// Bound of this and of `clients`: [`BULK_MAX`].
    own: Vec<Event>,
    /// Bound: [`PEER_EVENTS_MAX`]. All that there is, since the frames among them are sorted by peer first.
    peers: Vec<PeerEvent>,
    clients: Vec<ClientEvent>,
}

impl Round {
    fn len(&self) -> usize {
        self.own.len() + self.peers.len() + self.clients.len()
    }
}

impl Sources {
    /// Waits until something comes or `deadline` is there; without one, takes what is there. Whichever it was, each source
    /// has its turn, or the first that is never empty would be the only one.
    async fn wait(&mut self, round: &mut Round, deadline: Option<Instant>) {
        let passed = async {
            if let Some(deadline) = deadline {
                tokio::time::sleep_until(deadline.into()).await;
            }
        };
        tokio::select! {
            biased;
            _ = self.own.recv_many(&mut round.own, BULK_MAX) => {}
            _ = self.peers.recv_many(&mut round.peers, PEER_EVENTS_MAX) => {}
            _ = self.clients.recv_many(&mut round.clients, BULK_MAX) => {}
            () = passed => {}
        }
        top_up(&mut round.own, BULK_MAX, || self.own.try_recv().ok());
        top_up(&mut round.peers, PEER_EVENTS_MAX, || self.peers.try_recv().ok());
        top_up(&mut round.clients, BULK_MAX, || self.clients.try_recv().ok());
    }
}

impl Host {
    /// Serves until `stop` ends, or something fails that the replica must not survive.
    async fn serve(mut self, mut sources: Sources, stop: impl Future<Output = ()>) -> anyhow::Result<Self> {
        tokio::pin!(stop);
        let mut round = Round::default();
        self.carry_out()?;
        loop {
            let deadline = self.machine.next_deadline().map(|time| self.clock.instant(time));
            let deadline = deadline.unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
            // Frames that are left from the last round wait for nothing.
            let wake = self.inbox.is_empty().then_some(deadline);
            tokio::select! {
                biased;
                () = &mut stop => return Ok(self),
                () = sources.wait(&mut round, wake) => {}
            }
            let events = round.len();
            for event in round.own.drain(..) {
                self.on_own(event)?;
            }
            for event in round.peers.drain(..) {
                self.on_peer(event);
            }
            let frames: Vec<_> = std::iter::from_fn(|| self.inbox.pop()).take(BULK_MAX).collect();
            for (from, frame) in frames {
                self.on_frame(from, frame)?;
            }
            for event in round.clients.drain(..) {
                self.on_client(event)?;
            }
            self.submit_requests()?;
            self.answer_standbys();
            if Instant::now() >= deadline {
                self.handle(Input::Wake)?;
            }
            // Whoever has just been served lets the tasks that move bytes have the thread, if there is much to move.
            if events >= YIELD_EVENTS_MIN {
                tokio::task::yield_now().await;
            }
        }
    }

    fn handle(&mut self, input: Input) -> anyhow::Result<()> {
        let now = self.clock.now();
        if let Some(recorder) = &mut self.recorder {
            recorder.note_input(now, &input);
        }
        self.machine.handle(now, input);
        self.carry_out()
    }

    fn on_peer(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Up(peer) if self.conduct.is_barred(peer, Instant::now()) => self.disconnect(peer),
            // The transport tells the operator.
            PeerEvent::Up(_) | PeerEvent::Down(..) => {}
            PeerEvent::Frame { from, lane, bytes, permit } => {
                self.inbox.line(from).push_back(Frame { lane, bytes, permit });
            }
        }
    }

    fn on_frame(&mut self, from: ReplicaId, Frame { lane, bytes, permit }: Frame) -> anyhow::Result<()> {
        if self.conduct.is_barred(from, Instant::now()) {
            return Ok(());
        }
        match from_frame::<Message>(&bytes) {
            Ok(message) if self.others.comes_by(&message, lane) => self.on_message(from, message, permit)?,
            Ok(_) => self.note_invalid(from, &"it came by the lane of others"),
            Err(error) => self.note_invalid(from, &error),
        }
        Ok(())
    }

    fn on_message(&mut self, from: ReplicaId, message: Message, permit: Permit) -> anyhow::Result<()> {
        if !self.machine.is_wanted(from, &message) {
            self.counters.unwanted += 1;
            return Ok(());
        }
        self.check(from, message, permit)
    }

    /// Few signatures are checked at once, many on the pool.
    fn check(&mut self, from: ReplicaId, message: Message, permit: Permit) -> anyhow::Result<()> {
        if verification::is_small(&message) {
            let checked = verify(message, from, self.machine.replica().configuration(), &mut self.rule);
            return self.on_checked_message(from, checked);
        }
        self.pool.put(from, message, permit);
        self.submit_messages(from);
        Ok(())
    }

    /// Hands the pool what it takes of a peer, and drops what has come to matter no more.
    fn submit_messages(&mut self, from: ReplicaId) {
        while let Some((message, permit)) = self.pool.next(from) {
            if self.machine.is_wanted(from, &message) && !self.conduct.is_barred(from, Instant::now()) {
                self.pool.check_message(from, message, permit);
            } else {
                self.counters.unwanted += 1;
            }
        }
    }

    fn on_checked_message(&mut self, from: ReplicaId, checked: CheckedMessage) -> anyhow::Result<()> {
        match checked {
            Ok(message) => self.handle(Input::Message { from, message }),
            Err(Invalid::Misbehaviour(evidence)) => self.handle(Input::Misbehaviour(evidence)),
            // Its sender is behind, or ahead.
            Err(Invalid::Epoch(_)) => {
                self.counters.unwanted += 1;
                Ok(())
            }
            Err(invalid) => {
                self.note_invalid(from, &invalid);
                Ok(())
            }
        }
    }

    /// Who sends too much that counts for nothing is disconnected, and kept out for a while.
    fn note_invalid(&mut self, from: ReplicaId, invalid: &dyn fmt::Display) {
        self.counters.invalid_from_peers += 1;
        if self.conduct.note_invalid(from, Instant::now()) {
            tracing::warn!(%from, %invalid, "a peer keeps sending what is invalid: it is disconnected");
            self.disconnect(from);
        }
        if self.counters.invalid_from_peers.is_power_of_two() {
            tracing::warn!(%from, %invalid, total = self.counters.invalid_from_peers, "invalid message from a peer");
        }
    }

    fn disconnect(&self, peer: ReplicaId) {
        let text = "too many messages that count for nothing".to_owned();
        self.others.close(peer, CloseReason { code: CODE_CONDUCT, text, is_offence: true });
    }

    fn on_own(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Log(event) => self.on_log(event),
            Event::Executed { sequence, results } => {
                self.counters.requests_executed += results.len() as u64;
                self.handle(Input::Executed { sequence, results })
            }
            Event::CheckpointTaken { sequence, application_root } => {
                self.handle(Input::CheckpointTaken { sequence, application_root })
            }
            Event::CheckpointDurable { sequence } => self.handle(Input::CheckpointDurable { sequence }),
            Event::Part { to, message, place } => {
                drop(place);
                self.send(to, &message);
                Ok(())
            }
            Event::StageReady(ready) => self.handle(Input::StageReady(ready)),
            Event::Staged { sequence, application_root } => {
                self.handle(Input::StateStaged { sequence, application_root })
            }
            Event::StateDamaged => self.handle(Input::StateDamaged),
            Event::LogDamaged => self.handle(Input::LogDamaged),
            Event::Installed { sequence, application } => {
                // Before anything that is to be executed upon it.
                self.executor.send(Command::Replace { application: application.0, base: sequence })?;
                self.handle(Input::StateInstalled { sequence })
            }
            Event::Read { wanted, reading } => {
                self.answer_read(&wanted, reading);
                Ok(())
            }
            Event::Proved { question, message } => {
                self.clients.answer(question.connection, &*message);
                Ok(())
            }
            // Who is gone waits for nothing.
            Event::BackupDue(question) if !self.clients.is_connected(question.connection) => Ok(()),
            Event::BackupDue(question) => self.executor.lend(question),
            Event::Lent { question, message, read_bytes } => {
                self.pace.spend(read_bytes, Instant::now());
                self.answer_backup(&question, &message);
                Ok(())
            }
            Event::Checked(Checked::Message { from, message, permit }) => {
                drop(permit);
                self.pool.on_message_checked(from);
                self.on_checked_message(from, *message)?;
                self.submit_messages(from);
                Ok(())
            }
            Event::Checked(Checked::Requests(checked)) => self.on_checked_requests(checked),
            Event::Failed(error) => Err(error),
        }
    }

    fn on_log(&mut self, event: log::Event) -> anyhow::Result<()> {
        match event {
            log::Event::Durable(number) => {
                self.backlog.hand_over(&self.log)?;
                self.handle(Input::Durable(RecordNumber::new(number)))
            }
            log::Event::Full(error) => {
                self.counters.is_disk_full = true;
                tracing::error!(%error, "the disk is full: nothing is accepted until there is room");
                self.handle(Input::LogFull)
            }
            log::Event::Room => {
                self.counters.is_disk_full = false;
                tracing::info!("there is room on the disk again");
                self.handle(Input::LogHasRoom)
            }
            // What the kernel keeps after a failed sync is unknown: stop. (PROTOCOL §9)
            log::Event::Failed(error) => Err(anyhow::Error::from(error).context("the write-ahead log failed")),
            log::Event::Cut(_) => Ok(()),
        }
    }

    /// Ends in order: what was accepted is written, threads are joined, peers are told.
    async fn end(self) -> anyhow::Result<()> {
        let Self { others, clients, log, executor, pool, counters, recorder, scrub, .. } = self;
        let closed = tokio::task::spawn_blocking(move || {
            if let Some(scrub) = scrub {
                scrub.close();
            }
            executor.close();
            pool.close();
            if let Some(recorder) = recorder {
                recorder.end();
            }
            log.close()
        });
        let (closed, (), ()) = tokio::join!(closed, others.shutdown(), clients.shutdown());
        let closed = closed?;
        if counters.is_disk_full {
            tracing::warn!("the log was full: what had no room was not accepted");
        }
        match closed {
            Err(log::Error::Full { .. }) => Ok(()),
            closed => Ok(closed?),
        }
    }
}

/// Takes events until there are `count_max`, or none is left.
fn top_up<T>(events: &mut Vec<T>, count_max: usize, next: impl FnMut() -> Option<T>) {
    let room = count_max.saturating_sub(events.len());
    events.extend(std::iter::from_fn(next).take(room));
}

impl fmt::Debug for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Host").field("replica", &self.machine.replica().id()).finish_non_exhaustive()
    }
}
