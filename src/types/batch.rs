//! The batch: events of one append, encoded once, stored, cached and sent as the same bytes (`formats.md`).
//!
//! - [`Events`] are a producer's events before they have offsets, checked at the door, with room in front for what the
//!   broker adds.
//! - [`Batch`] is the stored value: a 32-byte header with CRC, then the protobuf message `EventBatch`.
//! - [`Slice`] is a run of consecutive events of one batch on its way to a reader.
//!
//! Protobuf messages concatenate, so stamping offsets and time is a prefix before the producer's bytes: nothing is
//! encoded again between the append and the sockets of binary readers.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};

use super::error::{Code, Error};
use super::event::{Encoding, EventRef, Removed};
use super::id::StreamId;
use super::time::TimeUs;
use super::varint::{self, Wire};
use super::{limits, name};

/// Number of the field `events` in `Events` and in `EventBatch`.
const EVENTS_FIELD: u32 = 15;
/// Key byte of that field with wire type "bytes".
const EVENTS_KEY: u8 = (EVENTS_FIELD as u8) << 3 | 2;
/// Header in front of the stored `EventBatch`.
pub const HEADER_BYTES: usize = 32;
/// Room in front of a producer's bytes: the header and the longest prefix (61 bytes), rounded up.
const HEADROOM: usize = 96;
/// Version of the stored format.
pub const FORMAT: u8 = 1;

/// Events that wait for their offsets: well formed, within the limits, in wire form.
#[derive(Clone)]
pub struct Events {
    /// `HEADROOM` unused bytes, then the fields 15.
    buffer: BytesMut,
    count: u32,
    data_bytes: u64,
    largest: usize,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Events({} events, {} bytes)", self.count, self.encoded().len())
    }
}

impl Events {
    /// Walks a client's `Events` bytes once before they are trusted (`formats.md` "At the door").
    ///
    /// # Errors
    /// `unknown_field`, `bad_parameter` or `too_large`, naming the event and the field.
    pub fn from_wire(bytes: &[u8]) -> Result<Self, Error> {
        let mut builder = EventsBuilder::with_capacity(bytes.len());
        let mut rest = bytes;
        while !rest.is_empty() {
            let before = rest;
            match varint::take_field(&mut rest) {
                Some((EVENTS_FIELD, Wire::Bytes(event))) => {
                    builder.check(event)?;
                    builder.events.buffer.put_slice(&before[..before.len() - rest.len()]);
                }
                Some((EVENTS_FIELD, _)) | None => return Err(malformed(builder.events.count)),
                Some((number, _)) => {
                    return Err(Error::new(Code::UnknownField, format!("Events has no field {number}; only 15 (events).")).detail("field", "events"));
                }
            }
        }
        builder.finish()
    }

    /// The wire form: field 15 once per event.
    pub fn encoded(&self) -> &[u8] {
        &self.buffer[HEADROOM..]
    }

    /// How many events.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Sum of their `data` bytes.
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Bytes of the largest `data`.
    pub fn largest(&self) -> usize {
        self.largest
    }

    /// The events, in order.
    pub fn iter(&self) -> EventIter<'_> {
        EventIter { rest: self.encoded() }
    }

    /// XXH3-128 over the canonical form, which no carrier changes (`formats.md` "Fingerprint").
    pub fn fingerprint(&self) -> u128 {
        fingerprint(self.count, self.iter())
    }

    /// Gives the events their place. The producer's bytes are not copied.
    pub fn stamp(mut self, stream: StreamId, stamp: Stamp) -> Batch {
        let mut prefix = [0u8; HEADROOM - HEADER_BYTES];
        let prefix_len = write_prefix(&mut prefix, &stamp, self.count);
        let start = HEADROOM - prefix_len - HEADER_BYTES;
        self.buffer[HEADROOM - prefix_len..HEADROOM].copy_from_slice(&prefix[..prefix_len]);
        let head = BatchHead {
            base_offset: stamp.base_offset,
            count: self.count,
            time: stamp.time,
            log_epoch: stamp.log_epoch,
            author_user: stamp.author_user,
            author_source: stamp.author_source,
            bytes_before: stamp.bytes_before,
            data_bytes: self.data_bytes as u32,
            has_removed: false,
        };
        let (header, body) = self.buffer[start..].split_at_mut(HEADER_BYTES);
        header.copy_from_slice(&encode_header(stream, &head, body));
        let value = self.buffer.freeze().slice(start..);
        Batch { stream, head, value, rendered: OnceLock::new() }
    }
}

