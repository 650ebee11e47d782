//! What asking who may do what costs. `cargo bench --bench access` prints two tables: appends and deliveries of the operator, who may do
//! everything, beside those of a source key, whose right is looked at each time; and starting the real binary beside many keys and rights.
//! (`-- rate`, `rows` print one.)
//!
//! The rates are measured inside of the process, without a socket: what authorization adds is then the largest part it can be. Processor time
//! is the better figure on a machine that does other things too.

#![allow(missing_docs, reason = "a bench has no readers of its API")]

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidelog::broker::{Broker, Delivery, NewSource, NewStream, Principal, PrincipalRef, Right, Settings};
use tidelog::log::rocks::{Rocks, RocksOptions};
use tidelog::log::rows::{self, value};
use tidelog::log::{Engine, Key, WriteSet};
use tidelog::types::request::{AppendRequest, Credit, Start, SubscribeRequest};
use tidelog::types::{Action, EventRef, Events, EventsBuilder, PrincipalId, Slice, StreamId, StreamName};

const OPERATOR: Principal = Principal::Operator;

fn event() -> Events {
    let data = format!("\"{}\"", "x".repeat(254));
    let mut builder = EventsBuilder::default();
    builder.push(&EventRef { data: data.as_bytes(), ..Default::default() }).expect("a valid event");
    builder.finish().expect("a valid batch")
}

/// Single events, 64 outstanding.
async fn append(broker: &Broker, who: &Principal, stream: &StreamName, count: usize) -> f64 {
    let (mut connection, events) = (broker.connect(who.clone()), event());
    let (mut pending, began) = (VecDeque::new(), Instant::now());
    for _ in 0..count {
        let request = AppendRequest { stream: stream.clone(), stream_id: None, events: events.clone(), producer: None, expected_next_offset: None };
        pending.push_back(connection.append(request).await);
        if pending.len() >= 64 {
            pending.pop_front().expect("it is not empty").await.expect("the append is stored");
        }
    }
    for answer in pending {
        answer.await.expect("the append is stored");
    }
    count as f64 / began.elapsed().as_secs_f64()
}

/// All of the stream, pushed.
async fn deliver(broker: &Broker, who: &Principal, stream: &StreamName, count: u64) -> f64 {
    let mut request = SubscribeRequest::new(stream.clone(), None);
    request.from = Some(Start::Earliest);
    request.credit = Some(Credit { events: u64::MAX, bytes: u64::MAX });
    let (_, mut session) = broker.open_session(who, request).await.expect("a reader");
    let (mut heard, began) = (0, Instant::now());
    while heard < count {
        if let Delivery::Events { slices, .. } = session.next().await.expect("it goes on") {
            heard += slices.iter().map(Slice::count).sum::<u64>();
        }
    }
    heard as f64 / began.elapsed().as_secs_f64()
}

/// Of this process so far, all of its threads.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat[stat.rfind(')').expect("a name") + 2..].split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}

/// The median in per cent more than one, and the range it lies in with 95 %, from the ranks (whatever the noise looks like).
fn median(mut of: Vec<f64>) -> String {
    of.sort_by(f64::total_cmp);
    let (n, off) = (of.len(), (0.98 * (of.len() as f64).sqrt()) as usize);
    let percent = |at: usize| 100.0 * (of[at.min(n - 1)] - 1.0);
    format!("{:+.1} % (95 %: {:+.1} to {:+.1})", percent(n / 2), percent((n / 2).saturating_sub(off + 1)), percent(n / 2 + off))
}

/// Nanoseconds of one look at a right that is known.
async fn look(broker: &Broker, who: &Principal, stream: &StreamName) -> f64 {
    let (count, began) = (1_000_000, Instant::now());
    for _ in 0..count {
        broker.may(std::hint::black_box(who), std::hint::black_box(stream), Action::Write).await.expect("it may");
    }
    1e9 * began.elapsed().as_secs_f64() / f64::from(count)
}

