//! When what a read depends on was written last. (PROTOCOL §8, fast reads)

use alloc::vec;
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

use super::operation::{Operation, Step};
use crate::number::Sequence;

/// Places for keys: those that share one count as written together.
const PLACES: usize = 1 << 16;

/// The last slot that wrote each key, about, and the last that wrote anything. It follows from what executed since the store
/// was restored, not from the state: stores of equal entries are equal, whatever it says.
#[derive(Debug, Clone)]
pub(super) struct Changed {
    /// By the keys' hashes; empty where nobody asks.
    keys: Vec<Sequence>,
    any: Sequence,
}

impl Changed {
    /// One that takes note of nothing.
    pub(super) const fn untracked() -> Self {
        Self { keys: Vec::new(), any: Sequence::ZERO }
    }

    /// One for a store in which nothing was written yet.
    pub(super) fn tracked() -> Self {
        Self { keys: vec![Sequence::ZERO; PLACES], any: Sequence::ZERO }
    }

    /// The store was restored.
    pub(super) fn clear(&mut self) {
        self.keys.fill(Sequence::ZERO);
        self.any = Sequence::ZERO;
    }

    /// Takes note of what the operation writes, or may write.
    pub(super) fn note(&mut self, operation: &Operation, sequence: Sequence) {
        if self.keys.is_empty() || operation.is_read() {
            return;
        }
        self.any = sequence;
        let mut write = |key: &[u8]| self.keys[place(key)] = sequence;
        let mut write_step = |step: &Step| match step {
            Step::Put { key, .. } | Step::Delete { key } => write(key),
            Step::Get { .. } => {}
        };
        match operation {
            Operation::Step(step) => write_step(step),
            Operation::CompareAndSet { key, .. } => write(key),
            Operation::Range(_) => {}
            Operation::Transaction(transaction) => transaction.steps().for_each(write_step),
        }
    }

    /// The last slot that wrote the key, or one that shares its place; none where nobody asks.
    pub(super) fn key(&self, key: &[u8]) -> Option<Sequence> {
        self.keys.get(place(key)).copied()
    }

    /// The last slot that wrote anything; none where nobody asks.
    pub(super) fn any(&self) -> Option<Sequence> {
        (!self.keys.is_empty()).then_some(self.any)
    }
}

/// Where a key is noted: FNV-1a, the same on every replica. Who makes keys meet has their reads ordered, no more.
fn place(key: &[u8]) -> usize {
    let hash = key
        .iter()
        .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3));
    usize::try_from(hash ^ (hash >> 32)).unwrap_or_default() % PLACES
}

impl PartialEq for Changed {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Changed {}

impl Hash for Changed {
    fn hash<H: Hasher>(&self, _state: &mut H) {}
}
