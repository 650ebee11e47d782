//! What a check found: counts, notes, and damages with where and what to do.

use std::time::Duration;

use serde::Serialize;

use crate::types::StreamId;

/// Damages that are kept; more are counted only. A list of a thousand says enough, and memory stays bounded.
pub const DAMAGES_KEPT: usize = 1000;

/// What to do about damaged rows.
pub const RESTORE: &str = "keep a copy of this directory, then put the right one back from a copy or checkpoint";
/// What to do about damaged batches.
pub const RESTORE_OR_TRIM: &str =
    "readers of these offsets get data_corrupt, all others work; put the directory back from a copy or checkpoint, or trim the stream behind them";

/// One damage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// Name of the stream, where it is about one that has a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<u64>,
    /// First offset concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Last offset concerned; absent with `from` when nobody knows where it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// How it shows.
    pub what: String,
    /// What to do.
    pub advice: &'static str,
}

/// How many of everything were looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each is the number of what it is called")]
pub struct Counts {
    pub streams: u64,
    pub batches: u64,
    pub events: u64,
    pub batch_bytes: u64,
    pub subscriptions: u64,
    pub producers: u64,
    pub receipts: u64,
    /// Receipts and idempotency keys whose events are still there: their fingerprints were computed again.
    pub fingerprints: u64,
    pub idempotency_keys: u64,
    pub operations: u64,
    pub index_rows: u64,
    pub users: u64,
    pub sources: u64,
    /// Of users and sources; sessions and tickets too.
    pub keys: u64,
    pub rights: u64,
    /// Every row of every table.
    pub rows: u64,
    /// Batches below the first kept one, or of deleted streams: remains that the broker never reads.
    pub leftover_batches: u64,
}

/// One part of the check and how long it took.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// What.
    pub name: &'static str,
    /// How long.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub time: Duration,
}

fn seconds<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64((time.as_secs_f64() * 1000.0).round() / 1000.0)
}

/// All of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Nothing is wrong.
    pub ok: bool,
    /// Every part could be looked at.
    pub complete: bool,
    /// What was counted.
    pub counts: Counts,
    /// In their order.
    pub parts: Vec<Part>,
    /// Worth knowing, not wrong.
    pub notes: Vec<String>,
    /// How many damages; the first [`DAMAGES_KEPT`] of them are listed.
    pub damaged: u64,
    /// The first of them.
    pub damages: Vec<Damage>,
}

impl Report {
    /// A damage that belongs to no stream.
    pub(super) fn damage(&mut self, what: impl Into<String>) {
        self.add(Damage { stream: None, stream_id: None, from: None, to: None, what: what.into(), advice: RESTORE });
    }

    /// A damaged row of a stream.
    pub(super) fn of_stream(&mut self, id: StreamId, name: Option<&str>, what: impl Into<String>) {
        self.add(Damage { stream: name.map(str::to_owned), stream_id: Some(id.0), from: None, to: None, what: what.into(), advice: RESTORE });
    }

    pub(super) fn add(&mut self, damage: Damage) {
        self.damaged += 1;
        if self.damages.len() < DAMAGES_KEPT {
            self.damages.push(damage);
        }
    }
}
