//! Opening a session and losing it. (PROTOCOL §4.1, §12)

use super::*;
use crate::client::{ClientError, WAITING_MAX};

fn failed(ticket: Ticket, error: ClientError) -> ClientOutput {
    ClientOutput::Failed { ticket, error }
}

#[test]
fn a_client_begins_with_an_opening() {
    let mut bench = Bench::new(4, Parameters::default());
    let outputs = bench.drain();
    let [ClientOutput::Send { to, request }] = &outputs[..] else { panic!("one request: {outputs:?}") };
    let request = parsed(request);
    assert_eq!(*to, replica(0));
    assert_eq!((request.session, request.number, request.client), (Session::NONE, OPENING, key(100)));
    assert!(request.is_opening() && request.operations.is_empty());
}

#[test]
fn a_session_is_open_when_a_weak_quorum_says_so_and_then_requests_begin_with_number_one() {
    let mut bench = Bench::new(4, Parameters::default());
    bench.drain();
    assert_eq!(bench.submit(7), []);
    assert_eq!(bench.opened(1, SESSION), []);
    assert_eq!(bench.opened(1, SESSION), [], "the same replica again");
    let other = Session { index: 3, ..SESSION };
    assert_eq!(bench.opened(2, other), [], "another session");
    let outputs = bench.opened(3, SESSION);
    assert_eq!(sent(&outputs), [(Some(replica(0)), 1)]);
    let [ClientOutput::Send { request, .. }] = &outputs[..] else { panic!("one request: {outputs:?}") };
    assert_eq!(parsed(request).session, SESSION);
    assert_eq!(parsed(request).operations, operations(7));
}

#[test]
fn the_latest_answer_to_an_opening_counts() {
    let mut bench = Bench::new(4, Parameters::default());
    let later = Session { sequence: Sequence::new(99), index: 0 };
    bench.opened(1, SESSION);
    bench.opened(2, later);
    bench.opened(1, later);
    assert_eq!(bench.session(), Some(later));
    assert_eq!(bench.liars().count(), 0);
}

#[test]
fn an_opening_that_is_not_answered_goes_to_all_with_the_same_bytes() {
    let mut bench = Bench::new(4, Parameters::default());
    let outputs = bench.drain();
    let [ClientOutput::Send { request, .. }] = &outputs[..] else { panic!("one request: {outputs:?}") };
    assert_eq!(bench.wake(), [ClientOutput::SendAll(request.clone())]);
}

/// A clock that went back gives an opening below the last one of this key.
#[test]
fn an_opening_that_is_superseded_goes_on_above_what_a_weak_quorum_claims() {
    let mut bench = Bench::new(7, Parameters::default());
    bench.drain();
    bench.submit(5);
    let superseded = |bench: &mut Bench, from, opening: u64| {
        let outcome = Outcome::Superseded { opening: RequestNumber::new(opening) };
        bench.step(ClientInput::Reply { from: replica(from), reply: reply(Session::NONE, OPENING.value(), outcome) })
    };
    let last = OPENING.value() + 40;
    // Replica 0 lies, and so does 1, which says nothing that a correct one says.
    assert_eq!(superseded(&mut bench, 0, u64::MAX), []);
    assert_eq!(superseded(&mut bench, 1, OPENING.value()), []);
    assert_eq!(superseded(&mut bench, 2, last), []);
    assert_eq!(superseded(&mut bench, 2, last), [], "the same replica again");
    let outputs = superseded(&mut bench, 3, last + 1);
    assert_eq!(sent(&outputs), [(Some(replica(0)), last + 1)], "three claim {last} or exceed it");
    assert_eq!(bench.liars().collect::<Vec<_>>(), [replica(1)]);
}

/// The same, while no link is up: what was sent before is not what is sent after.
#[test]
fn a_superseded_opening_is_not_sent_again_when_a_link_comes_up() {
    let mut bench = Bench::new(4, Parameters::default());
    bench.drain();
    bench.submit(5);
    (0..4).for_each(|id| drop(bench.step(ClientInput::LinkDown(replica(id)))));
    for from in 1..=2 {
        let outcome = Outcome::Superseded { opening: RequestNumber::new(OPENING.value() + 7) };
        let reply = reply(Session::NONE, OPENING.value(), outcome);
        assert_eq!(bench.step(ClientInput::Reply { from: replica(from), reply }), []);
    }
    let outputs = bench.step(ClientInput::LinkUp(replica(2)));
    assert_eq!(sent(&outputs), [(Some(replica(2)), OPENING.value() + 8)]);
}

#[test]
fn answers_to_another_opening_open_nothing() {
    let mut bench = Bench::new(4, Parameters::default());
    for from in 0..4 {
        let outcome = Outcome::Opened { session: SESSION };
        let reply = reply(Session::NONE, OPENING.value() - 1, outcome);
        bench.step(ClientInput::Reply { from: replica(from), reply });
        bench.opened(from, Session::NONE);
    }
    assert_eq!(bench.session(), None);
    assert_eq!(bench.statistics().ignored_replies, 4);
    assert_eq!(bench.statistics().mismatched_replies, 4);
}

