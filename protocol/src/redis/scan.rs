//! Finds the front command of the client's direction, whatever it was cut into.
//!
//! Limits and error texts are the server's (`networking.c`, `processMultibulkBuffer`). As the server does, the two
//! bytes behind a number and behind a body are skipped and not looked at.

use super::resp::integer;

/// How much of a command is looked at before it is ruled on. Longer ones are ruled on by their front and streamed.
pub(super) const WINDOW: usize = 64 * 1024;
/// The server's bound of a head without an end, and of an inline line.
pub(super) const LINE_MAX: usize = 64 * 1024;
/// No head that can be read is longer.
const HEAD_MAX: usize = 32;
/// A last argument that is longer is not waited for, where it cannot be a key.
const TAIL_MAX: usize = 4096;

/// The most arguments of a client that is not signed in, as the server has it.
pub(super) const ARGUMENTS_UNAUTHENTICATED_MAX: u32 = 10;
/// The most bytes of such an argument.
const BULK_UNAUTHENTICATED_MAX: u64 = 16 * 1024;

/// How much a command may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes of one argument.
    pub(super) bulk_max: u64,
    /// The client is not signed in yet.
    pub(super) is_unauthenticated: bool,
}

/// What broke the protocol, in the server's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    MultibulkLength,
    BulkLength,
    /// Instead of `$`.
    ExpectedDollar(u8),
    BigMultibulk,
    BigBulk,
    BigInline,
    UnbalancedQuotes,
    InlineOff,
    UnauthenticatedMultibulk,
    UnauthenticatedBulk,
    /// A head that is longer than any that can be read, and has no end yet: how it began tells what it will be.
    Endless {
        /// The head of the whole command, not of an argument.
        multibulk: bool,
        /// Its first byte.
        first: u8,
    },
}

impl Broken {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Broken::MultibulkLength => "Protocol error: invalid multibulk length",
            Broken::BulkLength => "Protocol error: invalid bulk length",
            Broken::ExpectedDollar(_) => "Protocol error: expected '$'",
            Broken::BigMultibulk => "Protocol error: too big mbulk count string",
            Broken::BigBulk => "Protocol error: too big bulk count string",
            Broken::BigInline => "Protocol error: too big inline request",
            Broken::UnbalancedQuotes => "Protocol error: unbalanced quotes in request",
            Broken::InlineOff => "Protocol error: inline commands are switched off",
            Broken::UnauthenticatedMultibulk => "Protocol error: unauthenticated multibulk length",
            Broken::UnauthenticatedBulk => "Protocol error: unauthenticated bulk length",
            Broken::Endless { .. } => "Protocol error: head without an end",
        }
    }

    /// The whole text. A byte that was met in the place of `$` is shown as the server shows it.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.text().as_bytes());
        if let Broken::ExpectedDollar(byte) = self {
            out.extend_from_slice(b", got '");
            if byte != 0 {
                out.extend_from_slice(&[if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }, b'\'']);
            }
        }
    }
}

/// How far the front command has been read. All offsets count from its first byte.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scan {
    /// Up to here everything is read; a head or an inline line begins here.
    pub(super) at: usize,
    /// Up to here a head that begins at `at` was searched for its end.
    pub(super) searched: usize,
    /// Where the first argument's head stands. 0: the count is not read yet.
    pub(super) first: usize,
    /// Arguments of the command.
    pub(super) count: u32,
    /// Arguments that were read whole.
    pub(super) whole: u32,
    /// Bytes of the arguments behind the name whose heads were read.
    pub(super) bytes: u64,
    /// Bytes of the argument that the command was cut at.
    pub(super) cut_bytes: u64,
}

/// What a look at the front command gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scanned {
    /// Undecided until so many bytes are there.
    Need(usize),
    /// It does not begin with `*`: a line.
    Inline,
    /// A command of no arguments, never answered: so many bytes.
    Empty(usize),
    /// `Scan::at` bytes are the whole command.
    Whole,
    /// As much as is looked at. The argument behind the whole ones ends at this offset, and `count - whole - 1` more
    /// follow.
    Cut(u64),
}

impl Scan {
    /// Reads on. `leave_tail` says, for the arguments read so far, whether the last one may be left unseen.
    #[inline]
    pub(super) fn command(
        &mut self,
        input: &[u8],
        bounds: Bounds,
        leave_tail: impl Fn(&Scan) -> bool,
    ) -> Result<Scanned, Broken> {
        if self.first == 0 {
            if input.first() != Some(&b'*') {
                return Ok(Scanned::Inline);
            }
            let Some((number, next)) = self.head(input, Broken::BigMultibulk)? else {
                return Ok(Scanned::Need(input.len() + 1));
            };
            let count = integer(number).and_then(|count| i32::try_from(count).ok()).ok_or(Broken::MultibulkLength)?;
            if count <= 0 {
                return Ok(Scanned::Empty(next));
            }
            self.count = count.unsigned_abs();
            if bounds.is_unauthenticated && self.count > ARGUMENTS_UNAUTHENTICATED_MAX {
                return Err(Broken::UnauthenticatedMultibulk);
            }
            self.first = next;
            self.go_to(next);
        }
        while self.whole < self.count {
            if self.at + HEAD_MAX > WINDOW {
                // The rest is read as it passes.
                return Ok(Scanned::Cut(self.at as u64));
            }
            let Some((len, next)) = self.bulk(input, bounds.bulk_max)? else {
                return Ok(Scanned::Need(input.len() + 1));
            };
            if bounds.is_unauthenticated && len > BULK_UNAUTHENTICATED_MAX {
                return Err(Broken::UnauthenticatedBulk);
            }
            let end = next as u64 + len + 2;
            if end > input.len() as u64 {
                let is_tail = self.whole + 1 == self.count && len > TAIL_MAX as u64 && leave_tail(self);
                if end > WINDOW as u64 || is_tail {
                    self.cut_bytes = len;
                    return Ok(Scanned::Cut(end));
                }
                return Ok(Scanned::Need(next + len as usize + 2));
            }
            if end > WINDOW as u64 || (self.whole + 1 == self.count && len > TAIL_MAX as u64 && leave_tail(self)) {
                // The same decision as if the rest had not arrived yet.
                self.cut_bytes = len;
                return Ok(Scanned::Cut(end));
            }
            self.bytes += if self.whole == 0 { 0 } else { len };
            self.whole += 1;
            self.go_to(next + len as usize + 2);
        }
        Ok(Scanned::Whole)
    }

