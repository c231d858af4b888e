//! §11: where an epoch ends, and how the next begins.

use quorate_protocol::batch::{Batch, SignedRequest};
use quorate_protocol::message::{Fetch, Message, PrePrepare, Status};
use quorate_protocol::number::{Epoch, Incarnation, RecordNumber};
use quorate_protocol::output::{Loss, NotVoting, Notice};
use quorate_protocol::record::{Record, Recovered};
use quorate_protocol::refusal::Refusal;
use quorate_protocol::replica::Mode;
use quorate_protocol::statement::{Checkpoint, Prepare};
use quorate_protocol::verify::{Invalid, verify};
use quorate_protocol::{Input, Output};

use crate::support::state::{application_root, no_leaves, ready, serve};
use crate::support::subject::{Subject, appended, executed, idle_status, notices, said, suspected};
use crate::support::{Group, START_MS, StandInVerifier, TOKEN, client, digest, prepare, replica, slot, small, view};

/// The incarnation that member 3 rejoins with.
const NEW: u64 = 99;

/// A batch with the `Rejoin` of member 3, stamped so many milliseconds after the start.
fn rejoining(group: &Group, stamp_ms: i64, epoch: u64) -> Batch {
    group.batch_at(stamp_ms, vec![group.rejoin(3, epoch, NEW + epoch)])
}

/// Decides slots `first` to `last` with different batches.
fn fill(subject: &mut Subject, first: u64, last: u64) -> Vec<Output> {
    let group = subject.group.clone();
    let batch = |sequence: u64| group.batch(u8::try_from(sequence).expect("small"));
    (first..=last).flat_map(|sequence| decide(subject, sequence, &batch(sequence))).collect()
}

/// Decides one slot, and lets it settle.
fn decide(subject: &mut Subject, sequence: u64, batch: &Batch) -> Vec<Output> {
    let mut outputs = subject.decide(0, sequence, batch);
    outputs.extend(subject.settle());
    outputs
}

/// The checkpoint at `sequence` becomes stable by the votes of others.
fn make_stable(subject: &mut Subject, sequence: u64) -> Vec<Output> {
    let root = subject.replica.state_root_at(slot(sequence)).expect("taken");
    let epoch = subject.group.0.epoch();
    let group = subject.group.clone();
    let others: Vec<u8> = (0..4).filter(|id| *id != subject.id).take(2).collect();
    let vote = |id| Message::Checkpoint(group.vote(id, Checkpoint { epoch, sequence: slot(sequence), root }));
    others.into_iter().flat_map(|id| subject.hear(id, vote(id))).collect()
}

/// Member `id` that has executed slot 4, with which epoch 0 ends; the checkpoint is not stable.
fn at_the_end(id: u8) -> Subject {
    let mut subject = Subject::of_four(id);
    let group = subject.group.clone();
    decide(&mut subject, 1, &rejoining(&group, 0, 0));
    fill(&mut subject, 2, 4);
    assert_eq!(subject.replica.executed(), slot(4));
    subject
}

/// Member `id` in epoch 1, which began at slot 4.
pub(crate) fn after_an_epoch(id: u8) -> Subject {
    let mut subject = at_the_end(id);
    make_stable(&mut subject, 4);
    subject.group = subject.group.in_epoch(1, 4);
    subject.settle();
    assert_eq!(subject.replica.configuration().epoch(), Epoch::new(1));
    subject
}

/// "One that executes in a slot ends the epoch at **C**, the first checkpoint from there on." (§11)
#[test]
fn a_rejoin_ends_the_epoch_at_the_next_checkpoint() {
    for (at, end) in [(1, 4), (4, 4), (5, 8)] {
        let mut backup = Subject::of_four(1);
        let group = backup.group.clone();
        fill(&mut backup, 1, at - 1);
        decide(&mut backup, at, &rejoining(&group, 0, 0));
        fill(&mut backup, at + 1, end);
        if end == 8 {
            make_stable(&mut backup, 4);
        }
        assert_eq!(backup.replica.configuration().epoch(), Epoch::ZERO);
        let outputs = make_stable(&mut backup, end);
        let entered = Notice::EpochEntered { epoch: Epoch::new(1), began: slot(end) };
        assert!(notices(&outputs).contains(&entered), "a rejoin in slot {at}: {outputs:?}");
    }
}

