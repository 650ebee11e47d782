//! What every rule test needs: a broker on an engine that can be stopped at each commit, requests in one line, exact refusals.

use std::fmt::Debug;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

pub use tidelog::broker::*;
pub use tidelog::log::memory::{Fault, Memory};
use tidelog::log::{Capabilities, Engine, Lane, Position, Pressure, ReadLimits, RowKey, Space, WriteSet};
pub use tidelog::log::{EngineError, Key, ProducerKey};
pub use tidelog::types::reply::*;
pub use tidelog::types::request::*;
pub use tidelog::types::*;

pub const OPERATOR: Principal = Principal::Operator;

/// Long enough for any answer, short enough for a person.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for an effect that has to come.
#[track_caller]
pub fn soon<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move { tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("nothing came within {PATIENCE:?} at {caller}")) }
}

/// Looks for an effect that must not come: gives everything else a fair chance to run first.
#[track_caller]
pub fn nothing_yet<F: Future + Unpin>(future: &mut F) -> impl Future<Output = ()>
where
    F::Output: Debug,
{
    let caller = std::panic::Location::caller();
    async move {
        if let Ok(early) = tokio::time::timeout(Duration::from_millis(40), future).await {
            panic!("this came too early at {caller}: {early:?}");
        }
    }
}

/// Awaits admission and then the answer.
#[track_caller]
pub fn answer<T: Unpin>(admission: impl Future<Output = Pending<T>>) -> impl Future<Output = Result<T>> {
    let caller = std::panic::Location::caller();
    async move {
        let both = async { admission.await.await };
        tokio::time::timeout(PATIENCE, both).await.unwrap_or_else(|_| panic!("no answer within {PATIENCE:?} at {caller}"))
    }
}

// ---------------------------------------------------------------------------------------------------------------- engine

/// One commit as the engine saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub appends: usize,
    /// Kind bytes of the rows of `state`.
    pub state: Vec<u8>,
    /// Kind bytes of the rows of `meta`.
    pub meta: Vec<u8>,
}

/// An engine whose commits can be let through one by one. It also checks that there is never more than one at a time (S-4).
pub struct Stepped {
    inner: Arc<dyn Engine>,
    /// How many commits may pass since the start; `u64::MAX` = all.
    allowed: watch::Sender<u64>,
    /// How many commits have arrived and how many have ended.
    arrived: watch::Sender<u64>,
    ended: watch::Sender<u64>,
    busy: AtomicBool,
    seen: Mutex<Vec<Seen>>,
    /// Reads of these rows do not return.
    held_rows: watch::Sender<Vec<RowKey>>,
    /// How many reads are held so.
    reads_held: watch::Sender<usize>,
    /// The next read of the log is held.
    hold_read: AtomicBool,
    /// A read of the log does not begin.
    read_held: watch::Sender<bool>,
    /// What the next commit is refused with.
    refusal: Mutex<Option<EngineError>>,
}

