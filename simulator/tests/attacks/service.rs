//! Attacks on who is served, and how soon: primaries that do too little, liars that say too much. (PROTOCOL §4, §6, §9)

use core::cell::Cell;
use core::time::Duration;
use std::collections::BTreeSet;
use std::rc::Rc;

use quorate_protocol::message::Message;
use quorate_protocol::refusal::Refusal;
use quorate_protocol::time::Time;
use quorate_simulator::marks::Mark;
use quorate_simulator::{Cluster, Failure, adversary};

use super::{MINUTE, SECOND, besieged, count, expect_survival, keep_busy, submit};

/// What the deadline of a request is at most, with a view change and a retry around it.
const PATIENCE: Duration = Duration::from_secs(15);

/// A primary that plays `attack` is replaced, and its victims are served by the next.
fn expect_replacement(attack: &str) -> Result<(), Failure> {
    for (size, attackers) in [(4, &[0][..]), (7, &[0, 1])] {
        let mut cluster = besieged(size, attackers, attack);
        submit(&mut cluster, 20);
        cluster.run_until_answered(PATIENCE)?;
        let view = cluster.highest_view().value();
        assert!(view >= attackers.len() as u64, "{attack}: view {view}");
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

/// Liars that are no primaries change nothing for anyone.
fn expect_calm(attack: &str) -> Result<(), Failure> {
    for (size, attackers) in [(4, &[2][..]), (7, &[3, 5])] {
        let mut cluster = besieged(size, attackers, attack);
        keep_busy(&mut cluster)?;
        assert_eq!(cluster.highest_view().value(), 0, "{attack}");
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn a_primary_that_says_nothing_is_replaced() -> Result<(), Failure> {
    expect_replacement("silent")
}

#[test]
fn a_primary_that_orders_nothing_but_empty_batches_is_replaced() -> Result<(), Failure> {
    expect_replacement("empty-batches")
}

#[test]
fn a_primary_that_leaves_out_slots_is_replaced_and_nobody_follows_it_beyond_the_window() -> Result<(), Failure> {
    let mut cluster = besieged(4, &[0], "jump-sequence");
    submit(&mut cluster, 20);
    cluster.run_until_answered(PATIENCE)?;
    assert!(cluster.refusals(Refusal::OutsideWatermarks) > 0);
    expect_replacement("jump-sequence")
}

#[test]
fn a_primary_that_signs_for_clients_is_proved_faulty_and_one_that_is_passed_such_requests_is_not() -> Result<(), Failure>
{
    for (size, attackers) in [(4, &[0][..]), (7, &[0, 1])] {
        let mut cluster = besieged(size, attackers, "bad-client-signature");
        submit(&mut cluster, 20);
        cluster.run_until_answered(PATIENCE)?;
        assert!(attackers.iter().all(|attacker| cluster.is_proved_faulty(*attacker)));
        expect_survival(&mut cluster)?;
    }
    expect_calm("bad-client-signature")
}

#[test]
fn a_slow_primary_serves_all_the_same_and_slow_backups_slow_nobody_down() -> Result<(), Failure> {
    let mut cluster = besieged(4, &[0], "slow");
    submit(&mut cluster, 20);
    cluster.run_until_answered(PATIENCE)?;
    expect_survival(&mut cluster)?;
    let mut cluster = besieged(4, &[2], "slow");
    submit(&mut cluster, 20);
    cluster.run_until_answered(Duration::from_millis(200))?;
    expect_survival(&mut cluster)
}

#[test]
fn who_is_shown_late_what_the_others_vote_for_stays_with_them_and_moves_nobody() -> Result<(), Failure> {
    for (size, attackers) in [(4, &[0][..]), (7, &[0, 1])] {
        let mut cluster = besieged(size, attackers, "late-to-some");
        let kept_waiting = count(&mut cluster, &[0], move |to, message| {
            to.index() + 1 == size && matches!(message, Message::PrePrepare(_))
        });
        for _ in 0..100 {
            submit(&mut cluster, 2);
            cluster.run_until_answered(SECOND / 5)?;
            cluster.run_for(Duration::from_millis(50))?;
        }
        assert_eq!(cluster.highest_view().value(), 0);
        let tip = cluster.executed(size - 2 - attackers.len());
        assert!(cluster.executed(size - 1) + 10 >= tip && tip >= 100, "{} of {tip}", cluster.executed(size - 1));
        assert!(kept_waiting.get() > 0, "and then it is told");
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

/// Nothing can be decided without those that are kept waiting: each call would take as long as they do.
#[test]
fn who_shows_proposals_late_and_keeps_its_votes_back_slows_nobody_down() -> Result<(), Failure> {
    for (size, attackers) in [(4, &[0][..]), (7, &[0, 1])] {
        let mut cluster = besieged(size, attackers, "late-to-some,withhold-votes");
        let began = cluster.time();
        let mut slow = 0;
        for _ in 0..200 {
            submit(&mut cluster, 2);
            let asked = cluster.time();
            cluster.run_until_answered(SECOND / 2)?;
            slow += u32::from(cluster.time().since(asked) >= SECOND / 20);
        }
        let took = cluster.time().since(began);
        assert!(took < 4 * SECOND && slow < 10, "{took:?}, {slow} slow ones");
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

/// As long as it is primary, each call takes most of a second.
#[test]
fn a_slow_primary_is_replaced_under_load() -> Result<(), Failure> {
    let mut cluster = besieged(4, &[0], "slow");
    let began = cluster.time();
    for _ in 0..200 {
        submit(&mut cluster, 1);
        cluster.run_until_answered(PATIENCE)?;
        cluster.run_for(Duration::from_millis(10))?;
    }
    assert!(cluster.world().marks().count(Mark::SuspectedBySlowness) > 0);
    // It had some seconds; those after it had the rest.
    let took = cluster.time().since(began);
    assert!(took < Duration::from_secs(20), "{took:?}");
    expect_survival(&mut cluster)
}

/// As long as it is primary, all calls wait for the one slot of eight that is late.
#[test]
fn a_primary_that_holds_back_one_slot_of_each_pipeline_is_replaced_under_load() -> Result<(), Failure> {
    let mut cluster = besieged(4, &[0], "late-slot");
    for _ in 0..300 {
        submit(&mut cluster, 4);
        cluster.run_for(Duration::from_millis(20))?;
    }
    assert!(cluster.world().marks().count(Mark::SuspectedBySlowness) > 0);
    assert_eq!(cluster.highest_view().value(), 1);
    cluster.run_until_answered(SECOND / 5)?;
    expect_survival(&mut cluster)
}

/// The same where clients ask for one thing after the other: most of their requests are quick, and most of the time they wait.
#[test]
fn a_late_slot_is_seen_by_those_who_wait_for_it() -> Result<(), Failure> {
    for clients in [1, 4] {
        let mut cluster = besieged(4, &[0], "late-slot");
        let began = cluster.time();
        for _ in 0..400 {
            submit(&mut cluster, clients);
            cluster.run_until_answered(PATIENCE)?;
            cluster.run_for(Duration::from_millis(10))?;
        }
        assert_eq!(cluster.highest_view().value(), 1, "{clients}");
        let took = cluster.time().since(began);
        assert!(took < 30 * SECOND, "{clients}: {took:?}");
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn batches_that_only_some_were_shown_reach_all() -> Result<(), Failure> {
    for (size, attackers) in [(4, &[0][..]), (7, &[0, 1])] {
        let mut cluster = besieged(size, attackers, "withhold-body");
        let without = count(&mut cluster, &[0], |_, message| matches!(message, Message::Prepare(_)));
        submit(&mut cluster, 20);
        cluster.run_until_answered(PATIENCE)?;
        assert!(without.get() > 0);
        let tip = (0..size).map(|replica| cluster.executed(replica)).max().unwrap_or(0);
        cluster.run_until(|cluster| (2..size).all(|replica| cluster.executed(replica) >= tip), MINUTE)?;
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn votes_that_reach_one_replica_only_leave_nobody_behind() -> Result<(), Failure> {
    for (size, attackers) in [(4, &[0][..]), (4, &[3]), (7, &[0, 3])] {
        let mut cluster = besieged(size, attackers, "withhold-votes");
        submit(&mut cluster, 40);
        cluster.run_until_answered(PATIENCE)?;
        let correct: Vec<usize> = (0..size).filter(|replica| !attackers.contains(replica)).collect();
        let tip = correct.iter().map(|replica| cluster.executed(*replica)).max().unwrap_or(0);
        cluster.run_until(|cluster| correct.iter().all(|replica| cluster.executed(*replica) >= tip), MINUTE)?;
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn a_liar_alone_moves_nobody_to_another_view() -> Result<(), Failure> {
    for attack in ["early-view-change", "jump-view", "flood-views"] {
        expect_calm(attack)?;
    }
    Ok(())
}

#[test]
fn any_order_of_requests_and_messages_will_do() -> Result<(), Failure> {
    for (size, attackers) in [(4, &[0][..]), (4, &[2]), (7, &[0, 3])] {
        let mut cluster = besieged(size, attackers, "reorder");
        for _ in 0..5 {
            submit(&mut cluster, 20);
            cluster.run_until_answered(2 * SECOND)?;
        }
        assert_eq!(cluster.highest_view().value(), 0, "it does nothing that it may not");
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn clients_believe_no_replica_alone() -> Result<(), Failure> {
    for (size, attackers) in [(4, &[0][..]), (4, &[3]), (7, &[0, 3])] {
        let mut cluster = besieged(size, attackers, "lie-to-clients");
        let tickets = submit(&mut cluster, 40);
        cluster.run_until_answered(PATIENCE)?;
        assert!(tickets.iter().all(|ticket| cluster.results_of(*ticket).is_some()));
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn who_comes_and_goes_is_done_without() -> Result<(), Failure> {
    for (size, attackers) in [(4, &[0][..]), (4, &[2]), (7, &[0, 1])] {
        let mut cluster = besieged(size, attackers, "crash-loop");
        for _ in 0..10 {
            submit(&mut cluster, 10);
            cluster.run_for(SECOND)?;
        }
        cluster.run_until_answered(PATIENCE)?;
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn a_primary_that_serves_all_but_one_client_is_replaced() -> Result<(), Failure> {
    for (size, attackers) in [(4, &[0][..]), (7, &[0, 1])] {
        let mut cluster = besieged(size, attackers, "censor");
        let tickets = submit(&mut cluster, 20);
        cluster.run_for(Duration::from_millis(500))?;
        let unserved = tickets.iter().filter(|ticket| cluster.answer_to(**ticket).is_none());
        let unserved: BTreeSet<usize> = unserved.map(|ticket| ticket.client).collect();
        assert_eq!((unserved.len(), cluster.highest_view().value()), (1, 0), "one is not served, and nobody minds yet");
        // Progress on what others ask for saves nobody.
        for _ in 0..60 {
            let served = (0..4).find(|client| !unserved.contains(client)).unwrap_or_default();
            cluster.client(served).put("key", "value");
            cluster.run_for(Duration::from_millis(100))?;
        }
        assert!(cluster.highest_view().value() >= attackers.len() as u64);
        cluster.run_until_answered(PATIENCE)?;
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

/// Parts of a state that a replica gives one peer between two heartbeats: 16 MiB of 256 KiB.
const PARTS_MAX: u64 = 64;

#[test]
fn who_asks_for_everything_all_the_time_gets_its_share_and_no_more() -> Result<(), Failure> {
    for (size, attackers) in [(4, &[0][..]), (4, &[2]), (7, &[3, 5])] {
        let mut cluster = besieged(size, attackers, "flood");
        let parts = Rc::new(Cell::new(0));
        let (counter, flooding) = (Rc::clone(&parts), attackers.to_vec());
        cluster.drop_messages(move |from, to, message| {
            let is_from_correct = !flooding.contains(&from.index()) && flooding.contains(&to.index());
            counter.set(counter.get() + u64::from(is_from_correct && matches!(message, Message::Part(_))));
            false
        });
        for round in 0..10 {
            submit(&mut cluster, 20);
            cluster.run_until_answered(if round == 0 { PATIENCE } else { SECOND / 5 })?;
            cluster.run_for(SECOND / 2)?;
        }
        assert!(cluster.refusals(Refusal::RateExceeded) > 100 && cluster.refusals(Refusal::Unasked) > 100);
        let heartbeats = u64::try_from(cluster.time().since(Time::ZERO).as_millis() / 100).unwrap_or(0) + 2;
        let pairs = ((size - attackers.len()) * attackers.len()) as u64;
        assert!(parts.get() > PARTS_MAX && parts.get() <= PARTS_MAX * heartbeats * pairs, "{}", parts.get());
        assert!(attackers.iter().all(|attacker| cluster.is_proved_faulty(*attacker)), "it votes for anything");
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

/// A cluster in which `attackers` do this to states, which come in parts of so many entries.
fn sources_that(attack: &str, size: usize, attackers: &[usize], part_entries: usize) -> Cluster {
    let attacks: adversary::Attacks = attack.parse().expect("a known attack");
    let attackers = attackers.iter().map(|attacker| (*attacker, attacks.clone()));
    let builder = Cluster::builder(size, 17).attackers(attackers);
    builder.options(|options| options.part_entries_max = part_entries).build()
}

#[test]
fn a_source_that_hands_out_a_false_state_is_named_and_replaced_and_one_without_end_too() -> Result<(), Failure> {
    for (size, attackers) in [(4, &[0][..]), (7, &[0, 1])] {
        let mut cluster = sources_that("lie-in-transfer", size, attackers, 4);
        let late = size - 1;
        let told = count(&mut cluster, attackers, |_, message| matches!(message, Message::Part(_)));
        for round in 1..=6 {
            cluster.crash(late);
            for _ in 0..60 {
                submit(&mut cluster, 2);
                cluster.run_until_answered(PATIENCE)?;
            }
            let stable = cluster.stable(late - 1);
            cluster.restart(late)?;
            cluster.run_until(|cluster| cluster.executed(late) >= stable, MINUTE)?;
            assert!(cluster.counts().transfers >= round, "not by decided slots");
        }
        assert!(told.get() >= 5, "lies of each kind: {}", told.get());
        assert!(attackers.iter().all(|attacker| cluster.is_named_a_liar(*attacker)));
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

/// From them alone it would take most of three heartbeats for each entry, and they say that they keep what the others do not.
#[test]
fn who_hands_out_a_state_as_late_as_it_may_is_done_without() -> Result<(), Failure> {
    for (size, attackers) in [(4, &[0][..]), (7, &[0, 1])] {
        let mut cluster = sources_that("hoard-state", size, attackers, 1);
        let told = count(&mut cluster, attackers, |_, message| matches!(message, Message::Part(_)));
        let late = size - 1;
        for round in 1..=4 {
            cluster.crash(late);
            let put = |cluster: &mut Cluster, value: &str| {
                for key in 0..300 {
                    cluster.client(key % 4).put(&format!("key {key}"), value);
                    cluster.run_until_answered(PATIENCE)?;
                }
                Ok(())
            };
            put(&mut cluster, &format!("value {round}"))?;
            cluster.restart(late)?;
            put(&mut cluster, &format!("another value {round}"))?;
            let stable = cluster.stable(late - 1);
            cluster.run_until(|cluster| cluster.executed(late) >= stable, PATIENCE)?;
            assert!(cluster.counts().transfers >= round, "not by decided slots");
        }
        assert!(told.get() > 10, "it hands out something: {}", told.get());
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn a_state_of_many_parts_comes_though_some_who_hand_it_out_lie() -> Result<(), Failure> {
    for (size, attackers) in [(4, &[1][..]), (7, &[1, 2])] {
        let mut cluster = sources_that("lie-in-transfer", size, attackers, 1);
        let late = size - 1;
        cluster.crash(late);
        for key in 0..300 {
            cluster.client(key % 4).put(&format!("key {key}"), "value");
            cluster.run_until_answered(PATIENCE)?;
        }
        let stable = cluster.stable(0);
        cluster.restart(late)?;
        cluster.run_until(|cluster| cluster.executed(late) >= stable, PATIENCE)?;
        assert!(cluster.counts().transfers > 0, "not by decided slots");
        expect_survival(&mut cluster)?;
    }
    Ok(())
}
