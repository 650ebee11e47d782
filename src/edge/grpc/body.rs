//! Answers as HTTP bodies: messages, then the status in the trailers.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, HeaderValue, header};
use http_body::{Body as HttpBody, Frame};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

/// Headers of an answer whose status comes in the trailers.
fn answer(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// One message, then OK.
pub fn one(message: Bytes) -> Response {
    answer(Body::new(Messages { messages: futures_util::stream::iter([Ok(message)]), over: false }))
}

/// Messages as the peer takes them; the first error is the status, and no more is asked for after it.
pub fn many(messages: impl Stream<Item = Result<Bytes, Status>> + Send + 'static) -> Response {
    answer(Body::new(Messages { messages: Box::pin(messages), over: false }))
}

/// An answer that makes its own frames.
pub fn raw(body: impl HttpBody<Data = Bytes, Error = std::convert::Infallible> + Send + 'static) -> Response {
    answer(Body::new(body))
}

/// No message, only a status.
pub fn failed(status: Status) -> Response {
    status.into_http()
}

/// A status as trailers.
pub fn trailers(status: &Status) -> HeaderMap {
    let mut map = HeaderMap::new();
    if status.add_header(&mut map).is_err() {
        // A sentence of ours that no header can hold: the number is what counts.
        map.insert("grpc-status", HeaderValue::from(status.code() as i32));
    }
    map
}

struct Messages<S> {
    messages: S,
    over: bool,
}

impl<S: Stream<Item = Result<Bytes, Status>> + Unpin> HttpBody for Messages<S> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.over {
            return Poll::Ready(None); // gRPC-web asks once more
        }
        Pin::new(&mut self.messages).poll_next(cx).map(|next| {
            self.over = !matches!(next, Some(Ok(_)));
            Some(Ok(match next {
                Some(Ok(message)) => Frame::data(message),
                Some(Err(status)) => Frame::trailers(trailers(&status)),
                None => Frame::trailers(trailers(&Status::ok(""))),
            }))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }
}

/// Any answer, ended early: at a deadline, or when the broker begins to stop.
pub struct Bounded {
    body: Body,
    late: Option<Pin<Box<Sleep>>>,
    draining: Option<(Pin<Box<WaitForCancellationFutureOwned>>, Status)>,
    over: bool,
}

impl Bounded {
    /// Ends at `deadline` with DEADLINE_EXCEEDED.
    pub fn by(response: Response, deadline: Option<Instant>) -> Response {
        match deadline {
            None => response,
            Some(at) => response.map(|body| Body::new(Self { body, late: Some(Box::pin(sleep_until(at))), draining: None, over: false })),
        }
    }

    /// As [`Bounded::by`], and ends with `status` when the broker begins to stop: for services that know nothing of it.
    pub fn by_or_draining(response: Response, deadline: Option<Instant>, draining: &CancellationToken, status: Status) -> Response {
        let late = deadline.map(|at| Box::pin(sleep_until(at)));
        let draining = Some((Box::pin(draining.clone().cancelled_owned()), status));
        response.map(|body| Body::new(Self { body, late, draining, over: false }))
    }

    fn cut(&mut self, status: &Status) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.over = true;
        self.body = Body::empty(); // whatever it held, a session for example, is let go
        Poll::Ready(Some(Ok(Frame::trailers(trailers(status)))))
    }
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if self.late.as_mut().is_some_and(|late| late.as_mut().poll(cx).is_ready()) {
            return self.cut(&super::status::deadline_exceeded(false, ""));
        }
        if let Some((draining, status)) = &mut self.draining
            && draining.as_mut().poll(cx).is_ready()
        {
            let status = status.clone();
            return self.cut(&status);
        }
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.over = frame.as_ref().is_none_or(|frame| frame.as_ref().is_ok_and(Frame::is_trailers));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }
}
