//! §9: state transfer. From the root down, what differs, from several at once, each part checked on arrival.

use std::collections::BTreeSet;

use quorate_crypto::Digest;
use quorate_protocol::codec::{Blob, List};
use quorate_protocol::input::TransferLimits;
use quorate_protocol::message::{Content, Entry, Fetch, Message, Want};
use quorate_protocol::output::{Notice, StagedBucket};
use quorate_protocol::refusal::Refusal;
use quorate_protocol::state::{bucket_of, leaf_of};
use quorate_protocol::{Input, Output};

use crate::checkpoints::install;
use crate::support::state::{
    BUCKETS, DEPTH, LIMITS, application, application_root, content, hand_out, leaves, no_leaves, ready, serve, wants,
};
use crate::support::subject::{Subject, executed, idle_status, notices};
use crate::support::transfer::{behind_a_checkpoint, in_transfer_upon, status_at};
use crate::support::{digest, replica, slot};

fn in_transfer(holders: &[u8]) -> (Subject, Vec<Output>, Vec<Entry>) {
    in_transfer_upon(holders, no_leaves(), LIMITS)
}

/// The same, once the crown and the protocol's entries are here: with what it asks then.
fn in_groups(holders: &[u8]) -> (Subject, Vec<(u8, u64, Want)>, Vec<Entry>) {
    let (mut behind, outputs, protocol) = in_transfer(holders);
    let mut asked = wants(&outputs);
    while asked.iter().any(|(_, _, want)| matches!(want, Want::Crown | Want::Protocol { .. })) {
        let (from, sequence, want) = asked.remove(0);
        let truth = content(slot(sequence), &protocol, &want);
        asked.extend(wants(&hand_out(&mut behind, from, slot(sequence), want, truth)));
    }
    (behind, asked, protocol)
}

fn staged(outputs: &[Output]) -> Vec<StagedBucket> {
    let buckets = outputs.iter().filter_map(|output| match output {
        Output::StageBuckets(buckets) => Some(buckets.clone()),
        _ => None,
    });
    buckets.flatten().collect()
}

fn replaced(outputs: &[Output], source: u8, lied: bool) -> bool {
    notices(outputs).contains(&Notice::TransferSourceReplaced { source: replica(source), lied })
}

/// "Where nobody hands them out any more it fetches the state at a checkpoint" (§9): not before all were asked who say that
/// they do.
#[test]
fn a_state_transfer_waits_until_all_were_asked_who_claim_to_hand_out_slots() {
    let (_, mut behind) = behind_a_checkpoint();
    let claims = |stable| {
        let mut status = idle_status(0);
        (status.stable, status.executed, status.decided_from) = (slot(stable), slot(4), slot(1));
        Message::Status(status)
    };
    let mut pass = |milliseconds: u64| {
        for _ in 0..milliseconds / 100 {
            behind.hear_all([0, 2, 3].map(|id| (id, claims(4))));
            behind.pass(100);
        }
        behind.replica.transfer_target()
    };
    assert_eq!(pass(1_000), None);
    assert_eq!(pass(1_000), Some(slot(4)));
}

/// "a state transfer counts as executing up to its checkpoint" (§2.4)
#[test]
fn a_replica_takes_a_checkpoint_where_nobody_hands_out_slots() {
    let (source, mut behind) = behind_a_checkpoint();
    let outputs = install(&mut behind, &source);
    assert!(notices(&outputs).contains(&Notice::TransferEnded { sequence: slot(4) }));
    assert_eq!((behind.replica.executed(), behind.replica.transfer_target()), (slot(4), None));
    assert_eq!(behind.replica.state_root_at(slot(4)), source.replica.state_root_at(slot(4)));
    let group = behind.group.clone();
    assert_eq!(executed(&behind.decide(0, 5, &group.batch(5))), [5]);
    let mut found: Vec<Entry> = staged(&outputs).into_iter().flat_map(|bucket| bucket.entries).collect();
    let mut expected = application(slot(4));
    found.sort_by(|left, right| left.key.cmp(&right.key));
    expected.sort_by(|left, right| left.key.cmp(&right.key));
    assert_eq!(found, expected);
}

