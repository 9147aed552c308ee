//! The server's direction: replies are matched to commands, pushes passed, and stand-ins replaced.

use crate::{Fault, FaultKind, Outbox, Side};

use super::machine::{Decision, Item, RedisMachine, Settled, SignedIn, Words, fault};
use super::queue::{Channel, Kind};
use super::reply::{self, Element, Garbled, LINE_MAX};
use super::resp::integer;

/// The longest confirmation of a subscription, its channel included.
const CONFIRMATION_MAX: usize = 64 * 1024;

/// What the connection is subscribed to, counted from the server's confirmations.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Subscriptions {
    channels: u32,
    patterns: u32,
    shards: u32,
}

impl Subscriptions {
    pub(super) const fn are_any(self) -> bool {
        self.channels > 0 || self.patterns > 0 || self.shards > 0
    }

    const fn of(self, channel: Channel) -> u32 {
        match channel {
            Channel::Plain => self.channels,
            Channel::Pattern => self.patterns,
            Channel::Shard => self.shards,
        }
    }

    /// A confirmation says how many there are now, of channels and patterns together.
    fn confirmed(&mut self, channel: Channel, total: u32) {
        match channel {
            Channel::Shard => self.shards = total,
            Channel::Plain => self.channels = total.saturating_sub(self.patterns),
            Channel::Pattern => self.patterns = total.saturating_sub(self.channels),
        }
    }
}

/// What a push, or an array while subscribed in RESP2, is.
enum Pushed {
    Need(usize),
    /// Of a subscription begun or ended; bytes of the whole.
    Confirmation {
        channel: Channel,
        begun: bool,
        total: u32,
        len: usize,
    },
    /// A message: nobody asked for it.
    Message,
    Other,
}

const fn garbled(garbled: Garbled) -> Fault {
    match garbled {
        Garbled::Malformed => fault(Side::Backend, FaultKind::Malformed, "a reply that is not RESP"),
        Garbled::Streamed => fault(Side::Backend, FaultKind::Unsupported, "a reply of streamed type"),
    }
}

impl RedisMachine {
    #[inline]
    pub(super) fn decide_server(&mut self, input: &[u8], out: &mut Outbox) -> Result<Decision, Fault> {
        match self.look(input, out) {
            // What is well-formed before it passes first.
            Err(_) if self.decided > 0 => Ok(self.pass()),
            decision => decision,
        }
    }

    fn look(&mut self, input: &[u8], out: &mut Outbox) -> Result<Decision, Fault> {
        loop {
            if self.progress.left > 0 {
                let Some(rest) = self.rest(input) else { return Ok(self.pass()) };
                let read = self.progress.read_on(rest).map_err(garbled)?;
                self.decided += read;
                if self.progress.left > 0 {
                    return Ok(if self.decided > 0 { self.pass() } else { Decision::Need(input.len() + 1) });
                }
                if let Some(decision) = self.settle()? {
                    return Ok(decision);
                }
                continue;
            }
            let Some(rest) = self.rest(input) else { return Ok(self.pass()) };
            let front = self.queue.front().copied();
            if let Some(front) = front
                && front.kind == Kind::Plain
                && !self.is_monitor
                && self.progress.searched == 0
            {
                let (mut at, mut count) = (0, 0);
                while count < front.count
                    && let Some(len) = rest.get(at..).and_then(reply::plain)
                {
                    at += len;
                    count += 1;
                }
                if count > 0 {
                    self.decided += at as u64;
                    self.progress.searched = 0;
                    if let Some(first) = self.queue.take(count) {
                        return Ok(Decision::Successes(first, count));
                    }
                }
            }
            if let Some(decision) = self.begin(input, front.map(|front| front.kind), out)? {
                return Ok(decision);
            }
        }
    }

