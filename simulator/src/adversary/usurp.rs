//! Begins views whose primary is another: a new view on a quorum of true view changes, with the right proposals, under its own
//! key. (Castro & Liskov, Practical Byzantine Fault Tolerance, OSDI 1999, section 4.4; PROTOCOL §7.3, §7.4)
//!
//! It breaks a system that checks what a new view says and not who says it: a view then begins in two ways, on different
//! view changes, and two batches are proposed for one slot. Correct replicas take a new view from the primary of that
//! view, by its key.

use std::collections::BTreeMap;

use quorate_protocol::codec::{List, decode};
use quorate_protocol::message::{Message, NamedViewChange, NewView, SignedViewChange, ViewChange, view_change_digest};
use quorate_protocol::number::{ReplicaId, View};

use super::conclusion::{asking_for, conclude};
use super::{Body, Strategy};

/// Begins each view that it asks for, once.
#[derive(Debug, Default)]
pub(super) struct Usurp {
    /// What it asked for last.
    own: Option<(View, SignedViewChange)>,
}

/// The new view of `view` on its own view change and others', if they are enough.
fn build(body: &Body, view: View, own: &SignedViewChange) -> Option<NewView> {
    let content: ViewChange = decode(own.body.bytes()).ok()?;
    let others = asking_for(body, view);
    // Those of the highest numbers: a primary takes the lowest.
    let others: Vec<_> = others.values().rev().take(body.configuration().quorum() - 1).collect();
    let digest = view_change_digest(body.configuration().cluster(), &own.body);
    let mut named: BTreeMap<ReplicaId, NamedViewChange> = BTreeMap::new();
    named.insert(body.id(), NamedViewChange { replica: body.id(), digest });
    named.extend(others.iter().map(|other| {
        let replica = other.content.replica;
        (replica, NamedViewChange { replica, digest: other.digest })
    }));
    let is_enough = named.len() == body.configuration().quorum();
    let contents: Vec<&ViewChange> = others.iter().map(|other| &other.content).chain([&content]).collect();
    let (view_changes, proposals) = (named.into_values().collect(), conclude(&contents));
    is_enough.then_some(NewView {
        epoch: body.epoch(),
        view,
        view_changes: List::new(view_changes)?,
        proposals: List::new(proposals)?,
    })
}

impl Strategy for Usurp {
    fn outgoing(&mut self, body: &mut Body, _: ReplicaId, message: Message) -> Option<Message> {
        if let Message::ViewChange(signed) = &message
            && !body.is_in_view()
            && self.own.as_ref().is_none_or(|(view, _)| *view < body.view())
        {
            self.own = Some((body.view(), signed.clone()));
        }
        Some(message)
    }

    fn act(&mut self, body: &mut Body) {
        let Some((view, own)) = self.own.as_ref().filter(|(view, _)| *view == body.view()) else { return };
        if body.is_in_view() || body.configuration().primary(*view) == body.id() {
            return;
        }
        if let Some(signed) = build(body, *view, own).and_then(|new_view| body.sign_new_view(&new_view)) {
            body.send_all(&Message::NewView(signed));
            // Once: nobody may make it say more than it was told.
            self.own = None;
        }
    }
}
