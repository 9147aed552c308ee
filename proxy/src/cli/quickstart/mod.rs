//! `quickstart`: a whole gateway in one directory, made on the first start and served on loopback.
//!
//! ```text
//! D/ringgate.yaml   the configuration, 0600; from then on the user's to edit
//! D/state.db        cluster, authorities, users, roles, databases
//! D/audit/          the audit log
//! D/secrets/        0700; one 0600 file per password of a --db URI
//! D/home/           a profile signed in as the admin user, renewed at every start
//! ```

mod place;
mod register;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::KeyPair;
use ringgate_audit::{Event, SharedProducer};
use ringgate_control::{Actor, AuditSink, Authority, CaKind, ControlError, Options};
use ringgate_policy::Kind;
use serde_json::json;
use zeroize::Zeroizing;

use super::arguments::Quickstart;
use super::context::{Context, time};
use super::failure::{Exit, Failure, file};
use super::output;
use super::{login, serve};
use crate::config::{Config, MysqlListener, PostgresListener, RedisListener, parse_listen};
use crate::profile::{Gateway, Profile, private_dir, replace};
use crate::server::ReadyInfo;
use register::Registration;

/// Names of the listeners, and the ports taken when nothing else is asked for.
const POSTGRES: (&str, u16) = ("postgres", 5432);
const REDIS: (&str, u16) = ("redis", 6379);
const MYSQL: (&str, u16) = ("mysql", 3306);
const DIAG: (&str, u16) = ("diag", 3000);

pub(super) fn run(context: &Context, arguments: Quickstart) -> Result<i32, Failure> {
    let listeners = listeners(&arguments.listeners)?;
    let registrations = register::parse(&arguments.databases)?;
    check_user(&arguments.user)?;
    let place = place::open(&arguments.data_dir, &listeners)?;
    let mut config = Config::load(&place.config).map_err(|e| super::config::failure(e, Exit::Refused))?;
    take_addresses(context, &mut config, &listeners)?;
    serve::start_log(&config);

    let profile = prepare(context, &place, &config, &arguments.user, &registrations)?;
    let home = place.dir.join("home");
    let next = next_command(&arguments.data_dir, &registrations);
    let quiet = context.quiet();
    let mut announced = Ok(());
    let code = crate::server::run(config, |info| {
        announced = announce(profile, &home, info, &next, quiet);
    });
    let code = code.map_err(serve::refused)?;
    announced.map(|()| code)
}

/// What must stand before the server starts: cluster, user, databases, and the profile's credentials.
fn prepare(
    context: &Context,
    place: &place::Place,
    config: &Config,
    user: &str,
    registrations: &[Registration],
) -> Result<Profile, Failure> {
    let (_, recorder, log) = ringgate_audit::start(audit_options(config), 0, Vec::new())
        .map_err(|e| Failure::new(Exit::Refused, "cannot open the audit log").why(e))?;
    let authority = Authority::open(Options {
        data_dir: config.node.data_dir.clone(),
        cluster_name: config.node.cluster_name.clone(),
        user_cert_ttl: config.ca.user_cert_ttl,
        db_cert_ttl: config.ca.db_cert_ttl,
        static_databases: config.databases.clone(),
        cluster: ringgate_policy::ClusterSettings::default(),
        audit: Arc::new(Recorder(recorder)),
    })
    .map_err(refused)?;
    let cluster = authority.cluster_name().to_owned();
    let word = if place.fresh { "created" } else { "using  " };
    context.note(&format!("{word}  cluster \"{cluster}\"   CA pin {}", authority.ca_pin()));

    ensure_user(context, &authority, user)?;
    for registration in registrations {
        let yaml = register::document(registration, &place.dir.join("secrets"))?;
        authority.apply(&Actor::System, &yaml, true).map_err(refused)?;
        context.note(&format!("created  database \"{}\"", registration.name));
    }
    let profile = sign_in(&authority, config, &place.dir.join("home"), user)?;
    if place.fresh {
        let dir = place.dir.display();
        context.note(&format!("wrote    {dir}/ringgate.yaml, {dir}/home, {dir}/secrets (0600)"));
    }
    drop(authority);
    log.shutdown();
    Ok(profile)
}

fn audit_options(config: &Config) -> ringgate_audit::Options {
    let mut options = ringgate_audit::Options::new(&config.audit.dir);
    options.cluster_name = config.node.cluster_name.clone();
    options.server_id = config.node.name.clone();
    options
}

/// The authority's events of this phase go where the server's will.
struct Recorder(SharedProducer);

impl AuditSink for Recorder {
    fn record(&self, event: &str, code: &str, members: &str) {
        self.0.record(&Event::Other { event, code, members });
    }
}

