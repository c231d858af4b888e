//! §9: omission and lag. What is missing is asked for, what a peer lacks is sent again.

use quorate_protocol::codec::{Blob, List};
use quorate_protocol::input::StagedState;
use quorate_protocol::message::{Decided, Entry, Fetch, Message, Part, Progress};
use quorate_protocol::output::Notice;
use quorate_protocol::refusal::Refusal;
use quorate_protocol::{Input, Output};

use crate::checkpoints::install;
use crate::support::subject::{Subject, executed, idle_status, notices, said};
use crate::support::{Group, commit, digest, replica, slot, view};

/// "Every replica sends a small `Status` at each heartbeat: view, watermark, last executed slot, how far each slot is." (§9)
#[test]
fn a_status_is_sent_at_each_heartbeat() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    backup.decide(0, 1, &group.batch(1));
    backup.settle();
    backup.hear(0, group.pre_prepare(0, 0, 3, &group.batch(3)));
    backup.status = None;
    backup.pass(99);
    assert_eq!(backup.status, None);
    backup.pass(1);
    let status = backup.status.clone().expect("a heartbeat passed");
    assert_eq!((status.view, status.entered, status.executed), (view(0), true, slot(1)));
    assert_eq!(status.slots[..], [Progress::Nothing, Progress::PrePrepared]);
}

/// The same: it says too whose votes for its latest checkpoint it holds, and whose view changes.
#[test]
fn a_status_tells_whose_votes_it_holds() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    for sequence in 1..=4 {
        backup.decide(0, sequence, &group.batch(u8::try_from(sequence).expect("small")));
        backup.settle();
    }
    backup.hear(3, group.checkpoint(3, 4, backup.replica.state_root_at(slot(4)).expect("taken")));
    backup.hear(2, Message::ViewChange(group.empty_view_change(2, 1)));
    backup.pass(100);
    let status = backup.status.clone().expect("a heartbeat passed");
    assert_eq!((status.checkpoint_votes, status.view_changes), (0b1010, 0b0100));
}

/// The same: what is stable needs no votes any more.
#[test]
fn a_status_tells_of_no_votes_for_what_is_stable() {
    let (source, mut behind) = behind_a_checkpoint();
    install(&mut behind, &source);
    behind.pass(100);
    assert_eq!(behind.status.clone().expect("a heartbeat passed").checkpoint_votes, 0);
}

/// "A peer that stands where its status before stood gets what it lacks, within a budget; what was merely under way is not
/// sent twice." (§9)
#[test]
fn only_a_peer_that_stands_still_gets_votes_again() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let batch = group.batch(0);
    backup.decide(0, 1, &batch);
    backup.settle();
    backup.pass(100);
    let mut status = idle_status(0);
    assert_eq!(said(&backup.hear(3, Message::Status(status.clone()))), [], "the first status");
    let own = Message::Commit(group.vote(1, commit(0, 1, batch.digest())));
    let outputs = backup.hear(3, Message::Status(status.clone()));
    assert_eq!(said(&outputs), [group.prepare(1, 0, 1, batch.digest()), own.clone()]);
    status.slots = List::new(vec![Progress::Prepared]).expect("one");
    assert_eq!(said(&backup.hear(3, Message::Status(status.clone()))), [own], "it lacks the commit only");
    status.slots = List::new(vec![Progress::Committed]).expect("one");
    assert_eq!(said(&backup.hear(3, Message::Status(status.clone()))), []);
    status.executed = slot(1);
    status.slots = List::empty();
    assert_eq!(said(&backup.hear(3, Message::Status(status))), [], "it moved");
}

/// The same: only what is durable is sent, again too.
#[test]
fn a_vote_that_is_not_durable_is_not_sent_again_either() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    backup.hear(0, group.pre_prepare(0, 0, 1, &group.batch(0)));
    for _ in 0..3 {
        assert_eq!(said(&backup.hear(3, Message::Status(idle_status(0)))), []);
    }
}

