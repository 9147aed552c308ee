//! The four certificate authorities. Each signs one kind of leaf for one use, and nothing else.
//!
//! | Authority | Leaf | Extended key usage |
//! |---|---|---|
//! | `user` | login and route certificates of people and bots | clientAuth, with our identity extension |
//! | `host` | the gateway's own listeners | serverAuth |
//! | `db` | database servers | serverAuth |
//! | `db_client` | the gateway towards databases | clientAuth |
//!
//! `notBefore` is back-dated by [`CLOCK_SKEW`], so that a peer whose clock is a little slow accepts a fresh
//! certificate. No leaf outlives its authority.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;
use zeroize::Zeroizing;

use crate::ControlError;

/// How far `notBefore` lies before the moment of issue: the clock difference we allow a peer.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Life of an authority's own certificate: ten years.
const AUTHORITY_TTL: Duration = Duration::from_secs(3650 * 86_400);

/// A request for a certificate may have this many bytes.
const CSR_BYTES_MAX: usize = 16 * 1024;

/// Which authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CaKind {
    /// Signs login and route certificates.
    User,
    /// Signs the gateway's listeners.
    Host,
    /// Signs database servers.
    Db,
    /// Signs the gateway's client certificates towards databases.
    DbClient,
}

/// The one use a certificate has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertUse {
    /// Presented by whoever dials: extended key usage `clientAuth`.
    Client,
    /// Presented by whoever listens: extended key usage `serverAuth`.
    Server,
}

impl CaKind {
    /// All of them, in a fixed order.
    pub const ALL: [CaKind; 4] = [CaKind::User, CaKind::Host, CaKind::Db, CaKind::DbClient];

    /// The word used in commands, the store and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            CaKind::User => "user",
            CaKind::Host => "host",
            CaKind::Db => "db",
            CaKind::DbClient => "db_client",
        }
    }

    /// Reads [`Self::as_str`]; `db-client` is accepted too.
    pub fn parse(word: &str) -> Option<CaKind> {
        let word = if word == "db-client" { "db_client" } else { word };
        Self::ALL.into_iter().find(|k| k.as_str() == word)
    }

    /// The only use of the leaves this authority signs.
    pub fn leaf_use(self) -> CertUse {
        match self {
            CaKind::User | CaKind::DbClient => CertUse::Client,
            CaKind::Host | CaKind::Db => CertUse::Server,
        }
    }
}

impl fmt::Display for CaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a leaf says, apart from its key and its use.
pub(crate) struct Leaf<'a> {
    pub(crate) common_name: &'a str,
    /// DNS names and addresses, for servers.
    pub(crate) hosts: &'a [String],
    pub(crate) extension: Option<CustomExtension>,
    /// A server that proves itself as a client too.
    pub(crate) is_peer: bool,
    /// Seconds since 1970.
    pub(crate) now_unix: i64,
    /// Seconds since 1970.
    pub(crate) not_after_unix: i64,
}

/// A signed leaf.
pub(crate) struct Signed {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) serial_hex: String,
    pub(crate) not_after_unix: i64,
}

