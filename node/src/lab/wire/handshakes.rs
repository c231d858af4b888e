//! Begins 20,000 handshakes a second with a true first packet from addresses that it does not prove, and 3,600 that it takes to
//! where the other side has signed, and goes on with none. (RFC 9000, section 21.2; Malachite, commit c54d10cc, limits that
//! failed handshakes used up; PROTOCOL §4)
//!
//! It breaks a system that keeps a place, or makes signatures, for each that begins: the places are taken, or the
//! processor is, and nobody else comes in. Correct replicas have whoever begins prove its address first, for which they
//! keep and sign nothing, and let an address begin so many in a while; what is unfinished then gives way to newcomers, and
//! members have places of their own.

use std::collections::{BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::pace::Pace;
use super::{Ground, SOURCES, source};
use crate::configuration::key_file;
use crate::transport::bare::{Dialler, Face};

/// Handshakes begun a second from addresses that are not proved, at all ports of all others together.
const PER_SECOND: u32 = 20_000;

/// Handshakes begun a second at each port, from addresses that are: more than it is let.
const PROVED_PER_SECOND: u32 = 600;

/// Of these, how many are under way at a time from each address.
const HANGING: usize = 32;

/// What the first byte of a packet that demands proof of the address begins with. (RFC 9000, section 17.2.5)
const RETRY: u8 = 0xf0;

/// First packets that are made beforehand for each of the two kinds of ports, each for one handshake at each port.
const POOL: usize = 2_048;

/// Longest that a packet may take on this machine.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) async fn play(ground: Arc<Ground>) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for face in [Face::Peer, Face::Client] {
        for address in ground.addresses(face).await? {
            for number in 0..2 {
                tasks.spawn(hang(Arc::clone(&ground), face, source(address, number), address));
            }
        }
    }
    tasks.spawn(begin(ground));
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// Begins handshakes as one that means it, proves the address, and takes nothing of what else is answered: the other side has read
/// keys, made keys and signed by then.
async fn hang(ground: Arc<Ground>, face: Face, from: SocketAddr, to: SocketAddr) -> anyhow::Result<()> {
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let inner = UdpSocket::bind(here).await.context("opening a socket")?;
    let outer = UdpSocket::bind(from).await.context("opening a socket")?;
    let gateway = inner.local_addr().context("asking for the socket's address")?;
    let key = key_file::generate().context("drawing a key")?;
    let dialler = Dialler::new(here, &key, face, ground.keys())?;
    let mut pace = Pace::new("proved-handshakes", PROVED_PER_SECOND / 2);
    let mut hanging = VecDeque::new();
    let (mut packet, mut answer, mut own) = ([0; 2_048], [0; 2_048], None);
    loop {
        tokio::select! {
            count = pace.next() => for _handshake in 0..count {
                hanging.push_back(dialler.begin(gateway)?);
                while hanging.len() > HANGING {
                    hanging.pop_front();
                }
            },
            Ok((length, sender)) = inner.recv_from(&mut packet) => {
                own = Some(sender);
                pace.count(&outer.try_send_to(&packet[..length], to));
            }
            Ok(length) = outer.recv(&mut answer) => {
                if let (RETRY, Some(own)) = (answer[0] & 0xf0, own) {
                    inner.try_send_to(&answer[..length], own).ok();
                }
            }
        }
    }
}

/// Begins handshakes with their first packet alone.
async fn begin(ground: Arc<Ground>) -> anyhow::Result<()> {
    let mut targets = Vec::new();
    for face in [Face::Peer, Face::Client] {
        let packets = Arc::new(first_packets(&ground, face, POOL).await?);
        targets.extend(ground.addresses(face).await?.into_iter().map(|address| (address, Arc::clone(&packets))));
    }
    let first = targets.first().context("there is nobody else")?.0;
    let mut sockets = Vec::new();
    for number in 0..SOURCES {
        sockets.push(UdpSocket::bind(source(first, number)).await.context("opening a socket")?);
    }
    let mut pace = Pace::new("flood-handshakes", PER_SECOND);
    let mut round = 0_usize;
    loop {
        for _handshake in 0..pace.next().await {
            let (address, packets) = &targets[round % targets.len()];
            let packet = &packets[round / targets.len() % packets.len()];
            pace.count(&sockets[round % sockets.len()].try_send_to(packet, *address));
            round += 1;
        }
    }
}

