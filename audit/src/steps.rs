//! The steps of one statement of the extended protocol: Bind and Execute, or Parse, Bind and Execute, that directly
//! follow one another in a ring and say the same. They become one line, that of the Execute.
use crate::encode::{self, Cursor, Head, kind};
use crate::ring::RingConsumer;
use crate::text::Text;

/// What an Execute's line says of the steps before it.
pub(crate) struct Steps<'a> {
    /// `ei` of the Parse, only of the unnamed statement: a named one is prepared for more than this.
    pub(crate) parse_ei: Option<u32>,
    pub(crate) bind_ei: u32,
    /// Name of the prepared statement.
    pub(crate) name: &'a [u8],
}

/// An Execute with the steps before it.
pub(crate) struct Chain<'a> {
    pub(crate) steps: Steps<'a>,
    pub(crate) execute: Head,
    pub(crate) body: Cursor<'a>,
    /// Records it is made of.
    pub(crate) records: u64,
    /// Position behind the last.
    pub(crate) after: u64,
}

/// The statement whose first step is the record `head`, `body` that ends at `after`. `None`: it is a line of its own,
/// because the others are not there before `end`, or say something else.
pub(crate) fn chain<'a>(
    ring: &'a RingConsumer,
    head: &Head,
    mut body: Cursor<'a>,
    mut after: u64,
    end: u64,
) -> Option<Chain<'a>> {
    let mut bind_ei = head.ei;
    let mut parsed = None;
    if head.kind == kind::PARSE {
        if !body.bytes()?.is_empty() {
            return None;
        }
        parsed = Some(Text::read(&mut body)?);
        let bind;
        (bind, body, after) = following(ring, head, head.ei, kind::BIND, after, end)?;
        bind_ei = bind.ei;
    }
    let (name, portal) = (body.bytes()?, body.bytes()?);
    if parsed.is_some() && !name.is_empty() {
        return None;
    }
    let values = body.rest();
    let (execute, body, after) = following(ring, head, bind_ei, kind::EXECUTE, after, end)?;
    let mut says = body.clone();
    let same = says.bytes()? == portal && {
        let text = Text::read(&mut says)?;
        parsed.as_ref().is_none_or(|p| *p == text) && says.rest() == values
    };
    let parse_ei = parsed.is_some().then_some(head.ei);
    let steps = Steps { parse_ei, bind_ei, name };
    same.then_some(Chain { steps, execute, body, records: 2 + u64::from(parse_ei.is_some()), after })
}

/// The record at `at`, when it is the next of the same session, at the same instant, and of that kind.
fn following<'a>(
    ring: &'a RingConsumer,
    first: &Head,
    ei: u32,
    kind: u8,
    at: u64,
    end: u64,
) -> Option<(Head, Cursor<'a>, u64)> {
    let (record, after) = ring.at(at, end).ok()??;
    let (head, body) = encode::read(record)?;
    let next = head.kind == kind
        && head.session == first.session
        && head.time_us == first.time_us
        && Some(head.ei) == ei.checked_add(1);
    next.then_some((head, body, after))
}
