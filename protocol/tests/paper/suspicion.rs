//! §6: suspecting the primary.

use core::time::Duration;

use quorate_protocol::configuration::Parameters;
use quorate_protocol::message::{Message, Status};
use quorate_protocol::number::{Sequence, Session};
use quorate_protocol::output::{Notice, Suspicion};
use quorate_protocol::replica::Mode;
use quorate_protocol::{Input, Machine, Output};

use crate::support::subject::{Subject, idle_status, notices, said, suspected, wanted};
use crate::support::{Group, client, digest, slot, small, view};

/// "*crash*: nothing heard of the primary within the bound, pending work or not" (§6)
#[test]
fn a_primary_that_sends_no_status_is_suspected_with_nothing_pending() {
    let mut backup = Subject::of_four(1);
    assert_eq!(suspected(&backup.pass(299)), []);
    assert_eq!(suspected(&backup.pass(1)), [(0, Suspicion::Crash)]);
}

/// "A primary that was never heard of may be starting, as everybody may be: for it no bound is below eight times that of a
/// crash" (§6), up to the cap.
#[test]
fn a_primary_that_was_never_heard_of_gets_more_time() {
    for (cap_ms, expected_ms) in [(10_000, 2400), (2000, 2000)] {
        let group = Group::new(4, Parameters { deadline_cap_ms: cap_ms, ..small() });
        for is_pending in [false, true] {
            let mut backup = Subject::start(&group, 1, crate::support::START_MS, None, vec![]);
            if is_pending {
                backup.ask(group.opening(client(0), 1));
            }
            assert_eq!(suspected(&backup.pass(expected_ms - 1)), [], "cap {cap_ms} ms, pending: {is_pending}");
            assert_eq!(suspected(&backup.pass(1)), [(0, Suspicion::Crash)], "cap {cap_ms} ms, pending: {is_pending}");
        }
    }
}

/// "nothing heard of the primary" (§6): any message of its own is a sign of life; what others say is none.
#[test]
fn only_what_the_primary_says_itself_is_a_sign_of_life() {
    let group = Group::of_four();
    for alive in [Message::Status(idle_status(0)), group.commit(0, 0, 1, digest(1)), group.checkpoint(0, 4, digest(4))]
    {
        let mut backup = Subject::new(&group, 1);
        backup.pass(200);
        backup.hear(2, Message::Status(idle_status(0)));
        assert_eq!(suspected(&backup.pass(100)), [(0, Suspicion::Crash)]);
        let mut backup = Subject::new(&group, 1);
        backup.pass(200);
        backup.hear(0, alive);
        assert_eq!(suspected(&backup.pass(299)), []);
        assert_eq!(suspected(&backup.pass(1)), [(0, Suspicion::Crash)]);
    }
}

/// "A suspicion is said in the `Status`, at once and in each that follows ... Until then the replica goes on voting" (§6)
#[test]
fn a_replica_that_suspects_alone_says_so_and_goes_on_voting() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    backup.pass(299);
    backup.status = None;
    let outputs = backup.pass(1);
    assert_eq!((suspected(&outputs), wanted(&outputs)), (vec![(0, Suspicion::Crash)], vec![]));
    assert!(backup.status.clone().is_some_and(|status| status.suspects && status.entered));
    assert_eq!(wanted(&backup.pass(1000)), [], "alone");
    let batch = group.batch(1);
    backup.hear(2, group.prepare(2, 0, 1, batch.digest()));
    backup.hear(0, group.pre_prepare(0, 0, 1, &batch));
    let prepare = group.prepare(1, 0, 1, batch.digest());
    assert!(backup.sync().contains(&Output::Broadcast(prepare)));
}

/// "is taken back when its reason is gone" (§6)
#[test]
fn a_suspicion_is_taken_back_when_its_reason_is_gone() {
    let mut backup = Subject::of_four(1);
    backup.pass(300);
    assert!(backup.status.clone().is_some_and(|status| status.suspects));
    backup.pass_with_primary_alive(200);
    assert!(backup.status.clone().is_some_and(|status| !status.suspects));
    let suspects = Message::Status(Status { suspects: true, ..idle_status(0) });
    assert_eq!(wanted(&backup.hear(3, suspects)), [], "it suspects nobody itself any more");
    assert_eq!(suspected(&backup.pass(300)), [(0, Suspicion::Crash)], "and may do so again");
}

