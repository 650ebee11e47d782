//! The one JSON form of an event: `offset, time, log_epoch, type, key, headers, data, encoding, size, author`, in this order,
//! always present. Made at most once per batch and shared by all JSON readers.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::object::{self, Object};
use super::write;
use crate::types::batch::{self, BatchHead, Rendered, Stamp};
use crate::types::{Batch, Encoding, Error, EventRef, EventsBuilder, Slice, StreamId, TimeUs, limits};
use crate::wire::convert;

/// What the events of one batch have in common, written once.
struct Common {
    /// `,"time":"…","log_epoch":…,"type":`
    before_type: Vec<u8>,
    /// `,"author":{…}}`
    author: Vec<u8>,
}

impl Common {
    fn of(head: &BatchHead) -> Self {
        let mut before_type = b",\"time\":\"".to_vec();
        before_type.extend_from_slice(head.time.to_string().as_bytes());
        before_type.extend_from_slice(b"\",\"log_epoch\":");
        write::number(&mut before_type, head.log_epoch);
        before_type.extend_from_slice(b",\"type\":");
        let mut author = b",\"author\":{\"user_id\":".to_vec();
        write::number(&mut author, head.author_user);
        author.extend_from_slice(b",\"source_id\":");
        write::number_or_null(&mut author, Some(head.author_source).filter(|id| *id != 0));
        author.extend_from_slice(b"}}");
        Self { before_type, author }
    }

    fn event(&self, out: &mut Vec<u8>, offset: u64, event: &EventRef<'_>) {
        out.reserve(event.data.len() + 200);
        out.extend_from_slice(b"{\"offset\":");
        write::number(out, offset);
        out.extend_from_slice(&self.before_type);
        write::string(out, event.kind);
        out.extend_from_slice(b",\"key\":");
        write::string(out, event.key);
        out.extend_from_slice(b",\"headers\":{");
        for (i, (name, value)) in event.headers.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            write::string(out, name);
            out.push(b':');
            write::string(out, value);
        }
        out.extend_from_slice(b"},\"data\":");
        write_data(out, event);
        out.extend_from_slice(b",\"encoding\":\"");
        out.extend_from_slice(event.encoding.as_str().as_bytes());
        out.extend_from_slice(b"\",\"size\":");
        write::number(out, event.data.len() as u64);
        out.extend_from_slice(&self.author);
    }
}

/// `data` in the form its encoding asks for. JSON is pasted as it was sent: the door has seen that it is one JSON value.
fn write_data(out: &mut Vec<u8>, event: &EventRef<'_>) {
    match event.encoding {
        // Removed events have no data.
        Encoding::Json if event.data.is_empty() => out.extend_from_slice(b"null"),
        Encoding::Json => out.extend_from_slice(event.data),
        Encoding::Utf8 => write::string(out, &String::from_utf8_lossy(event.data)),
        Encoding::Binary => {
            out.push(b'"');
            let start = out.len();
            out.resize(start + event.data.len().div_ceil(3) * 4, 0);
            let written = BASE64.encode_slice(event.data, &mut out[start..]).expect("four characters for every three bytes");
            out.truncate(start + written);
            out.push(b'"');
        }
    }
}

/// Writes one event of the batch `head`. Raw line ends inside JSON data stay; see [`single_line`].
pub fn event_json(out: &mut Vec<u8>, head: &BatchHead, offset: u64, event: &EventRef<'_>) {
    Common::of(head).event(out, offset, event);
}

/// Writes the events of all slices with commas between them, without brackets. Each batch is rendered at most once in its life,
/// unless only a small part of it is wanted.
pub fn events_json(out: &mut Vec<u8>, slices: &[Slice]) {
    let begin = out.len();
    for slice in slices {
        match shared(slice) {
            Some((rendered, range)) => out.extend_from_slice(&rendered.bytes[range]),
            None => {
                let common = Common::of(&slice.batch().head);
                for (offset, event) in slice.events() {
                    common.event(out, offset, &event);
                    out.push(b',');
                }
            }
        }
    }
    if out.len() > begin {
        out.pop();
    }
}

/// Hands out the events of all slices one by one, each in its JSON form. Rendered and shared as by [`events_json`].
pub fn each_event_json(slices: &[Slice], mut hand_out: impl FnMut(u64, &[u8])) {
    let mut own = Vec::new();
    for slice in slices {
        match shared(slice) {
            Some((rendered, range)) => {
                let mut begin = range.start;
                for offset in slice.from()..slice.to() {
                    let end = end_of(rendered, &slice.batch().head, offset + 1);
                    hand_out(offset, &rendered.bytes[begin..end - 1]); // a comma ends each
                    begin = end;
                }
            }
            None => {
                let common = Common::of(&slice.batch().head);
                for (offset, event) in slice.events() {
                    own.clear();
                    common.event(&mut own, offset, &event);
                    hand_out(offset, &own);
                }
            }
        }
    }
}

