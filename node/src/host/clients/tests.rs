//! The clients' side of a host without clients.

use quorate_crypto::SigningKey;
use quorate_protocol::codec::Blob;
use quorate_protocol::configuration::ClusterId;
use tokio::sync::mpsc;

use super::*;
use crate::transport::{ClientLimits, ClientServerOptions};

/// The side of a host without clients.
fn clients() -> Clients {
    let key = SigningKey::from_seed([1; 32]);
    let limits = ClientLimits::for_requests(1 << 10);
    let options = ClientServerOptions::new(key, "127.0.0.1:0".parse().unwrap(), [7; 32], limits);
    let server = ClientServer::start(options, mpsc::channel(65_536).0).unwrap();
    Clients::new(server, ClusterId::new(quorate_crypto::Digest::ZERO))
}

fn connect(clients: &mut Clients, number: u64) -> ConnectionId {
    connect_from(clients, number, [10, 0, 0, 1].into());
    ConnectionId(number)
}

fn connect_from(clients: &mut Clients, number: u64, source: IpAddr) {
    let key = SigningKey::from_seed([u8::try_from(number).unwrap(); 32]).public_key();
    clients.connected(ConnectionId(number), key, source, [0; 32]);
}

fn take(clients: &mut Clients, connection: ConnectionId) {
    let request = SignedRequest { body: Blob::EMPTY, signature: Signature::from_bytes([0; 64]) };
    clients.take(connection, request, false, Permit::of_a_test());
}

/// The connections whose requests are checked next, in order.
fn checked_next(clients: &mut Clients) -> Vec<u64> {
    clients.next_unchecked().into_iter().map(|received| received.connection.0).collect()
}

#[tokio::test]
async fn what_waits_of_a_connection_that_is_closed_is_not_checked() {
    let mut clients = clients();
    let [one, other] = [1, 2].map(|number| connect(&mut clients, number));
    for connection in [one, other, one] {
        take(&mut clients, connection);
    }
    clients.close(one, CODE_SIGNATURE, String::new());
    assert_eq!(checked_next(&mut clients), [other.0]);
    assert!(!clients.is_connected(one) && clients.is_connected(other));
}

#[tokio::test]
async fn each_host_and_each_of_its_connections_has_its_turn() {
    let mut clients = clients();
    let of_one: Vec<u64> = (1..=100).collect();
    for number in &of_one {
        connect_from(&mut clients, *number, [10, 0, 0, 1].into());
    }
    connect_from(&mut clients, 200, [10, 0, 0, 2].into());
    for _request in 0..5 {
        for number in &of_one {
            take(&mut clients, ConnectionId(*number));
        }
    }
    (0..3).for_each(|_request| take(&mut clients, ConnectionId(200)));
    let next = checked_next(&mut clients);
    assert_eq!(next.len(), REQUESTS_MAX);
    assert_eq!(next[..6], [1, 200, 2, 200, 3, 200]);
    assert_eq!(next[6..103], of_one[3..], "each connection once, before any has its second turn");
}

#[tokio::test]
async fn a_connection_serves_so_many_keys_and_a_key_so_many_connections() {
    let mut clients = clients();
    let attach = |clients: &mut Clients, connection, number: u16| {
        let [high, low] = number.to_be_bytes();
        let key = SigningKey::from_seed([[high, low]; 16].concat().try_into().unwrap());
        let signature = key.sign(&attach_digest(&clients.cluster, &[0; 32]));
        clients.on_attach(connection, key.public_key(), &signature);
    };
    let busy = connect(&mut clients, 200);
    let mut numbers = 1_000..5_000;
    let last = numbers.find(|number| {
        attach(&mut clients, busy, *number);
        !clients.is_connected(busy)
    });
    // The key that it began with is one, too.
    assert_eq!(last.map(usize::from), Some(1_000 + KEYS_MAX - 1));
    let connections: Vec<_> = (1..=9).map(|number| connect(&mut clients, number)).collect();
    for connection in &connections {
        attach(&mut clients, *connection, 1);
    }
    let gone = |clients: &Clients| connections.iter().map(|connection| !clients.is_connected(*connection)).collect();
    let gone: Vec<bool> = gone(&clients);
    assert!(gone[0] && !gone[1..].contains(&true), "the oldest gave way: {gone:?}");
}

#[tokio::test]
async fn questions_have_few_places_and_no_connection_has_them_all() {
    let mut clients = clients();
    let greedy = connect(&mut clients, 1);
    let ask = |clients: &Clients, connection| -> Vec<_> {
        (0..1_000).map_while(|_| clients.place_for_question(connection)).collect()
    };
    let held = ask(&clients, greedy);
    assert_eq!(held.len(), QUESTIONS.connection);
    let others: Vec<_> = (2..40).map(|number| connect(&mut clients, number)).collect();
    let of_others: Vec<_> = others.iter().flat_map(|other| ask(&clients, *other)).collect();
    assert_eq!(held.len() + of_others.len(), QUESTIONS.source, "they all come from one host");
    let mut elsewhere = Vec::new();
    for host in 2..20_u8 {
        connect_from(&mut clients, 100 + u64::from(host), [10, 0, 0, host].into());
        elsewhere.extend(ask(&clients, ConnectionId(100 + u64::from(host))));
    }
    assert_eq!(held.len() + of_others.len() + elsewhere.len(), QUESTIONS.all);
    drop((of_others, elsewhere));
    assert!(clients.place_for_question(greedy).is_none(), "its own are still taken");
    drop(held);
    assert!(clients.place_for_question(greedy).is_some());
}

#[tokio::test]
async fn who_comes_back_finds_what_he_asked_before_still_in_its_place() {
    let mut clients = clients();
    let mut held = Vec::new();
    for _round in 0..100 {
        let connection = connect(&mut clients, 1);
        held.extend(clients.place_for_backup(connection));
        clients.closed(connection);
    }
    assert_eq!(held.len(), BACKUP_QUESTIONS.source);
}

#[tokio::test]
async fn nothing_is_answered_to_a_standby_whose_connection_is_gone() {
    let mut clients = clients();
    for end in [Clients::closed, |clients: &mut Clients, connection| clients.close(connection, 1, String::new())] {
        let connection = connect(&mut clients, 1);
        clients.standbys.put_for_test(clients.source(connection).unwrap(), connection);
        end(&mut clients, connection);
        assert!(clients.standbys.next(Instant::now()).is_none());
    }
}