/// An admin user that exists is left as it is.
fn ensure_user(context: &Context, authority: &Authority, user: &str) -> Result<(), Failure> {
    match authority.get(Kind::User, Some(user)) {
        Ok(_) => return Ok(()),
        Err(ControlError::NotFound { .. }) => {}
        Err(e) => return Err(refused(e)),
    }
    let document = json!({
        "kind": "user",
        "version": "v2",
        "metadata": { "name": user },
        "spec": {
            "roles": ["access", "editor"],
            "traits": { "db_users": ["*"], "db_names": ["*"], "db_roles": ["*"] },
        },
    });
    authority.apply(&Actor::System, &document.to_string(), false).map_err(refused)?;
    context.note(&format!("created  admin user \"{user}\""));
    Ok(())
}

/// A new key and login certificate at every start; the profile is complete but for the addresses.
fn sign_in(authority: &Authority, config: &Config, home: &Path, user: &str) -> Result<Profile, Failure> {
    private_dir(home).map_err(|e| file("make", home, &e))?;
    let wrong = |e: rcgen::Error| Failure::new(Exit::Failed, "cannot make a key").why(e);
    let key = KeyPair::generate().map_err(wrong)?;
    let request = login::request(&key).map_err(wrong)?;
    let issued = authority.issue_login(user, &request, None).map_err(refused)?;
    let profile = Profile {
        cluster: authority.cluster_name().to_owned(),
        user: user.to_owned(),
        admin_socket: config.listeners.admin_socket.clone(),
        audit_dir: Some(config.audit.dir.clone()),
        gateways: BTreeMap::new(),
        ca_file: home.join("ca.pem"),
        login_cert: home.join("login.crt"),
        login_key: home.join("login.key"),
    };
    let key_pem = Zeroizing::new(key.serialize_pem());
    let ca = authority.trust_pem(CaKind::Host);
    let files: [(&PathBuf, &[u8]); 3] = [
        (&profile.ca_file, ca.as_bytes()),
        (&profile.login_key, key_pem.as_bytes()),
        (&profile.login_cert, issued.cert_pem.as_bytes()),
    ];
    for (path, content) in files {
        replace(path, content).map_err(|e| file("write", path, &e))?;
    }
    tracing::info!(user, valid_until = time(issued.not_after_unix), "profile signed in");
    Ok(profile)
}

fn announce(mut profile: Profile, home: &Path, info: &ReadyInfo, next: &str, quiet: bool) -> Result<(), Failure> {
    for (name, address) in &info.listeners {
        let gateway = Gateway { host: "localhost".to_owned(), address: address.to_string(), port: address.port() };
        profile.gateways.insert(name.clone(), gateway);
    }
    profile.store(home).map_err(|e| file("write", &home.join("profile.json"), &e))?;
    output::note(quiet, &serve::summary(info));
    output::note(quiet, next);
    output::write(&serve::ready_line(info))
}

fn next_command(data_dir: &Path, registrations: &[Registration]) -> String {
    let home = data_dir.join("home");
    let home = output::shell_word(&home.display().to_string());
    match registrations.first() {
        None => format!("next     ringgate --home {home} db ls"),
        Some(first) => {
            let target = &first.target;
            let mut command = format!("next     ringgate --home {home} db connect {}", first.name);
            let mut flag = |name: &str, value: &str| {
                command.push_str(&format!(" {name} {}", output::shell_word(value)));
            };
            match target.protocol {
                // A session may be without a database.
                "mysql" => {
                    flag("--db-user", target.user.as_deref().unwrap_or("USER"));
                    target.database.iter().for_each(|database| flag("--db-name", database));
                }
                // User and number have their defaults in every part of the way.
                "redis" => {
                    target.user.iter().for_each(|user| flag("--db-user", user));
                    target.database.iter().for_each(|database| flag("--db-name", database));
                }
                _ => {
                    let user = target.user.as_deref().unwrap_or("USER");
                    flag("--db-user", user);
                    flag("--db-name", target.database.as_deref().unwrap_or(user));
                }
            }
            command
        }
    }
}

/// Addresses of `--listen`, by listener name.
fn listeners(arguments: &[String]) -> Result<BTreeMap<String, SocketAddr>, Failure> {
    let mut found = BTreeMap::new();
    for argument in arguments {
        let wrong = |why: String| Failure::new(Exit::Usage, format!("--listen {argument} is wrong")).why(why);
        let (name, address) = argument
            .split_once('=')
            .ok_or_else(|| wrong("it is not NAME=ADDR".to_owned()).attempt("--listen postgres=127.0.0.1:6432"))?;
        if ![POSTGRES.0, REDIS.0, MYSQL.0, DIAG.0].contains(&name) {
            return Err(wrong(format!("`{name}` is not one of postgres, redis, mysql, diag")));
        }
        let address = match parse_listen(address).map_err(wrong)? {
            crate::config::Listen::Tcp(address) => address,
            crate::config::Listen::Unix(_) => return Err(wrong("this listener has a TCP address".to_owned())),
        };
        if !address.ip().is_loopback() {
            return Err(wrong("quickstart serves on loopback only".to_owned())
                .attempt("edit `listeners` of ringgate.yaml and start it with: ringgate server -c FILE"));
        }
        if found.insert(name.to_owned(), address).is_some() {
            return Err(wrong(format!("`{name}` is given twice")));
        }
    }
    Ok(found)
}

