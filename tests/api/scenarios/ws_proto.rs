//! Frames as protobuf, through the generated messages and not through our codec: subprotocol `tidelog.v1.proto`, and gRPC.

use prost::Message as _;
use tidelog::wire::proto::v1::{self, client_frame, server_frame, start};
use tokio_tungstenite::tungstenite::Message;

use super::socket::{About, Dialect, Hear, Say};
use super::values::{Acked, Append, Commit, CommitAck, Committed, Delivery, Encoding, Event, From, New, Opened, Refusal, Stamp, Stored, Subscribe, Subscribed};

/// See the module.
pub struct Protobuf;

fn event(new: &New) -> v1::Event {
    let encoding = match new.encoding {
        Encoding::Json => v1::Encoding::Json,
        Encoding::Utf8 => v1::Encoding::Utf8,
        Encoding::Binary => v1::Encoding::Binary,
    };
    v1::Event {
        data: new.data.clone().into(),
        encoding: encoding.into(),
        r#type: new.kind.clone(),
        key: new.key.clone(),
        headers: new.headers.iter().map(|(name, value)| v1::Header { name: name.clone(), value: value.clone() }).collect(),
        removed: 0,
    }
}

fn all(events: &[New]) -> Option<v1::Events> {
    Some(v1::Events { events: events.iter().map(event).collect() })
}

fn stamp(Stamp { id, epoch, seq }: &Stamp) -> v1::ProducerStamp {
    v1::ProducerStamp { id: id.clone(), epoch: *epoch, seq: *seq }
}

pub fn append(req: u64, append: &Append) -> v1::Append {
    v1::Append {
        req,
        stream: append.stream.clone(),
        stream_id: append.stream_id,
        producer: append.stamp.as_ref().map(stamp),
        expected_next_offset: append.expected,
        events: all(&append.events),
    }
}

pub fn commit(req: u64, commit: &Commit) -> v1::Commit {
    let ack = |CommitAck { stream, subscription, epoch, offset }: &CommitAck| v1::CommitAck {
        stream: stream.clone(),
        subscription: subscription.clone(),
        epoch: *epoch,
        offset: *offset,
    };
    v1::Commit {
        req,
        producer: commit.producer.as_ref().map(stamp),
        acks: commit.acks.iter().map(ack).collect(),
        appends: commit
            .appends
            .iter()
            .map(|append| v1::CommitAppend {
                stream: append.stream.clone(),
                stream_id: append.stream_id,
                expected_next_offset: append.expected,
                events: all(&append.events),
            })
            .collect(),
        checks: commit.checks.iter().map(|(stream, at)| v1::CommitCheck { stream: stream.clone(), expected_next_offset: *at }).collect(),
    }
}

pub fn subscribe(sub: u64, ask: &Subscribe) -> v1::Subscribe {
    let from = ask.from.map(|from| v1::Start {
        start: Some(match from {
            From::Offset(offset) => start::Start::Offset(offset),
            From::Earliest => start::Start::Place(v1::Place::Earliest.into()),
            From::Latest => start::Start::Place(v1::Place::Latest.into()),
            From::Time(us) => start::Start::TimeUs(us),
        }),
    });
    let on_gap = match ask.on_gap {
        None => v1::OnGap::Default,
        Some("fail") => v1::OnGap::Fail,
        Some("skip") => v1::OnGap::Skip,
        Some(other) => panic!("on_gap {other}"),
    };
    v1::Subscribe {
        sub,
        stream: ask.stream.clone(),
        subscription: ask.subscription.clone(),
        create: ask.create,
        stream_id: ask.stream_id,
        rewind: ask.rewind,
        from,
        filter: None,
        credit: ask.credit.map(|(events, bytes)| v1::Credit { events, bytes }),
        takeover: if ask.reject { v1::Takeover::Reject } else { v1::Takeover::Steal }.into(),
        on_gap: on_gap.into(),
        log_epoch: ask.log_epoch,
    }
}

pub fn events(batch: v1::EventBatch) -> Vec<Delivery> {
    let v1::EventBatch { base_offset, count, time_us, log_epoch, author_user, author_source, events } = batch;
    assert_eq!(count as usize, events.len(), "count counts the events");
    let one = |(offset, event): (u64, v1::Event)| {
        assert_eq!(event.removed, 0);
        Delivery::Event(Event {
            offset,
            time: time_us,
            log_epoch,
            encoding: match event.encoding() {
                v1::Encoding::Json => Encoding::Json,
                v1::Encoding::Utf8 => Encoding::Utf8,
                v1::Encoding::Binary => Encoding::Binary,
            },
            kind: event.r#type,
            key: event.key,
            headers: event.headers.into_iter().map(|h| (h.name, h.value)).collect(),
            data: event.data.to_vec(),
            author: (author_user, author_source),
        })
    };
    (base_offset..).zip(events).map(one).collect()
}

pub fn stored(a: v1::Appended) -> Stored {
    assert_eq!(a.durability, "fsync");
    Stored { first: a.first_offset, last: a.last_offset, count: a.count.into(), duplicate: a.duplicate }
}

pub fn opened(o: v1::ProducerOpened) -> Opened {
    let v1::ProducerOpened { producer, epoch, last_seq, next_offset, stream_id, log_epoch, origin, .. } = o;
    Opened { producer, epoch, last_seq, next_offset, stream_id, log_epoch, origin }
}

