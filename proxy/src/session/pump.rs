//! The pump: bytes in at one socket, ruled by the protocol's machine, out at the other.
//!
//! ```text
//! client  --recv-->  [ lane up   ]  --send-->  backend
//!                        machine + policy + audit
//! client  <--send--  [ lane down ]  <--recv--  backend
//! ```
//!
//! A received buffer is ruled on in place and sent from where it lies; the next receive goes into another one
//! while that send is in flight. A lane's bytes are only ruled on when its sink is free: a slow reader stops its
//! own lane and nothing else, and a session never holds more than two buffers in each direction. Bytes are
//! copied in user space only when a frame was cut by the end of a buffer (its rest moves to the next one) and
//! when the machine rewrites (what follows in that buffer joins the rewritten bytes).

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use aws_lc_rs::digest;
use ringgate_audit::Position;
use ringgate_protocol::{
    Fault, FaultKind, Machine, NEED_BYTES_MAX, Note, Outbox, Refusal, RefusalKind, Resumed, Ruling, Side, Step, Ticket,
};

use super::link::Link;
use super::port::Port;
use super::trail::Trail;
use super::{End, rule};
use crate::net::Yield;
use crate::net::buffer::Buf;
use crate::worker::{Control, Core, Order};

/// How long the client may take to hang up after our last words.
const LINGER: std::time::Duration = std::time::Duration::from_millis(500);

/// How long the client may take to take what is still owed to it.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(5);

/// The same when the process is about to end: the session's own end must still be recorded.
const LAST_WORDS_AT_SHUTDOWN: std::time::Duration = std::time::Duration::from_secs(1);

/// Receives of a client that goes on talking after our last words.
const LINGER_RECEIVES: u32 = 64;

/// Hashes of long statements kept until their outcome. Those of statements whose outcome came first go unused.
const HASHES_MAX: usize = 64;

/// Turns of the loop before the other sessions of the worker get theirs.
const TURNS_MAX: u32 = 16;

/// A session in full flow.
pub struct Pump<M> {
    pub(super) machine: M,
    client: Port,
    backend: Port,
    up: Lane,
    down: Lane,
    outbox: Outbox,
    pub(super) rules: rule::Rules,
    core: Rc<Core>,
    control: Rc<Control>,
    /// Hashes of long statements that have passed, by index of their record.
    hashed: VecDeque<(u32, [u8; 32])>,
    yielding: Option<Yield>,
    /// Set when the session ends; what is still owed to the client is flushed first.
    ending: Option<End>,
    parting: Parting,
    /// Our own goodbye of TLS was said to the client.
    closed_tls: bool,
    fault: Option<Fault>,
}

/// One direction. INVARIANT: of `data`, everything before its filled part has been passed on or dropped.
#[derive(Default)]
struct Lane {
    /// Received and not decided.
    data: Option<Buf>,
    /// Bytes decided to be passed on that have not arrived yet.
    forward: u64,
    /// Bytes decided to be dropped that have not arrived yet.
    discard: u64,
    /// The machine wants this many bytes before it decides.
    need: usize,
    /// The machine waits for the other side.
    held: bool,
    /// The audit has no room, or a record is not on disk yet.
    waits: Wait,
    /// The hash of a statement that is passing.
    hashing: Option<Box<Hashing>>,
    /// Answers of the machine to the side this lane leads to, to go between frames.
    answers: Vec<u8>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Wait {
    #[default]
    No,
    Room,
    /// The record of the statement at the front; the machine has no ruling yet.
    Disk(Position, Ticket),
}

/// How far the end of the client's direction has been passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parting {
    No,
    /// TLS' goodbye is on its way.
    Said,
    /// The database has been told that nothing more will come. It answers what it was asked, and closes.
    Shut,
}

struct Hashing {
    context: digest::Context,
    ei: u32,
    skip: u64,
    left: u64,
}

impl<M: Machine> Pump<M> {
    /// A pump over two links that have finished their cold phases.
    pub fn new(
        machine: M,
        client: Link,
        backend: Link,
        rules: rule::Rules,
        core: Rc<Core>,
        control: Rc<Control>,
    ) -> Pump<M> {
        let (client, up) = Port::new(client, &core.pool);
        let (backend, down) = Port::new(backend, &core.pool);
        let mut pump = Pump {
            machine,
            client,
            backend,
            up: Lane { data: up, ..Lane::default() },
            down: Lane { data: down, ..Lane::default() },
            outbox: Outbox::default(),
            rules,
            core,
            control,
            hashed: VecDeque::new(),
            yielding: None,
            ending: None,
            parting: Parting::No,
            closed_tls: false,
            fault: None,
        };
        pump.control.secret_len.set(pump.machine.secret_len());
        pump.machine.start(&mut pump.outbox);
        pump.collect_answers();
        pump
    }

