//! More than f attackers: correct replicas diverge, and the logs convict who did it, and nobody else. (PROTOCOL §15)

use std::panic::{AssertUnwindSafe, catch_unwind};

use quorate_protocol::evidence::Evidence;
use quorate_protocol::forensics::{Divergence, Findings};
use quorate_protocol::message::Message;
use quorate_simulator::checker::{Invariant, Violation};
use quorate_simulator::{Cluster, Failure, Trouble};

use super::{MINUTE, SECOND, besieged, submit};

fn culprits(findings: &Findings) -> Vec<usize> {
    findings.culprits().iter().map(|culprit| culprit.index()).collect()
}

/// The network loses what halves that were told different things would show each other: with that each half would suspect its
/// primary at once, and often before it has decided.
fn unwarned(size: usize, attackers: &[usize], attack: &str) -> Cluster {
    let mut cluster = besieged(size, attackers, attack);
    cluster.drop_messages(|_, _, message| matches!(message, Message::Conflict(_)));
    cluster
}

/// Lets clients ask until the logs of these replicas diverge.
fn ask_until_logs_diverge(cluster: &mut Cluster, logs: &[usize]) -> Result<(), Failure> {
    for _ in 0..60 {
        submit(cluster, 1);
        cluster.run_for(SECOND)?;
        if !cluster.forensics(logs).divergences.is_empty() {
            break;
        }
    }
    Ok(())
}

/// Lets clients ask until two correct replicas have decided differently.
fn diverge(cluster: &mut Cluster) {
    let failure = (0..30).find_map(|_| {
        submit(cluster, 4);
        cluster.run_for(SECOND).err()
    });
    let trouble = failure.map(|failure| failure.trouble);
    let is_split = |violation: &Violation| violation.invariant == Invariant::Agreement;
    assert!(matches!(&trouble, Some(Trouble::Violated(violation)) if is_split(violation)), "{trouble:?}");
}

#[test]
fn two_of_four_that_fork_the_others_are_convicted_by_what_these_hold() {
    for (attackers, correct) in [([0, 1], [2, 3]), ([1, 0], [2, 3]), ([0, 3], [1, 2])] {
        let mut cluster = unwarned(4, &attackers, "fork");
        diverge(&mut cluster);
        for logs in [&correct[..], &[0, 1, 2, 3]] {
            let findings = cluster.forensics(logs);
            let first = findings.divergences.first();
            assert!(matches!(first, Some(Divergence::Decisions(left, right)) if left.view == right.view), "{first:?}");
            let mut expected = attackers.to_vec();
            expected.sort_unstable();
            assert_eq!(culprits(&findings), expected, "{findings:?}");
        }
        // One log alone says nothing of what the other half decided.
        let findings = cluster.forensics(&correct[..1]);
        assert_eq!((findings.divergences.len(), culprits(&findings)), (0, vec![]));
    }
}

#[test]
fn three_of_seven_that_fork_the_others_are_convicted() {
    let mut cluster = unwarned(7, &[0, 2, 5], "fork");
    diverge(&mut cluster);
    let findings = cluster.forensics(&[1, 3, 4, 6]);
    assert_eq!(culprits(&findings), [0, 2, 5], "{findings:?}");
}

