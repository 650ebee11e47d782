//! `tidelog store check` on directories in which nothing is wrong: after a kill, after a clean stop, in use, absent, and with many streams.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};
use tidelog::client::{Client, NewEvent};
use tidelog::log::rocks::{Rocks, RocksOptions};
use tidelog::log::rows::{self, value};
use tidelog::log::{Engine as _, Key, Lane, WriteSet};
use tidelog::types::batch::Stamp;
use tidelog::types::request::{CommitAck, CommitAppend, CommitRequest};
use tidelog::types::{EventsBuilder, StreamId, StreamName, SubscriptionName, TimeUs};

use crate::process::{Broker, Said, store_check, tidelog};

/// A directory with something of everything, as a kill left it.
pub struct Sample {
    pub dir: tempfile::TempDir,
    /// The stream that the tests damage: 80 batches of three events by a producer, a keyed append, a commit.
    pub s: u64,
    /// Its subscription.
    pub reader: u64,
}

/// Made once.
pub static SAMPLE: LazyLock<Sample> = LazyLock::new(|| std::thread::spawn(make).join().expect("the sample can be made"));

fn make() -> Sample {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let broker = Broker::start(&data, &[]);
    let client = broker.client();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let s = runtime.block_on(fill(&client));
    keyed_append(&Broker::socket(&data));
    people(&Broker::socket(&data));
    drop(runtime);
    broker.kill();
    Sample { dir, s, reader: 1 }
}

async fn fill(client: &Client) -> u64 {
    let admin = client.admin();
    for name in ["s", "trimmed", "closed", "gone", "Out-Put"] {
        admin.create_stream(name, Map::new()).await.expect("a stream is created");
    }
    let s = admin.stream("s").await.expect("the stream").id;
    admin.create_subscription("s", "Reader", Map::new()).await.expect("a subscription is created");
    let producer = client.producer("s", "p").open().await.expect("a producer is opened");
    for batch in 0..80 {
        producer.send((0..3).map(|n| NewEvent::text(format!("event {batch} {n}"))).collect::<Vec<_>>()).await.expect("room").await.expect("an answer");
    }
    producer.close().await.expect("the producer is closed");
    // A value in a file of its own.
    client.append("s", NewEvent::text("long ".repeat(4000))).await.expect("it is appended");
    let mut consumer = client.consumer("s").subscription("reader").open().await.expect("a reader is attached");
    while consumer.position() < 200 {
        consumer.next_event().await.expect("an event").expect("no error");
    }
    let mut committer = client.committer("tx").await.expect("a committer");
    let mut events = EventsBuilder::with_capacity(64);
    events.push(&NewEvent::text("image").as_ref()).expect("an event");
    let ack = CommitAck {
        stream: StreamName::parse("s").expect("a name"),
        subscription: SubscriptionName::parse("reader").expect("a name"),
        epoch: consumer.epoch().expect("an epoch"),
        offset: 150,
    };
    let append = CommitAppend {
        stream: StreamName::parse("out-put").expect("a name"),
        stream_id: None,
        events: events.finish().expect("events"),
        expected_next_offset: None,
    };
    committer.commit(CommitRequest { acks: vec![ack], appends: vec![append], ..Default::default() }).await.expect("it is committed");
    consumer.ack(180).await.expect("the ack is durable");
    consumer.close().await;
    for name in ["trimmed", "closed", "gone"] {
        for batch in 0..5 {
            client.append(name, (0..4).map(|n| NewEvent::text(format!("{batch} {n}"))).collect::<Vec<_>>()).await.expect("it is appended");
        }
    }
    admin.trim_stream("trimmed", json!({"before_offset": 10})).await.expect("it is trimmed");
    admin.close_stream("closed").await.expect("it is closed");
    let operation = admin.delete_stream("gone").await.expect("the deletion begins");
    admin.wait_operation(&operation.id, crate::process::PATIENCE).await.expect("the deletion ends");
    s
}

/// An append under an `Idempotency-Key`, which the client library does not send.
fn keyed_append(socket: &Path) {
    ask(socket, "POST /v1/streams/s/events", "Content-Type: text/plain\r\nIdempotency-Key: k1\r\n", "keyed");
}

