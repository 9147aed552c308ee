//! The pump: bytes in at one socket, ruled by the protocol's machine, out at the other.
//!
//! ```text
//! client  --recv-->  [ lane up   ]  --send-->  backend
//!                        machine + policy + audit
//! client  <--send--  [ lane down ]  <--recv--  backend
//! ```
//!
//! A received buffer is ruled on in place and sent from where it lies. A lane's bytes are only ruled on when its
//! sink is free: a slow reader stops its own lane and nothing else, and a session never holds more than two buffers
//! in each direction, and none when nothing is under way. Bytes are copied in user space only when a frame was cut
//! by the end of a buffer (its rest moves to the next one) and when the machine rewrites (what follows in that
//! buffer joins the rewritten bytes).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Instant;

use ringgate_audit::Refused;
use ringgate_protocol::{
    Fault, FaultKind, Machine, NEED_BYTES_MAX, Note, Outbox, Refusal, RefusalKind, Resumed, Ruling, Side, Step,
};

use super::lane::{Hashes, Lane, Wait, append, spill, tail};
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
    hashes: Hashes,
    yielding: Option<Yield>,
    /// Set when the session ends; what is still owed to the client is flushed first.
    ending: Option<End>,
    parting: Parting,
    /// By when the start of the session must be on record.
    start_by: Instant,
    /// Our own goodbye of TLS was said to the client.
    closed_tls: bool,
    fault: Option<Fault>,
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
        let start_by = backend.deadline;
        let (client, up) = Port::new(client, &core.pool);
        let (backend, down) = Port::new(backend, &core.pool);
        let mut pump = Pump {
            machine,
            client,
            backend,
            up: Lane::new(up),
            down: Lane::new(down),
            outbox: Outbox::default(),
            rules,
            core,
            control,
            hashes: Hashes::default(),
            yielding: None,
            ending: None,
            parting: Parting::No,
            start_by,
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
        let parked = std::mem::take(&mut self.up.parked_tickets);
        let message: &[u8] = b"connection lost before the reply ended";
        while let Some(ticket) = self.machine.take_unanswered() {
            if !parked.contains(&ticket) {
                self.rules.unanswered(&self.core, ticket, message);
            }
        }
        for ticket in parked {
            self.rules.not_forwarded(&self.core, ticket);
        }
        self.rules.trail.bytes_in = self.client.bytes_in;
        self.rules.trail.bytes_out = self.client.bytes_out;
        self.core.counters.of(self.rules.trail.served).server_in.fetch_add(self.backend.bytes_in, Relaxed);
        self.core.counters.of(self.rules.trail.served).server_out.fetch_add(self.backend.bytes_out, Relaxed);
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
            if !moved || self.is_settled() {
                self.watch_stall();
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
        self.obey();
        if self.ending.is_some() {
            return true;
        }
        for side in [Side::Client, Side::Backend] {
            match self.advance(cx, side) {
                Ok(advanced) => moved |= advanced,
                Err(end) => {
                    self.fail(end);
                    return true;
                }
            }
        }
        if moved {
            self.control.active_ms.set(self.rules.now_ms());
        }
        moved | self.watch_ends()
    }

    /// Moves the lane that begins at `side`: decrypt, rule, send, ask for more.
    fn advance(&mut self, cx: &mut Context<'_>, side: Side) -> Result<bool, End> {
        let (source, sink, lane) = match side {
            Side::Client => (&mut self.client, &mut self.backend, &mut self.up),
            Side::Backend => (&mut self.backend, &mut self.client, &mut self.down),
        };
        let mut moved = sink.flush().map_err(|_| End::Error)?;
        let goes_on = match lane.waits {
            Wait::No => false,
            Wait::Room => self.rules.has_room(&self.core),
            Wait::Start => match self.rules.ready(&self.core) {
                Ok(()) => true,
                Err(Refused::Full) if Instant::now() < self.start_by => false,
                Err(_) => return Err(End::Error),
            },
            Wait::Disk(position) => match self.rules.is_on_disk(&self.core, position) {
                None => false,
                Some(true) if sink.is_busy() => false,
                Some(true) => {
                    lane.parked_tickets.clear();
                    if let Some(buf) = lane.parked.take() {
                        sink.send(buf).map_err(|_| End::Error)?;
                    }
                    true
                }
                // The machine has let them pass already: what a log that broke meanwhile cannot hold is not sent,
                // and the session ends with that.
                Some(false) => return Err(End::Error),
            },
        };
        if goes_on {
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
        if lane.wants_more() {
            moved |= source.want(cx, &mut lane.data, lane.need.max(1));
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
        // The newest record that what goes out has to wait for.
        let mut newest = None;
        if let Some(buf) = data.as_ref().filter(|_| !lane.is_paused()) {
            let bytes = buf.filled();
            lane.need = 0;
            while at < bytes.len() {
                let left = bytes.len() - at;
                if lane.forward > 0 {
                    let n = usize::try_from(lane.forward).unwrap_or(left).min(left);
                    lane.feed_hash(&bytes[at..at + n], &mut self.hashes);
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
                            let hash = self.hashes.take(outcome.ticket.ei);
                            self.rules.outcome(&self.core, &self.control, &outcome, hash);
                        }
                        Note::Successes { first, count } => {
                            self.rules.successes(&self.core, &self.control, first, count);
                        }
                        Note::BackendKey { pid, secret } => {
                            self.rules.backend_key(&self.core, &self.control, pid, secret)
                        }
                        Note::Ready => match self.rules.ready(&self.core) {
                            Ok(()) => {}
                            Err(refused) => {
                                lane.waits = Wait::Start;
                                self.core.wait_for_audit(&self.control);
                                if refused != Refused::Full {
                                    verdict = Err(End::Error);
                                }
                                break;
                            }
                        },
                        Note::Goodbye => self.rules.goodbye = true,
                    },
                    Ok(Step::Ask(operation)) => match self.rules.ask(&self.core, &self.control, &operation) {
                        rule::Answer::Allow { ticket, position, hash, killed } => {
                            if hash && let Some(from) = operation.text.streams_from {
                                lane.hash(ticket.ei, from, operation.text.full_bytes);
                            }
                            if position.is_some() {
                                lane.parked_tickets.push(ticket);
                                newest = position;
                            }
                            let ruling = killed.map_or(Ruling::Allow(ticket), |id| Ruling::AllowKill(ticket, id));
                            if let Resumed::Forward { len } = self.machine.resume(ruling) {
                                lane.forward = len;
                            }
                        }
                        rule::Answer::Refuse { kind, message, detail, hint } => {
                            let refusal = Refusal { kind, message: &message, detail: &detail, hint };
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
                out = Some(buf);
            } else {
                if run > 0 {
                    append(&mut out, &self.core, &buf.filled()[..run]);
                }
                buf.consume(at);
                lane.data = Some(buf).filter(|b| !b.is_empty());
            }
        }
        match newest {
            // One wait for all that one receive brought: the newest record is on disk after all before it.
            Some(position) => {
                lane.waits = Wait::Disk(position);
                lane.parked = out;
                self.core.wait_for_audit(&self.control);
            }
            None => {
                if let Some(out) = out {
                    sink.send(out).map_err(|_| End::Error)?;
                }
            }
        }
        self.collect_answers();
        verdict.map(|()| moved)
    }

    /// Answers that the machine gave to the side it was reading from wait for a frame border of the other lane.
    fn collect_answers(&mut self) {
        self.down.answers.append(&mut self.outbox.client);
        self.up.answers.append(&mut self.outbox.backend);
    }

    /// Orders of the worker to end.
    fn obey(&mut self) {
        let Some(order) = self.control.ordered() else { return };
        if order == Order::Drain && !(self.machine.is_idle() && self.is_quiet()) {
            return;
        }
        if order == Order::Idle && (self.machine.outstanding() > 0 || self.machine.is_listening()) {
            // A statement in flight is not idle (access-model 10.3), nor is a subscriber.
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
            None if self.down.waits == Wait::Start || !self.up.parked_tickets.is_empty() => {
                let Refusal { kind, message, hint, .. } = rule::unrecorded(&self.core, self.rules.trail.served);
                self.farewell(kind, message, hint);
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
            self.client.poll(cx, &mut ignored, 1);
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

    /// Both sides wait for bytes and nothing is under way: another turn would find nothing to do.
    fn is_settled(&self) -> bool {
        self.is_quiet() && !self.up.held && !self.down.held && self.client.is_at_rest() && self.backend.is_at_rest()
    }

    fn poll_ports(&mut self, cx: &mut Context<'_>) -> bool {
        let from_client = self.client.poll(cx, &mut self.up.data, self.up.need.max(1));
        let from_backend = self.backend.poll(cx, &mut self.down.data, self.down.need.max(1));
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
        self.up.is_still() && self.down.is_still() && self.client.holds_nothing() && self.backend.holds_nothing()
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
                    let moved = self.client.poll(cx, &mut ignored, 1);
                    let received = moved.received | self.client.want(cx, &mut ignored, 1);
                    self.client.forget_records();
                    left -= u32::from(received);
                    if self.client.at_end || left == 0 {
                        return Poll::Ready(());
                    }
                    if !received {
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

/// Which side a fault's frame came from, as the audit says it.
pub fn side_word(fault: &Fault) -> &'static str {
    match fault.side {
        Side::Client => "client",
        Side::Backend => "server",
    }
}
