//! How long to wait before the next try: exponential with full jitter, so that a thousand clients of a broker that
//! comes back do not arrive in one moment.

use std::time::Duration;

/// First upper bound of a wait.
pub const FIRST: Duration = Duration::from_millis(100);
/// Last upper bound of a wait.
pub const LONGEST: Duration = Duration::from_secs(30);

/// Counts failures in a row.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Upper bound of the next wait: 0.1 s doubling up to 30 s.
    pub fn bound(&self) -> Duration {
        FIRST.saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(LONGEST)
    }

    /// The next wait, anywhere from nothing to the bound; what the server asks for wins. `dice` is in 0..1.
    pub fn next(&mut self, hint: Option<Duration>, dice: f64) -> Duration {
        let bound = self.bound();
        self.failures = (self.failures + 1).min(16);
        // A hint gets a little spread on top: the server gives all its clients the same one.
        hint.map_or_else(|| bound.mul_f64(dice), |hint| hint + FIRST.mul_f64(dice))
    }

    /// [`Backoff::next`] with a real die, and the waiting.
    pub async fn wait(&mut self, hint: Option<Duration>) {
        let pause = self.next(hint, rand::random::<f64>());
        tokio::time::sleep(pause).await;
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_to_thirty_seconds_and_falls_back_after_success() {
        let mut backoff = Backoff::default();
        let bounds: Vec<u64> = (0..10)
            .map(|_| {
                let bound = backoff.bound();
                backoff.next(None, 0.0);
                bound.as_millis() as u64
            })
            .collect();
        assert_eq!(bounds, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000]);
        for _ in 0..100 {
            backoff.next(None, 0.5);
        }
        assert_eq!(backoff.bound(), LONGEST);
        backoff.reset();
        assert_eq!(backoff.bound(), FIRST);
    }

    #[test]
    fn a_wait_lies_anywhere_below_the_bound_and_the_servers_hint_wins() {
        let mut backoff = Backoff { failures: 3 };
        assert_eq!(backoff.clone().next(None, 0.0), Duration::ZERO);
        assert_eq!(backoff.clone().next(None, 0.5), Duration::from_millis(400));
        let hinted = backoff.next(Some(Duration::from_secs(2)), 0.5);
        assert_eq!(hinted, Duration::from_millis(2050));
    }
}
