//! The messages between replicas, and between clients and replicas. (PROTOCOL §3, table of messages)
//!
//! Each bound on what a message may hold stands in its type. What a receiver keeps of it is bounded where it is kept.

use alloc::sync::Arc;

use quorate_crypto::{Digest, Domain, PublicKey, Signature, hash};

use crate::application::Reading;
use crate::batch::{OPERATIONS_MAX, SignedRequest};
use crate::certificate::{CommittedCertificate, PreparedCertificate, StableCertificate};
use crate::codec::{Blob, BorrowDecode, CodecError, Decode, Encode, Frame, List, decode, decode_head, encode};
use crate::configuration::{ClusterId, WINDOW_MAX};
use crate::number::{Epoch, ReplicaId, RequestNumber, Sequence, Session, View};
use crate::statement::{Checkpoint, Commit, Prepare, Vote};

mod part;

pub use part::{Content, Entry, Part, Want};

/// The version of every message; a frame of another version is refused before anything in it is read.
pub const VERSION: u8 = 1;

/// Most entries of a part of a transferred state.
pub const PART_ENTRIES_MAX: usize = 4096;

/// Most votes of a kind among the statements of a member: one a slot in two windows.
pub const STATEMENTS_MAX: usize = 2 * WINDOW_MAX;

/// Most votes for checkpoints among them: the two that are kept of a member, and the stable one.
pub const CHECKPOINT_STATEMENTS_MAX: usize = 3;

/// Longest key of an entry of a state, in bytes: asking for what follows it still fits into a vote's frame, and the store
/// takes it.
pub const ENTRY_KEY_BYTES_MAX: usize = 32 << 10;

/// Longest query of a question for a proof, in bytes: it names a key.
pub const QUERY_BYTES_MAX: usize = ENTRY_KEY_BYTES_MAX;

/// What replicas say to each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub enum Message {
    /// A backup passes a client's request on to the primary. (PROTOCOL §4.6)
    Request(SignedRequest),
    /// The primary proposes a batch for a slot.
    PrePrepare(PrePrepare),
    /// A backup accepts a batch for a slot.
    Prepare(Vote<Prepare>),
    /// A replica holds a prepared certificate.
    Commit(Vote<Commit>),
    /// A replica's state after a slot.
    Checkpoint(Vote<Checkpoint>),
    /// A checkpoint that a quorum vouches for.
    Stable(StableCertificate),
    /// A replica left the views below.
    ViewChange(SignedViewChange),
    /// The primary of a view shows why it begins as it does.
    NewView(SignedNewView),
    /// What a replica has and lacks.
    Status(Status),
    /// Asks for what the sender lacks.
    Fetch(Fetch),
    /// A batch that was asked for by its digest.
    Batch(FetchedBatch),
    /// A slot that is decided, with its proof.
    Decided(Decided),
    /// A part of a checkpoint's state.
    Part(Part),
    /// What its receiver has said, as far as the sender knows: it was asked for at a start. (PROTOCOL §9)
    Statements(Statements),
    /// A vote of a view's primary, who may have signed another one for the receiver: that one voted for another batch.
    /// (PROTOCOL §4.3)
    Conflict(Vote<Prepare>),
}

/// What a member has signed in an epoch, as far as another one knows. (PROTOCOL §9)
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub struct Statements {
    /// The question that it answers.
    pub token: u64,
    /// The epoch of all of them: that of the sender.
    pub epoch: Epoch,
    /// Votes to accept a batch, those of the highest views.
    pub prepares: List<Vote<Prepare>, STATEMENTS_MAX>,
    /// Votes to commit a batch, those of the highest views.
    pub commits: List<Vote<Commit>, STATEMENTS_MAX>,
    /// Votes for checkpoints, the highest.
    pub checkpoints: List<Vote<Checkpoint>, CHECKPOINT_STATEMENTS_MAX>,
    /// The view change of the highest view.
    pub view_change: Option<SignedViewChange>,
    /// The new view of the sender's view, if the receiver signed it.
    pub new_view: Option<SignedNewView>,
    /// How far the sender came: the highest slot that it executed, or in which something is prepared. No statement of the
    /// receiver's. (PROTOCOL §8, fast reads)
    pub reached: Sequence,
}

