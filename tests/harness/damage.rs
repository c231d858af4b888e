//! Rot in the files of a stopped replica. Where things stand in a segment of the log is spelled out here again, from the
//! description of the format, and not taken from the program.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Where groups of frames begin, in bytes.
const BLOCK_BYTES: u64 = 4096;

/// Length of each of a frame's two headers, in bytes.
const HEADER_BYTES: u64 = 64;

/// Where one record stands in a segment of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The segment.
    pub path: PathBuf,
    /// The frame's first byte.
    pub position: u64,
    /// Of the frame with both headers, in bytes.
    pub length: u64,
    /// Of the head, in bytes.
    pub head_length: u64,
    /// Of the body, in bytes.
    pub body_length: u64,
    /// The record's number.
    pub number: u64,
    /// Every record with a smaller number was durable when this one was written.
    pub synced_before: u64,
}

impl Frame {
    /// Where the first copy of the head begins.
    pub fn front_head(&self) -> u64 {
        self.position + HEADER_BYTES
    }

    /// Where the body begins.
    pub fn body(&self) -> u64 {
        self.front_head() + self.head_length.next_multiple_of(8)
    }

    /// Where the second header begins.
    pub fn back(&self) -> u64 {
        self.body() + self.body_length.next_multiple_of(8)
    }
}

/// The frames of all segments of a log, in order.
///
/// # Panics
/// If the folder cannot be read.
pub fn frames(log: &Path) -> Vec<Frame> {
    let files = fs::read_dir(log).expect("the log's folder is there");
    let mut segments: Vec<PathBuf> = files.map(|entry| entry.expect("it can be listed").path()).collect();
    segments.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("segment-")));
    segments.sort();
    segments.iter().flat_map(|path| frames_of(path)).collect()
}

fn frames_of(path: &Path) -> Vec<Frame> {
    let bytes = fs::read(path).expect("a segment can be read");
    let number_at = |position: u64| -> Option<u64> {
        let start = usize::try_from(position).ok()?;
        Some(u64::from_le_bytes(bytes.get(start..start + 8)?.try_into().ok()?))
    };
    let (ordinal, mark) = (number_at(48), number_at(64));
    let read = |position: u64| -> Option<Frame> {
        let is_live = number_at(position) == mark
            && number_at(position + 8) == ordinal
            && number_at(position + 32) == Some(position);
        let head_length = number_at(position + 40)? >> 32;
        let body_length = number_at(position + 48)? & 0xffff_ffff;
        let length = 2 * (HEADER_BYTES + head_length.next_multiple_of(8)) + body_length.next_multiple_of(8);
        let (number, synced_before) = (number_at(position + 16)?, number_at(position + 24)?);
        let path = path.to_owned();
        is_live.then_some(Frame { path, position, length, head_length, body_length, number, synced_before })
    };
    let mut found = Vec::new();
    let mut position = BLOCK_BYTES;
    loop {
        let Some(frame) = read(position).or_else(|| read(position.next_multiple_of(BLOCK_BYTES))) else { return found };
        position = frame.position + frame.length;
        found.push(frame);
    }
}

/// Turns all bits of a stretch of a file.
///
/// # Panics
/// If the file is not there or shorter.
pub fn flip(path: &Path, position: u64, length: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("the file can be written");
    let mut bytes = vec![0; usize::try_from(length).expect("a test damages no more than memory holds")];
    file.read_exact_at(&mut bytes, position).expect("the file is that long");
    for byte in &mut bytes {
        *byte = !*byte;
    }
    file.write_all_at(&bytes, position).expect("the file can be written");
}

/// All files below a folder, with their lengths.
///
/// # Panics
/// If it cannot be read.
pub fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).expect("the folder is there") {
            let entry = entry.expect("it can be listed");
            // A file that a running replica just removed is no longer there.
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => waiting.push(entry.path()),
                Ok(metadata) => found.push((entry.path(), metadata.len())),
                Err(_) => {}
            }
        }
    }
    found.sort();
    found
}
