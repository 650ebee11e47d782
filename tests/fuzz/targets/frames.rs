//! Frames of both sides in both forms. What decodes is written and read back as the same, in its own form and in the other.

use prost::Message as _;
use serde_json::Value;
use tidelog::wire::frame::{ClientFrame, FrameError};
use tidelog::wire::proto::v1;
use tidelog::wire::{json, proto};

use crate::corpus::golden;
use crate::engine::{Target, Verdict};
use crate::gauge::{Bound, Gauge};
use crate::mutate::Shape;
use crate::promises::{heard, refused, said, same, taken, told, variant};

pub const CLIENT_JSON: Target =
    Target { name: "client_json", shape: Shape::Json, bound: Bound::USUAL, seeds: || golden("→"), check: client_json, cases: 25_000 };

pub const CLIENT_PROTO: Target =
    Target { name: "client_proto", shape: Shape::Proto, bound: Bound::USUAL, seeds: client_messages, check: client_proto, cases: 40_000 };

/// A client trusts its broker with more: an event of a few bytes becomes a batch of its own.
const OF_SERVERS: Bound = Bound { per_byte: 160, ..Bound::USUAL };

pub const SERVER_JSON: Target =
    Target { name: "server_json", shape: Shape::Json, bound: OF_SERVERS, seeds: || golden("←"), check: server_json, cases: 25_000 };

pub const SERVER_PROTO: Target =
    Target { name: "server_proto", shape: Shape::Proto, bound: OF_SERVERS, seeds: server_messages, check: server_proto, cases: 40_000 };

pub const TWO_FORMS: Target = Target { name: "two_forms", shape: Shape::Json, bound: Bound::USUAL, seeds: || golden("→"), check: two_forms, cases: 25_000 };

/// The JSON examples, written as protobuf.
pub fn client_messages() -> Vec<Vec<u8>> {
    golden("→").iter().map(|text| proto::encode_client(&json::decode_client(text).expect("an example")).to_vec()).collect()
}

fn server_messages() -> Vec<Vec<u8>> {
    golden("←").iter().map(|text| proto::encode_server(&json::decode_server(text).expect("an example").expect("a known one")).to_vec()).collect()
}

/// What must hold of what was read: `again` is the reader of the same form in JSON.
pub fn client(read: Result<ClientFrame, FrameError>, again: fn(&str) -> Result<ClientFrame, FrameError>) -> Verdict {
    let frame = match read {
        Ok(frame) => frame,
        Err(why) => return refused(&why.error),
    };
    let meant = said(&frame);
    let text = json::encode_client(&frame);
    let read = again(&text).map_err(|why| format!("written as JSON it is refused: {why} {text}"))?;
    same("through JSON", &meant, &said(&read))?;
    let bytes = proto::encode_client(&frame);
    let again = proto::decode_client(&bytes).map_err(|why| format!("written as protobuf it is refused: {why} {}", bytes.escape_ascii()))?;
    same("through protobuf", &meant, &said(&again))?;
    taken(variant(&meant))
}

fn client_json(input: &[u8], gauge: &mut Gauge) -> Verdict {
    let read = gauge.decode(|| json::decode_client(input));
    // On the URL of one subscription the same text says the same, or lacks a `sub` it must not have.
    let single = gauge.decode(|| json::decode_client_single(input));
    if let Err(why) = &single {
        refused(&why.error)?;
    }
    client(read, |text| json::decode_client(text))
}

fn client_proto(input: &[u8], gauge: &mut Gauge) -> Verdict {
    client(gauge.decode(|| proto::decode_client(input)), |text| json::decode_client(text))
}

/// What our own client reads. A broken frame ends its connection with a sentence.
fn server(read: Result<Option<tidelog::wire::frame::ServerFrame>, FrameError>, exact: bool) -> Verdict {
    let frame = match read {
        Ok(Some(frame)) => frame,
        Ok(None) => return taken("unknown"),
        Err(why) => return told(&why.error.message),
    };
    let meant = heard(&frame);
    let bytes = proto::encode_server(&frame);
    let again = proto::decode_server(&bytes).map_err(|why| format!("written as protobuf it is refused: {why}"))?;
    same("through protobuf", &meant, &heard(&again.ok_or("written as protobuf it is unknown")?))?;
    if exact {
        let text = json::encode_server(&frame);
        let again = json::decode_server(&text).map_err(|why| format!("written as JSON it is refused: {why} {text}"))?;
        same("through JSON", &meant, &heard(&again.ok_or("written as JSON it is unknown")?))?;
    }
    taken(variant(&format!("{frame:?}")))
}

fn server_json(input: &[u8], gauge: &mut Gauge) -> Verdict {
    let read = gauge.decode(|| json::decode_server(input));
    // Seconds have three decimals on the way out, and may have had more on the way in.
    let exact = !input.windows(9).any(|w| w == b"\"seconds\"");
    server(read, exact)
}

fn server_proto(input: &[u8], gauge: &mut Gauge) -> Verdict {
    // Protobuf can say what JSON cannot: times out of range, events of the future. It reads back in its own form.
    server(gauge.decode(|| proto::decode_server(input)), false)
}

