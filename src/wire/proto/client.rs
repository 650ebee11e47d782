//! What a client says, in protobuf.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use super::{strict, v1};
use crate::types::request::{
    AckLevel, AppendRequest, CommitAck, CommitAppend, CommitRequest, Credit, Expect, OnGap, OpenProducerRequest, ResumeRequest, Start, SubscribeRequest,
    Takeover,
};
use crate::types::varint::{self, Wire};
use crate::types::{Error, Events, ProducerId, StreamId, StreamName, TimeUs};
use crate::wire::convert;
use crate::wire::frame::{About, ClientFrame, FrameError};

/// Number of the field `events`, wherever there is one.
const EVENTS: u32 = 15;

/// Reads one client frame, strictly.
///
/// # Errors
/// `unknown_field`, `bad_parameter` or `too_large`, with what the frame was about where that is readable.
pub fn decode_client(bytes: impl AsRef<[u8]>) -> Result<ClientFrame, FrameError> {
    let mut rest = bytes.as_ref();
    let (variant, body) = match varint::take_field(&mut rest) {
        Some((variant, Wire::Bytes(body))) if rest.is_empty() => (variant, body),
        Some(_) if !rest.is_empty() => return Err(FrameError::of_anything(Error::bad("frame", "A message must hold exactly one variant of ClientFrame."))),
        _ => return Err(FrameError::of_anything(Error::bad("frame", "The message is not a protobuf ClientFrame."))),
    };
    // `sub` and `req` are field 1 of every variant that has one.
    let number = || lenient(body).find_map(|field| if let (1, Wire::Varint(n)) = field { Some(n) } else { None });
    let about_sub = || number().map_or(About::Connection, About::Sub);
    let about_req = || number().map_or(About::Connection, About::Req);
    let other = |about: About| move |error: Error| FrameError::of_other(error, about);
    match variant {
        1 => auth(body).map_err(other(About::Connection)),
        2 => subscribe(body).map(|(sub, request)| ClientFrame::Subscribe { sub, request }).map_err(other(about_sub())),
        3 => ack(body).map_err(other(about_sub())),
        4 => read::<v1::AddCredit>("AddCredit", body)
            .map(|m| ClientFrame::Credit { sub: m.sub, credit: Credit { events: m.events, bytes: m.bytes } })
            .map_err(other(about_sub())),
        5 => read::<v1::Unsubscribe>("Unsubscribe", body).map(|m| ClientFrame::Unsubscribe { sub: m.sub }).map_err(other(about_sub())),
        6 => read::<v1::Ping>("Ping", body).map(|_| ClientFrame::Ping).map_err(other(About::Connection)),
        7 => open_producer(body).map(|(req, request)| ClientFrame::OpenProducer { req, request }).map_err(other(about_req())),
        8 => resume(body).map_err(other(about_req())),
        9 => append(body).map(|(req, request)| ClientFrame::Append { req, request }).map_err(|error| FrameError {
            error,
            about: about_req(),
            append: Some(append_session(body)),
        }),
        10 => commit(body).map(|(req, request)| ClientFrame::Commit { req, request }).map_err(other(about_req())),
        n => Err(FrameError::of_anything(Error::new(crate::types::Code::UnknownField, format!("ClientFrame has no variant {n}.")).detail("field", "frame"))),
    }
}

/// Reads the message `name` of package `tidelog.v1`, strictly. It has no events: those are taken as they are.
///
/// # Errors
/// `unknown_field` or `bad_parameter`.
pub fn read<M: Message + Default>(name: &'static str, body: &[u8]) -> Result<M, Error> {
    strict::check(name, body)?;
    M::decode(body).map_err(|e| Error::bad("frame", format!("The frame is not a protobuf {name}: {e}.")))
}

/// The fields as far as they parse.
fn lenient(mut bytes: &[u8]) -> impl Iterator<Item = (u32, Wire<'_>)> {
    std::iter::from_fn(move || if bytes.is_empty() { None } else { varint::take_field(&mut bytes) })
}

