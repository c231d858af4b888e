//! §7.1 and §7.2: a view is left, and which of the votes about it are kept. What follows from a quorum of view changes is tested
//! beside `conclude` itself.

use quorate_protocol::Output;
use quorate_protocol::batch::Batch;
use quorate_protocol::codec::{Blob, decode};
use quorate_protocol::message::{Cast, Message, SignedNewView, SignedViewChange, ViewChange};
use quorate_protocol::output::{Notice, Suspicion};
use quorate_protocol::record::Record;
use quorate_protocol::refusal::Refusal;
use quorate_protocol::replica::Mode;

use crate::support::subject::{Subject, appended, executed, notices, said, suspected, wanted};
use crate::support::{Group, digest, replica, slot, view};

/// The content of the only view change recorded among `outputs`.
pub(super) fn recorded(outputs: &[Output]) -> ViewChange {
    let records = appended(outputs).into_iter();
    let mut contents = records.filter_map(|record| match record {
        Record::ViewChange(_, _, signed) => Some(decode(signed.body.bytes()).expect("its own encoding")),
        _ => None,
    });
    let content = contents.next().expect("a view change was recorded");
    assert!(contents.next().is_none());
    content
}

/// View changes of `others` for `to`, each with what `of` gives.
pub(super) fn view_changes(group: &Group, to: u64, others: &[u8]) -> Vec<(u8, SignedViewChange)> {
    others.iter().map(|id| (*id, group.empty_view_change(*id, to))).collect()
}

pub(super) fn new_view(
    group: &Group,
    to: u64,
    view_changes: &[(u8, SignedViewChange)],
    proposals: &[(u64, quorate_crypto::Digest)],
) -> SignedNewView {
    let named: Vec<_> = view_changes.iter().map(|(id, signed)| (*id, signed)).collect();
    group.new_view(group.0.primary(view(to)).value(), to, &named, proposals)
}

pub(super) fn hear_view_changes(subject: &mut Subject, view_changes: &[(u8, SignedViewChange)]) -> Vec<Output> {
    subject.hear_all(view_changes.iter().map(|(id, signed)| (*id, Message::ViewChange(signed.clone()))))
}

/// "Leaving view v, a replica ... makes its `ViewChange` durable before sending it" (§7.1)
#[test]
fn a_view_change_is_sent_only_when_it_is_durable() {
    let mut backup = Subject::of_four(1);
    let outputs = backup.leave();
    let [Output::Notice(_), Output::Append { record: Record::ViewChange(_, to, signed), .. }, Output::Notice(_)] =
        &outputs[..]
    else {
        panic!("{outputs:?}")
    };
    assert_eq!(*to, view(1));
    assert_eq!(backup.replica.mode(), Mode::ViewChange { to: view(1) });
    assert_eq!(backup.sync(), [Output::Broadcast(Message::ViewChange(signed.clone()))]);
}

/// "and sends it again byte for byte" (§7.1)
#[test]
fn a_view_change_is_sent_again_byte_for_byte_to_who_has_not_heard_it() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    backup.leave();
    let sent = said(&backup.sync());
    // More becomes known meanwhile: the message stays what it was.
    backup.hear(3, group.commit(3, 0, 1, digest(1)));
    let mut status = crate::support::subject::idle_status(0);
    let outputs = backup.hear(3, Message::Status(status.clone()));
    assert_eq!(said(&outputs), sent);
    status.view = view(1);
    status.entered = false;
    status.view_changes = 1 << 2;
    assert_eq!(said(&backup.hear(3, Message::Status(status))), [], "member 3 has it");
}

/// "It holds the highest stable certificate and, for each slot in the window above it, the prepared certificate and the
/// own vote of the highest view, if any. A vote that was handed to the disk is listed, sent or not." (§7.1)
#[test]
fn a_view_change_lists_all_that_was_handed_to_the_disk() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let stable = group.stable(4, digest(4), &[0, 2, 3]);
    backup.hear(0, Message::Stable(stable.clone()));
    let batches = [group.batch(5), group.batch(6)];
    for (sequence, batch) in [(5, &batches[0]), (6, &batches[1])] {
        backup.hear(0, group.pre_prepare(0, 0, sequence, batch));
    }
    backup.hear_all([2, 3].map(|id| (id, group.prepare(id, 0, 6, batches[1].digest()))));
    // Nothing is durable.
    let content = recorded(&backup.leave());
    assert_eq!(content.stable, Some(stable));
    assert_eq!(content.prepared[..], [group.prepared(0, 6, batches[1].digest(), &[0, 2, 3])]);
    let cast = |sequence, batch: &Batch| Cast { sequence: slot(sequence), view: view(0), digest: batch.digest() };
    assert_eq!(content.cast[..], [cast(5, &batches[0]), cast(6, &batches[1])]);
}

