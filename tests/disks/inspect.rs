//! Opens a directory in this process and reads all of it as a client would, then compares it with what was acknowledged.
//!
//! What is allowed: a refusal to open, an error that names what is damaged, or the truth. Anything else is in [`Verdict::wrong`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Once};
use std::time::Duration;

use parking_lot::Mutex;
use tidelog::broker::{Broker, Principal, ReadFrom, ReadRequest, Settings};
use tidelog::log::Engine;
use tidelog::log::rocks::{Rocks, RocksOptions};
use tidelog::types::request::{AppendRequest, Start};
use tidelog::types::{Code, Error, ProducerId, StreamName, SubscriptionName};

use crate::load::block;
use crate::made::Expected;

const OPERATOR: Principal = Principal::Operator;

/// Panics of any thread: none is ever right.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// What came of a directory.
#[derive(Debug, Default)]
pub struct Verdict {
    /// It was not opened: exit code and reason.
    pub refused: Option<(u8, String)>,
    /// Ranges said to be damaged, by stream, both ends included.
    pub damaged: BTreeMap<&'static str, Vec<(u64, u64)>>,
    /// Streams of which something was said to be damaged.
    pub hurt: BTreeSet<&'static str>,
    /// What could not be asked because of an error: streams, cursors, producers.
    pub unreadable: Vec<String>,
    /// Silence, wrong bytes, ends, positions; a panic.
    pub wrong: Vec<String>,
}

impl Verdict {
    /// Everything is there.
    pub fn is_whole(&self) -> bool {
        self.refused.is_none() && self.damaged.is_empty() && self.unreadable.is_empty() && self.wrong.is_empty()
    }
}

fn options(dir: &Path) -> RocksOptions {
    let small = 8 << 20;
    RocksOptions { cache_bytes: small, write_buffer_bytes: small, free_min_bytes: Some(0), ballast_bytes: 0, ..RocksOptions::new(dir) }
}

/// Opens `dir`, reads it, appends to each stream, closes it.
pub fn inspect(dir: &Path, expected: &Expected) -> Verdict {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // Those of tests are named after them, and fail them; those of runtimes and threads of the broker would go unnoticed.
            if std::thread::current().name().is_none_or(|name| !name.contains("::")) {
                PANICS.lock().push(info.to_string());
            }
            before(info);
        }));
    });
    let mut verdict = block(look(dir, expected));
    verdict.wrong.extend(PANICS.lock().iter().map(|panic| format!("a panic: {panic}")));
    verdict
}

async fn look(dir: &Path, expected: &Expected) -> Verdict {
    let mut verdict = Verdict::default();
    let engine: Arc<dyn Engine> = match Rocks::open(options(dir)) {
        Ok(rocks) => Arc::new(rocks),
        Err(error) => {
            verdict.refused = Some((error.exit_code(), error.to_string()));
            return verdict;
        }
    };
    let broker = match Broker::open(engine.clone(), Settings::default()).await {
        Ok(broker) => broker,
        Err(error) => {
            verdict.refused = Some((10, error.to_string()));
            // It may have flushed and compacted; its files are let go of.
            let _ = engine.close().await;
            return verdict;
        }
    };
    for (stream, events) in &expected.streams {
        read(&broker, stream, events, &mut verdict).await;
    }
    for ((stream, subscription), next) in &expected.cursors {
        let found = broker.subscription(&OPERATOR, &name(stream), &SubscriptionName::parse(subscription).expect("a name")).await.map(|s| s.next);
        verdict.compare(&format!("the cursor {subscription}"), found, *next);
    }
    for ((stream, producer), last) in &expected.producers {
        let found = broker.producer(&OPERATOR, Some(&name(stream)), &ProducerId::parse(producer).expect("an id")).await.map(|p| p.last_seq);
        verdict.compare(&format!("the producer {producer} of {stream}"), found, Some(*last));
    }
    match broker.streams(&OPERATOR, Default::default()).await {
        Ok(page) if page.items.len() != expected.streams.len() => verdict.wrong.push(format!("{} streams are listed", page.items.len())),
        Ok(_) => {}
        Err(error) => verdict.fault("the list of streams", &error),
    }
    for (stream, events) in &expected.streams {
        append(&broker, stream, events.len() as u64, &mut verdict).await;
    }
    broker.drain().await;
    let _ = broker.close().await;
    verdict
}

