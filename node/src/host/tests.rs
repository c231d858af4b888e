//! The host against peers that lie in a state transfer, or send what counts for nothing, over real sockets.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quorate_protocol::certificate::StableCertificate;
use quorate_protocol::codec::{Blob, List};
use quorate_protocol::kv::Store;
use quorate_protocol::message::{Content, ENTRY_KEY_BYTES_MAX, Entry, Fetch, Part, Status, Want, to_frame};
use quorate_protocol::number::{Epoch, View};
use quorate_protocol::state::{DEPTH, crown_level};
use quorate_protocol::statement::{Checkpoint, Vote};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;
use crate::configuration::network::{Addresses, Network, Plan};
use crate::configuration::{ReplicaConfiguration, Size};
use crate::transport::{ConnectionId, HOST_CODE_FIRST, Lane, LinkError, Member, PeerLimits, PeerNetwork, PeerOptions};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_mins(1);

/// The replica that is lied to.
const HOST: ReplicaId = ReplicaId::new(0);

/// The slot whose state the others are said to hold.
const STABLE: Sequence = Sequence::new(128);

/// What a transferred state may take before it is checked.
const STATE_BYTES_MAX: u64 = 1 << 20;

/// Bytes of the values in a part.
const VALUE_BYTES: usize = 64 << 10;

/// More parts than the replica has room for.
const PARTS_MAX: u32 = 64;

/// Says what a part holds.
type Lie = fn(&Want) -> Content;

/// What a source was asked for: how many parts in a row.
type Asked = (ReplicaId, u32);

/// Four replicas at addresses that nobody else has.
fn plan() -> Plan {
    static PLANS: AtomicU8 = AtomicU8::new(1);
    let octet = |number: u32| u8::try_from(number % 250).unwrap() + 1;
    let (process, plan) = (std::process::id(), PLANS.fetch_add(1, Ordering::Relaxed));
    let host = Ipv4Addr::new(127, octet(process / 250), octet(process), plan);
    let address = |port: u16| SocketAddr::new(host.into(), 23_000 + port).to_string();
    let of = |index| Addresses { peer: address(index), client: address(10 + index), admin: address(20 + index) };
    Plan { addresses: (0..4).map(of).collect(), ..Plan::on_loopback(4, 4100) }
}

/// A certificate of what never was: all keys are the test's.
fn certificate(replicas: &[ReplicaConfiguration]) -> StableCertificate {
    let statement = Checkpoint { epoch: Epoch::ZERO, sequence: STABLE, root: Digest::from_bytes([7; 32]) };
    let cluster = replicas[0].genesis.configuration().cluster();
    let votes: Vec<_> =
        replicas.iter().map(|replica| Vote::sign(statement, replica.id, cluster, &replica.key)).collect();
    StableCertificate::collect(statement, votes[1..].iter(), 3).unwrap()
}

fn status() -> Status {
    Status {
        suspects: false,
        epoch: Epoch::ZERO,
        view: View::ZERO,
        entered: true,
        stable: STABLE,
        executed: STABLE,
        decided_from: STABLE.saturating_add(1),
        view_changes: 0,
        checkpoint_votes: 0,
        slots: List::empty(),
    }
}

/// Starts the network of a replica that the test plays.
fn join(own: ReplicaConfiguration) -> (PeerNetwork, mpsc::Receiver<PeerEvent>) {
    let configuration = own.genesis.configuration();
    let members = configuration.replicas().zip(configuration.members());
    let member = |(id, member): (_, &quorate_protocol::configuration::Member)| Member {
        id,
        key: member.key,
        address: member.peer_address.parse().unwrap(),
    };
    let listen = own.listen_peer.parse().unwrap();
    let cluster = *configuration.cluster().digest().as_bytes();
    let options = PeerOptions::new(own.id, own.key, listen, members.map(member).collect(), cluster);
    let (sender, events) = mpsc::channel(BULK_MAX);
    (PeerNetwork::start(options, sender).unwrap(), events)
}

