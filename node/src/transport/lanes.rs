//! What waits to be sent: a bounded queue per link and lane, and how its frames become few, large writes.
//!
//! Small frames are copied together, large ones are handed on as they are: QUIC's send buffer is scanned once a packet,
//! segment by segment, so that many small writes into a large window cost the square.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::sync::Notify;

use crate::transport::frame::{FRAME_HEADER_BYTES, header};

/// A frame from this size on is not copied.
const LARGE_FRAME_BYTES: usize = 16 << 10;
/// What one write takes from the queue, in bytes; a single larger frame is taken too.
const WRITE_BYTES: usize = 64 << 10;

/// Why a frame was not taken for sending. It is gone; the protocol sends again what is missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Dropped {
    /// There is no such member, or no such connection any more.
    #[error("nobody of that name")]
    Unknown,
    /// The link is not up.
    #[error("not connected")]
    NotConnected,
    /// As many frames or bytes as the bound allows wait already.
    #[error("the queue is full")]
    QueueFull,
    /// As many bytes as the bound of all queues together allows wait already.
    #[error("the queues of others take all the room")]
    NoRoom,
    /// The frame is empty or above the bound of the lane: the other side would close the connection.
    #[error("a frame that the other side would refuse")]
    Size,
}

/// Bounds of one lane of one link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneLimits {
    /// Largest frame, in bytes, that is sent or taken. Both sides must agree on it.
    pub frame_bytes_max: u32,
    /// Bytes that may wait to be sent, frame headers left out.
    pub queue_bytes_max: usize,
    /// Frames that may wait to be sent.
    pub queue_frames_max: usize,
    /// Bytes that were received and that the host still holds, queued or in use; then no more is read from that lane.
    /// At least `frame_bytes_max`.
    pub held_bytes_max: u32,
}

/// Room that many queues share, beyond what each has of its own: however many fill up, the others have theirs.
#[derive(Debug)]
pub(crate) struct SharedRoom {
    own_bytes: usize,
    left: AtomicUsize,
}

impl SharedRoom {
    /// Room for `bytes_max` bytes beyond `own_bytes` of each queue.
    pub(crate) const fn new(own_bytes: usize, bytes_max: usize) -> Self {
        Self { own_bytes, left: AtomicUsize::new(bytes_max) }
    }

    /// A queue grows from one size to another, if there is room.
    fn grow(&self, from: usize, to: usize) -> bool {
        let more = self.shared(to) - self.shared(from);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(more)).is_ok()
    }

    /// A queue shrinks from one size to another.
    fn shrink(&self, from: usize, to: usize) {
        self.left.fetch_add(self.shared(from) - self.shared(to), Ordering::Relaxed);
    }

    /// What a queue of so many bytes takes of the shared room.
    const fn shared(&self, bytes: usize) -> usize {
        bytes.saturating_sub(self.own_bytes)
    }
}

/// The frames that wait for one lane of one link.
#[derive(Debug)]
pub(crate) struct LaneQueue {
    limits: LaneLimits,
    /// What it shares with other queues, if it does.
    shared: Option<Arc<SharedRoom>>,
    waiting: Mutex<Waiting>,
    /// Told when the first frame enters.
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    is_open: bool,
    /// At most `queue_frames_max` frames of together `queue_bytes_max` bytes.
    frames: VecDeque<Bytes>,
    bytes: usize,
}

impl LaneQueue {
    /// An empty queue, closed until the link is up.
    pub(crate) fn new(limits: LaneLimits) -> Self {
        Self { limits, shared: None, waiting: Mutex::default(), filled: Notify::new() }
    }

