//! When a WebSocket is pinged, given up, or found too slow. Time comes in as an argument (`style.md` 4).

use tokio::time::Instant;

use crate::edge::conversation::{Pings, Undrained};
use crate::types::limits;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Ask whether the peer is there.
    Ping,
    /// It has been silent for too long.
    Dead,
    /// It has taken nothing for too long.
    Undrained,
}

/// The times of one connection.
#[derive(Debug)]
pub struct Clock {
    heard: Instant,
    pinged: Instant,
    undrained: Undrained,
    pings: Pings,
}

impl Clock {
    /// A connection that begins now.
    pub fn new(now: Instant) -> Self {
        Self { heard: now, pinged: now, undrained: Undrained::default(), pings: Pings::new(now) }
    }

    /// Something came from the peer, or we were not listening.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// A ping came. False when they are too many.
    pub fn ping_heard(&mut self, now: Instant) -> bool {
        self.pings.heard(now)
    }

    /// The outcome of a write: did the peer take something, is something left?
    pub fn written(&mut self, now: Instant, progress: bool, left: bool) {
        self.undrained.written(now, progress, left);
    }

    /// What is due now, if anything. A ping counts as sent.
    pub fn due(&mut self, now: Instant) -> Option<Due> {
        if self.undrained.deadline().is_some_and(|late| now >= late) {
            return Some(Due::Undrained);
        }
        if now >= self.heard + limits::PEER_DEAD {
            return Some(Due::Dead);
        }
        if now >= self.next_ping() {
            self.pinged = now;
            return Some(Due::Ping);
        }
        None
    }

    /// When to look again.
    pub fn next(&self) -> Instant {
        let silent = self.next_ping().min(self.heard + limits::PEER_DEAD);
        self.undrained.deadline().map_or(silent, |late| silent.min(late))
    }

    fn next_ping(&self) -> Instant {
        self.heard.max(self.pinged) + limits::PING_EVERY
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_silent_peer_is_pinged_twice_and_then_given_up() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        assert_eq!(clock.due(start + seconds(19)), None);
        assert_eq!(clock.due(start + seconds(20)), Some(Due::Ping));
        assert_eq!(clock.due(start + seconds(20)), None);
        assert_eq!(clock.next(), start + seconds(40));
        assert_eq!(clock.due(start + seconds(40)), Some(Due::Ping));
        assert_eq!(clock.next(), start + seconds(45));
        assert_eq!(clock.due(start + seconds(45)), Some(Due::Dead));
    }

    #[test]
    fn a_peer_that_is_heard_is_left_alone() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        clock.heard(start + seconds(19));
        assert_eq!(clock.due(start + seconds(38)), None);
        assert_eq!(clock.due(start + seconds(39)), Some(Due::Ping));
    }

    #[test]
    fn a_socket_that_takes_nothing_for_thirty_seconds_is_too_slow_and_any_byte_starts_over() {
        let start = Instant::now();
        let mut clock = Clock::new(start);
        clock.written(start, true, true);
        clock.written(start + seconds(5), false, true);
        clock.heard(start + seconds(29));
        assert_eq!(clock.due(start + seconds(29)), None);
        assert_eq!(clock.next(), start + seconds(30));
        assert_eq!(clock.due(start + seconds(30)), Some(Due::Undrained));
        clock.written(start + seconds(30), true, true);
        assert_eq!(clock.due(start + seconds(31)), None);
        clock.written(start + seconds(31), true, false);
        clock.heard(start + seconds(70));
        assert_eq!(clock.due(start + seconds(71)), None);
    }
}
