//! What a client hears, in protobuf.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use super::v1;
use crate::types::reply::{Acked, Appended, Committed, CommittedAck, CommittedAppend, GapReason, Lag, Origin, ProducerOpened, Subscribed};
use crate::types::varint::{self, Wire};
use crate::types::{Applied, Error, Slice, StreamId, StreamName, batch};
use crate::wire::frame::{About, FrameError, Hello, ServerFrame};
use crate::wire::{convert, error as error_json};

/// Number of `ServerFrame.events`.
const EVENTS_VARIANT: u8 = 3;
/// Number of `Delivered.batches`.
const BATCHES: u8 = 15;

/// Writes one server frame. Whole batches are the stored bytes, copied once.
pub fn encode_server(frame: &ServerFrame) -> Bytes {
    let mut out = BytesMut::new();
    put_server(&mut out, frame);
    out.freeze()
}

/// Writes one server frame behind what is there.
pub fn put_server(out: &mut BytesMut, frame: &ServerFrame) {
    use v1::server_frame::Frame;
    let frame = match frame {
        ServerFrame::Events { sub, stream, slices, lag } => return put_events(out, *sub, stream, slices, lag),
        ServerFrame::Hello(hello) => Frame::Hello(v1::Hello {
            version: hello.version.clone(),
            limits: hello.limits.iter().map(|(name, value)| v1::Limit { name: name.clone(), value: *value }).collect(),
            capabilities: hello.capabilities.clone(),
        }),
        ServerFrame::Subscribed { sub, reply } => Frame::Subscribed(v1::Subscribed {
            sub: *sub,
            stream: reply.stream.to_string(),
            stream_id: reply.stream_id.0,
            epoch: reply.epoch,
            next: reply.next,
            first_offset: reply.first_offset,
            next_offset: reply.next_offset,
            log_epoch: reply.log_epoch,
        }),
        ServerFrame::Live { sub, next_offset } => Frame::Live(v1::Live { sub: *sub, next_offset: *next_offset }),
        ServerFrame::Progress { sub, next } => Frame::Progress(v1::Progress { sub: *sub, next: *next }),
        ServerFrame::Gap { sub, from, to, reason } => Frame::Gap(v1::Gap { sub: *sub, from: *from, to: *to, reason: reason.as_str().into() }),
        ServerFrame::Acked { sub, reply } => Frame::Acked(acked(*sub, reply)),
        ServerFrame::Unsubscribed { sub } => Frame::Unsubscribed(v1::Unsubscribed { sub: *sub }),
        ServerFrame::Pong => Frame::Pong(v1::Pong {}),
        ServerFrame::ProducerOpened { req, reply } => Frame::ProducerOpened(producer_opened(*req, reply)),
        ServerFrame::Resumed { req } => Frame::Resumed(v1::Resumed { req: *req }),
        ServerFrame::Appended { req, reply } => Frame::Appended(appended(*req, reply)),
        ServerFrame::Committed { req, reply } => Frame::Committed(committed(*req, reply)),
        ServerFrame::Error { about, error, request_id } => Frame::Error(error_message(*about, error, request_id)),
    };
    let frame = v1::ServerFrame { frame: Some(frame) };
    out.reserve(frame.encoded_len());
    frame.encode(out).expect("a buffer that grows has room");
}

/// Answer to an ack.
pub fn acked(sub: u64, reply: &Acked) -> v1::Acked {
    v1::Acked { sub, offset: reply.offset, next: reply.next, stale: reply.stale }
}

/// Answer to opening a producer.
pub fn producer_opened(req: u64, reply: &ProducerOpened) -> v1::ProducerOpened {
    v1::ProducerOpened {
        req,
        producer: reply.producer.to_string(),
        epoch: reply.epoch,
        last_seq: reply.last_seq,
        next_offset: reply.next_offset,
        stream_id: reply.stream_id.map(|id| id.0),
        log_epoch: reply.log_epoch,
        origin: reply.origin.as_str().into(),
    }
}

/// Answer to an append.
pub fn appended(req: u64, reply: &Appended) -> v1::Appended {
    v1::Appended {
        req,
        first_offset: reply.first_offset,
        last_offset: reply.last_offset,
        count: reply.count,
        duplicate: reply.duplicate,
        durability: "fsync".into(),
        dedup_until_us: None,
    }
}

