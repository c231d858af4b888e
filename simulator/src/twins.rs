//! Twins: two copies of one replica under one key, parted from each other and from others in every way, round by round.
//! (Bano et al., Twins: BFT Systems Made Robust, OPODIS 2021; PROTOCOL §2)
//!
//! Four replicas, of which one is two. In each of three rounds the five fall into two parts, in one of sixteen ways, and
//! one of four primaries begins a view: 262,144 scenarios, each named by its number, and none of chance. After the last
//! round the network is whole, and every call must be answered and everyone come to the same end.
//!
//! No replica knows a table of primaries: a round takes place in the first view whose number gives the primary that is
//! wanted, and on the way there no view begins, since new views are lost.

mod pair;

use core::cell::Cell;
use core::fmt;
use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use quorate_protocol::message::Message;
use quorate_protocol::number::{ReplicaId, View};
use quorate_protocol::replica::Start;

use crate::adversary::start_voting;
use crate::cluster::Cluster;
use crate::host::{Boot, Builder};
use crate::ledger::Ledger;
use crate::network::{Passage, Verdict};
use crate::play::{Complaint, reason};
use crate::random::Delay;
use crate::statement::new_view;
use crate::world::WorldCounts;
use pair::Pair;

/// Replicas, the twins being one.
const MEMBERS: usize = 4;

/// Which of them is two.
const TWINS: u8 = 3;

/// Ways in which five fall into two parts.
const SPLITS: u64 = 16;

/// Rounds of a scenario.
const ROUNDS: usize = 3;

/// How many scenarios there are.
pub const SCENARIOS: u64 = (SPLITS * MEMBERS as u64).pow(3);

const _: () = assert!(ROUNDS == 3, "the exponent above");

/// How long a view of a round lasts once it has begun: all that can be ordered is.
const ROUND: Duration = Duration::from_millis(12);

/// How long a round waits for its view, if its primary can begin one, for each view on the way; and if it can't.
const WAIT: Duration = Duration::from_millis(450);
const WAIT_IN_VAIN: Duration = Duration::from_millis(130);

/// How long calls may take once the network is whole.
const ANSWER_BOUND: Duration = Duration::from_secs(20);

/// Who is on which side: one bit for each of replicas 0 to 2, then the twins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Split(u8);

/// One view under one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Round {
    split: Split,
    primary: u64,
}

/// Three rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan([Round; ROUNDS]);

/// What came of a scenario.
#[derive(Debug)]
pub struct Outcome {
    /// What happened, counted.
    pub counts: WorldCounts,
    /// How many of the rounds that can begin saw a correct replica in their view.
    pub rounds_begun: u32,
    /// What went wrong, if anything did.
    pub complaint: Option<Complaint>,
}

impl Split {
    const FIRST_TWIN: usize = TWINS as usize;
    const SECOND_TWIN: usize = Self::FIRST_TWIN + 1;

    /// Whether two of the five hear each other.
    const fn joins(self, one: usize, other: usize) -> bool {
        (self.0 >> one ^ self.0 >> other) & 1 == 0
    }

    /// Whether a quorum stands together with (a copy of) `primary`.
    fn lets_begin(self, primary: u64) -> bool {
        (0..=Self::SECOND_TWIN).any(|place| {
            let is_primary = place.min(Self::FIRST_TWIN) as u64 == primary;
            let correct = (0..Self::FIRST_TWIN).filter(|other| self.joins(place, *other)).count();
            let has_twin = [Self::FIRST_TWIN, Self::SECOND_TWIN].iter().any(|twin| self.joins(place, *twin));
            is_primary && correct + usize::from(has_twin) >= 3
        })
    }
}

impl Plan {
    /// The scenario with this number, below [`SCENARIOS`].
    pub fn new(mut number: u64) -> Self {
        let mut digit = |base: u64| {
            let digit = number % base;
            number /= base;
            digit
        };
        Self([(); ROUNDS].map(|()| {
            // The first of the five is always on the same side: sides have no names.
            let split = Split(u8::try_from(digit(SPLITS)).unwrap_or(0) << 1);
            Round { split, primary: digit(MEMBERS as u64) }
        }))
    }

    /// How many rounds leave a quorum together with its primary.
    pub fn rounds_that_can_begin(&self) -> u64 {
        self.0.iter().map(|round| u64::from(round.split.lets_begin(round.primary))).sum()
    }

    /// Plays the scenario.
    pub fn play(&self) -> Outcome {
        let mut play = Play::new();
        let ended = catch_unwind(AssertUnwindSafe(|| play.run(self)));
        let complaint = match ended {
            Ok(result) => result.err(),
            Err(panic) => Some(Complaint::Panicked(reason(&*panic))),
        };
        Outcome { counts: play.cluster.counts(), rounds_begun: play.rounds_begun, complaint }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["0", "1", "2", "3a", "3b"];
        for (index, Round { split, primary }) in self.0.iter().enumerate() {
            let side = |is_first: bool| {
                let members = (0..names.len()).filter(|member| split.joins(0, *member) == is_first);
                members.map(|member| names[member]).collect::<Vec<_>>().join(" ")
            };
            let rest = if index == 0 { "" } else { "; " };
            write!(formatter, "{rest}primary {primary}, {} | {}", side(true), side(false))?;
        }
        Ok(())
    }
}

/// A scenario being played.
struct Play {
    cluster: Cluster,
    split: Rc<Cell<Split>>,
    /// The view of the round.
    view: Rc<Cell<u64>>,
    rounds_begun: u32,
}