/// Stream and producer of an append that did not decode. A producer that is there but not readable makes both unreadable.
fn append_session(body: &[u8]) -> (Option<StreamName>, Option<ProducerId>) {
    let (mut stream, mut producer) = (None, None);
    let mut rest = body;
    while !rest.is_empty() {
        match varint::take_field(&mut rest) {
            Some((2, Wire::Bytes(text))) if stream.is_none() => match std::str::from_utf8(text).ok().and_then(|t| StreamName::parse(t).ok()) {
                Some(name) => stream = Some(name),
                None => return (None, None),
            },
            Some((4, Wire::Bytes(stamp))) if producer.is_none() => {
                let id = v1::ProducerStamp::decode(stamp).ok().and_then(|p| ProducerId::parse(&p.id).ok());
                match id {
                    Some(id) => producer = Some(id),
                    None => return (None, None),
                }
            }
            // Twice, of the wrong type, or cut off before the end: what follows is anybody's guess.
            Some((2 | 4, _)) | None => return (None, None),
            Some(_) => {}
        }
    }
    if stream.is_none() { (None, None) } else { (stream, producer) }
}

fn auth(body: &[u8]) -> Result<ClientFrame, Error> {
    let v1::Auth { key, ticket } = read("Auth", body)?;
    convert::credential(&key, &ticket)?;
    Ok(ClientFrame::Auth { key, ticket })
}

/// A position at `field`.
///
/// # Errors
/// `bad_parameter` when it says none.
pub fn start(field: &str, start: &v1::Start) -> Result<Start, Error> {
    match start.start {
        Some(v1::start::Start::Offset(offset)) => Ok(Start::Offset(offset)),
        Some(v1::start::Start::TimeUs(us)) if jiff::Timestamp::from_microsecond(us).is_ok() => Ok(Start::Time(TimeUs(us))),
        Some(v1::start::Start::Place(place)) if place == v1::Place::Earliest as i32 => Ok(Start::Earliest),
        Some(v1::start::Start::Place(place)) if place == v1::Place::Latest as i32 => Ok(Start::Latest),
        _ => Err(Error::bad(field, format!("{field} says no position; give an offset, a place or a time."))),
    }
}

/// About another live session.
pub fn takeover(number: i32) -> Takeover {
    if number == v1::Takeover::Reject as i32 { Takeover::Reject } else { Takeover::Steal }
}

/// About events that are gone.
pub fn on_gap(number: i32) -> Option<OnGap> {
    match v1::OnGap::try_from(number) {
        Ok(v1::OnGap::Fail) => Some(OnGap::Fail),
        Ok(v1::OnGap::Skip) => Some(OnGap::Skip),
        Ok(v1::OnGap::Default) | Err(_) => None,
    }
}

/// How safe an ack must be.
pub fn ack_level(number: i32) -> AckLevel {
    if number == v1::AckLevel::Received as i32 { AckLevel::Received } else { AckLevel::Durable }
}

/// Reads a `Subscribe`: the client's number for the reader, and what it asks.
///
/// # Errors
/// `unknown_field` or `bad_parameter`.
pub fn subscribe(body: &[u8]) -> Result<(u64, SubscribeRequest), Error> {
    let m: v1::Subscribe = read("Subscribe", body)?;
    let request = SubscribeRequest {
        stream: convert::stream("stream", &m.stream)?,
        subscription: m.subscription.map(|s| convert::subscription("subscription", &s)).transpose()?,
        create: m.create,
        stream_id: m.stream_id.map(StreamId),
        rewind: m.rewind,
        from: m.from.map(|from| start("from", &from)).transpose()?,
        filter: m.filter,
        credit: m.credit.map(|c| Credit { events: c.events, bytes: c.bytes }),
        takeover: takeover(m.takeover),
        on_gap: on_gap(m.on_gap),
        log_epoch: m.log_epoch,
    };
    Ok((m.sub, request))
}

