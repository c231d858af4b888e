//! What a replicated application is, and how a slot's requests run on it.
//!
//! An application is a deterministic state machine: the same operations in the same order give the same results and the
//! same root on every replica, whatever the machine. It sees no clock but the one it is handed, no randomness, and no
//! order of iteration that depends on memory. Its state is a map from byte keys to byte values as far as checkpoints and
//! state transfer are concerned; what it looks like in memory is its own business.

use alloc::boxed::Box;
use alloc::vec::Vec;

use bytes::Bytes;
use quorate_crypto::{Digest, PublicKey};

use crate::batch::OPERATIONS_MAX;
use crate::codec::{Blob, BorrowDecode, Encode, Frame, List};
use crate::message::Entry;
use crate::number::{RequestNumber, Sequence, Session};
use crate::state::Index;
use crate::time::WallTime;

/// Most bytes that the results of one request take together.
pub const RESULT_BYTES_MAX: usize = 512 << 10;

/// Most bytes that the results of one slot take together: thousands of small requests may stand in one batch.
pub const SLOT_RESULT_BYTES_MAX: usize = 32 << 20;

/// Most bytes of a result that is read without being ordered; a read that finds more is ordered, at the pace of its session.
pub const READ_BYTES_MAX: usize = 64 << 10;

/// What an operation may know of its surroundings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surroundings {
    /// The slot in which it executes.
    pub sequence: Sequence,
    /// The time that the operation sees: never earlier than that of an operation before it.
    pub time: WallTime,
    /// Who signed it.
    pub client: PublicKey,
    /// Most bytes that its result may take: a larger one is replaced by an empty one.
    pub result_bytes_max: usize,
}

/// An entry that was written (`Some`) or removed (`None`) since the checkpoint before. Its key has at most
/// [`ENTRY_KEY_BYTES_MAX`](crate::message::ENTRY_KEY_BYTES_MAX) bytes: a longer one ends the replica
/// when the checkpoint is to be stored, since it could be transferred to nobody.
pub type Change = (Bytes, Option<Bytes>);

/// What was written since this was last asked, each key once: what it holds now. It stays what it is while the application
/// goes on, and is gone through on another thread.
pub type Changes = Box<dyn Iterator<Item = Change> + Send>;

/// The state at a checkpoint: its root, and what differs from the checkpoint before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The Merkle root of the whole state.
    pub root: Digest,
    /// The entries that differ, in ascending order of their keys.
    pub changes: Vec<Change>,
}

/// Entries that are not a state of this application.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {index} is not one of this application's: {reason}")]
pub struct NotAState {
    /// The entry's place in the order given.
    pub index: u64,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// What an operation that only reads gives.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub struct Reading {
    /// The result.
    pub result: Blob,
    /// A slot after which nothing was written that the result depends on: it was the same after each slot from this one on.
    pub since: Sequence,
}

/// A deterministic state machine that is replicated.
pub trait Application {
    /// Runs one operation and gives its result. Bytes that mean nothing are an operation that fails: they too have a
    /// result, the same on every replica. Must not panic.
    fn execute(&mut self, surroundings: &Surroundings, operation: &Blob) -> Blob;

    /// The entries of the state that were written or removed since this was last called, for a checkpoint; those that are
    /// again what they were may be among them. Slots wait for this call, and not for what comes of it: it should take note
    /// of what there is, and leave the work to the iterator. [`Entries`](crate::state::Entries) does.
    fn changes(&mut self) -> Changes;

    /// Replaces the whole state by `entries`, each key once, in an order that depends on the keys' digests alone. The next
    /// changes count from here.
    ///
    /// # Errors
    /// [`NotAState`]: the state is then undefined until the next successful call.
    fn restore(&mut self, entries: &mut dyn Iterator<Item = Entry>) -> Result<(), NotAState>;

    /// What `operation` gives on the state as it is, without being ordered (PROTOCOL §8, fast reads); none if it does more
    /// than read. The slot in it depends on what was executed since [`Self::restore`] alone, which counts as slot zero: the
    /// same on every replica. Its result takes at most `result_bytes_max` bytes; none as well if that is too little. An
    /// application that does not offer this has all its reads ordered.
    fn read(&self, _operation: &Blob, _result_bytes_max: usize) -> Option<Reading> {
        None
    }
}

/// Reads from an application whose last checkpoint was at the slot `base`: what was written up to there counts as written
/// there, since not every replica has seen when.
pub fn read<A: Application + ?Sized>(application: &A, operation: &Blob, base: Sequence) -> Option<Reading> {
    let Reading { result, since } = application.read(operation, READ_BYTES_MAX)?;
    (result.len() <= READ_BYTES_MAX).then(|| Reading { result, since: since.max(base) })
}

/// An application with the index of its state, which gives its checkpoints their roots, on one thread.
pub struct Replicated {
    application: Box<dyn Application + Send>,
    index: Index,
}

impl Replicated {
    /// An application that has executed nothing, and whose tree has so many levels.
    ///
    /// # Panics
    /// If `depth` is greater than [`quorate_crypto::merkle::DEPTH_MAX`].
    pub fn new(application: impl Application + Send + 'static, depth: u8) -> Self {
        Self { application: Box::new(application), index: Index::new(depth) }
    }

    /// The digests of its state as of the last checkpoint, or restoration.
    pub const fn index(&self) -> &Index {
        &self.index
    }

