//! A replica in the adversary's hands, written down: when it sees or says what, it lets it pass, drops or delays it, and
//! signs and says whatever its script says. (The attackers of scenario files)
//!
//! | file | holds |
//! | --- | --- |
//! | `script/speech.rs` | what can be said, to whom, in the words of a file |
//! | `script/known.rs` | what the attacker knows: batches, certificates, view changes |
//! | `script/voice.rs` | from the words to signed messages |
//!
//! Nothing is drawn by chance: the same inputs bring about the same outputs.

mod known;
mod speech;
mod voice;

use core::time::Duration;

use quorate_crypto::Digest;
use quorate_protocol::batch::Batch;
use quorate_protocol::input::Input;
use quorate_protocol::message::{Fetch, Message, Want};
use quorate_protocol::number::{ReplicaId, Sequence};
use quorate_protocol::time::Time;
use quorate_protocol::verify::Payload;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Body, Strategy};
use crate::pattern::{Kind, Matter, Pattern};
use crate::span::Span;
use known::Known;

pub use speech::{
    Ballot, BatchName, Beginning, Boast, Leaving, Lie, Number, Prepared, Proposals, Root, Saying, Speech, State, Told,
    Wanted, Whom,
};

/// Reactions of a script.
const REACTIONS_MAX: usize = 64;

/// Things that one reaction says.
const SPEECHES_MAX: usize = 16;

/// Messages that a script says in all, each copy counted: two scripts may set each other off.
const SAID_MAX: u32 = 4_096;

/// What an attacker does of its own accord. Of all reactions to something the first that applies decides; whatever sets off
/// none passes as with a correct replica.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Script(pub Vec<Reaction>);

/// What sets something off, and what that is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reaction {
    /// What sets it off.
    pub when: Occasion,
    /// Since when, counted from the attacker's start; from the start, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Span>,
    /// Until when; for ever, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Span>,
    /// How many of the first are spared.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub spare: u32,
    /// How often it is set off at most; always, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<u32>,
    /// What becomes of the message that set it off.
    #[serde(default, skip_serializing_if = "Passing::is_pass")]
    pub then: Passing,
    /// What is said besides, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub say: Vec<Speech>,
}

/// What sets off a reaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Occasion {
    /// A valid message reaches the attacker. `to` of the pattern does not count; a client's request has no sender.
    Hears(Pattern),
    /// The correct replica behind the attacker would say something, to each peer in turn. `from` does not count.
    Says(Pattern),
    /// A moment, counted from the attacker's start.
    At(Span),
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Passing {
    /// It goes its way.
    #[default]
    Pass,
    /// It was never said, or never heard.
    Drop,
    /// It is said so much later. What is heard cannot be delayed.
    Delay(Span),
}

/// What is wrong with a script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScriptError {
    /// It has more reactions than one may have.
    #[error("{0} reactions, of at most {REACTIONS_MAX}")]
    Reactions(usize),
    /// A reaction says more than one may.
    #[error("reaction {0} says {1} things, of at most {SPEECHES_MAX}")]
    Speeches(usize, usize),
    /// A reaction names a replica that there is not.
    #[error("reaction {0} names replica {1}")]
    Replica(usize, u8),
    /// A reaction delays what cannot be delayed.
    #[error("reaction {0} delays what it hears: only what it `says` can be delayed")]
    Passing(usize),
    /// A reaction to a moment has what only those to messages have.
    #[error("reaction {0} is to a moment: it has no `since`, `until`, `spare`, `most` or `then`")]
    Moment(usize),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Passing {
    fn is_pass(&self) -> bool {
        *self == Self::Pass
    }
}

impl Script {
    /// Whether nothing is in it.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an attacker among so many replicas can follow it.
    ///
    /// # Errors
    /// [`ScriptError`] says which reaction is wrong, counted from 0.
    pub fn check(&self, replicas: u8) -> Result<(), ScriptError> {
        if self.0.len() > REACTIONS_MAX {
            return Err(ScriptError::Reactions(self.0.len()));
        }
        self.0.iter().enumerate().try_for_each(|(index, reaction)| reaction.check(index, replicas))
    }
}

