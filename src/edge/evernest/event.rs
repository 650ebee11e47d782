//! Events as Evernest shows them. All fields are always there; `Message` is the payload as text, whatever it was.

use std::borrow::Cow;
use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

use super::envelope::date;
use super::fault::Fault;
use crate::broker::Broker;
use crate::types::{Encoding, EventRef, Slice, StreamName};

/// One event.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Shown<'a> {
    id: u64,
    message: Cow<'a, str>,
    date: String,
    parent_stream_id: u64,
    parent_stream_name: &'a str,
    author_id: u64,
    author_name: &'a str,
}

/// Authors remembered from one page to the next.
const REMEMBERED: usize = 1024;

/// Names of authors, each looked up once.
#[derive(Default)]
pub struct Authors(HashMap<u64, String>);

impl Authors {
    /// Learns who wrote these.
    pub async fn learn(&mut self, broker: &Broker, slices: &[Slice]) -> Result<(), Fault> {
        if self.0.len() > REMEMBERED {
            self.0.clear();
        }
        for slice in slices {
            let id = slice.batch().head.author_user;
            if !self.0.contains_key(&id) {
                let user = broker.user_by_id(id).await.map_err(Fault::other)?;
                // One who is gone has no name any more.
                self.0.insert(id, user.map_or_else(String::new, |user| user.name.to_string()));
            }
        }
        Ok(())
    }

    /// The events of a slice whose author was learnt.
    pub fn shown<'a>(&'a self, stream: &'a StreamName, slice: &'a Slice) -> impl Iterator<Item = Shown<'a>> {
        let head = &slice.batch().head;
        let author_name = self.0.get(&head.author_user).map_or("", String::as_str);
        slice.events().map(move |(id, event)| Shown {
            id,
            message: message(&event),
            date: date(head.time),
            parent_stream_id: slice.batch().stream.0,
            parent_stream_name: stream.as_str(),
            author_id: head.author_user,
            author_name,
        })
    }
}

/// The payload as text: JSON strings and text as they are, other JSON as its text, bytes in base64.
fn message<'a>(event: &EventRef<'a>) -> Cow<'a, str> {
    match event.encoding {
        Encoding::Utf8 => String::from_utf8_lossy(event.data),
        Encoding::Json => match serde_json::from_slice::<String>(event.data) {
            Ok(text) => text.into(),
            Err(_) => String::from_utf8_lossy(event.data),
        },
        Encoding::Binary => BASE64.encode(event.data).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_payload_has_a_text() {
        for (data, encoding, text) in [
            (&b"hello"[..], Encoding::Utf8, "hello"),
            (b"\"hello\\n\"", Encoding::Json, "hello\n"),
            (b"{\"a\": 1}", Encoding::Json, "{\"a\": 1}"),
            (b"null", Encoding::Json, "null"),
            (b"\"\\ud800\"", Encoding::Json, "\"\\ud800\""),
            (b"\x00\xff", Encoding::Binary, "AP8="),
            (b"", Encoding::Utf8, ""),
        ] {
            assert_eq!(message(&EventRef { data, encoding, ..EventRef::default() }), text);
        }
    }
}
