//! The rules. One method per use case; edges decode, call once, encode.
//!
//! What changes something goes through the commit loop as an `intent`; what only reads goes to the engine and to the
//! `shared` views of streams. The state machines (`state`, `producer`, `cursor`, `window`) know no socket, disk or clock.

pub mod access;
#[doc(hidden)]
pub mod ack_token;
mod admin;
mod appending;
mod audit;
mod broken;
mod clock;
mod commit;
mod connection;
mod cursor;
mod driver;
pub mod fields;
mod generations;
pub mod info;
mod intent;
mod loader;
mod operation;
mod operations;
mod producer;
mod producers;
mod pull;
mod read;
mod session;
mod shared;
mod state;
mod window;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use crate::log::rows::{self, value};
use crate::log::{Engine, Key, Lane, Pressure, ReadLimits};
use crate::types::reply::{Appended, Committed, Subscribed};
use crate::types::request::{AppendRequest, CommitRequest, Credit, OnGap, Start, SubscribeRequest};
pub use crate::types::{Action, Right};
use crate::types::{Batch, Code, Error, Filter, IdempotencyKey, Result, StreamId, StreamName, TimeUs, limits};

pub use access::{
    Access, KeyInfo, Kind, Login, NewSource, NewUser, Plane, Principal, PrincipalRef, Quotas, Rate, RightInfo, Seat, SourceChange, SourceInfo, Usage,
    UsageInfo, UserChange, UserInfo, Vault, Watch, WhoInfo, credential_id,
};
use ack_token::AckTokens;
pub use audit::{Whence, calling_from, calling_on};
pub use broken::{Broken, Promise};
use clock::Now;
use commit::{CommitLoop, engine_failure};
pub use connection::{Connection, Pending};
use cursor::OpenAsk;
pub use info::*;
use intent::{Author, Claim, Intent, Opened, Reply};
pub use session::{Session, SessionHandle};
use shared::{Registry, StreamShared};
use state::{Options, State, Stream, stream_not_found};
#[cfg(feature = "faults")]
pub use world::Simulated;
use world::World;

/// Start-up choices.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Create a stream at its first append or subscribe (`tidelog dev`).
    pub create_streams_on_use: bool,
    /// Bytes of recent batches kept in memory for followers.
    pub tail_bytes: usize,
    /// Streams, producers and cursors kept in memory: at least this many of each, at most twice as many.
    pub hot_entries: usize,
    /// How much each user may have and do.
    pub quotas: Quotas,
    /// A promise that a test-only build breaks; none by default.
    pub broken: Broken,
}

impl Default for Settings {
    fn default() -> Self {
        Self { create_streams_on_use: false, tail_bytes: 64 * 1024 * 1024, hot_entries: 8192, quotas: Quotas::default(), broken: Broken::default() }
    }
}

/// The broker. Cheap to clone.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<dyn Engine>,
    registry: Arc<Registry>,
    commits: CommitLoop,
    room: Arc<Semaphore>,
    log_epoch: u64,
    ack_tokens: AckTokens,
    access: Arc<Access>,
    broken: Broken,
    world: World,
    refusals: Mutex<audit::Refusals>,
    began: Instant,
    draining: AtomicBool,
    drained: Notify,
    sessions: AtomicUsize,
}

/// What a session needs besides its opening.
struct Reader {
    on_gap: OnGap,
    credit: Option<Credit>,
    watch: Option<Box<Watch>>,
    /// Of an ephemeral reader; that of a subscription is in its row.
    filter: Option<Arc<Filter>>,
}

/// Smallest share of the queue's budget: a request without events still costs its own memory.
const MIN_REQUEST_BYTES: usize = limits::COMMIT_QUEUE_BYTES / limits::COMMIT_QUEUE_REQUESTS;

impl Broker {
    /// Starts the broker on an engine: reads the counters, starts the commit loop, goes on with interrupted deletions.
    ///
    /// # Errors
    /// When the engine cannot be read, or holds a newer format.
    pub async fn open(engine: Arc<dyn Engine>, settings: Settings) -> Result<Self> {
        Self::open_in(World::default(), engine, settings).await
    }

