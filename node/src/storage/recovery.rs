//! What a log holds when it is opened (PROTOCOL §9): every record that can be read, and an account of the others.
//!
//! A group is written as one and synced as one, so when power fails any part of the last group may be missing, and nothing
//! else. Each frame names the first number that was not yet durable when it was written. The highest of those tells the
//! last group from what had been reported durable before:
//!
//! - What cannot be read and has nothing readable after it is the tail, and is cut: frames without a whole header, and
//!   frames with one whose heads are both damaged (these are overwritten, so that they are never met again).
//! - A record missing from the last group, while a later one of the group is there, was torn or has rotted since; it is
//!   [`Missing`] with `was_durable: false`. The next segment's header remembers it as such.
//! - A record missing before that was durable: `was_durable: true`. If it was a vote, a vote is lost.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::PathBuf;

use bytes::Bytes;

use super::disk::{Disk, write_again};
use super::log::{Error, Options, SEGMENT_BYTES_MAX};
use super::missing::{Found, Missing};
use super::scan::{FoundFrame, Place, first_mark, scan};
use super::segment::{BLOCK_BYTES, FirstBlock, FoundFile, Listing, SegmentHeader, list, spare_name};
use super::supply::{SPARES_MAX, Spare};

/// A record as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Its number. Between two records without a [`Missing`] range it is one more than the last.
    pub number: u64,
    /// Its head, from a copy that fits its checksum.
    pub head: Bytes,
    /// Its body; `None` if it is damaged.
    pub body: Option<Bytes>,
    /// One of the two copies of the head is damaged.
    pub head_repaired: bool,
}

/// What was found when a log was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Number of the first record that the log should hold; records before it were cut. `None` if it never held one.
    pub first: Option<u64>,
    /// Number that the next record has to have. `None` if the log never held one.
    pub next: Option<u64>,
    /// Every record before this one had surely been durable; later ones are of the last write.
    pub synced_before: u64,
    /// Records found.
    pub records: u64,
    /// Records not found, ascending. At most `MISSING_MAX` ranges.
    pub missing: Vec<Missing>,
    /// Records whose head was read from one copy, the other being damaged.
    pub repaired_heads: u64,
    /// Records whose body is damaged.
    pub damaged_bodies: u64,
    /// Segments that hold records and have no readable header.
    pub damaged_segments: u64,
}

/// A segment that holds records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SurveyedSegment {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// All its records have smaller numbers.
    pub end: u64,
}

/// A segment that is not written any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// All its records have smaller numbers.
    pub(super) end: u64,
}

/// The segment to go on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundActive {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) ordinal: u64,
    pub(super) position: u64,
}

/// What the writer starts from.
#[derive(Debug, Default)]
pub(super) struct Ground {
    pub(super) mark: u64,
    pub(super) sealed: VecDeque<Sealed>,
    pub(super) active: Option<FoundActive>,
    pub(super) ordinal: u64,
    pub(super) torn: Range<u64>,
    pub(super) synced_before: u64,
    pub(super) spares: Vec<Spare>,
    pub(super) serial: u64,
    pub(super) used: u64,
}

/// Reads the log of `options`; makes durable what it finds.
pub(super) fn recover(
    disk: &dyn Disk,
    options: &Options,
    on_record: &mut dyn FnMut(Recovered),
) -> Result<(Recovery, Ground), Error> {
    let failed = |source| Error::io("list", &options.folder, source);
    fs::create_dir_all(&options.folder).map_err(failed)?;
    let listing = list(&options.folder).map_err(failed)?;
    for path in &listing.unfinished {
        fs::remove_file(path).map_err(|source| Error::io("remove", path, source))?;
    }
    let ReadBack { mark, mut recovery, sealed, blank, last, expected, torn } = read_back(options, &listing, on_record)?;
    recovery.next = expected;
    let mut ground = Ground { mark, sealed, torn, synced_before: expected.unwrap_or(0), ..Ground::default() };
    ground.ordinal = last.as_ref().map_or(1, |last| last.active.ordinal.saturating_add(1));
    if let Some(last) = last {
        last.make_durable(disk, options, mark)?;
        if ground.torn.is_empty() {
            ground.sealed.pop_back();
            ground.active = Some(last.active);
        }
    }
    account(options, &listing, blank, &mut ground)?;
    for folder in options.folder.parent().into_iter().chain([options.folder.as_path()]) {
        disk.sync_folder(folder).map_err(|source| Error::io("sync", folder, source))?;
    }
    Ok((recovery, ground))
}

