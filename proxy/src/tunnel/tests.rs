//! The tunnel against a real TLS server.

use std::io::{Read as _, Write as _};
use std::sync::mpsc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};

use super::*;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn leaf(&self, name: &str, purpose: ExtendedKeyUsagePurpose) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    fn credential(&self, name: &str) -> Credential {
        let (cert, key) = self.leaf(name, ExtendedKeyUsagePurpose::ClientAuth);
        Credential { cert_pem: cert.pem(), key_pem: key.serialize_pem().into(), not_after_unix: i64::MAX }
    }

    fn server(&self) -> Arc<ServerConfig> {
        let (cert, key) = self.leaf("localhost", ExtendedKeyUsagePurpose::ServerAuth);
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Arc::new(config)
    }
}

type Tls = rustls::StreamOwned<ServerConnection, TcpStream>;

/// Accepts connections and gives each to `each` after its handshake.
fn gateway(config: Arc<ServerConfig>, each: impl Fn(Tls) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            each(rustls::StreamOwned::new(connection, socket.unwrap()));
        }
    });
    address
}

fn tunnel(authority: &Authority, gateway: SocketAddr, listen: Listen) -> Listen {
    tunnel_for(Speech::Postgres, authority, gateway, listen)
}

fn tunnel_for(speech: Speech, authority: &Authority, gateway: SocketAddr, listen: Listen) -> Listen {
    let (tell, told) = mpsc::channel();
    let options = TunnelOptions {
        listen,
        speech,
        gateway,
        server_name: "localhost".to_owned(),
        ca_pem: authority.0.pem(),
        credential: authority.credential("alice"),
        renew: Box::new(|| Err("not in this test".to_owned())),
    };
    std::thread::spawn(move || run(options, |bound| tell.send(bound.clone()).unwrap()));
    told.recv().unwrap()
}

fn loopback() -> Listen {
    Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn connect(bound: &Listen) -> TcpStream {
    let Listen::Tcp(address) = bound else { panic!("not TCP") };
    TcpStream::connect(address).unwrap()
}

fn startup() -> Vec<u8> {
    let mut message = 17u32.to_be_bytes().to_vec();
    message.extend(196_608u32.to_be_bytes());
    message.extend(b"user\0a\0\0\0");
    message
}

/// Answers the startup message with `R`, then gives back every byte.
fn echo(mut tls: Tls) {
    let mut head = vec![0; startup().len()];
    tls.read_exact(&mut head).unwrap();
    assert_eq!(head, startup());
    assert_eq!(tls.conn.alpn_protocol(), Some(&b"postgresql"[..]));
    assert!(tls.conn.peer_certificates().is_some());
    tls.write_all(b"R").unwrap();
    let mut buffer = vec![0; 8192];
    while let Ok(count) = tls.read(&mut buffer) {
        if count == 0 || tls.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    tls.conn.send_close_notify();
    let _ = tls.flush();
}

#[test]
fn a_plain_client_is_carried_both_ways_with_the_certificate() {
    let authority = Authority::new();
    let address = gateway(authority.server(), |tls| drop(std::thread::spawn(move || echo(tls))));
    let mut client = connect(&tunnel(&authority, address, loopback()));
    client.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
    let mut byte = [0];
    client.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"N");
    client.write_all(&startup()).unwrap();
    client.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"R");

    // More than all buffers on the way hold, so that both directions have to run at once.
    let sent: Vec<u8> = (0..4_000_000u32).map(|i| (i % 251) as u8).collect();
    let mut writer = client.try_clone().unwrap();
    let copy = sent.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&copy).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    writing.join().unwrap();
    assert!(got == sent, "{} bytes of {}", got.len(), sent.len());
}

#[test]
fn a_cancel_request_travels_on_a_connection_of_its_own() {
    let authority = Authority::new();
    let (tell, told) = mpsc::channel();
    let address = gateway(authority.server(), move |mut tls| {
        let mut message = Vec::new();
        tls.read_to_end(&mut message).unwrap();
        tell.send(message).unwrap();
    });
    let cancel = [0, 0, 0, 16, 4, 210, 22, 46, 1, 2, 3, 4, 5, 6, 7, 8];
    let mut client = connect(&tunnel(&authority, address, loopback()));
    client.write_all(&cancel).unwrap();
    assert_eq!(told.recv().unwrap(), cancel);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_redis_client_is_carried_from_its_first_byte() {
    let authority = Authority::new();
    let (tell, told) = mpsc::channel();
    let address = gateway(authority.server(), move |mut tls| {
        let mut command = [0; 14];
        tls.read_exact(&mut command).unwrap();
        tls.write_all(b"+PONG\r\n").unwrap();
        tls.conn.send_close_notify();
        tls.flush().unwrap();
        tell.send((command, tls.conn.alpn_protocol().map(<[u8]>::to_vec))).unwrap();
    });
    let mut client = connect(&tunnel_for(Speech::Redis, &authority, address, loopback()));
    client.write_all(b"*1\r\n$4\r\nPING\r\n").unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"+PONG\r\n");
    assert_eq!(told.recv().unwrap(), (*b"*1\r\n$4\r\nPING\r\n", None));
}

#[test]
fn a_redis_client_is_told_in_its_own_words_that_there_is_no_gateway() {
    let authority = Authority::new();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut client = connect(&tunnel_for(Speech::Redis, &authority, nobody, loopback()));
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("-ERR ringgate: the gateway at 127.0.0.1"), "{answer}");
    assert!(answer.ends_with("\r\n") && answer.matches('\n').count() == 1, "{answer}");
}

#[test]
fn a_gateway_of_another_authority_is_not_spoken_to() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let address = gateway(theirs.server(), |tls| {
        drop(std::thread::spawn(move || {
            let mut tls = tls;
            let mut seen = Vec::new();
            assert!(tls.read_to_end(&mut seen).is_err());
            assert!(seen.is_empty());
        }))
    });
    let mut client = connect(&tunnel(&ours, address, loopback()));
    client.write_all(&startup()).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with('E') && answer.contains("C08006") && answer.contains("cannot be reached"), "{answer}");
}

#[test]
fn a_unix_socket_is_private_and_only_a_dead_one_is_replaced() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    drop(UnixListener::bind(&path).unwrap());
    let listener = bind_private(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(bind_private(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    drop(listener);
    let file = dir.path().join("f");
    std::fs::write(&file, "x").unwrap();
    assert!(bind_private(&file).is_err());
    assert_eq!(std::fs::read(&file).unwrap(), b"x");
}
