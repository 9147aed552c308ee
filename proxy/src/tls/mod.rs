//! TLS over owned, pooled buffers: rustls' unbuffered API behind one narrow type.
//!
//! Receive: the kernel fills a pooled buffer, rustls decrypts in it, one copy brings the plain text into the
//! lane's buffer. Send: rustls encrypts from the lane's buffer straight into a pooled send buffer. No buffer
//! belongs to a connection that has nothing in flight. Everything else of the crate sees [`Tls`] alone, so a
//! change of rustls' interface is a change of this file.

pub mod config;

use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, InsufficientSizeError, UnbufferedStatus};
use rustls::{ClientConfig, Error, ServerConfig};

use crate::net::buffer::Buf;

/// Head of a TLS record: type, version, 16-bit length.
const RECORD_HEAD_BYTES: usize = 5;
/// The longest plain text of one record (RFC 8446 section 5.1).
const RECORD_PLAIN_BYTES_MAX: usize = 1 << 14;
/// What one record adds to its plain text, generously: head, inner type, explicit nonce, tag.
const RECORD_OVERHEAD_BYTES: usize = 64;
/// What one record adds at least: head, inner type and tag of TLS 1.3.
const RECORD_OVERHEAD_BYTES_MIN: usize = RECORD_HEAD_BYTES + 17;

/// One TLS connection of either role.
pub struct Tls {
    role: Role,
    /// Records made outside of a write (handshake, key update, alerts), in order, to be sent before the next data.
    control: Vec<u8>,
    peer_closed: bool,
    failed: Option<Error>,
}

// Both are large and live as long as the session; the box keeps the session's own future small.
enum Role {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

/// What one turn of the record layer came to.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Again,
    Blocked,
    PeerClosed,
}

impl Tls {
    /// The gateway's side towards a client.
    pub fn server(config: Arc<ServerConfig>) -> Result<Tls, Error> {
        Ok(Tls::new(Role::Server(Box::new(UnbufferedServerConnection::new(config)?))))
    }

    /// The gateway's side towards a database. The first flight is in [`Tls::take_control`] after one `read`.
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Tls, Error> {
        Ok(Tls::new(Role::Client(Box::new(UnbufferedClientConnection::new(config, name)?))))
    }

    fn new(role: Role) -> Tls {
        Tls { role, control: Vec::new(), peer_closed: false, failed: None }
    }