/// Reads the log of `options` and leaves everything as it is: what [`recover`] would find, and the segments that hold
/// something.
pub(super) fn survey(
    options: &Options,
    on_record: &mut dyn FnMut(Recovered),
) -> Result<(Recovery, Vec<SurveyedSegment>), Error> {
    let listing = match list(&options.folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Recovery::default(), Vec::new())),
        listed => listed.map_err(|source| Error::io("list", &options.folder, source))?,
    };
    let ReadBack { mut recovery, sealed, expected, .. } = read_back(options, &listing, on_record)?;
    recovery.next = expected;
    let surveyed = |segment: Sealed| SurveyedSegment { path: segment.path, bytes: segment.bytes, end: segment.end };
    Ok((recovery, sealed.into_iter().map(surveyed).collect()))
}

/// What stands in the segments.
struct ReadBack {
    mark: u64,
    recovery: Recovery,
    /// All that hold something, the last one too.
    sealed: VecDeque<Sealed>,
    blank: Vec<FoundFile>,
    last: Option<LastSegment>,
    /// The number of the next record.
    expected: Option<u64>,
    torn: Range<u64>,
}

fn read_back(options: &Options, listing: &Listing, on_record: &mut dyn FnMut(Recovered)) -> Result<ReadBack, Error> {
    let headers = read_headers(options, &listing.segments)?;
    let mark = match headers.iter().flatten().next() {
        Some(header) => header.mark,
        None => find_mark(&listing.segments)?,
    };
    let mut reader = Reader {
        mark,
        on_record,
        recovery: Recovery::default(),
        expected: None,
        missing: Found::default(),
        last: None,
    };
    let mut sealed = VecDeque::new();
    let mut blank = Vec::new();
    for (file, header) in listing.segments.iter().zip(&headers) {
        let begun = reader.read_segment(file, header.as_ref())?;
        let end = reader.expected.unwrap_or(0);
        if begun {
            // A blank segment among others has lost all it held; the numbers after it say so.
            sealed.extend(blank.drain(..).map(|file: FoundFile| Sealed { path: file.path, bytes: file.bytes, end }));
            sealed.push_back(Sealed { path: file.path.clone(), bytes: file.bytes, end });
        } else {
            blank.push(file.clone());
        }
    }
    let Reader { mut recovery, last, expected, missing, .. } = reader;
    let torn;
    (recovery.missing, torn) = missing.classify(recovery.synced_before);
    Ok(ReadBack { mark, recovery, sealed, blank, last, expected, torn })
}

fn read_headers(options: &Options, segments: &[FoundFile]) -> Result<Vec<Option<SegmentHeader>>, Error> {
    let mut headers = Vec::with_capacity(segments.len());
    for file in segments {
        headers.push(match SegmentHeader::decode(&read_start(file, BLOCK_BYTES)?) {
            FirstBlock::Whole(header) if header.identity != options.identity => {
                return Err(Error::Foreign { path: file.path.clone(), found: header.identity });
            }
            FirstBlock::Version(version) => return Err(Error::Version { path: file.path.clone(), version }),
            // A recycled segment that was renamed and not yet begun still shows its earlier ordinal.
            FirstBlock::Whole(header) if header.ordinal == file.ordinal => Some(header),
            FirstBlock::Whole(_) | FirstBlock::Unreadable => None,
        });
    }
    Ok(headers)
}

fn read_start(file: &FoundFile, bytes_max: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::with_capacity(usize::try_from(bytes_max.min(file.bytes)).unwrap_or(0));
    let opened = fs::File::open(&file.path).and_then(|opened| opened.take(bytes_max).read_to_end(&mut bytes));
    opened.map_err(|source| Error::io("read", &file.path, source))?;
    Ok(bytes)
}

