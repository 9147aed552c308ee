//! The front of a client connection.

use super::*;
use crate::testing::Random;
use crate::{FaultKind, Refusal, RefusalKind};

fn fresh() -> MysqlOpening {
    let mut opening = Mysql::opening(&[], [9; 32]);
    opening.start(&mut Vec::new());
    opening
}

/// The front of a HandshakeResponse41: an SSLRequest.
fn tls_request(sequence: u8) -> Vec<u8> {
    let response = response(sequence, OK | capability::SSL, "alice", "caching_sha2_password", b"");
    packet(sequence, &response[4..36])
}

#[test]
fn greets_as_the_server_that_was_learnt_with_only_what_it_has() {
    let mut opening = Mysql::opening(&[Arc::new(server(OK))], [9; 32]);
    let mut out = Vec::new();
    opening.start(&mut out);
    let read = super::super::greeting::read(&out).unwrap();
    assert_eq!(read.server.version(), "8.4.0-test");
    assert_eq!(read.plugin, b"caching_sha2_password");
    assert!(read.connection >= 1 << 31 && Some(read.connection) == Mysql::told_id(&opening));
    assert_eq!(read.nonce.len(), 20);
    assert!(read.nonce.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'$'));
    let offered = read.server.capabilities();
    assert_eq!(offered & capability::SSL, capability::SSL);
    assert_eq!(offered & !(OK | capability::SSL), 0);
    // Compression in either form, files, and what no one has.
    for absent in
        [1 << 5, 1 << 26, capability::LOCAL_FILES, capability::OPTIONAL_METADATA, capability::QUERY_ATTRIBUTES]
    {
        assert_eq!(offered & absent, 0);
    }
}

#[test]
fn greets_as_mariadb_does_with_its_own_capabilities() {
    let mut opening = Mysql::opening(&[Arc::new(server(MARIADB))], [9; 32]);
    let mut out = Vec::new();
    opening.start(&mut out);
    let read = super::super::greeting::read(&out).unwrap();
    assert!(read.server.is_mariadb());
    assert_eq!(read.plugin, b"mysql_native_password");
    assert_eq!(read.server.capabilities() & (0xffff << 32), MARIADB & (0xffff << 32));
}

#[test]
fn greets_with_what_several_servers_share_and_the_lowest_version() {
    let (newer, older) = (server(OK).with_version("9.7.0"), server(EOF).with_version("5.7.44"));
    let mut opening = Mysql::opening(&[Arc::new(newer), Arc::new(older), Arc::new(server(MARIADB))], [9; 32]);
    let mut out = Vec::new();
    opening.start(&mut out);
    let read = super::super::greeting::read(&out).unwrap();
    assert_eq!(read.server.version(), "5.7.44");
    assert_eq!(read.server.capabilities() & capability::DEPRECATE_EOF, 0);
    assert!(!read.server.is_mariadb());
    assert_eq!(read.server.capabilities() >> 32, 0);
}

#[test]
fn reads_who_wants_what_after_the_upgrade_to_tls() {
    let mut opening = fresh();
    let mut out = Vec::new();
    let request = tls_request(1);
    for len in 0..request.len() {
        let opened = opening.handle(&request[..len], false, &mut out);
        assert!(matches!(opened, Ok(Opened::Need { need }) if need > len), "{len}: {opened:?}");
    }
    // The ClientHello may stand behind it: it is not looked at here.
    let with_hello = [request.clone(), b"\x16\x03\x01".to_vec()].concat();
    assert!(matches!(opening.handle(&with_hello, false, &mut out), Ok(Opened::StartTls { len: 36 })));
    let response = response(2, EOF | capability::SSL, "alice", "caching_sha2_password", &[1; 32]);
    for len in 0..response.len() {
        assert!(matches!(opening.handle(&response[..len], true, &mut out), Ok(Opened::Need { need }) if need > len));
    }
    match opening.handle(&response, true, &mut out) {
        Ok(Opened::Startup { len, startup }) => {
            assert_eq!((len, startup.user, startup.database), (response.len(), "alice", "app"));
            assert_eq!(startup.user_agent, "libmysql");
            assert_eq!(startup.parameters, [("_client_name", "libmysql"), ("_client_version", "8.0.40")]);
        }
        other => panic!("{other:?}"),
    }
    assert!(out.is_empty(), "nothing is said between TLS request and sign-in");
    assert_eq!(opening.sequence(), 3);
}

#[test]
fn refuses_a_session_without_tls_in_words_the_client_reads() {
    let mut opening = fresh();
    let mut out = Vec::new();
    let fault = opening.handle(&response(1, EOF, "alice", "", b""), false, &mut out).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Denied);
    let refusal = Refusal { kind: RefusalKind::NotAuthorized, message: fault.what, detail: "", hint: "" };
    Mysql::refuse(&mut opening, &refusal, &mut out);
    assert_eq!(out, packet(2, b"\xff\x15\x04#28000TLS is required"));
    let again = opening.handle(&response(2, EOF, "alice", "", b""), true, &mut out).unwrap_err();
    assert_eq!(again, fault, "the same for ever");
}

