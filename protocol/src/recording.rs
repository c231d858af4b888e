//! What a core is fed with, as bytes: its start, then each input with its time. A core that is fed with the same again does the
//! same again, so that what happened in the field can be looked at in a debugger. (docs/formats.md §11)
//!
//! Whoever records puts [`Item`]s, one a frame: [`start`] and [`input`] make them. Whoever replays hands them to [`Items`],
//! which gives a [`Step`] each time that one is whole. A message is recorded as it was received, and checked again: nothing
//! in a recording counts because it stands there.
//!
//! The private key is not in it. Signatures are deterministic, so that a replay with the same key signs the same.

mod items;
mod step;

use alloc::vec::Vec;

use crate::batch::SignedRequest;
use crate::codec::{Blob, BorrowDecode, CodecError, Decode, Encode, Frame, List, decode, encode_into};
use crate::evidence::Evidence;
use crate::input::TransferLimits;
use crate::message::{Entry, Message};
use crate::number::{Epoch, RecordNumber, ReplicaId, Sequence};
use crate::time::{Now, Time, WallTime};

pub use items::{input, start};
pub use step::{Configurations, Items, RecordedInput, RecordedStart, Rejected, Step};

use crate::application::Results;
use quorate_crypto::Digest;

/// Version of the items.
pub const VERSION: u32 = 1;

/// Most digests of one input's outputs. Those of outputs beyond are folded into the last.
pub const DIGESTS_MAX: usize = 1 << 16;

/// Most elements of a list that is recorded in parts.
const CHUNK_MAX: usize = 4096;

/// What the outputs of one input were, a digest each, in order: whoever records chooses how they are made.
pub type Digests = List<u32, DIGESTS_MAX>;

/// One frame of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
#[expect(clippy::large_enum_variant, reason = "nearly all are inputs, and there is one at a time")]
pub enum Item {
    /// Entries of the protocol's own state, for the start or the input that follows.
    Entries(List<Entry, CHUNK_MAX>),
    /// Results of requests, for the input that follows.
    Results(List<Results, CHUNK_MAX>),
    /// A record of the log, for the start that follows.
    Record {
        /// Its number.
        number: RecordNumber,
        /// What was signed.
        head: Blob,
        /// The rest; none if it was lost.
        body: Option<Blob>,
    },
    /// The core was started.
    Start {
        /// Which member it is.
        id: ReplicaId,
        /// The slot of the durable checkpoint and the application's root, if there was one.
        checkpoint: Option<(Sequence, Digest)>,
        /// The number that the next record gets.
        first_record: RecordNumber,
        /// Whether the log had lost records that may be votes.
        is_damaged: bool,
        /// The random number of this start.
        token: u64,
        /// When.
        now: Clocks,
        /// As what.
        role: Role,
    },
    /// An input.
    Input {
        /// Of the outputs since the item before, which the start or the last input gave.
        outputs: Digests,
        /// When.
        now: Clocks,
        /// What happened.
        event: Event,
    },
    /// The recording ends here, for a reason.
    End {
        /// Of the outputs since the item before, if the replica was stopped; else none.
        outputs: Digests,
        /// Why.
        reason: End,
    },
    /// Some of the leaves of a staged state.
    Leaves(List<Digest, CHUNK_MAX>),
}

/// As what a core is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Role {
    /// As the member: [`crate::replica::Replica::start`].
    Member,
    /// As a standby beside it: [`crate::replica::Replica::start_standby`].
    Standby,
}

/// Both clocks, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Clocks {
    /// Since an arbitrary start.
    pub monotonic: u64,
    /// Since the Unix epoch.
    pub wall: u64,
}

/// An input, with what was not checked yet in the place of what was.
#[derive(Debug, Clone, PartialEq, Eq, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub enum Event {
    /// A peer's message, checked with the keys of an epoch.
    Message {
        /// Who the channel said sent it.
        from: ReplicaId,
        /// The epoch whose keys were used.
        epoch: Epoch,
        /// The message as it came.
        message: Message,
    },
    /// A client's request, checked with the policy of an epoch.
    Request {
        /// The epoch.
        epoch: Epoch,
        /// The request as it came.
        request: SignedRequest,
    },
    /// A proof of misbehaviour.
    Misbehaviour(Evidence),
    /// A deadline passed.
    Wake,
    /// All records up to this one were durable.
    Durable(RecordNumber),
    /// A slot was executed; its results stand before.
    Executed {
        /// The slot.
        sequence: Sequence,
    },
    /// The application's root after a slot.
    CheckpointTaken {
        /// The slot.
        sequence: Sequence,
        /// The root.
        application_root: Digest,
    },
    /// The state after a slot was durable.
    CheckpointDurable {
        /// The slot.
        sequence: Sequence,
    },
    /// A state was staged.
    StateStaged {
        /// The slot.
        sequence: Sequence,
        /// The root of the application's entries, if they were a state.
        application_root: Option<Digest>,
    },
    /// The staged state was installed.
    StateInstalled {
        /// The slot.
        sequence: Sequence,
    },
    /// The log had no room.
    LogFull,
    /// The log had room again.
    LogHasRoom,
    /// What is staged could be read; its leaves stand before.
    StageReady(TransferLimits),
    /// A copy of a client's request, checked with the keys of an epoch.
    Copy {
        /// The epoch whose keys were used.
        epoch: Epoch,
        /// The request.
        request: SignedRequest,
    },
    /// The durable state is damaged.
    StateDamaged,
    /// The log is damaged.
    LogDamaged,
}

/// Why a recording ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum End {
    /// The replica was stopped in order.
    Stopped,
    /// It took all the room that it was given.
    Limit,
    /// The disk could not keep up with the replica.
    Slow,
    /// A write failed.
    Failed,
    /// An input was longer than any encoding may be.
    TooLong,
}

impl Item {
    /// Appends its bytes.
    ///
    /// # Errors
    /// [`CodecError::TooLong`]; `bytes` are then what they were.
    pub fn encode_into(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        encode_into(self, bytes)
    }

    /// The item that `bytes` are.
    ///
    /// # Errors
    /// [`CodecError`]: they are none.
    pub fn decode(bytes: &bytes::Bytes) -> Result<Self, CodecError> {
        decode(bytes)
    }
}

impl From<Now> for Clocks {
    fn from(now: Now) -> Self {
        Self { monotonic: now.monotonic.nanoseconds(), wall: now.wall.nanoseconds() }
    }
}

impl From<Clocks> for Now {
    fn from(clocks: Clocks) -> Self {
        Self { monotonic: Time::from_nanoseconds(clocks.monotonic), wall: WallTime::from_nanoseconds(clocks.wall) }
    }
}
