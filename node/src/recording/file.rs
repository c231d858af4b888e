//! The file of a recording: one a start. All numbers are little endian.
//!
//! ```text
//! recording
//!       0     92  header
//!      92         frames, one after the other
//!
//! header
//!    0   8  magic           "QRTEREC1"
//!    8   4  version         1
//!   12   4  replica         index of the replica
//!   16  32  cluster         identity of the cluster
//!   48   8  start           number of the start; as in its name
//!   56  32  program         version of the program that recorded, in ASCII, then zeros
//!   88   4  checksum        CRC-32 (IEEE) of the 88 bytes above
//!
//! frame
//!    0   4  length          of the item, in bytes
//!    4   4  item checksum   CRC-32 (IEEE) of the item
//!    8   4  checksum        CRC-32 (IEEE) of the 8 bytes above
//!   12      item            see docs/formats.md
//!
//! folder
//!   start-<16 hexadecimal digits>.rec
//! ```
//!
//! Nothing is synced: a recording survives the end of its process, and what power takes away of it is its end. A file that
//! ends within a frame ends before it; whatever else is not whole is damage.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions))]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::storage::frame::{take_u32, take_u64};
use crate::storage::log::Identity;

/// Version of the format of recordings.
pub const VERSION: u32 = quorate_protocol::recording::VERSION;

/// Length of a recording's header, in bytes.
pub const HEADER_BYTES: usize = 92;

/// Length of a frame's header, in bytes.
pub const FRAME_HEADER_BYTES: usize = 12;

const MAGIC: u64 = u64::from_le_bytes(*b"QRTEREC1");
const PROGRAM_BYTES: usize = 32;
const CHECKSUM_AT: usize = HEADER_BYTES - 4;

/// Header of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Whose it is.
    pub identity: Identity,
    /// Number of the start.
    pub start: u64,
    /// Version of the program that recorded.
    pub program: String,
}

/// What the first bytes of a file say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FirstBytes {
    /// A whole header.
    Whole(Header),
    /// A whole header of a version that this program does not know.
    Version(u32),
    /// Something else.
    Unreadable,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC.to_le_bytes());
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.identity.replica.to_le_bytes());
        bytes.extend_from_slice(&self.identity.cluster);
        bytes.extend_from_slice(&self.start.to_le_bytes());
        bytes.extend(self.program.bytes().take(PROGRAM_BYTES));
        bytes.resize(CHECKSUM_AT, 0);
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> FirstBytes {
        decode_header(bytes).unwrap_or(FirstBytes::Unreadable)
    }
}

fn decode_header(bytes: &[u8; HEADER_BYTES]) -> Option<FirstBytes> {
    let (covered, mut checksum) = bytes.split_at_checked(CHECKSUM_AT)?;
    let mut rest = covered;
    if take_u64(&mut rest)? != MAGIC || take_u32(&mut checksum)? != crc32fast::hash(covered) {
        return None;
    }
    let version = take_u32(&mut rest)?;
    if version != VERSION {
        return Some(FirstBytes::Version(version));
    }
    let replica = take_u32(&mut rest)?;
    let (cluster, mut rest) = rest.split_first_chunk::<32>()?;
    let start = take_u64(&mut rest)?;
    let program = rest.split(|byte| *byte == 0).next().unwrap_or_default();
    let program = String::from_utf8_lossy(program).into_owned();
    Some(FirstBytes::Whole(Header { identity: Identity { cluster: *cluster, replica }, start, program }))
}

/// Begins a frame at the end of `bytes`; [`seal`] ends it.
pub(super) fn open(bytes: &mut Vec<u8>) -> usize {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    start
}

/// Writes the header of the frame that begins at `start` and reaches to the end of `bytes`.
pub(super) fn seal(bytes: &mut [u8], start: usize) {
    let frame = bytes.get_mut(start..).and_then(|frame| frame.split_first_chunk_mut::<FRAME_HEADER_BYTES>());
    let (header, item) = frame.expect("the frame was opened here");
    let length = u32::try_from(item.len()).expect("an encoding is far shorter");
    *header = frame_header(length, crc32fast::hash(item));
}

