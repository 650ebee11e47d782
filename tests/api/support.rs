//! A broker in this process, and clients without manners: they send exactly what they are told.

use std::path::Path;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tempfile::TempDir;
use tidelog::server::{Config, Mode, Server, Storage};
use tidelog::wire::frame::{ClientFrame, ServerFrame};
use tidelog::wire::{json, proto};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

/// Nothing here takes this long; a test that waits forever says where.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A broker with memory storage and its directory.
pub struct Broker {
    pub server: Server,
    /// Its data, which goes with it.
    pub dir: TempDir,
}

/// As `tidelog dev`.
pub async fn dev() -> Broker {
    start(Mode::Dev, |_| {}).await
}

/// As `tidelog serve`.
pub async fn serve() -> Broker {
    start(Mode::Serve { trust_loopback: false }, |_| {}).await
}

pub async fn start(mode: Mode, change: impl FnOnce(&mut Config)) -> Broker {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut config = Config::for_tests(mode, dir.path());
    change(&mut config);
    let server = Server::start(config).await.expect("the broker starts");
    Broker { server, dir }
}

/// A broker on this directory's disk, which can be stopped and started again.
pub async fn on_disk(dir: &Path) -> Server {
    let mut config = Config::for_tests(Mode::Serve { trust_loopback: true }, dir);
    config.storage = Storage::Rocks;
    config.raw.storage.cache_bytes = 8 << 20;
    config.raw.storage.write_buffer_bytes = 16 << 20;
    config.raw.storage.ballast_bytes = Some(0);
    config.raw.storage.free_min_bytes = Some(0);
    Server::start(config).await.expect("the broker starts")
}

/// Posts JSON on a connection of its own.
pub async fn post_to(server: &Server, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let tcp = TcpStream::connect(server.address()).await.expect("the port is open");
    exchange(tcp, "POST", path, &[&[("Content-Type", "application/json")], headers].concat(), body.as_bytes()).await
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {self:?}"))
    }

    /// The `metadata` of a success.
    #[track_caller]
    pub fn metadata(&self) -> Value {
        let body = self.json();
        assert_eq!(body["type"], "sync", "{body}");
        assert_eq!(body["status_code"], 200, "{body}");
        body["metadata"].clone()
    }

    /// The `metadata.code` of an error, after a look at everything every error has.
    #[track_caller]
    pub fn code(&self) -> String {
        let body = self.json();
        assert_eq!(body["type"], "error", "{body}");
        let number = body["error_code"].as_u64().unwrap_or_default();
        assert!([400, 401, 403, 404, 409, 412, 500].contains(&number), "{body}");
        assert!(body["error"].as_str().is_some_and(|s| s.ends_with('.') && s.len() > 10), "an error is a sentence: {body}");
        let metadata = &body["metadata"];
        assert!(metadata["applied"].is_string() && metadata["retry"].is_string() && metadata["details"].is_object(), "{body}");
        assert_eq!(metadata["request_id"].as_str(), self.header("x-request-id"), "{body}");
        metadata["code"].as_str().expect("a code").to_owned()
    }
}

impl Broker {
    pub async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.server.address()).await.expect("the port is open")
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"").await
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        self.ask("POST", path, &[("Content-Type", "application/json")], body.as_bytes()).await
    }

    pub async fn put(&self, path: &str, body: &str) -> Answer {
        self.ask("PUT", path, &[("Content-Type", "application/json")], body.as_bytes()).await
    }

    /// One request on a connection of its own. `Host` is added unless given.
    pub async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        exchange(self.tcp().await, method, path, headers, body).await
    }

    /// The same over the Unix socket.
    pub async fn ask_locally(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let stream = UnixStream::connect(self.server.socket()).await.expect("the socket is there");
        exchange(stream, method, path, headers, body).await
    }

    /// A WebSocket speaking JSON.
    pub async fn ws(&self, path: &str) -> Peer<TcpStream> {
        self.ws_as(path, Some("tidelog.v1.json")).await.expect("the upgrade is accepted")
    }

    pub async fn ws_as(&self, path: &str, subprotocol: Option<&str>) -> Result<Peer<TcpStream>, String> {
        Peer::open(self.tcp().await, path, subprotocol).await
    }
}