    /// Runs the session to its end. A panic in it is caught here, so that the client still gets a last word.
    pub async fn run(&mut self) -> End {
        let end = std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| self.poll(cx))) {
            Ok(poll) => poll,
            Err(_) => Poll::Ready(End::Panic),
        })
        .await;
        if end == End::Panic {
            self.core.counters.panics.fetch_add(1, Relaxed);
            self.ending = Some(End::Panic);
            let last = catch_unwind(AssertUnwindSafe(|| {
                self.yielding = None;
                self.farewell(RefusalKind::Internal, "the gateway made a mistake", "");
            }));
            if last.is_err() {
                self.down.answers.clear();
            }
        }
        let last =
            std::future::poll_fn(|cx| catch_unwind(AssertUnwindSafe(|| self.poll_last(cx))).unwrap_or(Poll::Ready(())));
        // A client that does not take its last words is left alone.
        let limit = if end == End::Drain { LAST_WORDS_AT_SHUTDOWN } else { LAST_WORDS };
        let _ = Box::pin(crate::net::within(limit, last)).await;
        self.settle();
        end
    }

    /// Every statement without an outcome gets its record: the connection was lost under it.
    fn settle(&mut self) {
        if let Wait::Disk(_, ticket) = self.up.waits {
            self.rules.not_forwarded(&self.core, ticket);
        }
        let message: &[u8] = b"connection lost before the reply ended";
        while let Some(ticket) = self.machine.take_unanswered() {
            self.rules.unanswered(&self.core, ticket, message);
        }
        self.rules.trail.bytes_in = self.client.bytes_in;
        self.rules.trail.bytes_out = self.client.bytes_out;
        self.core.counters.server_in.fetch_add(self.backend.bytes_in, Relaxed);
        self.core.counters.server_out.fetch_add(self.backend.bytes_out, Relaxed);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.control.park(cx.waker());
        if let Some(yielding) = self.yielding.as_mut() {
            if yielding.poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.yielding = None;
        }
        self.rules.new_turn(&self.core);
        for _ in 0..TURNS_MAX {
            let moved = self.turn(cx);
            if let Some(end) = self.ending {
                return Poll::Ready(end);
            }
            if !moved && !self.after(cx) {
                return Poll::Pending;
            }
        }
        // The first poll only takes a place at the back of the queue.
        let _ = self.yielding.insert(Yield::default()).poll(cx);
        Poll::Pending
    }

    /// One round over both sockets and both lanes. Answers whether anything moved.
    fn turn(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = self.poll_ports(cx);
        if moved {
            self.wake_up();
        }
        self.obey();
        if self.ending.is_some() {
            return true;
        }
        for side in [Side::Client, Side::Backend] {
            match self.advance(side) {
                Ok(advanced) => moved |= advanced,
                Err(end) => {
                    self.fail(end);
                    return true;
                }
            }
        }
        moved | self.watch_ends()
    }

    fn wake_up(&self) {
        self.control.active_ms.set(self.rules.now_ms());
        self.control.resting.set(false);
        // Asked for before these bytes moved.
        self.control.rest.set(false);
    }

    /// Moves the lane that begins at `side`: decrypt, rule, send, receive again.
    fn advance(&mut self, side: Side) -> Result<bool, End> {
        let (source, sink, lane) = match side {
            Side::Client => (&mut self.client, &mut self.backend, &mut self.up),
            Side::Backend => (&mut self.backend, &mut self.client, &mut self.down),
        };
        let mut moved = sink.flush().map_err(|_| End::Error)?;
        let goes_on = match lane.waits {
            Wait::No => None,
            Wait::Room => self.rules.has_room(&self.core).then_some(()),
            Wait::Disk(position, ticket) => self.rules.is_on_disk(&self.core, position).map(|on_disk| {
                if on_disk {
                    if let Resumed::Forward { len } = self.machine.resume(Ruling::Allow(ticket)) {
                        lane.forward = len;
                    }
                } else {
                    lane.hashing = None;
                    self.rules.not_forwarded(&self.core, ticket);
                    let _ = self.machine.resume(Ruling::Refuse(rule::unrecorded(&self.core)));
                }
            }),
        };
        if goes_on.is_some() {
            lane.waits = Wait::No;
            moved = true;
        } else if lane.waits != Wait::No {
            self.core.wait_for_audit(&self.control);
        }
        if !sink.is_busy() {
            let gained = source.decrypt(&mut lane.data, lane.need).map_err(|_| End::tls(side))?;
            moved |= gained > 0;
            if !lane.is_paused() && lane.has_news() || lane.owes_answers() {
                moved |= self.process(side)?;
            }
        }
        let (source, lane) = match side {
            Side::Client => (&mut self.client, &mut self.up),
            Side::Backend => (&mut self.backend, &mut self.down),
        };
        if !self.control.resting.get() && lane.wants_more() {
            let armed = source.is_receiving();
            source.arm(&mut lane.data, lane.need.max(1));
            moved |= !armed && source.is_receiving();
        }
        Ok(moved)
    }

    /// Rules on what the lane from `side` holds and sends what may go.
    fn process(&mut self, side: Side) -> Result<bool, End> {
        let lane = match side {
            Side::Client => &mut self.up,
            Side::Backend => &mut self.down,
        };
        let mut out: Option<Buf> = None;
        if lane.owes_answers() {
            let answers = std::mem::take(&mut lane.answers);
            append(&mut out, &self.core, &answers);
        }
        let mut data = lane.data.take();
        let mut at = 0;
        let mut run = 0;
        let mut verdict = Ok(());
        if let Some(buf) = data.as_ref().filter(|_| !lane.is_paused()) {
            let bytes = buf.filled();
            lane.need = 0;
            while at < bytes.len() {
                let left = bytes.len() - at;
                if lane.forward > 0 {
                    let n = usize::try_from(lane.forward).unwrap_or(left).min(left);
                    if let Some(done) = lane.feed_hash(&bytes[at..at + n]) {
                        if self.hashed.len() >= HASHES_MAX {
                            self.hashed.pop_front();
                        }
                        self.hashed.push_back(done);
                    }
                    match out.as_mut() {
                        None if run == at => run += n,
                        _ => {
                            spill(&mut out, &self.core, &bytes[..run], &bytes[at..at + n]);
                            run = 0;
                        }
                    }
                    lane.forward -= n as u64;
                    at += n;
                    continue;
                }
                if lane.discard > 0 {
                    let n = usize::try_from(lane.discard).unwrap_or(left).min(left);
                    lane.discard -= n as u64;
                    at += n;
                    continue;
                }
                let step = self.machine.handle(side, &bytes[at..], &mut self.outbox);
                // What the machine says in this direction goes before what its step forwards.
                let said = match side {
                    Side::Client => &mut self.outbox.backend,
                    Side::Backend => &mut self.outbox.client,
                };
                if !said.is_empty() {
                    spill(&mut out, &self.core, &bytes[..run], said);
                    run = 0;
                    said.clear();
                }
                match step {
                    Ok(Step::Forward { len }) => lane.forward = len,
                    Ok(Step::Discard { len }) => lane.discard = len,
                    Ok(Step::Need { need }) if need > NEED_BYTES_MAX => {
                        let what = "a frame cannot be looked at whole";
                        self.fault = Some(Fault { side, kind: FaultKind::TooLarge, what });
                        verdict = Err(End::Protocol);
                        break;
                    }
                    Ok(Step::Need { need }) => {
                        lane.need = need;
                        break;
                    }
                    Ok(Step::Hold) => {
                        lane.held = true;
                        break;
                    }
                    Ok(Step::Note(note)) => match note {
                        Note::Outcome(outcome) => {
                            let hash = taken(&mut self.hashed, outcome.ticket.ei);
                            self.rules.outcome(&self.core, &outcome, hash);
                        }
                        Note::Successes { first, count } => self.rules.successes(&self.core, first, count),
                        Note::BackendKey { pid, secret } => self.rules.backend_key(&self.control, pid, secret),
                        Note::Ready => verdict = self.rules.ready(&self.core),
                        Note::Goodbye => self.rules.goodbye = true,
                    },
                    Ok(Step::Ask(operation)) => match self.rules.ask(&self.core, &self.control, &operation) {
                        rule::Answer::Allow { ticket, position, hash } => {
                            if hash && let Some(from) = operation.text.streams_from {
                                lane.hashing = Some(Hashing::new(ticket.ei, from, operation.text.full_bytes));
                            }
                            if let Some(position) = position {
                                lane.waits = Wait::Disk(position, ticket);
                                self.core.wait_for_audit(&self.control);
                                break;
                            }
                            if let Resumed::Forward { len } = self.machine.resume(Ruling::Allow(ticket)) {
                                lane.forward = len;
                            }
                        }
                        rule::Answer::Refuse { kind, message, detail, hint } => {
                            let refusal = Refusal { kind, message, detail: &detail, hint };
                            let _ = self.machine.resume(Ruling::Refuse(refusal));
                        }
                        rule::Answer::Wait => {
                            lane.waits = Wait::Room;
                            self.core.wait_for_audit(&self.control);
                            break;
                        }
                    },
                    Err(fault) => {
                        self.fault = Some(fault);
                        verdict = Err(self.rules.violation(&self.core, &fault, &bytes[at..]));
                        break;
                    }
                }
                if verdict.is_err() {
                    break;
                }
            }
            match side {
                Side::Client => self.client.bytes_in += at as u64,
                Side::Backend => self.backend.bytes_in += at as u64,
            }
        }
        let moved = at > 0 || out.is_some();
        if at > 0 {
            // The other side moved: a lane that was held may go on.
            match side {
                Side::Client => self.down.held = false,
                Side::Backend => self.up.held = false,
            }
        }
        let (lane, sink) = match side {
            Side::Client => (&mut self.up, &mut self.backend),
            Side::Backend => (&mut self.down, &mut self.client),
        };
        if let Some(mut buf) = data.take() {
            if run > 0 && out.is_none() {
                if at < buf.len() {
                    lane.data = Some(tail(&self.core, &buf.filled()[at..], lane.need));
                }
                buf.truncate(run);
                sink.send(buf).map_err(|_| End::Error)?;
            } else {
                if run > 0 {
                    append(&mut out, &self.core, &buf.filled()[..run]);
                }
                buf.consume(at);
                lane.data = Some(buf).filter(|b| !b.is_empty());
            }
        }
        if let Some(out) = out {
            sink.send(out).map_err(|_| End::Error)?;
        }
        self.collect_answers();
        verdict.map(|()| moved)
    }

    /// Answers that the machine gave to the side it was reading from wait for a frame border of the other lane.
    fn collect_answers(&mut self) {
        self.down.answers.append(&mut self.outbox.client);
        self.up.answers.append(&mut self.outbox.backend);
    }

    /// Orders of the worker: rest, or end.
    fn obey(&mut self) {
        if self.control.rest.replace(false) && self.is_quiet() {
            self.control.resting.set(true);
            self.client.rest();
            self.backend.rest();
        }
        let Some(order) = self.control.ordered() else { return };
        if order == Order::Drain && !(self.machine.is_idle() && self.is_quiet()) {
            return;
        }
        if order == Order::Idle && self.machine.outstanding() > 0 {
            // A statement in flight is not idle (access-model 10.3).
            self.control.is_not_idle(self.rules.now_ms());
            return;
        }
        let (end, kind, message) = match order {
            Order::Idle => (End::Idle, RefusalKind::Idle, "terminating connection: idle for too long"),
            Order::Expired => {
                (End::Expired, RefusalKind::Terminated, "terminating connection: the certificate has expired")
            }
            Order::AccessLost => (End::Access, RefusalKind::Terminated, "terminating connection: access was withdrawn"),
            Order::Drain | Order::Abort => {
                (End::Drain, RefusalKind::Terminated, "terminating connection: the gateway is shutting down")
            }
            Order::Stalled => (End::Stalled, RefusalKind::Terminated, ""),
        };
        let hint = match end {
            End::Expired => "sign in again: ringgate db login",
            End::Access => "ask for access, or see: ringgate db ls",
            _ => "",
        };
        if end != End::Stalled {
            self.farewell(kind, message, hint);
        }
        self.ending = Some(end);
    }

    /// Ends the session over a fault of either side, in the machine's words.
    fn fail(&mut self, end: End) {
        if self.ending.is_some() {
            return;
        }
        match self.fault.take() {
            Some(fault) if fault.side == Side::Client => self.farewell(rule::refusal_of(&fault), fault.what, ""),
            Some(fault) => {
                self.farewell(RefusalKind::Unreachable, "the database broke the protocol", fault.what);
            }
            None if end == End::Error => self.farewell(RefusalKind::Internal, "the session cannot go on", ""),
            None if end == End::Server => self.lost_database(),
            None => {}
        }
        self.ending = Some(end);
    }

    /// The last words of the machine, if the client stands between two frames.
    fn farewell(&mut self, kind: RefusalKind, message: &str, hint: &str) {
        self.machine.refuse(&Refusal { kind, message, detail: "", hint }, &mut self.outbox);
        self.collect_answers();
        self.down.data = None;
    }

    /// The database is gone, and has not said so itself.
    fn lost_database(&mut self) {
        if !self.machine.has_parted() {
            let message = "the connection to the database was lost";
            self.farewell(RefusalKind::Unreachable, message, "connect again; the database may have restarted");
        }
    }

    /// Looks whether a side has ended. Answers whether another turn is wanted.
    fn watch_ends(&mut self) -> bool {
        if self.client.gone {
            self.ending = Some(End::Client);
            return true;
        }
        if self.client.is_done() && self.up.is_drained() && !self.backend.is_busy() {
            // What was asked is answered first, to a client that may have closed its own direction only.
            if self.machine.is_idle() {
                self.ending = Some(End::Client);
                return true;
            }
            match self.parting {
                Parting::No => {
                    self.backend.say_goodbye();
                    self.parting = Parting::Said;
                    return true;
                }
                Parting::Said => {
                    self.backend.stream().shutdown_write();
                    self.parting = Parting::Shut;
                }
                Parting::Shut => {}
            }
        }
        if self.backend.is_done() && self.down.is_drained() && !self.client.is_busy() {
            if self.rules.goodbye || self.parting != Parting::No {
                self.ending = Some(End::Client);
            } else {
                self.lost_database();
                self.ending = Some(End::Server);
            }
            return true;
        }
        false
    }

    /// Flushes what is owed to the client, and TLS' goodbye behind it.
    fn poll_last(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut ignored = None;
            self.client.poll(cx, &mut ignored);
            if self.client.gone || self.ending == Some(End::Stalled) {
                return Poll::Ready(());
            }
            match self.client.flush() {
                Err(_) => return Poll::Ready(()),
                Ok(true) => continue,
                Ok(false) => {}
            }
            if self.client.is_sending() {
                return Poll::Pending;
            }
            // In the middle of a frame there is no room for words: the client sees the close.
            if self.down.owes_answers() {
                let mut out = None;
                append(&mut out, &self.core, &std::mem::take(&mut self.down.answers));
                if out.is_some_and(|out| self.client.send(out).is_err()) {
                    return Poll::Ready(());
                }
                continue;
            }
            if std::mem::replace(&mut self.closed_tls, true) {
                return Poll::Ready(());
            }
            self.client.say_goodbye();
        }
    }

    /// After a turn in which nothing moved: looks whether a send stalls, and goes on with a rest that has begun.
    /// Answers whether the rest is over already.
    fn after(&mut self, cx: &mut Context<'_>) -> bool {
        self.watch_stall();
        if !self.control.resting.get() {
            return false;
        }
        // The receives that were cancelled end, or have got data after all; then readiness is waited for, and may be
        // there already.
        let mut moved = self.poll_ports(cx);
        self.client.wait_readable();
        self.backend.wait_readable();
        moved |= self.poll_ports(cx);
        if moved {
            self.wake_up();
        }
        moved
    }

    fn poll_ports(&mut self, cx: &mut Context<'_>) -> bool {
        let from_client = self.client.poll(cx, &mut self.up.data);
        let from_backend = self.backend.poll(cx, &mut self.down.data);
        from_client.any() | from_backend.any()
    }

    fn watch_stall(&mut self) {
        let now_ms = self.rules.now_ms();
        let (client, backend) = (self.client.watch_stall(now_ms), self.backend.watch_stall(now_ms));
        let longest = if client == 0 || backend == 0 { client.max(backend) } else { client.min(backend) };
        self.control.sending_since_ms.set(longest);
    }

    /// Nothing is on its way in either direction.
    fn is_quiet(&self) -> bool {
        let still = |lane: &Lane| lane.data.is_none() && lane.answers.is_empty() && lane.waits == Wait::No;
        still(&self.up) && still(&self.down) && self.client.holds_nothing() && self.backend.holds_nothing()
    }

    /// Closes both sockets and gives the trail back. The client's last bytes are taken first: closing with unread
    /// bytes would make the kernel send a reset, which may overtake our last words.
    pub async fn close(mut self: Box<Self>, end: End) -> Trail {
        self.client.stream().shutdown_write();
        if end != End::Stalled && !self.client.gone {
            let mut left = LINGER_RECEIVES;
            let linger = std::future::poll_fn(|cx| {
                loop {
                    let mut ignored = None;
                    let moved = self.client.poll(cx, &mut ignored);
                    self.client.forget_records();
                    left -= u32::from(moved.received);
                    if self.client.at_end || left == 0 {
                        return Poll::Ready(());
                    }
                    self.client.arm(&mut None, 1);
                    if !moved.any() && self.client.is_receiving() {
                        return Poll::Pending;
                    }
                }
            });
            // A client that does not hang up is left alone.
            let _ = crate::net::within(LINGER, linger).await;
        }
        self.rules.into_trail()
    }
}

