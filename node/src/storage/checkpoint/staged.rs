//! Buckets of a state that is fetched from peers, until all are here (PROTOCOL §9): what was fetched before a crash need not
//! be fetched again.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fjall::{PersistMode, Readable as _};

use super::state::{State, bucket_range, end, own_key, prefix, state_key};
use super::{Entry, Error, Map, refuse_entry};

/// What the keys of the leaves begin with, in the same keyspace; the bucket follows, big endian.
const LEAF: u8 = b'l';

/// Bytes of a leaf.
const LEAF_BYTES: usize = 32;

/// A bucket of which it is not known yet whether it is still what was fetched.
#[derive(Debug)]
pub struct FoundBucket {
    /// The bucket.
    pub number: u32,
    /// The leaf that it had.
    pub leaf: [u8; LEAF_BYTES],
    /// What it holds.
    pub entries: Vec<Entry>,
}

/// Buckets upon the state of a checkpoint. Nothing of it is synced: whoever goes on with what an earlier process left checks
/// it.
#[derive(Debug)]
pub struct Staged {
    state: State,
    depth: u8,
    /// The buckets that are here. Bound: as many as the tree has.
    numbers: BTreeSet<u32>,
}

impl Staged {
    pub(super) fn open(folder: PathBuf, depth: u8) -> Result<Self, Error> {
        let state = State::open(folder)?;
        let mut staged = Self { state, depth, numbers: BTreeSet::new() };
        staged.numbers = staged.leaves()?.into_iter().map(|(number, _)| number).collect();
        Ok(staged)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.state.folder
    }

    /// The buckets that are here.
    pub const fn numbers(&self) -> &BTreeSet<u32> {
        &self.numbers
    }

    /// What an earlier process left of each bucket.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn found(&self) -> Result<Vec<FoundBucket>, Error> {
        let mut found = Vec::new();
        for (number, leaf) in self.leaves()? {
            let entries = self.entries_of(number).collect::<Result<_, _>>()?;
            found.push(FoundBucket { number, leaf, entries });
        }
        Ok(found)
    }

    /// Puts buckets in the place of what they held, each with its leaf.
    pub fn replace(&mut self, buckets: Vec<FoundBucket>) -> Result<(), Error> {
        let mut batch = self.state.database.batch();
        for FoundBucket { number, leaf, entries } in buckets {
            if self.numbers.contains(&number) {
                for entry in self.entries_of(number) {
                    batch.remove(&self.state.keyspace, state_key(Map::Application, &entry?.0));
                }
            }
            for (key, value) in entries {
                refuse_entry(&key, &value)?;
                batch.insert(&self.state.keyspace, state_key(Map::Application, &key), value);
            }
            batch.insert(&self.state.keyspace, leaf_key(number), Bytes::copy_from_slice(&leaf));
            self.numbers.insert(number);
        }
        self.state.checked(self.state.write(batch))?;
        // To the system, which keeps it when this process ends.
        self.state.checked(self.state.database.persist(PersistMode::Buffer))
    }

    /// Forgets a bucket.
    pub fn forget(&mut self, number: u32) -> Result<(), Error> {
        let mut batch = self.state.database.batch();
        for entry in self.entries_of(number) {
            batch.remove(&self.state.keyspace, state_key(Map::Application, &entry?.0));
        }
        batch.remove(&self.state.keyspace, leaf_key(number));
        self.numbers.remove(&number);
        self.state.checked(self.state.write(batch))
    }

    /// All entries that are here.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry, Error>> {
        let prefix = Bytes::from_static(prefix(Map::Application));
        self.range(prefix, Bytes::from_static(end(Map::Application)))
    }

    fn entries_of(&self, number: u32) -> impl Iterator<Item = Result<Entry, Error>> {
        let (begin, end) = bucket_range(number, self.depth);
        self.range(begin, end)
    }

    fn range(&self, begin: Bytes, end: Bytes) -> impl Iterator<Item = Result<Entry, Error>> {
        let range = (Bound::Included(begin), Bound::Excluded(end));
        let found = self.state.database.snapshot().range::<Bytes, _>(&self.state.keyspace, range);
        found.map(|guard| {
            let (key, value) = self.state.checked(guard.into_inner())?;
            Ok((own_key(Map::Application, &key), Bytes::copy_from_slice(&value)))
        })
    }

    fn leaves(&self) -> Result<Vec<(u32, [u8; LEAF_BYTES])>, Error> {
        let range = (Bound::Included(Bytes::from_static(&[LEAF])), Bound::Excluded(Bytes::from_static(&[LEAF + 1])));
        let snapshot = self.state.database.snapshot();
        let found = snapshot.range::<Bytes, _>(&self.state.keyspace, range);
        let mut leaves = Vec::new();
        for guard in found {
            let (key, leaf) = self.state.checked(guard.into_inner())?;
            let number = key.get(1..).and_then(|number| number.try_into().ok()).map(u32::from_be_bytes);
            if let (Some(number), Ok(leaf)) = (number, leaf.as_ref().try_into()) {
                leaves.push((number, leaf));
            }
        }
        Ok(leaves)
    }
}

fn leaf_key(number: u32) -> Bytes {
    Bytes::from([&[LEAF][..], &number.to_be_bytes()].concat())
}
