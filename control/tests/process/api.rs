//! The admin socket and the diagnostic listener, by the real client and by hand.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::KeyPair;
use ringgate_control::client::AdminClient;
use ringgate_control::{Action, CaKind, RouteRequest};
use serde_json::Value;

use super::Server;
use super::cluster::{PEOPLE, csr, der};

pub(crate) const CASES: [(&str, fn()); 6] = [
    ("resources_round_trip_through_the_client", resources_round_trip_through_the_client),
    ("a_login_a_list_and_a_route_through_the_client", a_login_a_list_and_a_route_through_the_client),
    ("a_user_acts_with_its_own_rights", a_user_acts_with_its_own_rights),
    ("what_is_wrong_with_a_request_is_a_problem_document", what_is_wrong_with_a_request_is_a_problem_document),
    ("no_private_key_leaves_by_answers_or_audit", no_private_key_leaves_by_answers_or_audit),
    ("the_diagnostic_listener_answers_get_for_its_own_host", the_diagnostic_listener_answers_get_for_its_own_host),
];

fn client(server: &Server) -> AdminClient {
    AdminClient::new(&server.path("admin.sock"))
}

fn stop(server: Server) {
    server.signal(rustix::process::Signal::TERM);
    assert!(server.end().0.success());
}

/// Status code, head and body of the answer to a request written by hand.
fn by_hand(server: &Server, request: &str, body: &[u8]) -> (u16, String, String) {
    let mut stream = UnixStream::connect(server.path("admin.sock")).unwrap();
    let head = format!("{request}\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).unwrap();
    // The server may answer and close before it has read all of a body that is too large.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{request}: {answer:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_owned(), body.to_owned())
}

fn resources_round_trip_through_the_client() {
    let server = Server::start(0);
    let c = client(&server);
    let applied = c.apply(PEOPLE, false).unwrap();
    assert!(applied.iter().all(|a| a.action == Action::Created) && applied.len() == 8, "{applied:?}");
    assert_eq!(c.apply(PEOPLE, false).unwrap_err().code, 6, "it exists");
    assert!(c.apply(PEOPLE, true).unwrap().iter().all(|a| a.action == Action::Unchanged));
    let alice = c.get("user", Some("alice")).unwrap();
    let stale = alice[0].to_string().replace("developer", "access");
    assert_eq!(c.apply(&stale, true).unwrap()[0].action, Action::Updated);
    let conflict = c.apply(&stale, true).unwrap_err();
    assert_eq!(conflict.code, 6);
    assert!(conflict.why.unwrap().contains("revision"));
    assert_eq!(c.holders("access").unwrap(), ["alice", "bob", "dora"]);
    assert_eq!(c.remove("role", "access").unwrap().still_held_by, ["alice", "bob", "dora"]);
    assert_eq!(c.get("roles", Some("access")).unwrap_err().code, 5);
    assert_eq!(c.get("user", Some("../../x y%")).unwrap_err().code, 5, "names are escaped");
    let unknown = c.get("rolle", None).unwrap_err();
    assert_eq!((unknown.code, unknown.what.contains("role")), (2, true), "{unknown:?}");
    let wrong = c.apply("kind: role\nversion: v8\nmetadata: {name: x}\nspec: {alow: {}}\n", true).unwrap_err();
    assert_eq!(wrong.code, 1);
    assert!(wrong.problems.iter().any(|p| p.contains("alow")), "{wrong:?}");
    let status = c.status().unwrap();
    assert_eq!(status["cluster"], "gw");
    assert_eq!(status["authorities"].as_array().unwrap().len(), 4);
    assert!(c.trust_pem(CaKind::DbClient).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    assert_eq!(c.sessions().unwrap(), serde_json::json!([]));
    stop(server);
}

fn a_login_a_list_and_a_route_through_the_client() {
    let server = Server::start(0);
    let c = client(&server);
    c.apply(PEOPLE, true).unwrap();
    let key = KeyPair::generate().unwrap();
    let login = c.login_self("alice", &csr(&key), Some(Duration::from_secs(600))).unwrap();
    let login_der = der(&login.cert_pem).to_vec();
    let rows = c.list_databases(&login_der).unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].name.as_str(), rows[0].allowed_users.as_slice()), ("orders", &["app".to_owned()][..]));
    let request = RouteRequest {
        login_cert_der: login_der,
        csr_der: csr(&key),
        service: "orders".into(),
        db_user: None,
        db_name: None,
        ttl: None,
    };
    let route = c.issue_route(&request).unwrap();
    assert_eq!(route.db_user, "app");
    assert!(route.not_after_unix <= login.not_after_unix);
    let hidden = c.issue_route(&RouteRequest { service: "orders-prod".into(), ..request.clone() }).unwrap_err();
    let unknown = c.issue_route(&RouteRequest { service: "no-such".into(), ..request }).unwrap_err();
    assert_eq!((hidden.code, unknown.code), (5, 5));
    assert_eq!(hidden.what.replace("orders-prod", "no-such"), unknown.what);
    assert_eq!((hidden.why, hidden.hint), (unknown.why, unknown.hint));
    stop(server);
}

