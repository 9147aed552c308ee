//! What the file says, key by key (user-experience section 5), turned into [`Config`].
//!
//! Every reader has its default beside it. A key of the reference that this version does not act on is refused,
//! because a setting that is silently without effect is worse than none.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::problem::Problem;
use super::scalar::{self, Rate};
use super::section::Section;
use super::tree::{Kind, Node as Tree};
use super::words::*;
use super::*;

/// Hard cap on the life of a login certificate (access-model 2.4).
const USER_CERT_TTL_MAX: Duration = Duration::from_secs(30 * 3600);

/// Reads a whole file; problems are noted, and what is wrong has its default. `None` when it is no mapping at all.
pub(super) fn read(root: &Tree, base: &Path, problems: &RefCell<Vec<Problem>>) -> Option<Config> {
    let file = Section::new("", root, problems);
    if !matches!(root.kind, Kind::Map(_) | Kind::Null) {
        return None;
    }
    file.choice("version", &[("v1", ())]);
    let empty = Tree::empty();
    let section = |key: &'static str| file.section(key).unwrap_or_else(|| Section::new(key, &empty, problems));

    let node = node(section("node"), base);
    let data_dir = node.as_ref().map(|n| n.data_dir.clone()).unwrap_or_default();
    let config = Config {
        file: PathBuf::new(),
        runtime: runtime(section("runtime")),
        listeners: listeners::read(section("listeners"), &data_dir),
        tls: tls(section("tls")),
        ca: ca(section("ca")),
        auth: auth(section("auth")),
        databases: database::list(&file),
        limits: limits(section("limits")),
        audit: audit(section("audit"), &data_dir),
        log: log(section("log")),
        node: node.unwrap_or_else(|| Node { name: String::new(), data_dir, cluster_name: String::new() }),
    };
    storage(section("storage"));
    telemetry(section("telemetry"));
    file.finish();
    Some(config)
}

/// Default of `audit.flush_interval`.
const FLUSH: Duration = Duration::from_millis(10);
/// The same when statements wait for it.
const FLUSH_DURABLE: Duration = Duration::from_millis(2);

fn node(s: Section<'_>, base: &Path) -> Option<Node> {
    let name = s.read("name", |t| label(t, 253)).unwrap_or_else(host_name);
    // Collected anew, so that `.` leaves no trace in the paths people see.
    let data_dir = s.text("data_dir").map(|dir| base.join(dir).components().collect::<PathBuf>());
    if data_dir.is_none() {
        s.missing("data_dir", "data_dir: /var/lib/ringgate");
    }
    let cluster_name = s.read("cluster_name", |t| label(t, 63)).unwrap_or_else(|| "ringgate".to_owned());
    for service in s.list("services").into_iter().flatten() {
        if let Some(text) = s.scalar("services", service)
            && !["auth", "proxy", "db"].contains(&text)
        {
            s.problem(Problem::new(service.mark.clone(), format!("`{text}` is not one of auth, proxy, db")));
        }
    }
    s.not_served(&["join"]);
    s.finish();
    Some(Node { name, data_dir: data_dir?, cluster_name })
}

fn runtime(s: Section<'_>) -> Runtime {
    let driver = s.choice("driver", Driver::WORDS).unwrap_or(Driver::Auto);
    let workers = s.read("workers", |t| match t {
        "auto" => Ok(None),
        _ => scalar::number(t, 1, 1024).map(|n| Some(n as usize)).map_err(|e| format!("{e} (or write auto)")),
    });
    let pin = pin(&s);
    let ring = s.section("ring").map(ring);
    let buffers = s.section("buffers").map(buffers);
    let runtime = Runtime {
        driver,
        workers: workers.flatten(),
        pin,
        control_threads: count(&s, "control_threads", 1, 16).unwrap_or(1),
        ring: ring.unwrap_or(Ring { mode: RingMode::Auto, entries: 1024, cq: 16_384 }),
        max_connections: count(&s, "max_connections", 1, 4_000_000).unwrap_or(65_536),
        shutdown_grace: s.read("shutdown_grace", scalar::duration).unwrap_or(Duration::from_secs(30)),
        buffers: buffers.unwrap_or(Buffers { small: 4096, large: 32_768 }),
        idle_release: s.read("idle_release", scalar::duration).unwrap_or(Duration::from_millis(250)),
    };
    s.choice("memory_limit", &[("auto", ())]);
    s.finish();
    runtime
}

