//! What a peer lacks, sent again; and what this replica lacks, asked for. (PROTOCOL §7.2, §9)

use alloc::vec::Vec;
use core::time::Duration;

use super::unshown::Asked;
use super::{Mode, Replica};
use crate::message::{Decided, Fetch, FetchedBatch, Message, PrePrepare, Progress, SignedNewView, Status, Want};
use crate::number::{ReplicaId, Sequence, View};
use crate::output::Output;
use crate::refusal::Refusal;
use crate::slot::Slot;

/// Slots for which votes are sent again after one status.
const SLOTS_MAX: usize = 64;

/// Decided slots that one request is answered with.
pub(super) const DECIDED_MAX: u64 = 16;

/// What a peer may ask for in one heartbeat, in bytes.
const BUDGET_BYTES: usize = 16 << 20;

/// What an answer counts for against a peer's budget besides what it carries whole, in bytes.
const SMALL_ANSWER_BYTES: usize = 1024;

/// What a part of a transferred state counts for, in bytes: about what hosts put into one.
const PART_BYTES: usize = 256 << 10;

/// What a vote counts for among the statements of a member, in bytes.
const STATEMENT_BYTES: usize = 128;

// What is owed is given with the next budget.
const _: () = assert!(PART_BYTES <= BUDGET_BYTES);

impl Replica {
    /// Sends `to` again what its status lacks. What was merely under way is not sent twice: only a peer that stands where
    /// its status before stood lacks something.
    pub(super) fn retransmit(&mut self, to: ReplicaId, previous: Option<&Status>) {
        let Some(status) = self.peers[to.index()].status.clone() else { return };
        if status.stable < self.log.low()
            && let Some(certificate) = self.log.stable().cloned()
        {
            self.answer(to, 0, Message::Stable(certificate));
        }
        self.resend_views(to, &status, previous);
        let Some(previous) = previous else { return };
        if previous.stable == status.stable {
            self.resend_checkpoints(to, &status);
        }
        if previous.base() == status.base() && previous.view == status.view {
            self.resend_votes(to, &status);
        }
    }

    /// A peer in an earlier epoch gets the certificate by which it finds out.
    pub(super) fn help_into_epoch(&mut self, to: ReplicaId) {
        let stable = self.peers[to.index()].status.as_ref().map(|status| status.stable);
        if let Some(certificate) = self.log.stable().filter(|own| Some(own.statement.sequence) > stable).cloned() {
            self.answer(to, 0, Message::Stable(certificate));
        }
    }

    /// The last status of a peer, if it is of this replica's epoch.
    pub(super) fn status_in_epoch(&self, of: ReplicaId) -> Option<&Status> {
        let status = self.peers[of.index()].status.as_ref();
        status.filter(|status| status.epoch == self.configuration.epoch())
    }

    /// A peer that is not in this replica's view gets its new view; one that has yet to hear that this replica left its
    /// view gets the view change, byte for byte.
    fn resend_views(&mut self, to: ReplicaId, status: &Status, previous: Option<&Status>) {
        let is_behind = status.view < self.view || (status.view == self.view && !status.entered);
        let is_stuck = previous
            .is_some_and(|previous| previous.view < self.view || (previous.view == self.view && !previous.entered));
        let entered = self.durable_new_view();
        if let Some(new_view) = entered.filter(|_| is_behind && is_stuck) {
            self.answer(to, new_view.body.len(), Message::NewView(new_view));
        }
        let Mode::ViewChange { to: wanted } = self.mode else { return };
        let is_entered = status.entered && status.view >= wanted;
        let is_heard = status.view >= wanted && status.view_changes & (1 << self.id.index()) != 0;
        let own = self.view_changes.latest[self.id.index()].clone().filter(|own| own.content.view == wanted);
        if let Some(own) = own.filter(|_| !is_entered && !is_heard) {
            self.answer(to, own.signed.body.len(), Message::ViewChange(own.signed.clone()));
        }
    }

    /// The new view by which this replica entered its view, once its record is durable.
    fn durable_new_view(&self) -> Option<SignedNewView> {
        let (new_view, _) = self.view_changes.entered.as_ref()?;
        self.outbox.is_durable(self.view_changes.entered_record).then(|| new_view.signed.clone())
    }

