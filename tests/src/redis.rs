//! A throw-away Redis.
//!
//! Order: `RINGGATE_TEST_REDIS_URL` (for tests that do not set the server up themselves), a server binary of this
//! machine in a temporary directory, a container where an engine answers. None of them: panic that says how to get one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::Signal;
use tempfile::TempDir;
use testcontainers::{
    ContainerAsync, CopyTargetOptions, GenericImage, ImageExt, core::IntoContainerPort, runners::AsyncRunner,
};

use crate::{
    places, process,
    resp::{Session, Value},
    wait,
};

/// Name under which the tests register a Redis.
pub const SERVICE: &str = "cache";

/// The ACL user by which the tests look at a server beside the gateway.
const WATCHER: &str = "ringgate-tests-watcher";

/// How a test server is to be.
#[derive(Clone, Debug, Default)]
pub struct Options {
    port: Option<u16>,
    settings: Vec<Vec<String>>,
    certificates: Option<PathBuf>,
    own: bool,
}

impl Options {
    /// A server that lets everybody in who reaches it on loopback, without TLS.
    pub fn open() -> Options {
        Options::default()
    }

    /// Listens on this port.
    pub fn port(self, port: u16) -> Options {
        Options { port: Some(port), own: true, ..self }
    }

    /// A setting: its name and its words, `["maxclients", "10"]`.
    pub fn setting(mut self, words: &[&str]) -> Options {
        self.settings.push(words.iter().map(|w| (*w).to_owned()).collect());
        Options { own: true, ..self }
    }

    /// Password of the user `default`.
    pub fn password(self, password: &str) -> Options {
        self.setting(&["requirepass", password])
    }

    /// An ACL user, in the words of `ACL SETUSER`.
    pub fn user(self, name: &str, rules: &str) -> Options {
        let words: Vec<&str> = ["user", name].into_iter().chain(rules.split(' ')).collect();
        self.setting(&words)
    }

    /// TLS alone, client certificates demanded, with the files `PREFIX.crt`, `PREFIX.key` and `PREFIX.cas`
    /// (`ringgate ca sign --format=redis --out PREFIX`).
    pub fn certificates(self, prefix: &Path) -> Options {
        Options { certificates: Some(prefix.to_owned()), own: true, ..self }
    }

    /// The test stops, kills or configures the server: never one from the environment.
    pub fn own(self) -> Options {
        Options { own: true, ..self }
    }

    /// The text of its `redis.conf`. In a file, because what is on a command line everybody can read.
    fn configuration(&self, port: u16, directory: &str, address: &str) -> String {
        let mut text = String::new();
        let mut line = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|w| format!("\"{}\"", w.replace('"', "\\\""))).collect();
            text.extend([&words.join(" "), "\n"]);
        };
        line(&["save", ""]);
        line(&["protected-mode", "no"]);
        line(&["dir", directory]);
        line(&["bind", address]);
        let port = port.to_string();
        if self.certificates.is_some() {
            line(&["port", "0"]);
            line(&["tls-port", &port]);
            line(&["tls-auth-clients", "yes"]);
            for (name, suffix) in [("tls-cert-file", "crt"), ("tls-key-file", "key"), ("tls-ca-cert-file", "cas")] {
                line(&[name, &format!("{directory}/server.{suffix}")]);
            }
        } else {
            line(&["port", &port]);
        }
        line(&["user", WATCHER, "on", "nopass", "~*", "&*", "+@all"]);
        for setting in &self.settings {
            line(&setting.iter().map(String::as_str).collect::<Vec<_>>());
        }
        text
    }
}

enum Source {
    External { url: String },
    Local { directory: TempDir, child: Child },
    Container { runtime: tokio::runtime::Runtime, container: Option<Box<ContainerAsync<GenericImage>>> },
}

/// A running server; gone when dropped.
pub struct Redis {
    /// Host to dial over TCP.
    pub host: String,
    /// TCP port: of TLS for a server with certificates, else plain.
    pub port: u16,
    options: Options,
    source: Source,
}

