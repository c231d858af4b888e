//! Linearizability of ordered operations: an answer is what a correct replica computed, and a call that began after another
//! was answered has its place after it. (PROTOCOL §2.7)
//!
//! Answers name their place in the total order, so no search is needed: real time must agree with the places, and the
//! results with those of the replicas, which [`super::Agreement`] compares with each other.

use std::collections::BTreeMap;

use quorate_protocol::Output;
use quorate_protocol::application::Results;
use quorate_protocol::number::{ReplicaId, Sequence};

use super::{Checker, Invariant, Moment, Observation};
use crate::client::{Answer, Executed, Ticket};

/// A place in the total order.
type Place = (Sequence, u32);

/// Knows what ran where, and what had been answered when each call began.
#[derive(Debug, Default)]
pub struct Linearizability {
    /// The places of the requests of a slot, in order.
    indexes: BTreeMap<Sequence, Vec<u32>>,
    results: BTreeMap<Place, Results>,
    /// The last place that was answered so far.
    answered: Place,
    /// Replicas whose state rots: what they compute from it is found by other checkers.
    rotten: Vec<ReplicaId>,
    /// For each open call: the last place that was answered when it began.
    began_after: BTreeMap<Ticket, Place>,
}

impl Linearizability {
    fn answer(&mut self, ticket: Ticket, executed: &Executed) -> Result<(), String> {
        let Some(index) = executed.index else { return Ok(()) };
        let place = (executed.sequence, index);
        let Ticket { client, call } = ticket;
        let name = format!("call {call} of client {client} executed as {}.{}", place.0, place.1);
        match self.results.get(&place) {
            None => return Err(format!("{name}, where no correct replica executed anything")),
            Some(results) if results[..] != executed.results[..] => {
                return Err(format!("{name} with results that no correct replica computed"));
            }
            Some(_) => {}
        }
        let after = self.began_after.remove(&ticket).unwrap_or_default();
        self.answered = self.answered.max(place);
        if place > after {
            return Ok(());
        }
        Err(format!("{name}, but began when {}.{} had been answered", after.0, after.1))
    }
}

impl Checker for Linearizability {
    fn invariant(&self) -> Invariant {
        Invariant::Linearizability
    }

    fn observe(&mut self, _: Moment, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Called(ticket) => {
                self.began_after.insert(*ticket, self.answered);
            }
            Observation::Did { output: Output::Execute(execution), .. } => {
                let indexes = execution.requests.iter().map(|request| request.index).collect();
                self.indexes.insert(execution.sequence, indexes);
            }
            Observation::Rotted(replica) => self.rotten.push(*replica),
            Observation::Executed { replica, sequence, results } if !self.rotten.contains(replica) => {
                let indexes = self.indexes.get(sequence).into_iter().flatten();
                for (index, results) in indexes.zip(*results) {
                    self.results.entry((*sequence, *index)).or_insert_with(|| results.clone());
                }
            }
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
    use quorate_protocol::codec::{Blob, List};
    use quorate_protocol::time::Time;

    use super::*;
    use crate::checker::{show, violation_of};
    use crate::fabricate::Fabricated;

    /// Slots 1 and 2 ran one request each, with the slot as its result.
    fn checker() -> Linearizability {
        let fabricated = Fabricated::new();
        let mut checker = Linearizability::default();
        for slot in 1..=2 {
            let run = [(0, Output::Execute(fabricated.execution(slot, slot)))];
            assert_eq!(violation_of(&mut checker, &run), None);
            let results = [List::new(vec![result(slot)]).expect("one result")];
            let sequence = Sequence::new(slot);
            let executed = Observation::Executed { replica: ReplicaId::new(0), sequence, results: &results };
            show(&mut checker, &executed).expect("a note");
        }
        checker
    }

    fn result(slot: u64) -> Blob {
        Blob::from(&slot.to_le_bytes()[..])
    }

    fn call(checker: &mut Linearizability, call: u64) {
        show(checker, &Observation::Called(Ticket { client: 0, call })).expect("a note");
    }

    fn answer(checker: &mut Linearizability, call: u64, slot: u64, result: Blob) -> Result<(), String> {
        let executed = Executed { sequence: Sequence::new(slot), index: Some(0), results: vec![result] };
        let answer = Answer { outcome: Ok(executed), at: Time::ZERO };
        show(checker, &Observation::Answered(Ticket { client: 0, call }, &answer))
    }

    #[test]
    fn calls_that_overlap_may_have_any_order() {
        let mut checker = checker();
        call(&mut checker, 0);
        call(&mut checker, 1);
        answer(&mut checker, 0, 2, result(2)).expect("the later place");
        answer(&mut checker, 1, 1, result(1)).expect("they overlap");
    }

    #[test]
    fn a_call_that_takes_its_place_before_one_that_was_answered_earlier_is_found() {
        let mut checker = checker();
        call(&mut checker, 0);
        answer(&mut checker, 0, 2, result(2)).expect("the later place");
        call(&mut checker, 1);
        answer(&mut checker, 1, 1, result(1)).expect_err("it began after the other was answered");
    }

    #[test]
    fn a_result_that_no_replica_computed_is_found() {
        let mut checker = checker();
        call(&mut checker, 0);
        answer(&mut checker, 0, 1, result(7)).expect_err("another result");
        answer(&mut checker, 0, 3, result(3)).expect_err("a slot that nobody executed");
    }
}
