//! A TCP relay that cuts the stream at random places, from one byte up, with a seed that is printed.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

/// A relay in front of one address; ends with the process.
pub struct Chopper {
    /// Port of the relay on loopback.
    pub port: u16,
}

impl Chopper {
    /// Relays to `host:port`. The seed comes from `RINGGATE_TEST_SEED`, else from the clock, and is printed.
    pub fn start(host: &str, port: u16) -> Chopper {
        let seed = std::env::var("RINGGATE_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| {
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64)
        });
        println!("chopper seed: RINGGATE_TEST_SEED={seed}");
        let target = (host, port).to_socket_addrs().expect("an address").next().expect("an address");
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let own = listener.local_addr().expect("an address").port();
        let state = AtomicU64::new(seed | 1);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(target) else { continue };
                let (client2, server2) = (client.try_clone().expect("clone"), server.try_clone().expect("clone"));
                let (a, b) = (next(&state), next(&state));
                thread::spawn(move || relay(client, server2, a));
                thread::spawn(move || relay(server, client2, b));
            }
        });
        Chopper { port: own }
    }
}

fn next(state: &AtomicU64) -> u64 {
    let mut x = state.load(Ordering::Relaxed);
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    state.store(x, Ordering::Relaxed);
    x
}

fn relay(mut from: TcpStream, mut to: TcpStream, seed: u64) {
    let state = AtomicU64::new(seed | 1);
    to.set_nodelay(true).ok();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        // Mostly large pieces, so that a gigabyte passes; one in eight is cut to a few bytes.
        let random = next(&state);
        let size =
            if random.is_multiple_of(8) { 1 + (random >> 8) % 9 } else { 1 + (random >> 8) % buffer.len() as u64 };
        match from.read(&mut buffer[..size as usize]) {
            Ok(0) | Err(_) => break,
            Ok(n) => {
                if to.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
        }
    }
    to.shutdown(Shutdown::Write).ok();
    from.shutdown(Shutdown::Read).ok();
}