/// The first packets of handshakes with ports of that kind: as one sends them that means it.
pub(super) async fn first_packets(ground: &Ground, face: Face, count: usize) -> anyhow::Result<Vec<Vec<u8>>> {
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let sink = UdpSocket::bind(here).await.context("opening a socket")?;
    let to = sink.local_addr().context("asking for the socket's address")?;
    let key = key_file::generate().context("drawing a key")?;
    let dialler = Dialler::new(here, &key, face, ground.keys())?;
    let mut packets: Vec<Vec<u8>> = Vec::with_capacity(count);
    let mut seen = BTreeSet::new();
    let mut datagram = [0; 2_048];
    while packets.len() < count {
        let begun = dialler.begin(to)?;
        let length = timeout(PATIENCE, sink.recv(&mut datagram)).await.context("no first packet came")??;
        let packet = &datagram[..length];
        // What says that an earlier handshake is given up comes here, too.
        if connection_id(packet).is_some_and(|id| seen.insert(id.to_vec())) {
            packets.push(packet.to_vec());
        }
        drop(begun);
    }
    Ok(packets)
}

/// The id that the sender of a packet with a long header gave the receiver. (RFC 9000, section 17.2)
fn connection_id(packet: &[u8]) -> Option<&[u8]> {
    packet.get(6..6 + usize::from(*packet.get(5)?))
}

#[cfg(test)]
mod tests {
    use quorate_crypto::SigningKey;
    use quorate_protocol::number::ReplicaId;
    use tokio::sync::mpsc;
    use tokio::time::{Instant, timeout_at};

    use super::*;
    use crate::transport::{ClientLimits, ClientServer, ClientServerOptions};

    /// Three times as much would be allowed. (RFC 9000, section 8.1)
    #[tokio::test]
    async fn who_does_not_prove_its_address_is_answered_with_less_than_it_sent() {
        let key = SigningKey::from_seed([1; 32]);
        let ground = Ground { id: ReplicaId::new(0), key: key.clone(), cluster: [0; 32], targets: Vec::new() };
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (sender, _events) = mpsc::channel(65_536);
        let limits = ClientLimits::for_requests(1 << 20);
        let server = ClientServer::start(ClientServerOptions::new(key, here, [0; 32], limits), sender);
        let server = server.expect("a port is free");
        let to = server.listen_addr().expect("it listens");
        let mut sockets = Vec::new();
        for packet in first_packets(&ground, Face::Client, 100).await.expect("they are made") {
            let socket = UdpSocket::bind(here).await.expect("a port is free");
            let sent = socket.send_to(&packet, to).await.expect("it is sent");
            sockets.push((socket, sent));
        }
        // Long enough for answers to be sent again.
        let patience = Instant::now() + Duration::from_secs(2);
        for (socket, sent) in sockets {
            let (mut answer, mut received) = ([0; 2_048], 0);
            while let Ok(Ok(length)) = timeout_at(patience, socket.recv(&mut answer)).await {
                received += length;
            }
            assert!(received > 0 && received < sent, "{sent} bytes were answered with {received}");
        }
    }

    #[tokio::test]
    async fn first_packets_are_whole_and_each_is_of_another_handshake() {
        let key = SigningKey::from_seed([1; 32]);
        let ground = Ground { id: ReplicaId::new(0), key, cluster: [0; 32], targets: Vec::new() };
        for face in [Face::Peer, Face::Client] {
            let packets = first_packets(&ground, face, 20).await.expect("they are made");
            let ids: BTreeSet<_> = packets.iter().filter_map(|packet| connection_id(packet)).collect();
            assert_eq!(ids.len(), 20);
            assert!(packets.iter().all(|packet| packet.len() >= 1_200 && packet[0] & 0xf0 == 0xc0));
        }
    }
}
