//! A disk that takes its time and keeps what disks keep: a set that was written and not synced is there after a crash, or is not.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tidelog::log::memory::Memory;
use tidelog::log::rows::{self, value};
use tidelog::log::{Capabilities, Engine, EngineError, Key, Lane, Position, Pressure, ReadLimits, RowKey, WriteSet};
use tidelog::types::{Batch, StreamId};

use crate::dice::Dice;
use crate::power::Power;
use crate::trace::Trace;

/// Between which steps of a commit the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing of the set has left the process.
    BeforeWrite,
    /// All of it has, and none of it is surely on the disk.
    Written,
    /// It is on the disk, and nobody was told.
    Synced,
}

/// What a later commit meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The process dies there.
    Crash(Step),
    /// The write fails, with all, nothing or a part of it done.
    FailWrite,
    /// The sync fails. What a later one would say is worth nothing.
    FailSync,
    /// A stall: refused this many times.
    Refuse(u32),
}

/// See the module.
pub struct Disk {
    memory: Memory,
    power: Arc<Power>,
    trace: Arc<Trace>,
    state: Mutex<State>,
}

struct State {
    dice: Dice,
    /// Written, not synced.
    torn: Option<WriteSet>,
    finished: Option<String>,
    full: bool,
    trouble: Option<Trouble>,
}

impl Disk {
    /// An empty one.
    pub fn new(dice: Dice, power: Arc<Power>, trace: Arc<Trace>) -> Self {
        let memory = Memory::new();
        memory.change_row(Key::Format, |row| {
            let format: value::Format = rows::decode(row).expect("a new store has a format");
            rows::encode(&value::Format { secret: vec![7; 32], ..format })
        });
        Self::with(memory, dice, power, trace)
    }

    fn with(memory: Memory, dice: Dice, power: Arc<Power>, trace: Arc<Trace>) -> Self {
        Self { memory, power, trace, state: Mutex::new(State { dice, torn: None, finished: None, full: false, trouble: None }) }
    }

    /// What the next process finds.
    pub async fn recover(&self, power: Arc<Power>) -> Self {
        let (torn, dice) = {
            let mut state = self.state.lock();
            let kept = state.dice.one_in(2);
            (state.torn.take().filter(|_| kept), state.dice.clone())
        };
        if let Some(set) = torn {
            self.trace.say(format_args!("disk: the unsynced set is there"));
            let position = self.memory.position(Lane(0)).await.expect("memory has a position");
            self.memory.commit(Lane(0), position, set).await.expect("memory takes it");
        }
        Self::with(self.memory.reopen(), dice, power, self.trace.clone())
    }

    /// A later commit meets it.
    pub fn plan(&self, trouble: Trouble) {
        self.state.lock().trouble = Some(trouble);
    }

    /// Room or no room.
    pub fn fill(&self, full: bool) {
        self.state.lock().full = full;
    }

    /// Nothing is planned any more.
    pub fn calm(&self) {
        let mut state = self.state.lock();
        (state.trouble, state.full) = (None, false);
    }

    /// A dead process gets no answer from its disk.
    async fn alive(&self) {
        if !self.power.is_on() {
            std::future::pending::<()>().await;
        }
    }

    async fn wait(&self, from: u64, to: u64) {
        let time = self.state.lock().dice.between(from, to);
        if time > 0 {
            tokio::time::sleep(Duration::from_millis(time)).await;
        }
        self.alive().await;
    }

    /// A read: mostly at once, now and then not.
    async fn seek(&self) {
        self.alive().await;
        let slow = self.state.lock().dice.one_in(4);
        if slow {
            self.wait(1, 6).await;
        }
    }

    async fn at(&self, step: Step, trouble: Option<Trouble>) {
        if trouble == Some(Trouble::Crash(step)) {
            self.trace.say(format_args!("disk: the process dies: {step:?}"));
            self.power.cut();
        }
        self.alive().await;
    }

