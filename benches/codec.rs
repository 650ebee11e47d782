//! What a batch costs on its way through the codec: the walk at the door, the fingerprint, the stamp, the check on read, the slice.
//!
//! Figures are for one batch of the given shape; the throughput is that of its encoded bytes. `benches/README.md` keeps results.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidelog::types::batch::Stamp;
use tidelog::types::{Batch, Encoding, EventRef, Events, EventsBuilder, Removed, Slice, StreamId, TimeUs};

/// Events in a batch and bytes of data in each: one small event, a usual group, the most events, the largest event.
const SHAPES: &[(usize, usize)] = &[(1, 200), (256, 200), (10_000, 200), (1, 1024 * 1024)];

const STREAM: StreamId = StreamId(7);
const STAMP: Stamp =
    Stamp { base_offset: 1_000_000, time: TimeUs(1_800_000_000_000_000), log_epoch: 1, author_user: 1, author_source: 0, bytes_before: 1 << 40 };

fn events(count: usize, data_bytes: usize) -> Events {
    let mut builder = EventsBuilder::with_capacity(count * (data_bytes + 64));
    for i in 0..count {
        // JSON text of exactly the size asked for.
        let data = format!("{{\"n\":{i:>8},\"text\":\"{}\"}}", "x".repeat(data_bytes.saturating_sub(24)));
        let key = format!("order-{i}");
        let event = EventRef {
            data: data.as_bytes(),
            encoding: Encoding::Json,
            kind: "order.created",
            key: &key,
            headers: vec![("trace", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")],
            removed: Removed::No,
        };
        builder.push(&event).expect("a good event");
    }
    builder.finish().expect("a good batch")
}

fn codec(criterion: &mut Criterion) {
    for &(count, data_bytes) in SHAPES {
        let shape = format!("{count}x{data_bytes}");
        let good = events(count, data_bytes);
        let wire = Bytes::copy_from_slice(good.encoded());
        let batch = good.clone().stamp(STREAM, STAMP);
        let stored = batch.value().clone();
        let mut group = criterion.benchmark_group("codec");
        group.throughput(Throughput::Bytes(wire.len() as u64));

        group.bench_function(BenchmarkId::new("from_wire", &shape), |b| b.iter(|| Events::from_wire(black_box(&wire)).expect("good bytes")));
        group.bench_function(BenchmarkId::new("fingerprint", &shape), |b| b.iter(|| black_box(&good).fingerprint()));
        // Copying the events for the next round is not part of the stamp.
        group.bench_function(BenchmarkId::new("stamp", &shape), |b| b.iter_batched(|| good.clone(), |e| e.stamp(STREAM, STAMP), BatchSize::LargeInput));
        group.bench_function(BenchmarkId::new("from_stored", &shape), |b| {
            b.iter(|| Batch::from_stored(STREAM, STAMP.base_offset, black_box(stored.clone())).expect("good bytes"))
        });
        if count > 1 {
            let batch = Arc::new(batch);
            let half = STAMP.base_offset + count as u64 / 2;
            let slice = Slice::of(batch.clone(), half..batch.head.end()).expect("the second half has events");
            group.bench_function(BenchmarkId::new("slice_half", &shape), |b| b.iter(|| black_box(&slice).encode()));
        }
        group.finish();
    }
}

criterion_group!(benches, codec);
criterion_main!(benches);
