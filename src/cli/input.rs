//! Lines of stdin into batches. A thread reads; a batch is what came in one go, up to about 64 KiB, so that a slow
//! writer's line leaves at once and a fast one's lines leave together.

use std::io::{BufRead, BufReader, Read};

use clap::ValueEnum;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::failure::{Failure, Outcome};
use crate::client::NewEvent;
use crate::types::name::{clipped, quote};
use crate::types::{Encoding, Events, EventsBuilder, limits};

/// How a line becomes an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The line is text, even if it parses as JSON.
    #[default]
    Text,
    /// The line is one JSON value.
    Json,
    /// The line is an event object: type, key, headers, data, encoding. Lines of `sub --json` fit.
    Event,
    /// The line is any bytes.
    Bytes,
}

/// What the options say about every event.
#[derive(Clone, Debug, Default)]
pub struct Template {
    /// How a line becomes an event.
    pub format: Format,
    /// `--type`.
    pub kind: String,
    /// `--key`.
    pub key: String,
    /// `--header`.
    pub headers: Vec<(String, String)>,
}

impl Template {
    /// One event.
    ///
    /// # Errors
    /// A sentence that can follow "Line 3": what is wrong with it.
    pub fn event(&self, line: &[u8]) -> Result<NewEvent, String> {
        let mut event = match self.format {
            Format::Text => {
                let text = std::str::from_utf8(line)
                    .map_err(|e| format!("is not valid UTF-8 at byte {}; use --format bytes to send it as it is.", e.valid_up_to()))?;
                NewEvent::text(text)
            }
            Format::Json => NewEvent { encoding: Encoding::Json, ..NewEvent::binary(line.to_vec()) },
            Format::Bytes => NewEvent::binary(line.to_vec()),
            Format::Event => parse_event(line)?,
        };
        if event.kind.is_empty() {
            event.kind.clone_from(&self.kind);
        }
        if event.key.is_empty() {
            event.key.clone_from(&self.key);
        }
        for (name, value) in &self.headers {
            if !event.headers.iter().any(|(n, _)| n == name) {
                event.headers.push((name.clone(), value.clone()));
            }
        }
        Ok(event)
    }
}

/// An event object as the broker prints and takes it. Fields that only the broker sets are read and dropped, so that
/// what `sub --json` printed can be sent again.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventObject<'a> {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    key: String,
    #[serde(default)]
    headers: Headers,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(default)]
    encoding: Option<String>,
    #[serde(default, rename = "stream")]
    _stream: serde::de::IgnoredAny,
    #[serde(default, rename = "offset")]
    _offset: serde::de::IgnoredAny,
    #[serde(default, rename = "time")]
    _time: serde::de::IgnoredAny,
    #[serde(default, rename = "log_epoch")]
    _log_epoch: serde::de::IgnoredAny,
    #[serde(default, rename = "size")]
    _size: serde::de::IgnoredAny,
    #[serde(default, rename = "author")]
    _author: serde::de::IgnoredAny,
}

/// Pairs in the order they were written.
#[derive(Default)]
struct Headers(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> serde::de::Visitor<'de> for Pairs {
            type Value = Headers;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of strings")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Headers(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

fn parse_event(line: &[u8]) -> Result<NewEvent, String> {
    let text = std::str::from_utf8(line).map_err(|e| format!("is not valid UTF-8 at byte {}.", e.valid_up_to()))?;
    let object: EventObject<'_> = serde_json::from_str(text).map_err(|e| format!("is not an event object: {}.", clipped(&e.to_string(), 200)))?;
    let as_text = || serde_json::from_str::<String>(object.data.get()).map_err(|_| "has data that is not a string, which its encoding asks for.".to_owned());
    let encoding = object.encoding.as_deref().unwrap_or("json");
    let encoding = Encoding::parse(encoding).ok_or_else(|| format!("has encoding {}; it is json, utf8 or base64.", quote(encoding)))?;
    let data = match encoding {
        Encoding::Json => object.data.get().as_bytes().to_vec(),
        Encoding::Utf8 => as_text()?.into_bytes(),
        Encoding::Binary => base64(&as_text()?).ok_or("has data that is not base64.")?,
    };
    Ok(NewEvent { data: data.into(), encoding, kind: object.kind, key: object.key, headers: object.headers.0 })
}

/// Lines that go to the broker as one batch.
pub struct Chunk {
    /// The events.
    pub events: Events,
    /// How many lines of the input are done with it, skipped ones included.
    pub lines_done: u64,
}

/// Target size of a batch.
const CHUNK_BYTES: usize = 64 * 1024;
/// Lines of one batch; less than the broker takes.
const CHUNK_LINES: usize = 2000;

/// Reads lines in a thread of its own. The first `skip` lines are passed over. Bounded: a full channel stops the reading.
pub fn lines(input: impl Read + Send + 'static, template: Template, skip: u64) -> mpsc::Receiver<Outcome<Chunk>> {
    let (to, from) = mpsc::channel(4);
    std::thread::spawn(move || {
        let outcome = read(BufReader::with_capacity(CHUNK_BYTES, input), &template, skip, |chunk| to.blocking_send(Ok(chunk)).is_ok());
        if let Err(failure) = outcome {
            let _ = to.blocking_send(Err(failure));
        }
    });
    from
}

/// The loop of [`lines`]; `send` says whether anybody still listens.
fn read(mut input: BufReader<impl Read>, template: &Template, skip: u64, mut send: impl FnMut(Chunk) -> bool) -> Outcome {
    let mut builder = EventsBuilder::with_capacity(CHUNK_BYTES);
    let (mut number, mut line) = (0u64, Vec::new());
    loop {
        let more_at_hand = input.buffer().contains(&b'\n');
        if !builder.is_empty() && (!more_at_hand || builder.encoded_len() >= CHUNK_BYTES || builder.len() >= CHUNK_LINES) {
            let events = std::mem::take(&mut builder).finish()?;
            if !send(Chunk { events, lines_done: number }) {
                return Ok(());
            }
        }
        line.clear();
        // One byte over the limit is enough to know that the line is too long; a line without end must not fill memory.
        let read = input.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line)?;
        if read == 0 {
            return if builder.is_empty() { Ok(()) } else { finish(builder, number, &mut send) };
        }
        number += 1;
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if line.len() > MAX_LINE {
            flush_then(builder, number - 1, &mut send)?;
            return Err(Failure::failed(format!("Line {number} is longer than {MAX_LINE} bytes. Everything before it was sent.")));
        }
        if number <= skip {
            continue;
        }
        let pushed = template.event(&line).and_then(|event| builder.push(&event.as_ref()).map_err(|e| format!("was refused: {}", e.message)));
        if let Err(why) = pushed {
            flush_then(builder, number - 1, &mut send)?;
            return Err(Failure::failed(format!("Line {number} {why} Everything before it was sent.")));
        }
    }
}

