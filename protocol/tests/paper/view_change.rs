//! §7: view change. What follows from a quorum of view changes is tested beside `conclude` itself.

use quorate_protocol::Output;
use quorate_protocol::batch::Batch;
use quorate_protocol::codec::{Blob, decode};
use quorate_protocol::configuration::Parameters;
use quorate_protocol::message::{
    Cast, Fetch, FetchedBatch, Message, SignedNewView, SignedViewChange, ViewChange, view_change_digest,
};
use quorate_protocol::number::Epoch;
use quorate_protocol::output::{Notice, Suspicion};
use quorate_protocol::record::{NewViewRecord, Record};
use quorate_protocol::refusal::Refusal;
use quorate_protocol::replica::Mode;
use quorate_protocol::verify::{Invalid, verify};

use crate::support::subject::{Subject, appended, executed, notices, said, suspected, wanted};
use crate::support::{Group, StandInVerifier, client, commit, digest, prepare, replica, slot, view};

/// The content of the only view change recorded among `outputs`.
fn recorded(outputs: &[Output]) -> ViewChange {
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
fn view_changes(group: &Group, to: u64, others: &[u8]) -> Vec<(u8, SignedViewChange)> {
    others.iter().map(|id| (*id, group.empty_view_change(*id, to))).collect()
}

fn new_view(
    group: &Group,
    to: u64,
    view_changes: &[(u8, SignedViewChange)],
    proposals: &[(u64, quorate_crypto::Digest)],
) -> SignedNewView {
    let named: Vec<_> = view_changes.iter().map(|(id, signed)| (*id, signed)).collect();
    group.new_view(group.0.primary(view(to)).value(), to, &named, proposals)
}

fn hear_view_changes(subject: &mut Subject, view_changes: &[(u8, SignedViewChange)]) -> Vec<Output> {
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

/// "The primary of the new view takes q view changes for exactly it." (§7.3); "The new view is durable, with its view
/// changes whole, before anything is said in it" (§7.4)
#[test]
fn a_new_primary_records_and_sends_the_new_view_before_it_votes_in_it() {
    let mut primary = Subject::of_four(1);
    let group = primary.group.clone();
    let batch = group.batch(0);
    primary.hear(0, group.pre_prepare(0, 0, 1, &batch));
    primary.hear_all([2, 3].map(|id| (id, group.prepare(id, 0, 1, batch.digest()))));
    primary.sync();
    primary.hear(2, Message::ViewChange(group.empty_view_change(2, 2)));
    primary.leave();
    let own = said(&primary.sync());
    let [Message::ViewChange(own)] = &own[..] else { panic!("{own:?}") };
    let others = view_changes(&group, 1, &[0, 3]);
    assert_eq!(hear_view_changes(&mut primary, &others[..1]), [], "member 2 asks for view 2: not exactly it");
    let outputs = hear_view_changes(&mut primary, &others[1..]);
    let rests_on = [(0, others[0].1.clone()), (1, own.clone()), (3, others[1].1.clone())];
    let new_view = new_view(&group, 1, &rests_on, &[(1, batch.digest())]);
    let whole = rests_on.map(|(_, signed)| signed);
    let record = NewViewRecord {
        new_view: new_view.clone(),
        view_changes: quorate_protocol::codec::List::new(whole.to_vec()).expect("three"),
    };
    let vote = group.vote(1, prepare(1, 1, batch.digest()));
    // The batch is in the log already, so the record of the vote names it only.
    assert_eq!(appended(&outputs), [Record::NewView(Epoch::ZERO, view(1), record), Record::Accepted(vote, None)]);
    assert_eq!(said(&outputs), []);
    assert_eq!(said(&primary.sync()), [Message::NewView(new_view), Message::Prepare(vote)]);
}

/// "and nobody is shown it before" (§7.4)
#[test]
fn a_new_view_is_shown_to_nobody_before_it_is_durable() {
    let mut primary = Subject::of_four(1);
    let group = primary.group.clone();
    let mut behind = crate::support::subject::idle_status(0);
    primary.hear(3, Message::Status(behind.clone()));
    primary.leave();
    primary.sync();
    hear_view_changes(&mut primary, &view_changes(&group, 1, &[0, 2]));
    assert_eq!(primary.replica.view(), view(1));
    behind.executed = slot(0);
    let outputs = primary.hear(3, Message::Status(behind.clone()));
    assert!(!said(&outputs).iter().any(|message| matches!(message, Message::NewView(_))));
    let outputs = primary.hear(3, Message::Fetch(Fetch::NewView { view: view(1) }));
    assert_eq!(said(&outputs), []);
    primary.sync();
    let outputs = primary.hear(3, Message::Status(behind));
    assert!(said(&outputs).iter().any(|message| matches!(message, Message::NewView(_))));
}

/// "draws the conclusion itself, and enters only if it agrees" (§7.4); "Each proposal stands as accepted" (§7.4); "All
/// vote, the primary too" (§7.4)
#[test]
fn a_backup_enters_by_a_new_view_that_it_agrees_with_and_votes_for_its_proposals() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let batch = group.batch_at(-500_000, vec![group.opening(client(0), 1)]);
    backup.hear(0, Message::Status(crate::support::subject::idle_status(0)));
    let prepared = group.prepared(0, 2, batch.digest(), &[0, 1, 3]);
    let mut rests_on = view_changes(&group, 1, &[0, 1]);
    rests_on.push((3, group.view_change(3, 1, None, vec![prepared])));
    hear_view_changes(&mut backup, &rests_on);
    backup.sync();
    let empty = Batch::empty();
    let proposals = [(1, empty.digest()), (2, batch.digest())];
    let outputs = backup.hear(1, Message::NewView(new_view(&group, 1, &rests_on, &proposals)));
    assert_eq!(notices(&outputs), [Notice::ViewEntered { view: view(1) }]);
    let vote = group.vote(2, prepare(1, 1, empty.digest()));
    let records = appended(&outputs);
    assert!(matches!(&records[0], Record::NewView(_, to, record) if *to == view(1) && record.view_changes.len() == 3));
    assert_eq!(records[1..], [Record::Accepted(vote, Some(empty))], "the other batch is not here");
    // "Who lacks a batch fetches it by its digest and votes after that." (§7.4): its stamp is long past, and stands.
    let fetch = Message::Fetch(Fetch::Batch { sequence: slot(2), digest: batch.digest() });
    assert_eq!(said(&outputs), [fetch]);
    let wrong = FetchedBatch { sequence: slot(2), batch: group.batch(7).body().clone().into() };
    assert_eq!(backup.hear(1, Message::Batch(wrong)), [], "a batch with another digest is not the one");
    let fetched = FetchedBatch { sequence: slot(2), batch: batch.body().clone().into() };
    let outputs = backup.hear(1, Message::Batch(fetched));
    let vote = group.vote(2, prepare(1, 2, batch.digest()));
    assert_eq!(appended(&outputs), [Record::Accepted(vote, Some(batch))]);
    assert!(said(&backup.sync()).contains(&Message::Prepare(vote)));
}

/// "no other counts up to the last" (§7.4)
#[test]
fn no_proposal_but_the_new_views_own_counts_up_to_the_last_of_them() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let batch = group.batch(0);
    let mut rests_on = view_changes(&group, 1, &[0, 1]);
    rests_on.push((3, group.view_change(3, 1, None, vec![group.prepared(0, 2, batch.digest(), &[0, 1, 3])])));
    hear_view_changes(&mut backup, &rests_on);
    let proposals = [(1, Batch::empty().digest()), (2, batch.digest())];
    backup.hear(1, Message::NewView(new_view(&group, 1, &rests_on, &proposals)));
    for sequence in [1, 2] {
        assert_eq!(appended(&backup.hear(1, group.pre_prepare(1, 1, sequence, &group.batch(9)))), []);
    }
    assert_eq!(backup.replica.refusals()[&Refusal::ProposedByNewView], 2);
    assert_eq!(appended(&backup.hear(1, group.pre_prepare(1, 1, 3, &group.batch(9)))).len(), 1);
}

