//! `quorate bench`: the load generator.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, value_parser};
use tokio::runtime;

use super::Output;
use super::signals::StopSignals;
use crate::bench::{self, Extent, Load, Options, Share, WARM_UP_DEFAULT};
use crate::configuration::{Size, parse_duration, parse_positive_duration};
use crate::error::{Exit, Problem};

/// How long to measure unless something else is said.
const DURATION_DEFAULT: Duration = Duration::from_secs(20);

/// Drive load at a cluster and report throughput and latency
#[derive(Debug, Args)]
#[command(after_help = "Examples: as fast as 64 clients can, and 5000 requests a second of which half read
  quorate bench --net net/client
  quorate bench --net net/client --rate 5000 --reads 50% --duration 1m

Each client is a key of its own, derived from that of the client folder. Without --rate a client sends the next request \
when one of its window is answered. With it requests are due at fixed times, and a latency counts from then.

What is answered after the warm-up and before the end counts; with --requests, what is submitted after the warm-up.

Exit status: 0 if anything was answered, 1 if not.")]
pub(super) struct Arguments {
    /// The client folder of the cluster
    #[arg(long, value_name = "FOLDER")]
    net: PathBuf,
    /// Clients, each with a key and a session of its own
    #[arg(long, value_name = "N", default_value_t = 64)]
    clients: usize,
    /// Requests that each client has outstanding at most
    #[arg(long, value_name = "N", default_value_t = 8)]
    window: usize,
    /// Operations of each request
    #[arg(long, value_name = "N", default_value_t = 1)]
    operations: usize,
    /// Bytes of each value
    #[arg(long, value_name = "SIZE", default_value = "256")]
    value_size: Size,
    /// Keys, of which each operation takes one
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    keys: u64,
    /// How many of the operations are reads
    #[arg(long, value_name = "PERCENT", default_value = "0%")]
    reads: Share,
    /// Read without ordering, from a cluster whose parameters allow it
    #[arg(long)]
    fast_reads: bool,
    /// How many of the operations remove a key
    #[arg(long, value_name = "PERCENT", default_value = "0%")]
    deletes: Share,
    /// How many of the operations write if the key holds what this program wrote there last
    #[arg(long, value_name = "PERCENT", default_value = "0%")]
    cas: Share,
    /// How long to measure [default: 20s]
    #[arg(long, value_name = "DURATION", value_parser = parse_positive_duration, conflicts_with = "requests")]
    duration: Option<Duration>,
    /// Measure so many requests instead
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    requests: Option<u64>,
    /// Requests a second that are due over all clients, whatever is answered
    #[arg(long, value_name = "R")]
    rate: Option<f64>,
    /// How long to drive load before measuring [default: 3s, or none with --requests]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    warm_up: Option<Duration>,
    /// Record every call and answer in this file, a JSON object a line
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Connections over which the clients are spread [default: as many as are needed]
    #[arg(long, value_name = "N")]
    connections: Option<usize>,
}

impl Arguments {
    fn options(self) -> Options {
        let extent = match self.requests {
            Some(requests) => Extent::Requests(requests),
            None => Extent::Duration(self.duration.unwrap_or(DURATION_DEFAULT)),
        };
        let warm_up_default = if self.requests.is_some() { Duration::ZERO } else { WARM_UP_DEFAULT };
        let load = Load {
            clients: self.clients,
            window: self.window,
            operations: self.operations,
            value_size: usize::try_from(self.value_size.bytes()).unwrap_or(usize::MAX),
            keys: self.keys,
            reads: self.reads,
            fast_reads: self.fast_reads,
            deletes: self.deletes,
            cas: self.cas,
            rate: self.rate,
            connections: self.connections,
        };
        let warm_up = self.warm_up.unwrap_or(warm_up_default);
        Options { net: self.net, load, extent, warm_up, history: self.history, shows_progress: true }
    }
}

pub(super) fn run(arguments: Arguments, output: &mut Output) -> anyhow::Result<Exit> {
    let runtime = runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    let outcome = runtime.block_on(drive(arguments.options(), output));
    runtime.shutdown_background();
    outcome
}

async fn drive(options: Options, output: &mut Output) -> anyhow::Result<Exit> {
    let mut signals = StopSignals::listen().context("cannot listen for signals")?;
    let report = tokio::select! {
        report = bench::run(options) => report.map_err(explain)?,
        signal = signals.next() => {
            return Err(interrupted(signal).into());
        }
    };
    output.show(&report)?;
    Ok(Exit::Done)
}

/// What is said when a signal ends it.
pub(super) fn interrupted(signal: &str) -> Problem {
    Problem::failed(format!("{signal}: nothing was measured"), "let it run to its end")
}

/// Adds what the reader can do about it.
pub(super) fn explain(error: bench::Error) -> anyhow::Error {
    let what = error.to_string();
    match error {
        bench::Error::Load(_) => Problem::usage(what, "see `quorate bench --help`").into(),
        bench::Error::ListedClients => Problem::failed(what, "use a cluster whose genesis lets any key in").into(),
        bench::Error::Client(_) | bench::Error::NoAnswer(_) => {
            Problem::failed(what, "start the replicas that do not run; `quorate status` shows them").into()
        }
        // What these say themselves names the way out.
        bench::Error::File(error) => error.into(),
        bench::Error::Open(error) => error.into(),
        error => error.into(),
    }
}
