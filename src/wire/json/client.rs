//! What a client says, in JSON.

use serde_json::value::RawValue;

use super::event;
use super::object::{self, Object};
use super::write::{self, Members};
use crate::types::request::{
    AckLevel, AppendRequest, CommitAck, CommitAppend, CommitRequest, Credit, Expect, OnGap, OpenProducerRequest, ResumeRequest, SubscribeRequest, Takeover,
};
use crate::types::{Error, Events, EventsBuilder, ProducerId, StreamName, SubscriptionName, limits};
use crate::wire::convert;
use crate::wire::frame::{About, ClientFrame, FrameError};

/// Reads one client frame, strictly.
///
/// # Errors
/// `json_parsing_failed`, `unknown_field`, `bad_parameter` or `too_large`, with what the frame was about where that is readable.
pub fn decode_client(text: impl AsRef<[u8]>) -> Result<ClientFrame, FrameError> {
    decode(text.as_ref(), false)
}

/// The same on the URL of one subscription, where frames have no `sub`: it reads as 0.
///
/// # Errors
/// As [`decode_client`].
pub fn decode_client_single(text: impl AsRef<[u8]>) -> Result<ClientFrame, FrameError> {
    decode(text.as_ref(), true)
}

fn decode(text: &[u8], single: bool) -> Result<ClientFrame, FrameError> {
    let text = object::text(text).map_err(FrameError::of_anything)?;
    let mut o = Object::parse("", text).map_err(FrameError::of_anything)?;
    let t = o.text("t").map_err(FrameError::of_anything)?;
    let peek = |name: &str| o.peek(name).and_then(|raw| object::number(name, raw.get()).ok());
    let about_sub = peek("sub").map_or(if single { About::Sub(0) } else { About::Connection }, About::Sub);
    let about_req = peek("req").map_or(About::Connection, About::Req);
    let other = |about: About| move |error: Error| FrameError::of_other(error, about);
    match &*t {
        "auth" => auth(o).map_err(other(About::Connection)),
        "subscribe" => subscribe(o, single).map_err(other(about_sub)),
        "ack" => ack(o, single).map_err(other(about_sub)),
        "credit" => add_credit(o, single).map_err(other(about_sub)),
        "unsubscribe" => unsubscribe(o, single).map_err(other(about_sub)),
        "ping" => o.finish().map(|()| ClientFrame::Ping).map_err(other(About::Connection)),
        "open_producer" => open_producer(o).map_err(other(about_req)),
        "resume" => resume(o).map_err(other(about_req)),
        "append" => {
            let session = append_session(&o);
            append(o).map_err(|error| FrameError { error, about: about_req, append: Some(session) })
        }
        "commit" => commit(o).map_err(other(about_req)),
        _ => Err(FrameError::of_anything(Error::bad(
            "t",
            format!(
                "t is {}; it may be auth, subscribe, ack, credit, unsubscribe, ping, open_producer, resume, append or commit.",
                crate::types::name::quote(&t)
            ),
        ))),
    }
}

/// Stream and producer of an append, before anything else of it is looked at. A producer that is there but not readable makes
/// both unreadable.
fn append_session(o: &Object<'_>) -> (Option<StreamName>, Option<ProducerId>) {
    let text = |raw: &RawValue| object::string("", raw.get()).ok().map(|t| t.into_owned());
    let Some(stream) = o.peek("stream").and_then(text).and_then(|t| StreamName::parse(&t).ok()) else { return (None, None) };
    match o.peek("producer").filter(|raw| raw.get() != "null") {
        None => (Some(stream), None),
        Some(raw) => {
            let stamp = Object::parse("producer", raw.get()).ok();
            let id = stamp.and_then(|s| s.peek("id").and_then(text)).and_then(|t| ProducerId::parse(&t).ok());
            if id.is_some() { (Some(stream), id) } else { (None, None) }
        }
    }
}

