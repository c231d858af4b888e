//! Which operations a request holds: puts and gets of keys drawn at random, values drawn at random.

use quorate_protocol::codec::Blob;
use quorate_protocol::kv::Operation;

use super::options::{Load, Share};

/// What values are made of: text, so that a history holds them as they are, yet six random bits a byte.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// An operation before it has bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Call {
    /// Writes a value.
    Put { key: String, value: String },
    /// Reads a value.
    Get { key: String },
}

/// Draws one request after the other.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    random: Random,
    prefix: String,
    keys: u64,
    reads: Share,
    value_size: usize,
    operations: usize,
}

impl Workload {
    /// The load's requests. Workloads of different seeds differ; keys begin with `prefix`.
    pub(super) fn new(load: &Load, prefix: String, seed: u64) -> Self {
        Self {
            random: Random(seed),
            prefix,
            keys: load.keys,
            reads: load.reads,
            value_size: load.value_size,
            operations: load.operations,
        }
    }

    /// The next request's operations.
    pub(super) fn next(&mut self) -> Vec<Call> {
        (0..self.operations).map(|_| self.call()).collect()
    }

    fn call(&mut self) -> Call {
        let index = self.random.below(self.keys);
        let key = format!("{}{index:08}", self.prefix);
        if self.random.fraction() < self.reads.fraction() {
            return Call::Get { key };
        }
        Call::Put { key, value: self.random.text(self.value_size) }
    }
}

impl Call {
    /// Its bytes. What breaks a bound of the store becomes an operation that it refuses.
    pub(super) fn encode(&self) -> Blob {
        let operation = match self {
            Self::Put { key, value } => Operation::put(key.as_bytes(), value.as_bytes()),
            Self::Get { key } => Operation::get(key.as_bytes()),
        };
        operation.encode().unwrap_or_default()
    }
}

/// What keys begin with; in a history, where nothing may be known of the keys beforehand, with the run's own number.
pub(super) fn prefix(run: Option<u64>) -> String {
    run.map_or_else(|| "bench/".to_owned(), |run| format!("bench-{run:016x}/"))
}

/// A key as long as any that is drawn.
pub(super) fn longest_key() -> Vec<u8> {
    format!("{}{}", prefix(Some(u64::MAX)), u64::MAX).into_bytes()
}

/// The sequence of splitmix64: fast, and good enough to choose keys.
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from zero up to `bound`, without it.
    fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.next()) * u128::from(bound);
        u64::try_from(product >> 64).unwrap_or(0)
    }

    /// A number from zero up to one, without it.
    fn fraction(&mut self) -> f64 {
        let bits = u32::try_from(self.next() >> 32).unwrap_or(0);
        f64::from(bits) / (f64::from(u32::MAX) + 1.0)
    }

    fn text(&mut self, length: usize) -> String {
        let mut text = String::with_capacity(length);
        let (mut bits, mut left) = (0, 0);
        for _ in 0..length {
            if left == 0 {
                (bits, left) = (self.next(), 10);
            }
            text.push(char::from(ALPHABET[(bits & 63) as usize]));
            bits >>= 6;
            left -= 1;
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn workload(load: &Load) -> Workload {
        Workload::new(load, prefix(None), 7)
    }

    #[test]
    fn requests_hold_as_many_operations_with_values_as_long_as_asked() {
        let load = Load { operations: 3, value_size: 37, ..Load::default() };
        for _ in 0..100 {
            let calls = workload(&load).next();
            assert_eq!(calls.len(), 3);
            assert!(calls.iter().all(|call| matches!(call, Call::Put { value, .. } if value.len() == 37)));
        }
    }

    #[test]
    fn reads_come_as_often_as_asked() {
        let reads = |share: &str| {
            let mut workload = workload(&Load { reads: share.parse().unwrap(), ..Load::default() });
            (0..10_000).filter(|_| matches!(workload.next()[0], Call::Get { .. })).count()
        };
        assert_eq!(reads("0%"), 0);
        assert_eq!(reads("100%"), 10_000);
        assert!((2_300..2_700).contains(&reads("25%")));
    }

    #[test]
    fn every_key_is_drawn_and_no_other() {
        let mut workload = workload(&Load { keys: 10, ..Load::default() });
        let keys: BTreeSet<String> = (0..1_000)
            .flat_map(|_| workload.next())
            .map(|call| match call {
                Call::Put { key, .. } | Call::Get { key } => key,
            })
            .collect();
        let expected: BTreeSet<String> = (0..10).map(|index| format!("bench/{index:08}")).collect();
        assert_eq!(keys, expected);
    }

    #[test]
    fn values_differ() {
        let mut workload = workload(&Load::default());
        let values: BTreeSet<Vec<u8>> = (0..1_000).map(|_| workload.next()[0].encode().to_vec()).collect();
        assert_eq!(values.len(), 1_000);
    }
}
