//! From the words of a scenario to a cluster and what is done to it.

use quorate_protocol::codec::Blob;
use quorate_protocol::configuration::ConfigurationError;
use quorate_protocol::kv::Operation;
use quorate_protocol::number::RecordNumber;

use super::Watch;
use crate::adversary::{self, Attacks};
use crate::client::Ticket;
use crate::clock::ClockOptions;
use crate::cluster::{Cluster, Failure};
use crate::disk::DiskOptions;
use crate::ledger::{Ledger, replicated_reading_store, replicated_store};
use crate::network::LinkOptions;
use crate::random::{Chance, Delay};
use crate::scenario::{Action, ApplicationKind, Disk, Links, Scenario, ScenarioError, Span, Step, When};
use crate::world::WorldOptions;

/// Sizes that are simulated: those that the checkers' table of quorums lists.
const SIZES: [u8; 13] = [4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 16, 19, 31];

pub(super) fn cluster(scenario: &Scenario, watch: Watch) -> Result<Cluster, ScenarioError> {
    check(scenario)?;
    let parameters = scenario.parameters()?;
    let fast_reads = parameters.fast_reads;
    let attacks = attacks(scenario)?;
    let mut builder = Cluster::builder(usize::from(scenario.replicas), scenario.seed)
        .scheme(scenario.signatures)
        .parameters(|all| *all = parameters)
        .options(|options| *options = world_options(scenario, watch))
        .attackers(attacks);
    builder = match scenario.application {
        ApplicationKind::Store if fast_reads => builder.application(replicated_reading_store),
        ApplicationKind::Store => builder.application(replicated_store),
        ApplicationKind::Ledger => builder.application(Ledger::replicated),
    };
    let built = builder.try_build();
    let mut cluster = built.map_err(|error: ConfigurationError| ScenarioError::Configuration(error.to_string()))?;
    set_links(&mut cluster, &scenario.links);
    Ok(cluster)
}

/// The names of all attacks that a scenario may name.
pub fn known_attacks() -> Vec<&'static str> {
    adversary::names()
}

fn attacks(scenario: &Scenario) -> Result<Vec<(usize, Attacks)>, ScenarioError> {
    let attackers = scenario.attackers.iter().enumerate().map(|(index, attacker)| {
        let attacks = part("attackers", index, attacker.attacks(scenario.replicas))?;
        Ok((usize::from(attacker.replica), attacks))
    });
    attackers.collect()
}

/// Says in which element of a list something is wrong.
fn part<T>(list: &str, index: usize, result: Result<T, ScenarioError>) -> Result<T, ScenarioError> {
    result.map_err(|error| ScenarioError::In { part: format!("{list}[{index}]"), error: Box::new(error) })
}

/// Refuses a scenario that names what there is not.
fn check(scenario: &Scenario) -> Result<(), ScenarioError> {
    if !SIZES.contains(&scenario.replicas) {
        return Err(ScenarioError::Size(scenario.replicas));
    }
    if scenario.clients == 0 {
        return Err(ScenarioError::Clients);
    }
    let replica = |index: &u8| check_index("replica", *index, scenario.replicas);
    for (index, member) in scenario.standbys.iter().enumerate() {
        part("standbys", index, replica(member))?;
    }
    for (index, rule) in scenario.rules.iter().enumerate() {
        let mut named = rule.messages.from.iter().chain(&rule.messages.to);
        part("rules", index, named.try_for_each(replica))?;
    }
    for (index, step) in scenario.steps.iter().enumerate() {
        part("steps", index, check_step(scenario, step))?;
    }
    for (index, expectation) in scenario.expect.iter().enumerate() {
        part("expect", index, expectation.replica().iter().try_for_each(replica))?;
    }
    for (index, member) in scenario.ending.core.iter().enumerate() {
        part("ending.core", index, replica(member))?;
    }
    Ok(())
}

