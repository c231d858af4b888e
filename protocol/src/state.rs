//! A map from byte keys to byte values under a Merkle root: what a checkpoint names. (PROTOCOL §5)
//!
//! The application's entries and the protocol's own lie in one of these each. A value is hashed when it is written, while
//! it is at hand; a checkpoint hashes the keys that were written since the last one, each once, and the buckets and nodes
//! above them.
//!
//! The root depends on the entries alone, not on how they came to be. The digest of a key decides its bucket, so keys
//! spread evenly; the leaf of a bucket is the digest of its entries' fingerprints in order, and so proves what is in
//! the bucket as well as what is not. Between two checkpoints the buckets stay as they are and the values that were
//! overwritten are kept, so what is proved is always the state at the last checkpoint, while writing goes on.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry as MapEntry;
use alloc::vec::Vec;
use core::fmt;
use core::hash::{Hash, Hasher as StdHasher};
use core::num::NonZeroUsize;
use core::ops::Bound;

use bytes::Bytes;
use quorate_crypto::Digest;
use quorate_crypto::merkle::Tree;

use crate::application::{Change, Image, NotAState};
use crate::message::Entry;

mod buckets;
mod key;
mod proof;

use buckets::Buckets;
use key::Key;
pub use proof::{BucketTooFull, InvalidProof, PROVABLE_ENTRIES_MAX, Proof};
use proof::{Fingerprint, bucket_index, bucket_leaf, key_digest, value_digest};

/// A map with a Merkle root. Equal maps behave equally; two of different histories and equal entries differ only in
/// what their next checkpoints report as changes.
#[derive(Clone)]
pub struct StateMap {
    /// All entries. The owner bounds their number and bytes.
    entries: BTreeMap<Key, Held>,
    /// Keys written since the last checkpoint that are no entries now, with their places in `touched`, counted from one.
    removed: BTreeMap<Key, NonZeroUsize>,
    /// The bytes of all keys and values.
    raw_bytes: u64,
    /// The keys written since the last checkpoint, in the order in which they first were. One for each key written.
    touched: Vec<Touched>,
    /// The entries of the last checkpoint by the first bits of their keys' digests, in ascending order. Exactly 2^depth.
    buckets: Buckets,
    tree: Tree,
    /// The root of `tree`, which is that of the last checkpoint.
    root: Digest,
}

/// What is known of an entry, so that a write searches for it once.
#[derive(Debug, Clone)]
struct Held {
    value: Bytes,
    /// Its place in `touched`, counted from one; none if it was not written since the last checkpoint.
    touched: Option<NonZeroUsize>,
}

/// A key that was written, what it held at the last checkpoint, and the digest of what it holds now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Touched {
    key: Key,
    before: Option<Bytes>,
    now: Option<Digest>,
}

/// A changed entry on its way into its bucket.
struct Update {
    key: Digest,
    value: Option<Digest>,
}

impl StateMap {
    /// A map without entries, with 2^`depth` buckets: 88 bytes each, once there is something near it. The depth is part of what the root means.
    ///
    /// # Panics
    /// If `depth` is greater than [`quorate_crypto::merkle::DEPTH_MAX`].
    pub fn new(depth: u8) -> Self {
        let mut tree = Tree::new(depth);
        Self {
            entries: BTreeMap::new(),
            removed: BTreeMap::new(),
            raw_bytes: 0,
            touched: Vec::new(),
            buckets: Buckets::new(depth),
            root: tree.root(),
            tree,
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes of all keys and values.
    pub const fn raw_bytes(&self) -> u64 {
        self.raw_bytes
    }

    /// The root at the last checkpoint, or after [`StateMap::restore`] or [`StateMap::new`] if that was later.
    pub const fn root(&self) -> Digest {
        self.root
    }

    /// The value of `key`, shared.
    pub fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.entries.get(key).map(|held| held.value.clone())
    }

    /// The bytes of the value of `key`.
    pub fn get_slice(&self, key: &[u8]) -> Option<&[u8]> {
        self.entries.get(key).map(|held| &held.value[..])
    }

    /// Sets the value of `key`, and says whether there was one. Both are copied: a slice of a batch would keep the whole
    /// batch in memory for as long as the entry lives.
    pub fn insert(&mut self, key: &[u8], value: &[u8]) -> bool {
        self.raw_bytes = self.raw_bytes.saturating_add(raw_bytes(key, value));
        let now = Some(value_digest(value));
        let value = Bytes::copy_from_slice(value);
        match self.entries.entry(Key::from(key)) {
            MapEntry::Occupied(mut entry) => {
                let held = entry.get_mut();
                let before = core::mem::replace(&mut held.value, value);
                self.raw_bytes = self.raw_bytes.saturating_sub(raw_bytes(key, &before));
                held.touched = touch(&mut self.touched, held.touched, key, Some(before), now);
                true
            }
            MapEntry::Vacant(entry) => {
                let place = self.removed.remove(key);
                let touched = touch(&mut self.touched, place, key, None, now);
                entry.insert(Held { value, touched });
                false
            }
        }
    }

    /// Removes `key` and its value, and says whether there was one.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let Some(Held { value: before, touched }) = self.entries.remove(key) else { return false };
        self.raw_bytes = self.raw_bytes.saturating_sub(raw_bytes(key, &before));
        if let Some(place) = touch(&mut self.touched, touched, key, Some(before), None) {
            self.removed.insert(Key::from(key), place);
        }
        true
    }

