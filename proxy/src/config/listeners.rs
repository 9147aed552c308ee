//! `listeners:`, with the checks that hold between them.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::Path;

use super::problem::Problem;
use super::scalar::{self, Listen};
use super::section::Section;
use super::tree::Node;
use super::{Listeners, MysqlListener, PlainListener, PostgresListener, RedisListener, SOCKET_PATH_BYTES_MAX};

/// Reads the section; the admin socket is in the data directory unless the file says otherwise.
pub(super) fn read(s: Section<'_>, data_dir: &Path) -> Listeners {
    let postgres = s.section("postgres").map(|p| {
        let addr = p.read("addr", scalar::socket);
        if addr.is_none() && p.get("addr").is_none() {
            p.missing("addr", "addr: 0.0.0.0:5432");
        }
        let cleartext_cancel = p.read("cleartext_cancel", scalar::switch).unwrap_or(true);
        p.finish();
        PostgresListener { addr: addr.unwrap_or_else(|| ([127, 0, 0, 1], 5432).into()), cleartext_cancel }
    });
    let redis = s.section("redis").map(|r| {
        let addr = r.read("addr", scalar::socket);
        if addr.is_none() && r.get("addr").is_none() {
            r.missing("addr", "addr: 0.0.0.0:6379");
        }
        let default = RedisListener::default();
        let inline = r.read("inline", scalar::switch).unwrap_or(default.inline);
        let compat = r.choice("compat", &[("none", false), ("teleport", true)]);
        let teleport_compat = compat.unwrap_or(default.teleport_compat);
        r.finish();
        RedisListener { addr: addr.unwrap_or(default.addr), inline, teleport_compat }
    });
    let mysql = s.section("mysql").map(|m| {
        let addr = m.read("addr", scalar::socket);
        if addr.is_none() && m.get("addr").is_none() {
            m.missing("addr", "addr: 0.0.0.0:3306");
        }
        let server_version = m.read("server_version", server_version).flatten();
        m.finish();
        MysqlListener { addr: addr.unwrap_or(MysqlListener::default().addr), server_version }
    });
    let diag = s.section("diag").and_then(|d| {
        let addr = d.read("addr", scalar::socket);
        d.finish();
        addr
    });
    let mut admin_socket = None;
    if let Some(admin) = s.section("admin") {
        admin_socket = admin.read("unix", |t| match scalar::listen(t)? {
            Listen::Unix(path) if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX => {
                Err(format!("a socket path has at most {SOCKET_PATH_BYTES_MAX} bytes, this one {}", t.len()))
            }
            Listen::Unix(path) => Ok(path),
            Listen::Tcp(_) => Err(format!("`{t}` is not a path")),
        });
        admin.not_served(&["mode", "group"]);
        admin.finish();
    }
    let admin_socket = admin_socket.unwrap_or_else(|| data_dir.join("admin.sock"));
    if admin_socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        s.problem(
            Problem::new(
                s.mark().clone(),
                format!("the admin socket would be longer than {SOCKET_PATH_BYTES_MAX} bytes under this data_dir"),
            )
            .suggest("listeners: { admin: { unix: /run/ringgate/admin.sock } }"),
        );
    }
    let danger_plain = s.list("danger_plain").unwrap_or_default();
    let danger_plain = danger_plain.iter().enumerate().filter_map(|(i, node)| plain(&s, i, node)).collect();
    s.not_served(&["web", "mongodb", "proxy_protocol"]);
    let listeners = Listeners { postgres, redis, mysql, diag, admin_socket, danger_plain, movable: Vec::new() };
    same_address(&s, &listeners);
    s.finish();
    listeners
}

/// `auto`, or a version as servers write them: it goes into a packet, where a zero byte would end it.
fn server_version(text: &str) -> Result<Option<String>, String> {
    match text {
        "auto" => Ok(None),
        version if (1..=60).contains(&version.len()) && version.bytes().all(|b| b.is_ascii_graphic()) => {
            Ok(Some(version.to_owned()))
        }
        _ => Err(format!("`{text}` is not `auto` or a version like 8.4.0")),
    }
}

fn plain(parent: &Section<'_>, index: usize, node: &Node) -> Option<PlainListener> {
    let problems = RefCell::default();
    let name = parent.name(&format!("danger_plain[{index}]"));
    let s = Section::new(&name, node, &problems);
    let addr = s.read("addr", |t| match scalar::listen(t)? {
        Listen::Tcp(address) if !address.ip().is_loopback() => {
            Err(format!("`{t}` is not a loopback address, and this listener has no TLS (write 127.0.0.1:PORT)"))
        }
        listen => Ok(listen),
    });
    let protocol =
        s.choice("protocol", &[("postgres", "postgres"), ("redis", "redis"), ("mysql", "mysql"), ("mariadb", "mysql")]);
    let protocol = protocol.unwrap_or("postgres");
    let text = |key: &'static str| {
        let value = s.text(key);
        if value.is_none() {
            s.missing(key, &format!("{key}: NAME"));
        }
        value
    };
    let (database, user) = (text("database"), text("user"));
    let (db_user, db_name) = match protocol {
        // Both have a default in the protocol itself.
        "redis" => {
            let (user, name) = (s.text("db_user"), s.read("db_name", |t| scalar::number(t, 0, 999_999_999)));
            (user.or_else(|| Some("default".to_owned())), Some(name.unwrap_or(0).to_string()))
        }
        // A session without a database is a whole one.
        "mysql" => (text("db_user"), Some(s.text("db_name").unwrap_or_default())),
        _ => (text("db_user"), text("db_name")),
    };
    if s.get("addr").is_none() {
        s.missing("addr", "addr: 127.0.0.1:15432");
    }
    s.finish();
    problems.into_inner().into_iter().for_each(|p| parent.problem(p));
    Some(PlainListener {
        protocol: protocol.to_owned(),
        addr: addr?,
        database: database?,
        user: user?,
        db_user: db_user?,
        db_name: db_name?,
    })
}

fn same_address(s: &Section<'_>, listeners: &Listeners) {
    let mut taken: Vec<(String, SocketAddr)> = Vec::new();
    let all = listeners.postgres.iter().map(|p| ("postgres".to_owned(), p.addr));
    let all = all.chain(listeners.redis.iter().map(|r| ("redis".to_owned(), r.addr)));
    let all = all.chain(listeners.mysql.iter().map(|m| ("mysql".to_owned(), m.addr)));
    let all = all.chain(listeners.diag.iter().map(|addr| ("diag".to_owned(), *addr)));
    let plain = listeners.danger_plain.iter().enumerate().filter_map(|(i, p)| match p.addr {
        Listen::Tcp(addr) => Some((format!("danger_plain[{i}]"), addr)),
        Listen::Unix(_) => None,
    });
    for (name, addr) in all.chain(plain) {
        if addr.port() != 0
            && let Some((other, _)) = taken.iter().find(|(_, t)| *t == addr)
        {
            s.problem(
                Problem::new(
                    s.mark().clone(),
                    format!("listeners `{other}` and `{name}` have the same address {addr}"),
                )
                .suggest("give one of them another port"),
            );
        }
        taken.push((name, addr));
    }
}
