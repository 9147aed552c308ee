//! The audit log: typed events, one byte ring per worker, one writer, a hash chain, and its verifier.
pub mod event;