    /// The same in a simulated world, on one thread: the commit loop is a task, and waits for its engine as others wait for sockets.
    ///
    /// # Errors
    /// When the engine cannot be read, or holds a newer format.
    #[cfg(feature = "faults")]
    pub async fn open_simulated(simulated: Simulated, engine: Arc<dyn Engine>, settings: Settings) -> Result<Self> {
        Self::open_in(World::simulated(simulated), engine, settings).await
    }

    async fn open_in(world: World, engine: Arc<dyn Engine>, settings: Settings) -> Result<Self> {
        let began = Instant::now();
        let failure = |e| engine_failure(&e);
        let lane = Lane(0);
        let position = engine.position(lane).await.map_err(failure)?;
        let found = engine.get(vec![Key::Counters.encode(), Key::Format.encode()]).await.map_err(failure)?;
        let [counters, format] = <[_; 2]>::try_from(found).map_err(|_| Error::internal("the engine answered another number of rows than asked"))?;
        let format = format.ok_or_else(|| Error::internal("the store has no format row"))?;
        let secret = rows::decode::<value::Format>(&format).map_err(Error::internal)?.secret;
        let counters = match counters {
            Some(bytes) => rows::decode(&bytes).map_err(Error::internal)?,
            // The operator is user 1.
            None => value::Counters { next_stream_id: 1, next_subscription_id: 1, next_user_id: 2, next_source_id: 1, log_epoch: 1, ..Default::default() },
        };
        let untold = counters.log_epoch > counters.audited_log_epoch.max(1);
        let registry = Arc::new(Registry::new(settings.tail_bytes));
        let broken = settings.broken;
        let new_uuid = Box::new({
            let world = world.clone();
            move || world.uuid()
        });
        let access = Arc::new(Access::new(&secret, settings.quotas));
        let options = Options {
            create_on_use: settings.create_streams_on_use,
            hot_entries: settings.hot_entries,
            quotas: settings.quotas,
            refusals: access.users.refusals().clone(),
            new_uuid,
            broken,
        };
        let now = Now { wall_us: world.now().0, mono: began.elapsed() };
        let state = State::new(options, registry.clone(), counters, now);
        let log_epoch = state.log_epoch();
        let commits = CommitLoop::start(engine.clone(), registry.clone(), access.clone(), state, (lane, position), began, world.clone());
        let room = Arc::new(Semaphore::new(limits::COMMIT_QUEUE_BYTES));
        let inner = Inner {
            engine,
            registry,
            commits,
            room,
            log_epoch,
            ack_tokens: AckTokens::new(&secret),
            access,
            broken,
            world,
            refusals: Mutex::default(),
            began,
            draining: AtomicBool::new(false),
            drained: Notify::new(),
            sessions: AtomicUsize::new(0),
        };
        let broker = Self { inner: Arc::new(inner) };
        if untold {
            broker.tell_log_epoch().await;
        }
        broker.resume_operations().await?;
        Ok(broker)
    }

    /// Refuses new work from now on and ends every session with `unavailable` and a hint when to come back.
    pub async fn drain(&self) {
        self.inner.draining.store(true, Ordering::Release);
        self.inner.drained.notify_waiters();
    }

    /// After [`Broker::drain`]: finishes what is queued, flushes, closes the engine.
    ///
    /// # Errors
    /// When the flush fails.
    pub async fn close(&self) -> Result<()> {
        self.tell_refusals(true);
        self.inner.commits.stop().await;
        self.inner.engine.close().await.map_err(|e| engine_failure(&e))
    }

    /// After the engine has failed: ends the commit loop without another write (S-5).
    pub async fn abandon(&self) {
        self.inner.commits.stop().await;
    }

