//! `tidelog store check` on damaged directories: rows and batches changed through the engine, so that every checksum is right, and bytes
//! flipped in files, so that one is wrong. Each must be found, and called what it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidelog::client::NewEvent;
use tidelog::log::rows::{self, value};
use tidelog::log::{DeleteRange, Engine as _, IdempotencyRow, Key, Lane, ProducerKey, ReadLimits, RowKey, Space, WriteSet};
use tidelog::types::batch::Stamp;
use tidelog::types::{Batch, EventsBuilder, OperationId, PrincipalId, ProducerId, StreamId, SubscriptionId, TimeUs};

use crate::closed::{SAMPLE, copied, engine, sound};
use crate::process::{Broker, store_check};

/// What a damage may look at: the rows as they are.
struct Store {
    engine: tidelog::log::rocks::Rocks,
    s: StreamId,
    reader: SubscriptionId,
    p: ProducerKey,
}

impl Store {
    async fn row<M: prost::Message + Default>(&self, key: Key<'_>) -> M {
        let found = self.engine.get(vec![key.encode()]).await.expect("it reads");
        rows::decode(found[0].as_ref().unwrap_or_else(|| panic!("there is no {key:?}"))).expect("a row")
    }

    async fn batches(&self) -> Vec<Arc<Batch>> {
        self.engine.read(self.s, 0, ReadLimits { until: u64::MAX, bytes: 64 << 20, batches: 10_000, not_below: 0 }).await.expect("batches")
    }
}

fn batch(stream: StreamId, base_offset: u64, bytes_before: u64, log_epoch: u64) -> Arc<Batch> {
    let mut events = EventsBuilder::with_capacity(64);
    events.push(&NewEvent::text("forged").as_ref()).expect("an event");
    // Later than any other.
    let stamp = Stamp { base_offset, time: TimeUs(1 << 60), log_epoch, author_user: 1, author_source: 0, bytes_before };
    Arc::new(events.finish().expect("events").stamp(stream, stamp))
}

fn put(key: Key<'_>, row: &impl prost::Message) -> WriteSet {
    WriteSet { rows: vec![(key.encode(), Some(rows::encode(row)))], ..Default::default() }
}

fn id(key: Key<'_>, id: u64) -> WriteSet {
    WriteSet { rows: vec![(key.encode(), Some(id.to_be_bytes().to_vec()))], ..Default::default() }
}

fn delete(key: Key<'_>) -> WriteSet {
    WriteSet { rows: vec![(key.encode(), None)], ..Default::default() }
}

fn drop_batches(stream: StreamId, from: u64, to: Option<u64>) -> WriteSet {
    WriteSet { ranges: vec![DeleteRange::Batches { stream, from, to }], ..Default::default() }
}

fn add_batch(batch: Arc<Batch>) -> WriteSet {
    WriteSet { appends: vec![batch], ..Default::default() }
}

