//! What a host hands out of a state that a peer asks for. (PROTOCOL §9)
//!
//! Anyone may ask for anything: what a state does not have is not answered.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_crypto::Digest;
use quorate_crypto::merkle::above;
use quorate_protocol::codec::{Blob, List};
use quorate_protocol::message::{Content, Entry, PART_ENTRIES_MAX, Part, Want};
use quorate_protocol::state::{bucket_of, crown_level, place_of};

use crate::disk::State;

/// Most bytes of keys and values in a part, unless a single entry has more.
const PART_BYTES_MAX: usize = 256 << 10;

/// What is wanted of `state`, with at most `entries_max` entries.
pub(crate) fn part_of(state: &State, want: &Want, entries_max: usize) -> Option<Part> {
    let mut room = Room { entries: entries_max.clamp(1, PART_ENTRIES_MAX), bytes: PART_BYTES_MAX, is_used: false };
    let content = match want {
        Want::Crown => {
            let groups = state.leaves.chunks(group_size(state)).map(|leaves| above(leaves).unwrap_or(Digest::ZERO));
            Content::Crown(List::new(groups.collect())?)
        }
        Want::Protocol { after } => {
            let (entries, is_last) = room.take(following(&state.protocol, after.as_ref()));
            Content::Protocol { entries: List::new(entries)?, is_last }
        }
        Want::Leaves { group } => {
            let leaves = state.leaves.chunks(group_size(state)).nth(usize::from(*group))?;
            Content::Leaves(List::new(leaves.to_vec())?)
        }
        Want::Buckets { group, buckets, after } => buckets_of(state, *group, buckets, after.as_ref(), &mut room)?,
    };
    Some(Part { sequence: state.sequence, want: want.clone(), content })
}

/// The entries of `state` by bucket, each in the order in which they are handed out.
fn buckets_of(state: &State, group: u16, wanted: &[u16], after: Option<&Blob>, room: &mut Room) -> Option<Content> {
    let mut taken = Vec::new();
    let mut whole = 0;
    for (index, place) in wanted.iter().enumerate() {
        let bucket = usize::from(group) * group_size(state) + usize::from(*place);
        if bucket >= state.leaves.len() || usize::from(*place) >= group_size(state) {
            return None;
        }
        let is_of = |key: &Bytes| bucket_of(key, state.depth()) as usize == bucket;
        let mut entries: Vec<_> = state.application.iter().filter(|(key, _)| is_of(key)).collect();
        entries.sort_by_key(|(key, _)| (place_of(key), *key));
        let after = after.filter(|_| index == 0).map(|after| (place_of(after), after.bytes()));
        let rest = entries.into_iter().filter(|(key, _)| after.is_none_or(|after| (place_of(key), *key) > after));
        let (entries, is_last) = room.take(rest);
        taken.extend(entries);
        if !is_last {
            break;
        }
        whole += 1;
    }
    Some(Content::Buckets { entries: List::new(taken)?, whole })
}

fn group_size(state: &State) -> usize {
    1 << (state.depth() - crown_level(state.depth()))
}

fn following<'a>(
    entries: &'a BTreeMap<Bytes, Bytes>,
    after: Option<&'a Blob>,
) -> impl Iterator<Item = (&'a Bytes, &'a Bytes)> {
    entries.iter().filter(move |(key, _)| after.is_none_or(|after| **key > **after.bytes()))
}

/// How much still fits.
struct Room {
    entries: usize,
    bytes: usize,
    is_used: bool,
}

