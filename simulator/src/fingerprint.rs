//! A number that stands for a whole run: two runs of one seed must give the same, on every machine and in every build.

/// Folds words and bytes, in order. No protection against anyone: it compares runs of our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Fingerprint(u64);

/// An odd number without pattern: the golden ratio in 64 bits.
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

impl Fingerprint {
    pub(crate) const fn fold(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(MULTIPLIER);
    }

    pub(crate) fn fold_bytes(&mut self, bytes: &[u8]) {
        self.fold(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.fold(u64::from_le_bytes(*word));
        }
        self.fold(rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    }

    pub(crate) const fn value(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> u64 {
        let mut fingerprint = Fingerprint::default();
        fingerprint.fold_bytes(bytes);
        fingerprint.value()
    }

    #[test]
    fn order_length_and_every_byte_count() {
        let different = [&b"abcdefghij"[..], b"abcdefghji", b"abcdefghi", b"jbcdefghia", b""];
        let values: std::collections::BTreeSet<u64> = different.iter().map(|bytes| of(bytes)).collect();
        assert_eq!(values.len(), different.len());
        assert_eq!(of(b"abcdefghij"), of(b"abcdefghij"));
    }
}
