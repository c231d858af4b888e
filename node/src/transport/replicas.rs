//! A client's side: a link to each replica from one UDP socket, each with that replica's key pinned, dialled again when
//! it breaks (PROTOCOL §12).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{ClientConfig, Endpoint};
use quorate_crypto::SigningKey;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::transport::budget::Permit;
use crate::transport::clients::{REPLY_FRAME_BYTES_MIN, reply_frame_bytes_max, request_frame_bytes_max};
use crate::transport::close::LinkError;
use crate::transport::dial::{Target, keep_connected};
use crate::transport::endpoint::{MTU_DEFAULT, StartError, Tuning, at_least, dial_from, transport_config};
use crate::transport::frame::StreamRole;
use crate::transport::identity::Identity;
use crate::transport::lanes::{Dropped, LaneLimits};
use crate::transport::link::{ChannelBinding, Deadlines, Link, LinkEvents};
use crate::transport::peers::{end, incoming, outgoing};
use crate::transport::refusals::{ConnectionRefusal, Refusals};
use crate::transport::status::{LinkState, LinkStatus};
use crate::transport::tls::{self, ALPN_CLIENT};
use crate::transport::{Member, ReplicaId};

/// Least share of the event queue that each replica has: one frame, and its `Up` and `Down`.
const EVENTS_PER_REPLICA_MIN: usize = 3;

/// A client's bounds towards each replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaLinkLimits {
    /// Of what is sent: its largest frame, and what may wait. `held_bytes_max` has no meaning here.
    pub requests: LaneLimits,
    /// Of what is received: its largest frame, and what the host may hold. The queue's bounds have no meaning here.
    pub replies: LaneLimits,
    /// Patience with a replica.
    pub deadlines: Deadlines,
    /// How often a silent connection is kept alive.
    pub keep_alive: Duration,
    /// Silence after which a connection is given up.
    pub idle: Duration,
}

impl ReplicaLinkLimits {
    /// The default bounds, for requests of up to `request_bytes_max` bytes.
    pub fn for_requests(request_bytes_max: u32) -> Self {
        Self {
            requests: LaneLimits {
                frame_bytes_max: request_frame_bytes_max(request_bytes_max),
                queue_bytes_max: 16 << 20,
                queue_frames_max: 16_384,
                held_bytes_max: 0,
            },
            replies: LaneLimits {
                frame_bytes_max: REPLY_FRAME_BYTES_MIN,
                queue_bytes_max: 0,
                queue_frames_max: 0,
                held_bytes_max: 4 << 20,
            },
            deadlines: Deadlines::default(),
            keep_alive: Duration::from_secs(1),
            idle: Duration::from_secs(10),
        }
    }

    /// The same for a standby, which is sent batches of up to `batch_bytes_max` bytes.
    #[must_use]
    pub fn with_batches(mut self, batch_bytes_max: u32) -> Self {
        let replies = &mut self.replies;
        replies.frame_bytes_max = reply_frame_bytes_max(batch_bytes_max);
        replies.held_bytes_max = replies.held_bytes_max.max(replies.frame_bytes_max.saturating_mul(2));
        self
    }
}

/// What a client's links start from.
#[derive(Clone, Debug)]
pub struct ReplicaLinksOptions {
    /// The client's key.
    pub key: SigningKey,
    /// The address to send from; port 0 for any, `0.0.0.0` or `::` for any address of that family.
    pub local: SocketAddr,
    /// All replicas, with the addresses at which they listen for clients.
    pub members: Vec<Member>,
    /// Digest of the genesis file.
    pub cluster: [u8; 32],
    /// Bounds.
    pub limits: ReplicaLinkLimits,
    /// What packets may grow to, in bytes of UDP payload.
    pub mtu_upper_bound: u16,
}

impl ReplicaLinksOptions {
    /// Options with the default size of packets.
    pub fn new(
        key: SigningKey,
        local: SocketAddr,
        members: Vec<Member>,
        cluster: [u8; 32],
        limits: ReplicaLinkLimits,
    ) -> Self {
        Self { key, local, members, cluster, limits, mtu_upper_bound: MTU_DEFAULT }
    }
}

/// What happens on the links to replicas. `Up`, `Frame`s and `Down` of one connection come in this order.
#[derive(Debug)]
pub enum ReplicaEvent {
    /// The link is up: frames can be sent.
    Up {
        /// To whom.
        replica: ReplicaId,
        /// The same 32 bytes that the replica's [`crate::transport::ClientEvent::Connected`] holds.
        channel_binding: ChannelBinding,
    },
    /// The link is down; what waited to be sent is dropped.
    Down {
        /// To whom.
        replica: ReplicaId,
        /// Why.
        reason: LinkError,
    },
    /// A frame came.
    Frame {
        /// From whom.
        from: ReplicaId,
        /// Its payload.
        bytes: Bytes,
        /// Its share of that replica's budget.
        permit: Permit,
    },
}

