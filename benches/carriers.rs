//! The carriers side by side, against the real binary in a process of its own: catching up, appending, following, and readers that
//! do not read. `cargo bench --bench carriers` prints four tables (`-- catchup`, `append`, `fan`, `stuck` print one).
//!
//! Clients are as bare as they can be: both sides share two cores, and it is the broker that is measured. Its processor time is
//! what the system says of its process.

#![allow(missing_docs, reason = "a bench has no readers of its API")]

#[allow(dead_code, reason = "tests/hostile uses the rest of it")]
#[path = "../tests/hostile/wire.rs"]
mod wire;

/// For `wire`.
mod support {
    /// How long an answer may take before it counts as none.
    pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
}

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use hdrhistogram::Histogram;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tidelog::types::request::{AppendRequest, Credit, Start, SubscribeRequest};
use tidelog::types::{EventRef, Events, EventsBuilder, StreamName, TimeUs};
use tidelog::wire::frame::ClientFrame;
use tidelog::wire::proto::{self, v1};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// As many as JSON can say.
const UNLIMITED: u64 = (1 << 53) - 1;

// ---------------------------------------------------------------------------------------------------------------- broker

/// The binary, on a disk of its own.
struct Broker {
    child: Child,
    at: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Broker {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidelog"))
            .args(["serve", "--insecure-operator-on-loopback", "--listen", "127.0.0.1:0"])
            .arg("--data")
            .arg(dir.path())
            .env("TIDELOG_STORAGE__FREE_MIN_BYTES", "0")
            .env("TIDELOG_STORAGE__BALLAST_BYTES", "0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the broker starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
        let at = line.trim().strip_prefix("ready http://").and_then(|at| at.parse().ok()).unwrap_or_else(|| panic!("no address in {line:?}"));
        Self { child, at, _dir: dir }
    }

    /// Seconds of processor time so far.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("the process lives");
        let fields: Vec<&str> = stat[stat.rfind(')').expect("a name") + 2..].split(' ').collect();
        let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
        (ticks(11) + ticks(12)) / 100.0
    }

    /// Resident memory in MiB.
    fn rss(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process lives");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// --------------------------------------------------------------------------------------------------------------- clients

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    WsJson,
    WsProto,
    Grpc,
    Sse,
}

const CARRIERS: [Carrier; 4] = [Carrier::WsJson, Carrier::WsProto, Carrier::Grpc, Carrier::Sse];

/// A frame of a client: masked with zeros, which changes nothing.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80 | opcode];
    match payload.len() {
        n @ 0..=125 => out.push(0x80 | n as u8),
        n @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    out
}

/// Reads frames of the server without looking into them.
struct Frames {
    socket: TcpStream,
    buffer: BytesMut,
}

impl Frames {
    async fn open(at: SocketAddr, subprotocol: &str) -> Self {
        let mut socket = TcpStream::connect(at).await.expect("the port is open");
        socket.set_nodelay(true).expect("a TCP socket");
        let request = format!(
            "GET /v1/connect HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.expect("the request goes out");
        let mut frames = Self { socket, buffer: BytesMut::with_capacity(1 << 20) };
        loop {
            if let Some(end) = frames.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                assert!(frames.buffer.starts_with(b"HTTP/1.1 101"), "{:?}", frames.buffer);
                drop(frames.buffer.split_to(end + 4));
                frames.next().await; // hello
                return frames;
            }
            frames.more().await;
        }
    }

    async fn more(&mut self) {
        self.buffer.reserve(1 << 18);
        let n = self.socket.read_buf(&mut self.buffer).await.expect("the connection lives");
        assert!(n > 0, "the broker closed the connection");
    }

    async fn next(&mut self) -> Bytes {
        loop {
            if self.buffer.len() >= 2 {
                let (head, len) = match self.buffer[1] {
                    126 if self.buffer.len() >= 4 => (4, u16::from_be_bytes([self.buffer[2], self.buffer[3]]) as usize),
                    127 if self.buffer.len() >= 10 => (10, u64::from_be_bytes(self.buffer[2..10].try_into().expect("eight bytes")) as usize),
                    n @ 0..=125 => (2, usize::from(n)),
                    _ => (usize::MAX, 0),
                };
                if head != usize::MAX && self.buffer.len() >= head + len {
                    let opcode = self.buffer[0] & 15;
                    drop(self.buffer.split_to(head));
                    let payload = self.buffer.split_to(len).freeze();
                    if opcode < 8 {
                        return payload;
                    }
                    continue;
                }
            }
            self.more().await;
        }
    }

