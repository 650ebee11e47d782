//! What happens to appends and commits before they enter the commit order, and to refused conditions after.

use super::Broker;
use super::intent::{AppendIntent, Author, Pipe};
use crate::log::ReadLimits;
use crate::types::batch;
use crate::types::request::{AppendRequest, CommitRequest};
use crate::types::{Code, Error, IdempotencyKey, Result, Slice, limits};
use std::collections::HashSet;
use std::sync::Arc;

/// Hashes what a producer's append will be recognised by.
pub(super) fn intent(request: AppendRequest, author: Author, pipe: Option<Arc<Pipe>>) -> AppendIntent {
    let AppendRequest { stream, stream_id, events, producer, expected_next_offset } = request;
    let producer = producer.map(|stamp| {
        let fingerprint = events.fingerprint();
        (stamp, fingerprint)
    });
    AppendIntent { stream, stream_id, events, producer, expected_next_offset, author, pipe }
}

/// T-6, and a commit must do something.
pub(super) fn check_commit(request: &CommitRequest) -> Result<()> {
    if request.acks.is_empty() && request.appends.is_empty() {
        return Err(Error::bad("acks", "A commit needs at least one ack or one append."));
    }
    let too_large = |what: &str, size: usize, limit: usize| {
        Err(Error::new(Code::TxnTooLarge, format!("The commit has {size} {what}; the limit is {limit}.")).rule("T-6").detail("limit", limit as u64))
    };
    if request.acks.len() > limits::COMMIT_ACKS {
        return too_large("acks", request.acks.len(), limits::COMMIT_ACKS);
    }
    if request.checks.len() > limits::COMMIT_CHECKS {
        return too_large("checks", request.checks.len(), limits::COMMIT_CHECKS);
    }
    let streams: HashSet<_> = request
        .acks
        .iter()
        .map(|a| a.stream.folded())
        .chain(request.appends.iter().map(|a| a.stream.folded()))
        .chain(request.checks.iter().map(|c| c.stream.folded()))
        .collect();
    if streams.len() > limits::COMMIT_STREAMS {
        return too_large("streams", streams.len(), limits::COMMIT_STREAMS);
    }
    let bytes = request.appends.iter().map(|a| a.events.encoded().len()).sum();
    if bytes > limits::BATCH_MAX_BYTES {
        return too_large("bytes of events", bytes, limits::BATCH_MAX_BYTES);
    }
    let events: u64 = request.appends.iter().map(|a| u64::from(a.events.count())).sum();
    if events > limits::BATCH_MAX_EVENTS as u64 {
        return too_large("events", events as usize, limits::BATCH_MAX_EVENTS);
    }
    Ok(())
}

/// Over names and ids as sent, epochs, offsets, conditions, and the fingerprints of its event lists (`formats.md`).
pub(super) fn commit_fingerprint(request: &CommitRequest) -> u128 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    let text = |hash: &mut xxhash_rust::xxh3::Xxh3, t: &str| {
        hash.update(&(t.len() as u32).to_le_bytes());
        hash.update(t.as_bytes());
    };
    let number = |hash: &mut xxhash_rust::xxh3::Xxh3, n: u64| hash.update(&n.to_le_bytes());
    let optional = |hash: &mut xxhash_rust::xxh3::Xxh3, n: Option<u64>| {
        hash.update(&[u8::from(n.is_some())]);
        hash.update(&n.unwrap_or(0).to_le_bytes());
    };
    number(&mut hash, request.acks.len() as u64);
    for ack in &request.acks {
        text(&mut hash, ack.stream.as_str());
        text(&mut hash, ack.subscription.as_str());
        number(&mut hash, ack.epoch);
        number(&mut hash, ack.offset);
    }
    number(&mut hash, request.appends.len() as u64);
    for append in &request.appends {
        text(&mut hash, append.stream.as_str());
        optional(&mut hash, append.stream_id.map(|id| id.0));
        optional(&mut hash, append.expected_next_offset);
        hash.update(&append.events.fingerprint().to_be_bytes());
    }
    number(&mut hash, request.checks.len() as u64);
    for check in &request.checks {
        text(&mut hash, check.stream.as_str());
        number(&mut hash, check.expected_next_offset);
    }
    hash.digest128()
}

/// Under which its row is kept (P-19).
pub(super) fn key_hash(key: &IdempotencyKey) -> u128 {
    xxhash_rust::xxh3::xxh3_128(key.as_str().as_bytes())
}

/// An append with a condition: what is needed to tell its own success from a stranger's when the condition fails (P-18).
pub(super) struct Conditional {
    stream: crate::types::StreamName,
    expected: u64,
    count: u32,
    fingerprint: u128,
    author: Author,
}

impl Conditional {
    pub(super) fn of(intent: &AppendIntent) -> Option<Self> {
        let expected = intent.expected_next_offset?;
        let fingerprint = intent.producer.as_ref().map_or_else(|| intent.events.fingerprint(), |(_, fingerprint)| *fingerprint);
        Some(Self { stream: intent.stream.clone(), expected, count: intent.events.count(), fingerprint, author: intent.author })
    }

    /// Adds `already_stored` to a failed condition: the same events by the same author lie at [N, N + n).
    pub(super) async fn explain<T>(self, broker: &Broker, result: Result<T>) -> Result<T> {
        match result {
            Err(error) if error.code == Code::ConditionFailed => match self.is_stored(broker).await {
                Ok(stored) => Err(error.rule("P-18").detail("already_stored", stored)),
                Err(gone) if gone.code == Code::NotFound => Err(error.rule("P-18").detail("already_stored", false)),
                // A guess would be taken for "they are not mine": rather the reason why nobody can say now.
                Err(why) => Err(why),
            },
            other => other,
        }
    }

    async fn is_stored(&self, broker: &Broker) -> Result<bool> {
        let Some(end) = self.expected.checked_add(u64::from(self.count)) else { return Ok(false) };
        let stream = broker.find_stream(&self.stream).await?;
        if self.expected < stream.bounds.first_offset || end > stream.bounds.next_offset {
            return Ok(false);
        }
        let wanted = ReadLimits { until: end, bytes: 2 * limits::BATCH_MAX_BYTES, batches: limits::BATCH_MAX_EVENTS, not_below: stream.bounds.first_base };
        let batches = broker.read_log(stream.id, self.expected, wanted).await?;
        let slices: Vec<_> = batches.into_iter().filter_map(|batch| Slice::of(batch, self.expected..end)).collect();
        let same_author = slices.iter().all(|s| (s.batch().head.author_user, s.batch().head.author_source) == (self.author.user, self.author.source));
        let found: u64 = slices.iter().map(Slice::count).sum();
        let events = slices.iter().flat_map(|slice| slice.events().map(|(_, event)| event));
        Ok(same_author && found == u64::from(self.count) && batch::fingerprint(self.count, events) == self.fingerprint)
    }
}