fn malformed(index: u32) -> Error {
    Error::new(Code::BadParameter, format!("events[{index}] is not a protobuf Event."))
        .detail("field", format!("events[{index}]"))
}

/// Collects events one by one, checking each.
pub struct EventsBuilder {
    events: Events,
}

impl Default for EventsBuilder {
    fn default() -> Self {
        Self::with_capacity(256)
    }
}

impl EventsBuilder {
    /// `bytes` is a guess of the encoded size.
    pub fn with_capacity(bytes: usize) -> Self {
        let mut buffer = BytesMut::with_capacity(HEADROOM + bytes);
        buffer.put_bytes(0, HEADROOM);
        Self { events: Events { buffer, count: 0, data_bytes: 0, largest: 0 } }
    }

    /// How many so far.
    pub fn len(&self) -> usize {
        self.events.count as usize
    }

    /// None so far?
    pub fn is_empty(&self) -> bool {
        self.events.count == 0
    }

    /// Encoded bytes so far.
    pub fn encoded_len(&self) -> usize {
        self.events.buffer.len() - HEADROOM
    }

    /// Adds one event.
    ///
    /// # Errors
    /// `bad_parameter` or `too_large`, naming the event and the field. The builder is unchanged then.
    pub fn push(&mut self, event: &EventRef<'_>) -> Result<(), Error> {
        self.check_ref(event, false)?;
        put_event(&mut self.events.buffer, event);
        Ok(())
    }

    /// Adds one event whose data is `data`, JSON that has been parsed already: it is not parsed again.
    ///
    /// # Errors
    /// As [`EventsBuilder::push`].
    pub fn push_json(&mut self, event: &EventRef<'_>, data: &serde_json::value::RawValue) -> Result<(), Error> {
        let event = EventRef { data: data.get().as_bytes(), encoding: Encoding::Json, ..event.clone() };
        self.check_ref(&event, true)?;
        put_event(&mut self.events.buffer, &event);
        Ok(())
    }

    /// # Errors
    /// `bad_parameter` for an empty batch, `too_large` for one over the limits.
    pub fn finish(self) -> Result<Events, Error> {
        let size = self.encoded_len();
        if self.events.count == 0 {
            return Err(Error::bad("events", "An append needs at least one event."));
        }
        if size > limits::BATCH_MAX_BYTES {
            return Err(Error::new(Code::TooLarge, format!("The batch is {size} bytes; the limit is {}. Send fewer events at once.", limits::BATCH_MAX_BYTES))
                .detail("field", "events")
                .detail("limit", limits::BATCH_MAX_BYTES as u64));
        }
        Ok(self.events)
    }

    fn check(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let index = self.events.count;
        let event = decode_event(bytes, true).map_err(|problem| {
            let code = if problem.unknown { Code::UnknownField } else { Code::BadParameter };
            Error::new(code, format!("events[{index}]{} {}.", problem.field, problem.text)).detail("field", format!("events[{index}]{}", problem.field))
        })?;
        self.check_ref(&event, false)
    }