async fn rates(short: bool) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let engine = Rocks::open(RocksOptions::new(dir.path())).expect("the engine opens");
    let broker = Broker::open(Arc::new(engine), Settings::default()).await.expect("the broker opens");
    let new = NewSource { name: "bench".into(), description: String::new(), owner: None };
    let (source, key) = broker.create_source(&OPERATOR, new).await.expect("a source");
    let program = broker.authenticate(&key).await.expect("a good key");
    let (rounds, count, read) = if short { (2, 100, 100) } else { (300, 8_000, 100_000) };
    let make = async |name: String| {
        let stream = StreamName::parse(&name).expect("a name");
        broker.create_stream(&OPERATOR, NewStream::named(stream.clone())).await.expect("a stream");
        broker.set_right(&OPERATOR, &stream, &PrincipalRef::Source(source.id), Right::ReadWrite).await.expect("a right");
        stream
    };
    let full = make("full".into()).await;
    append(&broker, &OPERATOR, &full, read).await;
    // What each took in all: seconds and processor seconds, appending and reading; and what the source took in each round for one of the operator's.
    let (mut sums, mut ratios) = ([[0.0f64; 4]; 2], [Vec::new(), Vec::new()]);
    for round in 0..rounds {
        let stream = make(format!("round-{round}")).await;
        let mut seconds = [[0.0; 2]; 2];
        // In turns, and each is first as often as the other.
        for turn in [round % 2, 1 - round % 2] {
            let who = [&OPERATOR, &program][turn];
            for (what, seconds) in seconds[turn].iter_mut().enumerate() {
                let cpu = processor_seconds();
                *seconds = match what {
                    0 => count as f64 / append(&broker, who, &stream, count).await,
                    _ => read as f64 / deliver(&broker, who, &full, read as u64).await,
                };
                sums[turn][2 * what] += *seconds;
                sums[turn][2 * what + 1] += processor_seconds() - cpu;
            }
        }
        for (what, ratios) in ratios.iter_mut().enumerate() {
            ratios.push(seconds[1][what] / seconds[0][what]);
        }
    }
    println!("{:>10} {:>14} {:>14} {:>14} {:>14}", "", "append ev/s", "append µs cpu", "deliver ev/s", "deliver µs cpu");
    let (appended, delivered) = ((rounds * count) as f64, (rounds * read) as f64);
    for (name, [a, a_cpu, d, d_cpu]) in ["operator", "source key"].into_iter().zip(sums) {
        println!("{name:>10} {:>14.0} {:>14.3} {:>14.0} {:>14.3}", appended / a, 1e6 * a_cpu / appended, delivered / d, 1e6 * d_cpu / delivered);
    }
    let [of_operator, of_program] = sums;
    let more = |at: usize| 100.0 * (of_program[at] / of_operator[at] - 1.0);
    println!("{:>10} {:>13.1}% {:>13.1}% {:>13.1}% {:>13.1}%", "more", more(0), more(1), more(2), more(3));
    let [appends, deliveries] = ratios.map(median);
    println!("time of a round of {rounds}, in the median: appending {appends}, delivering {deliveries}");
    let (of_operator, of_program) = (look(&broker, &OPERATOR, &full).await, look(&broker, &program, &full).await);
    println!("a look by itself: {of_operator:.0} ns for the operator, {of_program:.0} ns for a source key");
    broker.close().await.expect("the broker closes");
}

/// Time to `ready`, then resident MiB, now and a second later.
fn start(data: &Path) -> (Duration, f64, f64) {
    let began = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tidelog"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("stdout is piped")).read_line(&mut line).expect("a line");
    let took = began.elapsed();
    assert!(line.starts_with("ready"), "{line:?}");
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("the process is there");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
    };
    let first = resident();
    std::thread::sleep(Duration::from_secs(1));
    let second = resident();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it can be told");
    assert!(child.wait().expect("it ends").success(), "a clean stop exits 0");
    (took, first, second)
}

/// As many keys of as many users, and rights on as many streams, written as the broker writes them.
async fn fill(data: &Path, keys: u64, rights: u64) {
    let engine = Rocks::open(RocksOptions::new(data)).expect("the engine opens");
    let lane = engine.lane_of(0);
    let mut position = engine.position(lane).await.expect("a position");
    let mut set = WriteSet::default();
    for number in 0..rights.max(keys) {
        let user = 1000 + number % keys.max(1);
        if number < keys {
            let id: rows::ApiKeyId = *format!("{number:09}").as_bytes().first_chunk().expect("an id");
            let row =
                value::ApiKey { kind: value::api_key::Kind::UserKey as i32, user, hash: vec![7; 32], name: format!("key-{number}"), ..Default::default() };
            set.rows.push((Key::ApiKey(&id).encode(), Some(rows::encode(&row))));
            set.rows.push((Key::KeyName(user, &format!("key-{number}")).encode(), Some(id.to_vec())));
            let row = value::User { name: format!("user-{user}"), ..Default::default() };
            set.rows.push((Key::User(user).encode(), Some(rows::encode(&row))));
        }
        let (stream, principal) = (StreamId(1 + number / 10), PrincipalId::User(user));
        let row = rows::encode(&value::Right { actions: Right::ReadWrite.stored() });
        set.rows.push((Key::Right(stream, principal).encode(), Some(row.clone())));
        set.rows.push((Key::RightOf(principal, stream).encode(), Some(row)));
        if set.rows.len() > 20_000 {
            position = engine.commit(lane, position, std::mem::take(&mut set)).await.expect("it is stored");
        }
    }
    engine.commit(lane, position, set).await.expect("it is stored");
    engine.close().await.expect("the engine closes");
}

async fn many(short: bool) {
    let (keys, rights) = if short { (100, 1000) } else { (100_000, 1_000_000) };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (empty, full) = (dir.path().join("empty"), dir.path().join("full"));
    for data in [&empty, &full] {
        start(data); // made by the binary itself
    }
    fill(&full, keys, rights).await;
    println!("\n{:>32} {:>10} {:>14} {:>18}", "", "ready in s", "resident MiB", "a second later MiB");
    for round in 1..=if short { 1 } else { 3 } {
        for (name, data) in [("empty".to_owned(), &empty), (format!("{keys} keys, {rights} rights"), &full)] {
            let (took, first, second) = start(data);
            println!("{:>32} {:>10.3} {first:>14.1} {second:>18.1}", format!("{round}: {name}"), took.as_secs_f64());
        }
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let asked = |name: &str| std::env::args().any(|arg| arg == name);
    let short = asked("--test");
    if short || !asked("rows") {
        runtime.block_on(rates(short));
    }
    if short || !asked("rate") {
        runtime.block_on(many(short));
    }
}
