//! The world: one queue of events, and a step that takes the next one. Everything that happens is in that order.
//!
//! A seed and a sequence of calls give the same history on every machine: nothing here reads a clock, a file or the order
//! of a map that hashes.

mod carry_out;
mod clients;
mod event;
mod forensics;
mod founding;
mod options;
mod queue;
mod rogues;
mod standbys;
mod traps;

use core::fmt;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use quorate_crypto::{PublicKey, hash};
use quorate_protocol::application::{Executable, Execution};
use quorate_protocol::codec::{Blob, List};
use quorate_protocol::configuration::Configuration;
use quorate_protocol::input::Input;
use quorate_protocol::message::{Message, from_frame};
use quorate_protocol::number::{ReplicaId, RequestNumber, Sequence, Session};
use quorate_protocol::time::{Time, WallTime};
use quorate_protocol::verify::{Invalid, verify};

use crate::checker::{Checkers, Invariant, Moment, Observation, Violation};
use crate::client::Client;
use crate::clock::Clock;
use crate::disk::{CheckpointStore, Disk};
use crate::fingerprint::Fingerprint;
use crate::host::{ApplicationMaker, Builder, Host, Standing};
use crate::marks::{Mark, Marks};
use crate::network::{Endpoint, Network};
use crate::random::{Random, Stream};
use crate::signature::{Holder, Notary, SharedSigner};
use crate::spotter::Spotter;
use crate::trace::{Stance, Trace};

pub(crate) use event::Event;
pub use options::{WorldCounts, WorldOptions};
use queue::Queue;
use rogues::Rogue;
use standbys::Standbys;
use traps::Traps;

/// A cluster, its clients, and all that is between them.
pub struct World {
    /// Drawn from a seed; the same calls on a world of the same seed do the same.
    seed: u64,
    options: WorldOptions,
    configuration: Arc<Configuration>,
    notary: Notary,
    signers: Vec<SharedSigner>,
    builder: Builder,
    time: Time,
    queue: Queue,
    pub(crate) network: Network,
    /// Those of the members, by their numbers, and those of the standbys after them.
    pub(crate) hosts: Vec<Host>,
    standbys: Standbys,
    pub(crate) clients: Vec<Client>,
    /// Clients in the adversary's hands. Their indexes follow those of the clients.
    rogues: Vec<Rogue>,
    clients_by_key: BTreeMap<PublicKey, usize>,
    checkers: Checkers,
    counts: WorldCounts,
    disk_random: Random,
    clock_random: Random,
    work_random: Random,
    garble_random: Random,
    read_random: Random,
    pub(crate) traps: Traps,
    /// Replicas against which a correct one kept a proof.
    proved_faulty: BTreeSet<ReplicaId>,
    /// Replicas that took over a state that they were sent.
    took_over_state: BTreeSet<ReplicaId>,
    /// Replicas that a correct one named as the source of a state that is none.
    named_liars: BTreeSet<ReplicaId>,
    spotter: Spotter,
    /// Folds all that happened, in order: equal for equal runs.
    fingerprint: Fingerprint,
    /// What a page is drawn from, if somebody wants one.
    tracer: Option<Trace>,
    history: VecDeque<String>,
}

impl fmt::Debug for World {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("World")
            .field("seed", &self.seed)
            .field("time", &self.time)
            .field("counts", &self.counts)
            .field("under_way", &self.queue.len())
            .finish_non_exhaustive()
    }
}

