//! As a primary, proposes different batches to different backups for one slot, and all accomplices vote for each of them.
//! (Castro and Liskov, OSDI 1999, section 4.2: why a prepared certificate takes a quorum; PROTOCOL §4.3)
//!
//! It breaks a system that decides on fewer votes than a quorum, or counts votes for different batches together. Correct
//! replicas accept one batch a slot and view, count votes by batch, show who voted for another what the primary signed,
//! keep two of its votes as proof and suspect at once. (PROTOCOL §4.3, §6)

use quorate_protocol::batch::Batch;
use quorate_protocol::message::Message;
use quorate_protocol::number::ReplicaId;
use quorate_protocol::statement::Prepare;
use quorate_protocol::time::WallTime;

use super::{Body, Strategy};

/// Shows each backup one of up to three batches: the real one, the same requests with another stamp, and the empty one.
#[derive(Debug)]
pub(super) struct Equivocate;

impl Strategy for Equivocate {
    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        let Message::PrePrepare(proposal) = &message else {
            let vote = body.as_told(to, message);
            if let Message::Prepare(vote) = vote {
                // Nobody waits for a certificate who lies about what it holds.
                let Prepare { view, sequence, digest, .. } = vote.statement;
                body.send(to, Message::Commit(body.commit(view, sequence, digest)));
            }
            return Some(vote);
        };
        let Prepare { view, sequence, .. } = proposal.vote.statement;
        let real = body.batch_of(proposal)?;
        let told = match to.value() % 3 {
            0 => real,
            1 if !real.is_empty() => {
                let stamp = WallTime::from_nanoseconds(real.stamp().nanoseconds().saturating_add(1));
                Batch::new(stamp, real.requests().to_vec())
            }
            _ => Batch::empty(),
        };
        body.send(to, Message::Commit(body.commit(view, sequence, told.digest())));
        Some(body.propose(to, view, sequence, &told))
    }
}
