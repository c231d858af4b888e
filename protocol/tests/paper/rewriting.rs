//! §9, a log that is found damaged: what a start would need is written again, and nothing else counts.

use quorate_protocol::input::Input;
use quorate_protocol::message::{Fetch, Message};
use quorate_protocol::number::RecordNumber;
use quorate_protocol::output::Notice;
use quorate_protocol::record::Record;
use quorate_protocol::{Machine, Output};

use crate::support::subject::{Subject, appended, notices, said};
use crate::support::{Group, slot};

/// Tells `subject` that its log is damaged: what it writes anew, and from where on that is all that is left.
fn rewrite(subject: &mut Subject) -> (Vec<Record>, Option<RecordNumber>) {
    let outputs = subject.step(Input::LogDamaged);
    let cut = outputs.iter().find_map(|output| match output {
        Output::Cut { before } => Some(*before),
        _ => None,
    });
    (appended(&outputs), cut)
}

/// What `subject` writes anew is all that a start needs of what it wrote so far: one that starts on that alone would write the
/// same, and so would one that starts on all.
fn expect_all_that_a_start_needs(subject: &mut Subject) -> Vec<Record> {
    subject.settle();
    let mut on_all = subject.restart();
    on_all.settle();
    let (written, cut) = rewrite(subject);
    let before = cut.expect("all before is cut");
    assert_eq!(rewrite(&mut on_all).0, written, "what a start on all knows");
    subject.settle();
    subject.records.retain(|(number, _)| *number >= before);
    let mut on_the_rest = subject.restart();
    on_the_rest.settle();
    assert_eq!(rewrite(&mut on_the_rest).0, written, "what a start on the rest knows");
    assert_eq!(on_the_rest.replica.view(), subject.replica.view());
    assert_eq!(on_the_rest.replica.stable(), subject.replica.stable());
    assert_eq!(on_the_rest.replica.executed(), subject.replica.executed());
    written
}

/// "the incarnation, the epoch with the latest stable certificate, the records of the view, and of each slot that no cut was
/// beyond its vote of the highest view, its prepared certificate with its commit, what is decided, and every batch that it
/// voted for" (§9)
#[test]
fn what_a_start_would_need_is_written_again_and_all_before_is_cut() {
    let kinds = |records: &[Record]| -> Vec<&str> {
        let kind = |record: &Record| match record {
            Record::Accepted(_, Some(_)) => "accepted",
            Record::Accepted(_, None) => "accepted without its batch",
            Record::Prepared(..) => "prepared",
            Record::Committed(_) => "committed",
            Record::Learned(..) => "learned",
            Record::Stable(_) => "stable",
            Record::ViewChange(..) => "view change",
            Record::NewView(..) => "new view",
            Record::Epoch(..) => "epoch",
            Record::Incarnation(_) => "incarnation",
            Record::Batch(..) => "batch",
        };
        records.iter().map(kind).collect()
    };
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    assert_eq!(kinds(&expect_all_that_a_start_needs(&mut backup)), ["incarnation"]);
    // Decided and executed, but for the last; a checkpoint on the way.
    for sequence in 1..=5 {
        backup.decide(0, sequence, &group.batch(u8::try_from(sequence).expect("small")));
    }
    backup.settle();
    for id in [0, 1, 3] {
        let root = crate::checkpoints::root(&backup, 4);
        backup.hear(id, group.checkpoint(id, 4, root));
    }
    assert_eq!(backup.replica.stable(), slot(4));
    let of_five = ["accepted", "prepared", "committed"];
    let written = expect_all_that_a_start_needs(&mut backup);
    assert_eq!(kinds(&written), [&["incarnation", "epoch"][..], &of_five].concat());
    // Slots that came as far as a vote, and as far as a certificate; the view is left, another entered, and left.
    backup.hear(0, group.pre_prepare(0, 0, 6, &group.batch(6)));
    backup.hear(0, group.pre_prepare(0, 0, 7, &group.batch(7)));
    backup.hear_all([1, 3].map(|id| (id, group.prepare(id, 0, 7, group.batch(7).digest()))));
    let undecided = ["accepted", "accepted", "prepared"];
    let written = expect_all_that_a_start_needs(&mut backup);
    assert_eq!(kinds(&written), [&["incarnation", "epoch"][..], &of_five, &undecided].concat());
    backup.leave();
    let written = expect_all_that_a_start_needs(&mut backup);
    assert_eq!(kinds(&written), [&["incarnation", "epoch", "view change"][..], &of_five, &undecided].concat());
    backup.enter(3);
    backup.hear(3, group.pre_prepare(3, 3, 8, &group.batch(8)));
    let written = expect_all_that_a_start_needs(&mut backup);
    let first = ["incarnation", "epoch", "new view"];
    assert_eq!(kinds(&written), [&first[..], &of_five, &undecided, &["accepted"]].concat());
    backup.leave();
    let written = expect_all_that_a_start_needs(&mut backup);
    let first = ["incarnation", "epoch", "new view", "view change"];
    assert_eq!(kinds(&written), [&first[..], &of_five, &undecided, &["accepted"]].concat());
}