impl Stepped {
    pub fn over(inner: Arc<dyn Engine>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            allowed: watch::channel(u64::MAX).0,
            arrived: watch::channel(0).0,
            ended: watch::channel(0).0,
            busy: AtomicBool::new(false),
            seen: Mutex::default(),
            held_rows: watch::channel(Vec::new()).0,
            reads_held: watch::channel(0).0,
            hold_read: AtomicBool::new(false),
            read_held: watch::channel(false).0,
            refusal: Mutex::default(),
        })
    }

    /// From now on reads of this row are slow: they see what is there now and return when it is released.
    pub fn hold_row(&self, key: Key<'_>) {
        self.held_rows.send_modify(|held| held.push(key.encode()));
    }

    /// Ends the hold of one row.
    pub fn release_row(&self, key: Key<'_>) {
        let key = key.encode();
        self.held_rows.send_modify(|held| held.retain(|other| *other != key));
    }

    /// The next read of the log sees what is there when it is released, and returns then; those after it pass.
    pub fn hold_next_read(&self) {
        self.read_held.send_replace(true);
        self.hold_read.store(true, Ordering::SeqCst);
    }

    /// Ends that hold.
    pub fn release_read(&self) {
        self.read_held.send_replace(false);
    }

    /// Resolves when so many reads are held.
    pub async fn reads_held(&self, count: usize) {
        let mut reads = self.reads_held.subscribe();
        soon(reads.wait_for(|n| *n == count)).await.expect("the engine is alive");
    }

    /// The next commit meets this refusal; nothing of it is stored.
    pub fn refuse_next(&self, error: EngineError) {
        *self.refusal.lock() = Some(error);
    }

    /// From now on no commit passes.
    pub fn stop(&self) {
        self.allowed.send_replace(*self.arrived.borrow());
    }

    /// Lets `count` more pass and waits until they have.
    pub async fn step(&self, count: u64) {
        let mut target = 0;
        self.allowed.send_modify(|n| {
            *n += count;
            target = *n;
        });
        let mut ended = self.ended.subscribe();
        soon(ended.wait_for(|n| *n >= target)).await.expect("the engine is alive");
    }

    /// Lets everything pass again.
    pub fn go(&self) {
        self.allowed.send_replace(u64::MAX);
    }

    /// Resolves when a commit waits at the gate.
    pub async fn waiting(&self) {
        let allowed = *self.allowed.borrow();
        let mut arrived = self.arrived.subscribe();
        soon(arrived.wait_for(|n| *n > allowed)).await.expect("the engine is alive");
    }

    /// How many commits have ended.
    pub fn commits(&self) -> u64 {
        *self.ended.borrow()
    }

    /// What the commits since the last call held.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock())
    }
}

#[async_trait]
impl Engine for Stepped {
    fn lanes(&self) -> u32 {
        self.inner.lanes()
    }

    fn lane_of(&self, owner: u64) -> Lane {
        self.inner.lane_of(owner)
    }

    async fn position(&self, lane: Lane) -> Result<Position, EngineError> {
        self.inner.position(lane).await
    }

    async fn commit(&self, lane: Lane, expected: Position, set: WriteSet) -> Result<Position, EngineError> {
        assert!(!self.busy.swap(true, Ordering::SeqCst), "S-4: two commits at once");
        let mut seen = Seen { appends: set.appends.len(), ..Seen::default() };
        for (key, _) in &set.rows {
            match key.space {
                Space::State => seen.state.push(key.bytes[0]),
                Space::Meta => seen.meta.push(key.bytes[0]),
            }
        }
        seen.state.sort_unstable();
        seen.meta.sort_unstable();
        let mut number = 0;
        self.arrived.send_modify(|n| {
            *n += 1;
            number = *n;
        });
        let mut allowed = self.allowed.subscribe();
        allowed.wait_for(|n| *n >= number).await.expect("the sender lives in self");
        let refusal = self.refusal.lock().take();
        let result = match refusal {
            Some(refusal) => Err(refusal),
            None => self.inner.commit(lane, expected, set).await,
        };
        self.seen.lock().push(seen);
        self.busy.store(false, Ordering::SeqCst);
        self.ended.send_modify(|n| *n += 1);
        result
    }

    async fn read(&self, stream: StreamId, from: u64, limits: ReadLimits) -> Result<Vec<Arc<Batch>>, EngineError> {
        if self.hold_read.swap(false, Ordering::SeqCst) {
            let mut held = self.read_held.subscribe();
            self.reads_held.send_modify(|n| *n += 1);
            held.wait_for(|held| !*held).await.expect("the sender lives in self");
            self.reads_held.send_modify(|n| *n -= 1);
        }
        self.inner.read(stream, from, limits).await
    }

    async fn last(&self, stream: StreamId, not_below: u64) -> Result<Option<Arc<Batch>>, EngineError> {
        self.inner.last(stream, not_below).await
    }

    async fn get(&self, keys: Vec<RowKey>) -> Result<Vec<Option<Bytes>>, EngineError> {
        // A real disk answers later: whoever does not wait for its row is found out.
        tokio::task::yield_now().await;
        let found = self.inner.get(keys.clone()).await;
        let mut held = self.held_rows.subscribe();
        let is_held = |held: &Vec<RowKey>| keys.iter().any(|key| held.contains(key));
        if is_held(&held.borrow_and_update()) {
            self.reads_held.send_modify(|n| *n += 1);
            held.wait_for(|held| !is_held(held)).await.expect("the sender lives in self");
            self.reads_held.send_modify(|n| *n -= 1);
        }
        found
    }