fn a_user_acts_with_its_own_rights() {
    let server = Server::start(0);
    let c = client(&server);
    c.apply(PEOPLE, true).unwrap();
    let login = |user: &str| {
        let key = KeyPair::generate().unwrap();
        der(&c.login_self(user, &csr(&key), None).unwrap().cert_pem).to_vec()
    };
    let role = "kind: role\nversion: v8\nmetadata: {name: fresh}\nspec: {allow: {}}\n";
    let (alice, dora) = (c.clone().with_login(&login("alice")), c.clone().with_login(&login("dora")));
    for refused in [
        alice.apply(role, true).unwrap_err(),
        alice.get("role", None).unwrap_err(),
        alice.remove("role", "access").unwrap_err(),
        alice.sessions().unwrap_err(),
        alice.reload().unwrap_err(),
        alice.holders("access").unwrap_err(),
        alice.sign_database_server(&["db".to_owned()], Duration::from_secs(60), false).unwrap_err(),
    ] {
        assert_eq!(refused.code, 4, "{refused:?}");
    }
    assert!(!server.path("reload").exists());
    assert_eq!(dora.apply(role, true).unwrap()[0].action, Action::Created);
    let audit = std::fs::read_to_string(server.path("audit")).unwrap();
    let line = audit.lines().find(|l| l.starts_with("role.created") && l.contains("fresh")).unwrap();
    assert!(line.contains("\"user\":\"dora\""), "{line}");

    let body = serde_json::json!({"user": "dora", "csr": STANDARD.encode(csr(&KeyPair::generate().unwrap()))});
    let header = STANDARD.encode(login("alice"));
    let request = format!(
        "POST /api/v1/certificates/login HTTP/1.1\r\nx-ringgate-certificate: {header}\r\nContent-Type: application/json"
    );
    let (status, _, said) = by_hand(&server, &request, body.to_string().as_bytes());
    assert_eq!(status, 403, "a user does not log in as another: {said}");
    stop(server);
}

