//! Certificates for users: logins and routes.
//!
//! | Certificate | Life |
//! |---|---|
//! | login | the asked or configured time, the shortest `max_session_ttl` of the roles, at most 30 h |
//! | route | the asked or configured time, `max_session_ttl`, never beyond its login |
//!
//! Every certificate starts [`crate::CLOCK_SKEW`] before it is made.

use std::sync::Arc;
use std::time::Duration;

use ringgate_policy::{Database, DatabaseProtocol, Document, Identity, Kind, Principal, Request, Snapshot};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::actor::{Actor, record};
use crate::authority::now_unix;
use crate::ca::{Leaf, RequestedKey, to_pem};
use crate::identity::{CertIdentity, CertKind, Route, UserKind};
use crate::{Authority, CaKind, ControlError};

/// No login lasts longer.
pub const LOGIN_TTL_MAX: Duration = Duration::from_secs(30 * 3600);

/// A certificate issued to a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedCert {
    /// The certificate, PEM.
    pub cert_pem: String,
    /// The user it names.
    pub user: String,
    /// Role names it carries.
    pub roles: Vec<String>,
    /// Serial number, lower-case hex.
    pub serial_hex: String,
    /// End of validity, seconds since 1970.
    pub not_after_unix: i64,
}

/// A request for a route certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRequest {
    /// The login certificate, DER.
    pub login_cert_der: Vec<u8>,
    /// PKCS#10, DER or PEM, by the key of the login certificate.
    pub csr_der: Vec<u8>,
    /// Registered name of the database.
    pub service: String,
    /// Database user; may be left out when exactly one is allowed. Redis: left out, `default`.
    pub db_user: Option<String>,
    /// Database name; left out, the only allowed one, else the database user. Redis: a number; left out, 0.
    pub db_name: Option<String>,
    /// Asked life.
    pub ttl: Option<Duration>,
}

/// A route certificate and what a client needs beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedRoute {
    /// The certificate, PEM.
    pub cert_pem: String,
    /// What the client checks the gateway's listeners against, PEM.
    pub ca_pem: String,
    /// The user it names.
    pub user: String,
    /// Registered name of the database.
    pub service: String,
    /// `postgres`, `mysql`, `redis`, `mongodb`.
    pub protocol: String,
    /// Database user.
    pub db_user: String,
    /// Database name.
    pub db_name: String,
    /// Serial number, lower-case hex.
    pub serial_hex: String,
    /// End of validity, seconds since 1970.
    pub not_after_unix: i64,
}

/// A database as its user sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseRow {
    /// Registered name.
    pub name: String,
    /// `postgres`, `mysql`, `redis`, `mongodb`.
    pub protocol: String,
    /// Description of the resource.
    pub description: String,
    /// Labels.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Database users allowed, as roles write them: names, `*`, `glob:...`, `regex:...`.
    pub allowed_users: Vec<String>,
    /// Database names allowed, in the same forms.
    pub allowed_names: Vec<String>,
}

impl Authority {
    /// Issues a login certificate for a stored user and the key of `csr` (PKCS#10, PEM or DER). `ttl` asks for a
    /// life. Fails when the user or one of its roles does not exist.
    pub fn issue_login(&self, user: &str, csr: &[u8], ttl: Option<Duration>) -> Result<IssuedCert, ControlError> {
        self.issue_login_for(&Actor::System, user, csr, ttl)
    }

    /// [`Self::issue_login`], recorded as asked for by `who`: `user.login`, T1000I or T1000W, and `cert.create`.
    pub fn issue_login_for(
        &self,
        who: &Actor,
        user: &str,
        csr: &[u8],
        ttl: Option<Duration>,
    ) -> Result<IssuedCert, ControlError> {
        let issued = self.sign_login(who, user, csr, ttl);
        let (code, fields) = match &issued {
            Ok(_) => ("T1000I", json!({"user": user, "method": "operator", "success": true})),
            Err(e) => {
                let why = e.why().unwrap_or_else(|| e.to_string());
                ("T1000W", json!({"user": user, "method": "operator", "success": false, "error": why}))
            }
        };
        record(self.audit(), "user.login", code, who, fields);
        issued
    }

