//! The key-value store through a session, typed.

use std::time::Duration;

use quorate_protocol::batch::OPERATIONS_MAX;
use quorate_protocol::client::ClientError as SessionError;
use quorate_protocol::codec::{Blob, CodecError, List};
use quorate_protocol::kv::{Operation, Output, Range, StepOutput, Transaction};
use quorate_protocol::message::Entry;
use quorate_protocol::number::Sequence;

use super::Connection;
use super::error::ClientError;
use super::session::{Answer, Session};

/// Why an operation on the store gave nothing.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum KvError {
    /// The operation breaks a bound of the store, and was not sent.
    #[error("not an operation of the store")]
    Operation(#[source] CodecError),
    /// There is no answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The store is full; nothing changed.
    #[error("the store is full: nothing was changed")]
    Full,
    /// What it tells does not fit an answer; a write took effect.
    #[error("the answer is too large: ask for less at a time")]
    TooLarge,
    /// The replicas run another application, or another version of it.
    #[error("the replicas do not know this operation")]
    NotUnderstood,
}

/// What an operation gave, and where in the total order it executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed<T> {
    /// What it gave.
    pub value: T,
    /// The slot; of a read that nobody ordered, one since which it has been so.
    pub sequence: Sequence,
    /// The request's place in the slot's batch; none, if nobody ordered it.
    pub index: Option<u32>,
}

/// A page of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Entries in ascending order of their keys.
    pub entries: Vec<Entry>,
    /// Whether entries follow: ask for those after the last one here.
    pub more: bool,
}

/// What a transaction gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionOutcome {
    /// Whether each condition held.
    pub succeeded: bool,
    /// Of each step of the branch that was taken.
    pub outputs: Vec<StepOutput>,
}

/// The key-value store. Operations are ordered, reads too, but for fast ones; all are linearizable.
#[derive(Debug, Clone)]
pub struct KeyValue {
    session: Session,
    patience: Duration,
}

impl KeyValue {
    /// The store, through `session`. Whatever takes longer than `patience` is given up; it may still execute.
    pub fn new(session: Session, patience: Duration) -> Self {
        Self { session, patience }
    }

    /// Writes a value; gives whether the key held one before.
    ///
    /// # Errors
    /// [`KvError`].
    pub async fn put(&self, key: &[u8], value: &[u8]) -> Result<Executed<bool>, KvError> {
        self.execute(&Operation::put(key, value), |output| match output {
            Output::Step(StepOutput::Done { replaced }) => Some(replaced),
            _ => None,
        })
        .await
    }

    /// Reads a value.
    ///
    /// # Errors
    /// [`KvError`].
    pub async fn get(&self, key: &[u8]) -> Result<Executed<Option<Blob>>, KvError> {
        self.execute(&Operation::get(key), value).await
    }

    /// Reads a value without having the read ordered, where the cluster allows that and a quorum of replicas agrees; else as
    /// [`KeyValue::get`]. (PROTOCOL §8, fast reads)
    ///
    /// # Errors
    /// [`KvError`].
    pub async fn get_fast(&self, key: &[u8]) -> Result<Executed<Option<Blob>>, KvError> {
        let operation = Operation::get(key).encode().map_err(KvError::Operation)?;
        executed(&self.session.read_within(operation, self.patience).await?, value)
    }

    /// Removes a key; gives whether it held a value.
    ///
    /// # Errors
    /// [`KvError`].
    pub async fn delete(&self, key: &[u8]) -> Result<Executed<bool>, KvError> {
        self.execute(&Operation::delete(key), |output| match output {
            Output::Step(StepOutput::Deleted(existed)) => Some(existed),
            _ => None,
        })
        .await
    }

    /// Writes `set` (`None`: removes the key) if the key holds `expect` (`None`: holds nothing); gives whether it did.
    ///
    /// # Errors
    /// [`KvError`].
    pub async fn compare_and_set(
        &self,
        key: &[u8],
        expect: Option<&[u8]>,
        set: Option<&[u8]>,
    ) -> Result<Executed<bool>, KvError> {
        let operation =
            Operation::CompareAndSet { key: key.into(), expect: expect.map(Blob::from), set: set.map(Blob::from) };
        self.execute(&operation, |output| match output {
            Output::Swapped(swapped) => Some(swapped),
            _ => None,
        })
        .await
    }

    /// A page of entries. Each page is read at its own time.
    ///
    /// # Errors
    /// [`KvError`].
    pub async fn range(&self, range: Range) -> Result<Executed<Page>, KvError> {
        self.execute(&Operation::Range(range), page).await
    }

