//! The cryptography of Quorate, and nothing of consensus.
//!
//! Read it in this order.
//!
//! | file | holds | PROTOCOL.md |
//! | --- | --- | --- |
//! | `domain.rs` | [`Domain`]: the registry of everything that is ever hashed | §3 |
//! | `hex.rs` | [`HexError`]: the text form of 32 bytes | |
//! | `digest.rs` | [`Digest`], [`Hasher`], [`hash`]: SHA-256 under a domain tag | §3 |
//! | `key.rs` | [`SigningKey`], [`PublicKey`]: Ed25519 keys; weak ones are refused | §3 |
//! | `signature.rs` | [`Signature`], [`verify`], [`verify_batch`]: the one validity rule, ZIP 215 | §3 |
//! | `merkle.rs` | [`merkle::Tree`]: the incremental tree under a state root | §5 |
//! | `codec.rs` | how digests, keys and signatures are encoded; the only file that names bincode | |
//!
//! Two rules hold everywhere: what is signed is a [`Digest`] made under a [`Domain`], never a payload; and no identity
//! contains a signature, because a signer can make several valid ones for the same digest.
//!
//! The crate owns no randomness: whoever needs some hands in a generator of `rand_core`.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod codec;
pub mod digest;
pub mod domain;
mod hex;
pub mod key;
pub mod merkle;
pub mod signature;

pub use digest::{Digest, Hasher, hash};
pub use domain::Domain;
pub use hex::HexError;
pub use key::{KeyError, PublicKey, SigningKey};
pub use signature::{FirstInvalid, InvalidSignature, Item, KnownKeys, Signature, verify, verify_batch};
