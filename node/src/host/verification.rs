//! Checking signatures off the host's task, in batches. (PROTOCOL §3: one rule, singly and in a batch)

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

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

/// Whose a job is: a peer's, or, where there is none, the clients'.
type Owner = Option<ReplicaId>;

/// The jobs that wait for a thread. The next one is of whoever had least of the threads' time: one message may take as long as
/// hundreds of others.
#[derive(Default)]
struct Jobs {
    waiting: Mutex<Waiting>,
    /// Told when a job came, or the last one has.
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// None is empty. Bound: [`CHECKS_PER_PEER_MAX`] of each member, and [`REQUEST_CHECKS_MAX`] of clients.
    jobs: BTreeMap<Owner, VecDeque<Job>>,
    /// How much of the threads' time each has had. Bound: one a member, and the clients'.
    had: BTreeMap<Owner, Duration>,
    /// How much the one had whose job was taken last: who comes back after a pause has had no less.
    least: Duration,
    is_closed: bool,
}

impl Waiting {
    fn put(&mut self, owner: Owner, job: Job) {
        let least = self.least;
        self.jobs
            .entry(owner)
            .or_insert_with(|| {
                let had = self.had.entry(owner).or_default();
                *had = least.max(*had);
                VecDeque::new()
            })
            .push_back(job);
    }

    /// The next job, and whose it is.
    fn take(&mut self) -> Option<(Owner, Job)> {
        let had = |owner: &Owner| self.had.get(owner).copied().unwrap_or_default();
        let owner = *self.jobs.keys().min_by_key(|owner| had(owner))?;
        self.least = had(&owner);
        let jobs = self.jobs.get_mut(&owner)?;
        let job = jobs.pop_front()?;
        if jobs.is_empty() {
            self.jobs.remove(&owner);
        }
        Some((owner, job))
    }

    /// A job took so long.
    fn spend(&mut self, owner: Owner, time: Duration) {
        *self.had.entry(owner).or_default() += time;
    }
}

impl Jobs {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No more come.
    fn close(&self) {
        self.waiting().is_closed = true;
        self.changed.notify_all();
    }

    /// Waits for the next job; `None` after the last.
    fn next(&self) -> Option<(Owner, Job)> {
        let mut waiting = self.waiting();
        loop {
            if let Some(next) = waiting.take() {
                return Some(next);
            }
            if waiting.is_closed {
                return None;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs.close();
    }
}

/// Threads that check signatures.
pub(super) struct Pool {
    jobs: Arc<Jobs>,
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
        | Message::Request(_) => true,
        // All of it is hashed.
        Message::Batch(batch) => batch.batch.len() <= SMALL_BYTES_MAX,
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
        let jobs = Arc::new(Jobs::default());
        let threads = (0..count.max(1))
            .map(|index| {
                let (jobs, events) = (Arc::clone(&jobs), events.clone());
                let work = move || work(&jobs, &events);
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
    pub(super) fn check_message(&mut self, from: ReplicaId, message: Message, permit: Permit) {
        self.peers.entry(from).or_default().in_check += 1;
        self.submit(Some(from), What::Message(from, message.into(), permit));
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
    pub(super) fn check_requests(&mut self, requests: Vec<Received>) {
        self.requests_in_check += 1;
        self.submit(None, What::Requests(requests));
    }

    /// Requests are back.
    pub(super) fn on_requests_checked(&mut self) {
        self.requests_in_check -= 1;
    }

    fn submit(&self, owner: Owner, what: What) {
        self.jobs.waiting().put(owner, Job { configuration: Arc::clone(&self.configuration), what });
        self.jobs.changed.notify_one();
    }

    /// Ends the threads after what waits for them.
    pub(super) fn close(mut self) {
        self.jobs.close();
        for thread in std::mem::take(&mut self.threads) {
            if thread.join().is_err() {
                tracing::error!("a verification thread panicked");
            }
        }
    }
}

fn work(jobs: &Jobs, events: &UnboundedSender<Event>) {
    let mut rule = Zip215::default();
    while let Some((owner, Job { configuration, what })) = jobs.next() {
        let began = Instant::now();
        let checked = match what {
            What::Message(from, message, permit) => {
                Checked::Message { from, message: verify(*message, from, &configuration, &mut rule).into(), permit }
            }
            What::Requests(received) => Checked::Requests(check_requests(received, &configuration, &mut rule)),
        };
        jobs.waiting().spend(owner, began.elapsed());
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

    /// A pool of no threads.
    fn pool() -> Pool {
        let folder = tempfile::tempdir().unwrap();
        let network = Network::create(&folder.path().join("net"), Plan::on_loopback(4, 4100)).unwrap();
        let configuration = Arc::new(network.genesis().configuration().clone());
        let jobs = Arc::new(Jobs::default());
        Pool { jobs, threads: Vec::new(), configuration, requests_in_check: 0, peers: BTreeMap::new() }
    }

    fn view_change() -> Message {
        Message::ViewChange(SignedViewChange { body: Blob::EMPTY, signature: Signature::from_bytes([0; 64]) })
    }

    /// Hands over what the pool takes of a peer; gives how many.
    fn submit(pool: &mut Pool, from: ReplicaId) -> usize {
        let mut count = 0;
        while let Some((message, permit)) = pool.next(from) {
            pool.check_message(from, message, permit);
            count += 1;
        }
        count
    }

    #[test]
    fn a_peer_that_sends_much_to_check_keeps_nobody_from_the_pool() {
        let mut pool = pool();
        let (greedy, other) = (ReplicaId::new(1), ReplicaId::new(2));
        for from in [greedy; 100].into_iter().chain([other]) {
            pool.put(from, view_change(), Permit::of_a_test());
        }
        assert_eq!(submit(&mut pool, greedy), CHECKS_PER_PEER_MAX);
        assert_eq!(submit(&mut pool, other), 1);
        assert!(pool.takes_requests());
        let handed = std::iter::from_fn(|| pool.jobs.waiting().take()).count();
        assert_eq!(handed, CHECKS_PER_PEER_MAX + 1);
        pool.on_message_checked(greedy);
        assert_eq!(submit(&mut pool, greedy), 1, "what waits goes on as places become free");
    }

    #[test]
    fn whose_messages_take_long_waits_longer() {
        let mut pool = pool();
        let (slow, quick) = (ReplicaId::new(1), ReplicaId::new(2));
        let mut put = |from| pool.check_message(from, view_change(), Permit::of_a_test());
        [slow, slow, slow, quick, quick, quick].into_iter().for_each(&mut put);
        let mut turn = || {
            let (owner, _job) = pool.jobs.waiting().take()?;
            let time = if owner == Some(slow) { 100 } else { 1 };
            pool.jobs.waiting().spend(owner, Duration::from_millis(time));
            owner
        };
        let turns: Vec<_> = std::iter::from_fn(&mut turn).collect();
        assert_eq!(turns, [slow, quick, quick, quick, slow, slow]);
        // Who had nothing done meanwhile has saved up nothing.
        let mut put = |from| pool.check_message(from, view_change(), Permit::of_a_test());
        [slow, quick, quick, quick].into_iter().for_each(&mut put);
        let mut turn = || {
            let (owner, _job) = pool.jobs.waiting().take()?;
            pool.jobs.waiting().spend(owner, Duration::from_millis(60));
            owner
        };
        let turns: Vec<_> = std::iter::from_fn(&mut turn).collect();
        assert_eq!(turns, [quick, quick, slow, quick]);
    }
}
