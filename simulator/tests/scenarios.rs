//! Clusters of real replicas in trouble, by name. (PROTOCOL §4 to §9)

use core::time::Duration;

use quorate_protocol::message::Message;
use quorate_simulator::ledger::Ledger;
use quorate_simulator::network::LinkOptions;
use quorate_simulator::random::{Chance, Delay};
use quorate_simulator::signature::Scheme;
use quorate_simulator::{Cluster, Failure, Ticket};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

/// Calls for `count` operations, from all clients in turn.
fn submit(cluster: &mut Cluster, count: usize) -> Vec<Ticket> {
    (0..count)
        .map(|index| cluster.client(index % 4).put(&format!("key {}", index % 7), &format!("value {index}")))
        .collect()
}

/// Everything is answered, everyone has executed the same, and nobody left view `view`.
fn expect_calm(cluster: &mut Cluster, view: u64) -> Result<(), Failure> {
    cluster.run_until_converged(MINUTE)?;
    for replica in 0..cluster.size() {
        assert_eq!(cluster.view(replica), view, "{:?}", cluster.standing(replica));
    }
    cluster.assert_converged()
}

/// From here on nothing may go wrong any more: all is answered, and all replicas reach the tip.
fn expect_recovery(cluster: &mut Cluster) -> Result<(), Failure> {
    cluster.heal();
    cluster.declare_healed();
    cluster.run_until_converged(MINUTE)?;
    let more = submit(cluster, 40);
    cluster.run_until_converged(MINUTE)?;
    assert!(more.iter().all(|ticket| cluster.results_of(*ticket).is_some()));
    cluster.assert_converged()
}

#[test]
fn without_trouble_everything_executes_in_the_first_view() -> Result<(), Failure> {
    for size in [4, 7] {
        let mut cluster = Cluster::new(size, 1);
        let tickets = submit(&mut cluster, 200);
        expect_calm(&mut cluster, 0)?;
        assert!(tickets.iter().all(|ticket| cluster.results_of(*ticket).is_some()));
        cluster.run_for(10 * SECOND)?;
        expect_calm(&mut cluster, 0)?;
    }
    Ok(())
}

#[test]
fn real_signatures_do_as_well() -> Result<(), Failure> {
    let mut cluster = Cluster::builder(4, 1).scheme(Scheme::Ed25519).build();
    submit(&mut cluster, 40);
    expect_calm(&mut cluster, 0)
}

#[test]
fn an_idle_cluster_stays_in_its_view() -> Result<(), Failure> {
    let mut cluster = Cluster::new(4, 2);
    cluster.run_for(5 * MINUTE)?;
    expect_calm(&mut cluster, 0)
}

#[test]
fn checkpoints_become_stable_and_the_log_is_cut() -> Result<(), Failure> {
    let mut cluster = Cluster::new(4, 3);
    for _ in 0..20 {
        submit(&mut cluster, 20);
        cluster.run_until_converged(MINUTE)?;
    }
    cluster.run_for(SECOND)?;
    for replica in 0..4 {
        let executed = cluster.executed(replica);
        assert!(executed >= 20, "{executed}");
        assert_eq!(cluster.stable(replica), executed - executed % 8);
        assert!(cluster.disk(replica).log.count() < 200, "{}", cluster.disk(replica).log.count());
    }
    Ok(())
}

#[test]
fn a_read_gets_what_was_put_before() -> Result<(), Failure> {
    let mut cluster = Cluster::new(4, 4);
    cluster.client(0).put("a", "1");
    cluster.run_until_answered(MINUTE)?;
    let ticket = cluster.client(1).get("a");
    cluster.run_until_answered(MINUTE)?;
    assert_eq!(cluster.value_of(ticket), Some(b"1".to_vec()));
    Ok(())
}

#[test]
fn several_operations_of_one_call_run_together() -> Result<(), Failure> {
    let mut cluster = Cluster::builder(4, 4).application(Ledger::boxed).build();
    let ticket = cluster.client(0).submit_all(&[b"a", b"a", b"b"]);
    cluster.run_until_answered(MINUTE)?;
    let counts: Vec<u8> = cluster.results_of(ticket).expect("answered").iter().map(|result| result[0]).collect();
    assert_eq!(counts, [1, 2, 1]);
    Ok(())
}

#[test]
fn a_crashed_primary_is_replaced() -> Result<(), Failure> {
    let mut cluster = Cluster::new(4, 5);
    submit(&mut cluster, 20);
    cluster.run_until_answered(MINUTE)?;
    cluster.crash(0);
    let before = cluster.time();
    submit(&mut cluster, 20);
    cluster.run_until_answered(MINUTE)?;
    let took = cluster.time().since(before);
    assert!(took < 5 * SECOND, "{took:?}");
    assert!(cluster.highest_view().value() >= 1);
    cluster.restart(0)?;
    expect_recovery(&mut cluster)
}

