//! What `quorate status --json` says, as far as tests look at it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer};

/// All replicas.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// By number.
    pub replicas: Vec<ReplicaStatus>,
}

/// One replica, by its own word. Of one that is not reachable everything else is empty.
#[derive(Debug, Clone, Deserialize)]
pub struct ReplicaStatus {
    /// Its number.
    pub id: u8,
    /// Whether it answered.
    pub reachable: bool,
    /// `primary` or `backup`.
    #[serde(deserialize_with = "or_nothing")]
    pub role: String,
    /// Why it does not vote, and what it waits for.
    #[serde(default, deserialize_with = "or_nothing")]
    pub waits_for: Option<String>,
    /// Its epoch.
    #[serde(deserialize_with = "or_nothing")]
    pub epoch: u64,
    /// `normal`, or what it is busy with instead.
    #[serde(deserialize_with = "or_nothing")]
    pub mode: String,
    /// Its view.
    #[serde(deserialize_with = "or_nothing")]
    pub view: u64,
    /// The primary of its view.
    #[serde(deserialize_with = "or_nothing")]
    pub primary: u8,
    /// The last slot that it executed.
    #[serde(deserialize_with = "or_nothing")]
    pub executed: u64,
    /// The slot of its stable checkpoint.
    #[serde(deserialize_with = "or_nothing")]
    pub stable: u64,
    /// The root of its state there.
    #[serde(deserialize_with = "or_nothing")]
    pub state_root: Option<String>,
    /// Whether its disk is full.
    #[serde(deserialize_with = "or_nothing")]
    pub disk_full: bool,
    /// Connected clients.
    #[serde(deserialize_with = "or_nothing")]
    pub clients: u64,
    /// Messages of peers that counted for nothing.
    #[serde(deserialize_with = "or_nothing")]
    pub invalid_from_peers: u64,
    /// Messages of clients that counted for nothing.
    #[serde(deserialize_with = "or_nothing")]
    pub invalid_from_clients: u64,
    /// Connections that were refused, by reason.
    #[serde(deserialize_with = "or_nothing")]
    pub connections_refused: BTreeMap<String, u64>,
    /// What it found on its disk.
    #[serde(default, deserialize_with = "or_nothing")]
    pub scrub: Scrub,
    /// Its links to the others.
    #[serde(deserialize_with = "or_nothing")]
    pub links: Vec<Link>,
    /// Whom it holds proofs against.
    #[serde(deserialize_with = "or_nothing")]
    pub evidence: Vec<u8>,
}

/// What a replica found on its disk.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Scrub {
    /// Times that the log was found damaged.
    pub log_damaged: u64,
}

/// A link to another replica.
#[derive(Debug, Clone, Deserialize)]
pub struct Link {
    /// The other one.
    pub peer: u8,
    /// `up`, `connecting` or `waiting`.
    pub state: String,
    /// Why it went down the last time.
    pub last_error: Option<String>,
}

/// A field must be there, but may be `null`.
fn or_nothing<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Status {
    /// The view that most replicas are in.
    pub fn view(&self) -> u64 {
        let mut views: Vec<u64> = self.reachable().map(|replica| replica.view).collect();
        views.sort_unstable();
        views.get(views.len() / 2).copied().unwrap_or_default()
    }

    /// The primary of that view.
    pub fn primary(&self) -> u8 {
        let view = self.view();
        self.reachable().find(|replica| replica.view == view).map_or(0, |replica| replica.primary)
    }

    /// The highest slot that any replica executed.
    pub fn executed(&self) -> u64 {
        self.reachable().map(|replica| replica.executed).max().unwrap_or_default()
    }

    fn reachable(&self) -> impl Iterator<Item = &ReplicaStatus> {
        self.replicas.iter().filter(|replica| replica.reachable)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.replicas.iter().try_for_each(|replica| writeln!(formatter, "{replica}"))
    }
}

impl fmt::Display for ReplicaStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, role, mode, view, executed, stable, state_root, disk_full, .. } = self;
        if !self.reachable {
            return write!(formatter, "replica {id} is not reachable");
        }
        let root = state_root.as_deref().and_then(|root| root.get(..8)).unwrap_or("none");
        let full = if *disk_full { ", disk full" } else { "" };
        write!(
            formatter,
            "replica {id}: {role}, view {view}, {mode}, executed {executed}, stable {stable}, root {root}{full}"
        )?;
        let down = self.links.iter().filter(|link| link.state != "up");
        down.into_iter().try_for_each(|link| write!(formatter, ", {} to {}", link.state, link.peer))
    }
}
