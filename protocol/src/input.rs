//! What can happen to a replica: all of it. (PROTOCOL §4 to §9)

use alloc::boxed::Box;
use alloc::vec::Vec;

use quorate_crypto::Digest;

use crate::application::Results;
use crate::batch::ParsedRequest;
use crate::codec::{Decode, Encode};
use crate::evidence::Evidence;
use crate::number::{RecordNumber, ReplicaId, Sequence};
use crate::verify::{Payload, Verified};

/// An event, handed to [`crate::Machine::handle`] with the time at which it is handled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A peer's message.
    Message {
        /// Who the channel says sent it.
        from: ReplicaId,
        /// The message.
        message: Verified<Payload>,
    },
    /// A client's request, from the client itself.
    Request(Verified<ParsedRequest>),
    /// A copy of a client's request, from the client itself, who gave it to the primary. (PROTOCOL §6)
    Copy(Verified<ParsedRequest>),
    /// Checking a message found a proof of misbehaviour.
    Misbehaviour(Box<Evidence>),
    /// A deadline passed. A wake-up without a deadline does no harm.
    Wake,
    /// All records up to this one are durable.
    Durable(RecordNumber),
    /// A slot was executed; the results of its requests, in their order.
    Executed {
        /// The slot.
        sequence: Sequence,
        /// As many as the execution had requests.
        results: Vec<Results>,
    },
    /// The application's state after a slot has this root.
    CheckpointTaken {
        /// The slot.
        sequence: Sequence,
        /// The root.
        application_root: Digest,
    },
    /// The state after a slot is durable.
    CheckpointDurable {
        /// The slot.
        sequence: Sequence,
    },
    /// What is staged so far can be read, and was.
    StageReady(StageReady),
    /// The state that was staged part by part is whole.
    StateStaged {
        /// The checkpoint's slot.
        sequence: Sequence,
        /// The root of the application's entries, computed from them; `None` if they are not a state.
        application_root: Option<Digest>,
    },
    /// The staged state is now the state, and durable.
    StateInstalled {
        /// The checkpoint's slot.
        sequence: Sequence,
    },
    /// The durable state was read, and is not what was written. (PROTOCOL §9)
    StateDamaged,
    /// The log will have no room for much more: what was appended is kept, nothing else is to be accepted.
    LogFull,
    /// The log has room again.
    LogHasRoom,
    /// The log was read while this replica runs, and something that was durable is not what was written. (PROTOCOL §9)
    LogDamaged,
}

/// With what a state transfer begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageReady {
    /// The leaves of the application's tree over what is staged so far: a power of two of them.
    pub leaves: Vec<Digest>,
    /// What this machine gives to a transfer.
    pub limits: TransferLimits,
}

/// What a machine gives to a state transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub struct TransferLimits {
    /// Most bytes of entries that are held before they are checked, 64 counted besides for each: a bucket may hold any part
    /// of a state, and a source that lies has no end of entries.
    pub unchecked_bytes_max: u64,
    /// Most bytes a second that are asked for, about.
    pub bytes_per_second: u64,
}