    /// What is not decided yet; `None` where nothing is left.
    #[inline]
    fn rest<'a>(&self, input: &'a [u8]) -> Option<&'a [u8]> {
        usize::try_from(self.decided).ok().and_then(|at| input.get(at..)).filter(|rest| !rest.is_empty())
    }

    #[inline]
    fn pass(&mut self) -> Decision {
        Decision::Forward(std::mem::take(&mut self.decided))
    }

    /// Passes what is decided, or else waits for more than `have`.
    fn pass_or_need(&mut self, need: usize) -> Decision {
        if self.decided > 0 { self.pass() } else { Decision::Need(need) }
    }

    /// A reply or a push begins. `None`: look again.
    fn begin(&mut self, input: &[u8], kind: Option<Kind>, out: &mut Outbox) -> Result<Option<Decision>, Fault> {
        let Some(rest) = self.rest(input) else { return Ok(Some(self.pass())) };
        let first = rest.first().copied().unwrap_or_default();
        let is_subscription = matches!(kind, Some(Kind::Subscribe(_) | Kind::Unsubscribe(_)));
        if first == b'>' || (first == b'*' && (self.subscriptions.are_any() || is_subscription)) {
            match pushed(rest)? {
                Pushed::Need(need) => return Ok(Some(self.pass_or_need(need))),
                Pushed::Confirmation { channel, begun, total, len } => {
                    self.decided += len as u64;
                    return Ok(self.confirmed(channel, begun, total));
                }
                Pushed::Message => return Ok(self.enter(Item::Push)),
                Pushed::Other if first == b'>' => return Ok(self.enter(Item::Push)),
                Pushed::Other => {}
            }
        }
        if self.is_monitor && first == b'+' {
            // `+1700000000.000000 [0 ...`: no reply of a server begins with a digit.
            match rest.get(1) {
                None => return Ok(Some(self.pass_or_need(2))),
                Some(digit) if digit.is_ascii_digit() => return Ok(self.enter(Item::Push)),
                Some(_) => {}
            }
        }
        match kind {
            Some(Kind::StandIn | Kind::Own) => return self.replace(rest, kind, out).map(Some),
            None if first != b'-' => {
                return Err(fault(Side::Backend, FaultKind::OutOfOrder, "a reply to no command"));
            }
            _ => {}
        }
        if matches!(first, b'-' | b'!') {
            return self.fail(input, first, kind);
        }
        if first == b'|' {
            return self.attribute(rest, input.len());
        }
        Ok(self.enter(if first == b'%' { Item::Map } else { Item::Reply }))
    }

    /// What stands behind an attribute is looked at as if it stood alone.
    fn attribute(&mut self, rest: &[u8], have: usize) -> Result<Option<Decision>, Fault> {
        match reply::element(rest, &mut self.progress.searched).map_err(garbled)? {
            Element::Whole { len, inner } => {
                self.decided += len;
                self.progress.left = inner.saturating_sub(1);
                self.item = if self.progress.left > 0 { Item::Attribute } else { Item::default() };
                Ok(None)
            }
            Element::Partial | Element::LongLine => Ok(Some(self.pass_or_need(have + 1))),
        }
    }

    fn enter(&mut self, item: Item) -> Option<Decision> {
        self.item = item;
        self.progress.left = 1;
        None
    }

    /// A command of ours is answered: the client sees nothing of it, or what we have for it.
    fn replace(&mut self, rest: &[u8], kind: Option<Kind>, out: &mut Outbox) -> Result<Decision, Fault> {
        if self.decided > 0 {
            return Ok(self.pass());
        }
        let expected = if kind == Some(Kind::Own) { b'+' } else { b'-' };
        if rest.first() != Some(&expected) {
            return Err(fault(Side::Backend, FaultKind::Unavailable, "the database refused a command of the gateway"));
        }
        let len = match reply::element(rest, &mut self.progress.searched).map_err(garbled)? {
            Element::Whole { len, inner: 0 } if len <= rest.len() as u64 => len,
            Element::Whole { .. } | Element::LongLine => {
                return Err(fault(
                    Side::Backend,
                    FaultKind::OutOfOrder,
                    "an unexpected reply to a command of the gateway",
                ));
            }
            Element::Partial => return Ok(Decision::Need(rest.len() + 1)),
        };
        if kind == Some(Kind::StandIn)
            && let Some(answer) = self.answers.pop_front()
        {
            out.client.extend_from_slice(&answer);
        }
        self.queue.take(1);
        Ok(Decision::Discard(len))
    }

    /// An error reply: as much of its text is waited for as is recorded.
    fn fail(&mut self, input: &[u8], first: u8, kind: Option<Kind>) -> Result<Option<Decision>, Fault> {
        let Some(rest) = self.rest(input) else { return Ok(Some(self.pass())) };
        let at = input.len() - rest.len();
        let (text, len) = match reply::element(rest, &mut self.progress.searched).map_err(garbled)? {
            Element::Partial => return Ok(Some(self.pass_or_need(input.len() + 1))),
            Element::LongLine => ((at + 1, at + LINE_MAX), None),
            Element::Whole { len, .. } if first == b'-' => ((at + 1, at + len as usize - 2), Some(len)),
            Element::Whole { len, .. } => {
                // `!<length>\r\n<text>\r\n`.
                let head = memchr::memchr(b'\n', rest).map_or(0, |end| end + 1);
                let end = len.saturating_sub(2).min((head + LINE_MAX) as u64) as usize;
                if rest.len() < end {
                    return Ok(Some(self.pass_or_need(at + end)));
                }
                ((at + head, at + end), Some(len))
            }
        };
        self.progress.searched = 0;
        match len {
            Some(len) => self.decided += len,
            None => {
                self.progress.left = 1;
                self.progress.in_line = true;
                self.item = Item::Noted;
            }
        }
        let Some(kind) = kind else {
            // What a server says unasked before it closes.
            self.parted = true;
            return Ok(None);
        };
        let generation = self.queue.front().map_or(0, |front| front.count);
        let is_current = generation == self.transactions;
        match kind {
            Kind::Multi if is_current => self.in_transaction = false,
            Kind::Discard if is_current => self.in_transaction = true,
            Kind::Auth | Kind::Hello if self.signed_in == SignedIn::Asked => self.signed_in = SignedIn::No,
            _ => {}
        }
        let Some(ticket) = self.queue.take(1) else { return Ok(None) };
        let line = input.get(text.0..text.1).unwrap_or_default();
        let word = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        let is_code = word > 0 && line.iter().take(word).all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
        let end = text.0 + unquoted(line);
        let (code, message) = if is_code {
            (Words::At(text.0, text.0 + word), Words::At((text.0 + word + 1).min(end), end))
        } else {
            (Words::Own(""), Words::At(text.0, end))
        };
        Ok(Some(Decision::Outcome(Settled { ticket, success: false, skipped: false, code, message })))
    }

    /// A reply or a push has ended.
    fn settle(&mut self) -> Result<Option<Decision>, Fault> {
        let item = std::mem::take(&mut self.item);
        let Some(front) = self.queue.front().copied() else { return Ok(None) };
        if matches!(item, Item::Push | Item::Noted | Item::Attribute) {
            return Ok(None);
        }
        match front.kind {
            Kind::Hello => {
                self.is_resp3 = item == Item::Map;
                // Without an AUTH in it the server answers only whom it knows.
                self.signed_in = SignedIn::Yes;
            }
            Kind::Auth => self.signed_in = SignedIn::Yes,
            Kind::Reset => {
                self.is_resp3 = false;
                self.is_monitor = false;
                self.signed_in = SignedIn::first(&self.identity);
                self.subscriptions = Subscriptions::default();
            }
            Kind::Monitor => self.is_monitor = true,
            Kind::Quit => self.parted = true,
            _ => {}
        }
        Ok(self.queue.take(1).map(|first| Decision::Successes(first, 1)))
    }

    /// One more confirmation of what the oldest command asked for.
    fn confirmed(&mut self, channel: Channel, begun: bool, total: u32) -> Option<Decision> {
        let before = self.subscriptions.of(channel);
        self.subscriptions.confirmed(channel, total);
        let front = self.queue.front_mut()?;
        let wanted = if begun { Kind::Subscribe(channel) } else { Kind::Unsubscribe(channel) };
        if front.kind != wanted {
            // A shard channel that has moved away.
            return None;
        }
        if front.count == 0 {
            // Of all there are: one each, or one that says that there are none.
            front.count = before.max(1);
        }
        front.count -= 1;
        if front.count > 0 {
            return None;
        }
        self.queue.take(1).map(|first| Decision::Successes(first, 1))
    }
}

