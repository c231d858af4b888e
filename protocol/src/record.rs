//! What a replica writes to its log before it says anything. (PROTOCOL §3, column "durable first"; §9)
//!
//! A record is a small head, which names what was signed, and a body, which may be large. The log keeps the head twice in
//! a frame: a vote of which either copy is whole counts as cast.

use bytes::Bytes;

use crate::batch::Batch;
use crate::certificate::{CommittedCertificate, PreparedCertificate, StableCertificate};
use crate::codec::{BorrowDecode, CodecError, Encode, Frame, List, decode, encode};
use crate::configuration::Configuration;
use crate::membership::Membership;
use crate::message::{SignedNewView, SignedViewChange};
use crate::number::{Epoch, Incarnation, ReplicaId, Sequence, View};
use crate::statement::{Commit, Prepare, Vote};

/// One entry of the write-ahead log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Record {
    /// This replica accepts a batch; the body is the batch, unless an earlier record holds it already.
    Accepted(Vote<Prepare>, Option<Batch>),
    /// This replica holds a prepared certificate and commits.
    Prepared(PreparedCertificate, Vote<Commit>),
    /// A slot is decided. Nothing waits for this record: it only shortens the next start.
    Committed(CommittedCertificate),
    /// A decided batch that this replica had not accepted itself.
    Learned(CommittedCertificate, Batch),
    /// A checkpoint is stable.
    Stable(StableCertificate),
    /// This replica left the views of an epoch below one.
    ViewChange(Epoch, View, SignedViewChange),
    /// This replica enters a view of an epoch, with the view changes that the new view rests on.
    NewView(Epoch, View, NewViewRecord),
    /// This replica takes part in this epoch, and this checkpoint of it is stable, or the one before it, that began it.
    Epoch(Membership, StableCertificate),
    /// The life of the log that votes come from: the first record of every log, and the first after votes were lost.
    Incarnation(Incarnation),
    /// A batch that this replica voted for before it voted for another: others may have to ask for it. Where the log is
    /// written anew; else it stands with the vote.
    Batch(Epoch, Sequence, Batch),
}

/// A new view with the view changes that it rests on, whole. (PROTOCOL §7.4)
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub struct NewViewRecord {
    /// The new view.
    pub new_view: SignedNewView,
    /// The view changes that it names.
    pub view_changes: List<SignedViewChange, { ReplicaId::COUNT_MAX }>,
}

/// A record as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedRecord {
    /// What was signed; kept twice.
    pub head: Bytes,
    /// The rest; may be empty.
    pub body: Bytes,
}

/// A record as it came back from the log, whose body may be lost to damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovered {
    /// All of it.
    Whole(Record),
    /// This replica accepted a batch that is lost here; peers have it.
    AcceptedWithoutBatch(Vote<Prepare>),
    /// A slot is decided, the batch is lost here; peers have it.
    LearnedWithoutBatch(CommittedCertificate),
    /// This replica left the views below, by a message that is lost: it may not be rebuilt.
    ViewChangeLost(Epoch, View),
    /// This replica entered a view, by a new view that is lost here.
    NewViewLost(Epoch, View),
    /// A batch that was kept for others is lost here.
    BatchLost(Epoch, Sequence),
}

#[derive(Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
enum Head {
    Accepted { vote: Vote<Prepare>, has_batch: bool },
    Prepared(PreparedCertificate, Vote<Commit>),
    Committed(CommittedCertificate),
    Learned(CommittedCertificate),
    Stable(StableCertificate),
    ViewChange(Epoch, View),
    NewView(Epoch, View),
    Epoch(Membership, StableCertificate),
    Incarnation(Incarnation),
    Batch(Epoch, Sequence),
}

impl Record {
    /// The batch in it.
    pub(crate) fn batch(&self) -> Option<&Batch> {
        match self {
            Self::Accepted(_, batch) => batch.as_ref(),
            Self::Learned(_, batch) | Self::Batch(_, _, batch) => Some(batch),
            Self::Prepared(..)
            | Self::Committed(_)
            | Self::Stable(_)
            | Self::ViewChange(..)
            | Self::NewView(..)
            | Self::Epoch(..)
            | Self::Incarnation(_) => None,
        }
    }

