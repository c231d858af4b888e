//! The thread of the log: takes all that waits, writes it as one group, syncs once, says so.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;

use super::disk::Disk;
use super::frame::{FrameHeader, frame_bytes};
use super::group::Group;
use super::log::{Error, Event, OnEvent, Options};
use super::queue::{Append, Command, Queue};
use super::recovery::{Ground, Sealed};
use super::segment::{BLOCK_BYTES, Identity, SegmentHeader, segment_name};
use super::supply::{Preparer, Spare, Supply};

/// How long it takes at most until a segment that was made ahead is seen.
const READY_RETRY: Duration = Duration::from_millis(200);

/// How long a full log waits before it looks for room again: what is free meanwhile is left to others on the same disk.
const ROOM_RETRY: Duration = Duration::from_secs(1);

/// Starts the log's two threads on what recovery found.
pub(super) fn start(
    disk: Arc<dyn Disk>,
    options: &Options,
    ground: Ground,
    (queue, durable_end): (Arc<Queue>, Arc<AtomicU64>),
    on_event: OnEvent,
) -> Result<JoinHandle<Result<(), Error>>, Error> {
    let failed = |source| Error::io("start the threads of the log in", &options.folder, source);
    let preparer = Preparer {
        disk: Arc::clone(&disk),
        folder: options.folder.clone(),
        segment_bytes: options.segment_bytes,
        disk_bytes_max: options.disk_bytes_max,
        used: ground.used,
        spares: ground.spares,
        serial: ground.serial,
    };
    let (orders, received) = mpsc::channel();
    let (answer, answers) = mpsc::channel();
    let preparing = move || preparer.run(received, answer);
    let preparer = thread::Builder::new().name("log-segments".to_owned()).spawn(preparing).map_err(failed)?;
    let active = ground.active.map(|active| Active::open(active.path, active.bytes, active.ordinal, active.position));
    let mut writer = Writer {
        disk,
        folder: options.folder.clone(),
        identity: options.identity,
        mark: ground.mark,
        queue,
        durable_end,
        on_event,
        supply: Supply::new(orders, answers, options.segment_bytes),
        sealed: ground.sealed,
        active: active.transpose()?,
        ordinal: ground.ordinal,
        torn: ground.torn,
        synced_before: ground.synced_before,
        group: Group::default(),
        is_full: false,
        is_to_roll: false,
    };
    let writing = move || {
        writer.supply.order_ahead();
        let result = writer.run();
        drop(writer);
        if preparer.join().is_err() {
            tracing::error!("the thread that prepares segments of the log panicked");
        }
        result
    };
    thread::Builder::new().name("log-writer".to_owned()).spawn(writing).map_err(failed)
}

struct Writer {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    identity: Identity,
    mark: u64,
    queue: Arc<Queue>,
    /// What is durable, for others.
    durable_end: Arc<AtomicU64>,
    on_event: OnEvent,
    supply: Supply,
    /// Full segments, oldest first. Bounded by `disk_bytes_max`.
    sealed: VecDeque<Sealed>,
    active: Option<Active>,
    /// Of the next segment.
    ordinal: u64,
    /// For the header of the next segment.
    torn: Range<u64>,
    /// Every record before this one is durable.
    synced_before: u64,
    group: Group,
    /// Whether the log was said to be full.
    is_full: bool,
    /// Whether the next record begins a segment, whatever room there is.
    is_to_roll: bool,
}

/// The segment being written.
struct Active {
    path: PathBuf,
    file: File,
    bytes: u64,
    ordinal: u64,
    /// Where the next group begins: 0 if not even the header is written, else a multiple of a block after it.
    position: u64,
}

impl Active {
    fn open(path: PathBuf, bytes: u64, ordinal: u64, position: u64) -> Result<Self, Error> {
        let file = OpenOptions::new().write(true).open(&path).map_err(|source| Error::io("open", &path, source))?;
        Ok(Self { path, file, bytes, ordinal, position })
    }

