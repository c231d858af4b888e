//! The attackers of a testnet: which replicas play what, each as its own process. Without the feature `lab` there are none.
//!
//! They know each other's keys, so that what one says in the name of another is valid.

use std::collections::BTreeMap;

use quorate_protocol::number::ReplicaId;

use super::Arguments;
use crate::configuration::network::Network;
#[cfg(feature = "lab")]
use crate::error::Problem;

/// Who plays what.
#[derive(Debug)]
pub(super) struct Company {
    /// As it was written.
    parts: BTreeMap<ReplicaId, String>,
    /// Replicas of the cluster.
    size: usize,
}

impl Company {
    /// Those that the arguments name, in a cluster of `size`.
    ///
    /// # Errors
    /// One is not there, is named twice, or is to play what cannot be played.
    #[cfg(feature = "lab")]
    pub(super) fn of(arguments: &Arguments, size: usize) -> anyhow::Result<Self> {
        let mut parts = BTreeMap::new();
        for casting in &arguments.malicious {
            casting.read(size)?;
            if parts.insert(casting.replica, casting.strategy.clone()).is_some() {
                let what = format!("replica {} is given two parts", casting.replica);
                return Err(Problem::usage(what, "give it one, its attacks by commas, as 0=silent,flood").into());
            }
        }
        Ok(Self { parts, size })
    }

    #[cfg(not(feature = "lab"))]
    #[expect(clippy::unnecessary_wraps, reason = "with the laboratory it can fail")]
    pub(super) fn of(_: &Arguments, size: usize) -> anyhow::Result<Self> {
        Ok(Self { parts: BTreeMap::new(), size })
    }

    /// Warns of more attackers than a cluster survives.
    pub(super) fn warn(&self) {
        let tolerated = (self.size - 1) / 3;
        let count = self.parts.len();
        if count > tolerated {
            tracing::warn!(
                "{count} MALICIOUS REPLICAS, AND {} SURVIVE {tolerated}: NOTHING IS PROMISED. What is acknowledged may be \
                 lost, replicas may disagree, and nobody need be answered",
                self.size
            );
        }
    }

    /// What a replica plays, if it plays anything.
    pub(super) fn part_of(&self, id: ReplicaId) -> Option<String> {
        self.parts.get(&id).cloned()
    }

    /// The options that make a replica an attacker, if it is to be one.
    pub(super) fn options(&self, id: ReplicaId, network: &Network) -> Vec<String> {
        let Some(part) = self.parts.get(&id) else { return Vec::new() };
        let others = self.parts.keys().filter(|other| **other != id);
        let others = others.flat_map(|other| {
            ["--accomplice".to_owned(), network.replica_folder(*other).to_string_lossy().into_owned()]
        });
        ["--malicious".to_owned(), part.clone()].into_iter().chain(others).collect()
    }
}
