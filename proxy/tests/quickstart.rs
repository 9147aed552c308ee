//! A quickstart and the commands that talk to it, as processes; the database behind it is never reached.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot start its processes has failed"
)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

const BINARY: &str = env!("CARGO_BIN_EXE_ringgate");
const URI: &str = "orders=postgres://app:hunter2@127.0.0.1:9/orders";

struct Gateway {
    process: Child,
    dir: PathBuf,
    ready: String,
}

impl Gateway {
    /// Starts one and waits for its line on stdout.
    fn start(dir: &Path, arguments: &[&str]) -> Gateway {
        let mut process = Command::new(BINARY)
            .args(["quickstart", "--listen", "postgres=127.0.0.1:0", "--listen", "redis=127.0.0.1:0"])
            .args(["--listen", "diag=127.0.0.1:0", "--data-dir"])
            .arg(dir)
            .args(arguments)
            .env_clear()
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut ready = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
        if ready.is_empty() {
            let mut said = String::new();
            process.stderr.as_mut().unwrap().read_to_string(&mut said).unwrap();
            panic!("it did not get ready: {said}");
        }
        Gateway { process, dir: dir.to_owned(), ready }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(BINARY);
        command.env_clear().arg("--home").arg(self.dir.join("home")).current_dir(&self.dir);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }

    /// Standard output of a command that must succeed.
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Asks it to stop; its exit code and what it said.
    fn stop(mut self) -> (Option<i32>, String) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = self.process.wait().unwrap();
        let mut said = String::new();
        self.process.stderr.as_mut().unwrap().read_to_string(&mut said).unwrap();
        (status.code(), said)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

#[test]
fn a_gateway_is_made_served_stopped_and_taken_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("gw");
    let gateway = Gateway::start(&dir, &["--db", URI]);
    assert_eq!(gateway.ready, "ready    4 listeners\n");
    let shown = json(&gateway.ok(&["db", "ls", "--format", "json"]));
    assert_eq!(shown[0]["name"], "orders");
    let pin = json(&gateway.ok(&["status", "--format", "json"]))["server"]["ca_pin"].clone();
    assert!(pin.as_str().is_some_and(|p| p.starts_with("sha256:")), "{pin}");

    let second = Command::new(BINARY).args(["quickstart", "--data-dir"]).arg(&dir).env_clear().output().unwrap();
    assert_eq!(second.status.code(), Some(78));
    assert!(second.stdout.is_empty());

    let (code, said) = gateway.stop();
    assert_eq!(code, Some(0));
    assert!(!said.contains("hunter2"), "{said}");
    assert!(said.contains("created  admin user \"admin\""), "{said}");

    let gateway = Gateway::start(&dir, &[]);
    let shown = json(&gateway.ok(&["db", "ls", "--format", "json"]));
    assert_eq!(shown.as_array().map(Vec::len), Some(1));
    assert_eq!(json(&gateway.ok(&["status", "--format", "json"]))["server"]["ca_pin"], pin);
    let (code, said) = gateway.stop();
    assert_eq!(code, Some(0));
    assert!(!said.contains("created"), "{said}");
}

#[test]
fn a_password_is_in_its_private_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("gw");
    let gateway = Gateway::start(&dir, &["--db", URI]);
    gateway.ok(&["db", "login", "orders", "-u", "app", "-n", "orders"]);
    let secret = dir.join("secrets/orders.password");
    assert_eq!(std::fs::read(&secret).unwrap(), b"hunter2");
    drop(gateway);
    let mut files = Vec::new();
    files_below(&dir, &mut files);
    assert!(files.len() > 8, "{files:?}");
    for path in files {
        let Ok(content) = std::fs::read(&path) else { continue };
        let holds = content.windows(7).any(|w| w == b"hunter2");
        assert_eq!(holds, path == secret, "{}", path.display());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        // The public key of the log is for everybody whom the folder lets in.
        assert!(mode & 0o077 == 0 || path.ends_with("checkpoint.pub"), "{}: {mode:o}", path.display());
    }
}

