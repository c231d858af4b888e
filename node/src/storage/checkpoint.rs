//! The checkpoint store: the state of a replica at its latest checkpoint (PROTOCOL §5, §9), in an embedded store.
//!
//! The state is two ordered maps from bytes to bytes, the application's and the protocol's own. A checkpoint is what
//! changed since the last one and becomes durable as a whole or not at all: a small one as a batch in the store's journal,
//! with one sync; a large one as tables of its own, which are named together, so that its bytes are written once instead
//! of twice. A [`Snapshot`] keeps the state of one checkpoint readable while later ones are stored, for as long as it
//! lives.
//!
//! ```text
//! folder
//!   state-<16 hexadecimal digits>    a database of fjall; the one with the highest number counts, others are removed
//!   state.new                        a state being received, or the first one being made; removed at the next start
//!   parts-<16 hexadecimal digits>    buckets fetched from peers, upon the checkpoint at that slot (`none` before the first);
//!                                    removed once another checkpoint is stored, at the next start or fetch
//!
//! database
//!   keyspace `state`: all that has to change together
//!     key `a`, 4 bytes of the digest of a key of the application, and that key    its value
//!     key `m`                              8 bytes sequence number, little endian; then what the caller gave as `meta`
//!     key `p` and a key of the protocol    its value
//!     key `l` and a bucket (in `parts-`)   its leaf; 4 bytes, big endian
//! ```
//!
//! A state received from peers is written to `state.new`, whole and synced with its checkpoint; then one rename makes it
//! the highest. A crash leaves either the old state or the new one.

mod folder;
mod journal;
mod reception;
mod snapshot;
mod staged;
mod state;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use self::folder::{list, parts_name, remove_folder, remove_other_parts, state_name, sync_folder, sync_tree};
pub use self::reception::Reception;
pub use self::snapshot::Snapshot;
pub use self::staged::{FoundBucket, Staged};
use self::state::{LARGE_BYTES, State, latest_change, own_length, state_key};
use super::disk::{Disk, FileSystem};
use bytes::Bytes;

/// Longest key, in bytes: as much as is handed to others.
pub const KEY_BYTES_MAX: usize = 32 << 10;

/// Longest value, in bytes: far below what the store takes, and it fits into a message.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

const RECEIVED: &str = "state.new";

/// One of the two maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Map {
    /// What the application keeps.
    Application,
    /// What the protocol keeps beside it: sessions, configuration.
    Protocol,
}

/// A change of a map: the key's new value, or `None` to remove it.
pub type Change = (Bytes, Option<Bytes>);

/// A key and its value.
pub type Entry = (Bytes, Bytes);

/// Which checkpoint a state belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latest {
    /// Its sequence number.
    pub sequence: u64,
    /// What the caller stored with it.
    pub meta: Bytes,
}

/// Why the store could not do what was asked. After an error of `apply` or `install` what the disk holds is unknown: the
/// process has to end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A call to the system failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done: a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The embedded store failed, or found its files damaged.
    #[error("the store in {} failed", folder.display())]
    Store {
        /// Folder of its database.
        folder: PathBuf,
        /// What it said.
        #[source]
        source: Box<fjall::Error>,
    },
    /// The record that names the checkpoint is too short.
    #[error("the record of the checkpoint in {} has {bytes} bytes", folder.display())]
    Meta {
        /// Folder of the database.
        folder: PathBuf,
        /// Length of the record.
        bytes: usize,
    },
    /// A key is empty or too long, or a value is too long. Nothing of what it came with was stored.
    #[error("an entry with a key of {key} and a value of {value} bytes cannot be stored")]
    Entry {
        /// Length of the key, in bytes.
        key: usize,
        /// Length of the value, in bytes.
        value: usize,
    },
    /// A checkpoint names a key twice. Nothing of it was stored.
    #[error("checkpoint {sequence} has two values for one key of {key} bytes")]
    Twice {
        /// The checkpoint.
        sequence: u64,
        /// Length of the key, in bytes.
        key: usize,
    },
    /// A checkpoint does not come after the latest one.
    #[error("checkpoint {found} cannot follow checkpoint {latest}")]
    NotLater {
        /// The latest one.
        latest: u64,
        /// The one given.
        found: u64,
    },
}

