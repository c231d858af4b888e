//! Joins: a replica leaves its view because a correct one found something wrong with it; a liar alone moves nobody.
//! (PROTOCOL §6)

use std::collections::{BTreeMap, BTreeSet};

use quorate_protocol::Output;
use quorate_protocol::number::{ReplicaId, View};
use quorate_protocol::output::{Notice, Suspicion};

use super::{Checker, Invariant, Moment, Observation};

/// Knows which views correct replicas suspected or asked for.
#[derive(Debug, Default)]
pub struct Joins {
    /// The highest view that a correct replica asked for.
    asked: View,
    /// Views whose primary a correct replica suspected.
    suspected: BTreeSet<View>,
    /// How many views a replica passes over with what it asks for next.
    passed_over: BTreeMap<ReplicaId, u64>,
}

impl Checker for Joins {
    fn invariant(&self) -> Invariant {
        Invariant::Joins
    }

    fn observe(&mut self, _: Moment, observation: &Observation<'_>) -> Result<(), String> {
        let Observation::Did { replica, output: Output::Notice(notice), .. } = observation else {
            return Ok(());
        };
        match notice {
            Notice::PrimarySuspected { view, .. } => {
                self.suspected.insert(*view);
            }
            Notice::TurnPassedOver { .. } => *self.passed_over.entry(*replica).or_default() += 1,
            Notice::ViewWanted { view, reason } => {
                let passed_over = self.passed_over.remove(replica).unwrap_or_default();
                let left = view.saturating_sub(1 + passed_over);
                // Who asks for a later view has left it too, and need not have suspected its primary: it may have passed it over.
                let is_given_up = self.suspected.contains(&left) || self.asked > left;
                // After a start a replica may have to ask for a view because it lost the message by which it asked.
                if *view > self.asked && !is_given_up && *reason != Suspicion::Restart {
                    return Err(format!("replica {replica} asks for view {view}, and no correct one had a reason to"));
                }
                self.asked = self.asked.max(*view);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::violation_of;

    fn wants(replica: u8, view: u64) -> (u8, Output) {
        (replica, Output::Notice(Notice::ViewWanted { view: View::new(view), reason: Suspicion::Joined }))
    }

    fn suspects(replica: u8, view: u64) -> (u8, Output) {
        (replica, Output::Notice(Notice::PrimarySuspected { view: View::new(view), reason: Suspicion::Crash }))
    }

    #[test]
    fn who_joins_a_correct_replica_is_right_and_who_joins_nobody_is_found() {
        assert_eq!(violation_of(&mut Joins::default(), &[suspects(1, 0), wants(2, 1), wants(3, 1)]), None);
        assert!(violation_of(&mut Joins::default(), &[wants(2, 1)]).is_some());
        assert!(violation_of(&mut Joins::default(), &[suspects(1, 0), wants(2, 9)]).is_some());
        let passes_over = |replica| (replica, Output::Notice(Notice::TurnPassedOver { replica: ReplicaId::new(1) }));
        assert_eq!(violation_of(&mut Joins::default(), &[suspects(2, 0), passes_over(2), wants(2, 2)]), None);
        assert!(violation_of(&mut Joins::default(), &[suspects(2, 0), passes_over(3), wants(2, 2)]).is_some());
        // Replica 2 passed view 1 over, and so has replica 3, which was in it, a reason to leave it.
        let passed = [suspects(2, 0), passes_over(2), wants(2, 2), passes_over(3), wants(3, 3)];
        assert_eq!(violation_of(&mut Joins::default(), &passed), None);
        let alone = [suspects(2, 0), passes_over(2), wants(2, 2), passes_over(3), wants(3, 4)];
        assert!(violation_of(&mut Joins::default(), &alone).is_some());
    }
}
