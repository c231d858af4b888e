//! The window of numbers, and to whom a request goes and when again. (PROTOCOL §4.1, §4.6)
//!
//! Each request that is on its way has been given to the *target*: the believed primary, or while the link to that one is
//! down the next replica in order, which passes requests on and is the next primary. After a time-out it goes to all.
//! About once a second one is copied to the others, the next one or, while all wait, the one that waits longest: nobody but the
//! client knows which, so that a primary cannot be fast where it is watched and slow elsewhere. (PROTOCOL §6)

use alloc::collections::{BTreeMap, VecDeque};
use core::time::Duration;

use super::member_set::MemberSet;
use super::patience::COPY_PATIENCE;
use super::request::{Outstanding, Sending, Submission};
use super::{Client, ClientError, ClientOutput, FIRST_NUMBER, Phase, WAITING_MAX};
use crate::batch::{OPERATIONS_MAX, Request, SignedRequest};
use crate::codec::{Blob, List};
use crate::number::{ReplicaId, RequestNumber, Session};
use crate::time::Time;

impl Client {
    pub(super) fn on_submit(&mut self, submission: Submission) {
        if let Some(refusal) = submission.refuse(&self.key, self.configuration.parameters()) {
            return self.fail(submission.ticket, refusal);
        }
        if self.waiting.len() >= WAITING_MAX {
            return self.fail(submission.ticket, ClientError::QueueFull);
        }
        self.waiting.push_back(submission);
    }

    /// Sends what waits, as far as session, window and links allow. What is not sent has no number yet.
    pub(super) fn send_waiting(&mut self, now: Time) {
        match self.phase {
            Phase::Closed if self.waiting.is_empty() => {}
            Phase::Closed => self.open_session(now),
            Phase::Opening { .. } => {}
            Phase::Open { session, .. } => {
                let Some(target) = self.target() else { return };
                while self.is_window_free()
                    && let Some(submission) = self.waiting.pop_front()
                {
                    self.send_first(now, session, submission, target);
                }
            }
        }
    }

    /// Opens a session, unless no link is up.
    pub(super) fn open_session(&mut self, now: Time) {
        let Some(target) = self.target() else { return };
        assert!(self.outstanding.is_empty(), "requests of a session are settled before the next is opened");
        let signed = self.sign(Session::NONE, self.opening, List::empty());
        let mut sending = Sending::new(signed, now, now.after(self.patience.wait(0)));
        hand(&mut self.outputs, &mut sending, target);
        self.next_number = FIRST_NUMBER;
        self.phase = Phase::Opening { sending, refused_by: MemberSet::EMPTY, superseded: BTreeMap::new() };
    }

    /// Whether the next number lies in the window that every replica has: one window's width above the lowest number that
    /// is not settled, whatever settled above that.
    fn is_window_free(&self) -> bool {
        let width = u64::from(self.configuration.parameters().outstanding_max);
        let lowest = self.outstanding.first_key_value().map_or(self.next_number, |(number, _)| *number);
        self.next_number < lowest.saturating_add(width)
    }

    fn send_first(&mut self, now: Time, session: Session, submission: Submission, target: ReplicaId) {
        let Submission { ticket, operations, submitted_at } = submission;
        let operations_count = operations.len();
        let number = self.next_number;
        self.next_number = number.next().expect("no session lives for 2^64 requests");
        let signed = self.sign(session, number, operations);
        let mut sending = Sending::new(signed, now, now.after(self.patience.wait(0)));
        hand(&mut self.outputs, &mut sending, target);
        if self.copies_from <= now {
            sending.is_copied = true;
            self.outputs.push_back(ClientOutput::Copy { except: target, request: sending.signed.clone() });
            self.copies_from = now.after(self.patience.until_copy());
        }
        self.outstanding.insert(number, Outstanding { ticket, submitted_at, operations_count, sending });
    }

    /// When a copy was due for so long that the next request is not waited for.
    pub(super) fn copy_due(&self) -> Option<Time> {
        let can_copy = self.outstanding.values().any(is_seen_by_one) && self.target().is_some();
        can_copy.then(|| self.copies_from.after(COPY_PATIENCE))
    }

    /// Copies the request that waits longest of those that the others have not seen.
    fn copy_oldest(&mut self, now: Time) {
        let Some(target) = self.target() else { return };
        let Some(oldest) = self.outstanding.values_mut().find(|outstanding| is_seen_by_one(outstanding)) else {
            return;
        };
        oldest.sending.is_copied = true;
        self.outputs.push_back(ClientOutput::Copy { except: target, request: oldest.sending.signed.clone() });
        self.copies_from = now.after(self.patience.until_copy());
    }

    fn sign(&self, session: Session, number: RequestNumber, operations: List<Blob, OPERATIONS_MAX>) -> SignedRequest {
        let request = Request { client: self.key, session, number, operations };
        let signed = request.sign(self.configuration.cluster(), &*self.signer);
        signed.expect("a submission is bounded when it is taken")
    }

