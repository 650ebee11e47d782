//! The batches of one stream: each by its CRC, all of them as one chain of offsets, bytes and times, and the ends as the bounds say.

use std::sync::Arc;

use super::report::{Damage, RESTORE_OR_TRIM};
use super::streams::Subject;
use super::{Check, Limits};
use crate::log::rocks::Closed;
use crate::log::{EngineError, ReadLimits};
use crate::types::limits::INTEGER_MAX;
use crate::types::{Batch, Slice, StreamId};

/// How much is read at once.
const STEP_BYTES: usize = 4 << 20;
/// The same in batches.
const STEP_BATCHES: usize = 4096;

/// Where the chain stands.
struct Chain {
    next: u64,
    bytes: u64,
    log_epoch: u64,
    time: i64,
}

/// Where reading goes on behind damage at `from` that ends with `to`, as far as the reader could tell.
fn behind(store: &Closed, stream: StreamId, from: u64, to: u64) -> Option<u64> {
    let known = if to < INTEGER_MAX { to.max(from) } else { from };
    store.next_readable(stream, known + 1).filter(|next| *next > known)
}

impl Check<'_> {
    /// Reads all of them. The offset behind the last one, if it can be told.
    pub(super) fn batches(&mut self, store: &Closed, of: &Subject, limits: &Limits) -> Option<u64> {
        let bounds = &of.bounds;
        if bounds.first_base > 0 {
            match store.batches_below(of.id, Some(bounds.first_base)) {
                Ok(count) => self.report.counts.leftover_batches += count,
                Err(why) => self.unreadable(&why),
            }
        }
        let mut chain: Option<Chain> = None;
        let mut sound = true;
        let mut empty = true;
        let mut at = bounds.first_base;
        loop {
            let run = store.read(of.id, at, ReadLimits { until: u64::MAX, bytes: STEP_BYTES, batches: STEP_BATCHES, not_below: bounds.first_base });
            match run {
                Ok(run) if run.is_empty() => break,
                Ok(run) => {
                    for batch in run {
                        if empty {
                            sound &= self.first(of, &batch);
                        }
                        empty = false;
                        self.batch(of, &batch, chain.as_ref(), limits);
                        at = batch.head.end();
                        chain = Some(Chain { next: at, bytes: batch.head.bytes_end(), log_epoch: batch.head.log_epoch, time: batch.head.time.0 });
                    }
                }
                Err(EngineError::Corrupt { from, to, what, .. }) => {
                    let next = behind(store, of.id, from, to);
                    self.lost(of, from, next.map(|next| next - 1), what);
                    (empty, chain) = (false, None);
                    // Behind it everything can be read again. When nothing is behind it, nobody knows where the stream ended.
                    at = next?;
                }
                Err(other) => {
                    self.unreadable(&other.to_string());
                    return None;
                }
            }
        }
        let end = if empty { bounds.next_offset } else { at };
        if end < bounds.next_offset {
            self.lost(
                of,
                end,
                Some(bounds.next_offset - 1),
                format!("the last batch ends at {end}, but offsets up to {} had been assigned", bounds.next_offset - 1),
            );
            sound = false;
        }
        if bounds.first_offset > end {
            self.report.of_stream(of.id, of.name.as_deref(), format!("it begins at {} and ends at {end}", bounds.first_offset));
        }
        let ends = chain.as_ref().map_or((bounds.bytes_end, bounds.last_time_us), |chain| (chain.bytes, chain.time));
        if empty && bounds.bytes_before_first > ends.0 {
            let what = format!("it counts {} bytes before its first event, and {} in all", bounds.bytes_before_first, ends.0);
            self.report.of_stream(of.id, of.name.as_deref(), what);
        }
        sound.then_some(end)
    }

    /// The first batch is where the bounds say, and counts the bytes that they say.
    fn first(&mut self, of: &Subject, batch: &Arc<Batch>) -> bool {
        let (bounds, head) = (&of.bounds, &batch.head);
        if head.base_offset != bounds.first_base {
            let what = format!("the first batch begins at {}, the bounds say {}", head.base_offset, bounds.first_base);
            if head.base_offset > bounds.first_base {
                self.lost(of, bounds.first_base, Some(head.base_offset - 1), what);
            } else {
                self.report.of_stream(of.id, of.name.as_deref(), what);
            }
            return false;
        }
        let first = bounds.first_offset;
        let before = match Slice::of(batch.clone(), first..first.saturating_add(1)) {
            Some(slice) => slice.bytes_before(),
            None if first == head.base_offset => head.bytes_before,
            None => {
                let what = format!("the first offset is {first}, which is not in the first batch ({} to {})", head.base_offset, head.end() - 1);
                self.report.of_stream(of.id, of.name.as_deref(), what);
                return true;
            }
        };
        if before != bounds.bytes_before_first {
            let what = format!("there are {before} bytes before the first event by its batch, and {} by the bounds", bounds.bytes_before_first);
            self.report.of_stream(of.id, of.name.as_deref(), what);
        }
        true
    }

    fn batch(&mut self, of: &Subject, batch: &Arc<Batch>, chain: Option<&Chain>, limits: &Limits) {
        let head = &batch.head;
        self.counted(batch);
        let (from, to) = (head.base_offset, head.end() - 1);
        let (mut count, mut bytes) = (0u64, 0u64);
        for (_, event) in batch.events() {
            count += 1;
            bytes += event.data.len() as u64;
        }
        if count != u64::from(head.count) {
            self.lost(of, from, Some(to), format!("the batch says {} events and holds {count}", head.count));
        } else if bytes != u64::from(head.data_bytes) && !head.has_removed {
            self.lost(of, from, Some(to), format!("the batch says {} data bytes and holds {bytes}", head.data_bytes));
        }
        if head.log_epoch > limits.counters.log_epoch {
            self.lost(of, from, Some(to), format!("the batch is of log epoch {}, but the broker is at {}", head.log_epoch, limits.counters.log_epoch));
        }
        let Some(before) = chain else { return };
        if head.base_offset != before.next {
            self.lost(of, before.next, Some(from.saturating_sub(1).max(before.next)), format!("a batch begins at {from} where {} was due", before.next));
        }
        if head.bytes_before != before.bytes {
            self.lost(of, from, Some(to), format!("the batch counts {} bytes before it, the one before ends at {}", head.bytes_before, before.bytes));
        }
        if head.log_epoch < before.log_epoch || head.time.0 < before.time {
            self.lost(of, from, Some(to), "its log epoch or time is before that of the batch before it".into());
        }
    }

    /// Batches of a stream whose rows are missing or unreadable: CRC and chain only.
    pub(super) fn bare(&mut self, store: &Closed, id: StreamId) {
        let of = Subject { id, name: None, bounds: Default::default(), next_offset: None };
        let mut at = 0;
        loop {
            match store.read(id, at, ReadLimits { until: u64::MAX, bytes: STEP_BYTES, batches: STEP_BATCHES, not_below: 0 }) {
                Ok(run) if run.is_empty() => return,
                Ok(run) => run.iter().for_each(|batch| {
                    self.counted(batch);
                    at = batch.head.end();
                }),
                Err(EngineError::Corrupt { from, to, what, .. }) => {
                    let next = behind(store, id, from, to);
                    self.lost(&of, from, next.map(|next| next - 1), what);
                    let Some(next) = next else { return };
                    at = next;
                }
                Err(other) => return self.unreadable(&other.to_string()),
            }
        }
    }

    fn counted(&mut self, batch: &Batch) {
        let counts = &mut self.report.counts;
        counts.batches += 1;
        counts.events += u64::from(batch.head.count);
        counts.batch_bytes += batch.value().len() as u64;
        (self.progress)("batches", 1);
    }

    fn lost(&mut self, of: &Subject, from: u64, to: Option<u64>, what: String) {
        self.report.add(Damage { stream: of.name.clone(), stream_id: Some(of.id.0), from: Some(from), to, what, advice: RESTORE_OR_TRIM });
    }

    /// Are these still the events that were acknowledged under this fingerprint? `None`: they cannot be read, which was told already.
    pub(super) fn fingerprint(&mut self, store: &Closed, of: &Subject, base: u64, count: u32) -> Option<Result<u128, String>> {
        let read = store.read(of.id, base, ReadLimits { until: u64::MAX, bytes: 1, batches: 1, not_below: of.bounds.first_base }).ok()?;
        let Some(batch) = read.into_iter().next() else { return Some(Err(format!("no batch holds {base}"))) };
        let head = batch.head;
        if (head.base_offset, head.count) != (base, count) {
            return Some(Err(format!("the batch there is {} with {} events", head.base_offset, head.count)));
        }
        if head.has_removed {
            return None;
        }
        self.report.counts.fingerprints += 1;
        Some(Ok(crate::types::batch::fingerprint(count, batch.events().map(|(_, event)| event))))
    }
}
