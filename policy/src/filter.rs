//! What cannot match is told apart without looking at text: a set of texts as a few bits of one word. It may take a
//! text that it does not hold, never miss one that it does, so that whatever passes is compared in full.

/// A set of texts, two bits for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Filter(u128);

const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
const SPREAD_AGAIN: u64 = 0xd6e8_feb8_6659_fd93;

impl Filter {
    /// Passes only another such one, and holds every text.
    pub(crate) const FULL: Self = Self(u128::MAX);

    /// The set of one text.
    #[inline]
    pub(crate) fn of(text: &str) -> Self {
        Self::bits(mixed(text))
    }

    /// The set of one pair of texts.
    pub(crate) fn of_pair(key: &str, value: &str) -> Self {
        Self::bits((mixed(key).rotate_left(25) ^ mixed(value)).wrapping_mul(SPREAD))
    }

    #[inline]
    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` may be in this set.
    #[inline]
    pub(crate) fn may_hold(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// The upper bits of a product are those that depend on all of its factors.
    #[inline]
    fn bits(mixed: u64) -> Self {
        Self(1_u128 << (mixed >> 57) | 1_u128 << (mixed >> 50 & 127))
    }
}

/// A number from the length and the ends of a text: names are short, and longer ones may share theirs.
#[inline]
fn mixed(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let (first, last) = match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
            (Some(first), Some(last)) => (u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into()),
            _ => bytes.iter().fold((0, 0), |(all, _), byte| (all << 8 | u64::from(*byte), 0)),
        },
    };
    let length = (bytes.len() as u64).rotate_right(8);
    ((first ^ length).wrapping_mul(SPREAD) ^ last.rotate_left(32)).wrapping_mul(SPREAD_AGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_misses_what_it_holds_and_tells_most_others_apart() {
        let text = "abcdefghijklmnopqrstuvwxyz-0123456789";
        let held: Vec<&str> = (0..=12).map(|at| &text[at..(at * 3).min(text.len())]).collect();
        let set = held.iter().map(|text| Filter::of(text)).fold(Filter::default(), Filter::with);
        assert!(held.iter().all(|text| set.may_hold(Filter::of(text))));
        let few = ["env", "region", "team"].map(Filter::of).into_iter().fold(Filter::default(), Filter::with);
        let others: Vec<String> = (0..1000).map(|at| format!("label-{at}")).collect();
        let taken = others.iter().filter(|other| few.may_hold(Filter::of(other))).count();
        assert!(taken < 30, "{taken} of 1000");
        let taken = (0..100).filter(|at| few.may_hold(Filter::of_pair("team", &format!("team-{at:02}")))).count();
        assert!(taken < 10, "{taken} of 100");
        assert_ne!(Filter::of_pair("a", "b"), Filter::of_pair("b", "a"));
        assert!(Filter::FULL.may_hold(set) && !set.may_hold(Filter::FULL) && set.may_hold(Filter::default()));
    }
}
