//! The law as a program: streams, producers, append sessions, cursors and commits in plain structs, one call at a time, nothing hidden.
//!
//! [`Law::apply`] says what a call must be answered and changes what it must change. It knows no group, no disk and no order but the
//! one it is called in; which order that was, is found by [`order`](crate::order).

mod commits;
mod cursors;
mod producers;
mod refusal;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use commits::{CommitPart, CommitPlan, CommitSaid};
pub use cursors::{Ask, Cursor, Pulling};
pub use producers::{Once, Producer};
pub use refusal::{Refusal, agrees, refuse};

use crate::support::*;

/// One event: its number stands for its bytes.
pub type Event = u32;

/// Streams by number, with the names of the sequence at hand.
pub const STREAMS: usize = 3;
/// Connections a sequence uses side by side.
pub const CONNECTIONS: usize = 3;
/// The window of every subscription: small, so that it matters.
pub const WINDOW: usize = 4;

/// The data of an event.
pub fn text(event: Event) -> String {
    format!("e{event}")
}

/// The event of these data.
pub fn event(text: &str) -> Event {
    text.strip_prefix('e').and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("nobody sent an event {text:?}"))
}

fn bytes(events: &[Event]) -> u64 {
    events.iter().map(|e| text(*e).len() as u64).sum()
}

/// Which append sessions of a connection are poisoned (P-12).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Poison {
    poisoned: BTreeSet<(usize, Option<u8>)>,
    /// After an unreadable frame: all but these.
    all_but: Option<BTreeSet<(usize, Option<u8>)>>,
}

impl Poison {
    fn is(&self, key: (usize, Option<u8>)) -> bool {
        self.poisoned.contains(&key) || self.all_but.as_ref().is_some_and(|healed| !healed.contains(&key))
    }

    fn heal(&mut self, key: (usize, Option<u8>)) {
        self.poisoned.remove(&key);
        if let Some(healed) = &mut self.all_but {
            healed.insert(key);
        }
    }
}

/// A stream with all that belongs to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stream {
    pub id: u64,
    pub events: Vec<Event>,
    pub first: u64,
    pub closed: bool,
    /// Its deletion has begun.
    pub gone: bool,
    /// New epochs start above it (S-8).
    pub floor: u64,
    pub producers: BTreeMap<u8, Producer<Arc<[Event]>, u64>>,
    pub once: BTreeMap<u8, Once>,
    pub cursors: BTreeMap<u8, Cursor>,
}

impl Stream {
    pub fn end(&self) -> u64 {
        self.events.len() as u64
    }

    pub fn kept(&self) -> &[Event] {
        &self.events[self.first as usize..]
    }

    pub fn info(&self) -> Said {
        Said::Stream { id: self.id, first: self.first, next: self.end(), closed: self.closed, bytes: bytes(self.kept()) }
    }

    fn store(&mut self, events: &[Event]) -> u64 {
        let base = self.end();
        self.events.extend_from_slice(events);
        base
    }
}

/// What the broker counts over all streams; it lives as long as the store.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Counters {
    pub next_id: u64,
    pub max_epoch: u64,
    pub epoch_floor: u64,
    pub generations: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self { next_id: 1, max_epoch: 0, epoch_floor: 0, generations: 0 }
    }
}

/// One append.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Id, epoch, first sequence number.
    pub producer: Option<(u8, u64, u64)>,
    pub events: Arc<[Event]>,
    pub expected: Option<u64>,
}

