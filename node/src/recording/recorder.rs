//! Writing a recording beside a replica that must not notice.
//!
//! The host's task encodes each item into a buffer, and a thread of its own writes that to the file, a few times a second.
//! Where the buffer is full, the disk refuses or the room is used up, the recording ends with the reason as its last item,
//! and the replica goes on. What the buffer holds when the process is killed is lost; a panic has it written first.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::Duration;

use quorate_protocol::codec::List;
use quorate_protocol::recording::{self, Digests, End, Item, Role};
use quorate_protocol::replica::Start;
use quorate_protocol::{Input, Now, Output};

use super::digest::Outputs;
use super::file::{self, Found, HEADER_BYTES, Header};
use crate::storage::log::Identity;

/// Most bytes that wait to be written.
const WAITING_BYTES_MAX: usize = 32 << 20;

/// From how many bytes on they are written at once.
const BULK_BYTES: usize = 1 << 20;

/// Longest that bytes wait to be written.
const GATHER: Duration = Duration::from_millis(50);

/// Longest that a panic waits for what was recorded to be written.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Kept free for the reason for which a recording ends.
const END_BYTES: u64 = 1 << 10;

/// Where and how much to record.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The folder of recordings.
    pub(crate) folder: PathBuf,
    /// Whose they are.
    pub(crate) identity: Identity,
    /// Most bytes of all of them. Earlier starts make room for this one.
    pub(crate) bytes_max: u64,
    /// As what the core is started.
    pub(crate) role: Role,
}

/// The recording of one start.
#[derive(Debug)]
pub(crate) struct Recorder {
    shared: Arc<Shared>,
    outputs: Outputs,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    has_work: Condvar,
    is_written: Condvar,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "two threads tell each other so, in any combination")]
struct State {
    /// Whole frames. Bound: [`WAITING_BYTES_MAX`].
    waiting: Vec<u8>,
    /// What this recording may still take.
    bytes_left: u64,
    /// Nothing more is taken in.
    has_ended: bool,
    /// The thread writes something that is not among `waiting` any more.
    is_writing: bool,
    /// Whoever waits for it wants all written now.
    is_urgent: bool,
    /// The thread is to end when all is written.
    is_closing: bool,
}

impl Recorder {
    /// Begins a recording with what the core is started with, and writes that before it returns.
    ///
    /// # Errors
    /// The file cannot be made or written.
    pub(crate) fn begin(options: &Options, start: &Start, now: Now) -> io::Result<Self> {
        let Options { folder, identity, bytes_max, role } = options;
        fs::create_dir_all(folder)?;
        let earlier = file::list(folder)?;
        let number = earlier.last().map_or(1, |found| found.start.saturating_add(1));
        let path = folder.join(file::name(number));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let header = Header { identity: *identity, start: number, program: env!("CARGO_PKG_VERSION").to_owned() };
        let mut files = Files { path, file, bytes: 0, bytes_max: *bytes_max, earlier: earlier.into() };
        let mut state = State {
            waiting: Vec::new(),
            bytes_left: bytes_max.saturating_sub(HEADER_BYTES as u64 + END_BYTES),
            has_ended: false,
            is_writing: false,
            is_urgent: false,
            is_closing: false,
        };
        files.write_start(&header, (start, *role, now), &mut state)?;
        tracing::info!(path = %files.path.display(), "recording");
        let shared =
            Arc::new(Shared { state: Mutex::new(state), has_work: Condvar::new(), is_written: Condvar::new() });
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("recording".to_owned()).spawn(move || work(&shared, files))?
        };
        write_before_panics_end_all(&shared);
        Ok(Self { shared, outputs: Outputs::default(), thread: Some(thread) })
    }

    /// Notes an input that is about to be handled.
    pub(crate) fn note_input(&mut self, now: Now, input: &Input) {
        let outputs = self.outputs.take();
        let mut state = self.shared.lock();
        if state.has_ended {
            return;
        }
        let begin = state.waiting.len();
        let put = |item: Item| state.put(&item);
        if let Err(reason) = recording::input(outputs, now, input, put) {
            state.give_back(begin);
            state.end(List::empty(), reason);
            tracing::warn!(?reason, "the recording ends here: the replica goes on without");
        }
        self.shared.tell(begin, state);
    }

    /// Notes an output, before anything is done about it.
    pub(crate) fn note_output(&mut self, output: &Output) {
        self.outputs.note(output);
    }

    /// Ends the recording: the replica was stopped in order. Waits until all is written.
    pub(crate) fn end(mut self) {
        let outputs = self.outputs.take();
        let mut state = self.shared.lock();
        if !state.has_ended {
            state.end(outputs, End::Stopped);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.lock().is_closing = true;
        self.shared.has_work.notify_one();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the recording's thread panicked");
        }
    }
}

