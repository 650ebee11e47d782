//! What RocksDB alone does with the same bytes: the yardstick of `benches/commit.rs`.

use std::path::Path;
use std::time::{Duration, Instant};

use rocksdb::{DB, DBRecoveryMode, WriteBatch};

use super::keys::log_key;
use super::options::{self, RocksOptions, Shared, family};
use crate::types::StreamId;

/// Writes `values` to an empty directory, `batch` of them per synced write, under the keys and options of the engine, and returns the time
/// the writes took. The values are made outside of the measured time.
///
/// # Errors
/// What RocksDB says.
#[doc(hidden)]
pub fn raw_write(dir: &Path, values: impl Iterator<Item = Vec<u8>>, batch: usize) -> Result<Duration, String> {
    let settings = RocksOptions { dir: dir.to_owned(), ..RocksOptions::new(dir) };
    let shared = Shared::new(&settings);
    let text = |error: rocksdb::Error| error.to_string();
    let database = options::database(&settings, &shared, DBRecoveryMode::TolerateCorruptedTailRecords).map_err(text)?;
    let db = DB::open_cf_descriptors(&database, settings.db_dir(), options::families(&settings, &shared).map_err(text)?).map_err(text)?;
    let log = db.cf_handle(family::LOG).ok_or("no column family log")?;
    let how = options::commit();
    let mut values = values.enumerate().peekable();
    let mut spent = Duration::ZERO;
    while values.peek().is_some() {
        let group: Vec<_> = values.by_ref().take(batch.max(1)).collect();
        let began = Instant::now();
        let mut write = WriteBatch::default();
        for (index, value) in &group {
            write.put_cf(log, log_key(StreamId(1), *index as u64), value);
        }
        db.write_opt(write, &how).map_err(text)?;
        spent += began.elapsed();
    }
    Ok(spent)
}