/// "two for one slot, is proof against it" (§4.3): a slot of the new view's own is no exception.
#[test]
fn a_proposal_against_the_new_views_own_is_proof_against_its_primary() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let batch = group.batch(0);
    let mut rests_on = view_changes(&group, 1, &[0, 1]);
    rests_on.push((3, group.view_change(3, 1, None, vec![group.prepared(0, 1, batch.digest(), &[0, 1, 3])])));
    hear_view_changes(&mut backup, &rests_on);
    backup.hear(1, Message::NewView(new_view(&group, 1, &rests_on, &[(1, batch.digest())])));
    backup.hear(1, group.prepare(1, 1, 1, batch.digest()));
    let outputs = backup.hear(1, group.pre_prepare(1, 1, 1, &group.batch(9)));
    assert!(matches!(outputs[0], Output::Evidence(_)));
    assert_eq!(suspected(&outputs), [(1, Suspicion::Proof)]);
    assert_eq!(backup.replica.refusals()[&Refusal::ProposedByNewView], 1);
}

/// "and enters only if it agrees" (§7.4)
#[test]
fn a_new_view_that_does_not_follow_from_its_view_changes_is_refused() {
    let group = Group::of_four();
    let batch = group.batch(0);
    let mut rests_on = view_changes(&group, 1, &[0, 1]);
    rests_on.push((3, group.view_change(3, 1, None, vec![group.prepared(0, 2, batch.digest(), &[0, 1, 3])])));
    let empty = Batch::empty().digest();
    let right = vec![(1, empty), (2, batch.digest())];
    let wrong: [Vec<(u64, quorate_crypto::Digest)>; 6] = [
        vec![],
        vec![(1, empty)],
        vec![(1, empty), (2, empty)],
        vec![(1, digest(9)), (2, batch.digest())],
        vec![(1, empty), (2, batch.digest()), (3, empty)],
        vec![(2, batch.digest())],
    ];
    for proposals in wrong {
        let mut backup = Subject::new(&group, 2);
        hear_view_changes(&mut backup, &rests_on);
        assert_eq!(backup.hear(1, Message::NewView(new_view(&group, 1, &rests_on, &proposals))), []);
        assert_eq!(backup.replica.refusals()[&Refusal::NewViewWrong], 1, "{proposals:?}");
        assert_eq!(backup.replica.view(), view(0));
        backup.hear(1, Message::NewView(new_view(&group, 1, &rests_on, &right)));
        assert_eq!(backup.replica.view(), view(1), "the right one still counts");
    }
}

