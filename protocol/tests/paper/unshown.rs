//! §4.3: a proposal that others vote for and the primary does not show.

use core::time::Duration;

use quorate_protocol::batch::Batch;
use quorate_protocol::configuration::Parameters;
use quorate_protocol::message::{Fetch, FetchedBatch, Message};
use quorate_protocol::number::{Incarnation, RecordNumber};
use quorate_protocol::output::Suspicion;
use quorate_protocol::record::{Record, Recovered};
use quorate_protocol::refusal::Refusal;
use quorate_protocol::{Input, Output};

use crate::support::subject::{Subject, appended, executed, idle_status, said, suspected};
use crate::support::{Group, START_MS, client, prepare, slot, small};

/// Replica 3, to which a fetch is the only thing that it says to one peer.
fn kept_waiting() -> Subject {
    Subject::of_four(3)
}

/// The same of so many, with a window that no test fills, and stamps that stay acceptable.
fn with_a_long_window(members: u8) -> Subject {
    let parameters = Parameters { checkpoint_interval: 128, window: 512, clock_bound_ms: 600_000, ..small() };
    Subject::new(&Group::new(members, parameters), 3)
}

/// Whom it asks for the batch of which slot.
fn asked(outputs: &[Output]) -> Vec<(u8, u64)> {
    let asked = outputs.iter().filter_map(|output| match output {
        Output::Send { to, message: Message::Fetch(Fetch::Batch { sequence, .. }) } => {
            Some((to.value(), sequence.value()))
        }
        _ => None,
    });
    asked.collect()
}

/// `voters` vote for `batch` in view 0.
fn vote(backup: &mut Subject, voters: &[u8], sequence: u64, batch: &Batch) -> Vec<Output> {
    let group = backup.group.clone();
    backup.hear_all(voters.iter().map(|id| (*id, group.prepare(*id, 0, sequence, batch.digest()))))
}

fn answer(backup: &mut Subject, from: u8, sequence: u64, batch: &Batch) -> Vec<Output> {
    backup.hear(from, Message::Batch(FetchedBatch { sequence: slot(sequence), batch: batch.body().clone().into() }))
}

/// "Whoever holds `w` votes of its view for a batch that it was not shown for a quarter of a heartbeat asks one of the voters
/// for it, first who was quick the last time, another one after a heartbeat, and accepts it" (§4.3)
#[test]
fn what_others_vote_for_is_fetched_of_one_of_them_and_voted_for() {
    let mut backup = kept_waiting();
    let group = backup.group.clone();
    let batch = group.batch(0);
    assert_eq!(asked(&vote(&mut backup, &[1, 2], 1, &batch)), []);
    assert_eq!(asked(&backup.pass(24)), []);
    assert_eq!(asked(&backup.pass(1)), [(1, 1)], "the first of them");
    assert_eq!(asked(&backup.pass_with_primary_alive(99)), []);
    assert_eq!(asked(&backup.pass_with_primary_alive(1)), [(2, 1)]);
    let outputs = answer(&mut backup, 2, 1, &batch);
    let own = group.vote(3, prepare(0, 1, batch.digest()));
    assert_eq!(appended(&outputs), [Record::Accepted(own, Some(batch.clone()))]);
    let outputs = backup.sync();
    assert!(said(&outputs).contains(&Message::Prepare(own)));
    assert!(
        matches!(appended(&outputs)[..], [Record::Prepared(..)]),
        "three have voted, and the primary is none of them"
    );
    let outputs = answer(&mut backup, 1, 1, &batch);
    assert_eq!((outputs, backup.replica.refusals()[&Refusal::Unasked]), (vec![], 1), "once is enough");
}

/// "Whoever holds `w` votes of its view for a batch" (§4.3): one of fewer may be a liar's, and votes for two are for neither.
#[test]
fn fewer_votes_or_those_for_another_batch_fetch_nothing() {
    let mut backup = kept_waiting();
    let group = backup.group.clone();
    vote(&mut backup, &[1], 1, &group.batch(1));
    vote(&mut backup, &[2], 1, &group.batch(2));
    backup.hear_all([1, 2].map(|id| (id, group.prepare(id, 4, 2, group.batch(3).digest()))));
    assert_eq!(asked(&backup.pass_with_primary_alive(300)), []);
}

