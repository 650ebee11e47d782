//! Chance from a seed. Each case has dice of its own, so that one case is played again without those before it.

#[path = "../chance/splitmix.rs"]
mod splitmix;

use splitmix::SplitMix;

/// A stream of numbers.
#[derive(Clone, Debug)]
pub struct Dice(SplitMix);

impl Dice {
    /// The dice of one case of one target.
    pub fn of(seed: u64, who: &str, case: u64) -> Self {
        let first = SplitMix::of(seed, who).throw();
        Self(SplitMix::new(first ^ case.wrapping_mul(0xd134_2543_de82_ef95)))
    }

    pub fn throw(&mut self) -> u64 {
        self.0.throw()
    }

    /// 0 to `n - 1`; 0 for none.
    pub fn below(&mut self, n: usize) -> usize {
        (self.throw() % n.max(1) as u64) as usize
    }

    /// True once in `n` throws.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of them.
    pub fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    /// Mostly small, now and then up to `most`.
    pub fn small(&mut self, most: usize) -> usize {
        let bits = self.below(usize::BITS as usize - most.max(1).leading_zeros() as usize + 1);
        self.below((1usize << bits.min(62)).min(most + 1))
    }

    /// Where a piece of something `len` long begins and ends.
    pub fn piece(&mut self, len: usize) -> std::ops::Range<usize> {
        let from = self.below(len + 1);
        from..from + self.small(len - from)
    }
}