/// "The epoch begins in view 0, with C stable" (§11); `primary = replicas[(e + v) mod n]` (§1).
#[test]
fn the_next_epoch_begins_in_view_0_with_another_primary() {
    let mut backup = after_an_epoch(2);
    assert_eq!(
        (backup.replica.view(), backup.replica.mode(), backup.replica.stable()),
        (view(0), Mode::Normal, slot(4))
    );
    let group = backup.group.clone();
    let batch = group.batch(9);
    let proposal = |id| {
        let vote = group.vote(id, Prepare { epoch: Epoch::new(1), ..prepare(0, 5, batch.digest()) });
        Message::PrePrepare(PrePrepare { vote, batch: batch.body().clone().into() })
    };
    assert!(verify(proposal(0), replica(0), &group.0, &mut StandInVerifier).is_err());
    let outputs = backup.hear(1, proposal(1));
    assert!(matches!(appended(&outputs)[..], [Record::Accepted(..)]), "{outputs:?}");
}

/// "Slots above C that were prepared or decided in the old epoch are void" (§11), and so is what a new view of it proposes there: who
/// enters the next epoch by the checkpoint in a view change takes up none of that, by whichever of the two messages it comes.
#[test]
fn a_new_view_that_brings_the_end_of_its_epoch_proposes_nothing_in_the_next() {
    for last_is_view_change in [false, true] {
        let mut subject = at_the_end(2);
        let group = subject.group.clone();
        let end = group.stable(4, subject.replica.state_root_at(slot(4)).expect("taken"), &[0, 1, 3]);
        let void = group.prepared(0, 6, group.batch(6).digest(), &[0, 1, 3]);
        let view_changes = [
            (0, group.empty_view_change(0, 1)),
            (1, group.empty_view_change(1, 1)),
            (3, group.view_change(3, 1, Some(end), vec![void])),
        ];
        let named: Vec<_> = view_changes.iter().map(|(id, signed)| (*id, signed)).collect();
        let proposals = [(5, Batch::empty().digest()), (6, group.batch(6).digest())];
        let mut messages = vec![(1, Message::NewView(group.new_view(1, 1, &named, &proposals)))];
        let asked = view_changes.iter().map(|(id, signed)| (*id, Message::ViewChange(signed.clone())));
        messages.splice(if last_is_view_change { 1..1 } else { 0..0 }, asked);
        let mut outputs = subject.hear_all(messages);
        assert_eq!(subject.replica.configuration().epoch(), Epoch::new(1));
        assert_eq!((subject.replica.view(), subject.replica.mode()), (view(0), Mode::Normal));
        outputs.extend(subject.sync());
        let said = said(&outputs);
        let fetches = |message: &Message| matches!(message, Message::Fetch(Fetch::Batch { .. }));
        assert!(!said.iter().any(|message| matches!(message, Message::Prepare(_)) || fetches(message)), "{said:?}");
        // The primary of the next epoch proposes what it likes.
        subject.group = group.in_epoch(1, 4);
        let batch = subject.group.batch(9);
        let vote = subject.group.vote(1, Prepare { epoch: Epoch::new(1), ..prepare(0, 5, batch.digest()) });
        let proposal = PrePrepare { vote, batch: batch.body().clone().into() };
        let outputs = subject.hear(1, Message::PrePrepare(proposal));
        assert_eq!((suspected(&outputs), appended(&outputs).len()), (vec![], 1), "{last_is_view_change}");
        // Whoever asked for a view of the old epoch has left none of this one.
        let suspects = Status { suspects: true, epoch: Epoch::new(1), ..idle_status(0) };
        subject.hear(0, Message::Status(suspects));
        assert_eq!(subject.replica.mode(), Mode::Normal, "{last_is_view_change}");
    }
}

/// "Slots above C that were prepared or decided in the old epoch are void: they never execute. The requests in them are
/// ordered again." (§11)
#[test]
fn what_was_decided_above_the_end_is_void_and_its_requests_are_ordered_again() {
    let mut next_primary = Subject::of_four(1);
    let group = next_primary.group.clone();
    let request = group.opening(client(7), 1);
    next_primary.ask(request.clone());
    let mut outputs = next_primary.decide(0, 1, &rejoining(&group, 0, 0));
    for sequence in 2..=4 {
        let batch = group.batch(u8::try_from(sequence).expect("small"));
        outputs.extend(next_primary.decide(0, sequence, &batch));
    }
    let void = group.batch_at(0, vec![request.clone()]);
    outputs.extend(next_primary.decide(0, 5, &void));
    outputs.extend(next_primary.settle());
    assert_eq!(executed(&outputs), [1, 2, 3, 4]);
    let outputs = make_stable(&mut next_primary, 4);
    assert_eq!(executed(&outputs), []);
    assert_eq!(next_primary.replica.log_length(), 1, "its own proposal");
    let proposed = appended(&outputs).into_iter().find_map(|record| match record {
        Record::Accepted(vote, Some(batch)) => Some((vote.statement.epoch, vote.statement.sequence, batch)),
        _ => None,
    });
    let (epoch, sequence, batch) = proposed.expect("the primary of the new epoch proposes");
    assert_eq!((epoch, sequence), (Epoch::new(1), slot(5)));
    assert_eq!(batch.requests()[0].signed, request);
}

