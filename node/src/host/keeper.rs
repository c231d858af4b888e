//! The checkpoints' own thread: what it hashes and writes never holds up execution.

use std::cell::Cell;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use quorate_crypto::Digest;
use quorate_protocol::application::{Change, Changes};
use quorate_protocol::certificate::StableCertificate;
use quorate_protocol::codec::{Blob, encode};
use quorate_protocol::input::{StageReady, TransferLimits};
use quorate_protocol::message::{
    ENTRY_KEY_BYTES_MAX, Entry, Message, Part, Piece, ReplicaMessage, StableState, StateRoot, Want,
};
use quorate_protocol::number::{ReplicaId, RequestNumber, Sequence};
use quorate_protocol::output::StagedBucket;
use quorate_protocol::state::Index;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

use super::clients::Place;
use super::damage::is_damage;
use super::lending::{BackupQuestion, Lending, WantedPiece};
use super::readable::Readable;
use super::scrub::Current;
use super::stage::{Stage, Whole};
use super::start::Build;
use super::{Event, Rebuilt, priority};
use crate::storage::checkpoint::{self, CheckpointStore, KEY_BYTES_MAX, Map};
use crate::transport::{ConnectionId, Permit};

// What the store keeps can be transferred, and no more.
const _: () = assert!(KEY_BYTES_MAX == ENTRY_KEY_BYTES_MAX);

/// Bytes of a part that are handed to a client at once: together with what says so they fit a frame to a client.
const PIECE_BYTES: usize = 512 << 10;

/// How long damage that was told of is not told of again.
const DAMAGE_TOLD_AGAIN: Duration = Duration::from_secs(5);

/// How long a checkpoint below the stable one stays readable after a peer last read a part of it.
const READ_LATELY: Duration = Duration::from_secs(5);

/// How long a checkpoint stays readable after a later one became stable, and how many such there are at most: who hears of it
/// from a status asks for it later than that.
const SUPERSEDED_FOR: Duration = Duration::from_secs(1);
const SUPERSEDED_MAX: usize = 8;

/// The roots in an answer before the first checkpoint, which proves nothing.
const NOTHING_STABLE: StateRoot = StateRoot { application: Digest::ZERO, protocol: Digest::ZERO };

/// What the thread is asked to do.
pub(super) enum Keep {
    Checkpoint { sequence: Sequence, application: Changes, protocol: Vec<Change> },
    Stable { certificate: StableCertificate, root: StateRoot },
    SendPart(WantedPart),
    Prove(Question),
    Lend(BackupQuestion),
    StageBegin { afresh: bool },
    StageBuckets(Vec<StagedBucket>),
    StageEnd { sequence: Sequence, protocol: Vec<Entry> },
    StageInstall,
}

/// A client's question for a value with its proof.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) connection: ConnectionId,
    pub(super) number: RequestNumber,
    /// The key.
    pub(super) query: Blob,
    /// Its share of the client's budget, and its place among the questions, until the answer is handed over.
    pub(super) _permit: Permit,
    pub(super) _place: Place,
}

/// A part of a checkpoint's state that a peer asked for.
#[derive(Debug)]
pub(super) struct WantedPart {
    pub(super) to: ReplicaId,
    pub(super) sequence: Sequence,
    pub(super) want: Want,
    /// Its place among those of its peer, until the part is handed over.
    pub(super) place: OwnedSemaphorePermit,
}

/// The thread, as others see it.
pub(super) struct Keeper {
    /// Bound: a checkpoint an interval of the window, and the places for questions and parts. So the core's commands always
    /// have room, whatever others ask for.
    commands: Sender<Keep>,
    thread: JoinHandle<()>,
}

struct Keeping {
    store: CheckpointStore,
    /// That of the application's entries at the store's checkpoint.
    index: Index,
    /// The certificate and what its root is made of, of the last stable checkpoint.
    stable: Option<(StableCertificate, StateRoot)>,
    /// Those that wait for the next stable checkpoint. Bound: the places for questions.
    questions: Vec<Question>,
    events: UnboundedSender<Event>,
    /// The states of checkpoints that may become stable, of the stable one, of those that were lately, and of the one below
    /// that peers still read. Bound: one an interval in the window below the last, the last, one, and [`SUPERSEDED_MAX`].
    snapshots: Vec<Kept>,
    /// Those that clients read whole.
    lending: Lending,
    /// What is fetched from peers.
    stage: Option<Stage>,
    replacing: Replacing,
    /// Slots of the window: a checkpoint that far below the last is not the stable one any more, or of no use to others.
    window: u64,
    /// How often damage was met, and when it was last told of.
    damage: Cell<(u64, Option<Instant>)>,
}

