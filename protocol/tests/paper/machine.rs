//! A replica as a state machine: docs/ARCHITECTURE.md, the core's face.

use std::hash::{DefaultHasher, Hash, Hasher};

use quorate_protocol::message::Message;
use quorate_protocol::replica::Replica;
use quorate_protocol::{Input, Machine};

use crate::support::client;
use crate::support::subject::{Subject, now};

fn hash_of(replica: &Replica) -> u64 {
    let mut hasher = DefaultHasher::new();
    replica.hash(&mut hasher);
    hasher.finish()
}

/// A backup that decided slot 1, executed it and was offered slot 2.
fn backup() -> Subject {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    backup.decide(0, 1, &group.batch(1));
    backup.settle();
    backup.hear(0, group.pre_prepare(0, 0, 2, &group.batch(2)));
    backup
}

/// The state is all that decides what a replica does, and its hash tells two states apart.
#[test]
fn replicas_to_which_the_same_happened_hash_alike_and_go_on_alike() {
    let (mut one, mut other) = (backup(), backup());
    assert_eq!(hash_of(&one.replica), hash_of(&other.replica));
    assert_eq!(hash_of(&one.replica), hash_of(&one.replica.clone()));
    let group = one.group.clone();
    for id in [2, 3] {
        let vote = group.prepare(id, 0, 2, group.batch(2).digest());
        assert_eq!(one.hear(id, vote.clone()), other.hear(id, vote));
    }
    assert_eq!(one.settle(), other.settle());
    assert_eq!(hash_of(&one.replica), hash_of(&other.replica));
}

/// The same: whatever may matter later makes another state.
#[test]
fn whatever_happens_to_a_replica_changes_its_hash() {
    let before = backup();
    let group = before.group.clone();
    let steps: [fn(&mut Subject); 6] = [
        |backup| drop(backup.sync()),
        |backup| drop(backup.pass(1)),
        |backup| drop(backup.ask(backup.group.opening(client(5), 1))),
        |backup| drop(backup.hear(2, backup.group.prepare(2, 0, 2, backup.group.batch(2).digest()))),
        |backup| drop(backup.hear(2, Message::ViewChange(backup.group.empty_view_change(2, 1)))),
        |backup| drop(backup.hear(3, backup.group.checkpoint(3, 4, crate::support::digest(4)))),
    ];
    let mut hashes: Vec<u64> = Vec::from([hash_of(&before.replica)]);
    for step in steps {
        let mut after = before.clone();
        step(&mut after);
        hashes.push(hash_of(&after.replica));
    }
    let count = hashes.len();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), count);
    // What is refused matters no more: the replica of before and of after would go on alike.
    let mut refused = before.clone();
    refused.replica.handle(now(refused.now_ms), Input::Wake);
    assert_eq!(hash_of(&refused.replica), hash_of(&before.replica), "a spurious wake does no harm");
    refused.hear(2, group.commit(2, 0, 99, crate::support::digest(9)));
    let mut heard = before;
    heard.hear(2, group.commit(2, 0, 98, crate::support::digest(9)));
    assert_eq!(hash_of(&refused.replica), hash_of(&heard.replica));
}
