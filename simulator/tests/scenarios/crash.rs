//! Crashes and disks. (PROTOCOL §9)

use core::time::Duration;

use quorate_protocol::number::RecordNumber;
use quorate_simulator::{Cluster, Failure};

use super::{MINUTE, SECOND, expect_recovery, submit};

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
fn a_batch_that_rots_in_the_log_is_fetched_from_peers() -> Result<(), Failure> {
    for seed in 0..10 {
        let mut cluster = Cluster::new(4, seed);
        submit(&mut cluster, 6);
        cluster.run_until_converged(MINUTE)?;
        cluster.crash(1);
        let log = &mut cluster.disk(1).log;
        let (first, end) = (log.first(), log.end());
        let rotten = (first.value()..end.value()).filter(|number| log.rot_body(RecordNumber::new(*number))).count();
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
