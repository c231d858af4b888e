//! Speaks of what is over: votes of views that were left and slots that are stable, view changes long granted. (commonware,
//! consensus/src/simplex/mocks/outdated.rs; PROTOCOL §7.1, votes in views that were left)
//!
//! It breaks a system that lets an old vote count in a new view, or takes an old new view up again: what was given up is
//! decided. Correct replicas count a vote in its own view only, the highest of each member, and no slot at or below the
//! low watermark.

use quorate_protocol::codec::List;
use quorate_protocol::message::{Message, PrePrepare, ViewChange};
use quorate_protocol::number::{ReplicaId, Sequence, View};

use super::{Body, Strategy};

/// Says each vote as of the view before and the first slot, too, and old proposals and new views with it.
#[derive(Debug)]
pub(super) struct Outdated;

fn before(view: View) -> View {
    View::new(view.value().saturating_sub(1))
}

impl Strategy for Outdated {
    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        let first = Sequence::new(1);
        let mut old: Vec<Message> = match &message {
            Message::Prepare(vote) => {
                let (view, sequence, digest) = (vote.statement.view, vote.statement.sequence, vote.statement.digest);
                vec![
                    Message::Prepare(body.prepare(before(view), sequence, digest)),
                    Message::Prepare(body.prepare(view, first, digest)),
                ]
            }
            Message::Commit(vote) => {
                let (view, sequence, digest) = (vote.statement.view, vote.statement.sequence, vote.statement.digest);
                vec![
                    Message::Commit(body.commit(before(view), sequence, digest)),
                    Message::Commit(body.commit(view, first, digest)),
                ]
            }
            Message::Checkpoint(vote) => vec![Message::Checkpoint(body.checkpoint(first, vote.statement.root))],
            Message::Status(status) => {
                let mut status = status.clone();
                (status.view, status.executed, status.stable) = (View::ZERO, Sequence::ZERO, Sequence::ZERO);
                let content = ViewChange {
                    epoch: body.epoch(),
                    view: View::new(1),
                    replica: body.id(),
                    stable: None,
                    prepared: List::empty(),
                    cast: List::empty(),
                };
                let asks = body.sign_view_change(&content).map(Message::ViewChange);
                asks.into_iter().chain([Message::Status(status)]).collect()
            }
            _ => Vec::new(),
        };
        if body.dice.below(8) == 0 {
            let proposal = body.seen.proposals.front().map(|(vote, batch)| {
                Message::PrePrepare(PrePrepare { vote: *vote, batch: batch.body().clone().into() })
            });
            let new_view = body.seen.new_views.front().map(|new_view| Message::NewView(new_view.signed.clone()));
            old.extend(proposal.into_iter().chain(new_view));
        }
        for message in old {
            body.send(to, message);
        }
        Some(message)
    }
}
