//! A correct client: opens a session, signs requests, asks again until enough replicas agree. (PROTOCOL §4.1, §4.6, §12)

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use quorate_crypto::{Digest, PublicKey};
use quorate_protocol::batch::{Request, SignedRequest};
use quorate_protocol::codec::{Blob, List};
use quorate_protocol::configuration::{ClusterId, Configuration};
use quorate_protocol::message::{Outcome, ReplicaMessage, Reply};
use quorate_protocol::number::{ReplicaId, RequestNumber, Session, View};
use quorate_protocol::time::Time;

use crate::checker::Quorums;
use crate::signature::SharedSigner;

/// Names a call of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// The client, by its index.
    pub client: usize,
    /// The call's number.
    pub call: u64,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What enough replicas said.
    pub outcome: Outcome,
    /// When the call was made.
    pub since: Time,
    /// When enough replicas had said it.
    pub at: Time,
}

/// Something that a client sends, and to whom.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) to: Recipient,
    pub(crate) request: SignedRequest,
    /// What was signed.
    pub(crate) content: Request,
}

/// To whom a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recipient {
    Primary,
    All,
}

#[derive(Debug)]
struct Outstanding {
    /// `None` for the opening of a session.
    call: Option<u64>,
    request: Request,
    signed: SignedRequest,
    /// The last outcome that each replica named.
    said: BTreeMap<ReplicaId, Outcome>,
    resend_at: Time,
    timeout: Duration,
}

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    index: usize,
    key: PublicKey,
    signer: SharedSigner,
    cluster: ClusterId,
    quorums: Quorums,
    outstanding_max: usize,
    timeout_first: Duration,
    session: Option<Session>,
    last_opening: u64,
    last_number: u64,
    calls_made: u64,
    /// Calls that are not sent yet.
    waiting: VecDeque<(u64, Vec<Blob>)>,
    outstanding: BTreeMap<(Session, RequestNumber), Outstanding>,
    since: BTreeMap<u64, Time>,
    answers: BTreeMap<u64, Answer>,
    view: View,
    /// The earliest wake-up under way.
    wake_at: Option<Time>,
}

/// To what the time between two attempts grows.
const TIMEOUT_MAX: Duration = Duration::from_secs(2);

impl Client {
    pub(crate) fn new(index: usize, key: PublicKey, signer: SharedSigner, configuration: &Configuration) -> Self {
        Self {
            index,
            key,
            signer,
            cluster: *configuration.cluster(),
            quorums: Quorums::of(configuration.size()),
            outstanding_max: configuration.parameters().outstanding_max as usize,
            timeout_first: configuration.parameters().client_timeout(),
            session: None,
            last_opening: 0,
            last_number: 0,
            calls_made: 0,
            waiting: VecDeque::new(),
            outstanding: BTreeMap::new(),
            since: BTreeMap::new(),
            answers: BTreeMap::new(),
            view: View::ZERO,
            wake_at: None,
        }
    }

    pub(crate) const fn key(&self) -> PublicKey {
        self.key
    }

    /// The view that the client believes the replicas to be in.
    pub(crate) const fn view(&self) -> View {
        self.view
    }

    pub(crate) fn answer(&self, call: u64) -> Option<&Answer> {
        self.answers.get(&call)
    }