/// The primary's own [`Prepare`] vote, with the batch. (PROTOCOL §3)
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub struct PrePrepare {
    /// The primary's vote.
    pub vote: Vote<Prepare>,
    /// The encoded batch, whose digest the vote names.
    pub batch: Blob,
}

/// One vote that a replica cast, as its view change reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Cast {
    /// The slot.
    pub sequence: Sequence,
    /// The highest view in which the replica voted on it.
    pub view: View,
    /// What it voted for.
    pub digest: Digest,
}

/// A replica left the views below `view`, and this is what may have been decided in them. (PROTOCOL §7.1)
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub struct ViewChange {
    /// The epoch of the views.
    pub epoch: Epoch,
    /// The view that is asked for.
    pub view: View,
    /// Who asks.
    pub replica: ReplicaId,
    /// The stable certificate with the highest slot that the replica holds; none if only slot zero is stable.
    pub stable: Option<StableCertificate>,
    /// For each slot above the stable one, in ascending order, the prepared certificate of the highest view, if any.
    pub prepared: List<PreparedCertificate, WINDOW_MAX>,
    /// For each slot above the stable one, in ascending order, the vote cast in the highest view, if any.
    pub cast: List<Cast, WINDOW_MAX>,
}

/// A view change as it was signed: always sent byte for byte, never rebuilt.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub struct SignedViewChange {
    /// The encoding of a [`ViewChange`].
    pub body: Blob,
    /// The replica's signature over the digest of `body`.
    pub signature: Signature,
}

/// What a view change begins with.
#[derive(BorrowDecode)]
#[bincode(decode_context = "Frame")]
struct ViewChangeHead {
    epoch: Epoch,
    view: View,
    replica: ReplicaId,
}

/// What a new view begins with.
#[derive(BorrowDecode)]
#[bincode(decode_context = "Frame")]
struct NewViewHead {
    epoch: Epoch,
    view: View,
}

/// The digest of one batch that a new view proposes for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Proposal {
    /// The slot.
    pub sequence: Sequence,
    /// The batch.
    pub digest: Digest,
}

/// A view change that a new view rests on, by its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub struct NamedViewChange {
    /// Who asked for the view.
    pub replica: ReplicaId,
    /// The digest of the view change's body, as it was signed.
    pub digest: Digest,
}

/// The primary's account of how its view begins. (PROTOCOL §7.3)
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub struct NewView {
    /// The epoch of the view.
    pub epoch: Epoch,
    /// The view.
    pub view: View,
    /// The view changes that it rests on: exactly a quorum, in ascending order of the replicas.
    pub view_changes: List<NamedViewChange, { ReplicaId::COUNT_MAX }>,
    /// What follows from them for each slot above the highest stable one, in ascending order without a gap.
    pub proposals: List<Proposal, WINDOW_MAX>,
}

/// A new view as its primary signed it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub struct SignedNewView {
    /// The encoding of a [`NewView`].
    pub body: Blob,
    /// The primary's signature over the digest of `body`.
    pub signature: Signature,
}

/// How far a replica has come with a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Progress {
    /// It accepted no proposal in its view.
    Nothing,
    /// It accepted a proposal in its view.
    PrePrepared,
    /// It holds a prepared certificate of its view.
    Prepared,
    /// It knows what is decided, but lacks the batch.
    CommittedWithoutBatch,
    /// It knows what is decided and has the batch.
    Committed,
}

/// What a replica has, and so what it lacks. Also the sign that it is alive. (PROTOCOL §9)
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub struct Status {
    /// The sender's epoch.
    pub epoch: Epoch,
    /// The view that it is in or, if it is not in one, asks for.
    pub view: View,
    /// Whether it entered that view.
    pub entered: bool,
    /// Whether it suspects the primary of that view.
    pub suspects: bool,
    /// The low watermark.
    pub stable: Sequence,
    /// The last slot that it executed.
    pub executed: Sequence,
    /// The first decided slot that it can hand out with its batch and proof.
    pub decided_from: Sequence,
    /// Bit i: it holds a view change of member i for `view` or a higher one.
    pub view_changes: u32,
    /// Bit i: it holds the vote of member i for its own latest checkpoint above `stable`.
    pub checkpoint_votes: u32,
    /// How far it came with the slots after [`Status::base`], in order.
    pub slots: List<Progress, WINDOW_MAX>,
}

