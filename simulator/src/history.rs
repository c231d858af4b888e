//! Whether what clients saw of the key-value store is linearizable, judged by its total order. (PROTOCOL §2.7)
//!
//! Every answer names its place: the slot, the request's place in it, the operation's place in the request. So nothing has to
//! be searched: real time must agree with the places, and each result with what a map would have held there. Millions of
//! calls take seconds. A read that nobody ordered (PROTOCOL §8) has no place: it gets the first one that agrees with real
//! time and with what it found, after which later ones have theirs. Only calls whose end nobody knows leave a choice: each of them happened once, at some place after it
//! was made, or never; where a result cannot be explained otherwise, up to [`GUESSES_MAX`] of them are tried.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

/// Calls of unknown outcome that may together explain one result: more are hardly ever needed, and the search grows fast.
pub const GUESSES_MAX: usize = 4;

/// Violations that a verdict lists at most.
const LISTED_MAX: usize = 20;

/// What a call asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Write a value.
    Put,
    /// Read a value.
    Get,
    /// Remove a value.
    Delete,
    /// Write a value if the key holds another.
    Cas,
}

/// Whether a call executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// Once, with the result given.
    Ok,
    /// Never.
    Error,
    /// Nobody can tell.
    Unknown,
}

/// What a call found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Found {
    /// Of a put or delete: whether the key held a value before. Of a compare-and-set: whether it wrote.
    Flag(bool),
    /// Of a get: the value, or nothing.
    Value(Option<String>),
}

/// One call and its answer: a line of a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Who called.
    pub client: u64,
    /// The number of its request.
    pub number: u64,
    /// The operation's place in the request.
    #[serde(default)]
    pub step: u64,
    /// What was asked for.
    pub operation: Kind,
    /// The key.
    pub key: String,
    /// What a put writes, or a compare-and-set if it writes.
    #[serde(default)]
    pub value: Option<String>,
    /// What a compare-and-set expects; nothing: that the key holds nothing.
    #[serde(default)]
    pub expect: Option<String>,
    /// When it was made.
    pub start_ns: u64,
    /// When its answer came; absent, if none did.
    #[serde(default)]
    pub end_ns: Option<u64>,
    /// Whether it executed.
    pub outcome: Fate,
    /// What it found. Absent, unless it executed; a get that found nothing may leave it out.
    #[serde(default)]
    pub result: Option<Found>,
    /// The slot in which it executed; absent of a get that was not ordered.
    #[serde(default)]
    pub sequence: Option<u64>,
    /// The request's place in the slot.
    #[serde(default)]
    pub index: Option<u64>,
}

/// A place in the total order.
type Place = (u64, u64, u64);

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Verdict {
    /// Calls.
    pub calls: u64,
    /// Calls that executed.
    pub executed: u64,
    /// Calls of which nobody knows whether they did.
    pub unknown: u64,
    /// Keys that were touched.
    pub keys: u64,
    /// What is wrong, the first of it.
    pub violations: Vec<String>,
}

/// Why a history cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct NotAHistory {
    /// The line, counted from one.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// The calls of a history, a JSON object a line.
///
/// # Errors
/// [`NotAHistory`] names the first line that is none.
pub fn read(lines: impl Iterator<Item = std::io::Result<String>>) -> Result<Vec<Call>, NotAHistory> {
    let mut calls = Vec::new();
    for (index, line) in lines.enumerate() {
        let wrong = |reason: String| NotAHistory { line: index + 1, reason };
        let line = line.map_err(|error| wrong(error.to_string()))?;
        if !line.trim().is_empty() {
            calls.push(serde_json::from_str(&line).map_err(|error| wrong(error.to_string()))?);
        }
    }
    Ok(calls)
}