    /// The replica that orders requests soonest, as far as is known; none if no link is up.
    pub(super) fn target(&self) -> Option<ReplicaId> {
        let primary = self.believed_primary();
        let from_primary_on = self.configuration.replicas().skip(primary.index());
        from_primary_on.chain(self.configuration.replicas()).find(|replica| !self.links_down.contains(*replica))
    }

    /// Gives the target what it was not given yet. What went to all went to it as well.
    pub(super) fn redirect(&mut self) {
        if let Some(target) = self.target() {
            self.hand_where(target, |_| true);
        }
    }

    pub(super) fn on_link_up(&mut self, replica: ReplicaId) {
        if !self.is_member(replica) {
            return;
        }
        self.links_down.remove(replica);
        // Answers went lost with the link, too: what was due to all is asked of this one again.
        self.hand_where(replica, |sending| sending.retries > 0);
        self.redirect();
    }

    pub(super) fn on_link_down(&mut self, replica: ReplicaId) {
        if !self.is_member(replica) {
            return;
        }
        self.links_down.insert(replica);
        sendings(&mut self.phase, &mut self.outstanding).for_each(|sending| sending.handed.remove(replica));
        self.on_reader_lost(replica);
        self.redirect();
    }

    /// The target is asked again when it says so; anyone else's word is not needed. Only the first answer since the last
    /// sending counts, and the time-out stays what it is: a liar wins no time.
    pub(super) fn on_busy(&mut self, now: Time, from: ReplicaId, number: RequestNumber, retry_after_ms: u32) {
        self.statistics.busy += 1;
        if self.target() != Some(from) {
            return;
        }
        let is_opening = number == self.opening;
        let sending = match &mut self.phase {
            Phase::Opening { sending, .. } if is_opening => Some(sending),
            Phase::Open { .. } => self.outstanding.get_mut(&number).map(|outstanding| &mut outstanding.sending),
            Phase::Closed | Phase::Opening { .. } => None,
        };
        if let Some(sending) = sending
            && sending.resend_at.is_none()
        {
            let asked = Duration::from_millis(retry_after_ms.into());
            sending.resend_at = Some(now.after(self.patience.stay_away(asked)));
        }
    }

    pub(super) fn on_wake(&mut self, now: Time) {
        if self.copy_due().is_some_and(|due| due <= now) {
            self.copy_oldest(now);
        }
        self.on_timeouts(now);
        self.on_late_reads(now);
        let Some(target) = self.target() else { return };
        let Self { phase, outstanding, outputs, statistics, .. } = self;
        let is_due = |sending: &&mut Sending| sending.resend_at.is_some_and(|resend_at| resend_at <= now);
        for sending in sendings(phase, outstanding).filter(is_due) {
            hand(outputs, sending, target);
            statistics.resent_after_busy += 1;
        }
    }

    /// Sends to all whatever waited too long.
    fn on_timeouts(&mut self, now: Time) {
        let Self { configuration, phase, outstanding, links_down, patience, outputs, statistics, .. } = self;
        let reached: MemberSet = configuration.replicas().filter(|replica| !links_down.contains(*replica)).collect();
        for sending in sendings(phase, outstanding).filter(|sending| sending.deadline <= now) {
            sending.resend_at = None;
            if !reached.is_empty() {
                outputs.push_back(ClientOutput::SendAll(sending.signed.clone()));
                sending.handed.add(reached);
                sending.retries = sending.retries.saturating_add(1);
                statistics.retries += 1;
            }
            sending.deadline = now.after(patience.wait(sending.retries));
        }
    }

    /// Gives `replica` those requests that are `due` to it and that it was not given yet.
    fn hand_where(&mut self, replica: ReplicaId, due: impl Fn(&Sending) -> bool) {
        let Self { phase, outstanding, outputs, statistics, .. } = self;
        let is_due = |sending: &&mut Sending| !sending.handed.contains(replica) && due(sending);
        for sending in sendings(phase, outstanding).filter(is_due) {
            hand(outputs, sending, replica);
            statistics.redirected += 1;
        }
    }
}

/// Whether only who orders it was given a request.
const fn is_seen_by_one(outstanding: &Outstanding) -> bool {
    !outstanding.sending.is_copied && outstanding.sending.retries == 0
}

/// All requests that are on their way, the opening included.
fn sendings<'a>(
    phase: &'a mut Phase,
    outstanding: &'a mut BTreeMap<RequestNumber, Outstanding>,
) -> impl Iterator<Item = &'a mut Sending> {
    let opening = match phase {
        Phase::Opening { sending, .. } => Some(sending),
        Phase::Closed | Phase::Open { .. } => None,
    };
    opening.into_iter().chain(outstanding.values_mut().map(|outstanding| &mut outstanding.sending))
}

fn hand(outputs: &mut VecDeque<ClientOutput>, sending: &mut Sending, to: ReplicaId) {
    sending.handed.insert(to);
    sending.resend_at = None;
    outputs.push_back(ClientOutput::Send { to, request: sending.signed.clone() });
}
