//! Reads the server's own command table: the answer to `COMMAND`, one command at a time.

use super::categories::Categories;
use super::keys::{Spec, UNKNOWN, keyword_owned, range};
use super::reply::{self, Element};
use super::resp::integer;
use super::table::{CommandTable, Learned};

/// The most bytes that the description of one command may have, its sub-commands included.
const COMMAND_BYTES_MAX: usize = 64 * 1024;
/// The most commands that are kept.
const COMMANDS_MAX: usize = 4096;

/// How far the answer has been read.
#[derive(Debug, Default)]
pub(super) struct Learning {
    /// Commands still to come; `None` before the head.
    left: Option<u64>,
    table: CommandTable,
}

pub(super) enum Step {
    Need(usize),
    Consumed(usize),
    Done(usize, CommandTable),
    /// An error of so many bytes.
    Refused(usize),
}

impl Learning {
    pub(super) fn handle(&mut self, input: &[u8]) -> Result<Step, &'static str> {
        const WHAT: &str = "an answer to COMMAND that is none";
        let Some(left) = self.left else {
            return match reply::element(input, &mut 0).map_err(|_| WHAT)? {
                Element::Whole { len, .. } if len > input.len() as u64 => Ok(Step::Need(input.len() + 1)),
                Element::Whole { len, .. } if input.first() == Some(&b'-') => Ok(Step::Refused(len as usize)),
                Element::Whole { len, inner } if input.first() == Some(&b'*') => {
                    self.left = Some(inner);
                    Ok(if inner == 0 { self.done(len as usize) } else { Step::Consumed(len as usize) })
                }
                Element::Partial => Ok(Step::Need(input.len() + 1)),
                _ => Err(WHAT),
            };
        };
        let mut progress = reply::Progress { left: 1, ..reply::Progress::default() };
        let len = progress.read_on(input).map_err(|_| WHAT)?;
        if progress.left > 0 || len > input.len() as u64 {
            let need = usize::try_from(len).unwrap_or(usize::MAX).max(input.len() + 1);
            return if need > COMMAND_BYTES_MAX {
                Err("a command description that is too long")
            } else {
                Ok(Step::Need(need))
            };
        }
        let len = len as usize;
        let mut cursor = Cursor { rest: input.get(..len).unwrap_or_default() };
        // What is not understood stays unknown.
        let _ = self.container(&mut cursor);
        self.left = Some(left - 1);
        Ok(if left == 1 { self.done(len) } else { Step::Consumed(len) })
    }

    fn done(&mut self, len: usize) -> Step {
        Step::Done(len, std::mem::take(&mut self.table))
    }

    /// A command, and its sub-commands.
    fn container(&mut self, cursor: &mut Cursor<'_>) -> Option<()> {
        let (name, mut learned, fields) = description(cursor)?;
        let subs = if fields > 0 { cursor.array()? } else { 0 };
        learned.is_container = subs > 0;
        self.keep(name, learned);
        for _ in 0..subs {
            let (name, learned, fields) = description(cursor)?;
            for _ in 0..fields {
                cursor.skip()?;
            }
            self.keep(name, learned);
        }
        Some(())
    }

    fn keep(&mut self, name: &[u8], learned: Learned) {
        if let Ok(name) = std::str::from_utf8(name)
            && name.bytes().all(|byte| byte.is_ascii_graphic())
            && self.table.len() < COMMANDS_MAX
        {
            self.table.learn(&name.to_ascii_uppercase(), learned);
        }
    }
}

/// Reads a description up to its sub-commands. Gives the name and how many fields are left.
fn description<'a>(cursor: &mut Cursor<'a>) -> Option<(&'a [u8], Learned, u64)> {
    let fields = cursor.array()?;
    let name = cursor.text()?;
    let _arity = cursor.integer()?;
    let mut movable = false;
    for _ in 0..cursor.array()? {
        movable |= cursor.text()? == b"movablekeys";
    }
    let (first, last, step) = (cursor.integer()?, cursor.integer()?, cursor.integer()?);
    let mut categories = Categories::NONE;
    if fields > 6 {
        for _ in 0..cursor.array()? {
            let word = cursor.text()?;
            categories =
                categories.union(Categories::named(word.strip_prefix(b"@").unwrap_or(word)).unwrap_or_default());
        }
    }
    let mut read = fields.min(7);
    if fields > 7 {
        cursor.skip()?;
        read = 8;
    }
    let mut keys = if movable {
        UNKNOWN.to_vec()
    } else if first > 0 {
        let last = if last >= 0 { last - first } else { last };
        vec![range(u16::try_from(first).ok()?, i16::try_from(last).ok()?, u16::try_from(step).ok()?)]
    } else {
        Vec::new()
    };
    if fields > 8 {
        let specs = cursor.array()?;
        // Modules that find keys by code of their own give no specification.
        if specs > 0 || !movable {
            keys.clear();
        }
        for _ in 0..specs {
            keys.extend(specification(cursor)?);
        }
        read = 9;
    }
    let keys = keys.into_boxed_slice();
    Some((name, Learned { categories, keys, is_container: false }, fields - read))
}

