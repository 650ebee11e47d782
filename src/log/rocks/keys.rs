//! Keys of the column family `log`: `stream_id` u64 BE ‖ `base_offset` u64 BE, so that byte order is (stream, offset) order.

use crate::types::StreamId;

/// Bytes of a key.
pub(super) const KEY_BYTES: usize = 16;

/// The key of the batch of `stream` that begins at `base`.
pub(super) fn log_key(stream: StreamId, base: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&stream.0.to_be_bytes());
    key[8..].copy_from_slice(&base.to_be_bytes());
    key
}

/// Reads a key back. `None`: not a key of this column family.
pub(super) fn parse(key: &[u8]) -> Option<(StreamId, u64)> {
    let key: &[u8; KEY_BYTES] = key.try_into().ok()?;
    let (stream, base) = key.split_at(8);
    Some((StreamId(u64::from_be_bytes(stream.try_into().ok()?)), u64::from_be_bytes(base.try_into().ok()?)))
}

/// The first key after all keys of `stream`.
pub(super) fn end_of_stream(stream: StreamId) -> Vec<u8> {
    // The one id without a successor is never given out (S-8: ids count from 1); a 17th byte still puts the end after all its keys.
    stream.0.checked_add(1).map_or_else(|| vec![255; KEY_BYTES + 1], |next| log_key(StreamId(next), 0).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_sort_as_stream_then_offset(a: (u64, u64), b: (u64, u64)) {
            let key = |(stream, base)| log_key(StreamId(stream), base);
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
        }

        #[test]
        fn keys_of_one_stream_sort_by_offset(stream: u64, a: u64, b: u64) {
            prop_assert_eq!(log_key(StreamId(stream), a).cmp(&log_key(StreamId(stream), b)), a.cmp(&b));
        }

        #[test]
        fn keys_round_trip(stream: u64, base: u64) {
            prop_assert_eq!(parse(&log_key(StreamId(stream), base)), Some((StreamId(stream), base)));
        }

        #[test]
        fn the_end_of_a_stream_lies_between_it_and_the_next(stream: u64, base: u64) {
            let end = end_of_stream(StreamId(stream));
            prop_assert!(log_key(StreamId(stream), base)[..] < end[..]);
            if let Some(next) = stream.checked_add(1) {
                prop_assert!(log_key(StreamId(next), base)[..] >= end[..]);
            }
        }
    }

    #[test]
    fn a_key_of_another_length_is_none() {
        assert_eq!(parse(&[0; 15]), None);
        assert_eq!(parse(&[0; 17]), None);
    }
}
