//! Frames through the session machine, beside a scanner that only finds the borders and a decoder that makes messages.
#![expect(clippy::expect_used, reason = "a bench that cannot run must say so")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use postgres_protocol::message::backend::Message;
use ringgate_bench::postgres::{PreparedQuery, Session, data_row};
use ringgate_bench::timing::per_item;
use ringgate_protocol::Side;

/// A received buffer of the gateway.
const BUFFER: usize = 32 * 1024;
/// Buffers handed to the decoder that eats its input, per look at the clock.
const BUFFERS: u64 = 16;

/// Time per DataRow, in a buffer full of them.
fn rows(c: &mut Criterion) {
    let mut group = c.benchmark_group("rows");
    for size in [16, 100, 1000] {
        let frames = BUFFER / size;
        let buffer = data_row(size).repeat(frames);
        let frames = frames as u64;
        group.throughput(Throughput::Bytes(size as u64));
        let mut session = Session::in_rows();
        group.bench_function(BenchmarkId::new("machine", size), |b| {
            b.iter_custom(|iters| {
                per_item(iters, frames, |n| timed(n, || session.pass(Side::Backend, black_box(&buffer))))
            })
        });
        group.bench_function(BenchmarkId::new("naive", size), |b| {
            b.iter_custom(|iters| per_item(iters, frames, |n| timed(n, || naive(black_box(&buffer)))))
        });
        group.bench_function(BenchmarkId::new("postgres-protocol", size), |b| {
            b.iter_custom(|iters| per_item(iters, frames, |n| decoded(n, &buffer)))
        });
    }
    group.finish();
}

/// Time per execution of a prepared statement, all frames of both directions.
fn cycle(c: &mut Criterion) {
    let mut group = c.benchmark_group("cycle");
    group.throughput(Throughput::Elements(1));
    for (describe, name) in [(false, "bind-execute-sync"), (true, "bind-describe-execute-sync")] {
        let query = PreparedQuery::new(describe);
        let mut session = Session::new();
        group.bench_function(BenchmarkId::new("machine", name), |b| b.iter(|| session.query(black_box(&query))));
        group.bench_function(BenchmarkId::new("naive", name), |b| {
            b.iter(|| naive(black_box(&query.client)) + naive(black_box(&query.backend)))
        });
        // That crate reads no client messages.
        let answers = query.backend.repeat(BUFFER / query.backend.len());
        let queries = (answers.len() / query.backend.len()) as u64;
        group.bench_function(BenchmarkId::new("postgres-protocol-answers-only", name), |b| {
            b.iter_custom(|iters| per_item(iters, queries, |n| decoded(n, &answers)))
        });
    }
    group.finish();
}

fn timed<T>(rounds: u64, mut run: impl FnMut() -> T) -> Duration {
    let began = Instant::now();
    for _ in 0..rounds {
        black_box(run());
    }
    began.elapsed()
}

/// Adds up lengths and knows nothing else: the floor.
fn naive(buffer: &[u8]) -> u32 {
    let (mut at, mut frames) = (0, 0);
    while let Some(length) = buffer.get(at + 1..).and_then(|rest| rest.first_chunk::<4>()) {
        at += 1 + u32::from_be_bytes(*length) as usize;
        frames += 1;
    }
    frames
}

/// Decodes `rounds` copies of `buffer`; they are made outside of the time taken.
fn decoded(rounds: u64, buffer: &[u8]) -> Duration {
    let mut spent = Duration::ZERO;
    let mut left = rounds;
    while left > 0 {
        let mut copies: Vec<BytesMut> = (0..left.min(BUFFERS)).map(|_| BytesMut::from(buffer)).collect();
        left -= copies.len() as u64;
        let began = Instant::now();
        for copy in &mut copies {
            while let Some(message) = Message::parse(copy).expect("well-formed frames") {
                drop(black_box(message));
            }
        }
        spent += began.elapsed();
    }
    spent
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = rows, cycle
}
criterion_main!(benches);
