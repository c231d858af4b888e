//! Agreement: no two replicas execute different batches at the same slot. (PROTOCOL §2.1)

use std::collections::BTreeMap;

use quorate_crypto::Digest;
use quorate_protocol::Output;
use quorate_protocol::application::{Execution, Results};
use quorate_protocol::message::Message;
use quorate_protocol::number::{Epoch, ReplicaId, Sequence};
use quorate_protocol::record::Record;
use quorate_protocol::statement::Commit;

use super::{Checker, Invariant, Moment, Observation};

/// Compares what is decided, what is executed and what comes of it, slot by slot.
#[derive(Debug, Default)]
pub struct Agreement {
    /// By epoch: what an epoch decides above the checkpoint that ends it is void, and executes nowhere. (PROTOCOL §11)
    decided: BTreeMap<(Epoch, Sequence), (ReplicaId, Digest)>,
    executed: BTreeMap<Sequence, (ReplicaId, Execution)>,
    results: BTreeMap<Sequence, (ReplicaId, Vec<Results>)>,
    rotten: Vec<ReplicaId>,
}

impl Agreement {
    fn decide(&mut self, replica: ReplicaId, commit: &Commit) -> Result<(), String> {
        let (first, digest) = *self.decided.entry((commit.epoch, commit.sequence)).or_insert((replica, commit.digest));
        if digest == commit.digest {
            return Ok(());
        }
        let Commit { sequence, digest: other, .. } = commit;
        Err(format!("slot {sequence} is decided as {digest} for replica {first} and as {other} for replica {replica}"))
    }

    fn execute(&mut self, replica: ReplicaId, execution: &Execution) -> Result<(), String> {
        let sequence = execution.sequence;
        let (first, other) = self.executed.entry(sequence).or_insert_with(|| (replica, execution.clone()));
        if other == execution {
            return Ok(());
        }
        let shape = |execution: &Execution| {
            let ids: Vec<String> = execution
                .requests
                .iter()
                .map(|request| format!("{}/{}/{}", super::short(&request.client), request.session, request.number))
                .collect();
            format!("{ids:?} at {}", execution.time)
        };
        let (here, there) = (shape(execution), shape(other));
        Err(format!("slot {sequence} runs {there} on replica {first} and {here} on replica {replica}"))
    }
}

impl Checker for Agreement {
    fn invariant(&self) -> Invariant {
        Invariant::Agreement
    }

    fn observe(&mut self, _: Moment, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Did { replica, output, .. } => match output {
                Output::Append { record: Record::Committed(certificate) | Record::Learned(certificate, _), .. } => {
                    self.decide(*replica, &certificate.statement)
                }
                Output::Send { message: Message::Decided(decided), .. } => {
                    self.decide(*replica, &decided.certificate.statement)
                }
                Output::Execute(execution) => self.execute(*replica, execution),
                _ => Ok(()),
            },
            Observation::Executed { replica, sequence, results } if !self.rotten.contains(replica) => {
                let (first, others) = self.results.entry(*sequence).or_insert_with(|| (*replica, results.to_vec()));
                if others == results {
                    return Ok(());
                }
                Err(format!("slot {sequence} has other results on replica {replica} than on replica {first}"))
            }
            Observation::Rotted(replica) => {
                self.rotten.push(*replica);
                Ok(())
            }
            Observation::Installed { replica, .. } => {
                self.rotten.retain(|rotten| rotten != replica);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::violation_of;
    use crate::fabricate::Fabricated;

    #[test]
    fn two_batches_decided_for_one_slot_are_found() {
        let fabricated = Fabricated::new();
        let decided =
            |batch| Output::Append { number: crate::disk::log::FIRST, record: fabricated.committed(1, batch) };
        assert_eq!(violation_of(&mut Agreement::default(), &[(0, decided(1)), (1, decided(1))]), None);
        assert!(violation_of(&mut Agreement::default(), &[(0, decided(1)), (1, decided(2))]).is_some());
    }

    #[test]
    fn two_executions_of_one_slot_that_differ_are_found() {
        let fabricated = Fabricated::new();
        let runs = |number| Output::Execute(fabricated.execution(1, number));
        assert_eq!(violation_of(&mut Agreement::default(), &[(0, runs(1)), (1, runs(1))]), None);
        assert!(violation_of(&mut Agreement::default(), &[(0, runs(1)), (1, runs(2))]).is_some());
    }
}
