//! The scrub: reads the state on the disk, slowly and over and over, and compares it with the tree that this replica keeps
//! of it in memory; and the log, as far as it is durable. What rots there would be noticed at the next start otherwise, or by
//! a peer that is handed it: late, and perhaps at several replicas at once. (PROTOCOL §9; Bairavasundaram et al., An Analysis
//! of Data Corruption in the Storage Stack, FAST 2008: scrubs find most of it)
//!
//! What the store holds in its cache is not read from the disk.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use quorate_protocol::message::Entry;
use quorate_protocol::state::leaf_of;
use serde::Serialize;
use tokio::sync::mpsc::UnboundedSender;

use super::readable::Readable;
use super::{Event, priority};
use crate::storage::checkpoint;
use crate::storage::reading::{Pass, Reading, Step};

/// Buckets that are read at once: so often the scrub turns to the newest state, and lets go of the one before.
const STEP_BUCKETS: u32 = 16;

/// The log, of which less is there and more depends on each part, is read again after so long.
const LOG_PASS_MIN: Duration = Duration::from_secs(10);

/// Bytes of the log that are read at once, about.
const STEP_LOG_BYTES: u64 = 256 << 10;

/// A pass takes at least so long: what is small need not be read all the time.
const PASS_MIN: Duration = Duration::from_secs(30);

/// The state that is to be read: that of the last checkpoint.
pub(super) type Current = Arc<Mutex<Option<Arc<Readable>>>>;

/// How far a scrub is, as `quorate status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Progress {
    /// Passes over the whole state that came to their end since the start.
    pub passes: u64,
    /// How much of this pass is done.
    pub percent: u8,
    /// Bytes read since the start.
    pub bytes: u64,
    /// Buckets that were damaged, each time one was found.
    pub damaged: u64,
    /// Times that the whole log was read since the start.
    pub log_passes: u64,
    /// Times that the log was found damaged.
    pub log_damaged: u64,
}

/// The thread, as others see it.
pub(super) struct Scrub {
    progress: Arc<Mutex<Progress>>,
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

struct Scrubbing {
    current: Current,
    log: Reading,
    bytes_per_second: u64,
    pass_min: Duration,
    progress: Arc<Mutex<Progress>>,
    events: UnboundedSender<Event>,
    stopped: Receiver<()>,
}

/// The reading of the log.
struct LogPass {
    pass: Option<Pass>,
    /// When the next one may begin.
    due: Instant,
}

impl LogPass {
    /// How long nothing is to be done.
    fn wait(&self) -> Duration {
        if self.pass.is_some() { Duration::ZERO } else { self.due.saturating_duration_since(Instant::now()) }
    }
}

/// What a step found.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    bytes: u64,
    /// Buckets that are not what was written.
    damaged: u64,
}

impl Scrub {
    /// Starts to read what is `current`, and `log`, at most so much in a second.
    pub(super) fn start(
        current: Current,
        log: Reading,
        bytes_per_second: u64,
        events: UnboundedSender<Event>,
    ) -> std::io::Result<Self> {
        Self::start_with((current, log), bytes_per_second, PASS_MIN, events)
    }

    fn start_with(
        (current, log): (Current, Reading),
        bytes_per_second: u64,
        pass_min: Duration,
        events: UnboundedSender<Event>,
    ) -> std::io::Result<Self> {
        let progress = Arc::<Mutex<Progress>>::default();
        let (stop, stopped) = channel();
        let scrubbing =
            Scrubbing { current, log, bytes_per_second, pass_min, progress: Arc::clone(&progress), events, stopped };
        let thread = std::thread::Builder::new().name("scrub".into()).spawn(move || {
            priority::give_way(priority::BACKGROUND);
            scrubbing.work();
        })?;
        Ok(Self { progress, stop, thread })
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn close(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the scrub's thread panicked");
        }
    }
}

