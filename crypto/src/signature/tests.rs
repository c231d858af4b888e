//! One rule, whatever the path: published vectors and constructed signatures get the same verdict alone and in batches,
//! at every place and in any company (PROTOCOL §3).

use std::borrow::ToOwned;
use std::collections::HashSet;
use std::format;
use std::vec::Vec;

use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use ed25519_zebra::{VerificationKey, VerificationKeyBytes};
use getrandom::SysRng;
use rand_core::UnwrapErr;
use sha2::{Digest as _, Sha512};

use super::{
    BATCH_COUNT_MIN, Challenge, FirstInvalid, InvalidSignature, Item, KNOWN_KEYS_MAX, KnownKeys, Signature,
    are_all_valid, first_invalid, is_valid, verify,
};
use crate::digest::{Digest, hash};
use crate::domain::Domain;
use crate::hex;
use crate::key::{PublicKey, SigningKey};

const RNG: UnwrapErr<SysRng> = UnwrapErr(SysRng);

/// A signature over any message, under any 32 bytes as a key.
#[derive(Clone)]
struct Case {
    key: [u8; 32],
    message: Vec<u8>,
    signature: Signature,
}

impl Case {
    fn challenge(&self) -> Challenge<'_> {
        Challenge { key: self.key, message: &self.message, signature: &self.signature }
    }
}

fn case_from_hex(key: &str, message: &str, signature: &str) -> Case {
    let message = message.as_bytes().chunks(2).map(|pair| {
        let [byte] = hex::read(str::from_utf8(pair).unwrap()).unwrap();
        byte
    });
    Case {
        key: hex::read(key).unwrap(),
        message: message.collect(),
        signature: Signature(hex::read(signature).unwrap()),
    }
}

/// An honest signature, one of many by `signer`.
fn honest(signer: u8, message: u8) -> Case {
    let key = SigningKey::from_seed([signer; 32]);
    let digest = hash(Domain::Request, &[&[message]]);
    let message = digest.as_bytes().to_vec();
    Case { key: *key.public_key().as_bytes(), message, signature: key.sign(&digest) }
}

/// Whether the key is known or not, one signature has one verdict, and only a valid one makes its key known.
fn is_valid_alone(case: &Case) -> bool {
    let mut known = KnownKeys::default();
    let verdict = is_valid(&case.challenge(), &mut known);
    assert_eq!(known.single.len(), usize::from(verdict));
    let key = VerificationKey::try_from(VerificationKeyBytes::from(case.key));
    known.single.extend(key.map(|key| (case.key, key)));
    assert_eq!(is_valid(&case.challenge(), &mut known), verdict);
    verdict
}

/// Asks for a verdict on every path and demands that each is `expected`.
fn assert_verdict(case: &Case, expected: bool, name: &str) {
    assert_eq!(is_valid_alone(case), expected, "{name}, alone");
    for batch_count in [1, 2, 3, 4, 7, 16] {
        for position in [0, batch_count / 2, batch_count - 1] {
            for signer_count in [1, 3] {
                assert_verdict_in_batch(case, expected, (batch_count, position, signer_count), name);
            }
        }
    }
}

fn assert_verdict_in_batch(case: &Case, expected: bool, place: (u8, u8, u8), name: &str) {
    let (batch_count, position, signer_count) = place;
    let members = (0..batch_count)
        .map(|index| if index == position { case.clone() } else { honest(index % signer_count, index) });
    let members: Vec<_> = members.collect();
    let challenges: Vec<_> = members.iter().map(Case::challenge).collect();
    let first = (!expected).then_some(usize::from(position));
    let mut known = KnownKeys::default();
    for keys in ["unknown", "known"] {
        let verdict = are_all_valid(&challenges, &mut known, RNG);
        assert_eq!(verdict, expected, "{name}, in a batch at {place:?}, keys {keys}");
        assert_eq!(first_invalid(&challenges, &mut known, RNG), first, "{name}, in a batch at {place:?}");
        // A key may well be known by what else it signed.
        let point = CompressedEdwardsY(case.key).decompress();
        known.points.extend(point.map(|point| (case.key, point)));
    }
}