    fn finish(&self, why: &str) -> EngineError {
        self.trace.say(format_args!("disk: {why}"));
        EngineError::Failed(self.state.lock().finished.get_or_insert_with(|| why.to_owned()).clone())
    }
}

#[async_trait]
impl Engine for Disk {
    fn lanes(&self) -> u32 {
        1
    }

    fn lane_of(&self, _owner: u64) -> Lane {
        Lane(0)
    }

    async fn position(&self, lane: Lane) -> Result<Position, EngineError> {
        self.alive().await;
        self.memory.position(lane).await
    }

    async fn commit(&self, lane: Lane, expected: Position, set: WriteSet) -> Result<Position, EngineError> {
        self.alive().await;
        let trouble = {
            let mut state = self.state.lock();
            if let Some(why) = &state.finished {
                return Err(EngineError::Failed(why.clone()));
            }
            if state.full && set.appends_of_users() {
                return Err(EngineError::Full("the simulation says so".into()));
            }
            if let Some(Trouble::Refuse(times)) = state.trouble {
                state.trouble = (times > 1).then_some(Trouble::Refuse(times - 1));
                return Err(EngineError::Refused("the simulation stalls".into()));
            }
            state.trouble.take()
        };
        self.trace.say(format_args!(
            "disk: commit at {expected}: {} batches, {} rows, {} ranges, {} bytes",
            set.appends.len(),
            set.rows.len(),
            set.ranges.len(),
            set.bytes()
        ));
        self.wait(0, 1).await;
        self.at(Step::BeforeWrite, trouble).await;
        self.state.lock().torn = Some(set.clone());
        if trouble == Some(Trouble::FailWrite) {
            return Err(self.finish("the write failed"));
        }
        self.wait(0, 1).await;
        self.at(Step::Written, trouble).await;
        let slow = self.state.lock().dice.one_in(40);
        self.wait(1, if slow { 120 } else { 5 }).await;
        if trouble == Some(Trouble::FailSync) {
            return Err(self.finish("the sync failed"));
        }
        let position = self.memory.commit(lane, expected, set).await?;
        self.state.lock().torn = None;
        self.at(Step::Synced, trouble).await;
        self.wait(0, 1).await;
        Ok(position)
    }

    async fn read(&self, stream: StreamId, from: u64, limits: ReadLimits) -> Result<Vec<Arc<Batch>>, EngineError> {
        self.seek().await;
        self.memory.read(stream, from, limits).await
    }

    async fn last(&self, stream: StreamId, not_below: u64) -> Result<Option<Arc<Batch>>, EngineError> {
        self.seek().await;
        self.memory.last(stream, not_below).await
    }

    async fn get(&self, keys: Vec<RowKey>) -> Result<Vec<Option<Bytes>>, EngineError> {
        self.seek().await;
        self.memory.get(keys).await
    }

    async fn scan(&self, prefix: RowKey, after: Option<Vec<u8>>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
        self.seek().await;
        self.memory.scan(prefix, after, limit).await
    }

    async fn follow(&self, _lane: Lane, _seen: Position) -> Result<Position, EngineError> {
        std::future::pending().await
    }

    async fn trim(&self, stream: StreamId, before: Option<u64>) -> Result<(), EngineError> {
        self.seek().await;
        self.memory.trim(stream, before).await
    }

    async fn checkpoint(&self, _dest: &Path) -> Result<(), EngineError> {
        Err(EngineError::Refused("the simulation writes no files".into()))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { name: "simulation", durable: true, shared: false, cross_lane: false }
    }

    fn pressure(&self) -> Pressure {
        let state = self.state.lock();
        match &state.finished {
            Some(why) => Pressure::Failed(why.clone()),
            None if state.full => Pressure::Full("the simulation says so".into()),
            None => Pressure::None,
        }
    }

    async fn close(&self) -> Result<(), EngineError> {
        self.alive().await;
        self.memory.close().await
    }
}
