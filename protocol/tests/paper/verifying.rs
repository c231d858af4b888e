//! What counts at all. "Anyone with the genesis can check one. A message with one bad part is refused whole." (§3)

use std::sync::Arc;

use quorate_crypto::{Item, Signature};
use quorate_protocol::Input;
use quorate_protocol::batch::{Batch, InvalidBatch, ParsedRequest, Request, SignedRequest};
use quorate_protocol::certificate::VoteSignature;
use quorate_protocol::codec::{Blob, CodecError, List, encode};
use quorate_protocol::configuration::Parameters;
use quorate_protocol::evidence::Evidence;
use quorate_protocol::message::{
    Cast, Content, Decided, ENTRY_KEY_BYTES_MAX, Entry, Fetch, FetchedBatch, Message, Part, PrePrepare,
    SignedViewChange, ViewChange, Want, view_change_digest,
};
use quorate_protocol::number::{Epoch, ReplicaId, RequestNumber, Session};
use quorate_protocol::refusal::Refusal;
use quorate_protocol::statement::{Checkpoint, Prepare, Signer};
use quorate_protocol::verify::{Invalid, Payload, Verified, Verifier, verify, verify_requests};

use crate::support::subject::Subject;
use crate::support::{Group, StandIn, StandInVerifier, client, digest, prepare, replica, slot, view};

fn check(group: &Group, from: u8, message: Message) -> Result<Verified<Payload>, Invalid> {
    verify(message, replica(from), &group.0, &mut StandInVerifier)
}

const FORGED: Signature = Signature::from_bytes([3; 64]);

/// "The replica that a vote names is the one that the channel authenticated" (§4)
#[test]
fn a_vote_counts_only_from_its_voter() {
    let group = Group::of_four();
    let messages =
        [group.prepare(2, 0, 1, digest(1)), group.commit(2, 0, 1, digest(1)), group.checkpoint(2, 4, digest(1))];
    for message in messages {
        assert!(check(&group, 2, message.clone()).is_ok());
        assert_eq!(check(&group, 3, message), Err(Invalid::Sender(replica(2))));
    }
}

/// "pre-prepares, view changes, new views and the vote in a `Conflict` are signed whole and may be passed on" (§4)
#[test]
fn what_is_signed_whole_counts_from_anyone() {
    let group = Group::of_four();
    assert!(check(&group, 3, group.pre_prepare(0, 0, 1, &group.batch(0))).is_ok());
    assert!(check(&group, 3, Message::ViewChange(group.empty_view_change(0, 1))).is_ok());
    let conflict = group.vote(0, prepare(0, 1, digest(1)));
    assert!(check(&group, 3, Message::Conflict(conflict)).is_ok());
    let forged = Message::Conflict(quorate_protocol::statement::Vote { signature: FORGED, ..conflict });
    assert_eq!(check(&group, 3, forged), Err(Invalid::Signature));
    assert!(check(&group, 3, Message::Request(group.opening(client(0), 1))).is_ok());
    assert!(check(&group, 3, Message::Stable(group.stable(4, digest(1), &[0, 1, 2]))).is_ok());
}

/// A stable certificate of this epoch counts, and the one that ended the epoch before; those of other epochs do not, and one
/// of a later epoch tells a replica that it is behind. (§7.1, §11)
#[test]
fn a_stable_certificate_counts_in_its_epoch_and_in_the_one_that_begins_with_it() {
    let old = Group::of_four();
    let group = old.in_epoch(2, 8);
    let stable = |epoch, sequence, voters: &[u8]| {
        let statement = Checkpoint { epoch: Epoch::new(epoch), sequence: slot(sequence), root: digest(1) };
        Message::Stable(old.certificate(statement, voters))
    };
    let all = &[0, 1, 2];
    assert!(check(&group, 3, stable(2, 12, all)).is_ok());
    assert!(check(&group, 3, stable(3, 16, all)).is_ok());
    assert!(check(&group, 3, stable(1, 8, all)).is_ok());
    assert_eq!(check(&group, 3, stable(1, 8, &all[1..])), Err(Invalid::Certificate));
    assert_eq!(check(&group, 3, stable(1, 4, all)), Err(Invalid::Epoch(Epoch::new(1))));
    assert_eq!(check(&group, 3, stable(1, 12, all)), Err(Invalid::Epoch(Epoch::new(1))));
    assert_eq!(check(&group, 3, stable(0, 8, all)), Err(Invalid::Epoch(Epoch::ZERO)));
}