    /// Limits and promises that hold for every carrier; counts the event when they do. `parsed`: data is JSON, apart from its depth.
    fn check_ref(&mut self, event: &EventRef<'_>, parsed: bool) -> Result<(), Error> {
        let index = self.events.count;
        let at = |field: &str| format!("events[{index}].{field}");
        let too_large = |field: &str, size: usize, limit: usize| {
            Err(Error::new(Code::TooLarge, format!("{} is {size} bytes; the limit is {limit}.", at(field))).detail("field", at(field)).detail("limit", limit as u64))
        };
        if index as usize >= limits::BATCH_MAX_EVENTS {
            return Err(Error::new(Code::TooLarge, format!("An append holds at most {} events; send them in several.", limits::BATCH_MAX_EVENTS))
                .detail("field", "events")
                .detail("limit", limits::BATCH_MAX_EVENTS as u64));
        }
        if event.data.len() > limits::EVENT_MAX_BYTES {
            return too_large("data", event.data.len(), limits::EVENT_MAX_BYTES);
        }
        if event.kind.len() > limits::EVENT_TYPE_BYTES {
            return too_large("type", event.kind.len(), limits::EVENT_TYPE_BYTES);
        }
        if event.key.len() > limits::EVENT_KEY_BYTES {
            return too_large("key", event.key.len(), limits::EVENT_KEY_BYTES);
        }
        if event.headers.len() > limits::EVENT_HEADERS {
            return Err(Error::new(Code::TooLarge, format!("{} has {} entries; the limit is {}.", at("headers"), event.headers.len(), limits::EVENT_HEADERS))
                .detail("field", at("headers"))
                .detail("limit", limits::EVENT_HEADERS as u64));
        }
        let header_bytes: usize = event.headers.iter().map(|(n, v)| n.len() + v.len()).sum();
        if header_bytes > limits::EVENT_HEADER_BYTES {
            return too_large("headers", header_bytes, limits::EVENT_HEADER_BYTES);
        }
        for (i, (header, _)) in event.headers.iter().enumerate() {
            if header.is_empty() {
                return Err(Error::bad(&at("headers"), format!("{} has an entry without a name.", at("headers"))));
            }
            if event.headers[..i].iter().any(|(other, _)| other == header) {
                return Err(Error::bad(&at("headers"), format!("{} names {} twice.", at("headers"), name::quote(header))));
            }
        }
        match event.encoding {
            Encoding::Json => if parsed { check_depth(event.data) } else { check_json(event.data) }.map_err(|why| Error::bad(&at("data"), format!("{} is not one JSON value: {why}.", at("data"))))?,
            Encoding::Utf8 if std::str::from_utf8(event.data).is_err() => {
                return Err(Error::bad(&at("data"), format!("{} says utf8 but is not valid UTF-8.", at("data"))));
            }
            Encoding::Utf8 | Encoding::Binary => {}
        }
        self.events.count += 1;
        self.events.data_bytes += event.data.len() as u64;
        self.events.largest = self.events.largest.max(event.data.len());
        Ok(())
    }
}

/// Is this the text of exactly one JSON value, valid UTF-8, at most [`limits::JSON_DEPTH`] deep? Bytes are not changed.
pub fn check_json(data: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(data).map_err(|e| format!("invalid UTF-8 at byte {}", e.valid_up_to()))?;
    check_depth(data)?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(drop).map_err(|e| e.to_string())
}