impl Reaction {
    fn check(&self, index: usize, replicas: u8) -> Result<(), ScriptError> {
        if self.say.len() > SPEECHES_MAX {
            return Err(ScriptError::Speeches(index, self.say.len()));
        }
        let named = self.pattern().map_or(&[][..], |pattern| &pattern.from).iter();
        let named = named.chain(self.pattern().map_or(&[][..], |pattern| &pattern.to));
        let spoken_to = self.say.iter().flat_map(Speech::names);
        if let Some(replica) = named.chain(spoken_to).find(|replica| **replica >= replicas) {
            return Err(ScriptError::Replica(index, *replica));
        }
        let is_plain = self.since.is_none() && self.until.is_none() && self.spare == 0 && self.most.is_none();
        match (&self.when, self.then) {
            (Occasion::At(_), then) if !is_plain || then != Passing::Pass => Err(ScriptError::Moment(index)),
            (Occasion::Hears(_), Passing::Delay(_)) => Err(ScriptError::Passing(index)),
            _ => Ok(()),
        }
    }

    const fn pattern(&self) -> Option<&Pattern> {
        match &self.when {
            Occasion::Hears(pattern) | Occasion::Says(pattern) => Some(pattern),
            Occasion::At(_) => None,
        }
    }
}

/// What set a reaction off: what its words refer to.
#[derive(Debug, Clone, Default)]
struct Cue {
    view: Option<u64>,
    slot: Option<u64>,
    /// Who said it, or to whom it was going.
    peer: Option<ReplicaId>,
    /// What it proposes or votes for.
    digest: Option<Digest>,
    batch: Option<Batch>,
    root: Option<Digest>,
    /// The part of a state that it asks for.
    part: Option<(Sequence, Want)>,
}

/// A reaction, and how often it was set off.
#[derive(Debug)]
struct Ready {
    reaction: Reaction,
    seen: u32,
    met: u32,
}

/// Follows a script.
#[derive(Debug)]
pub(super) struct Follower {
    reactions: Vec<Ready>,
    known: Known,
    said: u32,
}

impl Follower {
    pub(super) fn new(script: &Script) -> Self {
        let reactions = script.0.iter().map(|reaction| Ready { reaction: reaction.clone(), seen: 0, met: 0 });
        Self { reactions: reactions.collect(), known: Known::default(), said: 0 }
    }

    /// The first reaction that `is_meant` applies to reacts: what becomes of what set it off.
    fn react(&mut self, body: &mut Body, cue: &Cue, is_meant: impl Fn(&Occasion) -> bool) -> Passing {
        let elapsed = body.elapsed();
        let first = self.reactions.iter_mut().position(|ready| ready.takes(elapsed, &is_meant));
        first.map_or(Passing::Pass, |index| self.perform(body, cue, index))
    }

    fn perform(&mut self, body: &mut Body, cue: &Cue, index: usize) -> Passing {
        let reaction = self.reactions[index].reaction.clone();
        body.reactions += 1;
        for speech in &reaction.say {
            self.say(body, cue, speech);
        }
        reaction.then
    }

    fn say(&mut self, body: &mut Body, cue: &Cue, speech: &Speech) {
        let Some(message) = voice::message(body, &self.known, cue, &speech.message) else { return };
        self.known.note_own(body, &message);
        for to in speech.to.among(body, cue.peer) {
            if self.said >= SAID_MAX {
                return;
            }
            self.said += 1;
            body.send_later(speech.after.0, to, message.clone());
        }
    }
}

impl Ready {
    /// Whether it is set off.
    fn takes(&mut self, elapsed: Duration, is_meant: impl Fn(&Occasion) -> bool) -> bool {
        let reaction = &self.reaction;
        let is_in_time = reaction.since.is_none_or(|since| elapsed >= since.0)
            && reaction.until.is_none_or(|until| elapsed < until.0);
        if !is_in_time || !is_meant(&reaction.when) {
            return false;
        }
        self.seen = self.seen.saturating_add(1);
        let is_over = reaction.most.is_some_and(|most| self.met >= most);
        if self.seen <= reaction.spare || is_over {
            return false;
        }
        self.met = self.met.saturating_add(1);
        true
    }