    /// Reads the heads of `left` more arguments of a command that is already on its way. Gives the bytes that may
    /// pass now, possibly more than there are; `None` when a head is cut.
    pub(super) fn rest(left: &mut u32, input: &[u8], bulk_max: u64) -> Result<Option<u64>, Broken> {
        let mut scan = Scan::default();
        while *left > 0 && scan.at < input.len() {
            let (len, next) = match scan.bulk(input, bulk_max) {
                Ok(Some(found)) => found,
                Ok(None) => break,
                // What is well-formed before it passes first.
                Err(_) if scan.at > 0 => break,
                Err(broken) => return Err(broken),
            };
            *left -= 1;
            let end = next as u64 + len + 2;
            if end >= input.len() as u64 {
                return Ok(Some(end));
            }
            scan.go_to(next + len as usize + 2);
        }
        Ok((scan.at > 0).then_some(scan.at as u64))
    }

    /// What an endless head turned out to be: `seen` bytes of it were there before `input`. `None` while that is open.
    pub(super) fn endless(multibulk: bool, first: u8, seen: usize, input: &[u8]) -> Option<Broken> {
        let end = memchr::memchr(b'\r', input).map_or(seen + input.len(), |end| seen + end);
        let ended = end < seen + input.len();
        match (multibulk, first) {
            _ if !ended && end <= LINE_MAX => None,
            (true, _) if end > LINE_MAX => Some(Broken::BigMultibulk),
            (true, _) => Some(Broken::MultibulkLength),
            (false, _) if end > LINE_MAX => Some(Broken::BigBulk),
            (false, b'$') => Some(Broken::BulkLength),
            (false, other) => Some(Broken::ExpectedDollar(other)),
        }
    }

    /// Reads on in a line: its length with the line feed.
    pub(super) fn line(&mut self, input: &[u8]) -> Result<Option<usize>, Broken> {
        let seen = input.get(..input.len().min(LINE_MAX + 1)).unwrap_or_default();
        match memchr::memchr(b'\n', seen.get(self.searched..).unwrap_or_default()) {
            Some(end) => Ok(Some(self.searched + end + 1)),
            None if seen.len() > LINE_MAX => Err(Broken::BigInline),
            None => {
                self.searched = seen.len();
                Ok(None)
            }
        }
    }

    #[inline]
    fn go_to(&mut self, at: usize) {
        self.at = at;
        self.searched = at;
    }

    /// The length of the body at the front, and where it begins.
    #[inline]
    fn bulk(&mut self, input: &[u8], bulk_max: u64) -> Result<Option<(u64, usize)>, Broken> {
        // One and two digits are nearly all of them.
        match input.get(self.at..) {
            Some([b'$', a @ b'0'..=b'9', b'\r', _, ..]) => return Ok(Some((u64::from(a - b'0'), self.at + 4))),
            Some([b'$', a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', _, ..]) => {
                return Ok(Some((u64::from(a - b'0') * 10 + u64::from(b - b'0'), self.at + 5)));
            }
            _ => {}
        }
        let Some((number, next)) = self.head(input, Broken::BigBulk)? else { return Ok(None) };
        match input.get(self.at) {
            Some(b'$') => {}
            byte => return Err(Broken::ExpectedDollar(byte.copied().unwrap_or_default())),
        }
        let len = integer(number).and_then(|len| u64::try_from(len).ok()).ok_or(Broken::BulkLength)?;
        if len > bulk_max {
            return Err(Broken::BulkLength);
        }
        Ok(Some((len, next)))
    }

    /// The number of the head at the front, and what follows the head. A head without an end is waited for as long
    /// as it may be one; what cannot be one is broken in the words for what was found.
    #[inline]
    fn head<'a>(&mut self, input: &'a [u8], big: Broken) -> Result<Option<(&'a [u8], usize)>, Broken> {
        let end = match memchr::memchr(b'\r', input.get(self.searched..).unwrap_or_default()) {
            Some(end) => self.searched + end,
            None if input.len().saturating_sub(self.at) > HEAD_MAX => {
                let first = input.get(self.at).copied().unwrap_or_default();
                return Err(Broken::Endless { multibulk: big == Broken::BigMultibulk, first });
            }
            None => {
                self.searched = input.len();
                return Ok(None);
            }
        };
        if end + 2 > input.len() {
            self.searched = end;
            return Ok(None);
        }
        Ok(Some((input.get(self.at + 1..end).unwrap_or_default(), end + 2)))
    }
}
