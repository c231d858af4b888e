//! The window, time-outs, busy replicas, and where requests go when the primary changes. (PROTOCOL §4.1, §4.6)

use super::*;

const TIMEOUT: Duration = Duration::from_millis(250);

fn busy(from: u8, number: u64, retry_after_ms: u32) -> ClientInput {
    ClientInput::Busy { from: replica(from), number: RequestNumber::new(number), retry_after_ms }
}

fn to(target: u8, numbers: impl IntoIterator<Item = u64>) -> Vec<(Option<ReplicaId>, u64)> {
    numbers.into_iter().map(|number| (Some(replica(target)), number)).collect()
}

#[test]
fn a_window_of_requests_goes_out_at_once_and_the_rest_waits() {
    let mut bench = Bench::open(64);
    let outputs: Vec<ClientOutput> = (1..=70).flat_map(|ticket| bench.submit(ticket)).collect();
    assert_eq!(sent(&outputs), to(0, 1..=64));
    assert_eq!((bench.outstanding(), bench.waiting()), (64, 6));
}

#[test]
fn a_number_is_sent_only_when_the_one_a_window_below_is_settled() {
    let mut bench = Bench::open(4);
    for ticket in 1..=12 {
        bench.submit(ticket);
    }
    for number in 2..=4 {
        assert_eq!(sent(&bench.settle(number)), [], "the window counts numbers, not requests");
    }
    assert_eq!(bench.outstanding(), 1);
    assert_eq!(sent(&bench.settle(1)), to(0, 5..=8));
    assert_eq!(sent(&bench.settle(6)), []);
    assert_eq!(sent(&bench.settle(5)), to(0, 9..=10));
}

/// Wakes the client until it does something else than to copy a request.
fn wake_without_copies(bench: &mut Bench) -> Vec<ClientOutput> {
    loop {
        let outputs = bench.wake();
        if !outputs.iter().all(|output| matches!(output, ClientOutput::Copy { .. })) {
            return outputs;
        }
    }
}

#[test]
fn after_the_time_out_the_same_bytes_go_to_all() {
    let mut bench = Bench::open(4);
    let outputs = bench.submit(1);
    let [ClientOutput::Send { request, .. }] = &outputs[..] else { panic!("one request: {outputs:?}") };
    let mut last = bench.now;
    for retry in 1..=9 {
        assert_eq!(bench.step(ClientInput::Wake), [], "a wake-up too early does no harm");
        assert_eq!(wake_without_copies(&mut bench), [ClientOutput::SendAll(request.clone())]);
        let waited = bench.now.since(last);
        let expected = (TIMEOUT * 2_u32.pow(retry - 1)).min(Duration::from_secs(8));
        assert!(waited <= expected && waited > expected * 3 / 4, "retry {retry}: {waited:?} of {expected:?}");
        last = bench.now;
    }
    assert_eq!(bench.statistics().retries, 9);
    let outputs = bench.settle(1);
    assert!(matches!(outputs[..], [ClientOutput::Completed { ticket: 1, retries: 9, .. }]), "{outputs:?}");
}

/// To each of a hundred seconds belongs a copy, more or less, of the request that goes to the primary, for the others.
#[test]
fn about_once_a_second_a_request_is_copied_to_those_that_do_not_get_it() {
    let mut bench = Bench::open(4);
    let mut copied = Vec::new();
    for number in 1..=1000 {
        bench.now = bench.now.after(Duration::from_millis(100));
        let outputs = bench.submit(number);
        let copies = outputs.iter().filter_map(|output| match output {
            ClientOutput::Copy { except, request } => Some((*except, parsed(request).number.value())),
            _ => None,
        });
        let copies: Vec<_> = copies.collect();
        assert_eq!(sent(&outputs), to(0, [number]));
        assert!(copies.is_empty() || copies == [(replica(0), number)], "{copies:?}");
        copied.extend(copies.iter().map(|_| number));
        bench.settle(number);
    }
    assert!((80..=120).contains(&copied.len()), "{} copies", copied.len());
    let gaps: Vec<u64> = copied.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| (5..=16).contains(gap)), "{gaps:?}");
    assert!((6..=15).all(|gap| gaps.contains(&gap)), "they can be foreseen: {gaps:?}");
}

/// Of requests that follow one another it is the slow ones that most moments fall into.
#[test]
fn while_all_wait_the_one_that_waits_longest_is_copied() {
    let mut bench = Bench::open(4);
    let copies = |outputs: &[ClientOutput]| -> Vec<(ReplicaId, u64)> {
        let copies = outputs.iter().filter_map(|output| match output {
            ClientOutput::Copy { except, request } => Some((*except, parsed(request).number.value())),
            _ => None,
        });
        copies.collect()
    };
    let (mut at_once, mut later) = (Vec::new(), Vec::new());
    for first in (1..200).step_by(2) {
        at_once.extend(copies(&bench.submit(first)));
        at_once.extend(copies(&bench.submit(first + 1)));
        let end = bench.now.after(Duration::from_millis(150));
        while bench.next_deadline().expect("none is answered") <= end {
            later.extend(copies(&bench.wake()));
        }
        bench.now = end;
        bench.settle(first);
        bench.settle(first + 1);
    }
    assert!((12..=18).contains(&(at_once.len() + later.len())), "{at_once:?} {later:?}");
    assert!(later.len() > at_once.len(), "{at_once:?} {later:?}");
    assert!(later.iter().all(|(except, number)| *except == replica(0) && number % 2 == 1), "{later:?}");
}

