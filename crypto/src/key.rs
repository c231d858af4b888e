//! Ed25519 keys. A [`PublicKey`] is 32 bytes that passed the rules which bytes alone can decide; a [`SigningKey`] is
//! wiped from memory when it is dropped (PROTOCOL §3: weak keys are refused).
//!
//! Why keys are vetted: under a key of small order almost any signature is valid for almost any message, and a key with
//! two encodings would be two members or clients.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use curve25519_dalek::edwards::CompressedEdwardsY;
use ed25519_dalek::Signer as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{self, DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::digest::Digest;
use crate::hex::{self, HexError};
use crate::signature::Signature;

/// Why a key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The bytes encode a point of small order: almost any signature would be valid under it.
    #[error("weak public key: a point of small order")]
    SmallOrder,
    /// The bytes are a second encoding of a point: its y coordinate is not below the field's prime.
    #[error("public key is not encoded canonically")]
    NotCanonical,
    /// The text of a public key is not 64 hexadecimal digits.
    #[error("public key is not written as hexadecimal digits")]
    Text(#[from] HexError),
    /// A signing key could not be read from, or written as, PKCS#8.
    #[error("signing key is no valid PKCS#8 of Ed25519")]
    Pkcs8(#[from] pkcs8::Error),
}

/// The field's prime 2^255 - 19, the lowest byte first.
const PRIME: [u8; 32] = large_y(0xed);

/// The y coordinates of every encoding of a point of small order, the lowest byte first, without the sign of x (the top
/// bit). Each stands with either sign, which makes fourteen encodings. Five are below the prime; the last two are
/// not, second encodings of 0 and 1. (The seventeen y above those encode no point of small order: `NotCanonical`.)
const SMALL_ORDER_Y: [[u8; 32]; 7] = [
    small_y(0),    // order 4
    small_y(1),    // order 1
    large_y(0xec), // order 2: p - 1
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ], // order 8
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ], // order 8: p minus the one above
    PRIME,         // order 4: p + 0
    large_y(0xee), // order 1: p + 1
];

/// A number whose lowest byte is `low`, and whose other bits but the top one are ones: p - 237 + `low`.
const fn large_y(low: u8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = low;
    bytes[31] = 0x7f;
    bytes
}

/// A number below 256.
const fn small_y(low: u8) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0] = low;
    bytes
}

/// A replica's, client's or operator's public key: 32 bytes that are the canonical encoding of a number below the
/// field's prime, and encode no point of small order. Its text form is 64 hexadecimal digits.
///
/// Whether there is such a point on the curve costs a square root and is asked once, where a key enters a configuration
/// or a session: [`PublicKey::is_on_curve`]. Under bytes that are no point, no signature is valid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Takes a key from outside; refuses weak and non-canonical bytes, without arithmetic on the curve.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
        let mut y = bytes;
        y[31] &= 0x7f;
        if SMALL_ORDER_Y.contains(&y) {
            return Err(KeyError::SmallOrder);
        }
        if y.iter().rev().ge(PRIME.iter().rev()) {
            return Err(KeyError::NotCanonical);
        }
        Ok(Self(bytes))
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether the bytes encode a point of the curve; for about half of all bytes they do not. Costs about 4 µs.
    pub fn is_on_curve(&self) -> bool {
        CompressedEdwardsY(self.0).decompress().is_some()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(&self.0, formatter)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(&self.0, formatter)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::from_bytes(hex::read(text)?)
    }
}

/// An Ed25519 signing key. Wiped from memory on drop; never printed.
#[derive(Clone)]
pub struct SigningKey {
    inner: ed25519_dalek::SigningKey,
}