/// One key specification: a map of `flags`, `begin_search` and `find_keys`, perhaps of `notes`. `None` inside: its
/// arguments are no keys.
fn specification(cursor: &mut Cursor<'_>) -> Option<Option<Spec>> {
    let (mut is_key, mut is_whole) = (true, true);
    let (mut begin, mut find) = (None, None);
    for _ in 0..cursor.array()? / 2 {
        match cursor.text()? {
            b"flags" => {
                for _ in 0..cursor.array()? {
                    match cursor.text()? {
                        b"not_key" => is_key = false,
                        b"incomplete" => is_whole = false,
                        _ => {}
                    }
                }
            }
            b"begin_search" => begin = Some(typed(cursor)?),
            b"find_keys" => find = Some(typed(cursor)?),
            _ => cursor.skip()?,
        }
    }
    let unknown = UNKNOWN.first().copied();
    let spec = begin.zip(find).and_then(|(begin, find)| {
        let number = |from: &Typed<'_>, name: &[u8]| from.number(name).and_then(|number| u16::try_from(number).ok());
        let ends = |from: &Typed<'_>| {
            let last = from.number(b"lastkey").and_then(|last| i16::try_from(last).ok())?;
            Some((last, number(from, b"keystep")?, number(from, b"limit")?))
        };
        match (begin.kind, find.kind) {
            (b"index", b"range") => {
                let (last, step, limit) = ends(&find)?;
                Some(Spec::index_range(number(&begin, b"index")?, last, step, limit))
            }
            (b"index", b"keynum") => Some(Spec::index_counted(
                number(&begin, b"index")?,
                number(&find, b"keynumidx")?,
                number(&find, b"firstkey")?,
                number(&find, b"keystep")?,
            )),
            (b"keyword", b"range") => {
                let (last, step, limit) = ends(&find)?;
                let from = begin.number(b"startfrom").and_then(|from| u16::try_from(from).ok()).unwrap_or(1);
                keyword_owned(begin.word?, from, last, step, limit)
            }
            _ => None,
        }
    });
    Some(match (is_key, spec) {
        (false, _) => None,
        (true, Some(spec)) if is_whole => Some(spec),
        _ => unknown,
    })
}

/// `type` and `spec` of a half of a key specification.
struct Typed<'a> {
    kind: &'a [u8],
    word: Option<&'a [u8]>,
    numbers: [(&'a [u8], i64); 4],
    count: usize,
}

impl Typed<'_> {
    fn number(&self, name: &[u8]) -> Option<i64> {
        self.numbers.get(..self.count)?.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
    }
}

fn typed<'a>(cursor: &mut Cursor<'a>) -> Option<Typed<'a>> {
    let mut typed = Typed { kind: b"", word: None, numbers: [(b"", 0); 4], count: 0 };
    for _ in 0..cursor.array()? / 2 {
        match cursor.text()? {
            b"type" => typed.kind = cursor.text()?,
            b"spec" => {
                for _ in 0..cursor.array()? / 2 {
                    let name = cursor.text()?;
                    if name == b"keyword" {
                        typed.word = Some(cursor.text()?);
                        continue;
                    }
                    let number = cursor.integer()?;
                    if let Some(place) = typed.numbers.get_mut(typed.count) {
                        *place = (name, number);
                        typed.count += 1;
                    }
                }
            }
            _ => cursor.skip()?,
        }
    }
    Some(typed)
}

/// Reads elements of a reply that is whole.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// The front element: its kind, its text or body, and what it contains.
    fn element(&mut self) -> Option<(u8, &'a [u8], u64)> {
        let Ok(Element::Whole { len, inner }) = reply::element(self.rest, &mut 0) else { return None };
        let (front, rest) = self.rest.split_at_checked(usize::try_from(len).ok()?)?;
        self.rest = rest;
        let kind = *front.first()?;
        let end = memchr::memchr(b'\r', front)?;
        let text = if kind == b'$' { front.get(end + 2..front.len().saturating_sub(2)) } else { front.get(1..end) };
        Some((kind, text.unwrap_or_default(), inner))
    }

    /// The elements of an array, set or map at the front.
    fn array(&mut self) -> Option<u64> {
        let (kind, _, inner) = self.element()?;
        matches!(kind, b'*' | b'~' | b'%').then_some(inner)
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let (kind, text, _) = self.element()?;
        matches!(kind, b'$' | b'+').then_some(text)
    }

    fn integer(&mut self) -> Option<i64> {
        let (kind, text, _) = self.element()?;
        (kind == b':').then(|| integer(text)).flatten()
    }

    fn skip(&mut self) -> Option<()> {
        let mut progress = reply::Progress { left: 1, ..reply::Progress::default() };
        let len = progress.read_on(self.rest).ok()?;
        self.rest = self.rest.get(usize::try_from(len).ok()?..)?;
        Some(())
    }
}