/// Judges a history.
pub fn check(calls: &[Call]) -> Verdict {
    let mut checking = Checking { verdict: Verdict { calls: calls.len() as u64, ..Verdict::default() } };
    let mut placed: Vec<(Place, &Call)> = Vec::new();
    let mut reads: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    let mut unknown: HashMap<&str, Vec<&Call>> = HashMap::new();
    for call in calls {
        match (call.outcome, call.sequence, call.end_ns) {
            (Fate::Ok, Some(sequence), Some(end)) if end >= call.start_ns => {
                placed.push(((sequence, call.index.unwrap_or(0), call.step), call));
            }
            (Fate::Ok, None, Some(end)) if end >= call.start_ns && call.operation == Kind::Get => {
                reads.entry(&call.key).or_default().push(call);
            }
            (Fate::Ok, ..) => checking.find(format!("{} executed without a place or an end", name(call))),
            (Fate::Unknown, ..) => unknown.entry(&call.key).or_default().push(call),
            (Fate::Error, ..) => {}
        }
    }
    placed.sort_by_key(|(place, _)| *place);
    checking.verdict.executed = (placed.len() + reads.values().map(Vec::len).sum::<usize>()) as u64;
    checking.verdict.unknown = unknown.values().map(Vec::len).sum::<usize>() as u64;
    checking.check_places(&placed);
    checking.check_time(&placed);
    checking.replay(&placed, reads, unknown);
    checking.verdict
}

struct Checking {
    verdict: Verdict,
}

impl Checking {
    fn find(&mut self, what: String) {
        if self.verdict.violations.len() < LISTED_MAX {
            self.verdict.violations.push(what);
        }
    }

    /// No two calls have one place, and no request has two.
    fn check_places(&mut self, placed: &[(Place, &Call)]) {
        for pair in placed.windows(2) {
            if pair[0].0 == pair[1].0 {
                self.find(format!("{} and {} have one place", name(pair[0].1), name(pair[1].1)));
            }
        }
        let mut requests: BTreeMap<(u64, u64), (u64, u64)> = BTreeMap::new();
        let mut steps: BTreeSet<(u64, u64, u64)> = BTreeSet::new();
        for ((sequence, index, step), call) in placed {
            let at = *requests.entry((call.client, call.number)).or_insert((*sequence, *index));
            if at != (*sequence, *index) || !steps.insert((call.client, call.number, *step)) {
                self.find(format!("{} executed twice", name(call)));
            }
        }
    }

    /// A call that ended before another began has its place before it.
    fn check_time(&mut self, placed: &[(Place, &Call)]) {
        let mut latest: Option<&Call> = None;
        for (_, call) in placed {
            if let Some(latest) = latest.filter(|latest| call.end_ns.is_some_and(|end| end < latest.start_ns)) {
                self.find(format!("{} ended before {} began, and has its place after it", name(call), name(latest)));
            }
            if latest.is_none_or(|latest| call.start_ns > latest.start_ns) {
                latest = Some(call);
            }
        }
    }