/// Each bound on what a message may hold: a part begins after a key, and keys are bounded. (§9)
#[test]
fn keys_longer_than_any_count_for_nothing() {
    let group = Group::of_four();
    let blob = |bytes| Blob::from(vec![7; bytes]);
    let wants = |key| {
        let buckets = List::new(vec![1]).unwrap();
        [Want::Protocol { after: Some(blob(key)) }, Want::Buckets { group: 0, buckets, after: Some(blob(key)) }]
    };
    let part = |want, content| Message::Part(Part { sequence: slot(4), want, content });
    let messages = |key: usize| {
        let fetches = wants(key).map(|want| Message::Fetch(Fetch::Part { sequence: slot(4), want }));
        let entries = List::new(vec![Entry { key: blob(key), value: blob(1 << 20) }]).unwrap();
        let contents =
            [Content::Protocol { entries: entries.clone(), is_last: true }, Content::Buckets { entries, whole: 1 }];
        let echoed = wants(key).map(|want| part(want, Content::Leaves(List::empty())));
        let held = contents.map(|content| part(Want::Crown, content));
        fetches.into_iter().chain(echoed).chain(held)
    };
    for longest in messages(ENTRY_KEY_BYTES_MAX) {
        assert!(check(&group, 1, longest).is_ok());
    }
    let too_long = Err(Invalid::Codec(CodecError::Malformed("a key longer than any of a state")));
    for longer in messages(ENTRY_KEY_BYTES_MAX + 1) {
        assert_eq!(check(&group, 1, longer), too_long);
    }
}

#[test]
fn a_forged_signature_counts_for_nothing() {
    let group = Group::of_four();
    let mut vote = group.vote(2, prepare(0, 1, digest(1)));
    vote.signature = FORGED;
    assert_eq!(check(&group, 2, Message::Prepare(vote)), Err(Invalid::Signature));
    let mut signed = group.empty_view_change(2, 1);
    signed.signature = FORGED;
    assert_eq!(check(&group, 2, Message::ViewChange(signed)), Err(Invalid::Signature));
    let mut request = group.opening(client(0), 1);
    request.signature = FORGED;
    assert_eq!(check(&group, 2, Message::Request(request)), Err(Invalid::Signature));
    let Message::PrePrepare(PrePrepare { mut vote, batch }) = group.pre_prepare(0, 0, 1, &group.batch(0)) else {
        panic!("just made")
    };
    vote.signature = FORGED;
    let forged = Message::PrePrepare(PrePrepare { vote, batch });
    assert_eq!(check(&group, 0, forged), Err(Invalid::Signature), "nobody is accused by a forged vote");
}

/// "no signature counts for another purpose or cluster" (§3)
#[test]
fn a_signature_for_another_purpose_counts_for_nothing() {
    let group = Group::of_four();
    let prepare = group.vote(2, prepare(0, 1, digest(1)));
    let commit = quorate_protocol::statement::Vote {
        statement: prepare.statement.commit(),
        voter: prepare.voter,
        signature: prepare.signature,
    };
    assert_eq!(check(&group, 2, Message::Commit(commit)), Err(Invalid::Signature));
}

/// "Every statement names its epoch." (§11)
#[test]
fn what_belongs_to_another_epoch_is_refused() {
    let group = Group::of_four();
    let epoch = Epoch::new(1);
    let refused = Err(Invalid::Epoch(epoch));
    let statement = Prepare { epoch, ..prepare(0, 1, digest(1)) };
    assert_eq!(check(&group, 2, Message::Prepare(group.vote(2, statement))), refused);
    assert_eq!(check(&group, 2, Message::Commit(group.vote(2, statement.commit()))), refused);
    let checkpoint = Checkpoint { epoch, sequence: slot(4), root: digest(1) };
    assert_eq!(check(&group, 2, Message::Checkpoint(group.vote(2, checkpoint))), refused);
    let batch = group.batch(0);
    let vote = group.vote(0, Prepare { epoch, ..prepare(0, 1, batch.digest()) });
    let message = Message::PrePrepare(PrePrepare { vote, batch: batch.body().clone().into() });
    assert_eq!(check(&group, 0, message), refused);
    let mut content = content(1);
    content.epoch = epoch;
    assert_eq!(check(&group, 2, Message::ViewChange(signed(&group, 2, &content))), refused);
}

