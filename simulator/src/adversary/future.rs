//! Speaks of what is yet to come: views, slots and epochs ahead of everybody. (commonware,
//! consensus/src/simplex/mocks/reconfigurer.rs, consensus/fuzz: `FutureScope`; PROTOCOL §3, nothing signed for one epoch counts in
//! another)
//!
//! It breaks a system that keeps what it cannot use yet, or lets a vote of one epoch count in the next. Correct replicas
//! keep one vote a member and slot, a bounded number of early proposals a member, and nothing of another epoch.

use quorate_protocol::batch::Batch;
use quorate_protocol::message::{Message, PrePrepare};
use quorate_protocol::number::{Epoch, ReplicaId, Sequence, View};
use quorate_protocol::statement::{Checkpoint, Commit, Prepare};

use super::{Body, Strategy};

/// Says everything again as of the next epoch, of views to come, and of slots at the edge of the window and beyond.
#[derive(Debug)]
pub(super) struct Future;

/// The next view of which it is the primary, so many rounds ahead.
fn own_view(body: &Body, rounds: u64) -> View {
    let size = body.configuration().size() as u64;
    let from = body.view().value().saturating_add(rounds.saturating_mul(size));
    let views = (1..=size).map(|offset| View::new(from.saturating_add(offset)));
    views.into_iter().find(|view| body.configuration().primary(*view) == body.id()).unwrap_or_else(|| body.view())
}

fn next(epoch: Epoch) -> Epoch {
    epoch.saturating_add(1)
}

impl Strategy for Future {
    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        let rounds = body.dice.below(3);
        let later: Vec<Message> = match &message {
            Message::Prepare(vote) => {
                let statement = vote.statement;
                let ahead = Prepare { epoch: next(statement.epoch), ..statement };
                let view = own_view(body, rounds);
                let own = body.prepare(view, statement.sequence, Batch::empty().digest());
                let early = PrePrepare { vote: own, batch: Batch::empty().body().clone().into() };
                vec![Message::Prepare(body.sign(ahead)), Message::PrePrepare(early)]
            }
            Message::Commit(vote) => {
                let ahead = Commit { epoch: next(vote.statement.epoch), ..vote.statement };
                let edge = body.stable().saturating_add(body.configuration().parameters().window);
                let slots = [edge, edge.saturating_add(1), Sequence::new(u64::MAX)];
                let votes = slots.map(|slot| Message::Commit(body.commit(own_view(body, 0), slot, ahead.digest)));
                votes.into_iter().chain([Message::Commit(body.sign(ahead))]).collect()
            }
            Message::Checkpoint(vote) => {
                let ahead = Checkpoint { epoch: next(vote.statement.epoch), ..vote.statement };
                vec![Message::Checkpoint(body.sign(ahead))]
            }
            Message::Status(status) => {
                let mut ahead = status.clone();
                ahead.epoch = next(ahead.epoch);
                vec![Message::Status(ahead)]
            }
            _ => Vec::new(),
        };
        for message in later {
            body.send(to, message);
        }
        Some(message)
    }
}
