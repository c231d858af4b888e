//! One run: connections, sessions, generators, and the report in the end.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate_protocol::configuration::{ClientPolicy, Configuration};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::generator::{Generator, GeneratorOptions, LoadClient};
use super::history::Writer;
use super::measure::{Measured, Shared};
use super::options::{Extent, LoadError, Options};
use super::pace::Pace;
use super::report::{LatencyMs, Report, per_second};
use super::{progress, workload};
use crate::client::{
    ClientError, Connection, ConnectionOptions, Identity, OpenError, Reachability, Session, derive_key,
};
use crate::configuration::FileError;

/// How long to wait for all replicas before load is driven at those that are reached.
const ALL_PATIENCE: Duration = Duration::from_secs(2);

/// How long to wait for the first replica.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);

/// How long a run that counts requests goes on without any answer.
const STALL: Duration = Duration::from_secs(30);

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the client's folder is wrong.
    #[error(transparent)]
    File(#[from] FileError),
    /// The cluster does not take this load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The cluster takes requests of listed keys only, and load is driven with many.
    #[error("this cluster lists its clients, and load is driven with keys derived for it")]
    ListedClients,
    /// There is no connection.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The replicas are not reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No request was answered.
    #[error("no request was answered; {0}")]
    NoAnswer(Reachability),
    /// The history cannot be written.
    #[error("cannot write the history {}", path.display())]
    History {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The system gave no randomness.
    #[error("the system gave no randomness")]
    Randomness(#[source] getrandom::Error),
    /// A part of the load generator broke.
    #[error("the load generator broke")]
    Broken(#[source] tokio::task::JoinError),
}

/// Drives the load and reports. Cancelled by being dropped.
///
/// # Errors
/// [`Error`] says why nothing was measured.
pub async fn run(options: Options) -> Result<Report, Error> {
    let identity = Identity::take(&options.net, Duration::ZERO)?;
    let configuration = Arc::new(identity.configuration.genesis.configuration().clone());
    options.load.check(configuration.parameters())?;
    if configuration.parameters().clients != ClientPolicy::Any {
        return Err(Error::ListedClients);
    }
    let history = options.history.as_ref().map(|path| Writer::create(path).map_err(history_error(path)));
    let history = history.transpose()?;
    let connections = connect(&options, &identity, &configuration).await?;
    let sessions = open_sessions(&options, &identity, &connections).await?;
    let shared = Arc::new(Shared::new(options.extent, options.warm_up));
    let mut measured = drive(&options, &shared, &connections, sessions, history.as_ref()).await?;
    if let (Some(history), Some(path)) = (history, &options.history) {
        history.finish().await.map_err(history_error(path))?;
    }
    if measured.requests == 0 {
        return Err(Error::NoAnswer(match connections.first() {
            Some(connection) => connection.reachability().await,
            None => Reachability { replicas: Vec::new() },
        }));
    }
    let view = connections.iter().map(|connection| connection.view().value()).max().unwrap_or(0);
    let report = report(&options, &shared, &configuration, &mut measured, view);
    for connection in connections.into_iter().filter_map(Arc::into_inner) {
        connection.close().await;
    }
    drop(identity);
    Ok(report)
}

fn history_error(path: &std::path::Path) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::History { path: path.to_owned(), source }
}

/// Opens the connections and waits until replicas are reached.
async fn connect(
    options: &Options,
    identity: &Identity,
    configuration: &Arc<Configuration>,
) -> Result<Vec<Arc<Connection>>, Error> {
    let mut connections = Vec::new();
    for index in 0..options.load.connections() {
        let key = derive_key(&identity.configuration.key, "bench connection", index as u64);
        let connection_options = ConnectionOptions::resolve(Arc::clone(configuration), key).await?;
        connections.push(Arc::new(Connection::open(connection_options)?));
    }
    for connection in &connections {
        if connection.wait_for_replicas(configuration.size(), ALL_PATIENCE).await.is_err() {
            connection.wait_for_replicas(1, FIRST_PATIENCE).await?;
            let reachability = connection.reachability().await;
            if reachability.reached() < configuration.size() {
                tracing::warn!("{reachability}");
            }
        }
    }
    Ok(connections)
}

/// The sessions of all clients, by turns over the connections.
async fn open_sessions(
    options: &Options,
    identity: &Identity,
    connections: &[Arc<Connection>],
) -> Result<Vec<Session>, Error> {
    let mut sessions = Vec::with_capacity(options.load.clients);
    for (index, connection) in (0..options.load.clients).zip(connections.iter().cycle()) {
        let key = derive_key(&identity.configuration.key, "bench", index as u64);
        sessions.push(connection.client(key).await?);
    }
    Ok(sessions)
}

/// Runs a generator a connection until the end.
async fn drive(
    options: &Options,
    shared: &Arc<Shared>,
    connections: &[Arc<Connection>],
    sessions: Vec<Session>,
    history: Option<&Writer>,
) -> Result<Measured, Error> {
    let run = getrandom::u64().map_err(Error::Randomness)?;
    let prefix = workload::prefix(history.is_some().then_some(run));
    let mut clients: Vec<Vec<LoadClient>> = connections.iter().map(|_| Vec::new()).collect();
    for (index, session) in sessions.into_iter().enumerate() {
        clients[index % connections.len()].push(LoadClient { index, session, submitted: 0 });
    }
    let mut generators = JoinSet::new();
    for (index, (connection, clients)) in connections.iter().zip(clients).enumerate() {
        let (generator, completions) = Generator::new(GeneratorOptions {
            shared: Arc::clone(shared),
            connection: Arc::clone(connection),
            clients,
            window: options.load.window,
            workload: workload::Workload::new(&options.load, prefix.clone(), run.wrapping_add(index as u64)),
            fast_reads: options.load.fast_reads,
            pace: Pace::new(options.load.rate, index, connections.len()),
            lines: history.map(Writer::lines),
        });
        generators.spawn(generator.run(completions));
    }
    let mut watchers = JoinSet::new();
    if options.shows_progress {
        watchers.spawn(progress::show(Arc::clone(shared), options.extent, options.warm_up));
    }
    if let Extent::Requests(_) = options.extent {
        watchers.spawn(end_when_stalled(Arc::clone(shared)));
    }
    let mut measured = Measured::new();
    while let Some(ended) = generators.join_next().await {
        measured.merge(ended.map_err(Error::Broken)??);
    }
    watchers.shutdown().await;
    Ok(measured)
}

/// Ends a run that nobody answers any more.
async fn end_when_stalled(shared: Arc<Shared>) {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut last, mut silent_s) = (0, 0);
    while silent_s < STALL.as_secs() {
        ticks.tick().await;
        let operations = shared.operations.load(Ordering::Relaxed);
        silent_s = if operations == last { silent_s + 1 } else { 0 };
        last = operations;
    }
    shared.is_over.store(true, Ordering::Relaxed);
}

fn report(
    options: &Options,
    shared: &Shared,
    configuration: &Configuration,
    measured: &mut Measured,
    view: u64,
) -> Report {
    let duration_s = match options.extent {
        Extent::Duration(duration) => duration,
        Extent::Requests(_) => Duration::from_nanos(shared.last_answer_ns().saturating_sub(shared.phases.measure_ns)),
    }
    .as_secs_f64();
    Report {
        operations: measured.operations,
        operations_per_second: per_second(measured.operations, duration_s),
        requests: measured.requests,
        errors: measured.errors.values().sum(),
        retries: measured.retries,
        duration_s,
        latency_ms: LatencyMs::new(&measured.latencies),
        longest_gap_ms: shared.longest_gap().as_secs_f64() * 1_000.0,
        view_changes: shared.views_since_first(view),
        replicas: configuration.size(),
        settings: settings(options),
        errors_by_reason: std::mem::take(&mut measured.errors),
        per_second: std::mem::take(&mut measured.per_second),
        never_sent: measured.never_sent,
    }
}

/// What was asked for, as it is shown beside the figures.
fn settings(options: &Options) -> serde_json::Value {
    let mut settings = serde_json::json!(options.load);
    if let Some(settings) = settings.as_object_mut() {
        settings.insert("connections".to_owned(), options.load.connections().into());
        settings.insert("warm_up_s".to_owned(), options.warm_up.as_secs_f64().into());
        let (name, extent) = match options.extent {
            Extent::Duration(duration) => ("duration_s", duration.as_secs_f64().into()),
            Extent::Requests(requests) => ("requests", requests.into()),
        };
        settings.insert(name.to_owned(), extent);
        if let Some(history) = &options.history {
            settings.insert("history".to_owned(), history.display().to_string().into());
        }
    }
    settings
}
