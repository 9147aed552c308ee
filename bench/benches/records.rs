//! Audit records: into the ring while the writer drains it, and out of it to disk.
#![expect(clippy::expect_used, reason = "a bench that cannot run must say so")]

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use ringgate_bench::log::{EVENTS, Log};
use ringgate_bench::timing::per_item;

/// Records between two looks at the ring's fill. They always fit.
const BURST: u64 = 256;

/// Where the log lies: on this machine's disk, and in memory where there is such a file system.
fn places() -> impl Iterator<Item = (&'static str, &'static Path)> {
    [("disk", env!("CARGO_TARGET_TMPDIR")), ("tmpfs", "/dev/shm")]
        .map(|(name, path)| (name, Path::new(path)))
        .into_iter()
        .filter(|(_, path)| path.is_dir())
}

/// Time per record into the ring. Waiting for the writer to make room is left out.
fn record(c: &mut Criterion) {
    let mut group = c.benchmark_group("record");
    for (place, path) in places() {
        for (name, event) in EVENTS {
            let mut log = Log::start(path);
            group.bench_function(BenchmarkId::new(name, place), |b| {
                b.iter_custom(|iters| {
                    per_item(iters, BURST, |bursts| {
                        let mut spent = Duration::ZERO;
                        for _ in 0..bursts {
                            log.make_room();
                            let began = Instant::now();
                            for _ in 0..BURST {
                                black_box(log.record(black_box(&event)));
                            }
                            spent += began.elapsed();
                        }
                        spent
                    })
                })
            });
        }
    }
    group.finish();
}

/// Time per prepared query from the ring to disk, its three records as fast as the writer takes them.
fn drain(c: &mut Criterion) {
    let mut group = c.benchmark_group("drain");
    group.sampling_mode(SamplingMode::Flat).sample_size(10).throughput(Throughput::Elements(1));
    for (place, path) in places() {
        let mut log = Log::start(path);
        let cpu_before = writer_cpu();
        group.bench_function(BenchmarkId::new("bind-execute-result", place), |b| {
            b.iter_custom(|iters| {
                let began = Instant::now();
                for burst in 0..iters.div_ceil(BURST) {
                    log.make_room();
                    for _ in 0..BURST.min(iters - burst * BURST) {
                        log.record_prepared();
                    }
                }
                log.flush();
                began.elapsed()
            })
        });
        if log.records() > 0 {
            let cpu_ns = (writer_cpu() - cpu_before).as_nanos() as f64 / (log.records() / 3) as f64;
            let bytes = log.bytes_per_record() * 3.0;
            eprintln!("{:24}{place}: {bytes:.0} bytes per query, writer's CPU {cpu_ns:.0} ns per query", "");
        }
    }
    group.finish();
}

/// CPU time of the writer thread of this process so far. Zero when there is none.
fn writer_cpu() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").expect("procfs");
    let tasks = tasks.filter_map(|task| Some(task.ok()?.path()));
    let writers =
        tasks.filter(|task| fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "audit-writer"));
    let ns = |task: &Path| fs::read_to_string(task.join("schedstat")).ok()?.split(' ').next()?.parse::<u64>().ok();
    Duration::from_nanos(writers.filter_map(|task| ns(&task)).sum())
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2))
        .sample_size(50);
    targets = record, drain
}
criterion_main!(benches);
