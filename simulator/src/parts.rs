//! How a host cuts a state into parts for a peer. (PROTOCOL §9)
//!
//! A cursor is empty at first; then a byte that says whose entry comes next, the protocol's (0) or the application's (1),
//! and that entry's key. Anyone may send any cursor: one that means nothing is not answered.

use core::ops::Bound;
use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_protocol::codec::{Blob, List};
use quorate_protocol::message::{Entry, PART_ENTRIES_MAX, Part};

use crate::disk::State;

/// Most bytes of keys and values in a part, unless a single entry has more.
const PART_BYTES_MAX: usize = 256 << 10;

/// The part of `state` that begins at `cursor`, of at most `entries_max` entries.
pub(crate) fn part_of(state: &State, cursor: &[u8], entries_max: usize) -> Option<Part> {
    let mut budget = Budget { entries: entries_max.clamp(1, PART_ENTRIES_MAX), bytes: PART_BYTES_MAX, is_used: false };
    let (is_application, key) = match cursor.split_first() {
        None => (false, &[][..]),
        Some((0, key)) => (false, key),
        Some((1, key)) => (true, key),
        Some(_) => return None,
    };
    let (mut protocol, mut next) = (Vec::new(), None);
    if !is_application {
        (protocol, next) = take(&state.protocol, key, &mut budget, 0);
    }
    let mut application = Vec::new();
    if next.is_none() {
        let key = if is_application { key } else { &[] };
        (application, next) = take(&state.application, key, &mut budget, 1);
    }
    Some(Part {
        sequence: state.sequence,
        cursor: Blob::from(cursor),
        protocol: List::new(protocol)?,
        application: List::new(application)?,
        next,
    })
}

struct Budget {
    entries: usize,
    bytes: usize,
    is_used: bool,
}

fn take(entries: &BTreeMap<Bytes, Bytes>, from: &[u8], budget: &mut Budget, whose: u8) -> (Vec<Entry>, Option<Blob>) {
    let mut taken = Vec::new();
    for (key, value) in entries.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)) {
        let bytes = key.len() + value.len();
        if budget.entries == 0 || (bytes > budget.bytes && budget.is_used) {
            let cursor: Vec<u8> = core::iter::once(whose).chain(key.iter().copied()).collect();
            return (taken, Some(cursor.into()));
        }
        budget.entries -= 1;
        budget.bytes = budget.bytes.saturating_sub(bytes);
        budget.is_used = true;
        taken.push(Entry { key: key.clone().into(), value: value.clone().into() });
    }
    (taken, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_crypto::Digest;
    use quorate_protocol::number::Sequence;

    fn state(protocol: u8, application: u8) -> State {
        let entries = |count: u8| (0..count).map(|key| (Bytes::from(vec![key]), Bytes::from(vec![key; 3]))).collect();
        State {
            sequence: Sequence::new(8),
            application_root: Digest::from_bytes([0; 32]),
            application: entries(application),
            protocol: entries(protocol),
        }
    }

    #[test]
    fn the_parts_put_together_are_the_state_whatever_their_size() {
        for (protocol, application, entries_max) in [(5, 7, 2), (0, 3, 1), (3, 0, 1), (0, 0, 4), (4, 4, 4), (9, 9, 100)]
        {
            let state = state(protocol, application);
            let (mut own, mut others, mut cursor) = (Vec::new(), Vec::new(), Some(Blob::EMPTY));
            while let Some(from) = cursor {
                let part = part_of(&state, &from, entries_max).expect("a cursor of our own");
                assert!(part.protocol.len() + part.application.len() <= entries_max);
                own.extend(part.protocol.into_vec());
                others.extend(part.application.into_vec());
                cursor = part.next;
            }
            assert_eq!(own, State::entries(&state.protocol).collect::<Vec<_>>());
            assert_eq!(others, State::entries(&state.application).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_cursor_that_means_nothing_is_not_answered() {
        assert_eq!(part_of(&state(1, 1), &[7], 10), None);
    }

    #[test]
    fn a_large_entry_travels_alone() {
        let mut state = state(0, 0);
        for key in 0..3_u8 {
            state.application.insert(Bytes::from(vec![key]), Bytes::from(vec![0; PART_BYTES_MAX + 1]));
        }
        assert_eq!(part_of(&state, &[], 100).expect("the first cursor").application.len(), 1);
    }
}
