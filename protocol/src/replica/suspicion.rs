//! Suspecting the primary: proof, deadline, silence, crash. (PROTOCOL §6)

use core::time::Duration;

use super::{Mode, Replica};
use crate::output::Suspicion;
use crate::time::Time;

/// The ordering deadline is this many times the latency that requests achieve, within its bounds.
const DEADLINE_FACTOR: u32 = 8;

/// A primary that was never heard of counts as crashed only after this many times the bound.
const START_FACTOR: u32 = 8;

/// The latest measurement counts for one part in this many.
const LATENCY_SMOOTHING: u32 = 8;

impl Replica {
    /// Asks for the next view.
    pub(super) fn suspect(&mut self, reason: Suspicion) {
        let Some(to) = self.wanted_view().next() else { return };
        self.start_view_change(to, reason);
    }

    /// A bound, doubled with each view change in a row that brought no progress, up to the cap.
    fn backed_off(&self, bound: Duration) -> Duration {
        let doubled = 1_u32.checked_shl(self.suspicion.attempts).and_then(|factor| bound.checked_mul(factor));
        let cap = self.parameters().deadline_cap();
        doubled.map_or(cap, |doubled| doubled.min(cap))
    }

    /// How long a request may wait: a multiple of the latency achieved, within the configured bounds.
    fn ordering_deadline(&self) -> Duration {
        let adapted = self.suspicion.latency.saturating_mul(DEADLINE_FACTOR);
        self.backed_off(adapted.max(self.parameters().ordering_deadline()))
    }

    fn silence_bound(&self) -> Duration {
        self.backed_off(self.parameters().ordering_deadline())
    }

    fn crash_bound(&self) -> Duration {
        self.backed_off(self.parameters().crash_suspicion())
    }

    /// When the first reason to suspect the primary arises, if nothing happens before.
    pub(super) fn suspicion_due(&mut self) -> Option<Time> {
        if self.mode != Mode::Normal || self.is_primary() {
            return None;
        }
        let due = [Some(self.crash_due()), self.deadline_due(), self.silence_due()];
        due.into_iter().flatten().min()
    }

    /// No status of the primary since the view was entered, or since the last one. One that was never heard of may be
    /// starting, as this replica is, and gets more time.
    fn crash_due(&self) -> Time {
        match self.peers[self.primary().index()].heard {
            Some(heard) => heard.max(self.suspicion.since).after(self.crash_bound()),
            None => self.suspicion.since.after(self.backed_off(self.parameters().crash_suspicion() * START_FACTOR)),
        }
    }

    /// The oldest request that is expected waits too long, counted from its arrival or the entry into the view. Progress
    /// on others does not restart it.
    fn deadline_due(&mut self) -> Option<Time> {
        let arrived = self.queue.oldest()?;
        Some(arrived.max(self.suspicion.since).after(self.ordering_deadline()))
    }

    /// Work is pending and nothing is proposed. A full window is not silence.
    fn silence_due(&mut self) -> Option<Time> {
        let arrived = self.queue.oldest()?;
        let is_window_full = self.log.slot(self.log.high()).is_some_and(|slot| slot.cast.is_some());
        let since = self.suspicion.last_proposal.max(self.suspicion.since).max(arrived);
        (!is_window_full).then(|| since.after(self.silence_bound()))
    }

    pub(super) fn suspect_if_due(&mut self) {
        if self.mode != Mode::Normal || self.is_primary() {
            return;
        }
        let now = self.now.monotonic;
        if self.crash_due() <= now {
            return self.suspect(Suspicion::Crash);
        }
        // Nobody is blamed for a request that can't be ordered any more. (PROTOCOL §4.6)
        self.forget_answered();
        if self.silence_due().is_some_and(|due| due <= now) {
            self.suspect(Suspicion::Silence);
        } else if self.deadline_due().is_some_and(|due| due <= now) {
            self.suspect(Suspicion::Deadline);
        }
    }

    /// When the new view is late. (PROTOCOL §7.2)
    pub(super) fn new_view_due(&self) -> Option<Time> {
        let Mode::ViewChange { .. } = self.mode else { return None };
        let since = self.suspicion.new_view_since?;
        Some(since.after(self.backed_off(self.parameters().ordering_deadline())))
    }

    pub(super) fn give_up_new_view_if_due(&mut self) {
        if self.new_view_due().is_some_and(|due| due <= self.now.monotonic) {
            self.suspect(Suspicion::NewViewLate);
        }
    }

    /// A view was entered: what is expected is expected from now on.
    pub(super) fn note_view_entered(&mut self) {
        self.suspicion.since = self.now.monotonic;
        self.suspicion.last_proposal = self.now.monotonic;
        self.suspicion.new_view_since = None;
        if self.queue.len() == 0 {
            self.suspicion.attempts = 0;
        }
    }

    /// A request that arrived then was executed. If none was expected longer, the bounds return to their base.
    pub(super) fn note_progress(&mut self, arrived: Time, is_oldest: bool) {
        let latency = self.now.monotonic.since(arrived);
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
            self.suspicion.new_view_since = self.suspicion.new_view_since.map(|_| now);
        }
    }
}
