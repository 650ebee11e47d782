//! One question over REST, over a WebSocket, or over gRPC, and what was heard.

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tonic::{Request, Status};

use crate::grpc_client::{self, Grpc};
use crate::people::{Door, Person};
use crate::support::PATIENCE;

/// Sent with everything, so that answers that should be the same are the same.
pub const REQUEST_ID: &str = "matrix";

/// What came back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heard {
    /// Of a refusal.
    pub code: Option<String>,
    pub required: Option<String>,
    pub effective: Option<String>,
    /// All of it.
    pub text: String,
}

impl Heard {
    fn good(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    fn refused(code: &str, details: &Value, text: String) -> Self {
        let detail = |name: &str| details[name].as_str().map(str::to_owned);
        Self { code: Some(code.to_owned()), required: detail("required"), effective: detail("effective"), text }
    }

    /// A frame, or an event of an event stream.
    fn of_frame(frame: &Value) -> Self {
        match frame["t"].as_str() {
            Some("error") => Self::refused_frame(frame),
            _ => Self::good(frame.to_string()),
        }
    }

    pub fn refused_frame(frame: &Value) -> Self {
        Self::refused(frame["code"].as_str().expect("a code"), &frame["details"], frame.to_string())
    }

    fn of_status(status: &Status) -> Self {
        let error = grpc_client::error(status);
        let details = serde_json::from_str(&error.details).unwrap_or(Value::Null);
        Self::refused(&error.code, &details, format!("{:?} {error:?}", status.code()))
    }
}

pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Person {
    pub async fn knock(&self) -> Box<dyn Io> {
        match &self.door {
            Door::Tcp(at) => Box::new(TcpStream::connect(at).await.expect("the port is open")),
            Door::Unix(path) => Box::new(UnixStream::connect(path).await.expect("the socket is there")),
        }
    }

    /// A request on a connection of its own. Of an event stream only the beginning is heard.
    pub async fn rest(&self, method: &str, path: &str, accept: Option<&str>, body: &str) -> Heard {
        let (answer, _) = self.begin(method, path, accept, body).await;
        answer
    }

    /// The same, with the connection behind an event stream that goes on.
    pub async fn begin(&self, method: &str, path: &str, accept: Option<&str>, body: &str) -> (Heard, Box<dyn Io>) {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Request-Id: {REQUEST_ID}\r\n");
        if let Some(token) = &self.token {
            request.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        if let Some(accept) = accept {
            request.push_str(&format!("Accept: {accept}\r\n"));
        }
        if !body.is_empty() {
            request.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
        }
        let mut io = self.knock().await;
        // A refusal may come before the body is read.
        let _ = io.write_all(format!("{request}\r\n{body}").as_bytes()).await;
        let mut all = Vec::new();
        let end = loop {
            if let Some(end) = all.windows(4).position(|w| w == b"\r\n\r\n") {
                break end;
            }
            let read = timeout(PATIENCE, io.read_buf(&mut all)).await.expect("an answer in time");
            assert!(matches!(read, Ok(n) if n > 0), "no answer to {method} {path}: {read:?}");
        };
        let head = String::from_utf8_lossy(&all[..end]).to_ascii_lowercase();
        if head.contains("content-type: text/event-stream") {
            return (Heard::good(head), io);
        }
        let _ = timeout(PATIENCE, io.read_to_end(&mut all)).await.expect("an end in time");
        let text = String::from_utf8_lossy(&all[end + 4..]).into_owned();
        let body: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        let status = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let heard = match (body["type"].as_str(), &status[..1]) {
            (Some("error"), _) => {
                assert_eq!(body["error_code"].to_string(), status, "{head} {text}");
                Heard::refused(body["metadata"]["code"].as_str().expect("a code"), &body["metadata"]["details"], format!("{head}\n{text}"))
            }
            (_, "2") => Heard::good(text),
            _ => panic!("{method} {path}: {head}\n{text}"),
        };
        (heard, io)
    }

    /// A WebSocket that has heard `hello`.
    pub async fn socket(&self, path: &str) -> Line {
        let mut request = format!("ws://localhost{path}").into_client_request().expect("a request");
        request.headers_mut().insert("x-request-id", REQUEST_ID.parse().expect("a header"));
        if let Some(token) = &self.token {
            request.headers_mut().insert("authorization", format!("Bearer {token}").parse().expect("a header"));
        }
        let (ws, _) = tokio_tungstenite::client_async(request, self.knock().await).await.unwrap_or_else(|e| panic!("no upgrade at {path}: {e}"));
        let mut line = Line(ws);
        assert_eq!(line.json().await["t"], "hello");
        line
    }

    pub async fn grpc(&self) -> Grpc {
        match &self.door {
            Door::Tcp(at) => Grpc::tcp(*at).await,
            Door::Unix(path) => Grpc::unix(path).await,
        }
    }

    /// Metadata with the credential.
    pub fn call(&self, message: Vec<u8>) -> Request<Bytes> {
        let mut request = Request::new(message.into());
        *request.metadata_mut() = self.metadata();
        request
    }

    pub fn metadata(&self) -> tonic::metadata::MetadataMap {
        let mut metadata = tonic::metadata::MetadataMap::new();
        metadata.insert("x-request-id", REQUEST_ID.parse().expect("metadata"));
        if let Some(token) = &self.token {
            metadata.insert("authorization", format!("Bearer {token}").parse().expect("metadata"));
        }
        metadata
    }
}

/// A WebSocket that speaks JSON.
pub struct Line(WebSocketStream<Box<dyn Io>>);

impl Line {
    pub async fn json(&mut self) -> Value {
        self.try_json().await.unwrap_or_else(|end| panic!("no frame but {end}"))
    }

    /// The next frame, or the close code.
    pub async fn try_json(&mut self) -> Result<Value, u16> {
        loop {
            match timeout(PATIENCE, self.0.next()).await.expect("a frame in time") {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(text.as_str()).expect("JSON")),
                Some(Ok(Message::Close(Some(frame)))) => return Err(frame.code.into()),
                _ => return Err(0),
            }
        }
    }

    pub async fn say(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.expect("the socket takes it");
    }

    /// To somebody who may have hung up.
    pub async fn try_say(&mut self, text: &str) {
        let _ = self.0.send(Message::text(text)).await;
    }

    pub async fn hear(&mut self) -> Heard {
        Heard::of_frame(&self.json().await)
    }

    /// Says all of these; heard is the first refusal, else the frame that answers the last.
    pub async fn ask(&mut self, said: &[String], last: &str) -> Heard {
        for text in said {
            self.say(text).await;
        }
        loop {
            let frame = self.json().await;
            if frame["t"] == "error" || frame["t"] == last {
                return Heard::of_frame(&frame);
            }
        }
    }
}

/// A gRPC call with one answer, or the first of many.
pub async fn call(grpc: &mut Grpc, person: &Person, path: &'static str, many: bool, message: Vec<u8>) -> Heard {
    let request = person.call(message);
    let heard = if many {
        match grpc.streaming(path, request).await {
            Ok(mut answers) => grpc_client::next(&mut answers).await.map(drop),
            Err(status) => Err(status),
        }
    } else {
        grpc.ask(path, request).await.map(drop)
    };
    heard.map_or_else(|status| Heard::of_status(&status), |()| Heard::good("OK"))
}

/// `Connect`: `hello`, a ping, a pong.
pub async fn connect(grpc: &mut Grpc, person: &Person) -> Heard {
    use prost::Message as _;
    use tidelog::wire::proto::v1::{ClientFrame, Ping, client_frame::Frame};
    let (say, mut heard) = match grpc.both("/tidelog.v1.Broker/Connect", person.metadata()).await {
        Ok(both) => both,
        Err(status) => return Heard::of_status(&status),
    };
    say.send(ClientFrame { frame: Some(Frame::Ping(Ping {})) }.encode_to_vec().into()).expect("the call goes on");
    for _ in 0..2 {
        if let Err(status) = grpc_client::next(&mut heard).await {
            return Heard::of_status(&status);
        }
    }
    Heard::good("hello, pong")
}
