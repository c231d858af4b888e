//! Votes to accept a batch, and the prepared certificate. (PROTOCOL §4.3, §4.4)

use alloc::vec::Vec;

use super::participation::remember;
use super::{Mode, Replica};
use crate::evidence::Evidence;
use crate::message::Message;
use crate::number::{ReplicaId, Sequence};
use crate::output::Suspicion;
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
        self.note_unshown(vote.statement.sequence);
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
        remember(&mut self.peers[vote.voter.index()].last_prepare, vote);
        let slot = self.log.entry(sequence);
        let is_against_own = slot.cast.as_ref().is_some_and(|own| contradicts(&own.statement, &vote.statement));
        let counted = slot.prepares.insert(vote);
        self.note_counted(&counted, vote, Evidence::ConflictingPrepares);
        if is_against_own && vote.statement.view == self.view {
            self.note_vote_against_own(vote.voter);
        }
        self.show_conflicts(&vote);
        self.try_prepare(sequence);
    }

    /// Whether this vote is held.
    pub(super) fn is_counted(&self, vote: &Vote<Prepare>) -> bool {
        let held = self.log.slot(vote.statement.sequence).and_then(|slot| slot.prepares.of(vote.voter));
        held.is_some_and(|held| held.statement == vote.statement)
    }

    /// A member votes for another batch than this replica did. This replica voted only for what the primary of the view had
    /// signed, though it may have seen that by others' votes: if that is who it is, it contradicts itself, even if what it signed
    /// was lost in a crash and can't be shown. (PROTOCOL §4.3)
    fn note_vote_against_own(&mut self, voter: ReplicaId) {
        assert!(voter != self.id, "this replica never contradicts itself");
        if self.mode == Mode::Normal && voter == self.primary() {
            self.suspect(Suspicion::Proof);
        }
    }

    /// Where votes differ, the primary may have signed several: each who voted otherwise is shown, once a view, what it signed
    /// here. Of a correct pair that was told two things at least one then holds the proof.
    fn show_conflicts(&mut self, counted: &Vote<Prepare>) {
        let primary = self.primary();
        if primary == self.id {
            return;
        }
        let Some(slot) = self.log.slot(counted.statement.sequence) else { return };
        let Some(signed) = slot.prepares.of(primary).filter(|signed| signed.statement.view == self.view).copied()
        else {
            return;
        };
        let differs = |voter: &ReplicaId| {
            let vote = slot.prepares.of(*voter).filter(|_| *voter != self.id);
            vote.is_some_and(|vote| contradicts(&vote.statement, &signed.statement))
        };
        let to: Vec<ReplicaId> = if counted.voter == primary {
            self.configuration.replicas().filter(differs).collect()
        } else {
            [counted.voter].into_iter().filter(differs).collect()
        };
        for to in to {
            if self.peers[to.index()].shown < Some(self.view) {
                self.peers[to.index()].shown = Some(self.view);
                self.send(to, Message::Conflict(signed));
            }
        }
    }

    /// The vote that is held here of who cast `vote`, and that no correct replica casts beside it.
    pub(super) fn held_against(&self, vote: &Vote<Prepare>) -> Option<Vote<Prepare>> {
        let held = self.log.slot(vote.statement.sequence)?.prepares.of(vote.voter)?;
        (vote.voter != self.id && contradicts(&held.statement, &vote.statement)).then_some(*held)
    }

    /// A peer shows what somebody signed. It counts for nothing but as a proof.
    pub(super) fn on_conflict(&mut self, vote: Vote<Prepare>) {
        match self.held_against(&vote) {
            Some(held) => self.keep_evidence(Evidence::ConflictingPrepares(held, vote)),
            None => self.refuse(Refusal::Unasked),
        }
    }

    /// With a prepared certificate of its view, a replica makes the certificate durable, then commits.
    pub(super) fn try_prepare(&mut self, sequence: Sequence) {
        if self.mode != Mode::Normal || !self.log.is_within_watermarks(sequence) || !self.may_vote() {
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

/// Whether the two are about the same slot in the same view, and name different batches.
fn contradicts(left: &Prepare, right: &Prepare) -> bool {
    (left.epoch, left.view, left.sequence) == (right.epoch, right.view, right.sequence) && left.digest != right.digest
}