#[test]
fn refuses_before_the_greeting_under_sequence_zero() {
    let mut out = Vec::new();
    let refusal = Refusal { kind: RefusalKind::TooManyConnections, message: "full", detail: "", hint: "" };
    Mysql::refuse(&mut Mysql::opening(&[], [0; 32]), &refusal, &mut out);
    assert_eq!(out, packet(0, b"\xff\x10\x04#08004full"));
}

#[test]
fn refuses_tls_twice_out_of_order_and_where_it_was_not_offered() {
    let mut opening = fresh();
    assert!(matches!(opening.handle(&tls_request(1), false, &mut Vec::new()), Ok(Opened::StartTls { .. })));
    assert_eq!(opening.handle(&tls_request(2), false, &mut Vec::new()).unwrap_err().kind, FaultKind::OutOfOrder);
    let mut plain = Mysql::opening(&[], [0; 32]);
    plain.offer_no_tls();
    plain.start(&mut Vec::new());
    assert_eq!(plain.handle(&tls_request(1), false, &mut Vec::new()).unwrap_err().kind, FaultKind::OutOfOrder);
    assert_eq!(fresh().handle(&tls_request(0), false, &mut Vec::new()).unwrap_err().kind, FaultKind::OutOfOrder);
}

#[test]
fn agrees_on_nothing_that_was_not_offered() {
    let mut opening = Mysql::opening(&[Arc::new(server(EOF))], [0; 32]);
    opening.offer_no_tls();
    opening.start(&mut Vec::new());
    let greedy = 0xffff_ffff & !(capability::SSL | capability::ZSTD);
    let bytes = response(1, greedy, "alice", "mysql_native_password", b"");
    assert!(matches!(opening.handle(&bytes, false, &mut Vec::new()), Ok(Opened::Startup { .. })));
    assert_eq!(opening.asked().agreed & !(EOF | capability::LONG_PASSWORD), 0);
}

#[test]
fn refuses_names_that_the_server_would_cut_and_parts_that_do_not_fit() {
    let mut long = fresh();
    let bytes = response(1, EOF, &"u".repeat(33), "", b"");
    assert_eq!(long.handle(&bytes, true, &mut Vec::new()).unwrap_err().kind, FaultKind::Denied);
    let mut trailing = response(1, EOF, "alice", "", b"")[4..].to_vec();
    trailing.push(1);
    let bytes = packet(1, &trailing);
    assert_eq!(fresh().handle(&bytes, true, &mut Vec::new()).unwrap_err().kind, FaultKind::Malformed);
    let mut nameless = fresh();
    let bytes = response(1, EOF, "", "", b"");
    assert_eq!(nameless.handle(&bytes, true, &mut Vec::new()).unwrap_err().kind, FaultKind::Denied);
    for (what, bytes) in [
        ("too long", packet(1, &[0xff; 20_000])),
        ("too short", packet(1, &[0xff; 31])),
        ("from before 4.1", packet(1, &[0; 40])),
        ("TLS", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec()),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
    ] {
        assert!(fresh().handle(&bytes, true, &mut Vec::new()).is_err(), "{what}");
    }
}

#[test]
fn every_truncation_within_a_whole_packet_is_refused_or_means_the_same() {
    let whole = response(1, EOF, "alice", "mysql_native_password", &[5; 20])[4..].to_vec();
    let mut refused = 0;
    for len in 32..whole.len() {
        let mut opening = fresh();
        let cut = packet(1, &whole[..len]);
        match opening.handle(&cut, true, &mut Vec::new()) {
            Err(fault) => {
                assert_eq!(fault.kind, FaultKind::Malformed, "{len}");
                refused += 1;
            }
            Ok(Opened::Startup { startup, .. }) => assert_eq!(startup.user, "alice", "{len}"),
            other => panic!("{len}: {other:?}"),
        }
    }
    assert!(refused > 60);
}

#[test]
fn any_bytes_from_a_client_are_bounded_and_end_the_same_way_twice() {
    for seed in 0..2000 {
        let mut random = Random(seed);
        let mut bytes = random.bytes(120);
        if seed % 2 == 0 {
            bytes = response(1, OK, "alice", "x", &bytes[..bytes.len().min(60)]);
            let at = random.below(bytes.len() - 4) + 4;
            bytes[at] = bytes[at].wrapping_add(1 + u8::try_from(random.below(255)).unwrap());
        }
        let mut opening = fresh();
        match opening.handle(&bytes, true, &mut Vec::new()) {
            Ok(Opened::Need { need }) => assert!(need > bytes.len() && need <= 16 * 1024),
            Ok(_) => {}
            Err(fault) => assert_eq!(opening.handle(&bytes, true, &mut Vec::new()).unwrap_err(), fault),
        }
    }
}

#[test]
fn knows_which_clients_read_the_newer_code() {
    let opening = opened_with(OK, "caching_sha2_password", b"");
    assert_eq!(opening.asked().dialect, Dialect { knows_timeout: true });
}