/// "A proof is never taken back" (§6)
#[test]
fn a_proof_is_never_taken_back() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    backup.hear(0, group.pre_prepare(0, 0, 1, &group.batch(1)));
    let outputs = backup.hear(0, group.pre_prepare(0, 0, 1, &group.batch(2)));
    assert_eq!(suspected(&outputs), [(0, Suspicion::Proof)]);
    backup.pass_with_primary_alive(1000);
    assert!(backup.status.clone().is_some_and(|status| status.suspects));
    let suspects = Message::Status(Status { suspects: true, ..idle_status(0) });
    assert_eq!(wanted(&backup.hear(3, suspects)), [(1, Suspicion::Proof)]);
}

/// The same, where the primary was suspected of something else when the proof came: that it is heard again changes nothing.
#[test]
fn a_proof_that_comes_after_another_reason_is_never_taken_back_either() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    assert_eq!(suspected(&backup.pass(300)), [(0, Suspicion::Crash)]);
    backup.hear(0, group.pre_prepare(0, 0, 1, &group.batch(1)));
    let outputs = backup.hear(0, group.pre_prepare(0, 0, 1, &group.batch(2)));
    assert_eq!(suspected(&outputs), [(0, Suspicion::Proof)]);
    backup.pass_with_primary_alive(1000);
    assert!(backup.status.clone().is_some_and(|status| status.suspects));
    assert_eq!(suspected(&backup.hear(0, group.pre_prepare(0, 0, 1, &group.batch(3)))), [], "it is said once");
}

/// "With `w` members that suspect the primary of the view that a replica is in or asks for, or have left that view, itself
/// among them or not, it asks for the next" (§6): with no fewer.
#[test]
fn a_weak_quorum_that_suspects_or_left_moves_a_replica_out_of_its_view() {
    for (size, weak) in [(4, 2), (7, 3)] {
        let group = Group::new(size, small());
        let suspects = |of_view| Message::Status(Status { suspects: true, ..idle_status(of_view) });
        let mut backup = Subject::new(&group, 1);
        for id in 2..=weak {
            assert_eq!(wanted(&backup.hear(id, suspects(0))), [], "n = {size}");
            assert_eq!(wanted(&backup.hear(id, suspects(0))), [], "n = {size}: nobody counts twice");
        }
        let last = weak + 1;
        assert_eq!(wanted(&backup.hear(last, suspects(7))), [], "of another view");
        assert_eq!(wanted(&backup.hear(last, suspects(0))), [(1, Suspicion::Joined)], "n = {size}");
        // One that left counts like one that suspects, and so does the replica itself.
        let mut backup = Subject::new(&group, 1);
        backup.hear(2, Message::ViewChange(group.empty_view_change(2, 9)));
        backup.hear_all((3..=weak).map(|id| (id, suspects(0))));
        let outputs = backup.pass(300);
        assert_eq!(wanted(&outputs), [(1, Suspicion::Crash)], "n = {size}");
    }
}

/// "*stranded*: another member asks for a higher view in vain" (§6), for twice the cap of the bounds.
#[test]
fn a_member_that_is_stranded_in_a_higher_view_is_fetched_by_a_view_change() {
    let mut backup = Subject::of_four(1);
    let outside = Message::Status(Status { view: view(1), entered: false, ..idle_status(0) });
    backup.hear(3, outside.clone());
    backup.pass_with_primary_alive(3900);
    backup.hear(3, Message::Status(idle_status(0)));
    backup.hear(3, outside);
    assert_eq!(suspected(&backup.pass_with_primary_alive(3999)), [], "it began anew");
    assert_eq!(suspected(&backup.pass_with_primary_alive(1)), [(0, Suspicion::Stranded)]);
    // From the entry into a view on, it counts again: a liar changes views no more often.
    backup.enter(2);
    backup.hear(3, Message::Status(Status { view: view(9), entered: false, ..idle_status(0) }));
    assert_eq!(suspected(&backup.pass_with_primary_alive(3999)), []);
    assert_eq!(suspected(&backup.pass_with_primary_alive(1)), [(2, Suspicion::Stranded)]);
}

