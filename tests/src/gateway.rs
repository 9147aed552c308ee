//! Ringgate as a process, started, used and ended as its users do.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    Driver,
    audit_log::{self, Record},
    db_config::DbConfig,
    places,
    process::{self, Said},
    wait,
};

/// Name under which the harness registers its database.
pub const SERVICE: &str = "orders-db";

/// How a gateway is to be started.
#[derive(Clone, Debug)]
pub struct Setup {
    driver: Driver,
    databases: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    faketime: Option<String>,
    from_file: bool,
}

impl Setup {
    /// With one PostgreSQL database [`SERVICE`] at `uri`.
    pub fn new(driver: Driver, uri: &str) -> Setup {
        Setup::named(driver, SERVICE, uri)
    }

    /// With one Redis [`crate::redis::SERVICE`] at `uri`.
    pub fn redis(driver: Driver, uri: &str) -> Setup {
        Setup::named(driver, crate::redis::SERVICE, uri)
    }

    /// With one MariaDB [`crate::mysql::SERVICE`] at `uri`.
    pub fn mysql(driver: Driver, uri: &str) -> Setup {
        Setup::named(driver, crate::mysql::SERVICE, uri)
    }

    fn named(driver: Driver, name: &str, uri: &str) -> Setup {
        Setup {
            driver,
            databases: vec![(name.into(), uri.into())],
            environment: Vec::new(),
            faketime: None,
            from_file: false,
        }
    }

    /// A further database.
    pub fn database(mut self, name: &str, uri: &str) -> Setup {
        self.databases.push((name.into(), uri.into()));
        self
    }

    /// A configuration key by its path in capitals: `("AUTH__ON_ACCESS_CHANGE", "end")`.
    pub fn config(mut self, key: &str, value: &str) -> Setup {
        self.environment.push((format!("RINGGATE__{key}"), value.into()));
        self
    }

    /// Any other variable of its environment. `RINGGATE_RUNTIME_DRIVER` takes the place of the key of [`Driver`].
    pub fn environment(mut self, key: &str, value: &str) -> Setup {
        self.environment.push((key.into(), value.into()));
        self
    }

    /// The process sees the wall clock shifted, `-2h` or `+3h`; its monotonic clock is left alone.
    pub fn clock(mut self, shift: &str) -> Setup {
        self.faketime = Some(shift.into());
        self
    }

    /// Starts on a new data directory and waits for the `ready` line.
    pub fn start(self) -> Gateway {
        let base = tempfile::Builder::new().prefix("ringgate-").tempdir().expect("a temporary directory");
        fs::create_dir(base.path().join("user")).expect("home of the user");
        let mut gateway = Gateway {
            base,
            port: places::free_port(),
            redis_port: places::free_port(),
            mysql_port: places::free_port(),
            diagnostics_port: places::free_port(),
            setup: self,
            child: None,
            said: String::new(),
        };
        gateway.spawn();
        gateway
    }
}

/// A running gateway; killed when dropped.
pub struct Gateway {
    base: TempDir,
    /// Port of the PostgreSQL listener.
    pub port: u16,
    /// Port of the Redis listener.
    pub redis_port: u16,
    /// Port of the MySQL listener.
    pub mysql_port: u16,
    /// Port of metrics and health.
    pub diagnostics_port: u16,
    setup: Setup,
    child: Option<Child>,
    said: String,
}

impl Gateway {
    /// Quickstart with one database and nothing else.
    pub fn start(driver: Driver, uri: &str) -> Gateway {
        Setup::new(driver, uri).start()
    }

    /// The data directory D.
    pub fn data(&self) -> PathBuf {
        self.base.path().join("data")
    }

    /// The audit directory.
    pub fn audit_directory(&self) -> PathBuf {
        self.data().join("audit")
    }

