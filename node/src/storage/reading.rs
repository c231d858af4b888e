//! Reading a log that is being written: whether what is durable in it is what was written (PROTOCOL §9).
//!
//! Nothing is searched for here, unlike at a start: records are expected one after the other, each at the end of the one
//! before or, where a group ends, at the next block; whatever is not there, or does not fit its checksum, is damage. That a
//! record can still be made out from its second copy is for the start to find, and no reason to leave it like that.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::frame::{FrameHeader, HEADER_BYTES, Layout, Side};
use super::segment::{BLOCK_BYTES, FirstBlock, Identity, SegmentHeader, list};

/// Read at once, at most, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// A log that somebody writes, for those who read it beside that.
#[derive(Debug, Clone)]
pub struct Reading {
    pub(super) folder: PathBuf,
    pub(super) identity: Identity,
    /// All records below are durable.
    pub(super) durable_end: Arc<AtomicU64>,
}

/// One reading of all that was durable at its beginning, and was not cut since.
#[derive(Debug)]
pub struct Pass {
    /// Records below were durable.
    durable_end: u64,
    /// Those that are yet to be read, oldest first.
    segments: VecDeque<Listed>,
    open: Option<Open>,
    /// The record that is expected next; nothing before the first segment.
    next: Option<u64>,
    /// What headers say was never durable, though records after it are. At most one range a segment.
    torn: Vec<Range<u64>>,
    chunk: Vec<u8>,
}

/// What a step of a [`Pass`] came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// So many bytes are what was written.
    Right(u64),
    /// This file, up to which all is right, is damaged.
    Damaged(PathBuf),
    /// There is no more to be read.
    Over,
}

#[derive(Debug)]
struct Listed {
    path: PathBuf,
    ordinal: u64,
    /// Its header, unless it is damaged, or the segment was not begun when it was read.
    header: Option<SegmentHeader>,
}

/// The segment that is being read.
#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    ordinal: u64,
    mark: u64,
    /// Where the next frame is expected.
    position: u64,
    /// Records from this one on are not in it, or of no interest.
    end: u64,
    /// Whether the next segment says so; else it holds as much of that as is found.
    is_end_known: bool,
}

/// Something is not what was written, or cannot be read.
struct Damaged;

impl Reading {
    /// Begins a pass.
    ///
    /// # Errors
    /// Those of listing the folder.
    pub fn begin(&self) -> io::Result<Pass> {
        // First, what is durable: all of it is in segments that are there by then.
        let durable_end = self.durable_end.load(Ordering::Acquire);
        let listed = list(&self.folder)?.segments.into_iter();
        let segments = listed.map(|file| Listed { path: file.path, ordinal: file.ordinal, header: None });
        let mut pass = Pass {
            durable_end,
            segments: segments.collect(),
            open: None,
            next: None,
            torn: Vec::new(),
            chunk: vec![0; CHUNK_BYTES],
        };
        for segment in &mut pass.segments {
            segment.header = read_header(&segment.path, segment.ordinal, self.identity);
        }
        let torn = pass.segments.iter().filter_map(|segment| segment.header.as_ref());
        pass.torn = torn.map(|header| header.torn_first..header.torn_end).collect();
        Ok(pass)
    }
}

/// The header of a segment, if both copies of it are what was written.
fn read_header(path: &Path, ordinal: u64, identity: Identity) -> Option<SegmentHeader> {
    let mut block = vec![0; usize::try_from(BLOCK_BYTES).ok()?];
    let file = File::open(path).ok()?;
    forget_cached(&file);
    file.read_exact_at(&mut block, 0).ok()?;
    let FirstBlock::Whole(header) = SegmentHeader::decode(&block) else { return None };
    (header.ordinal == ordinal && header.identity == identity && header.encode() == block).then_some(header)
}

/// What is read is to come from the disk, as far as it is there.
fn forget_cached(file: &File) {
    // It is advice: where it is not taken, what is in memory is read.
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).ok();
}

impl Pass {
    /// Reads the next record, or turns to the next segment.
    pub fn step(&mut self) -> Step {
        let Some(mut open) = self.open.take() else { return self.turn() };
        let Some(expected) = self.next.filter(|next| *next < open.end) else { return Step::Right(0) };
        match self.read_record(&mut open, expected) {
            Ok(bytes) => {
                self.open = Some(open);
                Step::Right(bytes)
            }
            Err(Damaged) if is_there(&open) => Step::Damaged(open.path),
            // What was cut need not be there.
            Err(Damaged) => self.leave(),
        }
    }