fn what_is_wrong_with_a_request_is_a_problem_document() {
    let server = Server::start(0);
    let json = "\r\nContent-Type: application/json";
    let huge = vec![b'#'; (1 << 20) + 1];
    let long_header = format!("GET /api/v1/status HTTP/1.1\r\nx-ringgate-certificate: {}", "A".repeat(40_000));
    for (request, body, status, code) in [
        ("GET /api/v1/nothing HTTP/1.1".to_owned(), &b""[..], 404, 5),
        ("GET / HTTP/1.1".to_owned(), b"", 404, 5),
        ("PUT /api/v1/status HTTP/1.1".to_owned(), b"", 405, 2),
        (format!("POST /api/v1/certificates/route HTTP/1.1{json}"), b"{", 400, 2),
        (
            format!("POST /api/v1/certificates/login HTTP/1.1{json}"),
            b"{\"user\":\"a\",\"csr\":\"\",\"root\":1}",
            422,
            2,
        ),
        (format!("POST /api/v1/certificates/login HTTP/1.1{json}"), b"{\"user\":\"a\",\"csr\":\"AAAA\"}", 400, 1),
        ("POST /api/v1/certificates/login HTTP/1.1".to_owned(), b"{}", 415, 2),
        ("POST /api/v1/resources?force=maybe HTTP/1.1".to_owned(), b"", 400, 2),
        ("POST /api/v1/resources HTTP/1.1".to_owned(), &huge, 413, 2),
        ("POST /api/v1/resources HTTP/1.1".to_owned(), b"\xff\xfe", 400, 2),
        ("GET /api/v1/databases HTTP/1.1".to_owned(), b"", 401, 3),
        ("GET /api/v1/databases HTTP/1.1\r\nx-ringgate-certificate: !".to_owned(), b"", 401, 3),
        ("GET /api/v1/resources/role HTTP/1.1\r\nx-ringgate-certificate: AAAA".to_owned(), b"", 401, 3),
        (long_header.replace("status", "sessions"), b"", 401, 3),
        ("GET /api/v1/authorities/moon HTTP/1.1".to_owned(), b"", 404, 5),
    ] {
        let (got, head, said) = by_hand(&server, &request, body);
        let shown = &request[..request.len().min(80)];
        assert_eq!(got, status, "{shown}: {said}");
        assert!(head.contains("application/problem+json"), "{shown}: {head}");
        let problem: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{shown}: {e}: {said}"));
        assert_eq!(problem["code"], code, "{shown}: {said}");
    }
    assert!(client(&server).status().is_ok(), "the server goes on");
    stop(server);
}

fn no_private_key_leaves_by_answers_or_audit() {
    let server = Server::start(0);
    let c = client(&server);
    c.apply(PEOPLE, true).unwrap();
    let files = c.sign_database_server(&["db.example.com".to_owned()], Duration::from_secs(600), false).unwrap();
    let audit = std::fs::read_to_string(server.path("audit")).unwrap();
    assert!(audit.contains("ca.sign TCX01I") && !audit.contains("PRIVATE KEY"), "{audit}");
    let secret = files.key_pem.lines().nth(1).unwrap();
    assert!(!audit.contains(secret));
    for page in ["status", "authorities/user", "authorities/db", "resources/user", "resources/db", "version"] {
        let (status, _, said) = by_hand(&server, &format!("GET /api/v1/{page} HTTP/1.1"), b"");
        assert!(status == 200 && !said.contains("PRIVATE KEY"), "{page}: {said}");
    }
    stop(server);
}

fn the_diagnostic_listener_answers_get_for_its_own_host() {
    let server = Server::start(0);
    let ask = |request: &str, host: &str| {
        let mut stream = std::net::TcpStream::connect(server.diag).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status: u16 = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer)
    };
    for page in ["/healthz", "/readyz", "/livez", "/metrics", "/version"] {
        assert_eq!(ask(&format!("GET {page}"), "localhost").0, 200, "{page}");
        assert_eq!(ask(&format!("GET {page}"), "rebound.example").0, 421, "{page}");
        assert_eq!(ask(&format!("POST {page}"), "localhost").0, 405, "{page}");
    }
    let (_, metrics) = ask("GET /metrics", "127.0.0.1");
    assert!(metrics.contains("ringgate_ready 1"), "{metrics}");
    assert!(metrics.contains("ringgate_ca_expiry_timestamp_seconds{ca=\"db_client\"} "), "{metrics}");
    let (_, verbose) = ask("GET /readyz?verbose", "127.0.0.1");
    assert!(verbose.contains("\"store\":\"ok\"") && verbose.contains("\"draining\":\"ok\""), "{verbose}");
    assert_eq!(ask("GET /api/v1/status", "127.0.0.1").0, 404, "the admin API is not on this listener");
    stop(server);
}
