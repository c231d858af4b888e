//! The client as a pure state machine: it opens a session, numbers and signs requests, sends them where they are ordered,
//! and believes what enough replicas say. (PROTOCOL §4.1, §4.6, §12)
//!
//! | file | holds | PROTOCOL.md |
//! | --- | --- | --- |
//! | `client/request.rs` | a request before and after it has a number | §4.1 |
//! | `client/sending.rs` | the window of numbers; to whom a request goes, and when again | §4.1, §4.6 |
//! | `client/replies.rs` | what replicas answer, and what follows from it | §4.6, §12 |
//! | `client/answers.rs` | counting equal answers | §4.6 |
//! | `client/reads.rs` | reads that nobody orders | §8 |
//! | `client/primary_tracking.rs` | which replica is taken for the primary | §4.1 |
//! | `client/patience.rs` | the adaptive time-out | §4.6, §14 |
//!
//! Two rules keep histories linearizable. A number is used once: a request that was sent once is sent again, byte for byte,
//! until its fate is known. And whatever is reported as failed says whether it may have executed.

mod answers;
mod member_set;
mod patience;
mod primary_tracking;
mod reads;
mod replies;
mod request;
mod sending;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;

use quorate_crypto::PublicKey;

use self::member_set::MemberSet;
use self::patience::Patience;
use self::primary_tracking::PrimaryTracking;
use self::reads::PendingRead;
use self::request::{Outstanding, Sending, Submission};
use crate::application::Reading;
use crate::batch::{OPERATIONS_MAX, SignedRequest};
use crate::codec::{Blob, List};
use crate::configuration::Configuration;
use crate::message::{ReadAnswer, Reply};
use crate::number::{ReplicaId, RequestNumber, Sequence, Session, View};
use crate::statement::Signer;
use crate::time::{Now, Time};

/// Most submissions that wait for a number; more are refused with [`ClientError::QueueFull`].
pub const WAITING_MAX: usize = 1024;

/// By what a submission is recognised when it completes; the host's own choice.
pub type Ticket = u64;

/// What a client is made of.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The cluster.
    pub configuration: Arc<Configuration>,
    /// The client's key. One client at a time uses it: a second one takes the session from the first.
    pub key: PublicKey,
    /// Signs for that key.
    pub signer: Arc<dyn Signer + Send + Sync>,
    /// The number of the first opening: never lower than any that this key used before, and never zero. The wall clock
    /// in nanoseconds will do.
    pub opening: RequestNumber,
    /// Clients with different seeds do not retry in step.
    pub jitter_seed: u64,
    /// Whether the session is opened only when something is to be ordered: who only reads may need none.
    pub opens_late: bool,
}

/// What can happen to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientInput {
    /// Operations to execute together and in order.
    Submit {
        /// Comes back with the result; given once.
        ticket: Ticket,
        /// At least one.
        operations: List<Blob, OPERATIONS_MAX>,
    },
    /// An operation that only reads: answered from what the replicas executed, if the configuration allows that and enough of
    /// them agree, and else ordered. (PROTOCOL §8)
    Read {
        /// Comes back with the result; given once.
        ticket: Ticket,
        /// The operation.
        operation: Blob,
    },
    /// A replica's answer to a read that nobody ordered.
    ReadAnswer {
        /// Who the channel says sent it.
        from: ReplicaId,
        /// The read's number.
        number: RequestNumber,
        /// What was read; nothing if the replica may not tell.
        answer: Option<ReadAnswer>,
    },
    /// A replica's answer.
    Reply {
        /// Who the channel says sent it.
        from: ReplicaId,
        /// The answer.
        reply: Reply,
    },
    /// A replica did not take a request in.
    Busy {
        /// Who the channel says sent it.
        from: ReplicaId,
        /// The request's number.
        number: RequestNumber,
        /// When to try again, in milliseconds.
        retry_after_ms: u32,
    },
    /// A replica says that a request can never be ordered.
    Refused {
        /// Who the channel says sent it.
        from: ReplicaId,
        /// The request's number.
        number: RequestNumber,
    },
    /// A link to a replica works. Until told otherwise, every link is thought to.
    LinkUp(ReplicaId),
    /// A link to a replica broke, and what was under way on it is lost.
    LinkDown(ReplicaId),
    /// A deadline passed. A wake-up without a deadline does no harm.
    Wake,
}

