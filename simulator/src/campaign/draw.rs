//! From a seed to a scenario.

use core::time::Duration;

use super::{Choice, Schedule};
use crate::adversary;
use crate::random::{Random, Stream};
use crate::scenario::{
    Action, ApplicationKind, Attacker, Deed, Disk, Ending, Fate, Kind, Links, Machines, Pattern, Rule, Scenario, Span,
    Step, Trap, When,
};
use crate::signature::Scheme;

/// How long things go wrong, if nobody says otherwise: the shortest and the longest, in milliseconds.
const DURATION_MS: [u64; 2] = [1_000, 20_000];

/// Rounds of calls and troubles in that time.
const ROUNDS: [u64; 2] = [10, 60];

/// The scenario of `seed`.
pub fn draw(seed: u64, choice: &Choice) -> Scenario {
    let mut random = Random::new(seed, Stream::Faults);
    let replicas = choice.replicas.unwrap_or_else(|| *random.choose(&[4, 4, 4, 4, 5, 6, 7, 7, 10]));
    let schedule = choice.faults.unwrap_or_else(|| *random.choose(&Schedule::ALL));
    let mut drawing = Drawing {
        replicas,
        faulty: Vec::new(),
        victim: 0,
        schedule,
        has_rogues: random.below(3) == 0,
        scenario: Scenario {
            title: format!("seed {seed}: {schedule}"),
            seed,
            replicas,
            clients: 4,
            // Real signatures cost a hundred times as much: a few seeds are enough to see that they change nothing.
            signatures: choice.signatures.unwrap_or(if seed % 512 == 511 { Scheme::Ed25519 } else { Scheme::Ideal }),
            ..Scenario::default()
        },
        random,
    };
    drawing.attackers(choice.attack.as_deref());
    drawing.cluster();
    drawing.troubles(choice.duration);
    drawing.ending();
    drawing.fast_reads(seed, choice.fast_reads);
    drawing.standbys();
    drawing.scenario.founded = founded(seed);
    drawing.scenario
}

/// A scenario that is being drawn.
struct Drawing {
    random: Random,
    replicas: u8,
    /// Replicas in the adversary's hands.
    faulty: Vec<u8>,
    /// The one replica whose state or log may rot: it counts among the faulty as far as what it has is concerned, and is one
    /// of them if there are any.
    victim: u8,
    schedule: Schedule,
    /// Whether clients are in the adversary's hands.
    has_rogues: bool,
    scenario: Scenario,
}

impl Drawing {
    fn replica(&mut self) -> u8 {
        self.below(u64::from(self.replicas))
    }

    fn below(&mut self, bound: u64) -> u8 {
        u8::try_from(self.random.below(bound)).unwrap_or(0)
    }

    /// Up to f attackers; four seeds of five have some.
    fn attackers(&mut self, wanted: Option<&str>) {
        let most = u64::from((self.replicas - 1) / 3);
        let count = match wanted {
            Some("none") => 0,
            None if self.random.below(5) == 0 => 0,
            Some(_) | None => self.random.between(1, most),
        };
        while (self.faulty.len() as u64) < count {
            let replica = self.replica();
            if !self.faulty.contains(&replica) {
                self.faulty.push(replica);
            }
        }
        self.faulty.sort_unstable();
        // Only more than f that play it do what others do not, and what is drawn before it was known is drawn still.
        let names: Vec<&str> = adversary::names().into_iter().filter(|name| *name != "fork").collect();
        for replica in self.faulty.clone() {
            let attack = wanted.map_or_else(|| self.attack(&names), str::to_owned);
            self.scenario.title = format!("{}, {replica}={attack}", self.scenario.title);
            self.scenario.attackers.push(Attacker::named(replica, attack));
        }
        let correct: Vec<u8> = (0..self.replicas).filter(|replica| !self.faulty.contains(replica)).collect();
        let is_room = (self.faulty.len() as u64) < most;
        self.victim = if is_room { *self.random.choose(&correct) } else { self.faulty[0] };
    }

