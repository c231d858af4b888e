//! §8, fast reads: when a replica answers from its executed state.

use quorate_protocol::application::{Application as _, READ_BYTES_MAX, Surroundings, read};
use quorate_protocol::configuration::Parameters;
use quorate_protocol::kv::{Operation, Store};
use quorate_protocol::message::{Entry, Message, Statements, Status};
use quorate_protocol::number::Epoch;
use quorate_protocol::time::WallTime;
use quorate_protocol::{Input, Machine as _, Output};

use crate::checkpoints::install;
use crate::support::subject::{Subject, idle_status, now};
use crate::support::{Group, TOKEN, client, digest, slot, small};

/// Four members that answer reads without ordering them.
fn reading() -> Group {
    Group::new(4, Parameters { fast_reads: true, ..small() })
}

/// Backup 1 with slots 1 and 2 executed, and slot 3 prepared.
fn with_three_slots() -> Subject {
    let group = reading();
    let mut backup = Subject::new(&group, 1);
    for sequence in 1..=2 {
        backup.decide(0, sequence, &group.batch(u8::try_from(sequence).expect("small")));
        backup.execute();
    }
    let batch = group.batch(3);
    backup.hear(0, group.pre_prepare(0, 0, 3, &batch));
    backup.hear(2, group.prepare(2, 0, 3, batch.digest()));
    backup.hear(3, group.prepare(3, 0, 3, batch.digest()));
    backup.sync();
    assert_eq!(backup.replica.executed(), slot(2));
    backup
}

/// The same started again, of which nothing executed is left: it executed after its last checkpoint.
fn started_again() -> Subject {
    let mut again = with_three_slots().restart_asking();
    again.outputs();
    assert_eq!((again.replica.executed(), again.replica.reads_in()), (slot(0), None));
    again
}

/// `from` tells how far it came.
fn tell(subject: &mut Subject, from: u8, reached: u64) {
    let told = Statements { reached: slot(reached), ..subject.group.no_statements() };
    subject.hear(from, Message::Statements(told));
}

/// Executes slots `first` to `last`, which others hand out.
fn execute(subject: &mut Subject, first: u64, last: u64) {
    let group = subject.group.clone();
    for sequence in first..=last {
        let batch = group.batch(u8::try_from(sequence).expect("small"));
        for id in [0, 2, 3] {
            subject.hear(id, group.commit(id, 0, sequence, batch.digest()));
        }
        subject.sync();
        subject.execute();
    }
    assert_eq!(subject.replica.executed(), slot(last));
}

/// "A parameter of the configuration, off by default" (§8)
#[test]
fn reads_are_answered_where_the_configuration_says_so() {
    assert_eq!(with_three_slots().replica.reads_in(), Some(Epoch::ZERO));
    assert_eq!(Subject::of_four(1).replica.reads_in(), None);
    assert!(!Parameters::default().fast_reads);
}

/// "answers again once it has executed all that q members, itself among them, had executed or prepared" (§8): here it has
/// prepared slot 3 itself.
#[test]
fn after_a_start_a_replica_answers_once_it_has_executed_what_it_had_prepared() {
    let mut again = started_again();
    for from in [2, 3] {
        tell(&mut again, from, 0);
    }
    assert!(again.replica.is_voter());
    assert_eq!(again.replica.reads_in(), None);
    execute(&mut again, 1, 2);
    assert_eq!(again.replica.reads_in(), None, "slot 3 was prepared");
    execute(&mut again, 3, 3);
    assert_eq!(again.replica.reads_in(), Some(Epoch::ZERO));
}

/// The same: others may have gone further.
#[test]
fn after_a_start_a_replica_answers_once_it_has_executed_what_a_quorum_had() {
    let mut again = started_again();
    tell(&mut again, 0, 5);
    tell(&mut again, 3, 4);
    execute(&mut again, 1, 3);
    assert_eq!(again.replica.reads_in(), None, "others had reached slot 5");
    let group = again.group.clone();
    for sequence in 4..=5 {
        again.decide(0, sequence, &group.batch(u8::try_from(sequence).expect("small")));
        again.settle();
        assert_eq!(again.replica.reads_in().is_some(), sequence == 5);
    }
}

