//! One database of the store: how it is opened, and how much memory and disk it may take beside the state itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use fjall::AbstractTree as _;
use fjall::compaction::Leveled;
use fjall::config::{BlockSizePolicy, CompressionPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Readable as _};

use quorate_protocol::state::{place_of, places_of};

use super::folder::remove_folder;
use super::journal;
use super::{Change, Error, Latest, Map, store_error};

/// Blocks kept in memory, in bytes.
const CACHE_BYTES: u64 = 8 << 20;

/// Changes of a map kept in memory before they are written to a table, in bytes.
const MEMTABLE_BYTES: u64 = LARGE_BYTES as u64;

/// From so many bytes on a checkpoint goes into tables at once: it would fill what is kept in memory anyway.
pub(super) const LARGE_BYTES: usize = 8 << 20;

/// Checkpoints are merged with what lies below them once there are so many: together they are about as large as a state of
/// some hundred megabytes, so that each changed byte is written about three times. Bound: the store slows writers down at
/// twenty.
const MERGED_TABLES: u8 = 12;

/// From so many checkpoints on that were not merged yet a writer waits. Below what the store waits at, by as many as may come
/// before it looks.
const UNMERGED_MAX: usize = 24;

/// How long until a writer that waits looks again.
const MERGING_RETRY: Duration = Duration::from_millis(10);

/// The store's own journal may grow to this before tables are written, in bytes. The least it takes, and what it is
/// allocated with.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;

/// The key of the record that names the checkpoint.
const LATEST_KEY: &[u8] = b"m";

/// An open database.
pub(super) struct State {
    pub(super) keyspace: Keyspace,
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
        journal::mend(&folder)?;
        let (database, keyspace) = Self::open_database(&folder).map_err(|source| store_error(&folder, source))?;
        Ok(Self { keyspace, database, folder, obsolete: AtomicBool::new(false) })
    }

    fn open_database(folder: &Path) -> fjall::Result<(Database, Keyspace)> {
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
                .compaction_strategy(Arc::new(Leveled::default().with_l0_threshold(MERGED_TABLES)))
                .data_block_size_policy(BlockSizePolicy::all(16 << 10))
                .data_block_compression_policy(CompressionPolicy::disabled())
        };
        let keyspace = database.keyspace("state", options)?;
        Ok((database, keyspace))
    }

    /// Stores changes together by way of the journal; durable when this returns.
    pub(super) fn commit(&self, changes: Vec<Change>) -> fjall::Result<()> {
        let mut batch = OwnedWriteBatch::with_capacity(self.database.clone(), changes.len());
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(&self.keyspace, key, value),
                None => batch.remove(&self.keyspace, key),
            }
        }
        self.write(batch.durability(Some(PersistMode::SyncData)))
    }

    /// Writes a batch to the journal.
    pub(super) fn write(&self, batch: OwnedWriteBatch) -> fjall::Result<()> {
        self.wait_for_merging()?;
        batch.commit()
    }

    /// Waits as long as the store merges, if there are many tables to merge. It holds a writer up where there are thirty, and
    /// for ever if merging fails then.
    fn wait_for_merging(&self) -> fjall::Result<()> {
        while self.keyspace.tree.l0_run_count() >= UNMERGED_MAX && self.database.active_compactions() > 0 {
            // Fails if the store's own thread has.
            self.database.persist(PersistMode::Buffer)?;
            thread::sleep(MERGING_RETRY);
        }
        Ok(())
    }

    /// Whether changes may be stored past the journal. That empties the memory in which the store collects what stands in
    /// its journal, and the store looks after the journal only when that memory fills up: so from time to time, it must.
    pub(super) fn may_ingest(&self) -> Result<bool, Error> {
        Ok(self.checked(self.database.journal_disk_space())? <= JOURNAL_BYTES_MAX)
    }

    /// Stores changes in ascending order of their keys, no two of one key, as tables. These are synced, and then become part
    /// of the state together, by the durable replacement of the file that lists the tables.
    pub(super) fn ingest(&self, changes: Vec<Change>) -> fjall::Result<()> {
        // A store whose own thread failed says so only to those who write to its journal.
        self.database.persist(PersistMode::Buffer)?;
        let mut ingestion = self.keyspace.start_ingestion()?;
        for (key, value) in changes {
            match value {
                Some(value) => ingestion.write(key, value)?,
                None => ingestion.write_tombstone(key)?,
            }
        }
        ingestion.finish()
    }

    pub(super) fn latest(&self, snapshot: &fjall::Snapshot) -> Result<Option<Latest>, Error> {
        let Some(record) = self.checked(snapshot.get(&self.keyspace, LATEST_KEY))? else { return Ok(None) };
        let Some((sequence, meta)) = record.split_first_chunk() else {
            return Err(Error::Meta { folder: self.folder.clone(), bytes: record.len() });
        };
        Ok(Some(Latest { sequence: u64::from_le_bytes(*sequence), meta: Bytes::copy_from_slice(meta) }))
    }

    pub(super) fn checked<T>(&self, result: fjall::Result<T>) -> Result<T, Error> {
        result.map_err(|source| store_error(&self.folder, source))
    }
}

/// The key of the whole state under which an entry of a map stands. The application's stand in the order in which they are
/// handed to others, so that a bucket of them is a range.
pub(super) fn state_key(map: Map, key: &[u8]) -> Bytes {
    match map {
        Map::Application => Bytes::from([prefix(map), &place_of(key), key].concat()),
        Map::Protocol => Bytes::from([prefix(map), key].concat()),
    }
}

/// The key of an entry of a map, from that of the whole state.
pub(super) fn own_key(map: Map, key: &[u8]) -> Bytes {
    Bytes::copy_from_slice(key.get(front_length(map)..).unwrap_or_default())
}

/// The length of that key.
pub(super) fn own_length(key: &[u8]) -> usize {
    let map = if key.starts_with(prefix(Map::Application)) { Map::Application } else { Map::Protocol };
    key.len().saturating_sub(front_length(map))
}

/// Bytes before it.
const fn front_length(map: Map) -> usize {
    const PLACE_BYTES: usize = 4;
    match map {
        Map::Application => prefix(map).len() + PLACE_BYTES,
        Map::Protocol => prefix(map).len(),
    }
}

/// Where the keys of the application's entries of a bucket begin in the whole state, and where they end.
pub(super) fn bucket_range(bucket: u32, depth: u8) -> (Bytes, Bytes) {
    let (begin, next) = places_of(bucket, depth);
    let key = |place: [u8; 4]| Bytes::from([prefix(Map::Application), &place].concat());
    (key(begin), next.map_or(Bytes::from_static(end(Map::Application)), key))
}

/// What the keys of a map begin with.
pub(super) const fn prefix(map: Map) -> &'static [u8] {
    match map {
        Map::Application => b"a",
        Map::Protocol => b"p",
    }
}

/// What all keys of a map are less than, and greater than its prefix.
pub(super) const fn end(map: Map) -> &'static [u8] {
    match map {
        Map::Application => b"b",
        Map::Protocol => b"q",
    }
}

/// The record that names the checkpoint.
pub(super) fn latest_change(latest: &Latest) -> Change {
    let record = [latest.sequence.to_le_bytes().as_slice(), &latest.meta].concat();
    (Bytes::from_static(LATEST_KEY), Some(Bytes::from(record)))
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
