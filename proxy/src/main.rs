//! Ringgate: an identity-aware database gateway. This file only hands over to the command line.
#![deny(unsafe_code)]
#![expect(unreachable_pub, reason = "in a binary `pub` marks what a module offers to the others")]

mod acceptor;
mod backend;
mod cli;
mod config;
mod metrics;
mod net;
mod plane;
mod profile;
mod server;
mod session;
mod settings;
mod tls;
mod tunnel;
mod version;
mod worker;

#[cfg(not(test))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(test)]
#[global_allocator]
static ALLOCATOR: net::allocations::Counting = net::allocations::Counting;

fn main() -> std::process::ExitCode {
    let code = cli::run();
    std::process::ExitCode::from(u8::try_from(code).unwrap_or(1))
}
