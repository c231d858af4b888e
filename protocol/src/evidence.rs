//! Proofs of misbehaviour, which anyone with the configuration can check. (PROTOCOL §4.3; Sheng et al., CCS 2021)

use quorate_crypto::Item;

use crate::batch::{Batch, batch_digest};
use crate::codec::{Blob, BorrowDecode, Encode, Frame, decode};
use crate::configuration::Configuration;
use crate::message::{SignedViewChange, ViewChange, view_change_digest};
use crate::number::{Epoch, ReplicaId};
use crate::statement::{Checkpoint, Commit, Prepare, Statement, Vote};
use crate::verify::Verifier;

/// Two statements of one replica that no correct replica makes both, or one that none makes at all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub enum Evidence {
    /// Two batches accepted, or proposed, for one slot in one view.
    ConflictingPrepares(Vote<Prepare>, Vote<Prepare>),
    /// Two batches held prepared for one slot in one view.
    ConflictingCommits(Vote<Commit>, Vote<Commit>),
    /// Two roots of the state after one slot.
    ConflictingCheckpoints(Vote<Checkpoint>, Vote<Checkpoint>),
    /// A batch proposed that breaks the bounds or holds an invalid client signature.
    InvalidBatch {
        /// The primary's vote, which names the batch.
        vote: Vote<Prepare>,
        /// The batch.
        batch: Blob,
    },
    /// A batch committed in a view, and a view change to a later one that knows nothing of it: no prepared certificate of the
    /// slot in that view for that batch, or in a later view, and no stable checkpoint that covers the slot. (PROTOCOL §15)
    ForgottenCommit {
        /// What was committed.
        vote: Vote<Commit>,
        /// What was said to be all that might have been decided.
        view_change: SignedViewChange,
    },
}

impl Evidence {
    /// Whom it accuses.
    pub const fn accused(&self) -> ReplicaId {
        match self {
            Self::ConflictingPrepares(vote, _) | Self::InvalidBatch { vote, .. } => vote.voter,
            Self::ConflictingCommits(vote, _) | Self::ForgottenCommit { vote, .. } => vote.voter,
            Self::ConflictingCheckpoints(vote, _) => vote.voter,
        }
    }

    /// Whether it proves that the accused is faulty: the form is one of misbehaviour and the signatures are valid.
    pub fn is_proof(&self, configuration: &Configuration, verifier: &mut dyn Verifier) -> bool {
        self.epoch() == configuration.epoch() && self.is_proof_in_epoch(configuration, verifier)
    }

    /// The epoch whose keys and parameters judge it.
    pub const fn epoch(&self) -> Epoch {
        match self {
            Self::ConflictingPrepares(vote, _) | Self::InvalidBatch { vote, .. } => vote.statement.epoch,
            Self::ConflictingCommits(vote, _) | Self::ForgottenCommit { vote, .. } => vote.statement.epoch,
            Self::ConflictingCheckpoints(vote, _) => vote.statement.epoch,
        }
    }

    fn is_proof_in_epoch(&self, configuration: &Configuration, verifier: &mut dyn Verifier) -> bool {
        match self {
            Self::ConflictingPrepares(first, second) => do_conflict(first, second, configuration, verifier),
            Self::ConflictingCommits(first, second) => do_conflict(first, second, configuration, verifier),
            Self::ConflictingCheckpoints(first, second) => do_conflict(first, second, configuration, verifier),
            Self::InvalidBatch { vote, batch } => {
                vote.statement.digest == batch_digest(batch.bytes())
                    && vote.voter == configuration.primary(vote.statement.view)
                    && is_signed(vote, configuration, verifier)
                    && !is_valid_batch(batch, configuration, verifier)
            }
            Self::ForgottenCommit { vote, view_change } => {
                is_signed(vote, configuration, verifier)
                    && decode(view_change.body.bytes()).is_ok_and(|content| is_forgotten(vote, &content))
                    && is_view_change_of(vote.voter, view_change, configuration, verifier)
            }
        }
    }
}

fn is_signed<S: Statement>(vote: &Vote<S>, configuration: &Configuration, verifier: &mut dyn Verifier) -> bool {
    let Some(member) = configuration.member(vote.voter) else {
        return false;
    };
    let digest = vote.statement.signed_digest(configuration.cluster());
    verifier.verify(&[Item { key: member.key, digest, signature: vote.signature }]).is_ok()
}

/// Whether `view_change` leaves the view of `vote`, by the same member, and knows nothing of what it committed. Whoever
/// commits holds a prepared certificate, and lists it, or a later one, until the slot is stable; and commits nothing in a view
/// that it has left. (PROTOCOL §7.1)
pub(crate) fn is_forgotten(vote: &Vote<Commit>, view_change: &ViewChange) -> bool {
    let Commit { epoch, view, sequence, digest } = vote.statement;
    let is_known = || {
        view_change.prepared.iter().map(|certificate| certificate.statement).any(|prepared| {
            prepared.sequence == sequence
                && (prepared.view > view || (prepared.view == view && prepared.digest == digest))
        })
    };
    view_change.replica == vote.voter
        && view_change.epoch == epoch
        && view_change.view > view
        && view_change.stable_sequence() < sequence
        && !is_known()
}

/// Whether a member signed a view change.
pub(crate) fn is_view_change_of(
    member: ReplicaId,
    signed: &SignedViewChange,
    configuration: &Configuration,
    verifier: &mut dyn Verifier,
) -> bool {
    let Some(member) = configuration.member(member) else { return false };
    let digest = view_change_digest(configuration.cluster(), &signed.body);
    verifier.verify(&[Item { key: member.key, digest, signature: signed.signature }]).is_ok()
}

/// Whether one member signed both, and no correct one does: they are about the same and say different things.
fn do_conflict<S: Statement + PartialEq>(
    first: &Vote<S>,
    second: &Vote<S>,
    configuration: &Configuration,
    verifier: &mut dyn Verifier,
) -> bool {
    first.statement.subject() == second.statement.subject()
        && first.statement != second.statement
        && first.voter == second.voter
        && is_signed(first, configuration, verifier)
        && is_signed(second, configuration, verifier)
}

fn is_valid_batch(body: &Blob, configuration: &Configuration, verifier: &mut dyn Verifier) -> bool {
    Batch::parse(body.bytes().clone(), configuration).is_ok_and(|batch| {
        let cluster = configuration.cluster();
        let items: alloc::vec::Vec<_> =
            batch.requests().iter().map(|request| request.signature_item(cluster)).collect();
        verifier.verify(&items).is_ok()
    })
}
