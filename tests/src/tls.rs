//! TLS as a client of Ringgate does it: rustls with the certificate of a login, for raw sockets and for tokio-postgres.

use std::{future::Future, io, pin::Pin, sync::Arc, task};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

use crate::db_config::DbConfig;

/// What the client offers as application protocol.
pub const ALPN_POSTGRESQL: &[u8] = b"postgresql";

/// Verifies the gateway by `db.ca`, and shows `db.cert` when `with_certificate`.
pub fn client_config(db: &DbConfig, with_certificate: bool, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&db.ca).expect("CA file") {
        roots.add(certificate.expect("PEM")).expect("a CA certificate");
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_root_certificates(roots);
    let mut config = if with_certificate {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&db.cert).expect("certificate file").collect();
        let key = PrivateKeyDer::from_pem_file(&db.key).expect("key file");
        builder.with_client_auth_cert(chain.expect("PEM"), key).expect("certificate and key")
    } else {
        builder.with_no_client_auth()
    };
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    Arc::new(config)
}

/// The gateway's name for certificate verification.
pub fn server_name(db: &DbConfig) -> ServerName<'static> {
    ServerName::try_from(db.host.clone()).expect("a host name")
}

/// Makes tokio-postgres speak TLS by rustls with the client certificate of a login.
#[derive(Clone)]
pub struct RustlsConnect {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl RustlsConnect {
    /// For this login.
    pub fn new(db: &DbConfig) -> RustlsConnect {
        RustlsConnect { config: client_config(db, true, &[]), name: server_name(db) }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for RustlsConnect {
    type Stream = RustlsStream<S>;
    type TlsConnect = RustlsConnect;
    type Error = io::Error;

    fn make_tls_connect(&mut self, _: &str) -> io::Result<RustlsConnect> {
        Ok(self.clone())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for RustlsConnect {
    type Stream = RustlsStream<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<RustlsStream<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        let connector = tokio_rustls::TlsConnector::from(self.config);
        Box::pin(async move { connector.connect(self.name, stream).await.map(RustlsStream) })
    }
}

/// A TLS stream as tokio-postgres wants it.
pub struct RustlsStream<S>(tokio_rustls::client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for RustlsStream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for RustlsStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for RustlsStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        bytes: &[u8],
    ) -> task::Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// A TLS stream to a listener that wants TLS at once, with the certificate of the login.
pub async fn stream(db: &DbConfig) -> io::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
    let stream = tokio::net::TcpStream::connect((db.host.as_str(), db.port)).await?;
    stream.set_nodelay(true)?;
    tokio_rustls::TlsConnector::from(client_config(db, true, &[])).connect(server_name(db), stream).await
}

/// Connects tokio-postgres through Ringgate. The connection runs as a task of the current runtime.
pub async fn connect(db: &DbConfig) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config
        .host(&db.host)
        .port(db.port)
        .user(&db.user)
        .dbname(&db.database)
        .ssl_mode(tokio_postgres::config::SslMode::Require);
    let (client, connection) = config.connect(RustlsConnect::new(db)).await?;
    tokio::spawn(connection);
    Ok(client)
}
