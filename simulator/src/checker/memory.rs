//! Memory: what others say makes a replica hold no more than it has room for, whoever says how much. (PROTOCOL §3, the
//! bounds of what a receiver keeps; §4, each sender has a quota)
//!
//! The bounds stand here by hand. What a replica holds it counts itself: nobody else can.

use super::{Checker, Invariant, Moment, Observation};

/// What a replica holds of what others said, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// Proposals for views that it has yet to enter, of the member of whom it holds most.
    pub early_proposals: usize,
    /// Slots of which it knows something.
    pub slots: usize,
}

/// Proposals for views to come that are kept of one member: what a pipeline holds by default. (PROTOCOL §14)
const EARLY_PROPOSALS_MAX: usize = 8;

/// Compares what replicas hold with what they may.
#[derive(Debug)]
pub struct Memory {
    slots_max: u64,
}

impl Memory {
    /// A checker for a cluster whose replicas keep `window` slots: above the low watermark, and as many below it that they
    /// have not executed yet.
    pub const fn new(window: u64) -> Self {
        Self { slots_max: 2 * window + 1 }
    }
}

impl Checker for Memory {
    fn invariant(&self) -> Invariant {
        Invariant::Memory
    }

    fn observe(&mut self, _: Moment, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Holds { replica, held } = observation else {
            return Ok(());
        };
        let Held { early_proposals, slots } = *held;
        if early_proposals > EARLY_PROPOSALS_MAX {
            return Err(format!("replica {replica} holds {early_proposals} proposals of one member for views to come"));
        }
        if slots as u64 > self.slots_max {
            return Err(format!("replica {replica} holds {slots} slots, and may hold {}", self.slots_max));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use quorate_protocol::number::ReplicaId;

    use super::*;
    use crate::checker::show;

    #[test]
    fn one_thing_more_than_there_is_room_for_is_found() {
        let holds = |early_proposals, slots| {
            let held = Held { early_proposals, slots };
            show(&mut Memory::new(4), &Observation::Holds { replica: ReplicaId::new(0), held })
        };
        holds(8, 9).expect("all that there is room for");
        holds(9, 0).expect_err("a proposal too many");
        holds(0, 10).expect_err("a slot too many");
    }
}
