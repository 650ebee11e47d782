//! A way to talk to the broker, as the steps a client can do. One adapter per way; each says in one list what it cannot do.

use std::net::SocketAddr;
use std::path::PathBuf;

use async_trait::async_trait;
use serde_json::Value;

use super::client::RustClient;
use super::grpc::Calls;
use super::rest::Rest;
use super::socket::{Socket, WebSocket};
use super::sse::Sse;
use super::values::{Acked, Append, Commit, Committed, Delivery, Event, Opened, Refusal, Stored, StreamSeen, Subscribe, Subscribed, SubscriptionSeen};
use super::{ws_json::JsonText, ws_proto::Protobuf};
use crate::grpc_client::Connected;

/// What a step answers.
pub type Answer<T> = Result<T, Refusal>;

/// A step that some carrier lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Streams, subscriptions, cursors, operations.
    Administer,
    /// One event by its place.
    ReadOne,
    /// Raw line ends inside JSON data, as they were sent.
    ReadLineEnds,
    /// A producer of a stream, or of commits.
    OpenProducer,
    OpenCommitProducer,
    /// Append as any producer at any epoch and sequence.
    AppendStamped,
    /// Append to the stream of this id, not of this name.
    AppendToId,
    /// Append the next events of a producer that this carrier opened.
    Send,
    /// Appends on one ordered connection without waiting for answers, and `resume`.
    Pipeline,
    /// Appends that stand alone: a refused one does not poison those after it.
    Unary,
    /// Attach a durable reader, hear, acknowledge progress.
    Subscribe,
    /// The same without a subscription: an ephemeral session.
    Follow,
    /// Move the cursor back inside the opening.
    Rewind,
    /// Let a session go, so that it is detached at once.
    Leave,
    /// Hear at once that a session has ended, and by which rule.
    HearTheEnd,
    /// Acknowledge any offset at all and hear the whole answer.
    AckAnything,
    /// Ask for an ack although the reader has no subscription to name.
    AckNothing,
    Credit,
    /// Open with more credit than the subscription's own window.
    Widen,
    /// Open with less.
    Narrow,
    Commit,
}

/// Where the broker is.
#[derive(Clone, Debug)]
pub struct Address {
    pub tcp: SocketAddr,
    pub unix: PathBuf,
}

/// The adapters and the doors they use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    WsJson,
    WsProto,
    Rest,
    Client,
    WsJsonOverUnix,
    RestOverHttp2,
    RestOverUnix,
    ClientInJsonOverUnix,
    Sse,
    SseOverHttp2,
    GrpcConnect,
    GrpcCalls,
    GrpcCallsOverUnix,
}

impl Kind {
    pub const ALL: [Self; 13] = [
        Self::WsJson,
        Self::WsProto,
        Self::Rest,
        Self::Client,
        Self::Sse,
        Self::GrpcConnect,
        Self::GrpcCalls,
        Self::WsJsonOverUnix,
        Self::RestOverHttp2,
        Self::RestOverUnix,
        Self::ClientInJsonOverUnix,
        Self::SseOverHttp2,
        Self::GrpcCallsOverUnix,
    ];

    /// The list: what this carrier cannot do.
    pub fn cannot(self) -> &'static [Step] {
        use Step::{
            AckAnything, AckNothing, Administer, AppendStamped, AppendToId, Credit, Follow, HearTheEnd, Leave, Narrow, OpenCommitProducer, Pipeline,
            ReadLineEnds, ReadOne, Rewind, Unary, Widen,
        };
        match self {
            // Frames are the data plane; its appends share a session.
            Self::WsJson | Self::WsProto | Self::WsJsonOverUnix | Self::GrpcConnect => &[Administer, ReadOne, Unary],
            // It has no connection: reads without a subscription keep nothing between two calls, a cursor is moved back by `PUT …/cursor`,
            // the window is the subscription's, a session ends by time, and a pull finds its epoch fenced whoever did it.
            Self::Rest | Self::RestOverHttp2 | Self::RestOverUnix => &[Pipeline, Credit, Widen, Follow, Rewind, Leave, HearTheEnd, AckNothing],
            // Its events are lines. A reader only listens: its window is the subscription's, and it leaves by hanging up. All else is REST.
            Self::Sse | Self::SseOverHttp2 => &[ReadLineEnds, Pipeline, Credit, Widen, Narrow, Leave, AckNothing],
            // An ack names its subscription, and a call has no order with others.
            Self::GrpcCalls | Self::GrpcCallsOverUnix => &[ReadOne, Pipeline, AckNothing, Credit],
            // It numbers, pipelines, resumes, grants and acknowledges by itself, and sends stream ids where it knows them.
            Self::Client | Self::ClientInJsonOverUnix => &[ReadOne, OpenCommitProducer, AppendStamped, AppendToId, Pipeline, AckAnything, Credit],
        }
    }

    pub fn can(self, steps: &[Step]) -> bool {
        steps.iter().all(|step| !self.cannot().contains(step))
    }

    /// Connects when it is first used.
    pub fn open(self, at: &Address) -> Box<dyn Carrier> {
        match self {
            Self::WsJson => Box::new(Socket::<WebSocket<JsonText>>::tcp(at.tcp)),
            Self::WsProto => Box::new(Socket::<WebSocket<Protobuf>>::tcp(at.tcp)),
            Self::WsJsonOverUnix => Box::new(Socket::<WebSocket<JsonText>>::unix(&at.unix)),
            Self::GrpcConnect => Box::new(Socket::<Connected>::tcp(at.tcp)),
            Self::GrpcCalls => Box::new(Calls::tcp(at.tcp)),
            Self::GrpcCallsOverUnix => Box::new(Calls::unix(at.unix.clone())),
            Self::Rest => Box::new(Rest::http1(at.tcp)),
            Self::RestOverHttp2 => Box::new(Rest::http2(at.tcp)),
            Self::RestOverUnix => Box::new(Rest::unix(&at.unix)),
            Self::Client => Box::new(RustClient::binary(at.tcp)),
            Self::Sse => Box::new(Sse::http1(at.tcp)),
            Self::SseOverHttp2 => Box::new(Sse::http2(at.tcp)),
            Self::ClientInJsonOverUnix => Box::new(RustClient::json_over_unix(&at.unix)),
        }
    }
}

