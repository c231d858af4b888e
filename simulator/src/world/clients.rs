//! What goes to and comes from clients.

use bytes::Bytes;
use quorate_protocol::client::ClientInput;
use quorate_protocol::codec::{Blob, decode};
use quorate_protocol::input::Input;
use quorate_protocol::message::{ClientMessage, ReadAnswer, ReplicaMessage, from_frame, to_frame};
use quorate_protocol::number::{ReplicaId, RequestNumber};
use quorate_protocol::time::Time;
use quorate_protocol::verify::verify_requests;

use super::{Event, World};
use crate::checker::{Invariant, Observation};
use crate::client::{Answer, Done, Sending, Ticket};
use crate::marks::Mark;
use crate::network::Endpoint;
use crate::trace::{Flight, Lane};

impl World {
    /// A client calls: its operations are to run together, in order.
    pub fn call(&mut self, client: usize, operations: Vec<Blob>) -> Ticket {
        let (ticket, input) = self.clients[client].call(self.time, operations);
        self.observe(&Observation::Called(ticket));
        self.feed_client(client, input);
        ticket
    }

    /// A client calls for a read that need not be ordered.
    pub fn read(&mut self, client: usize, operation: Blob) -> Ticket {
        let (ticket, input) = self.clients[client].read(self.time, operation.clone());
        self.observe(&Observation::Reads(ticket, &operation));
        self.observe(&Observation::Called(ticket));
        self.feed_client(client, input);
        ticket
    }

    /// What came of a call, once enough replicas answered it.
    pub fn answer_to(&self, ticket: Ticket) -> Option<&Answer> {
        self.clients[ticket.client].answer(ticket.call)
    }

    /// All calls that are not answered.
    pub fn unanswered(&self) -> Vec<Ticket> {
        self.clients.iter().flat_map(crate::client::Client::unanswered).collect()
    }

    /// Whether every call is answered.
    pub fn is_all_answered(&self) -> bool {
        self.clients.iter().all(|client| client.unanswered().next().is_none())
    }

    /// Does what clients want to do before anything happened to them.
    pub(super) fn start_clients(&mut self) {
        for client in 0..self.clients.len() {
            let done = self.clients[client].drain(self.time);
            self.carry_out_client(client, done);
        }
    }

    pub(super) fn on_wake_client(&mut self, client: usize, at: Time) {
        if self.clients[client].wake_at.take_if(|wake_at| *wake_at == at).is_some() {
            self.feed_client(client, ClientInput::Wake);
        }
    }

    pub(super) fn feed_client(&mut self, client: usize, input: ClientInput) {
        let done = self.clients[client].handle(self.time, input);
        self.carry_out_client(client, done);
    }

    fn carry_out_client(&mut self, client: usize, done: Done) {
        let Done { sendings, asked, answered, wake_at } = done;
        for ticket in answered {
            self.note(|| format!("client {client}: call {} is answered", ticket.call));
            if let Some(answer) = self.answer_to(ticket).cloned() {
                if answer.outcome.as_ref().is_ok_and(|executed| executed.index.is_none()) {
                    self.spotter.reach(Mark::ReadUnordered);
                }
                self.observe(&Observation::Answered(ticket, &answer));
            }
        }
        for sending in sendings {
            self.send_request(client, sending);
        }
        for (number, operation) in asked {
            self.ask(client, number, operation);
        }
        if let Some(when) = wake_at {
            self.schedule(when, Event::WakeClient { client, at: when });
        }
    }

    fn send_request(&mut self, client: usize, sending: Sending) {
        let Sending { to, message } = sending;
        let (ClientMessage::Request(request) | ClientMessage::Copy(request)) = &message else { return };
        match decode(request.body.bytes()) {
            Ok(content) => self.observe(&Observation::Signed(&content)),
            Err(error) => self.report(Invariant::Understanding, format!("client {client} signs what is {error}")),
        }
        let text = request.claimed_id().map_or_else(|| "a request".to_owned(), |id| format!("request {}", id.number));
        self.say(client, to, &message, &text);
    }

