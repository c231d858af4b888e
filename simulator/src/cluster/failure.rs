//! What went wrong with a cluster, told so that somebody can begin to look for the reason.

use core::fmt;
use core::time::Duration;

use crate::checker::Violation;
use crate::host::{Host, Standing, Subject};
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
        let standing = match world.standing(id) {
            Some(standing) => tell(&standing, world.hosts[id.index()].subject.as_deref()),
            None if world.is_exempt(id) => "an attacker".to_owned(),
            None => "down".to_owned(),
        };
        lines.push(format!("replica {id}: {standing}; {}", keeps(&world.hosts[id.index()])));
    }
    for id in world.standbys() {
        let host = &world.hosts[id.index()];
        let standing =
            world.standing(id).map_or_else(|| "down".to_owned(), |standing| tell(&standing, host.subject.as_deref()));
        let member = host.stands_by().map_or(String::new(), |member| format!(" beside replica {member}"));
        lines.push(format!("standby {id}{member}: {standing}; {}", keeps(host)));
    }
    let unanswered = world.unanswered();
    lines.push(format!("unanswered: {} calls {:?}", unanswered.len(), unanswered.iter().take(4).collect::<Vec<_>>()));
    lines.push(format!("{:?}; {:?}", world.counts(), world.network.counts()));
    lines.join("\n")
}

/// How far one that runs says that it came, and what it is about.
fn tell(standing: &Standing, subject: Option<&dyn Subject>) -> String {
    let Standing { view, is_in_view, executed, stable } = standing;
    let wanted = if *is_in_view { "" } else { " wanted" };
    let occupation = subject.map_or(String::new(), Subject::occupation);
    format!("view {view}{wanted}, executed {executed}, stable {stable}, {occupation}")
}

/// What a disk holds.
fn keeps(host: &Host) -> String {
    let (stored, log) = (host.disk.checkpoints.durable_sequence(), &host.disk.log);
    format!("durable state at {stored}, log {}..{}", log.first(), log.end())
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
