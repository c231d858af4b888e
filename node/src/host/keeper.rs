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
mod tests {
    use std::fs;
    use std::path::Path;

    use quorate_protocol::codec::{List, decode};
    use quorate_protocol::kv::Store;
    use quorate_protocol::message::Content;
    use quorate_protocol::number::Epoch;
    use quorate_protocol::state::{DEPTH, Proof, bucket_of, crown_level};
    use quorate_protocol::statement::Checkpoint;
    use tokio::sync::Semaphore;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    fn replacing() -> Replacing {
        Replacing { current: Current::default(), build: Arc::new(|| Box::new(Store::default())), limits: LIMITS }
    }

    /// The key of the one entry of the store.
    const KEY: &[u8] = b"key";

    /// The bucket of that key, after another one.
    fn bucket_of_key(after: Option<Blob>) -> Want {
        bucket_with(KEY, after)
    }

    fn bucket_with(key: &[u8], after: Option<Blob>) -> Want {
        let (bucket, height) = (bucket_of(key, DEPTH), DEPTH - crown_level(DEPTH));
        let narrow = |number: u32| u16::try_from(number).unwrap();
        let place = narrow(bucket & ((1 << height) - 1));
        Want::Buckets { group: narrow(bucket >> height), buckets: List::new(vec![place]).unwrap(), after }
    }

    /// A keeper of a store with one entry of the application at slot 128.
    fn keeping(folder: &Path) -> Keeping {
        let mut store = CheckpointStore::open(folder).unwrap();
        store.apply(128, &[], vec![(KEY.into(), Some(Bytes::new()))], vec![]).unwrap();
        let mut index = Index::new(DEPTH);
        index.add(KEY, b"");
        index.finish();
        let mut keeping = Keeping::new(store, index, 512, replacing(), unbounded_channel().0);
        keeping.keep_snapshot(Sequence::new(128)).unwrap();
        keeping
    }

