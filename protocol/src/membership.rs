//! Which life of each member's log votes in an epoch, and when the next epoch begins: part of the replicated state.
//! (PROTOCOL §9, §11)
//!
//! A member that lost votes may contradict what it signed, so it votes no more in the epoch in which it signed that. It
//! has a `Rejoin` ordered, which names its new incarnation; the next checkpoint then ends the epoch, and nothing that was
//! signed in the old epoch counts in the new one.

use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use quorate_crypto::PublicKey;

use crate::batch::Request;
use crate::codec::{Blob, BorrowDecode, Encode, Frame, List, encode};
use crate::configuration::Configuration;
use crate::number::{Epoch, Incarnation, ReplicaId, RequestNumber, Sequence, Session};
use crate::time::WallTime;

/// A member's wish to vote again, of a new incarnation: ordered like a request, and signed with the member's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rejoin {
    /// The epoch that it ends: in any other it counts for nothing.
    pub epoch: Epoch,
    /// The incarnation that is to vote in the next epoch: never used before.
    pub incarnation: Incarnation,
}

/// The incarnations of an epoch's members, and those of the next one as far as they differ.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub struct Membership {
    epoch: Epoch,
    /// The checkpoint that ended the epoch before; zero in the first.
    began: Sequence,
    /// The checkpoint that ends this epoch, once something is ordered that ends it.
    ends: Option<Sequence>,
    /// By member.
    places: List<Place, { ReplicaId::COUNT_MAX }>,
}

/// One member's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
struct Place {
    incarnation: Incarnation,
    /// When its last `Rejoin` executed; zero if none did.
    rejoined: WallTime,
    /// Its incarnation in the next epoch, if that is another.
    next: Option<Incarnation>,
}

impl Rejoin {
    /// The request that stands for it in a batch.
    pub(crate) fn request(&self, member: PublicKey) -> Request {
        let epoch = Blob::from(self.epoch.value().to_le_bytes().to_vec());
        Request {
            client: member,
            session: Session::REJOIN,
            number: RequestNumber::new(self.incarnation.value()),
            operations: List::new(alloc::vec![epoch]).expect("one"),
        }
    }

    /// What a request of [`Session::REJOIN`] means, if it means anything.
    pub(crate) fn of(request: &Request) -> Option<Self> {
        let [epoch] = &request.operations[..] else { return None };
        let epoch = u64::from_le_bytes(epoch[..].try_into().ok()?);
        Some(Self { epoch: Epoch::new(epoch), incarnation: Incarnation::new(request.number.value()) })
    }
}

impl Membership {
    /// That of the first epoch: every member is as `init` made it.
    pub fn first(members: usize) -> Self {
        let place = Place { incarnation: Incarnation::ZERO, rejoined: WallTime::ZERO, next: None };
        let places = List::new(alloc::vec![place; members]).expect("members are at most 31");
        Self { epoch: Epoch::ZERO, began: Sequence::ZERO, ends: None, places }
    }

    /// The epoch.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The checkpoint that ended the epoch before; zero in the first.
    pub const fn began(&self) -> Sequence {
        self.began
    }

    /// The checkpoint that ends this epoch, if something was ordered that ends it: no slot above it executes in this epoch.
    pub const fn ends(&self) -> Option<Sequence> {
        self.ends
    }

    /// The incarnation of `member` that votes in this epoch.
    pub fn incarnation(&self, member: ReplicaId) -> Option<Incarnation> {
        self.places.get(member.index()).map(|place| place.incarnation)
    }

    /// Whether it is one of `configuration`.
    pub(crate) fn fits(&self, configuration: &Configuration) -> bool {
        self.places.len() == configuration.size()
    }

    /// Whether a `Rejoin` of `member` would count at `time`: of this epoch, its first, and not too soon after its last.
    pub(crate) fn accepts(&self, member: ReplicaId, rejoin: &Rejoin, time: WallTime, interval: Duration) -> bool {
        let Some(place) = self.places.get(member.index()) else { return false };
        let is_soon = place.rejoined != WallTime::ZERO && time.distance(place.rejoined) < interval;
        rejoin.epoch == self.epoch && place.next.is_none() && place.incarnation != rejoin.incarnation && !is_soon
    }

    /// A `Rejoin` that counts executes in slot `sequence`: the first checkpoint from there on ends the epoch.
    pub(crate) fn admit(
        &mut self,
        member: ReplicaId,
        rejoin: &Rejoin,
        (sequence, time): (Sequence, WallTime),
        checkpoint_interval: u64,
    ) {
        let mut places: Vec<Place> = self.places.to_vec();
        let place = &mut places[member.index()];
        place.next = Some(rejoin.incarnation);
        place.rejoined = time.max(WallTime::from_nanoseconds(1));
        self.places = List::new(places).expect("as many as before");
        let end = sequence.value().next_multiple_of(checkpoint_interval);
        self.ends = self.ends.or_else(|| Some(Sequence::new(end)));
    }

