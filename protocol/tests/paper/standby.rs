//! §11, standbys: what one learns and what it never says, and what members tell it.

use quorate_protocol::Output;
use quorate_protocol::message::{Decided, Fetch, Message, Status};
use quorate_protocol::number::{Epoch, RecordNumber};
use quorate_protocol::output::{Loss, NotVoting};
use quorate_protocol::record::{Record, Recovered};
use quorate_protocol::replica::Mode;

use crate::support::subject::{Subject, appended, executed, idle_status, said};
use crate::support::{Group, TOKEN, slot};

/// What member 0 hands out once it has decided so many slots and its checkpoints are stable.
fn member(slots: u64) -> Subject {
    let mut member = Subject::of_four(0);
    let group = member.group.clone();
    for sequence in 1..=slots {
        let batch = group.batch(u8::try_from(sequence).expect("few"));
        member.hear(0, group.pre_prepare(0, 0, sequence, &batch));
        learn(&mut member, &group, sequence);
        member.settle();
        if let Some(root) = member.replica.state_root_at(slot(sequence)) {
            for id in [1, 2, 3] {
                member.hear(id, group.checkpoint(id, sequence, root));
            }
        }
    }
    member
}

/// Hands in a decided slot with its certificate.
fn learn(subject: &mut Subject, group: &Group, sequence: u64) -> Vec<Output> {
    let batch = group.batch(u8::try_from(sequence).expect("few"));
    let certificate = group.committed(0, sequence, batch.digest(), &[0, 1, 2]);
    subject.hear(1, Message::Decided(Decided { certificate, batch: batch.body().clone().into() }))
}

fn standby(group: &Group) -> Subject {
    Subject::start_standby(group, 3, None, vec![])
}

/// What is on the disk of `subject`, for a process that is started on it.
fn left_by(subject: &Subject) -> Vec<(RecordNumber, Recovered)> {
    subject.records.iter().map(|(number, record)| (*number, Recovered::Whole(record.clone()))).collect()
}

/// "it checks and executes that, takes checkpoints, and says nothing that counts" (§11)
#[test]
fn a_standby_executes_what_is_decided_and_says_nothing_that_counts() {
    let group = Group::of_four();
    let mut standby = standby(&group);
    assert_eq!(standby.replica.not_voting(), Some(NotVoting::StandsBy));
    let mut outputs = standby.settle();
    for sequence in 1..=4 {
        outputs.extend(learn(&mut standby, &group, sequence));
        outputs.extend(standby.settle());
    }
    assert_eq!(executed(&outputs), [1, 2, 3, 4]);
    let root = standby.replica.state_root_at(slot(4)).expect("it takes checkpoints");
    // Whatever it hears that moves a member.
    let batch = group.batch(5);
    outputs.extend(standby.hear(0, Message::Stable(group.stable(4, root, &[0, 1, 2]))));
    outputs.extend(standby.hear(0, group.pre_prepare(0, 0, 5, &batch)));
    outputs.extend(standby.hear_all([1, 2].map(|id| (id, group.prepare(id, 0, 5, batch.digest())))));
    for id in [0, 1] {
        outputs.extend(standby.hear(id, Message::ViewChange(group.empty_view_change(id, 1))));
        outputs.extend(standby.hear(id, Message::Status(Status { suspects: true, ..idle_status(0) })));
    }
    outputs.extend(standby.settle());
    outputs.extend(standby.pass(10_000));
    assert_eq!(standby.replica.stable(), slot(4));
    assert_eq!(standby.replica.mode(), Mode::Normal);
    // A certificate holds the votes of others.
    let counts = |message: &Message| !matches!(message, Message::Fetch(_) | Message::Status(_) | Message::Stable(_));
    let all = said(&outputs);
    assert!(!all.iter().any(counts), "{all:?}");
    let is_of_start = |message: &Message| matches!(message, Message::Fetch(Fetch::Statements { .. }));
    assert!(!all.iter().any(is_of_start), "it has said nothing that it could have forgotten");
    let is_vote = |record: &Record| {
        matches!(record, Record::Accepted(..) | Record::Prepared(..) | Record::ViewChange(..) | Record::NewView(..))
    };
    assert!(!appended(&outputs).iter().any(is_vote));
}

