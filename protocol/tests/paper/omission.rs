//! §9: omission and lag. What is missing is asked for, what a peer lacks is sent again.

use quorate_protocol::codec::List;
use quorate_protocol::message::{Content, Decided, Fetch, Message, Part, Progress, Status, Want};
use quorate_protocol::refusal::Refusal;
use quorate_protocol::{Input, Output};

use crate::checkpoints::install;
use crate::support::subject::{Subject, executed, idle_status, said};
use crate::support::transfer::behind_a_checkpoint;
use crate::support::{client, commit, digest, replica, slot, view};

/// "Every replica sends a small `Status` at each heartbeat: view, watermark, last executed slot, how far each slot after both
/// is." (§9)
#[test]
fn a_status_is_sent_at_each_heartbeat() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    backup.decide(0, 1, &group.batch(1));
    backup.settle();
    backup.hear(0, group.pre_prepare(0, 0, 3, &group.batch(3)));
    backup.status = None;
    backup.pass(99);
    assert_eq!(backup.status, None);
    backup.pass(1);
    let status = backup.status.clone().expect("a heartbeat passed");
    assert_eq!((status.view, status.entered, status.executed), (view(0), true, slot(1)));
    assert_eq!(status.slots[..], [Progress::Nothing, Progress::PrePrepared]);
}

/// The same: it says too whose votes for its latest checkpoint it holds, and whose view changes.
#[test]
fn a_status_tells_whose_votes_it_holds() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    for sequence in 1..=4 {
        backup.decide(0, sequence, &group.batch(u8::try_from(sequence).expect("small")));
        backup.settle();
    }
    backup.hear(3, group.checkpoint(3, 4, backup.replica.state_root_at(slot(4)).expect("taken")));
    backup.hear(2, Message::ViewChange(group.empty_view_change(2, 1)));
    backup.pass(100);
    let status = backup.status.clone().expect("a heartbeat passed");
    assert_eq!((status.checkpoint_votes, status.view_changes), (0b1010, 0b0100));
}

/// The same: what is stable needs no votes any more.
#[test]
fn a_status_tells_of_no_votes_for_what_is_stable() {
    let (source, mut behind) = behind_a_checkpoint();
    install(&mut behind, &source);
    behind.pass(100);
    assert_eq!(behind.status.clone().expect("a heartbeat passed").checkpoint_votes, 0);
}

/// "A peer that stands where its status before stood gets what it lacks, within a budget; what was merely under way is not
/// sent twice." (§9)
#[test]
fn only_a_peer_that_stands_still_gets_votes_again() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let batch = group.batch(0);
    backup.decide(0, 1, &batch);
    backup.settle();
    backup.pass(100);
    let mut status = idle_status(0);
    assert_eq!(said(&backup.hear(3, Message::Status(status.clone()))), [], "the first status");
    let own = Message::Commit(group.vote(1, commit(0, 1, batch.digest())));
    let outputs = backup.hear(3, Message::Status(status.clone()));
    assert_eq!(said(&outputs), [group.prepare(1, 0, 1, batch.digest()), own.clone()]);
    status.slots = List::new(vec![Progress::Prepared]).expect("one");
    assert_eq!(said(&backup.hear(3, Message::Status(status.clone()))), [own], "it lacks the commit only");
    status.slots = List::new(vec![Progress::Committed]).expect("one");
    assert_eq!(said(&backup.hear(3, Message::Status(status.clone()))), []);
    status.executed = slot(1);
    status.slots = List::empty();
    assert_eq!(said(&backup.hear(3, Message::Status(status))), [], "it moved");
}

/// "how far each slot after both is" (§9): one that fetches a state votes on new slots meanwhile, and says so.
#[test]
fn a_peer_that_has_yet_to_execute_what_is_stable_gets_no_more_than_it_lacks_above() {
    let mut primary = Subject::of_four(0);
    let group = primary.group.clone();
    for sequence in 1..=5 {
        primary.ask(group.opening(client(u8::try_from(sequence).expect("small")), 1));
        primary.decide(0, sequence, &group.batch(u8::try_from(sequence).expect("small")));
    }
    primary.settle();
    let root = primary.replica.state_root_at(slot(4)).expect("taken");
    primary.hear_all([1, 2].map(|id| (id, group.checkpoint(id, 4, root))));
    assert_eq!(primary.replica.stable(), slot(4));
    primary.pass(100);
    let slots = List::new(vec![Progress::Prepared]).expect("one");
    let status = Status { stable: slot(4), slots, ..idle_status(0) };
    primary.hear(3, Message::Status(status.clone()));
    let outputs = said(&primary.hear(3, Message::Status(status)));
    assert!(matches!(&outputs[..], [Message::Commit(vote)] if vote.statement.sequence == slot(5)), "{outputs:?}");
    // As that peer says it.
    let mut behind = Subject::of_four(3);
    behind.hear(1, Message::Stable(group.stable(4, root, &[0, 1, 2])));
    behind.hear(0, group.pre_prepare(0, 0, 5, &group.batch(5)));
    behind.pass(100);
    let said = behind.status.clone().expect("a heartbeat passed");
    assert_eq!((said.executed, said.stable, said.slots.to_vec()), (slot(0), slot(4), vec![Progress::PrePrepared]));
}