/// The same: a primary sends the proposal with its batch to who has not accepted it.
#[test]
fn a_primary_sends_its_proposal_again() {
    let mut primary = Subject::of_four(0);
    let group = primary.group.clone();
    primary.ask(group.opening(crate::support::client(0), 1));
    let sent = said(&primary.sync());
    primary.hear(3, Message::Status(idle_status(0)));
    primary.pass(100);
    assert_eq!(said(&primary.hear(3, Message::Status(idle_status(0)))), sent);
}

/// "within a budget" (§9)
#[test]
fn a_peer_that_asks_again_and_again_is_refused_until_the_next_heartbeat() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    backup.decide(0, 1, &group.batch(1));
    backup.settle();
    backup.pass(100);
    let ask = || Message::Fetch(Fetch::Decided { after: slot(0) });
    let mut answers = 0_u64;
    while !said(&backup.hear(3, ask())).is_empty() {
        answers += 1;
        assert!(answers < 100_000, "there is no budget");
    }
    assert!(backup.replica.refusals()[&Refusal::RateExceeded] > 0);
    assert_eq!(said(&backup.hear(2, ask())).len(), 1, "each peer has its own");
    backup.pass(100);
    assert_eq!(said(&backup.hear(3, ask())).len(), 1);
}

/// The same: what its status lacks counts too, the proof of the watermark and of the view, and the view change.
#[test]
fn a_peer_that_says_again_and_again_that_it_lacks_something_is_refused_until_the_next_heartbeat() {
    let mut at_watermark = Subject::of_four(1);
    let group = at_watermark.group.clone();
    at_watermark.hear(0, Message::Stable(group.stable(4, digest(4), &[0, 2, 3])));
    let mut between_views = Subject::of_four(1);
    between_views.leave();
    between_views.settle();
    for mut backup in [at_watermark, between_views] {
        backup.pass(100);
        let mut answers = 0_u64;
        let before = backup.replica.refusals().get(&Refusal::RateExceeded).copied();
        while !said(&backup.hear(3, Message::Status(idle_status(0)))).is_empty() {
            answers += 1;
            assert!(answers < 20_000, "there is no budget");
        }
        assert!(answers > 0);
        assert!(backup.replica.refusals().get(&Refusal::RateExceeded).copied() > before);
        backup.pass(100);
        assert!(!said(&backup.hear(3, Message::Status(idle_status(0)))).is_empty(), "the next heartbeat");
    }
}

/// The same: the part of a state that was asked for last comes with the next heartbeat. The peer waits for it, and would turn
/// to another source, which may be a liar, for each sixteenth of a gigabyte.
#[test]
fn a_part_beyond_the_budget_is_handed_out_at_the_next_heartbeat() {
    let mut backup = Subject::of_four(1);
    backup.pass(100);
    let cursor = |number: u8| Blob::from(&[number][..]);
    let ask = |number| Message::Fetch(Fetch::Part { sequence: slot(4), cursor: cursor(number) });
    let part = |number| Output::SendPart { to: replica(3), sequence: slot(4), cursor: cursor(number) };
    for number in 0..64 {
        assert_eq!(backup.hear(3, ask(number)), [part(number)]);
    }
    for number in 64..70 {
        assert_eq!(backup.hear(3, ask(number)), [], "16 MiB are 64 parts");
    }
    assert_eq!(backup.hear(2, ask(7)).len(), 1, "each peer has its own");
    assert_eq!(backup.pass(100), [part(69)]);
    assert_eq!(backup.pass(1000).iter().filter(|output| matches!(output, Output::SendPart { .. })).count(), 0);
}

