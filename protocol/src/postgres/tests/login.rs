//! Signing in to a database.

use super::super::{Postgres, PostgresLogin};
use super::{error, frame, notice};
use crate::testing::fuzz;
use crate::{BackendTls, Credential, FaultKind, Login, LoginError, LoginStep, Protocol, SignIn};

fn login(tls: BackendTls, credential: Credential) -> PostgresLogin {
    let opening = fuzz::opened(&[("application_name", "psql"), ("_pq_.grease", "1"), ("replication", "no")]);
    Postgres::login(&opening, SignIn { user: "alice", database: "app", tls, credential, seed: [0; 32], learned: None })
}

fn password() -> Credential {
    Credential::Password("pencil".into())
}

fn request(code: u32, rest: &[u8]) -> Vec<u8> {
    let mut body = code.to_be_bytes().to_vec();
    body.extend_from_slice(rest);
    frame(b'R', &body)
}

/// Feeds all messages; the last one's answer.
fn answer(login: &mut PostgresLogin, messages: &[Vec<u8>], out: &mut Vec<u8>) -> Result<LoginStep, LoginError> {
    let mut last = Ok(LoginStep::Need { need: 0 });
    for message in messages {
        last = login.handle(message, out);
    }
    last
}

fn refused(credential: Credential, messages: &[Vec<u8>]) -> LoginError {
    answer(&mut login(BackendTls::Off, credential), messages, &mut Vec::new()).unwrap_err()
}

#[test]
fn sends_names_and_parameters_but_no_protocol_options() {
    let mut out = Vec::new();
    login(BackendTls::Off, Credential::None).start(&mut out);
    assert_eq!(out, b"\0\0\0\x37\0\x03\0\x02user\0alice\0database\0app\0application_name\0psql\0\0");
}

#[test]
fn asks_for_tls_first_and_begins_inside_it() {
    let mut login = login(BackendTls::Required, Credential::None);
    let mut out = Vec::new();
    login.start(&mut out);
    assert_eq!(out, b"\0\0\0\x08\x04\xd2\x16\x2f");
    assert!(matches!(login.handle(b"S", &mut out), Ok(LoginStep::StartTls { len: 1 })));
    out.clear();
    login.tls_started(&mut out);
    assert!(out.starts_with(b"\0\0\0\x37\0\x03\0\x02user"));
    assert!(matches!(login.handle(&request(0, b""), &mut out), Ok(LoginStep::Ready { len: 9 })));
}

#[test]
fn never_falls_back_from_tls_and_relays_nothing_from_before_it() {
    for answer in [&b"N"[..], b"E\0\0\0\x20SFATAL\0Mevil \x1b[2J\0\0", b"X", b"R\0\0\0\x08\0\0\0\0"] {
        let mut login = login(BackendTls::Required, password());
        let mut out = Vec::new();
        let error = login.handle(answer, &mut out).unwrap_err();
        assert!(error.frame.is_empty() && out.is_empty());
        assert!(!error.text.contains("evil"));
        assert_eq!(login.handle(b"S", &mut out).unwrap_err().fault, error.fault);
        login.tls_started(&mut out);
        assert!(out.is_empty());
    }
}

#[test]
fn mirrors_an_error_of_a_database_that_proved_who_it_is() {
    let theirs = error("FATAL", "28P01", "password authentication failed");
    let error = refused(password(), std::slice::from_ref(&theirs));
    assert_eq!(
        (error.fault.kind, error.frame, &*error.text),
        (FaultKind::Unavailable, theirs, "password authentication failed")
    );
}

#[test]
fn takes_an_older_version_and_no_other_answer_about_it() {
    let older = frame(b'v', b"\0\x03\0\0\0\0\0\0");
    let mut login = login(BackendTls::Off, Credential::None);
    let ready = answer(&mut login, &[older.clone(), request(0, b"")], &mut Vec::new());
    assert!(matches!(ready, Ok(LoginStep::Ready { .. })));
    let bad = [
        vec![frame(b'v', b"\0\x02\0\0\0\0\0\0")],
        vec![frame(b'v', b"\0\x03\0\0\0\0\0\x01_pq_.x\0")],
        vec![frame(b'v', b"\0\x03\0\0")],
        vec![request(5, b"salt"), older],
    ];
    for messages in bad {
        refused(password(), &messages);
    }
}