fn check_step(scenario: &Scenario, step: &Step) -> Result<(), ScenarioError> {
    if let When::Does(trap) = &step.when {
        check_index("replica", trap.replica, scenario.replicas)?;
    }
    check_action(scenario, &step.action)
}

fn check_action(scenario: &Scenario, action: &Action) -> Result<(), ScenarioError> {
    let replica = |index: &u8| check_index("replica", *index, scenario.replicas);
    match action {
        Action::Crash(index)
        | Action::Restart(index)
        | Action::Pause(index)
        | Action::Resume(index)
        | Action::Isolate(index)
        | Action::Disk(index, _)
        | Action::Stall(index)
        | Action::Fill(index)
        | Action::Free(index)
        | Action::FailSync(index)
        | Action::LieAboutSyncs(index)
        | Action::RotRecord(index, _)
        | Action::MisdirectRecord(index, _, _)
        | Action::DamageLog(index)
        | Action::RotState(index)
        | Action::LoseCheckpoint(index)
        | Action::LoseDisk(index)
        | Action::Promote(index)
        | Action::KeepDisk(index)
        | Action::RollBackDisk(index)
        | Action::SetClock(index, _) => replica(index),
        Action::CutLink(from, to) => replica(from).and_then(|()| replica(to)),
        Action::Partition(groups) => groups.iter().flatten().try_for_each(replica),
        Action::Put(client, ..)
        | Action::Get(client, _)
        | Action::FastGet(client, _)
        | Action::Delete(client, _)
        | Action::CompareAndSet(client, ..) => check_index("client", *client, scenario.clients),
        Action::Abuse(rogue) => check_index("rogue client", *rogue, 2),
        Action::CrashAll | Action::RestartAll | Action::Join | Action::Links(_) | Action::Mend => Ok(()),
    }
}

const fn check_index(what: &'static str, index: u8, count: u8) -> Result<(), ScenarioError> {
    if index < count { Ok(()) } else { Err(ScenarioError::NoSuch { what, index, count }) }
}

fn delay([min, mean]: [Span; 2]) -> Delay {
    Delay { min: min.0, mean: mean.0.max(min.0) }
}

fn world_options(scenario: &Scenario, watch: Watch) -> WorldOptions {
    let machines = &scenario.machines;
    WorldOptions {
        link: link_options(&scenario.links, scenario.links.delay),
        disk: disk_options(&scenario.disk),
        clock: ClockOptions {
            offset_max: machines.clock_offset.0,
            drift_ppm_max: machines.clock_drift_ppm.min(999_999),
        },
        work: delay(machines.work),
        part_entries_max: machines.part_entries.max(1) as usize,
        drops_unwanted: machines.drops_unwanted,
        garbled: Chance::per_million(machines.garbled_ppm),
        clients: usize::from(scenario.clients),
        founded: scenario.founded,
        standbys: scenario.standbys.iter().fold(0, |mask, member| mask | 1 << member),
        answer_bound: scenario.ending.bound.0,
        is_traced: watch.is_traced,
        history: watch.history,
    }
}

fn link_options(links: &Links, between: [Span; 2]) -> LinkOptions {
    LinkOptions {
        delay: delay(between),
        loss: Chance::per_million(links.loss_ppm),
        duplication: Chance::per_million(links.duplication_ppm),
        straggling: Chance::per_million(links.straggling_ppm),
        in_order: links.in_order,
    }
}

fn disk_options(disk: &Disk) -> DiskOptions {
    DiskOptions {
        sync: delay(disk.sync),
        store: delay(disk.store),
        torn: Chance::per_million(disk.torn_ppm),
        segment_records: disk.segment_records,
    }
}

fn set_links(cluster: &mut Cluster, links: &Links) {
    cluster.set_links(link_options(links, links.delay));
    let region = |replica: usize| links.regions.get(replica).copied().unwrap_or(0);
    let far = link_options(links, links.far_delay);
    for from in 0..cluster.size() {
        for to in (0..cluster.size()).filter(|to| region(*to) != region(from)) {
            cluster.set_link(from, to, far);
        }
    }
}

