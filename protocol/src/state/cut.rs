//! How a state is cut where it is handed from one replica to another: the root, groups of buckets, buckets, entries, each
//! checked against what is above it. (PROTOCOL §9)
//!
//! A row of the tree near its root is the crown, one node a group: few enough that a small state takes few questions, and so many
//! that several sources share them.
//! A bucket is checked as a whole: its entries are its leaf, or something else.

use alloc::vec::Vec;

use quorate_crypto::Digest;
use quorate_crypto::merkle::DEPTH_MAX;

use super::proof::{Fingerprint, bucket_index, bucket_leaf, key_digest, value_digest};
use crate::message::Entry;

/// Most groups of a state.
pub const GROUPS_MAX: usize = 1 << crown_level(DEPTH_MAX);

/// Most buckets of a group.
pub const GROUP_BUCKETS_MAX: usize = 1 << (DEPTH_MAX - crown_level(DEPTH_MAX));

/// Most buckets whose entries are asked for at once: together with a key they fit a vote's frame.
pub const WANTED_BUCKETS_MAX: usize = 1024;

/// The level of a tree of this depth whose nodes are the groups.
pub const fn crown_level(depth: u8) -> u8 {
    depth / 4
}

/// Where a key stands in the order in which a state is handed out: by the first bits of its digest, so that a bucket is a
/// range, and among equals by the key.
pub fn place_of(key: &[u8]) -> [u8; 4] {
    let [first, second, third, fourth, ..] = *key_digest(key).as_bytes();
    [first, second, third, fourth]
}

/// The bucket of a key in a state whose tree has this depth.
pub fn bucket_of(key: &[u8], depth: u8) -> u32 {
    bucket_index(&key_digest(key), depth)
}

/// The places, see [`place_of`], at which a bucket begins and the next one does; `None` if it is the last.
pub fn places_of(bucket: u32, depth: u8) -> ([u8; 4], Option<[u8; 4]>) {
    let begin = |bucket: u32| bucket.checked_shl(u32::BITS - u32::from(depth)).unwrap_or(0).to_be_bytes();
    let next = bucket.checked_add(1).filter(|next| u64::from(*next) < 1 << depth);
    (begin(bucket), next.map(begin))
}

/// The leaf of the bucket that holds these entries and no other.
pub fn leaf_of(entries: &[Entry]) -> Digest {
    let fingerprint = |entry: &Entry| Fingerprint { key: key_digest(&entry.key), value: value_digest(&entry.value) };
    let mut bucket: Vec<Fingerprint> = entries.iter().map(fingerprint).collect();
    bucket.sort_unstable();
    bucket_leaf(&bucket)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::codec::Blob;
    use crate::state::StateMap;

    #[test]
    fn the_leaf_of_the_entries_of_a_bucket_is_that_of_the_tree() {
        for depth in [0, 1, 3, 8] {
            let mut map = StateMap::new(depth);
            let mut buckets = vec![Vec::new(); 1 << depth];
            for number in 0..200_u32 {
                let (key, value) = (number.to_le_bytes(), number.to_be_bytes());
                map.insert(&key, &value);
                let bucket = bucket_of(&key, depth);
                let (begin, end) = places_of(bucket, depth);
                assert!(begin <= place_of(&key) && end.is_none_or(|end| place_of(&key) < end));
                buckets[bucket as usize].push(Entry { key: Blob::from(&key[..]), value: Blob::from(&value[..]) });
            }
            map.checkpoint();
            let leaves: Vec<Digest> = buckets.iter().map(|entries| leaf_of(entries)).collect();
            assert_eq!(map.index().row(depth), leaves);
        }
    }

    #[test]
    fn the_buckets_of_a_state_lie_one_after_the_other() {
        for depth in [0, 1, 3, DEPTH_MAX] {
            let count = 1_u32 << depth;
            for bucket in [0, count / 2, count - 1] {
                let (begin, end) = places_of(bucket, depth);
                assert_eq!(end.is_none(), bucket == count - 1);
                assert!(end.is_none_or(|end| begin < end && places_of(bucket + 1, depth).0 == end));
            }
            assert_eq!(places_of(0, depth).0, [0; 4]);
        }
    }
}
