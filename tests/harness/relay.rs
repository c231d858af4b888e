//! The network between replicas, where a test cuts it. The genesis names the relay's ports; what comes there goes on to
//! the port at which the replica really listens, unless the test said otherwise for that pair and direction. Needs no
//! rights on the machine, and knows nothing of QUIC.
//!
//! One socket a pair stands for the sender, so that answers find their way back.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::net::UdpSocket as AsyncSocket;
use tokio::runtime::Runtime;
use tokio::time::sleep;

use crate::ports::Ports;
use crate::store::runtime;

/// Largest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_536;

/// How datagrams pass from one replica to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// As they come.
    Open,
    /// Not at all.
    Cut,
    /// After so long.
    Slow(Duration),
    /// But for so many of a hundred.
    Lossy(u8),
}

/// Relays between all pairs of replicas, until it is dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    network: Arc<Network>,
    _runtime: Runtime,
}

#[derive(Debug)]
struct Network {
    /// Where each replica really listens.
    listen: Vec<SocketAddr>,
    /// By sender, then receiver.
    passages: RwLock<Vec<Vec<Passage>>>,
    passed: AtomicU64,
}

/// One direction of one pair.
#[derive(Debug, Clone)]
struct Lane {
    network: Arc<Network>,
    from: usize,
    to: usize,
    out: Arc<AsyncSocket>,
}

impl Relay {
    /// Begins to relay for so many replicas, all passages open.
    pub(crate) fn start(ports: &Ports, replicas: u8) -> Self {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let size = usize::from(replicas);
        let network = Arc::new(Network {
            listen: (0..replicas).map(|id| local(ports.behind_relay(id))).collect(),
            passages: RwLock::new(vec![vec![Passage::Open; size]; size]),
            passed: AtomicU64::new(0),
        });
        let runtime = runtime();
        {
            let _entered = runtime.enter();
            for to in 0..replicas {
                let stated = local(ports.base() + 2 * u16::from(to));
                serve(&network, usize::from(to), stated).expect("the ports were free a moment ago");
            }
        }
        Self { network, _runtime: runtime }
    }

    /// From now on datagrams pass so.
    pub(crate) fn pass(&self, from: u8, to: u8, passage: Passage) {
        let mut passages = self.network.passages.write().unwrap_or_else(PoisonError::into_inner);
        passages[usize::from(from)][usize::from(to)] = passage;
    }
}

/// Serves the address that the genesis states for replica `to`.
fn serve(network: &Arc<Network>, to: usize, stated: SocketAddr) -> io::Result<()> {
    let front = Arc::new(open(stated)?);
    let mut there = Vec::new();
    for from in (0..network.listen.len()).filter(|from| *from != to) {
        let back = Arc::new(open((Ipv4Addr::LOCALHOST, 0).into())?);
        there.push(Lane::new(network, from, to, &back));
        let again = Lane::new(network, to, from, &front);
        tokio::spawn(async move { relay(&back, &[again]).await });
    }
    tokio::spawn(async move { relay(&front, &there).await });
    Ok(())
}

fn open(address: SocketAddr) -> io::Result<AsyncSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    AsyncSocket::from_std(socket)
}

/// Hands everything that comes in to the lane that begins where it came from.
async fn relay(socket: &AsyncSocket, lanes: &[Lane]) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // An error is an earlier datagram's that found nobody.
        let Ok((length, source)) = socket.recv_from(&mut buffer).await else { continue };
        let lane = lanes.iter().find(|lane| lane.network.listen[lane.from] == source);
        if let Some((lane, datagram)) = lane.zip(buffer.get(..length)) {
            lane.carry(datagram).await;
        }
    }
}

impl Lane {
    fn new(network: &Arc<Network>, from: usize, to: usize, out: &Arc<AsyncSocket>) -> Self {
        Self { network: Arc::clone(network), from, to, out: Arc::clone(out) }
    }

    async fn carry(&self, datagram: &[u8]) {
        match self.network.passage(self.from, self.to) {
            Passage::Cut => {}
            Passage::Lossy(percent) if self.network.is_unlucky(percent) => {}
            Passage::Slow(delay) => {
                let (lane, datagram) = (self.clone(), datagram.to_vec());
                tokio::spawn(async move {
                    sleep(delay).await;
                    lane.send(&datagram).await;
                });
            }
            Passage::Open | Passage::Lossy(_) => self.send(datagram).await,
        }
    }

    async fn send(&self, datagram: &[u8]) {
        // A replica that is down does not listen; that is no error of the network's.
        self.out.send_to(datagram, self.network.listen[self.to]).await.ok();
    }
}

impl Network {
    fn passage(&self, from: usize, to: usize) -> Passage {
        self.passages.read().unwrap_or_else(PoisonError::into_inner)[from][to]
    }

    /// Spreads the lost ones evenly: 37 and 100 have no common divisor.
    fn is_unlucky(&self, percent: u8) -> bool {
        self.passed.fetch_add(1, Ordering::Relaxed).wrapping_mul(37) % 100 < u64::from(percent)
    }
}