/// The mark of a log without a single readable header: that of its first whole frame, or a new one.
fn find_mark(segments: &[FoundFile]) -> Result<u64, Error> {
    for file in segments {
        let header_bytes_max = BLOCK_BYTES + super::frame::HEADER_BYTES as u64;
        if let Some(mark) = first_mark(&read_start(file, header_bytes_max)?, file.ordinal) {
            return Ok(mark);
        }
    }
    let folder = segments.first().map_or(PathBuf::new(), |file| file.path.clone());
    getrandom::u64().map_err(|error| {
        let source = error.raw_os_error().map_or_else(|| io::ErrorKind::Other.into(), io::Error::from_raw_os_error);
        Error::io("draw a mark for the log in", &folder, source)
    })
}

struct Reader<'a> {
    mark: u64,
    on_record: &'a mut dyn FnMut(Recovered),
    recovery: Recovery,
    /// Number of the next record.
    expected: Option<u64>,
    missing: Found,
    last: Option<LastSegment>,
}

/// The last segment that was begun.
struct LastSegment {
    active: FoundActive,
    /// If it has no readable header: the number for a new one.
    header_for: Option<u64>,
    /// Its first block, if that has a readable header and the last group was written with it.
    first_block: Option<Vec<u8>>,
    /// From the start of the first frame of the last group to the end of the last frame, unreadable ones as zeros.
    group_at: u64,
    group: Vec<u8>,
}

impl Reader<'_> {
    /// Reads a segment; `false` if it was never begun.
    fn read_segment(&mut self, file: &FoundFile, header: Option<&SegmentHeader>) -> Result<bool, Error> {
        if file.bytes > SEGMENT_BYTES_MAX {
            return Err(Error::Oversized { path: file.path.clone(), bytes: file.bytes });
        }
        let bytes = read_start(file, SEGMENT_BYTES_MAX)?;
        if let Some(header) = header {
            self.begin_at(header.first);
            self.recovery.synced_before = self.recovery.synced_before.max(header.first);
            self.missing.remember_torn(header.torn_first..header.torn_end);
        }
        let begun_at = self.expected;
        let mut first = None;
        let mut starts = Vec::new();
        let mut readable_end = usize::try_from(BLOCK_BYTES).unwrap_or(0).min(bytes.len());
        let mut unreadable = None;
        let place = Place { mark: self.mark, ordinal: file.ordinal };
        let end = scan(&bytes, place, |frame| {
            if header.is_none() && first.is_none() {
                self.begin_without_header(&frame);
            }
            first.get_or_insert(frame.number);
            self.recovery.synced_before = self.recovery.synced_before.max(frame.synced_before);
            // Only the last group matters, so what became durable since is forgotten: bounded by one group.
            starts.retain(|(number, _)| *number >= frame.synced_before);
            starts.push((frame.number, frame.place.start));
            let (number, frame_end) = (frame.number, frame.place.end);
            if self.take(&bytes, frame) {
                (readable_end, unreadable) = (frame_end, None);
            } else {
                unreadable = number.checked_add(1);
            }
        });
        if header.is_none() && first.is_none() {
            return Ok(false);
        }
        if self.keep_unreadable(unreadable) {
            readable_end = end;
        }
        let group_at = starts.first().map_or(end, |(_, start)| *start).min(readable_end);
        let mut group = bytes.get(group_at..readable_end).unwrap_or_default().to_vec();
        group.resize(end.saturating_sub(group_at), 0);
        let position = (readable_end as u64).next_multiple_of(BLOCK_BYTES);
        let active = FoundActive { path: file.path.clone(), bytes: file.bytes, ordinal: file.ordinal, position };
        // Not the first record found: that would make those missing before it durable.
        let header_for = if header.is_none() { begun_at.or(self.recovery.first) } else { None };
        let is_first_group = header.is_some_and(|header| header.first == self.recovery.synced_before);
        let block = usize::try_from(BLOCK_BYTES).unwrap_or(0);
        let first_block = bytes.get(..block).filter(|_| is_first_group).map(<[u8]>::to_vec);
        self.last = Some(LastSegment { active, header_for, first_block, group_at: group_at as u64, group });
        Ok(true)
    }

    /// What to do with frames at the end of a segment that end before the record `end` and whose heads are both damaged:
    /// they are the tail, and are overwritten, unless they testify that a record before them had been durable and is lost.
    fn keep_unreadable(&mut self, end: Option<u64>) -> bool {
        let (Some(end), Some(expected)) = (end, self.expected) else { return false };
        let testifies = self.recovery.synced_before > expected && end > expected;
        if testifies {
            self.missing.add(expected..end);
            self.expected = Some(end);
        }
        testifies
    }

    fn begin_without_header(&mut self, frame: &FoundFrame) {
        self.recovery.damaged_segments += 1;
        if self.expected.is_some() {
            return;
        }
        let is_first = frame.place.start as u64 == BLOCK_BYTES;
        self.begin_at(if is_first { frame.number } else { 0 });
    }

    /// The records from `first` on follow, whatever was found before.
    fn begin_at(&mut self, first: u64) {
        self.recovery.first.get_or_insert(first);
        let expected = *self.expected.get_or_insert(first);
        if first > expected {
            self.missing.add(expected..first);
            self.expected = Some(first);
        }
    }

    /// Hands the record of a frame on; `false` if its head cannot be read or it is no record of this log. Then it counts
    /// as missing as soon as a later record is found.
    fn take(&mut self, bytes: &[u8], frame: FoundFrame) -> bool {
        let Some(head) = frame.head.and_then(|head| bytes.get(head)) else { return false };
        let Some(next) = frame.number.checked_add(1) else { return false };
        let expected = self.expected.unwrap_or(frame.number);
        if frame.number < expected {
            return false;
        }
        if frame.number > expected {
            self.missing.add(expected..frame.number);
        }
        self.expected = Some(next);
        let body = frame.body.and_then(|body| bytes.get(body)).map(Bytes::copy_from_slice);
        self.recovery.records += 1;
        self.recovery.repaired_heads += u64::from(frame.head_damaged);
        self.recovery.damaged_bodies += u64::from(body.is_none());
        let head = Bytes::copy_from_slice(head);
        (self.on_record)(Recovered { number: frame.number, head, body, head_repaired: frame.head_damaged });
        true
    }
}