    fn sign_login(
        &self,
        who: &Actor,
        user: &str,
        csr: &[u8],
        ttl: Option<Duration>,
    ) -> Result<IssuedCert, ControlError> {
        let key = RequestedKey::from_request(csr)?;
        let (roles, traits) = {
            let state = self.state();
            match state.documents.get(&(Kind::User, user.to_owned())) {
                Some(Document::User(u)) if u.expires().is_none_or(|t| t > jiff::Timestamp::now()) => {
                    (u.roles().to_vec(), u.traits().clone())
                }
                _ => return Err(ControlError::NotFound { kind: "user".into(), name: user.into() }),
            }
        };
        let now = now_unix();
        let mut identity = CertIdentity {
            kind: CertKind::Login,
            user: user.to_owned(),
            user_kind: UserKind::Human,
            roles,
            traits,
            access_requests: Vec::new(),
            allowed_resources: Vec::new(),
            route: None,
            cluster: self.cluster_name().to_owned(),
            login_ip: None,
            mfa_device: None,
            device: None,
            login_not_after_unix: 0,
            disallow_reissue: false,
            bot_instance: None,
            serial_hex: String::new(),
            not_before_unix: 0,
            not_after_unix: 0,
        };
        let principal = self.principal(&identity)?;
        let asked = ttl.unwrap_or(self.inner().user_cert_ttl);
        let ttl = asked.min(principal.max_session_ttl()).min(LOGIN_TTL_MAX);
        identity.login_not_after_unix = after(now, ttl);
        let signed = self.sign_identity(&key, &identity, now, identity.login_not_after_unix)?;
        let fields = json!({
            "cert_type": "login", "user": user, "roles": identity.roles, "cert_serial": signed.serial_hex,
            "expires": rfc3339(signed.not_after_unix),
        });
        record(self.audit(), "cert.create", "TC000I", who, fields);
        Ok(IssuedCert {
            cert_pem: to_pem(&[signed.der]),
            user: identity.user,
            roles: identity.roles,
            serial_hex: signed.serial_hex,
            not_after_unix: signed.not_after_unix,
        })
    }

    /// Issues a certificate for one database to the holder of a login certificate. The same evaluator decides as
    /// at connection time. An unknown database and one the user may not see get the same answer.
    pub fn issue_route(&self, request: RouteRequest) -> Result<IssuedRoute, ControlError> {
        let login = self.verify_login(&request.login_cert_der)?;
        let key = RequestedKey::from_request(&request.csr_der)?;
        if !key.is_key_of(&request.login_cert_der) {
            return Err(ControlError::Identity {
                why: "the request is not signed by the key of the login certificate".into(),
            });
        }
        if login.disallow_reissue {
            let why = "the login certificate forbids further certificates".into();
            return Err(ControlError::Denied { what: "a database certificate".into(), why });
        }
        let snapshot = self.inner().publisher.load();
        let principal = principal_of(&snapshot, &login)?;
        let database = snapshot
            .database(&request.service)
            .filter(|db| principal.can_see(db))
            .ok_or_else(|| ControlError::NotFound { kind: "db".into(), name: request.service.clone() })?;
        let allowed_users = principal.allowed_users(database);
        let allowed_names = principal.allowed_names(database);
        let is_redis = database.protocol == DatabaseProtocol::Redis;
        let db_user = match request.db_user {
            Some(user) => user,
            // Redis' own name for who has not said one (access-model 2.8).
            None if is_redis => "default".to_owned(),
            None => only(&allowed_users)
                .ok_or_else(|| ControlError::Choose { what: "database user", choices: allowed_users.clone() })?,
        };
        let usual_name = || match database.protocol {
            DatabaseProtocol::Redis => "0".to_owned(),
            // A session without a database is a whole one.
            DatabaseProtocol::Mysql => String::new(),
            _ => db_user.clone(),
        };
        let db_name = request.db_name.or_else(|| only(&allowed_names)).unwrap_or_else(usual_name);
        if is_redis && (db_name.is_empty() || db_name.len() > 9 || !db_name.bytes().all(|b| b.is_ascii_digit())) {
            return Err(ControlError::Request { what: format!("the database of Redis is a number, not {db_name:?}") });
        }
        self.authorize(&principal, &login, database, &db_user, &db_name)?;

        let now = now_unix();
        let ttl = request.ttl.unwrap_or(self.inner().db_cert_ttl).min(principal.max_session_ttl());
        let not_after = after(now, ttl).min(login.not_after_unix).min(login.login_not_after_unix);
        let service = database.name.clone();
        let protocol = database.protocol.as_str().to_owned();
        let mut identity = login;
        identity.kind = CertKind::Route;
        identity.route = Some(Route {
            service: service.clone(),
            protocol: protocol.clone(),
            db_user: db_user.clone(),
            db_name: db_name.clone(),
            db_roles: Vec::new(),
            db_users: allowed_users,
            db_names: allowed_names,
        });
        let signed = self.sign_identity(&key, &identity, now, not_after)?;
        let fields = json!({
            "cert_type": "route", "roles": identity.roles, "cert_serial": signed.serial_hex,
            "login_serial": identity.serial_hex, "db_service": service, "db_protocol": protocol,
            "db_user": db_user, "db_name": db_name, "expires": rfc3339(signed.not_after_unix),
        });
        let user = identity.user.clone();
        record(self.audit(), "cert.create", "TC000I", &Actor::User(Box::new(identity)), fields);
        Ok(IssuedRoute {
            cert_pem: to_pem(&[signed.der]),
            ca_pem: self.trust_pem(CaKind::Host),
            user,
            service,
            protocol,
            db_user,
            db_name,
            serial_hex: signed.serial_hex,
            not_after_unix: signed.not_after_unix,
        })
    }

