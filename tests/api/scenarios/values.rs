//! What goes into a step and what comes out of it, as plain values with one text each: the text is what transcripts compare.

use std::fmt;

use serde_json::{Map, Value};

/// An event to append.
#[derive(Clone, Debug)]
pub struct New {
    pub data: Vec<u8>,
    pub encoding: Encoding,
    pub kind: String,
    pub key: String,
    pub headers: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Utf8,
    Binary,
}

impl Encoding {
    /// The word in the JSON form of an event.
    pub fn word(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Utf8 => "utf8",
            Self::Binary => "base64",
        }
    }

    pub fn of_word(word: &str) -> Self {
        [Self::Json, Self::Utf8, Self::Binary].into_iter().find(|e| e.word() == word).unwrap_or_else(|| panic!("{word} is no encoding"))
    }
}

/// An event whose data is the text of one JSON value.
pub fn json(text: &str) -> New {
    New { data: text.as_bytes().to_vec(), encoding: Encoding::Json, kind: String::new(), key: String::new(), headers: Vec::new() }
}

/// An event whose data is text.
pub fn text(text: &str) -> New {
    New { encoding: Encoding::Utf8, ..json(text) }
}

/// An event whose data is any bytes.
pub fn binary(data: &[u8]) -> New {
    New { data: data.to_vec(), encoding: Encoding::Binary, ..json("") }
}

impl New {
    pub fn kind(mut self, kind: &str) -> Self {
        self.kind = kind.to_owned();
        self
    }

    pub fn key(mut self, key: &str) -> Self {
        self.key = key.to_owned();
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Events with the JSON data `first`, `first + 1`, …
pub fn numbers(range: std::ops::Range<u64>) -> Vec<New> {
    range.map(|n| json(&n.to_string())).collect()
}

impl fmt::Display for New {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_event(f, self.encoding, &self.data, &self.kind, &self.key, &self.headers)
    }
}

fn write_event(f: &mut fmt::Formatter<'_>, encoding: Encoding, data: &[u8], kind: &str, key: &str, headers: &[(String, String)]) -> fmt::Result {
    let short = |text: &str| match text.char_indices().nth(120) {
        Some((cut, _)) => format!("{}… ({} bytes, hash {:x})", text[..cut].escape_debug(), text.len(), xxhash_rust::xxh3::xxh3_64(text.as_bytes())),
        None => text.escape_debug().to_string(),
    };
    match (encoding, std::str::from_utf8(data)) {
        (Encoding::Json, Ok(text)) => write!(f, "{}", short(text))?,
        (Encoding::Utf8, Ok(text)) => write!(f, "\"{}\"", short(text))?,
        _ => write!(f, "{} {}", encoding.word(), short(&data.iter().map(|b| format!("{b:02x}")).collect::<String>()))?,
    }
    for (name, text) in [("type", kind), ("key", key)].into_iter().filter(|(_, text)| !text.is_empty()) {
        write!(f, " {name}={}", short(text))?;
    }
    headers.iter().try_for_each(|(name, value)| write!(f, " {}:{}", short(name), short(value)))
}

/// An event as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub offset: u64,
    /// Microseconds. Not part of the text.
    pub time: i64,
    pub log_epoch: u64,
    pub kind: String,
    pub key: String,
    pub headers: Vec<(String, String)>,
    pub data: Vec<u8>,
    pub encoding: Encoding,
    pub author: (u64, u64),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.offset)?;
        write_event(f, self.encoding, &self.data, &self.kind, &self.key, &self.headers)?;
        // What the whole table has in common is not worth a word.
        if (self.log_epoch, self.author) != (1, (1, 0)) {
            write!(f, " log epoch {} by {}/{}", self.log_epoch, self.author.0, self.author.1)?;
        }
        Ok(())
    }
}

impl fmt::Display for List<Event> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(Event::to_string).collect::<Vec<_>>().join(", "))
    }
}

/// Several of something.
#[derive(Clone, Debug, PartialEq)]
pub struct List<T>(pub Vec<T>);

/// Where a producer stands.
#[derive(Clone, Debug)]
pub struct Stamp {
    pub id: String,
    pub epoch: u64,
    pub seq: u64,
}

