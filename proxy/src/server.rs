//! The server: everything started in order, and stopped in the reverse one.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ringgate_audit::{Event, Handle, SharedProducer};
use ringgate_control::serve::{self, Bound as ControlBound, ServeOptions};
use ringgate_control::{AuditSink, Authority, CaKind};
use ringgate_policy::{ClusterSettings, Kind};

use crate::acceptor::{self, Bound};
use crate::backend::prepare;
use crate::config::{self, Config};
use crate::metrics::{Counters, Served, page};
use crate::net::doorbell;
use crate::net::driver::{self, Driver, RingMode, RingSize, Wish};
use crate::plane::{Command, Listener, ListenerTls, PlainRoute, Plane};
use crate::session::cancel::WORKERS_MAX;
use crate::settings::{ArgumentDetail, ParameterDetail, QueryText, Settings};
use crate::worker::{self, Start};
use crate::{plane, tls};

/// A worker that has not looked at its clock for this long is dead (`/healthz`).
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// What is known when every listener is up.
#[derive(Clone, Debug)]
pub struct ReadyInfo {
    /// Name and address of every listener.
    pub listeners: Vec<(String, SocketAddr)>,
    /// The I/O driver taken.
    pub driver: String,
    /// Worker threads.
    pub workers: usize,
    /// The diagnostic listener.
    pub diag: Option<SocketAddr>,
}

/// Runs the server of `config` until it is told to stop. `ready` is called once, when every listener is up.
pub fn run(config: Config, ready: impl FnOnce(&ReadyInfo)) -> anyhow::Result<i32> {
    protect_process(config.runtime.max_connections);
    let ring = RingSize { entries: config.runtime.ring.entries, cq: config.runtime.ring.cq };
    let driver = choose_driver(&config, ring)?;
    let workers = config.runtime.workers.unwrap_or_else(available_cpus).clamp(1, WORKERS_MAX);

    let mut ways = Vec::new();
    let mut ears = Vec::new();
    for _ in 0..workers {
        let (bell, ear) = doorbell::pair().context("cannot make a doorbell")?;
        let (inbox, outlet) = mpsc::channel::<Command>();
        ways.push((inbox, bell));
        ears.push((outlet, ear));
    }
    let wake =
        ways.iter().map(|(_, bell)| bell.clone()).map(|bell| Box::new(move || bell.ring()) as Box<dyn Fn() + Send>);
    let (producers, shared, audit) =
        ringgate_audit::start(audit_options(&config), workers, wake.collect()).context("audit log")?;
    let authority = open_authority(&config, shared.clone())?;
    shared.record(&Event::Other {
        event: "server.start",
        code: "TSV01I",
        members: &format!(
            r#""version":"{}","driver":"{}","workers":{workers}"#,
            env!("CARGO_PKG_VERSION"),
            driver.word()
        ),
    });

    let (jobs, job_queue) = mpsc::channel();
    let tls = server_tls(&config, &authority)?;
    let plane = Arc::new(Plane::new(settings(&config), authority.clone(), tls, ways, jobs));
    let (bound, listeners) = bind(&config, &authority)?;

    let counters: Vec<Arc<Counters>> = (0..=workers).map(|_| Arc::default()).collect();
    let cpus = pinned_cpus(&config, workers);
    for (id, ((inbox, ear), audit)) in ears.into_iter().zip(producers).enumerate() {
        let start = Start {
            id,
            plane: plane.clone(),
            driver,
            ring,
            cpu: cpus.get(id).copied(),
            inbox,
            ear,
            audit,
            counters: counters[id].clone(),
        };
        spawn_thread(&format!("worker-{id}"), move || worker::run(start).map_err(|e| e.to_string()))?;
    }
    let preparing = plane.clone();
    spawn_thread("prepare", move || {
        prepare::run(&preparing, &job_queue);
        Ok(())
    })?;
    wait_for_workers(&plane)?;
    let accepting = (plane.clone(), counters[workers].clone());
    spawn_thread("acceptor", move || {
        acceptor::run(&accepting.0, bound, &accepting.1);
        Ok(())
    })?;

    let started = Instant::now();
    let face = Arc::new(Face {
        plane: plane.clone(),
        counters,
        audit: Mutex::new(Some(audit)),
        driver,
        shared: shared.clone(),
        config: config.clone(),
        started,
    });
    let options = ServeOptions {
        admin_socket: config.listeners.admin_socket.clone(),
        admin_mode: 0o600,
        diag_addr: config.listeners.diag,
        plane: face.clone(),
        shutdown_grace: config.runtime.shutdown_grace,
    };
    let up = |control: ControlBound| {
        shared.record(&Event::Other { event: "server.ready", code: "TSV02I", members: "" });
        ready(&ReadyInfo { listeners, driver: driver.word().into(), workers, diag: control.diag_addr });
    };
    let exit = serve::run(authority, options, up);
    plane.abort();
    wait_until_empty(&plane, Duration::from_secs(2));
    shared.record(&Event::Other { event: "server.stop", code: "TSV04I", members: "" });
    if let Some(audit) = face.audit.lock().unwrap_or_else(PoisonError::into_inner).take() {
        audit.shutdown();
    }
    exit.context("control plane")?;
    Ok(0)
}

