//! Chance from a seed, and how long a run shall be.

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// From `SEED`, or a new one. `test` is what plays it again; it is printed.
    pub fn for_test(test: &str) -> Self {
        let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
            Self(now ^ u64::from(std::process::id())).throw() % 1_000_000
        });
        println!("the same choices again: SEED={seed} ROUNDS={} cargo test --release --test disks {test} -- --nocapture", rounds());
        Self(seed)
    }

    /// Chance of its own for somebody who throws at a time of his own.
    pub fn of(&self, who: &str) -> Self {
        Self(who.bytes().fold(self.0 ^ 0x9e37_79b9_7f4a_7c15, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
    }

    pub fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `n - 1`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.throw() % n.max(1)
    }

    /// `from` to `to`, both included.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
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