/// One authority with its key. `Debug` shows its kind alone.
pub(crate) struct CertificateAuthority {
    kind: CaKind,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    not_after_unix: i64,
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl CertificateAuthority {
    /// Makes a new authority; the second value is its key, PKCS#8 DER.
    pub(crate) fn generate(
        kind: CaKind,
        cluster: &str,
        now_unix: i64,
    ) -> Result<(Self, Zeroizing<Vec<u8>>), ControlError> {
        let key = KeyPair::generate()?;
        let secret = Zeroizing::new(key.serialize_der());
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(&format!("{cluster} {} CA", kind.as_str().replace('_', " ")));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(fresh_serial());
        set_validity(&mut params, now_unix, now_unix.saturating_add(AUTHORITY_TTL.as_secs() as i64));
        let certificate = params.self_signed(&key)?.der().clone();
        Ok((Self::with_key(kind, certificate, key)?, secret))
    }

    /// Takes up a stored authority. Fails when the key is not the certificate's.
    pub(crate) fn load(kind: CaKind, certificate: Vec<u8>, key_pkcs8: &[u8]) -> Result<Self, ControlError> {
        let key = KeyPair::try_from(key_pkcs8)?;
        Self::with_key(kind, CertificateDer::from(certificate), key)
    }

    fn with_key(kind: CaKind, certificate: CertificateDer<'static>, key: KeyPair) -> Result<Self, ControlError> {
        let (_, parsed) = X509Certificate::from_der(&certificate)
            .map_err(|_| ControlError::Certificate(format!("the {kind} authority's certificate cannot be read")))?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(ControlError::Certificate(format!("the {kind} authority's key is not its certificate's")));
        }
        let not_after_unix = parsed.validity().not_after.timestamp();
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { kind, certificate, issuer, not_after_unix })
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// End of its own certificate, seconds since 1970.
    pub(crate) fn not_after_unix(&self) -> i64 {
        self.not_after_unix
    }

    /// `sha256:` and the hex hash of the public key's SPKI, as printed by `cluster status`.
    pub(crate) fn pin(&self) -> String {
        let spki = self.issuer.key().subject_public_key_info();
        let mut pin = String::from("sha256:");
        crate::hex::push(&mut pin, digest::digest(&digest::SHA256, &spki).as_ref());
        pin
    }

    /// Signs `key` for the one use of this authority.
    pub(crate) fn sign(&self, key: &impl PublicKeyData, leaf: Leaf<'_>) -> Result<Signed, ControlError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(leaf.common_name);
        params.subject_alt_names = alternative_names(leaf.hosts)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match self.kind.leaf_use() {
            CertUse::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            CertUse::Server if leaf.is_peer => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            CertUse::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        };
        params.custom_extensions.extend(leaf.extension);
        params.use_authority_key_identifier_extension = true;
        let serial = fresh_serial();
        let serial_hex = crate::hex::of(&serial.to_bytes());
        params.serial_number = Some(serial);
        let not_after_unix = leaf.not_after_unix.min(self.not_after_unix);
        if not_after_unix <= leaf.now_unix {
            return Err(ControlError::Certificate("it would be expired at once".into()));
        }
        set_validity(&mut params, leaf.now_unix, not_after_unix);
        let der = params.signed_by(key, &self.issuer)?.der().clone();
        Ok(Signed { der, serial_hex, not_after_unix })
    }

    /// Checks that `der` is one whole certificate signed by this authority and valid at `now_unix`.
    pub(crate) fn verify(&self, der: &[u8], now_unix: i64) -> Result<(), ControlError> {
        let refuse = |why: &str| ControlError::Identity { why: why.into() };
        let (rest, leaf) = X509Certificate::from_der(der).map_err(|_| refuse("the certificate cannot be read"))?;
        if !rest.is_empty() {
            return Err(refuse("bytes follow the certificate"));
        }
        let (_, own) = X509Certificate::from_der(&self.certificate)
            .map_err(|_| ControlError::Certificate(format!("the {} authority cannot be read", self.kind)))?;
        if leaf.issuer().as_raw() != own.subject().as_raw() || leaf.verify_signature(Some(own.public_key())).is_err() {
            return Err(refuse("the certificate is not signed by this cluster's user authority"));
        }
        if leaf.is_ca() {
            return Err(refuse("the certificate is an authority"));
        }
        if now_unix < leaf.validity().not_before.timestamp() {
            return Err(refuse("the certificate is not valid yet"));
        }
        if now_unix >= leaf.validity().not_after.timestamp() {
            return Err(refuse("the certificate has expired"));
        }
        Ok(())
    }
}

/// The public key of a certificate request whose self-signature was checked: whoever made the request holds the key.
pub(crate) struct RequestedKey {
    spki_der: Vec<u8>,
    key: SubjectPublicKeyInfo,
}