/// Plays a replica that is at [`STABLE`], and tells of every part that it is asked for.
async fn play(own: ReplicaConfiguration, stable: StableCertificate, lie: Lie, asked: mpsc::UnboundedSender<Asked>) {
    let id = own.id;
    let (network, mut events) = join(own);
    let send = |message| network.send(HOST, carry_out::lane(&message), to_frame(&message).unwrap()).unwrap();
    let mut parts = 0;
    while let Some(event) = events.recv().await {
        match event {
            PeerEvent::Up(HOST) => {
                send(Message::Status(status()));
                send(Message::Stable(stable.clone()));
            }
            PeerEvent::Frame { from: HOST, bytes, .. } => {
                let Ok(Message::Fetch(Fetch::Part { want, .. })) = from_frame(&bytes) else { continue };
                parts = if want == Want::Crown { 1 } else { parts + 1 };
                if asked.send((id, parts)).is_ok() {
                    let content = lie(&want);
                    send(Message::Part(Part { sequence: STABLE, want, content }));
                }
            }
            _ => {}
        }
    }
}

/// A replica that is behind asks peers that all tell the same lie. None is listened to for ever: another is asked.
async fn assert_replaces_a_source_that_says(lie: Lie) {
    let folder = tempfile::tempdir().unwrap();
    let mut replicas = Network::create(&folder.path().join("net"), plan()).unwrap().replicas().unwrap();
    let stable = certificate(&replicas);
    let mut own = replicas.remove(0);
    own.resources.state_bytes_max = Size::new(STATE_BYTES_MAX);
    let (sender, mut asked) = mpsc::unbounded_channel();
    let mut peers = JoinSet::new();
    for replica in replicas {
        peers.spawn(play(replica, stable.clone(), lie, sender.clone()));
    }
    let running = Running::start(own);
    let mut sources = BTreeSet::new();
    while sources.len() < 2 {
        let (source, parts) = timeout(PATIENCE, asked.recv()).await.expect("asked in time").expect("the peers play");
        assert!(parts <= PARTS_MAX, "replica {source} is listened to for ever");
        sources.insert(source);
    }
    running.end().await;
}

