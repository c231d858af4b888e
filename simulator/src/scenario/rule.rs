//! What becomes of single messages: rules by kind, sender, receiver, view, slot and time.

use core::time::Duration;

use quorate_protocol::time::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::network::{Filter, Passage, Verdict};
use crate::pattern::Pattern;
use crate::random::{Chance, Random, Stream};
use crate::span::Span;

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
