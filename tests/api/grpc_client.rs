//! A gRPC client without manners: the library's dispatcher over one HTTP/2 connection, messages as bytes, nothing tried twice.

use std::net::SocketAddr;
use std::path::Path;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::stream::unfold;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tidelog::wire::proto::v1;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder, Streaming};
use tonic::{Request, Response, Status};

use crate::support::PATIENCE;

/// Messages as they are.
#[derive(Clone, Copy, Default)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// One HTTP/2 connection.
#[derive(Clone)]
pub struct Http2(SendRequest<tonic::body::Body>);

impl tower::Service<http::Request<tonic::body::Body>> for Http2 {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// See the module. Clones share the connection.
#[derive(Clone)]
pub struct Grpc(pub tonic::client::Grpc<Http2>);

impl Grpc {
    pub async fn tcp(at: SocketAddr) -> Self {
        Self::over(TcpStream::connect(at).await.expect("the port is open"), 1 << 20).await
    }

    pub async fn unix(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).await.expect("the socket is there"), 1 << 20).await
    }

    /// `window`: bytes the broker may send before they are read, per call.
    pub async fn over(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, window: u32) -> Self {
        Self::try_over(io, window).await.expect("HTTP/2 is spoken")
    }

    /// The same, where the other side may be gone.
    pub async fn try_over(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, window: u32) -> Result<Self, hyper::Error> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(window).initial_connection_window_size(16 * window);
        let (requests, connection) = builder.handshake(TokioIo::new(io)).await?;
        tokio::spawn(connection);
        let origin = http::Uri::from_static("http://localhost");
        Ok(Self(tonic::client::Grpc::with_origin(Http2(requests), origin).max_decoding_message_size(64 << 20).max_encoding_message_size(64 << 20)))
    }

    /// An error without details if the connection has ended.
    async fn ready(&mut self) -> Result<(), Status> {
        self.0.ready().await.map_err(|error| Status::unavailable(error.to_string()))
    }

    /// A call with one answer, and what came with it.
    pub async fn ask(&mut self, path: &'static str, request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
        self.ready().await?;
        timeout(PATIENCE, self.0.unary(request, http::uri::PathAndQuery::from_static(path), Raw)).await.expect("an answer in time")
    }

    /// The same with messages.
    pub async fn unary<A: Message + Default>(&mut self, path: &'static str, question: &impl Message) -> Result<A, Status> {
        let answer = self.ask(path, Request::new(question.encode_to_vec().into())).await?;
        Ok(A::decode(answer.into_inner()).expect("a good message"))
    }

    /// A call with many answers.
    pub async fn streaming(&mut self, path: &'static str, request: Request<Bytes>) -> Result<Streaming<Bytes>, Status> {
        self.ready().await?;
        let answer = timeout(PATIENCE, self.0.server_streaming(request, http::uri::PathAndQuery::from_static(path), Raw)).await;
        answer.expect("an answer in time").map(Response::into_inner)
    }

    pub async fn subscribe(&mut self, ask: &v1::Subscribe) -> Result<Streaming<Bytes>, Status> {
        self.streaming("/tidelog.v1.Broker/Subscribe", Request::new(ask.encode_to_vec().into())).await
    }

    pub async fn read(&mut self, ask: &v1::ReadRequest) -> Result<Streaming<Bytes>, Status> {
        self.streaming("/tidelog.v1.Broker/Read", Request::new(ask.encode_to_vec().into())).await
    }

    /// Both ways: dropping the sender closes our side.
    pub async fn both(
        &mut self,
        path: &'static str,
        metadata: tonic::metadata::MetadataMap,
    ) -> Result<(mpsc::UnboundedSender<Bytes>, Streaming<Bytes>), Status> {
        self.ready().await?;
        let (say, said) = mpsc::unbounded_channel::<Bytes>();
        let outgoing = unfold(said, |mut said| async move { said.recv().await.map(|next| (next, said)) });
        let request = Request::from_parts(metadata, tonic::Extensions::default(), outgoing);
        let answer = timeout(PATIENCE, self.0.streaming(request, http::uri::PathAndQuery::from_static(path), Raw)).await;
        answer.expect("an answer in time").map(|heard| (say, heard.into_inner()))
    }

    /// As [`Grpc::both`], where `count` times the same message is all that is said.
    pub async fn both_of(&mut self, path: &'static str, count: usize, message: Vec<u8>) -> Result<Streaming<Bytes>, Status> {
        self.ready().await?;
        let outgoing = futures_util::stream::iter(vec![Bytes::from(message); count]);
        let answer = timeout(PATIENCE, self.0.streaming(Request::new(outgoing), http::uri::PathAndQuery::from_static(path), Raw)).await;
        answer.expect("an answer in time").map(Response::into_inner)
    }

    pub async fn connect(&mut self) -> Connected {
        let (say, heard) = self.both("/tidelog.v1.Broker/Connect", Default::default()).await.expect("a call");
        Connected { say: Some(say), heard }
    }
}

