//! When a request is due, in nanoseconds since the start of the run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Least time between two ticks, in nanoseconds: what is due meanwhile goes out together.
const TICK_NS_MIN: u64 = 200_000;

/// Longest that a ticker sleeps before it looks whether anybody listens.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// Of one generator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pace {
    /// At once, whenever a client has room.
    Closed,
    /// One after the other at fixed distances, whatever is answered.
    Open {
        /// From one to the next.
        interval_ns: f64,
        /// How many were due so far.
        count: u64,
        /// When the first is due.
        first_ns: u64,
    },
}

impl Pace {
    /// The pace of generator `index` of `count` that have the rate together: their requests are due in turns.
    pub(super) fn new(rate: Option<f64>, index: usize, count: usize) -> Self {
        let Some(rate) = rate else { return Self::Closed };
        let interval_ns = 1e9 * to_f64(count) / rate;
        Self::Open { interval_ns, count: 0, first_ns: to_u64(interval_ns * to_f64(index) / to_f64(count)) }
    }

    /// When the next request is due.
    pub(super) fn next_due(&self, now_ns: u64) -> u64 {
        match *self {
            Self::Closed => now_ns,
            Self::Open { interval_ns, count, first_ns } => {
                // Exact up to 2^53 ns, three months of load.
                first_ns.saturating_add(to_u64(interval_ns * u64_to_f64(count)))
            }
        }
    }

    /// How many more requests are due before `end_ns`.
    pub(super) fn due_before(&self, end_ns: u64) -> u64 {
        match *self {
            Self::Closed => 0,
            Self::Open { interval_ns, count, first_ns } => {
                let due = (u64_to_f64(end_ns.saturating_sub(first_ns)) / interval_ns).ceil();
                to_u64(due).saturating_sub(count)
            }
        }
    }

    /// The next request was submitted.
    pub(super) fn advance(&mut self) {
        if let Self::Open { count, .. } = self {
            *count += 1;
        }
    }
}

/// Ticks when requests are due. A thread of its own, since the runtime's clock goes by whole milliseconds.
#[derive(Debug)]
pub(super) struct Ticker {
    ticked: Arc<Notify>,
    is_over: Arc<AtomicBool>,
}

impl Ticker {
    /// Ticks for an open loop whose run began at `start`. Without a thread the generator looks less often.
    pub(super) fn start(pace: &Pace, start: Instant) -> Option<Self> {
        let Pace::Open { interval_ns, first_ns, .. } = *pace else { return None };
        let ticker = Self { ticked: Arc::default(), is_over: Arc::default() };
        let (ticked, is_over) = (Arc::clone(&ticker.ticked), Arc::clone(&ticker.is_over));
        let interval_ns = to_u64(interval_ns).max(TICK_NS_MIN);
        let work = move || {
            let mut next_ns = first_ns;
            while !is_over.load(Ordering::Relaxed) {
                let left = Duration::from_nanos(next_ns).saturating_sub(start.elapsed());
                thread::sleep(left.min(SLEEP_MAX));
                if left <= SLEEP_MAX {
                    ticked.notify_one();
                    next_ns = next_ns.saturating_add(interval_ns);
                }
            }
        };
        let started = thread::Builder::new().name("pace".to_owned()).spawn(work);
        started.is_ok().then_some(ticker)
    }

    /// Waits for the next tick; those that nobody waited for are one.
    pub(super) async fn tick(&self) {
        self.ticked.notified().await;
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

fn to_f64(count: usize) -> f64 {
    u64_to_f64(count as u64)
}

#[expect(clippy::cast_precision_loss, reason = "counts of one run stay far below 2^53")]
fn u64_to_f64(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the conversion saturates")]
fn to_u64(nanoseconds: f64) -> u64 {
    nanoseconds as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_closed_loop_a_request_is_always_due() {
        let mut pace = Pace::new(None, 0, 1);
        pace.advance();
        assert_eq!(pace.next_due(77), 77);
    }

    #[test]
    fn in_an_open_loop_requests_are_due_at_the_rate_whatever_the_time_is() {
        let mut pace = Pace::new(Some(1_000.0), 0, 1);
        assert_eq!(pace.next_due(5), 0);
        for _ in 0..2_500 {
            pace.advance();
        }
        assert_eq!(pace.next_due(5), 2_500_000_000);
    }

    #[test]
    fn what_was_due_and_not_submitted_is_counted() {
        let mut pace = Pace::new(Some(1_000.0), 0, 1);
        assert_eq!(pace.due_before(2_000_000_000), 2_000);
        pace.advance();
        assert_eq!(pace.due_before(2_000_000_000), 1_999);
        assert_eq!(pace.due_before(0), 0);
        assert_eq!(Pace::Closed.due_before(u64::MAX), 0);
    }

    #[tokio::test]
    async fn a_ticker_ticks_until_it_is_dropped() {
        assert!(Ticker::start(&Pace::Closed, Instant::now()).is_none());
        let ticker = Ticker::start(&Pace::new(Some(1_000.0), 0, 1), Instant::now()).unwrap();
        for _ in 0..3 {
            tokio::time::timeout(Duration::from_secs(10), ticker.tick()).await.unwrap();
        }
        let thread_holds = Arc::downgrade(&ticker.is_over);
        drop(ticker);
        while thread_holds.strong_count() > 0 {
            thread::yield_now();
        }
    }

    #[test]
    fn generators_take_turns() {
        let due: Vec<u64> = (0..4).map(|index| Pace::new(Some(1_000.0), index, 4).next_due(0)).collect();
        assert_eq!(due, [0, 1_000_000, 2_000_000, 3_000_000]);
    }
}
