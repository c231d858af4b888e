//! Puts requests, proposals and messages in an order of its own. (Kelkar et al., Order-Fairness for Byzantine Consensus, CRYPTO
//! 2020: what a primary may always do; PROTOCOL §4, messages may come in any order)
//!
//! It breaks a system that expects a vote after its proposal, a commit after the prepares, or a client's requests in the
//! order in which they were made. Correct replicas hold each slot's votes whatever comes first, execute slots in order
//! only, and sessions take the numbers of their window in any order. (PROTOCOL §4.1)

use core::time::Duration;

use quorate_protocol::batch::Batch;
use quorate_protocol::message::Message;
use quorate_protocol::number::ReplicaId;

use super::{Body, Strategy};

/// Turns batches around, and lets what it says later arrive first.
#[derive(Debug)]
pub(super) struct Reorder;

/// By how much a message is held back at most, in microseconds.
const HELD_US: u64 = 20_000;

impl Strategy for Reorder {
    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        let message = match &message {
            Message::PrePrepare(proposal) => {
                let (statement, batch) = (proposal.vote.statement, body.batch_of(proposal)?);
                let mut requests = batch.requests().to_vec();
                requests.reverse();
                let turned = if requests.is_empty() { batch } else { Batch::new(batch.stamp(), requests) };
                body.propose(to, statement.view, statement.sequence, &turned)
            }
            _ => body.as_told(to, message),
        };
        if body.dice.below(2) == 0 {
            return Some(message);
        }
        let delay = Duration::from_micros(body.dice.below(HELD_US));
        body.send_later(delay, to, message);
        None
    }
}
