//! Speaks for others: votes, proposals, view changes and new views in their names. (commonware,
//! consensus/src/simplex/mocks/impersonator.rs; PROTOCOL §4, the replica named is the one that the channel authenticated)
//!
//! It breaks a system that believes the name in a message: one liar is everybody. Correct replicas check each signature
//! under the key of the member named, and take votes only from who cast them.

use quorate_protocol::batch::Batch;
use quorate_protocol::codec::{List, decode};
use quorate_protocol::message::{Message, NewView, PrePrepare, ViewChange};
use quorate_protocol::number::ReplicaId;
use quorate_protocol::statement::{Statement, Vote};

use super::{Body, Strategy};

/// Says everything once more in the name of all others.
#[derive(Debug)]
pub(super) struct Impersonate;

/// The same statement in the name of each other: a vote of an accomplice, and a forgery of the rest.
fn names<'a, S: Statement + Copy + 'a>(body: &'a Body, statement: S) -> impl Iterator<Item = Vote<S>> + 'a {
    body.others().map(move |other| body.sign_as(other, statement))
}

impl Strategy for Impersonate {
    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        let false_ones: Vec<Message> = match &message {
            Message::Prepare(vote) => {
                // The primary, proposing the empty batch instead.
                let mut statement = vote.statement;
                statement.digest = Batch::empty().digest();
                let vote_of_primary = body.sign_as(body.configuration().primary(statement.view), statement);
                let batch = Batch::empty().body().clone().into();
                let proposal = Message::PrePrepare(PrePrepare { vote: vote_of_primary, batch });
                names(body, vote.statement).map(Message::Prepare).chain([proposal]).collect()
            }
            Message::Commit(vote) => names(body, vote.statement).map(Message::Commit).collect(),
            Message::Checkpoint(vote) => names(body, vote.statement).map(Message::Checkpoint).collect(),
            Message::ViewChange(signed) => {
                let content: ViewChange = decode(signed.body.bytes()).ok()?;
                let of = |replica| body.sign_view_change(&ViewChange { replica, ..content.clone() });
                let asked = body.others().filter_map(of).map(Message::ViewChange);
                // The view that nobody began, begun.
                let new_view = NewView {
                    epoch: body.epoch(),
                    view: content.view,
                    view_changes: List::empty(),
                    proposals: List::empty(),
                };
                asked.chain(body.sign_new_view(&new_view).map(Message::NewView)).collect()
            }
            _ => Vec::new(),
        };
        for message in false_ones {
            body.send(to, message);
        }
        Some(message)
    }
}