/// No core dump may hold a key or a statement; as many descriptors as the limit allows.
fn protect_process(connections: usize) {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    // A process that may not lower its own limits is already held by somebody stricter.
    let _ = setrlimit(Resource::Core, none);
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let files = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum });
    let wanted = 2 * connections as u64 + 1000;
    if files.maximum.is_some_and(|max| max < wanted) {
        tracing::warn!(limit = ?files.maximum, wanted, "too few file descriptors for runtime.max_connections");
    }
}

fn choose_driver(config: &Config, ring: RingSize) -> anyhow::Result<Driver> {
    let wish = match config.runtime.driver {
        config::Driver::Auto => Wish::Auto,
        config::Driver::IoUring => Wish::IoUring,
        config::Driver::Epoll => Wish::Epoll,
    };
    let mode = match config.runtime.ring.mode {
        config::RingMode::Auto | config::RingMode::Coop => RingMode::Coop,
        config::RingMode::Defer => RingMode::Defer,
        config::RingMode::Plain => RingMode::Plain,
    };
    let driver =
        driver::choose(wish, mode, ring).context("io_uring was asked for and cannot be had (runtime.driver)")?;
    if driver == Driver::Epoll && wish == Wish::Auto {
        tracing::warn!("io_uring is not available here, running on epoll");
    }
    Ok(driver)
}

/// The I/O driver that a server with default settings would take on this machine.
pub fn driver_here() -> &'static str {
    let size = RingSize { entries: 256, cq: 1024 };
    driver::choose(Wish::Auto, RingMode::Coop, size).map_or("none", Driver::word)
}

fn available_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The processors the workers are bound to, one each; empty when they are not bound.
fn pinned_cpus(config: &Config, workers: usize) -> Vec<usize> {
    let allowed = || core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|c| c.id).collect::<Vec<_>>();
    let wanted = match &config.runtime.pin {
        config::Pin::Off => Vec::new(),
        config::Pin::On => allowed(),
        // On a small machine the database and the clients want the same processors: binding makes tails worse.
        config::Pin::Auto => Some(allowed()).filter(|cpus| cpus.len() > 2 && cpus.len() == workers).unwrap_or_default(),
        config::Pin::List(cpus) => cpus.clone(),
    };
    if wanted.is_empty() { wanted } else { wanted.iter().copied().cycle().take(workers).collect() }
}

fn audit_options(config: &Config) -> ringgate_audit::Options {
    let audit = &config.audit;
    ringgate_audit::Options {
        mode: match audit.mode {
            config::AuditMode::Strict => ringgate_audit::Mode::Strict,
            config::AuditMode::Durable => ringgate_audit::Mode::Durable,
            config::AuditMode::BestEffort => ringgate_audit::Mode::BestEffort,
        },
        flush_interval: audit.flush_interval,
        batch_bytes: audit.batch,
        segment_bytes: audit.segment_size as u64,
        checkpoint_interval: audit.checkpoint_interval,
        ring_bytes: audit.ring_size,
        cluster_name: config.node.cluster_name.clone(),
        server_id: config.node.name.clone(),
        ..ringgate_audit::Options::new(&audit.dir)
    }
}

/// The control plane's events go into a ring of their own.
struct Sink(SharedProducer);

impl AuditSink for Sink {
    fn record(&self, event: &str, code: &str, members: &str) {
        self.0.record(&Event::Other { event, code, members });
    }
}

