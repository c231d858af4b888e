//! Suspecting the primary: proof, deadline, silence, slowness, crash. (PROTOCOL §6)
//!
//! A suspicion is said first and goes as it came; only a weak quorum of those who suspect leaves the view, or gives up the
//! one that is late. A replica that left alone could not come back, and the others would lack its vote for as long as they
//! went on without it.

use core::time::Duration;

use super::{Mode, Replica};
use crate::number::ReplicaId;
use crate::output::{Notice, Output, Suspicion};
use crate::time::Time;

/// The ordering deadline is this many times the latency that requests achieve, within its bounds.
const DEADLINE_FACTOR: u32 = 8;

/// And never below this many times its parameter: what all clients repeat to all replicas in a first burst waits behind what
/// they had not to repeat.
const DEADLINE_FLOOR_FACTOR: u32 = 2;

/// A primary that is asked, and a new one that is told of a view change, may take this many times as long to answer as slots take
/// from their proposal to their execution, if that is more than the bounds: each is two messages on their way.
const ORDERING_FACTOR: u32 = 2;

/// A primary that was never heard of counts as crashed only after this many times the bound.
const START_FACTOR: u32 = 8;

/// A member that asks for a higher view in vain is fetched by a view change after this many times the cap of the bounds: a
/// liar must not be able to change views often.
const STRANDED_FACTOR: u32 = 2;

/// The latest measurement counts for one part in this many.
const LATENCY_SMOOTHING: u32 = 8;

impl Replica {
    /// Begins to suspect the primary of the view that it is in or asks for, and says so at once.
    pub(super) fn suspect(&mut self, reason: Suspicion) {
        // A proof takes the place of what may be taken back.
        if self.suspicion.of_primary.is_some_and(|before| before == reason || reason != Suspicion::Proof) {
            return;
        }
        self.suspicion.of_primary = Some(reason);
        self.outbox.push(Output::Notice(Notice::PrimarySuspected { view: self.wanted_view(), reason }));
        self.hurry_status();
        self.try_leave();
    }

    /// Takes back a suspicion whose reason is gone. A proof stays one, and a view that is late is late until it is entered.
    pub(super) fn reconsider_suspicion(&mut self) {
        if self.suspicion.of_primary.is_some_and(|reason| reason != Suspicion::Proof) && self.mode == Mode::Normal {
            self.suspicion.of_primary = self.reason_to_suspect();
        }
    }

    /// Leaves the view that it is in or asks for once a weak quorum suspects its primary or has left it: one of them is
    /// correct.
    pub(super) fn try_leave(&mut self) {
        let gone = self.configuration.replicas().filter(|id| self.suspects_or_left(*id)).count();
        if gone < self.configuration.weak_quorum() || !self.may_leave() {
            return;
        }
        let Some(to) = self.view_after_wanted() else { return };
        self.start_view_change(to, self.suspicion.of_primary.unwrap_or(Suspicion::Joined));
    }

    fn suspects_or_left(&self, id: ReplicaId) -> bool {
        let view = self.wanted_view();
        let left = self.view_changes.latest[id.index()].as_ref().is_some_and(|latest| latest.content.view > view);
        let suspects = if id == self.id {
            self.suspicion.of_primary.is_some()
        } else {
            let status = self.status_in_epoch(id);
            status.is_some_and(|status| status.suspects && status.view == view)
        };
        left || suspects
    }

    /// A bound, doubled with each view change in a row that brought no progress, up to the cap.
    fn backed_off(&self, bound: Duration) -> Duration {
        let doubled = 1_u32.checked_shl(self.suspicion.attempts).and_then(|factor| bound.checked_mul(factor));
        let cap = self.parameters().deadline_cap();
        doubled.map_or(cap, |doubled| doubled.min(cap))
    }

    /// How long a request may wait: a multiple of the latency achieved, within the configured bounds. What a primary adds to
    /// it beyond what is tolerated counts for nothing, or one that slows down little by little would win ever more time.
    fn ordering_deadline(&self) -> Duration {
        let adapted = self.suspicion.latency.saturating_mul(DEADLINE_FACTOR);
        self.backed_off(adapted.max(self.parameters().ordering_deadline() * DEADLINE_FLOOR_FACTOR))
    }