/// The same: what the replica voted for it holds, and so does the primary what it proposed.
#[test]
fn who_was_shown_it_fetches_nothing() {
    let mut backup = kept_waiting();
    let group = backup.group.clone();
    let batch = group.batch(1);
    backup.hear(0, group.pre_prepare(0, 0, 1, &batch));
    vote(&mut backup, &[1, 2], 1, &batch);
    vote(&mut backup, &[1, 2], 2, &batch);
    backup.pass_with_primary_alive(20);
    backup.hear(0, group.pre_prepare(0, 0, 2, &batch));
    assert_eq!(asked(&backup.pass_with_primary_alive(200)), []);
    let mut primary = Subject::of_four(0);
    vote(&mut primary, &[1, 2], 1, &batch);
    assert_eq!(asked(&primary.pass(200)), []);
}

/// The same: who may not vote fetches nothing in order to.
#[test]
fn who_does_not_vote_fetches_nothing() {
    let group = Group::of_four();
    let first = (RecordNumber::ZERO, Recovered::Whole(Record::Incarnation(Incarnation::ZERO)));
    let mut learner = Subject::start_damaged(&group, 3, vec![first]);
    assert!(!learner.replica.is_voter());
    vote(&mut learner, &[1, 2], 1, &group.batch(1));
    assert_eq!(asked(&learner.pass(90)), []);
}

/// "if it is stamped near enough" (§4.3): one correct clock that is wrong does not suffice for a stamp. A proposal that was shown is
/// not fetched for it.
#[test]
fn what_is_stamped_too_far_from_the_clock_gets_no_vote_though_others_gave_it_theirs() {
    for is_shown in [true, false] {
        let mut backup = kept_waiting();
        let group = backup.group.clone();
        let batch = group.batch_at(3_600_000, vec![group.opening(client(0), 1)]);
        if is_shown {
            backup.hear(0, group.pre_prepare(0, 0, 1, &batch));
        }
        vote(&mut backup, &[1, 2], 1, &batch);
        let outputs = backup.pass(25);
        assert_eq!(asked(&outputs).len(), usize::from(!is_shown));
        assert_eq!(appended(&answer(&mut backup, 1, 1, &batch)), []);
        assert!(backup.replica.refusals()[&Refusal::Clock] > 0);
        // It is here should the others decide it.
        let outputs = backup.decide(0, 1, &batch);
        assert!(matches!(appended(&outputs)[..], [Record::Learned(..)]), "{outputs:?}");
    }
    // Or have decided it.
    let mut backup = kept_waiting();
    let group = backup.group.clone();
    let batch = group.batch_at(3_600_000, vec![group.opening(client(0), 1)]);
    let commits = [0, 1, 2].map(|id| (id, group.commit(id, 0, 1, batch.digest())));
    assert_eq!(executed(&backup.hear_all(commits)), []);
    assert_eq!(executed(&backup.hear(0, group.pre_prepare(0, 0, 1, &batch))), [1]);
}

/// "After one that voters were faster with than the primary it asks at once, for 64 slots, fewer if the primary is faster." (§4.3)
#[test]
fn after_one_that_a_voter_was_faster_with_voters_are_asked_at_once() {
    for (in_time, at_once) in [(0, 64), (1, 56), (7, 8)] {
        let mut backup = with_a_long_window(4);
        let group = backup.group.clone();
        let batch = |sequence: u64| group.batch(u8::try_from(sequence).expect("small"));
        vote(&mut backup, &[1, 2], 1, &batch(1));
        assert_eq!(asked(&backup.pass(25)), [(1, 1)]);
        answer(&mut backup, 1, 1, &batch(1));
        let mut asked_at_once = 0;
        for sequence in 2..=100 {
            assert_eq!(asked(&vote(&mut backup, &[1], sequence, &batch(sequence))), []);
            if asked(&vote(&mut backup, &[2], sequence, &batch(sequence))).is_empty() {
                break;
            }
            asked_at_once += 1;
            if sequence < 2 + in_time {
                backup.hear(0, group.pre_prepare(0, 0, sequence, &batch(sequence)));
            } else {
                answer(&mut backup, 1, sequence, &batch(sequence));
            }
        }
        assert_eq!(asked_at_once, at_once, "{in_time}");
        // Then one is waited for, and if voters are faster still it begins again.
        let last = 2 + at_once;
        assert_eq!(asked(&backup.pass(25)), [(1, last)]);
        answer(&mut backup, 1, last, &batch(last));
        assert_eq!(asked(&vote(&mut backup, &[1, 2], last + 1, &batch(last + 1))), [(1, last + 1)]);
    }
}