impl World {
    /// A world in which nothing runs yet.
    pub fn new(
        seed: u64,
        configuration: Configuration,
        mut notary: Notary,
        options: WorldOptions,
        builder: Builder,
        make_application: ApplicationMaker,
    ) -> Self {
        let (configuration, initial) = founding::found(configuration, options.founded, make_application);
        let configuration = Arc::new(configuration);
        let spotter = Spotter::new(&configuration);
        let replicas = configuration.size();
        let mut clock_random = Random::new(seed, Stream::Clock);
        let mut signers =
            configuration.replicas().map(|id| notary.key(Holder::Replica(u64::from(id.value()))).1).collect();
        let hosts = configuration.replicas().map(|id| {
            let clock = Clock::draw(options.clock, &mut clock_random);
            let mut disk = Disk::new(options.disk);
            disk.checkpoints = CheckpointStore::holding(initial.clone());
            Host::new(id, clock, disk, make_application, options.part_entries_max)
        });
        let mut hosts = hosts.collect();
        let standbys = Standbys::new(seed, &options, make_application, (&mut hosts, &mut signers), &mut notary);
        let clients: Vec<Client> = (0..options.clients)
            .map(|index| {
                let (key, signer) = notary.key(Holder::Client(index as u64));
                Client::new(index, key, signer, &configuration, seed.wrapping_add(index as u64))
            })
            .collect();
        let rogue = |index: usize| {
            let (key, signer) = notary.key(Holder::Client((clients.len() + index) as u64));
            Rogue::new(key, signer, Random::new(seed.wrapping_add(index as u64), Stream::Rogues))
        };
        let rogues: Vec<Rogue> = (0..ROGUES).map(rogue).collect();
        let keys = clients.iter().map(Client::key).chain(rogues.iter().map(Rogue::key));
        let clients_by_key = keys.enumerate().map(|(index, key)| (key, index)).collect();
        let mut world = Self {
            seed,
            options,
            clients_by_key,
            checkers: Checkers::new(configuration.size(), configuration.parameters(), options.answer_bound),
            configuration,
            notary,
            signers,
            builder,
            time: Time::ZERO,
            queue: Queue::default(),
            network: Network::new(options.link, Random::new(seed, Stream::Network)),
            hosts,
            standbys,
            clients,
            rogues,
            counts: WorldCounts::default(),
            disk_random: Random::new(seed, Stream::Disk),
            clock_random,
            work_random: Random::new(seed, Stream::Application),
            garble_random: Random::new(seed, Stream::Garble),
            read_random: Random::new(seed, Stream::Reads),
            traps: Traps::default(),
            proved_faulty: BTreeSet::new(),
            took_over_state: BTreeSet::new(),
            named_liars: BTreeSet::new(),
            spotter,
            fingerprint: Fingerprint::default(),
            tracer: options.is_traced.then(|| Trace::new(replicas)),
            history: VecDeque::new(),
        };
        world.start_clients();
        world
    }

    /// The seed that everything is drawn from.
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// True time.
    pub const fn time(&self) -> Time {
        self.time
    }

    /// What has happened so far, counted.
    pub const fn counts(&self) -> WorldCounts {
        self.counts
    }

    /// The situations that correct replicas came into so far.
    pub fn marks(&self) -> Marks {
        let mut marks = self.spotter.marks().clone();
        let members = &self.hosts[..self.configuration.size()];
        for host in members.iter().filter(|host| !self.checkers.is_faulty(host.id)) {
            host.refusals().for_each(|(refusal, times)| marks.add(Mark::Refused(refusal), times));
        }
        marks
    }

    /// How many signatures were made so far, and how many checked.
    pub fn signatures(&self) -> (u64, u64) {
        self.notary.counts()
    }

    /// The configuration of the cluster.
    pub const fn configuration(&self) -> &Arc<Configuration> {
        &self.configuration
    }

    /// Stands for all that happened so far: equal for equal runs, and hardly ever for others.
    pub const fn fingerprint(&self) -> u64 {
        self.fingerprint.value()
    }

    /// The first violation of an invariant.
    pub const fn violation(&self) -> Option<&Violation> {
        self.checkers.violation()
    }

    /// All replicas.
    pub fn replicas(&self) -> impl DoubleEndedIterator<Item = ReplicaId> + Clone + use<> {
        self.configuration.replicas()
    }

    /// How far a replica says that it came; `None` while it is down.
    pub fn standing(&self, replica: ReplicaId) -> Option<Standing> {
        self.hosts[replica.index()].subject.as_ref()?.standing()
    }

    /// Whether a replica runs.
    pub fn is_running(&self, replica: ReplicaId) -> bool {
        self.hosts[replica.index()].is_running()
    }

    /// From now on `replica` may do anything without being blamed.
    pub fn exempt(&mut self, replica: ReplicaId) {
        self.checkers.exempt(replica);
    }