    /// What arrived up to then has waited for half of the deadline in this view; `None` while nothing can have.
    pub(super) fn half_late(&self) -> Option<Time> {
        let half = self.ordering_deadline() / 2;
        let now = self.now.monotonic;
        (now.since(self.suspicion.since) >= half).then(|| now.before(half))
    }

    /// How long an answer of the primary may take: its parameter, or longer where the links are that slow.
    fn silence_bound(&self) -> Duration {
        self.backed_off(self.parameters().ordering_deadline().max(self.ordering().saturating_mul(ORDERING_FACTOR)))
    }

    fn crash_bound(&self) -> Duration {
        self.backed_off(self.parameters().crash_suspicion())
    }

    /// When the first reason to suspect the primary arises, if nothing happens before.
    pub(super) fn suspicion_due(&mut self) -> Option<Time> {
        if self.mode != Mode::Normal || self.is_primary() || !self.is_voter() || self.suspicion.of_primary.is_some() {
            return None;
        }
        let due = [Some(self.crash_due()), self.deadline_due(), self.silence_due(), self.stranded_due()];
        due.into_iter().flatten().min()
    }

    /// Nothing was heard of the primary since the view was entered, or since its last message.
    fn crash_due(&self) -> Time {
        match self.peers[self.primary().index()].heard {
            Some(heard) => heard.max(self.suspicion.since).after(self.crash_bound()),
            None => self.start_due(),
        }
    }

    /// A primary that was never heard of may be starting, as this replica is, and gets more time for everything.
    fn start_due(&self) -> Time {
        match self.peers[self.primary().index()].heard {
            Some(_) => Time::ZERO,
            None => self.suspicion.since.after(self.backed_off(self.parameters().crash_suspicion() * START_FACTOR)),
        }
    }

    /// Since when something is expected: the oldest request, or that slots fill up to the end of the epoch. (PROTOCOL §11)
    fn expected_since(&mut self) -> Option<Time> {
        let ending = self.execution.ending_since;
        self.queue.oldest().into_iter().chain(ending).min()
    }

    /// The oldest request that is expected waits too long, counted from its arrival or the entry into the view. Progress
    /// on others does not restart it. While all of the window is executed nothing can be ordered, and that is not counted, nor
    /// is the last time that it was so.
    fn deadline_due(&mut self) -> Option<Time> {
        let begun = self.expected_since()?.max(self.suspicion.since);
        let due = begun.after(self.ordering_deadline()).max(self.start_due());
        if let Some(since) = self.suspicion.done_since {
            return Some(due).filter(|due| *due <= since);
        }
        let done = self.suspicion.done.map_or(Duration::ZERO, |(from, until)| until.since(from.max(begun)));
        Some(due.after(done))
    }

    /// Work is pending and nothing is proposed. A full window is not silence.
    fn silence_due(&mut self) -> Option<Time> {
        let arrived = self.expected_since()?;
        let since = self.suspicion.last_proposal.max(self.suspicion.since).max(arrived);
        (!self.is_window_full()).then(|| since.after(self.silence_bound()).max(self.start_due()))
    }

    /// Whether the primary has proposed all that it can before the next checkpoint is stable.
    fn is_window_full(&self) -> bool {
        self.log.slot(self.log.high()).is_some_and(|slot| slot.cast.is_some() || slot.committed.is_some())
    }

    /// A slot was executed: maybe the last of the window.
    pub(super) fn note_window_done(&mut self) {
        if self.execution.executed >= self.log.high() {
            self.suspicion.done_since = Some(self.now.monotonic);
        }
    }

    /// The window moves: what the primary could not do before is not held against it.
    pub(super) fn note_window_moves(&mut self) {
        let now = self.now.monotonic;
        if self.is_window_full() {
            self.suspicion.last_proposal = now;
        }
        if let Some(since) = self.suspicion.done_since.take() {
            self.suspicion.done = Some((since, now));
            self.queue.forget_copies();
        }
    }

