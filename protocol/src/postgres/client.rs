//! Messages the client sends, read just as far as policy and audit want to see them.
//!
//! A frame longer than what is held back is read from its prefix: what is visible is checked, every inner
//! length against the frame, and the rest is left to the server.

use crate::wire::Reader;
use crate::{Fault, FaultKind, Side, Verb};

use super::error::{fault, malformed};
use super::head::{HEAD, Head};

/// A piece of the frame that begins at the front of the buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    // What is looked at ends far below 4 GiB; half the size halves what a decision moves.
    start: u32,
    len: u32,
}

impl Span {
    /// Its bytes. Empty when `frame` ends before it, which a caller that keeps to the contract never sees.
    pub(super) fn of(self, frame: &[u8]) -> &[u8] {
        frame.get(self.start as usize..).and_then(|rest| rest.get(..self.len as usize)).unwrap_or_default()
    }

    /// Where `part` lies in `frame`, of which it is a piece. Otherwise nothing.
    pub(super) fn within(frame: &[u8], part: &[u8]) -> Span {
        let start = part.as_ptr().addr().wrapping_sub(frame.as_ptr().addr());
        if start <= frame.len() && part.len() <= frame.len() - start {
            Span::new(start, part.len())
        } else {
            Span::default()
        }
    }

    /// `len` bytes from `start`.
    pub(super) fn new(start: usize, len: usize) -> Span {
        match (u32::try_from(start), u32::try_from(len)) {
            (Ok(start), Ok(len)) => Span { start, len },
            // Nothing that long is ever looked at.
            _ => Span::default(),
        }
    }

    /// At most its first `max` bytes.
    pub(super) fn capped(self, max: usize) -> Span {
        Span { start: self.start, len: u32::try_from(max).map_or(self.len, |max| self.len.min(max)) }
    }
}

/// A message that policy rules on, as offsets into its frame, so that it is read once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) verb: Verb,
    /// Bytes of the whole frame.
    pub(super) len: u64,
    pub(super) statement: Span,
    pub(super) portal: Span,
    /// The text, as far as it is visible.
    pub(super) text: Span,
    /// Bytes of the whole text.
    pub(super) text_full: u64,
    /// Parameter types of Parse, as far as visible.
    pub(super) types: Span,
    /// Parameters of Bind and FunctionCall, as far as visible.
    pub(super) parameters: Span,
    /// The parameters go on beyond what is visible.
    pub(super) cut: bool,
    pub(super) function_oid: u32,
}

impl Frame {
    /// No frame: before the first.
    pub(super) const NONE: Frame = Frame::new(Verb::Query, Head { tag: b'Q', frame: 0 });

    const fn new(verb: Verb, head: Head) -> Frame {
        let none = Span { start: 0, len: 0 };
        Frame {
            verb,
            len: head.frame,
            statement: none,
            portal: none,
            text: none,
            text_full: 0,
            types: none,
            parameters: none,
            cut: false,
            function_oid: 0,
        }
    }

    /// Where the text begins when it is longer than the `shown` bytes of it.
    pub(super) fn streams_from(&self, shown: usize) -> Option<usize> {
        (self.text_full > shown as u64).then_some(self.text.start as usize)
    }
}

/// Reads a message of one of the six types that are ruled on. `visible` is the frame, or its prefix.
pub(super) fn frame(head: Head, visible: &[u8]) -> Result<Frame, Fault> {
    let mut body = Body::new(head, visible);
    match head.tag {
        b'Q' => query(head, &mut body),
        b'P' => parse(head, &mut body),
        b'B' => bind(head, &mut body),
        b'E' => execute(head, &mut body),
        b'C' => close(head, &mut body),
        _ => function_call(head, &mut body),
    }
}

/// A cursor over the visible part of a frame that knows how long the frame is.
struct Body<'a> {
    reader: Reader<'a>,
    visible: usize,
    whole: u64,
}

impl<'a> Body<'a> {
    fn new(head: Head, visible: &'a [u8]) -> Self {
        Body { reader: Reader::new(visible.get(HEAD..).unwrap_or_default()), visible: visible.len(), whole: head.frame }
    }

    fn position(&self) -> usize {
        self.visible - self.reader.rest().len()
    }

    fn is_cut(&self) -> bool {
        (self.visible as u64) < self.whole
    }

    /// Bytes of the frame not yet read, visible or not.
    fn left(&self) -> u64 {
        self.whole - self.position() as u64
    }

    /// A name: always within what is visible.
    fn name(&mut self) -> Result<Span, Fault> {
        let start = self.position();
        match self.reader.cstr() {
            Some(name) => Ok(Span::new(start, name.len())),
            None if self.is_cut() => Err(fault(Side::Client, FaultKind::TooLarge, "name too long to be looked at")),
            None => Err(malformed("name without end")),
        }
    }

    /// Nothing may be left when the frame is visible to its end.
    fn end(&self) -> Result<(), Fault> {
        if self.left() == 0 { Ok(()) } else { Err(malformed("bytes after the end of the message")) }
    }

    /// What to say about bytes that are not there: `true` when they are merely not visible yet.
    fn beyond(&self, needed: u64) -> Result<bool, Fault> {
        if needed > self.left() || !self.is_cut() {
            return Err(malformed("inner length beyond the message"));
        }
        Ok(true)
    }
}

