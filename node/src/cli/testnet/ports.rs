//! Free ports of the loopback. They are free when they are looked for; another program may still be faster.

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use crate::configuration::network::Addresses;

/// Addresses for `count` replicas. All are held until the last one is found, so that none is given out twice.
pub(super) fn free(count: u8) -> io::Result<Vec<Addresses>> {
    let any = (Ipv4Addr::LOCALHOST, 0);
    let mut held = Vec::new();
    for _ in 0..count {
        held.push((UdpSocket::bind(any)?, UdpSocket::bind(any)?, TcpListener::bind(any)?));
    }
    let addresses = held.iter().map(|(peer, client, admin)| {
        Ok(Addresses {
            peer: peer.local_addr()?.to_string(),
            client: client.local_addr()?.to_string(),
            admin: admin.local_addr()?.to_string(),
        })
    });
    addresses.collect()
}

/// Whether something listens at one of these addresses, UDP, now.
pub(super) fn is_taken(addresses: &[&str]) -> bool {
    let is_in_use =
        |outcome: io::Result<UdpSocket>| outcome.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
    addresses.iter().any(|address| is_in_use(UdpSocket::bind(address)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn free_ports_are_free_and_each_given_once() {
        let found = free(31).unwrap();
        let udp: BTreeSet<_> = found.iter().flat_map(|addresses| [&addresses.peer, &addresses.client]).collect();
        assert_eq!(udp.len(), 62);
    }

    #[test]
    fn a_taken_port_is_noticed() {
        let any = "127.0.0.1:0";
        let datagram = UdpSocket::bind(any).unwrap();
        assert!(!is_taken(&[any, any]));
        assert!(is_taken(&[any, &datagram.local_addr().unwrap().to_string()]));
    }
}
