//! The commit loop of one lane: takes a group of intents, lets [`State`] prepare them, makes the group durable with one
//! engine commit, then publishes what is new and answers (S-1, S-4).
//!
//! It runs on a thread of its own, because a commit blocks in fdatasync. Intents whose rows are not in memory are parked,
//! under the rows they lack, while a loader reads them. Two intents of one append session need the same rows, so neither is
//! ready before the other; whenever they meet again they stand in the order of their arrival.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot, watch};
use tracing::{error, info, warn};

use super::broken::Promise;
use super::clock::Now;
use super::intent::{Intent, Queued};
use super::loader;
use super::shared::Registry;
use super::state::{Effect, Loaded, Need, Sealed, State};
use crate::log::{Engine, EngineError, Lane, Position, Pressure};
use crate::types::limits;
use crate::types::{Code, Error, StreamId, SubscriptionId, TimeUs};

/// What reaches the loop.
enum Input {
    Intent(Queued),
    Loaded(Need, Result<Loaded, EngineError>),
    /// Acks of level `received` were accepted in memory (C-16).
    Received(StreamId, SubscriptionId),
    Stop(oneshot::Sender<()>),
}

/// Numbers of the loop, for `/metrics`.
#[derive(Default)]
pub struct CommitStats {
    /// Engine commits.
    pub groups: AtomicU64,
    /// Events stored.
    pub events: AtomicU64,
    /// Bytes of stored batches.
    pub bytes: AtomicU64,
    /// Intents prepared.
    pub intents: AtomicU64,
    /// Microseconds spent in engine commits.
    pub commit_us: AtomicU64,
    /// Rows loaded for intents that lacked them.
    pub loads: AtomicU64,
}

/// The handle of a running loop.
pub struct CommitLoop {
    sender: Mutex<Option<Sender<Input>>>,
    failed: watch::Receiver<Option<String>>,
    /// Its numbers.
    pub stats: Arc<CommitStats>,
    /// Rings when an operation's row changed.
    pub operations: Arc<Notify>,
    stopping: AtomicBool,
}

impl CommitLoop {
    /// Starts the thread.
    pub fn start(engine: Arc<dyn Engine>, registry: Arc<Registry>, state: State, lane: Lane, position: Position, began: Instant) -> Self {
        let (sender, receiver) = channel();
        let (failed_in, failed) = watch::channel(None);
        let stats = Arc::new(CommitStats::default());
        let operations = Arc::new(Notify::new());
        let driver = Driver {
            engine,
            registry,
            state,
            lane,
            position,
            began,
            runtime: Handle::current(),
            receiver,
            sender: sender.clone(),
            parked: HashMap::new(),
            backlog: VecDeque::new(),
            arrivals: 0,
            failed: failed_in,
            stats: stats.clone(),
            operations: operations.clone(),
            syncs: SyncTimes::default(),
            answered_solo: 0,
            stop: None,
        };
        std::thread::Builder::new().name("commit".into()).spawn(move || driver.run()).expect("a thread can be started");
        Self { sender: Mutex::new(Some(sender)), failed, stats, operations, stopping: AtomicBool::new(false) }
    }

    /// Puts an intent in the order. What it asks is done or refused; its reply tells.
    pub fn submit(&self, queued: Queued) {
        let refused = match (self.stopping.load(Ordering::Acquire), &*self.sender.lock()) {
            (false, Some(sender)) => sender.send(Input::Intent(queued)).err().map(|e| e.0),
            _ => Some(Input::Intent(queued)),
        };
        if let Some(Input::Intent(queued)) = refused {
            queued.intent.refuse(Error::new(Code::Unavailable, "The broker is shutting down."));
        }
    }

    /// Acks of level `received` were accepted for this cursor (C-16). False when the loop is ending and will not see it.
    pub fn received(&self, stream: StreamId, subscription: SubscriptionId) -> bool {
        let open = !self.stopping.load(Ordering::Acquire) && self.failed.borrow().is_none();
        open && self.sender.lock().as_ref().is_some_and(|sender| sender.send(Input::Received(stream, subscription)).is_ok())
    }

