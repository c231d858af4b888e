//! Signatures and the one rule that says which are valid: ZIP 215, alone and in a batch (PROTOCOL §3).
//!
//! The rule: `s` is below the group's order; the encoded points `A` (the key) and `R` are on the curve, in any encoding;
//! and `[8][s]B = [8]R + [8][k]A`, where `k` is the hash of the bytes as they came. Multiplying by eight is what makes a
//! batch and its members agree, whoever verifies and with whatever company: with any other rule a client could craft a
//! signature that only some replicas accept, and so split them. Never add a second rule.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{IsIdentity as _, VartimeMultiscalarMul as _};
use ed25519_zebra::{VerificationKey, VerificationKeyBytes};
use rand_core::CryptoRng;
use sha2::{Digest as _, Sha512};

use crate::digest::Digest;
use crate::hex;
use crate::key::PublicKey;

/// From this many signatures on, one batch costs less than verifying singly: measured, for two of different keys
/// 20 µs each against 22, for two of one key 17; a batch of one costs 26.
const BATCH_COUNT_MIN: usize = 2;

/// Most keys whose points are kept, for batches and for single signatures each: some 4 MiB together. Beyond that all are
/// forgotten.
const KNOWN_KEYS_MAX: usize = 8192;

/// An Ed25519 signature over a [`Digest`].
///
/// Never part of an identity: a signer can make several valid signatures of one digest, so whatever a hash or a map names
/// by a signature can exist twice. Two that differ say the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature([u8; 64]);

impl Signature {
    /// Takes 64 bytes from outside; only [`verify`] says what they are worth.
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The 64 bytes: `R`, then `s`.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }

    /// The 64 bytes: `R`, then `s`.
    pub const fn to_bytes(self) -> [u8; 64] {
        self.0
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(&self.0, formatter)
    }
}

/// The signature is not valid for this key and digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid signature")]
pub struct InvalidSignature;

/// Some signature of a batch is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid signature at index {index} of the batch")]
pub struct FirstInvalid {
    /// Where the first one stands.
    pub index: usize,
}

/// One signature to verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Item {
    /// Who is said to have signed.
    pub key: PublicKey,
    /// What is said to be signed.
    pub digest: Digest,
    /// The signature.
    pub signature: Signature,
}

/// The points of keys under which something valid was signed, kept from one time to the next: to find a key's point costs a
/// fifth of verifying a signature.
#[derive(Clone, Default)]
pub struct KnownKeys {
    /// For batches. Bound: [`KNOWN_KEYS_MAX`].
    points: BTreeMap<[u8; 32], EdwardsPoint>,
    /// For one signature at a time. Bound: [`KNOWN_KEYS_MAX`].
    single: BTreeMap<[u8; 32], VerificationKey>,
}

impl fmt::Debug for KnownKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KnownKeys").field("count", &self.points.len().max(self.single.len())).finish()
    }
}

/// Whether `signature` is one by `key` of `digest`.
pub fn verify(key: &PublicKey, digest: &Digest, signature: &Signature) -> Result<(), InvalidSignature> {
    let challenge = Challenge { key: *key.as_bytes(), message: digest.as_bytes(), signature };
    if is_valid(&challenge, &mut KnownKeys::default()) { Ok(()) } else { Err(InvalidSignature) }
}

/// Whether all of `items` are valid. Measured against asking [`verify`] for each: 0.8 of the price for 4 to 64 different
/// keys, 0.4 where one key signed 16 or more, and less where the keys are known. If not all are, names the first that
/// [`verify`] refuses, at the price of asking for each up to there on top. An empty batch is valid.
///
/// The coefficients that keep bad signatures from cancelling out are drawn from `rng`. Memory grows by some 500 bytes with
/// each item; the caller bounds their number.
pub fn verify_batch(items: &[Item], known: &mut KnownKeys, rng: impl CryptoRng) -> Result<(), FirstInvalid> {
    let challenge = |item| {
        let Item { key, digest, signature }: &Item = item;
        Challenge { key: *key.as_bytes(), message: digest.as_bytes(), signature }
    };
    let challenges: Vec<_> = items.iter().map(challenge).collect();
    first_invalid(&challenges, known, rng).map_or(Ok(()), |index| Err(FirstInvalid { index }))
}

