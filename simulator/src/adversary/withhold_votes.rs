//! Lets only one other replica know how it votes, each slot another. (Winter et al., `ByzzFuzz`, OOPSLA 2023: dangerous states are
//! those that one replica alone is in; PROTOCOL §9)
//!
//! It breaks a system that takes what it knows for what all know: one replica holds a slot prepared or decided, and
//! nobody else. Correct replicas make a quorum without the liar, ask for what they lack, and carry what one of them holds
//! into the next view. (PROTOCOL §7.3)

use quorate_protocol::message::Message;
use quorate_protocol::number::{ReplicaId, Sequence};

use super::{Body, Strategy};

/// Prepares are for one replica, commits for the next.
#[derive(Debug)]
pub(super) struct WithholdVotes;

/// Who is let know.
fn chosen(body: &Body, sequence: Sequence, offset: u64) -> Option<ReplicaId> {
    let accomplices = body.accomplices();
    let correct: Vec<ReplicaId> = body.others().filter(|other| !accomplices.contains(other)).collect();
    let place = sequence.value().saturating_add(offset) % (correct.len() as u64).max(1);
    correct.get(usize::try_from(place).ok()?).copied()
}

impl Strategy for WithholdVotes {
    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        let is_told = match &message {
            Message::Prepare(vote) => chosen(body, vote.statement.sequence, 0) == Some(to),
            Message::Commit(vote) => chosen(body, vote.statement.sequence, 1) == Some(to),
            Message::Stable(_) | Message::Decided(_) => false,
            _ => true,
        };
        (is_told || body.accomplices().contains(&to)).then_some(message)
    }
}
