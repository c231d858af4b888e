//! What a script can say, in the words of a file.

use core::fmt;

use quorate_protocol::number::ReplicaId;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::adversary::Body;
use crate::span::Span;

/// Something that is signed and said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Speech {
    /// To whom.
    #[serde(default, skip_serializing_if = "Whom::is_all")]
    pub to: Whom,
    /// How much later.
    #[serde(default, skip_serializing_if = "is_at_once")]
    pub after: Span,
    /// What.
    pub message: Saying,
}

/// To whom something is said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Whom {
    /// All others.
    #[default]
    All,
    /// Who said what set it off, or to whom that was going.
    Peer,
    /// These.
    Replicas(Vec<u8>),
}

/// A message. Its view and its slot are, unless it says otherwise, those of what set it off; else the view that the attacker
/// is in, and the slot after the last that it executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Saying {
    /// A proposal.
    PrePrepare(Ballot),
    /// A vote to accept a batch.
    Prepare(Ballot),
    /// A vote that a batch is prepared.
    Commit(Ballot),
    /// A vote for a state.
    Checkpoint(State),
    /// That the views below are left.
    ViewChange(Leaving),
    /// How a view begins.
    NewView(Beginning),
    /// How far it came.
    Status(Boast),
    /// What it lacks.
    Fetch(Wanted),
    /// The answer to somebody who asks for a part of a state: of one that nobody has, in which nothing was ordered, with one
    /// made-up entry.
    Part(Lie),
}

/// A number that is given, or one that is so much above or below that of what set the reaction off: `7`, `"+1"`, `"-1"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// This one.
    Exactly(u64),
    /// So much more, or less.
    Offset(i64),
}

/// A batch for a slot in a view.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ballot {
    /// The view.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub view: Option<Number>,
    /// The slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<Number>,
    /// The batch.
    pub batch: BatchName,
}

/// Which batch is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BatchName {
    /// The one of what set the reaction off; else the first that was proposed for the slot and view, or for the slot.
    #[default]
    Proposed,
    /// The empty one.
    Empty,
    /// That with the requests of `proposed` in reverse order.
    Reordered,
    /// That with the requests of `proposed`, stamped a nanosecond later.
    Restamped,
    /// One of the latest requests of clients that the attacker saw, stamped now.
    Requests,
    /// None that there is: a digest that somebody made up.
    Unknown,
}

/// The state after a slot.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// The slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<Number>,
    /// The root of the state.
    pub root: Root,
}

/// Which root is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Root {
    /// A made-up one.
    #[default]
    Unknown,
    /// That of the vote which set the reaction off.
    Heard,
}

/// A view change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Leaving {
    /// The view that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub view: Option<Number>,
    /// The stable certificate that it holds.
    pub stable: Told,
    /// The prepared certificates that it lists.
    pub prepared: Prepared,
    /// The votes that it lists.
    pub cast: Told,
}

/// Whether something known is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// All of it.
    #[default]
    Known,
    /// Nothing of it.
    None,
}

/// Which prepared certificates a view change lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Prepared {
    /// All that the attacker can put together, for each slot that of the highest view.
    #[default]
    Known,
    /// None.
    None,
    /// Only those of this view.
    OfView(u64),
    /// For each slot that was proposed, one for the empty batch, of the view just below, with signatures that are not those
    /// of the voters.
    Forged,
}

/// A new view.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Beginning {
    /// The view.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub view: Option<Number>,
    /// Whose view changes it rests on; those of the first quorum that are known, if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rests_on: Vec<u8>,
    /// What it proposes.
    pub proposals: Proposals,
}

/// What a new view proposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Proposals {
    /// What follows from its view changes.
    #[default]
    Right,
    /// The empty batch for each slot for which something follows.
    Empty,
    /// Nothing.
    None,
    /// For each slot the certificate of the lowest view, not of the highest.
    Lowest,
}

/// A status: what is absent is as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Boast {
    /// The view.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub view: Option<Number>,
    /// Whether it entered that view; yes, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entered: Option<bool>,
    /// Whether it suspects the primary.
    pub suspects: bool,
    /// The low watermark; an offset is one to its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stable: Option<Number>,
    /// The last slot that it executed; an offset is one to its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executed: Option<Number>,
}

/// What somebody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Wanted {
    /// The batch of the slot.
    Batch(BatchName),
    /// Decided slots after this one.
    Decided(Number),
    /// The new view of this view or of a higher one.
    NewView(Number),
    /// The state at this checkpoint, from its beginning.
    Part(Number),
}

/// An entry that no state has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lie {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

const fn is_at_once(after: &Span) -> bool {
    after.0.is_zero()
}

impl Speech {
    /// The replicas that it names.
    pub(super) fn names(&self) -> impl Iterator<Item = &u8> {
        let to: &[u8] = if let Whom::Replicas(replicas) = &self.to { replicas } else { &[] };
        let rests_on: &[u8] = if let Saying::NewView(beginning) = &self.message { &beginning.rests_on } else { &[] };
        to.iter().chain(rests_on)
    }
}

impl Number {
    /// The number, where `base` is that of what set the reaction off.
    pub(super) fn relative_to(self, base: u64) -> u64 {
        match self {
            Self::Exactly(number) => number,
            Self::Offset(offset) => base.saturating_add_signed(offset),
        }
    }
}

impl Whom {
    fn is_all(&self) -> bool {
        *self == Self::All
    }

    pub(super) fn among(&self, body: &Body, peer: Option<ReplicaId>) -> Vec<ReplicaId> {
        match self {
            Self::All => body.others().collect(),
            Self::Peer => peer.into_iter().collect(),
            Self::Replicas(replicas) => replicas.iter().copied().map(ReplicaId::new).collect(),
        }
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Exactly(number) => serializer.serialize_u64(*number),
            Self::Offset(offset) => serializer.collect_str(&format_args!("{offset:+}")),
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a number, as 7, or the difference to that of what set the reaction off, as \"+1\"")
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Number, E> {
        Ok(Number::Exactly(number))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Number, E> {
        let is_signed = text.starts_with(['+', '-']);
        let offset = text.parse().ok().filter(|_: &i64| is_signed);
        offset.map(Number::Offset).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }
}

impl JsonSchema for Number {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Number".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number, or its difference to that of what set the reaction off: 7, \"+1\", \"-1\".",
            "anyOf": [{ "type": "integer", "minimum": 0 }, { "type": "string", "pattern": "^[+-][0-9]+$" }],
        })
    }
}

impl Serialize for Whom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::Peer => serializer.serialize_str("peer"),
            Self::Replicas(replicas) => replicas.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Whom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WhomVisitor)
    }
}

struct WhomVisitor;

impl<'de> Visitor<'de> for WhomVisitor {
    type Value = Whom;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("\"all\", \"peer\", or a list of replicas, as [1, 2]")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Whom, E> {
        match text {
            "all" => Ok(Whom::All),
            "peer" => Ok(Whom::Peer),
            _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Whom, A::Error> {
        let mut replicas = Vec::new();
        while let Some(replica) = list.next_element()? {
            if replicas.len() >= ReplicaId::COUNT_MAX {
                return Err(A::Error::invalid_length(replicas.len(), &self));
            }
            replicas.push(replica);
        }
        Ok(Whom::Replicas(replicas))
    }
}

impl JsonSchema for Whom {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Whom".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "All others; who said what set the reaction off, or to whom that was going; or these.",
            "anyOf": [
                { "enum": ["all", "peer"] },
                { "type": "array", "items": { "type": "integer", "minimum": 0, "maximum": 255 } },
            ],
        })
    }
}