/// The twelve vectors of Chalkias, Garillot and Nikolaenko, _Taming the many `EdDSAs`_ (SSR 2020), as key, message,
/// signature, verdict of ZIP 215 and the paper's remark. (Of the two whose key is not canonical both are valid: the key is
/// of small order, so times eight nothing is left of it, whatever the hash.)
const SPECIFICATION_VECTORS: [(&str, &str, &str, bool, &str); 12] = [
    (
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "8c93255d71dcab10e8f379c26200f3c7bd5f09d9bc3068d3ef4edeb4853022b6",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a000000000000000000000000000000000000\
         0000000000000000000000000000",
        true,
        "small key and R",
    ),
    (
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43a5bb704786be79fc476f91d3f3f89b03984d\
         8068dcf1bb7dfc6637b45450ac04",
        true,
        "small key",
    ),
    (
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "aebf3f2601a0c8c5d39cc7d8911642f740b78168218da8471772b35f9d35b9ab",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa8c4bd45aecaca5b24fb97bc10ac27ac8751a\
         7dfe1baff8b953ec9f5833ca260e",
        true,
        "small R",
    ),
    (
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
        "9046a64750444938de19f227bb80485e92b83fdb4b6506c160484c016cc1852f87909e14428a7a1d62e9f22f3d3ad7802db0\
         2eb2e688b6c52fcd6648a98bd009",
        true,
        "mixed key and R",
    ),
    (
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
        "160a1cb0dc9c0258cd0a7d23e94d8fa878bcb1925f2c64246b2dee1796bed5125ec6bc982a269b723e0668e540911a9a6a58\
         921d6925e434ab10aa7940551a09",
        true,
        "mixed key and R, valid only times eight",
    ),
    (
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
        "21122a84e0b5fca4052f5b1235c80a537878b38f3142356b2c2384ebad4668b7e40bc836dac0f71076f9abe3a53f9c03c1ce\
         eeddb658d0030494ace586687405",
        true,
        "mixed key, valid only unless reduced times eight",
    ),
    (
        "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
        "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
        "e96f66be976d82e60150baecff9906684aebb1ef181f67a7189ac78ea23b6c0e547f7690a0e2ddcd04d87dbc3490dc19b3b3\
         052f7ff0538cb68afb369ba3a514",
        false,
        "s above the order",
    ),
    (
        "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
        "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
        "8ce5b96c8f26d0ab6c47958c9e68b937104cd36e13c33566acd2fe8d38aa19427e71f98a473474f2f13f06f97c20d58cc3f5\
         4b8bd0d272f42b695dd7e89a8c22",
        false,
        "s far above the order",
    ),
    (
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "9bedc267423725d473888631ebf45988bad3db83851ee85c85e241a07d148b41",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff03be9678ac102edcd92b0210bb34d7428d12\
         ffc5df5f37e359941266a4e35f0f",
        false,
        "R not canonical, reduced in the hash",
    ),
    (
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "9bedc267423725d473888631ebf45988bad3db83851ee85c85e241a07d148b41",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffca8c5b64cd208982aa38d4936621a4775aa2\
         33aa0505711d8fdcfdaa943d4908",
        true,
        "R not canonical, as it is in the hash",
    ),
    (
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "e96b7021eb39c1a163b6da4e3093dcd3f21387da4cc4572be588fafae23c155b",
        "a9d55260f765261eb9b84e106f665e00b867287a761990d7135963ee0a7d59dca5bb704786be79fc476f91d3f3f89b03984d\
         8068dcf1bb7dfc6637b45450ac04",
        true,
        "key not canonical, reduced in the hash",
    ),
    (
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "39a591f5321bbe07fd5a23dc2f39d025d74526615746727ceefd6e82ae65c06f",
        "a9d55260f765261eb9b84e106f665e00b867287a761990d7135963ee0a7d59dca5bb704786be79fc476f91d3f3f89b03984d\
         8068dcf1bb7dfc6637b45450ac04",
        true,
        "key not canonical, as it is in the hash",
    ),
];

#[test]
fn the_twelve_published_vectors_get_the_verdict_of_zip_215_on_every_path() {
    for (number, (key, message, signature, expected, remark)) in SPECIFICATION_VECTORS.into_iter().enumerate() {
        let case = case_from_hex(key, message, signature);
        assert_verdict(&case, expected, &format!("vector {number} ({remark})"));
    }
}

/// Test 1 to 3 of RFC 8032, section 7.1: key, message, signature.
const RFC_8032_VECTORS: [(&str, &str, &str); 3] = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe246\
         55141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb\
         00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc\
         027beceea1ec40a",
    ),
];

#[test]
fn the_vectors_of_rfc_8032_are_valid() {
    for (key, message, signature) in RFC_8032_VECTORS {
        let case = case_from_hex(key, message, signature);
        assert_verdict(&case, true, key);
        let mut changed = case.clone();
        changed.message.push(0);
        assert_verdict(&changed, false, key);
    }
}

