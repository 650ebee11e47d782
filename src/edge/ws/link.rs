//! The transport half of a WebSocket: bytes in and out, pings, deadlines, the close handshake. It knows no frame of ours.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink as _, Stream as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tokio_tungstenite::tungstenite::error::{Error as WsError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::{Message, frame::coding::CloseCode};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::WebSocket;
use super::clock::{Clock, Due};
use super::fragments::TooManyFragments;
use super::outbox::{Opcode, TooMuchUnheard};
use crate::edge::{Face, conversation};
use crate::types::{Code, Error, limits};
use crate::wire::code;

/// How long a peer has to take the last bytes and to close its side.
const LINGER: Duration = Duration::from_secs(2);

/// Bytes of a message that is on its way which show that its sender is there: as slow as a request body may be.
const SLOWEST: u64 = limits::BODY_MIN_RATE * limits::PEER_DEAD.as_secs();

/// Close codes of RFC 6455 that we send.
pub mod close {
    /// Done.
    pub const NORMAL: u16 = 1000;
    /// The broker is stopping.
    pub const GOING_AWAY: u16 = 1001;
    /// The peer broke the WebSocket protocol.
    pub const PROTOCOL: u16 = 1002;
    /// Text where bytes were agreed, or the reverse.
    pub const UNSUPPORTED: u16 = 1003;
    /// Text that is not UTF-8.
    pub const INVALID: u16 = 1007;
    /// A refusal for which there is no better number.
    pub const POLICY: u16 = 1008;
    /// The message is over the limit.
    pub const TOO_BIG: u16 = 1009;
    /// A fault of ours.
    pub const INTERNAL: u16 = 1011;
    /// Try again later.
    pub const AGAIN: u16 = 1013;
    /// See `slow_consumer`; also too many pings.
    pub const SLOW: u16 = 4008;
}

/// How a connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer is gone, or has said goodbye.
    Gone,
    /// We say goodbye.
    Close(u16, String),
}

impl End {
    /// The broker is stopping.
    pub fn draining() -> Self {
        Self::Close(close::GOING_AWAY, "The broker is stopping; connect again in 1 s.".into())
    }

    /// After an error that ends the connection.
    pub fn of(error: &Error, single: bool) -> Option<Self> {
        code::of(error).websocket.close(single).map(|number| Self::Close(number, error.code.as_str().to_owned()))
    }

    fn of_transport(error: &WsError) -> Self {
        let (number, why) = match error {
            WsError::Capacity(_) => (close::TOO_BIG, "The message is over the limit.".to_owned()),
            WsError::Io(why) if why.get_ref().is_some_and(|why| why.is::<TooManyFragments>()) => (close::TOO_BIG, TooManyFragments.to_string()),
            WsError::Io(why) if why.get_ref().is_some_and(|why| why.is::<TooMuchUnheard>()) => (close::TOO_BIG, TooMuchUnheard.to_string()),
            WsError::Utf8(_) => (close::INVALID, "The text is not UTF-8.".to_owned()),
            WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return Self::Gone,
            WsError::Protocol(why) => (close::PROTOCOL, why.to_string()),
            _ => return Self::Gone,
        };
        Self::Close(number, why)
    }
}

/// What came up: a text or binary message, the broker's stop, or the end, after which [`Link::finish`] is called.
pub type Heard = conversation::Heard<Message, End>;

