//! Clients byte by byte: WebSocket frames and HTTP/2 frames as one likes, right or wrong.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::PATIENCE;

pub async fn tcp(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).await.expect("the port is open");
    stream.set_nodelay(true).expect("a TCP socket");
    stream
}

/// A connection whose own buffer is small, so that it is soon full.
pub async fn narrow(at: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a buffer");
    socket.connect(at).await.expect("the port is open")
}

/// Ends a connection by a reset instead of a goodbye.
pub fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
}

/// Sends `bytes` while it hands what comes to `each`, which says whether to go on. Ends when it does not, or the peer does, or has been
/// silent for long.
async fn exchange(socket: &mut TcpStream, buffer: &mut BytesMut, bytes: &[u8], mut each: impl FnMut(&mut BytesMut) -> bool) {
    let (mut read, mut write) = socket.split();
    let writing = async {
        let _ = write.write_all(bytes).await;
        std::future::pending::<()>().await
    };
    let reading = async {
        while each(buffer) {
            match timeout(PATIENCE, read.read_buf(buffer)).await.expect("something in time") {
                Ok(n) if n > 0 => {}
                _ => return,
            }
        }
    };
    let (reading, writing) = (pin!(reading), pin!(writing));
    tokio::select! { () = reading => {}, () = writing => {} }
}

// ------------------------------------------------------------------------------------------------------------- WebSocket

/// The first byte of a frame that is whole.
pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;
const CLOSE: u8 = 0x88;

/// A frame with this length in its head, whatever follows. Masked with zeros, which changes nothing.
pub fn ws_head(first: u8, len: u64) -> Vec<u8> {
    let mut out = vec![first];
    match len {
        0..=125 => out.push(0x80 | len as u8),
        126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend_from_slice(&len.to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out
}

pub fn ws_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = ws_head(first, payload.len() as u64);
    out.extend_from_slice(payload);
    out
}

pub fn ws_text(text: &str) -> Vec<u8> {
    ws_frame(TEXT, text.as_bytes())
}

/// The first frame in the buffer, if it is whole.
fn take_ws(buffer: &mut BytesMut) -> Option<(u8, Bytes)> {
    let (head, len) = match *buffer.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes(buffer.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(buffer.get(2..10)?.try_into().ok()?) as usize),
        n => (2, usize::from(n)),
    };
    if buffer.len() < head + len {
        return None;
    }
    let first = buffer[0];
    buffer.advance(head);
    Some((first, buffer.split_to(len).freeze()))
}

/// A WebSocket, byte by byte.
pub struct Ws {
    pub socket: TcpStream,
    buffer: BytesMut,
}

impl Ws {
    pub async fn json(at: SocketAddr) -> Self {
        Self::open(tcp(at).await, "tidelog.v1.json").await
    }

    pub async fn proto(at: SocketAddr) -> Self {
        Self::open(tcp(at).await, "tidelog.v1.proto").await
    }

    pub async fn open(mut socket: TcpStream, subprotocol: &str) -> Self {
        let request = format!(
            "GET /v1/connect HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.expect("the request goes out");
        let mut ws = Self { socket, buffer: BytesMut::new() };
        let end = loop {
            if let Some(end) = ws.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break end;
            }
            let n = timeout(PATIENCE, ws.socket.read_buf(&mut ws.buffer)).await.expect("an answer in time").expect("an answer");
            assert!(n > 0, "the broker closed the connection");
        };
        assert!(ws.buffer.starts_with(b"HTTP/1.1 101"), "{:?}", ws.buffer);
        ws.buffer.advance(end + 4);
        ws.next().await.expect("hello");
        ws
    }

