//! The table of sessions, alone. (PROTOCOL §12)

use alloc::collections::BTreeMap;
use alloc::vec;

use proptest::prelude::*;

use super::*;
use crate::codec::Blob;

const BOUNDS: Bounds = Bounds { outstanding: 4, sessions: 3, reply_bytes: 200 };

fn client(index: u8) -> PublicKey {
    PublicKey::from_bytes([index + 5; 32]).expect("neither weak nor beyond the prime")
}

fn session(sequence: u64, index: u32) -> Session {
    Session { sequence: Sequence::new(sequence), index }
}

fn opening(of: u8, number: u64) -> Request {
    request(of, Session::NONE, number)
}

fn request(of: u8, session: Session, number: u64) -> Request {
    Request { client: client(of), session, number: RequestNumber::new(number), operations: List::empty() }
}

fn executed(sequence: u64, index: u32, bytes: usize) -> Outcome {
    let results = List::new(vec![Blob::from(vec![7; bytes])]).expect("one");
    Outcome::Executed { sequence: Sequence::new(sequence), index, results }
}

fn opened(sequence: u64) -> Admission {
    Admission::Answer(Outcome::Opened { session: session(sequence, 0) })
}

fn admit(table: &mut Sessions, request: &Request, sequence: u64) -> Admission {
    table.admit(request, Sequence::new(sequence), 0)
}

/// Admits and, if it executes, completes at once with so many bytes of results.
fn run(table: &mut Sessions, request: &Request, sequence: u64, bytes: usize) -> Admission {
    let admission = admit(table, request, sequence);
    if admission == Admission::Execute {
        table.complete(request.client, request.session, request.number, executed(sequence, 0, bytes));
    }
    admission
}

/// PROTOCOL §2.3
#[test]
fn a_request_executes_once_and_is_answered_from_then_on() {
    let mut table = Sessions::new(BOUNDS);
    run(&mut table, &opening(0, 1), 1, 0);
    let once = request(0, session(1, 0), 1);
    assert_eq!(admit(&mut table, &once, 2), Admission::Execute);
    assert_eq!(admit(&mut table, &once, 3), Admission::Skip, "it is in execution");
    assert_eq!(table.lookup(&once, Sequence::new(3)), Lookup::InExecution);
    table.complete(once.client, once.session, once.number, executed(2, 0, 5));
    assert_eq!(admit(&mut table, &once, 4), Admission::Answer(executed(2, 0, 5)));
    assert_eq!(table.lookup(&once, Sequence::new(4)), Lookup::Answer(executed(2, 0, 5)));
}

/// PROTOCOL §4.1
#[test]
fn an_equal_opening_finds_the_session_a_higher_one_replaces_it_a_lower_one_is_skipped() {
    let mut table = Sessions::new(BOUNDS);
    assert_eq!(admit(&mut table, &opening(0, 5), 1), opened(1));
    assert_eq!(admit(&mut table, &opening(0, 5), 2), opened(1));
    assert_eq!(admit(&mut table, &opening(0, 4), 3), Admission::Skip);
    let higher = Lookup::Superseded(RequestNumber::new(5));
    assert_eq!(table.lookup(&opening(0, 4), Sequence::new(3)), higher);
    run(&mut table, &request(0, session(1, 0), 1), 4, 1);
    assert_eq!(admit(&mut table, &opening(0, 6), 5), opened(5));
    assert_eq!(table.len(), 1);
    let old = request(0, session(1, 0), 2);
    assert_eq!(admit(&mut table, &old, 6), Admission::Answer(Outcome::Evicted));
    assert_eq!(admit(&mut table, &request(0, session(5, 0), 1), 7), Admission::Execute);
}

/// PROTOCOL §4.1: "the window of outstanding ones is bounded"
#[test]
fn numbers_outside_the_window_do_not_execute() {
    let mut table = Sessions::new(BOUNDS);
    run(&mut table, &opening(0, 1), 1, 0);
    let ask = |number| request(0, session(1, 0), number);
    assert_eq!(admit(&mut table, &ask(5), 2), Admission::Skip, "the window is 4 wide");
    assert_eq!(run(&mut table, &ask(4), 2, 1), Admission::Execute);
    assert_eq!(run(&mut table, &ask(1), 3, 1), Admission::Execute, "order within the window is free");
    assert_eq!(run(&mut table, &ask(8), 4, 1), Admission::Execute);
    for number in 1..=4 {
        assert_eq!(admit(&mut table, &ask(number), 5), Admission::Answer(Outcome::Forgotten), "{number}");
    }
    for number in 5..=7 {
        assert_eq!(table.lookup(&ask(number), Sequence::new(5)), Lookup::Open, "{number}");
    }
    assert_eq!(table.lookup(&ask(13), Sequence::new(5)), Lookup::OutsideWindow);
    assert_eq!(admit(&mut table, &ask(0), 5), Admission::Answer(Outcome::Forgotten), "zero never executes");
}