    /// The same without having the read ordered, as [`KeyValue::get_fast`].
    ///
    /// # Errors
    /// [`KvError`].
    pub async fn range_fast(&self, range: Range) -> Result<Executed<Page>, KvError> {
        let operation = Operation::Range(range).encode().map_err(KvError::Operation)?;
        executed(&self.session.read_within(operation, self.patience).await?, page)
    }

    /// Several steps at once.
    ///
    /// # Errors
    /// [`KvError`].
    pub async fn transaction(&self, transaction: Transaction) -> Result<Executed<TransactionOutcome>, KvError> {
        self.execute(&Operation::Transaction(transaction), |output| match output {
            Output::Transaction { succeeded, outputs } => {
                Some(TransactionOutcome { succeeded, outputs: outputs.into_vec() })
            }
            _ => None,
        })
        .await
    }

    async fn execute<T>(
        &self,
        operation: &Operation,
        read: impl FnOnce(Output) -> Option<T>,
    ) -> Result<Executed<T>, KvError> {
        let operation = operation.encode().map_err(KvError::Operation)?;
        executed(&self.session.submit_within(vec![operation], self.patience).await?, read)
    }
}

/// Reads a value from what a standby has executed: its word alone. (PROTOCOL §11)
///
/// # Errors
/// [`KvError`]; see [`Connection::read_stale`].
pub async fn get_stale(
    standby: &Connection,
    key: &[u8],
    patience: Duration,
) -> Result<Executed<Option<Blob>>, KvError> {
    let operation = Operation::get(key).encode().map_err(KvError::Operation)?;
    let reading = standby.read_stale(operation, patience).await?;
    let results = List::new(vec![reading.result]).unwrap_or_else(List::empty);
    executed(&Answer { sequence: reading.since, index: None, results, retries: 0 }, value)
}

/// What an answer says.
fn executed<T>(answer: &Answer, read: impl FnOnce(Output) -> Option<T>) -> Result<Executed<T>, KvError> {
    let Answer { sequence, index, results, .. } = answer;
    let value = read(output(results)?).ok_or(KvError::NotUnderstood)?;
    Ok(Executed { value, sequence: *sequence, index: *index })
}

/// What a get found.
#[expect(clippy::option_option, reason = "it is no answer to a get, or the value, of which there may be none")]
fn value(output: Output) -> Option<Option<Blob>> {
    match output {
        Output::Step(StepOutput::Value(value)) => Some(value),
        _ => None,
    }
}

/// What a range found.
fn page(output: Output) -> Option<Page> {
    match output {
        Output::Entries { entries, more } => Some(Page { entries: entries.into_vec(), more }),
        _ => None,
    }
}

/// The one output of a request of one operation, unless it says that there is none.
fn output(results: &List<Blob, OPERATIONS_MAX>) -> Result<Output, KvError> {
    let result = results.first().ok_or(KvError::NotUnderstood)?;
    match Output::decode(result).map_err(|_malformed| KvError::NotUnderstood)? {
        Output::Full => Err(KvError::Full),
        Output::Invalid => Err(KvError::NotUnderstood),
        Output::Step(StepOutput::TooLarge) => Err(KvError::TooLarge),
        output => Ok(output),
    }
}

impl KvError {
    /// Whether the operation may have been executed, or may be later.
    pub fn may_have_executed(&self) -> bool {
        match self {
            Self::Operation(_) | Self::Full | Self::NotUnderstood => false,
            Self::Client(error) => error.may_have_executed(),
            Self::TooLarge => true,
        }
    }

    /// Whether the session could not take it in now, and can later.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Client(ClientError::Session(SessionError::QueueFull)))
    }
}

#[cfg(test)]
mod tests {
    use quorate_protocol::codec::encode;

    use super::*;

    fn read(output_bytes: Blob) -> Result<Output, KvError> {
        output(&List::new(vec![output_bytes]).unwrap())
    }

    #[test]
    fn what_the_store_refuses_is_an_error() {
        assert!(matches!(read(encode(&Output::Full).unwrap().into()), Err(KvError::Full)));
        assert!(matches!(read(encode(&Output::Invalid).unwrap().into()), Err(KvError::NotUnderstood)));
        assert!(matches!(read(Blob::EMPTY), Err(KvError::TooLarge)));
        assert!(matches!(read(Blob::from(&b"\xff"[..])), Err(KvError::NotUnderstood)));
        assert!(matches!(read(encode(&Output::Swapped(true)).unwrap().into()), Ok(Output::Swapped(true))));
    }
}
