//! A throw-away PostgreSQL.
//!
//! Order: `RINGGATE_TEST_POSTGRES_URL` (for tests that do not set the server up themselves), a server binary of this
//! machine in a temporary directory, a container where an engine answers. None of them: panic that says how to get one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;
use testcontainers::{
    ContainerAsync, CopyTargetOptions, GenericImage, ImageExt,
    core::{IntoContainerPort, WaitFor},
    runners::AsyncRunner,
};

use crate::{places, process, wait};

/// The database user that every test server has, owner of [`DATABASE`].
pub const USER: &str = "app";
/// The database that every test server has.
pub const DATABASE: &str = "orders";

/// How a test server is to be.
#[derive(Clone, Debug, Default)]
pub struct Options {
    port: Option<u16>,
    hba: Vec<String>,
    settings: Vec<String>,
    certificates: Option<PathBuf>,
    password: Option<String>,
    password_encryption: Option<&'static str>,
    own: bool,
}

impl Options {
    /// A server that trusts every TCP client of loopback.
    pub fn trust() -> Options {
        Options { hba: vec!["host all all all trust".into()], ..Options::default() }
    }

    /// A server whose `pg_hba.conf` has exactly these lines, after one that lets the tests in by Unix socket.
    pub fn hba(lines: &[&str]) -> Options {
        Options { hba: lines.iter().map(|l| (*l).to_owned()).collect(), own: true, ..Options::default() }
    }

    /// Listens on this port.
    pub fn port(self, port: u16) -> Options {
        Options { port: Some(port), own: true, ..self }
    }

    /// A setting for the command line, `name=value`.
    pub fn setting(mut self, setting: &str) -> Options {
        self.settings.push(setting.to_owned());
        Options { own: true, ..self }
    }

    /// TLS on, with the files `PREFIX.crt`, `PREFIX.key` and `PREFIX.cas` (`ringgate ca sign --format=db --out PREFIX`).
    pub fn certificates(self, prefix: &Path) -> Options {
        Options { certificates: Some(prefix.to_owned()), own: true, ..self }
    }

    /// Password of [`USER`], stored as `scram-sha-256` or `md5`.
    pub fn password(self, password: &str, encryption: &'static str) -> Options {
        Options { password: Some(password.to_owned()), password_encryption: Some(encryption), own: true, ..self }
    }

    /// The test stops, kills or restarts the server, or reads its files: never one from the environment.
    pub fn own(self) -> Options {
        Options { own: true, ..self }
    }
}

enum Source {
    External,
    Local { directory: TempDir, child: Child },
    Container { runtime: tokio::runtime::Runtime, container: Option<Box<ContainerAsync<GenericImage>>> },
}

/// A running server; gone when dropped.
pub struct Postgres {
    /// Host to dial over TCP.
    pub host: String,
    /// TCP port.
    pub port: u16,
    superuser: Vec<(&'static str, String)>,
    options: Options,
    source: Source,
}

impl Postgres {
    /// Starts a server and waits until it answers. Panics with the server's log when it does not.
    pub fn start(options: Options) -> Postgres {
        if !options.own
            && let Ok(url) = std::env::var("RINGGATE_TEST_POSTGRES_URL")
        {
            return Postgres::external(&url, options);
        }
        if let Some(binaries) = places::postgres_binaries() {
            return Postgres::local(&binaries, options);
        }
        Postgres::container(options)
    }

    fn external(url: &str, options: Options) -> Postgres {
        let config: tokio_postgres::Config = url.parse().expect("RINGGATE_TEST_POSTGRES_URL");
        let host = match config.get_hosts().first() {
            Some(tokio_postgres::config::Host::Tcp(host)) => host.clone(),
            _ => panic!("RINGGATE_TEST_POSTGRES_URL names no TCP host"),
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let password = config.get_password().map(|p| String::from_utf8_lossy(p).into_owned());
        let superuser = vec![
            ("PGHOST", host.clone()),
            ("PGPORT", port.to_string()),
            ("PGUSER", config.get_user().unwrap_or("postgres").to_owned()),
            ("PGPASSWORD", password.unwrap_or_default()),
        ];
        let server = Postgres { host, port, superuser, options, source: Source::External };
        server.create_objects();
        server
    }

    fn local(binaries: &Path, options: Options) -> Postgres {
        let directory = tempfile::Builder::new().prefix("ringgate-pg-").tempdir().expect("a temporary directory");
        let data = directory.path().join("data");
        fs::create_dir(&data).expect("data directory");
        own_by_server(directory.path());
        let made = process::run(
            as_server(&binaries.join("initdb"))
                .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "-D"])
                .arg(&data),
        );
        made.ok();
        let mut hba = "local all postgres trust\n".to_owned();
        for line in &options.hba {
            hba.push_str(line);
            hba.push('\n');
        }
        fs::write(data.join("pg_hba.conf"), hba).expect("pg_hba.conf");
        if let Some(prefix) = &options.certificates {
            install_certificates(prefix, directory.path());
        }
        let port = options.port.unwrap_or_else(places::free_port);
        let child = spawn(binaries, directory.path(), port, &options);
        let superuser = vec![
            ("PGHOST", directory.path().display().to_string()),
            ("PGPORT", port.to_string()),
            ("PGUSER", "postgres".to_owned()),
        ];
        let mut server =
            Postgres { host: "127.0.0.1".into(), port, superuser, options, source: Source::Local { directory, child } };
        server.wait_until_it_answers();
        server.create_objects();
        server
    }

