//! §3 and §4: from a proposal to an executed slot.

use quorate_protocol::Output;
use quorate_protocol::batch::Batch;
use quorate_protocol::evidence::Evidence;
use quorate_protocol::message::{Message, Outcome, Reply};
use quorate_protocol::number::{Epoch, RecordNumber, ReplicaId, RequestNumber, Session};
use quorate_protocol::output::{Notice, Suspicion};
use quorate_protocol::record::Record;
use quorate_protocol::refusal::Refusal;
use quorate_protocol::verify::{Invalid, verify};

use crate::support::subject::{Subject, appended, executed, said, suspected};
use crate::support::{Group, StandInVerifier, client, commit, digest, prepare, replica, slot, small, view};

fn refused(subject: &Subject, refusal: Refusal) -> u64 {
    subject.replica.refusals().get(&refusal).copied().unwrap_or(0)
}

/// "It makes batch and vote durable, and only then sends `Prepare`; never without the batch." (§4.3)
#[test]
fn batch_and_vote_are_recorded_before_the_prepare_is_sent() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let batch = group.batch(0);
    let vote = group.vote(1, prepare(0, 1, batch.digest()));
    let outputs = backup.hear(0, group.pre_prepare(0, 0, 1, &batch));
    assert_eq!(outputs, [Output::Append { number: RecordNumber::new(1), record: Record::Accepted(vote, Some(batch)) }]);
    assert_eq!(backup.sync(), [Output::Broadcast(Message::Prepare(vote))]);
}

/// The same: while its own vote is on the way to the disk, a vote beyond what it then needs is not even verified.
#[test]
fn a_vote_that_could_only_come_too_early_is_unwanted() {
    for size in [4, 5, 6, 7] {
        let mut backup = Subject::new(&Group::new(size, small()), 1);
        let group = backup.group.clone();
        let digest = group.batch(0).digest();
        let votes: Vec<_> = group.0.replicas().map(ReplicaId::value).filter(|id| *id > 1).collect();
        let (needed, others) = votes.split_at(group.0.quorum() - 2);
        let last = others[0];
        let is_wanted =
            |backup: &Subject, from| backup.replica.is_wanted(replica(from), &group.prepare(from, 0, 1, digest));
        backup.hear(0, group.pre_prepare(0, 0, 1, &group.batch(0)));
        for id in needed {
            assert!(is_wanted(&backup, *id), "without it there is no quorum, n = {size}");
            backup.hear(*id, group.prepare(*id, 0, 1, digest));
        }
        assert!(!is_wanted(&backup, last), "all it lacks is its own, n = {size}");
        assert!(backup.replica.is_wanted(replica(last), &group.prepare(last, 0, 1, group.batch(1).digest())));
        assert!(said(&backup.sync()).contains(&group.prepare(1, 0, 1, digest)));
        assert_eq!(appended(&backup.outputs()).len(), 0, "prepared already");
        assert!(!is_wanted(&backup, last), "it is prepared, n = {size}");
    }
    // A replica that voted for something else needs every vote there is.
    let mut fooled = Subject::of_four(1);
    let group = fooled.group.clone();
    let digest = group.batch(0).digest();
    fooled.hear(0, group.pre_prepare(0, 0, 1, &group.batch(1)));
    fooled.hear_all([2, 3].map(|id| (id, group.prepare(id, 0, 1, digest))));
    assert!(fooled.replica.is_wanted(replica(0), &group.prepare(0, 0, 1, digest)));
}

/// What was voted for is not verified again, with all its clients' signatures: unless its primary's own vote was lost, in a crash.
#[test]
fn a_proposal_that_was_voted_for_is_unwanted() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let (proposal, other) = (group.pre_prepare(0, 0, 1, &group.batch(0)), group.pre_prepare(0, 0, 1, &group.batch(1)));
    assert!(backup.replica.is_wanted(replica(0), &proposal));
    backup.hear(2, group.prepare(2, 0, 1, group.batch(0).digest()));
    backup.hear(0, group.prepare(0, 0, 1, group.batch(0).digest()));
    assert!(backup.replica.is_wanted(replica(0), &proposal), "its vote is here, its batch is not");
    backup.hear(0, proposal.clone());
    assert!(!backup.replica.is_wanted(replica(0), &proposal));
    assert!(backup.replica.is_wanted(replica(0), &other), "that would be proof");
    assert!(backup.restart().replica.is_wanted(replica(0), &proposal));
}

