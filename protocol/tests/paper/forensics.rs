//! Who is to blame when correct replicas decided differently. (§15)

use quorate_crypto::{Digest, Signature};
use quorate_protocol::certificate::StableCertificate;
use quorate_protocol::codec::List;
use quorate_protocol::configuration::Configuration;
use quorate_protocol::evidence::Evidence;
use quorate_protocol::forensics::{Divergence, Findings, Forensics, Lacking};
use quorate_protocol::message::SignedViewChange;
use quorate_protocol::number::Epoch;
use quorate_protocol::record::{NewViewRecord, Record, Recovered};
use quorate_protocol::statement::{Checkpoint, Commit, Prepare};

use crate::support::{Group, StandInVerifier, commit, digest, prepare, replica, slot, view};

const FORGED: Signature = Signature::from_bytes([3; 64]);

/// What follows from records, whoever's they are. Every proof stands alone.
fn judge(configuration: &Configuration, records: impl IntoIterator<Item = Record>) -> Findings {
    let mut forensics = Forensics::new(configuration);
    for record in records {
        forensics.read(&Recovered::Whole(record), &mut StandInVerifier);
    }
    let findings = forensics.conclude();
    for proof in &findings.proofs {
        let configuration = configuration.in_epoch(proof.epoch(), slot(0));
        assert!(proof.is_proof(&configuration, &mut StandInVerifier), "{proof:?}");
    }
    findings
}

fn culprits(findings: &Findings) -> Vec<u8> {
    findings.culprits().iter().map(|culprit| culprit.value()).collect()
}

fn decision(group: &Group, of_view: u64, sequence: u64, byte: u8, voters: &[u8]) -> Record {
    Record::Committed(group.committed(of_view, sequence, digest(byte), voters))
}

/// The record of who entered a view on these view changes.
fn entered(group: &Group, of_view: u64, view_changes: &[(u8, SignedViewChange)]) -> Record {
    let named: Vec<_> = view_changes.iter().map(|(id, signed)| (*id, signed)).collect();
    let primary = u8::try_from(of_view % 4).expect("below four");
    let new_view = group.new_view(primary, of_view, &named, &[]);
    let view_changes = view_changes.iter().map(|(_, signed)| signed.clone()).collect();
    let record = NewViewRecord { new_view, view_changes: List::new(view_changes).expect("few") };
    Record::NewView(Epoch::ZERO, view(of_view), record)
}

/// "their quorums share w members at least, each of which signed both" (§15)
#[test]
fn two_decisions_in_one_view_convict_who_committed_both() {
    let group = Group::of_four();
    let records = [decision(&group, 2, 7, 1, &[0, 1, 2]), decision(&group, 2, 7, 2, &[1, 2, 3])];
    let findings = judge(&group.0, records);
    assert_eq!(findings.divergences, [Divergence::Decisions(commit(2, 7, digest(1)), commit(2, 7, digest(2)))]);
    assert_eq!((culprits(&findings), &findings.lacking), (vec![1, 2], &None));
    assert!(findings.proofs.iter().all(|proof| matches!(proof, Evidence::ConflictingCommits(..))));
}

#[test]
fn one_decision_in_two_views_or_of_two_slots_is_no_divergence() {
    let group = Group::of_four();
    let all = [0, 1, 2, 3];
    let records = [
        decision(&group, 0, 7, 1, &all[..3]),
        decision(&group, 0, 8, 2, &all[..3]),
        decision(&group, 3, 7, 1, &all[1..]),
    ];
    let findings = judge(&group.0, records);
    assert_eq!(findings, Findings { divergences: vec![], proofs: vec![], lacking: None });
}

/// "the commit and the view change, both signed, convict" (§15)
#[test]
fn two_decisions_in_two_views_convict_who_committed_and_forgot_it() {
    let group = Group::of_four();
    let view_changes = [0, 1, 3].map(|id| (id, group.empty_view_change(id, 1)));
    let decisions = || [decision(&group, 0, 7, 1, &[0, 1, 2]), decision(&group, 1, 7, 2, &[0, 1, 3])];
    let findings = judge(&group.0, decisions().into_iter().chain([entered(&group, 1, &view_changes)]));
    assert_eq!((culprits(&findings), &findings.lacking), (vec![0, 1], &None));
    assert!(findings.proofs.iter().all(|proof| matches!(proof, Evidence::ForgottenCommit { .. })));
    // Without the new view there is nothing against anybody yet, and those who voted in its view know it.
    let findings = judge(&group.0, decisions());
    let lacking = Lacking { view: view(1), decided: view(0), is_begun: false, members: [0, 1, 3].map(replica).into() };
    assert_eq!((culprits(&findings), findings.lacking), (vec![], Some(lacking)));
    assert_eq!(findings.divergences.len(), 1);
}

