//! Requests on their way into a batch. (PROTOCOL §4.1, §4.2, §4.6, §12)

use alloc::vec::Vec;

use super::{Mode, Replica};
use crate::batch::{Batch, ParsedRequest, SignedRequest};
use crate::message::{Message, Outcome, PrePrepare, Reply};
use crate::number::{ReplicaId, RequestNumber, Session};
use crate::output::Output;
use crate::queue::{Amount, BYTES_MAX};
use crate::refusal::Refusal;
use crate::sessions::Lookup;
use crate::statement::Prepare;
use crate::time::Time;
use crate::verify::Verified;

/// A batch that is not full leaves while fewer than so many others are in flight, and only once it holds as many requests
/// as they do together. A slot costs every replica a proposal, 2n votes and its syncs, however little it carries: under load
/// few batches carry many requests, and a single request still never waits. Full batches have the whole pipeline.
const PARTIAL_IN_FLIGHT_MAX: usize = 2;

/// What a backup passes on at once to the primary of a new view, or after half of the deadline; what is beyond is passed on
/// when its client repeats it.
const PASSED_ON_MAX: Amount = Amount { requests: 1024, bytes: 4 << 20 };

/// What one client's requests may take of the bytes that wait: one part in so many, at a primary together with what all
/// backups passed on.
const SHARE_OF_BYTES: usize = 2;

const _: () = assert!(
    BYTES_MAX / SHARE_OF_BYTES / ReplicaId::COUNT_MAX > 2 << 20,
    "the largest request fits into the share of its client at each replica"
);

impl Replica {
    /// A client's request, from the client itself.
    pub(super) fn on_request(&mut self, verified: Verified<ParsedRequest>) {
        if verified.epoch() != self.configuration.epoch() {
            return self.refuse(Refusal::Epoch);
        }
        self.take_request(verified.into_content());
    }

    /// Takes a request from who makes it, and passes it on.
    fn take_request(&mut self, request: ParsedRequest) {
        if let Some(refusal) = self.refuse_request(&request, self.share()) {
            self.refuse(refusal);
            if self.queue.contains(&request.request.id()) {
                // The client repeats itself: what was passed on before may be lost.
                self.pass_on(request.signed);
                return;
            }
            return self.answer_refused(&request, refusal);
        }
        let signed = request.signed.clone();
        self.queue.push(request, self.now.monotonic);
        self.pass_on(signed);
    }

    /// A copy of a request that the client gave to the primary: a backup sees how long that lets it wait, and keeps quiet
    /// about it as long as the primary may not lack it, or a primary would be told which requests are watched. (PROTOCOL §6)
    pub(super) fn on_copy(&mut self, verified: Verified<ParsedRequest>) {
        if verified.epoch() != self.configuration.epoch() {
            return self.refuse(Refusal::Epoch);
        }
        if self.is_primary() || self.mode != Mode::Normal {
            return self.take_request(verified.into_content());
        }
        match self.refuse_request(&verified, self.share()) {
            Some(refusal) => self.refuse(refusal),
            None => self.queue.push_copy(verified.into_content(), self.now.monotonic),
        }
    }

    /// When a copy waited so long that the primary may lack the request.
    pub(super) fn copies_due(&mut self) -> Option<Time> {
        let arrived = self.queue.oldest_copy()?;
        Some(arrived.after(self.held_for()))
    }

    /// Passes on the requests of which copies came, and which the primary may lack.
    pub(super) fn pass_on_copies(&mut self) {
        let now = self.now.monotonic;
        let requests = self.queue.release_copies(now.before(self.held_for()), now);
        self.pass_on_all(requests);
    }

    /// As a backup, passes a request on to the primary, and expects it to execute from its arrival on. (PROTOCOL §4.6)
    fn pass_on(&mut self, signed: SignedRequest) {
        if self.mode == Mode::Normal && self.primary() != self.id {
            let primary = self.primary();
            self.send(primary, Message::Request(signed));
        }
    }

    /// What a backup expects, the primary of a view just entered may never have had.
    pub(super) fn pass_on_queue(&mut self) {
        self.pass_on_all(self.queue.first(PASSED_ON_MAX));
    }

    /// What waited for half of the deadline may be lost, or found no room at the primary: there is time to try again.
    pub(super) fn pass_on_late(&mut self) {
        let Some(arrived) = self.half_late() else { return };
        if self.mode == Mode::Normal && !self.is_primary() {
            let requests = self.queue.repeat(arrived, PASSED_ON_MAX);
            self.pass_on_all(requests);
        }
    }

    fn pass_on_all(&mut self, requests: Vec<SignedRequest>) {
        for signed in requests {
            self.pass_on(signed);
        }
    }

    /// A request that a backup passed on: of use only to the primary. But a member's own wish to rejoin is expected by all.
    pub(super) fn on_passed_request(&mut self, from: ReplicaId, request: ParsedRequest) {
        if self.rejoin_of(&request).is_some_and(|(member, _)| member == from) {
            return self.take_request(request);
        }
        if !self.is_primary() {
            return self.refuse(Refusal::NotThePrimary);
        }
        // Whatever a backup took in of a client's, and expects from now on, finds room here.
        let Amount { requests, bytes } = self.share();
        let size = self.configuration.size();
        match self.refuse_request(&request, Amount { requests: requests * size, bytes: bytes * size }) {
            Some(refusal) => self.refuse(refusal),
            None => self.queue.push(request, self.now.monotonic),
        }
    }

