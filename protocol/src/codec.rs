//! Bytes to values and back: the only file of this crate that names the encoding library.
//!
//! Integers are little endian and of fixed width, an enum's variant is a `u32`, a sequence is its `u32` count and its
//! elements. Each value has one encoding: there are no maps and no variable-width integers, and bytes left over are an
//! error. Whatever is decoded is bounded before it is allocated: each sequence by the constant in its type, the whole
//! by the length of the frame.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions))]

use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bincode::de::read::BorrowReader;
use bincode::de::{BorrowDecoder, Decoder};
use bincode::enc::Encoder;
use bincode::enc::write::Writer;
use bincode::error::{DecodeError, EncodeError};
pub use bincode::{BorrowDecode, Decode, Encode};
use bytes::Bytes;

/// Largest encoded value of any kind, in bytes: a frame never exceeds it, nor does what is decoded from one allocate
/// more than a small multiple of it.
pub const ENCODED_BYTES_MAX: usize = 24 << 20;

/// What most values fit in, in bytes.
const SMALL_BYTES: usize = 64;

const CONFIGURATION: Configuration<LittleEndian, Fixint, Limit<ENCODED_BYTES_MAX>> =
    bincode::config::standard().with_fixed_int_encoding().with_little_endian().with_limit::<ENCODED_BYTES_MAX>();

/// Why bytes are not a value, or a value does not become bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The bytes end early, hold a value out of range, or break a bound.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// The value is followed by bytes that belong to nothing.
    #[error("{0} bytes left over")]
    Trailing(usize),
    /// The value's encoding would exceed [`ENCODED_BYTES_MAX`].
    #[error("longer than {ENCODED_BYTES_MAX} bytes")]
    TooLong,
}

/// The bytes that are being decoded: slices of them become [`Blob`]s without a copy.
#[derive(Debug, Clone)]
pub struct Frame(Bytes);

/// The encoding of `value`.
///
/// # Errors
/// [`CodecError::TooLong`] if it would exceed [`ENCODED_BYTES_MAX`].
pub fn encode<T: Encode>(value: &T) -> Result<Bytes, CodecError> {
    encode_about(value, SMALL_BYTES)
}

/// The same, of a value whose encoding has about `bytes`: a large one grows into place without being copied.
///
/// # Errors
/// [`CodecError::TooLong`] if it would exceed [`ENCODED_BYTES_MAX`].
pub(crate) fn encode_about<T: Encode>(value: &T, bytes: usize) -> Result<Bytes, CodecError> {
    let mut sink = Sink { bytes: Vec::with_capacity(bytes.min(ENCODED_BYTES_MAX)), length_max: ENCODED_BYTES_MAX };
    bincode::encode_into_writer(value, &mut sink, CONFIGURATION).map_err(refused)?;
    // Without slack the bytes need no second allocation beside their own.
    Ok(Bytes::from(sink.bytes.into_boxed_slice()))
}

/// Appends the encoding of `value` to `bytes`.
///
/// # Errors
/// [`CodecError::TooLong`] if it would exceed [`ENCODED_BYTES_MAX`]; `bytes` are then what they were.
pub fn encode_into<T: Encode>(value: &T, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
    let length = bytes.len();
    let mut sink = Sink { bytes: core::mem::take(bytes), length_max: length.saturating_add(ENCODED_BYTES_MAX) };
    let encoded = bincode::encode_into_writer(value, &mut sink, CONFIGURATION).map_err(refused);
    *bytes = sink.bytes;
    if encoded.is_err() {
        bytes.truncate(length);
    }
    encoded
}

/// The value that `bytes` encode, all of them.
///
/// # Errors
/// [`CodecError::Malformed`] or [`CodecError::Trailing`].
pub fn decode<T: for<'a> BorrowDecode<'a, Frame>>(bytes: &Bytes) -> Result<T, CodecError> {
    if bytes.len() > ENCODED_BYTES_MAX {
        return Err(CodecError::TooLong);
    }
    let (value, length) =
        bincode::borrow_decode_from_slice_with_context(bytes, CONFIGURATION, Frame(bytes.clone())).map_err(reason)?;
    if length == bytes.len() { Ok(value) } else { Err(CodecError::Trailing(bytes.len().saturating_sub(length))) }
}

