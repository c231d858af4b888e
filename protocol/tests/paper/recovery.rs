//! §9, after a crash: what was durable is taken up, and nothing is said that contradicts it.

use quorate_protocol::Output;
use quorate_protocol::batch::Batch;
use quorate_protocol::codec::decode;
use quorate_protocol::evidence::Evidence;
use quorate_protocol::message::{Message, Progress, ViewChange};
use quorate_protocol::number::{Incarnation, RecordNumber, Sequence};
use quorate_protocol::output::Suspicion;
use quorate_protocol::record::{Record, Recovered};
use quorate_protocol::replica::Mode;

use crate::support::subject::{Subject, appended, executed, idle_status, said, suspected, wanted};
use crate::support::{Group, START_MS, commit, digest, prepare, slot, view};

/// Starts again with each record as `damage` gives it back.
fn restart_damaged(subject: &Subject, damage: impl Fn(&Record) -> Recovered) -> Subject {
    let records = subject.records.iter().map(|(number, record)| (*number, damage(record))).collect();
    let checkpoint = subject.durable_checkpoint.clone();
    Subject::start(&subject.group, subject.id, subject.now_ms, checkpoint, records)
}

/// What `subject` sends to a member that stands still with nothing.
fn resent(subject: &mut Subject) -> Vec<Message> {
    subject.pass(100);
    let mut status = idle_status(subject.replica.view().value());
    status.executed = slot(0);
    subject.hear(3, Message::Status(status.clone()));
    said(&subject.hear(3, Message::Status(status)))
}

/// "*No amnesia*: no replica, crashes included, signs two statements for the same kind, epoch, view and slot." (§2.6)
#[test]
fn a_vote_that_was_durable_is_cast_after_a_crash_and_no_second_one_is() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let batch = group.batch(0);
    backup.hear(0, group.pre_prepare(0, 0, 1, &batch));
    let mut again = backup.restart();
    assert_eq!(appended(&again.outputs()), []);
    let outputs = again.hear(0, group.pre_prepare(0, 0, 1, &group.batch(1)));
    assert_eq!(appended(&outputs), [], "another digest finds the vote cast");
    assert_eq!(resent(&mut again), [group.prepare(1, 0, 1, batch.digest())]);
}

/// "Who lost the first of the two in a crash has its own vote, which followed it: reason enough to suspect, and nothing to
/// show." (§4.3)
#[test]
fn after_a_crash_a_primary_that_votes_against_what_this_replica_voted_for_is_suspected() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let (first, second) = (group.batch(0), group.batch(1));
    backup.hear(0, group.pre_prepare(0, 0, 1, &first));
    let of_second = group.prepare(0, 0, 1, second.digest());
    for against in [group.pre_prepare(0, 0, 1, &second), of_second] {
        let mut again = backup.restart();
        again.outputs();
        assert_eq!(suspected(&again.hear(0, group.prepare(0, 0, 1, first.digest()))), [], "as before");
        let mut again = backup.restart();
        again.outputs();
        let outputs = again.hear(0, against);
        assert_eq!(suspected(&outputs), [(0, Suspicion::Proof)]);
        assert!(!outputs.iter().any(|output| matches!(output, Output::Evidence(_))), "the first vote is not here");
        // The first comes again: now there is something to show.
        let outputs = again.hear(0, group.prepare(0, 0, 1, first.digest()));
        assert!(matches!(outputs[..], [Output::Evidence(_)]));
    }
    // What a backup votes for says nothing of the primary, nor what the primary of another view does.
    let mut again = backup.restart();
    again.outputs();
    assert_eq!(again.hear(2, group.prepare(2, 0, 1, second.digest())), []);
    assert_eq!(again.hear(3, group.prepare(3, 3, 1, second.digest())), []);
}

