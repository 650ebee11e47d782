//! Each checker finds the fault it is there for, in decoders that were made wrong on purpose, within the cases of a short run.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tidelog::broker::ack_token::AckTokens;
use tidelog::types::{Applied, Code, Error, StreamId, batch};
use tidelog::wire::frame::{About, ClientFrame, FrameError};
use tidelog::wire::{json, proto};

use crate::corpus::golden;
use crate::engine::{Found, Heard, Plan, Target, Verdict, search, shrink};
use crate::gauge::{Bound, Gauge};
use crate::mutate::Shape;
use crate::promises::{refused, taken, told};
use crate::targets::{batches, frames, routes, stored, tokens};

/// Looks with a short run's means; it must be found, and as what it is.
#[track_caller]
fn found(shape: Shape, seeds: fn() -> Vec<Vec<u8>>, check: fn(&[u8], &mut Gauge) -> Verdict, kind: &str) -> Found {
    let target = Target { name: "control", shape, bound: Bound::USUAL, seeds, check, cases: 25_000 };
    let plan = Plan { seed: 1, cases: target.cases, time: Duration::from_secs(20) };
    let (stats, found) = search(&target, &plan);
    let found = found.unwrap_or_else(|| panic!("{} inputs did not find it", stats.cases));
    assert_eq!(found.kind, kind, "{}", found.why);
    let before = found.input.len();
    let smaller = shrink(&target, found);
    assert!(smaller.input.len() <= before);
    println!("found after {} inputs, {before} bytes, shrunk to {}: {}", stats.cases, smaller.input.len(), smaller.why);
    smaller
}

#[test]
fn a_panic_on_a_rare_number_is_found() {
    let small = found(
        Shape::Json,
        || golden("→"),
        |input, gauge| {
            let read = gauge.decode(|| json::decode_client(input));
            if let Ok(ClientFrame::Ack { offset, .. }) = read {
                assert!(offset < 9_007_199_254_740_991, "an offset has a successor");
            }
            taken("frame")
        },
        "panic",
    );
    assert!(small.why.contains("an offset has a successor"), "{}", small.why);
    assert!(small.input.len() < 80, "it is shrunk to the frame alone: {}", small.input.escape_ascii());
}

#[test]
fn a_length_that_is_believed_is_found() {
    found(
        Shape::Proto,
        frames::client_messages,
        |input, gauge| {
            let claimed = input.get(1..).map_or(0, |mut rest| tidelog::types::varint::take(&mut rest).unwrap_or(0));
            drop(gauge.decode(|| Vec::<u8>::with_capacity(claimed.min(1 << 24) as usize)));
            taken("room")
        },
        "memory",
    );
}

#[test]
fn time_that_grows_with_the_square_is_found() {
    found(
        Shape::Json,
        || golden("→"),
        |input, gauge| {
            let names: Vec<_> = input.split(|b| *b == b',').collect();
            let equal = gauge.decode(|| names.iter().map(|a| names.iter().filter(|b| std::hint::black_box(a) == *b).count()).sum::<usize>());
            taken(if equal > names.len() { "twice" } else { "once" })
        },
        "time",
    );
}

#[test]
fn a_value_that_does_not_survive_writing_and_reading_is_found() {
    found(
        Shape::Json,
        || golden("→"),
        |input, gauge| {
            let forgetful = |text: &str| {
                json::decode_client(text).map(|mut frame| {
                    if let ClientFrame::Subscribe { request, .. } = &mut frame {
                        request.rewind = false;
                    }
                    frame
                })
            };
            frames::client(gauge.decode(|| json::decode_client(input)), forgetful)
        },
        "promise",
    );
}

#[test]
fn two_forms_that_disagree_about_large_numbers_are_found() {
    found(
        Shape::Json,
        || golden("→"),
        |input, _| {
            let Some(bytes) = serde_json::from_slice(input).ok().and_then(|value| frames::as_message(&value)) else { return taken("other") };
            let short = json::decode_client(input).map(|mut frame| {
                if let ClientFrame::Ack { offset, .. } = &mut frame {
                    *offset = u64::from(*offset as u32);
                }
                frame
            });
            frames::agree(short, proto::decode_client(&bytes))
        },
        "promise",
    );
}