    fn resend_checkpoints(&mut self, to: ReplicaId, status: &Status) {
        let is_lacking = status.checkpoint_votes & (1 << self.id.index()) == 0;
        let own: Vec<_> = self.checkpoints.own.iter().filter(|(sequence, _)| **sequence > status.stable).collect();
        let votes: Vec<_> = own.into_iter().filter_map(|(_, own)| own.vote).collect();
        for vote in votes.into_iter().filter(|_| is_lacking) {
            self.answer(to, 0, Message::Checkpoint(vote));
        }
    }

    fn resend_votes(&mut self, to: ReplicaId, status: &Status) {
        let mut messages = Vec::new();
        let base = status.base();
        for (sequence, slot) in self.log.slots_after(base).take(SLOTS_MAX) {
            let index = usize::try_from(sequence.distance_from(base)).unwrap_or(usize::MAX) - 1;
            let progress = status.slots.get(index).copied().unwrap_or(Progress::Nothing);
            self.resend_slot(slot, status, progress, &mut messages);
        }
        for message in messages {
            let bytes = if let Message::PrePrepare(proposal) = &message { proposal.batch.len() } else { 0 };
            if !self.answer(to, bytes, message) {
                return;
            }
        }
    }

    /// Only what is durable is sent again: a vote in the table of votes is, one in the outbox may not be.
    fn resend_slot(&self, slot: &Slot, status: &Status, progress: Progress, messages: &mut Vec<Message>) {
        let is_same_view = status.entered && status.view == self.view && self.mode == Mode::Normal;
        let cast = slot.prepares.of(self.id).filter(|vote| vote.statement.view == self.view);
        if let Some(vote) = cast.filter(|_| is_same_view && progress < Progress::Prepared) {
            let is_own_proposal = self.primary() == self.id && vote.statement.sequence > self.proposer.new_view_max;
            let batch = slot.batch(&vote.statement.digest).filter(|_| is_own_proposal);
            messages.push(match batch.filter(|_| progress < Progress::PrePrepared) {
                Some(batch) => Message::PrePrepare(PrePrepare { vote: *vote, batch: batch.body().clone().into() }),
                None => Message::Prepare(*vote),
            });
        }
        if let Some(vote) = slot.commits.of(self.id).filter(|_| progress < Progress::CommittedWithoutBatch) {
            messages.push(Message::Commit(*vote));
        }
    }

    /// Sends a peer what it lacks or asked for, which carries so many bytes whole, unless it has had its share.
    fn answer(&mut self, to: ReplicaId, bytes: usize, message: Message) -> bool {
        let is_enough = self.spend(to, SMALL_ANSWER_BYTES + bytes);
        if is_enough {
            self.send(to, message);
        }
        is_enough
    }

    /// Takes `bytes` from what a peer may still ask for in this interval.
    fn spend(&mut self, peer: ReplicaId, bytes: usize) -> bool {
        let budget = &mut self.peers[peer.index()].budget_bytes;
        let is_enough = *budget >= bytes;
        *budget = budget.saturating_sub(bytes);
        if !is_enough {
            self.refuse(Refusal::RateExceeded);
        }
        is_enough
    }

    pub(super) fn on_fetch(&mut self, from: ReplicaId, fetch: Fetch) {
        match fetch {
            Fetch::Batch { sequence, digest } => {
                let Some(batch) = self.log.batch(sequence, &digest).map(|batch| batch.body().clone()) else {
                    return self.refuse(Refusal::Nothing);
                };
                let bytes = batch.len();
                self.answer(from, bytes, Message::Batch(FetchedBatch { sequence, batch: batch.into() }));
            }
            Fetch::Decided { after } => self.send_decided(from, after),
            Fetch::ViewChange { digest } => {
                let entered = self.view_changes.entered.iter().flat_map(|(_, view_changes)| view_changes);
                let known = entered.chain(self.view_changes.latest.iter().flatten());
                let found = known.into_iter().find(|view_change| view_change.digest == digest);
                let Some(signed) = found.map(|view_change| view_change.signed.clone()) else {
                    return self.refuse(Refusal::Nothing);
                };
                self.answer(from, signed.body.len(), Message::ViewChange(signed));
            }
            Fetch::NewView { view } => {
                let Some(signed) = self.durable_new_view().filter(|_| self.view >= view) else {
                    return self.refuse(Refusal::Nothing);
                };
                self.answer(from, signed.body.len(), Message::NewView(signed));
            }
            Fetch::Part { sequence, want } => self.hand_out_part(from, sequence, want),
            Fetch::Statements { token } => {
                let said = self.statements_of(from, token);
                let bytes = STATEMENT_BYTES * (said.prepares.len() + said.commits.len());
                let bodies = said.view_change.iter().map(|signed| signed.body.len());
                let bodies: usize = bodies.chain(said.new_view.iter().map(|signed| signed.body.len())).sum();
                self.answer(from, bytes + bodies, Message::Statements(said));
            }
        }
    }