/// "takes q view changes for exactly it" (§7.3)
#[test]
fn a_new_view_that_rests_on_view_changes_of_another_view_is_refused() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let mut rests_on = view_changes(&group, 5, &[0, 1]);
    rests_on.push((3, group.empty_view_change(3, 6)));
    hear_view_changes(&mut backup, &rests_on);
    backup.hear(1, Message::NewView(new_view(&group, 5, &rests_on, &[])));
    assert_eq!(backup.replica.refusals()[&Refusal::NewViewWrong], 1);
    assert_eq!(backup.replica.view(), view(0));
}

/// "takes q view changes" (§7.3): with fewer, of the wrong primary, or out of order it is not even verified.
#[test]
fn a_new_view_without_a_quorum_or_of_the_wrong_primary_is_refused() {
    let group = Group::of_four();
    let all = view_changes(&group, 1, &[0, 1, 3]);
    let check = |signed| verify(Message::NewView(signed), replica(1), &group.0, &mut StandInVerifier);
    assert!(check(new_view(&group, 1, &all, &[])).is_ok());
    assert!(matches!(check(new_view(&group, 1, &all[..2], &[])), Err(Invalid::Form(_))), "q - 1");
    let twice = [all[0].clone(), all[0].clone(), all[1].clone()];
    assert!(matches!(check(new_view(&group, 1, &twice, &[])), Err(Invalid::Form(_))), "one member twice");
    let four = view_changes(&group, 1, &[0, 1, 2, 3]);
    assert!(matches!(check(new_view(&group, 1, &four, &[])), Err(Invalid::Form(_))), "more than q");
    let named: Vec<_> = all.iter().map(|(id, signed)| (*id, signed)).collect();
    assert_eq!(check(group.new_view(2, 1, &named, &[])), Err(Invalid::Signature), "signed by member 2");
}

/// "Everyone fetches the view changes it lacks" (§7.4)
#[test]
fn a_view_change_that_is_named_and_missing_is_fetched() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let rests_on = view_changes(&group, 1, &[0, 1, 3]);
    let outputs = backup.hear(1, Message::NewView(new_view(&group, 1, &rests_on, &[])));
    let fetches: Vec<Message> = rests_on
        .iter()
        .map(|(_, signed)| Fetch::ViewChange { digest: view_change_digest(group.cluster(), &signed.body) })
        .map(Message::Fetch)
        .collect();
    assert_eq!(said(&outputs), fetches);
    hear_view_changes(&mut backup, &rests_on[..2]);
    assert_eq!(backup.replica.view(), view(0));
    hear_view_changes(&mut backup, &rests_on[2..]);
    assert_eq!(backup.replica.view(), view(1));
}

