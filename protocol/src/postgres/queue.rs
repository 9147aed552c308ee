//! What the database still owes: one entry per message sent, in order.

use std::collections::VecDeque;

use crate::Ticket;

use super::prepared::Change;

/// The most messages that may wait for their answers.
///
/// Waiting for the database cannot deadlock at this length. A server buffers 8 KiB of answers and the
/// shortest answer is 5 bytes, so 1,639 messages that are answered make it send; an error is sent at
/// once, and what it skips is dropped here before anyone is held back.
const ENTRIES_MAX: usize = 4096;
/// Entries kept allocated when nothing is owed.
const ENTRIES_KEPT: usize = 64;

/// A message sent and the answer that settles it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) expect: Expect,
    /// The database never looks at it: it was read as a wrong message in the middle of a COPY.
    pub(super) skip: bool,
    /// Its outcome was handed out.
    pub(super) noted: bool,
}

/// What the answer will be to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expect {
    /// The sign-in: up to the first ReadyForQuery.
    Startup,
    Query(Ticket),
    FunctionCall(Ticket),
    Parse(Ticket, Change),
    Bind(Ticket, Change),
    /// The ticket is that of the last message ruled on, if any, so that an error is recorded with it.
    DescribeStatement(Option<Ticket>),
    DescribePortal(Option<Ticket>),
    Execute(Ticket),
    CloseStatement(Ticket, Change),
    ClosePortal(Ticket, Change),
    /// `maybe`: sent while a COPY was failing. The database may have dropped it as part of the COPY.
    Sync {
        maybe: bool,
    },
    /// A Query or FunctionCall that was refused: a Query that must fail stands in for it.
    RefusedQuery,
    /// Any other message that was refused: a Parse that must fail stands in for it.
    RefusedParse,
    /// CopyDone or CopyFail, with the bytes of CopyData before it. Never answered itself.
    CopyEnd(u64),
    /// Read by the database as part of a COPY. Never answered.
    Swallowed,
}

impl Entry {
    /// The ticket, where an outcome is still owed for it.
    pub(super) fn unanswered(&self) -> Option<Ticket> {
        match self.expect {
            Expect::Query(ticket) | Expect::FunctionCall(ticket) | Expect::Execute(ticket) if !self.noted => {
                Some(ticket)
            }
            _ => None,
        }
    }

    /// The database may pass over it without a word.
    pub(super) fn may_go_unanswered(&self) -> bool {
        self.skip || matches!(self.expect, Expect::Sync { maybe: true } | Expect::CopyEnd(_) | Expect::Swallowed)
    }

    /// The ticket to which an error is put down.
    pub(super) fn blamed(&self) -> Option<Ticket> {
        match self.expect {
            Expect::Parse(ticket, _)
            | Expect::Bind(ticket, _)
            | Expect::CloseStatement(ticket, _)
            | Expect::ClosePortal(ticket, _)
            | Expect::DescribeStatement(Some(ticket))
            | Expect::DescribePortal(Some(ticket)) => Some(ticket),
            _ => self.unanswered(),
        }
    }
}

/// The entries, oldest first.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    unanswered: usize,
}

impl Queue {
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= ENTRIES_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Statements whose outcome has not been handed out.
    pub(super) const fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Nothing is owed for certain.
    pub(super) fn is_settled(&self) -> bool {
        self.entries
            .iter()
            .all(|entry| matches!(entry.expect, Expect::Sync { maybe: true } | Expect::CopyEnd(_) | Expect::Swallowed))
    }

    pub(super) fn push(&mut self, expect: Expect) {
        let entry = Entry { expect, skip: false, noted: false };
        self.unanswered += usize::from(entry.unanswered().is_some());
        self.entries.push_back(entry);
    }

    pub(super) fn front(&self) -> Option<&Entry> {
        self.entries.front()
    }

    /// The front's outcome has been handed out.
    pub(super) fn note_front(&mut self) {
        if let Some(front) = self.entries.front_mut() {
            self.unanswered -= usize::from(front.unanswered().is_some());
            front.noted = true;
        }
    }

    /// Takes the front, and with it what needs no answer behind it.
    pub(super) fn pop(&mut self) -> Option<Entry> {
        let front = self.entries.pop_front()?;
        self.unanswered -= usize::from(front.unanswered().is_some());
        while self.entries.front().is_some_and(|next| matches!(next.expect, Expect::CopyEnd(_) | Expect::Swallowed)) {
            self.entries.pop_front();
        }
        if self.entries.is_empty() && self.entries.capacity() > ENTRIES_KEPT {
            self.entries.shrink_to(ENTRIES_KEPT);
        }
        Some(front)
    }

    /// The COPY of the front ended well: every Sync that the client sent before its CopyDone was read as
    /// part of the COPY. Says how much CopyData it had, or `None` when the client has not ended it.
    pub(super) fn end_copy(&mut self) -> Option<u64> {
        let end = self.entries.iter().skip(1).position(|entry| matches!(entry.expect, Expect::CopyEnd(_)))? + 1;
        let mut bytes = None;
        for entry in self.entries.range_mut(1..=end) {
            match entry.expect {
                Expect::CopyEnd(sent) => bytes = Some(sent),
                Expect::Sync { .. } => {}
                _ => continue,
            }
            entry.expect = Expect::Swallowed;
        }
        bytes
    }

    /// The COPY of the front failed because the database met another message in its middle: that message
    /// is gone, and so is every Sync before it.
    pub(super) fn copy_interrupted(&mut self) {
        for entry in self.entries.range_mut(1..) {
            match entry.expect {
                Expect::Sync { .. } => entry.expect = Expect::Swallowed,
                Expect::Swallowed => {}
                Expect::CopyEnd(_) => return,
                _ => {
                    entry.skip = true;
                    return;
                }
            }
        }
    }

    /// The COPY of the front failed otherwise: a Sync sent before its end was either read as part of it
    /// or will be answered.
    pub(super) fn copy_failed(&mut self) {
        for entry in self.entries.range_mut(1..) {
            match &mut entry.expect {
                Expect::Sync { maybe } => *maybe = true,
                Expect::Swallowed => {}
                _ => return,
            }
        }
    }

    /// Bytes of CopyData that the client sent for the front before it ended the COPY.
    pub(super) fn copy_sent(&self) -> Option<u64> {
        self.entries.iter().skip(1).find_map(|entry| match entry.expect {
            Expect::CopyEnd(sent) => Some(sent),
            _ => None,
        })
    }

    /// A Sync that may have been dropped was taken as answered. If it was not, the answer was the next
    /// one's, which then may never be answered.
    pub(super) fn pass_doubt_on(&mut self) {
        let next = self.entries.iter_mut().find_map(|entry| match &mut entry.expect {
            Expect::Sync { maybe } => Some(maybe),
            _ => None,
        });
        if let Some(maybe) = next {
            *maybe = true;
        }
    }
}
