//! What REST calls send: appends and commits as JSON, and events as NDJSON. The same readers as the frames.

use serde_json::value::RawValue;

use super::client;
use super::event;
use super::object::{self, Object};
use crate::types::request::{CommitRequest, ProducerStamp};
use crate::types::{Error, EventRef, Events, EventsBuilder, StreamId};

/// The body of `POST /v1/streams/{name}/events` (`application/json`).
#[derive(Debug)]
pub struct AppendBody {
    /// One or more events.
    pub events: Events,
    /// Append only if this is the offset the first event would get.
    pub expected_next_offset: Option<u64>,
    /// Exactly-once identity.
    pub producer: Option<ProducerStamp>,
    /// Refuse with `stream_replaced` if the name means another stream by now.
    pub stream_id: Option<StreamId>,
}

/// Reads `{"events":[…],"expected_next_offset"?,"producer"?,"stream_id"?}`.
///
/// # Errors
/// `json_parsing_failed`, `unknown_field`, `bad_parameter` or `too_large`, naming the field.
pub fn parse_append_body(body: &[u8]) -> Result<AppendBody, Error> {
    let mut o = Object::parse("", object::text(body)?)?;
    let read = AppendBody {
        expected_next_offset: o.number_if("expected_next_offset")?,
        producer: o.stamp()?,
        stream_id: o.stream_id()?,
        events: client::events(&mut o)?,
    };
    o.finish()?;
    Ok(read)
}

/// [`parse_append_body`] for callers without a use for `stream_id`, which is an unknown field then: events, expected_next_offset,
/// producer.
///
/// # Errors
/// As [`parse_append_body`].
pub fn parse_append_json(body: &[u8]) -> Result<(Events, Option<u64>, Option<ProducerStamp>), Error> {
    let read = parse_append_body(body)?;
    match read.stream_id {
        Some(_) => Err(crate::wire::convert::unknown("stream_id", ["events", "expected_next_offset", "producer"].into_iter())),
        None => Ok((read.events, read.expected_next_offset, read.producer)),
    }
}

/// Reads the body of `POST /v1/commit`: a commit frame without `t` and `req`.
///
/// # Errors
/// As [`parse_append_body`].
pub fn parse_commit_json(body: &[u8]) -> Result<CommitRequest, Error> {
    client::commit_request(Object::parse("", object::text(body)?)?)
}

/// Reads one event object, or an array of them.
///
/// # Errors
/// As [`parse_append_body`].
pub fn parse_events_json(body: &[u8]) -> Result<Events, Error> {
    let text = object::text(body)?;
    let mut builder = EventsBuilder::with_capacity(text.len());
    if text.trim_ascii_start().starts_with('[') {
        object::each_item("events", text, |i, item| event::push_event(&mut builder, &format!("events[{i}]"), item.get()))?;
    } else {
        whole(text)?;
        event::push_event(&mut builder, "events[0]", text)?;
    }
    builder.finish()
}

/// What a line of NDJSON is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// An event object.
    Events,
    /// The JSON data of an event (`?lines=data`).
    Data,
}

/// Reads NDJSON: one event per line; blank lines are skipped. `details.field` counts events, blank lines not included, from 0;
/// `details.line` counts the lines of the body, blank ones included, from 1.
///
/// # Errors
/// As [`parse_append_body`], with the line, and the byte in it where that is known.
pub fn parse_ndjson(body: &[u8], lines: Lines) -> Result<Events, Error> {
    let mut reader = NdjsonReader::new(body, lines);
    while reader.step()? {}
    reader.finish()
}

/// [`parse_ndjson`] in steps, for a caller that lets others have the thread in between.
pub struct NdjsonReader<'a> {
    numbered: Box<dyn Iterator<Item = (usize, &'a [u8])> + Send + 'a>,
    lines: Lines,
    builder: EventsBuilder,
}

