//! Checkpoint: all that is said about the state after one slot is the same. (PROTOCOL §2.5)

use std::collections::BTreeMap;

use quorate_crypto::Digest;
use quorate_protocol::Output;
use quorate_protocol::certificate::StableCertificate;
use quorate_protocol::message::Message;
use quorate_protocol::number::{ReplicaId, Sequence};
use quorate_protocol::record::Record;
use quorate_protocol::statement::Checkpoint;

use super::{Checker, Invariant, Moment, Observation, Quorums};

/// Knows the roots of each slot: those that are certified, those that are voted for, those that hosts computed.
#[derive(Debug)]
pub struct Checkpoints {
    quorums: Quorums,
    certified: BTreeMap<Sequence, Digest>,
    voted: BTreeMap<Sequence, (ReplicaId, Digest)>,
    application: BTreeMap<Sequence, (ReplicaId, Digest)>,
    rotten: Vec<ReplicaId>,
}

impl Checkpoints {
    /// A checker for a cluster of this size.
    pub const fn new(quorums: Quorums) -> Self {
        Self {
            quorums,
            certified: BTreeMap::new(),
            voted: BTreeMap::new(),
            application: BTreeMap::new(),
            rotten: Vec::new(),
        }
    }

    fn certify(&mut self, replica: ReplicaId, certificate: &StableCertificate) -> Result<(), String> {
        let Checkpoint { sequence, root, .. } = certificate.statement;
        if certificate.votes.len() < self.quorums.quorum {
            return Err(format!("replica {replica} takes {} votes for a stable checkpoint", certificate.votes.len()));
        }
        let certified = *self.certified.entry(sequence).or_insert(root);
        if certified != root {
            return Err(format!(
                "slot {sequence} is certified with root {certified}, for replica {replica} with {root}"
            ));
        }
        match self.voted.get(&sequence) {
            Some((voter, voted)) if *voted != root => {
                Err(format!("slot {sequence} is certified with root {root}, replica {voter} voted for {voted}"))
            }
            _ => Ok(()),
        }
    }

    fn vote(&mut self, replica: ReplicaId, checkpoint: &Checkpoint) -> Result<(), String> {
        if self.rotten.contains(&replica) {
            return Ok(());
        }
        let Checkpoint { sequence, root, .. } = *checkpoint;
        let (voter, voted) = *self.voted.entry(sequence).or_insert((replica, root));
        if voted == root {
            return Ok(());
        }
        Err(format!("after slot {sequence} replica {voter} has root {voted} and replica {replica} has {root}"))
    }

    fn compute(&mut self, replica: ReplicaId, sequence: Sequence, root: Digest) -> Result<(), String> {
        if self.rotten.contains(&replica) {
            return Ok(());
        }
        let (first, other) = *self.application.entry(sequence).or_insert((replica, root));
        if other == root {
            return Ok(());
        }
        Err(format!("after slot {sequence} the application's root is {other} on {first} and {root} on {replica}"))
    }
}

impl Checker for Checkpoints {
    fn invariant(&self) -> Invariant {
        Invariant::Checkpoint
    }

    fn observe(&mut self, _: Moment, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Taken { replica, sequence, root } => self.compute(*replica, *sequence, *root),
            Observation::Installed { replica, sequence, root } => {
                self.rotten.retain(|rotten| rotten != replica);
                self.compute(*replica, *sequence, *root)
            }
            Observation::Rotted(replica) => {
                self.rotten.push(*replica);
                Ok(())
            }
            Observation::Did { replica, output, .. } => match output {
                Output::Append { record: Record::Stable(certificate), .. }
                | Output::Send { message: Message::Stable(certificate), .. }
                | Output::Broadcast(Message::Stable(certificate)) => self.certify(*replica, certificate),
                Output::CheckpointStable { certificate, root } => {
                    self.compute(*replica, certificate.statement.sequence, root.application)?;
                    self.certify(*replica, certificate)
                }
                Output::Send { message: Message::Checkpoint(vote), .. }
                | Output::Broadcast(Message::Checkpoint(vote)) => self.vote(*replica, &vote.statement),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::{show, violation_of};
    use crate::fabricate::Fabricated;

    fn checker() -> Checkpoints {
        Checkpoints::new(Quorums::of(4))
    }

    #[test]
    fn two_roots_voted_for_after_one_slot_are_found() {
        let vote = |replica, root| (replica, Output::Broadcast(Fabricated::checkpoint(replica, 8, root)));
        assert_eq!(violation_of(&mut checker(), &[vote(0, 1), vote(1, 1)]), None);
        assert!(violation_of(&mut checker(), &[vote(0, 1), vote(1, 2)]).is_some());
    }

    #[test]
    fn a_certificate_for_another_root_or_with_too_few_votes_is_found() {
        let stable = |root, votes| (0, Output::Broadcast(Message::Stable(Fabricated::stable(8, root, votes))));
        assert_eq!(violation_of(&mut checker(), &[stable(1, 3), stable(1, 3)]), None);
        assert!(violation_of(&mut checker(), &[stable(1, 3), stable(2, 3)]).is_some());
        assert!(violation_of(&mut checker(), &[stable(1, 2)]).is_some());
    }

    #[test]
    fn two_states_of_the_application_after_one_slot_are_found_unless_one_is_known_to_rot() {
        let taken = |replica, root| Observation::Taken {
            replica: ReplicaId::new(replica),
            sequence: Sequence::new(8),
            root: Digest::from_bytes([root; 32]),
        };
        let mut checker = checker();
        show(&mut checker, &taken(0, 1)).expect("the first");
        show(&mut checker, &taken(1, 1)).expect("the same");
        show(&mut checker, &taken(2, 2)).expect_err("another");
        show(&mut checker, &Observation::Rotted(ReplicaId::new(2))).expect("a note");
        show(&mut checker, &taken(2, 2)).expect("known to rot");
    }
}