fn pin(s: &Section<'_>) -> Pin {
    let Some(node) = s.get("pin") else { return Pin::Auto };
    if let Kind::List(items) = &node.kind {
        let cpus: Vec<usize> = items
            .iter()
            .filter_map(|item| {
                let text = s.scalar("pin", item)?;
                scalar::number(text, 0, 4095)
                    .map_err(|e| s.problem(Problem::new(item.mark.clone(), format!("`{}`: {e}", s.name("pin")))))
                    .ok()
                    .map(|n| n as usize)
            })
            .collect();
        return Pin::List(cpus);
    }
    #[derive(Clone, Copy)]
    enum Word {
        Auto,
        On,
        Off,
    }
    let words = [("auto", Word::Auto), ("on", Word::On), ("off", Word::Off), ("true", Word::On), ("false", Word::Off)];
    match s.choice("pin", &words) {
        Some(Word::On) => Pin::On,
        Some(Word::Off) => Pin::Off,
        Some(Word::Auto) | None => Pin::Auto,
    }
}

fn ring(s: Section<'_>) -> Ring {
    let mode = s.choice("mode", RingMode::WORDS).unwrap_or(RingMode::Auto);
    let entries = s.read("entries", |t| power_of_two(t, 16, 32_768)).unwrap_or(1024) as u32;
    let cq = s.read("cq", |t| power_of_two(t, 32, 65_536)).unwrap_or_else(|| u64::from(entries).max(8192) * 2) as u32;
    if cq < entries.saturating_mul(2) {
        s.problem(
            Problem::new(
                s.mark().clone(),
                format!("`{}` is {cq}, less than twice `entries` ({entries})", s.name("cq")),
            )
            .suggest(format!("cq: {}", entries.saturating_mul(2))),
        );
    }
    s.finish();
    Ring { mode, entries, cq }
}

fn buffers(s: Section<'_>) -> Buffers {
    let small = bytes(&s, "small", 512, 1 << 16).unwrap_or(4096);
    let large = bytes(&s, "large", 20 << 10, 1 << 20).unwrap_or(32_768.max(small));
    if large < small {
        s.problem(
            Problem::new(s.mark().clone(), format!("`{}` is smaller than `small`", s.name("large")))
                .suggest("large: 32KiB"),
        );
    }
    s.finish();
    Buffers { small, large }
}

fn tls(s: Section<'_>) -> Tls {
    s.choice("source", &[("internal", ())]);
    s.choice("client_cert", &[("required", ())]);
    let names = s.list("public_names").unwrap_or_default();
    let public_names = names
        .iter()
        .filter_map(|node| {
            let text = s.scalar("public_names", node)?;
            host(text)
                .map_err(|e| s.problem(Problem::new(node.mark.clone(), format!("`{}`: {e}", s.name("public_names")))))
                .ok()
        })
        .collect();
    let kx: Vec<KeyExchange> = s
        .list("kx")
        .unwrap_or_default()
        .iter()
        .filter_map(|node| {
            let text = s.scalar("kx", node)?;
            let found = KeyExchange::WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
            if found.is_none() {
                let words: Vec<&str> = KeyExchange::WORDS.iter().map(|(w, _)| *w).collect();
                let message = format!("`{}`: `{text}` is not one of {}", s.name("kx"), words.join(", "));
                s.problem(Problem::new(node.mark.clone(), message));
            }
            found.map(|(_, group)| *group)
        })
        .collect();
    let tls = Tls {
        public_names,
        min_version: s.choice("min_version", TlsVersion::WORDS).unwrap_or(TlsVersion::V12),
        handshakes_per_worker: count(&s, "handshakes_per_worker", 1, 65_536).unwrap_or(32),
        ticket_lifetime: s.read("ticket_lifetime", scalar::duration).unwrap_or(Duration::from_secs(3600)),
        kx: if kx.is_empty() { KeyExchange::WORDS.iter().map(|(_, k)| *k).collect() } else { kx },
    };
    s.not_served(&["cert", "key", "acme"]);
    s.finish();
    tls
}

