//! Authorize: policy is asked once, and its answer is recorded, yes or no, before it is acted on.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringgate_audit::event::Event;
use ringgate_control::identity::CertIdentity;
use ringgate_policy::{Identity, Permit, Request, Snapshot};
use ringgate_protocol::{Class, Protocol, RefusalKind};

use super::identify::Identified;
use super::{Ended, Session};
use crate::metrics::Reject;
use crate::plane::{Counted, SessionPlace};
use crate::worker::{About, Control};

/// Policy said yes.
pub struct Permitted<P: Protocol> {
    /// What went before.
    pub identified: Identified<P>,
    /// The proof.
    pub permit: Permit,
    /// The policy snapshot that gave it.
    pub policy_version: u64,
    /// The places among the user's and the database's sessions.
    pub places: Vec<SessionPlace>,
}

/// What the client is told whatever the reason: it may not learn which databases or rules there are.
const DENIED: &str = "access to the database was denied";
const DENIED_HINT: &str = "check the database user and the database name; ringgate db ls shows what you may reach";

impl<P: Protocol> Session<Identified<P>> {
    /// Asks policy whether this identity may reach its route's database as the user and with the name it asks for.
    pub(super) async fn authorize(mut self) -> Result<Session<Permitted<P>>, Box<Ended>> {
        let identity = self.state.identity.clone();
        let Some(route) = identity.route.as_ref() else {
            return Err(self.deny(Reject::Auth, "the certificate has no route", DENIED, DENIED_HINT));
        };
        let startup = &self.state.secured.startup;
        let db_user = if startup.user.is_empty() { route.db_user.clone() } else { startup.user.clone() };
        let db_name = if startup.database.is_empty() { route.db_name.clone() } else { startup.database.clone() };
        let replication = startup.replication;
        let facts = &mut self.trail.facts;
        facts.db_service.clone_from(&route.service);
        facts.db_user.clone_from(&db_user);
        facts.db_name.clone_from(&db_name);
        if self.core.plane.is_draining() {
            let message = "the gateway is shutting down";
            return Err(self.into_secured().refuse(RefusalKind::CannotConnectNow, Reject::Drain, message, message, ""));
        }
        if db_user != route.db_user {
            let why = format!("the certificate is for database user {:?}, not {db_user:?}", route.db_user);
            let hint =
                format!("connect as {}, or: ringgate db login {} --db-user {db_user}", route.db_user, route.service);
            return Err(self.deny(Reject::Policy, &why, "the certificate is for another database user", &hint));
        }
        let snapshot = self.core.newest_policy();
        let Some(database) = snapshot.database(&route.service).cloned() else {
            let why = format!("database {:?} is not registered", route.service);
            let message = format!("database \"{}\" is not known to the gateway", route.service);
            let hint = "see: ringgate db ls";
            return Err(self.into_secured().refuse(RefusalKind::UnknownDatabase, Reject::Policy, &why, &message, hint));
        };
        self.trail.facts.db_uri.clone_from(&database.uri);
        let permit = match permit(&snapshot, &identity, &route.service, &db_user, &db_name) {
            Ok(permit) => permit,
            Err(why) => return Err(self.deny(Reject::Policy, &why, DENIED, DENIED_HINT)),
        };
        if replication && !permit.commands().allows(Class::Replication as u8) {
            let why = "replication needs the right @replication, which no role of this session names";
            return Err(self.deny(
                Reject::Policy,
                why,
                "replication is not permitted",
                "ask for a role with @replication",
            ));
        }
        let limits = [
            ("max_connections", Counted::User(identity.user.clone()), permit.options().max_connections),
            ("limits.max_sessions", Counted::Database(database.name.clone()), database.limits.max_sessions),
        ];
        let mut places = Vec::with_capacity(limits.len());
        for (limit, whom, max) in limits {
            let Some(place) = self.core.plane.count(whom, max) else {
                // The refusal itself is the record that counts; this one names the limit.
                let _ = self.trail.record(&self.core, &Event::SessionRejected { reason: limit, maximum: max.into() });
                let (message, hint) = ("too many connections", "close another session first");
                let why = format!("{limit} {max}");
                return Err(self.into_secured().refuse(
                    RefusalKind::TooManyConnections,
                    Reject::Limit,
                    &why,
                    message,
                    hint,
                ));
            };
            places.push(place);
        }
        self.place.authorized();
        let policy_version = snapshot.version();
        Ok(self.step(|identified| Permitted { identified, permit, policy_version, places }))
    }

    fn deny(self, reject: Reject, why: &str, message: &str, hint: &str) -> Box<Ended> {
        self.into_secured().refuse(RefusalKind::NotAuthorized, reject, why, message, hint)
    }

    fn into_secured(self) -> Session<super::secure::Secured<P>> {
        self.step(|identified| identified.secured)
    }
}

/// The decision, with the reason for the audit when it is no.
fn permit(
    snapshot: &Arc<Snapshot>,
    identity: &CertIdentity,
    service: &str,
    db_user: &str,
    db_name: &str,
) -> Result<Permit, String> {
    let database = snapshot.database(service).ok_or("the database is not registered any more")?;
    if !identity.allowed_resources.is_empty() && !identity.allowed_resources.iter().any(|id| id == service) {
        return Err("the certificate is limited to other resources".into());
    }
    let who = Identity { user: &identity.user, roles: &identity.roles, traits: &identity.traits };
    let principal = snapshot.principal(&who).map_err(|e| e.to_string())?;
    let request = Request {
        database,
        db_user,
        db_name,
        mfa_verified: identity.mfa_device.is_some(),
        device_trusted: identity.device.is_some(),
    };
    principal.authorize(&request).map_err(|denied| denied.because.to_string())
}

/// Whether a live session would be let in again under `snapshot`.
pub fn still_allowed(control: &Control, snapshot: &Arc<Snapshot>) -> bool {
    let about = &control.about;
    let acting_as = control.acting_as.borrow();
    let user = acting_as.as_deref().unwrap_or(&about.db_user);
    permit_for(about, snapshot, user, &about.db_name).is_ok()
}

/// The decision about a live session that asks to be another user, or to reach another database of its server.
pub fn permit_for(about: &About, snapshot: &Arc<Snapshot>, db_user: &str, db_name: &str) -> Result<Permit, String> {
    permit(snapshot, &about.identity, &about.service, db_user, db_name)
}

impl<P: Protocol> Session<Permitted<P>> {
    /// What the session is about, for its handle.
    pub(super) fn about(&self) -> About {
        let Permitted { identified, permit, policy_version, .. } = &self.state;
        let options = permit.options();
        About {
            served: self.trail.served,
            identity: Rc::clone(&identified.identity),
            service: permit.database().name.clone(),
            db_user: permit.db_user().to_owned(),
            db_name: permit.db_name().to_owned(),
            policy_version: *policy_version,
            peer: self.peer.to_string(),
            idle_limit: options.client_idle_timeout.filter(|limit| *limit > Duration::ZERO),
            ends_on_expiry: options.disconnect_expired_cert,
        }
    }
}