/// Spec: "Message Formats", Query. The NUL is the last byte and the only one.
fn query(head: Head, body: &mut Body<'_>) -> Result<Frame, Fault> {
    let start = body.position();
    let rest = body.reader.rest();
    let nul = memchr::memchr(0, rest);
    let text_full = head.body() - 1;
    if nul.is_some_and(|at| (at as u64) < text_full) {
        return Err(malformed("zero byte inside the text"));
    }
    if !body.is_cut() && nul.is_none() {
        return Err(malformed("text without end"));
    }
    let len = nul.unwrap_or(rest.len());
    let text = Span::new(start, len);
    Ok(Frame {
        text: text.capped(usize::try_from(text_full).unwrap_or(len)),
        text_full,
        ..Frame::new(Verb::Query, head)
    })
}

/// Spec: "Message Formats", Parse: name, text, count and OIDs of parameter types.
fn parse(head: Head, body: &mut Body<'_>) -> Result<Frame, Fault> {
    let statement = body.name()?;
    let start = body.position();
    let frame = Frame { statement, ..Frame::new(Verb::Parse, head) };
    let Some(text) = body.reader.cstr() else {
        if !body.is_cut() {
            return Err(malformed("text without end"));
        }
        // The end of the text is not visible: as if no types were declared, the usual case.
        let text_full = body.left().checked_sub(3).ok_or(malformed("message ends within its text"))?;
        let len = body.reader.rest().len().min(usize::try_from(text_full).unwrap_or(usize::MAX));
        return Ok(Frame { text: Span::new(start, len), text_full, ..frame });
    };
    let frame = Frame { text: Span::new(start, text.len()), text_full: text.len() as u64, ..frame };
    let Some(count) = body.reader.u16() else {
        body.beyond(2)?;
        return Ok(frame);
    };
    let bytes = usize::from(count) * 4;
    if body.left() != bytes as u64 {
        return Err(malformed("parameter types do not fill the message"));
    }
    let types = Span::new(body.position(), bytes.min(body.reader.rest().len()));
    Ok(Frame { types, ..frame })
}

/// Spec: "Message Formats", Bind: portal, statement, parameters, result formats.
fn bind(head: Head, body: &mut Body<'_>) -> Result<Frame, Fault> {
    let portal = body.name()?;
    let statement = body.name()?;
    let (parameters, cut) = parameters(body)?;
    if !cut {
        result_formats(body)?;
    }
    Ok(Frame { portal, statement, parameters, cut, ..Frame::new(Verb::Bind, head) })
}

fn result_formats(body: &mut Body<'_>) -> Result<(), Fault> {
    let Some(count) = body.reader.u16() else {
        body.beyond(2)?;
        return Ok(());
    };
    if body.left() != u64::from(count) * 2 {
        return Err(malformed("result formats do not fill the message"));
    }
    Ok(())
}

/// Format codes and values, as Bind and FunctionCall share them. Says whether they go on out of sight.
fn parameters(body: &mut Body<'_>) -> Result<(Span, bool), Fault> {
    let start = body.position();
    let cut = values(body)?;
    Ok((Span::new(start, body.position() - start), cut))
}

fn values(body: &mut Body<'_>) -> Result<bool, Fault> {
    let Some(formats) = body.reader.u16() else { return body.beyond(2) };
    if body.reader.take(usize::from(formats) * 2).is_none() {
        return body.beyond(u64::from(formats) * 2);
    }
    let Some(count) = body.reader.u16() else { return body.beyond(2) };
    for _ in 0..count {
        let Some(length) = body.reader.u32() else { return body.beyond(4) };
        if length == u32::MAX {
            continue; // NULL
        }
        if body.reader.take(length as usize).is_none() {
            return body.beyond(u64::from(length));
        }
    }
    Ok(false)
}

/// Spec: "Message Formats", Execute: portal, most rows. Always visible whole.
fn execute(head: Head, body: &mut Body<'_>) -> Result<Frame, Fault> {
    let portal = body.name()?;
    body.reader.u32().ok_or(malformed("message ends before its row limit"))?;
    body.end()?;
    Ok(Frame { portal, ..Frame::new(Verb::Execute, head) })
}

/// Spec: "Message Formats", Close: `S` or `P`, name. Always visible whole.
fn close(head: Head, body: &mut Body<'_>) -> Result<Frame, Fault> {
    let (is_statement, name) = target(body)?;
    Ok(if is_statement {
        Frame { statement: name, ..Frame::new(Verb::CloseStatement, head) }
    } else {
        Frame { portal: name, ..Frame::new(Verb::ClosePortal, head) }
    })
}

/// Spec: "Message Formats", Describe: `S` or `P`, name. Says whether a statement is meant.
pub(super) fn describe(head: Head, visible: &[u8]) -> Result<bool, Fault> {
    target(&mut Body::new(head, visible)).map(|(is_statement, _)| is_statement)
}

fn target(body: &mut Body<'_>) -> Result<(bool, Span), Fault> {
    let is_statement = match body.reader.u8() {
        Some(b'S') => true,
        Some(b'P') => false,
        _ => return Err(malformed("neither a statement nor a portal is named")),
    };
    let name = body.name()?;
    body.end()?;
    Ok((is_statement, name))
}

/// Spec: "Message Formats", FunctionCall: function, arguments, result format.
fn function_call(head: Head, body: &mut Body<'_>) -> Result<Frame, Fault> {
    let function_oid = body.reader.u32().ok_or(malformed("message ends before its function"))?;
    let (parameters, cut) = parameters(body)?;
    if !cut && body.left() != 2 {
        return Err(malformed("arguments do not fill the message"));
    }
    Ok(Frame { parameters, cut, function_oid, ..Frame::new(Verb::FunctionCall, head) })
}

/// Spec: "Message Formats", CopyFail: a message. Always visible whole.
pub(super) fn copy_fail(head: Head, visible: &[u8]) -> Result<(), Fault> {
    let mut body = Body::new(head, visible);
    body.name()?;
    body.end()
}
