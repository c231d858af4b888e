//! `quorate testnet`: a whole cluster on this machine, each replica a process of its own, supervised until the end.
//!
//! Whatever happens on the way, the processes are stopped and waited for, and then the temporary folder is removed. If
//! this process itself is killed, the kernel ends the replicas.

mod company;
mod home;
mod ports;
mod replicas;

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, value_parser};
use quorate_protocol::number::ReplicaId;
use serde::Serialize;
use tokio::runtime;

use self::company::Company;
use self::home::Home;
use self::replicas::{Early, Launch, Replicas};
use super::signals::StopSignals;
use super::{Global, LogFormat, Output, bench, init};
use crate::bench as load;
use crate::configuration::network::{Network, Plan};
use crate::configuration::{ParameterChange, Resources, Size, parse_positive_duration};
use crate::error::{Exit, Problem};
#[cfg(feature = "lab")]
use crate::lab::strategy::Casting;

/// How often a cluster at new ports is tried: another program may take a free port before a replica does.
const ATTEMPTS_MAX: u32 = 4;

/// Run a whole cluster on this machine, until Ctrl-C
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate testnet --replicas 4
  quorate testnet --replicas 4 --bench 20s --json
  quorate testnet --malicious 0=equivocate --bench 20s

Every replica is a process of its own, on free ports of the loopback; its log is replica.log in its folder. A \
replica that ends is reported and not started again. Without --dir all files are temporary and removed at the end; \
with it they stay, and the next testnet of that folder goes on where this one ended. With --json one line is printed \
when all are ready, or with --bench one line with its report.")]
pub(super) struct Arguments {
    /// Replicas of the cluster, 4 to 31 [default: 4, or those of an existing folder]
    #[arg(long, value_name = "N", value_parser = value_parser!(u8).range(4..=31))]
    replicas: Option<u8>,
    /// A folder to keep the cluster in; an existing testnet's is started again as it is
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Drive load for this long, print the report and end
    #[arg(long, value_name = "DURATION", value_parser = parse_positive_duration)]
    bench: Option<Duration>,
    /// Make a replica an attacker, for tests: 0=NAME[@WHEN], several names by commas, 0=FILE.json, or 0=none until
    /// `quorate attack` starts one; repeatable
    #[cfg(feature = "lab")]
    #[arg(long, value_name = "REPLICA=STRATEGY")]
    malicious: Vec<Casting>,
    /// Have every replica record what its core is fed with, for `quorate replay`
    #[arg(long)]
    record: bool,
    /// Change a parameter of a new cluster from its default, for instance window=256; repeatable
    #[arg(long = "parameter", value_name = "NAME=VALUE")]
    parameters: Vec<ParameterChange>,
}

impl Arguments {
    /// What a new cluster is to look like, at ports that are free now.
    fn plan(&self) -> anyhow::Result<Plan> {
        let count = self.replicas.unwrap_or(init::REPLICAS_DEFAULT);
        // Before anything is founded.
        Company::of(self, count.into())?;
        let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let mut plan = Plan {
            addresses: ports::free(count).context("cannot find free ports on the loopback")?,
            parameters: quorate_protocol::configuration::Parameters::default(),
            resources: Resources {
                log_segment_bytes: Size::new(32 << 20),
                mtu_max: 6500,
                threads: NonZeroUsize::new((processors / usize::from(count)).max(1)),
                ..Resources::default()
            },
            initial: None,
        };
        init::change_parameters(&mut plan, &self.parameters)?;
        Ok(plan)
    }
}

pub(super) fn run(arguments: Arguments, global: &Global, output: &mut Output) -> anyhow::Result<Exit> {
    let runtime = runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    // The kernel ends the replicas with the thread that started them: they are started by the future that is run
    // here, on the program's first thread.
    let outcome = runtime.block_on(supervise(&arguments, global, output));
    runtime.shutdown_background();
    outcome
}

/// How a stretch of a testnet's life ended.
enum End {
    /// As it was meant to.
    Done,
    /// By a signal.
    Stopped(&'static str),
    /// A replica could not take an address that another program took meanwhile.
    AddressTaken(Early),
}

async fn supervise(arguments: &Arguments, global: &Global, output: &mut Output) -> anyhow::Result<Exit> {
    let mut signals = StopSignals::listen_to_all().context("cannot listen for signals")?;
    for attempt in 1.. {
        let home = Home::open(arguments.dir.as_deref(), || arguments.plan())?;
        check_agreement(arguments, home.network())?;
        let company = Company::of(arguments, home.network().genesis().configuration().size())?;
        if attempt == 1 {
            company.warn();
        }
        let mut replicas = Replicas::default();
        let setting = Setting { arguments, global, home: &home, company: &company };
        let end = live(setting, output, &mut replicas, &mut signals).await;
        replicas.stop(&mut signals).await;
        let may_move = home.is_temporary();
        let closed = home.close();
        match end? {
            End::AddressTaken(early) if may_move && attempt < ATTEMPTS_MAX => {
                let id = early.id;
                tracing::warn!("an address of replica {id} was taken by another program meanwhile: trying other ports");
            }
            End::AddressTaken(early) => return Err(early.into_problem().into()),
            End::Stopped(signal) => {
                tracing::info!("{signal}: every replica is stopped");
                return closed.map(|()| Exit::Done);
            }
            End::Done => return closed.map(|()| Exit::Done),
        }
    }
    Ok(Exit::Failed)
}

/// What is asked for must fit the cluster that is there.
fn check_agreement(arguments: &Arguments, network: &Network) -> Result<(), Problem> {
    let size = network.genesis().configuration().size();
    if let Some(count) = arguments.replicas.filter(|&count| usize::from(count) != size) {
        let what = format!("{} is a cluster of {size} replicas, not of {count}", network.folder().display());
        return Err(Problem::usage(what, "leave --replicas out, or choose another folder with --dir"));
    }
    let parameters = network.genesis().configuration().parameters();
    let is_other = |change: &&ParameterChange| change.apply(parameters.clone()).as_ref() != Ok(parameters);
    if let Some(change) = arguments.parameters.iter().find(is_other) {
        let what = format!("--parameter {change}: {} is a cluster with another value", network.folder().display());
        return Err(Problem::usage(what, "leave it out, or choose another folder with --dir"));
    }
    Ok(())
}

/// What a testnet is made of.
#[derive(Clone, Copy)]
struct Setting<'a> {
    arguments: &'a Arguments,
    global: &'a Global,
    home: &'a Home,
    company: &'a Company,
}