/// A primary does not wait for its own suspicion: it leaves with the others.
#[test]
fn a_primary_leaves_its_view_with_the_others() {
    let mut primary = Subject::of_four(0);
    let suspects = Message::Status(Status { suspects: true, ..idle_status(0) });
    primary.hear(1, suspects.clone());
    assert_eq!(wanted(&primary.hear(2, suspects)), [(1, Suspicion::Joined)]);
}

/// "A backup suspects the primary of its view" (§6): a primary does not suspect itself.
#[test]
fn a_primary_suspects_nobody() {
    let mut primary = Subject::of_four(0);
    let group = primary.group.clone();
    primary.ask(group.opening(client(0), 1));
    assert_eq!(suspected(&primary.pass(10_000)), []);
}

/// "*silence*: requests wait and nothing is proposed" (§6)
#[test]
fn a_primary_that_proposes_nothing_while_requests_wait_is_suspected() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    assert_eq!(suspected(&backup.pass_with_primary_alive(5000)), [], "nothing waits");
    backup.ask(group.opening(client(0), 1));
    assert_eq!(suspected(&backup.pass_with_primary_alive(499)), []);
    assert_eq!(suspected(&backup.pass_with_primary_alive(1)), [(0, Suspicion::Silence)]);
}

/// "*deadline*: the oldest request it expects has waited too long ... Progress on others does not restart it." (§6)
#[test]
fn progress_on_other_requests_does_not_restart_the_deadline() {
    let group = Group::new(4, Parameters { window: 16, ..small() });
    let mut backup = Subject::new(&group, 1);
    backup.ask(group.opening(client(50), 1));
    for sequence in 1..=9 {
        assert_eq!(suspected(&backup.pass_with_primary_alive(100)), []);
        let index = u8::try_from(sequence).expect("small");
        // Another client's request, which this backup expects too, is proposed and executes at once.
        backup.ask(group.opening(client(index), 1));
        backup.decide(0, sequence, &group.batch(index));
        backup.settle();
    }
    assert_eq!(suspected(&backup.pass_with_primary_alive(99)), []);
    assert_eq!(suspected(&backup.pass_with_primary_alive(1)), [(0, Suspicion::Deadline)]);
}

/// "from the later of its arrival and the entry into the view" (§6)
#[test]
fn the_deadline_counts_from_the_entry_into_the_view() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    backup.ask(group.opening(client(0), 1));
    backup.pass_with_primary_alive(400);
    backup.enter(1);
    // One view change without progress: all bounds are doubled.
    assert_eq!(suspected(&backup.pass_with_primary_alive(999)), []);
    assert_eq!(suspected(&backup.pass_with_primary_alive(1)), [(1, Suspicion::Silence)]);
}

/// "All bounds double with each view change in a row without progress, up to a cap of seconds, and return to their base
/// with progress: ... where none is, entering a view." (§6)
#[test]
fn entering_a_view_with_nothing_expected_returns_the_bounds_to_their_base() {
    let mut backup = Subject::of_four(2);
    backup.enter(1);
    assert_eq!(suspected(&backup.pass(299)), []);
    assert_eq!(suspected(&backup.pass(1)), [(1, Suspicion::Crash)]);
}

/// "All bounds double with each view change in a row without progress, up to a cap of seconds" (§6)
#[test]
fn bounds_double_with_each_view_change_up_to_the_cap() {
    let mut backup = Subject::of_four(3);
    let group = backup.group.clone();
    backup.ask(group.opening(client(0), 1));
    // The crash bound is 300 ms, the cap 2 s.
    for (to, bound_ms) in [(1, 600), (2, 1200), (4, 2000), (5, 2000), (6, 2000)] {
        backup.enter(to);
        assert_eq!(suspected(&backup.pass(bound_ms - 1)), [], "view {to}");
        assert_eq!(suspected(&backup.pass(1)), [(to, Suspicion::Crash)], "view {to}");
    }
}