#[test]
fn answers_md5_as_the_server_computes_it() {
    let mut login = login(BackendTls::Off, password());
    let mut out = Vec::new();
    assert!(matches!(login.handle(&request(5, b"salt"), &mut out), Ok(LoginStep::Consumed { len: 13 })));
    let expected = postgres_protocol::authentication::md5_hash(b"alice", b"pencil", *b"salt");
    assert_eq!(out, frame(b'p', format!("{expected}\0").as_bytes()));
    assert!(matches!(login.handle(&request(0, b""), &mut out), Ok(LoginStep::Ready { .. })));
}

#[test]
fn sends_a_password_in_clear_text_only_inside_tls() {
    assert_eq!(refused(password(), &[request(3, b"")]).fault.kind, FaultKind::Unavailable);
    let mut login = login(BackendTls::Required, password());
    let mut out = Vec::new();
    login.handle(b"S", &mut out).map(|_| ()).unwrap();
    login.tls_started(&mut out);
    out.clear();
    assert!(login.handle(&request(3, b""), &mut out).is_ok());
    assert_eq!(out, frame(b'p', b"pencil\0"));
}

#[test]
fn a_scram_credential_is_used_for_nothing_weaker() {
    for message in [request(0, b""), request(3, b""), request(5, b"salt"), request(10, b"SCRAM-SHA-1\0\0")] {
        refused(Credential::Scram("pencil".into()), &[message]);
    }
}

#[test]
fn refuses_authentication_messages_out_of_order_and_methods_that_we_have_not() {
    let sasl = request(10, b"SCRAM-SHA-256\0\0");
    let bad = [
        vec![request(11, b"r=x,s=eA==,i=4096")],
        vec![request(12, b"v=eA==")],
        vec![sasl.clone(), request(0, b"")],
        vec![sasl.clone(), request(12, b"v=eA==")],
        vec![sasl.clone(), sasl.clone()],
        vec![request(5, b"salt"), request(5, b"salt")],
        vec![request(5, b"sal")],
        vec![request(7, b"")],
        vec![request(9, b"")],
        vec![request(0, b"x")],
        vec![frame(b'R', b"\0\0")],
        vec![frame(b'Z', b"I")],
        vec![frame(b'R', &[0; 9000])],
    ];
    for messages in bad {
        let error = refused(password(), &messages);
        assert!(error.frame.is_empty());
    }
    refused(password(), &vec![notice(); 40]);
}

#[test]
fn bounds_every_part_of_a_scram_challenge() {
    let long = "x".repeat(600);
    for challenge in [
        "r=NONCEx,s=eA==,i=100001".to_owned(),
        "r=NONCEx,s=eA==,i=0".to_owned(),
        "r=NONCEx,s=eA==,i=99999999999".to_owned(),
        "r=NONCEx,s=eA==,i=-1".to_owned(),
        "r=NONCEx,s=!!,i=4096".to_owned(),
        "r=other,s=eA==,i=4096".to_owned(),
        format!("r=NONCE{long},s=eA==,i=4096"),
        format!("r=NONCEx,s={long},i=4096"),
        "r=NONCEx,s=eA==".to_owned(),
        String::new(),
        ",,,".to_owned(),
    ] {
        let mut login = login(BackendTls::Off, password());
        let mut out = Vec::new();
        assert!(login.handle(&request(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"), &mut out).is_ok());
        let message = String::from_utf8(out.split_off(5)).unwrap();
        let nonce = message.split_once("r=").unwrap().1;
        let challenge = challenge.replace("NONCE", nonce);
        let error = login.handle(&request(11, challenge.as_bytes()), &mut out).unwrap_err();
        assert_eq!(error.fault.kind, FaultKind::Malformed, "{challenge}");
    }
}

#[test]
fn shows_no_secret() {
    assert!(!format!("{:?}", login(BackendTls::Off, password())).contains("pencil"));
}
