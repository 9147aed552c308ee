//! Commands on many keys, cut into one command for each slot.
//!
//! A cluster runs a command on the keys of one slot only. What comes of the pieces is put together again by the one
//! who asked for them: it is not atomic, and where a piece fails others may have been run.

use std::collections::BTreeMap;

use super::slot::Slot;

/// How the arguments of a command go with its keys, and what comes of the pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// MGET: an array with one value for each key, in their order.
    Values,
    /// MSET: a value behind each key; OK.
    Pairs,
    /// DEL, UNLINK, EXISTS, TOUCH: a number, to be added up.
    Count,
}

/// One piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Whose owner it is for.
    pub slot: Slot,
    /// The command as it is sent.
    pub command: Vec<u8>,
    /// Keys in it: for [`Split::Values`] the values of its reply.
    pub keys: u64,
}

impl Split {
    /// Cuts a command, given as its arguments with the name in front, into pieces. `None`: it stays whole, because all
    /// its keys are of one slot or its arguments do not fit together, which a node says best.
    ///
    /// For [`Split::Values`] a piece holds neighbours only, so that the replies of one node stand in the order of the
    /// keys and can be passed on as they come.
    pub fn pieces(self, arguments: &[&[u8]]) -> Option<Vec<Piece>> {
        let (name, rest) = arguments.split_first()?;
        let step = if self == Split::Pairs { 2 } else { 1 };
        if rest.is_empty() || rest.len() % step != 0 {
            return None;
        }
        let mut groups: Vec<(Slot, Vec<&[u8]>)> = Vec::new();
        let mut place_of: BTreeMap<Slot, usize> = BTreeMap::new();
        for chunk in rest.chunks_exact(step) {
            let slot = Slot::of(chunk[0]);
            let place = match self {
                Split::Values => groups.len().checked_sub(1).filter(|&last| groups[last].0 == slot),
                Split::Pairs | Split::Count => place_of.get(&slot).copied(),
            };
            match place {
                Some(place) => groups[place].1.extend_from_slice(chunk),
                None => {
                    place_of.insert(slot, groups.len());
                    groups.push((slot, chunk.to_vec()));
                }
            }
        }
        if place_of.len() == 1 {
            return None;
        }
        let piece = |(slot, arguments): (Slot, Vec<&[u8]>)| {
            let mut command = Vec::new();
            write_head(&mut command, arguments.len() + 1);
            write_argument(&mut command, name);
            arguments.iter().for_each(|argument| write_argument(&mut command, argument));
            Piece { slot, command, keys: (arguments.len() / step) as u64 }
        };
        Some(groups.into_iter().map(piece).collect())
    }
}

/// Writes the head of a command of `count` arguments.
pub fn write_head(out: &mut Vec<u8>, count: usize) {
    out.push(b'*');
    write_number(out, count as u64);
}

/// Writes one argument.
pub fn write_argument(out: &mut Vec<u8>, argument: &[u8]) {
    out.push(b'$');
    write_number(out, argument.len() as u64);
    out.extend_from_slice(argument);
    out.extend_from_slice(b"\r\n");
}

/// Writes a number and CRLF.
pub(super) fn write_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(number.to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
}