/// The same: only what is durable is sent, again too.
#[test]
fn a_vote_that_is_not_durable_is_not_sent_again_either() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    backup.hear(0, group.pre_prepare(0, 0, 1, &group.batch(0)));
    for _ in 0..3 {
        assert_eq!(said(&backup.hear(3, Message::Status(idle_status(0)))), []);
    }
}

/// The same: a primary sends the proposal with its batch to who has not accepted it.
#[test]
fn a_primary_sends_its_proposal_again() {
    let mut primary = Subject::of_four(0);
    let group = primary.group.clone();
    primary.ask(group.opening(client(0), 1));
    let sent = said(&primary.sync());
    primary.hear(3, Message::Status(idle_status(0)));
    primary.pass(100);
    assert_eq!(said(&primary.hear(3, Message::Status(idle_status(0)))), sent);
}

/// "within a budget" (§9)
#[test]
fn a_peer_that_asks_again_and_again_is_refused_until_the_next_heartbeat() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    backup.decide(0, 1, &group.batch(1));
    backup.settle();
    backup.pass(100);
    let ask = || Message::Fetch(Fetch::Decided { after: slot(0) });
    let mut answers = 0_u64;
    while !said(&backup.hear(3, ask())).is_empty() {
        answers += 1;
        assert!(answers < 100_000, "there is no budget");
    }
    assert!(backup.replica.refusals()[&Refusal::RateExceeded] > 0);
    assert_eq!(said(&backup.hear(2, ask())).len(), 1, "each peer has its own");
    backup.pass(100);
    assert_eq!(said(&backup.hear(3, ask())).len(), 1);
}

/// The same: what its status lacks counts too, the proof of the watermark and of the view, and the view change.
#[test]
fn a_peer_that_says_again_and_again_that_it_lacks_something_is_refused_until_the_next_heartbeat() {
    let mut at_watermark = Subject::of_four(1);
    let group = at_watermark.group.clone();
    at_watermark.hear(0, Message::Stable(group.stable(4, digest(4), &[0, 2, 3])));
    let mut between_views = Subject::of_four(1);
    between_views.leave();
    between_views.settle();
    for mut backup in [at_watermark, between_views] {
        backup.pass(100);
        let mut answers = 0_u64;
        let before = backup.replica.refusals().get(&Refusal::RateExceeded).copied();
        while !said(&backup.hear(3, Message::Status(idle_status(0)))).is_empty() {
            answers += 1;
            assert!(answers < 20_000, "there is no budget");
        }
        assert!(answers > 0);
        assert!(backup.replica.refusals().get(&Refusal::RateExceeded).copied() > before);
        backup.pass(100);
        assert!(!said(&backup.hear(3, Message::Status(idle_status(0)))).is_empty(), "the next heartbeat");
    }
}

/// The same: the part of a state that was asked for last comes with the next heartbeat. The peer waits for it, and would turn
/// to another source, which may be a liar, for each sixteenth of a gigabyte.
#[test]
fn a_part_beyond_the_budget_is_handed_out_at_the_next_heartbeat() {
    let mut backup = Subject::of_four(1);
    backup.pass(100);
    let want = |group| Want::Leaves { group };
    let ask = |number| Message::Fetch(Fetch::Part { sequence: slot(4), want: want(number) });
    let part = |number| Output::SendPart { to: replica(3), sequence: slot(4), want: want(number) };
    for number in 0..64 {
        assert_eq!(backup.hear(3, ask(number)), [part(number)]);
    }
    for number in 64..70 {
        assert_eq!(backup.hear(3, ask(number)), [], "16 MiB are 64 parts");
    }
    assert_eq!(backup.hear(2, ask(7)).len(), 1, "each peer has its own");
    assert_eq!(backup.pass(100), [part(69)]);
    assert_eq!(backup.pass(1000).iter().filter(|output| matches!(output, Output::SendPart { .. })).count(), 0);
}

