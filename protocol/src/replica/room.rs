//! A log without room. (PROTOCOL §9)
//!
//! What is appended then waits in memory until there is room, and what waits must be bounded. So nothing is appended, and
//! nothing promised: no vote, no view change, no new view. What others decide is executed and not recorded. The one
//! exception is what a cut says again, since only a cut gives room, or the operator; and no cut follows before that is
//! durable.

use alloc::vec::Vec;

use super::Replica;
use crate::number::Sequence;
use crate::record::Record;

impl Replica {
    pub(super) fn on_log_full(&mut self) {
        self.is_log_full = true;
    }

    /// There is room again: what was left undone is done.
    pub(super) fn on_log_has_room(&mut self) {
        if !self.is_log_full {
            return;
        }
        self.is_log_full = false;
        // Before any vote: without the certificate a start would take a vote for one above the watermarks and forget it.
        if let Some(stable) = self.log.stable().cloned() {
            self.outbox.append(Record::Stable(stable));
        }
        self.try_join();
        self.try_leave();
        self.try_complete_all();
        self.try_new_view();
        let slots: Vec<Sequence> = self.log.slots_after(self.log.low()).map(|(sequence, _)| sequence).collect();
        for sequence in slots {
            self.vote_for_awaited(sequence);
            self.try_prepare(sequence);
        }
    }
}