/// What is needed to replace the application's state, and to show it.
pub(super) struct Replacing {
    /// Where others find the state of the last checkpoint.
    pub(super) current: Current,
    /// Makes an application.
    pub(super) build: Build,
    /// What this machine gives to a transfer.
    pub(super) limits: TransferLimits,
}

/// A state that stays readable.
struct Kept {
    state: Arc<Readable>,
    read: Option<Instant>,
    /// Since when a later one is stable.
    superseded: Option<Instant>,
}

impl Keeper {
    /// Starts on a store, and the index of what the application has in there.
    pub(super) fn start(
        store: CheckpointStore,
        index: Index,
        window: u64,
        replacing: Replacing,
        events: UnboundedSender<Event>,
    ) -> anyhow::Result<Self> {
        let mut keeping = Keeping::new(store, index, window, replacing, events);
        // Also that of slot 0, with which a cluster may begin.
        if keeping.store.latest().is_some() {
            keeping.keep_snapshot(keeping.taken())?;
        }
        let (commands, waiting) = channel();
        let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(move || {
            priority::give_way(priority::EXECUTION);
            keeping.work(&waiting);
        })?;
        Ok(Self { commands, thread })
    }

    pub(super) fn send(&self, command: Keep) -> anyhow::Result<()> {
        keep(&self.commands, command)
    }

    /// For another thread. It must end before this is closed.
    pub(super) fn sender(&self) -> Sender<Keep> {
        self.commands.clone()
    }

    pub(super) fn close(self) {
        drop(self.commands);
        if self.thread.join().is_err() {
            tracing::error!("the checkpoints' thread panicked");
        }
    }
}

/// Hands a command over.
///
/// # Errors
/// The thread has ended.
pub(super) fn keep(keeper: &Sender<Keep>, command: Keep) -> anyhow::Result<()> {
    keeper.send(command).map_err(|_ended| anyhow::anyhow!("the checkpoints' thread has ended"))
}

impl Keeping {
    fn new(
        store: CheckpointStore,
        index: Index,
        window: u64,
        replacing: Replacing,
        events: UnboundedSender<Event>,
    ) -> Self {
        let (questions, snapshots, lending) = (Vec::new(), Vec::new(), Lending::default());
        Self {
            store,
            index,
            stable: None,
            questions,
            events,
            snapshots,
            lending,
            stage: None,
            replacing,
            window,
            damage: Cell::default(),
        }
    }

    /// The slot of the last checkpoint: what proofs are of.
    fn taken(&self) -> Sequence {
        self.store.latest().map_or(Sequence::ZERO, |latest| Sequence::new(latest.sequence))
    }

    fn work(mut self, waiting: &Receiver<Keep>) {
        while let Ok(command) = waiting.recv() {
            if let Err(error) = self.on_command(command) {
                self.events.send(Event::Failed(error)).ok();
                return;
            }
        }
    }

