//! The storage port: one small trait whose comments are the contract, and the engines behind it.
//!
//! An engine stores batches and rows and makes a [`WriteSet`] durable as a whole. It knows no rule of the broker.
//! The trait is written so that an engine shared by many brokers fits it: hence lanes, positions and [`EngineError::Conflict`].

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::types::batch::BatchHead;
use crate::types::{Batch, StreamId};

pub mod check;
pub mod memory;
mod open_error;
pub mod rocks;
pub mod rows;
mod run;

#[cfg(test)]
mod conformance;

pub use open_error::OpenError;
pub(crate) use rocks::faults;
#[cfg(feature = "faults")]
pub use rocks::faults::POINTS as FAULT_POINTS;
pub use rows::{IdempotencyRow, Key, ProducerKey, RowKey, Space};

/// One total order of changes: one commit loop, one in-memory state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane(pub u32);

/// How many commits a lane has seen. Grows by one with each; starts wherever the engine was opened.
pub type Position = u64;

/// A change that happens as a whole or not at all.
#[derive(Clone, Debug, Default)]
pub struct WriteSet {
    /// New batches. Their keys are (stream, base offset) and new: an engine may rely on it (S-8).
    pub appends: Vec<Arc<Batch>>,
    /// Rows to put (`Some`) or delete (`None`). Each key at most once.
    pub rows: Vec<(RowKey, Option<Vec<u8>>)>,
    /// Ranges to delete. They take effect before the appends and rows of the same set.
    pub ranges: Vec<DeleteRange>,
}

impl WriteSet {
    /// Nothing to do?
    pub fn is_empty(&self) -> bool {
        self.appends.is_empty() && self.rows.is_empty() && self.ranges.is_empty()
    }

    /// Does it hold events of users? Those wait while the disk is nearly full; what the broker says of an act that frees space does not.
    pub fn appends_of_users(&self) -> bool {
        self.appends.iter().any(|batch| !batch.stream.is_system())
    }

    /// Bytes it will write, roughly.
    pub fn bytes(&self) -> usize {
        self.appends.iter().map(|b| b.value().len() + 16).sum::<usize>()
            + self.rows.iter().map(|(k, v)| k.bytes.len() + v.as_ref().map_or(0, Vec::len)).sum::<usize>()
    }
}

/// Everything from `from` (inclusive) to `to` (exclusive).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeleteRange {
    /// Rows, by encoded key.
    Rows {
        /// In which space.
        space: Space,
        /// First key that goes.
        from: Vec<u8>,
        /// First key that stays.
        to: Vec<u8>,
    },
    /// Batches of one stream, by base offset.
    Batches {
        /// Whose.
        stream: StreamId,
        /// First base that goes.
        from: u64,
        /// First base that stays; `None` = all go.
        to: Option<u64>,
    },
}

/// How much one read may return. At least one batch is returned if there is one.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// Stop before batches whose base offset is this or more.
    pub until: u64,
    /// Stop after this many bytes of stored values.
    pub bytes: usize,
    /// Stop after this many batches.
    pub batches: usize,
    /// Base offset of the first kept batch: nothing below it is looked at.
    pub not_below: u64,
}

/// What went wrong in an engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// Another broker wrote to the lane. Nothing of this set is stored, nor will be.
    #[error("another broker moved the lane to position {position}")]
    Conflict {
        /// Where the lane is now.
        position: Position,
    },
    /// The engine cannot take it now (a stall). Nothing is stored; the same set may be tried again.
    #[error("the storage engine is busy: {0}")]
    Refused(String),
    /// The free-space watermark is reached. Nothing is stored.
    #[error("the disk is nearly full: {0}")]
    Full(String),
    /// A write or sync failed: the set may or may not be stored. The engine refuses everything from now on (S-5).
    #[error("the storage engine failed: {0}")]
    Failed(String),
    /// Stored bytes are damaged (S-6). Offsets are inclusive.
    #[error("stream {stream}: offsets {from} to {to} are damaged: {what}")]
    Corrupt {
        /// In which stream.
        stream: StreamId,
        /// First offset that cannot be trusted.
        from: u64,
        /// Last offset that cannot be trusted.
        to: u64,
        /// How it shows.
        what: String,
    },
}

