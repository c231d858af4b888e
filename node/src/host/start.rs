//! Starting a replica: folder, log, state, sockets, threads; and its orderly end.

use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use quorate_protocol::Now;
use quorate_protocol::application::{Application, restore};
use quorate_protocol::configuration::{ClientPolicy, Configuration};
use quorate_protocol::input::TransferLimits;
use quorate_protocol::message::Entry;
use quorate_protocol::number::{RecordNumber, Sequence};
use quorate_protocol::record::Recovered;
use quorate_protocol::replica::{DurableCheckpoint, Replica, Start, StartError};
use quorate_protocol::state::{DEPTH, Index};
use tokio::sync::mpsc;

use super::backlog::Backlog;
use super::chase::Chase;
use super::clients::Clients;
use super::conduct::Conduct;
use super::damage::advise;
use super::evidence::EvidenceFolder;
use super::executor::Executor;
use super::inbox::Inbox;
use super::keeper::{Keeper, Replacing};
use super::lending::Pace;
use super::others::{Doors, Others};
use super::report::{Counters, LastReport};
use super::scrub::{Current, Scrub};
use super::subject::{self, MakeSubject};
use super::verification::{Pool, Zip215};
use super::{Clock, Event, Host, Sources, priority};
use crate::client::local;
use crate::configuration::{EVIDENCE, LOG, ReplicaConfiguration, Role, STATE};
use crate::error::Problem;
use crate::recording::{self, Recorder, recorder};
use crate::storage::checkpoint::{CheckpointStore, Map};
use crate::storage::lock::FolderLock;
use crate::storage::log::{self, Identity, Log};
use crate::transport::{
    AcceptedKeys, ClientEvent, ClientLimits, ClientServer, ClientServerOptions, Member, PeerEvent, PeerNetwork,
    PeerOptions, ReplicaLinkLimits, ReplicaLinks, ReplicaLinksOptions, preferred,
};

/// Events of peers that wait for the host.
pub(super) const PEER_EVENTS_MAX: usize = 16_384;

/// Events of clients that wait for the host.
const CLIENT_EVENTS_MAX: usize = 65_536;

/// Makes an application without any state: once at the start, and for each transferred state.
pub type Build = Arc<dyn Fn() -> Box<dyn Application + Send> + Send + Sync>;

/// What a replica is started with.
pub struct ReplicaOptions {
    /// The files of its folder, read and checked.
    pub configuration: ReplicaConfiguration,
    /// Makes the application.
    pub build: Build,
}

impl std::fmt::Debug for ReplicaOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ReplicaOptions").field("configuration", &self.configuration).finish_non_exhaustive()
    }
}

/// What was durable, read back.
struct Opened {
    log: Log,
    events: mpsc::UnboundedSender<Event>,
    own: mpsc::UnboundedReceiver<Event>,
    store: CheckpointStore,
    application: Box<dyn Application + Send>,
    index: Index,
    checkpoint: Option<DurableCheckpoint>,
    records: Vec<(RecordNumber, Recovered)>,
    first_record: RecordNumber,
    /// Votes in the log were damaged: it was set aside, and another one begun.
    is_damaged: bool,
}

/// Runs a replica until `stop` ends. `ready` is called once its state is recovered and its sockets are bound.
///
/// # Errors
/// What keeps it from starting, or from going on: each with the path and what was being done.
pub async fn run(options: ReplicaOptions, stop: impl Future<Output = ()>, ready: impl FnOnce()) -> anyhow::Result<()> {
    let make = subject::replica(options.configuration.role);
    run_with(options, make, stop, ready).await
}

/// The same with whatever `make` makes in the replica's place.
pub(crate) async fn run_with(
    options: ReplicaOptions,
    make: MakeSubject,
    stop: impl Future<Output = ()>,
    ready: impl FnOnce(),
) -> anyhow::Result<()> {
    let ReplicaOptions { configuration, build } = options;
    let data = &configuration.data;
    make_durably(data).with_context(|| format!("making {}", data.display()))?;
    let lock = FolderLock::acquire(data)?;
    let configuration = Arc::new(configuration);
    let opened = {
        let (configuration, build) = (Arc::clone(&configuration), Arc::clone(&build));
        tokio::task::spawn_blocking(move || open(&configuration, &build)).await??
    };
    let (host, sources) = assemble(&configuration, Makers { build, make }, opened)?;
    ready();
    let host = host.serve(sources, stop).await?;
    host.end().await?;
    drop(lock);
    Ok(())
}

