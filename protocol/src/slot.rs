//! One slot of the total order: what was proposed for it, who voted how, and what is decided. (PROTOCOL §4)

use alloc::vec::Vec;

use quorate_crypto::Digest;

use crate::batch::Batch;
use crate::certificate::{CommittedCertificate, PreparedCertificate};
use crate::message::Progress;
use crate::number::View;
use crate::quorum::Votes;
use crate::statement::{Commit, Prepare, Vote};

/// What a replica knows of one slot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    /// This replica's own vote of the highest view.
    pub(crate) cast: Option<Vote<Prepare>>,
    /// The vote's batch, awaited to be accepted as a new view proposes it.
    pub(crate) awaited: Option<Digest>,
    /// Members' votes to accept a batch.
    pub(crate) prepares: Votes<Prepare>,
    /// Members' votes to commit a batch.
    pub(crate) commits: Votes<Commit>,
    /// The prepared certificate of the highest view.
    pub(crate) prepared: Option<PreparedCertificate>,
    /// This replica's own commit of the highest view.
    pub(crate) own_commit: Option<Vote<Commit>>,
    /// The proof of what is decided.
    pub(crate) committed: Option<CommittedCertificate>,
    /// The batches known, with whether the log holds them. Of those that it does not hold, only what is needed stays.
    ///
    /// Until the slot is decided, every batch that this replica voted for stays: a prepared certificate that nobody but a
    /// liar holds may name it many views later, and then only those who voted for it hand it out. Bound: one a view in which
    /// this replica voted for another; and since the log holds them all until the slot is stable, what the log may take of
    /// the disk, beyond which nothing is voted for.
    batches: Vec<(Batch, Logged)>,
}

/// Whether the write-ahead log holds a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Logged {
    /// It does.
    Yes,
    /// It does not.
    No,
}

