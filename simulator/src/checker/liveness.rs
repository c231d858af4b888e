//! Liveness: once faults have stopped, every call is answered within a bound. (PROTOCOL §2.8)

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
    /// When the next call is overdue; spares looking at all of them after every step.
    look_at: Option<Time>,
}

impl Liveness {
    /// A checker that allows so much time.
    pub const fn new(bound: Duration) -> Self {
        Self { bound, healed: None, unanswered: BTreeMap::new(), look_at: None }
    }

    fn look(&mut self, now: Time) -> Result<(), String> {
        let Some(healed) = self.healed else {
            return Ok(());
        };
        if self.look_at.is_some_and(|at| now < at) {
            return Ok(());
        }
        let overdue_at = |since: Time| since.max(healed).after(self.bound);
        if let Some((ticket, since)) = self.unanswered.iter().find(|(_, since)| overdue_at(**since) < now) {
            let waited = now.since((*since).max(healed));
            return Err(format!("call {} of client {} is unanswered for {waited:?}", ticket.call, ticket.client));
        }
        let first = self.unanswered.values().map(|since| overdue_at(*since)).min();
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
    fn an_answered_call_is_no_matter() {
        let mut checker = Liveness::new(Duration::from_secs(10));
        checker.observe(at(0), &Observation::Healed).expect("a note");
        checker.observe(at(0), &Observation::Called(TICKET)).expect("a note");
        let answer = Answer { outcome: Err(ClientError::OutcomeUnknown), at: Time::ZERO };
        checker.observe(at(1), &Observation::Answered(TICKET, &answer)).expect("a note");
        checker.observe(at(100), &Observation::Tick).expect("answered");
    }
}