/// The same, should it have been checked with the keys of another epoch than the one that the replica is in by then.
#[test]
fn what_was_checked_with_the_keys_of_another_epoch_is_refused() {
    let mut backup = Subject::of_four(1);
    let later = Group(Arc::new(backup.group.0.in_epoch(Epoch::new(1), slot(4))));
    let vote = later.vote(2, Prepare { epoch: Epoch::new(1), ..prepare(0, 1, digest(1)) });
    let message = later.check(2, Message::Prepare(vote));
    assert_eq!(backup.step(Input::Message { from: replica(2), message }), []);
    let request = later.verified(later.opening(client(0), 1));
    assert_eq!(backup.step(Input::Request(request)), []);
    assert_eq!(backup.replica.refusals()[&Refusal::Epoch], 2);
    assert_eq!((backup.replica.log_length(), backup.replica.queue_length()), (0, 0), "nothing of it is kept");
}

/// "A **certificate** is a statement with the votes of a quorum of distinct members in ascending order" (§3)
#[test]
fn a_certificate_with_one_bad_part_is_refused_whole() {
    let group = Group::of_four();
    let sound = group.stable(4, digest(1), &[0, 1, 2]);
    let with = |votes: Vec<VoteSignature>| {
        let mut certificate = sound.clone();
        certificate.votes = List::new(votes).expect("few");
        check(&group, 3, Message::Stable(certificate))
    };
    let votes = sound.votes.to_vec();
    assert!(with(votes.clone()).is_ok());
    assert_eq!(with(votes[..2].to_vec()), Err(Invalid::Certificate), "q - 1");
    assert_eq!(with(vec![votes[0], votes[1], votes[1]]), Err(Invalid::Certificate), "one voter twice");
    assert_eq!(with(vec![votes[1], votes[0], votes[2]]), Err(Invalid::Certificate), "out of order");
    let stranger = VoteSignature { voter: ReplicaId::new(4), signature: FORGED };
    assert_eq!(with(vec![votes[0], votes[1], stranger]), Err(Invalid::Certificate), "no member");
    for index in 0..3 {
        let mut forged = votes.clone();
        forged[index].signature = FORGED;
        assert_eq!(with(forged), Err(Invalid::Signature), "vote {index}");
    }
    let mut swapped = votes.clone();
    (swapped[0].signature, swapped[1].signature) = (votes[1].signature, votes[0].signature);
    assert_eq!(with(swapped), Err(Invalid::Signature));
    let between = group.stable(5, digest(1), &[0, 1, 2]);
    assert!(matches!(check(&group, 3, Message::Stable(between)), Err(Invalid::Form(_))), "slot 5 is no checkpoint");
}

#[test]
fn a_decided_slot_counts_only_with_its_certificate_and_its_very_batch() {
    let group = Group::of_four();
    let batch = group.batch(0);
    let decided = |voters: &[u8], batch_given: &Batch| {
        let certificate = group.committed(3, 1, batch.digest(), voters);
        check(&group, 2, Message::Decided(Decided { certificate, batch: batch_given.body().clone().into() }))
    };
    assert!(decided(&[0, 1, 2], &batch).is_ok());
    assert_eq!(decided(&[0, 1], &batch), Err(Invalid::Certificate));
    assert_eq!(decided(&[0, 1, 2], &group.batch(1)), Err(Invalid::Digest));
}

fn content(to: u64) -> ViewChange {
    ViewChange {
        epoch: Epoch::ZERO,
        view: view(to),
        replica: replica(2),
        stable: None,
        prepared: List::empty(),
        cast: List::empty(),
    }
}

fn signed(group: &Group, signer: u8, content: &ViewChange) -> SignedViewChange {
    let body = encode(content).expect("short");
    let signature = group.signer(signer).sign(&view_change_digest(group.cluster(), &body));
    SignedViewChange { body: body.into(), signature }
}

