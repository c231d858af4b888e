//! A replica's side towards clients: an endpoint and a port of their own, so that no number of clients touches the links
//! between replicas (PROTOCOL §12: admission is bounded per client and in total).
//!
//! A client opens one stream for its frames, the replica one for its own. A client that reads too slowly for the bound
//! of its queue is closed; one that sends faster than the host takes is made to wait.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::Endpoint;
use quorate_crypto::{PublicKey, SigningKey};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::transport::admission::{AdmissionLimits, Gate, Heard, host};
use crate::transport::budget::Permit;
use crate::transport::close::{CloseReason, LinkError, Violation};
use crate::transport::endpoint::{MTU_DEFAULT, StartError, Tuning, at_least, bind, server_config, transport_config};
use crate::transport::frame::StreamRole;
use crate::transport::handshake::{Arrival, accept_all};
use crate::transport::identity::Identity;
use crate::transport::lanes::{Dropped, LaneLimits, SharedRoom};
use crate::transport::link::{ChannelBinding, Deadlines, Link, LinkEvents};
use crate::transport::peers::{end, incoming, outgoing};
use crate::transport::per_source::PerSource;
use crate::transport::rate::Rate;
use crate::transport::refusals::{ConnectionRefusal, Refusals};
use crate::transport::status::LinkState;
use crate::transport::tls::{self, ALPN_CLIENT, AcceptedKeys};

/// Bytes under way on a client's stream and connection, and unacknowledged replies. Small, because it may be multiplied
/// by the number of connections.
const STREAM_WINDOW_BYTES: u32 = 512 << 10;
const SEND_WINDOW_BYTES: u32 = 1 << 20;
/// Bytes that may wait to be sent on a connection whatever waits on the others.
const QUEUE_BYTES_OWN: usize = 64 << 10;
/// How long nobody is looked for who could make room for another, where there was nobody.
const SEARCH_INTERVAL: Duration = Duration::from_millis(5);
/// Least share of the event queue that each connection has: one frame, and its `Connected` and `Closed`.
const EVENTS_PER_CONNECTION_MIN: usize = 3;

/// What a client's frame may hold beside a request: its signature and what encodes both; and room for the messages that
/// hold none, such as the question for a proof.
const REQUEST_OVERHEAD_BYTES: u32 = 64 << 10;

/// What a frame to a standby may hold beside a batch: more than the certificate of the largest cluster.
const CERTIFICATE_OVERHEAD_BYTES: u32 = 64 << 10;

/// Largest frame to a client, in bytes, if batches are not larger.
pub(crate) const REPLY_FRAME_BYTES_MIN: u32 = 1 << 20;

/// One connection of a client; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Bounds towards clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Largest frame of a client, in bytes.
    pub request_bytes_max: u32,
    /// Largest frame to a client, in bytes.
    pub reply_bytes_max: u32,
    /// Bytes and frames that may wait for one client; beyond that the connection is closed.
    pub queue_bytes_max: usize,
    /// See `queue_bytes_max`.
    pub queue_frames_max: usize,
    /// Bytes of one connection that the host may hold. At least `request_bytes_max`.
    pub held_bytes_max: u32,
    /// Bytes that may wait to be sent on all connections together, beyond 64 KiB on each.
    pub queue_bytes_total_max: usize,
    /// Bytes of all connections that the host may hold. At least `held_bytes_max`.
    pub held_bytes_total_max: usize,
    /// Bytes of all connections from one IPv4 address or one IPv6 /64 that the host may hold. At least `held_bytes_max`.
    pub held_bytes_per_source_max: usize,
    /// Of connections and handshakes.
    pub admission: AdmissionLimits,
    /// Patience with a client.
    pub deadlines: Deadlines,
    /// Silence after which a connection is given up; clients keep theirs alive.
    pub idle: Duration,
}

