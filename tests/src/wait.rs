//! Waiting for conditions, never for time.

use std::time::{Duration, Instant};

/// Longest wait for anything that should come soon; generous, because machines that run tests are busy.
pub const SOON: Duration = Duration::from_secs(30);

/// Polls `probe` until it gives a value. Panics after `limit`, naming `what`.
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Polls `probe` until it is true, and gives how long that took. Panics after `limit`, naming `what`.
pub fn until_true(what: &str, limit: Duration, mut probe: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    until(what, limit, || probe().then_some(()));
    start.elapsed()
}
