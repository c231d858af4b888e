//! Checking signatures off the host's task, in batches. (PROTOCOL §3: one rule, singly and in a batch)

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, Sender, channel};
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

/// Messages of one peer that the pool has at once: what it sends beyond that waits, and keeps nobody else's from the pool.
const CHECKS_PER_PEER_MAX: usize = 4;

/// Requests that are checked together: the gain of a larger batch is small, and others wait meanwhile.
pub(super) const REQUESTS_MAX: usize = 256;

/// Jobs of requests that the pool has at once: those that wait meanwhile make the next one larger.
const REQUEST_CHECKS_MAX: usize = 2;

/// A pre-prepare of so few bytes holds so few signatures that checking it at once costs less than handing it over.
pub(super) const SMALL_BYTES_MAX: usize = 1024;

/// A message that was checked.
pub(super) type CheckedMessage = Result<Verified<Payload>, Invalid>;

/// A request, and by which connection it came.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) connection: ConnectionId,
    pub(super) request: SignedRequest,
    /// Whether it is a copy: the primary was given the request.
    pub(super) is_copy: bool,
    /// Its share of the client's budget.
    pub(super) _permit: Permit,
}

/// A request that was checked, and by which connection it came.
#[derive(Debug)]
pub(super) struct CheckedRequest {
    pub(super) connection: ConnectionId,
    /// What its bytes claim; none if they claim nothing.
    pub(super) id: Option<RequestId>,
    pub(super) is_copy: bool,
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

/// Something to check, with the keys of the epoch in which it came.
struct Job {
    configuration: Arc<Configuration>,
    what: What,
}

enum What {
    Message(ReplicaId, Box<Message>, Permit),
    Requests(Vec<Received>),
}

/// Threads that check signatures.
pub(super) struct Pool {
    /// Bound: [`CHECKS_PER_PEER_MAX`] of each member, and [`REQUEST_CHECKS_MAX`] of clients.
    jobs: Sender<Job>,
    threads: Vec<JoinHandle<()>>,
    configuration: Arc<Configuration>,
    /// Jobs with requests that are not back yet.
    requests_in_check: usize,
    /// Bound: one a member.
    peers: BTreeMap<ReplicaId, OfPeer>,
}

/// What is checked for one peer.
#[derive(Debug, Default)]
struct OfPeer {
    /// Its messages that are not back yet.
    in_check: usize,
    /// Those that wait. Bound: the peer's budget, of which each has its share.
    waiting: VecDeque<(Message, Permit)>,
}

/// The ZIP 215 rule.
#[derive(Debug, Default)]
pub(crate) struct Zip215(KnownKeys);

impl Verifier for Zip215 {
    fn verify(&mut self, items: &[Item]) -> Result<(), usize> {
        verify_batch(items, &mut self.0, UnwrapErr(SysRng)).map_err(|first| first.index)
    }
}

/// Whether checking a message costs less than handing it to another thread.
pub(super) fn is_small(message: &Message) -> bool {
    match message {
        Message::PrePrepare(pre_prepare) => pre_prepare.batch.len() <= SMALL_BYTES_MAX,
        Message::Prepare(_)
        | Message::Commit(_)
        | Message::Checkpoint(_)
        | Message::Status(_)
        | Message::Fetch(_)
        | Message::Conflict(_)
        | Message::Part(_)
        | Message::Batch(_)
        | Message::Request(_) => true,
        Message::Stable(_)
        | Message::Decided(_)
        | Message::ViewChange(_)
        | Message::NewView(_)
        | Message::Statements(_) => false,
    }
}

pub(super) fn check_requests(
    received: Vec<Received>,
    configuration: &Configuration,
    rule: &mut Zip215,
) -> Vec<CheckedRequest> {
    let (origins, requests): (Vec<_>, Vec<_>) = received
        .into_iter()
        .map(|Received { connection, request, is_copy, .. }| ((connection, request.claimed_id(), is_copy), request))
        .unzip();
    let outcomes = verify_requests(requests, configuration, rule);
    let checked = origins.into_iter().zip(outcomes);
    checked.map(|((connection, id, is_copy), outcome)| CheckedRequest { connection, id, is_copy, outcome }).collect()
}

impl Pool {
    /// Starts `count` threads that report to `events`.
    pub(super) fn start(
        count: usize,
        configuration: &Arc<Configuration>,
        events: &UnboundedSender<Event>,
    ) -> std::io::Result<Self> {
        let (jobs, waiting) = channel();
        let waiting = Arc::new(Mutex::new(waiting));
        let threads = (0..count.max(1))
            .map(|index| {
                let (waiting, events) = (Arc::clone(&waiting), events.clone());
                let work = move || work(&waiting, &events);
                std::thread::Builder::new().name(format!("verify-{index}")).spawn(work)
            })
            .collect::<Result<_, _>>()?;
        let configuration = Arc::clone(configuration);
        Ok(Self { jobs, threads, configuration, requests_in_check: 0, peers: BTreeMap::new() })
    }