/// The batch's one rendering, and where the slice stands in it. `None` when too small a part is wanted: rendering a large batch for
/// a few of its events would keep the text of all of them in memory.
fn shared(slice: &Slice) -> Option<(&Rendered, Range<usize>)> {
    let head = &slice.batch().head;
    if slice.count() * 8 < u64::from(head.count) {
        return None;
    }
    let rendered = slice.batch().rendered(render);
    Some((rendered, end_of(rendered, head, slice.from())..end_of(rendered, head, slice.to())))
}

/// Where the events before `offset` end.
fn end_of(rendered: &Rendered, head: &BatchHead, offset: u64) -> usize {
    match offset.checked_sub(head.base_offset + 1) {
        None => 0,
        Some(index) => rendered.ends.get(index as usize).map_or(rendered.bytes.len(), |end| *end as usize),
    }
}

/// The JSON form of a batch.
fn render(batch: &Batch) -> Rendered {
    let common = Common::of(&batch.head);
    let mut out = Vec::with_capacity(batch.value().len() + batch.head.count as usize * 200);
    let mut ends = Vec::with_capacity(batch.head.count as usize);
    for (offset, event) in batch.events() {
        common.event(&mut out, offset, &event);
        out.push(b',');
        ends.push(out.len() as u32);
    }
    Rendered { bytes: Bytes::from(out), ends }
}

/// An event's JSON on one line, for NDJSON and Server-Sent Events: raw line ends, which only occur as white space inside JSON
/// data, become spaces.
pub fn single_line(event: &[u8]) -> Cow<'_, [u8]> {
    let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
    if !event.iter().any(is_end) {
        return Cow::Borrowed(event);
    }
    Cow::Owned(event.iter().map(|b| if is_end(b) { b' ' } else { *b }).collect())
}

/// Adds one appended event, `{"type"?,"key"?,"headers"?,"data","encoding"?}`, to `builder`. `path` is where it stands.
pub(super) fn push_event(builder: &mut EventsBuilder, path: &str, raw: &str) -> Result<(), Error> {
    // Errors of the builder say `events[i]`; here they say where the event stands in the request.
    let own = format!("events[{}]", builder.len());
    let mut o = Object::parse(path, raw)?;
    let kind = o.text_if("type")?.unwrap_or_default();
    let key = o.text_if("key")?.unwrap_or_default();
    let headers = o.take("headers").map(|raw| read_headers(&o.at("headers"), raw)).transpose()?.unwrap_or_default();
    let encoding = o.word_if("encoding", Encoding::parse, "json, utf8, base64")?.unwrap_or_default();
    let at = o.at("data");
    // `null` is a JSON value like any other.
    let raw = o.peek("data").ok_or_else(|| convert::missing(&at))?;
    o.take("data");
    o.finish()?;
    let headers = headers.iter().map(|(n, v)| (&**n, &**v)).collect();
    let head = EventRef { kind: &kind, key: &key, headers, encoding, ..EventRef::default() };
    let pushed = match encoding {
        Encoding::Json => builder.push_json(&head, raw),
        Encoding::Utf8 => builder.push(&EventRef { data: object::string(&at, raw.get())?.as_bytes(), ..head }),
        Encoding::Binary => {
            let text = object::string(&at, raw.get())?;
            let data = BASE64.decode(text.as_bytes()).map_err(|e| Error::bad(&at, format!("{at} says base64 but is not: {e}.")))?;
            builder.push(&EventRef { data: &data, ..head })
        }
    };
    pushed.map_err(|e| if path == own { e } else { relocate(e, &own, path) })
}

fn bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(t) => Cow::Borrowed(t.as_bytes()),
        Cow::Owned(t) => Cow::Owned(t.into_bytes()),
    }
}

/// Puts `path` in the place of `own` in the message and the field of an error.
fn relocate(mut error: Error, own: &str, path: &str) -> Error {
    error.message = error.message.replacen(own, path, 1);
    let field = match error.details.get("field").and_then(|f| f.as_str()) {
        // About all of them: one too many.
        Some("events") => path[..path.rfind('[').unwrap_or(path.len())].to_owned(),
        Some(field) => field.replacen(own, path, 1),
        None => return error,
    };
    error.detail("field", field)
}

type Pairs<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

fn read_headers<'a>(path: &str, raw: &'a RawValue) -> Result<Pairs<'a>, Error> {
    let mut headers: Pairs<'a> = Vec::new();
    object::each_member(path, raw.get(), |name, value| {
        // One more than allowed is enough for the builder to refuse them all; more are only memory.
        if headers.len() <= limits::EVENT_HEADERS {
            let value = object::string(&object::join(path, &name), value.get())?;
            headers.push((name, value));
        }
        Ok(())
    })?;
    Ok(headers)
}

