//! So many a second, evenly, and none made up for that came too late; and how many it were, said once a second.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

/// How often a portion is due.
const TICK: Duration = Duration::from_millis(5);

/// Ticks of a second.
const TICKS: u32 = 200;

/// How often it is said how many were sent.
pub(super) const TELL: Duration = Duration::from_secs(1);

/// Deals out portions.
#[derive(Debug)]
pub(super) struct Pace {
    attack: &'static str,
    each: u32,
    ticks: Interval,
    sent: u64,
    told: Instant,
}

impl Pace {
    /// So many a second: a multiple of 200, or rounded up to one.
    pub(super) fn new(attack: &'static str, per_second: u32) -> Self {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Self { attack, each: per_second.div_ceil(TICKS), ticks, sent: 0, told: Instant::now() }
    }

    /// Waits for the next portion, and says how many are in it.
    pub(super) async fn next(&mut self) -> u32 {
        self.ticks.tick().await;
        if self.told.elapsed() >= TELL {
            self.told = Instant::now();
            tracing::info!(attack = self.attack, sent = self.sent, "an attack goes on");
        }
        self.each
    }

    /// Counts one that was sent; one that the system had no room for is lost.
    pub(super) fn count(&mut self, sent: &io::Result<usize>) {
        self.sent += u64::from(sent.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_more_come_than_a_second_has_whatever_was_missed() {
        let mut pace = Pace::new("a test", 20_000);
        let begun = Instant::now();
        assert_eq!(pace.next().await, 100);
        tokio::time::sleep(20 * TICK).await;
        let mut count = 100;
        for _portion in 0..20 {
            count += pace.next().await;
        }
        // One portion is due at once after the time that was missed.
        assert!(begun.elapsed() >= 39 * TICK && count == 2_100, "{count} in {:?}", begun.elapsed());
    }
}
