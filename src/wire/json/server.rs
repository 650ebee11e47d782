//! What a client hears, in JSON.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::event;
use super::object;
use super::write::{self, Members};
use crate::types::reply::{Acked, Appended, Committed, CommittedAck, CommittedAppend, GapReason, Lag, Origin, ProducerOpened, Subscribed};
use crate::types::{Error, Slice, StreamId, StreamName};
use crate::wire::frame::{About, FrameError, Hello, ServerFrame};
use crate::wire::{convert, error as error_json};

/// Writes one server frame.
pub fn encode_server(frame: &ServerFrame) -> String {
    encode(frame, false)
}

/// The same on the URL of one subscription, where frames have no `sub`.
pub fn encode_server_single(frame: &ServerFrame) -> String {
    encode(frame, true)
}

fn encode(frame: &ServerFrame, single: bool) -> String {
    let mut out = Vec::with_capacity(256);
    write_server(&mut out, frame, single);
    write::finish(out)
}

fn write_server(out: &mut Vec<u8>, frame: &ServerFrame, single: bool) {
    let begin = |out, t: &str, sub: u64| {
        let mut o = Members::frame(out, t);
        o.number_if("sub", (!single).then_some(sub));
        o
    };
    let o = match frame {
        ServerFrame::Hello(hello) => write_hello(out, hello),
        ServerFrame::Subscribed { sub, reply } => {
            let mut o = begin(out, "subscribed", *sub);
            subscribed_members(&mut o, reply);
            o
        }
        ServerFrame::Events { sub, stream, slices, lag } => {
            let mut o = begin(out, "events", *sub);
            o.text("stream", stream.as_str());
            write_events(o.name("events"), slices);
            write_lag(o.name("lag"), lag);
            o
        }
        ServerFrame::Live { sub, next_offset } => {
            let mut o = begin(out, "live", *sub);
            o.number("next_offset", *next_offset);
            o
        }
        ServerFrame::Progress { sub, next } => {
            let mut o = begin(out, "progress", *sub);
            o.number("next", *next);
            o
        }
        ServerFrame::Gap { sub, from, to, reason } => {
            let mut o = begin(out, "gap", *sub);
            o.number("from", *from);
            o.number("to", *to);
            o.text("reason", reason.as_str());
            o
        }
        ServerFrame::Acked { sub, reply } => {
            let mut o = begin(out, "acked", *sub);
            o.number_or_null("offset", reply.offset);
            o.number("next", reply.next);
            if reply.stale {
                o.boolean("stale", true);
            }
            o
        }
        ServerFrame::Unsubscribed { sub } => begin(out, "unsubscribed", *sub),
        ServerFrame::Pong => Members::frame(out, "pong"),
        ServerFrame::ProducerOpened { req, reply } => write_opened(out, *req, reply),
        ServerFrame::Resumed { req } => {
            let mut o = Members::frame(out, "resumed");
            o.number("req", *req);
            o
        }
        ServerFrame::Appended { req, reply } => {
            let mut o = Members::frame(out, "appended");
            o.number("req", *req);
            o.number_or_null("first_offset", reply.first_offset);
            o.number_or_null("last_offset", reply.last_offset);
            o.number("count", u64::from(reply.count));
            o.boolean("duplicate", reply.duplicate);
            o.text("durability", "fsync");
            o
        }
        ServerFrame::Committed { req, reply } => write_committed(out, *req, reply),
        ServerFrame::Error { about, error, request_id } => {
            let mut o = Members::frame(out, "error");
            match about {
                About::Req(req) => o.number("req", *req),
                About::Sub(sub) if !single => o.number("sub", *sub),
                About::Sub(_) | About::Connection => {}
            }
            o.out.push(b',');
            error_json::write_frame_members(o.out, error, request_id);
            o
        }
    };
    o.end();
}

/// The members of `subscribed` after `t` and `sub`: the same in frames and in event streams.
pub fn subscribed_members(o: &mut Members<'_>, reply: &Subscribed) {
    o.text("stream", reply.stream.as_str());
    o.number("stream_id", reply.stream_id.0);
    o.number_or_null("epoch", reply.epoch);
    o.number("next", reply.next);
    o.number("first_offset", reply.first_offset);
    o.number("next_offset", reply.next_offset);
    o.number("log_epoch", reply.log_epoch);
}

fn write_hello<'a>(out: &'a mut Vec<u8>, hello: &Hello) -> Members<'a> {
    let mut o = Members::frame(out, "hello");
    o.text("version", &hello.version);
    let mut limits = Members::begin(o.name("limits"));
    for (name, value) in &hello.limits {
        limits.number(name, *value);
    }
    limits.end();
    o.list("capabilities", &hello.capabilities, |out, word| write::string(out, word));
    o
}

fn write_events(out: &mut Vec<u8>, slices: &[Slice]) {
    out.push(b'[');
    event::events_json(out, slices);
    out.push(b']');
}

fn write_lag(out: &mut Vec<u8>, lag: &Lag) {
    let mut o = Members::begin(out);
    o.number("events", lag.events);
    o.number("bytes", lag.bytes);
    write::seconds(o.name("seconds"), lag.seconds);
    o.end();
}