#[test]
fn a_lost_session_fails_what_was_sent_and_keeps_what_was_not() {
    let mut bench = Bench::open(2);
    for ticket in 1..=4 {
        bench.submit(ticket);
    }
    assert_eq!(bench.reply(1, 1, Outcome::Evicted), []);
    assert_eq!(bench.reply(1, 2, Outcome::Evicted), [], "the same replica again");
    let outputs = bench.reply(2, 2, Outcome::Evicted);
    assert_eq!(outputs[..2], [failed(1, ClientError::OutcomeUnknown), failed(2, ClientError::OutcomeUnknown)]);
    let [_, _, ClientOutput::Send { request, .. }] = &outputs[..] else { panic!("an opening: {outputs:?}") };
    let opening = parsed(request);
    assert!(opening.is_opening());
    assert_eq!(opening.number.value(), OPENING.value() + 1);

    let session = Session { sequence: Sequence::new(70), index: 0 };
    let mut outputs = Vec::new();
    for from in 1..=2 {
        let reply = reply(Session::NONE, opening.number.value(), Outcome::Opened { session });
        outputs.extend(bench.step(ClientInput::Reply { from: replica(from), reply }));
    }
    let requests: Vec<Request> = outputs
        .iter()
        .map(|output| match output {
            ClientOutput::Send { request, .. } => parsed(request),
            other => panic!("only requests: {other:?}"),
        })
        .collect();
    let expected = [(1, 3), (2, 4)].map(|(number, ticket)| Request {
        client: key(100),
        session,
        number: RequestNumber::new(number),
        operations: operations(ticket),
    });
    assert_eq!(requests, expected);
}

#[test]
fn a_session_that_is_lost_while_idle_is_opened_again_only_when_it_is_needed() {
    let mut bench = Bench::open(2);
    bench.submit(1);
    bench.settle(1);
    bench.reply(1, 1, Outcome::Evicted);
    assert_eq!(bench.reply(2, 1, Outcome::Evicted), []);
    assert_eq!((bench.session(), bench.next_deadline()), (None, None));
    assert_eq!(sent(&bench.submit(2)), [(Some(replica(0)), OPENING.value() + 1)]);
}

#[test]
fn an_eviction_from_a_number_that_was_never_sent_counts_for_nothing() {
    let mut bench = Bench::open(2);
    bench.submit(1);
    for from in 0..4 {
        assert_eq!(bench.reply(from, 2, Outcome::Evicted), []);
    }
    assert_eq!(bench.session(), Some(SESSION));
}

#[test]
fn replies_of_a_lost_session_settle_nothing_in_the_next() {
    let mut bench = Bench::open(2);
    bench.submit(1);
    bench.reply(1, 1, Outcome::Evicted);
    bench.reply(2, 1, Outcome::Evicted);
    bench.submit(2);
    let session = Session { sequence: Sequence::new(70), index: 0 };
    for from in 1..=2 {
        let reply = reply(Session::NONE, OPENING.value() + 1, Outcome::Opened { session });
        bench.step(ClientInput::Reply { from: replica(from), reply });
    }
    assert_eq!((bench.session(), bench.outstanding()), (Some(session), 1));
    assert_eq!(bench.settle(1), []);
    assert_eq!(bench.outstanding(), 1);
}

#[test]
fn a_weak_quorum_that_refuses_the_opening_fails_what_waits() {
    let mut bench = Bench::new(4, Parameters::default());
    bench.drain();
    bench.submit(1);
    bench.submit(2);
    let refused = |from, number| ClientInput::Refused { from: replica(from), number };
    assert_eq!(bench.step(refused(1, OPENING)), []);
    assert_eq!(bench.step(refused(1, OPENING)), []);
    assert_eq!(bench.step(refused(9, OPENING)), []);
    assert_eq!(bench.step(refused(2, OPENING.saturating_add(1))), [], "another request");
    let outputs = bench.step(refused(2, OPENING));
    assert_eq!(outputs, [failed(1, ClientError::Refused), failed(2, ClientError::Refused)]);
    assert_eq!(bench.client.statistics().refused, 5);
    assert_eq!(bench.next_deadline(), None);
}

#[test]
fn refusals_settle_no_request_of_an_open_session() {
    let mut bench = Bench::open(2);
    bench.submit(1);
    for from in 0..4 {
        assert_eq!(bench.step(ClientInput::Refused { from: replica(from), number: RequestNumber::new(1) }), []);
    }
    assert_eq!(bench.outstanding(), 1);
}

#[test]
fn no_more_submissions_wait_than_the_bound() {
    let mut bench = Bench::open(1);
    for ticket in 0..=WAITING_MAX as u64 {
        assert!(completed(&bench.submit(ticket)).is_empty());
    }
    assert_eq!((bench.outstanding(), bench.waiting()), (1, WAITING_MAX));
    assert_eq!(bench.submit(5000), [failed(5000, ClientError::QueueFull)]);
    assert_eq!(bench.waiting(), WAITING_MAX);
    bench.settle(1);
    assert_eq!((bench.outstanding(), bench.waiting()), (1, WAITING_MAX - 1));
    assert_eq!(bench.submit(5001), []);
}

#[test]
fn what_no_replica_would_order_fails_at_once_and_takes_no_number() {
    let mut bench = Bench::open(2);
    let outputs = bench.step(ClientInput::Submit { ticket: 1, operations: List::empty() });
    assert_eq!(outputs, [failed(1, ClientError::NoOperations)]);
    assert_eq!(sent(&bench.submit(2)), [(Some(replica(0)), 1)]);
}
