//! §5: checkpoints and the log.

use quorate_crypto::Digest;
use quorate_protocol::evidence::Evidence;
use quorate_protocol::membership::Membership;
use quorate_protocol::message::{Message, StateRoot};
use quorate_protocol::number::{Epoch, Incarnation, RecordNumber};
use quorate_protocol::output::Notice;
use quorate_protocol::record::Record;
use quorate_protocol::refusal::Refusal;
use quorate_protocol::statement::Checkpoint;
use quorate_protocol::{Input, Output};

use crate::support::state::{application_root, no_leaves, ready, serve};
use crate::support::subject::{Subject, appended, executed, notices, said};
use crate::support::{Group, digest, replica, slot, small};

/// A backup that has executed up to slot `last`, with checkpoints taken, durable and voted for.
fn at_slot(last: u64) -> Subject {
    let mut backup = Subject::of_four(1);
    advance(&mut backup, 1, last);
    backup
}

fn advance(subject: &mut Subject, first: u64, last: u64) {
    for sequence in first..=last {
        let batch = subject.group.batch(u8::try_from(sequence % 100).expect("below 100"));
        subject.decide(0, sequence, &batch);
        subject.settle();
    }
    assert_eq!(subject.replica.executed(), slot(last));
}

pub(crate) fn root(subject: &Subject, sequence: u64) -> Digest {
    subject.replica.state_root_at(slot(sequence)).expect("a checkpoint was taken")
}

fn make_stable(subject: &mut Subject, sequence: u64) -> Vec<Output> {
    let root = root(subject, sequence);
    let group = subject.group.clone();
    [0, 2].into_iter().flat_map(|id| subject.hear(id, group.checkpoint(id, sequence, root))).collect()
}

/// "Every K slots a replica computes the root of its state" (§5): of its state after exactly this slot.
#[test]
fn nothing_beyond_a_checkpoints_slot_executes_before_its_results_are_back() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let outputs: Vec<Output> = (1..=5)
        .flat_map(|sequence| backup.decide(0, sequence, &group.batch(u8::try_from(sequence).expect("small"))))
        .collect();
    assert_eq!(executed(&outputs), [1, 2, 3, 4]);
    for _ in 1..=3 {
        assert_eq!(executed(&backup.execute()), []);
    }
    let outputs = backup.execute();
    let place = |wanted: fn(&Output) -> bool| outputs.iter().position(wanted).expect("it is there");
    let taken = place(|output| matches!(output, Output::TakeCheckpoint { sequence, .. } if *sequence == slot(4)));
    let next = place(|output| matches!(output, Output::Execute(execution) if execution.sequence == slot(5)));
    assert!(taken < next, "the checkpoint is taken before any other slot executes");
}

/// "It makes that state durable, then votes." (§5)
#[test]
fn a_checkpoint_is_voted_for_when_it_is_taken_and_durable() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    for sequence in 1..=4 {
        backup.decide(0, sequence, &group.batch(0));
        backup.execute();
    }
    assert_eq!(said(&backup.take_checkpoint()), []);
    let outputs = backup.checkpoint_durable();
    assert_eq!(outputs, [Output::Broadcast(group.checkpoint(1, 4, root(&backup, 4)))]);
    assert_eq!(backup.checkpoint_durable(), [], "once is enough");
}

/// The same, should slots above it have executed while its root was computed: what is voted for is the state after its slot.
#[test]
fn a_root_may_come_after_the_results_of_later_slots() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    for sequence in 1..=7 {
        backup.decide(0, sequence, &group.batch(u8::try_from(sequence).expect("small")));
        backup.execute();
    }
    let early = at_slot(4);
    assert_eq!(said(&backup.take_checkpoint()), []);
    assert_eq!(root(&backup, 4), root(&early, 4));
    let outputs = backup.checkpoint_durable();
    assert_eq!(said(&outputs), [group.checkpoint(1, 4, root(&early, 4))]);
}

