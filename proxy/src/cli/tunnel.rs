//! `proxy db --tunnel`.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use super::arguments::ProxyDb;
use super::context::Context;
use super::facts::Protocol;
use super::failure::{Exit, Failure, file};
use super::login::{self, Route};
use crate::config::{Listen, parse_listen, resolve};
use crate::tunnel::{self, Credential, Speech, TunnelOptions};

pub(super) fn run(context: &Context, arguments: &ProxyDb) -> Result<(), Failure> {
    if !arguments.tunnel {
        return Err(Failure::new(Exit::Usage, "only --tunnel is served")
            .why("a client that brings its certificate connects to the gateway itself")
            .attempt(format!("ringgate proxy db --tunnel {}, or: ringgate db config {0}", arguments.name)));
    }
    let asked = asked(arguments)?;
    if let Some(Listen::Tcp(address)) = &asked
        && !address.ip().is_loopback()
    {
        if !arguments.insecure_listen_anywhere {
            return Err(Failure::new(Exit::Usage, format!("{address} can be reached by other machines"))
                .why("the tunnel lets in whoever connects, as you")
                .attempt("listen on 127.0.0.1, or add --insecure-listen-anywhere"));
        }
        context.note(&format!("warning: whoever reaches {address} uses the database as you"));
    }
    let signed_in = context.login()?;
    let route = login::issue(&signed_in, &arguments.name, &arguments.route)?;
    let issued = &route.issued;
    let protocol = Protocol::named(&issued.protocol)?;
    let gateway =
        signed_in.profile.gateways.get(&issued.protocol).ok_or_else(|| {
            Failure::new(Exit::Failed, format!("the gateway has no listener for {}", issued.protocol))
        })?;
    let address =
        resolve(&gateway.address).map_err(|why| Failure::new(Exit::Unreachable, "cannot find the gateway").why(why))?;
    let ca_path = &signed_in.profile.ca_file;
    let ca_pem = std::fs::read_to_string(ca_path).map_err(|e| file("read", ca_path, &e))?;
    let (user, database, name) = (issued.db_user.clone(), issued.db_name.clone(), arguments.name.clone());
    let options = TunnelOptions {
        listen: asked.unwrap_or_else(|| usual(protocol)),
        speech: match protocol {
            Protocol::Postgres => Speech::Postgres,
            Protocol::Redis => Speech::Redis,
            Protocol::Mysql => Speech::Mysql,
        },
        gateway: address,
        server_name: gateway.host.clone(),
        ca_pem,
        credential: credential(&route),
        renew: Box::new(renewal(context, arguments)),
    };
    let served = tunnel::run(options, |bound| {
        let reach = match bound {
            Listen::Tcp(_) => "plain, this machine only",
            Listen::Unix(_) => "plain, you only",
        };
        context.note(&format!("listening  {bound} ({reach})  →  {name} as {user}"));
        context.note(&format!("uri        {}", protocol.plain_uri(bound, &user, &database)));
        context.note("stop       Ctrl-C");
    });
    served.map_err(|e| Failure::new(Exit::Failed, e.to_string()))
}

fn credential(route: &Route) -> Credential {
    Credential {
        cert_pem: route.issued.cert_pem.clone(),
        key_pem: route.key_pem(),
        not_after_unix: route.issued.not_after_unix,
    }
}

/// The profile is read again each time: a new login is taken up by a running tunnel.
fn renewal(context: &Context, arguments: &ProxyDb) -> impl Fn() -> Result<Credential, String> + Send + use<> {
    let context = context.again();
    let (name, route) = (arguments.name.clone(), arguments.route.clone());
    move || {
        let signed_in = context.login().map_err(|e| e.render())?;
        login::issue(&signed_in, &name, &route).map(|route| credential(&route)).map_err(|e| e.render())
    }
}

/// Where the flags say to listen.
fn asked(arguments: &ProxyDb) -> Result<Option<Listen>, Failure> {
    let wrong = |why| Failure::new(Exit::Usage, "the address to listen on is wrong").why(why);
    if let Some(text) = &arguments.listen {
        return parse_listen(text).map(Some).map_err(wrong);
    }
    if let Some(path) = &arguments.unix {
        return std::path::absolute(path).map(|path| Some(Listen::Unix(path))).map_err(|e| wrong(e.to_string()));
    }
    Ok(arguments.port.map(|port| Listen::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))))
}

/// The protocol's own port when it is free, else any free one.
fn usual(protocol: Protocol) -> Listen {
    let own = SocketAddr::from((Ipv4Addr::LOCALHOST, protocol.port()));
    let free = TcpListener::bind(own).is_ok();
    Listen::Tcp(if free { own } else { SocketAddr::new(own.ip(), 0) })
}
