//! One database of the store: how it is opened, and how much memory and disk it may take beside the state itself.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use fjall::config::{BlockSizePolicy, CompressionPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, Readable as _};

use super::folder::remove_folder;
use super::{Error, Latest, Map, store_error};

/// Blocks kept in memory, in bytes.
const CACHE_BYTES: u64 = 32 << 20;

/// Changes of a map kept in memory before they are written to a table, in bytes.
const MEMTABLE_BYTES: u64 = 8 << 20;

/// The store's own journal may grow to this before tables are written, in bytes. The least it takes.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;

const CHECKPOINT_KEY: &[u8] = b"checkpoint";

/// An open database.
pub(super) struct State {
    pub(super) application: Keyspace,
    pub(super) protocol: Keyspace,
    pub(super) meta: Keyspace,
    pub(super) database: Database,
    pub(super) folder: PathBuf,
    /// Another state took its place: the folder goes when nobody reads it any more.
    pub(super) obsolete: AtomicBool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("State").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl State {
    pub(super) fn open(folder: PathBuf) -> Result<Self, Error> {
        let opened = Self::open_keyspaces(&folder);
        let (database, [application, protocol, meta]) = opened.map_err(|source| store_error(&folder, source))?;
        Ok(Self { application, protocol, meta, database, folder, obsolete: AtomicBool::new(false) })
    }

    fn open_keyspaces(folder: &Path) -> fjall::Result<(Database, [Keyspace; 3])> {
        let database = Database::builder(folder)
            .cache_size(CACHE_BYTES)
            .journal_compression(CompressionType::None)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .manual_journal_persist(true)
            .worker_threads(1)
            .open()?;
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(MEMTABLE_BYTES)
                .data_block_size_policy(BlockSizePolicy::all(16 << 10))
                .data_block_compression_policy(CompressionPolicy::disabled())
        };
        let application = database.keyspace("application", options)?;
        let protocol = database.keyspace("protocol", options)?;
        let meta = database.keyspace("meta", options)?;
        Ok((database, [application, protocol, meta]))
    }

    pub(super) fn map(&self, map: Map) -> &Keyspace {
        match map {
            Map::Application => &self.application,
            Map::Protocol => &self.protocol,
        }
    }

    pub(super) fn latest(&self, snapshot: &fjall::Snapshot) -> Result<Option<Latest>, Error> {
        let Some(record) = self.checked(snapshot.get(&self.meta, CHECKPOINT_KEY))? else { return Ok(None) };
        let Some((sequence, meta)) = record.split_first_chunk() else {
            return Err(Error::Meta { folder: self.folder.clone(), bytes: record.len() });
        };
        Ok(Some(Latest { sequence: u64::from_le_bytes(*sequence), meta: Bytes::copy_from_slice(meta) }))
    }

    /// Adds the record that names the checkpoint.
    pub(super) fn put_latest(&self, batch: &mut OwnedWriteBatch, latest: &Latest) {
        let record = [latest.sequence.to_le_bytes().as_slice(), &latest.meta].concat();
        batch.insert(&self.meta, CHECKPOINT_KEY, record);
    }

    pub(super) fn checked<T>(&self, result: fjall::Result<T>) -> Result<T, Error> {
        result.map_err(|source| store_error(&self.folder, source))
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Acquire)
            && let Err(error) = remove_folder(&self.folder)
        {
            // The next start removes it.
            tracing::warn!(%error, "a replaced state stays on the disk");
        }
    }
}