fn sub(o: &mut Object<'_>, single: bool) -> Result<u64, Error> {
    if single { Ok(0) } else { o.number("sub") }
}

fn auth(mut o: Object<'_>) -> Result<ClientFrame, Error> {
    let key = o.text_if("key")?.map(|t| t.into_owned());
    let ticket = o.text_if("ticket")?.map(|t| t.into_owned());
    o.finish()?;
    convert::credential(&key, &ticket)?;
    Ok(ClientFrame::Auth { key, ticket })
}

fn subscribe(mut o: Object<'_>, single: bool) -> Result<ClientFrame, Error> {
    let sub = sub(&mut o, single)?;
    let request = SubscribeRequest {
        stream: o.stream()?,
        subscription: o.subscription_if()?,
        create: o.flag("create")?,
        stream_id: o.stream_id()?,
        rewind: o.flag("rewind")?,
        from: o.start("from")?,
        filter: o.text_if("filter")?.map(|t| t.into_owned()),
        credit: o
            .object_if("credit")?
            .map(|mut c| {
                let credit = Credit { events: c.number("events")?, bytes: c.number("bytes")? };
                c.finish().map(|()| credit)
            })
            .transpose()?,
        takeover: o.word_if("takeover", Takeover::parse, "steal, reject")?.unwrap_or_default(),
        on_gap: o.word_if("on_gap", OnGap::parse, "fail, skip")?,
        log_epoch: o.number_if("log_epoch")?,
    };
    o.finish()?;
    Ok(ClientFrame::Subscribe { sub, request })
}

fn ack(mut o: Object<'_>, single: bool) -> Result<ClientFrame, Error> {
    let sub = sub(&mut o, single)?;
    let offset = o.number("offset")?;
    let level = o.word_if("level", AckLevel::parse, "durable, received")?.unwrap_or_default();
    o.finish()?;
    Ok(ClientFrame::Ack { sub, offset, level })
}

fn add_credit(mut o: Object<'_>, single: bool) -> Result<ClientFrame, Error> {
    let sub = sub(&mut o, single)?;
    let credit = Credit { events: o.number_if("events")?.unwrap_or(0), bytes: o.number_if("bytes")?.unwrap_or(0) };
    o.finish()?;
    Ok(ClientFrame::Credit { sub, credit })
}

fn unsubscribe(mut o: Object<'_>, single: bool) -> Result<ClientFrame, Error> {
    let sub = sub(&mut o, single)?;
    o.finish()?;
    Ok(ClientFrame::Unsubscribe { sub })
}

fn open_producer(mut o: Object<'_>) -> Result<ClientFrame, Error> {
    let req = o.number("req")?;
    let request = OpenProducerRequest {
        stream: o.stream_if()?,
        stream_id: o.stream_id()?,
        producer: o.producer_id_if()?.ok_or_else(|| convert::missing("producer"))?,
        expect: o.word_if("expect", Expect::parse, "create, resume, any")?.unwrap_or_default(),
    };
    o.finish()?;
    Ok(ClientFrame::OpenProducer { req, request })
}

fn resume(mut o: Object<'_>) -> Result<ClientFrame, Error> {
    let req = o.number("req")?;
    let request = ResumeRequest { stream: o.stream()?, producer: o.producer_id_if()?, seq: o.number_if("seq")? };
    o.finish()?;
    Ok(ClientFrame::Resume { req, request })
}

fn append(mut o: Object<'_>) -> Result<ClientFrame, Error> {
    let req = o.number("req")?;
    let request = AppendRequest {
        stream: o.stream()?,
        stream_id: o.stream_id()?,
        producer: o.stamp()?,
        expected_next_offset: o.number_if("expected_next_offset")?,
        events: events(&mut o)?,
    };
    o.finish()?;
    Ok(ClientFrame::Append { req, request })
}