/// "only buckets that differ are fetched" (§9), and those that hold nothing there are emptied.
#[test]
fn what_is_the_same_is_not_fetched() {
    let (here, there) = (leaves(slot(2)), leaves(slot(4)));
    let differing = |index: &u32| here[*index as usize] != there[*index as usize];
    let expected: BTreeSet<u32> = (0..1 << DEPTH).filter(differing).collect();
    assert!((2..8).contains(&expected.len()), "some, and not most");
    let (mut behind, asked, protocol) = in_transfer_upon(&[2], here.clone(), LIMITS);
    let outputs = serve(&mut behind, &asked, &protocol);
    let numbers: BTreeSet<u32> = staged(&outputs).iter().map(|bucket| bucket.number).collect();
    assert_eq!(numbers, expected);
    let groups: BTreeSet<u32> = expected.iter().map(|number| number / u32::from(BUCKETS)).collect();
    let asked_leaves = wants(&outputs).into_iter().filter_map(|(_, _, want)| match want {
        Want::Leaves { group } => Some(u32::from(group)),
        _ => None,
    });
    assert_eq!(asked_leaves.collect::<BTreeSet<_>>(), groups);
    for bucket in staged(&outputs) {
        assert_eq!((leaf_of(&bucket.entries), bucket.leaf), (bucket.leaf, there[bucket.number as usize]));
        assert!(bucket.entries.iter().all(|entry| bucket_of(&entry.key, DEPTH) == bucket.number));
    }
    let empty: Vec<Digest> = there.iter().map(|leaf| if *leaf == Digest::ZERO { digest(1) } else { *leaf }).collect();
    let (mut behind, asked, protocol) = in_transfer_upon(&[2], empty.clone(), LIMITS);
    let emptied = staged(&serve(&mut behind, &asked, &protocol));
    assert!(emptied.iter().all(|bucket| bucket.entries.is_empty() && bucket.leaf == Digest::ZERO));
    assert_eq!(emptied.len(), empty.iter().filter(|leaf| **leaf == digest(1)).count());
}

/// A state that is here already needs nothing but the protocol's own entries.
#[test]
fn where_nothing_differs_no_group_is_asked_for() {
    let (mut behind, asked, protocol) = in_transfer_upon(&[2], leaves(slot(4)), LIMITS);
    let outputs = serve(&mut behind, &asked, &protocol);
    assert!(!wants(&outputs).iter().any(|(_, _, want)| matches!(want, Want::Leaves { .. })), "{outputs:?}");
    assert_eq!(outputs.last(), Some(&Output::StageEnd { sequence: slot(4), protocol }));
}

/// "from all who have them at once" (§9): each is at another group.
#[test]
fn all_who_hold_the_checkpoint_are_asked_at_once() {
    let (_, asked, _) = in_groups(&[2, 3]);
    let groups: BTreeSet<u16> = asked.iter().filter_map(|(_, _, want)| group_of(want)).collect();
    let sources: BTreeSet<u8> = asked.iter().map(|(to, _, _)| *to).collect();
    assert_eq!((groups.len(), sources), (4, BTreeSet::from([2, 3])));
}

fn group_of(want: &Want) -> Option<u16> {
    match want {
        Want::Leaves { group } | Want::Buckets { group, .. } => Some(*group),
        Want::Crown | Want::Protocol { .. } => None,
    }
}

