//! psql and the command line, as in the five-minute run.

use std::{io::Write, process::Command};

use ringgate_tests::{
    Driver,
    gateway::{self, SERVICE, Setup},
    on_both_drivers, places,
    postgres::{DATABASE, Options, Postgres, USER},
    process, wait,
};
use serde_json::Value;

on_both_drivers!(
    psql_selects_through_the_gateway,
    every_statement_has_its_record_and_its_result,
    the_first_statement_of_a_session_is_recorded_before_its_end,
    copy_goes_both_ways,
    the_exit_status_is_the_clients,
    a_refused_database_user_gets_the_native_error,
    a_refused_database_name_gets_the_native_error,
    a_certificate_is_good_for_its_database_user_only,
    the_json_of_db_config_has_every_promised_key,
    plain_clients_use_the_tunnel,
    a_second_start_goes_on_with_the_same_data,
    logout_removes_the_credentials,
    what_get_prints_can_be_created_again,
    the_driver_is_the_one_asked_for,
);

fn psql_selects_through_the_gateway(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    assert_eq!(db.psql("select current_user, current_database(), 6 * 7").ok(), format!("{USER}|{DATABASE}|42"));
    let said = gateway.cli(&["db", "connect", SERVICE, "--", "-XAtqc", "select 'through ' || current_database()"]);
    assert_eq!(said.ok(), format!("through {DATABASE}"));
    gateway.finish();
}

fn every_statement_has_its_record_and_its_result(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    db.psql("create table t (n int)").ok();
    db.psql("insert into t select generate_series(1, 7)").ok();
    db.psql("select n from t").ok();
    db.psql("select 1/0").failed_with(1, &["division by zero"]);

    let insert = gateway.record("TDB02I", |r| r.text("db_query").starts_with("insert into t"));
    for (key, value) in [
        ("event", "db.session.query"),
        ("db_query", "insert into t select generate_series(1, 7)"),
        ("query_type", "INSERT"),
        ("db_service", SERVICE),
        ("db_protocol", "postgres"),
        ("db_user", USER),
        ("db_name", DATABASE),
        ("user", "admin"),
    ] {
        assert_eq!(insert.text(key), value, "{key} of {}", insert.0);
    }
    let result = |query: &ringgate_tests::audit_log::Record| {
        let (sid, ei) = (query.text("sid").to_owned(), query["ei"].clone());
        gateway.record("TDB10I", |r| r.text("sid") == sid && r["query_ei"] == ei)
    };
    assert_eq!(result(&insert)["rows"], 7);
    assert_eq!(result(&insert)["success"], true);
    let select = gateway.record("TDB02I", |r| r.text("db_query") == "select n from t");
    assert_eq!(result(&select)["rows"], 7);
    let division = gateway.record("TDB02I", |r| r.text("db_query") == "select 1/0");
    assert_eq!(result(&division)["success"], false);
    assert!(result(&division).text("error").contains("division by zero"), "{}", result(&division).0);
    gateway.finish();
}

fn the_first_statement_of_a_session_is_recorded_before_its_end(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    db.psql("select 'in order'").ok();
    let end = gateway.record("TDB01I", |r| r.text("reason") == "client");
    let sid = end.text("sid");
    let session: Vec<_> = gateway.audit().into_iter().filter(|r| r.text("sid") == sid).collect();
    let codes: Vec<_> = session.iter().map(|r| r.text("code")).collect();
    assert_eq!(codes, ["TDB00I", "TDB02I", "TDB10I", "TDB01I"]);
    let indexes: Vec<_> = session.iter().map(|r| r["ei"].as_u64()).collect();
    assert_eq!(indexes, [Some(0), Some(1), Some(2), Some(3)]);
    assert_eq!(session[3]["statements"], 1);
    gateway.finish();
}

fn copy_goes_both_ways(driver: Driver) {
    let (server, gateway, db) = super::trusted(driver);
    db.psql("create table numbers (n int, name text)").ok();
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    for n in 0..20_000 {
        writeln!(file, "{n}\tname {n}").expect("write");
    }
    file.flush().expect("write");
    db.psql(&format!("\\copy numbers from '{}'", file.path().display())).ok();
    assert_eq!(server.sql("select count(*), sum(n) from numbers"), "20000|199990000");
    let out = tempfile::NamedTempFile::new().expect("a file");
    db.psql(&format!("\\copy (select * from numbers order by n) to '{}'", out.path().display())).ok();
    let (sent, received) = (std::fs::read(file.path()), std::fs::read(out.path()));
    assert!(sent.expect("read") == received.expect("read"), "the rows came back changed");
    let copy = gateway.record("TDB02I", |r| {
        r.text("db_query").to_uppercase().starts_with("COPY  NUMBERS FROM")
            || r.text("db_query").to_uppercase().starts_with("COPY NUMBERS FROM")
    });
    let result = gateway.record("TDB10I", |r| r.text("sid") == copy.text("sid") && r["query_ei"] == copy["ei"]);
    assert_eq!(result["rows"], 20_000);
    gateway.finish();
}

