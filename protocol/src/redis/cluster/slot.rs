//! Which of the 16,384 slots a key belongs to: CRC16 of the key, or of its hash tag.

/// Slots of every cluster.
pub const SLOTS: u16 = 16_384;

/// A slot's number. INVARIANT: less than [`SLOTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// The slot of `key`: of the bytes between its first `{` and the next `}` where there are any, else of all of it.
    pub fn of(key: &[u8]) -> Slot {
        Slot(crc16(tag(key)) % SLOTS)
    }

    /// Slot `number`, where there is one.
    pub const fn new(number: u16) -> Option<Slot> {
        if number < SLOTS { Some(Slot(number)) } else { None }
    }

    /// The slot written in decimal, as the commands have it.
    pub fn parse(text: &[u8]) -> Option<Slot> {
        std::str::from_utf8(text).ok()?.parse().ok().and_then(Slot::new)
    }

    /// Its number.
    pub const fn number(self) -> u16 {
        self.0
    }
}

fn tag(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else { return key };
    let inner = &key[open + 1..];
    match memchr::memchr(b'}', inner) {
        Some(close) if close > 0 => &inner[..close],
        _ => key,
    }
}

/// CRC16-XMODEM: polynomial 0x1021, initially 0, nothing reflected.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

const TABLE: [u16; 256] = table();

const fn table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte: u16 = 0;
    while byte < 256 {
        let mut crc = byte << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte as usize] = crc;
        byte += 1;
    }
    table
}
