//! `quorate attack`: attacks started and stopped in a testnet that runs. (Feature `lab`.)

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use quorate_protocol::number::ReplicaId;
use serde::Serialize;

use super::Output;
use crate::configuration::network::{Network, is_network};
use crate::error::{Exit, Problem};
use crate::lab::door::{Answer, Order, ask};
use crate::lab::strategy::Casting;
use crate::storage::lock::{FolderLock, LockError};

/// Start and stop attacks in a testnet that runs
#[derive(Debug, Subcommand)]
#[command(after_help = "Example, with a testnet that was started by `quorate testnet --dir net --malicious 0=none`:
  quorate attack start 0=equivocate --dir net
  quorate attack stop --dir net")]
pub(super) enum Command {
    Start(StartArguments),
    Stop(WhichArguments),
    Show(ShowArguments),
}

/// Have replicas play attacks from now on, instead of what they play
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate attack start 0=equivocate --dir net
  quorate attack start 0=silent@from:5s,flood 2=lie-to-clients --dir net
  quorate attack start 0=simulator/scenarios/equivocating-primary.json --net net/client

A moment counts from now. Only a replica that was started as an attacker can be told to play one: by `quorate testnet \
--malicious 0=none`, or `quorate replica --malicious none`. `quorate attacks` lists what there is.")]
pub(super) struct StartArguments {
    /// Which replica plays what
    #[arg(value_name = "REPLICA=STRATEGY", required = true)]
    castings: Vec<Casting>,
    #[command(flatten)]
    place: Place,
}

/// Have replicas do again what a correct one does
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate attack stop --dir net
  quorate attack stop 0 2 --dir net")]
pub(super) struct WhichArguments {
    /// Which replicas [default: all that were started as attackers]
    #[arg(value_name = "REPLICA")]
    replicas: Vec<u8>,
    #[command(flatten)]
    place: Place,
}

/// Show what each attacker plays
#[derive(Debug, Args)]
#[command(after_help = "Example:
  quorate attack show --dir net")]
pub(super) struct ShowArguments {
    #[command(flatten)]
    place: Place,
}

/// Where the cluster's folders are.
#[derive(Debug, Args)]
struct Place {
    /// The cluster's folder on this machine, or the client folder in it
    #[arg(long = "dir", visible_alias = "net", value_name = "FOLDER")]
    folder: PathBuf,
}

pub(super) fn run(command: Command, output: &mut Output) -> anyhow::Result<Exit> {
    let attackers = match command {
        Command::Start(StartArguments { castings, place }) => {
            let network = place.open()?;
            let size = network.genesis().configuration().size();
            // All are looked at before any is told.
            let read = |casting: &Casting| Ok((casting.replica, Order::Play(casting.read(size)?)));
            let orders: Vec<(ReplicaId, Order)> = castings.iter().map(read).collect::<anyhow::Result<_>>()?;
            orders.iter().map(|(id, order)| tell(&network, *id, order)).collect::<anyhow::Result<_>>()?
        }
        Command::Stop(WhichArguments { replicas, place }) if replicas.is_empty() => {
            tell_all(&place.open()?, &Order::Play(Vec::new()))?
        }
        Command::Stop(WhichArguments { replicas, place }) => {
            let network = place.open()?;
            let stop = Order::Play(Vec::new());
            let told = replicas.into_iter().map(|id| tell(&network, ReplicaId::new(id), &stop));
            told.collect::<anyhow::Result<_>>()?
        }
        Command::Show(ShowArguments { place }) => tell_all(&place.open()?, &Order::Show)?,
    };
    output.show(&Told { attackers })?;
    Ok(Exit::Done)
}

impl Place {
    fn open(&self) -> anyhow::Result<Network> {
        let folder = std::path::absolute(&self.folder).with_context(|| format!("finding {}", self.folder.display()))?;
        // The client's folder holds a genesis, too.
        let is_whole = |folder: &&Path| matches!(is_network(folder), Ok(true)) && folder.join("replica-0").is_dir();
        let above = folder.parent().unwrap_or(&folder);
        let Some(found) = [folder.as_path(), above].into_iter().find(is_whole) else {
            let what = format!("{} is no cluster's folder on this machine", self.folder.display());
            return Err(
                Problem::failed(what, "name the folder that `quorate testnet` printed, or gave with --dir").into()
            );
        };
        Ok(Network::open(found)?)
    }
}

/// One attacker, by its answer.
#[derive(Debug, Serialize)]
struct Attacker {
    replica: u8,
    plays: String,
}

fn tell(network: &Network, id: ReplicaId, order: &Order) -> anyhow::Result<Attacker> {
    if id.index() >= network.genesis().configuration().size() {
        let what = format!("there is no replica {id} in {}", network.folder().display());
        return Err(Problem::usage(what, "`quorate status` lists those that there are").into());
    }
    let folder = network.replica_folder(id);
    match ask(&folder, order) {
        Ok(Answer::Plays(plays)) => Ok(Attacker { replica: id.value(), plays }),
        Ok(Answer::Refused(why)) => {
            Err(Problem::failed(format!("replica {id} refuses: {why}"), "write it as `quorate attacks` says").into())
        }
        Err(error) if is_absent(&error) => Err(nobody(id, &folder).into()),
        Err(error) => Err(error).with_context(|| format!("telling replica {id}, in {}", folder.display())),
    }
}

/// Tells all that were started as attackers.
fn tell_all(network: &Network, order: &Order) -> anyhow::Result<Vec<Attacker>> {
    let ids = network.genesis().configuration().replicas();
    let attackers =
        ids.filter(|id| !ask(&network.replica_folder(*id), &Order::Show).is_err_and(|error| is_absent(&error)));
    let told: Vec<Attacker> = attackers.map(|id| tell(network, id, order)).collect::<anyhow::Result<_>>()?;
    if told.is_empty() {
        let what = format!("no replica of {} that runs was started as an attacker", network.folder().display());
        return Err(Problem::failed(what, MEND).into());
    }
    Ok(told)
}

/// Whether nobody stands behind the door, or there is none.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// How a testnet is started in which attacks can be.
const MEND: &str = "start the testnet so that it can be one, as `quorate testnet --malicious 0=none`, or the replica with \
                    `--malicious none`";

/// Why a replica takes no orders.
fn nobody(id: ReplicaId, folder: &Path) -> Problem {
    let data = folder.join("data");
    let is_running = data.is_dir() && matches!(FolderLock::acquire(&data), Err(LockError::Held { .. }));
    let what = if is_running {
        format!("replica {id} runs as a correct one, and takes no orders")
    } else {
        format!("replica {id} does not run, in {}", folder.display())
    };
    Problem::failed(what, MEND)
}

/// What the attackers answered.
#[derive(Debug, Serialize)]
struct Told {
    attackers: Vec<Attacker>,
}

impl fmt::Display for Told {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.attackers.iter().map(|Attacker { replica, plays }| format!("replica {replica} plays {plays}"));
        formatter.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}