impl Status {
    /// After which slot votes may be of use to it: what is stable is decided, whether or not it executed that.
    pub fn base(&self) -> Sequence {
        self.executed.max(self.stable)
    }
}

/// Asks a peer for what the sender lacks. (PROTOCOL §9)
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub enum Fetch {
    /// The batch with this digest, proposed for this slot.
    Batch {
        /// The slot.
        sequence: Sequence,
        /// The batch.
        digest: Digest,
    },
    /// Decided slots after this one.
    Decided {
        /// The last slot that is not wanted.
        after: Sequence,
    },
    /// The view change with this digest.
    ViewChange {
        /// The digest of its body.
        digest: Digest,
    },
    /// The new view of this view, or of a higher one.
    NewView {
        /// The lowest view of interest.
        view: View,
    },
    /// A part of the state at a stable checkpoint.
    Part {
        /// The checkpoint's slot.
        sequence: Sequence,
        /// Which part.
        want: Want,
    },
    /// All that the sender itself has said: it was started, and wants to know whether it has lost anything.
    Statements {
        /// Tells the answer to this start's question from others.
        token: u64,
    },
}

/// A batch that was asked for by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub struct FetchedBatch {
    /// The slot for which it was asked.
    pub sequence: Sequence,
    /// The encoded batch.
    pub batch: Blob,
}

/// A decided slot: the certificate and the batch that it names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub struct Decided {
    /// The proof.
    pub certificate: CommittedCertificate,
    /// The encoded batch.
    pub batch: Blob,
}

impl Message {
    /// The epoch in which its sender, or whoever signed it, says something; none where the epoch does not matter, or the
    /// bytes name none.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::PrePrepare(PrePrepare { vote, .. }) | Self::Prepare(vote) | Self::Conflict(vote) => {
                Some(vote.statement.epoch)
            }
            Self::Commit(vote) => Some(vote.statement.epoch),
            Self::Checkpoint(vote) => Some(vote.statement.epoch),
            Self::ViewChange(signed) => signed.claimed().map(|(_, epoch, _)| epoch),
            Self::NewView(signed) => signed.claimed().map(|(epoch, _)| epoch),
            Self::Decided(decided) => Some(decided.certificate.statement.epoch),
            Self::Request(_)
            | Self::Stable(_)
            | Self::Status(_)
            | Self::Fetch(_)
            | Self::Batch(_)
            | Self::Part(_)
            | Self::Statements(_) => None,
        }
    }
}

impl Fetch {
    /// Whether its key is no longer than any may be.
    pub fn is_within_bounds(&self) -> bool {
        match self {
            Self::Part { want, .. } => want.is_within_bounds(),
            Self::Batch { .. }
            | Self::Decided { .. }
            | Self::ViewChange { .. }
            | Self::NewView { .. }
            | Self::Statements { .. } => true,
        }
    }
}

/// What a client says to a replica.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub enum ClientMessage {
    /// Replies to this key's requests go to the channel that this came by.
    Attach {
        /// The client's key.
        client: PublicKey,
        /// Its signature over [`attach_digest`] of the channel's binding.
        signature: Signature,
    },
    /// A request to order.
    Request(SignedRequest),
    /// Asks how the replica is; answered to anyone.
    Status,
    /// Asks for the value of a key with its proof. (PROTOCOL §8, proved reads)
    Prove {
        /// Names the question in the answer.
        number: RequestNumber,
        /// The application's query, of at most [`QUERY_BYTES_MAX`] bytes.
        query: Blob,
    },
    /// Asks for the result of an operation that only reads, from the state that the replica has executed. (PROTOCOL §8, fast
    /// reads)
    Read {
        /// Who asks.
        client: PublicKey,
        /// Names the question in the answer.
        number: RequestNumber,
        /// The operation.
        operation: Blob,
    },
    /// Asks which checkpoint the replica hands out, for a backup.
    Checkpoint {
        /// Names the question in the answer.
        number: RequestNumber,
    },
    /// Asks for a piece of a part of that checkpoint's state: the same parts that replicas fetch of each other.
    Part {
        /// Names the question in the answer.
        number: RequestNumber,
        /// The checkpoint's slot.
        sequence: Sequence,
        /// Which part.
        want: Want,
        /// Where the piece begins in the bytes of the encoded [`Part`].
        offset: u32,
    },
    /// A standby speaks as a peer does: the bytes of a frame that holds its [`Message::Status`], or a [`Message::Fetch`] of
    /// decided slots. (PROTOCOL §11)
    Standby(Blob),
    /// A copy of a request that the primary was given, for a backup to see how long it waits there. (PROTOCOL §6)
    Copy(SignedRequest),
}

