//! Replicas that fall behind, or whose state rots. (PROTOCOL §5, §9)

use core::time::Duration;

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