/// "for each slot in the window above it, the prepared certificate ... of the highest view" (§7.1)
#[test]
fn a_view_change_out_of_form_is_refused_whole() {
    let group = Group::of_four();
    let check_content = |content: &ViewChange| check(&group, 2, Message::ViewChange(signed(&group, 2, content)));
    let prepared = |of_view: u64, sequence: u64| group.prepared(of_view, sequence, digest(1), &[0, 1, 2]);
    let with = |to: u64, certificates: Vec<_>| {
        let mut content = content(to);
        content.stable = Some(group.stable(4, digest(4), &[0, 1, 2]));
        content.prepared = List::new(certificates).expect("few");
        check_content(&content)
    };
    assert!(with(2, vec![prepared(1, 5), prepared(0, 12)]).is_ok());
    let form = |result| matches!(result, Err(Invalid::Form(_)));
    assert!(form(with(2, vec![prepared(1, 4)])), "at the stable checkpoint");
    assert!(form(with(2, vec![prepared(1, 13)])), "above the window");
    assert!(form(with(2, vec![prepared(2, 5)])), "of a view not below");
    assert!(form(with(2, vec![prepared(1, 6), prepared(1, 5)])), "out of order");
    assert!(form(with(2, vec![prepared(1, 5), prepared(0, 5)])), "one slot twice");
    assert_eq!(with(2, vec![group.prepared(1, 5, digest(1), &[0, 1])]), Err(Invalid::Certificate));
    let mut forged = prepared(1, 5);
    let mut votes = forged.votes.to_vec();
    votes[2].signature = FORGED;
    forged.votes = List::new(votes).expect("three");
    assert_eq!(
        with(2, vec![prepared(1, 6), forged.clone()]).map(drop),
        Err(Invalid::Form("certificates out of order"))
    );
    assert_eq!(with(2, vec![forged, prepared(1, 6)]), Err(Invalid::Signature));
    assert!(form(check_content(&content(0))), "nobody asks for view 0");
    let cast = |of_view: u64, sequence: u64| Cast { sequence: slot(sequence), view: view(of_view), digest: digest(1) };
    let with_cast = |casts: Vec<Cast>| {
        let mut content = content(2);
        content.cast = List::new(casts).expect("few");
        check_content(&content)
    };
    assert!(with_cast(vec![cast(1, 1), cast(0, 8)]).is_ok());
    for casts in
        [vec![cast(1, 0)], vec![cast(1, 9)], vec![cast(2, 1)], vec![cast(1, 2), cast(1, 1)], vec![cast(1, 1); 2]]
    {
        assert!(form(with_cast(casts.clone())), "{casts:?}");
    }
    let mut stranger = content(1);
    stranger.replica = replica(7);
    assert_eq!(check_content(&stranger), Err(Invalid::NotAMember(replica(7))));
    let other = signed(&group, 3, &content(1));
    assert_eq!(check(&group, 3, Message::ViewChange(other)), Err(Invalid::Signature), "signed by another member");
}

#[test]
fn bytes_that_mean_nothing_are_refused() {
    let group = Group::of_four();
    let body = Blob::from(&b"nonsense"[..]);
    let request = SignedRequest { body: body.clone(), signature: FORGED };
    assert!(matches!(check(&group, 2, Message::Request(request)), Err(Invalid::Batch(InvalidBatch::Codec(_)))));
    let view_change = SignedViewChange { body: body.clone(), signature: FORGED };
    assert!(matches!(
        check(&group, 2, Message::ViewChange(view_change)),
        Err(Invalid::Codec(CodecError::Malformed(_)))
    ));
    let fetched = FetchedBatch { sequence: slot(1), batch: body };
    assert!(matches!(check(&group, 2, Message::Batch(fetched)), Err(Invalid::Batch(_))));
}

/// "matches its digest" (§4.3)
#[test]
fn a_proposal_whose_bytes_are_not_those_it_names_accuses_nobody() {
    let group = Group::of_four();
    let vote = group.vote(0, prepare(0, 1, group.batch(0).digest()));
    let message = Message::PrePrepare(PrePrepare { vote, batch: group.batch(1).body().clone().into() });
    assert_eq!(check(&group, 3, message), Err(Invalid::Digest));
}

/// A batch that holds a request with a forged signature, in an otherwise sound proposal of the primary.
fn half_valid(group: &Group) -> (Message, Batch) {
    let sound = group.parsed(group.opening(client(0), 1));
    let mut forged = group.opening(client(1), 1);
    forged.signature = FORGED;
    let forged = ParsedRequest::parse(forged, &group.0).expect("in form");
    let batch = Batch::new(group.batch(0).stamp(), vec![sound, forged]);
    (group.pre_prepare(0, 0, 1, &batch), batch)
}

