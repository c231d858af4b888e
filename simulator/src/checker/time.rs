//! Time: what operations see as the time never goes back, and stays near the clocks of correct replicas. (PROTOCOL §4.2,
//! §4.3)

use core::time::Duration;
use std::collections::BTreeMap;

use quorate_protocol::Output;
use quorate_protocol::number::Sequence;
use quorate_protocol::time::{Time, WallTime};

use super::{Checker, Invariant, Moment, Observation};
use crate::clock::wall_at;

/// How far ahead of true time a slot may be: the bound that backups put on a stamp, and how wrong a scenario may set their
/// clocks.
const AHEAD_MAX: Duration = Duration::from_secs(20);

/// And for how fast clocks may run: one part in this many of all time that passed.
const DRIFT_DIVISOR: u32 = 20;

/// Knows the time that each slot saw.
#[derive(Debug, Default)]
pub struct Times {
    seen: BTreeMap<Sequence, WallTime>,
}

impl Checker for Times {
    fn invariant(&self) -> Invariant {
        Invariant::Time
    }

    fn observe(&mut self, moment: Moment, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Did { replica, output: Output::Execute(execution), .. } = observation else {
            return Ok(());
        };
        let (sequence, time) = (execution.sequence, execution.time);
        let before = self.seen.range(..sequence).next_back().filter(|(_, before)| **before > time);
        if let Some((earlier, before)) = before {
            return Err(format!("replica {replica} runs slot {sequence} at {time}, after slot {earlier} at {before}"));
        }
        let passed = moment.time.since(Time::ZERO);
        let latest = wall_at(moment.time.after(AHEAD_MAX + passed / DRIFT_DIVISOR));
        if time > latest {
            return Err(format!("replica {replica} runs slot {sequence} at {time}, which no correct clock shows yet"));
        }
        self.seen.insert(sequence, time);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::violation_of;
    use crate::fabricate::Fabricated;

    fn run(slot: u64, time: WallTime) -> (u8, Output) {
        let mut execution = Fabricated::new().execution(slot, slot);
        execution.time = time;
        (0, Output::Execute(execution))
    }

    fn at(seconds: u64) -> WallTime {
        wall_at(Time::from_nanoseconds(seconds * 1_000_000_000))
    }

    #[test]
    fn time_that_goes_back_is_found() {
        assert_eq!(violation_of(&mut Times::default(), &[run(1, at(1)), run(2, at(1)), run(3, at(2))]), None);
        assert!(violation_of(&mut Times::default(), &[run(1, at(2)), run(2, at(1))]).is_some());
    }

    #[test]
    fn time_far_ahead_of_every_clock_is_found() {
        assert!(violation_of(&mut Times::default(), &[run(1, at(3_600))]).is_some());
    }
}
