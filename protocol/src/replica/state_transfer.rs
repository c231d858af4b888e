//! Getting past slots that nobody hands out any more: the state at a checkpoint, as far as it differs from the one here,
//! checked against its certificate. (PROTOCOL §9)
//!
//! What is here is compared with what the certificate names from the root down, and only buckets that differ are fetched,
//! each checked on arrival, from all who have them at once: see [`fetching`]. They are staged beside the state, also over a
//! crash, and when nothing is missing they become the state together. Where the others go on meanwhile, the transfer turns to
//! a later checkpoint, and what is the same there is not fetched again.

mod fetching;
mod task;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use quorate_crypto::Digest;

use self::fetching::{Fetching, Patience, Taken};
use super::protocol_state::{self, ProtocolState};
use super::{Executing, OwnCheckpoint, Replica, state_root};
use crate::application::Change;
use crate::input::StageReady;
use crate::message::{Fetch, Message, Part, StateRoot};
use crate::number::{Epoch, ReplicaId, Sequence};
use crate::output::{Notice, Output};
use crate::refusal::Refusal;
use crate::statement::Checkpoint;
use crate::time::Time;

/// After this many times the cap of the bounds a later checkpoint is fetched instead, if there is one; twice as long after
/// each that took too long.
const TRANSFER_FACTOR: u32 = 2;

/// Transfers that were turned to another checkpoint, beyond which a part is waited for no longer than before: a thousand
/// times as long as at first, or the cap of the bounds.
const FAILED_TRANSFERS_MAX: u32 = 10;

/// A state transfer under way.
#[derive(Debug, Clone, Hash)]
pub(super) struct Transfer {
    target: Checkpoint,
    /// Since when that is the target.
    began: Time,
    stage: Stage,
}

/// How far a transfer is.
#[derive(Debug, Clone, Hash)]
enum Stage {
    /// What is here is read.
    Preparing,
    Fetching(Box<Fetching>),
    /// All is here.
    Staging(Box<ProtocolState>),
    /// The staged state is the certified one.
    Installing(Box<ProtocolState>),
}

impl Transfer {
    /// The checkpoint's slot.
    pub(super) fn target(&self) -> Sequence {
        self.target.sequence
    }

    /// When to look after it again.
    pub(super) fn due(&self, patience: Patience) -> Option<Time> {
        match &self.stage {
            Stage::Fetching(fetching) => fetching.due(patience),
            Stage::Preparing | Stage::Staging(_) | Stage::Installing(_) => None,
        }
    }
}

impl Replica {
    /// Begins the transfer of the stable checkpoint, if this replica is behind it or diverged from it.
    pub(super) fn begin_transfer(&mut self) {
        let Some(target) = self.stable_target().filter(|target| !self.holders(target).is_empty()) else { return };
        if !self.execution.in_execution.is_empty() {
            return;
        }
        self.catching_up.transfer = Some(Transfer { target, began: self.now.monotonic, stage: Stage::Preparing });
        self.outbox.push(Output::Notice(Notice::TransferBegan { sequence: target.sequence }));
        self.outbox.push(Output::StageBegin { afresh: false });
    }

    fn stable_target(&self) -> Option<Checkpoint> {
        let is_ahead = |target: &Checkpoint| target.sequence > self.execution.executed || self.execution.is_diverged;
        let known = self.log.stable().into_iter().chain(&self.catching_up.ahead);
        let known = known.map(|certificate| certificate.statement).chain(self.initial_target());
        known.max_by_key(|target| target.sequence).filter(is_ahead)
    }

    /// Slot 0, if the genesis names a state: it vouches for it, as a quorum does for later ones. (PROTOCOL §11)
    fn initial_target(&self) -> Option<Checkpoint> {
        let root = state_root(&protocol_state::initial_root(&self.configuration)?);
        Some(Checkpoint { epoch: Epoch::ZERO, sequence: Sequence::ZERO, root })
    }

