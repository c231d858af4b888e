//! Hands out states that are none, or hands out no end of one. (`CometBFT`, advisory ASA-2025-001: a peer that lies about its height;
//! PROTOCOL §9, state transfer)
//!
//! It breaks who installs what it is given, waits for a source that does not answer, or asks the same one for ever. Correct
//! replicas fetch only what a certificate names, compare the whole with it, and replace a source that lies or is late.

use quorate_protocol::Output;
use quorate_protocol::codec::{Blob, List};
use quorate_protocol::message::{Entry, Message, Part};
use quorate_protocol::number::{ReplicaId, Sequence};

use super::{Body, Strategy};

/// Pretends to have everything, and answers each question in another wrong way.
#[derive(Debug, Default)]
pub(super) struct LieInTransfer {
    asked: u64,
    /// How often it was asked for the beginning.
    begun: u64,
}

/// How it answers, in turn.
const WAYS: u64 = 6;
/// Begins with the truth, and ends it with a lie.
const BETRAYS: u64 = 1;
/// One entry at a time, and never an end.
const DRIPS: u64 = 0;

/// An entry that nobody has, after all that anybody has.
fn entry(key: u64) -> Entry {
    Entry { key: Blob::from([&[0xff][..], &key.to_be_bytes()].concat()), value: Blob::from(vec![0xee; 8]) }
}

/// A part of a state that nobody has; `None` where the answer is silence.
fn false_part(way: u64, asked: u64, sequence: Sequence, cursor: Blob) -> Option<Part> {
    let goes_on = Some(Blob::from([&[1][..], &asked.to_be_bytes()].concat()));
    let (entries, next) = match way {
        DRIPS => (vec![entry(asked)], goes_on),
        // Leads nowhere.
        2 => (Vec::new(), goes_on),
        // Ends too early.
        BETRAYS | 3 => (vec![entry(asked)], None),
        4 => (Vec::new(), None),
        _ => return None,
    };
    Some(Part { sequence, cursor, protocol: List::empty(), application: List::new(entries)?, next })
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
        let Output::SendPart { to, sequence, cursor } = output else { return Some(output) };
        self.asked = self.asked.wrapping_add(1);
        self.begun = self.begun.wrapping_add(u64::from(cursor.is_empty()));
        let way = match self.begun % WAYS {
            BETRAYS if cursor.is_empty() => return Some(Output::SendPart { to, sequence, cursor }),
            way if cursor.is_empty() || way == BETRAYS => way,
            _ => DRIPS,
        };
        if let Some(part) = false_part(way, self.asked, sequence, cursor) {
            body.send(to, Message::Part(part));
        }
        None
    }
}
