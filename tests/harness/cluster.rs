//! A cluster of real processes: founded by `quorate init` in a temporary folder, asked by `quorate status` and `quorate
//! kv`, killed, stopped and paused by signals, and gone when it is dropped.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Display;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use quorate_crypto::SigningKey;
use quorate_node::configuration::{Genesis, key_file};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::ports::Ports;
use crate::process::log_tail;
use crate::relay::Relay;
use crate::store::Store;
use crate::{
    Draw, Finished, Forgotten, LIMIT, Load, Passage, PowerDisk, ReplicaProcess, ReplicaStatus, Status, Turn, quorate,
    say, wait_until,
};

/// Longest that replicas may take to agree once all is well.
const CONVERGE_LIMIT: Duration = Duration::from_mins(1);

/// A cluster that is to be started.
#[derive(Debug)]
pub struct Builder {
    replicas: u8,
    parameters: Vec<String>,
    resources: Vec<(&'static str, String)>,
    is_relayed: bool,
    malicious: BTreeMap<u8, String>,
    is_recorded: bool,
    backup: Option<PathBuf>,
}

impl Builder {
    /// Changes a parameter of the genesis.
    #[must_use]
    pub fn parameter(mut self, name: &str, value: impl Display) -> Self {
        self.parameters.push(format!("{name}={value}"));
        self
    }

    /// Changes a line of `[resources]` in every `replica.toml`; texts with their quotes.
    #[must_use]
    pub fn resource(mut self, name: &'static str, value: &str) -> Self {
        self.resources.push((name, value.to_owned()));
        self
    }

    /// Puts a relay between the replicas, so that the network between them can be cut. Clients reach them directly.
    #[must_use]
    pub fn relayed(mut self) -> Self {
        self.is_relayed = true;
        self
    }

    /// Has replica `id` started as an attacker that plays `strategy`, in league with all others that are.
    #[must_use]
    pub fn malicious(mut self, id: u8, strategy: &str) -> Self {
        self.malicious.insert(id, strategy.to_owned());
        self
    }

    /// Has every replica record what it signs, in `signed.jsonl` in its folder.
    #[must_use]
    pub fn recorded(mut self) -> Self {
        self.is_recorded = true;
        self
    }

    /// Has it begin with the state of a backup.
    #[must_use]
    pub fn from_backup(mut self, file: &Path) -> Self {
        self.backup = Some(file.to_owned());
        self
    }

    /// Founds the cluster and starts no replica.
    ///
    /// # Panics
    /// If that fails.
    pub fn found(self) -> Cluster {
        let turn = Turn::take();
        let root = tempfile::Builder::new().prefix("quorate-test-").tempdir().expect("there is a temporary folder");
        let ports = Ports::take(self.replicas);
        let (dir, replicas) = (root.path().join("net"), self.replicas.to_string());
        let base = ports.base().to_string();
        let mut arguments = vec!["init", "--replicas", &replicas, "--base-port", &base];
        arguments.extend(self.parameters.iter().flat_map(|parameter| ["--parameter", parameter]));
        let backup = self.backup.iter().flat_map(|file| [OsStr::new("--from-backup"), file.as_os_str()]);
        let arguments =
            arguments.into_iter().map(OsStr::new).chain([OsStr::new("--dir"), dir.as_os_str()]).chain(backup);
        let founded = quorate(arguments);
        assert_eq!(founded.status, Some(0), "{founded:?}");
        let relay = self.is_relayed.then(|| Relay::start(&ports, self.replicas));
        let processes = (0..self.replicas).map(|_| None).collect();
        let cluster = Cluster {
            processes,
            options: self.options(root.path()),
            relay,
            disks: Vec::new(),
            ports,
            root,
            _turn: turn,
        };
        cluster.ids().for_each(|id| self.configure(&cluster, id));
        cluster
    }

    /// Founds the cluster, with a disk of its own below the data of each replica, on which power fails when the test has it
    /// fail. `None` where this machine does not mount such.
    ///
    /// # Panics
    /// If founding it fails.
    pub fn found_on_power_disks(self) -> Option<Cluster> {
        let mut cluster = self.found();
        let disks = cluster.ids().map(|id| PowerDisk::mount(&cluster.replica_folder(id).join("data")));
        cluster.disks = disks.collect::<Option<_>>()?;
        Some(cluster)
    }

