//! f attackers at once, who know of each other and play together: views change for a while, not for ever. (PROTOCOL §1, §6)

use core::time::Duration;

use quorate_simulator::{Cluster, Failure, adversary};

use super::{MINUTE, SECOND, besieged, expect_survival, submit};

/// A cluster of seven in which replicas 1 and 2 play an attack each.
fn besieged_by_two(first: &str, second: &str) -> Cluster {
    let attacks = |attack: &str| -> adversary::Attacks { attack.parse().expect("known attacks") };
    Cluster::builder(7, 17).attackers([(1, attacks(first)), (2, attacks(second))]).build()
}

/// How often the view was another one after a second of work, of so many.
fn view_changes(cluster: &mut Cluster, seconds: u64) -> Result<u64, Failure> {
    let mut changes = 0;
    for _ in 0..seconds {
        let before = cluster.counts().highest_view;
        submit(cluster, 4);
        cluster.run_until_answered(10 * SECOND)?;
        cluster.run_for(SECOND)?;
        changes += u64::from(cluster.counts().highest_view != before);
    }
    Ok(changes)
}

#[test]
fn who_pretends_to_be_stranded_has_the_view_changed_once_in_a_long_while() -> Result<(), Failure> {
    for (size, attackers) in [(4, &[1][..]), (4, &[2]), (7, &[1, 2]), (7, &[3, 5])] {
        let mut cluster = besieged(size, attackers, "jump-view");
        let stranded = 2 * Duration::from_millis(cluster.configuration().parameters().deadline_cap_ms.into());
        assert_eq!(view_changes(&mut cluster, stranded.as_secs() - 2)?, 0);
        let changes = view_changes(&mut cluster, 50)?;
        assert!((1..=4).contains(&changes), "{changes} times, of {size}");
        assert!(
            cluster.counts().highest_view <= 4 * (1 + attackers.len() as u64),
            "accomplices in between do not last"
        );
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn complaints_of_f_move_nobody() -> Result<(), Failure> {
    let complaints = ["early-view-change,flood-views", "early-view-change,jump-view@random:0.1"];
    for (first, second) in [(complaints[0], complaints[0]), (complaints[0], complaints[1])] {
        let mut cluster = besieged_by_two(first, second);
        assert_eq!(view_changes(&mut cluster, 14)?, 0);
        expect_survival(&mut cluster)?;
    }
    Ok(())
}

#[test]
fn the_first_correct_primary_after_f_that_are_not_stays() -> Result<(), Failure> {
    let pairs = [
        ("wrong-new-view", "silent"),
        ("silent", "wrong-new-view"),
        ("censor", "censor"),
        ("empty-batches", "jump-sequence"),
        ("jump-view", "equivocate"),
        ("equivocate,hide-certificates", "two-new-views,withhold-votes"),
        ("crash-loop", "crash-loop"),
        ("amnesia", "twin"),
        ("mutate", "conflicting-votes"),
        ("early-view-change,withhold-body", "silent"),
    ];
    for (first, second) in pairs {
        let mut cluster = besieged_by_two(first, second);
        submit(&mut cluster, 12);
        cluster.run_until_answered(MINUTE)?;
        cluster.crash(0);
        submit(&mut cluster, 12);
        cluster.run_for(SECOND)?;
        cluster.restart(0)?;
        cluster.run_until_answered(MINUTE)?;
        // Replicas 1 and 2 may yet be replaced, once each.
        assert!(view_changes(&mut cluster, 20)? <= 2, "{first}, {second}");
        let view = cluster.counts().highest_view;
        assert!((1..=3).contains(&view), "{first}, {second}: {view}");
        assert_eq!(view_changes(&mut cluster, 12)?, 0, "{first}, {second}");
        expect_survival(&mut cluster)?;
    }
    Ok(())
}