/// Makes a folder, and its name durable: a log that power takes away with it would be lost votes.
fn make_durably(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    fs::File::open(parent)?.sync_all()
}

/// Reads back what was durable. Blocks.
fn open(configuration: &ReplicaConfiguration, build: &Build) -> anyhow::Result<Opened> {
    let folder = state_folder(configuration);
    let (store, index, application, checkpoint) = open_state(&folder, build).map_err(|error| advise(error, &folder))?;
    let (ReadLog { log, records, recovery, events, own }, is_damaged) = open_log(configuration)?;
    let first_record = RecordNumber::new(recovery.next.unwrap_or(1));
    let sequence = checkpoint.as_ref().map(|checkpoint| checkpoint.sequence.value());
    tracing::info!(records = records.len(), checkpoint = sequence, "recovered");
    Ok(Opened { log, events, own, store, application, index, checkpoint, records, first_record, is_damaged })
}

/// The store's own threads inherit the priority of the one that opens it.
fn open_store(folder: &Path) -> anyhow::Result<CheckpointStore> {
    let opened = std::thread::scope(|scope| {
        let opening = scope.spawn(|| {
            priority::give_way(priority::BACKGROUND);
            CheckpointStore::open(folder)
        });
        opening.join()
    });
    let Ok(opened) = opened else { bail!("the thread that opens it panicked") };
    Ok(opened?)
}

fn state_folder(configuration: &ReplicaConfiguration) -> PathBuf {
    configuration.data.join(STATE)
}

type OpenedState = (CheckpointStore, Index, Box<dyn Application + Send>, Option<DurableCheckpoint>);

fn open_state(folder: &Path, build: &Build) -> anyhow::Result<OpenedState> {
    let store = open_store(folder).with_context(|| format!("opening the state in {}", folder.display()))?;
    let mut application = build();
    let loaded = load(&store, &mut *application).with_context(|| format!("reading {}", folder.display()))?;
    let (index, checkpoint) = loaded.map_or((Index::new(DEPTH), None), |(index, found)| (index, Some(found)));
    Ok((store, index, application, checkpoint))
}

/// A log that was read back, and the host's own events. What a log says goes into a channel of its own, which becomes the
/// host's: nothing is heard any more of one that was set aside.
struct ReadLog {
    log: Log,
    records: Vec<(RecordNumber, Recovered)>,
    recovery: log::Recovery,
    events: mpsc::UnboundedSender<Event>,
    own: mpsc::UnboundedReceiver<Event>,
}

/// Opens the log. One whose votes are damaged is set aside, and another one begun: this replica will say nothing that they
/// could contradict. (PROTOCOL §9) Says whether that was so.
fn open_log(configuration: &ReplicaConfiguration) -> anyhow::Result<(ReadLog, bool)> {
    let folder = configuration.data.join(LOG);
    let read = read_log(configuration, &folder)?;
    let recovery = &read.recovery;
    // A hole in the last write was never reported durable, so nothing was said that rests on it.
    let lost: Vec<_> = recovery.missing.iter().filter(|missing| missing.was_durable).collect();
    if !lost.is_empty() {
        read.log.close().ok();
        let aside = set_aside(&folder).with_context(|| format!("setting {} aside", folder.display()))?;
        tracing::error!(?lost, aside = %aside.display(), "records of the log are lost, and votes with them");
        return Ok((read_log(configuration, &folder)?, true));
    }
    if recovery.damaged_bodies > 0 || recovery.repaired_heads > 0 {
        let (bodies, heads) = (recovery.damaged_bodies, recovery.repaired_heads);
        tracing::warn!(
            bodies,
            heads,
            "the log is damaged: votes were read from their second copy, batches are fetched"
        );
    }
    Ok((read, false))
}

