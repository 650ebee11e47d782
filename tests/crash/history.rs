//! What everybody saw, as plain values. `check` judges it; nothing here does.

use serde::{Deserialize, Serialize};

/// A stored event, read back at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub offset: u64,
    pub data: String,
    /// Header `source-offset`: which event of the input this is the image of (K-3).
    pub source: Option<u64>,
}

/// A stream at the end.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub id: u64,
    pub log_epoch: u64,
    pub first: u64,
    pub next: u64,
    pub events: Vec<Stored>,
}

/// How an attempt ended, as the caller was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Durable. `None`: stored long ago, its offset is not remembered (P-6).
    Acked { first: Option<u64> },
    /// It had no effect and never will. `next`: what a failed condition told about the end.
    Refused { code: String, next: Option<u64> },
    /// Anything may have happened.
    Unknown,
}

/// One append without a producer: sent once, never again.
#[derive(Clone, Debug)]
pub struct Append {
    pub value: String,
    /// Microseconds since the start of the run; the call lay between them.
    pub began: u64,
    pub ended: u64,
    /// `expected_next_offset`
    pub expected: Option<u64>,
    pub outcome: Outcome,
}

/// What a process of producers notes in its file, line by line, so that a SIGKILL loses none of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Note {
    /// The producer was opened: what the broker said.
    Opened { producer: u64, epoch: u64, last_seq: Option<u64> },
    /// A batch is about to be sent by the incarnation that opened with this epoch.
    Sent { producer: u64, incarnation: u64, seq: u64, count: u64 },
    /// It has its answer.
    Answered { producer: u64, incarnation: u64, seq: u64, count: u64, outcome: Outcome },
}

/// The bytes of event `seq` of a producer, from the incarnation that first sent it. They tell everything, and no two are equal.
pub fn value(producer: u64, seq: u64, incarnation: u64) -> String {
    let length = (seq.wrapping_mul(2_654_435_761) >> 7) % 120;
    format!("p{producer} {seq} e{incarnation} {}", "tide".repeat(30).chars().take(length as usize).collect::<String>())
}

/// Who wrote it: (producer, seq, incarnation). `None`: no producer of ours.
pub fn parse(data: &str) -> Option<(u64, u64, u64)> {
    let mut words = data.split(' ');
    let mut number = |prefix: &str| words.next()?.strip_prefix(prefix)?.parse().ok();
    let found = (number("p")?, number("")?, number("e")?);
    (value(found.0, found.1, found.2) == data).then_some(found)
}

/// Of an event's bytes.
pub fn hash(data: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(data)
}

/// An event that some reader saw, at any time.
#[derive(Clone, Debug)]
pub struct Seen {
    pub reader: &'static str,
    pub stream_id: u64,
    pub log_epoch: u64,
    pub offset: u64,
    pub hash: u64,
}

/// One look at a stream from outside.
#[derive(Clone, Debug)]
pub struct Sample {
    pub began: u64,
    pub ended: u64,
    pub stream: String,
    pub id: u64,
    pub log_epoch: u64,
    pub first: u64,
    pub next: u64,
}

/// One look at a cursor from outside.
#[derive(Clone, Debug)]
pub struct Position {
    pub subscription: String,
    pub next: u64,
    pub epoch: u64,
}

/// One look at both ends of K-3: its cursor, the end of its output, its cursor again.
#[derive(Clone, Debug)]
pub struct Image {
    pub before: u64,
    pub output: u64,
    pub after: u64,
}

/// One attachment of a reader that speaks frames itself.
#[derive(Clone, Debug)]
pub struct Session {
    pub reader: &'static str,
    /// All its acks are durable ones.
    pub durable: bool,
    pub epoch: u64,
    /// Where the broker said it begins.
    pub next: u64,
    /// What came, in order.
    pub got: Vec<u64>,
    /// `next` of each ack that was confirmed, in order.
    pub acked: Vec<u64>,
}

/// The effects of one consumer, in the order in which they happened.
#[derive(Clone, Debug)]
pub struct Table {
    pub name: &'static str,
    /// Offset and hash.
    pub rows: Vec<(u64, u64)>,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The stream everybody works on.
    pub input: Log,
    /// What K-3 makes of it.
    pub output: Log,
    pub appends: Vec<Append>,
    pub notes: Vec<Note>,
    pub seen: Vec<Seen>,
    pub samples: Vec<Sample>,
    pub positions: Vec<Position>,
    /// Cursors at the very end.
    pub cursors: Vec<Position>,
    pub images: Vec<Image>,
    pub sessions: Vec<Session>,
    /// K-1 tables.
    pub exact: Vec<Table>,
    /// The table of the consumer without a recipe.
    pub plain: Option<Table>,
}
