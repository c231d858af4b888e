//! Where an epoch ends, and entering the next. (PROTOCOL §11)
//!
//! A checkpoint ends an epoch. What was prepared or decided above it in the old epoch is void: it executes nowhere, and the
//! requests in it are ordered again.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Mode, Proposer, Replica, ViewChanges, unshown};
use crate::certificate::StableCertificate;
use crate::number::{Sequence, View};
use crate::output::{Notice, Output};
use crate::record::Record;

impl Replica {
    /// The checkpoint that ends the epoch in which this replica takes part, once that is known: no slot above it executes in
    /// this epoch, and none is proposed.
    pub(super) fn epoch_end(&self) -> Option<Sequence> {
        let state = &self.execution.membership;
        if state.epoch() > self.configuration.epoch() { Some(state.began()) } else { state.ends() }
    }

    /// Whether slots have yet to fill up to the end of the epoch.
    pub(super) fn is_epoch_ending(&self) -> bool {
        self.epoch_end().is_some_and(|end| self.execution.issued < end)
    }

    /// Whether a slot may execute in the epoch in which this replica takes part.
    pub(super) fn executes_in_epoch(&self, sequence: Sequence) -> bool {
        self.execution.membership.epoch() == self.configuration.epoch()
            && self.epoch_end().is_none_or(|end| sequence <= end)
    }

    /// Enters the epoch that its state is in, once a quorum is known to vouch for the checkpoint that it began with or for a
    /// later one, and the state is durable: a start finds it there again.
    pub(super) fn try_enter_epoch(&mut self) {
        let state = &self.execution.membership;
        if state.epoch() <= self.configuration.epoch() || self.checkpoints.durable < state.began() || self.is_log_full()
        {
            return;
        }
        let known = self.log.stable().into_iter().chain(&self.catching_up.ahead);
        let certificate = known.filter(|certificate| certificate.statement.sequence >= state.began());
        let Some(certificate) = certificate.max_by_key(|certificate| certificate.statement.sequence).cloned() else {
            return;
        };
        self.enter_epoch(certificate);
    }

    fn enter_epoch(&mut self, certificate: StableCertificate) {
        let membership = self.execution.membership.clone();
        let (epoch, began) = (membership.epoch(), membership.began());
        let before = self.primary();
        self.configuration = Arc::new(self.configuration.in_epoch(epoch, began));
        self.log.begin_epoch(certificate.clone(), self.execution.executed);
        self.settle_reads();
        self.forget_epoch();
        self.participation.membership = membership.clone();
        // Before anything is said in the epoch, since records become durable in order.
        self.outbox.append(Record::Epoch(membership, certificate));
        self.outbox.push(Output::Notice(Notice::EpochEntered { epoch, began }));
        self.take_standing();
        self.note_view_entered(before);
        self.suspicion.attempts = 0;
        self.pass_on_queue();
        self.hurry_status();
        self.try_cut();
        self.try_execute();
    }

    /// Drops what belongs to the epoch before: votes, views, proposals, and what was expected of their primaries.
    fn forget_epoch(&mut self) {
        let members = self.configuration.size();
        let low = self.log.low();
        self.view = View::ZERO;
        self.mode = Mode::Normal;
        self.view_changes = ViewChanges::none(members);
        self.proposer = Proposer { next: low.saturating_add(1), ..Proposer::default() };
        self.queue.forget_proposals();
        self.checkpoints.votes.iter_mut().for_each(Vec::clear);
        self.catching_up.ahead = self.catching_up.ahead.take().filter(|ahead| ahead.statement.sequence > low);
        self.catching_up.batches_asked.clear();
        self.catching_up.unshown = unshown::Unshown::default();
        for peer in &mut self.peers {
            peer.outside_since = None;
            peer.last_prepare = None;
            peer.last_commit = None;
            peer.shown = None;
        }
        self.first_records.clear();
    }

    /// Keeps a certificate of a later epoch: this replica is behind, and can't be in that epoch before its state is.
    pub(super) fn note_ahead(&mut self, certificate: StableCertificate) {
        let held = self.catching_up.ahead.as_ref().map(|held| held.statement.sequence);
        if held >= Some(certificate.statement.sequence) {
            return self.refuse(crate::refusal::Refusal::Outdated);
        }
        self.catching_up.ahead = Some(certificate);
        self.try_enter_epoch();
        self.try_catch_up();
    }
}
