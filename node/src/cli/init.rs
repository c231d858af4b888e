//! `quorate init`: founds a cluster: its genesis, a folder a replica, and one for a client.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, value_parser};
use quorate_protocol::configuration::MEMBERS_MIN;
use quorate_protocol::number::ReplicaId;
use serde::Serialize;
use tokio::runtime;
use tokio::task::spawn_blocking;

use super::Output;
use super::signals::StopSignals;
use crate::backup::{self, Content};
use crate::configuration::ParameterChange;
use crate::configuration::network::{BASE_PORT_MAX, Network, NewNetwork, Plan};
use crate::error::{Exit, Problem};

/// Replicas of a cluster when nothing else is said.
pub(super) const REPLICAS_DEFAULT: u8 = 4;

const _: () = assert!(MEMBERS_MIN == 4 && ReplicaId::COUNT_MAX == 31, "the range that clap checks and shows");

/// Found a cluster: write its genesis and a folder for each replica and for a client
#[derive(Debug, Args)]
#[command(after_help = "Examples: four replicas on this machine; four on machines of their own;
  quorate init --replicas 4 --dir net
  quorate init --dir net --host 10.0.0.1 --host 10.0.0.2 --host 10.0.0.3 --host 10.0.0.4
and one that begins with the state of a backup
  quorate init --replicas 4 --dir net2 --from-backup monday.backup

The k-th replica on a host, from 0, takes the ports P+2k for the other replicas and P+2k+1 for clients, both UDP, where \
P is the base port; P+100+k on the loopback, TCP, is set aside for its operator, and nothing listens there yet. A folder replica-<i> belongs on that \
replica's machine together with genesis.toml beside it, and nowhere else: it holds a private key.")]
pub(super) struct Arguments {
    /// Replicas of the cluster, 4 to 31; n of them tolerate (n-1)/3 that lie [default: 4, or one a host]
    #[arg(long, value_name = "N", value_parser = value_parser!(u8).range(4..=31))]
    replicas: Option<u8>,
    /// The folder to make; it must not exist, or be empty
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// The first port
    #[arg(long, value_name = "PORT", default_value_t = 4100,
          value_parser = value_parser!(u16).range(1..=i64::from(BASE_PORT_MAX)))]
    base_port: u16,
    /// The host of a replica, a name or an address; once for each replica [default: 127.0.0.1 for all]
    #[arg(long = "host", value_name = "ADDR")]
    hosts: Vec<String>,
    /// Change a parameter of the cluster from its default, for instance window=256; repeatable
    #[arg(long = "parameter", value_name = "NAME=VALUE")]
    parameters: Vec<ParameterChange>,
    /// A backup whose state the cluster begins with, of whichever cluster; sessions of clients stay behind
    #[arg(long, value_name = "FILE")]
    from_backup: Option<PathBuf>,
}

pub(super) fn run(arguments: Arguments, output: &mut Output) -> anyhow::Result<Exit> {
    let Arguments { replicas, dir, base_port, hosts, parameters, from_backup } = arguments;
    let mut plan = if hosts.is_empty() {
        Plan::on_loopback(replicas.unwrap_or(REPLICAS_DEFAULT).into(), base_port)
    } else {
        check_hosts(&hosts, replicas)?;
        Plan::on_hosts(&hosts, base_port)
    };
    change_parameters(&mut plan, &parameters)?;
    let addresses = plan.addresses.clone();
    let (network, state) = found(dir, plan, from_backup)?;
    let replicas = network.genesis().configuration().replicas().zip(addresses).map(|(id, addresses)| Founded {
        id: id.value(),
        dir: network.replica_folder(id),
        peer: addresses.peer,
        client: addresses.client,
        admin: addresses.admin,
    });
    output.show(&Initialised {
        cluster: network.genesis().cluster().digest().to_string(),
        replicas: replicas.collect(),
        genesis: network.genesis_path(),
        client: network.client_folder(),
        dir: network.folder().to_owned(),
        state,
    })?;
    Ok(Exit::Done)
}

