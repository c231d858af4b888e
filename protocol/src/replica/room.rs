//! A log without room, or one that is too slow. (PROTOCOL §9)
//!
//! What is appended then waits in memory until there is room, and what waits must be bounded. So nothing is appended, and
//! nothing promised: no vote, no view change, no new view. What others decide is executed and not recorded. The one
//! exception is what a cut says again, since only a cut gives room, or the operator; and no cut follows before that is
//! durable.

use alloc::vec::Vec;

use super::Replica;
use crate::number::{Sequence, View};
use crate::outbox::Backlog;
use crate::output::Suspicion;
use crate::record::Record;

/// Most records that wait to be durable, for each slot of the window: what a view makes of a slot, and a view change more.
const BACKLOG_SLOT_MAX: u64 = 4;

/// Most bytes of batches in them.
const BACKLOG_BYTES_MAX: usize = 64 << 20;

/// Why the log has no room, if so.
#[derive(Debug, Clone, Copy, Default, Hash)]
pub(super) struct Shortage {
    /// The disk, or the log's share of it, is full.
    of_disk: bool,
    /// Too much waits to be durable, since the disk is slower than the others' or does nothing.
    of_time: bool,
}

impl Replica {
    /// Whether nothing more is to be appended than must be.
    pub(super) fn is_log_full(&self) -> bool {
        self.shortage.of_disk || self.shortage.of_time
    }

    pub(super) fn on_log_full(&mut self) {
        self.shortage.of_disk = true;
    }

    pub(super) fn on_log_has_room(&mut self) {
        if core::mem::take(&mut self.shortage.of_disk) {
            self.catch_up_with_log();
        }
    }

    /// Waits for the disk where too much is on its way there, until half of that is durable.
    pub(super) fn watch_backlog(&mut self) {
        let records_max = BACKLOG_SLOT_MAX * self.parameters().window;
        let Backlog { records, bytes } = self.outbox.backlog();
        if records > records_max || bytes > BACKLOG_BYTES_MAX {
            self.shortage.of_time = true;
        } else if self.shortage.of_time && records <= records_max / 2 && bytes <= BACKLOG_BYTES_MAX / 2 {
            self.shortage.of_time = false;
            self.catch_up_with_log();
        }
    }

    /// There is room again: what was left undone is done.
    fn catch_up_with_log(&mut self) {
        if self.is_log_full() {
            return;
        }
        // Before any vote: without the certificate a start would take a vote for one above the watermarks and forget it.
        if let Some(stable) = self.log.stable().cloned() {
            self.outbox.append(Record::Stable(stable));
        }
        self.catch_up_with_votes();
    }

    /// Votes are cast again, or for the first time: what was left undone is done.
    pub(super) fn catch_up_with_votes(&mut self) {
        if let Some(next) = self.view_changes.forsaken.and_then(View::next) {
            self.start_view_change(next, Suspicion::Restart);
        }
        // What waited for this replica, and not for the primary.
        self.queue.forget_copies();
        self.try_enter_epoch();
        self.try_join();
        self.try_leave();
        self.try_complete_all();
        self.try_new_view();
        let checkpoints: Vec<Sequence> = self.checkpoints.own.keys().copied().collect();
        for sequence in checkpoints {
            self.try_vote_checkpoint(sequence);
        }
        let slots: Vec<Sequence> = self.log.slots_after(self.log.low()).map(|(sequence, _)| sequence).collect();
        for sequence in slots {
            self.vote_for_awaited(sequence);
            self.try_prepare(sequence);
            self.note_unshown(sequence);
        }
    }
}