/// "and every batch that it voted for" (§9)
#[test]
fn batches_that_were_voted_for_before_another_are_written_again_too() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    backup.hear(0, group.pre_prepare(0, 0, 1, &group.batch(0)));
    backup.enter(3);
    backup.hear(3, group.pre_prepare(3, 3, 1, &group.batch(1)));
    backup.settle();
    let written = expect_all_that_a_start_needs(&mut backup);
    assert!(
        matches!(&written[..], [.., Record::Batch(_, at, first), Record::Accepted(vote, Some(second))]
            if *at == slot(1) && *first == group.batch(0) && *second == group.batch(1)
            && vote.statement.digest == second.digest()),
        "{written:?}"
    );
    let mut again = backup.restart();
    again.settle();
    for batch in [group.batch(0), group.batch(1)] {
        again.pass(100);
        let outputs = again.hear(3, Message::Fetch(Fetch::Batch { sequence: slot(1), digest: batch.digest() }));
        assert!(said(&outputs).iter().any(|message| matches!(message, Message::Batch(_))));
    }
}

/// "Where the log has no room, or votes are on their way to it that a start would need no more, nothing is done, and the next
/// reading finds the damage again." (§9)
#[test]
fn a_vote_that_is_on_its_way_and_would_not_be_written_again_is_waited_for() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    // The disk does nothing: the vote of the first view waits when that of a later one is cast.
    backup.hear(0, group.pre_prepare(0, 0, 1, &group.batch(0)));
    let others = [0, 1, 3].map(|id| (id, group.empty_view_change(id, 3)));
    backup.hear_all(others.iter().map(|(id, signed)| (*id, Message::ViewChange(signed.clone()))));
    let named = others.iter().map(|(id, signed)| (*id, signed)).collect::<Vec<_>>();
    backup.hear(3, Message::NewView(group.new_view(3, 3, &named, &[])));
    backup.hear(3, group.pre_prepare(3, 3, 1, &group.batch(1)));
    assert_eq!(backup.step(Input::LogDamaged), []);
    backup.sync();
    assert_eq!(notices(&backup.step(Input::LogDamaged)), [Notice::LogDamaged]);
    // The same of a slot that leaves the log before its votes are on the disk.
    let mut backup = Subject::of_four(1);
    for sequence in 1..=4 {
        backup.hear(0, group.pre_prepare(0, 0, sequence, &group.batch(0)));
        for id in [0, 2, 3] {
            backup.hear(id, group.commit(id, 0, sequence, group.batch(0).digest()));
        }
    }
    while !backup.executions.is_empty() {
        backup.execute();
    }
    backup.take_checkpoint();
    let root = crate::checkpoints::root(&backup, 4);
    backup.hear(2, Message::Stable(group.stable(4, root, &[0, 2, 3])));
    assert_eq!((backup.replica.stable(), backup.replica.executed()), (slot(4), slot(4)));
    assert_eq!(backup.step(Input::LogDamaged), []);
    backup.sync();
    assert_eq!(notices(&backup.step(Input::LogDamaged)), [Notice::LogDamaged]);
}

/// "Where the log has no room" (§9); "Nothing is appended then but what a cut says again, and that
/// once until it is durable" (§9)
#[test]
fn a_log_without_room_is_not_written_anew_and_nothing_is_before_the_last_time_is_durable() {
    let mut backup = Subject::of_four(1);
    let group: Group = backup.group.clone();
    backup.hear(0, group.pre_prepare(0, 0, 1, &group.batch(0)));
    backup.settle();
    backup.step(Input::LogFull);
    assert_eq!(backup.step(Input::LogDamaged), []);
    backup.step(Input::LogHasRoom);
    assert_eq!(notices(&backup.step(Input::LogDamaged)), [Notice::LogDamaged]);
    assert_eq!(backup.step(Input::LogDamaged), [], "on its way");
    backup.sync();
    assert_eq!(notices(&backup.step(Input::LogDamaged)), [Notice::LogDamaged]);
}

/// "It votes on meanwhile." (§9)
#[test]
fn votes_go_on_while_the_log_is_written_anew() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    backup.hear(0, group.pre_prepare(0, 0, 1, &group.batch(0)));
    backup.step(Input::LogDamaged);
    backup.hear(0, group.pre_prepare(0, 0, 2, &group.batch(1)));
    let votes = said(&backup.sync());
    let votes: Vec<_> = votes.iter().filter(|message| matches!(message, Message::Prepare(_))).collect();
    assert_eq!(
        votes,
        [&group.prepare(1, 0, 1, group.batch(0).digest()), &group.prepare(1, 0, 2, group.batch(1).digest())]
    );
    assert!(backup.replica.poll_output().is_none());
}
