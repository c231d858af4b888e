//! Getting past slots that nobody hands out any more: a whole checkpoint, checked against its certificate. (PROTOCOL §9)
//!
//! Parts are staged beside the state, and only when the root of the whole is the certified one do they become the state.
//! A source that lies is found at the end and named; one that does not answer is replaced by another, which goes on where it
//! stopped. Begun anew is a transfer that lied, that nobody serves any more, or that takes too long: a source that hands out
//! an entry now and then would hold this replica up for ever.

use alloc::vec::Vec;
use core::time::Duration;

use quorate_crypto::Digest;

use super::protocol_state::{self, ProtocolState};
use super::{Executing, OwnCheckpoint, Replica, state_root};
use crate::application::Change;
use crate::codec::Blob;
use crate::input::StagedState;
use crate::message::{Entry, Fetch, Message, Part, StateRoot};
use crate::number::{Epoch, ReplicaId, Sequence};
use crate::output::{Notice, Output};
use crate::refusal::Refusal;
use crate::statement::Checkpoint;
use crate::time::Time;

/// A transfer may take this many times the cap of the bounds, twice as long after each that took too long.
const TRANSFER_FACTOR: u32 = 2;

/// Transfers that were begun anew, beyond which a part is waited for no longer than before: a thousand times as long as at
/// first, or the cap of the bounds.
const FAILED_TRANSFERS_MAX: u32 = 10;

/// A state transfer under way.
#[derive(Debug, Clone, Hash)]
pub(super) struct Transfer {
    target: Checkpoint,
    began: Time,
    /// How often in a row a source was late: nobody may be able to read this state any more.
    late: usize,
    source: ReplicaId,
    /// Whether all parts came from one source: only then is it known who lied if the whole is wrong.
    has_one_source: bool,
    /// Where the part begins that was asked for.
    cursor: Blob,
    last_part: Time,
    stage: Stage,
}

/// How far a transfer is.
#[derive(Debug, Clone, Hash)]
enum Stage {
    Fetching,
    Staging,
    /// The staged state is the certified one.
    Installing(alloc::boxed::Box<ProtocolState>),
}

impl Transfer {
    /// The checkpoint's slot.
    pub(super) fn target(&self) -> Sequence {
        self.target.sequence
    }

    /// When the last part came, or was asked for.
    pub(super) fn last_part(&self) -> Time {
        self.last_part
    }
}