    /// Each result is what a map would have given.
    fn replay<'a>(
        &mut self,
        placed: &[(Place, &'a Call)],
        mut reads: BTreeMap<&'a str, Vec<&'a Call>>,
        mut unknown: HashMap<&'a str, Vec<&'a Call>>,
    ) {
        let mut by_key: BTreeMap<&str, Vec<&Call>> = reads.keys().map(|key| (*key, Vec::new())).collect();
        for (_, call) in placed {
            by_key.entry(&call.key).or_default().push(call);
        }
        self.verdict.keys = by_key.len() as u64;
        for (key, calls) in by_key {
            let unknown = unknown.remove(key).unwrap_or_default();
            let values = self.replay_key(&calls, unknown.clone());
            self.place_reads(&calls, &values, reads.remove(key).unwrap_or_default(), &unknown);
        }
    }

    /// Gives each read of a key that has no place the first one that it can have: after so many of the `calls`, which left
    /// the key with these `values`.
    fn place_reads(&mut self, calls: &[&Call], values: &[Option<&str>], mut reads: Vec<&Call>, unknown: &[&Call]) {
        reads.sort_by_key(|read| read.start_ns);
        // What is over when a read begins stands before it: the calls by their ends, the reads placed so far by theirs.
        let mut ends: Vec<(u64, usize)> =
            (1..).zip(calls).filter_map(|(after, call)| Some((call.end_ns?, after))).collect();
        ends.sort_unstable();
        let mut ended = ends.into_iter().peekable();
        let mut placed: BTreeSet<(u64, usize)> = BTreeSet::new();
        let mut first = 0;
        for read in reads {
            while let Some((_, after)) = ended.next_if(|(end, _)| *end < read.start_ns) {
                first = first.max(after);
            }
            while let Some((_, after)) = placed.first().copied().filter(|(end, _)| *end < read.start_ns) {
                placed.pop_first();
                first = first.max(after);
            }
            let found = match &read.result {
                Some(Found::Value(value)) => value.as_deref(),
                Some(Found::Flag(_)) | None => None,
            };
            // Beyond the first call that began after the read had ended there is no place for it.
            let last = calls[first..].iter().position(|call| read.end_ns.is_some_and(|end| call.start_ns > end));
            let last = last.map_or(calls.len(), |last| first + last);
            let place = (first..=last).find(|place| place.checked_sub(1).and_then(|last| values[last]) == found);
            match (place, read.end_ns) {
                (Some(place), Some(end)) => {
                    placed.insert((end, place));
                }
                // Of unknown outcome: it may have been there then.
                _ if unknown.iter().any(|call| may_leave(call, found, read)) => {}
                _ => self.find(format!(
                    "{} found {found:?}, which the key did not hold at any time that would do",
                    name(read)
                )),
            }
        }
    }

    /// Gives what the key held after each call.
    fn replay_key<'a>(&mut self, calls: &[&'a Call], mut maybe: Vec<&'a Call>) -> Vec<Option<&'a str>> {
        let mut held: Option<&str> = None;
        let mut values = Vec::with_capacity(calls.len());
        for call in calls {
            let Some(mut used) = explain(held, call, &maybe, GUESSES_MAX) else {
                self.find(format!("{} found {}, where the key held {held:?}", name(call), found(call)));
                held = after(held, call);
                values.push(held);
                continue;
            };
            for index in &used {
                held = after(held, maybe[*index]);
            }
            used.sort_unstable();
            for index in used.into_iter().rev() {
                maybe.remove(index);
            }
            held = after(held, call);
            values.push(held);
        }
        values
    }
}

/// The calls of unknown outcome, in order, that must have happened for `call` to find what it found on `held`; none if
/// nothing explains it.
fn explain(held: Option<&str>, call: &Call, maybe: &[&Call], guesses: usize) -> Option<Vec<usize>> {
    if is_right(held, call) {
        return Some(Vec::new());
    }
    if guesses == 0 {
        return None;
    }
    for (index, guess) in maybe.iter().enumerate() {
        let may_come_before = guess.operation != Kind::Get && call.end_ns.is_some_and(|end| guess.start_ns <= end);
        let changed = after(held, guess);
        if !may_come_before || changed == held {
            continue;
        }
        let rest: Vec<&Call> =
            maybe.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, call)| *call).collect();
        if let Some(more) = explain(changed, call, &rest, guesses - 1) {
            let shifted = more.into_iter().map(|other| if other >= index { other + 1 } else { other });
            return Some(core::iter::once(index).chain(shifted).collect());
        }
    }
    None
}

/// Whether a call of unknown outcome may have left what `read` found.
fn may_leave(call: &Call, found: Option<&str>, read: &Call) -> bool {
    let leaves = match call.operation {
        Kind::Put | Kind::Cas => call.value.as_deref() == found,
        Kind::Delete => found.is_none(),
        Kind::Get => false,
    };
    leaves && read.end_ns.is_some_and(|end| call.start_ns <= end)
}

/// Whether `call` finds on `held` what it found.
fn is_right(held: Option<&str>, call: &Call) -> bool {
    match (call.operation, &call.result) {
        (Kind::Get, None | Some(Found::Value(None))) => held.is_none(),
        (Kind::Get, Some(Found::Value(Some(value)))) => held == Some(value),
        (Kind::Put | Kind::Delete, Some(Found::Flag(was_there))) => held.is_some() == *was_there,
        (Kind::Cas, Some(Found::Flag(wrote))) => (held == call.expect.as_deref()) == *wrote,
        _ => false,
    }
}

/// What the key holds after `call` ran on `held`.
fn after<'a>(held: Option<&'a str>, call: &'a Call) -> Option<&'a str> {
    match call.operation {
        Kind::Put => call.value.as_deref(),
        Kind::Delete => None,
        Kind::Cas if held == call.expect.as_deref() => call.value.as_deref(),
        Kind::Get | Kind::Cas => held,
    }
}

