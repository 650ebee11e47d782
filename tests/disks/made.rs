//! A data directory with a bit of everything, made by the real binary and left by a kill: two generations of tables and blob files, and a log
//! whose last record is one commit over two streams, a cursor and a receipt.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Map;
use tempfile::TempDir;
use tidelog::client::{Client, IntoEvents as _, NewEvent, Protocol};
use tidelog::types::request::{CommitAck, CommitAppend, CommitRequest};
use tidelog::types::{StreamName, SubscriptionName};

use crate::broker::{Broker, Setup};
use crate::chance::Chance;
use crate::load::{block, until};

/// Everything that was acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    pub streams: BTreeMap<&'static str, Vec<String>>,
    /// By stream and subscription.
    pub cursors: BTreeMap<(&'static str, &'static str), u64>,
    /// By stream and id: the last sequence number.
    pub producers: BTreeMap<(&'static str, &'static str), u64>,
}

/// The directory, closed.
pub struct Made {
    dir: TempDir,
    pub expected: Expected,
    /// Without the last commit.
    pub before: Expected,
    /// The log that holds data, and where in it the last record lies.
    pub wal: &'static str,
    pub last: Range<usize>,
    /// Where earlier records of it begin.
    pub begins: Vec<usize>,
    /// With two logs: the earlier one, and where its last record begins.
    pub earlier: Option<(String, usize)>,
}

/// What the end of the log is like.
#[derive(Clone, Copy, PartialEq)]
pub enum Shape {
    /// The last commit is one short record.
    Short,
    /// The last commit is of several blocks of the log (32 KiB each).
    Long,
    /// There are two logs, and the earlier one is needed: its batches are in a table, its rows are not.
    TwoLogs,
}

/// Where copies are made: in memory if possible.
pub fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary directory")
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let (kind, to) = (entry.file_type().expect("a kind"), to.join(entry.file_name()));
        if kind.is_dir() {
            copy_all(&entry.path(), &to);
        } else if kind.is_file() {
            std::fs::copy(entry.path(), to).expect("a copy");
        }
    }
}

impl Made {
    /// A copy to spoil. Without `side` it does not know its durable position.
    pub fn copy(&self, side: bool) -> TempDir {
        let to = scratch();
        copy_all(&self.dir.path().join("data"), to.path());
        if !side {
            std::fs::remove_file(to.path().join("durable")).expect("the side file is there");
        }
        to
    }

    /// Names of the engine's files with one of these beginnings or endings.
    pub fn files(&self, like: &[&str]) -> Vec<String> {
        files(&self.dir.path().join("data"), like)
    }

    pub fn len(&self, file: &str) -> usize {
        self.dir.path().join("data/db").join(file).metadata().expect("a file").len() as usize
    }
}

/// Names of the engine's files in a data directory with one of these beginnings or endings, in order; empty ones are left out.
pub fn files(data: &Path, like: &[&str]) -> Vec<String> {
    let entries = std::fs::read_dir(data.join("db")).expect("the engine's directory").map(|entry| entry.expect("an entry"));
    let fits = |name: &String| like.iter().any(|like| name.starts_with(like) || name.ends_with(like));
    let mut names: Vec<String> =
        entries.filter(|e| e.metadata().is_ok_and(|m| m.len() > 0)).map(|e| e.file_name().to_string_lossy().into_owned()).filter(fits).collect();
    names.sort();
    names
}

/// The sequence number in the side file.
pub fn recorded(data: &Path) -> Option<u64> {
    let bytes = std::fs::read(data.join("durable")).ok()?;
    bytes.get(8..16)?.try_into().ok().map(u64::from_le_bytes)
}

async fn sequence(client: &Client) -> u64 {
    let answer = client.admin().request(http::Method::GET, "/metrics", None, crate::broker::PATIENCE).await.expect("metrics");
    let text = String::from_utf8(answer.body.to_vec()).expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix("tidelog_rocksdb_sequence ")).expect("the metric");
    line.trim().parse::<f64>().expect("a number") as u64
}

/// Events that do not compress away.
fn noise(chance: &mut Chance, bytes: usize) -> String {
    (0..bytes).map(|_| char::from(b' ' + chance.below(90) as u8).to_string().replace(['"', '\\'], "_")).collect()
}

struct Writer {
    expected: Expected,
    chance: Chance,
}

impl Writer {
    async fn append(&mut self, client: &Client, stream: &'static str, batches: usize, events: usize, bytes: usize) {
        for _ in 0..batches {
            let values: Vec<String> = (0..events).map(|_| noise(&mut self.chance, bytes)).collect();
            client.append(stream, values.iter().map(NewEvent::text).collect::<Vec<_>>()).await.expect("events are appended");
            self.expected.streams.entry(stream).or_default().extend(values);
        }
    }

    async fn produce(&mut self, client: &Client, stream: &'static str, batches: usize, events: usize, bytes: usize) {
        let producer = client.producer(stream, "p").open().await.expect("a producer is opened");
        for _ in 0..batches {
            let values: Vec<String> = (0..events).map(|_| noise(&mut self.chance, bytes)).collect();
            producer.send(values.iter().map(NewEvent::text).collect::<Vec<_>>()).await.expect("room").await.expect("an answer");
            self.expected.streams.entry(stream).or_default().extend(values);
        }
        self.expected.producers.insert((stream, "p"), producer.next_seq() - 1);
        producer.close().await.expect("the producer is closed");
    }