/// The last numbers of all neither overflow nor execute twice.
#[test]
fn the_highest_numbers_overflow_nothing() {
    let mut table = Sessions::new(BOUNDS);
    assert_eq!(admit(&mut table, &opening(0, u64::MAX), 1), opened(1));
    assert_eq!(admit(&mut table, &request(0, session(1, 0), u64::MAX), 2), Admission::Skip);
    let ahead = request(1, session(u64::MAX, u32::MAX), u64::MAX);
    assert_eq!(table.lookup(&ahead, Sequence::new(2)), Lookup::SessionAhead);
    assert_eq!(admit(&mut table, &ahead, 3), Admission::Answer(Outcome::Evicted));
}

/// PROTOCOL §12: "the session that executed least recently gives way"
#[test]
fn the_session_that_executed_least_recently_gives_way() {
    let mut table = Sessions::new(BOUNDS);
    for index in 0..3 {
        admit(&mut table, &opening(index, 1), u64::from(index) + 1);
    }
    run(&mut table, &request(0, session(1, 0), 1), 4, 1);
    admit(&mut table, &opening(3, 1), 5);
    assert_eq!(table.len(), BOUNDS.sessions);
    let gone = request(1, session(2, 0), 1);
    assert_eq!(table.lookup(&gone, Sequence::new(5)), Lookup::NoSession);
    assert_eq!(admit(&mut table, &gone, 6), Admission::Answer(Outcome::Evicted));
    assert_eq!(admit(&mut table, &request(0, session(1, 0), 2), 6), Admission::Execute);
    assert_eq!(admit(&mut table, &request(2, session(3, 0), 1), 6), Admission::Execute);
}

/// PROTOCOL §12: "replies are forgotten oldest first"
#[test]
fn replies_beyond_the_bound_of_bytes_are_forgotten_oldest_first() {
    let mut table = Sessions::new(BOUNDS);
    for index in 0..2 {
        admit(&mut table, &opening(index, 1), u64::from(index) + 1);
    }
    // Each counts 64 and 16 bytes: two fit into 200.
    let requests = [request(0, session(1, 0), 1), request(1, session(2, 0), 1), request(0, session(1, 0), 2)];
    for (request, sequence) in requests.iter().zip(3..) {
        run(&mut table, request, sequence, 64);
    }
    let outcomes = requests.each_ref().map(|request| table.lookup(request, Sequence::new(5)));
    assert_eq!(
        outcomes,
        [Lookup::Answer(Outcome::Forgotten), Lookup::Answer(executed(4, 0, 64)), Lookup::Answer(executed(5, 0, 64)),]
    );
    assert_eq!(admit(&mut table, &requests[0], 6), Admission::Answer(Outcome::Forgotten), "it executes no more");
}

#[test]
fn a_session_keeps_a_bounded_share_of_bytes() {
    let bounds = Bounds { reply_bytes: 1 << 30, ..BOUNDS };
    let mut table = Sessions::new(bounds);
    admit(&mut table, &opening(0, 1), 1);
    let size = usize::try_from(SESSION_REPLY_BYTES_MAX).expect("a MiB") / 2;
    let requests = [1, 2, 3].map(|number| request(0, session(1, 0), number));
    for (request, sequence) in requests.iter().zip(2..) {
        run(&mut table, request, sequence, size);
    }
    table.checkpoint();
    let is_kept = requests
        .each_ref()
        .map(|request| matches!(table.lookup(request, Sequence::new(4)), Lookup::Answer(Outcome::Executed { .. })));
    assert_eq!(is_kept, [false, false, true]);
    assert_eq!(table.kept.len(), 1);
}

#[test]
fn entries_that_are_no_table_are_refused() {
    let entry = |key: &[u8], value: &[u8]| Entry { key: key.into(), value: value.into() };
    assert!(Sessions::restore(BOUNDS, &[]).is_some_and(|table| table.len() == 0));
    assert!(Sessions::restore(BOUNDS, &[entry(b"short", b"")]).is_none());
    assert!(Sessions::restore(BOUNDS, &[entry(&[5; 32], b"nonsense")]).is_none());
    let mut table = Sessions::new(BOUNDS);
    admit(&mut table, &opening(0, 1), 1);
    let (_, changes) = table.checkpoint();
    let value = changes[0].1.clone().expect("written");
    let (a, b) = (entry(client(0).as_bytes(), &value), entry(client(1).as_bytes(), &value));
    assert!(Sessions::restore(BOUNDS, core::slice::from_ref(&a)).is_some());
    assert!(Sessions::restore(BOUNDS, &[b.clone(), a.clone()]).is_none(), "out of order");
    assert!(Sessions::restore(BOUNDS, &[a, b]).is_none(), "two sessions of one place");
}

/// What one request of a generated run is, before the sessions in it have names.
#[derive(Debug, Clone)]
struct Step {
    client: u8,
    /// An opening with this number, or a request in the latest session but so many.
    kind: Result<u64, usize>,
    number: u64,
    bytes: usize,
}