/// A call as the law sees it. `via` is the connection; `None` = without one (REST).
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    Open {
        via: Option<usize>,
        stream: Option<usize>,
        id: u8,
        expect: Expect,
    },
    Append {
        via: Option<usize>,
        stream: usize,
        stream_id: Option<u64>,
        batch: Batch,
    },
    Once {
        stream: usize,
        key: u8,
        events: Arc<[Event]>,
        expected: Option<u64>,
    },
    Resume {
        conn: usize,
        stream: usize,
        producer: Option<u8>,
        seq: Option<u64>,
    },
    Spoil {
        conn: usize,
        stream: usize,
        producer: Option<u8>,
    },
    SpoilAll {
        conn: usize,
    },
    Commit {
        via: Option<usize>,
        plan: Arc<CommitPlan>,
    },
    /// By the handle of a seat, or by epoch alone.
    Ack {
        via: Option<(usize, usize)>,
        stream: usize,
        sub: u8,
        epoch: u64,
        offset: u64,
        level: AckLevel,
    },
    Attach {
        conn: usize,
        stream: usize,
        stream_id: Option<u64>,
        sub: u8,
        ask: Ask,
    },
    Pull {
        stream: usize,
        sub: u8,
        pulling: Pulling,
        max: u64,
    },
    /// By the token of a pull that handed out `from`…`to`.
    TokenAck {
        stream: usize,
        sub: u8,
        token: String,
        epoch: u64,
        from: u64,
        to: u64,
        offset: Option<u64>,
        level: AckLevel,
    },
    Seek {
        stream: usize,
        sub: u8,
        to: Start,
    },
    Create {
        stream: usize,
    },
    Delete {
        stream: usize,
    },
    FinishDelete {
        stream: usize,
    },
    Trim {
        stream: usize,
        before: u64,
    },
    Close {
        stream: usize,
    },
    Subscribe {
        stream: usize,
        sub: u8,
    },
    Unsubscribe {
        stream: usize,
        sub: u8,
    },
    Forget {
        stream: usize,
        id: u8,
    },
}

/// What a call is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    Done,
    Opened { epoch: u64, last_seq: Option<u64>, next: Option<u64>, stream_id: Option<u64>, created: bool },
    Appended(Appended),
    Acked(Acked),
    Committed(CommitSaid),
    Attached { epoch: u64, next: u64, first: u64, end: u64, stream_id: u64 },
    Pulled { epoch: u64, gap: Option<(u64, u64)>, from: u64, events: Vec<Event>, lag: u64, stream_id: u64, token: bool },
    Stream { id: u64, first: u64, next: u64, closed: bool, bytes: u64 },
    Cursor { next: u64, epoch: u64 },
}

pub type Verdict = Result<Said, Refusal>;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Law {
    pub counters: Counters,
    pub streams: [Option<Stream>; STREAMS],
    /// Broker-wide producers.
    pub wide: BTreeMap<u8, Producer<Arc<CommitPlan>, Arc<CommitSaid>>>,
    pub poison: [Poison; CONNECTIONS],
    /// Every epoch given out: of producers (`false`) and sessions (`true`), by name. None may come again (S-8).
    highest: BTreeMap<(usize, bool, u8), u64>,
}

impl Law {
    pub fn new(counters: Counters) -> Self {
        Self { counters, ..Self::default() }
    }

    /// The stream a call is about.
    fn stream(&mut self, number: usize, stream_id: Option<u64>) -> Result<&mut Stream, Refusal> {
        let Some(stream) = self.streams[number].as_mut().filter(|stream| !stream.gone) else { return refuse(Code::NotFound, None, &[]) };
        if stream_id.is_some_and(|given| given != stream.id) {
            return refuse(Code::StreamReplaced, None, &[("stream_id", stream.id)]);
        }
        Ok(stream)
    }

    fn cursor(&mut self, stream: usize, sub: u8) -> Result<&mut Cursor, Refusal> {
        self.stream(stream, None)?.cursors.get_mut(&sub).map_or_else(|| refuse(Code::NotFound, None, &[]), Ok)
    }

    fn gave(&mut self, stream: usize, session: bool, id: u8, epoch: u64) {
        let before = self.highest.insert((stream, session, id), epoch);
        assert!(before.is_none_or(|before| before < epoch), "S-8: epoch {epoch} of {id} on stream {stream} after {before:?}");
        self.counters.max_epoch = self.counters.max_epoch.max(epoch);
    }

    /// Something was written: acks of level `received` that were answered before went along (C-16).
    fn wrote(&mut self) {
        for cursor in self.streams.iter_mut().flatten().flat_map(|stream| stream.cursors.values_mut()) {
            cursor.durable = cursor.durable.max(cursor.settled);
        }
    }

    fn wrote_if(&mut self, news: bool) {
        if news {
            self.wrote();
        }
    }

    /// Everything so far was answered before anything that comes now.
    pub fn settle(&mut self) {
        for cursor in self.streams.iter_mut().flatten().flat_map(|stream| stream.cursors.values_mut()) {
            cursor.settled = cursor.next;
        }
    }

    /// The process is gone, with all that was only in memory.
    pub fn crash(&mut self) {
        self.poison = Default::default();
        for cursor in self.streams.iter_mut().flatten().flat_map(|stream| stream.cursors.values_mut()) {
            (cursor.delivered, cursor.attached, cursor.pulled) = (None, false, false);
        }
    }

