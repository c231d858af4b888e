//! §9, loss of votes: what a start asks, what it learns from that, and what a replica does that has lost votes.

use quorate_protocol::codec::List;
use quorate_protocol::message::{Fetch, Message, Statements};
use quorate_protocol::number::{Epoch, Incarnation, RecordNumber};
use quorate_protocol::output::{Loss, NotVoting};
use quorate_protocol::record::{Record, Recovered};
use quorate_protocol::refusal::Refusal;
use quorate_protocol::statement::{Checkpoint, Prepare};
use quorate_protocol::{Machine as _, Output};

use crate::support::subject::{Subject, appended, executed, idle_status, said};
use crate::support::{Group, START_MS, TOKEN, commit, digest, prepare, replica, slot, view};

/// Backup 1 of four with nothing on its disk but the first record, before anyone answered.
fn asking(group: &Group) -> Subject {
    let first = (RecordNumber::ZERO, Recovered::Whole(Record::Incarnation(Incarnation::ZERO)));
    Subject::start_asking(group, 1, START_MS, None, vec![first])
}

/// The same, whose log holds a vote on slot 1 in view 0 too, prepared and committed.
fn asking_with_a_vote(group: &Group) -> Subject {
    let mut backup = Subject::of_four(1);
    let batch = group.batch(1);
    backup.hear(0, group.pre_prepare(0, 0, 1, &batch));
    backup.hear_all([2, 3].map(|id| (id, group.prepare(id, 0, 1, batch.digest()))));
    let records = backup.records.iter().map(|(number, record)| (*number, Recovered::Whole(record.clone())));
    let first = (RecordNumber::ZERO, Recovered::Whole(Record::Incarnation(Incarnation::ZERO)));
    Subject::start_asking(group, 1, START_MS, None, core::iter::once(first).chain(records).collect())
}

fn answer(subject: &mut Subject, from: u8, statements: Statements) -> Vec<Output> {
    subject.hear(from, Message::Statements(statements))
}

/// "at each start a replica asks the others for what it has signed, and votes on nothing before q - 1 of them have answered"
/// (§9)
#[test]
fn a_start_asks_all_others_and_votes_when_a_quorum_less_one_has_answered() {
    let group = Group::of_four();
    let mut backup = asking(&group);
    let asked: Vec<u8> = backup
        .all_outputs()
        .iter()
        .filter_map(|output| match output {
            Output::Send { to, message: Message::Fetch(Fetch::Statements { token: TOKEN }) } => Some(to.value()),
            _ => None,
        })
        .collect();
    assert_eq!(asked, [0, 2, 3]);
    let batch = group.batch(1);
    assert_eq!(appended(&backup.hear(0, group.pre_prepare(0, 0, 1, &batch))), []);
    assert_eq!(backup.replica.refusals()[&Refusal::NotVoting], 1);
    answer(&mut backup, 2, group.no_statements());
    answer(&mut backup, 2, group.no_statements());
    answer(&mut backup, 3, Statements { token: TOKEN + 1, ..group.no_statements() });
    assert_eq!(backup.replica.not_voting(), Some(NotVoting::Asking { answers: 1, needed: 2 }));
    answer(&mut backup, 3, group.no_statements());
    assert_eq!(backup.replica.not_voting(), None);
    assert_eq!(appended(&backup.hear(0, group.pre_prepare(0, 0, 1, &batch))).len(), 1);
}

/// The same: who does not answer is asked with each status, who answered is not asked again.
#[test]
fn who_has_not_answered_is_asked_again() {
    let group = Group::of_four();
    let mut backup = asking(&group);
    backup.all_outputs();
    answer(&mut backup, 2, group.no_statements());
    backup.now_ms += 100;
    backup.replica.handle(crate::support::subject::now(backup.now_ms), quorate_protocol::Input::Wake);
    let asked: Vec<u8> = backup
        .all_outputs()
        .iter()
        .filter_map(|output| match output {
            Output::Send { to, message: Message::Fetch(Fetch::Statements { .. }) } => Some(to.value()),
            _ => None,
        })
        .collect();
    assert_eq!(asked, [0, 3]);
}