    /// Founds the cluster, starts all replicas and waits until they are ready, can order something, and all vote.
    ///
    /// # Panics
    /// If that fails.
    pub fn start(self) -> Cluster {
        let mut cluster = self.found();
        cluster.start_all();
        cluster.wait_until_all_vote();
        cluster
    }

    /// The options of each replica, for a cluster in a folder.
    fn options(&self, root: &Path) -> Vec<Vec<String>> {
        let of = |id: u8| {
            let strategy = self.malicious.get(&id).map(|strategy| ["--malicious".to_owned(), strategy.clone()]);
            let others = self.malicious.keys().filter(|other| strategy.is_some() && **other != id);
            let accomplices = others.flat_map(|other| {
                let folder = root.join(format!("net/replica-{other}")).display().to_string();
                ["--accomplice".to_owned(), folder]
            });
            let accomplices: Vec<String> = accomplices.collect();
            let file = root.join(format!("net/replica-{id}/signed.jsonl")).display().to_string();
            let record = self.is_recorded.then(|| ["--record-signed".to_owned(), file]);
            [strategy, record].into_iter().flatten().flatten().chain(accomplices).collect()
        };
        (0..self.replicas).map(of).collect()
    }

    fn configure(&self, cluster: &Cluster, id: u8) {
        for (name, value) in &self.resources {
            cluster.set(id, name, value);
        }
        if self.is_relayed {
            let listen = format!("[listen]\npeer = \"127.0.0.1:{}\"", cluster.ports.behind_relay(id));
            cluster.edit(&cluster.replica_folder(id).join("replica.toml"), "[listen]", &listen);
        }
    }
}

/// A cluster whose replicas run as processes.
#[derive(Debug)]
pub struct Cluster {
    // In this order: processes end before their network and their files go.
    processes: Vec<Option<ReplicaProcess>>,
    relay: Option<Relay>,
    /// By replica, where there are any.
    disks: Vec<PowerDisk>,
    /// Options of each replica beside its folder.
    options: Vec<Vec<String>>,
    ports: Ports,
    root: TempDir,
    _turn: Turn,
}

impl Cluster {
    /// A cluster of `replicas`, with checkpoints closer together and logs smaller than a real one's.
    pub fn builder(replicas: u8) -> Builder {
        let resources =
            [("log_segment_bytes", "\"1MiB\""), ("disk_bytes_max", "\"1GiB\""), ("mtu_max", "6500"), ("threads", "1")];
        Builder {
            replicas,
            parameters: vec!["checkpoint_interval=16".to_owned(), "window=64".to_owned()],
            resources: resources.map(|(name, value)| (name, value.to_owned())).into(),
            is_relayed: false,
            malicious: BTreeMap::new(),
            is_recorded: false,
            backup: None,
        }
    }

    /// Such a cluster, started.
    pub fn start(replicas: u8) -> Self {
        Self::builder(replicas).start()
    }

    /// All replicas' numbers.
    pub fn ids(&self) -> impl Iterator<Item = u8> + use<> {
        (0..=u8::MAX).take(self.processes.len())
    }

    /// Starts every replica that does not run, all at once, and waits until they are ready and something was ordered.
    ///
    /// # Panics
    /// If one does not get ready, or nothing is ordered in time.
    pub fn start_all(&mut self) {
        let absent: Vec<u8> = self.ids().filter(|id| self.processes[usize::from(*id)].is_none()).collect();
        for id in &absent {
            self.launch(*id);
        }
        for id in absent {
            self.process(id).wait_ready();
        }
        self.wait_until_orders();
    }

    /// Waits until a write is acknowledged.
    ///
    /// # Panics
    /// If none is in time.
    pub fn wait_until_orders(&self) {
        let store = Store::open(&self.client_folder());
        wait_until("the cluster to order a write", LIMIT, || store.put("harness/orders", b"yes").is_ok());
    }

