//! Replica to replica: one UDP socket, one connection a pair, a stream each way for votes and one for bulk.
//!
//! Of two members the one with the lower id dials; the other waits, and refuses being dialled from above. When a member
//! that is connected already connects again it has restarted or lost the connection: the newest authenticated
//! connection replaces the older one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::{ClientConfig, Connection, Endpoint};
use quorate_crypto::SigningKey;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::transport::address::look_up;
use crate::transport::admission::{AdmissionLimits, Gate};
use crate::transport::backoff::{Backoff, jitter};
use crate::transport::budget::{Budget, Permit};
use crate::transport::close::{CloseReason, LinkError, Violation};
use crate::transport::dial::{Target, keep_connected};
use crate::transport::endpoint::{MTU_DEFAULT, StartError, Tuning, at_least, bind, server_config, transport_config};
use crate::transport::flaps::Flaps;
use crate::transport::frame::StreamRole;
use crate::transport::handshake::{Arrival, accept_all};
use crate::transport::identity::Identity;
use crate::transport::lanes::{Dropped, LaneLimits, LaneQueue};
use crate::transport::link::{ChannelBinding, Deadlines, Incoming, Link, LinkEvents, Outgoing};
use crate::transport::rate::Rate;
use crate::transport::refusals::{ConnectionRefusal, Refusals};
use crate::transport::status::{LinkState, LinkStatus};
use crate::transport::tls::{self, ALPN_PEER, AcceptedKeys};
use crate::transport::{Member, ReplicaId};

/// Connections of one member that may wait to replace the one that lives.
const ARRIVALS_MAX: usize = 4;
/// How long a shutdown waits for the other sides to hear of it.
const FAREWELL: Duration = Duration::from_millis(500);
/// How often it is looked up where the members that dial come from.
const LOOK_UP_INTERVAL: Duration = Duration::from_secs(30);
/// Frames are never so few that a lane stands still: at least so many of each lane fit into the event queue.
const FRAMES_PER_LANE_MIN: usize = 2;

/// Which of the two streams between replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Small and urgent.
    Votes,
    /// Everything else; never delays votes.
    Bulk,
}

impl Lane {
    fn role(self) -> StreamRole {
        match self {
            Self::Votes => StreamRole::Votes,
            Self::Bulk => StreamRole::Bulk,
        }
    }
}

/// Bounds towards other replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerLimits {
    /// Of each peer's votes.
    pub votes: LaneLimits,
    /// Of each peer's bulk.
    pub bulk: LaneLimits,
    /// Of handshakes from outside.
    pub admission: AdmissionLimits,
    /// Patience with a peer.
    pub deadlines: Deadlines,
    /// How often a silent connection is kept alive.
    pub keep_alive: Duration,
    /// Silence after which a connection is given up.
    pub idle: Duration,
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self {
            votes: LaneLimits {
                frame_bytes_max: 64 << 10,
                queue_bytes_max: 4 << 20,
                queue_frames_max: 16_384,
                held_bytes_max: 4 << 20,
            },
            bulk: LaneLimits {
                frame_bytes_max: 16 << 20,
                queue_bytes_max: 64 << 20,
                queue_frames_max: 16_384,
                held_bytes_max: 32 << 20,
            },
            admission: AdmissionLimits {
                connections_max: 512,
                per_source_max: 256,
                half_open_max: 256,
                half_open_per_source_max: 16,
                begun_per_source: Rate { burst: 256, per_second: 192 },
                begun: Rate { burst: 4096, per_second: 256 },
                silence: Duration::from_secs(10),
            },
            deadlines: Deadlines::default(),
            keep_alive: Duration::from_secs(1),
            idle: Duration::from_secs(10),
        }
    }
}

/// What a replica's network starts from.
#[derive(Clone, Debug)]
pub struct PeerOptions {
    /// The own number.
    pub id: ReplicaId,
    /// The own key.
    pub key: SigningKey,
    /// Where to listen; port 0 for any.
    pub listen: SocketAddr,
    /// All members; the own entry has to be among them.
    pub members: Vec<Member>,
    /// Digest of the genesis file.
    pub cluster: [u8; 32],
    /// Bounds.
    pub limits: PeerLimits,
    /// What packets may grow to, in bytes of UDP payload: [`crate::transport::MTU_MIN`] to
    /// [`crate::transport::MTU_MAX`].
    pub mtu_upper_bound: u16,
}

