//! Votes on their way to a certificate: at most one a member. (PROTOCOL §3, §4)

use alloc::vec::Vec;

use crate::certificate::Certificate;
use crate::number::{Epoch, ReplicaId, Sequence, View};
use crate::statement::{Commit, Prepare, Vote};

/// A statement that a member makes anew in each view.
pub(crate) trait Ballot: Copy + PartialEq {
    /// When it is made: a later one replaces an earlier one, two at once are a conflict.
    fn term(&self) -> (Epoch, View);

    /// The slot that it is about.
    fn sequence(&self) -> Sequence;
}

impl Ballot for Prepare {
    fn term(&self) -> (Epoch, View) {
        (self.epoch, self.view)
    }

    fn sequence(&self) -> Sequence {
        self.sequence
    }
}

impl Ballot for Commit {
    fn term(&self) -> (Epoch, View) {
        (self.epoch, self.view)
    }

    fn sequence(&self) -> Sequence {
        self.sequence
    }
}

/// What became of a vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted<S> {
    /// It counts.
    New,
    /// It was there already.
    Known,
    /// Its voter has voted in a later view since.
    Outdated,
    /// Its voter said something else in the same view: both votes together prove it faulty.
    Conflict(Vote<S>),
}

/// The votes on one slot: one a member, that of the highest view.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Votes<S> {
    /// Bound: one a member.
    by_member: Vec<Option<Vote<S>>>,
}

impl<S: Ballot> Votes<S> {
    /// No votes of `members` members.
    pub(crate) fn new(members: usize) -> Self {
        Self { by_member: (0..members).map(|_| None).collect() }
    }

    /// Counts a vote whose voter is a member.
    pub(crate) fn insert(&mut self, vote: Vote<S>) -> Counted<S> {
        let place = &mut self.by_member[vote.voter.index()];
        match place {
            Some(held) if held.statement.term() > vote.statement.term() => Counted::Outdated,
            Some(held) if held.statement == vote.statement => Counted::Known,
            Some(held) if held.statement.term() == vote.statement.term() => Counted::Conflict(*held),
            Some(_) | None => {
                *place = Some(vote);
                Counted::New
            }
        }
    }

    /// The vote held of `member`.
    pub(crate) fn of(&self, member: ReplicaId) -> Option<&Vote<S>> {
        self.by_member.get(member.index()).and_then(Option::as_ref)
    }

    /// How many members made this statement.
    pub(crate) fn count(&self, statement: &S) -> usize {
        self.by_member.iter().flatten().filter(|vote| vote.statement == *statement).count()
    }

    /// The certificate of a statement that `accepts`, once `quorum` members made the same one.
    pub(crate) fn certificate(&self, quorum: usize, accepts: impl Fn(&S) -> bool) -> Option<Certificate<S>> {
        let votes = || self.by_member.iter().flatten();
        let candidates = votes().map(|vote| vote.statement).filter(|statement| accepts(statement));
        candidates.into_iter().find_map(|statement| Certificate::collect(statement, votes(), quorum))
    }
}

#[cfg(test)]
mod tests {
    use quorate_crypto::{Digest, Signature};

    use super::*;

    fn vote(voter: u8, view: u64, digest: u8) -> Vote<Prepare> {
        let digest = Digest::from_bytes([digest; 32]);
        let statement = Prepare { epoch: Epoch::ZERO, view: View::new(view), sequence: Sequence::new(1), digest };
        Vote { statement, voter: ReplicaId::new(voter), signature: Signature::from_bytes([voter; 64]) }
    }

    #[test]
    fn a_vote_that_comes_twice_counts_once() {
        let mut votes = Votes::new(4);
        assert_eq!(votes.insert(vote(1, 0, 7)), Counted::New);
        assert_eq!(votes.insert(vote(1, 0, 7)), Counted::Known);
        votes.insert(vote(2, 0, 7));
        assert_eq!(votes.certificate(3, |_| true), None);
        votes.insert(vote(3, 0, 7));
        assert!(votes.certificate(3, |_| true).is_some());
    }

    #[test]
    fn votes_for_different_digests_or_views_do_not_add_up() {
        let mut votes = Votes::new(4);
        votes.insert(vote(0, 0, 7));
        votes.insert(vote(1, 0, 8));
        votes.insert(vote(2, 1, 7));
        assert_eq!(votes.certificate(2, |_| true), None);
    }

    #[test]
    fn two_digests_in_one_view_are_a_conflict_and_the_first_stays() {
        let mut votes = Votes::new(4);
        votes.insert(vote(1, 0, 7));
        assert_eq!(votes.insert(vote(1, 0, 8)), Counted::Conflict(vote(1, 0, 7)));
        assert_eq!(votes.of(ReplicaId::new(1)), Some(&vote(1, 0, 7)));
    }

    #[test]
    fn only_the_vote_of_the_highest_view_is_kept() {
        let mut votes = Votes::new(4);
        votes.insert(vote(1, 3, 7));
        assert_eq!(votes.insert(vote(1, 2, 8)), Counted::Outdated);
        assert_eq!(votes.insert(vote(1, 4, 8)), Counted::New);
        assert_eq!(votes.of(ReplicaId::new(1)), Some(&vote(1, 4, 8)));
    }

    #[test]
    fn however_many_votes_come_one_a_member_is_kept() {
        let members = ReplicaId::COUNT_MAX;
        let mut votes = Votes::new(members);
        for view in 0..100 {
            for voter in 0..31 {
                for digest in 0..3 {
                    votes.insert(vote(voter, view, digest));
                }
            }
        }
        assert_eq!(votes.by_member.len(), members);
        assert!(votes.by_member.iter().flatten().all(|held| held.statement == vote(0, 99, 0).statement));
        let all = votes.certificate(members, |_| true).expect("all say the same");
        assert_eq!(all.votes.len(), members);
    }
}
