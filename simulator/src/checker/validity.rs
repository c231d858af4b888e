//! Validity: every executed operation was signed by its client, in a batch that a quorum committed. (PROTOCOL §2.2)

use std::collections::{BTreeMap, BTreeSet};

use quorate_crypto::Digest;
use quorate_protocol::Output;
use quorate_protocol::application::{Executable, Execution};
use quorate_protocol::batch::{Batch, Request, RequestId};
use quorate_protocol::message::Message;
use quorate_protocol::number::{ReplicaId, Sequence, View};
use quorate_protocol::record::{Record, Recovered};
use quorate_protocol::statement::{Commit, Vote};

use super::{Checker, Invariant, Moment, Observation, Quorums, short};

/// Knows what clients signed, what batches hold, and who committed what.
#[derive(Debug)]
pub struct Validity {
    quorums: Quorums,
    signed: BTreeMap<RequestId, BTreeSet<Vec<Vec<u8>>>>,
    batches: BTreeMap<Digest, Vec<RequestId>>,
    commits: BTreeMap<Sequence, BTreeMap<(View, Digest), BTreeSet<ReplicaId>>>,
    /// Whoever may have committed anything.
    faulty: BTreeSet<ReplicaId>,
}

impl Validity {
    /// A checker for a cluster of this size.
    pub const fn new(quorums: Quorums) -> Self {
        Self {
            quorums,
            signed: BTreeMap::new(),
            batches: BTreeMap::new(),
            commits: BTreeMap::new(),
            faulty: BTreeSet::new(),
        }
    }

    fn note_record(&mut self, record: &Record) {
        match record {
            Record::Accepted(_, Some(batch)) | Record::Learned(_, batch) => self.note_batch(batch),
            Record::Prepared(_, vote) => self.note_commit(vote),
            _ => {}
        }
    }

    fn note_batch(&mut self, batch: &Batch) {
        let ids = || batch.requests().iter().map(|parsed| parsed.request.id()).collect();
        self.batches.entry(batch.digest()).or_insert_with(ids);
    }

    fn note_commit(&mut self, vote: &Vote<Commit>) {
        let Commit { view, sequence, digest, .. } = vote.statement;
        self.commits.entry(sequence).or_default().entry((view, digest)).or_default().insert(vote.voter);
    }

    fn check(&self, replica: ReplicaId, execution: &Execution) -> Result<(), String> {
        let sequence = execution.sequence;
        let committed: Vec<Digest> = self
            .commits
            .get(&sequence)
            .into_iter()
            .flatten()
            .filter(|(_, voters)| voters.union(&self.faulty).count() >= self.quorums.quorum)
            .map(|((_, digest), _)| *digest)
            .collect();
        if committed.is_empty() {
            return Err(format!("replica {replica} executes slot {sequence}, which no quorum committed"));
        }
        execution.requests.iter().try_for_each(|request| self.check_request(replica, sequence, request, &committed))
    }

    fn check_request(
        &self,
        replica: ReplicaId,
        sequence: Sequence,
        request: &Executable,
        committed: &[Digest],
    ) -> Result<(), String> {
        let id = RequestId { client: request.client, session: request.session, number: request.number };
        let name = format!("{}/{}/{}", short(&id.client), id.session, id.number);
        let operations: Vec<Vec<u8>> = request.operations.iter().map(|operation| operation.to_vec()).collect();
        if !self.signed.get(&id).is_some_and(|signed| signed.contains(&operations)) {
            return Err(format!("replica {replica} executes {name} in slot {sequence}, which its client never signed"));
        }
        let is_in_batch = committed
            .iter()
            .any(|digest| self.batches.get(digest).is_some_and(|batch| batch.get(request.index as usize) == Some(&id)));
        if is_in_batch {
            return Ok(());
        }
        let index = request.index;
        Err(format!("replica {replica} executes {name} as {sequence}.{index}, which the committed batch does not hold"))
    }
}

impl Checker for Validity {
    fn invariant(&self) -> Invariant {
        Invariant::Validity
    }

    fn observe(&mut self, _: Moment, observation: &Observation<'_>) -> Result<(), String> {
        match observation {
            Observation::Exempted(replica) => {
                self.faulty.insert(*replica);
            }
            Observation::Signed(request) => {
                let Request { operations, .. } = request;
                let operations = operations.iter().map(|operation| operation.to_vec()).collect();
                self.signed.entry(request.id()).or_default().insert(operations);
            }
            Observation::Started { records, .. } => {
                for (_, recovered) in *records {
                    if let Recovered::Whole(record) = recovered {
                        self.note_record(record);
                    }
                }
            }
            Observation::Did { output: Output::Append { record, .. }, .. } => self.note_record(record),
            Observation::Did { output: Output::Broadcast(message) | Output::Send { message, .. }, .. } => {
                if let Message::Commit(vote) = message {
                    self.note_commit(vote);
                }
            }
            Observation::Did { replica, output: Output::Execute(execution), .. } => {
                return self.check(*replica, execution);
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
    use crate::disk::log::FIRST;
    use crate::fabricate::Fabricated;

    /// A history in which `commits` replicas committed the batch of request 1 in slot 1.
    fn checker(fabricated: &Fabricated, commits: u8) -> Validity {
        let mut checker = Validity::new(Quorums::of(4));
        show(&mut checker, &Observation::Signed(&fabricated.request(1).request)).expect("a client may sign");
        let mut history = vec![(0, Output::Append { number: FIRST, record: fabricated.accepted(0, 1) })];
        history.extend((0..commits).map(|replica| (replica, Output::Broadcast(fabricated.commit(replica, 1, 1)))));
        assert_eq!(violation_of(&mut checker, &history), None);
        checker
    }

    #[test]
    fn a_slot_that_a_quorum_committed_may_execute_and_with_one_vote_less_it_may_not() {
        let fabricated = Fabricated::new();
        let execute = [(0, Output::Execute(fabricated.execution(1, 1)))];
        assert_eq!(violation_of(&mut checker(&fabricated, 3), &execute), None);
        assert!(violation_of(&mut checker(&fabricated, 2), &execute).is_some());
    }

    #[test]
    fn a_request_that_no_client_signed_is_found() {
        let fabricated = Fabricated::new();
        let execute = [(0, Output::Execute(fabricated.execution(1, 2)))];
        assert!(violation_of(&mut checker(&fabricated, 3), &execute).is_some());
    }

    #[test]
    fn a_request_that_the_committed_batch_does_not_hold_is_found() {
        let fabricated = Fabricated::new();
        let mut checker = checker(&fabricated, 3);
        show(&mut checker, &Observation::Signed(&fabricated.request(2).request)).expect("a client may sign");
        assert!(violation_of(&mut checker, &[(0, Output::Execute(fabricated.execution(1, 2)))]).is_some());
    }
}
