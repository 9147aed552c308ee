//! `db ls|login|connect|config|env|logout`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;

use ringgate_control::client::AdminClient;
use serde_json::{Value, json};

use super::arguments::{ConnectionFormat, RouteArguments};
use super::context::{Context, refused, time, unix_now};
use super::facts::Facts;
use super::failure::{Exit, Failure};
use super::login;
use super::output::{self, Format};
use crate::profile::Profile;

pub(super) fn list(
    context: &Context,
    search: Option<&str>,
    labels: Option<&str>,
    format: Format,
) -> Result<(), Failure> {
    let wanted = wanted_labels(labels)?;
    let login = context.login()?;
    let rows = AdminClient::new(&login.profile.admin_socket).list_databases(&login.cert_der).map_err(refused)?;
    let search = search.map(str::to_lowercase);
    let shown: Vec<Value> = rows
        .iter()
        .filter(|row| {
            let text = search
                .as_ref()
                .is_none_or(|s| row.name.to_lowercase().contains(s) || row.description.to_lowercase().contains(s));
            text && wanted.iter().all(|(key, value)| row.labels.get(*key).is_some_and(|v| v == value))
        })
        .map(|row| {
            json!({
                "name": row.name,
                "protocol": row.protocol,
                "description": row.description,
                "labels": row.labels,
                "allowed_users": row.allowed_users,
                "allowed_names": row.allowed_names,
                "connect": format!("ringgate db connect {}", row.name),
            })
        })
        .collect();
    let columns = [
        ("Name", "name"),
        ("Protocol", "protocol"),
        ("Description", "description"),
        ("Labels", "labels"),
        ("Allowed users", "allowed_users"),
        ("Connect", "connect"),
    ];
    output::list(format, &columns, &shown)
}

fn wanted_labels(labels: Option<&str>) -> Result<Vec<(&str, &str)>, Failure> {
    let pairs = labels.into_iter().flat_map(|l| l.split(',')).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            pair.split_once('=').ok_or_else(|| {
                Failure::new(Exit::Usage, format!("`{pair}` is not a label")).attempt("ringgate db ls env=prod,team=x")
            })
        })
        .collect()
}

pub(super) fn login(
    context: &Context,
    names: &[String],
    route: &RouteArguments,
    format: Format,
) -> Result<(), Failure> {
    let signed_in = context.login()?;
    let mut all = Vec::new();
    for name in names {
        all.push(login::login(context, &signed_in, name, route)?);
    }
    let rows: Vec<Value> = all.iter().map(Facts::json).collect();
    output::value(format, || all.iter().map(summary).collect(), &Value::Array(rows))
}

fn summary(facts: &Facts) -> String {
    let stem = facts.cert.with_extension("");
    format!(
        "certificate for {}@{}/{} valid until {}\nfiles      {}.{{crt,key,pem,pk8}}, ca.pem\n\
         connect    ringgate db connect {}\n",
        output::escape(&facts.user),
        facts.name,
        output::escape(&facts.database),
        time(facts.not_after_unix),
        stem.display(),
        facts.name
    )
}

/// Becomes the database's client: its exit status, and a death by signal, are seen as its own.
pub(super) fn connect(
    context: &Context,
    name: Option<&str>,
    route: &RouteArguments,
    client: &[OsString],
) -> Result<i32, Failure> {
    let profile = context.profile()?;
    let name = chosen(&profile, context, name)?;
    let facts = match login::valid(&profile, &context.home, &name, route) {
        Some(facts) => facts,
        None => login::login(context, &context.login()?, &name, route)?,
    };
    let error = facts.client(client).exec();
    let (program, package) = facts.protocol.client();
    Err(match error.kind() {
        std::io::ErrorKind::NotFound => {
            Failure::new(Exit::Failed, format!("the client {program} is not on this machine"))
                .why("no program of that name is in PATH")
                .attempt(format!("apt-get install {package}, or use another client with: ringgate db config {name}"))
        }
        _ => Failure::new(Exit::Failed, format!("cannot start {program}")).why(error),
    })
}

pub(super) fn config(context: &Context, name: Option<&str>, format: ConnectionFormat) -> Result<(), Failure> {
    current(context, name)?.print(format)
}

pub(super) fn env(context: &Context, name: Option<&str>, format: Format) -> Result<(), Failure> {
    let facts = current(context, name)?;
    let variables: serde_json::Map<String, Value> =
        facts.variables().into_iter().map(|(k, v)| (k.to_owned(), json!(v))).collect();
    output::value(format, || facts.exports(), &Value::Object(variables))
}

pub(super) fn logout(context: &Context, name: Option<&str>) -> Result<(), Failure> {
    let profile = context.profile()?;
    let names = match name {
        Some(name) => vec![name.to_owned()],
        None => login::names(&profile, &context.home),
    };
    for each in &names {
        if !login::forget(&profile, &context.home, each)? {
            return Err(Failure::new(Exit::NotFound, format!("not logged in to database \"{each}\"")));
        }
        context.note(&format!("removed  credentials of {each}"));
    }
    Ok(())
}

/// The stored login asked for, still valid.
fn current(context: &Context, name: Option<&str>) -> Result<Facts, Failure> {
    let profile = context.profile()?;
    let name = chosen(&profile, context, name)?;
    let facts = login::stored(&profile, &context.home, &name)?;
    if facts.not_after_unix <= unix_now() {
        return Err(Failure::new(Exit::NotLoggedIn, format!("the certificate for database \"{name}\" has expired"))
            .why(format!("it was valid until {}", time(facts.not_after_unix)))
            .attempt(format!("ringgate db login {name}")));
    }
    Ok(facts)
}

/// The named database, or the only one with a login.
fn chosen(profile: &Profile, context: &Context, name: Option<&str>) -> Result<String, Failure> {
    if let Some(name) = name {
        return Ok(name.to_owned());
    }
    let mut names = login::names(profile, &context.home);
    match (names.pop(), names.is_empty()) {
        (Some(name), true) => Ok(name),
        (Some(last), false) => {
            names.push(last);
            Err(Failure::new(Exit::Usage, "which database?").why(format!("logged in to {}", names.join(", "))))
        }
        (None, _) => Err(Failure::new(Exit::NotLoggedIn, "not logged in to any database").attempt("ringgate db ls")),
    }
}
