//! The mariadb client and the command line with a MariaDB.

use std::io::Read as _;
use std::net::TcpStream;

use ringgate_tests::{
    Driver,
    db_config::DbConfig,
    gateway::{Gateway, Setup},
    mysql::{DATABASE, Mariadb, SERVICE},
    on_both_drivers, process, wait,
};

on_both_drivers!(
    statements_are_run_and_recorded_with_their_outcome,
    prepared_statements_and_databases_of_the_text_protocol_work,
    an_error_of_the_database_reaches_the_client_under_its_own_code,
    a_refused_class_is_refused_natively_and_recorded,
    a_database_that_is_not_permitted_is_refused_where_names_are_enforced,
    a_password_of_the_database_stays_at_the_gateway,
    another_database_user_than_the_certificate_says_is_refused,
    a_client_without_a_certificate_or_tls_is_refused,
    the_greeting_tells_the_version_that_was_learnt,
    local_files_are_read_only_with_the_right,
    db_connect_runs_the_client,
    a_text_of_more_than_16_mib_passes_whole,
);

fn sold(driver: Driver) -> (Mariadb, Gateway, DbConfig) {
    let server = Mariadb::start();
    let gateway = Setup::mysql(driver, &server.uri()).start();
    let db = gateway.db_config(SERVICE, "root", DATABASE);
    (server, gateway, db)
}

fn statements_are_run_and_recorded_with_their_outcome(driver: Driver) {
    let (server, gateway, db) = sold(driver);
    assert_eq!(db.mariadb("SELECT 6*7, NULL, 'x'").ok(), "42\tNULL\tx");
    assert_eq!(db.mariadb("CREATE TABLE t (a INT); INSERT INTO t VALUES (1),(2),(3); SELECT SUM(a) FROM t").ok(), "6");
    assert_eq!(server.say("SELECT COUNT(*) FROM test.t"), "3");
    let select = gateway.record("TDB02I", |r| r.text("db_query") == "SELECT 6*7, NULL, 'x'");
    assert_eq!(select.text("query_type"), "SELECT");
    assert_eq!((select.text("db_protocol"), select.text("db_user"), select.text("db_name")), ("mysql", "root", "test"));
    let outcome = |r: &ringgate_tests::audit_log::Record| r["query_ei"] == select["ei"] && r["sid"] == select["sid"];
    let result = gateway.record("TDB10I", outcome);
    assert_eq!((result["success"].as_bool(), result["rows"].as_u64()), (Some(true), Some(1)));
    let insert = gateway.record("TDB02I", |r| r.text("db_query").starts_with("INSERT"));
    let result = gateway.record("TDB10I", |r| r["query_ei"] == insert["ei"] && r["sid"] == insert["sid"]);
    assert_eq!(result["rows"].as_u64(), Some(3));
    gateway.finish();
}

fn prepared_statements_and_databases_of_the_text_protocol_work(driver: Driver) {
    let (server, gateway, db) = sold(driver);
    server.say("CREATE DATABASE other");
    let said = db.mariadb("PREPARE p FROM 'SELECT ?+1'; SET @a=41; EXECUTE p USING @a; use other; SELECT DATABASE()");
    assert_eq!(said.ok(), "42\nother");
    let record = gateway.record("TMY07I", |r| r.text("schema_name") == "other");
    assert_eq!(record.event(), "db.session.mysql.init_db");
    gateway.finish();
}

fn an_error_of_the_database_reaches_the_client_under_its_own_code(driver: Driver) {
    let (_server, gateway, db) = sold(driver);
    let said = db.mariadb("SELECT * FROM nosuch");
    assert!(said.stderr.contains("ERROR 1146 (42S02)"), "{said:?}");
    let result = gateway.record("TDB10I", |r| r.text("error_code") == "1146");
    assert_eq!(result["success"].as_bool(), Some(false));
    let lost = gateway.db_config(SERVICE, "root", "missing").mariadb("SELECT 1");
    assert!(lost.stderr.contains("ERROR 1049 (42000)"), "{lost:?}");
    gateway.finish();
}

fn a_refused_class_is_refused_natively_and_recorded(driver: Driver) {
    let (_server, gateway, db) = sold(driver);
    gateway.permit("    db_commands: ['@prepared']\n", "");
    wait::until_true("the role to take effect", wait::SOON, || {
        let said = db.mariadb("SELECT 'denied'");
        said.stderr.contains("ERROR 1142 (42000)")
    });
    gateway.record("TDB02W", |r| r.text("db_query") == "SELECT 'denied'" && r.text("error").contains("@query"));
    gateway.finish();
}

fn a_database_that_is_not_permitted_is_refused_where_names_are_enforced(driver: Driver) {
    let (server, gateway, db) = sold(driver);
    server.say("CREATE DATABASE other");
    gateway.apply(
        "kind: role\nversion: v8\nmetadata:\n  name: access\nspec:\n  options:\n    enforce_db_names: true\n  allow:\n    \
         db_labels: {'*': '*'}\n    db_users: [root]\n    db_names: [test]\n",
    );
    wait::until_true("the role to take effect", wait::SOON, || {
        let said = db.mariadb("use other; SELECT 1");
        said.stderr.contains("ERROR 1044 (42000)")
    });
    gateway.record("TDB02W", |r| r.text("db_query") == "other");
    assert_eq!(db.mariadb("SELECT DATABASE()").ok(), "test");
    gateway.finish();
}

