//! Real drivers. The Python ones are tiny programs under `tests/drivers/` that print one value each.

use base64::Engine as _;
use ringgate_tests::{Driver, on_both_drivers, tls};

on_both_drivers!(
    tokio_postgres_prepares_pipelines_and_copies,
    tokio_postgres_is_notified,
    tokio_postgres_cancels,
    psycopg_runs_a_pipeline,
    psycopg_recovers_from_an_error_in_a_pipeline,
    psycopg_copies_both_ways,
    psycopg_cancels_in_clear_text,
    psycopg_cancels_encrypted,
    psycopg_listens_and_is_notified,
    psycopg_uses_large_objects,
    psycopg_reads_by_a_server_side_cursor,
    psycopg_binds_binary_parameters,
    psql_imports_and_exports_large_objects_by_function_call,
    asyncpg_prepares_and_fetches,
    asyncpg_copies_both_ways,
    asyncpg_listens_and_is_notified,
    asyncpg_reads_by_a_cursor_in_a_transaction,
    asyncpg_cancels_by_timeout,
);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn tokio_postgres_prepares_pipelines_and_copies(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    runtime().block_on(async {
        let client = tls::connect(&db).await.expect("connect");
        let statement = client.prepare("select $1::int + $2::int").await.expect("prepare");
        // Polled together, these go out as one pipeline.
        let (a, b, c) = tokio::join!(
            client.query_one(&statement, &[&1i32, &2i32]),
            client.query_one(&statement, &[&10i32, &20i32]),
            client.query_one("select 'text ' || $1", &[&"bound"]),
        );
        assert_eq!(a.expect("first").get::<_, i32>(0), 3);
        assert_eq!(b.expect("second").get::<_, i32>(0), 30);
        assert_eq!(c.expect("third").get::<_, String>(0), "text bound");
        let error = client.query("select 1/$1::int", &[&0i32]).await.expect_err("a division by zero");
        assert_eq!(error.code().map(|c| c.code()), Some("22012"));
        let rows = client.query("select generate_series(1, 10000)", &[]).await.expect("rows");
        assert_eq!(rows.iter().map(|r| i64::from(r.get::<_, i32>(0))).sum::<i64>(), 50_005_000);
    });
    let executed = gateway.record("TPG02I", |r| r.text("db_query") == "select $1::int + $2::int");
    // tokio-postgres leaves the types to the server, so the values are recorded as the bytes they are.
    let bytes = |n: i32| format!("base64:{}", base64::engine::general_purpose::STANDARD.encode(n.to_be_bytes()));
    let pairs = [(1, 2), (10, 20)].map(|(a, b)| serde_json::json!([bytes(a), bytes(b)]));
    assert!(pairs.contains(&executed["db_query_parameters"]), "{}", executed.0);
    gateway.record("TPG00I", |r| r.0.to_string().contains("select $1::int + $2::int"));
    gateway.finish();
}

fn tokio_postgres_is_notified(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    runtime().block_on(async {
        let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
        let mut config = tokio_postgres::Config::new();
        config.host(&db.host).port(db.port).user(&db.user).dbname(&db.database);
        config.ssl_mode(tokio_postgres::config::SslMode::Require);
        let (listener, mut connection) = config.connect(tls::RustlsConnect::new(&db)).await.expect("connect");
        tokio::spawn(async move {
            while let Some(message) = std::future::poll_fn(|context| connection.poll_message(context)).await {
                if let Ok(tokio_postgres::AsyncMessage::Notification(note)) = message {
                    sender.send(note.payload().to_owned()).ok();
                }
            }
        });
        listener.batch_execute("listen news").await.expect("listen");
        let other = tls::connect(&db).await.expect("connect");
        other.batch_execute("notify news, 'while idle'").await.expect("notify");
        let note = tokio::time::timeout(ringgate_tests::wait::SOON, received.recv()).await.expect("a notification");
        assert_eq!(note.as_deref(), Some("while idle"));
    });
    gateway.finish();
}

fn tokio_postgres_cancels(driver: Driver) {
    let (server, gateway, db) = super::trusted(driver);
    runtime().block_on(async {
        let client = tls::connect(&db).await.expect("connect");
        let cancel = client.cancel_token();
        let connect = tls::RustlsConnect::new(&db);
        let watcher = tokio::task::spawn_blocking(move || {
            ringgate_tests::wait::until_true("the statement to run", ringgate_tests::wait::SOON, || {
                server.sql(
                    "select count(*) from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'",
                ) == "1"
            });
            server
        });
        let sleep = client.batch_execute("select pg_sleep(120)");
        let (slept, _server) = tokio::join!(sleep, async {
            let server = watcher.await.expect("watcher");
            cancel.cancel_query(connect).await.expect("an encrypted cancel");
            server
        });
        let error = slept.expect_err("cancelled");
        assert_eq!(error.code(), Some(&tokio_postgres::error::SqlState::QUERY_CANCELED));
        assert_eq!(client.query_one("select 1", &[]).await.expect("usable").get::<_, i32>(0), 1);
    });
    gateway.finish();
}