    async fn scan(&self, prefix: RowKey, after: Option<Vec<u8>>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
        self.inner.scan(prefix, after, limit).await
    }

    async fn follow(&self, lane: Lane, seen: Position) -> Result<Position, EngineError> {
        self.inner.follow(lane, seen).await
    }

    async fn trim(&self, stream: StreamId, before: Option<u64>) -> Result<(), EngineError> {
        self.inner.trim(stream, before).await
    }

    async fn checkpoint(&self, dest: &Path) -> Result<(), EngineError> {
        self.inner.checkpoint(dest).await
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn pressure(&self) -> Pressure {
        self.inner.pressure()
    }

    async fn close(&self) -> Result<(), EngineError> {
        self.inner.close().await
    }
}

// ---------------------------------------------------------------------------------------------------------------- broker

/// Settings that nothing is evicted under.
pub fn roomy() -> Settings {
    Settings { create_streams_on_use: false, tail_bytes: 4 * 1024 * 1024, hot_entries: 10_000, ..Settings::default() }
}

/// Settings that evict everything all the time.
pub fn cramped() -> Settings {
    Settings { create_streams_on_use: false, tail_bytes: 0, hot_entries: 1, ..Settings::default() }
}

/// A broker and the engine below it.
pub struct Bench {
    pub memory: Arc<Memory>,
    pub engine: Arc<Stepped>,
    pub broker: Broker,
    settings: Settings,
}

impl Bench {
    /// An empty broker.
    pub async fn new() -> Self {
        Self::with(roomy()).await
    }

    pub async fn with(settings: Settings) -> Self {
        Self::on(Memory::new(), settings).await
    }

    pub async fn on(memory: Memory, settings: Settings) -> Self {
        let memory = Arc::new(memory);
        let engine = Stepped::over(memory.clone());
        let broker = soon(Broker::open(engine.clone(), settings.clone())).await.expect("the broker opens");
        Self { memory, engine, broker, settings }
    }

    /// An empty broker with one stream.
    pub async fn with_stream(stream: &str) -> Self {
        let bench = Self::new().await;
        bench.create(stream).await;
        bench
    }

    /// The process dies now; a new one starts on what it stored.
    pub async fn crash(self) -> Self {
        self.crash_and(|_| {}).await
    }

    /// The same, with something done to the store in between.
    pub async fn crash_and(self, change: impl FnOnce(&Memory)) -> Self {
        let memory = self.memory.reopen();
        change(&memory);
        Self::on(memory, self.settings).await
    }

    /// A clean stop and a new start.
    pub async fn restart(self) -> Self {
        soon(self.broker.drain()).await;
        soon(self.broker.close()).await.expect("a clean stop");
        self.crash().await
    }

    pub fn connect(&self) -> Connection {
        self.broker.connect(OPERATOR)
    }

    pub async fn create(&self, stream: &str) -> StreamInfo {
        soon(self.broker.create_stream(&OPERATOR, NewStream::named(name(stream)))).await.expect("the stream is created")
    }

    pub async fn describe(&self, stream: &str) -> StreamInfo {
        soon(self.broker.stream(&OPERATOR, &name(stream))).await.expect("the stream is there")
    }

    pub async fn next_offset(&self, stream: &str) -> u64 {
        self.describe(stream).await.next_offset
    }

    pub async fn trim(&self, stream: &str, before: u64) -> StreamInfo {
        soon(self.broker.trim_stream(&OPERATOR, &name(stream), TrimTo::Offset(before))).await.expect("the trim is done")
    }

    pub async fn close(&self, stream: &str) -> StreamInfo {
        soon(self.broker.close_stream(&OPERATOR, &name(stream))).await.expect("the stream is closed")
    }

    /// Deletes a stream and waits until its name is free.
    pub async fn delete(&self, stream: &str) {
        let operation = soon(self.broker.delete_stream(&OPERATOR, &name(stream))).await.expect("the deletion begins");
        let end = soon(self.broker.wait_operation(&OPERATOR, operation.id, PATIENCE)).await.expect("the operation is there");
        assert_eq!((end.status_code, end.err.as_str()), (200, ""), "deleting {stream}");
    }

