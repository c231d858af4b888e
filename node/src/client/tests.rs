//! The client library against a whole cluster in this process: real sockets and disks, four hosts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use quorate_crypto::{PublicKey, SigningKey};
use quorate_protocol::client::ClientError as SessionError;
use quorate_protocol::codec::{Blob, List};
use quorate_protocol::configuration::{ClientPolicy, Parameters};
use quorate_protocol::kv::{Condition, Operation, Range, Step, StepOutput, Store, Transaction, VALUE_BYTES_MAX};
use quorate_protocol::message::{ClientMessage, from_frame};
use quorate_protocol::number::{ReplicaId, Sequence};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::driver::{Command, Driver};
use super::kv::KeyValue;
use super::{
    COMMANDS_MAX, ClientError, Connection, ConnectionOptions, EVENTS_MAX, Identity, OpenError, PENDING_MAX,
    completions, derive_key, members,
};
use crate::configuration::network::{Addresses, Network, Plan};
use crate::configuration::{Resources, Size};
use crate::host::{self, ReplicaOptions};
use crate::transport::{
    ClientEvent, ClientLimits, ClientServer, ClientServerOptions, LinkError, ReplicaEvent, ReplicaLinkLimits,
    ReplicaLinks, ReplicaLinksOptions,
};

/// How long anything here may take. Machines that run tests are slow.
const PATIENCE: Duration = Duration::from_mins(1);

/// Slots from one checkpoint to the next: few, so that proofs are there soon.
const CHECKPOINT_INTERVAL: u64 = 8;

/// A cluster in this process.
pub(crate) struct TestCluster {
    folder: TempDir,
    network: Network,
    replicas: Vec<Option<Running>>,
}

struct Running {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<anyhow::Result<()>>,
}

impl TestCluster {
    /// Four replicas, ready.
    pub(crate) async fn start() -> Self {
        let mut cluster = Self::found();
        for index in 0..4 {
            cluster.start_replica(index).await;
        }
        cluster
    }

    /// The files of four replicas, none of which runs.
    fn found() -> Self {
        Self::found_with(|_plan| {})
    }

    /// The same, with what `adjust` changes.
    fn found_with(adjust: impl FnOnce(&mut Plan)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let resources = Resources { log_segment_bytes: Size::new(1 << 20), mtu_max: 6500, ..Resources::default() };
        let parameters = Parameters { checkpoint_interval: CHECKPOINT_INTERVAL, ..Parameters::default() };
        let mut plan = Plan { addresses: own_addresses(4), parameters, resources, initial: None };
        adjust(&mut plan);
        let network = Network::create(&folder.path().join("net"), plan).unwrap();
        Self { folder, network, replicas: (0..4).map(|_| None).collect() }
    }