    /// That of the epoch after this one, which begins at the checkpoint `sequence`.
    pub(crate) fn next(&self, sequence: Sequence) -> Self {
        let renewed = |place: &Place| Place {
            incarnation: place.next.unwrap_or(place.incarnation),
            rejoined: place.rejoined,
            next: None,
        };
        let places = List::new(self.places.iter().map(renewed).collect()).expect("as many as before");
        Self { epoch: self.epoch.saturating_add(1), began: sequence, ends: None, places }
    }

    /// Its encoding, as it stands in the state.
    pub(crate) fn encode(&self) -> Bytes {
        encode(self).expect("31 members with numbers of fixed width")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_mins(1);

    fn at(seconds: u64) -> WallTime {
        WallTime::from_nanoseconds(seconds * 1_000_000_000)
    }

    fn rejoin(epoch: u64, incarnation: u64) -> Rejoin {
        Rejoin { epoch: Epoch::new(epoch), incarnation: Incarnation::new(incarnation) }
    }

    fn member(index: u8) -> ReplicaId {
        ReplicaId::new(index)
    }

    fn incarnations(membership: &Membership) -> Vec<u64> {
        (0..4).map(|index| membership.incarnation(member(index)).expect("a member").value()).collect()
    }

    #[test]
    fn a_rejoin_ends_the_epoch_at_the_first_checkpoint_from_its_slot_on() {
        for (slot, end) in [(1, 8), (7, 8), (8, 8), (9, 16)] {
            let mut membership = Membership::first(4);
            membership.admit(member(2), &rejoin(0, 77), (Sequence::new(slot), at(1)), 8);
            assert_eq!(membership.ends(), Some(Sequence::new(end)));
            assert_eq!(incarnations(&membership), [0, 0, 0, 0], "until then nothing changes");
            let next = membership.next(Sequence::new(end));
            assert_eq!(incarnations(&next), [0, 0, 77, 0]);
            assert_eq!((next.epoch(), next.began(), next.ends()), (Epoch::new(1), Sequence::new(end), None));
        }
    }

    #[test]
    fn several_members_rejoin_with_one_epoch_and_the_first_says_where_it_ends() {
        let mut membership = Membership::first(4);
        membership.admit(member(2), &rejoin(0, 77), (Sequence::new(8), at(1)), 8);
        membership.admit(member(1), &rejoin(0, 5), (Sequence::new(9), at(1)), 8);
        assert_eq!(membership.ends(), Some(Sequence::new(8)));
        assert_eq!(incarnations(&membership.next(Sequence::new(8))), [0, 5, 77, 0]);
    }

    #[test]
    fn a_rejoin_counts_in_its_epoch_once_and_not_soon_again() {
        let mut membership = Membership::first(4);
        let accepts = |membership: &Membership, index, rejoin, seconds| {
            membership.accepts(member(index), &rejoin, at(seconds), INTERVAL)
        };
        assert!(accepts(&membership, 2, rejoin(0, 77), 1), "the clock may stand anywhere");
        assert!(!accepts(&membership, 2, rejoin(1, 77), 100), "of another epoch");
        assert!(!accepts(&membership, 2, rejoin(0, 0), 100), "an incarnation that votes already");
        assert!(!accepts(&membership, 4, rejoin(0, 77), 100), "nobody");
        membership.admit(member(2), &rejoin(0, 77), (Sequence::new(3), at(100)), 8);
        assert!(!accepts(&membership, 2, rejoin(0, 78), 1_000), "a second in the same epoch");
        assert!(accepts(&membership, 3, rejoin(0, 78), 100), "another member");
        let next = membership.next(Sequence::new(8));
        assert!(!accepts(&next, 2, rejoin(1, 78), 159));
        assert!(accepts(&next, 2, rejoin(1, 78), 160));
        assert!(!accepts(&next, 2, rejoin(1, 77), 160));
    }

    #[test]
    fn a_rejoin_is_a_request_and_back() {
        let key = quorate_crypto::SigningKey::from_seed([1; 32]).public_key();
        let request = rejoin(3, 9).request(key);
        assert_eq!(Rejoin::of(&request), Some(rejoin(3, 9)));
        for operations in [Vec::new(), alloc::vec![Blob::EMPTY], alloc::vec![Blob::from(&[0; 8][..]); 2]] {
            let request = Request { operations: List::new(operations).expect("few"), ..request.clone() };
            assert_eq!(Rejoin::of(&request), None);
        }
    }
}
