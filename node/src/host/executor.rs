//! The application's own thread: slots execute here in order, while the host goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use quorate_crypto::Digest;
use quorate_protocol::application::{Change, Execution, execute};
use quorate_protocol::certificate::StableCertificate;
use quorate_protocol::codec::Blob;
use quorate_protocol::input::StagedState;
use quorate_protocol::message::{Entry, ReplicaMessage, StateRoot};
use quorate_protocol::number::{ReplicaId, RequestNumber, Sequence};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::keeper::{Keep, Keeper};
use super::start::{Build, Replicated};
use super::{Event, priority};
use crate::transport::{ConnectionId, Permit};

/// Parts on their way to one peer, which asks for one after the other; what it asks for beyond that is not answered.
const PARTS_PER_PEER_MAX: usize = 4;

/// The roots in an answer before the first checkpoint, which proves nothing.
const NOTHING_STABLE: StateRoot = StateRoot { application: Digest::ZERO, protocol: Digest::ZERO };

/// What the host asks of the application's thread.
pub(super) enum Command {
    Execute(Execution),
    TakeCheckpoint {
        sequence: Sequence,
        protocol: Vec<Change>,
    },
    Stable {
        certificate: StableCertificate,
        root: StateRoot,
    },
    SendPart(WantedPart),
    StageBegin {
        sequence: Sequence,
    },
    StageEntries {
        protocol: Vec<Entry>,
        application: Vec<Entry>,
    },
    /// What is staged is no state, whatever else comes.
    StageRefuse,
    StageEnd,
    StageInstall,
    Prove(Question),
}

/// A client's question for a value with its proof.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) connection: ConnectionId,
    pub(super) number: RequestNumber,
    pub(super) query: Blob,
    /// Its share of the client's budget, and its place among the questions, until the answer is handed over.
    pub(super) _permit: Permit,
    pub(super) _places: [OwnedSemaphorePermit; 2],
}

/// A part of a checkpoint's state that a peer asked for.
#[derive(Debug)]
pub(super) struct WantedPart {
    pub(super) to: ReplicaId,
    pub(super) sequence: Sequence,
    pub(super) cursor: Blob,
    /// Its place among those of its peer, until the part is handed over.
    pub(super) place: OwnedSemaphorePermit,
}

/// The application's thread, as the host sees it.
pub(super) struct Executor {
    /// Bound: what the core has outstanding, which is 32 slots, a checkpoint an interval of the window, and the entries that
    /// [`Staging`](super::staging::Staging) admits; and the places for questions and parts. So the core's commands always
    /// have room, whatever others ask for.
    commands: Sender<Command>,
    /// The places for parts. Bound: one entry a member.
    parts: BTreeMap<ReplicaId, Arc<Semaphore>>,
    thread: JoinHandle<()>,
}

/// What the thread owns.
struct Executing {
    build: Build,
    application: Replicated,
    keeper: Keeper,
    events: UnboundedSender<Event>,
    /// The slot of the last checkpoint taken: what proofs are of.
    taken: Sequence,
    /// The certificate and what its root is made of, of the last stable checkpoint.
    stable: Option<(StableCertificate, StateRoot)>,
    /// Those that wait for the next stable checkpoint. Bound: the places for questions.
    questions: Vec<Question>,
    staged: Option<Staged>,
}

/// A state that is being put together.
struct Staged {
    sequence: Sequence,
    /// Bound of both: what [`Staging`](super::staging::Staging) admits.
    application: Vec<Entry>,
    protocol: Vec<Entry>,
    is_refused: bool,
    /// The application rebuilt from the entries, once all are here.
    rebuilt: Option<Replicated>,
}

impl Staged {
    fn begin(sequence: Sequence) -> Self {
        Self { sequence, application: Vec::new(), protocol: Vec::new(), is_refused: false, rebuilt: None }
    }
}

impl Executor {
    pub(super) fn start(
        build: Build,
        application: Replicated,
        taken: Sequence,
        keeper: Keeper,
        events: UnboundedSender<Event>,
    ) -> std::io::Result<Self> {
        let (commands, waiting) = channel();
        let executing =
            Executing { build, application, keeper, events, taken, stable: None, questions: Vec::new(), staged: None };
        let thread = std::thread::Builder::new().name("execute".into()).spawn(move || {
            priority::give_way(priority::EXECUTION);
            executing.work(&waiting);
        })?;
        Ok(Self { commands, parts: BTreeMap::new(), thread })
    }