    async fn say(&mut self, opcode: u8, payload: &[u8]) {
        self.socket.write_all(&masked(opcode, payload)).await.expect("the frame goes out");
    }
}

type Grpc = SendRequest<Full<Bytes>>;

async fn grpc(at: SocketAddr) -> Grpc {
    let socket = TcpStream::connect(at).await.expect("the port is open");
    socket.set_nodelay(true).expect("a TCP socket");
    let (send, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20)
        .max_frame_size(1 << 20)
        .handshake(TokioIo::new(socket))
        .await
        .expect("HTTP/2");
    tokio::spawn(connection);
    send
}

async fn call(send: &mut Grpc, at: SocketAddr, method: &str, message: &[u8]) -> hyper::body::Incoming {
    let mut body = BytesMut::with_capacity(5 + message.len());
    body.put_u8(0);
    body.put_u32(message.len() as u32);
    body.put_slice(message);
    let request = http::Request::post(format!("http://{at}/tidelog.v1.Broker/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(body.freeze()))
        .expect("a request");
    send.ready().await.expect("the connection lives");
    let response = send.send_request(request).await.expect("an answer");
    assert_eq!(response.headers().get("grpc-status").map_or("0", |s| s.to_str().expect("ASCII")), "0", "{response:?}");
    response.into_body()
}

fn subscribe(stream: &str, from: Start) -> SubscribeRequest {
    SubscribeRequest {
        from: Some(from),
        credit: Some(Credit { events: UNLIMITED, bytes: UNLIMITED }),
        ..SubscribeRequest::new(StreamName::parse(stream).expect("a name"), None)
    }
}

/// The message of a frame, without the frame around it.
fn message_of(frame: &ClientFrame) -> Bytes {
    let bytes = proto::encode_client(frame);
    let mut rest = &bytes[1..];
    while rest[0] & 0x80 != 0 {
        rest = &rest[1..];
    }
    Bytes::copy_from_slice(&rest[1..])
}

fn append_frame(req: u64, stream: &str, events: Events) -> ClientFrame {
    let stream = StreamName::parse(stream).expect("a name");
    ClientFrame::Append { req, request: AppendRequest { stream, stream_id: None, events, producer: None, expected_next_offset: None } }
}

/// A follower of a stream's new events, whatever the carrier: bytes come.
enum Follower {
    Socket(TcpStream),
    /// With its connection, which ends when nobody can call over it.
    Grpc {
        body: hyper::body::Incoming,
        _connection: Grpc,
    },
}

impl Follower {
    async fn open(carrier: Carrier, at: SocketAddr, stream: &str, from: Start) -> Self {
        let frame = ClientFrame::Subscribe { sub: 1, request: subscribe(stream, from) };
        match carrier {
            Carrier::WsJson => {
                let mut frames = Frames::open(at, "tidelog.v1.json").await;
                frames.say(1, &tidelog::wire::json::encode_client(&frame).into_bytes()).await;
                frames.next().await; // subscribed
                Self::Socket(frames.socket)
            }
            Carrier::WsProto => {
                let mut frames = Frames::open(at, "tidelog.v1.proto").await;
                frames.say(2, &proto::encode_client(&frame)).await;
                frames.next().await;
                Self::Socket(frames.socket)
            }
            Carrier::Grpc => {
                let mut send = grpc(at).await;
                let body = call(&mut send, at, "Subscribe", &message_of(&frame)).await;
                Self::Grpc { body, _connection: send }
            }
            Carrier::Sse => {
                let mut socket = TcpStream::connect(at).await.expect("the port is open");
                let from = if from == Start::Earliest { "earliest" } else { "latest" };
                let request = format!("GET /v1/streams/{stream}/events?from={from} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
                socket.write_all(request.as_bytes()).await.expect("the request goes out");
                let mut head = vec![0; 4096];
                let n = socket.read(&mut head).await.expect("an answer");
                assert!(head[..n].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head[..n]));
                Self::Socket(socket)
            }
        }
    }

    /// Adds what comes next. False at the end.
    async fn read(&mut self, into: &mut BytesMut) -> bool {
        match self {
            Self::Socket(socket) => {
                into.reserve(1 << 16);
                socket.read_buf(into).await.is_ok_and(|n| n > 0)
            }
            Self::Grpc { body, .. } => match body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        into.put_slice(&data);
                    }
                    true
                }
                _ => false,
            },
        }
    }
}

