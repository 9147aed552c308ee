//! Certificates for servers: our listeners, our side of a database connection, the databases themselves.
//!
//! | Certificate | Life |
//! |---|---|
//! | listener | 30 days, made anew at every start |
//! | backend client | what the caller asks, at most 1 h |
//! | database server | what the operator asks, at most 10 years |

use std::time::Duration;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use crate::actor::{Actor, record};
use crate::authority::now_unix;
use crate::ca::{Leaf, fresh_key, to_pem};
use crate::issue::{after, rfc3339};
use crate::{Authority, CaKind, ControlError};

/// Life of a listener certificate.
pub const LISTENER_TTL: Duration = Duration::from_secs(30 * 86_400);
/// No client certificate towards a database lasts longer.
pub const BACKEND_TTL_MAX: Duration = Duration::from_secs(3600);
/// No database server certificate lasts longer.
pub const SERVER_TTL_MAX: Duration = Duration::from_secs(3650 * 86_400);

/// What a database server needs to prove itself to us and to check us.
#[derive(Serialize, Deserialize)]
pub struct ServerFiles {
    /// Private key, PKCS#8 PEM.
    #[serde(with = "wiped")]
    pub key_pem: Zeroizing<String>,
    /// Certificate, PEM.
    pub cert_pem: String,
    /// The authorities whose client certificates the database must trust, PEM: the one that signs ours, and for a peer
    /// the one that signed its own.
    pub cas_pem: String,
    /// Serial number, lower-case hex.
    pub serial_hex: String,
    /// End of validity, seconds since 1970.
    pub not_after_unix: i64,
}

impl std::fmt::Debug for ServerFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerFiles").field("serial_hex", &self.serial_hex).finish_non_exhaustive()
    }
}

impl Authority {
    /// A certificate and key for our own listeners; the first host is the common name, all are alternative names
    /// (DNS names, `*.name`, IP addresses).
    pub fn listener_certificate(
        &self,
        hosts: &[String],
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), ControlError> {
        let first = hosts.first().ok_or(ControlError::Choose { what: "host name", choices: Vec::new() })?;
        self.own_certificate(CaKind::Host, first, hosts, LISTENER_TTL)
    }

    /// A client certificate and key that signs us in to a database as `db_user`, the common name. `ttl` is cut
    /// to [`BACKEND_TTL_MAX`].
    pub fn backend_client_certificate(
        &self,
        db_user: &str,
        ttl: Duration,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), ControlError> {
        if db_user.is_empty() || db_user.len() > 255 || db_user.chars().any(char::is_control) {
            return Err(ControlError::Request { what: "the database user cannot stand in a certificate".into() });
        }
        self.own_certificate(CaKind::DbClient, db_user, &[], ttl.min(BACKEND_TTL_MAX))
    }

    /// Key, certificate and client authority for a self-hosted database; the first host is the common name.
    /// `ttl` is cut to [`SERVER_TTL_MAX`]. With `peer` the certificate also proves a client, and the servers signed here
    /// are trusted as such: replicas and the nodes of a Redis Cluster dial one another (access-model 2.7). Recorded as
    /// `ca.sign`.
    pub fn sign_database_server(
        &self,
        who: &Actor,
        hosts: &[String],
        ttl: Duration,
        peer: bool,
    ) -> Result<ServerFiles, ControlError> {
        self.permit(who, "cert_authority", "create")?;
        let first = hosts.first().ok_or(ControlError::Choose { what: "host name", choices: Vec::new() })?;
        let (key, _) = fresh_key()?;
        let now = now_unix();
        let leaf = Leaf {
            common_name: first,
            hosts,
            extension: None,
            is_peer: peer,
            now_unix: now,
            not_after_unix: after(now, ttl.min(SERVER_TTL_MAX)),
        };
        let signed = self.ca(CaKind::Db)?.sign(&key, leaf)?;
        let fields = json!({
            "ca": CaKind::Db.as_str(), "hosts": hosts, "peer": peer, "cert_serial": signed.serial_hex,
            "expires": rfc3339(signed.not_after_unix),
        });
        record(self.audit(), "ca.sign", "TCX01I", who, fields);
        Ok(ServerFiles {
            key_pem: Zeroizing::new(key.serialize_pem()),
            cert_pem: to_pem(&[signed.der]),
            cas_pem: match peer {
                false => self.trust_pem(CaKind::DbClient),
                true => self.trust_pem(CaKind::DbClient) + &self.trust_pem(CaKind::Db),
            },
            serial_hex: signed.serial_hex,
            not_after_unix: signed.not_after_unix,
        })
    }

    fn own_certificate(
        &self,
        kind: CaKind,
        common_name: &str,
        hosts: &[String],
        ttl: Duration,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), ControlError> {
        let (key, der) = fresh_key()?;
        let now = now_unix();
        let leaf = Leaf {
            common_name,
            hosts,
            extension: None,
            is_peer: false,
            now_unix: now,
            not_after_unix: after(now, ttl),
        };
        Ok((vec![self.ca(kind)?.sign(&key, leaf)?.der], der))
    }
}

/// The private key on its way to the command line.
mod wiped {
    use serde::{Deserialize, Deserializer, Serializer};
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: Serializer>(text: &Zeroizing<String>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
        String::deserialize(deserializer).map(Zeroizing::new)
    }
}