/// Whoever was shown a request need not be shown it again, and without anybody to show it to nothing is due.
#[test]
fn what_was_copied_or_went_to_all_is_not_copied_again() {
    let mut bench = Bench::open(4);
    bench.pass(Duration::from_millis(1500));
    assert!(matches!(bench.submit(1)[..], [ClientOutput::Send { .. }, ClientOutput::Copy { .. }]));
    bench.submit(2);
    let end = bench.now.after(Duration::from_secs(5));
    while bench.next_deadline().expect("none is answered") <= end {
        let outputs = bench.wake();
        assert!(!outputs.iter().any(|output| matches!(output, ClientOutput::Copy { .. })), "{outputs:?}");
    }
    bench.settle(1);
    bench.settle(2);
    assert_eq!(bench.next_deadline(), None);
    bench.pass(Duration::from_millis(1500));
    bench.submit(3);
    (0..4).for_each(|id| drop(bench.step(ClientInput::LinkDown(replica(id)))));
    bench.submit(4);
    let due = bench.next_deadline().expect("it is sent again, somehow");
    assert!(due > bench.now, "nobody to copy it to");
}

#[test]
fn each_of_many_outstanding_requests_goes_to_all_once_and_not_in_one_burst() {
    let mut bench = Bench::open(64);
    for ticket in 1..=64 {
        bench.submit(ticket);
    }
    let end = bench.now.after(TIMEOUT);
    let mut moments = Vec::new();
    while bench.next_deadline().expect("none is answered") <= end {
        assert!(moments.len() < 64, "more than one sending each");
        let outputs = bench.wake();
        assert!(sent(&outputs).iter().all(|(to, _)| to.is_none()));
        moments.push(outputs.len());
    }
    assert_eq!(moments.iter().sum::<usize>(), 64);
    assert!(moments.len() > 32, "spread over {} moments", moments.len());
}

#[test]
fn nothing_outstanding_means_no_deadline() {
    let mut bench = Bench::open(4);
    assert_eq!(bench.next_deadline(), None);
    bench.submit(1);
    assert!(bench.next_deadline().is_some());
    bench.settle(1);
    assert_eq!(bench.next_deadline(), None);
    assert_eq!(bench.step(ClientInput::Wake), []);
}

#[test]
fn slow_answers_make_the_client_wait_longer_also_when_it_had_to_retry() {
    let mut bench = Bench::open(4);
    for number in 1..=50 {
        bench.submit(number);
        bench.pass(Duration::from_millis(600));
        bench.step(ClientInput::Wake);
        bench.settle(number);
    }
    let retries = bench.statistics().retries;
    bench.submit(51);
    bench.pass(Duration::from_millis(440));
    assert_eq!(bench.step(ClientInput::Wake), []);
    assert!(retries < 30, "{retries} retries");
}

#[test]
fn a_liar_with_a_high_view_redirects_nothing() {
    let mut bench = Bench::open(4);
    bench.submit(1);
    bench.submit(2);
    assert_eq!(bench.reply_in_view(3, 1, 1, executed(1)), []);
    assert_eq!(bench.reply_in_view(3, u64::MAX, 1, executed(1)), []);
    assert_eq!(bench.believed_primary(), replica(0));
    assert_eq!(sent(&bench.submit(3)), to(0, [3]));
}

#[test]
fn a_new_view_sends_the_new_primary_what_only_the_old_one_has() {
    let mut bench = Bench::open(8);
    for ticket in 1..=3 {
        bench.submit(ticket);
    }
    bench.reply_in_view(3, 1, 2, executed(2));
    let outputs = bench.reply_in_view(2, 1, 2, executed(2));
    assert_eq!(completed(&outputs), [2]);
    assert_eq!(sent(&outputs), to(1, [1, 3]));
    assert_eq!(bench.believed_primary(), replica(1));
    assert_eq!(sent(&bench.submit(4)), to(1, [4]));
}

#[test]
fn a_new_view_sends_nothing_again_that_went_to_all() {
    let mut bench = Bench::open(8);
    bench.submit(1);
    bench.pass(TIMEOUT);
    assert_eq!(sent(&bench.step(ClientInput::Wake)), [(None, 1)]);
    bench.submit(2);
    bench.reply_in_view(3, 2, 9, executed(9));
    assert_eq!(
        sent(&bench.reply_in_view(2, 2, 9, executed(9))),
        to(2, [2]),
        "even an answer to nothing names the view"
    );
}