fn finish(builder: EventsBuilder, lines_done: u64, send: &mut impl FnMut(Chunk) -> bool) -> Outcome {
    send(Chunk { events: builder.finish()?, lines_done });
    Ok(())
}

fn flush_then(builder: EventsBuilder, lines_done: u64, send: &mut impl FnMut(Chunk) -> bool) -> Outcome {
    if builder.is_empty() { Ok(()) } else { finish(builder, lines_done, send) }
}

/// Longest line: an event object around the largest data, which JSON may write twice as long.
const MAX_LINE: usize = 2 * limits::EVENT_MAX_BYTES + 64 * 1024;

/// Standard base64, padded.
fn base64(text: &str) -> Option<Vec<u8>> {
    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(input: &str, template: Template, skip: u64) -> (Vec<(Vec<String>, u64)>, Option<String>) {
        let mut chunks = Vec::new();
        let outcome = read(BufReader::new(input.as_bytes()), &template, skip, |chunk| {
            chunks.push((chunk.events.iter().map(|e| String::from_utf8_lossy(e.data).into_owned()).collect(), chunk.lines_done));
            true
        });
        let failure = outcome.err().map(|f| match f {
            Failure::Failed(text) => text,
            other => format!("{other:?}"),
        });
        (chunks, failure)
    }

    #[test]
    fn lines_at_hand_travel_together_and_the_last_needs_no_line_end() {
        let (chunks, failure) = chunks("a\n\nb\r\nlast", Template::default(), 0);
        let all: Vec<String> = chunks.iter().flat_map(|(lines, _)| lines.clone()).collect();
        assert_eq!(all, ["a", "", "b\r", "last"]);
        assert_eq!(chunks.last().unwrap().1, 4);
        assert_eq!(failure, None);
    }

    #[test]
    fn lines_that_are_stored_already_are_skipped_by_number() {
        let (chunks, _) = chunks("0\n1\n2\n3\n", Template::default(), 2);
        let all: Vec<String> = chunks.iter().flat_map(|(lines, _)| lines.clone()).collect();
        assert_eq!(all, ["2", "3"]);
        assert_eq!(chunks.last().unwrap().1, 4);
    }

    #[test]
    fn a_bad_line_is_named_and_those_before_it_are_sent() {
        let template = Template { format: Format::Json, ..Template::default() };
        let (chunks, failure) = chunks("1\n{\"a\":2}\nnope\n4\n", template, 0);
        let all: Vec<String> = chunks.iter().flat_map(|(lines, _)| lines.clone()).collect();
        assert_eq!(all, ["1", "{\"a\":2}"]);
        assert!(failure.unwrap().starts_with("Line 3 "));
    }

    #[test]
    fn event_objects_keep_headers_in_order_and_options_fill_what_is_missing() {
        let template = Template { format: Format::Event, kind: "t".into(), key: "k".into(), headers: vec![("z".into(), "0".into())] };
        let event = template.event(br#"{"key":"own","headers":{"z":"1","a":"2"},"data":{"n": 1},"offset":7,"stream":"s"}"#).unwrap();
        assert_eq!((event.kind.as_str(), event.key.as_str()), ("t", "own"));
        assert_eq!(event.headers, [("z".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())]);
        assert_eq!(&event.data[..], br#"{"n": 1}"#);
        assert!(template.event(br#"{"data":1,"dta":2}"#).unwrap_err().contains("dta"));
        assert!(template.event(br#"{"data":1,"encoding":"utf8"}"#).is_err());
    }
}
