//! Does a request prefer an event stream? The one negotiation there is (`decisions.md` section 5), after RFC 9110 section 12.5.1.

use axum::http::{HeaderMap, header};

use crate::wire::sse::MEDIA_TYPE;

/// What the other form of the same events is.
const OTHERWISE: &str = "application/json";

/// Only who names `text/event-stream` gets it: not by a wildcard, and not where JSON is named with the same weight or more. Next to
/// wildcards of the same weight the named type is the wish.
pub fn wanted(headers: &HeaderMap) -> bool {
    let (mut stream, mut json, mut wildcard) = (None, None, None);
    for value in headers.get_all(header::ACCEPT) {
        let text = String::from_utf8_lossy(value.as_bytes());
        for (range, weight) in ranges(&text) {
            let place = match range.as_str() {
                MEDIA_TYPE => &mut stream,
                OTHERWISE => &mut json,
                "application/*" | "*/*" => &mut wildcard,
                _ => continue,
            };
            *place = (*place).max(Some(weight));
        }
    }
    match (stream, json) {
        (None | Some(0), _) => false,
        (Some(stream), Some(json)) => stream > json,
        (Some(stream), None) => stream >= wildcard.unwrap_or(0),
    }
}

/// Media ranges in lower case, and their weights in thousandths. What cannot be read has none.
fn ranges(text: &str) -> impl Iterator<Item = (String, u16)> {
    text.split(',').map(|element| {
        let mut parts = element.split(';').map(|part| part.trim().to_ascii_lowercase());
        let range = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=").map(weight)).unwrap_or(1000);
        (range, weight)
    })
}

/// `0.75` is 750.
fn weight(text: &str) -> u16 {
    match text.trim().parse::<f32>() {
        Ok(q) if (0.0..=1.0).contains(&q) => (q * 1000.0).round() as u16,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(accept: &str) -> bool {
        wanted(&HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]))
    }

    #[test]
    fn an_event_stream_is_sent_to_those_who_name_it_and_prefer_it() {
        for yes in [
            "text/event-stream",
            "Text/Event-Stream",
            "text/event-stream;q=0.1",
            "text/event-stream; charset=utf-8",
            "text/event-stream, */*",
            "text/event-stream, application/json;q=0.9",
            "application/json; q=0.5 , text/event-stream;q=0.6",
            "text/html, text/event-stream",
        ] {
            assert!(asked(yes), "{yes}");
        }
        for no in [
            "",
            "*/*",
            "text/*",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "application/json",
            "application/json, text/event-stream",
            "text/event-stream;q=0",
            "text/event-stream;q=0.0, */*",
            "text/event-stream;q=x",
            "text/event-stream;q=2",
            "text/event-stream;q=0.5, */*",
            "text/event-stream;q=0.5, application/json;q=0.5",
            "text/event-streams",
        ] {
            assert!(!asked(no), "{no}");
        }
        assert!(!wanted(&HeaderMap::new()));
    }

    #[test]
    fn several_accept_headers_are_one_list() {
        let both = |first: &str, second: &str| {
            let mut headers = HeaderMap::new();
            headers.append(header::ACCEPT, first.parse().unwrap());
            headers.append(header::ACCEPT, second.parse().unwrap());
            wanted(&headers)
        };
        assert!(both("application/json;q=0.2", "text/event-stream"));
        assert!(!both("text/event-stream", "application/json"));
    }
}