/// The state at the latest checkpoint.
#[derive(Debug)]
pub struct CheckpointStore {
    folder: PathBuf,
    state: Arc<State>,
    /// Number in the name of the database's folder.
    serial: u64,
    latest: Option<Latest>,
    /// From so many bytes on a checkpoint is written as tables.
    large_bytes: usize,
}

impl CheckpointStore {
    /// Opens the store in its folder, which is made if it is missing and whose owner holds a
    /// [`FolderLock`](super::FolderLock) above it. Removes what an interrupted [`install`](Self::install) left behind.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        Self::open_on(&FileSystem, folder)
    }

    fn open_on(disk: &dyn Disk, folder: &Path) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(|source| io_error("make", folder, source))?;
        if let Some(parent) = folder.parent() {
            sync_folder(parent)?;
        }
        remove_folder(&folder.join(RECEIVED))?;
        let mut serials = list(folder)?;
        let serial = match serials.pop() {
            Some(latest) => latest,
            None => begin(folder)?,
        };
        for older in serials {
            remove_folder(&folder.join(state_name(older)))?;
        }
        let path = folder.join(state_name(serial));
        journal::make_durable(disk, &path)?;
        // A name whose sync had failed is shown as well.
        sync_tree(&path)?;
        let state = Arc::new(State::open(path)?);
        sync_folder(folder)?;
        let latest = state.latest(&state.database.snapshot())?;
        remove_other_parts(folder, latest.as_ref().map(|latest| latest.sequence))?;
        Ok(Self { folder: folder.to_owned(), state, serial, latest, large_bytes: LARGE_BYTES })
    }

    /// The folder that it was opened in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The checkpoint that is stored; `None` before the first.
    pub fn latest(&self) -> Option<&Latest> {
        self.latest.as_ref()
    }

    /// Stores the checkpoint at `sequence`, later than the latest: what changed in each map since, a key at most once. All is
    /// durable when this returns, or none of it is stored. Blocks on the disk.
    pub fn apply(
        &mut self,
        sequence: u64,
        meta: &[u8],
        application: Vec<Change>,
        protocol: Vec<Change>,
    ) -> Result<(), Error> {
        if let Some(latest) = self.latest.as_ref().filter(|latest| sequence <= latest.sequence) {
            return Err(Error::NotLater { latest: latest.sequence, found: sequence });
        }
        let mut bytes = 0;
        for (key, value) in application.iter().chain(&protocol) {
            refuse_entry(key, value.as_deref().unwrap_or_default())?;
            bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        }
        let latest = Latest { sequence, meta: Bytes::copy_from_slice(meta) };
        let application = changes_of(Map::Application, application);
        let mut changes: Vec<Change> =
            application.chain([latest_change(&latest)]).chain(changes_of(Map::Protocol, protocol)).collect();
        in_order(&mut changes, sequence)?;
        let is_past_journal = bytes >= self.large_bytes && self.state.may_ingest()?;
        let stored = if is_past_journal { self.state.ingest(changes) } else { self.state.commit(changes) };
        self.state.checked(stored)?;
        self.latest = Some(latest);
        Ok(())
    }

    /// The state as it is now, which stays readable whatever is applied or installed later. While it lives, what it
    /// shows takes space on the disk.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        Snapshot::take(&self.state)
    }

    /// Buckets of a state that is fetched from peers, upon the state here, whose tree has this depth: also those that an
    /// earlier process left. One at a time.
    pub fn stage(&self, depth: u8) -> Result<Staged, Error> {
        Staged::open(self.folder.join(parts_name(self.base())), depth)
    }

    /// What an earlier process left there, if it left something that can be opened; nothing is left if all is to begin
    /// `afresh`.
    pub fn found_staged(&self, depth: u8, afresh: bool) -> Result<Option<Staged>, Error> {
        remove_other_parts(&self.folder, self.base())?;
        let path = self.folder.join(parts_name(self.base()));
        if afresh {
            remove_folder(&path)?;
        }
        if !path.is_dir() {
            return Ok(None);
        }
        match self.stage(depth) {
            Ok(staged) => Ok(Some(staged)),
            Err(error) => {
                // It spares a fetch and holds nothing else: a process may have ended while it made this, or it rotted.
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "what was fetched of a state cannot be opened: it is fetched again");
                remove_folder(&path)?;
                Ok(None)
            }
        }
    }

    fn base(&self) -> Option<u64> {
        self.latest.as_ref().map(|latest| latest.sequence)
    }

    /// Removes what was staged.
    pub fn forget_staged(&self, staged: Staged) -> Result<(), Error> {
        let path = staged.folder().to_owned();
        drop(staged);
        remove_folder(&path)
    }

    /// Begins to receive a whole state from elsewhere. What an earlier reception left is removed.
    pub fn receive(&self) -> Result<Reception, Error> {
        let path = self.folder.join(RECEIVED);
        remove_folder(&path)?;
        Reception::begin(path)
    }

    /// Replaces the whole state by a received one, the state of the checkpoint at `sequence`: also an earlier one, where the
    /// state here went astray. It is
    /// durable when this returns. Snapshots of the old state stay readable. Only the last begun reception can be installed.
    pub fn install(&mut self, received: Reception, sequence: u64, meta: &[u8]) -> Result<(), Error> {
        let latest = Latest { sequence, meta: Bytes::copy_from_slice(meta) };
        received.finish(&latest)?;
        let serial = self.serial.saturating_add(1);
        put_in_place(&self.folder, serial)?;
        let state = Arc::new(State::open(self.folder.join(state_name(serial)))?);
        self.state.obsolete.store(true, Ordering::Release);
        self.state = state;
        self.serial = serial;
        self.latest = Some(latest);
        Ok(())
    }
}