    fn container(options: Options) -> Postgres {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let port = options.port.unwrap_or_else(places::free_port);
        let mut hba = "local all postgres trust\n".to_owned();
        options.hba.iter().for_each(|line| hba.extend([line, "\n"]));
        let mut image = GenericImage::new("postgres", "17")
            .with_exposed_port(5432.tcp())
            .with_wait_for(WaitFor::message_on_stderr("database system is ready to accept connections"))
            .with_env_var("POSTGRES_HOST_AUTH_METHOD", "trust")
            .with_mapped_port(port, 5432.tcp())
            .with_copy_to("/etc/ringgate-hba.conf", hba.into_bytes());
        let mut arguments = vec!["postgres".to_owned(), "-c".into(), "fsync=off".into()];
        let mut settings = options.settings.clone();
        settings.push("hba_file=/etc/ringgate-hba.conf".into());
        if let Some(prefix) = &options.certificates {
            for (suffix, setting) in [("crt", "ssl_cert_file"), ("key", "ssl_key_file"), ("cas", "ssl_ca_file")] {
                let bytes = fs::read(prefix.with_extension(suffix)).expect("certificate files");
                let inside = format!("/etc/ringgate-server.{suffix}");
                settings.push(format!("{setting}={inside}"));
                image = image.with_copy_to(CopyTargetOptions::new(inside).with_mode(0o640), bytes);
            }
            settings.push("ssl=on".into());
        }
        settings.into_iter().for_each(|s| arguments.extend(["-c".into(), s]));
        let container = runtime.block_on(image.with_cmd(arguments).start()).unwrap_or_else(|e| {
            panic!(
                "no PostgreSQL for the tests ({e}): apt-get install postgresql postgresql-contrib, or start a \
                 container engine, or set RINGGATE_TEST_POSTGRES_URL"
            )
        });
        let superuser =
            vec![("PGHOST", "127.0.0.1".to_owned()), ("PGPORT", port.to_string()), ("PGUSER", "postgres".to_owned())];
        let source = Source::Container { runtime, container: Some(Box::new(container)) };
        let mut server = Postgres { host: "127.0.0.1".into(), port, superuser, options, source };
        server.wait_until_it_answers();
        server.create_objects();
        server
    }

    fn wait_until_it_answers(&mut self) {
        let psql = self.psql(&["-XAtqc", "select 1"]);
        let Source::Local { directory, child } = &mut self.source else {
            let mut psql = psql;
            wait::until_true("PostgreSQL", wait::SOON, || process::run(&mut psql).code == 0);
            return;
        };
        let log = directory.path().join("log");
        let mut psql = psql;
        wait::until_true("PostgreSQL", wait::SOON, || {
            if let Some(status) = child.try_wait().expect("wait for postgres") {
                panic!("postgres ended with {status}: {}", fs::read_to_string(&log).unwrap_or_default());
            }
            process::run(&mut psql).code == 0
        });
    }

    fn create_objects(&self) {
        if self.sql_as_superuser("postgres", &format!("select count(*) from pg_roles where rolname = '{USER}'")) == "0"
        {
            self.sql_as_superuser("postgres", &format!("create role {USER} login"));
            self.sql_as_superuser("postgres", &format!("create database {DATABASE} owner {USER}"));
        }
        if let (Some(password), Some(encryption)) = (&self.options.password, self.options.password_encryption) {
            self.sql_as_superuser(
                "postgres",
                &format!("set password_encryption = '{encryption}'; alter role {USER} password '{password}'"),
            );
        }
    }

    fn psql(&self, arguments: &[&str]) -> Command {
        let mut psql = Command::new(places::postgres_client("psql"));
        psql.envs(self.superuser.iter().map(|(k, v)| (*k, v.as_str()))).env("PGDATABASE", "postgres").args(arguments);
        psql
    }