/// Looks at an array or push at the front of `rest` as at one of pub/sub.
fn pushed(rest: &[u8]) -> Result<Pushed, Fault> {
    let next = |at: usize| -> Result<Option<(u64, u64)>, Fault> {
        match rest.get(at..).filter(|left| !left.is_empty()) {
            None => Ok(None),
            Some(left) => match reply::element(left, &mut 0).map_err(garbled)? {
                Element::Whole { len, inner } => Ok(Some((len, inner))),
                Element::LongLine => Ok(Some((u64::MAX, 0))),
                Element::Partial => Ok(None),
            },
        }
    };
    let more = || Ok(Pushed::Need(rest.len() + 1));
    let Some((head, elements)) = next(0)? else { return more() };
    let head = head as usize;
    if !(2..=4).contains(&elements) || rest.get(head).is_some_and(|kind| *kind != b'$') {
        return Ok(Pushed::Other);
    }
    let Some((word_len, _)) = next(head)? else { return more() };
    // No word of pub/sub is longer.
    if word_len > 24 {
        return Ok(Pushed::Other);
    }
    let word_end = head + word_len as usize;
    let Some(word) = rest.get(head..word_end) else { return Ok(Pushed::Need(word_end)) };
    let word = word.split(|byte| *byte == b'\n').nth(1).and_then(|word| word.strip_suffix(b"\r")).unwrap_or_default();
    let (channel, begun) = match word {
        b"message" | b"pmessage" | b"smessage" => return Ok(Pushed::Message),
        b"subscribe" => (Channel::Plain, true),
        b"psubscribe" => (Channel::Pattern, true),
        b"ssubscribe" => (Channel::Shard, true),
        b"unsubscribe" => (Channel::Plain, false),
        b"punsubscribe" => (Channel::Pattern, false),
        b"sunsubscribe" => (Channel::Shard, false),
        _ => return Ok(Pushed::Other),
    };
    if elements != 3 {
        return Ok(Pushed::Other);
    }
    let Some((name_len, 0)) = next(word_end)? else { return more() };
    let name_end = (word_end as u64).saturating_add(name_len);
    if name_end > CONFIRMATION_MAX as u64 {
        return Err(fault(Side::Backend, FaultKind::TooLarge, "a confirmation of a subscription that is too long"));
    }
    let name_end = name_end as usize;
    if name_end >= rest.len() {
        return Ok(Pushed::Need(name_end + 1));
    }
    let Some((number_len, 0)) = next(name_end)? else { return more() };
    let len = name_end + number_len as usize;
    let total = rest
        .get(name_end..len)
        .and_then(|number| number.strip_prefix(b":")?.strip_suffix(b"\r\n"))
        .and_then(integer)
        .and_then(|total| u32::try_from(total).ok());
    Ok(match total {
        Some(total) => Pushed::Confirmation { channel, begun, total, len },
        None => Pushed::Other,
    })
}

/// Where an error's text begins to quote what the client sent: values and secrets stand there, and records have neither.
fn unquoted(line: &[u8]) -> usize {
    let quote = line.windows(2).position(|pair| pair[0] == b' ' && matches!(pair[1], b'\'' | b'"' | b'`'));
    quote.unwrap_or(line.len())
}
