//! Conditional reads of what cannot change (RFC 9110 section 13): an event, once stored, stays as it is.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::Reply;
use crate::types::Slice;

/// The tag of one event: a stream's id is never used again, and one history has one event at an offset (I-4).
pub fn tag(event: &Slice) -> String {
    let head = &event.batch().head;
    format!("\"{}-{}-{}\"", event.batch().stream.0, head.log_epoch, event.from())
}

/// An answer with a tag: 304 when the client has it.
pub fn answer(reply: Reply, tag: &str, asked: &HeaderMap) -> Response {
    let mut response = if has(asked, tag) { StatusCode::NOT_MODIFIED.into_response() } else { reply.into_response() };
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, tag);
    }
    // For this caller only, and not without asking: the next one may have lost its right, or the event may be trimmed.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    response
}

/// Does `If-None-Match` list the tag? Reads compare weakly.
fn has(asked: &HeaderMap, tag: &str) -> bool {
    asked.get_all(header::IF_NONE_MATCH).iter().any(|value| {
        let text = String::from_utf8_lossy(value.as_bytes());
        // No tag of ours has a comma in it.
        text.split(',').map(str::trim).any(|listed| listed == "*" || listed.strip_prefix("W/").unwrap_or(listed) == tag)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_tag_is_known_however_it_is_listed() {
        let asked = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::IF_NONE_MATCH, value.parse().unwrap());
            }
            has(&headers, "\"7-1-41\"")
        };
        for yes in [&["\"7-1-41\""][..], &["*"], &["W/\"7-1-41\""], &["\"a\", \"7-1-41\""], &["\"a\"", "\"7-1-41\""], &["\"a\",W/\"7-1-41\" ,\"b\""]] {
            assert!(asked(yes), "{yes:?}");
        }
        for no in [&[][..], &[""], &["7-1-41"], &["\"7-1-4\""], &["\"7-1-41"], &["w/\"7-1-41\""], &["\"7-2-41\""]] {
            assert!(!asked(no), "{no:?}");
        }
    }
}
