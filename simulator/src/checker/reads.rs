//! Reads that nobody ordered: each finds what its key held at some moment while it was under way, and nothing older than what
//! was found before. (PROTOCOL §8)
//!
//! Where an ordered answer names its place, such a read does not. So one is looked for: the first slot, not before any that
//! was answered from when the read began, after which the key held what was found. The first will do if any does, since
//! later calls are only bound by more.

use std::collections::BTreeMap;

use quorate_protocol::Output;
use quorate_protocol::application::{Application as _, Execution, READ_BYTES_MAX, execute};
use quorate_protocol::codec::Blob;
use quorate_protocol::kv::{Operation, Step, Store};
use quorate_protocol::number::Sequence;

use super::{Checker, Invariant, Moment, Observation};
use crate::client::{Answer, Executed, Ticket};

/// A key that nobody writes.
const NO_KEY: &[u8] = b"a key that nobody writes";

/// What a key held after a slot, as the result of reading it.
type Value = (Sequence, Blob);

/// Knows what each key held after each slot.
#[derive(Debug)]
pub struct Reads {
    /// In which every slot executes once.
    store: Store,
    executed: Sequence,
    /// What each key that was written held, and from which slot on.
    values: BTreeMap<Blob, Vec<Value>>,
    /// The operations of reads under way.
    open: BTreeMap<Ticket, Blob>,
    /// For each call under way: the last slot that was answered from when it began, and the last that a read found.
    began_after: BTreeMap<Ticket, (Sequence, Sequence)>,
    /// The last slot that was answered from.
    answered: Sequence,
    /// The last slot that a read was found to be after.
    read: Sequence,
}

impl Reads {
    /// Of a cluster of stores in which nothing executed yet.
    pub fn of_stores() -> Self {
        Self {
            store: Store::default().with_fast_reads(),
            executed: Sequence::ZERO,
            values: BTreeMap::new(),
            open: BTreeMap::new(),
            began_after: BTreeMap::new(),
            answered: Sequence::ZERO,
            read: Sequence::ZERO,
        }
    }

    fn execute(&mut self, execution: &Execution) {
        if execution.sequence <= self.executed {
            return;
        }
        self.executed = execution.sequence;
        execute(&mut self.store, execution);
        let operations = execution.requests.iter().flat_map(|request| request.operations.iter());
        for key in operations.filter_map(written) {
            let value = self.look_up(&key);
            self.values.entry(key).or_default().push((self.executed, value));
        }
    }

    /// What reading a key gives now.
    fn look_up(&self, key: &[u8]) -> Blob {
        let operation = Operation::get(key).encode().expect("a key of a test");
        self.store.read(&operation, READ_BYTES_MAX).expect("a get only reads").result
    }

    fn answer(&mut self, ticket: Ticket, executed: &Executed) -> Result<(), String> {
        let (answered, read) = self.began_after.remove(&ticket).unwrap_or_default();
        let operation = self.open.remove(&ticket);
        let Ticket { client, call } = ticket;
        if executed.index.is_some() {
            self.answered = self.answered.max(executed.sequence);
            let is_after = executed.sequence > read;
            let told = format!("call {call} of client {client} executed at slot {}", executed.sequence);
            return if is_after { Ok(()) } else { Err(format!("{told}, but began when a read had found slot {read}")) };
        }
        let after = answered.max(read);
        let found = executed.results.first().zip(operation.as_ref().and_then(read_key));
        let Some((result, key)) = found else { return Err(format!("call {call} of client {client} read nothing")) };
        match self.first_with(&key, result, after) {
            Some(slot) => {
                self.read = self.read.max(slot);
                Ok(())
            }
            None => Err(format!(
                "call {call} of client {client} read {key:?} as it was since slot {}, and never after slot {after}, which \
                 had been answered from when it began",
                executed.sequence
            )),
        }
    }

    /// The first slot from `after` on after which the key held this.
    fn first_with(&self, key: &Blob, result: &Blob, after: Sequence) -> Option<Sequence> {
        let values = self.values.get(key).map_or(&[][..], |values| values);
        let nothing = (Sequence::ZERO, self.look_up(NO_KEY));
        let all: Vec<&Value> = core::iter::once(&nothing).chain(values).collect();
        let ends = all.iter().skip(1).map(|(next, _)| Some(*next)).chain([None]);
        let held = all.iter().zip(ends).find(|((_, value), end)| value == result && end.is_none_or(|end| end > after));
        held.map(|((from, _), _)| (*from).max(after))
    }
}

/// The key that an operation may write.
fn written(operation: &Blob) -> Option<Blob> {
    match Operation::decode(operation).ok()? {
        Operation::Step(Step::Put { key, .. } | Step::Delete { key }) | Operation::CompareAndSet { key, .. } => {
            Some(key)
        }
        Operation::Step(Step::Get { .. }) | Operation::Range(_) | Operation::Transaction(_) => None,
    }
}

fn read_key(operation: &Blob) -> Option<Blob> {
    match Operation::decode(operation).ok()? {
        Operation::Step(Step::Get { key }) => Some(key),
        _ => None,
    }
}

