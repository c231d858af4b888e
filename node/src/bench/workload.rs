//! Which operations a request holds: kinds, keys and values drawn at random.

use std::collections::HashMap;

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
    /// Removes a key.
    Delete { key: String },
    /// Writes `set` if the key holds `expect`, or holds nothing.
    Cas { key: String, expect: Option<String>, set: String },
}

/// Values that are remembered to be expected later; when they are more, all are forgotten.
const REMEMBERED_MAX: usize = 256;

/// Draws one request after the other.
#[derive(Debug, Clone)]
pub(super) struct Workload {
    random: Random,
    prefix: String,
    keys: u64,
    reads: Share,
    deletes: Share,
    cas: Share,
    /// What was written last, by key. Bound: [`REMEMBERED_MAX`].
    remembered: HashMap<String, String>,
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
            deletes: load.deletes,
            cas: load.cas,
            remembered: HashMap::new(),
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
        let drawn = self.random.fraction();
        let deletes_from = self.reads.fraction();
        let cas_from = deletes_from + self.deletes.fraction();
        let puts_from = cas_from + self.cas.fraction();
        if drawn < deletes_from {
            Call::Get { key }
        } else if drawn < cas_from {
            self.remembered.remove(&key);
            Call::Delete { key }
        } else if drawn < puts_from {
            let expect = self.remembered.get(&key).cloned();
            Call::Cas { set: self.value(&key), key, expect }
        } else {
            Call::Put { value: self.value(&key), key }
        }
    }

    /// A new value for `key`, remembered if it may be expected later.
    fn value(&mut self, key: &str) -> String {
        let value = self.random.text(self.value_size);
        if self.cas != Share::NONE {
            if self.remembered.len() >= REMEMBERED_MAX {
                self.remembered.clear();
            }
            self.remembered.insert(key.to_owned(), value.clone());
        }
        value
    }
}

impl Call {
    /// Its bytes. What breaks a bound of the store becomes an operation that it refuses.
    pub(super) fn encode(&self) -> Blob {
        let operation = match self {
            Self::Put { key, value } => Operation::put(key.as_bytes(), value.as_bytes()),
            Self::Get { key } => Operation::get(key.as_bytes()),
            Self::Delete { key } => Operation::delete(key.as_bytes()),
            Self::Cas { key, expect, set } => Operation::CompareAndSet {
                key: key.as_bytes().into(),
                expect: expect.as_ref().map(|expect| expect.as_bytes().into()),
                set: Some(set.as_bytes().into()),
            },
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
                Call::Put { key, .. } | Call::Get { key } | Call::Delete { key } | Call::Cas { key, .. } => key,
            })
            .collect();
        let expected: BTreeSet<String> = (0..10).map(|index| format!("bench/{index:08}")).collect();
        assert_eq!(keys, expected);
    }

    #[test]
    fn a_compare_and_set_expects_what_was_written_last() {
        let load = Load { keys: 1, cas: "100%".parse().unwrap(), ..Load::default() };
        let mut workload = workload(&load);
        let mut last = None;
        for _ in 0..10 {
            let Call::Cas { expect, set, .. } = workload.next().remove(0) else { panic!("a compare-and-set") };
            assert_eq!(expect, last);
            last = Some(set);
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut workload = workload(&Load { cas: "1%".parse().unwrap(), ..Load::default() });
        for _ in 0..3 * REMEMBERED_MAX {
            workload.next();
            assert!(workload.remembered.len() <= REMEMBERED_MAX);
        }
    }

    #[test]
    fn values_differ() {
        let mut workload = workload(&Load::default());
        let values: BTreeSet<Vec<u8>> = (0..1_000).map(|_| workload.next()[0].encode().to_vec()).collect();
        assert_eq!(values.len(), 1_000);
    }
}
