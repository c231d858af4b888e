//! The load generator: what it is asked for, and what it reports.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

/// What load to drive, at which cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The client folder of the cluster.
    pub net: PathBuf,
    /// How long to measure.
    pub duration: Duration,
}

/// Latencies over all requests, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LatencyMs {
    /// Half of the requests took at most this long.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Operations that were answered.
    pub operations: u64,
    /// The same, a second.
    pub operations_per_second: f64,
    /// Requests that were answered.
    pub requests: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Requests that were sent again.
    pub retries: u64,
    /// Seconds over which was measured.
    pub duration_s: f64,
    /// Latency of a request.
    pub latency_ms: LatencyMs,
    /// View changes during the measurement.
    pub view_changes: u64,
    /// Replicas of the cluster.
    pub replicas: usize,
    /// The settings that led to these figures.
    pub settings: serde_json::Value,
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LatencyMs { p50, p90, p99, p999, max } = &self.latency_ms;
        writeln!(formatter, "{:.0} operations a second over {:.1} s", self.operations_per_second, self.duration_s)?;
        writeln!(formatter, "latency in ms: p50 {p50:.2}  p90 {p90:.2}  p99 {p99:.2}  p99.9 {p999:.2}  max {max:.2}")?;
        write!(
            formatter,
            "{} operations in {} requests, {} errors, {} retries, {} view changes, {} replicas",
            self.operations, self.requests, self.errors, self.retries, self.view_changes, self.replicas
        )
    }
}

/// Why no load was driven.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This build has no load generator.
    #[error("the load generator is not built yet")]
    NotBuilt,
}

/// Drives the load and reports. Cancelled by being dropped.
///
/// # Errors
/// [`Error`] says why nothing was measured.
#[expect(clippy::unused_async, reason = "the load generator, which awaits, is not built yet")]
pub async fn run(_options: Options) -> Result<Report, Error> {
    Err(Error::NotBuilt)
}