    /// A checkpoint beyond the stable one that a weak quorum voted for: a correct replica is among them, so the root is
    /// right. Where replicas were started again since, it may be the only state that can still be read.
    fn vouched_checkpoint(&self) -> Option<Checkpoint> {
        let votes = || self.checkpoints.votes.iter().flatten().map(|vote| vote.statement);
        let is_vouched = |statement: &Checkpoint| {
            votes().filter(|other| other == statement).count() >= self.configuration.weak_quorum()
        };
        let beyond = votes().filter(|statement| statement.sequence > self.execution.executed);
        beyond.filter(is_vouched).max_by_key(|statement| statement.sequence)
    }

    /// The peers that say this checkpoint is their stable one, or voted for it.
    fn holders(&self, target: &Checkpoint) -> Vec<ReplicaId> {
        let sequence = target.sequence;
        let holds = |id: &ReplicaId| {
            let status = self.peers[id.index()].status.as_ref();
            let votes = &self.checkpoints.votes[id.index()];
            status.is_some_and(|status| status.stable == sequence && status.executed >= sequence)
                || votes.iter().any(|vote| vote.statement == *target)
        };
        self.others().after(self.id).filter(holds).collect()
    }

    pub(super) fn on_stage_ready(&mut self, ready: StageReady) {
        let members = self.configuration.size();
        // The others went on while what is here was read.
        let newest = self.stable_target().filter(|target| !self.holders(target).is_empty());
        let Some(transfer) = &mut self.catching_up.transfer else { return };
        if matches!(transfer.stage, Stage::Preparing) {
            let fetching = Fetching::new(ready, members).expect("a host gives the leaves of a tree");
            transfer.stage = Stage::Fetching(fetching.into());
            transfer.target = newest.unwrap_or(transfer.target);
            transfer.began = self.now.monotonic;
            self.watch_transfer();
        }
    }

    /// Takes from sources that do not answer what they were asked for, turns to another checkpoint if this one can't be had
    /// any more or a later one is overdue, and asks for what is missing.
    pub(super) fn watch_transfer(&mut self) {
        let (now, patience, bound) = (self.now.monotonic, self.part_patience(), self.transfer_bound());
        let Some(Transfer { target, began, stage: Stage::Fetching(fetching) }) = &mut self.catching_up.transfer else {
            return;
        };
        let (target, is_over) = (*target, now.since(*began) >= bound);
        let has_sources = fetching.has_sources();
        let late = fetching.give_up_late(now, patience);
        let are_all_late = fetching.late() >= self.configuration.size();
        // Where nobody answers, more time would change nothing.
        if is_over && fetching.has_begun() && !are_all_late {
            self.catching_up.slow_transfers = self.catching_up.slow_transfers.saturating_add(1);
        }
        if is_over {
            *began = now;
            fetching.forgive();
        }
        for source in &late {
            self.outbox.push(Output::Notice(Notice::TransferSourceReplaced { source: *source, lied: false }));
        }
        let holders = self.holders(&target);
        let is_left = |holder: &ReplicaId| !late.contains(holder);
        let is_superseded = self.log.low() > target.sequence && !holders.iter().any(is_left);
        let has_lost_all = is_superseded && !late.is_empty();
        // It was lost before, and nothing else could be read then.
        let is_abandoned = is_superseded && !has_sources;
        if is_over || are_all_late || has_lost_all || is_abandoned {
            let is_lost = are_all_late || has_lost_all;
            let has_turned = self.turn_to_another(&target, is_lost || is_abandoned);
            if is_lost || (has_turned && !is_abandoned) {
                self.catching_up.failed_transfers = self.catching_up.failed_transfers.saturating_add(1);
            }
        }
        self.ask_sources();
    }

