//! Random events and batches for property tests.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Batch, Events, EventsBuilder, Stamp};
use crate::types::{Encoding, EventRef, Removed, StreamId, TimeUs};

/// An event that owns its parts.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub data: Vec<u8>,
    pub encoding: Encoding,
    pub kind: String,
    pub key: String,
    pub headers: Vec<(String, String)>,
}

impl Sample {
    pub fn json(data: &str) -> Self {
        Self { data: data.into(), encoding: Encoding::Json, kind: String::new(), key: String::new(), headers: Vec::new() }
    }

    pub fn event(&self) -> EventRef<'_> {
        EventRef {
            data: &self.data,
            encoding: self.encoding,
            kind: &self.kind,
            key: &self.key,
            headers: self.headers.iter().map(|(n, v)| (&**n, &**v)).collect(),
            removed: Removed::No,
        }
    }
}

/// Text with everything that needs escaping.
pub(crate) fn text(max: usize) -> impl Strategy<Value = String> {
    vec(
        prop_oneof![6 => any::<char>(), 6 => proptest::char::range(' ', '~'), 1 => Just('"'), 1 => Just('\\'), 1 => proptest::char::range('\0', '\u{1f}')],
        0..max,
    )
    .prop_map(|chars| chars.into_iter().collect())
}

fn json_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|b| b.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        Just("1.50e+3".to_owned()),
        Just("123456789012345678901234567890".to_owned()),
        text(12).prop_map(|t| serde_json::to_string(&t).unwrap()),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            // White space, line ends and keys given twice are the sender's business.
            vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" ,\n"))),
            vec((text(4), inner), 0..4).prop_map(|items| {
                let items: Vec<_> = items.iter().map(|(k, v)| format!("{}:\r\n{v}", serde_json::to_string(k).unwrap())).collect();
                format!("{{ {} }}", items.join(","))
            }),
        ]
    })
}

pub(crate) fn sample() -> impl Strategy<Value = Sample> {
    let data = prop_oneof![
        json_value().prop_map(|t| (Encoding::Json, t.into_bytes())),
        text(40).prop_map(|t| (Encoding::Utf8, t.into_bytes())),
        vec(any::<u8>(), 0..60).prop_map(|b| (Encoding::Binary, b)),
    ];
    (data, text(10), text(10), proptest::collection::btree_map("[a-z\"\\\\é]{1,6}", text(8), 0..4)).prop_map(|((encoding, data), kind, key, headers)| Sample {
        data,
        encoding,
        kind,
        key,
        headers: headers.into_iter().rev().collect(),
    })
}

pub(crate) fn samples(max: usize) -> impl Strategy<Value = Vec<Sample>> {
    vec(sample(), 1..=max)
}

pub(crate) fn build(samples: &[Sample]) -> Events {
    let mut builder = EventsBuilder::default();
    for sample in samples {
        builder.push(&sample.event()).unwrap();
    }
    builder.finish().unwrap()
}

pub(crate) fn stamp() -> impl Strategy<Value = Stamp> {
    let number = prop_oneof![Just(0), Just(1), 0u64..1 << 53];
    // A clock before 1970 is odd but must not break the prefix.
    let time = prop_oneof![Just(0i64), Just(-1), 0..253_402_207_200_000_000i64];
    (0u64..1 << 52, time, number.clone(), number.clone(), number, 0u64..1 << 62).prop_map(
        |(base_offset, time, log_epoch, author_user, author_source, bytes_before)| Stamp {
            base_offset,
            time: TimeUs(time),
            log_epoch,
            author_user,
            author_source,
            bytes_before,
        },
    )
}

/// A stamped batch and what is in it.
pub(crate) fn batch(max: usize) -> impl Strategy<Value = (Arc<Batch>, Vec<Sample>)> {
    (samples(max), stamp()).prop_map(|(samples, stamp)| (Arc::new(build(&samples).stamp(StreamId(7), stamp)), samples))
}
