//! Passwords in statement text, replaced by `***` before the text is written down.
//!
//! Covered: `PASSWORD` followed by a literal of any form (plain, `E''`, `U&''`, `N''`, `$tag$…$tag$`, double-quoted),
//! `IDENTIFIED … BY|AS` literals, the same inside dollar-quoted bodies and string literals, and `password=` in connection
//! strings. Where it is in doubt where a literal ends (a backslash before a quote, whose meaning hangs on
//! `standard_conforming_strings`; a text cut inside a literal), everything from the secret on is masked: rather too much
//! than a password in a log. Not covered: a password put together at run time from parts that do not look like one.
use std::borrow::Cow;

const STARS: &[u8] = b"***";
/// Dollar-quoted bodies inside one another, beyond which the rest is masked.
const DEPTH_MAX: u32 = 8;

/// The text, borrowed when there is nothing to mask.
pub fn mask(text: &[u8]) -> Cow<'_, [u8]> {
    if keyword(text, 0).is_none() {
        return Cow::Borrowed(text);
    }
    let mut masker = Masker { out: Vec::with_capacity(text.len()), hid: false };
    masker.run(text, 0);
    if masker.hid { Cow::Owned(masker.out) } else { Cow::Borrowed(text) }
}

/// Where the first `password` or `identified` at or after `from` starts, and where it ends. Any case.
fn keyword(text: &[u8], from: usize) -> Option<(usize, usize)> {
    let word = |letter: u8, at: usize, word: &[u8]| {
        memchr::memchr2_iter(letter, letter.to_ascii_uppercase(), text.get(from..)?)
            .filter_map(|i| (from + i).checked_sub(at))
            .find(|start| {
                *start >= from
                    && text.get(*start..start + word.len()).is_some_and(|found| found.eq_ignore_ascii_case(word))
            })
            .map(|start| (start, start + word.len()))
    };
    // `w` and `f` are the rarest letters of the two words.
    let password = word(b'w', 4, b"password");
    let identified = word(b'f', 6, b"identified");
    match (password, identified) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// What the next literal is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// Ordinary.
    Nothing,
    /// A secret, if it comes next.
    Password,
    /// A secret, and so is every literal until the statement ends.
    AllUntilSemicolon,
}

struct Masker {
    out: Vec<u8>,
    hid: bool,
}

/// A literal's place: `open..close` is its content, `end` is behind its closing quote.
struct Literal {
    open: usize,
    close: usize,
    end: usize,
    /// Where it ends is not certain.
    doubt: bool,
}

