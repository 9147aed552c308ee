//! A server as a process of its own: signals, readiness, and who may speak to its socket.
//!
//! This program is also the child: `process serve DIR` serves, `process call SOCKET` is a client. The parent steers
//! the child's data plane by files in DIR.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // A test program.

mod api;
#[path = "../cluster/mod.rs"]
mod cluster;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringgate_control::client::AdminClient;
use ringgate_control::serve::{self, Plane, ServeOptions};
use ringgate_control::{AuditSink, Authority};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("serve") => serve_child(Path::new(&arguments[2])),
        Some("call") => call_child(Path::new(&arguments[2])),
        _ => run_cases(arguments.get(1).filter(|a| !a.starts_with('-'))),
    }
}

fn run_cases(filter: Option<&String>) {
    let signals: [(&str, fn()); 7] = [
        ("sigterm_drains_and_exits_when_no_session_is_left", sigterm_drains_and_exits_when_no_session_is_left),
        ("sigint_does_the_same", sigint_does_the_same),
        ("the_grace_ends_the_wait", the_grace_ends_the_wait),
        ("a_second_signal_ends_the_wait_at_once", a_second_signal_ends_the_wait_at_once),
        ("sighup_reloads_and_is_audited", sighup_reloads_and_is_audited),
        ("a_killed_servers_socket_is_taken_over_and_a_live_ones_is_not", takes_over_a_dead_socket),
        ("another_uid_is_refused_and_its_own_is_served", another_uid_is_refused_and_its_own_is_served),
    ];
    let cases = signals.iter().chain(&api::CASES);
    for (name, case) in cases.filter(|(name, _)| filter.is_none_or(|f| name.contains(f.as_str()))) {
        case();
        println!("test {name} ... ok");
    }
}

/// A data plane steered by files: `drain`, `abort` and `reload` are written by it, `idle` is made by the parent.
struct FilePlane(PathBuf);

impl FilePlane {
    fn note(&self, what: &str) {
        std::fs::write(self.0.join(what), "").unwrap();
    }
}

impl Plane for FilePlane {
    fn healthy(&self) -> Result<(), String> {
        Ok(())
    }
    fn ready(&self) -> Vec<(&'static str, Result<(), String>)> {
        vec![("listeners", Ok(()))]
    }
    fn metrics(&self) -> String {
        "ringgate_ready 1\n".into()
    }
    fn version(&self) -> Value {
        json!({"version": "0"})
    }
    fn drain(&self) {
        self.note("drain");
    }
    fn drained(&self) -> bool {
        self.0.join("idle").exists()
    }
    fn abort(&self) {
        self.note("abort");
    }
    fn reload(&self) -> Result<Value, String> {
        self.note("reload");
        Ok(json!({"changed": []}))
    }
    fn sessions(&self) -> Value {
        json!([])
    }
}

/// Appends every event to a file.
struct FileSink(PathBuf);

impl AuditSink for FileSink {
    fn record(&self, event: &str, code: &str, members: &str) {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&self.0).unwrap();
        writeln!(file, "{event} {code} {members}").unwrap();
    }
}

fn serve_child(dir: &Path) {
    let grace = std::env::var("GRACE_MS").unwrap().parse().unwrap();
    let authority = Authority::open(cluster::options(dir, Arc::new(FileSink(dir.join("audit"))))).unwrap();
    let options = ServeOptions {
        admin_socket: dir.join("admin.sock"),
        admin_mode: 0o666,
        diag_addr: Some("127.0.0.1:0".parse().unwrap()),
        plane: Arc::new(FilePlane(dir.to_owned())),
        shutdown_grace: Duration::from_millis(grace),
    };
    let exit = serve::run(authority, options, |bound| println!("{}", bound.diag_addr.unwrap())).unwrap();
    println!("{exit:?}");
}

fn call_child(socket: &Path) {
    match AdminClient::new(socket).get("role", None) {
        Ok(roles) => println!("{}", roles.len()),
        Err(e) => {
            println!("{e}: {}", e.why.clone().unwrap_or_default());
            std::process::exit(e.code.into());
        }
    }
}

struct Server {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    diag: SocketAddr,
    dir: tempfile::TempDir,
}

impl Server {
    fn start(grace_ms: u32) -> Server {
        Self::start_in(tempfile::tempdir().unwrap(), grace_ms)
    }

    fn start_in(dir: tempfile::TempDir, grace_ms: u32) -> Server {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["serve".as_ref(), dir.path().as_os_str()])
            .env("GRACE_MS", grace_ms.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let diag = line.trim().parse().unwrap_or_else(|e| panic!("{line:?}: {e}"));
        Server { child, output, diag, dir }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Waits for the end; what the server said of it.
    fn end(mut self) -> (ExitStatus, String, tempfile::TempDir) {
        let mut said = String::new();
        self.output.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap(), said.trim().to_owned(), self.dir)
    }

