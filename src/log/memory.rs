//! The engine that forgets: for tests of everything above the log, with the faults that tests need.
//!
//! It passes the same suite as the durable one. [`Memory::reopen`] is what a restart would find.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::rows::value;
use super::run::Run;
use super::{Capabilities, DeleteRange, Engine, EngineError, Key, Lane, Position, Pressure, ReadLimits, RowKey, WriteSet, rows};
use crate::types::{Batch, StreamId};

/// What the next commit does instead of succeeding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Fails, and the set is not stored (S-5: the caller cannot know).
    BeforeWrite,
    /// Fails, and the set is stored (S-5: the caller cannot know).
    AfterWrite,
    /// Is refused as in a stall: nothing stored, the engine lives on.
    Refuse,
}

#[derive(Clone, Default)]
struct Data {
    log: BTreeMap<(StreamId, u64), Arc<Batch>>,
    rows: BTreeMap<RowKey, Bytes>,
    damaged: BTreeSet<(StreamId, u64)>,
}

/// Batches and rows in memory.
pub struct Memory {
    data: RwLock<Data>,
    position: Mutex<Position>,
    /// First reason why it is finished.
    finished: Mutex<Option<String>>,
    fault: Mutex<Option<Fault>>,
    full: Mutex<Option<String>>,
    /// Are commits held back?
    held: watch::Sender<bool>,
    /// How many commits wait in the hold.
    waiting: watch::Sender<usize>,
    /// One commit at a time (S-4).
    turn: tokio::sync::Mutex<()>,
}

impl Default for Memory {
    fn default() -> Self {
        let secret: [u8; 32] = rand::random();
        let format = value::Format { version: rows::FORMAT_VERSION, created_us: 0, secret: secret.to_vec() };
        Self::with(Data { rows: BTreeMap::from([(Key::Format.encode(), rows::encode(&format).into())]), ..Data::default() })
    }
}

/// While it lives, commits stop between the write and the moment they become visible (S-2, S-3).
pub struct Hold(Arc<Memory>);

impl Hold {
    /// Resolves when a commit has arrived and waits.
    pub async fn arrived(&self) {
        let mut waiting = self.0.waiting.subscribe();
        waiting.wait_for(|n| *n > 0).await.expect("the engine outlives its hold");
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.held.send_replace(false);
    }
}

impl Memory {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn with(data: Data) -> Self {
        Self {
            data: RwLock::new(data),
            position: Mutex::new(0),
            finished: Mutex::new(None),
            fault: Mutex::new(None),
            full: Mutex::new(None),
            held: watch::channel(false).0,
            waiting: watch::channel(0).0,
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// What a new process would find after this one died: all that is stored, whether or not its commit said so.
    pub fn reopen(&self) -> Self {
        Self::with(self.data.read().clone())
    }

    /// The next commit meets `fault`.
    pub fn fail_commits(&self, fault: Fault) {
        *self.fault.lock() = Some(fault);
    }

    /// Rewrites a row, as a test that needs another past would.
    pub fn change_row(&self, key: Key<'_>, change: impl FnOnce(&[u8]) -> Vec<u8>) {
        let mut data = self.data.write();
        let row = data.rows.entry(key.encode()).or_default();
        *row = change(row).into();
    }

    /// Sets or lifts the free-space watermark.
    pub fn fill(&self, reason: Option<&str>) {
        *self.full.lock() = reason.map(str::to_owned);
    }

    /// Commits from now on wait until the hold is dropped.
    pub fn hold_commits(self: &Arc<Self>) -> Hold {
        self.held.send_replace(true);
        Hold(self.clone())
    }

    /// Makes the batch at `base_offset` unreadable, as bad bytes on a disk would.
    pub fn damage(&self, stream: StreamId, base_offset: u64) {
        self.data.write().damaged.insert((stream, base_offset));
    }

    fn usable(&self) -> Result<(), EngineError> {
        self.finished.lock().clone().map_or(Ok(()), |reason| Err(EngineError::Failed(reason)))
    }

    fn finish(&self, reason: &str) -> EngineError {
        EngineError::Failed(self.finished.lock().get_or_insert_with(|| reason.to_owned()).clone())
    }
}

impl Data {
    fn apply(&mut self, set: WriteSet) {
        for range in set.ranges {
            match range {
                DeleteRange::Rows { space, from, to } => {
                    self.rows.retain(|key, _| key.space != space || key.bytes < from || key.bytes >= to);
                }
                DeleteRange::Batches { stream, from, to } => {
                    let gone = |key: &(StreamId, u64)| key.0 == stream && key.1 >= from && to.is_none_or(|to| key.1 < to);
                    self.log.retain(|key, _| !gone(key));
                }
            }
        }
        self.log.extend(set.appends.into_iter().map(|batch| ((batch.stream, batch.head.base_offset), batch)));
        for (key, value) in set.rows {
            match value {
                Some(value) => drop(self.rows.insert(key, value.into())),
                None => drop(self.rows.remove(&key)),
            }
        }
    }

