//! Reads that one standby answers from what it has executed: its word alone, and as old as what it has heard. (PROTOCOL §11)

use std::time::Duration;

use quorate_protocol::application::Reading;
use quorate_protocol::codec::Blob;
use quorate_protocol::message::ReplicaMessage;

use super::Connection;
use super::error::ClientError;
use super::pending::Question;

impl Connection {
    /// What an operation that only reads gives on the standby that this connection leads to, without a proof and without asking
    /// anybody else. Members answer such a question too where the cluster has fast reads, none of which is to be believed alone.
    ///
    /// # Errors
    /// [`ClientError::TimedOut`] or [`ClientError::Unreachable`]; [`ClientError::NotRead`] if it answers none now: its state is
    /// not the one that a quorum vouched for, too much is asked of it, or the operation is no read.
    pub async fn read_stale(&self, operation: Blob, patience: Duration) -> Result<Reading, ClientError> {
        let Some(replica) = self.linked().next() else { return Err(ClientError::Closed) };
        match self.handle.ask(replica, Question::Reading { client: self.handle.key, operation }, patience).await? {
            Some(ReplicaMessage::Read { answer: Some(answer), .. }) => Ok(answer.reading),
            Some(ReplicaMessage::Read { answer: None, .. }) => Err(ClientError::NotRead { replica }),
            Some(_) => Err(ClientError::Nonsense { replica }),
            None => Err(self.handle.too_late(patience).await),
        }
    }
}
