//! Things that die or fill up while work is going on.

use std::{
    collections::HashSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::{Duration, Instant},
};

use ringgate_tests::{
    Driver,
    gateway::Setup,
    on_both_drivers,
    postgres::{self, DATABASE, Options, Postgres, USER},
    process,
    raw::Raw,
    wait, wire,
};

on_both_drivers!(
    a_killed_backend_is_a_native_error_and_others_do_not_notice,
    a_killed_database_is_reached_again_when_it_is_back,
    a_killed_gateway_loses_no_record_of_what_the_database_saw,
    a_full_audit_disk_refuses_statements_and_recovers,
    a_drained_gateway_lets_busy_sessions_finish,
);

fn a_killed_backend_is_a_native_error_and_others_do_not_notice(driver: Driver) {
    let server = Postgres::start(Options::trust().own());
    let other_server = Postgres::start(Options::trust().own());
    let gateway = Setup::new(driver, &server.uri()).database("other", &other_server.uri()).start();
    let mut other = Raw::login(&gateway.db_config("other", USER, DATABASE));
    let db = gateway.login();
    let mut session = Raw::login(&db);
    let pid = session.value("select pg_backend_pid()").parse().expect("a process id");
    session.send(&wire::query("select pg_sleep(120)")).expect("send");
    wait::until_true("the statement to run", wait::SOON, || {
        server.sql("select count(*) from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'")
            == "1"
    });
    let start = Instant::now();
    postgres::kill_backend(pid);
    let messages = session.read_to_close();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let error = messages.last().expect("an error before the close").fields();
    assert_eq!(error.severity(), "FATAL");
    assert!(error.code().starts_with("08") || error.code().starts_with("57P"), "{error:?}");
    let end = gateway.record("TDB01I", |r| r.text("reason") == "server");
    let query = gateway.record("TDB02I", |r| r.text("db_query") == "select pg_sleep(120)");
    assert_eq!(query.text("sid"), end.text("sid"));
    let result = gateway.record("TDB10I", |r| r.text("sid") == end.text("sid") && r["query_ei"] == query["ei"]);
    assert_eq!(result["success"], false);
    assert_eq!(other.value("select 'undisturbed'"), "undisturbed");
    gateway.finish();
}

fn a_killed_database_is_reached_again_when_it_is_back(driver: Driver) {
    let mut server = Postgres::start(Options::trust().own());
    let gateway = Setup::new(driver, &server.uri()).start();
    let db = gateway.login();
    let mut idle = Raw::login(&db);
    server.kill_9();
    let messages = idle.read_to_close();
    assert!(messages.iter().all(|m| matches!(m.tag, b'E' | b'N')), "{messages:?}");
    gateway.record("TDB01I", |r| r.text("reason") == "server");
    db.psql("select 1").failed_with(2, &["FATAL"]);
    server.start_again();
    assert_eq!(db.psql("select 'back'").ok(), "back");
    gateway.finish();
}

/// Inserts numbers by simple queries until told to stop or cut off; gives how many were acknowledged.
fn insert_until(stop: &AtomicBool, next: &AtomicU32, db: &ringgate_tests::db_config::DbConfig) -> u32 {
    let mut session = Raw::login(db);
    let mut acknowledged = 0;
    while !stop.load(Ordering::Relaxed) {
        let n = next.fetch_add(1, Ordering::Relaxed);
        if session.send(&wire::query(&format!("insert into seen values ({n})"))).is_err() {
            break;
        }
        loop {
            match session.read_message() {
                Ok(Some(message)) if message.tag == b'Z' => break,
                Ok(Some(message)) if message.tag == b'C' => acknowledged += 1,
                Ok(Some(_)) => {}
                _ => return acknowledged,
            }
        }
    }
    acknowledged
}

fn recorded_inserts(gateway: &ringgate_tests::gateway::Gateway) -> HashSet<u32> {
    let number = |text: &str| text.strip_prefix("insert into seen values (")?.split(')').next()?.parse().ok();
    let statements = gateway.audit().into_iter().filter(|r| r.text("code") == "TDB02I");
    statements.filter_map(|r| number(r.text("db_query"))).collect()
}

fn seen_by_the_database(server: &Postgres) -> HashSet<u32> {
    server.sql("select n from seen").lines().map(|l| l.parse().expect("a number")).collect()
}

fn a_killed_gateway_loses_no_record_of_what_the_database_saw(driver: Driver) {
    let server = Postgres::start(Options::trust());
    server.sql("create table seen (n int); grant all on seen to app");
    let mut gateway = Setup::new(driver, &server.uri()).start();
    let db = gateway.login();
    for round in 1..=3u32 {
        let (stop, next) = (AtomicBool::new(false), AtomicU32::new(round * 1_000_000));
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| insert_until(&stop, &next, &db))).collect();
            wait::until_true("a good deal of work", wait::SOON, || {
                next.load(Ordering::Relaxed) > round * 1_000_000 + 500
            });
            gateway.kill_9();
            stop.store(true, Ordering::Relaxed);
            let acknowledged: u32 = clients.into_iter().map(|c| c.join().expect("client")).sum();
            assert!(acknowledged > 400, "only {acknowledged} inserts");
        });
        // What was on its way into the database when the gateway died still counts.
        wait::until_true("the sessions to end at the database", wait::SOON, || {
            server.sql("select count(*) from pg_stat_activity where usename = 'app'") == "0"
        });
        gateway.start_again();
        let marker = format!("select 'after kill {round}'");
        db.psql(&marker).ok();
        gateway.record("TDB02I", |r| r.text("db_query") == marker);
        let seen = seen_by_the_database(&server);
        let recorded = recorded_inserts(&gateway);
        let mut missing: Vec<_> = seen.difference(&recorded).collect();
        missing.sort();
        assert!(missing.is_empty(), "the database saw these without a record: {missing:?}");
        gateway.verify_audit();
    }
    gateway.finish();
}

