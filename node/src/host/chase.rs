//! Whether a replica gets to where the others are, or fetches one state after the other while they go on. (PROTOCOL §9)

use std::time::{Duration, Instant};

/// A transfer that begins so soon after the end of one goes on with it: in between the replica never got there.
const SOON: Duration = Duration::from_secs(5);

/// Transfers of which each goes on with the one before, until it is said; and again after so many more.
const SAID_EVERY: u32 = 4;

/// The transfers of late.
#[derive(Debug, Default)]
pub(super) struct Chase {
    ended: Option<Instant>,
    in_a_row: u32,
}

impl Chase {
    /// A transfer ended.
    pub(super) fn on_ended(&mut self, now: Instant) {
        self.ended = Some(now);
    }

    /// One began, or turned to another checkpoint; says how many there were in a row, if somebody should know.
    pub(super) fn on_began(&mut self, now: Instant) -> Option<u32> {
        let ended = self.ended.take()?;
        let goes_on = now.duration_since(ended) < SOON;
        self.in_a_row = if goes_on { self.in_a_row + 1 } else { 0 };
        (goes_on && self.in_a_row.is_multiple_of(SAID_EVERY)).then_some(self.in_a_row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Transfers that take a second each, so long after one another, and which of them somebody hears of.
    fn said(between: Duration, count: u32) -> Vec<u32> {
        let (mut chase, mut now) = (Chase::default(), Instant::now());
        let mut said = Vec::new();
        for _transfer in 0..count {
            said.extend(chase.on_began(now));
            assert_eq!(chase.on_began(now), None, "it turned to another checkpoint");
            now += Duration::from_secs(1);
            chase.on_ended(now);
            now += between;
        }
        said
    }

    #[test]
    fn one_transfer_after_the_other_is_said_now_and_then() {
        assert_eq!(said(Duration::from_millis(100), 10), [4, 8]);
    }

    #[test]
    fn a_replica_that_got_there_may_be_away_again() {
        assert!(said(SOON, 100).is_empty());
    }
}
