//! Campaigns in small: a few seeds of each size, in debug builds. `quorate simulate` plays more of them. (PROTOCOL §2)

use core::time::Duration;

use quorate_simulator::campaign::{Choice, Summary, draw, run};
use quorate_simulator::play::{Watch, play};
use quorate_simulator::scenario::Span;
use quorate_simulator::world::WorldCounts;

/// Sizes of clusters, each with seeds of its own: 4 and 7 are 3f + 1, the others bear no more faults than the next smaller
/// one that is.
const SIZES: [(u8, u64); 6] = [(4, 24), (5, 8), (6, 8), (7, 12), (8, 4), (10, 4)];

fn choice(replicas: u8) -> Choice {
    Choice { replicas: Some(replicas), duration: Some(Span(Duration::from_secs(3))), ..Choice::default() }
}

/// What seeds of one size came to, and what happened in them.
fn campaign(replicas: u8, seeds: u64) -> (Summary, WorldCounts) {
    let mut counts = WorldCounts::default();
    let first = u64::from(replicas) * 1_000;
    let summary = run(first..first + seeds, &choice(replicas), |_, _, outcome| {
        counts.crashes += outcome.counts.crashes;
        counts.views_entered += outcome.counts.views_entered;
        counts.transfers += outcome.counts.transfers;
    });
    (summary.expect("a choice of what there is"), counts)
}

#[test]
fn whatever_goes_wrong_every_size_of_cluster_keeps_its_invariants_and_answers_in_the_end() {
    let (mut sum, mut happened) = (Summary::default(), WorldCounts::default());
    for (replicas, seeds) in SIZES {
        let (summary, counts) = campaign(replicas, seeds);
        let failures: Vec<String> =
            summary.failures.iter().map(|(seed, complaint)| format!("seed {seed}: {complaint}")).collect();
        assert!(failures.is_empty(), "{replicas} replicas:\n{}", failures.join("\n"));
        assert!(summary.executed > 40 * seeds, "{replicas} replicas executed {} slots", summary.executed);
        happened.crashes += counts.crashes;
        happened.views_entered += counts.views_entered;
        happened.transfers += counts.transfers;
        sum.merge(summary);
    }
    let floor = [happened.crashes > sum.seeds, happened.views_entered > sum.seeds, happened.transfers > sum.seeds / 10];
    assert_eq!(floor, [true; 3], "too little happened: {happened:?}");
    for fault in ["partition", "message-lost", "message-duplicated", "restart", "call"] {
        assert!(sum.faults.contains_key(fault), "no {fault} in {:?}", sum.faults);
    }
    assert!(sum.faults.keys().filter(|name| name.starts_with("attack-")).count() > 10, "{:?}", sum.faults);
}

#[test]
fn a_seed_gives_the_same_run_every_time() {
    for seed in [3, 4] {
        let outcome = || play(&draw(seed, &choice(4)), Watch::default()).expect("it can be played");
        assert_eq!(outcome(), outcome());
    }
}