    fn room(&self) -> u64 {
        self.bytes.saturating_sub(self.position.max(BLOCK_BYTES))
    }
}

impl Writer {
    fn run(&mut self) -> Result<(), Error> {
        loop {
            let taken = self.look_for_room().map(|patience| self.queue.take(patience));
            let done = match taken {
                Ok(None) => return Ok(()),
                Ok(Some(commands)) => self.carry_out(commands),
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                self.queue.stop();
                // A log ends full only when it is closed: what is on the disk is known, and the rest was never durable.
                if matches!(error, Error::Full { .. }) {
                    return Err(error);
                }
                (self.on_event)(Event::Failed(error));
                return Err(Error::Stopped);
            }
        }
    }

    /// Says that the log is full as soon as the next segment can't be made ahead, while there is still room in the present
    /// one: for what is under way, and for what has to be written again before a cut, which alone may give room. Says, too,
    /// when there is room again. Gives the time after which to look again, if it has to be.
    fn look_for_room(&mut self) -> Result<Option<Duration>, Error> {
        let is_ready = match self.supply.is_ready() {
            Err(error @ Error::Full { .. }) => {
                self.say_full(error);
                false
            }
            is_ready => is_ready?,
        };
        if is_ready && self.is_full {
            self.is_full = false;
            (self.on_event)(Event::Room);
        }
        self.supply.order_ahead();
        let patience = if self.is_full { ROOM_RETRY } else { READY_RETRY };
        Ok((!is_ready).then_some(patience))
    }

    fn say_full(&mut self, error: Error) {
        if !self.is_full {
            self.is_full = true;
            (self.on_event)(Event::Full(error));
        }
    }

    fn carry_out(&mut self, commands: VecDeque<Command>) -> Result<(), Error> {
        let mut appends = VecDeque::new();
        for command in commands {
            match command {
                Command::Append(append) => appends.push_back(append),
                Command::Cut(before) => {
                    self.store(&mut appends)?;
                    self.cut(before);
                }
                Command::BeginSegment => {
                    self.store(&mut appends)?;
                    self.is_to_roll = self.active.as_ref().is_some_and(|active| active.position > 0);
                }
            }
        }
        self.store(&mut appends)
    }

    /// Makes all of `appends` durable, in as few groups as segments allow.
    fn store(&mut self, appends: &mut VecDeque<Append>) -> Result<(), Error> {
        while let Some(first) = appends.front() {
            let wanted = append_frame_bytes(first);
            let room = self.active.as_ref().map_or(0, Active::room);
            if wanted > room || self.is_to_roll {
                self.roll(wanted)?;
            }
            self.store_group(appends)?;
        }
        Ok(())
    }

    /// Writes and syncs as many of `appends` as the segment has room for; for the first of them it has.
    fn store_group(&mut self, appends: &mut VecDeque<Append>) -> Result<(), Error> {
        self.begin_segment(appends.front().map_or(0, |append| append.number))?;
        let active = self.active.as_ref().expect("a segment was opened for the first record of the group");
        let (mut records, mut bytes, mut next) = (0, 0, self.synced_before);
        while let Some(append) = appends.front() {
            let position = active.position + self.group.bytes;
            if append_frame_bytes(append) > active.bytes - position {
                break;
            }
            records += 1;
            bytes += append.bytes();
            next = append.number + 1;
            let frame = frame_header(append, self.mark, active.ordinal, self.synced_before, position);
            self.group.push_frame(&frame, append);
            appends.pop_front();
        }
        assert!(records > 0, "a group holds the record that it was begun for");
        self.write_group()?;
        self.synced_before = next;
        self.durable_end.store(next, Ordering::Release);
        self.queue.done(records, bytes);
        (self.on_event)(Event::Durable(next - 1));
        self.supply.order_ahead();
        Ok(())
    }

