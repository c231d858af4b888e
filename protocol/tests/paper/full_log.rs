//! §9: a log without room.

use quorate_protocol::configuration::Parameters;
use quorate_protocol::message::{FetchedBatch, Message};
use quorate_protocol::number::{RecordNumber, Session};
use quorate_protocol::output::Suspicion;
use quorate_protocol::record::Record;
use quorate_protocol::refusal::Refusal;
use quorate_protocol::replica::Mode;
use quorate_protocol::{Input, Output};

use crate::support::subject::{Subject, appended, executed, said, wanted};
use crate::support::{Group, client, digest, prepare, slot, small, view};

/// A backup whose log has no room.
fn full() -> Subject {
    let mut backup = Subject::of_four(1);
    assert_eq!(backup.step(Input::LogFull), []);
    backup
}

/// Decides slots `first` to `last` without the backup's vote, and takes the checkpoints between.
fn follow(backup: &mut Subject, first: u64, last: u64) -> Vec<Output> {
    let group = backup.group.clone();
    let mut outputs = Vec::new();
    for sequence in first..=last {
        outputs.extend(backup.decide(0, sequence, &group.batch(u8::try_from(sequence).expect("small"))));
        outputs.extend(backup.settle());
    }
    outputs
}

fn make_stable(backup: &mut Subject, sequence: u64) -> Vec<Output> {
    let root = backup.replica.state_root_at(slot(sequence)).expect("a checkpoint was taken");
    let stable = backup.group.stable(sequence, root, &[0, 2, 3]);
    backup.hear(2, Message::Stable(stable))
}

fn cuts(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::Cut { .. })).count()
}

/// "Without room for a vote a replica gives none: it refuses proposals ... and it executes what the others decide." (§9)
#[test]
fn a_replica_without_room_votes_for_nothing_and_executes_what_others_decide() {
    let mut backup = full();
    let outputs = follow(&mut backup, 1, 3);
    assert_eq!(appended(&outputs), []);
    assert_eq!(said(&outputs), []);
    assert_eq!(executed(&outputs), [1, 2, 3]);
    assert_eq!(backup.replica.refusals()[&Refusal::LogFull], 3);
}

/// "Nothing is appended then but what a cut says again, and that once until it is durable" (§9)
#[test]
fn what_is_appended_without_room_is_bounded_however_long_it_lasts() {
    let mut backup = full();
    let mut outputs = follow(&mut backup, 1, 4);
    outputs.extend(make_stable(&mut backup, 4));
    assert_eq!((appended(&outputs).len(), cuts(&outputs)), (2, 1), "the life of the log, and the epoch");
    // Nothing becomes durable from here on.
    let waiting = RecordNumber::ZERO;
    for last in [8, 12, 16] {
        let group = backup.group.clone();
        for sequence in last - 3..=last {
            let batch = group.batch(u8::try_from(sequence).expect("small"));
            backup.hear(0, group.pre_prepare(0, 0, sequence, &batch));
            for id in [0, 2, 3] {
                backup.hear(id, group.commit(id, 0, sequence, batch.digest()));
            }
            backup.execute();
        }
        backup.take_checkpoint();
        backup.checkpoint_durable();
        backup.step(Input::Durable(waiting));
        let outputs = make_stable(&mut backup, last);
        assert_eq!((appended(&outputs), cuts(&outputs)), (vec![], 0), "slot {last}");
    }
    assert_eq!(backup.replica.stable(), slot(16));
}

/// The votes of a replica that has room again bind it, also above the watermarks that its log knew before.
#[test]
fn a_vote_cast_when_there_is_room_again_is_found_by_a_start() {
    let mut backup = full();
    let group = backup.group.clone();
    for sequence in [4, 8] {
        backup.hear(2, Message::Stable(group.stable(sequence, digest(9), &[0, 2, 3])));
    }
    let outputs = backup.step(Input::LogHasRoom);
    assert!(matches!(appended(&outputs)[..], [Record::Stable(_)]), "{outputs:?}");
    let high = 8 + group.0.parameters().window;
    backup.hear(0, group.pre_prepare(0, 0, high, &group.batch(1)));
    let mut again = backup.restart();
    again.outputs();
    again.hear(0, group.pre_prepare(0, 0, high, &group.batch(2)));
    assert_eq!(again.replica.refusals().get(&Refusal::Conflict), Some(&1));
}

