//! How much a session may have on its way (C-20).
//!
//! Durable sessions have a window: events and bytes delivered but not acknowledged; acks refill it, a `credit` frame
//! widens it. Ephemeral ones live on credit: what is granted is used up.

use std::collections::VecDeque;

use crate::types::request::Credit;

/// See the module.
#[derive(Debug)]
pub enum Window {
    /// Bounded by what is not acknowledged.
    Durable {
        /// Its size.
        size: Credit,
        /// What is on its way: end offset, events, bytes; oldest first.
        sent: VecDeque<(u64, u64, u64)>,
        /// Sums over `sent`.
        total: Credit,
        /// First event not acknowledged.
        acked: u64,
    },
    /// Bounded by what was granted.
    Ephemeral {
        /// What is left.
        left: Credit,
    },
}

impl Window {
    /// For a durable session that starts at `next`.
    pub fn durable(size: Credit, next: u64) -> Self {
        Self::Durable { size, sent: VecDeque::new(), total: Credit { events: 0, bytes: 0 }, acked: next }
    }

    /// For an ephemeral session.
    pub fn ephemeral(grant: Credit) -> Self {
        Self::Ephemeral { left: grant }
    }

    /// A `credit` frame came.
    pub fn grant(&mut self, more: Credit) {
        let target = match self {
            Self::Durable { size, .. } => size,
            Self::Ephemeral { left } => left,
        };
        target.events = target.events.saturating_add(more.events);
        target.bytes = target.bytes.saturating_add(more.bytes);
    }

    /// The cursor moved to `next`.
    pub fn acked(&mut self, next: u64) {
        let Self::Durable { sent, total, acked, .. } = self else { return };
        *acked = next.max(*acked);
        while let Some(&(end, events, bytes)) = sent.front() {
            if end > *acked {
                break;
            }
            total.events -= events;
            total.bytes -= bytes;
            sent.pop_front();
        }
    }

    /// What may be sent now: events and bytes, and whether one event may pass whatever its size. `None` = nothing.
    pub fn room(&self) -> Option<(Credit, bool)> {
        match self {
            Self::Durable { size, sent, total, acked } => {
                // Of the oldest run some events may be acknowledged already.
                let done = sent.front().map_or(0, |&(end, events, _)| events - events.min(end.saturating_sub(*acked)));
                let events = size.events.saturating_sub(total.events - done);
                let bytes = size.bytes.saturating_sub(total.bytes);
                let idle = sent.is_empty();
                (events > 0 && (bytes > 0 || idle)).then_some((Credit { events, bytes }, idle))
            }
            Self::Ephemeral { left } => (left.events > 0 && left.bytes > 0).then_some((*left, true)),
        }
    }

    /// Events up to `end` went out.
    pub fn sent(&mut self, end: u64, events: u64, bytes: u64) {
        match self {
            Self::Durable { sent, total, .. } => {
                sent.push_back((end, events, bytes));
                total.events += events;
                total.bytes += bytes;
            }
            Self::Ephemeral { left } => {
                left.events = left.events.saturating_sub(events);
                left.bytes = left.bytes.saturating_sub(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(window: &Window) -> u64 {
        window.room().map_or(0, |(room, _)| room.events)
    }

    #[test]
    fn c20_acks_refill_a_durable_window_event_by_event() {
        let mut window = Window::durable(Credit { events: 10, bytes: 100 }, 0);
        window.sent(10, 10, 50);
        assert_eq!(events(&window), 0);
        window.acked(3);
        assert_eq!(events(&window), 3);
        window.acked(10);
        assert_eq!(events(&window), 10);
    }

    #[test]
    fn c20_one_event_passes_whatever_its_size_when_nothing_is_on_its_way() {
        let mut window = Window::durable(Credit { events: 10, bytes: 100 }, 0);
        assert!(window.room().unwrap().1);
        window.sent(1, 1, 5000);
        assert_eq!(window.room(), None);
        window.acked(1);
        assert!(window.room().is_some());
    }

    #[test]
    fn ephemeral_credit_is_used_up_and_granted_again() {
        let mut window = Window::ephemeral(Credit { events: 2, bytes: 100 });
        window.sent(2, 2, 500);
        assert_eq!(window.room(), None);
        window.grant(Credit { events: 1, bytes: 10 });
        assert_eq!(events(&window), 1);
    }
}