    /// Each batch has a producer of its own, so that each record of the log holds a row that no later one replaces.
    async fn until_a_second_log(&mut self, client: &Client, data: &Path) -> (String, usize) {
        const IDS: [&str; 40] = {
            let mut ids = ["q"; 40];
            let all = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN";
            let mut index = 0;
            while index < ids.len() {
                ids[index] = all.split_at(index).1.split_at(1).0;
                index += 1;
            }
            ids
        };
        let tables = files(data, &[".sst"]).len();
        let first = files(data, &[".log"]).pop().expect("a log with data");
        let end = || data.join("db").join(&first).metadata().expect("the log").len() as usize;
        let mut last = end();
        for id in IDS {
            let producer = client.producer("late", id).open().await.expect("a producer is opened");
            let before = end();
            let value = noise(&mut self.chance, 70_000);
            producer.send(NewEvent::text(&value)).await.expect("room").await.expect("an answer");
            self.expected.streams.entry("late").or_default().push(value);
            self.expected.producers.insert(("late", id), 0);
            producer.close().await.expect("the producer is closed");
            if end() > before {
                last = before;
            }
        }
        until("there are two logs and the batches of the first are in a table", || files(data, &[".log"]).len() == 2 && files(data, &[".sst"]).len() > tables);
        (first, last)
    }

    async fn ack(&mut self, client: &Client, stream: &'static str, subscription: &'static str, next: u64) {
        let mut consumer = client.consumer(stream).subscription(subscription).create().open().await.expect("a reader is attached");
        while consumer.position() < next {
            consumer.next_event().await.expect("an event").expect("no error");
        }
        assert_eq!(consumer.ack(next - 1).await.expect("the ack is durable"), next);
        consumer.close().await;
        self.expected.cursors.insert((stream, subscription), next);
    }
}

/// Makes one; it takes about a second.
pub fn make(shape: Shape) -> Made {
    let dir = scratch();
    let data = dir.path().join("data");
    // A table of batches takes half of it.
    let setup = Setup::small().storage("WRITE_BUFFER_BYTES", if shape == Shape::TwoLogs { 4 << 20 } else { 16 << 20 });
    let mut writer = Writer { expected: Expected::default(), chance: Chance::for_test("") };
    let start = |setup: &Setup| -> (Broker, Client) {
        let broker = setup.must_start(&data);
        let client = broker.client(Protocol::Binary);
        (broker, client)
    };

    let (broker, client) = start(&setup);
    block(async {
        for stream in ["early", "big", "late", "shared", "left", "right"] {
            client.admin().create_stream(stream, Map::new()).await.expect("a stream is created");
        }
        writer.produce(&client, "early", 20, 5, 80).await;
        writer.append(&client, "early", 20, 5, 60).await;
        writer.append(&client, "shared", 5, 2, 100).await;
        writer.ack(&client, "early", "reader", 50).await;
    });
    broker.stop();
    let (broker, client) = start(&setup);
    block(async {
        writer.append(&client, "big", 12, 1, 9000).await;
        writer.append(&client, "shared", 5, 2, 100).await;
        writer.produce(&client, "shared", 3, 2, 3000).await;
        writer.ack(&client, "early", "reader", 90).await;
    });
    broker.stop();
    let (broker, client) = start(&setup);
    let wal = || files(&data, &[".log"]).pop().expect("a log with data");
    let end = || data.join("db").join(wal()).metadata().expect("the log").len() as usize;
    let (mut begins, mut earlier) = (Vec::new(), None);
    let (mut before, mut cut) = (Expected::default(), 0..0);
    block(async {
        for _ in 0..6 {
            writer.append(&client, "late", 1, 3, 40).await;
            begins.push(end());
        }
        writer.append(&client, "late", 1, 1, 70_000).await;
        begins.push(end());
        writer.append(&client, "shared", 5, 2, 100).await;
        begins.push(end());
        writer.ack(&client, "early", "reader", 120).await;
        if shape == Shape::TwoLogs {
            earlier = Some(writer.until_a_second_log(&client, &data).await);
        }
        let mut committer = client.committer("mover").await.expect("a committer");
        let mut consumer = client.consumer("early").subscription("reader").open().await.expect("a reader is attached");
        while consumer.position() < 130 {
            consumer.next_event().await.expect("an event").expect("no error");
        }
        before = writer.expected.clone();
        before.streams.insert("left", Vec::new());
        before.streams.insert("right", Vec::new());
        writer.expected = before.clone();
        begins.push(end());
        cut.start = end();
        let bytes = if shape == Shape::Long { 50_000 } else { 30 };
        let name = |name: &str| StreamName::parse(name).expect("a name");
        let mut appends = Vec::new();
        for stream in ["left", "right"] {
            let value = noise(&mut writer.chance, bytes);
            let events = NewEvent::text(&value).into_events().expect("an event");
            appends.push(CommitAppend { stream: name(stream), stream_id: None, events, expected_next_offset: None });
            writer.expected.streams.insert(stream, vec![value]);
        }
        let subscription = SubscriptionName::parse("reader").expect("a name");
        let ack = CommitAck { stream: name("early"), subscription, epoch: consumer.epoch().expect("an epoch"), offset: 129 };
        committer.commit(CommitRequest { acks: vec![ack], appends, ..CommitRequest::default() }).await.expect("it is committed");
        writer.expected.cursors.insert(("early", "reader"), 130);
        cut.end = end();
        let last = sequence(&client).await;
        until("the side file knows it", || recorded(&data) == Some(last));
    });
    let wal: PathBuf = wal().into();
    broker.kill();
    let wal = Box::leak(wal.to_string_lossy().into_owned().into_boxed_str());
    Made { dir, expected: writer.expected, before, wal, last: cut, begins, earlier }
}