    /// One attack, or two, each with or without a moment of its own.
    fn attack(&mut self, names: &[&str]) -> String {
        let count = if self.random.below(4) == 0 { 2 } else { 1 };
        let one = |drawing: &mut Self| {
            let name = *drawing.random.choose(names);
            match drawing.random.below(8) {
                0 => format!("{name}@from:{}ms", drawing.random.between(1, 5_000)),
                1 => format!("{name}@view:{}", drawing.random.below(4)),
                2 => format!("{name}@slot:{}", drawing.random.between(1, 40)),
                3 => format!("{name}@random:0.{}", drawing.random.between(1, 9)),
                _ => name.to_owned(),
            }
        };
        (0..count).map(|_| one(self)).collect::<Vec<_>>().join(",")
    }

    /// Parameters and machines.
    fn cluster(&mut self) {
        let random = &mut self.random;
        self.scenario.application = if random.below(4) == 0 { ApplicationKind::Store } else { ApplicationKind::Ledger };
        let parameters: &[(&str, u64)] = match random.below(3) {
            0 => &[
                ("checkpoint_interval", 2),
                ("window", 4),
                ("pipeline", 3),
                ("batch_operations_max", 4),
                ("outstanding_max", 3),
                ("sessions_max", 3),
            ],
            1 => &[("checkpoint_interval", 16), ("window", 64)],
            _ => &[],
        };
        self.scenario.parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        // Who loses its votes again and again is to vote again within the time of a run.
        self.scenario.parameters.insert("rejoin_interval_ms".to_owned(), 8_000);
        let passed_over = *random.choose(&[0, 1_000, 10_000, 600_000]);
        self.scenario.parameters.insert("passed_over_ms".to_owned(), passed_over);
        self.scenario.machines = Machines {
            work: span_pair(5, *random.choose(&[20, 500, 5_000])),
            clock_drift_ppm: *random.choose(&[0, 200, 20_000]),
            // Several parts a state, and not so many that a transfer over slow links takes longer than a run waits.
            part_entries: u32::from(u8::try_from(random.between(8, 40)).unwrap_or(8)),
            drops_unwanted: random.below(2) == 0,
            garbled_ppm: *random.choose(&[0, 0, 10_000]),
            ..Machines::default()
        };
        self.scenario.disk = self.disk();
        self.scenario.links = self.links();
    }

    fn disk(&mut self) -> Disk {
        let random = &mut self.random;
        Disk {
            sync: span_pair(20, *random.choose(&[50, 500, 10_000])),
            store: span_pair(20, *random.choose(&[500, 5_000, 100_000])),
            torn_ppm: *random.choose(&[0, 500_000, 1_000_000]),
            segment_records: random.between(1, 32),
        }
    }

    /// The links that the schedule asks for.
    fn links(&mut self) -> Links {
        let random = &mut self.random;
        let mut links = Links { in_order: random.below(3) == 0, ..Links::default() };
        let is_mixed = self.schedule == Schedule::Mixed;
        links.delay = span_pair(100, *random.choose(&[300, 2_000]));
        match self.schedule {
            Schedule::Loss10 => links.loss_ppm = 100_000,
            Schedule::Loss30 => links.loss_ppm = 300_000,
            Schedule::Dup50 => links.duplication_ppm = 500_000,
            Schedule::Reorder => {
                links.in_order = false;
                links.straggling_ppm = 300_000;
            }
            Schedule::Jitter => links.delay = span_pair(100, *random.choose(&[20_000, 60_000])),
            _ if is_mixed => {
                links.delay = span_pair(100, *random.choose(&[300, 2_000, 20_000]));
                links.loss_ppm = *random.choose(&[0, 0, 50_000, 300_000]);
                links.duplication_ppm = *random.choose(&[0, 100_000, 500_000]);
                links.straggling_ppm = *random.choose(&[0, 0, 100_000]);
            }
            _ => {}
        }
        if matches!(self.schedule, Schedule::Jitter | Schedule::Mixed) && random.below(2) == 0 {
            links.regions = (0..self.replicas).map(|_| u8::try_from(random.below(3)).unwrap_or(0)).collect();
            links.far_delay = span_pair(10_000, 40_000);
        }
        links
    }

