//! SCAN over several nodes: one cursor that says which node and where on it.
//!
//! The node's place among the masters stands in the low bits, so that cursors stay small enough for clients that
//! keep them in a double.

/// Bits of the node's place.
const PLACE_BITS: u32 = 10;

/// Masters that a cursor can name.
pub const PLACES_MAX: usize = 1 << PLACE_BITS;

/// Where a SCAN goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The node's place among the masters.
    pub place: usize,
    /// The node's own cursor.
    pub inner: u64,
}

impl Cursor {
    /// Reads a client's cursor. `None` when it is no unsigned decimal number.
    pub fn parse(text: &[u8]) -> Option<Cursor> {
        let packed: u64 =
            std::str::from_utf8(text).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
        Some(Cursor { place: (packed & (PLACES_MAX as u64 - 1)) as usize, inner: packed >> PLACE_BITS })
    }

    /// The cursor for the client after node `place` of `places` answered `inner`: that node's next page, the start of
    /// the next node, or 0 after the last. `None` when the node's cursor leaves no room for the place.
    pub fn next(place: usize, inner: u64, places: usize) -> Option<u64> {
        let (place, inner) = match inner {
            0 if place + 1 >= places => return Some(0),
            0 => (place + 1, 0),
            _ => (place, inner),
        };
        if place >= PLACES_MAX || inner > u64::MAX >> PLACE_BITS {
            return None;
        }
        Some(inner << PLACE_BITS | place as u64)
    }
}
