//! Proposals that others vote for and this replica was not shown. (PROTOCOL §4.3; Amir et al., Prime, TDSC 2011, where whoever
//! gets a proposal hands it on)
//!
//! A primary that shows f backups its proposals late, and keeps its own votes back, has all others wait for those f. So whoever
//! holds the votes of a weak quorum for a batch asks one of them for it, and votes: one of them is correct, and found the
//! proposal right.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use quorate_crypto::Digest;

use super::{Mode, Replica};
use crate::batch::Batch;
use crate::number::{ReplicaId, Sequence};
use crate::slot::Slot;
use crate::statement::Prepare;
use crate::time::Time;

/// A proposal may be later than others' votes for it by this part of a heartbeat: over links that differ it often is.
const PATIENCE_PART: u32 = 4;

/// What others vote for and this replica was not shown.
#[derive(Debug, Clone, Hash, Default)]
pub(super) struct Unshown {
    /// The slots, and since when enough have voted. Bound: a window.
    since: BTreeMap<Sequence, Time>,
    /// Whether a voter was faster than the primary with the last one that it was asked for: then it is asked at once.
    is_expected: bool,
    /// Who is asked first for a batch, if it voted for it.
    source: Option<ReplicaId>,
}

impl Unshown {
    /// This replica votes in a slot.
    pub(super) fn note_cast(&mut self, sequence: Sequence) {
        self.since.remove(&sequence);
    }

    /// The primary showed a proposal while a voter was asked for it.
    pub(super) const fn note_in_time(&mut self) {
        self.is_expected = false;
    }
}

impl Replica {
    /// A vote was counted: maybe enough have voted now for what this replica was not shown.
    pub(super) fn note_unshown(&mut self, statement: &Prepare) {
        let sequence = statement.sequence;
        if self.log.slot(sequence).and_then(|slot| self.voted_unshown(slot)) != Some(statement.digest) {
            return;
        }
        self.catching_up.unshown.since.entry(sequence).or_insert(self.now.monotonic);
        if self.catching_up.unshown.is_expected {
            self.await_unshown();
            self.fetch_batches();
        }
    }

    fn unshown_patience(&self) -> Duration {
        if self.catching_up.unshown.is_expected {
            Duration::ZERO
        } else {
            self.parameters().heartbeat() / PATIENCE_PART
        }
    }

    /// When a proposal is late.
    pub(super) fn unshown_due(&self) -> Option<Time> {
        let since = self.catching_up.unshown.since.values().min()?;
        Some(since.after(self.unshown_patience()))
    }

    /// Awaits the batches of proposals that are late: they are fetched.
    pub(super) fn await_unshown(&mut self) {
        let (now, patience) = (self.now.monotonic, self.unshown_patience());
        let since = core::mem::take(&mut self.catching_up.unshown.since);
        for (sequence, since) in since {
            let Some(digest) = self.log.slot(sequence).and_then(|slot| self.voted_unshown(slot)) else { continue };
            if now.since(since) < patience {
                self.catching_up.unshown.since.insert(sequence, since);
                continue;
            }
            self.log.entry(sequence).awaited = Some(digest);
            self.suspicion.last_proposal = now;
            // It may be here: it came when this replica could not vote.
            self.vote_for_awaited(sequence);
        }
    }

    /// What enough vote for in a slot in which this replica did not, in its view.
    fn voted_unshown(&self, slot: &Slot) -> Option<Digest> {
        let is_backup = self.mode == Mode::Normal && !self.is_primary() && self.is_voter();
        if !is_backup || slot.cast_view() == Some(self.view) || slot.awaited.is_some() {
            return None;
        }
        let certificate =
            slot.prepares.certificate(self.configuration.weak_quorum(), |statement| statement.view == self.view)?;
        Some(certificate.statement.digest)
    }

    /// Takes the batch of a slot that is awaited.
    pub(super) fn take_awaited(&mut self, sequence: Sequence, batch: &Batch) {
        // What the new view itself proposes was chosen by nobody.
        if sequence > self.proposer.new_view_max {
            self.catching_up.unshown.is_expected = true;
            self.note_pace_of_proposal(sequence, batch);
        }
        self.vote_for_awaited(sequence);
    }

    /// A batch came that was asked for. Who was quick is asked again; behind who was not the next one is, or an accomplice of the
    /// primary could be as late with every answer as it may.
    pub(super) fn note_batch_of(&mut self, from: ReplicaId, sequence: Sequence) {
        let asked = self.catching_up.batches_asked.remove(&sequence);
        let quick = self.parameters().heartbeat() / PATIENCE_PART;
        let is_quick = asked.is_some_and(|(at, _)| self.now.monotonic.since(at) <= quick);
        self.catching_up.unshown.source = if is_quick { Some(from) } else { self.others().after(from).next() };
    }

    /// Whom to ask first for a batch: who voted for it, and of those the source of the last one or who follows it. The primary is
    /// asked where nobody else is known to have it.
    pub(super) fn source_of(&self, sequence: Sequence, digest: &Digest) -> ReplicaId {
        let primary = self.primary();
        let slot = self.log.slot(sequence);
        let has_voted = |id: &ReplicaId| {
            let vote = slot.and_then(|slot| slot.prepares.of(*id));
            *id != primary && vote.is_some_and(|vote| vote.statement.digest == *digest)
        };
        let first = self.catching_up.unshown.source.unwrap_or(primary);
        (0..self.configuration.size())
            .map(|passed| self.others().turn(first, passed))
            .find(has_voted)
            .unwrap_or(primary)
    }

    /// The view in which something was awaited is over.
    pub(super) fn forget_awaited(&mut self) {
        self.catching_up.unshown.since.clear();
        self.catching_up.unshown.is_expected = false;
        let slots: Vec<Sequence> = self.log.slots_after(self.log.low()).map(|(sequence, _)| sequence).collect();
        for sequence in slots {
            self.log.entry(sequence).awaited = None;
        }
    }
}