/// "Behind others, a replica fetches decided slots with their certificates, from one peer at a time." (§9)
#[test]
fn a_replica_behind_fetches_decided_slots_and_executes_them() {
    let mut behind = Subject::of_four(1);
    let group = behind.group.clone();
    let mut status = idle_status(0);
    status.executed = slot(3);
    let mut outputs = Vec::new();
    for _ in 0..2 {
        for id in [0, 2] {
            outputs.extend(behind.hear(id, Message::Status(status.clone())));
        }
        outputs.extend(behind.pass(100));
    }
    let fetches: Vec<&Output> = outputs.iter().filter(|output| matches!(output, Output::Send { .. })).collect();
    let fetch = Message::Fetch(Fetch::Decided { after: slot(0) });
    assert_eq!(fetches, [&Output::Send { to: replica(2), message: fetch }]);
    let decided = |sequence: u64| {
        let batch = group.batch(u8::try_from(sequence).expect("small"));
        let certificate = group.committed(0, sequence, batch.digest(), &[0, 2, 3]);
        Message::Decided(Decided { certificate, batch: batch.body().clone().into() })
    };
    let outputs: Vec<Output> = [3, 1, 2].into_iter().flat_map(|sequence| behind.hear(2, decided(sequence))).collect();
    assert_eq!(executed(&outputs), [1, 2, 3]);
}

/// The same: a peer that does not answer is replaced by the next.
#[test]
fn a_peer_that_does_not_hand_out_what_it_claims_is_replaced() {
    let mut behind = Subject::of_four(1);
    let mut status = idle_status(0);
    status.executed = slot(3);
    let mut asked = Vec::new();
    for _ in 0..10 {
        for id in [0, 2, 3] {
            behind.hear(id, Message::Status(status.clone()));
        }
        asked.extend(behind.pass(100).into_iter().filter_map(|output| match output {
            Output::Send { to, message: Message::Fetch(Fetch::Decided { .. }) } => Some(to.value()),
            _ => None,
        }));
    }
    assert_eq!(asked[..3], [2, 3, 0]);
}

/// "Where nobody hands them out any more it fetches a whole checkpoint" (§9): not before all were asked who say that they do.
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

/// A source that is late is named when another takes its place, and not when it is the only one.
#[test]
fn a_late_source_is_named_when_it_is_replaced() {
    for (holders, expected) in [(&[2, 3][..], 1), (&[2], 0)] {
        let (mut behind, _) = in_transfer(holders);
        let outputs = behind.pass_with_primary_alive(400);
        let replaced = Notice::TransferSourceReplaced { source: replica(2), lied: false };
        let count = notices(&outputs).into_iter().filter(|notice| *notice == replaced).count();
        assert_eq!(count, expected, "{holders:?}: {outputs:?}");
    }
}

/// A member that reached slot 4, and one that has nothing but its stable certificate.
fn behind_a_checkpoint() -> (Subject, Subject) {
    let group = Group::of_four();
    let mut source = Subject::new(&group, 2);
    for sequence in 1..=4 {
        source.decide(0, sequence, &group.batch(u8::try_from(sequence).expect("small")));
        source.settle();
    }
    let root = source.replica.state_root_at(slot(4)).expect("taken");
    let mut behind = Subject::new(&group, 1);
    behind.hear(2, Message::Stable(group.stable(4, root, &[0, 2, 3])));
    (source, behind)
}

/// "Where nobody hands them out any more it fetches a whole checkpoint, part by part, and takes it only if its root is the
/// certified one" (§9); "a state transfer counts as executing up to its checkpoint" (§2.4)
#[test]
fn a_replica_takes_a_whole_checkpoint_where_nobody_hands_out_slots() {
    let (source, mut behind) = behind_a_checkpoint();
    let outputs = install(&mut behind, &source);
    assert!(notices(&outputs).contains(&Notice::TransferEnded { sequence: slot(4) }));
    assert_eq!((behind.replica.executed(), behind.replica.transfer_target()), (slot(4), None));
    assert_eq!(behind.replica.state_root_at(slot(4)), source.replica.state_root_at(slot(4)));
    let group = behind.group.clone();
    assert_eq!(executed(&behind.decide(0, 5, &group.batch(5))), [5]);
}

