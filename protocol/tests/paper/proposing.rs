//! §4.1, §4.2, §4.6, §12: requests on their way into a batch.

use quorate_protocol::Output;
use quorate_protocol::batch::{Batch, SignedRequest};
use quorate_protocol::message::{Message, Outcome, PrePrepare};
use quorate_protocol::number::{RecordNumber, Session};
use quorate_protocol::record::Record;
use quorate_protocol::refusal::Refusal;

use crate::support::subject::{Subject, appended, said};
use crate::support::{client, prepare, replica, slot};

/// The batches proposed among `outputs`.
fn batches(outputs: &[Output]) -> Vec<Batch> {
    let records = appended(outputs).into_iter();
    let batches = records.filter_map(|record| match record {
        Record::Accepted(_, batch) => batch,
        _ => None,
    });
    batches.collect()
}

/// The requests in each batch proposed among `outputs`.
fn proposed(outputs: &[Output]) -> Vec<usize> {
    batches(outputs).iter().map(|batch| batch.requests().len()).collect()
}

/// "With nothing in flight it proposes at once" (§4.2); "A **pre-prepare** is the primary's own `Prepare` vote with the
/// batch" (§3); "It takes the next slot ... and stamps the batch with its clock." (§4.2)
#[test]
fn a_primary_with_nothing_in_flight_proposes_at_once() {
    let mut primary = Subject::of_four(0);
    let group = primary.group.clone();
    let batch = group.batch(0);
    let vote = group.vote(0, prepare(0, 1, batch.digest()));
    let outputs = primary.ask(group.opening(client(0), 1));
    let record = Record::Accepted(vote, Some(batch.clone()));
    assert_eq!(outputs, [Output::Append { number: RecordNumber::new(1), record }]);
    let message = Message::PrePrepare(PrePrepare { vote, batch: batch.body().clone().into() });
    assert_eq!(primary.sync(), [Output::Broadcast(message)]);
}

#[test]
fn a_batch_keeps_nothing_in_memory_but_its_body() {
    let mut primary = Subject::of_four(0);
    let group = primary.group.clone();
    primary.ask(group.opening(client(0), 1));
    let session = Session { sequence: slot(1), index: 0 };
    let outputs = primary.ask(group.request(client(0), session, 1, "operation"));
    let batch = &batches(&outputs)[0];
    let body = batch.body().as_ptr_range();
    let request = &batch.requests()[0];
    for part in [request.signed.body.bytes(), request.request.operations[0].bytes()] {
        assert!(body.contains(&part.as_ptr()), "a slice of something else, which stays with it");
    }
}

/// "with one batch in flight, once as many requests wait as that one holds; otherwise a batch fills" (§4.2)
#[test]
fn a_batch_that_is_not_full_waits_while_two_are_in_flight() {
    let mut primary = Subject::of_four(0);
    let group = primary.group.clone();
    let first = primary.ask(group.opening(client(0), 1));
    assert_eq!(proposed(&first), [1], "with nothing in flight it leaves at once");
    let second = primary.ask(group.opening(client(1), 1));
    assert_eq!(proposed(&second), [1], "with one in flight, once as many wait");
    let sizes: Vec<usize> = (2..6).flat_map(|index| proposed(&primary.ask(group.opening(client(index), 1)))).collect();
    assert_eq!(sizes, [] as [usize; 0]);
    primary.sync();
    let outputs = primary.decide(0, 1, &batches(&first)[0]);
    assert_eq!(proposed(&outputs), [4], "all that waited, in the place of the one that was decided");
    assert_eq!(proposed(&primary.ask(group.opening(client(6), 1))), [] as [usize; 0]);
    primary.sync();
    let outputs = primary.decide(0, 2, &batches(&second)[0]);
    assert_eq!(proposed(&outputs), [] as [usize; 0], "one waits and four are in flight");
}

/// "and leaves while a slot of the pipeline is free" (§4.2)
#[test]
fn full_batches_use_the_whole_pipeline_and_no_more() {
    let parameters = quorate_protocol::configuration::Parameters {
        batch_bytes_max: 1 << 16,
        request_bytes_max: 1 << 15,
        ..crate::support::small()
    };
    let group = crate::support::Group::new(4, parameters);
    let mut primary = Subject::new(&group, 0);
    let outputs = primary.ask(group.opening(client(0), 1));
    let large = "x".repeat(30_000);
    let session = Session { sequence: slot(1), index: 0 };
    let ask = |number| group.request(client(0), session, number, &large);
    let rest: Vec<Output> = (1..=8).flat_map(|number| primary.ask(ask(number))).collect();
    assert_eq!(proposed(&rest), [1, 2, 2], "as many slots as the pipeline has");
    primary.sync();
    let outputs = primary.decide(0, 1, &batches(&outputs)[0]);
    assert_eq!(proposed(&outputs), [2]);
}

