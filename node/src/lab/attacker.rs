//! The machine that a host drives in a replica's place: an adversary, and the orders that reach it while it runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use anyhow::Context as _;
use quorate_protocol::application::Replicated;
use quorate_protocol::kv::Store;
use quorate_protocol::message::Message;
use quorate_protocol::number::ReplicaId;
use quorate_protocol::replica::{Replica, Start};
use quorate_protocol::state::DEPTH;
use quorate_protocol::time::Time;
use quorate_protocol::{Input, Machine, Now, Output};
use quorate_simulator::adversary::{Adversary, MakeApplication, Plot};

use super::door::Door;
use super::strategy::{self, Part, Plan};
use super::wire::{Ground, Siege, WireAttack};
use crate::configuration::ReplicaConfiguration;
use crate::host::{MakeSubject, Subject};

/// What an attacker is made of.
#[derive(Debug)]
pub(crate) struct Cast {
    /// The replica's folder, in which its door is.
    pub(crate) folder: PathBuf,
    /// What it plays at first.
    pub(crate) part: Part,
    /// Other attackers of the cluster, whose keys it has, too.
    pub(crate) accomplices: Vec<ReplicaConfiguration>,
    /// The others, as an attack on the transport finds them.
    pub(crate) ground: Ground,
    /// Whether the cluster's store answers reads that nobody orders.
    pub(crate) fast_reads: bool,
}

/// An adversary under orders.
struct Attacker {
    adversary: Adversary,
    /// What it is to play from now on. Bound: whoever may give orders waits for the answer to each.
    orders: Receiver<Plan>,
    ground: Arc<Ground>,
    /// What is played on the transport.
    siege: Option<Siege>,
    _door: Door,
}

/// Makes an attacker in a replica's place.
pub(crate) fn make(cast: Cast) -> MakeSubject {
    Box::new(move |start, now| Ok(Box::new(Attacker::start(cast, start, now)?)))
}

fn store() -> Replicated {
    Replicated::new(Store::default(), DEPTH)
}

fn reading_store() -> Replicated {
    Replicated::new(Store::default().with_fast_reads(), DEPTH)
}

impl Attacker {
    fn start(cast: Cast, start: Start, now: Now) -> anyhow::Result<Self> {
        let Cast { folder, part, accomplices, ground, fast_reads } = cast;
        let (id, size) = (start.id, start.configuration.size());
        let plan = strategy::plan(&part, size).map_err(|error| anyhow::anyhow!("it cannot play that: {error}"))?;
        let plot = Plot::default();
        for accomplice in accomplices {
            plot.admit(accomplice.id, Arc::new(accomplice.key));
        }
        let title = strategy::title(&part);
        tracing::warn!(attacks = title, "this replica is malicious");
        let make_application: MakeApplication = if fast_reads { reading_store } else { store };
        let seed = start.token;
        let adversary = Adversary::start(start, now, &plan.attacks, &plot, seed, make_application)?;
        let (sender, orders) = channel();
        let door = Door::open(&folder, (id, size), title, sender)
            .with_context(|| format!("opening the attacker's door in {}", folder.display()))?;
        let ground = Arc::new(ground);
        let siege = lay(plan.wire, &ground);
        Ok(Self { adversary, orders, ground, siege, _door: door })
    }
}

/// Has attacks on the transport played, if there are any.
fn lay(attacks: Vec<WireAttack>, ground: &Arc<Ground>) -> Option<Siege> {
    if attacks.is_empty() {
        return None;
    }
    let laid = Siege::lay(attacks, ground);
    laid.inspect_err(|error| tracing::error!(%error, "attacks on the transport cannot be played")).ok()
}

impl Machine for Attacker {
    fn handle(&mut self, now: Now, input: Input) {
        if let Some(plan) = self.orders.try_iter().last() {
            self.adversary.play(now, &plan.attacks);
            self.siege = lay(plan.wire, &self.ground);
        }
        self.adversary.handle(now, input);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.adversary.poll_output()
    }

    /// A replica is woken at each heartbeat at the latest, so that orders never wait for long.
    fn next_deadline(&self) -> Option<Time> {
        self.adversary.next_deadline()
    }
}

impl Subject for Attacker {
    fn replica(&self) -> &Replica {
        self.adversary.puppet()
    }

    /// What is of no use to a replica may be to an attacker.
    fn is_wanted(&self, _: ReplicaId, _: &Message) -> bool {
        true
    }
}
