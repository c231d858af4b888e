//! Vouches for states that nobody has. (Castro and Liskov, OSDI 1999, section 4.3; concord-bft, the `CorruptCheckpoint` tests;
//! PROTOCOL §5)
//!
//! It breaks a system that calls a checkpoint stable on too few votes, or forgets what others said when somebody claims
//! to be far ahead. Correct replicas take q equal votes and one root a member and slot, keep two votes a member, and hold
//! on to the pair as proof.

use quorate_crypto::{Digest, Domain, hash};
use quorate_protocol::message::Message;
use quorate_protocol::number::{ReplicaId, Sequence};
use quorate_protocol::time::Time;

use super::{Body, Strategy};

/// Votes for a false root before the true one, of its own and of the slots to come.
#[derive(Debug, Default)]
pub(super) struct ForgeCheckpoint {
    last: Option<Time>,
}

/// The root that all accomplices agree on.
fn false_root(sequence: Sequence) -> Digest {
    hash(Domain::State, &[b"false", &sequence.value().to_le_bytes()])
}

impl Strategy for ForgeCheckpoint {
    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        if let Message::Checkpoint(vote) = &message {
            let sequence = vote.statement.sequence;
            body.send(to, Message::Checkpoint(body.checkpoint(sequence, false_root(sequence))));
        }
        Some(message)
    }

    fn act(&mut self, body: &mut Body) {
        if !body.is_due(&mut self.last, body.configuration().parameters().heartbeat()) {
            return;
        }
        let interval = body.configuration().parameters().checkpoint_interval;
        let next = body.executed().value() / interval * interval;
        for checkpoint in 1..=2_u64 {
            let sequence = Sequence::new(next.saturating_add(interval.saturating_mul(checkpoint)));
            body.send_all(&Message::Checkpoint(body.checkpoint(sequence, false_root(sequence))));
        }
        // As far ahead as a slot can be: it must push out nobody else's vote.
        let last = Sequence::new(u64::MAX / interval * interval);
        body.send_all(&Message::Checkpoint(body.checkpoint(last, false_root(last))));
    }
}
