//! Whom to ask next, so that nobody is asked twice before everybody was asked once. (PROTOCOL §9)

use crate::number::ReplicaId;

/// The other members of a replica, round and round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rotation {
    members: usize,
    own: ReplicaId,
}

impl Rotation {
    /// The others of `own` among `members` members.
    pub(crate) fn new(members: usize, own: ReplicaId) -> Self {
        assert!(members > 1 && own.index() < members, "a member has others");
        Self { members, own }
    }

    /// All others, each once, `last` as the last one.
    pub(crate) fn after(self, last: ReplicaId) -> impl Iterator<Item = ReplicaId> {
        self.counting_from(last.index() + 1)
    }

    /// Whom to ask when so many turns have passed: in the first one `first` or, if that is no other, the one that follows.
    pub(crate) fn turn(self, first: ReplicaId, passed: usize) -> ReplicaId {
        let others = self.members - 1;
        self.beginning_at(first).nth(passed % others).expect("fewer turns than others")
    }

    /// All others, each once, `first` as the first one or, if that is no other, the one that follows.
    pub(crate) fn beginning_at(self, first: ReplicaId) -> impl Iterator<Item = ReplicaId> {
        self.counting_from(first.index())
    }

    fn counting_from(self, index: usize) -> impl Iterator<Item = ReplicaId> {
        let in_turn = ReplicaId::all(self.members).cycle().skip(index).take(self.members);
        in_turn.filter(move |id| *id != self.own)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    const fn id(index: u8) -> ReplicaId {
        ReplicaId::new(index)
    }

    fn turns(own: u8, first: u8) -> Vec<u8> {
        (0..5).map(|passed| Rotation::new(4, id(own)).turn(id(first), passed).value()).collect()
    }

    #[test]
    fn the_turns_begin_with_the_one_asked_for_and_skip_oneself() {
        assert_eq!(turns(0, 2), [2, 3, 1, 2, 3]);
        assert_eq!(turns(2, 1), [1, 3, 0, 1, 3]);
        assert_eq!(turns(3, 0), [0, 1, 2, 0, 1]);
        assert_eq!(turns(1, 1), [2, 3, 0, 2, 3], "one's own turn is the next one's");
        let last = Rotation::new(4, id(3)).turn(id(0), usize::MAX);
        assert_eq!(last, id(u8::try_from(usize::MAX % 3).expect("below three")));
    }

    #[test]
    fn after_one_come_all_others_and_that_one_at_the_end() {
        let after = |own: u8, last: u8| -> Vec<u8> {
            Rotation::new(4, id(own)).after(id(last)).map(ReplicaId::value).collect()
        };
        assert_eq!(after(0, 2), [3, 1, 2]);
        assert_eq!(after(1, 3), [0, 2, 3]);
        assert_eq!(after(3, 3), [0, 1, 2], "from oneself on when nobody was asked");
    }
}
