//! The clocks of one machine: started at some moment, running a little too fast or too slow. (PROTOCOL §9)

use core::time::Duration;

use quorate_protocol::Now;
use quorate_protocol::time::{Time, WallTime};

use crate::random::Random;

/// How far a wall clock that runs too fast or too slow gets from true time, in nanoseconds: whoever keeps clocks right sets it
/// back then. A cluster whose clocks drift apart without end orders nothing after a while. (PROTOCOL §4.3)
const DRIFT_MAX: u64 = 500_000_000;

/// What the wall clocks show, in nanoseconds since the Unix epoch, when a simulation begins.
const WALL_START: u64 = 1_800_000_000_000_000_000;

/// What a right wall clock shows at the true time `time`.
pub(crate) fn wall_at(time: Time) -> WallTime {
    WallTime::from_nanoseconds(WALL_START.saturating_add(time.nanoseconds()))
}

/// How a machine's clocks differ from true time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// What the monotonic clock showed at true time zero; differs with each start of the machine.
    monotonic_start: u64,
    /// What the wall clock showed at true time zero.
    wall_start: u64,
    /// By how much somebody set the wall clock wrong, in nanoseconds.
    wall_error: i64,
    /// By how many parts of a million the clocks run too fast.
    drift_ppm: i64,
}

/// By how much clocks differ from true time at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockOptions {
    /// How far a wall clock is off, either way.
    pub offset_max: Duration,
    /// By how many parts of a million a clock runs too fast or too slow; below a million.
    pub drift_ppm_max: u32,
}

impl Default for ClockOptions {
    fn default() -> Self {
        Self { offset_max: Duration::from_millis(100), drift_ppm_max: 200 }
    }
}

impl Clock {
    /// The clocks of a machine.
    pub fn draw(options: ClockOptions, random: &mut Random) -> Self {
        let offset_max = u64::try_from(options.offset_max.as_nanos()).unwrap_or(u64::MAX).min(WALL_START);
        let drift_max = u64::from(options.drift_ppm_max);
        let drift = i64::try_from(random.between(0, 2 * drift_max)).unwrap_or(0) - i64::from(options.drift_ppm_max);
        Self {
            monotonic_start: 0,
            wall_start: WALL_START - offset_max + random.between(0, 2 * offset_max),
            wall_error: 0,
            drift_ppm: drift,
        }
        .restarted(random)
    }

    /// The same clocks after the machine restarted: the monotonic one counts from another moment.
    #[must_use]
    pub fn restarted(mut self, random: &mut Random) -> Self {
        self.monotonic_start = random.below(1 << 50);
        self
    }

    /// Sets the wall clock wrong by so many nanoseconds, or right again by none.
    pub fn set_wall_error(&mut self, nanoseconds: i64) {
        self.wall_error = nanoseconds;
    }

    /// What the clocks show at the true time `time`.
    pub fn now(&self, time: Time) -> Now {
        let elapsed = self.elapsed(time);
        Now {
            monotonic: Time::from_nanoseconds(self.monotonic_start.saturating_add(elapsed)),
            wall: WallTime::from_nanoseconds(
                self.wall_start.saturating_add(self.disciplined(time)).saturating_add_signed(self.wall_error),
            ),
        }
    }

    /// The first true time at which the monotonic clock shows at least `monotonic`.
    pub fn when(&self, monotonic: Time) -> Time {
        let elapsed = u128::from(monotonic.nanoseconds().saturating_sub(self.monotonic_start));
        let nanoseconds = (elapsed * 1_000_000).div_ceil(self.rate_ppm());
        Time::from_nanoseconds(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    fn elapsed(&self, time: Time) -> u64 {
        let elapsed = u128::from(time.nanoseconds()) * self.rate_ppm() / 1_000_000;
        u64::try_from(elapsed).unwrap_or(u64::MAX)
    }

    /// What has elapsed on a wall clock that is kept right within [`DRIFT_MAX`].
    fn disciplined(&self, time: Time) -> u64 {
        let truth = time.nanoseconds();
        self.elapsed(time).clamp(truth.saturating_sub(DRIFT_MAX), truth.saturating_add(DRIFT_MAX))
    }

    fn rate_ppm(&self) -> u128 {
        u128::from(1_000_000_u64.saturating_add_signed(self.drift_ppm).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    #[test]
    fn a_wall_clock_is_kept_near_true_time_however_fast_it_runs() {
        let options = ClockOptions { offset_max: Duration::ZERO, drift_ppm_max: 20_000 };
        let mut random = Random::new(4, Stream::Clock);
        for _ in 0..100 {
            let clock = Clock::draw(options, &mut random);
            let mut before = clock.now(Time::ZERO).wall;
            for seconds in [1, 10, 100, 1_000] {
                let time = Time::ZERO.after(Duration::from_secs(seconds));
                let (wall, truth) = (clock.now(time).wall, wall_at(time));
                assert!(wall.nanoseconds().abs_diff(truth.nanoseconds()) <= DRIFT_MAX && wall > before);
                before = wall;
            }
        }
    }

    #[test]
    fn a_deadline_has_passed_at_the_moment_that_it_maps_to_and_not_before() {
        let mut random = Random::new(3, Stream::Clock);
        for _ in 0..1_000 {
            let clock = Clock::draw(ClockOptions { drift_ppm_max: 100_000, ..ClockOptions::default() }, &mut random);
            let start = clock.now(Time::ZERO).monotonic;
            let deadline = start.after(Duration::from_nanos(random.below(1 << 40)));
            let moment = clock.when(deadline);
            assert!(clock.now(moment).monotonic >= deadline);
            let before = Time::from_nanoseconds(moment.nanoseconds().saturating_sub(1));
            assert!(moment == Time::ZERO || clock.now(before).monotonic < deadline);
        }
    }

    #[test]
    fn a_restart_changes_the_monotonic_clock_and_leaves_the_wall_clock() {
        let mut random = Random::new(3, Stream::Clock);
        let before = Clock::draw(ClockOptions::default(), &mut random);
        let after = before.restarted(&mut random);
        assert_eq!(before.now(Time::ZERO).wall, after.now(Time::ZERO).wall);
        assert_ne!(before.now(Time::ZERO).monotonic, after.now(Time::ZERO).monotonic);
    }
}
