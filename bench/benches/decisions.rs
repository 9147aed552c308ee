//! Decisions from the snapshot, and what a session pays before and after its one decision.
#![expect(clippy::expect_used, reason = "a bench that cannot run must say so")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ringgate_bench::roles::{Form, World};
use ringgate_policy::{Publisher, Snapshot, Source};
use ringgate_protocol::Class;

const ROLES: [usize; 3] = [1, 3, 20];

/// One decision of a principal that is ready.
fn decide(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide");
    let outcomes = [("allow", "writer"), ("denied-by-list", "postgres"), ("not-allowed", "stranger")];
    for (form, prefix) in [(Form::Names, ""), (Form::Patterns, "patterns-")] {
        for roles in ROLES {
            let world = World::new(roles, form);
            let principal = world.principal();
            for (outcome, user) in outcomes.into_iter().take(if form == Form::Names { 3 } else { 1 }) {
                let request = world.request(user);
                group.bench_function(BenchmarkId::new(format!("{prefix}{outcome}"), roles), |b| {
                    b.iter(|| principal.decide(black_box(&request)))
                });
            }
        }
    }
    group.finish();
}

/// What a session pays once: its roles made ready, and the permit.
fn once(c: &mut Criterion) {
    let mut group = c.benchmark_group("session");
    for (form, name) in [(Form::Names, "principal"), (Form::Templates, "principal-templates")] {
        for roles in ROLES {
            let world = World::new(roles, form);
            group.bench_function(BenchmarkId::new(name, roles), |b| b.iter(|| black_box(&world).principal()));
        }
    }
    let world = World::new(3, Form::Names);
    let principal = world.principal();
    let request = world.request("writer");
    group.bench_function("authorize/3", |b| b.iter(|| principal.authorize(black_box(&request))));
    group.finish();
}

/// What a statement pays: the command check, and the look for a newer snapshot once per turn.
fn statement(c: &mut Criterion) {
    let mut group = c.benchmark_group("statement");
    let world = World::new(3, Form::Names);
    let commands = world.principal().authorize(&world.request("writer")).expect("allowed").commands();
    group.bench_function("command-check", |b| {
        b.iter(|| black_box(commands).allows(black_box(Class::FunctionCall) as u8))
    });
    let empty = Snapshot::compile(&Source::default(), 1).expect("nothing to go wrong");
    let mut reader = Arc::new(Publisher::new(empty)).reader();
    group.bench_function("adopt", |b| b.iter(|| black_box(&mut reader).adopt()));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = decide, once, statement
}
criterion_main!(benches);
