//! Prefix: each replica executes 1, 2, 3, … without a gap, and takes its checkpoints where they are due. (PROTOCOL §2.4)

use std::collections::BTreeMap;

use quorate_protocol::Output;
use quorate_protocol::number::{ReplicaId, Sequence};

use super::{Checker, Invariant, Moment, Observation};

/// Knows how far each replica executed.
#[derive(Debug)]
pub struct Prefix {
    checkpoint_interval: u64,
    last: BTreeMap<ReplicaId, Sequence>,
    /// A checkpoint that is due: nothing may execute before it is taken.
    due: BTreeMap<ReplicaId, Sequence>,
}

impl Prefix {
    /// A checker for a cluster that takes a checkpoint every so many slots.
    pub const fn new(checkpoint_interval: u64) -> Self {
        Self { checkpoint_interval, last: BTreeMap::new(), due: BTreeMap::new() }
    }

    fn execute(&mut self, replica: ReplicaId, sequence: Sequence) -> Result<(), String> {
        if let Some(due) = self.due.get(&replica) {
            return Err(format!("replica {replica} executes {sequence} before it took the checkpoint at {due}"));
        }
        let last = self.last.entry(replica).or_default();
        if Some(sequence) != last.next() {
            return Err(format!("replica {replica} executes {sequence} after {last}"));
        }
        *last = sequence;
        if sequence.value().is_multiple_of(self.checkpoint_interval) {
            self.due.insert(replica, sequence);
        }
        Ok(())
    }

    fn restart_at(&mut self, replica: ReplicaId, sequence: Sequence) {
        self.last.insert(replica, sequence);
        self.due.remove(&replica);
    }
}

impl Checker for Prefix {
    fn invariant(&self) -> Invariant {
        Invariant::Prefix
    }

    fn observe(&mut self, _: Moment, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Started { replica, executed, .. } => self.restart_at(*replica, *executed),
            // A replica that diverged goes back: to the state of a checkpoint that it had executed wrongly.
            Observation::Installed { replica, sequence, .. } => self.restart_at(*replica, *sequence),
            Observation::Did { replica, output: Output::Execute(execution), .. } => {
                return self.execute(*replica, execution.sequence);
            }
            Observation::Did { replica, output: Output::TakeCheckpoint { sequence, .. }, .. } => {
                let due = self.due.remove(replica);
                if due != Some(*sequence) {
                    return Err(format!("replica {replica} takes a checkpoint at {sequence}, due was {due:?}"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::{show, violation_of};
    use crate::fabricate::Fabricated;

    fn run(slot: u64) -> (u8, Output) {
        (0, Output::Execute(Fabricated::new().execution(slot, slot)))
    }

    fn checkpoint(slot: u64) -> (u8, Output) {
        (0, Output::TakeCheckpoint { sequence: Sequence::new(slot), protocol: Vec::new() })
    }

    #[test]
    fn a_gap_and_a_repetition_are_found() {
        assert_eq!(violation_of(&mut Prefix::new(8), &[run(1), run(2), run(3)]), None);
        assert!(violation_of(&mut Prefix::new(8), &[run(1), run(3)]).is_some());
        assert!(violation_of(&mut Prefix::new(8), &[run(1), run(1)]).is_some());
    }

    #[test]
    fn a_checkpoint_that_is_left_out_or_taken_elsewhere_is_found() {
        assert_eq!(violation_of(&mut Prefix::new(2), &[run(1), run(2), checkpoint(2), run(3)]), None);
        assert!(violation_of(&mut Prefix::new(2), &[run(1), run(2), run(3)]).is_some());
        assert!(violation_of(&mut Prefix::new(2), &[run(1), checkpoint(1)]).is_some());
    }

    #[test]
    fn after_a_restart_execution_goes_on_from_the_durable_checkpoint() {
        let mut checker = Prefix::new(8);
        assert_eq!(violation_of(&mut checker, &[run(1), run(2)]), None);
        let replica = ReplicaId::new(0);
        show(&mut checker, &Observation::Started { replica, executed: Sequence::ZERO, records: &[] }).expect("a start");
        assert_eq!(violation_of(&mut checker, &[run(1)]), None);
        assert!(violation_of(&mut checker, &[run(3)]).is_some());
    }
}