/// `alice`, user 2, with a session, a key `laptop`, source 1 named `Feed`, and rights of both on stream `s`.
fn people(socket: &Path) {
    let json = "Content-Type: application/json\r\n";
    ask(socket, "POST /v1/users", json, r#"{"name":"alice","password":"correct horse battery"}"#);
    let session = ask(socket, "POST /v1/sessions", json, r#"{"name":"alice","password":"correct horse battery"}"#);
    let token = session.split("\"token\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a token");
    let as_alice = format!("{json}Authorization: Bearer {token}\r\n");
    ask(socket, "POST /v1/keys", &as_alice, r#"{"name":"laptop"}"#);
    ask(socket, "POST /v1/sources", &as_alice, r#"{"name":"Feed"}"#);
    ask(socket, "PUT /v1/streams/s/rights/user:alice", json, r#"{"right":"Admin"}"#);
    ask(socket, "PUT /v1/streams/s/rights/source:1", json, r#"{"right":"ReadOnly"}"#);
}

fn ask(socket: &Path, what: &str, headers: &str, body: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("the broker listens");
    let length = body.len();
    write!(stream, "{what} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 20"), "{what}: {answer}");
    answer
}

/// The files below `from`, copied. Sockets stay behind.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory").map(|entry| entry.expect("an entry")) {
        let (kind, to) = (entry.file_type().expect("a type"), to.join(entry.file_name()));
        match (kind.is_dir(), kind.is_file()) {
            (true, _) => copy(&entry.path(), &to),
            // 64 MiB of nothing need not be copied.
            (_, true) if entry.file_name() != "ballast" => drop(std::fs::copy(entry.path(), to).expect("it can be copied")),
            _ => {}
        }
    }
}

/// A copy of the sample.
pub fn copied() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    copy(&SAMPLE.dir.path().join("data"), &data);
    (dir, data)
}

/// All files with their bytes.
fn bytes(dir: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry")) {
        let kind = entry.file_type().expect("a type");
        if kind.is_dir() {
            all.insert(entry.path(), Vec::new());
            all.extend(bytes(&entry.path()));
        } else {
            all.insert(entry.path(), if kind.is_file() { std::fs::read(entry.path()).expect("it can be read") } else { Vec::new() });
        }
    }
    all
}

#[track_caller]
pub fn sound(said: &Said) {
    assert_eq!((said.code, &said.json["ok"], &said.json["damages"]), (Some(0), &json!(true), &json!([])), "{}\n{}", said.json, said.stderr);
}

/// The engine, as the broker opens it.
pub fn engine(data: &Path) -> Rocks {
    Rocks::open(RocksOptions { ballast_bytes: 0, free_min_bytes: Some(0), ..RocksOptions::new(data) }).expect("it opens")
}

#[test]
fn store_check_is_green_after_a_kill_and_changes_no_byte() {
    let (_dir, data) = copied();
    let before = bytes(&data);
    let said = store_check(&data, &[]);
    sound(&said);
    assert!(bytes(&data) == before, "the check changed the directory");
    let count = |name: &str| said.json["counts"][name].as_u64().unwrap_or_else(|| panic!("no {name} in {}", said.json));
    assert_eq!(
        (count("streams"), count("subscriptions"), count("producers"), count("idempotency_keys"), count("operations")),
        (5, 1, 2, 1, 1),
        "the audit is one"
    );
    // The last 64 batches of the producer and the one commit.
    assert_eq!(count("receipts"), 65);
    assert_eq!(count("fingerprints"), 65, "64 receipts and the idempotency key, held against the log");
    assert!(count("events") >= 80 * 3 + 2 && count("batches") >= 80 + 2, "{}", said.json);
    assert!(said.json["parts"].as_array().is_some_and(|parts| parts.len() >= 5 && parts.iter().all(|part| part["seconds"].is_f64())));
}

#[test]
fn store_check_is_green_after_a_clean_stop_and_for_one_stream() {
    let (_dir, data) = copied();
    Broker::start(&data, &[]).stop();
    let before = bytes(&data);
    sound(&store_check(&data, &[]));
    let said = store_check(&data, &["--stream", "S"]);
    sound(&said);
    assert_eq!((&said.json["counts"]["streams"], &said.json["counts"]["producers"]), (&json!(1), &json!(1)), "{}", said.json);
    assert!(bytes(&data) == before, "the check changed the directory");
    let text = tidelog().args(["store", "check", "--data"]).arg(&data).output().expect("it runs");
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    for words in ["5 streams: ", "subscriptions with their cursors", "fingerprints computed again", " s)", "Sound: "] {
        assert!(text.contains(words), "it does not say {words:?}:\n{text}");
    }
}

#[test]
fn store_check_refuses_a_directory_in_use_and_knows_what_is_none() {
    let (dir, data) = copied();
    let broker = Broker::start(&data, &[]);
    let said = store_check(&data, &[]);
    assert_eq!(said.code, Some(12), "{}", said.stderr);
    assert!(said.stderr.contains("in use by another broker"), "{}", said.stderr);
    broker.stop();
    let nowhere = store_check(&dir.path().join("nowhere"), &[]);
    assert_eq!(nowhere.code, Some(3), "{}", nowhere.stderr);
    assert!(!dir.path().join("nowhere").exists(), "it made a directory");
    assert_eq!(store_check(&data, &["--stream", "nobody"]).code, Some(3));
    assert_eq!(tidelog().args(["store", "check"]).output().expect("it runs").status.code(), Some(2));
}

#[test]
fn store_check_looks_at_a_hundred_thousand_streams_in_bounded_memory() {
    const STREAMS: u64 = 100_000;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let engine = engine(&data);
        let counters =
            value::Counters { next_stream_id: STREAMS + 1, next_subscription_id: 1, next_user_id: 2, next_source_id: 1, log_epoch: 1, ..Default::default() };
        for first in (1..=STREAMS).step_by(10_000) {
            let mut set = WriteSet::default();
            set.rows.push((Key::Counters.encode(), Some(rows::encode(&counters))));
            for id in first..first + 10_000 {
                let (name, uuid) = (format!("stream-{id}"), uuid::Uuid::from_u128(id.into()));
                let row = value::Stream { name: name.clone(), uuid: uuid.to_string(), owner: 1, ..Default::default() };
                set.rows.push((Key::Stream(StreamId(id)).encode(), Some(rows::encode(&row))));
                set.rows.push((Key::StreamName(&name).encode(), Some(id.to_be_bytes().to_vec())));
                set.rows.push((Key::StreamUuid(uuid).encode(), Some(id.to_be_bytes().to_vec())));
                set.rows.push((Key::StreamOwner(1, StreamId(id)).encode(), Some(Vec::new())));
                set.rows.push((Key::Bounds(StreamId(id)).encode(), Some(rows::encode(&value::Bounds::default()))));
                if id % 10 == 0 {
                    let mut events = EventsBuilder::with_capacity(64);
                    events.push(&NewEvent::text("one").as_ref()).expect("an event");
                    let stamp = Stamp { base_offset: 0, time: TimeUs(1), log_epoch: 1, author_user: 1, author_source: 0, bytes_before: 0 };
                    set.appends.push(std::sync::Arc::new(events.finish().expect("events").stamp(StreamId(id), stamp)));
                }
            }
            let position = engine.position(Lane(0)).await.expect("a position");
            engine.commit(Lane(0), position, set).await.expect("it is stored");
        }
        engine.close().await.expect("it closes");
    });
    let began = std::time::Instant::now();
    let mut command = tidelog();
    command.args(["store", "check", "--json", "--no-progress", "--data"]).arg(&data).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0u64;
    while child.try_wait().expect("it can be asked").is_none() {
        let now = std::fs::read_to_string(&status).unwrap_or_default();
        let line = now.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak = peak.max(line.unwrap_or(0));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let said = Said::from(child.wait_with_output().expect("it ends"));
    sound(&said);
    assert_eq!(said.json["counts"]["streams"], Value::from(STREAMS));
    assert_eq!(said.json["counts"]["batches"], Value::from(STREAMS / 10));
    println!("{STREAMS} streams in {:.1} s, {} MiB at most: {}", began.elapsed().as_secs_f64(), peak / 1024, said.json["parts"]);
    assert!(peak < 300 * 1024, "{} MiB for {STREAMS} streams", peak / 1024);
}
