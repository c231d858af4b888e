//! What replicas answer, and what follows from it. (PROTOCOL §4.6, §12)
//!
//! One replica's word counts for nothing. What a weak quorum says, a correct replica says: that is how a session opens. How it
//! is lost, and how a reply is given up, takes as many as a result does: what came of a request must be known to those who
//! answer the next read, too. What is answered must agree in everything but view and epoch, which are the
//! replica's own.

use alloc::vec::Vec;
use core::mem::take;

use super::answers::Counted;
use super::member_set::MemberSet;
use super::{Client, ClientError, ClientOutput, Outstanding, Phase};
use crate::message::{Outcome, Reply};
use crate::number::{ReplicaId, RequestNumber, Session};
use crate::time::Time;

impl Client {
    pub(super) fn on_reply(&mut self, now: Time, from: ReplicaId, reply: Reply) {
        if !self.is_member(from) || reply.client != self.key {
            self.statistics.ignored_replies += 1;
            return;
        }
        let has_moved = self.tracking.on_report(from, reply.epoch, reply.view);
        self.on_outcome(now, from, reply);
        if has_moved {
            self.redirect();
        }
    }

    fn on_outcome(&mut self, now: Time, from: ReplicaId, reply: Reply) {
        let Reply { session: named, number, outcome, .. } = reply;
        let answers_opening = named == Session::NONE && number == self.opening;
        match self.phase {
            Phase::Opening { .. } if answers_opening => self.on_opening_answered(now, from, outcome),
            Phase::Open { .. } if answers_opening => self.statistics.late_replies += 1,
            Phase::Open { session, .. } if named == session && number < self.next_number => {
                self.on_request_answered(now, from, number, outcome);
            }
            Phase::Closed | Phase::Opening { .. } | Phase::Open { .. } => self.statistics.ignored_replies += 1,
        }
    }

    /// The latest answer of each replica counts: an opening that executes again after its session was evicted opens
    /// another one, and correct replicas say so one after the other.
    fn on_opening_answered(&mut self, now: Time, from: ReplicaId, outcome: Outcome) {
        let session = match outcome {
            Outcome::Opened { session } if session != Session::NONE => session,
            Outcome::Superseded { opening } if opening > self.opening => return self.on_superseded(now, from, opening),
            Outcome::Opened { .. }
            | Outcome::Executed { .. }
            | Outcome::Evicted
            | Outcome::Forgotten
            | Outcome::Superseded { .. } => return self.catch(from),
        };
        let Phase::Opening { sending, .. } = &mut self.phase else { return };
        let equal = sending.answers.count_latest(from, outcome.digest());
        if equal >= self.configuration.weak_quorum() {
            self.patience.measure(now.since(sending.first_sent_at), 1);
            self.statistics.sessions_opened += 1;
            self.phase = Phase::Open { session, evicted_by: MemberSet::EMPTY };
        }
    }

    /// This key has opened a session with a higher number, by a clock that went ahead or from another process. A weak quorum
    /// claims or exceeds a number that a correct replica has seen: the next opening goes above it.
    fn on_superseded(&mut self, now: Time, from: ReplicaId, opening: RequestNumber) {
        let Phase::Opening { superseded, .. } = &mut self.phase else { return };
        superseded.insert(from, opening);
        let mut claims: Vec<RequestNumber> = superseded.values().copied().collect();
        claims.sort_unstable_by(|left, right| right.cmp(left));
        let Some(seen) = claims.get(self.configuration.weak_quorum() - 1) else { return };
        self.opening = seen.saturating_add(1);
        // Without a link nothing is opened now, and the old opening is not to be sent again.
        self.phase = Phase::Closed;
        self.open_session(now);
    }