fn cluster_settings(config: &Config) -> ClusterSettings {
    ClusterSettings {
        client_idle_timeout: Some(config.limits.client_idle_timeout).filter(|d| !d.is_zero()),
        disconnect_expired_cert: config.auth.disconnect_expired_cert,
        on_access_change: match config.auth.on_access_change {
            config::OnAccessChange::Keep => ringgate_policy::OnAccessChange::Keep,
            config::OnAccessChange::End => ringgate_policy::OnAccessChange::End,
        },
        ..ClusterSettings::default()
    }
}

fn open_authority(config: &Config, audit: SharedProducer) -> anyhow::Result<Authority> {
    Authority::open(ringgate_control::Options {
        data_dir: config.node.data_dir.clone(),
        cluster_name: config.node.cluster_name.clone(),
        user_cert_ttl: config.ca.user_cert_ttl,
        db_cert_ttl: config.ca.db_cert_ttl,
        static_databases: config.databases.clone(),
        cluster: cluster_settings(config),
        audit: Arc::new(Sink(audit)),
    })
    .context("cannot open the authority")
}

/// TLS of every listener that is open. Each protocol takes its own ALPN name or none.
fn server_tls(config: &Config, authority: &Authority) -> anyhow::Result<ListenerTls> {
    let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    hosts.extend(config.tls.public_names.iter().cloned());
    let tls13_only = config.tls.min_version == config::TlsVersion::V13;
    let trusted = authority.trust(CaKind::User);
    let make = |alpn| {
        // Each has a certificate of its own, so that no protocol's client can be sent to another's listener unseen.
        let identity = authority.listener_certificate(&hosts).context("cannot make the listener's certificate")?;
        let made = tls::config::server(identity, &trusted, Some(alpn), tls13_only, &config.tls.kx);
        made.map(Arc::new).context("TLS of the listeners")
    };
    Ok(ListenerTls { postgres: make(b"postgresql")?, redis: make(b"redis")?, mysql: make(b"mysql")? })
}

fn settings(config: &Config) -> Settings {
    let limits = &config.limits;
    Settings {
        buffer_small_bytes: config.runtime.buffers.small,
        buffer_large_bytes: config.runtime.buffers.large.clamp(20 * 1024, limits.buffer_per_direction.max(20 * 1024)),
        connections_max: config.runtime.max_connections,
        handshake_timeout: limits.handshake_timeout,
        write_stall_timeout: limits.write_stall_timeout,
        postgres_frame_bytes_max: limits.max_frame_postgres as u64,
        redis_frame_bytes_max: limits.max_frame_redis as u64,
        mysql_frame_bytes_max: limits.max_frame_mysql as u64,
        pre_auth_max: limits.max_pre_auth_connections,
        login_rate_per_second: limits.login_rate.per_ip.per_second(),
        login_burst: limits.login_rate.burst,
        handshakes_per_worker: config.tls.handshakes_per_worker,
        durable: config.audit.mode == config::AuditMode::Durable,
        query_text: match config.audit.query_text {
            config::QueryText::Full => QueryText::Full,
            config::QueryText::Hashed => QueryText::Hashed,
            config::QueryText::Off => QueryText::Off,
        },
        query_text_bytes_max: config.audit.query_text_max,
        parameters: match config.audit.parameters {
            config::ParameterPolicy::Full => ParameterDetail::Full,
            config::ParameterPolicy::Types => ParameterDetail::Types,
            config::ParameterPolicy::None => ParameterDetail::None,
        },
        arguments: match config.audit.redis_arguments {
            config::RedisArguments::Names => ArgumentDetail::Names,
            config::RedisArguments::Keys => ArgumentDetail::Keys,
            config::RedisArguments::Full => ArgumentDetail::Full,
        },
    }
}

/// Names and addresses of what listens.
type Listening = Vec<(String, SocketAddr)>;

