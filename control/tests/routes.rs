//! Who gets which certificate.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test program.

mod cluster;

use std::time::Duration;

use cluster::{Cluster, PEOPLE, csr, der, now};
use rcgen::KeyPair;
use ringgate_control::identity::{CertIdentity, CertKind};
use ringgate_control::{Actor, CaKind, ControlError, RouteRequest};
use ringgate_policy::Kind;

fn cluster() -> Cluster {
    let c = Cluster::new();
    c.apply(PEOPLE);
    c
}

#[test]
fn a_route_carries_the_login_and_the_database() {
    let c = cluster();
    let alice = c.login("alice");
    let issued = c.authority.issue_route(alice.asks("orders")).unwrap();
    assert_eq!((issued.db_user.as_str(), issued.db_name.as_str()), ("app", "orders"), "the only ones allowed");
    assert_eq!(issued.ca_pem, c.authority.trust_pem(CaKind::Host));
    let identity = CertIdentity::from_certificate(&der(&issued.cert_pem)).unwrap();
    let route = identity.route.unwrap();
    assert_eq!(identity.kind, CertKind::Route);
    assert_eq!((identity.user.as_str(), identity.cluster.as_str()), ("alice", "gw"));
    assert_eq!(identity.roles, ["developer"]);
    assert_eq!((route.service.as_str(), route.protocol.as_str()), ("orders", "postgres"));
    assert_eq!(identity.not_before_unix, identity.not_before_unix.min(now() - 59));
    assert_eq!(c.audit.of("cert.create").last().unwrap().1["db_service"], "orders");
    assert!(c.authority.verify_login(&der(&issued.cert_pem)).is_err(), "a route is no login");
}

#[test]
fn who_may_have_which_route() {
    let c = cluster();
    // user, database, database user, database name -> exit code, 0 for a certificate
    for (user, service, db_user, db_name, code) in [
        ("alice", "orders", Some("app"), Some("orders"), 0),
        ("alice", "orders", Some("app"), None, 0),
        ("alice", "orders", None, None, 0),
        ("alice", "orders", Some("root"), Some("orders"), 4),
        ("alice", "orders", Some("app"), Some("other"), 4),
        ("alice", "orders", Some(""), Some("orders"), 4),
        ("alice", "orders-prod", Some("app"), Some("orders"), 5),
        ("alice", "no-such", Some("app"), Some("orders"), 5),
        ("alice", "", None, None, 5),
        ("bob", "orders", Some("anyone"), Some("anything"), 0),
        ("bob", "orders-prod", Some("anyone"), None, 0),
        ("bob", "orders", None, None, 2),
        ("carol", "orders", Some("app"), Some("orders"), 5),
        ("dora", "orders", None, None, 2),
        ("dora", "orders", Some("one"), Some("stock"), 0),
        ("dora", "orders", Some("one"), None, 4),
        ("dora", "orders", Some("three"), Some("stock"), 4),
    ] {
        let request = RouteRequest {
            db_user: db_user.map(str::to_owned),
            db_name: db_name.map(str::to_owned),
            ..c.login(user).asks(service)
        };
        let got = c.authority.issue_route(request).map_or_else(|e| e.code(), |_| 0);
        assert_eq!(got, code, "{user} asks for {service} as {db_user:?} in {db_name:?}");
    }
}

#[test]
fn an_ambiguous_user_is_refused_with_the_choices() {
    let c = cluster();
    let refused = c.authority.issue_route(c.login("dora").asks("orders")).unwrap_err();
    let ControlError::Choose { choices, .. } = &refused else { panic!("{refused}") };
    assert_eq!(choices, &["one", "two"]);
    assert!(refused.hint().unwrap().contains("--db-user"));
}

#[test]
fn a_hidden_database_cannot_be_told_from_an_unknown_one() {
    let c = cluster();
    let alice = c.login("alice");
    let say = |service: &str| {
        let e = c.authority.issue_route(alice.asks_as(service, "app", "orders")).unwrap_err();
        (e.code(), e.to_string().replace(service, "NAME"), e.why(), e.hint())
    };
    assert_eq!(say("orders-prod"), say("no-such-database"));
    let names: Vec<String> =
        c.authority.list_databases(&alice.login).unwrap().into_iter().map(|row| row.name).collect();
    assert_eq!(names, ["orders"]);
}