    fn read(&self, run: &mut Run, stream: StreamId, from: u64, limits: ReadLimits) -> Result<(), EngineError> {
        let start = from.max(limits.not_below);
        let before = self.log.range((stream, limits.not_below)..(stream, start)).next_back();
        let mut first = start;
        if let (Some((key, batch)), false) = (before, self.log.contains_key(&(stream, start))) {
            if batch.head.end() > start {
                first = key.1;
            } else {
                run.begins_after(batch);
            }
        }
        for (key, batch) in self.log.range((stream, first)..=(stream, u64::MAX)) {
            if !run.wants(key.1, batch.value().len()) {
                break;
            }
            run.follows(key.1)?;
            if self.damaged.contains(key) {
                return Err(run.corrupt(key.1, batch.head.end() - 1, "damaged by a test".into()));
            }
            run.add(batch.clone());
        }
        Ok(())
    }
}

/// A commit that is dropped while it waits has an unknown outcome: the engine is finished.
struct Waiting<'a>(&'a Memory, bool);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.send_modify(|n| *n -= 1);
        if !self.1 {
            self.0.finish("a commit was cancelled");
        }
    }
}

#[async_trait]
impl Engine for Memory {
    fn lanes(&self) -> u32 {
        1
    }

    fn lane_of(&self, _owner: u64) -> Lane {
        Lane(0)
    }

    async fn position(&self, _lane: Lane) -> Result<Position, EngineError> {
        Ok(*self.position.lock())
    }

    async fn commit(&self, lane: Lane, expected: Position, set: WriteSet) -> Result<Position, EngineError> {
        let _turn = self.turn.lock().await;
        self.usable()?;
        if lane != Lane(0) {
            return Err(EngineError::Refused(format!("there is no lane {}", lane.0)));
        }
        let position = *self.position.lock();
        if position != expected {
            return Err(EngineError::Conflict { position });
        }
        if let (Some(reason), true) = (self.full.lock().clone(), set.appends_of_users()) {
            return Err(EngineError::Full(reason));
        }
        let fault = self.fault.lock().take();
        if fault == Some(Fault::Refuse) {
            return Err(EngineError::Refused("a test asked for it".into()));
        }
        if *self.held.borrow() {
            self.waiting.send_modify(|n| *n += 1);
            let mut waiting = Waiting(self, false);
            let mut held = self.held.subscribe();
            // The sender lives in `self`: it cannot be gone.
            let _ = held.wait_for(|held| !held).await;
            waiting.1 = true;
        }
        if fault == Some(Fault::BeforeWrite) {
            return Err(self.finish("a test failed the write"));
        }
        self.data.write().apply(set);
        if fault == Some(Fault::AfterWrite) {
            return Err(self.finish("a test failed the sync"));
        }
        *self.position.lock() = position + 1;
        Ok(position + 1)
    }

    async fn read(&self, stream: StreamId, from: u64, limits: ReadLimits) -> Result<Vec<Arc<Batch>>, EngineError> {
        let mut run = Run::new(stream, limits);
        let outcome = self.data.read().read(&mut run, stream, from, limits);
        run.end(outcome)
    }

    async fn last(&self, stream: StreamId, not_below: u64) -> Result<Option<Arc<Batch>>, EngineError> {
        let data = self.data.read();
        let Some((key, batch)) = data.log.range((stream, not_below)..=(stream, u64::MAX)).next_back() else { return Ok(None) };
        if data.damaged.contains(key) {
            return Err(EngineError::Corrupt { stream, from: key.1, to: batch.head.end() - 1, what: "damaged by a test".into() });
        }
        Ok(Some(batch.clone()))
    }

