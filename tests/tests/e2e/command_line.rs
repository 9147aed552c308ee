//! The contract that scripts rely on: exit codes, JSON, configuration from a file.

use std::fs;

use ringgate_tests::{
    Driver,
    gateway::SERVICE,
    on_both_drivers,
    postgres::{DATABASE, USER},
    process, wait,
};
use serde_json::Value;

on_both_drivers!(
    a_server_from_the_config_file_is_the_same_server,
    a_wrong_config_is_told_by_line_and_column_and_served_by_nobody,
    audit_search_and_tail_find_what_happened,
    a_tampered_audit_is_told,
    version_names_provider_and_driver,
    creating_what_exists_is_a_conflict,
    a_directory_with_other_things_in_it_is_refused,
);

fn a_server_from_the_config_file_is_the_same_server(driver: Driver) {
    let (_server, mut gateway, db) = super::trusted(driver);
    assert_eq!(gateway.terminate(), 0);
    let file = gateway.data().join("ringgate.yaml");
    gateway.cli(&["config", "check", file.to_str().expect("UTF-8")]).ok();
    gateway.start_again_from_file();
    assert_eq!(db.psql("select 'from file'").ok(), "from file");
    gateway.record("TDB02I", |r| r.text("db_query") == "select 'from file'");
    gateway.finish();
}

fn a_wrong_config_is_told_by_line_and_column_and_served_by_nobody(driver: Driver) {
    let (_server, mut gateway, _db) = super::trusted(driver);
    assert_eq!(gateway.terminate(), 0);
    let file = gateway.data().join("wrong.yaml");
    let good = fs::read_to_string(gateway.data().join("ringgate.yaml")).expect("the config");
    fs::write(&file, format!("{good}\nlistenrs:\n  postgres: {{ addr: 127.0.0.1:5432 }}\n")).expect("write");
    let line = good.lines().count() + 2;
    let path = file.to_str().expect("UTF-8");
    let said = gateway.cli(&["config", "check", path]);
    let text = format!("{}{}", said.stdout, said.stderr);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(text.contains(&format!(":{line}:1:")) && text.contains("listeners"), "{said:?}");
    assert_eq!(gateway.cli(&["server", "-c", path]).code, 78);
}

fn audit_search_and_tail_find_what_happened(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    db.psql("select 'needle one'").ok();
    db.psql("select 'hay'").ok();
    gateway.record("TDB02I", |r| r.text("db_query") == "select 'hay'");
    let search = gateway.cli(&["audit", "search", "--text", "needle one", "--format", "json"]).ok();
    let found: Value = serde_json::from_str(&search).expect("JSON");
    let found = found.as_array().expect("an array");
    assert!(found.iter().any(|r| r["db_query"] == "select 'needle one'"), "{search}");
    assert!(found.iter().all(|r| r["db_query"] != "select 'hay'"), "{search}");
    let none = gateway.cli(&["audit", "search", "--text", "nothing like it", "--format", "json"]).ok();
    assert_eq!(serde_json::from_str::<Value>(&none).expect("JSON"), serde_json::json!([]));
    let mut tail = gateway.command(&["audit", "tail", "--event", "db.session.query", "--db", SERVICE]);
    let mut tail = tail.stdout(std::process::Stdio::piped()).spawn().expect("tail");
    let lines = std::io::BufRead::lines(std::io::BufReader::new(tail.stdout.take().expect("piped")));
    let (sender, received) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|l| drop(sender.send(l))));
    db.psql("select 'followed'").ok();
    let line = wait::until("the record to be followed", wait::SOON, || {
        received.try_iter().find(|line| line.contains("select 'followed'"))
    });
    assert_eq!(serde_json::from_str::<Value>(&line).expect("one object per line")["code"], "TDB02I");
    tail.kill().expect("kill");
    tail.wait().expect("wait");
    gateway.finish();
}

fn a_tampered_audit_is_told(driver: Driver) {
    let (_server, mut gateway, db) = super::trusted(driver);
    db.psql("select 'the truth'").ok();
    gateway.record("TDB01I", |_| true);
    gateway.verify_audit();
    assert_eq!(gateway.terminate(), 0);
    let directory = gateway.audit_directory();
    let verify =
        || process::run(&mut gateway.command(&["audit", "verify", "--dir", directory.to_str().expect("UTF-8")]));
    verify().ok();
    let (path, text) = gateway
        .files()
        .into_iter()
        .filter(|f| f.starts_with(&directory))
        .filter_map(|f| fs::read_to_string(&f).ok().map(|text| (f, text)))
        .find(|(_, text)| text.contains("the truth"))
        .expect("a segment");
    fs::write(&path, text.replace("the truth", "the trash")).expect("write");
    let said = verify();
    assert_eq!(said.code, 10, "{said:?}");
    assert!(format!("{}{}", said.stdout, said.stderr).contains("modified"), "{said:?}");
    fs::write(&path, text).expect("write");
    verify().ok();
}

fn version_names_provider_and_driver(driver: Driver) {
    let (_server, gateway, _db) = super::trusted(driver);
    let text = gateway.cli(&["version", "--format", "json"]).ok();
    let json: Value = serde_json::from_str(&text).expect("JSON");
    assert!(json.to_string().contains("aws-lc"), "{text}");
    assert!(json.to_string().contains(driver.name()), "the running gateway's driver: {text}");
    gateway.finish();
}

fn creating_what_exists_is_a_conflict(driver: Driver) {
    let (_server, gateway, _db) = super::trusted(driver);
    let create = |arguments: &[&str], yaml: &str| {
        process::run_with_input(&mut gateway.command(arguments), yaml.as_bytes(), wait::SOON).code
    };
    let role = ringgate_tests::gateway::access_role("");
    assert_eq!(create(&["create", "-"], &role), 6);
    assert_eq!(create(&["create", "-f", "-"], &role), 0);
    assert_ne!(create(&["create", "-f", "-"], &role.replace("db_users", "db_usres")), 0);
    gateway.apply(&role.replace("name: access", "name: extra"));
    assert_eq!(gateway.cli(&["get", "role/extra"]).code, 0);
    gateway.cli(&["rm", "role/extra", "--yes"]).ok();
    assert_eq!(gateway.cli(&["get", "role/extra"]).code, 5);
    assert_eq!(gateway.cli(&["rm", "role/extra", "--yes"]).code, 5);
    let login = gateway.cli(&["db", "login", "none-such", "--db-user", USER, "--db-name", DATABASE]);
    assert_eq!(login.code, 5, "{login:?}");
    gateway.finish();
}

fn a_directory_with_other_things_in_it_is_refused(driver: Driver) {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("mine"), "not Ringgate's").expect("write");
    let mut quickstart = std::process::Command::new(ringgate_tests::places::ringgate());
    quickstart.args(["quickstart", "--data-dir"]).arg(directory.path());
    let said = process::run(quickstart.env("RINGGATE_RUNTIME_DRIVER", driver.name()));
    assert_ne!(said.code, 0);
    assert!(said.stderr.starts_with("error: "), "{said:?}");
    assert_eq!(said.stdout, "", "nothing but data on standard output");
    assert_eq!(fs::read_dir(directory.path()).expect("read").count(), 1);
}