/// The name of an action, by which it is counted.
pub(super) const fn name_of(action: &Action) -> &'static str {
    match action {
        Action::Crash(_) => "crash",
        Action::CrashAll => "crash-all",
        Action::Restart(_) | Action::RestartAll => "restart",
        Action::Pause(_) => "pause",
        Action::Resume(_) => "resume",
        Action::Partition(_) => "partition",
        Action::Isolate(_) => "isolate",
        Action::CutLink(..) => "cut-link",
        Action::Join => "join",
        Action::Links(_) => "links",
        Action::Disk(..) => "disk",
        Action::Stall(_) => "stall",
        Action::Fill(_) => "fill",
        Action::Free(_) => "free",
        Action::FailSync(_) => "fail-sync",
        Action::LieAboutSyncs(_) => "lie-about-syncs",
        Action::RotRecord(..) => "rot-record",
        Action::MisdirectRecord(..) => "misdirect-record",
        Action::DamageLog(_) => "damage-log",
        Action::RotState(_) => "rot-state",
        Action::LoseCheckpoint(_) => "lose-checkpoint",
        Action::LoseDisk(_) => "lose-disk",
        Action::Promote(_) => "promote",
        Action::KeepDisk(_) => "keep-disk",
        Action::RollBackDisk(_) => "roll-back-disk",
        Action::SetClock(..) => "set-clock",
        Action::Put(..) | Action::Get(..) | Action::FastGet(..) | Action::Delete(..) | Action::CompareAndSet(..) => {
            "call"
        }
        Action::Abuse(_) => "abuse",
        Action::Mend => "mend",
    }
}

/// Whether an action is a client's call.
pub(super) const fn is_call(action: &Action) -> bool {
    matches!(
        action,
        Action::Put(..) | Action::Get(..) | Action::FastGet(..) | Action::Delete(..) | Action::CompareAndSet(..)
    )
}

