//! What becomes of single messages: rules by kind, sender, receiver, view, slot and time.

use core::time::Duration;

use quorate_protocol::message::Message;
use quorate_protocol::number::ReplicaId;
use quorate_protocol::time::Time;
use serde::{Deserialize, Serialize};

use crate::network::{Filter, Passage, Verdict};
use crate::random::{Chance, Random, Stream};
use crate::span::Span;
use crate::statement;

/// The kinds of messages between replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
}

impl Kind {
    /// All kinds, in the order of the messages.
    pub const ALL: [Self; 13] = [
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
        }
    }

    /// The kind of `message`.
    pub const fn of(message: &Message) -> Self {
        match message {
            Message::Request(_) => Self::Request,
            Message::PrePrepare(_) => Self::PrePrepare,
            Message::Prepare(_) => Self::Prepare,
            Message::Commit(_) => Self::Commit,
            Message::Checkpoint(_) => Self::Checkpoint,
            Message::Stable(_) => Self::Stable,
            Message::ViewChange(_) => Self::ViewChange,
            Message::NewView(_) => Self::NewView,
            Message::Status(_) => Self::Status,
            Message::Fetch(_) => Self::Fetch,
            Message::Batch(_) => Self::Batch,
            Message::Decided(_) => Self::Decided,
            Message::Part(_) => Self::Part,
        }
    }
}

/// The view and the slot that a message is about, as far as it is about one.
pub fn place_of(message: &Message) -> (Option<u64>, Option<u64>) {
    match message {
        Message::PrePrepare(proposal) => {
            (Some(proposal.vote.statement.view.value()), Some(proposal.vote.statement.sequence.value()))
        }
        Message::Prepare(vote) => (Some(vote.statement.view.value()), Some(vote.statement.sequence.value())),
        Message::Commit(vote) => (Some(vote.statement.view.value()), Some(vote.statement.sequence.value())),
        Message::Checkpoint(vote) => (None, Some(vote.statement.sequence.value())),
        Message::Stable(certificate) => (None, Some(certificate.statement.sequence.value())),
        Message::ViewChange(signed) => (statement::view_change(signed).map(|content| content.view.value()), None),
        Message::NewView(signed) => (statement::new_view(signed).map(|content| content.view.value()), None),
        Message::Status(status) => (Some(status.view.value()), None),
        Message::Batch(fetched) => (None, Some(fetched.sequence.value())),
        Message::Decided(decided) => (None, Some(decided.certificate.statement.sequence.value())),
        Message::Part(part) => (None, Some(part.sequence.value())),
        Message::Request(_) | Message::Fetch(_) => (None, None),
    }
}

/// Which messages are meant: each field that is absent, or empty, means any.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
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
    pub fn matches(&self, from: ReplicaId, to: ReplicaId, message: &Message) -> bool {
        let is_among = |ids: &[u8], id: ReplicaId| ids.is_empty() || ids.contains(&id.value());
        is_among(&self.from, from) && is_among(&self.to, to) && self.is_about(message)
    }

    /// Whether a message is meant, whoever sends it to whom.
    pub fn is_about(&self, message: &Message) -> bool {
        if !self.kinds.is_empty() && !self.kinds.contains(&Kind::of(message)) {
            return false;
        }
        if self.view.is_none() && self.slots.is_none() {
            return true;
        }
        let (view, slot) = place_of(message);
        self.view.is_none_or(|wanted| view == Some(wanted))
            && self.slots.is_none_or(|[first, last]| slot.is_some_and(|slot| (first..=last).contains(&slot)))
    }
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It arrives as the link decides, whatever later rules say.
    Deliver,
    /// It never arrives.
    Drop,
    /// It takes so much longer.
    Delay(Span),
    /// It arrives twice, the second time so much later.
    Duplicate(Span),
    /// It waits until this moment.
    Hold(Span),
}

/// What becomes of which messages, and when. The first rule that applies decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which messages.
    #[serde(default)]
    pub messages: Pattern,
    /// Since when; from the start, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Span>,
    /// Until when; until everything is mended, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Span>,
    /// How many of a million; all, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chance_ppm: Option<u32>,
    /// How many of the first are spared.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub spare: u32,
    /// How many are met at most; all, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<u32>,
    /// What becomes of them.
    pub then: Fate,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A rule at work.
struct Working {
    rule: Rule,
    seen: u32,
    met: u32,
}

impl Working {
    fn applies(&mut self, passage: &Passage<'_>, random: &mut Random) -> bool {
        let rule = &self.rule;
        let is_in_time = rule.since.is_none_or(|since| passage.at >= moment(since))
            && rule.until.is_none_or(|until| passage.at < moment(until));
        if !is_in_time || !rule.messages.matches(passage.from, passage.to, passage.message) {
            return false;
        }
        self.seen = self.seen.saturating_add(1);
        let is_spared = self.seen <= rule.spare || rule.most.is_some_and(|most| self.met >= most);
        if is_spared || rule.chance_ppm.is_some_and(|chance| !random.happens(Chance::per_million(chance))) {
            return false;
        }
        self.met += 1;
        true
    }
}

/// The moment that a span from the start of a run names.
pub(crate) fn moment(span: Span) -> Time {
    Time::ZERO.after(span.0)
}

/// All rules as one filter of the network.
pub(crate) fn filter(rules: &[Rule], seed: u64) -> Filter {
    let mut random = Random::new(seed, Stream::Rules);
    let mut working: Vec<Working> = rules.iter().map(|rule| Working { rule: rule.clone(), seen: 0, met: 0 }).collect();
    Box::new(move |passage| {
        let Some(rule) = working.iter_mut().find_map(|rule| rule.applies(passage, &mut random).then_some(&rule.rule))
        else {
            return Verdict::Pass;
        };
        match rule.then {
            Fate::Deliver => Verdict::Pass,
            Fate::Drop => Verdict::Drop,
            Fate::Delay(span) => Verdict::Delay(span.0),
            Fate::Duplicate(span) => Verdict::Duplicate(span.0),
            Fate::Hold(span) => Verdict::Delay(Duration::from_nanos(
                moment(span).nanoseconds().saturating_sub(passage.at.nanoseconds()),
            )),
        }
    })
}
