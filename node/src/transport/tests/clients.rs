//! Clients and replicas.

use std::collections::{BTreeMap, BTreeSet};

use super::staller::{NO_MORE, Staller};
use super::*;
use crate::transport::{
    ALPN_CLIENT, AcceptedKeys, ClientEvent, ClientLimits, ClientServer, ClientServerOptions, CloseReason, ConnectionId,
    ConnectionRefusal, Deadlines, Dropped, HOST_CODE_FIRST, LinkError, ReplicaEvent, ReplicaLinkLimits, ReplicaLinks,
    ReplicaLinksOptions, Violation,
};

const REQUEST_BYTES_MAX: u32 = 256 << 10;

/// A replica's side.
struct Server {
    server: ClientServer,
    events: mpsc::Receiver<ClientEvent>,
}

impl Server {
    /// Replica `number`, with what `adjust` changes.
    fn start(number: u8, adjust: impl Fn(&mut ClientServerOptions)) -> Self {
        let limits = ClientLimits::for_requests(REQUEST_BYTES_MAX);
        let mut options = ClientServerOptions::new(key(number), loopback(), CLUSTER, limits);
        adjust(&mut options);
        let (sender, events) = mpsc::channel(EVENTS);
        Self { server: ClientServer::start(options, sender).expect("loopback is there"), events }
    }

    fn address(&self) -> SocketAddr {
        self.server.listen_addr().expect("the socket is open")
    }

    fn member(&self, number: u8) -> Member {
        member(number, self.address())
    }

    async fn connected(&mut self) -> (ConnectionId, quorate_crypto::PublicKey, [u8; 32]) {
        match next(&mut self.events).await {
            ClientEvent::Connected { connection, key, channel_binding, .. } => (connection, key, channel_binding),
            other => panic!("{other:?}"),
        }
    }

    async fn closed(&mut self) -> (ConnectionId, LinkError) {
        loop {
            if let ClientEvent::Closed { connection, reason } = next(&mut self.events).await {
                return (connection, reason);
            }
        }
    }
}

/// A client's side.
struct Client {
    links: ReplicaLinks,
    events: mpsc::Receiver<ReplicaEvent>,
}

impl Client {
    fn start(number: u8, members: &[Member]) -> Self {
        let (sender, events) = mpsc::channel(EVENTS);
        let limits = ReplicaLinkLimits::for_requests(REQUEST_BYTES_MAX);
        let options = ReplicaLinksOptions::new(key(number), loopback(), members.to_vec(), CLUSTER, limits);
        Self { links: ReplicaLinks::start(options, sender).expect("loopback is there"), events }
    }

    async fn up(&mut self) -> (ReplicaId, [u8; 32]) {
        match next(&mut self.events).await {
            ReplicaEvent::Up { replica, channel_binding } => (replica, channel_binding),
            other => panic!("{other:?}"),
        }
    }

