//! Who may sign what: real Ed25519 signatures, or ideal ones that cost next to nothing.
//!
//! An ideal signature is the digest and a check word that depends on a secret, which nobody but the signer and the
//! [`Notary`] has: nothing in a simulation forges one, an adversary included, since it is only ever handed the signers of
//! its own replicas and breaks no ciphers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_crypto::{Digest, Item, KnownKeys, PublicKey, Signature, SigningKey, verify_batch};
use quorate_protocol::statement::Signer;
use quorate_protocol::verify::Verifier;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fingerprint::Fingerprint;

/// A signer that can be shared.
pub type SharedSigner = Arc<dyn Signer + Send + Sync>;

/// Which signatures a simulation uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// Unforgeable stand-ins: most runs.
    #[default]
    Ideal,
    /// The real ones, under the real rule: slower by orders of magnitude.
    Ed25519,
}

/// Hands out keys, and knows which signatures are valid.
#[derive(Debug)]
pub struct Notary {
    scheme: Scheme,
    secrets: BTreeMap<PublicKey, [u8; 32]>,
    known: KnownKeys,
    made: Arc<AtomicU64>,
    checked: u64,
    /// What batches of real signatures are verified with. Whatever it draws, the verdicts are the same.
    coefficients: ChaCha8Rng,
}

/// Whose key it is, so that no two share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// A replica, by its index.
    Replica(u64),
    /// A client, by its index.
    Client(u64),
}

/// Counts what it signs.
#[derive(Debug)]
struct Counted {
    signer: SharedSigner,
    made: Arc<AtomicU64>,
}

#[derive(Debug)]
struct IdealSigner {
    secret: [u8; 32],
}

impl Notary {
    /// A notary that has handed out nothing.
    pub fn new(scheme: Scheme) -> Self {
        Self {
            scheme,
            secrets: BTreeMap::new(),
            known: KnownKeys::default(),
            made: Arc::default(),
            checked: 0,
            coefficients: ChaCha8Rng::from_seed([0; 32]),
        }
    }

    /// The key of `holder`, the same whenever asked: a valid Ed25519 key in either scheme.
    pub fn key(&mut self, holder: Holder) -> (PublicKey, SharedSigner) {
        let (role, index) = match holder {
            Holder::Replica(index) => (1, index),
            Holder::Client(index) => (2, index),
        };
        let mut secret = [role; 32];
        secret[..8].copy_from_slice(&index.to_le_bytes());
        let signing = SigningKey::from_seed(secret);
        let key = signing.public_key();
        self.secrets.insert(key, secret);
        let signer: SharedSigner = match self.scheme {
            Scheme::Ideal => Arc::new(IdealSigner { secret }),
            Scheme::Ed25519 => Arc::new(signing),
        };
        (key, Arc::new(Counted { signer, made: Arc::clone(&self.made) }))
    }

    /// How many signatures were made, and how many were checked.
    pub fn counts(&self) -> (u64, u64) {
        (self.made.load(Ordering::Relaxed), self.checked)
    }

    fn is_ideal(&self, item: &Item) -> bool {
        let secret = self.secrets.get(&item.key);
        secret.is_some_and(|secret| ideal_signature(secret, &item.digest) == item.signature)
    }
}

impl Verifier for Notary {
    fn verify(&mut self, items: &[Item]) -> Result<(), usize> {
        self.checked += items.len() as u64;
        match self.scheme {
            // As a node does it.
            Scheme::Ed25519 => {
                verify_batch(items, &mut self.known, &mut self.coefficients).map_err(|first| first.index)
            }
            Scheme::Ideal => match items.iter().position(|item| !self.is_ideal(item)) {
                Some(first) => Err(first),
                None => Ok(()),
            },
        }
    }
}

impl Signer for Counted {
    fn sign(&self, digest: &Digest) -> Signature {
        self.made.fetch_add(1, Ordering::Relaxed);
        self.signer.sign(digest)
    }
}

impl Signer for IdealSigner {
    fn sign(&self, digest: &Digest) -> Signature {
        ideal_signature(&self.secret, digest)
    }
}

fn ideal_signature(secret: &[u8; 32], digest: &Digest) -> Signature {
    let mut keyed = Fingerprint::default();
    keyed.fold_bytes(secret);
    keyed.fold_bytes(digest.as_bytes());
    let mut bytes = [0; 64];
    bytes[..8].copy_from_slice(&keyed.value().to_le_bytes());
    bytes[32..].copy_from_slice(digest.as_bytes());
    Signature::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(scheme: Scheme) {
        let mut notary = Notary::new(scheme);
        let (key, signer) = notary.key(Holder::Replica(0));
        let (other_key, _) = notary.key(Holder::Client(0));
        let digest = Digest::from_bytes([5; 32]);
        let signature = signer.sign(&digest);
        let good = Item { key, digest, signature };
        let of_another = Item { key: other_key, digest, signature };
        let of_something_else = Item { key, digest: Digest::from_bytes([6; 32]), signature };
        assert_eq!(notary.verify(&[good, good]), Ok(()));
        assert_eq!(notary.verify(&[good, of_another]), Err(1));
        assert_eq!(notary.verify(&[of_something_else, good]), Err(0));
    }

    #[test]
    fn an_ideal_signature_is_valid_for_its_key_and_digest_alone() {
        check(Scheme::Ideal);
    }

    #[test]
    fn a_real_signature_is_valid_for_its_key_and_digest_alone() {
        check(Scheme::Ed25519);
    }
}