fn ack(body: &[u8]) -> Result<ClientFrame, Error> {
    let m: v1::Ack = read("Ack", body)?;
    Ok(ClientFrame::Ack { sub: m.sub, offset: m.offset, level: ack_level(m.level) })
}

/// Reads an `OpenProducer`: the request's number, and what it asks.
///
/// # Errors
/// `unknown_field` or `bad_parameter`.
pub fn open_producer(body: &[u8]) -> Result<(u64, OpenProducerRequest), Error> {
    let m: v1::OpenProducer = read("OpenProducer", body)?;
    let request = OpenProducerRequest {
        stream: m.stream.map(|s| convert::stream("stream", &s)).transpose()?,
        stream_id: m.stream_id.map(StreamId),
        producer: convert::producer("producer", &m.producer)?,
        expect: match v1::Expect::try_from(m.expect) {
            Ok(v1::Expect::Create) => Expect::Create,
            Ok(v1::Expect::Resume) => Expect::Resume,
            Ok(v1::Expect::Any) | Err(_) => Expect::Any,
        },
    };
    Ok((m.req, request))
}

fn resume(body: &[u8]) -> Result<ClientFrame, Error> {
    let m: v1::Resume = read("Resume", body)?;
    let request = ResumeRequest {
        stream: convert::stream("stream", &m.stream)?,
        producer: m.producer.map(|p| convert::producer("producer", &p)).transpose()?,
        seq: m.seq,
    };
    Ok(ClientFrame::Resume { req: m.req, request })
}

/// Parts an append's `Events` from its other fields, which are copied: they are few.
fn part(bytes: &[u8]) -> (BytesMut, &[u8]) {
    let (mut head, mut events, mut rest) = (BytesMut::new(), &[][..], bytes);
    while !rest.is_empty() {
        let before = rest;
        // `strict::check` has seen every field parse, and `events` at most once.
        match varint::take_field(&mut rest) {
            Some((EVENTS, Wire::Bytes(content))) => events = content,
            Some(_) => head.put_slice(&before[..before.len() - rest.len()]),
            None => break,
        }
    }
    (head, events)
}

/// Reads an `Append`: the request's number, and what it asks. Its events stay bytes.
///
/// # Errors
/// `unknown_field`, `bad_parameter` or `too_large`.
pub fn append(body: &[u8]) -> Result<(u64, AppendRequest), Error> {
    strict::check("Append", body)?;
    let (head, events) = part(body);
    let m: v1::Append = v1::Append::decode(head.freeze()).map_err(|e| Error::bad("frame", format!("The frame is not a protobuf Append: {e}.")))?;
    let request = AppendRequest {
        stream: convert::stream("stream", &m.stream)?,
        stream_id: m.stream_id.map(StreamId),
        producer: m.producer.map(|p| convert::stamp("producer", &p.id, p.epoch, p.seq)).transpose()?,
        expected_next_offset: m.expected_next_offset,
        events: Events::from_wire(events)?,
    };
    Ok((m.req, request))
}