    /// Turns to the newest later checkpoint, stable or vouched for, which is the one that most can read; if the present one is
    /// `lost` and there is none, to an earlier one. Says whether there is one.
    fn turn_to_another(&mut self, target: &Checkpoint, lost: bool) -> bool {
        let stable = self.stable_target();
        let vouched = self.vouched_checkpoint();
        let later = |found: &Checkpoint| found.sequence > target.sequence;
        let newer = stable.into_iter().chain(vouched).filter(later).max_by_key(|found| found.sequence);
        let other = [vouched, stable].map(|other| other.filter(|other| other != target && lost));
        let candidates = newer.into_iter().chain(other.into_iter().flatten());
        let readable = candidates.into_iter().find(|candidate| !self.holders(candidate).is_empty());
        let Some(Transfer { target, began, stage: Stage::Fetching(fetching) }) = &mut self.catching_up.transfer else {
            return false;
        };
        match readable {
            Some(readable) => {
                (*target, *began) = (readable, self.now.monotonic);
                fetching.retarget();
                self.outbox.push(Output::Notice(Notice::TransferBegan { sequence: readable.sequence }));
            }
            None if lost => fetching.retarget(),
            None => {}
        }
        readable.is_some()
    }

    /// Asks each source that has nothing to do for something: those that were late only where there is nobody else.
    fn ask_sources(&mut self) {
        let now = self.now.monotonic;
        let patience = self.part_patience();
        let Some(target) = self.catching_up.transfer.as_ref().map(|transfer| transfer.target) else { return };
        let holders = self.holders(&target);
        let Some(Transfer { stage: Stage::Fetching(fetching), .. }) = &mut self.catching_up.transfer else { return };
        let mut sources = fetching.note_holders(&holders);
        let own = self.id;
        sources.sort_by_key(|source| (*source < own, *source));
        let mut questions = Vec::new();
        let mut is_over = false;
        while !is_over {
            is_over = true;
            // One each, until nobody takes more.
            for source in &sources {
                if let Some((want, replaced)) = fetching.ask(*source, now, patience) {
                    questions.push((*source, want, replaced));
                    is_over = false;
                }
            }
        }
        for (source, want, replaced) in questions {
            if let Some(source) = replaced {
                self.outbox.push(Output::Notice(Notice::TransferSourceReplaced { source, lied: false }));
            }
            self.send(source, Message::Fetch(Fetch::Part { sequence: target.sequence, want }));
        }
    }

    /// How long a part may take before another source is asked for it: longer after each transfer that came to nothing. On
    /// links slower than expected all sources would be replaced in turns, and with a liar among them the whole, of which each
    /// handed out a piece, would be wrong for ever and nobody known to lie.
    pub(super) fn part_patience(&self) -> Patience {
        let factor = 1 << self.catching_up.failed_transfers.min(FAILED_TRANSFERS_MAX);
        let most = self.parameters().deadline_cap().max(self.fetch_patience());
        let first = self.fetch_patience().saturating_mul(factor).min(most);
        Patience { first, most: self.transfer_bound() }
    }