impl Checker for Reads {
    fn invariant(&self) -> Invariant {
        Invariant::Reads
    }

    fn observe(&mut self, _: Moment, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Reads(ticket, operation) => {
                self.open.insert(*ticket, (*operation).clone());
            }
            Observation::Called(ticket) => {
                self.began_after.insert(*ticket, (self.answered, self.read));
            }
            Observation::Did { output: Output::Execute(execution), .. } => self.execute(execution),
            Observation::Answered(ticket, Answer { outcome: Ok(executed), .. }) => {
                return self.answer(*ticket, executed);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use quorate_protocol::application::Executable;
    use quorate_protocol::codec::List;
    use quorate_protocol::number::{RequestNumber, Session};
    use quorate_protocol::time::{Time, WallTime};

    use super::*;
    use crate::checker::{show, violation_of};
    use crate::fabricate::Fabricated;

    const OLD: &str = "old";
    const NEW: &str = "new";

    /// Slots 1 to 3 put one value after the other under the one key.
    fn checker(values: [&str; 3]) -> Reads {
        let client = Fabricated::new().execution(1, 1).requests[0].client;
        let mut checker = Reads::of_stores();
        for (slot, value) in (1..).zip(values) {
            let operation = Operation::put(b"k", value.as_bytes()).encode().expect("short");
            let request = Executable {
                client,
                session: Session::NONE,
                number: RequestNumber::new(slot),
                index: 0,
                operations: List::new(vec![operation]).expect("one"),
            };
            let execution = Execution { sequence: Sequence::new(slot), time: WallTime::ZERO, requests: vec![request] };
            assert_eq!(violation_of(&mut checker, &[(0, Output::Execute(execution))]), None);
        }
        checker
    }

    fn ticket(call: u64) -> Ticket {
        Ticket { client: 0, call }
    }

    fn begin(checker: &mut Reads, call: u64) {
        let operation = Operation::get(b"k").encode().expect("short");
        show(checker, &Observation::Reads(ticket(call), &operation)).expect("a note");
        show(checker, &Observation::Called(ticket(call))).expect("a note");
    }

    fn end(checker: &mut Reads, call: u64, value: &str) -> Result<(), String> {
        let output = quorate_protocol::kv::StepOutput::Value(Some(Blob::from(value.as_bytes())));
        let result =
            quorate_protocol::codec::encode(&quorate_protocol::kv::Output::Step(output)).expect("short").into();
        answer(checker, call, Executed { sequence: Sequence::ZERO, index: None, results: vec![result] })
    }

    fn answer(checker: &mut Reads, call: u64, executed: Executed) -> Result<(), String> {
        show(checker, &Observation::Answered(ticket(call), &Answer { outcome: Ok(executed), at: Time::ZERO }))
    }

    fn ordered(checker: &mut Reads, call: u64, slot: u64) -> Result<(), String> {
        answer(checker, call, Executed { sequence: Sequence::new(slot), index: Some(0), results: Vec::new() })
    }

    #[test]
    fn a_read_may_find_any_value_that_was_not_overwritten_before_it_began() {
        for found in [OLD, NEW] {
            let mut checker = checker([OLD, NEW, NEW]);
            begin(&mut checker, 0);
            end(&mut checker, 0, found).expect("both writes may be under way");
        }
    }

    #[test]
    fn a_value_that_was_overwritten_before_the_read_began_is_found() {
        let mut checker = checker([OLD, NEW, NEW]);
        show(&mut checker, &Observation::Called(ticket(7))).expect("a note");
        ordered(&mut checker, 7, 2).expect("the second write is answered");
        begin(&mut checker, 0);
        end(&mut checker, 0, OLD).expect_err("it is stale");
    }

    /// The value of slot 1 is there again from slot 3 on: who read that late cannot be followed by one that finds slot 2.
    #[test]
    fn a_read_that_finds_what_an_earlier_one_found_overwritten_is_found() {
        let mut checker = checker([OLD, NEW, OLD]);
        show(&mut checker, &Observation::Called(ticket(7))).expect("a note");
        ordered(&mut checker, 7, 2).expect("the second write is answered");
        begin(&mut checker, 0);
        end(&mut checker, 0, OLD).expect("the third write may be under way");
        begin(&mut checker, 1);
        end(&mut checker, 1, NEW).expect_err("time went back");
    }

    #[test]
    fn a_write_that_a_read_found_has_no_place_before_calls_that_began_later() {
        let mut checker = checker([OLD, NEW, NEW]);
        begin(&mut checker, 0);
        end(&mut checker, 0, NEW).expect("it is the newest");
        show(&mut checker, &Observation::Called(ticket(7))).expect("a note");
        ordered(&mut checker, 7, 2).expect_err("slot 2 was found before it began");
    }

    #[test]
    fn a_value_that_was_never_there_is_found() {
        let mut checker = checker([OLD, NEW, NEW]);
        begin(&mut checker, 0);
        end(&mut checker, 0, "a lie").expect_err("nobody wrote it");
    }
}
