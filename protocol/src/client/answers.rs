//! The answers to one request, until enough of them are equal. (PROTOCOL §4.6)

use alloc::vec::Vec;

use quorate_crypto::Digest;

use super::member_set::MemberSet;
use crate::number::ReplicaId;

/// What the members answered. Only digests are kept: the answer that completes a request brings the results itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers {
    /// Each outcome that was answered, with those who did. Bound: one a member, since each counts once.
    outcomes: Vec<(Digest, MemberSet)>,
    forgotten: MemberSet,
}

/// What became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// It counts: so many members gave this answer.
    New(usize),
    /// The member said the same before.
    Known,
    /// The member said something else before, which stands: a correct one gives one answer only.
    Contradiction,
}

impl Answers {
    /// The member `from` answers with the outcome that has this digest; its first answer counts.
    pub(super) fn count_first(&mut self, from: ReplicaId, digest: Digest) -> Counted {
        match self.outcomes.iter().find(|(_, members)| members.contains(from)) {
            Some((earlier, _)) if *earlier == digest => Counted::Known,
            Some(_) => Counted::Contradiction,
            None => Counted::New(self.insert(from, digest)),
        }
    }

    /// The member `from` answers with the outcome that has this digest; its latest answer counts. How many gave this one.
    pub(super) fn count_latest(&mut self, from: ReplicaId, digest: Digest) -> usize {
        for (_, members) in &mut self.outcomes {
            members.remove(from);
        }
        self.outcomes.retain(|(_, members)| !members.is_empty());
        self.insert(from, digest)
    }

    /// The member `from` no longer has the reply.
    pub(super) fn count_forgotten(&mut self, from: ReplicaId) {
        self.forgotten.insert(from);
    }

    /// How many no longer have the reply, and how many say, in whatever way, that the request executed.
    pub(super) fn forgotten(&self) -> (usize, usize) {
        let mut executed = self.forgotten;
        self.outcomes.iter().for_each(|(_, members)| executed.add(*members));
        (self.forgotten.len(), executed.len())
    }

    /// Who answered with another outcome.
    pub(super) fn differing(&self, digest: &Digest) -> MemberSet {
        let mut differing = MemberSet::EMPTY;
        self.outcomes.iter().filter(|(other, _)| other != digest).for_each(|(_, members)| differing.add(*members));
        differing
    }

    fn insert(&mut self, from: ReplicaId, digest: Digest) -> usize {
        if let Some((_, members)) = self.outcomes.iter_mut().find(|(other, _)| *other == digest) {
            members.insert(from);
            return members.len();
        }
        self.outcomes.push((digest, MemberSet::from_iter([from])));
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(index: u8) -> ReplicaId {
        ReplicaId::new(index)
    }

    fn digest(byte: u8) -> Digest {
        Digest::from_bytes([byte; 32])
    }

    #[test]
    fn equal_answers_of_different_members_add_up() {
        let mut answers = Answers::default();
        assert_eq!(answers.count_first(member(0), digest(1)), Counted::New(1));
        assert_eq!(answers.count_first(member(1), digest(2)), Counted::New(1));
        assert_eq!(answers.count_first(member(2), digest(1)), Counted::New(2));
        assert!(answers.differing(&digest(1)).iter().eq([member(1)]));
    }

    #[test]
    fn the_first_answer_of_a_member_stands() {
        let mut answers = Answers::default();
        answers.count_first(member(0), digest(1));
        assert_eq!(answers.count_first(member(0), digest(1)), Counted::Known);
        assert_eq!(answers.count_first(member(0), digest(2)), Counted::Contradiction);
        assert_eq!(answers.count_first(member(1), digest(2)), Counted::New(1));
    }

    #[test]
    fn the_latest_answer_of_a_member_replaces_the_one_before() {
        let mut answers = Answers::default();
        assert_eq!(answers.count_latest(member(0), digest(1)), 1);
        assert_eq!(answers.count_latest(member(0), digest(2)), 1);
        assert_eq!(answers.count_latest(member(1), digest(1)), 1);
        assert_eq!(answers.count_latest(member(1), digest(2)), 2);
    }

    #[test]
    fn a_member_that_answers_many_times_takes_up_one_place() {
        let mut answers = Answers::default();
        for round in 0..10_000_u64 {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&round.to_le_bytes());
            answers.count_first(member(0), Digest::from_bytes(bytes));
            answers.count_latest(member(1), Digest::from_bytes(bytes));
        }
        assert!(answers.outcomes.len() <= 2);
    }
}
