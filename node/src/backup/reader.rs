//! Reading a backup, a chunk at a time: each is bounded, and checked before anything in it is believed.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use quorate_protocol::codec::{CodecError, List, decode};
use quorate_protocol::message::{Entry, PART_ENTRIES_MAX};
use sha2::{Digest as _, Sha256};

use super::format::{
    CHUNK_BYTES_MAX, CHUNK_FRONT_BYTES, CRC_BYTES, HEADER_BYTES_MAX, Kind, MAGIC, PRELUDE_BYTES, StoredHeader,
    TAIL_BYTES, Tail, VERSION,
};
use super::{Header, InvalidHeader};
use crate::configuration::{FileError, Genesis};
use crate::storage::checkpoint::Map;

/// Why a file is not a backup, or not a whole one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Io(#[source] io::Error),
    /// It begins with something else.
    #[error("it is not a backup of quorate")]
    Magic,
    /// It is of another version.
    #[error("it is of version {0}, and this program reads version {VERSION}")]
    Version(u32),
    /// It ends too early.
    #[error("it is cut off at byte {0}")]
    CutOff(u64),
    /// What stands there is not what was written.
    #[error("it is damaged at byte {at}: {what}")]
    Damaged {
        /// Where what is damaged begins.
        at: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Bytes that have no meaning, though their checksum is right.
    #[error("what stands at byte {at} has no meaning")]
    Malformed {
        /// Where it begins.
        at: u64,
        /// What is wrong with it.
        #[source]
        source: CodecError,
    },
    /// The genesis in it is none.
    #[error("the genesis in it is not valid")]
    Genesis(#[source] FileError),
    /// What it says of its checkpoint is not so.
    #[error(transparent)]
    Header(#[from] InvalidHeader),
}

/// Reads a backup. The head is checked when this is made; each chunk when it is asked for; and the whole when there is
/// none left.
pub struct Reader<R> {
    from: R,
    header: Header,
    hasher: Sha256,
    /// Bytes so far.
    at: u64,
    protocol: u64,
    application: u64,
    is_done: bool,
}

impl<R> std::fmt::Debug for Reader<R> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reader").field("header", &self.header).field("at", &self.at).finish_non_exhaustive()
    }
}