/// 0, 1 and 2 decide in view 0. Then 2 is cut off, 0 and 1 come back without what they signed, and begin view 1 with 3.
#[test]
fn two_of_four_that_forget_in_a_later_view_what_they_committed_are_convicted() -> Result<(), Failure> {
    let mut cluster = besieged(4, &[0, 1], "silent@from:1000s");
    cluster.world_mut().stop_checking();
    cluster.isolate(3);
    submit(&mut cluster, 4);
    cluster.run_until(|cluster| cluster.executed(2) >= 1, MINUTE)?;
    cluster.isolate(2);
    for forgetful in [0, 1] {
        cluster.crash(forgetful);
        cluster.disk(forgetful).lose();
    }
    cluster.restart(1)?;
    cluster.rejoin(3);
    // Nobody hears the primary of view 0: it comes back when the others have asked for the next.
    cluster.run_for(2 * SECOND)?;
    cluster.restart(0)?;
    ask_until_logs_diverge(&mut cluster, &[2, 3])?;
    let findings = cluster.forensics(&[2, 3]);
    let first = findings.divergences.first();
    assert!(matches!(first, Some(Divergence::Decisions(left, right)) if left.view < right.view), "{first:?}");
    assert_eq!(culprits(&findings), [0, 1], "{findings:?}");
    assert!(findings.proofs.iter().all(|proof| matches!(proof, Evidence::ForgottenCommit { .. })), "{findings:?}");
    // Neither of the two logs says anything alone.
    for log in [2, 3] {
        let findings = cluster.forensics(&[log]);
        assert_eq!((findings.divergences.len(), culprits(&findings)), (0, vec![]));
    }
    Ok(())
}

/// With at most f attackers nothing diverges, whatever they play, and who is convicted is one of them.
#[test]
fn no_correct_replica_is_ever_accused() -> Result<(), Failure> {
    for name in quorate_simulator::adversary::names() {
        for (size, attackers) in [(4, &[0][..]), (4, &[2]), (7, &[1, 4])] {
            let mut cluster = besieged(size, attackers, name);
            for _ in 0..3 {
                submit(&mut cluster, 12);
                cluster.run_until_answered(MINUTE)?;
                cluster.run_for(SECOND)?;
            }
            let all: Vec<usize> = (0..size).collect();
            let findings = cluster.forensics(&all);
            assert_eq!(findings.divergences, [], "{name}");
            assert!(culprits(&findings).iter().all(|culprit| attackers.contains(culprit)), "{name}: {findings:?}");
        }
    }
    Ok(())
}

/// With more than f attackers anything may happen, a correct replica may even stop: but it is not accused.
#[test]
fn no_correct_replica_is_accused_though_more_than_f_attack() {
    let (mut diverged, mut convicted) = (0, 0);
    for name in quorate_simulator::adversary::names() {
        let mut cluster = unwarned(4, &[0, 1], name);
        cluster.world_mut().stop_checking();
        let lives_on = || -> Result<(), Failure> {
            for _ in 0..10 {
                submit(&mut cluster, 12);
                cluster.run_for(SECOND)?;
            }
            Ok(())
        };
        // A correct one stops if it sees two quorums that decided differently.
        let ended = catch_unwind(AssertUnwindSafe(lives_on));
        assert!(ended.is_err() || ended.is_ok_and(|ended| ended.is_ok()), "{name}");
        let findings = cluster.forensics(&[0, 1, 2, 3]);
        assert!(culprits(&findings).iter().all(|culprit| [0, 1].contains(culprit)), "{name}: {findings:?}");
        diverged += u32::from(!findings.divergences.is_empty());
        convicted += u32::from(!findings.divergences.is_empty() && culprits(&findings) == [0, 1]);
    }
    assert!(diverged > 1 && diverged == convicted, "{diverged} diverged, {convicted} convicted");
}

/// Long after the fork its decisions are cut from the logs: the states that both halves vouched for are there still.
#[test]
fn what_is_left_of_logs_that_were_cut_convicts_too() -> Result<(), Failure> {
    let mut cluster = unwarned(4, &[0, 1], "fork");
    cluster.world_mut().stop_checking();
    for _ in 0..40 {
        submit(&mut cluster, 4);
        cluster.run_for(SECOND)?;
    }
    assert!(cluster.stable(2) > 32 && cluster.stable(3) > 32, "{} and {}", cluster.stable(2), cluster.stable(3));
    let findings = cluster.forensics(&[2, 3]);
    assert!(findings.divergences.iter().any(|found| matches!(found, Divergence::Checkpoints(..))), "{findings:?}");
    assert_eq!(culprits(&findings), [0, 1], "{findings:?}");
    Ok(())
}
