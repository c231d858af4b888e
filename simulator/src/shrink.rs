//! Takes parts of a failing scenario away for as long as it still fails in the same way: what is left is what matters.
//!
//! Delta debugging (Zeller and Hildebrandt, TSE 2002) over the lists of a scenario, and then everything else set to its
//! quietest value, one thing at a time.

use core::ops::Range;

use crate::play::{Watch, play};
use crate::scenario::{Disk, Ending, Links, Machines, Scenario, Span};

/// What shrinking came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shrunk {
    /// The smallest scenario that was found.
    pub scenario: Scenario,
    /// How many scenarios were played on the way.
    pub plays: u32,
}

/// A scenario that fails, and how many more may be played to make it smaller.
struct Shrinker {
    /// How it fails: see [`crate::play::Complaint::name`].
    name: String,
    best: Scenario,
    plays: u32,
    plays_max: u32,
}

/// The smallest scenario found by playing at most `plays_max` that fails like `scenario`, which fails with `name`.
pub fn shrink(scenario: &Scenario, name: &str, plays_max: u32) -> Shrunk {
    let mut shrinker = Shrinker { name: name.to_owned(), best: scenario.clone(), plays: 0, plays_max };
    loop {
        let before = shrinker.best.clone();
        shrinker.shrink_lists();
        shrinker.quieten();
        if shrinker.best == before || shrinker.plays >= plays_max {
            break;
        }
    }
    Shrunk { scenario: shrinker.best, plays: shrinker.plays }
}

impl Shrinker {
    /// Keeps `candidate` if it fails as well.
    fn keep(&mut self, candidate: Scenario) -> bool {
        if candidate == self.best || self.plays >= self.plays_max {
            return false;
        }
        self.plays += 1;
        let outcome = play(&candidate, Watch::default());
        let fails = outcome.is_ok_and(|outcome| outcome.failure.is_some_and(|complaint| complaint.name() == self.name));
        if fails {
            self.best = candidate;
        }
        fails
    }

    fn shrink_lists(&mut self) {
        self.shrink_list(|scenario| scenario.attackers.len(), |scenario, range| drop(scenario.attackers.drain(range)));
        self.shrink_list(reactions, remove_reactions);
        self.shrink_list(|scenario| scenario.rules.len(), |scenario, range| drop(scenario.rules.drain(range)));
        self.shrink_list(|scenario| scenario.steps.len(), |scenario, range| drop(scenario.steps.drain(range)));
    }

    /// Removes runs of a list, the longest first: half of it, a quarter, and so on down to single elements.
    fn shrink_list(&mut self, length: impl Fn(&Scenario) -> usize, remove: impl Fn(&mut Scenario, Range<usize>)) {
        let mut size = length(&self.best).div_ceil(2);
        while size > 0 {
            let mut end = length(&self.best);
            while end > 0 {
                let start = end.saturating_sub(size);
                let mut candidate = self.best.clone();
                remove(&mut candidate, start..end);
                self.keep(candidate);
                end = start.min(length(&self.best));
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    }

    fn quieten(&mut self) {
        let changes: [fn(&mut Scenario); 13] = [
            |scenario| scenario.links = Links::default(),
            |scenario| scenario.links.loss_ppm = 0,
            |scenario| scenario.links.duplication_ppm = 0,
            |scenario| scenario.links.straggling_ppm = 0,
            |scenario| scenario.links.regions.clear(),
            |scenario| scenario.disk = Disk::default(),
            |scenario| scenario.machines = Machines::default(),
            |scenario| scenario.parameters.clear(),
            |scenario| scenario.ending.core.clear(),
            |scenario| scenario.ending.links = Links::default(),
            |scenario| scenario.ending.after = Span::default(),
            |scenario| scenario.ending.calls = 0,
            |scenario| scenario.ending = Ending { mend: false, ..scenario.ending.clone() },
        ];
        for change in changes {
            let mut candidate = self.best.clone();
            change(&mut candidate);
            self.keep(candidate);
        }
        for fewer in [4, 5, 6, 7] {
            if fewer < self.best.replicas {
                let mut candidate = self.best.clone();
                candidate.replicas = fewer;
                self.keep(candidate);
            }
        }
    }
}

/// Reactions of all scripts.
fn reactions(scenario: &Scenario) -> usize {
    scenario.attackers.iter().map(|attacker| attacker.script.0.len()).sum()
}

/// Removes reactions, counted over all scripts.
fn remove_reactions(scenario: &mut Scenario, range: Range<usize>) {
    let mut index = 0;
    for attacker in &mut scenario.attackers {
        attacker.script.0.retain(|_| {
            index += 1;
            !range.contains(&(index - 1))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Action, Expectation, Step, When};

    fn step(milliseconds: u64, action: Action) -> Step {
        Step { when: When::At(Span::milliseconds(milliseconds)), action }
    }

    #[test]
    fn what_does_not_matter_is_taken_away() {
        let noise = (0..20).map(|time| step(time, Action::Put(1, "noise".to_owned(), time.to_string())));
        let mut steps: Vec<Step> = noise.collect();
        steps.insert(7, step(6, Action::Put(0, "key".to_owned(), "wrong".to_owned())));
        let scenario = Scenario {
            links: Links { loss_ppm: 10_000, ..Links::default() },
            steps,
            expect: vec![Expectation::Value("key".to_owned(), "right".to_owned())],
            ..Scenario::default()
        };
        let Shrunk { scenario: small, .. } = shrink(&scenario, "Expectation", 500);
        assert!(small.steps.len() <= 1, "{:?}", small.steps);
        assert_eq!(small.links, Links::default());
        let failure = play(&small, Watch::default()).expect("a scenario").failure.expect("it still fails");
        assert_eq!(failure.name(), "Expectation");
    }
}
