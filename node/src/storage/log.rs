//! The write-ahead log: what a replica says must be here, durable, before it is said (PROTOCOL §4, §9).
//!
//! A record is a number, a small head (a vote) and a body (a batch, or nothing). Numbers are consecutive. [`Log::append`]
//! only queues; a thread of the log's own takes all that waits, writes it with one call and makes it durable with one
//! sync, and then says so: [`Event::Durable`]. [`Log::cut`] gives back segments that hold nothing current any more.
//!
//! After a failed write or sync nobody knows what the disk holds. It is reported once, nothing is tried again, and
//! everything afterwards is refused; the process has to end. A full disk is not such a failure: segments are allocated
//! before they are used, so it is noticed before anything is written, and appending goes on when there is room.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use bytes::Bytes;

use super::disk::{Disk, FileSystem};
use super::frame::{BODY_BYTES_MAX, HEAD_BYTES_MAX, frame_bytes};
pub use super::missing::{MISSING_MAX, Missing};
use super::queue::{Append, Queue};
use super::reading::Reading;
use super::recovery::{self, Ground};
pub use super::recovery::{Recovered, Recovery, SurveyedSegment};
use super::segment::BLOCK_BYTES;
pub use super::segment::Identity;
use super::writer;

/// Smallest segment, in bytes.
pub const SEGMENT_BYTES_MIN: u64 = 4 * BLOCK_BYTES;

/// Largest file that is taken for a segment, in bytes: a whole segment is read into memory to recover it.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

const _: () = assert!(
    SEGMENT_BYTES_MAX >= 2 * (HEAD_BYTES_MAX as u64 + BODY_BYTES_MAX as u64),
    "the largest record fits into the largest segment"
);

/// Where a log lives and how large it may grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Folder of the log, which holds nothing else and is made if it is missing. Its owner holds a
    /// [`FolderLock`](super::FolderLock) on it or on a folder above it.
    pub folder: PathBuf,
    /// Whose log it is; another's is refused.
    pub identity: Identity,
    /// Length of a segment, in bytes: a multiple of 4096 from `SEGMENT_BYTES_MIN` to `SEGMENT_BYTES_MAX`.
    pub segment_bytes: u64,
    /// Most bytes of all files of the log, spare segments among them: at least three segments. One of them is used only
    /// once the log is full.
    pub disk_bytes_max: u64,
    /// Most records queued or being written.
    pub queue_records_max: usize,
    /// Most bytes of heads and bodies queued or being written.
    pub queue_bytes_max: usize,
}

impl Options {
    /// Segments of 64 MiB, 4 GiB in all; 16 384 records or 256 MiB in the queue.
    pub fn new(folder: PathBuf, identity: Identity) -> Self {
        Self {
            folder,
            identity,
            segment_bytes: 64 << 20,
            disk_bytes_max: 4 << 30,
            queue_records_max: 16_384,
            queue_bytes_max: 256 << 20,
        }
    }

    fn refuse(&self) -> Option<Error> {
        let bytes = self.segment_bytes;
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes) || !bytes.is_multiple_of(BLOCK_BYTES) {
            return Some(Error::Options { option: "segment_bytes", value: bytes });
        }
        let too_small = self.disk_bytes_max < 3 * bytes;
        too_small.then_some(Error::Options { option: "disk_bytes_max", value: self.disk_bytes_max })
    }
}

/// Why the log could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A call to the system failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done: a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is no room for another segment: on the disk (then with a source) or within `disk_bytes_max`.
    #[error("no room for {bytes} more bytes of log in {}", folder.display())]
    Full {
        /// The log's folder.
        folder: PathBuf,
        /// Length of the segment that has no room, in bytes.
        bytes: u64,
        /// What the system said, unless the log's own limit was met.
        #[source]
        source: Option<io::Error>,
    },
    /// A segment belongs to another cluster or replica.
    #[error("{} belongs to replica {} of another cluster or to another replica", path.display(), found.replica)]
    Foreign {
        /// The segment.
        path: PathBuf,
        /// Whose it is.
        found: Identity,
    },
    /// A segment has a format that this program does not know.
    #[error("{} has version {version} of the log's format", path.display())]
    Version {
        /// The segment.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// A file named as a segment is longer than any segment can be.
    #[error("{} has {bytes} bytes, more than a segment can have", path.display())]
    Oversized {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// An option is out of its bounds.
    #[error("option {option} cannot be {value}")]
    Options {
        /// Its name.
        option: &'static str,
        /// Its value.
        value: u64,
    },
    /// The record does not follow the one before it.
    #[error("record {found} cannot follow: the next one is {expected}")]
    OutOfOrder {
        /// The next number.
        expected: u64,
        /// The number given.
        found: u64,
    },
    /// The record is longer than a record can be in this log.
    #[error("a record with a head of {head} and a body of {body} bytes is too large")]
    TooLarge {
        /// Length of its head, in bytes.
        head: usize,
        /// Length of its body, in bytes.
        body: usize,
    },
    /// The queue holds as much as it may; nothing was queued.
    #[error("the log's queue is full")]
    QueueFull,
    /// The log was closed, or a write or sync failed earlier ([`Event::Failed`] said which).
    #[error("the log has stopped")]
    Stopped,
}

impl Error {
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }
}

