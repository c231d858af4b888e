//! What a replica asks of its surroundings: all of it, in the order in which it is to be done.

use alloc::boxed::Box;
use alloc::vec::Vec;

use quorate_crypto::{Digest, PublicKey};

use crate::application::{Change, Execution};
use crate::certificate::StableCertificate;
use crate::evidence::Evidence;
use crate::message::{Entry, Message, Reply, StateRoot, Want};
use crate::number::{Epoch, RecordNumber, ReplicaId, RequestNumber, Sequence, View};
use crate::record::Record;

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Output {
    /// Append the record to the log, whose numbers have no gap. Answered by [`crate::Input::Durable`].
    Append {
        /// Its number.
        number: RecordNumber,
        /// The record.
        record: Record,
    },
    /// What is appended from here on stands apart from what was before, so that a cut between the two leaves nothing older.
    BeginSegment,
    /// Drop all records below this number, once all that were appended before are durable.
    Cut {
        /// The first record that is kept.
        before: RecordNumber,
    },
    /// Send to one peer.
    Send {
        /// The peer.
        to: ReplicaId,
        /// The message.
        message: Message,
    },
    /// Send to all other replicas.
    Broadcast(Message),
    /// Execute a slot, after those before it. Answered by [`crate::Input::Executed`].
    Execute(Execution),
    /// Take a checkpoint of the state after the slot that was executed last, before any other executes: the
    /// application's root is wanted at once, and application and protocol changes durable together. Answered by
    /// [`crate::Input::CheckpointTaken`] and [`crate::Input::CheckpointDurable`].
    TakeCheckpoint {
        /// The slot.
        sequence: Sequence,
        /// What changed in the protocol's own state since the checkpoint before.
        protocol: Vec<Change>,
    },
    /// A checkpoint of this replica's own is stable: it stays readable, for peers and proofs, until the next is.
    CheckpointStable {
        /// Its certificate.
        certificate: StableCertificate,
        /// What the root is made of.
        root: StateRoot,
    },
    /// Send a part of the state at a durable checkpoint to a peer, as [`Message::Part`].
    SendPart {
        /// The peer.
        to: ReplicaId,
        /// The checkpoint's slot: nothing is sent if its state cannot be read any more.
        sequence: Sequence,
        /// Which part.
        want: Want,
    },
    /// Begin to stage a transferred state: the application's entries at the last durable checkpoint, as they can be read
    /// now, in which buckets are then replaced. Those that were staged before and not installed are replaced already, also by
    /// an earlier process, unless another checkpoint became durable since. Answered by [`crate::Input::StageReady`].
    StageBegin {
        /// Whether all of that is to be forgotten, and the staged state to begin empty: something in it is not what was read.
        afresh: bool,
    },
    /// Replace buckets of the application's entries in the staged state.
    StageBuckets(Vec<StagedBucket>),
    /// All is staged: compute the root of the application's entries. Answered by [`crate::Input::StateStaged`].
    StageEnd {
        /// The checkpoint's slot.
        sequence: Sequence,
        /// The protocol's own entries at that checkpoint, in ascending order of their keys.
        protocol: Vec<Entry>,
    },
    /// The staged state is the certified one: make it the state, durable at once. Answered by
    /// [`crate::Input::StateInstalled`].
    StageInstall,
    /// Answer a client.
    Reply(Reply),
    /// Tell a client to come back later.
    Busy {
        /// The client.
        client: PublicKey,
        /// Its request.
        number: RequestNumber,
        /// When, in milliseconds.
        retry_after_ms: u32,
    },
    /// Keep a proof of misbehaviour.
    Evidence(Box<Evidence>),
    /// Tell the operator.
    Notice(Notice),
}

/// A bucket of a staged state, which was checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StagedBucket {
    /// The bucket.
    pub number: u32,
    /// Its leaf.
    pub leaf: Digest,
    /// All its entries.
    pub entries: Vec<Entry>,
}