/// The same for those that wait already, and to those that others voted for before this replica was in the view.
#[test]
fn what_waits_is_asked_for_with_the_others_and_what_was_voted_for_before_the_view_was_entered_too() {
    let mut backup = kept_waiting();
    let group = backup.group.clone();
    let (first, second) = (group.batch(1), group.batch(2));
    vote(&mut backup, &[1, 2], 1, &first);
    backup.pass(20);
    vote(&mut backup, &[1, 2], 2, &second);
    assert_eq!(asked(&backup.pass(5)), [(1, 1)]);
    backup.pass(1);
    assert_eq!(asked(&answer(&mut backup, 1, 1, &first)), [(1, 2)]);
    let third = group.batch(3);
    backup.hear_all([0, 2].map(|id| (id, group.prepare(id, 1, 3, third.digest()))));
    backup.enter(1);
    assert_eq!(asked(&backup.pass_with_primary_alive(24)), []);
    assert_eq!(asked(&backup.pass_with_primary_alive(1)), [(2, 3)]);
}

/// The same: an accomplice of the primary that is as late as it may be is late once.
#[test]
fn who_was_slow_to_answer_is_asked_last_the_next_time() {
    let mut backup = kept_waiting();
    let group = backup.group.clone();
    let batch = |sequence: u64| group.batch(u8::try_from(sequence).expect("small"));
    vote(&mut backup, &[1, 2], 1, &batch(1));
    assert_eq!(asked(&backup.pass(25)), [(1, 1)]);
    backup.pass_with_primary_alive(26);
    answer(&mut backup, 1, 1, &batch(1));
    assert_eq!(asked(&vote(&mut backup, &[1, 2], 2, &batch(2))), [(2, 2)]);
    backup.pass_with_primary_alive(25);
    answer(&mut backup, 2, 2, &batch(2));
    assert_eq!(asked(&vote(&mut backup, &[1, 2], 3, &batch(3))), [(2, 3)]);
    backup.pass_with_primary_alive(26);
    answer(&mut backup, 2, 3, &batch(3));
    // The next one is this replica itself, and the primary is asked only where nobody else is left.
    assert_eq!(asked(&vote(&mut backup, &[2, 1], 4, &batch(4))), [(1, 4)]);
    // Nor is it quick whose answer comes after another one was asked.
    assert_eq!(asked(&backup.pass_with_primary_alive(100)), [(2, 4)]);
    backup.pass_with_primary_alive(1);
    answer(&mut backup, 1, 4, &batch(4));
    assert_eq!(asked(&vote(&mut backup, &[1, 2], 5, &batch(5))), [(1, 5)]);
    answer(&mut backup, 1, 5, &batch(5));
    assert_eq!(asked(&vote(&mut backup, &[1, 2], 6, &batch(6))), [(1, 6)]);
    backup.pass_with_primary_alive(100);
    answer(&mut backup, 1, 6, &batch(6));
    assert_eq!(asked(&vote(&mut backup, &[1, 2], 7, &batch(7))), [(2, 7)], "the source was late");
    // Nor who was not asked at all.
    answer(&mut backup, 1, 7, &batch(7));
    assert_eq!(asked(&vote(&mut backup, &[1, 2], 8, &batch(8))), [(2, 8)]);
}

/// "one of the voters ..., another one after a heartbeat" (§4.3)
#[test]
fn voters_are_asked_before_the_primary_and_those_who_did_not_vote() {
    let mut backup = Subject::new(&Group::new(7, small()), 3);
    let batch = backup.group.batch(1);
    vote(&mut backup, &[1, 5, 6], 1, &batch);
    let mut all = asked(&backup.pass_with_primary_alive(25));
    for _ in 0..6 {
        all.extend(asked(&backup.pass_with_primary_alive(100)));
    }
    assert_eq!(all.iter().map(|(of, _)| *of).collect::<Vec<_>>(), [5, 6, 1, 0, 2, 4, 5]);
}

/// A proposal that is shown later all the same carries the primary's vote, and that counts.
#[test]
fn the_vote_of_a_primary_that_shows_it_later_counts() {
    let mut backup = kept_waiting();
    let group = backup.group.clone();
    let batch = group.batch(1);
    vote(&mut backup, &[1, 2], 1, &batch);
    backup.pass(25);
    answer(&mut backup, 1, 1, &batch);
    assert!(!backup.replica.refusals().contains_key(&Refusal::Duplicate));
    // Its own vote is not durable: this is the third.
    let outputs = backup.hear(0, group.pre_prepare(0, 0, 1, &batch));
    assert!(matches!(appended(&outputs)[..], [Record::Prepared(..)]), "{outputs:?}");
    backup.hear(0, group.pre_prepare(0, 0, 1, &batch));
    assert_eq!(backup.replica.refusals()[&Refusal::Duplicate], 2);
}

