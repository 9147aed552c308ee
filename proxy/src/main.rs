//! Ringgate.
mod acceptor;
mod backend;
mod metrics;
mod net;
mod plane;
mod session;
mod settings;
mod tls;
mod worker;
fn main() {}
