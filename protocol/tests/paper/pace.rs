//! §6: a primary that is slow, and none that is not.

use core::time::Duration;

use quorate_protocol::configuration::Parameters;
use quorate_protocol::message::{Decided, Message};
use quorate_protocol::output::Suspicion;
use quorate_protocol::{Input, Output};

use crate::support::subject::{Subject, said, suspected};
use crate::support::{Group, client, replica, small, view};

/// A replica of four, with a window that no test fills, and stamps that stay acceptable.
fn backup(id: u8) -> Subject {
    let parameters = Parameters { checkpoint_interval: 128, window: 512, clock_bound_ms: 600_000, ..small() };
    Subject::new(&Group::new(4, parameters), id)
}

/// How a slot goes, in milliseconds.
#[derive(Clone, Copy)]
struct Pace {
    /// From the copy of its request to the proposal.
    wait: u64,
    /// From the proposal to the execution.
    ordering: u64,
}

/// A slot goes like that.
fn order(backup: &mut Subject, sequence: u64, pace: Pace) -> Vec<Output> {
    let group = backup.group.clone();
    let of_view = backup.replica.view().value();
    let primary = group.0.primary(view(of_view)).value();
    let index = u8::try_from(sequence).expect("few slots");
    let mut outputs = backup.show(group.opening(client(index), 1));
    outputs.extend(backup.pass_with_primary_alive(pace.wait));
    outputs.extend(backup.hear(primary, group.pre_prepare(primary, of_view, sequence, &group.batch(index))));
    outputs.extend(backup.pass_with_primary_alive(pace.ordering));
    outputs.extend(backup.decide(of_view, sequence, &group.batch(index)));
    outputs.extend(backup.settle());
    outputs
}

/// So many slots go like that, from `first` on.
fn order_all(backup: &mut Subject, first: u64, count: u64, pace: Pace) -> Vec<Output> {
    (first..first + count).flat_map(|sequence| order(backup, sequence, pace)).collect()
}

/// What is passed on to the primary.
fn passed_on(outputs: &[Output]) -> usize {
    said(outputs).iter().filter(|message| matches!(message, Message::Request(_))).count()
}

/// "requests of which it has copies wait for their proposal and for those of all slots before, on average and for four times the
/// parameter of the ordering deadline, for longer than is tolerated" (§6)
#[test]
fn a_primary_that_lets_requests_wait_for_long_is_suspected() {
    let mut backup = backup(1);
    // Judged from the fourth slot on; the parameter is 500 ms. No wait is near the deadline, or silence.
    let slow = Pace { wait: 300, ordering: 0 };
    assert_eq!(suspected(&order_all(&mut backup, 1, 4, slow)), []);
    assert_eq!(suspected(&order_all(&mut backup, 5, 6, slow)), [], "not for long enough");
    assert_eq!(suspected(&order(&mut backup, 11, slow)), [(0, Suspicion::Slowness)]);
}

/// "and a quarter of the ordering deadline in any case" (§6)
#[test]
fn a_wait_of_a_quarter_of_the_deadline_is_tolerated() {
    let mut backup = backup(1);
    assert_eq!(suspected(&order_all(&mut backup, 1, 40, Pace { wait: 125, ordering: 0 })), []);
}

/// "for four times the parameter of the ordering deadline" (§6): a burst is no reason.
#[test]
fn a_primary_that_was_slow_for_a_while_is_not_suspected() {
    let mut backup = backup(1);
    let (slow, fast) = (Pace { wait: 300, ordering: 0 }, Pace { wait: 10, ordering: 0 });
    for round in 0..3 {
        assert_eq!(suspected(&order_all(&mut backup, 32 * round + 1, 9, slow)), []);
        assert_eq!(suspected(&order_all(&mut backup, 32 * round + 10, 23, fast)), []);
    }
}