/// What a client asks of its host, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientOutput {
    /// Send to one replica.
    Send {
        /// The replica.
        to: ReplicaId,
        /// The request.
        request: SignedRequest,
    },
    /// Send to all replicas.
    SendAll(SignedRequest),
    /// Show all but one, which is given the request itself, that it is under way: as a
    /// [`ClientMessage::Copy`](crate::message::ClientMessage).
    Copy {
        /// Who gets the request.
        except: ReplicaId,
        /// The request.
        request: SignedRequest,
    },
    /// Ask all replicas that are reached to read from what they executed.
    Ask {
        /// Names the read in the answers.
        number: RequestNumber,
        /// The operation.
        operation: Blob,
    },
    /// A read was answered without being ordered.
    Read {
        /// The read.
        ticket: Ticket,
        /// The result, and a slot since which it has been so.
        reading: Reading,
        /// When it was submitted; its latency counts from here.
        submitted_at: Time,
    },
    /// A submission executed.
    Completed {
        /// The submission.
        ticket: Ticket,
        /// The slot in which it executed.
        sequence: Sequence,
        /// Its request's place in the slot's batch.
        index: u32,
        /// One result for each operation.
        results: List<Blob, OPERATIONS_MAX>,
        /// When it was submitted; its latency counts from here.
        submitted_at: Time,
        /// How often its request had to be sent to all.
        retries: u32,
    },
    /// A submission has no result.
    Failed {
        /// The submission.
        ticket: Ticket,
        /// Why.
        error: ClientError,
    },
}

/// Why a submission has no result, and whether it may have executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// It never executes: too many others wait. Submit it again later.
    #[error("{WAITING_MAX} submissions wait already")]
    QueueFull,
    /// It never executes: there is nothing in it.
    #[error("no operations")]
    NoOperations,
    /// It never executes.
    #[error("more than {operations_max} operations")]
    TooManyOperations {
        /// The most that are allowed.
        operations_max: u32,
    },
    /// It never executes.
    #[error("a request of more than {request_bytes_max} bytes")]
    TooLarge {
        /// The most that are allowed.
        request_bytes_max: u32,
    },
    /// It never executes: the configuration lists clients, and not this one.
    #[error("the configuration does not list this client's key")]
    NotListed,
    /// It never executes: enough replicas refuse to open a session.
    #[error("the replicas refuse this client")]
    Refused,
    /// It may have executed, once, or not; it does not execute from now on. The session was evicted meanwhile.
    #[error("the session was evicted: whether the request executed before is unknown")]
    OutcomeUnknown,
    /// It executed, once; its results are no longer kept.
    #[error("the request executed, but its results are no longer kept")]
    ReplyLost,
}

/// What a client counted since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ClientStatistics {
    /// Submissions that completed.
    pub completed: u64,
    /// Submissions that failed.
    pub failed: u64,
    /// Reads that were answered without being ordered.
    pub fast_reads: u64,
    /// Reads that had to be ordered.
    pub ordered_reads: u64,
    /// Requests sent to all after a time-out, each time counted.
    pub retries: u64,
    /// Requests sent to another replica, since the primary changed or a link broke or came up.
    pub redirected: u64,
    /// Requests sent again to a primary that was busy.
    pub resent_after_busy: u64,
    /// Answers that a replica was busy.
    pub busy: u64,
    /// Answers that a request is refused.
    pub refused: u64,
    /// Answers to requests that needed none any more.
    pub late_replies: u64,
    /// Replies for other clients, other sessions or unknown numbers, or from strangers.
    pub ignored_replies: u64,
    /// Replies that no correct replica gives: they differ from the accepted one, contradict what the same replica said
    /// before, or make no sense as an answer to the request.
    pub mismatched_replies: u64,
    /// Sessions opened.
    pub sessions_opened: u64,
    /// Sessions evicted.
    pub sessions_lost: u64,
}

/// Where the client stands with its session.
#[derive(Debug, Clone)]
enum Phase {
    /// No session, and nobody needs one yet.
    Closed,
    /// An opening is under way.
    Opening {
        sending: Sending,
        /// Who refuses it.
        refused_by: MemberSet,
        /// Who says that this key opened a session with a higher number, and which. Bound: one a member.
        superseded: BTreeMap<ReplicaId, RequestNumber>,
    },
    /// Requests are numbered and sent.
    Open {
        session: Session,
        /// Who says that the session is not in the table any more.
        evicted_by: MemberSet,
    },
}

/// A client. Has the contract of [`crate::Machine`]: hand it inputs, drain the outputs after each, and come back with
/// [`ClientInput::Wake`] at the next deadline.
#[derive(Debug, Clone)]
pub struct Client {
    configuration: Arc<Configuration>,
    key: PublicKey,
    signer: Arc<dyn Signer + Send + Sync>,
    /// Equal answers that make a result.
    replies_needed: usize,
    phase: Phase,
    /// The number of the latest opening; only ever raised.
    opening: RequestNumber,
    /// The number of the next request in the session; none is used twice.
    next_number: RequestNumber,
    /// Never sent yet. Bound: [`WAITING_MAX`].
    waiting: VecDeque<Submission>,
    /// Bound: `outstanding_max` of the configuration.
    outstanding: BTreeMap<RequestNumber, Outstanding>,
    /// Reads that all were asked for. Bounded in their file.
    reads: BTreeMap<RequestNumber, PendingRead>,
    /// The number of the next of them.
    next_read: RequestNumber,
    /// From when on a request is copied to those who do not get it.
    copies_from: Time,
    links_down: MemberSet,
    tracking: PrimaryTracking,
    patience: Patience,
    /// Drained after each input. Bound: what one input causes, two for each request outstanding or waiting.
    outputs: VecDeque<ClientOutput>,
    statistics: ClientStatistics,
    liars: MemberSet,
}