/// "take the first view after v in which another batch is prepared" (§15)
#[test]
fn what_led_to_the_first_other_batch_is_looked_for_and_not_what_led_to_its_decision() {
    let group = Group::of_four();
    let other = || group.prepared(1, 7, digest(2), &[0, 1, 3]);
    // In the view of the decision all is as it should be: they show what was prepared before.
    let view_changes = [0, 1, 3].map(|id| (id, group.view_change(id, 2, None, vec![other()])));
    let records = || {
        [
            decision(&group, 0, 7, 1, &[0, 1, 2]),
            decision(&group, 2, 7, 2, &[0, 1, 3]),
            entered(&group, 2, &view_changes),
        ]
    };
    let findings = judge(&group.0, records());
    let lacking = Lacking { view: view(1), decided: view(0), is_begun: false, members: [0, 1, 3].map(replica).into() };
    assert_eq!((culprits(&findings), findings.lacking), (vec![], Some(lacking)));
    let before = [0, 1, 3].map(|id| (id, group.empty_view_change(id, 1)));
    let findings = judge(&group.0, records().into_iter().chain([entered(&group, 1, &before)]));
    assert_eq!(culprits(&findings), [0, 1]);
}

/// "Two batches prepared in one view" (§15)
#[test]
fn a_rival_certificate_of_the_very_view_convicts_who_voted_for_both() {
    let group = Group::of_four();
    // 0, 1 and 2 decided in view 0; then 3 shows that another batch was prepared there, with the votes of 0 and 1.
    let rival = group.prepared(0, 7, digest(2), &[0, 1, 3]);
    let own = group.prepared(0, 7, digest(1), &[0, 1, 2]);
    let view_changes = [
        (0, group.view_change(0, 1, None, vec![own.clone()])),
        (1, group.view_change(1, 1, None, vec![own])),
        (3, group.view_change(3, 1, None, vec![rival])),
    ];
    let records = [
        decision(&group, 0, 7, 1, &[0, 1, 2]),
        decision(&group, 1, 7, 2, &[0, 1, 3]),
        entered(&group, 1, &view_changes),
    ];
    let findings = judge(&group.0, records);
    assert_eq!((culprits(&findings), &findings.lacking), (vec![0, 1], &None));
    assert!(findings.proofs.iter().all(|proof| matches!(proof, Evidence::ConflictingPrepares(..))));
}

/// "A correct member that committed shows one of them" (§15)
#[test]
fn who_shows_what_it_committed_or_why_it_need_not_is_not_accused() {
    let group = Group::of_four();
    let vote = group.vote(2, commit(3, 7, digest(1)));
    let own = group.prepared(3, 7, digest(1), &[0, 1, 2]);
    let records = |to, stable: Option<StableCertificate>, prepared| {
        let view_change = group.view_change(2, to, stable, prepared);
        [Record::Prepared(own.clone(), vote), Record::ViewChange(Epoch::ZERO, view(to), view_change)]
    };
    let accused = |to, stable, prepared| culprits(&judge(&group.0, records(to, stable, prepared)));
    let prepared = |of_view, sequence, byte| vec![group.prepared(of_view, sequence, digest(byte), &[0, 1, 2])];
    let stable = |sequence| Some(group.stable(sequence, digest(9), &[0, 1, 3]));
    assert!(accused(4, None, prepared(3, 7, 1)).is_empty(), "it shows it");
    assert!(accused(5, None, prepared(4, 7, 2)).is_empty(), "another batch was prepared since, in a later view");
    assert!(accused(4, stable(8), vec![]).is_empty(), "it is stable");
    assert!(accused(3, None, vec![]).is_empty(), "asked for that view, and voted in it then");
    assert_eq!(accused(4, None, vec![]), [2]);
    assert_eq!(accused(4, stable(4), prepared(3, 8, 1)), [2], "another slot, and an earlier checkpoint");
    assert_eq!(accused(4, None, prepared(2, 7, 1)), [2], "of an earlier view");
    let kinds = judge(&group.0, records(4, None, prepared(3, 7, 2))).proofs;
    let is_forgotten =
        |proof: &Evidence| matches!(proof, Evidence::ForgottenCommit { vote, .. } if vote.voter == replica(2));
    assert!(kinds.iter().any(is_forgotten), "another batch in the very view");
}

/// "two stable states after one slot" (§15)
#[test]
fn two_stable_states_convict_who_vouched_for_both() {
    let group = Group::of_four();
    let stable = |byte, voters: &[u8]| Record::Stable(group.stable(4, digest(byte), voters));
    let findings = judge(&group.0, [stable(1, &[0, 2, 3]), stable(2, &[0, 1, 3]), stable(1, &[0, 1, 2])]);
    assert!(matches!(findings.divergences[..], [Divergence::Checkpoints(..)]), "{findings:?}");
    assert_eq!(culprits(&findings), [0, 1, 3]);
}