/// "Tolerated is eight times as long as slots then take from the proposal, and those of all before, to the execution" (§6)
#[test]
fn where_ordering_takes_long_requests_may_wait_for_long() {
    let mut backup = backup(1);
    // The measure of ordering is smoothed: the first slots bring it up.
    order_all(&mut backup, 1, 8, Pace { wait: 10, ordering: 60 });
    assert_eq!(suspected(&order_all(&mut backup, 9, 30, Pace { wait: 300, ordering: 60 })), []);
}

/// "for their proposal and for those of all slots before" (§6): the requests of a slot that is proposed at once wait for the one
/// before it, and what they wait is not the time that ordering takes.
#[test]
fn a_primary_that_holds_one_slot_of_each_pipeline_back_is_suspected() {
    let mut backup = backup(1);
    let group = backup.group.clone();
    let mut outputs = Vec::new();
    for late in (1..=41).step_by(8) {
        let propose = |sequence: u64| {
            let batch = group.batch(u8::try_from(sequence).expect("few slots"));
            (group.pre_prepare(0, 0, sequence, &batch), batch)
        };
        for sequence in late..late + 8 {
            outputs.extend(backup.show(group.opening(client(u8::try_from(sequence).expect("few slots")), 1)));
        }
        for sequence in late + 1..late + 8 {
            outputs.extend(backup.hear(0, propose(sequence).0));
        }
        outputs.extend(backup.pass_with_primary_alive(400));
        outputs.extend(backup.hear(0, propose(late).0));
        for sequence in late..late + 8 {
            outputs.extend(backup.decide(0, sequence, &propose(sequence).1));
            outputs.extend(backup.settle());
        }
    }
    assert_eq!(suspected(&outputs), [(0, Suspicion::Slowness)]);
    assert_eq!(backup.replica.pace().1, Duration::ZERO);
}

/// The same for one of which the copy comes after its proposal: it waits for the slot before from then on. Of what is executed once
/// it may be, a copy that comes late tells nothing.
#[test]
fn a_request_that_is_copied_after_its_proposal_waits_for_those_before() {
    let mut backup = backup(1);
    let group = backup.group.clone();
    let of = |sequence: u64| group.batch(u8::try_from(sequence).expect("few slots"));
    let show = |backup: &mut Subject, sequence: u64| {
        backup.show(group.opening(client(u8::try_from(sequence).expect("few slots")), 1));
    };
    for late in (1..=7).step_by(2) {
        backup.hear(0, group.pre_prepare(0, 0, late + 1, &of(late + 1)));
        show(&mut backup, late + 1);
        backup.pass_with_primary_alive(300);
        backup.hear(0, group.pre_prepare(0, 0, late, &of(late)));
        show(&mut backup, late);
        backup.pass_with_primary_alive(50);
        for sequence in [late, late + 1] {
            backup.decide(0, sequence, &of(sequence));
            backup.settle();
        }
    }
    assert_eq!(backup.replica.executed().value(), 8);
    assert_eq!(backup.replica.pace().0, Some(Duration::from_millis(300)), "of four slots, and four tell nothing");
}

/// "Decided slots that others handed out count for neither" (§6): what a replica was away for, and fetches, puts no blame on the primary
/// for what it proposes meanwhile.
#[test]
fn who_catches_up_blames_nobody_for_what_it_missed() {
    let mut backup = backup(1);
    let group = backup.group.clone();
    order_all(&mut backup, 1, 5, Pace { wait: 10, ordering: 10 });
    let before = backup.replica.pace();
    let of = |sequence: u64| group.batch(u8::try_from(sequence).expect("few slots"));
    for sequence in 10..14 {
        backup.show(group.opening(client(u8::try_from(sequence).expect("few slots")), 1));
        backup.pass_with_primary_alive(10);
        backup.hear(0, group.pre_prepare(0, 0, sequence, &of(sequence)));
    }
    backup.pass_with_primary_alive(400);
    for sequence in 6..10 {
        let (batch, voters) = (of(sequence), [0, 2, 3]);
        let certificate = group.committed(0, sequence, batch.digest(), &voters);
        let batch = batch.body().clone().into();
        backup.hear(2, Message::Decided(Decided { certificate, batch }));
        backup.settle();
    }
    for sequence in 10..14 {
        backup.decide(0, sequence, &of(sequence));
        backup.settle();
    }
    assert_eq!(backup.replica.executed().value(), 13);
    let (wait, ordering) = backup.replica.pace();
    assert!(wait <= before.0 && ordering <= before.1, "{wait:?} and {ordering:?}, before: {before:?}");
}