    /// How long a transfer may take: twice as long after each in a row that took too long.
    fn transfer_bound(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.catching_up.slow_transfers).unwrap_or(u32::MAX);
        (self.parameters().deadline_cap() * TRANSFER_FACTOR).saturating_mul(factor)
    }

    pub(super) fn on_part(&mut self, from: ReplicaId, part: Part) {
        let now = self.now.monotonic;
        let Some(Transfer { target, stage: Stage::Fetching(fetching), .. }) = &mut self.catching_up.transfer else {
            return self.refuse(Refusal::Unasked);
        };
        match fetching.take((from, part), target, &self.configuration, now) {
            Taken::Unasked => return self.refuse(Refusal::Unasked),
            Taken::Lie => {
                self.outbox.push(Output::Notice(Notice::TransferSourceReplaced { source: from, lied: true }));
            }
            Taken::Buckets(buckets) if buckets.is_empty() => {}
            Taken::Buckets(buckets) => self.outbox.push(Output::StageBuckets(buckets)),
        }
        self.try_end_fetching();
        self.ask_sources();
    }

    /// Ends what is staged, if nothing is missing.
    fn try_end_fetching(&mut self) {
        let Some(Transfer { target, stage, .. }) = &mut self.catching_up.transfer else { return };
        let Stage::Fetching(fetching) = stage else { return };
        let Some((state, protocol)) = fetching.end() else { return };
        *stage = Stage::Staging(state.into());
        self.outbox.push(Output::StageEnd { sequence: target.sequence, protocol });
    }

    /// All parts were right, and so is the whole, unless something was lost on the way to the disk or back.
    pub(super) fn on_state_staged(&mut self, sequence: Sequence, application_root: Option<Digest>) {
        let Some(Transfer { target, stage, .. }) = &mut self.catching_up.transfer else { return };
        if target.sequence != sequence || !matches!(stage, Stage::Staging(_)) {
            return;
        }
        let Stage::Staging(state) = core::mem::replace(stage, Stage::Preparing) else { return };
        if application_root == Some(state.root.application) {
            *stage = Stage::Installing(state);
            self.outbox.push(Output::StageInstall);
        } else {
            self.outbox.push(Output::Notice(Notice::TransferSpoilt { sequence }));
            self.outbox.push(Output::StageBegin { afresh: true });
        }
    }

    pub(super) fn on_state_installed(&mut self, sequence: Sequence) {
        let Some(Transfer { target, stage: Stage::Installing(state), .. }) = self.catching_up.transfer.take() else {
            return;
        };
        assert!(target.sequence == sequence, "what was staged is installed");
        self.leave_state(self.execution.executed);
        self.execution.issued = sequence;
        self.execution.executed = sequence;
        self.execution.time = state.time;
        self.execution.membership = state.membership;
        self.execution.ending_since = self.execution.membership.ends().map(|_| self.now.monotonic);
        self.execution.is_diverged = false;
        self.sessions = state.sessions;
        self.log.skip_to(sequence);
        self.adopt_checkpoint(sequence, state.root);
        self.catching_up.asked = None;
        self.catching_up.stuck = None;
        self.catching_up.slow_transfers = 0;
        self.catching_up.failed_transfers = 0;
        self.forget_answered();
        self.outbox.push(Output::Notice(Notice::TransferEnded { sequence }));
        self.checkpoints.durable = sequence;
        self.try_enter_epoch();
        self.on_checkpoint_durable(sequence);
        self.try_execute();
        self.try_catch_up();
    }

    /// Takes a durable state as this replica's own checkpoint.
    pub(super) fn adopt_checkpoint(&mut self, sequence: Sequence, root: StateRoot) {
        let own = OwnCheckpoint {
            protocol: root.protocol,
            application: Some(root.application),
            is_durable: true,
            vote: None,
        };
        self.checkpoints.own.clear();
        self.checkpoints.own.insert(sequence, own);
    }

    /// Requests that executed, or never will, are expected no longer.
    pub(super) fn forget_answered(&mut self) {
        use crate::sessions::Lookup;
        let issued = self.execution.issued;
        let is_open = |request: &&crate::batch::ParsedRequest| {
            if let Some((member, rejoin)) = self.rejoin_of(request) {
                return self.may_rejoin(member, &rejoin);
            }
            let lookup = self.sessions.lookup(&request.request, issued);
            matches!(lookup, Lookup::Open | Lookup::InExecution | Lookup::SessionAhead)
        };
        let gone: Vec<_> =
            self.queue.iter().filter(|request| !is_open(request)).map(|request| request.request.id()).collect();
        for id in gone {
            self.queue.remove(&id);
        }
    }

    /// What the state holds besides the sessions.
    pub(super) fn own_entries(&self) -> [Change; 2] {
        let Executing { time, membership, .. } = &self.execution;
        protocol_state::own_entries(*time, membership).map(|(key, value)| (key, Some(value)))
    }
}