/// "A batch that its primary should not have signed, or two for one slot, is proof against it" (§4.3): the votes of a prepared
/// certificate outlive a crash.
#[test]
fn after_a_crash_a_vote_against_a_prepared_certificate_that_holds_its_voter_is_proof() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let (first, second) = (group.batch(0), group.batch(1));
    backup.hear(0, group.pre_prepare(0, 0, 1, &first));
    backup.hear(2, group.prepare(2, 0, 1, first.digest()));
    assert!(backup.sync().iter().any(|output| matches!(output, Output::Append { record: Record::Prepared(..), .. })));
    for id in [0, 2] {
        let mut again = backup.restart();
        again.outputs();
        let outputs = again.hear(id, group.prepare(id, 0, 1, second.digest()));
        let votes = [&first, &second].map(|batch| group.vote(id, prepare(0, 1, batch.digest())));
        let evidence = Evidence::ConflictingPrepares(votes[0], votes[1]);
        assert_eq!(outputs[0], Output::Evidence(evidence.into()));
        assert_eq!(suspected(&outputs).is_empty(), id != 0);
    }
}

/// "An unsynced tail is cut" (§9): what was not durable was not said.
#[test]
fn a_vote_that_was_not_durable_was_never_sent_and_may_be_cast_anew() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    assert_eq!(said(&backup.hear(0, group.pre_prepare(0, 0, 1, &group.batch(0)))), []);
    let mut again = backup.restart_with(RecordNumber::ZERO);
    let other = group.batch(1);
    let outputs = again.hear(0, group.pre_prepare(0, 0, 1, &other));
    assert_eq!(appended(&outputs), [Record::Accepted(group.vote(1, prepare(0, 1, other.digest())), Some(other))]);
}

/// "then the log: watermarks first, then votes and decisions" (§9)
#[test]
fn a_commit_that_was_durable_is_sent_again_after_a_crash() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let batch = group.batch(0);
    backup.hear(0, group.pre_prepare(0, 0, 1, &batch));
    backup.hear_all([2, 3].map(|id| (id, group.prepare(id, 0, 1, batch.digest()))));
    let mut again = backup.restart();
    again.outputs();
    let own = Message::Commit(group.vote(1, commit(0, 1, batch.digest())));
    assert_eq!(resent(&mut again), [group.prepare(1, 0, 1, batch.digest()), own]);
    let outputs = again.hear_all([0, 2].map(|id| (id, group.commit(id, 0, 1, batch.digest()))));
    assert_eq!(executed(&outputs), [1], "its own counts");
}

/// "*Prefix*: slots execute in order without a gap" (§2.4): from the last durable checkpoint on.
#[test]
fn decided_slots_execute_again_from_the_last_durable_checkpoint() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    for sequence in 1..=6 {
        backup.decide(0, sequence, &group.batch(u8::try_from(sequence).expect("small")));
        backup.settle();
    }
    let mut again = backup.restart();
    assert_eq!(executed(&again.outputs()), [5, 6]);
    again.settle();
    assert_eq!(again.replica.executed(), slot(6));
    for sequence in [7, 8] {
        for subject in [&mut backup, &mut again] {
            subject.decide(0, sequence, &group.batch(0));
            subject.settle();
        }
    }
    assert_eq!(again.replica.state_root_at(slot(8)), backup.replica.state_root_at(slot(8)));
    assert!(again.replica.state_root_at(slot(8)).is_some());
}

/// "watermarks first, then votes and decisions" (§9): the certificate may stand after the votes above it.
#[test]
fn votes_that_stand_before_the_certificate_of_their_watermark_count() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    for sequence in 1..=4 {
        backup.decide(0, sequence, &group.batch(u8::try_from(sequence).expect("small")));
        backup.settle();
    }
    let (batch, root) = (group.batch(12), backup.replica.state_root_at(slot(4)).expect("taken"));
    let records = vec![
        (
            RecordNumber::new(50),
            Recovered::Whole(Record::Accepted(group.vote(1, prepare(0, 12, batch.digest())), Some(batch))),
        ),
        (RecordNumber::new(51), Recovered::Whole(Record::Stable(group.stable(4, root, &[0, 1, 2])))),
    ];
    let mut again = Subject::start(&group, 1, backup.now_ms, backup.durable_checkpoint.clone(), records);
    again.outputs();
    again.hear(0, Message::Status(idle_status(0)));
    let outputs = again.leave();
    let content = view_change(&outputs);
    assert_eq!(content.cast.iter().map(|cast| cast.sequence).collect::<Vec<Sequence>>(), [slot(12)]);
}