    async fn down(&mut self) -> LinkError {
        match next(&mut self.events).await {
            ReplicaEvent::Down { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }
}

/// A client that opened its stream and does what the test wants.
async fn raw_client(number: u8, server: &Server) -> (Raw, SendStream) {
    let raw = Raw::dial(number, 0, server.address(), ALPN_CLIENT).await.expect("any key is taken");
    let requests = raw.open(&hello(&CLUSTER, StreamRole::Requests)).await;
    (raw, requests)
}

#[tokio::test]
async fn a_client_and_four_replicas_exchange_frames_and_know_the_same_binding() {
    let mut servers: Vec<Server> = (0..4).map(|number| Server::start(number, |_options| {})).collect();
    let members: Vec<Member> = (0..4_u8).map(|number| servers[usize::from(number)].member(number)).collect();
    let mut client = Client::start(50, &members);
    let mut bindings = BTreeMap::new();
    for _replica in 0..4 {
        let (replica, binding) = client.up().await;
        bindings.insert(replica, binding);
    }
    for (replica, binding) in bindings.clone() {
        let server = &mut servers[usize::from(replica.0)];
        let (connection, client_key, channel_binding) = server.connected().await;
        assert_eq!((client_key, channel_binding), (key(50).public_key(), binding));
        client.links.send(replica, Bytes::from_static(b"request")).expect("the link is up");
        let ClientEvent::Frame { connection: from, bytes, .. } = next(&mut server.events).await else {
            panic!("no frame")
        };
        assert_eq!((from, bytes), (connection, Bytes::from_static(b"request")));
        server.server.send(connection, Bytes::from(vec![1; 1 << 20])).expect("the client is connected");
        let ReplicaEvent::Frame { from, bytes, .. } = next(&mut client.events).await else { panic!("no frame") };
        assert_eq!((from, bytes.len()), (replica, 1 << 20));
    }
    assert_eq!(bindings.into_values().collect::<BTreeSet<_>>().len(), 4);
    client.links.shutdown().await;
    for server in &mut servers {
        assert!(matches!(server.closed().await.1, LinkError::ClosedByPeer { code: 0, .. }));
        eventually("the table is empty", || server.server.connection_count() == 0).await;
    }
}

#[tokio::test]
async fn connections_are_bounded_in_total_and_a_place_that_is_given_back_is_taken_again() {
    let mut server = Server::start(0, |options| options.limits.admission.connections_max = 2);
    let members = [server.member(0)];
    let (mut first, mut second) = (Client::start(50, &members), Client::start(51, &members));
    first.up().await;
    second.up().await;
    let mut third = Client::start(52, &members);
    eventually("the third is refused", || third.links.links()[0].last_error.is_some()).await;
    assert!(matches!(third.links.links()[0].last_error, Some(LinkError::RefusedByPeer { .. })));
    assert!(server.server.refused(ConnectionRefusal::TooManyConnections) > 0);
    assert_eq!(server.server.connection_count(), 2);
    first.links.shutdown().await;
    server.closed().await;
    third.up().await;
}

#[tokio::test]
async fn connections_of_one_source_are_bounded() {
    let server = Server::start(0, |options| options.limits.admission.per_source_max = 2);
    let members = [server.member(0)];
    let mut clients: Vec<Client> = (50..53).map(|number| Client::start(number, &members)).collect();
    eventually("one is refused", || server.server.refused(ConnectionRefusal::TooManyFromSource) > 0).await;
    eventually("two are in", || server.server.connection_count() == 2).await;
    clients.clear();
}

#[tokio::test]
async fn only_listed_keys_get_in_where_there_is_a_list() {
    let listed = AcceptedKeys::Listed(BTreeSet::from([key(50).public_key()]));
    let mut server = Server::start(0, |options| options.accepted = listed.clone());
    let members = [server.member(0)];
    let mut listed = Client::start(50, &members);
    listed.up().await;
    let stranger = Client::start(51, &members);
    eventually("the stranger is refused", || server.server.refused(ConnectionRefusal::UnknownKey) > 0).await;
    eventually("the stranger learns why", || {
        let error = stranger.links.links()[0].last_error.clone();
        matches!(error, Some(LinkError::RefusedByPeer { text }) if text.contains("not the one that is expected"))
    })
    .await;
    // One who writes at once, since his side of the handshake is finished first, is not read.
    let (raw, mut requests) = raw_client(52, &server).await;
    requests.write_all(&framed(b"a request of nobody's")).await.expect("he has not been refused yet");
    assert!(matches!(raw.closed().await, ConnectionError::ConnectionClosed(_)));
    server.connected().await;
    assert!(server.events.try_recv().is_err(), "only the one that is listed was ever connected");
    assert_eq!(server.server.connection_count(), 1);
}

#[tokio::test]
async fn a_stranger_whose_handshakes_hang_keeps_no_client_out() {
    let server = Server::start(1, |options| options.limits.deadlines.handshake = PATIENCE * 4);
    let members = [server.member(1)];
    let address = server.address();
    let _staller = Staller::start(address.ip(), 1, address, ALPN_CLIENT).await;
    let has_all = || NO_MORE.into_iter().any(|reason| server.server.refused(reason) > 20);
    eventually("he has all that he gets", has_all).await;
    Client::start(50, &members).up().await;
}

#[tokio::test]
async fn a_client_that_reads_too_slowly_is_closed_and_told() {
    let mut server = Server::start(0, |options| options.limits.queue_bytes_max = 1 << 20);
    let (raw, _requests) = raw_client(50, &server).await;
    let (connection, ..) = server.connected().await;
    let reply = Bytes::from(vec![1; 256 << 10]);
    // The client never reads. Windows, buffers and the queue fill up, in bounded time.
    let mut sent = 0;
    let overrun = loop {
        match server.server.send(connection, reply.clone()) {
            Ok(()) => sent += 1,
            Err(dropped) => break dropped,
        }
        tokio::task::yield_now().await;
        assert!(sent < 100, "nothing holds the server back");
    };
    assert_eq!(overrun, Dropped::QueueFull);
    let violation = Violation::SlowReader { bytes_max: 1 << 20 };
    assert_eq!(server.closed().await, (connection, violation.clone().into()));
    assert_eq!(raw.farewell().await.0, u64::from(violation.code()));
    assert_eq!(server.server.send(connection, reply), Err(Dropped::Unknown));
}

/// Sends what no one reads until some of it waits; gives how the last frame fared.
async fn fill(server: &ClientServer, connection: ConnectionId, bytes: usize) -> Result<(), Dropped> {
    for _frame in 0..200 {
        server.try_send(connection, Bytes::from(vec![1; bytes]))?;
        tokio::task::yield_now().await;
    }
    panic!("nothing holds the server back");
}

#[tokio::test]
async fn where_all_room_is_taken_the_slowest_reader_goes_and_not_the_one_that_asks() {
    let mut server = Server::start(0, |options| {
        options.limits.queue_bytes_max = 2 << 20;
        options.limits.queue_bytes_total_max = 1 << 20;
    });
    let (_slow, _requests) = raw_client(50, &server).await;
    let (slow, ..) = server.connected().await;
    assert_eq!(fill(&server.server, slow, 100 << 10).await, Err(Dropped::NoRoom));
    let mut client = Client::start(51, &[server.member(0)]);
    client.up().await;
    let (connection, ..) = server.connected().await;
    assert_eq!(server.server.try_send(connection, Bytes::from(vec![2; 512 << 10])), Ok(()));
    let violation = Violation::SlowReader { bytes_max: 2 << 20 };
    assert_eq!(server.closed().await, (slow, violation.into()));
    let ReplicaEvent::Frame { bytes, .. } = next(&mut client.events).await else { panic!("no frame") };
    assert_eq!(bytes.len(), 512 << 10);
}

#[tokio::test]
async fn a_client_that_takes_nothing_more_is_closed_though_its_queue_has_room() {
    let mut server = Server::start(0, |options| {
        options.limits.deadlines.stall = Duration::from_millis(300);
        options.limits.queue_bytes_max = 4 << 20;
    });
    let (raw, _requests) = raw_client(50, &server).await;
    let (connection, ..) = server.connected().await;
    // More than windows and buffers take.
    for _frame in 0..20 {
        assert_eq!(server.server.try_send(connection, Bytes::from(vec![1; 128 << 10])), Ok(()));
    }
    assert_eq!(server.closed().await, (connection, Violation::Stalled.into()));
    assert_eq!(raw.farewell().await.0, u64::from(Violation::Stalled.code()));
}

#[tokio::test]
async fn a_client_that_sends_faster_than_the_host_takes_is_made_to_wait_and_others_are_not() {
    let mut server = Server::start(0, |options| {
        options.limits.held_bytes_max = 512 << 10;
        options.limits.admission.connections_max = 100;
    });
    let (_flooder, mut requests) = raw_client(50, &server).await;
    let (flooder, ..) = server.connected().await;
    let flooding = tokio::spawn(async move {
        let frame = framed(&vec![1; 64 << 10]);
        while requests.write_all(&frame).await.is_ok() {}
    });
    let mut held = Vec::new();
    while held.len() < 8 {
        let event = next(&mut server.events).await;
        assert!(matches!(event, ClientEvent::Frame { connection, .. } if connection == flooder));
        held.push(event);
    }
    let mut client = Client::start(51, &[server.member(0)]);
    let (replica, _binding) = client.up().await;
    server.connected().await;
    for _frame in 0..20 {
        client.links.send(replica, Bytes::from(vec![2; 64 << 10])).expect("the link is up");
        let ClientEvent::Frame { connection, permit, .. } = next(&mut server.events).await else { panic!("no frame") };
        assert_ne!(connection, flooder);
        drop(permit);
    }
    assert!(server.events.try_recv().is_err());
    flooding.abort();
}

#[tokio::test]
async fn connections_of_one_host_share_what_it_may_have_held() {
    let mut server = Server::start(0, |options| {
        options.limits.held_bytes_max = 512 << 10;
        options.limits.held_bytes_per_source_max = 512 << 10;
        options.limits.admission.connections_max = 100;
    });
    let (_flooder, mut requests) = raw_client(50, &server).await;
    server.connected().await;
    let flooding = tokio::spawn(async move {
        let frame = framed(&vec![1; 64 << 10]);
        while requests.write_all(&frame).await.is_ok() {}
    });
    let mut held = Vec::new();
    while held.len() < 8 {
        held.push(next(&mut server.events).await);
    }
    let mut client = Client::start(51, &[server.member(0)]);
    let (replica, _binding) = client.up().await;
    let (connection, ..) = server.connected().await;
    client.links.send(replica, Bytes::from(vec![2; 64 << 10])).expect("the link is up");
    assert!(timeout(PATIENCE / 20, server.events.recv()).await.is_err(), "all of it is held");
    flooding.abort();
    held.clear();
    loop {
        if let ClientEvent::Frame { connection: from, .. } = next(&mut server.events).await
            && from == connection
        {
            break;
        }
    }
}

#[tokio::test]
async fn the_host_closes_a_connection_and_the_client_learns_why() {
    let mut server = Server::start(0, |_options| {});
    let mut client = Client::start(50, &[server.member(0)]);
    client.up().await;
    let (connection, ..) = server.connected().await;
    let reason = CloseReason { code: 3, text: "session evicted".into(), is_offence: true };
    server.server.close(connection, reason.clone());
    assert_eq!(server.closed().await, (connection, LinkError::ClosedHere(reason)));
    let error = LinkError::ClosedByPeer { code: u64::from(HOST_CODE_FIRST) + 3, text: "session evicted".into() };
    assert_eq!(client.down().await, error);
    client.up().await;
}

#[tokio::test]
async fn a_client_that_starts_a_frame_and_stops_is_cut_off() {
    let deadlines = Deadlines { frame: Duration::from_millis(100), ..Deadlines::default() };
    let mut server = Server::start(0, |options| options.limits.deadlines = deadlines);
    let (raw, mut requests) = raw_client(50, &server).await;
    server.connected().await;
    requests.write_all(&framed(b"request")[..8]).await.expect("the connection lives");
    assert_eq!(raw.farewell().await.0, u64::from(Violation::FrameDeadline.code()));
    assert_eq!(server.closed().await.1, Violation::FrameDeadline.into());
}

#[tokio::test]
async fn a_request_above_the_bound_is_refused_on_both_sides() {
    let mut server = Server::start(0, |_options| {});
    let bytes_max = ClientLimits::for_requests(REQUEST_BYTES_MAX).request_bytes_max;
    let mut client = Client::start(51, &[server.member(0)]);
    let (replica, _binding) = client.up().await;
    server.connected().await;
    assert_eq!(client.links.send(replica, Bytes::from(vec![1; bytes_max as usize + 1])), Err(Dropped::Size));
    let (raw, mut requests) = raw_client(50, &server).await;
    server.connected().await;
    requests.write_all(&(bytes_max + 1).to_le_bytes()).await.expect("the connection lives");
    let violation = Violation::FrameTooLarge { bytes: bytes_max + 1, bytes_max };
    assert_eq!(raw.farewell().await.0, u64::from(violation.code()));
}