/// What others may show to backup 1 that its log should hold.
fn shown(group: &Group) -> Vec<(&'static str, Statements)> {
    let none = group.no_statements();
    let batch = group.batch(1).digest();
    let prepared = |of_view, sequence, digest| List::new(vec![group.vote(1, prepare(of_view, sequence, digest))]);
    let committed = |of_view, sequence, digest| List::new(vec![group.vote(1, commit(of_view, sequence, digest))]);
    let later = Epoch::new(1);
    let of_later = group.vote(1, Prepare { epoch: later, ..prepare(0, 1, batch) });
    let of = |prepares: Option<_>| Statements { prepares: prepares.expect("one"), ..none.clone() };
    let of_commits = |commits: Option<_>| Statements { commits: commits.expect("one"), ..none.clone() };
    let view_change = Some(group.empty_view_change(1, 1));
    let named = [0, 1, 2].map(|id| (id, group.empty_view_change(id, 1)));
    let named: Vec<_> = named.iter().map(|(id, signed)| (*id, signed)).collect();
    vec![
        (
            "a later epoch",
            Statements { epoch: later, prepares: List::new(vec![of_later]).expect("one"), ..none.clone() },
        ),
        ("a vote of a higher view", of(prepared(1, 1, batch))),
        ("a vote for another digest", of(prepared(0, 1, digest(9)))),
        ("a vote on a slot that is not known", of(prepared(0, 2, batch))),
        ("a vote above the high watermark", of(prepared(0, 9, batch))),
        ("a commit of a higher view", of_commits(committed(1, 1, batch))),
        ("a commit of another digest", of_commits(committed(0, 1, digest(9)))),
        ("a commit on a slot that is not known", of_commits(committed(0, 2, batch))),
        ("a view change", Statements { view_change, ..none.clone() }),
        ("a new view", Statements { new_view: Some(group.new_view(1, 1, &named, &[])), ..none.clone() }),
    ]
}

/// "A statement is lost that is of a later epoch; or of its own epoch, and of a higher view than it asked for, of another
/// digest for the same kind, view and slot, or of a slot above its low watermark that it does not know." (§9)
#[test]
fn one_statement_that_the_log_lacks_is_a_loss_whoever_shows_it() {
    let group = Group::of_four();
    for (what, statements) in shown(&group) {
        for from in [0, 3] {
            let mut backup = asking_with_a_vote(&group);
            answer(&mut backup, 2, group.no_statements());
            answer(&mut backup, from, statements.clone());
            let lost = Some(NotVoting::Lost(Loss::Shown { by: replica(from) }));
            assert_eq!(backup.replica.not_voting(), lost, "{what}");
        }
    }
}

/// "Older epochs prove nothing." (§9) Neither does what the log holds, or what was said before it.
#[test]
fn what_the_log_holds_or_has_left_behind_is_no_loss() {
    let group = Group::of_four();
    let batch = group.batch(1).digest();
    let own = Statements {
        prepares: List::new(vec![group.vote(1, prepare(0, 1, batch))]).expect("one"),
        commits: List::new(vec![group.vote(1, commit(0, 1, batch))]).expect("one"),
        ..group.no_statements()
    };
    let mut backup = asking_with_a_vote(&group);
    answer(&mut backup, 2, own.clone());
    answer(&mut backup, 3, own);
    assert_eq!(backup.replica.not_voting(), None);

    let mut backup = asking(&group);
    backup.hear(0, Message::Stable(group.stable(4, digest(4), &[0, 2, 3])));
    let below = Statements {
        prepares: List::new(vec![group.vote(1, prepare(0, 4, batch))]).expect("one"),
        ..group.no_statements()
    };
    answer(&mut backup, 2, below.clone());
    answer(&mut backup, 3, below);
    assert_eq!(backup.replica.not_voting(), None, "at or below the low watermark");

    let later = group.in_epoch(1, 4);
    let mut backup = crate::epochs::after_an_epoch(1);
    backup.group = later;
    let mut again = backup.restart_asking();
    answer(&mut again, 2, shown(&group)[1].1.clone());
    answer(&mut again, 3, shown(&group)[7].1.clone());
    assert_eq!(again.replica.not_voting(), None, "of an older epoch");
}

/// "A vote for a checkpoint that it does not know binds it, and is no loss" (§9)
#[test]
fn a_vote_for_a_checkpoint_that_others_remember_is_not_cast_again_with_another_root() {
    let group = Group::of_four();
    let mut backup = asking(&group);
    let root = Checkpoint { epoch: Epoch::ZERO, sequence: slot(4), root: digest(4) };
    let told = Statements { checkpoints: List::new(vec![group.vote(1, root)]).expect("one"), ..group.no_statements() };
    answer(&mut backup, 2, told);
    answer(&mut backup, 3, group.no_statements());
    assert_eq!(backup.replica.not_voting(), None);
    for sequence in 1..=4 {
        backup.decide(0, sequence, &group.batch(u8::try_from(sequence).expect("small")));
    }
    let votes = said(&backup.settle()).into_iter().filter(|message| matches!(message, Message::Checkpoint(_)));
    assert_eq!(votes.count(), 0);
}