/// "A backup in the view accepts if the proposal carries the vote of the view's primary" (§4.3)
#[test]
fn a_proposal_of_anyone_but_the_views_primary_is_not_even_verified() {
    let group = Group::of_four();
    let message = group.pre_prepare(2, 0, 1, &group.batch(0));
    let refused = verify(message, replica(2), &group.0, &mut StandInVerifier);
    assert_eq!(refused, Err(Invalid::Sender(replica(2))));
}

/// "A backup in the view accepts" (§4.3)
#[test]
fn a_proposal_of_another_view_is_refused() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    assert_eq!(backup.hear(1, group.pre_prepare(1, 1, 1, &group.batch(0))), []);
    assert_eq!(refused(&backup, Refusal::FutureView), 1);
    enter_view_one(&mut backup);
    assert_eq!(backup.hear(0, group.pre_prepare(0, 0, 1, &group.batch(0))), []);
    assert_eq!(refused(&backup, Refusal::OldView), 1);
}

/// Brings any replica but 1 into view 1, with nothing carried over.
fn enter_view_one(subject: &mut Subject) {
    let group = subject.group.clone();
    let view_changes: Vec<_> = [0, 1, 3].map(|id| (id, group.empty_view_change(id, 1))).into();
    subject.hear_all(view_changes.iter().map(|(id, signed)| (*id, Message::ViewChange(signed.clone()))));
    let named: Vec<_> = view_changes.iter().map(|(id, signed)| (*id, signed)).collect();
    subject.hear(1, Message::NewView(group.new_view(1, 1, &named, &[])));
    subject.settle();
    assert_eq!(subject.replica.view(), view(1));
}

/// "lies within the watermarks" (§4.3), "`low < s <= low + window`" (§4.2)
#[test]
fn a_proposal_outside_the_watermarks_is_refused_on_either_side() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    for sequence in [0, 9, u64::MAX] {
        assert_eq!(backup.hear(0, group.pre_prepare(0, 0, sequence, &group.batch(0))), []);
    }
    assert_eq!(refused(&backup, Refusal::OutsideWatermarks), 3);
    assert_eq!(appended(&backup.hear(0, group.pre_prepare(0, 0, 8, &group.batch(0)))).len(), 1);
    backup.hear(0, Message::Stable(group.stable(4, digest(4), &[0, 2, 3])));
    for sequence in [4, 13] {
        assert_eq!(backup.hear(0, group.pre_prepare(0, 0, sequence, &group.batch(1))), []);
    }
    assert_eq!(refused(&backup, Refusal::OutsideWatermarks), 5);
    assert_eq!(appended(&backup.hear(0, group.pre_prepare(0, 0, 12, &group.batch(2)))).len(), 1);
}

/// "contradicts nothing accepted for the slot in this view" (§4.3); "two for one slot, is proof against it" (§4.3);
/// "*proof*: the primary contradicted itself" (§6)
#[test]
fn a_second_digest_for_a_slot_is_refused_and_kept_as_proof() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let (first, second) = (group.batch(0), group.batch(1));
    backup.hear(0, group.pre_prepare(0, 0, 1, &first));
    let outputs = backup.hear(0, group.pre_prepare(0, 0, 1, &second));
    let votes = [&first, &second].map(|batch| group.vote(0, prepare(0, 1, batch.digest())));
    let evidence = Evidence::ConflictingPrepares(votes[0], votes[1]);
    assert!(evidence.is_proof(&group.0, &mut StandInVerifier));
    assert_eq!(outputs[0], Output::Evidence(evidence.into()));
    assert_eq!(outputs[1], Output::Notice(Notice::PrimarySuspected { view: view(0), reason: Suspicion::Proof }));
    assert_eq!(outputs.len(), 2);
    assert_eq!(refused(&backup, Refusal::Conflict), 2);
}