/// Reads a `Commit`: the request's number, and what it asks.
///
/// # Errors
/// `unknown_field`, `bad_parameter` or `too_large`.
pub fn commit(body: &[u8]) -> Result<(u64, CommitRequest), Error> {
    const APPENDS: u32 = 4;
    strict::check("Commit", body)?;
    let (mut head, mut appends) = (BytesMut::new(), Vec::new());
    let mut rest = body;
    while !rest.is_empty() {
        let before = rest;
        match varint::take_field(&mut rest) {
            Some((APPENDS, Wire::Bytes(content))) => appends.push(commit_append(appends.len(), content)?),
            _ => head.put_slice(&before[..before.len() - rest.len()]),
        }
    }
    let m: v1::Commit = v1::Commit::decode(head.freeze()).map_err(|e| Error::bad("frame", format!("The frame is not a protobuf Commit: {e}.")))?;
    let ack = |(i, a): (usize, &v1::CommitAck)| -> Result<CommitAck, Error> {
        Ok(CommitAck {
            stream: convert::stream(&format!("acks[{i}].stream"), &a.stream)?,
            subscription: convert::subscription(&format!("acks[{i}].subscription"), &a.subscription)?,
            epoch: a.epoch,
            offset: a.offset,
        })
    };
    let request = CommitRequest {
        producer: m.producer.map(|p| convert::stamp("producer", &p.id, p.epoch, p.seq)).transpose()?,
        acks: m.acks.iter().enumerate().map(ack).collect::<Result<_, _>>()?,
        appends,
        checks: m
            .checks
            .iter()
            .enumerate()
            .map(|(i, c)| convert::check(&format!("checks[{i}]"), &c.stream, c.expected_next_offset))
            .collect::<Result<_, _>>()?,
    };
    Ok((m.req, request))
}

fn commit_append(index: usize, content: &[u8]) -> Result<CommitAppend, Error> {
    let path = format!("appends[{index}]");
    let (head, events) = part(content);
    let m: v1::CommitAppend = v1::CommitAppend::decode(head.freeze()).map_err(|e| Error::bad(&path, format!("{path} is not a protobuf CommitAppend: {e}.")))?;
    Ok(CommitAppend {
        stream: convert::stream(&format!("{path}.stream"), &m.stream)?,
        stream_id: m.stream_id.map(StreamId),
        expected_next_offset: m.expected_next_offset,
        events: Events::from_wire(events).map_err(|e| convert::below(e, &path))?,
    })
}

/// Writes one client frame.
pub fn encode_client(frame: &ClientFrame) -> Bytes {
    use v1::client_frame::Frame;
    let frame = match frame {
        ClientFrame::Auth { key, ticket } => Frame::Auth(v1::Auth { key: key.clone(), ticket: ticket.clone() }),
        ClientFrame::Subscribe { sub, request } => Frame::Subscribe(subscribe_message(*sub, request)),
        ClientFrame::Ack { sub, offset, level } => {
            let level = match level {
                AckLevel::Durable => v1::AckLevel::Durable,
                AckLevel::Received => v1::AckLevel::Received,
            };
            Frame::Ack(v1::Ack { sub: *sub, offset: *offset, level: level.into() })
        }
        ClientFrame::Credit { sub, credit } => Frame::Credit(v1::AddCredit { sub: *sub, events: credit.events, bytes: credit.bytes }),
        ClientFrame::Unsubscribe { sub } => Frame::Unsubscribe(v1::Unsubscribe { sub: *sub }),
        ClientFrame::Ping => Frame::Ping(v1::Ping {}),
        ClientFrame::OpenProducer { req, request } => {
            let expect = match request.expect {
                Expect::Any => v1::Expect::Any,
                Expect::Create => v1::Expect::Create,
                Expect::Resume => v1::Expect::Resume,
            };
            Frame::OpenProducer(v1::OpenProducer {
                req: *req,
                stream: request.stream.as_ref().map(|s| s.to_string()),
                stream_id: request.stream_id.map(|id| id.0),
                producer: request.producer.to_string(),
                expect: expect.into(),
            })
        }
        ClientFrame::Resume { req, request } => Frame::Resume(v1::Resume {
            req: *req,
            stream: request.stream.to_string(),
            producer: request.producer.as_ref().map(|p| p.to_string()),
            seq: request.seq,
        }),
        ClientFrame::Append { req, request } => return encode_append(*req, request),
        ClientFrame::Commit { req, request } => return encode_commit(*req, request),
    };
    v1::ClientFrame { frame: Some(frame) }.encode_to_vec().into()
}

