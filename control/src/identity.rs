//! The identity inside a client certificate of ours.
//!
//! The subject holds the user name as its only attribute, a common name. Everything else is JSON in one
//! extension, [`EXTENSION_OID`], as a DER `UTF8String`. The extension is not critical: webpki and OpenSSL
//! refuse critical extensions they do not know. Its JSON is closed, an unknown member is refused: a later
//! version may add a restriction that this one would not enforce.
//!
//! [`CertIdentity::from_certificate`] believes the certificate. Call it only on the leaf of a chain that was
//! verified against the `user` authority.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use x509_parser::asn1_rs::{FromDer as _, ToDer as _, Utf8String};
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, Oid};
use x509_parser::prelude::{X509Certificate, X509Version};

use crate::ControlError;

/// Where our facts are: 2.25 (the arc that needs no registration) and a number drawn once at random.
pub const EXTENSION_OID: [u64; 3] = [2, 25, 7_342_916_508_317_246_591];

/// A certificate larger than this is refused before it is read.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

/// Longest name or single value, bytes.
const NAME_BYTES_MAX: usize = 255;
/// Longest trait value, bytes.
const VALUE_BYTES_MAX: usize = 1024;
/// Most entries of any list.
const ENTRIES_MAX: usize = 256;

/// What a client certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertIdentity {
    /// Login, or login with a route to one database.
    pub kind: CertKind,
    /// Product user: the common name.
    pub user: String,
    /// Person or program.
    pub user_kind: UserKind,
    /// Role names at the time of login. Their present documents decide.
    pub roles: Vec<String>,
    /// Traits of the user.
    pub traits: BTreeMap<String, Vec<String>>,
    /// Active access-request ids.
    pub access_requests: Vec<String>,
    /// Ids of the only resources this certificate may reach; empty for no such limit.
    pub allowed_resources: Vec<String>,
    /// The database this certificate is for. `Some` exactly for [`CertKind::Route`].
    pub route: Option<Route>,
    /// Name of the cluster that issued it.
    pub cluster: String,
    /// The only address it may be used from.
    pub login_ip: Option<String>,
    /// Id of the second-factor device that was used.
    pub mfa_device: Option<String>,
    /// Id of the trusted device it was issued to.
    pub device: Option<String>,
    /// When the login behind it ends, seconds since 1970. A route certificate never lasts longer.
    pub login_not_after_unix: i64,
    /// No other certificate may be issued from this one.
    pub disallow_reissue: bool,
    /// Instance of the bot it was issued to.
    pub bot_instance: Option<String>,
    /// Serial number, lower-case hex.
    pub serial_hex: String,
    /// Start of validity, seconds since 1970.
    pub not_before_unix: i64,
    /// End of validity, seconds since 1970.
    pub not_after_unix: i64,
}

/// What a client certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertKind {
    /// Proves who somebody is to the control plane. Opens no database.
    Login,
    /// Opens the database of its route.
    Route,
}

/// Who is behind a user name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserKind {
    /// A person.
    #[default]
    Human,
    /// A program.
    Bot,
}

impl UserKind {
    /// `human` or `bot`, as audit records say it.
    pub fn as_str(self) -> &'static str {
        match self {
            UserKind::Human => "human",
            UserKind::Bot => "bot",
        }
    }
}

/// Which database a route certificate opens, and as whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Registered name of the database.
    pub service: String,
    /// `postgres`, `mysql`, `redis`, `mongodb`.
    pub protocol: String,
    /// Database user.
    pub db_user: String,
    /// Database name; empty where the protocol has none.
    pub db_name: String,
    /// Database roles asked for, for provisioned users.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub db_roles: Vec<String>,
    /// Database users allowed when it was issued, for display.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub db_users: Vec<String>,
    /// Database names allowed when it was issued, for display.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub db_names: Vec<String>,
}