/// The same, of the root that it has: it is cast again, since who remembers it may be started too.
#[test]
fn a_vote_for_a_checkpoint_that_others_remember_is_cast_again_with_the_same_root() {
    let group = Group::of_four();
    let mut backup = Subject::of_four(1);
    for sequence in 1..=4 {
        backup.decide(0, sequence, &group.batch(u8::try_from(sequence).expect("small")));
        backup.settle();
    }
    let root = backup.replica.state_root_at(slot(4)).expect("taken");
    let mut again = backup.restart_asking();
    let vote = group.vote(1, Checkpoint { epoch: Epoch::ZERO, sequence: slot(4), root });
    let told = Statements { checkpoints: List::new(vec![vote]).expect("one"), ..group.no_statements() };
    let mut outputs = answer(&mut again, 2, told.clone());
    outputs.extend(answer(&mut again, 3, told));
    assert!(said(&outputs).contains(&Message::Checkpoint(vote)), "{outputs:?}");
}

/// What is told must be signed, by this replica, of one epoch.
#[test]
fn statements_of_others_count_for_nothing() {
    let group = Group::of_four();
    let mut backup = asking(&group);
    let of_another = Statements {
        prepares: List::new(vec![group.vote(2, prepare(5, 1, digest(1)))]).expect("one"),
        ..group.no_statements()
    };
    answer(&mut backup, 2, of_another.clone());
    assert_eq!(backup.replica.not_voting(), Some(NotVoting::Asking { answers: 0, needed: 2 }));
    let check = |statements| {
        let configuration = &group.0;
        let message = Message::Statements(statements);
        quorate_protocol::verify::verify(message, replica(2), configuration, &mut crate::support::StandInVerifier)
    };
    let own = group.vote(1, prepare(0, 1, digest(1)));
    let both = List::new(vec![own, of_another.prepares[0]]).expect("two");
    assert!(check(Statements { prepares: both, ..group.no_statements() }).is_err(), "of two members");
    let prepares = List::new(vec![own]).expect("one");
    assert!(check(Statements { prepares: prepares.clone(), ..group.no_statements() }).is_ok());
    let epoch = Epoch::new(1);
    assert!(check(Statements { prepares, epoch, ..group.no_statements() }).is_err(), "of another epoch than it says");
    let asked = Statements { view_change: Some(group.empty_view_change(1, 1)), ..group.no_statements() };
    let began = Statements { new_view: Some(group.new_view(1, 1, &[], &[])), ..group.no_statements() };
    for said in [asked, began] {
        assert!(check(said.clone()).is_ok());
        let vote = group.vote(1, Prepare { epoch: Epoch::new(1), ..own.statement });
        let prepares = List::new(vec![vote]).expect("one");
        assert!(check(Statements { prepares, ..said }).is_err(), "of two epochs");
    }
    let mut forged = own;
    forged.signature = group.vote(2, own.statement).signature;
    let prepares = List::new(vec![forged]).expect("one");
    assert!(check(Statements { prepares, ..group.no_statements() }).is_err(), "not signed");
    let view_change = group.empty_view_change(1, 1);
    assert!(check(Statements { view_change: Some(view_change.clone()), epoch, ..group.no_statements() }).is_err());
    let mut forged = view_change;
    forged.signature = own.signature;
    assert!(check(Statements { view_change: Some(forged), ..group.no_statements() }).is_err(), "a forged view change");
}

