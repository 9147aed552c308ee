//! Equality of short texts without a call: labels and names are a few bytes long, where a call of the C library's
//! comparison costs more than the comparison (measured: two thirds of a decision).

/// Whether the two are equal byte for byte.
#[inline]
pub(crate) fn same(one: &str, other: &str) -> bool {
    same_bytes(one.as_bytes(), other.as_bytes())
}

#[inline]
pub(crate) fn same_bytes(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let (words, rest) = one.as_chunks::<8>();
    let (other_words, other_rest) = other.as_chunks::<8>();
    words.iter().zip(other_words).all(|(a, b)| u64::from_ne_bytes(*a) == u64::from_ne_bytes(*b))
        && rest.iter().zip(other_rest).all(|(a, b)| a == b)
}

/// What follows `prefix` in `text`, where it begins so.
#[inline]
pub(crate) fn after<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let head = text.as_bytes().get(..prefix.len())?;
    if same_bytes(head, prefix.as_bytes()) { text.get(prefix.len()..) } else { None }
}

/// What precedes `suffix` in `text`, where it ends so.
#[inline]
pub(crate) fn before<'t>(text: &'t str, suffix: &str) -> Option<&'t str> {
    let at = text.len().checked_sub(suffix.len())?;
    let tail = text.as_bytes().get(at..)?;
    if same_bytes(tail, suffix.as_bytes()) { text.get(..at) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_standard_library_at_every_length_and_difference() {
        let text = "abcdefghijklmnopqrstuvwxyz";
        for length in 0..=text.len() {
            let one = &text[..length];
            assert!(same(one, one));
            assert_eq!(same(one, text), length == text.len());
            assert_eq!(after(text, one), text.strip_prefix(one));
            assert_eq!(before(text, &text[length..]), Some(one));
            assert_eq!(after(one, text), one.strip_prefix(text));
            assert_eq!(before(one, text), one.strip_suffix(text));
            for at in 0..length {
                let mut other = one.as_bytes().to_vec();
                other[at] ^= 1;
                assert!(!same_bytes(one.as_bytes(), &other), "{length} {at}");
            }
        }
        assert_eq!(after("é", "\u{c3}"), None);
    }
}