    /// Rounds of calls, troubles and crashes.
    fn troubles(&mut self, wanted: Option<Span>) {
        let total = wanted.unwrap_or_else(|| Span::milliseconds(self.random.between(DURATION_MS[0], DURATION_MS[1])));
        let rounds = self.random.between(ROUNDS[0], ROUNDS[1]);
        let microseconds = u64::try_from(total.0.as_micros()).unwrap_or(u64::MAX);
        let mut moments: Vec<u64> = (0..rounds).map(|_| self.random.below(microseconds)).collect();
        moments.sort_unstable();
        for (round, moment) in (0..).zip(moments) {
            let at = Span(Duration::from_micros(moment));
            self.calls(at, round);
            self.crash_or_restart(at);
            self.trouble(at);
        }
        self.scenario.ending.after = Span(total.0.saturating_sub(Duration::from_micros(self.last_moment())));
    }

    fn last_moment(&self) -> u64 {
        let last = self.scenario.steps.iter().filter_map(|step| match step.when {
            When::At(at) => Some(at.0.as_micros()),
            When::Does(_) => None,
        });
        last.max().and_then(|last| u64::try_from(last).ok()).unwrap_or(0)
    }

    fn step(&mut self, at: Span, action: Action) {
        self.scenario.steps.push(Step { when: When::At(at), action });
    }

    fn later(&mut self, at: Span, most_ms: u64) -> Span {
        Span(at.0 + Duration::from_micros(self.random.between(100, most_ms * 1_000)))
    }

    /// Half of the clusters of stores answer reads that nobody ordered; values come back then that were overwritten. Drawn from
    /// a stream of its own: the others are what they were without it.
    fn fast_reads(&mut self, seed: u64, always: bool) {
        let mut random = Random::new(seed, Stream::Reads);
        let is_drawn = self.scenario.application == ApplicationKind::Store && random.below(2) == 0;
        if !is_drawn && !always {
            return;
        }
        self.scenario.application = ApplicationKind::Store;
        self.scenario.parameters.insert("fast_reads".to_owned(), 1);
        let mut reads = Vec::new();
        for step in &mut self.scenario.steps {
            match &mut step.action {
                Action::Put(_, key, value) | Action::CompareAndSet(_, key, _, value) => {
                    *key = format!("key {}", random.below(3));
                    *value = format!("{}", random.below(2));
                    // Some look while it is under way, and some a little later.
                    for _ in 0..random.below(4) {
                        let client = u8::try_from(random.below(4)).unwrap_or(0);
                        let after = Duration::from_micros(random.between(100, 30_000));
                        let when = match step.when {
                            When::At(at) => When::At(Span(at.0 + after)),
                            When::Does(_) => continue,
                        };
                        reads.push(Step { when, action: Action::FastGet(client, key.clone()) });
                    }
                }
                Action::Get(client, _) | Action::Delete(client, _) if random.below(3) > 0 => {
                    step.action = Action::FastGet(*client, format!("key {}", random.below(3)));
                }
                _ => {}
            }
        }
        self.scenario.steps.extend(reads);
    }

    fn calls(&mut self, at: Span, round: u64) {
        if self.has_rogues && self.random.below(2) == 0 {
            for _ in 0..=self.random.below(4) {
                let rogue = self.below(2);
                self.step(at, Action::Abuse(rogue));
            }
        }
        for call in 0..self.random.below(14) {
            let client = self.below(4);
            let key = format!("key {}", call * round % 13);
            let value = format!("{round}.{call}");
            let action = match self.random.below(10) {
                0 | 1 => Action::Get(client, key),
                2 => Action::Delete(client, key),
                3 => Action::CompareAndSet(client, key, format!("{}.{call}", round.saturating_sub(1)), value),
                _ => Action::Put(client, key, value),
            };
            self.step(at, action);
        }
    }

