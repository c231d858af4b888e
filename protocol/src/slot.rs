//! One slot of the total order: what was proposed for it, who voted how, and what is decided. (PROTOCOL §4)

use alloc::vec::Vec;

use quorate_crypto::Digest;

use crate::batch::Batch;
use crate::certificate::{CommittedCertificate, PreparedCertificate};
use crate::message::Progress;
use crate::number::View;
use crate::quorum::Votes;
use crate::statement::{Commit, Prepare, Vote};

/// Batches kept for a slot: the one accepted, the one prepared in an earlier view and the one decided may differ while a
/// view change is under way.
const BATCHES_MAX: usize = 3;

/// What a replica knows of one slot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Slot {
    /// This replica's own vote of the highest view.
    pub cast: Option<Vote<Prepare>>,
    /// The vote's batch, awaited to be accepted as a new view proposes it.
    pub awaited: Option<Digest>,
    /// Members' votes to accept a batch.
    pub prepares: Votes<Prepare>,
    /// Members' votes to commit a batch.
    pub commits: Votes<Commit>,
    /// The prepared certificate of the highest view.
    pub prepared: Option<PreparedCertificate>,
    /// This replica's own commit of the highest view.
    pub own_commit: Option<Vote<Commit>>,
    /// The proof of what is decided.
    pub committed: Option<CommittedCertificate>,
    /// The batches known, with whether the log holds them. Bound: [`BATCHES_MAX`].
    batches: Vec<(Batch, Logged)>,
}

/// Whether the write-ahead log holds a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Logged {
    /// It does.
    Yes,
    /// It does not.
    No,
}

impl Slot {
    /// A slot of which nothing is known among `members` members.
    pub fn new(members: usize) -> Self {
        Self {
            cast: None,
            awaited: None,
            prepares: Votes::new(members),
            commits: Votes::new(members),
            prepared: None,
            own_commit: None,
            committed: None,
            batches: Vec::new(),
        }
    }

    /// The batch with this digest, if it is known.
    pub fn batch(&self, digest: &Digest) -> Option<&Batch> {
        self.batches.iter().map(|(batch, _)| batch).find(|batch| batch.digest() == *digest)
    }

    /// Keeps `batch`; one that nothing refers to any more gives way.
    pub fn add_batch(&mut self, batch: Batch, logged: Logged) {
        if let Some(known) = self.batches.iter_mut().find(|(known, _)| known.digest() == batch.digest()) {
            if logged == Logged::Yes {
                known.1 = Logged::Yes;
            }
            return;
        }
        if self.batches.len() >= BATCHES_MAX {
            let needed = self.needed_digests();
            self.batches.retain(|(known, _)| needed.contains(&Some(known.digest())));
        }
        self.batches.truncate(BATCHES_MAX - 1);
        self.batches.push((batch, logged));
    }

    /// Whether the log holds the batch with this digest.
    pub fn is_logged(&self, digest: &Digest) -> bool {
        self.batches.iter().any(|(batch, logged)| batch.digest() == *digest && *logged == Logged::Yes)
    }

    /// The digest of what is decided.
    pub fn decided(&self) -> Option<Digest> {
        self.committed.as_ref().map(|certificate| certificate.statement.digest)
    }

    /// What is decided, with its batch, once both are known.
    pub fn decided_batch(&self) -> Option<&Batch> {
        self.decided().and_then(|digest| self.batch(&digest))
    }

    /// The digest of a batch that this replica needs and lacks.
    pub fn missing_batch(&self) -> Option<Digest> {
        let needed = [self.decided(), self.awaited];
        needed.into_iter().flatten().find(|digest| self.batch(digest).is_none())
    }

    /// The view of this replica's own vote, if it voted.
    pub fn cast_view(&self) -> Option<View> {
        self.cast.as_ref().map(|vote| vote.statement.view)
    }

    /// The view of the prepared certificate, if there is one.
    pub fn prepared_view(&self) -> Option<View> {
        self.prepared.as_ref().map(|certificate| certificate.statement.view)
    }

    /// How far the slot came in `view`.
    pub fn progress(&self, view: View) -> Progress {
        if self.committed.is_some() {
            return if self.decided_batch().is_some() { Progress::Committed } else { Progress::CommittedWithoutBatch };
        }
        if self.prepared_view() == Some(view) {
            return Progress::Prepared;
        }
        if self.cast_view() == Some(view) { Progress::PrePrepared } else { Progress::Nothing }
    }

    fn needed_digests(&self) -> [Option<Digest>; 4] {
        let cast = self.cast.as_ref().map(|vote| vote.statement.digest);
        let prepared = self.prepared.as_ref().map(|certificate| certificate.statement.digest);
        [cast, prepared, self.decided(), self.awaited]
    }
}