    /// Whether something may wait for it to be durable. What only shortens the next start can wait for company.
    pub const fn is_awaited(&self) -> bool {
        !matches!(self, Self::Committed(_))
    }

    /// The record's bytes. No record exceeds the bounds of the encoding: its parts have bounds far below, and for a new view
    /// the configuration sees to it.
    pub fn encode(&self) -> EncodedRecord {
        let (head, body) = match self {
            Self::Accepted(vote, batch) => (
                Head::Accepted { vote: *vote, has_batch: batch.is_some() },
                batch.as_ref().map_or(Bytes::new(), |batch| batch.body().clone()),
            ),
            Self::Prepared(certificate, vote) => (Head::Prepared(certificate.clone(), *vote), Bytes::new()),
            Self::Committed(certificate) => (Head::Committed(certificate.clone()), Bytes::new()),
            Self::Learned(certificate, batch) => (Head::Learned(certificate.clone()), batch.body().clone()),
            Self::Stable(certificate) => (Head::Stable(certificate.clone()), Bytes::new()),
            Self::ViewChange(epoch, view, signed) => (Head::ViewChange(*epoch, *view), whole(signed)),
            Self::NewView(epoch, view, new_view) => (Head::NewView(*epoch, *view), whole(new_view)),
            Self::Epoch(membership, stable) => (Head::Epoch(membership.clone(), stable.clone()), Bytes::new()),
            Self::Incarnation(incarnation) => (Head::Incarnation(*incarnation), Bytes::new()),
            Self::Batch(epoch, sequence, batch) => (Head::Batch(*epoch, *sequence), batch.body().clone()),
        };
        EncodedRecord { head: whole(&head), body }
    }
}

impl Recovered {
    /// The bytes that it came from: the head, and the body unless that is lost.
    pub fn encode(&self) -> (Bytes, Option<Bytes>) {
        let head = match self {
            Self::Whole(record) => {
                let EncodedRecord { head, body } = record.encode();
                return (head, Some(body));
            }
            Self::AcceptedWithoutBatch(vote) => Head::Accepted { vote: *vote, has_batch: true },
            Self::LearnedWithoutBatch(certificate) => Head::Learned(certificate.clone()),
            Self::ViewChangeLost(epoch, view) => Head::ViewChange(*epoch, *view),
            Self::NewViewLost(epoch, view) => Head::NewView(*epoch, *view),
            Self::BatchLost(epoch, sequence) => Head::Batch(*epoch, *sequence),
        };
        (whole(&head), None)
    }

    /// The record whose head is `head` and whose body, if it is not lost, is `body`.
    ///
    /// # Errors
    /// [`CodecError`]: whole bytes that are no record of this version.
    pub fn decode(head: &Bytes, body: Option<&Bytes>, configuration: &Configuration) -> Result<Self, CodecError> {
        let record = match (decode(head)?, body) {
            (Head::Accepted { vote, has_batch: false }, _) => Record::Accepted(vote, None),
            (Head::Accepted { vote, has_batch: true }, Some(body)) => {
                Record::Accepted(vote, Some(batch(body, configuration)?))
            }
            (Head::Accepted { vote, has_batch: true }, None) => return Ok(Self::AcceptedWithoutBatch(vote)),
            (Head::Prepared(certificate, vote), _) => Record::Prepared(certificate, vote),
            (Head::Committed(certificate), _) => Record::Committed(certificate),
            (Head::Learned(certificate), Some(body)) => Record::Learned(certificate, batch(body, configuration)?),
            (Head::Learned(certificate), None) => return Ok(Self::LearnedWithoutBatch(certificate)),
            (Head::Stable(certificate), _) => Record::Stable(certificate),
            (Head::ViewChange(epoch, view), Some(body)) => Record::ViewChange(epoch, view, decode(body)?),
            (Head::ViewChange(epoch, view), None) => return Ok(Self::ViewChangeLost(epoch, view)),
            (Head::NewView(epoch, view), Some(body)) => Record::NewView(epoch, view, decode(body)?),
            (Head::NewView(epoch, view), None) => return Ok(Self::NewViewLost(epoch, view)),
            (Head::Epoch(membership, stable), _) => Record::Epoch(membership, stable),
            (Head::Incarnation(incarnation), _) => Record::Incarnation(incarnation),
            (Head::Batch(epoch, sequence), Some(body)) => Record::Batch(epoch, sequence, batch(body, configuration)?),
            (Head::Batch(epoch, sequence), None) => return Ok(Self::BatchLost(epoch, sequence)),
        };
        Ok(Self::Whole(record))
    }
}