fn frame_header(length: u32, item_checksum: u32) -> [u8; FRAME_HEADER_BYTES] {
    let mut header = Vec::with_capacity(FRAME_HEADER_BYTES);
    header.extend_from_slice(&length.to_le_bytes());
    header.extend_from_slice(&item_checksum.to_le_bytes());
    header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
    header.try_into().expect("three fields of 4 bytes are 12")
}

/// Length and checksum of the item, unless the header is damaged.
pub(super) fn read_frame_header(header: &[u8; FRAME_HEADER_BYTES]) -> Option<(u32, u32)> {
    let (covered, mut checksum) = header.split_at_checked(FRAME_HEADER_BYTES - 4)?;
    let is_whole = take_u32(&mut checksum)? == crc32fast::hash(covered);
    let mut rest = covered;
    let found = (take_u32(&mut rest)?, take_u32(&mut rest)?);
    is_whole.then_some(found)
}

/// A recording in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub path: PathBuf,
    /// Number of the start.
    pub start: u64,
    /// Its length.
    pub bytes: u64,
}

/// The file's name.
pub fn name(start: u64) -> String {
    format!("start-{start:016x}.rec")
}

/// The recordings in a folder, in order of their starts. Other files are left out.
///
/// # Errors
/// The folder cannot be listed.
pub fn list(folder: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix("start-")?.strip_suffix(".rec"));
        let start = digits.filter(|digits| digits.len() == 16).and_then(|digits| u64::from_str_radix(digits, 16).ok());
        if let Some(start) = start {
            found.push(Found { path: entry.path(), start, bytes: entry.metadata()?.len() });
        }
    }
    found.sort_by_key(|found| found.start);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header { identity: Identity { cluster: [7; 32], replica: 3 }, start: 5, program: "0.1.0".to_owned() }
    }

    #[test]
    fn a_header_is_what_the_format_says_byte_by_byte() {
        let mut expected = b"QRTEREC1".to_vec();
        expected.extend([1, 0, 0, 0, 3, 0, 0, 0]);
        expected.extend([7; 32]);
        expected.extend([5, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend(b"0.1.0");
        expected.extend([0; 27]);
        expected.extend(crc32fast::hash(&expected).to_le_bytes());
        assert_eq!(header().encode(), expected);
        assert_eq!(Header::decode(&expected.try_into().unwrap()), FirstBytes::Whole(header()));
    }

    #[test]
    fn no_flipped_byte_of_a_header_goes_unseen_and_another_version_is_named() {
        let whole: [u8; HEADER_BYTES] = header().encode().try_into().unwrap();
        for byte in 0..HEADER_BYTES {
            let mut harmed = whole;
            harmed[byte] ^= 1;
            assert_eq!(Header::decode(&harmed), FirstBytes::Unreadable, "byte {byte}");
        }
        let mut other = whole;
        other[8] = 2;
        let checksum = crc32fast::hash(&other[..CHECKSUM_AT]).to_le_bytes();
        other[CHECKSUM_AT..].copy_from_slice(&checksum);
        assert_eq!(Header::decode(&other), FirstBytes::Version(2));
    }

    #[test]
    fn a_frame_names_its_length_and_guards_it() {
        let mut bytes = vec![1, 2, 3];
        let start = open(&mut bytes);
        bytes.extend(b"item");
        seal(&mut bytes, start);
        assert_eq!((start, bytes.len()), (3, 3 + FRAME_HEADER_BYTES + 4));
        let header: [u8; FRAME_HEADER_BYTES] = bytes[3..15].try_into().unwrap();
        assert_eq!(read_frame_header(&header), Some((4, crc32fast::hash(b"item"))));
        for byte in 0..FRAME_HEADER_BYTES {
            let mut harmed = header;
            harmed[byte] ^= 1;
            assert_eq!(read_frame_header(&harmed), None, "byte {byte}");
        }
    }

    #[test]
    fn a_folder_is_listed_by_start_and_other_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        for file in [&name(16), &name(2), "start-1.rec", "notes"] {
            fs::write(folder.path().join(file), [0; 3]).unwrap();
        }
        let starts: Vec<(u64, u64)> =
            list(folder.path()).unwrap().iter().map(|found| (found.start, found.bytes)).collect();
        assert_eq!(starts, [(2, 3), (16, 3)]);
    }
}
