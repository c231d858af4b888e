//! Commits, and the decision of a slot. (PROTOCOL §4.5)

use super::Replica;
use super::participation::remember;
use crate::batch::Batch;
use crate::certificate::CommittedCertificate;
use crate::evidence::Evidence;
use crate::number::{ReplicaId, Sequence};
use crate::record::Record;
use crate::refusal::Refusal;
use crate::slot::Logged;
use crate::statement::{Commit, Vote};

impl Replica {
    /// Counts while this replica waits for a new view, too, and so does a decided slot. (PROTOCOL §7.6)
    pub(super) fn on_commit(&mut self, vote: Vote<Commit>) {
        if !self.is_tracked(vote.statement.sequence) {
            return self.refuse(Refusal::OutsideWatermarks);
        }
        assert!(vote.voter != self.id);
        self.count_commit(vote);
    }

    /// Counts a vote, this replica's own included. The view of the certificate does not matter, only that it is one.
    pub(super) fn count_commit(&mut self, vote: Vote<Commit>) {
        let sequence = vote.statement.sequence;
        if !self.is_tracked(sequence) {
            return;
        }
        let quorum = self.configuration.quorum();
        remember(&mut self.peers[vote.voter.index()].last_commit, vote);
        let slot = self.log.entry(sequence);
        let counted = slot.commits.insert(vote);
        let certificate = match slot.committed {
            Some(_) => None,
            None => slot.commits.certificate(quorum, |_| true),
        };
        self.note_counted(&counted, vote, Evidence::ConflictingCommits);
        if let Some(certificate) = certificate {
            self.decide(certificate, None);
        }
    }

    /// A decided slot that a peer handed out.
    pub(super) fn on_decided(&mut self, certificate: CommittedCertificate, batch: Batch) {
        let sequence = certificate.statement.sequence;
        if !self.is_tracked(sequence) || sequence <= self.execution.issued {
            return self.refuse(Refusal::OutsideWatermarks);
        }
        assert!(certificate.statement.digest == batch.digest(), "verification compared the digests");
        self.decide(certificate, Some(batch));
        self.continue_catching_up();
    }

    /// The slot is decided.
    fn decide(&mut self, certificate: CommittedCertificate, batch: Option<Batch>) {
        let Commit { sequence, digest, .. } = certificate.statement;
        let is_log_full = self.is_log_full();
        let slot = self.log.entry(sequence);
        if let Some(decided) = slot.decided() {
            assert!(decided == digest, "two quorums decided differently: more than f replicas are faulty");
        }
        if let Some(batch) = batch {
            slot.add_batch(batch, Logged::No);
        }
        let is_new = slot.committed.is_none();
        if is_new {
            slot.decide(certificate.clone());
        }
        let unlogged = slot.decided_batch().filter(|batch| !slot.is_logged(&batch.digest())).cloned();
        let record = match unlogged {
            _ if is_log_full => None,
            Some(batch) => {
                slot.add_batch(batch.clone(), Logged::Yes);
                Some(Record::Learned(certificate, batch))
            }
            None => is_new.then_some(Record::Committed(certificate)),
        };
        if let Some(record) = record {
            let number = self.outbox.append(record);
            self.note_record(sequence, number);
        }
        self.proposer.in_flight.remove(&sequence);
        self.try_execute();
    }

    /// A batch that was asked for: for a slot that is decided, that a new view proposes, or that others vote for.
    pub(super) fn on_batch(&mut self, from: ReplicaId, sequence: Sequence, batch: Batch) {
        let missing = self.log.slot(sequence).and_then(crate::slot::Slot::missing_batch);
        if missing != Some(batch.digest()) {
            return self.refuse(Refusal::Unasked);
        }
        self.note_batch_of(from, sequence);
        self.take_batch(sequence, batch);
    }

    /// Keeps a batch that is needed, and does what waited for it.
    pub(super) fn take_batch(&mut self, sequence: Sequence, batch: Batch) {
        let slot = self.log.entry(sequence);
        let decided = slot.committed.clone().filter(|certificate| certificate.statement.digest == batch.digest());
        let is_awaited = slot.awaited == Some(batch.digest());
        slot.add_batch(batch.clone(), Logged::No);
        if is_awaited {
            self.take_awaited(sequence);
        }
        if let Some(certificate) = decided {
            self.decide(certificate, Some(batch));
        }
    }
}
