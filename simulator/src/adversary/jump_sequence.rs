//! As a primary, leaves out slots: proposes at the end of the window, and beyond it. (Castro and Liskov, OSDI 1999, section 4.2:
//! the watermarks keep a primary from using up the numbers; PROTOCOL §4.2)
//!
//! It breaks a system that takes any number: the space is used up, or what is kept for each slot grows without end.
//! Correct replicas take nothing outside the watermarks, and execute nothing after a gap: the requests miss their
//! deadline, and the next view fills the gap with empty batches. (PROTOCOL §7.3)

use quorate_protocol::message::Message;
use quorate_protocol::number::{ReplicaId, Sequence};

use super::{Body, Strategy};

/// Proposes each batch as far ahead as a slot may be, and once more where none may be.
#[derive(Debug)]
pub(super) struct JumpSequence;

impl Strategy for JumpSequence {
    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        let (view, sequence, batch) = match &message {
            Message::PrePrepare(proposal) => {
                let statement = proposal.vote.statement;
                (statement.view, statement.sequence, body.batch_of(proposal)?)
            }
            Message::Prepare(vote) => {
                let last = Sequence::new(u64::MAX);
                body.send(to, Message::Prepare(body.prepare(vote.statement.view, last, vote.statement.digest)));
                return Some(message);
            }
            _ => return Some(message),
        };
        let window = body.configuration().parameters().window;
        let (low, high) = (body.stable(), body.stable().saturating_add(window));
        for beyond in [high.saturating_add(1), Sequence::new(u64::MAX), low] {
            let proposal = body.propose(to, view, beyond, &batch);
            body.send(to, proposal);
        }
        // Beyond the middle of the window, so that slots are left out.
        let ahead = Sequence::new(sequence.value().saturating_add(window / 2)).min(high);
        Some(body.propose(to, view, ahead, &batch))
    }
}
