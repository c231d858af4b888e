//! The language of tests: a cluster in one line, and what is done to it in one line each.
//!
//! ```
//! use core::time::Duration;
//! use quorate_simulator::Cluster;
//!
//! # fn main() -> Result<(), quorate_simulator::Failure> {
//! let mut cluster = Cluster::new(4, 7);
//! let ticket = cluster.client(0).submit(b"hello");
//! cluster.crash(0);
//! cluster.run_until_answered(Duration::from_secs(30))?;
//! # Ok(())
//! # }
//! ```

mod builder;
mod failure;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use quorate_protocol::codec::Blob;
use quorate_protocol::configuration::Configuration;
use quorate_protocol::forensics::Findings;
use quorate_protocol::kv::{self, Operation, StepOutput};
use quorate_protocol::message::Message;
use quorate_protocol::number::{ReplicaId, Sequence, View};
use quorate_protocol::output::NotVoting;
use quorate_protocol::refusal::Refusal;
use quorate_protocol::time::Time;

use crate::client::{Answer, Ticket};
use crate::disk::{Disk, State};
use crate::host::{Host, Standing};
use crate::network::{Endpoint, FilterId, LinkOptions, Passage, Verdict};
use crate::world::{World, WorldCounts};

pub use builder::ClusterBuilder;
#[cfg(any(test, feature = "model"))]
pub(crate) use builder::configuration;
pub use failure::{Failure, Trouble};

/// A cluster of replicas and clients.
#[derive(Debug)]
pub struct Cluster {
    world: World,
    /// Correct replicas that nobody waits for any more.
    given_up: BTreeSet<usize>,
}

/// One client, to call by.
#[derive(Debug)]
pub struct ClientHandle<'a> {
    world: &'a mut World,
    client: usize,
}

/// How long a step may at most be looked at: bounds a simulation that goes round in circles.
const STEPS_MAX: u64 = 20_000_000;

impl Cluster {
    /// A cluster of `size` replicas, all running, with everything drawn from `seed` and nothing going wrong.
    pub fn new(size: usize, seed: u64) -> Self {
        Self::builder(size, seed).build()
    }

    /// A cluster to be described further.
    pub fn builder(size: usize, seed: u64) -> ClusterBuilder {
        ClusterBuilder::new(size, seed)
    }