/// "a batch fills up to its bounds" (§4.2)
#[test]
fn what_does_not_fit_a_batch_waits_for_the_next() {
    let parameters = quorate_protocol::configuration::Parameters {
        batch_bytes_max: 1 << 16,
        request_bytes_max: 1 << 15,
        ..crate::support::small()
    };
    let group = crate::support::Group::new(4, parameters);
    let mut primary = Subject::new(&group, 0);
    primary.ask(group.opening(client(0), 1));
    let large = "x".repeat(30_000);
    let session = Session { sequence: slot(1), index: 0 };
    let ask = |number| group.request(client(0), session, number, &large);
    let outputs: Vec<Output> = (1..=6).flat_map(|number| primary.ask(ask(number))).collect();
    let sizes = proposed(&outputs);
    assert!(sizes.contains(&2) && sizes.iter().all(|size| *size <= 2), "two fit, three do not: {sizes:?}");
}

/// "It takes the next slot within the **watermarks**" (§4.2)
#[test]
fn a_primary_proposes_nothing_above_the_high_watermark() {
    let mut primary = Subject::of_four(0);
    let group = primary.group.clone();
    for sequence in 1..=8 {
        let index = u8::try_from(sequence).expect("small");
        primary.ask(group.opening(client(index), 1));
        primary.decide(0, sequence, &group.batch(index));
        // Checkpoints are taken but nobody else vouches for them.
        primary.settle();
    }
    assert_eq!(primary.replica.executed(), slot(8));
    assert_eq!(primary.ask(group.opening(client(9), 1)), []);
    let root = primary.replica.state_root_at(slot(4)).expect("taken");
    let outputs = primary.hear(1, Message::Stable(group.stable(4, root, &[1, 2, 3])));
    assert_eq!(proposed(&outputs), [1]);
}

/// "and leaves while a slot of the pipeline is free" (§4.2): what others made stable is in flight no more, though this replica
/// has yet to execute it.
#[test]
fn what_is_stable_is_not_in_flight() {
    let parameters = quorate_protocol::configuration::Parameters { batch_operations_max: 1, ..crate::support::small() };
    let group = crate::support::Group::new(4, parameters);
    let mut primary = Subject::new(&group, 0);
    let ask = |primary: &mut Subject, clients: std::ops::Range<u8>| -> usize {
        clients.map(|index| proposed(&primary.ask(group.opening(client(index), 1))).len()).sum()
    };
    assert_eq!(ask(&mut primary, 0..6), 4, "the pipeline is full");
    let outputs = primary.hear(1, Message::Stable(group.stable(4, crate::support::digest(4), &[1, 2, 3])));
    assert_eq!(proposed(&outputs), [1, 1], "both that waited");
    assert_eq!(ask(&mut primary, 6..12), 2, "four again");
}

/// "a backup passes the request on to the primary" (§4.6)
#[test]
fn a_backup_passes_a_clients_request_on_to_the_primary() {
    let mut backup = Subject::of_four(1);
    let request = backup.group.opening(client(0), 1);
    let outputs = backup.ask(request.clone());
    assert_eq!(outputs, [Output::Send { to: replica(0), message: Message::Request(request) }]);
}

/// "a backup passes the request on to the primary" (§4.6), which takes it like a client's own.
#[test]
fn a_primary_proposes_what_a_backup_passed_on() {
    let mut primary = Subject::of_four(0);
    let request = primary.group.opening(client(0), 1);
    assert_eq!(proposed(&primary.hear(2, Message::Request(request.clone()))), [1]);
    let mut backup = Subject::of_four(1);
    assert_eq!(backup.hear(2, Message::Request(request)), []);
    assert_eq!(backup.replica.refusals()[&Refusal::NotThePrimary], 1);
}

/// The same: a copy of what waits already, or one for somebody else, is dropped before its signature is checked.
#[test]
fn a_copy_that_is_passed_on_is_unwanted() {
    let mut primary = Subject::of_four(0);
    let group = primary.group.clone();
    let copy = Message::Request(group.opening(client(0), 1));
    assert!(primary.replica.is_wanted(replica(1), &copy));
    primary.hear(2, copy.clone());
    assert!(!primary.replica.is_wanted(replica(1), &copy));
    assert!(primary.replica.is_wanted(replica(1), &Message::Request(group.opening(client(0), 2))));
    assert!(!Subject::of_four(1).replica.is_wanted(replica(2), &Message::Request(group.opening(client(0), 2))));
}

/// "each request is answered" (§4.5): again, if it is asked again.
#[test]
fn a_request_that_executed_is_answered_from_the_table() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    backup.decide(0, 1, &group.batch(0));
    let answer = backup.execute();
    assert_eq!(backup.ask(group.opening(client(0), 1)), answer);
    assert_eq!(backup.replica.refusals()[&Refusal::Executed], 1);
}