/// The same for the next one, though the one before is not stable yet.
#[test]
fn a_checkpoint_is_voted_for_while_the_one_before_waits_for_others() {
    let backup = at_slot(8);
    let own = backup.replica.state_root_at(slot(8)).expect("taken");
    let mut backup = backup;
    let group = backup.group.clone();
    let status = crate::support::subject::idle_status(0);
    backup.hear(0, Message::Status(status.clone()));
    let sent_again = said(&backup.hear(0, Message::Status(status)));
    assert!(sent_again.contains(&group.checkpoint(1, 8, own)), "{sent_again:?}");
}

/// "With q equal votes" (§5), whichever came before a lower checkpoint was stable.
#[test]
fn votes_for_a_higher_checkpoint_outlast_a_lower_one_that_becomes_stable() {
    let group = Group::of_four();
    let mut behind = Subject::new(&group, 1);
    behind.hear(0, group.checkpoint(0, 8, digest(8)));
    behind.hear(2, group.checkpoint(2, 8, digest(8)));
    behind.hear(0, Message::Stable(group.stable(4, digest(4), &[0, 2, 3])));
    assert_eq!(behind.replica.stable(), slot(4));
    behind.hear(3, group.checkpoint(3, 8, digest(8)));
    assert_eq!(behind.replica.stable(), slot(8));
}

/// The same, should the state be durable before its root is known.
#[test]
fn a_durable_checkpoint_without_a_root_is_not_voted_for() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    for sequence in 1..=4 {
        backup.decide(0, sequence, &group.batch(0));
        backup.execute();
    }
    assert_eq!(backup.step(Input::CheckpointDurable { sequence: slot(4) }), []);
    assert_eq!(said(&backup.take_checkpoint()), [group.checkpoint(1, 4, root(&backup, 4))]);
}

/// "Every K slots a replica computes the root of its state: the application's Merkle root, and a digest of the sessions
/// with their windows and replies, the configuration, the time of the last slot, and the epoch with its incarnations." (§5)
#[test]
fn the_root_covers_sessions_configuration_and_time() {
    let root_of = |group: &Group, stamp_ms: i64, number: u64| {
        let mut backup = Subject::new(group, 1);
        for sequence in 1..=4 {
            let request = group.opening(crate::support::client(0), number);
            backup.decide(0, sequence, &group.batch_at(stamp_ms, vec![request]));
            backup.settle();
        }
        root(&backup, 4)
    };
    let group = Group::of_four();
    let base = root_of(&group, 0, 1);
    assert_eq!(root_of(&group, 0, 1), base);
    assert_ne!(root_of(&group, 1, 1), base, "the time");
    assert_ne!(root_of(&group, 0, 2), base, "the sessions");
    let parameters = quorate_protocol::configuration::Parameters { client_timeout_ms: 251, ..small() };
    assert_ne!(root_of(&Group::new(4, parameters), 0, 1), base, "the configuration");
}

/// "With q equal votes the checkpoint is **stable**" (§5): not with w.
#[test]
fn a_checkpoint_is_stable_by_a_quorum_of_equal_votes_and_not_by_fewer() {
    for (size, quorum) in [(4, 3), (7, 5)] {
        let group = Group::new(size, small());
        let mut behind = Subject::new(&group, 1);
        for id in (0..size).filter(|id| *id != 1).take(quorum - 1) {
            behind.hear(id, group.checkpoint(id, 4, digest(4)));
            assert_eq!(behind.hear(id, group.checkpoint(id, 4, digest(4))), []);
            assert_eq!(behind.replica.stable(), slot(0));
        }
        let other = size - 1;
        if size > 4 {
            behind.hear(other - 1, group.checkpoint(other - 1, 4, digest(5)));
            assert_eq!(behind.replica.stable(), slot(0), "another root does not count");
        }
        let outputs = behind.hear(other, group.checkpoint(other, 4, digest(4)));
        assert_eq!(notices(&outputs), [Notice::Stable { sequence: slot(4) }], "n = {size}");
    }
}

/// "the low watermark moves up, at whatever slot the replica itself is" (§5)
#[test]
fn the_low_watermark_moves_up_though_the_replica_has_yet_to_get_there() {
    let mut behind = Subject::of_four(1);
    let group = behind.group.clone();
    let certificate = group.stable(4, digest(4), &[0, 2, 3]);
    let outputs = behind.hear(2, Message::Stable(certificate.clone()));
    assert_eq!(
        outputs,
        [
            Output::Append { number: RecordNumber::new(1), record: Record::Stable(certificate.clone()) },
            Output::Notice(Notice::Stable { sequence: slot(4) }),
        ]
    );
    assert_eq!((behind.replica.stable(), behind.replica.executed()), (slot(4), slot(0)));
    assert_eq!(behind.hear(3, Message::Stable(certificate)), []);
    assert_eq!(behind.replica.refusals()[&Refusal::Outdated], 1);
}

