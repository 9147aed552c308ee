//! Frame heads and their bounds: one tag byte and a length that counts itself but not the tag.

use crate::{Fault, FaultKind, Limits, Side};

use super::error::fault;

/// Bytes of a head.
pub(super) const HEAD: usize = 5;

/// A frame that holds names and nothing else never needs more than this.
const NAMES_MAX: u64 = 64 * 1024;
/// Columns of a COPY: a table has at most 1,600, and the frame is looked at whole.
const COPY_COLUMNS_MAX: u64 = 16 * 1024;

/// The fixed part of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Message type.
    pub(super) tag: u8,
    /// Bytes of the whole frame, tag included, within the bounds of its type.
    pub(super) frame: u64,
}

impl Head {
    /// Bytes behind the head.
    pub(super) const fn body(self) -> u64 {
        self.frame - HEAD as u64
    }
}

/// Reads a head of `side`. `Ok(None)` while it is incomplete; an unknown type is known by its first byte.
pub(super) fn head(side: Side, input: &[u8], limits: &Limits) -> Result<Option<Head>, Fault> {
    let Some(&tag) = input.first() else { return Ok(None) };
    let bounds = match side {
        Side::Client => client_bounds(tag, limits),
        Side::Backend => backend_bounds(tag, limits),
    };
    let Some((min, max)) = bounds else {
        return Err(match (side, tag) {
            (Side::Client, b'p') => fault(side, FaultKind::OutOfOrder, "password message after sign-in"),
            _ => fault(side, FaultKind::Unsupported, "unknown message type"),
        });
    };
    let Some(length) = input.get(1..HEAD).and_then(|bytes| bytes.first_chunk::<4>()) else { return Ok(None) };
    let length = u64::from(u32::from_be_bytes(*length));
    if length < min {
        return Err(fault(side, FaultKind::Malformed, "message shorter than its type allows"));
    }
    if length > max {
        return Err(fault(side, FaultKind::TooLarge, "message longer than its type allows"));
    }
    Ok(Some(Head { tag, frame: length + 1 }))
}

/// The largest length field of a frame whose size configuration bounds.
fn large(limits: &Limits) -> u64 {
    limits.frame_bytes_max.saturating_sub(1).clamp(4, i32::MAX as u64)
}

/// Bounds of the length field per client message. `None` is a type that no client may send.
fn client_bounds(tag: u8, limits: &Limits) -> Option<(u64, u64)> {
    let large = large(limits);
    Some(match tag {
        b'Q' => (5, large),
        b'P' => (8, large),
        b'B' => (12, large),
        b'F' => (14, large),
        b'd' => (4, large),
        b'E' => (9, NAMES_MAX),
        b'C' | b'D' => (6, NAMES_MAX),
        b'f' => (5, NAMES_MAX),
        b'S' | b'H' | b'c' | b'X' => (4, 4),
        _ => return None,
    })
}

/// Bounds of the length field per database message. `None` is a type that no database may send here.
fn backend_bounds(tag: u8, limits: &Limits) -> Option<(u64, u64)> {
    let large = large(limits);
    Some(match tag {
        b'D' | b'T' => (6, large),
        b'd' => (4, large),
        b'V' => (8, large),
        b'E' | b'N' => (5, large),
        b'C' => (5, 1024),
        b'Z' => (5, 5),
        b'1' | b'2' | b'3' | b'n' | b's' | b'I' | b'c' => (4, 4),
        b't' => (6, 6 + 4 * 65_535),
        b'G' | b'H' | b'W' => (7, 7 + 2 * COPY_COLUMNS_MAX),
        b'S' | b'A' => (6, NAMES_MAX),
        b'K' => (12, 8 + 256),
        _ => return None,
    })
}
