//! Events that have no offsets yet: the checks at the door, and the place that `stamp` gives them.

use std::sync::OnceLock;

use bytes::{BufMut, BytesMut};

use super::codec::{EventIter, check_depth, check_json, decode_event, fingerprint, put_event};
use super::stored::{Batch, BatchHead, Stamp, encode_header, write_prefix};
use super::{EVENTS_FIELD, EVENTS_KEY, HEADER_BYTES, HEADROOM};
use crate::types::error::{Code, Error};
use crate::types::event::{Encoding, EventRef};
use crate::types::id::StreamId;
use crate::types::varint::{self, Wire};
use crate::types::{limits, name};

/// Events that wait for their offsets: well formed, within the limits, in wire form.
#[derive(Clone)]
pub struct Events {
    /// `HEADROOM` unused bytes, then the fields 15.
    pub(super) buffer: BytesMut,
    pub(super) count: u32,
    pub(super) data_bytes: u64,
    pub(super) largest: usize,
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
            match varint::take_field(&mut rest) {
                Some((EVENTS_FIELD, Wire::Bytes(event))) => {
                    builder.check(event)?;
                    // Key and length may have been written longer than they need be. Stored they are as short as can be: by its first byte
                    // the key is told from the server's fields.
                    let buffer = &mut builder.events.buffer;
                    buffer.put_u8(EVENTS_KEY);
                    varint::put(buffer, event.len() as u64);
                    buffer.put_slice(event);
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
    Error::new(Code::BadParameter, format!("events[{index}] is not a protobuf Event.")).detail("field", format!("events[{index}]"))
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
            Err(Error::new(Code::TooLarge, format!("{} is {size} bytes; the limit is {limit}.", at(field)))
                .detail("field", at(field))
                .detail("limit", limit as u64))
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
            Encoding::Json => if parsed { check_depth(event.data) } else { check_json(event.data) }
                .map_err(|why| Error::bad(&at("data"), format!("{} is not one JSON value: {why}.", at("data"))))?,
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
