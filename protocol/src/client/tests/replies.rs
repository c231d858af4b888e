//! Which answers make a result. (PROTOCOL §4.6)

use super::*;
use crate::client::{ClientError, ClientStatistics};

#[test]
fn a_weak_quorum_of_equal_answers_completes_a_request() {
    let mut bench = Bench::open(4);
    let submitted_at = bench.now;
    bench.submit(7);
    bench.pass(Duration::from_millis(3));
    assert_eq!(bench.reply(3, 1, executed(1)), []);
    let results = List::new(vec![Blob::from(&b"done"[..])]).expect("one");
    let expected =
        ClientOutput::Completed { ticket: 7, sequence: Sequence::new(11), index: 0, results, submitted_at, retries: 0 };
    assert_eq!(bench.reply_in_view(1, 9, 1, executed(1)), [expected], "the view need not match");
    assert_eq!((bench.outstanding(), bench.statistics().completed), (0, 1));
}

#[test]
fn as_many_equal_answers_as_there_may_be_liars_are_not_enough() {
    for (size, faults) in [(4, 1), (7, 2), (10, 3)] {
        let mut bench = Bench::open_of(size, 4);
        bench.submit(1);
        for from in 0..faults {
            assert_eq!(bench.reply(from, 1, executed(1)), [], "{} of {size}", from + 1);
        }
        assert_eq!(completed(&bench.reply(faults, 1, executed(1))), [1]);
    }
}

#[test]
fn one_replica_twice_is_one_replica() {
    let mut bench = Bench::open(4);
    bench.submit(1);
    for _ in 0..10 {
        assert_eq!(bench.reply(3, 1, executed(1)), []);
    }
    assert_eq!(bench.statistics().mismatched_replies, 0);
}

#[test]
fn answers_that_differ_in_anything_but_the_view_do_not_add_up() {
    let variants = [
        executed_with(Sequence::new(12), 0, b"done"),
        executed_with(Sequence::new(11), 1, b"done"),
        executed_with(Sequence::new(11), 0, b"else"),
    ];
    for variant in variants {
        let mut bench = Bench::open(4);
        bench.submit(1);
        bench.reply(0, 1, executed(1));
        assert_eq!(bench.reply(1, 1, variant.clone()), [], "{variant:?}");
        assert_eq!(completed(&bench.reply(2, 1, executed(1))), [1]);
        assert!(bench.liars().eq([replica(1)]), "{variant:?}");
        assert_eq!(bench.statistics().mismatched_replies, 1);
    }
}

#[test]
fn whoever_changes_its_answer_lies_and_keeps_its_first() {
    let mut bench = Bench::open(4);
    bench.submit(1);
    bench.reply(3, 1, executed_with(Sequence::new(11), 0, b"lie"));
    bench.reply(3, 1, executed(1));
    assert!(bench.liars().eq([replica(3)]));
    assert_eq!(bench.reply(1, 1, executed(1)), [], "the liar's second answer does not count");
    assert_eq!(completed(&bench.reply(2, 1, executed(1))), [1]);
}

#[test]
fn garbage_settles_nothing() {
    let mut bench = Bench::open(4);
    bench.submit(1);
    let garbage = [
        (1, reply(SESSION, 2, executed(1))),
        (1, reply(SESSION, 0, executed(1))),
        (1, reply(Session { index: 9, ..SESSION }, 1, executed(1))),
        (1, reply(Session::NONE, 1, executed(1))),
        (1, Reply { client: key(101), ..reply(SESSION, 1, executed(1)) }),
        (4, reply(SESSION, 1, executed(1))),
        (255, reply(SESSION, 1, executed(1))),
    ];
    for (from, reply) in garbage {
        assert_eq!(bench.step(ClientInput::Reply { from: replica(from), reply }), []);
    }
    let ClientStatistics { ignored_replies, late_replies, mismatched_replies, .. } = *bench.statistics();
    assert_eq!((ignored_replies, late_replies, mismatched_replies), (6, 1, 0));
    assert_eq!(bench.reply(2, 1, executed(1)), [], "none of it counted");
    assert_eq!(completed(&bench.reply(1, 1, executed(1))), [1]);
}

