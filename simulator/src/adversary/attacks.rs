//! Attacks by name: `equivocate`, `silent@from:5s`, `censor@view:3,flood@random:0.1`.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use super::Strategy;
use super::body::Body;
use super::equivocate::Equivocate;
use super::silent::Silent;

/// An attack that can be named.
struct Known {
    name: &'static str,
    make: fn() -> Box<dyn Strategy>,
}

/// All attacks, in alphabetical order.
const KNOWN: &[Known] =
    &[Known { name: "equivocate", make: || Box::new(Equivocate) }, Known { name: "silent", make: || Box::new(Silent) }];

/// The names of all attacks.
pub fn names() -> Vec<&'static str> {
    KNOWN.iter().map(|known| known.name).collect()
}

/// An attack, and when it is on.
#[derive(Clone)]
pub struct Attack {
    name: &'static str,
    make: fn() -> Box<dyn Strategy>,
    pub(super) moment: Moment,
}

/// Attacks that one replica plays together.
#[derive(Debug, Clone)]
pub struct Attacks(Vec<Attack>);

/// When an attack is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// Always.
    Always,
    /// From so long after the start on.
    From(Duration),
    /// In this view.
    View(u64),
    /// Once this slot was executed.
    Slot(u64),
    /// So many times in a million, each time anew.
    Random(u32),
}

/// A name that is none of an attack, or a moment that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownAttack {
    /// There is no such attack.
    #[error("there is no attack `{0}`; there are: {known}", known = names().join(", "))]
    Name(String),
    /// There is no such moment.
    #[error("`{0}` is no moment: write from:5s, view:3, slot:100 or random:0.1")]
    Moment(String),
}

impl Moment {
    pub(super) fn is_now(self, body: &mut Body) -> bool {
        match self {
            Self::Always => true,
            Self::From(after) => body.elapsed() >= after,
            Self::View(view) => body.view().value() == view,
            Self::Slot(slot) => body.executed().value() >= slot,
            Self::Random(parts_per_million) => body.dice.happens(parts_per_million),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (kind, value) = text.split_once(':')?;
        match kind {
            "from" => value.parse::<crate::span::Span>().ok().map(|span| Self::From(span.0)),
            "view" => value.parse().ok().map(Self::View),
            "slot" => value.parse().ok().map(Self::Slot),
            "random" => parts_per_million(value).map(Self::Random),
            _ => None,
        }
    }
}

/// A share from 0 to 1, written as a decimal fraction of up to six digits.
fn parts_per_million(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 6 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction: u32 = format!("{fraction:0<6}").parse().ok()?;
    let parts = whole.parse::<u32>().ok()?.checked_mul(1_000_000)?.checked_add(fraction)?;
    (parts <= 1_000_000).then_some(parts)
}

impl Attack {
    pub(super) fn strategy(&self) -> Box<dyn Strategy> {
        (self.make)()
    }
}

impl fmt::Debug for Attack {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {:?}", self.name, self.moment)
    }
}

impl Attacks {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Attack> {
        self.0.iter()
    }
}

impl FromStr for Attack {
    type Err = UnknownAttack;

    fn from_str(text: &str) -> Result<Self, UnknownAttack> {
        let (name, moment) = match text.split_once('@') {
            None => (text, Moment::Always),
            Some((name, moment)) => {
                (name, Moment::parse(moment).ok_or_else(|| UnknownAttack::Moment(moment.to_owned()))?)
            }
        };
        let known = KNOWN.iter().find(|known| known.name == name);
        let &Known { name, make } = known.ok_or_else(|| UnknownAttack::Name(name.to_owned()))?;
        Ok(Self { name, make, moment })
    }
}

impl FromStr for Attacks {
    type Err = UnknownAttack;

    fn from_str(text: &str) -> Result<Self, UnknownAttack> {
        text.split(',').map(str::trim).map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_in_order() {
        assert!(names().is_sorted_by(|left, right| left < right));
    }

    #[test]
    fn attacks_are_read_with_their_moments() {
        let attacks: Attacks =
            "silent@from:5s, equivocate@random:0.25,silent@view:3,silent@slot:100".parse().expect("known");
        let moments: Vec<Moment> = attacks.iter().map(|attack| attack.moment).collect();
        let expected =
            [Moment::From(Duration::from_secs(5)), Moment::Random(250_000), Moment::View(3), Moment::Slot(100)];
        assert_eq!(moments, expected);
    }

    #[test]
    fn what_is_no_attack_is_refused() {
        for text in ["", "nonsense", "silent@", "silent@from", "silent@from:5", "silent@view:x", "silent@random:1.5"] {
            assert!(text.parse::<Attacks>().is_err(), "{text}");
        }
    }
}
