//! What was measured, for people and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Columns of the line that shows the throughput over time, at most.
const COLUMNS_MAX: usize = 60;

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

impl LatencyMs {
    pub(super) fn new(latencies_us: &Histogram<u64>) -> Self {
        let at = |quantile| milliseconds(latencies_us.value_at_quantile(quantile));
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: milliseconds(latencies_us.max()) }
    }
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
    /// Requests that failed, or had no answer in the end.
    pub errors: u64,
    /// How often a request was sent to all replicas after a time-out.
    pub retries: u64,
    /// Seconds over which was measured.
    pub duration_s: f64,
    /// Latency of a request.
    pub latency_ms: LatencyMs,
    /// Longest time without any answer, in milliseconds.
    pub longest_gap_ms: f64,
    /// Views passed during the measurement.
    pub view_changes: u64,
    /// Replicas of the cluster.
    pub replicas: usize,
    /// The settings that led to these figures.
    pub settings: serde_json::Value,
    /// The errors by reason.
    #[serde(skip)]
    pub errors_by_reason: BTreeMap<String, u64>,
    /// Operations answered in each second.
    #[serde(skip)]
    pub per_second: Vec<u64>,
    /// Requests that were due at the rate asked for, but that no client had room for.
    #[serde(skip)]
    pub never_sent: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LatencyMs { p50, p90, p99, p999, max } = &self.latency_ms;
        let Self { operations, requests, duration_s, errors, retries, view_changes, replicas, .. } = self;
        let requests_per_second = per_second(*requests, *duration_s);
        writeln!(
            formatter,
            "throughput  {:.0} operations/s in {requests_per_second:.0} requests/s",
            self.operations_per_second
        )?;
        writeln!(formatter, "latency     p50 {p50:.2} ms  p90 {p90:.2}  p99 {p99:.2}  p99.9 {p999:.2}  max {max:.2}")?;
        writeln!(formatter, "answered    {operations} operations in {requests} requests over {duration_s:.1} s")?;
        writeln!(formatter, "trouble     {errors} errors, {retries} retries, {view_changes} view changes")?;
        for (reason, count) in &self.errors_by_reason {
            writeln!(formatter, "            {count} times: {reason}")?;
        }
        if self.never_sent > 0 {
            writeln!(formatter, "            {} requests were due but found no client with room", self.never_sent)?;
        }
        writeln!(formatter, "silence     {:.0} ms at most without any answer", self.longest_gap_ms)?;
        if self.per_second.len() > 1 {
            let most = self.per_second.iter().max().copied().unwrap_or(0);
            writeln!(formatter, "each second {}  (most: {most} operations)", bars(&self.per_second))?;
        }
        write!(formatter, "cluster     {replicas} replicas")
    }
}

pub(super) fn milliseconds(microseconds: u64) -> f64 {
    // Exact: latencies are an hour at most.
    u32::try_from(microseconds).map_or(f64::INFINITY, f64::from) / 1_000.0
}

#[expect(clippy::cast_precision_loss, reason = "shown with fewer digits than are exact")]
pub(super) fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

/// A bar for each second, or for several where they are too many for a line.
fn bars(per_second: &[u64]) -> String {
    const BARS: [char; 9] = ['_', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let seconds_a_column = per_second.len().div_ceil(COLUMNS_MAX).max(1);
    let columns: Vec<u64> =
        per_second.chunks(seconds_a_column).map(|seconds| seconds.iter().sum::<u64>() / seconds.len() as u64).collect();
    let most = columns.iter().max().copied().unwrap_or(0).max(1);
    let bar = |count: &u64| BARS[usize::try_from(count.saturating_mul(8).div_ceil(most)).unwrap_or(0).min(8)];
    columns.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            operations: 4_000,
            operations_per_second: 2_000.0,
            requests: 1_000,
            errors: 3,
            retries: 2,
            duration_s: 2.0,
            latency_ms: LatencyMs { p50: 1.0, p90: 2.0, p99: 3.0, p999: 4.0, max: 5.25 },
            longest_gap_ms: 12.4,
            view_changes: 1,
            replicas: 4,
            settings: serde_json::json!({"clients": 64}),
            errors_by_reason: [("the store is full".to_owned(), 3)].into(),
            per_second: vec![1_500, 2_500],
            never_sent: 0,
        }
    }

    #[test]
    fn a_report_for_people_says_everything_that_was_measured() {
        let expected = "\
throughput  2000 operations/s in 500 requests/s
latency     p50 1.00 ms  p90 2.00  p99 3.00  p99.9 4.00  max 5.25
answered    4000 operations in 1000 requests over 2.0 s
trouble     3 errors, 2 retries, 1 view changes
            3 times: the store is full
silence     12 ms at most without any answer
each second ▅█  (most: 2500 operations)
cluster     4 replicas";
        assert_eq!(report().to_string(), expected);
    }

    #[test]
    fn a_report_for_programs_has_the_fields_of_the_contract() {
        let json = serde_json::to_value(report()).unwrap();
        let fields: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = vec![
            "operations",
            "operations_per_second",
            "requests",
            "errors",
            "retries",
            "duration_s",
            "latency_ms",
            "view_changes",
            "replicas",
            "settings",
            "longest_gap_ms",
        ];
        expected.sort_unstable();
        let mut found = fields;
        found.sort_unstable();
        assert_eq!(found, expected);
        let latency: Vec<&str> = json["latency_ms"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(latency.len(), 5);
    }

    #[test]
    fn latencies_are_those_of_the_histogram_in_milliseconds() {
        let mut latencies = Histogram::<u64>::new_with_bounds(1, 3_600_000_000, 3).unwrap();
        for microseconds in 1..=1_000 {
            latencies.record(microseconds * 1_000).unwrap();
        }
        let LatencyMs { p50, p99, max, .. } = LatencyMs::new(&latencies);
        assert!((499.0..502.0).contains(&p50) && (989.0..992.0).contains(&p99) && (999.0..1_002.0).contains(&max));
    }

    #[test]
    fn a_long_run_fits_a_line() {
        assert_eq!(bars(&vec![7; 3_600]).chars().count(), COLUMNS_MAX);
        assert_eq!(bars(&[0, 4, 8]), "_▄█");
        assert_eq!(bars(&[0, 0]), "__");
    }
}