/// Lines of one step: some ten microseconds of usual ones.
const STEP_LINES: usize = 64;
/// Bytes of one step, unless a single line has more.
const STEP_BYTES: usize = 64 * 1024;

impl<'a> NdjsonReader<'a> {
    /// Reads nothing yet.
    pub fn new(body: &'a [u8], lines: Lines) -> Self {
        Self { numbered: Box::new(numbered_lines(body)), lines, builder: EventsBuilder::with_capacity(body.len()) }
    }

    /// Reads some lines more. False when there are none left.
    ///
    /// # Errors
    /// As [`parse_ndjson`].
    pub fn step(&mut self) -> Result<bool, Error> {
        let mut bytes = 0;
        for _ in 0..STEP_LINES {
            let Some((number, line)) = self.numbered.next() else { return Ok(false) };
            if !is_blank(line) {
                let pushed = match self.lines {
                    Lines::Events => push_event_line(&mut self.builder, line),
                    Lines::Data => push_data_line(&mut self.builder, line),
                };
                pushed.map_err(|why| in_line(why, number))?;
            }
            bytes += line.len();
            if bytes >= STEP_BYTES {
                break;
            }
        }
        Ok(true)
    }

    /// The events of all lines read.
    ///
    /// # Errors
    /// As [`parse_ndjson`]: there is none.
    pub fn finish(self) -> Result<Events, Error> {
        self.builder.finish()
    }
}

/// All lines, from 1.
fn numbered_lines(body: &[u8]) -> impl Iterator<Item = (usize, &[u8])> + Send {
    (1..).zip(body.split(|b| *b == b'\n'))
}

fn is_blank(line: &[u8]) -> bool {
    line.trim_ascii().is_empty()
}

/// An error about one event of an NDJSON body that was found later: says in which line that event stands.
pub fn in_its_line(why: Error, body: &[u8]) -> Error {
    let field = why.details.get("field").and_then(|field| field.as_str()).unwrap_or_default();
    let index = field.strip_prefix("events[").and_then(|rest| rest.split(']').next()).and_then(|n| n.parse::<usize>().ok());
    match index.and_then(|index| numbered_lines(body).filter(|(_, line)| !is_blank(line)).nth(index)) {
        Some((number, _)) => in_line(why, number),
        None => why,
    }
}

fn in_line(mut why: Error, number: usize) -> Error {
    // The parser saw one line and calls it the first.
    if let Some(column) = why.details.get("column").and_then(|column| column.as_u64()) {
        why.message = why.message.replace(&format!(" at line 1 column {column}"), &format!(" at column {column}"));
    }
    why.message = format!("Line {number}: {}", why.message);
    why.detail("line", number)
}

/// Adds a line that is an event object.
///
/// # Errors
/// As [`parse_append_body`], with `events[n]` for the n-th event of `builder`. The builder is unchanged then.
pub fn push_event_line(builder: &mut EventsBuilder, line: &[u8]) -> Result<(), Error> {
    let path = format!("events[{}]", builder.len());
    let text = object::text(line).and_then(|text| whole(text).map(|()| text)).map_err(|e| e.detail("field", path.clone()))?;
    event::push_event(builder, &path, text)
}

/// Adds a line that is the JSON data of an event.
///
/// # Errors
/// As [`push_event_line`].
pub fn push_data_line(builder: &mut EventsBuilder, line: &[u8]) -> Result<(), Error> {
    let at = |e: Error, builder: &EventsBuilder| e.detail("field", format!("events[{}].data", builder.len()));
    let text = object::text(line).map_err(|e| at(e, builder))?;
    let data = serde_json::from_str::<&RawValue>(text).map_err(|e| at(object::syntax(&e), builder))?;
    builder.push_json(&EventRef::default(), data)
}

/// Is this one JSON value? Asked where the text is the caller's own, so that bad syntax is told from a bad value.
fn whole(text: &str) -> Result<(), Error> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(drop).map_err(|e| object::syntax(&e))
}