/// Is this JSON at most [`limits::JSON_DEPTH`] deep?
fn check_depth(data: &[u8]) -> Result<(), String> {
    // Nothing is deeper than it has opening brackets, and most data has few: counting them is much faster than following them.
    if data.iter().filter(|b| matches!(b, b'[' | b'{')).count() <= limits::JSON_DEPTH {
        return Ok(());
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for &byte in data {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > limits::JSON_DEPTH {
                    return Err(format!("nested deeper than {}", limits::JSON_DEPTH));
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Writes one event as field 15.
fn put_event(out: &mut BytesMut, event: &EventRef<'_>) {
    let text_len = |t: &str| if t.is_empty() { 0 } else { 1 + varint::len(t.len() as u64) + t.len() };
    let header_len = |(n, v): &(&str, &str)| text_len(n) + text_len(v);
    let data_len = if event.data.is_empty() { 0 } else { 1 + varint::len(event.data.len() as u64) + event.data.len() };
    let small = |n: u8| if n == 0 { 0 } else { 2 };
    let headers: usize = event.headers.iter().map(|h| 1 + varint::len(header_len(h) as u64) + header_len(h)).sum();
    let len = data_len + small(event.encoding as u8) + text_len(event.kind) + text_len(event.key) + headers + small(event.removed as u8);
    let put_bytes = |out: &mut BytesMut, key: u8, bytes: &[u8]| {
        if !bytes.is_empty() {
            out.put_u8(key);
            varint::put(out, bytes.len() as u64);
            out.put_slice(bytes);
        }
    };
    out.put_u8(EVENTS_KEY);
    varint::put(out, len as u64);
    put_bytes(out, 0x0a, event.data);
    if event.encoding != Encoding::Json {
        out.put_slice(&[0x10, event.encoding as u8]);
    }
    put_bytes(out, 0x1a, event.kind.as_bytes());
    put_bytes(out, 0x22, event.key.as_bytes());
    for header in &event.headers {
        out.put_u8(0x2a);
        varint::put(out, header_len(header) as u64);
        put_bytes(out, 0x0a, header.0.as_bytes());
        put_bytes(out, 0x12, header.1.as_bytes());
    }
    if event.removed != Removed::No {
        out.put_slice(&[0x30, event.removed as u8]);
    }
}

struct EventProblem {
    field: &'static str,
    text: String,
    unknown: bool,
}

/// Reads one `Event`. `strict` is the door: no `removed`, no unknown or repeated singular field, no unknown enum value.
fn decode_event(mut bytes: &[u8], strict: bool) -> Result<EventRef<'_>, EventProblem> {
    let bad = |field: &'static str, text: &str| EventProblem { field, text: text.to_owned(), unknown: false };
    let text = |bytes: &'_ [u8]| -> Result<(), ()> { std::str::from_utf8(bytes).map(drop).map_err(drop) };
    let mut event = EventRef::default();
    let mut seen = 0u8;
    while !bytes.is_empty() {
        let (number, value) = varint::take_field(&mut bytes).ok_or_else(|| bad("", "is not a protobuf Event"))?;
        if strict && number <= 4 {
            if seen & (1 << number) != 0 {
                return Err(bad("", "has a singular field twice"));
            }
            seen |= 1 << number;
        }
        match (number, value) {
            (1, Wire::Bytes(data)) => event.data = data,
            (2, Wire::Varint(n)) => event.encoding = Encoding::from_number(n).ok_or_else(|| bad(".encoding", "is none of 0 (json), 1 (utf8), 2 (binary)"))?,
            (3, Wire::Bytes(kind)) => event.kind = std::str::from_utf8(kind).map_err(|_| bad(".type", "is not valid UTF-8"))?,
            (4, Wire::Bytes(key)) => event.key = std::str::from_utf8(key).map_err(|_| bad(".key", "is not valid UTF-8"))?,
            (5, Wire::Bytes(mut header)) => {
                let (mut header_name, mut header_value) = ("", "");
                let mut fields = 0u8;
                while !header.is_empty() {
                    match varint::take_field(&mut header) {
                        Some((n @ (1 | 2), Wire::Bytes(part))) if text(part).is_ok() && !(strict && fields & (1 << n) != 0) => {
                            fields |= 1 << n;
                            let part = std::str::from_utf8(part).unwrap_or_default();
                            if n == 1 { header_name = part } else { header_value = part }
                        }
                        Some((3.., _)) if !strict => {}
                        _ => return Err(bad(".headers", "has a malformed entry")),
                    }
                }
                event.headers.push((header_name, header_value));
            }
            (6, Wire::Varint(_)) if strict => return Err(bad(".removed", "is set by the server only")),
            (6, Wire::Varint(n)) => {
                event.removed = match n {
                    1 => Removed::Expired,
                    2 => Removed::Redacted,
                    3 => Removed::Compacted,
                    _ => Removed::No,
                }
            }
            (1..=6, _) => return Err(bad("", "has a field of the wrong wire type")),
            (n, _) if strict => return Err(EventProblem { field: "", text: format!("has no field {n}"), unknown: true }),
            _ => {}
        }
    }
    Ok(event)
}

/// The events of an encoded `Events` or `EventBatch`, skipping other fields.
pub struct EventIter<'a> {
    rest: &'a [u8],
}

impl<'a> EventIter<'a> {
    /// Over raw field-15 bytes that have been checked before.
    pub fn over(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next event's encoded field (key, length, content) and its content.
    fn next_raw(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        while !self.rest.is_empty() {
            let before = self.rest;
            match varint::take_field(&mut self.rest)? {
                (EVENTS_FIELD, Wire::Bytes(event)) => return Some((&before[..before.len() - self.rest.len()], event)),
                _ => continue,
            }
        }
        None
    }
}

impl<'a> Iterator for EventIter<'a> {
    type Item = EventRef<'a>;

    fn next(&mut self) -> Option<EventRef<'a>> {
        let (_, content) = self.next_raw()?;
        decode_event(content, false).ok()
    }
}

/// XXH3-128 over the canonical form of events, however they are split into batches.
pub fn fingerprint<'a>(count: u32, events: impl Iterator<Item = EventRef<'a>>) -> u128 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    let number = |hash: &mut xxhash_rust::xxh3::Xxh3, n: usize| hash.update(&(n as u32).to_le_bytes());
    let text = |hash: &mut xxhash_rust::xxh3::Xxh3, t: &[u8]| {
        hash.update(&(t.len() as u32).to_le_bytes());
        hash.update(t);
    };
    number(&mut hash, count as usize);
    for event in events {
        text(&mut hash, event.kind.as_bytes());
        text(&mut hash, event.key.as_bytes());
        number(&mut hash, event.headers.len());
        for (name, value) in &event.headers {
            text(&mut hash, name.as_bytes());
            text(&mut hash, value.as_bytes());
        }
        hash.update(&[event.encoding as u8]);
        text(&mut hash, event.data);
    }
    hash.digest128()
}

