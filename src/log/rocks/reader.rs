//! Reads, on a blocking thread. Every batch is verified, and what cannot be read is named, never skipped (S-6).

use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{ColumnFamily, DB, DBRawIteratorWithThreadMode, ReadOptions};

use super::keys::{self, log_key};
use super::options::family;
use crate::log::run::Run;
use crate::log::{EngineError, ReadLimits, RowKey, Space, rows};
use crate::types::{Batch, StreamId, limits};

/// Reads of this many bytes and more are catch-up: read ahead, and leave the cache to others.
const CATCH_UP_BYTES: usize = 256 * 1024;
/// How far to read ahead then.
const READAHEAD_BYTES: usize = 512 * 1024;

type Iter<'a> = DBRawIteratorWithThreadMode<'a, DB>;

/// The column family `name`; all are opened with the database.
pub(super) fn family<'a>(db: &'a DB, name: &str) -> Result<&'a ColumnFamily, EngineError> {
    db.cf_handle(name).ok_or_else(|| EngineError::Failed(format!("the column family {name} is not open")))
}

/// The column family of a space.
pub(super) fn space_name(space: Space) -> &'static str {
    match space {
        Space::State => family::STATE,
        Space::Meta => family::META,
    }
}

/// See [`crate::log::Engine::read`].
pub(super) fn read(db: &DB, stream: StreamId, from: u64, limits: ReadLimits) -> Result<Vec<Arc<Batch>>, EngineError> {
    let mut options = bounds(stream, limits.not_below);
    if limits.bytes >= CATCH_UP_BYTES {
        options.set_readahead_size(READAHEAD_BYTES);
        options.fill_cache(false);
    }
    let mut walk = Walk { iter: db.raw_iterator_cf_opt(family(db, family::LOG)?, options), stream, until: limits.until, not_below: limits.not_below };
    let mut run = Run::new(stream, limits);
    let outcome = walk.fill(&mut run, from.max(limits.not_below));
    run.end(outcome)
}

/// See [`crate::log::Engine::last`].
pub(super) fn last(db: &DB, stream: StreamId, not_below: u64) -> Result<Option<Arc<Batch>>, EngineError> {
    let mut walk = Walk { iter: db.raw_iterator_cf_opt(family(db, family::LOG)?, bounds(stream, not_below)), stream, until: u64::MAX, not_below };
    walk.iter.seek_to_last();
    let mut last = walk.base()?;
    if last.is_none() && walk.iter.status().is_err() {
        last = match walk.last_up_to(u64::MAX) {
            Ok(last) => last,
            Err(error) => return Err(walk.damaged_end(not_below, &error)),
        };
        if let Some(base) = last {
            walk.iter.seek(log_key(stream, base));
        }
    }
    last.map(|base| walk.batch(base)).transpose()
}

fn bounds(stream: StreamId, not_below: u64) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_verify_checksums(true);
    options.set_iterate_lower_bound(log_key(stream, not_below));
    options.set_iterate_upper_bound(keys::end_of_stream(stream));
    options
}

/// One walk over the batches of a stream.
struct Walk<'a> {
    iter: Iter<'a>,
    stream: StreamId,
    until: u64,
    not_below: u64,
}

