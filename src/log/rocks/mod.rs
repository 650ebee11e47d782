//! The embedded engine: RocksDB in a local directory, one lane, one writer.
//!
//! Each commit is one write batch and one fdatasync. After the first write or sync that failed the handle is finished (S-5): what is on disk is
//! then only known by opening it again. RocksDB is named nowhere outside this folder.

mod closed;
mod durable;
pub(crate) mod faults;
mod keys;
mod manifest;
mod open;
mod options;
mod raw;
mod reader;
mod recovery;
#[doc(hidden)]
pub mod seams;
mod space;
#[cfg(test)]
mod tests;

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{DB, ErrorKind, FlushOptions, WriteBatch, properties};
use tokio::sync::oneshot;

use super::{Capabilities, DeleteRange, Engine, EngineError, Lane, OpenError, Position, Pressure, ReadLimits, RowKey, WriteSet, rows};
use crate::types::batch::BatchHead;
use crate::types::{Batch, StreamId};
use durable::Keeper;
use faults::Faults;
use keys::log_key;
use options::{Shared, family};
use space::Space;

pub(super) use closed::{Closed, Rows};
pub use options::{RocksOptions, open_files};
#[doc(hidden)]
pub use raw::raw_write;

/// The embedded, durable engine.
pub struct Rocks {
    /// `None` after the close. Reads clone the handle; the last one to let go closes the database.
    store: RwLock<Option<Arc<Store>>>,
    /// Resolves when the store is gone.
    gone: Mutex<Option<oneshot::Receiver<()>>>,
    /// Held during a commit: one at a time (S-4).
    writer: Mutex<()>,
    position: AtomicU64,
    /// First reason why it is finished.
    finished: Mutex<Option<String>>,
    space: Space,
    keeper: Keeper,
    faults: Faults,
}

/// What must be dropped in this order: the database, then the lock, then those who wait for both hear of it.
struct Store {
    db: DB,
    shared: Shared,
    _lock: File,
    _gone: oneshot::Sender<()>,
}

impl Store {
    fn flush(&self) -> Result<(), String> {
        faults::reach(faults::FLUSH)?;
        let mut how = FlushOptions::default();
        how.set_wait(true);
        let families: Vec<_> = family::ALL.into_iter().filter_map(|name| self.db.cf_handle(name)).collect();
        families.into_iter().try_for_each(|cf| self.db.flush_cf_opt(cf, &how)).map_err(rocksdb::Error::into_string)?;
        faults::reach(faults::FLUSHED)
    }
}

impl Drop for Rocks {
    fn drop(&mut self) {
        // Before the lock goes: nobody else may write the side file meanwhile.
        self.keeper.stop();
    }
}

impl Rocks {
    /// Opens a data directory, making it if needed. Blocks while the log is recovered.
    ///
    /// # Errors
    /// Says what is wrong with the directory and what to do; [`OpenError::exit_code`] for the process.
    pub fn open(options: RocksOptions) -> Result<Self, OpenError> {
        let faults = Faults::from_env().map_err(OpenError::Failed)?;
        let opened = open::open(&options)?;
        // Positions need only grow within one process; this start makes them easy to recognise in logs.
        let sequence = opened.db.latest_sequence_number();
        let keeper = Keeper::start(&options.dir, sequence).map_err(|e| OpenError::Failed(format!("No thread for the known-durable file: {e}.")))?;
        let space = open::watch_space(&options);
        faults::reach(faults::OPEN_DONE).map_err(OpenError::Failed)?;
        let (sender, receiver) = oneshot::channel();
        let store = Store { db: opened.db, shared: opened.shared, _lock: opened.lock, _gone: sender };
        Ok(Self {
            store: RwLock::new(Some(Arc::new(store))),
            gone: Mutex::new(Some(receiver)),
            writer: Mutex::new(()),
            position: AtomicU64::new(sequence),
            finished: Mutex::new(None),
            space,
            keeper,
            faults,
        })
    }

