//! Members that go and come back.

use std::cell::Cell;

use tokio::sync::Notify;

use super::*;
use crate::transport::peers::newest_until;
use crate::transport::{ALPN_PEER, Lane, LinkError};

/// Starts a peer as soon as its port is free.
async fn restart(options: impl Fn() -> PeerOptions) -> Peer {
    let starting = async {
        loop {
            let (sender, events) = mpsc::channel(EVENTS);
            match PeerNetwork::start(options(), sender) {
                Ok(network) => return Peer { network, events },
                Err(_port_in_use) => sleep(Duration::from_millis(5)).await,
            }
        }
    };
    timeout(PATIENCE, starting).await.expect("the port becomes free")
}

/// Else the link would not know yet that it is to be closed, and live on with a connection that is dead.
#[tokio::test]
async fn a_link_begins_with_its_connection_before_a_newer_one_interrupts_it() {
    let victim = victim(PeerLimits::default());
    let raw = Raw::dial(0, 1, victim.address(), ALPN_PEER).await.expect("the key is a member's");
    let (sender, mut arrivals) = mpsc::channel(1);
    for _attempt in 0..30 {
        sender.send(raw.connection.clone()).await.expect("there is room");
        let (is_begun, interrupted) = (Cell::new(false), Notify::new());
        let work = async {
            is_begun.set(true);
            interrupted.notified().await;
        };
        let interrupt = || {
            assert!(is_begun.get());
            interrupted.notify_one();
        };
        let ((), newest) = newest_until(work, &mut arrivals, None, interrupt).await;
        assert!(newest.is_some());
    }
}

async fn exchange(from: u8, sender: &Peer, receiver: &mut Peer, to: u8) {
    sender.network.send(ReplicaId(to), Lane::Votes, Bytes::from_static(b"again")).expect("the link is up");
    assert_eq!(receiver.frame().await, (ReplicaId(from), Lane::Votes, Bytes::from_static(b"again")));
}

#[tokio::test]
async fn links_come_back_when_the_dialled_member_restarts() {
    let mut waiting = Peer::start(options(1, &[member(0, loopback()), member(1, loopback())]));
    let address = waiting.address();
    let members = [member(0, loopback()), member(1, address)];
    let mut dialler = Peer::start(options(0, &members));
    waiting.all_up(1).await;
    dialler.all_up(1).await;
    waiting.network.shutdown().await;
    let told = dialler.next().await;
    assert!(
        matches!(&told, PeerEvent::Down(ReplicaId(1), LinkError::ClosedByPeer { code: 0, text }) if text == "shut down"),
        "{told:?}"
    );
    let mut waiting = restart(|| PeerOptions { listen: address, ..options(1, &members) }).await;
    waiting.all_up(1).await;
    dialler.all_up(1).await;
    exchange(0, &dialler, &mut waiting, 1).await;
    exchange(1, &waiting, &mut dialler, 0).await;
    assert_eq!(dialler.network.links()[0].reconnects, 1);
}

#[tokio::test]
async fn links_come_back_when_the_dialling_member_restarts() {
    let mut waiting = Peer::start(options(1, &[member(0, loopback()), member(1, loopback())]));
    let members = [member(0, loopback()), member(1, waiting.address())];
    let mut dialler = Peer::start(options(0, &members));
    waiting.all_up(1).await;
    dialler.all_up(1).await;
    drop(dialler);
    let mut dialler = Peer::start(options(0, &members));
    dialler.all_up(1).await;
    assert!(matches!(waiting.next().await, PeerEvent::Down(..)));
    waiting.all_up(1).await;
    exchange(0, &dialler, &mut waiting, 1).await;
}

/// A process that is killed says no farewell; its successor answers with a reset what comes for its predecessor.
#[tokio::test]
async fn links_come_back_long_before_the_idle_bound_when_the_dialled_member_is_killed_and_restarts() {
    let slow = PeerLimits { idle: PATIENCE * 10, keep_alive: Duration::from_millis(100), ..PeerLimits::default() };
    let process =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let members = [member(0, loopback()), member(1, loopback())];
    let first = options(1, &members);
    let starting = process.spawn(async move { Peer::start(PeerOptions { limits: slow, ..first }) });
    let killed = starting.await.expect("it starts");
    let address = killed.address();
    let members = [member(0, loopback()), member(1, address)];
    let mut dialler = Peer::start(PeerOptions { limits: slow, ..options(0, &members) });
    dialler.all_up(1).await;

    process.shutdown_background();
    drop(killed);
    let mut waiting = restart(|| PeerOptions { listen: address, limits: slow, ..options(1, &members) }).await;
    let told = dialler.next().await;
    assert!(matches!(told, PeerEvent::Down(ReplicaId(1), LinkError::Reset)), "{told:?}");
    dialler.all_up(1).await;
    waiting.all_up(1).await;
    exchange(0, &dialler, &mut waiting, 1).await;
}
