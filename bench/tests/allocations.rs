//! Nothing on the hot path allocates: proved with an allocator that counts, per thread.
//!
//! Each test runs on a thread of its own, so that neither the audit writer nor another test is counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use ringgate_bench::log::{EVENTS, Log};
use ringgate_bench::postgres::{PreparedQuery, Session, data_row};
use ringgate_bench::roles::{Form, World};
use ringgate_policy::Effect;
use ringgate_protocol::Side;

/// The system's allocator, counting the calls of each thread that take memory.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count_one() {
    // A thread that is being torn down counts nothing and still gets its memory.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes on to `System` with the arguments it came with, and `System` keeps the contract. Counting
// touches a constant-initialized thread-local without a destructor, so that it neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_one();
        // SAFETY: the caller's promise for `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count_one();
        // SAFETY: the caller's promise for `layout` is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count_one();
        // SAFETY: `ptr` came from one of these functions, that is from `System`, with this `layout`.
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from one of these functions, that is from `System`, with this `layout`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread while `run` ran.
fn allocations(run: impl FnOnce()) -> u64 {
    let before = COUNT.with(Cell::get);
    run();
    COUNT.with(Cell::get) - before
}

#[test]
fn the_counter_sees_every_way_to_take_memory() {
    assert_eq!(allocations(|| drop(black_box(Box::new(1)))), 1);
    assert_eq!(allocations(|| drop(black_box(vec![0_u8; 100]))), 1);
    let mut grown: Vec<u8> = Vec::with_capacity(1);
    assert_eq!(allocations(|| grown.reserve_exact(black_box(1000))), 1);
    assert_eq!(allocations(|| ()), 0);
}

#[test]
fn a_decision_that_allows_allocates_nothing() {
    for form in [Form::Names, Form::Templates] {
        for roles in [1, 3, 20] {
            let world = World::new(roles, form);
            let principal = world.principal();
            let request = world.request("writer");
            let mut allowed = 0;
            let taken = allocations(|| {
                for _ in 0..1000 {
                    allowed += u32::from(principal.decide(black_box(&request)).effect == Effect::Allow);
                }
            });
            assert_eq!((taken, allowed), (0, 1000), "{roles} roles, {form:?}");
        }
    }
}

#[test]
fn a_record_into_the_ring_allocates_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::start(dir.path());
    let taken = allocations(|| {
        // Several times around the ring, past its marks and its doorbells.
        for _ in 0..400 {
            for _ in 0..250 {
                for (_, event) in &EVENTS {
                    log.record(black_box(event));
                }
            }
            log.make_room();
        }
    });
    log.flush();
    assert!(log.records() >= 400_000);
    assert_eq!(taken, 0);
}

#[test]
fn a_prepared_query_and_its_answer_allocate_nothing() {
    for describe in [false, true] {
        let query = PreparedQuery::new(describe);
        let mut session = Session::new();
        // What the first query needs is kept for all others.
        session.query(&query);
        let taken = allocations(|| {
            for _ in 0..10_000 {
                black_box(session.query(black_box(&query)));
            }
        });
        assert_eq!((taken, session.outstanding()), (0, 0), "describe: {describe}");
    }
}

#[test]
fn pipelined_queries_allocate_nothing() {
    let query = PreparedQuery::new(true);
    let (asked, answered) = (query.client.repeat(16), query.backend.repeat(16));
    let mut session = Session::new();
    let mut run = || {
        black_box(session.pass(Side::Client, black_box(&asked)));
        black_box(session.pass(Side::Backend, black_box(&answered)));
    };
    run();
    assert_eq!(allocations(|| (0..1000).for_each(|_| run())), 0);
}

#[test]
fn rows_allocate_nothing() {
    let buffer = data_row(100).repeat(300);
    let mut session = Session::in_rows();
    assert_eq!(allocations(|| assert_eq!(session.pass(Side::Backend, black_box(&buffer)), 1)), 0);
}