impl ClientLimits {
    /// The default bounds, for requests of up to `request_bytes_max` bytes.
    pub fn for_requests(request_bytes_max: u32) -> Self {
        let frame_bytes_max = request_frame_bytes_max(request_bytes_max);
        // While the host holds one of the largest, the next one is read.
        let held_bytes_max = frame_bytes_max.saturating_mul(2).max(1 << 20);
        Self {
            request_bytes_max: frame_bytes_max,
            reply_bytes_max: REPLY_FRAME_BYTES_MIN,
            queue_bytes_max: 4 << 20,
            queue_frames_max: 8192,
            queue_bytes_total_max: 256 << 20,
            held_bytes_max,
            held_bytes_total_max: 128 << 20,
            held_bytes_per_source_max: (32 << 20).max(held_bytes_max as usize),
            admission: AdmissionLimits {
                connections_max: 1024,
                per_source_max: 256,
                half_open_max: 256,
                half_open_per_source_max: 16,
                begun_per_source: Rate { burst: 256, per_second: 192 },
                begun: Rate { burst: 4096, per_second: 256 },
                silence: Duration::from_secs(10),
            },
            deadlines: Deadlines::default(),
            idle: Duration::from_secs(30),
        }
    }

    /// The same with room for batches of up to `batch_bytes_max` bytes on their way to standbys.
    #[must_use]
    pub fn with_batches(self, batch_bytes_max: u32) -> Self {
        let reply_bytes_max = reply_frame_bytes_max(batch_bytes_max);
        let queue_bytes_max = self.queue_bytes_max.max(2 * reply_bytes_max as usize);
        Self { reply_bytes_max, queue_bytes_max, ..self }
    }
}

/// Largest frame from a replica to a client: an answer, or a batch of up to so many bytes with its certificate for a standby.
pub(crate) fn reply_frame_bytes_max(batch_bytes_max: u32) -> u32 {
    batch_bytes_max.saturating_add(CERTIFICATE_OVERHEAD_BYTES).max(REPLY_FRAME_BYTES_MIN)
}

/// Largest frame of a client whose requests have up to so many bytes.
pub(crate) fn request_frame_bytes_max(request_bytes_max: u32) -> u32 {
    request_bytes_max.saturating_add(REQUEST_OVERHEAD_BYTES)
}

/// What a replica's endpoint for clients starts from.
#[derive(Clone, Debug)]
pub struct ClientServerOptions {
    /// The replica's key.
    pub key: SigningKey,
    /// Where to listen; port 0 for any.
    pub listen: SocketAddr,
    /// Whose connections are taken.
    pub accepted: AcceptedKeys,
    /// Digest of the genesis file.
    pub cluster: [u8; 32],
    /// Bounds.
    pub limits: ClientLimits,
    /// What packets may grow to, in bytes of UDP payload.
    pub mtu_upper_bound: u16,
}

impl ClientServerOptions {
    /// Options for clients with any key.
    pub fn new(key: SigningKey, listen: SocketAddr, cluster: [u8; 32], limits: ClientLimits) -> Self {
        Self { key, listen, accepted: AcceptedKeys::Any, cluster, limits, mtu_upper_bound: MTU_DEFAULT }
    }
}

/// What clients do. `Connected`, `Frame`s and `Closed` of one connection come in this order.
#[derive(Debug)]
pub enum ClientEvent {
    /// A client is connected.
    Connected {
        /// Its name from now on.
        connection: ConnectionId,
        /// The key that it proved to hold.
        key: PublicKey,
        /// Where it comes from.
        remote: SocketAddr,
        /// What a client signs with its other keys to prove that they are at this connection.
        channel_binding: ChannelBinding,
    },
    /// A frame came.
    Frame {
        /// On which connection.
        connection: ConnectionId,
        /// Its payload.
        bytes: Bytes,
        /// Its share of the budgets.
        permit: Permit,
    },
    /// The connection is gone.
    Closed {
        /// Which one.
        connection: ConnectionId,
        /// Why.
        reason: LinkError,
    },
}