/// "a source that lies is named and replaced" (§9)
#[test]
fn a_source_whose_state_has_another_root_is_named_and_replaced() {
    let (source, mut behind) = behind_a_checkpoint();
    let mut status = idle_status(0);
    (status.stable, status.executed, status.decided_from) = (slot(4), slot(4), slot(5));
    behind.hear_all([2, 3].map(|id| (id, Message::Status(status.clone()))));
    let outputs = behind.pass_with_primary_alive(2000);
    let began = notices(&outputs).into_iter().find_map(|notice| match notice {
        Notice::TransferBegan { source, .. } => Some(source.value()),
        _ => None,
    });
    let liar = began.expect("a transfer began");
    let part = Part {
        sequence: slot(4),
        cursor: Blob::EMPTY,
        protocol: List::empty(),
        application: List::empty(),
        next: None,
    };
    assert_eq!(behind.hear(5 - liar, Message::Part(part.clone())), [], "only the source is listened to");
    let current = if said(&outputs).len() > 1 { behind.hear(liar, Message::Part(part.clone())) } else { vec![] };
    let teller = if current.contains(&Output::StageEnd) { liar } else { 5 - liar };
    if teller != liar {
        behind.hear(teller, Message::Part(part));
    }
    let staged = StagedState { sequence: slot(4), application_root: Some(digest(66)), protocol: source.protocol() };
    let outputs = behind.step(Input::StateStaged(staged));
    let replaced = notices(&outputs).into_iter().any(
        |notice| matches!(notice, Notice::TransferSourceReplaced { source, lied: true } if source == replica(teller)),
    );
    assert!(replaced, "{outputs:?}");
    assert_eq!(behind.replica.executed(), slot(0));
}

/// The status of a member whose stable checkpoint is at slot `stable`, and who can hand out nothing below `executed`.
fn status_at(stable: u64, executed: u64) -> Message {
    let mut status = idle_status(0);
    (status.stable, status.executed, status.decided_from) = (slot(stable), slot(executed), slot(executed + 1));
    Message::Status(status)
}

/// The parts that are asked for among `outputs`: whom, of which checkpoint, and whether it is the first part.
fn parts_asked(outputs: &[Output]) -> Vec<(u8, u64, bool)> {
    let asked = outputs.iter().filter_map(|output| match output {
        Output::Send { to, message: Message::Fetch(Fetch::Part { sequence, cursor }) } => {
            Some((to.value(), sequence.value(), cursor.is_empty()))
        }
        _ => None,
    });
    asked.collect()
}

/// One part with one entry, which leads to a next.
fn short_part(number: u8, cursor: Blob) -> (Message, Blob) {
    let next = Blob::from(&[number][..]);
    let entry = Entry { key: next.clone(), value: Blob::EMPTY };
    let part = Part {
        sequence: slot(4),
        cursor,
        protocol: List::empty(),
        application: List::new(vec![entry]).expect("one"),
        next: Some(next.clone()),
    };
    (Message::Part(part), next)
}

/// A member that is behind slot 4 and asked member 2 for its state, and got the first part of it.
fn in_transfer(holders: &[u8]) -> (Subject, Blob) {
    let (_, mut behind) = behind_a_checkpoint();
    behind.hear_all(holders.iter().map(|id| (*id, status_at(4, 4))));
    let mut asked = Vec::new();
    for _ in 0..20 {
        if asked.is_empty() {
            asked = parts_asked(&behind.pass_with_primary_alive(100));
        }
    }
    assert_eq!(asked, [(2, 4, true)]);
    let (part, cursor) = short_part(1, Blob::EMPTY);
    assert_eq!(parts_asked(&behind.hear(2, part)), [(2, 4, false)]);
    (behind, cursor)
}

