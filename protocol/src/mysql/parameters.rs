//! Values bound to a prepared statement, in the binary protocol's own encoding.

use crate::wire::Reader;

use super::head::{lenenc, lenenc_bytes, u16_le};

/// How the types of parameters stand in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Two bytes each.
    Bare,
    /// Two bytes and a name each (CLIENT_QUERY_ATTRIBUTES).
    Named,
}

/// The type of the next parameter. Its flags are in the upper byte.
pub(super) fn next_type(reader: &mut Reader<'_>, layout: Layout) -> Option<u16> {
    let kind = u16_le(reader)?;
    if layout == Layout::Named {
        lenenc_bytes(reader)?;
    }
    Some(kind)
}

/// Passes over the types of `count` parameters.
pub(super) fn skip_types(reader: &mut Reader<'_>, count: usize, layout: Layout) -> Option<()> {
    match layout {
        Layout::Bare => reader.take(count.checked_mul(2)?).map(|_| ()),
        Layout::Named => (0..count).try_for_each(|_| next_type(reader, layout).map(|_| ())),
    }
}

/// Whether the bit of parameter `index` is set.
pub(super) fn is_null(nulls: &[u8], index: usize) -> bool {
    nulls.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
}

/// A value of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// NULL.
    Null,
    /// A signed number.
    Int(i64),
    /// An unsigned number.
    Unsigned(u64),
    /// A number of either floating type.
    Float(f64),
    /// Text of a character type, number of DECIMAL, JSON.
    Text(&'a [u8]),
    /// Bytes of a binary type.
    Bytes(&'a [u8]),
    /// A DATE, DATETIME or TIMESTAMP.
    Moment {
        /// Year.
        year: u16,
        /// Month, from 1.
        month: u8,
        /// Day, from 1.
        day: u8,
        /// Hour, minute and second, where there are any.
        clock: Option<(u8, u8, u8)>,
        /// Microseconds.
        micros: u32,
    },
    /// A TIME.
    Span {
        /// Less than zero.
        negative: bool,
        /// Hours, days included.
        hours: u32,
        /// Minutes.
        minutes: u8,
        /// Seconds.
        seconds: u8,
        /// Microseconds.
        micros: u32,
    },
    /// Sent before, by COM_STMT_SEND_LONG_DATA.
    Long,
    /// MariaDB bulk: the column's default.
    Default,
    /// MariaDB bulk: the column is left as it is.
    Ignore,
}

impl std::fmt::Display for Value<'_> {
    /// In the spelling of SQL, without quotes. Bytes that are not UTF-8 are replaced.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Value::Null => f.write_str("NULL"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Unsigned(value) => write!(f, "{value}"),
            Value::Float(value) => write!(f, "{value}"),
            Value::Text(bytes) | Value::Bytes(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
            Value::Moment { year, month, day, clock, micros } => {
                write!(f, "{year:04}-{month:02}-{day:02}")?;
                if let Some((hour, minute, second)) = clock {
                    write!(f, " {hour:02}:{minute:02}:{second:02}")?;
                }
                if micros > 0 { write!(f, ".{micros:06}") } else { Ok(()) }
            }
            Value::Span { negative, hours, minutes, seconds, micros } => {
                write!(f, "{}{hours:02}:{minutes:02}:{seconds:02}", if negative { "-" } else { "" })?;
                if micros > 0 { write!(f, ".{micros:06}") } else { Ok(()) }
            }
            Value::Long => f.write_str("(long data)"),
            Value::Default => f.write_str("DEFAULT"),
            Value::Ignore => f.write_str("IGNORE"),
        }
    }
}

/// Reads a value of the type `kind`. `None` when it does not end within what is visible, or its type is
/// not known.
pub(super) fn take_value<'a>(reader: &mut Reader<'a>, kind: u16) -> Option<Value<'a>> {
    let unsigned = kind & 0x8000 != 0;
    let number = |bytes: &[u8]| -> Value<'static> {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let value = u64::from_le_bytes(wide);
        if unsigned {
            return Value::Unsigned(value);
        }
        let shift = 64 - 8 * u32::try_from(bytes.len()).unwrap_or(8);
        Value::Int((value << shift).cast_signed() >> shift)
    };
    Some(match kind & 0xff {
        1 => number(reader.take(1)?),
        2 | 13 => number(reader.take(2)?),
        3 | 9 => number(reader.take(4)?),
        8 => number(reader.take(8)?),
        4 => Value::Float(f32::from_le_bytes(*reader.take(4)?.first_chunk()?).into()),
        5 => Value::Float(f64::from_le_bytes(*reader.take(8)?.first_chunk()?)),
        6 => Value::Null,
        7 | 10 | 12 | 14 | 17 | 18 => moment(reader)?,
        11 | 19 => span(reader)?,
        0 | 15 | 245..=248 | 253 | 254 => Value::Text(lenenc_bytes(reader)?),
        16 | 242 | 249..=252 | 255 => Value::Bytes(lenenc_bytes(reader)?),
        _ => return None,
    })
}

/// Spec: "Binary Protocol Value", DATE, DATETIME, TIMESTAMP.
fn moment<'a>(reader: &mut Reader<'_>) -> Option<Value<'a>> {
    let len = reader.u8()?;
    let mut value = Reader::new(reader.take(usize::from(len))?);
    if !matches!(len, 0 | 4 | 7 | 11) {
        return None;
    }
    let (mut year, mut month, mut day, mut clock, mut micros) = (0, 0, 0, None, 0);
    if len >= 4 {
        (year, month, day) = (u16_le(&mut value)?, value.u8()?, value.u8()?);
    }
    if len >= 7 {
        clock = Some((value.u8()?, value.u8()?, value.u8()?));
    }
    if len == 11 {
        micros = super::head::u32_le(&mut value)?;
    }
    Some(Value::Moment { year, month, day, clock, micros })
}

