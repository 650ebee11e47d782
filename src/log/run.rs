//! What one read returns: a run of batches within limits, each beginning where the one before it ended (S-6).
//!
//! Shared by the engines so that limits and damage mean the same in each.

use std::sync::Arc;

use super::{EngineError, ReadLimits};
use crate::types::{Batch, StreamId};

/// Collects the batches of one read.
pub(super) struct Run {
    stream: StreamId,
    limits: ReadLimits,
    batches: Vec<Arc<Batch>>,
    bytes: usize,
    /// Where the next batch must begin, once that is known.
    next: Option<u64>,
}

impl Run {
    pub(super) fn new(stream: StreamId, limits: ReadLimits) -> Self {
        Self { stream, limits, batches: Vec::new(), bytes: 0, next: None }
    }

    /// Is there room for a batch at `base` with `len` stored bytes? The first one always fits, unless it begins at `until` or later.
    pub(super) fn wants(&self, base: u64, len: usize) -> bool {
        base < self.limits.until && (self.batches.is_empty() || (self.batches.len() < self.limits.batches && self.bytes + len <= self.limits.bytes))
    }

    /// A batch that ends before the run begins was seen: the run must begin at its end.
    pub(super) fn begins_after(&mut self, before: &Batch) {
        self.next = Some(before.head.end());
    }

    /// Does a batch at `base` follow without hole or overlap? Asked before its value is looked at.
    pub(super) fn follows(&mut self, base: u64) -> Result<(), EngineError> {
        match self.next {
            Some(next) if base > next => Err(self.corrupt(next, base - 1, format!("no batch holds them; the next one begins at {base}"))),
            Some(next) if base < next => {
                // The overlapped batch goes too: returning it now would hide the damage from a read that begins at its end.
                let from = self.batches.pop().map_or(base, |batch| batch.head.base_offset);
                Err(self.corrupt(from, next - 1, format!("two batches hold offset {base}")))
            }
            _ => Ok(()),
        }
    }

    /// Takes a batch that is wanted and follows.
    pub(super) fn add(&mut self, batch: Arc<Batch>) {
        self.next = Some(batch.head.end());
        self.bytes += batch.value().len();
        self.batches.push(batch);
    }

    /// The end: the batches, and if there is none the reason why.
    pub(super) fn end(self, outcome: Result<(), EngineError>) -> Result<Vec<Arc<Batch>>, EngineError> {
        match outcome {
            Err(error) if self.batches.is_empty() => Err(error),
            _ => Ok(self.batches),
        }
    }

    /// The error for a range of this stream, both ends inclusive.
    pub(super) fn corrupt(&self, from: u64, to: u64, what: String) -> EngineError {
        EngineError::Corrupt { stream: self.stream, from, to: to.max(from), what }
    }
}
