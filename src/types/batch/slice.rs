//! Consecutive events of one batch on their way to a reader, cut at event boundaries.

use std::ops::Range;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::codec::EventIter;
use super::stored::{Batch, Stamp, write_prefix};
use super::{HEADER_BYTES, HEADROOM};
use crate::types::event::EventRef;

/// Consecutive events of one batch.
#[derive(Clone, Debug)]
pub struct Slice {
    batch: Arc<Batch>,
    from: u64,
    to: u64,
}

impl Slice {
    /// The part of `batch` within `range` (half-open, absolute offsets); `None` when they do not meet.
    pub fn of(batch: Arc<Batch>, range: Range<u64>) -> Option<Self> {
        let (from, to) = (range.start.max(batch.head.base_offset), range.end.min(batch.head.end()));
        (from < to).then_some(Self { batch, from, to })
    }

    /// First offset.
    pub fn from(&self) -> u64 {
        self.from
    }

    /// One past the last offset.
    pub fn to(&self) -> u64 {
        self.to
    }

    /// How many events.
    pub fn count(&self) -> u64 {
        self.to - self.from
    }

    /// The batch it is cut from.
    pub fn batch(&self) -> &Arc<Batch> {
        &self.batch
    }

    /// All of the batch?
    pub fn is_whole(&self) -> bool {
        self.from == self.batch.head.base_offset && self.to == self.batch.head.end()
    }

    /// The events with their offsets.
    pub fn events(&self) -> impl Iterator<Item = (u64, EventRef<'_>)> {
        let (from, to) = (self.from, self.to);
        self.batch.events().skip_while(move |(offset, _)| *offset < from).take_while(move |(offset, _)| *offset < to)
    }

    /// Sum of the data bytes of its events. Walks the batch unless it is whole.
    pub fn data_bytes(&self) -> u64 {
        if self.is_whole() {
            return u64::from(self.batch.head.data_bytes);
        }
        self.events().map(|(_, e)| e.data.len() as u64).sum()
    }

    /// Data bytes of the stream before its first event.
    pub fn bytes_before(&self) -> u64 {
        let head = &self.batch.head;
        if self.from == head.base_offset {
            return head.bytes_before;
        }
        head.bytes_before + self.batch.events().take_while(|(offset, _)| *offset < self.from).map(|(_, e)| e.data.len() as u64).sum::<u64>()
    }

    /// The longest front part with at most `events` events and `bytes` data bytes, but never less than one event.
    pub fn front(&self, events: u64, bytes: u64) -> Self {
        if self.count() <= events && self.batch.head.data_bytes as u64 <= bytes {
            return self.clone();
        }
        let mut sum = 0;
        let mut to = self.from;
        for (offset, event) in self.events() {
            sum += event.data.len() as u64;
            if offset > self.from && (offset - self.from >= events || sum > bytes) {
                break;
            }
            to = offset + 1;
        }
        Self { batch: self.batch.clone(), from: self.from, to }
    }

    /// What remains from `offset` on.
    pub fn after(&self, offset: u64) -> Option<Self> {
        Self::of(self.batch.clone(), offset.max(self.from)..self.to)
    }

    /// The `EventBatch` message: the stored bytes when whole, else a new prefix and a copy of the events that remain.
    pub fn encode(&self) -> Bytes {
        if self.is_whole() {
            return self.batch.body();
        }
        let head = &self.batch.head;
        let mut out = BytesMut::with_capacity(self.batch.value.len());
        let stamp = Stamp {
            base_offset: self.from,
            time: head.time,
            log_epoch: head.log_epoch,
            author_user: head.author_user,
            author_source: head.author_source,
            bytes_before: 0,
        };
        let mut prefix = [0u8; HEADROOM - HEADER_BYTES];
        let len = write_prefix(&mut prefix, &stamp, self.count() as u32);
        out.put_slice(&prefix[..len]);
        let mut events = EventIter { rest: &self.batch.value[HEADER_BYTES..] };
        let mut offset = head.base_offset;
        while let Some((raw, _)) = events.next_raw() {
            if offset >= self.to {
                break;
            }
            if offset >= self.from {
                out.put_slice(raw);
            }
            offset += 1;
        }
        out.freeze()
    }
}
