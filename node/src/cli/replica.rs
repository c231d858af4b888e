//! `quorate replica`: runs one replica until SIGINT or SIGTERM.

use std::fmt;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use quorate_protocol::kv::Store;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use serde::Serialize;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Output;
use super::signals::StopSignals;
use crate::configuration::{ReplicaConfiguration, Role};
use crate::error::{Exit, Problem, Report};
use crate::host::{self, ReplicaOptions};
#[cfg(feature = "lab")]
use crate::lab::attacker::{self, Cast};
#[cfg(feature = "lab")]
use crate::lab::{recorder, strategy, wire::Ground};

/// How long a replica may take to stop. What it made durable is safe either way.
const STOP_LIMIT: Duration = Duration::from_secs(8);

/// Run one replica until SIGINT or SIGTERM
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate replica --dir net/replica-0
  quorate replica --dir net/replica-0 --malicious equivocate@from:10s

Prints one line, `ready`, when its own state is recovered and its sockets are bound, whether it reaches others or not.")]
pub(super) struct Arguments {
    /// The replica's folder, as `quorate init` made it
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// Record what the core is fed with, for `quorate replay`: docs/OPERATIONS.md says what that costs
    #[arg(long)]
    record: bool,
    #[cfg(feature = "lab")]
    #[command(flatten)]
    malice: Malice,
    /// Stop when the process that started this one ends, whose id this is
    #[arg(long, value_name = "PID", hide = true)]
    exit_with_parent: Option<i32>,
}

pub(super) fn run(arguments: Arguments, output: &mut Output) -> anyhow::Result<Exit> {
    end_with_any_panic();
    if let Some(parent) = arguments.exit_with_parent {
        exit_with_parent(parent)?;
    }
    let mut configuration = ReplicaConfiguration::load(&arguments.dir)?;
    configuration.recording.is_on |= arguments.record;
    let how = How::of(&arguments, &configuration)?;
    let threads = configuration.resources.threads();
    let runtime = runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let outcome = runtime.block_on(host(configuration, how, output));
    // What still runs after the host returned has nothing more to say.
    runtime.shutdown_background();
    outcome.map_err(explain)
}

/// What makes a replica of the laboratory.
#[cfg(feature = "lab")]
#[derive(Debug, Args)]
struct Malice {
    /// Play attacks instead of being correct, for tests: NAME[@WHEN], several by commas, FILE.json, or `none` until it is
    /// told to by `quorate attack`
    #[arg(long, value_name = "STRATEGY")]
    malicious: Option<String>,
    /// Another attacker's folder, whose key this one uses, too
    #[arg(long = "accomplice", value_name = "FOLDER", requires = "malicious", hide = true)]
    accomplices: Vec<PathBuf>,
    /// Append every statement that the replica signs to a file, for `quorate evidence check-signed`
    #[arg(long, value_name = "FILE")]
    record_signed: Option<PathBuf>,
}

/// What is run in the folder.
enum How {
    /// A replica.
    Replica,
    /// What the laboratory makes in its place.
    #[cfg(feature = "lab")]
    Made(host::MakeSubject),
}

impl How {
    #[cfg(not(feature = "lab"))]
    #[expect(clippy::unnecessary_wraps, reason = "with the laboratory it can fail")]
    fn of(_: &Arguments, _: &ReplicaConfiguration) -> anyhow::Result<Self> {
        Ok(Self::Replica)
    }

    #[cfg(feature = "lab")]
    fn of(arguments: &Arguments, configuration: &ReplicaConfiguration) -> anyhow::Result<Self> {
        let Malice { malicious, accomplices, record_signed } = &arguments.malice;
        let made = match malicious {
            Some(strategy) => Some(Self::attacker(arguments, configuration, (strategy, accomplices))?),
            None => None,
        };
        Ok(match (record_signed, made) {
            (None, None) => Self::Replica,
            (None, Some(made)) => Self::Made(made),
            (Some(path), made) => {
                Self::Made(recorder::record(path, made.unwrap_or_else(|| host::replica(configuration.role)))?)
            }
        })
    }