    /// What the requests of one client may take that it hands in itself.
    fn share(&self) -> Amount {
        let requests = 2 * self.parameters().outstanding_max as usize;
        Amount { requests, bytes: BYTES_MAX / SHARE_OF_BYTES / self.configuration.size() }
    }

    fn refuse_request(&self, request: &ParsedRequest, share: Amount) -> Option<Refusal> {
        if self.queue.contains(&request.request.id()) {
            return Some(Refusal::Duplicate);
        }
        if let Some((member, rejoin)) = self.rejoin_of(request) {
            let is_open = self.may_rejoin(member, &rejoin) && self.queue.has_room(request, share);
            return (!is_open).then_some(Refusal::OutsideSession);
        }
        match self.sessions.lookup(&request.request, self.execution.issued) {
            Lookup::Answer(_) => return Some(Refusal::Executed),
            Lookup::InExecution => return Some(Refusal::Duplicate),
            Lookup::OutsideWindow | Lookup::Superseded(_) => return Some(Refusal::OutsideSession),
            Lookup::NoSession => return Some(Refusal::NoSession),
            // The session may open in a slot that this replica has not executed yet.
            Lookup::Open | Lookup::SessionAhead => {}
        }
        if self.queue.has_room(request, share) { None } else { Some(Refusal::Busy) }
    }

    fn answer_refused(&mut self, request: &ParsedRequest, refusal: Refusal) {
        let content = &request.request;
        if self.rejoin_of(request).is_some() {
            return;
        }
        match self.sessions.lookup(content, self.execution.issued) {
            Lookup::Answer(outcome) => {
                return self.reply(content.client, content.session, content.number, outcome);
            }
            // The client's clock may have gone back: it learns where to go on.
            Lookup::Superseded(opening) => {
                let outcome = Outcome::Superseded { opening };
                return self.reply(content.client, content.session, content.number, outcome);
            }
            Lookup::NoSession if content.session.sequence <= self.execution.executed => {
                return self.reply(content.client, content.session, content.number, Outcome::Evicted);
            }
            Lookup::Open | Lookup::InExecution | Lookup::OutsideWindow | Lookup::NoSession | Lookup::SessionAhead => {}
        }
        if refusal == Refusal::Busy {
            let retry_after_ms = self.parameters().heartbeat_ms;
            self.outbox.push(Output::Busy { client: content.client, number: content.number, retry_after_ms });
        }
    }

    pub(super) fn reply(
        &mut self,
        client: quorate_crypto::PublicKey,
        session: Session,
        number: RequestNumber,
        outcome: Outcome,
    ) {
        let epoch = self.configuration.epoch();
        self.outbox.push(Output::Reply(Reply { epoch, view: self.view, client, session, number, outcome }));
    }

    /// Proposes batches while the pipeline, the watermarks and the waiting requests allow. (PROTOCOL §4.2)
    pub(super) fn try_propose(&mut self) {
        while self.is_primary() && self.is_time_to_propose() {
            let requests = self.queue.propose(self.configuration.parameters());
            if !requests.is_empty() {
                self.propose(Batch::new(self.now.wall, requests));
            } else if self.is_epoch_ending() {
                self.propose(Batch::empty());
            } else {
                return;
            }
        }
    }

    fn is_time_to_propose(&self) -> bool {
        let (waiting, in_flight) = (self.queue.unproposed_count(), &self.proposer.in_flight);
        if !self.log.is_within_watermarks(self.proposer.next) || !self.may_vote() {
            return false;
        }
        // Slots fill up to the checkpoint that ends the epoch, with whatever there is, and nothing goes beyond it.
        if let Some(end) = self.epoch_end() {
            return self.proposer.next <= end && (in_flight.len() as u64) < self.parameters().pipeline;
        }
        if waiting == 0 {
            return false;
        }
        if in_flight.is_empty() {
            return true;
        }
        if self.queue.fills_a_batch(self.parameters()) {
            return (in_flight.len() as u64) < self.parameters().pipeline;
        }
        let requests_in_flight: usize = in_flight.values().sum();
        in_flight.len() < PARTIAL_IN_FLIGHT_MAX && waiting >= requests_in_flight
    }

    fn propose(&mut self, batch: Batch) {
        let sequence = self.proposer.next;
        assert!(sequence > self.proposer.new_view_max, "the new view's own proposals stand");
        let epoch = self.configuration.epoch();
        let statement = Prepare { epoch, view: self.view, sequence, digest: batch.digest() };
        let vote = self.sign(statement);
        self.proposer.next = sequence.next().expect("slots do not run out");
        self.proposer.in_flight.insert(sequence, batch.requests().len());
        let message = Message::PrePrepare(PrePrepare { vote, batch: batch.body().clone().into() });
        self.cast(vote, Some(batch), message);
    }
}
