//! What is counted while load is driven: by each generator for itself, and by all of them together where it must be.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::options::Extent;

/// Longest latency that is told apart from longer ones, in microseconds: an hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// Seconds of which the throughput is kept.
const SECONDS_MAX: usize = 3_600;

/// When a run's phases begin and end, in nanoseconds since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Phases {
    /// Measuring begins.
    pub(super) measure_ns: u64,
    /// Measuring ends; what is still outstanding is waited for a little longer.
    pub(super) end_ns: Option<u64>,
}

/// What all generators share.
#[derive(Debug)]
pub(super) struct Shared {
    start: Instant,
    pub(super) phases: Phases,
    /// Requests that may still be submitted to be measured, if they are counted.
    remaining: Option<AtomicU64>,
    /// For the progress: operations and errors so far, the warm-up's too.
    pub(super) operations: AtomicU64,
    pub(super) errors: AtomicU64,
    /// When the last answer came within the measurement.
    last_answer_ns: AtomicU64,
    longest_gap_ns: AtomicU64,
    /// The view when the first answer was measured.
    first_view: OnceLock<u64>,
    /// Whoever drives the run wants it to end.
    pub(super) is_over: AtomicBool,
}

impl Shared {
    pub(super) fn new(extent: Extent, warm_up: Duration) -> Self {
        let measure_ns = nanoseconds(warm_up);
        let (end_ns, remaining) = match extent {
            Extent::Duration(duration) => (Some(measure_ns.saturating_add(nanoseconds(duration))), None),
            Extent::Requests(requests) => (None, Some(AtomicU64::new(requests))),
        };
        Self {
            start: Instant::now(),
            phases: Phases { measure_ns, end_ns },
            remaining,
            operations: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            last_answer_ns: AtomicU64::new(measure_ns),
            longest_gap_ns: AtomicU64::new(0),
            first_view: OnceLock::new(),
            is_over: AtomicBool::new(false),
        }
    }

    pub(super) fn now_ns(&self) -> u64 {
        nanoseconds(self.start.elapsed())
    }

    /// The moment that lies `ns` after the start.
    pub(super) fn instant(&self, ns: u64) -> Instant {
        self.start + Duration::from_nanos(ns)
    }

    /// Whether one more request may be submitted at `now_ns`; if they are counted, it is counted.
    pub(super) fn admit(&self, now_ns: u64) -> bool {
        if self.is_over.load(Ordering::Relaxed) || self.phases.end_ns.is_some_and(|end_ns| now_ns >= end_ns) {
            return false;
        }
        match &self.remaining {
            Some(remaining) if now_ns >= self.phases.measure_ns => {
                remaining.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            }
            Some(_) | None => true,
        }
    }

    /// Whether no request may be submitted from `now_ns` on.
    pub(super) fn is_closed(&self, now_ns: u64) -> bool {
        self.is_over.load(Ordering::Relaxed)
            || self.phases.end_ns.is_some_and(|end_ns| now_ns >= end_ns)
            || self.remaining.as_ref().is_some_and(|remaining| remaining.load(Ordering::Relaxed) == 0)
    }

    /// Whether a request counts that was submitted and answered at these times.
    pub(super) fn counts(&self, submitted_ns: u64, answered_ns: u64) -> bool {
        match self.phases.end_ns {
            Some(end_ns) => (self.phases.measure_ns..=end_ns).contains(&answered_ns),
            None => submitted_ns >= self.phases.measure_ns,
        }
    }

    /// A measured answer came, in the view that is believed in.
    pub(super) fn on_answer(&self, now_ns: u64, view: u64) {
        let last_ns = self.last_answer_ns.fetch_max(now_ns, Ordering::Relaxed);
        self.longest_gap_ns.fetch_max(now_ns.saturating_sub(last_ns), Ordering::Relaxed);
        self.first_view.get_or_init(|| view);
    }

    /// The longest time without any answer, up to the end of the measurement.
    pub(super) fn longest_gap(&self) -> Duration {
        let last_ns = self.last_answer_ns.load(Ordering::Relaxed);
        let to_the_end = self.phases.end_ns.map_or(0, |end_ns| end_ns.saturating_sub(last_ns));
        Duration::from_nanos(self.longest_gap_ns.load(Ordering::Relaxed).max(to_the_end))
    }

    /// When the last measured answer came.
    pub(super) fn last_answer_ns(&self) -> u64 {
        self.last_answer_ns.load(Ordering::Relaxed)
    }

    /// How many views `view` is above that of the first measured answer.
    pub(super) fn views_since_first(&self, view: u64) -> u64 {
        self.first_view.get().map_or(0, |first| view.saturating_sub(*first))
    }
}

/// What one generator counted of what is measured.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    pub(super) requests: u64,
    pub(super) operations: u64,
    pub(super) retries: u64,
    /// By reason. Bound: the reasons are few and fixed.
    pub(super) errors: BTreeMap<String, u64>,
    /// In microseconds.
    pub(super) latencies: Histogram<u64>,
    /// Operations answered in each second of the measurement. Bound: [`SECONDS_MAX`].
    pub(super) per_second: Vec<u64>,
    /// Requests that were due, but no client had room for them before the end.
    pub(super) never_sent: u64,
}