/// What the log's thread says.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Every record up to this number is durable.
    Durable(u64),
    /// A cut was carried out: whole segments of records before this number are on their way out, or to be used again.
    Cut(u64),
    /// There is no room for the segment after the present one ([`Error::Full`]). Said once, and early: what is appended
    /// after is written as long as the present segment and the last one within `disk_bytes_max` have room, a cut among it.
    /// Beyond that records wait in the queue, none is lost, and room is looked for once a second.
    Full(Error),
    /// There is room again; said once after `Full`.
    Room,
    /// A write or a sync failed, or the log was closed while it was full. Said once, and the last thing said: what was not
    /// reported durable may or may not be, and nothing more will be.
    Failed(Error),
}

/// Called on the log's thread, in order. It must not block, or it holds up every sync.
pub type OnEvent = Box<dyn FnMut(Event) + Send>;

/// The write-ahead log.
#[derive(Debug)]
pub struct Log {
    queue: Arc<Queue>,
    writer: Option<JoinHandle<Result<(), Error>>>,
    record_bytes_max: u64,
    reading: Reading,
}

/// Reads a log that no process has open, and leaves everything as it is: what [`Log::open`] would find, and the segments.
///
/// Takes time and reads the whole log: not for an async task.
pub fn survey(
    options: &Options,
    on_record: &mut dyn FnMut(Recovered),
) -> Result<(Recovery, Vec<SurveyedSegment>), Error> {
    recovery::survey(options, on_record)
}

impl Log {
    /// Opens the log in its folder, or begins one there. Calls `on_record` for every record that is found, in order, before
    /// it returns; what could not be found is in the [`Recovery`]. Everything found is durable when this returns.
    ///
    /// Takes time and reads the whole log: not for an async task.
    pub fn open(
        options: &Options,
        on_record: &mut dyn FnMut(Recovered),
        on_event: OnEvent,
    ) -> Result<(Self, Recovery), Error> {
        Self::open_on(Arc::new(FileSystem), options, on_record, on_event)
    }

    pub(super) fn open_on(
        disk: Arc<dyn Disk>,
        options: &Options,
        on_record: &mut dyn FnMut(Recovered),
        on_event: OnEvent,
    ) -> Result<(Self, Recovery), Error> {
        if let Some(error) = options.refuse() {
            return Err(error);
        }
        let (recovery, ground) = recovery::recover(disk.as_ref(), options, on_record)?;
        Self::start(disk, options, recovery, ground, on_event)
    }

    fn start(
        disk: Arc<dyn Disk>,
        options: &Options,
        recovery: Recovery,
        ground: Ground,
        on_event: OnEvent,
    ) -> Result<(Self, Recovery), Error> {
        let queue = Arc::new(Queue::new(options.queue_records_max, options.queue_bytes_max, recovery.next));
        let durable_end = Arc::new(AtomicU64::new(recovery.next.unwrap_or(0)));
        let reading = Reading {
            folder: options.folder.clone(),
            identity: options.identity,
            durable_end: Arc::clone(&durable_end),
        };
        let writer = writer::start(disk, options, ground, (Arc::clone(&queue), durable_end), on_event)?;
        Ok((Self { queue, writer: Some(writer), record_bytes_max: options.disk_bytes_max / 2, reading }, recovery))
    }

    /// Queues a record and returns at once. `number` follows the last one; in a log that never held a record any number
    /// may be the first. Bounds: a head of `HEAD_BYTES_MAX`, a body of `BODY_BYTES_MAX`, a record of half of
    /// `disk_bytes_max`. After [`Error::QueueFull`] the same record can be offered again.
    pub fn append(&self, number: u64, head: Bytes, body: Bytes) -> Result<(), Error> {
        self.enqueue(Append { number, head, body, is_awaited: true })
    }

    /// The same of a record that nobody waits for: it is written and synced together with the next one that somebody waits
    /// for, or after 20 ms.
    pub fn append_at_leisure(&self, number: u64, head: Bytes, body: Bytes) -> Result<(), Error> {
        self.enqueue(Append { number, head, body, is_awaited: false })
    }

    fn enqueue(&self, append: Append) -> Result<(), Error> {
        let Append { head, body, .. } = &append;
        let lengths = (u32::try_from(head.len()), u32::try_from(body.len()));
        let fits = matches!(lengths, (Ok(head), Ok(body)) if head <= HEAD_BYTES_MAX
            && body <= BODY_BYTES_MAX
            && frame_bytes(head, body) + BLOCK_BYTES <= self.record_bytes_max);
        if !fits {
            return Err(Error::TooLarge { head: head.len(), body: body.len() });
        }
        self.queue.append(append)
    }

    /// Queues a cut: when everything appended earlier is durable, segments all of whose records have smaller numbers than
    /// `before` are given back. The segment being written stays.
    pub fn cut(&self, before: u64) -> Result<(), Error> {
        self.queue.cut(before)
    }

    /// Queues that the next record begins a segment: with a cut before that record nothing older is left.
    pub fn begin_segment(&self) -> Result<(), Error> {
        self.queue.begin_segment()
    }

    /// For who reads what is durable, beside this.
    pub fn reading(&self) -> Reading {
        self.reading.clone()
    }

    /// Writes and syncs what is queued, and ends the thread. [`Error::Stopped`] if it had stopped before; [`Error::Full`] if
    /// there was no room for all that was queued: what had none is not in the log.
    pub fn close(mut self) -> Result<(), Error> {
        self.join()
    }

    fn join(&mut self) -> Result<(), Error> {
        self.queue.close();
        let writer = self.writer.take().ok_or(Error::Stopped)?;
        writer.join().unwrap_or(Err(Error::Stopped))
    }
}

impl Drop for Log {
    /// As [`Log::close`], without its answer.
    fn drop(&mut self) {
        if self.writer.is_some()
            && let Err(error) = self.join()
        {
            tracing::debug!(%error, "the log was dropped after it had stopped");
        }
    }
}