    /// All entries in ascending order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|(key, held)| (key.as_slice(), &held.value[..]))
    }

    /// The entries whose keys begin with `prefix` and lie after `after`, in ascending order.
    pub fn range(&self, prefix: &[u8], after: Option<&[u8]>) -> impl Iterator<Item = (&[u8], &[u8])> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            Some(_) | None => Bound::Included(prefix),
        };
        let candidates = self.entries.range::<[u8], _>((start, Bound::Unbounded));
        let pairs = candidates.map(|(key, held)| (key.as_slice(), &held.value[..]));
        pairs.take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// Brings the root up to date and gives it with the entries that differ from the checkpoint before, in ascending order
    /// of their keys.
    pub fn checkpoint(&mut self) -> Image {
        let (changes, mut updates) = self.take_changes();
        updates.sort_unstable_by_key(|update| update.key);
        let depth = self.tree.depth();
        for updates in updates.chunk_by(|left, right| bucket_index(&left.key, depth) == bucket_index(&right.key, depth))
        {
            self.update_bucket(bucket_index(&updates[0].key, depth), updates);
        }
        self.root = self.tree.root();
        Image { root: self.root, changes }
    }

    /// What differs from the last checkpoint, in ascending order of the keys, and what that means for the buckets, in the
    /// same order; forgets what was before.
    fn take_changes(&mut self) -> (Vec<Change>, Vec<Update>) {
        let mut touched = core::mem::take(&mut self.touched);
        touched.sort_unstable_by(|left, right| left.key.cmp(&right.key));
        let (mut changes, mut updates) = (Vec::with_capacity(touched.len()), Vec::with_capacity(touched.len()));
        for Touched { key, before, now: digest } in touched {
            let now = self.entries.get_mut(&key).map(|held| {
                held.touched = None;
                &held.value
            });
            if now != before.as_ref() {
                updates.push(Update { key: key_digest(key.as_slice()), value: digest });
                changes.push((Bytes::copy_from_slice(key.as_slice()), now.cloned()));
            }
        }
        self.removed.clear();
        (changes, updates)
    }

    /// Brings one bucket and its leaf up to date. Linear, however many entries a client has crowded into it.
    fn update_bucket(&mut self, index: u32, updates: &[Update]) {
        let bucket = self.buckets.get_mut(index);
        bucket.retain(|known| updates.binary_search_by_key(&known.key, |update| update.key).is_err());
        let missing = updates.len().saturating_sub(bucket.capacity() - bucket.len());
        if missing > 0 {
            bucket.reserve_exact(updates.len() + bucket.len() / 8);
        }
        bucket.extend(updates.iter().filter_map(|update| Some(Fingerprint { key: update.key, value: update.value? })));
        // Two ascending runs at most: the sort merges them.
        bucket.sort();
        self.tree.set(index, bucket_leaf(bucket));
    }

    /// Replaces all entries by `entries`, in ascending order of their keys, and gives the root. The next checkpoint's
    /// changes count from here.
    ///
    /// # Errors
    /// [`NotAState`] if the order is not ascending: the map is then empty.
    pub fn restore(&mut self, entries: &mut dyn Iterator<Item = Entry>) -> Result<Digest, NotAState> {
        self.restore_checked(entries, |_| Ok(()))
    }

    /// The same, of entries that `check` must approve one by one before they are kept.
    ///
    /// # Errors
    /// [`NotAState`] with the reason that `check` gave too.
    pub fn restore_checked(
        &mut self,
        entries: &mut dyn Iterator<Item = Entry>,
        check: impl FnMut(&Entry) -> Result<(), &'static str>,
    ) -> Result<Digest, NotAState> {
        *self = Self::new(self.tree.depth());
        if let Err(error) = self.fill(entries, check) {
            *self = Self::new(self.tree.depth());
            return Err(error);
        }
        for index in self.buckets.filled() {
            let bucket = self.buckets.get_mut(index);
            bucket.sort_unstable();
            bucket.shrink_to_fit();
            self.tree.set(index, bucket_leaf(bucket));
        }
        self.root = self.tree.root();
        Ok(self.root)
    }

    /// Takes in the entries and puts their fingerprints into their buckets, unsorted.
    fn fill(
        &mut self,
        entries: &mut dyn Iterator<Item = Entry>,
        mut check: impl FnMut(&Entry) -> Result<(), &'static str>,
    ) -> Result<(), NotAState> {
        let depth = self.tree.depth();
        let mut previous: Option<Bytes> = None;
        let entries = (0..).zip(entries).map(|(index, entry)| {
            check(&entry).map_err(|reason| NotAState { index, reason })?;
            if previous.as_ref().is_some_and(|previous| previous[..] >= entry.key[..]) {
                return Err(NotAState { index, reason: "its key is not greater than the one before" });
            }
            self.raw_bytes = self.raw_bytes.saturating_add(raw_bytes(&entry.key, &entry.value));
            let fingerprint = Fingerprint { key: key_digest(&entry.key), value: value_digest(&entry.value) };
            self.buckets.get_mut(bucket_index(&fingerprint.key, depth)).push(fingerprint);
            let held = Held { value: Bytes::copy_from_slice(&entry.value), touched: None };
            let copy = (Key::from(&entry.key[..]), held);
            previous = Some(entry.key.into_bytes());
            Ok(copy)
        });
        self.entries = entries.collect::<Result<_, _>>()?;
        Ok(())
    }

    /// What `key` held at the last checkpoint.
    fn get_at_checkpoint(&self, key: &[u8]) -> Option<Bytes> {
        let held = self.entries.get(key);
        let place = held.map_or_else(|| self.removed.get(key).copied(), |held| held.touched);
        match place.and_then(|place| self.touched.get(place.get() - 1)) {
            Some(touched) => touched.before.clone(),
            None => held.map(|held| held.value.clone()),
        }
    }

    /// What was written since the last checkpoint, whatever the order in which it was.
    fn touched_in_order(&self) -> Vec<&Touched> {
        let mut touched: Vec<&Touched> = self.touched.iter().collect();
        touched.sort_unstable();
        touched
    }
}

