//! One WebSocket to the broker: frames out, frames in, and nothing else. It dies with its connection; whoever needs
//! more than one connection (producer, consumer) opens a new one.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Sink, Stream};
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::endpoint::Io;
use super::{Client, Error, Protocol};
use crate::types::{Applied, limits};
use crate::wire::frame::{About, ClientFrame, Hello, ServerFrame};
use crate::wire::{json, proto};

/// Time for connecting, upgrading and the broker's `hello`.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Reads of a busy reader are worth a larger buffer than the broker gives each of its many sockets.
const READ_BUFFER: usize = 32 * 1024;

/// One open connection.
pub(crate) struct Link {
    socket: WebSocketStream<Box<dyn Io>>,
    protocol: Protocol,
    outbox: VecDeque<Message>,
    unflushed: bool,
    heard: Instant,
    asked: bool,
    timer: Pin<Box<Sleep>>,
    /// What the broker said first.
    #[allow(dead_code, reason = "limits and capabilities are for callers to come")]
    pub(crate) hello: Hello,
}

impl Link {
    /// Connects, upgrades and waits for `hello`.
    pub(crate) async fn open(client: &Client) -> Result<Self, Error> {
        let what = format!("No answer from {} within {} s.", client.endpoint(), OPEN_TIMEOUT.as_secs());
        timeout(OPEN_TIMEOUT, Self::open_now(client)).await.unwrap_or_else(|_| Err(Error::unreachable(what)))
    }

    async fn open_now(client: &Client) -> Result<Self, Error> {
        let mut io = client.endpoint().open().await?;
        if let Some(tls) = client.tls() {
            io = super::tls::wrap(tls, client.endpoint(), io).await?;
        }
        let mut request = format!("ws://{}/v1/connect", client.endpoint().authority())
            .into_client_request()
            .map_err(|e| Error::Usage(format!("The address {} cannot be used: {e}.", client.endpoint())))?;
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, http::HeaderValue::from_static(client.protocol().name()));
        if let Some(key) = client.authorization() {
            request.headers_mut().insert(AUTHORIZATION, key);
        }
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(limits::FRAME_TARGET_BYTES)
            .max_write_buffer_size(limits::WS_MAX_WRITE_BUFFER_BYTES)
            // Every answer of the broker fits; the margin is for its JSON form.
            .max_message_size(Some(2 * limits::MESSAGE_MAX_BYTES))
            .max_frame_size(Some(2 * limits::MESSAGE_MAX_BYTES));
        let (socket, _) = client_async_with_config(request, io, Some(config)).await.map_err(|e| refused(client, e))?;
        let heard = Instant::now();
        let mut link = Self {
            socket,
            protocol: client.protocol(),
            outbox: VecDeque::new(),
            unflushed: false,
            heard,
            asked: false,
            timer: Box::pin(sleep_until(heard + limits::PING_EVERY)),
            hello: Hello::default(),
        };
        match link.next().await.map_err(before_request)? {
            ServerFrame::Hello(hello) => {
                link.hello = hello;
                Ok(link)
            }
            ServerFrame::Error { about: About::Connection, error, request_id } => Err(Error::Server { error, request_id }),
            _ => Err(Error::Protocol("a frame before hello".into())),
        }
    }

    /// Puts a frame into the queue; [`Link::next`] writes it. The caller bounds what it queues.
    pub(crate) fn send(&mut self, frame: &ClientFrame) {
        let message = match self.protocol {
            Protocol::Binary => Message::Binary(proto::encode_client(frame)),
            Protocol::Json => Message::text(json::encode_client(frame)),
        };
        self.outbox.push_back(message);
    }

    /// The next frame of the broker. Writes what is queued, answers pings, asks a silent broker whether it is there.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Connection`] with `applied: unknown` when the connection has ended.
    pub(crate) async fn next(&mut self) -> Result<ServerFrame, Error> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<ServerFrame, Error>> {
        loop {
            self.poll_write(cx).map_err(gone)?;
            match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    self.heard = Instant::now();
                    self.asked = false;
                    if let Some(frame) = self.decode(message)? {
                        return Poll::Ready(Ok(frame));
                    }
                }
                Poll::Ready(Some(Err(e))) => return Poll::Ready(Err(gone(e))),
                Poll::Ready(None) => return Poll::Ready(Err(Error::lost("The broker closed the connection."))),
                Poll::Pending => {
                    if self.timer.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    let silent = self.heard.elapsed();
                    if silent >= limits::PEER_DEAD {
                        return Poll::Ready(Err(Error::lost(format!("The broker has been silent for {} s.", silent.as_secs()))));
                    }
                    if silent >= limits::PING_EVERY && !self.asked {
                        self.asked = true;
                        self.send(&ClientFrame::Ping);
                    }
                    let wait = if self.asked { limits::PEER_DEAD } else { limits::PING_EVERY };
                    let at = (self.heard + wait).max(Instant::now() + Duration::from_millis(100));
                    self.timer.as_mut().reset(at);
                }
            }
        }
    }

    /// Moves the queue into the socket as far as it takes it.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), WsError> {
        while !self.outbox.is_empty() {
            match Pin::new(&mut self.socket).poll_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return Ok(()),
            }
            if let Some(message) = self.outbox.pop_front() {
                Pin::new(&mut self.socket).start_send(message)?;
                self.unflushed = true;
            }
        }
        if self.unflushed
            && let Poll::Ready(flushed) = Pin::new(&mut self.socket).poll_flush(cx)
        {
            flushed?;
            self.unflushed = false;
        }
        Ok(())
    }

    fn decode(&self, message: Message) -> Result<Option<ServerFrame>, Error> {
        let decoded = match message {
            Message::Binary(bytes) => proto::decode_server(bytes),
            Message::Text(text) => json::decode_server(text.as_str()),
            Message::Close(frame) => return Err(closed(frame)),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Ok(None),
        };
        decoded.map_err(|e| Error::Protocol(e.to_string()))
    }

    /// Says goodbye: what is queued is written, then the close frame. Gives up after a second.
    pub(crate) async fn close(mut self) {
        let goodbye = async {
            self.outbox.push_back(Message::Close(None));
            while let Ok(_frame) = self.next().await {}
        };
        let _ = timeout(Duration::from_secs(1), goodbye).await;
    }
}