/// The value that `bytes` begin with, whatever follows.
///
/// # Errors
/// [`CodecError::Malformed`].
pub(crate) fn decode_head<T: for<'a> BorrowDecode<'a, Frame>>(bytes: &Bytes) -> Result<T, CodecError> {
    let head = bincode::borrow_decode_from_slice_with_context(bytes, CONFIGURATION, Frame(bytes.clone()));
    head.map(|(value, _)| value).map_err(reason)
}

#[expect(clippy::needless_pass_by_value, reason = "it is the function that map_err calls")]
#[cfg_attr(not(test), expect(clippy::wildcard_enum_match_arm, reason = "the library's errors may become more"))]
fn reason(error: DecodeError) -> CodecError {
    CodecError::Malformed(match error {
        DecodeError::UnexpectedEnd { .. } => "ends early",
        DecodeError::LimitExceeded => "exceeds the limit",
        DecodeError::UnexpectedVariant { .. } => "unknown variant",
        DecodeError::InvalidBooleanValue(_) => "neither true nor false",
        DecodeError::Other(what) => what,
        _ => "not a value of this type",
    })
}

#[expect(clippy::needless_pass_by_value, reason = "it is the function that map_err calls")]
fn refused(error: EncodeError) -> CodecError {
    if matches!(error, EncodeError::Other(_) | EncodeError::UnexpectedEnd) {
        CodecError::TooLong
    } else {
        CodecError::Malformed("value without an encoding")
    }
}

/// A growing buffer that refuses to exceed a length: the library's limit does not bound its encoder.
struct Sink {
    bytes: Vec<u8>,
    length_max: usize,
}

impl Writer for Sink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        if self.bytes.len().saturating_add(bytes.len()) > self.length_max {
            return Err(EncodeError::Other("longer than any encoding may be"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

/// Opaque bytes: when decoded, a slice of the frame that they came in.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Blob(Bytes);

impl Blob {
    /// No bytes.
    pub const EMPTY: Self = Self(Bytes::new());

    /// The bytes, shared.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The bytes, given up.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Bytes> for Blob {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Bytes::from(bytes))
    }
}

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Blob({} bytes)", self.0.len())
    }
}

impl Encode for Blob {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        encode_count(self.0.len(), encoder)?;
        encoder.writer().write(&self.0)
    }
}

impl<'de> BorrowDecode<'de, Frame> for Blob {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Frame>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let length = decode_count(decoder)?;
        decoder.claim_bytes_read(length)?;
        let slice = decoder.borrow_reader().take_bytes(length)?;
        Ok(Self(decoder.context().0.slice_ref(slice)))
    }
}

/// A sequence of at most `MAX` elements.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct List<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> List<T, MAX> {
    /// The sequence of `elements`, or `None` if they are more than `MAX`.
    pub fn new(elements: Vec<T>) -> Option<Self> {
        (elements.len() <= MAX).then_some(Self(elements))
    }

    /// No elements.
    pub const fn empty() -> Self {
        Self(Vec::new())
    }

    /// The elements, given up.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const MAX: usize> Deref for List<T, MAX> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: fmt::Debug, const MAX: usize> fmt::Debug for List<T, MAX> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(&self.0).finish()
    }
}

impl<T: Encode, const MAX: usize> Encode for List<T, MAX> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        encode_count(self.0.len(), encoder)?;
        self.0.iter().try_for_each(|element| element.encode(encoder))
    }
}

