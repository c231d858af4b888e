//! Networks that are cut: the side with a quorum goes on, the other does nothing wrong, and what was cut off catches up.
//! (PROTOCOL §5, §6, §9)

use std::time::{Duration, Instant};

use quorate_tests::{Builder, Cluster, LIMIT, Load, Passage, say, wait_until};

/// Longest silence when the primary is cut off. See `crash.rs`.
const GAP_MAX: Duration = Duration::from_secs(5);

/// Longest that a replica may take to catch up.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_primary_that_is_cut_off_is_replaced_and_joins_again_when_it_is_back() {
    let cluster = Cluster::builder(4).relayed().start();
    let load = Load::start(&cluster, 3);
    load.wait_for(50);
    let primary = cluster.status().primary();
    let moment = Instant::now();
    cluster.cut_off(primary);
    load.wait_for(100);
    let gap = load.longest_gap_since(moment);
    say(&format!("the primary, {primary}, was cut off: {} ms of silence", gap.as_millis()));
    assert!(gap < GAP_MAX, "{gap:?}");
    assert_ne!(cluster.status().primary(), primary);
    cluster.heal();
    load.wait_for(100);
    cluster.assert_nothing_lost(load);
}

/// Slots of a window in stories of replicas that need the state of the others. They hand out what is in the window and
/// as much again below it; a writer or two fill that within seconds.
const WINDOW: u64 = 192;

fn with_short_memory() -> Builder {
    Cluster::builder(4).parameter("checkpoint_interval", 32).parameter("window", WINDOW)
}

/// Waits until the others have executed so much that one which is absent since slot `since` needs their state.
fn wait_until_forgotten(cluster: &Cluster, since: u64) {
    wait_until("the others to forget what one missed", LIMIT, || cluster.status().executed() > since + 3 * WINDOW);
}

#[test]
fn a_replica_that_was_away_too_long_takes_the_state_of_the_others() {
    let cluster = with_short_memory().relayed().start();
    let load = Load::with_values(&cluster, 4, 512);
    load.wait_for(20);
    let status = cluster.status();
    let away = (status.primary() + 2) % 4;
    cluster.cut_off(away);
    wait_until_forgotten(&cluster, status.executed());
    assert!(!cluster.log_of(away).contains("state transfer"), "{}", cluster.log_of(away));
    cluster.heal();
    let healed = Instant::now();
    wait_until("the replica to catch up", CATCH_UP_LIMIT, || {
        let status = cluster.status();
        status.replicas[usize::from(away)].executed + 32 > status.executed()
    });
    say(&format!("caught up under load within {:.1} s", healed.elapsed().as_secs_f64()));
    assert!(cluster.log_of(away).contains("state transfer ended"), "{}", cluster.log_of(away));
    cluster.assert_nothing_lost(load);
}

#[test]
fn a_replica_that_was_down_too_long_takes_the_state_of_the_others() {
    let mut cluster = with_short_memory().start();
    let load = Load::start(&cluster, 4);
    load.wait_for(20);
    let status = cluster.status();
    let (away, other) = ((status.primary() + 3) % 4, (status.primary() + 2) % 4);
    cluster.kill(away);
    wait_until_forgotten(&cluster, status.executed());
    cluster.restart(away);
    // The one that came back is needed now: it must have what the others decided without it.
    cluster.kill(other);
    load.wait_for(50);
    wait_until("the transfer", LIMIT, || cluster.log_of(away).contains("state transfer ended"));
    cluster.restart(other);
    cluster.assert_nothing_lost(load);
}

#[test]
fn two_halves_of_four_order_nothing_and_go_on_when_they_meet_again() {
    let cluster = Cluster::builder(4).relayed().start();
    let load = Load::start(&cluster, 3);
    load.wait_for(50);
    for (one, other) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        cluster.cut(one, other);
    }
    let is_silent = || load.longest_gap_since(Instant::now().checked_sub(Duration::from_secs(3)).unwrap());
    wait_until("both halves to be silent", LIMIT, || is_silent() > Duration::from_millis(2_900));
    let (executed, acknowledged) = (cluster.status().executed(), load.acknowledged());
    assert_eq!((cluster.status().executed(), load.acknowledged()), (executed, acknowledged));
    cluster.heal();
    let waited = load.wait_for(50);
    say(&format!("the halves met again: 50 writes within {:.1} s", waited.as_secs_f64()));
    cluster.assert_nothing_lost(load);
}

#[test]
fn two_of_four_that_are_down_stop_progress_and_one_that_is_back_resumes_it() {
    let mut cluster = Cluster::start(4);
    let load = Load::start(&cluster, 3);
    load.wait_for(50);
    cluster.kill(1);
    cluster.kill(2);
    let store = cluster.store();
    assert!(store.put("during", b"no").is_err(), "two of four are no quorum");
    let acknowledged = load.acknowledged();
    assert!(store.put("during", b"no").is_err());
    assert_eq!(load.acknowledged(), acknowledged);
    cluster.restart(1);
    let waited = load.wait_for(50);
    say(&format!("one of two came back: 50 writes within {:.1} s", waited.as_secs_f64()));
    cluster.restart(2);
    cluster.assert_nothing_lost(load);
}

#[test]
fn a_link_that_carries_one_way_only_stops_nobody() {
    let cluster = Cluster::builder(4).relayed().start();
    let load = Load::start(&cluster, 3);
    load.wait_for(50);
    let primary = cluster.status().primary();
    let (backup, other) = ((primary + 1) % 4, (primary + 2) % 4);
    // The primary is heard by all but one; that one hears all but the primary.
    cluster.pass(primary, backup, Passage::Cut);
    load.wait_for(100);
    cluster.pass(other, primary, Passage::Cut);
    load.wait_for(100);
    cluster.heal();
    cluster.assert_nothing_lost(load);
}

#[test]
fn a_network_that_is_slow_and_loses_datagrams_is_only_slow() {
    let cluster = Cluster::builder(4).relayed().start();
    for from in cluster.ids() {
        for to in cluster.ids().filter(|to| *to != from) {
            let passage =
                if (from + to) % 2 == 0 { Passage::Lossy(5) } else { Passage::Slow(Duration::from_millis(5)) };
            cluster.pass(from, to, passage);
        }
    }
    let load = Load::start(&cluster, 4);
    let waited = load.wait_for(200);
    say(&format!("200 writes within {:.1} s, with 5 % loss or 5 ms on each link", waited.as_secs_f64()));
    cluster.heal();
    cluster.assert_nothing_lost(load);
}
