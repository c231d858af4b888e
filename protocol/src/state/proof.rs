//! What one replica shows of one key, checked against a root that a quorum vouches for. (PROTOCOL §8, proved reads)
//!
//! A proof is the key's whole bucket, as the digests of its keys and values, and the path from the bucket's leaf to the
//! root. The digest of the key is among them or it is not: so the same proof shows a value or that there is none.

use quorate_crypto::merkle;
use quorate_crypto::{Digest, Domain, Hasher, hash};

use crate::codec::{Blob, BorrowDecode, Decode, Encode, Frame, List};

/// Most entries of a bucket whose entries can be proved: 64 bytes each. Who wants a fuller one computes 2^depth digests
/// for each of his keys, and gains that the keys of one bucket must be read by ordered operations.
pub const PROVABLE_ENTRIES_MAX: usize = 4096;

/// What one replica can show of one key: its value, or that there is none, under a root that a quorum vouches for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub struct Proof {
    value: Option<Blob>,
    bucket: List<Fingerprint, PROVABLE_ENTRIES_MAX>,
    path: List<Digest, { merkle::DEPTH_MAX as usize }>,
}

/// The key's bucket holds more than [`PROVABLE_ENTRIES_MAX`] entries: the key must be read by an ordered operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bucket of the key holds more than {PROVABLE_ENTRIES_MAX} entries")]
pub struct BucketTooFull;

/// Why a proof shows nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidProof {
    /// Bucket and path do not lead to the root.
    #[error("the proof belongs to another root or another key")]
    Root,
    /// The bucket tells of another value, or of one where none is shown, or of none where one is shown.
    #[error("the proof's value is not the one under the root")]
    Value,
}

impl Proof {
    pub(super) fn new(
        value: Option<Blob>,
        bucket: List<Fingerprint, PROVABLE_ENTRIES_MAX>,
        path: alloc::vec::Vec<Digest>,
    ) -> Self {
        Self { value, bucket, path: List::new(path).expect("a tree is no deeper than the bound") }
    }

    /// What `key` holds in the state with this root: `None` if nothing.
    ///
    /// The depth of the tree need not be known: node, leaf and empty leaf cannot pass for each other, so a path of another
    /// length does not lead to the root.
    ///
    /// # Errors
    /// [`InvalidProof`].
    pub fn verify(&self, root: &Digest, key: &[u8]) -> Result<Option<&Blob>, InvalidProof> {
        let key = key_digest(key);
        let depth = u8::try_from(self.path.len()).map_err(|_too_long| InvalidProof::Root)?;
        let leaf = bucket_leaf(&self.bucket);
        if merkle::root_of(bucket_index(&key, depth), leaf, &self.path) != *root {
            return Err(InvalidProof::Root);
        }
        let proved = self.bucket.iter().find(|fingerprint| fingerprint.key == key).map(|fingerprint| fingerprint.value);
        if proved == self.value.as_ref().map(|value| value_digest(value)) {
            Ok(self.value.as_ref())
        } else {
            Err(InvalidProof::Value)
        }
    }
}

/// What a bucket knows of an entry, and what its leaf is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub(super) struct Fingerprint {
    pub(super) key: Digest,
    pub(super) value: Digest,
}

/// Keys and values are hashed apart, so that a bucket tells which keys it holds without their values.
pub(super) fn key_digest(key: &[u8]) -> Digest {
    hash(Domain::Entry, &[b"key:", key])
}

pub(super) fn value_digest(value: &[u8]) -> Digest {
    hash(Domain::Entry, &[b"value:", value])
}

pub(super) fn bucket_leaf(bucket: &[Fingerprint]) -> Digest {
    if bucket.is_empty() {
        return Digest::ZERO;
    }
    let mut hasher = Hasher::new(Domain::Bucket);
    for fingerprint in bucket {
        hasher.update(fingerprint.key.as_bytes()).update(fingerprint.value.as_bytes());
    }
    hasher.finish()
}

