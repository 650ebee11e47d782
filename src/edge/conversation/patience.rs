//! How much of a peer is borne: pings without end, and bytes it does not take. Time comes in as an argument (`style.md` 4).

use std::time::Duration;

use tokio::time::Instant;

use crate::types::limits;

/// Window in which pings are counted.
const PING_WINDOW: Duration = Duration::from_secs(10);

/// Counts the pings of one peer.
#[derive(Debug)]
pub struct Pings {
    since: Instant,
    count: u32,
}

impl Pings {
    /// None so far.
    pub fn new(now: Instant) -> Self {
        Self { since: now, count: 0 }
    }

    /// A ping came. False when they are too many.
    pub fn heard(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) >= PING_WINDOW {
            *self = Self::new(now);
        }
        self.count += 1;
        self.count <= limits::PINGS_PER_10_S
    }
}

/// Since when bytes wait without any being taken.
#[derive(Debug, Default)]
pub struct Undrained(Option<Instant>);

impl Undrained {
    /// The outcome of a write: did the peer take something, is something left?
    pub fn written(&mut self, now: Instant, progress: bool, left: bool) {
        self.0 = match (left, progress, self.0) {
            (false, ..) => None,
            (true, false, Some(since)) => Some(since),
            (true, ..) => Some(now),
        };
    }

    /// When it has been too long.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.map(|since| since + limits::SOCKET_UNDRAINED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_hundred_pings_in_ten_seconds_are_answered_and_one_more_is_too_many() {
        let start = Instant::now();
        let mut pings = Pings::new(start);
        assert!((0..limits::PINGS_PER_10_S).all(|_| pings.heard(start)));
        assert!(!pings.heard(start + seconds(9)));
        assert!(pings.heard(start + seconds(10)));
    }

    #[test]
    fn bytes_that_nobody_takes_have_a_deadline_and_any_byte_starts_over() {
        let start = Instant::now();
        let mut undrained = Undrained::default();
        undrained.written(start, true, true);
        undrained.written(start + seconds(5), false, true);
        assert_eq!(undrained.deadline(), Some(start + seconds(30)));
        undrained.written(start + seconds(30), true, true);
        assert_eq!(undrained.deadline(), Some(start + seconds(60)));
        undrained.written(start + seconds(31), true, false);
        assert_eq!(undrained.deadline(), None);
    }
}