/// "Slots below that it has yet to execute stay for as long as they lie within a window" (§5)
#[test]
fn slots_below_the_low_watermark_that_have_yet_to_execute_stay() {
    let mut behind = Subject::of_four(1);
    let group = behind.group.clone();
    behind.decide(0, 2, &group.batch(2));
    behind.hear(2, Message::Stable(group.stable(4, digest(4), &[0, 2, 3])));
    assert_eq!(executed(&behind.decide(0, 1, &group.batch(1))), [], "no vote counts below the low watermark");
    let decided = |sequence: u64, batch: &quorate_protocol::batch::Batch| {
        let certificate = group.committed(0, sequence, batch.digest(), &[0, 2, 3]);
        Message::Decided(quorate_protocol::message::Decided { certificate, batch: batch.body().clone().into() })
    };
    let outputs = behind.hear(2, decided(1, &group.batch(1)));
    assert_eq!(executed(&outputs), [1, 2]);
}

/// "what is below leaves the log" (§5)
#[test]
fn what_is_executed_below_the_low_watermark_leaves_the_log() {
    let mut backup = at_slot(6);
    assert_eq!(backup.replica.log_length(), 6);
    make_stable(&mut backup, 4);
    assert_eq!(backup.replica.log_length(), 2);
    let group = backup.group.clone();
    for message in [group.prepare(2, 0, 4, digest(1)), group.commit(2, 0, 4, digest(1))] {
        assert_eq!(backup.hear(2, message), []);
    }
    assert_eq!(backup.hear(2, group.checkpoint(2, 4, digest(1))), []);
    assert_eq!(backup.replica.refusals()[&Refusal::OutsideWatermarks], 3);
}

/// "decided batches just below are remembered, bounded in bytes, for peers that lag a little" (§5)
#[test]
fn decided_slots_below_the_low_watermark_are_still_handed_out() {
    let mut backup = at_slot(6);
    make_stable(&mut backup, 4);
    backup.pass(100);
    let fetch = quorate_protocol::message::Fetch::Decided { after: slot(0) };
    let outputs = backup.hear(3, Message::Fetch(fetch));
    let slots: Vec<u64> = said(&outputs)
        .iter()
        .filter_map(|message| match message {
            Message::Decided(decided) => Some(decided.certificate.statement.sequence.value()),
            _ => None,
        })
        .collect();
    assert_eq!(slots, [1, 2, 3, 4, 5, 6]);
}

/// "A replica's own vote counts, for itself too, only when it is durable and sent." (§3): one that became durable and was
/// cut before it was said would be said without being held.
#[test]
fn a_vote_whose_record_was_cut_is_not_said() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let proposals = (1..=8).map(|sequence| (0, group.pre_prepare(0, 0, sequence, &group.batch(1))));
    assert_eq!(backup.hear_all(proposals.collect::<Vec<_>>()).len(), 8);
    let outputs = backup.hear(2, Message::Stable(group.stable(12, digest(7), &[0, 2, 3])));
    assert!(outputs.iter().any(|output| matches!(output, Output::Cut { .. })), "a window below: {outputs:?}");
    let slots: Vec<u64> = said(&backup.sync())
        .iter()
        .filter_map(|message| match message {
            Message::Prepare(vote) => Some(vote.statement.sequence.value()),
            _ => None,
        })
        .collect();
    assert_eq!(slots, [5, 6, 7, 8]);
}