/// What a liar may say instead of the truth.
fn lies(want: &Want, truth: &Content) -> Vec<Content> {
    let entry = || Entry { key: Blob::from(&b"a lie"[..]), value: Blob::EMPTY };
    let digests = |count| vec![digest(66); count];
    let mut lies = match truth {
        Content::Crown(_) => [0, 1, 3, 5].map(|count| Content::Crown(List::new(digests(count)).expect("few"))).to_vec(),
        Content::Leaves(leaves) => {
            let mut swapped = leaves.to_vec();
            swapped.reverse();
            let false_ones = [digests(0), digests(BUCKETS.into()), digests(5), swapped];
            false_ones.map(|leaves| Content::Leaves(List::new(leaves).expect("few"))).to_vec()
        }
        Content::Protocol { entries, .. } => {
            let of =
                |entries: Vec<Entry>, is_last| Content::Protocol { entries: List::new(entries).expect("few"), is_last };
            vec![
                of(vec![], false),
                of(vec![entry()], true),
                of(entries.to_vec(), true),
                of(entries.iter().rev().cloned().collect(), false),
            ]
        }
        Content::Buckets { entries, whole } => {
            let Want::Buckets { buckets, .. } = want else { return Vec::new() };
            let of = |entries: Vec<Entry>, whole| Content::Buckets { entries: List::new(entries).expect("few"), whole };
            let all = u16::try_from(buckets.len()).expect("few");
            let mut lies = vec![
                of(vec![], 0),
                of(vec![], 1),
                of(vec![entry()], *whole),
                of(entries.to_vec(), all + 1),
                of([entries.to_vec(), vec![entry()]].concat(), all),
            ];
            if *whole == 0 {
                lies.push(of(entries.to_vec(), 1));
            }
            lies
        }
    };
    lies.push(match want {
        Want::Crown => Content::Leaves(List::empty()),
        Want::Protocol { .. } | Want::Leaves { .. } | Want::Buckets { .. } => Content::Crown(List::empty()),
    });
    // Half of a true list is refused when it is said to be all of it.
    lies.retain(|lie| lie != truth);
    lies
}

/// "each part is checked on arrival" (§9): a source that lies is named and asked no more, and another does what it was asked for.
#[test]
fn a_source_that_lies_is_named_and_another_is_asked() {
    let mut told = 0;
    let (mut behind, outputs, protocol) = in_transfer(&[2, 3]);
    let mut asked = wants(&outputs);
    while let Some((from, sequence, want)) = asked.pop() {
        let truth = content(slot(sequence), &protocol, &want);
        for lie in lies(&want, &truth) {
            // Whether the protocol's entries are all that there are is known at their end.
            let is_early = matches!((&want, &truth), (Want::Protocol { .. }, Content::Protocol { is_last: false, .. }));
            if is_early && matches!(lie, Content::Protocol { is_last: false, ref entries } if entries.len() == 2) {
                continue;
            }
            let mut liar = behind.clone();
            let outputs = hand_out(&mut liar, from, slot(sequence), want.clone(), lie.clone());
            assert!(replaced(&outputs, from, true), "{want:?}: {lie:?}: {outputs:?}");
            assert_eq!(staged(&outputs), []);
            assert!(wants(&outputs).iter().all(|(to, _, _)| *to != from), "{outputs:?}");
            let others = asked.iter().filter(|(to, _, _)| *to != from).cloned();
            let elsewhere: Vec<_> = others.chain(wants(&outputs)).collect();
            assert!(finishes(liar, elsewhere, &protocol), "{want:?}: {lie:?}");
            told += 1;
        }
        asked.extend(wants(&hand_out(&mut behind, from, slot(sequence), want, truth)));
    }
    assert!(told > 50, "{told}");
}

/// Whether all is staged that is certified, if these questions and those that follow are answered with the truth.
fn finishes(mut behind: Subject, mut asked: Vec<(u8, u64, Want)>, protocol: &[Entry]) -> bool {
    let mut outputs = Vec::new();
    while let Some((from, sequence, want)) = asked.pop() {
        let truth = content(slot(sequence), protocol, &want);
        outputs = hand_out(&mut behind, from, slot(sequence), want, truth);
        asked.extend(wants(&outputs));
    }
    matches!(outputs.last(), Some(Output::StageEnd { .. }))
}