    /// Waits until every replica votes: a quorum orders without the last ones, which may still be asking the others.
    ///
    /// # Panics
    /// If one does not in time.
    pub fn wait_until_all_vote(&self) {
        wait_until("all replicas to vote", LIMIT, || {
            self.status().replicas.iter().all(|replica| replica.reachable && replica.waits_for.is_none())
        });
    }

    /// Starts replica `id` and does not wait for it.
    pub fn launch(&mut self, id: u8) {
        let folder = self.replica_folder(id);
        let options = &self.options[usize::from(id)];
        self.processes[usize::from(id)] = Some(ReplicaProcess::launch(&folder, options));
    }

    /// Starts replica `id` and waits until it is ready.
    pub fn restart(&mut self, id: u8) {
        self.launch(id);
        self.process(id).wait_ready();
    }

    /// Kills replica `id` as a crash would.
    pub fn kill(&mut self, id: u8) {
        self.process(id).kill();
        self.processes[usize::from(id)] = None;
    }

    /// The disk of replica `id`.
    ///
    /// # Panics
    /// If the cluster was founded without.
    pub fn disk(&self, id: u8) -> &PowerDisk {
        self.disks.get(usize::from(id)).expect("the test founded its cluster on such disks")
    }

    /// Power fails at some replicas, whose processes run or have just ended; what their disks forget follows from the seed.
    pub fn cut_power(&mut self, ids: &[u8], seed: u64) -> Forgotten {
        // First of all disks, so that it is one moment.
        for id in ids {
            self.disk(*id).cut();
        }
        let mut draw = Draw::of(seed);
        let mut forgotten = Forgotten::default();
        for id in ids {
            // What waits for the disk ends when the disk lets go of it, so it is not waited for before.
            if self.is_running(*id) {
                self.process(*id).signal(Signal::KILL);
            }
            forgotten += self.disk(*id).forget(draw.number());
            if self.processes[usize::from(*id)].is_some() {
                self.kill(*id);
            }
            self.disk(*id).switch_on();
        }
        forgotten
    }

    /// Asks replica `id` to stop, and waits until it has.
    ///
    /// # Panics
    /// If it ends with anything but success.
    pub fn stop(&mut self, id: u8) {
        self.process(id).signal(Signal::TERM);
        let status = self.process(id).wait();
        assert_eq!(status.code(), Some(0), "replica {id}: {}", self.process(id).log_tail());
        self.processes[usize::from(id)] = None;
    }

    /// Stops all replicas that run, in order of their numbers.
    pub fn stop_all(&mut self) {
        let running: Vec<u8> = self.ids().filter(|id| self.processes[usize::from(*id)].is_some()).collect();
        for id in running {
            self.stop(id);
        }
    }

    /// Stops the clock of replica `id`, so to speak: it does nothing at all until it is resumed.
    pub fn pause(&mut self, id: u8) {
        self.process(id).signal(Signal::STOP);
    }

    /// Lets a paused replica go on.
    pub fn resume(&mut self, id: u8) {
        self.process(id).signal(Signal::CONT);
    }

    /// Whether the process of replica `id` runs.
    pub fn is_running(&mut self, id: u8) -> bool {
        self.processes[usize::from(id)].as_mut().is_some_and(ReplicaProcess::is_running)
    }

    /// The process of replica `id`.
    ///
    /// # Panics
    /// If it was not started.
    pub fn process(&mut self, id: u8) -> &mut ReplicaProcess {
        self.processes[usize::from(id)].as_mut().expect("the test started this replica")
    }

    /// Tries to start replica `id`, which must refuse: gives its exit status and what it says.
    pub fn refused(&self, id: u8) -> Finished {
        let dir = self.replica_folder(id);
        quorate([OsStr::new("replica"), OsStr::new("--dir"), dir.as_os_str()])
    }

    /// Cuts all links of replica `id`, both ways.
    pub fn cut_off(&self, id: u8) {
        self.ids().filter(|other| *other != id).for_each(|other| self.cut(id, other));
    }

    /// Cuts the link between two replicas, both ways.
    pub fn cut(&self, one: u8, other: u8) {
        self.pass(one, other, Passage::Cut);
        self.pass(other, one, Passage::Cut);
    }