impl Lane {
    fn is_paused(&self) -> bool {
        self.held || self.waits != Wait::No
    }

    fn has_news(&self) -> bool {
        self.data.as_ref().is_some_and(|d| d.len() >= self.need.max(1))
    }

    /// Answers may go: no frame is half sent in this direction.
    fn owes_answers(&self) -> bool {
        !self.answers.is_empty() && self.forward == 0
    }

    /// Feeds bytes that pass to the hash of their statement; its end gives index and hash.
    fn feed_hash(&mut self, bytes: &[u8]) -> Option<(u32, [u8; 32])> {
        if !self.hashing.as_mut()?.feed(bytes) {
            return None;
        }
        self.hashing.take().map(|hashing| hashing.finish())
    }

    /// Nothing is left that could be decided without more bytes.
    fn is_drained(&self) -> bool {
        self.data.as_ref().is_none_or(|d| d.len() < self.need)
    }

    fn wants_more(&self) -> bool {
        !self.is_paused() && self.data.as_ref().is_none_or(|d| d.len() < self.need)
    }
}

impl Hashing {
    fn new(ei: u32, skip: usize, left: u64) -> Box<Hashing> {
        Box::new(Hashing { context: digest::Context::new(&digest::SHA256), ei, skip: skip as u64, left })
    }

