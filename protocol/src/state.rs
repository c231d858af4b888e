//! A map from byte keys to byte values under a Merkle root: what a checkpoint names. (PROTOCOL §5)
//!
//! The application's entries and the protocol's own lie in one of these each. [`Entries`] is the map; [`Index`] holds the
//! digests under the root, and follows the map from checkpoint to checkpoint. They are apart so that slots execute while
//! a checkpoint is hashed: it hashes what was written since the last one, each key once, and the buckets and nodes above.
//! [`StateMap`] is both, where there is little to hash.
//!
//! The root depends on the entries alone, not on how they came to be. The digest of a key decides its bucket, so keys
//! spread evenly; the leaf of a bucket is the digest of its entries' fingerprints in order, and so proves what is in
//! the bucket as well as what is not.

use quorate_crypto::Digest;

use crate::application::{Image, NotAState};
use crate::message::Entry;

mod buckets;
mod cut;
mod entries;
mod index;
mod key;
mod proof;

pub use cut::{
    GROUP_BUCKETS_MAX, GROUPS_MAX, WANTED_BUCKETS_MAX, bucket_of, crown_level, leaf_of, place_of, places_of,
};
pub use entries::Entries;
pub use index::Index;
pub use proof::{BucketTooFull, InvalidProof, PROVABLE_ENTRIES_MAX, Proof};

/// The depth of an application's Merkle tree: 65,536 buckets, some 15 entries each at a million. Part of what the root
/// means.
pub const DEPTH: u8 = 16;

/// A map with its Merkle root.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StateMap {
    entries: Entries,
    index: Index,
}

impl StateMap {
    /// A map without entries, with 2^`depth` buckets. See [`Index::new`].
    ///
    /// # Panics
    /// As that does.
    pub fn new(depth: u8) -> Self {
        Self { entries: Entries::new(), index: Index::new(depth) }
    }

    /// The entries.
    pub const fn entries(&self) -> &Entries {
        &self.entries
    }

    /// The digests under the root.
    pub const fn index(&self) -> &Index {
        &self.index
    }

    /// The root at the last checkpoint, or after [`StateMap::restore`] or [`StateMap::new`] if that was later.
    pub const fn root(&self) -> Digest {
        self.index.root()
    }

    /// Sets the value of `key`. See [`Entries::insert`].
    pub fn insert(&mut self, key: &[u8], value: &[u8]) -> bool {
        self.entries.insert(key, value)
    }

    /// Removes `key`. See [`Entries::remove`].
    pub fn remove(&mut self, key: &[u8]) -> bool {
        self.entries.remove(key)
    }

    /// Brings the root up to date and gives it with the entries that differ from the checkpoint before, in ascending order
    /// of their keys.
    pub fn checkpoint(&mut self) -> Image {
        let changes = self.index.apply(self.entries.changes());
        Image { root: self.index.root(), changes }
    }

    /// Shows what `key` holds; worth nothing if it was written since the last checkpoint.
    ///
    /// # Errors
    /// [`BucketTooFull`].
    pub fn prove(&self, key: &[u8]) -> Result<Proof, BucketTooFull> {
        self.index.prove(key, self.entries.get(key))
    }

    /// Replaces all entries by `entries`, in any order, and gives the root. The next checkpoint's changes count from here.
    ///
    /// # Errors
    /// [`NotAState`] if two have one key: the map is then empty.
    pub fn restore(&mut self, entries: &mut dyn Iterator<Item = Entry>) -> Result<Digest, NotAState> {
        let mut index = Index::new(self.index.depth());
        self.index = index.clone();
        self.entries.restore(&mut entries.inspect(|entry| index.add(&entry.key, &entry.value)))?;
        index.finish();
        self.index = index;
        Ok(self.root())
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::{BTreeMap, BTreeSet};
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
                prop_assert!(map.entries().iter().eq(model.iter().map(|(key, value)| (&key[..], &value[..]))));
                let restored = restored(depth, &model);
                prop_assert_eq!(&restored, &map);
                prop_assert_eq!((restored.root(), restored.entries().raw_bytes()), (image.root, map.entries().raw_bytes()));
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
            prop_assert!(map.entries().range(&prefix, after.as_deref()).eq(expected.map(|(key, value)| (&key[..], &value[..]))));
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
        assert_eq!(map.entries().raw_bytes(), 8);
        assert_eq!(map.clone().entries.changes().count(), 1);
        assert_eq!(map.checkpoint().changes.len(), 1);
        assert_eq!(map.entries.changes().count(), 0);
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
    fn entries_of_one_key_or_disapproved_are_no_state_and_leave_the_map_empty() {
        let mut map = StateMap::new(4);
        for wrong in [&b"a"[..], b"b"] {
            let entries = [entry(b"a", b""), entry(b"b", b""), entry(wrong, b"")];
            let error = map.restore(&mut entries.into_iter()).expect_err("twice the same key");
            assert_eq!(error, NotAState { index: 3, reason: "two entries have the same key" });
            assert_eq!(map, StateMap::new(4));
        }
        let error = map.entries.restore_checked(&mut [entry(b"a", b"")].into_iter(), |_| Err("too red"));
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
        assert_eq!(map.index.bucket_len(0), model.len());
    }
}
