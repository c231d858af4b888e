//! The folder of a log, with anything in it: headers and frames whose checksums are right though what they say is not, and
//! damage. (`fuzz.rs`)

use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::disk::{Disk, FileSystem};
use super::frame::{FrameHeader, Side};
use super::log::{self, Identity, Log, Options, Recovered, Recovery};
use super::segment::{BLOCK_BYTES, SegmentHeader, segment_name};

/// Bytes of a segment, and how many are made.
const SEGMENT: usize = 16 << 10;
const SEGMENTS_MAX: usize = 6;

/// What groups are aligned to.
const BLOCK: usize = 4096;

const _: () = assert!(BLOCK as u64 == BLOCK_BYTES, "one number, two types");

const IDENTITY: Identity = Identity { cluster: [3; 32], replica: 2 };
const MARK: u64 = 77;

/// The file system, of which nobody takes the power.
#[derive(Debug)]
struct Unsynced;

impl Disk for Unsynced {
    fn allocate(&self, path: &Path, bytes: u64) -> io::Result<()> {
        File::create(path)?.set_len(bytes)
    }

    fn write(&self, file: &File, position: u64, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        FileSystem.write(file, position, slices)
    }

    fn sync(&self, _: &File) -> io::Result<()> {
        Ok(())
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// Whatever stands in the folder: it is refused with a reason, or what is read is in order, and the log goes on behind it.
pub(crate) fn segments(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options {
        segment_bytes: SEGMENT as u64,
        disk_bytes_max: 64 << 20,
        ..Options::new(folder.path().join("log"), IDENTITY)
    };
    fs::create_dir(&options.folder).expect("a folder");
    let mut drawn = Drawn(bytes);
    for (ordinal, segment) in (1..).zip(drawn.segments()) {
        fs::write(options.folder.join(segment_name(ordinal)), segment).expect("a file");
    }
    let mut surveyed = Vec::new();
    let survey = log::survey(&options, &mut |record| surveyed.push(record));
    let Some((log, found, recovery)) = open(&options) else {
        return;
    };
    let (survey, _) = survey.expect("what can be opened can be read");
    assert_eq!((&surveyed, &survey), (&found, &recovery), "what is read is what is there");
    assert!(found.windows(2).all(|pair| pair[0].number < pair[1].number));
    let next = recovery.next.unwrap_or(1);
    let mut added = 0;
    while added < 3 && log.append(next.saturating_add(added), Bytes::from_static(b"head"), Bytes::new()).is_ok() {
        added += 1;
    }
    log.close().expect("room for three records");
    let (log, again, recovery) = open(&options).expect("what was opened once");
    assert_eq!(recovery.next.unwrap_or(1), next + added);
    let numbers = |records: &[Recovered]| records.iter().map(|record| record.number).collect::<Vec<_>>();
    assert!(numbers(&again).ends_with(&(next..next + added).collect::<Vec<_>>()), "{again:?}");
    log.close().expect("nothing was added");
}

fn open(options: &Options) -> Option<(Log, Vec<Recovered>, Recovery)> {
    let mut found = Vec::new();
    let opened = Log::open_on(Arc::new(Unsynced), options, &mut |record| found.push(record), Box::new(|_| {}));
    let (log, recovery) = opened.ok()?;
    Some((log, found, recovery))
}

/// Bytes of which things are made; zeros, once they are used up.
struct Drawn<'a>(&'a [u8]);

impl Drawn<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn flag(&mut self, one_in: u8) -> bool {
        self.byte() % one_in == one_in - 1
    }

    /// Small, or the largest.
    fn number(&mut self) -> u64 {
        match self.byte() {
            255 => u64::MAX,
            254 => u64::MAX - 1,
            small => u64::from(small),
        }
    }

    fn segments(&mut self) -> Vec<Vec<u8>> {
        let mut segments = Vec::new();
        while !self.0.is_empty() && segments.len() < SEGMENTS_MAX {
            let ordinal = segments.len() as u64 + 1;
            segments.push(self.segment(ordinal));
        }
        segments
    }

    fn segment(&mut self, ordinal: u64) -> Vec<u8> {
        let header = SegmentHeader {
            identity: IDENTITY,
            ordinal: if self.flag(16) { self.number() } else { ordinal },
            first: self.number(),
            mark: MARK,
            torn_first: self.number(),
            torn_end: self.number(),
        };
        let mut bytes = if self.flag(8) { vec![0; BLOCK] } else { header.encode() };
        while !self.flag(8) && !self.0.is_empty() && bytes.len() < SEGMENT {
            self.frame(ordinal, &mut bytes);
        }
        for _ in 0..self.byte() % 4 {
            self.damage(&mut bytes);
        }
        if !self.flag(8) {
            bytes.resize(SEGMENT, 0);
        }
        bytes
    }

    /// Appends a frame that lies about nothing, or about one thing.
    fn frame(&mut self, ordinal: u64, bytes: &mut Vec<u8>) {
        if self.flag(3) {
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        }
        let lie = self.byte() % 32;
        let (number, synced_before) = (self.number(), self.number());
        let head = vec![1; usize::from(self.byte() % 64)];
        let body = vec![2; usize::from(self.byte() % 16) * 37];
        let header = FrameHeader {
            mark: if lie == 1 { MARK + 1 } else { MARK },
            ordinal: if lie == 2 { ordinal.wrapping_sub(1) } else { ordinal },
            number,
            synced_before,
            position: bytes.len() as u64 + if lie == 3 { 8 } else { 0 },
            head_length: if lie == 4 { 64 << 10 } else { u32::try_from(head.len()).expect("short") },
            body_length: if lie == 5 { 32 << 20 } else { u32::try_from(body.len()).expect("short") },
            head_checksum: crc32fast::hash(&head) ^ u32::from(lie == 6),
            body_checksum: crc32fast::hash(&body) ^ u32::from(lie == 7),
        };
        for (side, content) in [(Side::Front, [&head[..], &body[..]]), (Side::Back, [&head[..], &[]])] {
            bytes.extend(header.encode(side));
            for part in content {
                bytes.extend_from_slice(part);
                bytes.resize(bytes.len().next_multiple_of(8), 0);
            }
        }
    }

    fn damage(&mut self, bytes: &mut Vec<u8>) {
        let place = usize::from(self.byte()) << 8 | usize::from(self.byte());
        let place = place % bytes.len().max(1);
        let length = usize::from(self.byte()) * 16;
        let end = (place + length).min(bytes.len());
        match self.byte() % 4 {
            0 => bytes.truncate(place),
            1 => bytes[place..end].fill(0),
            2 => {
                let copy = bytes[place..end].to_vec();
                bytes.extend(copy);
            }
            _ => bytes.iter_mut().skip(place).take(1).for_each(|byte| *byte ^= 1),
        }
    }
}