    fn on_command(&mut self, command: Keep) -> anyhow::Result<()> {
        match command {
            Keep::Checkpoint { sequence, application, protocol } => {
                let begin = Instant::now();
                let application = self.index.apply(application);
                let (count, hashed) = (application.len(), Instant::now());
                self.events.send(Event::CheckpointTaken { sequence, application_root: self.index.root() }).ok();
                self.store
                    .apply(sequence.value(), &[], application, protocol)
                    .with_context(|| format!("writing the checkpoint at slot {sequence}"))?;
                self.keep_snapshot(sequence)?;
                let (hashing, writing) = (hashed.duration_since(begin), hashed.elapsed());
                tracing::debug!(%sequence, entries = count, ?hashing, ?writing, "checkpoint");
                self.events.send(Event::CheckpointDurable { sequence }).ok();
            }
            Keep::Stable { certificate, root } => {
                let stable = certificate.statement.sequence;
                for kept in self.snapshots.iter_mut().filter(|kept| kept.state.sequence < stable) {
                    kept.superseded.get_or_insert_with(Instant::now);
                }
                self.keep_from(stable);
                self.stable = Some((certificate, root));
                for question in std::mem::take(&mut self.questions) {
                    self.prove(question)?;
                }
            }
            Keep::Prove(question) => self.prove(question)?,
            Keep::Lend(question) => {
                let (message, read_bytes) = self.lend(&question)?;
                self.events.send(Event::Lent { question, message: message.into(), read_bytes }).ok();
            }
            Keep::SendPart(WantedPart { to, sequence, want, place }) => {
                if let Some(part) = self.part(sequence, &want)? {
                    let message = Message::Part(part).into();
                    self.events.send(Event::Part { to, message, place }).ok();
                }
            }
            Keep::StageBegin { afresh } => {
                // One at a time.
                self.stage = None;
                let (stage, leaves) = Stage::begin(&self.store, afresh)?;
                self.stage = Some(stage);
                self.events.send(Event::StageReady(StageReady { leaves, limits: self.replacing.limits })).ok();
            }
            Keep::StageBuckets(buckets) => {
                if let Some(stage) = &mut self.stage {
                    stage.replace(&self.store, buckets).context("writing what is fetched of a state")?;
                }
            }
            Keep::StageEnd { sequence, protocol } => {
                let Some(stage) = &mut self.stage else { return Ok(()) };
                let application_root = stage.end(&self.store, &self.replacing.build, (sequence, protocol))?;
                self.events.send(Event::Staged { sequence, application_root }).ok();
            }
            Keep::StageInstall => self.install()?,
        }
        Ok(())
    }

    fn install(&mut self) -> anyhow::Result<()> {
        let Some((whole, staged)) = self.stage.take().map(Stage::into_whole) else { return Ok(()) };
        let Some(Whole { sequence, application, index, reception }) = whole else { return Ok(()) };
        self.store
            .install(reception, sequence.value(), &[])
            .with_context(|| format!("installing the state at slot {sequence}"))?;
        if let Some(staged) = staged {
            self.store.forget_staged(staged)?;
        }
        self.index = index;
        self.snapshots.clear();
        self.keep_snapshot(sequence)?;
        self.events.send(Event::Installed { sequence, application: Rebuilt(application) }).ok();
        Ok(())
    }