/// A replica that runs.
struct Running {
    stop: oneshot::Sender<()>,
    host: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Running {
    fn start(configuration: ReplicaConfiguration) -> Self {
        let (stop, stopped) = oneshot::channel();
        let options = ReplicaOptions { configuration, build: Arc::new(|| Box::new(Store::default())) };
        Self { stop, host: tokio::spawn(run(options, async { stopped.await.unwrap_or_default() }, || ())) }
    }

    async fn end(self) {
        drop(self.stop);
        self.host.await.unwrap().unwrap();
    }
}

/// A peer that sends nothing but `message` is disconnected, each time it comes back.
async fn assert_disconnects_who_sends(message: impl Fn(&ReplicaConfiguration) -> (Lane, Bytes)) {
    let folder = tempfile::tempdir().unwrap();
    let mut replicas = Network::create(&folder.path().join("net"), plan()).unwrap().replicas().unwrap();
    let (lane, frame) = message(&replicas[1]);
    let (network, mut events) = join(replicas.remove(1));
    let running = Running::start(replicas.remove(0));
    let mut reasons = Vec::new();
    let twice = async {
        while reasons.len() < 2 {
            match events.recv().await.expect("the network lives") {
                PeerEvent::Up(HOST) if reasons.is_empty() => {
                    (0..1_000).for_each(|_| network.send(HOST, lane, frame.clone()).unwrap_or_default());
                }
                PeerEvent::Down(HOST, reason) => reasons.push(reason),
                _ => {}
            }
        }
    };
    timeout(PATIENCE, twice).await.expect("disconnected in time");
    for reason in reasons {
        let code = u64::from(HOST_CODE_FIRST) + u64::from(CODE_CONDUCT);
        assert!(matches!(&reason, LinkError::ClosedByPeer { code: found, .. } if *found == code), "{reason}");
    }
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_keeps_sending_forged_votes_is_disconnected() {
    assert_disconnects_who_sends(|own| {
        let statement = Checkpoint { epoch: Epoch::ZERO, sequence: STABLE, root: Digest::ZERO };
        let mut vote = Vote::sign(statement, own.id, own.genesis.configuration().cluster(), &own.key);
        vote.statement.root = Digest::from_bytes([7; 32]);
        (Lane::Votes, to_frame(&Message::Checkpoint(vote)).unwrap())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_keeps_sending_what_is_no_message_is_disconnected() {
    assert_disconnects_who_sends(|_| (Lane::Bulk, Bytes::from_static(&[7]))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_keeps_taking_the_wrong_lane_is_disconnected() {
    assert_disconnects_who_sends(|_| (Lane::Bulk, to_frame(&Message::Status(status())).unwrap())).await;
}

/// A crown that may be the one, and what the protocol's own entries are said to be.
fn head(want: &Want, entries: Vec<Entry>) -> Content {
    match want {
        Want::Crown => Content::Crown(List::new(vec![Digest::ZERO; 1 << crown_level(DEPTH)]).unwrap()),
        _ => Content::Protocol { entries: List::new(entries).unwrap(), is_last: false },
    }
}

fn entry(key: u64) -> Entry {
    Entry { key: Blob::from(&key.to_be_bytes()[..]), value: vec![7; VALUE_BYTES].into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_with_ever_new_keys_is_replaced() {
    assert_replaces_a_source_that_says(|want| {
        let last = match want {
            Want::Protocol { after: Some(after) } => after.last_chunk().map_or(0, |key| u64::from_be_bytes(*key)),
            _ => 0,
        };
        head(want, vec![entry(last + 1)])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_says_the_same_again_and_again_is_replaced() {
    assert_replaces_a_source_that_says(|want| head(want, vec![entry(1), entry(2)])).await;
}

/// What follows such a key cannot be asked for: the question would be larger than a frame of its lane.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_with_a_key_too_long_to_go_on_after_is_replaced() {
    assert_replaces_a_source_that_says(|want| {
        head(want, vec![Entry { key: vec![7; 70 << 10].into(), value: Blob::EMPTY }])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_leads_nowhere_is_replaced() {
    assert_replaces_a_source_that_says(|want| head(want, vec![])).await;
}

#[test]
fn the_longest_question_for_a_part_fits_into_a_frame_of_its_lane() {
    let buckets = List::new((0..1024).collect()).unwrap();
    let want = Want::Buckets { group: u16::MAX, buckets, after: Some(vec![7; ENTRY_KEY_BYTES_MAX].into()) };
    let frame = to_frame(&Message::Fetch(Fetch::Part { sequence: STABLE, want })).unwrap();
    assert!(frame.len() <= PeerLimits::default().votes.frame_bytes_max as usize);
}

#[tokio::test]
async fn each_source_has_its_turn_though_others_are_never_empty() {
    let (of_peers, peers) = mpsc::channel(PEER_EVENTS_MAX);
    let (of_clients, clients) = mpsc::channel(BULK_MAX);
    let (of_own, own) = mpsc::unbounded_channel();
    let mut sources = Sources { peers, clients, own };
    for sequence in (0..10 * BULK_MAX as u64).map(Sequence::new) {
        of_own.send(Event::CheckpointDurable { sequence }).unwrap();
        of_peers.try_send(PeerEvent::Up(HOST)).unwrap();
    }
    of_clients.try_send(ClientEvent::Closed { connection: ConnectionId(1), reason: LinkError::Shutdown }).unwrap();
    let mut round = Round::default();
    sources.wait(&mut round, None).await;
    assert_eq!((round.own.len(), round.peers.len(), round.clients.len()), (BULK_MAX, 10 * BULK_MAX, 1));
}
