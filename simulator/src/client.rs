//! A client on its host: the real state machine, with the tickets that tests call by. (PROTOCOL §4.1, §4.6, §12)

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_crypto::PublicKey;
use quorate_protocol::Now;
use quorate_protocol::application::Reading;
use quorate_protocol::client::{ClientError, ClientInput, ClientOptions, ClientOutput};
use quorate_protocol::codec::{Blob, List};
use quorate_protocol::configuration::Configuration;
use quorate_protocol::message::{ClientMessage, ReplicaMessage};
use quorate_protocol::number::{ReplicaId, RequestNumber, Sequence};
use quorate_protocol::time::{Time, WallTime};

use crate::signature::SharedSigner;

/// Names a call of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// The client, by its index.
    pub client: usize,
    /// The call's number.
    pub call: u64,
}

/// How a call executed, as far as its client knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// The slot; of a read that nobody ordered, one since which it has been so.
    pub sequence: Sequence,
    /// The request's place in the slot's batch; none, if nobody ordered it.
    pub index: Option<u32>,
    /// One result for each operation.
    pub results: Vec<Blob>,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// How it executed, or why the client does not know.
    pub outcome: Result<Executed, ClientError>,
    /// When the client took the answer, in true time.
    pub at: Time,
}

/// Something that a client sends.
#[derive(Debug)]
pub(crate) struct Sending {
    /// One replica, or all.
    pub(crate) to: Option<ReplicaId>,
    pub(crate) message: ClientMessage,
}

/// What a client did after an input.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) sendings: Vec<Sending>,
    /// Reads to ask of all.
    pub(crate) asked: Vec<(RequestNumber, Blob)>,
    pub(crate) answered: Vec<Ticket>,
    /// A wake-up to schedule.
    pub(crate) wake_at: Option<Time>,
}

impl Done {
    fn send(&mut self, to: Option<ReplicaId>, message: ClientMessage) {
        self.sendings.push(Sending { to, message });
    }
}

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    index: usize,
    key: PublicKey,
    /// How many replicas there are.
    replicas: usize,
    machine: quorate_protocol::client::Client,
    calls_made: u64,
    /// Calls without an answer, and when they were made.
    since: BTreeMap<u64, Time>,
    answers: BTreeMap<u64, Answer>,
    /// When each call was made.
    made: Vec<Time>,
    /// The earliest wake-up under way.
    pub(crate) wake_at: Option<Time>,
}

impl Client {
    pub(crate) fn new(
        index: usize,
        key: PublicKey,
        signer: SharedSigner,
        configuration: &Arc<Configuration>,
        jitter_seed: u64,
    ) -> Self {
        let (configuration, replicas) = (Arc::clone(configuration), configuration.size());
        let opening = RequestNumber::new(1);
        let options = ClientOptions { configuration, key, signer, opening, jitter_seed, opens_late: false };
        let now = Now { monotonic: Time::ZERO, wall: WallTime::ZERO };
        let machine = quorate_protocol::client::Client::new(options, now);
        Self {
            index,
            key,
            replicas,
            machine,
            calls_made: 0,
            since: BTreeMap::new(),
            answers: BTreeMap::new(),
            made: Vec::new(),
            wake_at: None,
        }
    }

    pub(crate) const fn key(&self) -> PublicKey {
        self.key
    }

    pub(crate) fn answer(&self, call: u64) -> Option<&Answer> {
        self.answers.get(&call)
    }

    /// How many calls were made before `moment`, and how many of them were answered by then.
    pub(crate) fn calls_answered_by(&self, moment: Time) -> (usize, usize) {
        let calls = self.made.iter().filter(|made| **made < moment).count();
        let is_answered = |call: &usize| self.answers.get(&(*call as u64)).is_some_and(|answer| answer.at <= moment);
        (calls, (0..calls).filter(is_answered).count())
    }

