//! Subprotocol `tidelog.v1.json`, written by hand and read with nothing of ours: data must come back as the text it was.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tidelog::types::TimeUs;
use tokio_tungstenite::tungstenite::Message;

use super::socket::{About, Dialect, Hear, Say};
use super::values::{Acked, Append, Commit, CommitAck, Committed, Delivery, Encoding, Event, From, New, Opened, Refusal, Stamp, Stored, Subscribe, Subscribed};

/// See the module.
pub struct JsonText;

/// Text in quotes.
pub fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// One appended event. Members at their defaults are left out, as a person would.
pub fn event_text(event: &New) -> String {
    let mut out = String::from("{");
    for (name, value) in [("type", &event.kind), ("key", &event.key)].into_iter().filter(|(_, value)| !value.is_empty()) {
        out.push_str(&format!("\"{name}\":{},", quoted(value)));
    }
    if !event.headers.is_empty() {
        let headers: Vec<_> = event.headers.iter().map(|(name, value)| format!("{}: {}", quoted(name), quoted(value))).collect();
        out.push_str(&format!("\"headers\":{{{}}},", headers.join(", ")));
    }
    match event.encoding {
        // White space around a value is not a part of it.
        Encoding::Json => out.push_str(&format!("\"data\":  {} }}", String::from_utf8_lossy(&event.data))),
        Encoding::Utf8 => out.push_str(&format!("\"encoding\":\"utf8\",\"data\":{}}}", quoted(&String::from_utf8_lossy(&event.data)))),
        Encoding::Binary => out.push_str(&format!("\"encoding\":\"base64\",\"data\":\"{}\"}}", BASE64.encode(&event.data))),
    }
    out
}

/// The members of an append besides its frame's: the same over REST.
pub fn append_members(append: &Append) -> String {
    let mut out = String::new();
    if let Some(id) = append.stream_id {
        out.push_str(&format!("\"stream_id\":{id},"));
    }
    if let Some(stamp) = &append.stamp {
        out.push_str(&stamp_member(stamp));
    }
    if let Some(expected) = append.expected {
        out.push_str(&format!("\"expected_next_offset\":{expected},"));
    }
    let events: Vec<_> = append.events.iter().map(event_text).collect();
    out + &format!("\"events\":[{}]", events.join(",\n "))
}

fn stamp_member(Stamp { id, epoch, seq }: &Stamp) -> String {
    format!("\"producer\":{{\"id\":{},\"epoch\":{epoch},\"seq\":{seq}}},", quoted(id))
}

fn subscribe_text(sub: u64, ask: &Subscribe) -> String {
    let mut out = format!("{{\"t\":\"subscribe\",\"sub\":{sub},\"stream\":{}", quoted(&ask.stream));
    let mut add = |name: &str, value: String| out.push_str(&format!(",\"{name}\":{value}"));
    if let Some(name) = &ask.subscription {
        add("subscription", quoted(name));
    }
    match ask.from {
        None => {}
        Some(From::Offset(offset)) => add("from", offset.to_string()),
        Some(From::Earliest) => add("from", quoted("earliest")),
        Some(From::Latest) => add("from", quoted("latest")),
        Some(From::Time(us)) => add("from", quoted(&TimeUs(us).to_string())),
    }
    for (name, on) in [("create", ask.create), ("rewind", ask.rewind)].into_iter().filter(|(_, on)| *on) {
        add(name, on.to_string());
    }
    if ask.reject {
        add("takeover", quoted("reject"));
    }
    if let Some((events, bytes)) = ask.credit {
        add("credit", format!("{{\"events\":{events},\"bytes\":{bytes}}}"));
    }
    if let Some(word) = ask.on_gap {
        add("on_gap", quoted(word));
    }
    for (name, number) in [("stream_id", ask.stream_id), ("log_epoch", ask.log_epoch)] {
        if let Some(number) = number {
            add(name, number.to_string());
        }
    }
    out + "}"
}

fn commit_text(req: u64, commit: &Commit) -> String {
    format!("{{\"t\":\"commit\",\"req\":{req},{}}}", commit_members(commit))
}

/// The members of a commit besides its frame's: the same over REST.
pub fn commit_members(commit: &Commit) -> String {
    let acks: Vec<_> = commit
        .acks
        .iter()
        .map(|CommitAck { stream, subscription, epoch, offset }| {
            format!("{{\"stream\":{},\"subscription\":{},\"epoch\":{epoch},\"offset\":{offset}}}", quoted(stream), quoted(subscription))
        })
        .collect();
    let appends: Vec<_> = commit.appends.iter().map(|append| format!("{{\"stream\":{},{}}}", quoted(&append.stream), append_members(append))).collect();
    let checks: Vec<_> = commit.checks.iter().map(|(stream, at)| format!("{{\"stream\":{},\"expected_next_offset\":{at}}}", quoted(stream))).collect();
    let stamp = commit.producer.as_ref().map(stamp_member).unwrap_or_default();
    format!("{stamp}\"acks\":[{}],\"appends\":[{}],\"checks\":[{}]", acks.join(","), appends.join(","), checks.join(","))
}

