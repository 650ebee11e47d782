//! gRPC as any generated client speaks it, twice: `Connect` with the frames of a WebSocket, and the calls with one answer beside
//! `Subscribe` and `Read`.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use prost::Message as _;
use serde_json::Value;
use tidelog::wire::proto::v1;
use tonic::{Status, Streaming};

use super::carrier::{Answer, Carrier, ReaderNumber};
use super::socket::{Door, Hear, Line, Say};
use super::values::{Acked, Append, Commit, Committed, Delivery, Event, Opened, Refusal, Stored, StreamSeen, Subscribe, Subscribed, SubscriptionSeen};
use super::ws_proto::{self, Protobuf};
use crate::grpc_client::{Connected, Grpc, error, next};
use crate::support::PATIENCE;

/// `Connect`.
#[async_trait]
impl Line for Connected {
    async fn open(door: &Door) -> Self {
        let mut grpc = match door {
            Door::Tcp(at) => Grpc::tcp(*at).await,
            Door::Unix(path) => Grpc::unix(path).await,
        };
        grpc.connect().await.greeted().await
    }

    async fn say(&mut self, say: Say<'_>) {
        self.bytes(Protobuf::frame(&say));
    }

    async fn hear(&mut self) -> Hear {
        Protobuf::heard(next(&mut self.heard).await.expect("no status yet").expect("no end yet"))
    }
}

/// The other calls.
pub struct Calls {
    door: Door,
    grpc: Option<Grpc>,
    readers: BTreeMap<ReaderNumber, Reader>,
    number: u64,
}

struct Reader {
    stream: String,
    subscription: Option<String>,
    epoch: Option<u64>,
    level: v1::AckLevel,
    frames: Streaming<Bytes>,
    waiting: VecDeque<Delivery>,
}

impl Reader {
    async fn hear(&mut self) {
        let deliveries = match next(&mut self.frames).await {
            Ok(Some(bytes)) => match Protobuf::heard(bytes) {
                Hear::Delivered(_, deliveries) => deliveries,
                other => panic!("nobody waits for {other:?}"),
            },
            Ok(None) => panic!("a reader ends with a status"),
            Err(status) => vec![Delivery::End(refusal(status))],
        };
        self.waiting.extend(deliveries);
    }
}

fn refusal(status: Status) -> Refusal {
    ws_proto::refusal(&error(&status))
}

macro_rules! ask {
    ($self:ident, $path:literal, $question:expr) => {{
        let question = $question;
        $self.grpc().await.unary($path, &question).await.map_err(refusal)
    }};
}

impl Calls {
    pub fn tcp(at: SocketAddr) -> Self {
        Self::through(Door::Tcp(at))
    }

    pub fn unix(path: PathBuf) -> Self {
        Self::through(Door::Unix(path))
    }

    fn through(door: Door) -> Self {
        Self { door, grpc: None, readers: BTreeMap::new(), number: 0 }
    }

    async fn grpc(&mut self) -> &mut Grpc {
        if self.grpc.is_none() {
            self.grpc = Some(match &self.door {
                Door::Tcp(at) => Grpc::tcp(*at).await,
                Door::Unix(path) => Grpc::unix(path).await,
            });
        }
        self.grpc.as_mut().expect("it was opened")
    }
}

fn stream_seen(s: v1::Stream) -> StreamSeen {
    assert!(!s.uuid.is_empty() && s.owner == 1 && s.durability == "fsync" && s.created_us > 0, "{s:?}");
    assert!(matches!((s.status.as_str(), s.status_code), ("Ready", 113) | ("Stopping", 107)), "{s:?}");
    StreamSeen { id: s.id, status: s.status, closed: s.closed, first_offset: s.first_offset, next_offset: s.next_offset, bytes: s.bytes }
}

fn subscription_seen(s: v1::Subscription) -> SubscriptionSeen {
    assert!(s.id > 0 && s.created_us > 0 && s.max_in_flight > 0, "{s:?}");
    let lag = s.lag.expect("a lag");
    SubscriptionSeen { next: s.next, epoch: s.epoch, lag_events: lag.events, lag_bytes: lag.bytes, status: s.status }
}

fn start(place: &Value) -> v1::Start {
    use v1::start::Start as At;
    let start = match place {
        Value::Number(n) => At::Offset(n.as_u64().expect("an offset")),
        Value::String(word) if word == "earliest" => At::Place(v1::Place::Earliest.into()),
        Value::String(word) if word == "latest" => At::Place(v1::Place::Latest.into()),
        Value::String(time) => At::TimeUs(tidelog::types::TimeUs::parse(time).expect("a time").0),
        other => panic!("no place: {other}"),
    };
    v1::Start { start: Some(start) }
}