/// Tells the host what one client does.
struct ClientHost {
    connection: ConnectionId,
    key: PublicKey,
    remote: SocketAddr,
    heard: Arc<Heard>,
}

impl LinkEvents for ClientHost {
    type Event = ClientEvent;

    fn up(&self, channel_binding: ChannelBinding) -> ClientEvent {
        let Self { connection, key, remote, .. } = *self;
        ClientEvent::Connected { connection, key, remote, channel_binding }
    }

    fn frame(&self, _role: StreamRole, bytes: Bytes, permit: Permit) -> ClientEvent {
        self.heard.note();
        ClientEvent::Frame { connection: self.connection, bytes, permit }
    }

    fn down(&self, reason: LinkError) -> ClientEvent {
        ClientEvent::Closed { connection: self.connection, reason }
    }
}

type ClientLink = Link<ClientHost>;

/// What all connections of clients share.
struct Shared {
    cluster: [u8; 32],
    limits: ClientLimits,
    frames_max: u32,
    held: Arc<Semaphore>,
    held_by_source: Mutex<PerSource<Semaphore>>,
    waiting: Arc<SharedRoom>,
    /// When nobody was found for whom more waits than so many bytes.
    searched: Mutex<Option<(Instant, usize)>>,
    events: mpsc::Sender<ClientEvent>,
    refusals: Arc<Refusals>,
    last_connection: AtomicU64,
    /// At most `connections_max` entries, each of which holds a ticket of the gate, and those that are giving way.
    links: Mutex<HashMap<ConnectionId, Arc<ClientLink>>>,
}

