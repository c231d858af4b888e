//! The application's own thread: slots execute here in order, while the host goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use quorate_crypto::PublicKey;
use quorate_protocol::application::{Application, Change, Execution, execute, read};
use quorate_protocol::certificate::StableCertificate;
use quorate_protocol::codec::Blob;
use quorate_protocol::message::{StateRoot, Want};
use quorate_protocol::number::{ReplicaId, RequestNumber, Sequence};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;

use super::clients::Place;
use super::keeper::{Keep, Keeper, Question, WantedPart, keep};
use super::lending::BackupQuestion;
use super::{Event, priority};
use crate::transport::{ConnectionId, Permit};

/// Parts on their way to one peer, which asks for one after the other; what it asks for beyond that is not answered.
const PARTS_PER_PEER_MAX: usize = 4;

/// What the host asks of the application's thread.
pub(super) enum Command {
    Execute(Execution),
    Read(WantedReading),
    TakeCheckpoint {
        sequence: Sequence,
        protocol: Vec<Change>,
    },
    /// A state is fetched from now on: its staging begins after what was asked for before.
    StageBegin {
        afresh: bool,
    },
    /// A state that was fetched takes the place of the one here.
    Replace {
        application: Box<dyn Application + Send>,
        base: Sequence,
    },
}

/// A client's question for what the executed state holds.
#[derive(Debug)]
pub(super) struct WantedReading {
    pub(super) connection: ConnectionId,
    pub(super) client: PublicKey,
    pub(super) number: RequestNumber,
    pub(super) operation: Blob,
    /// Its share of the client's budget, and its place among the reads, until the answer is handed over.
    pub(super) _permit: Permit,
    pub(super) _place: Place,
}

/// The application's thread, and that of its checkpoints, as the host sees them.
pub(super) struct Executor {
    /// Bound: what the core has outstanding, which is 32 slots, a checkpoint an interval of the window, a transfer, and the
    /// places for reads.
    commands: Sender<Command>,
    keeper: Keeper,
    /// The places for parts. Bound: one entry a member.
    parts: BTreeMap<ReplicaId, Arc<Semaphore>>,
    thread: JoinHandle<()>,
}

/// What the thread owns.
struct Executing {
    application: Box<dyn Application + Send>,
    /// The slot of its last checkpoint.
    base: Sequence,
    keeper: Sender<Keep>,
    events: UnboundedSender<Event>,
}

impl Executor {
    /// Starts with an application in the state of the checkpoint at a slot.
    pub(super) fn start(
        (application, base): (Box<dyn Application + Send>, Sequence),
        keeper: Keeper,
        events: UnboundedSender<Event>,
    ) -> std::io::Result<Self> {
        let (commands, waiting) = channel();
        let executing = Executing { application, base, keeper: keeper.sender(), events };
        let thread = std::thread::Builder::new().name("execute".into()).spawn(move || {
            priority::give_way(priority::EXECUTION);
            executing.work(&waiting);
        })?;
        Ok(Self { commands, keeper, parts: BTreeMap::new(), thread })
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
    pub(super) fn send_part(&mut self, to: ReplicaId, sequence: Sequence, want: Want) -> anyhow::Result<()> {
        let places = self.parts.entry(to).or_insert_with(|| Arc::new(Semaphore::new(PARTS_PER_PEER_MAX)));
        match Arc::clone(places).try_acquire_owned() {
            Ok(place) => self.keeper.send(Keep::SendPart(WantedPart { to, sequence, want, place })),
            Err(_none_is_free) => {
                tracing::debug!(%to, "asks for more parts than it takes");
                Ok(())
            }
        }
    }

    /// Has what was asked of a checkpoint answered.
    ///
    /// # Errors
    /// Its thread has ended.
    pub(super) fn prove(&self, question: Question) -> anyhow::Result<()> {
        self.keeper.send(Keep::Prove(question))
    }

    /// Has a client's question for a checkpoint, or a piece of it, answered.
    ///
    /// # Errors
    /// Its thread has ended.
    pub(super) fn lend(&self, question: BackupQuestion) -> anyhow::Result<()> {
        self.keeper.send(Keep::Lend(question))
    }

    /// Has something done with a state that is fetched.
    ///
    /// # Errors
    /// Its thread has ended.
    pub(super) fn stage(&self, command: Keep) -> anyhow::Result<()> {
        self.keeper.send(command)
    }

    /// Says which checkpoint is stable.
    ///
    /// # Errors
    /// Its thread has ended.
    pub(super) fn note_stable(&self, certificate: StableCertificate, root: StateRoot) -> anyhow::Result<()> {
        self.keeper.send(Keep::Stable { certificate, root })
    }

    /// Ends the threads after what they have begun.
    pub(super) fn close(self) {
        drop(self.commands);
        if self.thread.join().is_err() {
            tracing::error!("the application's thread panicked");
        }
        self.keeper.close();
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
    }

    fn on_command(&mut self, command: Command) -> anyhow::Result<()> {
        match command {
            Command::Execute(execution) => {
                let results = execute(&mut *self.application, &execution);
                self.report(Event::Executed { sequence: execution.sequence, results });
            }
            Command::Read(wanted) => {
                let reading = read(&*self.application, &wanted.operation, self.base);
                self.report(Event::Read { wanted, reading });
            }
            Command::TakeCheckpoint { sequence, protocol } => {
                self.base = sequence;
                let begin = Instant::now();
                let application = self.application.changes();
                tracing::debug!(%sequence, stopped = ?begin.elapsed(), "execution goes on past a checkpoint");
                keep(&self.keeper, Keep::Checkpoint { sequence, application, protocol })?;
            }
            Command::StageBegin { afresh } => keep(&self.keeper, Keep::StageBegin { afresh })?,
            Command::Replace { application, base } => {
                self.application = application;
                self.base = base;
            }
        }
        Ok(())
    }

    fn report(&self, event: Event) {
        // The host ends before its threads do: what it no longer hears is of no use.
        self.events.send(event).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use quorate_crypto::SigningKey;
    use quorate_protocol::application::{Changes, Executable, NotAState, Surroundings};
    use quorate_protocol::codec::List;
    use quorate_protocol::kv::Store;
    use quorate_protocol::message::Entry;
    use quorate_protocol::number::{RequestNumber, Session};
    use quorate_protocol::state::{DEPTH, Index};
    use quorate_protocol::time::WallTime;
    use tempfile::TempDir;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::super::keeper::{LIMITS, Replacing};
    use super::super::scrub::Current;
    use super::super::start::Build;
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
            let replacing = Replacing { current: Current::default(), build: Arc::clone(&build), limits: LIMITS };
            let keeper = Keeper::start(store, Index::new(DEPTH), 512, replacing, sender.clone()).unwrap();
            let executor = Executor::start((build(), taken), keeper, sender).unwrap();
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

    #[test]
    fn a_peer_that_asks_for_parts_and_takes_none_gets_a_few() {
        let taken = Sequence::new(128);
        let mut bench = Bench::start(taken);
        let (one, other) = (ReplicaId::new(1), ReplicaId::new(2));
        for to in [one; 100].into_iter().chain([other]) {
            bench.executor.send_part(to, taken, Want::Crown).unwrap();
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
            bench.executor.send_part(ReplicaId::new(1), taken, Want::Crown).unwrap();
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

        fn changes(&mut self) -> Changes {
            Box::new(std::iter::empty())
        }

        fn restore(&mut self, _entries: &mut dyn Iterator<Item = Entry>) -> Result<(), NotAState> {
            Ok(())
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
}
