//! Members of a cluster among themselves.

use std::time::Instant;

use bytes::Bytes;

use super::*;
use crate::transport::{
    BACKOFF_CAP, CloseReason, ConnectionRefusal, Dropped, HOST_CODE_FIRST, Lane, LinkError, LinkPhase, StartError,
};

#[tokio::test]
async fn two_members_exchange_frames_on_both_lanes() {
    let mut peers = start_peers(2, |_options| {});
    for peer in &mut peers {
        peer.all_up(1).await;
    }
    let bulk = Bytes::from(vec![0xbb; 3 << 20]);
    for (from, to) in [(0_u8, 1_u8), (1, 0)] {
        let network = &peers[usize::from(from)].network;
        network.send(ReplicaId(to), Lane::Votes, Bytes::from_static(b"a vote")).expect("the link is up");
        let vote = peers[usize::from(to)].frame().await;
        assert_eq!(vote, (ReplicaId(from), Lane::Votes, Bytes::from_static(b"a vote")));
        peers[usize::from(from)].network.send(ReplicaId(to), Lane::Bulk, bulk.clone()).expect("the link is up");
        assert_eq!(peers[usize::from(to)].frame().await, (ReplicaId(from), Lane::Bulk, bulk.clone()));
    }
    let status = &peers[0].network.links()[0];
    assert_eq!((status.phase, status.reconnects, status.drops), (LinkPhase::Up, 0, 0));
    assert_eq!((status.frames_in, status.frames_out), (2, 2));
    assert_eq!(status.bytes_in, 4 + 6 + 4 + (3 << 20));
    assert!(status.rtt.is_some_and(|rtt| rtt < PATIENCE));
}

#[tokio::test]
async fn four_members_exchange_frames_each_with_each_in_order() {
    let mut peers = start_peers(4, |_options| {});
    for peer in &mut peers {
        peer.all_up(3).await;
    }
    for (from, peer) in peers.iter().enumerate() {
        for to in (0..4_u8).filter(|to| usize::from(*to) != from) {
            for number in 0..100_u8 {
                peer.network.send(ReplicaId(to), Lane::Votes, Bytes::from(vec![number; 150])).expect("the link is up");
                peer.network
                    .send(ReplicaId(to), Lane::Bulk, Bytes::from(vec![number; 20_000]))
                    .expect("the link is up");
            }
        }
    }
    for peer in &mut peers {
        let mut expected = std::collections::BTreeMap::new();
        for _frame in 0..3 * 2 * 100 {
            let (from, lane, bytes) = peer.frame().await;
            let number = expected.entry((from, lane)).or_insert(0_u8);
            assert_eq!(bytes[0], *number);
            *number += 1;
        }
        assert!(expected.len() == 6 && expected.values().all(|count| *count == 100));
    }
}

#[tokio::test]
async fn votes_overtake_bulk_that_is_with_quic_already() {
    let mut peers = start_peers(2, |_options| {});
    for peer in &mut peers {
        peer.all_up(1).await;
    }
    // It fits into the stream's window, so that QUIC holds all of it at once, and takes thousands of packets.
    peers[0].network.send(ReplicaId(1), Lane::Bulk, Bytes::from(vec![1; 3 << 20])).expect("the link is up");
    while peers[0].network.links()[0].frames_out == 0 {
        tokio::task::yield_now().await;
    }
    // More bytes of votes than of bulk: taking turns would not do.
    for _vote in 0..64 {
        peers[0].network.send(ReplicaId(1), Lane::Votes, Bytes::from(vec![2; 60 << 10])).expect("the link is up");
    }
    for _vote in 0..64 {
        assert_eq!(peers[1].frame().await.1, Lane::Votes);
    }
    assert_eq!(peers[1].frame().await.1, Lane::Bulk);
}

#[tokio::test]
async fn a_peer_that_floods_does_not_starve_another() {
    let mut peers = start_peers(3, |options| {
        options.limits.bulk.held_bytes_max = 1 << 20;
        options.limits.bulk.frame_bytes_max = 64 << 10;
    });
    for peer in &mut peers {
        peer.all_up(2).await;
    }
    let frame = Bytes::from(vec![1; 64 << 10]);
    // The host holds what it gets of member 0, and drops nothing.
    let mut held = Vec::new();
    while peers[0].network.send(ReplicaId(2), Lane::Bulk, frame.clone()).is_ok() {}
    let (victim, others) = peers.split_last_mut().expect("three members");
    while held.len() < 16 {
        match victim.next().await {
            PeerEvent::Frame { from: ReplicaId(0), permit, .. } => held.push(permit),
            other => panic!("{other:?}"),
        }
    }
    // Its bulk is used up. Its votes and everything of member 1 pass.
    others[0].network.send(ReplicaId(2), Lane::Votes, Bytes::from_static(b"vote")).expect("the link is up");
    assert_eq!(victim.frame().await.1, Lane::Votes);
    for _frame in 0..40 {
        others[1].network.send(ReplicaId(2), Lane::Bulk, frame.clone()).expect("the link is up");
        assert_eq!(victim.frame().await.0, ReplicaId(1));
    }
    assert!(victim.events.try_recv().is_err());
    held.pop();
    assert_eq!(victim.frame().await.0, ReplicaId(0));
}

