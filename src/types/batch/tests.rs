//! The batch codec by its properties: what encodes decodes, what is forged or damaged is refused, slices are exact.

use proptest::prelude::*;
use proptest::sample::Index;

use super::samples::{Sample, batch, build, sample, samples, stamp};
use std::sync::Arc;

use super::*;
use crate::types::varint::{self, Wire};
use crate::types::*;

fn field(out: &mut Vec<u8>, number: u32, content: &[u8]) {
    varint::put(out, u64::from(number) << 3 | 2);
    varint::put(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// `Events` bytes with one event of these content bytes.
fn one(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    field(&mut out, 15, content);
    out
}

/// The content bytes of an event.
fn content(sample: &Sample) -> Vec<u8> {
    let events = build(std::slice::from_ref(sample));
    let mut rest = events.encoded();
    match varint::take_field(&mut rest) {
        Some((15, Wire::Bytes(content))) => content.to_vec(),
        other => panic!("{other:?}"),
    }
}

fn refused(bytes: &[u8]) -> Error {
    Events::from_wire(bytes).expect_err("must be refused")
}

proptest! {
    #[test]
    fn what_the_builder_writes_the_door_reads(samples in samples(12)) {
        let built = build(&samples);
        let read = Events::from_wire(built.encoded()).unwrap();
        prop_assert_eq!(read.encoded(), built.encoded());
        prop_assert_eq!(read.fingerprint(), built.fingerprint());
        prop_assert_eq!((read.count(), read.data_bytes(), read.largest()), (built.count(), built.data_bytes(), built.largest()));
        let events: Vec<_> = samples.iter().map(Sample::event).collect();
        prop_assert_eq!(read.iter().collect::<Vec<_>>(), events);
    }

    #[test]
    fn the_fingerprint_tells_different_batches_apart(a in samples(3), b in samples(3)) {
        let (a, b) = (build(&a), build(&b));
        prop_assert_eq!(a.fingerprint() == b.fingerprint(), a.iter().eq(b.iter()));
    }

    #[test]
    fn the_door_takes_any_bytes_without_a_panic(bytes: Vec<u8>, content: Vec<u8>) {
        let _ = Events::from_wire(&bytes);
        let _ = Events::from_wire(&one(&content));
        let _ = received(StreamId(1), &bytes);
        let _ = Batch::from_stored(StreamId(1), 0, bytes.into());
    }

    #[test]
    fn what_the_door_lets_in_survives_storage(samples in samples(3), at: Index, byte: u8) {
        // Nearly right bytes find more than random ones.
        let mut bytes = build(&samples).encoded().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(events) = Events::from_wire(&bytes) {
            let before: Vec<_> = events.iter().map(|e| (e.kind.to_owned(), e.data.to_vec())).collect();
            prop_assert_eq!(before.len(), events.count() as usize);
            let batch = events.stamp(StreamId(1), Stamp { base_offset: 5, time: TimeUs(1), log_epoch: 1, author_user: 1, author_source: 0, bytes_before: 0 });
            let batch = Batch::from_stored(StreamId(1), 5, batch.value().clone()).unwrap();
            let after: Vec<_> = batch.events().map(|(_, e)| (e.kind.to_owned(), e.data.to_vec())).collect();
            prop_assert_eq!(before, after);
        }
    }

    #[test]
    fn a_stamped_batch_reads_back_from_storage(samples in samples(8), stamp in stamp()) {
        let batch = build(&samples).stamp(StreamId(9), stamp);
        let read = Batch::from_stored(StreamId(9), stamp.base_offset, batch.value().clone()).unwrap();
        prop_assert_eq!(read.head, batch.head);
        prop_assert_eq!(read.head.count as usize, samples.len());
        prop_assert_eq!(read.head.data_bytes as usize, samples.iter().map(|s| s.data.len()).sum::<usize>());
        let expected: Vec<_> = (stamp.base_offset..).zip(samples.iter().map(Sample::event)).collect();
        prop_assert_eq!(read.events().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn any_flipped_bit_of_a_stored_value_is_refused(samples in samples(3), stamp in stamp(), at: Index, bit in 0u8..8) {
        let batch = build(&samples).stamp(StreamId(9), stamp);
        let mut value = batch.value().to_vec();
        let at = at.index(value.len());
        value[at] ^= 1 << bit;
        prop_assert!(Batch::from_stored(StreamId(9), stamp.base_offset, value.into()).is_err());
    }

    #[test]
    fn a_stored_value_is_refused_when_cut_short_or_under_another_key(samples in samples(3), stamp in stamp(), at: Index) {
        let batch = build(&samples).stamp(StreamId(9), stamp);
        prop_assert!(Batch::from_stored(StreamId(9), stamp.base_offset, batch.value().slice(..at.index(batch.value().len()))).is_err());
        prop_assert!(Batch::from_stored(StreamId(8), stamp.base_offset, batch.value().clone()).is_err());
        prop_assert!(Batch::from_stored(StreamId(9), stamp.base_offset + 1, batch.value().clone()).is_err());
    }

    #[test]
    fn every_part_of_a_batch_encodes_to_a_batch_with_the_same_events((batch, samples) in batch(10), a: Index, b: Index) {
        let head = batch.head;
        let (a, b) = (a.index(samples.len()) as u64, b.index(samples.len()) as u64);
        let range = head.base_offset + a.min(b)..head.base_offset + a.max(b) + 1;
        let slice = Slice::of(batch.clone(), range.clone()).unwrap();
        prop_assert_eq!((slice.from(), slice.to(), slice.count()), (range.start, range.end, range.end - range.start));
        let read = received(StreamId(7), &slice.encode()).unwrap();
        prop_assert_eq!((read.head.base_offset, u64::from(read.head.count)), (range.start, slice.count()));
        prop_assert_eq!((read.head.time, read.head.log_epoch, read.head.author_user, read.head.author_source), (head.time, head.log_epoch, head.author_user, head.author_source));
        prop_assert_eq!(read.events().collect::<Vec<_>>(), slice.events().collect::<Vec<_>>());
        let part = &samples[a.min(b) as usize..=a.max(b) as usize];
        prop_assert_eq!(read.events().map(|(_, e)| e).collect::<Vec<_>>(), part.iter().map(Sample::event).collect::<Vec<_>>());
        prop_assert_eq!(slice.data_bytes(), part.iter().map(|s| s.data.len() as u64).sum::<u64>());
        let before: u64 = samples[..a.min(b) as usize].iter().map(|s| s.data.len() as u64).sum();
        prop_assert_eq!(slice.bytes_before(), head.bytes_before + before);
    }

    #[test]
    fn the_count_in_an_encoded_part_is_that_of_its_events((batch, samples) in batch(10), a: Index) {
        let from = batch.head.base_offset + a.index(samples.len()) as u64;
        let slice = Slice::of(batch, from..u64::MAX).unwrap();
        let bytes = slice.encode();
        let mut rest = &bytes[..];
        let mut count = None;
        while !rest.is_empty() {
            if let Some((2, Wire::Varint(n))) = varint::take_field(&mut rest) { count = Some(n) }
        }
        prop_assert_eq!(count, Some(slice.count()));
    }

    #[test]
    fn the_front_never_exceeds_the_window_but_passes_one_event((batch, samples) in batch(10), a: Index, events in 0u64..12, bytes in 0u64..200) {
        let from = batch.head.base_offset + a.index(samples.len()) as u64;
        let slice = Slice::of(batch, from..u64::MAX).unwrap();
        let front = slice.front(events, bytes);
        prop_assert_eq!(front.from(), slice.from());
        prop_assert!(front.count() >= 1 && front.to() <= slice.to());
        prop_assert!(front.count() == 1 || (front.count() <= events && front.data_bytes() <= bytes), "{} events, {} bytes", front.count(), front.data_bytes());
        if front.to() < slice.to() {
            // The longest: one more would not fit.
            let more = Slice::of(slice.batch().clone(), slice.from()..front.to() + 1).unwrap();
            prop_assert!(more.count() > events || more.data_bytes() > bytes);
            prop_assert_eq!(slice.after(front.to()).unwrap().from(), front.to());
        } else {
            prop_assert!(slice.after(front.to()).is_none());
        }
    }

    #[test]
    fn json_of_any_depth_is_judged_without_a_panic(open in 0usize..80, text in "[\\[\\]{}\",:\\\\a1 ]{0,40}") {
        prop_assert_eq!(check_json(format!("{}{}", "[".repeat(open), "]".repeat(open)).as_bytes()).is_ok(), (1..=32).contains(&open));
        if check_json(text.as_bytes()).is_ok() {
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
    }

    #[test]
    fn bytes_of_an_event_in_any_field_order_are_the_same_event(s in sample()) {
        let mut content = content(&s);
        // `encoding` again at the end instead of where it was: not twice, but elsewhere.
        if s.encoding == Encoding::Json {
            content.extend_from_slice(&[0x10, 0]);
        }
        let events = Events::from_wire(&one(&content)).unwrap();
        prop_assert_eq!(events.iter().collect::<Vec<_>>(), vec![s.event()]);
        prop_assert_eq!(events.fingerprint(), build(std::slice::from_ref(&s)).fingerprint());
    }
}

#[test]
fn a_forged_prefix_field_is_refused_before_or_after_the_events() {
    let good = one(&content(&Sample::json("1")));
    for number in [1u8, 2, 3, 4, 5, 6, 14] {
        for forged in [[&[number << 3, 9][..], &good].concat(), [&good[..], &[number << 3, 9]].concat()] {
            assert_eq!(refused(&forged).code, Code::UnknownField, "field {number}");
        }
    }
    let mut high = good.clone();
    field(&mut high, 99, b"x");
    assert_eq!(refused(&high).code, Code::UnknownField);
}

#[test]
fn removed_is_the_servers_alone_and_unknown_or_repeated_fields_are_refused() {
    let base = content(&Sample { kind: "t".into(), key: "k".into(), encoding: Encoding::Utf8, ..Sample::json("1") });
    let with = |more: &[u8]| refused(&one(&[&base[..], more].concat()));
    assert_eq!(with(&[0x30, 2]).details["field"], "events[0].removed");
    assert_eq!(with(&[0x38, 1]).code, Code::UnknownField);
    for again in [&[0x0a, 1, b'2'][..], &[0x10, 1], &[0x1a, 1, b'x'], &[0x22, 1, b'x']] {
        let error = with(again);
        assert_eq!(error.code, Code::BadParameter);
        assert!(error.message.contains("twice"), "{}", error.message);
    }
    // A wrong wire type: `data` as an integer, `headers` as an integer.
    for wrong in [&[0x08, 1][..], &[0x28, 1]] {
        assert_eq!(refused(&one(wrong)).code, Code::BadParameter);
    }
    assert_eq!(refused(&one(&[0x10, 3])).details["field"], "events[0].encoding");
    // In a header: a name twice, an unknown field.
    for header in [&[0x0a, 1, b'a', 0x0a, 1, b'b'][..], &[0x0a, 1, b'a', 0x1a, 0]] {
        let mut event = base.clone();
        field(&mut event, 5, header);
        assert_eq!(refused(&one(&event)).details["field"], "events[0].headers");
    }
}

#[test]
fn text_that_is_not_utf8_and_data_that_is_not_json_are_refused() {
    for number in [3u32, 4] {
        let mut event = vec![0x0a, 1, b'1'];
        field(&mut event, number, &[0xff]);
        assert_eq!(refused(&one(&event)).code, Code::BadParameter);
    }
    let data = |bytes: &[u8], encoding: u8| {
        let mut event = Vec::new();
        field(&mut event, 1, bytes);
        event.extend_from_slice(&[0x10, encoding]);
        Events::from_wire(&one(&event))
    };
    for bad in [&b""[..], b" ", b"{", b"1 2", b"nul", b"\"\xff\"", b"\"\n\"", b"{\"a\":1,}", b"01", b"NaN", b"\xef\xbb\xbf1"] {
        let error = data(bad, 0).expect_err(&String::from_utf8_lossy(bad));
        assert_eq!((error.code, error.details["field"].as_str()), (Code::BadParameter, Some("events[0].data")));
    }
    assert!(data(b"\xff", 1).is_err());
    assert!(data(b"\xff", 2).is_ok());
    assert!(data(b"", 1).is_ok() && data(b"", 2).is_ok());
    assert!(data(format!("{}1{}", "[".repeat(32), "]".repeat(32)).as_bytes(), 0).is_ok());
    assert!(data(format!("{}1{}", "{\"a\":".repeat(33), "}".repeat(33)).as_bytes(), 0).is_err());
    // Brackets inside strings are no depth.
    assert!(data(format!("\"\\\"{}\"", "[".repeat(100)).as_bytes(), 0).is_ok());
}

#[test]
fn every_limit_of_an_event_holds_at_its_edge() {
    let refuse = |sample: Sample| {
        let mut builder = EventsBuilder::default();
        builder.push(&sample.event()).err().map(|e| (e.code, e.details["field"].as_str().unwrap().to_owned()))
    };
    let bytes = |len: usize| Sample { data: vec![0; len], encoding: Encoding::Binary, ..Sample::json("") };
    let large = |field: &str| Some((Code::TooLarge, format!("events[0].{field}")));
    for (delta, over) in [(-1, false), (0, false), (1, true)] {
        let at = |limit: usize| limit.saturating_add_signed(delta);
        let expect = |field: &str| if over { large(field) } else { None };
        assert_eq!(refuse(bytes(at(limits::EVENT_MAX_BYTES))), expect("data"));
        assert_eq!(refuse(Sample { kind: "t".repeat(at(limits::EVENT_TYPE_BYTES)), ..Sample::json("1") }), expect("type"));
        assert_eq!(refuse(Sample { key: "k".repeat(at(limits::EVENT_KEY_BYTES)), ..Sample::json("1") }), expect("key"));
        let headers = |n: usize, value: usize| (0..n).map(|i| (format!("{i:02}"), "v".repeat(value))).collect();
        assert_eq!(refuse(Sample { headers: headers(at(limits::EVENT_HEADERS), 1), ..Sample::json("1") }), expect("headers"));
        assert_eq!(refuse(Sample { headers: headers(1, at(limits::EVENT_HEADER_BYTES) - 2), ..Sample::json("1") }), expect("headers"));
    }
    let twice = vec![("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())];
    assert_eq!(refuse(Sample { headers: twice, ..Sample::json("1") }), Some((Code::BadParameter, "events[0].headers".into())));
    let unnamed = vec![(String::new(), "1".to_owned())];
    assert_eq!(refuse(Sample { headers: unnamed, ..Sample::json("1") }), Some((Code::BadParameter, "events[0].headers".into())));
}

#[test]
fn an_append_holds_one_to_ten_thousand_events() {
    assert_eq!(refused(b"").code, Code::BadParameter);
    let event = one(&content(&Sample::json("1")));
    assert_eq!(Events::from_wire(&event.repeat(limits::BATCH_MAX_EVENTS - 1)).unwrap().count(), 9_999);
    assert_eq!(Events::from_wire(&event.repeat(limits::BATCH_MAX_EVENTS)).unwrap().count(), 10_000);
    let error = refused(&event.repeat(limits::BATCH_MAX_EVENTS + 1));
    assert_eq!((error.code, error.details["limit"].as_u64()), (Code::TooLarge, Some(10_000)));
}

#[test]
fn an_append_holds_four_mebibytes_encoded() {
    let of = |bytes: usize| {
        // Four events of the largest size but one byte less each, and a small one that fills up to `bytes`.
        let mut builder = EventsBuilder::default();
        let large = vec![0; limits::EVENT_MAX_BYTES - 64];
        for _ in 0..4 {
            builder.push(&EventRef { data: &large, encoding: Encoding::Binary, ..EventRef::default() }).unwrap();
        }
        // Key and length of the event and of its data, and two bytes of encoding: 6 up to a content of 127 bytes, 8 beyond.
        let rest = bytes - builder.encoded_len() - 8;
        builder.push(&EventRef { data: &vec![0; rest], encoding: Encoding::Binary, ..EventRef::default() }).unwrap();
        assert_eq!(builder.encoded_len(), bytes);
        builder.finish()
    };
    assert!(of(limits::BATCH_MAX_BYTES - 1).is_ok());
    assert!(of(limits::BATCH_MAX_BYTES).is_ok());
    assert_eq!(of(limits::BATCH_MAX_BYTES + 1).unwrap_err().code, Code::TooLarge);
}

#[test]
fn a_refused_event_leaves_the_builder_as_it_was() {
    let mut builder = EventsBuilder::default();
    builder.push(&Sample::json("1").event()).unwrap();
    let before = builder.encoded_len();
    builder.push(&Sample::json("{").event()).unwrap_err();
    assert_eq!((builder.len(), builder.encoded_len()), (1, before));
    builder.push(&Sample::json("2").event()).unwrap();
    assert_eq!(builder.finish().unwrap().iter().map(|e| e.data.to_vec()).collect::<Vec<_>>(), [b"1", b"2"]);
}

#[test]
fn the_fingerprint_is_the_documented_one() {
    // formats.md: u32 LE count; per event length and bytes of type and key, number of headers, names and values, encoding, data.
    let s = Sample { kind: "t".into(), key: "kk".into(), headers: vec![("h".into(), "v".into())], ..Sample::json("7") };
    let canonical =
        [&[1u8, 0, 0, 0][..], &[1, 0, 0, 0], b"t", &[2, 0, 0, 0], b"kk", &[1, 0, 0, 0], &[1, 0, 0, 0], b"h", &[1, 0, 0, 0], b"v", &[0], &[1, 0, 0, 0], b"7"]
            .concat();
    assert_eq!(build(&[s]).fingerprint(), xxhash_rust::xxh3::xxh3_128(&canonical));
}

#[test]
fn the_longest_prefix_fits_in_front_of_the_events() {
    let stamp =
        Stamp { base_offset: u64::MAX - 2, time: TimeUs(-1), log_epoch: u64::MAX, author_user: u64::MAX, author_source: u64::MAX, bytes_before: u64::MAX - 1 };
    let batch = build(&[Sample::json("1")]).stamp(StreamId(u64::MAX), stamp);
    let read = Batch::from_stored(StreamId(u64::MAX), u64::MAX - 2, batch.value().clone()).unwrap();
    assert_eq!(read.head, batch.head);
}

#[test]
fn slices_outside_the_batch_are_none() {
    let batch = Arc::new(
        build(&[Sample::json("1"), Sample::json("2")])
            .stamp(StreamId(1), Stamp { base_offset: 10, time: TimeUs(1), log_epoch: 1, author_user: 1, author_source: 0, bytes_before: 0 }),
    );
    for range in [0..10, 12..20, 11..11] {
        assert!(Slice::of(batch.clone(), range).is_none());
    }
    let all = Slice::of(batch.clone(), 0..100).unwrap();
    assert!(all.is_whole());
    assert_eq!(all.encode(), batch.body());
}

#[test]
fn events_whose_keys_and_lengths_are_longer_than_they_need_be_are_stored_so_that_they_are_read() {
    let content = content(&Sample::json("1"));
    let long = [&[0xfa, 0x00, 0x80 | content.len() as u8, 0x80, 0x00][..], &content].concat();
    let events = Events::from_wire(&long).unwrap();
    assert_eq!((events.encoded(), events.iter().count()), (&one(&content)[..], 1));
    let stamp = Stamp { base_offset: 7, time: TimeUs(1), log_epoch: 1, author_user: 1, author_source: 0, bytes_before: 0 };
    let batch = events.stamp(StreamId(1), stamp);
    assert_eq!(Batch::from_stored(StreamId(1), 7, batch.value().clone()).unwrap().events().count(), 1);
}

#[test]
fn a_batch_whose_offsets_or_bytes_go_beyond_the_last_number_is_refused() {
    let stamp = |base_offset, bytes_before| Stamp { base_offset, time: TimeUs(1), log_epoch: 1, author_user: 1, author_source: 0, bytes_before };
    let two = || build(&[Sample::json("1"), Sample::json("2")]);
    for (base, before, read) in [(u64::MAX - 3, 0, true), (u64::MAX - 2, 0, false), (u64::MAX, 0, false), (0, u64::MAX - 1, false), (0, u64::MAX - 2, true)] {
        let batch = two().stamp(StreamId(1), stamp(base, before));
        assert_eq!(Batch::from_stored(StreamId(1), base, batch.value().clone()).is_ok(), read, "{base} {before}");
        assert_eq!(received(StreamId(1), &batch.body()).is_ok(), base < u64::MAX - 2, "{base}");
    }
}

#[test]
fn headers_without_end_are_refused_before_they_take_memory() {
    let many = one(&[&content(&Sample::json("1"))[..], &[0x2a, 0x00].repeat(100_000)].concat());
    let error = refused(&many);
    assert_eq!((error.code, error.details["field"].as_str()), (Code::TooLarge, Some("events[0].headers")));
    assert!(error.message.contains("33 entries"), "it stopped counting there: {}", error.message);
}