/// The fourteen encodings of the eight points of small order.
fn small_order_encodings() -> Vec<[u8; 32]> {
    let canonical = EIGHT_TORSION.map(|point| point.compress().to_bytes());
    let mut encodings: HashSet<_> = canonical.into_iter().collect();
    for low in [0xed, 0xee] {
        let mut y = [0xff; 32];
        y[0] = low;
        y[31] = 0x7f;
        encodings.insert(y);
    }
    for encoding in encodings.clone() {
        let mut other_sign = encoding;
        other_sign[31] ^= 0x80;
        encodings.insert(other_sign);
    }
    assert_eq!(encodings.len(), 14);
    encodings.into_iter().collect()
}

#[test]
fn small_order_points_as_key_and_as_r_get_one_verdict_on_every_path() {
    let encodings = small_order_encodings();
    for key in &encodings {
        for r in &encodings {
            for (s, expected) in [(0, true), (1, false)] {
                let mut signature = [0; 64];
                signature[..32].copy_from_slice(r);
                signature[32] = s;
                let case = Case { key: *key, message: b"any".to_vec(), signature: Signature(signature) };
                let name = format!("key {key:02x?}, r {r:02x?}, s {s}");
                assert_eq!(is_valid_alone(&case), expected, "{name}");
                for place in [(1, 0, 1), (4, 2, 2)] {
                    assert_verdict_in_batch(&case, expected, place, &name);
                }
            }
        }
    }
}

/// Signs as usual, but moves `R` by a point of small order, and answers the challenge that belongs to the moved one.
fn sign_with_moved_r(seed: u8, message: &[u8], torsion_index: usize) -> Case {
    let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
    let public = key.verifying_key().to_bytes();
    let nonce = Scalar::from_bytes_mod_order_wide(&Sha512::digest([&[seed], message].concat()).into());
    let r = (ED25519_BASEPOINT_POINT * nonce + EIGHT_TORSION[torsion_index]).compress().to_bytes();
    let k = Scalar::from_bytes_mod_order_wide(&Sha512::digest([&r[..], &public[..], message].concat()).into());
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&r);
    signature[32..].copy_from_slice((nonce + k * key.to_scalar()).as_bytes());
    Case { key: public, message: message.to_owned(), signature: Signature(signature) }
}

#[test]
fn an_r_moved_by_a_point_of_small_order_gets_one_verdict_on_every_path() {
    // Index i of the table has order 8 / gcd(i, 8): none, 8, 4, 8, 2, 8, 4, 8.
    for torsion_index in 0..8 {
        for seed in 0..4 {
            let name = format!("torsion {torsion_index}, signer {seed}");
            let case = sign_with_moved_r(seed, b"moved", torsion_index);
            assert_verdict(&case, true, &name);
            let mut wrong = case.clone();
            wrong.message.push(0);
            assert_verdict(&wrong, false, &name);
        }
    }
}

#[test]
fn several_moved_signatures_in_one_batch_do_not_cancel_or_add_up() {
    for batch_count in [2, 3, 8, 32] {
        let members = (0..batch_count).map(|index| sign_with_moved_r(index % 3, &[index], usize::from(index % 8)));
        let members: Vec<_> = members.collect();
        let challenges: Vec<_> = members.iter().map(Case::challenge).collect();
        let mut known = KnownKeys::default();
        for _ in ["unknown", "known"] {
            assert!(members.iter().all(is_valid_alone));
            assert!(are_all_valid(&challenges, &mut known, RNG));
            assert_eq!(first_invalid(&challenges, &mut known, RNG), None);
        }
    }
}

#[test]
fn a_signature_whose_s_is_not_reduced_is_invalid() {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut case = honest(1, 1);
    assert_verdict(&case, true, "s");
    let mut carry = 0;
    for (byte, order) in case.signature.0[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        [*byte, _] = sum.to_le_bytes();
        carry = sum >> 8;
    }
    assert_verdict(&case, false, "s + order");
}

/// Whether it finds the keys known or not, a batch has one verdict.
fn verify_batch(items: &[Item], rng: UnwrapErr<SysRng>) -> Result<(), FirstInvalid> {
    let mut known = KnownKeys::default();
    let first = super::verify_batch(items, &mut known, rng);
    let others: Vec<_> = items.iter().map(|item| honest_by(item.key)).collect();
    known.points.extend(others.into_iter().flatten());
    assert_eq!(super::verify_batch(items, &mut known, rng), first);
    first
}

/// What a verifier knows of a key.
fn honest_by(key: PublicKey) -> Option<([u8; 32], EdwardsPoint)> {
    Some((*key.as_bytes(), CompressedEdwardsY(*key.as_bytes()).decompress()?))
}