/// "The log on disk is cut up to the stable checkpoint, as far as the own durable state has got. ... The incarnation, the
/// epoch with the latest stable certificate, and the records of the view are written again above the cut." (§5)
#[test]
fn the_log_is_cut_only_when_the_own_state_is_durable() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    for sequence in 1..=5 {
        backup.decide(0, sequence, &group.batch(u8::try_from(sequence).expect("small")));
        if sequence <= 4 {
            backup.execute();
        }
    }
    let is_cut = |output: &Output| matches!(output, Output::Cut { .. });
    let first_of_five = backup.records.iter().find_map(|(number, record)| match record {
        Record::Accepted(vote, _) if vote.statement.sequence == slot(5) => Some(*number),
        _ => None,
    });
    backup.take_checkpoint();
    let root = root(&backup, 4);
    for id in [0, 2, 3] {
        assert!(!backup.hear(id, group.checkpoint(id, 4, root)).iter().any(is_cut));
    }
    assert_eq!(backup.replica.stable(), slot(4));
    let certificate = group.stable(4, root, &[0, 2, 3]);
    let outputs = backup.checkpoint_durable();
    let epoch = Record::Epoch(Membership::first(4), certificate.clone());
    assert_eq!(appended(&outputs), [Record::Incarnation(Incarnation::ZERO), epoch]);
    let before = first_of_five.expect("slot 5 was accepted");
    assert_eq!(outputs.iter().filter(|output| is_cut(output)).collect::<Vec<_>>(), [&Output::Cut { before }]);
    let state = StateRoot { application: application_root(slot(4)), protocol: protocol_digest(&backup) };
    assert!(outputs.contains(&Output::CheckpointStable { certificate, root: state }));
}

/// Where the records of slot `sequence` begin.
fn first_record_of(subject: &Subject, sequence: u64) -> RecordNumber {
    let of_slot = subject.records.iter().find_map(|(number, record)| match record {
        Record::Accepted(vote, _) if vote.statement.sequence == slot(sequence) => Some(*number),
        _ => None,
    });
    of_slot.expect("the slot was accepted")
}

fn cuts(outputs: &[Output]) -> Vec<RecordNumber> {
    let cuts = outputs.iter().filter_map(|output| match output {
        Output::Cut { before } => Some(*before),
        _ => None,
    });
    cuts.collect()
}

/// "The log on disk is cut up to the stable checkpoint, as far as the own durable state has got." (§5)
#[test]
fn a_replica_that_lags_cuts_its_log_below_its_own_durable_state_and_starts_from_the_rest() {
    let mut behind = at_slot(6);
    let group = behind.group.clone();
    let before = first_record_of(&behind, 5);
    assert_eq!(cuts(&behind.hear(2, Message::Stable(group.stable(8, digest(8), &[0, 2, 3])))), [before]);
    behind.records.retain(|(number, _)| *number >= before);
    let mut again = behind.restart();
    assert_eq!(executed(&again.outputs()), [5, 6]);
    assert_eq!(again.replica.stable(), slot(8));
}

/// "The incarnation, the epoch with the latest stable certificate, and the records of the view are written again above the
/// cut." (§5)
#[test]
fn what_a_cut_leaves_holds_the_view() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let rests_on = [0, 1, 3].map(|id| (id, group.empty_view_change(id, 1)));
    backup.hear_all(rests_on.iter().map(|(id, signed)| (*id, Message::ViewChange(signed.clone()))));
    let named = [0, 1, 2].map(|place| (rests_on[place].0, &rests_on[place].1));
    backup.hear(1, Message::NewView(group.new_view(1, 1, &named, &[])));
    for sequence in 1..=4 {
        backup.decide(1, sequence, &group.batch(u8::try_from(sequence).expect("small")));
        backup.settle();
    }
    let root = root(&backup, 4);
    let outputs: Vec<Output> =
        [0, 1, 3].into_iter().flat_map(|id| backup.hear(id, group.checkpoint(id, 4, root))).collect();
    let [before] = cuts(&outputs)[..] else { panic!("{outputs:?}") };
    backup.records.retain(|(number, _)| *number >= before);
    let again = backup.restart();
    assert_eq!((again.replica.view(), again.replica.stable()), (crate::support::view(1), slot(4)));
}