    /// Calls without an answer.
    pub(crate) fn unanswered(&self) -> impl Iterator<Item = Ticket> + '_ {
        self.since.keys().map(|&call| Ticket { client: self.index, call })
    }

    /// Notes a call, whose input is then to be handed in.
    pub(crate) fn call(&mut self, now: Time, operations: Vec<Blob>) -> (Ticket, ClientInput) {
        let ticket = self.note(now);
        let operations = List::new(operations).expect("a test calls with fewer than 4096 operations");
        (ticket, ClientInput::Submit { ticket: ticket.call, operations })
    }

    /// The same, of a read that need not be ordered.
    pub(crate) fn read(&mut self, now: Time, operation: Blob) -> (Ticket, ClientInput) {
        let ticket = self.note(now);
        (ticket, ClientInput::Read { ticket: ticket.call, operation })
    }

    fn note(&mut self, now: Time) -> Ticket {
        let call = self.calls_made;
        self.calls_made += 1;
        self.since.insert(call, now);
        self.made.push(now);
        Ticket { client: self.index, call }
    }

    /// What a replica's message means to the client.
    pub(crate) fn input(&self, from: ReplicaId, message: ReplicaMessage) -> Option<ClientInput> {
        match message {
            ReplicaMessage::Reply(reply) => Some(ClientInput::Reply { from, reply }),
            ReplicaMessage::Busy { client, number, retry_after_ms } if client == self.key => {
                Some(ClientInput::Busy { from, number, retry_after_ms })
            }
            ReplicaMessage::Refused { client, number, .. } if client == self.key => {
                Some(ClientInput::Refused { from, number })
            }
            ReplicaMessage::Read { client, number, answer } if client == self.key => {
                Some(ClientInput::ReadAnswer { from, number, answer })
            }
            ReplicaMessage::Busy { .. }
            | ReplicaMessage::Refused { .. }
            | ReplicaMessage::Read { .. }
            | ReplicaMessage::Status(_)
            | ReplicaMessage::Standby(_)
            | ReplicaMessage::Proved { .. }
            | ReplicaMessage::Checkpoint { .. }
            | ReplicaMessage::Part { .. } => None,
        }
    }

    /// Hands something in: what is to be done then.
    pub(crate) fn handle(&mut self, now: Time, input: ClientInput) -> Done {
        self.machine.handle(now, input);
        self.drain(now)
    }

    /// What is to be done now.
    pub(crate) fn drain(&mut self, now: Time) -> Done {
        let mut done = Done::default();
        while let Some(output) = self.machine.poll_output() {
            match output {
                ClientOutput::Send { to, request } => done.send(Some(to), ClientMessage::Request(request)),
                ClientOutput::SendAll(request) => done.send(None, ClientMessage::Request(request)),
                ClientOutput::Copy { except, request } => {
                    for to in ReplicaId::all(self.replicas).filter(|to| *to != except) {
                        done.send(Some(to), ClientMessage::Copy(request.clone()));
                    }
                }
                ClientOutput::Completed { ticket, sequence, index, results, .. } => {
                    let executed = Executed { sequence, index: Some(index), results: results.into_vec() };
                    done.answered.push(self.finish(ticket, now, Ok(executed)));
                }
                ClientOutput::Ask { number, operation } => done.asked.push((number, operation)),
                ClientOutput::Read { ticket, reading: Reading { result, since }, .. } => {
                    let executed = Executed { sequence: since, index: None, results: vec![result] };
                    done.answered.push(self.finish(ticket, now, Ok(executed)));
                }
                ClientOutput::Failed { ticket, error } => done.answered.push(self.finish(ticket, now, Err(error))),
            }
        }
        done.wake_at = self.take_wake(now);
        done
    }

    fn finish(&mut self, call: u64, now: Time, outcome: Result<Executed, ClientError>) -> Ticket {
        self.since.remove(&call);
        self.answers.insert(call, Answer { outcome, at: now });
        Ticket { client: self.index, call }
    }

    fn take_wake(&mut self, now: Time) -> Option<Time> {
        let deadline = self.machine.next_deadline()?.max(now);
        if self.wake_at.is_some_and(|at| at <= deadline) {
            return None;
        }
        self.wake_at = Some(deadline);
        Some(deadline)
    }
}