/// The same, where the vote for the other digest came by itself, before any proposal.
#[test]
fn a_proposal_that_contradicts_the_primarys_earlier_vote_is_not_accepted() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    backup.hear(0, group.prepare(0, 0, 1, digest(7)));
    let outputs = backup.hear(0, group.pre_prepare(0, 0, 1, &group.batch(0)));
    assert!(matches!(outputs[0], Output::Evidence(_)));
    assert_eq!(suspected(&outputs), [(0, Suspicion::Proof)]);
    assert!(!appended(&outputs).iter().any(|record| matches!(record, Record::Accepted(..))));
}

/// "or two for one slot, is proof against it" (§4.3): only the primary's view is at stake, not that of a backup's liar.
#[test]
fn a_backup_that_contradicts_itself_is_proved_faulty_and_the_view_goes_on() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    backup.hear(2, group.prepare(2, 0, 1, digest(1)));
    let outputs = backup.hear(2, group.prepare(2, 0, 1, digest(2)));
    let votes = [1, 2].map(|byte| group.vote(2, prepare(0, 1, digest(byte))));
    assert_eq!(outputs, [Output::Evidence(Evidence::ConflictingPrepares(votes[0], votes[1]).into())]);
    backup.hear(3, group.commit(3, 0, 1, digest(1)));
    let outputs = backup.hear(3, group.commit(3, 0, 1, digest(2)));
    let votes = [1, 2].map(|byte| group.vote(3, commit(0, 1, digest(byte))));
    assert_eq!(outputs, [Output::Evidence(Evidence::ConflictingCommits(votes[0], votes[1]).into())]);
}

/// "and is stamped near enough to its clock" (§4.3)
#[test]
fn a_stamp_beyond_the_clock_bound_is_refused_on_either_side() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    for (sequence, stamp_ms) in [(1, 2001), (2, -2001)] {
        let batch = group.batch_at(stamp_ms, vec![group.opening(client(0), 1)]);
        assert_eq!(backup.hear(0, group.pre_prepare(0, 0, sequence, &batch)), [], "{stamp_ms}");
    }
    assert_eq!(refused(&backup, Refusal::Clock), 2);
    for (sequence, stamp_ms) in [(1, 2000), (2, -2000)] {
        let batch = group.batch_at(stamp_ms, vec![group.opening(client(0), 1)]);
        assert_eq!(backup.hear(0, group.pre_prepare(0, 0, sequence, &batch)).len(), 1, "{stamp_ms}");
    }
}

/// "The empty batch is one constant." (§4.2)
#[test]
fn the_empty_batch_has_no_stamp_to_check() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    assert_eq!(backup.hear(0, group.pre_prepare(0, 0, 1, &Batch::empty())).len(), 1);
}

/// "Messages come in any order and more than once; one vote counts a member." (§4)
#[test]
fn a_message_that_comes_twice_changes_nothing() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let batch = group.batch(0);
    let messages = [
        (0, group.pre_prepare(0, 0, 1, &batch)),
        (2, group.prepare(2, 0, 1, batch.digest())),
        (2, group.commit(2, 0, 1, batch.digest())),
    ];
    for (from, message) in messages {
        backup.hear(from, message.clone());
        assert_eq!(backup.hear(from, message), []);
    }
    assert_eq!(refused(&backup, Refusal::Duplicate), 3);
}