impl Measured {
    pub(super) fn new() -> Self {
        Self {
            requests: 0,
            operations: 0,
            retries: 0,
            errors: BTreeMap::new(),
            latencies: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
                .expect("three digits up to an hour can be kept"),
            per_second: Vec::new(),
            never_sent: 0,
        }
    }

    /// A request of so many operations was answered so late, `since_ns` into the measurement.
    pub(super) fn on_answer(&mut self, operations: u64, latency_ns: u64, since_ns: u64) {
        self.requests += 1;
        self.operations += operations;
        self.latencies.saturating_record((latency_ns / 1_000).max(1));
        let second = usize::try_from(since_ns / 1_000_000_000).unwrap_or(usize::MAX);
        if second >= SECONDS_MAX {
            return;
        }
        if self.per_second.len() <= second {
            self.per_second.resize(second + 1, 0);
        }
        self.per_second[second] += operations;
    }

    pub(super) fn on_error(&mut self, reason: String) {
        *self.errors.entry(reason).or_default() += 1;
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.requests += other.requests;
        self.operations += other.operations;
        self.retries += other.retries;
        self.never_sent += other.never_sent;
        for (reason, count) in other.errors {
            *self.errors.entry(reason).or_default() += count;
        }
        self.latencies.add(other.latencies).expect("all histograms have the same bounds");
        if self.per_second.len() < other.per_second.len() {
            self.per_second.resize(other.per_second.len(), 0);
        }
        for (sum, more) in self.per_second.iter_mut().zip(other.per_second) {
            *sum += more;
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn for_ten_seconds() -> Shared {
        Shared::new(Extent::Duration(Duration::from_secs(10)), Duration::from_secs(3))
    }

    #[test]
    fn what_is_answered_between_warm_up_and_end_counts() {
        let shared = for_ten_seconds();
        assert!(!shared.counts(0, 3 * SECOND_NS - 1));
        assert!(shared.counts(0, 3 * SECOND_NS));
        assert!(shared.counts(0, 13 * SECOND_NS));
        assert!(!shared.counts(5 * SECOND_NS, 13 * SECOND_NS + 1));
        assert!(shared.admit(13 * SECOND_NS - 1) && !shared.admit(13 * SECOND_NS));
    }

    #[test]
    fn so_many_requests_as_asked_are_submitted_after_the_warm_up() {
        let shared = Shared::new(Extent::Requests(2), Duration::from_secs(1));
        assert!((0..10).all(|now_ns| shared.admit(now_ns)), "the warm-up is not counted");
        assert!(shared.admit(SECOND_NS) && shared.admit(SECOND_NS) && !shared.admit(SECOND_NS));
        assert!(shared.is_closed(SECOND_NS));
        assert!(shared.counts(SECOND_NS, 99 * SECOND_NS) && !shared.counts(SECOND_NS - 1, 2 * SECOND_NS));
    }

    #[test]
    fn the_longest_gap_is_found_between_answers_and_at_both_ends() {
        let shared = for_ten_seconds();
        assert_eq!(shared.longest_gap(), Duration::from_secs(10));
        shared.on_answer(5 * SECOND_NS, 0);
        shared.on_answer(12 * SECOND_NS, 0);
        assert_eq!(shared.longest_gap(), Duration::from_secs(7));
        shared.on_answer(13 * SECOND_NS, 0);
        assert_eq!(shared.longest_gap(), Duration::from_secs(7));
    }

    #[test]
    fn view_changes_count_from_the_first_answer() {
        let shared = for_ten_seconds();
        assert_eq!(shared.views_since_first(5), 0);
        shared.on_answer(5 * SECOND_NS, 5);
        shared.on_answer(6 * SECOND_NS, 6);
        assert_eq!(shared.views_since_first(7), 2);
    }

    #[test]
    fn what_two_generators_measured_adds_up() {
        let (mut one, mut two) = (Measured::new(), Measured::new());
        one.on_answer(2, 5_000_000, 0);
        two.on_answer(3, 9_000_000, 2 * SECOND_NS);
        two.on_error("full".to_owned());
        one.merge(two);
        assert_eq!((one.requests, one.operations, &one.per_second[..]), (2, 5, &[2, 0, 3][..]));
        assert_eq!(one.errors.get("full"), Some(&1));
        assert!(one.latencies.max().abs_diff(9_000) < 10);
    }

    #[test]
    fn the_seconds_that_are_kept_are_bounded() {
        let mut measured = Measured::new();
        measured.on_answer(1, 1, u64::MAX);
        assert!(measured.per_second.is_empty());
        measured.on_answer(1, 1, SECOND_NS * (SECONDS_MAX as u64 - 1));
        assert_eq!(measured.per_second.len(), SECONDS_MAX);
    }
}
