//! The adversary's chance: its own, so that it plays the same game wherever it is hosted.

/// A small generator of numbers without pattern (`SplitMix64`; Steele, Lea and Flood, OOPSLA 2014). Nobody's safety rests on
/// it.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall the same way for the same seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`, or zero if `bound` is.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        let product = u128::from(mixed ^ mixed >> 31) * u128::from(bound);
        u64::try_from(product >> 64).unwrap_or(0)
    }

    /// Whether something happens now that happens so many times in a million.
    pub fn happens(&mut self, parts_per_million: u32) -> bool {
        self.below(1_000_000) < u64::from(parts_per_million)
    }

    /// One of `choices`; none if there are none.
    pub fn choose<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        choices.get(usize::try_from(self.below(choices.len() as u64)).ok()?)
    }
}
