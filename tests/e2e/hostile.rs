//! Clients and strangers who keep to no rule: each is told why it is disconnected, and nobody else notices.
//! (PROTOCOL §4, §12)

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use quorate_crypto::SigningKey;
use quorate_node::configuration::key_file;
use quorate_node::transport::{ALPN_CLIENT, ALPN_PEER, Violation};
use quorate_protocol::batch::{Request, SignedRequest};
use quorate_protocol::codec::{Blob, List};
use quorate_protocol::kv::Operation;
use quorate_protocol::message::{ClientMessage, Outcome, ReplicaMessage, Reply, Want, from_frame, to_frame};
use quorate_protocol::number::{RequestNumber, Sequence, Session};
use quorate_tests::{Cluster, Farewell, Load, Stranger, quorate, say};

/// The lane of a client's requests, as its hello names it.
const REQUESTS: u8 = 2;

/// The version of the transport.
const VERSION: u16 = 1;

/// Codes with which a replica closes a client's connection.
const MALFORMED: u64 = 0x101;
const SIGNATURE: u64 = 0x102;

/// Longest silence that another client may notice.
const GAP_MAX: Duration = Duration::from_secs(2);

fn key() -> SigningKey {
    key_file::generate().unwrap()
}

/// A connection of a client that said its hello.
fn client(cluster: &Cluster, id: u8, key: &SigningKey) -> Stranger {
    let mut stranger = Stranger::dial(cluster.client_address(id), ALPN_CLIENT, key).unwrap();
    stranger.send_hello(VERSION, &cluster.id_bytes(), REQUESTS);
    stranger
}

fn assert_violation(farewell: &Farewell, violation: &Violation) {
    assert_eq!(farewell.code, Some(u64::from(violation.code())), "{farewell:?}");
    assert!(farewell.text.contains(&violation.to_string()), "{farewell:?}");
}

#[test]
fn a_protocol_that_is_not_spoken_at_a_port_is_refused_in_the_handshake() {
    let cluster = Cluster::start(4);
    let load = Load::start(&cluster, 2);
    // Among them that of the other port.
    for (address, protocol) in [
        (cluster.peer_address(1), ALPN_CLIENT),
        (cluster.client_address(1), ALPN_PEER),
        (cluster.client_address(1), b"h3"),
        (cluster.client_address(1), b"quorate-client/2"),
    ] {
        let refused = Stranger::dial(address, protocol, &key()).unwrap_err();
        assert!(refused.text.contains("protocol"), "{refused:?}");
    }
    cluster.assert_nothing_lost(load);
}

#[test]
fn a_client_that_breaks_the_framing_is_told_so_and_disconnected() {
    let cluster = Cluster::start(4);
    let load = Load::start(&cluster, 2);
    load.wait_for(20);
    let start = Instant::now();
    let own = cluster.id_bytes();
    let says = |version, cluster_id: &[u8; 32], lane| {
        let mut stranger = Stranger::dial(cluster.client_address(0), ALPN_CLIENT, &key()).unwrap();
        stranger.send_hello(version, cluster_id, lane);
        stranger.farewell()
    };
    assert_violation(&says(2, &own, REQUESTS), &Violation::WrongVersion { theirs: 2, ours: 1 });
    assert_violation(&says(VERSION, &[7; 32], REQUESTS), &Violation::WrongCluster);
    assert_violation(&says(VERSION, &own, 0), &Violation::WrongLane { lane: 0 });
    let sends = |bytes: &[u8], finish: bool| {
        let mut stranger = client(&cluster, 0, &key());
        stranger.send(bytes);
        if finish {
            stranger.finish();
        }
        stranger.farewell()
    };
    let bytes_max = 320 << 10;
    let too_large = Violation::FrameTooLarge { bytes: bytes_max + 1, bytes_max };
    assert_violation(&sends(&(bytes_max + 1).to_le_bytes(), false), &too_large);
    let largest = Violation::FrameTooLarge { bytes: u32::MAX, bytes_max };
    assert_violation(&sends(&[0xff; 64], false), &largest);
    assert_violation(&sends(&[0; 4], false), &Violation::FrameEmpty);
    assert_violation(&sends(&[100, 0, 0, 0, 1, 2, 3], true), &Violation::FrameTruncated);
    let mut no_hello = Stranger::dial(cluster.client_address(0), ALPN_CLIENT, &key()).unwrap();
    no_hello.send_frame(b"GET / HTTP/1.1\r\nHost: replica\r\n\r\n");
    assert_violation(&no_hello.farewell(), &Violation::NoHello);
    load.wait_for(20);
    assert!(load.longest_gap_since(start) < GAP_MAX);
    cluster.assert_nothing_lost(load);
}