    /// The next commit fails, before or after it is stored.
    #[cfg(test)]
    pub(super) fn fail_next(&self, stored: bool) {
        let point = if stored { faults::AFTER_WRITE } else { faults::BEFORE_WRITE };
        self.faults.add(&format!("{point}=error@1")).expect("a fault point");
    }

    fn store(&self) -> Result<Arc<Store>, EngineError> {
        self.store.read().clone().ok_or_else(|| EngineError::Failed("the engine is closed".into()))
    }

    /// Remembers the first reason; returns the error of every commit from now on (S-5).
    fn finish(&self, reason: String) -> EngineError {
        let mut finished = self.finished.lock();
        if finished.is_none() {
            tracing::error!(%reason, "the storage engine is finished: what was being written may or may not be stored (S-5)");
        }
        EngineError::Failed(finished.get_or_insert(reason).clone())
    }

    fn write(&self, store: &Store, set: &WriteSet) -> Result<(), EngineError> {
        self.faults.visit(faults::BEFORE_WRITE).map_err(|reason| self.finish(reason))?;
        if !set.ranges.is_empty() {
            self.faults.visit(faults::TRIM_RANGE).map_err(|reason| self.finish(reason))?;
        }
        let batch = encode(&store.db, set)?;
        match store.db.write_opt(batch, &options::commit()) {
            Ok(()) => {}
            // With `no_slowdown` these two come before anything reaches the WAL (storage.md section 8).
            Err(error) if matches!(error.kind(), ErrorKind::Incomplete | ErrorKind::Busy) => return Err(EngineError::Refused(error.into_string())),
            Err(error) => return Err(self.finish(error.into_string())),
        }
        self.faults.visit(faults::AFTER_WRITE).map_err(|reason| self.finish(reason))?;
        if !set.ranges.is_empty() {
            self.faults.visit(faults::TRIM_RANGED).map_err(|reason| self.finish(reason))?;
        }
        self.keeper.committed(store.db.latest_sequence_number());
        Ok(())
    }

    async fn blocking<T: Send + 'static>(&self, task: impl FnOnce(&Store) -> Result<T, EngineError> + Send + 'static) -> Result<T, EngineError> {
        let store = self.store()?;
        let task = tokio::task::spawn_blocking(move || task(&store));
        task.await.unwrap_or_else(|error| Err(EngineError::Failed(format!("a storage task did not end: {error}"))))
    }
}

/// One write batch: ranges first, so that they do not take the new keys with them.
fn encode(db: &DB, set: &WriteSet) -> Result<WriteBatch, EngineError> {
    let log = reader::family(db, family::LOG)?;
    let (state, meta) = (reader::family(db, family::STATE)?, reader::family(db, family::META)?);
    let of = |space: rows::Space| match space {
        rows::Space::State => state,
        rows::Space::Meta => meta,
    };
    let mut batch = WriteBatch::with_capacity_bytes(set.bytes() + 64 * (1 + set.rows.len() + set.appends.len() + set.ranges.len()));
    for range in &set.ranges {
        match range {
            DeleteRange::Rows { space, from, to } => batch.delete_range_cf(of(*space), from, to),
            DeleteRange::Batches { stream, from, to } => {
                let to = to.map_or_else(|| keys::end_of_stream(*stream), |to| log_key(*stream, to).to_vec());
                batch.delete_range_cf(log, log_key(*stream, *from).to_vec(), to);
            }
        }
    }
    for append in &set.appends {
        batch.put_cf(log, log_key(append.stream, append.head.base_offset), append.value());
    }
    for (key, value) in &set.rows {
        let cf = of(key.space);
        match value {
            Some(value) => batch.put_cf(cf, &key.bytes, value),
            None => batch.delete_cf(cf, &key.bytes),
        }
    }
    Ok(batch)
}

#[async_trait]
impl Engine for Rocks {
    fn lanes(&self) -> u32 {
        1
    }