/// One append.
#[derive(Clone, Debug)]
pub struct Append {
    pub stream: String,
    pub stream_id: Option<u64>,
    pub stamp: Option<Stamp>,
    pub expected: Option<u64>,
    pub events: Vec<New>,
}

/// An append to be filled in.
pub fn to(stream: &str, events: impl Into<Vec<New>>) -> Append {
    Append { stream: stream.to_owned(), stream_id: None, stamp: None, expected: None, events: events.into() }
}

impl Append {
    pub fn stamp(mut self, id: &str, epoch: u64, seq: u64) -> Self {
        self.stamp = Some(Stamp { id: id.to_owned(), epoch, seq });
        self
    }

    pub fn expecting(mut self, next_offset: u64) -> Self {
        self.expected = Some(next_offset);
        self
    }

    pub fn id(mut self, stream_id: u64) -> Self {
        self.stream_id = Some(stream_id);
        self
    }
}

impl fmt::Display for Append {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "append to {}", self.stream)?;
        if let Some(Stamp { id, epoch, seq }) = &self.stamp {
            write!(f, " as {id} epoch {epoch} seq {seq}")?;
        }
        if let Some(expected) = self.expected {
            write!(f, " expecting {expected}")?;
        }
        match &self.events[..] {
            [first, second, .., last] => write!(f, " [{first}, {second}, … {last}: {} events]", self.events.len()),
            few => write!(f, " [{}]", few.iter().map(New::to_string).collect::<Vec<_>>().join(", ")),
        }
    }
}

/// Answer to an append.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub first: Option<u64>,
    pub last: Option<u64>,
    pub count: u64,
    pub duplicate: bool,
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.last) {
            (Some(first), Some(last)) => {
                assert_eq!(self.count, last + 1 - first, "count and offsets agree");
                write!(f, "stored {first}..={last}")?;
            }
            (None, None) => write!(f, "stored {} somewhere", self.count)?,
            other => panic!("half an answer: {other:?}"),
        }
        if self.duplicate { f.write_str(" before") } else { Ok(()) }
    }
}

/// Answer to opening a producer.
#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    pub producer: String,
    pub epoch: u64,
    pub last_seq: Option<u64>,
    pub next_offset: Option<u64>,
    /// Not part of the text.
    pub stream_id: Option<u64>,
    pub log_epoch: u64,
    pub origin: String,
}

fn or_none(n: Option<u64>) -> String {
    n.map_or_else(|| "none".to_owned(), |n| n.to_string())
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        assert_eq!(self.stream_id.is_some(), self.next_offset.is_some(), "only a stream has an id and an end");
        let Self { producer, epoch, last_seq, next_offset, log_epoch, origin, .. } = self;
        write!(f, "{producer} {origin}: epoch {epoch}, last_seq {}, next_offset {}, log epoch {log_epoch}", or_none(*last_seq), or_none(*next_offset))
    }
}

/// Where a reader starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum From {
    Offset(u64),
    Earliest,
    Latest,
    /// Microseconds.
    Time(i64),
}

/// What a reader asks for.
#[derive(Clone, Debug, Default)]
pub struct Subscribe {
    pub stream: String,
    pub subscription: Option<String>,
    pub create: bool,
    pub stream_id: Option<u64>,
    pub rewind: bool,
    pub from: Option<From>,
    pub credit: Option<(u64, u64)>,
    pub reject: bool,
    pub on_gap: Option<&'static str>,
    pub log_epoch: Option<u64>,
    /// Acks at level `received`.
    pub received: bool,
}

/// An ephemeral reader to be filled in.
pub fn follow(stream: &str) -> Subscribe {
    Subscribe { stream: stream.to_owned(), ..Subscribe::default() }
}

/// A durable reader to be filled in; the subscription is made if it is not there.
pub fn durable(stream: &str, subscription: &str) -> Subscribe {
    Subscribe { subscription: Some(subscription.to_owned()), create: true, ..follow(stream) }
}

impl Subscribe {
    pub fn from(mut self, from: From) -> Self {
        self.from = Some(from);
        self
    }

    pub fn credit(mut self, events: u64) -> Self {
        self.credit = Some((events, 1 << 22));
        self
    }

    pub fn on_gap(mut self, word: &'static str) -> Self {
        self.on_gap = Some(word);
        self
    }
}

