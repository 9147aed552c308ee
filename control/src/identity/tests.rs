use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use serde_json::{Value, json};

use super::*;
use crate::CaKind;
use crate::ca::{CertificateAuthority, Leaf};

const NOW: i64 = 1_700_000_000;

fn login() -> CertIdentity {
    CertIdentity {
        kind: CertKind::Login,
        user: "alice".into(),
        user_kind: UserKind::Human,
        roles: vec!["developer".into(), "auditor".into()],
        traits: BTreeMap::from([("db_users".into(), vec!["alice".into(), "readonly".into()])]),
        access_requests: vec!["0192f3d0".into()],
        allowed_resources: Vec::new(),
        route: None,
        cluster: "gw".into(),
        login_ip: Some("10.0.0.7".into()),
        mfa_device: None,
        device: None,
        login_not_after_unix: NOW + 3600,
        disallow_reissue: false,
        bot_instance: None,
        serial_hex: String::new(),
        not_before_unix: 0,
        not_after_unix: 0,
    }
}

fn routed() -> CertIdentity {
    let route = Route {
        service: "orders".into(),
        protocol: "postgres".into(),
        db_user: "alice".into(),
        db_name: "orders".into(),
        db_roles: vec![],
        db_users: vec!["alice".into()],
        db_names: vec!["*".into()],
    };
    CertIdentity { kind: CertKind::Route, route: Some(route), ..login() }
}

/// Signs by the user authority, as the authority does.
fn issue(identity: &CertIdentity) -> Vec<u8> {
    let (ca, _) = CertificateAuthority::generate(CaKind::User, "gw", NOW).unwrap();
    let leaf = Leaf {
        common_name: &identity.user,
        hosts: &[],
        extension: Some(identity.to_extension().unwrap()),
        is_peer: false,
        now_unix: NOW,
        not_after_unix: NOW + 600,
    };
    ca.sign(&KeyPair::generate().unwrap(), leaf).unwrap().der.to_vec()
}

fn facts() -> Value {
    json!({"v": 1, "kind": "login", "cluster": "gw", "roles": ["developer"], "login_not_after": NOW})
}

fn extension(json: &str) -> CustomExtension {
    CustomExtension::from_oid_content(&EXTENSION_OID, Utf8String::from(json).to_der_vec().unwrap())
}

/// A good certificate, changed by `change`, self-signed: the reader does not look at signatures.
fn crafted(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "alice");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.custom_extensions = vec![extension(&facts().to_string())];
    change(&mut params);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn with_facts(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value = facts();
    change(&mut value);
    crafted(|p| p.custom_extensions = vec![extension(&value.to_string())])
}

fn refusal(der: &[u8]) -> IdentityError {
    CertIdentity::from_certificate(der).expect_err("it must be refused")
}

#[test]
fn reads_back_every_fact_of_a_login_and_a_route() {
    for issued in [login(), routed()] {
        let read = CertIdentity::from_certificate(&issue(&issued)).unwrap();
        assert_eq!(read.not_before_unix, NOW - 60, "notBefore is back-dated by the clock skew");
        assert_eq!(read.not_after_unix, NOW + 600);
        assert_eq!(read.serial_hex.len(), 32);
        let (serial_hex, not_before_unix, not_after_unix) =
            (read.serial_hex.clone(), read.not_before_unix, read.not_after_unix);
        assert_eq!(read, CertIdentity { serial_hex, not_before_unix, not_after_unix, ..issued });
    }
}

#[test]
fn the_crafted_certificate_is_good_before_it_is_changed() {
    assert_eq!(CertIdentity::from_certificate(&crafted(|_| {})).unwrap().user, "alice");
}

#[test]
fn validity_ends_at_not_after_and_begins_at_not_before() {
    let read = CertIdentity::from_certificate(&issue(&login())).unwrap();
    for (now, valid) in [(NOW - 61, false), (NOW - 60, true), (NOW + 599, true), (NOW + 600, false), (i64::MAX, false)]
    {
        assert_eq!(read.is_valid_at(now), valid, "at {}", now.saturating_sub(NOW));
    }
}

