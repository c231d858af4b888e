//! Networks that are cut: the side with a quorum goes on, the other does nothing wrong, and what was cut off catches up.
//! (PROTOCOL §5, §6, §9)

use std::time::{Duration, Instant};

use quorate_tests::{Builder, Cluster, LIMIT, Load, Passage, say, wait_until};

/// Longest silence when the primary is cut off. See `crash.rs`.
const GAP_MAX: Duration = Duration::from_secs(5);

/// Longest that a replica may take to catch up.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_primary_of_four_that_is_cut_off_is_replaced_and_joins_again_when_it_is_back() {
    a_primary_that_is_cut_off_is_replaced_and_joins_again_when_it_is_back(4);
}

#[test]
fn a_primary_of_seven_that_is_cut_off_is_replaced_and_joins_again_when_it_is_back() {
    a_primary_that_is_cut_off_is_replaced_and_joins_again_when_it_is_back(7);
}

fn a_primary_that_is_cut_off_is_replaced_and_joins_again_when_it_is_back(replicas: u8) {
    let cluster = Cluster::builder(replicas).relayed().start();
    let load = Load::start(&cluster, 3);
    load.wait_for(50);
    let primary = cluster.status().primary();
    let moment = Instant::now();
    cluster.cut_off(primary);
    load.wait_for(100);
    let gap = load.longest_gap_since(moment);
    say(&format!("the primary of {replicas} replicas, {primary}, was cut off: {} ms of silence", gap.as_millis()));
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

/// Sees that nothing new is ordered: a write that begins now gets no answer. What each client of the load had under way
/// may have been decided just before, and may still be answered, however late; nothing else may.
fn assert_orders_nothing(cluster: &Cluster, load: &Load) {
    let acknowledged = load.acknowledged();
    let refused = cluster.kv(&["put", "during", "no", "--timeout", "2s"]);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    let more = load.acknowledged() - acknowledged;
    assert!(more <= load.clients(), "{more} writes were acknowledged of {} under way", load.clients());
}

#[test]
fn two_and_two_of_four_order_nothing_and_go_on_when_they_meet_again() {
    two_sides_order_nothing_and_go_on_when_they_meet_again(4, 2);
}

/// More than a majority is no quorum, with seven.
#[test]
fn four_and_three_of_seven_order_nothing_and_go_on_when_they_meet_again() {
    two_sides_order_nothing_and_go_on_when_they_meet_again(7, 4);
}

/// The first `on_one_side` of so many replicas are cut from the rest. The primary is among them.
fn two_sides_order_nothing_and_go_on_when_they_meet_again(replicas: u8, on_one_side: u8) {
    let cluster = Cluster::builder(replicas).relayed().start();
    let load = Load::start(&cluster, 3);
    load.wait_for(50);
    for one in 0..on_one_side {
        (on_one_side..replicas).for_each(|other| cluster.cut(one, other));
    }
    let executed = cluster.status().executed();
    assert_orders_nothing(&cluster, &load);
    // A slot that was decided just before holds something that a client had under way.
    let status = cluster.status();
    assert!(status.executed() <= executed + load.clients(), "{executed} slots were executed, and then:\n{status}");
    cluster.heal();
    let waited = load.wait_for(50);
    say(&format!("{replicas} replicas met again: 50 writes within {:.1} s", waited.as_secs_f64()));
    cluster.assert_nothing_lost(load);
}

#[test]
fn two_of_four_that_are_down_stop_progress_and_one_that_is_back_resumes_it() {
    too_many_that_are_down_stop_progress_and_one_that_is_back_resumes_it(4, 2);
}

#[test]
fn three_of_seven_that_are_down_stop_progress_and_one_that_is_back_resumes_it() {
    too_many_that_are_down_stop_progress_and_one_that_is_back_resumes_it(7, 3);
}

/// `down` is one more than may be faulty. The first primary is not among them: too small a quorum would go on at once.
fn too_many_that_are_down_stop_progress_and_one_that_is_back_resumes_it(replicas: u8, down: u8) {
    let mut cluster = Cluster::start(replicas);
    let load = Load::start(&cluster, 3);
    load.wait_for(50);
    let first = replicas - down;
    (first..replicas).for_each(|id| cluster.kill(id));
    assert_orders_nothing(&cluster, &load);
    cluster.restart(first);
    let waited = load.wait_for(50);
    say(&format!("one of {down} came back: 50 writes within {:.1} s", waited.as_secs_f64()));
    (first + 1..replicas).for_each(|id| cluster.restart(id));
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
