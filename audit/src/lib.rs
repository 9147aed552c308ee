//! The audit log: typed events, one byte ring per worker, one writer, a hash chain, and its verifier.
//!
//! ```text
//! worker ── record() ──> ring (mapped file) ──┐
//! worker ── record() ──> ring (mapped file) ──┼─> writer: JSON lines ─> audit.batch ─> fdatasync ─> rings released
//! control ─ record() ──> ring (mapped file) ──┘            └─ every 10 s: signed checkpoint, `state`
//! ```
//!
//! A directory holds: `00000001.jsonl` … (segments; sealed ones read-only), `state` (latest signed checkpoint),
//! `keys/checkpoint.{key,pub}`, `rings/` (records not yet on disk, drained by the next start), `torn/` (bytes cut off by
//! a crash repair, kept as evidence) and `lock`.
//!
//! # Lines and records
//! A statement and what came of it are two records, for the first is in its ring before the statement is forwarded. The
//! writer joins them where both are there when it looks: the statement's line then ends with `"result":{"ei":…,…}`, whose
//! members are those of a `db.session.result` line. `time` is among them when it is not, to a millisecond, the
//! statement's time plus `duration_us`. A result that finds its statement on disk already is a line of its own, with
//! `query_ei`; one for a run of commands says how many with `query_count`.
//!
//! Bind and Execute that follow one another at one instant with the same portal and values are the Execute's line, with
//! `bind_ei` and `statement_name`; with an unnamed Parse of the same text before them, also with `parse_ei`. So every
//! `ei` of a session is in the log: as `ei` of a line or of a result, as `bind_ei` or as `parse_ei`.
//!
//! # The chain
//! A group commit appends event lines and one `audit.batch` line. Its `sha256` covers the exact bytes, newlines
//! included, of all lines since the former batch line (a segment's header line too); its `prev` is the SHA-256 of the
//! former batch line with its newline. `rings` says up to which position each ring was consumed, so that a restart
//! neither loses nor repeats a record. The checkpoint's tree (RFC 6962) has one leaf per batch line: that line's SHA-256.
//!
//! # What the files alone cannot show
//! * Someone who holds `keys/checkpoint.key` can rewrite everything and sign it anew.
//! * Someone who puts back an older copy of the whole directory (segments *and* `state`) shows a consistent past.
//! * Batches after the latest checkpoint (at most `checkpoint_interval` old) can be cut off at a batch border without
//!   trace, once the process was killed; after an orderly stop `state` covers the last batch.
//!
//! Against these three keep checkpoints elsewhere: a witness co-signs them, or a log shipper stores them.

#![deny(unsafe_code)] // Allowed in `ring` alone.

pub mod event;

mod chain;
mod checkpoint;
mod drain;
mod encode;
mod facts;
mod fields;
mod join;
mod json;
mod line;
pub mod mask;
mod mysql;
mod options;
mod outcome;
mod producer;
mod recover;
mod ring;
pub mod search;
mod segment;
mod service;
mod state;
mod steps;
pub mod tail;
mod text;
pub mod verify;
mod writer;

pub use checkpoint::public_key_path;
pub use event::{Event, NoParameters, Parameter, Parameters, SessionFacts, SessionSlot, Stamp, Statement};
pub use options::{Mode, Options, Refused, StartError};
pub use producer::{Position, Producer, SharedProducer};
pub use service::{Handle, RingDepth, SYNC_BUCKETS_US, Stats, start};