fn ca(s: Section<'_>) -> Ca {
    let user_cert_ttl = s.read("user_cert_ttl", |t| match positive(t)? {
        ttl if ttl > USER_CERT_TTL_MAX => Err(format!("`{t}` is longer than 30h")),
        ttl => Ok(ttl),
    });
    let db_cert_ttl = s.read("db_cert_ttl", |t| match positive(t)? {
        ttl if ttl > USER_CERT_TTL_MAX => Err(format!("`{t}` is longer than 30h")),
        ttl => Ok(ttl),
    });
    s.choice("key_algorithm", &[("ecdsa-p256", ())]);
    if let Some(signer) = s.section("signer") {
        signer.choice("type", &[("file", ())]);
        signer.finish();
    }
    s.finish();
    Ca {
        user_cert_ttl: user_cert_ttl.unwrap_or(Duration::from_secs(12 * 3600)),
        db_cert_ttl: db_cert_ttl.unwrap_or(Duration::from_secs(3600)),
    }
}

fn auth(s: Section<'_>) -> Auth {
    let auth = Auth {
        on_access_change: s.choice("on_access_change", OnAccessChange::WORDS).unwrap_or(OnAccessChange::Keep),
        disconnect_expired_cert: s.read("disconnect_expired_cert", yes_or_no).unwrap_or(false),
    };
    s.not_served(&["local", "session", "lock_mode"]);
    s.choice("require_session_mfa", &[("no", ()), ("false", ())]);
    s.finish();
    auth
}

fn storage(s: Section<'_>) {
    s.choice("type", &[("sqlite", ())]);
    s.choice("path", &[("state.db", ())]);
    s.not_served(&["postgres", "etcd"]);
    s.finish();
}

fn limits(s: Section<'_>) -> Limits {
    let mut login_rate = LoginRate { per_ip: Rate { count: 20, per: Duration::from_secs(1) }, burst: 40 };
    if let Some(rate) = s.section("login_rate") {
        login_rate.per_ip = rate.read("per_ip", scalar::rate).unwrap_or(login_rate.per_ip);
        login_rate.burst = count(&rate, "burst", 1, 1_000_000).map_or(login_rate.burst, |n| n as u32);
        rate.finish();
    }
    let (mut max_frame_postgres, mut max_frame_redis, mut max_frame_mysql) = (1 << 30, 512 << 20, 1 << 30);
    if let Some(frame) = s.section("max_frame") {
        max_frame_postgres = bytes(&frame, "postgres", 64 << 10, 1 << 30).unwrap_or(max_frame_postgres);
        max_frame_redis = bytes(&frame, "redis", 64 << 10, 512 << 20).unwrap_or(max_frame_redis);
        max_frame_mysql = bytes(&frame, "mysql", 64 << 10, 1 << 30).unwrap_or(max_frame_mysql);
        frame.not_served(&["mongodb"]);
        frame.finish();
    }
    let limits = Limits {
        handshake_timeout: s.read("handshake_timeout", positive).unwrap_or(Duration::from_secs(10)),
        login_rate,
        max_pre_auth_connections: count(&s, "max_pre_auth_connections", 1, 1_000_000).unwrap_or(1024),
        max_frame_postgres,
        max_frame_redis,
        max_frame_mysql,
        buffer_per_direction: bytes(&s, "buffer_per_direction", 4 << 10, 16 << 20).unwrap_or(64 << 10),
        client_idle_timeout: s.read("client_idle_timeout", scalar::duration).unwrap_or(Duration::ZERO),
        write_stall_timeout: s.read("write_stall_timeout", positive).unwrap_or(Duration::from_secs(60)),
    };
    s.finish();
    limits
}

