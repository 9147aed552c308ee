//! A backend that knows the login and nothing else.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

/// Accepts for ever; holds every connection until the process ends. Prints `ready` first.
pub(crate) fn run(listen: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen)?;
    println!("ready");
    let mut held = Vec::new();
    for stream in listener.incoming() {
        let mut stream = stream?;
        // A peer that gives up in its login is no reason to stop.
        if login(&mut stream, held.len() as u32).is_ok() {
            held.push(stream);
        }
    }
    Ok(())
}

fn login(stream: &mut TcpStream, number: u32) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    loop {
        let mut head = [0; 8];
        stream.read_exact(&mut head)?;
        let [a, b, c, d, e, f, g, h] = head;
        let length = u32::from_be_bytes([a, b, c, d]);
        let code = u32::from_be_bytes([e, f, g, h]);
        if code == SSL_REQUEST || code == GSS_REQUEST {
            stream.write_all(b"N")?;
            continue;
        }
        let body = usize::try_from(length).ok().and_then(|n| n.checked_sub(8)).filter(|n| *n <= 10_000);
        stream.read_exact(&mut vec![0; body.ok_or(io::ErrorKind::InvalidData)?])?;
        break;
    }
    let mut out = message(b'R', &[0; 4]);
    for (name, value) in
        [("server_version", "15.0"), ("client_encoding", "UTF8"), ("standard_conforming_strings", "on")]
    {
        out.extend(message(b'S', &[name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat()));
    }
    out.extend(message(b'K', &[number.to_be_bytes(), (!number).to_be_bytes()].concat()));
    out.extend(message(b'Z', b"I"));
    stream.write_all(&out)
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
    out
}
