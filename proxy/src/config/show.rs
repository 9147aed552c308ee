//! The effective configuration as a file that reads back to the same.

use std::time::Duration;

use ringgate_policy::{DatabaseDocument, Document};
use serde_json::{Map, Value, json};

use super::{Config, Pin};

/// YAML in the order of the reference. Secrets stand as the references they are.
pub(super) fn yaml(config: &Config) -> String {
    // A tree of plain values always has a YAML form.
    serde_yaml::to_string(&value(config)).unwrap_or_default()
}

fn value(config: &Config) -> Value {
    json!({
        "version": "v1",
        "node": {
            "name": config.node.name,
            "data_dir": config.node.data_dir,
            "cluster_name": config.node.cluster_name,
        },
        "runtime": runtime(config),
        "listeners": listeners(config),
        "tls": {
            "public_names": config.tls.public_names,
            "min_version": config.tls.min_version.word(),
            "handshakes_per_worker": config.tls.handshakes_per_worker,
            "ticket_lifetime": duration(config.tls.ticket_lifetime),
            "kx": config.tls.kx.iter().map(|k| k.word()).collect::<Vec<_>>(),
        },
        "ca": {
            "user_cert_ttl": duration(config.ca.user_cert_ttl),
            "db_cert_ttl": duration(config.ca.db_cert_ttl),
        },
        "auth": {
            "on_access_change": config.auth.on_access_change.word(),
            "disconnect_expired_cert": config.auth.disconnect_expired_cert,
        },
        "storage": { "type": "sqlite", "path": "state.db" },
        "databases": config.databases.iter().map(database).collect::<Vec<_>>(),
        "limits": limits(config),
        "audit": audit(config),
        "log": { "format": config.log.format.word(), "level": config.log.level },
    })
}

fn runtime(config: &Config) -> Value {
    let runtime = &config.runtime;
    json!({
        "driver": runtime.driver.word(),
        "workers": runtime.workers.map_or(json!("auto"), |n| json!(n)),
        "pin": match &runtime.pin {
            Pin::Auto => json!("auto"),
            Pin::On => json!("on"),
            Pin::Off => json!("off"),
            Pin::List(cpus) => json!(cpus),
        },
        "control_threads": runtime.control_threads,
        "ring": { "mode": runtime.ring.mode.word(), "entries": runtime.ring.entries, "cq": runtime.ring.cq },
        "max_connections": runtime.max_connections,
        "shutdown_grace": duration(runtime.shutdown_grace),
        "buffers": { "small": runtime.buffers.small, "large": runtime.buffers.large },
        "idle_release": duration(runtime.idle_release),
    })
}

fn listeners(config: &Config) -> Value {
    let mut map = Map::new();
    if let Some(postgres) = &config.listeners.postgres {
        map.insert(
            "postgres".to_owned(),
            json!({ "addr": postgres.addr, "cleartext_cancel": postgres.cleartext_cancel }),
        );
    }
    if let Some(redis) = &config.listeners.redis {
        let compat = if redis.teleport_compat { "teleport" } else { "none" };
        map.insert("redis".to_owned(), json!({ "addr": redis.addr, "inline": redis.inline, "compat": compat }));
    }
    if let Some(mysql) = &config.listeners.mysql {
        let version = mysql.server_version.as_deref().unwrap_or("auto");
        map.insert("mysql".to_owned(), json!({ "addr": mysql.addr, "server_version": version }));
    }
    if let Some(diag) = config.listeners.diag {
        map.insert("diag".to_owned(), json!({ "addr": diag }));
    }
    map.insert("admin".to_owned(), json!({ "unix": config.listeners.admin_socket }));
    let plain = config.listeners.danger_plain.iter().map(|p| {
        json!({
            "protocol": p.protocol, "addr": p.addr.to_string(), "database": p.database,
            "user": p.user, "db_user": p.db_user, "db_name": p.db_name,
        })
    });
    map.insert("danger_plain".to_owned(), plain.collect());
    Value::Object(map)
}

fn limits(config: &Config) -> Value {
    let limits = &config.limits;
    let per = match limits.login_rate.per_ip.per.as_secs() {
        60 => "m",
        3600 => "h",
        _ => "s",
    };
    json!({
        "handshake_timeout": duration(limits.handshake_timeout),
        "login_rate": {
            "per_ip": format!("{}/{per}", limits.login_rate.per_ip.count),
            "burst": limits.login_rate.burst,
        },
        "max_pre_auth_connections": limits.max_pre_auth_connections,
        "max_frame": {
            "postgres": limits.max_frame_postgres, "redis": limits.max_frame_redis, "mysql": limits.max_frame_mysql,
        },
        "buffer_per_direction": limits.buffer_per_direction,
        "client_idle_timeout": duration(limits.client_idle_timeout),
        "write_stall_timeout": duration(limits.write_stall_timeout),
    })
}

fn audit(config: &Config) -> Value {
    let audit = &config.audit;
    json!({
        "dir": audit.dir,
        "mode": audit.mode.word(),
        "flush_interval": duration(audit.flush_interval),
        "segment_size": audit.segment_size,
        "query_text": audit.query_text.word(),
        "query_text_max": audit.query_text_max,
        "parameters": audit.parameters.word(),
        "redis_arguments": audit.redis_arguments.word(),
        "checkpoint": { "interval": duration(audit.checkpoint_interval) },
        "ring_size": audit.ring_size,
        "batch": audit.batch,
    })
}

/// The short form of a `db` resource.
fn database(document: &DatabaseDocument) -> Value {
    let resource = Document::Database(document.clone()).to_json();
    let mut short = resource["spec"].as_object().cloned().unwrap_or_default();
    for (from, to) in [("name", "name"), ("description", "description"), ("labels", "static_labels")] {
        if let Some(value) = resource["metadata"].get(from) {
            short.insert(to.to_owned(), value.clone());
        }
    }
    if let Some(tls) = short.get_mut("tls").and_then(Value::as_object_mut)
        && let Some(file) = tls.remove("ca_cert_file")
    {
        tls.insert("ca".to_owned(), file);
    }
    Value::Object(short)
}

/// The largest unit that loses nothing.
fn duration(value: Duration) -> String {
    let us = value.as_micros();
    for (unit, length_us) in [("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000)] {
        if us >= length_us && us.is_multiple_of(length_us) {
            return format!("{}{unit}", us / length_us);
        }
    }
    if us == 0 { "0s".to_owned() } else { format!("{us}us") }
}
