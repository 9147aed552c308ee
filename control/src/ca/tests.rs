use super::*;

const NOW: i64 = 1_700_000_000;

fn authority(kind: CaKind) -> CertificateAuthority {
    CertificateAuthority::generate(kind, "gw", NOW).unwrap().0
}

fn leaf(ca: &CertificateAuthority, now_unix: i64, not_after_unix: i64) -> Signed {
    let leaf = Leaf { common_name: "alice", hosts: &[], extension: None, is_peer: false, now_unix, not_after_unix };
    ca.sign(&KeyPair::generate().unwrap(), leaf).unwrap()
}

#[test]
fn verifies_its_own_leaves_inside_their_validity_alone() {
    let ca = authority(CaKind::User);
    let signed = leaf(&ca, NOW, NOW + 600);
    for (now, good) in [(NOW - 61, false), (NOW - 60, true), (NOW, true), (NOW + 599, true), (NOW + 600, false)] {
        assert_eq!(ca.verify(&signed.der, now).is_ok(), good, "at {}", now - NOW);
    }
}

#[test]
fn refuses_another_authority_even_with_the_same_name() {
    let (ca, twin) = (authority(CaKind::User), authority(CaKind::User));
    assert!(ca.verify(&leaf(&twin, NOW, NOW + 600).der, NOW).is_err());
    for kind in [CaKind::Host, CaKind::Db, CaKind::DbClient] {
        assert!(ca.verify(&leaf(&authority(kind), NOW, NOW + 600).der, NOW).is_err(), "{kind}");
    }
}

#[test]
fn refuses_an_authority_as_leaf_a_changed_leaf_and_trailing_bytes() {
    let ca = authority(CaKind::User);
    assert!(ca.verify(ca.certificate(), NOW).is_err(), "its own certificate");
    let good = leaf(&ca, NOW, NOW + 600).der.to_vec();
    for at in [good.len() / 3, good.len() / 2, good.len() - 1] {
        let mut changed = good.clone();
        changed[at] ^= 1;
        assert!(ca.verify(&changed, NOW).is_err(), "byte {at}");
    }
    let mut longer = good;
    longer.push(0);
    assert!(ca.verify(&longer, NOW).is_err());
}

#[test]
fn no_leaf_outlives_its_authority() {
    let ca = authority(CaKind::User);
    let signed = leaf(&ca, NOW, i64::MAX);
    assert_eq!(signed.not_after_unix, NOW + 3650 * 86_400);
    let (_, parsed) = X509Certificate::from_der(&signed.der).unwrap();
    assert_eq!(parsed.validity().not_after.timestamp(), signed.not_after_unix);
}

#[test]
fn refuses_to_sign_what_is_expired_at_once() {
    let ca = authority(CaKind::User);
    let leaf =
        Leaf { common_name: "a", hosts: &[], extension: None, is_peer: false, now_unix: NOW, not_after_unix: NOW };
    assert!(ca.sign(&KeyPair::generate().unwrap(), leaf).is_err());
}

#[test]
fn authorities_sign_leaves_only_and_have_names_of_their_own() {
    let mut names = std::collections::BTreeSet::new();
    for kind in CaKind::ALL {
        let ca = authority(kind);
        let (_, cert) = X509Certificate::from_der(ca.certificate()).unwrap();
        let constraints = cert.basic_constraints().unwrap().unwrap().value;
        assert!(constraints.ca && constraints.path_len_constraint == Some(0), "{kind}");
        let usage = cert.key_usage().unwrap().unwrap().value;
        assert!(usage.key_cert_sign() && !usage.digital_signature(), "{kind}");
        names.insert(cert.subject().to_string());
    }
    assert_eq!(names.len(), 4, "{names:?}");
}

#[test]
fn serial_numbers_are_positive_sixteen_bytes_and_differ() {
    let ca = authority(CaKind::User);
    let serials: std::collections::BTreeSet<String> = (0..50).map(|_| leaf(&ca, NOW, NOW + 600).serial_hex).collect();
    assert_eq!(serials.len(), 50);
    assert!(serials.iter().all(|s| s.len() == 32 && ("4".."8").contains(&s.as_str())), "{serials:?}");
}

#[test]
fn a_stored_authority_is_refused_with_another_key() {
    let (ca, _) = CertificateAuthority::generate(CaKind::Db, "gw", NOW).unwrap();
    let (_, other_key) = CertificateAuthority::generate(CaKind::Db, "gw", NOW).unwrap();
    assert!(CertificateAuthority::load(CaKind::Db, ca.certificate().to_vec(), &other_key).is_err());
}

#[test]
fn debug_of_an_authority_shows_no_key() {
    let (ca, key) = CertificateAuthority::generate(CaKind::User, "gw", NOW).unwrap();
    let shown = format!("{ca:?}");
    assert_eq!(shown, "CertificateAuthority { kind: User, .. }");
    assert!(!shown.contains(&crate::hex::of(&key[..16])));
}

#[test]
fn reads_requests_in_pem_and_der_and_refuses_what_is_not_signed_by_its_key() {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let der = request.der().to_vec();
    assert!(RequestedKey::from_request(&der).is_ok());
    assert!(RequestedKey::from_request(request.pem().unwrap().as_bytes()).is_ok());

    let mut forged = der.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let mut longer = der.clone();
    longer.push(0);
    for (what, bad) in [
        ("forged", forged),
        ("longer", longer),
        ("empty", vec![]),
        ("huge", vec![0x30; CSR_BYTES_MAX + 1]),
        ("not a request", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec()),
        ("cut", der[..der.len() / 2].to_vec()),
    ] {
        assert!(RequestedKey::from_request(&bad).is_err(), "{what}");
    }
}

#[test]
fn signs_every_key_type_that_clients_bring() {
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap();
        let requested = RequestedKey::from_request(request.der()).unwrap();
        let leaf = Leaf {
            common_name: "a",
            hosts: &[],
            extension: None,
            is_peer: false,
            now_unix: NOW,
            not_after_unix: NOW + 60,
        };
        let signed = authority(CaKind::User).sign(requested.key(), leaf).unwrap();
        assert!(requested.is_key_of(&signed.der), "{algorithm:?}");
    }
}

#[test]
fn what_a_request_asks_for_beside_its_key_is_ignored() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["gateway.example.com".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.distinguished_name.push(DnType::CommonName, "root");
    let requested = RequestedKey::from_request(params.serialize_request(&key).unwrap().der()).unwrap();
    let leaf = Leaf {
        common_name: "alice",
        hosts: &[],
        extension: None,
        is_peer: false,
        now_unix: NOW,
        not_after_unix: NOW + 60,
    };
    let signed = authority(CaKind::User).sign(requested.key(), leaf).unwrap();
    let (_, cert) = X509Certificate::from_der(&signed.der).unwrap();
    assert_eq!(cert.subject().to_string(), "CN=alice");
    let uses = cert.extended_key_usage().unwrap().unwrap().value;
    assert!(!cert.is_ca() && !uses.server_auth && uses.client_auth);
    assert!(cert.subject_alternative_name().unwrap().is_none());
}

#[test]
fn hosts_are_names_wildcards_or_addresses() {
    let hosts = |names: &[&str]| alternative_names(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
    assert_eq!(hosts(&["db.example.com", "*.gw.example.com", "localhost", "10.0.0.7", "::1"]).unwrap().len(), 5);
    for bad in ["", "a b", "a/b", "*", "a.*.b", "-a", "a-", "a..b", "a\0b", "ü.example"] {
        assert!(hosts(&[bad]).is_err(), "{bad:?}");
    }
}
