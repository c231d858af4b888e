//! What goes to and comes from clients.

use bytes::Bytes;
use quorate_protocol::codec::Blob;
use quorate_protocol::input::Input;
use quorate_protocol::message::{ClientMessage, ReplicaMessage, from_frame, to_frame};
use quorate_protocol::number::ReplicaId;
use quorate_protocol::verify::verify_requests;

use super::{Event, World};
use crate::checker::{Invariant, Observation};
use crate::client::{Answer, Recipient, Sending, Ticket};
use crate::network::Endpoint;

impl World {
    /// A client calls: its operations are to run together, in order.
    pub fn call(&mut self, client: usize, operations: Vec<Blob>) -> Ticket {
        let ticket = self.clients[client].call(self.time, operations);
        self.observe(&Observation::Called(ticket));
        self.drive_client(client);
        ticket
    }

    /// What came of a call, once enough replicas answered it.
    pub fn answer_to(&self, ticket: Ticket) -> Option<&Answer> {
        self.clients[ticket.client].answer(ticket.call)
    }

    /// All calls that are not answered.
    pub fn unanswered(&self) -> Vec<Ticket> {
        self.clients.iter().flat_map(|client| client.unanswered().map(|(ticket, _)| ticket)).collect()
    }

    pub(super) fn drive_client(&mut self, client: usize) {
        for sending in self.clients[client].send_what_is_due(self.time) {
            self.send_request(client, sending);
        }
        if let Some(when) = self.clients[client].take_wake(self.time) {
            self.schedule(when, Event::WakeClient { client });
        }
    }

    fn send_request(&mut self, client: usize, sending: Sending) {
        let Sending { to, request, content } = sending;
        self.observe(&Observation::Signed(&content));
        let frame = to_frame(&ClientMessage::Request(request)).expect("a request is short");
        let primary = self.configuration.primary(self.clients[client].view());
        for to in self.replicas().filter(|id| to == Recipient::All || *id == primary) {
            for arrival in self.network.send(self.time, Endpoint::Client(client), Endpoint::Replica(to)) {
                self.schedule(arrival, Event::Call { from: client, to, frame: frame.clone() });
            }
        }
    }

    pub(super) fn on_call(&mut self, from: usize, to: ReplicaId, frame: &Bytes) {
        if !self.network.is_open(Endpoint::Client(from), Endpoint::Replica(to)) {
            return;
        }
        let request = match from_frame(frame) {
            Ok(ClientMessage::Request(request)) => request,
            other => return self.report(Invariant::Understanding, format!("client {from} sent {other:?}")),
        };
        for result in verify_requests(vec![request], &self.configuration, &mut &self.notary) {
            match result {
                Ok(request) => {
                    self.note(|| format!("client {from} -> {to}: request {}", request.request.number));
                    self.feed(to, Input::Request(request));
                }
                Err(invalid) => self.report(Invariant::Understanding, format!("client {from} is refused: {invalid}")),
            }
        }
    }

    pub(super) fn on_answer(&mut self, from: ReplicaId, to: usize, frame: &Bytes) {
        let message: ReplicaMessage = match from_frame(frame) {
            Ok(message) => message,
            Err(error) => {
                if !self.checkers.is_faulty(from) {
                    self.report(Invariant::Understanding, format!("{from} answers what is {error}"));
                }
                return;
            }
        };
        if let Some(ticket) = self.clients[to].on_message(self.time, from, message) {
            self.note(|| format!("client {to}: call {} is answered", ticket.call));
            self.observe(&Observation::Answered(ticket));
        }
        self.drive_client(to);
    }
}