/// A part that was not asked for is no lie, whoever it comes from.
#[test]
fn only_who_was_asked_for_a_part_is_listened_to() {
    let (mut behind, outputs, protocol) = in_transfer(&[2, 3]);
    let (from, sequence, want) = wants(&outputs).remove(0);
    let truth = content(slot(sequence), &protocol, &want);
    let other = if from == 2 { 3 } else { 2 };
    assert_eq!(hand_out(&mut behind, other, slot(sequence), want.clone(), truth.clone()), []);
    assert_eq!(hand_out(&mut behind, from, slot(sequence + 4), want.clone(), truth.clone()), []);
    let group = Want::Leaves { group: 0 };
    assert_eq!(hand_out(&mut behind, from, slot(sequence), group, truth.clone()), []);
    assert_eq!(behind.replica.refusals()[&Refusal::Unasked], 3);
    assert_ne!(hand_out(&mut behind, from, slot(sequence), want, truth), []);
}

/// Hands out to `behind` all that it asks for, `other` at once; the `slow` one answers one question in a tenth of a second, or
/// none at all. Gives what came of it, until all is staged.
fn serve_beside(behind: &mut Subject, asked: Vec<(u8, u64, Want)>, slow: u8, answers: bool) -> Vec<Output> {
    let group = behind.group.clone();
    let mut protocol = Subject::new(&group, 2);
    for sequence in 1..=4 {
        protocol.decide(0, sequence, &group.batch(u8::try_from(sequence).expect("small")));
        protocol.settle();
    }
    let protocol = protocol.protocol();
    let (mut asked, mut came) = (asked, Vec::new());
    for _ in 0..200 {
        let (of_slow, of_other): (Vec<_>, Vec<_>) = asked.into_iter().partition(|(to, _, _)| *to == slow);
        let mut now = of_other;
        let mut later = of_slow;
        if answers && !later.is_empty() {
            now.push(later.remove(0));
        }
        let mut outputs = Vec::new();
        for (from, sequence, want) in now {
            let truth = content(slot(sequence), &protocol, &want);
            outputs.extend(hand_out(behind, from, slot(sequence), want, truth));
        }
        outputs.extend(behind.hear_all([2, 3].map(|id| (id, status_at(4, 4)))));
        outputs.extend(behind.pass_with_primary_alive(100));
        asked = later.into_iter().chain(wants(&outputs)).collect();
        came.extend(outputs);
        if came.iter().any(|output| matches!(output, Output::StageEnd { .. })) {
            return came;
        }
    }
    unreachable!("it does not end: {came:?}")
}

/// "what a source does not do in time, another does" (§9)
#[test]
fn a_source_that_does_not_answer_is_replaced() {
    let (mut behind, asked, _) = in_groups(&[2, 3]);
    let silent = asked[0].0;
    let outputs = serve_beside(&mut behind, asked, silent, false);
    assert!(replaced(&outputs, silent, false), "{outputs:?}");
}

/// "one that hands out an entry now and then holds up what it was asked for no longer than that" (§9)
#[test]
fn what_a_dripping_source_was_asked_for_is_given_to_another() {
    let (mut behind, asked, _) = in_groups(&[2, 3]);
    let dripping = asked[0].0;
    let outputs = serve_beside(&mut behind, asked, dripping, true);
    assert!(replaced(&outputs, dripping, false), "{outputs:?}");
}

/// "and so is what is asked for in a second" (§9): the next question waits for that.
#[test]
fn no_more_is_asked_for_than_the_machine_allows() {
    let limits = TransferLimits { bytes_per_second: 1_000, ..LIMITS };
    let (mut behind, outputs, protocol) = in_transfer_upon(&[0, 2, 3], no_leaves(), limits);
    let start = behind.now_ms;
    let (mut asked, mut ended) = (wants(&outputs), false);
    while !ended {
        assert!(asked.len() <= 4, "no more than there are groups: {asked:?}");
        let mut outputs = Vec::new();
        if let Some((from, sequence, want)) = asked.pop() {
            let truth = content(slot(sequence), &protocol, &want);
            outputs = hand_out(&mut behind, from, slot(sequence), want, truth);
        }
        outputs.extend(behind.pass_with_primary_alive(10));
        ended = outputs.iter().any(|output| matches!(output, Output::StageEnd { .. }));
        asked.extend(wants(&outputs));
        assert!(behind.now_ms - start < 120_000);
    }
    let bytes: usize = application(slot(4)).iter().map(|entry| entry.key.len() + entry.value.len() + 64).sum();
    // Nothing waits for the last answers.
    let least = bytes as u64 - 4 * 2 * 68;
    assert!(behind.now_ms - start >= least, "{} ms for {bytes} bytes", behind.now_ms - start);
}

