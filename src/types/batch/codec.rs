//! One event as bytes: written as field 15, read back strictly at the door or leniently later, hashed in canonical form.

use bytes::{BufMut, BytesMut};

use super::{EVENTS_FIELD, EVENTS_KEY};
use crate::types::event::{Encoding, EventRef, Removed};
use crate::types::limits;
use crate::types::varint::{self, Wire};

/// Is this the text of exactly one JSON value, valid UTF-8, at most [`limits::JSON_DEPTH`] deep? Bytes are not changed.
pub fn check_json(data: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(data).map_err(|e| format!("invalid UTF-8 at byte {}", e.valid_up_to()))?;
    check_depth(data)?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(drop).map_err(|e| e.to_string())
}

/// Is this JSON at most [`limits::JSON_DEPTH`] deep?
pub(super) fn check_depth(data: &[u8]) -> Result<(), String> {
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
pub(super) fn put_event(out: &mut BytesMut, event: &EventRef<'_>) {
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

pub(super) struct EventProblem {
    pub(super) field: &'static str,
    pub(super) text: String,
    pub(super) unknown: bool,
}

/// Reads one `Event`. `strict` is the door: no `removed`, no unknown or repeated singular field, no unknown enum value.
pub(super) fn decode_event(mut bytes: &[u8], strict: bool) -> Result<EventRef<'_>, EventProblem> {
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
                // One more than allowed is enough for the builder to refuse them all; more are only memory.
                if !strict || event.headers.len() <= limits::EVENT_HEADERS {
                    event.headers.push((header_name, header_value));
                }
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
    pub(super) rest: &'a [u8],
}

impl<'a> EventIter<'a> {
    /// Over raw field-15 bytes that have been checked before.
    pub fn over(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next event's encoded field (key, length, content) and its content.
    pub(super) fn next_raw(&mut self) -> Option<(&'a [u8], &'a [u8])> {
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