/// A peer tells all that it holds of the asking member, and nothing of others.
#[test]
fn a_replica_tells_what_it_holds_of_who_asks() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let batch = group.batch(1);
    backup.hear(0, group.pre_prepare(0, 0, 1, &batch));
    backup.hear_all([1, 3].map(|id| (id, group.prepare(id, 0, 1, batch.digest()))));
    backup.hear_all([1, 3].map(|id| (id, group.commit(id, 0, 1, batch.digest()))));
    backup.hear(1, group.checkpoint(1, 4, digest(4)));
    backup.hear(1, Message::ViewChange(group.empty_view_change(1, 1)));
    let expected = Statements {
        token: 5,
        prepares: List::new(vec![group.vote(1, prepare(0, 1, batch.digest()))]).expect("one"),
        commits: List::new(vec![group.vote(1, commit(0, 1, batch.digest()))]).expect("one"),
        checkpoints: List::new(vec![
            group.vote(1, Checkpoint { epoch: Epoch::ZERO, sequence: slot(4), root: digest(4) }),
        ])
        .expect("one"),
        view_change: Some(group.empty_view_change(1, 1)),
        reached: slot(1),
        ..group.no_statements()
    };
    let outputs = backup.hear(1, Message::Fetch(Fetch::Statements { token: 5 }));
    assert_eq!(said(&outputs), [Message::Statements(expected)]);
}

/// The same, of the highest slots that it voted on, though they left the log since.
#[test]
fn a_replica_tells_the_last_votes_of_who_asks_though_their_slots_left_the_log() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    for sequence in 1..=4 {
        let batch = group.batch(u8::try_from(sequence).expect("small"));
        backup.decide(0, sequence, &batch);
        backup.settle();
    }
    let root = backup.replica.state_root_at(slot(4)).expect("taken");
    backup.hear(0, Message::Stable(group.stable(4, root, &[0, 2, 3])));
    assert_eq!(backup.replica.slot_count(), 0);
    let batch = group.batch(4);
    let expected = Statements {
        token: 5,
        prepares: List::new(vec![group.vote(1, prepare(0, 4, batch.digest()))]).expect("one"),
        commits: List::new(vec![group.vote(1, commit(0, 4, batch.digest()))]).expect("one"),
        reached: slot(4),
        ..group.no_statements()
    };
    let outputs = backup.hear(1, Message::Fetch(Fetch::Statements { token: 5 }));
    assert_eq!(said(&outputs), [Message::Statements(expected)]);
}

/// The same, of votes that are here in certificates alone: after a restart.
#[test]
fn votes_in_certificates_are_told_too() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let batch = group.batch(1);
    backup.hear(0, group.pre_prepare(0, 0, 1, &batch));
    backup.hear_all([1, 3].map(|id| (id, group.prepare(id, 0, 1, batch.digest()))));
    backup.sync();
    backup.hear_all([0, 1].map(|id| (id, group.commit(id, 0, 1, batch.digest()))));
    backup.sync();
    let rests_on = [0, 1, 3].map(|id| (id, group.empty_view_change(id, 1)));
    backup.hear_all(rests_on.iter().map(|(id, signed)| (*id, Message::ViewChange(signed.clone()))));
    let named: Vec<_> = rests_on.iter().map(|(id, signed)| (*id, signed)).collect();
    let new_view = group.new_view(1, 1, &named, &[]);
    backup.hear(1, Message::NewView(new_view.clone()));
    assert_eq!(backup.replica.view(), view(1));
    let mut again = backup.restart();
    let outputs = again.hear(1, Message::Fetch(Fetch::Statements { token: 5 }));
    let [Message::Statements(told)] = &said(&outputs)[..] else { panic!("{outputs:?}") };
    assert_eq!(told.prepares[..], [group.vote(1, prepare(0, 1, batch.digest()))]);
    assert_eq!(told.commits[..], [group.vote(1, commit(0, 1, batch.digest()))]);
    assert_eq!(told.view_change, Some(rests_on[1].1.clone()));
    assert_eq!(told.new_view, Some(new_view));
}

/// Of one that counts towards a stable checkpoint there is one account, though it was held beside others before.
#[test]
fn votes_for_a_stable_checkpoint_are_told_once() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    backup.hear_all([0, 1, 3].map(|id| (id, group.checkpoint(id, 4, digest(4)))));
    assert_eq!(backup.replica.stable(), slot(4));
    let outputs = backup.hear(1, Message::Fetch(Fetch::Statements { token: 5 }));
    let [Message::Statements(told)] = &said(&outputs)[..] else { panic!("{outputs:?}") };
    let [vote] = &told.checkpoints[..] else { panic!("{told:?}") };
    assert_eq!(Message::Checkpoint(*vote), group.checkpoint(1, 4, digest(4)));
}

