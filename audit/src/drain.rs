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
        kind::EXECUTE | kind::MYSQL => true,
        kind::QUERY | kind::COMMAND => forwarded(body.clone(), 0),
        kind::FUNCTION => forwarded(body.clone(), 4),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::encode;
    use crate::event::{Event, NoParameters, SessionFacts, SessionSlot, Stamp, Statement};
    use crate::options::Options;
    use crate::ring::{self, Map};
    use crate::verify::{Verdict, verify};

    fn result(query_ei: u32) -> Event<'static> {
        let (code, error) = (&b""[..], &b""[..]);
        let (success, rows, duration_us, copy_bytes, query_sha256, skipped) = (true, Some(1), 5, 0, None, false);
        Event::Result {
            query_ei,
            success,
            rows,
            duration_us,
            code,
            error,
            copy_bytes,
            query_sha256,
            skipped,
            warnings: 0,
        }
    }

    /// Two sessions, one inside the other: their slots and what they record.
    fn script() -> Vec<(u32, Event<'static>)> {
        let st = Statement { text: b"select 1", full_bytes: 8, sha256: None, query_type: "SELECT" };
        let none = &NoParameters;
        let query = Event::Query { statement: st, parameters: none, error: "" };
        let command =
            Event::Command { name: b"GET", keys: none, arguments: 1, argument_bytes: 3, values: none, error: "" };
        vec![
            (0, Event::Parse { name: b"", statement: st }),
            (0, Event::Bind { name: b"", portal: b"", parameters: none }),
            (0, Event::Execute { portal: b"", statement: st, parameters: none }),
            (1, query),
            (1, command),
            (1, command),
            (1, result(0)),
            (0, result(2)),
            (1, command),
            (1, Event::Results { first_ei: 1, count: 2, duration_us: 9 }),
            (0, query),
            (1, Event::Results { first_ei: 4, count: 1, duration_us: 9 }),
            (0, result(4)),
        ]
    }

    #[test]
    fn a_process_that_ends_after_any_record_leaves_each_of_them_once_and_joins_no_other_sessions_result() {
        let script = script();
        for cut in 0..=script.len() {
            let dir = tempfile::tempdir().unwrap();
            let rings = dir.path().join("rings");
            std::fs::create_dir(&rings).unwrap();
            // Two rings of processes before, whose sessions have the same slots.
            for (id, cut) in [(5, cut), (6, script.len())] {
                let map = Map::create(&rings.join(format!("{id}.ring")), id, 64 << 10, 1, 42).unwrap();
                let mut ring = ring::producer(&map);
                for slot in 0..2 {
                    let sid = uuid::Uuid::from_u64_pair(id, slot.into());
                    let facts = SessionFacts { sid, user: "alice", ..SessionFacts::default() };
                    ring.write(encode::open_size(&facts), u64::MAX, |at| encode::write_open(slot, &facts, at)).unwrap();
                }
                let mut next = [0; 2];
                for (slot, event) in &script[..cut] {
                    let ei = &mut next[*slot as usize];
                    let stamp = Stamp { session: Some(SessionSlot(*slot)), ei: *ei, time_us: 1 };
                    ring.write(encode::size(event), u64::MAX, |at| encode::write(stamp, event, at)).unwrap();
                    *ei += 1;
                }
            }
            let (_p, _c, handle) = crate::start(Options::new(dir.path()), 1, Vec::new()).unwrap();
            assert!(handle.flush());
            handle.shutdown();
            assert_eq!(verify(dir.path(), None, None, &mut |_| {}).unwrap().verdict, Verdict::Ok);
            let mut seen = std::collections::BTreeSet::new();
            for (_, path) in crate::segment::list(dir.path()).unwrap() {
                for line in std::fs::read_to_string(path).unwrap().lines().filter(|l| l.contains("\"sid\":")) {
                    let line: Value = serde_json::from_str(line).unwrap();
                    let sid = line["sid"].as_str().unwrap().to_owned();
                    for ei in [&line["parse_ei"], &line["bind_ei"], &line["ei"]].into_iter().filter_map(Value::as_u64) {
                        assert!(seen.insert((sid.clone(), ei)), "{line}");
                    }
                    if let Some(ei) = line["result"]["ei"].as_u64() {
                        assert!(ei > line["ei"].as_u64().unwrap());
                        // The two commands of one run have the same.
                        seen.insert((sid, ei));
                    }
                }
            }
            assert_eq!(seen.len(), cut + script.len(), "{cut}: {seen:?}");
        }
    }
}