/// What the broker says about a batch it stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Offset of the first event.
    pub base_offset: u64,
    /// When.
    pub time: TimeUs,
    /// Of which history.
    pub log_epoch: u64,
    /// By which user.
    pub author_user: u64,
    /// By which source, 0 = none.
    pub author_source: u64,
    /// Data bytes of the stream before this batch.
    pub bytes_before: u64,
}

/// A batch without its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHead {
    /// Offset of the first event.
    pub base_offset: u64,
    /// How many events.
    pub count: u32,
    /// When they were stored.
    pub time: TimeUs,
    /// Of which history.
    pub log_epoch: u64,
    /// By which user.
    pub author_user: u64,
    /// By which source, 0 = none.
    pub author_source: u64,
    /// Data bytes of the stream before this batch.
    pub bytes_before: u64,
    /// Data bytes of this batch.
    pub data_bytes: u32,
    /// Some events were removed.
    pub has_removed: bool,
}

impl BatchHead {
    /// One past the last offset.
    pub fn end(&self) -> u64 {
        self.base_offset + u64::from(self.count)
    }

    /// Data bytes of the stream up to and with this batch.
    pub fn bytes_end(&self) -> u64 {
        self.bytes_before + u64::from(self.data_bytes)
    }
}

/// The JSON form of a batch's events, made at most once (by `wire`) and shared by all JSON readers.
#[derive(Debug, Default)]
pub struct Rendered {
    /// The events, each followed by a comma.
    pub bytes: Bytes,
    /// Where each event's text ends in `bytes`, its comma included.
    pub ends: Vec<u32>,
}

/// A stored batch, verified.
#[derive(Debug)]
pub struct Batch {
    /// Whose.
    pub stream: StreamId,
    /// All but the events.
    pub head: BatchHead,
    value: Bytes,
    rendered: OnceLock<Rendered>,
}

impl Batch {
    /// Takes a stored value back, checking format, CRC and that header and body agree (S-6).
    ///
    /// # Errors
    /// A sentence for the log; the caller turns it into `data_corrupt`.
    pub fn from_stored(stream: StreamId, base_offset: u64, value: Bytes) -> Result<Self, String> {
        let Some((header, body)) = value.split_first_chunk::<HEADER_BYTES>() else {
            return Err(format!("the value has only {} bytes", value.len()));
        };
        let u32_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if header[0] != FORMAT {
            return Err(format!("format {} is not known to this version", header[0]));
        }
        let crc = crc(stream, base_offset, header, body);
        if crc != u32_at(28) {
            return Err(format!("CRC is {crc:08x}, stored {:08x}", u32_at(28)));
        }
        let (count, log_epoch) = (u32_at(4), u64_at(16));
        let mut head = BatchHead {
            base_offset,
            count,
            time: TimeUs(0),
            log_epoch,
            author_user: 0,
            author_source: 0,
            bytes_before: u64_at(8),
            data_bytes: u32_at(24),
            has_removed: header[1] & 1 != 0,
        };
        let (mut base_in_body, mut count_in_body, mut epoch_in_body) = (0, 0, 0);
        let mut rest = body;
        while rest.first().is_some_and(|key| *key != EVENTS_KEY) {
            match varint::take_field(&mut rest) {
                Some((1, Wire::Varint(n))) => base_in_body = n,
                Some((2, Wire::Varint(n))) => count_in_body = n,
                Some((3, Wire::Varint(n))) => head.time = TimeUs(n as i64),
                Some((4, Wire::Varint(n))) => epoch_in_body = n,
                Some((5, Wire::Varint(n))) => head.author_user = n,
                Some((6, Wire::Varint(n))) => head.author_source = n,
                _ => return Err("the body is not an EventBatch".into()),
            }
        }
        if (base_in_body, count_in_body, epoch_in_body) != (base_offset, u64::from(count), log_epoch) || count == 0 {
            return Err("header and body disagree".into());
        }
        Ok(Self { stream, head, value, rendered: OnceLock::new() })
    }

