//! The authority.
#![forbid(unsafe_code)]

mod ca;
mod error;
mod hex;
pub mod identity;

pub use ca::{CLOCK_SKEW, CaKind, CertUse};
pub use error::ControlError;
