//! Chance from a seed, and what the crash test throws it for.

use std::time::Duration;

#[path = "../chance/splitmix.rs"]
mod splitmix;

use splitmix::SplitMix;

/// A stream of numbers.
#[derive(Clone, Debug)]
pub struct Dice(SplitMix);

impl Dice {
    #[allow(dead_code, reason = "the simulation throws new dice")]
    pub fn new(seed: u64) -> Self {
        Self(SplitMix::new(seed))
    }

    #[allow(dead_code, reason = "the simulation throws new dice")]
    pub fn throw(&mut self) -> u64 {
        self.0.throw()
    }

    /// See [`SplitMix::of`].
    pub fn of(seed: u64, who: &str) -> Self {
        Self(SplitMix::of(seed, who))
    }

    /// 0 to `n - 1`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0.below(n)
    }

    /// `from` to `to`, both included.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        self.0.between(from, to)
    }

    /// True once in `n` throws.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.between(from, to))
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

/// From `SEED`, or a new one. Printed either way, with how to play it again.
pub fn seed() -> u64 {
    seed_for("crash")
}

/// The same for another test.
pub fn seed_for(test: &str) -> u64 {
    let seed = splitmix::seed();
    let features = if test == "faults" { " --features faults" } else { "" };
    println!("the same choices again: SEED={seed} cargo test --release{features} --test {test} -- --nocapture");
    seed
}
