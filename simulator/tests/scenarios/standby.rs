//! Standbys beside the cluster. (PROTOCOL §11)

use quorate_protocol::output::NotVoting;
use quorate_simulator::campaign::{Choice, draw};
use quorate_simulator::marks::Mark;
use quorate_simulator::play::{Watch, play};
use quorate_simulator::scenario::Scenario;

use super::*;

/// The scenario of a seed with other standbys.
fn with_standbys(seed: u64, standbys: &[u8]) -> Scenario {
    Scenario { standbys: standbys.to_vec(), ..draw(seed, &Choice::default()) }
}

#[test]
fn members_do_the_same_whether_standbys_ask_them_or_not() {
    let mut lies = 0;
    for seed in 0..12 {
        let run = |standbys: &[u8]| {
            let mut scenario = with_standbys(seed, standbys);
            // Whoever waits for a standby lets the members go on meanwhile.
            scenario.ending.mend = false;
            play(&scenario, Watch::default()).expect("a drawn scenario can be played")
        };
        let (without, with) = (run(&[]), run(&[0, 3]));
        assert_eq!((with.fingerprint, with.failure), (without.fingerprint, None), "seed {seed}");
        lies += with.marks.count(Mark::StandbyToldLie);
    }
    assert!(lies > 0, "attackers lied to them");
}

#[test]
fn standbys_get_where_the_members_are_though_they_crash_and_are_lied_to() {
    let mut states = 0;
    for seed in 100..124 {
        let outcome = play(&with_standbys(seed, &[1, 2]), Watch::default()).expect("it can be played");
        assert_eq!(outcome.failure, None, "seed {seed}");
        states += outcome.marks.count(Mark::StandbyTookState);
    }
    assert!(states > 0, "some had to take a state over");
}

#[test]
fn a_standby_that_takes_its_members_place_votes_from_the_next_epoch_on() -> Result<(), Failure> {
    let mut cluster = Cluster::builder(4, 3).options(|options| options.standbys = 1 << 3).build();
    for _slot in 0..30 {
        submit(&mut cluster, 4);
        cluster.run_until_answered(MINUTE)?;
    }
    let follows = |cluster: &Cluster| {
        let tip = cluster.executed(0);
        cluster
            .standings_of_standbys()
            .all(|standing| standing.is_some_and(|standing| standing.executed.value() == tip))
    };
    cluster.run_until(follows, MINUTE)?;
    // Its checkpoint gets to its disk.
    cluster.run_for(Duration::from_millis(50))?;
    cluster.crash(3);
    submit(&mut cluster, 60);
    cluster.run_until_answered(MINUTE)?;
    cluster.promote(3);
    cluster.restart(3)?;
    assert!(cluster.executed(3) > 0, "what the standby had executed is there");
    let has_lost_votes = |cluster: &Cluster| matches!(cluster.not_voting(3), Some(NotVoting::Lost(_)));
    assert!(has_lost_votes(&cluster), "what the member had signed is not there: {:?}", cluster.not_voting(3));
    let votes_again = |cluster: &Cluster| cluster.not_voting(3).is_none();
    for _ in 0..20 {
        submit(&mut cluster, 20);
        cluster.run_until_answered(MINUTE)?;
        if votes_again(&cluster) {
            break;
        }
        cluster.run_for(SECOND)?;
    }
    assert!(votes_again(&cluster));
    // It is needed now.
    cluster.crash(0);
    let needed = submit(&mut cluster, 20);
    cluster.run_until_answered(MINUTE)?;
    assert!(needed.iter().all(|ticket| cluster.results_of(*ticket).is_some()));
    cluster.restart(0)?;
    expect_recovery(&mut cluster)
}
