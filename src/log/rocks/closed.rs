//! A closed data directory, looked at without changing a byte of it: what `log::check` reads.
//!
//! The lock is taken on the file as it is, the logs are judged by our own reader first, and the database is opened read-only: what the logs
//! hold is replayed into memory (256 MiB at most) and nothing is flushed, made or removed.

use std::ffi::{CStr, c_char, c_void};
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{AsRawPtr as _, DB, DBRawIteratorWithThreadMode, DBRecoveryMode, ErrorKind, ReadOptions};

use super::open::{LOCK, know_all_families, locked};
use super::options::{self, RocksOptions, Shared, family};
use super::recovery::{self, Verdict};
use super::{durable, keys, manifest, reader};
use crate::log::{EngineError, OpenError, ReadLimits, RowKey, Space};
use crate::types::limits::INTEGER_MAX;
use crate::types::{Batch, StreamId};

/// How far the rows are read ahead.
const READAHEAD_BYTES: usize = 512 * 1024;

/// What the logs and files say before anything in them is looked at.
#[derive(Debug, Default)]
pub(in crate::log) struct Outside {
    /// Nothing is lost, and worth a sentence.
    pub notes: Vec<String>,
    /// Acknowledged data is damaged.
    pub damage: Vec<String>,
}

/// An open directory that nobody else has.
pub(in crate::log) struct Closed {
    db: DB,
    _shared: Shared,
    _lock: Option<File>,
}

impl Closed {
    /// Opens it, if there is a way to. `None` for the directory: it cannot be opened, and `Outside` says why.
    pub(in crate::log) fn open(dir: &Path) -> Result<(Option<Self>, Outside), OpenError> {
        let lock = lock(dir)?;
        let options = RocksOptions { cache_bytes: 64 << 20, ..RocksOptions::new(dir) };
        let mut outside = Outside::default();
        let db_dir = options.db_dir();
        let failed = |e: std::io::Error| OpenError::Failed(format!("The files in {} cannot be read: {e}.", db_dir.display()));
        // Neither a damaged list of files nor a damaged type in a log may come before RocksDB: it would never come back.
        if let Some(what) = manifest::judge(&db_dir).map_err(failed)? {
            outside.damage.push(what);
            return Ok((None, outside));
        }
        if let Some((file, at)) = recovery::traps(&db_dir).map_err(failed)?.first() {
            outside.damage.push(format!("the write-ahead log {} is damaged at byte {at}", file.display()));
            return Ok((None, outside));
        }
        know_all_families(&options)?;
        let verdict = recovery::examine(&db_dir).map_err(|e| OpenError::Failed(format!("The logs in {} cannot be read: {e}.", db_dir.display())))?;
        if let Verdict::Damaged { file, offset } = &verdict {
            outside.damage.push(format!("the write-ahead log {} is damaged at byte {offset}, and acknowledged data follows", file.display()));
            outside.notes.push("a broker would refuse this directory as it is, so it was not opened here either: nothing behind the log was checked".into());
            // RocksDB's read-only recovery never ends on such a log (seen with 11.8).
            return Ok((None, outside));
        }
        let shared = Shared::new(&options);
        let open = |recovery| {
            let families = options::families(&options, &shared)?;
            DB::open_cf_descriptors_read_only(&options::database(&options, &shared, recovery)?, &db_dir, families, false)
        };
        // See `open`: the end of a log before the last is no torn write.
        let mut opened = open(match verdict {
            Verdict::TornEarlier { .. } => DBRecoveryMode::AbsoluteConsistency,
            _ => DBRecoveryMode::TolerateCorruptedTailRecords,
        });
        if let Verdict::TornTail { file, offset } = &verdict {
            outside.notes.push(format!(
                "the write-ahead log {} ends in the middle of a record (byte {offset}): that group was never acknowledged, and the next start drops it",
                file.display()
            ));
            if opened.as_ref().is_err_and(|error| error.kind() == ErrorKind::Corruption) {
                opened = open(DBRecoveryMode::PointInTime);
            }
        }
        let db = match opened {
            Ok(db) => db,
            Err(error) if error.kind() == ErrorKind::Corruption => {
                if outside.damage.is_empty() {
                    outside.damage.push(format!("the database cannot be opened: {error}"));
                }
                // What can still be read is worth knowing; the logs' loss is told.
                match open(DBRecoveryMode::PointInTime) {
                    Ok(db) => db,
                    Err(error) => {
                        outside.damage.push(format!("the database cannot be opened at all: {error}"));
                        return Ok((None, outside));
                    }
                }
            }
            Err(error) => return Err(OpenError::Failed(format!("{} cannot be opened: {error}.", db_dir.display()))),
        };
        let found = db.latest_sequence_number();
        match durable::examine(dir) {
            Ok(Some(recorded)) if recorded > found => outside.damage.push(format!(
                "commits up to {recorded} were acknowledged, but only those up to {found} are there (S-7): the end of the log is lost, or this is an old copy"
            )),
            Ok(Some(_)) => {}
            Ok(None) => outside.notes.push("there is no file `durable`: a lost end of the log would not be noticed (S-7)".into()),
            Err(why) => outside.notes.push(format!("the file `durable` {why}: a lost end of the log would not be noticed (S-7)")),
        }
        Ok((Some(Self { db, _shared: shared, _lock: lock }), outside))
    }