/// "and return to their base with progress: the execution of the request expected longest" (§6)
#[test]
fn executing_the_request_expected_longest_returns_the_bounds_to_their_base() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    for index in [0, 1] {
        backup.ask(group.opening(client(index), 1));
        backup.pass_with_primary_alive(100);
    }
    backup.enter(1);
    backup.decide(1, 1, &group.batch(1));
    backup.settle();
    assert_eq!(suspected(&backup.pass(599)), [], "another request's execution is no progress");
    let mut other = Subject::new(&group, 2);
    for index in [0, 1] {
        other.ask(group.opening(client(index), 1));
        other.pass_with_primary_alive(100);
    }
    other.enter(1);
    other.decide(1, 1, &group.batch(0));
    other.settle();
    assert_eq!(suspected(&other.pass(300)), [(1, Suspicion::Crash)]);
}

/// "a full window is not silence" (§6)
#[test]
fn a_full_window_is_not_silence() {
    let parameters = Parameters { ordering_deadline_ms: 500, ..small() };
    let group = Group::new(4, parameters);
    let mut backup = Subject::new(&group, 1);
    // The deadline is twice the bound of silence.
    backup.ask(group.opening(client(0), 1));
    backup.pass_with_primary_alive(400);
    for sequence in 1..=8 {
        backup.hear(0, group.pre_prepare(0, 0, sequence, &group.batch(u8::try_from(sequence - 1).expect("small"))));
    }
    let outputs = backup.pass_with_primary_alive(599);
    assert_eq!(suspected(&outputs), []);
    backup.ask(group.opening(client(90), 1));
    let outputs = backup.pass_with_primary_alive(1);
    assert_eq!(suspected(&outputs), [(0, Suspicion::Deadline)], "the deadline holds, silence does not");
}

/// A backup that has executed all of its window, at 8 of which checkpoints are taken every 4; nothing is stable. A request of
/// client 50 waits since `before` milliseconds before that.
fn with_all_of_the_window_executed(before: u64) -> Subject {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    backup.ask(group.opening(client(50), 1));
    assert_eq!(suspected(&backup.pass_with_primary_alive(before)), []);
    for sequence in 1..=8 {
        backup.decide(0, sequence, &group.batch(u8::try_from(sequence).expect("small")));
        backup.settle();
    }
    backup
}

/// The window of a backup moves: the checkpoint at slot 4 is stable.
fn move_window(backup: &mut Subject) -> Vec<Output> {
    let root = backup.replica.state_root_at(slot(4)).expect("taken");
    let certificate = backup.group.stable(4, root, &[0, 2, 3]);
    backup.hear(2, Message::Stable(certificate))
}

/// "when it moves the primary has the whole bound again" (§6)
#[test]
fn a_window_that_moves_gives_the_primary_the_whole_bound_of_silence() {
    let mut backup = with_all_of_the_window_executed(100);
    assert_eq!(suspected(&backup.pass_with_primary_alive(600)), []);
    assert_eq!(suspected(&move_window(&mut backup)), []);
    assert_eq!(suspected(&backup.pass_with_primary_alive(499)), []);
    assert_eq!(suspected(&backup.pass_with_primary_alive(1)), [(0, Suspicion::Silence)]);
}

/// "While all of the window is executed nothing more can be ordered: the deadline does not count that" (§6)
#[test]
fn the_deadline_does_not_count_what_all_of_the_window_was_executed_for() {
    let mut backup = with_all_of_the_window_executed(300);
    let group = backup.group.clone();
    assert_eq!(suspected(&backup.pass_with_primary_alive(1_100)), [], "the deadline is one second");
    assert_eq!(suspected(&move_window(&mut backup)), []);
    // Something is proposed now and then, so there is no silence.
    for (sequence, milliseconds) in [(9, 400), (10, 299)] {
        backup.hear(0, group.pre_prepare(0, 0, sequence, &group.batch(u8::try_from(sequence).expect("small"))));
        assert_eq!(suspected(&backup.pass_with_primary_alive(milliseconds)), []);
    }
    assert_eq!(suspected(&backup.pass_with_primary_alive(1)), [(0, Suspicion::Deadline)], "it waited 300 ms before");
}

