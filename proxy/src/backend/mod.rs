//! The way to a database: what a connection needs (made off the workers), and the connection itself.

mod connect;
pub mod learned;
pub mod prepare;

pub use connect::{ConnectError, connect};
