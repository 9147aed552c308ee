//! RESP heads: what every scanner here is made of.

/// A decimal integer exactly as the server reads one: no sign but `-`, no leading zero, no blank.
pub fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.split_first()? {
        (b'-', digits) => (true, digits),
        _ => (false, text),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut value: u64 = 0;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    if negative { 0i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
}

/// Reads `$<length>\r\n` of a well-formed frame: the length of the body and of the head.
#[inline]
pub(super) fn bulk_head(input: &[u8]) -> Option<(usize, usize)> {
    // One and two digits are nearly all of them.
    match *input {
        [b'$', a @ b'0'..=b'9', b'\r', _, ..] => return Some((usize::from(a - b'0'), 4)),
        [b'$', a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', _, ..] => {
            return Some((usize::from(a - b'0') * 10 + usize::from(b - b'0'), 5));
        }
        _ => {}
    }
    let end = memchr::memchr(b'\r', input)?;
    let len = integer(input.get(1..end)?)?;
    Some((usize::try_from(len).ok()?, end + 2))
}

/// Appends `number` and the end of a line.
pub(super) fn number(number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut left = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// Appends a command.
pub fn write_command(words: &[&[u8]], out: &mut Vec<u8>) {
    out.push(b'*');
    number(words.len() as u64, out);
    for word in words {
        out.push(b'$');
        number(word.len() as u64, out);
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends `text` as it may stand in a line: line breaks become blanks.
pub(super) fn write_line(text: &[u8], out: &mut Vec<u8>) {
    out.extend(text.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }));
}