/// An error while nothing had been asked yet has no effect.
fn before_request(error: Error) -> Error {
    match error {
        Error::Connection { message, .. } => Error::Connection { message, applied: Applied::No },
        other => other,
    }
}

fn gone(error: WsError) -> Error {
    match error {
        WsError::ConnectionClosed | WsError::AlreadyClosed => Error::lost("The broker closed the connection."),
        WsError::Capacity(e) => Error::Protocol(e.to_string()),
        other => Error::lost(format!("The connection to the broker ended: {other}.")),
    }
}

fn closed(frame: Option<CloseFrame>) -> Error {
    match frame {
        Some(frame) if !frame.reason.is_empty() => Error::lost(format!("The broker closed the connection ({}): {}.", frame.code, frame.reason)),
        Some(frame) => Error::lost(format!("The broker closed the connection ({}).", frame.code)),
        None => Error::lost("The broker closed the connection."),
    }
}

/// An upgrade that was answered with plain HTTP carries the broker's error in its body.
fn refused(client: &Client, error: WsError) -> Error {
    match error {
        WsError::Http(response) => {
            let (parts, body) = response.into_parts();
            super::admin::parse_error(parts.status, body.as_deref().unwrap_or_default())
        }
        // Over TLS 1.3 the broker's verdict about a certificate comes with the first answer.
        WsError::Io(error) => Error::unreachable(format!("No broker answers at {}: {error}.", client.endpoint())),
        other => Error::unreachable(format!("{} does not speak Tidelog's WebSocket: {other}.", client.endpoint())),
    }
}