/// The same: of its primary first, and then of the others in turn, none of which is the replica itself.
#[test]
fn a_missing_view_change_is_asked_of_the_primary_and_then_of_each_other() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let rests_on = view_changes(&group, 1, &[0, 1, 3]);
    hear_view_changes(&mut backup, &rests_on[..2]);
    let mut outputs = backup.hear(1, Message::NewView(new_view(&group, 1, &rests_on, &[])));
    outputs.extend(backup.hear(3, Message::Status(crate::support::subject::idle_status(0))));
    outputs.extend(backup.pass(300));
    let asked = sent_to(&outputs, |message| matches!(message, Message::Fetch(Fetch::ViewChange { .. })));
    assert_eq!(asked, [1, 3, 0, 1]);
}

/// Whom those messages among `outputs` go to that are `wanted`.
fn sent_to(outputs: &[Output], wanted: fn(&Message) -> bool) -> Vec<u8> {
    let sent = outputs.iter().filter_map(|output| match output {
        Output::Send { to, message } if wanted(message) => Some(to.value()),
        _ => None,
    });
    sent.collect()
}

/// "Who lacks a batch fetches it by its digest" (§7.4): of its primary first, and then of the others in turn.
#[test]
fn a_missing_batch_is_asked_of_the_primary_and_then_of_each_other() {
    for (own, of_view, expected) in [(1, 3, [3, 0, 2, 3]), (2, 1, [1, 3, 0, 1]), (0, 2, [2, 3, 1, 2])] {
        let mut backup = Subject::of_four(own);
        let group = backup.group.clone();
        let others: Vec<u8> = (0..4).filter(|id| *id != own).collect();
        let mut rests_on = view_changes(&group, of_view, &others[..2]);
        let prepared = group.prepared(0, 1, digest(9), &others);
        rests_on.push((others[2], group.view_change(others[2], of_view, None, vec![prepared])));
        hear_view_changes(&mut backup, &rests_on);
        let primary = group.0.primary(view(of_view)).value();
        let new_view = new_view(&group, of_view, &rests_on, &[(1, digest(9))]);
        let mut outputs = backup.hear(primary, Message::NewView(new_view));
        outputs.extend(backup.pass(300));
        let asked = sent_to(&outputs, |message| matches!(message, Message::Fetch(Fetch::Batch { .. })));
        assert_eq!(asked, expected, "replica {own} in view {of_view}");
    }
}

/// The same, though its sender asks for a higher view by now.
#[test]
fn a_named_view_change_counts_though_its_sender_went_on() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let rests_on = view_changes(&group, 1, &[0, 1, 3]);
    backup.hear(0, Message::ViewChange(group.empty_view_change(0, 4)));
    backup.hear(1, Message::NewView(new_view(&group, 1, &rests_on, &[])));
    hear_view_changes(&mut backup, &rests_on);
    assert_eq!(backup.replica.view(), view(1));
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

/// "The new view is durable, with its view changes whole, before anything is said in it" (§7.4): one that became durable only
/// after its primary was in a higher view is not said any more, since a cut may have taken its record.
#[test]
fn a_new_view_that_was_left_before_it_was_durable_is_not_said() {
    let mut primary = Subject::of_four(1);
    let group = primary.group.clone();
    primary.leave();
    primary.sync();
    hear_view_changes(&mut primary, &view_changes(&group, 1, &[0, 2]));
    assert_eq!(primary.replica.view(), view(1), "and nothing of it is durable");
    let of_next = view_changes(&group, 2, &[0, 2, 3]);
    hear_view_changes(&mut primary, &of_next);
    primary.hear(2, Message::NewView(new_view(&group, 2, &of_next, &[])));
    assert_eq!(primary.replica.view(), view(2));
    let said = said(&primary.sync());
    assert!(!said.iter().any(|message| matches!(message, Message::NewView(_))), "{said:?}");
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

/// "A peer that stands where its status before stood gets what it lacks" (§9): the new view, if it asks for that view still.
#[test]
fn who_waits_for_the_view_that_this_replica_entered_is_sent_its_new_view() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let rests_on = view_changes(&group, 1, &[0, 1, 3]);
    hear_view_changes(&mut backup, &rests_on);
    let new_view = Message::NewView(new_view(&group, 1, &rests_on, &[]));
    backup.hear(1, new_view.clone());
    backup.settle();
    let waits = quorate_protocol::message::Status { entered: false, ..crate::support::subject::idle_status(1) };
    assert!(!said(&backup.hear(3, Message::Status(waits.clone()))).contains(&new_view), "it may be under way");
    assert!(said(&backup.hear(3, Message::Status(waits))).contains(&new_view));
}