    /// Whether a replica may do anything without being blamed.
    pub fn is_exempt(&self, replica: ReplicaId) -> bool {
        self.checkers.is_faulty(replica)
    }

    /// How often an attacker did what its script says, since it was started.
    pub fn reactions(&self, replica: ReplicaId) -> u64 {
        self.hosts[replica.index()].subject.as_ref().map_or(0, |subject| subject.reactions())
    }

    /// Whether a replica took over a state that it was sent.
    pub fn took_over_state(&self, replica: ReplicaId) -> bool {
        self.took_over_state.contains(&replica)
    }

    /// Whether a proof against a replica may be true: it is in the adversary's hands, or its state rotted once.
    pub fn may_be_accused(&self, replica: ReplicaId) -> bool {
        self.checkers.may_be_accused(replica)
    }

    /// From now on no invariant is checked, and the world goes on whatever was violated.
    pub fn stop_checking(&mut self) {
        self.checkers.switch_off();
    }

    /// Whether a correct replica kept a proof against `replica`.
    pub fn is_proved_faulty(&self, replica: ReplicaId) -> bool {
        self.proved_faulty.contains(&replica)
    }

    /// Whether a correct replica named `replica` as the source of a state that is none.
    pub fn is_named_a_liar(&self, replica: ReplicaId) -> bool {
        self.named_liars.contains(&replica)
    }

    /// Takes the next event: `false` if there is none, or an invariant was violated.
    pub fn step(&mut self) -> bool {
        if self.checkers.violation().is_some() {
            return false;
        }
        let Some((time, event)) = self.queue.pop() else {
            return false;
        };
        self.time = time;
        if !event.is_of_standby(self.configuration.size()) {
            self.counts.steps += 1;
            self.fingerprint.fold(time.nanoseconds());
            event.fold_into(&mut self.fingerprint);
        }
        self.happen(event);
        self.observe(&Observation::Tick);
        self.checkers.violation().is_none()
    }

    /// When the next event happens.
    pub fn next_time(&self) -> Option<Time> {
        self.queue.next_time()
    }

    /// When the last message under way arrives; now, if there is none.
    pub fn last_arrival(&self) -> Time {
        let messages = self.queue.iter().filter(|(_, event)| event.frame().is_some());
        messages.map(|(time, _)| time).max().unwrap_or(self.time)
    }

    /// Lets time pass up to `time`, at which nothing more happens than has happened.
    pub fn advance_to(&mut self, time: Time) {
        self.time = self.time.max(time);
    }

    /// Starts a replica on what its disk holds.
    ///
    /// # Errors
    /// What the replica says why it does not start.
    pub fn start(&mut self, replica: ReplicaId) -> Result<(), String> {
        let signer = Arc::clone(&self.signers[replica.index()]);
        let is_member = self.is_member(replica);
        let host = &mut self.hosts[replica.index()];
        assert!(!host.is_running(), "a replica is started that runs");
        let random = if is_member { &mut self.clock_random } else { &mut self.standbys.random };
        host.clock = host.clock.restarted(random);
        let boot = host.boot(&self.configuration, signer)?;
        let now = host.clock.now(self.time);
        let executed = boot.checkpoint.as_ref().map_or(Sequence::ZERO, |checkpoint| checkpoint.sequence);
        let started = Observation::Started { replica, executed, records: &boot.records };
        let moment = Moment { step: self.counts.steps, time: self.time };
        self.checkers.observe(moment, &started);
        if self.is_spotted(replica) {
            self.spotter.started(replica, executed, &boot.records);
        }
        self.note(|| format!("{replica} starts at {executed} with {} records", boot.records.len()));
        let records = boot.records.len();
        self.trace_of(replica, |trace, now| {
            let text = format!("starts: executed {executed}, {records} records in its log");
            trace.mark(replica, now, "start", None, text);
            trace.stand(replica, now, Stance::In(0));
        });
        let subject = (self.builder)(boot, now)?;
        self.hosts[replica.index()].subject = Some(subject);
        self.drain(replica);
        if self.hosts[replica.index()].is_disk_full {
            self.tell_room(replica);
        }
        Ok(())
    }

