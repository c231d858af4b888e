//! A campaign: scenarios drawn from seeds, each by its seed alone, played one after the other. (PROTOCOL §2)
//!
//! Every scenario has a phase in which anything goes wrong, and then one in which a core of q correct replicas is mended
//! and every call of a correct client must be answered within a bound.

mod draw;
mod schedule;

use core::ops::Range;
use std::collections::BTreeMap;

use crate::marks::Marks;
use crate::play::{Complaint, Outcome, Watch, play};
use crate::scenario::{Scenario, ScenarioError, Span};
use crate::signature::Scheme;

pub use draw::draw;
pub use schedule::{Schedule, UnknownSchedule};

/// What a campaign is to try. What is absent is drawn anew for each seed.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// How many replicas.
    pub replicas: Option<u8>,
    /// What the adversary does; `none` for no adversary.
    pub attack: Option<String>,
    /// What goes wrong around it.
    pub faults: Option<Schedule>,
    /// How long things go wrong.
    pub duration: Option<Span>,
    /// Which signatures are made.
    pub signatures: Option<Scheme>,
    /// Whether every cluster is one of stores that answer reads without ordering them; else some are.
    pub fast_reads: bool,
}

/// What a campaign came to.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Seeds that were played.
    pub seeds: u64,
    /// Steps of all worlds.
    pub steps: u64,
    /// Messages that were delivered and handled.
    pub delivered: u64,
    /// Slots executed, over all correct replicas.
    pub executed: u64,
    /// Time that passed in the worlds.
    pub simulated: core::time::Duration,
    /// The situations that correct replicas came into.
    pub marks: Marks,
    /// How often each kind of fault was injected.
    pub faults: BTreeMap<String, u64>,
    /// Seeds that failed, and how.
    pub failures: Vec<(u64, Complaint)>,
}

/// Plays the scenarios of `seeds`, and tells `watch` of each.
///
/// # Errors
/// [`ScenarioError`], if `choice` names what there is not.
pub fn run(
    seeds: Range<u64>,
    choice: &Choice,
    mut watch: impl FnMut(u64, &Scenario, &Outcome),
) -> Result<Summary, ScenarioError> {
    let mut summary = Summary::default();
    for seed in seeds {
        let scenario = draw(seed, choice);
        let outcome = play(&scenario, Watch::default())?;
        watch(seed, &scenario, &outcome);
        summary.add(seed, &scenario, outcome);
    }
    Ok(summary)
}

impl Summary {
    /// Adds what one seed came to.
    pub fn add(&mut self, seed: u64, scenario: &Scenario, outcome: Outcome) {
        self.seeds += 1;
        self.steps += outcome.counts.steps;
        self.delivered += outcome.counts.delivered;
        self.executed += outcome.counts.executed;
        self.simulated += outcome.simulated;
        let mut count = |name: &str, number: u64| {
            if number > 0 {
                *self.faults.entry(name.to_owned()).or_default() += number;
            }
        };
        self.marks.merge(&outcome.marks);
        outcome.faults.iter().for_each(|(name, number)| count(name, *number));
        count("message-lost", outcome.network.lost);
        count("message-duplicated", outcome.network.duplicated);
        count("message-stopped", outcome.network.stopped);
        scenario.attackers.iter().for_each(|attacker| count(&format!("attack-{}", attacker.title()), 1));
        if let Some(complaint) = outcome.failure {
            self.failures.push((seed, complaint));
        }
    }

    /// Adds what another campaign came to.
    pub fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.delivered += other.delivered;
        self.executed += other.executed;
        self.simulated += other.simulated;
        for (name, number) in other.faults {
            *self.faults.entry(name).or_default() += number;
        }
        self.marks.merge(&other.marks);
        self.failures.extend(other.failures);
    }
}