    /// Crashes and restarts of correct replicas go on whatever the schedule is: they cost nothing of the f.
    fn crash_or_restart(&mut self, at: Span) {
        let replica = self.replica();
        match self.random.below(8) {
            0 => {
                self.step(at, Action::Crash(replica));
                let back = self.later(at, 3_000);
                self.step(back, Action::Restart(replica));
            }
            1 => self.trap(replica, at),
            2 => {
                self.step(at, Action::DamageLog(replica));
                if self.random.below(2) == 0 {
                    let down = self.later(at, 30);
                    self.step(down, Action::Crash(replica));
                    let back = self.later(down, 2_000);
                    self.step(back, Action::Restart(replica));
                }
            }
            _ => {}
        }
    }

    /// A crash at something that a replica does: between its record and its message, before it cuts or installs.
    fn trap(&mut self, replica: u8, at: Span) {
        let send = |kind| Deed::Send(Pattern { kinds: vec![kind], ..Pattern::default() });
        let deeds = [
            send(Kind::PrePrepare),
            send(Kind::Prepare),
            send(Kind::Commit),
            send(Kind::Checkpoint),
            send(Kind::ViewChange),
            send(Kind::NewView),
            Deed::Append,
            Deed::Cut,
            Deed::Install,
            Deed::EnterView(self.random.between(1, 4)),
        ];
        let does = self.random.choose(&deeds).clone();
        // Installs are rare.
        let most = if does == Deed::Install { 1 } else { 30 };
        let time = Some(u32::from(self.below(most)) + 1);
        let when = When::Does(Trap { replica, does, time });
        self.scenario.steps.push(Step { when, action: Action::Crash(replica) });
        let back = self.later(at, 5_000);
        self.step(back, Action::Restart(replica));
    }

    fn trouble(&mut self, at: Span) {
        let schedule = match self.schedule {
            Schedule::Mixed => *self.random.choose(&Schedule::ALL),
            schedule => schedule,
        };
        if self.random.below(3) > 0 {
            return;
        }
        let until = self.later(at, 4_000);
        match schedule {
            Schedule::PartitionHalf => self.split(at, until),
            Schedule::IsolateOne => {
                let replica = self.replica();
                self.step(at, Action::Isolate(replica));
                self.step(until, Action::Join);
            }
            Schedule::Asymmetric => self.asymmetric(at, until),
            Schedule::Bridge => self.bridge(at, until),
            Schedule::Ring => self.ring(at, until),
            Schedule::Flap => {
                let mut moment = at;
                for _ in 0..self.random.between(2, 6) {
                    let end = self.later(moment, 300);
                    self.split(moment, end);
                    moment = self.later(end, 300);
                }
            }
            Schedule::Pause => {
                let replica = self.replica();
                self.step(at, Action::Pause(replica));
                self.step(until, Action::Resume(replica));
            }
            Schedule::CrashAll => {
                self.step(at, Action::CrashAll);
                let back = self.later(at, 1_000);
                self.step(back, Action::RestartAll);
            }
            Schedule::DiskFaults => self.disk_fault(at, until),
            Schedule::LostVotes => self.lose_votes(at, until),
            Schedule::Clog => self.clog(at, until),
            Schedule::Phases => self.lose_a_phase(at, until),
            Schedule::Clean
            | Schedule::Loss10
            | Schedule::Loss30
            | Schedule::Dup50
            | Schedule::Reorder
            | Schedule::Jitter
            | Schedule::Mixed => {
                if schedule != Schedule::Clean && self.schedule == Schedule::Mixed {
                    let links = self.links();
                    self.step(at, Action::Links(links));
                }
                self.clock(at);
            }
        }
    }

