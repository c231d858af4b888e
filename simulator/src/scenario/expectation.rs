//! What must have come about in a scenario, besides the invariants.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::checker::Invariant;
use crate::span::Span;

/// Something that must have come about, or must not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Expectation {
    /// By this moment every call that was made before it is answered.
    AnsweredBy(Span),
    /// By this moment no call is answered.
    UnansweredAt(Span),
    /// At the end this replica has executed at least up to this slot.
    Executed(u8, u64),
    /// At the end this replica has executed no slot above this one.
    NotExecuted(u8, u64),
    /// At no time does a correct replica enter a view above this one.
    NoViewAbove(u64),
    /// At the end some correct replica is in this view or a higher one.
    ViewReached(u64),
    /// At the end an ordered read of this key gives this value.
    Value(String, String),
    /// A correct replica kept a proof against this one.
    EvidenceAgainst(u8),
    /// This attacker did what its script says at least so often since it was started: the attack took place.
    Reacted(u8, u64),
    /// This replica took over a state that it was sent.
    TookOverState(u8),
    /// This invariant is violated: more went wrong than the protocol bears.
    Violated(Invariant),
}

impl Expectation {
    /// The replica that it is about.
    pub(crate) const fn replica(&self) -> Option<u8> {
        match self {
            Self::Executed(replica, _)
            | Self::NotExecuted(replica, _)
            | Self::EvidenceAgainst(replica)
            | Self::Reacted(replica, _)
            | Self::TookOverState(replica) => Some(*replica),
            Self::AnsweredBy(_)
            | Self::UnansweredAt(_)
            | Self::NoViewAbove(_)
            | Self::ViewReached(_)
            | Self::Value(..)
            | Self::Violated(_) => None,
        }
    }
}