impl Client {
    /// A client that opens its session, at once unless it is to be late.
    pub fn new(options: ClientOptions, now: Now) -> Self {
        let ClientOptions { configuration, key, signer, opening, jitter_seed, opens_late } = options;
        let mut patience = Patience::new(configuration.parameters(), jitter_seed);
        let copies_from = now.monotonic.after(patience.until_copy());
        let mut client = Self {
            replies_needed: replies_needed(&configuration),
            tracking: PrimaryTracking::new(&configuration),
            patience,
            configuration,
            key,
            signer,
            phase: Phase::Closed,
            opening: opening.max(FIRST_NUMBER),
            next_number: FIRST_NUMBER,
            waiting: VecDeque::new(),
            outstanding: BTreeMap::new(),
            reads: BTreeMap::new(),
            next_read: FIRST_NUMBER,
            copies_from,
            links_down: MemberSet::EMPTY,
            outputs: VecDeque::new(),
            statistics: ClientStatistics::default(),
            liars: MemberSet::EMPTY,
        };
        if !opens_late {
            client.open_session(now.monotonic);
        }
        client
    }

    /// The only place where state changes.
    pub fn handle(&mut self, now: Time, input: ClientInput) {
        match input {
            ClientInput::Submit { ticket, operations } => {
                self.on_submit(Submission { ticket, operations, submitted_at: now });
            }
            ClientInput::Read { ticket, operation } => self.on_read(now, ticket, operation),
            ClientInput::ReadAnswer { from, number, answer } => self.on_read_answer(from, number, answer),
            ClientInput::Reply { from, reply } => self.on_reply(now, from, reply),
            ClientInput::Busy { from, number, retry_after_ms } => self.on_busy(now, from, number, retry_after_ms),
            ClientInput::Refused { from, number } => self.on_refused(from, number),
            ClientInput::LinkUp(replica) => self.on_link_up(replica),
            ClientInput::LinkDown(replica) => self.on_link_down(replica),
            ClientInput::Wake => self.on_wake(now),
        }
        self.send_waiting(now);
    }

    /// What is to be done, in order; drained after every [`Client::handle`], and once after [`Client::new`].
    pub fn poll_output(&mut self) -> Option<ClientOutput> {
        self.outputs.pop_front()
    }

    /// When to come back with [`ClientInput::Wake`] if nothing else happens before; never, if nothing is outstanding.
    pub fn next_deadline(&self) -> Option<Time> {
        let opening = match &self.phase {
            Phase::Opening { sending, .. } => Some(sending.wake_at()),
            Phase::Closed | Phase::Open { .. } => None,
        };
        let reads = self.reads.values().map(|read| read.deadline);
        let sent = self.outstanding.values().map(|outstanding| outstanding.sending.wake_at());
        sent.chain(reads).chain(opening).chain(self.copy_due()).min()
    }

    /// The replica to which requests go first, as far as is known.
    pub fn believed_primary(&self) -> ReplicaId {
        self.tracking.primary(&self.configuration)
    }

    /// The view that at least one correct replica reached, as far as is known.
    pub fn believed_view(&self) -> View {
        self.tracking.view()
    }

    /// The session, if one is open.
    pub fn session(&self) -> Option<Session> {
        match &self.phase {
            Phase::Open { session, .. } => Some(*session),
            Phase::Closed | Phase::Opening { .. } => None,
        }
    }

    /// Requests that were sent and not answered yet; at most `outstanding_max` of the configuration.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// Submissions that were not sent yet; at most [`WAITING_MAX`].
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// What was counted.
    pub fn statistics(&self) -> &ClientStatistics {
        &self.statistics
    }

    /// Replicas that gave an answer that no correct replica gives.
    pub fn liars(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        self.liars.iter()
    }

    fn fail(&mut self, ticket: Ticket, error: ClientError) {
        self.statistics.failed += 1;
        self.outputs.push_back(ClientOutput::Failed { ticket, error });
    }

    fn is_member(&self, replica: ReplicaId) -> bool {
        self.configuration.member(replica).is_some()
    }
}

/// Numbers begin here: zero is none. (PROTOCOL §4.1)
const FIRST_NUMBER: RequestNumber = RequestNumber::new(1);

/// How many equal answers make a result: one of them is from a correct replica. Where reads are not ordered, any quorum that
/// answers one is to have executed what was answered before. (PROTOCOL §4.6, §8)
fn replies_needed(configuration: &Configuration) -> usize {
    if configuration.parameters().fast_reads { configuration.quorum() } else { configuration.weak_quorum() }
}