fn bind(config: &Config, authority: &Authority) -> anyhow::Result<(Vec<Bound>, Listening)> {
    let mut bound = Vec::new();
    let mut listeners = Vec::new();
    if let Some(postgres) = &config.listeners.postgres {
        let cleartext_cancel = postgres.cleartext_cancel;
        let listener = Listener { cleartext_cancel, ..Listener::new(Served::Postgres) };
        let (socket, addr) = listen(config, postgres.addr, listener)
            .with_context(|| format!("cannot listen on {} (listeners.postgres)", postgres.addr))?;
        bound.push(socket);
        listeners.push((Served::Postgres.word().to_owned(), addr));
    }
    if let Some(redis) = &config.listeners.redis {
        let (inline_commands, teleport_compat) = (redis.inline, redis.teleport_compat);
        let listener = Listener { inline_commands, teleport_compat, ..Listener::new(Served::Redis) };
        let (socket, addr) = listen(config, redis.addr, listener)
            .with_context(|| format!("cannot listen on {} (listeners.redis)", redis.addr))?;
        bound.push(socket);
        listeners.push((Served::Redis.word().to_owned(), addr));
    }
    if let Some(mysql) = &config.listeners.mysql {
        let listener = Listener { server_version: mysql.server_version.clone(), ..Listener::new(Served::Mysql) };
        let (socket, addr) = listen(config, mysql.addr, listener)
            .with_context(|| format!("cannot listen on {} (listeners.mysql)", mysql.addr))?;
        bound.push(socket);
        listeners.push((Served::Mysql.word().to_owned(), addr));
    }
    for plain in &config.listeners.danger_plain {
        tracing::warn!(addr = ?plain.addr, user = %plain.user, "a listener without TLS: everybody who reaches it is this user");
        let served = Served::named(&plain.protocol);
        let inline_commands = config.listeners.redis.as_ref().is_none_or(|redis| redis.inline);
        let teleport_compat = config.listeners.redis.as_ref().is_some_and(|redis| redis.teleport_compat);
        let server_version = config.listeners.mysql.as_ref().and_then(|mysql| mysql.server_version.clone());
        let route = Some(plain_route(plain, authority)?);
        let listener =
            Listener { plain: route, inline_commands, teleport_compat, server_version, ..Listener::new(served) };
        match &plain.addr {
            config::Listen::Tcp(addr) => {
                let (socket, addr) =
                    Bound::tcp(*addr, Arc::new(listener)).with_context(|| format!("cannot listen on {addr}"))?;
                bound.push(socket);
                listeners.push((format!("{}-plain", served.word()), addr));
            }
            config::Listen::Unix(path) => {
                bound
                    .push(Bound::unix(path, listener).with_context(|| format!("cannot listen on {}", path.display()))?);
            }
        }
    }
    Ok((bound, listeners))
}

/// Binds a listener of one protocol; one that may move takes a free port where its own is taken.
fn listen(config: &Config, addr: SocketAddr, listener: Listener) -> std::io::Result<(Bound, SocketAddr)> {
    let listener = Arc::new(listener);
    let is_movable = config.listeners.movable.contains(&listener.served.word());
    match Bound::tcp(addr, listener.clone()) {
        Err(e) if is_movable && e.kind() == std::io::ErrorKind::AddrInUse => {
            Bound::tcp(SocketAddr::new(addr.ip(), 0), listener)
        }
        bound => bound,
    }
}

fn plain_route(plain: &config::PlainListener, authority: &Authority) -> anyhow::Result<PlainRoute> {
    let users = authority.get(Kind::User, Some(&plain.user)).context("listeners.danger_plain")?;
    let user = users.first().with_context(|| format!("listeners.danger_plain: no user `{}`", plain.user))?;
    let spec = &user["spec"];
    Ok(PlainRoute {
        user: plain.user.clone(),
        roles: serde_json::from_value(spec["roles"].clone()).unwrap_or_default(),
        traits: serde_json::from_value(spec["traits"].clone()).unwrap_or_default(),
        service: plain.database.clone(),
        db_user: plain.db_user.clone(),
        db_name: plain.db_name.clone(),
    })
}

/// Starts a thread whose end is the end of the process: the data plane has none to spare.
fn spawn_thread(name: &str, body: impl FnOnce() -> Result<(), String> + Send + 'static) -> anyhow::Result<()> {
    let label = name.to_owned();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)) {
                Ok(Ok(())) => return,
                Ok(Err(error)) => tracing::error!(thread = %label, err = %error, "a thread of the data plane failed"),
                Err(_) => tracing::error!(thread = %label, "a thread of the data plane panicked"),
            }
            // The supervisor starts a new process; the audit rings are files and lose nothing.
            std::process::abort();
        })
        .with_context(|| format!("cannot start thread {name}"))?;
    Ok(())
}

