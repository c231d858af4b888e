//! §7.3 to §7.6: a new view is made, checked, entered, and voted in.

use quorate_protocol::Output;
use quorate_protocol::batch::Batch;
use quorate_protocol::message::{Fetch, FetchedBatch, Message, view_change_digest};
use quorate_protocol::number::Epoch;
use quorate_protocol::output::{Notice, Suspicion};
use quorate_protocol::record::{NewViewRecord, Record};
use quorate_protocol::refusal::Refusal;
use quorate_protocol::replica::Mode;
use quorate_protocol::verify::{Invalid, verify};

use crate::support::subject::{Subject, appended, executed, notices, said, suspected};
use crate::support::{Group, StandInVerifier, client, commit, digest, prepare, replica, slot, view};
use crate::view_change::{hear_view_changes, new_view, view_changes};

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