/// "A transfer begins anew, of the newest stable checkpoint, ... when every source was late in turn." (§9): the one that fell
/// silent after its first part says for ever that it holds the old one.
#[test]
fn a_transfer_turns_to_the_newer_checkpoint_when_only_a_silent_source_holds_the_old_one() {
    let (mut behind, _) = in_transfer(&[2]);
    let group = behind.group.clone();
    behind.hear(3, Message::Stable(group.stable(8, digest(8), &[0, 2, 3])));
    behind.hear_all([(0, status_at(8, 8)), (3, status_at(8, 8))]);
    let mut outputs = Vec::new();
    for _ in 0..5 {
        outputs.extend(behind.hear_all([(0, status_at(8, 8)), (2, status_at(4, 4))]));
        outputs.extend(behind.pass(100));
    }
    assert_eq!(parts_asked(&outputs).last(), Some(&(3, 8, true)));
}

/// "If nobody can read the stable state any more ..., a later checkpoint that `w` members voted for will do" (§9)
#[test]
fn a_transfer_turns_to_a_vouched_checkpoint_when_no_source_goes_on() {
    let (mut behind, _) = in_transfer(&[2]);
    let group = behind.group.clone();
    for id in [0, 3] {
        behind.hear(id, group.checkpoint(id, 8, digest(8)));
    }
    let mut outputs = Vec::new();
    for _ in 0..18 {
        outputs.extend(behind.hear_all([0, 2, 3].map(|id| (id, status_at(4, 8)))));
        outputs.extend(behind.pass(100));
    }
    let asked = parts_asked(&outputs);
    assert_eq!(asked[..4], [(3, 4, false), (0, 4, false), (2, 4, false), (3, 4, false)], "first it asks all");
    assert!(matches!(asked[4], (0 | 3, 8, true)), "{asked:?}");
}

/// "A transfer begins anew, of the newest stable checkpoint, when it takes too long" (§9): or of a later one that `w` vouch
/// for, which more of them can still read.
#[test]
fn a_transfer_that_takes_too_long_turns_to_a_later_checkpoint_that_others_vouch_for() {
    let (mut behind, cursor) = in_transfer(&[2, 3]);
    let group = behind.group.clone();
    for id in [0, 3] {
        behind.hear(id, group.checkpoint(id, 8, digest(8)));
    }
    drip(&mut behind, 2, cursor, 5_000);
    assert_eq!(behind.replica.transfer_target(), Some(slot(8)));
}

/// For so many milliseconds, the source of a transfer hands out an entry every 100 ms, from `cursor` on if it was asked for
/// that. Gives when each transfer began anew, and with whom.
fn drip(behind: &mut Subject, mut source: u8, mut cursor: Blob, milliseconds: u64) -> Vec<(u64, u8)> {
    let mut began = Vec::new();
    for number in (0..=u8::MAX).cycle().take(usize::try_from(milliseconds / 100).expect("few")) {
        let mut outputs = behind.hear_all([0, 2, 3].map(|id| (id, status_at(4 * u64::from(id != 0), 4))));
        let (part, next) = short_part(number, cursor);
        cursor = next;
        outputs.extend(behind.hear(source, part));
        outputs.extend(behind.pass(100));
        if let Some((to, _, _)) = parts_asked(&outputs).into_iter().find(|(_, _, is_first)| *is_first) {
            (source, cursor) = (to, Blob::EMPTY);
            began.push((behind.now_ms, to));
        }
    }
    began
}

/// "A transfer begins anew ... when it takes too long (twice the cap of the bounds, doubled each time)" (§9): a source that
/// hands out an entry now and then does not keep a replica for ever, nothing that it handed out is used, and one that is slow
/// without wanting to has more time when its turn comes again.
#[test]
fn a_transfer_that_takes_too_long_begins_anew_with_another_source() {
    let (mut behind, cursor) = in_transfer(&[2, 3]);
    let start = behind.now_ms;
    let bound = 2 * u64::from(behind.group.0.parameters().deadline_cap_ms);
    let began = drip(&mut behind, 2, cursor, 4 * bound);
    let [(first, 3), (second, 2)] = began[..] else { panic!("{began:?}") };
    assert!((bound..=bound + 300).contains(&(first - start)), "{began:?}");
    assert!((2 * bound..=2 * bound + 300).contains(&(second - first)), "{began:?}");
}

