//! When this replica may answer a read that nobody ordered, from the state that it has executed. (PROTOCOL §8, fast reads)
//!
//! A client takes what a quorum answers alike, and a write counts for its client once a quorum executed it: so a correct
//! replica among those that answer a read has executed every write that ended before. That holds as long as no correct
//! replica answers from a state older than one that it has answered from. A start can take it back to such a state, since
//! what was executed is not synced. But whatever it executed was prepared by a quorum, which remembers: so it answers reads
//! again once it has executed all that a quorum, itself among it, has executed or prepared by then.

use alloc::vec;
use alloc::vec::Vec;

use super::Replica;
use crate::number::{Epoch, ReplicaId, Sequence};

/// From which slot on this replica may answer reads.
#[derive(Debug, Clone, Hash)]
pub(super) struct Reads {
    /// How far each member said that it came, since this replica asked. Bound: one a member.
    reached: Vec<Option<Sequence>>,
    /// How far it had come itself when enough had told.
    own: Option<Sequence>,
    /// A slot such that this replica answers again once it has executed it; none while too few have told.
    from: Option<Sequence>,
    /// The highest slot that it executed in this life, where another state took the place of one that went astray.
    left: Sequence,
}

impl Reads {
    pub(super) fn new(members: usize) -> Self {
        Self { reached: vec![None; members], own: None, from: None, left: Sequence::ZERO }
    }
}

impl Replica {
    /// The epoch in which it may answer reads from its executed state; none if it may not.
    pub fn reads_in(&self) -> Option<Epoch> {
        let (state, epoch) = (&self.execution, self.configuration.epoch());
        let is_up_to_date = |from: Sequence| state.executed >= from.max(self.reads.left);
        let may_read = self.configuration.parameters().fast_reads
            && self.is_voter()
            && state.membership.epoch() == epoch
            && !state.is_diverged
            && self.catching_up.transfer.is_none()
            && self.reads.from.is_some_and(is_up_to_date);
        may_read.then_some(epoch)
    }

    /// How far it came: what it may have answered from after its next start lies no higher, and a quorum knows.
    pub(super) fn reached(&self) -> Sequence {
        let prepared = self.log.slots_after(self.log.low()).filter(|(_, slot)| slot.prepared.is_some());
        let highest = prepared.map(|(sequence, _)| sequence).max().unwrap_or_default();
        highest.max(self.execution.executed).max(self.log.low())
    }

    /// Whether a member's account of how far it came may still matter.
    pub(super) fn lacks_reached(&self, from: ReplicaId) -> bool {
        let is_known = self.reads.reached.get(from.index()).is_none_or(Option::is_some);
        self.configuration.parameters().fast_reads && !self.is_read_from() && !is_known
    }

    /// Whether it has executed all that it was to before it answers.
    fn is_read_from(&self) -> bool {
        self.reads.from.is_some_and(|from| self.execution.executed >= from)
    }

    pub(super) fn note_reached(&mut self, from: ReplicaId, reached: Sequence) {
        if let Some(known) = self.reads.reached.get_mut(from.index()) {
            *known = Some(reached);
        }
        self.settle_reads();
    }

    /// Sees whether enough members have told how far they came. What lies beyond the window does not count until that has
    /// moved there: a liar could keep this replica from answering for ever. Who tells later may make it answer sooner.
    pub(super) fn settle_reads(&mut self) {
        if self.is_read_from() {
            return;
        }
        let highest = self.log.low().saturating_add(self.parameters().window);
        let told = self.reads.reached.iter().flatten().copied().filter(|reached| *reached <= highest);
        let mut told: Vec<Sequence> = told.collect();
        told.sort_unstable();
        // With itself they are a quorum: any will do.
        if let Some(reached) = told.get(self.configuration.quorum() - 2) {
            let own = self.reads.own.unwrap_or_else(|| self.reached());
            let from = own.max(*reached);
            self.reads.own = Some(own);
            self.reads.from = Some(self.reads.from.map_or(from, |known| known.min(from)));
        }
    }

    /// It asks anew what it has said, and how far others came.
    pub(super) fn forget_reached(&mut self) {
        let left = self.reads.left;
        self.reads = Reads { left, ..Reads::new(self.configuration.size()) };
    }

    /// A state takes the place of one that reaches as far as `executed`.
    pub(super) fn leave_state(&mut self, executed: Sequence) {
        self.reads.left = self.reads.left.max(executed);
    }
}
