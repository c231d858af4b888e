//! Partitions, losses, duplicates, silence. (PROTOCOL §1, §9)

use quorate_protocol::message::Message;
use quorate_simulator::network::LinkOptions;
use quorate_simulator::random::{Chance, Delay};
use quorate_simulator::{Cluster, Failure};

use super::{MINUTE, SECOND, expect_recovery, submit};

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
fn proposals_without_a_body_at_one_replica_are_fetched() -> Result<(), Failure> {
    let mut cluster = Cluster::new(4, 17);
    cluster.drop_messages(|_, to, message| to.index() == 2 && matches!(message, Message::PrePrepare(_)));
    submit(&mut cluster, 40);
    cluster.run_until_converged(MINUTE)?;
    expect_recovery(&mut cluster)
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