/// "no other counts up to the last" (§7.4): what the new view proposed is voted for, and not proposed again.
#[test]
fn a_primary_sends_its_vote_again_for_what_its_new_view_proposed() {
    let mut primary = Subject::of_four(1);
    let group = primary.group.clone();
    let batch = group.batch(1);
    primary.hear(0, group.pre_prepare(0, 0, 1, &batch));
    primary.hear_all([2, 3].map(|id| (id, group.prepare(id, 0, 1, batch.digest()))));
    primary.settle();
    hear_view_changes(&mut primary, &view_changes(&group, 1, &[0, 2]));
    primary.settle();
    hear_view_changes(&mut primary, &view_changes(&group, 1, &[3]));
    primary.settle();
    assert_eq!((primary.replica.view(), primary.replica.mode()), (view(1), Mode::Normal));
    primary.pass(100);
    let status = crate::support::subject::idle_status(1);
    primary.hear(3, Message::Status(status.clone()));
    let again = said(&primary.hear(3, Message::Status(status)));
    assert!(again.contains(&group.prepare(1, 1, 1, batch.digest())), "{again:?}");
}

/// "The new view is durable, with its view changes whole" (§7.4): so whoever entered can hand them out.
#[test]
fn who_entered_hands_out_the_view_changes_and_the_new_view() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let rests_on = view_changes(&group, 1, &[0, 1, 3]);
    hear_view_changes(&mut backup, &rests_on);
    let new_view = new_view(&group, 1, &rests_on, &[]);
    backup.hear(1, Message::NewView(new_view.clone()));
    backup.sync();
    backup.pass(100);
    for (_, signed) in &rests_on {
        let digest = view_change_digest(group.cluster(), &signed.body);
        let outputs = backup.hear(3, Message::Fetch(Fetch::ViewChange { digest }));
        assert_eq!(said(&outputs), [Message::ViewChange(signed.clone())]);
    }
    let outputs = backup.hear(3, Message::Fetch(Fetch::NewView { view: view(1) }));
    assert_eq!(said(&outputs), [Message::NewView(new_view)]);
    assert_eq!(said(&backup.hear(3, Message::Fetch(Fetch::NewView { view: view(2) }))), []);
}

/// "Who is behind `min` takes the certificate, catches up, and votes meanwhile." (§7.5)
#[test]
fn who_is_behind_the_highest_stable_checkpoint_takes_it_and_votes_above_it() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let stable = group.stable(4, digest(4), &[0, 1, 3]);
    let empty = Batch::empty();
    let mut rests_on = view_changes(&group, 1, &[0, 1]);
    let prepared = group.prepared(0, 5, empty.digest(), &[0, 1, 3]);
    rests_on.push((3, group.view_change(3, 1, Some(stable), vec![prepared])));
    hear_view_changes(&mut backup, &rests_on);
    let outputs = backup.hear(1, Message::NewView(new_view(&group, 1, &rests_on, &[(5, empty.digest())])));
    assert_eq!((backup.replica.stable(), backup.replica.executed()), (slot(4), slot(0)));
    let vote = group.vote(2, prepare(1, 5, empty.digest()));
    assert!(appended(&outputs).contains(&Record::Accepted(vote, Some(empty))));
}

/// "All vote, the primary too, on slots above their low watermark, executed or not; nothing executes twice." (§7.4)
#[test]
fn slots_that_executed_are_voted_on_again_and_execute_once() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let batch = group.batch(0);
    assert_eq!(executed(&backup.decide(0, 1, &batch)), [1]);
    backup.settle();
    let mut rests_on = view_changes(&group, 1, &[0, 1]);
    rests_on.push((3, group.view_change(3, 1, None, vec![group.prepared(0, 1, batch.digest(), &[0, 1, 3])])));
    hear_view_changes(&mut backup, &rests_on);
    let mut outputs = backup.hear(1, Message::NewView(new_view(&group, 1, &rests_on, &[(1, batch.digest())])));
    outputs.extend(backup.sync());
    for id in [0, 1, 3] {
        outputs.extend(backup.hear(id, group.prepare(id, 1, 1, batch.digest())));
    }
    outputs.extend(backup.sync());
    for id in [0, 1, 3] {
        outputs.extend(backup.hear(id, group.commit(id, 1, 1, batch.digest())));
    }
    let said = said(&outputs);
    assert!(said.contains(&group.prepare(2, 1, 1, batch.digest())));
    assert!(said.contains(&Message::Commit(group.vote(2, commit(1, 1, batch.digest())))));
    assert_eq!(executed(&outputs), []);
}

