//! A state that nobody has, and that is one: of a cluster that has done nothing, but for what the liar puts into it.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_protocol::message::{Entry, Part, Want};
use quorate_protocol::number::Sequence;
use quorate_protocol::replica::founding_entries;
use quorate_protocol::state::StateMap;
use quorate_protocol::time::WallTime;

use super::Body;
use crate::disk::State;
use crate::parts::part_of;

/// Entries in a part of it.
const PART_ENTRIES: usize = 64;

/// A part of the state at `sequence`, if these were the application's entries.
pub(super) fn part(body: &Body, sequence: Sequence, entries: &[Entry], want: &Want) -> Option<Part> {
    let mut map = StateMap::new(body.state_depth());
    for entry in entries {
        map.insert(&entry.key, &entry.value);
    }
    let application_root = map.checkpoint().root;
    let pairs = |entries: &[Entry]| -> BTreeMap<Bytes, Bytes> {
        let entries = entries.iter().cloned();
        entries.map(|entry| (entry.key.into_bytes(), entry.value.into_bytes())).collect()
    };
    let state = State {
        sequence,
        application_root,
        leaves: map.index().row(body.state_depth()),
        application: pairs(entries),
        protocol: pairs(&founding_entries(body.configuration(), WallTime::ZERO)),
    };
    part_of(&state, want, PART_ENTRIES)
}