/// An object whose members keep their order.
struct Ordered(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Ordered;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Ordered(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// The one JSON form of an event: every member is always there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventForm<'a> {
    offset: u64,
    time: String,
    log_epoch: u64,
    r#type: String,
    key: String,
    headers: Ordered,
    #[serde(borrow)]
    data: &'a RawValue,
    encoding: String,
    size: usize,
    author: Author,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Author {
    user_id: u64,
    source_id: Option<u64>,
}

/// One event in its JSON form.
pub fn event_of(text: &str) -> Event {
    let form: EventForm<'_> = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in {text}"));
    let encoding = Encoding::of_word(&form.encoding);
    let raw = form.data.get();
    let string = || serde_json::from_str::<String>(raw).expect("a JSON string");
    let data = match encoding {
        Encoding::Json => raw.as_bytes().to_vec(),
        Encoding::Utf8 => string().into_bytes(),
        Encoding::Binary => BASE64.decode(string()).expect("base64"),
    };
    assert_eq!(form.size, data.len(), "size counts the bytes of data: {text}");
    assert!(form.time.ends_with('Z'), "{text}");
    Event {
        offset: form.offset,
        time: TimeUs::parse(&form.time).expect("a time").0,
        log_epoch: form.log_epoch,
        kind: form.r#type,
        key: form.key,
        headers: form.headers.0,
        data,
        encoding,
        author: (form.author.user_id, form.author.source_id.unwrap_or(0)),
    }
}

/// A list of events.
pub fn events_of(list: &RawValue) -> Vec<Event> {
    let items: Vec<&RawValue> = serde_json::from_str(list.get()).expect("a list of events");
    items.into_iter().map(|item| event_of(item.get())).collect()
}

/// The members that every error has, wherever it is.
pub fn refusal_of(members: &Value, message: &str) -> Refusal {
    let text = |name: &str| members[name].as_str().unwrap_or_else(|| panic!("{name} in {members}")).to_owned();
    assert!(!text("request_id").is_empty(), "{members}");
    let details: Map<String, Value> = members["details"].as_object().unwrap_or_else(|| panic!("details in {members}")).clone();
    Refusal::new(&text("code"), members["rule"].as_str().unwrap_or_default(), &text("applied"), &text("retry"), message, details)
}

impl Dialect for JsonText {
    const SUBPROTOCOL: &'static str = "tidelog.v1.json";

    fn say(say: &Say<'_>) -> Message {
        let or_nothing = |name: &str, value: Option<String>| value.map_or_else(String::new, |value| format!(",\"{name}\":{value}"));
        Message::text(match say {
            Say::Ping => "{\"t\":\"ping\"}".to_owned(),
            Say::Append(req, append) => format!("{{\"t\":\"append\",\"req\":{req},\"stream\":{},{}}}", quoted(&append.stream), append_members(append)),
            Say::Resume(req, stream, producer, seq) => {
                let (producer, seq) = (or_nothing("producer", producer.map(quoted)), or_nothing("seq", seq.map(|n| n.to_string())));
                format!("{{\"t\":\"resume\",\"req\":{req},\"stream\":{}{producer}{seq}}}", quoted(stream))
            }
            Say::OpenProducer(req, stream, id, expect) => {
                let stream = or_nothing("stream", stream.map(quoted));
                format!("{{\"t\":\"open_producer\",\"req\":{req}{stream},\"producer\":{},\"expect\":{}}}", quoted(id), quoted(expect))
            }
            Say::Commit(req, commit) => commit_text(*req, commit),
            Say::Subscribe(sub, ask) => subscribe_text(*sub, ask),
            Say::Ack(sub, offset, received) => {
                format!("{{\"t\":\"ack\",\"sub\":{sub},\"offset\":{offset}{}}}", if *received { ",\"level\":\"received\"" } else { "" })
            }
            Say::Credit(sub, events) => format!("{{\"t\":\"credit\",\"sub\":{sub},\"events\":{events},\"bytes\":0}}"),
            Say::Unsubscribe(sub) => format!("{{\"t\":\"unsubscribe\",\"sub\":{sub}}}"),
        })
    }

    fn hear(message: &Message) -> Hear {
        let Message::Text(text) = message else { panic!("not text: {message:?}") };
        let frame: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in {text}"));
        let number = |name: &str| frame[name].as_u64().unwrap_or_else(|| panic!("{name} in {text}"));
        let word = |name: &str| frame[name].as_str().unwrap_or_else(|| panic!("{name} in {text}")).to_owned();
        let flag = |name: &str| frame[name].as_bool().unwrap_or_else(|| panic!("{name} in {text}"));
        match frame["t"].as_str().unwrap_or_default() {
            "hello" => Hear::Hello,
            "pong" => Hear::Pong,
            "appended" => {
                assert_eq!(word("durability"), "fsync");
                let stored =
                    Stored { first: frame["first_offset"].as_u64(), last: frame["last_offset"].as_u64(), count: number("count"), duplicate: flag("duplicate") };
                Hear::Stored(number("req"), stored)
            }
            "resumed" => Hear::Resumed(number("req")),
            "producer_opened" => Hear::Opened(number("req"), opened_of(&frame)),
            "committed" => Hear::Committed(number("req"), committed_of(&frame)),
            "subscribed" => Hear::Subscribed(
                number("sub"),
                Subscribed {
                    stream: word("stream"),
                    stream_id: number("stream_id"),
                    epoch: frame["epoch"].as_u64(),
                    next: number("next"),
                    first_offset: number("first_offset"),
                    next_offset: number("next_offset"),
                    log_epoch: number("log_epoch"),
                },
            ),
            "events" => {
                #[derive(Deserialize)]
                struct Raw<'a> {
                    #[serde(borrow)]
                    events: &'a RawValue,
                }
                let raw: Raw<'_> = serde_json::from_str(text).expect("the same text");
                assert!(frame["lag"]["events"].is_u64() && frame["lag"]["bytes"].is_u64() && frame["lag"]["seconds"].is_number(), "{text}");
                Hear::Delivered(number("sub"), events_of(raw.events).into_iter().map(Delivery::Event).collect())
            }
            "live" => Hear::Delivered(number("sub"), vec![Delivery::Live { next_offset: number("next_offset") }]),
            "gap" => Hear::Delivered(number("sub"), vec![Delivery::Gap { from: number("from"), to: number("to"), reason: word("reason") }]),
            "acked" => {
                assert_eq!(frame["offset"].as_u64(), number("next").checked_sub(1), "{text}");
                Hear::Acked(number("sub"), Acked { next: number("next"), stale: frame["stale"].as_bool().unwrap_or(false) })
            }
            "unsubscribed" => Hear::Unsubscribed(number("sub")),
            "error" => {
                let about = match (frame["req"].as_u64(), frame["sub"].as_u64()) {
                    (Some(req), None) => About::Req(req),
                    (None, Some(sub)) => About::Sub(sub),
                    (None, None) => About::Connection,
                    both => panic!("about {both:?}: {text}"),
                };
                Hear::Refused(about, refusal_of(&frame, &word("message")))
            }
            _ => panic!("an unknown frame: {text}"),
        }
    }
}

/// An opened producer, in a frame or over REST.
pub fn opened_of(object: &Value) -> Opened {
    let number = |name: &str| object[name].as_u64().unwrap_or_else(|| panic!("{name} in {object}"));
    let word = |name: &str| object[name].as_str().unwrap_or_else(|| panic!("{name} in {object}")).to_owned();
    for name in ["last_seq", "next_offset", "stream_id"] {
        assert!(object.get(name).is_some_and(|v| v.is_u64() || v.is_null()), "{name} in {object}");
    }
    Opened {
        producer: word("producer"),
        epoch: number("epoch"),
        last_seq: object["last_seq"].as_u64(),
        next_offset: object["next_offset"].as_u64(),
        stream_id: object["stream_id"].as_u64(),
        log_epoch: number("log_epoch"),
        origin: word("origin"),
    }
}

/// A commit that was done, in a frame or over REST.
pub fn committed_of(frame: &Value) -> Committed {
    let text = |item: &Value, name: &str| item[name].as_str().unwrap_or_else(|| panic!("{name} in {frame}")).to_owned();
    let number = |item: &Value, name: &str| item[name].as_u64().unwrap_or_else(|| panic!("{name} in {frame}"));
    let items = |name: &str| frame[name].as_array().unwrap_or_else(|| panic!("{name} in {frame}"));
    Committed {
        acks: items("acks").iter().map(|a| (text(a, "stream"), text(a, "subscription"), number(a, "offset"), number(a, "next"))).collect(),
        appends: items("appends").iter().map(|a| (text(a, "stream"), number(a, "first_offset"), number(a, "last_offset"), number(a, "count"))).collect(),
        duplicate: frame["duplicate"].as_bool().expect("a flag"),
    }
}
