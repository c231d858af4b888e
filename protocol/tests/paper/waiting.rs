//! §7.4, with something missing: new views, view changes and batches that are waited for.

use quorate_protocol::Output;
use quorate_protocol::configuration::Parameters;
use quorate_protocol::message::{Fetch, FetchedBatch, Message, view_change_digest};
use quorate_protocol::record::Record;
use quorate_protocol::refusal::Refusal;
use quorate_protocol::replica::Mode;

use crate::support::subject::{Subject, appended, said};
use crate::support::{Group, digest, replica, slot, view};
use crate::view_change::{hear_view_changes, new_view, view_changes};

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
pub(super) fn sent_to(outputs: &[Output], wanted: fn(&Message) -> bool) -> Vec<u8> {
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