    /// Takes a replica's power: what is not on its disk is gone.
    pub fn crash(&mut self, replica: ReplicaId) {
        let is_member = self.is_member(replica);
        if self.is_running(replica) && self.is_spotted(replica) {
            let host = &self.hosts[replica.index()];
            let members = &self.hosts[..self.configuration.size()];
            let down = members.iter().filter(|host| !host.is_running()).count() + 1;
            self.spotter.crashed(replica, &host.disk, down);
            self.spotter.refused(host.refusals());
        }
        let host = &mut self.hosts[replica.index()];
        host.lose_memory();
        let random = if is_member { &mut self.disk_random } else { &mut self.standbys.random };
        host.disk.crash(random, &self.configuration);
        self.counts.crashes += u64::from(is_member);
        self.note(|| format!("{replica} crashes"));
        self.trace_of(replica, |trace, now| {
            trace.mark(replica, now, "crash", None, "crashes: what is not on its disk is gone".to_owned());
            trace.stand(replica, now, Stance::Down);
        });
    }

    /// Stops a replica in the middle of what it does, as a debugger does: its clocks go on, it handles nothing.
    pub fn pause(&mut self, replica: ReplicaId) {
        self.hosts[replica.index()].held.get_or_insert_default();
        self.note(|| format!("{replica} is paused"));
    }

    /// Lets a paused replica go on, with all that has happened meanwhile.
    pub fn resume(&mut self, replica: ReplicaId) {
        self.note(|| format!("{replica} goes on"));
        let Some(held) = self.hosts[replica.index()].held.take() else { return };
        for event in held {
            self.schedule(self.time, event);
        }
        self.tell_room(replica);
    }

    /// Fills a replica's disk, or makes room on it: the replica is told, now or when it starts. (PROTOCOL §9)
    pub fn set_disk_full(&mut self, replica: ReplicaId, is_full: bool) {
        let host = &mut self.hosts[replica.index()];
        if core::mem::replace(&mut host.is_disk_full, is_full) != is_full {
            let is_paused = host.held.is_some();
            self.note(|| format!("the disk of {replica} {}", if is_full { "is full" } else { "has room again" }));
            if !is_paused {
                self.tell_room(replica);
            }
        }
    }

    /// A replica is told that its log is damaged, unless it is down or paused.
    pub fn damage_log(&mut self, replica: ReplicaId) {
        let host = &self.hosts[replica.index()];
        if host.subject.is_some() && host.held.is_none() {
            self.note(|| format!("the log of {replica} is found damaged"));
            self.feed(replica, Input::LogDamaged);
        }
    }

    fn tell_room(&mut self, replica: ReplicaId) {
        let is_full = self.hosts[replica.index()].is_disk_full;
        self.feed(replica, if is_full { Input::LogFull } else { Input::LogHasRoom });
    }

    /// Damages what the application of a replica keeps in memory, by an operation that nobody ordered.
    pub fn rot_application(&mut self, replica: ReplicaId, operation: Blob) {
        let request = Executable {
            client: self.clients[0].key(),
            session: Session::NONE,
            number: RequestNumber::ZERO,
            index: 0,
            operations: List::new(vec![operation]).expect("one operation"),
        };
        let execution = Execution { sequence: Sequence::ZERO, time: WallTime::ZERO, requests: vec![request] };
        self.hosts[replica.index()].rot_application(&execution);
        self.observe(&Observation::Rotted(replica));
        self.note(|| format!("the state of {replica} rots"));
    }

    /// Tells the checkers that from now on nothing goes wrong (or that things go wrong again).
    pub fn set_healed(&mut self, is_healed: bool) {
        self.observe(if is_healed { &Observation::Healed } else { &Observation::Broken });
    }

    /// What a page can be drawn from, if the options asked for it.
    pub const fn trace(&self) -> Option<&Trace> {
        self.tracer.as_ref()
    }

    /// The latest happenings.
    pub fn history(&self) -> impl Iterator<Item = &str> {
        self.history.iter().map(String::as_str)
    }

    pub(crate) fn schedule(&mut self, time: Time, event: Event) {
        self.queue.push(time.max(self.time), event);
    }