impl PeerOptions {
    /// Options with the default limits.
    pub fn new(id: ReplicaId, key: SigningKey, listen: SocketAddr, members: Vec<Member>, cluster: [u8; 32]) -> Self {
        Self { id, key, listen, members, cluster, limits: PeerLimits::default(), mtu_upper_bound: MTU_DEFAULT }
    }
}

/// What happens on the links to other replicas. `Up`, `Frame`s and `Down` of one connection come in this order.
#[derive(Debug)]
pub enum PeerEvent {
    /// The link is up: frames can be sent.
    Up(ReplicaId),
    /// The link is down; what waited to be sent is dropped.
    Down(ReplicaId, LinkError),
    /// A frame came.
    Frame {
        /// Whose key the connection was authenticated by.
        from: ReplicaId,
        /// The stream it came on.
        lane: Lane,
        /// Its payload.
        bytes: Bytes,
        /// Its share of the sender's budget.
        permit: Permit,
    },
}

/// Tells the host what one peer does.
struct PeerHost {
    peer: ReplicaId,
    flaps: Mutex<Flaps>,
}

impl PeerHost {
    fn flaps(&self) -> MutexGuard<'_, Flaps> {
        self.flaps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LinkEvents for PeerHost {
    type Event = PeerEvent;

    fn up(&self, _binding: ChannelBinding) -> PeerEvent {
        if let Some(short_lived_before) = self.flaps().on_up(Instant::now()) {
            tracing::info!(peer = %self.peer, short_lived_before, "link up");
        }
        PeerEvent::Up(self.peer)
    }

    fn frame(&self, role: StreamRole, bytes: Bytes, permit: Permit) -> PeerEvent {
        let lane = if role == StreamRole::Votes { Lane::Votes } else { Lane::Bulk };
        PeerEvent::Frame { from: self.peer, lane, bytes, permit }
    }

    fn down(&self, error: LinkError) -> PeerEvent {
        if let Some(short_lived_before) = self.flaps().on_down(Instant::now()) {
            tracing::info!(peer = %self.peer, reason = %error, short_lived_before, "link down");
        }
        PeerEvent::Down(self.peer, error)
    }
}

type PeerLink = Link<PeerHost>;

/// The links of a replica to all others. Dropping it ends them without a farewell; see [`Self::shutdown`].
pub struct PeerNetwork {
    endpoint: Endpoint,
    links: BTreeMap<ReplicaId, Arc<PeerLink>>,
    refusals: Arc<Refusals>,
    tasks: JoinSet<()>,
}

impl PeerNetwork {
    /// Listens and dials. Needs a tokio runtime with time and net.
    ///
    /// Events go into `events`; its capacity is divided among the members and their lanes, so that none of them can fill
    /// it. 65,536 is a good one: it costs nothing while it is empty.
    pub fn start(options: PeerOptions, events: mpsc::Sender<PeerEvent>) -> Result<Self, StartError> {
        assert_members(&options)?;
        let identity = Identity::new(&options.key)?;
        let refusals = Arc::new(Refusals::default());
        let transport = transport_config(&tuning(&options))?;
        let peers: Vec<Member> = options.members.iter().filter(|member| member.id != options.id).cloned().collect();
        let keys = AcceptedKeys::Listed(peers.iter().map(|member| member.key).collect());
        let mut server = server_config(tls::server(&identity, ALPN_PEER, keys, &refusals)?, Arc::clone(&transport));
        // A member has one address, the table's or the one it dialled from.
        server.migration(false);
        let endpoint = bind(options.listen, identity.reset_secret(ALPN_PEER)?, options.mtu_upper_bound, Some(server))?;
        let frames_max = frames_per_lane(events.max_capacity(), peers.len())?;

        let mut network = Self { endpoint, links: BTreeMap::new(), refusals, tasks: JoinSet::new() };
        let gate = Gate::new(options.limits.admission);
        let mut arrivals = BTreeMap::new();
        for peer in peers {
            let link = Arc::new(new_link(&options, peer.id, frames_max, &events, &network.refusals)?);
            network.links.insert(peer.id, Arc::clone(&link));
            if options.id < peer.id {
                let tls = tls::client(&identity, ALPN_PEER, peer.key, &network.refusals)?;
                let mut config = ClientConfig::new(Arc::new(tls));
                config.transport_config(Arc::clone(&transport));
                let target = Target { endpoint: network.endpoint.clone(), config, address: peer.address };
                network.tasks.spawn(keep_connected(link, target));
            } else {
                let (sender, receiver) = mpsc::channel(ARRIVALS_MAX);
                arrivals.insert(*peer.key.as_bytes(), sender);
                network.tasks.spawn(serve(link, receiver));
                network.tasks.spawn(expect(Arc::clone(&gate), peer.id, peer.address));
            }
        }
        network.accept(&options, gate, arrivals);
        Ok(network)
    }