    /// Hands a command over.
    ///
    /// # Errors
    /// The thread has ended.
    pub(super) fn send(&self, command: Command) -> anyhow::Result<()> {
        self.commands.send(command).map_err(|_ended| anyhow::anyhow!("the application's thread has ended"))
    }

    /// Has a part read for a peer, unless too many are on their way to it: it asks again for what does not come.
    ///
    /// # Errors
    /// See [`Self::send`].
    pub(super) fn send_part(&mut self, to: ReplicaId, sequence: Sequence, cursor: Blob) -> anyhow::Result<()> {
        let places = self.parts.entry(to).or_insert_with(|| Arc::new(Semaphore::new(PARTS_PER_PEER_MAX)));
        match Arc::clone(places).try_acquire_owned() {
            Ok(place) => self.send(Command::SendPart(WantedPart { to, sequence, cursor, place })),
            Err(_none_is_free) => {
                tracing::debug!(%to, "asks for more parts than it takes");
                Ok(())
            }
        }
    }

    /// Ends the thread after what it has begun.
    pub(super) fn close(self) {
        drop(self.commands);
        if self.thread.join().is_err() {
            tracing::error!("the application's thread panicked");
        }
    }
}

impl Executing {
    fn work(mut self, waiting: &Receiver<Command>) {
        while let Ok(command) = waiting.recv() {
            if let Err(error) = self.on_command(command) {
                self.events.send(Event::Failed(error)).ok();
                break;
            }
        }
        self.keeper.close();
    }

    fn on_command(&mut self, command: Command) -> anyhow::Result<()> {
        match command {
            Command::Execute(execution) => {
                let results = execute(&mut *self.application, &execution);
                self.report(Event::Executed { sequence: execution.sequence, results });
            }
            Command::TakeCheckpoint { sequence, protocol } => {
                let begin = std::time::Instant::now();
                let image = self.application.checkpoint();
                tracing::debug!(%sequence, took = ?begin.elapsed(), changes = image.changes.len(), "checkpoint taken");
                self.taken = sequence;
                self.report(Event::CheckpointTaken { sequence, application_root: image.root });
                self.keeper.send(Keep::Apply { sequence, application: image.changes, protocol })?;
            }
            Command::Stable { certificate, root } => {
                self.keeper.send(Keep::Stable(certificate.statement.sequence))?;
                self.stable = Some((certificate, root));
                for question in std::mem::take(&mut self.questions) {
                    self.prove(question);
                }
            }
            Command::SendPart(wanted) => self.keeper.send(Keep::SendPart(wanted))?,
            Command::Prove(question) => self.prove(question),
            Command::StageBegin { sequence } => {
                self.staged = Some(Staged::begin(sequence));
            }
            Command::StageEntries { protocol, application } => {
                if let Some(staged) = &mut self.staged {
                    staged.protocol.extend(protocol);
                    staged.application.extend(application);
                }
            }
            Command::StageRefuse => {
                if let Some(staged) = &mut self.staged {
                    *staged = Staged { is_refused: true, ..Staged::begin(staged.sequence) };
                }
            }
            Command::StageEnd => self.stage_end(),
            Command::StageInstall => self.stage_install()?,
        }
        Ok(())
    }

    fn report(&self, event: Event) {
        // The host ends before its threads do: what it no longer hears is of no use.
        self.events.send(event).ok();
    }

    /// Rebuilds the application beside the one that runs and says what its root is.
    fn stage_end(&mut self) {
        let Some(staged) = &mut self.staged else { return };
        if staged.is_refused {
            let event = StagedState { sequence: staged.sequence, application_root: None, protocol: Vec::new() };
            return self.report(Event::Staged(event));
        }
        let mut rebuilt = (self.build)();
        let restored = rebuilt.restore(&mut staged.application.iter().cloned());
        if let Err(error) = &restored {
            tracing::warn!(%error, "the transferred state is not one of this application");
        }
        staged.rebuilt = Some(rebuilt);
        let event = StagedState {
            sequence: staged.sequence,
            application_root: restored.ok(),
            protocol: staged.protocol.clone(),
        };
        self.report(Event::Staged(event));
    }