    /// Who asks for a part beyond its budget gets it with the next: it would take silence for a reason to ask another, and
    /// the whole would come from all in turn, liars among them.
    fn hand_out_part(&mut self, to: ReplicaId, sequence: Sequence, want: Want) {
        if self.spend(to, PART_BYTES) {
            self.peers[to.index()].part_owed = None;
            self.outbox.push(Output::SendPart { to, sequence, want });
        } else {
            self.peers[to.index()].part_owed = Some((sequence, want));
        }
    }

    /// Gives each peer its next budget, and what it waits for.
    pub(super) fn renew_budgets(&mut self) {
        for peer in &mut self.peers {
            peer.budget_bytes = BUDGET_BYTES;
        }
        for id in self.configuration.replicas() {
            if let Some((sequence, want)) = self.peers[id.index()].part_owed.take() {
                self.hand_out_part(id, sequence, want);
            }
        }
    }

    fn send_decided(&mut self, to: ReplicaId, after: Sequence) {
        for offset in 1..=DECIDED_MAX {
            let sequence = after.saturating_add(offset);
            let Some((certificate, batch)) = self.log.decided(sequence) else { return };
            let decided = Decided { certificate: certificate.clone(), batch: batch.body().clone().into() };
            if !self.answer(to, decided.batch.len(), Message::Decided(decided)) {
                return;
            }
        }
    }

    /// When to look again whether what was asked for came.
    pub(super) fn fetch_due(&self) -> Option<crate::time::Time> {
        let asked = self.catching_up.asked.map(|(_, _, at)| at.after(self.fetch_patience()));
        let transfer = self.catching_up.transfer.as_ref();
        let parted = transfer.and_then(|transfer| transfer.due(self.part_patience()));
        // What is overdue already is looked at with every status, not at once again.
        let batches = self.catching_up.batches_asked.values().map(|asked| asked.at.after(self.batch_patience()));
        let due = asked.into_iter().chain(parted).chain(batches).chain(self.unshown_due());
        due.filter(|at| *at > self.now.monotonic).min()
    }

    /// How long an answer may take before somebody else is asked.
    pub(super) fn fetch_patience(&self) -> Duration {
        self.parameters().heartbeat() * 3
    }

    /// The same for a batch.
    fn batch_patience(&self) -> Duration {
        self.parameters().heartbeat()
    }

    /// Asks for whatever this replica lacks and has not asked for lately.
    pub(super) fn try_catch_up(&mut self) {
        self.fetch_view_changes();
        self.await_unshown();
        self.fetch_batches();
        self.fetch_new_view();
        if self.catching_up.transfer.is_some() {
            return self.watch_transfer();
        }
        if self.execution.is_diverged {
            return self.begin_transfer();
        }
        let (issued, now) = (self.execution.issued, self.now.monotonic);
        let is_known_behind = self.peers.iter().filter_map(|peer| peer.status.as_ref()).any(|s| s.executed > issued);
        let certified = self.highest_certified();
        if !is_known_behind && certified <= issued {
            self.catching_up.stuck = None;
            self.catching_up.asked = None;
            return;
        }
        let since = match self.catching_up.stuck {
            Some((at, since)) if at == issued => since,
            Some(_) | None => {
                self.catching_up.stuck = Some((issued, now));
                now
            }
        };
        let standstill = now.since(since);
        let is_waiting = self
            .catching_up
            .asked
            .is_some_and(|(_, after, at)| after == issued && now.since(at) < self.fetch_patience());
        if standstill < self.parameters().heartbeat() || is_waiting {
            return;
        }
        let all_asked = self.fetch_patience() * u32::try_from(self.configuration.size()).unwrap_or(u32::MAX);
        match self.next_source(issued).filter(|_| certified <= issued || standstill < all_asked) {
            Some(source) => self.fetch_decided(source),
            None => self.begin_transfer(),
        }
    }

