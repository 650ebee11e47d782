//! Chance from a seed: the same seed and the same name throw the same numbers.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// A stream of numbers.
pub struct Dice(StdRng);

impl Dice {
    /// The dice of one worker.
    pub fn of(seed: u64, name: &str) -> Self {
        Self(StdRng::seed_from_u64(seed ^ xxhash_rust::xxh3::xxh3_64(name.as_bytes())))
    }

    /// 0 to `end` − 1.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0.next_u64() % end.max(1)
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