    /// Calls without an answer, and since when.
    pub(crate) fn unanswered(&self) -> impl Iterator<Item = (Ticket, Time)> + '_ {
        self.since.iter().map(|(&call, &since)| (Ticket { client: self.index, call }, since))
    }

    /// Takes on a call.
    pub(crate) fn call(&mut self, now: Time, operations: Vec<Blob>) -> Ticket {
        let call = self.calls_made;
        self.calls_made += 1;
        self.waiting.push_back((call, operations));
        self.since.insert(call, now);
        Ticket { client: self.index, call }
    }

    /// What is to be sent now: what may go out for the first time, and what has waited too long.
    pub(crate) fn send_what_is_due(&mut self, now: Time) -> Vec<Sending> {
        let mut sendings = Vec::new();
        match self.session {
            None if !self.waiting.is_empty() && self.outstanding.is_empty() => {
                self.last_opening += 1;
                sendings.push(self.sign(now, None, Session::NONE, self.last_opening, Vec::new()));
            }
            None => {}
            Some(session) => {
                while let Some(sending) = self.send_next(now, session) {
                    sendings.push(sending);
                }
            }
        }
        for outstanding in self.outstanding.values_mut().filter(|outstanding| outstanding.resend_at <= now) {
            outstanding.timeout = (outstanding.timeout * 2).min(TIMEOUT_MAX);
            outstanding.resend_at = now.after(outstanding.timeout);
            sendings.push(Sending {
                to: Recipient::All,
                request: outstanding.signed.clone(),
                content: outstanding.request.clone(),
            });
        }
        sendings
    }

    /// When to look again for what is due, unless that is settled already.
    pub(crate) fn take_wake(&mut self, now: Time) -> Option<Time> {
        let deadline = self.outstanding.values().map(|outstanding| outstanding.resend_at).min()?;
        if self.wake_at.is_some_and(|at| at > now && at <= deadline) {
            return None;
        }
        self.wake_at = Some(deadline);
        Some(deadline)
    }

    fn send_next(&mut self, now: Time, session: Session) -> Option<Sending> {
        let oldest = self.outstanding.keys().next().map_or(self.last_number + 1, |(_, number)| number.value());
        let is_within_window = self.last_number + 1 < oldest + self.outstanding_max as u64;
        if !is_within_window {
            return None;
        }
        let (call, operations) = self.waiting.pop_front()?;
        self.last_number += 1;
        Some(self.sign(now, Some(call), session, self.last_number, operations))
    }

    fn sign(
        &mut self,
        now: Time,
        call: Option<u64>,
        session: Session,
        number: u64,
        operations: Vec<Blob>,
    ) -> Sending {
        let number = RequestNumber::new(number);
        let operations = List::new(operations).expect("a test calls with fewer than 4096 operations");
        let request = Request { client: self.key, session, number, operations };
        let signed = request.sign(&self.cluster, self.signer.as_ref()).expect("a test calls with few bytes");
        let timeout = self.timeout_first;
        let outstanding = Outstanding {
            call,
            request: request.clone(),
            signed: signed.clone(),
            said: BTreeMap::new(),
            resend_at: now.after(timeout),
            timeout,
        };
        self.outstanding.insert((session, number), outstanding);
        Sending { to: Recipient::Primary, request: signed, content: request }
    }

    /// A replica answered: the call that is answered by it, if any.
    pub(crate) fn on_message(&mut self, now: Time, from: ReplicaId, message: ReplicaMessage) -> Option<Ticket> {
        let reply = match message {
            ReplicaMessage::Reply(reply) if reply.client == self.key => reply,
            // A busy replica is asked again when the time is up; the rest is not for this client.
            _ => return None,
        };
        self.view = self.view.max(reply.view);
        let Reply { session, number, outcome, .. } = reply;
        let outstanding = self.outstanding.get_mut(&(session, number))?;
        outstanding.said.insert(from, outcome.clone());
        let same: Digest = outcome.digest();
        let votes = outstanding.said.values().filter(|said| said.digest() == same).count();
        if votes < self.quorums.weak {
            return None;
        }
        let Outstanding { call, .. } = self.outstanding.remove(&(session, number))?;
        self.on_outcome(now, call, session, outcome)
    }

    fn on_outcome(&mut self, now: Time, call: Option<u64>, session: Session, outcome: Outcome) -> Option<Ticket> {
        if outcome == Outcome::Evicted && self.session == Some(session) {
            self.session = None;
            self.last_number = 0;
        }
        let Some(call) = call else {
            if let Outcome::Opened { session } = outcome {
                self.session = Some(session);
                self.last_number = 0;
            }
            return None;
        };
        let since = self.since.remove(&call)?;
        self.answers.insert(call, Answer { outcome, since, at: now });
        Some(Ticket { client: self.index, call })
    }
}
