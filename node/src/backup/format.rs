//! The bytes of a backup: a head, chunks of entries, a tail. (docs/formats.md, section 10)

use bytes::Bytes;
use quorate_protocol::certificate::StableCertificate;
use quorate_protocol::codec::{Blob, ENCODED_BYTES_MAX};
use quorate_protocol::message::StateRoot;

/// What the file begins with.
pub(super) const MAGIC: [u8; 8] = *b"QRTEBAK1";

/// The version of the format.
pub(super) const VERSION: u32 = 1;

/// Bytes before the header: magic, version, and the header's length.
pub(super) const PRELUDE_BYTES: usize = 16;

/// Longest header, in bytes: a genesis has at most 1 MiB.
pub(super) const HEADER_BYTES_MAX: u32 = 2 << 20;

/// Bytes before the entries of a chunk: its kind, and their length.
pub(super) const CHUNK_FRONT_BYTES: usize = 5;

/// Longest entries of a chunk, in bytes: as much as an encoding may have.
pub(super) const CHUNK_BYTES_MAX: u32 = 24 << 20;

const _: () = assert!(CHUNK_BYTES_MAX as usize == ENCODED_BYTES_MAX, "a part of a state fits a chunk");

/// Bytes of a checksum, CRC-32 (IEEE).
pub(super) const CRC_BYTES: usize = 4;

/// What follows in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Entries of the protocol.
    Protocol,
    /// Entries of the application.
    Application,
    /// The tail.
    End,
}

impl Kind {
    pub(super) const fn byte(self) -> u8 {
        match self {
            Self::Protocol => b'p',
            Self::Application => b'a',
            Self::End => b'e',
        }
    }

    pub(super) const fn of(byte: u8) -> Option<Self> {
        match byte {
            b'p' => Some(Self::Protocol),
            b'a' => Some(Self::Application),
            b'e' => Some(Self::End),
            _ => None,
        }
    }
}

/// What the header holds: the text of `genesis.toml`, what proves the checkpoint, and what its root is made of.
pub(super) type StoredHeader = (Blob, StableCertificate, StateRoot);

/// The tail: how much came before it, and the digest of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tail {
    /// Entries of the protocol.
    pub(super) protocol: u64,
    /// Entries of the application.
    pub(super) application: u64,
    /// SHA-256 of all bytes before the tail.
    pub(super) digest: [u8; 32],
}

/// Bytes of a tail after its kind, without its checksum.
pub(super) const TAIL_BYTES: usize = 48;

impl Tail {
    pub(super) fn encode(&self) -> Vec<u8> {
        let counts = [self.protocol.to_le_bytes(), self.application.to_le_bytes()].concat();
        [&counts[..], &self.digest].concat()
    }

    pub(super) fn decode(bytes: &[u8; TAIL_BYTES]) -> Self {
        let number = |at: usize| {
            let part: [u8; 8] = bytes.get(at..at + 8).and_then(|part| part.try_into().ok()).unwrap_or_default();
            u64::from_le_bytes(part)
        };
        let digest = bytes.last_chunk().copied().unwrap_or_default();
        Self { protocol: number(0), application: number(8), digest }
    }
}

/// The front of a chunk.
pub(super) fn chunk_front(kind: Kind, length: u32) -> [u8; CHUNK_FRONT_BYTES] {
    let [a, b, c, d] = length.to_le_bytes();
    [kind.byte(), a, b, c, d]
}

/// The prelude of a file whose header has so many bytes.
pub(super) fn prelude(header_bytes: u32) -> Bytes {
    [&MAGIC[..], &VERSION.to_le_bytes(), &header_bytes.to_le_bytes()].concat().into()
}