/// What a replica says to a client.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub enum ReplicaMessage {
    /// The answer to a request.
    Reply(Reply),
    /// The request was not taken in: try again later. Nothing accepted is dropped. (PROTOCOL §12)
    Busy {
        /// The client.
        client: PublicKey,
        /// The request's number.
        number: RequestNumber,
        /// When to try again, in milliseconds.
        retry_after_ms: u32,
    },
    /// The request can never be ordered, or its client is not attached to the connection.
    Refused {
        /// The client that the request claims.
        client: PublicKey,
        /// The number that it claims.
        number: RequestNumber,
        /// The reason, for a person.
        reason: Blob,
    },
    /// The replica's account of itself, as JSON.
    Status(Blob),
    /// The answer to [`ClientMessage::Prove`].
    Proved {
        /// The question's number.
        number: RequestNumber,
        /// The stable certificate of the root that the proof leads to; none if no checkpoint is stable yet.
        certificate: Option<StableCertificate>,
        /// What the root is made of, besides the application's root.
        state: StateRoot,
        /// The application's answer and proof.
        proof: Blob,
    },
    /// The answer to [`ClientMessage::Read`].
    Read {
        /// Who asked.
        client: PublicKey,
        /// The question's number.
        number: RequestNumber,
        /// What was read; nothing if the replica may not answer now, or the operation does more than read.
        answer: Option<ReadAnswer>,
    },
    /// The answer to [`ClientMessage::Checkpoint`].
    Checkpoint {
        /// The question's number.
        number: RequestNumber,
        /// What it hands out; none if it holds the state of no stable checkpoint yet.
        checkpoint: Option<StableState>,
    },
    /// The answer to [`ClientMessage::Part`].
    Part {
        /// The question's number.
        number: RequestNumber,
        /// The piece; none if the replica hands that checkpoint out no more, or there is no such part of it.
        piece: Option<Piece>,
    },
    /// To a standby: the bytes of a frame as a peer would get it.
    Standby(Blob),
}

/// A stable checkpoint, and what its root is made of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub struct StableState {
    /// The quorum that vouches for it.
    pub certificate: StableCertificate,
    /// What the root in the certificate is the digest of.
    pub root: StateRoot,
}

/// Some of the bytes of an encoded [`Part`]: a value may be larger than a frame to a client.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub struct Piece {
    /// How many bytes the whole part has.
    pub length: u32,
    /// Those from the offset on that was asked for: as many as fit a frame.
    pub bytes: Blob,
}

/// What a replica read from its executed state. Answers count together if they are equal in all. (PROTOCOL §8)
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub struct ReadAnswer {
    /// The epoch of the state, in which the replica votes.
    pub epoch: Epoch,
    /// What was read, and since when it is so.
    pub reading: Reading,
}

impl ReadAnswer {
    /// A digest of all of it, by which answers are compared.
    pub fn digest(&self) -> Digest {
        let encoded = encode(self).expect("a result is bounded by the frame that it came in");
        hash(Domain::Results, &[&encoded])
    }
}

/// What the root of a checkpoint is made of. (PROTOCOL §5)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub struct StateRoot {
    /// The root of the application's state.
    pub application: Digest,
    /// The digest of everything else: sessions, configuration, time of the last slot.
    pub protocol: Digest,
}

