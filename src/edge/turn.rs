//! How long the task of one connection works before it lets others in.
//!
//! The runtime changes tasks only where one waits. A peer that always has more to be read keeps its task from waiting, and whoever shares the
//! thread with it waits instead: for all of 20,000 frames, where nobody counts. Time comes in as an argument (`style.md` 4).

use std::pin::pin;
use std::task::{Context, Poll};

use tokio::time::Instant;

use crate::types::limits;

/// One task's time on a thread.
#[derive(Debug, Default)]
pub struct Turn(Option<Instant>);

impl Turn {
    /// Has it lasted [`limits::TURN`]? The first call after a rest begins it.
    pub fn is_over(&mut self, now: Instant) -> bool {
        now.duration_since(*self.0.get_or_insert(now)) >= limits::TURN
    }

    /// The task waits for something, so others get in as well.
    pub fn rest(&mut self) {
        self.0 = None;
    }

    /// Ready while the turn lasts, then pending once: the task goes on when others have had theirs.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_over(Instant::now()) {
            return Poll::Ready(());
        }
        self.rest();
        // A plain wake-up would be answered before the runtime looks at its sockets; this one is answered after.
        let _ = pin!(tokio::task::yield_now()).poll(cx);
        Poll::Pending
    }

    /// As [`Turn::poll`], for work that has a place to wait. Cancel-safe.
    pub async fn breathe(&mut self) {
        if self.is_over(Instant::now()) {
            self.rest();
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_turn_lasts_its_time_from_the_first_look_after_a_rest() {
        let (mut turn, start) = (Turn::default(), Instant::now());
        let just = limits::TURN - Duration::from_nanos(1);
        assert!(!turn.is_over(start) && !turn.is_over(start + just));
        assert!(turn.is_over(start + limits::TURN) && turn.is_over(start + 2 * limits::TURN));
        turn.rest();
        let later = start + 3 * limits::TURN;
        assert!(!turn.is_over(later) && !turn.is_over(later + just) && turn.is_over(later + limits::TURN));
    }

    /// The turn began in the past, so no time has to go by here. A loop that a machine pauses in may end its turn once more, which lets others in too.
    #[tokio::test]
    async fn who_has_had_a_turn_lets_another_in_and_goes_on() {
        let past = || Turn(Instant::now().checked_sub(limits::TURN));
        let mut turns = [past(), past()];
        let other = tokio::spawn(async {});
        turns[0].breathe().await;
        assert!(other.is_finished());
        let other = tokio::spawn(async {});
        std::future::poll_fn(|cx| turns[1].poll(cx)).await;
        assert!(other.is_finished());
        assert!(turns[0].0.is_none(), "a new turn begins with the next look");
    }
}