    /// The moment that sets it off, if it is one that has yet to come.
    fn due(&self) -> Option<Span> {
        match self.reaction.when {
            Occasion::At(at) if self.met == 0 => Some(at),
            _ => None,
        }
    }
}

impl Cue {
    fn new(peer: ReplicaId, matter: &impl Matter) -> Self {
        let (view, slot) = matter.place();
        Self { view, slot, peer: Some(peer), ..Self::default() }
    }

    fn of_heard(from: ReplicaId, payload: &Payload) -> Self {
        let cue = Self::new(from, payload);
        match payload {
            Payload::PrePrepare(vote, batch) => {
                Self { digest: Some(vote.statement.digest), batch: Some(batch.clone()), ..cue }
            }
            Payload::Prepare(vote) => Self { digest: Some(vote.statement.digest), ..cue },
            Payload::Commit(vote) => Self { digest: Some(vote.statement.digest), ..cue },
            Payload::Checkpoint(vote) => Self { root: Some(vote.statement.root), ..cue },
            Payload::Fetch(Fetch::Part { sequence, want }) => Self { part: Some((*sequence, want.clone())), ..cue },
            _ => cue,
        }
    }

    fn of_own(body: &Body, to: ReplicaId, message: &Message) -> Self {
        let cue = Self::new(to, message);
        match message {
            Message::PrePrepare(proposal) => {
                Self { digest: Some(proposal.vote.statement.digest), batch: body.batch_of(proposal), ..cue }
            }
            Message::Prepare(vote) => Self { digest: Some(vote.statement.digest), ..cue },
            Message::Commit(vote) => Self { digest: Some(vote.statement.digest), ..cue },
            Message::Checkpoint(vote) => Self { root: Some(vote.statement.root), ..cue },
            _ => cue,
        }
    }
}

impl Strategy for Follower {
    fn incoming(&mut self, body: &mut Body, input: Input) -> Option<Input> {
        let passing = match &input {
            Input::Message { from, message } => {
                let payload: &Payload = message;
                self.known.note_heard(payload);
                let (from, cue) = (*from, Cue::of_heard(*from, payload));
                let own = body.id();
                let is_meant =
                    |when: &Occasion| matches!(when, Occasion::Hears(pattern) if pattern.matches(from, own, payload));
                self.react(body, &cue, is_meant)
            }
            Input::Request(_) | Input::Copy(_) => {
                let is_meant = |when: &Occasion| {
                    let Occasion::Hears(Pattern { kinds, from, view, slots, .. }) = when else { return false };
                    let is_any = from.is_empty() && view.is_none() && slots.is_none();
                    is_any && (kinds.is_empty() || kinds.contains(&Kind::Request))
                };
                self.react(body, &Cue::default(), is_meant)
            }
            _ => Passing::Pass,
        };
        (passing == Passing::Pass).then_some(input)
    }

    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        self.known.note_own(body, &message);
        let own = body.id();
        let cue = Cue::of_own(body, to, &message);
        let is_meant = |when: &Occasion| matches!(when, Occasion::Says(pattern) if pattern.matches(own, to, &message));
        match self.react(body, &cue, is_meant) {
            Passing::Pass => Some(message),
            Passing::Drop => None,
            Passing::Delay(span) => {
                body.send_later(span.0, to, message);
                None
            }
        }
    }

    fn act(&mut self, body: &mut Body) {
        let elapsed = body.elapsed();
        for index in 0..self.reactions.len() {
            if self.reactions[index].due().is_some_and(|due| due.0 <= elapsed) {
                self.reactions[index].met = 1;
                self.perform(body, &Cue::default(), index);
            }
        }
    }

    fn deadline(&self, body: &Body) -> Option<Time> {
        self.reactions.iter().filter_map(Ready::due).min().map(|due| body.started().after(due.0))
    }
}
