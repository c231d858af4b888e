//! When a request is due, in nanoseconds since the start of the run.

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

    /// The next request was submitted.
    pub(super) fn advance(&mut self) {
        if let Self::Open { count, .. } = self {
            *count += 1;
        }
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
    fn generators_take_turns() {
        let due: Vec<u64> = (0..4).map(|index| Pace::new(Some(1_000.0), index, 4).next_due(0)).collect();
        assert_eq!(due, [0, 1_000_000, 2_000_000, 3_000_000]);
    }
}
