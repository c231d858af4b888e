//! Suspects every primary, and asks for the next view at once. (commonware, `consensus/src/simplex/mocks/nullify_only.rs`;
//! PROTOCOL §6, a liar alone moves nobody)
//!
//! It breaks a system that moves on one replica's word: no view lasts. Correct replicas move only where w members, one of
//! them correct, suspect or ask; that it asks in vain they forgive once in a long while. (PROTOCOL §7.2)

use core::time::Duration;

use quorate_protocol::codec::List;
use quorate_protocol::message::{Message, ViewChange};
use quorate_protocol::number::ReplicaId;
use quorate_protocol::time::Time;

use super::{Body, Strategy};

/// Complains in each status, and asks for the view after the one that it is in.
#[derive(Debug, Default)]
pub(super) struct EarlyViewChange {
    last: Option<Time>,
}

/// From one complaint to the next.
const COMPLAINS: Duration = Duration::from_millis(50);

impl Strategy for EarlyViewChange {
    fn outgoing(&mut self, _: &mut Body, _: ReplicaId, message: Message) -> Option<Message> {
        let Message::Status(mut status) = message else { return Some(message) };
        status.suspects = true;
        Some(Message::Status(status))
    }

    fn act(&mut self, body: &mut Body) {
        if !body.is_due(&mut self.last, COMPLAINS) {
            return;
        }
        let Some(next) = body.view().next() else { return };
        let content = ViewChange {
            epoch: body.epoch(),
            view: next,
            replica: body.id(),
            stable: body.seen.stable.back().cloned(),
            prepared: List::empty(),
            cast: List::empty(),
        };
        if let Some(signed) = body.sign_view_change(&content) {
            body.send_all(&Message::ViewChange(signed));
        }
    }

    fn deadline(&self, _: &Body) -> Option<Time> {
        self.last.map(|last| last.after(COMPLAINS))
    }
}