impl Play {
    fn new() -> Self {
        let split = Rc::new(Cell::new(Split::default()));
        let mut cluster = Cluster::builder(MEMBERS, 0)
            .parameters(|all| {
                (all.checkpoint_interval, all.window) = (4, 16);
                (all.heartbeat_ms, all.crash_suspicion_ms) = (100, 200);
                (all.ordering_deadline_ms, all.deadline_cap_ms) = (50, 200);
                all.client_timeout_ms = 10;
                // Each view may be the next one.
                all.passed_over_ms = 0;
            })
            .options(|options| {
                options.clients = 2;
                options.drops_unwanted = true;
                options.disk.sync = Delay::microseconds(50, 100);
                options.answer_bound = ANSWER_BOUND;
            })
            .application(Ledger::replicated)
            .subjects(subjects(Rc::clone(&split)))
            .build();
        cluster.world_mut().exempt(ReplicaId::new(TWINS));
        Self { cluster, split, view: Rc::new(Cell::new(0)), rounds_begun: 0 }
    }

    fn run(&mut self, plan: &Plan) -> Result<(), Complaint> {
        let view = Rc::clone(&self.view);
        self.cluster.world_mut().network.add_filter(Box::new(move |passage| on_the_way(passage, view.get())));
        for (index, round) in plan.0.iter().enumerate() {
            self.play_round(index, *round)?;
        }
        self.end()
    }

    fn play_round(&mut self, index: usize, round: Round) -> Result<(), Complaint> {
        self.part(round.split);
        let before = if index == 0 { 0 } else { self.view.get() + 1 };
        let view =
            (before..before + MEMBERS as u64).find(|view| view % MEMBERS as u64 == round.primary).unwrap_or(before);
        self.view.set(view);
        for client in 0..2 {
            self.cluster.client(client).submit(format!("round {index}"));
        }
        let begins = round.split.lets_begin(round.primary);
        let wait = if begins { WAIT * u32::try_from(view - before + 1).unwrap_or(1) } else { WAIT_IN_VAIN };
        let end = self.cluster.time().after(wait);
        let has_begun = self.cluster.run_to(end, |cluster| is_in(cluster, view))?;
        self.rounds_begun += u32::from(begins && has_begun);
        Ok(self.cluster.run_for(ROUND)?)
    }

    fn part(&mut self, split: Split) {
        self.split.set(split);
        self.cluster.join();
        let pairs = (0..Split::FIRST_TWIN).flat_map(|from| (0..Split::FIRST_TWIN).map(move |to| (from, to)));
        for (from, to) in pairs.filter(|(from, to)| !split.joins(*from, *to)) {
            self.cluster.cut_link(from, to);
        }
    }

    /// Makes the network whole, and demands that everything comes to its end.
    fn end(&mut self) -> Result<(), Complaint> {
        self.part(Split::default());
        self.cluster.heal();
        self.cluster.declare_healed();
        self.cluster.client(0).submit("the end");
        self.cluster.run_until_answered(ANSWER_BOUND)?;
        self.cluster.run_until_converged(ANSWER_BOUND)?;
        Ok(self.cluster.assert_same_states()?)
    }
}

/// Whether a correct replica is in `view`.
fn is_in(cluster: &Cluster, view: u64) -> bool {
    cluster.correct_standings().any(|(_, standing)| standing.view == View::new(view) && standing.is_in_view)
}

/// Before the view of the round nothing is proposed, and no other view begins.
fn on_the_way(passage: &Passage<'_>, view: u64) -> Verdict {
    let is_lost = match passage.message {
        Message::PrePrepare(proposal) => proposal.vote.statement.view.value() < view,
        Message::NewView(signed) => new_view(signed).is_some_and(|content| content.view.value() != view),
        _ => false,
    };
    if is_lost { Verdict::Drop } else { Verdict::Pass }
}

/// Correct replicas, none of which ever starts again, and the twins in the place of one.
fn subjects(split: Rc<Cell<Split>>) -> Builder {
    Box::new(move |boot, now| {
        if boot.id.value() == TWINS {
            return Ok(Box::new(Pair::start(&boot, now, &split, Ledger::replicated)?));
        }
        let Boot { id, configuration, signer, records, next_record, token, .. } = boot;
        let (checkpoint, first_record, is_damaged) = (None, next_record, false);
        let start = Start { id, configuration, signer, checkpoint, records, first_record, is_damaged, token };
        Ok(Box::new(start_voting(start, now).map_err(|error| error.to_string())?))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_sixteen_splits_are_those_of_five_into_two_parts() {
        let splits: BTreeSet<Vec<bool>> = (0..SPLITS)
            .map(|number| (0..=Split::SECOND_TWIN).map(|place| Plan::new(number).0[0].split.joins(0, place)).collect())
            .collect();
        assert_eq!(splits.len() as u64, SPLITS);
        assert!(splits.iter().all(|sides| sides[0]), "a side has no name: the first of the five is on it");
    }

    #[test]
    fn a_view_begins_where_three_of_the_four_stand_with_its_primary() {
        let split = |second: &[usize]| Split(second.iter().map(|place| 1 << place).sum());
        assert!(split(&[]).lets_begin(0));
        assert!(!split(&[1, 2]).lets_begin(0), "the twins are one member");
        assert!(!split(&[1, 2]).lets_begin(3));
        assert!(split(&[1, 4]).lets_begin(3));
        assert!(!split(&[1, 4]).lets_begin(1));
        assert!(split(&[3, 4]).lets_begin(2));
        assert!(!split(&[3, 4]).lets_begin(3));
    }

    #[test]
    fn whatever_twins_do_nobody_is_misled_and_everyone_is_answered() {
        for number in (0..SCENARIOS).step_by(8_191) {
            let outcome = Plan::new(number).play();
            assert_eq!(
                outcome.complaint.map(|complaint| complaint.to_string()),
                None,
                "{number}: {}",
                Plan::new(number)
            );
        }
    }
}