/// Of votes on slots that left the log the one on the highest slot is told, in whatever order they came.
#[test]
fn of_what_left_the_log_the_highest_is_told() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    for sequence in [3, 4, 2] {
        backup.hear(1, group.prepare(1, 0, sequence, digest(9)));
        backup.hear(1, group.commit(1, 0, sequence, digest(9)));
    }
    backup.hear(0, Message::Stable(group.stable(4, digest(4), &[0, 1, 3])));
    backup.hear(0, Message::Stable(group.stable(12, digest(12), &[0, 1, 3])));
    let outputs = backup.hear(1, Message::Fetch(Fetch::Statements { token: 5 }));
    let [Message::Statements(told)] = &said(&outputs)[..] else { panic!("{outputs:?}") };
    assert_eq!(told.prepares[..], [group.vote(1, prepare(0, 4, digest(9)))]);
    assert_eq!(told.commits[..], [group.vote(1, commit(0, 4, digest(9)))]);
}

/// A replica that has lost votes says nothing of its own, and executes: "It executes, and signs nothing but a `Rejoin`" (§9)
#[test]
fn who_has_lost_votes_executes_and_has_a_rejoin_ordered() {
    let group = Group::of_four();
    let mut learner = Subject::start_asking(&group, 1, START_MS, None, vec![]);
    assert_eq!(learner.replica.not_voting(), Some(NotVoting::Lost(Loss::Empty)));
    let outputs = learner.outputs();
    let incarnation = Incarnation::new(TOKEN);
    assert_eq!(appended(&outputs), [Record::Incarnation(incarnation)]);
    assert_eq!(said(&outputs), [], "not before the incarnation is durable");
    for from in [0, 2, 3] {
        answer(&mut learner, from, group.no_statements());
    }
    learner.sync();
    let rejoin = Message::Request(group.rejoin(1, 0, TOKEN));
    assert_eq!(said(&learner.pass(100)), core::slice::from_ref(&rejoin));
    assert_eq!(said(&learner.pass(400)), [], "others have it, or it is lost");
    assert_eq!(said(&learner.pass(200)), [rejoin]);
    let batch = group.batch(1);
    let mut outputs = learner.hear(0, group.pre_prepare(0, 0, 1, &batch));
    for id in [2, 3] {
        outputs.extend(learner.hear(id, group.prepare(id, 0, 1, batch.digest())));
    }
    for id in [0, 2, 3] {
        outputs.extend(learner.hear(id, group.commit(id, 0, 1, batch.digest())));
    }
    assert_eq!(executed(&outputs), [1]);
    assert_eq!(said(&outputs), []);
    for id in [0, 2] {
        learner.hear(id, Message::ViewChange(group.empty_view_change(id, 1)));
        let status = quorate_protocol::message::Status { suspects: true, ..idle_status(0) };
        learner.hear(id, Message::Status(status));
    }
    assert_eq!(said(&learner.sync()), [], "it joins nobody");
    assert_eq!(learner.replica.mode(), quorate_protocol::replica::Mode::Normal);
    assert_eq!(said(&learner.pass(300)).into_iter().filter(|said| !matches!(said, Message::Fetch(_))).count(), 0);
}

/// "The incarnation is a number never used before, durable before it is said." (§9) Started again before it is named, a
/// replica goes on with it: no vote was ever cast in its name.
#[test]
fn who_has_lost_votes_and_is_started_again_still_has() {
    let group = Group::of_four();
    let mut learner = Subject::start_asking(&group, 1, START_MS, None, vec![]);
    learner.outputs();
    let again = learner.restart_asking();
    assert_eq!(again.replica.not_voting(), Some(NotVoting::Lost(Loss::Earlier)));
    assert_eq!(again.replica.incarnation(), Incarnation::new(TOKEN));
}

/// "said to all, which all expect" (§9): a backup passes it on and expects it, if it comes from the member itself.
#[test]
fn a_members_own_rejoin_is_expected_like_a_clients_request() {
    let mut backup = Subject::of_four(2);
    let group = backup.group.clone();
    let rejoin = Message::Request(group.rejoin(1, 0, 9));
    backup.hear(3, rejoin.clone());
    assert_eq!(backup.replica.queue_length(), 0, "of somebody else it is passed on, which concerns the primary alone");
    let outputs = backup.hear(1, rejoin.clone());
    assert_eq!(outputs, [Output::Send { to: replica(0), message: rejoin }]);
    assert_eq!(backup.replica.queue_length(), 1);
    assert!(!crate::support::subject::suspected(&backup.pass_with_primary_alive(2_000)).is_empty());
}