/// Founds the cluster. If a signal comes before it stands in its place, nothing is left of it: it holds private keys.
fn found(dir: PathBuf, plan: Plan, backup: Option<PathBuf>) -> anyhow::Result<(Network, Option<Content>)> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    let (built, state) = runtime.block_on(async {
        let mut signals = StopSignals::listen_to_all().context("cannot listen for signals")?;
        let mut building = spawn_blocking(move || build(&dir, plan, backup.as_deref()));
        tokio::select! {
            biased;
            signal = signals.next() => {
                // Dropping what was built removes it.
                drop(building.await);
                Err(Problem::failed(format!("{signal}: no cluster was founded"), "run it again").into())
            }
            built = &mut building => built.context("founding the cluster broke")?,
        }
    })?;
    Ok((built.finish()?, state))
}

/// Writes all files of the cluster. One that begins with the state of a backup has it in the folder of each replica.
fn build(dir: &Path, mut plan: Plan, backup: Option<&Path>) -> anyhow::Result<(NewNetwork, Option<Content>)> {
    let Some(backup) = backup else { return Ok((NewNetwork::build(dir, plan)?, None)) };
    let (initial, content) = backup::initial_state(backup)?;
    plan.initial = Some(initial);
    let network = NewNetwork::build(dir, plan)?;
    for state in network.state_folders() {
        backup::found(backup, &state, network.genesis())?;
    }
    Ok((network, Some(content)))
}

/// Applies what was given with `--parameter`.
pub(super) fn change_parameters(plan: &mut Plan, changes: &[ParameterChange]) -> Result<(), Problem> {
    for change in changes {
        plan.parameters = change.apply(plan.parameters.clone()).map_err(|error| {
            Problem::usage(format!("--parameter {change}: {error}"), "see the parameters in any genesis.toml")
        })?;
    }
    Ok(())
}

fn check_hosts(hosts: &[String], replicas: Option<u8>) -> Result<(), Problem> {
    let mend = "give --host once for each replica, for example --host 10.0.0.1";
    if replicas.is_some_and(|replicas| usize::from(replicas) != hosts.len()) {
        let count = replicas.unwrap_or_default();
        return Err(Problem::usage(format!("{} hosts for {count} replicas", hosts.len()), mend));
    }
    if !(MEMBERS_MIN..=ReplicaId::COUNT_MAX).contains(&hosts.len()) {
        return Err(Problem::usage(format!("{} hosts: a cluster has 4 to 31 replicas", hosts.len()), mend));
    }
    match hosts.iter().find(|host| Plan::refuse_host(host).is_some()) {
        Some(host) => {
            Err(Problem::usage(format!("--host {host}: not a host"), "give a name or an address, without a port"))
        }
        None => Ok(()),
    }
}

/// What was founded.
#[derive(Debug, Serialize)]
struct Initialised {
    cluster: String,
    dir: PathBuf,
    genesis: PathBuf,
    client: PathBuf,
    replicas: Vec<Founded>,
    /// The backup whose state it begins with.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Content>,
}

#[derive(Debug, Serialize)]
struct Founded {
    id: u8,
    dir: PathBuf,
    peer: String,
    client: String,
    admin: String,
}

impl fmt::Display for Initialised {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "founded cluster {} of {} replicas", self.cluster, self.replicas.len())?;
        writeln!(formatter, "  {}  public: every replica and client has a copy", self.genesis.display())?;
        for Founded { dir, peer, client, .. } in &self.replicas {
            writeln!(formatter, "  {}  peers at {peer}, clients at {client}", dir.display())?;
        }
        writeln!(formatter, "  {}  to connect with", self.client.display())?;
        if let Some(Content { file, cluster, sequence, entries, .. }) = &self.state {
            let file = file.display();
            writeln!(
                formatter,
                "it begins with the {entries} entries of {file}: cluster {cluster} at slot {sequence}"
            )?;
        }
        let first = self.replicas.first().map_or(&self.dir, |replica| &replica.dir);
        write!(formatter, "start each replica, for example: quorate replica --dir {}", super::quote(first))
    }
}
