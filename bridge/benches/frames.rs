//! The benchmark of framing alone: `cargo bench -p bridge`. The whole program is measured by `tests/bench`.

use std::hint::black_box;
use std::ops::Range;

use bridge::ws::{Codec, Draft, Event, Framing};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// About the size of the pump's buffer, bytes.
const SIZE: usize = 130_900;

/// Frames as a client sends them, as many as a buffer holds.
fn masked_frames(payload: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SIZE);
    while bytes.len() + payload + 8 <= SIZE {
        bytes.push(0x82);
        match u16::try_from(payload) {
            Ok(short @ ..126) => bytes.push(0x80 | short.to_le_bytes()[0]),
            Ok(length) => {
                bytes.push(0xfe);
                bytes.extend(length.to_be_bytes());
            }
            Err(_) => unreachable!("a buffer is shorter"),
        }
        bytes.extend([0x37, 0xfa, 0x21, 0x3d]);
        bytes.extend((0..=255).cycle().take(payload));
    }
    bytes
}

/// Decodes a buffer whole, as the pump does, and returns how many pieces it held.
fn decode(codec: &mut Codec, buffer: &mut [u8]) -> usize {
    let mut unread: Range<usize> = 0..buffer.len();
    let mut pieces = 0;
    while let Ok(Some(event)) = codec.decode(buffer, &mut unread) {
        if let Event::Data(piece) = event {
            black_box(piece);
            pieces += 1;
        }
    }
    pieces
}

/// Headers and unmasking, from one long frame to a thousand short ones.
fn from_the_client(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("from the client");
    for payload in [16, 64, 1024, 16_384, 65_000] {
        let frames = masked_frames(payload);
        let expected = frames.len() / payload.max(1);
        group.throughput(Throughput::Bytes(frames.len() as u64));
        let id = BenchmarkId::from_parameter(format!("{payload}-byte frames"));
        group.bench_with_input(id, &frames, |bencher, frames| {
            bencher.iter_batched_ref(
                || (Codec::new(Framing::Binary), frames.clone()),
                |(codec, buffer)| {
                    let pieces = decode(codec, buffer);
                    assert!(0 < pieces && pieces <= expected, "it does not decode");
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

/// A header in front of a full buffer, or base64 of it.
fn to_the_client(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("to the client");
    for framing in [Framing::Binary, Framing::Base64, Framing::Hixie(Draft::Hixie76)] {
        let codec = Codec::new(framing);
        let start = codec.headroom(SIZE);
        let mut buffer = vec![b'x'; SIZE];
        group.throughput(Throughput::Bytes((SIZE - start) as u64));
        group.bench_function(format!("{framing:?}"), |bencher| {
            bencher.iter(|| black_box(codec.encode(&mut buffer, start..SIZE)));
        });
    }
    group.finish();
}

criterion_group!(benches, from_the_client, to_the_client);
criterion_main!(benches);
