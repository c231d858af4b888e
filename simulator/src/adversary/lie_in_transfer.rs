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
}

fn entry(key: u64) -> Entry {
    Entry { key: Blob::from(key.to_be_bytes().to_vec()), value: Blob::from(vec![0xee; 8]) }
}

/// A part of a state that nobody has; `None` where the answer is silence.
fn false_part(asked: u64, sequence: Sequence, cursor: Blob) -> Option<Part> {
    let goes_on = Some(Blob::from([&[1][..], &asked.to_be_bytes()].concat()));
    let (entries, next) = match asked % 5 {
        // Drips: one entry at a time, and never an end.
        0 => (vec![entry(asked)], goes_on),
        // Leads nowhere.
        1 => (Vec::new(), goes_on),
        // Ends too early.
        2 => (vec![entry(asked)], None),
        3 => (Vec::new(), None),
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
        // A drip goes on as it began; what is asked anew is answered in the next way.
        let way = if cursor.is_empty() { self.asked } else { 0 };
        if let Some(part) = false_part(way, sequence, cursor) {
            body.send(to, Message::Part(part));
        }
        None
    }
}
