//! Begins handshakes from addresses of others, 2,000 a second: with each replica from those of all other replicas, and from
//! addresses where nobody is. Forging takes the right to open raw sockets, and is done on loopback alone. (RFC 9000, sections
//! 8.1 and 21.3; PROTOCOL §4)
//!
//! It breaks a system that believes an address: a member's place is used up in its name, and what is answered floods
//! whoever is there. Correct replicas have each address proved before they do anything else, answer with less than what
//! came until then, and ignore answers to what they did not ask.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use anyhow::Context as _;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::Ground;
use super::handshakes::first_packets;
use super::pace::Pace;
use crate::transport::bare::Face;

/// Handshakes begun a second, at all ports for replicas together.
const PER_SECOND: u32 = 2_000;

/// First packets that are made beforehand.
const POOL: usize = 512;

/// Bytes of the headers of IPv4 and UDP. (RFC 791, RFC 768)
const HEADERS: usize = 20 + 8;

pub(super) async fn play(ground: Arc<Ground>) -> anyhow::Result<()> {
    let targets: Vec<SocketAddrV4> = ground.addresses(Face::Peer).await?.into_iter().filter_map(on_loopback).collect();
    anyhow::ensure!(targets.len() > 1, "the others are not on the loopback of IPv4, where addresses are forged");
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW)));
    let socket = socket.context("opening a raw socket: give the process CAP_NET_RAW")?;
    socket.set_nonblocking(true).context("setting the socket up")?;
    let packets = first_packets(&ground, Face::Peer, POOL).await?;
    let mut pace = Pace::new("steal-addresses", PER_SECOND);
    let mut round = 0_usize;
    loop {
        for _handshake in 0..pace.next().await {
            let to = targets[round % targets.len()];
            let from = forged(&targets, to, round / targets.len());
            let datagram = datagram(from, to, &packets[round / targets.len() % packets.len()]);
            pace.count(&socket.send_to(&datagram, &SockAddr::from(to)));
            round += 1;
        }
    }
}

/// The protocol of a raw socket whose user writes the header. (`IPPROTO_RAW`)
const RAW: i32 = 255;

fn on_loopback(address: SocketAddr) -> Option<SocketAddrV4> {
    match address {
        SocketAddr::V4(address) if address.ip().is_loopback() => Some(address),
        _ => None,
    }
}

/// Whose address is used towards `to`: each other replica's in turn, and now and then one that is nobody's.
fn forged(members: &[SocketAddrV4], to: SocketAddrV4, round: usize) -> SocketAddrV4 {
    let others: Vec<SocketAddrV4> = members.iter().copied().filter(|member| *member != to).collect();
    let nobody = SocketAddrV4::new(Ipv4Addr::new(127, 9, 9, 9), 9);
    others.get(round % (others.len() + 1)).copied().unwrap_or(nobody)
}

/// A datagram of IPv4 with a header for whatever sender. The system fills in lengths and checksum of its header; UDP has none.
fn datagram(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADERS + payload.len());
    let length = |bytes: usize| u16::try_from(bytes).expect("a packet is shorter than 64 KiB").to_be_bytes();
    bytes.extend([0x45, 0]);
    bytes.extend(length(HEADERS + payload.len()));
    bytes.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    bytes.extend(from.ip().octets());
    bytes.extend(to.ip().octets());
    bytes.extend(from.port().to_be_bytes());
    bytes.extend(to.port().to_be_bytes());
    bytes.extend(length(8 + payload.len()));
    bytes.extend([0, 0]);
    bytes.extend(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_other_member_is_named_and_nobody_is() {
        let members: Vec<SocketAddrV4> = (1..4).map(|port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).collect();
        let named: Vec<u16> = (0..3).map(|round| forged(&members, members[1], round).port()).collect();
        assert_eq!(named, [1, 3, 9]);
        assert_eq!(on_loopback("192.0.2.1:7".parse().expect("an address")), None);
    }

    #[test]
    fn a_forged_datagram_comes_from_where_it_says() {
        // Who must not open raw sockets cannot forge.
        let Ok(socket) = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW))) else { return };
        let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        receiver.set_read_timeout(Some(Duration::from_secs(5))).expect("it can be set");
        let Ok(SocketAddr::V4(to)) = receiver.local_addr() else { unreachable!("it was bound to IPv4") };
        let from = SocketAddrV4::new(Ipv4Addr::new(127, 9, 9, 9), 9);
        socket.send_to(&datagram(from, to, b"forged"), &SockAddr::from(to)).expect("it is sent");
        let mut bytes = [0; 16];
        let (length, sender) = receiver.recv_from(&mut bytes).expect("it arrives");
        assert_eq!((&bytes[..length], sender), (&b"forged"[..], SocketAddr::V4(from)));
    }
}
