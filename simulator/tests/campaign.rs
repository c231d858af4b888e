//! Campaigns in small: a few seeds of each size, in debug builds. `quorate simulate` plays more of them. (PROTOCOL §2)

use core::time::Duration;

use quorate_protocol::refusal::Refusal;
use quorate_simulator::campaign::{Choice, Summary, draw, run};
use quorate_simulator::marks::Mark;
use quorate_simulator::play::{Outcome, Watch, play};
use quorate_simulator::scenario::{Scenario, Span};
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

/// A calm run in which a client calls, and before that something is done twenty times.
fn outcome_after(action: &str) -> Outcome {
    let steps = vec![format!(r#"{{ "at": "100ms", "do": {action} }}"#); 20].join(", ");
    let text = format!(
        r#"{{ "steps": [{steps}, {{ "at": "200ms", "do": {{ "put": [0, "key", "value"] }} }}], "ending": {{ "after": "1s" }} }}"#
    );
    let scenario = Scenario::from_json(&text).expect("a scenario");
    play(&scenario, Watch::default()).expect("it can be played")
}

#[test]
fn clients_that_do_anything_are_refused_and_others_are_answered() {
    let outside = Mark::Refused(Refusal::OutsideSession);
    let sessionless = Mark::Refused(Refusal::NoSession);
    let refused = |outcome: &Outcome| outcome.marks.count(outside) + outcome.marks.count(sessionless);
    let (abused, calm) = (outcome_after(r#"{ "abuse": 1 }"#), outcome_after(r#""join""#));
    assert_eq!((abused.failure.clone(), calm.failure.clone()), (None, None));
    assert!(refused(&abused) > 0, "nothing of what they did was refused");
    assert_eq!(refused(&calm), 0);
}

#[test]
fn a_replica_whose_disk_is_full_votes_for_nothing() {
    let outcome = outcome_after(r#"{ "fill": 2 }"#);
    assert_eq!(outcome.failure, None);
    assert!(outcome.marks.count(Mark::Refused(Refusal::LogFull)) > 0);
}