/// The first `depth` bits of the digest.
pub(super) fn bucket_index(key_digest: &Digest, depth: u8) -> u32 {
    let [first, second, third, fourth, ..] = *key_digest.as_bytes();
    let high = u32::from_be_bytes([first, second, third, fourth]);
    high.checked_shr(32_u32.saturating_sub(u32::from(depth))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use bytes::Bytes;

    use super::*;
    use crate::codec::{CodecError, decode, encode};
    use crate::state::StateMap;

    fn number(number: u32) -> [u8; 4] {
        number.to_le_bytes()
    }

    fn map_of(depth: u8, count: u32) -> StateMap {
        let mut map = StateMap::new(depth);
        for index in 0..count {
            map.insert(&number(index), &number(index + 1));
        }
        map.checkpoint();
        map
    }

    /// A proof as its receiver has it: from bytes.
    fn received(proof: &Proof) -> Proof {
        let received: Proof = decode(&encode(proof).expect("bounded")).expect("just encoded");
        assert_eq!(received, *proof);
        received
    }

    #[test]
    fn a_value_or_its_absence_is_proved_at_every_depth() {
        for depth in [0, 1, 5, 16, merkle::DEPTH_MAX] {
            for count in [0, 1, 40] {
                let map = map_of(depth, count);
                for key in 0..count + 3 {
                    let proof = received(&map.prove(&number(key)).expect("a small bucket"));
                    let proved = proof.verify(&map.root(), &number(key)).map(|value| value.map(|value| value.to_vec()));
                    assert_eq!(proved, Ok((key < count).then(|| number(key + 1).to_vec())));
                }
            }
        }
    }

    #[test]
    fn another_value_or_none_or_one_where_there_is_none_is_refused() {
        let map = map_of(3, 40);
        let present = map.prove(b"\x07\0\0\0").expect("a small bucket");
        let absent = map.prove(b"absent").expect("a small bucket");
        for value in [None, Some(Blob::EMPTY), Some(Blob::from(&number(9)[..]))] {
            let proof = Proof { value, ..present.clone() };
            assert_eq!(proof.verify(&map.root(), b"\x07\0\0\0"), Err(InvalidProof::Value));
        }
        let proof = Proof { value: Some(Blob::EMPTY), ..absent };
        assert_eq!(proof.verify(&map.root(), b"absent"), Err(InvalidProof::Value));
    }

    #[test]
    fn a_proof_of_one_key_proves_nothing_of_another() {
        let map = map_of(3, 40);
        for key in 0..40 {
            let proof = map.prove(&number(key)).expect("a small bucket");
            for other in (0..40).filter(|other| *other != key) {
                assert!(proof.verify(&map.root(), &number(other)).is_err(), "{key} shows nothing of {other}");
            }
        }
    }

    #[test]
    fn another_root_is_refused() {
        let mut map = map_of(3, 40);
        let proof = map.prove(&number(7)).expect("a small bucket");
        map.insert(b"another", b"entry");
        let root = map.checkpoint().root;
        assert_eq!(proof.verify(&root, &number(7)), Err(InvalidProof::Root));
        assert_eq!(proof.verify(&Digest::ZERO, &number(7)), Err(InvalidProof::Root));
    }

    #[test]
    fn each_flipped_bit_is_refused() {
        let map = map_of(3, 12);
        let bytes = encode(&map.prove(&number(7)).expect("a small bucket")).expect("bounded");
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            let verdict = decode::<Proof>(&changed.into()).map(|proof| proof.verify(&map.root(), &number(7)).is_ok());
            assert!(!verdict.unwrap_or(false), "bit {bit} does not matter");
        }
    }

    #[test]
    fn a_shorter_or_longer_path_or_a_changed_bucket_is_refused() {
        let map = map_of(3, 40);
        let proof = map.prove(&number(7)).expect("a small bucket");
        let with_path = |path: &[Digest]| Proof { path: List::new(path.to_vec()).expect("short"), ..proof.clone() };
        let with_bucket =
            |bucket: &[Fingerprint]| Proof { bucket: List::new(bucket.to_vec()).expect("small"), ..proof.clone() };
        let longer: Vec<Digest> = proof.path.iter().copied().chain([Digest::ZERO]).collect();
        let reversed: Vec<Fingerprint> = proof.bucket.iter().rev().copied().collect();
        for changed in [
            with_path(&[]),
            with_path(&proof.path[1..]),
            with_path(&proof.path[..2]),
            with_path(&longer),
            with_bucket(&[]),
            with_bucket(&proof.bucket[1..]),
            with_bucket(&reversed),
        ] {
            assert_eq!(changed.verify(&map.root(), &number(7)), Err(InvalidProof::Root));
        }
    }

    /// A proved read is as old as the checkpoint. (PROTOCOL §8)
    #[test]
    fn what_is_proved_is_the_last_checkpoint_while_writing_goes_on() {
        let mut map = map_of(3, 12);
        let before = map.clone();
        map.insert(&number(3), b"overwritten");
        map.remove(&number(4));
        map.insert(b"new", b"entry");
        assert_eq!(map.root(), before.root());
        for (key, held) in [(&number(3)[..], Some(number(4))), (&number(4), Some(number(5))), (b"new", None)] {
            assert!(map.prove(key).expect("small").verify(&map.root(), key).is_err(), "what it holds now");
            let held = held.map(|held| Bytes::copy_from_slice(&held));
            let proof = map.index.prove(key, held.clone()).expect("a small bucket");
            assert_eq!(proof.verify(&map.root(), key), Ok(held.map(Blob::from).as_ref()));
        }
        let root = map.checkpoint().root;
        for (key, held) in [(&number(3)[..], Some(&b"overwritten"[..])), (&number(4), None), (b"new", Some(b"entry"))] {
            let proof = map.prove(key).expect("a small bucket");
            assert_eq!(proof.verify(&root, key), Ok(held.map(Blob::from).as_ref()));
        }
    }

    #[test]
    fn the_fullest_bucket_is_proved_and_a_fuller_one_is_not() {
        let limit = u32::try_from(PROVABLE_ENTRIES_MAX).expect("small");
        let full = map_of(0, limit);
        assert!(received(&full.prove(b"absent").expect("just full")).verify(&full.root(), b"absent").is_ok());
        let fuller = map_of(0, limit + 1);
        assert_eq!(fuller.prove(b"absent"), Err(BucketTooFull));
    }

    #[test]
    fn a_proof_of_more_digests_than_there_can_be_is_refused() {
        let mut bytes = Vec::from([0_u8]);
        bytes.extend(u32::try_from(PROVABLE_ENTRIES_MAX + 1).expect("small").to_le_bytes());
        assert_eq!(decode::<Proof>(&bytes.into()), Err(CodecError::Malformed("more elements than the bound")));
    }
}