/// "or a vote above the watermarks that the log gives" (§9): the certificate that let it be cast was written before it, and
/// other votes may be lost with that.
#[test]
fn a_vote_above_the_watermarks_that_the_log_gives_is_a_loss_of_votes() {
    let group = Group::of_four();
    let batch = group.batch(1);
    let votes = |record: Recovered, stable: Option<u64>| {
        let stable = stable.map(|at| Recovered::Whole(Record::Stable(group.stable(at, digest(1), &[0, 1, 2]))));
        let records = core::iter::once(record).chain(stable).zip(50..);
        let records = records.map(|(record, number)| (RecordNumber::new(number), record)).collect();
        Subject::start(&group, 1, START_MS, None, records).replica.is_voter()
    };
    for (sequence, stable, is_possible) in
        [(8, None, true), (9, None, false), (12, Some(4), true), (13, Some(4), false)]
    {
        let vote = group.vote(1, prepare(0, sequence, batch.digest()));
        let certificate = group.prepared(0, sequence, batch.digest(), &[0, 1, 2]);
        for record in [
            Recovered::Whole(Record::Accepted(vote, Some(batch.clone()))),
            Recovered::AcceptedWithoutBatch(vote),
            Recovered::Whole(Record::Prepared(certificate, group.vote(1, commit(0, sequence, batch.digest())))),
        ] {
            assert_eq!(votes(record, stable), is_possible, "slot {sequence}");
        }
    }
}

fn view_change(outputs: &[Output]) -> ViewChange {
    let records = appended(outputs).into_iter();
    let mut contents = records.filter_map(|record| match record {
        Record::ViewChange(_, _, signed) => Some(decode(signed.body.bytes()).expect("its own encoding")),
        _ => None,
    });
    contents.next().expect("a view change was recorded")
}

/// "a vote of which either copy is whole counts as cast; a batch that is damaged is fetched" (§9)
#[test]
fn a_vote_whose_batch_is_damaged_counts_as_cast_and_the_batch_is_fetched_once_decided() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let batch = group.batch(0);
    backup.hear(0, group.pre_prepare(0, 0, 1, &batch));
    let mut again = restart_damaged(&backup, |record| match record {
        Record::Accepted(vote, Some(_)) => Recovered::AcceptedWithoutBatch(*vote),
        other => Recovered::Whole(other.clone()),
    });
    again.outputs();
    assert_eq!(appended(&again.hear(0, group.pre_prepare(0, 0, 1, &group.batch(1)))), []);
    let mut outputs = again.hear_all([0, 2, 3].map(|id| (id, group.commit(id, 0, 1, batch.digest()))));
    assert_eq!(executed(&outputs), []);
    outputs.extend(again.pass_with_primary_alive(100));
    let fetch = quorate_protocol::message::Fetch::Batch { sequence: slot(1), digest: batch.digest() };
    assert!(said(&outputs).contains(&Message::Fetch(fetch)));
    let fetched = quorate_protocol::message::FetchedBatch { sequence: slot(1), batch: batch.body().clone().into() };
    assert_eq!(executed(&again.hear(0, Message::Batch(fetched))), [1]);
}

/// "makes its `ViewChange` durable before sending it, and sends it again byte for byte" (§7.1): after a crash too.
#[test]
fn a_replica_that_had_left_its_view_asks_again_with_the_very_message() {
    let mut backup = Subject::of_four(2);
    backup.leave();
    let sent = said(&backup.sync());
    let mut again = backup.restart();
    assert_eq!(appended(&again.outputs()), [], "nothing is signed anew");
    assert_eq!(again.replica.mode(), Mode::ViewChange { to: view(1) });
    assert_eq!(resent(&mut again)[..], sent[..]);
}