fn name(call: &Call) -> String {
    let operation = match call.operation {
        Kind::Put => "put",
        Kind::Get => "get",
        Kind::Delete => "delete",
        Kind::Cas => "cas",
    };
    format!("{operation} {} (client {}, request {}.{})", call.key, call.client, call.number, call.step)
}

fn found(call: &Call) -> String {
    match &call.result {
        None => "nothing".to_owned(),
        Some(Found::Flag(flag)) => flag.to_string(),
        Some(Found::Value(value)) => format!("{value:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call at place (slot, 0, 0) that took from `start` to `end`.
    fn call(number: u64, line: &str, slot: u64, start: u64, end: u64) -> Call {
        let rest = format!(
            r#""client":0,"number":{number},"start_ns":{start},"end_ns":{end},"outcome":"ok","sequence":{slot}"#
        );
        serde_json::from_str(&format!("{{{line},{rest}}}")).expect("a call")
    }

    fn put(number: u64, value: &str, was_there: bool, slot: u64, start: u64, end: u64) -> Call {
        let line = format!(r#""operation":"put","key":"k","value":"{value}","result":{was_there}"#);
        call(number, &line, slot, start, end)
    }

    fn get(number: u64, value: &str, slot: u64, start: u64, end: u64) -> Call {
        call(number, &format!(r#""operation":"get","key":"k","result":{value}"#), slot, start, end)
    }

    fn lost(number: u64, line: &str, start: u64) -> Call {
        let rest = format!(r#""client":1,"number":{number},"start_ns":{start},"outcome":"unknown""#);
        serde_json::from_str(&format!("{{{line},{rest}}}")).expect("a call")
    }

    fn violations(calls: &[Call]) -> Vec<String> {
        check(calls).violations
    }

    #[test]
    fn a_history_that_a_map_could_have_given_is_right() {
        let calls = [
            put(1, "a", false, 1, 0, 10),
            get(2, "\"a\"", 2, 5, 15),
            put(3, "b", true, 3, 20, 30),
            get(4, "\"b\"", 4, 25, 35),
        ];
        assert_eq!(violations(&calls), Vec::<String>::new());
    }

    #[test]
    fn a_stale_read_is_found() {
        let calls = [put(1, "a", false, 1, 0, 10), put(2, "b", true, 2, 20, 30), get(3, "\"a\"", 3, 40, 50)];
        assert!(violations(&calls)[0].contains("get k"), "{:?}", violations(&calls));
    }

    #[test]
    fn a_place_that_contradicts_real_time_is_found() {
        let calls = [put(1, "a", true, 2, 0, 10), put(2, "b", false, 1, 20, 30)];
        assert!(violations(&calls)[0].contains("ended before"), "{:?}", violations(&calls));
    }

    #[test]
    fn one_place_for_two_calls_and_two_places_for_one_are_found() {
        let calls = [put(1, "a", false, 1, 0, 10), put(2, "b", true, 1, 0, 10)];
        assert!(violations(&calls)[0].contains("one place"));
        let calls = [put(1, "a", false, 1, 0, 10), put(1, "a", true, 2, 0, 10)];
        assert!(violations(&calls)[0].contains("executed twice"));
    }

    #[test]
    fn a_write_of_unknown_outcome_may_have_happened_after_it_was_made_and_only_once() {
        let maybe = lost(1, r#""operation":"put","key":"k","value":"x""#, 12);
        let calls =
            [put(1, "a", false, 1, 0, 10), maybe.clone(), get(2, "\"x\"", 2, 20, 30), get(3, "\"x\"", 3, 30, 40)];
        assert_eq!(violations(&calls), Vec::<String>::new());
        let calls = [put(1, "a", false, 1, 0, 10), maybe.clone(), get(2, "\"x\"", 2, 5, 11)];
        assert_eq!(violations(&calls).len(), 1, "it was made after the read had ended");
        let calls = [
            put(1, "a", false, 1, 0, 10),
            maybe,
            get(2, "\"x\"", 2, 20, 30),
            put(3, "b", true, 3, 40, 50),
            get(4, "\"x\"", 4, 60, 70),
        ];
        assert_eq!(violations(&calls).len(), 1, "it happened once");
    }

    #[test]
    fn several_unknown_writes_can_explain_one_result() {
        let calls = [
            put(1, "a", false, 1, 0, 10),
            lost(1, r#""operation":"cas","key":"k","expect":"x","value":"y""#, 12),
            lost(2, r#""operation":"put","key":"k","value":"x""#, 12),
            get(2, "\"y\"", 2, 20, 30),
        ];
        assert_eq!(violations(&calls), Vec::<String>::new());
    }

    #[test]
    fn a_compare_and_set_that_wrote_on_another_value_is_found() {
        let cas = |expect: &str, wrote: bool| {
            call(
                2,
                &format!(r#""operation":"cas","key":"k","expect":"{expect}","value":"b","result":{wrote}"#),
                2,
                20,
                30,
            )
        };
        assert_eq!(violations(&[put(1, "a", false, 1, 0, 10), cas("a", true)]), Vec::<String>::new());
        assert_eq!(violations(&[put(1, "a", false, 1, 0, 10), cas("z", false)]), Vec::<String>::new());
        assert_eq!(violations(&[put(1, "a", false, 1, 0, 10), cas("z", true)]).len(), 1);
        assert_eq!(violations(&[put(1, "a", false, 1, 0, 10), cas("a", false)]).len(), 1);
    }

    /// A read that nobody ordered.
    fn unordered(number: u64, value: &str, start: u64, end: u64) -> Call {
        Call { sequence: None, index: None, ..get(number, value, 0, start, end) }
    }

    #[test]
    fn a_read_without_a_place_gets_one_that_real_time_allows() {
        let puts = || [put(1, "a", false, 1, 0, 10), put(2, "b", true, 2, 20, 30), put(3, "a", true, 3, 40, 50)];
        let with = |reads: &[Call]| violations(&puts().into_iter().chain(reads.iter().cloned()).collect::<Vec<_>>());
        for right in [
            ("null", 5, 8),
            ("\"a\"", 5, 8),
            ("\"a\"", 12, 25),
            ("\"b\"", 25, 26),
            ("\"b\"", 35, 60),
            ("\"a\"", 51, 60),
        ] {
            assert_eq!(with(&[unordered(4, right.0, right.1, right.2)]), Vec::<String>::new(), "{right:?}");
        }
        for wrong in [("null", 12, 15), ("\"b\"", 12, 15), ("\"a\"", 31, 35), ("\"b\"", 51, 60), ("\"c\"", 0, 99)] {
            assert_eq!(with(&[unordered(4, wrong.0, wrong.1, wrong.2)]).len(), 1, "{wrong:?}");
        }
    }

    #[test]
    fn reads_without_a_place_stand_in_the_order_of_real_time() {
        let puts = || [put(1, "a", false, 1, 0, 10), put(2, "b", true, 2, 20, 30), put(3, "a", true, 3, 20, 90)];
        let with = |reads: &[Call]| violations(&puts().into_iter().chain(reads.iter().cloned()).collect::<Vec<_>>());
        let (again, between) = (unordered(4, "\"a\"", 40, 50), |start| unordered(5, "\"b\"", start, 70));
        assert_eq!(with(&[again.clone(), between(45)]), Vec::<String>::new(), "they overlap");
        assert_eq!(with(&[again, between(60)]).len(), 1, "the value that came back was found already");
    }

    #[test]
    fn a_read_without_a_place_may_find_what_nobody_knows_to_have_happened() {
        let maybe = lost(1, r#""operation":"put","key":"k","value":"x""#, 12);
        let calls = |start, end| [put(1, "a", false, 1, 0, 10), maybe.clone(), unordered(2, "\"x\"", start, end)];
        assert_eq!(violations(&calls(15, 20)), Vec::<String>::new());
        assert_eq!(violations(&calls(5, 11)).len(), 1, "it was made later");
        let seen = calls(15, 20).into_iter().chain([get(3, "\"x\"", 2, 30, 40)]).collect::<Vec<_>>();
        assert_eq!(violations(&seen), Vec::<String>::new(), "an ordered read found it, too");
    }

    #[test]
    fn a_line_that_is_no_call_is_named() {
        let lines = ["", r#"{"client":0}"#].map(|line| Ok(line.to_owned()));
        assert_eq!(read(lines.into_iter()).expect_err("a line that is none").line, 2);
    }
}