    /// The engine's own checksums of every block of every table file.
    pub(in crate::log) fn blocks(&self) -> Result<(), String> {
        verify_checksum(&self.db)
    }

    /// Rows of one kind in key order, beginning at `from` (a key; only its kind is needed), ending before `to`.
    pub(in crate::log) fn rows(&self, space: Space, from: Vec<u8>, to: Option<Vec<u8>>) -> Result<Rows<'_>, String> {
        self.iterate(reader::space_name(space), from, to)
    }

    /// The keys in the family that nobody uses.
    pub(in crate::log) fn strangers(&self) -> Result<Rows<'_>, String> {
        self.iterate(family::DEFAULT, Vec::new(), None)
    }

    fn iterate(&self, name: &str, from: Vec<u8>, to: Option<Vec<u8>>) -> Result<Rows<'_>, String> {
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        options.fill_cache(false);
        options.set_readahead_size(READAHEAD_BYTES);
        options.set_iterate_lower_bound(from);
        if let Some(to) = to {
            options.set_iterate_upper_bound(to);
        }
        let cf = reader::family(&self.db, name).map_err(|e| e.to_string())?;
        let mut iter = self.db.raw_iterator_cf_opt(cf, options);
        iter.seek_to_first();
        Ok(Rows { iter, ended: false })
    }

    /// Values of rows, in the order asked.
    pub(in crate::log) fn get(&self, keys: &[RowKey]) -> Result<Vec<Option<Bytes>>, String> {
        reader::get(&self.db, keys).map_err(|e| e.to_string())
    }

    /// Batches, as the broker reads them.
    pub(in crate::log) fn read(&self, stream: StreamId, from: u64, limits: ReadLimits) -> Result<Vec<Arc<Batch>>, EngineError> {
        reader::read(&self.db, stream, from, limits)
    }

    /// The first stream at or after `from` that has a batch, and whether the batch's key is one.
    pub(in crate::log) fn next_stream(&self, from: StreamId) -> Result<Option<StreamId>, String> {
        let cf = reader::family(&self.db, family::LOG).map_err(|e| e.to_string())?;
        let mut iter = self.db.raw_iterator_cf_opt(cf, ReadOptions::default());
        iter.seek(keys::log_key(from, 0));
        match iter.key() {
            Some(key) => match keys::parse(key) {
                Some((stream, _)) => Ok(Some(stream)),
                None => Err(format!("the key {key:02x?} of the log is not one of a batch")),
            },
            None => iter.status().map(|()| None).map_err(|e| e.to_string()),
        }
    }

    /// Where the next batch of `stream` begins that lies at or behind `at` and can be read. Damage hides all keys of its block: how far it goes is found
    /// by doubling the step, and then by halving. `None`: nothing is behind.
    pub(in crate::log) fn next_readable(&self, stream: StreamId, at: u64) -> Option<u64> {
        let look = |at: u64| -> Result<Option<u64>, ()> {
            let mut options = ReadOptions::default();
            options.set_iterate_upper_bound(keys::end_of_stream(stream));
            let cf = reader::family(&self.db, family::LOG).map_err(drop)?;
            let mut iter = self.db.raw_iterator_cf_opt(cf, options);
            iter.seek(keys::log_key(stream, at));
            iter.status().map_err(drop)?;
            Ok(iter.key().and_then(keys::parse).map(|(_, base)| base))
        };
        let (mut damaged, mut step) = (at, 1u64);
        let (mut sound, mut found) = match look(at) {
            Ok(found) => return found,
            Err(()) => loop {
                let probe = damaged.saturating_add(step).min(INTEGER_MAX);
                match look(probe) {
                    Ok(found) => break (probe, found),
                    Err(()) if probe == INTEGER_MAX => return None,
                    Err(()) => (damaged, step) = (probe, step.saturating_mul(2)),
                }
            },
        };
        while sound - damaged > 1 {
            let probe = damaged + (sound - damaged) / 2;
            match look(probe) {
                Ok(nearer) => (sound, found) = (probe, nearer),
                Err(()) => damaged = probe,
            }
        }
        found
    }

    /// How many batches of `stream` lie below `base`.
    pub(in crate::log) fn batches_below(&self, stream: StreamId, base: Option<u64>) -> Result<u64, String> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(keys::log_key(stream, 0));
        options.set_iterate_upper_bound(base.map_or_else(|| keys::end_of_stream(stream), |base| keys::log_key(stream, base).to_vec()));
        let cf = reader::family(&self.db, family::LOG).map_err(|e| e.to_string())?;
        let mut iter = self.db.raw_iterator_cf_opt(cf, options);
        iter.seek_to_first();
        let mut count = 0;
        while iter.valid() {
            count += 1;
            iter.next();
        }
        iter.status().map(|()| count).map_err(|e| e.to_string())
    }
}

