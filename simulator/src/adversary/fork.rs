//! Votes, towards each replica, for whatever that one votes for; and as a primary, shows one batch to half of the others and
//! another to the rest. (Sheng et al., BFT Protocol Forensics, CCS 2021; PROTOCOL §15)
//!
//! It breaks any cluster in which more than f play it: each half decides on its own, vouches for its own states, and hears
//! nothing that contradicts. Correct replicas, where at most f play it, decide at most one of two batches, since two quorums
//! share one of them. Where more do, what both halves keep in their logs convicts f + 1. (PROTOCOL §1, §15)

use quorate_protocol::batch::Batch;
use quorate_protocol::input::Input;
use quorate_protocol::message::Message;
use quorate_protocol::number::ReplicaId;
use quorate_protocol::statement::Prepare;
use quorate_protocol::time::WallTime;
use quorate_protocol::verify::Payload;

use super::{Body, Strategy};

/// Needs no word with its accomplices: who they are all know, and what to vote for the victims say themselves.
#[derive(Debug)]
pub(super) struct Fork;

/// Whether it is one that is to be deceived, and belongs to the half that is shown the other batch.
fn half(body: &Body, to: ReplicaId) -> Option<bool> {
    let accomplices = body.accomplices();
    let mut victims = body.configuration().replicas().filter(|id| !accomplices.contains(id));
    victims.position(|victim| victim == to).map(|index| index % 2 == 1)
}

/// The same requests at another moment.
fn other(batch: Batch) -> Batch {
    if batch.is_empty() {
        return batch;
    }
    let stamp = WallTime::from_nanoseconds(batch.stamp().nanoseconds().saturating_add(1));
    Batch::new(stamp, batch.requests().to_vec())
}

fn agree(body: &mut Body, with: ReplicaId, Prepare { view, sequence, digest, .. }: Prepare) {
    let (prepare, commit) = (body.prepare(view, sequence, digest), body.commit(view, sequence, digest));
    body.send(with, Message::Prepare(prepare));
    body.send(with, Message::Commit(commit));
}

impl Strategy for Fork {
    fn incoming(&mut self, body: &mut Body, input: Input) -> Option<Input> {
        if let Input::Message { from, message } = &input
            && half(body, *from).is_some()
        {
            match &**message {
                Payload::PrePrepare(vote, _) if vote.voter == *from => agree(body, *from, vote.statement),
                Payload::Prepare(vote) => agree(body, *from, vote.statement),
                Payload::Checkpoint(vote) => {
                    let own = body.checkpoint(vote.statement.sequence, vote.statement.root);
                    body.send(*from, Message::Checkpoint(own));
                }
                _ => {}
            }
        }
        Some(input)
    }

    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        let Some(is_other) = half(body, to) else { return Some(message) };
        match message {
            Message::PrePrepare(proposal) if proposal.vote.voter == body.id() => {
                let Prepare { view, sequence, .. } = proposal.vote.statement;
                let real = body.batch_of(&proposal)?;
                let told = if is_other { other(real) } else { real };
                Some(body.propose(to, view, sequence, &told))
            }
            // What the puppet votes for, has decided and vouches for is that of one half.
            Message::PrePrepare(_)
            | Message::Prepare(_)
            | Message::Commit(_)
            | Message::Checkpoint(_)
            | Message::Stable(_)
            | Message::Decided(_) => None,
            _ => Some(message),
        }
    }
}
