//! As a primary, shows its batches to as few as a decision needs, and to the others only its vote. (Castro and Liskov, TOCS 2002,
//! on requests that travel apart from their order; PROTOCOL §4.3, no vote without the body)
//!
//! It breaks a system that votes for what it has not: the slot is decided, and nobody has the batch. Correct replicas
//! vote only for what they hold, so that a decided batch is with f + 1 correct replicas, of which those who lack it fetch
//! it. (PROTOCOL §9)

use quorate_protocol::batch::Batch;
use quorate_protocol::message::Message;
use quorate_protocol::number::ReplicaId;

use super::{Body, Strategy};

/// In even slots a quorum gets the batch, in odd ones one replica less.
#[derive(Debug)]
pub(super) struct WithholdBody;

impl Strategy for WithholdBody {
    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        match message {
            Message::PrePrepare(proposal) => {
                let accomplices = body.accomplices();
                let correct = body.others().filter(|other| !accomplices.contains(other));
                let is_odd = !proposal.vote.statement.sequence.value().is_multiple_of(2);
                let few = body.configuration().quorum().saturating_sub(accomplices.len() + usize::from(is_odd));
                let is_shown = accomplices.contains(&to) || correct.take(few).any(|other| other == to);
                let vote = proposal.vote;
                Some(if is_shown { Message::PrePrepare(proposal) } else { Message::Prepare(vote) })
            }
            // It helps nobody, and answers with something else.
            Message::Batch(mut fetched) => {
                fetched.batch = Batch::empty().body().clone().into();
                Some(Message::Batch(fetched))
            }
            Message::Decided(_) => None,
            other => Some(other),
        }
    }
}
