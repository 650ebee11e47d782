//! The stored batch: header, CRC, `EventBatch`; verified whenever it is read (S-6).

use std::sync::OnceLock;

use bytes::{BufMut, Bytes, BytesMut};

use super::codec::{EventIter, decode_event};
use super::events::Events;
use super::{EVENTS_FIELD, EVENTS_KEY, FORMAT, HEADER_BYTES, HEADROOM};
use crate::types::event::EventRef;
use crate::types::id::StreamId;
use crate::types::time::TimeUs;
use crate::types::varint::{self, Wire};

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
    pub(super) value: Bytes,
    pub(super) rendered: OnceLock<Rendered>,
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
        if !has_room(base_offset, count) || head.bytes_before.checked_add(u64::from(head.data_bytes)).is_none() {
            return Err("its offsets or bytes go beyond the last number".into());
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

    /// The events with their offsets: as many as the head counts, whatever follows.
    pub fn events(&self) -> impl Iterator<Item = (u64, EventRef<'_>)> {
        (self.head.base_offset..).zip(EventIter { rest: &self.value[HEADER_BYTES..] }).take(self.head.count as usize)
    }

    /// The JSON form; `render` makes it when nobody has before.
    pub fn rendered(&self, render: impl FnOnce(&Batch) -> Rendered) -> &Rendered {
        self.rendered.get_or_init(|| render(self))
    }
}

/// Do so many events have offsets from `base` on, and one after them? No broker gives out others; bytes may say anything.
pub fn has_room(base: u64, count: u32) -> bool {
    base.checked_add(u64::from(count)).is_some_and(|end| end < u64::MAX)
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
    if !has_room(stamp.base_offset, events.count) {
        return Err("an EventBatch whose offsets go beyond the last".into());
    }
    Ok(events.stamp(stream, stamp))
}

/// Writes the server's fields of an `EventBatch`; zero values are left out, as protobuf does.
pub(super) fn write_prefix(out: &mut [u8; HEADROOM - HEADER_BYTES], stamp: &Stamp, count: u32) -> usize {
    let room = out.len();
    let mut rest = &mut out[..];
    let fields =
        [(1u8, stamp.base_offset), (2, u64::from(count)), (3, stamp.time.0 as u64), (4, stamp.log_epoch), (5, stamp.author_user), (6, stamp.author_source)];
    for (number, value) in fields {
        if value != 0 {
            rest.put_u8(number << 3);
            varint::put(&mut rest, value);
        }
    }
    room - rest.len()
}

pub(super) fn encode_header(stream: StreamId, head: &BatchHead, body: &[u8]) -> [u8; HEADER_BYTES] {
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
