//! The readers attached through one connection, and what they have been told.

use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::{AbortHandle, Abortable, Aborted};
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use crate::broker::{Delivery, Session, SessionHandle};
use crate::types::request::Credit;
use crate::types::{Code, Error, Result, StreamName, limits};

/// A session and what it said.
type Said = (u64, Session, Result<Delivery>);
type Next = Abortable<Pin<Box<dyn Future<Output = Said> + Send>>>;

enum Reader {
    /// Its `subscribe` has no answer yet.
    Opening {
        /// Credit that came early.
        credit: Credit,
        /// `unsubscribe` came early.
        leaving: bool,
    },
    Open {
        handle: SessionHandle,
        abort: AbortHandle,
    },
}

/// By the client's numbers.
#[derive(Default)]
pub struct Readers {
    by_sub: HashMap<u64, Reader>,
    next: FuturesUnordered<Next>,
}

/// Told to a caller that may now say `unsubscribed`, or must wait for the opening to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It is detached.
    Now,
    /// It will be, when its opening has an answer.
    Later,
}

impl Readers {
    /// Takes a number for a reader that is about to open.
    ///
    /// # Errors
    /// `bad_parameter` when it is in use, `quota_exceeded` when there are too many.
    pub fn reserve(&mut self, sub: u64) -> Result<()> {
        if self.by_sub.contains_key(&sub) {
            return Err(Error::bad("sub", format!("sub {sub} is in use on this connection; choose another number.")));
        }
        if self.by_sub.len() >= limits::SUBSCRIPTIONS_PER_CONNECTION {
            let most = limits::SUBSCRIPTIONS_PER_CONNECTION as u64;
            return Err(
                Error::new(Code::QuotaExceeded, format!("A connection carries at most {most} subscriptions; open another connection.")).detail("limit", most)
            );
        }
        self.by_sub.insert(sub, Reader::Opening { credit: Credit { events: 0, bytes: 0 }, leaving: false });
        Ok(())
    }

    /// The opening failed: the number is free again.
    pub fn release(&mut self, sub: u64) {
        self.by_sub.remove(&sub);
    }

    /// The opening succeeded. [`Left::Now`] if the client has unsubscribed meanwhile: the session is gone then.
    pub fn attach(&mut self, sub: u64, session: Session) -> Option<Left> {
        match self.by_sub.remove(&sub) {
            Some(Reader::Opening { credit, leaving: false }) => {
                let handle = session.handle();
                if credit.events > 0 || credit.bytes > 0 {
                    handle.credit(credit);
                }
                let (abort, registration) = AbortHandle::new_pair();
                self.by_sub.insert(sub, Reader::Open { handle, abort });
                self.next.push(Abortable::new(next(sub, session), registration));
                None
            }
            _ => Some(Left::Now),
        }
    }

    /// Steers an attached reader.
    ///
    /// # Errors
    /// `bad_parameter` when there is none of this number, or none yet.
    pub fn handle(&self, sub: u64) -> Result<&SessionHandle> {
        match self.by_sub.get(&sub) {
            Some(Reader::Open { handle, .. }) => Ok(handle),
            Some(Reader::Opening { .. }) => Err(Error::bad("sub", format!("sub {sub} has no answer to its subscribe yet; wait for subscribed."))),
            None => Err(unknown(sub)),
        }
    }

    /// More may come, now or once it is open.
    ///
    /// # Errors
    /// `bad_parameter`.
    pub fn credit(&mut self, sub: u64, more: Credit) -> Result<()> {
        match self.by_sub.get_mut(&sub) {
            Some(Reader::Open { handle, .. }) => handle.credit(more),
            Some(Reader::Opening { credit, .. }) => {
                credit.events = credit.events.saturating_add(more.events);
                credit.bytes = credit.bytes.saturating_add(more.bytes);
            }
            None => return Err(unknown(sub)),
        }
        Ok(())
    }

    /// Detaches a reader. Nothing of it comes out of [`Readers::poll_next`] afterwards.
    ///
    /// # Errors
    /// `bad_parameter` when there is none of this number.
    pub fn leave(&mut self, sub: u64) -> Result<Left> {
        match self.by_sub.get_mut(&sub) {
            Some(Reader::Open { abort, .. }) => {
                abort.abort();
                self.by_sub.remove(&sub);
                Ok(Left::Now)
            }
            Some(Reader::Opening { leaving, .. }) if !*leaving => {
                *leaving = true;
                Ok(Left::Later)
            }
            _ => Err(unknown(sub)),
        }
    }

    /// The next delivery of any reader, or the end of one. Call it only with room in the outbox: what comes out counts as delivered.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<(u64, StreamName, Result<Delivery>)> {
        loop {
            match self.next.poll_next_unpin(cx) {
                Poll::Pending | Poll::Ready(None) => return Poll::Pending,
                Poll::Ready(Some(Err(Aborted))) => {}
                Poll::Ready(Some(Ok((sub, session, said)))) => {
                    let Some(Reader::Open { abort, .. }) = self.by_sub.get_mut(&sub) else { continue };
                    let stream = session.handle().stream().clone();
                    if said.is_ok() {
                        let (again, registration) = AbortHandle::new_pair();
                        *abort = again;
                        self.next.push(Abortable::new(next(sub, session), registration));
                    } else {
                        self.by_sub.remove(&sub);
                    }
                    return Poll::Ready((sub, stream, said));
                }
            }
        }
    }
}

fn next(sub: u64, mut session: Session) -> Pin<Box<dyn Future<Output = Said> + Send>> {
    Box::pin(async move {
        let said = session.next().await;
        (sub, session, said)
    })
}

fn unknown(sub: u64) -> Error {
    Error::bad("sub", format!("There is no reader with sub {sub} on this connection; subscribe first."))
}
