//! The first words of a MySQL session (protocol 10): the server greets, and TLS begins behind the greeting.
//!
//! ```text
//! plain client                 tunnel                       gateway
//!   |                            | <---------- HandshakeV10 0  |
//!   |                            | SSLRequest 1 -------------> |
//!   |                            | =========== TLS =========== |
//!   | <- HandshakeV10 0, no SSL  |                             |
//!   | HandshakeResponse 1 -----> | 2 ------------------------> |
//!   | <------- 2, 3 ... OK       | <------------ 3, 4 ... OK   |
//! ```
//! Up to the OK the packets on the gateway's side count one more: the SSLRequest that the plain client never sent.

use std::io::{self, Read, Write};

const HEAD: usize = 4;
/// A greeting is about a hundred bytes; a version may be long.
const GREETING_BYTES_MAX: usize = 1024;
/// Connect attributes are the most of a sign-in.
const PACKET_BYTES_MAX: usize = 64 * 1024;
/// Packets of a sign-in: one of each plugin that asks and is asked, and the end.
const PACKETS_MAX: usize = 16;
/// CLIENT_SSL.
const SSL: u32 = 0x800;

/// A packet with its head.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Packet(Vec<u8>);

impl Packet {
    fn read(from: &mut impl Read, body_max: usize) -> io::Result<Packet> {
        let mut packet = vec![0; HEAD];
        from.read_exact(&mut packet)?;
        let body = usize::from(packet[0]) | usize::from(packet[1]) << 8 | usize::from(packet[2]) << 16;
        if body > body_max {
            return Err(wrong("a packet of the sign-in is too long"));
        }
        packet.resize(HEAD + body, 0);
        from.read_exact(&mut packet[HEAD..])?;
        Ok(Packet(packet))
    }

    fn numbered(mut self, by: u8) -> Packet {
        self.0[3] = self.0[3].wrapping_add(by);
        self
    }

    fn kind(&self) -> Option<u8> {
        self.0.get(HEAD).copied()
    }
}

/// What the gateway said first.
#[derive(Debug)]
pub(super) struct Greeting {
    packet: Packet,
    /// Where the lower half of its capabilities stands.
    flags_at: usize,
}

/// Reads the gateway's greeting and asks it for TLS, which begins with the next byte.
pub(super) fn ask_for_tls(socket: &mut (impl Read + Write)) -> io::Result<Greeting> {
    let packet = Packet::read(socket, GREETING_BYTES_MAX)?;
    let body = &packet.0[HEAD..];
    if body.first() != Some(&10) {
        return Err(match packet.kind() {
            Some(0xff) => wrong("the gateway refuses connections"),
            _ => wrong("the gateway greets in another protocol"),
        });
    }
    let version = body[1..].iter().position(|byte| *byte == 0).ok_or_else(|| wrong("the greeting ends early"))?;
    // Version and its end, connection id, eight bytes of the nonce and a zero byte.
    let flags_at = HEAD + 1 + version + 1 + 4 + 8 + 1;
    let (Some(low), Some(high)) = (packet.0.get(flags_at..flags_at + 2), packet.0.get(flags_at + 5..flags_at + 7))
    else {
        return Err(wrong("the greeting ends early"));
    };
    let flags = u32::from_le_bytes([low[0], low[1], high[0], high[1]]);
    if flags & SSL == 0 {
        return Err(wrong("the gateway offers no TLS"));
    }
    let mut request = vec![32, 0, 0, 1];
    request.extend(flags.to_le_bytes());
    request.extend((1u32 << 24).to_le_bytes());
    request.push(packet.0.get(flags_at + 2).copied().unwrap_or(45));
    request.extend([0; 23]);
    socket.write_all(&request)?;
    Ok(Greeting { packet, flags_at })
}

impl Greeting {
    /// Greets the client and carries the sign-in, packet by packet, up to its OK or its refusal.
    pub(super) fn sign_in(self, client: &mut (impl Read + Write), gateway: &mut (impl Read + Write)) -> io::Result<()> {
        let Greeting { packet: Packet(mut greeting), flags_at } = self;
        let [_, second] = SSL.to_le_bytes()[..2] else { return Err(wrong("the greeting ends early")) };
        greeting[flags_at + 1] &= !second;
        client.write_all(&greeting)?;
        let mut client_speaks = true;
        for _ in 0..PACKETS_MAX {
            if client_speaks {
                let Packet(packet) = Packet::read(client, PACKET_BYTES_MAX)?.numbered(1);
                gateway.write_all(&packet)?;
                gateway.flush()?;
                client_speaks = false;
                continue;
            }
            let packet = Packet::read(gateway, PACKET_BYTES_MAX)?;
            let kind = packet.kind();
            // `01 03`: the client's proof was taken, and the OK follows.
            let goes_on = kind == Some(1) && packet.0[HEAD..] == [1, 3];
            client.write_all(&packet.numbered(u8::MAX).0)?;
            match kind {
                Some(0 | 0xff) => return Ok(()),
                Some(_) => client_speaks = !goes_on,
                None => return Err(wrong("an empty packet in the sign-in")),
            }
        }
        Err(wrong("the sign-in does not end"))
    }
}