    /// The same, as one of many that share `room`.
    pub(crate) fn with_shared(mut self, room: Arc<SharedRoom>) -> Self {
        self.shared = Some(room);
        self
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The link is up: frames are taken.
    pub(crate) fn open(&self) {
        self.waiting().is_open = true;
    }

    /// The link is down. What waited is dropped: it may be stale when the link is up again. Gives the number of frames.
    pub(crate) fn close(&self) -> usize {
        let dropped = std::mem::take(&mut *self.waiting());
        self.shrink(dropped.bytes, 0);
        dropped.frames.len()
    }

    /// Takes a frame for sending, or drops it. Never waits.
    pub(crate) fn push(&self, frame: Bytes) -> Result<(), Dropped> {
        let bytes_max = usize::try_from(self.limits.frame_bytes_max).unwrap_or(usize::MAX);
        if frame.is_empty() || frame.len() > bytes_max {
            return Err(Dropped::Size);
        }
        let mut waiting = self.waiting();
        if !waiting.is_open {
            return Err(Dropped::NotConnected);
        }
        let bytes = waiting.bytes.saturating_add(frame.len());
        if bytes > self.limits.queue_bytes_max || waiting.frames.len() >= self.limits.queue_frames_max {
            return Err(Dropped::QueueFull);
        }
        if self.shared.as_ref().is_some_and(|room| !room.grow(waiting.bytes, bytes)) {
            return Err(Dropped::NoRoom);
        }
        waiting.bytes = bytes;
        waiting.frames.push_back(frame);
        let was_empty = waiting.frames.len() == 1;
        drop(waiting);
        if was_empty {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.waiting().bytes
    }

    /// Waits for frames and takes as many as one write wants, in order. One task may wait at a time.
    pub(crate) async fn take(&self, into: &mut Write) {
        loop {
            if self.try_take(into) {
                return;
            }
            self.filled.notified().await;
        }
    }

    fn try_take(&self, into: &mut Write) -> bool {
        let mut waiting = self.waiting();
        let mut bytes = 0;
        while bytes < WRITE_BYTES
            && let Some(frame) = waiting.frames.pop_front()
        {
            bytes += frame.len();
            into.frames.push(frame);
        }
        self.shrink(waiting.bytes, waiting.bytes - bytes);
        waiting.bytes -= bytes;
        bytes > 0
    }

    fn shrink(&self, from: usize, to: usize) {
        if let Some(room) = &self.shared {
            room.shrink(from, to);
        }
    }
}

impl Drop for LaneQueue {
    fn drop(&mut self) {
        self.close();
    }
}

/// One write to a stream: what was taken from the queue, and the chunks that it becomes.
#[derive(Debug, Default)]
pub(crate) struct Write {
    frames: Vec<Bytes>,
    small: BytesMut,
    chunks: Vec<Bytes>,
}

/// How much one write holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WriteSize {
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
}

impl Write {
    /// Turns the frames taken into chunks with headers: runs of small frames into one each, large ones uncopied.
    pub(crate) fn coalesce(&mut self) -> WriteSize {
        let Self { frames, small, chunks } = self;
        let mut size = WriteSize { frames: frames.len(), bytes: 0 };
        chunks.clear();
        small.reserve(run_bytes(frames));
        for frame in frames.drain(..) {
            size.bytes += FRAME_HEADER_BYTES + frame.len();
            small.put_slice(&header(frame.len()));
            if frame.len() < LARGE_FRAME_BYTES {
                small.put(frame);
            } else {
                chunks.push(small.split().freeze());
                chunks.push(frame);
            }
        }
        if !small.is_empty() {
            chunks.push(small.split().freeze());
        }
        size
    }