    async fn get(&self, keys: Vec<RowKey>) -> Result<Vec<Option<Bytes>>, EngineError> {
        let data = self.data.read();
        Ok(keys.iter().map(|key| data.rows.get(key).cloned()).collect())
    }

    async fn scan(&self, prefix: RowKey, after: Option<Vec<u8>>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
        let data = self.data.read();
        let end = rows::end_of(&prefix.bytes);
        let found = data.rows.range(prefix.clone()..).take_while(|(key, _)| key.space == prefix.space && end.as_ref().is_none_or(|end| key.bytes < *end));
        let found = found.filter(|(key, _)| after.as_ref().is_none_or(|after| key.bytes > *after));
        Ok(found.take(limit).map(|(key, value)| (Bytes::copy_from_slice(&key.bytes), value.clone())).collect())
    }

    async fn follow(&self, _lane: Lane, _seen: Position) -> Result<Position, EngineError> {
        std::future::pending().await
    }

    async fn trim(&self, _stream: StreamId, _before: Option<u64>) -> Result<(), EngineError> {
        Ok(())
    }

    async fn checkpoint(&self, _dest: &Path) -> Result<(), EngineError> {
        Err(EngineError::Refused("the memory engine writes no files".into()))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { name: "memory", durable: false, shared: false, cross_lane: false }
    }

    fn pressure(&self) -> Pressure {
        if let Some(reason) = self.finished.lock().clone() {
            return Pressure::Failed(reason);
        }
        self.full.lock().clone().map_or(Pressure::None, Pressure::Full)
    }

    async fn close(&self) -> Result<(), EngineError> {
        let _turn = self.turn.lock().await;
        self.finish("the engine is closed");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::conformance::{ALL, batch, spans};

    const S: StreamId = StreamId(1);

    fn one() -> WriteSet {
        WriteSet { appends: vec![batch(S, 0, 1, 10)], ..WriteSet::default() }
    }

    #[tokio::test]
    async fn a_held_commit_is_not_visible_until_it_is_released() {
        let memory = Arc::new(Memory::new());
        let engine: Arc<dyn Engine> = memory.clone();
        let hold = memory.hold_commits();
        let commit = tokio::spawn({
            let engine = engine.clone();
            async move { engine.commit(Lane(0), 0, one()).await }
        });
        hold.arrived().await;
        assert_eq!(spans(&engine, S, 0, ALL).await, []);
        assert_eq!(engine.position(Lane(0)).await, Ok(0));
        drop(hold);
        assert_eq!(commit.await.unwrap(), Ok(1));
        assert_eq!(spans(&engine, S, 0, ALL).await, [(0, 1)]);
    }

    #[tokio::test]
    async fn a_cancelled_commit_finishes_the_engine() {
        let memory = Arc::new(Memory::new());
        let hold = memory.hold_commits();
        tokio::select! {
            biased;
            _ = memory.commit(Lane(0), 0, one()) => panic!("it was held"),
            () = hold.arrived() => {}
        }
        drop(hold);
        assert!(matches!(memory.commit(Lane(0), 0, one()).await, Err(EngineError::Failed(_))));
    }

    #[tokio::test]
    async fn a_refused_commit_may_be_tried_again() {
        let memory = Memory::new();
        memory.fail_commits(Fault::Refuse);
        assert!(matches!(memory.commit(Lane(0), 0, one()).await, Err(EngineError::Refused(_))));
        assert_eq!(memory.commit(Lane(0), 0, one()).await, Ok(1));
    }

    #[tokio::test]
    async fn damage_is_named() {
        let memory = Memory::new();
        memory.commit(Lane(0), 0, one()).await.unwrap();
        memory.damage(S, 0);
        assert!(matches!(memory.read(S, 0, ALL).await, Err(EngineError::Corrupt { from: 0, to: 0, .. })));
        assert!(matches!(memory.last(S, 0).await, Err(EngineError::Corrupt { from: 0, to: 0, .. })));
    }
}
