//! What a stand-in application holds, and how a member hands it out.

use std::cell::RefCell;
use std::collections::BTreeMap;

use quorate_crypto::Digest;
use quorate_crypto::merkle::above;
use quorate_protocol::codec::{Blob, List};
use quorate_protocol::input::{StageReady, TransferLimits};
use quorate_protocol::message::{Content, Entry, Fetch, Message, Part, Want};
use quorate_protocol::number::Sequence;
use quorate_protocol::state::{StateMap, bucket_of, place_of};
use quorate_protocol::{Input, Output};

use super::subject::Subject;

/// The depth of its tree: four groups.
pub(crate) const DEPTH: u8 = 8;

/// Buckets of a group.
pub(crate) const BUCKETS: u16 = 64;

/// Entries that are the same after each slot.
const FIXED: u8 = 40;

/// What a machine of these tests gives to a transfer.
pub(crate) const LIMITS: TransferLimits = TransferLimits { unchecked_bytes_max: 1 << 20, bytes_per_second: 1 << 40 };

/// What is the same whenever asked, and takes long to compute.
struct Known {
    entries: Vec<Entry>,
    leaves: Vec<Digest>,
}

fn known<T>(sequence: Sequence, take: impl FnOnce(&Known) -> T) -> T {
    thread_local! {
        static KNOWN: RefCell<BTreeMap<Sequence, Known>> = const { RefCell::new(BTreeMap::new()) };
    }
    KNOWN.with_borrow_mut(|known| {
        take(known.entry(sequence).or_insert_with(|| {
            let entries = entries(sequence);
            let leaves = map(&entries).index().row(DEPTH);
            Known { entries, leaves }
        }))
    })
}

/// The entries of the stand-in application after a slot, in the order in which they are handed out.
pub(crate) fn application(sequence: Sequence) -> Vec<Entry> {
    known(sequence, |known| known.entries.clone())
}

fn entries(sequence: Sequence) -> Vec<Entry> {
    let fixed = (0..FIXED).map(|key| (vec![key], vec![key; 3]));
    let own = [
        (b"slot".to_vec(), sequence.value().to_le_bytes().to_vec()),
        (sequence.value().to_le_bytes().to_vec(), vec![]),
    ];
    let mut entries: Vec<Entry> =
        fixed.chain(own).map(|(key, value)| Entry { key: key.into(), value: value.into() }).collect();
    entries.sort_by_key(|entry| (place_of(&entry.key), entry.key.clone()));
    entries
}

fn map(entries: &[Entry]) -> StateMap {
    let mut map = StateMap::new(DEPTH);
    for entry in entries {
        map.insert(&entry.key, &entry.value);
    }
    map.checkpoint();
    map
}

/// The root of the stand-in application after a slot.
pub(crate) fn application_root(sequence: Sequence) -> Digest {
    above(&leaves(sequence)).expect("a power of two")
}

/// The leaves of its tree.
pub(crate) fn leaves(sequence: Sequence) -> Vec<Digest> {
    known(sequence, |known| known.leaves.clone())
}

/// Those of an application that holds nothing.
pub(crate) fn no_leaves() -> Vec<Digest> {
    vec![Digest::ZERO; 1 << DEPTH]
}

/// What a machine says when it begins to stage upon these leaves.
pub(crate) fn ready(leaves: Vec<Digest>) -> Input {
    Input::StageReady(StageReady { leaves, limits: LIMITS })
}

/// What a member hands out of the state after a slot, with these entries of the protocol's own: at most two in a part.
pub(crate) fn content(sequence: Sequence, protocol: &[Entry], want: &Want) -> Content {
    let leaves = leaves(sequence);
    match want {
        Want::Crown => {
            let groups = leaves.chunks(BUCKETS.into()).map(|leaves| above(leaves).expect("a power of two")).collect();
            Content::Crown(List::new(groups).expect("four"))
        }
        Want::Protocol { after } => {
            let rest = protocol.iter().filter(|entry| after.as_ref().is_none_or(|after| entry.key > *after));
            let rest: Vec<Entry> = rest.cloned().collect();
            let is_last = rest.len() <= 2;
            Content::Protocol { entries: List::new(rest.into_iter().take(2).collect()).expect("two"), is_last }
        }
        Want::Leaves { group } => {
            let leaves = leaves.chunks(BUCKETS.into()).nth(usize::from(*group)).expect("one of four");
            Content::Leaves(List::new(leaves.to_vec()).expect("few"))
        }
        Want::Buckets { group, buckets, after } => {
            let bucket = |place: u16| u32::from(group * BUCKETS + place);
            let of = |place| {
                application(sequence).into_iter().filter(move |entry| bucket_of(&entry.key, DEPTH) == bucket(place))
            };
            let first = of(buckets[0]).skip_while(|entry| after.as_ref().is_some_and(|after| !is_after(entry, after)));
            let first: Vec<Entry> = first.collect();
            let (whole, entries) = if first.len() > 2 { (0, first[..2].to_vec()) } else { (1, first) };
            Content::Buckets { entries: List::new(entries).expect("two"), whole }
        }
    }
}

fn is_after(entry: &Entry, key: &Blob) -> bool {
    (place_of(&entry.key), entry.key.clone()) > (place_of(key), key.clone())
}

/// What is asked for of states among `outputs`: of whom, of which checkpoint, and what.
pub(crate) fn wants(outputs: &[Output]) -> Vec<(u8, u64, Want)> {
    let asked = outputs.iter().filter_map(|output| match output {
        Output::Send { to, message: Message::Fetch(Fetch::Part { sequence, want }) } => {
            Some((to.value(), sequence.value(), want.clone()))
        }
        _ => None,
    });
    asked.collect()
}

/// Tells `subject` what `from` hands out.
pub(crate) fn hand_out(
    subject: &mut Subject,
    from: u8,
    sequence: Sequence,
    want: Want,
    content: Content,
) -> Vec<Output> {
    subject.hear(from, Message::Part(Part { sequence, want, content }))
}

/// Answers all that `subject` asks for, in these outputs and because of the answers, by whom it asks; gives what came of it.
pub(crate) fn serve(subject: &mut Subject, outputs: &[Output], protocol: &[Entry]) -> Vec<Output> {
    let mut came = Vec::new();
    let mut asked = wants(outputs);
    while let Some((from, sequence, want)) = asked.pop() {
        let sequence = Sequence::new(sequence);
        let content = content(sequence, protocol, &want);
        let outputs = hand_out(subject, from, sequence, want, content);
        asked.extend(wants(&outputs));
        came.extend(outputs);
    }
    came
}
