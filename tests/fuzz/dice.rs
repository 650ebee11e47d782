//! Chance from a seed. Each case has dice of its own, so that one case is played again without those before it.

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The dice of one case of one target.
    pub fn of(seed: u64, who: &str, case: u64) -> Self {
        let mut dice = Self(who.bytes().fold(seed ^ 0x9e37_79b9_7f4a_7c15, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)));
        dice.0 = dice.throw() ^ case.wrapping_mul(0xd134_2543_de82_ef95);
        dice
    }

    pub fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
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
