//! Clusters with f attackers among them: every attack bites, and none does harm. (PROTOCOL §1, §2)

mod collusion;
mod forensics;
mod page;
mod safety;
mod service;

use core::time::Duration;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use quorate_protocol::message::Message;
use quorate_protocol::number::ReplicaId;
use quorate_simulator::statement::{Subject, in_message};
use quorate_simulator::{Cluster, Failure, Ticket, adversary};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

/// A cluster of `size` in which `attackers` play `attack`.
fn besieged(size: usize, attackers: &[usize], attack: &str) -> Cluster {
    let attacks: adversary::Attacks = attack.parse().expect("a known attack");
    let attackers = attackers.iter().map(|attacker| (*attacker, attacks.clone()));
    Cluster::builder(size, 17).attackers(attackers).build()
}

/// Calls for `count` operations, from all clients in turn.
fn submit(cluster: &mut Cluster, count: usize) -> Vec<Ticket> {
    (0..count)
        .map(|index| cluster.client(index % 4).put(&format!("key {}", index % 7), &format!("value {index}")))
        .collect()
}

/// Calls and pauses in turn, for some seconds.
fn keep_busy(cluster: &mut Cluster) -> Result<(), Failure> {
    for _ in 0..5 {
        submit(cluster, 20);
        cluster.run_until_answered(2 * SECOND)?;
        cluster.run_for(SECOND)?;
    }
    Ok(())
}

/// Counts the messages of attackers for which `is_one` holds.
fn count(
    cluster: &mut Cluster,
    attackers: &[usize],
    mut is_one: impl FnMut(ReplicaId, &Message) -> bool + 'static,
) -> Rc<Cell<u64>> {
    let counted = Rc::new(Cell::new(0));
    let (attackers, counter) = (attackers.to_vec(), Rc::clone(&counted));
    cluster.drop_messages(move |from, to, message| {
        if attackers.contains(&from.index()) && is_one(to, message) {
            counter.set(counter.get() + 1);
        }
        false
    });
    counted
}

/// Collects about what attackers say two things, whoever hears them.
fn contradictions(cluster: &mut Cluster, attackers: &[usize]) -> Rc<RefCell<BTreeSet<Subject>>> {
    let found = Rc::new(RefCell::new(BTreeSet::new()));
    let (attackers, collected) = (attackers.to_vec(), Rc::clone(&found));
    let members = cluster.size() as u64;
    let mut said_before = BTreeMap::new();
    cluster.drop_messages(move |from, _, message| {
        let own = in_message(message, members).into_iter().filter(|said| said.replica == from);
        for said in own.filter(|said| attackers.contains(&said.replica.index())) {
            let before = *said_before.entry((said.replica, said.subject)).or_insert(said.digest);
            if before != said.digest {
                collected.borrow_mut().insert(said.subject);
            }
        }
        false
    });
    found
}

/// All that is asked is answered, though a primary crashes, if one is correct; then all correct replicas have the same.
fn expect_survival(cluster: &mut Cluster) -> Result<(), Failure> {
    cluster.declare_healed();
    submit(cluster, 20);
    cluster.run_until_answered(2 * MINUTE)?;
    let primary = cluster.primary();
    if !cluster.is_attacker(primary) {
        // More than f are away meanwhile: what is asked now may be answered later only.
        cluster.declare_broken();
        cluster.crash(primary);
        submit(cluster, 20);
        cluster.run_for(3 * SECOND)?;
        cluster.restart(primary)?;
        cluster.declare_healed();
    }
    submit(cluster, 20);
    cluster.run_until_answered(2 * MINUTE)?;
    cluster.assert_same_states()
}

#[test]
fn calls_are_answered_whatever_f_attackers_play() -> Result<(), Failure> {
    for name in adversary::names() {
        for (size, attackers) in [(4, &[0][..]), (4, &[2]), (7, &[0, 1]), (7, &[1, 4])] {
            expect_survival(&mut besieged(size, attackers, name))?;
        }
    }
    Ok(())
}