/// "a replica stops voting in views up to v" (§7.1): an older new view than the one asked for is refused.
#[test]
fn a_new_view_below_the_one_that_was_asked_for_is_refused() {
    let mut backup = Subject::of_four(3);
    let group = backup.group.clone();
    let rests_on = view_changes(&group, 1, &[0, 1, 2]);
    hear_view_changes(&mut backup, &view_changes(&group, 2, &[0, 1]));
    assert_eq!(backup.replica.mode(), Mode::ViewChange { to: view(2) });
    backup.hear(1, Message::NewView(new_view(&group, 1, &rests_on, &[])));
    hear_view_changes(&mut backup, &rests_on);
    assert_eq!(backup.replica.view(), view(0));
    assert!(backup.replica.refusals()[&Refusal::OldView] >= 1);
}

/// "It takes the next slot" (§4.2): after the last that the new view proposes.
#[test]
fn a_new_primary_proposes_above_what_its_new_view_proposes() {
    let mut primary = Subject::of_four(1);
    let group = primary.group.clone();
    let batch = group.batch(0);
    primary.hear(0, Message::Status(crate::support::subject::idle_status(0)));
    primary.ask(group.opening(client(7), 1));
    let mut rests_on = view_changes(&group, 1, &[2]);
    rests_on.push((3, group.view_change(3, 1, None, vec![group.prepared(0, 2, batch.digest(), &[0, 2, 3])])));
    hear_view_changes(&mut primary, &rests_on);
    let outputs = primary.sync();
    let proposed: Vec<u64> = appended(&outputs)
        .iter()
        .filter_map(|record| match record {
            Record::Accepted(vote, Some(batch)) if !batch.is_empty() => Some(vote.statement.sequence.value()),
            _ => None,
        })
        .collect();
    assert_eq!(primary.replica.view(), view(1));
    assert_eq!(proposed, [3]);
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

/// "Everyone fetches the view changes it lacks" (§7.4): a liar's new view that can never be completed holds up nobody.
#[test]
fn a_new_view_that_names_nothing_real_does_not_keep_a_replica_from_the_views_of_others() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let named = view_changes(&group, 1001, &[0, 1, 3]);
    backup.hear(1, Message::NewView(new_view(&group, 1001, &named, &[])));
    backup.pass_with_primary_alive(200);
    let outputs = backup.hear(3, Message::Status(crate::support::subject::idle_status(4)));
    assert!(said(&outputs).contains(&Message::Fetch(Fetch::NewView { view: view(4) })));
}

/// "`NewView`: the highest of each who hands it on" (§3, table), while it waits for view changes.
#[test]
fn one_new_view_that_waits_is_kept_of_each_sender() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let incomplete = |of_view| {
        let rests_on = view_changes(&group, of_view, &[0, 1, 3]);
        Message::NewView(new_view(&group, of_view, &rests_on, &[]))
    };
    let of_view = |turn: u64, sender: u8| 4 * turn + u64::from(sender);
    for turn in [1, 2, 9, 5, 9] {
        for sender in [0, 1, 3] {
            backup.hear(sender, incomplete(of_view(turn, sender)));
        }
    }
    assert_eq!(backup.replica.refusals()[&Refusal::Duplicate], 6, "those that were not the highest");
    let mut asked: Vec<_> = said(&backup.pass(100)).into_iter().filter(is_fetch_of_view_change).collect();
    let named = [0, 1, 3].into_iter().flat_map(|sender| view_changes(&group, of_view(9, sender), &[0, 1, 3]));
    let expected = named.map(|(_, signed)| {
        Message::Fetch(Fetch::ViewChange { digest: view_change_digest(group.cluster(), &signed.body) })
    });
    for message in expected {
        let place = asked.iter().position(|asked| *asked == message).expect("each is asked for once");
        asked.swap_remove(place);
    }
    assert_eq!(asked, [], "and nothing else");
}