    /// Hands each finished handshake to the link of the member whose key it was.
    fn accept(
        &mut self,
        options: &PeerOptions,
        gate: Arc<Gate>,
        arrivals: BTreeMap<[u8; 32], mpsc::Sender<Connection>>,
    ) {
        let patience = options.limits.deadlines.handshake;
        let refusals = Arc::clone(&self.refusals);
        let arrivals = Arc::new(arrivals);
        let settle = move |arrival: Arrival| {
            settle(&arrivals, &refusals, &arrival);
            std::future::ready(())
        };
        self.tasks.spawn(accept_all(self.endpoint.clone(), gate, patience, Arc::clone(&self.refusals), settle));
    }

    /// Queues a frame for a member, or drops and counts it. Never waits.
    pub fn send(&self, to: ReplicaId, lane: Lane, frame: Bytes) -> Result<(), Dropped> {
        self.links.get(&to).map_or(Err(Dropped::Unknown), |link| link.send(lane.role(), frame))
    }

    /// Closes the link to a member, who gets the reason; the host gets a `Down`. The member is not met again before half
    /// of [`BACKOFF_CAP`] has passed. No effect where there is no connection.
    ///
    /// [`BACKOFF_CAP`]: crate::transport::BACKOFF_CAP
    pub fn close(&self, peer: ReplicaId, reason: CloseReason) {
        if let Some(link) = self.links.get(&peer) {
            link.state.close(LinkError::ClosedHere(reason));
        }
    }

    /// All links, in the order of the members.
    pub fn links(&self) -> Vec<LinkStatus> {
        self.links.iter().map(|(peer, link)| link.state.status(*peer)).collect()
    }

    /// How many connections were refused for that reason.
    pub fn refused(&self, reason: ConnectionRefusal) -> u64 {
        self.refusals.of(reason)
    }

