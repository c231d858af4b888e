//! The model check: every order of events of a small cluster around the real core, as far as there is patience.
//! (PROTOCOL §2.1, §4, §7)
//!
//! Four replicas, one of them faulty; two clients' requests, so two values, and the empty batch; one slot or two; views up to
//! one or two; time-outs at any time. The replicas are `quorate_protocol::replica`, not a description of it.
//!
//! **What happens.** Everything ever said stays in the air, and may reach anyone, at any time, again and again, or never. The
//! faulty replica signs, to each replica something else: votes in every view and slot, proposals as a primary, view changes
//! with any certificates for which it has votes or forges them, and new views that follow from its view changes or do not. A
//! replica's time may run out at any moment, and it may crash and start again.
//!
//! **What is left out.** A write is durable and a slot executed at once, since the campaigns crash in between. No checkpoint
//! becomes stable, and no state is transferred. A replica's clock moves only when its time runs out. Statuses are not
//! delivered, but for the faulty replica's, which agrees with every suspicion: suspicions meet no resistance.
//!
//! **What is taken together.** A step is always a replica that writes something down and says it: what it would only remember
//! waits until it completes something. So all votes for one thing that there are come at once, with the faulty replica's if
//! the others do not suffice, and a primary hears of two view changes together; who is no primary leaves its view by its own
//! time-out, not by others'. Commits of correct replicas reach everyone as soon as they decide something. What a replica does
//! with votes that come in other portions is the campaigns' business.
//!
//! **What must hold** is written down here and in the checkers of the campaigns, whom each replica's whole history is shown
//! after each of its steps: nothing of it asks the core.

mod letter;
mod local;
mod menu;
mod setting;

use core::fmt;
use core::hash::{Hash, Hasher};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quorate_crypto::Digest;
use quorate_protocol::batch::Batch;
use quorate_protocol::number::{ReplicaId, Sequence, View};
use serde::Serialize;
use stateright::{Checker as _, HasDiscoveries, Model as _, Property, UniformChooser};

use local::{Local, Steps, Stimulus};
use menu::Scene;
use setting::Setting;

/// What random walks begin with.
const SEED: u64 = 0;

/// How far the model goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Slots, one or two.
    pub slots: u64,
    /// The highest view that a replica asks for because its time runs out, one or two.
    pub views: u64,
    /// How many times replicas start again, all together.
    pub restarts: u64,
    /// States that the search reaches, in the order of their distance and each time that it does, before it gives up.
    pub states: usize,
    /// States through which random walks lead after that, each from the first to where nothing more can happen.
    pub walked: usize,
    /// Threads.
    pub threads: usize,
}

/// What a check came to.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Which replica was faulty.
    pub faulty: u8,
    /// States that the search reached, each time that it did.
    pub states: usize,
    /// Those that differ.
    pub unique: usize,
    /// Steps on the longest way.
    pub depth: usize,
    /// States on random walks.
    pub walked: usize,
    /// Steps on the longest of them.
    pub walked_depth: usize,
    /// Steps of single replicas that were computed.
    pub local_steps: u64,
    /// States of single replicas.
    pub locals: u64,
    /// Whether every state within the bounds was reached, or the search gave up.
    pub is_complete: bool,
    /// Situations that were reached, of those that must be.
    pub reached: BTreeSet<&'static str>,
    /// Properties that do not hold, with the steps that lead there.
    pub violations: Vec<Counterexample>,
}

/// How a property came not to hold.
#[derive(Debug, Clone, Serialize)]
pub struct Counterexample {
    /// The property.
    pub invariant: &'static str,
    /// Which replica was faulty.
    pub faulty: u8,
    /// What the checkers of the campaigns say.
    pub message: String,
    /// What happened, in order.
    pub steps: Vec<String>,
}

/// The correct replicas of a cluster.
#[derive(Debug, Clone)]
struct State {
    locals: Vec<Arc<Local>>,
    /// How many times replicas started again.
    restarts: u64,
}

