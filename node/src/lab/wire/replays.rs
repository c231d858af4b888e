//! Connects as a client by way of a relay of its own, which sends each datagram again: at once, later, and from another address.
//! (RFC 9000, sections 9.3.3 and 12.3; RFC 9001, section 9.2; PROTOCOL §4)
//!
//! It breaks a system that takes a packet twice, or moves a connection to wherever a copy comes from. Correct replicas
//! know a packet by its number, which is part of what is authenticated, go on with a connection at a new address only
//! once that is proved, and take no data before the handshake is finished: a handshake that is replayed gives nobody
//! anything.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::pace::Pace;
use super::{Ground, REST, Target, source, stranger};
use crate::transport::bare::Face;

/// Datagrams that are kept to be sent again.
const KEPT: usize = 4_096;

/// Copies a second that are sent to each replica.
const PER_SECOND: u32 = 2_000;

/// Handshakes and hellos that are recorded, a second.
const RECORDED: Duration = Duration::from_millis(200);

/// How long a replica may take for a handshake.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn play(ground: Arc<Ground>) -> anyhow::Result<()> {
    let mut played = JoinSet::new();
    for place in 0..ground.targets.len() {
        let ground = Arc::clone(&ground);
        played.spawn(async move { replay(&ground, &ground.targets[place]).await });
    }
    while let Some(ended) = played.join_next().await {
        ended??;
    }
    Ok(())
}

/// A way to a replica that keeps what passes.
struct Relay {
    /// Where the own client dials.
    near: UdpSocket,
    /// Where the replica sees it.
    far: UdpSocket,
    /// A third address, for copies.
    elsewhere: UdpSocket,
    target: SocketAddr,
    /// At most [`KEPT`] datagrams, the oldest first.
    kept: VecDeque<Vec<u8>>,
}

async fn replay(ground: &Ground, target: &Target) -> anyhow::Result<()> {
    let address = target.address(Face::Client).await?;
    let open = |number| async move { UdpSocket::bind(source(address, number)).await.context("opening a socket") };
    let relay = Relay {
        near: open(0).await?,
        far: open(1).await?,
        elsewhere: open(2).await?,
        target: address,
        kept: VecDeque::new(),
    };
    let near = relay.near.local_addr().context("asking for the socket's address")?;
    tokio::select! {
        carried = relay.carry() => carried,
        dialled = dial_again(ground, near) => dialled,
    }
}

/// Opens a connection after the other, with a hello each.
async fn dial_again(ground: &Ground, near: SocketAddr) -> anyhow::Result<()> {
    let dialler = stranger(ground, near, 3)?;
    loop {
        match dialler.dial(near, PATIENCE).await {
            Ok(connection) => {
                let _streams = dialler.open(&connection, &ground.cluster).await;
                sleep(RECORDED).await;
            }
            Err(_in_the_way_of_its_own_copies) => sleep(REST).await,
        }
    }
}

impl Relay {
    async fn carry(mut self) -> anyhow::Result<()> {
        let mut pace = Pace::new("replay-datagrams", PER_SECOND);
        let (mut there, mut back) = ([0; 2_048], [0; 2_048]);
        let mut dialler = None;
        let mut round = 0_usize;
        loop {
            tokio::select! {
                received = self.near.recv_from(&mut there) => {
                    let (length, from) = received.context("receiving")?;
                    dialler = Some(from);
                    self.pass(&there[..length]);
                }
                received = self.far.recv(&mut back) => {
                    let length = received.context("receiving")?;
                    if let Some(dialler) = dialler {
                        drop(self.near.try_send_to(&back[..length], dialler));
                    }
                }
                copies = pace.next() => for _copy in 0..copies {
                    if let Some(sent) = self.send_again(round) {
                        pace.count(&sent);
                    }
                    round += 1;
                }
            }
        }
    }

    /// Passes a datagram on, twice, and keeps it.
    fn pass(&mut self, datagram: &[u8]) {
        // What the system has no room for is lost.
        drop(self.far.try_send_to(datagram, self.target));
        drop(self.far.try_send_to(datagram, self.target));
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(datagram.to_vec());
    }

    /// A copy of an old one, every other time from elsewhere.
    fn send_again(&self, round: usize) -> Option<io::Result<usize>> {
        let datagram = self.kept.get(round % self.kept.len().max(1))?;
        let socket = if round.is_multiple_of(2) { &self.far } else { &self.elsewhere };
        Some(socket.try_send_to(datagram, self.target))
    }
}