/// "What is not checked yet is bounded" (§9): a source without an end is one that lies.
#[test]
fn a_source_without_an_end_is_cut_off() {
    let limits = TransferLimits { unchecked_bytes_max: 2_000, ..LIMITS };
    let (mut behind, outputs, protocol) = in_transfer_upon(&[2, 3], no_leaves(), limits);
    let mut asked = wants(&outputs);
    let (from, sequence, want) = asked.remove(0);
    let crown = content(slot(sequence), &protocol, &want);
    let mut asked = wants(&hand_out(&mut behind, from, slot(sequence), want, crown));
    for number in 0_u32..100 {
        let (to, sequence, want) = asked.remove(0);
        assert_eq!(to, from);
        let entry = Entry { key: number.to_be_bytes()[..].into(), value: Blob::EMPTY };
        let endless = Content::Protocol { entries: List::new(vec![entry]).expect("one"), is_last: false };
        let outputs = hand_out(&mut behind, to, slot(sequence), want, endless);
        if replaced(&outputs, from, true) {
            assert!((20..40).contains(&number), "{number} entries of 68 bytes");
            return;
        }
        asked = wants(&outputs);
    }
    panic!("it goes on for ever");
}

/// "The transfer turns to the newest stable checkpoint" (§9): when only a silent source
/// says for ever that it holds the old one.
#[test]
fn a_transfer_turns_to_the_newer_checkpoint_when_only_a_silent_source_holds_the_old_one() {
    let (mut behind, asked, protocol) = in_groups(&[2]);
    let mut done = Vec::new();
    for (from, sequence, want) in asked {
        let truth = content(slot(sequence), &protocol, &want);
        let outputs = hand_out(&mut behind, from, slot(sequence), want, truth);
        let (from, sequence, want) = wants(&outputs).remove(0);
        let truth = content(slot(sequence), &protocol, &want);
        done.extend(staged(&hand_out(&mut behind, from, slot(sequence), want, truth)));
    }
    let group = behind.group.clone();
    behind.hear(3, Message::Stable(group.stable(8, digest(8), &[0, 2, 3])));
    behind.hear_all([(0, status_at(8, 8)), (3, status_at(8, 8))]);
    let mut outputs = Vec::new();
    for _ in 0..5 {
        outputs.extend(behind.hear_all([(0, status_at(8, 8)), (2, status_at(4, 4))]));
        outputs.extend(behind.pass(100));
    }
    let last = wants(&outputs).pop();
    assert!(matches!(last, Some((0 | 3, 8, Want::Crown))), "{last:?}");
    assert_eq!(behind.replica.transfer_target(), Some(slot(8)));
}

/// "If nobody can read the stable state any more ..., a later checkpoint that `w` members voted for will do" (§9)
#[test]
fn a_transfer_turns_to_a_vouched_checkpoint_when_no_source_goes_on() {
    let (mut behind, _, _) = in_transfer(&[2]);
    let group = behind.group.clone();
    for id in [0, 3] {
        behind.hear(id, group.checkpoint(id, 8, digest(8)));
    }
    let mut outputs = Vec::new();
    for _ in 0..18 {
        outputs.extend(behind.hear_all([0, 2, 3].map(|id| (id, status_at(4, 8)))));
        outputs.extend(behind.pass(100));
    }
    let asked = wants(&outputs);
    let first: BTreeSet<u8> =
        asked.iter().take_while(|(_, sequence, _)| *sequence == 4).map(|(to, _, _)| *to).collect();
    assert!(first.len() >= 2, "first it asks others: {asked:?}");
    assert!(asked.iter().any(|(to, sequence, _)| matches!(to, 0 | 3) && *sequence == 8), "{asked:?}");
}