fn write_opened<'a>(out: &'a mut Vec<u8>, req: u64, reply: &ProducerOpened) -> Members<'a> {
    let mut o = Members::frame(out, "producer_opened");
    o.number("req", req);
    o.text("producer", reply.producer.as_str());
    o.number("epoch", reply.epoch);
    o.number_or_null("last_seq", reply.last_seq);
    o.number_or_null("next_offset", reply.next_offset);
    o.number_or_null("stream_id", reply.stream_id.map(|id| id.0));
    o.number("log_epoch", reply.log_epoch);
    o.text("origin", reply.origin.as_str());
    o
}

fn write_committed<'a>(out: &'a mut Vec<u8>, req: u64, reply: &Committed) -> Members<'a> {
    let mut o = Members::frame(out, "committed");
    o.number("req", req);
    o.list("acks", &reply.acks, |out, ack| {
        let mut o = Members::begin(out);
        o.text("stream", ack.stream.as_str());
        o.text("subscription", ack.subscription.as_str());
        o.number("offset", ack.offset);
        o.number("next", ack.next);
        o.end();
    });
    o.list("appends", &reply.appends, |out, append| {
        let mut o = Members::begin(out);
        o.text("stream", append.stream.as_str());
        o.number("first_offset", append.first_offset);
        o.number("last_offset", append.last_offset);
        o.number("count", u64::from(append.count));
        o.end();
    });
    o.boolean("duplicate", reply.duplicate);
    o
}

/// Any server frame as it was received. Unknown members are ignored; those a frame needs are asked for by [`need`].
#[derive(Deserialize)]
struct Received<'a> {
    #[serde(borrow)]
    t: std::borrow::Cow<'a, str>,
    #[serde(default)]
    sub: u64,
    req: Option<u64>,
    stream: Option<String>,
    stream_id: Option<u64>,
    epoch: Option<u64>,
    next: Option<u64>,
    first_offset: Option<u64>,
    last_offset: Option<u64>,
    next_offset: Option<u64>,
    log_epoch: Option<u64>,
    #[serde(borrow)]
    events: Option<&'a RawValue>,
    lag: Option<ReceivedLag>,
    from: Option<u64>,
    to: Option<u64>,
    reason: Option<String>,
    offset: Option<u64>,
    #[serde(default)]
    stale: bool,
    producer: Option<String>,
    last_seq: Option<u64>,
    origin: Option<String>,
    count: Option<u32>,
    #[serde(default)]
    duplicate: bool,
    #[serde(borrow)]
    acks: Option<&'a RawValue>,
    #[serde(borrow)]
    appends: Option<&'a RawValue>,
    version: Option<String>,
    #[serde(borrow)]
    limits: Option<&'a RawValue>,
    #[serde(default)]
    capabilities: Vec<String>,
}

#[derive(Deserialize)]
struct ReceivedLag {
    events: u64,
    bytes: u64,
    seconds: f64,
}

#[derive(Deserialize)]
struct ReceivedAck {
    stream: String,
    subscription: String,
    offset: u64,
    next: u64,
}

#[derive(Deserialize)]
struct ReceivedAppend {
    stream: String,
    first_offset: u64,
    last_offset: u64,
    count: u32,
}

/// Reads one server frame, with or without `sub` (0). Unknown members are ignored; `None` is a frame this version does not know,
/// to be ignored too.
///
/// # Errors
/// The text is not a server frame: the connection is of no more use.
pub fn decode_server(text: impl AsRef<[u8]>) -> Result<Option<ServerFrame>, FrameError> {
    let text = text.as_ref();
    read(text).map_err(|why| FrameError::of_other(Error::bad("frame", format!("The message is not a server frame: {why}.")), About::Connection))
}

fn need<T>(value: Option<T>, name: &str) -> Result<T, String> {
    value.ok_or_else(|| format!("{name} is missing"))
}