/// "It takes up the view with the very new view that it entered by; if that is damaged it asks for the next" (§9)
#[test]
fn a_view_whose_new_view_is_whole_is_taken_up() {
    let backup = entered();
    let mut again = backup.restart();
    assert_eq!(wanted(&again.outputs()), []);
    assert_eq!((again.replica.view(), again.replica.mode()), (view(1), Mode::Normal));
    let group = backup.group;
    let outputs = again.clone().hear(1, group.pre_prepare(1, 1, 1, &group.batch(9)));
    assert_eq!(appended(&outputs), [], "the new view's own proposals stand");
    let empty = Batch::empty().digest();
    let mut messages = again.hear(3, group.prepare(3, 1, 1, empty));
    messages.extend(again.hear(1, group.prepare(1, 1, 1, empty)));
    assert!(matches!(appended(&messages)[..], [Record::Prepared(..)]), "its own vote counts");
}

/// The same, with the record damaged: the message may not be rebuilt.
#[test]
fn a_view_whose_new_view_is_lost_is_left_for_the_next() {
    let mut again = restart_damaged(&entered(), |record| match record {
        Record::NewView(epoch, view, _) => Recovered::NewViewLost(*epoch, *view),
        other => Recovered::Whole(other.clone()),
    });
    let outputs = again.outputs();
    assert_eq!(wanted(&outputs), [(2, Suspicion::Restart)]);
    assert_eq!(view_change(&outputs).cast[0].view, view(1), "its vote in the lost view is listed");
}

/// Member 2 starts again, and the new view by which it entered view 1 is lost. Nobody has told it yet what it has said.
fn asking_without_its_new_view() -> Subject {
    let before = entered();
    let damage = |record: &Record| match record {
        Record::NewView(epoch, view, _) => Recovered::NewViewLost(*epoch, *view),
        other => Recovered::Whole(other.clone()),
    };
    let first = (RecordNumber::ZERO, Recovered::Whole(Record::Incarnation(Incarnation::ZERO)));
    let records = before.records.iter().map(|(number, record)| (*number, damage(record)));
    let records = core::iter::once(first).chain(records).collect();
    Subject::start_asking(&before.group, 2, before.now_ms, None, records)
}

/// What lets a replica enter `view`, which begins with nothing: view changes of the others, and the new view.
fn way_into(subject: &Subject, view: u64) -> Vec<(u8, Message)> {
    let group = &subject.group;
    let rests_on: Vec<_> = [0, 1, 3].map(|id| (id, group.empty_view_change(id, view))).into();
    let named: Vec<_> = rests_on.iter().map(|(id, signed)| (*id, signed)).collect();
    let primary = u8::try_from(view % 4).expect("small");
    let new_view = group.new_view(primary, view, &named, &[]);
    let changes = rests_on.iter().map(|(id, signed)| (*id, Message::ViewChange(signed.clone())));
    changes.chain([(primary, Message::NewView(new_view))]).collect()
}

/// "the lost one it enters by no other new view" (§9), while it asks what it has said either.
#[test]
fn a_view_whose_new_view_is_lost_is_not_entered_again() {
    let mut again = asking_without_its_new_view();
    let way = way_into(&again, 1);
    let outputs = again.hear_all(way);
    assert_eq!(appended(&outputs), []);
    assert_ne!((again.replica.view(), again.replica.mode()), (view(1), Mode::Normal));
}

/// "unless a later view has begun by then" (§9): it has left the lost one, and asks for nothing more.
#[test]
fn who_enters_a_later_view_than_the_lost_one_stays_in_it() {
    let mut again = asking_without_its_new_view();
    let way = way_into(&again, 3);
    again.hear_all(way);
    assert_eq!((again.replica.view(), again.replica.mode()), (view(3), Mode::Normal));
    let nothing = again.group.nothing_said();
    let outputs = again.hear_all([0, 1].map(|id| (id, nothing.clone())));
    assert_eq!(again.replica.not_voting(), None);
    assert_eq!(wanted(&outputs), []);
    let batch = again.group.batch(0);
    let proposal = again.group.pre_prepare(3, 3, 1, &batch);
    assert!(matches!(appended(&again.hear(3, proposal))[..], [Record::Accepted(..)]), "it votes there");
}