#[test]
fn a_client_whose_frames_are_no_messages_is_told_so_and_disconnected() {
    let cluster = Cluster::start(4);
    let load = Load::start(&cluster, 2);
    load.wait_for(20);
    let start = Instant::now();
    let some_key = key();
    let valid = to_frame(&opening(&cluster, &some_key, 1)).unwrap();
    let long = [&valid[..], b"and more"].concat();
    let mut other_version = valid.to_vec();
    other_version[0] = other_version[0].wrapping_add(1);
    let other_kind = [&valid[..1], &[0xfe], &valid[2..]].concat();
    let mut noise = vec![0; 10_000];
    getrandom::fill(&mut noise).unwrap();
    for rubbish in [&noise[..], &valid[..valid.len() - 1], &long, &other_version, &other_kind, &vec![0xff; 300_000]] {
        let mut stranger = client(&cluster, 0, &some_key);
        stranger.send_frame(rubbish);
        let farewell = stranger.farewell();
        assert_eq!(farewell.code, Some(MALFORMED), "{farewell:?}");
        assert!(farewell.text.contains("a frame that is no message"), "{farewell:?}");
    }
    load.wait_for(20);
    let gap = load.longest_gap_since(start);
    assert!(gap < GAP_MAX, "{gap:?}");
    cluster.assert_nothing_lost(load);
}

#[test]
fn questions_for_checkpoints_without_end_hold_nobody_up() {
    const CLIENTS: usize = 8;
    const QUESTIONS: u64 = 300;
    let cluster = Cluster::start(4);
    let load = Load::start(&cluster, 2);
    load.wait_for(100);
    let start = Instant::now();
    let part = |number, sequence, want| {
        let (number, sequence) = (RequestNumber::new(number), Sequence::new(sequence));
        to_frame(&ClientMessage::Part { number, sequence, want, offset: 0 }).unwrap()
    };
    let mut strangers: Vec<Stranger> = (0..CLIENTS).map(|_| client(&cluster, 0, &key())).collect();
    for number in 0..QUESTIONS {
        for stranger in &mut strangers {
            let question = ClientMessage::Checkpoint { number: RequestNumber::new(number) };
            assert!(stranger.send_frame(&to_frame(&question).unwrap()));
            // Of slots that are, and of some that never will be; some of groups that are not.
            let group = if number % 3 == 0 { u16::MAX } else { 7 };
            assert!(stranger.send_frame(&part(number, 16 * (number % 20), Want::Leaves { group })));
        }
    }
    load.wait_for(100);
    let out = cluster.scratch().join("meanwhile");
    let net = cluster.client_folder();
    let arguments = ["backup".as_ref(), "--net".as_ref(), net.as_os_str(), "--out".as_ref(), out.as_os_str()];
    let taken = quorate(arguments);
    assert_eq!(taken.status, Some(0), "{taken:?}");
    assert!(strangers.iter().all(Stranger::is_open), "what is asked too often is not answered, no more");
    let mut long = client(&cluster, 0, &key());
    long.send_frame(&part(1, 16, Want::Protocol { after: Some(vec![b'a'; (32 << 10) + 1].into()) }));
    let farewell = long.farewell();
    assert_eq!(farewell.code, Some(MALFORMED), "{farewell:?}");
    let gap = load.longest_gap_since(start);
    assert!(gap < GAP_MAX, "{gap:?}");
    cluster.assert_nothing_lost(load);
}