/// "the window of outstanding ones is bounded (64)" (§4.1): a number beyond it waits for nothing.
#[test]
fn a_number_outside_its_sessions_window_is_refused() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    backup.decide(0, 1, &group.batch(0));
    backup.settle();
    let session = Session { sequence: slot(1), index: 0 };
    let outstanding = u64::from(group.0.parameters().outstanding_max);
    assert_eq!(said(&backup.ask(group.request(client(0), session, outstanding, "the last"))).len(), 1);
    for number in [outstanding + 1, u64::MAX] {
        backup.ask(group.request(client(0), session, number, "outside"));
    }
    assert_eq!(backup.replica.refusals()[&Refusal::OutsideSession], 2);
    assert_eq!(backup.replica.queue_length(), 1);
}

/// "A request whose session is not in the table never executes." (§12)
#[test]
fn a_request_of_a_session_that_is_gone_is_answered_so() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    backup.decide(0, 1, &group.batch(0));
    backup.settle();
    let outputs = backup.ask(group.request(client(1), Session { sequence: slot(1), index: 0 }, 1, "lost"));
    let [Output::Reply(reply)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!((reply.client, &reply.outcome), (client(1), &Outcome::Evicted));
    assert_eq!(backup.replica.refusals()[&Refusal::NoSession], 1);
}

/// "a lower one is skipped and answered with the higher" (§4.1)
#[test]
fn an_opening_below_the_last_one_is_answered_with_that() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    backup.decide(0, 1, &group.batch_at(0, vec![group.opening(client(0), 7)]));
    backup.settle();
    let outputs = backup.ask(group.opening(client(0), 6));
    let [Output::Reply(reply)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!((reply.session, reply.number.value()), (Session::NONE, 6));
    let opening = quorate_protocol::number::RequestNumber::new(7);
    assert_eq!(reply.outcome, Outcome::Superseded { opening });
}

/// "Admission is bounded per client and in total; past it a replica answers `Busy`." (§12)
#[test]
fn a_client_beyond_its_share_is_told_to_come_back() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let share = 2 * u64::from(group.0.parameters().outstanding_max);
    let ask = |number| -> SignedRequest { group.opening(client(0), number) };
    for number in 1..=share {
        assert_eq!(said(&backup.ask(ask(number))).len(), 1);
    }
    let outputs = backup.ask(ask(share + 1));
    assert!(matches!(outputs[..], [Output::Busy { client: of, .. }] if of == client(0)), "{outputs:?}");
    assert_eq!(said(&backup.ask(group.opening(client(1), 1))).len(), 1);
}

/// "For what backups pass on of one client a primary has room for as much as all of them may expect" (§12)
#[test]
fn a_primary_has_room_for_what_all_backups_expect_of_one_client() {
    let mut primary = Subject::of_four(0);
    let group = primary.group.clone();
    let share = 2 * u64::from(group.0.parameters().outstanding_max);
    for number in 1..=share {
        primary.ask(group.opening(client(0), number));
    }
    let outputs = primary.ask(group.opening(client(0), share + 1));
    assert!(outputs.iter().any(|output| matches!(output, Output::Busy { .. })));
    let busy = |primary: &Subject| primary.replica.refusals().get(&Refusal::Busy).copied().unwrap_or_default();
    assert_eq!(busy(&primary), 1);
    let mut number = share;
    for backup in 1..4 {
        for _ in 0..share {
            number += 1;
            primary.hear(backup, Message::Request(group.opening(client(0), number)));
        }
    }
    assert_eq!((busy(&primary), primary.replica.queue_length() as u64), (1, 4 * share));
    primary.hear(1, Message::Request(group.opening(client(0), number + 1)));
    assert_eq!(busy(&primary), 2, "no backup expects as many");
}

/// "and passes it on once more at half of that" (§4.6)
#[test]
fn a_request_that_waits_for_half_of_the_deadline_is_passed_on_once_more_in_each_view() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let passed_on = |outputs: &[Output], to: u8| {
        let is_passed_on = |output: &&Output| matches!(output, Output::Send { to: of, message: Message::Request(_) } if of.value() == to);
        outputs.iter().filter(is_passed_on).count()
    };
    assert_eq!(passed_on(&backup.ask(group.opening(client(0), 1)), 0), 1);
    let half = u64::from(group.0.parameters().ordering_deadline_ms);
    assert_eq!(passed_on(&backup.pass_with_primary_alive(half - 100), 0), 0);
    assert_eq!(passed_on(&backup.pass_with_primary_alive(100), 0), 1);
    assert_eq!(passed_on(&backup.pass_with_primary_alive(300), 0), 0);
}