    fn lane_of(&self, _owner: u64) -> Lane {
        Lane(0)
    }

    async fn position(&self, _lane: Lane) -> Result<Position, EngineError> {
        Ok(self.position.load(Ordering::SeqCst))
    }

    /// Blocks the calling thread and has no point at which it could be cancelled.
    async fn commit(&self, lane: Lane, expected: Position, set: WriteSet) -> Result<Position, EngineError> {
        let _writer = self.writer.lock();
        if let Some(reason) = self.finished.lock().clone() {
            return Err(EngineError::Failed(reason));
        }
        let store = self.store()?;
        if lane != Lane(0) {
            return Err(EngineError::Refused(format!("there is no lane {}", lane.0)));
        }
        let position = self.position.load(Ordering::SeqCst);
        if position != expected {
            return Err(EngineError::Conflict { position });
        }
        if set.appends_of_users()
            && let Pressure::Full(reason) = self.space.pressure()
        {
            return Err(EngineError::Full(reason));
        }
        if !set.is_empty() {
            self.write(&store, &set)?;
        }
        self.position.store(position + 1, Ordering::SeqCst);
        Ok(position + 1)
    }

    async fn read(&self, stream: StreamId, from: u64, limits: ReadLimits) -> Result<Vec<Arc<Batch>>, EngineError> {
        self.blocking(move |store| reader::read(&store.db, stream, from, limits)).await
    }

    async fn last(&self, stream: StreamId, not_below: u64) -> Result<Option<Arc<Batch>>, EngineError> {
        self.blocking(move |store| reader::last(&store.db, stream, not_below)).await
    }

    async fn last_heads(&self, asked: Vec<(StreamId, u64)>) -> Result<Vec<Option<BatchHead>>, EngineError> {
        let head = |store: &Store, (stream, not_below)| Ok(reader::last(&store.db, stream, not_below)?.map(|batch| batch.head));
        self.blocking(move |store| asked.into_iter().map(|asked| head(store, asked)).collect()).await
    }

    async fn get(&self, keys: Vec<RowKey>) -> Result<Vec<Option<Bytes>>, EngineError> {
        self.blocking(move |store| reader::get(&store.db, &keys)).await
    }

    async fn scan(&self, prefix: RowKey, after: Option<Vec<u8>>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
        self.blocking(move |store| reader::scan(&store.db, &prefix, after, limit)).await
    }

    async fn follow(&self, _lane: Lane, _seen: Position) -> Result<Position, EngineError> {
        std::future::pending().await
    }

    async fn trim(&self, stream: StreamId, before: Option<u64>) -> Result<(), EngineError> {
        // The end of `delete_file_in_range` is inclusive, unlike that of a range delete: with the first kept key, a file that ends in that
        // very batch would go (storage.md section 6).
        let Some(last) = before.map_or(Some(u64::MAX), |before| before.checked_sub(1)) else { return Ok(()) };
        self.blocking(move |store| {
            let log = reader::family(&store.db, family::LOG)?;
            let refused = |error: String| EngineError::Refused(format!("no space was reclaimed: {error}"));
            faults::reach(faults::TRIM_DROP).map_err(refused)?;
            let done = store.db.delete_file_in_range_cf(log, log_key(stream, 0), log_key(stream, last));
            done.map_err(rocksdb::Error::into_string).and_then(|()| faults::reach(faults::TRIM_DROPPED)).map_err(refused)
        })
        .await
    }

    async fn checkpoint(&self, dest: &Path) -> Result<(), EngineError> {
        let dest = dest.to_owned();
        self.blocking(move |store| {
            let failed = |error: String| EngineError::Refused(format!("no checkpoint was made at {}: {error}", dest.display()));
            DirBuilder::new().mode(0o700).create(&dest).map_err(|e| failed(e.to_string()))?;
            let make = || Checkpoint::new(&store.db).and_then(|checkpoint| checkpoint.create_checkpoint(options::db_dir(&dest)));
            let made = faults::reach(faults::CHECKPOINT_MADE).and_then(|()| make().map_err(rocksdb::Error::into_string));
            made.and_then(|()| faults::reach(faults::CHECKPOINT_DONE)).map_err(|error| {
                // Only what this call made: the directory did not exist before.
                let _ = std::fs::remove_dir_all(&dest);
                failed(error)
            })
        })
        .await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { name: "rocks", durable: true, shared: false, cross_lane: false }
    }

