//! Asks for a new view every moment, each higher than the last, and begins views on view changes that nobody has. (Malachite,
//! commit aeb7e736: a buffer a height, without a bound; PROTOCOL §7.2, memory is bounded whatever is sent)
//!
//! It breaks a system that keeps each of them, or waits for what a lie names: memory grows, and the true new view is not
//! looked at. Correct replicas keep one view change and one unfinished new view a member, the highest, and look for each
//! other's.

use core::time::Duration;

use quorate_crypto::Digest;
use quorate_protocol::codec::List;
use quorate_protocol::message::{Message, NamedViewChange, NewView, ViewChange};
use quorate_protocol::number::{ReplicaId, View};
use quorate_protocol::time::Time;

use super::{Body, Strategy};

/// Climbs from view to view on its own.
#[derive(Debug, Default)]
pub(super) struct FloodViews {
    last: Option<Time>,
    climbed: u64,
}

const INTERVAL: Duration = Duration::from_millis(20);
const MESSAGES: u64 = 8;

/// A new view of its own that rests on view changes which nobody made.
fn unfounded(body: &Body, view: View, salt: u64) -> Option<NewView> {
    let digest = |replica: ReplicaId| Digest::from_bytes([salt.to_le_bytes()[0] ^ replica.value(); 32]);
    let named = body.pretended_quorum().into_iter();
    let named = named.map(|replica| NamedViewChange { replica, digest: digest(replica) }).collect();
    Some(NewView { epoch: body.epoch(), view, view_changes: List::new(named)?, proposals: List::empty() })
}

impl Strategy for FloodViews {
    fn act(&mut self, body: &mut Body) {
        if !body.is_due(&mut self.last, INTERVAL) {
            return;
        }
        for _ in 0..MESSAGES {
            self.climbed += 1;
            let view = View::new(body.view().value().saturating_add(self.climbed));
            let content = ViewChange {
                epoch: body.epoch(),
                view,
                replica: body.id(),
                stable: None,
                prepared: List::empty(),
                cast: List::empty(),
            };
            let asks = body.sign_view_change(&content).map(Message::ViewChange);
            let is_own = body.configuration().primary(view) == body.id();
            let begins = unfounded(body, view, self.climbed).filter(|_| is_own);
            let begins = begins.and_then(|begins| body.sign_new_view(&begins)).map(Message::NewView);
            for message in asks.into_iter().chain(begins) {
                body.send_all(&message);
            }
        }
    }

    fn deadline(&self, _: &Body) -> Option<Time> {
        self.last.map(|last| last.after(INTERVAL))
    }
}