/// "and after a burst both count for as long" (§6): where slots without copies are quick again, and those with some are rare, the
/// primary is not blamed for what took long with much to do.
#[test]
fn after_a_burst_a_primary_is_judged_by_what_was_tolerated_in_it() {
    let mut backup = backup(1);
    let group = backup.group.clone();
    assert_eq!(suspected(&order_all(&mut backup, 1, 30, Pace { wait: 300, ordering: 60 })), []);
    for sequence in 31..=70 {
        let batch = group.batch(u8::try_from(sequence).expect("few slots"));
        backup.hear(0, group.pre_prepare(0, 0, sequence, &batch));
        backup.pass_with_primary_alive(2);
        backup.decide(0, sequence, &batch);
        backup.settle();
    }
    for sequence in 71..=110 {
        let outputs = order(&mut backup, sequence, Pace { wait: 1, ordering: 2 });
        assert_eq!(suspected(&outputs), [], "{sequence}");
        assert_eq!(suspected(&backup.pass_with_primary_alive(300)), [], "{sequence}");
    }
}

/// "on average and for four times the parameter of the ordering deadline" (§6): one bad moment is not long, though nothing is
/// measured after it.
#[test]
fn one_bad_moment_is_no_reason_though_nothing_is_measured_after_it() {
    let mut backup = backup(1);
    let group = backup.group.clone();
    for sequence in 1..=4 {
        backup.show(group.opening(client(sequence), 1));
    }
    backup.pass_with_primary_alive(280);
    for sequence in 1..=40_u8 {
        let batch = group.batch(sequence);
        let mut outputs = backup.hear(0, group.pre_prepare(0, 0, sequence.into(), &batch));
        outputs.extend(backup.decide(0, sequence.into(), &batch));
        outputs.extend(backup.settle());
        outputs.extend(backup.pass_with_primary_alive(if sequence < 4 { 0 } else { 100 }));
        assert_eq!(suspected(&outputs), [], "{sequence}");
    }
    assert!(backup.replica.pace().0 > Some(Duration::from_millis(125)));
}

/// "With room again it does what it left undone." (§9): what waited for that is held against nobody.
#[test]
fn what_waited_for_room_in_the_own_log_tells_nothing_of_the_primary() {
    for is_full in [true, false] {
        let mut backup = backup(1);
        let group = backup.group.clone();
        for sequence in 1..=4 {
            backup.show(group.opening(client(sequence), 1));
        }
        if is_full {
            backup.step(Input::LogFull);
        }
        backup.pass_with_primary_alive(400);
        if is_full {
            backup.step(Input::LogHasRoom);
        }
        for sequence in 1..=4_u8 {
            let batch = group.batch(sequence);
            backup.hear(0, group.pre_prepare(0, 0, sequence.into(), &batch));
            backup.decide(0, sequence.into(), &batch);
            backup.settle();
        }
        assert_eq!(backup.replica.pace().0.is_none(), is_full);
    }
}

