//! Requests that have their place in the broker's order and wait for its answers.
//!
//! Appends and commits are answered in the order they came, and so are acks: the broker finishes them so, but for rows it has to
//! read first. Openings, which may read the log, hold up neither.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::{FuturesUnordered, StreamExt as _};

use crate::broker::{Pending, Session};
use crate::types::reply::{Acked, Appended, Committed, ProducerOpened, Subscribed};
use crate::types::{Result, limits};

/// Acks without an answer. They are small, but each holds a place in the commit queue.
const IN_FLIGHT_ACKS: usize = 1024;
/// A queue that was longer than this gives its memory back when it is empty.
const KEPT: usize = 16;

/// An answer that is still to come, by the client's `req` or `sub`; appends with their bytes.
pub enum Waiting {
    /// To an append.
    Appended(u64, usize, Pending<Appended>),
    /// To a commit.
    Committed(u64, usize, Pending<Committed>),
    /// To an ack.
    Acked(u64, Pending<Acked>),
    /// To `resume`.
    Resumed(u64, Pending<()>),
    /// To `open_producer`.
    Opened(u64, Pending<ProducerOpened>),
    /// To `subscribe`.
    Subscribed(u64, Pending<(Subscribed, Session)>),
}

/// The answer.
pub enum Answer {
    /// To an append.
    Appended(u64, Result<Appended>),
    /// To a commit.
    Committed(u64, Result<Committed>),
    /// To an ack.
    Acked(u64, Result<Acked>),
    /// To `resume`.
    Resumed(u64, Result<()>),
    /// To `open_producer`.
    Opened(u64, Result<ProducerOpened>),
    /// To `subscribe`.
    Subscribed(u64, Box<Result<(Subscribed, Session)>>),
}

impl Future for Waiting {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        match &mut *self {
            Self::Appended(req, _, pending) => Pin::new(pending).poll(cx).map(|r| Answer::Appended(*req, r)),
            Self::Committed(req, _, pending) => Pin::new(pending).poll(cx).map(|r| Answer::Committed(*req, r)),
            Self::Acked(sub, pending) => Pin::new(pending).poll(cx).map(|r| Answer::Acked(*sub, r)),
            Self::Resumed(req, pending) => Pin::new(pending).poll(cx).map(|r| Answer::Resumed(*req, r)),
            Self::Opened(req, pending) => Pin::new(pending).poll(cx).map(|r| Answer::Opened(*req, r)),
            Self::Subscribed(sub, pending) => Pin::new(pending).poll(cx).map(|r| Answer::Subscribed(*sub, Box::new(r))),
        }
    }
}

/// All that one connection waits for.
#[derive(Default)]
pub struct Answers {
    appends: VecDeque<Waiting>,
    append_bytes: usize,
    acks: VecDeque<Waiting>,
    others: FuturesUnordered<Waiting>,
}

impl Answers {
    /// One more.
    pub fn push(&mut self, waiting: Waiting) {
        match &waiting {
            Waiting::Appended(_, bytes, _) | Waiting::Committed(_, bytes, _) => {
                self.append_bytes += bytes;
                self.appends.push_back(waiting);
            }
            Waiting::Acked(..) => self.acks.push_back(waiting),
            Waiting::Resumed(..) | Waiting::Opened(..) | Waiting::Subscribed(..) => self.others.push(waiting),
        }
    }

    /// None left?
    pub fn is_empty(&self) -> bool {
        self.appends.is_empty() && self.acks.is_empty() && self.others.is_empty()
    }

    /// May more be asked? Beyond it the socket is not read; that is no error (`decisions.md` section 5).
    pub fn have_room(&self) -> bool {
        self.appends.len() < limits::IN_FLIGHT_APPENDS
            && self.append_bytes < limits::IN_FLIGHT_APPEND_BYTES
            && self.acks.len() < IN_FLIGHT_ACKS
            && self.others.len() < limits::IN_FLIGHT_OPENINGS
    }

    /// The next answer; pending when there is none yet, also when nothing is waited for.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        if let Some((waiting, answer)) = poll_front(&mut self.appends, cx) {
            if let Waiting::Appended(_, bytes, _) | Waiting::Committed(_, bytes, _) = waiting {
                self.append_bytes -= bytes;
            }
            return Poll::Ready(answer);
        }
        if let Some((_, answer)) = poll_front(&mut self.acks, cx) {
            return Poll::Ready(answer);
        }
        match self.others.poll_next_unpin(cx) {
            Poll::Ready(Some(answer)) => Poll::Ready(answer),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

fn poll_front(queue: &mut VecDeque<Waiting>, cx: &mut Context<'_>) -> Option<(Waiting, Answer)> {
    let Poll::Ready(answer) = Pin::new(queue.front_mut()?).poll(cx) else { return None };
    let waiting = queue.pop_front()?;
    if queue.is_empty() && queue.capacity() > KEPT {
        *queue = VecDeque::new();
    }
    Some((waiting, answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_64_openings_nothing_is_read_until_one_is_answered() {
        let mut answers = Answers::default();
        for n in 0..limits::IN_FLIGHT_OPENINGS as u64 {
            assert!(answers.have_room(), "{n} are on their way");
            answers.push(Waiting::Resumed(n, Pending::known(Ok(()))));
        }
        assert!(!answers.have_room());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(answers.poll_next(&mut cx), Poll::Ready(Answer::Resumed(_, Ok(())))));
        assert!(answers.have_room());
    }
}