    fn pressure(&self) -> Pressure {
        if let Some(reason) = self.finished.lock().clone() {
            return Pressure::Failed(reason);
        }
        self.space.pressure()
    }

    fn metrics(&self) -> Vec<(&'static str, f64)> {
        let Ok(store) = self.store() else { return Vec::new() };
        let db = &store.db;
        let ours = || [family::LOG, family::STATE, family::META].into_iter().filter_map(|name| db.cf_handle(name));
        let sum = |name| ours().filter_map(|cf| db.property_int_value_cf(cf, name).ok().flatten()).map(|n| n as f64).sum::<f64>();
        let most = |name| ours().filter_map(|cf| db.property_int_value_cf(cf, name).ok().flatten()).map(|n| n as f64).fold(0.0, f64::max);
        let level_0 = properties::num_files_at_level(0);
        let files: f64 = ours().filter_map(|cf| db.property_value_cf(cf, &level_0).ok().flatten()?.parse::<f64>().ok()).sum();
        vec![
            ("tidelog_rocksdb_write_stopped", most(properties::IS_WRITE_STOPPED)),
            ("tidelog_rocksdb_delayed_write_rate_bytes", most(properties::ACTUAL_DELAYED_WRITE_RATE)),
            ("tidelog_rocksdb_pending_compaction_bytes", sum(properties::ESTIMATE_PENDING_COMPACTION_BYTES)),
            ("tidelog_rocksdb_level0_files", files),
            ("tidelog_rocksdb_memtable_bytes", sum(properties::CUR_SIZE_ALL_MEM_TABLES)),
            ("tidelog_rocksdb_write_buffer_bytes", store.shared.write_buffers.get_usage() as f64),
            ("tidelog_rocksdb_block_cache_bytes", store.shared.cache.get_usage() as f64),
            ("tidelog_rocksdb_live_data_bytes", sum(properties::ESTIMATE_LIVE_DATA_SIZE)),
            ("tidelog_rocksdb_keys", sum(properties::ESTIMATE_NUM_KEYS)),
            ("tidelog_rocksdb_background_errors", most(properties::BACKGROUND_ERRORS)),
            ("tidelog_rocksdb_sequence", db.latest_sequence_number() as f64),
            ("tidelog_rocksdb_free_bytes", self.space.free() as f64),
        ]
    }

    async fn close(&self) -> Result<(), EngineError> {
        let store = {
            // A commit that is under way ends first.
            let _writer = self.writer.lock();
            let failed = self.finished.lock().get_or_insert_with(|| "the engine is closed".into()) != "the engine is closed";
            self.store.write().take().map(|store| (store, failed))
        };
        let Some((store, failed)) = store else { return Ok(()) };
        let flushed = tokio::task::spawn_blocking({
            let store = store.clone();
            move || if failed { Ok(()) } else { store.flush() }
        });
        let flushed = flushed.await.unwrap_or_else(|error| Err(error.to_string()));
        // The side file is written under the lock.
        self.keeper.stop();
        // Closing waits for background work.
        drop(tokio::task::spawn_blocking(move || drop(store)));
        let gone = self.gone.lock().take();
        if let Some(gone) = gone {
            // It only ever ends by being dropped.
            let _ = gone.await;
        }
        let _ = faults::reach(faults::CLOSED);
        // Everything committed is in the WAL: a flush that failed costs time at the next start, not data.
        flushed.map_err(|error| EngineError::Failed(format!("the last flush failed, the next start replays the log: {error}")))
    }
}