    pub async fn append(&self, request: AppendRequest) -> Result<Appended> {
        soon(self.broker.append(&OPERATOR, request)).await
    }

    /// Appends plain texts, which has to work; the offsets of the first and the last.
    pub async fn put(&self, stream: &str, texts: &[&str]) -> (u64, u64) {
        let done = self.append(plain(stream, texts)).await.expect("a plain append");
        (done.first_offset.expect("an offset"), done.last_offset.expect("an offset"))
    }

    /// Appends `count` events `e<offset>`, each in a batch of its own.
    pub async fn fill(&self, stream: &str, count: u64) {
        let begin = self.next_offset(stream).await;
        for offset in begin..begin + count {
            self.put(stream, &[&format!("e{offset}")]).await;
        }
    }

    pub async fn subscription(&self, stream: &str, subscription: &str) -> SubscriptionInfo {
        soon(self.broker.subscription(&OPERATOR, &name(stream), &sub(subscription))).await.expect("the subscription is there")
    }

    pub async fn subscribe_new(&self, stream: &str, subscription: &str) -> SubscriptionInfo {
        soon(self.broker.create_subscription(&OPERATOR, &name(stream), new_subscription(subscription))).await.expect("the subscription is created")
    }

    /// The same with a window.
    pub async fn subscribe_new_window(&self, stream: &str, subscription: &str, max_in_flight: u64) -> SubscriptionInfo {
        let new = NewSubscription { max_in_flight: Some(max_in_flight), ..new_subscription(subscription) };
        soon(self.broker.create_subscription(&OPERATOR, &name(stream), new)).await.expect("the subscription is created")
    }

    /// Texts of the whole stream, by stateless reads.
    pub async fn texts(&self, stream: &str) -> Vec<String> {
        let first = self.describe(stream).await.first_offset;
        self.log(stream)
            .await
            .into_iter()
            .zip(first..)
            .map(|((offset, text), expected)| {
                assert_eq!(offset, expected, "I-5: offsets are dense");
                text
            })
            .collect()
    }

