//! The simplest application that can tell right from wrong: a map of counters, chained by everything that ever ran.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_crypto::{Domain, hash};
use quorate_protocol::application::{Application, Changes, NotAState, Replicated, Surroundings};
use quorate_protocol::codec::Blob;
use quorate_protocol::kv::Store;
use quorate_protocol::message::Entry;

/// Counts how often each operation ran. The result of an operation is its count, and the chain over all before it.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    entries: BTreeMap<Bytes, Bytes>,
    changed: BTreeMap<Bytes, Bytes>,
}

/// Few keys need few buckets.
const TREE_DEPTH: u8 = 2;

/// The same, of the key-value store.
const STORE_TREE_DEPTH: u8 = 6;

/// An empty key-value store, for a host.
pub fn replicated_store() -> Replicated {
    Replicated::new(Store::default(), STORE_TREE_DEPTH)
}

/// The same, which answers reads that nobody ordered.
pub fn replicated_reading_store() -> Replicated {
    Replicated::new(Store::default().with_fast_reads(), STORE_TREE_DEPTH)
}

/// The key of the chain: no operation is empty.
const CHAIN: Bytes = Bytes::new();

impl Ledger {
    /// An empty ledger, for a host.
    pub fn replicated() -> Replicated {
        Replicated::new(Self::default(), TREE_DEPTH)
    }

    fn set(&mut self, key: Bytes, value: Bytes) {
        self.entries.insert(key.clone(), value.clone());
        self.changed.insert(key, value);
    }
}

impl Application for Ledger {
    fn execute(&mut self, surroundings: &Surroundings, operation: &Blob) -> Blob {
        let key = operation.bytes().clone();
        let before = self.entries.get(&key).and_then(|value| <[u8; 8]>::try_from(&value[..]).ok());
        let count = before.map_or(0, u64::from_le_bytes).wrapping_add(1);
        let chain = self.entries.get(&CHAIN).cloned().unwrap_or_default();
        let time = surroundings.time.nanoseconds().to_le_bytes();
        let sequence = surroundings.sequence.value().to_le_bytes();
        let chained = hash(Domain::Entry, &[&chain, &time, &sequence, surroundings.client.as_bytes(), operation]);
        if !key.is_empty() {
            self.set(key, Bytes::copy_from_slice(&count.to_le_bytes()));
        }
        self.set(CHAIN, Bytes::copy_from_slice(chained.as_bytes()));
        let result: Vec<u8> = count.to_le_bytes().into_iter().chain(*chained.as_bytes()).collect();
        result.into()
    }

    fn changes(&mut self) -> Changes {
        Box::new(core::mem::take(&mut self.changed).into_iter().map(|(key, value)| (key, Some(value))))
    }

    fn restore(&mut self, entries: &mut dyn Iterator<Item = Entry>) -> Result<(), NotAState> {
        self.changed.clear();
        self.entries = entries.map(|entry| (entry.key.into_bytes(), entry.value.into_bytes())).collect();
        Ok(())
    }
}