#[test]
fn an_answer_of_the_wrong_kind_or_number_of_results_is_a_lie() {
    let mut bench = Bench::open(4);
    bench.submit(1);
    let two = List::new(vec![Blob::EMPTY; 2]).expect("two");
    let wrong = [
        Outcome::Opened { session: SESSION },
        Outcome::Executed { sequence: Sequence::new(11), index: 0, results: List::empty() },
        Outcome::Executed { sequence: Sequence::new(11), index: 0, results: two },
    ];
    for outcome in wrong {
        for from in [2, 3] {
            assert_eq!(bench.reply(from, 1, outcome.clone()), []);
        }
    }
    assert_eq!((bench.statistics().mismatched_replies, bench.outstanding()), (6, 1));
    let mut bench = Bench::new(4, Parameters::default());
    for outcome in [executed(1), Outcome::Evicted, Outcome::Forgotten] {
        let reply = reply(Session::NONE, OPENING.value(), outcome);
        bench.step(ClientInput::Reply { from: replica(1), reply });
    }
    assert_eq!(bench.statistics().mismatched_replies, 3);
}

#[test]
fn answers_after_the_result_are_late_and_nothing_else() {
    let mut bench = Bench::open(4);
    bench.submit(1);
    bench.settle(1);
    assert_eq!(bench.reply(3, 1, executed(1)), []);
    assert_eq!(bench.reply(0, 1, executed(1)), []);
    bench.opened(3, SESSION);
    assert_eq!((bench.statistics().late_replies, bench.statistics().ignored_replies), (3, 0));
}

#[test]
fn a_reply_that_a_weak_quorum_forgot_is_lost() {
    let mut bench = Bench::open(1);
    bench.submit(1);
    bench.submit(2);
    assert_eq!(bench.reply(1, 1, Outcome::Forgotten), []);
    assert_eq!(bench.reply(1, 1, Outcome::Forgotten), [], "the same replica again");
    let outputs = bench.reply(2, 1, Outcome::Forgotten);
    assert_eq!(outputs[0], ClientOutput::Failed { ticket: 1, error: ClientError::ReplyLost });
    assert_eq!(sent(&outputs), [(Some(replica(0)), 2)], "it executed: its number is settled");
}

#[test]
fn whoever_answered_and_forgot_since_is_no_liar_and_counts_for_both() {
    let mut bench = Bench::open(4);
    bench.submit(1);
    bench.submit(2);
    bench.reply(1, 1, executed(1));
    bench.reply(1, 1, Outcome::Forgotten);
    assert_eq!(completed(&bench.reply(2, 1, executed(1))), [1]);
    bench.reply(1, 2, executed(2));
    bench.reply(1, 2, Outcome::Forgotten);
    assert_eq!(
        bench.reply(2, 2, Outcome::Forgotten),
        [ClientOutput::Failed { ticket: 2, error: ClientError::ReplyLost }]
    );
    assert_eq!(bench.liars().count(), 0);
}

#[test]
fn every_liar_at_once_stops_no_request() {
    for size in [4, 7, 10, 31] {
        let mut bench = Bench::open_of(size, 4);
        bench.submit(1);
        let faults = (size - 1) / 3;
        for liar in 0..faults {
            let lie = executed_with(Sequence::new(11), u32::from(liar), b"lie");
            assert_eq!(bench.reply_in_view(liar, u64::MAX, 1, lie), []);
            bench.reply(liar, 1, Outcome::Evicted);
            bench.reply(liar, 1, Outcome::Forgotten);
        }
        for from in faults..2 * faults {
            assert_eq!(bench.reply(from, 1, executed(1)), []);
        }
        assert_eq!(completed(&bench.reply(2 * faults, 1, executed(1))), [1]);
        assert_eq!((bench.liars().count(), bench.believed_primary()), (usize::from(faults), replica(0)));
    }
}