    /// Why the engine failed, once it has (S-5).
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.failed.clone()
    }

    /// Finishes what is queued and ends the thread.
    pub async fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        let sender = self.sender.lock().take();
        if let Some(sender) = sender {
            let (done, wait) = oneshot::channel();
            if sender.send(Input::Stop(done)).is_ok() {
                drop(wait.await);
            }
        }
    }
}

impl Drop for CommitLoop {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.lock().take() {
            drop(sender.send(Input::Stop(oneshot::channel().0)));
        }
    }
}

/// How long recent commits took, for the hold of `decisions.md` section 4.
#[derive(Default)]
struct SyncTimes {
    recent: VecDeque<Duration>,
    median: Duration,
}

impl SyncTimes {
    fn note(&mut self, took: Duration) {
        self.recent.push_back(took);
        if self.recent.len() > 31 {
            self.recent.pop_front();
        }
        let mut sorted: Vec<_> = self.recent.iter().copied().collect();
        sorted.sort_unstable();
        self.median = sorted[sorted.len() / 2];
    }
}

struct Driver {
    engine: Arc<dyn Engine>,
    registry: Arc<Registry>,
    state: State,
    lane: Lane,
    position: Position,
    began: Instant,
    runtime: Handle,
    receiver: Receiver<Input>,
    sender: Sender<Input>,
    /// Intents that wait for rows, by the first they lack.
    parked: HashMap<Need, VecDeque<Queued>>,
    /// Taken from the queue, not yet prepared; in the order of arrival.
    backlog: VecDeque<Queued>,
    /// How many intents have arrived.
    arrivals: u64,
    failed: watch::Sender<Option<String>>,
    stats: Arc<CommitStats>,
    operations: Arc<Notify>,
    syncs: SyncTimes,
    /// Callers answered by the last group that had nothing else outstanding.
    answered_solo: usize,
    /// Set when the loop shall end; told when it has.
    stop: Option<oneshot::Sender<()>>,
}

impl Driver {
    fn now(&self) -> Now {
        Now { wall_us: TimeUs::now().0, mono: self.began.elapsed() }
    }

    fn run(mut self) {
        while self.stop.is_none() || !(self.backlog.is_empty() && self.parked.is_empty()) {
            if !self.gather() {
                break;
            }
            let reason = self.failed.borrow().clone();
            if let Some(reason) = reason {
                self.refuse_all(&reason);
                continue;
            }
            self.group(self.stop.is_some());
        }
        let done = self.stop.take();
        if done.is_some() && self.failed.borrow().is_none() {
            self.group(true);
        }
        // Whoever waits for the end may end the process next: the engine is let go before.
        drop(self);
        if let Some(done) = done {
            let _ = done.send(());
        }
    }