impl fmt::Display for Subscribe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "subscribe to {} as {}", self.stream, self.subscription.as_deref().unwrap_or("nobody"))?;
        match self.from {
            None => {}
            // Times differ from run to run.
            Some(From::Time(_)) => write!(f, " from a time")?,
            Some(from) => write!(f, " from {from:?}")?,
        }
        let flags = [("not created", !self.create && self.subscription.is_some()), ("rewind", self.rewind), ("reject", self.reject), ("received", self.received)];
        flags.iter().filter(|(_, on)| *on).try_for_each(|(word, _)| write!(f, ", {word}"))?;
        if let Some((events, _)) = self.credit {
            write!(f, ", credit {events}")?;
        }
        if let Some(word) = self.on_gap {
            write!(f, ", on_gap {word}")?;
        }
        self.log_epoch.map_or(Ok(()), |n| write!(f, ", log epoch {n}"))
    }
}

/// The reader is attached.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscribed {
    pub stream: String,
    /// Not part of the text.
    pub stream_id: u64,
    pub epoch: Option<u64>,
    pub next: u64,
    pub first_offset: u64,
    pub next_offset: u64,
    pub log_epoch: u64,
}

impl fmt::Display for Subscribed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, epoch, next, first_offset, next_offset, log_epoch, .. } = self;
        write!(f, "at {next} of {stream} {first_offset}..{next_offset}, epoch {}, log epoch {log_epoch}", or_none(*epoch))
    }
}

/// What a reader hears.
#[derive(Clone, Debug, PartialEq)]
pub enum Delivery {
    Event(Event),
    Gap { from: u64, to: u64, reason: String },
    Live { next_offset: u64 },
    /// The session is over.
    End(Refusal),
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(event) => event.fmt(f),
            Self::Gap { from, to, reason } => write!(f, "gap {from}..={to} {reason}"),
            Self::Live { next_offset } => write!(f, "live at {next_offset}"),
            Self::End(why) => write!(f, "end: {why}"),
        }
    }
}

/// Answer to an ack.
#[derive(Clone, Debug, PartialEq)]
pub struct Acked {
    pub next: u64,
    pub stale: bool,
}

impl fmt::Display for Acked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "done before {}{}", self.next, if self.stale { ", stale" } else { "" })
    }
}

/// Acks and appends that happen together.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    pub producer: Option<Stamp>,
    pub acks: Vec<CommitAck>,
    pub appends: Vec<Append>,
    /// Streams and where they must stand.
    pub checks: Vec<(String, u64)>,
}

#[derive(Clone, Debug)]
pub struct CommitAck {
    pub stream: String,
    pub subscription: String,
    pub epoch: u64,
    pub offset: u64,
}

impl Commit {
    pub fn stamp(mut self, id: &str, epoch: u64, seq: u64) -> Self {
        self.producer = Some(Stamp { id: id.to_owned(), epoch, seq });
        self
    }

    pub fn ack(mut self, stream: &str, subscription: &str, epoch: u64, offset: u64) -> Self {
        self.acks.push(CommitAck { stream: stream.to_owned(), subscription: subscription.to_owned(), epoch, offset });
        self
    }

    pub fn append(mut self, append: Append) -> Self {
        self.appends.push(append);
        self
    }

    pub fn check(mut self, stream: &str, next_offset: u64) -> Self {
        self.checks.push((stream.to_owned(), next_offset));
        self
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("commit")?;
        if let Some(Stamp { id, epoch, seq }) = &self.producer {
            write!(f, " as {id} epoch {epoch} seq {seq}")?;
        }
        for CommitAck { stream, subscription, epoch, offset } in &self.acks {
            write!(f, "; ack {offset} of {stream} for {subscription} epoch {epoch}")?;
        }
        self.appends.iter().try_for_each(|append| write!(f, "; {append}"))?;
        self.checks.iter().try_for_each(|(stream, at)| write!(f, "; {stream} at {at}"))
    }
}

/// Answer to a commit.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// Stream, subscription, offset, next.
    pub acks: Vec<(String, String, u64, u64)>,
    /// Stream, first, last, count.
    pub appends: Vec<(String, u64, u64, u64)>,
    pub duplicate: bool,
}