    /// What the process wrote to standard error so far, over all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.base.path().join("stderr")).unwrap_or_default()
    }

    /// What the last start printed on standard output.
    pub fn said(&self) -> &str {
        &self.said
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the gateway runs").id()
    }

    fn spawn(&mut self) {
        let log = self.base.path().join("stderr");
        let log = fs::OpenOptions::new().create(true).append(true).open(log).expect("log file");
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig=KILL");
        if let Some(shift) = &self.setup.faketime {
            // The library alone: the `faketime` program would stand between us and the signals.
            command.env("LD_PRELOAD", places::faketime_library());
            command.env("FAKETIME", shift).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        command.arg(places::ringgate());
        let address = |port: u16| format!("127.0.0.1:{port}");
        let listeners = [
            ("postgres", address(self.port)),
            ("redis", address(self.redis_port)),
            ("mysql", address(self.mysql_port)),
        ];
        if self.setup.from_file {
            command.arg("server").arg("-c").arg(self.data().join("ringgate.yaml"));
            for (name, address) in listeners {
                command.env(format!("RINGGATE__LISTENERS__{}__ADDR", name.to_uppercase()), address);
            }
            command.env("RINGGATE__LISTENERS__DIAG__ADDR", format!("127.0.0.1:{}", self.diagnostics_port));
        } else {
            command.arg("quickstart").arg("--data-dir").arg(self.data());
            for (name, uri) in &self.setup.databases {
                command.arg("--db").arg(format!("{name}={uri}"));
            }
            for (name, address) in listeners {
                command.arg("--listen").arg(format!("{name}={address}"));
            }
            command.args(["--listen", &format!("diag=127.0.0.1:{}", self.diagnostics_port)]);
        }
        // Where the driver is set, it is forced: a kernel that forbids io_uring fails the test, it does not skip it.
        command.env("RINGGATE__RUNTIME__DRIVER", self.setup.driver.name());
        // All tests come from one address: the limit for an address is not in their way unless they set it.
        command.env("RINGGATE__LIMITS__LOGIN_RATE__PER_IP", "100000/s");
        command.env("RINGGATE__LIMITS__LOGIN_RATE__BURST", "100000");
        for (key, value) in &self.setup.environment {
            if key == "RINGGATE_RUNTIME_DRIVER" {
                command.env_remove("RINGGATE__RUNTIME__DRIVER");
            }
            command.env(key, value);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).env("HOME", self.base.path().join("user"));
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let stdout = child.stdout.take().expect("piped");
        self.child = Some(child);
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        self.said.clear();
        loop {
            match lines.recv_timeout(wait::SOON) {
                Ok(line) => {
                    let ready = line.starts_with("ready");
                    self.said.push_str(&line);
                    self.said.push('\n');
                    if ready {
                        break;
                    }
                }
                Err(e) => panic!("no ready line ({e}): {}{}", self.said, self.log()),
            }
        }
        let driver = format!("driver=\"{}\"", self.setup.driver.name());
        assert_eq!(self.metric("ringgate_build_info", &[&driver]), 1.0, "not on {driver}: {}", self.log());
    }

    /// The command line tool with the admin's profile.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(places::ringgate());
        command.arg("--home").arg(self.data().join("home")).args(arguments);
        command.env("HOME", self.base.path().join("user"));
        command
    }

    /// Runs the command line tool to its end.
    #[track_caller]
    pub fn cli(&self, arguments: &[&str]) -> Said {
        process::run(&mut self.command(arguments))
    }

    /// `db login`, then `db config --format json`.
    #[track_caller]
    pub fn db_config(&self, service: &str, user: &str, database: &str) -> DbConfig {
        self.cli(&["db", "login", service, "--db-user", user, "--db-name", database]).ok();
        DbConfig::parse(&self.cli(&["db", "config", service, "--format", "json"]).ok())
    }

    /// [`Gateway::db_config`] for the harness's own user and database.
    #[track_caller]
    pub fn login(&self) -> DbConfig {
        self.db_config(SERVICE, crate::postgres::USER, crate::postgres::DATABASE)
    }

    /// `db login` to a Redis as `user` (empty: the default one), then `db config --format json`.
    #[track_caller]
    pub fn redis_login(&self, service: &str, user: &str) -> DbConfig {
        let mut login = vec!["db", "login", service];
        if !user.is_empty() {
            login.extend(["--db-user", user]);
        }
        self.cli(&login).ok();
        DbConfig::parse(&self.cli(&["db", "config", service, "--format", "json"]).ok())
    }

    /// `create -f` with these resource documents.
    #[track_caller]
    pub fn apply(&self, yaml: &str) {
        let mut command = self.command(&["create", "-f", "-"]);
        process::run_with_input(&mut command, yaml.as_bytes(), wait::SOON).ok();
    }

    /// The preset role `access`, with further lines (indented by four) under `deny`.
    #[track_caller]
    pub fn deny(&self, lines: &str) {
        self.apply(&access_role(lines));
    }

    /// The preset role `access`, with further lines (indented by four) under `allow` and `deny`.
    #[track_caller]
    pub fn permit(&self, allow: &str, deny: &str) {
        self.apply(&access_role_with(allow, deny));
    }

    /// Records on disk at this moment.
    pub fn audit(&self) -> Vec<Record> {
        audit_log::read(&self.audit_directory())
    }

    /// Waits until the audit has what `find` looks for. Panics with the whole log when it does not come.
    #[track_caller]
    pub fn audit_until<T>(&self, what: &str, find: impl Fn(&[Record]) -> Option<T>) -> T {
        let start = std::time::Instant::now();
        loop {
            let records = self.audit();
            if let Some(found) = find(&records) {
                return found;
            }
            if start.elapsed() > wait::SOON {
                let all: Vec<String> = records.iter().map(|r| r.0.to_string()).collect();
                panic!("no {what} in the audit:\n{}", all.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for a command of this name with its outcome that also satisfies `matches`.
    #[track_caller]
    pub fn command_record(&self, name: &str, matches: impl Fn(&audit_log::Command) -> bool) -> audit_log::Command {
        self.audit_until(name, |records| {
            let found = audit_log::commands(records).into_iter();
            found.filter(|c| c.name == name && c.success.is_some()).find(|c| matches(c))
        })
    }

    /// Waits for one record with this code that also satisfies `matches`.
    #[track_caller]
    pub fn record(&self, code: &str, matches: impl Fn(&Record) -> bool) -> Record {
        self.audit_until(code, |records| records.iter().find(|r| r.text("code") == code && matches(r)).cloned())
    }

    /// `audit verify` says that the chain is whole.
    #[track_caller]
    pub fn verify_audit(&self) {
        let said = self.cli(&["audit", "verify"]);
        assert!(said.code == 0 && said.stdout.contains("chain OK"), "{said:?}");
    }

    /// The numbers of `/metrics` whose line starts with `name` and contains every one of `labels`, added up.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (status, body) = self.http("/metrics");
        assert_eq!(status, 200, "{body}");
        body.lines()
            .filter(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
            .filter(|l| labels.iter().all(|label| l.contains(label)))
            .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// GET on the diagnostics listener: status and body.
    pub fn http(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.diagnostics_port)).expect("diagnostics listener");
        stream.set_read_timeout(Some(wait::SOON)).expect("timeout");
        let host = format!("127.0.0.1:{}", self.diagnostics_port);
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answer");
        let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status, body.to_owned())
    }

    /// Kills the process at once.
    pub fn kill_9(&mut self) {
        let mut child = self.child.take().expect("the gateway runs");
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    /// SIGTERM, and waits for the end. Gives the exit status.
    pub fn terminate(&mut self) -> i32 {
        process::signal(self.pid(), Signal::TERM);
        self.wait()
    }

    /// Waits for the end. Gives the exit status.
    pub fn wait(&mut self) -> i32 {
        let mut child = self.child.take().expect("the gateway runs");
        let status = wait::until("the gateway to end", Duration::from_secs(60), || child.try_wait().expect("wait"));
        status.code().unwrap_or(-1)
    }

    /// Starts again on the same data directory and ports.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "the gateway runs already");
        self.spawn();
    }

    /// Starts again as `ringgate server -c D/ringgate.yaml`.
    pub fn start_again_from_file(&mut self) {
        self.setup.from_file = true;
        self.start_again();
    }

    /// Starts again with the wall clock shifted.
    pub fn start_again_with_clock(&mut self, shift: &str) {
        self.setup.faketime = Some(shift.to_owned());
        self.start_again();
    }

    /// The chain is whole, no session was lost to a panic, and SIGTERM ends with status 0.
    #[track_caller]
    pub fn finish(mut self) {
        self.verify_audit();
        assert_eq!(self.metric("ringgate_worker_panics_total", &[]), 0.0, "{}", self.log());
        assert_eq!(self.terminate(), 0, "{}", self.log());
    }

    /// All files of the data directory.
    pub fn files(&self) -> Vec<PathBuf> {
        audit_log::files(&self.data())
    }

    /// Directory of the whole set-up: data directory, log, home of the user.
    pub fn base(&self) -> &Path {
        self.base.path()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("--- log of the gateway\n{}---", self.log());
        }
    }
}

/// The preset role `access` as a document, with `lines` (indented by four) under `deny`.
pub fn access_role(lines: &str) -> String {
    access_role_with("", lines)
}

/// The same with further lines under `allow` too.
pub fn access_role_with(allow: &str, deny: &str) -> String {
    let deny = if deny.is_empty() { "  deny: {}".to_owned() } else { format!("  deny:\n{deny}") };
    format!(
        "kind: role\nversion: v8\nmetadata:\n  name: access\nspec:\n  allow:\n    db_labels: {{'*': '*'}}\n    \
         db_users: ['{{{{internal.db_users}}}}']\n    db_names: ['{{{{internal.db_names}}}}']\n    \
         db_roles: ['{{{{internal.db_roles}}}}']\n{allow}{deny}\n"
    )
}