    /// The highest slot whose state a quorum is known to vouch for, in this epoch or a later one.
    fn highest_certified(&self) -> Sequence {
        let ahead = self.catching_up.ahead.as_ref().map(|certificate| certificate.statement.sequence);
        self.log.low().max(ahead.unwrap_or_default())
    }

    fn fetch_decided(&mut self, source: ReplicaId) {
        let after = self.execution.issued;
        self.catching_up.asked = Some((source, after, self.now.monotonic));
        self.send(source, Message::Fetch(Fetch::Decided { after }));
    }

    /// The next peer, after the one asked last, that says it can hand out the slot after `issued`.
    fn next_source(&self, issued: Sequence) -> Option<ReplicaId> {
        let last = self.catching_up.asked.map_or(self.id, |(last, _, _)| last);
        let has_next = |id: &ReplicaId| {
            let status = self.peers[id.index()].status.as_ref();
            status.is_some_and(|s| s.executed > issued && s.decided_from <= issued.saturating_add(1))
        };
        self.others().after(last).find(has_next)
    }

    /// After all of an answer was used, asks the same peer for more at once.
    pub(super) fn continue_catching_up(&mut self) {
        let Some((source, after, _)) = self.catching_up.asked else { return };
        let issued = self.execution.issued;
        let has_more = self.peers[source.index()].status.as_ref().is_some_and(|status| status.executed > issued);
        if issued.distance_from(after) >= DECIDED_MAX && has_more {
            self.fetch_decided(source);
        }
    }

    /// Asks for batches of slots that are decided, proposed by the new view, or voted for by enough, without being here: first
    /// those who voted for it, then the primary and the others in turn.
    pub(super) fn fetch_batches(&mut self) {
        let now = self.now.monotonic;
        let patience = self.batch_patience();
        let from = self.log.low().min(self.execution.issued);
        let missing: Vec<_> = self
            .log
            .slots_after(from)
            .filter_map(|(sequence, slot)| slot.missing_batch().map(|digest| (sequence, digest)))
            .take(SLOTS_MAX)
            .collect();
        let asked = &mut self.catching_up.batches_asked;
        asked.retain(|sequence, _| missing.iter().any(|(missing, _)| missing == sequence));
        for (sequence, digest) in missing {
            let times = match self.catching_up.batches_asked.get(&sequence) {
                Some(asked) if now.since(asked.at) < patience => continue,
                Some(asked) => asked.times,
                None => 0,
            };
            let of = self.source_of(sequence, &digest, times);
            self.catching_up.batches_asked.insert(sequence, Asked { at: now, of, times: times.wrapping_add(1) });
            self.send(of, Message::Fetch(Fetch::Batch { sequence, digest }));
        }
    }

    /// Whether the new view of exactly this view came of exactly this peer and waits for view changes. One of another view,
    /// or of somebody else, says nothing about it: a liar may have signed several.
    fn is_being_completed(&self, view: View, of: ReplicaId) -> bool {
        let incomplete = self.view_changes.incomplete[of.index()].as_ref();
        incomplete.is_some_and(|incomplete| incomplete.new_view.content.view == view)
    }

    /// Peers that are in a higher view than this replica asks for are asked for its new view.
    fn fetch_new_view(&mut self) {
        let wanted = self.wanted_view();
        let is_entered = self.mode == Mode::Normal;
        let ahead =
            |status: &Status| status.entered && (status.view > wanted || (status.view == wanted && !is_entered));
        let in_higher: Vec<(ReplicaId, View)> = self
            .configuration
            .replicas()
            .filter_map(|id| {
                let status = self.status_in_epoch(id)?;
                (ahead(status) && !self.is_being_completed(status.view, id)).then_some((id, status.view))
            })
            .collect();
        if in_higher.is_empty() {
            return;
        }
        let now = self.now.monotonic;
        if self.suspicion.new_view_asked.is_some_and(|at| now.since(at) < self.parameters().heartbeat()) {
            return;
        }
        self.suspicion.new_view_asked = Some(now);
        for (to, view) in in_higher {
            self.send(to, Message::Fetch(Fetch::NewView { view }));
        }
    }
}
