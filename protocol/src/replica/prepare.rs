//! Votes to accept a batch, and the prepared certificate. (PROTOCOL §4.3, §4.4)

use super::{Mode, Replica};
use crate::evidence::Evidence;
use crate::message::Message;
use crate::number::Sequence;
use crate::record::Record;
use crate::refusal::Refusal;
use crate::statement::{Prepare, Vote};

impl Replica {
    pub(super) fn on_prepare(&mut self, vote: Vote<Prepare>) {
        if let Some(refusal) = self.refuse_prepare(&vote) {
            return self.refuse(refusal);
        }
        assert!(vote.voter != self.id);
        self.count_prepare(vote);
    }

    fn refuse_prepare(&self, vote: &Vote<Prepare>) -> Option<Refusal> {
        if !self.log.is_within_watermarks(vote.statement.sequence) {
            return Some(Refusal::OutsideWatermarks);
        }
        None
    }

    /// Counts a vote, this replica's own included, whatever path it came by.
    pub(super) fn count_prepare(&mut self, vote: Vote<Prepare>) {
        let sequence = vote.statement.sequence;
        if !self.log.is_within_watermarks(sequence) {
            return;
        }
        let counted = self.log.entry(sequence).prepares.insert(vote);
        self.note_counted(&counted, vote, Evidence::ConflictingPrepares);
        self.try_prepare(sequence);
    }

    /// With a prepared certificate of its view, a replica makes the certificate durable, then commits.
    pub(super) fn try_prepare(&mut self, sequence: Sequence) {
        if self.mode != Mode::Normal || !self.log.is_within_watermarks(sequence) || self.is_log_full() {
            return;
        }
        let (view, quorum) = (self.view, self.configuration.quorum());
        let Some(slot) = self.log.slot_mut(sequence) else { return };
        if slot.prepared_view() == Some(view) {
            return;
        }
        let Some(certificate) = slot.prepares.certificate(quorum, |statement| statement.view == view) else { return };
        // An equivocating primary may have had this replica vote for another batch: the certificate counts all the same.
        let statement = certificate.statement;
        slot.prepared = Some(certificate.clone());
        let commit = self.sign(statement.commit());
        self.log.entry(sequence).own_commit = Some(commit);
        let number = self.outbox.send_after(Record::Prepared(certificate, commit), Message::Commit(commit));
        self.note_record(sequence, number);
    }
}
