//! Hands out parts that are none, or no end of them. (`CometBFT`, advisory ASA-2025-001: a peer that lies about its height;
//! PROTOCOL §9, state transfer)
//!
//! It breaks a system that installs what it is given, waits for a source that does not answer, or asks the same one for
//! ever. Correct replicas fetch only what a certificate names, check each part on arrival, name a source that lies, and
//! have another do what one does not do in time.

use quorate_crypto::Digest;
use quorate_protocol::Output;
use quorate_protocol::codec::{Blob, List};
use quorate_protocol::message::{Content, Entry, Message, Part, Want};
use quorate_protocol::number::{ReplicaId, Sequence};
use quorate_protocol::state::{bucket_of, crown_level};

use super::{Body, Strategy, forged_state};

/// Pretends to have everything, and answers in another wrong way each time that it is asked for the beginning, or to go on.
#[derive(Debug, Default)]
pub(super) struct LieInTransfer {
    asked: u64,
    /// How often it was asked for the beginning of a state, or of a group.
    begun: u64,
}

/// How it answers, in turn; in the last way it makes up everything.
const WAYS: u64 = 6;
/// One entry at a time, and never an end.
const DRIPS: u64 = 0;
/// Says nothing.
const IS_SILENT: u64 = 1;
/// Leads nowhere.
const STOPS: u64 = 2;
/// Tells the truth about digests, and makes up what they are of.
const BETRAYS: u64 = 3;
/// Hands out a whole state, of a cluster that has done nothing but what the liar says.
const FORGETS: u64 = 4;

/// A digest that nothing has.
const NOTHING: Digest = Digest::from_bytes([0xdd; 32]);

/// Keys that are tried for one that belongs to a bucket.
const KEYS_TRIED: u64 = 1_000;

/// An entry that nobody has, after all that anybody has.
fn entry(key: u64) -> Entry {
    Entry { key: Blob::from([&[0xff][..], &key.to_be_bytes()].concat()), value: Blob::from(vec![0xee; 8]) }
}

impl LieInTransfer {
    /// An entry that nobody has, of the bucket with this number in a tree of this depth, if it finds one.
    fn entry_of(&self, bucket: u32, depth: u8) -> Option<Entry> {
        (0..KEYS_TRIED)
            .map(|key| entry(self.asked.wrapping_mul(KEYS_TRIED).wrapping_add(key)))
            .find(|entry| bucket_of(&entry.key, depth) == bucket)
    }

    /// What is not the part that is wanted; `None` where the answer is silence.
    fn false_content(&self, way: u64, want: &Want, body: &Body) -> Option<Content> {
        let made_up = |entry: Option<Entry>| List::new(entry.into_iter().collect()).unwrap_or(List::empty());
        let depth = body.state_depth();
        let digests = 1_usize << crown_level(depth);
        Some(match (way, want) {
            (IS_SILENT, _) => return None,
            (FORGETS, want) => forged_state::part(body, Sequence::ZERO, &[entry(0)], want)?.content,
            (_, Want::Crown) => Content::Crown(List::new(vec![NOTHING; digests])?),
            (_, Want::Leaves { .. }) => Content::Leaves(List::new(vec![NOTHING; (1 << depth) / digests])?),
            (STOPS, Want::Protocol { .. }) => Content::Protocol { entries: List::empty(), is_last: false },
            (STOPS, Want::Buckets { .. }) => Content::Buckets { entries: List::empty(), whole: 0 },
            (way, Want::Protocol { .. }) => {
                Content::Protocol { entries: made_up(Some(entry(self.asked))), is_last: way != DRIPS }
            }
            (way, Want::Buckets { group, buckets, .. }) => {
                let place = u32::from(*buckets.first()?);
                let bucket = u32::from(*group) * ((1 << depth) / u32::try_from(digests).ok()?) + place;
                let whole = if way == DRIPS { 0 } else { u16::try_from(buckets.len()).ok()? };
                Content::Buckets { entries: made_up(self.entry_of(bucket, depth)), whole }
            }
        })
    }
}

impl Strategy for LieInTransfer {
    fn outgoing(&mut self, _: &mut Body, _: ReplicaId, message: Message) -> Option<Message> {
        match message {
            Message::Status(mut status) => {
                // It looks like the best source that there is.
                status.decided_from = Sequence::ZERO;
                status.executed = status.executed.saturating_add(1);
                Some(Message::Status(status))
            }
            Message::Decided(_) | Message::Batch(_) => None,
            other => Some(other),
        }
    }

    fn output(&mut self, body: &mut Body, output: Output) -> Option<Output> {
        let Output::SendPart { to, sequence, want } = output else { return Some(output) };
        let is_beginning = matches!(want, Want::Crown | Want::Leaves { .. });
        self.asked = self.asked.wrapping_add(1);
        self.begun = self.begun.wrapping_add(u64::from(is_beginning));
        let way = self.begun % WAYS;
        // Who is told a false digest asks no further.
        if is_beginning && matches!(way, DRIPS | STOPS | BETRAYS) {
            return Some(Output::SendPart { to, sequence, want });
        }
        if let Some(content) = self.false_content(way, &want, body) {
            body.send(to, Message::Part(Part { sequence, want, content }));
        }
        None
    }
}