fn subscribe_message(sub: u64, request: &SubscribeRequest) -> v1::Subscribe {
    use v1::start::Start as At;
    let start = |start: Start| match start {
        Start::Offset(offset) => At::Offset(offset),
        Start::Earliest => At::Place(v1::Place::Earliest.into()),
        Start::Latest => At::Place(v1::Place::Latest.into()),
        Start::Time(time) => At::TimeUs(time.0),
    };
    v1::Subscribe {
        sub,
        stream: request.stream.to_string(),
        subscription: request.subscription.as_ref().map(|s| s.to_string()),
        create: request.create,
        stream_id: request.stream_id.map(|id| id.0),
        rewind: request.rewind,
        from: request.from.map(|from| v1::Start { start: Some(start(from)) }),
        filter: request.filter.clone(),
        credit: request.credit.map(|c| v1::Credit { events: c.events, bytes: c.bytes }),
        takeover: match request.takeover {
            Takeover::Steal => v1::Takeover::Steal.into(),
            Takeover::Reject => v1::Takeover::Reject.into(),
        },
        on_gap: match request.on_gap {
            None => v1::OnGap::Default.into(),
            Some(OnGap::Fail) => v1::OnGap::Fail.into(),
            Some(OnGap::Skip) => v1::OnGap::Skip.into(),
        },
        log_epoch: request.log_epoch,
    }
}

fn stamp_message(stamp: &crate::types::request::ProducerStamp) -> v1::ProducerStamp {
    v1::ProducerStamp { id: stamp.id.to_string(), epoch: stamp.epoch, seq: stamp.seq }
}

/// A field of wire type "bytes" with a number below 16, its content in parts.
fn put_field(out: &mut BytesMut, number: u8, parts: [&[u8]; 3]) {
    out.put_slice(&field_head(u32::from(number), parts.iter().map(|part| part.len()).sum()));
    parts.iter().for_each(|part| out.put_slice(part));
}

/// Key byte and length of such a field.
fn field_head(number: u32, len: usize) -> BytesMut {
    let mut head = BytesMut::with_capacity(11);
    head.put_u8((number as u8) << 3 | 2);
    varint::put(&mut head, len as u64);
    head
}

/// The events are already in wire form: they follow the other fields.
fn encode_append(req: u64, request: &AppendRequest) -> Bytes {
    let head = v1::Append {
        req,
        stream: request.stream.to_string(),
        stream_id: request.stream_id.map(|id| id.0),
        producer: request.producer.as_ref().map(stamp_message),
        expected_next_offset: request.expected_next_offset,
        events: None,
    }
    .encode_to_vec();
    let events = request.events.encoded();
    let mut out = BytesMut::with_capacity(head.len() + events.len() + 24);
    put_field(&mut out, 9, [&head, &field_head(EVENTS, events.len()), events]);
    out.freeze()
}

fn encode_commit(req: u64, request: &CommitRequest) -> Bytes {
    let head = v1::Commit {
        req,
        producer: request.producer.as_ref().map(stamp_message),
        acks: request
            .acks
            .iter()
            .map(|a| v1::CommitAck { stream: a.stream.to_string(), subscription: a.subscription.to_string(), epoch: a.epoch, offset: a.offset })
            .collect(),
        appends: Vec::new(),
        checks: request.checks.iter().map(|c| v1::CommitCheck { stream: c.stream.to_string(), expected_next_offset: c.expected_next_offset }).collect(),
    };
    let mut body = BytesMut::from(&head.encode_to_vec()[..]);
    for append in &request.appends {
        let head = v1::CommitAppend {
            stream: append.stream.to_string(),
            stream_id: append.stream_id.map(|id| id.0),
            expected_next_offset: append.expected_next_offset,
            events: None,
        };
        let events = append.events.encoded();
        put_field(&mut body, 4, [&head.encode_to_vec(), &field_head(EVENTS, events.len()), events]);
    }
    let mut out = BytesMut::with_capacity(body.len() + 12);
    put_field(&mut out, 10, [&body, &[], &[]]);
    out.freeze()
}
