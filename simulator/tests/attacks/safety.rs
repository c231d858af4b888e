//! Attacks on what was decided: lies with votes, certificates, view changes, checkpoints and keys. (PROTOCOL §3, §5, §7)

use core::time::Duration;

use quorate_protocol::codec::decode;
use quorate_protocol::message::{Message, ViewChange};
use quorate_protocol::refusal::Refusal;
use quorate_simulator::statement::Subject;
use quorate_simulator::{Cluster, Failure};

use super::{MINUTE, SECOND, besieged, contradictions, count, expect_survival, keep_busy, submit};

/// Replica 1 is to begin view 1, after work in view 0 of which only some know what came of it.
fn failing_over(size: usize, attackers: &[usize], attack: &str) -> Result<Cluster, Failure> {
    let mut cluster = besieged(size, attackers, attack);
    submit(&mut cluster, 12);
    cluster.run_until_answered(MINUTE)?;
    let filter = cluster.drop_messages(|_, to, message| matches!(message, Message::Commit(_)) && to.index() != 2);
    submit(&mut cluster, 12);
    cluster.run_for(Duration::from_millis(50))?;
    cluster.remove_filter(filter);
    Ok(cluster)
}

#[test]
fn a_primary_that_equivocates_is_replaced_though_accomplices_vote_for_all_it_says() -> Result<(), Failure> {
    for (size, attackers) in [(4, &[0][..]), (7, &[0, 1])] {
        let mut cluster = besieged(size, attackers, "equivocate");
        let found = contradictions(&mut cluster, attackers);
        submit(&mut cluster, 20);
        cluster.run_until_answered(MINUTE)?;
        assert!(cluster.highest_view().value() >= attackers.len() as u64);
        let commits = found.borrow().iter().filter(|subject| matches!(subject, Subject::Commit(..))).count();
        assert!(commits > 0, "{:?}", found.borrow());
        assert!(cluster.is_proved_faulty(0), "though it showed each backup but one of two batches, n = {size}");
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn who_votes_for_two_batches_is_proved_faulty_and_replaced_as_a_primary() -> Result<(), Failure> {
    for (size, attackers) in [(4, &[0][..]), (4, &[3]), (7, &[0, 5])] {
        let mut cluster = besieged(size, attackers, "conflicting-votes");
        submit(&mut cluster, 20);
        cluster.run_until_answered(MINUTE)?;
        assert!(attackers.iter().all(|attacker| cluster.is_proved_faulty(*attacker)));
        assert!(cluster.refusals(Refusal::Conflict) > 0);
        if attackers.contains(&0) {
            cluster.run_for(SECOND)?;
            assert!(cluster.highest_view().value() >= 1);
        }
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn who_speaks_for_others_is_not_heard() -> Result<(), Failure> {
    for (size, attackers) in [(4, &[2][..]), (7, &[3, 4])] {
        let mut cluster = besieged(size, attackers, "impersonate");
        submit(&mut cluster, 20);
        cluster.run_until_answered(MINUTE)?;
        assert!(cluster.counts().refused > 50);
        assert_eq!(cluster.highest_view().value(), 0);
        assert!((0..size).all(|replica| !cluster.is_proved_faulty(replica)), "nobody is blamed for what others say");
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn what_one_correct_replica_saw_decided_survives_a_new_primary_that_hides_it() -> Result<(), Failure> {
    for (size, attackers) in [(4, &[1][..]), (4, &[3]), (7, &[1, 3])] {
        let mut cluster = failing_over(size, attackers, "hide-certificates")?;
        let hidden = count(&mut cluster, attackers, |_, message| match message {
            Message::ViewChange(signed) => {
                decode::<ViewChange>(signed.body.bytes()).is_ok_and(|content| content.prepared.is_empty())
            }
            _ => false,
        });
        cluster.crash(0);
        submit(&mut cluster, 12);
        cluster.run_for(5 * SECOND)?;
        assert!(hidden.get() > 0);
        cluster.restart(0)?;
        expect_survival(&mut cluster)?;
        assert!(cluster.highest_view().value() >= 1);
    }
    Ok(())
}

#[test]
fn certificates_of_old_views_and_slots_bring_nothing_back() -> Result<(), Failure> {
    for (size, attackers) in [(4, &[1][..]), (4, &[3]), (7, &[1, 3])] {
        let mut cluster = failing_over(size, attackers, "stale-certificates")?;
        let stale = count(&mut cluster, attackers, |_, message| match message {
            Message::ViewChange(signed) => {
                let content: Result<ViewChange, _> = decode(signed.body.bytes());
                content.is_ok_and(|content| content.cast.is_empty() && !content.prepared.is_empty())
            }
            _ => false,
        });
        for _ in 0..3 {
            let primary = cluster.primary();
            if !cluster.is_attacker(primary) {
                cluster.crash(primary);
            }
            submit(&mut cluster, 12);
            cluster.run_for(5 * SECOND)?;
            cluster.restart_all()?;
        }
        assert!(stale.get() > 0);
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn a_new_view_that_does_not_follow_is_entered_by_nobody() -> Result<(), Failure> {
    for (size, attackers) in [(4, &[1][..]), (7, &[1, 2])] {
        let mut cluster = failing_over(size, attackers, "wrong-new-view")?;
        let said = count(&mut cluster, attackers, |_, message| matches!(message, Message::NewView(_)));
        cluster.crash(0);
        submit(&mut cluster, 12);
        cluster.run_for(3 * SECOND)?;
        assert!(said.get() > 0);
        assert!(cluster.refusals(Refusal::NewViewWrong) + cluster.counts().refused > 0);
        assert!(cluster.counts().highest_view == 0 || cluster.counts().highest_view > attackers.len() as u64);
        cluster.restart(0)?;
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn of_two_new_views_each_replica_stays_with_the_one_that_it_entered_by() -> Result<(), Failure> {
    for (size, attackers) in [(4, &[1][..]), (7, &[1, 3])] {
        let mut cluster = failing_over(size, attackers, "two-new-views")?;
        let found = contradictions(&mut cluster, attackers);
        cluster.crash(0);
        submit(&mut cluster, 12);
        cluster.run_for(5 * SECOND)?;
        let is_new_view = |subject: &Subject| matches!(subject, Subject::NewView(..));
        assert!(found.borrow().iter().any(is_new_view), "{:?}", found.borrow());
        cluster.restart(0)?;
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn who_vouches_for_two_states_is_proved_faulty_and_moves_no_watermark() -> Result<(), Failure> {
    for (size, attackers) in [(4, &[2][..]), (7, &[2, 3])] {
        let mut cluster = besieged(size, attackers, "forge-checkpoint");
        for _ in 0..6 {
            submit(&mut cluster, 20);
            cluster.run_until_answered(MINUTE)?;
        }
        assert!(attackers.iter().all(|attacker| cluster.is_proved_faulty(*attacker)));
        cluster.run_for(SECOND)?;
        let (stable, executed) = (cluster.stable(0), cluster.executed(0));
        assert!(stable > 0 && stable <= executed && executed - stable < 8, "{stable} of {executed}");
        assert_eq!(cluster.highest_view().value(), 0);
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn twins_contradict_each_other_and_nobody_else() -> Result<(), Failure> {
    for (size, attackers) in [(4, &[0][..]), (7, &[0, 1])] {
        let mut cluster = besieged(size, attackers, "twin");
        let found = contradictions(&mut cluster, attackers);
        for _ in 0..10 {
            submit(&mut cluster, 20);
            cluster.run_for(SECOND)?;
        }
        assert!(!found.borrow().is_empty());
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn who_forgets_its_votes_contradicts_itself_and_nobody_else() -> Result<(), Failure> {
    for (size, attackers) in [(4, &[0][..]), (4, &[2]), (7, &[0, 1])] {
        let mut cluster = besieged(size, attackers, "amnesia");
        let found = contradictions(&mut cluster, attackers);
        for _ in 0..10 {
            submit(&mut cluster, 20);
            cluster.run_for(SECOND)?;
        }
        assert!(!attackers.contains(&0) || !found.borrow().is_empty());
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn what_is_off_by_one_is_refused_or_counts_as_one_word() -> Result<(), Failure> {
    for (size, attackers) in [(4, &[0][..]), (4, &[2]), (7, &[0, 1])] {
        let mut cluster = besieged(size, attackers, "mutate");
        let found = contradictions(&mut cluster, attackers);
        for _ in 0..10 {
            submit(&mut cluster, 20);
            cluster.run_for(SECOND)?;
        }
        assert!(!found.borrow().is_empty());
        let refused = [Refusal::OutsideWatermarks, Refusal::Outdated, Refusal::Conflict].map(|r| cluster.refusals(r));
        assert!(refused.iter().sum::<u64>() + cluster.counts().refused > 0, "{refused:?}");
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn a_vote_that_comes_again_and_again_counts_once() -> Result<(), Failure> {
    for (size, attackers, away) in [(4, &[3][..], &[1, 2][..]), (4, &[0], &[1, 2]), (7, &[5, 6], &[1, 2, 3])] {
        let mut cluster = besieged(size, attackers, "double-vote");
        for replica in away {
            cluster.isolate(*replica);
        }
        submit(&mut cluster, 12);
        cluster.run_for(2 * SECOND)?;
        let duplicates = cluster.refusals(Refusal::Duplicate);
        assert!(duplicates > 20, "{duplicates} votes came again, {attackers:?} of {size}");
        assert!((0..size).all(|replica| cluster.executed(replica) == 0), "one vote is missing, and stays so");
        cluster.join();
        submit(&mut cluster, 12);
        cluster.run_until_answered(MINUTE)?;
        assert!(cluster.counts().refused > 0, "a certificate of one is none");
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn certificates_with_forged_votes_are_refused_and_hide_no_true_ones() -> Result<(), Failure> {
    // A certificate that is forged for a view in which nothing happened would stand above the true ones.
    let attacks = ["forge-certificates", "forge-certificates,silent@view:1"];
    for (size, attackers, attack) in [(4, &[3][..], attacks[0]), (4, &[1], attacks[1]), (7, &[1, 3], attacks[1])] {
        let mut cluster = failing_over(size, attackers, attack)?;
        assert!(cluster.counts().refused > 0, "decisions and checkpoints");
        assert_eq!(cluster.highest_view().value(), 0);
        let asked = count(&mut cluster, attackers, |_, message| matches!(message, Message::ViewChange(_)));
        let refused = cluster.counts().refused;
        cluster.crash(0);
        submit(&mut cluster, 12);
        cluster.run_for(SECOND)?;
        cluster.restart(0)?;
        cluster.run_until_answered(MINUTE)?;
        assert!(asked.get() > 0 && cluster.counts().refused > refused);
        assert!(cluster.highest_view().value() >= 1);
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn what_is_over_what_is_to_come_and_what_others_said_before_changes_nothing() -> Result<(), Failure> {
    let of_kind = [
        ("outdated", Refusal::OutsideWatermarks),
        ("future", Refusal::FutureView),
        ("replay", Refusal::Duplicate),
        ("replay", Refusal::NotThePrimary),
    ];
    for (attack, refusal) in of_kind {
        for (size, attackers) in [(4, &[2][..]), (7, &[3, 5])] {
            let mut cluster = besieged(size, attackers, attack);
            keep_busy(&mut cluster)?;
            assert!(cluster.refusals(refusal) > 10, "{attack}");
            assert_eq!(cluster.highest_view().value(), 0, "{attack}");
            let stable = cluster.stable(0);
            assert!(stable > 0 && cluster.executed(0) - stable < 8, "{attack}: {stable}");
            expect_survival(&mut cluster)?;
        }
    }
    Ok(())
}
