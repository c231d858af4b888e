//! What clients called for and found in a run, as a history that others can judge. (PROTOCOL §2.7)

use quorate_protocol::kv::{Output, StepOutput};
use quorate_protocol::time::Time;

use crate::client::{Answer, Ticket};
use crate::cluster::Cluster;
use crate::history::{Call, Fate, Found, Kind};
use crate::scenario::Action;

/// A call as it was made.
#[derive(Debug)]
pub(super) struct Made {
    ticket: Ticket,
    action: Action,
    at: Time,
}

impl Made {
    /// Notes a call.
    pub(super) const fn new(ticket: Ticket, action: Action, at: Time) -> Self {
        Self { ticket, action, at }
    }

    /// The call with what it found by now.
    pub(super) fn call(&self, cluster: &Cluster) -> Option<Call> {
        let (operation, key, value, expect) = parts(&self.action)?;
        let mut call = Call {
            client: self.ticket.client as u64,
            number: self.ticket.call,
            step: 0,
            operation,
            key: key.clone(),
            value: value.cloned(),
            expect: expect.cloned(),
            start_ns: self.at.nanoseconds(),
            end_ns: None,
            // Also where the client was told that nothing came of it: it may have executed all the same.
            outcome: Fate::Unknown,
            result: None,
            sequence: None,
            index: None,
        };
        if let Some(Answer { outcome: Ok(executed), at }) = cluster.answer_to(self.ticket) {
            call.outcome = Fate::Ok;
            call.end_ns = Some(at.nanoseconds());
            // A read that nobody ordered has no place.
            call.index = executed.index.map(u64::from);
            call.sequence = executed.index.map(|_| executed.sequence.value());
            call.result = executed.results.first().and_then(|result| found(&Output::decode(result).ok()?));
        }
        Some(call)
    }
}

/// Operation, key, value and expected value of a call.
const fn parts(action: &Action) -> Option<(Kind, &String, Option<&String>, Option<&String>)> {
    match action {
        Action::Put(_, key, value) => Some((Kind::Put, key, Some(value), None)),
        Action::Get(_, key) | Action::FastGet(_, key) => Some((Kind::Get, key, None, None)),
        Action::Delete(_, key) => Some((Kind::Delete, key, None, None)),
        Action::CompareAndSet(_, key, expect, value) => Some((Kind::Cas, key, Some(value), Some(expect))),
        _ => None,
    }
}

fn found(output: &Output) -> Option<Found> {
    match output {
        Output::Step(StepOutput::Done { replaced: flag } | StepOutput::Deleted(flag)) | Output::Swapped(flag) => {
            Some(Found::Flag(*flag))
        }
        Output::Step(StepOutput::Value(value)) => {
            let text = value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned());
            Some(Found::Value(text))
        }
        _ => None,
    }
}