fn read_log(configuration: &ReplicaConfiguration, folder: &Path) -> anyhow::Result<ReadLog> {
    let protocol = configuration.genesis.configuration();
    let mut options = log::Options::new(folder.to_owned(), identity(configuration));
    options.segment_bytes = configuration.resources.log_segment_bytes.bytes();
    options.disk_bytes_max = configuration.resources.disk_bytes_max.bytes();
    let mut records = Vec::new();
    let mut unknown = None;
    let mut on_record = |found: log::Recovered| match Recovered::decode(&found.head, found.body.as_ref(), protocol) {
        Ok(record) => records.push((RecordNumber::new(found.number), record)),
        Err(error) => unknown = unknown.take().or(Some((found.number, error))),
    };
    let (events, own) = mpsc::unbounded_channel();
    let of_log = events.clone();
    let on_event = Box::new(move |event| {
        of_log.send(Event::Log(event)).ok();
    });
    let (log, recovery) = Log::open(&options, &mut on_record, on_event)?;
    if let Some((number, error)) = unknown {
        bail!("{}: record {number} is none of this version: {error}", folder.display());
    }
    Ok(ReadLog { log, records, recovery, events, own })
}

/// Whose log and recordings they are.
pub(crate) fn identity(files: &ReplicaConfiguration) -> Identity {
    let cluster = *files.genesis.configuration().cluster().digest().as_bytes();
    Identity { cluster, replica: files.id.value().into() }
}

/// Moves a folder to a name beside it that is not taken.
fn set_aside(folder: &Path) -> io::Result<PathBuf> {
    let parent = folder.parent().unwrap_or_else(|| Path::new("."));
    let names = (0_u32..).map(|number| parent.join(format!("{LOG}.damaged-{number}")));
    let mut free = names.filter(|path| !path.exists());
    let aside = free.next().ok_or(io::ErrorKind::AlreadyExists)?;
    fs::rename(folder, &aside)?;
    fs::File::open(parent)?.sync_all()?;
    Ok(aside)
}

/// Rebuilds the application and the protocol's entries from the store.
fn load(
    store: &CheckpointStore,
    application: &mut (dyn Application + Send),
) -> anyhow::Result<Option<(Index, DurableCheckpoint)>> {
    let Some(latest) = store.latest() else { return Ok(None) };
    let snapshot = store.snapshot()?;
    let mut failed = None;
    let restored = {
        let mut entries = snapshot.entries(Map::Application, None).map_while(|entry| match entry {
            Ok((key, value)) => Some(Entry { key: key.into(), value: value.into() }),
            Err(error) => {
                failed = Some(error);
                None
            }
        });
        restore(application, DEPTH, &mut entries)
    };
    if let Some(error) = failed {
        return Err(error.into());
    }
    let (index, application_root) = restored?;
    let protocol = snapshot
        .entries(Map::Protocol, None)
        .map(|entry| entry.map(|(key, value)| Entry { key: key.into(), value: value.into() }))
        .collect::<Result<_, _>>()?;
    let sequence = Sequence::new(latest.sequence);
    Ok(Some((index, DurableCheckpoint { sequence, application_root, protocol })))
}

/// What makes an application, and what makes a machine.
struct Makers {
    build: Build,
    make: MakeSubject,
}

/// Puts the parts together.
fn assemble(
    files: &ReplicaConfiguration,
    Makers { build, make }: Makers,
    opened: Opened,
) -> anyhow::Result<(Host, Sources)> {
    let Opened { log, events, own, store, application, index, checkpoint, records, first_record, is_damaged } = opened;
    let configuration = Arc::new(files.genesis.configuration().clone());
    let (others, peer_events) = match files.role {
        Role::Voter => start_peers(files, &configuration)?,
        Role::Standby => start_doors(files, &configuration)?,
    };
    let (clients, client_events) = start_clients(files, &configuration)?;
    let limits = TransferLimits {
        unchecked_bytes_max: files.resources.state_bytes_max.bytes(),
        bytes_per_second: files.resources.transfer_bytes_per_second.bytes(),
    };
    let current = Current::default();
    let replacing = Replacing { current: Arc::clone(&current), build, limits };
    let keeper = Keeper::start(store, index, configuration.parameters().window, replacing, events.clone())?;
    let scrub = match files.resources.scrub_bytes_per_second.bytes() {
        0 => None,
        pace => Some(Scrub::start(current, log.reading(), pace, events.clone())?),
    };
    let base = checkpoint.as_ref().map_or(Sequence::ZERO, |checkpoint| checkpoint.sequence);
    let executor = Executor::start((application, base), keeper, events.clone())?;
    let threads = files.resources.threads().div_ceil(2);
    let mut pool = Pool::start(threads, &configuration, &events)?;
    let folder = files.data.join(EVIDENCE);
    let evidence = EvidenceFolder::open(folder.clone(), configuration.replicas())
        .with_context(|| format!("listing {}", folder.display()))?;
    let clock = Clock { start: Instant::now() };
    let start = Start {
        id: files.id,
        configuration: Arc::clone(&configuration),
        signer: Arc::new(files.key.clone()),
        checkpoint,
        records,
        first_record,
        is_damaged,
        token: getrandom::u64().context("drawing a number for this start")?,
    };
    let now = clock.now();
    let recorder = files.recording.is_on.then(|| record(files, &start, now)).flatten();
    let machine = make(start, now).map_err(|error| explain_start(error, files))?;
    // The log may have led it into a later epoch: what is said there is to be checked as of there.
    pool.follow(machine.replica().configuration());
    let host = Host {
        machine,
        clients: Clients::new(clients, *configuration.cluster()),
        clock,
        others,
        log,
        backlog: Backlog::default(),
        executor,
        pool,
        rule: Zip215::default(),
        inbox: Inbox::default(),
        conduct: Conduct::default(),
        chase: Chase::default(),
        counters: Counters::default(),
        last_report: LastReport::default(),
        evidence,
        recorder,
        pace: Pace::default(),
        scrub,
        events,
    };
    Ok((host, Sources { peers: peer_events, clients: client_events, own }))
}