/// Writes a request and reads one whole answer.
pub async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("host")) {
        request.push_str("Host: localhost\r\n");
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() && !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("content-length")) {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    let mut bytes = request.into_bytes();
    bytes.extend_from_slice(body);
    raw(stream, &bytes).await
}

/// Writes bytes and reads an answer until the other side closes.
pub async fn raw(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> Answer {
    // The broker may answer and close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut all = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("an answer in time");
    assert!(read.is_ok() || !all.is_empty(), "no answer: {read:?}");
    parse(&all)
}

fn parse(all: &[u8]) -> Answer {
    let end = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or_else(|| panic!("no HTTP answer: {:?}", String::from_utf8_lossy(all)));
    let head = std::str::from_utf8(&all[..end]).expect("a head in ASCII");
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|l| l.split(' ').nth(1)).and_then(|s| s.parse().ok()).expect("a status");
    let headers = lines.filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    Answer { status, headers, body: all[end + 4..].to_vec() }
}

/// The other end of a WebSocket.
pub struct Peer<S> {
    pub ws: WebSocketStream<S>,
    binary: bool,
    pub agreed: Option<String>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub async fn open(stream: S, path: &str, subprotocol: Option<&str>) -> Result<Self, String> {
        let mut request = format!("ws://localhost{path}").into_client_request().expect("a request");
        if let Some(subprotocol) = subprotocol {
            request.headers_mut().insert("sec-websocket-protocol", subprotocol.parse().expect("a header"));
        }
        let (ws, response) = tokio_tungstenite::client_async(request, stream).await.map_err(|e| e.to_string())?;
        let agreed = response.headers().get("sec-websocket-protocol").map(|v| v.to_str().expect("ASCII").to_owned());
        Ok(Self { ws, binary: agreed.as_deref() == Some("tidelog.v1.proto"), agreed })
    }

    pub async fn text(&mut self, text: &str) {
        self.ws.send(Message::text(text)).await.expect("the socket takes it");
    }

    pub async fn frame(&mut self, frame: &ClientFrame) {
        let message = if self.binary { Message::binary(proto::encode_client(frame)) } else { Message::text(json::encode_client(frame)) };
        self.ws.send(message).await.expect("the socket takes it");
    }

    /// The next data message.
    pub async fn message(&mut self) -> Message {
        loop {
            match tokio::time::timeout(PATIENCE, self.ws.next()).await.expect("a message in time") {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return message,
                other => panic!("no message: {other:?}"),
            }
        }
    }

    /// The next frame, whatever form was agreed.
    pub async fn heard(&mut self) -> ServerFrame {
        let frame = match self.message().await {
            Message::Text(text) if !self.binary => json::decode_server(text.as_str()),
            Message::Binary(bytes) if self.binary => proto::decode_server(&bytes),
            other => panic!("not a frame: {other:?}"),
        };
        frame.expect("a server frame").expect("a known frame")
    }

    /// The next frame as JSON.
    pub async fn json(&mut self) -> Value {
        match self.message().await {
            Message::Text(text) => serde_json::from_str(text.as_str()).expect("JSON"),
            other => panic!("not text: {other:?}"),
        }
    }

    /// Says something and hears the next frame.
    pub async fn ask(&mut self, text: &str) -> Value {
        self.text(text).await;
        self.json().await
    }

    /// Reads `hello` away.
    pub async fn greeted(mut self) -> Self {
        let ServerFrame::Hello(hello) = self.heard().await else { panic!("the first frame is hello") };
        assert!(!hello.version.is_empty() && !hello.limits.is_empty());
        self
    }

    /// The close code, after whatever else comes.
    pub async fn closed(&mut self) -> u16 {
        loop {
            match tokio::time::timeout(PATIENCE, self.ws.next()).await.expect("a close in time") {
                Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
                Some(Ok(_)) => {}
                other => panic!("no close frame: {other:?}"),
            }
        }
    }

    /// It still works.
    pub async fn alive(&mut self) {
        self.text(r#"{"t":"ping"}"#).await;
        assert_eq!(self.json().await["t"], "pong");
    }
}