#[test]
fn only_keys_that_signed_something_valid_become_known_and_only_so_many() {
    let mut known = KnownKeys::default();
    let mut items = [item(1, 1), item(2, 2), item(1, 3)];
    assert_eq!(super::verify_batch(&items, &mut known, RNG), Ok(()));
    assert_eq!(known.points.len(), 2);
    items[1] = item(3, 3);
    items[1].digest = Digest::ZERO;
    assert_eq!(super::verify_batch(&items, &mut known, RNG), Err(FirstInvalid { index: 1 }));
    assert_eq!(known.points.len(), 2);
    let filler = |index: usize| {
        let mut key = [0xee; 32];
        key[..8].copy_from_slice(&index.to_le_bytes());
        (key, ED25519_BASEPOINT_POINT)
    };
    known.points.extend((0..KNOWN_KEYS_MAX - 2).map(filler));
    assert_eq!(super::verify_batch(&[item(4, 1), item(5, 1)], &mut known, RNG), Ok(()));
    assert_eq!(known.points.len(), 2);
}

/// A point that is not that of the key would make anything of nothing: it is looked up by all 32 bytes.
#[test]
fn the_point_that_is_kept_is_that_of_the_key() {
    let mut known = KnownKeys::default();
    let items: Vec<_> = (0..8).map(|signer| item(signer, signer)).collect();
    assert_eq!(super::verify_batch(&items, &mut known, RNG), Ok(()));
    for (key, point) in known.points {
        assert_eq!(point.compress().to_bytes(), key);
    }
}

fn item(signer: u8, message: u8) -> Item {
    let key = SigningKey::from_seed([signer; 32]);
    let digest = hash(Domain::Prepare, &[&[message]]);
    Item { key: key.public_key(), digest, signature: key.sign(&digest) }
}

#[test]
fn a_signature_is_valid_for_its_key_and_digest_only() {
    let Item { key, digest, signature } = item(1, 1);
    assert_eq!(verify(&key, &digest, &signature), Ok(()));
    assert_eq!(verify(&item(2, 1).key, &digest, &signature), Err(InvalidSignature));
    assert_eq!(verify(&key, &item(1, 2).digest, &signature), Err(InvalidSignature));
    assert_eq!(verify(&key, &Digest::ZERO, &signature), Err(InvalidSignature));
    for bit in 0..512 {
        let mut changed = signature;
        changed.0[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(verify(&key, &digest, &changed), Err(InvalidSignature), "bit {bit}");
    }
}

#[test]
fn under_a_key_that_is_no_point_nothing_is_valid_and_a_batch_says_where() {
    let off_curve = (2..=255).find_map(|low| {
        let mut bytes = [0; 32];
        bytes[0] = low;
        PublicKey::from_bytes(bytes).ok().filter(|key| !key.is_on_curve())
    });
    for batch_count in [1, 2, 3, 5] {
        let mut items: Vec<_> = (0..batch_count).map(|index| item(index, index)).collect();
        let last = items.len() - 1;
        items[last].key = off_curve.expect("half of all bytes are no point");
        assert_eq!(verify_batch(&items, RNG), Err(FirstInvalid { index: last }));
    }
}

#[test]
fn a_batch_of_any_size_is_valid_if_each_member_is() {
    for batch_count in 0..40 {
        let own_keys: Vec<_> = (0..batch_count).map(|index| item(index, index)).collect();
        assert_eq!(verify_batch(&own_keys, RNG), Ok(()));
        let one_key: Vec<_> = (0..batch_count).map(|index| item(1, index)).collect();
        assert_eq!(verify_batch(&one_key, RNG), Ok(()));
    }
}

#[test]
fn the_first_of_several_bad_members_is_named() {
    for batch_count in 1..=2 * BATCH_COUNT_MIN + 2 {
        for first in 0..batch_count {
            let mut items: Vec<_> = (0..).take(batch_count).map(|index| item(index, index)).collect();
            for bad in items.iter_mut().skip(first).step_by(2) {
                bad.digest = Digest::ZERO;
            }
            assert_eq!(verify_batch(&items, RNG), Err(FirstInvalid { index: first }));
        }
    }
}

#[test]
fn two_errors_that_sum_to_zero_do_not_cancel_out() {
    // s + 1 in one and s - 1 in the other: the plain sum of the equations still holds.
    let mut items = [item(1, 1), item(1, 2), item(1, 3), item(1, 4)];
    for (position, change) in [(1, Scalar::ONE), (2, -Scalar::ONE)] {
        let bytes = &mut items[position].signature.0[32..];
        let s: Scalar = Option::from(Scalar::from_canonical_bytes((&*bytes).try_into().unwrap())).unwrap();
        bytes.copy_from_slice((s + change).as_bytes());
    }
    assert_eq!(verify_batch(&items, RNG), Err(FirstInvalid { index: 1 }));
}