/// Rows in order; ends after the first that cannot be read.
pub(in crate::log) struct Rows<'a> {
    iter: DBRawIteratorWithThreadMode<'a, DB>,
    ended: bool,
}

impl Iterator for Rows<'_> {
    type Item = Result<(Vec<u8>, Bytes), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        if let Some((key, value)) = self.iter.item() {
            let item = (key.to_vec(), Bytes::copy_from_slice(value));
            self.iter.next();
            return Some(Ok(item));
        }
        self.ended = true;
        self.iter.status().err().map(|error| Err(error.to_string()))
    }
}

/// The lock of a broker, taken without writing into it. A copy or checkpoint has none.
fn lock(dir: &Path) -> Result<Option<File>, OpenError> {
    let path = dir.join(LOCK);
    let failed = |error| OpenError::Failed(format!("The lock file {} cannot be used: {error}.", path.display()));
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(locked(dir, std::fs::read_to_string(&path).unwrap_or_default().trim())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Reads every block of every table file and compares its checksum.
#[expect(unsafe_code, reason = "the crate has no safe name for rocksdb_verify_checksum")]
fn verify_checksum(db: &DB) -> Result<(), String> {
    unsafe extern "C" {
        fn rocksdb_verify_checksum(db: *mut c_void, error: *mut *mut c_char);
        fn rocksdb_free(pointer: *mut c_void);
    }
    let mut error: *mut c_char = std::ptr::null_mut();
    // SAFETY: the handle is open for as long as `db` is borrowed, and the call only reads. What it leaves in `error` is a text that ends in a
    // zero byte and belongs to us; it is freed once, by the function made for it.
    unsafe {
        rocksdb_verify_checksum(db.as_raw_ptr().cast(), &raw mut error);
        if error.is_null() {
            return Ok(());
        }
        let text = CStr::from_ptr(error).to_string_lossy().into_owned();
        rocksdb_free(error.cast());
        Err(text)
    }
}