/// "Behind others, a replica fetches decided slots with their certificates, from one peer at a time." (§9)
#[test]
fn a_replica_behind_fetches_decided_slots_and_executes_them() {
    let mut behind = Subject::of_four(1);
    let group = behind.group.clone();
    let mut status = idle_status(0);
    status.executed = slot(3);
    let mut outputs = Vec::new();
    for _ in 0..2 {
        for id in [0, 2] {
            outputs.extend(behind.hear(id, Message::Status(status.clone())));
        }
        outputs.extend(behind.pass(100));
    }
    let fetches: Vec<&Output> = outputs.iter().filter(|output| matches!(output, Output::Send { .. })).collect();
    let fetch = Message::Fetch(Fetch::Decided { after: slot(0) });
    assert_eq!(fetches, [&Output::Send { to: replica(2), message: fetch }]);
    let decided = |sequence: u64| {
        let batch = group.batch(u8::try_from(sequence).expect("small"));
        let certificate = group.committed(0, sequence, batch.digest(), &[0, 2, 3]);
        Message::Decided(Decided { certificate, batch: batch.body().clone().into() })
    };
    let outputs: Vec<Output> = [3, 1, 2].into_iter().flat_map(|sequence| behind.hear(2, decided(sequence))).collect();
    assert_eq!(executed(&outputs), [1, 2, 3]);
}

/// The same: a peer that does not answer is replaced by the next.
#[test]
fn a_peer_that_does_not_hand_out_what_it_claims_is_replaced() {
    let mut behind = Subject::of_four(1);
    let mut status = idle_status(0);
    status.executed = slot(3);
    let mut asked = Vec::new();
    for _ in 0..10 {
        for id in [0, 2, 3] {
            behind.hear(id, Message::Status(status.clone()));
        }
        asked.extend(behind.pass(100).into_iter().filter_map(|output| match output {
            Output::Send { to, message: Message::Fetch(Fetch::Decided { .. }) } => Some(to.value()),
            _ => None,
        }));
    }
    assert_eq!(asked[..3], [2, 3, 0]);
}

/// "answers only to what was asked" (§3, table)
#[test]
fn what_nobody_asked_for_is_refused() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    let part = Part { sequence: slot(4), want: Want::Crown, content: Content::Crown(List::empty()) };
    assert_eq!(backup.hear(3, Message::Part(part)), []);
    let batch =
        quorate_protocol::message::FetchedBatch { sequence: slot(1), batch: group.batch(0).body().clone().into() };
    assert_eq!(backup.hear(3, Message::Batch(batch)), []);
    assert_eq!(backup.replica.refusals()[&Refusal::Unasked], 2);
    for fetch in [
        Fetch::Batch { sequence: slot(1), digest: digest(1) },
        Fetch::ViewChange { digest: digest(1) },
        Fetch::NewView { view: view(0) },
    ] {
        assert_eq!(backup.hear(3, Message::Fetch(fetch)), []);
    }
    assert_eq!(backup.replica.refusals()[&Refusal::Nothing], 3);
}

/// "The replica that a vote names is the one that the channel authenticated" (§4)
#[test]
fn a_message_of_a_stranger_or_of_oneself_is_refused() {
    let mut backup = Subject::of_four(1);
    let group = backup.group.clone();
    for from in [1, 9] {
        let message = group.check(2, Message::Status(idle_status(0)));
        assert_eq!(backup.step(Input::Message { from: replica(from), message }), []);
    }
    assert_eq!(backup.replica.refusals()[&Refusal::Unasked], 2);
}

/// "a replica fetches decided slots with their certificates" (§9): of the slots asked for, at most a few at once.
#[test]
fn a_peer_below_the_low_watermark_is_told_what_is_stable() {
    let (source, _) = behind_a_checkpoint();
    let mut source = source;
    let group = source.group.clone();
    let root = source.replica.state_root_at(slot(4)).expect("taken");
    let certificate = group.stable(4, root, &[0, 1, 3]);
    source.hear(0, Message::Stable(certificate.clone()));
    source.settle();
    let outputs = source.hear(3, Message::Status(idle_status(0)));
    assert_eq!(said(&outputs), [Message::Stable(certificate)]);
}