/// "Where all are late, each has twice as much time" (§9): where links are slower than expected,
/// all sources would be replaced in turn for ever.
#[test]
fn where_nobody_answers_in_time_all_have_more_time() {
    let (mut behind, outputs, _) = in_transfer(&[2, 3]);
    let cap = u64::from(behind.group.0.parameters().deadline_cap_ms);
    let start = behind.now_ms;
    let (mut last, mut waits) = (start, Vec::new());
    let mut current = wants(&outputs).remove(0).0;
    while behind.now_ms - start < 60_000 {
        let mut outputs = behind.hear_all([2, 3].map(|id| (id, status_at(4, 4))));
        outputs.extend(behind.pass_with_primary_alive(50));
        if let Some((to, _, _)) = wants(&outputs).into_iter().next() {
            waits.push(behind.now_ms - last);
            (last, current) = (behind.now_ms, to);
        }
    }
    assert!(matches!(current, 2 | 3));
    assert!(waits[0] <= 350, "{waits:?}");
    assert!(waits.is_sorted_by(|one, next| *next + 150 >= *one), "they only grow: {waits:?}");
    assert!((cap..=cap + 150).contains(waits.last().expect("some")), "{waits:?}");
}

/// "for what was handed over to it, for an answer after others and for the whole" (§9): where one source is silent, what takes
/// the others longer than a source has for it at first would be begun anew for ever, though each of their answers comes in time.
#[test]
fn what_takes_long_though_each_answer_comes_is_fetched_in_the_end() {
    let (mut behind, outputs, protocol) = in_transfer(&[0, 2, 3]);
    let due = |now: u64, outputs: &[Output]| {
        let answered = wants(outputs).into_iter().filter(|(to, _, _)| *to != 0);
        answered.map(move |question| (now + 200, question))
    };
    let start = behind.now_ms;
    let mut under_way: Vec<_> = due(start, &outputs).collect();
    let mut ended = false;
    while !ended {
        assert!(behind.now_ms - start < 12_000, "it does not end");
        let now = behind.now_ms;
        let mut outputs = Vec::new();
        for (_, (from, sequence, want)) in under_way.extract_if(.., |(at, _)| *at <= now) {
            let truth = content(slot(sequence), &protocol, &want);
            outputs.extend(hand_out(&mut behind, from, slot(sequence), want, truth));
        }
        outputs.extend(behind.hear_all([0, 2, 3].map(|id| (id, status_at(4, 4)))));
        outputs.extend(behind.pass_with_primary_alive(50));
        ended = outputs.iter().any(|output| matches!(output, Output::StageEnd { .. }));
        under_way.extend(due(behind.now_ms, &outputs));
    }
}

/// "for an answer after others and for the whole" (§9): where one answer in a few is late, what takes many would be begun anew for ever.
#[test]
fn an_answer_that_comes_late_after_others_makes_the_next_source_have_more_time() {
    let (mut behind, mut asked, protocol) = in_groups(&[2]);
    let mut waits = Vec::new();
    for _ in 0..3 {
        // The first answers come at once, those after them never.
        while let Some(first) = asked.iter().position(|(_, _, want)| matches!(want, Want::Leaves { .. })) {
            let (from, sequence, want) = asked.remove(first);
            let truth = content(slot(sequence), &protocol, &want);
            behind.pass(1);
            asked.extend(wants(&hand_out(&mut behind, from, slot(sequence), want, truth)));
        }
        let since = behind.now_ms;
        asked = loop {
            let mut outputs = behind.hear_all([(2, status_at(4, 4))]);
            outputs.extend(behind.pass_with_primary_alive(20));
            if replaced(&outputs, 2, false) {
                break wants(&outputs);
            }
        };
        waits.push(behind.now_ms - since);
    }
    assert!((280..=320).contains(&waits[0]), "{waits:?}");
    assert!(waits.windows(2).all(|pair| pair[1] + 40 >= 2 * pair[0]), "{waits:?}");
}

