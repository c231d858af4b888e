//! Between those who append to the log and the thread that writes it: a queue with a bound on records and on bytes.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::log::Error;

/// How long a record that nobody waits for may lie in the queue.
const LEISURE: Duration = Duration::from_millis(20);

/// A record on its way to the disk.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) number: u64,
    pub(super) head: Bytes,
    pub(super) body: Bytes,
    /// Whether somebody waits for it to be durable.
    pub(super) is_awaited: bool,
}

impl Append {
    /// What it counts for in the queue, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Write this record.
    Append(Append),
    /// Give back segments of records before this number.
    Cut(u64),
    /// Begin a segment with the next record.
    BeginSegment,
}

/// Between the callers and the writer.
#[derive(Debug)]
pub(super) struct Queue {
    records_max: usize,
    bytes_max: usize,
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct QueueState {
    /// At most `records_max` records of at most `bytes_max` bytes; of two cuts in a row the later one stays,
    /// and one of two beginnings of a segment.
    commands: VecDeque<Command>,
    /// Records queued or being written.
    records: usize,
    /// Bytes queued or being written.
    bytes: usize,
    next: Option<u64>,
    /// Whether somebody waits for something of what is queued.
    is_awaited: bool,
    writer: WriterState,
    closed: bool,
}

/// What wakes the writer.
#[derive(Debug, Default, PartialEq, Eq)]
enum WriterState {
    /// It looks into the queue soon, by itself.
    #[default]
    Awake,
    /// It waits without looking at the time, and has to be woken for whatever comes.
    Dozing,
}

impl Queue {
    pub(super) fn new(records_max: usize, bytes_max: usize, next: Option<u64>) -> Self {
        let state = Mutex::new(QueueState { next, ..QueueState::default() });
        Self { records_max, bytes_max, state, changed: Condvar::new() }
    }

    /// As [`Log::append`](super::Log::append), for a record within its bounds.
    pub(super) fn append(&self, append: Append) -> Result<(), Error> {
        let mut state = self.lock();
        if state.closed {
            return Err(Error::Stopped);
        }
        let expected = state.next.unwrap_or(append.number);
        let next = append.number.checked_add(1).filter(|_| append.number == expected);
        let Some(next) = next else { return Err(Error::OutOfOrder { expected, found: append.number }) };
        let bytes = state.bytes.saturating_add(append.bytes());
        // A record larger than the whole bound may pass alone, or it never would.
        let crowded = state.records > 0 && bytes > self.bytes_max;
        if state.records >= self.records_max || crowded {
            return Err(Error::QueueFull);
        }
        state.records += 1;
        state.bytes = bytes;
        state.next = Some(next);
        state.is_awaited |= append.is_awaited || state.records >= self.records_max / 2;
        let is_to_wake = state.is_awaited || state.writer == WriterState::Dozing;
        state.commands.push_back(Command::Append(append));
        drop(state);
        if is_to_wake {
            self.changed.notify_all();
        }
        Ok(())
    }

    /// As [`Log::cut`](super::Log::cut).
    pub(super) fn cut(&self, before: u64) -> Result<(), Error> {
        let mut state = self.lock();
        if state.closed {
            return Err(Error::Stopped);
        }
        if let Some(Command::Cut(earlier)) = state.commands.back_mut() {
            *earlier = before.max(*earlier);
        } else {
            state.commands.push_back(Command::Cut(before));
        }
        state.is_awaited = true;
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// As [`Log::begin_segment`](super::Log::begin_segment).
    pub(super) fn begin_segment(&self) -> Result<(), Error> {
        let mut state = self.lock();
        if state.closed {
            return Err(Error::Stopped);
        }
        if !matches!(state.commands.back(), Some(Command::BeginSegment)) {
            state.commands.push_back(Command::BeginSegment);
        }
        Ok(())
    }

    /// Refuses everything from now on. The writer still gets what is queued.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Refuses everything from now on and drops what is queued.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.commands.clear();
        self.changed.notify_all();
    }

    /// Waits for commands, at most for `patience` if it is given, and takes them all; `None` when the queue is closed and
    /// empty. For records that nobody waits for it waits until there is more to write with them, at most for [`LEISURE`].
    pub(super) fn take(&self, patience: Option<Duration>) -> Option<VecDeque<Command>> {
        let since = Instant::now();
        let patience = patience.unwrap_or(Duration::MAX);
        let mut state = self.wait(self.lock(), LEISURE.min(patience), |state| !state.is_awaited && !state.closed);
        if state.commands.is_empty() && !state.closed {
            state.writer = WriterState::Dozing;
            let patience = patience.saturating_sub(since.elapsed());
            state = self.wait(state, patience, |state| state.commands.is_empty() && !state.closed);
            state.writer = WriterState::Awake;
            if !state.commands.is_empty() {
                state = self.wait(state, LEISURE, |state| !state.is_awaited && !state.closed);
            }
        }
        state.is_awaited = false;
        let commands = std::mem::take(&mut state.commands);
        (!commands.is_empty() || !state.closed).then_some(commands)
    }

    /// Waits while `is_idle`, at most for `patience`.
    fn wait<'a>(
        &self,
        state: MutexGuard<'a, QueueState>,
        patience: Duration,
        mut is_idle: impl FnMut(&QueueState) -> bool,
    ) -> MutexGuard<'a, QueueState> {
        let waited = self.changed.wait_timeout_while(state, patience, |state| is_idle(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// So much of what was taken is done.
    pub(super) fn done(&self, records: usize, bytes: usize) {
        let mut state = self.lock();
        state.records = state.records.saturating_sub(records);
        state.bytes = state.bytes.saturating_sub(bytes);
    }

    /// Waits for the queue to be closed, at most for `patience`.
    pub(super) fn is_closed_within(&self, patience: Duration) -> bool {
        self.wait(self.lock(), patience, |state| !state.closed).closed
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
