//! Sends 20,000 datagrams a second that are not QUIC, or look like it and are not: noise of any length, first packets whose
//! content is noise, versions that nobody speaks, packets of connections that there are not. (RFC 9000, sections 8.1 and 21.3;
//! RUSTSEC-2023-0063 and RUSTSEC-2024-0373, packets that made quinn panic; PROTOCOL §4)
//!
//! It breaks a system that does much for a packet before it knows the sender, and that answers with more than came:
//! others are flooded in the sender's name. Correct replicas drop what is no packet, and answer the rest with fewer bytes
//! than they were sent.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::UdpSocket;

use super::pace::Pace;
use super::{Ground, SOURCES, source};
use crate::transport::bare::Face;

/// Datagrams a second, at all ports of all others together.
const PER_SECOND: u32 = 20_000;

/// Longest of them, in bytes.
const BYTES_MAX: usize = 1_472;

/// Bytes of a first packet, at least. (RFC 9000, section 14.1)
const FIRST_BYTES: usize = 1_200;

/// A long header with the form and the fixed bit of a first packet.
const FIRST: u8 = 0xc3;

pub(super) async fn play(ground: Arc<Ground>) -> anyhow::Result<()> {
    let mut targets = ground.addresses(Face::Peer).await?;
    targets.extend(ground.addresses(Face::Client).await?);
    let mut sockets = Vec::new();
    for number in 0..SOURCES {
        let first = targets.first().context("there is nobody else")?;
        sockets.push(UdpSocket::bind(source(*first, number)).await.context("opening a socket")?);
    }
    let mut pace = Pace::new("flood-datagrams", PER_SECOND);
    let mut noise = [0; BYTES_MAX];
    let mut round = 0_usize;
    loop {
        for _datagram in 0..pace.next().await {
            getrandom::fill(&mut noise).context("drawing noise")?;
            let datagram = shape(&mut noise, round);
            pace.count(&sockets[round % sockets.len()].try_send_to(datagram, targets[round % targets.len()]));
            round += 1;
        }
    }
}

/// The `round`th datagram, made of noise.
fn shape(noise: &mut [u8; BYTES_MAX], round: usize) -> &[u8] {
    let version: u32 = if round % 4 == 1 { 1 } else { 0x5a5a_5a5a };
    match round % 4 {
        // A first packet, padded as it has to be, of this version or of one that there is not.
        1 | 2 => {
            noise[0] = FIRST;
            noise[1..5].copy_from_slice(&version.to_be_bytes());
            noise[5] = 8;
            &noise[..FIRST_BYTES]
        }
        // A short header: of a connection that the other side has lost, as it seems.
        3 => {
            noise[0] = 0x40 | noise[0] & 0x3f;
            &noise[..64]
        }
        _ => {
            let length = 1 + usize::from(u16::from_le_bytes([noise[0], noise[1]])) % BYTES_MAX;
            &noise[..length]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_of_four_kinds() {
        let mut noise = [0xab; BYTES_MAX];
        let heads = [0, 1, 2, 3].map(|round| {
            let datagram = shape(&mut noise, round);
            (datagram.len(), datagram[0], datagram[1..5].to_vec())
        });
        assert_eq!(heads[0].0, 1 + 0xabab % BYTES_MAX);
        assert_eq!(heads[1], (1_200, FIRST, vec![0, 0, 0, 1]));
        assert_eq!(heads[2], (1_200, FIRST, vec![0x5a; 4]));
        assert_eq!((heads[3].0, heads[3].1 & 0xc0), (64, 0x40));
    }
}
