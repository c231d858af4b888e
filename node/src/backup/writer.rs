//! Writing a backup, a chunk at a time.

use std::io::{self, Write};

use quorate_protocol::codec::{CodecError, List, encode};
use quorate_protocol::message::{Entry, PART_ENTRIES_MAX};
use sha2::{Digest as _, Sha256};

use super::Header;
use super::format::{Kind, StoredHeader, Tail, chunk_front, prelude};
use crate::storage::checkpoint::Map;

/// Writes what it is given, and counts and hashes it. Whether it is the state that the header names is not looked at here.
pub(super) struct Writer<W> {
    to: W,
    hasher: Sha256,
    bytes: u64,
    protocol: u64,
    application: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the head.
    pub(super) fn begin(to: W, header: &Header) -> io::Result<Self> {
        let mut writer = Self { to, hasher: Sha256::new(), bytes: 0, protocol: 0, application: 0 };
        let genesis = header.genesis.to_toml();
        let stored: StoredHeader = (genesis.as_bytes().into(), header.certificate.clone(), header.root);
        let header = encode(&stored).map_err(too_long)?;
        let prelude = prelude(length(header.len())?);
        writer.put(&[&prelude, &header])?;
        Ok(writer)
    }

    /// Writes entries that follow those before; the protocol's come first.
    pub(super) fn chunk(&mut self, map: Map, entries: List<Entry, PART_ENTRIES_MAX>) -> io::Result<()> {
        let (kind, count) = match map {
            Map::Protocol => (Kind::Protocol, &mut self.protocol),
            Map::Application => (Kind::Application, &mut self.application),
        };
        *count += entries.len() as u64;
        let encoded = encode(&entries).map_err(too_long)?;
        let front = chunk_front(kind, length(encoded.len())?);
        self.put(&[&front, &encoded])
    }

    /// Writes the tail. Gives what was written to, and how many bytes it has.
    pub(super) fn end(mut self) -> io::Result<(W, u64)> {
        let digest = self.hasher.clone().finalize().into();
        let tail = Tail { protocol: self.protocol, application: self.application, digest };
        self.put(&[&[Kind::End.byte()], &tail.encode()])?;
        self.to.flush()?;
        Ok((self.to, self.bytes))
    }

    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes pieces, and their checksum after them.
    fn put(&mut self, pieces: &[&[u8]]) -> io::Result<()> {
        let mut crc = crc32fast::Hasher::new();
        for piece in pieces {
            crc.update(piece);
        }
        let crc = crc.finalize().to_le_bytes();
        for piece in pieces.iter().copied().chain([&crc[..]]) {
            self.hasher.update(piece);
            self.bytes += piece.len() as u64;
            self.to.write_all(piece)?;
        }
        Ok(())
    }
}

fn too_long(error: CodecError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

fn length(bytes: usize) -> io::Result<u32> {
    u32::try_from(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}
