//! The segment: one file of the log, and what its folder looks like (PROTOCOL §9). All numbers are little endian.
//!
//! ```text
//! segment
//!       0    128  header
//!     128   1920  zeros
//!    2048    128  header again
//!    2176   1920  zeros
//!    4096         groups of frames, each group at a multiple of 4096
//!
//! header
//!    0   8  magic           "QRTELOG1"
//!    8   4  version         1
//!   12   4  replica         index of the replica that the log belongs to
//!   16  32  cluster         identity of the cluster
//!   48   8  ordinal         of the segment; as in its name
//!   56   8  first           number of the first record that was written here
//!   64   8  mark            drawn at random when the log is made; in every frame as well
//!   72   8  torn_first      records torn_first <= number < torn_end were missing in the last group of an earlier
//!   80   8  torn_end        segment when this one was begun: they had never been reported durable. 0, 0 if none.
//!   88  36  zeros
//!  124   4  checksum        CRC-32 (IEEE) of the 124 bytes above
//!
//! folder
//!   segment-<ordinal, 16 hexadecimal digits>.log    in use
//!   spare-<16 hexadecimal digits>.log               allocated and synced, content without meaning
//!   *.new                                           being allocated; removed at the next start
//! ```
//!
//! A segment is begun by renaming a spare one, syncing the folder, and writing the header together with its first group.
//! Everything in earlier segments is durable before that: only the last one begun can have a torn tail.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::frame::{take_u32, take_u64};

/// Where frames begin, and what every group of frames is aligned to, in bytes.
pub const BLOCK_BYTES: u64 = 4096;

/// Version of the format of segments and frames.
pub const VERSION: u32 = 1;

/// Extension of a file that is being allocated.
pub(super) const UNFINISHED: &str = "new";

const MAGIC: u64 = u64::from_le_bytes(*b"QRTELOG1");
const HEADER_BYTES: usize = 128;
const CHECKSUM_AT: usize = HEADER_BYTES - 4;
const SECOND_AT: usize = 2048;
const BLOCK: usize = 4096;

const _: () = assert!(BLOCK as u64 == BLOCK_BYTES, "one number, two types");

/// Whose log it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Identity of the cluster.
    pub cluster: [u8; 32],
    /// Index of the replica.
    pub replica: u32,
}

/// Header of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) identity: Identity,
    pub(super) ordinal: u64,
    pub(super) first: u64,
    pub(super) mark: u64,
    pub(super) torn_first: u64,
    pub(super) torn_end: u64,
}

/// What the first block of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstBlock {
    /// One of the two headers is whole.
    Whole(SegmentHeader),
    /// A whole header of a version that this program does not know.
    Version(u32),
    /// No whole header: never begun, torn when it was begun, or damaged.
    Unreadable,
}

impl SegmentHeader {
    /// The first block of a segment.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(&MAGIC.to_le_bytes());
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&self.identity.replica.to_le_bytes());
        header.extend_from_slice(&self.identity.cluster);
        for field in [self.ordinal, self.first, self.mark, self.torn_first, self.torn_end] {
            header.extend_from_slice(&field.to_le_bytes());
        }
        header.resize(CHECKSUM_AT, 0);
        header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        let mut block = header.clone();
        block.resize(SECOND_AT, 0);
        block.append(&mut header);
        block.resize(BLOCK, 0);
        block
    }

    /// Reads the header from the first block of a segment, or from what there is of one.
    pub(super) fn decode(block: &[u8]) -> FirstBlock {
        let first = decode_copy(block).unwrap_or(FirstBlock::Unreadable);
        if first != FirstBlock::Unreadable {
            return first;
        }
        block.get(SECOND_AT..).and_then(decode_copy).unwrap_or(FirstBlock::Unreadable)
    }
}

fn decode_copy(bytes: &[u8]) -> Option<FirstBlock> {
    let (covered, mut checksum) = bytes.split_at_checked(CHECKSUM_AT)?;
    if take_u32(&mut checksum)? != crc32fast::hash(covered) {
        return None;
    }
    let mut rest = covered;
    if take_u64(&mut rest)? != MAGIC {
        return None;
    }
    let version = take_u32(&mut rest)?;
    if version != VERSION {
        return Some(FirstBlock::Version(version));
    }
    let replica = take_u32(&mut rest)?;
    let (cluster, mut rest) = rest.split_first_chunk()?;
    Some(FirstBlock::Whole(SegmentHeader {
        identity: Identity { cluster: *cluster, replica },
        ordinal: take_u64(&mut rest)?,
        first: take_u64(&mut rest)?,
        mark: take_u64(&mut rest)?,
        torn_first: take_u64(&mut rest)?,
        torn_end: take_u64(&mut rest)?,
    }))
}

