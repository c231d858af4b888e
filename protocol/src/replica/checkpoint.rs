//! Checkpoints, and what becomes stable by them. (PROTOCOL §5)

use alloc::vec::Vec;

use quorate_crypto::{Digest, Domain, hash};

use super::{Executing, OwnCheckpoint, Replica, state_root};
use crate::certificate::{Certificate, StableCertificate};
use crate::configuration::Configuration;
use crate::evidence::Evidence;
use crate::membership::Membership;
use crate::message::{Message, StateRoot};
use crate::number::Sequence;
use crate::output::{Notice, Output};
use crate::record::Record;
use crate::refusal::Refusal;
use crate::statement::{Checkpoint, Vote};
use crate::time::WallTime;

/// Checkpoint votes kept of a member: those of its two highest slots. (PROTOCOL §3)
const VOTES_MAX: usize = 2;

impl Replica {
    /// All results up to a checkpoint's slot are back and nothing beyond it is in execution.
    pub(super) fn take_checkpoint(&mut self, sequence: Sequence) {
        assert!(self.execution.issued == sequence && self.execution.in_execution.is_empty());
        if self.execution.membership.ends() == Some(sequence) {
            self.execution.membership = self.execution.membership.next(sequence);
            self.execution.ending_since = None;
        }
        let (sessions, changes) = self.sessions.checkpoint();
        let Executing { time, membership, .. } = &self.execution;
        let protocol = protocol_digest(&self.configuration, sessions, *time, membership);
        let own = OwnCheckpoint { protocol, application: None, is_durable: false, vote: None };
        self.checkpoints.own.insert(sequence, own);
        let mut protocol = changes;
        protocol.extend(self.own_entries());
        self.outbox.push(Output::TakeCheckpoint { sequence, protocol });
    }

    pub(super) fn on_checkpoint_taken(&mut self, sequence: Sequence, application_root: Digest) {
        let Some(own) = self.checkpoints.own.get_mut(&sequence) else { return };
        own.application = Some(application_root);
        self.compare_with_stable(sequence);
        self.try_vote_checkpoint(sequence);
    }

    pub(super) fn on_checkpoint_durable(&mut self, sequence: Sequence) {
        if let Some(own) = self.checkpoints.own.get_mut(&sequence) {
            own.is_durable = true;
        }
        self.checkpoints.durable = sequence;
        self.announce_stable();
        self.try_vote_checkpoint(sequence);
        self.try_cut();
        self.try_enter_epoch();
    }

    /// The vote needs no record: after a restart the durable state gives the same root.
    pub(super) fn try_vote_checkpoint(&mut self, sequence: Sequence) {
        let Some(root) = self.state_root_at(sequence) else { return };
        // A state that was replaced may lead past slots that this replica has voted on already, with another root.
        // The same vote may be cast again: peers that remember it may have been started since, and ask for it.
        let is_against = |voted: &Vote<Checkpoint>| {
            voted.statement.sequence > sequence
                || (voted.statement.sequence == sequence && voted.statement.root != root)
        };
        let is_past = sequence <= self.log.low() || self.checkpoints.votes[self.id.index()].iter().any(is_against);
        if is_past || self.execution.is_diverged || !self.is_voter() || !self.is_of_epoch(sequence) {
            return;
        }
        let epoch = self.configuration.epoch();
        let vote = self.sign(Checkpoint { epoch, sequence, root });
        let Some(own) = self.checkpoints.own.get_mut(&sequence) else { return };
        if !own.is_durable || own.vote.is_some() {
            return;
        }
        own.vote = Some(vote);
        self.outbox.push(Output::Broadcast(Message::Checkpoint(vote)));
        self.count_checkpoint(vote);
    }

    /// Whether a checkpoint of its own, above the low watermark, is of the epoch in which this replica takes part: the one that
    /// ends it is. A state of a later epoch, fetched from others, is not.
    fn is_of_epoch(&self, sequence: Sequence) -> bool {
        let (state, own) = (&self.execution.membership, self.configuration.epoch());
        state.epoch() == own || (own.next() == Some(state.epoch()) && sequence == state.began())
    }

    pub(super) fn on_checkpoint(&mut self, vote: Vote<Checkpoint>) {
        if vote.statement.sequence <= self.log.low() {
            return self.refuse(Refusal::OutsideWatermarks);
        }
        if !self.configuration.is_checkpoint(vote.statement.sequence) {
            return self.refuse(Refusal::Nothing);
        }
        self.count_checkpoint(vote);
    }

    fn count_checkpoint(&mut self, vote: Vote<Checkpoint>) {
        let sequence = vote.statement.sequence;
        let held = &mut self.checkpoints.votes[vote.voter.index()];
        if let Some(same_slot) = held.iter().find(|held| held.statement.sequence == sequence) {
            if same_slot.statement != vote.statement {
                let evidence = Evidence::ConflictingCheckpoints(*same_slot, vote);
                assert!(vote.voter != self.id, "this replica never contradicts itself");
                self.keep_evidence(evidence);
            }
            return self.refuse(Refusal::Duplicate);
        }
        held.push(vote);
        keep_highest(held);
        let votes = self.checkpoints.votes.iter().flatten();
        if let Some(certificate) = Certificate::collect(vote.statement, votes, self.configuration.quorum()) {
            self.take_stable(certificate);
        }
    }

