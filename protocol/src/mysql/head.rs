//! Packets: three bytes of length, one of sequence, and what their bodies are made of.

use crate::wire::Reader;

/// Bytes of a head.
pub(super) const HEAD: usize = 4;
/// The body of a packet that another one continues.
pub(super) const BODY_MAX: usize = 0xff_ffff;

/// The fixed part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes behind the head.
    pub(super) body: usize,
    /// Counts the packets of one command and its reply, from 0 and around.
    pub(super) sequence: u8,
}

impl Head {
    /// Bytes of the whole packet.
    pub(super) const fn packet(self) -> usize {
        self.body + HEAD
    }

    /// The next packet goes on with this one's body.
    pub(super) const fn goes_on(self) -> bool {
        self.body == BODY_MAX
    }
}

/// Reads a head. `None` while it is incomplete.
pub(super) fn head(input: &[u8]) -> Option<Head> {
    let &[a, b, c, sequence] = input.first_chunk::<HEAD>()?;
    Some(Head { body: usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16, sequence })
}

/// Begins a packet; [`finish`] fills in its length.
pub(super) fn begin(out: &mut Vec<u8>, sequence: u8) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, sequence]);
    start
}

/// Writes the length of the packet that began at `start`. What we write ourselves is far from [`BODY_MAX`].
pub(super) fn finish(out: &mut [u8], start: usize) {
    let body = u32::try_from(out.len() - start - HEAD).unwrap_or(u32::MAX).to_le_bytes();
    out[start..start + 3].copy_from_slice(&body[..3]);
}

/// A length-encoded integer. `None` for the marks of NULL (0xfb) and of an error (0xff), too.
pub(super) fn lenenc(reader: &mut Reader<'_>) -> Option<u64> {
    match reader.u8()? {
        small @ 0..=0xfa => Some(u64::from(small)),
        0xfc => reader.take(2)?.first_chunk::<2>().map(|bytes| u64::from(u16::from_le_bytes(*bytes))),
        0xfd => {
            let &[a, b, c] = reader.take(3)?.first_chunk::<3>()?;
            Some(u64::from(u32::from_le_bytes([a, b, c, 0])))
        }
        0xfe => reader.take(8)?.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes)),
        _ => None,
    }
}

/// A string behind its length-encoded length.
pub(super) fn lenenc_bytes<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let len = usize::try_from(lenenc(reader)?).ok()?;
    reader.take(len)
}

/// Appends a string with its length-encoded length.
pub(super) fn put_lenenc_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_lenenc(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a length-encoded integer in its shortest form.
pub(super) fn put_lenenc(out: &mut Vec<u8>, value: u64) {
    let bytes = value.to_le_bytes();
    match value {
        0..=0xfa => out.push(bytes[0]),
        0xfb..=0xffff => {
            out.push(0xfc);
            out.extend_from_slice(&bytes[..2]);
        }
        0x1_0000..=0xff_ffff => {
            out.push(0xfd);
            out.extend_from_slice(&bytes[..3]);
        }
        _ => {
            out.push(0xfe);
            out.extend_from_slice(&bytes);
        }
    }
}

/// A little-endian 16-bit integer.
pub(super) fn u16_le(reader: &mut Reader<'_>) -> Option<u16> {
    reader.take(2)?.first_chunk::<2>().map(|bytes| u16::from_le_bytes(*bytes))
}

/// A little-endian 32-bit integer.
pub(super) fn u32_le(reader: &mut Reader<'_>) -> Option<u32> {
    reader.take(4)?.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes))
}
