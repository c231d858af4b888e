//! Asks for the last view that there is, and claims to be in it. (Malachite, commit 4793a194: an overflow; Bravo, Chockler and
//! Gotsman, DISC 2020, on view synchronisation; PROTOCOL §6, joining others)
//!
//! It breaks a system that follows the highest view that it hears of, or adds one to it: nobody can come after, and
//! clients look for a primary that is none. Correct replicas move to the highest view that w members ask for or exceed.

use quorate_protocol::Output;
use quorate_protocol::codec::List;
use quorate_protocol::message::{Message, NamedViewChange, NewView, ViewChange};
use quorate_protocol::number::{ReplicaId, View};
use quorate_protocol::time::Time;

use super::{Body, Strategy};

/// Tells peers and clients of the last view.
#[derive(Debug, Default)]
pub(super) struct JumpView {
    last: Option<Time>,
}

/// The highest view of which it is the primary.
fn last_own(body: &Body) -> View {
    let size = body.configuration().size() as u64;
    let views = (0..size).map(|below| View::new(u64::MAX - below));
    views.into_iter().find(|view| body.configuration().primary(*view) == body.id()).unwrap_or(View::new(u64::MAX))
}

impl Strategy for JumpView {
    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        let Message::Status(mut status) = message else { return Some(message) };
        status.view = View::new(u64::MAX - body.dice.below(2));
        // Some are to ask for that view, the others to pity who can't come back from it.
        status.entered = to.value().is_multiple_of(2);
        status.suspects = true;
        Some(Message::Status(status))
    }

    fn output(&mut self, _: &mut Body, output: Output) -> Option<Output> {
        let Output::Reply(mut reply) = output else { return Some(output) };
        reply.view = View::new(u64::MAX);
        Some(Output::Reply(reply))
    }

    fn act(&mut self, body: &mut Body) {
        if !body.is_due(&mut self.last, body.configuration().parameters().heartbeat()) {
            return;
        }
        let asks = |view| ViewChange {
            epoch: body.epoch(),
            view,
            replica: body.id(),
            stable: None,
            prepared: List::empty(),
            cast: List::empty(),
        };
        let asked = [View::new(u64::MAX), last_own(body)].map(|view| body.sign_view_change(&asks(view)));
        let named = body.pretended_quorum().into_iter();
        let digest = quorate_protocol::batch::Batch::empty().digest();
        let named = named.map(|replica| NamedViewChange { replica, digest }).collect();
        let begins = NewView {
            epoch: body.epoch(),
            view: last_own(body),
            view_changes: List::new(named).unwrap_or_else(List::empty),
            proposals: List::empty(),
        };
        let begins = body.sign_new_view(&begins).map(Message::NewView);
        let messages: Vec<Message> = asked.into_iter().flatten().map(Message::ViewChange).chain(begins).collect();
        for message in &messages {
            body.send_all(message);
        }
    }
}