    /// Waits for something to do and takes a group's worth of it. False when every sender is gone.
    fn gather(&mut self) -> bool {
        let waited_before = self.backlog.len();
        if self.backlog.is_empty() {
            let first = if self.state.has_dirty() {
                match self.receiver.recv_timeout(limits::RECEIVED_ACK_PERSIST / 4) {
                    Ok(input) => Some(input),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return false,
                }
            } else {
                match self.receiver.recv() {
                    Ok(input) => Some(input),
                    Err(_) => return false,
                }
            };
            match first {
                Some(input) => self.take(input),
                None => return true,
            }
        }
        let mut solo_back = self.backlog.iter().skip(waited_before).filter(|q| q.solo).count();
        let hold_until = Instant::now() + self.syncs.median / 4;
        while self.backlog.len() < limits::GROUP_REQUESTS {
            match self.receiver.try_recv() {
                Ok(input) => {
                    let before = self.backlog.len();
                    self.take(input);
                    solo_back += self.backlog.iter().skip(before).filter(|q| q.solo).count();
                }
                Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {
                    // Callers that always have one request outstanding were just answered: most come back in a moment.
                    // Without this wait they would fall into two halves, each paying for its own sync.
                    if solo_back >= self.answered_solo || self.stop.is_some() || self.backlog.is_empty() {
                        break;
                    }
                    let Some(left) = hold_until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else { break };
                    match self.receiver.recv_timeout(left) {
                        Ok(input) => {
                            let before = self.backlog.len();
                            self.take(input);
                            solo_back += self.backlog.iter().skip(before).filter(|q| q.solo).count();
                        }
                        Err(_) => break,
                    }
                }
            }
        }
        self.answered_solo = 0;
        true
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Intent(mut queued) => {
                self.arrivals += 1;
                queued.arrival = self.arrivals;
                self.backlog.push_back(queued);
            }
            Input::Received(stream, subscription) => {
                let now = self.now();
                self.state.received(stream, subscription, now);
            }
            Input::Stop(done) => self.stop = Some(done),
            Input::Loaded(need, result) => {
                let waiting = self.parked.remove(&need).unwrap_or_default();
                match result {
                    Ok(loaded) => {
                        self.state.loaded(loaded);
                        // Rows come and go, so two intents of one session may have waited under different needs: only the
                        // arrival tells which of them is first.
                        if !waiting.is_empty() {
                            self.backlog.extend(waiting);
                            self.backlog.make_contiguous().sort_by_key(|queued| queued.arrival);
                        }
                    }
                    Err(engine_error) => {
                        error!(error = %engine_error, ?need, "a row could not be read");
                        let told = engine_failure(&engine_error);
                        waiting.into_iter().for_each(|queued| queued.intent.refuse(told.clone()));
                    }
                }
            }
        }
    }

    /// Prepares what is in the backlog, commits it, answers it.
    fn group(&mut self, flush: bool) {
        let full = match self.engine.pressure() {
            Pressure::None => None,
            Pressure::Full(why) => Some(why),
            Pressure::Failed(why) => return self.fail(&why, None),
        };
        let now = self.now();
        self.state.begin(now, full);
        let (mut permits, mut solo, mut prepared) = (Vec::new(), 0, 0u64);
        while let Some(queued) = self.backlog.pop_front() {
            if let Some(need) = self.state.lacks(&queued.intent).into_iter().next() {
                self.park(need, queued);
                continue;
            }
            permits.extend(queued.permit);
            solo += usize::from(queued.solo);
            prepared += 1;
            self.state.prepare(queued.intent);
            if self.state.group_bytes() >= limits::GROUP_BYTES {
                break;
            }
        }
        self.stats.intents.fetch_add(prepared, Ordering::Relaxed);
        let sealed = self.state.seal(flush && self.state.has_dirty());
        self.settle(sealed);
        self.answered_solo = solo;
        drop(permits);
    }

    fn park(&mut self, need: Need, queued: Queued) {
        if let Some(waiting) = self.parked.get_mut(&need) {
            let place = waiting.partition_point(|other| other.arrival < queued.arrival);
            waiting.insert(place, queued);
            return;
        }
        // Everything it lacks is asked for at once; it waits under the first.
        for other in self.state.lacks(&queued.intent) {
            if !self.parked.contains_key(&other) {
                self.parked.insert(other.clone(), VecDeque::new());
                self.stats.loads.fetch_add(1, Ordering::Relaxed);
                let (engine, sender) = (self.engine.clone(), self.sender.clone());
                self.runtime.spawn(async move {
                    let result = loader::load(&*engine, other.clone()).await;
                    drop(sender.send(Input::Loaded(other, result)));
                });
            }
        }
        self.parked.entry(need).or_default().push_back(queued);
    }

    fn settle(&mut self, sealed: Sealed) {
        let Sealed { mut set, news, effects, mut answers, events } = sealed;
        let broken = self.state.broken();
        if broken.is(Promise::DirtyRead) || broken.is(Promise::AckBeforeSync) {
            self.registry.publish(&news);
        }
        if broken.is(Promise::AckBeforeSync) {
            answers.drain(..).for_each(|answer| answer.send(None));
        }
        if broken.is(Promise::SplitCommit) && !set.rows.is_empty() && !set.appends.is_empty() {
            let rows = crate::log::WriteSet { appends: Vec::new(), ..set.clone() };
            set = crate::log::WriteSet { appends: set.appends, ..Default::default() };
            match self.commit(rows) {
                Ok(position) => self.position = position,
                Err(why) => return self.fail(&why.to_string(), Some(answers)),
            }
        }
        if !set.is_empty() {
            let bytes: usize = set.appends.iter().map(|b| b.value().len()).sum();
            match self.commit(set) {
                Ok(position) => {
                    self.position = position;
                    self.state.committed();
                    self.stats.groups.fetch_add(1, Ordering::Relaxed);
                    self.stats.events.fetch_add(events, Ordering::Relaxed);
                    self.stats.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                }
                Err(EngineError::Failed(why)) => return self.fail(&why, Some(answers)),
                Err(refused) => {
                    warn!(error = %refused, "a commit was refused; nothing of it is stored");
                    self.state.rolled_back();
                    let told = engine_failure(&refused);
                    answers.into_iter().for_each(|answer| answer.send(Some(&told)));
                    return;
                }
            }
        }
        self.registry.publish(&news);
        for effect in effects {
            match effect {
                Effect::End(mark, why) => mark.end(why),
                Effect::Acked(mark, next) => mark.acked_to(next),
                Effect::Operations => self.operations.notify_waiters(),
                Effect::Audit(line) => info!(target: "audit", "{line}"),
            }
        }
        // Whoever is in the queue now did not come back because of these answers (see `gather`).
        while let Ok(input) = self.receiver.try_recv() {
            self.take(input);
        }
        // The last first: a connection waits for its oldest request, so it is woken once, and finds the others answered.
        answers.into_iter().rev().for_each(|answer| answer.send(None));
    }

    /// One engine commit; a stall is waited out, because nothing has been stored then (`storage.md` section 8).
    fn commit(&mut self, set: crate::log::WriteSet) -> Result<Position, EngineError> {
        let mut pause = Duration::from_millis(1);
        let deadline = Instant::now() + limits::ADMISSION_WAIT;
        let mut set = Some(set);
        loop {
            let this = set.take().expect("put back before every further round");
            let again = this.clone();
            let began = Instant::now();
            let result = self.runtime.block_on(self.engine.commit(self.lane, self.position, this));
            let took = began.elapsed();
            match result {
                Err(EngineError::Refused(why)) if Instant::now() < deadline => {
                    warn!(%why, "the storage engine stalls; trying again");
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(100));
                    set = Some(again);
                }
                other => {
                    self.syncs.note(took);
                    self.stats.commit_us.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
                    return other;
                }
            }
        }
    }

    /// S-5: the engine is finished, and so is this process.
    fn fail(&mut self, why: &str, answers: Option<Vec<super::intent::Answer>>) {
        error!(%why, "the storage engine failed; the broker stops serving");
        let told = Error::new(
            Code::OutcomeUnknown,
            "The write failed while it was on its way to the disk: it may or may not be stored. Send the same request again when the broker is back.",
        )
        .rule("S-5");
        // Whoever hears of it must not read what it left behind.
        self.failed.send_replace(Some(why.to_owned()));
        for answer in answers.unwrap_or_default() {
            answer.send(Some(&told));
        }
        self.refuse_all(why);
    }

    fn refuse_all(&mut self, why: &str) {
        let told = Error::new(Code::StorageFailed, format!("The storage engine has failed ({why}); the broker does not serve.")).rule("S-5");
        let parked: Vec<_> = self.parked.drain().flat_map(|(_, waiting)| waiting).collect();
        for queued in self.backlog.drain(..).chain(parked) {
            queued.intent.refuse(told.clone());
        }
    }
}

/// What callers hear of an engine error.
pub fn engine_failure(error: &EngineError) -> Error {
    match error {
        EngineError::Conflict { .. } => Error::new(Code::Unavailable, "Another broker was faster; try again."),
        EngineError::Refused(why) => Error::new(Code::Overloaded, format!("The storage engine is busy ({why}); nothing was stored.")),
        EngineError::Full(why) => Error::new(Code::StorageFull, format!("The disk is nearly full ({why}); nothing was stored.")),
        EngineError::Failed(why) => Error::new(Code::StorageFailed, format!("The storage engine has failed: {why}.")).rule("S-5"),
        EngineError::Corrupt { stream, from, to, what } => {
            Error::new(Code::DataCorrupt, format!("Offsets {from} to {to} of stream id {stream} are damaged on disk: {what}."))
                .rule("S-6")
                .detail("from", *from)
                .detail("to", *to)
        }
    }
}

/// An intent with its place in the queue.
pub fn queued(intent: Intent, permit: Option<tokio::sync::OwnedSemaphorePermit>, solo: bool) -> Queued {
    Queued { intent, arrival: 0, permit, solo }
}
