//! As a primary, proposes in time and proposes nothing. (Clement et al., Aardvark, NSDI 2009, section 5.3: a primary that is just
//! good enough to stay; PROTOCOL §6, deadline)
//!
//! It breaks a system that takes proposals for progress: slots are decided and no client is served. Correct backups
//! expect each request by a deadline, whatever else is ordered.

use quorate_protocol::batch::Batch;
use quorate_protocol::message::Message;
use quorate_protocol::number::ReplicaId;

use super::{Body, Strategy};

/// Puts the empty batch in the place of each that it proposes.
#[derive(Debug)]
pub(super) struct EmptyBatches;

impl Strategy for EmptyBatches {
    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        let Message::PrePrepare(proposal) = &message else { return Some(body.as_told(to, message)) };
        let statement = proposal.vote.statement;
        Some(body.propose(to, statement.view, statement.sequence, &Batch::empty()))
    }
}