    /// Resolves with the reason when the engine has failed: the process must stop serving (S-5).
    pub async fn failed(&self) -> String {
        let mut failed = self.inner.commits.failed();
        let reason = failed.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }

    /// Is it fit to serve?
    pub fn health(&self) -> Health {
        let storage = match (self.inner.commits.failed().borrow().clone(), self.inner.engine.pressure()) {
            (Some(why), _) | (None, Pressure::Failed(why)) => Err(format!("failed: {why}")),
            (None, Pressure::Full(why)) => Err(format!("full: {why}")),
            (None, Pressure::None) => Ok(()),
        };
        let draining = if self.is_draining() { Err("draining".to_owned()) } else { Ok(()) };
        Health { ready: storage.is_ok() && draining.is_ok(), checks: vec![("storage", storage), ("serving", draining)] }
    }

    /// Name, help, is it a counter, value: for `/metrics`.
    pub fn metrics(&self) -> Vec<(&'static str, &'static str, bool, f64)> {
        let stats = &self.inner.commits.stats;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed) as f64;
        let mut metrics = vec![
            ("tidelog_events_published", "Events stored.", true, count(&stats.events)),
            ("tidelog_event_bytes_published", "Bytes of stored batches.", true, count(&stats.bytes)),
            ("tidelog_commits", "Commits of the storage engine, each one fdatasync.", true, count(&stats.groups)),
            ("tidelog_commit_seconds", "Time spent in them.", true, count(&stats.commit_us) / 1e6),
            ("tidelog_requests_committed", "Requests these commits answered.", true, count(&stats.intents)),
            ("tidelog_rows_loaded", "Rows read because they were not in memory.", true, count(&stats.loads)),
            ("tidelog_streams_followed", "Streams somebody reads.", false, self.inner.registry.len() as f64),
            ("tidelog_tail_bytes", "Recent batches in memory.", false, self.inner.registry.tail_bytes() as f64),
            ("tidelog_sessions", "Sessions attached.", false, self.inner.sessions.load(Ordering::Relaxed) as f64),
        ];
        metrics.extend(self.inner.engine.metrics().into_iter().map(|(name, value)| (name, "From the storage engine.", false, value)));
        metrics
    }

    /// How often something was refused because a user had or did too much, by what that was.
    pub fn refusals(&self) -> Vec<(&'static str, u64)> {
        self.inner.access.users.refusals().counts().collect()
    }

    /// Counter of the broker's history; +1 when acknowledged history may have been replaced.
    pub fn log_epoch(&self) -> u64 {
        self.inner.log_epoch
    }

    /// Word for the storage engine, and whether an acknowledged append survives power loss.
    pub fn engine(&self) -> (&'static str, bool) {
        let capabilities = self.inner.engine.capabilities();
        (capabilities.name, capabilities.durable)
    }

    /// One append without a connection (REST): never poisons, never answered before it is durable.
    ///
    /// # Errors
    /// P-1 … P-9, P-18, limits, rights.
    pub async fn append(&self, who: &Principal, request: AppendRequest) -> Result<Appended> {
        let intent = self.unary(request, who).await?;
        let conditional = appending::Conditional::of(&intent);
        let result = self.ask(intent.events.encoded().len(), |reply| Intent::Append(Box::new(intent), reply)).await;
        match conditional {
            Some(conditional) => conditional.explain(self, result).await,
            None => result,
        }
    }

    /// One append under a name of the caller's choosing: asked again within the window, it is answered again (P-19). The time says
    /// until when. The request must have no producer: one identity is enough.
    ///
    /// # Errors
    /// `idempotency_key_reused`, P-9, P-18, limits, rights.
    pub async fn append_once(&self, who: &Principal, request: AppendRequest, key: &IdempotencyKey) -> Result<(Appended, TimeUs)> {
        let append = self.unary(request, who).await?;
        if append.producer.is_some() {
            return Err(Error::bad("producer", "An append is recognised by its producer or by its Idempotency-Key; send one of the two."));
        }
        let conditional = appending::Conditional::of(&append);
        let (key, fingerprint) = (appending::key_hash(key), append.events.fingerprint());
        let bytes = append.events.encoded().len();
        let result = self.ask(bytes, |reply| Intent::AppendOnce { append: Box::new(append), key, fingerprint, reply }).await;
        match conditional {
            Some(conditional) => conditional.explain(self, result).await,
            None => result,
        }
    }

    /// A reader of its own, without a connection around it (gRPC `Subscribe`, Server-Sent Events). Cancelled, the session is opened and
    /// detached, or neither.
    ///
    /// # Errors
    /// C-1 … C-6, `not_found`, rights.
    pub async fn open_session(&self, who: &Principal, request: SubscribeRequest) -> Result<(Subscribed, Session)> {
        let (intent, reader) = self.open_intent(who, request).await?;
        self.attach(self.ask(0, intent).await?, reader)
    }

    /// One commit without a connection (T-1 … T-7).
    ///
    /// # Errors
    /// `txn_part_failed`, `txn_too_large`, P-1 … P-8, rights.
    pub async fn commit(&self, who: &Principal, request: CommitRequest) -> Result<Committed> {
        let (bytes, intent) = self.commit_intent(who, request).await?;
        self.ask(bytes, intent).await
    }

    /// One ordered connection (WebSocket, gRPC `Connect`).
    pub fn connect(&self, who: Principal) -> Connection {
        Connection::new(self.clone(), who)
    }

    fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::Acquire)
    }

    /// Waits for `future`, but no longer than until the broker drains.
    async fn or_draining(&self, future: impl Future<Output = ()>) {
        let drained = self.inner.drained.notified();
        tokio::pin!(drained);
        drained.as_mut().enable();
        if !self.is_draining() {
            tokio::select! { () = future => {}, () = drained => {} }
        }
    }

    /// A share of the queue, waited for a bounded time.
    async fn admit(&self, bytes: usize) -> Result<OwnedSemaphorePermit> {
        if self.is_draining() {
            return Err(draining());
        }
        let share = bytes.clamp(MIN_REQUEST_BYTES, limits::COMMIT_QUEUE_BYTES) as u32;
        // There is room almost always; a timer is for the rest.
        if let Ok(permit) = self.inner.room.clone().try_acquire_many_owned(share) {
            return Ok(permit);
        }
        match tokio::time::timeout(limits::ADMISSION_WAIT, self.inner.room.clone().acquire_many_owned(share)).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(draining()),
            Err(_) => Err(Error::new(Code::Overloaded, "The broker has more work than it accepts; nothing was stored. Wait a moment, then send it again.")),
        }
    }

    fn submit(&self, intent: Intent, permit: Option<OwnedSemaphorePermit>, solo: bool) {
        self.inner.commits.submit(commit::queued(intent, permit, solo));
    }

    /// One intent from admission to answer. Cancelled before admission it has no effect, after it all of it (P-13).
    async fn ask<T>(&self, bytes: usize, make: impl FnOnce(Reply<T>) -> Intent) -> Result<T> {
        let permit = self.admit(bytes).await?;
        let (reply, answer) = oneshot::channel();
        self.submit(make(reply), Some(permit), true);
        answer.await.unwrap_or_else(|_| Err(connection::lost()))
    }

    /// The stream a name means, as it is on disk, for calls that only read. One being deleted counts as gone.
    async fn find_stream(&self, name: &StreamName) -> Result<Stream> {
        self.stream_on_disk(name).await?.filter(|stream| !stream.row.deleting).ok_or_else(|| stream_not_found(name))
    }

    /// After a failed write the engine may show what never became durable: nothing is read from it any more (S-2, S-5).
    fn check_serving(&self) -> Result<()> {
        match &*self.inner.commits.failed().borrow() {
            Some(why) => Err(Error::new(Code::StorageFailed, format!("The storage engine has failed ({why}); the broker does not serve.")).rule("S-5")),
            None => Ok(()),
        }
    }

    async fn stream_on_disk(&self, name: &StreamName) -> Result<Option<Stream>> {
        self.check_serving()?;
        let engine = &*self.inner.engine;
        let Some(id) = loader::stream_id(engine, &name.folded()).await.map_err(|e| engine_failure(&e))? else { return Ok(None) };
        loader::stream(engine, id).await.map_err(|e| engine_failure(&e))
    }

    /// The view of a stream that rings when something changes.
    async fn shared(&self, id: StreamId) -> Result<Arc<StreamShared>> {
        let shared = self.inner.registry.open(id);
        if shared.bounds().is_none() {
            self.check_serving()?;
            let stream = loader::stream(&*self.inner.engine, id).await.map_err(|e| engine_failure(&e))?;
            match stream {
                Some(stream) => shared.merge(stream.bounds),
                None => shared.merge(shared::Bounds { gone: true, ..Default::default() }),
            }
        }
        Ok(shared)
    }

    async fn read_log(&self, stream: StreamId, from: u64, wanted: ReadLimits) -> Result<Vec<Arc<Batch>>> {
        self.check_serving()?;
        self.inner.engine.read(stream, from, wanted).await.map_err(|e| engine_failure(&e))
    }

    /// What `subscribe` puts into the commit order, and what the session needs beside it.
    async fn open_intent(&self, who: &Principal, request: SubscribeRequest) -> Result<(impl FnOnce(Reply<Opened>) -> Intent + use<>, Reader)> {
        // The watch first: a right that is taken away after the look is heard of.
        let watch = self.watch(who);
        let known_as = self.allowed(who, &request.stream, Action::Read).await?;
        let SubscribeRequest { stream, subscription, create, stream_id, rewind, from, filter, credit, takeover, on_gap, log_epoch } = request;
        let parsed = Filter::given(filter.as_deref(), fields::EVENTS)?.map(Arc::new);
        let filter = parsed.as_ref().map(|filter| filter.as_str().to_owned());
        if subscription.is_none() && (create || rewind) {
            return Err(Error::bad("subscription", "`create` and `rewind` need a subscription; an ephemeral reader has no cursor."));
        }
        let on_gap = on_gap.unwrap_or(if subscription.is_some() { OnGap::Fail } else { OnGap::Skip });
        let from = match from {
            Some(start) => Some(self.untimed(&stream, start).await?),
            None => None,
        };
        let ask = OpenAsk { from, rewind, takeover, on_gap, log_epoch };
        // What was allowed is that stream, not another one that has its name a moment later.
        let stream_id = stream_id.or(known_as);
        let (claim, by) = if rewind { (self.claim(who, &stream).await, Some(self.by(who).await)) } else { (Claim { author: who.into(), admin: false }, None) };
        Ok((
            move |reply| Intent::Open { stream, stream_id, subscription, create, filter, ask, claim, by, reply },
            Reader { on_gap, credit, watch, filter: parsed },
        ))
    }

    /// A start without a time: looked up in the log.
    async fn untimed(&self, stream: &StreamName, start: Start) -> Result<Start> {
        let Start::Time(time) = start else { return Ok(start) };
        let found = self.find_stream(stream).await?;
        Ok(Start::Offset(self.offset_of_time(found.id, &found.bounds, time).await?))
    }

    /// What the caller may do to subscriptions of others.
    async fn claim(&self, who: &Principal, stream: &StreamName) -> Claim {
        Claim { author: Author::from(who), admin: self.may(who, stream, Action::Admin).await.is_ok() }
    }

    fn attach(&self, opened: Opened, mut reader: Reader) -> Result<(Subscribed, Session)> {
        if let Some(durable) = &opened.durable {
            reader.filter = fields::of_subscription(&durable.filter)?;
        }
        Ok(Session::new(opened, self.clone(), reader))
    }
}

fn draining() -> Error {
    Error::new(Code::Unavailable, "The broker is shutting down; come back in a few seconds.").detail("retry_after_s", 2)
}
