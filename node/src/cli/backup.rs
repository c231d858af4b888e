//! `quorate backup`: a stable checkpoint of a cluster that runs, in one file.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use indicatif::{HumanBytes, ProgressBar};
use quorate_protocol::configuration::ClientPolicy;
use tokio::runtime;

use super::Output;
use super::signals::StopSignals;
use crate::backup::{self, Options, Progress, Taken};
use crate::client::{Connection, ConnectionOptions};
use crate::configuration::{ClientConfiguration, Size, key_file, parse_positive_duration};
use crate::error::{Exit, Problem};

/// From one line of progress to the next where stderr is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

/// Write a checked backup of the state to a file while the cluster runs
#[derive(Debug, Args)]
#[command(after_help = "Example:
  quorate backup --net net/client --out monday.backup

Takes the newest stable checkpoint from one replica, and from another if that one is silent or lies. The file holds the \
genesis, the certificate of a quorum and the whole state; it is written only if the state is the one that the certificate \
is of. It has mode 0600 and is not encrypted. `quorate restore` checks it and puts it into a replica's folder.

Exit status: 0 if it is written, 1 if not; then no file is left.")]
pub(super) struct Arguments {
    /// The folder of a client, or of the whole cluster
    #[arg(long, value_name = "FOLDER")]
    net: PathBuf,
    /// The file to write; it must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How long a replica may take to answer before it is asked again
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_positive_duration)]
    timeout: Duration,
    /// The most that the state may take, 64 bytes counted for each entry: a replica that lies stops there
    #[arg(long, value_name = "SIZE", default_value = "16GiB")]
    size_max: Size,
}

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> anyhow::Result<Exit> {
    let Arguments { net, out, timeout, size_max } = arguments;
    let ClientConfiguration { genesis, key } = ClientConfiguration::load(net)?;
    // No session is opened, so that no other use of the key is disturbed; where clients are listed, it must be one of them.
    let key =
        if genesis.configuration().parameters().clients == ClientPolicy::Any { key_file::generate()? } else { key };
    let options = Options { out: out.clone(), patience: *timeout, bytes_max: size_max.bytes() };
    // A thread of its own keeps the links alive while files are synced.
    let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let taken = runtime.context("cannot start the runtime")?.block_on(async {
        let mut signals = StopSignals::listen_to_all().context("cannot listen for signals")?;
        let configuration = Arc::new(genesis.configuration().clone());
        let connection = Connection::open(ConnectionOptions::resolve(configuration, key).await?)?;
        let mut shown = Shown::new();
        let mut tell = |progress| shown.tell(progress);
        let outcome = tokio::select! {
            taken = backup::take(&connection, &genesis, &options, &mut tell) => taken.map_err(anyhow::Error::from),
            // What was written so far is removed.
            signal = signals.next() => Err(Problem::failed(format!("{signal}: no backup was written"), "run it again").into()),
        };
        connection.close().await;
        outcome
    })?;
    output.show(&taken)?;
    Ok(Exit::Done)
}

/// What is shown on stderr meanwhile.
struct Shown {
    bar: Option<ProgressBar>,
    last: Instant,
}

impl Shown {
    fn new() -> Self {
        Self { bar: io::stderr().is_terminal().then(ProgressBar::new_spinner), last: Instant::now() }
    }

    fn tell(&mut self, progress: Progress) {
        match progress {
            Progress::Began { source, sequence } => tracing::info!(%source, %sequence, "a backup of the checkpoint"),
            Progress::Received { entries, bytes } => {
                if let Some(bar) = &self.bar {
                    bar.set_message(format!("{entries} entries, {}", HumanBytes(bytes)));
                    bar.tick();
                } else if self.last.elapsed() >= BETWEEN_LINES {
                    self.last = Instant::now();
                    tracing::info!(entries, bytes, "received so far");
                }
            }
            Progress::Replaced { source, reason } => {
                tracing::warn!(%source, %reason, "a replica is of no use for the backup");
            }
        }
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "wrote {}, from replica {}", self.content.file.display(), self.source)?;
        self.content.fmt(formatter)
    }
}
