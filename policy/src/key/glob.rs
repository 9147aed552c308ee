//! A Redis glob, compiled: the same answer as the server's `stringmatchlen` with case.

/// Longest glob, in bytes. Under 1000 runs of `*`, where the server gives up.
pub(crate) const GLOB_BYTES_MAX: usize = 1024;

/// One glob. Bytes, not characters: `?` is one byte.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct KeyGlob {
    text: Box<str>,
    form: Form,
}

/// A glob that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyGlobError {
    #[error("a key glob has at most {GLOB_BYTES_MAX} bytes")]
    TooLong,
    #[error("a range in a class stands between ASCII characters: servers disagree on others")]
    RangeBeyondAscii,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Form {
    /// `*`: every key, the empty one too, as the server's own callers treat it.
    Every,
    /// Nothing special in it.
    Literal(Box<[u8]>),
    /// A literal with `*` after it. Not empty.
    Prefix(Box<[u8]>),
    Tokens(Box<[Token]>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Token {
    Byte(u8),
    /// `?`.
    One,
    /// `[…]`, one bit for each byte that it takes.
    Class(Box<[u64; 4]>),
    /// `*`; never two together.
    Run,
}

impl KeyGlob {
    /// Reads a glob; every text is one to the server, with an unclosed class ending where the text does.
    pub(crate) fn parse(text: &str) -> Result<Self, KeyGlobError> {
        if text.len() > GLOB_BYTES_MAX {
            return Err(KeyGlobError::TooLong);
        }
        let form = if text == "*" { Form::Every } else { Form::of(tokens(text.as_bytes())?) };
        Ok(Self { text: text.into(), form })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the glob takes the whole key. Work: at most bytes of the key times bytes of the glob.
    pub(crate) fn matches(&self, key: &[u8]) -> bool {
        match &self.form {
            Form::Every => true,
            Form::Literal(bytes) => **bytes == *key,
            Form::Prefix(bytes) => key.starts_with(bytes),
            Form::Tokens(tokens) => matches(tokens, key),
        }
    }
}

impl Form {
    fn of(tokens: Vec<Token>) -> Self {
        let (literal, ended) = match tokens.as_slice() {
            [head @ .., Token::Run] => (head, false),
            all => (all, true),
        };
        let bytes: Option<Box<[u8]>> =
            literal.iter().map(|token| if let Token::Byte(byte) = token { Some(*byte) } else { None }).collect();
        match bytes {
            Some(bytes) if ended => Self::Literal(bytes),
            Some(bytes) if !bytes.is_empty() => Self::Prefix(bytes),
            _ => Self::Tokens(tokens.into()),
        }
    }
}

impl Token {
    fn takes(&self, byte: u8) -> bool {
        match self {
            Self::Byte(own) => *own == byte,
            Self::One => true,
            Self::Class(bits) => bits[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1,
            Self::Run => false,
        }
    }
}

/// Goes back to the last `*` only: a longer run for an earlier one would leave less for what follows.
fn matches(tokens: &[Token], key: &[u8]) -> bool {
    // The server's loop does not begin on an empty key: `**` does not take it.
    if key.is_empty() {
        return tokens.is_empty();
    }
    let (mut at, mut taken) = (0, 0);
    let mut run = None;
    while let Some(byte) = key.get(taken) {
        match tokens.get(at) {
            Some(Token::Run) => {
                at += 1;
                if at == tokens.len() {
                    return true;
                }
                run = Some((at, taken));
            }
            Some(token) if token.takes(*byte) => {
                at += 1;
                taken += 1;
            }
            _ => {
                let Some((after, from)) = run else { return false };
                run = Some((after, from + 1));
                (at, taken) = (after, from + 1);
            }
        }
    }
    matches!(&tokens[at..], [] | [Token::Run])
}

fn tokens(mut glob: &[u8]) -> Result<Vec<Token>, KeyGlobError> {
    let mut tokens = Vec::new();
    while let Some((first, rest)) = glob.split_first() {
        glob = rest;
        match (first, rest.split_first()) {
            (b'*', _) => {
                if tokens.last() != Some(&Token::Run) {
                    tokens.push(Token::Run);
                }
            }
            (b'?', _) => tokens.push(Token::One),
            (b'[', _) => {
                let (class, rest) = class(rest)?;
                tokens.push(Token::Class(Box::new(class)));
                glob = rest;
            }
            (b'\\', Some((escaped, rest))) => {
                tokens.push(Token::Byte(*escaped));
                glob = rest;
            }
            (byte, _) => tokens.push(Token::Byte(*byte)),
        }
    }
    Ok(tokens)
}

/// Reads what follows `[`, and gives what follows `]`. As the server does, `a-]` is a range and not an `a`, a `-` and
/// the end.
fn class(glob: &[u8]) -> Result<([u64; 4], &[u8]), KeyGlobError> {
    let (negated, mut rest) = match glob.strip_prefix(b"^") {
        Some(rest) => (true, rest),
        None => (false, glob),
    };
    let mut bits = [0_u64; 4];
    let mut take = |byte: u8| bits[usize::from(byte >> 6)] |= 1 << (byte & 63);
    loop {
        rest = match rest {
            [b'\\', escaped, rest @ ..] => {
                take(*escaped);
                rest
            }
            [] => break,
            [b']', after @ ..] => {
                rest = after;
                break;
            }
            [start, b'-', end, rest @ ..] => {
                if !start.is_ascii() || !end.is_ascii() {
                    return Err(KeyGlobError::RangeBeyondAscii);
                }
                (*start.min(end)..=*start.max(end)).for_each(&mut take);
                rest
            }
            [byte, rest @ ..] => {
                take(*byte);
                rest
            }
        };
    }
    if negated {
        bits = bits.map(|word| !word);
    }
    Ok((bits, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The slow, obvious matcher, one recursion for every choice; classes are kept as (escaped or not) text.
    fn naive(glob: &[u8], key: &[u8]) -> bool {
        match (glob, key) {
            ([], []) => true,
            ([], _) => false,
            ([b'*', rest @ ..], _) => (0..=key.len()).any(|taken| naive(rest, &key[taken..])),
            (_, []) => false,
            ([b'?', rest @ ..], [_, tail @ ..]) => naive(rest, tail),
            ([b'[', rest @ ..], [byte, tail @ ..]) => {
                let (taken, rest) = naive_class(rest, *byte);
                taken && naive(rest, tail)
            }
            ([b'\\', escaped, rest @ ..], [byte, tail @ ..]) | ([escaped, rest @ ..], [byte, tail @ ..]) => {
                escaped == byte && naive(rest, tail)
            }
        }
    }

    fn naive_class(glob: &[u8], byte: u8) -> (bool, &[u8]) {
        let negated = glob.first() == Some(&b'^');
        let mut at = usize::from(negated);
        let mut taken = false;
        while at < glob.len() && glob[at] != b']' {
            let left = glob.len() - at;
            if glob[at] == b'\\' && left >= 2 {
                taken |= glob[at + 1] == byte;
                at += 2;
            } else if left >= 3 && glob[at + 1] == b'-' {
                let (one, other) = (glob[at], glob[at + 2]);
                taken |= (one.min(other)..=one.max(other)).contains(&byte);
                at += 3;
            } else {
                taken |= glob[at] == byte;
                at += 1;
            }
        }
        (taken != negated, glob.get(at + 1..).unwrap_or_default())
    }

    #[test]
    fn answers_as_the_server_does() {
        let golden = include_str!("../../testdata/redis-globs.jsonl");
        let cases: Vec<(String, String, bool)> =
            golden.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(cases.len() == 700 && cases.iter().filter(|(.., matched)| *matched).count() > 300);
        for (glob, key, matched) in cases {
            assert_eq!(KeyGlob::parse(&glob).unwrap().matches(key.as_bytes()), matched, "{glob:?} on {key:?}");
        }
    }

    #[test]
    fn is_safe_for_any_bytes_in_a_key() {
        let matches = |glob: &str, key: &[u8]| KeyGlob::parse(glob).unwrap().matches(key);
        assert!(matches("a?c", b"a\0c") && matches("a*", b"a\r\n\xff") && matches("[^a]", b"\xff"));
        assert!(!matches("[a-z]", b"\xe1") && !matches("a", b"a\0"));
    }

    #[test]
    fn refuses_globs_on_which_servers_disagree_and_long_ones() {
        for bad in ["[a-é]", "[é-z]", "[^a-é"] {
            assert_eq!(KeyGlob::parse(bad), Err(KeyGlobError::RangeBeyondAscii), "{bad}");
        }
        assert!(KeyGlob::parse("[é]").is_ok() && KeyGlob::parse("é-z").is_ok());
        assert!(KeyGlob::parse(&"a".repeat(1024)).is_ok());
        assert_eq!(KeyGlob::parse(&"a".repeat(1025)), Err(KeyGlobError::TooLong));
    }

    #[test]
    fn answers_an_abusive_glob_in_bounded_work() {
        let glob = KeyGlob::parse(&"a*".repeat(512)).unwrap();
        let mut key = vec![b'a'; 20_000];
        assert!(glob.matches(&key));
        let glob = KeyGlob::parse(&("*a".repeat(500) + "b")).unwrap();
        assert!(!glob.matches(&key));
        key.push(b'b');
        assert!(glob.matches(&key));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 90_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn answers_as_the_naive_matcher(glob in r"[ab\-\]\^\[\\*?]{0,8}", key in r"[ab\-\]\^\\]{0,6}") {
            let expected = match glob.bytes().all(|byte| byte == b'*') && key.is_empty() {
                // The server's own exception: the empty key is taken by `*` and by nothing else made of stars.
                true => glob.len() <= 1,
                false => naive(glob.as_bytes(), key.as_bytes()),
            };
            prop_assert_eq!(KeyGlob::parse(&glob).unwrap().matches(key.as_bytes()), expected);
        }
    }
}
