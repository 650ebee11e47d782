//! Reading at the end: streams over every carrier, tables of consumers.

use std::path::Path;

use http::Method;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use tidelog::client::{Client, Delivery, Protocol};
use tidelog::types::Code;
use tidelog::types::request::Start;

use crate::history::{Log, Seen, Side, Stored, Table, hash};
use crate::process::Broker;

/// A whole stream over REST: this is called the log.
pub async fn log(client: &Client, stream: &str) -> Log {
    try_log(client, stream).await.unwrap_or_else(|| panic!("there is no stream {stream}"))
}

/// The same; `None` if there is no such stream.
pub async fn try_log(client: &Client, stream: &str) -> Option<Log> {
    let object = match client.admin().stream(stream).await {
        Ok(object) => object,
        Err(error) if error.code() == Some(Code::NotFound) => return None,
        Err(error) => panic!("stream {stream}: {error}"),
    };
    let log_epoch = object.rest.get("log_epoch").and_then(Value::as_u64).expect("a stream has a log epoch");
    let mut log = Log { id: object.id, log_epoch, first: object.state.first_offset, next: object.state.next_offset, events: Vec::new() };
    let mut from = log.first;
    while from < log.next {
        let page = client.admin().call::<Value>(Method::GET, &format!("/v1/streams/{stream}/events?from={from}&limit=10000"), None).await;
        // What cannot be read is not there: I-1, I-5 and others say so.
        let Ok(page) = page.inspect_err(|error| println!("  {stream} cannot be read from {from} on: {error}")) else { break };
        let events = page["events"].as_array().expect("events");
        assert!(!events.is_empty(), "the page from {from} of {stream} is empty, the stream ends at {}", log.next);
        for event in events {
            let number = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
            let offset = event["offset"].as_u64().expect("an offset");
            log.events.push(Stored { offset, data: event["data"].as_str().expect("text").to_owned(), source: number(&event["headers"]["source-offset"]) });
            from = offset + 1;
        }
    }
    Some(log)
}

/// A whole stream as an ephemeral reader gets it.
pub async fn follow(broker: &Broker, reader: &'static str, protocol: Protocol, stream: &str, next: u64) -> Vec<Seen> {
    let mut consumer = broker.client(protocol).consumer(stream).from(Start::Earliest).open().await.unwrap_or_else(|e| panic!("{reader}: {e}"));
    let mut seen = Vec::new();
    while consumer.position() < next {
        match consumer.next().await {
            Some(Ok(Delivery::Event(event))) => {
                seen.push(Seen { reader, stream_id: event.stream_id.0, log_epoch: event.log_epoch, offset: event.offset, hash: hash(&event.data) });
            }
            Some(Ok(Delivery::Live { .. })) => {}
            other => panic!("{reader} expected an event and got {other:?}"),
        }
    }
    consumer.close().await;
    seen
}

fn read_only(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    db.busy_timeout(std::time::Duration::from_millis(200))?;
    Ok(db)
}

/// All effects of a consumer, in the order in which they happened.
pub fn table(path: &Path, name: &'static str) -> Table {
    let db = read_only(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut rows = db.prepare("SELECT log_offset, data FROM effects ORDER BY position").expect("a table of effects");
    let rows = rows.query_map([], |row| Ok((row.get::<_, i64>(0)? as u64, hash(&row.get::<_, Vec<u8>>(1)?)))).expect("rows");
    Table { name, rows: rows.collect::<Result<_, _>>().expect("rows can be read") }
}

/// How many effects there are and one past the highest offset; nothing while the table is not there or busy.
pub fn progress(path: &Path) -> Option<(u64, u64)> {
    let count = "SELECT count(*), ifnull(max(log_offset) + 1, 0) FROM effects";
    read_only(path).ok()?.query_row(count, [], |row| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64))).ok()
}

/// What is left of streams that come and go: the log of each life that is there.
pub async fn sides(client: &Client, sides: &mut [Side]) {
    let names: std::collections::BTreeSet<String> = sides.iter().map(|side| side.name.clone()).collect();
    for name in names {
        let Some(log) = try_log(client, &name).await else { continue };
        match sides.iter_mut().find(|side| side.id == log.id) {
            Some(side) => side.log = Some(log),
            // Created by a request whose answer got lost, and by nobody else.
            None => assert!(log.events.is_empty(), "stream {name} has id {}, which nobody was told, and holds {} events", log.id, log.events.len()),
        }
    }
}
