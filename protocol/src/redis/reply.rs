//! Finds the ends of replies, RESP2 and RESP3, whatever they were cut into.

use super::resp::integer;

/// How much of a line of text is looked at. Longer ones are streamed.
pub(super) const LINE_MAX: usize = 8 * 1024;
/// No head that can be read is longer.
const HEAD_MAX: usize = 32;
/// The longest body that is believed.
const BODY_MAX: u64 = 1 << 40;
/// The most elements that may be outstanding in one reply.
const ELEMENTS_MAX: u64 = 1 << 40;

/// What stands at the front: one element, not what it contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// Its head, or its line, is cut.
    Partial,
    /// A line of text whose end is not among its first [`LINE_MAX`] bytes.
    LongLine,
    /// `len` bytes with its body, which may not be there yet; `inner` elements follow that belong to it.
    Whole { len: u64, inner: u64 },
}

/// Why a reply cannot be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Garbled {
    /// Not RESP.
    Malformed,
    /// A length in chunks, which no server sends.
    Streamed,
}

/// Reads the element at the front of `input`, which is not empty. `searched` bytes of it are known to hold no line
/// end; it is advanced.
#[inline]
pub(super) fn element(input: &[u8], searched: &mut usize) -> Result<Element, Garbled> {
    let kind = input.first().copied().unwrap_or_default();
    if !is_kind(kind) {
        return Err(if matches!(kind, b';' | b'.') { Garbled::Streamed } else { Garbled::Malformed });
    }
    let is_text = matches!(kind, b'+' | b'-' | b'(');
    let bound = if is_text { LINE_MAX } else { HEAD_MAX };
    let seen = input.get(..input.len().min(bound)).unwrap_or_default();
    let Some(end) = memchr::memchr(b'\r', seen.get(*searched..).unwrap_or_default()).map(|end| end + *searched) else {
        *searched = seen.len();
        return match is_text {
            _ if seen.len() < bound => Ok(Element::Partial),
            true => Ok(Element::LongLine),
            false => Err(Garbled::Malformed),
        };
    };
    match input.get(end + 1) {
        Some(b'\n') => {}
        Some(_) => return Err(Garbled::Malformed),
        None => {
            *searched = end;
            return Ok(Element::Partial);
        }
    }
    *searched = 0;
    let head = end as u64 + 2;
    let text = input.get(1..end).unwrap_or_default();
    if text == b"?" && matches!(kind, b'$' | b'*' | b'%' | b'~' | b'>' | b'=' | b'!' | b'|') {
        return Err(Garbled::Streamed);
    }
    let leaf = Element::Whole { len: head, inner: 0 };
    let count = |most: u64| {
        let count = integer(text).ok_or(Garbled::Malformed)?;
        match u64::try_from(count) {
            Ok(count) if count <= most => Ok(Some(count)),
            Err(_) if count == -1 => Ok(None),
            _ => Err(Garbled::Malformed),
        }
    };
    match kind {
        b'+' | b'-' | b':' | b',' | b'#' | b'(' | b'_' => Ok(leaf),
        b'$' | b'=' | b'!' => {
            Ok(count(BODY_MAX)?.map_or(leaf, |body| Element::Whole { len: head + body + 2, inner: 0 }))
        }
        b'*' | b'~' | b'>' => Ok(count(ELEMENTS_MAX)?.map_or(leaf, |inner| Element::Whole { len: head, inner })),
        b'%' => Ok(Element::Whole { len: head, inner: count(ELEMENTS_MAX)?.ok_or(Garbled::Malformed)? * 2 }),
        // What it describes follows it.
        b'|' => Ok(Element::Whole { len: head, inner: count(ELEMENTS_MAX)?.ok_or(Garbled::Malformed)? * 2 + 1 }),
        _ => Err(Garbled::Malformed),
    }
}

const fn is_kind(kind: u8) -> bool {
    matches!(
        kind,
        b'+' | b'-' | b':' | b',' | b'#' | b'(' | b'_' | b'$' | b'=' | b'!' | b'*' | b'~' | b'>' | b'%' | b'|'
    )
}

/// The length of a reply that is a success, has no elements, and is whole at the front of `input`: nearly all are.
#[inline]
pub(super) fn plain(input: &[u8]) -> Option<usize> {
    let len = match input.first()? {
        b'+' | b':' => {
            let end = memchr::memchr(b'\r', input.get(..input.len().min(LINE_MAX))?)?;
            if input.get(end + 1) != Some(&b'\n') {
                return None;
            }
            end + 2
        }
        b'$' if input.get(1) == Some(&b'-') => {
            if !input.starts_with(b"$-1\r\n") {
                return None;
            }
            5
        }
        b'$' => {
            let mut at = 1;
            let mut body = 0;
            loop {
                let byte = *input.get(at)?;
                at += 1;
                match byte {
                    b'0'..=b'9' if at < 9 => body = body * 10 + usize::from(byte - b'0'),
                    b'\r' if at > 2 && (at == 3 || input.get(1) != Some(&b'0')) => break,
                    _ => return None,
                }
            }
            if input.get(at) != Some(&b'\n') {
                return None;
            }
            at + 1 + body + 2
        }
        _ => return None,
    };
    (len <= input.len()).then_some(len)
}

/// Where the reader stands in the reply at hand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// Elements that are still to be read. 0: between replies.
    pub(super) left: u64,
    /// In a line of text longer than what is looked at.
    pub(super) in_line: bool,
    /// Of the element at the front, without a line end.
    pub(super) searched: usize,
    /// Bytes that end a body whose rest was let pass before it was there. So a reply has ended only when its last
    /// byte was seen.
    pub(super) tail: u8,
}

impl Progress {
    /// Reads on in a reply, of which elements are left. Gives the bytes read, possibly more than there are.
    pub(super) fn read_on(&mut self, input: &[u8]) -> Result<u64, Garbled> {
        let mut at = 0_u64;
        while self.left > 0 {
            let Some(rest) = usize::try_from(at).ok().and_then(|at| input.get(at..)).filter(|rest| !rest.is_empty())
            else {
                break;
            };
            if self.tail > 0 {
                at += 1;
                self.tail -= 1;
                self.left -= u64::from(self.tail == 0);
                continue;
            }
            if self.in_line {
                let Some(end) = memchr::memchr(b'\n', rest) else { return Ok(input.len() as u64) };
                at += end as u64 + 1;
                self.in_line = false;
                self.left -= 1;
                continue;
            }
            let element = match element(rest, &mut self.searched) {
                // What is well-formed before it passes first.
                Err(_) if at > 0 => break,
                element => element?,
            };
            match element {
                Element::Partial => break,
                Element::LongLine => {
                    self.searched = 0;
                    self.in_line = true;
                }
                Element::Whole { len, inner: 0 } if len > rest.len() as u64 => {
                    at += len - 2;
                    self.tail = 2;
                }
                Element::Whole { len, inner } => {
                    at += len;
                    self.left = (self.left - 1)
                        .checked_add(inner)
                        .filter(|left| *left <= ELEMENTS_MAX * 4)
                        .ok_or(Garbled::Malformed)?;
                }
            }
        }
        Ok(at)
    }
}
