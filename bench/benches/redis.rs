//! Redis commands parsed, ruled and recorded into the ring, beside a scanner that only finds the borders and the decoder
//! of the crate `redis-protocol`, which makes frames and rules nothing.
#![expect(clippy::expect_used, reason = "a bench that cannot run must say so")]

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use redis_protocol::resp2::decode::decode;
use ringgate_bench::redis::{ANSWER, GET, Session};
use ringgate_bench::timing::per_item;
use ringgate_protocol::Side;

/// Commands of one buffer: alone, as `redis-benchmark -P 16` sends them, and a buffer full of them.
const PIPELINES: [u64; 3] = [1, 16, 1000];

/// Time per command: parse, rule, record. The answers are taken through outside of the time.
fn commands(c: &mut Criterion) {
    let mut group = c.benchmark_group("redis-command");
    group.throughput(Throughput::Elements(1));
    let place = Path::new(if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { env!("CARGO_TARGET_TMPDIR") });
    for pipeline in PIPELINES {
        let (asked, answered) = (GET.repeat(pipeline as usize), ANSWER.repeat(pipeline as usize));
        let mut session = Session::start(place);
        group.bench_function(BenchmarkId::new("machine-rule-record", pipeline), |b| {
            b.iter_custom(|iters| {
                per_item(iters, pipeline, |buffers| {
                    let mut spent = Duration::ZERO;
                    let at_once = (256 / pipeline).max(1);
                    let mut left = buffers;
                    while left > 0 {
                        let now = left.min(at_once);
                        left -= now;
                        session.make_room();
                        let began = Instant::now();
                        (0..now).for_each(|_| session.pass(Side::Client, black_box(&asked)));
                        spent += began.elapsed();
                        (0..now).for_each(|_| session.pass(Side::Backend, &answered));
                    }
                    spent
                })
            })
        });
        group.bench_function(BenchmarkId::new("naive", pipeline), |b| {
            b.iter_custom(|iters| per_item(iters, pipeline, |n| timed(n, || naive(black_box(&asked)))))
        });
        group.bench_function(BenchmarkId::new("redis-protocol", pipeline), |b| {
            b.iter_custom(|iters| per_item(iters, pipeline, |n| timed(n, || decoded(black_box(&asked)))))
        });
    }
    group.finish();
}

/// Time per answer: matched to its command, its outcome recorded.
fn answers(c: &mut Criterion) {
    let mut group = c.benchmark_group("redis-answer");
    group.throughput(Throughput::Elements(1));
    let place = Path::new(if Path::new("/dev/shm").is_dir() { "/dev/shm" } else { env!("CARGO_TARGET_TMPDIR") });
    for pipeline in PIPELINES {
        let (asked, answered) = (GET.repeat(pipeline as usize), ANSWER.repeat(pipeline as usize));
        let mut session = Session::start(place);
        group.bench_function(BenchmarkId::new("machine-record", pipeline), |b| {
            b.iter_custom(|iters| {
                per_item(iters, pipeline, |buffers| {
                    let mut spent = Duration::ZERO;
                    for _ in 0..buffers {
                        session.make_room();
                        session.pass(Side::Client, &asked);
                        let began = Instant::now();
                        session.pass(Side::Backend, black_box(&answered));
                        spent += began.elapsed();
                    }
                    spent
                })
            })
        });
        group.bench_function(BenchmarkId::new("redis-protocol", pipeline), |b| {
            b.iter_custom(|iters| per_item(iters, pipeline, |n| timed(n, || decoded(black_box(&answered)))))
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

/// Adds up lengths of arrays of bulk strings and knows nothing else: the floor.
fn naive(buffer: &[u8]) -> u32 {
    let (mut at, mut commands) = (0, 0);
    let number = |at: &mut usize| {
        let (mut value, mut byte) = (0_usize, *buffer.get(*at + 1)?);
        *at += 1;
        while byte != b'\r' {
            value = value * 10 + usize::from(byte - b'0');
            *at += 1;
            byte = *buffer.get(*at)?;
        }
        *at += 2;
        Some(value)
    };
    while at < buffer.len() {
        let Some(count) = number(&mut at) else { break };
        for _ in 0..count {
            let Some(length) = number(&mut at) else { break };
            at += length + 2;
        }
        commands += 1;
    }
    commands
}

/// Decodes frame after frame.
fn decoded(mut buffer: &[u8]) -> u32 {
    let mut frames = 0;
    while let Some((frame, len)) = decode(buffer).expect("well-formed frames") {
        drop(black_box(frame));
        frames += 1;
        buffer = &buffer[len..];
        if buffer.is_empty() {
            break;
        }
    }
    frames
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = commands, answers
}
criterion_main!(benches);