/// What an engine can and cannot do; the broker refuses early what it cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Word for people: `memory`, `rocks`.
    pub name: &'static str,
    /// An acknowledged commit survives power loss (claim 1 of the guarantees).
    pub durable: bool,
    /// Other brokers may write to the same lanes.
    pub shared: bool,
    /// A commit may touch several lanes.
    pub cross_lane: bool,
}

/// May more be written?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// Yes.
    None,
    /// The disk is below its watermark: only small rows may be written.
    Full(String),
    /// The engine has failed and will not recover in this process.
    Failed(String),
}

/// A log of batches and a table of rows, both durable.
///
/// A new store holds one row, [`Key::Format`], whose secret never changes: what is signed with it stays good over restarts.
/// Every engine passes `log::conformance`. All methods are safe to cancel, except that a cancelled `commit` has the
/// outcome [`EngineError::Failed`]: unknown.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// How many lanes there are; never changes.
    fn lanes(&self) -> u32;

    /// In which lane the streams of `owner` (a user id) live.
    fn lane_of(&self, owner: u64) -> Lane;

    /// Where a lane is now.
    async fn position(&self, lane: Lane) -> Result<Position, EngineError>;

    /// Makes `set` durable as a whole if the lane is still at `expected`, and returns the new position.
    ///
    /// Resolves with success only when all of it is on stable storage (S-1); it is visible to readers then and not before (S-2).
    /// After [`EngineError::Failed`] the engine MUST refuse every further commit with the same error (S-5).
    /// May block the calling thread: the commit loop calls it from a thread of its own, one at a time per lane (S-4).
    async fn commit(&self, lane: Lane, expected: Position, set: WriteSet) -> Result<Position, EngineError>;

    /// Batches of `stream` in order, beginning with the one that contains `from` (or the first after it).
    /// Committed data only; each batch is verified, and each begins where the one before it ended (S-6).
    ///
    /// # Errors
    /// [`EngineError::Corrupt`] names the range that cannot be read; batches before it are returned first, by an earlier call.
    async fn read(&self, stream: StreamId, from: u64, limits: ReadLimits) -> Result<Vec<Arc<Batch>>, EngineError>;

    /// The last batch of `stream` whose base offset is at or above `not_below`.
    async fn last(&self, stream: StreamId, not_below: u64) -> Result<Option<Arc<Batch>>, EngineError>;

    /// Heads of what [`Engine::last`] gives of many streams, in the order asked; an engine that pays for each call answers all in one. No more
    /// than one batch is in memory at a time.
    async fn last_heads(&self, asked: Vec<(StreamId, u64)>) -> Result<Vec<Option<BatchHead>>, EngineError> {
        let mut found = Vec::with_capacity(asked.len());
        for (stream, not_below) in asked {
            found.push(self.last(stream, not_below).await?.map(|batch| batch.head));
        }
        Ok(found)
    }

    /// Values of rows, in the order asked.
    async fn get(&self, keys: Vec<RowKey>) -> Result<Vec<Option<Bytes>>, EngineError>;

    /// Up to `limit` rows whose key begins with `prefix` and is greater than `after` (a full key), in key order.
    async fn scan(&self, prefix: RowKey, after: Option<Vec<u8>>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, EngineError>;

    /// Resolves when another broker has moved the lane beyond `seen`; never for an embedded engine.
    async fn follow(&self, lane: Lane, seen: Position) -> Result<Position, EngineError>;

    /// Gives back the disk space of batches of `stream` whose base offset is below `before`; `None` = of all its batches.
    ///
    /// Only reclaims: the caller has deleted them by a committed [`DeleteRange::Batches`] before.
    async fn trim(&self, stream: StreamId, before: Option<u64>) -> Result<(), EngineError>;

    /// Writes a consistent copy into `dest`, which must not exist.
    async fn checkpoint(&self, dest: &Path) -> Result<(), EngineError>;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// May more be written? Cheap: the commit loop asks before each group.
    fn pressure(&self) -> Pressure;

    /// Numbers for `/metrics`: name and value, from the engine's own counters.
    fn metrics(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }

    /// Flushes and lets go of the directory. Commits fail afterwards.
    async fn close(&self) -> Result<(), EngineError>;
}
