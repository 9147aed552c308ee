//! Certificates that the gateway never issued: the corpus of wrong ones.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// A certificate and its key, PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Why it must be refused.
    pub why: &'static str,
    /// Certificate chain.
    pub certificate: String,
    /// Private key.
    pub key: String,
}

fn leaf(name: &str, usage: &[ExtendedKeyUsagePurpose]) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = usage.to_vec();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA")
}

/// Certificates for `user` that nobody may accept, among them one of a CA that only calls itself `issuer`.
pub fn foreign(user: &str, issuer: &str) -> Vec<Pair> {
    let client = [ExtendedKeyUsagePurpose::ClientAuth];
    let server = [ExtendedKeyUsagePurpose::ServerAuth];
    let stranger = authority("stranger");
    let impostor = authority(issuer);
    let signed = |why, params: CertificateParams, by: &CertifiedIssuer<'static, KeyPair>| {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, by).expect("a certificate");
        Pair { why, certificate: certificate.pem() + &by.pem(), key: key.serialize_pem() }
    };
    let mut expired = leaf(user, &client);
    expired.not_before = rcgen::date_time_ymd(2020, 1, 1);
    expired.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let mut future = leaf(user, &client);
    future.not_before = rcgen::date_time_ymd(2090, 1, 1);
    future.not_after = rcgen::date_time_ymd(2091, 1, 1);
    let alone = KeyPair::generate().expect("a key");
    let self_signed = leaf(user, &client).self_signed(&alone).expect("a certificate");
    vec![
        signed("signed by another CA", leaf(user, &client), &stranger),
        signed("signed by a CA with the right name and the wrong key", leaf(user, &client), &impostor),
        signed("usage is server", leaf(user, &server), &impostor),
        signed("no usage at all", leaf(user, &[]), &impostor),
        signed("expired", expired, &impostor),
        signed("not yet valid", future, &impostor),
        Pair { why: "signed by itself", certificate: self_signed.pem(), key: alone.serialize_pem() },
    ]
}
