//! Bytes in are bytes out, however the network cuts them.

use std::{process::Command, time::Duration};

use ringgate_tests::{
    Driver,
    chopper::Chopper,
    db_config::DbConfig,
    places,
    postgres::{DATABASE, Postgres},
    process,
};

const GIB_ROWS: u64 = 1_050_000;
const SMALL_ROWS: u64 = 65_000;

/// Rows of 1024 characters and a line end.
fn rows(count: u64) -> String {
    format!("copy (select repeat(md5(n::text), 32) from generate_series(1, {count}) n) to stdout")
}

/// Bytes and hash of what the copy gives.
fn checksum(mut psql: Command) -> String {
    let script = "set -o pipefail; \"$@\" | tee >(sha256sum >&2) | wc -c";
    let mut shell = Command::new("bash");
    shell.args(["-c", script, "bash"]).arg(psql.get_program()).args(psql.get_args());
    for (key, value) in psql.get_envs() {
        match value {
            Some(value) => shell.env(key, value),
            None => shell.env_remove(key),
        };
    }
    psql.stdin(std::process::Stdio::null());
    let said = process::run_with_input(&mut shell, b"", Duration::from_secs(600));
    assert_eq!(said.code, 0, "{said:?}");
    format!("{} {}", said.stdout.trim(), said.stderr.trim())
}

fn direct(server: &Postgres, sql: &str) -> Command {
    let mut psql = Command::new(places::postgres_client("psql"));
    psql.args(["-XAtqc", sql]).arg(format!("{}?sslmode=disable", server.uri()));
    psql
}

fn through(db: &DbConfig, sql: &str) -> Command {
    let mut psql = db.client("psql");
    psql.args(["-XAtqc", sql]);
    psql
}

fn rows_out_are_rows_in(driver: Driver, count: u64) {
    let (server, gateway, db) = super::trusted(driver);
    let chopper = Chopper::start(&db.host, db.port);
    let cut = db.through_port(chopper.port);
    let before = process::anonymous_bytes(gateway.pid());
    let sql = rows(count);
    let (expected, received) = (checksum(direct(&server, &sql)), checksum(through(&cut, &sql)));
    assert!(expected.starts_with(&format!("{} ", count * 1025)), "{expected}");
    assert_eq!(received, expected);
    let after = process::anonymous_bytes(gateway.pid());
    assert!(after < before + (24 << 20), "memory grew from {before} to {after} bytes");
    // What the row count says is what the audit says.
    let query = gateway.record("TDB02I", |r| r.text("db_query") == sql);
    let result = gateway.record("TDB10I", |r| r["query_ei"] == query["ei"] && r.text("sid") == query.text("sid"));
    assert_eq!(result["rows"], count);
    assert_eq!(result["copy_bytes"], count * 1025);
    gateway.finish();
}

#[test]
fn a_gigabyte_passes_unchanged_on_io_uring() {
    rows_out_are_rows_in(Driver::IoUring, GIB_ROWS);
}

#[test]
fn sixty_four_megabytes_pass_unchanged_on_epoll() {
    rows_out_are_rows_in(Driver::Epoll, SMALL_ROWS);
}

fn copies_in_what_it_copied_out(driver: Driver) {
    let (server, gateway, db) = super::trusted(driver);
    server.sql("create table copied (t text); grant all on copied to app");
    let chopper = Chopper::start(&db.host, db.port);
    let cut = db.through_port(chopper.port);
    let mut shell = Command::new("bash");
    cut.environment(&mut shell);
    let out = format!("psql -XAtqc \"{}\" '{}?sslmode=disable'", rows(SMALL_ROWS), server.uri());
    let script = format!("set -o pipefail; {out} | psql -XAtqc 'copy copied from stdin' {DATABASE}");
    process::run_with_input(shell.args(["-c", &script]), b"", Duration::from_secs(300)).ok();
    let wrong = "select count(*) filter (where t <> repeat(md5(n::text), 32)), count(*) from \
                 (select t, row_number() over (order by ctid) n from copied) numbered";
    assert_eq!(server.sql(wrong), format!("0|{SMALL_ROWS}"));
    gateway.finish();
}

#[test]
fn rows_copied_in_arrive_unchanged_on_io_uring() {
    copies_in_what_it_copied_out(Driver::IoUring);
}

#[test]
fn rows_copied_in_arrive_unchanged_on_epoll() {
    copies_in_what_it_copied_out(Driver::Epoll);
}