/// What an operator should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Notice {
    /// This replica begins to suspect a primary. It leaves the view only if enough others do.
    PrimarySuspected {
        /// The view that it is in or asks for.
        view: View,
        /// Why.
        reason: Suspicion,
    },
    /// This replica asks for a view.
    ViewWanted {
        /// The view.
        view: View,
        /// Why.
        reason: Suspicion,
    },
    /// The view asked for next is not the next one: it would belong to somebody who was given up lately.
    TurnPassedOver {
        /// Whose view it would be.
        replica: ReplicaId,
    },
    /// This replica entered a view.
    ViewEntered {
        /// The view.
        view: View,
    },
    /// A checkpoint is stable.
    Stable {
        /// Its slot.
        sequence: Sequence,
    },
    /// This replica's own state differs from the one that a quorum vouches for: it stopped executing.
    Diverged {
        /// The checkpoint at which it shows.
        sequence: Sequence,
        /// The certified root.
        certified: Digest,
        /// The root here.
        own: Digest,
    },
    /// The durable state of this replica is damaged: it stopped executing, and takes the state from the others.
    StateDamaged {
        /// The slot of the checkpoint.
        sequence: Sequence,
    },
    /// The log of this replica is damaged: what a start would need is written again, and what is there is cut.
    LogDamaged,
    /// A state transfer began, or turned to another checkpoint.
    TransferBegan {
        /// The checkpoint's slot.
        sequence: Sequence,
    },
    /// What was staged is not what was fetched: the machine's disk or memory is damaged. All is fetched again.
    TransferSpoilt {
        /// The checkpoint's slot.
        sequence: Sequence,
    },
    /// A source of a state transfer was replaced: it lied or did not answer.
    TransferSourceReplaced {
        /// The source.
        source: ReplicaId,
        /// Whether what it sent was wrong, not merely missing.
        lied: bool,
    },
    /// This replica does not vote.
    NotVoting {
        /// Why not.
        reason: NotVoting,
    },
    /// This replica votes.
    Voting {
        /// The epoch.
        epoch: Epoch,
    },
    /// This replica takes part in an epoch from its beginning on, or from where the others are.
    EpochEntered {
        /// The epoch.
        epoch: Epoch,
        /// The checkpoint that it began with.
        began: Sequence,
    },
    /// A state transfer ended: the state is that of the checkpoint.
    TransferEnded {
        /// The checkpoint's slot.
        sequence: Sequence,
    },
}

/// Why a replica executes what the others decide, and votes on nothing. (PROTOCOL §9)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotVoting {
    /// It was started, and asks the others what it has said before.
    Asking {
        /// So many have answered.
        answers: usize,
        /// So many must.
        needed: usize,
    },
    /// It has lost votes, and waits for an epoch that names its new incarnation.
    Lost(Loss),
    /// It stands by, beside the member whose place it may take: it never votes.
    StandsBy,
}

/// How a replica knows that it lost votes. (PROTOCOL §9)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loss {
    /// Its log holds no first record: the disk is new, or what was on it is gone.
    Empty,
    /// Votes in its log are damaged, or the records around them are missing.
    Damaged,
    /// It lost votes before it was started the last time.
    Earlier,
    /// A member showed a statement of its own that its log should hold and does not.
    Shown {
        /// The member.
        by: ReplicaId,
    },
    /// The epoch names another incarnation: another log was started under its key.
    Replaced,
}

/// Why a replica suspects a primary or asks for another view. (PROTOCOL §6)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suspicion {
    /// The primary equivocated or proposed something invalid.
    Proof,
    /// A request that is expected waited too long.
    Deadline,
    /// Work is pending and nothing was proposed.
    Silence,
    /// The primary is not heard of.
    Crash,
    /// It lets requests wait far longer than ordering them takes, and than others did.
    Slowness,
    /// A member left the view alone and asks in vain for a higher one.
    Stranded,
    /// The new view did not begin in time.
    NewViewLate,
    /// Enough others suspect the primary, or ask for the view.
    Joined,
    /// After a start, the message that asked for the view before is lost.
    Restart,
}
