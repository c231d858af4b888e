//! Ports that no other cluster of any test takes: a block below those that the system gives out, held by a socket.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

/// First port of the first block.
const FIRST: u16 = 10_000;

/// Blocks; all lie below 32768, where the system begins to give out ports.
const BLOCKS: u16 = 100;

/// Ports of a block: what `init` deals out from a base port for 31 replicas, and the harness's own.
const BLOCK_PORTS: u16 = 220;

/// From the base port to the ports at which replicas listen that are reached through a relay.
const LISTEN_OFFSET: u16 = 140;

/// From the base port to the one for a standby.
const SPARE_OFFSET: u16 = LISTEN_OFFSET + 40;

/// From the base port to the one that is held while the block is in use.
const HELD_OFFSET: u16 = BLOCK_PORTS - 1;

const _: () = assert!(FIRST + BLOCKS * BLOCK_PORTS < 32_768, "the system gives none of them out");

/// A block of ports, released on drop.
#[derive(Debug)]
pub(crate) struct Ports {
    base: u16,
    _held: UdpSocket,
}

impl Ports {
    /// Takes a block in which all ports that `replicas` need are free.
    pub(crate) fn take(replicas: u8) -> Self {
        let process = u16::try_from(std::process::id() % u32::from(BLOCKS)).unwrap_or_default();
        let bases = (0..BLOCKS).map(|step| FIRST + (process + step) % BLOCKS * BLOCK_PORTS);
        let free = bases.into_iter().find_map(|base| {
            let held = UdpSocket::bind((Ipv4Addr::LOCALHOST, base + HELD_OFFSET)).ok()?;
            is_free(base, replicas).then_some(Self { base, _held: held })
        });
        free.expect("100 clusters do not run at the same time on one machine")
    }

    /// What `init --base-port` is given.
    pub(crate) fn base(&self) -> u16 {
        self.base
    }

    /// A port at which no member listens.
    pub(crate) fn spare(&self) -> u16 {
        self.base + SPARE_OFFSET
    }

    /// Where replica `id` listens for others when a relay has its place in the genesis.
    pub(crate) fn behind_relay(&self, id: u8) -> u16 {
        self.base + LISTEN_OFFSET + u16::from(id)
    }
}

fn is_free(base: u16, replicas: u8) -> bool {
    let count = u16::from(replicas);
    let udp = (0..2 * count).chain(LISTEN_OFFSET..LISTEN_OFFSET + count).chain([SPARE_OFFSET]);
    let is_free = udp.into_iter().all(|offset| UdpSocket::bind((Ipv4Addr::LOCALHOST, base + offset)).is_ok());
    is_free && (100..100 + count).all(|offset| TcpListener::bind((Ipv4Addr::LOCALHOST, base + offset)).is_ok())
}
