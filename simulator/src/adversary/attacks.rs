//! Attacks by name: `equivocate`, `silent@from:5s`, `censor@view:3,flood@random:0.1`.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;
use std::sync::Arc;

use super::Strategy;
use super::account::Account;
use super::amnesia::Amnesia;
use super::another_cluster::AnotherCluster;
use super::bad_client_signature::BadClientSignature;
use super::body::Body;
use super::censor::Censor;
use super::conflicting_votes::ConflictingVotes;
use super::crash_loop::CrashLoop;
use super::double_vote::DoubleVote;
use super::early_view_change::EarlyViewChange;
use super::empty_batches::EmptyBatches;
use super::equivocate::Equivocate;
use super::flood::Flood;
use super::flood_views::FloodViews;
use super::forge_certificates::ForgeCertificates;
use super::forge_checkpoint::ForgeCheckpoint;
use super::fork::Fork;
use super::future::Future;
use super::hide_certificates::HideCertificates;
use super::hoard_state::HoardState;
use super::impersonate::Impersonate;
use super::jump_sequence::JumpSequence;
use super::jump_view::JumpView;
use super::late_slot::LateSlot;
use super::late_to_some::LateToSome;
use super::lie_in_transfer::LieInTransfer;
use super::lie_to_clients::LieToClients;
use super::mutate::Mutate;
use super::outdated::Outdated;
use super::pad_certificates::PadCertificates;
use super::relabel::Relabel;
use super::reorder::Reorder;
use super::replay::Replay;
use super::script::{Follower, Script};
use super::silent::Silent;
use super::slow::Slow;
use super::stale_certificates::StaleCertificates;
use super::twin::Twin;
use super::two_new_views::TwoNewViews;
use super::usurp::Usurp;
use super::withhold_body::WithholdBody;
use super::withhold_votes::WithholdVotes;
use super::wrong_new_view::WrongNewView;

/// An attack that can be named.
struct Known {
    name: &'static str,
    make: fn() -> Box<dyn Strategy>,
    /// Its file, whose head gives account of it.
    file: &'static str,
}

