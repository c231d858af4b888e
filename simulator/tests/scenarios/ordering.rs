//! The normal case: nothing goes wrong. (PROTOCOL §4, §5)

use quorate_simulator::ledger::Ledger;
use quorate_simulator::signature::Scheme;
use quorate_simulator::{Cluster, Failure};

use super::{MINUTE, SECOND, expect_calm, submit};

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
    let mut cluster = Cluster::builder(4, 4).application(Ledger::replicated).build();
    let ticket = cluster.client(0).submit_all(&[b"a", b"a", b"b"]);
    cluster.run_until_answered(MINUTE)?;
    let counts: Vec<u8> = cluster.results_of(ticket).expect("answered").iter().map(|result| result[0]).collect();
    assert_eq!(counts, [1, 2, 1]);
    Ok(())
}
