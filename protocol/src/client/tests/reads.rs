//! Reads that nobody orders. (PROTOCOL §8, fast reads)

use super::*;
use crate::application::{READ_BYTES_MAX, Reading};
use crate::client::ClientError;
use crate::message::ReadAnswer;

/// A client of four replicas that answer reads without ordering them; its session is open.
fn bench() -> Bench {
    let mut bench = Bench::new(4, Parameters { fast_reads: true, ..Parameters::default() });
    bench.drain();
    for index in 0..2 {
        bench.opened(index, SESSION);
    }
    bench
}

fn operation() -> Blob {
    Blob::from(&b"read"[..])
}

fn ask(bench: &mut Bench, ticket: Ticket) -> Vec<ClientOutput> {
    bench.step(ClientInput::Read { ticket, operation: operation() })
}

fn answer(result: &[u8], since: u64) -> ReadAnswer {
    ReadAnswer { epoch: Epoch::ZERO, reading: Reading { result: Blob::from(result), since: Sequence::new(since) } }
}

fn tell(bench: &mut Bench, from: u8, answer: Option<ReadAnswer>) -> Vec<ClientOutput> {
    bench.step(ClientInput::ReadAnswer { from: replica(from), number: RequestNumber::new(1), answer })
}

/// The tickets of reads that were answered without being ordered.
fn read(outputs: &[ClientOutput]) -> Vec<Ticket> {
    let ticket = |output: &ClientOutput| match output {
        ClientOutput::Read { ticket, .. } => Some(*ticket),
        _ => None,
    };
    outputs.iter().filter_map(ticket).collect()
}

#[test]
fn a_read_is_asked_of_all_and_believed_when_a_quorum_answers_alike() {
    let mut bench = bench();
    let number = RequestNumber::new(1);
    assert_eq!(ask(&mut bench, 7), [ClientOutput::Ask { number, operation: operation() }]);
    for from in [3, 3, 1] {
        assert_eq!(tell(&mut bench, from, Some(answer(b"a", 5))), [], "{from}");
    }
    let reading = answer(b"a", 5).reading;
    let expected = ClientOutput::Read { ticket: 7, reading, submitted_at: bench.now };
    assert_eq!(tell(&mut bench, 0, Some(answer(b"a", 5))), [expected]);
    assert_eq!(bench.next_deadline(), None);
    assert_eq!(tell(&mut bench, 2, Some(answer(b"a", 5))), [], "it is over");
}

/// With one liar the other two may be at different slots, with a third value in between.
#[test]
fn equal_results_that_are_so_since_different_slots_are_no_quorum() {
    let mut bench = bench();
    ask(&mut bench, 7);
    tell(&mut bench, 0, Some(answer(b"a", 5)));
    tell(&mut bench, 1, Some(answer(b"a", 5)));
    let outputs = tell(&mut bench, 2, Some(answer(b"a", 10)));
    assert_eq!((read(&outputs), sent(&outputs)), (vec![], vec![]));
    assert_eq!(sent(&tell(&mut bench, 3, Some(answer(b"b", 9)))), [(Some(replica(0)), 1)], "it is ordered");
}

#[test]
fn answers_of_different_epochs_are_no_quorum() {
    let mut bench = bench();
    ask(&mut bench, 7);
    for from in 0..2 {
        tell(&mut bench, from, Some(answer(b"a", 5)));
    }
    let later = ReadAnswer { epoch: Epoch::new(1), ..answer(b"a", 5) };
    assert_eq!(tell(&mut bench, 2, Some(later)), []);
    assert_eq!(read(&tell(&mut bench, 3, Some(answer(b"a", 5)))), [7]);
}

#[test]
fn a_read_is_ordered_as_soon_as_no_quorum_can_agree() {
    let ends: [[Option<ReadAnswer>; 2]; 3] =
        [[None, None], [Some(answer(b"a", 5)), Some(answer(b"b", 6))], [None, Some(answer(b"a", 5))]];
    for [first, second] in ends {
        let mut bench = bench();
        ask(&mut bench, 7);
        tell(&mut bench, 0, first.clone());
        let mut outputs = tell(&mut bench, 1, second.clone());
        if sent(&outputs).is_empty() {
            outputs = tell(&mut bench, 2, None);
        }
        assert_eq!(sent(&outputs), [(Some(replica(0)), 1)], "{first:?}, {second:?}");
        assert_eq!(tell(&mut bench, 3, Some(answer(b"a", 5))), [], "it is ordered by now");
    }
}