    /// The chunks, to be written in order.
    pub(crate) fn chunks(&mut self) -> &mut [Bytes] {
        &mut self.chunks
    }
}

/// Bytes that get copied: all headers, and the small frames.
fn run_bytes(frames: &[Bytes]) -> usize {
    let small = frames.iter().map(Bytes::len).filter(|bytes| *bytes < LARGE_FRAME_BYTES);
    small.sum::<usize>() + frames.len() * FRAME_HEADER_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> LaneQueue {
        let limits = LaneLimits {
            frame_bytes_max: 1 << 20,
            queue_bytes_max: 2 << 20,
            queue_frames_max: 100,
            held_bytes_max: 1 << 20,
        };
        let queue = LaneQueue::new(limits);
        queue.open();
        queue
    }

    fn frame(bytes: usize) -> Bytes {
        Bytes::from(vec![7; bytes])
    }

    #[test]
    fn a_queue_is_bounded_in_frames() {
        let queue = queue();
        for _count in 0..100 {
            assert_eq!(queue.push(frame(1)), Ok(()));
        }
        assert_eq!(queue.push(frame(1)), Err(Dropped::QueueFull));
    }

    #[test]
    fn a_queue_is_bounded_in_bytes() {
        let queue = queue();
        assert_eq!(queue.push(frame(1 << 20)), Ok(()));
        assert_eq!(queue.push(frame(1 << 20)), Ok(()));
        assert_eq!(queue.push(frame(1)), Err(Dropped::QueueFull));
    }

    #[test]
    fn a_frame_that_the_other_side_would_refuse_is_not_sent() {
        assert_eq!(queue().push(Bytes::new()), Err(Dropped::Size));
        assert_eq!(queue().push(frame((1 << 20) + 1)), Err(Dropped::Size));
    }

    #[test]
    fn what_waited_for_a_link_that_went_down_is_dropped() {
        let queue = queue();
        assert_eq!(queue.push(frame(1)), Ok(()));
        assert_eq!(queue.close(), 1);
        assert_eq!(queue.push(frame(1)), Err(Dropped::NotConnected));
        queue.open();
        assert!(!queue.try_take(&mut Write::default()));
    }

    #[test]
    fn room_comes_back_when_frames_are_taken() {
        let queue = queue();
        for _round in 0..50 {
            assert_eq!(queue.push(frame(1 << 20)), Ok(()));
            assert!(queue.try_take(&mut Write::default()));
        }
    }

    #[test]
    fn small_frames_are_written_together_and_large_ones_are_not_copied() {
        let large = frame(LARGE_FRAME_BYTES);
        let mut write = Write { frames: vec![frame(3), frame(5), large.clone(), frame(2)], ..Write::default() };
        assert_eq!(write.coalesce(), WriteSize { frames: 4, bytes: 4 * 4 + 10 + LARGE_FRAME_BYTES });
        let chunks = write.chunks();
        let expected = [3_u8, 0, 0, 0, 7, 7, 7, 5, 0, 0, 0, 7, 7, 7, 7, 7, 0, 64, 0, 0];
        assert_eq!(chunks[0], expected.as_slice());
        assert_eq!(chunks[1].as_ptr(), large.as_ptr());
        assert_eq!(chunks[2], [2_u8, 0, 0, 0, 7, 7].as_slice());
        assert_eq!(chunks.len(), 3);
    }

    #[test]
    fn queues_that_share_room_are_bounded_together_and_each_keeps_its_own() {
        let room = Arc::new(SharedRoom::new(10, 100));
        let [first, second, third] = [(); 3].map(|()| queue().with_shared(Arc::clone(&room)));
        for queue in [&first, &second, &third] {
            queue.open();
        }
        assert_eq!(first.push(frame(90)), Ok(()));
        assert_eq!(second.push(frame(30)), Ok(()));
        assert_eq!(second.push(frame(1)), Err(Dropped::NoRoom), "the shared room is used up");
        assert_eq!(third.push(frame(10)), Ok(()), "its own is not");
        assert_eq!(third.push(frame(1)), Err(Dropped::NoRoom));
        drop(first);
        assert_eq!(third.push(frame(80)), Ok(()), "a connection that ended gives its room back");
        assert!(second.try_take(&mut Write::default()));
        assert_eq!(second.push(frame(30)), Ok(()), "what is written does, too");
        assert_eq!(third.close(), 2);
        assert!(second.try_take(&mut Write::default()));
        assert_eq!(room.left.load(Ordering::Relaxed), 100);
    }

    #[test]
    fn one_write_takes_no_more_than_its_share() {
        let queue = queue();
        for _count in 0..20 {
            assert_eq!(queue.push(frame(WRITE_BYTES / 4)), Ok(()));
        }
        let mut write = Write::default();
        assert!(queue.try_take(&mut write));
        assert_eq!(write.frames.len(), 4);
    }
}