fn audit(s: Section<'_>, data_dir: &Path) -> Audit {
    let dir = s.text("dir").unwrap_or_else(|| "audit".to_owned());
    let mut checkpoint_interval = Duration::from_secs(10);
    if let Some(checkpoint) = s.section("checkpoint") {
        checkpoint_interval = checkpoint.read("interval", positive).unwrap_or(checkpoint_interval);
        checkpoint.choice("key", &[("internal", ())]);
        checkpoint.not_served(&["witness"]);
        checkpoint.finish();
    }
    let mode = s.choice("mode", AuditMode::WORDS).unwrap_or(AuditMode::Strict);
    // In `durable` statements wait for the commit. Otherwise the interval only bounds what a power cut may take, and
    // every commit costs the processor a write-back.
    let flush_interval = if mode == AuditMode::Durable { FLUSH_DURABLE } else { FLUSH };
    let audit = Audit {
        dir: data_dir.join(dir),
        mode,
        flush_interval: s.read("flush_interval", positive).unwrap_or(flush_interval),
        segment_size: bytes(&s, "segment_size", 64 << 10, 1 << 40).unwrap_or(256 << 20),
        query_text: s.choice("query_text", QueryText::WORDS).unwrap_or(QueryText::Full),
        query_text_max: bytes(&s, "query_text_max", 64, 64 << 10).unwrap_or(64 << 10),
        parameters: s.choice("parameters", ParameterPolicy::WORDS).unwrap_or(ParameterPolicy::Full),
        redis_arguments: s.choice("redis_arguments", RedisArguments::WORDS).unwrap_or(RedisArguments::Keys),
        checkpoint_interval,
        ring_size: s
            .read("ring_size", |t| {
                let size = scalar::size(t)?;
                let allowed = size.is_power_of_two() && ((256 << 10)..=(1 << 30)).contains(&size);
                if allowed { Ok(size) } else { Err(format!("`{t}` is not a power of two from 256KiB to 1GiB")) }
            })
            .unwrap_or(4 << 20),
        batch: bytes(&s, "batch", 4 << 10, 64 << 20).unwrap_or(1 << 20),
    };
    s.not_served(&["redact", "retention", "export"]);
    s.finish();
    audit
}

fn log(s: Section<'_>) -> Log {
    let level = s.read("level", |t| match t.parse::<tracing_subscriber::filter::EnvFilter>() {
        Ok(_) => Ok(t.to_owned()),
        Err(_) => Err(format!("`{t}` is not a level (write error, warn, info, debug or trace)")),
    });
    let log = Log {
        format: s.choice("format", LogFormat::WORDS).unwrap_or(LogFormat::Json),
        level: level.unwrap_or_else(|| "info".to_owned()),
    };
    s.choice("output", &[("stderr", ())]);
    s.not_served(&["rotate", "unsafe_query_text"]);
    s.finish();
    log
}

fn telemetry(s: Section<'_>) {
    if let Some(metrics) = s.section("metrics") {
        metrics.choice("prometheus", &[("true", ())]);
        metrics.choice("per_database", &[("true", ())]);
        metrics.choice("per_user", &[("false", ())]);
        metrics.finish();
    }
    s.not_served(&["otlp"]);
    s.finish();
}

fn count(s: &Section<'_>, key: &'static str, low: u64, high: u64) -> Option<usize> {
    s.read(key, |t| scalar::number(t, low, high)).and_then(|n| usize::try_from(n).ok())
}

fn bytes(s: &Section<'_>, key: &'static str, low: usize, high: usize) -> Option<usize> {
    s.read(key, |t| match scalar::size(t)? {
        size if (low..=high).contains(&size) => Ok(size),
        _ => Err(format!("`{t}` is outside {low} to {high} bytes")),
    })
}

fn power_of_two(text: &str, low: u64, high: u64) -> Result<u64, String> {
    match scalar::number(text, low, high)? {
        n if n.is_power_of_two() => Ok(n),
        n => Err(format!("{n} is not a power of two")),
    }
}

fn positive(text: &str) -> Result<Duration, String> {
    match scalar::duration(text)? {
        Duration::ZERO => Err(format!("`{text}` must be longer than zero")),
        value => Ok(value),
    }
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => scalar::switch(text),
    }
}

/// A name of letters, digits, dots, dashes and underscores.
fn label(text: &str, bytes_max: usize) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if text.is_empty() || text.len() > bytes_max || !text.chars().all(good) {
        return Err(format!("`{text}` is not a name of 1 to {bytes_max} letters, digits, `-`, `.` or `_`"));
    }
    Ok(text.to_owned())
}

/// A host name (one leading `*.` allowed) or an IP address.
fn host(text: &str) -> Result<String, String> {
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    let name = text.strip_prefix("*.").unwrap_or(text);
    label(name, 253).map(|_| text.to_owned()).map_err(|_| format!("`{text}` is not a host name or an address"))
}

fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "ringgate".to_owned() } else { name }
}
