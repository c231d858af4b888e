//! Clusters of real replicas in trouble, by name. (PROTOCOL §4 to §9)

mod crash;
mod network;
mod ordering;
mod standby;
mod transfer;
mod view_change;

use core::time::Duration;

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
