//! A statement's text as a record in a ring holds it.
use crate::encode::Cursor;

/// The text, its length and hash as a whole, and its first keyword.
#[derive(PartialEq, Eq)]
pub(crate) struct Text<'a> {
    pub(crate) full: u64,
    pub(crate) hash: Option<&'a [u8]>,
    pub(crate) query_type: &'a [u8],
    text: &'a [u8],
}

impl<'a> Text<'a> {
    pub(crate) fn read(c: &mut Cursor<'a>) -> Option<Self> {
        Some(Self { full: c.u64()?, hash: c.hash()?, query_type: c.bytes()?, text: c.bytes()? })
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.full > self.text.len() as u64
    }

    /// The text. One that was cut may end inside a character: what is left of that is no reason to call all of it
    /// binary, so it is left out.
    pub(crate) fn shown(&self) -> &'a [u8] {
        match std::str::from_utf8(self.text) {
            Err(e) if self.is_cut() && e.error_len().is_none() => &self.text[..e.valid_up_to()],
            _ => self.text,
        }
    }
}