fn read(text: &[u8]) -> Result<Option<ServerFrame>, String> {
    // An unknown frame may use our names for other things: its `t` is read before its members.
    #[derive(Deserialize)]
    struct Tag<'a> {
        #[serde(borrow)]
        t: std::borrow::Cow<'a, str>,
    }
    const KNOWN: [&str; 14] = [
        "hello",
        "subscribed",
        "events",
        "live",
        "progress",
        "gap",
        "acked",
        "unsubscribed",
        "pong",
        "producer_opened",
        "resumed",
        "appended",
        "committed",
        "error",
    ];
    let text = std::str::from_utf8(text).map_err(|e| e.to_string())?;
    // The broker puts `t` first; only other orders cost a second walk.
    let known_at_once = text.strip_prefix("{\"t\":\"").and_then(|rest| rest.split_once('"')).is_some_and(|(t, _)| KNOWN.contains(&t));
    if !known_at_once && !KNOWN.contains(&&*serde_json::from_str::<Tag<'_>>(text).map_err(|e| object::why(&e))?.t) {
        return Ok(None);
    }
    let m: Received<'_> = serde_json::from_str(text).map_err(|e| object::why(&e))?;
    let sub = m.sub;
    let stream = || StreamName::parse(m.stream.as_deref().unwrap_or_default()).map_err(|e| e.message.clone());
    let frame = match &*m.t {
        "hello" => {
            let limits: serde_json::Map<String, serde_json::Value> =
                m.limits.map_or(Ok(Default::default()), |raw| serde_json::from_str(raw.get())).map_err(|e| object::why(&e))?;
            let limits = limits.into_iter().filter_map(|(name, value)| Some((name, value.as_u64()?))).collect();
            ServerFrame::Hello(Hello { version: need(m.version, "version")?, limits, capabilities: m.capabilities })
        }
        "subscribed" => {
            let reply = Subscribed {
                stream: stream()?,
                stream_id: StreamId(need(m.stream_id, "stream_id")?),
                epoch: m.epoch,
                next: need(m.next, "next")?,
                first_offset: need(m.first_offset, "first_offset")?,
                next_offset: need(m.next_offset, "next_offset")?,
                log_epoch: need(m.log_epoch, "log_epoch")?,
            };
            ServerFrame::Subscribed { sub, reply }
        }
        "events" => {
            let slices = event::received_events(need(m.events, "events")?.get())?;
            let lag = m.lag.map_or(Lag::default(), |l| Lag { events: l.events, bytes: l.bytes, seconds: l.seconds });
            ServerFrame::Events { sub, stream: stream()?, slices, lag }
        }
        "live" => ServerFrame::Live { sub, next_offset: need(m.next_offset, "next_offset")? },
        "progress" => ServerFrame::Progress { sub, next: need(m.next, "next")? },
        "gap" => {
            let reason = m.reason.as_deref().and_then(GapReason::parse).unwrap_or(GapReason::Retention);
            ServerFrame::Gap { sub, from: need(m.from, "from")?, to: need(m.to, "to")?, reason }
        }
        "acked" => ServerFrame::Acked { sub, reply: Acked { offset: m.offset, next: need(m.next, "next")?, stale: m.stale } },
        "unsubscribed" => ServerFrame::Unsubscribed { sub },
        "pong" => ServerFrame::Pong,
        "producer_opened" => {
            let reply = ProducerOpened {
                producer: convert::producer("producer", &need(m.producer, "producer")?).map_err(|e| e.message.clone())?,
                epoch: need(m.epoch, "epoch")?,
                last_seq: m.last_seq,
                next_offset: m.next_offset,
                stream_id: m.stream_id.map(StreamId),
                log_epoch: need(m.log_epoch, "log_epoch")?,
                origin: need(m.origin.as_deref().and_then(Origin::parse), "origin")?,
            };
            ServerFrame::ProducerOpened { req: need(m.req, "req")?, reply }
        }
        "resumed" => ServerFrame::Resumed { req: need(m.req, "req")? },
        "appended" => {
            let reply = Appended { first_offset: m.first_offset, last_offset: m.last_offset, count: need(m.count, "count")?, duplicate: m.duplicate };
            ServerFrame::Appended { req: need(m.req, "req")?, reply }
        }
        "committed" => ServerFrame::Committed { req: need(m.req, "req")?, reply: read_committed(&m)? },
        "error" => {
            let mut members: error_json::Members = serde_json::from_str(text).map_err(|e| object::why(&e))?;
            let request_id = std::mem::take(&mut members.request_id);
            // `sub` may be 0, so absence is asked of the text.
            #[derive(Deserialize)]
            struct Sub {
                sub: Option<u64>,
            }
            let sub = serde_json::from_str::<Sub>(text).map_err(|e| object::why(&e))?.sub;
            let about = m.req.map(About::Req).or(sub.map(About::Sub)).unwrap_or(About::Connection);
            ServerFrame::Error { about, error: members.into_error(), request_id }
        }
        other => return Err(format!("{other} is a frame without a reader")),
    };
    Ok(Some(frame))
}

fn read_committed(m: &Received<'_>) -> Result<Committed, String> {
    let list = |raw: Option<&RawValue>| raw.map_or("[]".to_owned(), |r| r.get().to_owned());
    let acks: Vec<ReceivedAck> = serde_json::from_str(&list(m.acks)).map_err(|e| object::why(&e))?;
    let appends: Vec<ReceivedAppend> = serde_json::from_str(&list(m.appends)).map_err(|e| object::why(&e))?;
    let stream = |text: &str| StreamName::parse(text).map_err(|e| e.message.clone());
    let ack = |a: ReceivedAck| -> Result<CommittedAck, String> {
        let subscription = convert::subscription("subscription", &a.subscription).map_err(|e| e.message.clone())?;
        Ok(CommittedAck { stream: stream(&a.stream)?, subscription, offset: a.offset, next: a.next })
    };
    let append = |a: ReceivedAppend| -> Result<CommittedAppend, String> {
        Ok(CommittedAppend { stream: stream(&a.stream)?, first_offset: a.first_offset, last_offset: a.last_offset, count: a.count })
    };
    Ok(Committed {
        acks: acks.into_iter().map(ack).collect::<Result<_, _>>()?,
        appends: appends.into_iter().map(append).collect::<Result<_, _>>()?,
        duplicate: m.duplicate,
    })
}