/// A small file system; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts over `directory` and keeps what is in it.
    fn over(directory: &Path, mebibytes: u32) -> SmallDisk {
        assert!(rustix::process::geteuid().is_root(), "a full disk needs a small file system: run the tests as root");
        let aside = directory.with_extension("aside");
        process::run(Command::new("cp").arg("-a").arg(directory).arg(&aside)).ok();
        let size = format!("size={mebibytes}m,mode=0700");
        process::run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory)).ok();
        let disk = SmallDisk(directory.to_path_buf());
        process::run(Command::new("cp").arg("-a").arg(aside.join(".")).arg(directory)).ok();
        fs::remove_dir_all(aside).expect("remove the copy");
        disk
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Leaves not one block.
    fn fill(&self) {
        let mut file = fs::File::create(self.filler()).expect("filler");
        let block = vec![0; 1 << 16];
        while file.write_all(&block).is_ok() {}
        while file.write_all(&block[..4096]).is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file(self.filler()).expect("remove filler");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

fn a_full_audit_disk_refuses_statements_and_recovers(driver: Driver) {
    let server = Postgres::start(Options::trust());
    server.sql("create table seen (n int); grant all on seen to app");
    let mut gateway = Setup::new(driver, &server.uri()).start();
    let db = gateway.login();
    assert_eq!(gateway.terminate(), 0);
    let disk = SmallDisk::over(&gateway.audit_directory(), 256);
    gateway.start_again();
    let mut session = Raw::login(&db);
    let mut n = 0;
    // Long, so that what the writer has set aside on the disk is soon used up.
    let comment = "-".repeat(50_000);
    let mut insert = |session: &mut Raw| {
        n += 1;
        let statement = format!("insert into seen values ({n}) {comment}");
        session.send(&wire::query(&statement)).ok()?;
        loop {
            match session.read_message().ok()?? {
                m if m.tag == b'E' => return Some(Err(m.fields())),
                m if m.tag == b'Z' => return Some(Ok(())),
                _ => {}
            }
        }
    };
    assert_eq!(insert(&mut session), Some(Ok(())));
    disk.fill();
    let refusal = wait::until("a statement to be refused", wait::SOON, || match insert(&mut session) {
        Some(Ok(())) => None,
        Some(Err(error)) => Some(error),
        None => panic!("the session ended without a native error"),
    });
    assert!(matches!(refusal.severity(), "ERROR" | "FATAL"), "{refusal:?}");
    assert!(refusal.text().contains("audit"), "the error says why: {refusal:?}");
    wait::until_true("/readyz to say 503", wait::SOON, || gateway.http("/readyz").0 == 503);
    assert_eq!(gateway.http("/healthz").0, 200, "the process lives");
    disk.empty();
    wait::until_true("/readyz to say 200", wait::SOON, || gateway.http("/readyz").0 == 200);
    assert_eq!(db.psql("insert into seen values (1000000)").code, 0);
    gateway.record("TDB02I", |r| r.text("db_query") == "insert into seen values (1000000)");
    let seen = seen_by_the_database(&server);
    let recorded = recorded_inserts(&gateway);
    assert!(seen.is_subset(&recorded), "without a record: {:?}", seen.difference(&recorded).collect::<Vec<_>>());
    gateway.finish();
    drop(disk);
}

fn a_drained_gateway_lets_busy_sessions_finish(driver: Driver) {
    let (server, mut gateway, db) = super::trusted(driver);
    let mut idle = Raw::login(&db);
    let mut busy = Raw::login(&db);
    busy.send(&wire::query("select pg_sleep(2), 'finished'")).expect("send");
    wait::until_true("the statement to run", wait::SOON, || {
        server.sql("select count(*) from pg_stat_activity where query like 'select pg_sleep%' and state = 'active' and usename = 'app'") == "1"
    });
    process::signal(gateway.pid(), rustix::process::Signal::TERM);
    let told = idle.read_to_close();
    let error = told.last().expect("an error before the close").fields();
    assert_eq!((error.severity(), error.code()), ("FATAL", "57P01"));
    let answer = busy.read_to_close();
    assert!(answer.iter().any(|m| m.tag == b'C'), "the busy session was cut: {answer:?}");
    assert_eq!(gateway.wait(), 0);
    assert!(gateway.audit().iter().any(|r| r.text("code") == "TDB01I" && r.text("reason") == "drain"));
    gateway.start_again();
    gateway.finish();
}
