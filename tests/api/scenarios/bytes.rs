//! What is appended is what is read, to the byte; what is over a limit is not stored at all.

use serde_json::json as value;

use super::stage::Stage;
use super::values::{Event, List, New, binary, json, numbers, text, to};

/// Appends and reads back; all that a client gave must be there.
async fn round_trip(s: &mut Stage<'_>, events: Vec<New>) {
    let stream = s.create("orders").await;
    let stored = s.append("orders", events.clone()).await.ok();
    assert_eq!((stored.first, stored.count, stored.duplicate), (Some(0), events.len() as u64, false));
    let List(read) = s.read("orders", 0, 1000).await.ok();
    let expected = (0..).zip(&events).map(|(offset, new)| {
        let New { data, encoding, kind, key, headers } = new.clone();
        Event { offset, time: read[0].time, log_epoch: 1, kind, key, headers, data, encoding, author: (1, 0) }
    });
    assert_eq!(read, expected.collect::<Vec<_>>());
    let bytes: usize = events.iter().map(|e| e.data.len()).sum();
    let seen = s.describe("orders").await.ok();
    assert_eq!((seen.id, seen.next_offset, seen.bytes), (stream.id, events.len() as u64, bytes as u64));
}

pub async fn an_event_comes_back_byte_for_byte_in_every_encoding(s: &mut Stage<'_>) {
    let every_byte: Vec<u8> = (0..=255).collect();
    let events = vec![
        json("{\"total\":12}"),
        json("null"),
        json("\"\""),
        text("Grüße, 世界 🦀"),
        text("line\nline\r\n\ttab \"quoted\" \\ back \u{0} nul \u{7f} \u{2028} end"),
        text("{\"not\": \"read\"}"),
        text(""),
        binary(&every_byte),
        binary(b"\x00"),
        binary(b""),
        text(&"long ".repeat(50_000)),
        binary(&every_byte.repeat(400)),
    ];
    round_trip(s, events).await;
}

pub async fn json_data_keeps_its_white_space_numbers_and_escapes(s: &mut Stage<'_>) {
    let deep = format!("{}1{}", "[".repeat(32), "]".repeat(32));
    let events = vec![
        json("{ \"b\" : 1 ,\t\"a\":[ ] }"),
        json("{\n  \"indented\": true\r\n}"),
        json("{\"twice\":1,\"twice\":2}"),
        json("1.0"),
        json("-0"),
        json("1E+2"),
        json("12345678901234567890123456789012345678901234567890.000000000000000000000000000001"),
        json("9007199254740993"),
        json("\"\\u00e9 é \\/ / \\ud83e\\udd80 \\u0000\""),
        json("\"</script>\u{2028}\""),
        json(&deep),
    ];
    round_trip(s, events).await;
}

pub async fn headers_keep_their_order_and_names_their_letters(s: &mut Stage<'_>) {
    let many = (0..32).rev().fold(json("0"), |event, i| event.header(&format!("h{i}"), &i.to_string()));
    let events = vec![
        json("1").kind("order.created").key("o-1").header("zeta", "1").header("alpha", "2").header("Alpha", "3").header("mid", ""),
        json("2").kind("größer als 世界 🦀").key("schlüssel \"mit\" \\ und\nZeile").header("naïve ключ", "wert \u{1f600}"),
        json("3").kind(&"t".repeat(256)).key(&"k".repeat(4096)).header("h", &"v".repeat(8191)),
        json("4"),
        many,
    ];
    round_trip(s, events).await;
}

