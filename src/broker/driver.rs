//! The commit loop of one lane: takes a group of intents, lets [`State`] prepare them, makes the group durable with one
//! engine commit, then publishes what is new and answers (S-1, S-4).
//!
//! It runs on a thread of its own, because a commit blocks in fdatasync; in a simulation it is a task, and the same steps wait for a
//! disk that is simulated too. Intents whose rows are not in memory are parked, under the rows they lack, while a loader reads them.
//! Two intents of one append session need the same rows, so neither is ready before the other; whenever they meet again they stand
//! in the order of their arrival.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot, watch};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::access::Access;
use super::broken::Promise;
use super::clock::Now;
use super::commit::{CommitStats, Inlet, Input, engine_failure};
use super::generations::HashMap;
use super::intent::{Answer, Queued};
use super::loader;
use super::shared::{News, Registry};
use super::state::{Effect, Need, Sealed, State};
use super::world::World;
use crate::log::{Engine, EngineError, Lane, Position, Pressure, WriteSet, faults};
use crate::types::limits;
use crate::types::{Code, Error};

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

/// See the module.
pub struct Driver {
    engine: Arc<dyn Engine>,
    registry: Arc<Registry>,
    state: State,
    lane: Lane,
    position: Position,
    began: Instant,
    runtime: Handle,
    receiver: Receiver<Input>,
    inlet: Inlet,
    world: World,
    /// Intents that wait for rows, by the first they lack.
    parked: HashMap<Need, VecDeque<Queued>>,
    /// What whoever comes waits for as well, as long as somebody is parked under it: see [`Need::is_aside`].
    gate: Option<Need>,
    /// Taken from the queue, not yet prepared; in the order of arrival.
    backlog: VecDeque<Queued>,
    /// How many intents have arrived.
    arrivals: u64,
    failed: watch::Sender<Option<String>>,
    stats: Arc<CommitStats>,
    operations: Arc<Notify>,
    access: Arc<Access>,
    syncs: SyncTimes,
    /// Callers answered by the last group that had nothing else outstanding.
    answered_solo: usize,
    /// Set when the loop shall end; told when it has.
    stop: Option<oneshot::Sender<()>>,
}

/// A group on its way to the disk.
struct Group {
    sealed: Sealed,
    /// Its share of the queue.
    permits: Vec<OwnedSemaphorePermit>,
    /// Its callers that have nothing else outstanding.
    solo: usize,
}

impl Driver {
    /// One that has taken nothing yet.
    #[expect(clippy::too_many_arguments, reason = "each is one thing of its own, and it is called once")]
    pub fn new(
        engine: Arc<dyn Engine>,
        registry: Arc<Registry>,
        state: State,
        (lane, position): (Lane, Position),
        began: Instant,
        (inlet, receiver): (Inlet, Receiver<Input>),
        failed: watch::Sender<Option<String>>,
        stats: Arc<CommitStats>,
        operations: Arc<Notify>,
        access: Arc<Access>,
        world: World,
    ) -> Self {
        Self {
            engine,
            registry,
            state,
            lane,
            position,
            began,
            runtime: Handle::current(),
            receiver,
            inlet,
            world,
            parked: HashMap::default(),
            gate: None,
            backlog: VecDeque::new(),
            arrivals: 0,
            failed,
            stats,
            operations,
            access,
            syncs: SyncTimes::default(),
            answered_solo: 0,
            stop: None,
        }
    }

    fn now(&self) -> Now {
        Now { wall_us: self.world.now().0, mono: self.began.elapsed() }
    }

    /// The loop, on a thread of its own.
    pub fn run(mut self) {
        let runtime = self.runtime.clone();
        while self.goes_on() && self.gather() {
            if !self.refused() {
                runtime.block_on(self.group(self.stop.is_some()));
            }
        }
        runtime.block_on(self.end());
    }

    /// The loop, as a task of a simulation.
    #[cfg(feature = "faults")]
    pub async fn run_as_task(mut self, bell: Arc<Notify>) {
        while self.goes_on() {
            self.gather_as_task(&bell).await;
            if !self.refused() {
                self.group(self.stop.is_some()).await;
            }
        }
        self.end().await;
    }

    /// Has it to go on?
    fn goes_on(&self) -> bool {
        self.stop.is_none() || !(self.backlog.is_empty() && self.parked.is_empty())
    }

    /// After a failure everything is refused.
    fn refused(&mut self) -> bool {
        let reason = self.failed.borrow().clone();
        reason.inspect(|reason| self.refuse_all(reason)).is_some()
    }

