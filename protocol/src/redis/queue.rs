//! What the database still owes: the commands sent, oldest first. A run of ordinary ones is one entry.

use std::collections::VecDeque;

use crate::Ticket;

/// The most entries. A server answers every command whether or not more come, so waiting cannot deadlock.
const ENTRIES_MAX: usize = 4096;
/// The most commands.
const COMMANDS_MAX: u32 = 1 << 24;
/// Entries kept allocated when nothing is owed.
const ENTRIES_KEPT: usize = 64;

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Of the first command.
    pub(super) ticket: Ticket,
    /// Commands of a run; for (un)subscriptions the confirmations that are still to come, 0 where that is only known
    /// when the first one comes.
    pub(super) count: u32,
    pub(super) kind: Kind,
}

/// What the answer will be to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One reply, whatever it is.
    Plain,
    Multi,
    Discard,
    /// Passed on: the client signs in itself.
    Auth,
    Hello,
    Reset,
    Quit,
    Monitor,
    Subscribe(Channel),
    Unsubscribe(Channel),
    /// A command that must fail stands in for one that we answer ourselves; the answer is at the front of the answers.
    StandIn,
    /// A command of ours, which must succeed and is not shown.
    Own,
}

/// The name spaces of pub/sub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    Plain,
    Pattern,
    Shard,
}

/// The entries, oldest first.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    unanswered: u32,
}

const fn next(ticket: Ticket, offset: u32) -> Ticket {
    match ticket.ei {
        Ticket::UNRECORDED => ticket,
        ei => Ticket { ei: ei.wrapping_add(offset), ..ticket },
    }
}

impl Queue {
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= ENTRIES_MAX || self.unanswered >= COMMANDS_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Commands whose outcome has not been handed out.
    pub(super) const fn unanswered(&self) -> usize {
        self.unanswered as usize
    }

    /// One more ordinary command.
    #[inline]
    pub(super) fn push_plain(&mut self, ticket: Ticket) {
        self.unanswered += 1;
        if let Some(last) = self.entries.back_mut()
            && last.kind == Kind::Plain
            && last.ticket.at_us == ticket.at_us
            && next(last.ticket, last.count).ei == ticket.ei
        {
            last.count += 1;
            return;
        }
        self.entries.push_back(Entry { ticket, count: 1, kind: Kind::Plain });
    }

    pub(super) fn push(&mut self, kind: Kind, ticket: Ticket, count: u32) {
        self.unanswered += u32::from(has_outcome(kind));
        self.entries.push_back(Entry { ticket, count, kind });
    }

    #[inline]
    pub(super) fn front(&self) -> Option<&Entry> {
        self.entries.front()
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut Entry> {
        self.entries.front_mut()
    }

    /// Takes the first `count` commands of the run at the front: the ticket of the first.
    #[inline]
    pub(super) fn take(&mut self, count: u32) -> Option<Ticket> {
        let front = self.entries.front_mut()?;
        let first = front.ticket;
        if front.kind == Kind::Plain && count < front.count {
            self.unanswered -= count;
            front.count -= count;
            front.ticket = next(first, count);
            return Some(first);
        }
        self.unanswered -= match front.kind {
            Kind::Plain => front.count,
            kind => u32::from(has_outcome(kind)),
        };
        self.entries.pop_front();
        if self.entries.is_empty() && self.entries.capacity() > ENTRIES_KEPT {
            self.entries.shrink_to(ENTRIES_KEPT);
        }
        Some(first)
    }

    /// Takes the oldest command that has an outcome.
    pub(super) fn take_unanswered(&mut self) -> Option<Ticket> {
        while let Some(front) = self.entries.front() {
            let counts = has_outcome(front.kind);
            let ticket = self.take(1);
            if counts {
                return ticket;
            }
        }
        None
    }
}

const fn has_outcome(kind: Kind) -> bool {
    !matches!(kind, Kind::StandIn | Kind::Own)
}