    /// Offsets and texts of the whole stream, by stateless reads.
    pub async fn log(&self, stream: &str) -> Vec<(u64, String)> {
        let mut out: Vec<(u64, String)> = Vec::new();
        let mut from = ReadFrom::At(Start::Earliest);
        loop {
            let request = ReadRequest { from, limit: 1000, wait: Duration::ZERO };
            let reply = soon(self.broker.read(&OPERATOR, &name(stream), request)).await.expect("the read works");
            out.extend(reply.slices.iter().flat_map(texts_of));
            if !reply.more {
                return out;
            }
            from = ReadFrom::After(reply.after.expect("more follows something"));
        }
    }
}

pub fn texts_of(slice: &Slice) -> Vec<(u64, String)> {
    slice.events().map(|(offset, event)| (offset, String::from_utf8_lossy(event.data).into_owned())).collect()
}

// -------------------------------------------------------------------------------------------------------------- requests

pub fn name(text: &str) -> StreamName {
    StreamName::parse(text).expect("a stream name")
}

pub fn sub(text: &str) -> SubscriptionName {
    SubscriptionName::parse(text).expect("a subscription name")
}

pub fn producer(text: &str) -> ProducerId {
    ProducerId::parse(text).expect("a producer id")
}

pub fn new_subscription(subscription: &str) -> NewSubscription {
    NewSubscription { name: sub(subscription), start: Start::Earliest, ack_timeout_s: None, max_in_flight: None, expires_s: None, filter: None }
}

/// Events with these texts as data.
pub fn events<T: AsRef<str>>(texts: &[T]) -> Events {
    let mut builder = EventsBuilder::default();
    for text in texts {
        let event = EventRef { data: text.as_ref().as_bytes(), encoding: Encoding::Utf8, ..EventRef::default() };
        builder.push(&event).expect("an event");
    }
    builder.finish().expect("a batch")
}

/// `count` events whose data is `size` bytes each.
pub fn big(count: usize, size: usize) -> Events {
    events(&vec!["x".repeat(size); count])
}

/// An append without a producer.
pub fn plain(stream: &str, texts: &[&str]) -> AppendRequest {
    AppendRequest { stream: name(stream), stream_id: None, events: events(texts), producer: None, expected_next_offset: None }
}

/// An append of a producer.
pub fn stamped(stream: &str, id: &str, epoch: u64, seq: u64, texts: &[&str]) -> AppendRequest {
    AppendRequest { producer: Some(stamp(id, epoch, seq)), ..plain(stream, texts) }
}

pub fn stamp(id: &str, epoch: u64, seq: u64) -> ProducerStamp {
    ProducerStamp { id: producer(id), epoch, seq }
}

/// The same append on a condition.
pub fn expecting(request: AppendRequest, next_offset: u64) -> AppendRequest {
    AppendRequest { expected_next_offset: Some(next_offset), ..request }
}

pub fn opening(stream: Option<&str>, id: &str, expect: Expect) -> OpenProducerRequest {
    OpenProducerRequest { stream: stream.map(name), stream_id: None, producer: producer(id), expect }
}

pub fn resuming(stream: &str, id: Option<&str>, seq: Option<u64>) -> ResumeRequest {
    ResumeRequest { stream: name(stream), producer: id.map(producer), seq }
}

/// Opens a producer of a stream, which has to work; its epoch.
pub async fn open(connection: &mut Connection, stream: &str, id: &str) -> u64 {
    answer(connection.open_producer(opening(Some(stream), id, Expect::Any))).await.expect("the producer opens").epoch
}

/// Opens a broker-wide producer, which has to work; its epoch.
pub async fn open_wide(connection: &mut Connection, id: &str) -> u64 {
    answer(connection.open_producer(opening(None, id, Expect::Any))).await.expect("the producer opens").epoch
}

/// Appends through a connection and waits for the answer.
pub async fn send(connection: &mut Connection, request: AppendRequest) -> Result<Appended> {
    answer(connection.append(request)).await
}

/// A pull that opens a session at the cursor and does not wait.
pub fn pulling(stream: &str, subscription: &str) -> PullRequest {
    PullRequest {
        stream: name(stream),
        subscription: sub(subscription),
        epoch: None,
        from: None,
        takeover: Takeover::Steal,
        on_gap: None,
        log_epoch: None,
        max_events: 1000,
        max_bytes: 1 << 20,
        wait: Duration::ZERO,
    }
}

pub fn attach(stream: &str, subscription: &str) -> SubscribeRequest {
    SubscribeRequest::new(name(stream), Some(sub(subscription)))
}

pub fn attach_ephemeral(stream: &str, from: Option<Start>) -> SubscribeRequest {
    SubscribeRequest { from, ..SubscribeRequest::new(name(stream), None) }
}

/// Where and how many: an append that was stored just now.
pub fn stored(first: u64, count: u32) -> Result<Appended> {
    Ok(Appended { first_offset: Some(first), last_offset: Some(first + u64::from(count) - 1), count, duplicate: false })
}

/// Where and how many: an append that had been stored before.
pub fn repeated(first: u64, count: u32) -> Result<Appended> {
    Ok(Appended { first_offset: Some(first), last_offset: Some(first + u64::from(count) - 1), count, duplicate: true })
}

pub fn acked(next: u64) -> Result<Acked> {
    Ok(Acked { offset: next.checked_sub(1), next, stale: false })
}

pub fn acked_before(next: u64) -> Result<Acked> {
    Ok(Acked { offset: next.checked_sub(1), next, stale: true })
}

// ---------------------------------------------------------------------------------------------------------------- reader

/// A session that checks C-17 on everything it is given.
pub struct Reader {
    pub session: Session,
    pub handle: SessionHandle,
    pub opened: Subscribed,
    /// One past the last offset delivered.
    pub at: u64,
}

impl Reader {
    pub async fn open(connection: &mut Connection, request: SubscribeRequest) -> Result<Self> {
        let (opened, session) = answer(connection.subscribe(request)).await?;
        Ok(Self { handle: session.handle(), session, at: opened.next, opened })
    }

