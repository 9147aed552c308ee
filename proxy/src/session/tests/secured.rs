//! The pump between a real rustls client and a real rustls server: streams in both directions, in every cut.

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};

use super::*;
use crate::tls::Tls;
use crate::tls::config::{self, Check};

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// One authority for everybody, and a certificate for each side; `names` makes them long.
struct Party {
    roots: Vec<CertificateDer<'static>>,
    server: Identity,
    client: Identity,
}

fn party(names: usize) -> Party {
    let key = || rcgen::KeyPair::generate().expect("a key");
    let (ca_key, server_key, client_key) = (key(), key(), key());
    let mut ca = rcgen::CertificateParams::new(Vec::new()).expect("names");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let roots = vec![ca.self_signed(&ca_key).expect("a CA").der().clone()];
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let leaf = |key: &rcgen::KeyPair, usage| {
        let mut all = vec!["localhost".to_owned()];
        all.extend((0..names).map(|n| format!("a-rather-long-name-number-{n}.of.a.large.certificate.example")));
        let mut params = rcgen::CertificateParams::new(all).expect("names");
        params.extended_key_usages = vec![usage];
        let cert = params.signed_by(key, &issuer).expect("a certificate");
        (vec![cert.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    };
    let server = leaf(&server_key, rcgen::ExtendedKeyUsagePurpose::ServerAuth);
    let client = leaf(&client_key, rcgen::ExtendedKeyUsagePurpose::ClientAuth);
    Party { roots, server, client }
}

impl Party {
    fn client(&self, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.roots[0].clone()).expect("a root");
        let config = ClientConfig::builder_with_provider(config::provider())
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots)
            .with_client_auth_cert(self.client.0.clone(), self.client.1.clone_key())
            .expect("a client");
        Arc::new(config)
    }

    /// The gateway's own two configurations; the database's is the same as the one for clients.
    fn gateway(&self) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
        let server = (self.server.0.clone(), self.server.1.clone_key());
        let client = (self.client.0.clone(), self.client.1.clone_key());
        let server =
            config::server(server, &self.roots, None, false, &[crate::config::KeyExchange::X25519]).expect("a server");
        let client = config::client(Check::Full, &self.roots, Some(client), None).expect("a client");
        (Arc::new(server), Arc::new(client))
    }
}

fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a name")
}

/// A socket that writes in pieces: of one byte for a while, then of random sizes.
struct Cut {
    inner: UnixStream,
    single: usize,
    seed: u64,
}

impl Cut {
    fn new(inner: UnixStream, single: usize) -> Cut {
        inner.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        inner.set_write_timeout(Some(Duration::from_secs(20))).expect("a limit");
        Cut { inner, single, seed: 0x9E37_79B9_7F4A_7C15 }
    }
}

impl Read for Cut {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.inner.read(buf)
    }
}

impl Write for Cut {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        let piece = if self.single > 0 { 1 } else { usize::try_from(self.seed % 50_000).expect("small") + 1 };
        self.single = self.single.saturating_sub(1);
        self.inner.write(&buf[..piece.min(buf.len())])
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Bytes that say where they are, so that a loss, a doubling or a swap shows.
fn pattern(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|n| ((n * 31) ^ (n >> 8) ^ (n >> 16)) as u8).collect()
}

/// Frames of `tag` in sizes that fall on every side of a record, `total` bytes of body in all.
fn frames(tag: u8, total: usize) -> Vec<u8> {
    let sizes = [1, 0, 7, 530, 100, 16_384, 33, 40_000, 16_379, 2, 70_000, 16_362, 5, 5, 5, 4096];
    let mut bytes = Vec::new();
    let mut done = 0;
    for size in sizes.iter().cycle() {
        let size = (total - done).min(*size).max(2);
        bytes.extend(frame(tag, &pattern(done, size)));
        done += size;
        if done >= total {
            return bytes;
        }
    }
    bytes
}

fn receive(stream: &mut impl Read, expected: &[u8]) {
    let mut at = 0;
    let mut piece = vec![0; 100_000];
    while at < expected.len() {
        let want = piece.len().min(expected.len() - at);
        let n = stream.read(&mut piece[..want]).expect("bytes");
        assert!(n > 0, "an end after {at} of {} bytes", expected.len());
        assert!(piece[..n] == expected[at..at + n], "other bytes between {at} and {}", at + n);
        at += n;
    }
}