    /// Another member left this view, and nobody followed. What made it leave is gone, as with a crash, or was its own loss;
    /// it can't come back but to a higher view.
    fn stranded_due(&self) -> Option<Time> {
        let since = self.peers.iter().filter_map(|peer| peer.outside_since).min()?;
        Some(since.max(self.suspicion.since).after(self.parameters().deadline_cap() * STRANDED_FACTOR))
    }

    /// Notes whether a peer asks for a higher view than this replica's.
    pub(super) fn note_standing(&mut self, of: ReplicaId) {
        let (view, now) = (self.view, self.now.monotonic);
        let peer = &mut self.peers[of.index()];
        let is_outside = peer.status.as_ref().is_some_and(|status| status.view > view && !status.entered);
        peer.outside_since = is_outside.then(|| peer.outside_since.unwrap_or(now));
    }

    pub(super) fn suspect_if_due(&mut self) {
        if let Some(reason) = self.reason_to_suspect() {
            self.suspect(reason);
        }
    }

    fn reason_to_suspect(&mut self) -> Option<Suspicion> {
        if self.mode != Mode::Normal || self.is_primary() || !self.is_voter() {
            return None;
        }
        let now = self.now.monotonic;
        if self.crash_due() <= now {
            return Some(Suspicion::Crash);
        }
        // Nobody is blamed for a request that can't be ordered any more. (PROTOCOL §4.6)
        self.forget_answered();
        if self.silence_due().is_some_and(|due| due <= now) {
            return Some(Suspicion::Silence);
        }
        if self.deadline_due().is_some_and(|due| due <= now) {
            return Some(Suspicion::Deadline);
        }
        if self.is_primary_slow() {
            return Some(Suspicion::Slowness);
        }
        self.stranded_due().is_some_and(|due| due <= now).then_some(Suspicion::Stranded)
    }

    /// When the new view is late. (PROTOCOL §7.2)
    pub(super) fn new_view_due(&self) -> Option<Time> {
        if self.mode == Mode::Normal || self.suspicion.of_primary.is_some() || !self.is_voter() {
            return None;
        }
        let since = self.suspicion.new_view_since?;
        Some(since.after(self.silence_bound()))
    }

    pub(super) fn suspect_if_new_view_is_late(&mut self) {
        if self.new_view_due().is_some_and(|due| due <= self.now.monotonic) {
            self.suspect(Suspicion::NewViewLate);
        }
    }

    /// A view was entered, from one with that primary: what is expected is expected from now on.
    pub(super) fn note_view_entered(&mut self, from: ReplicaId) {
        self.suspicion.pace.note_end_of(from, self.now.monotonic);
        self.suspicion.since = self.now.monotonic;
        self.suspicion.last_proposal = self.now.monotonic;
        self.suspicion.done = None;
        self.suspicion.done_since = None;
        self.note_window_done();
        self.suspicion.new_view_since = None;
        self.suspicion.of_primary = None;
        if self.queue.len() == 0 {
            self.suspicion.attempts = 0;
        }
    }

    /// A request that arrived then was executed. If none was expected longer, the bounds return to their base.
    pub(super) fn note_progress(&mut self, arrived: Time, is_oldest: bool) {
        let latency = self.now.monotonic.since(arrived).min(self.latency_max());
        let smoothed = self.suspicion.latency * (LATENCY_SMOOTHING - 1) + latency;
        self.suspicion.latency = smoothed / LATENCY_SMOOTHING;
        if is_oldest && self.mode == Mode::Normal {
            self.suspicion.attempts = 0;
        }
    }

    /// A replica that was stopped itself for a while has heard nobody and accuses nobody for it: its own heartbeat would
    /// have woken it long before.
    pub(super) fn notice_own_pause(&mut self, now: Time) {
        let pause = now.since(self.suspicion.last_input);
        self.suspicion.last_input = now;
        if pause >= self.parameters().heartbeat() * 2 {
            self.suspicion.since = now;
            self.suspicion.last_proposal = now;
            self.queue.forget_copies();
            self.suspicion.new_view_since = self.suspicion.new_view_since.map(|_| now);
        }
    }
}
