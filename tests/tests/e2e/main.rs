//! End to end: real clients, the real binary, real servers. One file per topic, every case on both I/O drivers.

mod basics;
mod cancel;
mod command_line;
mod drivers;
mod faults;
mod hostile_start;
mod hostile_stream;
mod load;
mod login_to_database;
mod mysql_basics;
mod policy;
mod protection;
mod redis_audit;
mod redis_basics;
mod redis_clients;
mod redis_cluster;
mod redis_cluster_order;
mod redis_connection_state;
mod redis_faults;
mod redis_hostile;
mod redis_login;
mod redis_pipelines;
mod redis_policy;
mod redis_secrets;
mod redis_streams;
mod secrets;
mod stream;

use ringgate_tests::{
    Driver,
    db_config::DbConfig,
    gateway::{Gateway, Setup},
    postgres::{Options, Postgres},
    redis::{self, Redis},
    resp::{Session, Value},
    wait,
};

/// A trusting server, a gateway in front of it, and a login.
fn trusted(driver: Driver) -> (Postgres, Gateway, DbConfig) {
    let server = Postgres::start(Options::trust());
    let gateway = Gateway::start(driver, &server.uri());
    let db = gateway.login();
    (server, gateway, db)
}

/// An open Redis, a gateway in front of it, and a login.
fn cached(driver: Driver) -> (Redis, Gateway, DbConfig) {
    cached_with(driver, |setup| setup)
}

/// The same with a say in the gateway's configuration.
fn cached_with(driver: Driver, configure: impl FnOnce(Setup) -> Setup) -> (Redis, Gateway, DbConfig) {
    let server = Redis::start(redis::Options::open());
    let gateway = configure(Setup::redis(driver, &server.uri())).start();
    let db = gateway.redis_login(redis::SERVICE, "");
    (server, gateway, db)
}

/// Waits until sessions on every worker answer `line` as `is_right` wants: roles reach each worker in its own time.
fn in_force(db: &DbConfig, line: &str, is_right: impl Fn(&Value) -> bool) {
    wait::until_true("the role to take effect", wait::SOON, || {
        // All at once, so that no worker has them all.
        let mut sessions: Vec<Session> = (0..8).map(|_| Session::login(db)).collect();
        sessions.iter_mut().all(|session| is_right(&session.say(line)))
    });
}
