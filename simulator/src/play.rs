//! Plays a scenario: builds the cluster that it describes, does what it says, and judges what came of it.

mod build;
mod calls;
mod judge;

use core::fmt;
use core::time::Duration;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use quorate_protocol::number::{ReplicaId, Sequence};

use crate::cluster::{Cluster, Failure, Trouble};
use crate::history::Call;
use crate::host::Standing;
use crate::marks::Marks;
use crate::network::NetworkCounts;
use crate::scenario::rule::{filter, moment};
use crate::scenario::{Action, Attacker, Expectation, Scenario, ScenarioError, When};
use crate::world::WorldCounts;

use calls::Made;

/// Replicas have so many times as long to catch up as clients wait for an answer: nobody waits for them, and a state that comes
/// in many parts over links of half a second takes some minutes.
const CATCH_UP_FACTOR: u32 = 4;

/// The attack that leaves a client out.
const CENSOR: &str = "censor";

pub use build::known_attacks;

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What happened, counted.
    pub counts: WorldCounts,
    /// What the network did.
    pub network: NetworkCounts,
    /// The situations that correct replicas came into.
    pub marks: Marks,
    /// How often each kind of thing was done to the cluster.
    pub faults: BTreeMap<&'static str, u64>,
    /// How much time passed in the simulation.
    pub simulated: Duration,
    /// Stands for the whole run: equal for equal runs.
    pub fingerprint: u64,
    /// The run in space and time, if it was watched that closely.
    pub page: Option<String>,
    /// What clients called for and found, if the run was recorded.
    pub calls: Vec<Call>,
    /// What went wrong, if anything did.
    pub failure: Option<Complaint>,
}

/// What went wrong in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Complaint {
    /// The cluster did something that it must not, or did not do what it must.
    Failed(Box<Failure>),
    /// An expectation of the scenario was not met.
    Unmet(Expectation, String),
    /// A replica lost an invariant of its own, and stopped.
    Panicked(String),
    /// What all logs hold convicts a replica that is correct. (PROTOCOL §15)
    Accused(String),
}

/// A scenario being played.
struct Play<'a> {
    scenario: &'a Scenario,
    cluster: Cluster,
    faults: BTreeMap<&'static str, u64>,
    /// Calls made, if they are recorded.
    calls: Option<Vec<Made>>,
}

/// How closely a run is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watch {
    /// How many of the latest happenings the account of a failure lists.
    pub history: usize,
    /// Whether a page is drawn.
    pub is_traced: bool,
    /// Whether calls and answers are recorded.
    pub is_recorded: bool,
}

/// Plays `scenario`.
///
/// # Errors
/// [`ScenarioError`], if it cannot be played at all.
pub fn play(scenario: &Scenario, watch: Watch) -> Result<Outcome, ScenarioError> {
    let cluster = build::cluster(scenario, watch)?;
    let mut play = Play { scenario, cluster, faults: BTreeMap::new(), calls: watch.is_recorded.then(Vec::new) };
    let ended = catch_unwind(AssertUnwindSafe(|| play.run()));
    let failure = match ended {
        Ok(Ok(())) => None,
        Ok(Err(complaint)) => Some(complaint),
        Err(panic) => Some(Complaint::Panicked(reason(&*panic))),
    };
    let failure = judge::excuse(&scenario.expect, failure).or_else(|| accused(scenario, &mut play.cluster));
    let world = play.cluster.world();
    let account = failure.as_ref().map(ToString::to_string);
    let line = account.as_deref().and_then(|account| account.lines().next());
    Ok(Outcome {
        counts: world.counts(),
        marks: world.marks(),
        network: world.network.counts(),
        simulated: Duration::from_nanos(world.time().nanoseconds()),
        fingerprint: world.fingerprint(),
        page: world.trace().map(|trace| trace.page(scenario, world.time(), line)),
        calls: play.calls.iter().flatten().filter_map(|made| made.call(&play.cluster)).collect(),
        faults: play.faults,
        failure,
    })
}