/// "decisions of different epochs do not diverge" (§15)
#[test]
fn what_is_decided_anew_in_the_next_epoch_convicts_nobody() {
    let group = Group::of_four();
    let again = Commit { epoch: Epoch::new(1), ..commit(0, 7, digest(2)) };
    let records = [decision(&group, 0, 7, 1, &[0, 1, 2]), Record::Committed(group.certificate(again, &[0, 1, 2]))];
    let findings = judge(&group.0, records);
    assert_eq!((findings.divergences.len(), culprits(&findings)), (0, vec![]));
    // Nor do view changes of one epoch forget what was committed in another.
    let vote = group.vote(0, Commit { epoch: Epoch::new(1), ..commit(0, 7, digest(1)) });
    let view_change = group.empty_view_change(0, 1);
    assert!(!Evidence::ForgottenCommit { vote, view_change }.is_proof(&group.0, &mut StandInVerifier));
}

/// Logs may have been tampered with.
#[test]
fn what_is_not_signed_counts_for_nothing() {
    let group = Group::of_four();
    let forge = |of_view, byte, voters: &[u8]| {
        let mut certificate = group.committed(of_view, 7, digest(byte), voters);
        let mut votes = certificate.votes.into_vec();
        votes[0].signature = FORGED;
        certificate.votes = List::new(votes).expect("few");
        Record::Committed(certificate)
    };
    let findings = judge(&group.0, [decision(&group, 2, 7, 1, &[0, 1, 2]), forge(2, 2, &[1, 2, 3])]);
    assert_eq!((findings.divergences.len(), culprits(&findings)), (0, vec![]));
    let few = [decision(&group, 2, 7, 1, &[0, 1, 2]), decision(&group, 2, 7, 2, &[1, 2])];
    assert_eq!(judge(&group.0, few).divergences, [], "two votes are no quorum");
    let stranger = [decision(&group, 2, 7, 1, &[0, 1, 2])].into_iter().chain([forge(2, 2, &[1, 2, 3])]);
    assert_eq!(judge(&group.0, stranger).proofs, []);

    let vote = group.vote(0, commit(0, 7, digest(1)));
    let prepared = group.prepared(0, 7, digest(1), &[0, 1, 2]);
    let mut view_change = group.empty_view_change(0, 1);
    view_change.signature = FORGED;
    let record = Record::ViewChange(Epoch::ZERO, view(1), view_change.clone());
    assert_eq!(judge(&group.0, [Record::Prepared(prepared.clone(), vote), record]).proofs, []);
    assert!(!Evidence::ForgottenCommit { vote, view_change }.is_proof(&group.0, &mut StandInVerifier));
    let of_another = group.empty_view_change(1, 1);
    assert!(!Evidence::ForgottenCommit { vote, view_change: of_another }.is_proof(&group.0, &mut StandInVerifier));
    let mut unsigned = vote;
    unsigned.signature = FORGED;
    let view_change = group.empty_view_change(0, 1);
    let evidence = Evidence::ForgottenCommit { vote: unsigned, view_change };
    assert!(!evidence.is_proof(&group.0, &mut StandInVerifier));
    let findings = judge(&group.0, [Record::Prepared(prepared, unsigned), entered(&group, 1, &[])]);
    assert_eq!(culprits(&findings), []);
}

#[test]
fn proofs_that_replicas_kept_are_taken_in_if_they_are_any() {
    let group = Group::of_four();
    let vote = |byte| group.vote(3, Prepare { epoch: Epoch::new(2), ..prepare(0, 7, digest(byte)) });
    let mut forensics = Forensics::new(&group.0);
    forensics.read_evidence(Evidence::ConflictingPrepares(vote(1), vote(1)), &mut StandInVerifier);
    assert_eq!(forensics.conclude().proofs, []);
    forensics.read_evidence(Evidence::ConflictingPrepares(vote(1), vote(2)), &mut StandInVerifier);
    forensics.read_evidence(Evidence::ConflictingPrepares(vote(1), vote(3)), &mut StandInVerifier);
    assert_eq!(culprits(&forensics.conclude()), [3]);
    assert_eq!(forensics.conclude().proofs.len(), 1, "one a kind");
}

#[test]
fn who_votes_once_on_each_is_never_accused() {
    let group = Group::of_four();
    let root = |sequence| Checkpoint { epoch: Epoch::ZERO, sequence: slot(sequence), root: Digest::ZERO };
    let records = (1..=8).flat_map(|sequence| {
        let digest = digest(u8::try_from(sequence).expect("few"));
        let prepared = group.prepared(0, sequence, digest, &[0, 1, 2]);
        let vote = group.vote(2, commit(0, sequence, digest));
        let accepted = Record::Accepted(group.vote(2, prepare(0, sequence, digest)), None);
        [accepted, Record::Prepared(prepared, vote), Record::Stable(group.certificate(root(sequence), &[1, 2, 3]))]
    });
    assert_eq!(judge(&group.0, records).proofs, []);
}