    /// Opens the durable subscription, which has to work.
    pub async fn durable(connection: &mut Connection, stream: &str, subscription: &str) -> Self {
        Self::open(connection, attach(stream, subscription)).await.expect("the session opens")
    }

    pub fn epoch(&self) -> u64 {
        self.opened.epoch.expect("a durable session")
    }

    /// The next delivery, checked and counted.
    pub async fn next(&mut self) -> Result<Delivery> {
        let delivery = soon(self.session.next()).await?;
        self.check(&delivery);
        Ok(delivery)
    }

    pub fn check(&mut self, delivery: &Delivery) {
        match delivery {
            Delivery::Events { slices, .. } => {
                assert!(!slices.is_empty(), "an empty delivery");
                for slice in slices {
                    assert_eq!(slice.from(), self.at, "C-17: offsets are contiguous");
                    assert!(slice.count() > 0, "an empty slice");
                    self.at = slice.to();
                }
            }
            Delivery::Gap { from, to, .. } => {
                assert_eq!(*from, self.at, "C-17: a gap begins where the reader is");
                assert!(to >= from, "gap {from}…{to}");
                self.at = to + 1;
            }
            Delivery::Progress { next } => {
                assert!(*next > self.at, "progress to {next} tells nothing at {}", self.at);
                self.at = *next;
            }
            Delivery::Live { next_offset } => assert_eq!(*next_offset, self.at, "live means nothing is left"),
        }
    }

    /// Takes exactly `count` events, passing over `live`.
    pub async fn take(&mut self, count: usize) -> Vec<(u64, String)> {
        let mut out = Vec::new();
        while out.len() < count {
            match self.next().await.expect("events come") {
                Delivery::Events { slices, .. } => out.extend(slices.iter().flat_map(texts_of)),
                Delivery::Live { .. } => {}
                gap => panic!("an unexpected {gap:?}"),
            }
        }
        assert_eq!(out.len(), count, "more events than were asked for: {out:?}");
        out
    }

    /// Takes everything up to `live`.
    pub async fn take_until_live(&mut self) -> Vec<(u64, String)> {
        let mut out = Vec::new();
        loop {
            match self.next().await.expect("events come") {
                Delivery::Events { slices, .. } => out.extend(slices.iter().flat_map(texts_of)),
                Delivery::Live { .. } => return out,
                gap => panic!("an unexpected {gap:?}"),
            }
        }
    }

    /// The next delivery that is not `live`.
    pub async fn next_but_live(&mut self) -> Result<Delivery> {
        loop {
            match self.next().await? {
                Delivery::Live { .. } => {}
                other => return Ok(other),
            }
        }
    }

    /// The error that ends the session; what comes before it is passed over.
    pub async fn end(&mut self) -> Error {
        loop {
            if let Err(error) = self.next().await {
                return error;
            }
        }
    }

    /// The session has looked at everything there is; what it passes over it may tell.
    pub async fn is_paused_but_for_progress(&mut self) {
        let until = tokio::time::Instant::now() + Duration::from_millis(40);
        while let Ok(delivery) = tokio::time::timeout_at(until, self.session.next()).await {
            let delivery = delivery.expect("the session goes on");
            assert!(matches!(delivery, Delivery::Progress { .. }), "{delivery:?}");
            self.check(&delivery);
        }
    }

    /// No event comes (a `live` may).
    #[track_caller]
    pub fn is_paused(&mut self) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let until = tokio::time::Instant::now() + Duration::from_millis(40);
            while let Ok(delivery) = tokio::time::timeout_at(until, self.session.next()).await {
                match delivery {
                    Ok(Delivery::Live { .. }) => {}
                    other => panic!("this came although the session should pause at {caller}: {other:?}"),
                }
            }
        }
    }

    /// Acks through the connection at level durable.
    pub async fn ack(&self, connection: &mut Connection, offset: u64) -> Result<Acked> {
        answer(connection.ack(&self.handle, offset, AckLevel::Durable)).await
    }
}

// --------------------------------------------------------------------------------------------------------------- commits

pub fn commit_ack(stream: &str, subscription: &str, epoch: u64, offset: u64) -> CommitAck {
    CommitAck { stream: name(stream), subscription: sub(subscription), epoch, offset }
}

