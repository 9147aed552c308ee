//! `status` and `version`.

use ringgate_control::client::AdminClient;
use serde_json::{Value, json};

use super::context::{Context, Login, time, unix_now};
use super::failure::Failure;
use super::login;
use super::output::{self, Format, escape};

pub(super) fn status(context: &Context, format: Format) -> Result<(), Failure> {
    let login = context.login()?;
    let server = AdminClient::new(&login.profile.admin_socket).status();
    let identity = &login.identity;
    let value = json!({
        "profile": login.profile.cluster,
        "user": identity.user,
        "roles": identity.roles,
        "traits": identity.traits,
        "valid_until": time(identity.not_after_unix),
        "requests": identity.access_requests,
        "databases": databases(context, &login),
        "server": match &server {
            Ok(status) => status.clone(),
            Err(e) => json!({ "error": e.what, "why": e.why }),
        },
    });
    let text = || {
        let reach = match &server {
            Ok(_) => "answers".to_owned(),
            Err(e) => e.why.as_deref().map_or_else(|| e.what.clone(), |why| format!("{}: {why}", e.what)),
        };
        let logins: Vec<&str> =
            value["databases"].as_array().into_iter().flatten().filter_map(|d| d["name"].as_str()).collect();
        let logins = if logins.is_empty() { "none".to_owned() } else { logins.join(", ") };
        format!(
            "> {} @ {}   roles: {}\n> valid until {}   db logins: {logins}\n> server {}\n",
            escape(&identity.user),
            escape(&login.profile.cluster),
            escape(&identity.roles.join(", ")),
            time(identity.not_after_unix),
            escape(&reach)
        )
    };
    output::value(format, text, &value)
}

fn databases(context: &Context, login: &Login) -> Vec<Value> {
    login::names(&login.profile, &context.home)
        .iter()
        .filter_map(|name| login::stored(&login.profile, &context.home, name).ok())
        .map(|facts| {
            json!({
                "name": facts.name,
                "db_user": facts.user,
                "db_name": facts.database,
                "expires": time(facts.not_after_unix),
                "expired": facts.not_after_unix <= unix_now(),
            })
        })
        .collect()
}

pub(super) fn version(context: &Context, format: Format) -> Result<(), Failure> {
    // A server is asked where there is one; a client alone has a version too.
    let server = context.admin().ok().and_then(|admin| admin.version().ok());
    let client = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
        "tls_provider": "aws-lc-rs",
        "target": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        "drivers": ["io_uring", "epoll"],
        "driver_here": crate::server::driver_here(),
        "protocols": ["postgres", "redis", "mysql"],
        "minimum_kernel": "5.6 for io_uring",
    });
    let text = || {
        let mut text = format!(
            "ringgate {} ({}, {}, TLS by aws-lc-rs, I/O by {})\n",
            env!("CARGO_PKG_VERSION"),
            client["profile"].as_str().unwrap_or_default(),
            client["target"].as_str().unwrap_or_default(),
            client["driver_here"].as_str().unwrap_or_default()
        );
        if let Some(Value::Object(server)) = &server {
            let facts: Vec<String> = server
                .iter()
                .map(|(k, v)| format!("{k} {}", v.as_str().map_or_else(|| v.to_string(), str::to_owned)))
                .collect();
            text.push_str(&format!("server   {}\n", escape(&facts.join(" · "))));
        }
        text
    };
    output::value(format, text, &json!({ "client": client, "server": server }))
}