    /// The databases the holder of a login certificate (DER) may see, by name.
    pub fn list_databases(&self, login_cert_der: &[u8]) -> Result<Vec<DatabaseRow>, ControlError> {
        let login = self.verify_login(login_cert_der)?;
        let snapshot = self.inner().publisher.load();
        let principal = principal_of(&snapshot, &login)?;
        let mut rows: Vec<DatabaseRow> = snapshot
            .databases()
            .filter(|db| principal.can_see(db))
            .map(|db| DatabaseRow {
                name: db.name.clone(),
                protocol: db.protocol.as_str().to_owned(),
                description: db.description.clone(),
                labels: db.labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
                allowed_users: principal.allowed_users(db),
                allowed_names: principal.allowed_names(db),
            })
            .collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(rows)
    }

    /// Verifies a login certificate (DER): signed by the `user` authority, of this cluster, valid now, of kind
    /// login.
    pub fn verify_login(&self, der: &[u8]) -> Result<CertIdentity, ControlError> {
        // The bound on its size comes first: a signature is checked over all of it.
        if der.len() > crate::identity::CERTIFICATE_BYTES_MAX {
            return Err(crate::identity::IdentityError::TooLarge.into());
        }
        self.ca(CaKind::User)?.verify(der, now_unix())?;
        let identity = CertIdentity::from_certificate(der)?;
        let refuse = |why: &str| Err(ControlError::Identity { why: why.into() });
        if identity.cluster != self.cluster_name() {
            return refuse("the certificate is of another cluster");
        }
        if identity.kind != CertKind::Login {
            return refuse("the certificate is for a database, not a login");
        }
        Ok(identity)
    }

    /// The principal of an identity under the present snapshot.
    pub(crate) fn principal(&self, identity: &CertIdentity) -> Result<Principal, ControlError> {
        principal_of(&self.inner().publisher.load(), identity)
    }

    fn authorize(
        &self,
        principal: &Principal,
        login: &CertIdentity,
        database: &Arc<Database>,
        db_user: &str,
        db_name: &str,
    ) -> Result<(), ControlError> {
        let request = Request {
            database,
            db_user,
            db_name,
            mfa_verified: login.mfa_device.is_some(),
            device_trusted: login.device.is_some(),
        };
        match principal.authorize(&request) {
            Ok(_) => Ok(()),
            Err(denied) => {
                let why = denied.because.to_string();
                let what = format!("access to database {:?}", database.name);
                let fields = json!({
                    "success": false, "db_service": database.name, "db_user": db_user, "db_name": db_name,
                    "error": why,
                });
                record(self.audit(), "auth", "T3007W", &Actor::User(Box::new(login.clone())), fields);
                Err(ControlError::Denied { what, why })
            }
        }
    }

    fn sign_identity(
        &self,
        key: &RequestedKey,
        identity: &CertIdentity,
        now_unix: i64,
        not_after_unix: i64,
    ) -> Result<crate::ca::Signed, ControlError> {
        let leaf = Leaf {
            common_name: &identity.user,
            hosts: &[],
            extension: Some(identity.to_extension()?),
            is_peer: false,
            now_unix,
            not_after_unix,
        };
        let signed = self.ca(CaKind::User)?.sign(key.key(), leaf)?;
        // What our own reader would refuse is not handed out.
        CertIdentity::from_certificate(&signed.der)?;
        Ok(signed)
    }
}

/// The principal of an identity. One with a role that does not exist has none.
fn principal_of(snapshot: &Snapshot, identity: &CertIdentity) -> Result<Principal, ControlError> {
    let whose = Identity { user: &identity.user, roles: &identity.roles, traits: &identity.traits };
    let principal = snapshot.principal(&whose).map_err(|unknown| ControlError::Denied {
        what: format!("access of user {:?}", identity.user),
        why: unknown.to_string(),
    })?;
    Ok(match identity.allowed_resources.as_slice() {
        [] => principal,
        only => principal.limited_to(only.iter().cloned()),
    })
}

pub(crate) fn after(now_unix: i64, ttl: Duration) -> i64 {
    now_unix.saturating_add(i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX))
}

pub(crate) fn rfc3339(unix: i64) -> String {
    jiff::Timestamp::from_second(unix).map_or_else(|_| unix.to_string(), |t| t.to_string())
}

/// The only entry, unless it stands for more than one name.
fn only(allowed: &[String]) -> Option<String> {
    match allowed {
        [one] if one != "*" && !one.starts_with("glob:") && !one.starts_with("regex:") => Some(one.clone()),
        _ => None,
    }
}