impl Replica {
    /// Begins the transfer of the stable checkpoint, if this replica is behind it or diverged from it.
    pub(super) fn begin_transfer(&mut self) {
        if let Some(target) = self.stable_target() {
            self.begin_transfer_to(target, self.id);
        }
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

    fn begin_transfer_to(&mut self, target: Checkpoint, last: ReplicaId) {
        if !self.execution.in_execution.is_empty() {
            return;
        }
        let Some(source) = self.next_holder(&target, last) else { return };
        let sequence = target.sequence;
        let now = self.now.monotonic;
        self.catching_up.transfer = Some(Transfer {
            target,
            began: now,
            late: 0,
            source,
            has_one_source: true,
            cursor: Blob::EMPTY,
            last_part: now,
            stage: Stage::Fetching,
        });
        self.outbox.push(Output::Notice(Notice::TransferBegan { sequence, source }));
        self.outbox.push(Output::StageBegin { sequence });
        self.send(source, Message::Fetch(Fetch::Part { sequence, cursor: Blob::EMPTY }));
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

    /// The next peer, after `last`, that says this checkpoint is its stable one, or voted for it.
    fn next_holder(&self, target: &Checkpoint, last: ReplicaId) -> Option<ReplicaId> {
        let sequence = target.sequence;
        let holds = |id: &ReplicaId| {
            let status = self.peers[id.index()].status.as_ref();
            let votes = &self.checkpoints.votes[id.index()];
            status.is_some_and(|status| status.stable == sequence && status.executed >= sequence)
                || votes.iter().any(|vote| vote.statement == *target)
        };
        self.others().after(last).find(holds)
    }

    /// Begins anew, if there is anything else to begin with: the newest later checkpoint, stable or vouched for, which is the
    /// one that most can read; the same state from another source, if it `may_stay`; and if nothing else, an earlier one again.
    fn begin_anew(&mut self, may_stay: bool) -> bool {
        let Some(Transfer { target, source, .. }) = self.catching_up.transfer else { return false };
        let stable = self.stable_target();
        let vouched = self.vouched_checkpoint();
        let later = |found: &Checkpoint| found.sequence > target.sequence;
        let newer = stable.into_iter().chain(vouched).filter(later).max_by_key(|found| found.sequence);
        let is_elsewhere = self.next_holder(&target, source).is_some_and(|next| next != source);
        let same = Some(target).filter(|_| may_stay && is_elsewhere);
        let other = [vouched, stable].map(|other| other.filter(|other| *other != target));
        let candidates = [newer, same].into_iter().chain(other).flatten();
        let readable = candidates.into_iter().find(|candidate| self.next_holder(candidate, source).is_some());
        if let Some(target) = readable {
            self.catching_up.failed_transfers = self.catching_up.failed_transfers.saturating_add(1);
            self.begin_transfer_to(target, source);
        }
        readable.is_some()
    }

    /// Replaces a source that does not answer: the next one goes on where it stopped. Begins anew if the target can't be had
    /// any more, or the whole takes too long.
    pub(super) fn watch_transfer(&mut self) {
        let now = self.now.monotonic;
        let Some(transfer) = &self.catching_up.transfer else { return };
        let is_late = now.since(transfer.last_part) >= self.part_patience();
        let is_over = now.since(transfer.began) >= self.transfer_bound();
        if !matches!(transfer.stage, Stage::Fetching) || !(is_late || is_over) {
            return;
        }
        let source = transfer.source;
        let next = self.next_holder(&transfer.target, source);
        let is_superseded = self.log.low() > transfer.target.sequence && next.is_none_or(|next| next == source);
        let are_all_late = transfer.late >= self.configuration.size();
        let is_unreadable = is_late && (is_superseded || are_all_late);
        // Where nobody answers, more time would change nothing.
        if is_over && !are_all_late && !transfer.cursor.is_empty() {
            self.catching_up.slow_transfers = self.catching_up.slow_transfers.saturating_add(1);
        }
        if (is_over || is_unreadable) && self.begin_anew(is_over) {
            return self.outbox.push(Output::Notice(Notice::TransferSourceReplaced { source, lied: false }));
        }
        if let Some(next) = next.filter(|_| is_late) {
            self.go_on_with(next);
        }
    }

    fn go_on_with(&mut self, next: ReplicaId) {
        let Some(transfer) = &mut self.catching_up.transfer else { return };
        let late = transfer.source;
        transfer.late += 1;
        transfer.has_one_source &= next == late || transfer.cursor.is_empty();
        transfer.source = next;
        transfer.last_part = self.now.monotonic;
        let (sequence, cursor) = (transfer.target(), transfer.cursor.clone());
        if next != late {
            self.outbox.push(Output::Notice(Notice::TransferSourceReplaced { source: late, lied: false }));
        }
        self.send(next, Message::Fetch(Fetch::Part { sequence, cursor }));
    }

    /// How long a part may take before another source is asked for it: longer after each transfer that came to nothing. On
    /// links slower than expected all sources would be replaced in turns, and with a liar among them the whole, of which each
    /// handed out a piece, would be wrong for ever and nobody known to lie.
    pub(super) fn part_patience(&self) -> Duration {
        let factor = 1 << self.catching_up.failed_transfers.min(FAILED_TRANSFERS_MAX);
        let most = self.parameters().deadline_cap().max(self.fetch_patience());
        self.fetch_patience().saturating_mul(factor).min(most)
    }

    /// How long a transfer may take: twice as long after each in a row that took too long.
    fn transfer_bound(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.catching_up.slow_transfers).unwrap_or(u32::MAX);
        (self.parameters().deadline_cap() * TRANSFER_FACTOR).saturating_mul(factor)
    }

    pub(super) fn on_part(&mut self, from: ReplicaId, part: Part) {
        let now = self.now.monotonic;
        let Some(transfer) = &mut self.catching_up.transfer else { return self.refuse(Refusal::Unasked) };
        let is_asked = transfer.source == from && transfer.target() == part.sequence && transfer.cursor == part.cursor;
        if !is_asked || !matches!(transfer.stage, Stage::Fetching) {
            return self.refuse(Refusal::Unasked);
        }
        transfer.last_part = now;
        transfer.late = 0;
        let (protocol, application) = (part.protocol.into_vec(), part.application.into_vec());
        let is_empty = protocol.is_empty() && application.is_empty();
        self.outbox.push(Output::StageEntries { protocol, application });
        match part.next {
            // A part that brings nothing leads nowhere: the source would keep this replica busy for ever.
            Some(_) if is_empty => self.replace_lying_source(),
            Some(next) => {
                transfer.cursor = next.clone();
                let sequence = transfer.target();
                self.send(from, Message::Fetch(Fetch::Part { sequence, cursor: next }));
            }
            None => {
                transfer.stage = Stage::Staging;
                self.outbox.push(Output::StageEnd);
            }
        }
    }

    pub(super) fn on_state_staged(&mut self, staged: StagedState) {
        let Some(transfer) = &self.catching_up.transfer else { return };
        if !matches!(transfer.stage, Stage::Staging) || transfer.target() != staged.sequence {
            return;
        }
        let certified = transfer.target.root;
        let state = staged.application_root.and_then(|root| self.restore_protocol(root, &staged.protocol));
        let Some(state) = state.filter(|state| state_root(&state.root) == certified) else {
            return self.replace_lying_source();
        };
        if let Some(transfer) = &mut self.catching_up.transfer {
            transfer.stage = Stage::Installing(state.into());
        }
        self.outbox.push(Output::StageInstall);
    }

    fn replace_lying_source(&mut self) {
        let Some(transfer) = &self.catching_up.transfer else { return };
        let (source, lied) = (transfer.source, transfer.has_one_source);
        self.outbox.push(Output::Notice(Notice::TransferSourceReplaced { source, lied }));
        if !self.begin_anew(true) {
            self.catching_up.transfer = None;
        }
    }

    pub(super) fn on_state_installed(&mut self, sequence: Sequence) {
        let Some(transfer) = self.catching_up.transfer.take() else { return };
        let Stage::Installing(state) = transfer.stage else { return };
        assert!(transfer.target.sequence == sequence, "what was staged is installed");
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

    /// The protocol's own state from its entries; `None` if they hold none.
    pub(super) fn restore_protocol(&self, application: Digest, entries: &[Entry]) -> Option<ProtocolState> {
        ProtocolState::restore(&self.configuration, application, entries)
    }

    /// What the state holds besides the sessions.
    pub(super) fn own_entries(&self) -> [Change; 2] {
        let Executing { time, membership, .. } = &self.execution;
        protocol_state::own_entries(*time, membership).map(|(key, value)| (key, Some(value)))
    }
}