fn the_exit_status_is_the_clients(driver: Driver) {
    let (_server, gateway, _db) = super::trusted(driver);
    let connect = |arguments: &[&str]| {
        let mut all = vec!["db", "connect", SERVICE, "--"];
        all.extend_from_slice(arguments);
        gateway.cli(&all).code
    };
    assert_eq!(connect(&["-XAtqc", "select 1"]), 0);
    // psql: 1 is an error in -c, 3 an error in a script with ON_ERROR_STOP.
    assert_eq!(connect(&["-XAtqc", "select nonsense"]), 1);
    let mut script = gateway.command(&["db", "connect", SERVICE, "--", "-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
    assert_eq!(process::run_with_input(&mut script, b"select nonsense;\n", wait::SOON).code, 3);
    assert_eq!(gateway.cli(&["db", "connect", "no-such-database", "--db-user", "a", "--db-name", "b"]).code, 5);
    assert_eq!(gateway.cli(&["db", "connect", "--no-such-flag"]).code, 2);
    gateway.finish();
}

fn a_refused_database_user_gets_the_native_error(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    gateway.deny("    db_users: [app]\n");
    wait::until_true("the role to take effect", wait::SOON, || db.psql("select 1").code != 0);
    db.psql("select 1").failed_with(2, &["FATAL", "denied"]);
    let refused = gateway.record("TDB00W", |_| true);
    assert_eq!(refused["success"], false);
    assert!(refused.text("error").contains("access"), "the record names the role: {}", refused.0);
    gateway.finish();
}

fn a_refused_database_name_gets_the_native_error(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    gateway.deny("    db_names: [orders]\n");
    wait::until_true("the role to take effect", wait::SOON, || db.psql("select 1").code != 0);
    db.psql("select 1").failed_with(2, &["FATAL", "denied"]);
    // What the client sees does not say which rule decided: only the audit does.
    assert!(!db.psql("select 1").stderr.contains("role \"access\""));
    gateway.record("TDB00W", |r| r.text("db_name") == DATABASE);
    gateway.finish();
}

fn a_certificate_is_good_for_its_database_user_only(driver: Driver) {
    let (server, gateway, db) = super::trusted(driver);
    db.asking_for("postgres", DATABASE).psql("select 1").failed_with(2, &["FATAL"]);
    // The database name of the startup message is the role's business.
    assert_eq!(db.asking_for(USER, "postgres").psql("select current_database()").ok(), "postgres");
    gateway.deny("    db_names: [postgres]\n");
    wait::until_true("the role to take effect", wait::SOON, || db.asking_for(USER, "postgres").psql("").code != 0);
    db.asking_for(USER, "postgres").psql("select 1").failed_with(2, &["FATAL"]);
    // An empty one means the user's name, which is judged after it was put in.
    gateway.deny(&format!("    db_names: [{USER}]\n"));
    let mut raw = ringgate_tests::raw::Raw::tls(&db).expect("TLS");
    raw.send(&ringgate_tests::wire::startup(ringgate_tests::wire::VERSION_3_0, &[("user", USER)])).expect("send");
    let messages = raw.read_to_close();
    assert_eq!(messages.last().expect("an error").fields().severity(), "FATAL", "{messages:?}");
    assert_eq!(db.psql("select 1").ok(), "1");
    assert_eq!(
        server.sql("select count(*) from pg_stat_activity where usename = 'postgres' and client_addr is not null"),
        "0"
    );
    gateway.finish();
}

fn the_json_of_db_config_has_every_promised_key(driver: Driver) {
    let (_server, gateway, _db) = super::trusted(driver);
    let text = gateway.cli(&["db", "config", SERVICE, "--format", "json"]).ok();
    let json: Value = serde_json::from_str(&text).expect("JSON");
    for key in ["protocol", "host", "port", "user", "database", "ca", "cert", "key", "expires", "uri"] {
        assert!(!json[key].is_null(), "no {key} in {text}");
    }
    let uri = json["uri"].as_str().expect("a URI");
    let said = process::run(Command::new(places::postgres_client("psql")).args(["-XAtqc", "select 'by uri'"]).arg(uri));
    assert_eq!(said.ok(), "by uri");
    let environment = gateway.cli(&["db", "env", SERVICE]).ok();
    for name in ["PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"] {
        assert!(environment.contains(&format!("{name}=")), "no {name} in {environment}");
    }
    let list: Value = serde_json::from_str(&gateway.cli(&["db", "ls", "--format", "json"]).ok()).expect("JSON");
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!(list[0]["name"], SERVICE);
    gateway.finish();
}

fn plain_clients_use_the_tunnel(driver: Driver) {
    let (_server, gateway, _db) = super::trusted(driver);
    let port = places::free_port();
    let address = format!("127.0.0.1:{port}");
    let mut tunnel = gateway.command(&[
        "proxy",
        "db",
        "--tunnel",
        "--db-user",
        USER,
        "--db-name",
        DATABASE,
        "--listen",
        &address,
        SERVICE,
    ]);
    let mut tunnel = tunnel.spawn().expect("the tunnel starts");
    let uri = format!("postgresql://{USER}@{address}/{DATABASE}?sslmode=disable");
    let psql =
        || process::run(Command::new(places::postgres_client("psql")).args(["-XAtqc", "select 40 + 2"]).arg(&uri));
    wait::until_true("the tunnel", wait::SOON, || psql().code == 0);
    assert_eq!(psql().ok(), "42");
    tunnel.kill().expect("kill");
    tunnel.wait().expect("wait");
    gateway.record("TDB02I", |r| r.text("db_query") == "select 40 + 2");
    gateway.finish();
}

fn a_second_start_goes_on_with_the_same_data(driver: Driver) {
    let (_server, mut gateway, db) = super::trusted(driver);
    db.psql("select 'before'").ok();
    assert_eq!(gateway.terminate(), 0);
    gateway.start_again();
    assert_eq!(db.psql("select 'after'").ok(), "after");
    gateway.record("TDB02I", |r| r.text("db_query") == "select 'before'");
    gateway.record("TDB02I", |r| r.text("db_query") == "select 'after'");
    gateway.finish();
}

fn logout_removes_the_credentials(driver: Driver) {
    let (_server, gateway, _db) = super::trusted(driver);
    let keys = || gateway.files().into_iter().filter(|f| f.ends_with(format!("{SERVICE}.key"))).count();
    assert_eq!(keys(), 1);
    gateway.cli(&["db", "logout", SERVICE]).ok();
    assert_eq!(keys(), 0);
    gateway.finish();
}

fn what_get_prints_can_be_created_again(driver: Driver) {
    let (_server, gateway, _db) = super::trusted(driver);
    gateway.apply(&gateway::access_role("    db_users: [nobody]\n"));
    for kind in ["role/access", "user/admin", &format!("db/{SERVICE}")] {
        let yaml = gateway.cli(&["get", kind, "--format", "yaml"]).ok();
        gateway.apply(&yaml);
        let again = gateway.cli(&["get", kind, "--format", "yaml"]).ok();
        let body = |text: &str| text.lines().filter(|l| !l.contains("revision")).collect::<Vec<_>>().join("\n");
        assert_eq!(body(&again), body(&yaml));
    }
    assert_eq!(gateway.cli(&["get", "role/no-such-role"]).code, 5);
    gateway.finish();
}

fn the_driver_is_the_one_asked_for(driver: Driver) {
    // By the short variable too, which wins over the configuration.
    let server = Postgres::start(Options::trust());
    let other = if driver == Driver::Epoll { Driver::IoUring } else { Driver::Epoll };
    let gateway = Setup::new(driver, &server.uri()).environment("RINGGATE_RUNTIME_DRIVER", driver.name()).start();
    assert_eq!(gateway.metric("ringgate_build_info", &[&format!("driver=\"{}\"", driver.name())]), 1.0);
    assert_eq!(gateway.metric("ringgate_build_info", &[&format!("driver=\"{}\"", other.name())]), 0.0);
    assert_eq!(gateway.http("/healthz").0, 200);
    assert_eq!(gateway.http("/readyz").0, 200);
    gateway.finish();
}
