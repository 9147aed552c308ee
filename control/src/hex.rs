//! Lower-case hexadecimal text.

use std::fmt::Write as _;

/// Appends `bytes` to `text`.
pub(crate) fn push(text: &mut String, bytes: &[u8]) {
    for b in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{b:02x}");
    }
}

/// `bytes` as text.
pub(crate) fn of(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    push(&mut text, bytes);
    text
}