/// "Leaving the view ends it." (§4.3): what was proposed there may not be voted for in another, by whichever way it is entered.
#[test]
fn what_a_view_awaited_is_not_voted_for_in_the_next() {
    for leaves in [true, false] {
        let mut backup = kept_waiting();
        let group = backup.group.clone();
        let batch = |sequence: u64| group.batch(u8::try_from(sequence).expect("small"));
        vote(&mut backup, &[1, 2], 1, &batch(1));
        assert_eq!(asked(&backup.pass(25)), [(1, 1)]);
        vote(&mut backup, &[1, 2], 2, &batch(2));
        if leaves {
            backup.leave();
            assert_eq!(answer(&mut backup, 1, 1, &batch(1)), []);
        }
        backup.enter(1);
        assert_eq!(asked(&backup.pass_with_primary_alive(200)), []);
        let outputs = answer(&mut backup, 1, 1, &batch(1));
        assert_eq!(appended(&outputs), [], "{leaves}");
        assert!(backup.replica.refusals()[&Refusal::Unasked] > 0);
    }
}

/// "Without room for a vote a replica gives none" (§9): "With room again it does what it left undone." (§9)
#[test]
fn without_room_it_is_fetched_and_voted_for_later() {
    let mut backup = kept_waiting();
    let group = backup.group.clone();
    let batch = group.batch(1);
    backup.step(Input::LogFull);
    vote(&mut backup, &[1, 2], 1, &batch);
    assert_eq!(asked(&backup.pass(25)), [(1, 1)]);
    assert_eq!(appended(&answer(&mut backup, 1, 1, &batch)), []);
    let own = group.vote(3, prepare(0, 1, batch.digest()));
    assert_eq!(appended(&backup.step(Input::LogHasRoom)), [Record::Accepted(own, Some(batch))]);
}

/// A proposal that was shown while there was no room is not fetched.
#[test]
fn what_is_here_already_is_voted_for_at_once() {
    let mut backup = kept_waiting();
    let group = backup.group.clone();
    let batch = group.batch(1);
    backup.step(Input::LogFull);
    backup.hear(0, group.pre_prepare(0, 0, 1, &batch));
    backup.step(Input::LogHasRoom);
    vote(&mut backup, &[1, 2], 1, &batch);
    let outputs = backup.pass(25);
    let own = group.vote(3, prepare(0, 1, batch.digest()));
    assert_eq!((asked(&outputs), appended(&outputs)), (vec![], vec![Record::Accepted(own, Some(batch))]));
}

/// The same: one that comes again is accepted once.
#[test]
fn a_proposal_that_comes_again_is_accepted_once() {
    let mut backup = kept_waiting();
    let group = backup.group.clone();
    let (first, second) = (group.batch(1), group.batch(2));
    vote(&mut backup, &[1, 2], 1, &first);
    backup.pass(25);
    answer(&mut backup, 1, 1, &first);
    backup.step(Input::LogFull);
    backup.hear(0, group.pre_prepare(0, 0, 2, &second));
    backup.step(Input::LogHasRoom);
    let own = group.vote(3, prepare(0, 2, second.digest()));
    let outputs = vote(&mut backup, &[1], 2, &second);
    assert_eq!(
        appended(&outputs),
        [Record::Accepted(own, Some(second.clone()))],
        "the primary's vote is the other one"
    );
    assert_eq!(appended(&backup.hear(0, group.pre_prepare(0, 0, 2, &second))), []);
}

/// "requests of which it has copies wait for their proposal" (§6): until the batch is here, from whomever it came. And what
/// others were shown is no silence.
#[test]
fn requests_wait_until_the_batch_is_fetched() {
    let mut backup = with_a_long_window(4);
    let group = backup.group.clone();
    for sequence in 1..=4_u8 {
        backup.show(group.opening(client(sequence), 1));
        let outputs = backup.pass_with_primary_alive(400);
        assert_eq!(suspected(&outputs), [], "{sequence}");
        let batch = group.batch(sequence);
        let mut outputs = vote(&mut backup, &[1, 2], sequence.into(), &batch);
        outputs.extend(backup.pass_with_primary_alive(25));
        assert!(matches!(asked(&outputs)[..], [(_, asked)] if asked == u64::from(sequence)));
        outputs.extend(backup.pass_with_primary_alive(90));
        assert_eq!(suspected(&outputs), [], "no silence: the proposal is there");
        answer(&mut backup, 1, sequence.into(), &batch);
        backup.decide(0, sequence.into(), &batch);
        backup.settle();
    }
    let (wait, ordering) = backup.replica.pace();
    assert!(wait >= Some(Duration::from_millis(400)), "{wait:?}");
    assert_eq!(ordering, Duration::ZERO);
}

