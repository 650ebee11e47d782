//! `Connect`: a conversation over one bidirectional call, with the rules of a WebSocket.
//!
//! The conversation runs in a task of its own, so that it reads on, answers and notices a slow client while HTTP/2's window is closed.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::Stream as _;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Status, Streaming};
use tracing::Instrument as _;

use super::call::Call;
use super::outbox::{Outbox, channel};
use super::{body, message, status};
use crate::edge::conversation::{Conversation, Heard, Pings, Transport, Undrained};
use crate::types::{Code, Error, Result, limits};
use crate::wire::frame::{ClientFrame, FrameError, ServerFrame};
use crate::wire::proto;

/// Begins the conversation; the answer is its frames.
pub fn begin(call: Call, body: Body) -> Response {
    let incoming = message::stream(body, call.face().settings().message_max_bytes);
    let (outbox, outgoing) = channel();
    let face = call.face().clone();
    let span = tracing::debug_span!("connect", id = call.id());
    face.spawn(converse(Carrier::new(call, incoming, outbox)).instrument(span));
    body::raw(outgoing)
}

async fn converse(carrier: Carrier) {
    let face = carrier.call.face().clone();
    let _slot = face.stats().enter_grpc_stream();
    let mut broker = face.broker().connect(carrier.call.who().clone());
    let (id, usage) = (carrier.call.id().into(), carrier.call.usage());
    let mut talk = Conversation::new(carrier, id);
    talk.count_for(usage);
    talk.greet();
    let end = talk.run(&mut broker).await;
    drop(broker);
    let Carrier { outbox, .. } = talk.into_transport();
    match end {
        End::Gone => {}
        End::Status(status) => outbox.end(status, false),
        End::Slow(status) => {
            face.stats().slow_consumer();
            outbox.end(status, true);
        }
    }
}

/// How a call ends.
enum End {
    /// Nobody listens any more.
    Gone,
    /// With this status.
    Status(Status),
    /// With this status, and without what waits for a client that takes nothing.
    Slow(Status),
}

/// Frames in and out of one call.
struct Carrier {
    call: Call,
    incoming: Streaming<Bytes>,
    outbox: Outbox,
    undrained: Undrained,
    pings: Pings,
    draining: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// The client has closed its side.
    said_all: bool,
    /// When the last answers must be out.
    late: Option<Instant>,
    alarm: Pin<Box<Sleep>>,
}

impl Carrier {
    fn new(call: Call, incoming: Streaming<Bytes>, outbox: Outbox) -> Self {
        let now = Instant::now();
        let draining = Some(Box::pin(call.face().draining().clone().cancelled_owned()));
        let alarm = Box::pin(sleep_until(call.deadline().unwrap_or(now + limits::GRPC_TIMEOUT_MAX)));
        Self { call, incoming, outbox, undrained: Undrained::default(), pings: Pings::new(now), draining, said_all: false, late: None, alarm }
    }

    fn leave(&mut self, wait: std::time::Duration) -> Poll<Heard<Bytes, End>> {
        let late = Instant::now() + wait;
        self.late = Some(self.late.map_or(late, |before| before.min(late)));
        Poll::Ready(Heard::Leaving(wait))
    }

    /// Looks at the clock when something is due, and sees to it that it is looked at again.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<Heard<Bytes, End>> {
        loop {
            let due = [self.call.deadline(), self.undrained.deadline(), self.late].into_iter().flatten().min();
            let Some(due) = due else { return Poll::Pending };
            if self.alarm.deadline() != due {
                self.alarm.as_mut().reset(due);
            }
            if self.alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if self.call.deadline().is_some_and(|at| now >= at) {
                return Poll::Ready(Heard::End(End::Status(status::deadline_exceeded(true, self.call.id()))));
            }
            if self.undrained.deadline().is_some_and(|at| now >= at) {
                let why = "The call was ended because its client took nothing for 30 s. The cursor stays; subscribe again and read faster.";
                return Poll::Ready(Heard::End(End::Slow(self.call.status(Error::new(Code::SlowConsumer, why)))));
            }
            if self.late.is_some_and(|at| now >= at) {
                self.late = None;
                return Poll::Ready(Heard::Leaving(std::time::Duration::ZERO));
            }
        }
    }
}

impl Transport for Carrier {
    type Message = Bytes;
    type End = End;

    fn poll(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<Heard<Bytes, End>> {
        match self.outbox.poll_taken(cx) {
            None => return Poll::Ready(Heard::End(End::Gone)),
            Some((taken, left)) => self.undrained.written(Instant::now(), taken > 0, left > 0),
        }
        if let Some(draining) = &mut self.draining
            && draining.as_mut().poll(cx).is_ready()
        {
            self.draining = None;
            return self.leave(limits::ADMISSION_WAIT);
        }
        if reading && !self.said_all {
            match Pin::new(&mut self.incoming).poll_next(cx) {
                Poll::Pending => {}
                Poll::Ready(Some(Ok(message))) => return Poll::Ready(Heard::Message(message)),
                Poll::Ready(Some(Err(status))) => return Poll::Ready(Heard::End(End::Status(status))),
                Poll::Ready(None) => {
                    self.said_all = true;
                    return self.leave(limits::LAST_ANSWERS);
                }
            }
        }
        self.poll_alarm(cx)
    }

    fn waiting(&self) -> usize {
        self.outbox.len()
    }

    fn send(&mut self, frame: &ServerFrame) {
        self.outbox.push(frame);
    }

    fn decode(&self, message: &Bytes) -> Result<Result<ClientFrame, FrameError>, End> {
        Ok(proto::decode_client(message))
    }

    fn count_ping(&mut self) -> Option<End> {
        if self.pings.heard(Instant::now()) {
            return None;
        }
        let why = format!("More than {} ping frames in 10 s; HTTP/2 has pings of its own.", limits::PINGS_PER_10_S);
        Some(End::Status(self.call.status(Error::new(Code::RateLimited, why))))
    }

    fn farewell(&self, all_answered: bool) -> End {
        if self.said_all && all_answered {
            return End::Status(Status::ok(""));
        }
        let why = "The broker is stopping; call again in a second. What has no answer may or may not have happened.";
        End::Status(self.call.status(Error::new(Code::Unavailable, why).detail("retry_after_s", 1)))
    }

    fn after_error(&self, error: &Error, request_id: &str) -> Option<End> {
        // Where a WebSocket closes, the call ends with the status of the error.
        let ends = crate::wire::code::of(error).websocket.close(false).is_some();
        ends.then(|| End::Status(status::of(error.clone(), request_id)))
    }
}