    /// The stored value: header and body.
    pub fn value(&self) -> &Bytes {
        &self.value
    }

    /// The `EventBatch` message.
    pub fn body(&self) -> Bytes {
        self.value.slice(HEADER_BYTES..)
    }

    /// Bytes this batch holds in memory, roughly.
    pub fn memory(&self) -> usize {
        self.value.len() + self.rendered.get().map_or(0, |r| r.bytes.len()) + 200
    }

    /// The events with their offsets.
    pub fn events(&self) -> impl Iterator<Item = (u64, EventRef<'_>)> {
        (self.head.base_offset..).zip(EventIter { rest: &self.value[HEADER_BYTES..] })
    }

    /// The JSON form; `render` makes it when nobody has before.
    pub fn rendered(&self, render: impl FnOnce(&Batch) -> Rendered) -> &Rendered {
        self.rendered.get_or_init(|| render(self))
    }
}

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

/// Reads an `EventBatch` a reader received (client side): no header, no CRC, unknown fields ignored.
///
/// # Errors
/// A sentence when the bytes are not an `EventBatch`.
pub fn received(stream: StreamId, body: &[u8]) -> Result<Batch, String> {
    let mut stamp = Stamp { base_offset: 0, time: TimeUs(0), log_epoch: 0, author_user: 0, author_source: 0, bytes_before: 0 };
    let mut buffer = BytesMut::with_capacity(HEADROOM + body.len());
    buffer.put_bytes(0, HEADROOM);
    let mut events = Events { buffer, count: 0, data_bytes: 0, largest: 0 };
    let mut rest = body;
    while !rest.is_empty() {
        let before = rest;
        match varint::take_field(&mut rest) {
            Some((1, Wire::Varint(n))) => stamp.base_offset = n,
            Some((3, Wire::Varint(n))) => stamp.time = TimeUs(n as i64),
            Some((4, Wire::Varint(n))) => stamp.log_epoch = n,
            Some((5, Wire::Varint(n))) => stamp.author_user = n,
            Some((6, Wire::Varint(n))) => stamp.author_source = n,
            Some((EVENTS_FIELD, Wire::Bytes(content))) => {
                let event = decode_event(content, false).map_err(|p| format!("an event{} {}", p.field, p.text))?;
                events.count += 1;
                events.data_bytes += event.data.len() as u64;
                events.buffer.put_slice(&before[..before.len() - rest.len()]);
            }
            Some(_) => {}
            None => return Err("not an EventBatch".into()),
        }
    }
    if events.count == 0 {
        return Err("an EventBatch without events".into());
    }
    Ok(events.stamp(stream, stamp))
}

/// Writes the server's fields of an `EventBatch`; zero values are left out, as protobuf does.
fn write_prefix(out: &mut [u8; HEADROOM - HEADER_BYTES], stamp: &Stamp, count: u32) -> usize {
    let room = out.len();
    let mut rest = &mut out[..];
    let fields = [
        (1u8, stamp.base_offset),
        (2, u64::from(count)),
        (3, stamp.time.0 as u64),
        (4, stamp.log_epoch),
        (5, stamp.author_user),
        (6, stamp.author_source),
    ];
    for (number, value) in fields {
        if value != 0 {
            rest.put_u8(number << 3);
            varint::put(&mut rest, value);
        }
    }
    room - rest.len()
}

fn encode_header(stream: StreamId, head: &BatchHead, body: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0u8; HEADER_BYTES];
    header[0] = FORMAT;
    header[1] = u8::from(head.has_removed);
    header[4..8].copy_from_slice(&head.count.to_le_bytes());
    header[8..16].copy_from_slice(&head.bytes_before.to_le_bytes());
    header[16..24].copy_from_slice(&head.log_epoch.to_le_bytes());
    header[24..28].copy_from_slice(&head.data_bytes.to_le_bytes());
    let crc = crc(stream, head.base_offset, &header, body);
    header[28..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// CRC-32C over the key, the header without its CRC field, and the body.
fn crc(stream: StreamId, base_offset: u64, header: &[u8; HEADER_BYTES], body: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&stream.0.to_be_bytes());
    digest.update(&base_offset.to_be_bytes());
    digest.update(&header[..28]);
    digest.update(body);
    digest.finalize() as u32
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