impl LastSegment {
    /// Writes the last group again and syncs it: it was read, and what is read counts, whether or not a sync had failed. So
    /// is the header that was written with it.
    fn make_durable(&self, disk: &dyn Disk, options: &Options, mark: u64) -> Result<(), Error> {
        let failed = |source| Error::io("write again to", &self.active.path, source);
        if let Some(first) = self.header_for {
            let (identity, ordinal) = (options.identity, self.active.ordinal);
            let header = SegmentHeader { identity, ordinal, first, mark, torn_first: 0, torn_end: 0 };
            write_again(disk, &self.active.path, 0, &header.encode()).map_err(failed)?;
        } else if let Some(block) = &self.first_block {
            write_again(disk, &self.active.path, 0, block).map_err(failed)?;
        }
        write_again(disk, &self.active.path, self.group_at, &self.group).map_err(failed)
    }
}

/// Spare segments, and the bytes of everything.
fn account(options: &Options, listing: &Listing, blank: Vec<FoundFile>, ground: &mut Ground) -> Result<(), Error> {
    ground.serial = listing.spares.last().map_or(1, |spare| spare.ordinal.saturating_add(1));
    let segments = listing.segments.iter().filter(|file| !blank.contains(file));
    ground.used = segments.map(|file| file.bytes).sum();
    for file in listing.spares.iter().chain(&blank) {
        if file.bytes != options.segment_bytes || ground.spares.len() >= SPARES_MAX {
            fs::remove_file(&file.path).map_err(|source| Error::io("remove", &file.path, source))?;
            continue;
        }
        let path = options.folder.join(spare_name(ground.serial));
        fs::rename(&file.path, &path).map_err(|source| Error::io("rename", &file.path, source))?;
        ground.serial = ground.serial.saturating_add(1);
        ground.used = ground.used.saturating_add(file.bytes);
        ground.spares.push(Spare { path, bytes: file.bytes });
    }
    Ok(())
}