#[test]
fn the_key_of_the_login_must_sign_the_request() {
    let c = cluster();
    let alice = c.login("alice");
    let thief = KeyPair::generate().unwrap();
    let stolen = RouteRequest { csr_der: csr(&thief), ..alice.asks("orders") };
    let refused = c.authority.issue_route(stolen).unwrap_err();
    assert_eq!(refused.code(), 3, "{refused}");
    let mut forged = csr(&alice.key);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert!(c.authority.issue_route(RouteRequest { csr_der: forged, ..alice.asks("orders") }).is_err());
}

#[test]
fn what_is_no_login_opens_nothing() {
    let c = cluster();
    let alice = c.login("alice");
    let route = c.authority.issue_route(alice.asks("orders")).unwrap();
    let mut changed = alice.login.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    for (what, login) in [
        ("a route certificate", der(&route.cert_pem).to_vec()),
        ("the authority itself", c.authority.trust(CaKind::User)[0].to_vec()),
        ("a changed certificate", changed),
        ("nothing", vec![]),
        ("20 KiB", vec![0x30; 20 * 1024]),
    ] {
        let refused = c.authority.issue_route(RouteRequest { login_cert_der: login.clone(), ..alice.asks("orders") });
        assert_eq!(refused.unwrap_err().code(), 3, "{what}");
        assert!(c.authority.list_databases(&login).is_err(), "{what}");
    }
}

#[test]
fn lives_are_the_shortest_of_login_asked_and_roles() {
    let c = cluster();
    let hours = |n: u64| Duration::from_secs(n * 3600);
    let ends_in = |not_after: i64, seconds: i64| (not_after - now() - seconds).abs() <= 5;

    let key = KeyPair::generate().unwrap();
    let login = |user, ttl| c.authority.issue_login(user, &csr(&key), ttl).unwrap().not_after_unix;
    assert!(ends_in(login("alice", None), 12 * 3600), "the configured life");
    assert!(ends_in(login("alice", Some(hours(1))), 3600), "the asked life");
    assert!(ends_in(login("alice", Some(hours(1000))), 30 * 3600), "the cap");
    assert!(ends_in(login("dora", None), 600), "the shortest role");

    let alice = c.login("alice");
    let route = |ttl| c.authority.issue_route(RouteRequest { ttl, ..alice.asks("orders") }).unwrap().not_after_unix;
    assert!(ends_in(route(None), 3600), "the configured life");
    assert!(ends_in(route(Some(hours(2))), 7200), "the asked life");
    assert_eq!(route(Some(hours(1000))), alice.cert.not_after_unix, "never beyond the login");
    let dora = c.login("dora");
    let short = c.authority.issue_route(dora.asks_as("orders", "one", "stock")).unwrap().not_after_unix;
    assert_eq!(short, dora.cert.not_after_unix);
}

#[test]
fn a_role_change_bites_at_the_next_route() {
    let c = cluster();
    let alice = c.login("alice");
    assert!(c.authority.issue_route(alice.asks("orders")).is_ok());
    c.apply("kind: role\nversion: v8\nmetadata: {name: developer}\nspec: {allow: {db_labels: {env: none}, db_users: [app], db_names: [orders]}}\n");
    assert_eq!(c.authority.issue_route(alice.asks("orders")).unwrap_err().code(), 5);
    c.authority.remove(&Actor::System, Kind::Role, "developer").unwrap();
    let refused = c.authority.issue_route(alice.asks("orders")).unwrap_err();
    assert_eq!(refused.code(), 4, "a role that is gone fails closed: {refused}");
    let key = KeyPair::generate().unwrap();
    assert_eq!(c.authority.issue_login("alice", &csr(&key), None).unwrap_err().code(), 4);
}