impl Masker {
    fn keep(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn hide(&mut self) {
        self.hid = true;
        self.out.extend_from_slice(STARS);
    }

    fn run(&mut self, text: &[u8], depth: u32) {
        let mut at = 0;
        let mut expect = Expect::Nothing;
        while at < text.len() {
            let rest = &text[at..];
            if let Some(n) = space_or_comment(rest) {
                // A comment can repeat the password; outside of strings nothing depends on it.
                let comment = &rest[..n];
                if keyword(comment, 0).is_some() {
                    self.inside(comment);
                } else {
                    self.keep(comment);
                }
                at += n;
                continue;
            }
            if let Some(n) = prefix(rest) {
                // E'', U&'', N'', B'', X'': the letter stays, the literal is read with or without backslashes.
                self.keep(&rest[..n]);
                at += n;
                let escapes = rest[0].eq_ignore_ascii_case(&b'e');
                let literal = quoted(text, at, escapes);
                if !self.literal(text, &mut at, literal, &mut expect) {
                    return;
                }
                continue;
            }
            match rest[0] {
                quote @ (b'\'' | b'"') => {
                    let mut literal = quoted(text, at, false);
                    // Double quotes are names in PostgreSQL and strings in MySQL; only the secret's place tells.
                    if quote == b'"' && expect == Expect::Nothing {
                        literal.doubt &= literal.end >= text.len();
                    }
                    if !self.literal(text, &mut at, literal, &mut expect) {
                        return;
                    }
                }
                b'$' if dollar_tag(rest).is_some() => {
                    let tag = dollar_tag(rest).unwrap_or(1);
                    let body = at + tag;
                    let found = memchr::memmem::find(&text[body..], &text[at..body]);
                    let close = found.map_or(text.len(), |i| body + i);
                    let end = found.map_or(text.len(), |i| body + i + tag);
                    self.keep(&text[at..body]);
                    if expect != Expect::Nothing {
                        self.hide();
                    } else if depth >= DEPTH_MAX {
                        self.hide_behind_keyword(&text[body..close]);
                    } else {
                        self.run(&text[body..close], depth + 1);
                    }
                    self.keep(&text[close..end]);
                    at = end;
                }
                b if word_byte(b) => {
                    let n = rest.iter().position(|b| !word_byte(*b)).unwrap_or(rest.len());
                    let word = &rest[..n];
                    expect = match expect {
                        Expect::AllUntilSemicolon => expect,
                        _ if word.eq_ignore_ascii_case(b"identified") => Expect::AllUntilSemicolon,
                        _ if word.eq_ignore_ascii_case(b"password") => Expect::Password,
                        // `PASSWORD FOR user = …` and `PASSWORD BY …` of other dialects.
                        Expect::Password if word.eq_ignore_ascii_case(b"for") => Expect::AllUntilSemicolon,
                        Expect::Password if word.eq_ignore_ascii_case(b"by") => Expect::Password,
                        _ => Expect::Nothing,
                    };
                    self.keep(word);
                    at += n;
                }
                b => {
                    expect = match (expect, b) {
                        (_, b';') => Expect::Nothing,
                        (Expect::Password, b'=' | b'(' | b':') => Expect::Password,
                        (Expect::AllUntilSemicolon, _) => Expect::AllUntilSemicolon,
                        _ => Expect::Nothing,
                    };
                    self.keep(&rest[..1]);
                    at += 1;
                }
            }
        }
    }

    /// Copies or masks the literal at `at` and steps behind it. `false`: the rest of the text has been dealt with.
    fn literal(&mut self, text: &[u8], at: &mut usize, literal: Literal, expect: &mut Expect) -> bool {
        let content = &text[literal.open..literal.close];
        if *expect != Expect::Nothing {
            self.keep(&text[*at..literal.open]);
            self.hide();
            if literal.doubt {
                return false;
            }
            self.keep(&text[literal.close..literal.end]);
            *at = literal.end;
            // `'a'` newline `'b'` is one literal: the expectation stays.
            return true;
        }
        if literal.doubt {
            // What looks like the inside may be statement text and the other way round.
            self.hide_behind_keyword(&text[*at..]);
            return false;
        }
        self.keep(&text[*at..literal.open]);
        if self.inside(content) {
            *expect = Expect::AllUntilSemicolon;
        }
        self.keep(&text[literal.close..literal.end]);
        *at = literal.end;
        true
    }

    /// Keeps the text up to its first keyword and that; the rest is hidden.
    fn hide_behind_keyword(&mut self, text: &[u8]) {
        match keyword(text, 0) {
            Some((_, end)) => {
                self.keep(&text[..end]);
                if end < text.len() {
                    self.hide();
                }
            }
            None => self.keep(text),
        }
    }

    /// A literal's content or a comment: connection strings, and statements inside strings. `true` when it ends where a
    /// secret from another literal would be put in.
    fn inside(&mut self, content: &[u8]) -> bool {
        let mut at = 0;
        while let Some((_, end)) = keyword(content, at) {
            self.keep(&content[at..end]);
            at = end;
            let blank = content[at..].iter().take_while(|b| b.is_ascii_whitespace()).count();
            let next = content.get(at + blank).copied();
            match next {
                None | Some(b'%' | b':' | b'?') if blank > 0 || next != Some(b':') => {
                    self.keep(&content[at..]);
                    return true;
                }
                Some(b'=' | b':') => {
                    let skip = content[at + blank + 1..].iter().take_while(|b| b.is_ascii_whitespace()).count();
                    let value = at + blank + 1 + skip;
                    if value == content.len() {
                        self.keep(&content[at..]);
                        return true;
                    }
                    self.keep(&content[at..value]);
                    self.hide();
                    if matches!(content[value], b'\'' | b'"' | b'\\') {
                        return false;
                    }
                    at = content[value..]
                        .iter()
                        .position(|b| b.is_ascii_whitespace() || matches!(b, b'&' | b';' | b','))
                        .map_or(content.len(), |i| value + i);
                }
                Some(b'\'' | b'"' | b'$' | b'\\') => {
                    self.keep(&content[at..at + blank]);
                    self.hide();
                    return false;
                }
                // `IDENTIFIED BY ''x''`, `PASSWORD E''x''`: a quote later in the same string.
                _ => {
                    if let Some(quote) = memchr::memchr3(b'\'', b'"', b'$', &content[at..]) {
                        self.keep(&content[at..at + quote]);
                        self.hide();
                        return false;
                    }
                    // `IDENTIFIED BY %L` and `IDENTIFIED BY ` with the secret behind it.
                    let trimmed = content[at..].trim_ascii();
                    if trimmed.len() >= 2 && trimmed[..2].eq_ignore_ascii_case(b"by") {
                        self.keep(&content[at..]);
                        return true;
                    }
                }
            }
        }
        self.keep(&content[at..]);
        false
    }
}

fn word_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80
}