    /// Asks all for a read.
    fn ask(&mut self, client: usize, number: RequestNumber, operation: Blob) {
        let message = ClientMessage::Read { client: self.clients[client].key(), number, operation };
        self.say(client, None, &message, &format!("read {number}"));
    }

    fn say(&mut self, client: usize, to: Option<ReplicaId>, message: &ClientMessage, text: &str) {
        let frame = to_frame(message).expect("a test calls for little");
        for id in self.replicas().filter(|id| to.is_none_or(|to| to == *id)) {
            let arrivals = self.network.send(self.time, Endpoint::Client(client), Endpoint::Replica(id));
            self.trace_with(|trace, sent| {
                let (from, to) = (Lane::Client(client), Lane::Replica(id));
                let arrived = arrivals.first().copied();
                trace.fly(Flight { from, to, sent, arrived, kind: "Call", slot: None, text: text.to_owned() });
            });
            for arrival in arrivals {
                self.schedule(arrival, Event::Call { from: client, to: id, frame: frame.clone() });
            }
        }
    }

    pub(super) fn on_call(&mut self, from: usize, to: ReplicaId, frame: &Bytes) {
        if !self.network.is_open(Endpoint::Client(from), Endpoint::Replica(to)) {
            return;
        }
        let (request, is_copy) = match from_frame(frame) {
            Ok(ClientMessage::Request(request)) => (request, false),
            Ok(ClientMessage::Copy(request)) => (request, true),
            Ok(ClientMessage::Read { number, operation, .. }) => return self.on_read(from, to, number, &operation),
            other => return self.report(Invariant::Understanding, format!("client {from} sent {other:?}")),
        };
        let is_rogue = from >= self.clients.len();
        let configuration = self.configuration_of(to);
        for result in verify_requests(vec![request], &configuration, &mut self.notary) {
            match result {
                Ok(request) => {
                    self.note(|| format!("client {from} -> {to}: request {}", request.request.number));
                    self.feed(to, if is_copy { Input::Copy(request) } else { Input::Request(request) });
                }
                Err(_) if is_rogue => {}
                Err(invalid) => self.report(Invariant::Understanding, format!("client {from} is refused: {invalid}")),
            }
        }
    }

    /// A correct replica reads what it may tell. Whoever is in the adversary's hands repeats what others tell, now and then: so
    /// that one who is behind and one who is ahead may seem to be a quorum.
    fn on_read(&mut self, from: usize, to: ReplicaId, number: RequestNumber, operation: &Blob) {
        if self.checkers.is_faulty(to) {
            return;
        }
        let host = &self.hosts[to.index()];
        let epoch = host.subject.as_ref().and_then(|subject| subject.reads_in());
        let answer = epoch.zip(host.read(operation)).map(|(epoch, reading)| ReadAnswer { epoch, reading });
        self.note(|| format!("client {from} -> {to}: read {number}: {answer:?}"));
        let client = self.clients[from].key();
        let is_told = answer.is_some();
        let message = ReplicaMessage::Read { client, number, answer };
        self.answer(to, &client, &message);
        if !is_told {
            return self.spotter.reach(Mark::ReadRefused);
        }
        let faulty = self.replicas().filter(|id| self.checkers.is_faulty(*id) && self.is_running(*id));
        for liar in faulty.collect::<Vec<_>>() {
            if self.read_random.below(2) == 0 {
                self.answer(liar, &client, &message);
            }
        }
    }

    pub(super) fn on_answer(&mut self, from: ReplicaId, to: usize, frame: &Bytes) {
        let message: ReplicaMessage = match from_frame(frame) {
            Ok(message) => message,
            Err(error) if self.checkers.is_faulty(from) => return self.note(|| format!("{from} answers: {error}")),
            Err(error) => return self.report(Invariant::Understanding, format!("{from} answers what is {error}")),
        };
        if let Some(rogue) = to.checked_sub(self.clients.len()) {
            return self.rogues[rogue].hear(&message);
        }
        if let Some(input) = self.clients[to].input(from, message) {
            self.feed_client(to, input);
        }
    }
}