#[test]
fn a_flood_of_forged_requests_ends_the_connections_it_comes_by_and_nobody_else_notices() {
    const CLIENTS: u8 = 40;
    const REQUESTS_EACH: usize = 50;
    let cluster = Cluster::start(4);
    let load = Load::start(&cluster, 2);
    load.wait_for(20);
    let start = Instant::now();
    let flood = |number: u8| {
        // Whole requests, each signed for something else.
        let own = key();
        let mut forged = opening(&cluster, &own, 1);
        if let ClientMessage::Request(request) = &mut forged {
            request.signature = own.sign(cluster.genesis().cluster().digest());
        }
        let frame = to_frame(&forged).unwrap();
        let mut stranger = client(&cluster, number % 4, &own);
        // Some find the connection closed already.
        (0..REQUESTS_EACH).take_while(|_| stranger.send_frame(&frame)).for_each(drop);
        stranger
    };
    for stranger in (0..CLIENTS).map(flood).collect::<Vec<_>>() {
        let farewell = stranger.farewell();
        assert_eq!(farewell.code, Some(SIGNATURE), "{farewell:?}");
        assert!(farewell.text.contains("a request whose signature is not valid"), "{farewell:?}");
    }
    load.wait_for(20);
    let gap = load.longest_gap_since(start);
    say(&format!("{CLIENTS} clients flooded: {} ms of silence at most", gap.as_millis()));
    assert!(gap < GAP_MAX, "{gap:?}");
    cluster.assert_nothing_lost(load);
}

#[test]
fn a_key_is_served_only_where_it_proved_to_be() {
    let cluster = Cluster::start(4);
    let primary = cluster.status().primary();
    let mut client = Requester::new(&cluster, primary);
    client.session();
    // A valid request of a key that is not attached is of no effect, and its sender is told.
    let other = key();
    client.stranger.send_frame(&to_frame(&opening(&cluster, &other, 1)).unwrap());
    let frame = client.stranger.receive_frame().unwrap();
    let answer = from_frame(&frame.into()).unwrap();
    let ReplicaMessage::Refused { client: named, reason, .. } = answer else { unreachable!("{answer:?}") };
    assert_eq!(named, other.public_key());
    assert!(String::from_utf8_lossy(&reason).contains("is not attached to this connection"), "{reason:?}");
    assert!(client.stranger.is_open());
    // Whoever claims to hold a key must sign for this very connection.
    let signature = other.sign(cluster.genesis().cluster().digest());
    let attach = ClientMessage::Attach { client: other.public_key(), signature };
    client.stranger.send_frame(&to_frame(&attach).unwrap());
    let farewell = client.stranger.farewell();
    assert_eq!(farewell.code, Some(SIGNATURE), "{farewell:?}");
    cluster.assert_converged();
}

#[test]
fn datagrams_of_noise_at_every_port_are_ignored() {
    let cluster = Cluster::start(4);
    let load = Load::start(&cluster, 2);
    load.wait_for(20);
    let start = Instant::now();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut noise = vec![0; 1400];
    let targets: Vec<SocketAddr> =
        (0..4).flat_map(|id| [cluster.peer_address(id), cluster.client_address(id)]).collect();
    for round in 0..4_000_usize {
        getrandom::fill(&mut noise).unwrap();
        // Every other one looks like the first packet of a handshake.
        noise[0] = if round % 2 == 0 { 0xc3 } else { noise[0] };
        noise[1..5].copy_from_slice(&1_u32.to_be_bytes());
        socket.send_to(&noise[..=round % noise.len()], targets[round % targets.len()]).ok();
    }
    load.wait_for(50);
    let gap = load.longest_gap_since(start);
    assert!(gap < GAP_MAX, "{gap:?}");
    let status = cluster.status();
    assert!(status.replicas.iter().all(|row| row.links.iter().all(|link| link.state == "up")), "{status}");
    cluster.assert_nothing_lost(load);
}

/// A client that makes its own requests, at one replica.
pub(crate) struct Requester {
    key: SigningKey,
    stranger: Stranger,
    cluster: quorate_protocol::configuration::ClusterId,
}

impl Requester {
    /// Connects with a replica and asks it for a session.
    pub(crate) fn new(cluster: &Cluster, replica: u8) -> Self {
        let key = key();
        let mut stranger = client(cluster, replica, &key);
        stranger.send_frame(&to_frame(&opening(cluster, &key, 1)).unwrap());
        // Its own hello comes first.
        stranger.receive_frame().unwrap();
        Self { key, stranger, cluster: *cluster.genesis().cluster() }
    }

    fn request(&self, session: Session, number: u64, value: &str) -> SignedRequest {
        let operation = Operation::put(b"requested", value.as_bytes()).encode().unwrap();
        sign(&self.cluster, &self.key, session, number, vec![operation])
    }