/// Whether the logs of all, attackers among them, put the blame on a correct replica. One whose disk lies is none: it may
/// have forgotten what it said. (PROTOCOL §9)
fn accused(scenario: &Scenario, cluster: &mut Cluster) -> Option<Complaint> {
    let has_lying_disk = |replica: ReplicaId| {
        let lie = Action::LieAboutSyncs(replica.value());
        scenario.steps.iter().any(|step| step.action == lie)
    };
    let all: Vec<usize> = (0..cluster.size()).collect();
    let findings = cluster.forensics(&all);
    let is_innocent = |replica| !cluster.world().may_be_accused(replica) && !has_lying_disk(replica);
    let proof = findings.proofs.iter().find(|proof| is_innocent(proof.accused()))?;
    Some(Complaint::Accused(format!("{proof:?}")))
}

/// Why somebody panicked.
pub(crate) fn reason(panic: &(dyn core::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word").to_owned()
}

impl Play<'_> {
    fn run(&mut self) -> Result<(), Complaint> {
        self.begin();
        self.take_steps()?;
        let ending = &self.scenario.ending;
        self.run_for(ending.after.0)?;
        if ending.mend {
            self.mend()?;
            self.end()?;
        }
        let last = moment(judge::last_moment(&self.scenario.expect));
        self.run_for(Duration::from_nanos(last.nanoseconds().saturating_sub(self.cluster.time().nanoseconds())))?;
        judge::judge(&mut self.cluster, &self.scenario.expect)
    }

    /// Puts rules and traps in place.
    fn begin(&mut self) {
        let Scenario { rules, steps, seed, .. } = self.scenario;
        if !rules.is_empty() {
            self.cluster.world_mut().network.add_filter(filter(rules, *seed));
        }
        for (index, step) in steps.iter().enumerate() {
            if let When::Does(trap) = &step.when {
                let crashes = matches!(step.action, Action::Crash(replica) if replica == trap.replica);
                self.cluster.world_mut().traps.set(index, trap.clone(), crashes);
            }
        }
    }

    /// Takes the steps in the order of their moments; those that stand first go first.
    fn take_steps(&mut self) -> Result<(), Complaint> {
        let mut timed: Vec<(Duration, usize)> = Vec::new();
        for (index, step) in self.scenario.steps.iter().enumerate() {
            if let When::At(at) = step.when {
                timed.push((at.0, index));
            }
        }
        timed.sort_unstable();
        for (at, index) in timed {
            let now = Duration::from_nanos(self.cluster.time().nanoseconds());
            self.run_for(at.saturating_sub(now))?;
            self.act(index)?;
        }
        Ok(())
    }

    /// Lets time pass, and does what traps ask for when they spring.
    fn run_for(&mut self, duration: Duration) -> Result<(), Complaint> {
        let end = self.cluster.time().after(duration);
        loop {
            let has_sprung = self.cluster.run_to(end, |cluster| cluster.world().traps.has_sprung())?;
            for index in self.cluster.world_mut().traps.take_sprung() {
                self.act(index)?;
            }
            if !has_sprung {
                return Ok(());
            }
        }
    }

    fn act(&mut self, index: usize) -> Result<(), Complaint> {
        let action = self.scenario.steps[index].action.clone();
        if !build::is_call(&action) {
            let text = serde_json::to_string(&action).expect("an action has only text and numbers");
            self.cluster.world_mut().trace_with(|trace, now| trace.event(now, text));
        }
        *self.faults.entry(build::name_of(&action)).or_default() += 1;
        if action == Action::Mend {
            return self.mend();
        }
        let at = self.cluster.time();
        let ticket = build::act(&mut self.cluster, &action)?;
        if let Some((calls, ticket)) = self.calls.as_mut().zip(ticket) {
            calls.push(Made::new(ticket, action, at));
        }
        Ok(())
    }

    fn mend(&mut self) -> Result<(), Complaint> {
        self.cluster.world_mut().traps.clear();
        let core: Vec<usize> = self.scenario.ending.core.iter().map(|replica| usize::from(*replica)).collect();
        Ok(build::mend(&mut self.cluster, &core, &self.scenario.ending.links)?)
    }

    /// Demands answers to all that was asked, then to some more calls, then that everyone has come as far.
    fn end(&mut self) -> Result<(), Complaint> {
        let ending = &self.scenario.ending;
        let bound = ending.bound.0;
        // Without others to serve, who leaves one client out does nothing at all, and is replaced for that.
        let leaves_out = |attacker: &Attacker| attacker.attack.split(',').any(|attack| attack.starts_with(CENSOR));
        if self.scenario.clients > 1 && self.scenario.attackers.iter().any(leaves_out) {
            let pace = self.cluster.configuration().parameters().ordering_deadline() / 4;
            self.cluster.run_until_answered_under_load(bound, pace)?;
        }
        self.cluster.run_until_answered(bound)?;
        // A state that rotted is found at one checkpoint and mended by the next.
        let intervals = if self.cluster.has_rotten_state() { 3 } else { 0 };
        let interval = self.cluster.configuration().parameters().checkpoint_interval;
        let mending = u32::try_from(intervals * interval).unwrap_or(u32::MAX);
        for call in 0..ending.calls.saturating_add(mending) {
            let client = call % u32::from(self.scenario.clients.max(1));
            self.cluster.client(client as usize).put("last", &call.to_string());
            self.cluster.run_until_answered(bound)?;
        }
        let tip = self.cluster.correct_standings().map(|(_, standing)| standing.executed).max();
        self.reach(tip.unwrap_or(Sequence::ZERO), bound.saturating_mul(CATCH_UP_FACTOR))?;
        Ok(self.cluster.assert_same_states()?)
    }

    /// Waits until every correct replica, and every standby, has executed up to `tip`, and the checkpoint before it is stable
    /// everywhere.
    fn reach(&mut self, tip: Sequence, bound: Duration) -> Result<(), Complaint> {
        let interval = self.cluster.configuration().parameters().checkpoint_interval;
        let checkpoint = Sequence::new(tip.value() - tip.value() % interval);
        let has_come = |standing: Standing| standing.executed >= tip && standing.stable >= checkpoint;
        let is_there = |cluster: &Cluster| {
            cluster.correct_standings().all(|(_, standing)| has_come(standing))
                && cluster.standings_of_standbys().all(|standing| standing.is_some_and(has_come))
        };
        Ok(self.cluster.run_until(is_there, bound)?)
    }
}

impl From<Failure> for Complaint {
    fn from(failure: Failure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

impl Complaint {
    /// The invariant that does not hold, or what stands for it, in one word: to tell failures of one kind from others.
    pub fn name(&self) -> String {
        match self {
            Self::Failed(failure) => match &failure.trouble {
                Trouble::Violated(violation) => format!("{:?}", violation.invariant),
                Trouble::Waited(_) => "Liveness".to_owned(),
                Trouble::NotConverged => "Agreement".to_owned(),
                Trouble::DoesNotStart(..) => "Start".to_owned(),
                Trouble::Circles => "Circles".to_owned(),
            },
            Self::Unmet(..) => "Expectation".to_owned(),
            Self::Panicked(_) => "Assertion".to_owned(),
            Self::Accused(_) => "Forensics".to_owned(),
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failure) => failure.fmt(formatter),
            Self::Unmet(expectation, found) => write!(formatter, "expected {expectation:?}: {found}"),
            Self::Panicked(reason) => write!(formatter, "a replica stopped: {reason}"),
            Self::Accused(proof) => write!(formatter, "the logs convict a correct replica: {proof}"),
        }
    }
}
