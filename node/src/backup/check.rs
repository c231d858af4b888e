//! Whether entries are the state that a quorum vouches for. What decides that is the protocol's own code, the same that a
//! replica uses for a state that it fetches. (PROTOCOL §5, §9)

use quorate_protocol::configuration::Parameters;
use quorate_protocol::message::Entry;
use quorate_protocol::replica::ProtocolSummary;
use quorate_protocol::state::{DEPTH, Index};

use super::Header;
use super::order::{Order, Refused};
use crate::storage::checkpoint::{KEY_BYTES_MAX, Map, VALUE_BYTES_MAX};

/// The protocol's entries that are no sessions.
const OWN_ENTRIES: u64 = 64;

/// What a session takes besides its replies, and a reply besides its results, at most, in bytes.
const SESSION_BYTES: u64 = 256;
const REPLY_BYTES: u64 = 64;

/// Why entries are not the state that they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidState {
    /// The protocol's entries come first.
    #[error("an entry of the protocol stands after those of the application")]
    Order,
    /// A key is not greater than the one before.
    #[error("the keys of its entries are not in order")]
    Keys,
    /// It takes more than it may.
    #[error("its entries take more than {bytes_max} bytes")]
    TooLarge {
        /// The most that they may take, 64 bytes counted for each besides its own.
        bytes_max: u64,
    },
    /// An entry that no replica stores.
    #[error("an entry has a key of {key} and a value of {value} bytes, which none may have")]
    Entry {
        /// Length of the key.
        key: usize,
        /// Length of the value.
        value: usize,
    },
    /// The protocol's entries are no state of this cluster.
    #[error("its sessions are not a state of this cluster")]
    Protocol,
    /// The entries have another root.
    #[error("its entries are not the state that the cluster vouched for")]
    Root,
}

/// A state that is being checked. What it holds in memory is the digests of the application's entries and the protocol's
/// own part, as a replica's does.
pub(super) struct Check {
    header: Header,
    order: Order,
    index: Index,
    /// Bound: `protocol_bytes_left` at the beginning.
    protocol: Vec<Entry>,
    entries: u64,
    bytes: u64,
    protocol_bytes_left: u64,
}

/// What was found in a state that is the certified one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checked {
    pub(super) protocol: ProtocolSummary,
    /// Entries of the application.
    pub(super) entries: u64,
    /// Bytes of their keys and values.
    pub(super) bytes: u64,
}

impl Check {
    /// Begins with nothing. The entries may take `bytes_max` bytes, 64 counted for each besides its own.
    pub(super) fn new(header: Header, bytes_max: u64) -> Self {
        let (order, index) = (Order::new(bytes_max), Index::new(DEPTH));
        let protocol_bytes_left = protocol_bytes_max(header.genesis.configuration().parameters());
        Self { header, order, index, protocol: Vec::new(), entries: 0, bytes: 0, protocol_bytes_left }
    }

    /// Takes the next entries.
    ///
    /// # Errors
    /// [`InvalidState`]: the state is none, whatever follows.
    pub(super) fn admit(&mut self, map: Map, entries: &[Entry]) -> Result<(), InvalidState> {
        let (protocol, application): (&[Entry], &[Entry]) = match map {
            Map::Protocol if self.entries > 0 => return Err(InvalidState::Order),
            Map::Protocol => (entries, &[]),
            Map::Application => (&[], entries),
        };
        let fits =
            |entry: &&Entry| (1..=KEY_BYTES_MAX).contains(&entry.key.len()) && entry.value.len() <= VALUE_BYTES_MAX;
        if let Some(Entry { key, value }) = entries.iter().find(|entry| !fits(entry)) {
            return Err(InvalidState::Entry { key: key.len(), value: value.len() });
        }
        self.order.admit(protocol, application).map_err(|refused| match refused {
            Refused::Order => InvalidState::Keys,
            Refused::Bytes { bytes_max } => InvalidState::TooLarge { bytes_max },
        })?;
        for entry in protocol {
            let bytes = (entry.key.len() + entry.value.len()) as u64;
            self.protocol_bytes_left = self.protocol_bytes_left.checked_sub(bytes).ok_or(InvalidState::Protocol)?;
            self.protocol.push(entry.clone());
        }
        for Entry { key, value } in application {
            self.index.add(key, value);
            self.entries += 1;
            self.bytes += (key.len() + value.len()) as u64;
        }
        Ok(())
    }

    /// Nothing follows.
    ///
    /// # Errors
    /// [`InvalidState`], unless what was taken is the certified state.
    pub(super) fn finish(mut self) -> Result<Checked, InvalidState> {
        let Header { genesis, root, .. } = &self.header;
        let protocol = ProtocolSummary::of(genesis.configuration(), &self.protocol).ok_or(InvalidState::Protocol)?;
        if self.index.finish() != root.application || protocol.digest != root.protocol {
            return Err(InvalidState::Root);
        }
        Ok(Checked { protocol, entries: self.entries, bytes: self.bytes })
    }

    /// Entries of the application so far.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }
}

/// The most that the protocol's entries take: of each session a few numbers for each reply that it keeps, and the results.
fn protocol_bytes_max(parameters: &Parameters) -> u64 {
    let sessions = u64::from(parameters.sessions_max) + OWN_ENTRIES;
    let numbers = u64::from(parameters.outstanding_max) * REPLY_BYTES + SESSION_BYTES;
    sessions * numbers + 2 * parameters.reply_cache_bytes_max
}