    /// Where it listens. Fails only if the operating system has lost the socket.
    pub fn listen_addr(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Tells all members and ends; `Down` may be missing for some. Waits for no event to be taken. The port is free
    /// shortly after.
    pub async fn shutdown(self) {
        end(self.endpoint, self.tasks).await;
    }
}

impl std::fmt::Debug for PeerNetwork {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("PeerNetwork").field("links", &self.links()).finish_non_exhaustive()
    }
}

/// Closes an endpoint with all that lives on it, and gives the other sides a moment to hear of it.
pub(crate) async fn end(endpoint: Endpoint, mut tasks: JoinSet<()>) {
    let (code, text) = LinkError::Shutdown.farewell();
    endpoint.close(code, text.as_bytes());
    tasks.shutdown().await;
    // Those that do not answer have the idle bound to notice.
    drop(tokio::time::timeout(FAREWELL, endpoint.wait_idle()).await);
}

fn tuning(options: &PeerOptions) -> Tuning {
    Tuning {
        mtu_upper_bound: options.mtu_upper_bound,
        streams: 2,
        stream_window_bytes: 4 << 20,
        receive_window_bytes: 16 << 20,
        send_window_bytes: 8 << 20,
        keep_alive: Some(options.limits.keep_alive),
        idle: options.limits.idle,
    }
}

fn assert_members(options: &PeerOptions) -> Result<(), StartError> {
    let ids: BTreeSet<ReplicaId> = options.members.iter().map(|member| member.id).collect();
    let keys: BTreeSet<_> = options.members.iter().map(|member| member.key).collect();
    let own = options.members.iter().find(|member| member.id == options.id);
    let what = if ids.len() < options.members.len() {
        "an id stands twice"
    } else if keys.len() < options.members.len() {
        "a key stands twice"
    } else if own.is_none_or(|own| own.key != options.key.public_key()) {
        "the own id is missing or has another key"
    } else {
        return Ok(());
    };
    Err(StartError::Members { what })
}

/// Frames of one lane of one peer that may stand in the event queue, with room left for each peer's `Up` and `Down`.
fn frames_per_lane(capacity: usize, peer_count: usize) -> Result<u32, StartError> {
    let peer_count = peer_count.max(1);
    at_least("the capacity of the event queue", capacity, peer_count * (2 * FRAMES_PER_LANE_MIN + 2))?;
    let frames = (capacity / peer_count - 2) / 2;
    Ok(u32::try_from(frames).unwrap_or(u32::MAX))
}

fn new_link(
    options: &PeerOptions,
    peer: ReplicaId,
    frames_max: u32,
    events: &mpsc::Sender<PeerEvent>,
    refusals: &Arc<Refusals>,
) -> Result<PeerLink, StartError> {
    let limits = &options.limits;
    Ok(Link {
        cluster: options.cluster,
        outgoing: vec![outgoing(StreamRole::Votes, 1, limits.votes), outgoing(StreamRole::Bulk, 0, limits.bulk)],
        incoming: vec![
            incoming(StreamRole::Votes, limits.votes, frames_max)?,
            incoming(StreamRole::Bulk, limits.bulk, frames_max)?,
        ],
        deadlines: limits.deadlines,
        host: PeerHost { peer, flaps: Mutex::default() },
        events: events.clone(),
        refusals: Arc::clone(refusals),
        state: LinkState::default(),
    })
}

/// A lane that goes out, with its queue.
pub(crate) fn outgoing(role: StreamRole, priority: i32, limits: LaneLimits) -> Outgoing {
    Outgoing { role, priority, queue: LaneQueue::new(limits) }
}

/// A lane that comes in, with its budget.
pub(crate) fn incoming(role: StreamRole, limits: LaneLimits, frames_max: u32) -> Result<Incoming, StartError> {
    let (held, frame) = (limits.held_bytes_max as usize, limits.frame_bytes_max as usize);
    at_least("the budget of received bytes of a lane", held, frame)?;
    let budget = Budget::new(limits.held_bytes_max, frames_max);
    Ok(Incoming { role, frame_bytes_max: limits.frame_bytes_max, budget })
}

/// Keeps the gate informed of where a member comes from: it dials from where it listens.
async fn expect(gate: Arc<Gate>, member: ReplicaId, address: String) {
    loop {
        if let Ok(found) = look_up(&address).await {
            gate.expect(member, found);
        }
        sleep(LOOK_UP_INTERVAL).await;
    }
}

/// Gives an authenticated connection to its link; refuses members that should have waited.
fn settle(arrivals: &BTreeMap<[u8; 32], mpsc::Sender<Connection>>, refusals: &Refusals, arrival: &Arrival) {
    let (code, text) = match arrivals.get(arrival.key.as_bytes()) {
        None => {
            refusals.count(ConnectionRefusal::WrongDirection);
            LinkError::from(Violation::WrongDirection).farewell()
        }
        Some(link) => match link.try_send(arrival.connection.clone()) {
            Ok(()) => return,
            Err(_full_or_ending) => {
                refusals.count(ConnectionRefusal::TooManyConnections);
                LinkError::Replaced.farewell()
            }
        },
    };
    arrival.connection.close(code, text.as_bytes());
}

/// Lives on the newest connection of a member that dials. Between its connections it waits as if this side dialled, so
/// that one who comes again and again is no more work than one who is dialled in vain.
async fn serve(link: Arc<PeerLink>, mut arrivals: mpsc::Receiver<Connection>) {
    let mut backoff = Backoff::default();
    let mut next = arrivals.recv().await;
    while let Some(connection) = next {
        let began = Instant::now();
        let replace = || link.state.close(LinkError::Replaced);
        let (why, newest) = newest_until(link.run(&connection), &mut arrivals, None, replace).await;
        backoff.on_link_ended(began.elapsed(), &why);
        let wait = sleep(backoff.next_wait(jitter()));
        let ((), newest) = newest_until(wait, &mut arrivals, newest, || ()).await;
        next = match newest {
            Some(newest) => Some(newest),
            None => arrivals.recv().await,
        };
    }
}

/// Waits until `work` is done, and gives the newest connection that came by then, if not `newest`.
pub(super) async fn newest_until<T>(
    work: impl Future<Output = T>,
    arrivals: &mut mpsc::Receiver<Connection>,
    mut newest: Option<Connection>,
    on_arrival: impl Fn(),
) -> (T, Option<Connection>) {
    tokio::pin!(work);
    loop {
        tokio::select! {
            // Work that was not polled yet does not hear of an arrival.
            biased;
            done = &mut work => return (done, newest),
            Some(newer) = arrivals.recv() => {
                on_arrival();
                if let Some(older) = newest.replace(newer) {
                    let (code, text) = LinkError::Replaced.farewell();
                    older.close(code, text.as_bytes());
                }
            }
        }
    }
}
