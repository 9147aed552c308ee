//! The two listeners of the control plane and the HTTP connections on them.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ControlError;

/// Connections served at once, per listener; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// A request's head must arrive within this time; an idle connection is closed after it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept, e.g. when descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The process at the other end of the admin socket, as the kernel names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) uid: u32,
}

/// Binds the admin socket. A file left behind by a dead server is replaced; a live server's is not.
pub(crate) fn admin(path: &Path, mode: u32) -> Result<UnixListener, ControlError> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(ControlError::DataDirectory { what: format!("another server answers on {}", path.display()) });
    }
    let failed = || format!("cannot listen on {}", path.display());
    // Bound under another name and moved once its mode is set: nobody ever meets it with the wrong one.
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    match fs::remove_file(&fresh) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(ControlError::io(failed())(e)),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh).map_err(ControlError::io(failed()))?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(mode)).map_err(ControlError::io(failed()))?;
    fs::rename(&fresh, path).map_err(ControlError::io(failed()))?;
    Ok(listener)
}

/// Binds the diagnostic listener; the second value is its address with the real port.
pub(crate) async fn diag(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), ControlError> {
    let failed = || format!("cannot listen on {addr}");
    let listener = TcpListener::bind(addr).await.map_err(ControlError::io(failed()))?;
    let addr = listener.local_addr().map_err(ControlError::io(failed()))?;
    Ok((listener, addr))
}

/// Serves `router` to every process that may open the socket; handlers find the peer as an extension.
pub(crate) async fn serve_unix(listener: UnixListener, router: Router) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(slot) = slots.clone().acquire_owned().await {
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                pause_after(&e).await;
                continue;
            }
        };
        match stream.peer_cred() {
            Ok(cred) => {
                let router = router.clone().layer(Extension(Peer { uid: cred.uid() }));
                tokio::spawn(connection(stream, router, slot));
            }
            Err(e) => tracing::warn!(err = %e, "admin connection dropped: its peer is unknown"),
        }
    }
}

/// Serves `router` over TCP.
pub(crate) async fn serve_tcp(listener: TcpListener, router: Router) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(slot) = slots.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, router.clone(), slot));
            }
            Err(e) => pause_after(&e).await,
        }
    }
}

async fn pause_after(e: &std::io::Error) {
    tracing::warn!(err = %e, "cannot accept a control connection");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

async fn connection<S>(stream: S, router: Router, _slot: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(e) = served {
        tracing::debug!(err = %e, "control connection ended early");
    }
}
