//! The adversary: a machine in the place of a correct replica, which does anything that its keys allow.
//!
//! It holds a puppet, a correct replica that believes what it is shown, and strategies that decide what it is shown and
//! what the world sees of it: pass, drop, delay, change, sign again, or say something of their own. A strategy is only what
//! differs, a file each; several compose, each with its moment. Nothing here knows the simulator: an adversary is driven
//! like any [`Machine`], over real sockets as well.

mod account;
mod amnesia;
mod another_cluster;
mod attacks;
mod bad_client_signature;
mod body;
mod censor;
mod conclusion;
mod conflicting_votes;
mod crash_loop;
mod dice;
mod double_vote;
mod early_view_change;
mod elsewhere;
mod empty_batches;
mod equivocate;
mod flood;
mod flood_views;
mod forge_certificates;
mod forge_checkpoint;
mod forged_state;
mod fork;
mod future;
mod hide_certificates;
mod hoard_state;
mod impersonate;
mod jump_sequence;
mod jump_view;
mod late_slot;
mod late_to_some;
mod lie_in_transfer;
mod lie_to_clients;
mod mutate;
mod outdated;
mod pad_certificates;
mod relabel;
mod reorder;
mod replay;
pub mod script;
mod silent;
mod slow;
mod stale_certificates;
mod twin;
mod two_new_views;
mod understudy;
mod usurp;
mod voter;
mod withhold_body;
mod withhold_votes;
mod wrong_new_view;

use core::fmt;
use std::collections::VecDeque;

use quorate_protocol::input::Input;
use quorate_protocol::message::Message;
use quorate_protocol::number::ReplicaId;
use quorate_protocol::replica::{Replica, Start, StartError};
use quorate_protocol::time::Time;
use quorate_protocol::{Machine, Now, Output};

pub(crate) use voter::start_voting;

pub use account::Account;
pub use attacks::{Attack, Attacks, UnknownAttack, accounts, names};
pub use body::{Body, MakeApplication, Plot, Seen, SharedSigner};
pub use dice::Dice;
pub use elsewhere::Elsewhere;

use attacks::Moment;

/// What an attack does: each method stands between the puppet and the world, and lets everything pass unless it says
/// otherwise.
pub trait Strategy: fmt::Debug + Send {
    /// The puppet is about to take something in: what it is shown instead, if anything.
    fn incoming(&mut self, body: &mut Body, input: Input) -> Option<Input> {
        let _ = body;
        Some(input)
    }

    /// The puppet says something to a peer: what the peer hears instead, if anything. What it says to all comes here once
    /// for each peer.
    fn outgoing(&mut self, body: &mut Body, to: ReplicaId, message: Message) -> Option<Message> {
        let _ = (body, to);
        Some(message)
    }

    /// The puppet asks something else of its host, or answers a client: what is done instead, if anything.
    fn output(&mut self, body: &mut Body, output: Output) -> Option<Output> {
        let _ = body;
        Some(output)
    }

    /// Something happened, and the puppet has dealt with it: whatever the attack does of its own accord.
    fn act(&mut self, body: &mut Body) {
        let _ = body;
    }

    /// When it wants to act though nothing may happen before.
    fn deadline(&self, body: &Body) -> Option<Time> {
        let _ = body;
        None
    }
}

/// A strategy and when it is followed.
#[derive(Debug)]
struct Ploy {
    moment: Moment,
    strategy: Box<dyn Strategy>,
}

/// A machine that looks like a replica.
#[derive(Debug)]
pub struct Adversary {
    puppet: Replica,
    body: Body,
    ploys: Vec<Ploy>,
    /// What the puppet asked for and no ploy stopped. Emptied by the host after every input.
    out: VecDeque<Output>,
}

impl Adversary {
    /// Starts a puppet on what is durable, and the attacks around it. All adversaries of a cluster share one `plot`.
    ///
    /// # Errors
    /// [`StartError`], if a correct replica would not start there either.
    pub fn start(
        start: Start,
        now: Now,
        attacks: &Attacks,
        plot: &Plot,
        seed: u64,
        make_application: MakeApplication,
    ) -> Result<Self, StartError> {
        let body = Body::new(&start, now, plot.clone(), seed, make_application);
        let puppet = start_voting(start, now)?;
        let mut adversary = Self { puppet, body, ploys: ploys(attacks), out: VecDeque::new() };
        adversary.pump();
        Ok(adversary)
    }

    /// Plays other attacks from now on, whose moments count from `now`: none, to do all that a correct replica does. What it
    /// has decided to say or do later still is.
    pub fn play(&mut self, now: Now, attacks: &Attacks) {
        self.body.begin_anew(now);
        self.ploys = ploys(attacks);
    }

    /// The replica that it pretends to be.
    pub const fn puppet(&self) -> &Replica {
        &self.puppet
    }

    /// How often its scripts reacted to something.
    pub const fn reactions(&self) -> u64 {
        self.body.reactions
    }

    /// Lets something pass through all ploys that are on, in order, until one stops it.
    fn through<T>(&mut self, mut thing: T, pass: impl Fn(&mut dyn Strategy, &mut Body, T) -> Option<T>) -> Option<T> {
        for ploy in &mut self.ploys {
            if ploy.moment.is_now(&mut self.body) {
                thing = pass(ploy.strategy.as_mut(), &mut self.body, thing)?;
            }
        }
        Some(thing)
    }

    /// Takes what the puppet wants done, and does what the ploys make of it.
    fn pump(&mut self) {
        while let Some(output) = self.puppet.poll_output() {
            self.body.observe_output(&output);
            match output {
                Output::Send { to, message } => self.say(to, message),
                Output::Broadcast(message) => {
                    for to in self.body.others() {
                        self.say(to, message.clone());
                    }
                }
                other => {
                    if let Some(output) = self.through(other, |strategy, body, output| strategy.output(body, output)) {
                        self.out.push_back(output);
                    }
                }
            }
        }
        self.out.append(&mut self.body.out);
    }

    fn say(&mut self, to: ReplicaId, message: Message) {
        // Nobody gives accomplices away.
        if let Message::Conflict(vote) = &message
            && self.body.accomplices().contains(&vote.voter)
        {
            return;
        }
        if let Some(message) = self.through(message, |strategy, body, message| strategy.outgoing(body, to, message)) {
            self.out.push_back(Output::Send { to, message });
        }
        self.out.append(&mut self.body.out);
    }
}

fn ploys(attacks: &Attacks) -> Vec<Ploy> {
    attacks.iter().map(|attack| Ploy { moment: attack.moment, strategy: attack.strategy() }).collect()
}

impl Machine for Adversary {
    fn handle(&mut self, now: Now, input: Input) {
        self.body.observe(now, &self.puppet, &input);
        if let Some(input) = self.through(input, |strategy, body, input| strategy.incoming(body, input)) {
            self.puppet.handle(now, input);
        }
        self.pump();
        self.body.learn(&self.puppet);
        for ploy in &mut self.ploys {
            if ploy.moment.is_now(&mut self.body) {
                ploy.strategy.act(&mut self.body);
            }
        }
        self.body.release();
        self.out.append(&mut self.body.out);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    fn next_deadline(&self) -> Option<Time> {
        // What a ploy that is off does not take note of must not come back at once for ever.
        let ploys = self.ploys.iter().filter_map(|ploy| ploy.strategy.deadline(&self.body));
        let ploys = ploys.filter(|due| *due > self.body.time());
        [self.puppet.next_deadline(), self.body.next_release()].into_iter().flatten().chain(ploys).min()
    }
}
