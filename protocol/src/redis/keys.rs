//! Where the keys of a command stand.
//!
//! A specification is the server's own (key specifications of `COMMAND`, Redis 7). Where the server has exceptions
//! in code we yield rather too many words as keys than too few: every occurrence of a keyword counts (the server
//! may take the first or the last), and a `SORT` that reaches for other keys by pattern cannot be told.

use super::arguments::Arguments;
use super::table::Special;

/// One rule of a command's key specification.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    begin: Begin,
    find: Find,
}

#[derive(Clone, Copy, Debug)]
enum Begin {
    /// At this argument; the name is 0.
    Index(u16),
    /// Behind each occurrence of the word from this argument on.
    Keyword(Keyword, u16),
    /// Behind the word STREAMS of XREAD and XREADGROUP, found as the server finds it: past its options.
    Streams,
    /// Nobody knows.
    Unknown,
}

/// An upper-case word of at most 15 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyword {
    bytes: [u8; 15],
    len: u8,
}

#[derive(Clone, Copy, Debug)]
enum Find {
    /// From the beginning to `last`: relative to it, or if negative to the end of the command (or with a `limit` to
    /// that part of what is left), each `step`th.
    Range { last: i16, step: u16, limit: u16 },
    /// A count stands `at` behind the beginning and the keys `first` behind it, each `step`th.
    Counted { at: u16, first: u16, step: u16 },
}

pub(super) const AT_1: &[Spec] = &[range(1, 0, 1)];
pub(super) const UNKNOWN: &[Spec] = &[Spec { begin: Begin::Unknown, find: Find::Range { last: 0, step: 1, limit: 0 } }];

/// Half of what stands behind STREAMS.
pub(super) const STREAMS: &[Spec] =
    &[Spec { begin: Begin::Streams, find: Find::Range { last: -1, step: 1, limit: 2 } }];

pub(super) const fn range(index: u16, last: i16, step: u16) -> Spec {
    Spec { begin: Begin::Index(index), find: Find::Range { last, step, limit: 0 } }
}

/// The count at `index`, the keys from there on.
pub(super) const fn counted(index: u16, step: u16) -> Spec {
    Spec { begin: Begin::Index(index), find: Find::Counted { at: 0, first: 1, step } }
}

pub(super) const fn keyword(word: &str, from: u16, last: i16, step: u16, limit: u16) -> Spec {
    let mut keyword = Keyword { bytes: [0; 15], len: 0 };
    let bytes = word.as_bytes();
    while (keyword.len as usize) < bytes.len() {
        keyword.bytes[keyword.len as usize] = bytes[keyword.len as usize];
        keyword.len += 1;
    }
    Spec { begin: Begin::Keyword(keyword, from), find: Find::Range { last, step, limit } }
}

/// As [`keyword`], of a word that a server names. `None`: it is longer than any.
pub(super) fn keyword_owned(word: &[u8], from: u16, last: i16, step: u16, limit: u16) -> Option<Spec> {
    let mut keyword = Keyword { bytes: [0; 15], len: u8::try_from(word.len()).ok()? };
    keyword.bytes.get_mut(..word.len())?.copy_from_slice(word);
    Some(Spec { begin: Begin::Keyword(keyword, from), find: Find::Range { last, step, limit } })
}

impl Spec {
    pub(super) const fn index_range(index: u16, last: i16, step: u16, limit: u16) -> Spec {
        Spec { begin: Begin::Index(index), find: Find::Range { last, step, limit } }
    }

    pub(super) const fn index_counted(index: u16, at: u16, first: u16, step: u16) -> Spec {
        Spec { begin: Begin::Index(index), find: Find::Counted { at, first, step } }
    }

    /// No argument from `index` on can be a key by this rule.
    pub(super) const fn ends_before(&self, index: u32) -> bool {
        match (self.begin, self.find) {
            (Begin::Index(first), Find::Range { last, .. }) => last >= 0 && (first as u32 + last as u32) < index,
            _ => false,
        }
    }
}

impl Keyword {
    fn is(&self, word: &[u8]) -> bool {
        self.bytes.get(..usize::from(self.len)).is_some_and(|known| known.eq_ignore_ascii_case(word))
    }
}

/// A key and the argument it is; the command's name is argument 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a> {
    /// Which argument.
    pub index: u32,
    /// The key.
    pub bytes: &'a [u8],
}

/// The keys of the command cannot all be told: nobody knows where they stand, they are beyond what is looked at, or
/// the command is not well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the keys of the command cannot be told")]
pub struct Untold;

/// The keys of a command, in the order of its specification. A key may come twice. [`Untold`] comes at most once,
/// and nothing after it.
#[derive(Clone, Debug)]
pub struct Keys<'a> {
    specs: &'a [Spec],
    all: Arguments<'a>,
    count: u32,
    special: Special,
    /// What is left of the spec at hand.
    run: Run<'a>,
    /// Where the search for the next occurrence of a keyword goes on.
    search: Option<(Arguments<'a>, u32)>,
}

/// Keys still to be yielded: `left` of them, one every `step` arguments from `index` on.
#[derive(Clone, Debug, Default)]
struct Run<'a> {
    arguments: Arguments<'a>,
    index: u32,
    left: u32,
    step: u32,
}

impl<'a> Keys<'a> {
    pub(super) fn new(specs: &'a [Spec], all: Arguments<'a>, count: u32, special: Special) -> Self {
        let mut keys = Keys { specs, all, count, special, run: Run::default(), search: None };
        if special == Special::Sort && keys.reaches_by_pattern() {
            keys.specs = UNKNOWN;
        }
        keys
    }