/// "A **certificate** is a statement with the votes of a quorum of distinct members" (§3), "`q = (n + f) / 2 + 1`" (§1)
#[test]
fn a_slot_is_prepared_by_a_quorum_of_votes_and_not_by_one_fewer() {
    for (size, quorum) in [(4, 3), (5, 4), (6, 4), (7, 5), (10, 7)] {
        let group = Group::new(size, small());
        let mut backup = Subject::new(&group, 1);
        let batch = group.batch(0);
        backup.hear(0, group.pre_prepare(0, 0, 1, &batch));
        backup.sync();
        // The primary's vote and its own are two.
        for id in 2..quorum - 1 {
            assert_eq!(backup.hear(id, group.prepare(id, 0, 1, batch.digest())), [], "n = {size}");
            assert_eq!(backup.hear(id, group.prepare(id, 0, 1, batch.digest())), [], "one voter twice, n = {size}");
        }
        let outputs = backup.hear(quorum - 1, group.prepare(quorum - 1, 0, 1, batch.digest()));
        let voters: Vec<u8> = (0..quorum).collect();
        let certificate = group.prepared(0, 1, batch.digest(), &voters);
        let vote = group.vote(1, commit(0, 1, batch.digest()));
        let [Output::Append { record: Record::Prepared(held, own), .. }] = &outputs[..] else {
            panic!("n = {size}: {outputs:?}")
        };
        assert_eq!((held, own), (&certificate, &vote), "n = {size}");
    }
}

/// "A **certificate** is a statement with the votes of a quorum" (§3): of one statement, not of several.
#[test]
fn votes_for_another_digest_or_view_do_not_add_up() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let batch = group.batch(0);
    backup.hear(0, group.pre_prepare(0, 0, 1, &batch));
    backup.sync();
    assert_eq!(appended(&backup.hear(2, group.prepare(2, 0, 1, digest(1)))), []);
    assert_eq!(appended(&backup.hear(3, group.prepare(3, 1, 1, batch.digest()))), []);
}

/// "With a prepared certificate of its view a replica makes it durable, then sends `Commit`." (§4.4)
#[test]
fn a_commit_is_sent_only_when_the_prepared_certificate_is_durable() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let batch = group.batch(0);
    backup.hear(0, group.pre_prepare(0, 0, 1, &batch));
    backup.sync();
    let outputs = backup.hear(2, group.prepare(2, 0, 1, batch.digest()));
    assert_eq!(said(&outputs), []);
    let vote = group.vote(1, commit(0, 1, batch.digest()));
    assert_eq!(backup.sync(), [Output::Broadcast(Message::Commit(vote))]);
}

/// "With a prepared certificate of its view" (§4.4): the votes of a quorum are one, its own among them or not.
#[test]
fn a_replica_commits_by_the_votes_of_others_while_its_own_is_not_durable() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let batch = group.batch(0);
    backup.hear(0, group.pre_prepare(0, 0, 1, &batch));
    backup.hear(2, group.prepare(2, 0, 1, batch.digest()));
    let outputs = backup.hear(3, group.prepare(3, 0, 1, batch.digest()));
    let certificate = group.prepared(0, 1, batch.digest(), &[0, 2, 3]);
    let vote = group.vote(1, commit(0, 1, batch.digest()));
    assert_eq!(appended(&outputs), [Record::Prepared(certificate, vote)]);
}

/// "A replica's own vote counts, for itself too, only when it is durable and sent." (§3)
#[test]
fn the_own_vote_counts_only_when_it_is_durable() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let batch = group.batch(0);
    backup.hear(0, group.pre_prepare(0, 0, 1, &batch));
    assert_eq!(backup.hear(2, group.prepare(2, 0, 1, batch.digest())), []);
    let outputs = backup.sync();
    assert!(matches!(outputs[0], Output::Broadcast(Message::Prepare(_))));
    assert!(matches!(&outputs[1], Output::Append { record: Record::Prepared(..), .. }));
    for id in [0, 2] {
        assert_eq!(backup.hear(id, group.commit(id, 0, 1, batch.digest())), []);
    }
    let outputs = backup.sync();
    assert!(matches!(outputs[0], Output::Broadcast(Message::Commit(_))));
    assert_eq!(executed(&outputs), [1]);
}