    /// Runs a slot's requests in order.
    pub fn execute(&mut self, execution: &Execution) -> Vec<Results> {
        execute(&mut *self.application, execution)
    }

    /// See [`read`].
    pub fn read(&self, operation: &Blob, base: Sequence) -> Option<Reading> {
        read(&*self.application, operation, base)
    }

    /// The state as it is now. The next image's changes count from here.
    pub fn checkpoint(&mut self) -> Image {
        let changes = self.index.apply(self.application.changes());
        Image { root: self.index.root(), changes }
    }

    /// Replaces the whole state, and gives its root.
    ///
    /// # Errors
    /// As [`Application::restore`].
    pub fn restore(&mut self, entries: &mut dyn Iterator<Item = Entry>) -> Result<Digest, NotAState> {
        let (index, root) = restore(&mut *self.application, self.index.depth(), entries)?;
        self.index = index;
        Ok(root)
    }
}

/// Replaces the whole state of an application, and gives its index, of `depth` levels, with the root.
///
/// # Errors
/// As [`Application::restore`].
pub fn restore<A: Application + ?Sized>(
    application: &mut A,
    depth: u8,
    entries: &mut dyn Iterator<Item = Entry>,
) -> Result<(Index, Digest), NotAState> {
    let mut index = Index::new(depth);
    application.restore(&mut entries.inspect(|entry| index.add(&entry.key, &entry.value)))?;
    let root = index.finish();
    Ok((index, root))
}

impl core::fmt::Debug for Replicated {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.debug_struct("Replicated").field("index", &self.index).finish_non_exhaustive()
    }
}

/// A request that is to run: not a duplicate, within its session's window.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Executable {
    /// Who signed it.
    pub client: PublicKey,
    /// Its session.
    pub session: Session,
    /// Its number in the session.
    pub number: RequestNumber,
    /// Its place in the batch.
    pub index: u32,
    /// Its operations.
    pub operations: List<Blob, OPERATIONS_MAX>,
}

/// A slot that is to run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Execution {
    /// The slot.
    pub sequence: Sequence,
    /// The time that its operations see.
    pub time: WallTime,
    /// Those of its requests that run, in order.
    pub requests: Vec<Executable>,
}

/// The results of one request, one for each operation.
pub type Results = List<Blob, OPERATIONS_MAX>;

/// Runs a slot's requests in order.
pub fn execute<A: Application + ?Sized>(application: &mut A, execution: &Execution) -> Vec<Results> {
    let mut slot_bytes_left = SLOT_RESULT_BYTES_MAX;
    let requests = execution.requests.iter();
    requests
        .map(|request| {
            let bytes_max = slot_bytes_left.min(RESULT_BYTES_MAX);
            let (results, bytes) = execute_request(application, execution, request, bytes_max);
            slot_bytes_left -= bytes;
            results
        })
        .collect()
}

/// Runs one request's operations in order; gives the results and how many bytes they take, at most `bytes_max`.
fn execute_request<A: Application + ?Sized>(
    application: &mut A,
    slot: &Execution,
    request: &Executable,
    bytes_max: usize,
) -> (Results, usize) {
    let mut bytes_left = bytes_max;
    let results = request.operations.iter().map(|operation| {
        let Execution { sequence, time, .. } = *slot;
        let surroundings = Surroundings { sequence, time, client: request.client, result_bytes_max: bytes_left };
        let result = application.execute(&surroundings, operation);
        let result = if result.len() <= bytes_left { result } else { Blob::EMPTY };
        bytes_left -= result.len();
        result
    });
    let results = List::new(results.collect()).expect("as many results as operations");
    (results, bytes_max - bytes_left)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers each operation with one byte less than a result may have.
    struct Verbose;

    impl Application for Verbose {
        fn execute(&mut self, _: &Surroundings, _: &Blob) -> Blob {
            Blob::from(alloc::vec![7; RESULT_BYTES_MAX - 1])
        }

        fn changes(&mut self) -> Changes {
            Box::new(core::iter::empty())
        }

        fn restore(&mut self, _: &mut dyn Iterator<Item = Entry>) -> Result<(), NotAState> {
            Ok(())
        }
    }

    #[test]
    fn the_results_of_a_slot_are_bounded_together() {
        let client = PublicKey::from_bytes([5; 32]).expect("neither weak nor beyond the prime");
        let operations = List::new(alloc::vec![Blob::EMPTY; 2]).expect("two");
        let request = |index| Executable {
            client,
            session: Session::NONE,
            number: RequestNumber::new(1),
            index,
            operations: operations.clone(),
        };
        let full = u32::try_from(SLOT_RESULT_BYTES_MAX / RESULT_BYTES_MAX).expect("few");
        let requests = (0..full + 2).map(request).collect();
        let execution = Execution { sequence: Sequence::new(1), time: WallTime::ZERO, requests };
        let results = execute(&mut Verbose, &execution);
        let lengths: Vec<Vec<usize>> =
            results.iter().map(|results| results.iter().map(|result| result.len()).collect()).collect();
        let (within, beyond) = lengths.split_at(full as usize);
        assert!(within.iter().all(|lengths| lengths[..] == [RESULT_BYTES_MAX - 1, 0]), "one fills its request");
        assert!(beyond.iter().all(|lengths| lengths[..] == [0, 0]), "and so many fill the slot");
    }
}
