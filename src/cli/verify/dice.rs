//! Chance from a seed: the same seed and the same name throw the same numbers.

use std::time::Duration;

/// A stream of numbers (SplitMix64).
pub struct Dice(u64);

impl Dice {
    /// The dice of one worker.
    pub fn of(seed: u64, name: &str) -> Self {
        Self(seed ^ xxhash_rust::xxh3::xxh3_64(name.as_bytes()))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `end` − 1.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// `from` to `to`, both included.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// Once in so many times.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A pause around `mean`.
    pub fn around(&mut self, mean: Duration) -> Duration {
        mean.mul_f64((self.below(1000) as f64 + 500.0) / 1000.0)
    }
}