    /// Sends bytes as they are. The peer may be gone.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes).await;
    }

    /// The next frame, pings included; `None` at the end.
    pub async fn next(&mut self) -> Option<(u8, Bytes)> {
        loop {
            if let Some(frame) = take_ws(&mut self.buffer) {
                return Some(frame);
            }
            match timeout(PATIENCE * 2, self.socket.read_buf(&mut self.buffer)).await.expect("a frame in time") {
                Ok(n) if n > 0 => {}
                _ => return None,
            }
        }
    }

    /// Sends bytes while each frame that comes goes to `each`, which says whether to go on.
    pub async fn flood(&mut self, bytes: &[u8], mut each: impl FnMut(u8, &[u8]) -> bool) {
        exchange(&mut self.socket, &mut self.buffer, bytes, |buffer| {
            while let Some((first, payload)) = take_ws(buffer) {
                if !each(first, &payload) {
                    return false;
                }
            }
            true
        })
        .await;
    }

    /// The next text frame.
    pub async fn said(&mut self) -> Value {
        loop {
            let (first, payload) = self.next().await.expect("the connection lives");
            if first == TEXT {
                return serde_json::from_slice(&payload).expect("JSON");
            }
            assert!(first == PING || first == PONG, "{first:x} {payload:?}");
        }
    }

    /// Says a text and hears the next.
    pub async fn ask(&mut self, text: &str) -> Value {
        self.send(&ws_text(text)).await;
        self.said().await
    }

    /// How it ends: the code and the reason, `gone` without a goodbye.
    pub async fn ended(&mut self) -> String {
        loop {
            match self.next().await {
                None => return "gone".into(),
                Some((CLOSE, payload)) if payload.len() >= 2 => {
                    return format!("{} {}", u16::from_be_bytes([payload[0], payload[1]]), String::from_utf8_lossy(&payload[2..]));
                }
                Some(_) => {}
            }
        }
    }

    /// It still answers.
    pub async fn alive(&mut self) {
        assert_eq!(self.ask(r#"{"t":"ping"}"#).await["t"], "pong");
    }
}

/// `code` of an error frame, or its type.
pub fn told(frame: &Value) -> String {
    frame["code"].as_str().or(frame["t"].as_str()).unwrap_or_default().to_owned()
}

// ---------------------------------------------------------------------------------------------------------------- HTTP/2

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING2: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const ACK: u8 = 1;
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest window there is.
pub const WIDEST: u32 = 0x7fff_ffff;

pub fn h2_head(len: usize, kind: u8, flags: u8, stream: u32) -> Vec<u8> {
    let len = (len as u32).to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes()].concat()
}

pub fn h2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = h2_head(payload.len(), kind, flags, stream);
    out.extend_from_slice(payload);
    out
}

pub fn h2_settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    h2_frame(SETTINGS, 0, 0, &payload)
}

/// A header field: literal, not indexed (RFC 7541 section 6.2.2).
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![0];
    for text in [name, value] {
        let mut left = text.len();
        if left < 127 {
            out.push(left as u8);
        } else {
            out.push(127);
            left -= 127;
            while left >= 128 {
                out.push(left as u8 | 0x80);
                left >>= 7;
            }
            out.push(left as u8);
        }
        out.extend_from_slice(text.as_bytes());
    }
    out
}

/// The head of a request.
pub fn head(method: &str, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = [field(":method", method), field(":scheme", "http"), field(":path", path), field(":authority", "localhost")].concat();
    for (name, value) in fields {
        out.extend(field(name, value));
    }
    out
}

/// The head of a gRPC call.
pub fn call(method: &str) -> Vec<u8> {
    head("POST", &format!("/tidelog.v1.Broker/{method}"), &[("content-type", "application/grpc"), ("te", "trailers")])
}