#[test]
fn an_unknown_user_does_not_log_in() {
    let c = cluster();
    let key = KeyPair::generate().unwrap();
    assert_eq!(c.authority.issue_login("nobody", &csr(&key), None).unwrap_err().code(), 5);
    c.apply("kind: user\nversion: v2\nmetadata: {name: gone, expires: '2020-01-01T00:00:00Z'}\nspec: {roles: []}\n");
    assert_eq!(c.authority.issue_login("gone", &csr(&key), None).unwrap_err().code(), 5);
    let codes: Vec<String> = c.audit.of("user.login").into_iter().map(|(code, _)| code).collect();
    assert_eq!(codes, ["T1000W", "T1000W"]);
}

#[test]
fn refused_routes_are_audited_with_the_deciding_role() {
    let c = cluster();
    let refused = c.authority.issue_route(c.login("alice").asks_as("orders", "root", "orders")).unwrap_err();
    assert!(refused.why().unwrap().contains("developer"), "{:?}", refused.why());
    let (code, members) = c.audit.of("auth").pop().unwrap();
    assert_eq!((code.as_str(), members["user"].as_str()), ("T3007W", Some("alice")));
    assert!(members["error"].as_str().unwrap().contains("developer"), "{members}");
}

#[test]
fn a_redis_route_is_for_the_default_user_and_the_first_database_unless_asked() {
    let c = cluster();
    c.apply(
        "{kind: db, version: v3, metadata: {name: cache, labels: {env: dev}}, spec: {protocol: redis, uri: 'h:1'}}",
    );
    let bob = c.login("bob");
    let issued = c.authority.issue_route(bob.asks("cache")).unwrap();
    assert_eq!((issued.protocol.as_str(), issued.db_user.as_str(), issued.db_name.as_str()), ("redis", "default", "0"));
    let issued = c.authority.issue_route(bob.asks_as("cache", "alice", "3")).unwrap();
    assert_eq!((issued.db_user.as_str(), issued.db_name.as_str()), ("alice", "3"));
    for wrong in ["one", "", "-1", "1234567890"] {
        let refused = c.authority.issue_route(bob.asks_as("cache", "alice", wrong)).unwrap_err();
        assert!(refused.to_string().contains("a number"), "{wrong}: {refused}");
    }
}

#[test]
fn a_peer_of_other_servers_proves_itself_to_them_too() {
    let c = cluster();
    let hosts = vec!["redis-1".to_owned()];
    let sign = |peer| c.authority.sign_database_server(&Actor::System, &hosts, Duration::from_secs(60), peer).unwrap();
    let client_auth = |files: &ringgate_control::ServerFiles| {
        let der = der(&files.cert_pem);
        // id-kp-clientAuth, 1.3.6.1.5.5.7.3.2
        der.windows(10).any(|w| w == [6, 8, 43, 6, 1, 5, 5, 7, 3, 2])
    };
    let (alone, peer) = (sign(false), sign(true));
    assert!(!client_auth(&alone) && client_auth(&peer));
    assert!(!alone.cas_pem.contains(&c.authority.trust_pem(CaKind::Db)));
    for trusted in [CaKind::Db, CaKind::DbClient] {
        assert!(peer.cas_pem.contains(&c.authority.trust_pem(trusted)), "{trusted}");
    }
}

#[test]
fn database_servers_get_key_certificate_and_the_client_authority() {
    let c = cluster();
    let hosts = vec!["db.example.com".to_owned(), "10.0.0.5".to_owned()];
    let files = c.authority.sign_database_server(&Actor::System, &hosts, Duration::from_secs(86_400), false).unwrap();
    assert_eq!(files.cas_pem, c.authority.trust_pem(CaKind::DbClient));
    assert!(files.key_pem.starts_with("-----BEGIN PRIVATE KEY-----"));
    assert!(!format!("{files:?}").contains("PRIVATE"), "Debug shows no key");
    assert_eq!(c.audit.of("ca.sign")[0].0, "TCX01I");
    assert!(c.authority.sign_database_server(&Actor::System, &[], Duration::from_secs(60), false).is_err());
    assert_eq!(
        c.authority.sign_database_server(&c.actor("alice"), &hosts, Duration::MAX, false).unwrap_err().code(),
        4
    );
}
