//! A key's session, as its users see it: operations go in, results come out, many at once.

use std::sync::Arc;
use std::time::Duration;

use quorate_protocol::batch::OPERATIONS_MAX;
use quorate_protocol::client::{ClientError as SessionError, WAITING_MAX};
use quorate_protocol::codec::{Blob, List};
use quorate_protocol::number::Sequence;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::driver::Command;
use super::error::ClientError;
use super::pending::Respond;
use super::{Connection, Handle};

/// Submissions of one session without a result, at most; beyond it, submitting waits. A session takes that many.
pub const PENDING_MAX: usize = WAITING_MAX;

/// What executing operations gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The slot in which they executed; of a read that nobody ordered, one since which its result has been so.
    pub sequence: Sequence,
    /// Their request's place in the slot's batch; none, if nobody ordered it.
    pub index: Option<u32>,
    /// One result for each operation.
    pub results: List<Blob, OPERATIONS_MAX>,
    /// How often the request had to be sent to all replicas.
    pub retries: u32,
}

/// The result of a submission that was made with a tag.
#[derive(Debug)]
pub struct Completion {
    /// The tag.
    pub tag: u64,
    /// The answer, or why there is none.
    pub outcome: Result<Answer, ClientError>,
}

/// Where completions go.
pub type CompletionSender = mpsc::UnboundedSender<Completion>;

/// Where completions are taken from.
pub type Completions = mpsc::UnboundedReceiver<Completion>;

/// A queue of completions. It holds at most [`PENDING_MAX`] for each session that submits to it.
pub fn completions() -> (CompletionSender, Completions) {
    mpsc::unbounded_channel()
}

/// A key's session. Clones share it.
#[derive(Debug, Clone)]
pub struct Session {
    handle: Handle,
    client: usize,
    room: Arc<Semaphore>,
}

impl Session {
    pub(super) fn new(handle: Handle, client: usize) -> Self {
        Self { handle, client, room: Arc::new(Semaphore::new(PENDING_MAX)) }
    }

    /// Submits operations that are to execute together and in order, and waits for their results, however long it takes.
    /// If this is dropped, the operations execute all the same.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::may_have_executed`] says whether they may have executed.
    pub async fn submit(&self, operations: Vec<Blob>) -> Result<Answer, ClientError> {
        let (answer, answered) = oneshot::channel();
        self.hand_over(operations, |permit| Respond::to_caller(answer, permit)).await?;
        answered.await.map_err(|_closed| ClientError::Closed)?
    }

    /// The same, but gives up after `patience`. What was given up may still execute.
    ///
    /// # Errors
    /// As above, and [`ClientError::TimedOut`] or [`ClientError::Unreachable`].
    pub async fn submit_within(&self, operations: Vec<Blob>, patience: Duration) -> Result<Answer, ClientError> {
        match timeout(patience, self.submit(operations)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.handle.too_late(patience).await),
        }
    }

    /// Submits operations whose result goes to `to` with `tag`. Waits only while [`PENDING_MAX`] others have no result.
    ///
    /// # Errors
    /// [`ClientError::Closed`], or too many operations.
    pub async fn submit_tagged(
        &self,
        tag: u64,
        operations: Vec<Blob>,
        to: &CompletionSender,
    ) -> Result<(), ClientError> {
        self.hand_over(operations, |permit| Respond::to_queue(tag, to.clone(), permit)).await
    }

    /// Has an operation that only reads answered from what the replicas executed, where the cluster allows that and a quorum
    /// of them agrees, and ordered where not. (PROTOCOL §8, fast reads)
    ///
    /// # Errors
    /// As [`Session::submit_within`].
    pub async fn read_within(&self, operation: Blob, patience: Duration) -> Result<Answer, ClientError> {
        let read = async {
            let (answer, answered) = oneshot::channel();
            self.hand_over_read(operation, |permit| Respond::to_caller(answer, permit)).await?;
            answered.await.map_err(|_closed| ClientError::Closed)?
        };
        match timeout(patience, read).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.handle.too_late(patience).await),
        }
    }

    /// The same; the result goes to `to` with `tag`. Waits only while [`PENDING_MAX`] others have no result.
    ///
    /// # Errors
    /// [`ClientError::Closed`].
    pub async fn read_tagged(&self, tag: u64, operation: Blob, to: &CompletionSender) -> Result<(), ClientError> {
        self.hand_over_read(operation, |permit| Respond::to_queue(tag, to.clone(), permit)).await
    }

    async fn hand_over_read(
        &self,
        operation: Blob,
        respond: impl FnOnce(tokio::sync::OwnedSemaphorePermit) -> Respond,
    ) -> Result<(), ClientError> {
        let permit = Arc::clone(&self.room).acquire_owned().await.map_err(|_closed| ClientError::Closed)?;
        self.handle.command(Command::Read { client: self.client, operation, respond: respond(permit) }).await
    }

    async fn hand_over(
        &self,
        operations: Vec<Blob>,
        respond: impl FnOnce(tokio::sync::OwnedSemaphorePermit) -> Respond,
    ) -> Result<(), ClientError> {
        let operations_max = self.handle.configuration.parameters().batch_operations_max;
        let operations = List::new(operations).ok_or(SessionError::TooManyOperations { operations_max })?;
        let permit = Arc::clone(&self.room).acquire_owned().await.map_err(|_closed| ClientError::Closed)?;
        self.handle.command(Command::Submit { client: self.client, operations, respond: respond(permit) }).await
    }
}

impl Connection {
    /// Whether `session` is one of this connection.
    pub fn carries(&self, session: &Session) -> bool {
        self.handle.commands.same_channel(&session.handle.commands)
    }
}
