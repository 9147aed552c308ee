//! Signing in to databases, against proofs that real servers took.

use super::super::{MysqlLogin, scramble};
use super::*;
use crate::{FaultKind, LoginError};

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn login(credential: Credential, tls: BackendTls) -> MysqlLogin {
    Mysql::login(&opened_with(EOF, "", b""), sign_in(credential, tls))
}

fn secret() -> Credential {
    Credential::Password("secret".into())
}

/// Runs a login over whole packets and gives what it sent after each.
fn run(login: &mut MysqlLogin, packets: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, LoginError> {
    let mut sent = Vec::new();
    for bytes in packets {
        let mut out = Vec::new();
        for len in 0..bytes.len() {
            assert!(matches!(login.handle(&bytes[..len], &mut out)?, LoginStep::Need { need } if need > len));
        }
        match login.handle(bytes, &mut out)? {
            LoginStep::StartTls { len } => {
                assert_eq!(len, bytes.len());
                login.tls_started(&mut out);
            }
            LoginStep::Consumed { len } | LoginStep::Ready { len } => assert_eq!(len, bytes.len()),
            step @ LoginStep::Need { .. } => panic!("{step:?}"),
        }
        sent.push(out);
    }
    Ok(sent)
}

fn switch(sequence: u8, plugin: &str, nonce: &[u8]) -> Vec<u8> {
    packet(sequence, &[b"\xfe", plugin.as_bytes(), b"\0", nonce, b"\0"].concat())
}

#[test]
fn proves_a_native_password_as_a_client_that_mariadb_let_in() {
    let hello = hex(
        "680000000a352e352e352d31302e31312e31392d4d6172696144422d302b646562313275312d6c6f67001f0000002b7c556f522c216100feff080200ff81150000000000001d000000482621713861634b2d3e3075006d7973716c5f6e61746976655f70617373776f726400",
    );
    let sent = run(&mut login(secret(), BackendTls::Off), &[hello, ok(2)]).unwrap();
    let proof = hex("1476cab497580e5bc897fc4fa14c418965c6012794");
    assert!(sent[0].windows(proof.len()).any(|window| window == proof), "{}", sent[0].escape_ascii());
    assert!(!sent.concat().windows(6).any(|window| window == b"secret"));
}

#[test]
fn signs_for_ed25519_as_a_client_that_mariadb_let_in() {
    let hello = greeting(EOF, "mysql_native_password", NONCE);
    let switch =
        hex("30000002fe636c69656e745f65643235353139009ad001a9f8e563d0c4695fdec547c0f565f8a0131fb9db522b286eeb964f5005");
    let signature = hex(
        "4000000316e38fa24e7d9b308a6774a2bda00f5a5fe33a3e2175707693de0b93b52dc3e0976b8a0afa91d6517b4215715534dbf02812c5b8b48ab0bb7e52725e85182106",
    );
    let sent = run(&mut login(secret(), BackendTls::Off), &[hello, switch, ok(4)]).unwrap();
    assert_eq!(sent[1], signature);
}

#[test]
fn proofs_are_those_of_another_implementation() {
    for password in ["secret", "", "pässwörd", "a much longer password than any of the digests is wide, by far"] {
        let nonces: [[u8; 20]; 3] = [*NONCE, [1; 20], [0xff; 20]];
        for nonce in nonces {
            let theirs =
                mysql_common::auth::plugins::mysql_native_password::scramble_native(&nonce, password.as_bytes());
            assert_eq!(
                scramble::native(password.as_bytes(), &nonce),
                theirs.map(|proof| proof.to_vec()).unwrap_or_default()
            );
            let theirs =
                mysql_common::auth::plugins::caching_sha2_password::scramble_sha256(&nonce, password.as_bytes());
            let ours = scramble::caching_sha2(password.as_bytes(), &nonce);
            assert_eq!(ours, theirs.map(|proof| proof.to_vec()).unwrap_or_default());
        }
    }
}

#[test]
fn takes_the_fast_path_of_caching_sha2() {
    let hello = greeting(OK, "caching_sha2_password", NONCE);
    let sent = run(&mut login(secret(), BackendTls::Off), &[hello, packet(2, &[1, 3]), ok(3)]).unwrap();
    let proof = scramble::caching_sha2(b"secret", NONCE);
    assert!(sent[0].windows(32).any(|window| window == proof));
    assert!(sent[1].is_empty() && sent[2].is_empty());
}

#[test]
fn shows_a_password_inside_verified_tls_and_nowhere_else() {
    let hello = || greeting(OK | capability::SSL, "caching_sha2_password", NONCE);
    let shown = |sequence| packet(sequence, b"secret\0");
    // Full path of caching_sha2.
    let packets = [hello(), packet(3, &[1, 4]), ok(5)];
    let sent = run(&mut login(secret(), BackendTls::Required), &packets).unwrap();
    assert_eq!(sent[1], shown(4));
    for plugin in ["mysql_clear_password", "sha256_password"] {
        let packets = [hello(), switch(3, plugin, b""), ok(5)];
        let sent = run(&mut login(secret(), BackendTls::Required), &packets).unwrap();
        assert_eq!(sent[1], shown(4), "{plugin}");
    }
    for (tls, first) in [(BackendTls::Off, 2), (BackendTls::Unverified, 3)] {
        for packet in [
            packet(first, &[1, 4]),
            switch(first, "mysql_clear_password", b""),
            switch(first, "sha256_password", NONCE),
        ] {
            let mut login = login(secret(), tls);
            let mut out = Vec::new();
            match login.handle(&hello(), &mut out).unwrap() {
                LoginStep::StartTls { .. } => login.tls_started(&mut out),
                step => assert!(matches!(step, LoginStep::Consumed { .. })),
            }
            let error = login.handle(&packet, &mut out).unwrap_err();
            assert_eq!(error.fault.kind, FaultKind::Denied);
            assert!(!out.windows(6).any(|window| window == b"secret"));
            assert!(!format!("{login:?}{error:?}").contains("secret"));
        }
    }
}

#[test]
fn says_nothing_about_itself_before_tls() {
    let mut login = login(secret(), BackendTls::Required);
    let mut out = Vec::new();
    let hello = greeting(OK | capability::SSL, "mysql_native_password", NONCE);
    assert_eq!(login.handle(&hello, &mut out).unwrap(), LoginStep::StartTls { len: hello.len() });
    assert_eq!(out.len(), 36, "an SSLRequest has no name in it");
    assert_eq!(out[..4], [32, 0, 0, 1]);
    let stuffed = login.handle(&ok(2), &mut out).unwrap_err();
    assert_eq!(stuffed.fault.kind, FaultKind::OutOfOrder);
}

#[test]
fn refuses_a_database_without_tls_where_tls_is_required() {
    for tls in [BackendTls::Required, BackendTls::Unverified] {
        let mut out = Vec::new();
        let error = login(secret(), tls).handle(&greeting(OK, "mysql_native_password", NONCE), &mut out).unwrap_err();
        assert_eq!(error.fault.kind, FaultKind::Unavailable);
        assert!(out.is_empty());
    }
}

#[test]
fn mirrors_an_error_under_its_own_code_as_the_client_counts() {
    let hello = greeting(OK, "mysql_native_password", NONCE);
    let error =
        run(&mut login(secret(), BackendTls::Off), &[hello, error(2, 1049, "Unknown database 'app'")]).unwrap_err();
    assert_eq!(error.frame, super::error(2, 1049, "Unknown database 'app'"));
    assert_eq!(error.text, "1049 Unknown database 'app'");
    // Before the greeting, and without a state.
    let early = packet(0, b"\xff\x10\x04Too many connections");
    let error = run(&mut login(secret(), BackendTls::Off), std::slice::from_ref(&early)).unwrap_err();
    assert_eq!(error.frame, packet(2, b"\xff\x10\x04#HY000Too many connections"));
    let error = run(&mut login(secret(), BackendTls::Required), &[early]).unwrap_err();
    assert!(error.frame.is_empty(), "nobody vouches for it before TLS");
}

#[test]
fn refuses_plugins_that_are_not_served_and_weaker_ones_than_configured() {
    let hello = || greeting(OK, "mysql_native_password", NONCE);
    for plugin in ["mysql_old_password", "dialog", "auth_gssapi_client", "authentication_ldap_sasl_client", ""] {
        let error = run(&mut login(secret(), BackendTls::Off), &[hello(), switch(2, plugin, NONCE)]).unwrap_err();
        assert_eq!(error.fault.kind, FaultKind::Unsupported, "{plugin}");
    }
    let old = run(&mut login(secret(), BackendTls::Off), &[hello(), packet(2, &[0xfe])]).unwrap_err();
    assert_eq!(old.fault.kind, FaultKind::Denied);
    let scram = Credential::Scram("secret".into());
    let weak =
        run(&mut login(scram, BackendTls::Off), &[hello(), switch(2, "mysql_native_password", NONCE)]).unwrap_err();
    assert_eq!(weak.fault.kind, FaultKind::Denied);
}

#[test]
fn refuses_a_database_that_has_lost_a_capability_and_learns_it() {
    let opening = opened_with(OK, "", b"");
    let mut login = Mysql::login(&opening, sign_in(Credential::None, BackendTls::Off));
    let mut out = Vec::new();
    let error = login.handle(&greeting(EOF, "mysql_native_password", NONCE), &mut out).unwrap_err();
    assert_eq!(error.fault.kind, FaultKind::Unavailable);
    assert!(out.is_empty());
    assert_eq!(*Mysql::learned(&login).unwrap(), server(EOF));
}

#[test]
fn takes_the_proof_by_certificate_alone() {
    let hello = greeting(OK | capability::SSL, "caching_sha2_password", NONCE);
    let sent = run(&mut login(Credential::None, BackendTls::Required), &[hello, ok(3)]).unwrap();
    let text = b"alice\0\0app\0caching_sha2_password\0";
    assert!(sent[0].windows(text.len()).any(|window| window == text), "{}", sent[0].escape_ascii());
}

#[test]
fn refuses_lengths_sequences_and_exchanges_without_end() {
    let hello = || greeting(OK, "caching_sha2_password", NONCE);
    for (what, bytes) in [
        (
            "out of order",
            greeting(OK, "x", NONCE).iter().enumerate().map(|(at, byte)| if at == 3 { 1 } else { *byte }).collect(),
        ),
        ("too long", vec![0xff, 0xff, 0xff, 0]),
        ("empty", packet(0, b"")),
        ("protocol 9", packet(0, b"\x098.0\0")),
        ("cut", packet(0, &hello()[4..40])),
    ] {
        let mut login = login(secret(), BackendTls::Off);
        let error = login.handle(&bytes, &mut Vec::new()).unwrap_err();
        assert_eq!(login.handle(&hello(), &mut Vec::new()).unwrap_err().fault, error.fault, "{what}");
    }
    let mut endless = login(secret(), BackendTls::Off);
    let mut out = Vec::new();
    assert!(endless.handle(&hello(), &mut out).is_ok());
    let mut sequence = 2;
    let fault = loop {
        match endless.handle(&switch(sequence, "mysql_native_password", NONCE), &mut out) {
            Ok(_) => sequence += 2,
            Err(error) => break error.fault,
        }
        assert!(sequence < 100, "never ends");
    };
    assert_eq!(fault.kind, FaultKind::OutOfOrder);
}