/// Why a certificate is no identity of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// More than [`CERTIFICATE_BYTES_MAX`].
    #[error("the certificate is too large")]
    TooLarge,
    /// Not one whole X.509 version 3 certificate.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// Basic constraints say it is an authority.
    #[error("the certificate is an authority")]
    Authority,
    /// No `clientAuth`, or another use besides it.
    #[error("the certificate is not for clients")]
    WrongUse,
    /// A critical extension nobody here understands.
    #[error("the certificate has an unknown critical extension")]
    UnknownCritical,
    /// Our extension is missing.
    #[error("the certificate carries no identity of this product")]
    NoIdentity,
    /// The subject is not exactly one usable common name.
    #[error("the certificate names no user")]
    NoUser,
    /// Our extension cannot be read, is there twice, or breaks a bound.
    #[error("the identity in the certificate is malformed")]
    Malformed,
    /// Our extension is of a version this server does not know.
    #[error("the identity in the certificate is of an unknown version")]
    UnknownVersion,
}

impl From<IdentityError> for ControlError {
    fn from(e: IdentityError) -> Self {
        ControlError::Identity { why: e.to_string() }
    }
}

/// The JSON of the extension.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    v: u32,
    kind: CertKind,
    cluster: String,
    #[serde(default)]
    user_kind: UserKind,
    roles: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    traits: BTreeMap<String, Vec<String>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    access_requests: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    allowed_resources: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    route: Option<Route>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    login_ip: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mfa_device: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    login_not_after: i64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    disallow_reissue: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bot_instance: Option<String>,
}

const FACTS_VERSION: u32 = 1;

impl CertIdentity {
    /// Reads the identity of a verified leaf, DER. Checks size, use and every bound of our extension; whether
    /// the certificate is of this cluster and still valid is the caller's to ask ([`Self::is_valid_at`]).
    pub fn from_certificate(der: &[u8]) -> Result<CertIdentity, IdentityError> {
        if der.len() > CERTIFICATE_BYTES_MAX {
            return Err(IdentityError::TooLarge);
        }
        let (rest, cert) = X509Certificate::from_der(der).map_err(|_| IdentityError::Unreadable)?;
        if !rest.is_empty() || cert.version() != X509Version::V3 {
            return Err(IdentityError::Unreadable);
        }
        check_use(&cert)?;
        let user = only_common_name(&cert).ok_or(IdentityError::NoUser)?;
        let facts = facts_of(&cert)?;
        Ok(CertIdentity {
            kind: facts.kind,
            user,
            user_kind: facts.user_kind,
            roles: facts.roles,
            traits: facts.traits,
            access_requests: facts.access_requests,
            allowed_resources: facts.allowed_resources,
            route: facts.route,
            cluster: facts.cluster,
            login_ip: facts.login_ip,
            mfa_device: facts.mfa_device,
            device: facts.device,
            login_not_after_unix: facts.login_not_after,
            disallow_reissue: facts.disallow_reissue,
            bot_instance: facts.bot_instance,
            serial_hex: crate::hex::of(cert.raw_serial()),
            not_before_unix: cert.validity().not_before.timestamp(),
            not_after_unix: cert.validity().not_after.timestamp(),
        })
    }

    /// Whether `now_unix` lies inside the validity.
    pub fn is_valid_at(&self, now_unix: i64) -> bool {
        self.not_before_unix <= now_unix && now_unix < self.not_after_unix
    }

    /// The extension that carries this identity. Fails when a bound of the reader would refuse it.
    pub(crate) fn to_extension(&self) -> Result<rcgen::CustomExtension, ControlError> {
        let facts = Facts {
            v: FACTS_VERSION,
            kind: self.kind,
            cluster: self.cluster.clone(),
            user_kind: self.user_kind,
            roles: self.roles.clone(),
            traits: self.traits.clone(),
            access_requests: self.access_requests.clone(),
            allowed_resources: self.allowed_resources.clone(),
            route: self.route.clone(),
            login_ip: self.login_ip.clone(),
            mfa_device: self.mfa_device.clone(),
            device: self.device.clone(),
            login_not_after: self.login_not_after_unix,
            disallow_reissue: self.disallow_reissue,
            bot_instance: self.bot_instance.clone(),
        };
        let too_much = || ControlError::Certificate("the identity does not fit into a certificate".into());
        if !is_name(&self.user) || !facts.is_within_bounds() {
            return Err(too_much());
        }
        let json = serde_json::to_string(&facts).map_err(|_| too_much())?;
        // The rest of a certificate of ours takes less than a kibibyte.
        if json.len() > CERTIFICATE_BYTES_MAX - 1024 {
            return Err(too_much());
        }
        let der = Utf8String::from(json.as_str()).to_der_vec().map_err(|_| too_much())?;
        Ok(rcgen::CustomExtension::from_oid_content(&EXTENSION_OID, der))
    }
}

