//! `Idempotency-Key` on appends (P-19): a client without a producer may send the same append again.
//!
//! All other writes refuse the header, since there it is not kept yet: a promise is never ignored.

use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;

use crate::types::{Error, IdempotencyKey, Result};

/// The header.
pub const HEADER: &str = "idempotency-key";

/// The key of a request, if it has one.
///
/// # Errors
/// `bad_parameter` for a key that is none, and for two.
pub fn key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Error::bad(HEADER, "Header Idempotency-Key is sent twice; send it once."));
    }
    let text = value.to_str().map_err(|_| Error::bad(HEADER, "Header Idempotency-Key has bytes that are no visible ASCII characters."))?;
    IdempotencyKey::parse(text).map(Some)
}

/// Says that the answer is the first request's.
pub fn replayed(response: &mut Response) {
    response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(values: &[&[u8]]) -> Result<Option<IdempotencyKey>> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_bytes(value).unwrap());
        }
        key(&headers)
    }

    #[test]
    fn a_key_is_1_to_128_visible_ascii_characters_and_sent_once() {
        assert_eq!(asked(&[]), Ok(None));
        assert_eq!(asked(&[b"order-17/2"]).unwrap().unwrap().as_str(), "order-17/2");
        assert!(asked(&[&[b'~'; 128]]).is_ok());
        for bad in [&[&b""[..]][..], &[&[b'k'; 129]], &[b"a b"], &[b"\xc3\xa9"], &[b"a", b"a"]] {
            let error = asked(bad).unwrap_err();
            assert_eq!(error.details["field"], HEADER, "{bad:?}");
        }
    }
}