/// A replica's endpoint for clients. Dropping it ends all connections without a farewell; see [`Self::shutdown`].
pub struct ClientServer {
    endpoint: Endpoint,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl ClientServer {
    /// Listens. Needs a tokio runtime with time and net.
    ///
    /// Events go into `events`; its capacity is divided among `connections_max`, so that no client can fill it. 65,536
    /// is a good one: it costs nothing while it is empty, and gives each of 1,024 clients 62 frames.
    pub fn start(options: ClientServerOptions, events: mpsc::Sender<ClientEvent>) -> Result<Self, StartError> {
        let limits = options.limits;
        let connections_max = limits.admission.connections_max.max(1);
        let capacity = events.max_capacity();
        at_least("the capacity of the event queue", capacity, connections_max * EVENTS_PER_CONNECTION_MIN)?;
        at_least("the budget of received bytes in total", limits.held_bytes_total_max, limits.held_bytes_max as usize)?;
        let of_source = limits.held_bytes_per_source_max;
        at_least("the budget of received bytes of a source", of_source, limits.held_bytes_max as usize)?;
        incoming(StreamRole::Requests, requests(&limits), 1)?;
        let frames_max = u32::try_from(capacity / connections_max - 2).unwrap_or(u32::MAX);
        let identity = Identity::new(&options.key)?;
        let refusals = Arc::new(Refusals::default());
        let transport = transport_config(&tuning(&options))?;
        let tls = tls::server(&identity, ALPN_CLIENT, options.accepted, &refusals)?;
        let server = server_config(tls, transport);
        let endpoint =
            bind(options.listen, identity.reset_secret(ALPN_CLIENT)?, options.mtu_upper_bound, Some(server))?;
        let shared = Arc::new(Shared {
            cluster: options.cluster,
            limits,
            frames_max,
            held: Arc::new(Semaphore::new(limits.held_bytes_total_max.min(Semaphore::MAX_PERMITS))),
            held_by_source: Mutex::default(),
            events,
            refusals: Arc::clone(&refusals),
            searched: Mutex::default(),
            waiting: Arc::new(SharedRoom::new(QUEUE_BYTES_OWN, limits.queue_bytes_total_max)),
            last_connection: AtomicU64::new(0),
            links: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        let settle = {
            let shared = Arc::clone(&shared);
            move |arrival| Arc::clone(&shared).serve(arrival)
        };
        let gate = Gate::new(limits.admission);
        tasks.spawn(accept_all(endpoint.clone(), gate, limits.deadlines.handshake, refusals, settle));
        Ok(Self { endpoint, shared, tasks })
    }

    /// Queues a frame for a client. Never waits. If the client is too slow for its queue the connection is closed.
    pub fn send(&self, connection: ConnectionId, frame: Bytes) -> Result<(), Dropped> {
        let sent = self.try_send(connection, frame);
        if let Err(Dropped::QueueFull | Dropped::NoRoom) = sent
            && let Some(link) = self.link(connection)
        {
            link.give_up(self.too_slow());
        }
        sent
    }

    /// The same for a frame that the client can do without: where its queue is full, the connection stays.
    ///
    /// Where the queues of all together are full, the client for which most waits has to go, unless it is this one.
    pub fn try_send(&self, connection: ConnectionId, frame: Bytes) -> Result<(), Dropped> {
        let link = self.link(connection).ok_or(Dropped::Unknown)?;
        let bytes = frame.len();
        let sent = link.send(StreamRole::Replies, frame.clone());
        if sent != Err(Dropped::NoRoom) {
            return sent;
        }
        let waiting = link.waiting_bytes().saturating_add(bytes);
        let Some(slowest) = self.shared.slower_than(waiting) else { return sent };
        slowest.give_up(self.too_slow());
        link.send(StreamRole::Replies, frame)
    }

    fn link(&self, connection: ConnectionId) -> Option<Arc<ClientLink>> {
        self.shared.links().get(&connection).cloned()
    }

    fn too_slow(&self) -> Violation {
        Violation::SlowReader { bytes_max: self.shared.limits.queue_bytes_max }
    }

    /// Closes a connection for what came on it; the client gets the reason, the host a `Closed`. Where it came from is kept
    /// out for a while, if that is an offence. No effect on one that is gone.
    pub fn close(&self, connection: ConnectionId, reason: CloseReason) {
        if let Some(link) = self.link(connection) {
            link.state.close(LinkError::ClosedHere(reason));
        }
    }

    /// Closes a connection that has to make room for another one of the same key.
    pub fn give_way(&self, connection: ConnectionId) {
        if let Some(link) = self.link(connection) {
            self.shared.refusals.count(ConnectionRefusal::GaveWay);
            link.state.close(LinkError::GaveWay);
        }
    }

    /// How many clients are connected.
    pub fn connection_count(&self) -> usize {
        self.shared.links().len()
    }

    /// How many connections were refused for that reason.
    pub fn refused(&self, reason: ConnectionRefusal) -> u64 {
        self.shared.refusals.of(reason)
    }

    /// Where it listens. Fails only if the operating system has lost the socket.
    pub fn listen_addr(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Tells all clients and ends; `Closed` may be missing for some.
    pub async fn shutdown(self) {
        end(self.endpoint, self.tasks).await;
    }
}

impl std::fmt::Debug for ClientServer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ClientServer").field("connections", &self.connection_count()).finish_non_exhaustive()
    }
}

impl Shared {
    fn links(&self) -> MutexGuard<'_, HashMap<ConnectionId, Arc<ClientLink>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The budget of all connections of a host.
    fn held_by_source(&self, address: IpAddr) -> Arc<Semaphore> {
        let bytes_max = self.limits.held_bytes_per_source_max.min(Semaphore::MAX_PERMITS);
        let mut of_sources = self.held_by_source.lock().unwrap_or_else(PoisonError::into_inner);
        of_sources.of(host(address), || Semaphore::new(bytes_max))
    }

    /// The connection for which most bytes wait to be sent, if that is more than so many. Where there was none a moment ago, none is
    /// looked for.
    fn slower_than(&self, bytes: usize) -> Option<Arc<ClientLink>> {
        let mut searched = self.searched.lock().unwrap_or_else(PoisonError::into_inner);
        if searched.is_some_and(|(when, than)| bytes >= than && when.elapsed() < SEARCH_INTERVAL) {
            return None;
        }
        let slowest = self.links().values().max_by_key(|link| link.waiting_bytes()).cloned();
        let slower = slowest.filter(|slowest| slowest.waiting_bytes() > bytes);
        *searched = slower.is_none().then(|| (Instant::now(), bytes));
        slower
    }

    /// Lives on a client's connection until it ends.
    async fn serve(self: Arc<Self>, mut arrival: Arrival) {
        let Some(link) = self.new_link(&arrival) else { return };
        let _registered = Registered::new(&self, &link);
        let mut running = pin!(link.run(&arrival.connection));
        let ended = tokio::select! {
            biased;
            ended = &mut running => ended,
            () = arrival.ticket.gives_way() => {
                self.refusals.count(ConnectionRefusal::GaveWay);
                link.state.close(LinkError::GaveWay);
                running.await
            }
        };
        if ended.is_offence() {
            arrival.ticket.offended();
        }
    }

    fn new_link(&self, arrival: &Arrival) -> Option<Arc<ClientLink>> {
        let connection = ConnectionId(self.last_connection.fetch_add(1, Ordering::Relaxed) + 1);
        let host = ClientHost {
            connection,
            key: arrival.key,
            remote: arrival.connection.remote_address(),
            heard: arrival.ticket.heard(),
        };
        // The limits were found consistent at the start, so that this gives a lane.
        let mut requests = incoming(StreamRole::Requests, requests(&self.limits), self.frames_max).ok()?;
        let of_source = self.held_by_source(arrival.connection.remote_address().ip());
        requests.budget = requests.budget.with_shared(of_source, Arc::clone(&self.held));
        let mut replies = outgoing(StreamRole::Replies, 0, replies(&self.limits));
        replies.queue = replies.queue.with_shared(Arc::clone(&self.waiting));
        Some(Arc::new(Link {
            cluster: self.cluster,
            outgoing: vec![replies],
            incoming: vec![requests],
            deadlines: self.limits.deadlines,
            host,
            events: self.events.clone(),
            refusals: Arc::clone(&self.refusals),
            state: LinkState::default(),
        }))
    }
}

/// A connection's entry in the table; taken out on drop, also when the task is ended.
struct Registered<'a> {
    shared: &'a Shared,
    connection: ConnectionId,
}

impl<'a> Registered<'a> {
    fn new(shared: &'a Shared, link: &Arc<ClientLink>) -> Self {
        let connection = link.host.connection;
        shared.links().insert(connection, Arc::clone(link));
        Self { shared, connection }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.shared.links().remove(&self.connection);
    }
}

fn requests(limits: &ClientLimits) -> LaneLimits {
    LaneLimits {
        frame_bytes_max: limits.request_bytes_max,
        queue_bytes_max: 0,
        queue_frames_max: 0,
        held_bytes_max: limits.held_bytes_max,
    }
}

fn replies(limits: &ClientLimits) -> LaneLimits {
    LaneLimits {
        frame_bytes_max: limits.reply_bytes_max,
        queue_bytes_max: limits.queue_bytes_max,
        queue_frames_max: limits.queue_frames_max,
        held_bytes_max: 0,
    }
}

fn tuning(options: &ClientServerOptions) -> Tuning {
    Tuning {
        mtu_upper_bound: options.mtu_upper_bound,
        streams: 1,
        stream_window_bytes: STREAM_WINDOW_BYTES,
        receive_window_bytes: STREAM_WINDOW_BYTES,
        send_window_bytes: SEND_WINDOW_BYTES,
        keep_alive: None,
        idle: options.limits.idle,
    }
}