/// "Slots a window below it are cut in any case" (§5)
#[test]
fn a_replica_that_falls_further_and_further_behind_keeps_a_log_of_two_windows_at_most() {
    let mut behind = at_slot(6);
    let group = behind.group.clone();
    behind.hear(2, Message::Stable(group.stable(8, digest(8), &[0, 2, 3])));
    behind.decide(0, 12, &group.batch(12));
    behind.decide(0, 13, &group.batch(13));
    let before = first_record_of(&behind, 13);
    let outputs = behind.hear(2, Message::Stable(group.stable(20, digest(20), &[0, 2, 3])));
    assert_eq!(cuts(&outputs), [before]);
}

/// The second part of the root, found by the first part and the whole.
fn protocol_digest(subject: &Subject) -> Digest {
    let reopened = subject.restart();
    assert_eq!(reopened.replica.state_root_at(slot(4)), subject.replica.state_root_at(slot(4)));
    let mut outputs = Subject::restart(subject).outputs().into_iter();
    let root = outputs.find_map(|output| match output {
        Output::CheckpointStable { root, .. } => Some(root),
        _ => None,
    });
    root.expect("a restart announces the stable checkpoint").protocol
}

/// "A replica whose own root differs from the stable one has diverged: it says so, stops executing" (§5)
#[test]
fn a_replica_whose_root_differs_from_the_stable_one_stops_executing() {
    let mut backup = at_slot(4);
    let group = backup.group.clone();
    let own = root(&backup, 4);
    let outputs = backup.hear(2, Message::Stable(group.stable(4, digest(7), &[0, 2, 3])));
    let diverged = Notice::Diverged { sequence: slot(4), certified: digest(7), own };
    assert!(notices(&outputs).contains(&diverged));
    assert!(backup.replica.is_diverged());
    assert_eq!(executed(&backup.decide(0, 5, &group.batch(5))), []);
}

/// The same, where the stable certificate was there first.
#[test]
fn a_replica_that_reaches_a_stable_checkpoint_with_another_root_stops_executing() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    backup.hear(2, Message::Stable(group.stable(4, digest(7), &[0, 2, 3])));
    let decided = |sequence: u64| {
        let batch = group.batch(u8::try_from(sequence).expect("small"));
        let certificate = group.committed(0, sequence, batch.digest(), &[0, 2, 3]);
        Message::Decided(quorate_protocol::message::Decided { certificate, batch: batch.body().clone().into() })
    };
    for sequence in 1..=5 {
        backup.hear(2, decided(sequence));
    }
    let outputs = backup.settle();
    assert!(notices(&outputs).iter().any(|notice| matches!(notice, Notice::Diverged { .. })));
    assert!(backup.replica.is_diverged());
}

/// "has diverged: it says so, stops executing, and takes the state from others" (§5): after a restart too.
#[test]
fn a_diverged_replica_that_starts_again_does_not_execute() {
    let mut backup = at_slot(4);
    let group = backup.group.clone();
    backup.hear(2, Message::Stable(group.stable(4, digest(7), &[0, 2, 3])));
    backup.settle();
    let mut again = backup.restart();
    again.outputs();
    assert_eq!(executed(&again.decide(0, 5, &group.batch(5))), []);
    assert!(again.replica.is_diverged());
}

/// "A durable state that is damaged is replaced as one that diverged, while the replica goes on voting." (§9) What follows it
/// executes again.
#[test]
fn a_damaged_state_is_replaced_by_that_of_the_others_and_execution_goes_on() {
    let group = Group::of_four();
    let mut sound = Subject::new(&group, 1);
    advance(&mut sound, 1, 4);
    let mut backup = Subject::new(&group, 1);
    advance(&mut backup, 1, 4);
    let certified = root(&backup, 4);
    backup.hear(2, Message::Stable(group.stable(4, certified, &[0, 2, 3])));
    backup.settle();
    let outputs = backup.step(Input::StateDamaged);
    assert_eq!(notices(&outputs), [Notice::StateDamaged { sequence: slot(4) }]);
    assert!(backup.replica.is_diverged());
    assert_eq!(executed(&backup.decide(0, 5, &group.batch(5))), [], "not upon what is damaged");
    assert_eq!(backup.step(Input::StateDamaged), [], "once is enough");
    let outputs = install(&mut backup, &sound);
    assert!(!backup.replica.is_diverged());
    assert_eq!(executed(&outputs), [5]);
}

