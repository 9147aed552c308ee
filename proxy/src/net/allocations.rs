//! A counting allocator for the tests that prove that a pumped frame allocates nothing.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;

/// mimalloc, counting the allocations of each thread.
pub struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// Allocations of this thread so far.
pub fn count() -> u64 {
    COUNT.with(Cell::get)
}

// SAFETY: every call goes unchanged to mimalloc, which keeps the contract; the counter neither allocates nor unwinds
// (`try_with` covers threads that are being torn down).
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise for `layout` is passed on.
        unsafe { mimalloc::MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `alloc` above, that is from mimalloc, with this `layout`.
        unsafe { mimalloc::MiMalloc.dealloc(ptr, layout) }
    }
}