/// Remembers the digest of what a write to `key` left there, and what it found there if it is the first since the
/// checkpoint, which has no `place` yet. Gives the place, counted from one.
fn touch(
    touched: &mut Vec<Touched>,
    place: Option<NonZeroUsize>,
    key: &[u8],
    before: Option<Bytes>,
    now: Option<Digest>,
) -> Option<NonZeroUsize> {
    if let Some(known) = place.and_then(|place| touched.get_mut(place.get() - 1)) {
        known.now = now;
        return place;
    }
    touched.push(Touched { key: Key::from(key), before, now });
    NonZeroUsize::new(touched.len())
}

const fn raw_bytes(key: &[u8], value: &[u8]) -> u64 {
    key.len() as u64 + value.len() as u64
}

impl PartialEq for StateMap {
    fn eq(&self, other: &Self) -> bool {
        self.tree.depth() == other.tree.depth()
            && self.root == other.root
            && self.iter().eq(other.iter())
            && self.touched_in_order() == other.touched_in_order()
    }
}

impl Eq for StateMap {}

impl Hash for StateMap {
    fn hash<H: StdHasher>(&self, state: &mut H) {
        self.root.hash(state);
        // The root stands for the entries of the last checkpoint, so only what was written since is added.
        let touched = self.touched_in_order();
        touched.hash(state);
        let values: Vec<Option<&[u8]>> = touched.iter().map(|touched| self.get_slice(touched.key.as_slice())).collect();
        values.hash(state);
    }
}