/// Answer to a commit.
pub fn committed(req: u64, reply: &Committed) -> v1::Committed {
    v1::Committed {
        req,
        acks: reply
            .acks
            .iter()
            .map(|a| v1::CommittedAck { stream: a.stream.to_string(), subscription: a.subscription.to_string(), offset: a.offset, next: a.next })
            .collect(),
        appends: reply
            .appends
            .iter()
            .map(|a| v1::CommittedAppend { stream: a.stream.to_string(), first_offset: a.first_offset, last_offset: a.last_offset, count: a.count })
            .collect(),
        duplicate: reply.duplicate,
    }
}

/// How far a reader is behind.
pub fn lag(lag: &Lag) -> v1::Lag {
    v1::Lag { events: lag.events, bytes: lag.bytes, seconds: lag.seconds }
}

/// An error as clients see it.
pub fn error_message(about: About, error: &Error, request_id: &str) -> v1::Error {
    v1::Error {
        about: match about {
            About::Connection => None,
            About::Req(req) => Some(v1::error::About::Req(req)),
            About::Sub(sub) => Some(v1::error::About::Sub(sub)),
        },
        code: error.code.as_str().into(),
        rule: error.rule.clone().unwrap_or_default(),
        message: error.message.clone(),
        applied: match error.applied {
            Applied::No => v1::Applied::No.into(),
            Applied::Unknown => v1::Applied::Unknown.into(),
        },
        retry: error.retry.as_str().into(),
        details: if error.details.is_empty() { String::new() } else { serde_json::Value::Object(error.details.clone()).to_string() },
        request_id: request_id.to_owned(),
        resource: error.resource.clone().unwrap_or_default(),
    }
}

/// A prefix per reader, then bytes that all readers share.
fn put_events(out: &mut BytesMut, sub: u64, stream: &StreamName, slices: &[Slice], behind: &Lag) {
    let head = v1::Delivered { sub, stream: stream.to_string(), lag: Some(lag(behind)), batches: Vec::new() };
    let batches = encoded(slices);
    let body = head.encoded_len() + batches_len(&batches);
    out.reserve(body + 12);
    out.put_u8(EVENTS_VARIANT << 3 | 2);
    varint::put(out, body as u64);
    put_with_batches(out, &head, &batches);
}

/// Writes a message that ends in batches (`Delivered`, `Pulled`, `ReadResponse`) behind what is there. `head` is all of it but them.
pub fn put_batches(out: &mut BytesMut, head: &impl Message, slices: &[Slice]) {
    let batches = encoded(slices);
    out.reserve(head.encoded_len() + batches_len(&batches));
    put_with_batches(out, head, &batches);
}

fn encoded(slices: &[Slice]) -> Vec<Bytes> {
    slices.iter().map(Slice::encode).collect()
}

fn batches_len(batches: &[Bytes]) -> usize {
    batches.iter().map(|b| 1 + varint::len(b.len() as u64) + b.len()).sum()
}

fn put_with_batches(out: &mut BytesMut, head: &impl Message, batches: &[Bytes]) {
    head.encode(out).expect("a buffer that grows has room");
    for batch in batches {
        out.put_u8(BATCHES << 3 | 2);
        varint::put(out, batch.len() as u64);
        out.put_slice(batch);
    }
}

/// Reads one server frame. Unknown fields are ignored; `None` is a variant this version does not know, to be ignored too.
///
/// # Errors
/// The bytes are not a `ServerFrame`: the connection is of no more use.
pub fn decode_server(bytes: impl AsRef<[u8]>) -> Result<Option<ServerFrame>, FrameError> {
    let bytes = bytes.as_ref();
    read_server(bytes).map_err(|why| FrameError::of_other(Error::bad("frame", format!("The message is not a protobuf ServerFrame: {why}.")), About::Connection))
}