    fn clock(&mut self, at: Span) {
        if self.schedule != Schedule::Clean && self.random.below(4) == 0 {
            let replica = self.replica();
            let error = *self.random.choose(&[-10_000, -1_500, 0, 1_500, 10_000]);
            self.step(at, Action::SetClock(replica, error));
        }
    }

    fn groups(&mut self) -> [Vec<u8>; 2] {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for replica in 0..self.replicas {
            if self.random.below(2) == 0 { left.push(replica) } else { right.push(replica) }
        }
        [left, right]
    }

    fn split(&mut self, at: Span, until: Span) {
        let groups = self.groups();
        self.step(at, Action::Partition(groups.to_vec()));
        self.step(until, Action::Join);
    }

    fn asymmetric(&mut self, at: Span, until: Span) {
        let replica = self.replica();
        let is_heard = self.random.below(2) == 0;
        for other in (0..self.replicas).filter(|other| *other != replica) {
            if self.random.below(4) > 0 {
                let (from, to) = if is_heard { (other, replica) } else { (replica, other) };
                self.step(at, Action::CutLink(from, to));
            }
        }
        self.step(until, Action::Join);
    }

    fn bridge(&mut self, at: Span, until: Span) {
        let [left, right] = self.groups();
        let bridge = self.replica();
        for from in left.iter().filter(|replica| **replica != bridge) {
            for to in right.iter().filter(|replica| **replica != bridge) {
                self.step(at, Action::CutLink(*from, *to));
                self.step(at, Action::CutLink(*to, *from));
            }
        }
        self.step(until, Action::Join);
    }

    fn ring(&mut self, at: Span, until: Span) {
        let count = self.replicas;
        for from in 0..count {
            for to in (0..count).filter(|to| *to != from && (from + 1) % count != *to && (to + 1) % count != from) {
                self.step(at, Action::CutLink(from, to));
            }
        }
        self.step(until, Action::Join);
    }

    fn disk_fault(&mut self, at: Span, until: Span) {
        let replica = self.replica();
        let victim = self.victim;
        match self.random.below(7) {
            0 => {
                let disk = self.disk();
                self.step(at, Action::Disk(replica, disk));
            }
            1 => {
                self.step(at, Action::Stall(replica));
                self.step(until, Action::Crash(replica));
                let back = self.later(until, 500);
                self.step(back, Action::Restart(replica));
            }
            2 => {
                self.step(at, Action::FailSync(replica));
                self.step(until, Action::Restart(replica));
            }
            3 => self.step(at, Action::RotState(victim)),
            5 => {
                self.step(at, Action::Fill(replica));
                self.step(until, Action::Free(replica));
            }
            4 => {
                self.step(at, Action::Crash(victim));
                let place = self.random.below(1_000);
                // No more is drawn for it, so that nothing else changes.
                let action = if place.is_multiple_of(3) {
                    Action::MisdirectRecord(victim, place, place / 3)
                } else {
                    Action::RotRecord(victim, place)
                };
                self.step(at, action);
                self.step(until, Action::Restart(victim));
            }
            _ => {
                self.step(at, Action::Crash(victim));
                self.step(at, Action::LoseCheckpoint(victim));
                self.step(until, Action::Restart(victim));
            }
        }
    }

    /// The victim's alone: it counts among the faulty.
    fn lose_votes(&mut self, at: Span, until: Span) {
        let victim = self.victim;
        let down = self.later(at, 2_000);
        self.step(down, Action::Crash(victim));
        if self.random.below(3) == 0 {
            self.step(at, Action::KeepDisk(victim));
            self.step(down, Action::RollBackDisk(victim));
        } else {
            self.step(down, Action::LoseDisk(victim));
        }
        let back = Span(down.0.max(until.0));
        self.step(back, Action::Restart(victim));
    }