/// "With room again it does what it left undone." (§9)
#[test]
fn what_waited_for_room_is_voted_on_when_there_is_some() {
    let mut backup = full();
    let group = backup.group.clone();
    let batch = group.batch(1);
    let messages = [(0, group.pre_prepare(0, 0, 1, &batch))];
    let prepares = [2, 3].map(|id| (id, group.prepare(id, 0, 1, batch.digest())));
    assert_eq!(backup.hear_all(messages.into_iter().chain(prepares)), []);
    let outputs = backup.step(Input::LogHasRoom);
    assert!(matches!(appended(&outputs)[..], [Record::Prepared(..)]), "{outputs:?}");
    assert_eq!(said(&backup.sync()), [group.commit(1, 0, 1, batch.digest())]);
}

/// "proposes nothing" (§9): the others see its silence.
#[test]
fn a_primary_without_room_proposes_nothing_until_there_is_some() {
    let mut primary = Subject::of_four(0);
    primary.step(Input::LogFull);
    let request = primary.group.opening(client(0), 1);
    assert_eq!(primary.ask(request), []);
    assert_eq!(appended(&primary.step(Input::LogHasRoom)).len(), 1);
}

/// "asks for no view and enters none" (§9)
#[test]
fn a_replica_without_room_leaves_no_view_and_follows_when_there_is_some() {
    let mut backup = full();
    let outputs = backup.leave();
    assert_eq!((appended(&outputs), wanted(&outputs)), (vec![], vec![]));
    assert_eq!(backup.replica.mode(), Mode::Normal);
    let outputs = backup.step(Input::LogHasRoom);
    assert!(matches!(appended(&outputs)[..], [Record::ViewChange(..)]), "{outputs:?}");
    assert_eq!(backup.replica.mode(), Mode::ViewChange { to: view(1) });
}

/// It joins the others when it can: in the view that they ask for by then.
#[test]
fn a_replica_with_room_again_joins_the_others_in_their_view() {
    let mut backup = full();
    let group = backup.group.clone();
    let outputs = backup.hear_all([0, 3].map(|id| (id, Message::ViewChange(group.empty_view_change(id, 5)))));
    assert_eq!((appended(&outputs), wanted(&outputs)), (vec![], vec![]));
    let outputs = backup.step(Input::LogHasRoom);
    assert_eq!(wanted(&outputs), [(5, Suspicion::Joined)]);
}

/// "asks for no view and enters none" (§9): the new view waits, as does a batch that it proposes.
#[test]
fn a_new_view_that_came_without_room_is_entered_when_there_is_some() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let batch = group.batch(0);
    let rests_on = [
        (0, group.empty_view_change(0, 1)),
        (1, group.empty_view_change(1, 1)),
        (3, group.view_change(3, 1, None, vec![group.prepared(0, 1, batch.digest(), &[0, 1, 3])])),
    ];
    let named: Vec<_> = rests_on.iter().map(|(id, signed)| (*id, signed)).collect();
    let new_view = group.new_view(1, 1, &named, &[(1, batch.digest())]);
    backup.step(Input::LogFull);
    backup.hear_all(rests_on.iter().map(|(id, signed)| (*id, Message::ViewChange(signed.clone()))));
    let outputs = backup.hear(1, Message::NewView(new_view));
    assert_eq!((appended(&outputs), backup.replica.view()), (vec![], view(0)));
    let outputs = backup.step(Input::LogHasRoom);
    assert!(appended(&outputs).iter().any(|record| matches!(record, Record::NewView(..))), "{outputs:?}");
    assert_eq!((backup.replica.mode(), backup.replica.view()), (Mode::Normal, view(1)));
    backup.step(Input::LogFull);
    let fetched = FetchedBatch { sequence: slot(1), batch: batch.body().clone().into() };
    assert_eq!(appended(&backup.hear(1, Message::Batch(fetched))), []);
    let vote = group.vote(2, prepare(1, 1, batch.digest()));
    assert_eq!(appended(&backup.step(Input::LogHasRoom)), [Record::Accepted(vote, Some(batch))]);
}