/// One WebSocket.
pub struct Link {
    ws: WebSocket,
    face: Face,
    clock: Clock,
    alarm: Pin<Box<Sleep>>,
    draining: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Link {
    /// A link that begins now.
    pub fn new(face: Face, ws: WebSocket) -> Self {
        let clock = Clock::new(Instant::now());
        let alarm = Box::pin(sleep_until(clock.next()));
        let draining = Some(Box::pin(face.draining().clone().cancelled_owned()));
        Self { ws, face, clock, alarm, draining }
    }

    /// Bytes waiting for the socket.
    pub fn waiting(&self) -> usize {
        self.ws.get_ref().outbox.len()
    }

    /// Puts a frame behind those that wait. [`Link::poll`] sends it.
    pub fn push(&mut self, opcode: Opcode, payload: Bytes) {
        self.face.stats().frame_out();
        self.ws.get_mut().outbox.push(opcode, payload);
    }

    /// The peer has said who it is: it may send as much as anybody.
    pub fn let_in(&mut self) {
        self.ws.get_mut().allowance = None;
    }

    /// A ping in whatever form. False when there are too many.
    pub fn count_ping(&mut self) -> bool {
        self.clock.ping_heard(Instant::now())
    }

    /// Writes what waits and, if `reading`, reads. Nothing is lost when it is not polled again.
    pub fn poll(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<Heard> {
        if let Err(end) = self.poll_write(cx) {
            return Poll::Ready(Heard::End(end));
        }
        if let Some(draining) = &mut self.draining
            && draining.as_mut().poll(cx).is_ready()
        {
            self.draining = None;
            return Poll::Ready(Heard::Leaving(limits::ADMISSION_WAIT));
        }
        if reading {
            self.poll_read(cx)
        } else {
            self.clock.heard(Instant::now()); // we do not listen, so silence means nothing
            self.poll_alarm(cx)
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        while let Poll::Ready(message) = Pin::new(&mut self.ws).poll_next(cx) {
            self.clock.heard(Instant::now());
            self.ws.get_mut().received = 0;
            match message {
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                    self.face.stats().frame_in();
                    return Poll::Ready(Heard::Message(message));
                }
                Some(Ok(Message::Ping(_))) if !self.count_ping() => return Poll::Ready(Heard::End(too_many_pings())),
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Heard::End(End::Gone)),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Heard::End(End::of_transport(&error))),
            }
        }
        self.poll_alarm(cx)
    }

    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        loop {
            if self.waiting() > 0
                && let Err(end) = self.poll_write(cx)
            {
                return Poll::Ready(Heard::End(end));
            }
            let next = self.clock.next();
            if next < self.alarm.deadline() {
                self.alarm.as_mut().reset(next);
            }
            if self.alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match self.clock.due(Instant::now()) {
                // It is in the middle of a long message over a slow line.
                Some(Due::Dead) if std::mem::take(&mut self.ws.get_mut().received) >= SLOWEST => self.clock.heard(Instant::now()),
                Some(Due::Dead) => return Poll::Ready(Heard::End(End::Gone)),
                Some(Due::Undrained) => return Poll::Ready(Heard::End(self.too_slow())),
                Some(Due::Ping) => self.ws.get_mut().outbox.push(Opcode::Ping, Bytes::new()),
                None => {}
            }
            let next = self.clock.next();
            self.alarm.as_mut().reset(next);
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let mut sent = 0;
        let tee = self.ws.get_mut();
        if tee.outbox.is_empty() {
            return Ok(());
        }
        let left = match tee.poll_drain(cx, &mut sent) {
            Poll::Pending => true,
            Poll::Ready(Ok(())) => false,
            Poll::Ready(Err(_)) => return Err(End::Gone),
        };
        self.clock.written(Instant::now(), sent > 0, left);
        Ok(())
    }

    fn too_slow(&self) -> End {
        self.face.stats().slow_consumer();
        End::Close(close::SLOW, Code::SlowConsumer.as_str().to_owned())
    }

    /// Says goodbye and lets go.
    pub async fn finish(mut self, end: End) {
        let deadline = Instant::now() + LINGER;
        if let End::Close(number, why) = end {
            if number == close::SLOW {
                self.ws.get_mut().outbox.drop_unsent();
            }
            tracing::debug!(number, why, "closing");
            let frame = CloseFrame { code: CloseCode::from(number), reason: shortened(why).into() };
            let _ = Pin::new(&mut self.ws).start_send(Message::Close(Some(frame))); // fails only when the peer closed first
        } else {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let _ = Pin::new(&mut self.ws).poll_flush(&mut cx); // the answer to the peer's close frame goes into the outbox
        }
        let tee = self.ws.get_mut();
        let flushed = timeout_at(deadline, std::future::poll_fn(|cx| tee.poll_drain(cx, &mut 0))).await;
        if !matches!(flushed, Ok(Ok(()))) || tee.socket.shutdown().await.is_err() {
            return;
        }
        // Closing a socket with unread bytes resets it, and the peer may lose our last frame: read them away.
        let mut scrap = [0; 512];
        let _ = timeout_at(deadline, async { while matches!(tee.socket.read(&mut scrap).await, Ok(n) if n > 0) {} }).await;
    }
}

/// More pings than a peer needs.
pub fn too_many_pings() -> End {
    End::Close(close::SLOW, format!("More than {} pings in 10 s.", limits::PINGS_PER_10_S))
}

/// A close reason has at most 123 bytes.
fn shortened(mut why: String) -> String {
    let mut end = why.len().min(123);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    why.truncate(end);
    why
}