/// "A batch that its primary should not have signed, or two for one slot, is proof against it." (§4.3)
#[test]
fn a_batch_with_an_invalid_client_signature_proves_its_primary_faulty() {
    let group = Group::of_four();
    let (message, _) = half_valid(&group);
    let Err(Invalid::Misbehaviour(evidence)) = check(&group, 3, message) else { panic!("it was taken") };
    assert_eq!(evidence.accused(), replica(0));
    assert!(evidence.is_proof(&group.0, &mut StandInVerifier));
}

/// The same, of bytes that are no batch, and of a batch outside its bounds.
#[test]
fn bytes_that_are_no_batch_prove_their_primary_faulty() {
    let group = Group::of_four();
    let body = bytes::Bytes::from_static(b"no batch");
    let vote = group.vote(0, prepare(0, 1, quorate_protocol::batch::batch_digest(&body)));
    let Err(Invalid::Misbehaviour(evidence)) =
        check(&group, 0, Message::PrePrepare(PrePrepare { vote, batch: body.into() }))
    else {
        panic!("it was taken")
    };
    assert!(evidence.is_proof(&group.0, &mut StandInVerifier));
    let mut forged = vote;
    forged.signature = FORGED;
    let message = Message::PrePrepare(PrePrepare { vote: forged, batch: b"no batch".to_vec().into() });
    assert_eq!(check(&group, 0, message), Err(Invalid::Signature), "without the primary's vote there is no proof");
}

#[test]
fn accusations_that_prove_nothing_are_no_proof() {
    let group = Group::of_four();
    let is_proof = |evidence: Evidence| evidence.is_proof(&group.0, &mut StandInVerifier);
    let vote = |id, of_view, sequence, byte| group.vote(id, prepare(of_view, sequence, digest(byte)));
    assert!(is_proof(Evidence::ConflictingPrepares(vote(1, 2, 3, 1), vote(1, 2, 3, 2))));
    assert!(!is_proof(Evidence::ConflictingPrepares(vote(1, 2, 3, 1), vote(1, 2, 3, 1))), "one digest");
    assert!(!is_proof(Evidence::ConflictingPrepares(vote(1, 1, 3, 1), vote(1, 2, 3, 2))), "two views");
    assert!(!is_proof(Evidence::ConflictingPrepares(vote(1, 2, 3, 1), vote(1, 2, 4, 2))), "two slots");
    assert!(!is_proof(Evidence::ConflictingPrepares(vote(1, 2, 3, 1), vote(2, 2, 3, 2))), "two voters");
    let mut forged = vote(1, 2, 3, 2);
    forged.signature = FORGED;
    assert!(!is_proof(Evidence::ConflictingPrepares(vote(1, 2, 3, 1), forged)), "a forged vote");
    assert!(!is_proof(Evidence::ConflictingPrepares(forged, vote(1, 2, 3, 1))), "a forged vote");
    let mut renamed = vote(1, 2, 3, 2);
    renamed.voter = replica(3);
    let mut other = vote(1, 2, 3, 1);
    other.voter = replica(3);
    assert!(!is_proof(Evidence::ConflictingPrepares(other, renamed)), "votes of member 1 under another name");

    let commit = |of_view, byte| group.vote(1, prepare(of_view, 3, digest(byte)).commit());
    assert!(is_proof(Evidence::ConflictingCommits(commit(2, 1), commit(2, 2))));
    assert!(!is_proof(Evidence::ConflictingCommits(commit(1, 1), commit(2, 2))));
    assert!(!is_proof(Evidence::ConflictingCommits(commit(2, 2), commit(2, 2))));

    let root =
        |sequence, byte| group.vote(1, Checkpoint { epoch: Epoch::ZERO, sequence: slot(sequence), root: digest(byte) });
    assert!(is_proof(Evidence::ConflictingCheckpoints(root(4, 1), root(4, 2))));
    assert!(!is_proof(Evidence::ConflictingCheckpoints(root(4, 1), root(8, 2))));
    assert!(!is_proof(Evidence::ConflictingCheckpoints(root(4, 1), root(4, 1))));

    let (_, batch) = half_valid(&group);
    let body = || batch.body().clone().into();
    let named = |id| group.vote(id, prepare(0, 1, batch.digest()));
    assert!(is_proof(Evidence::InvalidBatch { vote: named(0), batch: body() }));
    assert!(!is_proof(Evidence::InvalidBatch { vote: named(1), batch: body() }), "a backup's vote");
    let sound = group.batch(0);
    let vote = group.vote(0, prepare(0, 1, sound.digest()));
    assert!(!is_proof(Evidence::InvalidBatch { vote, batch: sound.body().clone().into() }), "a sound batch");
    assert!(!is_proof(Evidence::InvalidBatch { vote, batch: body() }), "another batch than the vote names");
    let mut forged = named(0);
    forged.signature = FORGED;
    assert!(!is_proof(Evidence::InvalidBatch { vote: forged, batch: body() }), "a forged vote");
}