pub fn commit_append(stream: &str, texts: &[&str]) -> CommitAppend {
    CommitAppend { stream: name(stream), stream_id: None, events: events(texts), expected_next_offset: None }
}

pub fn commit_check(stream: &str, expected_next_offset: u64) -> CommitCheck {
    CommitCheck { stream: name(stream), expected_next_offset }
}

// -------------------------------------------------------------------------------------------------------------- refusals

/// `applied` and `retry` as section 9 of the rules and section 2 of the decisions have them, written down once more on purpose.
fn advice(code: Code) -> (Applied, Retry) {
    use Code::*;
    match code {
        OutcomeUnknown => (Applied::Unknown, Retry::Same),
        Overloaded | SlowConsumer | StorageFull | StorageFailed | CursorBusy | IdempotencyInProgress | Unavailable | Deleting | QuotaExceeded => {
            (Applied::No, Retry::Backoff)
        }
        ProducerUnknown | SessionUnknown => (Applied::No, Retry::Reopen),
        ProducerSeqGap | ProducerSeqOverlap => (Applied::No, Retry::Resend),
        SessionPoisoned => (Applied::No, Retry::Resume),
        SessionFenced | LogEpochChanged | CursorTrimmed | CursorAhead | OffsetTrimmed => (Applied::No, Retry::Decide),
        DataCorrupt | Unauthenticated | AccessDenied | NotFound | StreamReplaced | StreamClosed | ConditionFailed | ProducerStateLost | ProducerFenced
        | ProducerSeqReused | IdempotencyKeyReused | AckNotDelivered | AckStale | AckBeyondEnd | PositionBeyondEnd | AckModeMismatch | TooLarge
        | TxnTooLarge | TxnCrossShard | BadParameter | BadAckToken | BadFilter | UnknownFilterField | OffsetBeyondEnd | StreamEmpty | NameTaken | InUse
        | NotImplemented => (Applied::No, Retry::Never),
        other => panic!("no rule test names {other}"),
    }
}

/// The call was refused with exactly this code and rule (`""` = whatever), with the table's advice and a sentence.
#[track_caller]
pub fn refused<T: Debug>(result: Result<T>, code: Code, rule: &str) -> Error {
    let error = match result {
        Ok(value) => panic!("expected {code} ({rule}), got {value:?}"),
        Err(error) => error,
    };
    assert_eq!(error.code, code, "{error:?}");
    if !rule.is_empty() {
        assert_eq!(error.rule.as_deref(), Some(rule), "{error:?}");
    }
    assert_eq!((error.applied, error.retry), advice(code), "{error:?}");
    assert!(error.message.len() > 10 && error.message.contains(' '), "not a sentence: {:?}", error.message);
    error
}

/// The number in a detail.
#[track_caller]
pub fn detail(error: &Error, field: &str) -> u64 {
    error.details.get(field).and_then(Value::as_u64).unwrap_or_else(|| panic!("no number {field} in the details of {error:?}"))
}

/// The truth value in a detail.
#[track_caller]
pub fn detail_bool(error: &Error, field: &str) -> bool {
    error.details.get(field).and_then(Value::as_bool).unwrap_or_else(|| panic!("no truth value {field} in the details of {error:?}"))
}

/// A commit was refused because of one part: which list, which index, and why.
#[track_caller]
pub fn part_refused(result: Result<Committed>, part: &str, index: u64, cause: Code) -> Error {
    let error = match result {
        Ok(value) => panic!("expected txn_part_failed ({cause}), got {value:?}"),
        Err(error) => error,
    };
    assert_eq!(error.code, Code::TxnPartFailed, "{error:?}");
    assert_eq!(error.rule.as_deref(), Some("T-1"), "{error:?}");
    assert_eq!(error.applied, Applied::No, "{error:?}");
    assert_eq!(error.retry, advice(cause).1, "as the cause: {error:?}");
    assert_eq!(error.details.get("part").and_then(Value::as_str), Some(part), "{error:?}");
    assert_eq!(detail(&error, "index"), index, "{error:?}");
    let code = error.details.get("cause").and_then(|c| c.get("code")).and_then(Value::as_str);
    assert_eq!(code, Some(cause.as_str()), "{error:?}");
    error
}
