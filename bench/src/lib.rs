//! What benches and the allocation test run against: signed-in sessions of PostgreSQL and Redis, roles, an audit log.
//!
//! | Bench | Measures | Rivals |
//! |---|---|---|
//! | `frames` | ns per frame and per prepared query through the machine | naive scanner, `postgres-protocol` |
//! | `decisions` | ns per decision, per principal, per command check | |
//! | `redis` | ns per command parsed, ruled and recorded; ns per answer | naive scanner, `redis-protocol` |
//! | `records` | ns per record into the ring; records per second to disk | |
//!
//! The allocations are not measured but proved to be none, in `tests/allocations.rs`.
#![forbid(unsafe_code)]
#![expect(clippy::expect_used, clippy::panic, reason = "a fixture that does not hold has nothing to measure")]

pub mod log;
pub mod postgres;
pub mod redis;
pub mod roles;
pub mod timing;
