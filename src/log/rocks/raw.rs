//! What RocksDB alone does with the same bytes: the yardstick of `benches/commit.rs`.

use std::path::Path;
use std::time::{Duration, Instant};

use rocksdb::{DB, DBRecoveryMode, WriteBatch};

use super::keys::log_key;
use super::options::{self, RocksOptions, Shared, family};
use crate::log::rows::{self, value};
use crate::log::{Key, ProducerKey};
use crate::types::limits::RECEIPT_RING;
use crate::types::{ProducerId, StreamId};

/// Writes `values` to an empty directory, `batch` of them per synced write, under the keys and options of the engine, and returns the time
/// the writes took. The values are made outside of the measured time. With `receipts`, also the rows that a producer's batches bring: one
/// receipt each, and its own row once per write.
///
/// # Errors
/// What RocksDB says.
#[doc(hidden)]
pub fn raw_write(dir: &Path, values: impl Iterator<Item = Vec<u8>>, batch: usize, receipts: bool) -> Result<Duration, String> {
    let settings = RocksOptions { dir: dir.to_owned(), ..RocksOptions::new(dir) };
    let shared = Shared::new(&settings);
    let text = |error: rocksdb::Error| error.to_string();
    let database = options::database(&settings, &shared, DBRecoveryMode::TolerateCorruptedTailRecords).map_err(text)?;
    let db = DB::open_cf_descriptors(&database, settings.db_dir(), options::families(&settings, &shared).map_err(text)?).map_err(text)?;
    let log = db.cf_handle(family::LOG).ok_or("no column family log")?;
    let state = db.cf_handle(family::STATE).ok_or("no column family state")?;
    let how = options::commit();
    let producer = ProducerKey::of_stream(StreamId(1), ProducerId::parse("p").map_err(|e| e.to_string())?);
    let receipt = |index: u64| {
        let row = value::Receipt { first_seq: index, count: 1, base_offset: index, fingerprint: vec![0x55; 16], answer: None };
        (Key::Receipt(&producer, (index % RECEIPT_RING) as u8).encode().bytes, rows::encode(&row))
    };
    let mut values = values.enumerate().peekable();
    let mut spent = Duration::ZERO;
    while values.peek().is_some() {
        let group: Vec<_> = values.by_ref().take(batch.max(1)).collect();
        let last = group.last().map_or(0, |(index, _)| *index as u64);
        let mut rows: Vec<_> = if receipts { group.iter().map(|(index, _)| receipt(*index as u64)).collect() } else { Vec::new() };
        if receipts {
            let row = value::Producer { epoch: 1, last_seq: Some(last), batches: last + 1, last_use_us: 1 << 50, ..Default::default() };
            rows.push((Key::Producer(&producer).encode().bytes, rows::encode(&row)));
        }
        let began = Instant::now();
        let mut write = WriteBatch::default();
        for (index, value) in &group {
            write.put_cf(log, log_key(StreamId(1), *index as u64), value);
        }
        for (key, value) in &rows {
            write.put_cf(state, key, value);
        }
        db.write_opt(write, &how).map_err(text)?;
        spent += began.elapsed();
    }
    Ok(spent)
}