    /// The header of a segment leads its first group. One that remembers what an earlier write tore goes ahead of it: with a
    /// whole frame of the group and no header, the next start would take what was torn for durable and lost.
    fn begin_segment(&mut self, first: u64) -> Result<(), Error> {
        let Some(active) = self.active.as_ref().filter(|active| active.position == 0) else { return Ok(()) };
        self.group.push(&header(self.identity, self.mark, &self.torn, active.ordinal, first).encode());
        if self.torn.is_empty() { Ok(()) } else { self.write_group() }
    }

    /// Writes the group and makes it durable.
    fn write_group(&mut self) -> Result<(), Error> {
        let active = self.active.as_mut().expect("a group is written to a segment that was opened for it");
        let written = self.disk.write(&active.file, active.position, &mut self.group.slices());
        written.map_err(|source| Error::io("write to", &active.path, source))?;
        self.disk.sync(&active.file).map_err(|source| Error::io("sync", &active.path, source))?;
        if active.position == 0 {
            self.torn = 0..0;
        }
        active.position = (active.position + self.group.bytes).next_multiple_of(BLOCK_BYTES);
        self.group.clear();
        Ok(())
    }

    /// Opens the next segment, with room for a frame of `frame` bytes.
    fn roll(&mut self, frame: u64) -> Result<(), Error> {
        let bytes = (BLOCK_BYTES + frame).next_multiple_of(BLOCK_BYTES).max(self.supply.segment_bytes);
        let spare = self.find_room(bytes)?;
        let path = self.folder.join(segment_name(self.ordinal));
        fs::rename(&spare.path, &path).map_err(|source| Error::io("rename", &spare.path, source))?;
        self.disk.sync_folder(&self.folder).map_err(|source| Error::io("sync", &self.folder, source))?;
        let next = Active::open(path, spare.bytes, self.ordinal, 0)?;
        self.ordinal += 1;
        self.is_to_roll = false;
        if let Some(full) = self.active.replace(next) {
            self.sealed.push_back(Sealed { path: full.path, bytes: full.bytes, end: self.synced_before });
        }
        Ok(())
    }

    fn find_room(&mut self, bytes: u64) -> Result<Spare, Error> {
        loop {
            let found = self.supply.take(bytes);
            if let Some(error) = self.supply.take_refusal() {
                self.say_full(error);
            }
            match found {
                Err(error @ Error::Full { .. }) if self.queue.is_closed_within(Duration::ZERO) => return Err(error),
                Err(error @ Error::Full { .. }) => {
                    self.say_full(error);
                    self.queue.is_closed_within(ROOM_RETRY);
                }
                found => return found,
            }
        }
    }

    fn cut(&mut self, before: u64) {
        while self.sealed.front().is_some_and(|oldest| oldest.end <= before) {
            if let Some(oldest) = self.sealed.pop_front() {
                self.supply.retire(Spare { path: oldest.path, bytes: oldest.bytes });
            }
        }
        (self.on_event)(Event::Cut(before));
    }
}

fn append_frame_bytes(append: &Append) -> u64 {
    frame_bytes(length(&append.head), length(&append.body))
}

fn length(part: &Bytes) -> u32 {
    u32::try_from(part.len()).expect("`Log::append` refuses parts whose length does not fit")
}

fn header(identity: Identity, mark: u64, torn: &Range<u64>, ordinal: u64, first: u64) -> SegmentHeader {
    SegmentHeader { identity, ordinal, first, mark, torn_first: torn.start, torn_end: torn.end }
}

fn frame_header(append: &Append, mark: u64, ordinal: u64, synced_before: u64, position: u64) -> FrameHeader {
    FrameHeader {
        mark,
        ordinal,
        number: append.number,
        synced_before,
        position,
        head_length: length(&append.head),
        body_length: length(&append.body),
        head_checksum: crc32fast::hash(&append.head),
        body_checksum: crc32fast::hash(&append.body),
    }
}
