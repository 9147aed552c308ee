//! End to end: real clients, the real binary, a real PostgreSQL. One file per topic, every case on both I/O drivers.

mod basics;
mod cancel;
mod command_line;
mod drivers;
mod faults;
mod hostile_start;
mod hostile_stream;
mod load;
mod login_to_database;
mod policy;
mod protection;
mod secrets;
mod stream;

use ringgate_tests::{
    Driver,
    db_config::DbConfig,
    gateway::Gateway,
    postgres::{Options, Postgres},
};

/// A trusting server, a gateway in front of it, and a login.
fn trusted(driver: Driver) -> (Postgres, Gateway, DbConfig) {
    let server = Postgres::start(Options::trust());
    let gateway = Gateway::start(driver, &server.uri());
    let db = gateway.login();
    (server, gateway, db)
}