    /// Starts a replica. Sockets of one that was stopped just now may be open still, so there are several attempts.
    async fn start_replica(&mut self, index: usize) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.try_start_replica(index).await {
                Ok(running) => return self.replicas[index] = Some(running),
                Err(error) => assert!(Instant::now() < deadline, "replica {index} does not start: {error:?}"),
            }
            tokio::task::yield_now().await;
        }
    }

    async fn try_start_replica(&self, index: usize) -> anyhow::Result<Running> {
        let configuration = self.network.replicas().unwrap().remove(index);
        let (is_ready, ready) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let build: host::Build = Arc::new(|| Box::new(Store::default()));
        let options = ReplicaOptions { configuration, build };
        let stopped = async { stopped.await.unwrap_or_default() };
        let ended = tokio::spawn(host::run(options, stopped, move || is_ready.send(()).unwrap_or_default()));
        match timeout(PATIENCE, ready).await.expect("ready in time") {
            Ok(()) => Ok(Running { stop, ended }),
            Err(_) => Err(ended.await.expect("no panic").expect_err("it ended before it was ready")),
        }
    }

    async fn stop_replica(&mut self, index: usize) {
        let Some(Running { stop, ended }) = self.replicas[index].take() else { return };
        drop(stop);
        timeout(PATIENCE, ended).await.expect("ended in time").expect("no panic").expect("no failure");
    }

    pub(crate) async fn stop(mut self) {
        for index in 0..4 {
            self.stop_replica(index).await;
        }
    }

    pub(crate) fn client_folder(&self) -> PathBuf {
        self.network.client_folder()
    }

    /// A folder for a test's own files.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    async fn connection_options(&self) -> ConnectionOptions {
        let identity = Identity::take(&self.client_folder(), PATIENCE).unwrap();
        let configuration = Arc::new(self.network.genesis().configuration().clone());
        ConnectionOptions::resolve(configuration, identity.configuration.key.clone()).await.unwrap()
    }

    async fn connect(&self) -> (Connection, SigningKey) {
        let options = self.connection_options().await;
        let key = options.key.clone();
        (Connection::open(options).unwrap(), key)
    }

    /// What a replica listens with for its clients, and nothing behind it.
    fn client_server(&self, index: usize) -> (ClientServer, mpsc::Receiver<ClientEvent>) {
        let replica = self.network.replicas().unwrap().remove(index);
        let id = *self.network.genesis().configuration().cluster().digest().as_bytes();
        let (events, heard) = mpsc::channel(EVENTS_MAX);
        let limits = ClientLimits::for_requests(Parameters::default().request_bytes_max);
        let options = ClientServerOptions::new(replica.key.clone(), replica.listen_client.parse().unwrap(), id, limits);
        (ClientServer::start(options, events).unwrap(), heard)
    }

    async fn store(&self) -> (Connection, KeyValue) {
        let (connection, key) = self.connect().await;
        let session = connection.client(key).await.unwrap();
        (connection, KeyValue::new(session, PATIENCE))
    }
}

/// Addresses that nobody else has: an address of the loopback for each cluster of each process, and ports below those
/// that the system gives to whoever asks for any.
fn own_addresses(count: u16) -> Vec<Addresses> {
    static CLUSTERS: AtomicU8 = AtomicU8::new(1);
    let (process, cluster) = (std::process::id(), CLUSTERS.fetch_add(1, Ordering::Relaxed));
    let host = Ipv4Addr::new(127, octet(process / 250), octet(process), cluster);
    let address = |port: u16| SocketAddr::new(host.into(), 20_000 + port).to_string();
    let of =
        |index| Addresses { peer: address(3 * index), client: address(3 * index + 1), admin: address(3 * index + 2) };
    (0..count).map(of).collect()
}

/// Neither zero nor the last one.
fn octet(number: u32) -> u8 {
    u8::try_from(number % 250).unwrap() + 1
}

