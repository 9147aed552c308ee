//! Identify: who the verified certificate says the client is.

use std::net::IpAddr;
use std::rc::Rc;

use ringgate_control::identity::{CertIdentity, CertKind, Route, UserKind};
use ringgate_protocol::{Protocol, RefusalKind};

use super::secure::Secured;
use super::{Ended, Session};
use crate::metrics::Reject;
use crate::plane::{Peer, PlainRoute};
use crate::tls::config::CLIENT_CHAIN_MAX;
use crate::worker::unix_us;

/// The client is known.
pub struct Identified<P: Protocol> {
    /// What went before.
    pub secured: Secured<P>,
    /// Who it is, and by which route it comes.
    pub identity: Rc<CertIdentity>,
}

impl<P: Protocol> Session<Secured<P>> {
    /// Takes the identity from the certificate that the TLS handshake has verified, and from nothing else.
    pub(super) fn identify(mut self) -> Result<Session<Identified<P>>, Box<Ended>> {
        let identity = match self.listener.plain.clone() {
            Some(route) => fixed(&route, self.core.plane.authority.cluster_name()),
            None => match self.certificate() {
                Ok(identity) => identity,
                Err(why) => {
                    let message = "authentication failed";
                    let hint = "a certificate of this gateway is needed: ringgate db login";
                    return Err(self.refuse(RefusalKind::NotAuthorized, Reject::Auth, &why, message, hint));
                }
            },
        };
        let facts = &mut self.trail.facts;
        facts.user.clone_from(&identity.user);
        facts.user_kind = identity.user_kind.as_str();
        facts.roles.clone_from(&identity.roles);
        facts.access_requests.clone_from(&identity.access_requests);
        facts.cert_serial.clone_from(&identity.serial_hex);
        let identity = Rc::new(identity);
        Ok(self.step(|secured| Identified { secured, identity }))
    }

    fn certificate(&self) -> Result<CertIdentity, String> {
        let tls = self.client.tls.as_ref().ok_or("no TLS")?;
        if tls.peer_chain_len() > CLIENT_CHAIN_MAX {
            return Err("the certificate chain is too long".into());
        }
        let leaf = tls.peer_certificate().ok_or("no client certificate")?;
        let identity = CertIdentity::from_certificate(leaf).map_err(|e| e.to_string())?;
        let now = i64::try_from(unix_us() / 1_000_000).unwrap_or(i64::MAX);
        if !identity.is_valid_at(now) {
            return Err("the certificate is not valid at this time".into());
        }
        if identity.cluster != self.core.plane.authority.cluster_name() {
            return Err("the certificate is of another cluster".into());
        }
        if identity.kind != CertKind::Route {
            return Err("the certificate is not for a database connection".into());
        }
        match &identity.route {
            Some(route) if route.protocol == P::NAME => {}
            _ => return Err("the certificate's route is for another protocol".into()),
        }
        if let (Some(pinned), Peer::Tcp(peer)) = (&identity.login_ip, &self.peer)
            && pinned.parse::<IpAddr>().ok() != Some(peer.ip().to_canonical())
        {
            return Err("the certificate is pinned to another address".into());
        }
        Ok(identity)
    }
}

/// The identity of a listener that knows no certificates.
fn fixed(route: &PlainRoute, cluster: &str) -> CertIdentity {
    CertIdentity {
        kind: CertKind::Route,
        user: route.user.clone(),
        user_kind: UserKind::Human,
        roles: route.roles.clone(),
        traits: route.traits.clone(),
        access_requests: Vec::new(),
        route: Some(Route {
            service: route.service.clone(),
            protocol: String::new(),
            db_user: route.db_user.clone(),
            db_name: route.db_name.clone(),
            db_roles: Vec::new(),
            db_users: Vec::new(),
            db_names: Vec::new(),
        }),
        allowed_resources: Vec::new(),
        mfa_device: None,
        device: None,
        login_not_after_unix: i64::MAX,
        disallow_reissue: true,
        bot_instance: None,
        cluster: cluster.to_owned(),
        login_ip: None,
        serial_hex: String::new(),
        not_after_unix: i64::MAX,
        not_before_unix: 0,
    }
}

/// An identity for tests of the pump.
#[cfg(test)]
pub fn tests_identity() -> CertIdentity {
    let route = PlainRoute {
        user: "alice".into(),
        roles: Vec::new(),
        traits: std::collections::BTreeMap::new(),
        service: "db".into(),
        db_user: "app".into(),
        db_name: "app".into(),
    };
    fixed(&route, "test")
}
