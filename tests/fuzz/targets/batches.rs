//! Events at the door, batches as they are stored, and batches as readers receive them.

use std::sync::Arc;

use bytes::Bytes;
use tidelog::types::batch::{HEADER_BYTES, Stamp, received};
use tidelog::types::{Batch, Encoding, EventRef, Events, EventsBuilder, Slice, StreamId, TimeUs};
use tidelog::wire::json;

use crate::dice::Dice;
use crate::engine::{Target, Verdict};
use crate::gauge::{Bound, Gauge};
use crate::mutate::Shape;
use crate::promises::{events, refused, same, taken, told};

pub const APPENDED: Target = Target {
    name: "appended_events",
    shape: Shape::Proto,
    bound: Bound::USUAL,
    seeds: || some_events().iter().map(|e| e.encoded().to_vec()).collect(),
    check: appended,
    cases: 30_000,
};

pub const RECEIVED: Target = Target {
    name: "received_batch",
    shape: Shape::Proto,
    bound: Bound { per_byte: 48, ..Bound::USUAL },
    seeds: || some_batches().iter().map(|b| b.body().to_vec()).collect(),
    check: received_batch,
    cases: 25_000,
};

/// Key (stream and base, 16 bytes), then the value: header, CRC, body.
pub const STORED: Target = Target {
    name: "stored_batch",
    shape: Shape::Bytes,
    bound: Bound::USUAL,
    seeds: || some_batches().iter().map(|b| [&b.stream.0.to_be_bytes()[..], &b.head.base_offset.to_be_bytes(), b.value()].concat()).collect(),
    check: stored,
    cases: 25_000,
};

fn some_events() -> Vec<Events> {
    let all = |list: &[EventRef<'_>]| {
        let mut builder = EventsBuilder::default();
        list.iter().for_each(|event| builder.push(event).expect("a good event"));
        builder.finish().expect("good events")
    };
    let json = EventRef {
        data: br#"{"total": 12, "at": [1,2.5e3,null]}"#,
        kind: "order.created",
        key: "o-1",
        headers: vec![("trace", "a1"), ("b", "")],
        ..EventRef::default()
    };
    let text = EventRef { data: "naïve \n\u{1f30a}".as_bytes(), encoding: Encoding::Utf8, ..EventRef::default() };
    let binary = EventRef { data: &[0, 255, 10], encoding: Encoding::Binary, key: "k", ..EventRef::default() };
    vec![
        all(std::slice::from_ref(&json)),
        all(&[text.clone()]),
        all(&[binary.clone(), json, text, EventRef { data: b"", encoding: Encoding::Binary, ..EventRef::default() }]),
    ]
}

pub fn some_batches() -> Vec<Batch> {
    let stamp = |base_offset| Stamp { base_offset, time: TimeUs(1_769_421_600_123_456), log_epoch: 3, author_user: 1, author_source: 9, bytes_before: 77 };
    some_events().into_iter().zip([0, 41, u64::MAX - 9]).map(|(e, base)| e.stamp(StreamId(7), stamp(base))).collect()
}

fn appended(input: &[u8], gauge: &mut Gauge) -> Verdict {
    let read = match gauge.decode(|| Events::from_wire(input)) {
        Ok(read) => read,
        Err(why) => return refused(&why),
    };
    // What passed the door goes on byte for byte, but for keys and lengths that were longer than they need be.
    let again = Events::from_wire(read.encoded()).map_err(|why| format!("what passed the door is refused: {why}"))?;
    let longer = read.encoded().len() < input.len();
    if again.encoded() != read.encoded() || (read.encoded() != input && !longer) || read.iter().count() != read.count() as usize {
        return Err("the events are not those that were sent".into());
    }
    let data: usize = read.iter().map(|e| e.data.len()).sum();
    if (data as u64, read.iter().map(|e| e.data.len()).max()) != (read.data_bytes(), Some(read.largest())) {
        return Err("the sizes are not those of the events".into());
    }
    let mut again = EventsBuilder::default();
    read.iter().try_for_each(|event| again.push(&event)).map_err(|why| format!("one by one they are refused: {why}"))?;
    let again = again.finish().map_err(|why| format!("one by one they are refused: {why}"))?;
    same("one by one", &events(&read), &events(&again))?;
    if read.fingerprint() != again.fingerprint() {
        return Err("another fingerprint for the same events".into());
    }
    // Whoever reads JSON must be able to: data is pasted.
    let count = read.count();
    let stamp = Stamp { base_offset: 5, time: TimeUs(0), log_epoch: 1, author_user: 1, author_source: 0, bytes_before: 0 };
    let batch = Arc::new(read.stamp(StreamId(1), stamp));
    let back = Batch::from_stored(StreamId(1), 5, batch.value().clone()).map_err(|why| format!("stored it is not read: {why}"))?;
    if back.head != batch.head {
        return Err("stored it has another head".into());
    }
    let mut text = vec![b'['];
    json::events_json(&mut text, &[Slice::of(batch.clone(), 0..u64::MAX).ok_or("an empty batch")?]);
    text.push(b']');
    serde_json::from_slice::<Vec<serde::de::IgnoredAny>>(&text).map_err(|why| format!("its JSON form is none: {why}"))?;
    taken(if count == 1 { "one" } else { "several" })
}

