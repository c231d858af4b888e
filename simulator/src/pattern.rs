//! Which messages are meant: patterns by kind, sender, receiver, view and slot, for rules, traps and scripts.

use quorate_protocol::message::{Fetch, Message};
use quorate_protocol::number::{ReplicaId, Sequence, View};
use quorate_protocol::verify::Payload;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::statement;

/// The kinds of messages between replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "each is the variant of `Message` with the same name")]
pub enum Kind {
    Request,
    PrePrepare,
    Prepare,
    Commit,
    Checkpoint,
    Stable,
    ViewChange,
    NewView,
    Status,
    Fetch,
    Batch,
    Decided,
    Part,
    Statements,
    Conflict,
}

impl Kind {
    /// All kinds, in the order of the messages.
    pub const ALL: [Self; 15] = [
        Self::Request,
        Self::PrePrepare,
        Self::Prepare,
        Self::Commit,
        Self::Checkpoint,
        Self::Stable,
        Self::ViewChange,
        Self::NewView,
        Self::Status,
        Self::Fetch,
        Self::Batch,
        Self::Decided,
        Self::Part,
        Self::Statements,
        Self::Conflict,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "Request",
            Self::PrePrepare => "PrePrepare",
            Self::Prepare => "Prepare",
            Self::Commit => "Commit",
            Self::Checkpoint => "Checkpoint",
            Self::Stable => "Stable",
            Self::ViewChange => "ViewChange",
            Self::NewView => "NewView",
            Self::Status => "Status",
            Self::Fetch => "Fetch",
            Self::Batch => "Batch",
            Self::Decided => "Decided",
            Self::Part => "Part",
            Self::Statements => "Statements",
            Self::Conflict => "Conflict",
        }
    }
}

/// What a message is, and what it is about.
pub trait Matter {
    /// Its kind.
    fn kind(&self) -> Kind;

    /// The view and the slot that it is about, as far as it is about one.
    fn place(&self) -> (Option<u64>, Option<u64>);
}

impl Matter for Message {
    fn kind(&self) -> Kind {
        match self {
            Self::Request(_) => Kind::Request,
            Self::PrePrepare(_) => Kind::PrePrepare,
            Self::Prepare(_) => Kind::Prepare,
            Self::Commit(_) => Kind::Commit,
            Self::Checkpoint(_) => Kind::Checkpoint,
            Self::Stable(_) => Kind::Stable,
            Self::ViewChange(_) => Kind::ViewChange,
            Self::NewView(_) => Kind::NewView,
            Self::Status(_) => Kind::Status,
            Self::Fetch(_) => Kind::Fetch,
            Self::Batch(_) => Kind::Batch,
            Self::Decided(_) => Kind::Decided,
            Self::Part(_) => Kind::Part,
            Self::Statements(_) => Kind::Statements,
            Self::Conflict(_) => Kind::Conflict,
        }
    }

    fn place(&self) -> (Option<u64>, Option<u64>) {
        match self {
            Self::PrePrepare(proposal) => of_vote(proposal.vote.statement.view, proposal.vote.statement.sequence),
            Self::Prepare(vote) | Self::Conflict(vote) => of_vote(vote.statement.view, vote.statement.sequence),
            Self::Commit(vote) => of_vote(vote.statement.view, vote.statement.sequence),
            Self::Checkpoint(vote) => of_slot(vote.statement.sequence),
            Self::Stable(certificate) => of_slot(certificate.statement.sequence),
            Self::ViewChange(signed) => (statement::view_change(signed).map(|content| content.view.value()), None),
            Self::NewView(signed) => (statement::new_view(signed).map(|content| content.view.value()), None),
            Self::Status(status) => (Some(status.view.value()), None),
            Self::Batch(fetched) => of_slot(fetched.sequence),
            Self::Decided(decided) => of_slot(decided.certificate.statement.sequence),
            Self::Part(part) => of_slot(part.sequence),
            Self::Fetch(fetch) => of_fetch(fetch),
            Self::Request(_) | Self::Statements(_) => (None, None),
        }
    }
}

