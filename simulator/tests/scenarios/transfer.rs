//! Replicas that fall behind, or whose state rots. (PROTOCOL §5, §9)

use core::cell::Cell;
use core::time::Duration;
use std::rc::Rc;

use quorate_protocol::message::Message;
use quorate_simulator::{Cluster, Failure};

use super::{MINUTE, SECOND, expect_recovery, submit};

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

/// Slot 8 is stable at replicas 0 to 2, which hand out no slot below, and no later one can be without replica 3, which is
/// down: the state of replica 2 rots, so that its votes for checkpoints are wrong, and nobody can tell yet.
fn wait_for_replica_3(cluster: &mut Cluster) -> Result<(), Failure> {
    cluster.crash(3);
    while (0..3).any(|replica| cluster.stable(replica) == 0) {
        submit(cluster, 1);
        cluster.run_until_converged(MINUTE)?;
        cluster.run_for(Duration::from_millis(20))?;
    }
    restart_in_turn(cluster)?;
    cluster.rot_state(2);
    for _ in 0..10 {
        submit(cluster, 1);
        cluster.run_until_converged(MINUTE)?;
    }
    cluster.run_for(SECOND)?;
    assert_eq!((cluster.stable(0), cluster.stable(1)), (8, 8));
    Ok(())
}

fn restart_in_turn(cluster: &mut Cluster) -> Result<(), Failure> {
    (0..3).try_for_each(|replica| {
        cluster.crash(replica);
        cluster.restart(replica)
    })
}

#[test]
fn a_replica_that_lags_is_brought_up_though_the_others_have_restarted_beyond_the_stable_state() -> Result<(), Failure> {
    let mut cluster = Cluster::new(4, 23);
    wait_for_replica_3(&mut cluster)?;
    cluster.crash_all();
    cluster.restart_all()?;
    for _ in 0..40 {
        submit(&mut cluster, 1);
        cluster.run_until_answered(MINUTE)?;
    }
    Ok(())
}

#[test]
fn a_state_transfer_survives_that_all_sources_restart_beyond_the_state_it_began_with() -> Result<(), Failure> {
    let mut cluster = Cluster::builder(4, 23).options(|options| options.part_entries_max = 1).build();
    wait_for_replica_3(&mut cluster)?;
    let parts = Rc::new(Cell::new(0));
    let seen = Rc::clone(&parts);
    let filter = cluster.drop_messages(move |_, _, message| {
        let is_part = matches!(message, Message::Part(_));
        seen.set(seen.get() + u32::from(is_part));
        is_part && seen.get() > 1
    });
    cluster.restart(3)?;
    cluster.run_until(|_| parts.get() > 1, MINUTE)?;
    restart_in_turn(&mut cluster)?;
    cluster.remove_filter(filter);
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

#[test]
fn a_replica_that_lost_what_the_cluster_began_with_has_it_from_the_others() -> Result<(), Failure> {
    let mut cluster = Cluster::builder(4, 5).options(|options| options.founded = 40).build();
    let ticket = cluster.client(0).get("founded/7");
    cluster.run_until_answered(MINUTE)?;
    assert_eq!(cluster.value_of(ticket), Some(b"with 7".to_vec()));
    cluster.crash(3);
    cluster.disk(3).lose();
    cluster.restart(3)?;
    submit(&mut cluster, 60);
    cluster.run_until_converged(MINUTE)?;
    assert!(cluster.took_over_state(3), "nothing executes on nothing");
    cluster.assert_converged()
}
