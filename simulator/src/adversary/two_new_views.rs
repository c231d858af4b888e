//! As the primary of a new view, signs two that are both valid, on different view changes, and shows each to half of the
//! others. (Bano et al., Twins, OPODIS 2021; PROTOCOL §7.4, no other new view of that view replaces it)
//!
//! It breaks a system that trusts that a view begins in one way: the halves accept different batches for one slot in one
//! view, and votes that do not name the batch make a quorum of both. Correct replicas stay with the new view that they
//! entered by, even over a restart, and count votes by batch; the view makes no progress where the two differ, and the
//! next one does.

use std::collections::BTreeMap;

use quorate_protocol::codec::{List, decode};
use quorate_protocol::message::{
    Message, NamedViewChange, NewView, SignedNewView, SignedViewChange, ViewChange, view_change_digest,
};
use quorate_protocol::number::{ReplicaId, View};

use super::conclusion::{asking_for, conclude};
use super::{Body, Strategy};

/// Shows replicas of odd number a new view that hides as much as it can.
#[derive(Debug, Default)]
pub(super) struct TwoNewViews {
    /// Views with its own view change that hides all, and the second new view. Bound: [`VIEWS_MAX`].
    second: BTreeMap<View, (SignedViewChange, SignedNewView)>,
}

/// Views of which it remembers what it said.
const VIEWS_MAX: usize = 16;

fn is_second(to: ReplicaId) -> bool {
    !to.value().is_multiple_of(2)
}

/// A second view change of its own, and the new view that follows from it with those of the others that list least.
fn build(body: &Body, first: &NewView) -> Option<(SignedViewChange, SignedNewView)> {
    let mut others: Vec<_> = asking_for(body, first.view).into_values().collect();
    others.sort_by_key(|other| (other.content.stable_sequence(), other.content.prepared.len()));
    others.truncate(body.configuration().quorum() - 1);
    let own = ViewChange {
        epoch: body.epoch(),
        view: first.view,
        replica: body.id(),
        stable: None,
        prepared: List::empty(),
        cast: List::empty(),
    };
    let signed = body.sign_view_change(&own)?;
    let digest = view_change_digest(body.configuration().cluster(), &signed.body);
    let mut named = vec![NamedViewChange { replica: body.id(), digest }];
    named.extend(others.iter().map(|other| NamedViewChange { replica: other.content.replica, digest: other.digest }));
    named.sort_unstable_by_key(|named| named.replica);
    let contents: Vec<&ViewChange> = others.iter().map(|other| &other.content).chain([&own]).collect();
    let second =
        NewView { view_changes: List::new(named)?, proposals: List::new(conclude(&contents))?, ..first.clone() };
    let is_enough = second.view_changes.len() == body.configuration().quorum();
    let new_view = body.sign_new_view(&second).filter(|_| is_enough)?;
    // Accomplices vote, towards each half, for what it was told.
    for to in body.others() {
        let told = if is_second(to) { &second.proposals } else { &first.proposals };
        told.iter().for_each(|proposal| body.tell(to, second.view, proposal.sequence, proposal.digest));
    }
    Some((signed, new_view))
}

impl Strategy for TwoNewViews {
    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        let Message::NewView(signed) = &message else { return Some(body.as_told(to, message)) };
        let content: NewView = decode(signed.body.bytes()).ok()?;
        if body.configuration().primary(content.view) != body.id() {
            return Some(message);
        }
        if !self.second.contains_key(&content.view) {
            let Some(second) = build(body, &content) else { return Some(message) };
            if self.second.len() >= VIEWS_MAX {
                self.second.pop_first();
            }
            self.second.insert(content.view, second);
        }
        let Some((view_change, new_view)) = self.second.get(&content.view).filter(|_| is_second(to)) else {
            return Some(message);
        };
        body.send(to, Message::ViewChange(view_change.clone()));
        Some(Message::NewView(new_view.clone()))
    }
}
