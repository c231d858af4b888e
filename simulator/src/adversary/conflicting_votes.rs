//! Votes for two batches at once, in every slot. (Castro and Liskov, OSDI 1999, section 4.2: two prepared certificates for one
//! slot share a correct replica; PROTOCOL §4, one vote counts per member, slot and digest)
//!
//! It breaks a system that counts votes without comparing what they are for, where each half of the replicas collects a
//! quorum of its own, and who takes one's vote for what the primary proposed: it hands out the batch. Correct replicas
//! count the first vote only, and keep both as proof; a primary caught at it is replaced. (PROTOCOL §4.3)

use quorate_crypto::Digest;
use quorate_protocol::Input;
use quorate_protocol::batch::Batch;
use quorate_protocol::message::{Fetch, FetchedBatch, Message};
use quorate_protocol::number::{ReplicaId, Sequence};
use quorate_protocol::statement::{Commit, Prepare};
use quorate_protocol::verify::Payload;

use super::{Body, Strategy};

/// Says a second thing with each vote: to replicas of even number after the true one, to the others before it.
#[derive(Debug)]
pub(super) struct ConflictingVotes;

/// What else may be voted for in a slot: what others propose there, or the empty batch, which a new view may choose.
fn other_digest(body: &Body, sequence: Sequence, digest: Digest) -> Digest {
    let seen = body.seen.prepares.iter().map(|vote| vote.statement);
    let rival = seen.filter(|seen| seen.sequence == sequence).map(|seen| seen.digest).find(|seen| *seen != digest);
    let empty = Batch::empty().digest();
    rival.unwrap_or_else(|| if digest == empty { Digest::from_bytes([1; 32]) } else { empty })
}

impl Strategy for ConflictingVotes {
    fn incoming(&mut self, body: &mut Body, input: Input) -> Option<Input> {
        if let Input::Message { from, message } = &input
            && let Payload::Fetch(Fetch::Batch { sequence, digest }) = &**message
            && *digest == Batch::empty().digest()
        {
            let batch = Batch::empty().body().clone().into();
            body.send(*from, Message::Batch(FetchedBatch { sequence: *sequence, batch }));
        }
        Some(input)
    }

    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        let second = match &message {
            Message::Prepare(vote) => {
                let digest = other_digest(body, vote.statement.sequence, vote.statement.digest);
                Message::Prepare(body.sign(Prepare { digest, ..vote.statement }))
            }
            Message::PrePrepare(proposal) => {
                let statement = proposal.vote.statement;
                let digest = other_digest(body, statement.sequence, statement.digest);
                Message::Prepare(body.sign(Prepare { digest, ..statement }))
            }
            Message::Commit(vote) => {
                let digest = other_digest(body, vote.statement.sequence, vote.statement.digest);
                Message::Commit(body.sign(Commit { digest, ..vote.statement }))
            }
            _ => return Some(message),
        };
        let is_later = to.value().is_multiple_of(2);
        let (first, last) = if is_later { (message, second) } else { (second, message) };
        body.send(to, first);
        Some(last)
    }
}