/// The same meaning in both forms, right or wrong, has the same fate: the same value, or the same code about the same field.
fn two_forms(input: &[u8], gauge: &mut Gauge) -> Verdict {
    let Some(bytes) = serde_json::from_slice(input).ok().and_then(|value| as_message(&value)) else { return taken("untranslatable") };
    agree(gauge.decode(|| json::decode_client(input)), proto::decode_client(&bytes))
}

/// The verdict about the same frame in JSON and in protobuf. A name that stands twice is seen by JSON alone: it was lost in translation.
pub fn agree(text: Result<ClientFrame, FrameError>, binary: Result<ClientFrame, FrameError>) -> Verdict {
    match (text, binary) {
        (Err(why), _) if why.error.message.ends_with("given twice.") => taken("untranslatable"),
        (Ok(one), Ok(other)) => same("the two forms", &said(&one), &said(&other)).and_then(|()| taken(variant(&said(&one)))),
        (Err(one), Err(other)) => {
            let key = |why: &FrameError| format!("{} {:?} {:?} {:?}", why.error.code, why.error.details.get("field"), why.about, why.append);
            // Several wrong things in one frame may be found in another order.
            if one.error.code != other.error.code {
                return Err(format!("JSON says {} ({one}), protobuf {} ({other})", key(&one), key(&other)));
            }
            refused(&one.error)
        }
        (Ok(_), Err(why)) => Err(format!("only protobuf refuses it: {why}")),
        (Err(why), Ok(_)) => Err(format!("only JSON refuses it: {why}")),
    }
}

/// The protobuf form of JSON whose members have the right types, whatever they say; `None` for all else.
pub fn as_message(value: &Value) -> Option<Vec<u8>> {
    use v1::client_frame::Frame;
    let o = value.as_object()?;
    let known: &[&str] = match o.get("t")?.as_str()? {
        "ack" => &["t", "sub", "offset"],
        "credit" => &["t", "sub", "events", "bytes"],
        "unsubscribe" => &["t", "sub"],
        "resume" => &["t", "req", "stream", "producer", "seq"],
        "open_producer" => &["t", "req", "stream", "producer", "stream_id", "expect"],
        "subscribe" => &["t", "sub", "stream", "subscription", "create", "rewind", "log_epoch", "stream_id"],
        "auth" => &["t", "key", "ticket"],
        _ => return None,
    };
    if o.iter().any(|(name, value)| !known.contains(&name.as_str()) || value.is_null()) {
        return None;
    }
    let text = |name: &str| o.get(name).map(|v| v.as_str().map(str::to_owned));
    let number = |name: &str| o.get(name).map(Value::as_u64);
    let flag = |name: &str| o.get(name).map_or(Some(false), Value::as_bool);
    // There and of the right type, or not there where that is allowed.
    let need = |name: &str| number(name)?;
    let frame = match o.get("t")?.as_str()? {
        "ack" => Frame::Ack(v1::Ack { sub: need("sub")?, offset: need("offset")?, level: 0 }),
        "credit" => {
            Frame::Credit(v1::AddCredit { sub: need("sub")?, events: number("events").unwrap_or(Some(0))?, bytes: number("bytes").unwrap_or(Some(0))? })
        }
        "unsubscribe" => Frame::Unsubscribe(v1::Unsubscribe { sub: need("sub")? }),
        "resume" => Frame::Resume(v1::Resume {
            req: need("req")?,
            stream: text("stream")??,
            producer: text("producer").map_or(Some(None), |t| t.map(Some))?,
            seq: number("seq").map_or(Some(None), |n| n.map(Some))?,
        }),
        "open_producer" => Frame::OpenProducer(v1::OpenProducer {
            req: need("req")?,
            stream: text("stream").map_or(Some(None), |t| t.map(Some))?,
            stream_id: number("stream_id").map_or(Some(None), |n| n.map(Some))?,
            producer: text("producer")??,
            expect: match text("expect").unwrap_or(Some("any".to_owned()))?.as_str() {
                "any" => 0,
                "create" => 1,
                "resume" => 2,
                _ => 77,
            },
        }),
        "subscribe" => Frame::Subscribe(v1::Subscribe {
            sub: need("sub")?,
            stream: text("stream")??,
            subscription: text("subscription").map_or(Some(None), |t| t.map(Some))?,
            create: flag("create")?,
            rewind: flag("rewind")?,
            log_epoch: number("log_epoch").map_or(Some(None), |n| n.map(Some))?,
            stream_id: number("stream_id").map_or(Some(None), |n| n.map(Some))?,
            ..v1::Subscribe::default()
        }),
        "auth" => Frame::Auth(v1::Auth { key: text("key").map_or(Some(None), |t| t.map(Some))?, ticket: text("ticket").map_or(Some(None), |t| t.map(Some))? }),
        _ => return None,
    };
    Some(v1::ClientFrame { frame: Some(frame) }.encode_to_vec())
}
