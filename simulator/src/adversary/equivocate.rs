//! As a primary, proposes different batches to different backups for one slot. (Castro and Liskov, OSDI 1999, section 4.2:
//! why a prepared certificate takes a quorum; PROTOCOL §6, proof)

use quorate_protocol::batch::Batch;
use quorate_protocol::message::{Message, PrePrepare};
use quorate_protocol::number::ReplicaId;
use quorate_protocol::statement::Prepare;
use quorate_protocol::time::WallTime;

use super::{Body, Strategy};

/// Shows each backup one of up to three batches: the real one, the same requests with another stamp, and the empty one.
#[derive(Debug)]
pub(super) struct Equivocate;

impl Strategy for Equivocate {
    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        let Message::PrePrepare(PrePrepare { vote, batch }) = &message else {
            return Some(message);
        };
        let Prepare { view, sequence, .. } = vote.statement;
        let parsed = Batch::parse(batch.bytes().clone(), body.configuration()).ok()?;
        let other = match to.value() % 3 {
            0 => return Some(message),
            1 if !parsed.requests().is_empty() => {
                let stamp = WallTime::from_nanoseconds(parsed.stamp().nanoseconds().saturating_add(1));
                Batch::new(stamp, parsed.requests().to_vec())
            }
            _ => Batch::empty(),
        };
        let vote = body.prepare(view, sequence, other.digest());
        Some(Message::PrePrepare(PrePrepare { vote, batch: other.body().clone().into() }))
    }
}
