//! Somebody with the key and the address of a replica that is down: a member for the transport, and one that keeps to no
//! rule above it.

use quorate_crypto::SigningKey;
use quorate_node::configuration::ReplicaConfiguration;
use quorate_node::transport::{Lane, LinkPhase, LinkStatus, Member, PeerNetwork, PeerOptions};
use quorate_protocol::number::ReplicaId;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::store::runtime;
use crate::{Cluster, LIMIT, wait_until};

/// Events that wait to be thrown away.
const EVENTS_MAX: usize = 4096;

/// A member's place, taken until it is left.
#[derive(Debug)]
pub struct Impostor {
    id: ReplicaId,
    key: SigningKey,
    network: PeerNetwork,
    runtime: Runtime,
}

impl Impostor {
    /// Takes the place of replica `id`, which must not run.
    ///
    /// # Panics
    /// If the place is taken.
    pub fn start(cluster: &Cluster, id: u8) -> Self {
        let files = ReplicaConfiguration::load(&cluster.replica_folder(id)).expect("init wrote the replica's folder");
        let configuration = files.genesis.configuration();
        let members = configuration.replicas().zip(configuration.members()).map(|(id, member)| {
            let address = member.peer_address.parse().expect("the addresses are numbers");
            Member { id, key: member.key, address }
        });
        let listen = files.listen_peer.parse().expect("the addresses are numbers");
        let own = *configuration.cluster().digest().as_bytes();
        let options = PeerOptions::new(files.id, files.key.clone(), listen, members.collect(), own);
        let (events, mut received) = mpsc::channel(EVENTS_MAX);
        let runtime = runtime();
        // What the others say is not listened to, but taken: they must not find it slow.
        runtime.spawn(async move { while received.recv().await.is_some() {} });
        let network = runtime.block_on(async { PeerNetwork::start(options, events) }).expect("the place is free");
        Self { id: files.id, key: files.key, network, runtime }
    }

    /// Waits until it is linked with all others, impostors among them.
    ///
    /// # Panics
    /// If one of them keeps away.
    pub fn wait_linked(&self) {
        let is_up = |link: &LinkStatus| link.phase == LinkPhase::Up;
        wait_until("the others to be linked", LIMIT, || self.network.links().iter().all(is_up));
    }

    /// Whose place it is.
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// The key that the others know.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// Sends a frame to replica `to`, by that lane; says whether it leaves.
    pub fn send(&self, to: u8, lane: Lane, frame: &[u8]) -> bool {
        self.network.send(ReplicaId::new(to), lane, frame.to_vec().into()).is_ok()
    }

    /// Leaves the place.
    pub fn leave(self) {
        self.runtime.block_on(self.network.shutdown());
    }
}