/// "Leaving view v, a replica stops voting in views up to v" (§7.1): so it enters none of them by a new view that is whole
/// only afterwards.
#[test]
fn a_new_view_that_is_whole_too_late_is_not_entered() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let rests_on = view_changes(&group, 1, &[0, 1, 3]);
    backup.hear(1, Message::NewView(new_view(&group, 1, &rests_on, &[])));
    hear_view_changes(&mut backup, &view_changes(&group, 5, &[0, 1]));
    assert_eq!(backup.replica.mode(), Mode::ViewChange { to: view(5) });
    hear_view_changes(&mut backup, &rests_on);
    assert_eq!((backup.replica.view(), backup.replica.mode()), (view(0), Mode::ViewChange { to: view(5) }));
    assert_eq!(backup.replica.refusals()[&Refusal::OldView], 1);
}

/// The same: what waits for a view above the one that is entered goes on waiting.
#[test]
fn a_new_view_that_waits_outlasts_entering_a_lower_view() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let of_higher = view_changes(&group, 3, &[0, 1, 3]);
    backup.hear(3, Message::NewView(new_view(&group, 3, &of_higher, &[])));
    let of_lower = view_changes(&group, 1, &[0, 1, 3]);
    hear_view_changes(&mut backup, &of_lower);
    backup.hear(1, Message::NewView(new_view(&group, 1, &of_lower, &[])));
    assert_eq!(backup.replica.view(), view(1));
    hear_view_changes(&mut backup, &of_higher);
    assert_eq!(backup.replica.view(), view(3));
}

/// The same: what waits for the view that is entered waits no more.
#[test]
fn nothing_is_fetched_for_another_new_view_of_the_view_that_was_entered() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let nobody_has =
        [0, 1, 3].map(|id| (id, group.view_change(id, 1, Some(group.stable(4, digest(4), &[0, 1, 3])), vec![])));
    backup.hear(3, Message::NewView(new_view(&group, 1, &nobody_has, &[])));
    let rests_on = view_changes(&group, 1, &[0, 1, 3]);
    hear_view_changes(&mut backup, &rests_on);
    backup.hear(1, Message::NewView(new_view(&group, 1, &rests_on, &[])));
    assert_eq!(backup.replica.view(), view(1));
    assert_eq!(said(&backup.pass(200)).into_iter().filter(is_fetch_of_view_change).collect::<Vec<_>>(), []);
}

/// "All vote ... on slots above their low watermark" (§7.4): on none at or below it, though its batch comes late.
#[test]
fn a_slot_that_is_stable_by_the_time_its_batch_comes_is_not_voted_on() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let batch = group.batch(1);
    let prepared = group.prepared(0, 1, batch.digest(), &[0, 1, 3]);
    let rests_on = [
        (0, group.view_change(0, 1, None, vec![prepared])),
        (1, group.empty_view_change(1, 1)),
        (3, group.empty_view_change(3, 1)),
    ];
    hear_view_changes(&mut backup, &rests_on);
    backup.hear(1, Message::NewView(new_view(&group, 1, &rests_on, &[(1, batch.digest())])));
    backup.hear(0, Message::Stable(group.stable(4, digest(4), &[0, 1, 3])));
    let fetched = FetchedBatch { sequence: slot(1), batch: batch.body().clone().into() };
    assert_eq!(appended(&backup.hear(1, Message::Batch(fetched))), []);
}

fn is_fetch_of_view_change(message: &Message) -> bool {
    matches!(message, Message::Fetch(Fetch::ViewChange { .. }))
}

