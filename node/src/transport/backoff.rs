//! How long to wait before the next connection: exponential, with jitter, so that a cluster that restarts does not dial in
//! step. Pure: the caller hands in the randomness.

use std::time::Duration;

use crate::transport::close::LinkError;

/// The first wait is at most this long.
pub const BACKOFF_FLOOR: Duration = Duration::from_millis(50);
/// No wait is longer.
pub const BACKOFF_CAP: Duration = Duration::from_secs(2);

const _: () = assert!(BACKOFF_FLOOR.as_nanos() > 0 && BACKOFF_FLOOR.as_nanos() <= BACKOFF_CAP.as_nanos());

/// The sequence of waits between attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    ceiling: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { ceiling: BACKOFF_FLOOR }
    }
}

impl Backoff {
    /// The wait after a failed attempt: between half the ceiling and the ceiling, which then doubles up to
    /// [`BACKOFF_CAP`]. `random` is any 32 random bits.
    pub fn next_wait(&mut self, random: u32) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = ceiling.saturating_mul(2).min(BACKOFF_CAP);
        let half = ceiling / 2;
        half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// Starts over, if the link that just ended had lived for longer than any wait. One that ends sooner counts as a
    /// failed attempt, or a peer that accepts and closes would be dialled without pause. Whom the host closed is met
    /// again after the longest wait.
    pub fn on_link_ended(&mut self, lived: Duration, why: &LinkError) {
        if matches!(why, LinkError::ClosedHere(_)) {
            self.ceiling = BACKOFF_CAP;
        } else if lived >= BACKOFF_CAP {
            *self = Self::default();
        }
    }
}

/// Randomness for [`Backoff::next_wait`]. Where the operating system has none, a fixed value: jitter is no secret.
pub(crate) fn jitter() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::CloseReason;

    #[test]
    fn waits_double_up_to_the_cap_and_stay_within_their_jitter() {
        let (mut low, mut high) = (Backoff::default(), Backoff::default());
        let mut ceiling = BACKOFF_FLOOR;
        for _attempt in 0..12 {
            assert_eq!(low.next_wait(0), ceiling / 2);
            let longest = high.next_wait(u32::MAX);
            assert!(longest <= ceiling && longest > ceiling.mul_f64(0.95));
            ceiling = (ceiling * 2).min(BACKOFF_CAP);
        }
        assert_eq!(ceiling, BACKOFF_CAP);
    }

    #[test]
    fn only_a_link_that_lived_long_starts_the_waits_over() {
        let mut backoff = Backoff::default();
        for _attempt in 0..8 {
            backoff.next_wait(0);
        }
        backoff.on_link_ended(Duration::from_millis(10), &LinkError::TimedOut);
        assert_eq!(backoff.next_wait(0), BACKOFF_CAP / 2);
        backoff.on_link_ended(BACKOFF_CAP, &LinkError::TimedOut);
        assert_eq!(backoff.next_wait(0), BACKOFF_FLOOR / 2);
    }

    #[test]
    fn whom_the_host_closed_is_met_again_after_the_longest_wait() {
        let mut backoff = Backoff::default();
        let reason = CloseReason { code: 1, text: "it sends nonsense".into(), is_offence: true };
        backoff.on_link_ended(BACKOFF_CAP * 10, &LinkError::ClosedHere(reason));
        assert_eq!(backoff.next_wait(0), BACKOFF_CAP / 2);
    }
}