/// "Leaving view v, a replica stops voting in views up to v" (§7.1)
#[test]
fn a_replica_that_left_its_view_votes_for_nothing_in_it() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let (first, second) = (group.batch(1), group.batch(2));
    backup.hear(0, group.pre_prepare(0, 0, 1, &first));
    backup.sync();
    backup.leave();
    backup.sync();
    assert_eq!(backup.hear(2, group.prepare(2, 0, 1, first.digest())), [], "no commit");
    assert_eq!(backup.hear(0, group.pre_prepare(0, 0, 2, &second)), [], "no prepare");
    assert_eq!(backup.replica.refusals()[&Refusal::OldView], 1);
}

/// "While it waits, a replica still takes checkpoints and decisions, and executes." (§7.6)
#[test]
fn a_replica_without_a_view_still_takes_decisions_and_executes() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let batch = group.batch(1);
    backup.hear(0, group.pre_prepare(0, 0, 1, &batch));
    backup.leave();
    let outputs = backup.hear_all([0, 2, 3].map(|id| (id, group.commit(id, 0, 1, batch.digest()))));
    assert_eq!(executed(&outputs), [1]);
    let outputs = backup.hear_all([0, 2, 3].map(|id| (id, group.checkpoint(id, 4, digest(4)))));
    assert_eq!(notices(&outputs), [Notice::Stable { sequence: slot(4) }]);
}

/// "The time-out for the new view starts when q members, itself among them, ask for it or a higher one; when it passes, the
/// replica suspects that view's primary" (§7.2): one that asks for a higher view has left it.
#[test]
fn the_time_out_for_a_new_view_starts_when_a_quorum_asks_for_it_itself_among_them() {
    let mut backup = Subject::of_four(3);
    let group = backup.group.clone();
    backup.leave();
    assert_eq!(wanted(&backup.pass(10_000)), [], "alone, and not durable");
    backup.sync();
    backup.hear(0, Message::ViewChange(group.empty_view_change(0, 1)));
    assert_eq!(wanted(&backup.pass(10_000)), [], "two of four");
    // A view change for a higher view counts too. One attempt so far: the bound of 500 ms is doubled.
    backup.hear(2, Message::ViewChange(group.empty_view_change(2, 7)));
    assert_eq!(wanted(&backup.pass(999)), []);
    assert_eq!(wanted(&backup.pass(1)), [(2, Suspicion::NewViewLate)]);
}

/// "itself among them" (§7.2): a quorum of others does not start it while the own view change is not durable.
#[test]
fn the_time_out_for_a_new_view_waits_for_the_own_view_change() {
    let mut backup = Subject::of_four(3);
    let group = backup.group.clone();
    hear_view_changes(&mut backup, &view_changes(&group, 1, &[0, 1, 2]));
    assert_eq!(backup.replica.mode(), Mode::ViewChange { to: view(1) });
    assert_eq!(wanted(&backup.pass(10_000)), []);
    backup.sync();
    assert_eq!(suspected(&backup.pass(1000)), [(1, Suspicion::NewViewLate)]);
}

/// "until it enters or leaves with the others" (§7.2)
#[test]
fn a_replica_that_waits_in_vain_alone_can_still_enter_and_leaves_with_the_others() {
    let mut backup = Subject::of_four(3);
    let group = backup.group.clone();
    let view_changes = view_changes(&group, 1, &[0, 1, 2]);
    hear_view_changes(&mut backup, &view_changes);
    backup.sync();
    let outputs = backup.pass(60_000);
    assert_eq!((suspected(&outputs), wanted(&outputs)), (vec![(1, Suspicion::NewViewLate)], vec![]));
    let mut other = backup.clone();
    let status = crate::support::subject::idle_status(1);
    let suspects = Message::Status(quorate_protocol::message::Status { entered: false, suspects: true, ..status });
    assert_eq!(wanted(&other.hear(0, suspects)), [(2, Suspicion::NewViewLate)]);
    backup.hear(1, Message::NewView(new_view(&group, 1, &view_changes, &[])));
    backup.sync();
    assert_eq!((backup.replica.view(), backup.replica.mode()), (view(1), Mode::Normal));
    assert!(backup.status.clone().is_some_and(|status| status.suspects), "what it said last, before");
    backup.pass_with_primary_alive(100);
    assert!(backup.status.clone().is_some_and(|status| !status.suspects));
}