impl State {
    /// Appends an item as a frame, if there is room.
    fn put(&mut self, item: &Item) -> Result<(), End> {
        let start = file::open(&mut self.waiting);
        let encoded = item.encode_into(&mut self.waiting).or(Err(End::TooLong));
        let bytes = (self.waiting.len() - start) as u64;
        let refused = match encoded {
            Err(reason) => Some(reason),
            Ok(()) if bytes > self.bytes_left => Some(End::Limit),
            Ok(()) if self.waiting.len() > WAITING_BYTES_MAX => Some(End::Slow),
            Ok(()) => None,
        };
        if let Some(reason) = refused {
            self.waiting.truncate(start);
            return Err(reason);
        }
        file::seal(&mut self.waiting, start);
        self.bytes_left -= bytes;
        Ok(())
    }

    /// Drops what was put since there were `begin` bytes: an input is there whole or not at all.
    fn give_back(&mut self, begin: usize) {
        self.bytes_left += (self.waiting.len() - begin) as u64;
        self.waiting.truncate(begin);
    }

    /// Puts the reason as the last item.
    fn end(&mut self, outputs: Digests, reason: End) {
        self.has_ended = true;
        self.bytes_left = self.bytes_left.saturating_add(END_BYTES);
        // Without it the recording ends as one does whose process was killed.
        self.put(&Item::End { outputs, reason }).ok();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the thread if there is something to write and was nothing, or is much.
    fn tell(&self, before: usize, state: MutexGuard<'_, State>) {
        let bytes = state.waiting.len();
        drop(state);
        if (before == 0 && bytes > 0) || (before < BULK_BYTES && bytes >= BULK_BYTES) {
            self.has_work.notify_one();
        }
    }

    /// Has all written that was recorded, and waits for it, but not for ever.
    fn flush(&self) {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // It is held for moments only, by whoever else records; or by whoever panics.
            Err(TryLockError::WouldBlock) => return,
        };
        state.is_urgent = true;
        self.has_work.notify_one();
        let is_pending = |state: &mut State| state.is_writing || !state.waiting.is_empty();
        drop(self.is_written.wait_timeout_while(state, LAST_WORDS, is_pending));
    }
}

/// Has what was recorded written before whatever else a panic does: it may end the process, and the last input is the one
/// that matters.
fn write_before_panics_end_all(shared: &Arc<Shared>) {
    let shared = Arc::downgrade(shared);
    let next = panic::take_hook();
    panic::set_hook(Box::new(move |what| {
        if let Some(shared) = shared.upgrade()
            && std::thread::current().name() != Some("recording")
        {
            shared.flush();
        }
        next(what);
    }));
}

/// Writes what waits, until the recorder is dropped.
fn work(shared: &Shared, mut files: Files) {
    let mut bytes = Vec::new();
    loop {
        {
            let idle = |state: &mut State| state.waiting.is_empty() && !state.is_closing;
            let state = shared.has_work.wait_while(shared.lock(), idle).unwrap_or_else(PoisonError::into_inner);
            let gathers = |state: &mut State| state.waiting.len() < BULK_BYTES && !state.is_closing && !state.is_urgent;
            let waited = shared.has_work.wait_timeout_while(state, GATHER, gathers);
            let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if state.waiting.is_empty() {
                return;
            }
            std::mem::swap(&mut bytes, &mut state.waiting);
            state.is_writing = true;
        }
        let written = files.write(&bytes);
        bytes.clear();
        bytes.shrink_to(2 * BULK_BYTES);
        let mut state = shared.lock();
        (state.is_writing, state.is_urgent) = (false, false);
        if let Err(error) = written {
            let path = files.path.display();
            tracing::warn!(%path, %error, "the recording ends here: the replica goes on without");
            state.has_ended = true;
            state.waiting.clear();
            files.end_after_failure();
        }
        shared.is_written.notify_all();
    }
}

/// The file that is written, and those of earlier starts.
#[derive(Debug)]
struct Files {
    path: PathBuf,
    file: File,
    /// Whole frames in the file, and its header.
    bytes: u64,
    bytes_max: u64,
    /// In order.
    earlier: VecDeque<Found>,
}

impl Files {
    /// Writes the header and what the core is started with. What has no room ends the recording before it began.
    fn write_start(
        &mut self,
        header: &Header,
        (start, role, now): (&Start, Role, Now),
        state: &mut State,
    ) -> io::Result<()> {
        let mut writer = BufWriter::with_capacity(BULK_BYTES, &self.file);
        let header = header.encode();
        writer.write_all(&header)?;
        let mut bytes = header.len() as u64;
        let mut write = |frames: &mut Vec<u8>| {
            bytes += frames.len() as u64;
            let written = writer.write_all(frames);
            frames.clear();
            written
        };
        let put = |item: Item| {
            state.put(&item).map_err(Refused::Room)?;
            write(&mut state.waiting).map_err(Refused::Write)
        };
        match recording::start(start, role, now, put) {
            Ok(()) => {}
            Err(Refused::Write(error)) => return Err(error),
            Err(Refused::Room(reason)) => {
                state.end(List::empty(), reason);
                write(&mut state.waiting)?;
                tracing::warn!(?reason, "what the replica starts with has no room in a recording: there is none");
            }
        }
        writer.flush()?;
        drop(writer);
        self.bytes = bytes;
        self.make_room();
        Ok(())
    }

