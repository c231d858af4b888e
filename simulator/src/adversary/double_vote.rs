//! Says each vote over and over, by every path there is. (Malachite, commit a233b8ce: duplicate votes were counted twice;
//! PROTOCOL §4, one vote counts per member, slot and digest, whatever path it came by)
//!
//! It breaks a system that counts messages instead of members: one liar makes a quorum alone. Correct replicas count it
//! once, and a certificate that lists a member twice counts for nothing. (PROTOCOL §3)

use quorate_crypto::Digest;
use quorate_protocol::batch::Batch;
use quorate_protocol::message::{Decided, Message};
use quorate_protocol::number::ReplicaId;
use quorate_protocol::statement::{Checkpoint, Statement};

use super::{Body, Strategy};

/// Repeats votes until they would make a quorum, and puts certificates together out of one vote.
#[derive(Debug)]
pub(super) struct DoubleVote;

/// A certificate in which it stands as often as a quorum needs.
fn alone<S: Statement + Copy>(body: &Body, statement: S) -> quorate_protocol::certificate::Certificate<S> {
    body.forge(statement, core::iter::repeat_n(body.id(), body.configuration().quorum()))
}

impl Strategy for DoubleVote {
    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        match &message {
            Message::PrePrepare(proposal) => {
                for _ in 1..body.configuration().quorum() {
                    body.send(to, Message::Prepare(proposal.vote));
                }
            }
            Message::Prepare(vote) => {
                for _ in 1..body.configuration().quorum() {
                    body.send(to, message.clone());
                }
                // The empty batch, decided by one.
                let mut statement = vote.statement.commit();
                statement.digest = Batch::empty().digest();
                let certificate = alone(body, statement);
                body.send(to, Message::Decided(Decided { certificate, batch: Batch::empty().body().clone().into() }));
            }
            Message::Commit(_) => {
                for _ in 1..body.configuration().quorum() {
                    body.send(to, message.clone());
                }
            }
            Message::Checkpoint(vote) => {
                for _ in 1..body.configuration().quorum() {
                    body.send(to, message.clone());
                }
                let certificate = alone(body, Checkpoint { root: Digest::from_bytes([2; 32]), ..vote.statement });
                body.send(to, Message::Stable(certificate));
            }
            _ => {}
        }
        Some(message)
    }
}
