//! Certificates: a statement with the votes of a quorum of distinct members. (PROTOCOL §3)
//!
//! A certificate holds its statement once, and the votes in ascending order of the voters, so that a set of votes has one
//! encoding. Anyone with the configuration can check one; [`crate::verify`] does.

use alloc::vec::Vec;

use quorate_crypto::Signature;

use crate::codec::{BorrowDecode, Decode, Encode, Frame, List};
use crate::number::ReplicaId;
use crate::statement::{Checkpoint, Commit, Prepare, Vote};

/// One voter's signature within a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub struct VoteSignature {
    /// Who voted.
    pub voter: ReplicaId,
    /// The voter's signature over the certificate's statement.
    pub signature: Signature,
}

/// A statement with votes of a quorum.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
#[bincode(borrow_decode_bounds = "S: BorrowDecode<'__de, Frame>")]
pub struct Certificate<S> {
    /// What the voters say.
    pub statement: S,
    /// Their signatures, in ascending order of the voters.
    pub votes: List<VoteSignature, { ReplicaId::COUNT_MAX }>,
}

/// A quorum accepted one batch for a slot in a view.
pub type PreparedCertificate = Certificate<Prepare>;
/// A quorum holds the prepared certificate: the slot is decided.
pub type CommittedCertificate = Certificate<Commit>;
/// A quorum has the same state after a slot.
pub type StableCertificate = Certificate<Checkpoint>;

impl<S: Copy + PartialEq> Certificate<S> {
    /// The certificate of `statement` from those of `votes` that are for it, or `None` if they are fewer than `quorum`.
    pub fn collect<'a>(statement: S, votes: impl Iterator<Item = &'a Vote<S>>, quorum: usize) -> Option<Self>
    where
        S: 'a,
    {
        let mut signatures: Vec<VoteSignature> = votes
            .filter(|vote| vote.statement == statement)
            .map(|vote| VoteSignature { voter: vote.voter, signature: vote.signature })
            .collect();
        signatures.sort_unstable_by_key(|vote| vote.voter);
        signatures.dedup_by_key(|vote| vote.voter);
        if signatures.len() < quorum {
            return None;
        }
        signatures.truncate(quorum);
        let votes = List::new(signatures).expect("a quorum is at most the number of members");
        Some(Self { statement, votes })
    }

    /// The votes that it is made of.
    pub(crate) fn each_vote(&self) -> impl Iterator<Item = Vote<S>> + '_ {
        let statement = self.statement;
        self.votes.iter().map(move |vote| Vote { statement, voter: vote.voter, signature: vote.signature })
    }

    /// Whether the votes stand in ascending order, each voter once, and are at least `quorum` of `members`.
    pub fn has_quorum_form(&self, quorum: usize, members: usize) -> bool {
        self.votes.len() >= quorum
            && self.votes.is_sorted_by(|left, right| left.voter < right.voter)
            && self.votes.iter().all(|vote| vote.voter.index() < members)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn vote(statement: u8, voter: u8) -> Vote<u8> {
        Vote { statement, voter: ReplicaId::new(voter), signature: Signature::from_bytes([voter; 64]) }
    }

    #[test]
    fn one_voter_counts_once_however_often_it_votes() {
        let votes = [vote(1, 0), vote(1, 0), vote(1, 2)];
        assert_eq!(Certificate::collect(1, votes.iter(), 3), None);
    }

    #[test]
    fn votes_for_another_statement_do_not_count() {
        let votes = [vote(1, 0), vote(2, 1), vote(1, 2)];
        assert_eq!(Certificate::collect(1, votes.iter(), 3), None);
        assert!(Certificate::collect(1, votes.iter(), 2).is_some());
    }

    #[test]
    fn the_voters_stand_in_ascending_order_whatever_order_they_came_in() {
        let votes = [vote(1, 3), vote(1, 0), vote(1, 2)];
        let certificate = Certificate::collect(1, votes.iter(), 3).expect("three voters");
        assert!(certificate.has_quorum_form(3, 4));
        assert!(!certificate.has_quorum_form(4, 4));
        assert!(!certificate.has_quorum_form(3, 3), "voter 3 is no member of three");
    }

    #[test]
    fn a_repeated_voter_breaks_the_form() {
        let signature = Signature::from_bytes([0; 64]);
        let votes = vec![VoteSignature { voter: ReplicaId::new(1), signature }; 3];
        let certificate = Certificate { statement: 1_u8, votes: List::new(votes).expect("three") };
        assert!(!certificate.has_quorum_form(3, 4));
    }
}
