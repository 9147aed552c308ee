//! The log as its users see it: written, killed, starved, tampered with, read back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed step is a failed test")]

mod faults;
mod golden;
mod independent;
mod joining;
mod kill;
mod mutation;
mod reading;
mod support;