impl<'de, T: BorrowDecode<'de, Frame>, const MAX: usize> BorrowDecode<'de, Frame> for List<T, MAX> {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Frame>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let count = decode_count(decoder)?;
        if count > MAX {
            return Err(DecodeError::Other("more elements than the bound"));
        }
        decoder.claim_container_read::<T>(count)?;
        let mut elements = Vec::new();
        for _ in 0..count {
            decoder.unclaim_bytes_read(size_of::<T>());
            elements.push(T::borrow_decode(decoder)?);
        }
        Ok(Self(elements))
    }
}

fn encode_count<E: Encoder>(count: usize, encoder: &mut E) -> Result<(), EncodeError> {
    let count: u32 = count.try_into().or(Err(EncodeError::Other("count exceeds 32 bits")))?;
    count.encode(encoder)
}

fn decode_count<C, D: Decoder<Context = C>>(decoder: &mut D) -> Result<usize, DecodeError> {
    usize::try_from(<u32 as Decode<C>>::decode(decoder)?).or(Err(DecodeError::Other("count exceeds memory")))
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn a_value_has_one_encoding_and_bytes_left_over_are_refused() {
        let list: List<Blob, 3> = List::new(vec![Blob::from(&b"ab"[..]), Blob::EMPTY]).expect("two of three");
        let bytes = encode(&list).expect("short");
        assert_eq!(&bytes[..], [2, 0, 0, 0, 2, 0, 0, 0, b'a', b'b', 0, 0, 0, 0]);
        assert_eq!(decode::<List<Blob, 3>>(&bytes), Ok(list));
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert_eq!(decode::<List<Blob, 3>>(&longer.into()), Err(CodecError::Trailing(1)));
    }

    #[test]
    fn bytes_beyond_what_any_encoding_takes_are_refused_unread() {
        let read = |length| decode::<u8>(&vec![0; length].into());
        assert_eq!(read(ENCODED_BYTES_MAX), Err(CodecError::Trailing(ENCODED_BYTES_MAX - 1)));
        assert_eq!(read(ENCODED_BYTES_MAX + 1), Err(CodecError::TooLong));
    }

    #[test]
    fn a_count_beyond_the_bound_is_refused_before_anything_is_allocated() {
        let bytes = Bytes::from_static(&[4, 0, 0, 0]);
        assert_eq!(decode::<List<u8, 3>>(&bytes), Err(CodecError::Malformed("more elements than the bound")));
    }

    #[test]
    fn a_length_beyond_the_frame_is_refused() {
        let bytes = Bytes::from_static(&[255, 255, 255, 255, 1]);
        assert!(matches!(decode::<Blob>(&bytes), Err(CodecError::Malformed(_))));
    }

    #[test]
    fn it_is_said_what_is_wrong_with_bytes() {
        let reason = |bytes: &'static [u8]| match decode::<Option<bool>>(&Bytes::from_static(bytes)) {
            Err(CodecError::Malformed(reason)) => reason,
            other => unreachable!("{other:?}"),
        };
        assert_eq!(reason(&[1]), "ends early");
        assert_eq!(reason(&[1, 7]), "neither true nor false");
        assert_eq!(reason(&[9]), "unknown variant");
    }

    #[test]
    fn a_decoded_blob_is_a_slice_of_its_frame() {
        let bytes = encode(&Blob::from(&b"same memory"[..])).expect("short");
        let blob = decode::<Blob>(&bytes).expect("just encoded");
        assert_eq!(blob.bytes().as_ptr(), bytes[4..].as_ptr());
    }

    #[test]
    fn the_encoder_is_bounded_too() {
        let blob = Blob::from(vec![0; ENCODED_BYTES_MAX]);
        assert_eq!(encode(&blob), Err(CodecError::TooLong));
        let mut bytes = vec![7; 3];
        assert_eq!(encode_into(&blob, &mut bytes), Err(CodecError::TooLong));
        assert_eq!(bytes, [7; 3], "what was there stays");
        encode_into(&true, &mut bytes).expect("short");
        assert_eq!(bytes, [7, 7, 7, 1]);
    }
}