    /// What comes next begins wherever the next segment says.
    fn leave(&mut self) -> Step {
        self.next = None;
        Step::Right(0)
    }

    fn turn(&mut self) -> Step {
        let Some(Listed { path, ordinal, header }) = self.segments.pop_front() else { return Step::Over };
        let is_read = |next: Option<u64>| next.is_some_and(|next| next >= self.durable_end) || self.durable_end == 0;
        if is_read(self.next) {
            return Step::Over;
        }
        let Ok(file) = File::open(&path) else { return self.unless_gone(path) };
        let Some(header) = header else { return self.unless_gone(path) };
        let expected = self.next.unwrap_or(header.first);
        if expected != header.first && !self.is_torn(expected) {
            return self.unless_gone(path);
        }
        forget_cached(&file);
        let after = self.segments.front().map(|after| after.header.as_ref());
        let is_end_known = after.is_none_or(|after| after.is_some());
        let end = after.flatten().map_or(self.durable_end, |after| after.first.min(self.durable_end));
        self.next = Some(header.first);
        self.open = Some(Open { path, file, ordinal, mark: header.mark, position: BLOCK_BYTES, end, is_end_known });
        Step::Right(BLOCK_BYTES)
    }

    fn unless_gone(&mut self, path: PathBuf) -> Step {
        if path.exists() { Step::Damaged(path) } else { self.leave() }
    }

    fn is_torn(&self, number: u64) -> bool {
        self.torn.iter().any(|torn| torn.contains(&number))
    }

    /// Reads the record that is expected next: its length on the disk.
    fn read_record(&mut self, open: &mut Open, expected: u64) -> Result<u64, Damaged> {
        let block = open.position.next_multiple_of(BLOCK_BYTES);
        let mut found = None;
        for position in [open.position, block] {
            found = found.or(front_at(open, position, expected)?);
        }
        let Some((header, layout)) = found else {
            if self.is_torn(expected) {
                // What comes after it is the rest of that one group.
                self.next = Some(open.end);
                return Ok(0);
            }
            if !open.is_end_known {
                open.end = expected;
                return Ok(0);
            }
            return Err(Damaged);
        };
        let mut back = [0; HEADER_BYTES];
        open.file.read_exact_at(&mut back, layout.back).or(Err(Damaged))?;
        let is_back = FrameHeader::decode(&back).is_some_and(|(side, again)| side == Side::Back && again == header);
        let parts = [
            (&layout.front_head, header.head_checksum),
            (&layout.body, header.body_checksum),
            (&layout.back_head, header.head_checksum),
        ];
        for (part, checksum) in parts {
            if self.checksum(&open.file, part).or(Err(Damaged))? != checksum {
                return Err(Damaged);
            }
        }
        if !is_back {
            return Err(Damaged);
        }
        let bytes = layout.end - open.position;
        open.position = layout.end;
        self.next = Some(expected + 1);
        Ok(bytes)
    }

    fn checksum(&mut self, file: &File, part: &Range<u64>) -> io::Result<u32> {
        let mut hasher = crc32fast::Hasher::new();
        let mut position = part.start;
        while position < part.end {
            let rest = usize::try_from(part.end - position).unwrap_or(usize::MAX);
            let chunk = self.chunk.get_mut(..rest.min(CHUNK_BYTES)).unwrap_or_default();
            file.read_exact_at(chunk, position)?;
            hasher.update(chunk);
            position += chunk.len() as u64;
        }
        Ok(hasher.finalize())
    }
}

/// The frame of the expected record, if it stands here.
fn front_at(open: &Open, position: u64, expected: u64) -> Result<Option<(FrameHeader, Layout)>, Damaged> {
    let mut front = [0; HEADER_BYTES];
    match open.file.read_exact_at(&mut front, position) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read.or(Err(Damaged))?,
    }
    let Some((Side::Front, header)) = FrameHeader::decode(&front) else { return Ok(None) };
    let place = (open.mark, open.ordinal, position, expected);
    if (header.mark, header.ordinal, header.position, header.number) != place {
        return Ok(None);
    }
    Ok(header.layout().map(|layout| (header, layout)))
}

/// Whether the file still stands in the log: one that was cut is used again under another name.
fn is_there(open: &Open) -> bool {
    let (Ok(named), Ok(opened)) = (fs::metadata(&open.path), open.file.metadata()) else { return false };
    (named.dev(), named.ino()) == (opened.dev(), opened.ino())
}