    /// Decrypts what `cipher` holds and appends it to `plain`, as far as whole records go and room is there.
    /// Consumed records leave `cipher`.
    ///
    /// Errors: the peer broke TLS or was not accepted; the alert for it stands in [`Tls::take_control`]. A
    /// failed connection fails the same way for ever.
    pub fn read(&mut self, cipher: &mut Buf, plain: &mut Buf) -> Result<(), Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        loop {
            if let Some(record) = whole_record(cipher.filled())
                && record > plain.room() + RECORD_OVERHEAD_BYTES_MIN
                && self.is_established()
            {
                return Ok(());
            }
            let (discard, turn) = {
                let records = cipher.filled_mut();
                match &mut self.role {
                    Role::Server(conn) => turn(conn.process_tls_records(records), plain, &mut self.control),
                    Role::Client(conn) => turn(conn.process_tls_records(records), plain, &mut self.control),
                }
            };
            match turn {
                Ok(turn) => {
                    cipher.consume(discard);
                    match turn {
                        // The usual case, and one look at an empty buffer less.
                        Turn::Again if cipher.is_empty() && self.is_established() && !self.wants_write() => {
                            return Ok(());
                        }
                        Turn::Again => {}
                        // rustls keeps a fragment of a handshake message in the records, where the data behind it
                        // would wait for ever. No peer needs fragments once the handshake is done.
                        Turn::Blocked if self.holds_a_fragment(cipher) => {
                            let error = Error::General("a handshake message in fragments after the handshake".into());
                            self.failed = Some(error.clone());
                            cipher.consume(cipher.len());
                            return Err(error);
                        }
                        Turn::Blocked => return Ok(()),
                        Turn::PeerClosed => {
                            self.peer_closed = true;
                            return Ok(());
                        }
                    }
                }
                Err(error) => {
                    self.failed = Some(error.clone());
                    cipher.consume(cipher.len());
                    self.encode_alert();
                    return Err(error);
                }
            }
        }
    }

    /// Encrypts the front of `plain` into `out` as far as there is room, and says how many bytes of it went.
    /// Control records come first.
    pub fn write(&mut self, plain: &[u8], out: &mut Buf) -> Result<usize, Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut written = 0;
        while written < plain.len() {
            if !self.control.is_empty() {
                if self.control.len() > out.room() {
                    break;
                }
                out.append(&self.control);
                self.control.clear();
            }
            let room = out.room().saturating_sub(RECORD_OVERHEAD_BYTES);
            let chunk = (plain.len() - written).min(RECORD_PLAIN_BYTES_MAX).min(room);
            if chunk == 0 {
                break;
            }
            let text = &plain[written..written + chunk];
            let (control, spare) = (&mut self.control, out.spare_mut());
            let made = match &mut self.role {
                Role::Server(conn) => encrypt(conn.process_tls_records(&mut []), text, spare, control),
                Role::Client(conn) => encrypt(conn.process_tls_records(&mut []), text, spare, control),
            }?;
            // Nothing was made when control records (a key update) became due first: they go out in front.
            if let Some(made) = made {
                out.advance(made);
                written += chunk;
            }
        }
        Ok(written)
    }

    /// Says goodbye: the close_notify record joins the control records.
    pub fn close(&mut self) {
        if self.failed.is_some() {
            return;
        }
        let mut alert = [0u8; 128];
        let made = match &mut self.role {
            Role::Server(conn) => close_notify(conn.process_tls_records(&mut []), &mut alert),
            Role::Client(conn) => close_notify(conn.process_tls_records(&mut []), &mut alert),
        };
        self.control.extend_from_slice(&alert[..made]);
    }

    /// Whether control records wait to be sent.
    pub fn has_control(&self) -> bool {
        !self.control.is_empty()
    }

    /// The control records, to be sent now.
    pub fn take_control(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.control)
    }

    /// Whether the handshake is done.
    pub fn is_established(&self) -> bool {
        match &self.role {
            Role::Server(conn) => !conn.is_handshaking(),
            Role::Client(conn) => !conn.is_handshaking(),
        }
    }

    /// Whether the peer closed its direction properly.
    pub fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// The peer's certificate, verified, once established.
    pub fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        let chain = match &self.role {
            Role::Server(conn) => conn.peer_certificates(),
            Role::Client(conn) => conn.peer_certificates(),
        };
        chain.and_then(<[_]>::first)
    }

    /// How many certificates the peer sent.
    pub fn peer_chain_len(&self) -> usize {
        let chain = match &self.role {
            Role::Server(conn) => conn.peer_certificates(),
            Role::Client(conn) => conn.peer_certificates(),
        };
        chain.map_or(0, <[_]>::len)
    }

    /// The application protocol agreed on.
    pub fn alpn(&self) -> Option<&[u8]> {
        match &self.role {
            Role::Server(conn) => conn.alpn_protocol(),
            Role::Client(conn) => conn.alpn_protocol(),
        }
    }

    /// Whether rustls has records to be collected.
    fn wants_write(&self) -> bool {
        match &self.role {
            Role::Server(conn) => conn.wants_write(),
            Role::Client(conn) => conn.wants_write(),
        }
    }

    fn holds_a_fragment(&self, cipher: &Buf) -> bool {
        !self.peer_closed && self.is_established() && whole_record(cipher.filled()).is_some()
    }

    /// Collects the alert of a failed connection. Only what is queued is asked for: going on to read would bring
    /// rustls back to the records it failed on.
    fn encode_alert(&mut self) {
        let mut nothing = NoPlain;
        loop {
            let (_, turn) = match &mut self.role {
                Role::Server(conn) if conn.wants_write() => {
                    turn(conn.process_tls_records(&mut []), &mut nothing, &mut self.control)
                }
                Role::Client(conn) if conn.wants_write() => {
                    turn(conn.process_tls_records(&mut []), &mut nothing, &mut self.control)
                }
                _ => return,
            };
            if turn.is_err() {
                return;
            }
        }
    }
}