impl<R: Read> Reader<R> {
    /// Reads the head. `path` is for messages.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn begin(mut from: R, path: &Path) -> Result<Self, FormatError> {
        let mut taking = Taking { from: &mut from, hasher: Sha256::new(), at: 0 };
        let prelude: [u8; PRELUDE_BYTES] = taking.take_array().map_err(|error| match error {
            FormatError::CutOff(_) => FormatError::Magic,
            other => other,
        })?;
        let (magic, rest) = prelude.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(FormatError::Magic);
        }
        let (version, length) = rest.split_at(4);
        let (version, length) = (u32_of(version), u32_of(length));
        if version != VERSION {
            return Err(FormatError::Version(version));
        }
        if length > HEADER_BYTES_MAX {
            return Err(FormatError::Damaged { at: 12, what: "the head is longer than any" });
        }
        let header = taking.take_checked(&prelude, length, 0, "the checksum of the head is wrong")?;
        let malformed = |source| FormatError::Malformed { at: PRELUDE_BYTES as u64, source };
        let (genesis, certificate, root): StoredHeader = decode(&header).map_err(malformed)?;
        let named: PathBuf = format!("{} (the genesis in it)", path.display()).into();
        let genesis = Genesis::parse(&named, &genesis).map_err(FormatError::Genesis)?;
        let header = Header::new(genesis, certificate, root)?;
        let Taking { hasher, at, .. } = taking;
        Ok(Self { from, header, hasher, at, protocol: 0, application: 0, is_done: false })
    }

    /// What it is of.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes that were read.
    pub fn bytes(&self) -> u64 {
        self.at
    }

    /// The next entries; none after the last, and then the file is whole: its count and digest are right, and nothing
    /// follows.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn next_chunk(&mut self) -> Result<Option<(Map, Vec<Entry>)>, FormatError> {
        if self.is_done {
            return Ok(None);
        }
        let (begin, digest) = (self.at, self.hasher.clone());
        let mut taking = Taking { from: &mut self.from, hasher: std::mem::take(&mut self.hasher), at: self.at };
        let kind: [u8; 1] = taking.take_array()?;
        let kind = Kind::of(kind[0]);
        let Some(kind) = kind else { return Err(FormatError::Damaged { at: begin, what: "no chunk begins so" }) };
        let map = match kind {
            Kind::Protocol => Map::Protocol,
            Kind::Application => Map::Application,
            Kind::End => {
                let front = [kind.byte()];
                let length = u32::try_from(TAIL_BYTES).unwrap_or(u32::MAX);
                let tail = taking.take_checked(&front, length, begin, "the checksum of the tail is wrong")?;
                self.at = taking.at;
                self.end(begin, &tail, digest)?;
                return Ok(None);
            }
        };
        let length: [u8; CHUNK_FRONT_BYTES - 1] = taking.take_array()?;
        let front = [&[kind.byte()][..], &length].concat();
        let length = u32_of(&length);
        if length > CHUNK_BYTES_MAX {
            return Err(FormatError::Damaged { at: begin, what: "a chunk is longer than any" });
        }
        let entries = taking.take_checked(&front, length, begin, "the checksum of a chunk is wrong")?;
        let Taking { hasher, at, .. } = taking;
        (self.hasher, self.at) = (hasher, at);
        let entries: List<Entry, PART_ENTRIES_MAX> =
            decode(&entries).map_err(|source| FormatError::Malformed { at: begin, source })?;
        let count = match map {
            Map::Protocol => &mut self.protocol,
            Map::Application => &mut self.application,
        };
        *count += entries.len() as u64;
        Ok(Some((map, entries.into_vec())))
    }

    fn end(&mut self, begin: u64, tail: &Bytes, digest: Sha256) -> Result<(), FormatError> {
        self.is_done = true;
        let damaged = |what| FormatError::Damaged { at: begin, what };
        let tail: &[u8; TAIL_BYTES] = tail[..].try_into().map_err(|_length| damaged("the tail is too short"))?;
        let tail = Tail::decode(tail);
        if (tail.protocol, tail.application) != (self.protocol, self.application) {
            return Err(damaged("it counts other entries than stand before it"));
        }
        if tail.digest != <[u8; 32]>::from(digest.finalize()) {
            return Err(damaged("the digest of all that stands before it is another"));
        }
        match self.from.read(&mut [0]).map_err(FormatError::Io)? {
            0 => Ok(()),
            _ => Err(FormatError::Damaged { at: self.at, what: "something follows its end" }),
        }
    }
}

/// Takes bytes, and counts and hashes them.
struct Taking<'a, R> {
    from: &'a mut R,
    hasher: Sha256,
    at: u64,
}

impl<R: Read> Taking<'_, R> {
    fn take(&mut self, bytes: &mut [u8]) -> Result<(), FormatError> {
        self.from.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => FormatError::CutOff(self.at),
            _ => FormatError::Io(error),
        })?;
        self.hasher.update(&*bytes);
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut bytes = [0; N];
        self.take(&mut bytes)?;
        Ok(bytes)
    }

    /// The next `length` bytes, which is bounded; the checksum after them is theirs and that of `front`.
    fn take_checked(
        &mut self,
        front: &[u8],
        length: u32,
        begin: u64,
        what: &'static str,
    ) -> Result<Bytes, FormatError> {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        self.take(&mut bytes)?;
        let stated: [u8; CRC_BYTES] = self.take_array()?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(front);
        crc.update(&bytes);
        if crc.finalize().to_le_bytes() != stated {
            return Err(FormatError::Damaged { at: begin, what });
        }
        Ok(bytes.into())
    }
}

fn u32_of(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().unwrap_or_default())
}