/// "Until C is executed the primary fills slots up to it with what there is, or with empty batches, and proposes nothing
/// above" (§11)
#[test]
fn the_primary_fills_slots_up_to_the_end_and_proposes_nothing_above() {
    let mut primary = Subject::of_four(0);
    let group = primary.group.clone();
    let proposals = |outputs: &[Output]| -> Vec<(u64, usize)> {
        let proposal = |record| match record {
            Record::Accepted(vote, batch) => {
                Some((vote.statement.sequence.value(), batch.map_or(0, |batch| batch.requests().len())))
            }
            _ => None,
        };
        appended(outputs).into_iter().filter_map(proposal).collect()
    };
    let outputs = primary.hear(3, Message::Request(group.rejoin(3, 0, NEW)));
    assert_eq!(proposals(&outputs), [(1, 1)]);
    primary.sync();
    let batch = group.batch_at(0, vec![group.rejoin(3, 0, NEW)]);
    let outputs = primary.decide(0, 1, &batch);
    assert_eq!(proposals(&outputs), [(2, 0), (3, 0), (4, 0)], "as soon as it is known to execute");
    assert_eq!(proposals(&primary.ask(group.opening(client(1), 1))), [], "that waits for the next epoch");
    for sequence in 2..=4 {
        primary.decide(0, sequence, &Batch::empty());
    }
    assert_eq!(proposals(&primary.settle()), []);
    assert_eq!(primary.replica.executed(), slot(4));
    make_stable(&mut primary, 4);
    assert_eq!(primary.replica.configuration().epoch(), Epoch::new(1));
    assert_eq!(primary.replica.queue_length(), 1);
}

/// "backups expect that like a request" (§11)
#[test]
fn a_primary_that_does_not_fill_slots_up_to_the_end_is_suspected() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    decide(&mut backup, 1, &rejoining(&group, 0, 0));
    assert_eq!(suspected(&backup.pass_with_primary_alive(400)), []);
    assert!(!suspected(&backup.pass_with_primary_alive(1_000)).is_empty());
    let mut backup = at_the_end(1);
    assert_eq!(suspected(&backup.pass_with_primary_alive(3_000)), [], "nothing more is to come in this epoch");
}

/// "A `Rejoin` counts in its epoch, once a member, and not within `rejoin_interval_ms` of the member's last; any other is
/// skipped." (§11)
#[test]
fn a_rejoin_that_does_not_count_is_skipped() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let outputs = decide(&mut backup, 1, &rejoining(&group, 0, 1));
    assert_eq!(executed(&outputs), [1]);
    fill(&mut backup, 2, 4);
    make_stable(&mut backup, 4);
    assert_eq!(backup.replica.configuration().epoch(), Epoch::ZERO, "of an epoch to come");

    let mut backup = after_an_epoch(1);
    let end = i64::from(small().rejoin_interval_ms);
    for (sequence, stamp_ms, epoch, ends) in [(5, end - 1, 1, false), (6, end, 0, false), (7, end, 1, true)] {
        backup.now_ms = START_MS + u64::try_from(stamp_ms).expect("positive");
        assert_eq!(backup.replica.configuration().epoch(), Epoch::new(1));
        in_epoch_one(&mut backup, sequence, &rejoining(&group, stamp_ms, epoch));
        assert_eq!(backup.replica.epoch_ends().is_some(), ends, "slot {sequence}");
    }
}