#[test]
fn credentials_are_written_described_and_removed_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(&folder.path().join("g w"), &["--db", URI, "--user", "alice"]);
    assert_eq!(gateway.run(&["db", "config", "orders"]).status.code(), Some(3));
    gateway.ok(&["db", "login", "orders", "--db-user", "app", "--db-name", "orders"]);

    let facts = json(&gateway.ok(&["db", "config", "orders", "--format", "json"]));
    for (field, value) in [("protocol", "postgres"), ("user", "app"), ("database", "orders"), ("host", "localhost")] {
        assert_eq!(facts[field], value);
    }
    assert!(facts["port"].as_u64().is_some_and(|port| port > 0));
    for field in ["ca", "cert", "key", "pk8"] {
        assert!(Path::new(facts[field].as_str().unwrap()).is_file(), "{field}");
    }
    assert!(facts["uri"].as_str().unwrap().starts_with("postgresql://app@localhost:"));
    for format in ["text", "cmd", "uri", "env", "yaml", "pgservice", "jdbc"] {
        assert!(gateway.ok(&["db", "config", "--format", format]).contains("orders"), "{format}");
    }
    assert!(gateway.ok(&["db", "env", "orders"]).contains("export PGSSLMODE=verify-full\n"));

    let keys = gateway.dir.join("home/keys/gw/alice");
    std::fs::write(keys.join("mine.txt"), "x").unwrap();
    gateway.ok(&["db", "logout"]);
    let left: Vec<_> = std::fs::read_dir(&keys).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["mine.txt"]);
    assert_eq!(gateway.run(&["db", "logout", "orders"]).status.code(), Some(5));
}

#[test]
fn connect_logs_in_runs_the_client_and_ends_as_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(&folder.path().join("gw"), &["--db", URI]);
    let bin = folder.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let connect = |client: &str| {
        gateway
            .command()
            .args(["db", "connect", "orders", "-u", "app", "-n", "orders", "--", "-c", client])
            .env("PATH", format!("{}:/bin:/usr/bin", bin.display()))
            .env("PGHOSTADDR", "192.0.2.1")
            .env("PGPASSWORD", "of another server")
            .output()
            .unwrap()
    };
    let psql = bin.join("psql");
    std::fs::write(
        &psql,
        "#!/bin/sh\necho \"$PGHOST $PGUSER $PGDATABASE $PGSSLMODE $PGHOSTADDR$PGPASSWORD$#\"\neval \"$2\"\n",
    )
    .unwrap();
    std::fs::set_permissions(&psql, std::fs::Permissions::from_mode(0o755)).unwrap();

    let output = connect("exit 7");
    assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "localhost app orders verify-full 2\n");
    assert_eq!(connect("exit 0").status.code(), Some(0));
    use std::os::unix::process::ExitStatusExt as _;
    assert_eq!(connect("kill -9 $$").status.signal(), Some(9));

    let output = gateway.command().args(["db", "connect", "orders"]).env("PATH", "/nowhere").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("psql is not on this machine") && said.contains("postgresql-client"), "{said}");
}

#[test]
fn a_redis_is_registered_beside_a_postgres_and_described_in_the_forms_of_its_clients() {
    let folder = tempfile::tempdir().unwrap();
    let cache = "cache=redis://:hunter3@127.0.0.1:9/";
    let arguments = ["--db", URI, "--db", cache];
    let gateway = Gateway::start(&folder.path().join("gw"), &arguments);
    let rows = json(&gateway.ok(&["db", "ls", "--format", "json"]));
    assert_eq!(rows[0]["name"], "cache");
    assert_eq!((&rows[0]["protocol"], &rows[1]["protocol"]), (&"redis".into(), &"postgres".into()));
    assert_eq!(std::fs::read(gateway.dir.join("secrets/cache.password")).unwrap(), b"hunter3");

    gateway.ok(&["db", "login", "cache"]);
    let facts = json(&gateway.ok(&["db", "config", "cache", "--format", "json"]));
    for (field, value) in [("protocol", "redis"), ("user", "default"), ("database", "0"), ("host", "localhost")] {
        assert_eq!(facts[field], value);
    }
    assert!(facts["uri"].as_str().unwrap().starts_with("rediss://localhost:"), "{facts}");
    for format in ["text", "cmd", "uri", "env", "yaml"] {
        let shown = gateway.ok(&["db", "config", "cache", "--format", format]);
        assert!(shown.contains("cache.crt") && !shown.contains("hunter3"), "{format}");
    }
    assert_eq!(gateway.run(&["db", "config", "cache", "--format", "jdbc"]).status.code(), Some(2));
    assert!(gateway.ok(&["db", "env", "cache"]).contains("export REDIS_URL="));
    gateway.ok(&["db", "login", "cache", "-u", "alice", "-n", "3"]);
    assert!(gateway.ok(&["db", "config", "cache", "--format", "cmd"]).ends_with(" -n 3\n"));

    let output = gateway.command().args(["db", "connect", "cache"]).env("PATH", "/nowhere").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("redis-cli is not on this machine") && said.contains("redis-tools"), "{said}");

    let prefix = folder.path().join("server");
    let sign = ["ca", "sign", "--format=redis", "--host", "h", "--out", prefix.to_str().unwrap(), "--ttl", "2190h"];
    let output = gateway.run(&sign);
    let (lines, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    for line in ["tls-port 6379", "port 0", "tls-auth-clients yes", "tls-protocols \"TLSv1.2 TLSv1.3\""] {
        assert!(lines.lines().any(|l| l == line), "{line}: {lines}");
    }
    for suffix in ["key", "crt", "cas"] {
        let file = prefix.with_extension(suffix);
        assert!(file.is_file() && lines.contains(file.to_str().unwrap()), "{suffix}");
    }
    assert!(said.contains("renew    before 20"), "{said}");
}