/// The same for the primary of the view: it begins it when there is room.
#[test]
fn a_primary_begins_its_view_when_there_is_room() {
    let mut primary = Subject::of_four(1);
    let group = primary.group.clone();
    primary.leave();
    primary.sync();
    primary.step(Input::LogFull);
    let outputs = primary.hear_all([0, 3].map(|id| (id, Message::ViewChange(group.empty_view_change(id, 1)))));
    assert_eq!((appended(&outputs), primary.replica.view()), (vec![], view(0)));
    let outputs = primary.step(Input::LogHasRoom);
    assert!(matches!(appended(&outputs)[..], [Record::NewView(..)]), "{outputs:?}");
    assert_eq!(primary.replica.view(), view(1));
}

/// Slots `first` to `last` are proposed and decided, and every fourth is stable, while nothing becomes durable here.
fn decide_while_the_disk_stands_still(backup: &mut Subject, first: u64, last: u64) -> Vec<Output> {
    let group = backup.group.clone();
    let mut outputs = Vec::new();
    for sequence in first..=last {
        let batch = group.batch(u8::try_from(sequence).expect("small"));
        outputs.extend(backup.hear(0, group.pre_prepare(0, 0, sequence, &batch)));
        outputs.extend(backup.hear_all([2, 3].map(|id| (id, group.prepare(id, 0, sequence, batch.digest())))));
        outputs.extend(backup.hear_all([0, 2, 3].map(|id| (id, group.commit(id, 0, sequence, batch.digest())))));
        outputs.extend(backup.execute());
        if sequence % 4 == 0 {
            outputs.extend(backup.take_checkpoint());
            outputs.extend(make_stable(backup, sequence));
        }
    }
    outputs
}

/// "The same holds while too much waits for the disk to be durable, until half of it is." (§9)
#[test]
fn a_replica_whose_disk_stands_still_appends_no_more_than_a_bound_and_executes_what_others_decide() {
    let mut backup = Subject::of_four(1);
    let window = backup.group.0.parameters().window;
    let outputs = decide_while_the_disk_stands_still(&mut backup, 1, 100);
    assert_eq!(executed(&outputs), (1..=100).collect::<Vec<u64>>());
    assert_eq!(said(&outputs), []);
    let count = appended(&outputs).len() as u64;
    assert!((4 * window..=5 * window).contains(&count), "{count} records wait");
    assert!(backup.replica.refusals()[&Refusal::LogFull] > 50);
}

/// The same: it votes again, and what it says then a start finds.
#[test]
fn a_replica_whose_disk_goes_on_votes_again_once_half_of_what_waited_is_durable() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    decide_while_the_disk_stands_still(&mut backup, 1, 100);
    let last = backup.records.last().expect("some").0.value();
    let half = 2 * group.0.parameters().window;
    assert_eq!(appended(&backup.step(Input::Durable(RecordNumber::new(last - half - 1)))), []);
    let outputs = backup.step(Input::Durable(RecordNumber::new(last - half)));
    assert!(matches!(appended(&outputs)[..], [Record::Stable(_)]), "{outputs:?}");
    assert_eq!(appended(&backup.hear(0, group.pre_prepare(0, 0, 101, &group.batch(101)))).len(), 1);
    let mut again = backup.restart();
    again.outputs();
    again.hear(0, group.pre_prepare(0, 0, 101, &group.batch(102)));
    assert_eq!(again.replica.refusals().get(&Refusal::Conflict), Some(&1));
}

/// The same, by the bytes of what waits.
#[test]
fn a_few_large_batches_that_wait_for_the_disk_are_enough() {
    let parameters = Parameters { window: 64, batch_bytes_max: 4 << 20, request_bytes_max: 1 << 20, ..small() };
    let group = Group::new(4, parameters);
    let mut backup = Subject::new(&group, 1);
    let operation = "x".repeat(1 << 19);
    let session = Session { sequence: slot(1), index: 0 };
    let requests = (1..8).map(|number| group.request(client(0), session, number, &operation));
    let batch = group.batch_at(0, requests.collect());
    let proposals = (1..=64).map(|sequence| (0, group.pre_prepare(0, 0, sequence, &batch)));
    let bytes = appended(&backup.hear_all(proposals)).len() * batch.body().len();
    assert!((64 << 20..=68 << 20).contains(&bytes), "{bytes} bytes wait");
}