    /// What is handed over from now on is checked with the keys of this epoch.
    pub(super) fn follow(&mut self, configuration: &Arc<Configuration>) {
        self.configuration = Arc::clone(configuration);
    }

    /// Has a peer's message wait for its turn.
    pub(super) fn put(&mut self, from: ReplicaId, message: Message, permit: Permit) {
        self.peers.entry(from).or_default().waiting.push_back((message, permit));
    }

    /// The next message of a peer, if the pool takes another one of it.
    pub(super) fn next(&mut self, from: ReplicaId) -> Option<(Message, Permit)> {
        let of_peer = self.peers.get_mut(&from).filter(|of_peer| of_peer.in_check < CHECKS_PER_PEER_MAX)?;
        of_peer.waiting.pop_front()
    }

    /// Hands a peer's message over.
    ///
    /// # Errors
    /// The threads have ended.
    pub(super) fn check_message(&mut self, from: ReplicaId, message: Message, permit: Permit) -> anyhow::Result<()> {
        self.peers.entry(from).or_default().in_check += 1;
        self.submit(What::Message(from, message.into(), permit))
    }

    /// A message of a peer is back.
    pub(super) fn on_message_checked(&mut self, from: ReplicaId) {
        if let Some(of_peer) = self.peers.get_mut(&from) {
            of_peer.in_check -= 1;
        }
    }

    /// Whether no requests are with the pool.
    pub(super) const fn has_no_requests(&self) -> bool {
        self.requests_in_check == 0
    }

    /// Whether the pool takes more requests.
    pub(super) fn takes_requests(&self) -> bool {
        self.requests_in_check < REQUEST_CHECKS_MAX
    }

    /// Hands requests over.
    ///
    /// # Errors
    /// The threads have ended.
    pub(super) fn check_requests(&mut self, requests: Vec<Received>) -> anyhow::Result<()> {
        self.requests_in_check += 1;
        self.submit(What::Requests(requests))
    }

    /// Requests are back.
    pub(super) fn on_requests_checked(&mut self) {
        self.requests_in_check -= 1;
    }

    fn submit(&self, what: What) -> anyhow::Result<()> {
        let job = Job { configuration: Arc::clone(&self.configuration), what };
        self.jobs.send(job).map_err(|_ended| anyhow::anyhow!("the verification threads have ended"))
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

fn work(waiting: &Mutex<Receiver<Job>>, events: &UnboundedSender<Event>) {
    let mut rule = Zip215::default();
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { configuration, what }) = job else { return };
        let checked = match what {
            What::Message(from, message, permit) => {
                Checked::Message { from, message: verify(*message, from, &configuration, &mut rule).into(), permit }
            }
            What::Requests(received) => Checked::Requests(check_requests(received, &configuration, &mut rule)),
        };
        if events.send(Event::Checked(checked)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_crypto::Signature;
    use quorate_protocol::codec::Blob;
    use quorate_protocol::message::SignedViewChange;

    use crate::configuration::network::{Network, Plan};

    /// A pool of no threads, and what it was handed.
    fn pool() -> (Pool, Receiver<Job>) {
        let (jobs, handed) = channel();
        let folder = tempfile::tempdir().unwrap();
        let network = Network::create(&folder.path().join("net"), Plan::on_loopback(4, 4100)).unwrap();
        let configuration = Arc::new(network.genesis().configuration().clone());
        (Pool { jobs, threads: Vec::new(), configuration, requests_in_check: 0, peers: BTreeMap::new() }, handed)
    }

    fn view_change() -> Message {
        Message::ViewChange(SignedViewChange { body: Blob::EMPTY, signature: Signature::from_bytes([0; 64]) })
    }

    /// Hands over what the pool takes of a peer; gives how many.
    fn submit(pool: &mut Pool, from: ReplicaId) -> usize {
        let mut count = 0;
        while let Some((message, permit)) = pool.next(from) {
            pool.check_message(from, message, permit).unwrap();
            count += 1;
        }
        count
    }

    #[test]
    fn a_peer_that_sends_much_to_check_keeps_nobody_from_the_pool() {
        let (mut pool, handed) = pool();
        let (greedy, other) = (ReplicaId::new(1), ReplicaId::new(2));
        for from in [greedy; 100].into_iter().chain([other]) {
            pool.put(from, view_change(), Permit::of_a_test());
        }
        assert_eq!(submit(&mut pool, greedy), CHECKS_PER_PEER_MAX);
        assert_eq!(submit(&mut pool, other), 1);
        assert!(pool.takes_requests());
        assert_eq!(handed.try_iter().count(), CHECKS_PER_PEER_MAX + 1);
        pool.on_message_checked(greedy);
        assert_eq!(submit(&mut pool, greedy), 1, "what waits goes on as places become free");
    }
}
