//! Protobuf's variable-length integers and field keys, for the codecs written by hand.

use bytes::BufMut;

/// Appends `value` in base-128 form, 1 to 10 bytes.
pub fn put(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Bytes that [`put`] writes for `value`.
pub const fn len(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Takes one integer off the front of `input`; `None` when it is cut off or longer than 64 bits.
pub fn take(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (i, &byte) in input.iter().take(10).enumerate() {
        if i == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *input = &input[i + 1..];
            return Some(value);
        }
    }
    None
}

/// Wire type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire<'a> {
    /// Integers, booleans, enums.
    Varint(u64),
    /// Eight fixed bytes.
    Fixed64(u64),
    /// Strings, bytes, messages.
    Bytes(&'a [u8]),
    /// Four fixed bytes.
    Fixed32(u32),
}

/// Takes one field (number and value) off the front; `None` when the bytes are not protobuf. Groups are refused.
pub fn take_field<'a>(input: &mut &'a [u8]) -> Option<(u32, Wire<'a>)> {
    let key = take(input)?;
    let number = u32::try_from(key >> 3).ok().filter(|n| *n != 0)?;
    let value = match key & 7 {
        0 => Wire::Varint(take(input)?),
        1 => {
            let (head, rest) = input.split_first_chunk::<8>()?;
            *input = rest;
            Wire::Fixed64(u64::from_le_bytes(*head))
        }
        2 => {
            let len = usize::try_from(take(input)?).ok()?;
            let head = input.get(..len)?;
            *input = &input[len..];
            Wire::Bytes(head)
        }
        5 => {
            let (head, rest) = input.split_first_chunk::<4>()?;
            *input = rest;
            Wire::Fixed32(u32::from_le_bytes(*head))
        }
        _ => return None,
    };
    Some((number, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_round_trip_in_the_length_foretold(value: u64) {
            let mut out = Vec::new();
            put(&mut out, value);
            prop_assert_eq!(out.len(), len(value));
            let mut rest = &out[..];
            prop_assert_eq!(take(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let mut rest = &bytes[..];
            while !rest.is_empty() && take_field(&mut rest).is_some() {}
        }
    }
}
