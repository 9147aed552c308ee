//! One reply out of those of several nodes.

use std::collections::BTreeMap;

use super::answers::verbatim;
use super::reply::{BrokenReply, Value, Values};
use super::split::{write_argument, write_number};

/// How the replies of all nodes become one. Where a node answers with an error, that error is the reply, if nothing
/// else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// All do the same thing and say the same: the first reply.
    Same,
    /// Numbers, added up.
    Sum,
    /// Arrays of numbers: the least for each place.
    Least,
    /// Arrays, one behind the other.
    Concat,
    /// Arrays of names and numbers: added up for each name.
    SumByName,
    /// Maps of names and values: the entries that are not the same on all stand there once for each value.
    Entries,
    /// Texts for people, each under a heading that says of which node it is.
    Sections,
    /// Texts of whole lines, one behind the other.
    Lines,
    /// It is enough that one node does it: numbers added up, or the first reply that is no error.
    Any,
}

/// A node's whole reply.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The node's place among the masters, for headings.
    pub place: usize,
    /// The bytes of one reply.
    pub reply: &'a [u8],
}

impl Merge {
    /// Writes the one reply to `out`. Nothing is written when a node's reply is not what this kind of merging asks for.
    pub fn apply(self, parts: &[Part<'_>], resp3: bool, out: &mut Vec<u8>) -> Result<(), BrokenReply> {
        if let Some(error) = self.error(parts)? {
            out.extend_from_slice(error);
            return Ok(());
        }
        match self {
            Merge::Same => out.extend_from_slice(parts.first().map_or(b"+OK\r\n", |part| part.reply)),
            Merge::Sum => integer(out, sum(parts)?),
            Merge::Least => least(parts, out)?,
            Merge::Concat => concat(parts, out)?,
            Merge::SumByName => sum_by_name(parts, out)?,
            Merge::Entries => entries(parts, resp3, out)?,
            Merge::Sections => {
                let mut text = Vec::new();
                for part in parts {
                    text.extend_from_slice(format!("# Node {}\r\n", part.place).as_bytes());
                    text.extend_from_slice(self::text(part)?);
                    text.extend_from_slice(b"\r\n");
                }
                verbatim(out, &text, resp3);
            }
            Merge::Lines => {
                let mut all = Vec::new();
                for part in parts {
                    all.extend_from_slice(self::text(part)?);
                }
                verbatim(out, &all, resp3);
            }
            Merge::Any => {
                let good: Vec<_> = parts.iter().copied().filter(|part| !is_error(part.reply)).collect();
                match sum(&good) {
                    Ok(sum) => integer(out, sum),
                    Err(_) => out.extend_from_slice(good.first().map_or(b"+OK\r\n", |part| part.reply)),
                }
            }
        }
        Ok(())
    }

    /// The error that is the reply of all.
    fn error<'a>(self, parts: &[Part<'a>]) -> Result<Option<&'a [u8]>, BrokenReply> {
        let mut errors = parts.iter().filter(|part| is_error(part.reply));
        let first = errors.next().map(|part| part.reply);
        let fatal = self != Merge::Any || errors.count() + 1 >= parts.len();
        Ok(first.filter(|_| fatal))
    }
}

fn is_error(reply: &[u8]) -> bool {
    matches!(reply.first(), Some(b'-' | b'!'))
}

fn integer(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(format!(":{number}\r\n").as_bytes());
}

fn sum(parts: &[Part<'_>]) -> Result<i64, BrokenReply> {
    parts.iter().try_fold(0i64, |sum, part| Ok(sum.saturating_add(Values::new(part.reply).number()?)))
}

fn text<'a>(part: &Part<'a>) -> Result<&'a [u8], BrokenReply> {
    match Values::new(part.reply).take()? {
        Value::Text(text) => Ok(text),
        _ => Err(BrokenReply("another type than expected")),
    }
}

fn least(parts: &[Part<'_>], out: &mut Vec<u8>) -> Result<(), BrokenReply> {
    let mut least: Option<Vec<i64>> = None;
    for part in parts {
        let mut values = Values::new(part.reply);
        let count = values.aggregate()?;
        let numbers = (0..count).map(|_| values.number()).collect::<Result<Vec<_>, _>>()?;
        least = Some(match least {
            None => numbers,
            Some(least) if least.len() == numbers.len() => least.iter().zip(numbers).map(|(&a, b)| a.min(b)).collect(),
            Some(_) => return Err(BrokenReply("another length than the others'")),
        });
    }
    let least = least.unwrap_or_default();
    head(out, b'*', least.len() as u64);
    least.into_iter().for_each(|number| integer(out, number));
    Ok(())
}

fn concat(parts: &[Part<'_>], out: &mut Vec<u8>) -> Result<(), BrokenReply> {
    let (mut count, mut bodies) = (0u64, Vec::new());
    for part in parts {
        let mut values = Values::new(part.reply);
        count = count.checked_add(values.aggregate()?).ok_or(BrokenReply("too many values"))?;
        bodies.push(values.rest());
    }
    head(out, b'*', count);
    bodies.into_iter().for_each(|body| out.extend_from_slice(body));
    Ok(())
}

fn sum_by_name(parts: &[Part<'_>], out: &mut Vec<u8>) -> Result<(), BrokenReply> {
    let mut names: Vec<(&[u8], i64)> = Vec::new();
    for (n, part) in parts.iter().enumerate() {
        let mut values = Values::new(part.reply);
        let count = values.aggregate()? / 2;
        for at in 0..count as usize {
            let Value::Text(name) = values.take()? else { return Err(BrokenReply("another type than expected")) };
            let number = values.number()?;
            match names.get_mut(at) {
                // All were asked for the same names, and answer in their order.
                Some((known, sum)) if *known == name => *sum = sum.saturating_add(number),
                None if n == 0 => names.push((name, number)),
                _ => return Err(BrokenReply("another name than the others'")),
            }
        }
    }
    head(out, b'*', names.len() as u64 * 2);
    for (name, number) in names {
        write_argument(out, name);
        integer(out, number);
    }
    Ok(())
}

fn entries(parts: &[Part<'_>], resp3: bool, out: &mut Vec<u8>) -> Result<(), BrokenReply> {
    let mut entries: BTreeMap<&[u8], Vec<&[u8]>> = BTreeMap::new();
    for part in parts {
        let mut values = Values::new(part.reply);
        for _ in 0..values.aggregate()? / 2 {
            let Value::Text(name) = values.take()? else { return Err(BrokenReply("another type than expected")) };
            let before = values.rest();
            values.skip(1)?;
            let value = &before[..before.len() - values.rest().len()];
            let known = entries.entry(name).or_default();
            if !known.contains(&value) {
                known.push(value);
            }
        }
    }
    let count = entries.values().map(|values| values.len() as u64).sum::<u64>();
    if resp3 {
        head(out, b'%', count)
    } else {
        head(out, b'*', count * 2)
    }
    for (name, values) in entries {
        for value in values {
            write_argument(out, name);
            out.extend_from_slice(value);
        }
    }
    Ok(())
}

fn head(out: &mut Vec<u8>, kind: u8, count: u64) {
    out.push(kind);
    write_number(out, count);
}
