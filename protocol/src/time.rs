//! The two clocks that the core is handed: a monotonic one for deadlines, a wall clock for the stamps of batches.

use core::fmt;
use core::time::Duration;

use crate::codec::{Decode, Encode};

/// A moment of the monotonic clock, in nanoseconds since an arbitrary start. Never leaves the replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// The start of the clock.
    pub const ZERO: Self = Self(0);

    /// The moment `nanoseconds` after the start of the clock.
    pub const fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// Nanoseconds since the start of the clock.
    pub const fn nanoseconds(self) -> u64 {
        self.0
    }

    /// The moment `duration` later; the end of time if that lies beyond it.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(duration)))
    }

    /// So long before; zero at the earliest.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanoseconds(duration)))
    }

    /// How long ago `earlier` was; zero if it was not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A moment of the wall clock, in nanoseconds since the Unix epoch. Serves the stamps of batches only. (PROTOCOL §9)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub struct WallTime(u64);

impl WallTime {
    /// The Unix epoch.
    pub const ZERO: Self = Self(0);

    /// The moment `nanoseconds` after the Unix epoch.
    pub const fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn nanoseconds(self) -> u64 {
        self.0
    }

    /// How far apart the two moments lie, whichever comes first.
    pub fn distance(self, other: Self) -> Duration {
        Duration::from_nanos(self.0.abs_diff(other.0))
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

/// Both clocks, read once per input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Now {
    /// For deadlines.
    pub monotonic: Time,
    /// For the stamp of a batch and the check of one.
    pub wall: WallTime,
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_neither_overflows_nor_runs_backwards() {
        assert_eq!(Time::from_nanoseconds(u64::MAX).after(Duration::MAX), Time::from_nanoseconds(u64::MAX));
        assert_eq!(Time::ZERO.since(Time::from_nanoseconds(5)), Duration::ZERO);
    }

    #[test]
    fn the_distance_of_two_wall_times_has_no_sign() {
        let (early, late) = (WallTime::from_nanoseconds(5), WallTime::from_nanoseconds(9));
        assert_eq!(early.distance(late), late.distance(early));
    }
}