/// The member `events`: one or more.
pub(super) fn events(o: &mut Object<'_>) -> Result<Events, Error> {
    let path = o.at("events");
    let raw = o.need("events")?;
    let mut builder = EventsBuilder::with_capacity(raw.get().len());
    object::each_item(&path, raw.get(), |i, item| event::push_event(&mut builder, &format!("{path}[{i}]"), item.get()))?;
    let parent = path.strip_suffix(".events").map(str::to_owned);
    builder.finish().map_err(|e| parent.map_or(e.clone(), |parent| convert::below(e, &parent)))
}

fn commit(mut o: Object<'_>) -> Result<ClientFrame, Error> {
    let req = o.number("req")?;
    let request = commit_request(o)?;
    Ok(ClientFrame::Commit { req, request })
}

/// The members of a commit besides `t` and `req`: the same in frames and over REST.
pub(super) fn commit_request(mut o: Object<'_>) -> Result<CommitRequest, Error> {
    let mut request = CommitRequest { producer: o.stamp()?, ..CommitRequest::default() };
    o.items("acks", limits::COMMIT_ACKS, |path, raw| {
        let mut a = Object::parse(path, raw.get())?;
        let subscription: SubscriptionName = a.subscription_if()?.ok_or_else(|| convert::missing(&a.at("subscription")))?;
        let ack = CommitAck { stream: a.stream()?, subscription, epoch: a.number("epoch")?, offset: a.number("offset")? };
        request.acks.push(ack);
        a.finish()
    })?;
    o.items("appends", limits::COMMIT_APPENDS, |path, raw| {
        let mut a = Object::parse(path, raw.get())?;
        let append = CommitAppend {
            stream: a.stream()?,
            stream_id: a.stream_id()?,
            expected_next_offset: a.number_if("expected_next_offset")?,
            events: events(&mut a)?,
        };
        request.appends.push(append);
        a.finish()
    })?;
    o.items("checks", limits::COMMIT_CHECKS, |path, raw| {
        let mut c = Object::parse(path.clone(), raw.get())?;
        let (stream, expected) = (c.text("stream")?, c.number("expected_next_offset")?);
        request.checks.push(convert::check(&path, &stream, expected)?);
        c.finish()
    })?;
    o.finish()?;
    Ok(request)
}

/// Writes one client frame. Members at their defaults are left out.
pub fn encode_client(frame: &ClientFrame) -> String {
    let mut out = Vec::with_capacity(128);
    write_client(&mut out, frame);
    write::finish(out)
}

fn write_client(out: &mut Vec<u8>, frame: &ClientFrame) {
    let o = match frame {
        ClientFrame::Auth { key, ticket } => {
            let mut o = Members::frame(out, "auth");
            o.text_if("key", key.as_deref());
            o.text_if("ticket", ticket.as_deref());
            o
        }
        ClientFrame::Subscribe { sub, request } => write_subscribe(out, *sub, request),
        ClientFrame::Ack { sub, offset, level } => {
            let mut o = Members::frame(out, "ack");
            o.number("sub", *sub);
            o.number("offset", *offset);
            o.text_if("level", Some(level.as_str()).filter(|_| *level != AckLevel::default()));
            o
        }
        ClientFrame::Credit { sub, credit } => {
            let mut o = Members::frame(out, "credit");
            o.number("sub", *sub);
            o.number("events", credit.events);
            o.number("bytes", credit.bytes);
            o
        }
        ClientFrame::Unsubscribe { sub } => {
            let mut o = Members::frame(out, "unsubscribe");
            o.number("sub", *sub);
            o
        }
        ClientFrame::Ping => Members::frame(out, "ping"),
        ClientFrame::OpenProducer { req, request } => {
            let mut o = Members::frame(out, "open_producer");
            o.number("req", *req);
            o.text_if("stream", request.stream.as_ref().map(|s| s.as_str()));
            o.number_if("stream_id", request.stream_id.map(|id| id.0));
            o.text("producer", request.producer.as_str());
            o.text("expect", request.expect.as_str());
            o
        }
        ClientFrame::Resume { req, request } => {
            let mut o = Members::frame(out, "resume");
            o.number("req", *req);
            o.text("stream", request.stream.as_str());
            o.text_if("producer", request.producer.as_ref().map(|p| p.as_str()));
            o.number_if("seq", request.seq);
            o
        }
        ClientFrame::Append { req, request } => {
            let mut o = Members::frame(out, "append");
            o.number("req", *req);
            o.text("stream", request.stream.as_str());
            o.number_if("stream_id", request.stream_id.map(|id| id.0));
            write_stamp(&mut o, request.producer.as_ref());
            o.number_if("expected_next_offset", request.expected_next_offset);
            o.list("events", request.events.iter(), |out, e| event::write_appended(out, &e));
            o
        }
        ClientFrame::Commit { req, request } => write_commit(out, *req, request),
    };
    o.end();
}

