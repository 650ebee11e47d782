//! Readers of bytes on disk, by name: `tests/fuzz` feeds them. Nothing else calls these.

use super::{durable, keys, recovery};
use crate::types::StreamId;

/// The key of a batch in the log.
pub fn log_key(stream: u64, base: u64) -> [u8; 16] {
    keys::log_key(StreamId(stream), base)
}

/// The stream and the base in a key of the log, if it is one.
pub fn parse_log_key(key: &[u8]) -> Option<(u64, u64)> {
    keys::parse(key).map(|(stream, base)| (stream.0, base))
}

/// The side file of a durable position (S-7).
pub fn side_file(sequence: u64) -> [u8; 20] {
    durable::encode(sequence)
}

/// The position that a side file names, if it is one.
pub fn parse_side_file(bytes: &[u8]) -> Option<u64> {
    durable::decode(bytes)
}

/// The first bad spot of a write-ahead log, and whether a record begins after it.
///
/// # Errors
/// None: it reads from memory.
pub fn scan_wal(log: &[u8]) -> std::io::Result<Option<(u64, bool)>> {
    recovery::spot(log)
}
