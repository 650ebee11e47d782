//! Makes new inputs of known ones: blindly in their bytes, or knowing what JSON, protobuf or an HTTP request looks like.

mod bytes;
mod json;
mod proto;

use crate::dice::Dice;

/// What the inputs of a target look like when they are well formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Nothing is known.
    Bytes,
    /// Lines or words.
    Text,
    /// A JSON text.
    Json,
    /// A protobuf message.
    Proto,
    /// `METHOD address`, header lines, an empty line, a body.
    Request,
}

/// Largest input that is made on purpose; small enough for thousands, large enough to show what grows with the square.
const LARGEST: usize = 96 * 1024;

/// A new input from `base`; `other` is a stranger from the same pool, for its parts.
pub fn mutate(dice: &mut Dice, shape: Shape, base: &[u8], other: &[u8]) -> Vec<u8> {
    let mut out = base.to_vec();
    loop {
        out = once(dice, shape, &out, other);
        // Most inputs have one fault, so that what lies behind other checks is reached too.
        if !dice.one_in(3) {
            break;
        }
    }
    out.truncate(LARGEST);
    out
}

fn once(dice: &mut Dice, shape: Shape, base: &[u8], other: &[u8]) -> Vec<u8> {
    match shape {
        Shape::Json if !dice.one_in(4) => json::mutate(dice, base, other).unwrap_or_else(|| bytes::mutate(dice, base, other)),
        Shape::Proto if !dice.one_in(4) => proto::mutate(dice, base, other).unwrap_or_else(|| bytes::mutate(dice, base, other)),
        Shape::Request => request(dice, base, other),
        Shape::Text if dice.one_in(2) => bytes::words(dice, base, other),
        _ => bytes::mutate(dice, base, other),
    }
}

/// Where the head of a request ends and its body begins.
pub fn parts(request: &[u8]) -> (&[u8], &[u8]) {
    match request.windows(2).position(|two| two == b"\n\n") {
        Some(at) => (&request[..at], &request[at + 2..]),
        None => (request, b""),
    }
}

/// The head is words; the body has a shape of its own, and a gRPC body a prefix that mostly stays true.
fn request(dice: &mut Dice, base: &[u8], other: &[u8]) -> Vec<u8> {
    let ((head, body), (other_head, other_body)) = (parts(base), parts(other));
    let framed = head.windows(16).any(|w| w == b"application/grpc") && body.len() >= 5;
    let (head, body) = if dice.one_in(3) || body.is_empty() {
        (if dice.one_in(4) { bytes::mutate(dice, head, other_head) } else { bytes::words(dice, head, other_head) }, body.to_vec())
    } else if framed {
        let message = once(dice, Shape::Proto, &body[5..], other_body.get(5..).unwrap_or_default());
        let mut prefix = body[..5].to_vec();
        if dice.one_in(8) {
            prefix = bytes::mutate(dice, &prefix, other_body);
        } else {
            prefix[1..].copy_from_slice(&(message.len() as u32).to_be_bytes());
        }
        (head.to_vec(), [prefix, message].concat())
    } else {
        let shape = if matches!(body.first(), Some(b'{' | b'[')) { Shape::Json } else { Shape::Text };
        (head.to_vec(), once(dice, shape, body, other_body))
    };
    [&head[..], b"\n\n", &body].concat()
}

/// Words of our protocols, right and nearly right.
pub const WORDS: &[&str] = &[
    "t",
    "sub",
    "req",
    "stream",
    "stream_id",
    "subscription",
    "producer",
    "id",
    "epoch",
    "seq",
    "offset",
    "level",
    "events",
    "data",
    "type",
    "key",
    "headers",
    "encoding",
    "from",
    "takeover",
    "on_gap",
    "log_epoch",
    "create",
    "rewind",
    "filter",
    "credit",
    "bytes",
    "expected_next_offset",
    "acks",
    "appends",
    "checks",
    "ticket",
    "expect",
    "name",
    "start",
    "max_in_flight",
    "ack_timeout_s",
    "expires_s",
    "before_offset",
    "before_time",
    "max_events",
    "max_bytes",
    "wait_s",
    "ack_token",
    "metadata",
    "description",
    "event_max_bytes",
    "next",
    "time",
    "subscribe",
    "ack",
    "append",
    "commit",
    "open_producer",
    "resume",
    "ping",
    "auth",
    "earliest",
    "latest",
    "durable",
    "received",
    "steal",
    "reject",
    "fail",
    "skip",
    "any",
    "json",
    "utf8",
    "base64",
    "orders",
    "billing",
    "hello",
    "subscribed",
    "live",
    "gap",
    "acked",
    "error",
    "lag",
    "seconds",
    "code",
    "after",
    "limit",
    "wait",
    "recursion",
    "lines",
    "Ev\u{e9}nts",
    "",
    "application/json",
    "application/x-ndjson",
    "text/plain",
    "text/event-stream",
    "application/grpc-web+proto",
    "Accept",
    "If-None-Match",
    "Last-Event-ID",
    "Idempotency-Key",
    "grpc-timeout",
    "99999999H",
    "Range",
    "bytes=0-",
    "Content-Type",
    "2026-01-26T10:00:00Z",
    "0000-01-01T00:00:00Z",
    "-009999-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999Z",
    "/v1/streams/orders/events",
    "?after=",
    "&",
    "%00",
    "%ff",
    "TIDELOG_",
    "__",
    "LIMITS__CONNECTIONS",
    "[storage]",
    "=",
];

/// Numbers at which something ends.
pub const EDGES: &[&str] = &[
    "0",
    "-0",
    "1",
    "-1",
    "+1",
    "00",
    "1.0",
    "1e0",
    "1e999",
    "0.1",
    "127",
    "128",
    "255",
    "256",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740991",
    "9007199254740992",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "18446744073709551614",
    "99999999999999999999999999",
    "NaN",
    "Infinity",
    "0x10",
];

/// The same as bits.
pub const NUMBERS: &[u64] = &[
    0,
    1,
    2,
    3,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    1 << 16,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 32,
    (1 << 53) - 1,
    1 << 53,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];