fn wait_for_workers(plane: &plane::Plane) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_secs(10);
    while plane.gates().iter().any(|gate| !gate.has_beaten()) {
        if Instant::now() > until {
            bail!("a worker does not start");
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    Ok(())
}

fn wait_until_empty(plane: &plane::Plane, limit: Duration) {
    let until = Instant::now() + limit;
    while plane.connections() > 0 && Instant::now() < until {
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// The sections that differ and that only a new process reads.
fn needs_restart(running: &Config, fresh: &Config) -> Vec<&'static str> {
    fn differs<T: std::fmt::Debug>(a: &T, b: &T) -> bool {
        format!("{a:?}") != format!("{b:?}")
    }
    // Addresses given on the command line are not in the file: listeners are not compared.
    [
        ("node", differs(&running.node, &fresh.node)),
        ("runtime", differs(&running.runtime, &fresh.runtime)),
        ("limits", differs(&running.limits, &fresh.limits)),
        ("ca", differs(&running.ca, &fresh.ca)),
        ("audit", differs(&running.audit, &fresh.audit)),
        ("log", differs(&running.log, &fresh.log)),
    ]
    .into_iter()
    .filter_map(|(section, differs)| differs.then_some(section))
    .collect()
}

/// The data plane as the control plane sees it.
struct Face {
    plane: Arc<Plane>,
    counters: Vec<Arc<Counters>>,
    audit: Mutex<Option<Handle>>,
    shared: SharedProducer,
    driver: Driver,
    config: Config,
    started: Instant,
}

impl Face {
    fn audit_stats(&self) -> Option<ringgate_audit::Stats> {
        self.audit.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Handle::stats)
    }
}

impl serve::Plane for Face {
    fn healthy(&self) -> Result<(), String> {
        match self.plane.silent_worker(SILENCE_MAX) {
            None => Ok(()),
            Some(worker) => Err(format!("worker {worker} does not answer")),
        }
    }

    fn ready(&self) -> Vec<(&'static str, Result<(), String>)> {
        let audit = match self.audit_stats() {
            Some(stats) if stats.sink_ok => Ok(()),
            Some(_) => Err("the audit log cannot be written".to_owned()),
            None => Err("the audit log is closed".to_owned()),
        };
        let listeners = if self.plane.is_draining() { Err("closed".to_owned()) } else { Ok(()) };
        vec![("listeners", listeners), ("workers", self.healthy()), ("audit", audit)]
    }

    fn metrics(&self) -> String {
        page::render(&page::Input {
            counters: &self.counters,
            plane: &self.plane,
            audit: self.audit_stats(),
            driver: self.driver,
            started: self.started,
        })
    }

    fn version(&self) -> serde_json::Value {
        crate::version::json(Some(self.driver.word()))
    }

    fn drain(&self) {
        self.shared.record(&Event::Other { event: "server.drain", code: "TSV03I", members: "" });
        self.plane.drain();
    }

    fn drained(&self) -> bool {
        self.plane.connections() == 0
    }

    fn abort(&self) {
        self.plane.abort();
    }

    /// Databases, the cluster's access settings and the listeners' certificate take effect for new sessions; what
    /// needs a restart is named. A file that does not check changes nothing.
    fn reload(&self) -> Result<serde_json::Value, String> {
        let fresh = Config::load(&self.config.file).map_err(|e| match &e {
            config::LoadError::Invalid(problems) => problems.render(),
            config::LoadError::Unreadable { .. } => e.to_string(),
        })?;
        let tls = server_tls(&fresh, &self.plane.authority).map_err(|e| format!("{e:#}"))?;
        let authority = &self.plane.authority;
        authority.replace_static(fresh.databases.clone(), cluster_settings(&fresh)).map_err(|e| e.to_string())?;
        self.plane.tls.store(Arc::new(tls));
        let needs_restart = needs_restart(&self.config, &fresh);
        Ok(serde_json::json!({ "applied": ["databases", "auth", "tls"], "needs_restart": needs_restart }))
    }

    fn sessions(&self) -> serde_json::Value {
        let mut rows = Vec::new();
        for gate in self.plane.gates() {
            let (reply, answer) = mpsc::channel();
            gate.tell(Command::ListSessions(reply));
            // A worker that is silent for this long shows up in /healthz.
            rows.extend(answer.recv_timeout(Duration::from_millis(200)).unwrap_or_default());
        }
        serde_json::Value::Array(rows)
    }
}
