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