/// "on average" (§6): the first slot of a view counts as much as those after it.
#[test]
fn one_slot_that_takes_long_at_the_start_is_no_reason() {
    let mut backup = backup(1);
    order(&mut backup, 1, Pace { wait: 300, ordering: 1 });
    for sequence in 2..=20 {
        assert_eq!(suspected(&order(&mut backup, sequence, Pace { wait: 1, ordering: 1 })), [], "{sequence}");
        assert_eq!(suspected(&backup.pass_with_primary_alive(800)), [], "{sequence}");
    }
}

/// "A copy that was passed on waits from then on, or clients could blame a primary for what they never gave it." (§6)
#[test]
fn a_client_that_shows_what_it_never_asked_for_puts_no_blame_on_the_primary() {
    let mut backup = backup(1);
    let group = backup.group.clone();
    for sequence in 1..=60 {
        let index = u8::try_from(sequence).expect("small");
        assert_eq!(passed_on(&backup.show(group.opening(client(index), 1))), 0, "quiet at first");
        // Half of the tolerated wait.
        assert_eq!(passed_on(&backup.pass_with_primary_alive(62)), 0);
        assert_eq!(passed_on(&backup.pass_with_primary_alive(1)), 1);
        // The primary proposes what it is given within what is tolerated.
        assert_eq!(suspected(&backup.pass_with_primary_alive(100)), []);
        backup.decide(0, sequence, &group.batch(index));
        assert_eq!(suspected(&backup.settle()), []);
    }
}

/// "A backup keeps quiet about a copy for half of the tolerated wait" (§6): and about one that is proposed meanwhile for ever.
#[test]
fn what_is_proposed_in_time_is_not_passed_on() {
    let mut backup = backup(1);
    let outputs = order_all(&mut backup, 1, 10, Pace { wait: 50, ordering: 80 });
    assert_eq!(passed_on(&outputs), 0);
}

/// "A copy (§6) is expected as well." (§4.6)
#[test]
fn a_copy_is_expected_to_execute() {
    let mut backup = backup(1);
    let group = backup.group.clone();
    backup.show(group.opening(client(0), 1));
    assert_eq!(suspected(&backup.pass_with_primary_alive(499)), []);
    assert_eq!(suspected(&backup.pass_with_primary_alive(1)), [(0, Suspicion::Silence)]);
}

/// A primary that a client took for a backup proposes what it was shown.
#[test]
fn a_primary_proposes_what_it_was_shown() {
    let mut primary = backup(0);
    let group = primary.group.clone();
    primary.show(group.opening(client(0), 1));
    assert!(said(&primary.settle()).iter().any(|message| matches!(message, Message::PrePrepare(_))));
}

/// "And twice as long as under the others that were primary within a minute, the f longest left aside" (§6)
#[test]
fn what_others_achieved_is_not_to_be_undercut() {
    let measured = |before: &[u64]| {
        let mut backup = backup(3);
        let mut next = 1;
        for (of_view, wait) in (0..).zip(before) {
            if of_view > 0 {
                backup.enter(of_view);
            }
            order_all(&mut backup, next, 5, Pace { wait: *wait, ordering: 0 });
            next += 5;
        }
        backup.enter(4);
        (backup, next)
    };
    let slow = Pace { wait: 300, ordering: 0 };
    // One of the others may be as slow as it likes: that excuses nobody.
    for before in [&[10, 290, 10][..], &[10, 290]] {
        let (mut backup, next) = measured(before);
        assert_eq!(backup.group.0.primary(view(4)), replica(0));
        let outputs = order_all(&mut backup, next, 12, slow);
        assert_eq!(suspected(&outputs).first(), Some(&(4, Suspicion::Slowness)), "{before:?}");
    }
    let (mut backup, next) = measured(&[10, 200, 200]);
    assert_eq!(suspected(&order_all(&mut backup, next, 20, slow)), []);
    // After a minute nobody knows whether they still would.
    backup.pass_with_primary_alive(60_000);
    let outputs = order_all(&mut backup, next + 20, 20, slow);
    assert_eq!(suspected(&outputs).first(), Some(&(4, Suspicion::Slowness)));
}