    fn send(&mut self, request: SignedRequest) {
        self.stranger.send_frame(&to_frame(&ClientMessage::Request(request)).unwrap());
    }

    /// The next reply; replies to openings and requests come from this one replica.
    pub(crate) fn reply(&mut self) -> Reply {
        loop {
            let frame = self.stranger.receive_frame().unwrap();
            if let ReplicaMessage::Reply(reply) = from_frame(&frame.into()).unwrap() {
                return reply;
            }
        }
    }

    fn session(&mut self) -> Session {
        let reply = self.reply();
        let Outcome::Opened { session } = reply.outcome else { unreachable!("{reply:?}") };
        session
    }
}

fn sign(
    cluster: &quorate_protocol::configuration::ClusterId,
    key: &SigningKey,
    session: Session,
    number: u64,
    operations: Vec<Blob>,
) -> SignedRequest {
    let operations = List::new(operations).unwrap();
    let number = RequestNumber::new(number);
    Request { client: key.public_key(), session, number, operations }.sign(cluster, key).unwrap()
}

fn opening(cluster: &Cluster, key: &SigningKey, number: u64) -> ClientMessage {
    ClientMessage::Request(sign(cluster.genesis().cluster(), key, Session::NONE, number, vec![]))
}

#[test]
fn a_number_is_executed_once_whatever_is_sent_under_it() {
    let cluster = Cluster::start(4);
    let primary = cluster.status().primary();
    let mut client = Requester::new(&cluster, primary);
    let session = client.session();
    let first = client.request(session, 1, "first");
    client.send(first.clone());
    let reply = client.reply();
    assert!(matches!(reply.outcome, Outcome::Executed { .. }), "{reply:?}");
    // The same again, and another operation under the same number: the first one's reply.
    client.send(first.clone());
    assert_eq!(client.reply().outcome, reply.outcome);
    let second = client.request(session, 1, "second");
    client.send(second);
    assert_eq!(client.reply().outcome, reply.outcome);
    assert_eq!(cluster.kv(&["get", "requested"]).text(), "first\n");
    // A thousand copies in one go are one request, and the connection is none the worse.
    for _ in 0..1_000 {
        client.send(first.clone());
    }
    let next = client.request(session, 2, "third");
    client.send(next);
    let third = loop {
        let reply = client.reply();
        if reply.number == RequestNumber::new(2) {
            break reply;
        }
    };
    assert!(matches!(third.outcome, Outcome::Executed { .. }), "{third:?}");
    assert_eq!(cluster.kv(&["get", "requested"]).text(), "third\n");
    assert!(client.stranger.is_open());
    cluster.assert_converged();
}

#[test]
fn a_request_of_a_session_that_nobody_opened_never_executes() {
    let cluster = Cluster::start(4);
    let primary = cluster.status().primary();
    let mut client = Requester::new(&cluster, primary);
    let session = client.session();
    let invented = Session { sequence: Sequence::new(session.sequence.value() + 1_000), index: 3 };
    let request = client.request(invented, 1, "never");
    client.send(request);
    let reply = client.reply();
    assert_eq!((reply.session, reply.outcome), (invented, Outcome::Evicted));
    assert_eq!(cluster.kv(&["get", "requested"]).status, Some(4));
    // A number far beyond the window waits for nothing and takes nothing down.
    let far = client.request(session, u64::MAX, "never");
    client.send(far);
    let next = client.request(session, 1, "now");
    client.send(next);
    assert_eq!(client.reply().number, RequestNumber::new(1));
    assert_eq!(cluster.kv(&["get", "requested"]).text(), "now\n");
    cluster.assert_converged();
}

#[test]
fn many_connections_that_say_nothing_keep_nobody_out() {
    let cluster = Cluster::start(4);
    let idle: Vec<Stranger> =
        (0..100).map(|_| Stranger::dial(cluster.client_address(0), ALPN_CLIENT, &key()).unwrap()).collect();
    let load = Load::start(&cluster, 2);
    let waited = load.wait_for(50);
    say(&format!("50 writes within {:.2} s beside {} idle connections", waited.as_secs_f64(), idle.len()));
    // Who says no hello is not kept.
    for stranger in &idle {
        assert_violation(&stranger.farewell(), &Violation::HelloDeadline);
    }
    cluster.assert_nothing_lost(load);
}
