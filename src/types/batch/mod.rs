//! The batch: events of one append, encoded once, stored, cached and sent as the same bytes (`formats.md`).
//!
//! - [`Events`] are a producer's events before they have offsets, checked at the door, with room in front for what the
//!   broker adds.
//! - [`Batch`] is the stored value: a 32-byte header with CRC, then the protobuf message `EventBatch`.
//! - [`Slice`] is a run of consecutive events of one batch on its way to a reader.
//!
//! Protobuf messages concatenate, so stamping offsets and time is a prefix before the producer's bytes: nothing is
//! encoded again between the append and the sockets of binary readers.
mod codec;
mod events;
mod slice;
mod stored;

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

pub use codec::{EventIter, check_json, fingerprint};
pub use events::{Events, EventsBuilder};
pub use slice::Slice;
pub use stored::{Batch, BatchHead, Rendered, Stamp, has_room, received};

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
