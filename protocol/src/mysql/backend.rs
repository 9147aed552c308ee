//! Packets the database sends, read just as far as the end of a reply and its outcome need it.

use crate::wire::Reader;

use super::head::{HEAD, Head, lenenc, u16_le, u32_le};

/// `SERVER_STATUS_IN_TRANS`.
pub(super) const IN_TRANSACTION: u16 = 0x0001;
/// `SERVER_STATUS_AUTOCOMMIT`.
pub(super) const AUTOCOMMIT: u16 = 0x0002;
/// `SERVER_MORE_RESULTS_EXISTS`.
pub(super) const MORE_RESULTS: u16 = 0x0008;
/// `SERVER_STATUS_CURSOR_EXISTS`.
pub(super) const CURSOR_EXISTS: u16 = 0x0040;

/// The longest front of an OK packet that matters: two length-encoded integers, status and warnings.
const OK_FRONT: usize = 1 + 9 + 9 + 2 + 2;

/// How much of a packet that ends a reply is looked at.
pub(super) fn ok_window(head: Head) -> usize {
    HEAD + head.body.min(OK_FRONT)
}

/// What an OK or EOF packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) affected: u64,
    pub(super) status: u16,
    pub(super) warnings: u16,
}

/// Spec: "OK_Packet", with CLIENT_PROTOCOL_41. `packet` reaches at least as far as [`ok_window`].
pub(super) fn ok(packet: &[u8]) -> Option<Done> {
    let mut reader = Reader::new(packet.get(HEAD + 1..)?);
    let affected = lenenc(&mut reader)?;
    lenenc(&mut reader)?;
    Some(Done { affected, status: u16_le(&mut reader)?, warnings: u16_le(&mut reader)? })
}

/// Spec: "EOF_Packet", with CLIENT_PROTOCOL_41: exactly five bytes.
pub(super) fn eof(packet: &[u8]) -> Option<Done> {
    let mut reader = Reader::new(packet.get(HEAD + 1..)?);
    let warnings = u16_le(&mut reader)?;
    let status = u16_le(&mut reader)?;
    Some(Done { affected: 0, status, warnings })
}

/// The end of rows, in either form: an EOF packet has five bytes, an OK packet with the same mark at least
/// seven.
pub(super) fn end(head: Head, packet: &[u8], ok_for_eof: bool) -> Option<Done> {
    match head.body {
        5 => eof(packet),
        7.. if ok_for_eof => ok(packet),
        _ => None,
    }
}

/// Bytes of a prepare's first packet that are looked at, head included.
pub(super) const PREPARED_WINDOW: usize = HEAD + 13;

/// What was prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prepared {
    pub(super) id: u32,
    pub(super) columns: u16,
    pub(super) parameters: u16,
    pub(super) warnings: u16,
    /// The definitions of both follow.
    pub(super) described: bool,
}

/// Spec: "COM_STMT_PREPARE_OK". With `flagged` a last byte says whether definitions follow.
pub(super) fn prepared(packet: &[u8], flagged: bool) -> Option<Prepared> {
    let mut reader = Reader::new(packet.get(HEAD + 1..)?);
    let id = u32_le(&mut reader)?;
    let columns = u16_le(&mut reader)?;
    let parameters = u16_le(&mut reader)?;
    reader.u8()?;
    let warnings = u16_le(&mut reader)?;
    let described = if flagged { flag(&mut reader)? } else { true };
    reader.is_empty().then_some(Prepared { id, columns, parameters, warnings, described })
}

/// How many columns a result has, and whether their definitions follow. With `flagged` a last byte says so.
pub(super) fn column_count(packet: &[u8], flagged: bool) -> Option<(u64, bool)> {
    let mut reader = Reader::new(packet.get(HEAD..)?);
    let count = lenenc(&mut reader)?;
    let described = if flagged { flag(&mut reader)? } else { true };
    (reader.is_empty() && (1..=u64::from(u16::MAX)).contains(&count)).then_some((count, described))
}

fn flag(reader: &mut Reader<'_>) -> Option<bool> {
    match reader.u8()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}