/// Starts the replicas, says so, and watches them until the end.
async fn live(
    Setting { arguments, global, home, company }: Setting<'_>,
    output: &mut Output,
    replicas: &mut Replicas,
    signals: &mut StopSignals,
) -> anyhow::Result<End> {
    let network = home.network();
    let mut ready = Ready::new(network, home.is_temporary())?;
    for row in &mut ready.replicas {
        let id = ReplicaId::new(row.id);
        row.malicious = company.part_of(id);
        let mut options = [log_options(global), company.options(id, network)].concat();
        // What an attacker is fed with is not what its core is.
        if arguments.record && row.malicious.is_none() {
            options.push("--record".to_owned());
        }
        row.pid = replicas.launch(Launch { id, folder: network.replica_folder(id), options })?;
    }
    tokio::select! {
        outcome = replicas.all_ready() => if let Err(early) = outcome {
            let taken = ready.replicas.iter().find(|row| row.id == early.id.value()).is_some_and(Row::is_taken);
            return if taken { Ok(End::AddressTaken(early)) } else { Err(early.into_problem().into()) };
        },
        signal = signals.next() => {
            let what = format!("{signal}: stopped before all replicas were ready");
            return Err(Problem::failed(what, "let it start").into());
        }
    }
    let Some(duration) = arguments.bench else {
        output.show(&ready)?;
        return tokio::select! {
            biased;
            outcome = replicas.watch() => Err(outcome.into()),
            signal = signals.next() => Ok(End::Stopped(signal)),
        };
    };
    tracing::info!("{} replicas are ready; driving load for {duration:?}", ready.replicas.len());
    let options = load::Options::new(network.client_folder(), duration);
    tokio::select! {
        report = load::run(options) => output.show(&report.map_err(bench::explain)?)?,
        outcome = replicas.watch() => return Err(outcome.into()),
        signal = signals.next() => return Err(bench::interrupted(signal).into()),
    }
    Ok(End::Done)
}

/// The options that make a replica log as this process does.
fn log_options(global: &Global) -> Vec<String> {
    let format = match global.log_format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    let verbose = (0..global.verbose).map(|_| "--verbose".to_owned());
    let quiet = (0..global.quiet).map(|_| "--quiet".to_owned());
    ["--log-format".to_owned(), format.to_owned()].into_iter().chain(verbose).chain(quiet).collect()
}

/// What is said when all replicas run.
#[derive(Debug, Serialize)]
struct Ready {
    dir: PathBuf,
    replicas: Vec<Row>,
    #[serde(skip)]
    net: PathBuf,
    #[serde(skip)]
    is_temporary: bool,
}

#[derive(Debug, Serialize)]
struct Row {
    id: u8,
    pid: u32,
    peer: String,
    client: String,
    /// Null: no replica listens for its operator yet.
    admin: Option<String>,
    /// What it plays from the start, if it is an attacker.
    #[serde(skip_serializing_if = "Option::is_none")]
    malicious: Option<String>,
}

impl Row {
    fn is_taken(&self) -> bool {
        ports::is_taken(&[&self.peer, &self.client])
    }
}

impl Ready {
    /// Reads what the replicas' files say, so that what is wrong in one is said before any is started.
    fn new(network: &Network, is_temporary: bool) -> anyhow::Result<Self> {
        let row = |replica: crate::configuration::ReplicaConfiguration| Row {
            id: replica.id.value(),
            pid: 0,
            peer: replica.listen_peer,
            client: replica.listen_client,
            admin: None,
            malicious: None,
        };
        Ok(Self {
            dir: network.folder().to_owned(),
            replicas: network.replicas()?.into_iter().map(row).collect(),
            net: network.client_folder(),
            is_temporary,
        })
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{} replicas are ready in {}", self.replicas.len(), self.dir.display())?;
        for Row { id, pid, peer, client, malicious, .. } in &self.replicas {
            let attacks = malicious.as_ref().map(|attacks| format!("  malicious: {attacks}")).unwrap_or_default();
            writeln!(formatter, "  replica {id}  pid {pid}  peer {peer}  client {client}{attacks}")?;
        }
        let program = std::env::args_os().next().map_or_else(|| PathBuf::from("quorate"), PathBuf::from);
        let (program, net) = (super::quote(&program), super::quote(&self.net));
        writeln!(formatter, "Talk to it:")?;
        writeln!(formatter, "  {program} kv put greeting hello --net {net}")?;
        writeln!(formatter, "  {program} kv get greeting --net {net}")?;
        writeln!(formatter, "  {program} status --net {net}")?;
        writeln!(formatter, "A replica that you end is not started again; to do that:")?;
        writeln!(formatter, "  {program} replica --dir {}", super::quote(&self.dir.join("replica-0")))?;
        let files = if self.is_temporary { "removes the folder" } else { "keeps the folder" };
        write!(formatter, "Ctrl-C stops all replicas and {files}.")
    }
}
