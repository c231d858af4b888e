//! Everything that chance decides, drawn from one seed: the same on every machine.
//!
//! Integers only: a logarithm may differ in its last bit between machines, and then so would the whole run. Each part of
//! the simulator draws from a stream of its own, so that one that draws more does not change what another draws.

use core::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// Who draws: each from an independent stream of the same seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Delays, losses and duplicates.
    Network,
    /// Delays and damage of disks.
    Disk,
    /// Offsets and drifts of clocks.
    Clock,
    /// How long the application takes.
    Application,
    /// What clients ask for.
    Workload,
    /// Which faults happen when.
    Faults,
    /// Which messages the rules of a scenario meet.
    Rules,
    /// Which bytes of an attacker change on the way.
    Garble,
    /// What clients in the adversary's hands do.
    Rogues,
    /// Which calls are reads that nobody orders, and what attackers make of those.
    Reads,
    /// All that concerns standbys.
    Standbys,
    /// What clusters begin with.
    Founding,
}

/// A seeded source of numbers.
#[derive(Debug, Clone)]
pub struct Random(ChaCha8Rng);

/// How likely something is, in parts of a million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Chance(u32);

/// How long something takes: never less than `min`, on average `mean`, seldom up to about eight times the mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delay {
    /// The shortest.
    pub min: Duration,
    /// The average; at least `min`.
    pub mean: Duration,
}

impl Chance {
    /// Not at all.
    pub const NEVER: Self = Self(0);

    /// `percent` times in a hundred; a hundred or more is always.
    pub const fn percent(percent: u32) -> Self {
        Self(percent.saturating_mul(10_000))
    }

    /// `count` times in a million; a million or more is always.
    pub const fn per_million(count: u32) -> Self {
        Self(count)
    }
}

impl Delay {
    /// No time at all.
    pub const NONE: Self = Self { min: Duration::ZERO, mean: Duration::ZERO };

    /// At least `min` and on average `mean` microseconds.
    pub const fn microseconds(min: u64, mean: u64) -> Self {
        Self { min: Duration::from_micros(min), mean: Duration::from_micros(mean) }
    }
}

impl Random {
    /// The stream `stream` of `seed`.
    pub fn new(seed: u64, stream: Stream) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut generator = ChaCha8Rng::from_seed(bytes);
        generator.set_stream(stream as u64);
        Self(generator)
    }

    /// A number below `bound`, or zero if `bound` is.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of a 128-bit product: even to within one part in 2^64 / bound.
        let product = u128::from(self.0.next_u64()) * u128::from(bound);
        u64::try_from(product >> 64).expect("the upper half of 128 bits")
    }

    /// A number from `low` to `high`, both possible.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// An index into something of `count` elements; zero if there are none.
    pub fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).expect("below a count of things in memory")
    }

    /// One of `choices`, of which there is at least one.
    pub fn choose<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.index(choices.len())]
    }

    /// Whether something of this chance happens now.
    pub fn happens(&mut self, chance: Chance) -> bool {
        chance.0 > 0 && self.below(1_000_000) < u64::from(chance.0)
    }

    /// A time from `low` to `high`.
    pub fn duration(&mut self, low: Duration, high: Duration) -> Duration {
        let nanoseconds = self.between(nanoseconds(low), nanoseconds(high));
        Duration::from_nanos(nanoseconds)
    }

    /// How long something of this delay takes now.
    pub fn delay(&mut self, delay: Delay) -> Duration {
        let spread = nanoseconds(delay.mean.saturating_sub(delay.min));
        let mut drawn = self.below(spread.saturating_add(1));
        if self.below(8) == 0 {
            drawn = drawn.saturating_add(self.below(spread.saturating_mul(8).saturating_add(1)));
        }
        delay.min + Duration::from_nanos(drawn)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_for_ever() {
        let mut random = Random::new(7, Stream::Network);
        let drawn = [random.below(1_000_000), random.below(1_000_000), random.below(1_000_000)];
        assert_eq!(drawn, [764_109, 465_937, 5_674]);
    }

    #[test]
    fn streams_of_one_seed_differ() {
        let mut network = Random::new(7, Stream::Network);
        let mut disk = Random::new(7, Stream::Disk);
        assert_ne!(network.below(u64::MAX), disk.below(u64::MAX));
    }

    #[test]
    fn a_number_between_two_bounds_reaches_both_and_no_further() {
        let mut random = Random::new(1, Stream::Faults);
        let drawn: Vec<u64> = (0..200).map(|_| random.between(3, 5)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&3), Some(&5)));
    }

    #[test]
    fn a_delay_is_near_its_mean_and_never_below_its_minimum() {
        let mut random = Random::new(1, Stream::Network);
        let delay = Delay::microseconds(500, 1_000);
        let drawn: Vec<Duration> = (0..10_000).map(|_| random.delay(delay)).collect();
        assert!(drawn.iter().all(|drawn| *drawn >= delay.min));
        let mean = drawn.iter().sum::<Duration>() / 10_000;
        assert!(mean > Duration::from_micros(950) && mean < Duration::from_micros(1_050), "{mean:?}");
    }

    #[test]
    fn a_chance_of_never_never_happens_and_of_a_hundred_percent_always() {
        let mut random = Random::new(1, Stream::Faults);
        assert!(!(0..1_000).any(|_| random.happens(Chance::NEVER)));
        assert!((0..1_000).all(|_| random.happens(Chance::percent(100))));
    }
}
