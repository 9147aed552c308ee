//! A throw-away MariaDB, from the server binary of this machine in a temporary directory.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{db_config::DbConfig, places, process, process::Said, wait};

/// Name under which the tests register a MariaDB.
pub const SERVICE: &str = "shop";
/// Database of the tests.
pub const DATABASE: &str = "test";

const HOW_TO_GET_ONE: &str = "no MariaDB for the tests: apt-get install mariadb-server mariadb-client";

/// A running server; gone when dropped.
pub struct Mariadb {
    /// TCP port on loopback, without TLS.
    pub port: u16,
    directory: TempDir,
    child: Child,
}

impl Mariadb {
    /// Starts a server whose `root` needs no password, and waits until it answers.
    pub fn start() -> Mariadb {
        let directory = tempfile::Builder::new().prefix("ringgate-mariadb-").tempdir().expect("a temporary directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
        let data = format!("--datadir={}", directory.path().join("data").display());
        let mut install = Command::new("mariadb-install-db");
        install.args(["--no-defaults", &data, "--auth-root-authentication-method=normal", "--skip-test-db"]);
        // The server runs as whoever runs the tests.
        let user = format!("--user={}", process::run(Command::new("id").arg("-un")).ok());
        install.arg(&user);
        // Temporary tables of several servers in one folder have the same names.
        install.env("TMPDIR", directory.path());
        let said = process::run_with_input(&mut install, b"", Duration::from_secs(120));
        assert_eq!(said.code, 0, "{HOW_TO_GET_ONE}: {said:?}");
        let port = places::free_port();
        let log = fs::File::create(directory.path().join("log")).expect("log file");
        let child = Command::new("setpriv")
            .args(["--pdeathsig=KILL", "mariadbd", "--no-defaults", "--skip-name-resolve", &data, &user])
            .arg(format!("--socket={}", directory.path().join("socket").display()))
            .arg(format!("--pid-file={}", directory.path().join("pid").display()))
            .args([&format!("--port={port}"), "--bind-address=127.0.0.1", "--innodb-buffer-pool-size=16M"])
            .env("TMPDIR", directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log)
            .spawn()
            .expect(HOW_TO_GET_ONE);
        let server = Mariadb { port, directory, child };
        wait::until_true("MariaDB", Duration::from_secs(60), || server.try_say("SELECT 1").code == 0);
        server.say(&format!("CREATE DATABASE {DATABASE}"));
        server
    }

    fn try_say(&self, sql: &str) -> Said {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "-uroot", "-N", "-B", "-e", sql]);
        command.arg(format!("--socket={}", self.directory.path().join("socket").display()));
        process::run(&mut command)
    }

    /// Statements at the server itself, not through the gateway; rows without heads.
    #[track_caller]
    pub fn say(&self, sql: &str) -> String {
        self.try_say(sql).ok()
    }

    /// `mysql://root@HOST:PORT/test`.
    pub fn uri(&self) -> String {
        format!("mysql://root@127.0.0.1:{}/{DATABASE}", self.port)
    }

    /// The same with a user and a password.
    pub fn uri_with(&self, user: &str, password: &str) -> String {
        format!("mysql://{user}:{password}@127.0.0.1:{}/{DATABASE}", self.port)
    }

    /// Files of the server.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Mariadb {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl DbConfig {
    /// The `mariadb` client through the gateway: `sql` in batch mode, rows without heads.
    pub fn mariadb(&self, sql: &str) -> Said {
        self.mariadb_with(&[], sql)
    }

    /// The same with further arguments.
    pub fn mariadb_with(&self, arguments: &[&str], sql: &str) -> Said {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "--protocol=tcp", "-N", "-B", "--ssl-verify-server-cert"]);
        command.arg(format!("--host={}", self.host)).arg(format!("--port={}", self.port));
        command.arg(format!("--user={}", self.user)).arg(format!("--database={}", self.database));
        for (option, path) in [("ssl-ca", &self.ca), ("ssl-cert", &self.cert), ("ssl-key", &self.key)] {
            command.arg(format!("--{option}={}", path.display()));
        }
        command.args(arguments).args(["-e", sql]);
        process::run(&mut command)
    }
}
