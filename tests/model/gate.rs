//! An engine whose commits can be held, refused and failed, over either real one. It knows which offsets are durable, so that nothing above
//! them can be seen unnoticed (S-2).

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tidelog::log::{Capabilities, Engine, Lane, Position, Pressure, ReadLimits, RowKey, WriteSet};
use tokio::sync::watch;

use crate::support::*;

/// What a commit does instead of succeeding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Fails, and the set is not stored.
    BeforeWrite,
    /// Fails, and the set is stored.
    AfterWrite,
    /// Is refused; nothing stored, the engine lives on.
    Refuse,
}

/// See the module.
pub struct Gate {
    inner: Arc<dyn Engine>,
    /// The fault to come, and how many commits pass before it.
    armed: Mutex<Option<(Fate, u32)>>,
    /// The faults that came since somebody asked.
    met: Mutex<Vec<Fate>>,
    failed: AtomicBool,
    held: watch::Sender<bool>,
    waiting: watch::Sender<bool>,
    ends: Mutex<HashMap<StreamId, u64>>,
}

impl Gate {
    pub fn over(inner: Arc<dyn Engine>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            armed: Mutex::new(None),
            met: Mutex::default(),
            failed: AtomicBool::new(false),
            held: watch::channel(false).0,
            waiting: watch::channel(false).0,
            ends: Mutex::default(),
        })
    }

    /// The commit after `passing` others meets `fate`.
    pub fn arm(&self, fate: Fate, passing: u32) {
        *self.armed.lock() = Some((fate, passing));
    }

    pub fn disarm(&self) {
        *self.armed.lock() = None;
    }

    /// The process is killed here: what comes now is not written.
    pub fn kill(&self) {
        self.failed.store(true, Ordering::SeqCst);
    }

    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// The faults that were met since the last call.
    pub fn take_met(&self) -> Vec<Fate> {
        std::mem::take(&mut self.met.lock())
    }

    /// Commits wait from now on.
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    pub fn release(&self) {
        self.held.send_replace(false);
    }

    /// Resolves when a commit waits in the hold, or none will because the engine has failed.
    pub async fn arrived(&self) {
        let mut waiting = self.waiting.subscribe();
        while !*waiting.borrow_and_update() && !self.has_failed() {
            soon(waiting.changed()).await.expect("the gate is there");
        }
    }

    /// One past the last durable offset that this gate has seen.
    pub fn durable_end(&self, stream: u64) -> u64 {
        self.ends.lock().get(&StreamId(stream)).copied().unwrap_or(0)
    }

    /// A stream that was there before ends here.
    pub fn knows(&self, stream: u64, end: u64) {
        self.ends.lock().insert(StreamId(stream), end);
    }

    fn failure(&self) -> EngineError {
        self.kill();
        self.waiting.send_replace(false);
        EngineError::Failed("a test failed the commit".into())
    }

    fn meets(&self) -> Option<Fate> {
        let mut armed = self.armed.lock();
        match armed.take() {
            Some((fate, 0)) => {
                self.met.lock().push(fate);
                Some(fate)
            }
            Some((fate, passing)) => {
                *armed = Some((fate, passing - 1));
                None
            }
            None => None,
        }
    }
}

#[async_trait]
impl Engine for Gate {
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
        if *self.held.borrow() {
            self.waiting.send_replace(true);
            let mut held = self.held.subscribe();
            held.wait_for(|held| !held).await.expect("the sender lives in self");
            self.waiting.send_replace(false);
        }
        if self.has_failed() {
            return Err(self.failure());
        }
        let fate = self.meets();
        match fate {
            Some(Fate::BeforeWrite) => return Err(self.failure()),
            // A stall would be tried again; this is not.
            Some(Fate::Refuse) => return Err(EngineError::Full("a test asked for it".into())),
            Some(Fate::AfterWrite) | None => {}
        }
        let ends: Vec<_> = set.appends.iter().map(|batch| (batch.stream, batch.head.end())).collect();
        let position = self.inner.commit(lane, expected, set).await?;
        if fate.is_some() {
            return Err(self.failure());
        }
        self.ends.lock().extend(ends);
        Ok(position)
    }

    async fn read(&self, stream: StreamId, from: u64, limits: ReadLimits) -> Result<Vec<Arc<tidelog::types::Batch>>, EngineError> {
        self.inner.read(stream, from, limits).await
    }

    async fn last(&self, stream: StreamId, not_below: u64) -> Result<Option<Arc<tidelog::types::Batch>>, EngineError> {
        self.inner.last(stream, not_below).await
    }

    async fn get(&self, keys: Vec<RowKey>) -> Result<Vec<Option<Bytes>>, EngineError> {
        // A real disk answers later: whoever does not wait for its row is found out.
        tokio::task::yield_now().await;
        self.inner.get(keys).await
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
