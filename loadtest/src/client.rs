//! A blocking PostgreSQL client: TLS with a client certificate, login, simple query. Nothing more.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
const VERSION_3_0: u32 = 196_608;

/// Where to connect and as whom.
#[derive(clap::Args, Clone)]
pub(crate) struct Endpoint {
    /// Host, as the server's certificate names it.
    #[arg(long)]
    host: String,
    /// TCP port.
    #[arg(long)]
    port: u16,
    /// Database user.
    #[arg(long)]
    user: String,
    /// Database name.
    #[arg(long)]
    database: String,
    /// File with the CA of the server's certificate.
    #[arg(long)]
    ca: PathBuf,
    /// Client certificate file.
    #[arg(long)]
    cert: PathBuf,
    /// Key file of the client certificate.
    #[arg(long)]
    key: PathBuf,
}

/// An endpoint with its TLS configuration; makes any number of connections.
pub(crate) struct Connector {
    endpoint: Endpoint,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

/// A connection that has seen its first ReadyForQuery.
pub(crate) struct Connection(StreamOwned<ClientConnection, TcpStream>);

impl Connector {
    /// Reads the certificate files.
    pub(crate) fn new(endpoint: Endpoint) -> anyhow::Result<Connector> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&endpoint.ca).context("CA file")? {
            roots.add(certificate?)?;
        }
        let chain = CertificateDer::pem_file_iter(&endpoint.cert).context("certificate file")?;
        let key = PrivateKeyDer::from_pem_file(&endpoint.key).context("key file")?;
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.collect::<Result<_, _>>()?, key)?;
        let name = ServerName::try_from(endpoint.host.clone())?;
        Ok(Connector { endpoint, name, config: Arc::new(config) })
    }

    /// Connects and logs in.
    pub(crate) fn connect(&self) -> anyhow::Result<Connection> {
        let mut stream = TcpStream::connect((self.endpoint.host.as_str(), self.endpoint.port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.write_all(&SSL_REQUEST)?;
        let mut answer = [0];
        stream.read_exact(&mut answer)?;
        ensure!(answer == *b"S", "the server declined TLS");
        let tls = ClientConnection::new(self.config.clone(), self.name.clone())?;
        let mut connection = Connection(StreamOwned::new(tls, stream));
        let mut startup = VERSION_3_0.to_be_bytes().to_vec();
        for text in ["user", &self.endpoint.user, "database", &self.endpoint.database] {
            startup.extend_from_slice(text.as_bytes());
            startup.push(0);
        }
        startup.push(0);
        let length = u32::try_from(startup.len() + 4)?;
        connection.0.write_all(&[&length.to_be_bytes()[..], &startup].concat())?;
        connection.0.flush()?;
        connection.read_to_ready(&mut vec![0; 16 * 1024])?;
        Ok(connection)
    }
}

impl Connection {
    /// Runs a simple query and drops its result. Gives the number of bytes received.
    pub(crate) fn drain(&mut self, sql: &str) -> anyhow::Result<u64> {
        let length = u32::try_from(sql.len() + 5)?;
        self.0.write_all(&[b"Q", &length.to_be_bytes()[..], sql.as_bytes(), b"\0"].concat())?;
        self.0.flush()?;
        self.read_to_ready(&mut vec![0; 256 * 1024])
    }

    /// Walks over message heads without collecting messages.
    fn read_to_ready(&mut self, buffer: &mut [u8]) -> anyhow::Result<u64> {
        let (mut total, mut skip) = (0u64, 0u64);
        let mut head = Vec::with_capacity(5);
        let mut ready = false;
        loop {
            if ready && skip == 0 {
                return Ok(total);
            }
            let n = self.0.read(buffer)?;
            ensure!(n > 0, "the server closed the connection");
            total += n as u64;
            let mut rest = &buffer[..n];
            while !rest.is_empty() {
                let passed = usize::try_from(skip.min(rest.len() as u64))?;
                skip -= passed as u64;
                rest = &rest[passed..];
                let wanted = (5 - head.len()).min(rest.len());
                head.extend_from_slice(&rest[..wanted]);
                rest = &rest[wanted..];
                if let [tag, a, b, c, d] = head[..] {
                    skip = u64::from(u32::from_be_bytes([a, b, c, d])).saturating_sub(4);
                    ready = tag == b'Z';
                    if tag == b'E' {
                        bail!("the server refused: {}", String::from_utf8_lossy(rest).replace('\0', " "));
                    }
                    head.clear();
                }
            }
        }
    }
}
