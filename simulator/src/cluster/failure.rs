//! What went wrong with a cluster, told so that somebody can begin to look for the reason.

use core::fmt;
use core::time::Duration;

use crate::checker::Violation;
use crate::world::World;

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// An invariant does not hold.
    Violated(Violation),
    /// What was waited for did not come about in this time.
    Waited(Duration),
    /// The replicas do not agree when they should.
    NotConverged,
    /// A replica does not start; and why.
    DoesNotStart(usize, String),
    /// Steps were taken without end.
    Circles,
}

/// A failed run: what went wrong, and how the cluster stood then.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub trouble: Trouble,
    /// The seed of the run.
    pub seed: u64,
    /// How the cluster stood.
    pub account: String,
}

impl Failure {
    pub(super) fn new(world: &World, trouble: Trouble) -> Self {
        Self { trouble, seed: world.seed(), account: account(world) }
    }
}

fn account(world: &World) -> String {
    let mut lines: Vec<String> = world.history().map(String::from).collect();
    for id in world.replicas() {
        let host = &world.hosts[id.index()];
        let log = format!("log {}..{}", host.disk.log.first(), host.disk.log.end());
        let stored = host.disk.checkpoints.durable_sequence();
        lines.push(match world.standing(id) {
            Some(standing) => format!(
                "replica {id}: view {}{}, executed {}, stable {}, {}; durable state at {stored}, {log}",
                standing.view,
                if standing.is_in_view { "" } else { " wanted" },
                standing.executed,
                standing.stable,
                host.subject.as_ref().map_or(String::new(), |subject| subject.occupation())
            ),
            None if world.is_exempt(id) => format!("replica {id}: an attacker; durable state at {stored}, {log}"),
            None => format!("replica {id}: down; durable state at {stored}, {log}"),
        });
    }
    let unanswered = world.unanswered();
    lines.push(format!("unanswered: {} calls {:?}", unanswered.len(), unanswered.iter().take(4).collect::<Vec<_>>()));
    lines.push(format!("{:?}; {:?}", world.counts(), world.network.counts()));
    lines.join("\n")
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violated(violation) => violation.fmt(formatter),
            Self::Waited(bound) => write!(formatter, "what was waited for did not come about within {bound:?}"),
            Self::NotConverged => write!(formatter, "the replicas do not have the same state"),
            Self::DoesNotStart(replica, reason) => write!(formatter, "replica {replica} does not start: {reason}"),
            Self::Circles => write!(formatter, "steps without end"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "seed {}: {}\n{}", self.seed, self.trouble, self.account)
    }
}

/// As its display: a test that ends with a failure prints it.
impl fmt::Debug for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl core::error::Error for Failure {}