/// Decides a slot of epoch 1, and lets it settle.
fn in_epoch_one(subject: &mut Subject, sequence: u64, batch: &Batch) -> Vec<Output> {
    let group = subject.group.clone();
    let statement = Prepare { epoch: Epoch::new(1), ..prepare(0, sequence, batch.digest()) };
    let proposal = PrePrepare { vote: group.vote(1, statement), batch: batch.body().clone().into() };
    let mut outputs = Vec::new();
    let others: Vec<u8> = (0..4).filter(|id| *id != subject.id).collect();
    if subject.id != 1 {
        outputs.extend(subject.hear(1, Message::PrePrepare(proposal)));
    }
    let decided = quorate_protocol::message::Decided {
        certificate: group.certificate(statement.commit(), &others),
        batch: batch.body().clone().into(),
    };
    outputs.extend(subject.hear(others[1], Message::Decided(decided)));
    outputs.extend(subject.settle());
    outputs
}

/// "Every statement names its epoch." (§11)
#[test]
fn votes_and_proposals_of_another_epoch_are_neither_wanted_nor_counted() {
    let backup = after_an_epoch(1);
    let old = Group::of_four();
    let old_votes = [
        old.prepare(0, 0, 5, digest(1)),
        old.commit(0, 0, 5, digest(1)),
        old.checkpoint(0, 8, digest(1)),
        old.pre_prepare(0, 0, 5, &old.batch(1)),
        Message::ViewChange(old.empty_view_change(0, 1)),
    ];
    for message in old_votes {
        assert!(!backup.replica.is_wanted(replica(0), &message));
        let checked = verify(message, replica(0), &backup.group.0, &mut StandInVerifier);
        assert_eq!(checked, Err(Invalid::Epoch(Epoch::ZERO)));
    }
}

/// "Whatever waited to be durable of the old epoch is never said." (§11)
#[test]
fn a_vote_of_the_old_epoch_that_becomes_durable_in_the_new_one_is_not_said() {
    let mut backup = at_the_end(1);
    let group = backup.group.clone();
    let outputs = backup.hear(0, group.pre_prepare(0, 0, 5, &group.batch(5)));
    assert_eq!(appended(&outputs).len(), 1);
    make_stable(&mut backup, 4);
    assert_eq!(backup.replica.configuration().epoch(), Epoch::new(1));
    let said = said(&backup.sync());
    assert!(!said.iter().any(|message| matches!(message, Message::Prepare(_))), "{said:?}");
}

/// "A replica enters the epoch that its state is in once its state there is durable and it knows a certificate" (§11)
#[test]
fn an_epoch_is_entered_when_the_state_is_durable_and_certified_whichever_comes_last() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    backup.decide(0, 1, &rejoining(&group, 0, 0));
    for sequence in 2..=4 {
        backup.decide(0, sequence, &group.batch(u8::try_from(sequence).expect("small")));
    }
    while !backup.executions.is_empty() {
        backup.execute();
    }
    backup.take_checkpoint();
    let root = backup.replica.state_root_at(slot(4)).expect("taken");
    for id in [0, 2, 3] {
        backup.hear(id, group.checkpoint(id, 4, root));
    }
    assert_eq!((backup.replica.stable(), backup.replica.configuration().epoch()), (slot(4), Epoch::ZERO));
    backup.checkpoint_durable();
    assert_eq!(backup.replica.configuration().epoch(), Epoch::new(1));
}

/// "The state at C is that of the next epoch, and is voted for in the old one." (§11) So it is after a restart.
#[test]
fn who_is_started_again_before_the_end_is_stable_is_in_the_old_epoch_and_votes_for_the_end() {
    let backup = at_the_end(1);
    let root = backup.replica.state_root_at(slot(4)).expect("taken");
    let mut again = backup.restart();
    assert_eq!(again.replica.configuration().epoch(), Epoch::ZERO);
    let group = again.group.clone();
    assert!(said(&again.outputs()).contains(&group.checkpoint(1, 4, root)));
    make_stable(&mut again, 4);
    assert_eq!(again.replica.configuration().epoch(), Epoch::new(1));
}

/// "The state at C is that of the next epoch, and is voted for in the old one." (§11) In the next one it is not voted for.
#[test]
fn the_state_that_an_epoch_began_with_is_not_voted_for_in_it() {
    let backup = after_an_epoch(1);
    let mut again = backup.restart();
    assert_eq!(again.replica.configuration().epoch(), Epoch::new(1));
    assert!(again.replica.is_voter() && again.replica.state_root_at(slot(4)).is_some());
    let is_vote = |message: &Message| matches!(message, Message::Checkpoint(_));
    assert!(!said(&again.all_outputs()).iter().any(is_vote));
    assert!(!said(&again.settle()).iter().any(is_vote));
}

