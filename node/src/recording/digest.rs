//! Outputs as a recording keeps them: a checksum each, enough to see which one differs. They are computed anew at a replay,
//! and compared by the program that made them.

use std::hash::{Hash as _, Hasher};

use quorate_protocol::Output;
use quorate_protocol::codec::List;
use quorate_protocol::recording::{DIGESTS_MAX, Digests};

/// CRC-32 of what is hashed.
#[derive(Debug)]
struct Checksum(crc32fast::Hasher);

impl Hasher for Checksum {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        self.0.clone().finalize().into()
    }
}

/// Digests of the outputs since the last input.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    /// Bound: [`DIGESTS_MAX`].
    digests: Vec<u32>,
}

impl Outputs {
    /// Notes one.
    pub(crate) fn note(&mut self, output: &Output) {
        let mut checksum = Checksum(crc32fast::Hasher::new());
        output.hash(&mut checksum);
        let digest = checksum.0.finalize();
        if self.digests.len() < DIGESTS_MAX {
            self.digests.push(digest);
        } else if let Some(last) = self.digests.last_mut() {
            *last = crc32fast::hash(&[last.to_le_bytes(), digest.to_le_bytes()].concat());
        }
    }

    /// All of them, and begins anew.
    pub(crate) fn take(&mut self) -> Digests {
        let digests = self.digests.clone();
        self.digests.clear();
        List::new(digests).expect("they are folded beyond the bound")
    }
}

#[cfg(test)]
mod tests {
    use quorate_protocol::number::{RecordNumber, Sequence};
    use quorate_protocol::output::Notice;

    use super::*;

    fn digests(outputs: impl IntoIterator<Item = Output>) -> Vec<u32> {
        let mut noted = Outputs::default();
        outputs.into_iter().for_each(|output| noted.note(&output));
        noted.take().into_vec()
    }

    #[test]
    fn different_outputs_have_different_digests_and_equal_ones_the_same() {
        let cut = |number| Output::Cut { before: RecordNumber::new(number) };
        let found = digests([cut(1), cut(2), cut(1), Output::Notice(Notice::Stable { sequence: Sequence::new(1) })]);
        assert_eq!(found[0], found[2]);
        assert!(found[0] != found[1] && found[0] != found[3] && found[1] != found[3]);
    }

    #[test]
    fn of_more_outputs_than_are_kept_each_still_counts() {
        let cuts = |last| {
            let number = |index| if index == DIGESTS_MAX + 1 { last } else { index as u64 };
            digests((0..DIGESTS_MAX + 2).map(|index| Output::Cut { before: RecordNumber::new(number(index)) }))
        };
        let (one, other) = (cuts(7), cuts(8));
        assert_eq!((one.len(), other.len()), (DIGESTS_MAX, DIGESTS_MAX));
        assert_ne!(one.last(), other.last());
    }
}