    fn happen(&mut self, event: Event) {
        if let Some((to, incarnation)) = event.replica() {
            let host = &mut self.hosts[to.index()];
            if !host.is_running() || incarnation.is_some_and(|incarnation| incarnation != host.incarnation) {
                return;
            }
            if let Some(held) = &mut host.held {
                held.push(event);
                return;
            }
        }
        if let Some(frame) = event.frame() {
            self.counts.delivered += 1;
            self.counts.delivered_bytes += frame.len() as u64;
        }
        match event {
            Event::Arrival { from, to, frame } => self.on_arrival(from, to, &frame),
            Event::Call { from, to, frame } => self.on_call(from, to, &frame),
            Event::Answer { from, to, frame } => self.on_answer(from, to, &frame),
            Event::Wake { to, at, .. } => self.on_wake(to, at),
            Event::WakeClient { client, at } => self.on_wake_client(client, at),
            Event::Synced { to, .. } => self.on_synced(to),
            Event::Stored { to, .. } => self.on_stored(to),
            Event::Worked { to, .. } => self.on_worked(to),
            Event::Asked { from, to, frame } => self.on_asked(from, to, &frame),
            Event::Told { from, to, frame } => self.on_told(from, to, &frame),
            Event::Stumble { standby } => self.on_stumble(standby),
        }
    }

    fn on_arrival(&mut self, from: ReplicaId, to: ReplicaId, frame: &Bytes) {
        if !self.network.is_open(Endpoint::Replica(from), Endpoint::Replica(to)) {
            return;
        }
        self.receive(from, to, frame);
    }

    /// A frame of a member's is read, checked and handled.
    fn receive(&mut self, from: ReplicaId, to: ReplicaId, frame: &Bytes) {
        let message: Message = match from_frame(frame) {
            Ok(message) => message,
            Err(error) => return self.refuse(from, to, &Invalid::Codec(error)),
        };
        self.note(|| format!("{from} -> {to}: {}", crate::account::describe(&message)));
        let subject = self.hosts[to.index()].subject.as_ref();
        if self.options.drops_unwanted && !subject.is_some_and(|subject| subject.is_wanted(from, &message)) {
            return;
        }
        if !self.checkers.is_faulty(from) && self.is_spotted(to) {
            self.spotter.arrived(to, &message);
        }
        let configuration = self.configuration_of(to);
        match verify(message, from, &configuration, &mut self.notary) {
            Ok(message) => self.feed(to, Input::Message { from, message }),
            Err(Invalid::Misbehaviour(evidence)) => {
                self.blame(from, to, "sent proof of misbehaviour");
                self.feed(to, Input::Misbehaviour(evidence));
            }
            // It is behind, or ahead.
            Err(Invalid::Epoch(_)) => {}
            Err(invalid) => self.refuse(from, to, &invalid),
        }
    }

    /// The configuration of the epoch that a replica is in.
    fn configuration_of(&self, id: ReplicaId) -> Arc<Configuration> {
        let subject = self.hosts[id.index()].subject.as_ref();
        Arc::clone(subject.and_then(|subject| subject.configuration()).unwrap_or(&self.configuration))
    }

    /// A message counts for nothing: between correct replicas, that is a violation.
    fn refuse(&mut self, from: ReplicaId, to: ReplicaId, invalid: &Invalid) {
        self.counts.refused += 1;
        if self.is_spotted(to) {
            self.spotter.invalid(invalid);
        }
        self.blame(from, to, &format!("sent something invalid: {invalid}"));
    }

    fn blame(&mut self, from: ReplicaId, to: ReplicaId, what: &str) {
        if !self.checkers.is_faulty(from) {
            self.report(Invariant::Understanding, format!("{from}, which is correct, {what} (to {to})"));
        }
    }

    fn on_wake(&mut self, to: ReplicaId, at: Time) {
        let host = &mut self.hosts[to.index()];
        if host.wake_at.take_if(|wake_at| *wake_at == at).is_none() {
            return;
        }
        let now = host.clock.now(self.time).monotonic;
        let was_due = host.subject.as_ref().and_then(|subject| subject.next_deadline()).is_some_and(|due| due <= now);
        self.feed(to, Input::Wake);
        let host = &mut self.hosts[to.index()];
        let deadline = host.subject.as_ref().and_then(|subject| subject.next_deadline());
        let is_stuck = was_due && deadline.is_some_and(|deadline| deadline <= now);
        host.idle_wakes = if is_stuck { host.idle_wakes + 1 } else { 0 };
        if host.idle_wakes > IDLE_WAKES_MAX {
            self.report(
                Invariant::Contract,
                format!("replica {to} wants to be woken at {deadline:?}, again and again"),
            );
        }
    }