/// Length of the white space or comment the text starts with.
fn space_or_comment(text: &[u8]) -> Option<usize> {
    match text {
        [b, ..] if b.is_ascii_whitespace() || *b == 0x0b => Some(1),
        [b'-', b'-', ..] | [b'#', ..] => Some(memchr::memchr2(b'\n', b'\r', text).unwrap_or(text.len())),
        // A MySQL version comment is statement text: only its marks are skipped.
        [b'/', b'*', b'!', ..] => Some(3),
        [b'*', b'/', ..] => Some(2),
        [b'/', b'*', ..] => {
            let (mut depth, mut at) = (1, 2);
            while depth > 0 && at < text.len() {
                match &text[at..] {
                    [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
                    [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
                    _ => at += 1,
                }
            }
            Some(at)
        }
        _ => None,
    }
}

/// Length of a literal's prefix letter, when a quote follows.
fn prefix(text: &[u8]) -> Option<usize> {
    match text {
        [b'e' | b'E' | b'n' | b'N' | b'b' | b'B' | b'x' | b'X', b'\'', ..] => Some(1),
        [b'u' | b'U', b'&', b'\'' | b'"', ..] => Some(2),
        _ => None,
    }
}

/// The literal whose opening quote is at `at`.
fn quoted(text: &[u8], at: usize, escapes: bool) -> Literal {
    let quote = text[at];
    let open = at + 1;
    let mut i = open;
    let mut doubt = false;
    while let Some(found) = memchr::memchr2(quote, b'\\', text.get(i..).unwrap_or_default()) {
        i += found;
        if text[i] == b'\\' {
            if escapes {
                i += 2;
                continue;
            }
            // `\'` ends the literal under standard_conforming_strings and does not without; `\\'` the other way round
            // never matters, because both readings end at the same quote.
            let slashes = text[i..].iter().take_while(|b| **b == b'\\').count();
            i += slashes;
            doubt |= slashes % 2 == 1 && text.get(i) == Some(&quote);
            continue;
        }
        if text.get(i + 1) == Some(&quote) {
            i += 2;
            continue;
        }
        return Literal { open, close: i, end: i + 1, doubt };
    }
    Literal { open: open.min(text.len()), close: text.len(), end: text.len(), doubt: true }
}

/// Length of the `$tag$` the text starts with.
fn dollar_tag(text: &[u8]) -> Option<usize> {
    let n = text[1..].iter().position(|b| !word_byte(*b))? + 1;
    (text[n] == b'$' && !text[1].is_ascii_digit()).then_some(n + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn masked(text: &str) -> String {
        String::from_utf8(mask(text.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn masks_the_secret_and_keeps_the_rest() {
        for (text, want) in [
            ("ALTER ROLE a PASSWORD 'hunter2'", "ALTER ROLE a PASSWORD '***'"),
            (
                "create user a with encrypted password 'hunter2' login",
                "create user a with encrypted password '***' login",
            ),
            (
                "ALTER USER a UNENCRYPTED PassWord E'hun\\'ter2'; select 1",
                "ALTER USER a UNENCRYPTED PassWord E'***'; select 1",
            ),
            ("ALTER ROLE a PASSWORD e'hunter2\\\\' VALID UNTIL 'x'", "ALTER ROLE a PASSWORD e'***' VALID UNTIL 'x'"),
            ("ALTER ROLE a PASSWORD U&'hunter\\0032' UESCAPE '!'", "ALTER ROLE a PASSWORD U&'***' UESCAPE '!'"),
            ("ALTER ROLE a PASSWORD $$hunter2$$ LOGIN", "ALTER ROLE a PASSWORD $$***$$ LOGIN"),
            ("ALTER ROLE a PASSWORD $q$hun$$ter2$q$ LOGIN", "ALTER ROLE a PASSWORD $q$***$q$ LOGIN"),
            (
                "ALTER ROLE a PASSWORD/* c /* nested */ ' */'hunter2'",
                "ALTER ROLE a PASSWORD/* c /* nested */ ' */'***'",
            ),
            ("ALTER ROLE a PASSWORD -- it's here\n 'hunter2'", "ALTER ROLE a PASSWORD -- it's here\n '***'"),
            ("ALTER ROLE a PASSWORD 'hun''ter2' LOGIN", "ALTER ROLE a PASSWORD '***' LOGIN"),
            ("ALTER ROLE a PASSWORD 'hun'\n'ter2' LOGIN", "ALTER ROLE a PASSWORD '***'\n'***' LOGIN"),
            (
                "alter role a password 'x1'; alter role b password 'x2'",
                "alter role a password '***'; alter role b password '***'",
            ),
            ("ALTER ROLE a PASSWORD 'hunter", "ALTER ROLE a PASSWORD '***"),
            ("ALTER ROLE a PASSWORD $t$hunter", "ALTER ROLE a PASSWORD $t$***"),
            ("ALTER ROLE a PASSWORD $t$hunter2$t", "ALTER ROLE a PASSWORD $t$***"),
            (
                "DO $$BEGIN ALTER ROLE a PASSWORD 'hunter2'; END$$; select 1",
                "DO $$BEGIN ALTER ROLE a PASSWORD '***'; END$$; select 1",
            ),
            (
                "CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'u', password 'p')",
                "CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'u', password '***')",
            ),
            ("CREATE USER a IDENTIFIED BY 'hunter2'", "CREATE USER a IDENTIFIED BY '***'"),
            (
                "CREATE USER a IDENTIFIED WITH mysql_native_password AS \"*HASH\"; select 'k'",
                "CREATE USER a IDENTIFIED WITH mysql_native_password AS \"***\"; select 'k'",
            ),
            ("ALTER USER a IDENTIFIED BY 'new' REPLACE 'old'", "ALTER USER a IDENTIFIED BY '***' REPLACE '***'"),
            ("SET PASSWORD FOR 'bob'@'%' = PASSWORD('hunter2')", "SET PASSWORD FOR '***'@'***' = PASSWORD('***')"),
            ("SET PASSWORD = 'hunter2'", "SET PASSWORD = '***'"),
            (
                "select dblink('host=h password=hunter2 user=u', 'q')",
                "select dblink('host=h password=*** user=u', 'q')",
            ),
            ("select dblink('host=h password = ''hun ter2'' user=u')", "select dblink('host=h password = ***')"),
            ("EXECUTE 'ALTER ROLE a PASSWORD ''hunter2'''", "EXECUTE 'ALTER ROLE a PASSWORD ***'"),
            (
                "EXECUTE format('ALTER ROLE %I PASSWORD %L', 'a', 'hunter2'); select 'k'",
                "EXECUTE format('ALTER ROLE %I PASSWORD %L', '***', '***'); select 'k'",
            ),
            (
                "EXECUTE 'ALTER ROLE a PASSWORD ' || quote_literal('hunter2')",
                "EXECUTE 'ALTER ROLE a PASSWORD ' || quote_literal('***')",
            ),
            ("/*!50000 CREATE USER a IDENTIFIED BY 'hunter2' */", "/*!50000 CREATE USER a IDENTIFIED BY '***' */"),
            ("select E'it\\'s'; alter role a password 'hunter2'", "select E'it\\'s'; alter role a password '***'"),
            // Doubt: everything behind the keyword.
            ("select 'a\\'; alter role a password 'hunter2'", "select 'a\\'; alter role a password***"),
            ("alter role a password 'hun\\'ter2' login", "alter role a password '***"),
            ("-- alter role a password 'hunter2'\nselect 1", "-- alter role a password ***\nselect 1"),
        ] {
            let once = mask(text.as_bytes());
            let got = String::from_utf8_lossy(&once);
            assert!(!got.contains("hunter2") && !got.contains("ter2"), "leaks: {got}");
            if !text.starts_with("-- ") {
                assert_eq!(got, want, "{text}");
            }
        }
    }

    #[test]
    fn borrows_a_text_without_a_secret() {
        for text in [
            "select 1",
            "select password from users where name = 'x'",
            "ALTER ROLE a PASSWORD NULL",
            "select * from t where identified and name = $1",
            "insert into t(password) values ($1)",
            "select \"password\" from t",
            "",
            "PASSWORD",
            "passwor",
        ] {
            let got = mask(text.as_bytes());
            if !text.contains("identified") {
                assert!(matches!(got, Cow::Borrowed(_)), "{text}: {}", masked(text));
            }
            assert_eq!(&*got, text.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn a_text_cut_anywhere_never_shows_the_secret_whole_or_in_part(
            cut in 0usize..200,
            form in 0usize..6,
            noise in "[a-z ,()/*-]{0,12}",
        ) {
            let literal = ["'SEKRETSEKRET'", "E'SEKRETSEKRET'", "$$SEKRETSEKRET$$", "$a$SEKRETSEKRET$a$",
                "U&'SEKRETSEKRET'", "/* ' */ 'SEKRETSEKRET'"][form];
            let text = format!("select 'it''s' /*{}*/; alter role r encrypted password {literal}; select 2",
                noise.replace("*/", "").replace("/*", ""));
            let text = &text[..cut.min(text.len())];
            let got = masked(text);
            prop_assert!(!got.contains("SE"), "{got}");
        }

        #[test]
        fn any_bytes_are_taken(data in proptest::collection::vec(prop_oneof![
            Just(b"password".to_vec()), Just(b"identified by ".to_vec()), Just(b"'".to_vec()), Just(b"\\".to_vec()),
            Just(b"$".to_vec()), Just(b"$a$".to_vec()), Just(b"\"".to_vec()), Just(b"/*".to_vec()), Just(b"--".to_vec()),
            Just(b"e'".to_vec()), Just(b"=".to_vec()), Just(b"\xff".to_vec()), Just(b" ".to_vec()),
        ], 0..24)) {
            let text = data.concat();
            let once = mask(&text).into_owned();
            prop_assert!(once.len() <= text.len() + 3 * text.len());
        }
    }
}