pub async fn offsets_are_dense_and_pages_begin_anywhere_in_a_batch(s: &mut Stage<'_>) {
    s.create("orders").await;
    let mut next = 0;
    for size in [1, 7, 1, 100, 3] {
        s.fill("orders", next..next + size).await;
        next += size;
    }
    s.append("orders", numbers(112..113)).await.is("stored 112..=112").ok();
    for (from, limit, count) in [(0, 1000, 113), (0, 1, 1), (3, 4, 4), (5, 10, 10), (8, 3, 3), (50, 1000, 63), (112, 5, 1), (113, 5, 0)] {
        let List(events) = s.read("orders", from, limit).await.ok();
        assert_eq!(events.len(), count, "from {from}, at most {limit}");
        assert!(events.iter().all(|e| e.data == e.offset.to_string().as_bytes()), "every event has its own data");
    }
}

pub async fn one_event_is_read_by_its_place(s: &mut Stage<'_>) {
    s.create("orders").await;
    s.read_one("orders", "last").await.refused("stream_empty -");
    s.append("orders", [json("{ \"n\" : 0 }").kind("a").header("z", "1").header("a", "2"), text("one"), binary(b"\xff")]).await.ok();
    s.read_one("orders", "0").await.is("0: { \"n\" : 0 } type=a z:1 a:2").ok();
    s.read_one("orders", "first").await.is("0: { \"n\" : 0 } type=a z:1 a:2").ok();
    s.read_one("orders", "1").await.is("1: \"one\"").ok();
    s.read_one("orders", "last").await.is("2: base64 ff").ok();
    s.read_one("orders", "-3").await.is("0: { \"n\" : 0 } type=a z:1 a:2").ok();
    s.read_one("orders", "3").await.refused("not_found -");
    s.read_one("orders", "-4").await.refused("not_found -");
    s.trim("orders", 1).await.ok();
    s.read_one("orders", "0").await.refused("offset_trimmed -");
    s.read_one("orders", "first").await.is("1: \"one\"").ok();
}

pub async fn an_event_over_the_limits_is_refused_and_nothing_is_stored(s: &mut Stage<'_>) {
    s.create("orders").await;
    let largest = "x".repeat(1024 * 1024);
    let over: Vec<(Vec<New>, &str)> = vec![
        (vec![json("0"), text(&format!("{largest}x"))], "too_large -"),
        (vec![json("0"), json("1").kind(&"t".repeat(257))], "too_large -"),
        (vec![json("1").key(&"k".repeat(4097))], "too_large -"),
        (vec![(0..33).fold(json("1"), |event, i| event.header(&format!("h{i}"), ""))], "too_large -"),
        (vec![json("1").header("h", &"v".repeat(8192))], "too_large -"),
        (vec![json("1").header("", "v")], "bad_parameter -"),
        (vec![json(&format!("{}1{}", "[".repeat(33), "]".repeat(33)))], "bad_parameter -"),
        (vec![], "bad_parameter -"),
        (numbers(0..10_001), "too_large -"),
        (vec![text(&largest); 4], "too_large -"),
    ];
    for (events, code) in over {
        let why = s.append("orders", events).await.refused(code);
        assert!(why.details.contains_key("field"), "{why}");
    }
    s.read("orders", 0, 10).await.is("").ok();
    s.append("orders", [text(&largest)]).await.is("stored 0..=0").ok();
    s.append("orders", numbers(0..10_000)).await.is("stored 1..=10000").ok();
}

pub async fn a_stream_takes_events_up_to_its_own_limit(s: &mut Stage<'_>) {
    s.create_with("small", value!({"event_max_bytes": 10})).await.ok();
    s.append("small", [text("0123456789"), json("\"89012345\""), binary(b"0123456789")]).await.is("stored 0..=2").ok();
    for event in [text("01234567890"), json("\"890123456\""), binary(b"01234567890"), json("[1, 2, 3,4]")] {
        let why = s.append("small", [text("ok"), event]).await.refused("too_large P-9");
        assert_eq!(why.details["limit"], 10);
    }
    s.put(to("small", [text("a character takes its bytes: é")])).await.refused("too_large P-9");
    s.describe("small").await.is("Ready 0..3, 30 bytes").ok();
    s.create_with("over", value!({"event_max_bytes": 1024 * 1024 + 1})).await.refused("bad_parameter -");
}
