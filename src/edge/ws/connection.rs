//! A WebSocket as the carrier of a conversation: which form frames have, and which close code an end has.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::protocol::Message;

use super::WebSocket;
use super::dialect::{Dialect, WrongKind};
use super::link::{End, Link, close, too_many_pings};
use super::outbox::TooMuchUnheard;
use crate::broker::{Connection, Principal, Usage};
use crate::edge::conversation::{Conversation, Heard, Transport};
use crate::edge::{Face, Peer, Seats};
use crate::types::request::SubscribeRequest;
use crate::types::{Code, Error, Result, limits};
use crate::wire::frame::{About, ClientFrame, FrameError, ServerFrame};

/// Bytes in and out, and what they mean.
struct Carrier {
    link: Link,
    dialect: Dialect,
}

impl Transport for Carrier {
    type Message = Message;
    type End = End;

    fn poll(&mut self, cx: &mut Context<'_>, reading: bool) -> Poll<Heard<Message, End>> {
        self.link.poll(cx, reading)
    }

    fn waiting(&self) -> usize {
        self.link.waiting()
    }

    fn send(&mut self, frame: &ServerFrame) {
        let (opcode, payload) = self.dialect.encode(frame);
        self.link.push(opcode, payload);
    }

    fn decode(&self, message: &Message) -> Result<Result<ClientFrame, FrameError>, End> {
        self.dialect.decode(message).map_err(|WrongKind| wrong_kind())
    }

    fn count_ping(&mut self) -> Option<End> {
        if self.link.count_ping() { None } else { Some(too_many_pings()) }
    }

    fn farewell(&self, _: bool) -> End {
        End::draining()
    }

    fn after_error(&self, error: &Error, _: &str) -> Option<End> {
        End::of(error, self.dialect.single)
    }

    fn after_reader(&self, error: Option<Code>) -> Option<End> {
        let end = |number: u16, why: &str| self.dialect.single.then(|| End::Close(number, why.to_owned()));
        match error {
            None => end(close::NORMAL, ""),
            Some(code @ (Code::Internal | Code::DataCorrupt)) => end(close::INTERNAL, code.as_str()),
            Some(code @ (Code::Unavailable | Code::Overloaded)) => end(close::AGAIN, code.as_str()),
            Some(code) => end(close::POLICY, code.as_str()),
        }
    }
}

/// Who it is, and what its user does, where that has bounds.
pub type Caller = (Principal, Option<Arc<Usage>>);

/// Serves a caller with a credential until it goes, is sent away, or the broker stops.
pub async fn run(face: Face, ws: WebSocket, (who, usage): Caller, dialect: Dialect, only: Option<SubscribeRequest>, id: Arc<str>) {
    let mut broker = face.broker().connect(who);
    let mut talk = Conversation::new(Carrier { link: Link::new(face, ws), dialect }, id);
    talk.count_for(usage);
    talk.greet();
    let end = serve(&mut talk, &mut broker, only).await;
    drop(broker);
    talk.into_transport().link.finish(end).await;
}

/// Everything after the greeting.
async fn serve(talk: &mut Conversation<Carrier>, broker: &mut Connection, only: Option<SubscribeRequest>) -> End {
    if let Some(request) = only {
        talk.frame(broker, ClientFrame::Subscribe { sub: 0, request }).await;
    }
    talk.run(broker).await
}

/// Serves a caller without one: it may say who it is within a few seconds, with the first frame.
pub async fn introduce(
    face: Face,
    ws: WebSocket,
    (peer, seats): (Option<Peer>, Option<Seats>),
    dialect: Dialect,
    only: Option<SubscribeRequest>,
    error: Error,
    id: Arc<str>,
) {
    let mut talk = Conversation::new(Carrier { link: Link::new(face.clone(), ws), dialect }, id);
    talk.greet();
    let heard = timeout_at(Instant::now() + limits::AUTH_DEADLINE, talk.heard()).await;
    let (error, end) = match heard {
        Ok(Heard::End(end)) => (None, end),
        Ok(Heard::Leaving(_)) => (None, End::draining()),
        Ok(Heard::Message(message)) if message.len() > limits::MESSAGE_MAX_BYTES_PRE_AUTH => (None, End::Close(close::TOO_BIG, TooMuchUnheard.to_string())),
        Ok(Heard::Message(message)) => match dialect.decode(&message) {
            Err(WrongKind) => (None, wrong_kind()),
            Ok(Ok(ClientFrame::Auth { key, ticket })) => match let_in(&face, (peer, seats), &key.or(ticket).unwrap_or_default()).await {
                Ok((who, usage)) => {
                    talk.transport_mut().link.let_in();
                    talk.count_for(usage);
                    let mut broker = face.broker().connect(who);
                    (None, serve(&mut talk, &mut broker, only).await)
                }
                Err(error) if error.code == Code::QuotaExceeded => (Some(error), End::Close(close::AGAIN, Code::QuotaExceeded.as_str().to_owned())),
                Err(error) => (Some(error), unauthenticated()),
            },
            Ok(_) => (Some(error), unauthenticated()),
        },
        Err(_) => (Some(Error::new(Code::Unauthenticated, "No auth frame came in time.")), unauthenticated()),
    };
    if let Some(error) = error {
        talk.fail(About::Connection, error);
    }
    talk.into_transport().link.finish(end).await;
}

/// Whoever shows this, with a place for its connection.
async fn let_in(face: &Face, (peer, seats): (Option<Peer>, Option<Seats>), token: &str) -> Result<Caller> {
    let who = face.shown(peer, token).await?;
    let usage = face.usage(peer, &who).cloned();
    if let (Some(seats), Some(usage)) = (seats, &usage) {
        seats.take(usage)?;
    }
    Ok((who, usage))
}

fn unauthenticated() -> End {
    End::Close(4001, Code::Unauthenticated.as_str().to_owned())
}

fn wrong_kind() -> End {
    End::Close(close::UNSUPPORTED, "tidelog.v1.json is text, tidelog.v1.proto is binary.".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what a call of `run` would be.
    fn size_of<F>(_: impl FnOnce(Face, WebSocket, Caller, Dialect, Option<SubscribeRequest>, Arc<str>) -> F) -> usize {
        std::mem::size_of::<F>()
    }

    #[test]
    fn an_idle_connection_is_a_small_task() {
        let size = size_of(run);
        assert!(size <= 4096, "{size} bytes; ten thousand of them may idle (benches/footprint.rs)");
    }
}