#[test]
fn resources_round_trip_and_refusals_have_their_codes() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(&folder.path().join("gw"), &["--db", URI]);
    let role = "kind: role\nversion: v8\nmetadata: { name: dev }\nspec: { allow: { db_users: [app] } }\n";
    let file = folder.path().join("role.yaml");
    std::fs::write(&file, role).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(gateway.ok(&["create", file]), "created  role \"dev\" (revision 4)\n");
    assert_eq!(gateway.run(&["create", file]).status.code(), Some(6));
    std::fs::write(file, gateway.ok(&["get", "role/dev", "--format", "yaml"])).unwrap();
    assert!(gateway.ok(&["create", "-f", file]).starts_with("unchanged"));
    std::fs::write(file, role.replace("db_users", "db_usrs")).unwrap();
    let output = gateway.run(&["create", "-f", file]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean `db_users`?"));
    assert_eq!(json(&gateway.ok(&["get", "roles", "--format", "json"])).as_array().map(Vec::len), Some(4));
    gateway.ok(&["rm", "role/dev"]);
    assert_eq!(gateway.run(&["rm", "role/dev"]).status.code(), Some(5));
    assert_eq!(gateway.run(&["get", "role/dev"]).status.code(), Some(5));
    assert_eq!(gateway.run(&["db", "login", "nothing", "-u", "a", "-n", "b"]).status.code(), Some(5));

    let prefix = folder.path().join("server");
    let sign = ["ca", "sign", "--host", "db.example.com", "--out", prefix.to_str().unwrap(), "--ttl", "24h"];
    assert!(gateway.ok(&sign).contains("ssl_cert_file"));
    assert_eq!(gateway.run(&sign).status.code(), Some(6));
    assert!(gateway.ok(&["audit", "search", "--event", "role.*", "--format", "json"]).contains("dev"));
    assert!(gateway.ok(&["audit", "verify"]).starts_with("verified  "));
    assert_eq!(gateway.ok(&["audit", "tail", "--no-follow", "--lines", "1"]).lines().count(), 1);

    let (home, dir) = (gateway.dir.join("home"), gateway.dir.clone());
    gateway.stop();
    let output = Command::new(BINARY).env_clear().arg("--home").arg(&home).args(["db", "ls"]).output().unwrap();
    assert_eq!(output.status.code(), Some(8));

    let segment = dir.join("audit/00000001.jsonl");
    std::fs::set_permissions(&segment, std::fs::Permissions::from_mode(0o600)).unwrap();
    let log = std::fs::read_to_string(&segment).unwrap();
    std::fs::write(&segment, log.replacen("editor", "reader", 1)).unwrap();
    let output = Command::new(BINARY).env_clear().arg("--home").arg(&home).args(["audit", "verify"]).output().unwrap();
    assert_eq!(output.status.code(), Some(10), "{}", String::from_utf8_lossy(&output.stdout));
}