fn text(blob: Option<Blob>) -> Option<String> {
    blob.map(|blob| String::from_utf8_lossy(&blob).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_of_the_store_does_what_it_says() {
    let cluster = TestCluster::start().await;
    let (connection, store) = cluster.store().await;
    assert!(!store.put(b"a", b"1").await.unwrap().value);
    assert!(store.put(b"a", b"2").await.unwrap().value);
    assert_eq!(text(store.get(b"a").await.unwrap().value), Some("2".to_owned()));
    assert!(!store.compare_and_set(b"a", Some(b"1"), Some(b"3")).await.unwrap().value);
    assert!(store.compare_and_set(b"a", Some(b"2"), Some(b"3")).await.unwrap().value);
    assert!(store.compare_and_set(b"b", None, Some(b"4")).await.unwrap().value);
    let range = Range { prefix: Blob::EMPTY, after: None, limit: 1 };
    let page = store.range(range.clone()).await.unwrap().value;
    assert_eq!((page.entries.len(), page.more), (1, true));
    let rest = store.range(Range { after: Some(page.entries[0].key.clone()), ..range }).await.unwrap().value;
    assert_eq!((&rest.entries[0].key[..], rest.more), (&b"b"[..], false));
    let transaction = Transaction {
        conditions: List::new(vec![Condition::Exists { key: b"b"[..].into() }]).unwrap(),
        then: List::new(vec![Step::Delete { key: b"b"[..].into() }]).unwrap(),
        otherwise: List::empty(),
    };
    let outcome = store.transaction(transaction).await.unwrap().value;
    assert!(outcome.succeeded);
    assert_eq!(outcome.outputs, [StepOutput::Deleted(true)]);
    assert!(!store.delete(b"b").await.unwrap().value);
    connection.close().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_carries_many_clients_with_many_requests_in_flight() {
    let cluster = TestCluster::start().await;
    let (connection, key) = cluster.connect().await;
    let (submit_to, mut completions) = completions();
    for client in 0..20_u64 {
        let session = connection.client(derive_key(&key, "test", client)).await.unwrap();
        for number in 0..10 {
            let operation = Operation::put(format!("{client}/{number}").as_bytes(), b"v").encode().unwrap();
            session.submit_tagged(client * 10 + number, vec![operation], &submit_to).await.unwrap();
        }
    }
    let mut tags = Vec::new();
    while tags.len() < 200 {
        let completion = timeout(PATIENCE, completions.recv()).await.unwrap().unwrap();
        let tag = completion.tag;
        completion.outcome.unwrap_or_else(|error| panic!("request {tag}, the {}th: {error:?}", tags.len()));
        tags.push(tag);
    }
    tags.sort_unstable();
    assert_eq!(tags, (0..200).collect::<Vec<_>>());
    let session = connection.client(key).await.unwrap();
    let page = KeyValue::new(session, PATIENCE).range(Range { prefix: Blob::EMPTY, after: None, limit: 1024 }).await;
    assert_eq!(page.unwrap().value.entries.len(), 200);
    connection.close().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_request_that_a_genesis_may_allow_executes() {
    let (request_bytes_max, batch_bytes_max) = (1 << 20, 2 << 20);
    let mut cluster = TestCluster::found_with(|plan| {
        plan.parameters = Parameters { request_bytes_max, batch_bytes_max, ..plan.parameters.clone() };
    });
    for index in 0..4 {
        cluster.start_replica(index).await;
    }
    let (connection, key) = cluster.connect().await;
    let session = connection.client(key).await.unwrap();
    let operations = |count| -> Vec<Blob> {
        let value = vec![7; VALUE_BYTES_MAX];
        (0..count).map(|key: u8| Operation::put(&[key], &value).encode().unwrap()).collect()
    };
    // What is left beside the values is less than a request of one value more.
    let answer = session.submit_within(operations(7), PATIENCE).await.unwrap();
    assert_eq!(answer.results.len(), 7);
    let further = session.submit_within(operations(8), PATIENCE).await;
    let too_large = SessionError::TooLarge { request_bytes_max };
    assert!(matches!(further, Err(ClientError::Session(error)) if error == too_large), "{further:?}");
    connection.close().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_name_is_not_found_keeps_neither_replicas_nor_clients_from_working() {
    let mut cluster = TestCluster::found_with(|plan| {
        let away = &mut plan.addresses[3];
        (away.peer, away.client) = ("nowhere.invalid:4100".to_owned(), "nowhere.invalid:4101".to_owned());
    });
    for index in 0..3 {
        cluster.start_replica(index).await;
    }
    let (connection, store) = cluster.store().await;
    store.put(b"k", b"v").await.unwrap();
    connection.wait_for_replicas(3, PATIENCE).await.unwrap();
    let reachability = connection.reachability().await;
    let away = &reachability.replicas[3];
    assert!(matches!(&away.last_error, Some(LinkError::LookUp { address, .. }) if *address == away.address));
    assert!(reachability.to_string().contains("nowhere.invalid"), "{reachability}");
    connection.close().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_name_is_found_a_client_says_so() {
    let cluster = TestCluster::found_with(|plan| {
        plan.addresses.iter_mut().for_each(|addresses| addresses.client = "nowhere.invalid:4101".to_owned());
    });
    let configuration = Arc::new(cluster.network.genesis().configuration().clone());
    let refused = ConnectionOptions::resolve(configuration, SigningKey::from_seed([1; 32])).await;
    assert!(matches!(refused, Err(OpenError::Address { address, .. }) if address == "nowhere.invalid:4101"));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_clients_are_listed_others_do_not_get_as_far_as_a_connection() {
    let listed = SigningKey::from_seed([50; 32]);
    let mut cluster = TestCluster::found_with(|plan| {
        plan.parameters.clients = ClientPolicy::Listed(List::new(vec![listed.public_key()]).unwrap());
    });
    cluster.start_replica(0).await;
    let configuration = Arc::new(cluster.network.genesis().configuration().clone());
    let open = async |key| {
        Connection::open(ConnectionOptions::resolve(Arc::clone(&configuration), key).await.unwrap()).unwrap()
    };
    let connection = open(listed).await;
    connection.wait_for_replicas(1, PATIENCE).await.unwrap();
    let stranger = open(SigningKey::from_seed([51; 32])).await;
    let refused = async {
        loop {
            if let Some(LinkError::RefusedByPeer { text }) = &stranger.reachability().await.replicas[0].last_error {
                return text.clone();
            }
        }
    };
    let text = timeout(PATIENCE, refused).await.unwrap();
    assert!(text.contains("not the one that is expected"), "{text}");
    stranger.close().await;
    connection.close().await;
    cluster.stop().await;
}

/// A link carries frames before the connection's task hears that it is up.
#[tokio::test]
async fn a_replica_hears_of_a_key_before_its_first_request() {
    let cluster = TestCluster::found();
    let (_server, mut at_server) = cluster.client_server(0);
    let ConnectionOptions { configuration, key, local, .. } = cluster.connection_options().await;
    let id = *configuration.cluster().digest().as_bytes();
    let (events, mut from_links) = mpsc::channel(EVENTS_MAX);
    let limits = ReplicaLinkLimits::for_requests(Parameters::default().request_bytes_max);
    let options = ReplicaLinksOptions::new(key.clone(), local, members(&configuration), id, limits);
    let links = ReplicaLinks::start(options, events).unwrap();
    let up = timeout(PATIENCE, from_links.recv()).await.unwrap().unwrap();
    assert!(matches!(up, ReplicaEvent::Up { replica, .. } if replica == ReplicaId::new(0)));

    let (late_events, events) = mpsc::channel(EVENTS_MAX);
    let (commands, from_callers) = mpsc::channel(COMMANDS_MAX);
    let (reached, _) = watch::channel(0);
    let driver = Driver::new(configuration, key.public_key(), links, reached, Arc::default());
    let task = tokio::spawn(driver.run(events, from_callers));
    let client = derive_key(&key, "test", 1);
    let (added, outcome) = oneshot::channel();
    commands.send(Command::Add { key: client.clone().into(), opens_late: false, added }).await.unwrap();
    outcome.await.unwrap().unwrap();
    late_events.send(up).await.unwrap();

    let mut heard = Vec::new();
    while heard.len() < 2 {
        if let ClientEvent::Frame { bytes, .. } = timeout(PATIENCE, at_server.recv()).await.unwrap().unwrap() {
            heard.push(from_frame::<ClientMessage>(&bytes).unwrap());
        }
    }
    let of_client = |key: PublicKey| key == client.public_key();
    assert!(matches!(heard[0], ClientMessage::Attach { client, .. } if of_client(client)), "{heard:?}");
    let ClientMessage::Request(request) = &heard[1] else { panic!("{heard:?}") };
    assert!(request.claimed_id().is_some_and(|id| of_client(id.client)));
    commands.send(Command::Close).await.unwrap();
    timeout(PATIENCE, task).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_served_while_any_one_replica_is_away_and_the_status_names_it() {
    let mut cluster = TestCluster::start().await;
    let (connection, store) = cluster.store().await;
    store.put(b"k", b"0").await.unwrap();
    for away in 0..4_u8 {
        cluster.stop_replica(away.into()).await;
        store.put(b"k", &[away]).await.unwrap();
        let reachability = connection.reachability().await;
        assert!(!reachability.replicas[usize::from(away)].is_reached, "{reachability}");
        let silent = connection.status(ReplicaId::new(away), Duration::from_millis(200)).await;
        assert!(matches!(silent, Err(ClientError::TimedOut { .. })), "{silent:?}");
        cluster.start_replica(away.into()).await;
        let account = connection.status(ReplicaId::new(away), PATIENCE).await.unwrap();
        assert_eq!(account.links.len(), 3);
    }
    assert_eq!(store.get(b"k").await.unwrap().value, Some(Blob::from(&[3][..])));
    connection.close().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_proves_what_a_key_held_at_a_checkpoint() {
    let cluster = TestCluster::start().await;
    let (connection, store) = cluster.store().await;
    store.put(b"k", b"v").await.unwrap();
    for _ in 0..2 * CHECKPOINT_INTERVAL {
        store.put(b"other", b"x").await.unwrap();
    }
    let proved = connection.get_proved(b"k", Sequence::new(CHECKPOINT_INTERVAL), PATIENCE).await.unwrap();
    assert_eq!(text(proved.value), Some("v".to_owned()));
    assert!(proved.sequence >= Sequence::new(CHECKPOINT_INTERVAL));
    assert_eq!(connection.get_proved(b"none", Sequence::ZERO, PATIENCE).await.unwrap().value, None);
    let future = connection.get_proved(b"k", Sequence::new(1_000_000), PATIENCE).await;
    assert!(matches!(future, Err(ClientError::NoProof { failures }) if failures.len() == 4));
    connection.close().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_listens_the_addresses_are_named() {
    let cluster = TestCluster::found();
    let (connection, key) = cluster.connect().await;
    let session = connection.client(key).await.unwrap();
    let operation = Operation::get(b"k").encode().unwrap();
    let error = session.submit_within(vec![operation], Duration::from_millis(100)).await.unwrap_err();
    let address = &cluster.network.genesis().configuration().members()[2].client_address;
    assert!(matches!(error, ClientError::Unreachable(_)));
    assert!(error.to_string().contains(address), "{error}");
    assert!(matches!(
        session.submit_within(vec![], Duration::from_secs(5)).await,
        Err(ClientError::Session(SessionError::NoOperations))
    ));
    connection.close().await;
    assert!(matches!(session.submit(vec![Blob::EMPTY]).await, Err(ClientError::Closed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_has_as_many_submissions_as_it_takes_makes_the_next_one_wait() {
    let cluster = TestCluster::found();
    let (connection, key) = cluster.connect().await;
    let session = connection.client(key).await.unwrap();
    let (submit_to, _completions) = completions();
    let operations = || vec![Operation::get(b"k").encode().unwrap()];
    for tag in 0..PENDING_MAX as u64 {
        timeout(PATIENCE, session.submit_tagged(tag, operations(), &submit_to)).await.unwrap().unwrap();
    }
    let further = timeout(Duration::from_millis(50), session.submit_tagged(0, operations(), &submit_to)).await;
    assert!(further.is_err(), "there is no room");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_takes_no_more_keys_than_a_replica_does() {
    let cluster = TestCluster::found();
    let (connection, key) = cluster.connect().await;
    for index in 1..super::CLIENTS_MAX as u64 {
        connection.client(derive_key(&key, "test", index)).await.unwrap();
    }
    let further = connection.client(derive_key(&key, "test", 0)).await;
    assert!(matches!(further, Err(ClientError::TooManyClients)));
    assert!(connection.client(derive_key(&key, "test", 1)).await.is_ok(), "it has a session already");
    assert!(connection.client(key).await.is_ok(), "the connection's own key has its place");
}
