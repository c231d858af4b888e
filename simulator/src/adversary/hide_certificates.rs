//! Leaves a view and keeps silent about what it holds prepared. (commonware, consensus/src/simplex/mocks/nuller.rs; Castro and
//! Liskov, OSDI 1999, section 4.4: why a decided slot is in every quorum of view changes; PROTOCOL §7.1)
//!
//! It breaks a system that takes fewer view changes than a quorum, or commits without a quorum that is prepared: what was
//! decided is gone. Correct replicas take q view changes, of which some correct one holds the certificate, and take it
//! from there. As the primary of the new view it rests it on whoever knows least. (PROTOCOL §7.3)

use std::collections::BTreeMap;

use quorate_protocol::codec::{List, decode};
use quorate_protocol::message::{Message, NamedViewChange, NewView, SignedViewChange, ViewChange, view_change_digest};
use quorate_protocol::number::{ReplicaId, View};

use super::conclusion::{asking_for, conclude};
use super::{Body, Strategy};

/// Replaces its view changes by ones without certificates and votes.
#[derive(Debug, Default)]
pub(super) struct HideCertificates {
    /// Its own, as the others know them. Bound: [`VIEWS_MAX`].
    hidden: BTreeMap<View, (SignedViewChange, ViewChange)>,
}

/// Views of which it remembers what it said.
const VIEWS_MAX: usize = 16;

impl HideCertificates {
    fn hide(&mut self, body: &Body, signed: &SignedViewChange) -> Option<SignedViewChange> {
        let content: ViewChange = decode(signed.body.bytes()).ok()?;
        if content.replica != body.id() {
            return Some(signed.clone());
        }
        let content = ViewChange { prepared: List::empty(), cast: List::empty(), ..content };
        let hidden = body.sign_view_change(&content)?;
        if self.hidden.len() >= VIEWS_MAX {
            self.hidden.pop_first();
        }
        self.hidden.insert(content.view, (hidden.clone(), content));
        Some(hidden)
    }

    /// A new view that follows from its view changes, of which those that list least are chosen.
    fn rest_on_the_ignorant(&self, body: &Body, view: View) -> Option<NewView> {
        let (own, content) = self.hidden.get(&view)?;
        let mut others: Vec<_> = asking_for(body, view).into_values().collect();
        others.sort_by_key(|view_change| view_change.content.prepared.len());
        others.truncate(body.configuration().quorum() - 1);
        let digest = view_change_digest(body.configuration().cluster(), &own.body);
        let mut named = vec![NamedViewChange { replica: body.id(), digest }];
        named.extend(
            others.iter().map(|other| NamedViewChange { replica: other.content.replica, digest: other.digest }),
        );
        named.sort_unstable_by_key(|named| named.replica);
        let contents: Vec<&ViewChange> = others.iter().map(|other| &other.content).chain([content]).collect();
        let is_enough = named.len() == body.configuration().quorum();
        is_enough.then_some(NewView {
            epoch: body.epoch(),
            view,
            view_changes: List::new(named)?,
            proposals: List::new(conclude(&contents))?,
        })
    }
}

impl Strategy for HideCertificates {
    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        match &message {
            Message::ViewChange(signed) => self.hide(body, signed).map(Message::ViewChange),
            Message::NewView(signed) => {
                let content: NewView = decode(signed.body.bytes()).ok()?;
                if body.configuration().primary(content.view) != body.id() {
                    return Some(message);
                }
                let Some(least) = self.rest_on_the_ignorant(body, content.view) else { return Some(message) };
                // Nobody else can be asked for the view change that it rests on.
                if let Some((own, _)) = self.hidden.get(&content.view) {
                    body.send(to, Message::ViewChange(own.clone()));
                }
                body.sign_new_view(&least).map(Message::NewView)
            }
            _ => Some(message),
        }
    }
}