#[test]
fn refuses_every_use_but_client_alone() {
    use ExtendedKeyUsagePurpose::{
        Any, ClientAuth, CodeSigning, EmailProtection, OcspSigning, ServerAuth, TimeStamping,
    };
    let other = ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 5, 2, 3, 4]);
    for uses in [
        vec![],
        vec![ServerAuth],
        vec![ClientAuth, ServerAuth],
        vec![Any],
        vec![ClientAuth, Any],
        vec![ClientAuth, CodeSigning],
        vec![ClientAuth, EmailProtection],
        vec![ClientAuth, TimeStamping],
        vec![ClientAuth, OcspSigning],
        vec![ClientAuth, other],
    ] {
        let der = crafted(|p| p.extended_key_usages = uses.clone());
        assert_eq!(refusal(&der), IdentityError::WrongUse, "{uses:?}");
    }
}

#[test]
fn refuses_a_key_usage_that_is_missing_or_does_not_sign() {
    for usages in [vec![], vec![KeyUsagePurpose::KeyEncipherment]] {
        assert_eq!(refusal(&crafted(|p| p.key_usages = usages)), IdentityError::WrongUse);
    }
}

#[test]
fn refuses_an_authority() {
    let der = crafted(|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    assert_eq!(refusal(&der), IdentityError::Authority);
}

#[test]
fn refuses_a_certificate_without_our_extension_or_with_two() {
    assert_eq!(refusal(&crafted(|p| p.custom_extensions.clear())), IdentityError::NoIdentity);
    let twice = crafted(|p| {
        let again = p.custom_extensions[0].clone();
        p.custom_extensions.push(again);
    });
    assert!(CertIdentity::from_certificate(&twice).is_err());
}

#[test]
fn refuses_an_unknown_critical_extension() {
    let der = crafted(|p| {
        let mut unknown = CustomExtension::from_oid_content(&[2, 25, 99], vec![5, 0]);
        unknown.set_criticality(true);
        p.custom_extensions.push(unknown);
    });
    assert_eq!(refusal(&der), IdentityError::UnknownCritical);
}

#[test]
fn refuses_a_subject_that_is_not_one_usable_common_name() {
    let name = |parts: &[(DnType, &str)]| {
        crafted(|p| {
            p.distinguished_name = DistinguishedName::new();
            for (kind, value) in parts {
                p.distinguished_name.push(kind.clone(), *value);
            }
        })
    };
    let long = "a".repeat(256);
    for parts in [
        vec![],
        vec![(DnType::OrganizationName, "alice")],
        vec![(DnType::CommonName, "alice"), (DnType::OrganizationName, "gw")],
        vec![(DnType::CommonName, "alice\0.evil")],
        vec![(DnType::CommonName, "alice\n")],
        vec![(DnType::CommonName, "")],
        vec![(DnType::CommonName, long.as_str())],
    ] {
        assert_eq!(refusal(&name(&parts)), IdentityError::NoUser, "{parts:?}");
    }
}

#[test]
fn refuses_facts_that_break_a_bound_or_contradict_themselves() {
    let long = "x".repeat(256);
    let many: Vec<String> = (0..257).map(|n| format!("r{n}")).collect();
    let route = json!({"service": "orders", "protocol": "postgres", "db_user": "alice", "db_name": "orders"});
    type Change = Box<dyn FnOnce(&mut Value)>;
    let changes: Vec<(&str, Change)> = vec![
        ("unknown member", Box::new(|f| f["only_from"] = json!("10.0.0.0/8"))),
        ("unknown kind", Box::new(|f| f["kind"] = json!("admin"))),
        ("kind missing", Box::new(|f| drop(f.as_object_mut().unwrap().remove("kind")))),
        ("roles missing", Box::new(|f| drop(f.as_object_mut().unwrap().remove("roles")))),
        ("cluster empty", Box::new(|f| f["cluster"] = json!(""))),
        ("role with NUL", Box::new(|f| f["roles"] = json!(["dev\0"]))),
        ("role empty", Box::new(|f| f["roles"] = json!([""]))),
        ("role long", Box::new(move |f| f["roles"] = json!([long]))),
        ("roles many", Box::new(move |f| f["roles"] = json!(many))),
        ("trait value of another type", Box::new(|f| f["traits"] = json!({"db_users": "alice"}))),
        ("trait value with control character", Box::new(|f| f["traits"] = json!({"db_users": ["a\u{7f}"]}))),
        ("route in a login", Box::new(move |f| f["route"] = route)),
        ("route missing", Box::new(|f| f["kind"] = json!("route"))),
        (
            "route without user",
            Box::new(|f| {
                f["kind"] = json!("route");
                f["route"] = json!({"service": "orders", "protocol": "postgres", "db_user": "", "db_name": ""});
            }),
        ),
        ("expiry as text", Box::new(|f| f["login_not_after"] = json!("tomorrow"))),
    ];
    for (what, change) in changes {
        assert_eq!(refusal(&with_facts(change)), IdentityError::Malformed, "{what}");
    }
}

#[test]
fn refuses_duplicate_members() {
    let text = facts().to_string().replacen("\"kind\":\"login\"", "\"kind\":\"login\",\"kind\":\"login\"", 1);
    let der = crafted(|p| p.custom_extensions = vec![extension(&text)]);
    assert_eq!(refusal(&der), IdentityError::Malformed);
}

#[test]
fn names_a_later_version_as_such() {
    assert_eq!(refusal(&with_facts(|f| f["v"] = json!(2))), IdentityError::UnknownVersion);
}

#[test]
fn refuses_an_extension_that_is_not_one_text() {
    let json = facts().to_string();
    let mut trailing = Utf8String::from(json.as_str()).to_der_vec().unwrap();
    trailing.push(0);
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    for content in [
        json.clone().into_bytes(),
        trailing,
        vec![],
        vec![0x0c, 0x84, 0xff, 0xff, 0xff, 0xff],
        vec![0x0c, 0x02, 0xff, 0xfe],
        Utf8String::from(deep.as_str()).to_der_vec().unwrap(),
    ] {
        let der = crafted(|p| p.custom_extensions = vec![CustomExtension::from_oid_content(&EXTENSION_OID, content)]);
        assert_eq!(refusal(&der), IdentityError::Malformed);
    }
}

#[test]
fn refuses_a_certificate_beyond_sixteen_kibibytes() {
    let der = crafted(|p| {
        p.custom_extensions.push(CustomExtension::from_oid_content(&[2, 25, 7], vec![0; CERTIFICATE_BYTES_MAX]));
    });
    assert_eq!(refusal(&der), IdentityError::TooLarge);
}

#[test]
fn never_issues_what_the_reader_would_refuse() {
    let too_many = CertIdentity { roles: (0..257).map(|n| format!("r{n}")).collect(), ..login() };
    let too_large = CertIdentity {
        traits: BTreeMap::from([("groups".into(), (0..200).map(|n| format!("{n:0>200}")).collect())]),
        ..login()
    };
    let nul = CertIdentity { user: "a\0b".into(), ..login() };
    for identity in [too_many, too_large, nul] {
        assert!(identity.to_extension().is_err());
    }
}

#[test]
fn refuses_every_truncation_and_every_appended_byte() {
    let good = issue(&routed());
    for length in 0..good.len() {
        assert!(CertIdentity::from_certificate(&good[..length]).is_err(), "cut at {length}");
    }
    let mut longer = good;
    longer.push(0);
    assert_eq!(refusal(&longer), IdentityError::Unreadable);
}

#[test]
fn no_flipped_byte_panics_the_reader() {
    let good = issue(&routed());
    for at in 0..good.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] ^= flip;
            // Whether it is refused depends on the byte; the reader must come back.
            let _ = CertIdentity::from_certificate(&bad);
        }
    }
}