fn whole<T: Encode>(value: &T) -> Bytes {
    encode(value).expect("every part of a record has a bound, and their sum is below that of the encoding")
}

fn batch(body: &Bytes, configuration: &Configuration) -> Result<Batch, CodecError> {
    Batch::parse(body.clone(), configuration).or(Err(CodecError::Malformed("a batch of another configuration")))
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use quorate_crypto::{Digest, Signature};

    use super::*;
    use crate::certificate::{Certificate, VoteSignature};
    use crate::codec::Blob;
    use crate::message::{Cast, NamedViewChange, NewView, Proposal, ViewChange};
    use crate::statement::Checkpoint;

    const MEMBERS: usize = 31;
    const QUORUM: usize = 21;
    const WINDOW: u64 = 512;
    const DIGEST: Digest = Digest::ZERO;
    const SIGNATURE: Signature = Signature::from_bytes([0; 64]);

    fn certificate<S>(statement: S) -> Certificate<S> {
        let votes = ReplicaId::all(MEMBERS).map(|voter| VoteSignature { voter, signature: SIGNATURE });
        Certificate { statement, votes: List::new(votes.collect()).expect("a vote a member") }
    }

    fn slots() -> impl Iterator<Item = Sequence> {
        (1..=WINDOW).map(Sequence::new)
    }

    #[test]
    fn only_a_decision_is_nothing_that_anybody_waits_for() {
        let statement = Prepare { epoch: Epoch::ZERO, view: View::ZERO, sequence: Sequence::new(1), digest: DIGEST };
        let vote = Vote { statement: statement.commit(), voter: ReplicaId::new(0), signature: SIGNATURE };
        assert!(Record::Prepared(certificate(statement), vote).is_awaited());
        assert!(!Record::Committed(certificate(statement.commit())).is_awaited());
    }

    /// With the default window and the most members, and more votes in each certificate than are needed. (PROTOCOL §7.4)
    #[test]
    fn the_largest_new_view_is_a_record_that_is_read_back() {
        let (epoch, view) = (Epoch::ZERO, View::new(1));
        let prepared =
            slots().map(|sequence| certificate(Prepare { epoch, view: View::ZERO, sequence, digest: DIGEST }));
        let cast = slots().map(|sequence| Cast { sequence, view: View::ZERO, digest: DIGEST });
        let content = ViewChange {
            epoch,
            view,
            replica: ReplicaId::new(0),
            stable: Some(certificate(Checkpoint { epoch, sequence: Sequence::new(WINDOW), root: DIGEST })),
            prepared: List::new(prepared.collect()).expect("a window"),
            cast: List::new(cast.collect()).expect("a window"),
        };
        let body = Blob::from(encode(&content).expect("one of them"));
        let named: Vec<_> = ReplicaId::all(QUORUM).map(|replica| NamedViewChange { replica, digest: DIGEST }).collect();
        let proposals = slots().map(|sequence| Proposal { sequence, digest: DIGEST });
        let new_view = NewView {
            epoch,
            view,
            view_changes: List::new(named).expect("a quorum"),
            proposals: List::new(proposals.collect()).expect("a window"),
        };
        let new_view = Blob::from(encode(&new_view).expect("digests"));
        let record = NewViewRecord {
            new_view: SignedNewView { body: new_view, signature: SIGNATURE },
            view_changes: List::new(vec![SignedViewChange { body, signature: SIGNATURE }; QUORUM]).expect("a quorum"),
        };
        let encoded = Record::NewView(epoch, view, record.clone()).encode();
        assert_eq!(decode::<NewViewRecord>(&encoded.body), Ok(record));
    }
}
