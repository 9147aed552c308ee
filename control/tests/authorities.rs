//! Every authority against every use, through real TLS handshakes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test program.

mod cluster;

use std::sync::Arc;
use std::time::Duration;

use cluster::{Cluster, PEOPLE, der};
use ringgate_control::identity::CertIdentity;
use ringgate_control::{Actor, CaKind, CertUse};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

const HOST: &str = "db.example.com";

type Credentials = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A leaf of each authority, as the product issues it.
fn leaves(c: &Cluster) -> Vec<(CaKind, Credentials)> {
    let hosts = vec![HOST.to_owned()];
    let person = c.login("alice");
    let user_key = PrivateKeyDer::try_from(person.key.serialize_der()).unwrap();
    let server = c.authority.sign_database_server(&Actor::System, &hosts, Duration::from_secs(3600), false).unwrap();
    let server_key = PrivateKeyDer::from_pem_slice(server.key_pem.as_bytes()).unwrap();
    vec![
        (CaKind::User, (vec![der(&person.cert.cert_pem)], user_key)),
        (CaKind::Host, c.authority.listener_certificate(&hosts).unwrap()),
        (CaKind::Db, (vec![der(&server.cert_pem)], server_key)),
        (CaKind::DbClient, c.authority.backend_client_certificate(HOST, Duration::from_secs(60)).unwrap()),
    ]
}

fn roots(c: &Cluster, ca: CaKind) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in c.authority.trust(ca) {
        roots.add(certificate).unwrap();
    }
    Arc::new(roots)
}

/// Whether a handshake succeeds on both sides.
fn shake(server: ServerConfig, client: ClientConfig) -> bool {
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), HOST.try_into().unwrap()).unwrap();
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        server.read_tls(&mut bytes.as_slice()).unwrap();
        if server.process_new_packets().is_err() {
            return false;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        client.read_tls(&mut bytes.as_slice()).unwrap();
        if client.process_new_packets().is_err() {
            return false;
        }
        if !client.is_handshaking() && !server.is_handshaking() {
            return true;
        }
    }
    false
}

fn clone(credentials: &Credentials) -> Credentials {
    (credentials.0.clone(), credentials.1.clone_key())
}

#[test]
fn a_leaf_serves_the_one_use_of_its_own_authority_and_no_other() {
    let c = Cluster::new();
    c.apply(PEOPLE);
    let leaves = leaves(&c);
    let listener = c.authority.listener_certificate(&[HOST.to_owned()]).unwrap();
    for (signer, credentials) in &leaves {
        for trusted in CaKind::ALL {
            let verifier = WebPkiClientVerifier::builder(roots(&c, trusted)).build().unwrap();
            let (chain, key) = clone(&listener);
            let server =
                ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
            let (chain, key) = clone(credentials);
            let client = ClientConfig::builder()
                .with_root_certificates(roots(&c, CaKind::Host))
                .with_client_auth_cert(chain, key)
                .unwrap();
            let good = *signer == trusted && signer.leaf_use() == CertUse::Client;
            assert_eq!(shake(server, client), good, "leaf of {signer} as client where {trusted} is trusted");

            let (chain, key) = clone(credentials);
            let server = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
            let client = ClientConfig::builder().with_root_certificates(roots(&c, trusted)).with_no_client_auth();
            let good = *signer == trusted && signer.leaf_use() == CertUse::Server;
            assert_eq!(shake(server, client), good, "leaf of {signer} as server where {trusted} is trusted");
        }
    }
}

#[test]
fn only_a_leaf_of_the_user_authority_is_an_identity() {
    let c = Cluster::new();
    c.apply(PEOPLE);
    for (signer, (chain, _)) in leaves(&c) {
        let is_identity = CertIdentity::from_certificate(&chain[0]).is_ok();
        assert_eq!(is_identity, signer == CaKind::User, "{signer}");
        assert_eq!(c.authority.verify_login(&chain[0]).is_ok(), signer == CaKind::User, "{signer}");
    }
}

#[test]
fn a_login_of_another_cluster_is_refused() {
    let (ours, theirs) = (Cluster::new(), Cluster::new());
    theirs.apply(PEOPLE);
    let login = theirs.login("alice").login;
    assert!(theirs.authority.verify_login(&login).is_ok());
    assert_eq!(ours.authority.verify_login(&login).unwrap_err().code(), 3);
}

#[test]
fn authorities_and_their_pin_survive_a_restart() {
    let c = Cluster::new();
    let before: Vec<String> = CaKind::ALL.into_iter().map(|k| c.authority.trust_pem(k)).collect();
    let pin = c.authority.ca_pin();
    let (dir, audit) = (c.dir, c.audit);
    drop(c.authority);
    let again = ringgate_control::Authority::open(cluster::options(dir.path(), audit)).unwrap();
    let after: Vec<String> = CaKind::ALL.into_iter().map(|k| again.trust_pem(k)).collect();
    assert_eq!(before, after);
    assert_eq!(again.ca_pin(), pin);
    assert!(pin.starts_with("sha256:") && pin.len() == 71, "{pin}");
}