    pub(crate) fn feed(&mut self, to: ReplicaId, input: Input) {
        let host = &mut self.hosts[to.index()];
        let now = host.clock.now(self.time);
        let Some(subject) = &mut host.subject else {
            return;
        };
        subject.handle(now, input);
        if let Some(held) = subject.held() {
            self.observe(&Observation::Holds { replica: to, held });
        }
        self.drain(to);
    }

    fn drain(&mut self, to: ReplicaId) {
        for _ in 0..OUTPUTS_MAX {
            let Some(output) = self.hosts[to.index()].subject.as_mut().and_then(|subject| subject.poll_output()) else {
                return self.schedule_wake(to);
            };
            let is_correct = self.is_spotted(to);
            if self.traps.spring(to, &output) {
                if is_correct {
                    self.spotter.trapped(&output);
                }
                return self.crash(to);
            }
            if is_correct {
                self.spotter.did(to, self.time, &output);
            }
            let moment = Moment { step: self.counts.steps, time: self.time };
            let disk = &self.hosts[to.index()].disk;
            self.checkers.observe(moment, &Observation::Did { replica: to, output: &output, disk });
            self.carry_out(to, output);
        }
        self.report(Invariant::Contract, format!("replica {to} asks for more than {OUTPUTS_MAX} things at once"));
    }

    fn schedule_wake(&mut self, to: ReplicaId) {
        let now = self.time;
        let host = &mut self.hosts[to.index()];
        if let Some(when) = host.next_wake(now) {
            let incarnation = host.incarnation;
            self.schedule(when, Event::Wake { to, incarnation, at: when });
        }
    }

    pub(crate) fn observe(&mut self, observation: &Observation<'_>) {
        let moment = Moment { step: self.counts.steps, time: self.time };
        self.checkers.observe(moment, observation);
    }

    pub(crate) fn report(&mut self, invariant: Invariant, message: String) {
        let moment = Moment { step: self.counts.steps, time: self.time };
        self.checkers.report(moment, invariant, message);
    }

    /// Whether what that replica comes into counts as a situation of the run: it is a member, and correct.
    fn is_spotted(&self, id: ReplicaId) -> bool {
        self.is_member(id) && !self.checkers.is_faulty(id)
    }

    /// Adds to the trace what a member does, if anybody wants one: standbys have no lane.
    pub(crate) fn trace_of(&mut self, id: ReplicaId, add: impl FnOnce(&mut Trace, Time)) {
        if self.is_member(id) {
            self.trace_with(add);
        }
    }

    /// Adds to the trace, if anybody wants one.
    pub(crate) fn trace_with(&mut self, add: impl FnOnce(&mut Trace, Time)) {
        if let Some(tracer) = &mut self.tracer {
            add(tracer, self.time);
        }
    }

    /// Writes a happening down, if anybody wants to know.
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if self.options.history == 0 {
            return;
        }
        if self.history.len() == self.options.history {
            self.history.pop_front();
        }
        let microseconds = self.time.nanoseconds() / 1_000;
        self.history.push_back(format!("{:>9}.{:03} ms  {}", microseconds / 1_000, microseconds % 1_000, line()));
    }
}

/// Wake-ups in a row after which a deadline that does not move is a violation.
const IDLE_WAKES_MAX: u32 = 100;

/// How many clients the adversary has.
const ROGUES: usize = 2;

/// Outputs after one input beyond which a replica is thought to go round in circles.
const OUTPUTS_MAX: usize = 100_000;

/// The name of the cluster that worlds simulate.
pub(crate) fn cluster_id() -> quorate_protocol::configuration::ClusterId {
    quorate_protocol::configuration::ClusterId::new(hash(quorate_crypto::Domain::Genesis, &[b"simulation"]))
}