impl Matter for Payload {
    fn kind(&self) -> Kind {
        match self {
            Self::Request(_) => Kind::Request,
            Self::PrePrepare(..) => Kind::PrePrepare,
            Self::Prepare(_) => Kind::Prepare,
            Self::Commit(_) => Kind::Commit,
            Self::Checkpoint(_) => Kind::Checkpoint,
            Self::Stable(_) => Kind::Stable,
            Self::ViewChange(_) => Kind::ViewChange,
            Self::NewView(_) => Kind::NewView,
            Self::Status(_) => Kind::Status,
            Self::Fetch(_) => Kind::Fetch,
            Self::Batch(..) => Kind::Batch,
            Self::Decided(..) => Kind::Decided,
            Self::Part(_) => Kind::Part,
            Self::Statements(_) => Kind::Statements,
            Self::Conflict(_) => Kind::Conflict,
        }
    }

    fn place(&self) -> (Option<u64>, Option<u64>) {
        match self {
            Self::PrePrepare(vote, _) | Self::Prepare(vote) | Self::Conflict(vote) => {
                of_vote(vote.statement.view, vote.statement.sequence)
            }
            Self::Commit(vote) => of_vote(vote.statement.view, vote.statement.sequence),
            Self::Checkpoint(vote) => of_slot(vote.statement.sequence),
            Self::Stable(certificate) => of_slot(certificate.statement.sequence),
            Self::ViewChange(checked) => (Some(checked.content.view.value()), None),
            Self::NewView(checked) => (Some(checked.content.view.value()), None),
            Self::Status(status) => (Some(status.view.value()), None),
            Self::Batch(sequence, _) => of_slot(*sequence),
            Self::Decided(certificate, _) => of_slot(certificate.statement.sequence),
            Self::Part(part) => of_slot(part.sequence),
            Self::Fetch(fetch) => of_fetch(fetch),
            Self::Request(_) | Self::Statements(_) => (None, None),
        }
    }
}

const fn of_fetch(fetch: &Fetch) -> (Option<u64>, Option<u64>) {
    match fetch {
        Fetch::Batch { sequence, .. } | Fetch::Part { sequence, .. } => of_slot(*sequence),
        Fetch::NewView { view } => (Some(view.value()), None),
        Fetch::Decided { .. } | Fetch::ViewChange { .. } | Fetch::Statements { .. } => (None, None),
    }
}

const fn of_vote(view: View, slot: Sequence) -> (Option<u64>, Option<u64>) {
    (Some(view.value()), Some(slot.value()))
}

const fn of_slot(slot: Sequence) -> (Option<u64>, Option<u64>) {
    (None, Some(slot.value()))
}

/// Which messages are meant: each field that is absent, or empty, means any.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pattern {
    /// Kinds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<Kind>,
    /// Senders.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<u8>,
    /// Receivers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<u8>,
    /// The view that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub view: Option<u64>,
    /// The first and the last slot that it may be about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<[u64; 2]>,
}

impl Pattern {
    /// Whether a message that `from` sends to `to` is meant.
    pub fn matches(&self, from: ReplicaId, to: ReplicaId, message: &impl Matter) -> bool {
        let is_among = |ids: &[u8], id: ReplicaId| ids.is_empty() || ids.contains(&id.value());
        is_among(&self.from, from) && is_among(&self.to, to) && self.is_about(message)
    }

    /// Whether a message is meant, whoever sends it to whom.
    pub fn is_about(&self, message: &impl Matter) -> bool {
        if !self.kinds.is_empty() && !self.kinds.contains(&message.kind()) {
            return false;
        }
        if self.view.is_none() && self.slots.is_none() {
            return true;
        }
        let (view, slot) = message.place();
        self.view.is_none_or(|wanted| view == Some(wanted))
            && self.slots.is_none_or(|[first, last]| slot.is_some_and(|slot| (first..=last).contains(&slot)))
    }
}