    pub(super) fn on_stable(&mut self, certificate: StableCertificate) {
        if certificate.statement.sequence <= self.log.low() {
            return self.refuse(Refusal::Outdated);
        }
        if certificate.statement.epoch > self.configuration.epoch() {
            return self.note_ahead(certificate);
        }
        self.take_stable(certificate);
    }

    /// A quorum vouches for a checkpoint: the low watermark moves up, what lies below leaves the log. It is taken whether
    /// or not this replica got there itself; slots that it has yet to execute stay.
    pub(super) fn take_stable(&mut self, certificate: StableCertificate) {
        let sequence = certificate.statement.sequence;
        if sequence <= self.log.low() {
            return;
        }
        if !self.is_log_full() {
            self.outbox.append(Record::Stable(certificate.clone()));
        }
        self.note_window_moves();
        self.log.advance(certificate, self.execution.executed);
        for votes in &mut self.checkpoints.votes {
            votes.retain(|vote| vote.statement.sequence > sequence);
        }
        self.checkpoints.own.retain(|own, _| *own >= sequence);
        self.proposer.next = self.proposer.next.max(sequence.saturating_add(1));
        self.proposer.in_flight.retain(|slot, _| *slot > sequence);
        self.outbox.push(Output::Notice(Notice::Stable { sequence }));
        self.settle_reads();
        self.compare_with_stable(sequence);
        self.announce_stable();
        self.try_cut();
        self.try_enter_epoch();
        self.try_execute();
    }

    /// Compares the own root with the certified one. (PROTOCOL §5: diverged)
    pub(super) fn compare_with_stable(&mut self, sequence: Sequence) {
        let Some(certified) = self.log.stable().map(|certificate| certificate.statement) else { return };
        let Some(own) = self.state_root_at(sequence) else { return };
        if certified.sequence == sequence && certified.root != own && !self.execution.is_diverged {
            self.execution.is_diverged = true;
            self.outbox.push(Output::Notice(Notice::Diverged { sequence, certified: certified.root, own }));
        }
    }

    /// The state on the disk is not what was written: it is replaced by that of the others, as one that went astray, and what
    /// follows it is executed again. One that is being replaced is left to that. (PROTOCOL §9)
    pub(super) fn on_state_damaged(&mut self) {
        if self.execution.is_diverged || self.catching_up.transfer.is_some() {
            return;
        }
        self.execution.is_diverged = true;
        self.outbox.push(Output::Notice(Notice::StateDamaged { sequence: self.checkpoints.durable }));
        self.try_catch_up();
    }

    /// Tells the host that a checkpoint of its own is the stable one, once it is durable too.
    fn announce_stable(&mut self) {
        let Some(certificate) = self.log.stable() else { return };
        let Some(own) = self.checkpoints.own.get(&certificate.statement.sequence) else { return };
        let Some(application) = own.application.filter(|_| own.is_durable) else { return };
        let root = StateRoot { application, protocol: own.protocol };
        if state_root(&root) == certificate.statement.root {
            let certificate = certificate.clone();
            self.outbox.push(Output::CheckpointStable { certificate, root });
        }
    }

    /// Cuts the log on disk below what a start would still need: the view, the slots above the stable checkpoint, and those
    /// below it that the durable state has yet to reach and that lie within a window. (PROTOCOL §5)
    pub(super) fn try_cut(&mut self) {
        let low = self.log.low();
        // What a state that went astray is followed by is of no use: another state takes its place.
        let reached = if self.execution.is_diverged { Sequence::ZERO } else { self.checkpoints.durable };
        let up_to = reached.min(low).max(low.saturating_sub(self.parameters().window));
        // A log without room would collect what each cut says again.
        if up_to <= self.checkpoints.cut || !self.outbox.is_durable(self.checkpoints.cut_record) {
            return;
        }
        self.first_records = self.first_records.split_off(&up_to.saturating_add(1));
        self.checkpoints.cut = up_to;
        let (essentials, last) = self.append_essentials();
        self.checkpoints.cut_record = last;
        let before = self.first_records.values().min().copied().unwrap_or(essentials).min(essentials);
        self.outbox.push(Output::Cut { before });
    }
}

/// Keeps a member's votes for its highest slots.
pub(super) fn keep_highest(votes: &mut Vec<Vote<Checkpoint>>) {
    votes.sort_unstable_by_key(|vote| core::cmp::Reverse(vote.statement.sequence));
    votes.truncate(VOTES_MAX);
}

/// The digest of all state but the application's: sessions, configuration, time of the last slot, and who votes in which
/// epoch.
pub(super) fn protocol_digest(
    configuration: &Configuration,
    sessions: Digest,
    time: WallTime,
    membership: &Membership,
) -> Digest {
    let time = time.nanoseconds().to_le_bytes();
    let (configuration, membership) = (configuration.digest(), membership.encode());
    hash(Domain::Session, &[sessions.as_bytes(), configuration.as_bytes(), &time, &membership])
}