fn name(stream: &str) -> StreamName {
    StreamName::parse(stream).expect("a name")
}

async fn read(broker: &Broker, stream: &'static str, events: &[String], verdict: &mut Verdict) {
    let end = events.len() as u64;
    let mut at = 0;
    while at < end {
        let request = ReadRequest { from: ReadFrom::At(Start::Offset(at)), limit: 40, wait: Duration::ZERO };
        match broker.read(&OPERATOR, &name(stream), request).await {
            Ok(reply) => {
                if reply.next_offset != end {
                    verdict.wrong.push(format!("{stream} ends at {} and not at {end}", reply.next_offset));
                    return;
                }
                if reply.slices.is_empty() {
                    verdict.wrong.push(format!("silence at {at} of {stream}"));
                    return;
                }
                for (offset, event) in reply.slices.iter().flat_map(tidelog::types::Slice::events) {
                    if offset != at || events.get(at as usize).map(String::as_bytes) != Some(event.data) {
                        verdict.wrong.push(format!("{offset} of {stream}, where {at} should be, has {} wrong bytes", event.data.len()));
                        return;
                    }
                    at += 1;
                }
            }
            Err(error) if error.code == Code::DataCorrupt => {
                verdict.hurt.insert(stream);
                let number = |field: &str| error.details.get(field).and_then(serde_json::Value::as_u64);
                let (Some(from), Some(to)) = (number("from"), number("to")) else {
                    verdict.wrong.push(format!("{stream}: a damage without a range: {error:?}"));
                    return;
                };
                if from > at {
                    // The end of the stream itself is damaged, so where it ends is not known: nothing of it is served.
                    verdict.unreadable.push(format!("{stream}: {error}"));
                    return;
                }
                if to < at {
                    verdict.wrong.push(format!("{stream}: the damage at {at} is said to be {from} to {to}"));
                    return;
                }
                verdict.damaged.entry(stream).or_default().push((from, to));
                at = to.saturating_add(1);
            }
            Err(error) => return verdict.fault(stream, &error),
        }
    }
    if end == 0 {
        match broker.stream(&OPERATOR, &name(stream)).await {
            Ok(info) if info.next_offset != 0 => verdict.wrong.push(format!("{stream} is not empty, it ends at {}", info.next_offset)),
            Ok(_) => {}
            Err(error) => verdict.fault(stream, &error),
        }
    }
}

/// An event more: it gets the next offset or an error, and never one that is in use.
async fn append(broker: &Broker, stream: &'static str, end: u64, verdict: &mut Verdict) {
    let events = tidelog::client::IntoEvents::into_events(tidelog::client::NewEvent::text("one more")).expect("an event");
    let request = AppendRequest { stream: name(stream), stream_id: None, events, producer: None, expected_next_offset: None };
    match broker.append(&OPERATOR, request).await {
        Ok(appended) if appended.first_offset != Some(end) => {
            verdict.wrong.push(format!("an append to {stream} got {:?} and not {end}", appended.first_offset))
        }
        Ok(_) => {}
        Err(error) => verdict.fault(&format!("an append to {stream}"), &error),
    }
}

impl Verdict {
    fn compare<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: Result<T, Error>, expected: T) {
        match found {
            Ok(found) if found != expected => self.wrong.push(format!("{what} is at {found:?} and not at {expected:?}")),
            Ok(_) => {}
            Err(error) => self.fault(what, &error),
        }
    }

    /// An error of the storage is an honest answer; any other denies what was acknowledged.
    fn fault(&mut self, what: &str, error: &Error) {
        match error.code {
            Code::DataCorrupt | Code::StorageFailed | Code::OutcomeUnknown => self.unreadable.push(format!("{what}: {error}")),
            _ => self.wrong.push(format!("{what}: {error}")),
        }
    }
}
