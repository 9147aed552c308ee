//! From the time of a whole buffer to the time of one item in it.

use std::time::Duration;

/// Time for `iters` items, when `run(rounds)` handles `rounds` batches of `items` (at least 1) and says how long
/// that took.
pub fn per_item(iters: u64, items: u64, run: impl FnOnce(u64) -> Duration) -> Duration {
    let rounds = iters.div_ceil(items.max(1)).max(1);
    run(rounds).mul_f64(iters as f64 / (rounds * items.max(1)) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divides_the_time_of_whole_batches_by_their_items() {
        let run = |rounds: u64| Duration::from_micros(rounds * 100);
        assert_eq!(per_item(1, 100, run), Duration::from_micros(1));
        assert_eq!(per_item(250, 100, run), Duration::from_micros(250));
    }
}