impl Scrubbing {
    fn work(self) {
        let mut next = 0;
        let mut log = LogPass { pass: None, due: Instant::now() + self.log_pass_min() };
        loop {
            let begin = Instant::now();
            let state = self.current.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let of_state = match state {
                Some(state) => {
                    let count = state.tree.leaf_count();
                    let found = step(&state, next);
                    drop(state);
                    next = if next + STEP_BUCKETS < count { next + STEP_BUCKETS } else { 0 };
                    self.note(&found, next, count);
                    self.pause(found.bytes, count)
                }
                None => log.wait(),
            };
            let of_log = self.pace(self.read_log(&mut log));
            let wait = of_state.max(of_log).saturating_sub(begin.elapsed());
            match self.stopped.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn log_pass_min(&self) -> Duration {
        LOG_PASS_MIN.min(self.pass_min)
    }

    /// Goes on reading the log, if a pass is under way or due: the bytes that were read.
    fn read_log(&self, log: &mut LogPass) -> u64 {
        if log.pass.is_none() && Instant::now() >= log.due {
            log.due = Instant::now() + self.log_pass_min();
            log.pass = self.log.begin().inspect_err(|error| tracing::debug!(%error, "the log cannot be read")).ok();
        }
        let Some(pass) = &mut log.pass else { return 0 };
        let mut bytes = 0;
        while bytes < STEP_LOG_BYTES {
            let is_damaged = match pass.step() {
                Step::Right(read) => {
                    bytes += read;
                    continue;
                }
                Step::Damaged(path) => {
                    tracing::error!(path = %path.display(), "what is read of the log on the disk is not what was written");
                    self.events.send(Event::LogDamaged).ok();
                    true
                }
                Step::Over => false,
            };
            log.pass = None;
            let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
            progress.log_passes += u64::from(!is_damaged);
            progress.log_damaged += u64::from(is_damaged);
            break;
        }
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).bytes += bytes;
        bytes
    }

    /// How long it takes at least to read so many bytes.
    fn pace(&self, bytes: u64) -> Duration {
        Duration::from_millis(bytes.saturating_mul(1000) / self.bytes_per_second.max(1))
    }

    /// How long a step of so many bytes takes at least.
    fn pause(&self, bytes: u64, buckets: u32) -> Duration {
        self.pace(bytes).max(self.pass_min * STEP_BUCKETS / buckets.max(STEP_BUCKETS))
    }

    fn note(&self, found: &Found, next: u32, buckets: u32) {
        {
            let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
            progress.passes += u64::from(next == 0);
            progress.percent = u8::try_from(u64::from(next) * 100 / u64::from(buckets.max(1))).unwrap_or(100);
            progress.bytes += found.bytes;
            progress.damaged += found.damaged;
        }
        if found.damaged > 0 {
            tracing::error!(buckets = found.damaged, "what is read of the state on the disk is not what was written");
            self.events.send(Event::StateDamaged).ok();
        }
    }
}

/// Reads some buckets and compares each with its leaf.
fn step(state: &Readable, first: u32) -> Found {
    let buckets = first..first.saturating_add(STEP_BUCKETS).min(state.tree.leaf_count());
    let mut found = Found::default();
    for bucket in buckets {
        match read(state, bucket) {
            Ok(entries) => {
                found.bytes += entries.iter().map(|entry| (entry.key.len() + entry.value.len()) as u64).sum::<u64>();
                found.damaged += u64::from(leaf_of(&entries) != state.tree.leaf(bucket));
            }
            Err(error) => {
                tracing::debug!(%error, bucket, "a part of the state cannot be read");
                found.damaged += 1;
            }
        }
    }
    found
}

fn read(state: &Readable, bucket: u32) -> Result<Vec<Entry>, checkpoint::Error> {
    let entries = state.snapshot.bucket(bucket, state.tree.depth(), None);
    entries.map(|entry| entry.map(|(key, value)| Entry { key: key.into(), value: value.into() })).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt as _;
    use std::path::{Path, PathBuf};

    use bytes::Bytes;
    use quorate_protocol::number::Sequence;
    use quorate_protocol::state::{DEPTH, Index, bucket_of};
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::storage::checkpoint::CheckpointStore;
    use crate::storage::log::{self, Identity, Log, Options};

    fn key(number: u32) -> String {
        format!("key {number}")
    }

    /// A hundred entries with this value are in the store.
    fn store(folder: &Path, value: &[u8]) -> CheckpointStore {
        let mut store = CheckpointStore::open(folder).unwrap();
        let value = Bytes::copy_from_slice(value);
        let changes = (0..100).map(|number| (key(number).into(), Some(value.clone())));
        store.apply(128, &[], changes.collect(), vec![]).unwrap();
        store
    }

    /// That store, of which these entries are known.
    fn readable(store: &CheckpointStore, known: impl Iterator<Item = (u32, Vec<u8>)>) -> Readable {
        let mut index = Index::new(DEPTH);
        for (number, value) in known {
            index.add(key(number).as_bytes(), &value);
        }
        index.finish();
        Readable { sequence: Sequence::new(128), snapshot: store.snapshot().unwrap(), tree: index.tree() }
    }

    /// What a whole pass finds.
    fn pass(state: &Readable) -> Found {
        let steps = (0..state.tree.leaf_count()).step_by(STEP_BUCKETS as usize).map(|first| step(state, first));
        steps.fold(Found::default(), |sum, found| Found {
            bytes: sum.bytes + found.bytes,
            damaged: sum.damaged + found.damaged,
        })
    }

    #[test]
    fn a_pass_reads_all_and_finds_what_is_not_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), b"value");
        let known = |number: u32| (number, b"value".to_vec());
        let bytes = (0..100).map(|number| key(number).len() as u64 + 5).sum();
        assert_eq!(pass(&readable(&store, (0..100).map(known))), Found { bytes, damaged: 0 });
        // One entry is another one, one is missing, and one is too much; each is alone in its bucket.
        let numbers = [7, 40, 100].map(|number| bucket_of(key(number).as_bytes(), DEPTH));
        assert!(numbers[0] != numbers[1] && numbers[1] != numbers[2] && numbers[0] != numbers[2]);
        let others = (0..=100).filter(|number| *number != 40);
        let known = others.map(|number| (number, if number == 7 { b"other".to_vec() } else { b"value".to_vec() }));
        assert_eq!(pass(&readable(&store, known)), Found { bytes, damaged: 3 });
    }

    /// The largest file of the store.
    fn largest(folder: &Path) -> PathBuf {
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let files = files.map(|path| if path.is_dir() { largest(&path) } else { path });
        // What is written ahead is not read.
        let tables = files.filter(|path| path.extension().is_none_or(|ending| ending != "jnl"));
        tables.max_by_key(|path| fs::metadata(path).map_or(0, |found| found.len())).unwrap_or_default()
    }

    #[test]
    fn what_rots_on_the_disk_is_found() {
        let folder = tempfile::tempdir().unwrap();
        // So much that it is written to tables.
        let value = vec![7; 100_000];
        drop(store(folder.path(), &value));
        let table = largest(folder.path());
        let mut bytes = fs::read(&table).unwrap();
        assert!(bytes.len() > 9_000_000, "{}", table.display());
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&table, bytes).unwrap();
        let store = CheckpointStore::open(folder.path()).unwrap();
        let found = pass(&readable(&store, (0..100).map(|number| (number, value.clone()))));
        // To know that nothing is in a bucket, its neighbours have to be read.
        assert!(found.damaged >= 1, "{found:?}");
    }

    /// A log of some records in this folder, of which one is damaged if that is wanted, and its reading.
    fn log_in(folder: &Path, is_damaged: bool) -> (Log, Reading) {
        let identity = Identity { cluster: [3; 32], replica: 0 };
        let (events, durable) = channel();
        let on_event = Box::new(move |event| events.send(event).unwrap_or_default());
        let (log, _) = Log::open(&Options::new(folder.join("log"), identity), &mut |_| (), on_event).unwrap();
        log.append(1, Bytes::from_static(b"vote"), Bytes::from(vec![9; 100_000])).unwrap();
        assert!(matches!(durable.recv(), Ok(log::Event::Durable(1))));
        if is_damaged {
            let mut files = fs::read_dir(folder.join("log")).unwrap().map(|entry| entry.unwrap().path());
            let segment = files.find(|path| path.display().to_string().contains("segment")).unwrap();
            let file = fs::OpenOptions::new().write(true).open(segment).unwrap();
            file.write_all_at(&[8], 50_000).unwrap();
        }
        let reading = log.reading();
        (log, reading)
    }

    #[test]
    fn the_log_is_read_too_and_its_damage_told_in_each_pass() {
        for is_damaged in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let (log, reading) = log_in(folder.path(), is_damaged);
            let (events, mut told) = unbounded_channel();
            let scrub =
                Scrub::start_with((Current::default(), reading), u64::MAX, Duration::from_millis(1), events).unwrap();
            while scrub.progress().log_passes + scrub.progress().log_damaged < 2 {
                std::thread::sleep(Duration::from_millis(1));
            }
            let progress = scrub.progress();
            scrub.close();
            let heard: Vec<Event> = std::iter::from_fn(|| told.try_recv().ok()).collect();
            assert_eq!(!heard.is_empty(), is_damaged);
            assert!(heard.iter().all(|event| matches!(event, Event::LogDamaged)));
            assert_eq!((progress.log_passes == 0, progress.log_damaged > 0), (is_damaged, is_damaged), "{progress:?}");
            log.close().unwrap();
        }
    }

    #[test]
    fn damage_is_told_and_counted_in_each_pass() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), b"value");
        let state = readable(&store, (0..99).map(|number| (number, b"value".to_vec())));
        let current = Current::default();
        *current.lock().unwrap() = Some(Arc::new(state));
        let (log, reading) = log_in(folder.path(), false);
        let (events, mut told) = unbounded_channel();
        let scrub = Scrub::start_with((current, reading), u64::MAX, Duration::from_millis(1), events).unwrap();
        for _ in 0..2 {
            assert!(matches!(told.blocking_recv(), Some(Event::StateDamaged)));
        }
        let progress = scrub.progress();
        assert!(progress.passes >= 1 && progress.damaged >= 2 && progress.bytes > 0, "{progress:?}");
        scrub.close();
        log.close().unwrap();
        drop(store);
    }
}
