//! A token bucket: so much per second, and so much at once. Time comes in as an argument (`style.md` 4).
//!
//! What it holds is one time: when it will be full again. What is taken moves that time into the future; a bucket whose time lies further
//! ahead than filling it takes is empty, and one that paid more than it had is in debt.

use std::time::Duration;

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens per second. 0 = no limit.
    pub per_s: u64,
    /// Tokens in a full bucket: at least one.
    pub burst: u64,
}

impl Rate {
    /// How long so many tokens take to come, rounded up.
    fn time_of(self, tokens: u64) -> Duration {
        let nanos = (u128::from(tokens) * 1_000_000_000).div_ceil(u128::from(self.per_s.max(1)));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn filling(self) -> Duration {
        self.time_of(self.burst.max(1))
    }
}

/// See the module. A new one is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    full_at: Duration,
}

impl Bucket {
    /// Takes one token.
    ///
    /// # Errors
    /// When there will be one, from now. Nothing is taken then.
    pub fn take(&mut self, rate: Rate, now: Duration) -> Result<(), Duration> {
        if rate.per_s == 0 {
            return Ok(());
        }
        let full_at = self.full_at.max(now).saturating_add(rate.time_of(1));
        let ahead = full_at.saturating_sub(now);
        match ahead.checked_sub(rate.filling()) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                self.full_at = full_at;
                Ok(())
            }
        }
    }

    /// Takes so many tokens, also those that are not there yet: the bucket is in debt then.
    pub fn pay(&mut self, rate: Rate, tokens: u64, now: Duration) {
        if rate.per_s != 0 {
            self.full_at = self.full_at.max(now).saturating_add(rate.time_of(tokens));
        }
    }

    /// How long until the debt is paid; `None` without one.
    pub fn debt(&self, rate: Rate, now: Duration) -> Option<Duration> {
        if rate.per_s == 0 {
            return None;
        }
        self.full_at.checked_sub(now)?.checked_sub(rate.filling()).filter(|wait| !wait.is_zero())
    }

    /// Is it as good as one that was never used?
    pub fn is_full(&self, now: Duration) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate { per_s: 10, burst: 5 };

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_burst_passes_the_next_is_told_how_long_to_wait_and_is_right_to() {
        let mut bucket = Bucket::default();
        for n in 0..5 {
            assert_eq!(bucket.take(RATE, at(1000)), Ok(()), "token {n}");
        }
        assert_eq!(bucket.take(RATE, at(1000)), Err(at(100)));
        assert_eq!(bucket.take(RATE, at(1099)), Err(at(1)), "a refusal costs nothing");
        assert_eq!(bucket.take(RATE, at(1100)), Ok(()));
        assert!(bucket.take(RATE, at(1100)).is_err());
        assert!(!bucket.is_full(at(1599)) && bucket.is_full(at(1600)));
    }

    #[test]
    fn whoever_pays_more_than_there_is_is_in_debt_until_it_is_earned() {
        let mut bucket = Bucket::default();
        bucket.pay(RATE, 5, at(0));
        assert_eq!(bucket.debt(RATE, at(0)), None, "all that was there");
        bucket.pay(RATE, 20, at(0));
        assert_eq!(bucket.debt(RATE, at(0)), Some(at(2000)));
        assert_eq!(bucket.debt(RATE, at(1999)), Some(at(1)));
        assert_eq!(bucket.debt(RATE, at(2000)), None);
    }

    #[test]
    fn a_rate_of_nothing_is_no_limit_and_no_number_overflows() {
        let free = Rate { per_s: 0, burst: 0 };
        let mut bucket = Bucket::default();
        bucket.pay(free, u64::MAX, at(0));
        assert_eq!((bucket.take(free, at(0)), bucket.debt(free, at(0))), (Ok(()), None));
        let slow = Rate { per_s: 1, burst: 1 };
        for _ in 0..3 {
            bucket.pay(slow, u64::MAX, Duration::MAX);
        }
        assert!(bucket.take(slow, at(0)).is_err());
    }

    proptest! {
        /// However the calls are spread, no stretch of time lets more through than its length earns, and a burst.
        #[test]
        fn never_more_than_the_burst_and_what_the_time_earns(per_s in 1u64..2000, burst in 1u64..50, gaps in proptest::collection::vec(0u64..400, 1..200)) {
            let rate = Rate { per_s, burst };
            let (mut bucket, mut now, mut passed) = (Bucket::default(), Duration::from_secs(1), Vec::new());
            for gap in gaps {
                now += Duration::from_micros(gap * 97);
                match bucket.take(rate, now) {
                    Ok(()) => passed.push(now),
                    Err(wait) => {
                        prop_assert!(wait > Duration::ZERO);
                        let mut later = bucket;
                        prop_assert_eq!(later.take(rate, now + wait), Ok(()), "the wait is true");
                    }
                }
            }
            for (first, from) in passed.iter().enumerate() {
                for (last, to) in passed.iter().enumerate().skip(first) {
                    let earned = (*to - *from).as_nanos() * u128::from(per_s) / 1_000_000_000;
                    prop_assert!((last - first + 1) as u128 <= earned + u128::from(burst) + 1, "{first}..={last}");
                }
            }
        }
    }
}