/// Fields of a REST body as those of a message. What is not listed has no field there.
fn numbers<'a, const N: usize>(fields: &'a Value, known: [&str; N], others: &[&str]) -> [Option<&'a Value>; N] {
    let object = fields.as_object().expect("fields");
    assert!(object.keys().all(|name| known.contains(&name.as_str()) || others.contains(&name.as_str())), "{fields}");
    known.map(|name| object.get(name))
}

#[async_trait]
impl Carrier for Calls {
    async fn append(&mut self, append: &Append) -> Answer<Stored> {
        let stored: v1::Appended = ask!(self, "/tidelog.v1.Broker/Append", ws_proto::append(7, append))?;
        assert_eq!(stored.req, 7, "req is echoed");
        Ok(ws_proto::stored(stored))
    }

    async fn read(&mut self, stream: &str, from: u64, limit: u64) -> Answer<Vec<Event>> {
        let from = v1::read_request::Position::From(start(&from.into()));
        let ask = v1::ReadRequest { stream: stream.to_owned(), position: Some(from), limit: Some(limit), follow: false };
        let mut pages = self.grpc().await.read(&ask).await.map_err(refusal)?;
        let mut events = Vec::new();
        while let Some(bytes) = next(&mut pages).await.map_err(refusal)? {
            let page = v1::ReadResponse::decode(bytes).expect("a page");
            events.extend(page.batches.into_iter().flat_map(ws_proto::events).map(|delivery| match delivery {
                Delivery::Event(event) => event,
                other => panic!("not an event: {other}"),
            }));
            assert!(page.first_offset <= page.next && page.next <= page.next_offset);
            assert!(events.last().is_none_or(|last: &Event| last.offset + 1 == page.next));
        }
        Ok(events)
    }

    async fn open_producer(&mut self, stream: Option<&str>, id: &str, expect: &str) -> Answer<Opened> {
        let ask =
            v1::OpenProducer { req: 0, stream: stream.map(str::to_owned), stream_id: None, producer: id.to_owned(), expect: ws_proto::expect(expect).into() };
        ask!(self, "/tidelog.v1.Broker/OpenProducer", ask).map(ws_proto::opened)
    }

    async fn commit(&mut self, commit: &Commit) -> Answer<Committed> {
        ask!(self, "/tidelog.v1.Broker/Commit", ws_proto::commit(0, commit)).map(ws_proto::committed)
    }

    async fn subscribe(&mut self, ask: &Subscribe) -> Answer<(ReaderNumber, Subscribed)> {
        self.number += 1;
        let number = self.number;
        let mut frames = self.grpc().await.subscribe(&ws_proto::subscribe(number, ask)).await.map_err(refusal)?;
        let first = next(&mut frames).await.expect("no status yet").expect("no end yet");
        let Hear::Subscribed(sub, subscribed) = Protobuf::heard(first) else { panic!("the first frame is subscribed") };
        assert_eq!(sub, number, "sub is echoed");
        let level = if ask.received { v1::AckLevel::Received } else { v1::AckLevel::Durable };
        let (stream, subscription, epoch) = (ask.stream.clone(), ask.subscription.clone(), subscribed.epoch);
        self.readers.insert(number, Reader { stream, subscription, epoch, level, frames, waiting: VecDeque::new() });
        Ok((number, subscribed))
    }

    async fn next(&mut self, reader: ReaderNumber) -> Delivery {
        let reader = self.readers.get_mut(&reader).expect("a reader");
        while reader.waiting.is_empty() {
            reader.hear().await;
        }
        reader.waiting.pop_front().expect("it was heard")
    }

    async fn ack(&mut self, reader: ReaderNumber, offset: u64) -> Answer<Acked> {
        let reader = &self.readers[&reader];
        let ask = v1::AckRequest {
            stream: reader.stream.clone(),
            subscription: reader.subscription.clone().expect("only readers with a subscription are asked"),
            epoch: reader.epoch,
            ack_token: None,
            offset: Some(offset),
            level: reader.level.into(),
        };
        let acked: v1::Acked = ask!(self, "/tidelog.v1.Broker/Ack", ask)?;
        Ok(ws_proto::acked(&acked))
    }

    async fn is_quiet(&mut self, reader: ReaderNumber) -> bool {
        // Another call goes there and back on the same connection.
        let _: Answer<v1::ListStreamsResponse> = ask!(self, "/tidelog.v1.Admin/ListStreams", v1::ListStreamsRequest::default());
        let reader = self.readers.get_mut(&reader).expect("a reader");
        let now = std::future::poll_fn(|cx| std::task::Poll::Ready(futures_util::Stream::poll_next(std::pin::Pin::new(&mut reader.frames), cx))).await;
        now.is_pending() && reader.waiting.is_empty()
    }