/// "A part is waited for twice as long after each transfer that came to nothing" (§9): one that answers a little later than a
/// source may is not replaced for ever, or one that lies would have its turn in every transfer.
#[test]
fn after_a_transfer_that_took_too_long_a_source_has_more_time_to_answer() {
    let silent_for = |behind: &mut Subject, source: u8| -> u64 {
        let start = behind.now_ms;
        loop {
            let mut outputs = behind.hear_all([0, 2, 3].map(|id| (id, status_at(4 * u64::from(id != 0), 4))));
            outputs.extend(behind.pass(100));
            if parts_asked(&outputs).iter().any(|(to, _, _)| *to != source) {
                return behind.now_ms - start;
            }
        }
    };
    assert_eq!(silent_for(&mut in_transfer(&[2, 3]).0, 2), 300);
    for (slow, expected_ms) in [(1, 600), (2, 1200), (3, 2000), (4, 2000)] {
        let (mut behind, cursor) = in_transfer(&[2, 3]);
        let bound = 2 * u64::from(behind.group.0.parameters().deadline_cap_ms);
        let began = drip(&mut behind, 2, cursor, ((1 << slow) - 1) * bound + 300 * slow);
        assert_eq!(began.len() as u64, slow);
        let (_, source) = began[began.len() - 1];
        // The last part came a heartbeat before.
        assert_eq!(silent_for(&mut behind, source) + 100, expected_ms);
    }
}

/// The same: a replica that nobody answers for minutes gives no source more time afterwards.
#[test]
fn a_transfer_has_no_more_time_after_one_in_which_nobody_answered() {
    let (mut behind, _) = in_transfer(&[2]);
    let bound = 2 * u64::from(behind.group.0.parameters().deadline_cap_ms);
    behind.pass(20 * bound);
    assert_eq!(parts_asked(&behind.hear(3, status_at(4, 4))), [(3, 4, true)]);
    let start = behind.now_ms;
    let began = drip(&mut behind, 3, Blob::EMPTY, 2 * bound);
    assert!((bound - 300..=bound + 300).contains(&(began[0].0 - start)), "{began:?}");
}

/// Until another source is asked for the part that was asked of `source`: how long, and whom.
fn wait_for_another(behind: &mut Subject, source: u8) -> (u64, u8) {
    let start = behind.now_ms;
    loop {
        let mut outputs = behind.hear_all([2, 3].map(|id| (id, status_at(4, 4))));
        outputs.extend(behind.pass_with_primary_alive(50));
        if let Some((to, _, _)) = parts_asked(&outputs).into_iter().find(|(to, _, _)| *to != source) {
            return (behind.now_ms - start, to);
        }
        assert!(behind.now_ms - start < 60_000, "nobody else is asked");
    }
}

/// "A part is waited for twice as long after each transfer that came to nothing" (§9): where links are slower than
/// expected, a whole of which each source handed out a piece, a liar among them, would be wrong for ever.
#[test]
fn after_a_transfer_that_came_to_nothing_a_source_has_more_time() {
    let (mut behind, cursor) = in_transfer(&[2, 3]);
    let (first, mut other) = wait_for_another(&mut behind, 2);
    let cap = u64::from(behind.group.0.parameters().deadline_cap_ms);
    let (mut cursor, mut expected) = (cursor, first);
    for _ in 0..12 {
        let last = Part {
            sequence: slot(4),
            cursor: cursor.clone(),
            protocol: List::empty(),
            application: List::empty(),
            next: None,
        };
        behind.hear(other, Message::Part(last));
        let staged = StagedState { sequence: slot(4), application_root: Some(digest(66)), protocol: vec![] };
        let outputs = behind.step(Input::StateStaged(staged));
        let asked = parts_asked(&outputs);
        let [(source, 4, true)] = asked[..] else { panic!("{asked:?}") };
        let waited;
        (waited, other) = wait_for_another(&mut behind, source);
        (cursor, expected) = (Blob::EMPTY, (2 * expected).min(cap));
        assert!((expected - 100..=expected + 150).contains(&waited), "{waited} ms instead of {expected}");
    }
    assert_eq!(expected, cap, "it waits no longer than that");
}

