//! What a stranger or a member that breaks the rules gets to hear.

use super::staller::{NO_MORE, Staller};
use super::*;
use crate::transport::frame::FRAME_HEADER_BYTES;
use crate::transport::{ALPN_CLIENT, ALPN_PEER, ConnectionRefusal, Deadlines, Lane, LinkError, Violation};

fn impatient() -> PeerLimits {
    let (handshake, frame) = (Duration::from_millis(300), Duration::from_millis(150));
    let deadlines = Deadlines { handshake, frame, ..Deadlines::default() };
    PeerLimits { deadlines, ..PeerLimits::default() }
}

/// Member 0, up with the victim, with its streams for votes and bulk.
async fn member_0(victim: &mut Peer) -> (Raw, SendStream, SendStream) {
    let raw = Raw::dial(0, 1, victim.address(), ALPN_PEER).await.expect("the key is a member's");
    let (votes, bulk) = raw.open_lanes().await;
    victim.all_up(1).await;
    (raw, votes, bulk)
}

async fn down(victim: &mut Peer) -> LinkError {
    match victim.next().await {
        PeerEvent::Down(ReplicaId(0), error) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_stranger_is_refused_before_any_stream_is_read_and_learns_why() {
    let mut victim = victim(PeerLimits::default());
    // His side of the handshake is finished first: what he sends then is at the victim before it knows his key.
    let raw = Raw::dial(66, 1, victim.address(), ALPN_PEER).await.expect("he has not been refused yet");
    let mut stream = raw.open(&hello(&CLUSTER, StreamRole::Votes)).await;
    stream.write_all(&framed(b"a vote of nobody's")).await.expect("he has not been refused yet");
    let error = raw.closed().await;
    let text = error.to_string();
    assert!(matches!(error, ConnectionError::ConnectionClosed(_)), "{text}");
    assert!(text.contains("this key is not the one that is expected here"), "{text}");
    eventually("it is counted", || victim.network.refused(ConnectionRefusal::HandshakeFailed) == 1).await;
    assert_eq!(victim.network.refused(ConnectionRefusal::UnknownKey), 1);
    assert!(victim.events.try_recv().is_err());
    assert!(victim.network.links().iter().all(|link| link.bytes_in == 0 && link.remote.is_none()));
}

/// From the host of a member, as on a testnet: there strangers and members have one address, but not one port.
#[tokio::test]
async fn a_stranger_whose_handshakes_hang_keeps_no_member_out() {
    let addresses = own_addresses(1);
    let members = [member(0, addresses[0]), member(1, addresses[1])];
    // Nothing ends a handshake that hangs for as long as this test lasts.
    let deadlines = Deadlines { handshake: PATIENCE * 4, ..Deadlines::default() };
    let limits = PeerLimits { deadlines, ..PeerLimits::default() };
    let mut waiting = Peer::start(PeerOptions { listen: addresses[1], limits, ..options(1, &members) });
    let _staller = Staller::start(addresses[0].ip(), 1, addresses[1], ALPN_PEER).await;
    let has_all = || NO_MORE.into_iter().any(|reason| waiting.network.refused(reason) > 20);
    eventually("he has all that he gets", has_all).await;
    let mut dialler = Peer::start(PeerOptions { listen: addresses[0], ..options(0, &members) });
    dialler.all_up(1).await;
    waiting.all_up(1).await;
    assert_eq!(dialler.network.links()[0].last_error, None, "it succeeded at once");
}

#[tokio::test]
async fn a_client_that_dials_the_port_of_peers_is_refused() {
    let victim = victim(PeerLimits::default());
    let Err(error) = Raw::dial(0, 1, victim.address(), ALPN_CLIENT).await else { panic!("another role got in") };
    assert!(error.to_string().contains("protocol"), "{error}");
}

#[tokio::test]
async fn a_member_that_should_wait_is_refused_when_it_dials() {
    let mut victim = victim(PeerLimits::default());
    let raw = Raw::dial(2, 1, victim.address(), ALPN_PEER).await.expect("the key is a member's");
    assert_eq!(raw.farewell().await.0, u64::from(Violation::WrongDirection.code()));
    assert_eq!(victim.network.refused(ConnectionRefusal::WrongDirection), 1);
    assert!(victim.events.try_recv().is_err());
}

#[tokio::test]
async fn a_newer_connection_replaces_the_older() {
    let mut victim = victim(PeerLimits::default());
    let (older, _votes, _bulk) = member_0(&mut victim).await;
    let newer = Raw::dial(0, 1, victim.address(), ALPN_PEER).await.expect("the key is a member's");
    let (mut votes, _bulk) = newer.open_lanes().await;
    assert_eq!(older.farewell().await.0, 1);
    assert_eq!(down(&mut victim).await, LinkError::Replaced);
    victim.all_up(1).await;
    votes.write_all(&framed(b"new")).await.expect("the connection lives");
    assert_eq!(victim.frame().await.2, "new");
}

#[tokio::test]
async fn a_hello_of_another_cluster_version_lane_or_none_at_all_is_told_what_is_wrong() {
    let mut victim = victim(PeerLimits::default());
    let mut other_version = hello(&CLUSTER, StreamRole::Votes).to_vec();
    other_version[FRAME_HEADER_BYTES + 4] = 2;
    let cases = [
        (hello(&[0; 32], StreamRole::Votes).to_vec(), Violation::WrongCluster),
        (other_version, Violation::WrongVersion { theirs: 2, ours: 1 }),
        (hello(&CLUSTER, StreamRole::Requests).to_vec(), Violation::WrongLane { lane: 2 }),
        (framed(b"GET / HTTP/1.1\r\n\r\n"), Violation::NoHello),
        (framed(&[0; 257]), Violation::FrameTooLarge { bytes: 257, bytes_max: 256 }),
    ];
    let count = cases.len() as u64;
    for (bytes, violation) in cases {
        let raw = Raw::dial(0, 1, victim.address(), ALPN_PEER).await.expect("the key is a member's");
        let _stream = raw.open(&bytes).await;
        let (code, text) = raw.farewell().await;
        assert_eq!(code, u64::from(violation.code()), "{text}");
        assert!(text.contains(&violation.to_string()), "{text}");
    }
    assert_eq!(victim.network.refused(ConnectionRefusal::Hello), count);
    assert!(victim.events.try_recv().is_err());
}

#[tokio::test]
async fn a_lane_that_is_opened_twice_is_refused() {
    let victim = victim(PeerLimits::default());
    let raw = Raw::dial(0, 1, victim.address(), ALPN_PEER).await.expect("the key is a member's");
    let _first = raw.open(&hello(&CLUSTER, StreamRole::Votes)).await;
    let _second = raw.open(&hello(&CLUSTER, StreamRole::Votes)).await;
    assert_eq!(raw.farewell().await.0, u64::from(Violation::WrongLane { lane: 0 }.code()));
}

#[tokio::test]
async fn who_says_no_hello_on_a_lane_is_cut_off_at_the_deadline() {
    let victim = victim(impatient());
    let raw = Raw::dial(0, 1, victim.address(), ALPN_PEER).await.expect("the key is a member's");
    let _votes_only = raw.open(&hello(&CLUSTER, StreamRole::Votes)).await;
    assert_eq!(raw.farewell().await.0, u64::from(Violation::HelloDeadline.code()));
}

#[tokio::test]
async fn a_length_above_the_lanes_bound_closes_the_connection() {
    let mut victim = victim(PeerLimits::default());
    let (raw, mut votes, _bulk) = member_0(&mut victim).await;
    let bytes_max = PeerLimits::default().votes.frame_bytes_max;
    votes.write_all(&(bytes_max + 1).to_le_bytes()).await.expect("the connection lives");
    let violation = Violation::FrameTooLarge { bytes: bytes_max + 1, bytes_max };
    assert_eq!(raw.farewell().await.0, u64::from(violation.code()));
    assert_eq!(down(&mut victim).await, violation.into());
}

#[tokio::test]
async fn an_empty_frame_closes_the_connection() {
    let mut victim = victim(PeerLimits::default());
    let (raw, mut votes, _bulk) = member_0(&mut victim).await;
    votes.write_all(&[0; 4]).await.expect("the connection lives");
    assert_eq!(raw.farewell().await.0, u64::from(Violation::FrameEmpty.code()));
}

#[tokio::test]
async fn a_stream_that_ends_within_a_frame_closes_the_connection_and_yields_no_frame() {
    let mut victim = victim(PeerLimits::default());
    let (raw, _votes, mut bulk) = member_0(&mut victim).await;
    bulk.write_all(&framed(b"whole")).await.expect("the connection lives");
    bulk.write_all(&framed(b"cut off")[..7]).await.expect("the connection lives");
    bulk.finish().expect("the stream is open");
    assert_eq!(victim.frame().await.2, "whole");
    assert_eq!(down(&mut victim).await, Violation::FrameTruncated.into());
    assert_eq!(raw.farewell().await.0, u64::from(Violation::FrameTruncated.code()));
}

#[tokio::test]
async fn a_connection_that_closes_within_a_frame_yields_no_frame() {
    let mut victim = victim(PeerLimits::default());
    let (raw, _votes, mut bulk) = member_0(&mut victim).await;
    bulk.write_all(&framed(b"cut off")[..7]).await.expect("the connection lives");
    raw.connection.close(7_u32.into(), b"had enough\x07");
    let error = LinkError::ClosedByPeer { code: 7, text: "had enough?".into() };
    assert_eq!(down(&mut victim).await, error);
    assert_eq!(victim.network.links()[0].last_error, Some(error));
}

#[tokio::test]
async fn a_frame_that_is_never_finished_is_cut_off_at_the_deadline() {
    for started in [&framed(b"never whole")[..9], &[17]] {
        let mut victim = victim(impatient());
        let (raw, mut votes, _bulk) = member_0(&mut victim).await;
        votes.write_all(started).await.expect("the connection lives");
        assert_eq!(raw.farewell().await.0, u64::from(Violation::FrameDeadline.code()));
    }
}

#[tokio::test]
async fn a_frame_that_drips_byte_by_byte_is_cut_off_at_the_deadline() {
    let mut victim = victim(impatient());
    let (raw, mut votes, _bulk) = member_0(&mut victim).await;
    let dripping = async {
        votes.write_all(&1000_u32.to_le_bytes()).await.ok()?;
        for _byte in 0..1000 {
            votes.write_all(&[1]).await.ok()?;
            sleep(Duration::from_millis(20)).await;
        }
        Some(())
    };
    assert_eq!(dripping.await, None);
    assert_eq!(raw.farewell().await.0, u64::from(Violation::FrameDeadline.code()));
}

#[tokio::test]
async fn a_silent_peer_without_a_frame_under_way_is_left_alone() {
    let mut victim = victim(impatient());
    let (_raw, mut votes, _bulk) = member_0(&mut victim).await;
    // Longer than each deadline: time itself is what this test is about.
    sleep(Duration::from_millis(500)).await;
    votes.write_all(&framed(b"still here")).await.expect("the connection lives");
    assert_eq!(victim.frame().await.2, "still here");
}

#[tokio::test]
async fn garbage_datagrams_are_ignored() {
    let mut peers = start_peers(2, |_options| {});
    for peer in &mut peers {
        peer.all_up(1).await;
    }
    let socket = tokio::net::UdpSocket::bind(loopback()).await.expect("loopback is there");
    let mut noise = vec![0; 1400];
    for round in 0..2000_usize {
        getrandom::fill(&mut noise).expect("the operating system has randomness");
        let length = round % noise.len();
        socket.send_to(&noise[..length], peers[round % 2].address()).await.expect("loopback takes it");
    }
    peers[0].network.send(ReplicaId(1), Lane::Bulk, Bytes::from(vec![5; 1 << 20])).expect("the link is up");
    assert_eq!(peers[1].frame().await.2.len(), 1 << 20);
    assert_eq!(peers[1].network.links()[0].reconnects, 0);
}