/// The same for one that was shown with a stamp too far ahead to be voted for at once: that hides no wait.
#[test]
fn a_stamp_at_the_edge_of_the_bound_hides_no_wait() {
    let parameters = Parameters { checkpoint_interval: 128, window: 512, ..small() };
    let mut backup = Subject::new(&Group::new(4, parameters), 3);
    let group = backup.group.clone();
    let mut outputs = Vec::new();
    for sequence in 1..=16_u8 {
        backup.show(group.opening(client(sequence), 1));
        outputs.extend(backup.pass_with_primary_alive(400));
        let stamp = i64::try_from(backup.now_ms - START_MS).expect("a short test") + 2010;
        let batch = group.batch_at(stamp, vec![group.opening(client(sequence), 1)]);
        backup.hear(0, group.pre_prepare(0, 0, sequence.into(), &batch));
        vote(&mut backup, &[0, 1], sequence.into(), &batch);
        outputs.extend(backup.pass_with_primary_alive(25));
        outputs.extend(backup.decide(0, sequence.into(), &batch));
        outputs.extend(backup.settle());
    }
    assert_eq!(suspected(&outputs).first(), Some(&(0, Suspicion::Slowness)));
}

/// "accepts it if it is stamped near enough" (§4.3): as soon as it is.
#[test]
fn what_was_stamped_too_far_ahead_is_voted_for_once_it_is_near() {
    for is_shown in [true, false] {
        let mut backup = kept_waiting();
        let group = backup.group.clone();
        let batch = group.batch_at(2060, vec![group.opening(client(1), 1)]);
        if is_shown {
            backup.hear(0, group.pre_prepare(0, 0, 1, &batch));
        }
        vote(&mut backup, &[1, 2], 1, &batch);
        backup.pass_with_primary_alive(25);
        assert_eq!(appended(&answer(&mut backup, 1, 1, &batch)), []);
        assert_eq!(appended(&backup.pass_with_primary_alive(34)), [], "{is_shown}");
        backup.pass_with_primary_alive(1);
        let own = group.vote(3, prepare(0, 1, batch.digest()));
        let outputs = backup.hear(1, Message::Status(idle_status(0)));
        assert_eq!(appended(&outputs), [Record::Accepted(own, Some(batch))], "{is_shown}");
    }
}

/// "first who was quick the last time" (§4.3): one that says nothing until the primary shows the proposal, just before another
/// one would be asked, is not asked first for ever.
#[test]
fn who_is_silent_until_the_primary_shows_the_proposal_is_not_the_first_again() {
    let mut backup = with_a_long_window(7);
    let group = backup.group.clone();
    let mut first = Vec::new();
    for sequence in 1..=5_u8 {
        let batch = group.batch(sequence);
        let mut asked_of = asked(&vote(&mut backup, &[1, 2, 5, 6], sequence.into(), &batch));
        asked_of.extend(asked(&backup.pass_with_primary_alive(25)));
        asked_of.extend(asked(&backup.pass_with_primary_alive(99)));
        backup.hear(0, group.pre_prepare(0, 0, sequence.into(), &batch));
        backup.decide(0, sequence.into(), &batch);
        backup.settle();
        first.extend(asked_of.iter().map(|(of, _)| *of));
    }
    assert_eq!(first, [5, 6, 1, 2, 5]);
    // Who was asked behind a silent one, and would have had no time, is.
    let batch = group.batch(6);
    vote(&mut backup, &[1, 2, 5, 6], 6, &batch);
    assert_eq!(asked(&backup.pass_with_primary_alive(25)), [(6, 6)]);
    assert_eq!(asked(&backup.pass_with_primary_alive(100)), [(1, 6)]);
    backup.hear(0, group.pre_prepare(0, 0, 6, &batch));
    let batch = group.batch(7);
    vote(&mut backup, &[1, 2, 5, 6], 7, &batch);
    assert_eq!(asked(&backup.pass_with_primary_alive(25)), [(1, 7)]);
}