pub fn committed(c: v1::Committed) -> Committed {
    Committed {
        acks: c.acks.into_iter().map(|a| (a.stream, a.subscription, a.offset, a.next)).collect(),
        appends: c.appends.into_iter().map(|a| (a.stream, a.first_offset, a.last_offset, a.count.into())).collect(),
        duplicate: c.duplicate,
    }
}

pub fn acked(a: &v1::Acked) -> Acked {
    assert_eq!(a.offset, a.next.checked_sub(1));
    Acked { next: a.next, stale: a.stale }
}

pub fn refusal(error: &v1::Error) -> Refusal {
    assert!(!error.request_id.is_empty(), "{error:?}");
    let applied = match error.applied() {
        v1::Applied::No => "no",
        v1::Applied::Unknown => "unknown",
    };
    let details = if error.details.is_empty() { serde_json::Map::new() } else { serde_json::from_str(&error.details).expect("details are an object") };
    Refusal::new(&error.code, &error.rule, applied, &error.retry, &error.message, details)
}

fn refused(error: v1::Error) -> Hear {
    let about = match error.about {
        None => About::Connection,
        Some(v1::error::About::Req(req)) => About::Req(req),
        Some(v1::error::About::Sub(sub)) => About::Sub(sub),
    };
    Hear::Refused(about, refusal(&error))
}

pub fn expect(word: &str) -> v1::Expect {
    match word {
        "any" => v1::Expect::Any,
        "create" => v1::Expect::Create,
        "resume" => v1::Expect::Resume,
        other => panic!("expect {other}"),
    }
}

impl Dialect for Protobuf {
    const SUBPROTOCOL: &'static str = "tidelog.v1.proto";

    fn say(say: &Say<'_>) -> Message {
        Message::binary(Self::frame(say))
    }

    fn hear(message: &Message) -> Hear {
        let Message::Binary(bytes) = message else { panic!("not binary: {message:?}") };
        Self::heard(bytes.clone())
    }
}

impl Protobuf {
    /// A `ClientFrame`.
    pub fn frame(say: &Say<'_>) -> Vec<u8> {
        use client_frame::Frame;
        let frame = match say {
            Say::Ping => Frame::Ping(v1::Ping {}),
            Say::Append(req, what) => Frame::Append(append(*req, what)),
            Say::Resume(req, stream, producer, seq) => {
                Frame::Resume(v1::Resume { req: *req, stream: (*stream).to_owned(), producer: producer.map(str::to_owned), seq: *seq })
            }
            Say::OpenProducer(req, stream, id, expect) => Frame::OpenProducer(v1::OpenProducer {
                req: *req,
                stream: stream.map(str::to_owned),
                stream_id: None,
                producer: (*id).to_owned(),
                expect: self::expect(expect).into(),
            }),
            Say::Commit(req, what) => Frame::Commit(commit(*req, what)),
            Say::Subscribe(sub, ask) => Frame::Subscribe(subscribe(*sub, ask)),
            Say::Ack(sub, offset, received) => {
                let level = if *received { v1::AckLevel::Received } else { v1::AckLevel::Durable };
                Frame::Ack(v1::Ack { sub: *sub, offset: *offset, level: level.into() })
            }
            Say::Credit(sub, events) => Frame::Credit(v1::AddCredit { sub: *sub, events: *events, bytes: 0 }),
            Say::Unsubscribe(sub) => Frame::Unsubscribe(v1::Unsubscribe { sub: *sub }),
        };
        v1::ClientFrame { frame: Some(frame) }.encode_to_vec()
    }

    /// A `ServerFrame`.
    pub fn heard(bytes: bytes::Bytes) -> Hear {
        use server_frame::Frame;
        let frame = v1::ServerFrame::decode(bytes).expect("a server frame").frame.expect("a known variant");
        match frame {
            Frame::Hello(_) => Hear::Hello,
            Frame::Pong(_) => Hear::Pong,
            Frame::Appended(a) => Hear::Stored(a.req, stored(a)),
            Frame::Resumed(r) => Hear::Resumed(r.req),
            Frame::ProducerOpened(o) => Hear::Opened(o.req, opened(o)),
            Frame::Committed(c) => Hear::Committed(c.req, committed(c)),
            Frame::Subscribed(s) => {
                let v1::Subscribed { sub, stream, stream_id, epoch, next, first_offset, next_offset, log_epoch } = s;
                Hear::Subscribed(sub, Subscribed { stream, stream_id, epoch, next, first_offset, next_offset, log_epoch })
            }
            Frame::Events(d) => {
                assert!(d.lag.is_some(), "every delivery tells the lag");
                Hear::Delivered(d.sub, d.batches.into_iter().flat_map(events).collect())
            }
            Frame::Live(l) => Hear::Delivered(l.sub, vec![Delivery::Live { next_offset: l.next_offset }]),
            Frame::Progress(p) => panic!("progress without a filter: {p:?}"),
            Frame::Gap(g) => Hear::Delivered(g.sub, vec![Delivery::Gap { from: g.from, to: g.to, reason: g.reason }]),
            Frame::Acked(a) => Hear::Acked(a.sub, acked(&a)),
            Frame::Unsubscribed(u) => Hear::Unsubscribed(u.sub),
            Frame::Error(error) => refused(error),
        }
    }
}