fn batch(count: usize, size: usize) -> Events {
    let data = format!("\"{}\"", "x".repeat(size.max(2) - 2));
    let mut builder = EventsBuilder::with_capacity(count * (size + 16));
    for _ in 0..count {
        builder.push(&EventRef { data: data.as_bytes(), ..EventRef::default() }).expect("an event");
    }
    builder.finish().expect("a batch")
}

/// Creates the stream and stores so many MiB in batches of 256 events of 256 bytes; how many events that are.
async fn fill(at: SocketAddr, stream: &str, mib: usize) -> u64 {
    create(at, stream).await;
    let batches = mib * (1 << 20) / (256 * 256);
    let mut frames = Frames::open(at, "tidelog.v1.proto").await;
    let events = batch(256, 256);
    for req in 0..batches {
        frames.say(2, &proto::encode_client(&append_frame(req as u64, stream, events.clone()))).await;
        if req >= 32 {
            frames.next().await;
        }
    }
    for _ in 0..batches.min(32) {
        frames.next().await;
    }
    (batches * 256) as u64
}

async fn create(at: SocketAddr, stream: &str) {
    let body = format!("{{\"name\":\"{stream}\"}}");
    let response = tidelog::client::http_builder()
        .build()
        .expect("a client")
        .post(format!("http://{at}/v1/streams"))
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await;
    assert_eq!(response.expect("an answer").status(), 201);
}

// ---------------------------------------------------------------------------------------------------------------- tables

/// Point 9: stored batches over gRPC and over binary WebSocket.
async fn catchup(short: bool) {
    let (mib, rounds) = if short { (16, 1) } else { (1024, 3) };
    let broker = Broker::start();
    let events = fill(broker.at, "log", mib).await;
    println!("\ncatching up with {mib} MiB in stored batches of 64 KiB ({events} events of 256 bytes)");
    println!("{:>10} {:>6} {:>10} {:>10} {:>16}", "carrier", "round", "seconds", "MB/s", "broker CPU s/GB");
    for round in 1..=rounds {
        for carrier in [Carrier::WsProto, Carrier::Grpc] {
            let (cpu, began) = (broker.cpu(), Instant::now());
            let bytes = match carrier {
                Carrier::Grpc => read_grpc(broker.at, events).await,
                _ => read_ws(broker.at).await,
            };
            let (spent, cpu) = (began.elapsed().as_secs_f64(), broker.cpu() - cpu);
            let gb = bytes as f64 / 1e9;
            assert!(bytes >= events * 256, "{bytes} bytes came");
            println!("{:>10} {round:>6} {spent:>10.2} {:>10.0} {:>16.2}", format!("{carrier:?}"), gb * 1e3 / spent, cpu / gb);
        }
    }
}

async fn read_ws(at: SocketAddr) -> u64 {
    let mut frames = Frames::open(at, "tidelog.v1.proto").await;
    frames.say(2, &proto::encode_client(&ClientFrame::Subscribe { sub: 1, request: subscribe("log", Start::Earliest) })).await;
    let mut bytes = 0;
    loop {
        let payload = frames.next().await;
        // Variant 4 of a server frame is `live`.
        if payload.first() == Some(&(4 << 3 | 2)) {
            return bytes;
        }
        bytes += payload.len() as u64;
    }
}

async fn read_grpc(at: SocketAddr, events: u64) -> u64 {
    let mut send = grpc(at).await;
    let request = v1::ReadRequest { stream: "log".into(), limit: Some(events), ..Default::default() };
    let mut body = call(&mut send, at, "Read", &request.encode_to_vec()).await;
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame.expect("the stream lives").data_ref() {
            bytes += data.len() as u64;
        }
    }
    bytes
}

/// Point 9: one event, one call, one outstanding, and sixteen callers at once.
async fn append(short: bool) {
    let each = if short { 20 } else { 3000 };
    println!("\nappending one event of 256 bytes at a time: processor time of the broker for each");
    println!("{:>8} {:>12} {:>12} {:>12} {:>8}", "clients", "round", "WS µs", "gRPC µs", "ratio");
    for clients in [1usize, 16] {
        let each = each / if clients == 1 { 1 } else { 4 };
        let mut ratios = Vec::new();
        for round in 1..=if short { 1 } else { 5 } {
            let broker = Broker::start();
            create(broker.at, "one").await;
            let at = broker.at;
            let mut cost = [0.0; 2];
            for (index, carrier) in [Carrier::WsProto, Carrier::Grpc].into_iter().enumerate() {
                run_appends(at, carrier, clients, each / 10).await;
                let before = broker.cpu();
                run_appends(at, carrier, clients, each).await;
                cost[index] = (broker.cpu() - before) / (clients * each) as f64 * 1e6;
            }
            ratios.push(cost[1] / cost[0]);
            println!("{clients:>8} {round:>12} {:>12.1} {:>12.1} {:>8.2}", cost[0], cost[1], cost[1] / cost[0]);
        }
        ratios.sort_by(f64::total_cmp);
        println!("{clients:>8} {:>12} {:>12} {:>12} {:>8.2}", "median", "", "", ratios[ratios.len() / 2]);
    }
}

