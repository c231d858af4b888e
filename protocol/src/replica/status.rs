//! What a replica has and lacks, told to all at every heartbeat: failure detector, acknowledgement and request for
//! retransmission in one. (PROTOCOL §9)

use alloc::vec::Vec;

use super::Replica;
use crate::codec::List;
use crate::message::{Message, Progress, Status};
use crate::number::{ReplicaId, Sequence};
use crate::output::Output;
use crate::time::Time;

impl Replica {
    /// When the next status is due.
    pub(super) fn status_due(&self) -> Time {
        self.catching_up.last_status.map_or(Time::ZERO, |last| last.after(self.parameters().heartbeat()))
    }

    /// The next status is due at once: it has news.
    pub(super) fn hurry_status(&mut self) {
        self.catching_up.last_status = None;
    }

    pub(super) fn send_status(&mut self) {
        self.catching_up.last_status = Some(self.now.monotonic);
        self.reconsider_suspicion();
        self.pass_on_late();
        self.seek_to_vote();
        self.renew_budgets();
        let status = self.status();
        self.outbox.push(Output::Broadcast(Message::Status(status)));
        self.try_catch_up();
    }

    pub(super) fn status(&self) -> Status {
        let executed = self.execution.executed;
        let wanted = self.wanted_view();
        let asks = |id: &ReplicaId| {
            let latest = self.view_changes.latest[id.index()].as_ref();
            latest.is_some_and(|view_change| view_change.content.view >= wanted)
        };
        let own = self.highest_own_checkpoint();
        let votes = |id: &ReplicaId| {
            let votes = &self.checkpoints.votes[id.index()];
            own.is_some_and(|own| votes.iter().any(|vote| vote.statement.sequence == own))
        };
        Status {
            epoch: self.configuration.epoch(),
            view: wanted,
            entered: wanted == self.view,
            suspects: self.suspicion.of_primary.is_some(),
            stable: self.log.low(),
            executed,
            decided_from: self.log.decided_from(executed),
            view_changes: bits(self.configuration.replicas().filter(asks)),
            checkpoint_votes: bits(self.configuration.replicas().filter(votes)),
            slots: List::new(self.progress_after(executed.max(self.log.low())))
                .expect("slots are within the window, which is bounded"),
        }
    }

    /// The slot of this replica's highest checkpoint above the low watermark.
    pub(super) fn highest_own_checkpoint(&self) -> Option<Sequence> {
        let (sequence, _) = self.checkpoints.own.last_key_value()?;
        (*sequence > self.log.low()).then_some(*sequence)
    }

    fn progress_after(&self, base: Sequence) -> Vec<Progress> {
        let last = self.log.slots_after(base).last().map_or(base, |(sequence, _)| sequence);
        let count = last.distance_from(base).min(crate::configuration::WINDOW_MAX as u64);
        let slots = (1..=count).map(|offset| self.log.slot(base.saturating_add(offset)));
        slots.map(|slot| slot.map_or(Progress::Nothing, |slot| slot.progress(self.view))).collect()
    }

    pub(super) fn on_status(&mut self, from: ReplicaId, status: Status) {
        let epoch = status.epoch;
        let previous = self.peers[from.index()].status.replace(status);
        let own = self.configuration.epoch();
        if epoch == own {
            self.note_standing(from);
            self.retransmit(from, previous.filter(|previous| previous.epoch == own).as_ref());
            self.try_leave();
        } else if epoch < own {
            self.help_into_epoch(from);
        }
        self.try_catch_up();
    }
}

fn bits(members: impl Iterator<Item = ReplicaId>) -> u32 {
    members.fold(0, |bits, id| bits | 1 << id.index())
}