/// "and then as soon as one can be read" (§9): a checkpoint that nobody has any more is not waited for, and nor is the bound.
#[test]
fn a_transfer_turns_to_a_checkpoint_as_soon_as_that_can_be_read() {
    let (mut behind, _, _) = in_groups(&[2]);
    let group = behind.group.clone();
    behind.hear(3, Message::Stable(group.stable(8, digest(8), &[0, 2, 3])));
    let mut outputs = Vec::new();
    // Whoever had it has a later one by now, of which nothing is known here.
    for _ in 0..15 {
        outputs.extend(behind.hear_all([0, 2, 3].map(|id| (id, status_at(12, 12)))));
        outputs.extend(behind.pass_with_primary_alive(100));
    }
    assert!(replaced(&outputs, 2, false), "{outputs:?}");
    let at_other = |outputs: &[Output]| wants(outputs).iter().any(|(_, sequence, _)| *sequence != 4);
    assert!(!at_other(&outputs), "{outputs:?}");
    let mut outputs = behind.hear(0, status_at(8, 8));
    outputs.extend(behind.pass_with_primary_alive(100));
    assert!(at_other(&outputs), "{outputs:?}");
    assert_eq!(behind.replica.transfer_target(), Some(slot(8)));
}

/// "unless something was lost on the way to the disk or back" (§9): then all of it is fetched again.
#[test]
fn a_state_that_is_not_what_was_fetched_is_fetched_afresh() {
    let (mut behind, asked, protocol) = in_transfer_upon(&[2], leaves(slot(2)), LIMITS);
    let outputs = serve(&mut behind, &asked, &protocol);
    assert_eq!(outputs.last(), Some(&Output::StageEnd { sequence: slot(4), protocol: protocol.clone() }));
    for wrong in [None, Some(digest(66))] {
        let mut spoilt = behind.clone();
        let outputs = spoilt.step(Input::StateStaged { sequence: slot(4), application_root: wrong });
        assert!(notices(&outputs).contains(&Notice::TransferSpoilt { sequence: slot(4) }));
        assert_eq!(outputs.last(), Some(&Output::StageBegin { afresh: true }));
        assert_eq!(spoilt.replica.executed(), slot(0));
        let asked = spoilt.step(ready(no_leaves()));
        let outputs = serve(&mut spoilt, &asked, &protocol);
        assert_eq!(staged(&outputs).len(), leaves(slot(4)).iter().filter(|leaf| **leaf != Digest::ZERO).count());
        let root = Some(application_root(slot(4)));
        let outputs = spoilt.step(Input::StateStaged { sequence: slot(4), application_root: root });
        assert_eq!(outputs.last(), Some(&Output::StageInstall));
    }
}

/// "a source that lies is named and asked no more" (§9): of a vouched checkpoint too, whoever else vouches for it.
#[test]
fn a_source_that_lies_about_a_vouched_checkpoint_is_replaced_by_another_that_vouches() {
    let (mut behind, _, _) = in_transfer(&[2]);
    let group = behind.group.clone();
    for id in [0, 3] {
        behind.hear(id, group.checkpoint(id, 8, digest(8)));
    }
    let mut asked = Vec::new();
    while asked.last().is_none_or(|(_, sequence, _)| *sequence != 8) {
        let mut outputs = behind.hear_all([0, 2, 3].map(|id| (id, status_at(4, 8))));
        outputs.extend(behind.pass(100));
        asked.extend(wants(&outputs));
        assert!(asked.len() < 40);
    }
    let (liar, sequence, want) = asked.pop().expect("one was asked");
    let outputs = hand_out(&mut behind, liar, slot(sequence), want, Content::Crown(List::empty()));
    assert!(replaced(&outputs, liar, true));
    assert_eq!(wants(&outputs), [(3 - liar, 8, Want::Crown)]);
}

/// What is asked for fits the frame of a vote.
#[test]
fn what_is_asked_for_is_within_bounds() {
    let (_, asked, _) = in_groups(&[0, 2, 3]);
    for (_, sequence, want) in asked {
        assert!(Fetch::Part { sequence: slot(sequence), want }.is_within_bounds());
    }
}