/// The head of the call, by the names and values that every HTTP/2 knows (RFC 7541, appendix A), as gRPC's own clients would send it.
fn head_of_append() -> Vec<u8> {
    let mut head = vec![0x83, 0x86]; // `:method POST`, `:scheme http`
    for (index, value) in [(1u8, "localhost"), (4, "/tidelog.v1.Broker/Append")] {
        head.extend([index, value.len() as u8]); // `:authority`, `:path`
        head.extend(value.as_bytes());
    }
    head.extend(wire::field("content-type", "application/grpc"));
    head.extend(wire::field("te", "trailers"));
    head
}

/// A call is one write, as with gRPC's own clients: hyper's makes two of it now and then, and the broker would pay for that.
async fn grpc_append(h2: &mut wire::H2, head: &[u8], stream: u32, message: &[u8]) {
    let head = wire::h2_frame(wire::HEADERS, wire::END_HEADERS, stream, head);
    let body = wire::h2_frame(wire::DATA, wire::END_STREAM, stream, &wire::message(message));
    h2.send(&[head, body].concat()).await;
    let mut answered = false;
    loop {
        let frame = h2.next().await.expect("the connection lives");
        match frame.kind {
            wire::DATA => answered = frame.payload.len() > 5,
            wire::HEADERS if frame.flags & wire::END_STREAM != 0 => return assert!(answered, "a call failed"),
            wire::RESET | wire::GOAWAY => panic!("the broker ended it: {frame:?}"),
            _ => {}
        }
    }
}

