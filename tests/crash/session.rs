//! A durable reader that speaks the JSON frames itself, without the client library: what the broker says is kept as it was said.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::dice::Dice;
use crate::history::{Seen, Session, hash};
use crate::load::INPUT;

/// A reader and what it saw.
pub struct Reader {
    name: &'static str,
    durable: bool,
    socket: PathBuf,
    dice: Dice,
    stop: Arc<AtomicBool>,
    /// One past the last offset that came, for whoever waits for it.
    reached: Arc<AtomicU64>,
    pub sessions: Vec<Session>,
    pub seen: Vec<Seen>,
}

impl Reader {
    /// `durable`: its acks are, all of them; else none is.
    pub fn new(name: &'static str, durable: bool, socket: &Path, dice: Dice, stop: Arc<AtomicBool>, reached: Arc<AtomicU64>) -> Self {
        Self { name, durable, socket: socket.to_owned(), dice, stop, reached, sessions: Vec::new(), seen: Vec::new() }
    }

    /// Attaches again and again until it is told to stop.
    pub async fn run(mut self) -> Self {
        while !self.stop.load(Ordering::SeqCst) {
            if self.attach().await.is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        self
    }

    /// One session, until the connection ends, or chance or the test ends it. `None`: it ended by itself.
    async fn attach(&mut self) -> Option<()> {
        let mut socket = connect(&self.socket).await?;
        let subscribe = json!({"t": "subscribe", "sub": 1, "stream": INPUT, "subscription": self.name, "create": true});
        say(&mut socket, &subscribe).await?;
        let subscribed = loop {
            let frame = hear(&mut socket).await?;
            match frame["t"].as_str() {
                Some("subscribed") => break frame,
                Some("hello") => {}
                _ => return unexpected(&frame),
            }
        };
        let number = |name: &str| subscribed[name].as_u64().unwrap_or_else(|| panic!("no {name} in {subscribed}"));
        let (stream_id, log_epoch) = (number("stream_id"), number("log_epoch"));
        self.sessions.push(Session {
            reader: self.name,
            durable: self.durable,
            epoch: number("epoch"),
            next: number("next"),
            got: Vec::new(),
            acked: Vec::new(),
        });
        let (mut unacked, mut patience, mut frames) = (0, self.dice.between(1, 200), self.dice.between(5, 400));
        loop {
            let frame = tokio::select! {
                frame = hear(&mut socket) => frame?,
                () = tokio::time::sleep(Duration::from_millis(50)) => match self.stop.load(Ordering::SeqCst) {
                    true => return self.leave(&mut socket).await,
                    false => continue,
                },
            };
            let session = self.sessions.last_mut()?;
            let mut live = false;
            match frame["t"].as_str() {
                Some("events") => {
                    for event in frame["events"].as_array().into_iter().flatten() {
                        let (Some(offset), Some(data)) = (event["offset"].as_u64(), event["data"].as_str()) else { return unexpected(&frame) };
                        session.got.push(offset);
                        self.seen.push(Seen { reader: self.name, stream_id, log_epoch, offset, hash: hash(data.as_bytes()) });
                        self.reached.fetch_max(offset + 1, Ordering::SeqCst);
                        unacked += 1;
                    }
                }
                Some("acked") => session.acked.extend(frame["next"].as_u64()),
                Some("live") => live = true,
                _ => return unexpected(&frame),
            }
            if unacked > 0 && (unacked >= patience || live) {
                let ack = json!({"t": "ack", "sub": 1, "offset": session.got.last(), "level": if self.durable { "durable" } else { "received" }});
                (unacked, patience) = (0, self.dice.between(1, 200));
                say(&mut socket, &ack).await?;
            }
            frames -= 1;
            if frames == 0 {
                // Without a word, like a process that died.
                return None;
            }
        }
    }

    /// Acks what came and waits for the answer.
    async fn leave(&mut self, socket: &mut WebSocketStream<UnixStream>) -> Option<()> {
        let session = self.sessions.last_mut()?;
        let last = *session.got.last()?;
        say(socket, &json!({"t": "ack", "sub": 1, "offset": last, "level": "durable"})).await?;
        while session.acked.last() != Some(&(last + 1)) {
            let frame = hear(socket).await?;
            match frame["t"].as_str() {
                Some("acked") => session.acked.extend(frame["next"].as_u64()),
                Some("live" | "events") => {}
                _ => return unexpected(&frame),
            }
        }
        socket.close(None).await.ok()
    }
}

/// Frames that a broker says when it ends or is overtaken are the end of a session, others the end of the test.
fn unexpected(frame: &Value) -> Option<()> {
    let code = frame["code"].as_str().unwrap_or_default();
    assert!(frame["t"] == "error" && ["unavailable", "outcome_unknown", "session_fenced", "storage_failed"].contains(&code), "a reader heard {frame}");
    None
}

async fn connect(path: &Path) -> Option<WebSocketStream<UnixStream>> {
    let stream = UnixStream::connect(path).await.ok()?;
    let mut request = "ws://localhost/v1/connect".into_client_request().expect("a fine address");
    request.headers_mut().insert("sec-websocket-protocol", http::HeaderValue::from_static("tidelog.v1.json"));
    Some(client_async(request, stream).await.ok()?.0)
}

async fn say(socket: &mut WebSocketStream<UnixStream>, frame: &Value) -> Option<()> {
    socket.send(Message::text(frame.to_string())).await.ok()
}

async fn hear(socket: &mut WebSocketStream<UnixStream>) -> Option<Value> {
    loop {
        match socket.next().await?.ok()? {
            Message::Text(text) => return Some(serde_json::from_str(text.as_str()).unwrap_or_else(|e| panic!("{text} is not JSON: {e}"))),
            Message::Close(_) => return None,
            _ => {}
        }
    }
}