    fn on_request_answered(&mut self, now: Time, from: ReplicaId, number: RequestNumber, outcome: Outcome) {
        if outcome == Outcome::Evicted {
            return self.on_evicted(from);
        }
        let Some(outstanding) = self.outstanding.get_mut(&number) else {
            self.statistics.late_replies += 1;
            return;
        };
        match &outcome {
            Outcome::Executed { results, .. } if results.len() == outstanding.operations_count => {
                self.on_executed(now, from, number, outcome);
            }
            Outcome::Forgotten => {
                outstanding.sending.answers.count_forgotten(from);
                self.give_up_lost_reply(number);
            }
            Outcome::Executed { .. } | Outcome::Opened { .. } | Outcome::Evicted | Outcome::Superseded { .. } => {
                self.catch(from);
            }
        }
    }

    fn on_executed(&mut self, now: Time, from: ReplicaId, number: RequestNumber, outcome: Outcome) {
        let Some(outstanding) = self.outstanding.get_mut(&number) else { return };
        let digest = outcome.digest();
        match outstanding.sending.answers.count_first(from, digest) {
            Counted::New(equal) if equal >= self.replies_needed => {}
            Counted::New(_) => return self.give_up_lost_reply(number),
            Counted::Known => return,
            Counted::Contradiction => return self.catch(from),
        }
        let differing = outstanding.sending.answers.differing(&digest);
        differing.iter().for_each(|liar| self.catch(liar));
        if let Some(outstanding) = self.outstanding.remove(&number) {
            self.complete(now, outstanding, outcome);
        }
    }

    /// A weak quorum no longer has the reply, and as many as make a result have executed the request: they say so, or gave
    /// results that will not come together any more.
    fn give_up_lost_reply(&mut self, number: RequestNumber) {
        let Some(outstanding) = self.outstanding.get(&number) else { return };
        let (forgotten, executed) = outstanding.sending.answers.forgotten();
        if forgotten >= self.configuration.weak_quorum() && executed >= self.replies_needed {
            let ticket = outstanding.ticket;
            self.outstanding.remove(&number);
            self.fail(ticket, ClientError::ReplyLost);
        }
    }

    fn complete(&mut self, now: Time, outstanding: Outstanding, outcome: Outcome) {
        let Outcome::Executed { sequence, index, results } = outcome else { return };
        let Outstanding { ticket, submitted_at, sending, .. } = outstanding;
        self.patience.measure(now.since(sending.first_sent_at), self.outstanding.len() + 1);
        self.statistics.completed += 1;
        let retries = sending.retries;
        self.outputs.push_back(ClientOutput::Completed { ticket, sequence, index, results, submitted_at, retries });
    }

    /// Says something about the session, whichever request it answers. Once it is true it stays true: a session's name is
    /// never used again.
    fn on_evicted(&mut self, from: ReplicaId) {
        let Phase::Open { evicted_by, .. } = &mut self.phase else { return };
        evicted_by.insert(from);
        if evicted_by.len() >= self.replies_needed {
            self.lose_session();
        }
    }

    /// No request of the session executes from now on. Any that was sent may have executed before, and its replies may be
    /// lost: nobody can tell. What was never sent waits for the next session.
    fn lose_session(&mut self) {
        self.statistics.sessions_lost += 1;
        self.phase = Phase::Closed;
        self.opening = self.opening.saturating_add(1);
        for outstanding in take(&mut self.outstanding).into_values() {
            self.fail(outstanding.ticket, ClientError::OutcomeUnknown);
        }
    }

    /// Settles an opening only: other requests that the configuration does not allow are never sent.
    pub(super) fn on_refused(&mut self, from: ReplicaId, number: RequestNumber) {
        self.statistics.refused += 1;
        let Phase::Opening { refused_by, .. } = &mut self.phase else { return };
        if self.configuration.member(from).is_none() || number != self.opening {
            return;
        }
        refused_by.insert(from);
        if refused_by.len() >= self.configuration.weak_quorum() {
            self.phase = Phase::Closed;
            for submission in take(&mut self.waiting) {
                self.fail(submission.ticket, ClientError::Refused);
            }
        }
    }

    fn catch(&mut self, liar: ReplicaId) {
        self.statistics.mismatched_replies += 1;
        self.liars.insert(liar);
    }
}