/// "and copies that waited meanwhile tell of no slowness" (§6)
#[test]
fn copies_that_waited_for_a_window_to_move_do_not_make_the_primary_slow() {
    let shown_wait = |is_full: bool| {
        let mut backup = with_all_of_the_window_executed(0);
        let group = backup.group.clone();
        if !is_full {
            move_window(&mut backup);
        }
        for index in 9..=12 {
            backup.show(group.opening(client(index), 1));
        }
        backup.pass_with_primary_alive(400);
        if is_full {
            move_window(&mut backup);
        }
        for sequence in 9..=12 {
            let index = u8::try_from(sequence).expect("small");
            backup.hear(0, group.pre_prepare(0, 0, sequence, &group.batch(index)));
            backup.decide(0, sequence, &group.batch(index));
            backup.settle();
        }
        backup.replica.pace().0
    };
    assert_eq!(shown_wait(true), None);
    assert!(shown_wait(false) > Some(Duration::from_millis(100)), "a primary that could have proposed them is slow");
}

/// "or twice the time of ordering if that is more" (§6): over slow links no answer can come sooner.
#[test]
fn where_ordering_takes_long_silence_is_longer() {
    let silent_after = |ordering: u64| {
        let group =
            Group::new(4, Parameters { checkpoint_interval: 128, window: 512, clock_bound_ms: 600_000, ..small() });
        let mut backup = Subject::new(&group, 1);
        for sequence in 1..=100 {
            let index = u8::try_from(sequence).expect("few");
            let batch = group.batch(index);
            backup.show(group.opening(client(index), 1));
            backup.hear(0, group.pre_prepare(0, 0, sequence, &batch));
            backup.pass_with_primary_alive(ordering);
            backup.decide(0, sequence, &batch);
            backup.settle();
        }
        backup.show(group.opening(client(101), 1));
        let waits = (10..10_000).step_by(10);
        waits.into_iter().find(|_| !suspected(&backup.pass_with_primary_alive(10)).is_empty())
    };
    assert_eq!(silent_after(0), Some(500));
    assert_eq!(silent_after(200), Some(500));
    assert_eq!(silent_after(1_000), Some(2_000));
}

/// The same: who proposes all of a window and has none of it decided has its deadline.
#[test]
fn a_window_of_proposals_that_are_not_executed_does_not_stop_the_deadline() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    backup.ask(group.opening(client(50), 1));
    for sequence in 1..=8 {
        backup.hear(0, group.pre_prepare(0, 0, sequence, &group.batch(u8::try_from(sequence).expect("small"))));
    }
    assert_eq!(suspected(&backup.pass_with_primary_alive(999)), []);
    assert_eq!(suspected(&backup.pass_with_primary_alive(1)), [(0, Suspicion::Deadline)]);
}

/// "It is eight times the latency achieved, at least twice its parameter" (§6)
#[test]
fn the_deadline_grows_with_the_latency_achieved() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    for sequence in 1..=3 {
        let index = u8::try_from(sequence).expect("small");
        backup.ask(group.opening(client(index), 1));
        backup.hear(0, group.pre_prepare(0, 0, sequence, &group.batch(index)));
        backup.pass_with_primary_alive(400);
        backup.decide(0, sequence, &group.batch(index));
        backup.settle();
    }
    backup.ask(group.opening(client(50), 1));
    backup.pass_with_primary_alive(400);
    // An eighth of each latency counts, the latest most: 132 ms, of which eight times are 1056 ms and a bit. Something is
    // proposed meanwhile, so there is no silence.
    for (sequence, milliseconds) in [(4, 315), (5, 341)] {
        backup.hear(0, group.pre_prepare(0, 0, sequence, &group.batch(u8::try_from(sequence).expect("small"))));
        assert_eq!(suspected(&backup.pass_with_primary_alive(milliseconds)), []);
    }
    assert_eq!(suspected(&backup.pass_with_primary_alive(1)), [(0, Suspicion::Deadline)]);
}

/// "A replica that was itself stopped for two heartbeats accuses nobody for what it did not hear meanwhile." (§6)
#[test]
fn a_replica_that_was_stopped_itself_accuses_nobody() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    backup.ask(group.opening(client(0), 1));
    backup.pass_with_primary_alive(100);
    backup.now_ms += 60_000;
    assert_eq!(suspected(&backup.step(Input::Wake)), []);
    assert_eq!(suspected(&backup.pass(299)), []);
    assert_eq!(suspected(&backup.pass(1)), [(0, Suspicion::Crash)], "from now on it counts");
}

