//! In which form frames travel on one connection: text or bytes, with or without `sub`.

use bytes::Bytes;
use tokio_tungstenite::tungstenite::protocol::Message;

use super::handshake::Subprotocol;
use super::outbox::Opcode;
use crate::wire::frame::{ClientFrame, FrameError, ServerFrame};
use crate::wire::{json, proto};

/// What was agreed at the upgrade.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    /// Text or bytes.
    pub subprotocol: Subprotocol,
    /// The URL of one subscription: frames have no `sub`; inside it is 0.
    pub single: bool,
}

/// The message is of the kind that was not agreed on.
pub struct WrongKind;

impl Dialect {
    /// Reads a message.
    ///
    /// # Errors
    /// The inner one: bytes that are no frame. The outer one: text for bytes or the reverse.
    pub fn decode(self, message: &Message) -> Result<Result<ClientFrame, FrameError>, WrongKind> {
        match (self.subprotocol, message) {
            (Subprotocol::Json, Message::Text(text)) if self.single => Ok(json::decode_client_single(text.as_str())),
            (Subprotocol::Json, Message::Text(text)) => Ok(json::decode_client(text.as_str())),
            (Subprotocol::Proto, Message::Binary(bytes)) => Ok(proto::decode_client(bytes)),
            _ => Err(WrongKind),
        }
    }

    /// Writes a frame.
    pub fn encode(self, frame: &ServerFrame) -> (Opcode, Bytes) {
        match self.subprotocol {
            Subprotocol::Json if self.single => (Opcode::Text, json::encode_server_single(frame).into()),
            Subprotocol::Json => (Opcode::Text, json::encode_server(frame).into()),
            Subprotocol::Proto => (Opcode::Binary, proto::encode_server(frame)),
        }
    }
}