/// All attacks, in alphabetical order.
const KNOWN: &[Known] = &[
    Known { name: "amnesia", make: || Box::new(Amnesia::default()), file: include_str!("amnesia.rs") },
    Known {
        name: "another-cluster",
        make: || Box::new(AnotherCluster::default()),
        file: include_str!("another_cluster.rs"),
    },
    Known {
        name: "bad-client-signature",
        make: || Box::new(BadClientSignature),
        file: include_str!("bad_client_signature.rs"),
    },
    Known { name: "censor", make: || Box::new(Censor), file: include_str!("censor.rs") },
    Known {
        name: "conflicting-votes",
        make: || Box::new(ConflictingVotes),
        file: include_str!("conflicting_votes.rs"),
    },
    Known { name: "crash-loop", make: || Box::new(CrashLoop::default()), file: include_str!("crash_loop.rs") },
    Known { name: "double-vote", make: || Box::new(DoubleVote), file: include_str!("double_vote.rs") },
    Known {
        name: "early-view-change",
        make: || Box::new(EarlyViewChange::default()),
        file: include_str!("early_view_change.rs"),
    },
    Known { name: "empty-batches", make: || Box::new(EmptyBatches), file: include_str!("empty_batches.rs") },
    Known { name: "equivocate", make: || Box::new(Equivocate), file: include_str!("equivocate.rs") },
    Known { name: "flood", make: || Box::new(Flood::default()), file: include_str!("flood.rs") },
    Known { name: "flood-views", make: || Box::new(FloodViews::default()), file: include_str!("flood_views.rs") },
    Known {
        name: "forge-certificates",
        make: || Box::new(ForgeCertificates::default()),
        file: include_str!("forge_certificates.rs"),
    },
    Known {
        name: "forge-checkpoint",
        make: || Box::new(ForgeCheckpoint::default()),
        file: include_str!("forge_checkpoint.rs"),
    },
    Known { name: "fork", make: || Box::new(Fork), file: include_str!("fork.rs") },
    Known { name: "future", make: || Box::new(Future), file: include_str!("future.rs") },
    Known {
        name: "hide-certificates",
        make: || Box::new(HideCertificates::default()),
        file: include_str!("hide_certificates.rs"),
    },
    Known { name: "hoard-state", make: || Box::new(HoardState::default()), file: include_str!("hoard_state.rs") },
    Known { name: "impersonate", make: || Box::new(Impersonate), file: include_str!("impersonate.rs") },
    Known { name: "jump-sequence", make: || Box::new(JumpSequence), file: include_str!("jump_sequence.rs") },
    Known { name: "jump-view", make: || Box::new(JumpView::default()), file: include_str!("jump_view.rs") },
    Known { name: "late-slot", make: || Box::new(LateSlot), file: include_str!("late_slot.rs") },
    Known { name: "late-to-some", make: || Box::new(LateToSome), file: include_str!("late_to_some.rs") },
    Known {
        name: "lie-in-transfer",
        make: || Box::new(LieInTransfer::default()),
        file: include_str!("lie_in_transfer.rs"),
    },
    Known { name: "lie-to-clients", make: || Box::new(LieToClients), file: include_str!("lie_to_clients.rs") },
    Known { name: "mutate", make: || Box::new(Mutate), file: include_str!("mutate.rs") },
    Known { name: "outdated", make: || Box::new(Outdated), file: include_str!("outdated.rs") },
    Known {
        name: "pad-certificates",
        make: || Box::new(PadCertificates::default()),
        file: include_str!("pad_certificates.rs"),
    },
    Known { name: "relabel", make: || Box::new(Relabel), file: include_str!("relabel.rs") },
    Known { name: "reorder", make: || Box::new(Reorder), file: include_str!("reorder.rs") },
    Known { name: "replay", make: || Box::new(Replay::default()), file: include_str!("replay.rs") },
    Known { name: "silent", make: || Box::new(Silent), file: include_str!("silent.rs") },
    Known { name: "slow", make: || Box::new(Slow), file: include_str!("slow.rs") },
    Known {
        name: "stale-certificates",
        make: || Box::new(StaleCertificates::default()),
        file: include_str!("stale_certificates.rs"),
    },
    Known { name: "twin", make: || Box::new(Twin::default()), file: include_str!("twin.rs") },
    Known { name: "two-new-views", make: || Box::new(TwoNewViews::default()), file: include_str!("two_new_views.rs") },
    Known { name: "usurp", make: || Box::new(Usurp::default()), file: include_str!("usurp.rs") },
    Known { name: "withhold-body", make: || Box::new(WithholdBody), file: include_str!("withhold_body.rs") },
    Known { name: "withhold-votes", make: || Box::new(WithholdVotes), file: include_str!("withhold_votes.rs") },
    Known {
        name: "wrong-new-view",
        make: || Box::new(WrongNewView::default()),
        file: include_str!("wrong_new_view.rs"),
    },
];

/// The names of all attacks.
pub fn names() -> Vec<&'static str> {
    KNOWN.iter().map(|known| known.name).collect()
}

/// What all attacks do, what they break and what correct replicas do about it, in alphabetical order.
pub fn accounts() -> Vec<Account> {
    let account = |known: &Known| Account::read(known.name, known.file).expect("a test reads the heads of all files");
    KNOWN.iter().map(account).collect()
}

/// An attack, and when it is on.
#[derive(Clone)]
pub struct Attack {
    name: &'static str,
    make: Arc<dyn Fn() -> Box<dyn Strategy> + Send + Sync>,
    pub(super) moment: Moment,
}

/// Attacks that one replica plays together.
#[derive(Debug, Clone, Default)]
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
    /// These, and the others after them.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// These, and what a script says.
    #[must_use]
    pub fn with_script(mut self, script: Script) -> Self {
        let make = move || -> Box<dyn Strategy> { Box::new(Follower::new(&script)) };
        self.0.push(Attack { name: "script", make: Arc::new(make), moment: Moment::Always });
        self
    }

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
        let &Known { name, make, .. } = known.ok_or_else(|| UnknownAttack::Name(name.to_owned()))?;
        Ok(Self { name, make: Arc::new(make), moment })
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
