//! One direction of a connection: messages in their order, each some time on its way, until the line is cut.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep_until};

/// See the module.
#[derive(Default)]
pub struct Lane(Mutex<State>);

#[derive(Default)]
struct State {
    waiting: VecDeque<(Instant, Bytes)>,
    last: Option<Instant>,
    /// From then on nothing arrives.
    cut: Option<Instant>,
    waker: Option<Waker>,
}

/// The receiver's alarm clock.
#[derive(Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(cx)
    }
}

impl Lane {
    /// Sends a message, which arrives after `delay`, and not before those sent earlier.
    pub fn push(&self, message: Bytes, delay: Duration) {
        let mut state = self.0.lock();
        let at = (Instant::now() + delay).max(state.last.unwrap_or_else(Instant::now));
        state.last = Some(at);
        state.waiting.push_back((at, message));
        state.waker.take().into_iter().for_each(Waker::wake);
    }

    /// Cuts the line. What arrives within `grace` still does.
    pub fn cut(&self, grace: Duration) {
        let mut state = self.0.lock();
        let at = Instant::now() + grace;
        state.cut = Some(state.cut.map_or(at, |before| before.min(at)));
        state.waker.take().into_iter().for_each(Waker::wake);
    }

    /// Ends the line behind what was sent.
    pub fn finish(&self) {
        let last = self.0.lock().last;
        self.cut(last.map_or(Duration::ZERO, |last| last.saturating_duration_since(Instant::now())));
    }

    /// The next message; `None` when the line is cut.
    pub fn poll(&self, cx: &mut Context<'_>, alarm: &mut Alarm) -> Poll<Option<Bytes>> {
        loop {
            let mut state = self.0.lock();
            let now = Instant::now();
            let at = match (state.waiting.front(), state.cut) {
                (Some((at, _)), cut) if cut.is_none_or(|cut| *at <= cut) => {
                    if *at <= now {
                        return Poll::Ready(state.waiting.pop_front().map(|(_, message)| message));
                    }
                    *at
                }
                (_, Some(cut)) if cut <= now => return Poll::Ready(None),
                (_, Some(cut)) => cut,
                (_, None) => {
                    state.waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            };
            // It may be cut before that.
            state.waker = Some(cx.waker().clone());
            drop(state);
            if alarm.poll(cx, at).is_pending() {
                return Poll::Pending;
            }
        }
    }
}
