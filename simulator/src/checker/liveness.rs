//! Liveness: once faults have stopped, every call is answered within a bound. (PROTOCOL §2.8)
//!
//! A client makes a few calls at a time, and keeps the others back: a call is waited for from its client's last answer on.

use core::time::Duration;
use std::collections::BTreeMap;

use quorate_protocol::time::Time;

use super::{Checker, Invariant, Moment, Observation};
use crate::client::Ticket;

/// Knows what is unanswered, and since when nothing goes wrong.
#[derive(Debug)]
pub struct Liveness {
    bound: Duration,
    healed: Option<Time>,
    unanswered: BTreeMap<Ticket, Time>,
    /// When each client was answered last.
    answered: BTreeMap<usize, Time>,
    /// When the next call is overdue; spares looking at all of them after every step.
    look_at: Option<Time>,
}

impl Liveness {
    /// A checker that allows so much time.
    pub const fn new(bound: Duration) -> Self {
        Self { bound, healed: None, unanswered: BTreeMap::new(), answered: BTreeMap::new(), look_at: None }
    }

    fn look(&mut self, now: Time) -> Result<(), String> {
        let Some(healed) = self.healed else {
            return Ok(());
        };
        if self.look_at.is_some_and(|at| now < at) {
            return Ok(());
        }
        let waits_since = |(ticket, called): (&Ticket, &Time)| {
            let answered = self.answered.get(&ticket.client).copied().unwrap_or_default();
            (*called).max(healed).max(answered)
        };
        let is_overdue = |call: &(&Ticket, &Time)| waits_since(*call).after(self.bound) < now;
        if let Some(call) = self.unanswered.iter().find(is_overdue) {
            let waited = now.since(waits_since(call));
            return Err(format!("call {} of client {} is unanswered for {waited:?}", call.0.call, call.0.client));
        }
        let first = self.unanswered.iter().map(|call| waits_since(call).after(self.bound)).min();
        self.look_at = Some(first.unwrap_or_else(|| now.after(self.bound)));
        Ok(())
    }
}

impl Checker for Liveness {
    fn invariant(&self) -> Invariant {
        Invariant::Liveness
    }

    fn observe(&mut self, moment: Moment, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Called(ticket) => {
                self.unanswered.insert(*ticket, moment.time);
            }
            Observation::Answered(ticket, _) => {
                self.unanswered.remove(ticket);
                self.answered.insert(ticket.client, moment.time);
            }
            Observation::Healed => {
                self.healed = Some(moment.time);
                self.look_at = None;
            }
            Observation::Broken => self.healed = None,
            Observation::Tick => return self.look(moment.time),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use quorate_protocol::client::ClientError;

    use super::*;
    use crate::client::Answer;

    const TICKET: Ticket = Ticket { client: 0, call: 0 };

    fn at(seconds: u64) -> Moment {
        Moment { step: 0, time: Time::from_nanoseconds(seconds * 1_000_000_000) }
    }

    #[test]
    fn a_call_that_is_not_answered_in_time_is_found_but_only_once_faults_have_stopped() {
        let mut checker = Liveness::new(Duration::from_secs(10));
        checker.observe(at(0), &Observation::Called(TICKET)).expect("a note");
        checker.observe(at(100), &Observation::Tick).expect("faults go on");
        checker.observe(at(100), &Observation::Healed).expect("a note");
        checker.observe(at(105), &Observation::Tick).expect("there is time");
        checker.observe(at(111), &Observation::Tick).expect_err("overdue");
    }

    #[test]
    fn a_call_is_waited_for_from_the_last_answer_of_its_own_client_on() {
        let answer = Answer { outcome: Err(ClientError::OutcomeUnknown), at: Time::ZERO };
        let other = |client| Ticket { client, call: 1 };
        for (client, is_overdue) in [(0, false), (1, true)] {
            let mut checker = Liveness::new(Duration::from_secs(10));
            checker.observe(at(0), &Observation::Healed).expect("a note");
            checker.observe(at(0), &Observation::Called(TICKET)).expect("a note");
            checker.observe(at(0), &Observation::Called(other(client))).expect("a note");
            checker.observe(at(5), &Observation::Answered(other(client), &answer)).expect("a note");
            assert_eq!(checker.observe(at(11), &Observation::Tick).is_err(), is_overdue, "answered: client {client}");
            checker.observe(at(16), &Observation::Tick).expect_err("overdue");
        }
    }

    #[test]
    fn an_answered_call_is_no_matter() {
        let mut checker = Liveness::new(Duration::from_secs(10));
        checker.observe(at(0), &Observation::Healed).expect("a note");
        checker.observe(at(0), &Observation::Called(TICKET)).expect("a note");
        let answer = Answer { outcome: Err(ClientError::OutcomeUnknown), at: Time::ZERO };
        checker.observe(at(1), &Observation::Answered(TICKET, &answer)).expect("a note");
        checker.observe(at(100), &Observation::Tick).expect("answered");
    }
}
