//! The configuration as a whole: defaults, round trip, environment.

use std::ffi::OsString;
use std::path::Path;

use super::*;

fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let variables = variables.iter().map(|(k, v)| (OsString::from(k), OsString::from(v)));
    Config::parse("f.yaml", text, Path::new("/base"), variables).map_err(|p| p.render())
}

#[test]
fn the_shortest_file_has_every_default() {
    let config = parse("node: { data_dir: /d }\n", &[]).unwrap();
    assert_eq!(config.node.data_dir, Path::new("/d"));
    assert_eq!(config.audit.dir, Path::new("/d/audit"));
    assert_eq!(config.listeners.admin_socket, Path::new("/d/admin.sock"));
    assert_eq!(config.runtime.ring.entries, 1024);
    assert_eq!(config.runtime.ring.cq, 16_384);
    assert_eq!(config.limits.max_frame_postgres, 1 << 30);
    assert_eq!(config.tls.kx[0], KeyExchange::X25519MlKem768);
    assert_eq!(config.limits.max_frame_redis, 512 << 20);
    assert_eq!(config.audit.redis_arguments, RedisArguments::Keys);
    assert!(config.listeners.postgres.is_none());
    assert!(config.listeners.redis.is_none());
}

#[test]
fn a_relative_folder_is_relative_to_the_file() {
    assert_eq!(parse("node: { data_dir: d }\n", &[]).unwrap().node.data_dir, Path::new("/base/d"));
}

#[test]
fn what_is_shown_reads_back_to_the_same() {
    let text = "
node: { data_dir: /d, name: n }
runtime: { driver: epoll, workers: 2, pin: [0, 1], shutdown_grace: 1m30s }
listeners:
  postgres: { addr: 127.0.0.1:5432, cleartext_cancel: false }
  redis: { addr: 127.0.0.1:6379, inline: false, compat: teleport }
  diag: { addr: 127.0.0.1:3000 }
  danger_plain:
    - { protocol: postgres, addr: 127.0.0.1:1, database: a, user: u, db_user: d, db_name: n }
    - { protocol: redis, addr: 127.0.0.1:2, database: r, user: u }
databases:
  - name: orders
    description: \"the orders\"
    protocol: postgres
    uri: db.example.com:5432
    static_labels: { env: prod }
    tls: { mode: verify-ca, server_name: db }
    auth: { method: password, secrets: { app: \"env:APP\" } }
    limits: { max_sessions: 3, connect_timeout: 5s }
  - name: cache
    protocol: redis
    mode: cluster
    uri: rediss://redis.example.com:6379
    auth: passthrough
limits: { max_frame: { redis: 64MiB } }
audit: { mode: durable, flush_interval: 1500us, redis_arguments: full }
";
    let first = parse(text, &[]).unwrap();
    let shown = first.to_yaml();
    let second = parse(&shown, &[]).unwrap();
    assert_eq!(shown, second.to_yaml());
    assert_eq!(second.runtime.pin, Pin::List(vec![0, 1]));
    assert_eq!(second.audit.flush_interval, Duration::from_micros(1500));
    assert_eq!(second.limits.max_frame_redis, 64 << 20);
    assert_eq!(second.audit.redis_arguments, RedisArguments::Full);
    let redis = second.listeners.redis.unwrap();
    assert!(!redis.inline && redis.teleport_compat);
    let plain = &second.listeners.danger_plain[1];
    assert_eq!((plain.db_user.as_str(), plain.db_name.as_str()), ("default", "0"));
    assert_eq!(second.databases.len(), 2);
    let cache = second.databases[1].database();
    assert_eq!(cache.mode, ringgate_policy::DatabaseMode::Cluster);
    assert_eq!(cache.auth.method, ringgate_policy::AuthMethod::Passthrough);
}

#[test]
fn a_redis_database_is_checked_with_its_own_words() {
    let wrong = |entry: &str| {
        parse(&format!("node: {{ data_dir: /d }}\ndatabases:\n  - {{ name: r, {entry} }}\n"), &[]).unwrap_err()
    };
    assert!(wrong("protocol: redis, uri: 'redis://:hunter2@h:1'").contains("holds a user or a password"));
    assert!(wrong("protocol: redis, uri: 'h:1', auth: scram").contains("mtls, password, passthrough, none"));
    assert!(wrong("protocol: redis, uri: 'h:1', mode: sentinel").contains("standalone, cluster"));
    assert!(wrong("protocol: redis, uri: 'h:1?db=1'").contains("mode=cluster"));
    assert!(wrong("protocol: postgres, uri: 'h:1', auth: passthrough").contains("mtls, password, scram, none"));
    assert!(wrong("protocol: postgres, uri: 'h:1', mode: cluster").contains("not served"));
}

#[test]
fn an_environment_variable_stands_in_the_place_of_its_key() {
    let text = "node: { data_dir: /d }\nruntime: { workers: 4 }\n";
    let variables = [
        ("RINGGATE__RUNTIME__WORKERS", "2"),
        ("RINGGATE__AUDIT__MODE", "durable"),
        ("RINGGATE__RUNTIME__PIN", "[1]"),
        ("RINGGATE__RUNTIME__RING__ENTRIES", "64"),
    ];
    let config = parse(text, &variables).unwrap();
    assert_eq!(config.runtime.workers, Some(2));
    assert_eq!(config.audit.mode, AuditMode::Durable);
    assert_eq!(config.runtime.pin, Pin::List(vec![1]));
    assert_eq!(config.runtime.ring.entries, 64);
}

#[test]
fn a_wrong_environment_variable_is_named_in_the_problem() {
    let wrong = parse("node: { data_dir: /d }\n", &[("RINGGATE__RUNTIME__WORKRES", "2")]).unwrap_err();
    assert_eq!(
        wrong,
        "environment variable RINGGATE__RUNTIME__WORKRES: unknown key `workres` in `runtime`\n  try:  `workers`\n"
    );
}

#[test]
fn every_problem_is_reported_in_the_order_of_the_file() {
    let text = "node: { data_dir: /d }\nruntime:\n  workers: many\n  drivr: auto\nlimits: { handshake_timeout: 10 }\n";
    let wrong = parse(text, &[]).unwrap_err();
    let places: Vec<&str> = wrong.lines().filter(|l| l.starts_with("f.yaml:")).map(|l| &l[..11]).collect();
    assert_eq!(places, ["f.yaml:3:12", "f.yaml:4:3:", "f.yaml:5:30"], "{wrong}");
}

#[test]
fn neither_messages_nor_lines_show_a_literal_secret() {
    let text = "node: { data_dir: /d }\ndatabases:\n  - name: a\n    protocol: postgres\n    uri: \"u:hunter2@h:1\"\n    \
                auth: { method: passwrd, secrets: { app: hunter3 } }\n";
    let wrong = parse(text, &[]).unwrap_err();
    assert!(!wrong.contains("hunter"), "{wrong}");
    assert_eq!(wrong.lines().filter(|l| l.starts_with("f.yaml:")).count(), 3, "{wrong}");
}
