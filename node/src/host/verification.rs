//! Checking signatures off the host's task, in batches. (PROTOCOL §3: one rule, singly and in a batch)

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use quorate_crypto::{Item, KnownKeys, verify_batch};
use quorate_protocol::batch::{ParsedRequest, RequestId, SignedRequest};
use quorate_protocol::configuration::Configuration;
use quorate_protocol::message::Message;
use quorate_protocol::number::ReplicaId;
use quorate_protocol::verify::{Invalid, Payload, Verified, Verifier, verify, verify_requests};
use tokio::sync::mpsc::UnboundedSender;

use super::Event;
use crate::transport::{ConnectionId, Permit};

/// Jobs that wait for the pool; beyond that peers' messages are dropped (they are sent again) and clients told to come back.
const JOBS_MAX: usize = 256;

/// Requests that are checked together: the gain of a larger batch is small, and others wait meanwhile.
pub(super) const REQUESTS_MAX: usize = 256;

/// A pre-prepare of so few bytes holds so few signatures that checking it at once costs less than handing it over.
const SMALL_BATCH_BYTES: usize = 1024;

/// A message that was checked.
pub(super) type CheckedMessage = Result<Verified<Payload>, Invalid>;

/// A request, and by which connection it came.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) connection: ConnectionId,
    pub(super) request: SignedRequest,
    /// Its share of the client's budget.
    pub(super) _permit: Permit,
}

/// A request that was checked, and by which connection it came.
#[derive(Debug)]
pub(super) struct CheckedRequest {
    pub(super) connection: ConnectionId,
    /// What its bytes claim; none if they claim nothing.
    pub(super) id: Option<RequestId>,
    pub(super) outcome: Result<Verified<ParsedRequest>, Invalid>,
}

/// What the pool hands back.
#[derive(Debug)]
pub(super) enum Checked {
    /// A peer's message.
    Message { from: ReplicaId, message: Box<CheckedMessage>, permit: Permit },
    /// Clients' requests, in the order in which they came.
    Requests(Vec<CheckedRequest>),
}

enum Job {
    Message(ReplicaId, Box<Message>, Permit),
    Requests(Vec<Received>),
}

/// Threads that check signatures.
pub(super) struct Pool {
    jobs: SyncSender<Job>,
    threads: Vec<JoinHandle<()>>,
    /// Jobs with requests that are not back yet.
    pub(super) requests_in_check: usize,
}

/// The ZIP 215 rule.
#[derive(Debug, Default)]
pub(super) struct Zip215(KnownKeys);

impl Verifier for Zip215 {
    fn verify(&mut self, items: &[Item]) -> Result<(), usize> {
        verify_batch(items, &mut self.0, UnwrapErr(SysRng)).map_err(|first| first.index)
    }
}

/// Whether checking a message costs less than handing it to another thread.
pub(super) fn is_small(message: &Message) -> bool {
    match message {
        Message::PrePrepare(pre_prepare) => pre_prepare.batch.len() <= SMALL_BATCH_BYTES,
        Message::Prepare(_)
        | Message::Commit(_)
        | Message::Checkpoint(_)
        | Message::Status(_)
        | Message::Fetch(_)
        | Message::Part(_)
        | Message::Batch(_)
        | Message::Request(_) => true,
        Message::Stable(_) | Message::Decided(_) | Message::ViewChange(_) | Message::NewView(_) => false,
    }
}

/// Checks a peer's message.
pub(super) fn check(
    from: ReplicaId,
    message: Message,
    configuration: &Configuration,
    rule: &mut Zip215,
) -> CheckedMessage {
    verify(message, from, configuration, rule)
}

fn check_requests(received: Vec<Received>, configuration: &Configuration, rule: &mut Zip215) -> Vec<CheckedRequest> {
    let (origins, requests): (Vec<_>, Vec<_>) = received
        .into_iter()
        .map(|Received { connection, request, .. }| ((connection, request.claimed_id()), request))
        .unzip();
    let outcomes = verify_requests(requests, configuration, rule);
    let checked = origins.into_iter().zip(outcomes);
    checked.map(|((connection, id), outcome)| CheckedRequest { connection, id, outcome }).collect()
}

impl Pool {
    /// Starts `count` threads that report to `events`.
    pub(super) fn start(
        count: usize,
        configuration: &Arc<Configuration>,
        events: &UnboundedSender<Event>,
    ) -> std::io::Result<Self> {
        let (jobs, waiting) = sync_channel(JOBS_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        let threads = (0..count.max(1))
            .map(|index| {
                let (waiting, events) = (Arc::clone(&waiting), events.clone());
                let configuration = Arc::clone(configuration);
                let work = move || work(&waiting, &configuration, &events);
                std::thread::Builder::new().name(format!("verify-{index}")).spawn(work)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { jobs, threads, requests_in_check: 0 })
    }

    /// Hands a message over, or drops it if too much waits: its sender sends again what is missed.
    pub(super) fn check_message(&self, from: ReplicaId, message: Message, permit: Permit) {
        if self.jobs.try_send(Job::Message(from, message.into(), permit)).is_err() {
            tracing::debug!(%from, "dropped a message: the verification pool is full");
        }
    }

    /// Hands requests over; gives them back if too much waits.
    pub(super) fn check_requests(&mut self, requests: Vec<Received>) -> Result<(), Vec<Received>> {
        match self.jobs.try_send(Job::Requests(requests)) {
            Ok(()) => {
                self.requests_in_check += 1;
                Ok(())
            }
            Err(TrySendError::Full(Job::Requests(requests)) | TrySendError::Disconnected(Job::Requests(requests))) => {
                Err(requests)
            }
            Err(_) => Err(Vec::new()),
        }
    }

    /// Ends the threads after what they have begun.
    pub(super) fn close(self) {
        drop(self.jobs);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a verification thread panicked");
            }
        }
    }
}

fn work(waiting: &Mutex<Receiver<Job>>, configuration: &Configuration, events: &UnboundedSender<Event>) {
    let mut rule = Zip215::default();
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        let checked = match job {
            Job::Message(from, message, permit) => {
                Checked::Message { from, message: check(from, *message, configuration, &mut rule).into(), permit }
            }
            Job::Requests(received) => Checked::Requests(check_requests(received, configuration, &mut rule)),
        };
        if events.send(Event::Checked(checked)).is_err() {
            return;
        }
    }
}