/// "What lies beyond the window counts only when that has moved there." (§8)
#[test]
fn a_liar_that_claims_to_be_far_ahead_is_not_waited_for() {
    let mut again = started_again();
    tell(&mut again, 2, 9);
    tell(&mut again, 3, 0);
    assert!(again.replica.is_voter(), "it counts as an answer");
    execute(&mut again, 1, 3);
    assert_eq!(again.replica.reads_in(), None, "one member has told something that counts");
    let asked = |outputs: &[Output]| -> Vec<u8> {
        let fetch = |output: &Output| match output {
            Output::Send {
                to,
                message: Message::Fetch(quorate_protocol::message::Fetch::Statements { token: TOKEN }),
            } => Some(to.value()),
            _ => None,
        };
        outputs.iter().filter_map(fetch).collect()
    };
    again.all_outputs();
    again.now_ms += 100;
    again.replica.handle(now(again.now_ms), Input::Wake);
    assert_eq!(asked(&again.all_outputs()), [0], "who has not told is asked");
    tell(&mut again, 0, 3);
    assert_eq!(again.replica.reads_in(), Some(Epoch::ZERO));
    again.now_ms += 100;
    again.replica.handle(now(again.now_ms), Input::Wake);
    assert_eq!(asked(&again.all_outputs()), [], "nobody is asked any more");
}

/// The same within the window: any quorum will do, so who tells later may make up for it.
#[test]
fn a_liar_that_claims_to_be_a_little_ahead_is_made_up_for_by_who_tells_later() {
    let mut again = started_again();
    tell(&mut again, 2, 8);
    tell(&mut again, 3, 0);
    execute(&mut again, 1, 3);
    assert_eq!(again.replica.reads_in(), None, "a member says that it reached slot 8");
    tell(&mut again, 0, 3);
    assert_eq!(again.replica.reads_in(), Some(Epoch::ZERO));
}

/// "A member answers in the epoch of its executed state, while it votes there" (§8)
#[test]
fn who_does_not_vote_answers_no_read() {
    let group = reading();
    let mut learner = Subject::start_asking(&group, 1, crate::support::START_MS, None, vec![]);
    for from in [0, 2, 3] {
        tell(&mut learner, from, 0);
    }
    assert!(!learner.replica.is_voter());
    assert_eq!(learner.replica.reads_in(), None);
}

/// "If another state takes the place of its own, it answers none before it has come as far as it was." (§8)
#[test]
fn a_replica_that_diverged_answers_once_it_has_come_as_far_as_it_was() {
    let group = reading();
    let batch = |sequence: u64| group.batch(u8::try_from(sequence).expect("small"));
    let mut sound = Subject::new(&group, 1);
    for sequence in 1..=4 {
        sound.decide(0, sequence, &batch(sequence));
        sound.settle();
    }
    let certified = sound.replica.state_root_at(slot(4)).expect("taken");
    let mut diverged = Subject::new(&group, 1);
    for sequence in 1..=6 {
        diverged.decide(0, sequence, &batch(sequence));
        diverged.execute();
    }
    diverged.checkpoints.clear();
    diverged.step(Input::CheckpointTaken { sequence: slot(4), application_root: digest(66) });
    assert_eq!(diverged.replica.reads_in(), Some(Epoch::ZERO));
    diverged.hear(2, Message::Stable(group.stable(4, certified, &[0, 2, 3])));
    assert_eq!(diverged.replica.reads_in(), None, "its state is another");
    install(&mut diverged, &sound);
    for executed in 4..=6 {
        if executed > 4 {
            diverged.execute();
        }
        assert_eq!(diverged.replica.executed(), slot(executed));
        assert_eq!(diverged.replica.reads_in().is_some(), executed == 6, "{executed}");
    }
}