    /// In one seed of four there is a standby, more often than not beside the victim, whose place it may take. Drawn apart: as long
    /// as it does not, the members do the same with it and without.
    fn standbys(&mut self) {
        let mut random = Random::new(!self.scenario.seed, Stream::Standbys);
        if random.below(4) > 0 {
            return;
        }
        let any = u8::try_from(random.below(u64::from(self.replicas))).unwrap_or(0);
        let member = if random.below(2) == 0 { self.victim } else { any };
        self.scenario.standbys.push(member);
        for step in &mut self.scenario.steps {
            if step.action == Action::LoseDisk(member) && random.below(2) == 0 {
                step.action = Action::Promote(member);
            }
        }
    }

    fn rule(&mut self, at: Span, until: Span, messages: Pattern, then: Fate) {
        self.scenario.rules.push(Rule {
            messages,
            since: Some(at),
            until: Some(until),
            chance_ppm: None,
            spare: 0,
            most: None,
            then,
        });
    }

    fn some_replicas(&mut self) -> Vec<u8> {
        (0..self.replicas).filter(|_| self.random.below(2) == 0).collect()
    }

    fn clog(&mut self, at: Span, until: Span) {
        let messages = Pattern { from: self.some_replicas(), to: self.some_replicas(), ..Pattern::default() };
        self.rule(at, until, messages, Fate::Hold(until));
    }

    /// Loses what one phase of one view, or of some slots, says to some replicas.
    fn lose_a_phase(&mut self, at: Span, until: Span) {
        let kinds = (0..self.random.between(1, 3)).map(|_| *self.random.choose(&Kind::ALL)).collect();
        let view = (self.random.below(3) == 0).then(|| self.random.below(4));
        let slots = (self.random.below(3) == 0).then(|| {
            let first = self.random.between(1, 30);
            [first, first + self.random.below(10)]
        });
        let messages = Pattern { kinds, from: Vec::new(), to: self.some_replicas(), view, slots };
        let then = if self.random.below(3) == 0 { Fate::Hold(until) } else { Fate::Drop };
        self.rule(at, until, messages, then);
    }

    /// In half of the seeds all that are correct are mended, in the others as few as a quorum needs.
    fn ending(&mut self) {
        let correct: Vec<u8> = (0..self.replicas).filter(|replica| !self.faulty.contains(replica)).collect();
        let faults_max = usize::from((self.replicas - 1) / 3);
        let quorum = usize::midpoint(usize::from(self.replicas), faults_max) + 1;
        let mut core = Vec::new();
        // A victim that is not the adversary's counts among the faulty: nobody may need what it lost.
        let may_be_left = |replica: &u8, schedule| {
            !(matches!(schedule, Schedule::DiskFaults | Schedule::LostVotes | Schedule::Mixed)
                && !self.faulty.contains(replica)
                && *replica == self.victim)
        };
        if self.random.below(2) == 0 {
            core = correct.into_iter().filter(|replica| may_be_left(replica, self.schedule)).collect();
            while core.len() > quorum {
                let place = self.random.index(core.len());
                core.remove(place);
            }
        }
        let after = self.scenario.ending.after;
        let ending = Ending { after, core, calls: 8, ..Ending::default() };
        // Time-outs have to grow until a view fits them: a message may take longer than the first of them, or all of them do. Much
        // longer: a suspicion goes over the same links before it ends a view, so that much of a delay makes up for itself.
        let slow = |min, mean| Links { delay: span_pair(min, mean), ..Links::default() };
        self.scenario.ending = match self.random.below(16) {
            0 => Ending { links: slow(20_000, 120_000), ..ending },
            1 => Ending { links: slow(600_000, 900_000), bound: Span::milliseconds(240_000), ..ending },
            _ => ending,
        };
    }
}

/// In one seed of eight the cluster begins with a state.
fn founded(seed: u64) -> u32 {
    let mut random = Random::new(!seed, Stream::Founding);
    if random.below(8) > 0 { 0 } else { u32::try_from(random.between(1, 60)).unwrap_or(1) }
}

fn span_pair(min: u64, mean: u64) -> [Span; 2] {
    [Span(Duration::from_micros(min)), Span(Duration::from_micros(mean))]
}