impl Facts {
    fn is_within_bounds(&self) -> bool {
        let names = |list: &[String]| list.len() <= ENTRIES_MAX && list.iter().all(|n| is_name(n));
        let optional = |n: &Option<String>| n.as_deref().is_none_or(is_name);
        is_name(&self.cluster)
            && names(&self.roles)
            && names(&self.access_requests)
            && names(&self.allowed_resources)
            && self.traits.len() <= ENTRIES_MAX
            && self.traits.iter().all(|(key, values)| {
                is_name(key)
                    && values.len() <= ENTRIES_MAX
                    && values.iter().all(|v| v.len() <= VALUE_BYTES_MAX && !v.chars().any(char::is_control))
            })
            && optional(&self.login_ip)
            && optional(&self.mfa_device)
            && optional(&self.device)
            && optional(&self.bot_instance)
            && match (self.kind, &self.route) {
                (CertKind::Login, None) => true,
                (CertKind::Route, Some(route)) => {
                    is_name(&route.service)
                        && is_name(&route.protocol)
                        && is_name(&route.db_user)
                        && (route.db_name.is_empty() || is_name(&route.db_name))
                        && names(&route.db_roles)
                        && names(&route.db_users)
                        && names(&route.db_names)
                }
                _ => false,
            }
    }
}

fn check_use(cert: &X509Certificate<'_>) -> Result<(), IdentityError> {
    if cert.basic_constraints().map_err(|_| IdentityError::Unreadable)?.is_some_and(|b| b.value.ca) {
        return Err(IdentityError::Authority);
    }
    let purposes = cert.extended_key_usage().map_err(|_| IdentityError::Unreadable)?;
    let only_client = purposes.is_some_and(|p| {
        let p = p.value;
        let another = p.server_auth
            || p.any
            || p.code_signing
            || p.email_protection
            || p.time_stamping
            || p.ocsp_signing
            || !p.other.is_empty();
        p.client_auth && !another
    });
    let signs = cert.key_usage().map_err(|_| IdentityError::Unreadable)?.is_some_and(|k| k.value.digital_signature());
    if !only_client || !signs {
        return Err(IdentityError::WrongUse);
    }
    let ours = own_oid();
    for extension in cert.extensions() {
        let unknown = matches!(
            extension.parsed_extension(),
            ParsedExtension::UnsupportedExtension { .. } | ParsedExtension::ParseError { .. }
        );
        if extension.critical && unknown && extension.oid != ours {
            return Err(IdentityError::UnknownCritical);
        }
    }
    Ok(())
}

fn only_common_name(cert: &X509Certificate<'_>) -> Option<String> {
    let mut attributes = cert.subject().iter_attributes();
    let attribute = attributes.next()?;
    if attributes.next().is_some() || *attribute.attr_type() != OID_X509_COMMON_NAME {
        return None;
    }
    let name = attribute.as_str().ok()?;
    is_name(name).then(|| name.to_owned())
}

fn facts_of(cert: &X509Certificate<'_>) -> Result<Facts, IdentityError> {
    let extension = cert
        .get_extension_unique(&own_oid())
        .map_err(|_| IdentityError::Malformed)?
        .ok_or(IdentityError::NoIdentity)?;
    let (rest, text) = Utf8String::from_der(extension.value).map_err(|_| IdentityError::Malformed)?;
    if !rest.is_empty() {
        return Err(IdentityError::Malformed);
    }
    /// Read first, so that a later version is named as such and not as malformed.
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let json = text.as_ref();
    let version: Version = serde_json::from_str(json).map_err(|_| IdentityError::Malformed)?;
    if version.v != FACTS_VERSION {
        return Err(IdentityError::UnknownVersion);
    }
    let facts: Facts = serde_json::from_str(json).map_err(|_| IdentityError::Malformed)?;
    if facts.is_within_bounds() { Ok(facts) } else { Err(IdentityError::Malformed) }
}

/// A name is 1 to 255 bytes without control characters; NUL is one.
fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

fn own_oid() -> Oid<'static> {
    // Three components that fit u64 always make an OID; an empty one matches no extension.
    Oid::from(&EXTENSION_OID).unwrap_or_else(|_| Oid::new(std::borrow::Cow::Borrowed(&[])))
}

#[cfg(test)]
mod tests;