/// "One that has diverged, or is transferring a state, answers none." (§8)
#[test]
fn who_transfers_a_state_answers_no_read() {
    let mut behind = Subject::new(&reading(), 1);
    let group = behind.group.clone();
    assert_eq!(behind.replica.reads_in(), Some(Epoch::ZERO));
    behind.hear(2, Message::Stable(group.stable(4, digest(7), &[0, 2, 3])));
    let status = Status { stable: slot(4), executed: slot(4), decided_from: slot(5), ..idle_status(0) };
    behind.hear(2, Message::Status(status));
    behind.pass_with_primary_alive(2000);
    assert_eq!(behind.replica.transfer_target(), Some(slot(4)));
    assert_eq!(behind.replica.reads_in(), None);
}

/// "A member answers in the epoch of its executed state, while it votes there" (§8): not between the end of an epoch and the
/// beginning of the next.
#[test]
fn between_two_epochs_no_read_is_answered() {
    let mut backup = Subject::new(&reading(), 1);
    let group = backup.group.clone();
    let rejoin = group.batch_at(0, vec![group.rejoin(3, 0, 99)]);
    backup.decide(0, 1, &rejoin);
    backup.settle();
    for sequence in 2..=4 {
        assert_eq!(backup.replica.reads_in(), Some(Epoch::ZERO), "{sequence}");
        backup.decide(0, sequence, &group.batch(u8::try_from(sequence).expect("small")));
        backup.settle();
    }
    assert_eq!((backup.replica.executed(), backup.replica.reads_in()), (slot(4), None));
    let root = backup.replica.state_root_at(slot(4)).expect("taken");
    for id in [0, 2] {
        backup.hear(id, group.checkpoint(id, 4, root));
    }
    assert_eq!(backup.replica.reads_in(), Some(Epoch::new(1)));
}

/// What a start asks tells how far the one that is asked came: the highest slot that it executed, or in which it prepared.
#[test]
fn what_a_replica_tells_of_itself_is_what_it_executed_and_what_it_prepared() {
    let reached = |subject: &mut Subject| {
        let fetch = quorate_protocol::message::Fetch::Statements { token: 5 };
        let outputs = subject.hear(2, Message::Fetch(fetch));
        outputs.iter().find_map(|output| match output {
            Output::Send { message: Message::Statements(told), .. } => Some(told.reached.value()),
            _ => None,
        })
    };
    let mut backup = with_three_slots();
    assert_eq!(reached(&mut backup), Some(3));
    let mut fresh = Subject::new(&reading(), 1);
    assert_eq!(reached(&mut fresh), Some(0));
    let group = fresh.group.clone();
    fresh.hear(0, group.pre_prepare(0, 0, 1, &group.batch(1)));
    assert_eq!(reached(&mut fresh), Some(0), "it is accepted, not prepared");
}

/// "What was written up to the last checkpoint counts as written there, since who started from it does not know when." (§8)
/// So who was there when it was written says the same as who was not.
#[test]
fn a_result_is_no_older_than_the_last_checkpoint() {
    let mut was_there = Store::default().with_fast_reads();
    let put = |store: &mut Store, key: &[u8], sequence| {
        let operation = Operation::put(key, b"value").encode().expect("small");
        let surroundings = Surroundings {
            client: client(1),
            sequence: slot(sequence),
            time: WallTime::ZERO,
            result_bytes_max: READ_BYTES_MAX,
        };
        store.execute(&surroundings, &operation);
    };
    put(&mut was_there, b"old", 3);
    let mut started = Store::default().with_fast_reads();
    let entries: Vec<Entry> = was_there
        .changes()
        .map(|(key, value)| Entry { key: key.into(), value: value.expect("written").into() })
        .collect();
    started.restore(&mut entries.into_iter()).expect("its own state");
    put(&mut was_there, b"new", 6);
    put(&mut started, b"new", 6);
    let since = |store: &Store, key: &[u8]| {
        let get = Operation::get(key).encode().expect("small");
        read(store, &get, slot(4)).map(|reading| reading.since)
    };
    assert_eq!((since(&was_there, b"old"), since(&started, b"old")), (Some(slot(4)), Some(slot(4))));
    assert_eq!((since(&was_there, b"new"), since(&started, b"new")), (Some(slot(6)), Some(slot(6))));
}