/// Lays `--listen` over the configuration; a port of the configuration that is taken gives way to a free one.
fn take_addresses(context: &Context, config: &mut Config, asked: &BTreeMap<String, SocketAddr>) -> Result<(), Failure> {
    let take = |(name, port): (&str, u16), written: Option<SocketAddr>| {
        let written = written.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        if !written.ip().is_loopback() {
            return Err(Failure::new(Exit::Refused, format!("the configuration listens on {written}"))
                .why("quickstart serves on loopback only")
                .attempt("ringgate server -c DATA_DIR/ringgate.yaml"));
        }
        Ok(asked.get(name).copied().unwrap_or_else(|| free(context, name, written)))
    };
    let listeners = &mut config.listeners;
    // Another process may take a port between our look and the server's.
    listeners.movable = [POSTGRES.0, REDIS.0, MYSQL.0].into_iter().filter(|name| !asked.contains_key(*name)).collect();
    let addr = take(POSTGRES, listeners.postgres.as_ref().map(|p| p.addr))?;
    let cleartext_cancel = listeners.postgres.as_ref().is_none_or(|p| p.cleartext_cancel);
    listeners.postgres = Some(PostgresListener { addr, cleartext_cancel });
    let addr = take(REDIS, listeners.redis.as_ref().map(|r| r.addr))?;
    listeners.redis = Some(RedisListener { addr, ..listeners.redis.clone().unwrap_or_default() });
    let addr = take(MYSQL, listeners.mysql.as_ref().map(|m| m.addr))?;
    listeners.mysql = Some(MysqlListener { addr, ..listeners.mysql.clone().unwrap_or_default() });
    listeners.diag = Some(take(DIAG, listeners.diag)?);
    Ok(())
}

/// The address, or one with port 0 (any free port) when another process has it. Clients say `localhost`, so the port
/// must be free for both families.
fn free(context: &Context, name: &str, address: SocketAddr) -> SocketAddr {
    if address.port() == 0 {
        return address;
    }
    let other = SocketAddr::from((Ipv6Addr::LOCALHOST, address.port()));
    let taken = |e: std::io::Error| e.kind() == std::io::ErrorKind::AddrInUse;
    if TcpListener::bind(address).is_ok() && !TcpListener::bind(other).is_err_and(taken) {
        return address;
    }
    context.note(&format!("note     port {} is taken, {name} gets a free one", address.port()));
    SocketAddr::new(address.ip(), 0)
}

fn check_user(name: &str) -> Result<(), Failure> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '@');
    if name.is_empty() || name.len() > 63 || name.starts_with('.') || !name.chars().all(good) {
        return Err(Failure::new(Exit::Usage, "--user is wrong")
            .why("a user name has 1 to 63 letters, digits, `-`, `.`, `_` or `@`, and no dot in front"));
    }
    Ok(())
}

/// What the authority refused.
fn refused(error: ControlError) -> Failure {
    let mut failure = Failure::new(Exit::Refused, error.to_string());
    if let Some(why) = error.why() {
        failure = failure.why(why);
    }
    match error.hint() {
        Some(hint) => failure.attempt(hint),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_on_loopback_and_named_once() {
        let parse = |list: &[&str]| listeners(&list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        for name in ["postgres", "redis", "mysql", "diag"] {
            assert_eq!(parse(&[&format!("{name}=127.0.0.1:7")]).unwrap()[name], "127.0.0.1:7".parse().unwrap());
        }
        for wrong in [
            &["postgres"][..],
            &["postgres=0.0.0.0:7"],
            &["mongodb=127.0.0.1:7"],
            &["postgres=unix:///a"],
            &["diag=127.0.0.1:1", "diag=127.0.0.1:2"],
        ] {
            assert_eq!(parse(wrong).unwrap_err().exit, Exit::Usage, "{wrong:?}");
        }
    }

    #[test]
    fn the_next_command_says_what_the_uri_said_and_no_more() {
        let next = |argument: &str| next_command(Path::new("./gw"), &register::parse(&[argument.to_owned()]).unwrap());
        let start = "next     ringgate --home ./gw/home db connect";
        assert_eq!(next("o=postgres://app@localhost/x"), format!("{start} o --db-user app --db-name x"));
        assert_eq!(next("m=mysql://root@localhost/x"), format!("{start} m --db-user root --db-name x"));
        assert_eq!(next("m=mariadb://root@localhost"), format!("{start} m --db-user root"));
        assert_eq!(next("r=redis://:secret@localhost"), format!("{start} r"));
        assert_eq!(next("r=redis://alice:s@localhost/3"), format!("{start} r --db-user alice --db-name 3"));
    }

    #[test]
    fn user_names_are_safe_as_folder_names() {
        for good in ["admin", "a.b@example.com"] {
            assert!(check_user(good).is_ok(), "{good}");
        }
        for bad in ["", "..", "a/b", ".hidden", "a b"] {
            assert!(check_user(bad).is_err(), "{bad}");
        }
    }
}