fn a_password_of_the_database_stays_at_the_gateway(driver: Driver) {
    let server = Mariadb::start();
    server.say("CREATE USER app@'127.0.0.1' IDENTIFIED BY 'hunter2'; GRANT ALL ON test.* TO app@'127.0.0.1'");
    let gateway = Setup::mysql(driver, &server.uri_with("app", "hunter2")).start();
    let db = gateway.db_config(SERVICE, "app", DATABASE);
    assert_eq!(db.mariadb("SELECT CURRENT_USER()").ok(), "app@127.0.0.1");
    server.say("ALTER USER app@'127.0.0.1' IDENTIFIED BY 'other'");
    let said = db.mariadb("SELECT 1");
    assert!(said.stderr.contains("ERROR 1045 (28000)"), "{said:?}");
    gateway.finish();
}

fn another_database_user_than_the_certificate_says_is_refused(driver: Driver) {
    let (_server, gateway, db) = sold(driver);
    let said = db.asking_for("mysql", DATABASE).mariadb("SELECT 1");
    assert!(said.stderr.contains("ERROR 1045 (28000)"), "{said:?}");
    gateway.record("TDB00W", |r| r.text("error").contains("certificate is for database user"));
    gateway.finish();
}

fn a_client_without_a_certificate_or_tls_is_refused(driver: Driver) {
    let (_server, gateway, db) = sold(driver);
    let bare = |tls: &str| {
        let mut bare = std::process::Command::new("mariadb");
        bare.args(["--no-defaults", "--protocol=tcp", "-uroot", tls, "-h127.0.0.1", "-e", "SELECT 1"]);
        process::run(bare.arg(format!("--port={}", db.port)))
    };
    let plain = bare("--skip-ssl");
    assert!(plain.stderr.contains("ERROR 1045 (28000)") && plain.stderr.contains("TLS"), "{plain:?}");
    assert_ne!(bare("--ssl").code, 0);
    gateway.record("T3007W", |r| r.text("db_protocol") == "mysql");
    gateway.finish();
}

fn the_greeting_tells_the_version_that_was_learnt(driver: Driver) {
    let (server, gateway, db) = sold(driver);
    let version = server.say("SELECT VERSION()");
    assert_eq!(db.mariadb("SELECT 1").ok(), "1");
    let mut stream = TcpStream::connect(("127.0.0.1", db.port)).expect("the listener");
    stream.set_read_timeout(Some(wait::SOON)).expect("timeout");
    let mut greeting = [0; 64];
    let len = stream.read(&mut greeting).expect("a greeting");
    assert!(String::from_utf8_lossy(&greeting[..len]).contains(&version), "{:?} {version}", &greeting[..len]);
    drop(stream);
    gateway.finish();
}

fn local_files_are_read_only_with_the_right(driver: Driver) {
    let (server, gateway, db) = sold(driver);
    server.say("CREATE TABLE test.t (a INT)");
    let file = gateway.base().join("rows");
    std::fs::write(&file, "1\n2\n").expect("a file");
    let load = format!("LOAD DATA LOCAL INFILE '{}' INTO TABLE t", file.display());
    assert_ne!(db.mariadb_with(&["--local-infile=1"], &load).code, 0);
    assert_eq!(server.say("SELECT COUNT(*) FROM test.t"), "0");
    gateway.permit("    db_commands: ['*', '@local_infile']\n", "");
    wait::until_true("the role to take effect", wait::SOON, || db.mariadb_with(&["--local-infile=1"], &load).code == 0);
    assert_eq!(server.say("SELECT COUNT(*) FROM test.t"), "2");
    gateway.record("TMY21I", |r| r.text("file_name") == file.display().to_string());
    gateway.finish();
}

fn db_connect_runs_the_client(driver: Driver) {
    let (_server, gateway, _db) = sold(driver);
    let said = gateway.cli(&[
        "db",
        "connect",
        SERVICE,
        "-u",
        "root",
        "-n",
        DATABASE,
        "--",
        "-N",
        "-B",
        "-e",
        "SELECT DATABASE()",
    ]);
    assert_eq!(said.ok(), "test");
    let group = gateway.cli(&["db", "config", SERVICE, "--format", "mycnf"]).ok();
    assert!(group.starts_with("[client-shop]\nhost=localhost\n"), "{group}");
    let jdbc = gateway.cli(&["db", "config", SERVICE, "--format", "jdbc"]).ok();
    assert!(jdbc.starts_with("jdbc:mariadb://localhost:"), "{jdbc}");
    gateway.finish();
}

fn a_text_of_more_than_16_mib_passes_whole(driver: Driver) {
    let (server, gateway, db) = sold(driver);
    server.say("SET GLOBAL max_allowed_packet=64*1024*1024");
    let script = gateway.base().join("long.sql");
    std::fs::write(&script, format!("SELECT LENGTH('{}'), 'end';\n", "x".repeat(17 << 20))).expect("a file");
    let source = format!("source {}", script.display());
    assert_eq!(db.mariadb_with(&["--max-allowed-packet=64M"], &source).ok(), format!("{}\tend", 17 << 20));
    gateway.record("TDB02I", |r| r.text("db_query").starts_with("SELECT LENGTH('xxx") && r["truncated"] == true);
    gateway.finish();
}