    fn keep_snapshot(&mut self, sequence: Sequence) -> anyhow::Result<()> {
        let snapshot = self.store.snapshot().context("taking a snapshot of the checkpoint store")?;
        // Where this replica lags, its own checkpoints are below the stable one, and none of them is said to be it.
        self.keep_from(sequence.saturating_sub(self.window));
        self.lending.expire(Instant::now());
        let state = Readable { sequence, snapshot, tree: self.index.tree() };
        let state = Arc::new(state);
        *self.replacing.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&state));
        self.snapshots.push(Kept { state, read: None, superseded: None });
        Ok(())
    }

    /// Lets go of the states below `sequence`, but for the last one that a peer reads, and those that a peer may have just
    /// heard of.
    fn keep_from(&mut self, sequence: Sequence) {
        let newest_read = self.snapshots.iter().rfind(|kept| kept.is_read_lately()).map(|kept| kept.state.sequence);
        let superseded = self.snapshots.iter().rev().filter(|kept| kept.is_just_superseded());
        let oldest_superseded = superseded.take(SUPERSEDED_MAX).last().map(|kept| kept.state.sequence);
        self.snapshots.retain(|kept| {
            let is_superseded = kept.is_just_superseded() && Some(kept.state.sequence) >= oldest_superseded;
            kept.state.sequence >= sequence || is_superseded || Some(kept.state.sequence) == newest_read
        });
    }

    /// Answers with a proof if the last checkpoint is the stable one, and without one before the first; otherwise the
    /// question waits for it.
    fn prove(&mut self, question: Question) -> anyhow::Result<()> {
        if self.taken() == Sequence::ZERO {
            self.answer(question, None, NOTHING_STABLE, Blob::EMPTY);
            return Ok(());
        }
        let stable = self.stable.as_ref().filter(|(certificate, _)| certificate.statement.sequence == self.taken());
        let Some((certificate, root)) = stable.cloned() else {
            self.questions.push(question);
            return Ok(());
        };
        // The store asserts that no key is longer than it takes.
        let value = match self.snapshots.last() {
            Some(kept) if (1..=KEY_BYTES_MAX).contains(&question.query.len()) => {
                let value = kept.state.snapshot.get(Map::Application, &question.query);
                let Some(value) = self.read(&kept.state, value)? else { return Ok(()) };
                value
            }
            Some(_) | None => None,
        };
        let Ok(proof) = self.index.prove(&question.query, value) else { return Ok(()) };
        let proof = encode(&proof).context("a proof is below the bound of an encoding")?;
        self.answer(question, Some(certificate), root, proof.into());
        Ok(())
    }

    fn answer(&self, question: Question, certificate: Option<StableCertificate>, state: StateRoot, proof: Blob) {
        let message = ReplicaMessage::Proved { number: question.number, certificate, state, proof };
        // The host ends before its threads do: what it no longer hears is of no use.
        self.events.send(Event::Proved { question, message: message.into() }).ok();
    }

    /// Which checkpoint a client may read whole, or a piece of it; and how many bytes were read and encoded for that.
    fn lend(&mut self, question: &BackupQuestion) -> anyhow::Result<(ReplicaMessage, usize)> {
        let (number, now) = (question.number, Instant::now());
        let Some(WantedPiece { sequence, want, offset }) = &question.piece else {
            let newest = self.stable.clone().and_then(|(certificate, root)| {
                let kept = self.snapshots.iter().find(|kept| kept.state.sequence == certificate.statement.sequence)?;
                Some((StableState { certificate, root }, Arc::clone(&kept.state)))
            });
            return Ok((ReplicaMessage::Checkpoint { number, checkpoint: self.lending.offer(newest, now) }, 0));
        };
        let (damage_before, _) = self.damage.get();
        let part = match self.lending.read(*sequence, now) {
            Some(state) => self.read(&state, state.part(want))?.flatten(),
            // A standby reads what peers may read.
            None => self.part(*sequence, want)?,
        };
        let encoded = part.and_then(|part| encode(&part).ok());
        let is_damaged = self.damage.get().0 > damage_before;
        let read_bytes = encoded.as_ref().map_or(if is_damaged { PIECE_BYTES } else { 0 }, Bytes::len);
        let piece = encoded.and_then(|bytes| {
            let begin = usize::try_from(*offset).ok().filter(|begin| *begin < bytes.len())?;
            let end = bytes.len().min(begin + PIECE_BYTES);
            Some(Piece { length: u32::try_from(bytes.len()).ok()?, bytes: bytes.slice(begin..end).into() })
        });
        Ok((ReplicaMessage::Part { number, piece }, read_bytes))
    }

    /// A part of a checkpoint, for a peer.
    fn part(&mut self, sequence: Sequence, want: &Want) -> anyhow::Result<Option<Part>> {
        let Some(kept) = self.snapshots.iter_mut().find(|kept| kept.state.sequence == sequence) else {
            return Ok(None);
        };
        kept.read = Some(Instant::now());
        let state = Arc::clone(&kept.state);
        Ok(self.read(&state, state.part(want))?.flatten())
    }

    /// What was read of a state; none if that is damaged, which is told now and then, unless another state has taken its place
    /// already: others may ask for it again and again.
    ///
    /// # Errors
    /// It cannot be read though it is not damaged.
    fn read<T>(&self, state: &Readable, found: Result<T, checkpoint::Error>) -> anyhow::Result<Option<T>> {
        let error = match found {
            Ok(found) => return Ok(Some(found)),
            Err(error) => anyhow::Error::from(error),
        };
        if !is_damage(&error) {
            return Err(error);
        }
        let (count, told) = self.damage.get();
        self.damage.set((count + 1, told));
        if !state.snapshot.is_replaced() && told.is_none_or(|told| told.elapsed() >= DAMAGE_TOLD_AGAIN) {
            self.damage.set((count + 1, Some(Instant::now())));
            let sequence = state.sequence;
            tracing::error!(%sequence, error = format!("{error:#}"), "the state on the disk cannot be read");
            self.events.send(Event::StateDamaged).ok();
        }
        Ok(None)
    }
}

impl Kept {
    fn is_read_lately(&self) -> bool {
        self.read.is_some_and(|read| read.elapsed() < READ_LATELY)
    }

    fn is_just_superseded(&self) -> bool {
        self.superseded.is_some_and(|superseded| superseded.elapsed() < SUPERSEDED_FOR)
    }
}

/// For tests.
#[cfg(test)]
pub(super) const LIMITS: TransferLimits = TransferLimits { unchecked_bytes_max: 1 << 30, bytes_per_second: 1 << 30 };

#[cfg(test)]
mod tests;
