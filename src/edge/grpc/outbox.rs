//! What a `Connect` call has for its client: put in by the conversation, taken out by HTTP/2 as its windows allow.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame};
use parking_lot::Mutex;
use tonic::Status;

use super::{body, message};
use crate::types::limits;
use crate::wire::frame::ServerFrame;
use crate::wire::proto::answer;

/// Buffers up to this size are used again; larger ones go with what they held.
const KEPT_BYTES: usize = 4 * 1024;

/// The conversation's end.
pub struct Outbox(Arc<Mutex<Inner>>);

/// HTTP's end: a response body.
pub struct Outgoing(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    waiting: BytesMut,
    /// Bytes that were taken since the conversation looked.
    taken: usize,
    end: Option<Status>,
    /// Nobody takes any more.
    gone: bool,
    over: bool,
    conversation: Option<Waker>,
    http: Option<Waker>,
}

/// Both ends.
pub fn channel() -> (Outbox, Outgoing) {
    let inner = Arc::new(Mutex::new(Inner::default()));
    (Outbox(inner.clone()), Outgoing(inner))
}

impl Outbox {
    /// Bytes waiting.
    pub fn len(&self) -> usize {
        self.0.lock().waiting.len()
    }

    /// Puts a frame behind those that wait.
    pub fn push(&self, frame: &ServerFrame) {
        let mut inner = self.0.lock();
        message::put(&mut inner.waiting, |out| answer::put_server(out, frame));
        wake(&mut inner.http);
    }

    /// Bytes taken since the last call, and bytes left; `None` when nobody takes any more. Wakes when that changes.
    pub fn poll_taken(&self, cx: &mut Context<'_>) -> Option<(usize, usize)> {
        let mut inner = self.0.lock();
        if !inner.conversation.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            inner.conversation = Some(cx.waker().clone());
        }
        let taken = std::mem::take(&mut inner.taken);
        (!inner.gone).then(|| (taken, inner.waiting.len()))
    }

    /// Ends the call behind what waits, or, for a client that takes nothing, without it.
    pub fn end(self, status: Status, drop_waiting: bool) {
        let mut inner = self.0.lock();
        if drop_waiting {
            inner.waiting = BytesMut::new();
        }
        inner.end = Some(status);
        wake(&mut inner.http);
    }
}

/// A conversation that is gone without a word leaves no call that never ends.
impl Drop for Outbox {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.end.get_or_insert_with(|| Status::unavailable("The call was given up."));
        wake(&mut inner.http);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut inner = self.0.lock();
        let waiting = inner.waiting.len();
        if waiting > 0 {
            // In pieces, so that a slow client is seen to take something.
            let piece = if waiting > limits::FRAME_TARGET_BYTES {
                inner.waiting.split_to(limits::FRAME_TARGET_BYTES)
            } else if inner.waiting.capacity() > KEPT_BYTES {
                std::mem::take(&mut inner.waiting)
            } else {
                inner.waiting.split()
            };
            inner.taken += piece.len();
            wake(&mut inner.conversation);
            return Poll::Ready(Some(Ok(Frame::data(piece.freeze()))));
        }
        if inner.over {
            return Poll::Ready(None);
        }
        match &inner.end {
            Some(status) => {
                let trailers = body::trailers(status);
                inner.over = true;
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            None => {
                inner.http = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().over
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.gone = true;
        inner.waiting = BytesMut::new();
        wake(&mut inner.conversation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(body: &mut Outgoing) -> Poll<Option<Frame<Bytes>>> {
        Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())).map(|f| f.map(|f| f.expect("it cannot fail")))
    }

    #[test]
    fn frames_leave_in_order_and_the_status_leaves_last() {
        let (outbox, mut body) = channel();
        assert!(next(&mut body).is_pending());
        outbox.push(&ServerFrame::Pong);
        outbox.push(&ServerFrame::Resumed { req: 7 });
        outbox.end(Status::ok(""), false);
        let Poll::Ready(Some(frame)) = next(&mut body) else { panic!("frames wait") };
        let bytes = frame.into_data().expect("data");
        assert_eq!(&bytes[..], b"\0\0\0\0\x02\x4a\0\0\0\0\0\x04\x5a\x02\x08\x07");
        let Poll::Ready(Some(frame)) = next(&mut body) else { panic!("a status waits") };
        assert_eq!(frame.into_trailers().expect("trailers")["grpc-status"], "0");
        assert!(matches!(next(&mut body), Poll::Ready(None)));
    }

    #[test]
    fn the_conversation_sees_what_is_taken_and_that_nobody_takes() {
        let (outbox, mut body) = channel();
        outbox.push(&ServerFrame::Pong);
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(outbox.poll_taken(&mut cx), Some((0, 7)));
        assert!(next(&mut body).is_ready());
        assert_eq!(outbox.poll_taken(&mut cx), Some((7, 0)));
        drop(body);
        assert_eq!(outbox.poll_taken(&mut cx), None);
    }

    #[test]
    fn a_client_that_takes_nothing_gets_the_status_alone() {
        let (outbox, mut body) = channel();
        outbox.push(&ServerFrame::Pong);
        outbox.end(Status::resource_exhausted("slow"), true);
        let Poll::Ready(Some(frame)) = next(&mut body) else { panic!("a status waits") };
        assert_eq!(frame.into_trailers().expect("trailers")["grpc-status"], "8");
    }
}