/// Damages a copy through the engine; the check must find it and say `words`, about the stream if `of_stream`.
async fn found(words: &str, damage: impl AsyncFnOnce(&Store) -> WriteSet) {
    let (_dir, data) = copied();
    let store = Store {
        engine: engine(&data),
        s: StreamId(SAMPLE.s),
        reader: SubscriptionId(SAMPLE.reader),
        p: ProducerKey::of_stream(StreamId(SAMPLE.s), ProducerId::parse("p").expect("an id")),
    };
    let set = damage(&store).await;
    let position = store.engine.position(Lane(0)).await.expect("a position");
    store.engine.commit(Lane(0), position, set).await.expect("the damage is stored");
    store.engine.close().await.expect("it closes");
    let said = store_check(&data, &[]);
    let damages = said.json["damages"].as_array().cloned().unwrap_or_default();
    let told = damages.iter().any(|damage| damage["what"].as_str().is_some_and(|what| what.contains(words)));
    assert!(said.code == Some(1) && told, "{words:?} is not told (exit {:?}):\n{:#?}\n{}", said.code, damages, said.stderr);
    assert!(damages.iter().all(|damage| damage["advice"].as_str().is_some_and(|advice| !advice.is_empty())), "a damage without advice: {damages:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_batches_are_found() {
    found("no batch holds them", async |store| drop_batches(store.s, 30, Some(33))).await;
    found("the first batch begins at 3", async |store| drop_batches(store.s, 0, Some(3))).await;
    found("acknowledged events are missing", async |store| drop_batches(store.s, 120, None)).await;
    found("two batches hold", async |store| add_batch(batch(store.s, 31, 0, 1))).await;
    found("counts 0 bytes before it", async |store| add_batch(batch(store.s, store.batches().await.last().expect("a batch").head.end(), 0, 1))).await;
    found("the batch is of log epoch 9", async |store| {
        let last = store.batches().await.last().expect("a batch").head;
        add_batch(batch(store.s, last.end(), last.bytes_end(), 9))
    })
    .await;
    found("never created", async |_| add_batch(batch(StreamId(999), 0, 0, 1))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_bounds_and_streams_are_found() {
    found("no bounds row", async |store| delete(Key::Bounds(store.s))).await;
    found("bounds belongs to stream 999", async |_| put(Key::Bounds(StreamId(999)), &value::Bounds::default())).await;
    found("had been assigned", async |store| put(Key::Bounds(store.s), &value::Bounds { next_offset: 5000, ..store.row(Key::Bounds(store.s)).await })).await;
    found("bytes before the first event", async |store| put(Key::Bounds(store.s), &value::Bounds { first_offset: 1, ..store.row(Key::Bounds(store.s)).await }))
        .await;
    found("after its first offset", async |store| put(Key::Bounds(store.s), &value::Bounds { first_base: 3, ..store.row(Key::Bounds(store.s)).await })).await;
    found("its epoch floor is 77", async |store| put(Key::Bounds(store.s), &value::Bounds { epoch_floor: 77, ..store.row(Key::Bounds(store.s)).await })).await;
    found("which does not exist", async |store| delete(Key::Stream(store.s))).await;
    found("index by name does not have it", async |_| delete(Key::StreamName("s"))).await;
    found("index by name leads to something else", async |_| id(Key::StreamName("s"), 4)).await;
    found("index by name leads to stream 999", async |_| id(Key::StreamName("nobody"), 999)).await;
    found("another entry of the index by name", async |store| id(Key::StreamName("alias"), store.s.0)).await;
    found("index by owner does not have it", async |store| delete(Key::StreamOwner(1, store.s))).await;
    found("index by uuid leads to stream 999", async |_| id(Key::StreamUuid(uuid::Uuid::from_u128(5)), 999)).await;
    found("no operation does it", async |store| put(Key::Stream(store.s), &value::Stream { deleting: true, ..store.row(Key::Stream(store.s)).await })).await;
    found("deletes stream 999, which does not exist", async |_| {
        let row = value::Operation { command: "stream.Delete".into(), status_code: 103, stream_id: 999, ..Default::default() };
        put(Key::Operation(OperationId(uuid::Uuid::from_u128(7))), &row)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_producers_receipts_and_keys_are_found() {
    found("its last sequence number is", async |store| {
        put(Key::Producer(&store.p), &value::Producer { last_seq: Some(500), ..store.row(Key::Producer(&store.p)).await })
    })
    .await;
    found("its epoch is 99", async |store| put(Key::Producer(&store.p), &value::Producer { epoch: 99, ..store.row(Key::Producer(&store.p)).await })).await;
    found("belongs to a producer that does not exist", async |store| delete(Key::Producer(&store.p))).await;
    found("the receipt of its batch 70 is missing", async |store| delete(Key::Receipt(&store.p, 6))).await;
    found("are not the ones that were acknowledged there", async |store| {
        put(Key::Receipt(&store.p, 6), &value::Receipt { fingerprint: vec![1; 16], ..store.row(Key::Receipt(&store.p, 6)).await })
    })
    .await;
    found("does not follow that of seq", async |store| {
        put(Key::Receipt(&store.p, 6), &value::Receipt { first_seq: 3, ..store.row(Key::Receipt(&store.p, 6)).await })
    })
    .await;
    found("acknowledged events are missing", async |store| {
        put(Key::Receipt(&store.p, 15), &value::Receipt { base_offset: 900, ..store.row(Key::Receipt(&store.p, 15)).await })
    })
    .await;
    found("has no answer to give", async |_| {
        let tx = ProducerKey::of_user(1, ProducerId::parse("tx").expect("an id"));
        put(Key::Receipt(&tx, 0), &value::Receipt { first_seq: 0, count: 1, base_offset: 0, fingerprint: vec![1; 16], answer: None })
    })
    .await;
    found("an idempotency key was acknowledged 1 events from 900 on", async |store| {
        let row = IdempotencyRow { stream: store.s, principal: PrincipalId::User(1), hash: 5 };
        put(Key::Idempotency(&row), &value::Idempotency { fingerprint: vec![1; 16], base_offset: 900, count: 1, dedup_until_us: 0 })
    })
    .await;
    found("an idempotency key: the events at 0", async |store| {
        let row = IdempotencyRow { stream: store.s, principal: PrincipalId::User(1), hash: 5 };
        put(Key::Idempotency(&row), &value::Idempotency { fingerprint: vec![1; 16], base_offset: 0, count: 3, dedup_until_us: 0 })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_subscriptions_and_counters_are_found() {
    let cursor = |store: &Store| (store.s, store.reader);
    found("the cursor of Reader is at 900", async |store| {
        let (s, reader) = cursor(store);
        put(Key::Cursor(s, reader), &value::Cursor { next: 900, ..store.row(Key::Cursor(s, reader)).await })
    })
    .await;
    found("the session epoch of Reader is 99", async |store| {
        let (s, reader) = cursor(store);
        put(Key::Cursor(s, reader), &value::Cursor { epoch: 99, ..store.row(Key::Cursor(s, reader)).await })
    })
    .await;
    found("has no cursor", async |store| delete(Key::Cursor(store.s, store.reader))).await;
    found("a cursor belongs to no subscription", async |store| delete(Key::Subscription(store.s, store.reader))).await;
    found("cannot be found by its name", async |store| delete(Key::SubscriptionName(store.s, "reader"))).await;
    found("leads to no subscription", async |store| id(Key::SubscriptionName(store.s, "ghost"), 55)).await;
    found("it would be used twice", async |store| put(Key::Counters, &value::Counters { next_stream_id: 1, ..store.row(Key::Counters).await })).await;
    found("subscription Reader has the id 1", async |store| put(Key::Counters, &value::Counters { next_subscription_id: 1, ..store.row(Key::Counters).await }))
        .await;
    found("the counters are missing", async |_| delete(Key::Counters)).await;
    found("the format row is missing", async |_| delete(Key::Format)).await;
    found("does not decode", async |store| WriteSet { rows: vec![(Key::Cursor(store.s, store.reader).encode(), Some(vec![0xff]))], ..Default::default() })
        .await;
    found("a kind that this version does not know", async |_| WriteSet {
        rows: vec![(RowKey { space: Space::State, bytes: vec![99, 1] }, Some(Vec::new()))],
        ..Default::default()
    })
    .await;
}

/// Alice is user 2; her source is 1 (`people` in `closed.rs`).
#[tokio::test(flavor = "multi_thread")]
async fn damaged_users_sources_keys_and_rights_are_found() {
    let (alice, feed) = (PrincipalId::User(2), PrincipalId::Source(1));
    let source = async |store: &Store| store.row::<value::Source>(Key::Source(1)).await;
    let key_of = async |store: &Store| -> [u8; 9] { source(store).await.key_id.try_into().expect("the public part of a key") };
    found("user 99 has an id that was not given out", async |store| put(Key::User(99), &store.row::<value::User>(Key::User(2)).await)).await;
    found("by name does not lead to user 2", async |_| delete(Key::UserName("alice"))).await;
    found("leads to user 2, who has another name", async |_| id(Key::UserName("bob"), 2)).await;
    found("leads to user 2, who does not exist", async |_| delete(Key::User(2))).await;
    found("belongs to user 2, who does not exist", async |_| delete(Key::User(2))).await;
    found("source 99 has an id that was not given out", async |store| put(Key::Source(99), &source(store).await)).await;
    found("by owner does not have source 1", async |_| delete(Key::SourceOwner(2, 1))).await;
    found("gives source 1 to user 7", async |_| id(Key::SourceOwner(7, 1), 0)).await;
    found("by name does not lead to source 1", async |_| delete(Key::SourceName(2, rows::name_hash("feed")))).await;
    found("leads to source 1; it has another name", async |_| id(Key::SourceName(2, rows::name_hash("other")), 1)).await;
    found("the key of source 1 does not exist", async |store| delete(Key::ApiKey(&key_of(store).await))).await;
    found("good for source 1, which does not have it", async |store| {
        put(Key::ApiKey(&[7; 9]), &store.row::<value::ApiKey>(Key::ApiKey(&key_of(store).await)).await)
    })
    .await;
    found("the key of source 1 is somebody else's", async |store| {
        let id = key_of(store).await;
        put(Key::ApiKey(&id), &value::ApiKey { source: 5, ..store.row(Key::ApiKey(&id)).await })
    })
    .await;
    found("has 3 bytes, not 32", async |store| {
        let id = key_of(store).await;
        put(Key::ApiKey(&id), &value::ApiKey { hash: vec![1; 3], ..store.row(Key::ApiKey(&id)).await })
    })
    .await;
    found("never ends", async |_| {
        let session = value::ApiKey { kind: value::api_key::Kind::Session as i32, user: 2, hash: vec![1; 32], ..Default::default() };
        put(Key::ApiKey(&[8; 9]), &session)
    })
    .await;
    found("the index of keys by name does not lead", async |_| delete(Key::KeyName(2, "laptop"))).await;
    found("leads to key", async |store| WriteSet { rows: vec![(Key::KeyName(2, "other").encode(), Some(key_of(store).await.to_vec()))], ..Default::default() })
        .await;
    found("on stream 999, which does not exist", async |_| put(Key::Right(StreamId(999), alice), &value::Right { actions: 1 })).await;
    found("does not stand among the rights of", async |store| delete(Key::RightOf(feed, store.s))).await;
    found("that does not stand among the rights on it", async |store| delete(Key::Right(store.s, feed))).await;
    found("or is another there", async |store| put(Key::Right(store.s, feed), &value::Right { actions: 7 })).await;
}

/// A principal's right on a stream that is gone leads nowhere, and goes with the principal.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_on_a_stream_that_is_gone_is_no_damage() {
    let (_dir, data) = copied();
    let engine = engine(&data);
    let position = engine.position(Lane(0)).await.expect("a position");
    let left = put(Key::RightOf(PrincipalId::User(2), StreamId(999)), &value::Right { actions: 3 });
    engine.commit(Lane(0), position, left).await.expect("it is stored");
    engine.close().await.expect("it closes");
    let said = store_check(&data, &[]);
    sound(&said);
    let counts = &said.json["counts"];
    assert_eq!((&counts["users"], &counts["sources"], &counts["keys"], &counts["rights"]), (&1.into(), &1.into(), &3.into(), &2.into()), "{counts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_a_deleted_stream_that_came_back_are_counted_and_no_damage() {
    let (_dir, data) = copied();
    let engine = engine(&data);
    // The stream `gone` had one of the first ids; nobody has it now.
    let streams: Vec<_> = (1..=5).map(|id| Key::Stream(StreamId(id)).encode()).collect();
    let taken = engine.get(streams).await.expect("it reads");
    let gone = (1..=5).zip(&taken).find(|(_, row)| row.is_none()).expect("the id of the deleted stream").0;
    let position = engine.position(Lane(0)).await.expect("a position");
    engine.commit(Lane(0), position, add_batch(batch(StreamId(gone), 0, 0, 1))).await.expect("it is stored");
    engine.close().await.expect("it closes");
    let said = store_check(&data, &[]);
    sound(&said);
    assert_eq!(said.json["counts"]["leftover_batches"], 1);
}

fn flip(path: &Path, at: u64) {
    let mut bytes = std::fs::read(path).expect("it can be read");
    bytes[at as usize] ^= 0x10;
    std::fs::write(path, bytes).expect("it can be written");
}

fn files(data: &Path, extension: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(data.join("db")).expect("a directory").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|e| e == extension)).filter(|path| path.metadata().is_ok_and(|m| m.len() > 0)).collect();
    files.sort();
    files
}

#[test]
fn a_flipped_byte_in_any_table_or_value_file_is_found() {
    let (_dir, data) = copied();
    Broker::start(&data, &[]).stop();
    sound(&store_check(&data, &[]));
    let mut flips = 0;
    for path in files(&data, "sst").into_iter().chain(files(&data, "blob")) {
        let good = std::fs::read(&path).expect("it can be read");
        let length = good.len() as u64;
        // Somewhere in the data, in what stands behind it, and in the foot.
        for at in [length / 4, length / 2, length - 30] {
            flip(&path, at);
            let said = store_check(&data, &[]);
            assert_eq!(said.code, Some(1), "byte {at} of {} in {}: {} {}", length, path.display(), said.json, said.stderr);
            std::fs::write(&path, &good).expect("it can be written");
            flips += 1;
        }
    }
    assert!(flips >= 9, "tables of three families and a value: {flips}");
    sound(&store_check(&data, &[]));
}

#[test]
fn a_flipped_byte_in_the_log_is_found_and_a_torn_end_is_a_note() {
    let (_dir, data) = copied();
    let log = files(&data, "log").pop().expect("the broker was killed, so its log is there");
    let good = std::fs::read(&log).expect("it can be read");
    flip(&log, good.len() as u64 / 2);
    let said = store_check(&data, &[]);
    assert_eq!(said.code, Some(1), "{} {}", said.json, said.stderr);
    assert!(said.json["damages"][0]["what"].as_str().is_some_and(|what| what.contains("write-ahead log")), "{}", said.json);
    // A group that was being written when the machine died.
    let mut torn = good.clone();
    torn.extend_from_slice(&[0x41; 40]);
    std::fs::write(&log, &torn).expect("it can be written");
    let said = store_check(&data, &[]);
    sound(&said);
    assert!(said.json["notes"][0].as_str().is_some_and(|note| note.contains("never acknowledged")), "{}", said.json);
}

#[test]
fn s7_an_end_below_the_known_durable_position_is_found() {
    let (_dir, data) = copied();
    let log = files(&data, "log").pop().expect("a log");
    let good = std::fs::read(&log).expect("it can be read");
    std::fs::write(&log, &good[..good.len() / 2]).expect("it can be written");
    // As a clean stop would have left it.
    let (_later, later) = copied();
    Broker::start(&later, &[]).stop();
    std::fs::copy(later.join("durable"), data.join("durable")).expect("it can be copied");
    let said = store_check(&data, &[]);
    assert_eq!(said.code, Some(1), "{} {}", said.json, said.stderr);
    assert!(said.json["damages"].to_string().contains("S-7"), "{}", said.json);
    std::fs::write(&log, &good).expect("it can be written");
    std::fs::remove_file(data.join("durable")).expect("it is there");
    let said = store_check(&data, &[]);
    sound(&said);
    assert!(said.json["notes"][0].as_str().is_some_and(|note| note.contains("durable")), "{}", said.json);
}
