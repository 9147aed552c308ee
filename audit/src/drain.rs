//! From the records of one ring to lines.
use crate::encode::{self, Cursor, Head, kind};
use crate::facts::Session;
use crate::join::Results;
use crate::line::{Joined, Lines};
use crate::outcome::Outcome;
use crate::ring::Damaged;
use crate::steps;
use crate::writer::Ring;

/// Ring bytes walked over ahead of the formatting, so that results find their statements. A part is formatted whole:
/// the chain says up to which position a ring was consumed, and a result is never on both sides of that.
const PART_MAX: usize = 256 << 10;
const PART_MIN: usize = 4 << 10;

/// What a drain did.
#[derive(Default)]
pub(crate) struct Tally {
    /// Something was consumed.
    pub(crate) moved: bool,
    /// Events, joined ones too.
    pub(crate) records: u64,
    /// Places that could not be read.
    pub(crate) damaged: u64,
}

/// Formats one ring's records until there are `full` bytes of lines. The last part of the ring may exceed that.
pub(crate) fn drain(
    ring: &mut Ring,
    format: &mut Lines,
    results: &mut Results,
    lines: &mut Vec<u8>,
    full: usize,
) -> Tally {
    let mut tally = Tally::default();
    let from = ring.ring.read();
    let tail = ring.ring.map().tail();
    while lines.len() < full {
        let bytes = ((full - lines.len()) / 4).clamp(PART_MIN, PART_MAX);
        match part(ring, tail, bytes as u64, format, results, lines, &mut tally) {
            Ok(end) if end == ring.ring.read() => break,
            Ok(end) => ring.ring.advance(end),
            Err(Damaged) => {
                // Without a readable length there is no next record to find.
                tally.damaged += 1;
                ring.ring.advance(tail);
                break;
            }
        }
    }
    ring.damaged |= tally.damaged > 0;
    tally.moved = ring.ring.read() != from;
    tally
}

/// Formats one part and answers the position behind it.
fn part(
    ring: &mut Ring,
    tail: u64,
    bytes: u64,
    format: &mut Lines,
    results: &mut Results,
    lines: &mut Vec<u8>,
    tally: &mut Tally,
) -> Result<u64, Damaged> {
    let end = results.scan(&ring.ring, tail, bytes)?;
    let Ring { ring, origin, sessions, facts, .. } = ring;
    let ring = &*ring;
    let mut at = ring.read();
    while at < end {
        let (record, mut after) = ring.at(at, end)?.ok_or(Damaged)?;
        let read = encode::read(record).and_then(|(head, mut body)| match head.kind {
            kind::OPEN => {
                let session = Session::read(&mut body)?;
                facts.add(head.session, &session);
                sessions.insert(head.session, session);
                Some(0)
            }
            kind::CLOSE_SESSION => {
                sessions.remove(&head.session);
                Some(0)
            }
            kind::RESULT | kind::RESULTS => {
                let outcome = Outcome::read(&head, body)?;
                for rest in outcome.without(results.pass(at)) {
                    format.result(lines, origin, sessions, head.session, &rest);
                }
                Some(1)
            }
            _ => {
                let mut record = |head: &Head, body: &mut Cursor<'_>, steps| {
                    let place = joins(head, body).then(|| results.take(head.session, head.ei)).flatten();
                    let result = place.and_then(|place| {
                        let (head, body) = encode::read(ring.at(place, end).ok()??.0)?;
                        Outcome::read(&head, body)
                    });
                    let joined = Joined { steps, result };
                    let done = format.record(lines, origin, sessions, head, body, &joined);
                    if done.is_none() && place.is_some() {
                        results.give_back(head.session);
                    }
                    done
                };
                let chain = matches!(head.kind, kind::PARSE | kind::BIND)
                    .then(|| steps::chain(ring, &head, body.clone(), after, end))
                    .flatten();
                match chain {
                    Some(mut chain) => {
                        after = chain.after;
                        record(&chain.execute, &mut chain.body, Some(chain.steps))?;
                        Some(chain.records)
                    }
                    None => {
                        record(&head, &mut body, None)?;
                        Some(1)
                    }
                }
            }
        });
        match read {
            Some(records) => tally.records += records,
            None => tally.damaged += 1,
        }
        at = after;
    }
    Ok(end)
}

/// Whether a result can belong to the record: it is a statement that was forwarded.
fn joins(head: &Head, body: &Cursor<'_>) -> bool {
    let forwarded = |mut ahead: Cursor<'_>, skip| {
        ahead.raw(skip);
        ahead.bytes().is_some_and(<[u8]>::is_empty)
    };
    match head.kind {
        kind::EXECUTE => true,
        kind::QUERY | kind::COMMAND => forwarded(body.clone(), 0),
        kind::FUNCTION => forwarded(body.clone(), 4),
        _ => false,
    }
}