impl Walk<'_> {
    fn fill(&mut self, run: &mut Run, start: u64) -> Result<(), EngineError> {
        self.iter.seek(log_key(self.stream, start));
        if self.base()? != Some(start) {
            self.enter(run, start)?;
        }
        let mut at = start;
        while let Some(base) = self.base()? {
            let len = self.iter.value().map_or(0, <[u8]>::len);
            if !run.wants(base, len) {
                return Ok(());
            }
            run.follows(base)?;
            let batch = self.batch(base)?;
            at = batch.head.end();
            run.add(batch);
            self.iter.next();
        }
        match self.iter.status() {
            Ok(()) => Ok(()),
            Err(error) => Err(self.damaged(at, &error)),
        }
    }

    /// No batch begins at `start`: places the iterator on the one that contains it, or else on the first after it.
    fn enter(&mut self, run: &mut Run, start: u64) -> Result<(), EngineError> {
        if let Err(error) = self.iter.status() {
            return Err(self.damaged(start, &error));
        }
        self.iter.seek_for_prev(log_key(self.stream, start));
        let mut found = self.base()?;
        if found.is_none() && self.iter.status().is_err() {
            found = self.last_up_to(start).map_err(|error| self.damaged(start, &error))?;
            if let Some(base) = found {
                self.iter.seek(log_key(self.stream, base));
            }
        }
        if let Some(base) = found {
            let before = self.batch(base)?;
            if before.head.end() > start {
                // The walk reads it again: it is in the cache.
                self.iter.seek(log_key(self.stream, base));
                return Ok(());
            }
            run.begins_after(&before);
        }
        self.iter.seek(log_key(self.stream, start));
        Ok(())
    }

    /// The last base up to `limit`, looking forward only. Backward, the engine looks at the keys before this stream's too, and damage of
    /// another stream would be in the way.
    fn last_up_to(&mut self, limit: u64) -> Result<Option<u64>, rocksdb::Error> {
        let (mut low, mut high, mut found) = (self.not_below, limit, None);
        while low <= high {
            let middle = if found.is_none() { low } else { low + (high - low) / 2 };
            self.iter.seek(log_key(self.stream, middle));
            self.iter.status()?;
            match self.base().ok().flatten().filter(|base| *base <= high) {
                Some(base) => {
                    found = Some(base);
                    let Some(next) = base.checked_add(1) else { break };
                    low = next;
                }
                None => {
                    let Some(below) = middle.checked_sub(1) else { break };
                    high = below;
                }
            }
        }
        Ok(found)
    }

    /// Base of the batch the iterator is on.
    fn base(&self) -> Result<Option<u64>, EngineError> {
        let Some(key) = self.iter.key() else { return Ok(None) };
        match keys::parse(key) {
            Some((stream, base)) if stream == self.stream => Ok(Some(base)),
            _ => Err(self.corrupt(0, u64::MAX, format!("the key {key:02x?} does not belong here"))),
        }
    }

    /// The batch the iterator is on, verified.
    fn batch(&mut self, base: u64) -> Result<Arc<Batch>, EngineError> {
        let value = Bytes::copy_from_slice(self.iter.value().unwrap_or_default());
        // The count in an untrusted header is still the best guess when nothing follows.
        let guess = value.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
        match Batch::from_stored(self.stream, base, value) {
            Ok(batch) => Ok(Arc::new(batch)),
            Err(what) => {
                self.iter.next();
                let next = self.base().ok().flatten();
                let to = next.map(|next| next - 1).or_else(|| self.end_of_all(base)).unwrap_or_else(|| {
                    let count = guess.filter(|count| (1..=limits::BATCH_MAX_EVENTS as u32).contains(count)).unwrap_or(1);
                    base.saturating_add(u64::from(count) - 1)
                });
                Err(self.corrupt(base, to, what))
            }
        }
    }

    /// The last offset that was asked for, if the caller said where the stream ends.
    fn end_of_all(&self, from: u64) -> Option<u64> {
        (self.until != u64::MAX && self.until > from).then(|| self.until - 1)
    }

    /// The engine itself stopped with an error at `from`: finds the first batch after it that can be read again.
    fn damaged(&mut self, from: u64, error: &rocksdb::Error) -> EngineError {
        let (mut bad, mut step) = (from, 1u64);
        let mut good = loop {
            let probe = from.saturating_add(step);
            // Nothing behind it can be read: the last probe is as far as there are offsets, whatever it says.
            if probe == u64::MAX || self.readable(probe) {
                break probe;
            }
            bad = probe;
            step = step.saturating_mul(2);
        };
        while good - bad > 1 {
            let middle = bad + (good - bad) / 2;
            if self.readable(middle) { good = middle } else { bad = middle }
        }
        self.iter.seek(log_key(self.stream, good));
        let to = match self.base().ok().flatten() {
            Some(next) => next - 1,
            None => self.end_of_all(from).unwrap_or(good - 1),
        };
        self.corrupt(from, to, error.to_string())
    }

    /// Can the engine go to `offset`? Also when nothing is there.
    fn readable(&mut self, offset: u64) -> bool {
        self.iter.seek(log_key(self.stream, offset));
        self.iter.valid() || self.iter.status().is_ok()
    }

    /// The engine could not read the end of the stream: finds the last batch before it that can be read. Where the stream ended is unknown.
    fn damaged_end(&mut self, not_below: u64, error: &rocksdb::Error) -> EngineError {
        let (mut good, mut bad) = (not_below, u64::MAX);
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            self.iter.seek_for_prev(log_key(self.stream, middle));
            if self.iter.valid() || self.iter.status().is_ok() { good = middle } else { bad = middle }
        }
        self.iter.seek_for_prev(log_key(self.stream, good));
        let before = self.base().ok().flatten().and_then(|base| self.batch(base).ok());
        self.corrupt(before.map_or(not_below, |batch| batch.head.end()), u64::MAX, error.to_string())
    }

    fn corrupt(&self, from: u64, to: u64, what: String) -> EngineError {
        EngineError::Corrupt { stream: self.stream, from, to: to.max(from), what }
    }
}

/// See [`crate::log::Engine::get`].
pub(super) fn get(db: &DB, asked: &[RowKey]) -> Result<Vec<Option<Bytes>>, EngineError> {
    let mut found = vec![None; asked.len()];
    for space in [Space::State, Space::Meta] {
        let places: Vec<usize> = (0..asked.len()).filter(|i| asked[*i].space == space).collect();
        if places.is_empty() {
            continue;
        }
        let cf = family(db, space_name(space))?;
        let values = db.batched_multi_get_cf(cf, places.iter().map(|i| &asked[*i].bytes[..]).collect::<Vec<_>>(), false);
        for (place, value) in places.into_iter().zip(values) {
            found[place] = value.map_err(|error| unreadable(&error))?.map(|value| Bytes::copy_from_slice(&value));
        }
    }
    Ok(found)
}

/// See [`crate::log::Engine::scan`].
pub(super) fn scan(db: &DB, prefix: &RowKey, after: Option<Vec<u8>>, limit: usize) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
    let mut options = ReadOptions::default();
    options.set_verify_checksums(true);
    // The first key that is greater than `after` has one more zero byte.
    let start = after.map(|mut after| {
        after.push(0);
        after
    });
    options.set_iterate_lower_bound(start.unwrap_or_default().max(prefix.bytes.clone()));
    if let Some(end) = rows::end_of(&prefix.bytes) {
        options.set_iterate_upper_bound(end);
    }
    let mut iter = db.raw_iterator_cf_opt(family(db, space_name(prefix.space))?, options);
    iter.seek_to_first();
    let mut found = Vec::new();
    while found.len() < limit
        && let Some((key, value)) = iter.item()
    {
        found.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        iter.next();
    }
    if found.len() < limit {
        iter.status().map_err(|error| unreadable(&error))?;
    }
    Ok(found)
}

/// A row that cannot be read: nothing is known of its owner here, so the caller decides whether to go on without.
fn unreadable(error: &rocksdb::Error) -> EngineError {
    EngineError::Failed(format!("a row cannot be read: {error}"))
}
