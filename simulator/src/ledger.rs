//! The simplest application that can tell right from wrong: a map of counters, chained by everything that ever ran.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_crypto::{Digest, Domain, hash};
use quorate_protocol::application::{Application, Image, NotAState, Surroundings};
use quorate_protocol::codec::Blob;
use quorate_protocol::message::Entry;

/// Counts how often each operation ran. The result of an operation is its count, and the chain over all before it.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    entries: BTreeMap<Bytes, Bytes>,
    changed: BTreeMap<Bytes, Bytes>,
}

/// The key of the chain: no operation is empty.
const CHAIN: Bytes = Bytes::new();

impl Ledger {
    /// An empty ledger, for a host.
    pub fn boxed() -> Box<dyn Application + Send> {
        Box::new(Self::default())
    }

    fn set(&mut self, key: Bytes, value: Bytes) {
        self.entries.insert(key.clone(), value.clone());
        self.changed.insert(key, value);
    }

    fn root(&self) -> Digest {
        let mut parts = Vec::new();
        for (key, value) in &self.entries {
            parts.extend_from_slice(&(key.len() as u64).to_le_bytes());
            parts.extend_from_slice(key);
            parts.extend_from_slice(&(value.len() as u64).to_le_bytes());
            parts.extend_from_slice(value);
        }
        hash(Domain::Bucket, &[&parts])
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

    fn checkpoint(&mut self) -> Image {
        let changes = core::mem::take(&mut self.changed).into_iter().map(|(key, value)| (key, Some(value))).collect();
        Image { root: self.root(), changes }
    }

    fn restore(&mut self, entries: &mut dyn Iterator<Item = Entry>) -> Result<Digest, NotAState> {
        self.changed.clear();
        self.entries = entries.map(|entry| (entry.key.into_bytes(), entry.value.into_bytes())).collect();
        Ok(self.root())
    }
}
