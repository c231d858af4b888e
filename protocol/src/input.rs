//! What can happen to a replica: all of it. (PROTOCOL §4 to §9)

use alloc::boxed::Box;
use alloc::vec::Vec;

use quorate_crypto::Digest;

use crate::application::Results;
use crate::batch::ParsedRequest;
use crate::evidence::Evidence;
use crate::message::Entry;
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
    /// The state that was staged part by part is whole.
    StateStaged(StagedState),
    /// The staged state is now the state, and durable.
    StateInstalled {
        /// The checkpoint's slot.
        sequence: Sequence,
    },
    /// The log will have no room for much more: what was appended is kept, nothing else is to be accepted.
    LogFull,
    /// The log has room again.
    LogHasRoom,
}

/// A state as it was put together from parts, before anyone relies on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedState {
    /// The checkpoint's slot.
    pub sequence: Sequence,
    /// The root of the application's entries, computed from them; `None` if they are not a state.
    pub application_root: Option<Digest>,
    /// The protocol's own entries.
    pub protocol: Vec<Entry>,
}
