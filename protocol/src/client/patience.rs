//! How long the client waits before it sends a request to all. (PROTOCOL §4.6)
//!
//! The time-out follows the measured latencies as in RFC 6298, within bounds: the lower one keeps a hiccup from sending
//! everything to everyone, the upper one keeps a primary that slows down little by little from being trusted for long.
//! Unlike there, requests that were sent again are measured too, from their first sending: every answer is an answer to
//! the first copy as well, and a cluster under load must not be loaded more because its answers come late.

use core::time::Duration;

use crate::configuration::Parameters;

/// What a window of requests in flight counts for at most: as much as a session may have.
const IN_FLIGHT_MAX: u64 = 64;

/// How far copies of requests lie apart, on average. Each costs every replica the check of a signature.
const COPY_INTERVAL: Duration = Duration::from_secs(1);

/// How long a copy that is due waits for a request that is new. Where none is sent for so long all wait for answers, and the one
/// that waits longest is copied: of clients that ask one thing after the other, it is the slow requests that most moments fall into,
/// and none of them would ever be seen.
pub(super) const COPY_PATIENCE: Duration = Duration::from_millis(20);

/// The adaptive time-out with its jitter.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    /// Before anything is measured, in nanoseconds, as all of these.
    base: u64,
    floor: u64,
    ceiling: u64,
    /// The longest wait of all.
    cap: u64,
    measured: Option<Measured>,
    random: u64,
}

#[derive(Debug, Clone, Copy)]
struct Measured {
    smoothed: u64,
    variation: u64,
}

impl Patience {
    /// The bounds follow from the parameters: the client time-out, sixteen times of it, and the deadline cap. A cluster
    /// whose clients fill its queue answers within a second or two, and must not get everything from everyone then.
    pub(super) fn new(parameters: &Parameters, jitter_seed: u64) -> Self {
        let cap = nanoseconds(parameters.deadline_cap());
        let base = nanoseconds(parameters.client_timeout()).min(cap);
        let ceiling = base.saturating_mul(16).min(cap);
        Self { base, floor: base, ceiling, cap, measured: None, random: jitter_seed }
    }

    /// An answer took `latency` while `in_flight` requests, this one among them, were under way. Answers come in bursts, a
    /// batch of alike ones at a time: each moves the estimate by as little as makes a window of them one measurement
    /// (RFC 7323, appendix G), or the spread between batches would be forgotten within one.
    pub(super) fn measure(&mut self, latency: Duration, in_flight: usize) {
        let latency = nanoseconds(latency).min(self.cap);
        let share = u64::try_from(in_flight).unwrap_or(u64::MAX).clamp(1, IN_FLIGHT_MAX);
        self.measured = Some(match self.measured {
            None => Measured { smoothed: latency, variation: latency / 2 },
            Some(Measured { smoothed, variation }) => Measured {
                smoothed: smoothed - smoothed / (8 * share) + latency / (8 * share),
                variation: variation - variation / (4 * share) + smoothed.abs_diff(latency) / (4 * share),
            },
        });
    }

    /// The time-out of a request that was sent once, without jitter.
    pub(super) fn timeout(&self) -> Duration {
        let estimate = self.measured.map(|measured| measured.smoothed.saturating_add(4 * measured.variation));
        Duration::from_nanos(estimate.map_or(self.base, |estimate| estimate.clamp(self.floor, self.ceiling)))
    }

    /// How long to wait for the answer to a request that was sent again `retries` times: doubled each time up to the cap,
    /// and up to a quarter shorter at random, so that what was sent together is not sent again together.
    pub(super) fn wait(&mut self, retries: u32) -> Duration {
        let doubled = nanoseconds(self.timeout()).saturating_mul(1_u64.checked_shl(retries).unwrap_or(u64::MAX));
        let wait = doubled.min(self.cap);
        Duration::from_nanos(wait - self.below(wait / 4))
    }

    /// How long it takes until a request is copied to all: a second, half of it more or less at random.
    pub(super) fn until_copy(&mut self) -> Duration {
        COPY_INTERVAL / 2 + Duration::from_nanos(self.below(nanoseconds(COPY_INTERVAL)))
    }

    /// How long to stay away when asked to for `asked`: at least that, and up to a quarter longer at random.
    pub(super) fn stay_away(&mut self, asked: Duration) -> Duration {
        let asked = nanoseconds(asked).clamp(self.base / 16, self.base);
        Duration::from_nanos(asked.saturating_add(self.below(asked / 4)))
    }

    /// A number from zero up to `bound`, without it if it is not zero: the sequence of splitmix64.
    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)).checked_rem(bound).unwrap_or(0)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// Base 250 ms, cap 8 s.
    fn patience() -> Patience {
        Patience::new(&Parameters::default(), 7)
    }

    fn after(samples: usize, latency: Duration) -> Duration {
        let mut patience = patience();
        (0..samples).for_each(|_| patience.measure(latency, 1));
        patience.timeout()
    }

    #[test]
    fn before_anything_is_measured_the_time_out_is_the_parameter() {
        assert_eq!(patience().timeout(), 250 * MILLISECOND);
    }

    #[test]
    fn short_latencies_lower_the_time_out_to_its_floor_and_no_further() {
        assert_eq!(after(100, MILLISECOND), 250 * MILLISECOND);
    }

    #[test]
    fn long_latencies_raise_the_time_out_to_its_ceiling_and_no_further() {
        assert_eq!(after(1, 120 * MILLISECOND), 360 * MILLISECOND);
        assert_eq!(after(100, Duration::MAX), 4000 * MILLISECOND);
    }

    #[test]
    fn steady_latencies_bring_the_time_out_close_to_them() {
        let timeout = after(200, 400 * MILLISECOND);
        assert!((400 * MILLISECOND..410 * MILLISECOND).contains(&timeout), "{timeout:?}");
    }

    #[test]
    fn answers_that_come_a_window_at_a_time_do_not_hide_how_far_the_windows_lie_apart() {
        let mut patience = patience();
        for round in 0..400 {
            let latency = if round % 2 == 0 { 400 } else { 800 } * MILLISECOND;
            (0..32).for_each(|_| patience.measure(latency, 32));
            assert!(round < 8 || patience.timeout() > 850 * MILLISECOND, "{round}: {:?}", patience.timeout());
        }
    }

    #[test]
    fn a_wait_doubles_with_each_retry_up_to_the_cap() {
        let mut patience = patience();
        for (retries, full_ms) in [(0, 250), (1, 500), (2, 1000), (5, 8000), (6, 8000), (64, 8000), (u32::MAX, 8000)] {
            let (wait, full) = (patience.wait(retries), full_ms * MILLISECOND);
            assert!(wait <= full && wait > full * 3 / 4, "{retries} retries: {wait:?}");
        }
    }

    #[test]
    fn waits_that_begin_together_end_apart() {
        let mut patience = patience();
        let mut waits: alloc::vec::Vec<Duration> = (0..64).map(|_| patience.wait(0)).collect();
        waits.sort_unstable();
        waits.dedup();
        assert_eq!(waits.len(), 64);
    }

    #[test]
    fn nobody_is_sent_away_for_longer_than_the_time_out_or_for_no_time() {
        let mut patience = patience();
        assert!(patience.stay_away(Duration::MAX) <= 313 * MILLISECOND);
        assert!(patience.stay_away(Duration::ZERO) >= 15 * MILLISECOND);
    }
}
