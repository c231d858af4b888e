//! A client driven by hand: no clock, no network, the replicas are whoever the test says.

mod reads;
mod replies;
mod sending;
mod session;

use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};
use core::time::Duration;

use quorate_crypto::{Digest, PublicKey, Signature, SigningKey};

use super::{Client, ClientInput, ClientOptions, ClientOutput, Ticket};
use crate::batch::{OPERATIONS_MAX, Request, SignedRequest};
use crate::codec::{Blob, List, decode};
use crate::configuration::{ClusterId, Configuration, Member, Parameters};
use crate::message::{Outcome, Reply};
use crate::number::{Epoch, ReplicaId, RequestNumber, Sequence, Session, View};
use crate::statement::Signer;
use crate::time::{Now, Time};

const OPENING: RequestNumber = RequestNumber::new(1000);
const SESSION: Session = Session { sequence: Sequence::new(5), index: 2 };

/// Signs with a copy of the digest: enough where nobody checks.
#[derive(Debug)]
struct StandIn;

impl Signer for StandIn {
    fn sign(&self, digest: &Digest) -> Signature {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(digest.as_bytes());
        Signature::from_bytes(bytes)
    }
}

pub(super) fn key(seed: u8) -> PublicKey {
    SigningKey::from_seed([seed; 32]).public_key()
}

pub(super) fn configuration(size: u8) -> Configuration {
    configuration_with(size, Parameters::default())
}

fn configuration_with(size: u8, parameters: Parameters) -> Configuration {
    let member = |index: u8| Member {
        key: key(index),
        peer_address: "peer:1".to_string(),
        client_address: "client:1".to_string(),
    };
    let members = List::new((0..size).map(member).collect()).expect("few members");
    let cluster = ClusterId::new(Digest::from_bytes([1; 32]));
    Configuration::new(cluster, members, parameters).expect("a valid configuration")
}

fn replica(index: u8) -> ReplicaId {
    ReplicaId::new(index)
}

/// A client with a clock that the test moves.
struct Bench {
    client: Client,
    now: Time,
}

impl Deref for Bench {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Bench {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Bench {
    /// A client of `size` replicas whose opening was not sent for yet.
    fn new(size: u8, parameters: Parameters) -> Self {
        let now = Now { monotonic: Time::from_nanoseconds(1), ..Now::default() };
        let options = ClientOptions {
            configuration: Arc::new(configuration_with(size, parameters)),
            key: key(100),
            signer: Arc::new(StandIn),
            opening: OPENING,
            jitter_seed: 1,
            opens_late: false,
        };
        Self { client: Client::new(options, now), now: now.monotonic }
    }

    /// A client of four replicas whose session is open, with a window of `outstanding_max`.
    fn open(outstanding_max: u32) -> Self {
        Self::open_of(4, outstanding_max)
    }

    fn open_of(size: u8, outstanding_max: u32) -> Self {
        let mut bench = Self::new(size, Parameters { outstanding_max, ..Parameters::default() });
        bench.drain();
        for index in 0..=(size - 1) / 3 {
            bench.opened(index, SESSION);
        }
        assert_eq!(bench.session(), Some(SESSION));
        bench
    }

    fn drain(&mut self) -> Vec<ClientOutput> {
        core::iter::from_fn(|| self.client.poll_output()).collect()
    }

    fn step(&mut self, input: ClientInput) -> Vec<ClientOutput> {
        self.client.handle(self.now, input);
        self.drain()
    }

    fn submit(&mut self, ticket: Ticket) -> Vec<ClientOutput> {
        self.step(ClientInput::Submit { ticket, operations: operations(ticket) })
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    /// Goes to the next deadline and wakes the client.
    fn wake(&mut self) -> Vec<ClientOutput> {
        self.now = self.next_deadline().expect("something is outstanding");
        self.step(ClientInput::Wake)
    }

    fn reply_in_view(&mut self, from: u8, view: u64, number: u64, outcome: Outcome) -> Vec<ClientOutput> {
        let reply = Reply { view: View::new(view), ..reply(SESSION, number, outcome) };
        self.step(ClientInput::Reply { from: replica(from), reply })
    }

    fn reply(&mut self, from: u8, number: u64, outcome: Outcome) -> Vec<ClientOutput> {
        self.reply_in_view(from, 0, number, outcome)
    }

    fn opened(&mut self, from: u8, session: Session) -> Vec<ClientOutput> {
        let reply = reply(Session::NONE, OPENING.value(), Outcome::Opened { session });
        self.step(ClientInput::Reply { from: replica(from), reply })
    }

    /// Replicas 1 and 2 answer that `number` executed.
    fn settle(&mut self, number: u64) -> Vec<ClientOutput> {
        let mut outputs = self.reply(1, number, executed(number));
        outputs.extend(self.reply(2, number, executed(number)));
        outputs
    }
}

fn operations(ticket: Ticket) -> List<Blob, OPERATIONS_MAX> {
    List::new(vec![Blob::from(&ticket.to_le_bytes()[..])]).expect("one")
}

fn reply(session: Session, number: u64, outcome: Outcome) -> Reply {
    let number = RequestNumber::new(number);
    Reply { epoch: Epoch::ZERO, view: View::ZERO, client: key(100), session, number, outcome }
}

fn executed(number: u64) -> Outcome {
    executed_with(Sequence::new(10 + number), 0, b"done")
}

fn executed_with(sequence: Sequence, index: u32, result: &[u8]) -> Outcome {
    Outcome::Executed { sequence, index, results: List::new(vec![Blob::from(result)]).expect("one") }
}

fn parsed(request: &SignedRequest) -> Request {
    decode(request.body.bytes()).expect("the client encodes requests")
}

/// To whom each request goes (`None`: to all), and its number.
fn sent(outputs: &[ClientOutput]) -> Vec<(Option<ReplicaId>, u64)> {
    let sent_to = |output: &ClientOutput| match output {
        ClientOutput::Send { to, request } => Some((Some(*to), parsed(request).number.value())),
        ClientOutput::SendAll(request) => Some((None, parsed(request).number.value())),
        ClientOutput::Completed { .. }
        | ClientOutput::Failed { .. }
        | ClientOutput::Copy { .. }
        | ClientOutput::Ask { .. }
        | ClientOutput::Read { .. } => None,
    };
    outputs.iter().filter_map(sent_to).collect()
}

fn completed(outputs: &[ClientOutput]) -> Vec<Ticket> {
    let ticket = |output: &ClientOutput| match output {
        ClientOutput::Completed { ticket, .. } => Some(*ticket),
        ClientOutput::Send { .. }
        | ClientOutput::SendAll(_)
        | ClientOutput::Copy { .. }
        | ClientOutput::Failed { .. }
        | ClientOutput::Ask { .. }
        | ClientOutput::Read { .. } => None,
    };
    outputs.iter().filter_map(ticket).collect()
}