/// The same, of a new view: §7.2's time-out is an accusation too.
#[test]
fn a_replica_that_was_stopped_itself_does_not_give_up_the_new_view() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    for id in [0, 3] {
        backup.hear(id, Message::ViewChange(group.empty_view_change(id, 1)));
    }
    backup.sync();
    backup.pass(100);
    backup.now_ms += 60_000;
    assert_eq!(wanted(&backup.step(Input::Wake)), []);
}

/// "It joins others at once: it moves to the highest view that `w` members ask for or exceed. So a liar alone moves
/// nobody." (§6)
#[test]
fn a_replica_joins_a_weak_quorum_and_nobody_alone() {
    for (size, weak) in [(4, 2), (7, 3)] {
        let group = Group::new(size, small());
        let mut backup = Subject::new(&group, 1);
        for index in 1..weak {
            let id = index + 1;
            let to = 10 * u64::from(index);
            assert_eq!(backup.hear(id, Message::ViewChange(group.empty_view_change(id, to))), [], "n = {size}");
        }
        let outputs = backup.hear(weak + 1, Message::ViewChange(group.empty_view_change(weak + 1, 1000)));
        assert_eq!(
            wanted(&outputs),
            [(10, Suspicion::Joined)],
            "n = {size}: the highest that all of w ask for or exceed"
        );
    }
}

/// The same: a liar that asks for the highest view moves nobody, and never panics.
#[test]
fn a_liar_at_the_last_view_moves_nobody() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    assert_eq!(backup.hear(3, Message::ViewChange(group.empty_view_change(3, u64::MAX))), []);
    assert_eq!(backup.replica.view(), view(0));
    let outputs = backup.hear(2, Message::ViewChange(group.empty_view_change(2, 1)));
    assert_eq!(wanted(&outputs), [(1, Suspicion::Joined)]);
}

/// "The expectation ends when it executes, leaves the window, or its session is gone." (§4.6)
#[test]
fn an_expectation_ends_when_its_session_turns_out_not_to_exist() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let ahead = Session { sequence: slot(1), index: 0 };
    // The client opened no session: slot 1 will open another client's.
    assert_eq!(said(&backup.ask(group.request(client(9), ahead, 1, "never"))).len(), 1);
    backup.decide(0, 1, &group.batch(0));
    backup.settle();
    assert_eq!(suspected(&backup.pass_with_primary_alive(2000)), []);
}

/// The same, of a number that others made leave the window.
#[test]
fn an_expectation_ends_when_its_number_leaves_the_window() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    backup.decide(0, 1, &group.batch(0));
    backup.settle();
    let session = Session { sequence: slot(1), index: 0 };
    backup.ask(group.request(client(0), session, 1, "left behind"));
    for (sequence, number) in [(2, 64), (3, 65)] {
        backup.decide(0, sequence, &group.batch_at(0, vec![group.request(client(0), session, number, "later")]));
        backup.settle();
    }
    assert_eq!(suspected(&backup.pass_with_primary_alive(2000)), []);
}

/// "a backup passes the request on to the primary and from then on **expects** it" (§4.6): whoever is the primary.
#[test]
fn what_is_expected_of_a_new_primary_is_passed_on_to_it() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let request = group.opening(client(0), 1);
    backup.ask(request.clone());
    let view_changes: Vec<_> = [0, 1, 3].map(|id| (id, group.empty_view_change(id, 1))).into();
    let named: Vec<_> = view_changes.iter().map(|(id, signed)| (*id, signed)).collect();
    let new_view = group.new_view(1, 1, &named, &[]);
    backup.hear_all(view_changes.iter().map(|(id, signed)| (*id, Message::ViewChange(signed.clone()))));
    let outputs = backup.hear(1, Message::NewView(new_view));
    let to_primary = Output::Send { to: crate::support::replica(1), message: Message::Request(request) };
    assert!(outputs.contains(&to_primary));
}

/// "Timers run on a monotonic clock only." (§9)
#[test]
fn a_jump_of_the_wall_clock_moves_no_timer() {
    let mut backup = Subject::of_four(1);
    let due = backup.replica.next_deadline();
    let mut now = crate::support::subject::now(backup.now_ms);
    now.wall = quorate_protocol::time::WallTime::from_nanoseconds(u64::MAX);
    backup.replica.handle(now, Input::Wake);
    assert_eq!(backup.replica.next_deadline(), due);
    assert_eq!(suspected(&backup.outputs()), []);
}

