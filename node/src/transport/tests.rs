//! The transport over real sockets on loopback: what the tests share. No test sleeps for a condition; each waits for it
//! with [`PATIENCE`] as its bound.

mod clients;
mod hostile;
mod peers;
mod restart;
mod staller;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{ApplicationClose, ClientConfig, Connection, ConnectionError, Endpoint, SendStream};
use quorate_crypto::SigningKey;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::transport::endpoint::{MTU_DEFAULT, Tuning, dial_from, transport_config};
use crate::transport::frame::{StreamRole, header, hello};
use crate::transport::identity::Identity;
use crate::transport::refusals::Refusals;
use crate::transport::{Member, PeerEvent, PeerLimits, PeerNetwork, PeerOptions, ReplicaId, tls};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);
const CLUSTER: [u8; 32] = [0xc1; 32];
const EVENTS: usize = 4096;

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed([number + 1; 32])
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn member(number: u8, address: SocketAddr) -> Member {
    Member { id: ReplicaId(number), key: key(number).public_key(), address: address.to_string() }
}

/// A member of a cluster and what it was told.
struct Peer {
    network: PeerNetwork,
    events: mpsc::Receiver<PeerEvent>,
}

impl Peer {
    fn start(options: PeerOptions) -> Self {
        let (sender, events) = mpsc::channel(EVENTS);
        Self { network: PeerNetwork::start(options, sender).expect("loopback is there"), events }
    }

    fn address(&self) -> SocketAddr {
        self.network.listen_addr().expect("the socket is open")
    }

    async fn next(&mut self) -> PeerEvent {
        next(&mut self.events).await
    }

    /// The next frame, with whatever else is told before it.
    async fn frame(&mut self) -> (ReplicaId, crate::transport::Lane, Bytes) {
        loop {
            if let PeerEvent::Frame { from, lane, bytes, permit } = self.next().await {
                drop(permit);
                return (from, lane, bytes);
            }
        }
    }

    /// Waits until links to so many members are up, one after the other.
    async fn all_up(&mut self, count: usize) {
        for _link in 0..count {
            let event = self.next().await;
            assert!(matches!(event, PeerEvent::Up(_)), "{event:?}");
        }
    }
}

async fn next<E>(events: &mut mpsc::Receiver<E>) -> E {
    timeout(PATIENCE, events.recv()).await.expect("something happens in time").expect("the transport runs")
}

/// Waits until a condition holds that no event tells of.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect(what);
}

fn options(number: u8, members: &[Member]) -> PeerOptions {
    PeerOptions::new(ReplicaId(number), key(number), loopback(), members.to_vec(), CLUSTER)
}

/// A cluster on loopback: `adjust` may change each member's options. From the highest id down, since the lower one dials.
fn start_peers(count: u8, adjust: impl Fn(&mut PeerOptions)) -> Vec<Peer> {
    let mut members: Vec<Member> = (0..count).map(|number| member(number, loopback())).collect();
    let mut peers = Vec::new();
    for number in (0..count).rev() {
        let mut options = options(number, &members);
        adjust(&mut options);
        let peer = Peer::start(options);
        members[usize::from(number)].address = peer.address().to_string();
        peers.insert(0, peer);
    }
    peers
}

/// One peer of a pair, to be attacked: it is number 1 and waits to be dialled by number 0, and it waits for number 2
/// too, which never comes: number 1 dials that.
fn victim(limits: PeerLimits) -> Peer {
    let members = [member(0, loopback()), member(1, loopback()), member(2, unreachable())];
    Peer::start(PeerOptions { limits, ..options(1, &members) })
}

/// Where nobody listens.
fn unreachable() -> SocketAddr {
    ([127, 0, 0, 1], 9).into()
}

/// Two addresses that no other test and no other process has: on a host of the loopback for each test of each process, at
/// ports below those that the system gives to whoever asks for any.
fn own_addresses(test: u8) -> [SocketAddr; 2] {
    let octet = |number: u32| u8::try_from(number % 250).expect("it is below 250") + 1;
    let process = std::process::id();
    [21_000, 21_001].map(|port| ([127, octet(process / 250), octet(process), test], port).into())
}

/// An endpoint with the key of that number, and how to dial who has the key of the other.
fn dialler(own: u8, expected: u8, alpn: &[u8]) -> (Endpoint, ClientConfig) {
    let identity = Identity::new(&key(own)).expect("the key is usable");
    let refusals = Arc::new(Refusals::default());
    let tls = tls::client(&identity, alpn, key(expected).public_key(), &refusals).expect("TLS is there");
    let tuning = Tuning {
        mtu_upper_bound: MTU_DEFAULT,
        streams: 4,
        stream_window_bytes: 64 << 10,
        receive_window_bytes: 64 << 10,
        send_window_bytes: 8 << 20,
        keep_alive: Some(Duration::from_millis(500)),
        idle: PATIENCE,
    };
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(transport_config(&tuning).expect("the settings are in range"));
    (dial_from(loopback(), MTU_DEFAULT).expect("loopback is there"), config)
}

/// A dialler that follows only those rules that a test wants.
struct Raw {
    _endpoint: Endpoint,
    connection: Connection,
}

impl Raw {
    /// Dials with the key of that number, expecting the key of the other.
    async fn dial(own: u8, expected: u8, address: SocketAddr, alpn: &[u8]) -> Result<Self, ConnectionError> {
        let (endpoint, config) = dialler(own, expected, alpn);
        let connection = endpoint.connect_with(config, address, "raw").expect("the address is fine").await?;
        Ok(Self { _endpoint: endpoint, connection })
    }

    /// Opens a stream that begins with these bytes.
    async fn open(&self, bytes: &[u8]) -> SendStream {
        let mut stream = self.connection.open_uni().await.expect("a stream is allowed");
        stream.write_all(bytes).await.expect("the connection lives");
        stream
    }

    /// Opens both streams of a peer, hellos said.
    async fn open_lanes(&self) -> (SendStream, SendStream) {
        let votes = self.open(&hello(&CLUSTER, StreamRole::Votes)).await;
        (votes, self.open(&hello(&CLUSTER, StreamRole::Bulk)).await)
    }

    async fn closed(&self) -> ConnectionError {
        timeout(PATIENCE, self.connection.closed()).await.expect("the other side closes in time")
    }

    /// Code and text with which the other side's application closed the connection.
    async fn farewell(&self) -> (u64, String) {
        match self.closed().await {
            ConnectionError::ApplicationClosed(ApplicationClose { error_code, reason }) => {
                (error_code.into_inner(), String::from_utf8_lossy(&reason).into_owned())
            }
            other => panic!("not closed by the application: {other:?}"),
        }
    }
}

/// A frame on the wire.
fn framed(payload: &[u8]) -> Vec<u8> {
    [header(payload.len()).as_slice(), payload].concat()
}
