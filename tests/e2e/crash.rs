//! Replicas that are killed: nothing acknowledged is lost, and the others go on. (PROTOCOL §6, §7, §9)

use std::time::{Duration, Instant};

use quorate_tests::{Cluster, LIMIT, Load, say, wait_until};

/// Longest silence that clients may see when a primary is killed, on a machine that does much else: the bound that
/// makes a replica suspect its primary, and some.
const GAP_MAX: Duration = Duration::from_secs(5);

/// How often a replica is killed and started again.
const KILLS: u8 = 20;

#[test]
fn the_load_goes_on_when_the_primary_of_four_is_killed() {
    the_load_goes_on_when_primaries_are_killed(4, 1);
}

#[test]
fn the_load_goes_on_when_two_primaries_of_seven_are_killed() {
    the_load_goes_on_when_primaries_are_killed(7, 2);
}

/// Kills as many primaries as may be faulty, one after the other.
fn the_load_goes_on_when_primaries_are_killed(replicas: u8, kills: usize) {
    let mut cluster = Cluster::start(replicas);
    let load = Load::start(&cluster, 3);
    load.wait_for(100);
    let mut killed = Vec::new();
    for _ in 0..kills {
        let primary = cluster.status().primary();
        let moment = Instant::now();
        cluster.kill(primary);
        killed.push(primary);
        load.wait_for(100);
        let gap = load.longest_gap_since(moment);
        say(&format!("the primary of {replicas} replicas, {primary}, was killed: {} ms of silence", gap.as_millis()));
        assert!(gap < GAP_MAX, "{gap:?}");
    }
    for id in killed {
        cluster.restart(id);
    }
    cluster.assert_nothing_lost(load);
}

#[test]
fn any_of_four_replicas_may_be_killed_again_and_again() {
    any_replica_may_be_killed_again_and_again(4);
}

#[test]
fn any_of_seven_replicas_may_be_killed_again_and_again() {
    any_replica_may_be_killed_again_and_again(7);
}

fn any_replica_may_be_killed_again_and_again(replicas: u8) {
    let mut cluster = Cluster::start(replicas);
    let load = Load::start(&cluster, 3);
    let start = Instant::now();
    for kill in 0..KILLS {
        // Each in its turn, in no order that the views follow, too.
        let id = (3 * kill + kill / replicas) % replicas;
        cluster.kill(id);
        load.wait_for(5);
        cluster.restart(id);
        load.wait_for(5);
    }
    say(&format!("{KILLS} kills of {replicas} replicas in {:.1} s under load", start.elapsed().as_secs_f64()));
    cluster.assert_nothing_lost(load);
}

#[test]
fn nothing_acknowledged_is_lost_when_all_four_are_killed_at_once() {
    nothing_acknowledged_is_lost_when_all_are_killed_at_once(4, 3);
}

#[test]
fn nothing_acknowledged_is_lost_when_all_seven_are_killed_at_once() {
    nothing_acknowledged_is_lost_when_all_are_killed_at_once(7, 2);
}

fn nothing_acknowledged_is_lost_when_all_are_killed_at_once(replicas: u8, rounds: usize) {
    let mut cluster = Cluster::start(replicas);
    for round in 0..rounds {
        let load = Load::start(&cluster, 4);
        load.wait_for(150);
        // All are gone before the first comes back.
        for id in cluster.ids() {
            cluster.kill(id);
        }
        let acknowledged = load.acknowledged();
        cluster.start_all();
        cluster.assert_nothing_lost(load);
        say(&format!("round {round}: all {replicas} killed at once, {acknowledged} acknowledged writes are there"));
    }
}

#[test]
fn a_replica_that_was_stopped_in_order_comes_back_where_it_was() {
    let mut cluster = Cluster::start(4);
    let load = Load::start(&cluster, 2);
    load.wait_for(50);
    for id in cluster.ids() {
        cluster.stop(id);
        load.wait_for(10);
        cluster.restart(id);
    }
    let written = load.stop();
    cluster.stop_all();
    cluster.start_all();
    cluster.assert_converged();
    assert_eq!(written.unknown(), []);
    written.assert_all_acknowledged_readable();
}

#[test]
fn a_primary_that_is_frozen_and_wakes_up_later_does_no_harm() {
    let mut cluster = Cluster::start(4);
    let load = Load::start(&cluster, 3);
    load.wait_for(50);
    for _ in 0..2 {
        let primary = cluster.status().primary();
        cluster.pause(primary);
        load.wait_for(100);
        cluster.resume(primary);
        load.wait_for(50);
    }
    cluster.assert_nothing_lost(load);
}

#[test]
fn the_turn_of_a_primary_that_was_given_up_is_passed_over() {
    let mut cluster = Cluster::start(4);
    let load = Load::start(&cluster, 3);
    load.wait_for(50);
    // One primary after the other is given up, and each is back when the next one is.
    for primary in cluster.ids() {
        wait_until("its turn", LIMIT, || cluster.status().primary() == primary);
        cluster.pause(primary);
        load.wait_for(50);
        cluster.resume(primary);
        wait_until("all to meet", LIMIT, || {
            let views = cluster.status().replicas;
            views.iter().all(|row| row.view == views[0].view && row.mode == "normal")
        });
    }
    // View 4 was the turn of the one that was given up first.
    let (view, primary) = (cluster.status().view(), cluster.status().primary());
    assert_eq!((view, primary), (5, 1), "{}", cluster.status());
    let passed = "its turn is passed over: it was given up lately replica=0";
    assert!([1, 2].iter().any(|id| cluster.log_of(*id).contains(passed)), "{}", cluster.log_of(1));
    cluster.assert_nothing_lost(load);
}
