//! Signatures and the one rule that says which are valid: ZIP 215, alone and in a batch (PROTOCOL §3).
//!
//! The rule: `s` is below the group's order; the encoded points `A` (the key) and `R` are on the curve, in any encoding;
//! and `[8][s]B = [8]R + [8][k]A`, where `k` is the hash of the bytes as they came. Multiplying by eight is what makes a
//! batch and its members agree, whoever verifies and with whatever company: with any other rule a client could craft a
//! signature that only some replicas accept, and so split them. Never add a second rule.

use core::fmt;

use ed25519_zebra::batch;
use rand_core::CryptoRng;

use crate::digest::Digest;
use crate::hex;
use crate::key::PublicKey;

/// From this many signatures on, one batch costs less than verifying singly: measured, for two of different keys
/// 20 µs each against 22, for two of one key 17; a batch of one costs 26.
const BATCH_COUNT_MIN: usize = 2;

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

/// Whether `signature` is one by `key` of `digest`.
pub fn verify(key: &PublicKey, digest: &Digest, signature: &Signature) -> Result<(), InvalidSignature> {
    let challenge = challenge(key.as_bytes(), digest.as_bytes(), signature);
    if is_valid(challenge) { Ok(()) } else { Err(InvalidSignature) }
}

/// Whether all of `items` are valid. Measured against asking [`verify`] for each: 0.8 of the price for 4 to 64 different
/// keys, 0.4 where one key signed 16 or more. If not all are, names the first that [`verify`] refuses, at the price of
/// asking for each up to there on top. An empty batch is valid.
///
/// The coefficients that keep bad signatures from cancelling out are drawn from `rng`. Memory grows by some 500 bytes with
/// each item; the caller bounds their number.
pub fn verify_batch(items: &[Item], rng: impl CryptoRng) -> Result<(), FirstInvalid> {
    let challenges = items.iter().map(|item| challenge(item.key.as_bytes(), item.digest.as_bytes(), &item.signature));
    first_invalid(challenges, rng).map_or(Ok(()), |index| Err(FirstInvalid { index }))
}

/// What is asked, with the message already hashed into it. The key's bytes may be any.
fn challenge(key: &[u8; 32], message: &[u8], signature: &Signature) -> batch::Item {
    let key = ed25519_zebra::VerificationKeyBytes::from(*key);
    batch::Item::from((key, ed25519_zebra::Signature::from_bytes(&signature.0), message))
}

/// The rule for one.
fn is_valid(challenge: batch::Item) -> bool {
    challenge.verify_single().is_ok()
}

/// The rule for all at once: true if it holds for each; false, but for one chance in 2^128, if it fails for any.
fn are_all_valid(challenges: impl Iterator<Item = batch::Item>, rng: impl CryptoRng) -> bool {
    let mut verifier = batch::Verifier::new();
    challenges.for_each(|challenge| verifier.queue(challenge));
    verifier.verify(rng).is_ok()
}

/// Where the first bad one is, if any.
fn first_invalid(
    mut challenges: impl ExactSizeIterator<Item = batch::Item> + Clone,
    rng: impl CryptoRng,
) -> Option<usize> {
    if challenges.len() >= BATCH_COUNT_MIN && are_all_valid(challenges.clone(), rng) {
        return None;
    }
    challenges.position(|challenge| !is_valid(challenge))
}

#[cfg(test)]
mod tests;
