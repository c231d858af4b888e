//! Backups: a stable checkpoint in one file, with all that proves it. (docs/formats.md, section 10)
//!
//! | file | holds |
//! | --- | --- |
//! | `backup/format.rs` | the bytes of the file |
//! | `backup/writer.rs`, `backup/reader.rs` | writing and reading it, a chunk at a time |
//! | `backup/check.rs` | whether entries are the state that a quorum vouches for |
//! | `backup/take.rs` | taking one from the replicas of a cluster that runs |
//! | `backup/partial.rs` | the file while it is written |
//! | `backup/restore.rs` | checking a file, and making a replica's data of it |
//!
//! Nothing in a file is believed: the certificate is checked with the genesis, and the root in it with all entries. Which
//! genesis is the right one the file cannot say: who restores compares it with that of the replica.

mod check;
mod format;
mod order;
mod partial;
mod reader;
mod restore;
mod take;
#[cfg(test)]
mod tests;
mod wants;
mod writer;

use std::fmt;
use std::path::PathBuf;

use quorate_protocol::certificate::StableCertificate;
use quorate_protocol::message::StateRoot;
use quorate_protocol::replica::state_root;
use serde::Serialize;

pub use self::check::InvalidState;
pub use self::reader::{FormatError, Reader};
pub use self::restore::{RestoreError, found, initial_state, restore, verify};
pub use self::take::{Options, Progress, TakeError, Taken, take};
use crate::certificates::is_stable;
use crate::configuration::Genesis;

/// What a backup is of, checked: the genesis is whole, and a quorum of its members vouches for the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    genesis: Genesis,
    certificate: StableCertificate,
    root: StateRoot,
}

impl Header {
    /// Checks what a replica or a file says.
    ///
    /// # Errors
    /// [`InvalidHeader`].
    pub fn new(genesis: Genesis, certificate: StableCertificate, root: StateRoot) -> Result<Self, InvalidHeader> {
        if !is_stable(genesis.configuration(), &certificate) {
            return Err(InvalidHeader::Certificate);
        }
        if state_root(&root) != certificate.statement.root {
            return Err(InvalidHeader::OtherState);
        }
        Ok(Self { genesis, certificate, root })
    }

    /// The genesis of its cluster.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// What proves it.
    pub fn certificate(&self) -> &StableCertificate {
        &self.certificate
    }

    /// What the certified root is made of.
    pub fn root(&self) -> &StateRoot {
        &self.root
    }
}

/// Why a checkpoint is not one of its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidHeader {
    /// The certificate is not one of this configuration, or its signatures are not valid.
    #[error("its certificate is not valid: no quorum of the cluster vouches for it")]
    Certificate,
    /// The root that is certified is made of something else.
    #[error("its certificate is that of another state")]
    OtherState,
}

/// What is in a backup that was checked to its last byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Content {
    /// The file.
    pub file: PathBuf,
    /// The cluster, in hexadecimal digits.
    pub cluster: String,
    /// The checkpoint's slot.
    pub sequence: u64,
    /// The epoch of the state.
    pub epoch: u64,
    /// The certified root, in hexadecimal digits.
    pub state_root: String,
    /// Entries of the application's state.
    pub entries: u64,
    /// Bytes of their keys and values.
    pub entry_bytes: u64,
    /// Sessions of clients.
    pub sessions: u64,
    /// When the last slot was ordered, in nanoseconds since 1970.
    pub time_ns: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

impl fmt::Display for Content {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, sequence, epoch, state_root, entries, entry_bytes, sessions, bytes, .. } = self;
        writeln!(formatter, "cluster     {cluster}")?;
        writeln!(formatter, "checkpoint  slot {sequence} of epoch {epoch}, root {state_root}")?;
        write!(formatter, "state       {entries} entries, {entry_bytes} bytes, {sessions} sessions; file {bytes} bytes")
    }
}
