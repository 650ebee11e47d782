//! What idle things cost a running broker: subscribers (memory), streams (memory, disk), the time to start again, and to list.
//! `cargo bench --bench footprint` starts the real binary on temporary data and prints a table.

#![allow(missing_docs, reason = "a bench has no readers of its API")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use tidelog::client::{Client, Endpoint};
use tidelog::types::request::AppendRequest;
use tidelog::types::{EventRef, EventsBuilder, StreamName};
use tidelog::wire::frame::{ClientFrame, ServerFrame};
use tidelog::wire::proto;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

struct Broker {
    child: Child,
    url: String,
}

impl Broker {
    /// Starts the binary and returns how long it took to its `ready` line.
    fn start(data: &Path) -> (Self, Duration) {
        let began = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidelog"))
            .args(["dev", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let url = loop {
            let line = lines.next().expect("a line comes").expect("it is text");
            if let Some(url) = line.strip_prefix("ready ") {
                break url.to_owned();
            }
        };
        let took = began.elapsed();
        // Whatever it still prints is read, so that it never blocks.
        std::thread::spawn(move || lines.for_each(drop));
        (Self { child, url }, took)
    }

    fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process is there");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has a resident size");
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number of KiB")
    }

    /// SIGTERM, then waits for the end.
    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it can be told");
        assert!(self.child.wait().expect("it ends").success(), "a clean stop exits 0");
    }
}

fn disk_kib(dir: &Path) -> u64 {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        sum += if meta.is_dir() { disk_kib(&entry.path()) } else { std::os::unix::fs::MetadataExt::blocks(&meta) / 2 };
    }
    sum
}

/// Appends one event to each of the streams `from..to` over one connection, 64 outstanding.
async fn fill(url: String, from: usize, to: usize) {
    let mut request = format!("{}/v1/connect", url.replace("http", "ws")).into_client_request().expect("a valid address");
    request.headers_mut().insert("Sec-WebSocket-Protocol", "tidelog.v1.proto".parse().expect("a valid header"));
    let host = url.trim_start_matches("http://").to_owned();
    let socket = tokio::net::TcpStream::connect(&host).await.expect("the broker listens");
    let (mut socket, _) = tokio_tungstenite::client_async(request, socket).await.expect("the upgrade works");
    let mut events = EventsBuilder::default();
    events.push(&EventRef { data: b"1", ..Default::default() }).expect("a valid event");
    let events = events.finish().expect("a valid batch");
    let (mut sent, mut answered) = (from, from);
    while answered < to {
        while sent < to && sent - answered < 64 {
            let stream = StreamName::parse(&format!("stream-{sent}")).expect("a valid name");
            let request = AppendRequest { stream, stream_id: None, events: events.clone(), producer: None, expected_next_offset: None };
            let frame = proto::encode_client(&ClientFrame::Append { req: sent as u64, request });
            socket.feed(Message::Binary(frame)).await.expect("the socket takes it");
            sent += 1;
        }
        socket.flush().await.expect("the socket takes it");
        if let Message::Binary(bytes) = socket.next().await.expect("an answer comes").expect("it is a message") {
            match proto::decode_server(bytes).expect("it is a frame") {
                Some(ServerFrame::Appended { .. }) => answered += 1,
                Some(ServerFrame::Error { error, .. }) => panic!("{error}"),
                _ => {}
            }
        }
    }
}

async fn subscribers(data: &Path, count: usize) {
    let (broker, _) = Broker::start(data);
    let client = Client::connect(Endpoint::parse(&broker.url).expect("a valid address")).await.expect("the broker answers");
    client.append("idle", tidelog::client::NewEvent::text("one")).await.expect("it is stored");
    let mut readers = Vec::new();
    for i in 0..10 {
        readers.push(client.consumer("idle").subscription(&format!("warm-{i}")).create().open().await.expect("it opens"));
    }
    let before = broker.resident_kib();
    for i in 0..count {
        let mut reader = client.consumer("idle").subscription(&format!("reader-{i}")).create().open().await.expect("it opens");
        let event = reader.next_event().await.expect("an event").expect("no error");
        reader.ack(event.offset).confirmed().await.expect("the ack counts");
        readers.push(reader);
    }
    let after = broker.resident_kib();
    println!("{count} idle WebSocket subscribers, each acknowledged: {:.1} KiB resident each", (after - before) as f64 / count as f64);
    drop(readers);
    broker.stop();
}

async fn streams(data: &Path, count: usize) {
    let (broker, _) = Broker::start(data);
    let (before, began) = (broker.resident_kib(), Instant::now());
    let share = count / 8;
    let tasks: Vec<_> = (0..8).map(|i| tokio::spawn(fill(broker.url.clone(), i * share, (i + 1) * share))).collect();
    for task in tasks {
        task.await.expect("the connection ends");
    }
    let spent = began.elapsed().as_secs_f64();
    println!("{count} streams created with one event each: {spent:.1} s, {:.0} streams/s", count as f64 / spent);
    println!("  resident: {} MiB before, {} MiB after", before / 1024, broker.resident_kib() / 1024);
    let began = Instant::now();
    broker.stop();
    println!("  clean stop: {:.2} s", began.elapsed().as_secs_f64());
    println!("  disk: {:.2} KiB each", disk_kib(&data.join("db")) as f64 / count as f64);
    let (broker, took) = Broker::start(data);
    println!("  start after the clean stop: ready in {:.3} s, {} MiB resident", took.as_secs_f64(), broker.resident_kib() / 1024);
    let client = Client::connect(Endpoint::parse(&broker.url).expect("a valid address")).await.expect("the broker answers");
    let began = Instant::now();
    let last = client.append(&format!("stream-{}", share * 8 - 1), tidelog::client::NewEvent::text("two")).await.expect("it is stored");
    assert_eq!(last.first_offset, Some(1), "the stream goes on where it was");
    println!("  first append to a cold stream: {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
    broker.stop();
}

/// How long a list takes that looks at every stream, over HTTP.
async fn lists(data: &Path, count: usize) {
    let (broker, _) = Broker::start(data);
    let share = count / 8;
    let tasks: Vec<_> = (0..8).map(|i| tokio::spawn(fill(broker.url.clone(), i * share, (i + 1) * share))).collect();
    for task in tasks {
        task.await.expect("the connection ends");
    }
    broker.stop();
    let (broker, _) = Broker::start(data);
    let client = Client::connect(Endpoint::parse(&broker.url).expect("a valid address")).await.expect("the broker answers");
    for filter in ["name eq stream-77", "state.count gt 1", "state.count gt 0"] {
        let mut took = Vec::new();
        let mut found = 0;
        for _ in 0..5 {
            let began = Instant::now();
            found = client.admin().streams_where(filter).await.expect("a list").len();
            took.push(began.elapsed().as_secs_f64() * 1e3);
        }
        took.sort_by(f64::total_cmp);
        println!("list of {} streams, {filter}: {found} found in {:.0} ms (fastest {:.0}, slowest {:.0})", share * 8, took[2], took[0], took[4]);
    }
    broker.stop();
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let short = std::env::args().any(|arg| arg == "--test");
    let number = |name: &str, usual| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(usual);
    let (readers, many, listed) = if short { (10, 800, 800) } else { (number("READERS", 1000), number("STREAMS", 1_000_000), number("LISTED", 100_000)) };
    let dir = tempfile::tempdir().expect("a temporary directory");
    runtime.block_on(subscribers(&dir.path().join("subscribers"), readers));
    runtime.block_on(lists(&dir.path().join("lists"), listed));
    runtime.block_on(streams(&dir.path().join("streams"), many));
}