/// The same, of a view change that may have been sent.
#[test]
fn a_replica_whose_view_change_is_lost_asks_for_the_view_after_it() {
    let mut backup = Subject::of_four(2);
    backup.leave();
    let mut again = restart_damaged(&backup, |record| match record {
        Record::ViewChange(epoch, view, _) => Recovered::ViewChangeLost(*epoch, *view),
        other => Recovered::Whole(other.clone()),
    });
    assert_eq!(wanted(&again.outputs()), [(2, Suspicion::Restart)]);
}

/// Member 2 in view 1, which begins with one empty batch.
fn entered() -> Subject {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let empty = Batch::empty().digest();
    let mut rests_on: Vec<_> = [0, 1].map(|id| (id, group.empty_view_change(id, 1))).into();
    rests_on.push((3, group.view_change(3, 1, None, vec![group.prepared(0, 1, empty, &[0, 1, 3])])));
    backup.hear_all(rests_on.iter().map(|(id, signed)| (*id, Message::ViewChange(signed.clone()))));
    let named: Vec<_> = rests_on.iter().map(|(id, signed)| (*id, signed)).collect();
    backup.hear(1, Message::NewView(group.new_view(1, 1, &named, &[(1, empty)])));
    assert_eq!(backup.replica.view(), view(1));
    backup
}

/// "no replica, crashes included, signs two statements" (§2.6): a primary proposes above what it proposed.
#[test]
fn a_primary_that_starts_again_proposes_above_its_own_proposals() {
    let mut primary = Subject::of_four(0);
    let group = primary.group.clone();
    for index in [0, 1] {
        primary.ask(group.opening(crate::support::client(index), 1));
    }
    let mut again = primary.restart();
    again.outputs();
    let outputs = again.ask(group.opening(crate::support::client(2), 1));
    let [Record::Accepted(vote, Some(_))] = &appended(&outputs)[..] else { panic!("{outputs:?}") };
    assert_eq!(vote.statement.sequence, slot(3));
}

/// §2.6 as a whole: at every point of a run, a crash and a start with any durable prefix contradict nothing that was said.
#[test]
fn whatever_prefix_of_the_log_survives_nothing_said_before_is_contradicted() {
    let group = Group::of_four();
    let (first, second) = (group.batch(0), group.batch(1));
    let mut backup = Subject::new(&group, 1);
    backup.hear(0, group.pre_prepare(0, 0, 1, &first));
    backup.hear_all([2, 3].map(|id| (id, group.prepare(id, 0, 1, first.digest()))));
    backup.hear(0, group.pre_prepare(0, 0, 2, &second));
    backup.hear_all([0, 2, 3].map(|id| (id, group.commit(id, 0, 1, first.digest()))));
    backup.leave();
    for (durable, _) in backup.records.clone() {
        let mut again = backup.restart_with(durable);
        let mut outputs = again.outputs();
        // The primary now tries other batches, and everyone votes for them.
        for (sequence, index) in [(1, 8), (2, 9)] {
            let other = group.batch(index);
            outputs.extend(again.hear(0, group.pre_prepare(0, 0, sequence, &other)));
        }
        outputs.extend(again.sync());
        let durable_votes = backup.records.iter().filter(|(number, _)| *number <= durable);
        for (_, record) in durable_votes {
            let Record::Accepted(held, _) = record else { continue };
            let conflicts = appended(&outputs).into_iter().any(|record| match record {
                Record::Accepted(vote, _) => {
                    let (a, b) = (vote.statement, held.statement);
                    (a.view, a.sequence) == (b.view, b.sequence) && a.digest != b.digest
                }
                _ => false,
            });
            assert!(!conflicts, "after record {durable}");
        }
    }
}

/// "how far each slot after both is" (§9): what a restarted replica says of itself is what it has.
#[test]
fn the_first_status_after_a_start_says_what_the_log_holds() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let batch = group.batch(0);
    backup.hear(0, group.pre_prepare(0, 0, 1, &batch));
    backup.hear_all([2, 3].map(|id| (id, group.prepare(id, 0, 1, batch.digest()))));
    backup.hear(0, group.pre_prepare(0, 0, 2, &group.batch(1)));
    let mut again = backup.restart();
    again.outputs();
    let status = again.status.clone().expect("sent at once");
    assert_eq!(status.slots[..], [Progress::Prepared, Progress::PrePrepared]);
}