/// "lies within the watermarks" (§4.3): proposals that come before their view are kept, of each member as many as a
/// pipeline holds by default.
#[test]
fn a_few_proposals_of_a_view_not_entered_yet_are_kept() {
    let group = Group::new(4, Parameters { window: 32, ..crate::support::small() });
    let batch = |sequence: u64| group.batch(u8::try_from(sequence).expect("small"));
    let accepted_after = |of_view: u64, proposals: &[(u64, u64)]| {
        let mut backup = Subject::new(&group, 2);
        for (of_view, sequence) in proposals {
            let message = group.pre_prepare(1, *of_view, *sequence, &batch(*sequence));
            assert_eq!(backup.hear(1, message), []);
        }
        let rests_on = view_changes(&group, of_view, &[0, 1, 3]);
        hear_view_changes(&mut backup, &rests_on);
        let outputs = backup.hear(1, Message::NewView(new_view(&group, of_view, &rests_on, &[])));
        assert_eq!(backup.replica.view(), view(of_view));
        let records = appended(&outputs).into_iter();
        let slots = records.filter_map(|record| match record {
            Record::Accepted(vote, _) => Some(vote.statement.sequence.value()),
            _ => None,
        });
        slots.collect::<Vec<u64>>()
    };
    let of_view = |of_view: u64, slots: std::ops::RangeInclusive<u64>| -> Vec<(u64, u64)> {
        slots.map(|sequence| (of_view, sequence)).collect()
    };
    assert_eq!(accepted_after(1, &of_view(1, 1..=20)), (1..=8).collect::<Vec<_>>());
    let mut backup = Subject::new(&group, 2);
    for (count, sequence) in [(1, 1), (2, 2), (3, 3)] {
        backup.hear(1, group.pre_prepare(1, 1, sequence, &batch(sequence)));
        assert_eq!(backup.replica.early_proposals_max(), count);
    }
    assert_eq!(accepted_after(1, &of_view(1, 31..=34)), [31, 32], "none above the high watermark");
    let both = [of_view(1, 1..=8), of_view(5, 9..=20)].concat();
    assert_eq!(accepted_after(5, &both), (9..=16).collect::<Vec<_>>(), "those of a lower view give way");
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

/// "It keeps a batch that it voted for until the slot is decided or stable, since a certificate that only a liar holds may
/// name it many views later" (§4.3)
#[test]
fn what_was_voted_for_in_any_view_is_handed_out_until_the_slot_is_decided() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let voted_in = [0, 1, 3, 4, 5, 7, 8, 9];
    for of_view in voted_in {
        if of_view > 0 {
            let rests_on = view_changes(&group, of_view, &[0, 1, 3]);
            hear_view_changes(&mut backup, &rests_on);
            let primary = group.0.primary(view(of_view)).value();
            backup.hear(primary, Message::NewView(new_view(&group, of_view, &rests_on, &[])));
        }
        let primary = group.0.primary(view(of_view)).value();
        let batch = group.batch(u8::try_from(of_view).expect("small"));
        assert_eq!(appended(&backup.hear(primary, group.pre_prepare(primary, of_view, 1, &batch))).len(), 1);
    }
    let handed_out = |subject: &mut Subject| -> Vec<u64> {
        subject.pass(100);
        let is_answered = |of_view: &u64| {
            let digest = group.batch(u8::try_from(*of_view).expect("small")).digest();
            let outputs = subject.hear(3, Message::Fetch(Fetch::Batch { sequence: slot(1), digest }));
            said(&outputs).iter().any(|message| matches!(message, Message::Batch(_)))
        };
        voted_in.into_iter().filter(is_answered).collect()
    };
    assert_eq!(handed_out(&mut backup), voted_in);
    assert_eq!(handed_out(&mut backup.restart()), voted_in);
    let batch = group.batch(9);
    backup.hear_all([0, 1, 3].map(|id| (id, group.commit(id, 9, 1, batch.digest()))));
    assert_eq!(handed_out(&mut backup), [9]);
    assert_eq!(handed_out(&mut backup.restart()), [9]);
}

/// "`NewView` ... the highest of each who hands it on" (§3, table): a primary that shows one replica another new view, of this
/// view or of one to come, with view changes that nobody has, keeps it from no view that others are in.
#[test]
fn a_second_new_view_of_a_lying_primary_keeps_nobody_from_the_one_that_others_entered() {
    let group = Group::of_four();
    let rests_on = view_changes(&group, 1, &[0, 1, 3]);
    let nobody_has =
        [0, 1, 3].map(|id| (id, group.view_change(id, 1, Some(group.stable(4, digest(4), &[0, 1, 3])), vec![])));
    let of_a_later_view = view_changes(&group, 5, &[0, 1, 3]);
    for lie in [new_view(&group, 1, &nobody_has, &[]), new_view(&group, 5, &of_a_later_view, &[])] {
        let mut backup = Subject::new(&group, 2);
        backup.hear(1, Message::NewView(lie));
        backup.pass_with_primary_alive(200);
        let outputs = backup.hear(3, Message::Status(crate::support::subject::idle_status(1)));
        assert!(said(&outputs).contains(&Message::Fetch(Fetch::NewView { view: view(1) })));
        let outputs = backup.hear(3, Message::NewView(new_view(&group, 1, &rests_on, &[])));
        let is_asked = |output: &&Output| matches!(output, Output::Send { to, message: Message::Fetch(Fetch::ViewChange { .. }) } if *to == replica(3));
        assert_eq!(outputs.iter().filter(is_asked).count(), 3, "{outputs:?}");
        hear_view_changes(&mut backup, &rests_on);
        assert_eq!(backup.replica.view(), view(1));
    }
}
