//! No amnesia: over all that a replica ever signed, restarts included, it says one thing about one subject. (PROTOCOL §2.6)

use std::collections::{BTreeMap, BTreeSet};

use quorate_crypto::Digest;
use quorate_protocol::number::ReplicaId;

use super::{Checker, Invariant, Moment, Observation};
use crate::statement::{Said, Subject};

/// Knows everything that correct replicas ever said.
#[derive(Debug, Default)]
pub struct Amnesia {
    said: BTreeMap<(ReplicaId, Subject), Digest>,
    /// Replicas whose state rotted once: what they said of it was wrong, and what they say later is right.
    rotted: BTreeSet<ReplicaId>,
}

impl Checker for Amnesia {
    fn invariant(&self) -> Invariant {
        Invariant::Amnesia
    }

    fn observe(&mut self, _: Moment, observation: &Observation<'_>) -> Result<(), String> {
        if let Observation::Rotted(replica) = observation {
            self.rotted.insert(*replica);
        }
        let Observation::Said { said, .. } = observation else {
            return Ok(());
        };
        for &Said { replica, subject, digest } in *said {
            if matches!(subject, Subject::Checkpoint(..)) && self.rotted.contains(&replica) {
                continue;
            }
            let before = *self.said.entry((replica, subject)).or_insert(digest);
            if before != digest {
                return Err(format!("replica {replica} said {before} about {subject:?}, and now says {digest}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use quorate_protocol::Output;

    use super::*;
    use crate::checker::{show, violation_of};
    use crate::fabricate::Fabricated;
    use quorate_protocol::number::Sequence;

    fn checker() -> Amnesia {
        Amnesia::default()
    }

    #[test]
    fn a_second_vote_for_another_batch_is_found_even_after_a_restart() {
        let fabricated = Fabricated::new();
        let vote = |batch| (1, Output::Broadcast(fabricated.prepare(1, 1, batch)));
        assert_eq!(violation_of(&mut checker(), &[vote(1), vote(1)]), None);
        assert!(violation_of(&mut checker(), &[vote(1), vote(2)]).is_some());
        let mut checker = checker();
        assert_eq!(violation_of(&mut checker, &[vote(1)]), None);
        let start = Observation::Started { replica: ReplicaId::new(1), executed: Sequence::ZERO, records: &[] };
        show(&mut checker, &start).expect("a start");
        assert!(violation_of(&mut checker, &[vote(2)]).is_some());
    }

    #[test]
    fn votes_of_different_kinds_or_slots_do_not_contradict_each_other() {
        let fabricated = Fabricated::new();
        let history = [
            (1, Output::Broadcast(fabricated.prepare(1, 1, 1))),
            (1, Output::Broadcast(fabricated.prepare(1, 2, 2))),
            (1, Output::Broadcast(fabricated.commit(1, 1, 3))),
            (2, Output::Broadcast(fabricated.prepare(2, 1, 4))),
        ];
        assert_eq!(violation_of(&mut checker(), &history), None);
    }

    #[test]
    fn a_view_change_that_is_built_anew_is_found() {
        let fabricated = Fabricated::new();
        let asks = |slots: &[u64]| (1, Output::Broadcast(fabricated.view_change(1, 1, slots)));
        assert_eq!(violation_of(&mut checker(), &[asks(&[1]), asks(&[1])]), None);
        assert!(violation_of(&mut checker(), &[asks(&[1]), asks(&[])]).is_some());
    }
}