/// Does something to the cluster; of a call, gives the ticket. What makes no sense at the moment (a crash of a replica that is down) does nothing.
pub(super) fn act(cluster: &mut Cluster, action: &Action) -> Result<Option<Ticket>, Failure> {
    match action {
        Action::Crash(replica) if is_running(cluster, *replica) => cluster.crash(usize::from(*replica)),
        Action::CrashAll => cluster.crash_all(),
        Action::Restart(replica) if !is_running(cluster, *replica) => cluster.restart(usize::from(*replica))?,
        Action::RestartAll => cluster.restart_all()?,
        Action::Pause(replica) if is_running(cluster, *replica) => cluster.pause(usize::from(*replica)),
        Action::Resume(replica) => cluster.resume(usize::from(*replica)),
        Action::Partition(groups) => {
            let groups: Vec<Vec<usize>> =
                groups.iter().map(|group| group.iter().copied().map(usize::from).collect()).collect();
            let groups: Vec<&[usize]> = groups.iter().map(Vec::as_slice).collect();
            cluster.partition(&groups);
        }
        Action::Isolate(replica) => cluster.isolate(usize::from(*replica)),
        Action::CutLink(from, to) if from != to => cluster.cut_link(usize::from(*from), usize::from(*to)),
        Action::Join => cluster.join(),
        Action::Links(links) => set_links(cluster, links),
        Action::Disk(replica, disk) => cluster.disk(usize::from(*replica)).set_options(disk_options(disk)),
        Action::Stall(replica) if is_running(cluster, *replica) => cluster.disk(usize::from(*replica)).stall(),
        Action::Fill(replica) => cluster.set_disk_full(usize::from(*replica), true),
        Action::Free(replica) => cluster.set_disk_full(usize::from(*replica), false),
        Action::FailSync(replica) if is_running(cluster, *replica) => cluster.disk(usize::from(*replica)).fail_sync(),
        Action::LieAboutSyncs(replica) => cluster.disk(usize::from(*replica)).lie_about_syncs(),
        Action::RotRecord(replica, place) if !is_running(cluster, *replica) => rot_record(cluster, *replica, *place),
        // The one is where the other was, which says by number and position that it does not belong there.
        Action::MisdirectRecord(replica, one, other) if !is_running(cluster, *replica) => {
            rot_record(cluster, *replica, *one);
            rot_record(cluster, *replica, *other);
        }
        Action::DamageLog(replica) => cluster.damage_log(usize::from(*replica)),
        Action::RotState(replica) if is_running(cluster, *replica) => cluster.rot_state(usize::from(*replica)),
        Action::LoseCheckpoint(replica) if !is_running(cluster, *replica) => {
            cluster.disk(usize::from(*replica)).checkpoints.lose();
        }
        Action::LoseDisk(replica) if !is_running(cluster, *replica) => cluster.disk(usize::from(*replica)).lose(),
        Action::Promote(replica) if !is_running(cluster, *replica) => cluster.promote(usize::from(*replica)),
        Action::KeepDisk(replica) => cluster.disk(usize::from(*replica)).keep(),
        Action::RollBackDisk(replica) if !is_running(cluster, *replica) => cluster.roll_back(usize::from(*replica)),
        Action::Abuse(rogue) => cluster.world_mut().abuse(usize::from(*rogue)),
        Action::SetClock(replica, milliseconds) => cluster.set_wall_error(usize::from(*replica), *milliseconds),
        Action::Put(client, key, value) => return Ok(Some(cluster.client(usize::from(*client)).put(key, value))),
        Action::FastGet(client, key) => return Ok(Some(cluster.client(usize::from(*client)).fast_get(key))),
        Action::Get(client, key) => return Ok(Some(cluster.client(usize::from(*client)).get(key))),
        Action::Delete(client, key) => {
            let operation = Operation::delete(key.as_bytes());
            return Ok(Some(cluster.client(usize::from(*client)).run(&operation)));
        }
        Action::CompareAndSet(client, key, expected, value) => {
            let blob = |text: &String| Blob::from(text.as_bytes());
            let (key, expect, set) = (blob(key), Some(blob(expected)), Some(blob(value)));
            let operation = Operation::CompareAndSet { key, expect, set };
            return Ok(Some(cluster.client(usize::from(*client)).run(&operation)));
        }
        _ => {}
    }
    Ok(None)
}

fn rot_record(cluster: &mut Cluster, replica: u8, place: u64) {
    let log = &mut cluster.disk(usize::from(replica)).log;
    let number = log.first().value() + place % (log.count() as u64).max(1);
    log.rot_body(RecordNumber::new(number));
}

fn is_running(cluster: &Cluster, replica: u8) -> bool {
    cluster.is_running(usize::from(replica))
}

/// Mends the network and the correct replicas of `core`, all if it is empty; the other correct ones are out of reach from
/// now on.
pub(super) fn mend(cluster: &mut Cluster, core: &[usize], links: &Links) -> Result<(), Failure> {
    cluster.heal();
    set_links(cluster, links);
    for replica in 0..cluster.size() {
        if !core.is_empty() && !core.contains(&replica) && !cluster.is_attacker(replica) {
            cluster.give_up(replica);
            continue;
        }
        cluster.resume(replica);
        cluster.set_wall_error(replica, 0);
        cluster.set_disk_full(replica, false);
        cluster.disk(replica).mend();
        if cluster.is_running(replica) && cluster.disk(replica).is_stalled() {
            cluster.crash(replica);
        }
        if !cluster.is_running(replica) {
            cluster.restart(replica)?;
        }
    }
    cluster.world_mut().mend_standbys();
    cluster.declare_healed();
    Ok(())
}
