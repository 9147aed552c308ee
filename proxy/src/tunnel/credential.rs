//! The route certificate of the tunnel: held in memory, exchanged before it expires.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use zeroize::Zeroizing;

use super::{TunnelError, TunnelOptions};

/// A certificate with its key.
pub(crate) struct Credential {
    /// Certificate chain, PEM.
    pub(crate) cert_pem: String,
    /// Private key, PEM PKCS#8.
    pub(crate) key_pem: Zeroizing<String>,
    /// End of validity, seconds since 1970.
    pub(crate) not_after_unix: i64,
}

/// Gets the next certificate, or says why there is none.
pub(crate) type Renew = Box<dyn Fn() -> Result<Credential, String> + Send>;

/// Between two attempts to get a certificate.
const RETRY: Duration = Duration::from_secs(30);
/// Shortest time between two exchanges.
const PAUSE_MIN: Duration = Duration::from_secs(5);

pub(super) struct Client {
    pub(super) config: Arc<ClientConfig>,
    pub(super) server_name: ServerName<'static>,
    pub(super) current: Arc<Current>,
}

/// The certificate that new connections present.
#[derive(Debug)]
pub(super) struct Current(ArcSwap<CertifiedKey>);

impl ResolvesClientCert for Current {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The TLS configuration: our CA alone is trusted, ALPN is the protocol's own.
pub(super) fn client(options: &TunnelOptions) -> Result<Client, TunnelError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&options.ca_pem)? {
        roots.add(certificate).map_err(|e| TunnelError::Credential(e.to_string()))?;
    }
    let current = Arc::new(Current(ArcSwap::from_pointee(certified(&options.credential)?)));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| TunnelError::Credential(e.to_string()))?
        .with_root_certificates(roots)
        .with_client_cert_resolver(current.clone());
    config.alpn_protocols = options.speech.alpn();
    // A resumed session would keep the identity of the certificate it began with.
    config.resumption = rustls::client::Resumption::disabled();
    let server_name = ServerName::try_from(options.server_name.clone())
        .map_err(|_| TunnelError::Credential(format!("`{}` is not a host name", options.server_name)))?;
    Ok(Client { config: Arc::new(config), server_name, current })
}

/// Starts the thread that exchanges the certificate when two thirds of its life are over.
pub(super) fn keep_fresh(first: Credential, current: Arc<Current>, renew: Renew) {
    let mut not_after = first.not_after_unix;
    let keep = move || {
        loop {
            std::thread::sleep(until_exchange(not_after, unix_now()));
            match renew().and_then(|next| certified(&next).map(|key| (next, key)).map_err(|e| e.to_string())) {
                Ok((next, key)) => {
                    not_after = next.not_after_unix;
                    current.0.store(Arc::new(key));
                }
                Err(why) => {
                    tracing::warn!(%why, "the certificate was not renewed, new connections will fail once it expires");
                    std::thread::sleep(RETRY);
                }
            }
        }
    };
    if let Err(e) = std::thread::Builder::new().name("renew".to_owned()).spawn(keep) {
        tracing::warn!(err = %e, "the certificate will not be renewed");
    }
}

/// Two thirds of what is left, at least [`PAUSE_MIN`]: near the end of the login no certificate lasts longer.
fn until_exchange(not_after_unix: i64, now_unix: i64) -> Duration {
    let left = u64::try_from(not_after_unix.saturating_sub(now_unix)).unwrap_or(0);
    Duration::from_secs(left.saturating_mul(2) / 3).max(PAUSE_MIN)
}

fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn certified(credential: &Credential) -> Result<CertifiedKey, TunnelError> {
    let chain = certificates(&credential.cert_pem)?;
    let key = PrivateKeyDer::from_pem_slice(credential.key_pem.as_bytes())
        .map_err(|_| TunnelError::Credential("the key is not a PEM private key".to_owned()))?;
    CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider())
        .map_err(|e| TunnelError::Credential(e.to_string()))
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, TunnelError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => Err(TunnelError::Credential("the file holds no certificate".to_owned())),
        Err(e) => Err(TunnelError::Credential(e.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_exchanged_when_a_third_of_its_life_is_left() {
        assert_eq!(until_exchange(4600, 1000), Duration::from_secs(2400));
        assert_eq!(until_exchange(1000, 4600), PAUSE_MIN);
        assert_eq!(until_exchange(i64::MIN, i64::MAX), PAUSE_MIN);
    }
}