    fn stage_install(&mut self) -> anyhow::Result<()> {
        let Some(Staged { sequence, application, protocol, rebuilt: Some(rebuilt), .. }) = self.staged.take() else {
            return Ok(());
        };
        self.application = rebuilt;
        self.taken = sequence;
        self.keeper.send(Keep::Install { sequence, application, protocol })
    }

    /// Answers with a proof if the last checkpoint is the stable one, and without one before the first; otherwise the
    /// question waits for it.
    fn prove(&mut self, question: Question) {
        if self.taken == Sequence::ZERO {
            return self.answer(question, None, NOTHING_STABLE, Blob::EMPTY);
        }
        let stable = self.stable.as_ref().filter(|(certificate, _)| certificate.statement.sequence == self.taken);
        let Some((certificate, state)) = stable else {
            return self.questions.push(question);
        };
        let Some(proof) = self.application.prove(&question.query) else { return };
        self.answer(question, Some(certificate.clone()), *state, proof);
    }

    fn answer(&self, question: Question, certificate: Option<StableCertificate>, state: StateRoot, proof: Blob) {
        let message = ReplicaMessage::Proved { number: question.number, certificate, state, proof };
        self.report(Event::Proved { question, message: message.into() });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use quorate_crypto::SigningKey;
    use quorate_protocol::application::{Application, Executable, Image, NotAState, Surroundings};
    use quorate_protocol::codec::List;
    use quorate_protocol::kv::Store;
    use quorate_protocol::number::{Epoch, Session};
    use quorate_protocol::statement::Checkpoint;
    use quorate_protocol::time::WallTime;
    use tempfile::TempDir;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use crate::storage::checkpoint::CheckpointStore;

    /// An executor of an empty store, its events, and the folder of its checkpoints.
    struct Bench {
        executor: Executor,
        events: UnboundedReceiver<Event>,
        _folder: TempDir,
    }

    impl Bench {
        /// One whose state on disk is that of the checkpoint at `taken`.
        fn start(taken: Sequence) -> Self {
            Self::start_with(taken, Arc::new(|| Box::new(Store::default())))
        }

        fn start_with(taken: Sequence, build: Build) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let (sender, events) = unbounded_channel();
            let mut store = CheckpointStore::open(folder.path()).unwrap();
            store.apply(taken.value(), &[], vec![], vec![]).unwrap();
            let keeper = Keeper::start(store, 512, sender.clone()).unwrap();
            let executor = Executor::start(Arc::clone(&build), build(), taken, keeper, sender).unwrap();
            Self { executor, events, _folder: folder }
        }

        fn send(&self, commands: impl IntoIterator<Item = Command>) {
            commands.into_iter().for_each(|command| self.executor.send(command).unwrap());
        }

        /// All that is reported until everything that was asked for is done.
        fn end(self) -> Vec<Event> {
            let Self { executor, mut events, .. } = self;
            executor.close();
            std::iter::from_fn(|| events.try_recv().ok()).collect()
        }
    }

    fn question() -> Command {
        let place = || Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        Command::Prove(Question {
            connection: ConnectionId(1),
            number: RequestNumber::new(7),
            query: Blob::from(&b"key"[..]),
            _permit: Permit::of_a_test(),
            _places: [place(), place()],
        })
    }

    fn stable(sequence: Sequence) -> Command {
        let statement = Checkpoint { epoch: Epoch::ZERO, sequence, root: Digest::ZERO };
        Command::Stable { certificate: StableCertificate { statement, votes: List::empty() }, root: NOTHING_STABLE }
    }

    /// The slots of the certificates in the answers to questions.
    fn proved(events: Vec<Event>) -> Vec<Option<Sequence>> {
        let certificate = |event| match event {
            Event::Proved { message, .. } => match *message {
                ReplicaMessage::Proved { certificate, .. } => Some(certificate.map(|found| found.statement.sequence)),
                _ => None,
            },
            _ => None,
        };
        events.into_iter().filter_map(certificate).collect()
    }

    #[test]
    fn before_the_first_checkpoint_a_question_is_answered_without_a_proof() {
        let bench = Bench::start(Sequence::ZERO);
        bench.send([question()]);
        assert_eq!(proved(bench.end()), [None]);
    }

