//! What everybody saw, as plain values. `check` judges it; nothing here does.

use std::collections::BTreeMap;

use parking_lot::Mutex;
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

/// Producers from this number on never open by themselves: each of their openings is noted, and their values name the epoch they were sent
/// with. The others use the client library, which opens again after a break.
pub const BY_HAND: u64 = 100;

/// A refusal, as it was told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Told {
    /// Which carrier brought it; those that begin with `grpc` have gRPC numbers.
    pub carrier: String,
    pub code: String,
    /// `no` or `unknown`
    pub applied: String,
    pub retry: String,
    /// HTTP or gRPC status, where there is one.
    pub number: Option<i64>,
}

/// What a reader that speaks frames itself saw and did, in its order. Processes write it down line by line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Look {
    /// A session began.
    Opened { reader: String, durable: bool, epoch: u64, next: u64, stream_id: u64, log_epoch: u64, at: u64 },
    /// Offset and hash of each event of a delivery.
    Got { reader: String, stream_id: u64, log_epoch: u64, events: Vec<(u64, u64)> },
    /// An ack was confirmed, which had been sent by this session at that time.
    Acked { reader: String, epoch: u64, sent: u64, next: u64 },
    /// The session heard that a newer one took over.
    Fenced { reader: String, epoch: u64 },
    /// A refusal.
    Told(Told),
}

/// A session of a reader, and when its opening was answered. Microseconds of the machine's clock, which all processes share.
#[derive(Clone, Debug)]
pub struct Opening {
    pub reader: String,
    pub epoch: u64,
    pub at: u64,
}

/// A confirmed ack, and when it was sent.
#[derive(Clone, Debug)]
pub struct Ack {
    pub reader: String,
    pub epoch: u64,
    pub sent: u64,
    pub next: u64,
}

/// Appends without a producer that were sent one behind the other on a connection, without waiting: they are stored up to one of them.
#[derive(Clone, Debug)]
pub struct Run {
    pub carrier: &'static str,
    /// Value and outcome, in the order of sending.
    pub appends: Vec<(String, Outcome)>,
}

/// One life of a stream that is trimmed, deleted and created again beside the others.
#[derive(Clone, Debug, Default)]
pub struct Side {
    pub name: String,
    pub id: u64,
    pub appends: Vec<Append>,
    /// Producer, epoch, last sequence number, in the order of their openings.
    pub opened: Vec<(String, u64, Option<u64>)>,
    /// The furthest confirmed trim.
    pub trimmed: u64,
    /// Trims that may have happened reach this far.
    pub trimmed_at_most: u64,
    /// Its deletion was asked for: it may be gone.
    pub deleting: bool,
    /// Its deletion was confirmed: it must be.
    pub deleted: bool,
    /// What is there at the end, under its name.
    pub log: Option<Log>,
}

/// How long somebody took to be at work again after the last fault.
#[derive(Clone, Debug)]
pub struct Resumed {
    pub who: String,
    pub seconds: f64,
}

/// What a caller without a credential heard about one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    pub path: String,
    pub status: u16,
    /// Without what differs by nature: the id of the request.
    pub said: String,
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
    /// Each refusal, and how often.
    pub told: BTreeMap<Told, u64>,
    pub openings: Vec<Opening>,
    pub acks: Vec<Ack>,
    /// Sessions that heard of their fencing: reader and epoch.
    pub fenced: Vec<(String, u64)>,
    pub runs: Vec<Run>,
    pub sides: Vec<Side>,
    pub resumed: Vec<Resumed>,
    pub strangers: Vec<Stranger>,
}

impl History {
    /// Takes over what readers wrote down; looks of one reader come in their order.
    pub fn add_looks(&mut self, looks: impl IntoIterator<Item = Look>) {
        for look in looks {
            match look {
                Look::Opened { reader, durable, epoch, next, at, .. } => {
                    self.sessions.push(Session { reader: name(&reader), durable, epoch, next, got: Vec::new(), acked: Vec::new() });
                    self.openings.push(Opening { reader, epoch, at });
                }
                Look::Got { reader, stream_id, log_epoch, events } => {
                    let reader = name(&reader);
                    if let Some(session) = self.sessions.iter_mut().rev().find(|s| s.reader == reader) {
                        session.got.extend(events.iter().map(|(offset, _)| *offset));
                    }
                    self.seen.extend(events.into_iter().map(|(offset, hash)| Seen { reader, stream_id, log_epoch, offset, hash }));
                }
                Look::Acked { reader, epoch, sent, next } => {
                    let of = self.sessions.iter_mut().rev().find(|s| s.reader == reader && s.epoch == epoch);
                    of.into_iter().for_each(|session| session.acked.push(next));
                    self.acks.push(Ack { reader, epoch, sent, next });
                }
                Look::Fenced { reader, epoch } => self.fenced.push((reader, epoch)),
                Look::Told(told) => *self.told.entry(told).or_default() += 1,
            }
        }
    }
}

/// The name of a reader, for as long as the test runs: there are few.
fn name(reader: &str) -> &'static str {
    static NAMES: Mutex<Vec<&str>> = Mutex::new(Vec::new());
    let mut names = NAMES.lock();
    match names.iter().find(|known| **known == reader) {
        Some(known) => known,
        None => {
            names.push(Box::leak(reader.to_owned().into_boxed_str()));
            names[names.len() - 1]
        }
    }
}
