//! [`Digest`]: SHA-256 under a domain tag, the only thing that is ever signed (PROTOCOL §3).

use core::fmt;
use core::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::domain::Domain;
use crate::hex::{self, HexError};

/// 32 bytes that name what was hashed. Its text form is 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// All zero: stands for "nothing", for instance an empty leaf of a Merkle tree. No known input hashes to it.
    pub const ZERO: Self = Self([0; 32]);

    /// Takes bytes that are a digest already, from a message or a file.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(&self.0, formatter)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(&self.0, formatter)
    }
}

impl FromStr for Digest {
    type Err = HexError;

    fn from_str(text: &str) -> Result<Self, HexError> {
        hex::read(text).map(Self)
    }
}

/// Hashes a value piece by piece. The domain's tag goes first; no length is added, so the pieces must be of fixed
/// length, or carry their lengths.
#[derive(Clone, Debug)]
pub struct Hasher {
    sha256: Sha256,
}

impl Hasher {
    /// Starts a digest of `domain`.
    pub fn new(domain: Domain) -> Self {
        Self { sha256: Sha256::new_with_prefix(domain.tag()) }
    }

    /// Appends bytes as they are.
    pub fn update(&mut self, bytes: &[u8]) -> &mut Self {
        self.sha256.update(bytes);
        self
    }

    /// Appends a number as eight bytes, the lowest first.
    pub fn update_u64(&mut self, number: u64) -> &mut Self {
        self.update(&number.to_le_bytes())
    }

    /// The digest of everything so far.
    pub fn finish(self) -> Digest {
        Digest(self.sha256.finalize().into())
    }
}

/// The digest of `parts`, one after the other and without their lengths, under `domain`.
pub fn hash(domain: Domain, parts: &[&[u8]]) -> Digest {
    let mut hasher = Hasher::new(domain);
    for part in parts {
        hasher.update(part);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::ToString;

    use super::{Digest, Hasher, hash};
    use crate::domain::Domain;
    use crate::hex::HexError;

    #[test]
    fn a_digest_is_sha_256_of_the_tag_and_the_bytes() {
        // printf 'quorate/1/prepare\0abc' | sha256sum
        let expected = "63879bd84a3f8a7ab5c917e5f8cfedd0848bcf8672694d06a823084be42d7a01";
        assert_eq!(hash(Domain::Prepare, &[b"abc"]).to_string(), expected);
    }

    #[test]
    fn a_number_is_hashed_as_eight_bytes_the_lowest_first() {
        let mut hasher = Hasher::new(Domain::Commit);
        hasher.update(b"a").update_u64(0x0102_0304_0506_0708).update(b"b");
        assert_eq!(hasher.finish(), hash(Domain::Commit, &[b"a", &[8, 7, 6, 5, 4, 3, 2, 1], b"b"]));
    }

    #[test]
    fn equal_bytes_under_two_domains_have_two_digests() {
        for domain in Domain::ALL {
            for other in Domain::ALL {
                assert_eq!(hash(domain, &[b"x"]) == hash(other, &[b"x"]), domain == other);
            }
        }
    }

    #[test]
    fn the_text_form_is_read_back() {
        let digest = hash(Domain::Batch, &[]);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(format!("{digest:?}"), digest.to_string());
        assert_eq!("00".parse::<Digest>(), Err(HexError::Length { expected: 64, found: 2 }));
        assert_eq!("0".repeat(64).parse(), Ok(Digest::ZERO));
    }

    #[test]
    fn digests_are_ordered_as_their_bytes() {
        let mut low = [0; 32];
        low[31] = 0xff;
        let mut high = [0; 32];
        high[0] = 1;
        assert!(Digest::ZERO < Digest::from_bytes(low));
        assert!(Digest::from_bytes(low) < Digest::from_bytes(high));
    }
}