/// Begins a recording. Without one the replica is as good: what is wrong is only said.
fn record(files: &ReplicaConfiguration, start: &Start, now: Now) -> Option<Recorder> {
    let folder = files.data.join(recording::FOLDER);
    let identity = identity(files);
    let bytes_max = files.recording.bytes_max.bytes();
    let role = match files.role {
        Role::Voter => recording::Role::Member,
        Role::Standby => recording::Role::Standby,
    };
    let options = recorder::Options { folder: folder.clone(), identity, bytes_max, role };
    let begun = Recorder::begin(&options, start, now);
    let folder = folder.display();
    begun.inspect_err(|error| tracing::warn!(%folder, %error, "cannot record: the replica goes on without")).ok()
}

/// Starts the core of a member, or of a standby.
pub(crate) fn start_machine(role: Role, start: Start, now: Now) -> Result<Replica, StartError> {
    match role {
        Role::Voter => Replica::start(start, now),
        Role::Standby => Replica::start_standby(start, now),
    }
}

/// A state without the protocol's own part is a damaged one.
fn explain_start(error: anyhow::Error, files: &ReplicaConfiguration) -> anyhow::Error {
    let folder = state_folder(files);
    match error.downcast_ref() {
        Some(StartError::InitialState) => {
            let what = format!("{}: {error}", folder.display());
            let mend = "move the folder away and keep the log: the replica takes the state from the others";
            Problem::failed(what, mend).into()
        }
        Some(StartError::Checkpoint(_)) => advise(error.context(format!("reading {}", folder.display())), &folder),
        _ => error,
    }
}

fn start_peers(
    files: &ReplicaConfiguration,
    configuration: &Configuration,
) -> anyhow::Result<(Others, mpsc::Receiver<PeerEvent>)> {
    let (events, received) = mpsc::channel(PEER_EVENTS_MAX);
    let cluster = *configuration.cluster().digest().as_bytes();
    let members = configuration.replicas().zip(configuration.members());
    let members =
        members.map(|(id, member)| Member { id, key: member.key, address: member.peer_address.clone() }).collect();
    let listen = resolve(&files.listen_peer, "listen.peer")?;
    let mut options = PeerOptions::new(files.id, files.key.clone(), listen, members, cluster);
    options.mtu_upper_bound = files.resources.mtu_max;
    let network = PeerNetwork::start(options, events).with_context(|| format!("listening for replicas on {listen}"))?;
    Ok((Others::Members(network), received))
}