    #[test]
    fn what_no_part_can_begin_with_is_not_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeping = keeping(folder.path());
        let mut keys_after = |bytes: usize| {
            let after = Some(Blob::from(vec![0; bytes]));
            let want = bucket_of_key(after);
            let part = keeping.part(Sequence::new(128), &want).unwrap()?;
            let Content::Buckets { entries, whole: 1 } = part.content else { panic!("{part:?}") };
            Some(entries.iter().map(|entry| entry.key.to_vec()).collect::<Vec<_>>())
        };
        // Which of them lie behind the key in its bucket is decided by their digests.
        assert!(keys_after(ENTRY_KEY_BYTES_MAX).is_some());
        // The last three are more than the store can compare with.
        for bytes in [ENTRY_KEY_BYTES_MAX + 1, 65_534, 65_535, 65_536, 1 << 20] {
            assert_eq!(keys_after(bytes), None, "{bytes}");
        }
    }

    #[test]
    fn the_states_that_stay_readable_are_bounded_though_none_becomes_stable() {
        let folder = tempfile::tempdir().unwrap();
        let (events, _said) = unbounded_channel();
        let store = CheckpointStore::open(folder.path()).unwrap();
        let mut keeping = Keeping::new(store, Index::new(DEPTH), 8, replacing(), events);
        for sequence in (4..=40).step_by(4) {
            keeping.on_command(checkpoint(sequence, Vec::new())).unwrap();
        }
        let kept: Vec<u64> = keeping.snapshots.iter().map(|kept| kept.state.sequence.value()).collect();
        assert_eq!(kept, [32, 36, 40]);
    }

    #[test]
    fn what_was_stable_a_moment_ago_stays_readable_and_not_more_of_that_than_a_few() {
        let folder = tempfile::tempdir().unwrap();
        let (events, _said) = unbounded_channel();
        let store = CheckpointStore::open(folder.path()).unwrap();
        let mut keeping = Keeping::new(store, Index::new(DEPTH), 8, replacing(), events);
        let kept =
            |keeping: &Keeping| keeping.snapshots.iter().map(|kept| kept.state.sequence.value()).collect::<Vec<_>>();
        for sequence in (4..=80).step_by(4) {
            keeping.on_command(checkpoint(sequence, Vec::new())).unwrap();
            keeping.on_command(stable(sequence)).unwrap();
        }
        let last: Vec<u64> = (80 - 4 * SUPERSEDED_MAX as u64..=80).step_by(4).collect();
        assert_eq!(kept(&keeping), last);
        assert!(keeping.part(Sequence::new(last[0]), &Want::Crown).unwrap().is_some());
        for kept in &mut keeping.snapshots {
            kept.read = None;
            kept.superseded = kept.superseded.and_then(|superseded| superseded.checked_sub(SUPERSEDED_FOR));
        }
        keeping.on_command(stable(80)).unwrap();
        assert_eq!(kept(&keeping), [80]);
    }

    fn checkpoint(sequence: u64, application: Vec<Change>) -> Keep {
        let (sequence, application) = (Sequence::new(sequence), Box::new(application.into_iter()));
        Keep::Checkpoint { sequence, application, protocol: Vec::new() }
    }

    fn stable(sequence: u64) -> Keep {
        let statement = Checkpoint { epoch: Epoch::ZERO, sequence: Sequence::new(sequence), root: Digest::ZERO };
        Keep::Stable { certificate: StableCertificate { statement, votes: List::empty() }, root: NOTHING_STABLE }
    }

    fn question(key: &[u8]) -> Keep {
        Keep::Prove(Question {
            connection: ConnectionId(1),
            number: RequestNumber::new(7),
            query: Blob::from(key),
            _permit: Permit::of_a_test(),
            _place: Place::of_a_test(),
        })
    }

    /// What came of commands to a keeper of a store with nothing in it.
    fn answers(commands: impl IntoIterator<Item = Keep>) -> Vec<ReplicaMessage> {
        let folder = tempfile::tempdir().unwrap();
        let (events, mut said): (_, UnboundedReceiver<Event>) = unbounded_channel();
        let store = CheckpointStore::open(folder.path()).unwrap();
        let mut keeping = Keeping::new(store, Index::new(DEPTH), 512, replacing(), events);
        commands.into_iter().for_each(|command| keeping.on_command(command).unwrap());
        let answer = |event| match event {
            Event::Proved { message, .. } => Some(*message),
            _ => None,
        };
        std::iter::from_fn(|| said.try_recv().ok()).filter_map(answer).collect()
    }

    /// The slots of the certificates in answers to questions.
    fn proved(commands: impl IntoIterator<Item = Keep>) -> Vec<Option<u64>> {
        let certificate = |message| match message {
            ReplicaMessage::Proved { certificate, .. } => certificate.map(|found| found.statement.sequence.value()),
            other => panic!("{other:?}"),
        };
        answers(commands).into_iter().map(certificate).collect()
    }

    #[test]
    fn before_the_first_checkpoint_a_question_is_answered_without_a_proof() {
        assert_eq!(proved([question(KEY)]), [None]);
    }

    #[test]
    fn a_question_is_answered_as_soon_as_the_last_checkpoint_is_known_to_be_stable() {
        let commands = [checkpoint(128, vec![]), question(KEY), stable(128), question(KEY)];
        assert_eq!(proved(commands), [Some(128), Some(128)]);
    }

    #[test]
    fn a_question_waits_while_the_last_checkpoint_is_not_the_stable_one() {
        let before = [checkpoint(128, vec![]), checkpoint(256, vec![]), stable(128), question(KEY)];
        assert_eq!(proved(before), []);
    }

    /// What is proved is the value under the root of the checkpoint, or that there is none.
    #[test]
    fn an_answer_proves_what_the_checkpoint_holds() {
        let set = |value: &[u8]| (KEY.into(), Some(Bytes::copy_from_slice(value)));
        let mut index = Index::new(DEPTH);
        index.apply([set(b"new")]);
        let asked = [question(KEY), question(b"absent"), question(&[]), question(&vec![b'a'; KEY_BYTES_MAX + 1])];
        let commands = [checkpoint(128, vec![set(b"old")]), checkpoint(256, vec![set(b"new")]), stable(256)];
        let shown = answers(commands.into_iter().chain(asked)).into_iter().map(|message| match message {
            ReplicaMessage::Proved { proof, .. } => decode::<Proof>(proof.bytes()).unwrap(),
            other => panic!("{other:?}"),
        });
        let shown: Vec<Proof> = shown.collect();
        let value = |place: usize, key: &[u8]| shown[place].verify(&index.root(), key).map(Option::<&Blob>::cloned);
        assert_eq!(value(0, KEY), Ok(Some(Blob::from(&b"new"[..]))));
        assert_eq!(value(1, b"absent"), Ok(None));
        assert_eq!(value(2, &[]), Ok(None));
        assert_eq!(value(3, &vec![b'a'; KEY_BYTES_MAX + 1]), Ok(None));
    }
    fn lend(piece: Option<WantedPiece>) -> Keep {
        Keep::Lend(BackupQuestion {
            connection: ConnectionId(1),
            number: RequestNumber::new(7),
            piece,
            _permit: Permit::of_a_test(),
            _place: Place::of_a_test(),
        })
    }

    fn piece(sequence: u64, offset: usize) -> Keep {
        let want = bucket_of_key(None);
        lend(Some(WantedPiece { sequence: Sequence::new(sequence), want, offset: u32::try_from(offset).unwrap() }))
    }

    fn lent(commands: impl IntoIterator<Item = Keep>) -> Vec<ReplicaMessage> {
        let folder = tempfile::tempdir().unwrap();
        let (events, mut said): (_, UnboundedReceiver<Event>) = unbounded_channel();
        let store = CheckpointStore::open(folder.path()).unwrap();
        let mut keeping = Keeping::new(store, Index::new(DEPTH), 4, replacing(), events);
        commands.into_iter().for_each(|command| keeping.on_command(command).unwrap());
        let answer = |event| match event {
            Event::Lent { message, .. } => Some(*message),
            _ => None,
        };
        std::iter::from_fn(|| said.try_recv().ok()).filter_map(answer).collect()
    }

    #[test]
    fn a_checkpoint_that_a_client_reads_stays_whole_while_later_ones_are_stable() {
        let large = Bytes::from(vec![7; 3 * PIECE_BYTES / 2]);
        let set = |value: &Bytes| vec![(KEY.into(), Some(value.clone()))];
        let before = [lend(None), checkpoint(128, set(&large)), lend(None), stable(128), lend(None)];
        let later = (2..6).flat_map(|round| [checkpoint(128 * round, set(&Bytes::new())), stable(128 * round)]);
        let read = [piece(128, 0), piece(128, PIECE_BYTES), piece(128, 1 << 30), piece(384, 0)];
        let mut said = lent(before.into_iter().chain(later).chain(read)).into_iter();
        let mut offers = said.by_ref().take(3).map(|message| match message {
            ReplicaMessage::Checkpoint { checkpoint, .. } => {
                checkpoint.map(|state| state.certificate.statement.sequence.value())
            }
            other => panic!("{other:?}"),
        });
        assert_eq!([offers.next(), offers.next(), offers.next()], [Some(None), Some(None), Some(Some(128))]);
        drop(offers);
        let pieces: Vec<Option<Piece>> = said
            .map(|message| match message {
                ReplicaMessage::Part { piece, .. } => piece,
                other => panic!("{other:?}"),
            })
            .collect();
        let [Some(first), Some(second), None, None] = &pieces[..] else { panic!("{pieces:?}") };
        let whole = Bytes::from([&first.bytes[..], &second.bytes[..]].concat());
        assert_eq!(whole.len(), first.length as usize);
        let part: Part = decode(&whole).unwrap();
        let Content::Buckets { entries, .. } = part.content else { panic!("{part:?}") };
        assert_eq!(entries[0].value, large.into());
    }

    /// How many bytes each question for a piece costs.
    fn read_bytes(commands: impl IntoIterator<Item = Keep>) -> Vec<usize> {
        let folder = tempfile::tempdir().unwrap();
        let (events, mut said) = unbounded_channel();
        let store = CheckpointStore::open(folder.path()).unwrap();
        let mut keeping = Keeping::new(store, Index::new(DEPTH), 4, replacing(), events);
        commands.into_iter().for_each(|command| keeping.on_command(command).unwrap());
        let cost = |event| match event {
            Event::Lent { message, read_bytes, .. } => {
                matches!(*message, ReplicaMessage::Part { .. }).then_some(read_bytes)
            }
            _ => None,
        };
        std::iter::from_fn(|| said.try_recv().ok()).filter_map(cost).collect()
    }

    #[test]
    fn a_piece_costs_as_much_as_its_part_however_little_is_handed_out() {
        let set = vec![(KEY.into(), Some(Bytes::from(vec![7; PIECE_BYTES])))];
        let before = [checkpoint(128, set), stable(128)];
        // The first piece, the last ones, one beyond the end, and one of a part that is not here.
        let read = [piece(128, 0), piece(128, PIECE_BYTES), piece(128, 1 << 30), piece(256, 0)];
        let costs = read_bytes(before.into_iter().chain(read));
        let [first, last, beyond, 0] = costs[..] else { panic!("{costs:?}") };
        assert!(first > PIECE_BYTES && first == last && last == beyond, "{costs:?}");
    }

    /// A hundred keys in a store with an entry each at slot 128, of which one or two are rotten on the disk; and their index.
    fn rotten(folder: &Path) -> (Vec<String>, CheckpointStore, Index) {
        let keys: Vec<String> = (0..100).map(|number| format!("key {number}")).collect();
        // So much that it is written to a table.
        let value = Bytes::from(vec![7; 100_000]);
        let changes = keys.iter().map(|key| (key.clone().into(), Some(value.clone()))).collect();
        CheckpointStore::open(folder).unwrap().apply(128, &[], changes, vec![]).unwrap();
        let tables = fs::read_dir(folder.join("state-0000000000000001/keyspaces/1/tables")).unwrap();
        let [table] = &tables.map(|table| table.unwrap().path()).collect::<Vec<_>>()[..] else { panic!("one table") };
        let mut bytes = fs::read(table).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(table, bytes).unwrap();
        let mut index = Index::new(DEPTH);
        for key in &keys {
            index.add(key.as_bytes(), &value);
        }
        index.finish();
        (keys, CheckpointStore::open(folder).unwrap(), index)
    }

    #[test]
    fn a_damaged_state_is_told_of_by_whoever_reads_it_and_nothing_is_answered_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let (events, mut said) = unbounded_channel();
        let (keys, store, index) = rotten(folder.path());
        let mut keeping = Keeping::new(store, index, 512, replacing(), events);
        keeping.keep_snapshot(Sequence::new(128)).unwrap();
        let before = [stable(128), lend(None)];
        let read = keys.iter().flat_map(|key| {
            let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
            let (to, sequence, want) = (ReplicaId::new(1), Sequence::new(128), bucket_with(key.as_bytes(), None));
            let piece = WantedPiece { sequence, want: want.clone(), offset: 0 };
            [question(key.as_bytes()), Keep::SendPart(WantedPart { to, sequence, want, place }), lend(Some(piece))]
        });
        before.into_iter().chain(read).for_each(|command| keeping.on_command(command).unwrap());
        let (mut proved, mut parts, mut pieces, mut without, mut damaged) = (0, 0, 0, 0, 0);
        while let Ok(event) = said.try_recv() {
            match event {
                Event::Proved { .. } => proved += 1,
                Event::Part { .. } => parts += 1,
                Event::Lent { message, read_bytes, .. } => match *message {
                    ReplicaMessage::Part { piece: Some(_), .. } => pieces += 1,
                    ReplicaMessage::Part { piece: None, .. } => {
                        without += 1;
                        assert_eq!(read_bytes, PIECE_BYTES, "it costs as much as if there had been something");
                    }
                    other => assert!(matches!(other, ReplicaMessage::Checkpoint { checkpoint: Some(_), .. })),
                },
                Event::StateDamaged => damaged += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!((1..=2).contains(&(100 - proved)), "{proved}");
        assert!((1..=4).contains(&without), "{without}");
        assert_eq!((parts, pieces), (100 - without, 100 - without));
        assert_eq!(damaged, 1, "however often it is met");
        assert_eq!(keeping.damage.get().0, 100 - proved + 2 * without);
    }

    #[test]
    fn a_damaged_state_whose_place_another_has_taken_is_not_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let (events, mut said) = unbounded_channel();
        let (keys, store, index) = rotten(folder.path());
        let mut keeping = Keeping::new(store, index, 512, replacing(), events);
        keeping.keep_snapshot(Sequence::new(128)).unwrap();
        for command in [stable(128), lend(None)] {
            keeping.on_command(command).unwrap();
        }
        let reception = keeping.store.receive().unwrap();
        keeping.store.install(reception, 256, &[]).unwrap();
        for key in keys {
            let want = bucket_with(key.as_bytes(), None);
            let piece = WantedPiece { sequence: Sequence::new(128), want, offset: 0 };
            keeping.on_command(lend(Some(piece))).unwrap();
        }
        let said: Vec<Event> = std::iter::from_fn(|| said.try_recv().ok()).collect();
        assert!(said.iter().all(|event| matches!(event, Event::Lent { .. })), "{said:?}");
    }
}