/// "With a committed certificate, of whatever view, the slot is **decided**." (§4.5)
#[test]
fn a_quorum_of_commits_of_any_one_view_decides() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let batch = group.batch(0);
    backup.hear(0, group.pre_prepare(0, 0, 1, &batch));
    backup.sync();
    for id in [0, 2] {
        assert_eq!(backup.hear(id, group.commit(id, 5, 1, batch.digest())), []);
    }
    let outputs = backup.hear(3, group.commit(3, 5, 1, batch.digest()));
    let certificate = group.committed(5, 1, batch.digest(), &[0, 2, 3]);
    assert_eq!(appended(&outputs), [Record::Committed(certificate)]);
    assert_eq!(executed(&outputs), [1]);
}

/// The same: commits of different views are different statements.
#[test]
fn commits_of_different_views_do_not_add_up() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let batch = group.batch(0);
    backup.hear(0, group.pre_prepare(0, 0, 1, &batch));
    for (id, of_view) in [(0, 0), (2, 1), (3, 1)] {
        assert_eq!(backup.hear(id, group.commit(id, of_view, 1, batch.digest())), []);
    }
}

/// "Messages come in any order and more than once" (§4)
#[test]
fn a_slot_executes_whatever_order_its_messages_come_in() {
    let group = Group::of_four();
    let batch = group.batch(0);
    let messages = [
        (0, group.pre_prepare(0, 0, 1, &batch)),
        (2, group.prepare(2, 0, 1, batch.digest())),
        (3, group.prepare(3, 0, 1, batch.digest())),
        (0, group.commit(0, 0, 1, batch.digest())),
        (2, group.commit(2, 0, 1, batch.digest())),
        (3, group.commit(3, 0, 1, batch.digest())),
    ];
    for order in orders(messages.len()) {
        let mut backup = Subject::new(&group, 1);
        let mut outputs = Vec::new();
        for index in order {
            let (from, message) = messages[index].clone();
            outputs.extend(backup.hear(from, message));
            outputs.extend(backup.sync());
        }
        assert_eq!(executed(&outputs), [1]);
        assert!(said(&outputs).contains(&group.commit(1, 0, 1, batch.digest())));
    }
}

/// All orders of so many things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![vec![]];
    }
    let shorter = orders(count - 1);
    let insert = |order: &Vec<usize>, place: usize| {
        let mut order = order.clone();
        order.insert(place, count - 1);
        order
    };
    shorter.iter().flat_map(|order| (0..count).map(move |place| insert(order, place))).collect()
}

/// "Slots execute in order" (§4.5), "without a gap" (§2.4)
#[test]
fn a_decided_slot_waits_for_those_before_it() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    assert_eq!(executed(&backup.decide(0, 3, &group.batch(3))), []);
    assert_eq!(executed(&backup.decide(0, 2, &group.batch(2))), []);
    assert_eq!(executed(&backup.decide(0, 1, &group.batch(1))), [1, 2, 3]);
}

/// "and each request is answered: view, number, slot, place, results" (§4.5); "the slot and place where it executed name
/// the session" (§4.1)
#[test]
fn each_request_is_answered_in_the_order_of_execution() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    backup.decide(0, 1, &group.batch_at(0, vec![group.opening(client(0), 7), group.opening(client(1), 7)]));
    let reply = |client, session, number, outcome| {
        let number = RequestNumber::new(number);
        Output::Reply(Reply { epoch: Epoch::ZERO, view: view(0), client, session, number, outcome })
    };
    let session = |sequence, index| Session { sequence: slot(sequence), index };
    let opened = |index| Outcome::Opened { session: session(1, index) };
    assert_eq!(
        backup.execute(),
        [reply(client(0), Session::NONE, 7, opened(0)), reply(client(1), Session::NONE, 7, opened(1)),]
    );
    let request = group.request(client(1), session(1, 1), 1, "do it");
    backup.decide(0, 2, &group.batch_at(0, vec![group.opening(client(2), 1), request.clone()]));
    let outputs = backup.execute();
    let results = crate::support::subject::results;
    let execution = quorate_protocol::application::Execution {
        sequence: slot(2),
        time: quorate_protocol::time::WallTime::ZERO,
        requests: vec![quorate_protocol::application::Executable {
            client: client(1),
            session: session(1, 1),
            number: RequestNumber::new(1),
            index: 1,
            operations: group.parsed(request).request.operations,
        }],
    };
    let results = results(&execution).remove(0);
    assert_eq!(
        outputs[1],
        reply(client(1), session(1, 1), 1, Outcome::Executed { sequence: slot(2), index: 1, results })
    );
}

