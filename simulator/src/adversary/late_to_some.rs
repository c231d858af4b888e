//! As a primary, proposes to as many as a decision needs at once, and to the f others just before they would lose patience.
//! (Aublin, Ben Mokhtar and Quéma, RBFT, ICDCS 2013, section 3: a primary that delays what it can; PROTOCOL §6, slowness)
//!
//! It breaks a system that decides by what the fastest see: some replicas are always behind, and those few, if their
//! complaints move everybody, replace primaries that serve. Correct replicas that are shown late what others vote for
//! fetch it, and f of them that complain move nobody.

use quorate_protocol::message::Message;
use quorate_protocol::number::ReplicaId;

use super::{Body, Strategy};

/// Who is late stays so for a view.
#[derive(Debug)]
pub(super) struct LateToSome;

impl LateToSome {
    /// Whether it is one of the last f that are no accomplices.
    fn is_kept_waiting(body: &Body, to: ReplicaId) -> bool {
        let accomplices = body.accomplices();
        let victims = body.configuration().replicas().rev().filter(|id| !accomplices.contains(id));
        victims.take(body.configuration().faults_max()).any(|victim| victim == to)
    }
}

impl Strategy for LateToSome {
    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        let is_own = matches!(&message, Message::PrePrepare(proposal) if proposal.vote.voter == body.id());
        if !is_own || !Self::is_kept_waiting(body, to) {
            return Some(message);
        }
        body.send_later(body.just_tolerated(), to, message);
        None
    }
}
