//! Proposals that others vote for and this replica was not shown. (PROTOCOL §4.3; Amir et al., Prime, TDSC 2011, where whoever
//! gets a proposal hands it on)
//!
//! A primary that shows f backups its proposals late, and keeps its own votes back, has all others wait for those f. So whoever
//! holds the votes of a weak quorum for a batch asks one of them for it, and votes: one of them is correct, and was shown the
//! proposal by the primary, or holds such votes itself.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use quorate_crypto::Digest;

use super::{Mode, Replica};
use crate::number::{ReplicaId, Sequence};
use crate::slot::Slot;
use crate::time::Time;

/// A proposal may be later than others' votes for it by this part of a heartbeat: over links that differ it often is. And an answer
/// is quick within that.
const PATIENCE_PART: u32 = 4;

/// So many are asked for at once after one that a voter handed out before the primary showed it. Then one is waited for again, or
/// over links that differ each would come twice for ever.
const AT_ONCE: u8 = 64;

/// One that the primary shows before the answer comes counts for so many of them.
const IN_TIME: u8 = 8;

/// What others vote for and this replica was not shown.
#[derive(Debug, Clone, Hash, Default)]
pub(super) struct Unshown {
    /// The slots, and since when enough have voted. Bound: a window.
    since: BTreeMap<Sequence, Time>,
    /// How many more are asked for at once.
    at_once: u8,
    /// The last slot in which the primary had its time and was later.
    late: Option<Sequence>,
    /// Who is asked first for a batch, if it voted for it.
    source: Option<ReplicaId>,
}

/// A batch was asked for.
#[derive(Debug, Clone, Copy, Hash)]
pub(super) struct Asked {
    /// When it was asked for last, and of whom.
    pub(super) at: Time,
    pub(super) of: ReplicaId,
    /// How often it was.
    pub(super) times: usize,
}

impl Unshown {
    /// This replica votes in a slot.
    pub(super) fn note_cast(&mut self, sequence: Sequence) {
        self.since.remove(&sequence);
    }
}

impl Replica {
    /// Notes a slot if enough have voted for what this replica was not shown.
    pub(super) fn note_unshown(&mut self, sequence: Sequence) {
        if self.log.slot(sequence).and_then(|slot| self.voted_unshown(slot)).is_none() {
            return;
        }
        self.catching_up.unshown.since.entry(sequence).or_insert(self.now.monotonic);
        if self.catching_up.unshown.at_once > 0 {
            self.fetch_unshown();
        }
    }

    fn unshown_patience(&self) -> Duration {
        match self.catching_up.unshown.at_once {
            0 => self.quick_answer(),
            _ => Duration::ZERO,
        }
    }

    fn quick_answer(&self) -> Duration {
        self.parameters().heartbeat() / PATIENCE_PART
    }

    /// When a proposal is late.
    pub(super) fn unshown_due(&self) -> Option<Time> {
        let since = self.catching_up.unshown.since.values().min()?;
        Some(since.after(self.unshown_patience()))
    }

    fn fetch_unshown(&mut self) {
        self.await_unshown();
        self.fetch_batches();
    }

    /// Awaits the batches of proposals that are late: they are fetched.
    pub(super) fn await_unshown(&mut self) {
        for sequence in self.awaiting_slots() {
            // One that is here was stamped too far from the clock, which may have come near since.
            self.vote_for_awaited(sequence);
        }
        let now = self.now.monotonic;
        let since = core::mem::take(&mut self.catching_up.unshown.since);
        for (sequence, since) in since {
            let patience = self.unshown_patience();
            let Some(digest) = self.log.slot(sequence).and_then(|slot| self.voted_unshown(slot)) else { continue };
            if now.since(since) < patience {
                self.catching_up.unshown.since.insert(sequence, since);
                continue;
            }
            self.log.entry(sequence).awaited = Some(digest);
            self.suspicion.last_proposal = now;
            let unshown = &mut self.catching_up.unshown;
            match unshown.at_once.checked_sub(1) {
                Some(left) => unshown.at_once = left,
                None => unshown.late = Some(sequence),
            }
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

    /// The batch of a slot that is awaited came.
    pub(super) fn take_awaited(&mut self, sequence: Sequence) {
        self.vote_for_awaited(sequence);
        if self.catching_up.unshown.late == Some(sequence) {
            self.catching_up.unshown.late = None;
            self.catching_up.unshown.at_once = AT_ONCE;
            self.fetch_unshown();
        }
    }

    /// A batch came that was asked for. Who is quick is asked first the next time; behind who is not the next one is, or an
    /// accomplice of the primary could be as late with every answer as it may.
    pub(super) fn note_batch_of(&mut self, from: ReplicaId, sequence: Sequence) {
        let Some(asked) = self.catching_up.batches_asked.remove(&sequence) else { return };
        let is_quick = asked.of == from && self.now.monotonic.since(asked.at) <= self.quick_answer();
        if is_quick {
            self.catching_up.unshown.source = Some(from);
        } else if asked.of == from || self.catching_up.unshown.source == Some(from) {
            self.catching_up.unshown.source = self.others().after(from).next();
        }
    }

    /// The primary showed what was asked for. Who was asked for it in vain for long is not asked first again, and who was asked after
    /// that one is: or an accomplice of the primary could keep silent until just before another one is asked.
    pub(super) fn note_in_time(&mut self, sequence: Sequence) {
        self.catching_up.unshown.at_once = self.catching_up.unshown.at_once.saturating_sub(IN_TIME);
        let Some(asked) = self.catching_up.batches_asked.remove(&sequence) else { return };
        if self.now.monotonic.since(asked.at) > self.quick_answer() {
            self.catching_up.unshown.source = self.others().after(asked.of).next();
        } else if asked.times > 1 {
            self.catching_up.unshown.source = Some(asked.of);
        }
    }

    /// Whom to ask for a batch after so many others: who voted for it, the source of the last one first or who follows it; then
    /// the primary, which may be who keeps it back, and who is not known to have it.
    pub(super) fn source_of(&self, sequence: Sequence, digest: &Digest, times: usize) -> ReplicaId {
        let primary = self.primary();
        let prepares = self.log.slot(sequence).map(|slot| &slot.prepares);
        let has_voted = |id: &ReplicaId| {
            let vote = prepares.and_then(|prepares| prepares.of(*id));
            *id != primary && vote.is_some_and(|vote| vote.statement.digest == *digest)
        };
        // Not all ask the same one.
        let first = self.catching_up.unshown.source.unwrap_or(self.id);
        let voters = self.others().beginning_at(first).filter(has_voted);
        let rest = self.others().beginning_at(primary).filter(|id| !has_voted(id));
        let others = self.configuration.size() - 1;
        voters.chain(rest).nth(times % others).expect("each other member once")
    }

    /// The view in which something was awaited is over.
    pub(super) fn forget_awaited(&mut self) {
        self.catching_up.unshown.since.clear();
        self.catching_up.unshown.at_once = 0;
        self.catching_up.unshown.late = None;
        self.catching_up.batches_asked.clear();
        for sequence in self.awaiting_slots() {
            self.log.entry(sequence).awaited = None;
        }
    }

    fn awaiting_slots(&self) -> Vec<Sequence> {
        let awaiting = self.log.slots_after(self.log.low()).filter(|(_, slot)| slot.awaited.is_some());
        awaiting.map(|(sequence, _)| sequence).collect()
    }
}