fn stream_through(
    driver: Driver,
    version: &'static SupportedProtocolVersion,
    names: usize,
    total: usize,
    single: usize,
) {
    let mut world = World::new();
    world.run(driver, async |core| {
        let Wires { mut client, mut backend, client_far, backend_far } = wires(&core);
        let party = party(names);
        let (for_clients, for_databases) = party.gateway();
        let database = for_clients.clone();
        let user = party.client(version);
        let peers = std::thread::spawn(move || {
            let server = std::thread::spawn(move || {
                let connection = ServerConnection::new(database).expect("a server");
                let mut tls = StreamOwned::new(connection, Cut::new(backend_far, single));
                let mut hello = frame(b'K', &[0, 0, 0, 9, 1, 2, 3, 4]);
                hello.extend(frame(b'Z', b"I"));
                tls.write_all(&hello).expect("hello");
                let query = frame(b'Q', b"copy\0");
                receive(&mut tls, &query);
                let mut head = frame(b'T', b"\0\0");
                head.extend(frames(b'D', total));
                tls.write_all(&head).expect("rows");
                receive(&mut tls, &frames(b'd', total));
                let mut reply = frame(b'C', b"SELECT 1\0");
                reply.extend(frame(b'Z', b"I"));
                for byte in reply {
                    tls.write_all(&[byte]).expect("a tiny record");
                }
                receive(&mut tls, &frame(b'X', b""));
            });
            let connection = ClientConnection::new(user, name()).expect("a client");
            let mut tls = StreamOwned::new(connection, Cut::new(client_far, single));
            // Its first words lie right behind its Finished.
            tls.write_all(&frame(b'Q', b"copy\0")).expect("query");
            tls.conn.refresh_traffic_keys().ok();
            receive_len(&mut tls, 9 + 13 + 6);
            // Both directions at once would need two threads on one connection: rows first, then ours.
            receive(&mut tls, &frame(b'T', b"\0\0"));
            receive(&mut tls, &frames(b'D', total));
            tls.write_all(&frames(b'd', total)).expect("data");
            let mut reply = frame(b'C', b"SELECT 1\0");
            reply.extend(frame(b'Z', b"I"));
            receive(&mut tls, &reply);
            tls.write_all(&frame(b'X', b"")).expect("goodbye");
            tls.conn.send_close_notify();
            tls.flush().expect("close");
            server.join().expect("server");
            // A proper end of TLS, not a cut.
            let mut nothing = [0; 1];
            assert_eq!(tls.read(&mut nothing).expect("close_notify"), 0);
        });
        client.start_tls(Tls::server(for_clients).expect("TLS"), None).await.expect("the client's handshake");
        let tls = Tls::client(for_databases, name()).expect("TLS");
        backend.start_tls(tls, None).await.expect("the database's handshake");
        let (mut pump, _) = pump(&core, machine(), client, backend);
        let end = pump.run().await;
        pump.close(end).await;
        while !peers.is_finished() {
            crate::net::sleep(Duration::from_millis(1)).await;
        }
        peers.join().expect("peers");
        assert_eq!(end, End::Client);
        // A receive that was in flight gives its buffer back when its cancellation completes.
        let limit = Instant::now() + Duration::from_secs(10);
        while core.pool.live_bytes() > 0 && Instant::now() < limit {
            crate::net::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(core.pool.live_bytes(), 0, "buffers kept on {}", driver.word());
    });
}

fn receive_len(stream: &mut impl Read, len: usize) {
    stream.read_exact(&mut vec![0; len]).expect("bytes");
}

#[test]
fn streams_through_tls_13_arrive_whole_in_both_directions() {
    for driver in BOTH {
        stream_through(driver, &rustls::version::TLS13, 0, 16 << 20, 0);
    }
}

#[test]
fn streams_through_tls_12_arrive_whole_in_both_directions() {
    for driver in BOTH {
        stream_through(driver, &rustls::version::TLS12, 0, 4 << 20, 0);
    }
}

#[test]
fn segments_of_one_byte_change_nothing() {
    for driver in BOTH {
        for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
            stream_through(driver, version, 0, 200_000, 20_000);
        }
    }
}

#[test]
fn certificates_larger_than_a_small_buffer_pass_the_handshake() {
    for driver in BOTH {
        for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
            stream_through(driver, version, 120, 1000, 0);
        }
    }
}

#[test]
fn records_right_behind_the_handshake_are_read_whatever_their_size() {
    for driver in BOTH {
        let mut world = World::new();
        world.run(driver, async |core| {
            let Wires { mut client, client_far, .. } = wires(&core);
            let party = party(0);
            let (for_clients, _) = party.gateway();
            let user = party.client(&rustls::version::TLS13);
            let sent = pattern(0, 60_000);
            let expected = sent.clone();
            let peer = std::thread::spawn(move || {
                let connection = ClientConnection::new(user, name()).expect("a client");
                // One segment holds the end of the handshake and all the data.
                let mut connection = connection;
                let mut socket = client_far;
                while connection.is_handshaking() {
                    while connection.wants_write() {
                        connection.write_tls(&mut socket).expect("hello");
                    }
                    connection.read_tls(&mut socket).expect("flight");
                    connection.process_new_packets().expect("a handshake");
                }
                connection.set_buffer_limit(None);
                connection.writer().write_all(&sent).expect("data");
                let mut all = Vec::new();
                while connection.wants_write() {
                    connection.write_tls(&mut all).expect("records");
                }
                socket.write_all(&all).expect("one piece");
                socket
            });
            client.start_tls(Tls::server(for_clients).expect("TLS"), None).await.expect("a handshake");
            client.fill(60_000).await.expect("the data");
            assert!(client.plain.filled() == expected);
            drop(peer.join().expect("peer"));
        });
    }
}
