//! What came of statements, as a record in a ring says it.
use crate::encode::{Cursor, Head, kind};

/// One result record, for `count` statements from `first` on.
#[derive(Clone)]
pub(crate) struct Outcome<'a> {
    pub(crate) ei: u32,
    pub(crate) time_us: u64,
    pub(crate) first: u32,
    pub(crate) count: u32,
    pub(crate) success: bool,
    pub(crate) skipped: bool,
    pub(crate) rows: Option<u64>,
    pub(crate) duration_us: u64,
    pub(crate) copy_bytes: u64,
    pub(crate) code: &'a [u8],
    pub(crate) error: &'a [u8],
    pub(crate) hash: Option<&'a [u8]>,
    pub(crate) warnings: u32,
}

impl<'a> Outcome<'a> {
    /// Reads the body of a `RESULT` or `RESULTS` record.
    pub(crate) fn read(head: &Head, mut body: Cursor<'a>) -> Option<Self> {
        let first = body.u32()?;
        let mut outcome = Self {
            ei: head.ei,
            time_us: head.time_us,
            first,
            count: 1,
            success: true,
            skipped: false,
            rows: None,
            duration_us: 0,
            copy_bytes: 0,
            code: b"",
            error: b"",
            hash: None,
            warnings: 0,
        };
        if head.kind == kind::RESULTS {
            outcome.count = body.u32()?;
            outcome.duration_us = body.u64()?;
            return Some(outcome);
        }
        outcome.success = body.flag()?;
        outcome.skipped = body.flag()?;
        let has_rows = body.flag()?;
        outcome.rows = Some(body.u64()?).filter(|_| has_rows);
        outcome.duration_us = body.u64()?;
        outcome.copy_bytes = body.u64()?;
        outcome.code = body.bytes()?;
        outcome.error = body.bytes()?;
        outcome.hash = body.hash()?;
        // A ring may hold records from before they were counted.
        outcome.warnings = body.u32().unwrap_or(0);
        Some(outcome)
    }

    /// The same for those of its statements that `joined` leaves over: before it and behind it.
    pub(crate) fn without(&self, joined: std::ops::Range<u64>) -> impl Iterator<Item = Self> {
        let (first, end) = (u64::from(self.first), u64::from(self.first) + u64::from(self.count));
        let none = joined.is_empty();
        let parts = if none { [(first, end), (end, end)] } else { [(first, joined.start), (joined.end, end)] };
        let part = |(from, to): (u64, u64)| {
            let (first, count) = (u32::try_from(from).ok()?, u32::try_from(to.checked_sub(from)?).ok()?);
            (count > 0).then(|| Self { first, count, ..self.clone() })
        };
        parts.into_iter().filter_map(part)
    }

    /// Whether `time_us` is, to the millisecond, what the statement's time and the duration say.
    pub(crate) fn follows(&self, statement_us: u64) -> bool {
        self.time_us.abs_diff(statement_us.saturating_add(self.duration_us)) < 1000
    }
}