/// "The log names the epoch and the incarnation; after a crash a replica takes up the votes of that epoch and no others."
/// (§11)
#[test]
fn after_a_crash_the_votes_of_the_epoch_are_taken_up_and_no_others() {
    let mut backup = at_the_end(2);
    let old = backup.group.clone();
    backup.hear(0, old.pre_prepare(0, 0, 5, &old.batch(5)));
    backup.hear(0, old.pre_prepare(0, 0, 6, &old.batch(6)));
    backup.settle();
    make_stable(&mut backup, 4);
    backup.group = old.in_epoch(1, 4);
    let group = backup.group.clone();
    let batch = group.batch(9);
    let vote = group.vote(1, Prepare { epoch: Epoch::new(1), ..prepare(0, 5, batch.digest()) });
    let proposal = PrePrepare { vote, batch: batch.body().clone().into() };
    backup.hear(1, Message::PrePrepare(proposal));
    backup.settle();
    backup.group = old;
    let again = backup.restart();
    assert_eq!(again.replica.configuration().epoch(), Epoch::new(1));
    assert_eq!((again.replica.stable(), again.replica.log_length()), (slot(4), 1));
}

/// "It votes again in the next epoch, if that names its incarnation, after asking like at a start." (§9)
#[test]
fn who_is_named_votes_again_after_asking() {
    let group = Group::of_four();
    let mut learner = Subject::start_asking(&group, 3, START_MS, None, vec![]);
    learner.settle();
    let rejoin = group.batch_at(0, vec![group.rejoin(3, 0, TOKEN)]);
    decide(&mut learner, 1, &rejoin);
    fill(&mut learner, 2, 4);
    assert_eq!(learner.replica.not_voting(), Some(NotVoting::Lost(Loss::Empty)));
    let root = learner.replica.state_root_at(slot(4)).expect("taken");
    learner.hear(0, Message::Stable(group.stable(4, root, &[0, 1, 2])));
    assert_eq!(learner.replica.not_voting(), Some(NotVoting::Asking { answers: 0, needed: 2 }));
    learner.group = group.in_epoch(1, 4);
    let told = quorate_protocol::message::Statements { token: TOKEN + 1, ..learner.group.no_statements() };
    for from in [0, 1] {
        learner.hear(from, Message::Statements(told.clone()));
    }
    assert_eq!(learner.replica.not_voting(), None);
}

/// The same: one that the epoch does not name, since it has lost votes once more, asks for the next.
#[test]
fn who_is_named_by_another_number_than_its_own_goes_on_learning() {
    let group = Group::of_four();
    let mut learner = Subject::start_asking(&group, 3, START_MS, None, vec![]);
    learner.settle();
    decide(&mut learner, 1, &rejoining(&group, 0, 0));
    fill(&mut learner, 2, 4);
    let root = learner.replica.state_root_at(slot(4)).expect("taken");
    learner.hear(0, Message::Stable(group.stable(4, root, &[0, 1, 2])));
    assert_eq!(learner.replica.configuration().epoch(), Epoch::new(1));
    assert!(matches!(learner.replica.not_voting(), Some(NotVoting::Lost(_))));
    learner.settle();
    learner.now_ms += u64::from(small().rejoin_interval_ms);
    let rejoin = Message::Request(group.rejoin(3, 1, TOKEN));
    assert!(said(&learner.pass(100)).contains(&rejoin));
}

/// "A replica whose epoch names another incarnation than its own has been replaced by another log, and has lost votes too."
/// (§9)
#[test]
fn who_is_replaced_by_another_log_under_its_key_has_lost_votes() {
    let mut replaced = at_the_end(3);
    assert_eq!(replaced.replica.not_voting(), None);
    let outputs = make_stable(&mut replaced, 4);
    assert_eq!(replaced.replica.not_voting(), Some(NotVoting::Lost(Loss::Replaced)));
    assert!(appended(&outputs).contains(&Record::Incarnation(Incarnation::new(TOKEN))));
}

/// "A replica that hears a `Status` of an earlier epoch answers with its stable certificate." (§11)
#[test]
fn who_is_in_an_earlier_epoch_is_shown_the_certificate() {
    let mut backup = after_an_epoch(1);
    let root = backup.replica.state_root_at(slot(4)).expect("taken");
    let outputs = backup.hear(3, Message::Status(idle_status(0)));
    let certificate = Group::of_four().stable(4, root, &[0, 1, 2]);
    assert_eq!(said(&outputs), [Message::Stable(certificate)]);
    let outputs = backup.hear(3, Message::Status(Status { stable: slot(4), ..idle_status(0) }));
    assert_eq!(said(&outputs), [], "it has it");
}