impl Redis {
    /// Starts a server and waits until it answers. Panics with the server's log when it does not.
    pub fn start(options: Options) -> Redis {
        if !options.own
            && let Ok(url) = std::env::var("RINGGATE_TEST_REDIS_URL")
        {
            return Redis::external(url, options);
        }
        if let Some(binary) = places::redis_server() {
            return Redis::local(&binary, options);
        }
        Redis::container(options)
    }

    fn external(url: String, options: Options) -> Redis {
        let address = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        let address = address.rsplit_once('@').map_or(address, |(_, rest)| rest);
        let address = address.split('/').next().unwrap_or(address);
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "6379"));
        let port = port.parse().expect("the port of RINGGATE_TEST_REDIS_URL");
        let server = Redis { host: host.to_owned(), port, options, source: Source::External { url } };
        assert_eq!(server.session().say("FLUSHDB"), Value::ok());
        server
    }

    fn local(binary: &Path, options: Options) -> Redis {
        let directory = tempfile::Builder::new().prefix("ringgate-redis-").tempdir().expect("a temporary directory");
        if let Some(prefix) = &options.certificates {
            for suffix in ["crt", "key", "cas"] {
                let from = prefix.with_extension(suffix);
                let to = directory.path().join("server").with_extension(suffix);
                fs::copy(&from, &to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
            }
        }
        let port = options.port.unwrap_or_else(places::free_port);
        let child = spawn(binary, directory.path(), port, &options);
        let source = Source::Local { directory, child };
        let mut server = Redis { host: "127.0.0.1".into(), port, options, source };
        server.wait_until_it_answers();
        server
    }

    fn container(options: Options) -> Redis {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let port = options.port.unwrap_or_else(places::free_port);
        let mut image =
            GenericImage::new("redis", "7").with_exposed_port(port.tcp()).with_mapped_port(port, port.tcp());
        if let Some(prefix) = &options.certificates {
            for suffix in ["crt", "key", "cas"] {
                let bytes = fs::read(prefix.with_extension(suffix)).expect("certificate files");
                let inside = CopyTargetOptions::new(format!("/data/server.{suffix}")).with_mode(0o644);
                image = image.with_copy_to(inside, bytes);
            }
        }
        let inside = CopyTargetOptions::new("/data/redis.conf").with_mode(0o644);
        image = image.with_copy_to(inside, options.configuration(port, "/data", "0.0.0.0").into_bytes());
        let container = runtime.block_on(image.with_cmd(["redis-server", "/data/redis.conf"]).start()).unwrap_or_else(|e| {
            panic!(
                "no Redis for the tests ({e}): apt-get install redis-server redis-tools, or start a container engine, \
                 or set RINGGATE_TEST_REDIS_URL"
            )
        });
        let source = Source::Container { runtime, container: Some(Box::new(container)) };
        let mut server = Redis { host: "127.0.0.1".into(), port, options, source };
        server.wait_until_it_answers();
        server
    }

    fn wait_until_it_answers(&mut self) {
        wait::until_true("Redis", wait::SOON, || {
            if let Source::Local { directory, child } = &mut self.source
                && let Some(status) = child.try_wait().expect("wait for redis-server")
            {
                let log = fs::read_to_string(directory.path().join("log")).unwrap_or_default();
                panic!("redis-server ended with {status}: {log}");
            }
            let Some(mut session) = self.try_session() else { return false };
            session.send(b"PING\r\n").is_ok() && matches!(session.try_read(), Ok(Some(Value::Simple(_))))
        });
    }

    fn try_session(&self) -> Option<Session> {
        let (mut session, login) = match &self.source {
            Source::External { url } => {
                let user = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest).rsplit_once('@');
                let login = user.map(|(user, _)| user.split_once(':').unwrap_or((user, "")));
                let login = login.map(|(u, p)| (if u.is_empty() { "default" } else { u }.to_owned(), p.to_owned()));
                (Session::tcp(&self.host, self.port).ok()?, login)
            }
            Source::Local { directory, .. } => {
                (Session::unix(&directory.path().join("socket")).ok()?, Some((WATCHER.to_owned(), "-".to_owned())))
            }
            Source::Container { .. } => {
                assert!(self.options.certificates.is_none(), "a container with TLS alone cannot be looked into");
                (Session::tcp(&self.host, self.port).ok()?, Some((WATCHER.to_owned(), "-".to_owned())))
            }
        };
        if let Some((user, password)) = login {
            session.send(&crate::resp::command(&["AUTH", &user, &password])).ok()?;
            let answer = session.try_read().ok()??;
            assert_eq!(answer, Value::ok(), "login to the server itself");
        }
        Some(session)
    }

    /// A connection to the server itself, with every right, not through Ringgate.
    pub fn session(&self) -> Session {
        self.try_session().expect("the server is up")
    }

    /// One command at the server itself; words are separated by spaces.
    #[track_caller]
    pub fn say(&self, line: &str) -> Value {
        self.session().say(line)
    }

    /// How many clients are connected beside the asking one and other watchers.
    pub fn clients(&self) -> usize {
        let list = self.say("CLIENT LIST").text();
        list.lines().filter(|l| !l.is_empty() && !l.contains(&format!("user={WATCHER}"))).count()
    }

    /// How often the server has run `command`, by its own count.
    pub fn calls(&self, command: &str) -> u64 {
        let stats = self.say("INFO commandstats").text();
        let prefix = format!("cmdstat_{command}:calls=");
        let line = stats.lines().find_map(|l| l.strip_prefix(&prefix));
        line.map_or(0, |l| l.split(',').next().and_then(|n| n.parse().ok()).expect("a number of calls"))
    }

    /// `redis://HOST:PORT`, without a password and without TLS.
    pub fn uri(&self) -> String {
        match &self.source {
            Source::External { url } => url.clone(),
            _ => format!("redis://{}:{}", self.host, self.port),
        }
    }

    /// `redis://USER:PASSWORD@HOST:PORT`; the user may be empty.
    pub fn uri_with(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@{}:{}", self.host, self.port)
    }

    /// The server's log so far. Local servers only.
    pub fn log(&self) -> String {
        match &self.source {
            Source::Local { directory, .. } => fs::read_to_string(directory.path().join("log")).expect("server log"),
            _ => panic!("the log of a server from elsewhere cannot be read: install redis-server"),
        }
    }

    /// Process id. Local servers only.
    pub fn pid(&self) -> u32 {
        match &self.source {
            Source::Local { child, .. } => child.id(),
            _ => panic!("a server from elsewhere has no process here: install redis-server"),
        }
    }

    /// Kills the server at once and waits until it is gone. Local servers only.
    pub fn kill_9(&mut self) {
        process::signal(self.pid(), Signal::KILL);
        if let Source::Local { child, .. } = &mut self.source {
            child.wait().expect("wait for redis-server");
        }
    }

    /// Starts the same server again after [`Redis::kill_9`], empty, on the same port.
    pub fn start_again(&mut self) {
        let binary = places::redis_server().expect("it was started from it");
        let (port, options) = (self.port, self.options.clone());
        if let Source::Local { directory, child } = &mut self.source {
            *child = spawn(&binary, directory.path(), port, &options);
        }
        self.wait_until_it_answers();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        match &mut self.source {
            Source::External { .. } => {}
            Source::Local { child, .. } => {
                child.kill().ok();
                child.wait().ok();
            }
            Source::Container { runtime, container } => {
                if let Some(container) = container.take() {
                    runtime.block_on(container.rm()).ok();
                }
            }
        }
    }
}

/// Ends with the thread that started it.
fn spawn(binary: &Path, directory: &Path, port: u16, options: &Options) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(directory.join("log")).expect("log file");
    let place = directory.to_str().expect("a path in UTF-8");
    let text = options.configuration(port, place, "127.0.0.1") + &format!("unixsocket \"{place}/socket\"\n");
    fs::write(directory.join("redis.conf"), text).expect("redis.conf");
    let mut command = Command::new("setpriv");
    command.arg("--pdeathsig=KILL").arg(binary).arg(directory.join("redis.conf"));
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("log file"))
        .stderr(log)
        .spawn()
        .expect("redis-server starts")
}
