//! Waiting for a condition, with a bound: no test sleeps and hopes.

use std::thread;
use std::time::{Duration, Instant};

/// Longest that an ordinary condition is waited for. Generous: tests share the machine.
pub const LIMIT: Duration = Duration::from_mins(1);

/// From one look at a condition to the next.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Waits until `holds`; gives how long that took.
///
/// # Panics
/// If it does not hold within `limit`: the test has failed.
pub fn wait_until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    loop {
        if holds() {
            return start.elapsed();
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for {what}");
        thread::sleep(BETWEEN_LOOKS);
    }
}
