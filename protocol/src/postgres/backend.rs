//! Messages the database sends, read just as far as outcome and cancel key need it.

use crate::wire::Reader;
use crate::{Fault, FaultKind, Side};

use super::client::Span;
use super::error::fault;
use super::head::HEAD;

/// Spec: "Message Formats", CommandComplete. `frame` is whole. The tag without its NUL.
pub(super) fn command_tag(frame: &[u8]) -> Result<Span, Fault> {
    let mut reader = Reader::new(&frame[HEAD..]);
    match (reader.cstr(), reader.is_empty()) {
        (Some(tag), true) => Ok(Span::new(HEAD, tag.len())),
        _ => Err(fault(Side::Backend, FaultKind::Malformed, "command tag cannot be read")),
    }
}

/// Rows as the tag says: its last word, when that is a number.
pub(super) fn rows(tag: &[u8]) -> Option<u64> {
    let digits = tag.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (word, number) = tag.split_at(tag.len() - digits);
    if digits == 0 || !word.ends_with(b" ") {
        return None;
    }
    number.iter().try_fold(0_u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
}

/// Spec: "Message Formats", ReadyForQuery. `frame` is whole. The transaction's state.
pub(super) fn transaction_state(frame: &[u8]) -> Result<u8, Fault> {
    match frame.get(HEAD) {
        Some(&state @ (b'I' | b'T' | b'E')) => Ok(state),
        _ => Err(fault(Side::Backend, FaultKind::Malformed, "unknown transaction state")),
    }
}

/// Spec: "Message Formats", BackendKeyData. `frame` is whole and its length within bounds.
pub(super) fn key_data(frame: &[u8]) -> Result<(u32, Span), Fault> {
    let mut reader = Reader::new(&frame[HEAD..]);
    let pid = reader.u32().ok_or(fault(Side::Backend, FaultKind::Malformed, "cancel key cannot be read"))?;
    Ok((pid, Span::new(HEAD + 4, reader.rest().len())))
}
