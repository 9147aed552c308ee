//! pgbench in its three query modes: what it counted is what the audit has.

use std::collections::{HashMap, HashSet};

use ringgate_tests::{Driver, on_both_drivers, process};

on_both_drivers!(simple_mode_counts, extended_mode_counts, prepared_mode_counts, read_write_transactions_are_complete);

const CLIENTS: u64 = 4;
const TRANSACTIONS: u64 = 250;

fn counts(driver: Driver, mode: &str, code: &str) {
    let (_server, gateway, db) = super::trusted(driver);
    process::run(db.client("pgbench").args(["-i", "-q", "-s", "1"])).ok();
    let arguments = ["-n", "-S", "-M", mode, "-c", &CLIENTS.to_string(), "-t", &TRANSACTIONS.to_string()];
    let said = process::run(db.client("pgbench").args(arguments)).ok();
    assert!(
        said.contains(&format!("number of transactions actually processed: {0}/{0}", CLIENTS * TRANSACTIONS)),
        "{said}"
    );
    let is_one = |r: &ringgate_tests::audit_log::Record| {
        r.text("code") == code && r.text("db_query").starts_with("SELECT abalance FROM pgbench_accounts")
    };
    let statements = gateway.audit_until("all statements and results", |records| {
        let statements: Vec<_> = records.iter().filter(|r| is_one(r)).cloned().collect();
        let results: HashSet<_> = records
            .iter()
            .filter(|r| r.text("code") == "TDB10I" && r["rows"] == 1)
            .map(|r| (r.text("sid"), r["query_ei"].as_u64()))
            .collect();
        let answered =
            statements.iter().filter(|s| results.contains(&(s.text("sid"), s["ei"].as_u64()))).count() as u64;
        (answered >= CLIENTS * TRANSACTIONS).then_some(statements)
    });
    assert_eq!(statements.len() as u64, CLIENTS * TRANSACTIONS);
    gateway.finish();
}

fn simple_mode_counts(driver: Driver) {
    counts(driver, "simple", "TDB02I");
}

fn extended_mode_counts(driver: Driver) {
    counts(driver, "extended", "TPG02I");
}

fn prepared_mode_counts(driver: Driver) {
    counts(driver, "prepared", "TPG02I");
}

fn read_write_transactions_are_complete(driver: Driver) {
    let (server, gateway, db) = super::trusted(driver);
    process::run(db.client("pgbench").args(["-i", "-q", "-s", "1"])).ok();
    process::run(db.client("pgbench").args(["-n", "-M", "prepared", "-c", "4", "-t", "50"])).ok();
    assert_eq!(server.sql("select count(*) from pgbench_history"), "200");
    let inserts = gateway.audit_until("200 inserts", |records| {
        let is_insert = |r: &&ringgate_tests::audit_log::Record| {
            r.text("code") == "TPG02I" && r.text("db_query").starts_with("INSERT INTO pgbench_history")
        };
        let found = records.iter().filter(is_insert).count();
        (found >= 200).then_some(found)
    });
    assert_eq!(inserts, 200);
    // Every event of a session is there once.
    let mut indexes = HashMap::<String, Vec<u64>>::new();
    for record in gateway.audit().iter().filter(|r| !r.text("sid").is_empty()) {
        indexes.entry(record.text("sid").to_owned()).or_default().push(record["ei"].as_u64().expect("an index"));
    }
    for (sid, mut seen) in indexes {
        seen.sort_unstable();
        assert!(seen.iter().zip(0..).all(|(ei, expected)| *ei == expected), "session {sid}: {seen:?}");
    }
    gateway.finish();
}
