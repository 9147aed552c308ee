//! The commands that a router is given: arrays of bulk strings which were judged before, and so are well-formed.

use super::handling::Handling;
use super::reply::{BrokenReply, LINE_BYTES_MAX};
use super::slot::Slot;
use super::split::{Piece, Split};
use crate::redis::arguments::Arguments;
use crate::redis::categories;
use crate::redis::command::Command;
use crate::redis::keys::Untold;
use crate::redis::table::CommandTable;

/// Finds the end of the command at the front of a growing buffer, without looking at a byte twice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    count: u32,
    whole: u32,
    at: usize,
    start: usize,
}

impl Scan {
    /// Goes on with `input`, which begins with what was offered before. `Some` is the length of the whole command.
    pub fn advance(&mut self, input: &[u8]) -> Result<Option<usize>, BrokenReply> {
        if self.start == 0 {
            let Some((count, len)) = head(input, b'*')? else { return Ok(None) };
            self.count = u32::try_from(count).map_err(|_| BrokenReply("a length out of bounds"))?;
            if self.count == 0 {
                return Err(BrokenReply("an empty command"));
            }
            (self.at, self.start) = (len, len);
        }
        while self.whole < self.count {
            let Some((len, head)) = head(&input[self.at..], b'$')? else { return Ok(None) };
            let end = len.checked_add(head + 2).and_then(|len| len.checked_add(self.at));
            let end = end.ok_or(BrokenReply("a length out of bounds"))?;
            if end > input.len() {
                return Ok(None);
            }
            self.at = end;
            self.whole += 1;
        }
        Ok(Some(self.at))
    }

    /// The command as far as its arguments lie in `input` whole. `None` before its name does.
    pub fn request<'a>(&self, input: &'a [u8], table: &'a CommandTable) -> Option<Request<'a>> {
        let arguments = Arguments::new(input.get(self.start..self.at)?, self.whole);
        let mut words = arguments;
        let (name, sub) = (words.next()?, words.next());
        let (found, known, _) = table.find(name, sub);
        let command = Command { name: known.unwrap_or_default(), found, arguments, count: self.count, bytes: 0 };
        Some(Request { handling: Handling::of(command.name()), command, arguments })
    }
}

/// `*<n>\r\n` or `$<n>\r\n` at the front: the number and the length of the line.
fn head(input: &[u8], kind: u8) -> Result<Option<(usize, usize)>, BrokenReply> {
    let Some(end) = memchr::memchr(b'\n', &input[..input.len().min(LINE_BYTES_MAX)]) else {
        return if input.len() > 32 { Err(BrokenReply("no head of a command")) } else { Ok(None) };
    };
    let digits = input[..end].strip_suffix(b"\r").and_then(|line| line.strip_prefix(&[kind]));
    let number = digits.and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| digits.parse().ok());
    number.map(|number| Some((number, end + 1))).ok_or(BrokenReply("no head of a command"))
}

/// A command, and what the cluster asks of it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// How it is served.
    pub handling: Handling,
    command: Command<'a>,
    arguments: Arguments<'a>,
}

impl<'a> Request<'a> {
    /// The name as an error may show it: canonical where it is known, else what the client wrote, printable and short.
    pub fn shown(&self) -> String {
        match self.name() {
            "" => {
                let word = self.argument(0).unwrap_or_default();
                word.iter().take(64).filter(|byte| byte.is_ascii_graphic()).map(|&byte| char::from(byte)).collect()
            }
            name => name.to_owned(),
        }
    }

    /// The canonical name, empty for one that only the server knows.
    pub fn name(&self) -> &'a str {
        self.command.name()
    }

    /// The argument at `index`, the name being 0, if it is at hand.
    pub fn argument(&self, index: usize) -> Option<&'a [u8]> {
        self.arguments.get(index)
    }

    /// Arguments with the name.
    pub fn count(&self) -> usize {
        self.command.arguments() as usize + 1
    }

    /// It writes, as the command table has it.
    pub fn writes(&self) -> bool {
        self.command.categories().contains(categories::Categories::of(categories::WRITE))
    }

    /// It only reads: it can be run again when its reply was lost.
    pub fn only_reads(&self) -> bool {
        self.command.categories().contains(categories::Categories::of(categories::READ)) && !self.writes()
    }

    /// It may wait for what others do.
    pub fn blocks(&self) -> bool {
        self.command.categories().contains(categories::Categories::of(categories::BLOCKING))
    }

    /// The slot of its first key: `None` without keys. The nodes themselves refuse keys of several slots.
    pub fn slot(&self) -> Result<Option<Slot>, Untold> {
        if self.handling == Handling::Channel {
            return Ok(self.argument(1).map(Slot::of));
        }
        match self.command.keys().next() {
            None => Ok(None),
            Some(Ok(key)) => Ok(Some(Slot::of(key.bytes))),
            // SORT BY and GET: its own key is the first argument, and a node says best what it does not do.
            Some(Err(Untold)) if self.name().starts_with("SORT") => Ok(self.argument(1).map(Slot::of)),
            // As it does for a known command that is not well-formed.
            Some(Err(Untold)) if !self.name().is_empty() && !self.command.is_cut() => Ok(None),
            Some(Err(untold)) => Err(untold),
        }
    }

    /// Whether all arguments from `first` on are of one slot.
    pub fn is_of_one_slot(&self, first: usize) -> bool {
        let mut slots = self.arguments.skip(first).map(Slot::of);
        let one = slots.next();
        slots.all(|slot| Some(slot) == one)
    }

    /// Its pieces, where it is to be cut: see [`Split::pieces`].
    pub fn pieces(&self, split: Split) -> Option<Vec<Piece>> {
        split.pieces(&self.arguments.collect::<Vec<_>>())
    }
}
