//! Server-Sent Events: the text that `EventSource` reads (`text/event-stream` of the WHATWG).
//!
//! A line end is all that could break it, so every field is one line by construction: a number, a word of ours, or JSON whose
//! raw line ends have become spaces (`formats.md` section 3). What producers put into events cannot end a line.

use std::time::Duration;

use super::error;
use super::json::write::{self, Members};
use super::json::{each_event_json, single_line, subscribed_members};
use crate::types::reply::{GapReason, Subscribed};
use crate::types::{Error, Slice};

/// What a client must ask for, and gets.
pub const MEDIA_TYPE: &str = "text/event-stream";

/// The id of a reader's last event when another reader has taken over: with it `EventSource` tells us so when it comes back.
const FENCED: &str = "fenced";

/// What `Last-Event-ID` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastId {
    /// Everything before this offset was heard.
    Next(u64),
    /// Another reader has taken over, and this one was told.
    Fenced,
}

impl LastId {
    /// Reads an id that [`position`], [`events`], [`gap`] or [`end`] gave. `None` when it is none of ours.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            FENCED => Some(Self::Fenced),
            "-1" => Some(Self::Next(0)),
            _ if text.bytes().all(|b| b.is_ascii_digit()) => text.parse::<u64>().ok()?.checked_add(1).map(Self::Next),
            _ => None,
        }
    }
}

/// How long the client is to wait before it connects again.
pub fn retry(out: &mut Vec<u8>, pause: Duration) {
    out.extend_from_slice(b"retry: ");
    write::number(out, pause.as_millis() as u64);
    out.extend_from_slice(b"\n\n");
}

/// Where a reader begins, without an event: it goes on from here even if it hears nothing before its connection breaks.
pub fn position(out: &mut Vec<u8>, next: u64) {
    id_before(out, next);
    out.push(b'\n');
}

/// A line that clients ignore, so that everybody between us knows the connection is alive.
pub fn ping(out: &mut Vec<u8>) {
    out.extend_from_slice(b": ping\n\n");
}

/// Events in their one JSON form, each a plain `message` with its offset as id.
pub fn events(out: &mut Vec<u8>, slices: &[Slice]) {
    each_event_json(slices, |offset, json| {
        out.reserve(json.len() + 40);
        out.extend_from_slice(b"id: ");
        write::number(out, offset);
        out.extend_from_slice(b"\ndata: ");
        out.extend_from_slice(&single_line(json));
        out.extend_from_slice(b"\n\n");
    });
}

/// `subscribed`: a durable session is open, from the cursor on.
pub fn subscribed(out: &mut Vec<u8>, reply: &Subscribed) {
    named(out, "subscribed", |out| {
        let mut o = Members::begin(out);
        subscribed_members(&mut o, reply);
        o.end();
    });
}

/// `live`: the reader has everything there is.
pub fn live(out: &mut Vec<u8>, next_offset: u64) {
    named(out, "live", |out| {
        let mut o = Members::begin(out);
        o.number("next_offset", next_offset);
        o.end();
    });
}

/// `gap`: lost offsets, both inclusive. Its id is the last of them, so that who comes back does not hear of it twice.
pub fn gap(out: &mut Vec<u8>, from: u64, to: u64, reason: GapReason) {
    id_before(out, to.saturating_add(1));
    named(out, "gap", |out| {
        let mut o = Members::begin(out);
        o.number("from", from);
        o.number("to", to);
        o.text("reason", reason.as_str());
        o.end();
    });
}

/// `end`: why the reader ended, as the members of our errors. (`error` is what `EventSource` calls a broken connection.)
pub fn end(out: &mut Vec<u8>, error: &Error, request_id: &str, fenced: bool) {
    if fenced {
        out.extend_from_slice(b"id: ");
        out.extend_from_slice(FENCED.as_bytes());
        out.push(b'\n');
    }
    named(out, "end", |out| {
        out.push(b'{');
        error::write_frame_members(out, error, request_id);
        out.push(b'}');
    });
}

/// The id of the offset before `next`; `-1` before the first.
fn id_before(out: &mut Vec<u8>, next: u64) {
    out.extend_from_slice(b"id: ");
    match next.checked_sub(1) {
        Some(offset) => write::number(out, offset),
        None => out.extend_from_slice(b"-1"),
    }
    out.push(b'\n');
}