#[test]
fn a_primary_that_crashes_with_work_under_way_loses_none_of_it() -> Result<(), Failure> {
    for seed in 0..20 {
        let mut cluster = Cluster::new(4, seed);
        submit(&mut cluster, 100);
        cluster.run_for(Duration::from_micros(500 * seed + 1_000))?;
        cluster.crash(0);
        cluster.run_until_answered(MINUTE)?;
        cluster.restart(0)?;
        expect_recovery(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn two_crashed_primaries_in_a_row_are_replaced() -> Result<(), Failure> {
    let mut cluster = Cluster::new(7, 6);
    submit(&mut cluster, 20);
    cluster.run_for(Duration::from_millis(3))?;
    cluster.crash(0);
    cluster.crash(1);
    cluster.run_until_answered(MINUTE)?;
    assert!(cluster.highest_view().value() >= 2);
    cluster.restart_all()?;
    expect_recovery(&mut cluster)
}

#[test]
fn each_replica_may_crash_and_come_back() -> Result<(), Failure> {
    for replica in 0..4 {
        let mut cluster = Cluster::new(4, 7);
        submit(&mut cluster, 60);
        cluster.run_for(Duration::from_millis(5))?;
        cluster.crash(replica);
        cluster.run_for(SECOND)?;
        cluster.restart(replica)?;
        expect_recovery(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn a_replica_that_crashes_again_and_again_does_no_harm() -> Result<(), Failure> {
    for seed in 0..10 {
        let mut cluster = Cluster::new(4, seed as u64);
        for round in 0..20 {
            submit(&mut cluster, 8);
            cluster.run_for(Duration::from_millis(7 * seed as u64 + 3))?;
            let replica = (round + seed) % 4;
            cluster.crash(replica);
            cluster.restart(replica)?;
        }
        expect_recovery(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn all_replicas_may_crash_at_once() -> Result<(), Failure> {
    for seed in 0..20 {
        let mut cluster = Cluster::new(4, seed);
        submit(&mut cluster, 100);
        cluster.run_for(Duration::from_micros(700 * seed + 500))?;
        cluster.crash_all();
        cluster.restart_all()?;
        expect_recovery(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn all_replicas_may_crash_in_the_middle_of_a_view_change() -> Result<(), Failure> {
    for seed in 0..20 {
        let mut cluster = Cluster::new(4, seed);
        submit(&mut cluster, 40);
        cluster.run_for(Duration::from_millis(4))?;
        cluster.crash(0);
        cluster.run_for(Duration::from_millis(300 + 10 * seed))?;
        cluster.crash_all();
        cluster.restart_all()?;
        expect_recovery(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn the_side_of_a_partition_with_a_quorum_goes_on() -> Result<(), Failure> {
    let mut cluster = Cluster::new(4, 8);
    submit(&mut cluster, 10);
    cluster.run_until_answered(MINUTE)?;
    cluster.partition(&[&[0], &[1, 2, 3]]);
    submit(&mut cluster, 40);
    cluster.run_until_answered(MINUTE)?;
    expect_recovery(&mut cluster)
}

#[test]
fn no_side_of_a_partition_without_a_quorum_goes_on_and_after_it_all_do() -> Result<(), Failure> {
    let mut cluster = Cluster::new(4, 9);
    submit(&mut cluster, 10);
    cluster.run_until_converged(MINUTE)?;
    let executed = cluster.executed(0);
    cluster.partition(&[&[0, 1], &[2, 3]]);
    let tickets = submit(&mut cluster, 40);
    cluster.run_for(30 * SECOND)?;
    assert!(tickets.iter().all(|ticket| cluster.answer_to(*ticket).is_none()));
    assert!((0..4).all(|replica| cluster.executed(replica) <= executed + 8));
    expect_recovery(&mut cluster)
}

#[test]
fn a_partition_of_an_hour_is_over_within_seconds_of_its_end() -> Result<(), Failure> {
    let mut cluster = Cluster::new(4, 10);
    submit(&mut cluster, 10);
    cluster.run_until_converged(MINUTE)?;
    cluster.partition(&[]);
    submit(&mut cluster, 10);
    cluster.run_for(60 * MINUTE)?;
    cluster.heal();
    cluster.run_until_converged(20 * SECOND)?;
    expect_recovery(&mut cluster)
}

#[test]
fn a_primary_that_hears_nobody_but_is_heard_is_replaced() -> Result<(), Failure> {
    let mut cluster = Cluster::new(4, 11);
    submit(&mut cluster, 10);
    cluster.run_until_answered(MINUTE)?;
    (1..4).for_each(|replica| cluster.cut_link(replica, 0));
    submit(&mut cluster, 20);
    cluster.run_until_answered(MINUTE)?;
    expect_recovery(&mut cluster)
}

#[test]
fn a_primary_that_is_not_heard_but_hears_is_replaced() -> Result<(), Failure> {
    let mut cluster = Cluster::new(4, 12);
    submit(&mut cluster, 10);
    cluster.run_until_answered(MINUTE)?;
    (1..4).for_each(|replica| cluster.cut_link(0, replica));
    submit(&mut cluster, 20);
    cluster.run_until_answered(MINUTE)?;
    expect_recovery(&mut cluster)
}

#[test]
fn a_replica_that_lags_a_little_catches_up_by_decided_slots() -> Result<(), Failure> {
    let mut cluster = Cluster::new(4, 13);
    cluster.isolate(3);
    let tickets = submit(&mut cluster, 5);
    cluster.run_until_answered(MINUTE)?;
    assert!(tickets.len() == 5 && cluster.stable(0) == 0, "within the first interval");
    cluster.heal();
    cluster.run_until_converged(10 * SECOND)?;
    assert_eq!(cluster.counts().transfers, 0);
    expect_recovery(&mut cluster)
}

#[test]
fn a_replica_that_lags_far_catches_up_by_state_transfer() -> Result<(), Failure> {
    let mut cluster = Cluster::new(4, 14);
    cluster.isolate(3);
    for _ in 0..60 {
        submit(&mut cluster, 4);
        cluster.run_until_answered(MINUTE)?;
    }
    assert!(cluster.stable(0) > 40);
    cluster.heal();
    cluster.run_until_converged(10 * SECOND)?;
    assert!(cluster.counts().transfers >= 1);
    expect_recovery(&mut cluster)
}

#[test]
fn a_replica_that_lags_is_brought_up_though_the_others_have_restarted_beyond_the_stable_state() -> Result<(), Failure> {
    let mut cluster = Cluster::new(4, 23);
    cluster.crash(3);
    while (0..3).any(|replica| cluster.stable(replica) == 0) {
        submit(&mut cluster, 1);
        cluster.run_until_converged(MINUTE)?;
        cluster.run_for(Duration::from_millis(20))?;
    }
    // Replica 2 is faulty from now on: its votes for checkpoints are wrong, and nobody can tell yet.
    cluster.rot_state(2);
    for _ in 0..10 {
        submit(&mut cluster, 1);
        cluster.run_until_converged(MINUTE)?;
    }
    cluster.run_for(SECOND)?;
    assert_eq!((cluster.stable(0), cluster.stable(1)), (8, 8));
    cluster.crash_all();
    cluster.restart_all()?;
    for _ in 0..40 {
        submit(&mut cluster, 1);
        cluster.run_until_answered(MINUTE)?;
    }
    Ok(())
}

#[test]
fn a_state_transfer_survives_crashes_of_both_sides() -> Result<(), Failure> {
    for seed in 0..20_u8 {
        let mut cluster = Cluster::builder(4, seed.into()).options(|options| options.part_entries_max = 2).build();
        cluster.isolate(3);
        for _ in 0..60 {
            submit(&mut cluster, 4);
            cluster.run_until_answered(MINUTE)?;
        }
        cluster.heal();
        cluster.run_for(Duration::from_millis(5 * u64::from(seed)))?;
        cluster.crash(3);
        cluster.restart(3)?;
        cluster.run_for(Duration::from_millis(40 + 5 * u64::from(seed)))?;
        let source = usize::from(seed % 3);
        cluster.crash(source);
        cluster.restart(source)?;
        expect_recovery(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn a_replica_whose_state_rots_finds_out_and_mends_it() -> Result<(), Failure> {
    let mut cluster = Cluster::new(4, 15);
    submit(&mut cluster, 20);
    cluster.run_until_converged(MINUTE)?;
    cluster.rot_state(2);
    for _ in 0..20 {
        submit(&mut cluster, 4);
        cluster.run_until_answered(MINUTE)?;
    }
    cluster.run_until(|cluster| cluster.counts().transfers > 0, MINUTE)?;
    expect_recovery(&mut cluster)
}

fn lossy(percent: u32) -> LinkOptions {
    LinkOptions { loss: Chance::percent(percent), ..LinkOptions::default() }
}

#[test]
fn lost_messages_are_made_good() -> Result<(), Failure> {
    for percent in [5, 10, 20, 30] {
        for seed in 0..5 {
            let mut cluster = Cluster::new(4, seed);
            cluster.set_links(lossy(percent));
            for _ in 0..10 {
                submit(&mut cluster, 10);
                cluster.run_until_converged(MINUTE)?;
            }
            cluster.set_links(LinkOptions::default());
            expect_recovery(&mut cluster)?;
        }
    }
    Ok(())
}

#[test]
fn duplicates_and_stragglers_do_no_harm() -> Result<(), Failure> {
    for seed in 0..10 {
        let mut cluster = Cluster::new(4, seed);
        let links = LinkOptions {
            duplication: Chance::percent(50),
            straggling: Chance::percent(10),
            delay: Delay::microseconds(100, 3_000),
            ..LinkOptions::default()
        };
        cluster.set_links(links);
        for _ in 0..10 {
            submit(&mut cluster, 10);
            cluster.run_until_converged(MINUTE)?;
        }
        expect_recovery(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn commits_that_reach_nobody_are_made_good_in_the_next_view() -> Result<(), Failure> {
    let mut cluster = Cluster::new(4, 16);
    let filter = cluster.drop_messages(|_, _, message| matches!(message, Message::Commit(_)));
    let tickets = submit(&mut cluster, 8);
    cluster.run_for(SECOND)?;
    assert!(tickets.iter().all(|ticket| cluster.answer_to(*ticket).is_none()));
    cluster.remove_filter(filter);
    expect_recovery(&mut cluster)
}

#[test]
fn proposals_without_a_body_at_one_replica_are_fetched() -> Result<(), Failure> {
    let mut cluster = Cluster::new(4, 17);
    cluster.drop_messages(|_, to, message| to.index() == 2 && matches!(message, Message::PrePrepare(_)));
    submit(&mut cluster, 40);
    cluster.run_until_converged(MINUTE)?;
    expect_recovery(&mut cluster)
}

#[test]
fn checkpoints_that_reach_nobody_stop_the_window_and_are_made_good() -> Result<(), Failure> {
    let mut cluster = Cluster::new(4, 18);
    let filter = cluster.drop_messages(|_, _, message| matches!(message, Message::Checkpoint(_) | Message::Stable(_)));
    for _ in 0..50 {
        submit(&mut cluster, 4);
        cluster.run_for(Duration::from_millis(50))?;
    }
    assert!((0..4).all(|replica| cluster.stable(replica) == 0 && cluster.executed(replica) <= 32));
    cluster.remove_filter(filter);
    expect_recovery(&mut cluster)
}

#[test]
fn new_views_that_reach_nobody_are_asked_for() -> Result<(), Failure> {
    let mut cluster = Cluster::new(4, 19);
    submit(&mut cluster, 10);
    cluster.run_for(Duration::from_millis(3))?;
    let filter = cluster.drop_messages(|_, _, message| matches!(message, Message::NewView(_)));
    cluster.crash(0);
    cluster.run_for(10 * SECOND)?;
    cluster.remove_filter(filter);
    cluster.restart(0)?;
    expect_recovery(&mut cluster)
}

#[test]
fn a_primary_that_was_stopped_for_a_while_is_replaced_and_follows() -> Result<(), Failure> {
    let mut cluster = Cluster::new(4, 20);
    submit(&mut cluster, 20);
    cluster.run_for(Duration::from_millis(3))?;
    cluster.pause(0);
    cluster.run_until_answered(MINUTE)?;
    cluster.resume(0);
    expect_recovery(&mut cluster)
}

#[test]
fn a_batch_that_rots_in_the_log_is_fetched_from_peers() -> Result<(), Failure> {
    for seed in 0..10 {
        let mut cluster = Cluster::new(4, seed);
        submit(&mut cluster, 6);
        cluster.run_until_converged(MINUTE)?;
        cluster.crash(1);
        let log = &mut cluster.disk(1).log;
        let (first, end) = (log.first(), log.end());
        let rotten = (first.value()..end.value())
            .filter(|number| log.rot_body(quorate_protocol::number::RecordNumber::new(*number)))
            .count();
        assert!(rotten > 0);
        cluster.restart(1)?;
        expect_recovery(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn a_disk_that_stalls_stops_its_replica_and_nobody_else() -> Result<(), Failure> {
    for replica in [0, 2] {
        let mut cluster = Cluster::new(4, 21);
        submit(&mut cluster, 10);
        cluster.run_until_answered(MINUTE)?;
        cluster.disk(replica).stall();
        submit(&mut cluster, 20);
        cluster.run_until_answered(MINUTE)?;
        cluster.crash(replica);
        cluster.restart(replica)?;
        expect_recovery(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn a_cluster_of_seven_survives_two_silent_replicas() -> Result<(), Failure> {
    let mut cluster = Cluster::new(7, 22);
    cluster.isolate(5);
    cluster.isolate(6);
    submit(&mut cluster, 100);
    cluster.run_until_answered(MINUTE)?;
    expect_recovery(&mut cluster)
}
