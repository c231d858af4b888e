//! A set of members: one bit each.

use crate::number::ReplicaId;

/// A set of members of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct MemberSet(u32);

// Each member has a bit.
const _: () = assert!(ReplicaId::COUNT_MAX <= u32::BITS as usize);

impl MemberSet {
    pub(super) const EMPTY: Self = Self(0);

    pub(super) fn contains(self, member: ReplicaId) -> bool {
        self.0 & bit(member) != 0
    }

    /// Adds `member`; whether it was not in the set.
    pub(super) fn insert(&mut self, member: ReplicaId) -> bool {
        let is_new = !self.contains(member);
        self.0 |= bit(member);
        is_new
    }

    pub(super) fn remove(&mut self, member: ReplicaId) {
        self.0 &= !bit(member);
    }

    pub(super) fn add(&mut self, others: Self) {
        self.0 |= others.0;
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub(super) fn iter(self) -> impl Iterator<Item = ReplicaId> {
        ReplicaId::all(ReplicaId::COUNT_MAX).filter(move |member| self.contains(*member))
    }
}

impl FromIterator<ReplicaId> for MemberSet {
    fn from_iter<I: IntoIterator<Item = ReplicaId>>(members: I) -> Self {
        Self(members.into_iter().fold(0, |bits, member| bits | bit(member)))
    }
}

/// The member's bit; none for what can be no member.
fn bit(member: ReplicaId) -> u32 {
    u32::try_from(member.index()).ok().and_then(|index| 1_u32.checked_shl(index)).unwrap_or(0)
}