/// Tells the client what one replica does.
struct ReplicaHost {
    replica: ReplicaId,
}

impl LinkEvents for ReplicaHost {
    type Event = ReplicaEvent;

    fn up(&self, channel_binding: ChannelBinding) -> ReplicaEvent {
        ReplicaEvent::Up { replica: self.replica, channel_binding }
    }

    fn frame(&self, _role: StreamRole, bytes: Bytes, permit: Permit) -> ReplicaEvent {
        ReplicaEvent::Frame { from: self.replica, bytes, permit }
    }

    fn down(&self, reason: LinkError) -> ReplicaEvent {
        ReplicaEvent::Down { replica: self.replica, reason }
    }
}

/// A client's links to all replicas. Dropping it ends them without a farewell; see [`Self::shutdown`].
pub struct ReplicaLinks {
    endpoint: Endpoint,
    links: BTreeMap<ReplicaId, Arc<Link<ReplicaHost>>>,
    refusals: Arc<Refusals>,
    tasks: JoinSet<()>,
}

impl ReplicaLinks {
    /// Dials all replicas. Needs a tokio runtime with time and net.
    ///
    /// Events go into `events`; its capacity is divided among the replicas, so that none of them can fill it.
    pub fn start(options: ReplicaLinksOptions, events: mpsc::Sender<ReplicaEvent>) -> Result<Self, StartError> {
        let ids: BTreeSet<ReplicaId> = options.members.iter().map(|member| member.id).collect();
        if ids.len() < options.members.len() {
            return Err(StartError::Members { what: "an id stands twice" });
        }
        let replica_count = ids.len().max(1);
        let capacity = events.max_capacity();
        at_least("the capacity of the event queue", capacity, replica_count * EVENTS_PER_REPLICA_MIN)?;
        let frames_max = u32::try_from(capacity / replica_count - 2).unwrap_or(u32::MAX);
        let identity = Identity::new(&options.key)?;
        let transport = transport_config(&tuning(&options))?;
        let endpoint = dial_from(options.local, options.mtu_upper_bound)?;
        let (refusals, tasks) = (Arc::new(Refusals::default()), JoinSet::new());
        let mut links = Self { endpoint, links: BTreeMap::new(), refusals, tasks };
        for member in &options.members {
            let link = Arc::new(links.new_link(&options, member.id, frames_max, &events)?);
            links.links.insert(member.id, Arc::clone(&link));
            let tls = tls::client(&identity, ALPN_CLIENT, member.key, &links.refusals)?;
            let mut config = ClientConfig::new(Arc::new(tls));
            config.transport_config(Arc::clone(&transport));
            let target = Target { endpoint: links.endpoint.clone(), config, address: member.address.clone() };
            links.tasks.spawn(keep_connected(link, target));
        }
        Ok(links)
    }

    fn new_link(
        &self,
        options: &ReplicaLinksOptions,
        replica: ReplicaId,
        frames_max: u32,
        events: &mpsc::Sender<ReplicaEvent>,
    ) -> Result<Link<ReplicaHost>, StartError> {
        let limits = &options.limits;
        Ok(Link {
            cluster: options.cluster,
            outgoing: vec![outgoing(StreamRole::Requests, 0, limits.requests)],
            incoming: vec![incoming(StreamRole::Replies, limits.replies, frames_max)?],
            deadlines: limits.deadlines,
            host: ReplicaHost { replica },
            events: events.clone(),
            refusals: Arc::clone(&self.refusals),
            state: LinkState::default(),
        })
    }

    /// Queues a frame for a replica, or drops and counts it. Never waits.
    pub fn send(&self, to: ReplicaId, frame: Bytes) -> Result<(), Dropped> {
        self.links.get(&to).map_or(Err(Dropped::Unknown), |link| link.send(StreamRole::Requests, frame))
    }

    /// All links, in the order of the replicas.
    pub fn links(&self) -> Vec<LinkStatus> {
        self.links.iter().map(|(replica, link)| link.state.status(*replica)).collect()
    }

    /// How many connections were refused here for that reason: most of all [`ConnectionRefusal::UnknownKey`], when
    /// another key answers at a replica's address.
    pub fn refused(&self, reason: ConnectionRefusal) -> u64 {
        self.refusals.of(reason)
    }

    /// Tells all replicas and ends.
    pub async fn shutdown(self) {
        end(self.endpoint, self.tasks).await;
    }
}

impl std::fmt::Debug for ReplicaLinks {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ReplicaLinks").field("links", &self.links()).finish_non_exhaustive()
    }
}

fn tuning(options: &ReplicaLinksOptions) -> Tuning {
    Tuning {
        mtu_upper_bound: options.mtu_upper_bound,
        streams: 1,
        stream_window_bytes: 4 << 20,
        receive_window_bytes: 4 << 20,
        send_window_bytes: 8 << 20,
        keep_alive: Some(options.limits.keep_alive),
        idle: options.limits.idle,
    }
}
