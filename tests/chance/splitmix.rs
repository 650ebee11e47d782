//! SplitMix64: chance from a seed, the same on every machine and with every version of any crate. Tests share it by `#[path]`.

/// A stream of numbers.
#[derive(Clone, Debug)]
pub struct SplitMix(u64);

impl SplitMix {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A stream of its own for somebody who throws at a time of his own: the order among tasks changes nothing.
    pub fn of(seed: u64, who: &str) -> Self {
        Self(who.bytes().fold(seed ^ 0x9e37_79b9_7f4a_7c15, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
    }

    /// The same, from where this one stands.
    #[allow(dead_code, reason = "not every test that shares this needs it")]
    pub fn apart(&self, who: &str) -> Self {
        Self::of(self.0, who)
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
    #[allow(dead_code, reason = "not every test that shares this needs it")]
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }
}

/// `SEED`, or a new one that is short enough to be typed.
#[allow(dead_code, reason = "not every test that shares this needs it")]
pub fn seed() -> u64 {
    std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        SplitMix::new(now ^ u64::from(std::process::id())).throw() % 1_000_000
    })
}