/// Writes one appended event, so that the broker reads the same event back.
pub(super) fn write_appended(out: &mut Vec<u8>, event: &EventRef<'_>) {
    let mut o = write::Members::begin(out);
    if !event.kind.is_empty() {
        o.text("type", event.kind);
    }
    if !event.key.is_empty() {
        o.text("key", event.key);
    }
    if !event.headers.is_empty() {
        let mut headers = write::Members::begin(o.name("headers"));
        for (name, value) in &event.headers {
            // Unlike names of ours, these may need escapes.
            let mut quoted = Vec::new();
            write::string(&mut quoted, name);
            let inner = &quoted[1..quoted.len() - 1];
            headers.text(&String::from_utf8_lossy(inner), value);
        }
        headers.end();
    }
    write_data(o.name("data"), event);
    if event.encoding != Encoding::Json {
        o.text("encoding", event.encoding.as_str());
    }
    o.end();
}

/// An event as a client receives it; unknown fields are ignored.
#[derive(Deserialize)]
struct Received<'a> {
    offset: u64,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(default)]
    log_epoch: u64,
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    key: Cow<'a, str>,
    #[serde(borrow, default)]
    headers: Option<&'a RawValue>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow, default)]
    encoding: Option<Cow<'a, str>>,
    #[serde(default)]
    author: Author,
}

#[derive(Deserialize, Default, PartialEq, Clone, Copy)]
struct Author {
    #[serde(default)]
    user_id: u64,
    #[serde(default)]
    source_id: Option<u64>,
}

/// Reads events that a client received, as an array of events in their one JSON form: neighbours with the same time, author and
/// history become one batch. The stream's id is 0: events do not say it.
///
/// # Errors
/// A sentence when the text is not such an array.
pub fn received_events(text: &str) -> Result<Vec<Slice>, String> {
    let events: Vec<Received<'_>> = serde_json::from_str(text).map_err(|e| object::why(&e))?;
    let mut slices = Vec::new();
    let mut rest = &events[..];
    while let Some(first) = rest.first() {
        let same = |(i, e): &(usize, &Received<'_>)| {
            e.offset == first.offset.wrapping_add(*i as u64) && e.time == first.time && e.log_epoch == first.log_epoch && e.author == first.author
        };
        let count = rest.iter().enumerate().take_while(same).count().min(limits::BATCH_MAX_EVENTS);
        let (run, after) = rest.split_at(count);
        rest = after;
        let mut builder = EventsBuilder::default();
        for event in run {
            push_received(&mut builder, event)?;
        }
        let stamp = Stamp {
            base_offset: first.offset,
            time: TimeUs::parse(&first.time).map_err(|e| e.message.clone())?,
            log_epoch: first.log_epoch,
            author_user: first.author.user_id,
            author_source: first.author.source_id.unwrap_or(0),
            bytes_before: 0,
        };
        let events = builder.finish().map_err(|e| e.message.clone())?;
        if !batch::has_room(stamp.base_offset, events.count()) {
            return Err(format!("events from {} on go beyond the last offset", stamp.base_offset));
        }
        let batch = Arc::new(events.stamp(StreamId(0), stamp));
        let range = batch.head.base_offset..batch.head.end();
        slices.extend(Slice::of(batch, range));
    }
    Ok(slices)
}

fn push_received(builder: &mut EventsBuilder, event: &Received<'_>) -> Result<(), String> {
    let encoding = match event.encoding.as_deref() {
        None => Encoding::Json,
        Some(word) => Encoding::parse(word).ok_or_else(|| format!("event {} has an unknown encoding", event.offset))?,
    };
    let text = || object::string("data", event.data.get()).map_err(|e| e.message.clone());
    let data: Cow<'_, [u8]> = match encoding {
        Encoding::Json => Cow::Borrowed(event.data.get().as_bytes()),
        Encoding::Utf8 => bytes(text()?),
        Encoding::Binary => Cow::Owned(BASE64.decode(text()?.as_bytes()).map_err(|e| format!("event {}: {e}", event.offset))?),
    };
    let headers = event.headers.map(|raw| read_headers("headers", raw)).transpose().map_err(|e| e.message.clone())?.unwrap_or_default();
    let event = EventRef {
        data: &data,
        encoding,
        kind: &event.kind,
        key: &event.key,
        headers: headers.iter().map(|(n, v)| (&**n, &**v)).collect(),
        removed: Default::default(),
    };
    builder.push(&event).map_err(|e| e.message.clone())
}
