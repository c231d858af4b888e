//! Two checkers judge the histories of the same runs, one by the places that answers name, one by a search: they must agree,
//! also where a history was broken by hand. (PROTOCOL §2.7)
//!
//! `cargo test -p quorate-simulator --features porcupine --test linearizability`

use core::time::Duration;
use std::collections::BTreeMap;

use quorate_simulator::campaign::{Choice, draw};
use quorate_simulator::history::{Call, Fate, Found, Kind, check};
use quorate_simulator::play::{Watch, play};
use quorate_simulator::porcupine::is_linearizable;
use quorate_simulator::scenario::{Action, ApplicationKind, Span};

/// Seeds that are played.
const SEEDS: u64 = 60;

/// Calls of one key that are made: what the search has to look through doubles with each that overlaps.
const CALLS_OF_KEY_MAX: usize = 9;

/// What clients saw in the run of `seed`.
fn history(seed: u64) -> Vec<Call> {
    let duration = Some(Span(Duration::from_secs(4)));
    let fast_reads = seed % 2 == 1;
    let mut scenario = draw(seed, &Choice { duration, fast_reads, ..Choice::default() });
    scenario.application = ApplicationKind::Store;
    let mut made: BTreeMap<String, usize> = BTreeMap::new();
    scenario.steps.retain(|step| {
        let (Action::Put(_, key, _)
        | Action::Get(_, key)
        | Action::FastGet(_, key)
        | Action::Delete(_, key)
        | Action::CompareAndSet(_, key, ..)) = &step.action
        else {
            return true;
        };
        let count = made.entry(key.clone()).or_default();
        *count += 1;
        *count <= CALLS_OF_KEY_MAX
    });
    let outcome = play(&scenario, Watch { is_recorded: true, ..Watch::default() }).expect("it can be played");
    assert_eq!(outcome.failure.map(|failure| failure.to_string()), None, "seed {seed}");
    outcome.calls
}

/// What both checkers say.
fn verdicts(calls: &[Call]) -> [bool; 2] {
    [check(calls).violations.is_empty(), is_linearizable(calls).expect("an answer within the bound")]
}

/// Values that a call of this key may have written though nobody knows.
fn may_be_written(calls: &[Call], key: &str, value: &str) -> bool {
    let mut unknown = calls.iter().filter(|call| call.outcome == Fate::Unknown);
    unknown.any(|call| call.key == key && call.value.as_deref() == Some(value))
}

/// A read after all that was answered, by a client of its own, of which nothing else in the history takes note.
fn read_at_the_end(calls: &[Call], key: &str, result: Option<&str>) -> Vec<Call> {
    let last = calls.iter().filter_map(|call| call.end_ns).max().unwrap_or(0);
    let place = calls.iter().filter_map(|call| call.sequence).max().unwrap_or(0);
    let read = Call {
        client: u64::MAX,
        number: 1,
        step: 0,
        operation: Kind::Get,
        key: key.to_owned(),
        value: None,
        expect: None,
        start_ns: last + 1,
        end_ns: Some(last + 2),
        outcome: Fate::Ok,
        result: Some(Found::Value(result.map(str::to_owned))),
        sequence: Some(place + 1),
        index: Some(0),
    };
    calls.iter().cloned().chain([read]).collect()
}

/// A put that a later one of the same key certainly followed.
fn overwritten(calls: &[Call]) -> Option<&Call> {
    let puts = || calls.iter().filter(|call| call.operation == Kind::Put && call.outcome == Fate::Ok);
    puts().find(|first| {
        let is_of_key = |call: &&Call| call.key == first.key;
        let is_alone = puts().filter(is_of_key).filter(|put| put.value == first.value).count() == 1
            && calls.iter().filter(is_of_key).all(|call| call.operation != Kind::Cas || call.value != first.value)
            && first.value.as_deref().is_some_and(|value| !may_be_written(calls, &first.key, value));
        is_alone && puts().filter(is_of_key).any(|second| first.end_ns.is_some_and(|end| end < second.start_ns))
    })
}

#[test]
fn both_accept_what_clients_saw_and_both_refuse_it_once_it_is_broken() {
    let (mut calls, mut stale) = (0, 0);
    for seed in 0..SEEDS {
        let history = history(seed);
        calls += history.iter().filter(|call| call.outcome == Fate::Ok).count();
        assert_eq!(verdicts(&history), [true, true], "seed {seed}");
        let Some(key) = history.first().map(|call| call.key.clone()) else { continue };
        let broken = read_at_the_end(&history, &key, Some("a value that nobody wrote"));
        assert_eq!(verdicts(&broken), [false, false], "seed {seed}: a value out of nowhere");
        if let Some(put) = overwritten(&history) {
            let broken = read_at_the_end(&history, &put.key, put.value.as_deref());
            assert_eq!(verdicts(&broken), [false, false], "seed {seed}: a stale read");
            stale += 1;
        }
    }
    assert!(calls as u64 > 30 * SEEDS && stale > SEEDS / 4, "too little to judge: {calls} calls, {stale} stale reads");
}

#[test]
fn what_the_search_refuses_is_refused_by_place_too_whatever_was_changed() {
    let mut refused = 0;
    for seed in 0..SEEDS / 4 {
        let history = history(seed);
        for index in (0..history.len()).step_by(7) {
            let mut broken = history.clone();
            match &mut broken[index].result {
                Some(Found::Flag(flag)) => *flag = !*flag,
                Some(Found::Value(value)) => *value = Some(value.take().unwrap_or_default() + "x"),
                None => continue,
            }
            let [by_place, by_search] = verdicts(&broken);
            assert!(by_search || !by_place, "seed {seed}: call {index} was changed, and only the search finds it");
            refused += u64::from(!by_search);
        }
    }
    assert!(refused > SEEDS, "{refused} were refused");
}
