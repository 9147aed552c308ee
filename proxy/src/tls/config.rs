//! TLS configurations of both sides. The crypto provider is always passed explicitly.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};

use crate::config::KeyExchange;

/// The longest certificate chain a client may send (threat-model T4).
pub const CLIENT_CHAIN_MAX: usize = 4;

/// A certificate chain with its key.
pub type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The crypto provider of the whole process: aws-lc-rs, post-quantum key exchange first.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The same with the key exchange groups that `tls.kx` names, in its order.
fn provider_with(kx: &[KeyExchange]) -> Arc<CryptoProvider> {
    use rustls::crypto::aws_lc_rs::kx_group;
    let group = |kx: &KeyExchange| match kx {
        KeyExchange::X25519MlKem768 => kx_group::X25519MLKEM768,
        KeyExchange::X25519 => kx_group::X25519,
        KeyExchange::P256 => kx_group::SECP256R1,
        KeyExchange::P384 => kx_group::SECP384R1,
    };
    let kx_groups = kx.iter().map(group).collect();
    Arc::new(CryptoProvider { kx_groups, ..rustls::crypto::aws_lc_rs::default_provider() })
}

const BOTH_VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
const ONLY_13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// The configuration of a database listener: a client certificate of `client_roots` is required.
///
/// No session is ever resumed: a resumed handshake would skip the verifier, and with it expiry and trust
/// (threat-model T7).
pub fn server(
    identity: Identity,
    client_roots: &[CertificateDer<'static>],
    alpn: Option<&'static [u8]>,
    tls13_only: bool,
    kx: &[KeyExchange],
) -> Result<ServerConfig, Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(client_roots)?), provider())
        .build()
        .map_err(|e| Error::General(e.to_string()))?;
    let versions = if tls13_only { ONLY_13 } else { BOTH_VERSIONS };
    let mut config = ServerConfig::builder_with_provider(provider_with(kx))
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.0, identity.1)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
    Ok(config)
}

/// How far a database's certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Chain and name.
    Full,
    /// Chain only.
    Ca,
    /// Nothing but that the peer holds the key it shows.
    Nothing,
}

/// The configuration towards a database.
pub fn client(
    check: Check,
    trusted: &[CertificateDer<'static>],
    identity: Option<Identity>,
    alpn: Option<&'static [u8]>,
) -> Result<ClientConfig, Error> {
    let chain = || {
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots(trusted)?), provider())
            .build()
            .map_err(|e| Error::General(e.to_string()))
    };
    let algorithms = provider().signature_verification_algorithms;
    let verifier: Arc<dyn ServerCertVerifier> = match check {
        Check::Full => chain()?,
        Check::Ca => Arc::new(Relaxed { chain: Some(chain()?), algorithms }),
        Check::Nothing => Arc::new(Relaxed { chain: None, algorithms }),
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(BOTH_VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
    Ok(config)
}

fn roots(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store.add(certificate.clone())?;
    }
    Ok(store)
}

/// What `tls.mode` takes beside a full check: the peer always proves that it holds the key it shows.
#[derive(Debug)]
struct Relaxed {
    /// `verify-ca`: the chain counts, the name does not. `None` is `insecure`: any certificate.
    chain: Option<Arc<WebPkiServerVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Relaxed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        // webpki checks the chain before the name, so a name error means that the chain held.
        match chain.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