    async fn unsubscribe(&mut self, reader: ReaderNumber) -> Answer<()> {
        let Reader { stream, subscription, epoch, frames, .. } = self.readers.remove(&reader).expect("a reader");
        drop(frames);
        // Cancelling has no answer: the subscription tells when it is done.
        let Some(name) = subscription else { return Ok(()) };
        let detached = async {
            loop {
                let ask = v1::GetSubscriptionRequest { stream: stream.clone(), name: name.clone() };
                let seen: Answer<v1::Subscription> = ask!(self, "/tidelog.v1.Admin/GetSubscription", ask);
                if !seen.is_ok_and(|seen| seen.status == "Running" && Some(seen.epoch) == epoch) {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, detached).await.expect("it detaches in time");
        Ok(())
    }

    async fn create_stream(&mut self, name: &str, fields: Value) -> Answer<StreamSeen> {
        let [event_max_bytes] = numbers(&fields, ["event_max_bytes"], &[]);
        let event_max_bytes = event_max_bytes.map(|n| n.as_u64().expect("a number"));
        let ask = v1::CreateStreamRequest { name: name.to_owned(), event_max_bytes, ..Default::default() };
        ask!(self, "/tidelog.v1.Admin/CreateStream", ask).map(stream_seen)
    }

    async fn describe(&mut self, stream: &str) -> Answer<StreamSeen> {
        ask!(self, "/tidelog.v1.Admin/GetStream", v1::GetStreamRequest { name: stream.to_owned() }).map(stream_seen)
    }

    async fn trim(&mut self, stream: &str, before: u64) -> Answer<StreamSeen> {
        let before = Some(v1::trim_stream_request::Before::BeforeOffset(before));
        ask!(self, "/tidelog.v1.Admin/TrimStream", v1::TrimStreamRequest { name: stream.to_owned(), before }).map(stream_seen)
    }

    async fn close_stream(&mut self, stream: &str) -> Answer<StreamSeen> {
        ask!(self, "/tidelog.v1.Admin/CloseStream", v1::CloseStreamRequest { name: stream.to_owned() }).map(stream_seen)
    }

    async fn delete_stream(&mut self, stream: &str) -> Answer<String> {
        let begun: v1::Operation = ask!(self, "/tidelog.v1.Admin/DeleteStream", v1::DeleteStreamRequest { name: stream.to_owned() })?;
        assert_eq!((begun.command.as_str(), begun.stream.as_str()), ("stream.Delete", stream));
        let ask = v1::WaitOperationRequest { id: begun.id, timeout_s: Some(20) };
        ask!(self, "/tidelog.v1.Admin/WaitOperation", ask).map(|operation: v1::Operation| operation.status)
    }

    async fn create_subscription(&mut self, stream: &str, name: &str, fields: Value) -> Answer<SubscriptionSeen> {
        let [begin, ack_timeout_s, max_in_flight, expires_s] = numbers(&fields, ["start", "ack_timeout_s", "max_in_flight", "expires_s"], &[]);
        let number = |n: Option<&Value>| n.map(|n| n.as_u64().expect("a number"));
        let ask = v1::CreateSubscriptionRequest {
            stream: stream.to_owned(),
            name: name.to_owned(),
            start: begin.map(start),
            ack_timeout_s: number(ack_timeout_s),
            max_in_flight: number(max_in_flight),
            expires_s: number(expires_s),
            filter: None,
        };
        ask!(self, "/tidelog.v1.Admin/CreateSubscription", ask).map(subscription_seen)
    }

    async fn describe_subscription(&mut self, stream: &str, name: &str) -> Answer<SubscriptionSeen> {
        let ask = v1::GetSubscriptionRequest { stream: stream.to_owned(), name: name.to_owned() };
        ask!(self, "/tidelog.v1.Admin/GetSubscription", ask).map(subscription_seen)
    }

    async fn delete_subscription(&mut self, stream: &str, name: &str) -> Answer<()> {
        let ask = v1::DeleteSubscriptionRequest { stream: stream.to_owned(), name: name.to_owned() };
        ask!(self, "/tidelog.v1.Admin/DeleteSubscription", ask).map(|_: v1::DeleteSubscriptionResponse| ())
    }

    async fn seek(&mut self, stream: &str, name: &str, to: Value) -> Answer<SubscriptionSeen> {
        let place = match numbers(&to, ["next", "time", "earliest", "latest"], &[]) {
            [Some(next), None, None, None] => start(next),
            [None, Some(time), None, None] => start(time),
            [None, None, Some(_), None] => start(&"earliest".into()),
            [None, None, None, Some(_)] => start(&"latest".into()),
            _ => panic!("no one place: {to}"),
        };
        let ask = v1::SeekSubscriptionRequest { stream: stream.to_owned(), name: name.to_owned(), to: Some(place) };
        ask!(self, "/tidelog.v1.Admin/SeekSubscription", ask).map(subscription_seen)
    }
}
