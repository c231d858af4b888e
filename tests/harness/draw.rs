//! Numbers that follow from a seed.

use std::time::SystemTime;

use crate::say;

/// Numbers that follow from a seed. (`SplitMix64`: Steele, Lea and Flood, OOPSLA 2014.)
#[derive(Debug, Clone)]
pub struct Draw(u64);

impl Draw {
    /// Those of a seed.
    pub const fn of(seed: u64) -> Self {
        Self(seed)
    }

    /// Those of a new seed, which is printed; `QUORATE_SEED` takes one again.
    ///
    /// # Panics
    /// If the clock stands before 1970.
    pub fn begin() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later than 1970").as_nanos();
        let given = std::env::var("QUORATE_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| u64::try_from(now % 1_000_000_007).expect("it is below the divisor"));
        say(&format!("QUORATE_SEED={seed}"));
        Self(seed)
    }

    /// Any.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// One below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// Whether one of `in_all` is met.
    pub fn one_in(&mut self, in_all: u64) -> bool {
        self.below(in_all) == 0
    }
}