#[test]
fn without_a_link_to_the_primary_requests_go_to_the_next_in_order() {
    let mut bench = Bench::open(8);
    bench.submit(1);
    assert_eq!(sent(&bench.step(ClientInput::LinkDown(replica(0)))), to(1, [1]));
    assert_eq!(sent(&bench.submit(2)), to(1, [2]));
    assert_eq!(sent(&bench.step(ClientInput::LinkDown(replica(1)))), to(2, [1, 2]));
    assert_eq!(sent(&bench.step(ClientInput::LinkUp(replica(0)))), to(0, [1, 2]));
    assert_eq!(sent(&bench.step(ClientInput::LinkUp(replica(0)))), [], "it was up");
    assert_eq!(bench.believed_primary(), replica(0));
}

#[test]
fn without_any_link_nothing_is_sent_and_nothing_takes_a_number() {
    let mut bench = Bench::open(8);
    bench.submit(1);
    for index in 0..4 {
        bench.step(ClientInput::LinkDown(replica(index)));
    }
    assert_eq!(bench.submit(2), []);
    assert_eq!((bench.outstanding(), bench.waiting()), (1, 1));
    assert_eq!(bench.wake(), []);
    assert_eq!(sent(&bench.step(ClientInput::LinkUp(replica(3)))), to(3, [1, 2]));
}

#[test]
fn a_link_that_comes_back_brings_what_was_due_to_all() {
    let mut bench = Bench::open(8);
    bench.submit(1);
    bench.step(ClientInput::LinkDown(replica(2)));
    assert_eq!(sent(&bench.wake()), [(None, 1)]);
    bench.submit(2);
    assert_eq!(sent(&bench.step(ClientInput::LinkUp(replica(2)))), to(2, [1]));
}

#[test]
fn links_of_strangers_change_nothing() {
    let mut bench = Bench::open(8);
    bench.submit(1);
    for index in [4, 31, 32, 255] {
        assert_eq!(bench.step(ClientInput::LinkDown(replica(index))), []);
        assert_eq!(bench.step(ClientInput::LinkUp(replica(index))), []);
    }
}

#[test]
fn a_busy_primary_is_asked_again_after_a_while() {
    let mut bench = Bench::open(8);
    let first = bench.submit(1);
    let before = bench.now;
    assert_eq!(bench.step(busy(0, 1, 40)), []);
    assert_eq!(bench.wake(), first);
    let waited = bench.now.since(before);
    assert!((Duration::from_millis(40)..=Duration::from_millis(50)).contains(&waited), "{waited:?}");
    assert_eq!((bench.statistics().resent_after_busy, bench.statistics().retries), (1, 0));
}

#[test]
fn a_busy_primary_is_asked_again_once_and_saying_it_twice_does_not_put_that_off() {
    let mut bench = Bench::open(8);
    bench.submit(1);
    let timeout = bench.next_deadline();
    bench.step(busy(0, 1, 40));
    let resend = bench.next_deadline();
    bench.pass(Duration::from_millis(30));
    bench.step(busy(0, 1, 90));
    assert_eq!(bench.next_deadline(), resend);
    assert_eq!(bench.wake().len(), 1);
    assert_eq!(bench.next_deadline(), timeout);
}

#[test]
fn what_the_next_primary_was_given_does_not_wait_for_the_busy_one() {
    let mut bench = Bench::open(8);
    bench.submit(1);
    let timeout = bench.next_deadline();
    bench.step(busy(0, 1, 40));
    bench.step(ClientInput::LinkDown(replica(0)));
    assert_eq!(bench.next_deadline(), timeout);
}

#[test]
fn a_lying_busy_puts_the_time_out_off_by_nothing() {
    let mut bench = Bench::open(8);
    bench.submit(1);
    let deadline = bench.next_deadline();
    bench.step(busy(0, 1, u32::MAX));
    assert_eq!(bench.next_deadline(), deadline);
    let mut waking = Vec::new();
    while bench.now < deadline.expect("one is outstanding") {
        for _ in 0..10 {
            bench.step(busy(0, 1, 0));
        }
        waking.push(bench.wake());
    }
    assert_eq!(sent(waking.last().expect("some")), [(None, 1)]);
    assert!(waking.len() < 10, "nor does it make the client busy: {} wake-ups", waking.len());
}

#[test]
fn only_the_primary_is_believed_to_be_busy() {
    let mut bench = Bench::open(8);
    bench.submit(1);
    let deadline = bench.next_deadline();
    for input in [busy(1, 1, 1), busy(9, 1, 1), busy(0, 2, 1), busy(0, OPENING.value(), 1)] {
        assert_eq!(bench.step(input), []);
    }
    assert_eq!(bench.next_deadline(), deadline);
    assert_eq!(bench.statistics().busy, 4);
}

#[test]
fn an_opening_waits_for_a_busy_primary_too() {
    let mut bench = Bench::new(4, Parameters::default());
    let first = bench.drain();
    bench.step(busy(0, OPENING.value(), 40));
    assert_eq!(bench.wake(), first);
}