/// Sends an ERR packet in place of a greeting.
pub(super) fn refuse(client: &mut impl Write, why: &str) -> io::Result<()> {
    // Before it has greeted a server gives no SQLSTATE. 2003 is what a client says itself of a server that is not there.
    let mut body = vec![0xff];
    body.extend(2003u16.to_le_bytes());
    body.extend(why.bytes().filter(|byte| *byte != 0).take(400));
    let length = u32::try_from(body.len()).map_err(io::Error::other)?.to_le_bytes();
    let mut packet = vec![length[0], length[1], length[2], 0];
    packet.extend(body);
    client.write_all(&packet)
}

fn wrong(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Wire {
        input: io::Cursor<Vec<u8>>,
        output: Vec<u8>,
    }

    impl Wire {
        fn new(input: Vec<u8>) -> Wire {
            Wire { input: io::Cursor::new(input), output: Vec::new() }
        }
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

    fn packet(sequence: u8, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![u8::try_from(body.len()).unwrap(), 0, 0, sequence];
        packet.extend(body);
        packet
    }

    fn greeting() -> Vec<u8> {
        let mut body = vec![10];
        body.extend(b"8.4.0\0\x01\0\0\x80abcdefgh\0");
        body.extend([0xff, 0xff, 45, 2, 0, 0xff, 0xff, 21]);
        body.extend([0; 10]);
        body.extend(b"ijklmnopqrst\0caching_sha2_password\0");
        packet(0, &body)
    }

    #[test]
    fn a_greeting_is_answered_with_a_request_for_tls_and_handed_on_without_it() {
        let mut gateway = Wire::new(greeting());
        let greeted = ask_for_tls(&mut gateway).unwrap();
        assert_eq!(gateway.output.len(), 36);
        assert_eq!(gateway.output[..4], [32, 0, 0, 1]);
        assert_eq!(gateway.output[5] & 8, 8);

        let mut client = Wire::new(packet(1, b"response"));
        let mut inner = Wire::new([packet(3, &[1, 3]), packet(4, &[0, 0, 0, 2, 0, 0, 0])].concat());
        greeted.sign_in(&mut client, &mut inner).unwrap();
        assert_eq!(inner.output, packet(2, b"response"));
        let mut plain = greeting();
        plain[4 + 1 + 6 + 13 + 1] &= !8;
        assert_eq!(client.output, [plain, packet(2, &[1, 3]), packet(3, &[0, 0, 0, 2, 0, 0, 0])].concat());
    }

    #[test]
    fn a_change_of_the_plugin_is_carried_both_ways() {
        let greeted = ask_for_tls(&mut Wire::new(greeting())).unwrap();
        let mut client = Wire::new([packet(1, b"response"), packet(3, b"proof")].concat());
        let mut inner = Wire::new([packet(3, b"\xfeplugin\0"), packet(5, b"\xffno")].concat());
        greeted.sign_in(&mut client, &mut inner).unwrap();
        assert_eq!(inner.output, [packet(2, b"response"), packet(4, b"proof")].concat());
        assert!(client.output.ends_with(&packet(4, b"\xffno")));
    }

    #[test]
    fn what_is_no_greeting_is_refused_without_reading_its_claimed_length() {
        for input in
            [vec![0xff, 0xff, 0xff, 0], packet(0, b"\x09old\0"), packet(0, &[10, b'8']), packet(0, b"\xff\x10\x04")]
        {
            assert_eq!(ask_for_tls(&mut Wire::new(input)).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        let mut bare = greeting();
        bare[4 + 1 + 6 + 13 + 1] &= !8;
        assert!(ask_for_tls(&mut Wire::new(bare)).is_err());
    }

    #[test]
    fn a_client_is_told_in_its_own_words_that_there_is_no_gateway() {
        let mut client = Wire::new(Vec::new());
        refuse(&mut client, "no gateway").unwrap();
        assert_eq!(client.output, packet(0, b"\xff\xd3\x07no gateway"));
    }
}