/// Runs one step of a Python driver and compares what it prints.
#[track_caller]
fn python(driver: Driver, script: &str, step: &str, prints: &str) {
    let (_server, gateway, db) = super::trusted(driver);
    assert_eq!(db.python(script, &[step]), prints);
    gateway.finish();
}

fn psycopg_runs_a_pipeline(driver: Driver) {
    python(driver, "psycopg_driver.py", "pipeline", "4950");
}

fn psycopg_recovers_from_an_error_in_a_pipeline(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    assert_eq!(db.python("psycopg_driver.py", &["pipeline_error"]), "DivisionByZero after");
    // The statement behind the failing one was sent in the same pipeline and never ran.
    let never = gateway.record("TPG02I", |r| r.text("db_query") == "select 'never'");
    let result = gateway.record("TDB10I", |r| r["query_ei"] == never["ei"] && r.text("sid") == never.text("sid"));
    assert_eq!((&result["success"], &result["skipped"]), (&false.into(), &true.into()), "{}", result.0);
    gateway.finish();
}

fn psycopg_copies_both_ways(driver: Driver) {
    python(driver, "psycopg_driver.py", "copy", "100000 4999950000 100000");
}

fn psycopg_cancels_in_clear_text(driver: Driver) {
    python(driver, "psycopg_driver.py", "cancel", "QueryCanceled usable");
}

fn psycopg_cancels_encrypted(driver: Driver) {
    python(driver, "psycopg_driver.py", "cancel_safe", "QueryCanceled usable");
}

fn psycopg_listens_and_is_notified(driver: Driver) {
    python(driver, "psycopg_driver.py", "notify", "channel one|channel two");
}

fn psycopg_uses_large_objects(driver: Driver) {
    python(driver, "psycopg_driver.py", "large_object", "1048576 True");
}

fn psycopg_reads_by_a_server_side_cursor(driver: Driver) {
    python(driver, "psycopg_driver.py", "cursor", "50000 1250025000");
}

fn psycopg_binds_binary_parameters(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    assert_eq!(db.python("psycopg_driver.py", &["binary"]), "42 True 1.5 text b'\\x00\\xff'");
    // psycopg names the types, so the audit has values and not bytes.
    let executed = gateway.record("TPG02I", |r| r.text("db_query").contains("::float8"));
    let values = &executed["db_query_parameters"];
    assert_eq!((&values[0], &values[1], &values[2]), (&42.into(), &true.into(), &1.5.into()), "{}", executed.0);
    gateway.finish();
}

fn psql_imports_and_exports_large_objects_by_function_call(driver: Driver) {
    let (_server, gateway, db) = super::trusted(driver);
    let directory = tempfile::tempdir().expect("a directory");
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    let bytes: Vec<u8> = (0..300_000u32).map(|n| (n * 31 % 256) as u8).collect();
    std::fs::write(&from, &bytes).expect("write");
    let script = format!("\\lo_import {}\n\\lo_export :LASTOID {}\n", from.display(), to.display());
    let mut psql = db.client("psql");
    psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
    ringgate_tests::process::run_with_input(&mut psql, script.as_bytes(), ringgate_tests::wait::SOON).ok();
    assert!(std::fs::read(&to).expect("read") == bytes, "the object came back changed");
    gateway.record("TPG04I", |_| true);
    gateway.finish();
}

fn asyncpg_prepares_and_fetches(driver: Driver) {
    python(driver, "asyncpg_driver.py", "prepare", "[3, 30, 300] 22012 usable");
}

fn asyncpg_copies_both_ways(driver: Driver) {
    python(driver, "asyncpg_driver.py", "copy", "COPY 50000 1249975000 388890");
}

fn asyncpg_listens_and_is_notified(driver: Driver) {
    python(driver, "asyncpg_driver.py", "notify", "news: hello");
}

fn asyncpg_reads_by_a_cursor_in_a_transaction(driver: Driver) {
    python(driver, "asyncpg_driver.py", "cursor", "20000 200010000");
}

fn asyncpg_cancels_by_timeout(driver: Driver) {
    python(driver, "asyncpg_driver.py", "timeout", "TimeoutError usable");
}