    /// Changes how datagrams pass from one replica to another.
    ///
    /// # Panics
    /// If the cluster was built without a relay.
    pub fn pass(&self, from: u8, to: u8, passage: Passage) {
        self.relay.as_ref().expect("the test built its cluster with a relay").pass(from, to, passage);
    }

    /// Lets all datagrams pass again.
    pub fn heal(&self) {
        for from in self.ids() {
            self.ids().filter(|to| *to != from).for_each(|to| self.pass(from, to, Passage::Open));
        }
    }

    /// What `quorate status` says.
    ///
    /// # Panics
    /// If it says no such thing.
    pub fn status(&self) -> Status {
        let client = self.client_folder();
        let said = quorate([OsStr::new("status"), OsStr::new("--json"), OsStr::new("--net"), client.as_os_str()]);
        serde_json::from_value(said.json()).expect("status prints the fields of its contract")
    }

    /// The row of one replica.
    pub fn status_of(&self, id: u8) -> ReplicaStatus {
        self.status().replicas.swap_remove(usize::from(id))
    }

    /// Runs `quorate attack` with `arguments` and the cluster's folder.
    pub fn attack(&self, arguments: &[&str]) -> Finished {
        let net = self.net();
        let arguments = ["attack"].into_iter().chain(arguments.iter().copied()).map(OsStr::new);
        quorate(arguments.chain([OsStr::new("--dir"), net.as_os_str()]))
    }

    /// Runs `quorate kv` with `arguments` and the client's folder.
    pub fn kv(&self, arguments: &[&str]) -> Finished {
        let client = self.client_folder();
        let arguments = ["kv"].into_iter().chain(arguments.iter().copied()).map(OsStr::new);
        quorate(arguments.chain([OsStr::new("--net"), client.as_os_str()]))
    }

    /// The cluster's store, by the client library.
    pub fn store(&self) -> Store {
        Store::open(&self.client_folder())
    }

    /// The cluster's genesis.
    ///
    /// # Panics
    /// If it is not valid.
    pub fn genesis(&self) -> Genesis {
        Genesis::load(&self.net().join("genesis.toml")).expect("init founded it")
    }

    /// The digest of the genesis, as hellos name it.
    pub fn id_bytes(&self) -> [u8; 32] {
        *self.genesis().cluster().digest().as_bytes()
    }

    /// Where the genesis says that replica `id` listens for other replicas.
    ///
    /// # Panics
    /// If that is no address.
    pub fn peer_address(&self, id: u8) -> SocketAddr {
        address(&self.genesis().configuration().members()[usize::from(id)].peer_address)
    }

    /// Where the genesis says that replica `id` listens for clients.
    ///
    /// # Panics
    /// If that is no address.
    pub fn client_address(&self, id: u8) -> SocketAddr {
        address(&self.genesis().configuration().members()[usize::from(id)].client_address)
    }