    /// Status code and body of a diagnostic page.
    fn page(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.diag).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.diag).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }
}

/// Asks until the answer is yes.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::yield_now();
    }
}

fn drains_on(signal: rustix::process::Signal) {
    let server = Server::start(60_000);
    assert_eq!(server.page("/readyz").0, 200);
    server.signal(signal);
    until("readyz turning 503", || server.page("/readyz").0 == 503);
    let (_, body) = server.page("/readyz");
    assert!(body.contains("draining"), "{body}");
    assert_eq!(server.page("/livez").0, 200, "probes are answered during the drain");
    assert!(server.path("drain").exists());
    assert!(AdminClient::new(&server.path("admin.sock")).status().unwrap()["draining"].as_bool().unwrap());
    std::fs::write(server.path("idle"), "").unwrap();
    let (status, said, dir) = server.end();
    assert!(status.success());
    assert_eq!(said, "Drained");
    assert!(!dir.path().join("admin.sock").exists() && !dir.path().join("abort").exists());
}

fn sigterm_drains_and_exits_when_no_session_is_left() {
    drains_on(rustix::process::Signal::TERM);
}

fn sigint_does_the_same() {
    drains_on(rustix::process::Signal::INT);
}

fn the_grace_ends_the_wait() {
    let server = Server::start(50);
    server.signal(rustix::process::Signal::TERM);
    let (status, said, dir) = server.end();
    assert!(status.success() && dir.path().join("abort").exists());
    assert_eq!(said, "GraceElapsed");
}

fn a_second_signal_ends_the_wait_at_once() {
    let server = Server::start(3_600_000);
    server.signal(rustix::process::Signal::TERM);
    until("the drain", || server.path("drain").exists());
    server.signal(rustix::process::Signal::TERM);
    let (status, said, dir) = server.end();
    assert!(status.success() && dir.path().join("abort").exists());
    assert_eq!(said, "Interrupted");
}

fn sighup_reloads_and_is_audited() {
    let server = Server::start(0);
    server.signal(rustix::process::Signal::HUP);
    let audited = || std::fs::read_to_string(server.path("audit")).unwrap_or_default();
    until("the reload", || audited().contains("config.reload TSV00I"));
    assert!(server.path("reload").exists());
    assert_eq!(server.page("/readyz").0, 200);
    AdminClient::new(&server.path("admin.sock")).reload().unwrap();
    assert_eq!(audited().matches("config.reload").count(), 2);
    server.signal(rustix::process::Signal::TERM);
    assert!(server.end().0.success());
}

fn takes_over_a_dead_socket() {
    let server = Server::start(0);
    let socket = server.path("admin.sock");
    let second = Command::new(std::env::current_exe().unwrap())
        .args(["serve".as_ref(), server.dir.path().as_os_str()])
        .env("GRACE_MS", "0")
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(!second.status.success(), "a second server on the same directory must not start");
    assert!(AdminClient::new(&socket).status().is_ok(), "the first goes on");
    server.signal(rustix::process::Signal::KILL);
    let (status, _, dir) = server.end();
    assert!(!status.success() && socket.exists());
    let unreachable = AdminClient::new(&socket).status().unwrap_err();
    assert_eq!(unreachable.code, 8, "{unreachable:?}");
    let again = Server::start_in(dir, 0);
    assert!(AdminClient::new(&socket).status().is_ok());
    again.signal(rustix::process::Signal::TERM);
    assert!(again.end().0.success());
}

/// The kernel names the peer, so the peer has to be real: a client under another uid, which takes root to start.
fn another_uid_is_refused_and_its_own_is_served() {
    let server = Server::start(0);
    let open = |mode| std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(server.dir.path(), open(0o755)).unwrap();
    let socket = server.path("admin.sock");
    // The build directory may be closed to others.
    let program = server.path("client");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::set_permissions(&program, open(0o755)).unwrap();
    let call = |uid: u32| {
        let output = Command::new(&program).args(["call".as_ref(), socket.as_os_str()]).uid(uid).output();
        let output = output.expect("this test starts clients under other uids: run it as root");
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(call(0), (Some(0), "3\n".into()));
    let (code, said) = call(65_534);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("uid 65534"), "{said}");
    assert!(std::fs::read_to_string(server.path("audit")).unwrap().contains("\"uid\":65534"));
    server.signal(rustix::process::Signal::TERM);
    assert!(server.end().0.success());
}
