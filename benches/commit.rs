//! The commit loop against RocksDB alone, and how well it groups small callers. `cargo bench --bench commit` prints a table
//! (`-- 1 16` only the rows of these batch sizes).
//!
//! Loop and yardstick write the same bytes in the same number of batches per synced write, in turns, in one run: the
//! machine's noise hits both.

#![allow(missing_docs, reason = "a bench has no readers of its API")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidelog::broker::{Broker, Principal, Settings};
use tidelog::log::rocks::{Rocks, RocksOptions, raw_write};
use tidelog::types::request::{AppendRequest, Expect, OpenProducerRequest, ProducerStamp};
use tidelog::types::{EventRef, Events, EventsBuilder, ProducerId, StreamName};

fn events(count: usize) -> Events {
    let data = format!("\"{}\"", "x".repeat(254));
    let mut builder = EventsBuilder::default();
    for _ in 0..count {
        builder.push(&EventRef { data: data.as_bytes(), ..Default::default() }).expect("valid events");
    }
    builder.finish().expect("a valid batch")
}

fn groups(broker: &Broker) -> f64 {
    broker.metrics().iter().find(|(name, ..)| *name == "tidelog_commits").map_or(0.0, |(.., value)| *value)
}

async fn broker(dir: &std::path::Path) -> Broker {
    let engine = Rocks::open(RocksOptions::new(dir)).expect("the engine opens");
    let settings = Settings { create_streams_on_use: true, ..Settings::default() };
    Broker::open(Arc::new(engine), settings).await.expect("the broker opens")
}

/// One pipelining client: batches of `size` events, `window` of them outstanding, as an idempotent producer or without.
async fn pipelined(broker: &Broker, size: usize, batches: usize, window: usize, idempotent: bool) -> (Duration, f64) {
    let stream = StreamName::parse("pipelined").expect("a valid name");
    let id = ProducerId::parse("p").expect("a valid id");
    let mut connection = broker.connect(Principal::Operator);
    let open = OpenProducerRequest { stream: Some(stream.clone()), stream_id: None, producer: id.clone(), expect: Expect::Any };
    let opened = connection.open_producer(open).await.await.expect("the producer opens");
    let mut seq = opened.last_seq.map_or(0, |last| last + 1);
    let all: Vec<Events> = (0..batches).map(|_| events(size)).collect();
    let (before, began) = (groups(broker), Instant::now());
    let mut pending = std::collections::VecDeque::new();
    for events in all {
        let producer = idempotent.then(|| ProducerStamp { id: id.clone(), epoch: opened.epoch, seq });
        seq += size as u64;
        let request = AppendRequest { stream: stream.clone(), stream_id: None, events, producer, expected_next_offset: None };
        pending.push_back(connection.append(request).await);
        if pending.len() >= window {
            pending.pop_front().expect("it is not empty").await.expect("the append is stored");
        }
    }
    for answer in pending {
        answer.await.expect("the append is stored");
    }
    (began.elapsed(), groups(broker) - before)
}

/// `clients` callers with one outstanding single-event append each.
async fn lockstep(broker: &Broker, clients: usize, each: usize) -> (Duration, f64) {
    let (before, began) = (groups(broker), Instant::now());
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let broker = broker.clone();
            tokio::spawn(async move {
                let stream = StreamName::parse(&format!("lockstep-{client}")).expect("a valid name");
                let mut connection = broker.connect(Principal::Operator);
                for _ in 0..each {
                    let request = AppendRequest { stream: stream.clone(), stream_id: None, events: events(1), producer: None, expected_next_offset: None };
                    connection.append(request).await.await.expect("the append is stored");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("the client ends");
    }
    (began.elapsed(), groups(broker) - before)
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    // `cargo bench` and `cargo test --benches` pass flags of their own; a test run only shows that the bench works.
    let short = std::env::args().any(|arg| arg == "--test");
    // Numbers name the batch sizes to run; without any, all of it runs.
    let sizes: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let (rounds, each) = if short { (1, 20) } else { (5, 1500) };

    println!("pipelined batches of 256 B events: the loop against RocksDB alone, same rows, same batches per synced write");
    println!("{:>8} {:>12} {:>10} {:>14} {:>14} {:>14} {:>8}", "batch", "identity", "round", "per sync", "loop ev/s", "raw ev/s", "ratio");
    let sizes_asked = [1, 16, 256].into_iter().filter(|size| sizes.is_empty() || sizes.contains(size));
    for (size, idempotent) in sizes_asked.flat_map(|size| [(size, false), (size, true)]) {
        let identity = if idempotent { "producer" } else { "none" };
        // Long enough that a round is not a matter of luck, also where a batch is a single event.
        let batches = if short { 20 } else { 32_768 / size.isqrt() };
        let mut ratios = Vec::new();
        for round in 1..=rounds {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let (spent, groups) = runtime.block_on(async {
                let broker = broker(dir.path()).await;
                pipelined(&broker, size, batches / 10, 64, idempotent).await;
                let result = pipelined(&broker, size, batches, 64, idempotent).await;
                broker.close().await.expect("the broker closes");
                result
            });
            let per_sync = (batches as f64 / groups).round().max(1.0) as usize;
            let raw_dir = tempfile::tempdir().expect("a temporary directory");
            let value = vec![0x55u8; events(size).encoded().len() + 60];
            let raw = raw_write(raw_dir.path(), (0..batches).map(|_| value.clone()), per_sync, idempotent).expect("the raw write works");
            let rate = |spent: Duration| (size * batches) as f64 / spent.as_secs_f64();
            ratios.push(rate(spent) / rate(raw));
            println!("{size:>8} {identity:>12} {round:>10} {per_sync:>14} {:>14.0} {:>14.0} {:>8.2}", rate(spent), rate(raw), rate(spent) / rate(raw));
        }
        ratios.sort_by(f64::total_cmp);
        println!("{size:>8} {identity:>12} {:>10} {:>14} {:>14} {:>14} {:>8.2}", "median", "", "", "", ratios[ratios.len() / 2]);
    }

    if !sizes.is_empty() {
        return;
    }
    println!("\nclients with one outstanding single-event append each");
    println!("{:>8} {:>14} {:>14}", "clients", "events/s", "events/sync");
    for clients in [1, 4, 16, 64] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (spent, groups) = runtime.block_on(async {
            let broker = broker(dir.path()).await;
            lockstep(&broker, clients, each / 10).await;
            let result = lockstep(&broker, clients, each).await;
            broker.close().await.expect("the broker closes");
            result
        });
        let events = (clients * each) as f64;
        println!("{clients:>8} {:>14.0} {:>14.1}", events / spent.as_secs_f64(), events / groups);
    }
}
