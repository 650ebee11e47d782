//! The clock that expiry reads: persisted, monotonic, and slow to believe the wall clock (S-9).

use std::time::Duration;

/// Time as the driver reads it, given to every rule that needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall clock, microseconds since the Unix epoch.
    pub wall_us: i64,
    /// Monotonic, since the process began.
    pub mono: Duration,
}

/// Advances with monotonic time and follows jumps of the wall clock at a bounded rate: a tenth of the time that passed
/// while the process runs. Time in which no process ran is taken from the wall clock when the clock is opened, forward only.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    value_us: i64,
    seen: Duration,
}

impl Clock {
    /// Goes on from the persisted value (0 = first start).
    pub fn open(persisted_us: i64, now: Now) -> Self {
        Self { value_us: persisted_us.max(now.wall_us), seen: now.mono }
    }

    /// The time now.
    pub fn advance(&mut self, now: Now) -> i64 {
        let passed = now.mono.saturating_sub(self.seen).as_micros() as i64;
        self.seen = self.seen.max(now.mono);
        let away = now.wall_us.saturating_sub(self.value_us.saturating_add(passed));
        self.value_us = self.value_us.saturating_add(passed + away.clamp(-passed / 10, passed / 10));
        self.value_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s9_a_jump_of_the_wall_clock_is_followed_slowly_and_never_backwards() {
        let at = |wall_s: i64, mono_s: u64| Now { wall_us: wall_s * 1_000_000, mono: Duration::from_secs(mono_s) };
        let mut clock = Clock::open(0, at(1000, 0));
        assert_eq!(clock.advance(at(1010, 10)), 1_010_000_000);
        // The wall clock jumps a year ahead: ten seconds count for eleven at most.
        assert_eq!(clock.advance(at(31_000_000, 20)), 1_021_000_000);
        // And back by an hour: ten seconds still count for nine.
        let before = clock.advance(at(1021, 20));
        assert_eq!(clock.advance(at(-2600, 30)) - before, 9_000_000);
        assert_eq!(Clock::open(5_000_000_000, at(10, 0)).advance(at(10, 0)), 5_000_000_000);
    }
}
