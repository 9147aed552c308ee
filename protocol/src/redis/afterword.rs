//! A client whose session was refused is told so at each command, for as long as libraries need to show it: they
//! begin with commands of their own, whose errors they keep to themselves.

use crate::{Afterword, Heard, Refusal, RefusalKind};

use super::arguments::Arguments;
use super::inline;
use super::opening::{BULK_MAX, is_http, number};
use super::refusal;
use super::resp::integer;
use super::scan::ARGUMENTS_UNAUTHENTICATED_MAX;

/// The most commands that are answered.
const COMMANDS_MAX: u32 = 16;
/// No head that can be read is longer.
const HEAD_MAX: usize = 64;

/// Answers each command with the refusal, HELLO with what it asks for, and QUIT. A client that nobody let in may
/// send what the server takes from such a one: 10 arguments of 16 KiB.
pub(super) struct Refusing {
    refusal: Box<[u8]>,
    is_teleport: bool,
    is_resp3: bool,
    /// Commands that will still be answered.
    commands: u32,
    /// Arguments of the command at hand that are still to come.
    left: u32,
    word: Word,
}

/// What the words so far ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// The name is still to come.
    Name,
    Quit,
    /// HELLO without a version.
    Hello,
    HelloVersion(u8),
    Other,
}

impl Refusing {
    /// For the refusals that a user has to see. Others are said once, and the client is let go.
    pub(super) fn new(refusal: &Refusal<'_>, is_teleport: bool) -> Option<Refusing> {
        let is_shown = matches!(
            refusal.kind,
            RefusalKind::Denied
                | RefusalKind::NotAuthorized
                | RefusalKind::NotSignedIn
                | RefusalKind::UnknownDatabase
                | RefusalKind::Unreachable
        );
        let mut text = Vec::new();
        refusal::ending(refusal, &mut text);
        is_shown.then(|| Refusing {
            refusal: text.into_boxed_slice(),
            is_teleport,
            is_resp3: false,
            commands: COMMANDS_MAX,
            left: 0,
            word: Word::Name,
        })
    }

    fn begin(&mut self, input: &[u8], out: &mut Vec<u8>) -> Heard {
        let Some((text, len)) = number(input, 0) else {
            return if input.len() > HEAD_MAX { Heard::Done } else { Heard::Need { need: input.len() + 1 } };
        };
        match integer(text) {
            Some(count) if count <= 0 => Heard::Read { len },
            Some(count) if count <= i64::from(ARGUMENTS_UNAUTHENTICATED_MAX) => {
                self.left = u32::try_from(count).unwrap_or(0);
                self.word = Word::Name;
                Heard::Read { len }
            }
            Some(_) => broken(b"Protocol error: unauthenticated multibulk length", out),
            None => broken(b"Protocol error: invalid multibulk length", out),
        }
    }

    fn argument(&mut self, input: &[u8], out: &mut Vec<u8>) -> Heard {
        let Some((text, body)) = number(input, 0) else {
            return if input.len() > HEAD_MAX { Heard::Done } else { Heard::Need { need: input.len() + 1 } };
        };
        let len = match integer(text) {
            Some(len) if input.first() == Some(&b'$') && len > BULK_MAX => {
                return broken(b"Protocol error: unauthenticated bulk length", out);
            }
            Some(len) if input.first() == Some(&b'$') && len >= 0 => usize::try_from(len).unwrap_or(0),
            _ => return broken(b"Protocol error: invalid bulk length", out),
        };
        let end = body + len + 2;
        let Some(word) = input.get(body..body + len).filter(|_| input.len() >= end) else {
            return Heard::Need { need: end };
        };
        if self.word == Word::Name && is_http(word) {
            return Heard::Done;
        }
        self.read(word);
        self.left -= 1;
        if self.left > 0 {
            return Heard::Read { len: end };
        }
        self.answer(end, out)
    }

    fn line(&mut self, input: &[u8], out: &mut Vec<u8>) -> Heard {
        let seen = input.get(..input.len().min(BULK_MAX as usize)).unwrap_or_default();
        let Some(end) = memchr::memchr(b'\n', seen) else {
            return match seen.len() < BULK_MAX as usize {
                true => Heard::Need { need: input.len() + 1 },
                false => broken(b"Protocol error: too big inline request", out),
            };
        };
        let mut words = Vec::new();
        let Ok(count) = inline::split(seen.get(..end).unwrap_or_default(), &mut words) else {
            return broken(b"Protocol error: unbalanced quotes in request", out);
        };
        let mut words = Arguments::new(&words, count);
        self.word = Word::Name;
        match words.next() {
            None => return Heard::Read { len: end + 1 },
            Some(name) if is_http(name) => return Heard::Done,
            Some(name) => self.read(name),
        }
        words.for_each(|word| self.read(word));
        self.answer(end + 1, out)
    }

    fn read(&mut self, word: &[u8]) {
        self.word = match self.word {
            Word::Name if word.eq_ignore_ascii_case(b"HELLO") => Word::Hello,
            Word::Name if word.eq_ignore_ascii_case(b"QUIT") => Word::Quit,
            Word::Hello if matches!(word, b"2" | b"3") => Word::HelloVersion(word[0]),
            // An AUTH in it is not taken.
            version @ Word::HelloVersion(_) if !word.eq_ignore_ascii_case(b"AUTH") => version,
            Word::Quit => Word::Quit,
            _ => Word::Other,
        };
    }

    fn answer(&mut self, len: usize, out: &mut Vec<u8>) -> Heard {
        if self.commands == 0 {
            return Heard::Done;
        }
        self.commands -= 1;
        match std::mem::replace(&mut self.word, Word::Name) {
            Word::Quit => {
                out.extend_from_slice(b"+OK\r\n");
                self.commands = 0;
            }
            Word::HelloVersion(b'3') if self.is_teleport => refusal::unknown_hello(out),
            Word::HelloVersion(version) => {
                self.is_resp3 = version == b'3';
                self.hello(out);
            }
            Word::Hello => self.hello(out),
            Word::Name | Word::Other => out.extend_from_slice(&self.refusal),
        }
        Heard::Read { len }
    }

    /// What HELLO answers, of a server that has nothing to say of itself.
    fn hello(&self, out: &mut Vec<u8>) {
        let (head, proto): (&[u8], &[u8]) =
            if self.is_resp3 { (b"%7\r\n", b":3\r\n") } else { (b"*14\r\n", b":2\r\n") };
        out.extend_from_slice(head);
        out.extend_from_slice(b"$6\r\nserver\r\n$8\r\nringgate\r\n$7\r\nversion\r\n$");
        super::resp::number(env!("CARGO_PKG_VERSION").len() as u64, out);
        out.extend_from_slice(env!("CARGO_PKG_VERSION").as_bytes());
        out.extend_from_slice(b"\r\n$5\r\nproto\r\n");
        out.extend_from_slice(proto);
        out.extend_from_slice(b"$2\r\nid\r\n:0\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n");
        out.extend_from_slice(b"$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n");
    }
}

fn broken(text: &[u8], out: &mut Vec<u8>) -> Heard {
    refusal::error("ERR", &[text], out);
    Heard::Done
}

impl Afterword for Refusing {
    fn handle(&mut self, input: &[u8], out: &mut Vec<u8>) -> Heard {
        match input.first() {
            _ if self.commands == 0 => Heard::Done,
            None => Heard::Need { need: 1 },
            Some(_) if self.left > 0 => self.argument(input, out),
            Some(b'*') => self.begin(input, out),
            Some(_) => self.line(input, out),
        }
    }
}
