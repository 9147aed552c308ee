//! Members of a line.
use crate::encode::{Cursor, parameter};
use crate::json;

/// A member's name as it stands in a line: behind a comma, quoted, with its colon.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}
pub(crate) use key;

/// Appends members. Names are made by [`key`].
pub(crate) struct Fields<'a> {
    pub(crate) out: &'a mut Vec<u8>,
    pub(crate) clock: &'a mut json::Clock,
}

impl Fields<'_> {
    pub(crate) fn name(&mut self, key: &'static str) {
        self.out.extend_from_slice(key.as_bytes());
    }
    pub(crate) fn number(&mut self, key: &'static str, v: u64) {
        self.name(key);
        json::number(self.out, v);
    }
    pub(crate) fn flag(&mut self, key: &'static str, v: bool) {
        self.name(key);
        self.out.extend_from_slice(if v { b"true" } else { b"false" });
    }
    pub(crate) fn text(&mut self, key: &'static str, v: &[u8]) {
        self.name(key);
        json::bytes(self.out, v, "base64:");
    }
    pub(crate) fn text_unless_empty(&mut self, key: &'static str, v: &[u8]) {
        if !v.is_empty() {
            self.text(key, v);
        }
    }
    pub(crate) fn base64(&mut self, key: &'static str, v: &[u8]) {
        self.name(key);
        self.out.push(b'"');
        json::base64(self.out, v);
        self.out.push(b'"');
    }
    pub(crate) fn hex(&mut self, key: &'static str, v: &[u8]) {
        self.name(key);
        self.out.push(b'"');
        json::hex(self.out, v);
        self.out.push(b'"');
    }
    pub(crate) fn time(&mut self, key: &'static str, us: u64) {
        self.name(key);
        self.out.push(b'"');
        self.out.extend_from_slice(self.clock.format(us));
        self.out.push(b'"');
    }

    pub(crate) fn parameters(&mut self, key: &'static str, c: &mut Cursor<'_>) -> Option<()> {
        self.name(key);
        self.out.push(b'[');
        let mut first = true;
        loop {
            let kind = c.u8()?;
            if kind == parameter::END {
                break;
            }
            if !std::mem::take(&mut first) {
                self.out.push(b',');
            }
            match kind {
                parameter::NULL => self.out.extend_from_slice(b"null"),
                parameter::TEXT => {
                    json::bytes(self.out, c.bytes()?, "base64:");
                }
                parameter::BINARY => {
                    self.out.extend_from_slice(b"\"base64:");
                    json::base64(self.out, c.bytes()?);
                    self.out.push(b'"');
                }
                parameter::INT => {
                    let v = c.u64()? as i64;
                    if v < 0 {
                        self.out.push(b'-');
                    }
                    json::number(self.out, v.unsigned_abs());
                }
                parameter::FLOAT => float(self.out, f64::from_bits(c.u64()?)),
                parameter::BOOL => self.out.extend_from_slice(if c.flag()? { b"true" } else { b"false" }),
                parameter::TYPE => {
                    self.out.extend_from_slice(b"{\"type\":");
                    json::number(self.out, u64::from(c.u32()?));
                    self.out.push(b'}');
                }
                parameter::CUT => {
                    self.out.extend_from_slice(b"{\"cut_bytes\":");
                    json::number(self.out, c.u64()?);
                    self.out.push(b'}');
                }
                _ => return None,
            }
        }
        self.out.push(b']');
        Some(())
    }
}

/// A JSON number; what JSON has no number for is a string.
fn float(out: &mut Vec<u8>, v: f64) {
    use std::io::Write as _;
    let written = if v.is_finite() { write!(out, "{v:?}") } else { write!(out, "\"{v}\"") };
    debug_assert!(written.is_ok(), "a Vec takes every byte");
}
