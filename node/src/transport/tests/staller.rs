//! A stranger who occupies what handshakes occupy.

use std::net::IpAddr;

use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::interval;

use super::*;
use crate::transport::ConnectionRefusal;

/// What the first byte of a packet that demands proof of the address begins with (RFC 9000 §17.2.5).
const RETRY: u8 = 0xf0;
/// Time between two handshakes: five times as many a second as take all places within the deadline.
const PACE: Duration = Duration::from_millis(4);

/// How a stranger learns that he has all the places that he gets: others of his made room, or he is refused.
pub(super) const NO_MORE: [ConnectionRefusal; 3] =
    [ConnectionRefusal::HandshakeDeadline, ConnectionRefusal::TooManyFromSource, ConnectionRefusal::TooManyConnections];

/// Begins one handshake after the other, proves his address and lets them hang. Ends when it is dropped.
pub(super) struct Staller {
    _tasks: JoinSet<()>,
}

impl Staller {
    /// Dials `victim`, which has the key of that number, from a port of `host`.
    pub(super) async fn start(host: IpAddr, number: u8, victim: SocketAddr, alpn: &[u8]) -> Self {
        let inner = UdpSocket::bind(loopback()).await.expect("loopback is there");
        let outer = UdpSocket::bind((host, 0)).await.expect("loopback is there");
        let gateway = inner.local_addr().expect("the socket is open");
        let (endpoint, config) = dialler(66, number, alpn);
        let mut tasks = JoinSet::new();
        tasks.spawn(forward(inner, outer, victim));
        tasks.spawn(async move {
            let (mut hanging, mut pace) = (Vec::new(), interval(PACE));
            loop {
                pace.tick().await;
                hanging.push(endpoint.connect_with(config.clone(), gateway, "raw"));
            }
        });
        Self { _tasks: tasks }
    }
}

/// Forwards all packets to the victim, and of its answers only those that demand proof of the address.
async fn forward(inner: UdpSocket, outer: UdpSocket, victim: SocketAddr) {
    let (mut packet, mut answer) = ([0; 2048], [0; 2048]);
    let mut dialler = None;
    loop {
        tokio::select! {
            Ok((length, from)) = inner.recv_from(&mut packet) => {
                dialler = Some(from);
                drop(outer.send_to(&packet[..length], victim).await);
            }
            Ok(length) = outer.recv(&mut answer) => {
                if let (RETRY, Some(dialler)) = (answer[0] & 0xf0, dialler) {
                    drop(inner.send_to(&answer[..length], dialler).await);
                }
            }
        }
    }
}
