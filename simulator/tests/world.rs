//! The world itself, with the simplest machine in the replicas' place: it counts what it hears and says something now and
//! then.

use core::time::Duration;

use quorate_protocol::message::{Fetch, Message};
use quorate_protocol::number::{Sequence, View};
use quorate_protocol::time::Time;
use quorate_protocol::{Input, Machine, Now, Output};
use quorate_simulator::host::{Builder, Standing, Subject};
use quorate_simulator::network::LinkOptions;
use quorate_simulator::random::Chance;
use quorate_simulator::{Cluster, Failure, Trouble};

/// Says something every ten milliseconds.
struct Talker {
    heard: u64,
    speak_at: Time,
    has_something: bool,
}

const INTERVAL: Duration = Duration::from_millis(10);

impl Machine for Talker {
    fn handle(&mut self, now: Now, input: Input) {
        if let Input::Message { .. } = input {
            self.heard += 1;
        }
        if now.monotonic >= self.speak_at {
            self.speak_at = now.monotonic.after(INTERVAL);
            self.has_something = true;
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        let message = Message::Fetch(Fetch::Decided { after: Sequence::new(self.heard) });
        core::mem::take(&mut self.has_something).then_some(Output::Broadcast(message))
    }

    fn next_deadline(&self) -> Option<Time> {
        Some(self.speak_at)
    }
}

impl Subject for Talker {
    fn standing(&self) -> Option<Standing> {
        let executed = Sequence::new(self.heard);
        Some(Standing { view: View::ZERO, is_in_view: true, executed, stable: Sequence::ZERO })
    }
}

/// A machine that wants to be woken in the past, for ever.
struct Insomniac;

impl Machine for Insomniac {
    fn handle(&mut self, _: Now, _: Input) {}

    fn poll_output(&mut self) -> Option<Output> {
        None
    }

    fn next_deadline(&self) -> Option<Time> {
        Some(Time::ZERO)
    }
}

impl Subject for Insomniac {}

/// A talker that hurries when it hears something, and counts how often it was woken too early.
struct Hasty {
    talker: Talker,
    early: u64,
}

impl Machine for Hasty {
    fn handle(&mut self, now: Now, input: Input) {
        if now.monotonic < self.talker.speak_at {
            match input {
                Input::Message { .. } => {
                    self.talker.speak_at = self.talker.speak_at.min(now.monotonic.after(INTERVAL / 10));
                }
                _ => self.early += 1,
            }
        }
        self.talker.handle(now, input);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.talker.poll_output()
    }

    fn next_deadline(&self) -> Option<Time> {
        self.talker.next_deadline()
    }
}

impl Subject for Hasty {
    fn standing(&self) -> Option<Standing> {
        self.talker.standing().map(|standing| Standing { stable: Sequence::new(self.early), ..standing })
    }
}

fn talkers() -> Builder {
    Box::new(|_, now| Ok(Box::new(Talker { heard: 0, speak_at: now.monotonic.after(INTERVAL), has_something: false })))
}

fn cluster(seed: u64) -> Cluster {
    Cluster::builder(4, seed).subjects(talkers()).options(|options| options.history = 100_000).build()
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_same_seed_gives_the_same_history_and_another_seed_another() -> Result<(), Failure> {
    let history = |seed| {
        let mut cluster = cluster(seed);
        cluster.set_links(LinkOptions { loss: Chance::percent(10), ..LinkOptions::default() });
        cluster.run_for(SECOND)?;
        Ok(cluster.world().history().map(String::from).collect::<Vec<_>>())
    };
    let first = history(1)?;
    assert!(first.len() > 1_000);
    assert_eq!(first, history(1)?);
    assert_ne!(first, history(2)?);
    Ok(())
}

#[test]
fn everyone_hears_everyone_and_an_isolated_one_hears_nobody() -> Result<(), Failure> {
    let mut cluster = cluster(1);
    cluster.isolate(3);
    cluster.run_for(SECOND)?;
    assert!((0..3).all(|replica| (190..=210).contains(&cluster.executed(replica))), "about 100 from each of two");
    assert_eq!(cluster.executed(3), 0);
    cluster.heal();
    cluster.run_for(SECOND)?;
    assert!(cluster.executed(3) > 250);
    Ok(())
}

#[test]
fn a_machine_that_is_down_hears_nothing_and_has_forgotten_all_when_it_is_back() -> Result<(), Failure> {
    let mut cluster = cluster(1);
    cluster.run_for(SECOND)?;
    cluster.crash(2);
    cluster.run_for(SECOND)?;
    assert_eq!(cluster.standing(2), None);
    cluster.restart(2)?;
    cluster.run_for(SECOND)?;
    assert!((280..=310).contains(&cluster.executed(2)), "{}", cluster.executed(2));
    Ok(())
}

#[test]
fn a_paused_machine_handles_everything_when_it_goes_on() -> Result<(), Failure> {
    let mut cluster = cluster(1);
    cluster.pause(1);
    cluster.run_for(SECOND)?;
    assert_eq!(cluster.executed(1), 0);
    cluster.resume(1);
    cluster.run_for(Duration::from_millis(1))?;
    assert!(cluster.executed(1) > 280);
    Ok(())
}

#[test]
fn a_filter_drops_what_it_is_asked_to_and_no_more() -> Result<(), Failure> {
    let mut cluster = cluster(1);
    cluster.drop_messages(|from, to, _| from.index() == 0 && to.index() == 1);
    cluster.run_for(SECOND)?;
    assert!((190..=210).contains(&cluster.executed(1)));
    assert!((280..=310).contains(&cluster.executed(0)));
    Ok(())
}

#[test]
fn what_does_not_come_about_is_a_failure_with_an_account() {
    let mut cluster = cluster(1);
    let failure = cluster.run_until(|cluster| cluster.executed(0) > 1_000, SECOND).expect_err("it takes longer");
    assert_eq!(failure.trouble, Trouble::Waited(SECOND));
    assert!(failure.to_string().contains("replica 3: view 0"), "{failure}");
}

#[test]
fn a_machine_whose_deadline_stays_in_the_past_is_found() {
    let insomniacs: Builder = Box::new(|_, _| Ok(Box::new(Insomniac)));
    let mut cluster = Cluster::builder(4, 1).subjects(insomniacs).build();
    let failure = cluster.run_for(SECOND).expect_err("it wants to be woken again and again");
    assert!(matches!(failure.trouble, Trouble::Violated(_)));
}

#[test]
fn a_wake_up_that_an_earlier_one_took_the_place_of_wakes_nobody() -> Result<(), Failure> {
    let hasty: Builder = Box::new(|_, now| {
        let talker = Talker { heard: 0, speak_at: now.monotonic.after(INTERVAL), has_something: false };
        Ok(Box::new(Hasty { talker, early: 0 }))
    });
    let mut cluster = Cluster::builder(4, 1).subjects(hasty).build();
    cluster.run_for(SECOND)?;
    for replica in 0..4 {
        let standing = cluster.standing(replica).expect("it runs");
        assert!(standing.executed > Sequence::new(1_000), "it hurries: {standing:?}");
        assert!(standing.stable < Sequence::new(100), "woken too early: {standing:?}");
    }
    Ok(())
}