    /// What was answered is on disk too: the process ended in order.
    pub fn flushed(&mut self) {
        self.settle();
        self.wrote();
    }

    /// What the call must be answered, and what it must change.
    pub fn apply(&mut self, call: &Call) -> Verdict {
        match call {
            Call::Open { stream: Some(stream), id, expect, .. } => self.open(*stream, *id, *expect),
            Call::Open { stream: None, id, expect, .. } => self.open_wide(*id, *expect),
            Call::Append { via: None, stream, stream_id, batch } => self.append(*stream, *stream_id, batch),
            Call::Append { via: Some(conn), stream, stream_id, batch } => {
                let key = (*stream, batch.producer.map(|p| p.0));
                if self.poison[*conn].is(key) {
                    return refuse(Code::SessionPoisoned, Some("P-12"), &[]);
                }
                let verdict = self.append(*stream, *stream_id, batch);
                if verdict.is_err() {
                    self.poison[*conn].poisoned.insert(key);
                }
                verdict
            }
            Call::Once { stream, key, events, expected } => self.append_once(*stream, *key, events, *expected),
            Call::Resume { conn, stream, producer, seq } => self.resume(*conn, *stream, *producer, *seq),
            Call::Spoil { conn, stream, producer } => {
                self.poison[*conn].poisoned.insert((*stream, *producer));
                Ok(Said::Done)
            }
            Call::SpoilAll { conn } => {
                self.poison[*conn].all_but = Some(BTreeSet::new());
                Ok(Said::Done)
            }
            Call::Commit { plan, .. } => self.commit(plan),
            Call::Ack { stream, sub, epoch, offset, level, .. } => self.ack(*stream, *sub, *epoch, offset + 1, *level, None),
            Call::TokenAck { stream, sub, epoch, from, to, offset, level, .. } => {
                let offset = offset.unwrap_or(to - 1);
                if !(*from..*to).contains(&offset) {
                    return refuse(Code::BadParameter, Some("C-18"), &[("from", *from), ("to", to - 1)]);
                }
                self.ack(*stream, *sub, *epoch, offset + 1, *level, Some(*to))
            }
            Call::Attach { stream, stream_id, sub, ask, .. } => self.attach(*stream, *stream_id, *sub, ask),
            Call::Pull { stream, sub, pulling, max } => self.pull(*stream, *sub, pulling, *max),
            Call::Seek { stream, sub, to } => self.seek(*stream, *sub, *to),
            Call::Subscribe { stream, sub } => self.subscribe(*stream, *sub),
            Call::Unsubscribe { stream, sub } => self.unsubscribe(*stream, *sub),
            Call::Forget { stream, id } => self.forget(*stream, *id),
            Call::Create { stream } => self.create(*stream),
            Call::Delete { stream } => {
                self.stream(*stream, None)?.gone = true;
                self.wrote();
                Ok(Said::Done)
            }
            Call::FinishDelete { stream } => {
                self.streams[*stream] = None;
                self.counters.epoch_floor = self.counters.max_epoch;
                Ok(Said::Done)
            }
            Call::Trim { stream, before } => {
                let stream = self.stream(*stream, None)?;
                if *before > stream.end() {
                    return refuse(Code::OffsetBeyondEnd, None, &[("next_offset", stream.end())]);
                }
                let news = *before > stream.first;
                stream.first = stream.first.max(*before);
                let info = stream.info();
                self.wrote_if(news);
                Ok(info)
            }
            Call::Close { stream } => {
                let stream = self.stream(*stream, None)?;
                let news = !std::mem::replace(&mut stream.closed, true);
                let info = stream.info();
                self.wrote_if(news);
                Ok(info)
            }
        }
    }

    fn create(&mut self, number: usize) -> Verdict {
        if self.streams[number].is_some() {
            return refuse(Code::NameTaken, None, &[]);
        }
        let stream = Stream { id: self.counters.next_id, floor: self.counters.epoch_floor, ..Stream::default() };
        self.counters.next_id += 1;
        let info = stream.info();
        self.streams[number] = Some(stream);
        self.wrote();
        Ok(info)
    }

    /// The call's group was refused by the engine as a whole: it did nothing, but its append session is poisoned (P-12).
    pub fn turned_away(&mut self, call: &Call) {
        if let Call::Append { via: Some(conn), stream, batch, .. } = call {
            self.poison[*conn].poisoned.insert((*stream, batch.producer.map(|p| p.0)));
        }
    }
}
