//! Load from outside: a TLS client of its own that shares no code with the gateway it measures.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "the result is one JSON line on standard output")]

mod client;
mod drain;
mod idle;
mod stub;

use std::net::SocketAddr;

use clap::{Parser, Subcommand};

/// Measures a PostgreSQL endpoint: idle connections and bulk results. Every command prints one JSON object.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Opens connections through the full login, holds them, and reports the memory of the process behind them.
    Idle(idle::Idle),
    /// Runs one query and throws its result away.
    Drain(drain::Drain),
    /// A backend that answers a login and then says nothing: for more connections than PostgreSQL can hold.
    Stub {
        /// Address to listen on.
        #[arg(long)]
        listen: SocketAddr,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Idle(idle) => println!("{}", idle.run()?),
        Command::Drain(drain) => println!("{}", drain.run()?),
        Command::Stub { listen } => stub::run(listen)?,
    }
    Ok(())
}
