//! Marker secrets are planted and then looked for everywhere.

use std::{fs, os::unix::fs::PermissionsExt};

use ringgate_tests::{
    Driver,
    gateway::Gateway,
    on_both_drivers,
    postgres::{Options, Postgres},
    process,
    raw::Raw,
};

on_both_drivers!(
    the_password_of_the_uri_is_in_its_secret_file_only,
    passwords_in_statements_are_masked,
    keys_are_for_their_owner_only,
);

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle.as_bytes())
}

fn marker(driver: Driver, what: &str) -> String {
    format!("marker-{what}-{}-{}", driver.name(), std::process::id())
}

/// Files of the gateway, its log and its metrics included, that have `needle`.
fn files_with(gateway: &Gateway, needle: &str) -> Vec<std::path::PathBuf> {
    assert!(!contains(gateway.log().as_bytes(), needle), "in the log: {}", gateway.log());
    assert!(!contains(gateway.said().as_bytes(), needle), "on standard output: {}", gateway.said());
    assert!(!contains(gateway.http("/metrics").1.as_bytes(), needle), "in the metrics");
    gateway.files().into_iter().filter(|f| fs::read(f).is_ok_and(|bytes| contains(&bytes, needle))).collect()
}

fn the_password_of_the_uri_is_in_its_secret_file_only(driver: Driver) {
    let secret = marker(driver, "uri");
    let server = Postgres::start(Options::hba(&["host all all all scram-sha-256"]).password(&secret, "scram-sha-256"));
    let gateway = Gateway::start(driver, &server.uri_with(&secret, ""));
    let db = gateway.login();
    assert_eq!(db.psql("select 1").ok(), "1");
    let _live = Raw::login(&db);
    for (pid, line) in process::command_lines() {
        // The harness itself gave the URI to quickstart.
        assert!(pid == gateway.pid() || !contains(&line, &secret), "in the arguments of process {pid}");
    }
    let found = files_with(&gateway, &secret);
    assert_eq!(found.len(), 1, "{found:?}");
    let mode = fs::metadata(&found[0]).expect("metadata").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "{}", found[0].display());
    for kind in ["db", "user", "role"] {
        let said = gateway.cli(&["get", kind, "--format", "yaml"]);
        assert!(!contains(said.stdout.as_bytes(), &secret) && !contains(said.stderr.as_bytes(), &secret), "{said:?}");
    }
    gateway.finish();
}

fn passwords_in_statements_are_masked(driver: Driver) {
    let (_server, mut gateway, db) = super::trusted(driver);
    let secret = marker(driver, "statement");
    db.psql(&format!("alter role app password '{secret}'")).ok();
    db.psql(&format!("ALTER  ROLE app WITH ENCRYPTED\nPASSWORD E'{secret}'")).ok();
    db.psql(&format!("select 1; alter role app with password $${secret}$$; select 2")).ok();
    gateway.audit_until("the three statements", |records| {
        let statements = records.iter().filter(|r| r.text("db_query").to_lowercase().contains("password")).count();
        (statements >= 3).then_some(())
    });
    // A ring holds what the writer has not masked yet; a clean stop leaves nothing of it.
    let mut found = files_with(&gateway, &secret);
    found.retain(|f| !f.starts_with(gateway.audit_directory().join("rings")));
    assert_eq!(found, Vec::<std::path::PathBuf>::new());
    gateway.verify_audit();
    assert_eq!(gateway.terminate(), 0);
    let left: Vec<_> =
        gateway.files().into_iter().filter(|f| fs::read(f).is_ok_and(|bytes| contains(&bytes, &secret))).collect();
    assert_eq!(left, Vec::<std::path::PathBuf>::new(), "after a clean stop");
}

fn keys_are_for_their_owner_only(driver: Driver) {
    let (_server, gateway, _db) = super::trusted(driver);
    for file in gateway.files() {
        let Ok(bytes) = fs::read(&file) else { continue };
        if contains(&bytes, "PRIVATE KEY") {
            let mode = fs::metadata(&file).expect("metadata").permissions().mode() & 0o777;
            assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", file.display());
        }
    }
    assert_eq!(fs::metadata(gateway.data()).expect("metadata").permissions().mode() & 0o077, 0);
    gateway.finish();
}