/// "One that gets a certificate of a later epoch keeps it and catches up: by decided slots up to C while peers hand them out,
/// and by a state transfer otherwise." (§11)
#[test]
fn who_is_an_epoch_behind_takes_the_state_of_the_later_one() {
    let mut source = after_an_epoch(1);
    for sequence in 5..=8 {
        let batch = source.group.batch(u8::try_from(sequence).expect("small"));
        in_epoch_one(&mut source, sequence, &batch);
    }
    let root = source.replica.state_root_at(slot(8)).expect("taken");
    let later = source.group.clone();
    let certificate = later.certificate(Checkpoint { epoch: Epoch::new(1), sequence: slot(8), root }, &[0, 1, 2]);
    let mut behind = Subject::of_four(2);
    behind.hear(0, Message::Stable(certificate.clone()));
    assert_eq!(behind.replica.stable(), slot(0), "its own epoch has no such certificate");
    let status =
        Status { epoch: Epoch::new(1), stable: slot(8), executed: slot(8), decided_from: slot(9), ..idle_status(0) };
    for id in [0, 1] {
        behind.hear(id, Message::Status(status.clone()));
    }
    behind.pass(500);
    assert_eq!(behind.replica.transfer_target(), Some(slot(8)));
    let asked = behind.step(ready(no_leaves()));
    serve(&mut behind, &asked, &source.protocol());
    behind.step(Input::StateStaged { sequence: slot(8), application_root: Some(application_root(slot(8))) });
    let is_vote = |message: &Message| matches!(message, Message::Checkpoint(_));
    let mut without_room = behind.clone();
    without_room.step(Input::LogFull);
    let outputs = without_room.step(Input::StateInstalled { sequence: slot(8) });
    assert_eq!(without_room.replica.executed(), slot(8));
    assert_eq!(without_room.replica.configuration().epoch(), Epoch::ZERO, "entering takes a record");
    assert!(!said(&outputs).iter().any(is_vote), "it is no state of the old epoch");
    without_room.step(Input::LogHasRoom);
    assert_eq!(without_room.replica.configuration().epoch(), Epoch::new(1));
    let outputs = behind.step(Input::StateInstalled { sequence: slot(8) });
    assert!(notices(&outputs).contains(&Notice::EpochEntered { epoch: Epoch::new(1), began: slot(4) }), "{outputs:?}");
    assert_eq!((behind.replica.stable(), behind.replica.executed()), (slot(8), slot(8)));
    assert_eq!(appended(&outputs)[0], Record::Epoch(source.replica.membership().clone(), certificate));
    assert!(!said(&outputs).iter().any(is_vote), "of no epoch of its own");
}

/// "an ordered request under the member's own key" (§9): nobody else's request is a `Rejoin`.
#[test]
fn a_rejoin_of_who_is_no_member_is_not_a_request() {
    let group = Group::of_four();
    let request = |signer: quorate_crypto::PublicKey, signed: SignedRequest| {
        let mut content: quorate_protocol::batch::Request =
            quorate_protocol::codec::decode(signed.body.bytes()).expect("a request");
        content.client = signer;
        content.sign(group.cluster(), &crate::support::StandIn(signer)).expect("short")
    };
    let parse = |signed| quorate_protocol::batch::ParsedRequest::parse(signed, &group.0);
    assert!(parse(group.rejoin(3, 0, NEW)).is_ok());
    assert!(parse(request(client(1), group.rejoin(3, 0, NEW))).is_err());
}

/// "A replica that lost votes counts among the f until the epoch in which it cast them ends." (§9): a start that finds its
/// records damaged is a learner, whatever they hold.
#[test]
fn a_damaged_log_is_a_loss_of_votes() {
    let group = Group::of_four();
    let first = (RecordNumber::ZERO, Recovered::Whole(Record::Incarnation(Incarnation::ZERO)));
    let learner = Subject::start_damaged(&group, 1, vec![first]);
    assert_eq!(learner.replica.not_voting(), Some(NotVoting::Lost(Loss::Damaged)));
    assert!(!learner.replica.refusals().contains_key(&Refusal::NotVoting));
}