fn received_batch(input: &[u8], gauge: &mut Gauge) -> Verdict {
    let batch = match gauge.decode(|| received(StreamId(0), input)) {
        Ok(batch) => Arc::new(batch),
        Err(why) => return told(&why),
    };
    walk(&batch)?;
    let again = received(StreamId(0), &batch.body()).map_err(|why| format!("written again it is not read: {why}"))?;
    same("written again", &listed(&batch), &listed(&again))?;
    taken("batch")
}

pub fn listed(batch: &Batch) -> String {
    format!("{:?} {:?}", batch.head, batch.events().collect::<Vec<_>>())
}

/// What readers do with a batch.
fn walk(batch: &Arc<Batch>) -> Result<(), String> {
    let head = batch.head;
    let whole = Slice::of(batch.clone(), head.base_offset..head.end()).ok_or("it has no events")?;
    let middle = head.base_offset + u64::from(head.count) / 2;
    for slice in [Some(whole.clone()), whole.after(middle), Some(whole.front(1, 1))].into_iter().flatten() {
        let read = received(StreamId(0), &slice.encode()).map_err(|why| format!("a slice of it is not read: {why}"))?;
        let (one, other): (Vec<_>, Vec<_>) = (slice.events().collect(), read.events().collect());
        if one != other {
            return Err(format!("a slice of it has other events: {one:?} {other:?}"));
        }
        json::events_json(&mut Vec::new(), &[slice.clone()]);
        let _ = (slice.data_bytes(), slice.bytes_before());
    }
    Ok(())
}

fn stored(input: &[u8], gauge: &mut Gauge) -> Verdict {
    let Some((key, value)) = input.split_first_chunk::<16>() else { return told("cut off") };
    let half = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| key[at + i]));
    let read = |value: &[u8]| Batch::from_stored(StreamId(half(0)), half(8), Bytes::copy_from_slice(value));
    let outcome = gauge.decode(|| read(value));
    let batch = match outcome {
        Ok(batch) => batch,
        Err(why) if why.starts_with("CRC") => {
            // Behind the CRC there must be no trap either: make it right, and read again.
            let Some(right) = with_crc(key, value) else { return told(&why) };
            match gauge.decode(|| read(&right)) {
                Ok(batch) => return check_batch(batch, &right).and_then(|()| taken("behind the CRC")),
                Err(why) => return told(&why),
            }
        }
        Err(why) => return told(&why),
    };
    let meant = listed(&batch);
    check_batch(batch, value)?;
    flips(input.len(), value, &meant, &read)?;
    for (stream, base) in [(half(0) ^ 1, half(8)), (half(0), half(8).wrapping_add(1))] {
        if Batch::from_stored(StreamId(stream), base, Bytes::copy_from_slice(value)).is_ok() {
            return Err("it is read under another key".into());
        }
    }
    taken("batch")
}

/// Whatever byte is another, nothing is read, or the same.
pub fn flips(seed: usize, value: &[u8], meant: &str, read: &dyn Fn(&[u8]) -> Result<Batch, String>) -> Result<(), String> {
    let mut dice = Dice::of(seed as u64, "flips", u64::from(value[value.len() - 1]));
    for _ in 0..6 {
        let mut other = value.to_vec();
        let at = dice.below(other.len());
        other[at] ^= 1 + dice.below(255) as u8;
        if let Ok(other) = read(&other) {
            same("with another byte", meant, &listed(&other))?;
        }
    }
    Ok(())
}

fn check_batch(batch: Batch, value: &[u8]) -> Result<(), String> {
    if batch.value() != value {
        return Err("its value is another".into());
    }
    let _ = (batch.head.end(), batch.head.bytes_end(), batch.events().count(), batch.memory());
    json::events_json(&mut Vec::new(), &Slice::of(Arc::new(batch), 0..u64::MAX).map_or_else(Vec::new, |slice| vec![slice]));
    Ok(())
}

fn with_crc(key: &[u8; 16], value: &[u8]) -> Option<Vec<u8>> {
    let mut right = value.to_vec();
    let body = right.get(HEADER_BYTES..)?.to_vec();
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    [&key[..], &right[..HEADER_BYTES - 4], &body].iter().for_each(|part| digest.update(part));
    right[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&(digest.finalize() as u32).to_le_bytes());
    Some(right)
}