    /// The client with this index.
    pub fn client(&mut self, client: usize) -> ClientHandle<'_> {
        ClientHandle { world: &mut self.world, client }
    }

    /// The world below.
    pub const fn world(&self) -> &World {
        &self.world
    }

    /// The world below.
    pub const fn world_mut(&mut self) -> &mut World {
        &mut self.world
    }

    /// The configuration of the cluster.
    pub fn configuration(&self) -> &Configuration {
        self.world.configuration()
    }

    /// What has happened so far, counted.
    pub const fn counts(&self) -> WorldCounts {
        self.world.counts()
    }

    /// True time since the start.
    pub const fn time(&self) -> Time {
        self.world.time()
    }

    /// How many replicas there are.
    pub fn size(&self) -> usize {
        self.world.configuration().size()
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// [`Failure`], as soon as an invariant is violated.
    pub fn run_for(&mut self, duration: Duration) -> Result<(), Failure> {
        let end = self.world.time().after(duration);
        self.run_to(end, |_| false)?;
        Ok(())
    }

    /// Lets time pass until `condition` holds.
    ///
    /// # Errors
    /// [`Failure`], as soon as an invariant is violated, or if the condition does not hold within `bound`.
    pub fn run_until(&mut self, condition: impl FnMut(&Self) -> bool, bound: Duration) -> Result<(), Failure> {
        let end = self.world.time().after(bound);
        if self.run_to(end, condition)? { Ok(()) } else { Err(self.failure(Trouble::Waited(bound))) }
    }

    /// Lets time pass until everything that is under way has arrived.
    ///
    /// # Errors
    /// As [`Cluster::run_for`].
    pub fn deliver_all(&mut self) -> Result<(), Failure> {
        let end = self.world.last_arrival();
        self.run_to(end, |_| false)?;
        Ok(())
    }

    /// Lets time pass until every call is answered.
    ///
    /// # Errors
    /// [`Failure`], as soon as an invariant is violated, or if no call is answered within `bound`.
    pub fn run_until_answered(&mut self, bound: Duration) -> Result<(), Failure> {
        loop {
            let before = self.world.unanswered().len();
            let end = self.world.time().after(bound);
            if self.run_to(end, |cluster| cluster.world.is_all_answered())? {
                return Ok(());
            }
            if self.world.unanswered().len() >= before {
                return Err(self.failure(Trouble::Waited(bound)));
            }
        }
    }

    /// Lets time pass until all that was asked so far is answered, while the clients go on asking, one of them in turn each time
    /// that `pace` has passed: who is left out has to be served beside the others.
    ///
    /// # Errors
    /// As [`Cluster::run_until_answered`]; the bound is between two answers to what was asked before.
    pub fn run_until_answered_under_load(&mut self, bound: Duration, pace: Duration) -> Result<(), Failure> {
        let asked = self.world.unanswered();
        let (mut open, mut end) = (asked.len(), self.world.time().after(bound));
        for call in 0.. {
            let client = call % self.world.clients.len();
            self.client(client).put("meanwhile", &call.to_string());
            let next = self.world.time().after(pace);
            self.run_to(next, |_| false)?;
            let still = self.world.unanswered().iter().filter(|ticket| asked.contains(ticket)).count();
            if still == 0 {
                break;
            }
            if still < open {
                (open, end) = (still, self.world.time().after(bound));
            } else if self.world.time() >= end {
                return Err(self.failure(Trouble::Waited(bound)));
            }
        }
        Ok(())
    }

    /// Lets time pass until all running replicas executed the same slots, at least `sequence`, and nothing is unanswered.
    ///
    /// # Errors
    /// As [`Cluster::run_until`].
    pub fn run_until_converged(&mut self, bound: Duration) -> Result<(), Failure> {
        self.run_until(|cluster| cluster.world.is_all_answered() && cluster.is_converged(), bound)
    }

    /// Lets time pass until, besides, the last checkpoint is stable everywhere.
    ///
    /// # Errors
    /// As [`Cluster::run_until`].
    pub fn run_until_settled(&mut self, bound: Duration) -> Result<(), Failure> {
        let interval = self.configuration().parameters().checkpoint_interval;
        let is_settled = |standing: &Standing| {
            let executed = standing.executed.value();
            standing.stable.value() == executed - executed % interval
        };
        self.run_until_converged(bound)?;
        self.run_until(
            |cluster| cluster.is_converged() && cluster.correct_standings().all(|(_, s)| is_settled(&s)),
            bound,
        )
    }

    /// Whether all running replicas executed the same slots and take part in the same view.
    pub fn is_converged(&self) -> bool {
        let standings: Vec<Standing> = self.correct_standings().map(|(_, standing)| standing).collect();
        let is_equal = |left: &Standing, right: &Standing| (left.executed, left.view) == (right.executed, right.view);
        standings.iter().all(|standing| standing.is_in_view)
            && standings.windows(2).all(|pair| is_equal(&pair[0], &pair[1]))
    }

    /// Checks that all running replicas executed the same slots and are in the same view, and have the same states.
    ///
    /// # Errors
    /// [`Failure`], if they do not.
    pub fn assert_converged(&self) -> Result<(), Failure> {
        self.assert_same_states()?;
        if self.is_converged() { Ok(()) } else { Err(self.failure(Trouble::NotConverged)) }
    }

    /// Whether the state of a replica that somebody waits for rotted, and was not replaced since.
    pub(crate) fn has_rotten_state(&self) -> bool {
        let counts = |host: &Host| !self.is_attacker(host.id.index()) && !self.given_up.contains(&host.id.index());
        self.world.hosts.iter().any(|host| host.is_running() && counts(host) && host.is_rotten())
    }

    /// Checks that correct running replicas with a durable checkpoint of the same slot have the same there, entry by entry.
    /// One that was given up may have a state that rotted, and nobody to mend it from.
    ///
    /// # Errors
    /// [`Failure`], if they do not.
    pub fn assert_same_states(&self) -> Result<(), Failure> {
        let is_correct = |id: ReplicaId| !self.is_attacker(id.index());
        let is_left_rotten = |host: &Host| host.is_rotten() && self.given_up.contains(&host.id.index());
        let running = self.world.hosts.iter().filter(|host| host.is_running() && is_correct(host.id));
        let running = running.filter(|host| !is_left_rotten(host));
        let mut states: BTreeMap<Sequence, &State> = BTreeMap::new();
        let is_same = running.filter_map(|host| host.disk.checkpoints.durable()).all(|state| {
            let first = states.entry(state.sequence).or_insert(state);
            *first == &**state
        });
        if is_same { Ok(()) } else { Err(self.failure(Trouble::NotConverged)) }
    }

    /// Takes a replica's power.
    pub fn crash(&mut self, replica: usize) {
        self.world.crash(id(replica));
    }

    /// Takes the power of all replicas at once.
    pub fn crash_all(&mut self) {
        for replica in 0..self.size() {
            if self.is_running(replica) {
                self.crash(replica);
            }
        }
    }

    /// Starts a replica on what its disk holds.
    ///
    /// # Errors
    /// [`Failure`], if it does not start.
    pub fn restart(&mut self, replica: usize) -> Result<(), Failure> {
        self.world.start(id(replica)).map_err(|reason| self.failure(Trouble::DoesNotStart(replica, reason)))
    }

    /// Starts all replicas that are down.
    ///
    /// # Errors
    /// As [`Cluster::restart`].
    pub fn restart_all(&mut self) -> Result<(), Failure> {
        (0..self.size()).try_for_each(|replica| if self.is_running(replica) { Ok(()) } else { self.restart(replica) })
    }

    /// Stops a replica in the middle of what it does.
    pub fn pause(&mut self, replica: usize) {
        self.world.pause(id(replica));
    }

    /// Lets a paused replica go on.
    pub fn resume(&mut self, replica: usize) {
        self.world.resume(id(replica));
    }

    /// Parts the replicas into groups that do not hear each other.
    pub fn partition(&mut self, groups: &[&[usize]]) {
        let replicas: Vec<ReplicaId> = self.world.replicas().collect();
        let groups: Vec<Vec<ReplicaId>> = groups.iter().map(|group| group.iter().copied().map(id).collect()).collect();
        self.world.network.partition(&replicas, &groups);
    }

    /// Takes a replica off the network, for clients as well.
    pub fn isolate(&mut self, replica: usize) {
        self.world.network.isolate(id(replica));
    }

    /// Brings an isolated replica back.
    pub fn rejoin(&mut self, replica: usize) {
        self.world.network.rejoin(id(replica));
    }

    /// Stops what `from` says to `to`.
    pub fn cut_link(&mut self, from: usize, to: usize) {
        self.world.network.cut_link(id(from), id(to));
    }

    /// Ends partitions, isolations and cut links; filters stay, and so do the delays and losses of links.
    pub fn join(&mut self) {
        self.world.network.join();
    }

    /// How one link between replicas behaves from now on, in one direction.
    pub fn set_link(&mut self, from: usize, to: usize, options: LinkOptions) {
        self.world.network.set_link(Endpoint::Replica(id(from)), Endpoint::Replica(id(to)), options);
    }

    /// Makes the network whole again: partitions, cut links and filters end. Delays and losses stay.
    pub fn heal(&mut self) {
        self.world.network.heal();
    }

    /// How all links behave from now on.
    pub fn set_links(&mut self, options: LinkOptions) {
        self.world.network.set_options(options);
    }

    /// Loses every message between replicas for which `is_lost` holds, from now on.
    pub fn drop_messages(
        &mut self,
        mut is_lost: impl FnMut(ReplicaId, ReplicaId, &Message) -> bool + 'static,
    ) -> FilterId {
        self.world.network.add_filter(Box::new(move |passage: &Passage<'_>| {
            if is_lost(passage.from, passage.to, passage.message) { Verdict::Drop } else { Verdict::Pass }
        }))
    }

    /// Ends what [`Cluster::drop_messages`] began.
    pub fn remove_filter(&mut self, filter: FilterId) {
        self.world.network.remove_filter(filter);
    }

    /// Sets a replica's wall clock wrong by so many milliseconds, or right again by none.
    pub fn set_wall_error(&mut self, replica: usize, milliseconds: i64) {
        self.world.hosts[replica].clock.set_wall_error(milliseconds.saturating_mul(1_000_000));
    }

    /// A replica's disk.
    pub fn disk(&mut self, replica: usize) -> &mut Disk {
        &mut self.world.hosts[replica].disk
    }

    /// Fills the disk of a replica, or makes room on it.
    pub fn set_disk_full(&mut self, replica: usize, is_full: bool) {
        self.world.set_disk_full(id(replica), is_full);
    }

    /// The log of a replica is found damaged, if that one runs.
    pub fn damage_log(&mut self, replica: usize) {
        self.world.damage_log(id(replica));
    }

    /// Puts the disk of the standby beside a replica that is down in the place of the replica's own, if there is one.
    pub fn promote(&mut self, replica: usize) {
        self.world.promote(id(replica));
    }

    /// Puts the disk of a replica that is down back to what was last kept of it, if anything was: whatever the replica
    /// does from then on is no longer held against it.
    pub fn roll_back(&mut self, replica: usize) {
        if self.disk(replica).roll_back() {
            self.world.exempt(id(replica));
        }
    }

    /// Damages what the application of a replica keeps in memory.
    pub fn rot_state(&mut self, replica: usize) {
        let operation = Operation::put(b"rot", b"rot").encode().expect("a short operation");
        self.world.rot_application(id(replica), operation);
    }

    /// Whether a replica runs.
    pub fn is_running(&self, replica: usize) -> bool {
        self.world.is_running(id(replica))
    }

    /// How far a replica says that it came; `None` while it is down.
    pub fn standing(&self, replica: usize) -> Option<Standing> {
        self.world.standing(id(replica))
    }

    /// The last slot that a replica executed; zero while it is down.
    pub fn executed(&self, replica: usize) -> u64 {
        self.standing(replica).map_or(0, |standing| standing.executed.value())
    }

    /// The low watermark of a replica; zero while it is down.
    pub fn stable(&self, replica: usize) -> u64 {
        self.standing(replica).map_or(0, |standing| standing.stable.value())
    }

    /// The view that a replica is in or asks for; zero while it is down.
    pub fn view(&self, replica: usize) -> u64 {
        self.standing(replica).map_or(0, |standing| standing.view.value())
    }

    /// Why a replica votes on nothing; `None` if it votes, or is down.
    pub fn not_voting(&self, replica: usize) -> Option<NotVoting> {
        self.world.hosts[replica].subject.as_ref()?.not_voting()
    }

    /// The highest view that a running replica is in.
    pub fn highest_view(&self) -> View {
        self.correct_standings()
            .filter(|(_, standing)| standing.is_in_view)
            .map(|(_, s)| s.view)
            .max()
            .unwrap_or(View::ZERO)
    }

    /// The primary of the highest view that a running replica is in.
    pub fn primary(&self) -> usize {
        self.configuration().primary(self.highest_view()).index()
    }

    /// What came of a call, once enough replicas answered it.
    pub fn answer_to(&self, ticket: Ticket) -> Option<&Answer> {
        self.world.answer_to(ticket)
    }

    /// The results of a call that executed.
    pub fn results_of(&self, ticket: Ticket) -> Option<Vec<Vec<u8>>> {
        let executed = self.answer_to(ticket)?.outcome.as_ref().ok()?;
        Some(executed.results.iter().map(|result| result.to_vec()).collect())
    }

    /// The value that a get of the store found.
    pub fn value_of(&self, ticket: Ticket) -> Option<Vec<u8>> {
        let executed = self.answer_to(ticket)?.outcome.as_ref().ok()?;
        match kv::Output::decode(executed.results.first()?) {
            Ok(kv::Output::Step(StepOutput::Value(value))) => Some(value?.to_vec()),
            _ => None,
        }
    }

    /// Declares that nothing goes wrong any more: from now on every call must be answered in time.
    pub fn declare_healed(&mut self) {
        self.world.set_healed(true);
    }

    /// Declares that things may go wrong again.
    pub fn declare_broken(&mut self) {
        self.world.set_healed(false);
    }

    /// How far the correct replicas say that they came: those that run, and that somebody waits for.
    pub(crate) fn correct_standings(&self) -> impl Iterator<Item = (ReplicaId, Standing)> + '_ {
        let is_counted = |id: &ReplicaId| !self.is_attacker(id.index()) && !self.given_up.contains(&id.index());
        self.world.replicas().filter(is_counted).filter_map(|id| Some((id, self.world.standing(id)?)))
    }

    /// How far the standbys say that they came; none for one that is down.
    pub fn standings_of_standbys(&self) -> impl Iterator<Item = Option<Standing>> + '_ {
        self.world.standings_of_standbys()
    }

    /// Whether a replica is in the adversary's hands.
    pub fn is_attacker(&self, replica: usize) -> bool {
        self.world.is_exempt(id(replica))
    }

    /// What the logs of these replicas tell of who made others diverge. (PROTOCOL §15)
    pub fn forensics(&mut self, replicas: &[usize]) -> Findings {
        self.world.forensics(replicas.iter().copied().map(id))
    }

    /// How often an attacker did what its script says, since it was started.
    pub fn reactions(&self, replica: usize) -> u64 {
        self.world.reactions(id(replica))
    }

    /// Whether a replica took over a state that it was sent.
    pub fn took_over_state(&self, replica: usize) -> bool {
        self.world.took_over_state(id(replica))
    }

    /// Whether a correct replica kept a proof against `replica`.
    pub fn is_proved_faulty(&self, replica: usize) -> bool {
        self.world.is_proved_faulty(id(replica))
    }

    /// Whether a correct replica named `replica` as the source of a state that is none.
    pub fn is_named_a_liar(&self, replica: usize) -> bool {
        self.world.is_named_a_liar(id(replica))
    }

    /// How often the correct replicas refused something for this reason since they started.
    pub fn refusals(&self, refusal: Refusal) -> u64 {
        let correct = self.world.hosts.iter().filter(|host| !self.is_attacker(host.id.index()));
        correct.filter_map(|host| host.subject.as_ref()).map(|subject| subject.refusals(refusal)).sum()
    }

    /// Takes a replica off the network for good: nobody waits for it any more.
    pub fn give_up(&mut self, replica: usize) {
        self.isolate(replica);
        self.given_up.insert(replica);
    }

    /// How many calls were made before `moment`, and how many of them were answered by then.
    pub fn calls_answered_by(&self, moment: Time) -> (usize, usize) {
        self.world
            .clients
            .iter()
            .map(|client| client.calls_answered_by(moment))
            .fold((0, 0), |(calls, answered), more| (calls + more.0, answered + more.1))
    }

    pub(crate) fn run_to(&mut self, end: Time, mut condition: impl FnMut(&Self) -> bool) -> Result<bool, Failure> {
        for _ in 0..STEPS_MAX {
            if let Some(violation) = self.world.violation() {
                let violation = violation.clone();
                return Err(self.failure(Trouble::Violated(violation)));
            }
            if condition(self) {
                return Ok(true);
            }
            if self.world.next_time().is_none_or(|next| next > end) {
                self.world.advance_to(end);
                return Ok(false);
            }
            self.world.step();
        }
        Err(self.failure(Trouble::Circles))
    }

    fn failure(&self, trouble: Trouble) -> Failure {
        Failure::new(&self.world, trouble)
    }
}

