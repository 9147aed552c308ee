//! One publisher, many readers, no lock: each worker adopts a new snapshot between two batches of work.

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

use crate::snapshot::Snapshot;

/// Holds the current snapshot.
#[derive(Debug)]
pub struct Publisher {
    current: Arc<ArcSwap<Snapshot>>,
}

/// One worker's view of the current snapshot.
#[derive(Debug)]
pub struct SnapshotReader {
    latest: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    adopted: Arc<Snapshot>,
}

impl Publisher {
    /// Starts with `snapshot`.
    pub fn new(snapshot: Snapshot) -> Self {
        Self { current: Arc::new(ArcSwap::from_pointee(snapshot)) }
    }

    /// Makes `snapshot` current; readers see it at their next [`SnapshotReader::adopt`].
    pub fn publish(&self, snapshot: Snapshot) {
        self.current.store(Arc::new(snapshot));
    }

    /// A reader that begins with the current snapshot.
    pub fn reader(self: &Arc<Self>) -> SnapshotReader {
        let mut latest = Cache::new(Arc::clone(&self.current));
        let adopted = Arc::clone(latest.load());
        SnapshotReader { latest, adopted }
    }

    /// The current snapshot, for work outside of the workers.
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }
}

impl SnapshotReader {
    /// Takes the current snapshot; says whether it is another one than before. One atomic load when it is not.
    pub fn adopt(&mut self) -> bool {
        let latest = self.latest.load();
        let changed = !Arc::ptr_eq(latest, &self.adopted);
        if changed {
            self.adopted = Arc::clone(latest);
        }
        changed
    }

    /// The snapshot adopted last: a plain reference.
    pub fn current(&self) -> &Arc<Snapshot> {
        &self.adopted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Source;

    #[test]
    fn keeps_a_snapshot_until_the_reader_adopts_the_next() {
        let compile = |version| Snapshot::compile(&Source::default(), version).unwrap();
        let publisher = Arc::new(Publisher::new(compile(1)));
        let mut reader = publisher.reader();
        assert!(!reader.adopt());
        publisher.publish(compile(2));
        assert_eq!((reader.current().version(), publisher.load().version()), (1, 2));
        assert!(reader.adopt());
        assert_eq!(reader.current().version(), 2);
        assert!(!reader.adopt());
    }

    #[test]
    fn carries_snapshots_across_threads() {
        let compile = |version| Snapshot::compile(&Source::default(), version).unwrap();
        let publisher = Arc::new(Publisher::new(compile(0)));
        let mut reader = publisher.reader();
        let worker = std::thread::spawn(move || {
            let mut last = 0;
            while last < 100 {
                if reader.adopt() {
                    assert!(reader.current().version() > last);
                    last = reader.current().version();
                }
                std::hint::spin_loop();
            }
        });
        for version in 1..=100 {
            publisher.publish(compile(version));
        }
        worker.join().unwrap();
    }
}