fn read_server(bytes: &[u8]) -> Result<Option<ServerFrame>, String> {
    use v1::server_frame::Frame;
    // The events frame is taken apart by hand: its batches are kept as they came.
    let mut rest = bytes;
    if let Some((number, Wire::Bytes(body))) = varint::take_field(&mut rest)
        && number == u32::from(EVENTS_VARIANT)
    {
        return read_events(body).map(Some);
    }
    let frame = v1::ServerFrame::decode(bytes).map_err(|e| e.to_string())?.frame;
    let Some(frame) = frame else { return Ok(None) };
    let name = |text: &str| convert::stream("stream", text).map_err(|e| e.message.clone());
    let frame = match frame {
        Frame::Events(_) => return Err("its events come after something else".into()),
        Frame::Hello(m) => {
            ServerFrame::Hello(Hello { version: m.version, limits: m.limits.into_iter().map(|l| (l.name, l.value)).collect(), capabilities: m.capabilities })
        }
        Frame::Subscribed(m) => {
            let reply = Subscribed {
                stream: name(&m.stream)?,
                stream_id: StreamId(m.stream_id),
                epoch: m.epoch,
                next: m.next,
                first_offset: m.first_offset,
                next_offset: m.next_offset,
                log_epoch: m.log_epoch,
            };
            ServerFrame::Subscribed { sub: m.sub, reply }
        }
        Frame::Live(m) => ServerFrame::Live { sub: m.sub, next_offset: m.next_offset },
        Frame::Progress(m) => ServerFrame::Progress { sub: m.sub, next: m.next },
        Frame::Gap(m) => {
            let reason = GapReason::parse(&m.reason).unwrap_or(GapReason::Retention);
            ServerFrame::Gap { sub: m.sub, from: m.from, to: m.to, reason }
        }
        Frame::Acked(m) => ServerFrame::Acked { sub: m.sub, reply: Acked { offset: m.offset, next: m.next, stale: m.stale } },
        Frame::Unsubscribed(m) => ServerFrame::Unsubscribed { sub: m.sub },
        Frame::Pong(_) => ServerFrame::Pong,
        Frame::ProducerOpened(m) => {
            let reply = ProducerOpened {
                producer: convert::producer("producer", &m.producer).map_err(|e| e.message.clone())?,
                epoch: m.epoch,
                last_seq: m.last_seq,
                next_offset: m.next_offset,
                stream_id: m.stream_id.map(StreamId),
                log_epoch: m.log_epoch,
                origin: Origin::parse(&m.origin).ok_or("producer_opened has an unknown origin")?,
            };
            ServerFrame::ProducerOpened { req: m.req, reply }
        }
        Frame::Resumed(m) => ServerFrame::Resumed { req: m.req },
        Frame::Appended(m) => ServerFrame::Appended {
            req: m.req,
            reply: Appended { first_offset: m.first_offset, last_offset: m.last_offset, count: m.count, duplicate: m.duplicate },
        },
        Frame::Committed(m) => {
            let ack = |a: &v1::CommittedAck| -> Result<CommittedAck, String> {
                let subscription = convert::subscription("subscription", &a.subscription).map_err(|e| e.message.clone())?;
                Ok(CommittedAck { stream: name(&a.stream)?, subscription, offset: a.offset, next: a.next })
            };
            let append = |a: &v1::CommittedAppend| -> Result<CommittedAppend, String> {
                Ok(CommittedAppend { stream: name(&a.stream)?, first_offset: a.first_offset, last_offset: a.last_offset, count: a.count })
            };
            let reply = Committed {
                acks: m.acks.iter().map(ack).collect::<Result<_, _>>()?,
                appends: m.appends.iter().map(append).collect::<Result<_, _>>()?,
                duplicate: m.duplicate,
            };
            ServerFrame::Committed { req: m.req, reply }
        }
        Frame::Error(m) => read_error(m),
    };
    Ok(Some(frame))
}

fn read_error(m: v1::Error) -> ServerFrame {
    let about = match m.about {
        None => About::Connection,
        Some(v1::error::About::Req(req)) => About::Req(req),
        Some(v1::error::About::Sub(sub)) => About::Sub(sub),
    };
    let applied = if m.applied == v1::Applied::No as i32 { Applied::No } else { Applied::Unknown };
    let details = serde_json::from_str(&m.details).unwrap_or_default();
    let error = error_json::received(&m.code, m.message, Some(m.rule), applied, &m.retry, Some(m.resource), details);
    ServerFrame::Error { about, error, request_id: m.request_id }
}

fn read_events(mut body: &[u8]) -> Result<ServerFrame, String> {
    let (mut head, mut slices) = (BytesMut::new(), Vec::new());
    while !body.is_empty() {
        let before = body;
        match varint::take_field(&mut body).ok_or("its events are cut off")? {
            (number, Wire::Bytes(bytes)) if number == u32::from(BATCHES) => {
                // The frame does not say the stream's id; readers know it from `subscribed`.
                let batch = Arc::new(batch::received(StreamId(0), bytes)?);
                let range = batch.head.base_offset..batch.head.end();
                slices.extend(Slice::of(batch, range));
            }
            _ => head.put_slice(&before[..before.len() - body.len()]),
        }
    }
    let m = v1::Delivered::decode(head.freeze()).map_err(|e| e.to_string())?;
    let lag = m.lag.unwrap_or_default();
    let stream = StreamName::parse(&m.stream).map_err(|e| e.message.clone())?;
    Ok(ServerFrame::Events { sub: m.sub, stream, slices, lag: Lag { events: lag.events, bytes: lag.bytes, seconds: lag.seconds } })
}