fn steps() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let kind = prop_oneof![(1_u64..4).prop_map(Ok), (0_usize..2).prop_map(Err), Just(Err(0)), Just(Err(0))];
    let step = (0_u8..5, kind, 1_u64..14, 0_usize..60);
    let step = step.prop_map(|(client, kind, number, bytes)| Step { client, kind, number, bytes });
    prop::collection::vec(prop::collection::vec(step, 0..5), 1..28)
}

/// The requests of each slot. Sessions get the names of their openings' places, whether or not these open any.
fn name_sessions(slots: &[Vec<Step>]) -> Vec<Vec<(Request, usize)>> {
    let mut opened: BTreeMap<u8, Vec<Session>> = BTreeMap::new();
    let mut named = Vec::new();
    for (sequence, steps) in (1..).zip(slots) {
        let mut requests = Vec::new();
        for (index, step) in (0..).zip(steps) {
            let of_client = opened.entry(step.client).or_default();
            let request = match step.kind {
                Ok(number) => {
                    of_client.push(session(sequence, index));
                    opening(step.client, number)
                }
                Err(back) => {
                    let place = of_client.len().checked_sub(back + 1);
                    let session = place.map_or_else(|| session(999, 0), |place| of_client[place]);
                    request(step.client, session, step.number)
                }
            };
            requests.push((request, step.bytes));
        }
        named.push(requests);
    }
    named
}

/// Executes `slots` with a checkpoint every 4; `ahead` decides at each point whether another slot is admitted before
/// results come back. Gives the roots and the changes of all checkpoints, and the requests that executed.
fn play(
    slots: &[Vec<(Request, usize)>],
    ahead: &[bool],
    is_restored: bool,
) -> (Vec<(Digest, Vec<Change>)>, Vec<Request>) {
    let mut table = Sessions::new(BOUNDS);
    let mut entries: BTreeMap<Bytes, Bytes> = BTreeMap::new();
    let (mut checkpoints, mut ran) = (Vec::new(), Vec::new());
    let mut waiting: VecDeque<Vec<(Request, Outcome)>> = VecDeque::new();
    let mut ahead = ahead.iter().copied().cycle();
    for (sequence, requests) in (1_u64..).zip(slots) {
        let mut admitted = Vec::new();
        for (index, (request, bytes)) in (0..).zip(requests) {
            if table.admit(request, Sequence::new(sequence), index) == Admission::Execute {
                ran.push(request.clone());
                admitted.push((request.clone(), executed(sequence, index, *bytes)));
            }
        }
        waiting.push_back(admitted);
        let is_checkpoint = sequence.is_multiple_of(4);
        while !waiting.is_empty() && (is_checkpoint || !ahead.next().expect("a cycle does not end")) {
            for (request, outcome) in waiting.pop_front().expect("just looked") {
                table.complete(request.client, request.session, request.number, outcome);
            }
        }
        if is_checkpoint {
            let (root, changes) = table.checkpoint();
            for (key, value) in &changes {
                match value {
                    Some(value) => entries.insert(key.clone(), value.clone()),
                    None => entries.remove(key),
                };
            }
            checkpoints.push((root, changes));
            if is_restored {
                let list: Vec<Entry> = entries
                    .iter()
                    .map(|(key, value)| Entry { key: key.clone().into(), value: value.clone().into() })
                    .collect();
                table = Sessions::restore(BOUNDS, &list).expect("just taken");
                assert_eq!(table.root(), root);
            }
        }
    }
    (checkpoints, ran)
}

/// A session that is replaced while its request is in execution: the bytes count, whenever the result comes back.
#[test]
fn results_of_a_session_that_was_replaced_meanwhile_make_others_forgotten_all_the_same() {
    let (of_a, of_b) = (session(1, 0), session(1, 1));
    let slots = [
        vec![(opening(0, 1), 0), (opening(1, 1), 0), (request(1, of_b, 1), 60)],
        vec![(request(0, of_a, 1), 100)],
        vec![(opening(0, 2), 0), (request(1, of_b, 2), 60)],
        vec![],
    ];
    assert_eq!(play(&slots, &[true], false), play(&slots, &[false], false));
}

proptest! {
    /// What is forgotten, evicted and admitted depends on the order of slots alone, never on when results come back;
    /// and a table that was restored from its entries goes on exactly like the one that they are of.
    #[test]
    fn checkpoints_do_not_depend_on_when_results_come_back(
        slots in steps(),
        ahead in prop::collection::vec(any::<bool>(), 1..40),
    ) {
        let slots = name_sessions(&slots);
        let one_at_a_time = play(&slots, &[false], false);
        prop_assert_eq!(&play(&slots, &ahead, false), &one_at_a_time);
        prop_assert_eq!(&play(&slots, &[true], false), &one_at_a_time);
        prop_assert_eq!(&play(&slots, &ahead, true), &one_at_a_time);
        let mut distinct: Vec<_> = one_at_a_time.1.iter().map(Request::id).collect();
        distinct.sort_unstable();
        distinct.dedup();
        prop_assert_eq!(distinct.len(), one_at_a_time.1.len(), "exactly once");
    }
}