/// "`Status`: the last a member" (§3, table): what it says of its sender is taken for what it is, a claim.
#[test]
fn a_status_that_claims_the_highest_numbers_does_no_harm() {
    let mut backup = Subject::of_four(1);
    let last = Sequence::new(u64::MAX);
    let status = Status {
        view: view(u64::MAX),
        stable: last,
        executed: last,
        decided_from: last,
        view_changes: u32::MAX,
        checkpoint_votes: u32::MAX,
        ..idle_status(0)
    };
    for _ in 0..5 {
        backup.hear(3, Message::Status(status.clone()));
        backup.pass_with_primary_alive(100);
    }
    assert_eq!((backup.replica.view(), backup.replica.stable()), (view(0), slot(0)));
}

/// Everybody else gives up the primary of the view that `subject` is in or asks for; gives the views that it asks for then,
/// and whose turns it passes over.
fn given_up(subject: &mut Subject) -> (Vec<u64>, Vec<u8>) {
    let (of_view, entered) = match subject.replica.mode() {
        Mode::Normal => (subject.replica.view(), true),
        Mode::ViewChange { to } => (to, false),
    };
    let primary = subject.group.0.primary(of_view).value();
    let suspects = Status { suspects: true, entered, ..idle_status(of_view.value()) };
    let others: Vec<u8> = (0..4).filter(|id| *id != subject.replica.id().value() && *id != primary).collect();
    let outputs = subject.hear_all(others.into_iter().map(|id| (id, Message::Status(suspects.clone()))));
    let views = wanted(&outputs).into_iter().map(|(view, _)| view).collect();
    let passed_over = notices(&outputs).into_iter().filter_map(|notice| match notice {
        Notice::TurnPassedOver { replica } => Some(replica.value()),
        _ => None,
    });
    (views, passed_over.collect())
}

/// "whoever leaves a view that it was in passes over the views of those that it gave up within `passed_over_ms`, and asks for the
/// next one beyond them" (§6)
#[test]
fn the_turn_of_a_primary_that_was_given_up_is_passed_over_for_ten_minutes() {
    let mut backup = Subject::of_four(1);
    assert_eq!(given_up(&mut backup), (vec![1], vec![]));
    backup.enter(3);
    let mut later = backup.clone();
    let mut late = backup.clone();
    assert_eq!(given_up(&mut backup), (vec![5], vec![0]));
    backup.enter(6);
    assert_eq!(given_up(&mut backup), (vec![7], vec![]));
    backup.enter(7);
    assert_eq!(given_up(&mut backup), (vec![9], vec![0]), "no more than may be faulty, and those given up first");
    // "from a view that is late the way leads to the next one, whoever its primary is" (§6)
    assert_eq!(given_up(&mut late), (vec![5], vec![0]));
    for expected in [6, 7, 8, 9] {
        assert_eq!(given_up(&mut late), (vec![expected], vec![]));
    }
    let mut without_room = later.clone();
    without_room.step(Input::LogFull);
    assert_eq!(given_up(&mut without_room), (vec![], vec![]), "who may not leave passes nobody over");
    later.pass(600_000);
    assert_eq!(given_up(&mut later), (vec![4], vec![]));
}

/// "first who was proved faulty, then who neglected something (*deadline*, *silence*, *slowness*), then who was absent or was
/// left by the others" (§6)
#[test]
fn the_turn_of_who_did_worse_is_passed_over_rather_than_another_ones() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    assert_eq!(given_up(&mut backup), (vec![1], vec![]));
    backup.enter(1);
    backup.hear(1, group.pre_prepare(1, 1, 1, &group.batch(0)));
    backup.hear(1, group.pre_prepare(1, 1, 1, &group.batch(1)));
    assert_eq!(given_up(&mut backup), (vec![2], vec![]));
    backup.enter(3);
    let mut other = backup.clone();
    assert_eq!(given_up(&mut backup), (vec![4], vec![]), "replica 0 was only left");
    other.enter(4);
    assert_eq!(given_up(&mut other), (vec![6], vec![1]), "replica 1 has contradicted itself");
}