    #[cfg(feature = "lab")]
    fn attacker(
        arguments: &Arguments,
        configuration: &ReplicaConfiguration,
        (strategy, accomplices): (&str, &[PathBuf]),
    ) -> anyhow::Result<host::MakeSubject> {
        if configuration.role == Role::Standby {
            let what = format!("{} is a standby's folder: it has no vote to abuse", arguments.dir.display());
            return Err(Problem::usage(what, "name the folder of a member with --dir, or leave --malicious out").into());
        }
        if configuration.recording.is_on {
            let what = "an attacker is not recorded: its core is not fed with what comes";
            let mend = "leave --record or --malicious out, and have [recording] off in its replica.toml";
            return Err(Problem::usage(what, mend).into());
        }
        let protocol = configuration.genesis.configuration();
        let cast = Cast {
            folder: arguments.dir.clone(),
            part: strategy::read(strategy, configuration.id, protocol.size())?,
            accomplices: accomplices
                .iter()
                .map(|folder| ReplicaConfiguration::load(folder))
                .collect::<Result<_, _>>()?,
            ground: Ground::of(configuration.id, configuration.key.clone(), protocol),
            fast_reads: protocol.parameters().fast_reads,
        };
        Ok(attacker::make(cast))
    }
}

/// Adds where to read on, unless the error itself says what to do.
fn explain(error: anyhow::Error) -> anyhow::Error {
    if Report::new(&error).mend.is_some() {
        return error;
    }
    Problem::failed(format!("{error:#}"), "see docs/OPERATIONS.md, \"When something is wrong\"").into()
}

/// A replica that lost an invariant of its own must not go on signing, whichever of its threads found out.
fn end_with_any_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
}

/// Asks the kernel to end this process with its parent.
fn exit_with_parent(parent: i32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM))
        .context("cannot bind the life of this process to its parent's")?;
    // The parent may have ended before the kernel was asked.
    if getppid().map(Pid::as_raw_pid) != Some(parent) {
        return Err(Problem::failed("the process that started this replica has ended", "start it again").into());
    }
    Ok(())
}

async fn host(configuration: ReplicaConfiguration, how: How, output: &mut Output) -> anyhow::Result<Exit> {
    let mut signals = StopSignals::listen().context("cannot listen for signals")?;
    let id = configuration.id;
    let (ready, mut is_ready) = oneshot::channel();
    let (stop_sender, stop) = oneshot::channel::<()>();
    // A standby answers from what it has executed whatever the members do.
    let answers_reads =
        configuration.role == Role::Standby || configuration.genesis.configuration().parameters().fast_reads;
    let build: host::Build = Arc::new(move || {
        let store = Store::default();
        Box::new(if answers_reads { store.with_fast_reads() } else { store })
    });
    let options = ReplicaOptions { configuration, build };
    let stopped = async { stop.await.unwrap_or_default() };
    // On the runtime's own threads, beside the tasks that move bytes: handing over to another thread costs far more.
    let told = move || ready.send(()).unwrap_or_default();
    let running = match how {
        How::Replica => tokio::spawn(host::run(options, stopped, told)),
        #[cfg(feature = "lab")]
        How::Made(make) => tokio::spawn(host::run_with(options, make, stopped, told)),
    };
    let mut running = pin!(async { running.await.context("the host's task failed")? });
    let mut waits_for_ready = true;
    loop {
        tokio::select! {
            outcome = &mut running => {
                outcome.with_context(|| format!("replica {id}"))?;
                return Ok(Exit::Done);
            }
            told = &mut is_ready, if waits_for_ready => {
                waits_for_ready = false;
                // A replica goes on when nobody reads what it says.
                if told.is_ok() { output.show(&Ready { ready: true, replica: id.value() }).ok(); }
            }
            signal = signals.next() => {
                tracing::info!(replica = id.value(), "{signal}: stopping");
                break;
            }
        }
    }
    drop(stop_sender);
    tokio::select! {
        outcome = timeout(STOP_LIMIT, running) => {
            if let Ok(outcome) = outcome {
                return outcome.map(|()| Exit::Done).with_context(|| format!("replica {id}"));
            }
            tracing::error!(replica = id.value(), "not stopped after {} s: ending anyway", STOP_LIMIT.as_secs());
            Ok(Exit::Failed)
        }
        signal = signals.next() => {
            tracing::warn!(replica = id.value(), "{signal} again: ending at once");
            Ok(Exit::Failed)
        }
    }
}

/// The one line that says that a replica runs.
#[derive(Debug, Serialize)]
struct Ready {
    ready: bool,
    replica: u8,
}

impl fmt::Display for Ready {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ready")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_ends_a_replica_names_a_way_out_and_keeps_its_own() {
        let mend = |error: anyhow::Error| Report::new(&explain(error.context("replica 1"))).mend.unwrap();
        assert!(mend(anyhow::anyhow!("records are missing")).contains("OPERATIONS.md"));
        assert_eq!(mend(Problem::failed("odd", "do this").into()), "do this");
        let report = Report::new(&explain(anyhow::anyhow!("odd").context("replica 1")));
        assert_eq!(report.error, "replica 1: odd");
    }
}
