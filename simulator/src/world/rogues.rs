//! Clients in the adversary's hands: they sign what they like, and send it to whom they like. (PROTOCOL §1, §4.1, §12)
//!
//! Nothing of what they do may harm the replicas' agreement, nor keep others' calls from being answered.

use bytes::Bytes;
use quorate_crypto::{PublicKey, Signature};
use quorate_protocol::batch::{Request, SignedRequest};
use quorate_protocol::codec::{Blob, List};
use quorate_protocol::message::{ClientMessage, Outcome, ReplicaMessage, to_frame};
use quorate_protocol::number::{ReplicaId, RequestNumber, Sequence, Session};

use super::{Event, World};
use crate::checker::Observation;
use crate::network::Endpoint;
use crate::random::Random;
use crate::signature::SharedSigner;

/// A client that does anything.
#[derive(Debug)]
pub(super) struct Rogue {
    key: PublicKey,
    signer: SharedSigner,
    /// The session that it was told of last.
    session: Session,
    number: u64,
    random: Random,
}

impl Rogue {
    pub(super) const fn new(key: PublicKey, signer: SharedSigner, random: Random) -> Self {
        Self { key, signer, session: Session::NONE, number: 0, random }
    }

    pub(super) const fn key(&self) -> PublicKey {
        self.key
    }

    /// Takes note of what helps it to go on.
    pub(super) fn hear(&mut self, answer: &ReplicaMessage) {
        if let ReplicaMessage::Reply(reply) = answer
            && let Outcome::Opened { session } = reply.outcome
        {
            self.session = session;
        }
    }

    fn request(&self, session: Session, number: u64, text: &str) -> Request {
        let operations = if session == Session::NONE { Vec::new() } else { vec![Blob::from(text.as_bytes())] };
        Request {
            client: self.key,
            session,
            number: RequestNumber::new(number),
            operations: List::new(operations).expect("one operation"),
        }
    }

    /// What it signs next: one request for some replicas, and another for the others.
    fn next(&mut self, victim: PublicKey) -> [Request; 2] {
        self.number += 1;
        let (session, number) = (self.session, self.number);
        let usual = self.request(session, number, "rogue");
        match self.random.below(8) {
            // Two bodies under one name.
            0 | 1 => [usual, self.request(session, number, "another")],
            // The same name again, much later or at once.
            2 => {
                let before = number.saturating_sub(self.random.below(20));
                [self.request(session, before, "again"), usual]
            }
            // Beyond every window.
            3 => [self.request(session, number.saturating_add(1 << 40), "far"), usual],
            // Sessions without end.
            4 => [self.request(Session::NONE, number, ""), self.request(Session::NONE, number.saturating_add(1), "")],
            // A session that nobody opened.
            5 => {
                let nobodys = Session { sequence: Sequence::new(self.random.below(100) + 1), index: 0 };
                [self.request(nobodys, number, "no session"), usual]
            }
            // In the name of somebody else.
            6 => [Request { client: victim, ..self.request(session, number, "forged") }, usual],
            _ => [usual.clone(), usual],
        }
    }
}

impl World {
    /// A client in the adversary's hands does one of the things that no correct one does.
    pub fn abuse(&mut self, rogue: usize) {
        let victim = self.clients.first().map(crate::client::Client::key);
        let Some(rogue_state) = self.rogues.get_mut(rogue) else { return };
        let requests = rogue_state.next(victim.unwrap_or(rogue_state.key));
        let (key, cluster) = (rogue_state.key, *self.configuration.cluster());
        let frames = requests.map(|request| {
            let mut signed = request.sign(&cluster, &*rogue_state.signer).expect("a short request");
            let is_broken = rogue_state.random.below(10) == 0;
            if is_broken {
                signed.signature = Signature::from_bytes([7; 64]);
            }
            (!is_broken && request.client == key, request, signed)
        });
        for (is_signed, request, _) in &frames {
            if *is_signed {
                self.observe(&Observation::Signed(request));
            }
        }
        let frames = frames.map(|(_, _, signed)| to_calls(&signed));
        // To few or to all, each in one of two versions.
        for to in self.replicas() {
            let random = &mut self.rogues[rogue].random;
            let [request, copy] = &frames[usize::from(random.below(2) == 0)];
            // Some hear of it as of something that the primary has.
            let frame = if to.index() % 2 == 0 { request } else { copy };
            if random.below(3) > 0 {
                self.send_rogue(rogue, to, &frame.clone());
            }
        }
        self.note(|| format!("the rogue client {rogue} calls"));
    }

    fn send_rogue(&mut self, rogue: usize, to: ReplicaId, frame: &Bytes) {
        let from = self.clients.len() + rogue;
        for arrival in self.network.send(self.time, Endpoint::Client(from), Endpoint::Replica(to)) {
            self.schedule(arrival, Event::Call { from, to, frame: frame.clone() });
        }
    }
}

/// A request, and a copy of it.
fn to_calls(signed: &SignedRequest) -> [Bytes; 2] {
    let messages = [ClientMessage::Request(signed.clone()), ClientMessage::Copy(signed.clone())];
    messages.map(|message| to_frame(&message).expect("a request is short"))
}
