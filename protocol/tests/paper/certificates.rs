//! §1 and §3 over all sizes: quorums and what they make.

use proptest::prelude::*;
use quorate_crypto::Signature;
use quorate_protocol::certificate::{Certificate, StableCertificate, VoteSignature};
use quorate_protocol::codec::List;
use quorate_protocol::message::Message;
use quorate_protocol::number::{Epoch, ReplicaId};
use quorate_protocol::statement::{Checkpoint, Vote};
use quorate_protocol::verify::{Invalid, verify};

use crate::support::{Group, StandInVerifier, digest, replica, slot, small};

/// A group of any size, and its members in any order.
fn groups() -> impl Strategy<Value = (Group, Vec<u8>)> {
    let members = (4..=31_u8).prop_flat_map(|size| Just((0..size).collect::<Vec<u8>>()).prop_shuffle());
    members.prop_map(|order| (Group::new(u8::try_from(order.len()).expect("31 at most"), small()), order))
}

fn statement(root: u8) -> Checkpoint {
    Checkpoint { epoch: Epoch::ZERO, sequence: slot(4), root: digest(root) }
}

fn votes(group: &Group, voters: &[u8], root: u8) -> Vec<Vote<Checkpoint>> {
    voters.iter().map(|id| group.vote(*id, statement(root))).collect()
}

fn check(group: &Group, certificate: StableCertificate) -> Result<(), Invalid> {
    verify(Message::Stable(certificate), replica(0), &group.0, &mut StandInVerifier).map(drop)
}

/// What may be wrong with one vote of a certificate.
#[derive(Debug, Clone, Copy)]
enum Flaw {
    Missing,
    Repeated,
    OfNoMember,
    Forged,
    ForAnotherRoot,
    UnderAnothersName,
    OutOfOrder,
}

const FLAWS: [Flaw; 7] = [
    Flaw::Missing,
    Flaw::Repeated,
    Flaw::OfNoMember,
    Flaw::Forged,
    Flaw::ForAnotherRoot,
    Flaw::UnderAnothersName,
    Flaw::OutOfOrder,
];

/// The votes with one flaw, at `place` of those in ascending order or, where that is the last, beside it.
fn with_flaw(group: &Group, mut votes: Vec<VoteSignature>, flaw: Flaw, place: usize) -> Vec<VoteSignature> {
    let next = (place + 1) % votes.len();
    match flaw {
        Flaw::Missing => drop(votes.remove(place)),
        Flaw::Repeated => {
            votes[place] = votes[next];
            votes.sort_by_key(|vote| vote.voter);
        }
        Flaw::OfNoMember => {
            votes.remove(place);
            let voter = ReplicaId::new(u8::try_from(group.0.size()).expect("31 at most"));
            votes.push(VoteSignature { voter, signature: Signature::from_bytes([3; 64]) });
        }
        Flaw::Forged => votes[place].signature = Signature::from_bytes([3; 64]),
        Flaw::ForAnotherRoot => votes[place].signature = group.vote(votes[place].voter.value(), statement(8)).signature,
        Flaw::UnderAnothersName => votes[place].signature = votes[next].signature,
        Flaw::OutOfOrder => votes.swap(place, next),
    }
    votes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// "A **certificate** is a statement with the votes of a quorum of distinct members in ascending order" (§3): whoever
    /// the members are and whatever order their votes come in, with votes of others and for others between.
    #[test]
    fn any_quorum_of_distinct_votes_makes_a_certificate_and_fewer_do_not((group, order) in groups()) {
        let quorum = group.0.quorum();
        let (voters, others) = order.split_at(quorum);
        let mut cast = votes(&group, others, 8);
        cast.extend(votes(&group, &voters[1..], 7));
        cast.extend(votes(&group, &voters[1..], 7));
        prop_assert_eq!(Certificate::collect(statement(7), cast.iter(), quorum), None);
        cast.extend(votes(&group, &voters[..1], 7));
        let certificate = Certificate::collect(statement(7), cast.iter(), quorum).expect("a quorum voted");
        let mut expected: Vec<u8> = voters.to_vec();
        expected.sort_unstable();
        let named: Vec<u8> = certificate.votes.iter().map(|vote| vote.voter.value()).collect();
        prop_assert_eq!(named, expected);
        prop_assert_eq!(check(&group, certificate), Ok(()));
    }

    /// "A message with one bad part is refused whole." (§3)
    #[test]
    fn a_certificate_with_one_flaw_is_none(
        (group, order) in groups(),
        flaw in proptest::sample::select(&FLAWS[..]),
        place in any::<proptest::sample::Index>(),
    ) {
        let quorum = group.0.quorum();
        let cast = votes(&group, &order[..quorum], 7);
        let mut certificate = Certificate::collect(statement(7), cast.iter(), quorum).expect("a quorum voted");
        let flawed = with_flaw(&group, certificate.votes.to_vec(), flaw, place.index(quorum));
        certificate.votes = List::new(flawed).expect("as many or fewer");
        let expected = match flaw {
            Flaw::Missing | Flaw::Repeated | Flaw::OfNoMember | Flaw::OutOfOrder => Invalid::Certificate,
            Flaw::Forged | Flaw::ForAnotherRoot | Flaw::UnderAnothersName => Invalid::Signature,
        };
        prop_assert_eq!(check(&group, certificate), Err(expected));
    }

    /// "two quorums share a correct replica, and the correct replicas are one" and "holds a correct replica" (§1): whoever
    /// is faulty.
    #[test]
    fn any_two_quorums_share_a_correct_replica(
        (group, one) in groups(),
        other in any::<proptest::sample::Index>(),
        faulty in any::<proptest::sample::Index>(),
    ) {
        let configuration = &group.0;
        let size = one.len();
        let chosen = |start: usize, count: usize| -> Vec<u8> { (0..count).map(|index| one[(start + index) % size]).collect() };
        let faulty = chosen(faulty.index(size), configuration.faults_max());
        let (one, other) = (chosen(0, configuration.quorum()), chosen(other.index(size), configuration.quorum()));
        prop_assert!(one.iter().any(|id| other.contains(id) && !faulty.contains(id)));
        prop_assert!(size - faulty.len() >= configuration.quorum());
        prop_assert!(other[..configuration.weak_quorum()].iter().any(|id| !faulty.contains(id)));
        prop_assert!(faulty.len() < configuration.weak_quorum(), "fewer hold none for sure");
    }
}
