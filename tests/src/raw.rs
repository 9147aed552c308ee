//! A client that sends whatever bytes a test wants, with and without TLS.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use rustls::{ClientConnection, StreamOwned};

use crate::{
    db_config::DbConfig,
    tls,
    wire::{self, Message},
};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// One connection to the gateway.
pub struct Raw(Stream);

impl Raw {
    /// A TCP connection, nothing sent.
    pub fn tcp(db: &DbConfig) -> Raw {
        let stream = TcpStream::connect((db.host.as_str(), db.port)).expect("the listener is up");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
        Raw(Stream::Plain(stream))
    }

    /// SSLRequest, `S`, handshake with the login's certificate. The server may still refuse the certificate later:
    /// in TLS 1.3 the client is done before the server has looked.
    pub fn tls(db: &DbConfig) -> io::Result<Raw> {
        Raw::tcp(db).start_tls(db, true)
    }

    /// SSLRequest, `S`, handshake without a client certificate.
    pub fn tls_without_certificate(db: &DbConfig) -> io::Result<Raw> {
        Raw::tcp(db).start_tls(db, false)
    }

    fn start_tls(mut self, db: &DbConfig, with_certificate: bool) -> io::Result<Raw> {
        self.send(&wire::untagged(wire::SSL_REQUEST, b""))?;
        let answer = self.read_byte()?;
        assert_eq!(answer, Some(b'S'), "answer to SSLRequest");
        self.handshake(db, with_certificate, &[])
    }

    /// The TLS handshake on a connection where the plain part is done.
    pub fn handshake(self, db: &DbConfig, with_certificate: bool, alpn: &[&[u8]]) -> io::Result<Raw> {
        let Stream::Plain(mut stream) = self.0 else { panic!("TLS twice") };
        let mut connection =
            ClientConnection::new(tls::client_config(db, with_certificate, alpn), tls::server_name(db))
                .expect("a TLS client");
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(Raw(Stream::Tls(Box::new(StreamOwned::new(connection, stream)))))
    }

    /// Logged in as `db` says, up to the first ReadyForQuery.
    #[track_caller]
    pub fn login(db: &DbConfig) -> Raw {
        Raw::login_with(db, wire::VERSION_3_0, &[]).0
    }

    /// Logged in with further startup parameters; also gives all messages up to the first ReadyForQuery.
    #[track_caller]
    pub fn login_with(db: &DbConfig, version: u32, more: &[(&str, &str)]) -> (Raw, Vec<Message>) {
        let mut raw = Raw::tls(db).expect("TLS to the gateway");
        let mut parameters = vec![("user", db.user.as_str()), ("database", db.database.as_str())];
        parameters.extend_from_slice(more);
        raw.send(&wire::startup(version, &parameters)).expect("startup is sent");
        let messages = raw.read_to_ready();
        (raw, messages)
    }

    /// Sends all bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.0 {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// One byte, or `None` at the end.
    pub fn read_byte(&mut self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        Ok((self.read(&mut byte)? == 1).then_some(byte[0]))
    }

    /// One message, or `None` at the end.
    pub fn read_message(&mut self) -> io::Result<Option<Message>> {
        Message::read(self)
    }

    /// Messages up to and with ReadyForQuery. Panics when the connection ends before.
    #[track_caller]
    pub fn read_to_ready(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            match self.read_message() {
                Ok(Some(message)) => {
                    let ready = message.tag == b'Z';
                    messages.push(message);
                    if ready {
                        return messages;
                    }
                }
                other => panic!("{other:?} before ReadyForQuery, after {messages:?}"),
            }
        }
    }

    /// Sends and reads to ReadyForQuery.
    #[track_caller]
    pub fn ask(&mut self, bytes: &[u8]) -> Vec<Message> {
        self.send(bytes).expect("the connection is open");
        self.read_to_ready()
    }

    /// The single value that a query gives.
    #[track_caller]
    pub fn value(&mut self, sql: &str) -> String {
        let messages = self.ask(&wire::query(sql));
        let row = messages.iter().find(|m| m.tag == b'D').unwrap_or_else(|| panic!("no row in {messages:?}"));
        row.first_column()
    }

    /// All messages until the other side closes. Panics when it does not.
    #[track_caller]
    pub fn read_to_close(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            match self.read_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => return messages,
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    panic!("the connection is still open after {messages:?}")
                }
                // A reset, a TLS alert, or an end without close_notify.
                Err(_) => return messages,
            }
        }
    }

    /// Half-closes the sending side.
    pub fn shutdown_write(&mut self) {
        self.socket().shutdown(Shutdown::Write).expect("shutdown");
    }

    /// The TCP socket below.
    pub fn socket(&self) -> &TcpStream {
        match &self.0 {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => &stream.sock,
        }
    }
}

impl Write for Raw {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Stream::Plain(stream) => stream.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Stream::Plain(stream) => stream.flush(),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}

impl Read for Raw {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Stream::Plain(stream) => stream.read(into),
            Stream::Tls(stream) => stream.read(into),
        }
    }
}