/// A gRPC message.
pub fn message(bytes: &[u8]) -> Vec<u8> {
    [&[0], &(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

/// A frame of HTTP/2 that came.
#[derive(Debug)]
pub struct H2Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Bytes,
}

fn take_h2(buffer: &mut BytesMut) -> Option<H2Frame> {
    let head: [u8; 9] = buffer.get(..9)?.try_into().ok()?;
    let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    if buffer.len() < 9 + len {
        return None;
    }
    buffer.advance(9);
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & WIDEST;
    Some(H2Frame { kind: head[3], flags: head[4], stream, payload: buffer.split_to(len).freeze() })
}

/// An HTTP/2 connection, byte by byte.
pub struct H2 {
    pub socket: TcpStream,
    buffer: BytesMut,
}

impl H2 {
    /// By prior knowledge, with windows that never close.
    pub async fn open(at: SocketAddr) -> Self {
        Self::on(tcp(at).await, WIDEST).await
    }

    /// `window`: of each stream.
    pub async fn on(mut socket: TcpStream, window: u32) -> Self {
        let more = h2_frame(WINDOW, 0, 0, &(WIDEST - 65_535).to_be_bytes());
        socket.write_all(&[PREFACE, &h2_settings(&[(4, window)]), &more].concat()).await.expect("it goes out");
        let mut h2 = Self { socket, buffer: BytesMut::new() };
        // The broker's windows hold once its settings are acknowledged and that of the connection is told.
        let (mut settings, mut wide) = (false, false);
        while !(settings && wide) {
            let frame = h2.next().await.expect("settings");
            settings |= frame.kind == SETTINGS && frame.flags & ACK == 0;
            wide |= frame.kind == WINDOW && frame.stream == 0;
        }
        h2
    }

    /// The socket, and what was read from it beyond the last frame.
    pub fn into_parts(self) -> (TcpStream, BytesMut) {
        (self.socket, self.buffer)
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes).await;
    }

    /// The next frame; settings and pings are acknowledged.
    pub async fn next(&mut self) -> Option<H2Frame> {
        loop {
            if let Some(frame) = take_h2(&mut self.buffer) {
                if (frame.kind == SETTINGS || frame.kind == PING2) && frame.flags & ACK == 0 {
                    let ack = h2_frame(frame.kind, ACK, 0, if frame.kind == PING2 { &frame.payload } else { &[] });
                    self.send(&ack).await;
                }
                return Some(frame);
            }
            match timeout(PATIENCE, self.socket.read_buf(&mut self.buffer)).await.expect("a frame in time") {
                Ok(n) if n > 0 => {}
                _ => return None,
            }
        }
    }

    /// Sends bytes while each frame that comes goes to `each`, which says whether to go on.
    pub async fn flood(&mut self, bytes: &[u8], mut each: impl FnMut(H2Frame) -> bool) {
        exchange(&mut self.socket, &mut self.buffer, bytes, |buffer| {
            while let Some(frame) = take_h2(buffer) {
                if !each(frame) {
                    return false;
                }
            }
            true
        })
        .await;
    }

    /// Sends bytes and says how the connection ends: `goaway` with its number and words, `gone` without; with `of` a stream also how that
    /// one is reset.
    pub async fn ended(&mut self, bytes: &[u8], of: Option<u32>) -> String {
        let mut end = "gone".to_owned();
        self.flood(bytes, |frame| match frame.kind {
            GOAWAY => {
                end = format!("goaway {} {}", number(&frame.payload[4..]), String::from_utf8_lossy(&frame.payload[8..]));
                false
            }
            RESET if Some(frame.stream) == of => {
                end = format!("reset {}", number(&frame.payload));
                false
            }
            _ => true,
        })
        .await;
        end.trim_end().to_owned()
    }

    /// It still answers pings.
    pub async fn alive(&mut self) {
        self.send(&h2_frame(PING2, 0, 0, b"areyouup")).await;
        loop {
            let frame = self.next().await.expect("the connection lives");
            if frame.kind == PING2 && frame.flags & ACK != 0 && &frame.payload[..] == b"areyouup" {
                return;
            }
            assert_ne!(frame.kind, GOAWAY, "{frame:?}");
        }
    }

    /// The end of a stream: `grpc-status` where its trailers or head name one in plain letters, else `ended` or how it was reset.
    pub async fn status(&mut self, stream: u32) -> String {
        loop {
            let Some(frame) = self.next().await else { return "gone".into() };
            if frame.stream == stream && frame.kind == RESET {
                return format!("reset {}", number(&frame.payload));
            }
            if frame.kind == GOAWAY {
                return format!("goaway {}", number(&frame.payload[4..]));
            }
            if frame.stream == stream && frame.flags & END_STREAM != 0 {
                return if frame.kind == HEADERS { said_in(&frame.payload) } else { "ended".into() };
            }
        }
    }
}

/// Four bytes as a number.
pub fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// A digest of trailers: the gRPC status is a literal that ends in one or two digits, behind its name the first time, behind an index later.
pub fn said_in(block: &[u8]) -> String {
    huffman::status(block)
}

/// Just enough of HPACK to find `grpc-status` in the first header block that has one.
mod huffman {
    /// The server's encoder compresses texts: `grpc-status` is these 8 bytes then, a digit is one.
    const NAME: &[u8] = &[0x9a, 0xca, 0xc8, 0xb2, 0x12, 0x34, 0xda, 0x8f];

    pub fn status(block: &[u8]) -> String {
        let after = block.windows(NAME.len()).position(|w| w == NAME).map(|at| &block[at + NAME.len()..]);
        match after {
            Some([0x81, code, ..]) => format!("status {}", digit(*code)),
            Some([0x82, first, second, ..]) => two(*first, *second),
            Some([1, digit, ..]) => format!("status {}", char::from(*digit)),
            Some([2, first, second, ..]) => format!("status {}{}", char::from(*first), char::from(*second)),
            _ => "ended".into(),
        }
    }

    /// Digits in the Huffman code of HPACK: 0 to 2 have five bits, the others six; padded with ones.
    fn digit(code: u8) -> String {
        match code {
            0x07 => "0".into(),
            0x0f => "1".into(),
            0x17 => "2".into(),
            n => format!("{}", (n >> 2).wrapping_sub(0x19) + 3),
        }
    }

    /// Two digits are ten to twelve bits; the statuses that have two are 10 to 16.
    fn two(first: u8, second: u8) -> String {
        let bits = u16::from_be_bytes([first, second]);
        let rest = bits << 5; // behind the `1`
        let units = match rest >> 11 {
            0 => 0,
            1 => 1,
            2 => 2,
            _ => (rest >> 10) - 0x19 + 3,
        };
        format!("status 1{units}")
    }
}