/// Bytes of the record at the front, when it lies there whole.
pub fn whole_record(cipher: &[u8]) -> Option<usize> {
    record(cipher).filter(|len| cipher.len() >= *len)
}

/// Bytes of the record whose head is at the front, as the head says. More than 18 KiB is an error of the
/// peer that rustls finds before it looks further.
pub fn record(cipher: &[u8]) -> Option<usize> {
    let head = cipher.get(..RECORD_HEAD_BYTES)?;
    Some(RECORD_HEAD_BYTES + usize::from(u16::from_be_bytes([head[3], head[4]])))
}

/// Where decrypted bytes go.
trait Plain {
    fn take(&mut self, bytes: &[u8]) -> bool;
}

impl Plain for Buf {
    /// Grows the buffer where it must: behind records without payload (the end of the handshake, a key update) there
    /// may stand one that is larger than the room that was looked at.
    fn take(&mut self, bytes: &[u8]) -> bool {
        self.reserve(bytes.len());
        self.append(bytes) == bytes.len()
    }
}

/// For turns in which no application data can appear, since no record was offered.
struct NoPlain;

impl Plain for NoPlain {
    fn take(&mut self, bytes: &[u8]) -> bool {
        bytes.is_empty()
    }
}

fn turn<D>(
    status: UnbufferedStatus<'_, '_, D>,
    plain: &mut impl Plain,
    control: &mut Vec<u8>,
) -> (usize, Result<Turn, Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let turn = match state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                None => break Ok(Turn::Again),
                Some(Err(error)) => break Err(error),
                Some(Ok(record)) => {
                    discard += record.discard;
                    if !plain.take(record.payload) {
                        break Err(Error::General("plain text beyond the room offered".into()));
                    }
                }
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let at = control.len();
            let made = match data.encode(&mut []) {
                Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                    control.resize(at + required_size, 0);
                    data.encode(&mut control[at..])
                }
                other => other,
            };
            match made {
                Ok(made) => {
                    control.truncate(at + made);
                    Ok(Turn::Again)
                }
                Err(_) => Err(Error::General("a control record could not be encoded".into())),
            }
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Turn::Again)
        }
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Turn::PeerClosed),
        Ok(ConnectionState::ReadEarlyData(_)) => Err(Error::General("early data is never accepted".into())),
        Ok(_) => Ok(Turn::Blocked),
    };
    (discard, turn)
}

/// Encrypts `text` as one record into `out`, or puts the control record that is due first into `control`.
fn encrypt<D>(
    status: UnbufferedStatus<'_, '_, D>,
    text: &[u8],
    out: &mut [u8],
    control: &mut Vec<u8>,
) -> Result<Option<usize>, Error> {
    let failed = |e: rustls::unbuffered::EncryptError| Error::General(e.to_string());
    match status.state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => traffic.encrypt(text, out).map(Some).map_err(failed),
        // Reported once; our own direction stays open.
        Ok(ConnectionState::PeerClosed) => Ok(None),
        Ok(ConnectionState::BlockedHandshake) => Err(Error::HandshakeNotComplete),
        state => match turn(UnbufferedStatus { discard: 0, state }, &mut NoPlain, control).1? {
            Turn::Again => Ok(None),
            Turn::Blocked | Turn::PeerClosed => Err(Error::HandshakeNotComplete),
        },
    }
}