/// A file of the log as its folder lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundFile {
    pub(super) path: PathBuf,
    /// The number in its name.
    pub(super) ordinal: u64,
    pub(super) bytes: u64,
}

/// The files of a log's folder, each kind by ascending ordinal.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) segments: Vec<FoundFile>,
    pub(super) spares: Vec<FoundFile>,
    /// Files that were being allocated when the process ended.
    pub(super) unfinished: Vec<PathBuf>,
}

/// Name of the segment with this ordinal.
pub(super) fn segment_name(ordinal: u64) -> String {
    format!("segment-{ordinal:016x}.log")
}

/// Name of a spare segment.
pub(super) fn spare_name(serial: u64) -> String {
    format!("spare-{serial:016x}.log")
}

/// Lists a log's folder. Files with other names are left alone.
pub(super) fn list(folder: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let Some(name) = name.to_str() else { continue };
        if path.extension() == Some(OsStr::new(UNFINISHED)) {
            listing.unfinished.push(path);
        } else if let Some(ordinal) = ordinal(name, "segment-") {
            listing.segments.push(FoundFile { path, ordinal, bytes: entry.metadata()?.len() });
        } else if let Some(ordinal) = ordinal(name, "spare-") {
            listing.spares.push(FoundFile { path, ordinal, bytes: entry.metadata()?.len() });
        }
    }
    listing.segments.sort_by_key(|file| file.ordinal);
    listing.spares.sort_by_key(|file| file.ordinal);
    Ok(listing)
}

fn ordinal(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?.strip_suffix(".log")?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        let identity = Identity { cluster: [7; 32], replica: 3 };
        SegmentHeader { identity, ordinal: 5, first: 100, mark: 0xabcd, torn_first: 90, torn_end: 92 }
    }

    #[test]
    fn a_first_block_is_what_the_format_says_byte_by_byte() {
        let mut expected = b"QRTELOG1".to_vec();
        expected.extend([1, 0, 0, 0, 3, 0, 0, 0]);
        expected.extend([7; 32]);
        expected.extend([5, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0, 0xcd, 0xab, 0, 0, 0, 0, 0, 0]);
        expected.extend([90, 0, 0, 0, 0, 0, 0, 0, 92, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([0; 36]);
        expected.extend(crc32fast::hash(&expected).to_le_bytes());
        let block = header().encode();
        assert_eq!(block.len(), 4096);
        assert_eq!(block[..128], expected);
        assert_eq!(block[2048..2176], expected);
        assert!(block[128..2048].iter().chain(&block[2176..]).all(|byte| *byte == 0));
        assert_eq!(SegmentHeader::decode(&block), FirstBlock::Whole(header()));
    }

    #[test]
    fn one_damaged_header_is_read_from_the_other_and_two_are_unreadable() {
        for byte in 0..HEADER_BYTES {
            let mut block = header().encode();
            block[byte] ^= 1;
            assert_eq!(SegmentHeader::decode(&block), FirstBlock::Whole(header()), "byte {byte}");
            block[SECOND_AT + (byte + 1) % HEADER_BYTES] ^= 1;
            assert_eq!(SegmentHeader::decode(&block), FirstBlock::Unreadable, "byte {byte}");
        }
        assert_eq!(SegmentHeader::decode(&[]), FirstBlock::Unreadable);
        assert_eq!(SegmentHeader::decode(&[0; 4096]), FirstBlock::Unreadable);
    }

    #[test]
    fn an_unknown_version_is_named() {
        let mut block = header().encode();
        block[8] = 2;
        let checksum = crc32fast::hash(&block[..CHECKSUM_AT]).to_le_bytes();
        block[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&checksum);
        assert_eq!(SegmentHeader::decode(&block), FirstBlock::Version(2));
    }

    #[test]
    fn a_folder_is_listed_by_ordinal_and_other_files_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        for name in [&segment_name(16), &segment_name(2), &spare_name(1), "a.new", "segment-1.log", "lock"] {
            fs::write(folder.path().join(name), [0; 3]).unwrap();
        }
        let listing = list(folder.path()).unwrap();
        let ordinals: Vec<u64> = listing.segments.iter().map(|file| file.ordinal).collect();
        assert_eq!(ordinals, [2, 16]);
        assert_eq!(listing.spares.len(), 1);
        assert_eq!(listing.unfinished, [folder.path().join("a.new")]);
        assert_eq!(listing.segments[0].bytes, 3);
    }
}