    /// Takes bytes of the frame; `true` when the text is complete.
    fn feed(&mut self, bytes: &[u8]) -> bool {
        let skip = usize::try_from(self.skip).unwrap_or(bytes.len()).min(bytes.len());
        self.skip -= skip as u64;
        let text = &bytes[skip..];
        let take = usize::try_from(self.left).unwrap_or(text.len()).min(text.len());
        self.context.update(&text[..take]);
        self.left -= take as u64;
        self.left == 0
    }

    fn finish(self) -> (u32, [u8; 32]) {
        let mut hash = [0; 32];
        hash.copy_from_slice(self.context.finish().as_ref());
        (self.ei, hash)
    }
}

fn taken(hashed: &mut VecDeque<(u32, [u8; 32])>, ei: u32) -> Option<[u8; 32]> {
    let at = hashed.iter().position(|(of, _)| *of == ei)?;
    hashed.remove(at).map(|(_, hash)| hash)
}

/// Adds bytes that no longer lie in one piece with what goes out: `run` is the piece decided so far.
fn spill(out: &mut Option<Buf>, core: &Core, run: &[u8], bytes: &[u8]) {
    append(out, core, run);
    append(out, core, bytes);
}

fn append(out: &mut Option<Buf>, core: &Core, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    core.counters.copied_bytes.fetch_add(bytes.len() as u64, Relaxed);
    let buf = out.get_or_insert_with(|| core.pool.at_least(bytes.len()));
    if buf.room() < bytes.len() {
        let mut larger = core.pool.at_least((buf.len() + bytes.len()).next_power_of_two());
        larger.append(buf.filled());
        *buf = larger;
    }
    buf.append(bytes);
}

/// The undecided rest of a buffer that is being sent, in a buffer of its own.
fn tail(core: &Core, rest: &[u8], need: usize) -> Buf {
    core.counters.copied_bytes.fetch_add(rest.len() as u64, Relaxed);
    let mut buf = if need > core.pool.large().capacity() { core.pool.at_least(need) } else { core.pool.large() };
    buf.append(rest);
    buf
}

/// Which side a fault's frame came from, as the audit says it.
pub fn side_word(fault: &Fault) -> &'static str {
    match fault.side {
        Side::Client => "client",
        Side::Backend => "server",
    }
}
