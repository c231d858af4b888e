//! How a cluster is described before it runs.

use std::collections::{BTreeMap, BTreeSet};

use quorate_protocol::codec::List;
use quorate_protocol::configuration::{Configuration, ConfigurationError, Member, Parameters};
use quorate_protocol::number::ReplicaId;

use super::Cluster;
use crate::adversary::{Attacks, Elsewhere};
use crate::host::{ApplicationMaker, Builder};
use crate::ledger::replicated_store;
use crate::signature::{Holder, Notary, Scheme};
use crate::world::{World, WorldOptions, cluster_id};

/// A cluster that is being described.
pub struct ClusterBuilder {
    size: usize,
    seed: u64,
    scheme: Scheme,
    options: WorldOptions,
    parameters: Parameters,
    builder: Option<Builder>,
    attackers: BTreeMap<usize, Attacks>,
    make_application: ApplicationMaker,
    is_started: bool,
}

impl core::fmt::Debug for ClusterBuilder {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("ClusterBuilder")
            .field("size", &self.size)
            .field("seed", &self.seed)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl ClusterBuilder {
    pub(super) fn new(size: usize, seed: u64) -> Self {
        Self {
            size,
            seed,
            scheme: Scheme::Ideal,
            options: WorldOptions::default(),
            parameters: Parameters { checkpoint_interval: 8, window: 32, ..Parameters::default() },
            builder: None,
            attackers: BTreeMap::new(),
            make_application: replicated_store,
            is_started: true,
        }
    }

    /// Changes the parameters of the configuration: by default those of the protocol, with a checkpoint every 8 slots and a
    /// window of 32.
    #[must_use]
    pub fn parameters(mut self, change: impl FnOnce(&mut Parameters)) -> Self {
        change(&mut self.parameters);
        self
    }

    /// Changes how links, disks, clocks and hosts behave.
    #[must_use]
    pub fn options(mut self, change: impl FnOnce(&mut WorldOptions)) -> Self {
        change(&mut self.options);
        self
    }

    /// Which signatures are used.
    #[must_use]
    pub const fn scheme(mut self, scheme: Scheme) -> Self {
        self.scheme = scheme;
        self
    }

    /// What runs on the hosts, instead of replicas.
    #[must_use]
    pub fn subjects(mut self, builder: Builder) -> Self {
        self.builder = Some(builder);
        self
    }

    /// Which replicas are not correct, and what they do.
    #[must_use]
    pub fn attackers(mut self, attackers: impl IntoIterator<Item = (usize, Attacks)>) -> Self {
        self.attackers.extend(attackers);
        self
    }

    /// Which application is replicated: by default the key-value store.
    #[must_use]
    pub const fn application(mut self, make: ApplicationMaker) -> Self {
        self.make_application = make;
        self
    }

    /// Leaves all replicas down.
    #[must_use]
    pub const fn down(mut self) -> Self {
        self.is_started = false;
        self
    }

    /// The cluster, running.
    ///
    /// # Panics
    /// If the parameters are none of a configuration, or a replica does not start on an empty disk.
    pub fn build(self) -> Cluster {
        self.try_build().expect("a test asks for valid parameters")
    }

    /// The cluster, running.
    ///
    /// # Errors
    /// [`ConfigurationError`], if the parameters are none of a configuration.
    ///
    /// # Panics
    /// If a replica does not start on an empty disk.
    pub fn try_build(self) -> Result<Cluster, ConfigurationError> {
        let mut notary = Notary::new(self.scheme);
        let configuration = configuration(self.size, &mut notary, self.parameters)?;
        let attackers: Vec<ReplicaId> = self.attackers.keys().copied().map(super::id).collect();
        let keys = (0..self.size as u64).map(|replica| notary.key(Holder::Replica(replica)).1);
        let elsewhere = Elsewhere::new(keys.collect());
        let builder = self
            .builder
            .unwrap_or_else(|| crate::subject::replicas(self.attackers, self.seed, elsewhere, self.make_application));
        let mut world = World::new(self.seed, configuration, notary, self.options, builder, self.make_application);
        for attacker in attackers {
            world.exempt(attacker);
        }
        if self.is_started {
            for id in world.replicas() {
                world.start(id).expect("a replica starts on an empty disk");
            }
            world.start_standbys();
        }
        Ok(Cluster { world, given_up: BTreeSet::new() })
    }
}

/// A configuration of `size` members whose keys `notary` knows.
pub(crate) fn configuration(
    size: usize,
    notary: &mut Notary,
    parameters: Parameters,
) -> Result<Configuration, ConfigurationError> {
    let members = ReplicaId::all(size).map(|id| Member {
        key: notary.key(Holder::Replica(u64::from(id.value()))).0,
        peer_address: format!("replica-{id}:1"),
        client_address: format!("replica-{id}:2"),
    });
    let members = List::new(members.collect()).expect("a test asks for at most 31 members");
    Configuration::new(cluster_id(), members, parameters)
}