impl fmt::Debug for StateMap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("StateMap")
            .field("entries", &self.len())
            .field("raw_bytes", &self.raw_bytes)
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;
    use std::string::ToString;

    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::Strategy;
    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::codec::Blob;

    type Model = BTreeMap<Vec<u8>, Vec<u8>>;
    type Write = (Vec<u8>, Option<Vec<u8>>);

    fn write(map: &mut StateMap, model: &mut Model, key: &[u8], value: Option<&[u8]>) {
        let before = match value {
            Some(value) => model.insert(key.to_vec(), value.to_vec()),
            None => model.remove(key),
        };
        let was_there = match value {
            Some(value) => map.insert(key, value),
            None => map.remove(key),
        };
        assert_eq!(was_there, before.is_some());
    }

    fn restored(depth: u8, model: &Model) -> StateMap {
        let mut map = StateMap::new(depth);
        let mut entries = model.iter().map(|(key, value)| entry(key, value));
        map.restore(&mut entries).expect("a model is in order");
        map
    }

    fn entry(key: &[u8], value: &[u8]) -> Entry {
        Entry { key: Blob::from(key), value: Blob::from(value) }
    }

    /// What differs between two models, in order.
    fn difference(old: &Model, new: &Model) -> Vec<Write> {
        let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        let changed = keys.into_iter().filter(|key| old.get(*key) != new.get(*key));
        changed.map(|key| (key.clone(), new.get(key).cloned())).collect()
    }

    /// Rounds of writes with a checkpoint after each, few keys, few values.
    fn rounds() -> impl Strategy<Value = Vec<Vec<Write>>> {
        let key = vec(proptest::sample::select(&[0_u8, 1, 0xff][..]), 0..4);
        vec(vec((key, option::weighted(0.7, vec(0..3_u8, 0..3))), 0..30), 1..6)
    }

    proptest! {
        #[test]
        fn each_checkpoint_tells_what_differs_and_its_root_is_that_of_a_map_restored(
            rounds in rounds(), depth in 0..6_u8,
        ) {
            let (mut map, mut model, mut old) = (StateMap::new(depth), Model::new(), Model::new());
            for round in rounds {
                for (key, value) in round {
                    write(&mut map, &mut model, &key, value.as_deref());
                }
                let image = map.checkpoint();
                let changes: Vec<_> = image.changes.iter().map(|(k, v)| (k.to_vec(), v.as_ref().map(|v| v.to_vec()))).collect();
                prop_assert_eq!(changes, difference(&old, &model));
                prop_assert!(map.iter().eq(model.iter().map(|(key, value)| (&key[..], &value[..]))));
                let restored = restored(depth, &model);
                prop_assert_eq!(&restored, &map);
                prop_assert_eq!((restored.root(), restored.raw_bytes()), (image.root, map.raw_bytes()));
                prop_assert_eq!(restored.clone().checkpoint(), Image { root: image.root, changes: Vec::new() });
                old = model.clone();
            }
        }

        #[test]
        fn a_range_is_what_begins_with_the_prefix_and_lies_after(
            rounds in rounds(), prefix in vec(proptest::sample::select(&[0_u8, 1, 0xff][..]), 0..3),
            after in option::of(vec(proptest::sample::select(&[0_u8, 1, 0xff][..]), 0..4)),
        ) {
            let (mut map, mut model) = (StateMap::new(3), Model::new());
            for (key, value) in rounds.into_iter().flatten() {
                write(&mut map, &mut model, &key, value.as_deref());
            }
            let expected = model.iter().filter(|(key, _)| {
                key.starts_with(&prefix) && after.as_ref().is_none_or(|after| *key > after)
            });
            prop_assert!(map.range(&prefix, after.as_deref()).eq(expected.map(|(key, value)| (&key[..], &value[..]))));
        }
    }

    #[test]
    fn the_root_of_a_small_state_never_changes() {
        let mut map = StateMap::new(4);
        assert_eq!(map.root().to_string(), "766d4ac4f3fd6e7212f680ef78555afaa72563faf74f0a7f28243650b92d296e");
        map.insert(b"apple", b"red");
        map.insert(b"banana", b"yellow");
        map.insert(b"cherry", b"");
        for number in 0..100_u32 {
            map.insert(&number.to_le_bytes(), &number.to_be_bytes());
        }
        assert_eq!(
            map.checkpoint().root.to_string(),
            "1d712322234ec647e5187cdafaa25b744679782a1e74a144394715092436efbf"
        );
    }

    #[test]
    fn the_root_does_not_tell_in_which_order_or_by_which_detours_the_entries_came() {
        let mut straight = StateMap::new(8);
        let mut detour = StateMap::new(8);
        for number in 0..500_u32 {
            straight.insert(&number.to_le_bytes(), b"value");
        }
        for number in (0..1000_u32).rev() {
            detour.insert(&number.to_le_bytes(), if number % 3 == 0 { b"value" } else { b"other" });
            if number % 100 == 0 {
                detour.checkpoint();
            }
        }
        for number in 0..1000_u32 {
            if number < 500 {
                detour.insert(&number.to_le_bytes(), b"value");
            } else {
                detour.remove(&number.to_le_bytes());
            }
        }
        assert_eq!(detour.checkpoint().root, straight.checkpoint().root);
    }

    #[test]
    fn what_is_undone_before_the_checkpoint_is_no_change() {
        let mut map = StateMap::new(4);
        map.insert(b"kept", b"1");
        let before = map.checkpoint().root;
        map.insert(b"kept", b"2");
        map.insert(b"kept", b"1");
        map.insert(b"passing", b"");
        map.remove(b"passing");
        assert_eq!(map.checkpoint(), Image { root: before, changes: Vec::new() });
    }

    #[test]
    fn a_key_written_a_thousand_times_is_remembered_once() {
        let mut map = StateMap::new(4);
        for round in 0..1000_u32 {
            map.insert(b"same", &round.to_le_bytes());
            map.remove(b"other");
        }
        assert_eq!((map.touched.len(), map.raw_bytes()), (1, 8));
        assert_eq!(map.checkpoint().changes.len(), 1);
        assert!(map.touched.is_empty());
    }

    #[test]
    fn two_entries_never_have_the_root_of_two_others() {
        let root_of = |entries: &[(&[u8], &[u8])]| {
            let mut map = StateMap::new(0);
            for (key, value) in entries {
                map.insert(key, value);
            }
            map.checkpoint().root
        };
        assert_ne!(root_of(&[(b"ab", b"c")]), root_of(&[(b"a", b"bc")]), "the border of key and value counts");
        assert_ne!(root_of(&[(b"a", b"b"), (b"c", b"d")]), root_of(&[(b"a", b"d"), (b"c", b"b")]));
        assert_ne!(root_of(&[(b"a", b"")]), root_of(&[]), "an empty value is a value");
        assert_ne!(root_of(&[(b"", b"")]), root_of(&[]), "an empty key is a key");
    }

    #[test]
    fn entries_out_of_order_or_disapproved_are_no_state_and_leave_the_map_empty() {
        let mut map = StateMap::new(4);
        for wrong in [&b"a"[..], b"b"] {
            let entries = [entry(b"a", b""), entry(b"b", b""), entry(wrong, b"")];
            let error = map.restore(&mut entries.into_iter()).expect_err("out of order");
            assert_eq!(error, NotAState { index: 2, reason: "its key is not greater than the one before" });
            assert_eq!(map, StateMap::new(4));
        }
        let error = map.restore_checked(&mut [entry(b"a", b"")].into_iter(), |_| Err("too red"));
        assert_eq!(error, Err(NotAState { index: 0, reason: "too red" }));
    }

    #[test]
    fn entries_crowded_into_one_bucket_are_all_under_the_root() {
        let (mut map, mut model) = (StateMap::new(0), Model::new());
        for number in 0..5000_u32 {
            write(&mut map, &mut model, &number.to_le_bytes(), Some(b"1"));
        }
        map.checkpoint();
        for number in (0..5000_u32).step_by(3) {
            write(&mut map, &mut model, &number.to_le_bytes(), (number % 2 == 0).then_some(b"2"));
            write(&mut map, &mut model, &(number + 5000).to_le_bytes(), Some(b"3"));
        }
        assert_eq!(map.checkpoint().root, restored(0, &model).root());
        assert_eq!(map.buckets.get(0).len(), model.len());
    }
}