    fn write(&mut self, frames: &[u8]) -> io::Result<()> {
        self.file.write_all(frames)?;
        self.bytes += frames.len() as u64;
        self.make_room();
        Ok(())
    }

    /// Drops the earliest starts until all take no more than they may.
    fn make_room(&mut self) {
        while self.bytes + self.earlier.iter().map(|found| found.bytes).sum::<u64>() > self.bytes_max {
            let Some(Found { path, start, .. }) = self.earlier.pop_front() else { return };
            match fs::remove_file(&path) {
                Ok(()) => tracing::info!(start, "the recording of an earlier start made room"),
                Err(error) => tracing::warn!(path = %path.display(), %error, "cannot remove a recording"),
            }
        }
    }

    /// Cuts what was half written, and says why there is no more, if the disk takes that.
    fn end_after_failure(&mut self) {
        let mut frame = Vec::new();
        let start = file::open(&mut frame);
        let end = Item::End { outputs: List::empty(), reason: End::Failed };
        if self.file.set_len(self.bytes).is_ok() && end.encode_into(&mut frame).is_ok() {
            file::seal(&mut frame, start);
            append(&self.path, &frame).ok();
        }
    }
}

enum Refused {
    Room(End),
    Write(io::Error),
}

fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new().append(true).open(path)?.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quorate_protocol::number::RecordNumber;
    use quorate_protocol::time::{Time, WallTime};

    use super::*;
    use crate::configuration::network::{Network, Plan};
    use crate::recording::Reader;

    const NOW: Now = Now { monotonic: Time::ZERO, wall: WallTime::ZERO };

    fn begin(folder: &Path) -> io::Result<Recorder> {
        let network = Network::create(&folder.join("net"), Plan::on_loopback(4, 4100)).unwrap();
        let files = network.replicas().unwrap().remove(0);
        let start = Start {
            id: files.id,
            configuration: Arc::new(files.genesis.configuration().clone()),
            signer: Arc::new(files.key.clone()),
            checkpoint: None,
            records: Vec::new(),
            first_record: RecordNumber::new(1),
            is_damaged: false,
            token: 1,
        };
        let identity = crate::host::identity(&files);
        let folder = folder.join("recording");
        Recorder::begin(&Options { folder, identity, bytes_max: 1 << 40, role: Role::Member }, &start, NOW)
    }

    fn items(folder: &Path) -> Vec<Item> {
        let mut reader = Reader::open(&folder.join("recording").join(file::name(1))).unwrap();
        std::iter::from_fn(|| reader.next_item().unwrap()).collect()
    }

    #[test]
    fn a_panic_has_the_input_written_that_it_came_of() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = begin(folder.path()).unwrap();
        recorder.note_input(NOW, &Input::Wake);
        std::thread::spawn(|| panic!("somewhere in the core")).join().unwrap_err();
        assert_eq!(items(folder.path()).len(), 2, "the start and the input");
        recorder.note_input(NOW, &Input::Wake);
        drop(recorder);
        assert_eq!(items(folder.path()).len(), 3, "whoever survives it goes on");
    }

    #[test]
    fn a_disk_that_cannot_keep_up_ends_the_recording_and_an_input_is_there_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let recorder = begin(folder.path()).unwrap();
        let mut state = recorder.shared.lock();
        let begin = state.waiting.len();
        state.waiting.resize(WAITING_BYTES_MAX, 0);
        assert_eq!(state.put(&Item::End { outputs: List::empty(), reason: End::Stopped }), Err(End::Slow));
        state.waiting.truncate(begin);
        state.bytes_left = 10;
        assert_eq!(state.put(&Item::End { outputs: List::empty(), reason: End::Stopped }), Err(End::Limit));
        assert_eq!((state.waiting.len(), state.bytes_left), (begin, 10));
        state.bytes_left = 1000;
        state.put(&Item::Results(List::empty())).unwrap();
        state.give_back(begin);
        assert_eq!((state.waiting.len(), state.bytes_left), (begin, 1000));
    }

    #[test]
    fn where_nothing_can_be_written_there_is_no_recording() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("recording"), b"a file").unwrap();
        assert!(begin(folder.path()).is_err());
    }
}
