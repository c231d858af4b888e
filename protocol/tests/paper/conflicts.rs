//! §4.3: a primary that signed two batches for one slot, and showed each backup but one of them.

use quorate_protocol::Output;
use quorate_protocol::evidence::Evidence;
use quorate_protocol::message::Message;
use quorate_protocol::number::ReplicaId;
use quorate_protocol::output::Suspicion;
use quorate_protocol::refusal::Refusal;

use crate::support::subject::{Subject, suspected};
use crate::support::{Group, StandInVerifier, digest, prepare, replica};

/// Whom a replica shows what the primary signed, and the digest in it.
fn shown(outputs: &[Output]) -> Vec<(u8, quorate_crypto::Digest)> {
    let shown = outputs.iter().filter_map(|output| match output {
        Output::Send { to, message: Message::Conflict(vote) } => Some((to.value(), vote.statement.digest)),
        _ => None,
    });
    shown.collect()
}

fn is_wanted(backup: &Subject, message: &Message) -> bool {
    (0..4)
        .map(ReplicaId::new)
        .filter(|from| *from != backup.replica.id())
        .all(|from| backup.replica.is_wanted(from, message))
}

/// "where votes differ, a replica shows each who voted for another batch what the primary signed here, once a view" (§4.3)
#[test]
fn who_voted_for_another_batch_is_shown_what_the_primary_signed_here_once_a_view() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let (first, second) = (group.batch(0), group.batch(1));
    backup.hear(0, group.pre_prepare(0, 0, 1, &first));
    backup.hear(0, group.pre_prepare(0, 0, 2, &second));
    assert_eq!(shown(&backup.sync()), []);
    assert_eq!(shown(&backup.hear(3, group.prepare(3, 0, 1, first.digest()))), [], "it voted for the same");
    let vote = group.vote(0, prepare(0, 1, first.digest()));
    let outputs = backup.hear(2, group.prepare(2, 0, 1, second.digest()));
    assert_eq!(outputs, [Output::Send { to: replica(2), message: Message::Conflict(vote) }]);
    assert_eq!(shown(&backup.hear(2, group.prepare(2, 0, 2, first.digest()))), [], "once a view");
    assert_eq!(shown(&backup.hear(3, group.prepare(3, 0, 2, first.digest()))), [(3, second.digest())]);
}

/// The same, whichever comes first.
#[test]
fn who_voted_before_the_proposal_came_is_shown_it_then() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let (first, second) = (group.batch(0), group.batch(1));
    assert_eq!(shown(&backup.hear(2, group.prepare(2, 0, 1, second.digest()))), []);
    assert_eq!(shown(&backup.hear(3, group.prepare(3, 0, 1, first.digest()))), []);
    assert_eq!(shown(&backup.hear(0, group.pre_prepare(0, 0, 1, &first))), [(2, first.digest())]);
}

/// Votes of another view than this replica's contradict nothing.
#[test]
fn nobody_is_shown_anything_for_what_it_said_in_another_view() {
    let mut backup = Subject::of_four(3);
    let group = backup.group.clone();
    let (first, second) = (group.batch(0), group.batch(1));
    backup.hear(0, group.pre_prepare(0, 0, 1, &first));
    assert_eq!(shown(&backup.hear(2, group.prepare(2, 1, 1, second.digest()))), []);
    backup.enter(1);
    let outputs = backup.hear(1, group.pre_prepare(1, 1, 1, &first));
    assert_eq!(shown(&outputs), [(2, first.digest())], "in the later view they do, and the vote was kept");
}

/// "It counts as nothing but that proof." (§4.3)
#[test]
fn what_the_primary_signed_elsewhere_convicts_it_and_is_no_vote() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let (first, second) = (group.batch(0), group.batch(1));
    backup.hear(0, group.pre_prepare(0, 0, 1, &first));
    backup.sync();
    let votes = [&first, &second].map(|batch| group.vote(0, prepare(0, 1, batch.digest())));
    let conflict = Message::Conflict(votes[1]);
    assert!(is_wanted(&backup, &conflict));
    let mut told = backup.clone();
    let outputs = told.hear(2, conflict);
    let evidence = Evidence::ConflictingPrepares(votes[0], votes[1]);
    assert!(evidence.is_proof(&group.0, &mut StandInVerifier));
    assert_eq!(outputs[0], Output::Evidence(evidence.into()));
    assert_eq!(suspected(&outputs), [(0, Suspicion::Proof)]);
    // Two votes for the second batch, and a third that was only shown.
    let others = |subject: &mut Subject| {
        let outputs = subject.hear_all([2, 3].map(|id| (id, group.prepare(id, 0, 1, second.digest()))));
        outputs.iter().any(|output| matches!(output, Output::Append { .. }))
    };
    assert!(!others(&mut told), "no certificate");
}

/// What is no conflict with anything held here is not even checked.
#[test]
fn a_conflict_that_is_none_is_dropped() {
    let mut backup = Subject::of_four(1);
    let group: Group = backup.group.clone();
    let batch = group.batch(0);
    backup.hear(0, group.pre_prepare(0, 0, 1, &batch));
    backup.sync();
    let none = [
        group.vote(0, prepare(0, 1, batch.digest())),
        group.vote(0, prepare(0, 2, digest(9))),
        group.vote(0, prepare(4, 1, digest(9))),
        group.vote(2, prepare(0, 1, digest(9))),
        group.vote(1, prepare(0, 1, digest(9))),
        group.vote(0, prepare(0, 1_000, digest(9))),
    ];
    for (count, vote) in none.into_iter().enumerate() {
        let conflict = Message::Conflict(vote);
        assert!(!is_wanted(&backup, &conflict), "{vote:?}");
        assert_eq!(backup.hear(3, conflict), [], "{vote:?}");
        let refused = backup.replica.refusals().get(&Refusal::Unasked).copied();
        assert_eq!(refused, Some(count as u64 + 1), "{vote:?}");
    }
}
