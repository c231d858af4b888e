//! A key as the map holds it: short ones in place, so that a search does not follow a pointer for each comparison.

use alloc::boxed::Box;
use core::borrow::Borrow;
use core::cmp::Ordering;
use core::hash::{Hash, Hasher};

/// Longest key that is held in place, in bytes: as much as fits beside its length where a pointer to a longer one does.
const SHORT_BYTES_MAX: usize = 22;

/// The bytes of a key, ordered as bytes are.
#[derive(Debug, Clone)]
pub(super) enum Key {
    /// The bytes, and as many zeros as are left.
    Short { length: u8, bytes: [u8; SHORT_BYTES_MAX] },
    /// The bytes of a longer key.
    Long(Box<[u8]>),
}

// Short keys are free.
const _: () = assert!(size_of::<Key>() == 24);

impl From<&[u8]> for Key {
    fn from(key: &[u8]) -> Self {
        match u8::try_from(key.len()) {
            Ok(length) if key.len() <= SHORT_BYTES_MAX => {
                let mut bytes = [0; SHORT_BYTES_MAX];
                bytes[..key.len()].copy_from_slice(key);
                Self::Short { length, bytes }
            }
            Ok(_) | Err(_) => Self::Long(key.into()),
        }
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        match self {
            Self::Short { length, bytes } => &bytes[..usize::from(*length)],
            Self::Long(bytes) => bytes,
        }
    }
}

impl Key {
    /// The bytes.
    pub(super) fn as_slice(&self) -> &[u8] {
        self.borrow()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            // The zeros that fill up are no greater than any byte, so only where all is equal the length decides: the
            // order of the bytes, found without looking at lengths first.
            (Self::Short { length: left, bytes }, Self::Short { length: right, bytes: others }) => {
                numbers(bytes).cmp(&numbers(others)).then(left.cmp(right))
            }
            _ => self.as_slice().cmp(other.as_slice()),
        }
    }
}

/// The bytes as two numbers, which compare as the bytes do and with two instructions.
fn numbers(bytes: &[u8; SHORT_BYTES_MAX]) -> (u128, u64) {
    const HIGH_BYTES: usize = size_of::<u128>();
    let (mut high, mut low) = ([0; HIGH_BYTES], [0; size_of::<u64>()]);
    high.copy_from_slice(&bytes[..HIGH_BYTES]);
    low[..SHORT_BYTES_MAX - HIGH_BYTES].copy_from_slice(&bytes[HIGH_BYTES..]);
    (u128::from_be_bytes(high), u64::from_be_bytes(low))
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn keys_of_every_length_are_ordered_as_their_bytes() {
        let mut keys = vec![];
        for length in 0..40 {
            for last in [0, 1, 0xff] {
                keys.push([&vec![1; length][..], &[last]].concat());
                keys.push(vec![last; length]);
            }
        }
        for left in &keys {
            assert_eq!(Key::from(&left[..]).as_slice(), left);
            for right in &keys {
                assert_eq!(Key::from(&left[..]).cmp(&Key::from(&right[..])), left.cmp(right));
            }
        }
    }
}