fn close_notify<D>(status: UnbufferedStatus<'_, '_, D>, out: &mut [u8]) -> usize {
    match status.state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => traffic.queue_close_notify(out).unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::buffer::Pool;

    fn pair() -> (Tls, Tls) {
        let key = || rcgen::KeyPair::generate().expect("a key");
        let (ca_key, server_key, client_key) = (key(), key(), key());
        let mut ca = rcgen::CertificateParams::new(Vec::new()).expect("names");
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_cert = ca.self_signed(&ca_key).expect("a CA");
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let leaf = |key: &rcgen::KeyPair, usage| {
            let mut params = rcgen::CertificateParams::new(vec!["localhost".into()]).expect("names");
            params.extended_key_usages = vec![usage];
            let cert = params.signed_by(key, &issuer).expect("a certificate");
            let der = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
            (vec![cert.der().clone()], der.into())
        };
        let roots = [ca_cert.der().clone()];
        let kx = [crate::config::KeyExchange::X25519MlKem768];
        let server_identity = leaf(&server_key, rcgen::ExtendedKeyUsagePurpose::ServerAuth);
        let server = config::server(server_identity, &roots, None, false, &kx);
        let identity = leaf(&client_key, rcgen::ExtendedKeyUsagePurpose::ClientAuth);
        let client = config::client(config::Check::Full, &roots, Some(identity), None).expect("a client");
        let name = ServerName::try_from("localhost").expect("a name");
        let server = Tls::server(Arc::new(server.expect("a server"))).expect("TLS");
        (server, Tls::client(Arc::new(client), name).expect("TLS"))
    }

    fn shake_hands(pool: &std::rc::Rc<Pool>, server: &mut Tls, client: &mut Tls) {
        let (mut to_server, mut to_client) = (pool.large(), pool.large());
        let mut plain = pool.large();
        while !(server.is_established() && client.is_established()) {
            client.read(&mut to_client, &mut plain).expect("client");
            to_server.append(&client.take_control());
            server.read(&mut to_server, &mut plain).expect("server");
            to_client.append(&server.take_control());
        }
        assert!(plain.is_empty());
    }

    #[test]
    fn records_are_read_into_whatever_room_there_is_and_none_is_lost() {
        let pool = Pool::new(4 << 10, 32 << 10);
        let (mut server, mut client) = pair();
        shake_hands(&pool, &mut server, &mut client);
        let sent: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
        let mut rest = sent.as_slice();
        let mut received = Vec::new();
        let mut cipher = pool.at_least(200_000);
        while received.len() < sent.len() {
            while !rest.is_empty() && cipher.room() > 17_000 {
                let mut out = pool.large();
                let chunk = rest.len().min(16_384);
                let taken = client.write(&rest[..chunk], &mut out).expect("written");
                rest = &rest[taken..];
                cipher.append(out.filled());
            }
            // Room for the payload of the next record and not a byte more: the tightest that must do.
            let record = whole_record(cipher.filled()).expect("a record");
            let mut plain = pool.at_least(record - RECORD_OVERHEAD_BYTES_MIN);
            plain.advance(plain.room() - (record - RECORD_OVERHEAD_BYTES_MIN));
            let before = plain.len();
            server.read(&mut cipher, &mut plain).expect("read");
            assert!(plain.len() > before);
            received.extend_from_slice(&plain.filled()[before..]);
            cipher.compact();
        }
        assert_eq!(received, sent);
    }

    #[test]
    fn a_client_without_a_good_certificate_gets_an_alert() {
        let pool = Pool::new(4 << 10, 32 << 10);
        let (mut server, _) = pair();
        // Another authority's client, which trusts this server's name only by chance of not getting that far.
        let (_, mut foreign) = pair();
        let (mut to_server, mut to_client, mut plain) = (pool.large(), pool.large(), pool.large());
        let mut failed = None;
        for _ in 0..8 {
            if let Err(error) = foreign.read(&mut to_client, &mut plain) {
                failed = Some(error);
            }
            to_server.append(&foreign.take_control());
            if let Err(error) = server.read(&mut to_server, &mut plain) {
                assert!(failed.is_some());
                // The server hears of it by the client's alert and says nothing more.
                assert!(matches!(error, Error::AlertReceived(_)), "{error:?}");
                assert!(server.read(&mut to_server, &mut plain).is_err());
                return;
            }
            to_client.append(&server.take_control());
        }
        panic!("nobody objected: {failed:?}");
    }
}
