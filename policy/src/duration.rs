//! Durations as the documents write them: `90s`, `1h30m`, `7d`.

use std::time::Duration;

const NANOS: [(&str, u128); 9] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("w", 604_800_000_000_000),
];

/// Reads `text` as a sum of numbers with units (ns us ms s m h d w); `0` needs no unit.
///
/// Returns zero for a negative duration, because every option that takes one treats it so. `None` when the text
/// is no duration or is longer than 2^63 ns.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale = NANOS.iter().find(|(name, _)| *name == unit)?.1;
        total = total.checked_add(scaled(number, scale)?)?;
        rest = tail;
    }
    let nanos = u64::try_from(total).ok().filter(|nanos| *nanos <= i64::MAX.unsigned_abs())?;
    Some(if negative { Duration::ZERO } else { Duration::from_nanos(nanos) })
}

fn scaled(number: &str, scale: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if number.len() > 24 || (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let part = match u32::try_from(fraction.len()).ok() {
        Some(0) => 0,
        Some(places @ 1..=12) => digits(fraction)?.checked_mul(scale)? / 10_u128.pow(places),
        _ => return None,
    };
    digits(whole)?.checked_mul(scale)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_written_forms() {
        let seconds = |text| parse_duration(text).map(|d| d.as_secs_f64());
        assert_eq!(seconds("90s"), Some(90.0));
        assert_eq!(seconds("1h30m"), Some(5400.0));
        assert_eq!(seconds("8h0m0s"), Some(28800.0));
        assert_eq!(seconds("7d"), Some(604_800.0));
        assert_eq!(seconds("1.5h"), Some(5400.0));
        assert_eq!(seconds("250ms"), Some(0.25));
        assert_eq!(seconds("0"), Some(0.0));
        assert_eq!(seconds("-5m"), Some(0.0));
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for bad in ["", "5", "h", "1x", "1h30", "1..5s", "--1s", "99999999999999999999h", ".s", " 1s", "1µ"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
