//! Proposals, and a replica's own vote for one. (PROTOCOL §4.3)

use super::{Mode, Replica};
use crate::batch::Batch;
use crate::evidence::Evidence;
use crate::message::Message;
use crate::number::Sequence;
use crate::output::{Output, Suspicion};
use crate::record::Record;
use crate::refusal::Refusal;
use crate::slot::Logged;
use crate::statement::{Prepare, Vote};

/// Proposals kept of a member for a view that this replica has yet to enter: as many as a pipeline holds by default.
const EARLY_MAX: usize = 8;

impl Replica {
    pub(super) fn on_pre_prepare(&mut self, vote: Vote<Prepare>, batch: Batch) {
        assert!(vote.statement.digest == batch.digest(), "verification compared the digests");
        if let Some(refusal) = self.refuse_pre_prepare(&vote, &batch) {
            self.refuse(refusal);
            if refusal == Refusal::FutureView {
                self.keep_early(vote, batch);
            } else if matches!(refusal, Refusal::Conflict | Refusal::ProposedByNewView) {
                // Two votes that are signed catch the primary. (PROTOCOL §4.3)
                self.count_prepare(vote);
            } else if refusal == Refusal::Duplicate && !self.is_counted(&vote) {
                // Its batch was here before it.
                self.count_prepare(vote);
            } else if matches!(refusal, Refusal::LogFull | Refusal::NotVoting) {
                self.note_proposal(vote, batch);
            } else if refusal == Refusal::Clock {
                // Others may find it near, and then it need not be fetched.
                self.log.entry(vote.statement.sequence).add_batch(batch, Logged::No);
                self.try_execute();
            }
            return;
        }
        let Prepare { view, sequence, .. } = vote.statement;
        assert!(self.mode == Mode::Normal && view == self.view);
        assert!(self.log.is_within_watermarks(sequence));
        self.suspicion.last_proposal = self.now.monotonic;
        self.count_prepare(vote);
        // The primary may have voted for another batch before: then it is caught, and may not choose any more.
        let counted = self.log.slot(sequence).and_then(|slot| slot.prepares.of(vote.voter));
        let is_first = counted.is_some_and(|counted| counted.statement == vote.statement);
        if is_first && self.mode == Mode::Normal {
            if self.log.slot(sequence).is_some_and(|slot| slot.awaited.is_some()) {
                self.note_in_time(sequence);
            }
            self.note_pace_of_proposal(sequence, &batch);
            self.accept(vote.statement, batch);
        }
        // The slot may have been decided before its batch came.
        self.try_execute();
    }

    fn refuse_pre_prepare(&self, vote: &Vote<Prepare>, batch: &Batch) -> Option<Refusal> {
        let Prepare { view, sequence, digest, .. } = vote.statement;
        if view > self.view {
            return Some(Refusal::FutureView);
        }
        if view < self.view || self.mode != Mode::Normal {
            return Some(Refusal::OldView);
        }
        if vote.voter != self.primary() || vote.voter == self.id {
            return Some(Refusal::NotThePrimary);
        }
        if !self.log.is_within_watermarks(sequence) {
            return Some(Refusal::OutsideWatermarks);
        }
        if sequence <= self.proposer.new_view_max {
            return Some(Refusal::ProposedByNewView);
        }
        let cast = self.log.slot(sequence).and_then(|slot| slot.cast.as_ref());
        if let Some(cast) = cast.filter(|cast| cast.statement.view == view) {
            return Some(if cast.statement.digest == digest { Refusal::Duplicate } else { Refusal::Conflict });
        }
        if !self.is_stamp_near(batch) {
            return Some(Refusal::Clock);
        }
        if self.is_log_full() {
            return Some(Refusal::LogFull);
        }
        (!self.may_vote()).then_some(Refusal::NotVoting)
    }

    /// Whether a batch is stamped near enough to this replica's clock.
    pub(super) fn is_stamp_near(&self, batch: &Batch) -> bool {
        batch.is_empty() || batch.stamp().distance(self.now.wall) <= self.parameters().clock_bound()
    }

    /// The primary did its part, though this replica can't: the batch is here should the others decide it.
    fn note_proposal(&mut self, vote: Vote<Prepare>, batch: Batch) {
        self.suspicion.last_proposal = self.now.monotonic;
        self.log.entry(vote.statement.sequence).add_batch(batch, Logged::No);
        self.count_prepare(vote);
        self.try_execute();
    }

    /// Votes for `batch`, whose bytes are here, in its slot.
    pub(super) fn accept(&mut self, statement: Prepare, batch: Batch) {
        let vote = self.sign(statement);
        self.cast(vote, Some(batch), Message::Prepare(vote));
    }

    /// Casts this replica's own vote: recorded first, sent in `message` once it is durable, counted then.
    pub(super) fn cast(&mut self, vote: Vote<Prepare>, batch: Option<Batch>, message: Message) {
        let Prepare { view, sequence, digest, .. } = vote.statement;
        assert!(self.mode == Mode::Normal && view == self.view, "no vote is cast outside the view");
        assert!(self.log.is_within_watermarks(sequence));
        let slot = self.log.entry(sequence);
        assert!(slot.cast_view().is_none_or(|cast| cast < view), "one vote a slot and view");
        if let Some(batch) = &batch {
            slot.add_batch(batch.clone(), Logged::No);
        }
        slot.cast = Some(vote);
        slot.awaited = None;
        self.catching_up.unshown.note_cast(sequence);
        let to_log = (!slot.is_logged(&digest)).then(|| slot.batch(&digest).cloned()).flatten();
        if let Some(batch) = &to_log {
            slot.add_batch(batch.clone(), Logged::Yes);
        }
        assert!(slot.batch(&digest).is_some(), "no vote without the batch: a slot could be wedged");
        let number = self.outbox.send_after(Record::Accepted(vote, to_log), message);
        self.note_record(sequence, number);
    }

    /// Remembers where the records of a slot begin, so that the log is not cut above it.
    pub(super) fn note_record(&mut self, sequence: Sequence, number: crate::number::RecordNumber) {
        self.first_records.entry(sequence).or_insert(number);
    }

    /// Proposals of the next view may come before the new view has been checked: losing them would cost a heartbeat.
    fn keep_early(&mut self, vote: Vote<Prepare>, batch: Batch) {
        if !self.log.is_within_watermarks(vote.statement.sequence) {
            return;
        }
        let early = &mut self.view_changes.early[vote.voter.index()];
        early.retain(|(held, _)| held.statement.view >= vote.statement.view);
        if early.len() < EARLY_MAX && early.iter().all(|(held, _)| held.statement.sequence != vote.statement.sequence) {
            early.push_back((vote, batch));
        }
    }

    /// Takes up what was proposed for this view before it was entered.
    pub(super) fn replay_early(&mut self) {
        let primary = self.primary();
        let early = core::mem::take(&mut self.view_changes.early[primary.index()]);
        for (vote, batch) in early {
            if vote.statement.view == self.view {
                self.on_pre_prepare(vote, batch);
            }
        }
    }

    pub(super) fn keep_evidence(&mut self, evidence: Evidence) {
        let accused = evidence.accused();
        self.outbox.push(Output::Evidence(evidence.into()));
        if self.mode == Mode::Normal && accused == self.primary() {
            self.suspect(Suspicion::Proof);
        }
    }

    /// Verification found a batch that its primary should not have signed.
    pub(super) fn on_misbehaviour(&mut self, evidence: Evidence) {
        self.keep_evidence(evidence);
    }
}
