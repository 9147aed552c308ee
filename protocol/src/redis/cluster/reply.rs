//! Replies of nodes, read as far as a router must: where one ends, and the head of the next value in it.
//!
//! No value is built. A reply's end is found by counting the values still to come, so nesting costs neither
//! recursion nor memory, and the bodies of bulk strings pass as they arrive.

/// The longest line of a reply, in bytes: an error, a simple string, a number, the head of a longer value.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// The longest bulk string believed, in bytes.
pub const BULK_BYTES_MAX: u64 = 4 << 30;

/// A node's bytes are no reply, or one beyond a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node broke the protocol: {0}")]
pub struct BrokenReply(pub &'static str);

/// The head of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// A value that is a line: simple string, error, number, boolean, double. `kind` is its first byte.
    Line {
        /// `+ - : , # (`
        kind: u8,
        /// The line behind it.
        text: &'a [u8],
    },
    /// A value with a body: bulk string, bulk error, verbatim string. The body and CRLF follow.
    Bulk {
        /// `$ ! =`
        kind: u8,
        /// Bytes of the body.
        len: u64,
    },
    /// Nothing: `$-1`, `*-1` or `_`.
    Null,
    /// An aggregate: its values follow.
    Aggregate {
        /// `* ~ > %`
        kind: u8,
        /// Values that follow; a map has two for each entry.
        values: u64,
    },
    /// Attributes of the value behind them.
    Attributes {
        /// Values that follow, before the value they belong to.
        values: u64,
    },
}

/// The head of the value at the front of `input` and its length with CRLF, or `None` when it is not whole yet.
pub fn token(input: &[u8]) -> Result<Option<(Token<'_>, usize)>, BrokenReply> {
    let Some(&kind) = input.first() else { return Ok(None) };
    let Some(end) = memchr::memchr(b'\n', &input[..input.len().min(LINE_BYTES_MAX)]) else {
        return if input.len() >= LINE_BYTES_MAX { Err(BrokenReply("a line too long")) } else { Ok(None) };
    };
    let Some(text) = input[1..=end].strip_suffix(b"\r\n") else { return Err(BrokenReply("a line without CR")) };
    let count = |text: &[u8], per: u64| match text {
        b"-1" => Ok(None),
        _ => match number(text).and_then(|n| n.checked_mul(per)) {
            Some(values) if values <= u64::from(u32::MAX) => Ok(Some(values)),
            _ => Err(BrokenReply("a length out of bounds")),
        },
    };
    let token = match kind {
        b'+' | b'-' | b':' | b',' | b'#' | b'(' => Token::Line { kind, text },
        b'_' => Token::Null,
        b'$' | b'!' | b'=' => match text {
            b"-1" => Token::Null,
            _ => match number(text) {
                Some(len) if len <= BULK_BYTES_MAX => Token::Bulk { kind, len },
                _ => return Err(BrokenReply("a length out of bounds")),
            },
        },
        b'*' | b'~' | b'>' => count(text, 1)?.map_or(Token::Null, |values| Token::Aggregate { kind, values }),
        b'%' => count(text, 2)?.map_or(Token::Null, |values| Token::Aggregate { kind, values }),
        b'|' => count(text, 2)?.map_or(Token::Null, |values| Token::Attributes { values }),
        _ => return Err(BrokenReply("an unknown type")),
    };
    Ok(Some((token, end + 1)))
}

fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Walks over values to their end, however they are cut.
#[derive(Clone, Debug)]
pub struct Walk {
    values: u64,
    body: u64,
}

impl Walk {
    /// A walk over `values` values.
    pub const fn over(values: u64) -> Walk {
        Walk { values, body: 0 }
    }

    /// Whether all of them have passed.
    pub const fn is_done(&self) -> bool {
        self.values == 0 && self.body == 0
    }

    /// How many bytes of `input` belong to the values. Fewer than all of them: the walk is done, or a head is cut and
    /// more bytes are needed in front of which these stay.
    pub fn advance(&mut self, input: &[u8]) -> Result<usize, BrokenReply> {
        let mut at = 0;
        loop {
            if self.body > 0 {
                let take = self.body.min((input.len() - at) as u64);
                at += take as usize;
                self.body -= take;
            }
            if self.body > 0 || self.values == 0 {
                return Ok(at);
            }
            let Some((token, len)) = token(&input[at..])? else { return Ok(at) };
            at += len;
            let more = match token {
                Token::Line { .. } | Token::Null => 0,
                Token::Bulk { len, .. } => {
                    self.body = len + 2;
                    0
                }
                Token::Aggregate { values, .. } => values,
                // The value that they belong to is still to come.
                Token::Attributes { values } => values + 1,
            };
            self.values = (self.values - 1).checked_add(more).ok_or(BrokenReply("too many values"))?;
        }
    }
}

/// Reads the values of a reply that lies there whole.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    rest: &'a [u8],
}

/// One value of a reply that lies there whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Text of any kind: simple, bulk, verbatim (without its `txt:`), number as it is written.
    Text(&'a [u8]),
    /// An error's text.
    Error(&'a [u8]),
    /// Nothing.
    Null,
    /// So many values follow.
    Aggregate(u64),
}

impl<'a> Values<'a> {
    /// Over `reply`.
    pub const fn new(reply: &'a [u8]) -> Values<'a> {
        Values { rest: reply }
    }

    /// Bytes not read.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next value; attributes are passed over.
    pub fn take(&mut self) -> Result<Value<'a>, BrokenReply> {
        loop {
            let (token, len) = token(self.rest)?.ok_or(BrokenReply("a reply that ends early"))?;
            self.rest = &self.rest[len..];
            return Ok(match token {
                Token::Line { kind: b'-', text } => Value::Error(text),
                Token::Line { text, .. } => Value::Text(text),
                Token::Null => Value::Null,
                Token::Aggregate { values, .. } => Value::Aggregate(values),
                Token::Attributes { values } => {
                    self.skip(values)?;
                    continue;
                }
                Token::Bulk { kind, len } => {
                    let len = usize::try_from(len).map_err(|_| BrokenReply("a length out of bounds"))?;
                    let (body, rest) = self.rest.split_at_checked(len).ok_or(BrokenReply("a body that ends early"))?;
                    self.rest = rest.strip_prefix(b"\r\n").ok_or(BrokenReply("a body without CRLF"))?;
                    match kind {
                        b'!' => Value::Error(body),
                        b'=' => Value::Text(body.get(4..).unwrap_or_default()),
                        _ => Value::Text(body),
                    }
                }
            });
        }
    }

    /// The next value, which must be an aggregate: how many values follow.
    pub fn aggregate(&mut self) -> Result<u64, BrokenReply> {
        match self.take()? {
            Value::Aggregate(values) => Ok(values),
            _ => Err(BrokenReply("another type than expected")),
        }
    }

    /// The next value, which must be a number.
    pub fn number(&mut self) -> Result<i64, BrokenReply> {
        match self.take()? {
            Value::Text(text) => std::str::from_utf8(text)
                .ok()
                .and_then(|t| t.parse().ok())
                .ok_or(BrokenReply("another type than expected")),
            _ => Err(BrokenReply("another type than expected")),
        }
    }

    /// Passes over `values` values with all that is in them.
    pub fn skip(&mut self, values: u64) -> Result<(), BrokenReply> {
        let mut walk = Walk::over(values);
        let len = walk.advance(self.rest)?;
        if !walk.is_done() {
            return Err(BrokenReply("a reply that ends early"));
        }
        self.rest = &self.rest[len..];
        Ok(())
    }
}