/// A standby dials all members but the one that it stands by, where they listen for clients.
fn start_doors(
    files: &ReplicaConfiguration,
    configuration: &Configuration,
) -> anyhow::Result<(Others, mpsc::Receiver<PeerEvent>)> {
    let (events, received) = mpsc::channel(PEER_EVENTS_MAX);
    let cluster = *configuration.cluster().digest().as_bytes();
    let members = configuration.replicas().zip(configuration.members()).filter(|(id, _)| *id != files.id);
    let members =
        members.map(|(id, member)| Member { id, key: member.key, address: member.client_address.clone() }).collect();
    let parameters = configuration.parameters();
    let limits = ReplicaLinkLimits::for_requests(parameters.request_bytes_max).with_batches(parameters.batch_bytes_max);
    // Names are looked up again whenever a member is dialled: here they only say of which family the addresses are.
    let found: Vec<SocketAddr> = configuration
        .members()
        .iter()
        .filter_map(|member| member.client_address.to_socket_addrs().and_then(preferred).ok())
        .collect();
    let mut options = ReplicaLinksOptions::new(files.key.clone(), local(&found), members, cluster, limits);
    options.mtu_upper_bound = files.resources.mtu_max;
    let (own_events, own) = mpsc::channel(PEER_EVENTS_MAX);
    let links = ReplicaLinks::start(options, own_events).context("dialling the members of the cluster")?;
    Ok((Others::Doors(Doors::new(links, own, events, files.every)), received))
}

fn start_clients(
    files: &ReplicaConfiguration,
    configuration: &Configuration,
) -> anyhow::Result<(ClientServer, mpsc::Receiver<ClientEvent>)> {
    let (events, received) = mpsc::channel(CLIENT_EVENTS_MAX);
    let cluster = *configuration.cluster().digest().as_bytes();
    let listen = resolve(&files.listen_client, "listen.client")?;
    let parameters = configuration.parameters();
    let limits = ClientLimits::for_requests(parameters.request_bytes_max).with_batches(parameters.batch_bytes_max);
    let mut options = ClientServerOptions::new(files.key.clone(), listen, cluster, limits);
    if let ClientPolicy::Listed(keys) = &configuration.parameters().clients {
        options.accepted = AcceptedKeys::Listed(keys.iter().copied().collect());
    }
    options.mtu_upper_bound = files.resources.mtu_max;
    let server = ClientServer::start(options, events).with_context(|| format!("listening for clients on {listen}"))?;
    Ok((server, received))
}

