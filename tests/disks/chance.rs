//! Chance from a seed, and how long a run shall be.

#[path = "../chance/splitmix.rs"]
mod splitmix;

use splitmix::SplitMix;

/// A stream of numbers.
#[derive(Clone, Debug)]
pub struct Chance(SplitMix);

impl Chance {
    /// From `SEED`, or a new one. `test` is what plays it again; it is printed.
    pub fn for_test(test: &str) -> Self {
        let seed = splitmix::seed();
        println!("the same choices again: SEED={seed} ROUNDS={} cargo test --release --test disks {test} -- --nocapture", rounds());
        Self(SplitMix::new(seed))
    }

    /// See [`SplitMix::apart`].
    pub fn of(&self, who: &str) -> Self {
        Self(self.0.apart(who))
    }

    /// 0 to `n - 1`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0.below(n)
    }

    /// `from` to `to`, both included.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        self.0.between(from, to)
    }

    /// `count` different places below `len`, in order: all of them if there are no more.
    pub fn places(&mut self, count: usize, len: usize) -> Vec<usize> {
        if len <= count {
            return (0..len).collect();
        }
        // One in each of `count` equal parts, so that no part is left out.
        let part = |index: usize| index * len / count;
        (0..count).map(|index| part(index) + self.below((part(index + 1) - part(index)) as u64) as usize).collect()
    }
}

/// How many times as long as usual: `ROUNDS`.
pub fn rounds() -> usize {
    std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1).max(1)
}