async fn run_appends(at: SocketAddr, carrier: Carrier, clients: usize, each: usize) {
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            tokio::spawn(async move {
                let frame_of_one = append_frame(1, "one", batch(1, 256));
                if carrier == Carrier::Grpc {
                    let (mut h2, head, message) = (wire::H2::open(at).await, head_of_append(), message_of(&frame_of_one));
                    for stream in (1..).step_by(2).take(each) {
                        grpc_append(&mut h2, &head, stream, &message).await;
                    }
                } else {
                    let (mut frames, message) = (Frames::open(at, "tidelog.v1.proto").await, proto::encode_client(&frame_of_one));
                    for _ in 0..each {
                        frames.say(2, &message).await;
                        frames.next().await;
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("the client ends");
    }
}

/// Microseconds, up to a minute.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("a histogram")
}

/// Stands before the time in each event. No header of a frame looks like it.
const MARK: &[u8] = b"~time~";

/// Followers that look for the time in each event, and the one who writes it.
struct Fan {
    latency: Histogram<u64>,
    deliveries: u64,
    cpu: f64,
}

async fn fan_once(broker: &Broker, carrier: Carrier, stream: &str, followers: usize, rate: u32, seconds: u32) -> Fan {
    let (at, total) = (broker.at, u64::from(rate * seconds));
    let deliveries = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for _ in 0..followers {
        let mut follower = Follower::open(carrier, at, stream, Start::Latest).await;
        let deliveries = deliveries.clone();
        tasks.push(tokio::spawn(async move {
            let (mut latency, mut buffer) = (histogram(), BytesMut::new());
            let mut seen = 0;
            while seen < total && follower.read(&mut buffer).await {
                let now = TimeUs::now().0;
                // Each event holds one mark and sixteen digits.
                const WHOLE: usize = MARK.len() + 16;
                while let Some(place) = buffer.windows(MARK.len()).position(|w| w == MARK).filter(|place| buffer.len() >= place + WHOLE) {
                    let digits = std::str::from_utf8(&buffer[place + MARK.len()..place + WHOLE]).expect("digits");
                    let sent: i64 = digits.parse().unwrap_or_else(|_| panic!("{digits:?} is no time"));
                    latency.saturating_record((now - sent).max(1) as u64);
                    drop(buffer.split_to(place + WHOLE));
                    seen += 1;
                    deliveries.fetch_add(1, Ordering::Relaxed);
                }
                if buffer.len() > 4096 && !buffer.windows(MARK.len()).any(|w| w == MARK) {
                    drop(buffer.split_to(buffer.len() - MARK.len()));
                }
            }
            assert_eq!(seen, total, "{carrier:?}: a follower missed something");
            latency
        }));
    }
    let before = broker.cpu();
    let mut frames = Frames::open(at, "tidelog.v1.proto").await;
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
    for req in 0..total {
        tick.tick().await;
        let mut builder = EventsBuilder::default();
        let data = format!("\"{}{:016}{}\"", String::from_utf8_lossy(MARK), TimeUs::now().0, "x".repeat(200));
        builder.push(&EventRef { data: data.as_bytes(), ..EventRef::default() }).expect("an event");
        frames.say(2, &proto::encode_client(&append_frame(req, stream, builder.finish().expect("a batch")))).await;
        frames.next().await;
    }
    let mut latency = histogram();
    for task in tasks {
        let part = tokio::time::timeout(Duration::from_secs(30), task).await.expect("every follower gets everything").expect("it ends");
        latency.add(part).expect("the same precision");
    }
    Fan { latency, deliveries: deliveries.load(Ordering::Relaxed), cpu: broker.cpu() - before }
}

/// Point 9: 100 followers of each carrier at 100 events/s.
async fn fan(short: bool) {
    let (followers, seconds, rounds) = if short { (3, 1, 1) } else { (100, 5, 3) };
    println!("\n{followers} followers of each carrier at 100 events/s of 220 bytes, append to arrival");
    println!("{:>10} {:>6} {:>12} {:>10} {:>10} {:>20}", "carrier", "round", "deliveries", "p50 ms", "p99 ms", "broker CPU µs each");
    for round in 1..=rounds {
        for carrier in CARRIERS {
            let broker = Broker::start();
            create(broker.at, "fan").await;
            let Fan { latency, deliveries, cpu } = fan_once(&broker, carrier, "fan", followers, 100, seconds).await;
            let ms = |quantile| latency.value_at_quantile(quantile) as f64 / 1000.0;
            let each = cpu / deliveries as f64 * 1e6;
            println!("{:>10} {round:>6} {deliveries:>12} {:>10.2} {:>10.2} {each:>20.1}", format!("{carrier:?}"), ms(0.5), ms(0.99));
        }
    }
}

/// Point 6: readers that stopped reading, and what others notice.
async fn stuck(short: bool) {
    let (many, mib, followers, seconds) = if short { (2, 4, 2, 1) } else { (50, 256, 20, 5) };
    println!("\n{many} readers of each carrier that stop reading in a stream of {mib} MiB, beside {followers} that follow another at 100 events/s");
    println!("{:>10} {:>14} {:>14} {:>16} {:>18}", "carrier", "p99 ms before", "p99 ms beside", "MiB beside", "MiB for each stuck");
    for carrier in CARRIERS {
        let broker = Broker::start();
        fill(broker.at, "log", mib).await;
        create(broker.at, "fan").await;
        let p99 = |fan: &Fan| fan.latency.value_at_quantile(0.99) as f64 / 1000.0;
        let before = fan_once(&broker, Carrier::WsProto, "fan", followers, 100, seconds).await;
        let rss = broker.rss();
        let mut readers = Vec::new();
        for _ in 0..many {
            readers.push(Follower::open(carrier, broker.at, "log", Start::Earliest).await);
        }
        let beside = fan_once(&broker, Carrier::WsProto, "fan", followers, 100, seconds).await;
        let grown = broker.rss() - rss;
        let name = format!("{carrier:?}");
        println!("{name:>10} {:>14.2} {:>14.2} {grown:>16.1} {:>18.2}", p99(&before), p99(&beside), grown / readers.len() as f64);
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    // `cargo test --benches` passes a flag of its own; it only shows that the bench works.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let short = args.iter().any(|arg| arg == "--test");
    let wanted = |name: &str| args.iter().all(|arg| arg.starts_with("--") || arg.contains(name));
    runtime.block_on(async {
        if wanted("catchup") {
            catchup(short).await;
        }
        if wanted("append") {
            append(short).await;
        }
        if wanted("fan") {
            fan(short).await;
        }
        if wanted("stuck") {
            stuck(short).await;
        }
    });
}