/// "duplicates are skipped at execution, by everyone alike" (§4.3)
#[test]
fn a_request_that_is_ordered_twice_executes_once_and_is_answered_twice() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    backup.decide(0, 1, &group.batch(0));
    backup.execute();
    let session = Session { sequence: slot(1), index: 0 };
    let request = group.request(client(0), session, 1, "once");
    let first = backup.decide(0, 2, &group.batch_at(0, vec![request.clone()]));
    let answered = backup.execute();
    let second = backup.decide(0, 3, &group.batch_at(1, vec![request]));
    let counts = [&first, &second].map(|outputs| {
        let executions = outputs.iter().filter_map(|output| match output {
            Output::Execute(execution) => Some(execution.requests.len()),
            _ => None,
        });
        executions.collect::<Vec<_>>()
    });
    assert_eq!(counts, [vec![1], vec![0]]);
    assert_eq!(answered, backup.execute());
}

/// "Operations see max(time of the slot before, stamp) and no other time." (§4.2)
#[test]
fn the_time_that_operations_see_never_runs_backwards() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let mut outputs = Vec::new();
    for (sequence, stamp_ms) in [(1, 100), (2, 50)] {
        let batch = group.batch_at(stamp_ms, vec![group.opening(client(0), sequence)]);
        outputs.extend(backup.decide(0, sequence, &batch));
    }
    outputs.extend(backup.decide(0, 3, &Batch::empty()));
    let times: Vec<_> = backup.executions.iter().map(|execution| execution.time).collect();
    assert_eq!(executed(&outputs), [1, 2, 3]);
    let stamp = group.batch_at(100, vec![group.opening(client(0), 1)]).stamp();
    assert_eq!(times, [stamp; 3]);
}

/// "A batch that its primary should not have signed, or two for one slot, is proof against it." (§4.3)
#[test]
fn a_batch_that_its_primary_should_not_have_signed_is_proof_against_it() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let mut request = group.opening(client(0), 1);
    request.signature = quorate_crypto::Signature::from_bytes([0; 64]);
    let parsed = quorate_protocol::batch::ParsedRequest::parse(request, &group.0).expect("in form");
    let batch = Batch::new(group.batch(0).stamp(), vec![parsed]);
    let message = group.pre_prepare(0, 0, 1, &batch);
    let Err(Invalid::Misbehaviour(evidence)) = verify(message, replica(0), &group.0, &mut StandInVerifier) else {
        panic!("a batch with an invalid client signature was taken")
    };
    let outputs = backup.step(quorate_protocol::Input::Misbehaviour(evidence.clone()));
    assert_eq!(outputs[0], Output::Evidence(evidence));
    assert_eq!(suspected(&outputs), [(0, Suspicion::Proof)]);
}

/// "one vote counts a member" (§4): the others may prepare what an equivocating primary did not show this replica.
#[test]
fn a_certificate_of_another_digest_than_the_own_vote_is_taken_without_harm() {
    let group = Group::new(6, small());
    let mut backup = Subject::new(&group, 1);
    backup.hear(0, group.pre_prepare(0, 0, 1, &group.batch(1)));
    backup.sync();
    let other = group.batch(2);
    let outputs = backup.hear_all((2..6).map(|id| (id, group.prepare(id, 0, 1, other.digest()))));
    let certificate = group.prepared(0, 1, other.digest(), &[2, 3, 4, 5]);
    let vote = group.vote(1, commit(0, 1, other.digest()));
    assert_eq!(appended(&outputs), [Record::Prepared(certificate, vote)]);
}