/// "given that member's key it is the member, which has lost votes" (§11), whoever's log it began with.
#[test]
fn who_is_started_where_a_standby_was_has_lost_votes() {
    let group = Group::of_four();
    let mut new = standby(&group);
    new.settle();
    let mut members_own = Subject::start_standby(&group, 3, None, vec![]);
    members_own.settle();
    for left in [left_by(&new), left_by(&members_own)] {
        let promoted = Subject::start_asking(&group, 3, 0, None, left);
        assert_eq!(promoted.replica.not_voting(), Some(NotVoting::Lost(Loss::Earlier)));
    }
    // On a log whose votes are all there, too: the standby may have let the member's life go on elsewhere.
    let member = Subject::new(&group, 3);
    let mut records = left_by(&member);
    records.insert(
        0,
        (RecordNumber::ZERO, Recovered::Whole(Record::Incarnation(quorate_protocol::number::Incarnation::ZERO))),
    );
    let mut beside = Subject::start_standby(&group, 3, None, records);
    beside.settle();
    let promoted = Subject::start_asking(&group, 3, 0, None, left_by(&beside));
    assert_eq!(promoted.replica.not_voting(), Some(NotVoting::Lost(Loss::Earlier)));
}

/// "The life of its log is named by no epoch" (§11): started again it keeps that life, through cuts of its log as well.
#[test]
fn a_standby_stays_one_through_starts_and_epochs() {
    let group = Group::of_four();
    let mut first = standby(&group);
    first.settle();
    let rejoin = group.batch_at(0, vec![group.rejoin(2, 0, 99)]);
    let certificate = group.committed(0, 1, rejoin.digest(), &[0, 1, 2]);
    first.hear(1, Message::Decided(Decided { certificate, batch: rejoin.body().clone().into() }));
    first.settle();
    for sequence in 2..=4 {
        learn(&mut first, &group, sequence);
        first.settle();
    }
    let root = first.replica.state_root_at(slot(4)).expect("taken");
    first.hear(0, Message::Stable(group.stable(4, root, &[0, 1, 2])));
    first.settle();
    assert_eq!(first.replica.configuration().epoch(), Epoch::new(1));
    assert_eq!(first.replica.not_voting(), Some(NotVoting::StandsBy));
    let mut again = Subject::start_standby(&group, 3, first.durable_checkpoint.clone(), left_by(&first));
    again.settle();
    assert_eq!(again.replica.not_voting(), Some(NotVoting::StandsBy));
    assert_eq!(again.replica.incarnation().value(), TOKEN);
    assert_eq!((again.replica.executed(), again.replica.configuration().epoch()), (slot(4), Epoch::new(1)));
}

/// "It asks the members how far they are and for what they decided, with the certificates" (§11)
#[test]
fn members_tell_a_standby_what_it_lacks() {
    let member = member(6);
    assert_eq!((member.replica.executed(), member.replica.stable()), (slot(6), slot(4)));
    let mut standby = standby(&member.group);
    standby.settle();
    let asked = standby.pass(100);
    let status = standby.status.clone().expect("with every heartbeat");
    assert!(said(&asked).is_empty(), "it knows nothing to ask for");
    let told = member.replica.tell_standby(&status);
    assert!(matches!(&told[..], [Message::Stable(_), Message::Status(_)]), "{told:?}");
    let mut asked = Vec::new();
    for message in told {
        asked.extend(standby.hear(0, message));
    }
    asked.extend(standby.pass(200));
    let ask = Message::Fetch(Fetch::Decided { after: slot(0) });
    assert!(said(&asked).contains(&ask), "{asked:?}");
    for message in member.replica.decided_for_standby(slot(0), usize::MAX) {
        standby.hear(0, message);
    }
    standby.settle();
    assert_eq!((standby.replica.executed(), standby.replica.stable()), (slot(6), slot(4)));
    assert_eq!(standby.replica.state_root_at(slot(4)), member.replica.state_root_at(slot(4)));
    let status = Status { stable: slot(4), ..status };
    assert!(matches!(&member.replica.tell_standby(&status)[..], [Message::Status(_)]), "it has the certificate");
}

/// One answer holds what was asked for in bytes, and at least one slot.
#[test]
fn an_answer_to_a_standby_is_bounded() {
    let member = member(6);
    let decided = |after, bytes_max| member.replica.decided_for_standby(slot(after), bytes_max).len();
    let bytes = member.group.batch(1).body().len();
    assert_eq!((decided(0, usize::MAX), decided(2, usize::MAX), decided(6, usize::MAX)), (6, 4, 0));
    assert_eq!((decided(0, 0), decided(0, bytes), decided(0, 2 * bytes), decided(0, 3 * bytes - 1)), (1, 1, 2, 2));
}
