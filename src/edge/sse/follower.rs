//! One event stream on its way to its reader. Nothing is rendered before the HTTP library asks for more, which it does when the socket,
//! or the HTTP/2 window, has room: a reader that stands still holds one chunk.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::time::timeout;

use crate::broker::{Delivery, Session};
use crate::edge::Face;
use crate::edge::stats::EventStreamSlot;
use crate::types::reply::Subscribed;
use crate::types::{Code, Error, Retry};
use crate::wire::sse;

/// How long a reader waits before it comes back.
const COME_BACK: Duration = Duration::from_secs(1);
/// The same after an end that coming back would only repeat: a day. `EventSource` cannot be told "never" inside a stream.
const STAY_AWAY: Duration = Duration::from_secs(24 * 3600);

/// What is said before the first delivery.
pub enum Opening {
    /// A durable session is open.
    Subscribed(Subscribed),
    /// An ephemeral reader begins at this offset.
    At(u64),
}

/// See the module.
pub struct Follower {
    face: Face,
    /// Gone when the reader has been told that it is over.
    session: Option<Session>,
    opening: Option<Opening>,
    id: Arc<str>,
    _slot: EventStreamSlot,
}

impl Follower {
    /// A reader of `session`. `id` is that of the request.
    pub fn new(face: Face, session: Session, id: Arc<str>, opening: Opening) -> Self {
        let slot = face.stats().enter_event_stream();
        Self { face, session: Some(session), opening: Some(opening), id, _slot: slot }
    }

    /// The chunks of the body. What comes out counts as delivered (C-10).
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
        unfold(self, |mut follower| async move {
            let chunk = follower.next().await?;
            Some((Ok(chunk), follower))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        if let Some(opening) = self.opening.take() {
            sse::retry(&mut out, COME_BACK);
            match opening {
                Opening::Subscribed(reply) => {
                    sse::subscribed(&mut out, &reply);
                    // So that whoever loses the connection before the first event comes back as one that was here before.
                    sse::position(&mut out, reply.next);
                }
                Opening::At(next) => sse::position(&mut out, next),
            }
            return Some(out.into());
        }
        match timeout(self.face.settings().ping_every, self.session.as_mut()?.next()).await {
            Err(_) => sse::ping(&mut out),
            Ok(Ok(Delivery::Events { slices, .. })) => sse::events(&mut out, &slices),
            Ok(Ok(Delivery::Live { next_offset })) => sse::live(&mut out, next_offset),
            Ok(Ok(Delivery::Progress { next })) => sse::position(&mut out, next),
            Ok(Ok(Delivery::Gap { from, to, reason })) => sse::gap(&mut out, from, to, reason),
            Ok(Err(error)) => {
                // Detached before the goodbye takes its time.
                self.session = None;
                self.end(&mut out, error);
            }
        }
        self.face.stats().event_stream_bytes(out.len());
        Some(out.into())
    }

    fn end(&self, out: &mut Vec<u8>, mut error: Error) {
        if error.code == Code::Internal {
            tracing::error!(incident = &*self.id, "{}", error.message);
            error.message = format!("The broker made a mistake. It is logged as incident {}.", self.id);
        }
        let pause = match error.retry {
            Retry::Backoff | Retry::Reopen | Retry::Same | Retry::Resend | Retry::Resume => COME_BACK,
            Retry::Decide | Retry::Never => STAY_AWAY,
        };
        sse::retry(out, pause);
        sse::end(out, &error, &self.id, error.code == Code::SessionFenced);
    }
}
