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
use crate::configuration::ReplicaConfiguration;
use crate::error::{Exit, Problem, Report};
use crate::host::{self, ReplicaOptions};

/// How long a replica may take to stop. What it made durable is safe either way.
const STOP_LIMIT: Duration = Duration::from_secs(8);

/// Run one replica until SIGINT or SIGTERM
#[derive(Debug, Args)]
#[command(after_help = "Example:
  quorate replica --dir net/replica-0

Prints one line, `ready`, when its own state is recovered and its sockets are bound, whether it reaches others or not.")]
pub(super) struct Arguments {
    /// The replica's folder, as `quorate init` made it
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// Record what the core is fed with, for `quorate replay`: docs/OPERATIONS.md says what that costs
    #[arg(long)]
    record: bool,
    /// Play an attack instead of being correct, for tests; refused: so far attacks are played in the simulator alone
    #[cfg(feature = "lab")]
    #[arg(long, value_name = "STRATEGY")]
    malicious: Option<String>,
    /// Stop when the process that started this one ends, whose id this is
    #[arg(long, value_name = "PID", hide = true)]
    exit_with_parent: Option<i32>,
}

pub(super) fn run(arguments: Arguments, output: &mut Output) -> anyhow::Result<Exit> {
    end_with_any_panic();
    if let Some(parent) = arguments.exit_with_parent {
        exit_with_parent(parent)?;
    }
    #[cfg(feature = "lab")]
    if let Some(attack) = &arguments.malicious {
        return Err(refuse_attack(attack).into());
    }
    let mut configuration = ReplicaConfiguration::load(&arguments.dir)?;
    configuration.recording.is_on |= arguments.record;
    let threads = configuration.resources.threads();
    let runtime = runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let outcome = runtime.block_on(host(configuration, output));
    // What still runs after the host returned has nothing more to say.
    runtime.shutdown_background();
    outcome.map_err(explain)
}

/// Why `attack` cannot be played.
#[cfg(feature = "lab")]
pub(super) fn refuse_attack(attack: &str) -> Problem {
    let what = format!("the attack `{attack}` cannot be played here: so far attacks are played in the simulator alone");
    Problem::usage(what, "leave --malicious out, or look at `quorate simulate --attack NAME`")
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

async fn host(configuration: ReplicaConfiguration, output: &mut Output) -> anyhow::Result<Exit> {
    let mut signals = StopSignals::listen().context("cannot listen for signals")?;
    let id = configuration.id;
    let (ready, mut is_ready) = oneshot::channel();
    let (stop_sender, stop) = oneshot::channel::<()>();
    let fast_reads = configuration.genesis.configuration().parameters().fast_reads;
    let build: host::Build = Arc::new(move || {
        let store = Store::default();
        Box::new(if fast_reads { store.with_fast_reads() } else { store })
    });
    let options = ReplicaOptions { configuration, build };
    let stopped = async { stop.await.unwrap_or_default() };
    // On the runtime's own threads, beside the tasks that move bytes: handing over to another thread costs far more.
    let running = tokio::spawn(host::run(options, stopped, move || ready.send(()).unwrap_or_default()));
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
