//! What was said, checked once and delivered often.

use core::hash::{Hash, Hasher};
use std::hash::DefaultHasher;
use std::sync::Arc;

use quorate_protocol::configuration::Configuration;
use quorate_protocol::message::Message;
use quorate_protocol::number::{ReplicaId, View};
use quorate_protocol::statement::{Prepare, Vote};
use quorate_protocol::verify::{Payload, Verified, verify};

use crate::account::describe;
use crate::signature::Notary;

/// A message that somebody signed: once said, it may reach anyone at any time, any number of times.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) from: ReplicaId,
    pub(super) payload: Verified<Payload>,
    /// The view changes that a new view names, which its receiver may fetch.
    pub(super) rests_on: Vec<Arc<Self>>,
    pub(super) text: String,
    /// Stands for sender and content.
    print: u64,
}

/// Stands for anything, the same on every machine of one build.
pub(super) fn print_of(thing: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    thing.hash(&mut hasher);
    hasher.finish()
}

impl Letter {
    /// What `from` says, if it is valid.
    pub(super) fn new(
        from: ReplicaId,
        message: Message,
        rests_on: Vec<Arc<Self>>,
        configuration: &Configuration,
        notary: &mut Notary,
    ) -> Option<Self> {
        let print = print_of(&(from, &message));
        let text = format!("{} of {from}", describe(&message));
        let payload = verify(message, from, configuration, notary).ok()?;
        Some(Self { from, payload, rests_on, text, print })
    }

    pub(super) const fn print(&self) -> u64 {
        self.print
    }

    /// The vote to accept a batch that it carries, a proposal's too.
    pub(super) fn prepare(&self) -> Option<&Vote<Prepare>> {
        match &*self.payload {
            Payload::PrePrepare(vote, _) | Payload::Prepare(vote) => Some(vote),
            _ => None,
        }
    }

    /// The view that it asks for.
    pub(super) fn view_asked_for(&self) -> Option<View> {
        match &*self.payload {
            Payload::ViewChange(view_change) => Some(view_change.content.view),
            _ => None,
        }
    }
}