/// The answer to a request. The client takes it when enough replicas gave the same, the view left aside. (PROTOCOL §4.5)
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub struct Reply {
    /// The epoch of the replica's executed state.
    pub epoch: Epoch,
    /// The replica's view, from which the client learns the primary.
    pub view: View,
    /// The client.
    pub client: PublicKey,
    /// The session that the request named.
    pub session: Session,
    /// The request's number.
    pub number: RequestNumber,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of an ordered request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub enum Outcome {
    /// It executed.
    Executed {
        /// The slot.
        sequence: Sequence,
        /// The request's place in the slot's batch.
        index: u32,
        /// One result for each operation.
        results: List<Blob, OPERATIONS_MAX>,
    },
    /// It opened the session, or found it open.
    Opened {
        /// The session.
        session: Session,
    },
    /// Its session is not in the table: it never executes. (PROTOCOL §12)
    Evicted,
    /// It executed long ago: its reply is no longer kept.
    Forgotten,
    /// It is an opening below one of the same client that executed: it never executes. Not ordered, the answering replica's
    /// own word. (PROTOCOL §4.1)
    Superseded {
        /// The higher number.
        opening: RequestNumber,
    },
}

impl Outcome {
    /// A digest of the outcome, by which replies are compared and kept in the state.
    pub fn digest(&self) -> Digest {
        let encoded = encode(self).expect("results were bounded when the operation ran");
        hash(Domain::Results, &[&encoded])
    }
}

/// What a client signs to have replies to its key sent by the channel with this binding.
pub fn attach_digest(cluster: &ClusterId, channel_binding: &[u8; 32]) -> Digest {
    hash(Domain::Attach, &[cluster.digest().as_bytes(), channel_binding])
}

/// What a replica signs for the view change `body`; also the view change's name.
pub fn view_change_digest(cluster: &ClusterId, body: &[u8]) -> Digest {
    hash(Domain::ViewChange, &[cluster.digest().as_bytes(), body])
}

/// What a primary signs for the new view `body`; also the new view's name.
pub fn new_view_digest(cluster: &ClusterId, body: &[u8]) -> Digest {
    hash(Domain::NewView, &[cluster.digest().as_bytes(), body])
}

/// The bytes of a frame that holds `message`.
///
/// # Errors
/// [`CodecError::TooLong`].
pub fn to_frame<T: Encode>(message: &T) -> Result<bytes::Bytes, CodecError> {
    encode(&(VERSION, message))
}

/// The message that a frame holds.
///
/// # Errors
/// [`CodecError`]; a frame of another version is malformed.
pub fn from_frame<T: for<'a> BorrowDecode<'a, Frame>>(frame: &bytes::Bytes) -> Result<T, CodecError> {
    match frame.first() {
        Some(&VERSION) => decode(&frame.slice(1..)),
        Some(_) => Err(CodecError::Malformed("a message of another version")),
        None => Err(CodecError::Malformed("an empty frame")),
    }
}

/// A view change whose signatures were checked, with the bytes that were signed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CheckedViewChange {
    /// What it says.
    pub content: ViewChange,
    /// The bytes and their signature, to send again.
    pub signed: SignedViewChange,
    /// Its name.
    pub digest: Digest,
}

/// A new view whose signature was checked, with the bytes that were signed. Whether it follows from its view changes is
/// for the replica to see.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CheckedNewView {
    /// What it says.
    pub content: NewView,
    /// The bytes and their signature, to send again.
    pub signed: SignedNewView,
    /// Its name.
    pub digest: Digest,
}

/// Shared, since a view change is kept in several places.
pub type SharedViewChange = Arc<CheckedViewChange>;
/// Shared, since a new view is kept and sent again.
pub type SharedNewView = Arc<CheckedNewView>;

impl SignedViewChange {
    /// Whose the bytes claim to be, and of which epoch and view; nothing else of them is looked at.
    pub(crate) fn claimed(&self) -> Option<(ReplicaId, Epoch, View)> {
        let ViewChangeHead { epoch, view, replica } = decode_head(self.body.bytes()).ok()?;
        Some((replica, epoch, view))
    }
}

impl SignedNewView {
    /// Of which epoch and view the bytes claim to be; nothing else of them is looked at.
    pub(crate) fn claimed(&self) -> Option<(Epoch, View)> {
        let NewViewHead { epoch, view } = decode_head(self.body.bytes()).ok()?;
        Some((epoch, view))
    }
}

impl ViewChange {
    /// The slot of the stable certificate; zero without one.
    pub fn stable_sequence(&self) -> Sequence {
        self.stable.as_ref().map_or(Sequence::ZERO, |certificate| certificate.statement.sequence)
    }
}