/// "or the listed ones, by the policy of the configuration" (§12)
#[test]
fn where_clients_are_listed_nobody_elses_request_is_one() {
    use quorate_protocol::configuration::{ClientPolicy, Parameters};
    let listed = List::new(vec![client(1)]).expect("one");
    let group = Group::new(4, Parameters { clients: ClientPolicy::Listed(listed), ..crate::support::small() });
    let requests = vec![group.opening(client(1), 1), group.opening(client(2), 1)];
    let verdicts = verify_requests(requests, &group.0, &mut StandInVerifier);
    let verdicts: Vec<bool> = verdicts.iter().map(Result::is_ok).collect();
    assert_eq!(verdicts, [true, false]);
}

/// Evidence is checked with the keys and the primaries of its epoch, and these are not known here.
#[test]
fn evidence_of_another_epoch_is_no_proof() {
    let group = Group::of_four();
    let epoch = Epoch::new(1);
    let vote = |byte| group.vote(1, Prepare { epoch, ..prepare(2, 3, digest(byte)) });
    assert!(!Evidence::ConflictingPrepares(vote(1), vote(2)).is_proof(&group.0, &mut StandInVerifier));
}

/// As many as a batch takes may come in one request. (PROTOCOL §14)
#[test]
fn a_request_holds_as_many_operations_as_a_batch_and_no_more() {
    let most = 3;
    let group = Group::new(4, Parameters { batch_operations_max: 3, ..crate::support::small() });
    let request = |count: usize| {
        let operations = List::new(vec![Blob::from(&b"get a"[..]); count]).expect("few");
        let number = RequestNumber::new(2);
        let request =
            Request { client: client(1), session: Session { sequence: slot(1), index: 0 }, number, operations };
        request.sign(group.cluster(), &StandIn(client(1))).expect("short")
    };
    let verdicts = verify_requests(vec![request(most), request(most + 1)], &group.0, &mut StandInVerifier);
    assert!(verdicts[0].is_ok(), "{verdicts:?}");
    assert!(matches!(verdicts[1], Err(Invalid::Batch(InvalidBatch::Bounds))), "{verdicts:?}");
}

#[test]
fn requests_are_checked_together_and_judged_one_by_one() {
    let group = Group::of_four();
    let mut requests: Vec<SignedRequest> = (0..6).map(|index| group.opening(client(index), 1)).collect();
    requests[1].signature = FORGED;
    requests[4].signature = FORGED;
    requests[2].body = b"nonsense".to_vec().into();
    let results = verify_requests(requests, &group.0, &mut StandInVerifier);
    let kinds: Vec<Option<bool>> =
        results.iter().map(|result| result.as_ref().err().map(|error| *error == Invalid::Signature)).collect();
    assert_eq!(kinds, [None, Some(true), Some(false), None, Some(true), None]);
}

/// What clients send may all be bad: finding out costs a few checks of each, not one of all for each.
#[test]
fn many_bad_requests_cost_little_more_than_good_ones() {
    struct Counting(usize);
    impl Verifier for Counting {
        fn verify(&mut self, items: &[Item]) -> Result<(), usize> {
            self.0 += items.len();
            StandInVerifier.verify(items)
        }
    }
    let group = Group::of_four();
    let checked = |forged: &[u8]| {
        let mut requests: Vec<SignedRequest> = (0..64).map(|index| group.opening(client(index), 1)).collect();
        for index in forged {
            requests[usize::from(*index)].signature = FORGED;
        }
        let mut verifier = Counting(0);
        let results = verify_requests(requests, &group.0, &mut verifier);
        for (index, result) in (0..).zip(&results) {
            assert_eq!(result.is_err(), forged.contains(&index), "request {index}");
        }
        verifier.0
    };
    assert_eq!(checked(&[]), 64);
    for forged in [&(0..64).collect::<Vec<u8>>()[..], &[63], &[0, 1, 62, 63], &[0], &[5, 9]] {
        let after_first = 63 - usize::from(forged[0]);
        assert_eq!(checked(forged), 64 + after_first, "{forged:?}: those after the first bad one once more");
    }
}