impl RequestedKey {
    /// Reads a PKCS#10 request, PEM or DER. Everything it asks for besides its key is ignored.
    pub(crate) fn from_request(request: &[u8]) -> Result<Self, ControlError> {
        let refuse = |what: &str| ControlError::Request { what: format!("certificate request refused: {what}") };
        if request.len() > CSR_BYTES_MAX {
            return Err(refuse("it is larger than 16 KiB"));
        }
        let der = if request.starts_with(b"-----BEGIN") {
            use rustls_pki_types::pem::PemObject;
            rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(request)
                .map_err(|_| refuse("the PEM text cannot be read"))?
                .to_vec()
        } else {
            request.to_vec()
        };
        let (rest, parsed) =
            X509CertificationRequest::from_der(&der).map_err(|_| refuse("it is not a PKCS#10 request"))?;
        if !rest.is_empty() {
            return Err(refuse("bytes follow it"));
        }
        parsed.verify_signature().map_err(|_| refuse("its signature is not by its own key"))?;
        let spki = &parsed.certification_request_info.subject_pki;
        if let Ok(PublicKey::RSA(rsa)) = spki.parsed()
            && rsa.key_size() < 2048
        {
            return Err(refuse("RSA keys need 2048 bits"));
        }
        let key = SubjectPublicKeyInfo::from_der(spki.raw).map_err(|_| refuse("its key type is not supported"))?;
        Ok(Self { spki_der: spki.raw.to_vec(), key })
    }

    pub(crate) fn key(&self) -> &SubjectPublicKeyInfo {
        &self.key
    }

    /// Whether `certificate` (DER) is for this key.
    pub(crate) fn is_key_of(&self, certificate: &[u8]) -> bool {
        X509Certificate::from_der(certificate).is_ok_and(|(_, c)| c.public_key().raw == self.spki_der.as_slice())
    }
}

/// A fresh P-256 key for a certificate of our own; the DER is wiped with the value.
pub(crate) fn fresh_key() -> Result<(KeyPair, PrivateKeyDer<'static>), ControlError> {
    let key = KeyPair::generate()?;
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok((key, der))
}

/// DER certificates as PEM text.
pub(crate) fn to_pem(certificates: &[CertificateDer<'_>]) -> String {
    use base64::Engine as _;
    let mut text = String::new();
    for der in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        let mut rest = body.as_str();
        while !rest.is_empty() {
            let (line, tail) = rest.split_at(rest.len().min(64));
            text.push_str(line);
            text.push('\n');
            rest = tail;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

fn subject(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn alternative_names(hosts: &[String]) -> Result<Vec<SanType>, ControlError> {
    hosts
        .iter()
        .map(|host| match host.parse() {
            Ok(ip) => Ok(SanType::IpAddress(ip)),
            Err(_) if is_dns_name(host) => Ok(SanType::DnsName(host.as_str().try_into()?)),
            Err(_) => Err(ControlError::Request { what: format!("{host:?} is neither a host name nor an IP address") }),
        })
        .collect()
}

/// A DNS name, with `*` allowed as the whole first label.
fn is_dns_name(name: &str) -> bool {
    let labels = name.strip_prefix("*.").unwrap_or(name);
    name.len() <= 253
        && labels.split('.').all(|l| {
            (1..=63).contains(&l.len())
                && !l.starts_with('-')
                && !l.ends_with('-')
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

/// 122 random bits behind a fixed first byte, so that the DER integer is positive and always 16 bytes long.
fn fresh_serial() -> SerialNumber {
    let mut bytes = uuid::Uuid::new_v4().into_bytes();
    bytes[0] = 0x40 | (bytes[0] & 0x3f);
    SerialNumber::from_slice(&bytes)
}

/// Sets the validity, both ends in seconds since 1970; `from_unix` is back-dated by [`CLOCK_SKEW`].
fn set_validity(params: &mut CertificateParams, from_unix: i64, until_unix: i64) {
    let since_1970 = |unix: i64| Duration::from_secs(u64::try_from(unix).unwrap_or(0));
    let skew = CLOCK_SKEW.as_secs() as i64;
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_1970(from_unix.saturating_sub(skew));
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_1970(until_unix);
}

#[cfg(test)]
mod tests;
