//! A second opinion on a history: a search for any order of the calls that real time and a map allow, by the algorithm of Wing
//! and Gong as Lowe improved it (Testing for linearizability, 2017), in the crate `porcupine-rs`. (PROTOCOL §2.7)
//!
//! [`crate::history`] judges by the places that answers name, and searches nothing; this asks for no places. What it refuses
//! the other must refuse. Only where the feature `porcupine` is on: the crate brings a harness for benchmarks with it.

use core::time::Duration;
use std::collections::BTreeMap;

use porcupine_rs::{CheckResult, Model, Operation, check_operations_timeout};

use crate::history::{Call, Fate, Found, Kind};

/// How long it may search.
const SEARCH_MAX: Duration = Duration::from_mins(1);

/// It found neither an order nor that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no answer within {SEARCH_MAX:?}")]
pub struct Undecided;

/// One key of the store: the rules stand here a second time, whatever those of the other checker are.
#[derive(Debug, Clone)]
struct Register;

impl Model for Register {
    type State = Option<String>;
    type Op = Call;
    type Metadata = ();

    fn partition_operations(history: &[Operation<Self>]) -> Vec<Vec<Operation<Self>>> {
        let mut by_key: BTreeMap<String, Vec<Operation<Self>>> = BTreeMap::new();
        for operation in history {
            by_key.entry(operation.op.key.clone()).or_default().push(operation.clone());
        }
        by_key.into_values().collect()
    }

    fn init() -> Self::State {
        None
    }

    fn step(held: &Self::State, call: &Call) -> (bool, Self::State) {
        let (result, next) = match call.operation {
            Kind::Get => (Found::Value(held.clone()), held.clone()),
            Kind::Put => (Found::Flag(held.is_some()), call.value.clone()),
            Kind::Delete => (Found::Flag(held.is_some()), None),
            Kind::Cas if *held == call.expect => (Found::Flag(true), call.value.clone()),
            Kind::Cas => (Found::Flag(false), held.clone()),
        };
        let is_right = match &call.result {
            Some(claimed) => *claimed == result,
            // A get that found nothing may leave that out.
            None => call.operation == Kind::Get && held.is_none(),
        };
        (call.outcome == Fate::Unknown || is_right, next)
    }
}

/// Whether the calls have an order that explains all they found.
///
/// # Errors
/// [`Undecided`], which is no yes.
pub fn is_linearizable(calls: &[Call]) -> Result<bool, Undecided> {
    let moment = |nanoseconds: u64| i64::try_from(nanoseconds).unwrap_or(i64::MAX);
    let counting = calls.iter().filter(|call| call.outcome != Fate::Error);
    let history: Vec<Operation<Register>> = counting
        .map(|call| Operation {
            client_id: None,
            call_time: moment(call.start_ns),
            // What nobody knows the end of may come last, where it is as if it had never been.
            return_time: call.end_ns.filter(|_| call.outcome == Fate::Ok).map_or(i64::MAX, moment),
            op: call.clone(),
            metadata: None,
        })
        .collect();
    match check_operations_timeout(&history, SEARCH_MAX) {
        CheckResult::Ok => Ok(true),
        CheckResult::Illegal => Ok(false),
        CheckResult::Unknown => Err(Undecided),
    }
}
