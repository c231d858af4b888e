//! The digests of a map's entries as of one checkpoint, under a Merkle root.

use alloc::vec::Vec;
use core::fmt;
use core::hash::{Hash, Hasher as StdHasher};

use bytes::Bytes;
use quorate_crypto::Digest;
use quorate_crypto::merkle::Tree;

use super::buckets::Buckets;
use super::proof::{BucketTooFull, Fingerprint, Proof, bucket_index, bucket_leaf, key_digest, value_digest};
use crate::application::Change;
use crate::codec::{Blob, List};

/// What a root is made of: the digests of all keys and values, in buckets, under a Merkle tree. It follows its map from
/// checkpoint to checkpoint, and in between stays as it is.
#[derive(Clone)]
pub struct Index {
    /// By the first bits of the keys' digests, in ascending order. Exactly 2^depth.
    buckets: Buckets,
    tree: Tree,
    /// The root of `tree`.
    root: Digest,
}

/// A changed entry on its way into its bucket.
struct Update {
    key: Digest,
    value: Option<Digest>,
    /// Its place among the changes.
    place: usize,
}

impl Index {
    /// That of a map without entries, with 2^`depth` buckets: 88 bytes each, once there is something near it. The depth is
    /// part of what the root means.
    ///
    /// # Panics
    /// If `depth` is greater than [`quorate_crypto::merkle::DEPTH_MAX`].
    pub fn new(depth: u8) -> Self {
        let mut tree = Tree::new(depth);
        Self { buckets: Buckets::new(depth), root: tree.root(), tree }
    }

    /// The root as of the last checkpoint.
    pub const fn root(&self) -> Digest {
        self.root
    }

    /// The nodes of one level of the tree, from left to right: the root at level 0, the leaves at [`Index::depth`].
    ///
    /// # Panics
    /// If there is no such level.
    pub fn row(&self, level: u8) -> Vec<Digest> {
        self.tree.row(level)
    }

    /// How many bits of a key's digest name its bucket.
    pub const fn depth(&self) -> u8 {
        self.tree.depth()
    }

    /// Brings the root up to a checkpoint, and gives those of the changes that are any, in ascending order of their keys: a
    /// key that holds again what it held is none. Each key is expected once.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Vec<Change> {
        let changes = changes.into_iter();
        let mut changes: Vec<Option<Change>> = changes.map(Some).collect();
        let updates = changes.iter().flatten().enumerate().map(|(place, (key, value))| Update {
            key: key_digest(key),
            value: value.as_deref().map(value_digest),
            place,
        });
        let mut updates: Vec<Update> = updates.collect();
        updates.sort_unstable_by_key(|update| update.key);
        let depth = self.tree.depth();
        let bucket_of = |update: &Update| bucket_index(&update.key, depth);
        for updates in updates.chunk_by(|left, right| bucket_of(left) == bucket_of(right)) {
            self.update_bucket(bucket_of(&updates[0]), updates, &mut changes);
        }
        self.root = self.tree.root();
        let mut changes: Vec<Change> = changes.into_iter().flatten().collect();
        changes.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        changes
    }

    /// Brings one bucket and its leaf up to date, and strikes out what changes nothing. Linear, however many entries a client
    /// has crowded into it.
    fn update_bucket(&mut self, index: u32, updates: &[Update], changes: &mut [Option<Change>]) {
        let known = self.buckets.get(index);
        let is_new = |update: &&Update| {
            let found = known.binary_search_by_key(&update.key, |known| known.key).ok();
            found.map(|found| known[found].value) != update.value
        };
        let mut news: Vec<&Update> = Vec::with_capacity(updates.len());
        for update in updates {
            if is_new(&update) {
                news.push(update);
            } else {
                changes[update.place] = None;
            }
        }
        if news.is_empty() {
            return;
        }
        let bucket = self.buckets.get_mut(index);
        bucket.retain(|known| news.binary_search_by_key(&known.key, |update| update.key).is_err());
        let missing = news.len().saturating_sub(bucket.capacity() - bucket.len());
        if missing > 0 {
            bucket.reserve_exact(news.len() + bucket.len() / 8);
        }
        bucket.extend(news.iter().filter_map(|update| Some(Fingerprint { key: update.key, value: update.value? })));
        // Two ascending runs at most: the sort merges them.
        bucket.sort();
        self.tree.set(index, bucket_leaf(bucket));
    }

    /// Its tree alone, which shares with it what neither changes.
    pub fn tree(&self) -> Tree {
        self.tree.clone()
    }

    /// Takes in an entry of a state that is being restored, each key once; the root follows in [`Self::finish`].
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        let fingerprint = Fingerprint { key: key_digest(key), value: value_digest(value) };
        self.buckets.get_mut(bucket_index(&fingerprint.key, self.tree.depth())).push(fingerprint);
    }

    /// Gives the root of all that was added to an empty index.
    pub fn finish(&mut self) -> Digest {
        for index in self.buckets.filled() {
            let bucket = self.buckets.get_mut(index);
            bucket.sort_unstable();
            bucket.shrink_to_fit();
            self.tree.set(index, bucket_leaf(bucket));
        }
        self.root = self.tree.root();
        self.root
    }

    /// Shows that `key` held `value` at the last checkpoint, whose root is [`Index::root`]. The proof is worth nothing if it
    /// did not.
    ///
    /// # Errors
    /// [`BucketTooFull`].
    pub fn prove(&self, key: &[u8], value: Option<Bytes>) -> Result<Proof, BucketTooFull> {
        let index = bucket_index(&key_digest(key), self.tree.depth());
        let bucket = List::new(self.buckets.get(index).clone()).ok_or(BucketTooFull)?;
        Ok(Proof::new(value.map(Blob::from), bucket, self.tree.path(index)))
    }

    #[cfg(test)]
    pub(super) fn bucket_len(&self, index: u32) -> usize {
        self.buckets.get(index).len()
    }
}

impl PartialEq for Index {
    fn eq(&self, other: &Self) -> bool {
        (self.tree.depth(), self.root) == (other.tree.depth(), other.root)
    }
}

impl Eq for Index {}

impl Hash for Index {
    fn hash<H: StdHasher>(&self, state: &mut H) {
        self.root.hash(state);
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Index").field("root", &self.root).finish_non_exhaustive()
    }
}
