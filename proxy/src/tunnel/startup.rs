//! The first words of a plain PostgreSQL client (protocol 3.0, "Message Flow", SSL and GSSAPI session encryption).

use std::io::{self, Read, Write};

const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;
/// PostgreSQL's own bound on a startup packet.
const STARTUP_BYTES_MAX: usize = 10_000;
/// A cancel key is 4 bytes in protocol 3.0 and at most 256 in 3.2.
const CANCEL_BYTES_MAX: usize = 12 + 256;

/// What the client came for, as the whole message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum First {
    /// A session.
    Startup(Vec<u8>),
    /// The end of another session's query.
    Cancel(Vec<u8>),
}

/// Reads up to the first message that is not about encryption; encryption is declined, each kind once.
pub(super) fn read(client: &mut (impl Read + Write)) -> io::Result<First> {
    let (mut ssl, mut gss) = (false, false);
    loop {
        let mut head = [0; 8];
        client.read_exact(&mut head)?;
        let [a, b, c, d, e, f, g, h] = head;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let code = u32::from_be_bytes([e, f, g, h]);
        match code {
            SSL_REQUEST if length == 8 && !ssl => ssl = true,
            GSSENC_REQUEST if length == 8 && !gss => gss = true,
            CANCEL_REQUEST if (13..=CANCEL_BYTES_MAX).contains(&length) => {
                return whole(client, &head, length).map(First::Cancel);
            }
            _ if code >> 16 == 3 && (9..=STARTUP_BYTES_MAX).contains(&length) => {
                return whole(client, &head, length).map(First::Startup);
            }
            _ => {
                refuse(client, "this is not a PostgreSQL client of protocol 3")?;
                return Err(io::Error::new(io::ErrorKind::InvalidData, "not a PostgreSQL startup message"));
            }
        }
        client.write_all(b"N")?;
    }
}

fn whole(client: &mut impl Read, head: &[u8; 8], length: usize) -> io::Result<Vec<u8>> {
    let mut message = vec![0; length];
    message[..8].copy_from_slice(head);
    client.read_exact(&mut message[8..])?;
    Ok(message)
}

/// Sends ErrorResponse FATAL 08006 with `why`.
pub(super) fn refuse(client: &mut impl Write, why: &str) -> io::Result<()> {
    let mut body = Vec::new();
    for (field, value) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', "08006"), (b'M', why)] {
        body.push(field);
        body.extend(value.bytes().filter(|b| *b != 0));
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).map_err(io::Error::other)?;
    let mut message = vec![b'E'];
    message.extend(length.to_be_bytes());
    message.extend(body);
    client.write_all(&message)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Wire {
        input: io::Cursor<Vec<u8>>,
        output: Vec<u8>,
    }

    impl Read for Wire {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.input.read(buffer)
        }
    }

    impl Write for Wire {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            self.output.write(buffer)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn message(code: u32, rest: &[u8]) -> Vec<u8> {
        let mut message = ((8 + rest.len()) as u32).to_be_bytes().to_vec();
        message.extend(code.to_be_bytes());
        message.extend(rest);
        message
    }

    fn run(input: Vec<u8>) -> (io::Result<First>, Vec<u8>) {
        let mut wire = Wire { input: io::Cursor::new(input), output: Vec::new() };
        let first = read(&mut wire);
        (first, wire.output)
    }

    #[test]
    fn encryption_is_declined_before_the_startup_message_is_taken() {
        let startup = message(3 << 16, b"user\0u\0\0");
        let input = [message(GSSENC_REQUEST, b""), message(SSL_REQUEST, b""), startup.clone()].concat();
        let (first, output) = run(input);
        assert_eq!(first.unwrap(), First::Startup(startup));
        assert_eq!(output, b"NN");
    }

    #[test]
    fn a_cancel_request_is_told_from_a_session() {
        let cancel = message(CANCEL_REQUEST, &[1; 8]);
        assert_eq!(run(cancel.clone()).0.unwrap(), First::Cancel(cancel));
    }

    #[test]
    fn what_is_no_startup_is_refused_without_reading_its_claimed_length() {
        for (length, code) in [
            (0u32, 3 << 16),
            (u32::MAX, 3 << 16),
            (8, 3 << 16),
            (100, 2 << 16),
            (9, SSL_REQUEST),
            (1000, CANCEL_REQUEST),
        ] {
            let mut input = length.to_be_bytes().to_vec();
            input.extend(code.to_be_bytes());
            let (first, output) = run(input);
            assert_eq!(first.unwrap_err().kind(), io::ErrorKind::InvalidData, "{length} {code}");
            assert!(output.starts_with(b"E"), "{length} {code}");
        }
    }

    #[test]
    fn a_second_ssl_request_is_refused() {
        let input = [message(SSL_REQUEST, b""), message(SSL_REQUEST, b"")].concat();
        assert!(run(input).0.is_err());
    }
}