/// What is asked. The key's bytes may be any.
#[derive(Clone, Copy)]
struct Challenge<'a> {
    key: [u8; 32],
    message: &'a [u8],
    signature: &'a Signature,
}

/// The rule for one.
fn is_valid(challenge: &Challenge<'_>, known: &mut KnownKeys) -> bool {
    let found = known.single.get(&challenge.key).copied();
    let key = found.or_else(|| VerificationKey::try_from(VerificationKeyBytes::from(challenge.key)).ok());
    let signature = ed25519_zebra::Signature::from_bytes(&challenge.signature.0);
    let Some(key) = key.filter(|key| key.verify(&signature, challenge.message).is_ok()) else { return false };
    // Others could fill the table with keys that sign nothing.
    if found.is_none() {
        if known.single.len() >= KNOWN_KEYS_MAX {
            known.single.clear();
        }
        known.single.insert(challenge.key, key);
    }
    true
}

/// The rule for all at once: true if it holds for each; false, but for one chance in 2^128, if it fails for any.
///
/// With coefficients z drawn at random, `[8]([-Σ z s]B + Σ [z]R + Σ [z k]A)` is nothing, the terms of one key put together.
/// That is the rule of one, summed. Written here since `ed25519_zebra` finds the point of each key anew in each batch;
/// `is_valid` stays the judge of each.
fn are_all_valid(challenges: &[Challenge<'_>], known: &mut KnownKeys, mut rng: impl CryptoRng) -> bool {
    let mut random = vec![0; challenges.len() * size_of::<u128>()];
    rng.fill_bytes(&mut random);
    let mut of_base = Scalar::ZERO;
    let mut of_keys: BTreeMap<[u8; 32], Scalar> = BTreeMap::new();
    let mut scalars = vec![Scalar::ZERO];
    let mut points = vec![ED25519_BASEPOINT_POINT];
    for (Challenge { key, message, signature }, random) in challenges.iter().zip(random.chunks_exact(size_of::<u128>()))
    {
        let (r, s) = halves(&signature.0);
        let Some(s) = Option::<Scalar>::from(Scalar::from_canonical_bytes(s)) else { return false };
        let Some(point) = CompressedEdwardsY(r).decompress() else { return false };
        let hash = Sha512::new().chain_update(r).chain_update(key).chain_update(message).finalize();
        let k = Scalar::from_bytes_mod_order_wide(&hash.into());
        let mut wide = [0; 32];
        wide[..random.len()].copy_from_slice(random);
        let z = Scalar::from_bytes_mod_order(wide);
        of_base -= z * s;
        *of_keys.entry(*key).or_insert(Scalar::ZERO) += z * k;
        scalars.push(z);
        points.push(point);
    }
    scalars[0] = of_base;
    let mut found = Vec::new();
    for (key, scalar) in of_keys {
        let point = known.points.get(&key).copied().or_else(|| {
            let point = CompressedEdwardsY(key).decompress()?;
            found.push((key, point));
            Some(point)
        });
        let Some(point) = point else { return false };
        scalars.push(scalar);
        points.push(point);
    }
    let is_valid = EdwardsPoint::vartime_multiscalar_mul(&scalars, &points).mul_by_cofactor().is_identity();
    // Others could fill the table with keys that sign nothing.
    if is_valid {
        if known.points.len() + found.len() > KNOWN_KEYS_MAX {
            known.points.clear();
        }
        known.points.extend(found.into_iter().take(KNOWN_KEYS_MAX));
    }
    is_valid
}

/// `R` and `s`.
fn halves(signature: &[u8; 64]) -> ([u8; 32], [u8; 32]) {
    let (mut r, mut s) = ([0; 32], [0; 32]);
    r.copy_from_slice(&signature[..32]);
    s.copy_from_slice(&signature[32..]);
    (r, s)
}

/// Where the first bad one is, if any.
fn first_invalid(challenges: &[Challenge<'_>], known: &mut KnownKeys, rng: impl CryptoRng) -> Option<usize> {
    if challenges.len() >= BATCH_COUNT_MIN && are_all_valid(challenges, known, rng) {
        return None;
    }
    challenges.iter().position(|challenge| !is_valid(challenge, known))
}

#[cfg(test)]
mod tests;