impl fmt::Display for Committed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("committed")?;
        for (stream, subscription, offset, next) in &self.acks {
            assert_eq!(offset + 1, *next, "offset and next agree");
            write!(f, ", {subscription} of {stream} before {next}")?;
        }
        for (stream, first, last, count) in &self.appends {
            assert_eq!(last + 1 - first, *count, "count and offsets agree");
            write!(f, ", {stream} {first}..={last}")?;
        }
        if self.duplicate { f.write_str(" before") } else { Ok(()) }
    }
}

/// A refusal, without its sentence and its request id: they are for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub code: String,
    /// Empty where none is named.
    pub rule: String,
    pub applied: String,
    pub retry: String,
    pub details: Map<String, Value>,
}

impl Refusal {
    /// Checks what every error has for people, and keeps what programs compare.
    pub fn new(code: &str, rule: &str, applied: &str, retry: &str, message: &str, details: Map<String, Value>) -> Self {
        assert!(message.ends_with('.') && message.len() > 10, "an error is a sentence: {message:?} ({code})");
        Self { code: code.to_owned(), rule: rule.to_owned(), applied: applied.to_owned(), retry: retry.to_owned(), details }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}, applied {}, retry {}", self.code, if self.rule.is_empty() { "-" } else { &self.rule }, self.applied, self.retry)?;
        for (name, value) in &self.details {
            match (name.as_str(), value) {
                // Numbers that depend on what ran before.
                ("stream_id", _) => write!(f, "; {name}")?,
                ("cause", Value::Object(cause)) => {
                    let part = |name: &str| cause.get(name).map(|v| v.to_string().replace('"', "")).unwrap_or_default();
                    write!(f, "; cause {} {} {}", part("code"), part("rule"), part("details"))?;
                }
                (_, value) => write!(f, "; {name} {}", value.to_string().replace('"', ""))?,
            }
        }
        Ok(())
    }
}

/// A stream as it is described.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamSeen {
    /// Not part of the text.
    pub id: u64,
    pub status: String,
    pub closed: bool,
    pub first_offset: u64,
    pub next_offset: u64,
    pub bytes: u64,
}

impl StreamSeen {
    /// From the JSON of `surfaces.md` 5.5.
    pub fn of(object: &Value) -> Self {
        let number = |at: &str| object.pointer(at).and_then(Value::as_u64).unwrap_or_else(|| panic!("{at} in {object}"));
        let (first_offset, next_offset) = (number("/state/first_offset"), number("/state/next_offset"));
        assert_eq!(number("/state/count"), next_offset - first_offset, "{object}");
        Self {
            id: number("/id"),
            status: object["status"].as_str().expect("a status").to_owned(),
            closed: object["closed"].as_bool().expect("a flag"),
            first_offset,
            next_offset,
            bytes: number("/state/bytes"),
        }
    }
}

impl fmt::Display for StreamSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, closed, first_offset, next_offset, bytes, .. } = self;
        write!(f, "{status} {first_offset}..{next_offset}, {bytes} bytes{}", if *closed { ", closed" } else { "" })
    }
}

/// A subscription as it is described.
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriptionSeen {
    pub next: u64,
    pub epoch: u64,
    pub lag_events: u64,
    pub lag_bytes: u64,
    pub status: String,
}

impl SubscriptionSeen {
    /// From the JSON of `surfaces.md` 5.5.
    pub fn of(object: &Value) -> Self {
        let number = |at: &str| object.pointer(at).and_then(Value::as_u64).unwrap_or_else(|| panic!("{at} in {object}"));
        let next = number("/next");
        assert_eq!(object["acked_offset"].as_u64(), next.checked_sub(1), "{object}");
        Self {
            next,
            epoch: number("/epoch"),
            lag_events: number("/lag/events"),
            lag_bytes: number("/lag/bytes"),
            status: object.get("status").and_then(Value::as_str).unwrap_or("Stopped").to_owned(),
        }
    }
}

impl fmt::Display for SubscriptionSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whether a connection has let go yet is a matter of moments: `status` is asked for where it is certain.
        let Self { next, epoch, lag_events, lag_bytes, .. } = self;
        write!(f, "next {next}, epoch {epoch}, behind by {lag_events} events, {lag_bytes} bytes")
    }
}