impl Slot {
    /// A slot of which nothing is known among `members` members.
    pub(crate) fn new(members: usize) -> Self {
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
    pub(crate) fn batch(&self, digest: &Digest) -> Option<&Batch> {
        self.batches.iter().map(|(batch, _)| batch).find(|batch| batch.digest() == *digest)
    }

    /// Keeps `batch`; those that nobody can need any more give way.
    pub(crate) fn add_batch(&mut self, batch: Batch, logged: Logged) {
        if let Some(known) = self.batches.iter_mut().find(|(known, _)| known.digest() == batch.digest()) {
            if logged == Logged::Yes {
                known.1 = Logged::Yes;
            }
            return;
        }
        self.drop_unneeded();
        self.batches.push((batch, logged));
    }

    /// Notes what is decided. Every later new view proposes that and nothing else. (PROTOCOL §7.3)
    pub(crate) fn decide(&mut self, certificate: CommittedCertificate) {
        self.committed = Some(certificate);
        self.drop_unneeded();
    }

    fn drop_unneeded(&mut self) {
        let needed = self.needed_digests();
        let is_undecided = self.decided_batch().is_none();
        let may_be_asked_for = |logged: Logged| is_undecided && logged == Logged::Yes;
        self.batches.retain(|(known, logged)| may_be_asked_for(*logged) || needed.contains(&Some(known.digest())));
    }

    /// Whether the log holds the batch with this digest.
    pub(crate) fn is_logged(&self, digest: &Digest) -> bool {
        self.logged_batches().any(|batch| batch.digest() == *digest)
    }

    /// The batches that the log holds.
    pub(crate) fn logged_batches(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter().filter(|(_, logged)| *logged == Logged::Yes).map(|(batch, _)| batch)
    }

    /// The digest of what is decided.
    pub(crate) fn decided(&self) -> Option<Digest> {
        self.committed.as_ref().map(|certificate| certificate.statement.digest)
    }

    /// What is decided, with its batch, once both are known.
    pub(crate) fn decided_batch(&self) -> Option<&Batch> {
        self.decided().and_then(|digest| self.batch(&digest))
    }

    /// The digest of a batch that this replica needs and lacks.
    pub(crate) fn missing_batch(&self) -> Option<Digest> {
        let needed = [self.decided(), self.awaited];
        needed.into_iter().flatten().find(|digest| self.batch(digest).is_none())
    }

    /// The view of this replica's own vote, if it voted.
    pub(crate) fn cast_view(&self) -> Option<View> {
        self.cast.as_ref().map(|vote| vote.statement.view)
    }

    /// The view of the prepared certificate, if there is one.
    pub(crate) fn prepared_view(&self) -> Option<View> {
        self.prepared.as_ref().map(|certificate| certificate.statement.view)
    }

    /// How far the slot came in `view`.
    pub(crate) fn progress(&self, view: View) -> Progress {
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

#[cfg(test)]
mod tests {
    use alloc::vec;

    use quorate_crypto::{PublicKey, Signature};

    use super::*;
    use crate::batch::{ParsedRequest, Request, SignedRequest};
    use crate::codec::List;
    use crate::number::{Epoch, ReplicaId, RequestNumber, Sequence, Session};
    use crate::time::WallTime;

    fn batch(stamp: u64) -> Batch {
        let client = PublicKey::from_bytes([5; 32]).expect("neither weak nor beyond the prime");
        let request =
            Request { client, session: Session::NONE, number: RequestNumber::new(1), operations: List::empty() };
        let signed = SignedRequest { body: vec![0].into(), signature: Signature::from_bytes([0; 64]) };
        Batch::new(WallTime::from_nanoseconds(stamp), vec![ParsedRequest::new(request, signed)])
    }

    fn prepare(view: u64, batch: &Batch) -> Prepare {
        let (epoch, view, sequence) = (Epoch::ZERO, View::new(view), Sequence::new(1));
        Prepare { epoch, view, sequence, digest: batch.digest() }
    }

    fn vote(view: u64, batch: &Batch) -> Vote<Prepare> {
        let signature = Signature::from_bytes([0; 64]);
        Vote { statement: prepare(view, batch), voter: ReplicaId::new(0), signature }
    }

    fn decided_certificate(view: u64, batch: &Batch) -> CommittedCertificate {
        CommittedCertificate { statement: prepare(view, batch).commit(), votes: List::empty() }
    }

    #[test]
    fn however_many_batches_come_only_those_stay_that_were_voted_for_or_are_needed() {
        let mut slot = Slot::new(4);
        slot.awaited = Some(batch(1).digest());
        slot.add_batch(batch(1), Logged::No);
        for view in 2..9 {
            slot.add_batch(batch(view), Logged::Yes);
            slot.cast = Some(vote(view, &batch(view)));
        }
        for stamp in 10..100 {
            slot.add_batch(batch(stamp), Logged::No);
            assert_eq!(slot.batches.len(), 9);
            assert!(slot.batch(&batch(stamp).digest()).is_some(), "the new one is kept for now");
        }
        assert!((1..9).all(|stamp| slot.batch(&batch(stamp).digest()).is_some()));
    }

    #[test]
    fn once_a_slot_is_decided_with_its_batch_only_what_is_needed_stays() {
        let mut slot = Slot::new(4);
        for stamp in 1..5 {
            slot.add_batch(batch(stamp), Logged::Yes);
        }
        slot.cast = Some(vote(4, &batch(4)));
        slot.decide(decided_certificate(5, &batch(9)));
        assert_eq!(slot.batches.len(), 4, "the batch is not here");
        slot.add_batch(batch(9), Logged::Yes);
        slot.add_batch(batch(10), Logged::Yes);
        let kept = |stamp: &u64| slot.batch(&batch(*stamp).digest()).is_some();
        assert_eq!((1..11).filter(kept).collect::<Vec<u64>>(), [4, 9, 10]);
        let mut slot = Slot::new(4);
        slot.add_batch(batch(1), Logged::Yes);
        slot.add_batch(batch(2), Logged::Yes);
        slot.decide(decided_certificate(0, &batch(2)));
        assert_eq!(slot.batch(&batch(1).digest()), None);
        assert_eq!(slot.decided_batch(), Some(&batch(2)));
    }

    #[test]
    fn a_slot_keeps_what_it_voted_for_what_prepared_what_is_decided_and_what_is_awaited() {
        let mut slot = Slot::new(4);
        let (cast, prepared, decided, awaited) = (batch(1), batch(2), batch(3), batch(4));
        slot.add_batch(batch(9), Logged::No);
        slot.add_batch(prepared.clone(), Logged::Yes);
        slot.prepared = Some(PreparedCertificate { statement: prepare(0, &prepared), votes: List::empty() });
        slot.add_batch(cast.clone(), Logged::Yes);
        slot.cast = Some(vote(1, &cast));
        slot.awaited = Some(awaited.digest());
        slot.decide(decided_certificate(3, &decided));
        for batch in [&decided, &awaited] {
            assert_eq!(slot.missing_batch(), Some(batch.digest()));
            slot.add_batch(batch.clone(), Logged::No);
        }
        assert_eq!(slot.missing_batch(), None);
        for batch in [&cast, &prepared, &decided, &awaited] {
            assert_eq!(slot.batch(&batch.digest()), Some(batch));
        }
    }

    #[test]
    fn a_batch_that_the_log_holds_stays_so() {
        let mut slot = Slot::new(4);
        slot.add_batch(batch(1), Logged::No);
        assert!(!slot.is_logged(&batch(1).digest()));
        slot.add_batch(batch(1), Logged::Yes);
        slot.add_batch(batch(1), Logged::No);
        assert!(slot.is_logged(&batch(1).digest()));
        assert_eq!(slot.batches.len(), 1);
    }

    #[test]
    fn what_is_decided_or_awaited_and_not_here_is_missing() {
        let mut slot = Slot::new(4);
        assert_eq!(slot.missing_batch(), None);
        slot.cast = Some(vote(0, &batch(1)));
        assert_eq!(slot.missing_batch(), None, "a vote alone needs no batch");
        slot.awaited = Some(batch(2).digest());
        assert_eq!(slot.missing_batch(), Some(batch(2).digest()));
        slot.decide(decided_certificate(0, &batch(3)));
        assert_eq!(slot.missing_batch(), Some(batch(3).digest()));
        slot.add_batch(batch(3), Logged::No);
        slot.add_batch(batch(2), Logged::No);
        assert_eq!(slot.missing_batch(), None);
        assert_eq!(slot.decided_batch(), Some(&batch(3)));
    }

    #[test]
    fn progress_is_that_of_the_view_asked_for_until_the_slot_is_decided() {
        let mut slot = Slot::new(4);
        let accepted = batch(1);
        assert_eq!(slot.progress(View::ZERO), Progress::Nothing);
        slot.cast = Some(vote(0, &accepted));
        assert_eq!(slot.progress(View::ZERO), Progress::PrePrepared);
        slot.prepared = Some(PreparedCertificate { statement: prepare(0, &accepted), votes: List::empty() });
        assert_eq!(slot.progress(View::ZERO), Progress::Prepared);
        assert_eq!(slot.progress(View::new(1)), Progress::Nothing);
        slot.decide(decided_certificate(0, &accepted));
        assert_eq!(slot.progress(View::new(1)), Progress::CommittedWithoutBatch);
        slot.add_batch(accepted, Logged::No);
        assert_eq!(slot.progress(View::new(1)), Progress::Committed);
    }
}