/// "a source that lies is named and replaced" (§9): of a vouched checkpoint too, whoever else vouches for it.
#[test]
fn a_source_that_lies_about_a_vouched_checkpoint_is_replaced_by_another_that_vouches() {
    let (mut behind, _) = in_transfer(&[2]);
    let group = behind.group.clone();
    for id in [0, 3] {
        behind.hear(id, group.checkpoint(id, 8, digest(8)));
    }
    let mut asked = Vec::new();
    while asked.last().is_none_or(|(_, sequence, _)| *sequence != 8) {
        let mut outputs = behind.hear_all([0, 2, 3].map(|id| (id, status_at(4, 8))));
        outputs.extend(behind.pass(100));
        asked.extend(parts_asked(&outputs));
        assert!(asked.len() < 20);
    }
    let liar = asked.last().map(|(to, _, _)| *to).expect("one was asked");
    let whole = Part {
        sequence: slot(8),
        cursor: Blob::EMPTY,
        protocol: List::empty(),
        application: List::empty(),
        next: None,
    };
    behind.hear(liar, Message::Part(whole));
    let staged = StagedState { sequence: slot(8), application_root: Some(digest(66)), protocol: vec![] };
    let outputs = behind.step(Input::StateStaged(staged));
    assert_eq!(parts_asked(&outputs), [(3 - liar, 8, true)]);
}

/// "answers only to what was asked" (§3, table)
#[test]
fn what_nobody_asked_for_is_refused() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let part = Part {
        sequence: slot(4),
        cursor: Blob::EMPTY,
        protocol: List::empty(),
        application: List::empty(),
        next: None,
    };
    assert_eq!(backup.hear(3, Message::Part(part)), []);
    let batch =
        quorate_protocol::message::FetchedBatch { sequence: slot(1), batch: group.batch(0).body().clone().into() };
    assert_eq!(backup.hear(3, Message::Batch(batch)), []);
    assert_eq!(backup.replica.refusals()[&Refusal::Unasked], 2);
    for fetch in [
        Fetch::Batch { sequence: slot(1), digest: digest(1) },
        Fetch::ViewChange { digest: digest(1) },
        Fetch::NewView { view: view(0) },
    ] {
        assert_eq!(backup.hear(3, Message::Fetch(fetch)), []);
    }
    assert_eq!(backup.replica.refusals()[&Refusal::Nothing], 3);
}

/// "The replica that a vote names is the one that the channel authenticated" (§4)
#[test]
fn a_message_of_a_stranger_or_of_oneself_is_refused() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    for from in [1, 9] {
        let message = group.check(2, Message::Status(idle_status(0)));
        assert_eq!(backup.step(Input::Message { from: replica(from), message }), []);
    }
    assert_eq!(backup.replica.refusals()[&Refusal::Unasked], 2);
}

/// "a replica fetches decided slots with their certificates" (§9): of the slots asked for, at most a few at once.
#[test]
fn a_peer_below_the_low_watermark_is_told_what_is_stable() {
    let (source, _) = behind_a_checkpoint();
    let mut source = source;
    let group = source.group.clone();
    let root = source.replica.state_root_at(slot(4)).expect("taken");
    let certificate = group.stable(4, root, &[0, 1, 3]);
    source.hear(0, Message::Stable(certificate.clone()));
    source.settle();
    let outputs = source.hear(3, Message::Status(idle_status(0)));
    assert_eq!(said(&outputs), [Message::Stable(certificate)]);
}