/// Where to listen. Whoever dials looks the members' names up when it does; of a replica's own it has to be known now.
fn resolve(address: &str, key: &str) -> anyhow::Result<SocketAddr> {
    let found = address.to_socket_addrs().and_then(preferred);
    found.map_err(|error| {
        let what = format!("cannot look up {address}, where this replica is to listen: {error}");
        let mend = format!("set `{key}` in replica.toml to an address of this machine, for example \"0.0.0.0:4100\"");
        Problem::failed(what, mend).into()
    })
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use bytes::Bytes;
    use quorate_crypto::SigningKey;
    use quorate_protocol::codec::List;
    use quorate_protocol::configuration::Parameters;
    use quorate_protocol::kv::Store;
    use tempfile::TempDir;
    use tokio::time::timeout;

    use super::*;
    use crate::configuration::network::{Network, Plan};
    use crate::error::Report;
    use crate::storage::checkpoint::Change;
    use crate::transport::{ConnectionRefusal, ReplicaLinkLimits, ReplicaLinks, ReplicaLinksOptions};

    /// Longest wait for anything.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// What replica 0 says of the state that `damage` leaves behind. Without that state, it starts.
    async fn refused(damage: impl FnOnce(&Path)) -> Report {
        let root = tempfile::tempdir().unwrap();
        let net = root.path().join("net");
        Network::create(&net, Plan::on_loopback(4, 4100)).unwrap();
        let folder = net.join("replica-0/data/state");
        damage(&folder);
        let report = Report::new(&start(&root).await.unwrap_err());
        assert!(report.error.contains(&folder.display().to_string()), "{report}");
        fs::rename(&folder, root.path().join("away")).unwrap();
        start(&root).await.unwrap();
        report
    }

    /// Runs replica 0 until it is ready.
    async fn start(root: &TempDir) -> anyhow::Result<()> {
        let mut configuration = ReplicaConfiguration::load(&root.path().join("net/replica-0")).unwrap();
        "127.0.0.1:0".clone_into(&mut configuration.listen_peer);
        "127.0.0.1:0".clone_into(&mut configuration.listen_client);
        let options = ReplicaOptions { configuration, build: Arc::new(|| Box::new(Store::default())) };
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let stop = async {
            match is_ready.await {
                Ok(()) => (),
                Err(_) => pending().await,
            }
        };
        run(options, stop, || ready.send(()).unwrap()).await
    }

    fn write(folder: &Path, application: Vec<Change>, protocol: Vec<Change>) {
        CheckpointStore::open(folder).unwrap().apply(128, &[], application, protocol).unwrap();
    }

    fn assert_advises_to_move_the_state(report: &Report) {
        let mend = report.mend.as_deref().unwrap_or_default();
        assert!(mend.starts_with("move ") && mend.contains("data/state away, keep the log"), "{report}");
    }

    #[test]
    fn a_replica_that_does_not_know_where_to_listen_says_what_to_mend() {
        let listens = resolve("localhost:4100", "listen.peer").unwrap();
        assert!(listens.is_ipv4(), "whoever dials that name prefers IPv4, too: {listens}");
        let report = Report::new(&resolve("nowhere.invalid:4100", "listen.peer").unwrap_err());
        assert!(report.error.contains("nowhere.invalid:4100"), "{report}");
        assert!(report.mend.is_some_and(|mend| mend.contains("set `listen.peer` in replica.toml")));
    }

    #[tokio::test]
    async fn a_state_of_rotten_files_is_to_be_moved_away() {
        let report = refused(|folder| {
            write(folder, vec![(Bytes::from_static(b"key"), Some(Bytes::from_static(b"value")))], vec![]);
            let paths = fs::read_dir(folder.join("state-0000000000000001")).unwrap().map(|entry| entry.unwrap().path());
            paths.filter(|path| path.is_file()).for_each(|path| fs::write(path, [0xA5; 64]).unwrap());
        });
        assert_advises_to_move_the_state(&report.await);
    }

    #[tokio::test]
    async fn entries_that_are_no_state_are_to_be_moved_away() {
        let long = Bytes::from(vec![7; 2_000]);
        let report = refused(|folder| write(folder, vec![(long, Some(Bytes::new()))], vec![])).await;
        assert!(report.error.contains("entry 0 is not one of this application's"), "{report}");
        assert_advises_to_move_the_state(&report);
    }

    #[tokio::test]
    async fn a_state_without_the_protocols_own_part_is_to_be_moved_away() {
        let report = refused(|folder| write(folder, vec![], vec![])).await;
        assert!(report.error.contains("does not hold a state of the protocol"), "{report}");
        assert_advises_to_move_the_state(&report);
    }

    /// The links of a client with that key to a replica.
    fn dial(key: &SigningKey, member: Member, cluster: [u8; 32]) -> ReplicaLinks {
        let local = "127.0.0.1:0".parse().unwrap();
        let limits = ReplicaLinkLimits::for_requests(1 << 10);
        let options = ReplicaLinksOptions::new(key.clone(), local, vec![member], cluster, limits);
        ReplicaLinks::start(options, mpsc::channel(1024).0).unwrap()
    }

    #[tokio::test]
    async fn where_clients_are_listed_nobody_else_is_connected() {
        let root = tempfile::tempdir().unwrap();
        let [listed, other] = [1, 2].map(|seed| SigningKey::from_seed([seed; 32]));
        let clients = ClientPolicy::Listed(List::new(vec![listed.public_key()]).unwrap());
        let parameters = Parameters { clients, ..Parameters::default() };
        let plan = Plan { parameters, ..Plan::on_loopback(4, 4100) };
        let mut files = Network::create(&root.path().join("net"), plan).unwrap().replicas().unwrap().remove(0);
        "127.0.0.1:0".clone_into(&mut files.listen_client);
        let configuration = files.genesis.configuration();
        let (server, mut events) = start_clients(&files, configuration).unwrap();
        let address = server.listen_addr().unwrap().to_string();
        let member = Member { id: files.id, key: files.key.public_key(), address };
        let cluster = *configuration.cluster().digest().as_bytes();
        let connections = timeout(PATIENCE, async {
            let _refused = dial(&other, member.clone(), cluster);
            while server.refused(ConnectionRefusal::UnknownKey) == 0 {
                tokio::task::yield_now().await;
            }
            let _accepted = dial(&listed, member, cluster);
            events.recv().await
        });
        let connected = connections.await.unwrap();
        let is_listed = matches!(&connected, Some(ClientEvent::Connected { key, .. }) if *key == listed.public_key());
        assert!(is_listed, "{connected:?}");
    }
}