/// "no replica, crashes included, signs two statements for the same kind, epoch, view and slot" (§2.6)
#[test]
fn a_replica_that_diverged_signs_no_second_root_after_it_took_the_state_of_others() {
    let group = Group::of_four();
    let mut sound = Subject::new(&group, 1);
    advance(&mut sound, 1, 4);
    let certified = root(&sound, 4);
    let mut diverged = Subject::new(&group, 1);
    for sequence in 1..=4 {
        let batch = group.batch(u8::try_from(sequence).expect("small"));
        diverged.decide(0, sequence, &batch);
        diverged.execute();
    }
    let wrong = Input::CheckpointTaken { sequence: slot(4), application_root: digest(66) };
    diverged.checkpoints.clear();
    diverged.step(wrong);
    assert_eq!(said(&diverged.step(Input::CheckpointDurable { sequence: slot(4) })).len(), 1, "it votes for its root");
    diverged.hear(2, Message::Stable(group.stable(4, certified, &[0, 2, 3])));
    assert!(diverged.replica.is_diverged());
    let outputs = install(&mut diverged, &sound);
    assert!(!diverged.replica.is_diverged());
    assert!(!said(&outputs).contains(&group.checkpoint(1, 4, certified)));
}

/// Takes the state of `source` at slot 4, which is stable, as if it were member 2's.
pub(crate) fn install(subject: &mut Subject, source: &Subject) -> Vec<Output> {
    let mut status = crate::support::subject::idle_status(0);
    status.stable = slot(4);
    status.executed = slot(4);
    status.decided_from = slot(5);
    let mut outputs = subject.hear(2, Message::Status(status));
    outputs.extend(subject.pass_with_primary_alive(2000));
    assert_eq!(subject.replica.transfer_target(), Some(slot(4)));
    assert!(outputs.contains(&Output::StageBegin { afresh: false }), "{outputs:?}");
    outputs.extend(subject.step(ready(no_leaves())));
    let asked = outputs.clone();
    outputs.extend(serve(subject, &asked, &source.protocol()));
    assert!(outputs.contains(&Output::StageEnd { sequence: slot(4), protocol: source.protocol() }), "{outputs:?}");
    let staged = Input::StateStaged { sequence: slot(4), application_root: Some(application_root(slot(4))) };
    outputs.extend(subject.step(staged));
    assert_eq!(outputs.last(), Some(&Output::StageInstall));
    outputs.extend(subject.step(Input::StateInstalled { sequence: slot(4) }));
    outputs
}

/// "`Checkpoint`: the two highest a member" (§3, table)
#[test]
fn the_two_highest_checkpoint_votes_of_a_member_are_kept() {
    let mut behind = Subject::of_four(1);
    let group = behind.group.clone();
    for id in [0, 2] {
        for sequence in [4, 8, 12] {
            behind.hear(id, group.checkpoint(id, sequence, digest(1)));
        }
    }
    behind.hear(3, group.checkpoint(3, 4, digest(1)));
    assert_eq!(behind.replica.stable(), slot(0), "the votes for slot 4 gave way");
    behind.hear(3, group.checkpoint(3, 8, digest(1)));
    assert_eq!(behind.replica.stable(), slot(8));
}

/// "`Checkpoint` (my state after this slot has this root)" (§3): two roots of one slot prove their signer faulty.
#[test]
fn two_roots_of_one_slot_are_evidence() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let votes =
        [1, 2].map(|byte| group.vote(3, Checkpoint { epoch: Epoch::ZERO, sequence: slot(4), root: digest(byte) }));
    backup.hear(3, Message::Checkpoint(votes[0]));
    let outputs = backup.hear(3, Message::Checkpoint(votes[1]));
    let evidence = Evidence::ConflictingCheckpoints(votes[0], votes[1]);
    assert_eq!(evidence.accused(), replica(3));
    assert_eq!(outputs, [Output::Evidence(evidence.into())]);
}

/// "Every K slots" (§5): a vote for another slot is about nothing.
#[test]
fn a_checkpoint_vote_for_a_slot_between_is_refused() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    assert_eq!(backup.hear(3, group.checkpoint(3, 5, digest(1))), []);
    assert_eq!(backup.replica.refusals()[&Refusal::Nothing], 1);
}