impl ClientHandle<'_> {
    /// Puts a value under a key of the store.
    pub fn put(&mut self, key: &str, value: &str) -> Ticket {
        self.run(&Operation::put(key.as_bytes(), value.as_bytes()))
    }

    /// Gets the value under a key of the store, by an ordered read.
    pub fn get(&mut self, key: &str) -> Ticket {
        self.run(&Operation::get(key.as_bytes()))
    }

    /// Gets the value under a key of the store, by a read that need not be ordered.
    pub fn fast_get(&mut self, key: &str) -> Ticket {
        let operation = Operation::get(key.as_bytes()).encode().expect("a test's key is short");
        self.world.read(self.client, operation)
    }

    /// Calls for one operation on the store.
    pub fn run(&mut self, operation: &Operation) -> Ticket {
        let operation = operation.encode().expect("a test's operation is short");
        self.world.call(self.client, vec![operation])
    }

    /// Calls for one operation, which may be any bytes.
    pub fn submit(&mut self, operation: impl AsRef<[u8]>) -> Ticket {
        self.submit_all(&[operation.as_ref()])
    }

    /// Calls for operations that run together, in order.
    pub fn submit_all(&mut self, operations: &[&[u8]]) -> Ticket {
        self.world.call(self.client, operations.iter().map(|operation| Blob::from(*operation)).collect())
    }
}

fn id(replica: usize) -> ReplicaId {
    ReplicaId::new(u8::try_from(replica).expect("a cluster has at most 31 replicas"))
}