#[tokio::test]
async fn a_flood_of_tiny_frames_leaves_room_in_the_event_queue() {
    let mut peers = start_peers(3, |_options| {});
    for peer in &mut peers {
        peer.all_up(2).await;
    }
    let (victim, others) = peers.split_last_mut().expect("three members");
    let tiny = Bytes::from_static(b"x");
    for _round in 0..10 {
        while others[0].network.send(ReplicaId(2), Lane::Votes, tiny.clone()).is_ok() {}
        tokio::task::yield_now().await;
    }
    // Two peers with two lanes each share the queue.
    eventually("the flood fills its share", || victim.events.len() > EVENTS / 4 - 10).await;
    let flooded = victim.events.len();
    others[1].network.send(ReplicaId(2), Lane::Votes, Bytes::from_static(b"honest")).expect("the link is up");
    eventually("the other's vote is queued", || victim.events.len() > flooded).await;
    assert!(flooded < EVENTS / 4);
    assert_eq!(victim.events.len(), flooded + 1);
}

#[tokio::test]
async fn a_full_queue_drops_the_new_frame_and_counts_it() {
    let mut peers = start_peers(2, |options| {
        options.limits.votes.queue_frames_max = 10;
    });
    peers[0].all_up(1).await;
    let network = &peers[0].network;
    let vote = Bytes::from_static(b"vote");
    for _frame in 0..10 {
        assert_eq!(network.send(ReplicaId(1), Lane::Votes, vote.clone()), Ok(()));
    }
    assert_eq!(network.send(ReplicaId(1), Lane::Votes, vote.clone()), Err(Dropped::QueueFull));
    assert_eq!(network.send(ReplicaId(1), Lane::Votes, Bytes::new()), Err(Dropped::Size));
    assert_eq!(network.send(ReplicaId(9), Lane::Votes, vote), Err(Dropped::Unknown));
    assert_eq!(network.links()[0].drops, 2);
}

#[tokio::test]
async fn a_member_that_the_host_closes_learns_why_and_is_not_dialled_again_at_once() {
    let mut peers = start_peers(2, |_options| {});
    for peer in &mut peers {
        peer.all_up(1).await;
    }
    let reason = CloseReason { code: 3, text: "it sends nonsense".into(), is_offence: true };
    peers[0].network.close(ReplicaId(1), reason.clone());
    let closed = Instant::now();
    let down = peers[0].next().await;
    assert!(matches!(&down, PeerEvent::Down(_, LinkError::ClosedHere(told)) if *told == reason), "{down:?}");
    let told = peers[1].next().await;
    let code = u64::from(HOST_CODE_FIRST) + 3;
    let expected = LinkError::ClosedByPeer { code, text: reason.text };
    assert!(matches!(&told, PeerEvent::Down(_, error) if *error == expected), "{told:?}");
    peers[0].all_up(1).await;
    assert!(closed.elapsed() >= BACKOFF_CAP / 2);
}

#[tokio::test]
async fn a_member_that_the_host_closes_is_not_served_at_once_when_it_dials_again() {
    let mut peers = start_peers(2, |_options| {});
    for peer in &mut peers {
        peer.all_up(1).await;
    }
    peers[1].network.close(ReplicaId(0), CloseReason { code: 3, text: "it sends nonsense".into(), is_offence: true });
    let closed = Instant::now();
    assert!(matches!(peers[1].next().await, PeerEvent::Down(_, LinkError::ClosedHere(_))));
    peers[1].all_up(1).await;
    assert!(closed.elapsed() >= BACKOFF_CAP / 2);
}

#[tokio::test]
async fn nothing_is_queued_for_a_member_that_is_not_connected() {
    let peer = victim(PeerLimits::default());
    let sent = peer.network.send(ReplicaId(0), Lane::Votes, Bytes::from_static(b"vote"));
    assert_eq!(sent, Err(Dropped::NotConnected));
}

#[tokio::test]
async fn a_dialler_refuses_a_member_with_another_key_than_the_table_says() {
    let impostor = victim(PeerLimits::default());
    let mut members = [member(0, loopback()), member(2, impostor.address())];
    members[1].id = ReplicaId(1);
    let mut dialler = Peer::start(options(0, &members));
    eventually("the dialler refuses", || dialler.network.refused(ConnectionRefusal::UnknownKey) > 0).await;
    eventually("the dialler says why", || dialler.network.links()[0].last_error.is_some()).await;
    let error = dialler.network.links()[0].last_error.clone().expect("it was waited for");
    assert!(matches!(&error, LinkError::Failed { text } if text.contains("not the one that is expected")), "{error}");
    assert!(dialler.events.try_recv().is_err());
}

#[tokio::test]
async fn options_that_contradict_each_other_are_refused() {
    let start = |adjust: fn(&mut PeerOptions), capacity| {
        let mut options = options(0, &[member(0, loopback()), member(1, loopback())]);
        adjust(&mut options);
        PeerNetwork::start(options, mpsc::channel(capacity).0).err()
    };
    assert!(start(|_options| {}, EVENTS).is_none());
    assert!(matches!(start(|_options| {}, 5), Some(StartError::Limit { value_min: 6, .. })));
    assert!(matches!(start(|options| options.key = key(7), EVENTS), Some(StartError::Members { .. })));
    assert!(matches!(start(|options| options.members[1].id = ReplicaId(0), EVENTS), Some(StartError::Members { .. })));
    assert!(matches!(start(|options| options.mtu_upper_bound = 9000, EVENTS), Some(StartError::Mtu { mtu: 9000 })));
    let held_too_low: fn(&mut PeerOptions) = |options| options.limits.bulk.held_bytes_max = 1;
    assert!(matches!(start(held_too_low, EVENTS), Some(StartError::Limit { .. })));
}
