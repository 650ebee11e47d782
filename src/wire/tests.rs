//! Properties that hold for both forms of a frame, and the examples of `formats.md` word for word.

use std::sync::Arc;

use proptest::prelude::*;

use super::frame::{About, ClientFrame, FrameError, ServerFrame};
use super::samples::{append, client_frame, server_frame, slices};
use super::{json, proto};
use crate::types::batch::Stamp;
use crate::types::*;

/// Everything a client frame says. `Events` print their counts only, so their events are listed beside.
fn said(frame: &ClientFrame) -> (String, Vec<u8>, Vec<u128>) {
    let events: Vec<&Events> = match frame {
        ClientFrame::Append { request, .. } => vec![&request.events],
        ClientFrame::Commit { request, .. } => request.appends.iter().map(|a| &a.events).collect(),
        _ => Vec::new(),
    };
    (format!("{frame:?}"), events.iter().flat_map(|e| e.encoded().to_vec()).collect(), events.iter().map(|e| e.fingerprint()).collect())
}

/// Everything a server frame says; events one by one, since carriers may cut batches differently.
fn heard(frame: &ServerFrame) -> String {
    match frame {
        ServerFrame::Events { sub, stream, slices, lag } => {
            let events: Vec<_> = slices
                .iter()
                .flat_map(|s| {
                    let head = s.batch().head;
                    s.events().map(move |(offset, e)| format!("{offset} {} {} {} {} {e:?}", head.time, head.log_epoch, head.author_user, head.author_source))
                })
                .collect();
            format!("{sub} {stream} {lag:?} {events:?}")
        }
        other => format!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn every_client_frame_round_trips_in_protobuf(frame in client_frame()) {
        let bytes = proto::encode_client(&frame);
        let back = proto::decode_client(&bytes).unwrap();
        prop_assert_eq!(said(&back), said(&frame));
    }

    #[test]
    fn every_client_frame_round_trips_in_json(frame in client_frame()) {
        let text = json::encode_client(&frame);
        let back = json::decode_client(&text).map_err(|e| TestCaseError::fail(format!("{e}: {text}")))?;
        prop_assert_eq!(said(&back), said(&frame));
    }

    #[test]
    fn every_server_frame_round_trips_in_protobuf(frame in server_frame()) {
        let back = proto::decode_server(proto::encode_server(&frame)).unwrap().unwrap();
        prop_assert_eq!(heard(&back), heard(&frame));
    }

    #[test]
    fn every_server_frame_round_trips_in_json(frame in server_frame()) {
        let text = json::encode_server(&frame);
        serde_json::from_str::<serde_json::Value>(&text).map_err(|e| TestCaseError::fail(format!("{e}: {text}")))?;
        let back = json::decode_server(&text).map_err(|e| TestCaseError::fail(format!("{e}: {text}")))?.unwrap();
        prop_assert_eq!(heard(&back), heard(&frame));
    }

    #[test]
    fn the_generated_types_read_and_write_the_same_bytes(client in client_frame(), server in server_frame()) {
        use prost::Message;
        let read = proto::v1::ClientFrame::decode(proto::encode_client(&client)).unwrap();
        prop_assert_eq!(said(&proto::decode_client(read.encode_to_vec()).unwrap()), said(&client));
        let read = proto::v1::ServerFrame::decode(proto::encode_server(&server)).unwrap();
        prop_assert_eq!(heard(&proto::decode_server(read.encode_to_vec()).unwrap().unwrap()), heard(&server));
    }

    #[test]
    fn an_append_has_one_fingerprint_over_all_carriers(frame in append()) {
        let over_json = json::decode_client(json::encode_client(&frame)).unwrap();
        let over_proto = proto::decode_client(proto::encode_client(&frame)).unwrap();
        prop_assert_eq!(said(&over_json).2, said(&over_proto).2);
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes: Vec<u8>, text in "\\PC{0,60}") {
        let _ = proto::decode_client(&bytes);
        let _ = proto::decode_server(&bytes);
        let _ = json::decode_client(&bytes);
        let _ = json::decode_client(&text);
        let _ = json::decode_server(&text);
        let _ = json::parse_events_json(text.as_bytes());
        let _ = json::parse_ndjson(&bytes, json::Lines::Data);
        let _ = json::parse_ndjson(&bytes, json::Lines::Events);
        let _ = json::in_its_line(crate::types::Error::bad("events[1].data", "Wrong."), &bytes);
    }

    #[test]
    fn a_broken_line_is_found_wherever_it_stands(filled: Vec<bool>, bad in "[^\\s0-9\"tfn\\[{-]{1,20}", carriage: bool, events: bool) {
        let (good, lines) = if events { ("{\"data\":1}", json::Lines::Events) } else { ("1", json::Lines::Data) };
        let end = if carriage { "\r\n" } else { "\n" };
        let before: String = filled.iter().map(|filled| format!("{}{end}", if *filled { good } else { "  " })).collect();
        let error = json::parse_ndjson(format!("{before} {bad}{end}{good}{end}").as_bytes(), lines).unwrap_err();
        prop_assert_eq!(error.details["line"].as_u64(), Some(filled.len() as u64 + 1));
        prop_assert_eq!(error.details["column"].as_u64(), Some(2), "{}", error);
        let index = filled.iter().filter(|filled| **filled).count();
        prop_assert!(error.details["field"].as_str().unwrap().starts_with(&format!("events[{index}]")), "{}", error);
    }

    #[test]
    fn nearly_right_frames_make_no_reader_panic(frame in client_frame(), server in server_frame(), at: prop::sample::Index, byte: u8) {
        let spoil = |mut bytes: Vec<u8>| {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        };
        let _ = proto::decode_client(spoil(proto::encode_client(&frame).to_vec()));
        let _ = proto::decode_server(spoil(proto::encode_server(&server).to_vec()));
        let _ = json::decode_client(spoil(json::encode_client(&frame).into_bytes()));
        let _ = json::decode_server(spoil(json::encode_server(&server).into_bytes()));
    }

    #[test]
    fn a_cut_append_is_refused_and_poisons_its_session_or_all(frame in append(), at: prop::sample::Index) {
        let ClientFrame::Append { request, .. } = &frame else { unreachable!() };
        let own = (Some(request.stream.clone()), request.producer.as_ref().map(|p| p.id.clone()));
        let text = json::encode_client(&frame);
        let mut cut = at.index(text.len());
        while !text.is_char_boundary(cut) { cut -= 1 }
        let error = json::decode_client(&text[..cut]).unwrap_err();
        prop_assert!(error.append == Some((None, None)) || error.append == Some(own));
    }

    #[test]
    fn events_are_rendered_the_same_from_the_cache_and_one_by_one(slices in slices()) {
        let mut cached = Vec::new();
        json::events_json(&mut cached, &slices);
        let mut single = Vec::new();
        for slice in &slices {
            for (offset, event) in slice.events() {
                if !single.is_empty() { single.push(b',') }
                json::event_json(&mut single, &slice.batch().head, offset, &event);
            }
        }
        prop_assert_eq!(String::from_utf8(cached).unwrap(), String::from_utf8(single.clone()).unwrap());
        let line = json::single_line(&single);
        prop_assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
        let values = |bytes: &[u8]| serde_json::from_str::<serde_json::Value>(&format!("[{}]", std::str::from_utf8(bytes).unwrap())).unwrap();
        prop_assert_eq!(values(&line), values(&single));
    }
}

fn golden_client(text: &str) -> ClientFrame {
    let frame = json::decode_client(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!(json::encode_client(&frame), text);
    frame
}

fn golden_server(text: &str) -> ServerFrame {
    let frame = json::decode_server(text).unwrap_or_else(|e| panic!("{e}: {text}")).unwrap();
    assert_eq!(json::encode_server(&frame), text);
    frame
}

#[test]
fn the_examples_of_the_formats_page_are_read_and_written_word_for_word() {
    let page = include_str!("golden/frames.txt");
    let (mut said, mut heard) = (0, 0);
    for line in page.lines() {
        if let Some(text) = line.strip_prefix("→ ") {
            golden_client(text);
            said += 1;
        } else if let Some(text) = line.strip_prefix("← ") {
            golden_server(text);
            heard += 1;
        }
    }
    assert_eq!((said, heard), (11, 17));
}

#[test]
fn the_protocol_page_shows_only_frames_that_the_program_understands() {
    let page = include_str!("../../docs/protocol.md");
    let (mut said, mut heard) = (0, 0);
    for line in page.lines() {
        if let Some(text) = line.strip_prefix("→ ") {
            json::decode_client(text).unwrap_or_else(|e| panic!("{e}: {text}"));
            said += 1;
        } else if let Some(text) = line.strip_prefix("← ") {
            json::decode_server(text).unwrap_or_else(|e| panic!("{e}: {text}")).unwrap();
            heard += 1;
        }
    }
    assert!(said >= 10 && heard >= 14, "{said} {heard}");
}

fn refused(text: &str) -> FrameError {
    json::decode_client(text).expect_err(text)
}

#[test]
fn a_bad_field_is_named_by_its_path() {
    let append = |event: &str| format!(r#"{{"t":"append","req":3,"stream":"s","events":[{{"data":1}},{event}]}}"#);
    for (text, code, field) in [
        (r#"{"t":"ack","sub":1,"offset":-1}"#.to_owned(), Code::BadParameter, "offset"),
        (r#"{"t":"ack","sub":1,"offset":1.0}"#.into(), Code::BadParameter, "offset"),
        (r#"{"t":"ack","sub":1,"offset":1e3}"#.into(), Code::BadParameter, "offset"),
        (r#"{"t":"ack","sub":1,"offset":"1"}"#.into(), Code::BadParameter, "offset"),
        (r#"{"t":"ack","sub":1,"offset":9007199254740992}"#.into(), Code::BadParameter, "offset"),
        (r#"{"t":"ack","sub":1,"offset":99999999999999999999999}"#.into(), Code::BadParameter, "offset"),
        (r#"{"t":"ack","sub":1}"#.into(), Code::BadParameter, "offset"),
        (r#"{"t":"ack","sub":1,"offset":1,"offset":2}"#.into(), Code::BadParameter, "offset"),
        (r#"{"t":"ack","t":"ack","sub":1,"offset":1}"#.into(), Code::BadParameter, "t"),
        (r#"{"t":"ack","sub":1,"offset":1,"level":"soon"}"#.into(), Code::BadParameter, "level"),
        (r#"{"t":"ack","sub":1,"offset":1,"ofset":2}"#.into(), Code::UnknownField, "ofset"),
        (r#"{"t":"subscribe","sub":1,"stream":"a/b"}"#.into(), Code::BadParameter, "stream"),
        (r#"{"t":"subscribe","sub":1,"stream":"a","subscription":""}"#.into(), Code::BadParameter, "subscription"),
        (r#"{"t":"subscribe","sub":1,"stream":"a","from":"soon"}"#.into(), Code::BadParameter, "from"),
        (r#"{"t":"subscribe","sub":1,"stream":"a","credit":{"events":1}}"#.into(), Code::BadParameter, "credit.bytes"),
        (r#"{"t":"subscribe","sub":1,"stream":"a","credit":[]}"#.into(), Code::BadParameter, "credit"),
        (r#"{"t":"auth","key":"a","ticket":"b"}"#.into(), Code::BadParameter, "key"),
        (r#"{"t":"dance"}"#.into(), Code::BadParameter, "t"),
        (r#"{"sub":1}"#.into(), Code::BadParameter, "t"),
        (append(r#"{"data":1,"colour":2}"#), Code::UnknownField, "events[1].colour"),
        (append(r#"{"type":"x"}"#), Code::BadParameter, "events[1].data"),
        (append(r#"{"data":1,"headers":{"a":1}}"#), Code::BadParameter, "events[1].headers.a"),
        (append(r#"{"data":1,"headers":{"a":"1","a":"2"}}"#), Code::BadParameter, "events[1].headers"),
        (append(r#"{"data":1,"headers":[]}"#), Code::BadParameter, "events[1].headers"),
        (append(r#"{"data":"!","encoding":"base64"}"#), Code::BadParameter, "events[1].data"),
        (append(r#"{"data":7,"encoding":"utf8"}"#), Code::BadParameter, "events[1].data"),
        (append(r#"{"data":7,"encoding":"xml"}"#), Code::BadParameter, "events[1].encoding"),
        (append(&format!(r#"{{"data":{}{}}}"#, "[".repeat(33), "]".repeat(33))), Code::BadParameter, "events[1].data"),
        (append("7"), Code::BadParameter, "events[1]"),
        (r#"{"t":"append","req":3,"stream":"s","events":[]}"#.into(), Code::BadParameter, "events"),
        (r#"{"t":"append","req":3,"stream":"s","events":{}}"#.into(), Code::BadParameter, "events"),
        (r#"{"t":"append","req":3,"stream":"s"}"#.into(), Code::BadParameter, "events"),
        (r#"{"t":"append","req":3,"stream":"s","producer":{"id":"p","epoch":1},"events":[{"data":1}]}"#.into(), Code::BadParameter, "producer.seq"),
        (
            r#"{"t":"commit","req":1,"appends":[{"stream":"s","events":[{"data":1},{"key":7,"data":1}]}]}"#.into(),
            Code::BadParameter,
            "appends[0].events[1].key",
        ),
        (r#"{"t":"commit","req":1,"appends":[{"stream":"s","events":[]}]}"#.into(), Code::BadParameter, "appends[0].events"),
        (r#"{"t":"commit","req":1,"acks":[{"stream":"s","epoch":1,"offset":1}]}"#.into(), Code::BadParameter, "acks[0].subscription"),
        (r#"{"t":"commit","req":1,"checks":[{"stream":"s"}]}"#.into(), Code::BadParameter, "checks[0].expected_next_offset"),
    ] {
        let error = refused(&text).error;
        assert_eq!((error.code, error.details["field"].as_str()), (code, Some(field)), "{text}: {error}");
    }
    for text in ["", "{", "{\"t\":\"ping\"", "{\"t\":\"ping\"} x", "{\"t\":\"ping\",}", "\u{feff}{}"] {
        assert_eq!(refused(text).error.code, Code::JsonParsingFailed, "{text}");
    }
    assert_eq!(json::decode_client(b"{\"t\":\"\xff\"}").unwrap_err().error.code, Code::JsonParsingFailed);
    assert_eq!(refused("[]").error.code, Code::BadParameter);
}

#[test]
fn a_broken_append_tells_which_session_it_leaves_with_a_hole() {
    let session =
        |stream: Option<&str>, producer: Option<&str>| Some((stream.map(|s| StreamName::parse(s).unwrap()), producer.map(|p| ProducerId::parse(p).unwrap())));
    for (text, about, append) in [
        // What is broken stands elsewhere: stream and producer are known.
        (r#"{"t":"append","req":3,"stream":"s","producer":{"id":"p","epoch":1,"seq":-1},"events":[]}"#, About::Req(3), session(Some("s"), Some("p"))),
        (r#"{"t":"append","req":3,"stream":"s","events":[{}]}"#, About::Req(3), session(Some("s"), None)),
        (r#"{"t":"append","req":-3,"stream":"s","events":[{"data":1}]}"#, About::Connection, session(Some("s"), None)),
        // Stream or producer cannot be read: it may be any session.
        (r#"{"t":"append","req":3,"stream":"a/b","events":[{"data":1}]}"#, About::Req(3), session(None, None)),
        (r#"{"t":"append","req":3,"stream":"s","producer":{"id":7},"events":[{"data":1}]}"#, About::Req(3), session(None, None)),
        (r#"{"t":"append","req":3,"stream":"s","producer":"p","events":[{"data":1}]}"#, About::Req(3), session(None, None)),
        (r#"{"t":"append","req":3,"stream":"s","events":[{"data":1}]"#, About::Connection, session(None, None)),
        (r#"{"t":"apend","req":3}"#, About::Connection, session(None, None)),
        // Surely no append.
        (r#"{"t":"ack","sub":5,"offset":-1}"#, About::Sub(5), None),
        (r#"{"t":"commit","req":6,"acks":7}"#, About::Req(6), None),
    ] {
        let error = refused(text);
        assert_eq!((error.about, error.append), (about, append), "{text}");
    }
}

/// A protobuf field of wire type "bytes" with a short content.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
}

#[test]
fn protobuf_frames_are_read_as_strictly_as_json_frames() {
    let frame = |variant: u8, parts: &[&[u8]]| proto::decode_client(field(variant, &parts.concat()));
    let good_ack: &[u8] = &[0x08, 5, 0x10, 9];
    assert!(frame(3, &[good_ack]).is_ok());
    for (bytes, code, at) in [
        (&[0x20, 1][..], Code::UnknownField, "frame"),
        (&[0x10, 9], Code::BadParameter, "offset"),
        (&[0x18, 7], Code::BadParameter, "level"),
        (&[0x1a, 0], Code::BadParameter, "level"),
    ] {
        let error = frame(3, &[good_ack, bytes]).unwrap_err();
        assert_eq!((error.error.code, error.error.details["field"].as_str(), error.about), (code, Some(at), About::Sub(5)), "{bytes:?}");
    }
    // 2^53 is one too many.
    let large = frame(3, &[&[0x08, 5, 0x10, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10]]).unwrap_err();
    assert_eq!(large.error.details["field"], "offset");
    // Two variants of a choice, two variants of the frame, none, garbage, an unknown variant.
    let start = field(7, &[0x08, 1, 0x10, 1]);
    assert_eq!(frame(2, &[&[0x08, 5], &field(2, b"s"), &start]).unwrap_err().error.details["field"], "from.place");
    assert_eq!(frame(2, &[&[0x08, 5], &field(2, b"s"), &field(7, b"")]).unwrap_err().error.details["field"], "from");
    for bytes in [[field(6, b""), field(6, b"")].concat(), vec![], vec![0xff], vec![0x08, 1], field(15, b"")] {
        let error = proto::decode_client(&bytes).unwrap_err();
        assert_eq!((error.about, error.append), (About::Connection, Some((None, None))), "{bytes:?}");
    }
    assert_eq!(frame(1, &[&field(1, &[0xff])]).unwrap_err().error.details["field"], "key");
    assert_eq!(frame(1, &[]).unwrap_err().error.details["field"], "key");
}

#[test]
fn a_broken_protobuf_append_tells_its_session_too() {
    let (stream, event) = (field(2, b"s"), field(15, &field(15, &field(1, b"1"))));
    let stamp = field(4, &field(1, b"p"));
    let append = |parts: &[&[u8]]| proto::decode_client(field(9, &parts.concat()));
    let session = |producer: Option<&str>| Some((Some(StreamName::parse("s").unwrap()), producer.map(|p| ProducerId::parse(p).unwrap())));
    assert!(append(&[&[0x08, 3], &stream, &stamp, &event]).is_ok());
    let error = append(&[&[0x08, 3], &stream, &stamp, &field(15, &field(15, &[0x30, 1]))]).unwrap_err();
    assert_eq!((error.error.details["field"].as_str(), error.about, error.append), (Some("events[0].removed"), About::Req(3), session(Some("p"))));
    assert_eq!(append(&[&[0x08, 3], &stream]).unwrap_err().append, session(None));
    for unreadable in [&field(2, b"a/b")[..], &[]] {
        assert_eq!(append(&[&[0x08, 3], unreadable, &event]).unwrap_err().append, Some((None, None)));
    }
    assert_eq!(append(&[&stream, &stream, &event]).unwrap_err().append, Some((None, None)));
    assert_eq!(append(&[&stream, &[0x22, 99], &event]).unwrap_err().append, Some((None, None)));
}

#[test]
fn an_append_has_one_list_of_events_wherever_it_stands_among_the_fields() {
    let events = |data: &[&[u8]]| field(15, &data.iter().flat_map(|d| field(15, &field(1, d))).collect::<Vec<_>>());
    let bytes = field(9, &[events(&[b"1", b"2"]), vec![0x08, 3], field(2, b"s")].concat());
    let ClientFrame::Append { req: 3, request } = proto::decode_client(bytes).unwrap() else { panic!("no append") };
    assert_eq!(request.events.iter().map(|e| e.data.to_vec()).collect::<Vec<_>>(), [b"1", b"2"]);
    let twice = field(9, &[vec![0x08, 3], field(2, b"s"), events(&[b"1"]), events(&[b"2"])].concat());
    let error = proto::decode_client(twice).unwrap_err();
    assert_eq!((error.error.code, error.error.details["field"].as_str()), (Code::BadParameter, Some("events")));
}

#[test]
fn data_is_kept_byte_for_byte_without_the_white_space_around_it() {
    let text = "{\"t\":\"append\",\"req\":1,\"stream\":\"s\",\"events\":[{\"data\" :\n { \"a\":1.0, \"a\" : [ ] }\t}, {\"data\":null}]}";
    let ClientFrame::Append { request, .. } = json::decode_client(text).unwrap() else { panic!("no append") };
    assert_eq!(request.events.iter().map(|e| e.data.to_vec()).collect::<Vec<_>>(), [&b"{ \"a\":1.0, \"a\" : [ ] }"[..], b"null"]);
}

#[test]
fn text_and_bytes_come_as_strings_with_their_encoding() {
    let text = r#"{"t":"append","req":1,"stream":"s","events":[{"data":"a\n\u00e9","encoding":"utf8"},{"data":"AP8=","encoding":"base64"},{"data":"x","encoding":"json"}]}"#;
    let ClientFrame::Append { request, .. } = json::decode_client(text).unwrap() else { panic!("no append") };
    let events: Vec<_> = request.events.iter().map(|e| (e.encoding, e.data.to_vec())).collect();
    assert_eq!(events, [(Encoding::Utf8, "a\né".into()), (Encoding::Binary, vec![0, 255]), (Encoding::Json, b"\"x\"".to_vec())]);
}

#[test]
fn the_url_of_one_subscription_speaks_without_sub() {
    let ClientFrame::Ack { sub: 0, offset: 4, .. } = json::decode_client_single(r#"{"t":"ack","offset":4}"#).unwrap() else { panic!("no ack") };
    let error = json::decode_client_single(r#"{"t":"ack","sub":1,"offset":4}"#).unwrap_err();
    assert_eq!((error.error.code, error.about), (Code::UnknownField, About::Sub(1)));
    let live = ServerFrame::Live { sub: 0, next_offset: 58 };
    assert_eq!(json::encode_server_single(&live), r#"{"t":"live","next_offset":58}"#);
    assert_eq!(heard(&json::decode_server(json::encode_server_single(&live)).unwrap().unwrap()), heard(&live));
}

#[test]
fn clients_ignore_what_they_do_not_know() {
    assert!(json::decode_server(r#"{"t":"weather","sub":"sunny"}"#).unwrap().is_none());
    assert!(json::decode_server(r#"{"sub":{},"t":"weather"}"#).unwrap().is_none());
    let live = json::decode_server(r#"{"sub":1,"t":"live","next_offset":5,"mood":{"a":[1]}}"#).unwrap().unwrap();
    assert_eq!(heard(&live), heard(&ServerFrame::Live { sub: 1, next_offset: 5 }));
    assert!(proto::decode_server(field(15, b"x")).unwrap().is_none());
    let live = proto::decode_server(field(4, &[0x08, 1, 0x10, 5, 0x78, 9])).unwrap().unwrap();
    assert_eq!(heard(&live), heard(&ServerFrame::Live { sub: 1, next_offset: 5 }));
}

#[test]
fn nesting_of_a_million_levels_is_refused_and_not_recursed_into() {
    let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
    for text in [
        format!(r#"{{"t":"append","req":1,"stream":"s","events":[{{"data":{deep}}}]}}"#),
        format!(r#"{{"t":"append","req":1,"stream":"s","events":{deep}}}"#),
        format!(r#"{{"t":"append","req":1,"stream":"s","x":{deep},"events":[{{"data":1}}]}}"#),
        format!(r#"{{"t":"commit","req":1,"acks":[{{"stream":{deep}}}]}}"#),
        deep.clone(),
    ] {
        assert!(json::decode_client(&text).is_err());
    }
    assert!(json::decode_server(format!(r#"{{"t":"live","sub":1,"next_offset":5,"new":{deep}}}"#)).is_ok());
}

#[test]
fn rest_bodies_are_read_like_frames() {
    let body =
        json::parse_append_body(br#"{"events":[{"data":1}],"expected_next_offset":41,"producer":{"id":"p1","epoch":3,"seq":17},"stream_id":7}"#).unwrap();
    assert_eq!((body.expected_next_offset, body.producer.unwrap().seq, body.stream_id), (Some(41), 17, Some(StreamId(7))));
    assert_eq!(json::parse_append_json(br#"{"events":[{"data":1}],"stream_id":7}"#).unwrap_err().code, Code::UnknownField);
    assert_eq!(json::parse_append_json(br#"{"events":[{"data":1}]}"#).unwrap().0.count(), 1);
    assert_eq!(json::parse_commit_json(br#"{"acks":[],"appends":[{"stream":"s","events":[{"data":1}]}]}"#).unwrap().appends.len(), 1);
    assert_eq!(json::parse_commit_json(br#"{"req":1}"#).unwrap_err().code, Code::UnknownField);
    assert_eq!(json::parse_events_json(br#" [{"data":1},{"data":2}] "#).unwrap().count(), 2);
    assert_eq!(json::parse_events_json(br#" {"data":1} "#).unwrap().count(), 1);
    assert_eq!(json::parse_events_json(b"{\"data\":1").unwrap_err().code, Code::JsonParsingFailed);
    assert_eq!(json::parse_events_json(br#"[{"data":1},{"data":1,"headers":7}]"#).unwrap_err().details["field"], "events[1].headers");
}

#[test]
fn ndjson_lines_are_events_or_their_data() {
    let events = json::parse_ndjson(b"{\"type\":\"a\",\"data\":1}\r\n\n {\"data\":2}\n", json::Lines::Events).unwrap();
    assert_eq!(events.iter().map(|e| (e.kind.to_owned(), e.data.to_vec())).collect::<Vec<_>>(), [("a".into(), b"1".to_vec()), ("".into(), b"2".to_vec())]);
    let events = json::parse_ndjson(b"{\"type\":\"a\"}\r\n\"x\"\n", json::Lines::Data).unwrap();
    assert_eq!(events.iter().map(|e| e.data.to_vec()).collect::<Vec<_>>(), [&b"{\"type\":\"a\"}"[..], b"\"x\""]);
    for (body, lines, code) in [
        (&b"{\"data\":1}\n{\"data\":1"[..], json::Lines::Events, Code::JsonParsingFailed),
        (b"{\"data\":1}\n{\"x\":1}", json::Lines::Events, Code::BadParameter),
        (b"1\n{", json::Lines::Data, Code::JsonParsingFailed),
    ] {
        let error = json::parse_ndjson(body, lines).unwrap_err();
        assert_eq!(error.code, code, "{error}");
        assert!(error.details["field"].as_str().unwrap().starts_with("events[1]"), "{error}");
    }
    assert!(json::parse_ndjson(b"\n\n", json::Lines::Data).is_err());
}

#[test]
fn an_error_in_a_line_says_which_line_which_field_and_which_byte() {
    use json::Lines::{Data, Events};
    let deep = format!("1\n{}{}", "[".repeat(33), "]".repeat(33));
    // The body and how it is read; code, line, field, column.
    type Row<'a> = (&'a [u8], json::Lines, Code, u64, &'a str, Option<u64>);
    let rows: [Row<'_>; 9] = [
        (b"{\"data\":1}\n\n  {\"data\":x}\n", Events, Code::JsonParsingFailed, 3, "events[1]", Some(11)),
        (b"\r\n{\"data\":1,\"colour\":2}", Events, Code::UnknownField, 2, "events[0].colour", None),
        (b"{\"data\":1}\n{\"data\":1,\"headers\":{\"a\":1}}\n", Events, Code::BadParameter, 2, "events[1].headers.a", None),
        (b"{\"data\":1,\"type\":\"a\",\"type\":\"b\"}", Events, Code::BadParameter, 1, "events[0].type", None),
        (b"7\n", Events, Code::BadParameter, 1, "events[0]", None),
        (b"{\"data\":\"\xff\"}", Events, Code::JsonParsingFailed, 1, "events[0]", Some(10)),
        (b"1\n\n2\n 3 4", Data, Code::JsonParsingFailed, 4, "events[2].data", Some(4)),
        (b"\"a\xff\"", Data, Code::JsonParsingFailed, 1, "events[0].data", Some(3)),
        (deep.as_bytes(), Data, Code::BadParameter, 2, "events[1].data", None),
    ];
    for (body, lines, code, line, field, column) in rows {
        let error = json::parse_ndjson(body, lines).unwrap_err();
        assert_eq!((error.code, error.details["line"].as_u64(), error.details["field"].as_str()), (code, Some(line), Some(field)), "{error}");
        assert_eq!(error.details.get("column").and_then(|c| c.as_u64()), column, "{error}");
        assert!(error.message.starts_with(&format!("Line {line}: ")) && !error.message.contains("line 1 column"), "{error}");
    }
    let found_later = crate::types::Error::bad("events[1].data", "events[1].data is too much.");
    assert_eq!(json::in_its_line(found_later, b"1\n\n\n2\n").details["line"], 4);
    assert!(!json::in_its_line(crate::types::Error::bad("events", "Too many."), b"1").details.contains_key("line"));
}

#[test]
fn a_body_that_is_not_json_says_where() {
    let error = json::parse_append_body(b"{\"events\":[\n {\"data\":1},\n {\"data\":]}").unwrap_err();
    assert_eq!((error.code, &error.details["line"], &error.details["column"]), (Code::JsonParsingFailed, &3.into(), &10.into()));
    let error = json::parse_append_body(b"{\n\"a\xff\"}").unwrap_err();
    assert_eq!((error.code, &error.details["line"], &error.details["column"]), (Code::JsonParsingFailed, &2.into(), &3.into()));
}

#[test]
fn an_append_of_ten_thousand_and_one_json_events_is_too_large() {
    let body = |n: usize| format!("[{}]", vec!["{\"data\":1}"; n].join(","));
    assert_eq!(json::parse_events_json(body(10_000).as_bytes()).unwrap().count(), 10_000);
    let error = json::parse_events_json(body(10_001).as_bytes()).unwrap_err();
    assert_eq!((error.code, error.details["field"].as_str()), (Code::TooLarge, Some("events")));
}

#[test]
fn all_json_readers_of_a_batch_share_one_rendering() {
    let mut builder = EventsBuilder::default();
    builder.push(&EventRef { data: b"{\n}", ..EventRef::default() }).unwrap();
    let stamp = Stamp { base_offset: 3, time: TimeUs(0), log_epoch: 1, author_user: 1, author_source: 0, bytes_before: 0 };
    let batch = Arc::new(builder.finish().unwrap().stamp(StreamId(1), stamp));
    let slice = Slice::of(batch.clone(), 0..10).unwrap();
    let mut out = Vec::new();
    json::events_json(&mut out, &[slice]);
    let shown = "{\"offset\":3,\"time\":\"1970-01-01T00:00:00.000000Z\",\"log_epoch\":1,\"type\":\"\",\"key\":\"\",\"headers\":{},\"data\":{\n},\"encoding\":\"json\",\"size\":3,\"author\":{\"user_id\":1,\"source_id\":null}}";
    assert_eq!(String::from_utf8(out).unwrap(), shown);
    assert_eq!(batch.rendered(|_| panic!("rendered twice")).ends, [shown.len() as u32 + 1]);
}

#[test]
fn the_descriptors_hold_both_files_of_the_protocol() {
    let names = String::from_utf8_lossy(proto::DESCRIPTORS);
    assert!(names.contains("tidelog/v1/event.proto") && names.contains("tidelog/v1/session.proto") && names.contains("tidelog/v1/broker.proto"));
    assert!(!names.contains("tidelog/store"), "how rows are stored is not told");
}

#[test]
fn what_is_refused_is_said_back_short_however_long_it_was() {
    let long = "n".repeat(1 << 20);
    let header = format!(r#"{{"t":"append","req":1,"stream":"s","events":[{{"data":1,"headers":{{"{long}":1}}}}]}}"#);
    for text in [format!(r#"{{"t":"ping","{long}":1}}"#), format!(r#"{{"t":"ping","{long}":1,"{long}":1}}"#), header] {
        let error = json::decode_client(&text).unwrap_err().error;
        let said = error.message.len() + error.details["field"].as_str().unwrap().len();
        assert!(said < 500 && error.message.contains("nnnn"), "{said} bytes");
    }
    let odd = r#"{"t":"append","req":1,"stream":"s","events":[{"data":1,"headers":{"a\r\nforged":1}}]}"#;
    let error = json::decode_client(odd).unwrap_err().error;
    assert_eq!(error.message, "events[0].headers.a\u{fffd}\u{fffd}forged must be a string.", "nor can it end a line");
    let error = json::decode_server(format!(r#"{{"t":"live","next_offset":"{long}"}}"#)).unwrap_err();
    assert!(error.error.message.len() < 500 && error.error.message.contains("at line 1"), "{} bytes", error.error.message.len());
}

#[test]
fn received_events_beyond_the_last_offset_are_an_error_and_no_panic() {
    let event = |offset: u64| format!(r#"{{"offset":{offset},"time":"2026-01-26T10:00:00Z","data":1}}"#);
    for (offset, read) in [(u64::MAX, false), (u64::MAX - 1, false), (u64::MAX - 2, true)] {
        let text = format!(r#"{{"t":"events","sub":1,"stream":"s","events":[{}]}}"#, event(offset));
        assert_eq!(json::decode_server(text).is_ok(), read, "{offset}");
    }
}

#[test]
fn t6_a_commit_with_a_list_longer_than_any_may_be_is_refused_before_the_list_is_built() {
    // Two bytes each, which would become sixty: 8 MiB of them half a gigabyte.
    let lists = [(3u32, "acks", limits::COMMIT_ACKS), (4, "appends", limits::COMMIT_APPENDS), (5, "checks", limits::COMMIT_CHECKS)];
    for (field, name, limit) in lists {
        let mut body = vec![0x08, 0x01];
        body.extend([(field as u8) << 3 | 2, 0].repeat(limit + 1));
        let mut bytes = vec![0x52];
        varint::put(&mut bytes, body.len() as u64);
        bytes.extend(body);
        let error = proto::decode_client(&bytes).unwrap_err().error;
        assert_eq!((error.code, error.rule.as_deref(), error.details["field"].as_str()), (Code::TxnTooLarge, Some("T-6"), Some(name)));
    }
    let ack = r#"{"stream":"s","subscription":"b","epoch":1,"offset":0}"#;
    let acks = |count: usize| json::decode_client(format!(r#"{{"t":"commit","req":1,"acks":[{}]}}"#, vec![ack; count].join(",")));
    assert!(acks(limits::COMMIT_ACKS).is_ok());
    let error = acks(limits::COMMIT_ACKS + 1).unwrap_err().error;
    assert_eq!((error.code, error.rule.as_deref(), error.details["limit"].as_u64()), (Code::TxnTooLarge, Some("T-6"), Some(limits::COMMIT_ACKS as u64)));
}
