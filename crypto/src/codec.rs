//! How digests, keys and signatures are encoded: their bytes as they are, without a length, in every configuration of
//! the encoding. The only file of this crate that names bincode, so that it can be replaced.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions))]

use bincode::de::{Decode, Decoder};
use bincode::enc::{Encode, Encoder};
use bincode::error::{DecodeError, EncodeError};

use crate::digest::Digest;
use crate::key::{KeyError, PublicKey};
use crate::signature::Signature;

impl Encode for Digest {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.as_bytes().encode(encoder)
    }
}

impl<Context> Decode<Context> for Digest {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        <[u8; 32]>::decode(decoder).map(Self::from_bytes)
    }
}

impl Encode for PublicKey {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.as_bytes().encode(encoder)
    }
}

/// Applies the byte-wise rules of [`PublicKey::from_bytes`].
impl<Context> Decode<Context> for PublicKey {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Self::from_bytes(<[u8; 32]>::decode(decoder)?).map_err(|error| match error {
            KeyError::SmallOrder => DecodeError::Other("public key: a point of small order"),
            _ => DecodeError::Other("public key: not a canonical encoding"),
        })
    }
}

impl Encode for Signature {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.as_bytes().encode(encoder)
    }
}

impl<Context> Decode<Context> for Signature {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        <[u8; 64]>::decode(decoder).map(Self::from_bytes)
    }
}

bincode::impl_borrow_decode!(Digest);
bincode::impl_borrow_decode!(PublicKey);
bincode::impl_borrow_decode!(Signature);

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use bincode::config::{legacy, standard};
    use bincode::error::DecodeError;
    use bincode::{borrow_decode_from_slice, decode_from_slice, encode_to_vec};

    use crate::digest::{Digest, hash};
    use crate::domain::Domain;
    use crate::key::{PublicKey, SigningKey};
    use crate::signature::Signature;

    type Triple = (Digest, PublicKey, Signature);

    fn triple() -> Triple {
        let key = SigningKey::from_seed([7; 32]);
        let digest = hash(Domain::Request, &[b"encoded"]);
        (digest, key.public_key(), key.sign(&digest))
    }

    #[test]
    fn the_encoding_is_the_bytes_and_nothing_else() {
        let (digest, key, signature) = triple();
        let bytes: Vec<u8> = [&digest.as_bytes()[..], &key.as_bytes()[..], &signature.as_bytes()[..]].concat();
        assert_eq!(encode_to_vec(triple(), legacy()).unwrap(), bytes);
        assert_eq!(encode_to_vec(triple(), standard()).unwrap(), bytes);
    }

    #[test]
    fn what_was_encoded_is_decoded_owned_and_borrowed() {
        let bytes = encode_to_vec(triple(), legacy()).unwrap();
        assert_eq!(decode_from_slice::<Triple, _>(&bytes, legacy()).unwrap(), (triple(), 128));
        assert_eq!(borrow_decode_from_slice::<Triple, _>(&bytes, legacy()).unwrap(), (triple(), 128));
    }

    #[test]
    fn bytes_cut_short_are_refused() {
        let bytes = encode_to_vec(triple(), legacy()).unwrap();
        for length in 0..bytes.len() {
            assert!(decode_from_slice::<Triple, _>(&bytes[..length], legacy()).is_err());
        }
    }

    #[test]
    fn a_weak_or_non_canonical_key_is_not_decoded() {
        let weak = decode_from_slice::<PublicKey, _>(&[0; 32], legacy());
        assert!(matches!(weak, Err(DecodeError::Other("public key: a point of small order"))));
        let other = decode_from_slice::<PublicKey, _>(&[0xff; 32], legacy());
        assert!(matches!(other, Err(DecodeError::Other("public key: not a canonical encoding"))));
        assert!(borrow_decode_from_slice::<PublicKey, _>(&[0; 32], legacy()).is_err());
    }
}
