//! The calls of one HTTP/2 connection, run by the connection's own task.
//!
//! The library would spawn a task for each: an answer then wakes a task, which wakes the connection's task, which may write the headers
//! before the message is there. Here one task does all of it, as for a WebSocket. A connection so uses one core at a time. That it is
//! cheaper has not been shown: on a machine that was also compiling, an append cost the same before and after.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use parking_lot::Mutex;

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where the library puts new calls. Cheap to clone.
#[derive(Clone, Default)]
pub struct Inbox(Arc<Mutex<Vec<Call>>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Inbox {
    fn execute(&self, call: F) {
        // A panic ends its call, as it would end a task, and no other.
        self.0.lock().push(Box::pin(AssertUnwindSafe(call).catch_unwind().map(drop)));
    }
}

/// Calls at work. Dropping it cancels them, as when their connection is gone.
pub struct Calls {
    inbox: Inbox,
    running: FuturesUnordered<Call>,
}

impl Calls {
    /// None yet.
    pub fn new(inbox: Inbox) -> Self {
        Self { inbox, running: FuturesUnordered::new() }
    }

    /// Drives a connection and its calls; what calls have said is sent before it waits.
    pub fn poll_with<T>(&mut self, cx: &mut Context<'_>, mut connection: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            let new = std::mem::take(&mut *self.inbox.0.lock());
            let mut moved = !new.is_empty();
            self.running.extend(new);
            while let Poll::Ready(Some(())) = self.running.poll_next_unpin(cx) {
                moved = true;
            }
            if !moved {
                return Poll::Pending;
            }
        }
    }
}