#[test]
fn an_ordered_read_completes_by_a_quorum_of_replies_as_all_do_where_reads_are_fast() {
    let mut bench = bench();
    ask(&mut bench, 7);
    tell(&mut bench, 0, None);
    tell(&mut bench, 1, None);
    for from in [1, 2] {
        assert_eq!(completed(&bench.reply(from, 1, executed(1))), []);
    }
    assert_eq!(completed(&bench.reply(3, 1, executed(1))), [7]);
}

#[test]
fn a_read_that_is_not_answered_in_time_is_ordered() {
    let mut bench = bench();
    ask(&mut bench, 7);
    tell(&mut bench, 0, Some(answer(b"a", 5)));
    assert_eq!(sent(&bench.wake()), [(Some(replica(0)), 1)]);
    assert_eq!(bench.statistics().ordered_reads, 1);
}

#[test]
fn who_is_not_reached_is_not_waited_for() {
    let mut bench = bench();
    bench.step(ClientInput::LinkDown(replica(3)));
    ask(&mut bench, 7);
    assert_eq!(sent(&bench.step(ClientInput::LinkDown(replica(2)))), [(Some(replica(0)), 1)]);
    assert_eq!(sent(&ask(&mut bench, 8)), [(Some(replica(0)), 2)], "two of four are no quorum");
}

#[test]
fn a_stranger_answers_nothing() {
    let mut bench = bench();
    ask(&mut bench, 7);
    for from in [0, 1, 4, 31] {
        assert_eq!(tell(&mut bench, from, Some(answer(b"a", 5))), []);
    }
    assert_eq!(read(&tell(&mut bench, 2, Some(answer(b"a", 5)))), [7]);
}

#[test]
fn where_reads_are_not_fast_they_are_ordered_at_once() {
    let mut bench = Bench::open(8);
    assert_eq!(sent(&ask(&mut bench, 7)), [(Some(replica(0)), 1)]);
    assert_eq!(completed(&bench.settle(1)), [7]);
}

#[test]
fn reads_beyond_the_bound_are_ordered() {
    let mut bench = bench();
    for ticket in 0..1024 {
        assert_eq!(sent(&ask(&mut bench, ticket)), []);
    }
    assert_eq!(sent(&ask(&mut bench, 1024)).len(), 1);
}

/// What came of a request is known to any quorum that answers a read afterwards, however it ends.
#[test]
fn a_lost_reply_and_a_lost_session_take_a_quorum_where_reads_are_fast() {
    let failed = |outputs: &[ClientOutput]| -> Vec<ClientError> {
        let error = |output: &ClientOutput| match output {
            ClientOutput::Failed { error, .. } => Some(*error),
            _ => None,
        };
        outputs.iter().filter_map(error).collect()
    };
    let mut lost = bench();
    lost.submit(7);
    for from in [1, 2] {
        assert_eq!(failed(&lost.reply(from, 1, Outcome::Forgotten)), [], "{from}");
    }
    assert_eq!(failed(&lost.reply(3, 1, executed(1))), [ClientError::ReplyLost], "it executed there, too");
    let mut evicted = bench();
    evicted.submit(7);
    for from in [1, 2] {
        assert_eq!(failed(&evicted.reply(from, 1, Outcome::Evicted)), [], "{from}");
    }
    assert_eq!(failed(&evicted.reply(3, 1, Outcome::Evicted)), [ClientError::OutcomeUnknown]);
}

#[test]
fn an_answer_that_is_longer_than_any_may_be_is_none() {
    let mut bench = bench();
    ask(&mut bench, 7);
    let long = answer(&vec![7; READ_BYTES_MAX + 1], 5);
    for from in 0..2 {
        let outputs = tell(&mut bench, from, Some(long.clone()));
        assert_eq!(sent(&outputs).len(), usize::from(from), "two of four that do not answer are too many");
    }
}