    /// Writes what is left and lets go.
    async fn end(mut self) {
        let done = self.stop.take();
        if done.is_some() && self.failed.borrow().is_none() {
            self.group(true).await;
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

    /// The same as a task: what is in the queue when it looks is the group. Nobody is held for.
    #[cfg(feature = "faults")]
    async fn gather_as_task(&mut self, bell: &Notify) {
        loop {
            let mut taken = !self.backlog.is_empty() || self.stop.is_some() && self.parked.is_empty();
            while self.backlog.len() < limits::GROUP_REQUESTS {
                let Ok(input) = self.receiver.try_recv() else { break };
                self.take(input);
                taken = true;
            }
            if taken {
                return;
            }
            let rung = bell.notified();
            if !self.state.has_dirty() {
                rung.await;
            } else if tokio::time::timeout(limits::RECEIVED_ACK_PERSIST / 4, rung).await.is_err() {
                return;
            }
        }
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
    async fn group(&mut self, flush: bool) {
        let Some(Group { sealed, permits, solo }) = self.prepare(flush) else { return };
        self.settle(sealed).await;
        self.answered_solo = solo;
        drop(permits);
    }

    /// Lets the state decide about what is in the backlog.
    fn prepare(&mut self, flush: bool) -> Option<Group> {
        let full = match self.engine.pressure() {
            Pressure::None => None,
            Pressure::Full(why) => Some(why),
            Pressure::Failed(why) => {
                self.fail(&why, Vec::new());
                return None;
            }
        };
        let now = self.now();
        self.state.begin(now, full);
        let (mut permits, mut solo, mut prepared) = (Vec::new(), 0, 0u64);
        while let Some(queued) = self.backlog.pop_front() {
            if let Some(gate) = self.gate.clone().filter(|gate| self.parked.contains_key(gate)) {
                self.park(gate, queued);
                continue;
            }
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
        Some(Group { sealed, permits, solo })
    }

    fn park(&mut self, need: Need, queued: Queued) {
        if need.is_aside() {
            self.gate = Some(need.clone());
        }
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
                let (engine, inlet) = (self.engine.clone(), self.inlet.clone());
                self.runtime.spawn(async move {
                    let result = loader::load(&*engine, other.clone()).await;
                    drop(inlet.send(Input::Loaded(other, result)));
                });
            }
        }
        self.parked.entry(need).or_default().push_back(queued);
    }

    /// Makes a group durable and concludes it.
    async fn settle(&mut self, sealed: Sealed) {
        let Sealed { mut set, news, effects, mut answers, events } = sealed;
        let broken = self.state.broken();
        if broken.is(Promise::DirtyRead) || broken.is(Promise::AckBeforeSync) {
            self.registry.publish(&news);
        }
        if broken.is(Promise::AckBeforeSync) {
            answers.drain(..).for_each(|answer| answer.send(None));
        }
        if broken.is(Promise::SplitCommit) && !set.rows.is_empty() && !set.appends.is_empty() {
            let rows = WriteSet { appends: Vec::new(), ..set.clone() };
            set = WriteSet { appends: set.appends, ..Default::default() };
            match self.commit(rows).await {
                Ok(position) => self.position = position,
                Err(why) => return self.fail(&why.to_string(), answers),
            }
        }
        if !set.is_empty() {
            let bytes: usize = set.appends.iter().map(|b| b.value().len()).sum();
            match self.commit(set).await {
                Ok(position) => {
                    self.position = position;
                    self.state.committed();
                    self.stats.groups.fetch_add(1, Ordering::Relaxed);
                    self.stats.events.fetch_add(events, Ordering::Relaxed);
                    self.stats.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                }
                Err(EngineError::Failed(why)) => return self.fail(&why, answers),
                Err(refused) => {
                    warn!(error = %refused, "a commit was refused; nothing of it is stored");
                    self.state.rolled_back();
                    let told = engine_failure(&refused);
                    answers.into_iter().for_each(|answer| answer.send(Some(&told)));
                    return;
                }
            }
        }
        self.conclude(&news, effects, answers);
    }

    /// The group is durable: now it may be seen, and said.
    fn conclude(&mut self, news: &[News], effects: Vec<Effect>, answers: Vec<Answer>) {
        let _ = faults::reach(faults::PUBLISH);
        self.registry.publish(news);
        for effect in effects {
            match effect {
                Effect::End(mark, why) => mark.end(why),
                Effect::Acked(mark, next) => mark.acked_to(next),
                Effect::Access(changed) => self.access.changed(changed),
                Effect::Operations => self.operations.notify_waiters(),
                Effect::Audit(line) => info!(target: "audit", "{line}"),
            }
        }
        // Whoever is in the queue now did not come back because of these answers (see `gather`).
        while let Ok(input) = self.receiver.try_recv() {
            self.take(input);
        }
        // The last first: a connection waits for its oldest request, so it is woken once, and finds the others answered.
        let _ = faults::reach(faults::ANSWER);
        answers.into_iter().rev().for_each(|answer| answer.send(None));
        let _ = faults::reach(faults::ANSWERED);
    }

    /// One engine commit; a stall is waited out, because nothing has been stored then (`storage.md` section 8).
    async fn commit(&mut self, set: WriteSet) -> Result<Position, EngineError> {
        let mut pause = Duration::from_millis(1);
        let deadline = Instant::now() + limits::ADMISSION_WAIT;
        let mut set = Some(set);
        loop {
            let this = set.take().expect("put back before every further round");
            let again = this.clone();
            let began = Instant::now();
            let result = self.engine.commit(self.lane, self.position, this).await;
            let took = began.elapsed();
            match result {
                Err(EngineError::Refused(why)) if Instant::now() < deadline => {
                    warn!(%why, "the storage engine stalls; trying again");
                    wait(&self.world, pause).await;
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
    fn fail(&mut self, why: &str, answers: Vec<Answer>) {
        error!(%why, "the storage engine failed; the broker stops serving");
        let told = Error::new(
            Code::OutcomeUnknown,
            "The write failed while it was on its way to the disk: it may or may not be stored. Send the same request again when the broker is back.",
        )
        .rule("S-5");
        // Whoever hears of it must not read what it left behind.
        self.failed.send_replace(Some(why.to_owned()));
        for answer in answers {
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

/// Blocks the thread of the loop, or lets the simulated time pass.
#[cfg_attr(not(feature = "faults"), expect(unused_variables, reason = "only a simulation has another time"))]
async fn wait(world: &World, pause: Duration) {
    #[cfg(feature = "faults")]
    if world.is_simulated() {
        return tokio::time::sleep(pause).await;
    }
    std::thread::sleep(pause);
}
