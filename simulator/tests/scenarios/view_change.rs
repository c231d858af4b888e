//! Primaries that fail, and what the next view makes of it. (PROTOCOL §6, §7)

use core::time::Duration;

use quorate_protocol::message::Message;
use quorate_protocol::number::View;
use quorate_simulator::{Cluster, Failure};

use super::{MINUTE, SECOND, expect_calm, expect_recovery, submit};

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

/// One that cannot hear the primary suspects it, alone, says so, and goes on voting: nobody moves, and nobody is lost.
#[test]
fn a_replica_that_is_cut_off_from_the_primary_alone_moves_nobody_and_keeps_up() -> Result<(), Failure> {
    let mut cluster = Cluster::new(4, 13);
    submit(&mut cluster, 10);
    cluster.run_until_answered(MINUTE)?;
    cluster.cut_link(0, 2);
    cluster.cut_link(2, 0);
    for _ in 0..20 {
        submit(&mut cluster, 5);
        cluster.run_for(SECOND)?;
    }
    cluster.run_until_answered(MINUTE)?;
    assert!(cluster.standing(2).is_some_and(|standing| standing.is_in_view));
    cluster.heal();
    cluster.run_for(SECOND)?;
    // Its vote is needed from here on.
    cluster.isolate(3);
    submit(&mut cluster, 20);
    cluster.run_until_answered(MINUTE)?;
    cluster.rejoin(3);
    expect_calm(&mut cluster, 0)
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
fn of_two_batches_prepared_for_a_slot_the_one_of_the_later_view_is_proposed_again() -> Result<(), Failure> {
    let mut cluster = Cluster::new(4, 24);
    cluster.run_for(SECOND)?;
    let executed = cluster.executed(1);
    // In view 0 only replica 3 learns that the batch is prepared.
    cluster.drop_messages(|_, to, message| match message {
        Message::Prepare(vote) => vote.statement.view == View::ZERO && to.index() != 3,
        Message::Commit(vote) => vote.statement.view == View::ZERO,
        _ => false,
    });
    cluster.client(0).put("a", "1");
    cluster.run_for(Duration::from_millis(20))?;
    // In view 1 another batch is decided in its place, and only replica 1 learns of it.
    cluster.isolate(3);
    cluster.drop_messages(|_, to, message| match message {
        Message::Commit(vote) => vote.statement.view == View::new(1) && to.index() != 1,
        Message::Decided(_) => true,
        _ => false,
    });
    cluster.run_until(|cluster| cluster.executed(1) > executed, MINUTE)?;
    assert!([0, 2, 3].iter().all(|replica| cluster.executed(*replica) == executed));
    // The others go on without it, on both certificates.
    cluster.isolate(1);
    cluster.rejoin(3);
    cluster.run_until(|cluster| [0, 2, 3].iter().all(|replica| cluster.executed(*replica) > executed), MINUTE)?;
    assert!(cluster.highest_view() >= View::new(2));
    expect_recovery(&mut cluster)
}

/// Replica 0 is faulty: alone it holds a prepared certificate, shows it when it is too late, and hands out no batch.
#[test]
fn a_batch_that_a_late_certificate_names_is_had_from_those_who_voted_for_it_many_views_ago() -> Result<(), Failure> {
    let mut cluster = Cluster::new(4, 25);
    cluster.run_for(SECOND)?;
    let executed = cluster.executed(1);
    cluster.drop_messages(|from, _, message| from.index() == 0 && matches!(message, Message::Batch(_)));
    // In each view another batch is voted for, and nobody else learns of the votes.
    let filter = cluster.drop_messages(|_, to, message| match message {
        Message::Prepare(_) => to.index() != 0,
        Message::Commit(_) => true,
        _ => false,
    });
    cluster.client(0).put("a", "1");
    cluster.run_for(Duration::from_millis(20))?;
    cluster.isolate(0);
    cluster.run_until(|cluster| (1..4).all(|replica| cluster.view(replica) == 8), 5 * MINUTE)?;
    // View 8 rests on the certificate.
    cluster.remove_filter(filter);
    cluster.isolate(3);
    cluster.rejoin(0);
    cluster.run_until(|cluster| [1, 2].iter().all(|replica| cluster.executed(*replica) > executed), MINUTE)?;
    expect_recovery(&mut cluster)
}
