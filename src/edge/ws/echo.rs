//! Answers what it hears, with the settings of `/v1/connect`: for the conformance suites of others.

use std::future::poll_fn;

use tokio_tungstenite::tungstenite::protocol::Message;

use super::WebSocket;
use super::link::{End, Heard, Link};
use super::outbox::Opcode;
use crate::edge::Face;

/// Until the peer goes.
pub async fn run(face: Face, ws: WebSocket) {
    let mut link = Link::new(face, ws);
    let end = loop {
        match poll_fn(|cx| link.poll(cx, true)).await {
            Heard::End(end) => break end,
            Heard::Message(Message::Text(text)) => link.push(Opcode::Text, text.into()),
            Heard::Message(Message::Binary(bytes)) => link.push(Opcode::Binary, bytes),
            Heard::Message(_) => {}
            Heard::Leaving(_) => break End::draining(),
        }
    };
    link.finish(end).await;
}