    /// `BY weight_*` and `GET object_*` of SORT read keys that nobody can name. Without `*` they read none.
    fn reaches_by_pattern(&self) -> bool {
        let mut arguments = self.all;
        let mut previous: &[u8] = b"";
        arguments.any(|argument| {
            let introduced = previous.eq_ignore_ascii_case(b"BY") || previous.eq_ignore_ascii_case(b"GET");
            previous = argument;
            introduced && argument.contains(&b'*')
        })
    }

    fn is_cut(&self) -> bool {
        (self.all.len() as u64) < u64::from(self.count)
    }

    fn end(&mut self) -> Option<Result<Key<'a>, Untold>> {
        self.specs = &[];
        self.run.left = 0;
        self.search = None;
        Some(Err(Untold))
    }

    /// The run of `find` that begins at argument `begin`; `arguments` stand there.
    fn found(&self, find: Find, begin: u32, mut arguments: Arguments<'a>) -> Result<Run<'a>, Untold> {
        match find {
            Find::Range { last, step, limit } => {
                let step = u32::from(step).max(1);
                let last = match u32::try_from(last) {
                    Ok(last) => i64::from(begin) + i64::from(last),
                    Err(_) if limit == 0 => i64::from(self.count) + i64::from(last),
                    Err(_) => {
                        let part = i64::from(self.count - begin.min(self.count)) / i64::from(limit);
                        i64::from(begin) + part + i64::from(last)
                    }
                };
                let last = u32::try_from(last).map_err(|_| Untold)?;
                if last >= self.count || last < begin {
                    return Err(Untold);
                }
                Ok(Run { arguments, index: begin, left: (last - begin) / step + 1, step })
            }
            Find::Counted { at, first, step } => {
                let step = u32::from(step).max(1);
                let count = arguments.get(usize::from(at)).and_then(super::resp::integer).ok_or(Untold)?;
                let left = u32::try_from(count).map_err(|_| Untold)?;
                let index = begin + u32::from(first);
                let last = u64::from(index) + u64::from(left.saturating_sub(1)) * u64::from(step);
                if left > 0 && last >= u64::from(self.count) {
                    return Err(Untold);
                }
                for _ in 0..first {
                    arguments.next();
                }
                Ok(Run { arguments, index, left, step })
            }
        }
    }

    /// What stands behind STREAMS: as many ids as keys.
    fn streams(&self) -> Result<(u32, Arguments<'a>), Untold> {
        let mut arguments = self.all;
        let mut next = || arguments.next().ok_or(Untold);
        next()?;
        let mut index = 1;
        loop {
            let option = next()?;
            index += 1;
            let words = match option {
                _ if option.eq_ignore_ascii_case(b"STREAMS") => break,
                _ if option.eq_ignore_ascii_case(b"NOACK") => 0,
                _ if option.eq_ignore_ascii_case(b"GROUP") => 2,
                _ if [&b"COUNT"[..], b"BLOCK", b"CLAIM"].iter().any(|word| option.eq_ignore_ascii_case(word)) => 1,
                _ => return Err(Untold),
            };
            for _ in 0..words {
                next()?;
                index += 1;
            }
        }
        if (self.count - index).is_multiple_of(2) { Ok((index, arguments)) } else { Err(Untold) }
    }

    /// Goes on to the next run. `None`: there is none.
    fn next_run(&mut self) -> Option<Result<Run<'a>, Untold>> {
        loop {
            let spec = self.specs.first()?;
            let rest = self.specs.get(1..).unwrap_or_default();
            match spec.begin {
                Begin::Unknown => return Some(Err(Untold)),
                Begin::Index(index) => {
                    self.specs = rest;
                    let mut arguments = self.all;
                    for _ in 0..index {
                        arguments.next();
                    }
                    return Some(self.found(spec.find, u32::from(index), arguments));
                }
                Begin::Streams => {
                    self.specs = rest;
                    return Some(self.streams().and_then(|(at, arguments)| self.found(spec.find, at, arguments)));
                }
                Begin::Keyword(word, from) => {
                    if self.is_cut() {
                        // The word may stand where nobody looks.
                        return Some(Err(Untold));
                    }
                    let (mut arguments, mut index) = self.search.take().unwrap_or_else(|| {
                        let mut arguments = self.all;
                        for _ in 0..from {
                            arguments.next();
                        }
                        (arguments, u32::from(from))
                    });
                    while let Some(argument) = arguments.next() {
                        index += 1;
                        if word.is(argument) && index < self.count {
                            self.search = Some((arguments, index));
                            return Some(self.found(spec.find, index, arguments));
                        }
                    }
                    self.specs = rest;
                }
            }
        }
    }
}

impl<'a> Iterator for Keys<'a> {
    type Item = Result<Key<'a>, Untold>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.run.left == 0 {
            match self.next_run()? {
                Ok(run) => self.run = run,
                Err(Untold) => return self.end(),
            }
        }
        let index = self.run.index;
        let Some(bytes) = self.run.arguments.next() else { return self.end() };
        self.run.left -= 1;
        self.run.index += self.run.step;
        for _ in 1..self.run.step {
            self.run.arguments.next();
        }
        // MIGRATE with an empty key names its keys behind KEYS.
        if self.special == Special::Migrate && index == 3 && bytes.is_empty() {
            return self.next();
        }
        Some(Ok(Key { index, bytes }))
    }
}