/// Spec: "Binary Protocol Value", TIME.
fn span<'a>(reader: &mut Reader<'_>) -> Option<Value<'a>> {
    let len = reader.u8()?;
    let mut value = Reader::new(reader.take(usize::from(len))?);
    let (mut negative, mut hours, mut minutes, mut seconds, mut micros) = (false, 0, 0, 0, 0);
    match len {
        0 => {}
        8 | 12 => {
            negative = value.u8()? == 1;
            let days = super::head::u32_le(&mut value)?;
            hours = days.saturating_mul(24).saturating_add(u32::from(value.u8()?));
            (minutes, seconds) = (value.u8()?, value.u8()?);
            if len == 12 {
                micros = super::head::u32_le(&mut value)?;
            }
        }
        _ => return None,
    }
    Some(Value::Span { negative, hours, minutes, seconds, micros })
}

/// The parameters of an execute, as much of them as is at hand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bound<'a> {
    /// Parameters of the statement.
    pub count: u16,
    /// Their types, two bytes each, little-endian. Shorter where they are not known.
    pub types: &'a [u8],
    /// One bit each. Empty for a bulk.
    pub nulls: &'a [u8],
    /// The values.
    pub values: &'a [u8],
    /// Indexes of parameters that were sent before, in ascending order.
    pub long: &'a [u16],
    /// Rows of parameters, each value behind its indicator (COM_STMT_BULK_EXECUTE).
    pub bulk: bool,
    /// `values` ends before the last one.
    pub cut: bool,
}

impl<'a> Bound<'a> {
    /// The values in order, row by row in a bulk. Ends early where one cannot be read or is out of sight.
    pub fn values(&self) -> Values<'a> {
        Values { bound: *self, reader: Reader::new(self.values), index: 0 }
    }
}

/// Walks [`Bound::values`]. Allocates nothing.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    bound: Bound<'a>,
    reader: Reader<'a>,
    index: usize,
}

impl<'a> Values<'a> {
    fn read(&mut self) -> Option<Value<'a>> {
        let index = self.index;
        if self.bound.bulk {
            match self.reader.u8()? {
                0 => {}
                1 => return Some(Value::Null),
                2 => return Some(Value::Default),
                3 => return Some(Value::Ignore),
                _ => return None,
            }
        } else if let Ok(index) = u16::try_from(index)
            && self.bound.long.binary_search(&index).is_ok()
        {
            return Some(Value::Long);
        } else if is_null(self.bound.nulls, index) {
            return Some(Value::Null);
        }
        let kind = self.bound.types.get(index * 2..)?.first_chunk::<2>()?;
        take_value(&mut self.reader, u16::from_le_bytes(*kind))
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        let count = usize::from(self.bound.count);
        if self.bound.bulk && self.index == count && !self.reader.is_empty() {
            self.index = 0;
        }
        if self.index >= count {
            return None;
        }
        let value = self.read();
        // A value that cannot be read hides every one behind it.
        self.index = if value.is_some() { self.index + 1 } else { usize::MAX };
        value
    }
}

/// The parts of an execute's body: where its nulls, types and values are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Parts<'a> {
    pub(super) count: u16,
    pub(super) nulls: &'a [u8],
    /// New types, in their layout. `None` where those of the last execute hold.
    pub(super) types: Option<(Reader<'a>, Layout)>,
    pub(super) values: &'a [u8],
}

/// PARAMETER_COUNT_AVAILABLE, a flag of COM_STMT_EXECUTE.
const COUNTED: u16 = 8;
/// A flag of COM_STMT_BULK_EXECUTE: types are sent.
const BULK_TYPES: u16 = 128;

/// Spec: "COM_STMT_EXECUTE", behind its iteration count. `count` is how many parameters the statement has.
/// `None` when the parts do not end within what is visible.
pub(super) fn execute(body: &[u8], flags: u16, count: u16, attributes: bool) -> Option<Parts<'_>> {
    let mut reader = Reader::new(body);
    let layout = if attributes { Layout::Named } else { Layout::Bare };
    let count = if attributes && flags & COUNTED != 0 { u16::try_from(lenenc(&mut reader)?).ok()? } else { count };
    if count == 0 {
        return Some(Parts::default());
    }
    let nulls = reader.take(usize::from(count).div_ceil(8))?;
    let types = if reader.u8()? == 1 {
        let types = reader;
        skip_types(&mut reader, usize::from(count), layout)?;
        Some((types, layout))
    } else {
        None
    };
    Some(Parts { count, nulls, types, values: reader.rest() })
}

/// Spec: "COM_STMT_BULK_EXECUTE", behind its flags.
pub(super) fn bulk(body: &[u8], flags: u16, count: u16) -> Option<Parts<'_>> {
    let mut reader = Reader::new(body);
    let types = if flags & BULK_TYPES != 0 {
        let types = reader;
        skip_types(&mut reader, usize::from(count), Layout::Bare)?;
        Some((types, Layout::Bare))
    } else {
        None
    };
    Some(Parts { count, nulls: &[], types, values: reader.rest() })
}