/// Makes the first state, which is empty. A crash on the way leaves none rather than a part of one.
fn begin(folder: &Path) -> Result<u64, Error> {
    const FIRST: u64 = 1;
    drop(State::open(folder.join(RECEIVED))?);
    put_in_place(folder, FIRST)?;
    Ok(FIRST)
}

/// Makes what was received the state with the number `serial`, durably.
fn put_in_place(folder: &Path, serial: u64) -> Result<(), Error> {
    let received = folder.join(RECEIVED);
    sync_tree(&received)?;
    fs::rename(&received, folder.join(state_name(serial))).map_err(|source| io_error("rename", &received, source))?;
    sync_folder(folder)
}

/// The changes of a map as changes of the whole state.
fn changes_of(map: Map, changes: Vec<Change>) -> impl Iterator<Item = Change> {
    changes.into_iter().map(move |(key, value)| (state_key(map, &key), value))
}

/// Sorts the changes by key, and refuses two of one key.
fn in_order(changes: &mut [Change], sequence: u64) -> Result<(), Error> {
    // Mostly they are in order, in runs: the stable sort only merges those.
    changes.sort_by(|(left, _), (right, _)| left.cmp(right));
    match changes.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => Err(Error::Twice { sequence, key: own_length(&pair[0].0) }),
        None => Ok(()),
    }
}

fn refuse_entry(key: &[u8], value: &[u8]) -> Result<(), Error> {
    let fits = (1..=KEY_BYTES_MAX).contains(&key.len()) && value.len() <= VALUE_BYTES_MAX;
    if fits { Ok(()) } else { Err(Error::Entry { key: key.len(), value: value.len() }) }
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { action, path: path.to_owned(), source }
}

fn store_error(folder: &Path, source: fjall::Error) -> Error {
    Error::Store { folder: folder.to_owned(), source: Box::new(source) }
}