impl Room {
    /// Takes what fits, and says whether that is all.
    fn take<'a>(&mut self, entries: impl Iterator<Item = (&'a Bytes, &'a Bytes)>) -> (Vec<Entry>, bool) {
        let mut taken = Vec::new();
        for (key, value) in entries {
            let bytes = key.len() + value.len();
            if self.entries == 0 || (bytes > self.bytes && self.is_used) {
                return (taken, false);
            }
            self.entries -= 1;
            self.bytes = self.bytes.saturating_sub(bytes);
            self.is_used = true;
            taken.push(Entry { key: key.clone().into(), value: value.clone().into() });
        }
        (taken, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_protocol::number::Sequence;
    use quorate_protocol::state::{StateMap, leaf_of};

    /// Two groups of eight buckets.
    const DEPTH: u8 = 4;
    const BUCKETS: u16 = 8;

    fn state(protocol: u8, application: u8) -> State {
        let entries = |count: u8| (0..count).map(|key| (Bytes::from(vec![key]), Bytes::from(vec![key; 3]))).collect();
        let (application, protocol): (BTreeMap<Bytes, Bytes>, _) = (entries(application), entries(protocol));
        let mut map = StateMap::new(DEPTH);
        for (key, value) in &application {
            map.insert(key, value);
        }
        let application_root = map.checkpoint().root;
        State { sequence: Sequence::new(8), application_root, leaves: map.index().row(DEPTH), application, protocol }
    }

    fn content(state: &State, want: &Want, entries_max: usize) -> Option<Content> {
        part_of(state, want, entries_max).map(|part| part.content)
    }

    fn buckets(group: u16, buckets: Vec<u16>, after: Option<Blob>) -> Want {
        Want::Buckets { group, buckets: List::new(buckets).expect("few"), after }
    }

    /// All entries of these buckets of a group, asked for part by part; each bucket leads to its leaf.
    fn read_group(state: &State, group: u16, leaves: &[Digest], entries_max: usize) {
        let (mut wanted, mut after) = ((0..BUCKETS).collect::<Vec<u16>>(), None);
        let mut held: Vec<Entry> = Vec::new();
        while !wanted.is_empty() {
            let found = content(state, &buckets(group, wanted.clone(), after), entries_max);
            let Some(Content::Buckets { entries, whole }) = found else { panic!("no buckets") };
            assert!(entries.len() <= entries_max && (whole > 0 || !entries.is_empty()));
            held.extend(entries.into_vec());
            for place in wanted.drain(..usize::from(whole)) {
                let is_of = |entry: &Entry| bucket_of(&entry.key, DEPTH) == u32::from(group * BUCKETS + place);
                let (of, rest): (Vec<_>, Vec<_>) = held.into_iter().partition(is_of);
                assert_eq!(leaf_of(&of), leaves[usize::from(place)]);
                held = rest;
            }
            after = held.last().map(|entry| entry.key.clone());
        }
        assert_eq!(held, []);
    }

    #[test]
    fn from_the_root_down_each_part_leads_to_what_is_above_it() {
        for (count, entries_max) in [(0, 1), (1, 1), (40, 1), (40, 3), (40, 100)] {
            let state = state(0, count);
            let Some(Content::Crown(groups)) = content(&state, &Want::Crown, 1) else { panic!("no crown") };
            assert_eq!(above(&groups), Some(state.application_root));
            for (group, node) in (0..).zip(&groups[..]) {
                let found = content(&state, &Want::Leaves { group }, 1);
                let Some(Content::Leaves(leaves)) = found else { panic!("no leaves") };
                assert_eq!(above(&leaves), Some(*node));
                read_group(&state, group, &leaves, entries_max);
            }
        }
    }

    #[test]
    fn the_protocol_s_own_entries_come_in_their_order() {
        for entries_max in [1, 2, 100] {
            let state = state(5, 0);
            let (mut found, mut after, mut is_last) = (Vec::new(), None, false);
            while !is_last {
                let want = Want::Protocol { after };
                let Some(Content::Protocol { entries, is_last: last }) = content(&state, &want, entries_max) else {
                    panic!("no entries")
                };
                found.extend(entries.into_vec());
                after = found.last().map(|entry: &Entry| entry.key.clone());
                is_last = last;
            }
            assert_eq!(found, State::entries(&state.protocol).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_there_is_not_is_not_answered() {
        let state = state(1, 1);
        assert_eq!(content(&state, &Want::Leaves { group: 2 }, 10), None);
        assert_eq!(content(&state, &buckets(2, vec![0], None), 10), None);
        assert_eq!(content(&state, &buckets(0, vec![BUCKETS], None), 10), None);
    }

    #[test]
    fn a_large_entry_travels_alone() {
        let mut state = state(0, 0);
        for key in 0..3_u8 {
            state.protocol.insert(Bytes::from(vec![key]), Bytes::from(vec![0; PART_BYTES_MAX + 1]));
        }
        let Some(Content::Protocol { entries, is_last }) = content(&state, &Want::Protocol { after: None }, 100) else {
            panic!("no entries")
        };
        assert_eq!((entries.len(), is_last), (1, false));
    }
}