impl SigningKey {
    /// Draws a new key.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *seed);
        Self { inner: ed25519_dalek::SigningKey::from_bytes(&seed) }
    }

    /// The key that follows from a seed; whoever knows the seed has the key.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        Self { inner: ed25519_dalek::SigningKey::from_bytes(&seed) }
    }

    /// Reads an unencrypted private key file, as `openssl genpkey -algorithm ed25519` or [`Self::to_pkcs8_pem`] writes
    /// it. Versions 1 and 2 are read; a public key in version 2 must be the right one.
    pub fn from_pkcs8_pem(pem: &str) -> Result<Self, KeyError> {
        Ok(Self { inner: ed25519_dalek::SigningKey::from_pkcs8_pem(pem)? })
    }

    /// The text of a private key file. The caller sees to it that only the owner can read that.
    pub fn to_pkcs8_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        Ok(self.to_version_1().to_pkcs8_pem(LineEnding::LF)?)
    }

    /// The same in binary, as TLS wants it.
    pub fn to_pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let document = self.to_version_1().to_pkcs8_der()?;
        Ok(Zeroizing::new(document.as_bytes().to_vec()))
    }

    /// PKCS#8 version 1 is the one without the public key; OpenSSL 3.0 refuses version 2.
    fn to_version_1(&self) -> KeypairBytes {
        KeypairBytes { secret_key: self.inner.to_bytes(), public_key: None }
    }

    /// The key that others verify with.
    pub fn public_key(&self) -> PublicKey {
        // Own keys need no vetting: they are the base point times a scalar between 2^254 and 2^255 that is a multiple
        // of eight, hence no multiple of the base point's prime order, and they were just encoded.
        PublicKey(self.inner.verifying_key().to_bytes())
    }

    /// Signs a digest; the domain in it says what the signature means.
    pub fn sign(&self, digest: &Digest) -> Signature {
        Signature::from_bytes(self.inner.sign(digest.as_bytes()).to_bytes())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SigningKey").field("public_key", &self.public_key()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::ToString;
    use std::vec::Vec;

    use curve25519_dalek::constants::EIGHT_TORSION;
    use curve25519_dalek::edwards::CompressedEdwardsY;
    use getrandom::SysRng;
    use rand_core::UnwrapErr;

    use super::{KeyError, PRIME, PublicKey, SMALL_ORDER_Y, SigningKey};
    use crate::digest::hash;
    use crate::domain::Domain;
    use crate::hex::HexError;
    use crate::signature::verify;

    /// The 38 encodings whose y is not below the prime.
    fn non_canonical() -> impl Iterator<Item = [u8; 32]> {
        (0..19).zip([PRIME; 19]).flat_map(|(above, mut bytes)| {
            bytes[0] += above;
            let mut negative = bytes;
            negative[31] |= 0x80;
            [bytes, negative]
        })
    }

    #[test]
    fn each_of_the_fourteen_encodings_in_the_table_is_of_small_order_and_refused() {
        let mut points = Vec::new();
        for y in SMALL_ORDER_Y {
            for sign in [0, 0x80] {
                let mut bytes = y;
                bytes[31] |= sign;
                let point = CompressedEdwardsY(bytes).decompress().expect("a point");
                assert!(point.is_small_order());
                points.push(point);
                assert_eq!(PublicKey::from_bytes(bytes), Err(KeyError::SmallOrder), "{bytes:02x?}");
            }
        }
        assert_eq!(points.len(), 14);
        assert!(EIGHT_TORSION.iter().all(|point| points.contains(point)));
    }

    #[test]
    fn every_point_of_small_order_is_refused_in_its_canonical_encoding() {
        for point in EIGHT_TORSION {
            assert_eq!(PublicKey::from_bytes(point.compress().to_bytes()), Err(KeyError::SmallOrder));
        }
    }

    #[test]
    fn every_encoding_above_the_prime_is_refused_and_the_table_has_all_that_are_of_small_order() {
        for bytes in non_canonical() {
            let point = CompressedEdwardsY(bytes).decompress();
            let is_small = point.is_some_and(|point| point.is_small_order());
            let expected = if is_small { KeyError::SmallOrder } else { KeyError::NotCanonical };
            assert_eq!(PublicKey::from_bytes(bytes), Err(expected), "{bytes:02x?}");
        }
    }

    #[test]
    fn the_greatest_canonical_y_that_is_not_weak_is_accepted() {
        let mut bytes = PRIME;
        bytes[0] -= 2;
        assert!(PublicKey::from_bytes(bytes).is_ok());
        bytes[31] |= 0x80;
        assert!(PublicKey::from_bytes(bytes).is_ok());
    }

    #[test]
    fn a_key_above_the_prime_in_its_lowest_byte_only_is_accepted() {
        let mut bytes = [0xff; 32];
        bytes[31] = 0x7e;
        assert!(PublicKey::from_bytes(bytes).is_ok());
    }

    #[test]
    fn bytes_that_are_no_point_are_told_from_a_key() {
        assert!(SigningKey::from_seed([1; 32]).public_key().is_on_curve());
        let mut bytes = [0; 32];
        bytes[0] = 2;
        assert!(!PublicKey::from_bytes(bytes).expect("canonical").is_on_curve());
    }

    #[test]
    fn own_public_keys_pass_the_rules_for_others() {
        for seed in 0..=255 {
            let key = SigningKey::from_seed([seed; 32]).public_key();
            assert_eq!(PublicKey::from_bytes(*key.as_bytes()), Ok(key));
            assert!(key.is_on_curve());
        }
    }

    #[test]
    fn the_public_key_follows_from_the_seed_as_in_rfc_8032() {
        let public: PublicKey = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a".parse().unwrap();
        let seed = crate::hex::read("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        assert_eq!(SigningKey::from_seed(seed).public_key(), public);
    }

    #[test]
    fn the_text_form_is_read_back_and_vetted() {
        let key = SigningKey::from_seed([2; 32]).public_key();
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!(format!("{key:?}"), key.to_string());
        assert_eq!("0".repeat(64).parse::<PublicKey>(), Err(KeyError::SmallOrder));
        assert_eq!("f".repeat(64).parse::<PublicKey>(), Err(KeyError::NotCanonical));
        let short = KeyError::Text(HexError::Length { expected: 64, found: 1 });
        assert_eq!("0".parse::<PublicKey>(), Err(short));
    }

    #[test]
    fn generated_keys_differ_and_their_signatures_are_valid() {
        let mut rng = UnwrapErr(SysRng);
        let (first, second) = (SigningKey::generate(&mut rng), SigningKey::generate(&mut rng));
        assert_ne!(first.public_key(), second.public_key());
        let digest = hash(Domain::Commit, &[]);
        assert_eq!(verify(&first.public_key(), &digest, &first.sign(&digest)), Ok(()));
        assert!(verify(&second.public_key(), &digest, &first.sign(&digest)).is_err());
    }

    #[test]
    fn a_private_key_file_is_read_back_and_is_version_1() {
        let key = SigningKey::from_seed([3; 32]);
        let read = SigningKey::from_pkcs8_pem(&key.to_pkcs8_pem().unwrap()).unwrap();
        assert_eq!(read.public_key(), key.public_key());
        let der = key.to_pkcs8_der().unwrap();
        // SEQUENCE of 46 bytes, INTEGER 0 (version 1), SEQUENCE { 1.3.101.112 }, the seed in two octet strings.
        assert_eq!(der[..16], [0x30, 46, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 34, 4, 32]);
        assert_eq!(der[16..], [3; 32]);
    }

    #[test]
    fn what_is_no_private_key_file_is_refused() {
        let pem = SigningKey::from_seed([3; 32]).to_pkcs8_pem().unwrap();
        for text in ["", "-----BEGIN PRIVATE KEY-----", &pem[..pem.len() / 2], &pem.replace("PRIVATE", "PUBLIC")] {
            assert!(matches!(SigningKey::from_pkcs8_pem(text), Err(KeyError::Pkcs8(_))), "{text}");
        }
    }

    #[test]
    fn a_signing_key_is_wiped_on_drop() {
        // Memory cannot be looked at without unsafe code; the marker exists only if the feature `zeroize` is on.
        fn is_wiped(_: &impl zeroize::ZeroizeOnDrop) {}
        is_wiped(&SigningKey::from_seed([4; 32]).inner);
    }

    #[test]
    fn a_signing_key_prints_its_public_half_only() {
        let seed = [0xa5; 32];
        let key = SigningKey::from_seed(seed);
        let printed = format!("{key:?} {key:#?}");
        assert!(printed.contains(&key.public_key().to_string()));
        assert!(!printed.contains("a5a5") && !printed.contains("165"), "{printed}");
    }
}