/// A reader attached through a carrier, by the number the carrier gave it.
pub type ReaderNumber = u64;

/// See the module. A step that a carrier's list names is never asked of it.
#[async_trait]
pub trait Carrier: Send {
    async fn append(&mut self, append: &Append) -> Answer<Stored>;

    /// Events from `from` (which is kept) up to `limit` or the end.
    async fn read(&mut self, stream: &str, from: u64, limit: u64) -> Answer<Vec<Event>>;

    /// All at once on one ordered connection; the answers in order.
    async fn append_all(&mut self, _appends: &[Append]) -> Vec<Answer<Stored>> {
        unreachable!("not listed")
    }

    async fn resume(&mut self, _stream: &str, _producer: Option<&str>, _seq: Option<u64>) -> Answer<()> {
        unreachable!("not listed")
    }

    async fn open_producer(&mut self, _stream: Option<&str>, _id: &str, _expect: &str) -> Answer<Opened> {
        unreachable!("not listed")
    }

    /// Only asked of carriers that cannot [`Step::AppendStamped`].
    async fn send(&mut self, _append: &Append) -> Answer<Stored> {
        unreachable!("carriers with stamps append")
    }

    async fn subscribe(&mut self, _ask: &Subscribe) -> Answer<(ReaderNumber, Subscribed)> {
        unreachable!("not listed")
    }

    async fn next(&mut self, _reader: ReaderNumber) -> Delivery {
        unreachable!("not listed")
    }

    async fn ack(&mut self, _reader: ReaderNumber, _offset: u64) -> Answer<Acked> {
        unreachable!("not listed")
    }

    async fn credit(&mut self, _reader: ReaderNumber, _events: u64) {
        unreachable!("not listed")
    }

    /// Nothing was waiting for this reader: another question is answered first.
    async fn is_quiet(&mut self, _reader: ReaderNumber) -> bool {
        unreachable!("not listed")
    }

    async fn unsubscribe(&mut self, _reader: ReaderNumber) -> Answer<()> {
        unreachable!("not listed")
    }

    async fn commit(&mut self, _commit: &Commit) -> Answer<Committed> {
        unreachable!("not listed")
    }

    async fn read_one(&mut self, _stream: &str, _which: &str) -> Answer<Event> {
        unreachable!("not listed")
    }

    async fn create_stream(&mut self, _name: &str, _fields: Value) -> Answer<StreamSeen> {
        unreachable!("not listed")
    }

    async fn describe(&mut self, _stream: &str) -> Answer<StreamSeen> {
        unreachable!("not listed")
    }

    async fn trim(&mut self, _stream: &str, _before: u64) -> Answer<StreamSeen> {
        unreachable!("not listed")
    }

    async fn close_stream(&mut self, _stream: &str) -> Answer<StreamSeen> {
        unreachable!("not listed")
    }

    /// Waits until the deletion is done; its final status.
    async fn delete_stream(&mut self, _stream: &str) -> Answer<String> {
        unreachable!("not listed")
    }

    async fn create_subscription(&mut self, _stream: &str, _name: &str, _fields: Value) -> Answer<SubscriptionSeen> {
        unreachable!("not listed")
    }

    async fn describe_subscription(&mut self, _stream: &str, _name: &str) -> Answer<SubscriptionSeen> {
        unreachable!("not listed")
    }

    async fn delete_subscription(&mut self, _stream: &str, _name: &str) -> Answer<()> {
        unreachable!("not listed")
    }

    async fn seek(&mut self, _stream: &str, _name: &str, _to: Value) -> Answer<SubscriptionSeen> {
        unreachable!("not listed")
    }
}
