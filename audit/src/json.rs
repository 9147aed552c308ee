//! JSON written by hand: the line format is fixed, and the writer has about a microsecond per line.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Appends `text` with JSON escapes, without quotes. Control characters and DEL become `\u00xx`.
pub(crate) fn escape(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    loop {
        let (plain, special) = rest.split_at(plain(rest));
        out.extend_from_slice(plain);
        let Some((b, after)) = special.split_first() else { return };
        rest = after;
        match b {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                hex(out, &[*b]);
            }
        }
    }
}

/// How many bytes at the front need no escape. Sixteen at a time: the compiler makes one comparison of them.
fn plain(text: &[u8]) -> usize {
    let special = |b: &u8| (*b < 0x20) | (*b == b'"') | (*b == b'\\') | (*b == 0x7f);
    let blocks = text.chunks_exact(16).take_while(|block| !block.iter().fold(false, |any, b| any | special(b)));
    let from = blocks.count() * 16;
    text[from..].iter().position(special).map_or(text.len(), |i| from + i)
}

/// Appends a JSON string.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escape(out, text);
    out.push(b'"');
}

/// Appends standard base64.
pub(crate) fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let at = out.len();
    let room = base64::encoded_len(bytes.len(), true).unwrap_or(0);
    out.resize(at + room, 0);
    if let Ok(n) = STANDARD.encode_slice(bytes, &mut out[at..]) {
        out.truncate(at + n);
    }
}

/// Appends a JSON string of bytes: as text when UTF-8, else as base64. Returns whether it was text.
pub(crate) fn bytes(out: &mut Vec<u8>, bytes: &[u8], marker: &str) -> bool {
    out.push(b'"');
    let text = std::str::from_utf8(bytes);
    match text {
        Ok(text) => escape(out, text),
        Err(_) => {
            out.extend_from_slice(marker.as_bytes());
            base64(out, bytes);
        }
    }
    out.push(b'"');
    text.is_ok()
}

/// Appends a decimal number.
pub(crate) fn number(out: &mut Vec<u8>, mut v: u64) {
    if v < 10 {
        return out.push(b'0' + v as u8);
    }
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    while v >= 100 {
        at -= 2;
        two(&mut digits[at..], (v % 100) as u32);
        v /= 100;
    }
    at -= 2;
    two(&mut digits[at..], v as u32);
    out.extend_from_slice(&digits[at + usize::from(v < 10)..]);
}

/// Appends lower-case hex.
pub(crate) fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for b in bytes {
        out.extend_from_slice(&[HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
    }
}

/// RFC 3339 in UTC with milliseconds, remembering the second it formatted last.
#[derive(Clone)]
pub(crate) struct Clock {
    second: u64,
    text: [u8; 24],
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { second: u64::MAX, text: *b"0000-00-00T00:00:00.000Z" }
    }

    /// The 24 bytes for microseconds since 1970. Years above 9999 show as 9999.
    pub(crate) fn format(&mut self, us: u64) -> &[u8; 24] {
        let second = (us / 1_000_000).min(253_402_300_799);
        if second != self.second {
            self.second = second;
            self.date(second);
        }
        let ms = (us / 1000 % 1000) as u32;
        two(&mut self.text[21..23], ms % 100);
        self.text[20] = b'0' + (ms / 100) as u8;
        &self.text
    }

    fn date(&mut self, second: u64) {
        // Days to civil date, proleptic Gregorian, counted from 0000-03-01 in eras of 400 years.
        let days = second / 86_400 + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year_of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = (era * 400 + year_of_era + u64::from(month <= 2)) as u32;
        let day = (day_of_year - (153 * shifted + 2) / 5 + 1) as u32;
        let clock = (second % 86_400) as u32;
        two(&mut self.text[0..2], year / 100);
        two(&mut self.text[2..4], year % 100);
        two(&mut self.text[5..7], month as u32);
        two(&mut self.text[8..10], day);
        two(&mut self.text[11..13], clock / 3600);
        two(&mut self.text[14..16], clock / 60 % 60);
        two(&mut self.text[17..19], clock % 60);
    }
}

fn two(at: &mut [u8], v: u32) {
    at[0] = b'0' + (v / 10 % 10) as u8;
    at[1] = b'0' + (v % 10) as u8;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn formats_instants_as_rfc_3339_in_utc() {
        let mut clock = Clock::new();
        for (us, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000Z"),
            (1_763_636_306_014_000, "2025-11-20T10:58:26.014Z"),
            (1_763_636_306_905_000, "2025-11-20T10:58:26.905Z"),
            (4_107_542_399_000_000, "2100-02-28T23:59:59.000Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000Z"),
            (u64::MAX, "9999-12-31T23:59:59.615Z"),
        ] {
            assert_eq!(std::str::from_utf8(clock.format(us)).unwrap()[..19], text[..19], "{us}");
            if us != u64::MAX {
                assert_eq!(std::str::from_utf8(clock.format(us)).unwrap(), text);
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_reads_back_from_its_json_form(text in "\\PC*|.*|[\\x00-\\x7f]*") {
            let mut out = Vec::new();
            string(&mut out, &text);
            prop_assert!(out.iter().all(|b| *b >= 0x20 && *b != 0x7f));
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn any_bytes_read_back(data in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut out = Vec::new();
            let text = bytes(&mut out, &data, "");
            let back: String = serde_json::from_slice(&out).unwrap();
            let back = if text { back.into_bytes() } else { STANDARD.decode(back).unwrap() };
            prop_assert_eq!(back, data);
        }

        #[test]
        fn any_number_reads_back(n in any::<u64>()) {
            let mut out = Vec::new();
            number(&mut out, n);
            prop_assert_eq!(String::from_utf8(out).unwrap().parse::<u64>().unwrap(), n);
        }
    }
}