#[test]
fn an_error_that_gives_the_input_back_is_found() {
    found(
        Shape::Json,
        || golden("→"),
        |input, _| match std::str::from_utf8(input) {
            Ok(text) if json::decode_client(text).is_err() => refused(&Error::bad("frame", format!("This is no frame: {}.", text.escape_debug()))),
            _ => taken("frame"),
        },
        "promise",
    );
}

#[test]
fn an_error_without_a_sentence_or_with_another_verdict_is_found() {
    let word = Error::bad("frame", "bad");
    let mut perhaps = Error::bad("frame", "This may or may not have happened.");
    perhaps.applied = Applied::Unknown;
    let foreign = Error::new(Code::StorageFailed, "A decoder has no storage.");
    for wrong in [word, perhaps, foreign] {
        assert!(refused(&wrong).is_err(), "{wrong}");
    }
    assert!(told("").is_err());
    let good = FrameError::of_other(Error::bad("frame", "This is no frame; send one."), About::Connection);
    assert!(matches!(refused(&good.error), Ok(Heard::Refused(_))));
}

#[test]
fn a_stored_batch_that_is_read_without_its_crc_is_found() {
    found(
        Shape::Bytes,
        || batches::some_batches().iter().map(|b| b.value().to_vec()).collect(),
        |input, _| {
            let careless = |value: &[u8]| batch::received(StreamId(7), value.get(batch::HEADER_BYTES..).unwrap_or_default());
            match careless(input) {
                Ok(batch) => batches::flips(input.len(), input, &batches::listed(&batch), &careless).and_then(|()| taken("batch")),
                Err(why) => told(&why),
            }
        },
        "promise",
    );
    // And the true reader refuses the very same.
    let batch = &batches::some_batches()[0];
    let true_reader = |value: &[u8]| batch::Batch::from_stored(batch.stream, batch.head.base_offset, Bytes::copy_from_slice(value));
    assert_eq!(batches::flips(1, batch.value(), &batches::listed(batch), &true_reader), Ok(()));
}

#[test]
fn a_token_of_which_not_every_byte_counts_is_found() {
    found(
        Shape::Text,
        tokens::genuine,
        |input, _| {
            let Ok(token) = std::str::from_utf8(input) else { return told("not text") };
            let (stream, subscription) = tokens::names();
            let genuine = |run: &tidelog::broker::ack_token::Run| AckTokens::new(b"secret").write(&stream, &subscription, run);
            // Looks at the front only.
            let lazy = tokens::runs().into_iter().find(|run| token.get(..70) == Some(&genuine(run)[..70]));
            tokens::judge(token, lazy.ok_or_else(|| Error::new(Code::BadAckToken, "The ack_token is foreign.")))
        },
        "promise",
    );
}

#[test]
fn keys_that_sort_by_their_last_byte_first_are_found() {
    found(
        Shape::Bytes,
        || vec![vec![0; 32], (0..32).collect()],
        |input, _| {
            let little = |(stream, base): (u64, u64)| [stream.to_le_bytes(), base.to_le_bytes()].concat().try_into().expect("sixteen bytes");
            stored::order(input, little).and_then(|()| taken("in order"))
        },
        "promise",
    );
}

#[test]
fn an_answer_that_is_no_answer_of_ours_is_found() {
    let none = HeaderMap::new();
    let judge = |status, body: &str| routes::judge(StatusCode::from_u16(status).expect("a status"), &none, Some(body.as_bytes()), &none);
    let error = |code: &str, applied: &str, sentence: &str| {
        format!(
            r#"{{"type":"error","error":"{sentence}","error_code":400,"metadata":{{"code":"{code}","applied":"{applied}","retry":"never","details":{{}}}}}}"#
        )
    };
    assert!(matches!(judge(400, &error("bad_parameter", "no", "Field name is missing.")), Ok(Heard::Refused(_))));
    assert!(matches!(judge(200, "{}"), Ok(Heard::Taken(_))));
    for wrong in [
        judge(500, "Internal Server Error"),
        judge(500, &error("internal", "no", "The broker made a mistake.")),
        judge(503, &error("outcome_unknown", "unknown", "The write failed halfway.")),
        judge(400, &error("bad_parameter", "unknown", "Field name is missing.")),
        judge(400, &error("brand_new", "no", "Field name is missing.")),
        judge(400, &error("bad_parameter", "no", "")),
        judge(400, &error("bad_parameter", "no", &"x".repeat(5000))),
    ] {
        assert!(wrong.is_err());
    }
}
