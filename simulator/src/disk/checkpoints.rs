//! The durable state: that of one checkpoint, replaced whole or not at all. (PROTOCOL §5, §9)

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use quorate_crypto::Digest;
use quorate_protocol::application::Change;
use quorate_protocol::message::Entry;
use quorate_protocol::number::Sequence;

/// The state at a checkpoint: what the application and the protocol keep, as entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The checkpoint's slot.
    pub sequence: Sequence,
    /// The root of the application's entries.
    pub application_root: Digest,
    /// The leaves of their tree.
    pub leaves: Vec<Digest>,
    /// The application's entries.
    pub application: BTreeMap<Bytes, Bytes>,
    /// The protocol's entries.
    pub protocol: BTreeMap<Bytes, Bytes>,
}

/// What is being written.
#[derive(Debug)]
struct Write {
    state: Arc<State>,
    /// Whether it replaces the state by a transferred one, rather than carrying it on.
    is_installed: bool,
}

/// What became durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// A checkpoint of the replica's own.
    Taken(Sequence),
    /// A transferred state.
    Installed(Sequence),
}

/// The store of checkpoints: one is durable, others are being written, in order.
#[derive(Debug, Default)]
pub struct CheckpointStore {
    durable: Option<Arc<State>>,
    /// In order; the first is being written now.
    writes: VecDeque<Write>,
}

impl State {
    /// The depth of the application's tree.
    pub fn depth(&self) -> u8 {
        u8::try_from(self.leaves.len().trailing_zeros()).unwrap_or(u8::MAX)
    }

    /// What differs from the state before, applied to it.
    pub fn apply(entries: &mut BTreeMap<Bytes, Bytes>, changes: &[Change]) {
        for (key, value) in changes {
            match value {
                Some(value) => entries.insert(key.clone(), value.clone()),
                None => entries.remove(key),
            };
        }
    }

    /// Entries, in the order of their keys.
    pub fn entries(map: &BTreeMap<Bytes, Bytes>) -> impl Iterator<Item = Entry> {
        map.iter().map(|(key, value)| Entry { key: key.clone().into(), value: value.clone().into() })
    }
}

impl CheckpointStore {
    /// One on which a state is durable, if there is one.
    pub(crate) fn holding(state: Option<Arc<State>>) -> Self {
        Self { durable: state, writes: VecDeque::new() }
    }

    /// The durable state; none on a new disk.
    pub const fn durable(&self) -> Option<&Arc<State>> {
        self.durable.as_ref()
    }

    /// The slot of the durable state; zero on a new disk.
    pub fn durable_sequence(&self) -> Sequence {
        self.durable.as_ref().map_or(Sequence::ZERO, |state| state.sequence)
    }

    /// Begins to write a checkpoint of the replica's own: whether nothing else is being written.
    pub fn write(&mut self, state: Arc<State>) -> bool {
        self.push(Write { state, is_installed: false })
    }

    /// Begins to write a transferred state: whether nothing else is being written.
    pub fn install(&mut self, state: Arc<State>) -> bool {
        self.push(Write { state, is_installed: true })
    }

    /// Ends the first write: what is durable now.
    pub fn end_write(&mut self) -> Option<Stored> {
        let Write { state, is_installed } = self.writes.pop_front()?;
        let sequence = state.sequence;
        self.durable = Some(state);
        Some(if is_installed { Stored::Installed(sequence) } else { Stored::Taken(sequence) })
    }

    /// A store with what is durable, and nothing under way.
    pub(super) fn durable_only(&self) -> Self {
        Self { durable: self.durable.clone(), ..Self::default() }
    }

    /// Loses the durable state: somebody moved it away, or it cannot be read.
    pub fn lose(&mut self) {
        self.durable = None;
    }

    /// Whether something is still being written.
    pub fn is_writing(&self) -> bool {
        !self.writes.is_empty()
    }

    pub(super) fn crash(&mut self) {
        self.writes.clear();
    }

    fn push(&mut self, write: Write) -> bool {
        let is_idle = self.writes.is_empty();
        self.writes.push_back(write);
        is_idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(sequence: u64) -> Arc<State> {
        Arc::new(State {
            sequence: Sequence::new(sequence),
            application_root: Digest::from_bytes([0; 32]),
            leaves: vec![Digest::ZERO],
            application: BTreeMap::new(),
            protocol: BTreeMap::new(),
        })
    }

    #[test]
    fn a_checkpoint_that_is_being_written_is_lost_in_a_crash_and_the_one_before_stays() {
        let mut store = CheckpointStore::default();
        assert!(store.write(state(8)));
        assert_eq!(store.end_write(), Some(Stored::Taken(Sequence::new(8))));
        assert!(store.write(state(16)));
        assert!(!store.write(state(24)), "one at a time");
        store.crash();
        assert_eq!(store.durable_sequence(), Sequence::new(8));
        assert_eq!(store.end_write(), None);
    }

    #[test]
    fn changes_write_and_remove_entries() {
        let (a, b) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
        let mut entries = BTreeMap::from([(a.clone(), a.clone())]);
        State::apply(&mut entries, &[(a, None), (b.clone(), Some(b.clone()))]);
        assert_eq!(entries, BTreeMap::from([(b.clone(), b)]));
    }
}