fn named(out: &mut Vec<u8>, name: &str, data: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    data(out);
    out.extend_from_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::types::batch::Stamp;
    use crate::types::batch::samples::{batch, build, samples};
    use crate::types::{Code, Encoding, EventRef, EventsBuilder, StreamId, TimeUs};
    use crate::wire::json::event_json;

    /// What `EventSource` dispatches: last event id, event type, data.
    type Heard = (String, String, String);

    /// The parser of the WHATWG's section 9.2.6, line by line as it is written there.
    fn event_source(bytes: &[u8]) -> (Vec<Heard>, String, Option<u64>) {
        let text = String::from_utf8_lossy(bytes);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let (mut heard, mut data, mut kind, mut id, mut retry) = (Vec::new(), String::new(), String::new(), String::new(), None);
        let mut rest = text;
        while let Some(at) = rest.find(['\r', '\n']) {
            let line = &rest[..at];
            rest = rest[at..].strip_prefix("\r\n").unwrap_or(&rest[at + 1..]);
            if line.is_empty() {
                let (this, name) = (std::mem::take(&mut data), std::mem::take(&mut kind));
                if let Some(this) = this.strip_suffix('\n') {
                    heard.push((id.clone(), if name.is_empty() { "message".to_owned() } else { name }, this.to_owned()));
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => kind = value.to_owned(),
                "data" => data += &format!("{value}\n"),
                "id" if !value.contains('\0') => id = value.to_owned(),
                "retry" if value.bytes().all(|b| b.is_ascii_digit()) => retry = value.parse().ok(),
                _ => {}
            }
        }
        assert_eq!((rest, data.as_str()), ("", ""), "nothing is left half said");
        (heard, id, retry)
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out);
        out
    }

    /// The events of slices, as they must be heard.
    fn expected(slices: &[Slice]) -> Vec<Heard> {
        let one = |slice: &Slice| {
            slice
                .events()
                .map(|(offset, event)| {
                    let json = written(|out| event_json(out, &slice.batch().head, offset, &event));
                    let line = String::from_utf8(json).unwrap().replace(['\r', '\n'], " ");
                    (offset.to_string(), "message".to_owned(), line)
                })
                .collect::<Vec<_>>()
        };
        slices.iter().flat_map(one).collect()
    }

    proptest! {
        #[test]
        fn every_event_comes_out_of_event_source_as_it_went_in((batch, _) in batch(20), cut in 0u64..20) {
            let head = batch.head;
            let whole = Slice::of(batch, head.base_offset..head.end()).unwrap();
            // A cut near the end is rendered by itself, not from the shared text.
            for slice in [Some(whole.clone()), whole.after(head.base_offset + cut)].into_iter().flatten() {
                let slices = [slice];
                prop_assert_eq!(event_source(&written(|out| events(out, &slices))).0, expected(&slices));
            }
        }

        #[test]
        fn chunks_may_be_put_together_in_any_number(samples in samples(6), next: u32) {
            let stamp = Stamp { base_offset: next.into(), time: TimeUs(1), log_epoch: 1, author_user: 1, author_source: 0, bytes_before: 0 };
            let batch = build(&samples).stamp(StreamId(1), stamp);
            let range = batch.head.base_offset..batch.head.end();
            let slices = [Slice::of(Arc::new(batch), range).unwrap()];
            let out = written(|out| {
                retry(out, Duration::from_secs(1));
                position(out, next.into());
                ping(out);
                events(out, &slices);
                live(out, 7);
            });
            let (heard, _, pause) = event_source(&out);
            let mut all = expected(&slices);
            all.push((all.last().unwrap().0.clone(), "live".into(), r#"{"next_offset":7}"#.into()));
            prop_assert_eq!((heard, pause), (all, Some(1000)));
        }
    }

    #[test]
    fn nothing_in_an_event_can_end_its_line_or_begin_another_field() {
        let nasty = "\n\ndata: {\"offset\":9}\r\nid: 9\revent: end\0\u{2028}\u{2029}\u{85}\u{b}\u{c}\u{feff}";
        let json = "{\r\n\"a\"\n:\r[1,\n\n2]\t, \"b\":\"\\ud800 \\n\\ndata: x\u{2028}\u{feff}\"}\n";
        let mut builder = EventsBuilder::default();
        let head = EventRef { kind: nasty, key: nasty, headers: vec![(nasty, nasty)], ..EventRef::default() };
        builder.push(&EventRef { data: json.trim_end().as_bytes(), ..head.clone() }).unwrap();
        builder.push(&EventRef { data: nasty.as_bytes(), encoding: Encoding::Utf8, ..head.clone() }).unwrap();
        builder.push(&EventRef { data: nasty.as_bytes(), encoding: Encoding::Binary, ..head }).unwrap();
        let stamp = Stamp { base_offset: 41, time: TimeUs(1), log_epoch: 1, author_user: 1, author_source: 0, bytes_before: 0 };
        let batch = builder.finish().unwrap().stamp(StreamId(1), stamp);
        let slices = [Slice::of(Arc::new(batch), 41..44).unwrap()];
        let (heard, id, _) = event_source(&written(|out| events(out, &slices)));
        assert_eq!((heard.len(), id.as_str()), (3, "43"));
        for (index, (id, kind, data)) in heard.iter().enumerate() {
            assert_eq!((id.as_str(), kind.as_str()), ((41 + index).to_string().as_str(), "message"));
            if index > 0 {
                let event: Value = serde_json::from_str(data).unwrap();
                assert_eq!((&event["key"], &event["headers"]), (&json!(nasty), &json!({nasty: nasty})));
            }
        }
        assert!(heard[0].2.contains(&json.trim_end().replace(['\r', '\n'], " ")), "the rest of the bytes stays: {}", heard[0].2);
        assert_eq!(serde_json::from_str::<Value>(&heard[1].2).unwrap()["data"], nasty);
    }

    #[test]
    fn a_reader_knows_where_it_stands_after_each_kind_of_event() {
        let after = |write: &dyn Fn(&mut Vec<u8>)| event_source(&written(|out| write(out))).1;
        assert_eq!(LastId::parse(&after(&|out| position(out, 0))), Some(LastId::Next(0)));
        assert_eq!(LastId::parse(&after(&|out| position(out, 41))), Some(LastId::Next(41)));
        assert_eq!(LastId::parse(&after(&|out| gap(out, 3, 40, GapReason::Retention))), Some(LastId::Next(41)));
        let error = Error::new(Code::SessionFenced, "Another reader\r\n\ntook over.").rule("C-7").detail("epoch", 7);
        assert_eq!(LastId::parse(&after(&|out| end(out, &error, "r", true))), Some(LastId::Fenced));
        assert_eq!(
            after(&|out| {
                position(out, 5);
                end(out, &error, "r", false)
            }),
            "4",
            "any other end leaves the place alone"
        );
        assert_eq!(
            after(&|out| {
                position(out, 5);
                live(out, 9)
            }),
            "4"
        );
        for foreign in ["", "-2", "+1", "1.0", "x", "4 ", "18446744073709551615", "99999999999999999999"] {
            assert_eq!(LastId::parse(foreign), None, "{foreign:?}");
        }
    }

    #[test]
    fn named_events_are_heard_by_their_names() {
        let error = Error::new(Code::SessionFenced, "Another reader\r\n\ntook over.").rule("C-7").detail("epoch", 7);
        let (heard, ..) = event_source(&written(|out| {
            gap(out, 3, 4, GapReason::Retention);
            end(out, &error, "r-1", true);
        }));
        assert_eq!((heard[0].1.as_str(), heard[0].2.as_str()), ("gap", r#"{"from":3,"to":4,"reason":"retention"}"#));
        assert_eq!(heard[1].1, "end");
        let said: Value = serde_json::from_str(&heard[1].2).unwrap();
        assert_eq!((&said["code"], &said["rule"], &said["message"]), (&json!("session_fenced"), &json!("C-7"), &json!("Another reader\r\n\ntook over.")));
        assert_eq!((&said["request_id"], &said["details"]), (&json!("r-1"), &json!({"epoch": 7})));
    }
}