    #[test]
    fn a_question_is_answered_from_the_state_on_disk_as_soon_as_that_is_known_to_be_stable() {
        let taken = Sequence::new(128);
        let bench = Bench::start(taken);
        bench.send([question(), stable(taken), question()]);
        assert_eq!(proved(bench.end()), [Some(taken), Some(taken)]);
    }

    #[test]
    fn a_question_waits_while_the_last_checkpoint_is_not_the_stable_one() {
        let (before, last) = (Sequence::new(128), Sequence::new(256));
        let bench = Bench::start(last);
        bench.send([stable(before), question()]);
        assert_eq!(proved(bench.end()), []);
    }

    #[test]
    fn a_peer_that_asks_for_parts_and_takes_none_gets_a_few() {
        let taken = Sequence::new(128);
        let mut bench = Bench::start(taken);
        let (one, other) = (ReplicaId::new(1), ReplicaId::new(2));
        for to in [one; 100].into_iter().chain([other]) {
            bench.executor.send_part(to, taken, Blob::EMPTY).unwrap();
        }
        let mut sent = BTreeMap::new();
        for event in bench.end() {
            if let Event::Part { to, .. } = event {
                *sent.entry(to).or_default() += 1;
            }
        }
        assert_eq!(sent, BTreeMap::from([(one, PARTS_PER_PEER_MAX), (other, 1)]));
    }

    #[test]
    fn a_peer_that_takes_its_parts_gets_all() {
        let taken = Sequence::new(128);
        let mut bench = Bench::start(taken);
        for _ in 0..10 * PARTS_PER_PEER_MAX {
            bench.executor.send_part(ReplicaId::new(1), taken, Blob::EMPTY).unwrap();
            assert!(matches!(bench.events.blocking_recv(), Some(Event::Part { .. })));
        }
    }

    /// An application whose every operation takes until the test is done with it.
    struct Slow(Receiver<()>);

    impl Application for Slow {
        fn execute(&mut self, _surroundings: &Surroundings, _operation: &Blob) -> Blob {
            assert!(self.0.recv().is_err(), "the test only ever lets go");
            Blob::EMPTY
        }

        fn checkpoint(&mut self) -> Image {
            Image { root: Digest::ZERO, changes: Vec::new() }
        }

        fn restore(&mut self, _entries: &mut dyn Iterator<Item = Entry>) -> Result<Digest, NotAState> {
            Ok(Digest::ZERO)
        }
    }

    #[test]
    fn while_the_application_is_busy_there_is_room_for_all_that_the_core_asks() {
        let (busy, done) = channel();
        let done = Mutex::new(Some(done));
        let take = move || done.lock().unwrap().take().unwrap();
        let bench = Bench::start_with(Sequence::ZERO, Arc::new(move || Box::new(Slow(take()))));
        let request = Executable {
            client: SigningKey::from_seed([1; 32]).public_key(),
            session: Session::NONE,
            number: RequestNumber::new(1),
            index: 0,
            operations: List::new(vec![Blob::EMPTY]).unwrap(),
        };
        let execution = |requests| Execution { sequence: Sequence::new(1), time: WallTime::ZERO, requests };
        bench.send([Command::Execute(execution(vec![request]))]);
        bench.send((0..10_000).map(|_| Command::Execute(execution(vec![]))));
        drop(busy);
        assert_eq!(bench.end().len(), 10_001);
    }

    #[test]
    fn what_is_refused_while_it_is_staged_is_no_state() {
        let sequence = Sequence::new(128);
        let entry = || vec![Entry { key: Blob::from(&b"key"[..]), value: Blob::EMPTY }];
        let entries = || Command::StageEntries { protocol: Vec::new(), application: entry() };
        let bench = Bench::start(Sequence::ZERO);
        bench.send([Command::StageBegin { sequence }, entries(), Command::StageEnd]);
        bench.send([Command::StageBegin { sequence }, entries(), Command::StageRefuse, Command::StageEnd]);
        bench.send([Command::StageInstall]);
        let staged = bench.end().into_iter().map(|event| match event {
            Event::Staged(staged) => (staged.sequence, staged.application_root.is_some()),
            other => panic!("{other:?}"),
        });
        assert_eq!(staged.collect::<Vec<_>>(), [(sequence, true), (sequence, false)]);
    }
}