/// Something happens to one correct replica.
#[derive(Debug, Clone)]
struct Action {
    index: usize,
    what: Stimulus,
}

/// The model with one faulty replica.
struct Model {
    setting: Setting,
    bounds: Bounds,
    steps: Arc<Steps>,
}

/// Looks for violations with `faulty` as the faulty replica.
pub fn check(faulty: ReplicaId, bounds: Bounds) -> Report {
    let steps = Arc::<Steps>::default();
    let model = || Model { setting: Setting::new(faulty, bounds), bounds, steps: Arc::clone(&steps) };
    let builder = || model().checker().threads(bounds.threads).finish_when(HasDiscoveries::AnyFailures);
    let mut report = Report { faulty: faulty.value(), ..Report::default() };
    let search = builder().target_state_count(bounds.states).spawn_bfs().join();
    report.states = search.state_count();
    report.unique = search.unique_state_count();
    report.depth = search.max_depth();
    report.note(&search, faulty);
    report.is_complete = report.violations.is_empty() && report.states < bounds.states;
    if bounds.walked > 0 && report.violations.is_empty() && !report.is_complete {
        let walks = builder().target_state_count(bounds.walked).spawn_simulation(SEED, UniformChooser).join();
        (report.walked, report.walked_depth) = (walks.state_count(), walks.max_depth());
        report.note(&walks, faulty);
    }
    (report.local_steps, report.locals) = steps.counts();
    report
}

impl Report {
    /// Takes over what was found.
    fn note(&mut self, checker: &impl stateright::Checker<Model>, faulty: ReplicaId) {
        for (property, path) in checker.discoveries() {
            if checker.model().property(property).expectation.discovery_is_failure() {
                let last = path.last_state().locals.iter();
                let accounts = last
                    .filter_map(|local| Some(format!("{}: {}", local.replica.id(), local.history.trouble.as_ref()?)));
                let message = accounts.collect::<Vec<_>>().join("; ");
                let steps = path.into_actions().iter().map(|action| checker.model().describe(action)).collect();
                self.violations.push(Counterexample { invariant: property, faulty: faulty.value(), message, steps });
            } else {
                self.reached.insert(property);
            }
        }
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Model").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.restarts.hash(state);
        self.locals.iter().for_each(|local| local.print().hash(state));
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        let prints = |state: &Self| state.locals.iter().map(|local| local.print()).collect::<Vec<_>>();
        self.restarts == other.restarts && prints(self) == prints(other)
    }
}

impl PartialEq for Action {
    fn eq(&self, other: &Self) -> bool {
        (self.index, self.what.print()) == (other.index, other.what.print())
    }
}

impl stateright::Model for Model {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let correct = self.setting.configuration.replicas().filter(|id| *id != self.setting.faulty);
        let locals = correct.map(|id| Arc::new(Local::new(&self.setting, id))).collect();
        vec![State { locals, restarts: 0 }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.extend(menu::menu(self, state).into_iter().map(|(index, what)| Action { index, what }));
    }

    fn next_state(&self, state: &State, Action { index, what }: Action) -> Option<State> {
        let after = self.steps.step(&self.setting, &state.locals[index], &what)?;
        let mut next = state.clone();
        next.restarts += u64::from(matches!(what, Stimulus::Restart));
        next.locals[index] = after;
        self.settle(&mut next);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("a slot has one decision", |_, state: &State| is_agreed(state)),
            Property::always("a slot has one prepared batch in a view", |_, state: &State| is_prepared_once(state)),
            Property::always("what may be decided is proposed again", |_, state: &State| is_carried_on(state)),
            Property::always("a new view proposes what correct replicas voted for", |_, state: &State| {
                is_voted_for(state)
            }),
            Property::always("each correct replica keeps to the rules", |_, state: &State| {
                state.locals.iter().all(|local| local.history.trouble.is_none())
            }),
            Property::sometimes("decided in view 0", |_, state: &State| is_decided(state, |view| view == View::ZERO)),
            Property::sometimes("decided after a view change", |_, state: &State| {
                is_decided(state, |view| view > View::ZERO)
            }),
            Property::sometimes("a null request in a new view", |_, state: &State| {
                let mut proposals = state.locals.iter().flat_map(|local| local.history.entered.values().flatten());
                proposals.any(|(_, digest)| *digest == Batch::empty().digest())
            }),
        ]
    }
}