/// The next message of a stream; `None` at its good end.
pub async fn next(stream: &mut Streaming<Bytes>) -> Result<Option<Bytes>, Status> {
    timeout(PATIENCE, stream.message()).await.expect("a message in time")
}

/// The next frame of a stream that goes on.
pub async fn frame(stream: &mut Streaming<Bytes>) -> v1::server_frame::Frame {
    let bytes = next(stream).await.expect("no status yet").expect("no end yet");
    v1::ServerFrame::decode(bytes).expect("a frame").frame.expect("a known frame")
}

/// How a stream ends, whatever comes before.
pub async fn end(stream: &mut Streaming<Bytes>) -> Result<(), Status> {
    while next(stream).await?.is_some() {}
    Ok(())
}

/// A `Connect` call.
pub struct Connected {
    pub say: Option<mpsc::UnboundedSender<Bytes>>,
    pub heard: Streaming<Bytes>,
}

impl Connected {
    pub fn say(&self, frame: v1::client_frame::Frame) {
        self.bytes(v1::ClientFrame { frame: Some(frame) }.encode_to_vec());
    }

    pub fn bytes(&self, bytes: impl Into<Bytes>) {
        self.say.as_ref().expect("our side is open").send(bytes.into()).expect("the call goes on");
    }

    pub async fn hear(&mut self) -> v1::server_frame::Frame {
        frame(&mut self.heard).await
    }

    pub async fn greeted(mut self) -> Self {
        assert!(matches!(self.hear().await, v1::server_frame::Frame::Hello(_)), "the first frame is hello");
        self
    }

    /// Our side says no more.
    pub fn close(&mut self) {
        self.say = None;
    }

    /// It still works.
    pub async fn alive(&mut self) {
        self.say(v1::client_frame::Frame::Ping(v1::Ping {}));
        assert!(matches!(self.hear().await, v1::server_frame::Frame::Pong(_)));
    }
}

// What stands in `grpc-status-details-bin`, as its readers see it.

#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ErrorInfo {
    #[prost(string, tag = "1")]
    pub reason: String,
    #[prost(string, tag = "2")]
    pub domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub metadata: std::collections::BTreeMap<String, String>,
}

/// A status of ours, after a look at everything every one has.
#[track_caller]
pub fn error(status: &Status) -> v1::Error {
    let rpc = RpcStatus::decode(status.details()).expect("google.rpc.Status");
    assert_eq!((rpc.code, rpc.message.as_str()), (status.code() as i32, status.message()), "{status:?}");
    let detail = |name: &str| {
        let found = rpc.details.iter().find(|d| d.type_url == format!("type.googleapis.com/{name}"));
        found.unwrap_or_else(|| panic!("no {name} in {status:?}")).value.clone()
    };
    let info = ErrorInfo::decode(&detail("google.rpc.ErrorInfo")[..]).expect("an ErrorInfo");
    let ours = v1::Error::decode(&detail("tidelog.v1.Error")[..]).expect("an error of ours");
    assert_eq!((info.reason.as_str(), info.domain.as_str()), (ours.code.as_str(), "tidelog"));
    let metadata = |name: &str| info.metadata.get(name).map_or("", String::as_str);
    assert_eq!((metadata("rule"), metadata("retry"), metadata("request_id")), (ours.rule.as_str(), ours.retry.as_str(), ours.request_id.as_str()));
    assert_eq!(metadata("applied"), if ours.applied() == v1::Applied::No { "no" } else { "unknown" });
    assert!(!ours.request_id.is_empty() && ours.message == status.message() && ours.message.ends_with('.'), "{ours:?}");
    if ours.retry == "backoff" {
        detail("google.rpc.RetryInfo");
    }
    ours
}

/// The code of a status of ours.
#[track_caller]
pub fn code(status: &Status) -> String {
    error(status).code
}
