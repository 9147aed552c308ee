//! How another thread makes a worker look: one byte through a socket pair.
//!
//! Published monoio panics when a waker crosses threads, so no waker does. Data goes through channels; the
//! doorbell only says that there is some.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use monoio::io::AsyncReadRent;

/// The ringing end. Cheap to clone, callable from any thread, never blocks.
#[derive(Clone)]
pub struct Doorbell {
    shared: Arc<Shared>,
}

struct Shared {
    wire: UnixStream,
    /// Set while a byte is on the wire that the worker has not yet taken: a second ring costs no system call.
    rung: AtomicBool,
}

/// The listening end, built on the worker's own thread.
pub struct Ear {
    wire: UnixStream,
    shared: Arc<Shared>,
}

/// A doorbell and its ear.
pub fn pair() -> io::Result<(Doorbell, Ear)> {
    let (near, far) = UnixStream::pair()?;
    near.set_nonblocking(true)?;
    far.set_nonblocking(true)?;
    let shared = Arc::new(Shared { wire: near, rung: AtomicBool::new(false) });
    Ok((Doorbell { shared: shared.clone() }, Ear { wire: far, shared }))
}

impl Doorbell {
    /// Makes the worker look. What was written to a channel before is seen by it.
    pub fn ring(&self) {
        if !self.shared.rung.swap(true, Ordering::AcqRel) {
            // A full pipe means that the worker has been rung and has not looked yet: nothing is lost.
            let _ = (&self.shared.wire).write(&[1]);
        }
    }
}

impl Ear {
    /// Calls `heard` after every ring, for ever. To be called on the worker's thread.
    pub async fn listen(self, mut heard: impl FnMut()) -> io::Result<()> {
        let mut wire = monoio::net::UnixStream::from_std(self.wire)?;
        let mut buf = vec![0u8; 64];
        loop {
            let (read, back) = wire.read(buf).await;
            buf = back;
            if read? == 0 {
                return Ok(());
            }
            // Cleared before looking: whoever writes after our look rings again.
            self.shared.rung.swap(false, Ordering::AcqRel);
            std::sync::atomic::fence(Ordering::SeqCst);
            heard();
        }
    }
}
