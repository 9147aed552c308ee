//! A running audit log, and the events of typical statements.

use std::path::Path;
use std::time::Duration;

use ringgate_audit::{
    Event, Handle, NoParameters, Options, Parameter, Position, Producer, SessionFacts, SessionSlot, SharedProducer,
    Stamp, Statement,
};
use tempfile::TempDir;

use crate::postgres::TEXT;

const QUERY: &str = "SELECT id, name, email, created_at FROM customers WHERE tenant_id = 42 AND status = 'active' \
                     ORDER BY created_at DESC LIMIT 50";
static VALUES: &[Parameter<'static>] = &[Parameter::Text(b"5817")];
static KEYS: &[Parameter<'static>] = &[Parameter::Text(b"user:5817")];

/// The events measured, with their names.
pub const EVENTS: [(&str, Event<'static>); 6] = [
    ("query", Event::Query { statement: select(QUERY), parameters: &NoParameters, error: "" }),
    ("bind", Event::Bind { name: b"P_0", portal: b"", parameters: &VALUES }),
    ("execute", Event::Execute { portal: b"", statement: select(TEXT), parameters: &VALUES }),
    ("result", result(1)),
    (
        "command",
        Event::Command { name: b"GET", keys: &KEYS, arguments: 1, argument_bytes: 9, values: &NoParameters, error: "" },
    ),
    ("results", Event::Results { first_ei: 1, count: 16, duration_us: 95 }),
];

const fn result(query_ei: u32) -> Event<'static> {
    Event::Result {
        query_ei,
        success: true,
        rows: Some(1),
        duration_us: 95,
        code: b"",
        error: b"",
        copy_bytes: 0,
        query_sha256: None,
        skipped: false,
        warnings: 0,
    }
}

const fn select(text: &str) -> Statement<'_> {
    Statement { text: text.as_bytes(), full_bytes: text.len() as u64, sha256: None, query_type: "SELECT" }
}

/// A log with its writer, one producer and one open session, in a directory that goes with it.
pub struct Log {
    producer: Producer,
    slot: SessionSlot,
    ei: u32,
    handle: Handle,
    _control: SharedProducer,
    _dir: TempDir,
}

impl Log {
    /// Starts a log with the default options in a new directory under `parent`. The calling thread is the one that
    /// records.
    pub fn start(parent: &Path) -> Log {
        let dir = tempfile::tempdir_in(parent).expect("a writable directory");
        let recorder = std::thread::current();
        let wake: Box<dyn Fn() + Send> = Box::new(move || recorder.unpark());
        let (mut producers, control, handle) =
            ringgate_audit::start(Options::new(dir.path()), 1, vec![wake]).expect("a new log");
        let mut producer = producers.pop().expect("one producer");
        let slot = producer
            .open_session(&SessionFacts {
                sid: uuid::Uuid::from_u128(0x0192_f3e1_aa00_7000_8000_0000_0000_0001),
                user: "alice@example.com",
                user_kind: "human",
                roles: &["developer".to_owned(), "on-call".to_owned()],
                cert_serial: "0a1b2c3d4e5f60718293a4b5c6d7e8f9",
                addr_remote: "10.0.3.7:51402",
                db_service: "orders",
                db_protocol: "postgres",
                db_uri: "db.internal:5432",
                db_user: "reader",
                db_name: "app",
                ..SessionFacts::default()
            })
            .expect("an empty ring");
        Log { producer, slot, ei: 0, handle, _control: control, _dir: dir }
    }

    /// Records one event. Up to 1,000 short ones always fit after [`Log::make_room`].
    #[inline]
    pub fn record(&mut self, event: &Event<'_>) -> Position {
        self.ei = self.ei.wrapping_add(1);
        let stamp = Stamp { session: Some(self.slot), ei: self.ei, time_us: 1_763_636_306_014_000 };
        self.producer.record(stamp, event).expect("room")
    }

    /// Records a prepared query whole: its Bind, its Execute and their result.
    pub fn record_prepared(&mut self) {
        let [_, (_, bind), (_, execute), ..] = &EVENTS;
        self.record(bind);
        self.record(execute);
        self.record(&result(self.ei));
    }

    /// Waits, when the ring is half full, until the writer has brought it below a quarter.
    pub fn make_room(&mut self) {
        while self.producer.pressure() {
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Waits until everything recorded is on disk.
    pub fn flush(&self) {
        assert!(self.handle.flush(), "the log could not be written");
    }

    /// Bytes on disk per record, batch lines and checkpoints included.
    pub fn bytes_per_record(&self) -> f64 {
        let stats = self.handle.stats();
        stats.bytes as f64 / stats.records.max(1) as f64
    }

    /// Records on disk.
    pub fn records(&self) -> u64 {
        self.handle.stats().records
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_recorded_is_on_disk_after_a_flush() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut log = Log::start(dir.path());
        for _ in 0..40 {
            for _ in 0..250 {
                for (_, event) in &EVENTS {
                    log.record(event);
                }
            }
            log.make_room();
        }
        log.flush();
        assert_eq!(log.records(), 40 * 250 * EVENTS.len() as u64);
        assert!(log.bytes_per_record() > 100.0);
    }
}