impl Model {
    /// Commits of correct replicas reach everyone as soon as they decide something.
    fn settle(&self, state: &mut State) {
        for index in 0..state.locals.len() {
            while let Some(after) = Scene::new(self, state).decisive(&state.locals[index]) {
                state.locals[index] = after;
            }
        }
    }

    fn describe(&self, action: &Action) -> String {
        let mut correct = self.setting.configuration.replicas().filter(|id| *id != self.setting.faulty);
        let id = correct.nth(action.index).expect("an index of a correct replica");
        format!("{id}: {}", action.what.describe())
    }
}

fn is_agreed(state: &State) -> bool {
    let mut decided: BTreeMap<Sequence, Digest> = BTreeMap::new();
    let mut all = state.locals.iter().flat_map(|local| &local.history.decided);
    all.all(|(_, sequence, digest)| *decided.entry(*sequence).or_insert(*digest) == *digest)
}

fn is_prepared_once(state: &State) -> bool {
    let mut prepared: BTreeMap<(View, Sequence), Digest> = BTreeMap::new();
    let mut all = state.locals.iter().flat_map(|local| &local.history.prepared);
    all.all(|(view, sequence, digest)| *prepared.entry((*view, *sequence)).or_insert(*digest) == *digest)
}

fn is_decided(state: &State, accepts: impl Fn(View) -> bool) -> bool {
    state.locals.iter().flat_map(|local| &local.history.decided).any(|(view, ..)| accepts(*view))
}

/// A certificate takes the votes of two correct replicas, with the faulty one's; so does whatever a new view proposes.
fn is_voted_for(state: &State) -> bool {
    let empty = Batch::empty().digest();
    let mut proposals = state.locals.iter().flat_map(|local| &local.history.entered).flat_map(|(view, proposals)| {
        proposals.iter().filter(|(_, digest)| *digest != empty).map(|proposal| (*view, *proposal))
    });
    proposals.all(|(view, (sequence, digest))| {
        let voted = |vote: &(View, Sequence, Digest)| vote.0 < view && (vote.1, vote.2) == (sequence, digest);
        state.locals.iter().filter(|local| local.history.accepted.iter().any(voted)).count() >= 2
    })
}

/// Whatever two correct replicas commit to, a quorum may have, with the faulty one: every later new view proposes it.
fn is_carried_on(state: &State) -> bool {
    let all: BTreeSet<_> = state.locals.iter().flat_map(|local| &local.history.commits).collect();
    let is_committed = |commit: &(View, Sequence, Digest)| {
        state.locals.iter().filter(|local| local.history.commits.contains(commit)).count() >= 2
    };
    all.into_iter().filter(|commit| is_committed(commit)).all(|(view, sequence, digest)| {
        let mut later = state.locals.iter().flat_map(|local| local.history.entered.range(view.saturating_add(1)..));
        later.all(|(_, proposals)| proposals.contains(&(*sequence, *digest)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slot_is_decided_alike_before_and_after_a_view_change_whoever_is_faulty() {
        let bounds = Bounds { slots: 1, views: 1, restarts: 0, states: 20_000, walked: 0, threads: 1 };
        for faulty in 0..4 {
            let report = check(ReplicaId::new(faulty), bounds);
            assert!(report.violations.is_empty(), "{faulty}: {:?}", report.violations);
            assert!(report.reached.contains(&"decided in view 0"), "{faulty}: {:?}", report.reached);
        }
    }
}