fn write_subscribe<'a>(out: &'a mut Vec<u8>, sub: u64, request: &SubscribeRequest) -> Members<'a> {
    use crate::types::request::Start;
    let mut o = Members::frame(out, "subscribe");
    o.number("sub", sub);
    o.text("stream", request.stream.as_str());
    o.text_if("subscription", request.subscription.as_ref().map(|s| s.as_str()));
    if request.create {
        o.boolean("create", true);
    }
    o.number_if("stream_id", request.stream_id.map(|id| id.0));
    if request.rewind {
        o.boolean("rewind", true);
    }
    match request.from {
        None => {}
        Some(Start::Offset(offset)) => o.number("from", offset),
        Some(Start::Earliest) => o.text("from", "earliest"),
        Some(Start::Latest) => o.text("from", "latest"),
        Some(Start::Time(time)) => o.text("from", &time.to_string()),
    }
    o.text_if("filter", request.filter.as_deref());
    if let Some(credit) = request.credit {
        let mut c = Members::begin(o.name("credit"));
        c.number("events", credit.events);
        c.number("bytes", credit.bytes);
        c.end();
    }
    o.text_if("takeover", Some(request.takeover.as_str()).filter(|_| request.takeover != Takeover::default()));
    o.text_if("on_gap", request.on_gap.map(OnGap::as_str));
    o.number_if("log_epoch", request.log_epoch);
    o
}

fn write_stamp(o: &mut Members<'_>, stamp: Option<&crate::types::request::ProducerStamp>) {
    if let Some(stamp) = stamp {
        let mut p = Members::begin(o.name("producer"));
        p.text("id", stamp.id.as_str());
        p.number("epoch", stamp.epoch);
        p.number("seq", stamp.seq);
        p.end();
    }
}

fn write_commit<'a>(out: &'a mut Vec<u8>, req: u64, request: &CommitRequest) -> Members<'a> {
    let mut o = Members::frame(out, "commit");
    o.number("req", req);
    write_stamp(&mut o, request.producer.as_ref());
    o.list("acks", &request.acks, |out, ack| {
        let mut o = Members::begin(out);
        o.text("stream", ack.stream.as_str());
        o.text("subscription", ack.subscription.as_str());
        o.number("epoch", ack.epoch);
        o.number("offset", ack.offset);
        o.end();
    });
    o.list("appends", &request.appends, |out, append| {
        let mut o = Members::begin(out);
        o.text("stream", append.stream.as_str());
        o.number_if("stream_id", append.stream_id.map(|id| id.0));
        o.number_if("expected_next_offset", append.expected_next_offset);
        o.list("events", append.events.iter(), |out, e| event::write_appended(out, &e));
        o.end();
    });
    if !request.checks.is_empty() {
        o.list("checks", &request.checks, |out, check| {
            let mut o = Members::begin(out);
            o.text("stream", check.stream.as_str());
            o.number("expected_next_offset", check.expected_next_offset);
            o.end();
        });
    }
    o
}