    /// Where a standby may listen.
    pub fn free_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.spare())
    }

    /// The cluster's folder.
    pub fn net(&self) -> PathBuf {
        self.root.path().join("net")
    }

    /// A folder of the test's own, gone with the cluster.
    pub fn scratch(&self) -> &Path {
        self.root.path()
    }

    /// The folder to connect with.
    pub fn client_folder(&self) -> PathBuf {
        self.net().join("client")
    }

    /// The private key of replica `id`.
    ///
    /// # Panics
    /// If it is not in the replica's folder.
    pub fn key_of(&self, id: u8) -> SigningKey {
        key_file::load(&self.replica_folder(id).join("replica.key")).expect("init wrote it")
    }

    /// The folder of replica `id`.
    pub fn replica_folder(&self, id: u8) -> PathBuf {
        self.net().join(format!("replica-{id}"))
    }

    /// Everything that replica `id` logged.
    pub fn log_of(&self, id: u8) -> String {
        fs::read_to_string(self.replica_folder(id).join("replica.log")).unwrap_or_default()
    }

    /// Replaces the first `from` in a file.
    ///
    /// # Panics
    /// If it is not there.
    pub fn edit(&self, path: &Path, from: &str, to: &str) {
        let text = fs::read_to_string(path).expect("the file is there");
        assert!(text.contains(from), "no `{from}` in {text}");
        fs::write(path, text.replacen(from, to, 1)).expect("the file can be written");
    }

    /// Sets a key in the `replica.toml` of replica `id`, whether it stands there as a comment or not.
    ///
    /// # Panics
    /// If it does not stand there at all.
    pub fn set(&self, id: u8, name: &str, value: &str) {
        let path = self.replica_folder(id).join("replica.toml");
        let text = fs::read_to_string(&path).expect("init wrote it");
        let is_it = |line: &&str| line.trim_start_matches("# ").starts_with(&format!("{name} = "));
        let line = text.lines().find(is_it).expect("the test names a key of replica.toml");
        fs::write(&path, text.replacen(line, &format!("{name} = {value}"), 1)).expect("the file can be written");
    }

    /// Waits until all replicas have executed the same and agree on their state.
    ///
    /// # Panics
    /// If they don't in time.
    pub fn assert_converged(&self) {
        let all: Vec<u8> = self.ids().collect();
        self.assert_converged_among(&all);
    }

    /// The same for some replicas. States are compared at checkpoints: writes are made until one covers all that was
    /// executed before.
    ///
    /// # Panics
    /// If they don't in time.
    pub fn assert_converged_among(&self, ids: &[u8]) {
        let store = self.store();
        let interval = self.genesis().configuration().parameters().checkpoint_interval;
        let mut target = None;
        let mut last = None;
        let converged = wait_for(CONVERGE_LIMIT, || {
            (0..interval).map_while(|_| store.put("harness/converge", b"again").ok()).for_each(drop);
            let status = self.status();
            let target = *target.get_or_insert_with(|| status.executed());
            let rows: Vec<&ReplicaStatus> = ids.iter().map(|id| &status.replicas[usize::from(*id)]).collect();
            let is_done = agree(&rows) && rows.iter().all(|row| row.stable >= target);
            last = Some(status);
            is_done
        });
        let last = last.expect("it was looked at once at least");
        assert!(converged, "no convergence at {target:?}:\n{last}");
    }

    /// Stops a load and sees what holds at the end of every story: the cluster goes on, no write failed, the replicas
    /// agree on their state, and all that was acknowledged is there.
    ///
    /// # Panics
    /// If one of these does not hold.
    pub fn assert_nothing_lost(&self, load: Load) {
        let all: Vec<u8> = self.ids().collect();
        self.assert_nothing_lost_among(load, &all);
    }

    /// The same where some replicas are correct, and the others' states are nobody's business.
    ///
    /// # Panics
    /// If one of these does not hold.
    pub fn assert_nothing_lost_among(&self, load: Load, correct: &[u8]) {
        load.wait_for(20);
        let written = load.stop();
        self.assert_converged_among(correct);
        assert_eq!(written.unknown(), []);
        written.assert_all_acknowledged_readable();
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("init writes numbers")
}

/// Whether replicas that answer are in their view and say the same of what they executed, and of the state at their
/// stable checkpoint. One that asks for a view in vain is not excused: the others have to fetch it. (PROTOCOL §6)
fn agree(rows: &[&ReplicaStatus]) -> bool {
    let Some(first) = rows.first() else { return true };
    let same = |row: &ReplicaStatus| (row.executed, row.stable, row.state_root.clone());
    let is_well = |row: &&ReplicaStatus| row.reachable && row.state_root.is_some() && row.mode == "normal";
    rows.iter().all(is_well) && rows.iter().all(|row| same(row) == same(first))
}

fn wait_for(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = std::time::Instant::now();
    while !holds() {
        if start.elapsed() > limit {
            return false;
        }
    }
    true
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A process that waits for one could not be ended.
        self.disks.iter().for_each(PowerDisk::switch_off);
        if thread::panicking() {
            for id in self.ids() {
                let tail = log_tail(&self.replica_folder(id).join("replica.log"));
                say(&format!("--- the log of replica {id} ends:\n{tail}"));
            }
        }
    }
}
