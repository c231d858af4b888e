//! As a primary, holds back one slot of each pipeline, and proposes those after it at once: they cannot execute before it.
//! (Clement et al., Aardvark, NSDI 2009, section 5.3: a primary that is as slow as it may be; PROTOCOL §6, slowness)
//!
//! It breaks a system that asks only how soon each request is proposed: most are at once, none executes for as long, and
//! it looks as if ordering took that time. Correct backups count a request as proposed when all slots up to its own are,
//! and replace the primary as they do a slow one.

use quorate_protocol::message::Message;
use quorate_protocol::number::ReplicaId;

use super::{Body, Strategy};

/// One slot in so many is late.
const LATE_IN: u64 = 8;

/// Everybody is shown that slot late.
#[derive(Debug)]
pub(super) struct LateSlot;

impl Strategy for LateSlot {
    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        let is_late = matches!(&message, Message::PrePrepare(proposal) if proposal.vote.voter == body.id()
            && proposal.vote.statement.sequence.value() % LATE_IN == 1);
        if !is_late {
            return Some(message);
        }
        body.send_later(body.just_tolerated(), to, message);
        None
    }
}