/// What a view change or new view claims to be says whether it can matter; only then are its hundreds of signatures checked.
#[test]
fn view_changes_and_new_views_that_cannot_matter_are_not_wanted() {
    let group = Group::of_four();
    let mut backup = Subject::of_four(2);
    let claims = |id, to| Message::ViewChange(group.empty_view_change(id, to));
    backup.hear(0, claims(0, 3));
    for (id, to, is_wanted) in [(0, 4, true), (0, 3, false), (0, 2, false), (1, 1, true), (2, 9, false)] {
        assert_eq!(backup.replica.is_wanted(replica(1), &claims(id, to)), is_wanted, "of member {id} for view {to}");
    }
    let rests_on = view_changes(&group, 1, &[0, 1, 3]);
    let begins = |to| Message::NewView(new_view(&group, to, &rests_on, &[]));
    assert!(backup.replica.is_wanted(replica(1), &begins(1)));
    backup.hear(1, begins(1));
    assert!(!backup.replica.is_wanted(replica(1), &begins(1)), "it is held already");
    assert!(backup.replica.is_wanted(replica(3), &begins(1)), "another may pass on one that can be completed");
    assert!(backup.replica.is_wanted(replica(1), &claims(0, 1)), "the new view names it though its sender went on");
    assert!(!backup.replica.is_wanted(replica(1), &claims(0, 2)));
    hear_view_changes(&mut backup, &rests_on);
    assert_eq!(backup.replica.view(), view(1));
    assert!(!backup.replica.is_wanted(replica(1), &begins(1)) && !backup.replica.is_wanted(replica(1), &claims(0, 1)));
    let mut nonsense = group.empty_view_change(0, 9);
    nonsense.body = Blob::EMPTY;
    assert!(backup.replica.is_wanted(replica(1), &Message::ViewChange(nonsense)), "so that it is known who sends such");
}

/// Votes that change nothing are not checked.
#[test]
fn votes_that_cannot_matter_are_not_wanted() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let batch = group.batch(1);
    let commit_of = |sequence| group.commit(3, 0, sequence, batch.digest());
    let prepare_of = |sequence| group.prepare(3, 0, sequence, batch.digest());
    for message in [commit_of(1), prepare_of(1), commit_of(8), prepare_of(8)] {
        assert!(backup.replica.is_wanted(replica(3), &message));
    }
    for message in [commit_of(9), prepare_of(9)] {
        assert!(!backup.replica.is_wanted(replica(3), &message), "above the high watermark");
    }
    backup.decide(0, 1, &batch);
    for message in [commit_of(1), prepare_of(1)] {
        assert!(!backup.replica.is_wanted(replica(3), &message), "decided");
    }
    backup.hear(0, group.prepare(0, 0, 2, digest(2)));
    assert!(!backup.replica.is_wanted(replica(0), &group.prepare(0, 0, 2, digest(2))), "it is known");
    assert!(backup.replica.is_wanted(replica(0), &group.prepare(0, 0, 2, digest(3))), "it proves something");
}

/// "`ViewChange` ... the highest a member" (§3, table)
#[test]
fn only_the_highest_view_change_of_a_member_is_kept() {
    let mut primary = Subject::of_four(1);
    let group = primary.group.clone();
    primary.leave();
    primary.sync();
    primary.hear(2, Message::ViewChange(group.empty_view_change(2, 9)));
    primary.hear(2, Message::ViewChange(group.empty_view_change(2, 1)));
    assert_eq!(primary.replica.refusals()[&Refusal::Outdated], 1);
    primary.hear(3, Message::ViewChange(group.empty_view_change(3, 1)));
    assert_eq!(primary.replica.view(), view(0), "member 2 does not ask for view 1 any more");
}

/// "`Prepare`: one a member and slot, the highest view" (§3, table), and the same of `Commit`.
#[test]
fn however_many_votes_come_a_slot_keeps_one_of_each_member() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    for of_view in (0..50).rev() {
        for sequence in 1..=20 {
            for id in [0, 1, 3] {
                backup.hear(id, group.prepare(id, of_view, sequence, digest(1)));
                if of_view > 0 {
                    let other = digest(u8::try_from(of_view).expect("small"));
                    backup.hear(id, group.commit(id, of_view + 3 * u64::from(id), sequence, other));
                }
            }
        }
    }
    let window = usize::try_from(group.0.parameters().window).expect("small");
    assert_eq!(backup.replica.log_length(), window);
    let outside = (20 - window) * 3 * (50 + 49);
    assert_eq!(backup.replica.refusals()[&Refusal::OutsideWatermarks], outside as u64);
    assert_eq!(backup.replica.refusals()[&Refusal::Outdated], (window * 3 * (49 + 48)) as u64, "all but the first");
}