    /// Runs SQL at the server itself, as its superuser, not through Ringgate; gives unaligned rows.
    #[track_caller]
    pub fn sql_as_superuser(&self, database: &str, sql: &str) -> String {
        process::run(&mut self.psql(&["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql])).ok()
    }

    /// Runs SQL in [`DATABASE`] as the superuser.
    #[track_caller]
    pub fn sql(&self, sql: &str) -> String {
        self.sql_as_superuser(DATABASE, sql)
    }

    /// URI of [`DATABASE`] for [`USER`], without a password and without TLS.
    pub fn uri(&self) -> String {
        format!("postgres://{USER}@{}:{}/{DATABASE}", self.host, self.port)
    }

    /// URI of [`DATABASE`] for [`USER`] with a password and query parameters (empty, or starting with `?`).
    pub fn uri_with(&self, password: &str, query: &str) -> String {
        format!("postgres://{USER}:{password}@{}:{}/{DATABASE}{query}", self.host, self.port)
    }

    /// The server's log so far. Local servers only.
    pub fn log(&self) -> String {
        match &self.source {
            Source::Local { directory, .. } => fs::read_to_string(directory.path().join("log")).expect("server log"),
            _ => panic!("the log of a server from elsewhere cannot be read: install postgresql"),
        }
    }

    /// Kills the whole server at once and waits until it is gone. Local servers only.
    pub fn kill_9(&mut self) {
        let Source::Local { child, .. } = &mut self.source else {
            panic!("a server from elsewhere cannot be killed: install postgresql");
        };
        let postmaster = child.id();
        for pid in children_of(postmaster) {
            process::signal(pid, Signal::KILL);
        }
        process::signal(postmaster, Signal::KILL);
        child.wait().expect("wait for postgres");
    }

    /// Starts the same server again after [`Postgres::kill_9`], on the same port.
    pub fn start_again(&mut self) {
        let binaries = places::postgres_binaries().expect("it was started from them");
        let (port, options) = (self.port, self.options.clone());
        if let Source::Local { directory, child } = &mut self.source {
            // What a killed postmaster leaves; its workers are gone too.
            fs::remove_file(directory.path().join("data/postmaster.pid")).ok();
            *child = spawn(&binaries, directory.path(), port, &options);
        }
        self.wait_until_it_answers();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        match &mut self.source {
            Source::External => {}
            Source::Local { child, .. } => {
                if matches!(child.try_wait(), Ok(None)) {
                    // Immediate shutdown: the directory is thrown away anyway.
                    process::signal(child.id(), Signal::QUIT);
                    child.wait().ok();
                }
            }
            Source::Container { runtime, container } => {
                if let Some(container) = container.take() {
                    runtime.block_on(container.rm()).ok();
                }
            }
        }
    }
}

fn spawn(binaries: &Path, directory: &Path, port: u16, options: &Options) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(directory.join("log")).expect("log file");
    let mut command = as_server(&binaries.join("postgres"));
    command.arg("-D").arg(directory.join("data")).args(["-p", &port.to_string()]);
    command.args(["-c", "listen_addresses=localhost", "-c"]);
    command.arg(format!("unix_socket_directories={}", directory.display()));
    for setting in ["fsync=off", "max_connections=300", "shared_buffers=64MB", "max_wal_size=4GB"] {
        command.args(["-c", setting]);
    }
    if options.certificates.is_some() {
        command.args(["-c", "ssl=on"]);
        for (setting, suffix) in [("ssl_cert_file", "crt"), ("ssl_key_file", "key"), ("ssl_ca_file", "cas")] {
            command.args(["-c", &format!("{setting}={}/server.{suffix}", directory.display())]);
        }
    }
    options.settings.iter().for_each(|s| {
        command.args(["-c", s]);
    });
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("log file"))
        .stderr(log)
        .spawn()
        .expect("postgres starts")
}

fn install_certificates(prefix: &Path, directory: &Path) {
    for suffix in ["crt", "key", "cas"] {
        let from = prefix.with_extension(suffix);
        let to = directory.join("server").with_extension(suffix);
        fs::copy(&from, &to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
        fs::set_permissions(&to, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("permissions");
    }
    own_by_server(directory);
}

/// PostgreSQL refuses to run as root: then it runs as the user of its package. Ends with the thread that started it.
fn as_server(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        let user = server_user();
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--init-groups"]);
    }
    command.arg("--pdeathsig=QUIT").arg(program).current_dir("/").env("LC_ALL", "C");
    command
}

fn own_by_server(path: &Path) {
    if rustix::process::geteuid().is_root() {
        let user = server_user();
        process::run(Command::new("chown").args(["-R", &format!("{user}:{user}")]).arg(path)).ok();
    }
}

fn server_user() -> &'static str {
    let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    if users.lines().any(|l| l.starts_with("postgres:")) { "postgres" } else { "nobody" }
}

fn children_of(parent: u32) -> Vec<u32> {
    let listed = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Kills one server process, as `select pg_backend_pid()` names it.
pub fn kill_backend(pid: u32) {
    process::signal(pid, Signal::KILL);
    wait::until_true("the killed backend to be gone", Duration::from_secs(10), || {
        !Path::new(&format!("/proc/{pid}")).exists()
    });
}
