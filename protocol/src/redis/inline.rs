//! Inline commands: a line of text, split exactly as the server splits it (`sds.c`, `sdssplitargs`).

/// The line is not closed where a quote was opened, or a closing quote has something behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unbalanced;

/// Splits `line`, which holds no line feed, and appends each word to `out` as a bulk string. Gives their number.
pub(super) fn split(line: &[u8], out: &mut Vec<u8>) -> Result<u32, Unbalanced> {
    let mut words = 0;
    let mut word = Vec::new();
    let mut rest = line.iter().copied().peekable();
    loop {
        while rest.next_if(|byte| is_space(*byte)).is_some() {}
        if rest.peek().is_none() {
            return Ok(words);
        }
        word.clear();
        let mut quote = 0;
        loop {
            let byte = rest.next();
            match (quote, byte) {
                (0, None | Some(b' ' | b'\n' | b'\r' | b'\t')) => break,
                (0, Some(opening @ (b'"' | b'\''))) => quote = opening,
                (0, Some(byte)) => word.push(byte),
                (_, None) => return Err(Unbalanced),
                (b'"', Some(b'\\')) => {
                    let mut ahead = rest.clone();
                    let digits = (ahead.next(), ahead.next().and_then(hex), ahead.next().and_then(hex));
                    if let (Some(b'x'), Some(high), Some(low)) = digits {
                        word.push(high << 4 | low);
                        rest = ahead;
                        continue;
                    }
                    // A backslash at the very end stands for itself; the quote is then not closed.
                    word.push(match rest.next().ok_or(Unbalanced)? {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'b' => 8,
                        b'a' => 7,
                        other => other,
                    });
                }
                (b'\'', Some(b'\\')) if rest.peek() == Some(&b'\'') => {
                    rest.next();
                    word.push(b'\'');
                }
                (open, Some(byte)) if byte == open => {
                    if rest.peek().is_some_and(|byte| !is_space(*byte)) {
                        return Err(Unbalanced);
                    }
                    break;
                }
                (_, Some(byte)) => word.push(byte),
            }
        }
        out.push(b'$');
        super::resp::number(word.len() as u64, out);
        out.extend_from_slice(&word);
        out.extend_from_slice(b"\r\n");
        words += 1;
    }
}

/// `isspace` of the C locale.
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}
