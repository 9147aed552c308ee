//! Drivers for tests and fuzzing: a machine between two scripted peers, however its input is cut.

use crate::{
    Fault, Limits, Machine, Note, Opened, Opening, Operation, Outbox, Protocol, Refusal, RefusalKind, Resumed, Ruling,
    SessionKey, Side, Step, Ticket, Verb,
};

/// The longest prefix any machine may ask to see, beside a head: `Step::Need` promises it.
const NEED_MAX: usize = crate::NEED_BYTES_MAX;

/// What became of a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    /// Every question, in words, in order.
    pub questions: Vec<String>,
    /// Every note, in words, in order.
    pub notes: Vec<String>,
    /// Every byte the client got.
    pub to_client: Vec<u8>,
    /// Every byte the database got.
    pub to_backend: Vec<u8>,
    /// Why it ended early.
    pub fault: Option<Fault>,
    /// Bytes of each side on which nothing was decided at the end: client, database.
    pub left: (usize, usize),
}

/// Whether a test allows an operation.
pub type Ruler = fn(&Operation<'_>) -> bool;

/// Allows everything.
pub fn allow_all(_: &Operation<'_>) -> bool {
    true
}

/// The refusal that scripts get.
pub const REFUSAL: Refusal<'static> = Refusal {
    kind: RefusalKind::Denied,
    message: "refused by the test",
    detail: "its rule says so",
    hint: "ask for less",
};

/// Bytes that were decided about and have not passed yet.
#[derive(Clone, Copy, Default)]
struct Passing {
    bytes: u64,
    forward: bool,
}

#[derive(Default)]
struct Lane {
    buffer: Vec<u8>,
    passing: Passing,
    /// Answers that wait for a half-sent frame in this side's own direction.
    held_answers: Vec<u8>,
}

/// A machine with both its peers.
pub struct Driver<M> {
    machine: M,
    ruler: Ruler,
    client: Lane,
    backend: Lane,
    tickets: u32,
    transcript: Transcript,
}

impl<M: Machine> Driver<M> {
    /// Starts `machine`.
    pub fn new(mut machine: M, ruler: Ruler) -> Self {
        let mut out = Outbox::default();
        machine.start(&mut out);
        let transcript = Transcript { to_client: out.client, to_backend: out.backend, ..Transcript::default() };
        Driver { machine, ruler, client: Lane::default(), backend: Lane::default(), tickets: 0, transcript }
    }

    /// The machine.
    pub fn machine(&mut self) -> &mut M {
        &mut self.machine
    }

    /// What happened so far.
    pub fn transcript(&mut self) -> &Transcript {
        self.transcript.left = (self.client.buffer.len(), self.backend.buffer.len());
        &self.transcript
    }

    /// `side` sends `bytes`.
    pub fn feed(&mut self, side: Side, bytes: &[u8]) {
        self.lane(side).buffer.extend_from_slice(bytes);
        // A hold on one side ends when the other moved.
        let mut side = side;
        let mut still = 0;
        while still < 2 && self.transcript.fault.is_none() {
            still = if self.pump(side) { 0 } else { still + 1 };
            side = side.other();
        }
    }

    fn lane(&mut self, side: Side) -> &mut Lane {
        match side {
            Side::Client => &mut self.client,
            Side::Backend => &mut self.backend,
        }
    }

    fn out(&mut self, to: Side) -> &mut Vec<u8> {
        match to {
            Side::Client => &mut self.transcript.to_client,
            Side::Backend => &mut self.transcript.to_backend,
        }
    }

    /// Moves what can be moved from `side`. Says whether anything was.
    fn pump(&mut self, side: Side) -> bool {
        let mut moved = false;
        let mut calls = 0_usize;
        loop {
            let lane = self.lane(side);
            let len = lane.buffer.len().min(usize::try_from(lane.passing.bytes).unwrap_or(usize::MAX));
            if len > 0 {
                let passed: Vec<u8> = lane.buffer.drain(..len).collect();
                lane.passing.bytes -= len as u64;
                let forward = lane.passing.forward;
                if forward {
                    self.out(side.other()).extend_from_slice(&passed);
                }
                moved = true;
            }
            let lane = self.lane(side);
            if lane.passing.bytes == 0 {
                let answers = std::mem::take(&mut self.lane(side.other()).held_answers);
                self.out(side.other()).extend_from_slice(&answers);
            }
            let lane = self.lane(side);
            if lane.buffer.is_empty() || lane.passing.bytes > 0 {
                return moved;
            }
            // Every call decides, notes or asks; only entries owed can outnumber the bytes at hand.
            calls += 1;
            assert!(calls < 1 << 20, "no progress on one buffer");
            if !self.step(side) {
                return moved;
            }
            moved = true;
        }
    }

    /// One call. Says whether it decided anything.
    fn step(&mut self, side: Side) -> bool {
        let mut out = Outbox::default();
        let input = std::mem::take(&mut self.lane(side).buffer);
        let mut asked = None;
        let mut passing = None;
        let mut went_on = true;
        match self.machine.handle(side, &input, &mut out) {
            Err(fault) => {
                self.transcript.fault = Some(fault);
                went_on = false;
            }
            Ok(Step::Need { need }) => {
                assert!(need > input.len(), "asked for {need} bytes and had {}", input.len());
                assert!(need <= NEED_MAX, "asked for {need} bytes");
                went_on = false;
            }
            Ok(Step::Hold) => went_on = false,
            Ok(Step::Forward { len }) => {
                assert!(len > 0, "forwarded nothing");
                passing = Some(Passing { bytes: len, forward: true });
            }
            Ok(Step::Discard { len }) => {
                assert!(len > 0, "dropped nothing");
                passing = Some(Passing { bytes: len, forward: false });
            }
            Ok(Step::Note(Note::Successes { first, count })) => {
                assert!(count > 0, "a run of nothing");
                // However they were cut into runs, the outcomes are the same.
                let outcomes = (0..count).map(|offset| format!("{} ok", first.ei + offset));
                self.transcript.notes.extend(outcomes);
            }
            Ok(Step::Note(note)) => self.transcript.notes.push(in_words(&note)),
            Ok(Step::Ask(operation)) => {
                self.transcript.questions.push(format!("{operation:?}"));
                asked = Some((self.ruler)(&operation));
            }
        }
        if let Some(allowed) = asked {
            self.tickets += 1;
            let ticket = Ticket { ei: self.tickets, at_us: 0 };
            if let Resumed::Forward { len } =
                self.machine.resume(if allowed { Ruling::Allow(ticket) } else { Ruling::Refuse(REFUSAL) })
            {
                assert!(allowed && len > 0, "forwarded nothing, or what was refused");
                passing = Some(Passing { bytes: len, forward: true });
            }
        }
        let (natural, answer) = match side {
            Side::Client => (out.backend, out.client),
            Side::Backend => (out.client, out.backend),
        };
        self.out(side.other()).extend_from_slice(&natural);
        if self.lane(side.other()).passing.bytes > 0 {
            self.lane(side).held_answers.extend_from_slice(&answer);
        } else {
            self.out(side).extend_from_slice(&answer);
        }
        let lane = self.lane(side);
        lane.buffer = input;
        if let Some(passing) = passing {
            lane.passing = passing;
        }
        went_on
    }
}

/// A note without what differs from machine to machine of the same kind.
fn in_words(note: &Note<'_>) -> String {
    match note {
        Note::Outcome(outcome) => format!(
            "{} {} rows {:?} code {} tag {} copied {} {:?}{}",
            outcome.ticket.ei,
            if outcome.success { "ok" } else { "failed" },
            outcome.rows,
            String::from_utf8_lossy(outcome.code),
            String::from_utf8_lossy(outcome.tag),
            outcome.copy_bytes,
            String::from_utf8_lossy(outcome.message),
            if outcome.skipped { " skipped" } else { "" },
        ),
        other => format!("{other:?}"),
    }
}

/// Runs `script`, each message of it cut into pieces of the sizes that `sizes` gives.
pub fn run<M: Machine>(
    machine: M,
    ruler: Ruler,
    script: &[(Side, &[u8])],
    mut sizes: impl FnMut(usize) -> usize,
) -> Transcript {
    let mut driver = Driver::new(machine, ruler);
    for (side, bytes) in script {
        let mut rest = *bytes;
        while !rest.is_empty() {
            let (piece, others) = rest.split_at(sizes(rest.len()).clamp(1, rest.len()));
            driver.feed(*side, piece);
            rest = others;
        }
    }
    driver.transcript().clone()
}

/// Runs `script` whole, byte by byte, cut in two at every position, and cut at random; questions, notes,
/// forwarded bytes and what the machine says itself must be equal each time. Returns them.
pub fn check_splits<M: Machine>(fresh: impl Fn() -> M, ruler: Ruler, script: &[(Side, &[u8])]) -> Transcript {
    let whole = run(fresh(), ruler, script, |len| len);
    let check = |what: &str, transcript: Transcript| {
        assert_eq!(whole.questions, transcript.questions, "questions, {what}");
        assert_eq!(whole.notes, transcript.notes, "notes, {what}");
        assert_eq!(whole.fault, transcript.fault, "fault, {what}");
        assert!(whole.to_client == transcript.to_client, "bytes to the client, {what}");
        assert!(whole.to_backend == transcript.to_backend, "bytes to the database, {what}");
    };
    check("byte by byte", run(fresh(), ruler, script, |_| 1));
    let total: usize = script.iter().map(|(_, bytes)| bytes.len()).sum();
    // Every position where that is affordable, evenly spread ones in long scripts.
    for at in (1..total).step_by((total / 1500).max(1)) {
        let mut seen = 0;
        check(
            &format!("cut at {at}"),
            run(fresh(), ruler, script, |left| {
                let len = if seen < at && at < seen + left { at - seen } else { left };
                seen += len;
                len
            }),
        );
    }
    for seed in 1..16 {
        let mut random = Random(seed);
        check(&format!("random {seed}"), run(fresh(), ruler, script, |_| random.below(40) + 1));
    }
    whole
}

/// A small generator, so that a failure repeats.
#[derive(Clone, Copy, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        // splitmix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound.max(1) as u64).unwrap_or(0)
    }

    /// Bytes, up to `max` of them.
    pub fn bytes(&mut self, max: usize) -> Vec<u8> {
        let len = self.below(max + 1);
        (0..len).map(|_| u8::try_from(self.below(256)).unwrap_or(0)).collect()
    }
}

pub mod fuzz_mysql;

/// The bodies of the fuzz targets. Each takes any bytes and must not panic.
pub mod fuzz {
    use super::{Driver, Limits, Opened, Opening, Operation, Protocol, Random, SessionKey, Side, Verb, check_cut};
    use crate::postgres::Postgres;
    use crate::{BackendTls, Credential, Login, LoginStep, SignIn};

    /// The front of a client connection; the first byte chooses the channel.
    pub fn opening(data: &[u8]) {
        let Some((&mode, input)) = data.split_first() else { return };
        let mut opening = Postgres::opening(&[], [0; 32]);
        if mode & 1 != 0 {
            opening.offer_no_tls();
        }
        let (mut at, mut tls) = (0, mode & 2 != 0);
        let mut out = Vec::new();
        loop {
            let rest = &input[at..];
            match opening.handle(rest, tls, &mut out) {
                Err(fault) => {
                    assert_eq!(opening.handle(rest, tls, &mut out).err(), Some(fault), "another error the second time");
                    return;
                }
                Ok(Opened::Need { need }) => {
                    assert!(need > rest.len() && need <= 10_000, "asked for {need} bytes");
                    return;
                }
                Ok(Opened::Answered { len }) => at += len,
                Ok(Opened::StartTls { len }) => {
                    assert!(!tls, "TLS in TLS");
                    at += len;
                    tls = true;
                }
                Ok(Opened::DirectTls) => {
                    assert!(!tls, "TLS in TLS");
                    return;
                }
                Ok(Opened::Startup { len, startup }) => {
                    assert!(len <= rest.len() && !startup.user.is_empty() && startup.user.len() <= 63);
                    assert!(tls || mode & 1 != 0, "a session without TLS");
                    return;
                }
                Ok(Opened::Cancel { len, secret, .. }) => {
                    assert!(len <= rest.len() && (4..=256).contains(&secret.len()));
                    return;
                }
            }
        }
    }

    /// An opening that has read a plain StartupMessage.
    pub fn opened(extra: &[(&str, &str)]) -> crate::postgres::PostgresOpening {
        let mut message = vec![0, 0, 0, 0, 0, 3, 0, 0];
        for (name, value) in [("user", "alice"), ("database", "app")].iter().chain(extra) {
            message.extend_from_slice(name.as_bytes());
            message.push(0);
            message.extend_from_slice(value.as_bytes());
            message.push(0);
        }
        message.push(0);
        message[3] = u8::try_from(message.len()).unwrap_or(0);
        let mut opening = Postgres::opening(&[], [0; 32]);
        opening.offer_no_tls();
        let opened = opening.handle(&message, false, &mut Vec::new());
        assert!(matches!(opened, Ok(Opened::Startup { .. })), "the message above is well-formed");
        drop(opened);
        opening
    }

    /// A login; the first byte chooses credential and TLS.
    pub fn login(data: &[u8]) {
        let Some((&mode, input)) = data.split_first() else { return };
        let credential = match mode % 3 {
            0 => Credential::None,
            1 => Credential::Password("secret".into()),
            _ => Credential::Scram("secret".into()),
        };
        let tls = if mode & 128 == 0 { BackendTls::Off } else { BackendTls::Required };
        let mut login = Postgres::login(
            &opened(&[]),
            SignIn { user: "alice", database: "app", tls, credential, seed: [7; 32], learned: None },
        );
        let mut out = Vec::new();
        login.start(&mut out);
        let (mut at, mut tls_up) = (0, tls == BackendTls::Off);
        loop {
            let rest = &input[at..];
            match login.handle(rest, &mut out) {
                Err(error) => {
                    assert!(tls_up || error.frame.is_empty(), "an error was relayed from before TLS");
                    assert_eq!(login.handle(rest, &mut out).err().map(|again| again.fault), Some(error.fault));
                    break;
                }
                Ok(LoginStep::Need { need }) => {
                    assert!(need > rest.len() && need <= 64 * 1024, "asked for {need} bytes");
                    break;
                }
                Ok(LoginStep::Consumed { len }) => at += len,
                Ok(LoginStep::StartTls { len }) => {
                    at += len;
                    tls_up = true;
                    login.tls_started(&mut out);
                }
                Ok(LoginStep::Ready { len }) => {
                    assert!(tls_up && len <= rest.len());
                    break;
                }
            }
        }
        if tls == BackendTls::Required {
            assert!(!out.windows(6).any(|window| window == b"secret") || tls_up, "a password outside TLS");
        }
    }

    /// A session machine with a small window, so that cut-through is reached by short inputs.
    pub fn machine(replication: bool) -> <Postgres as Protocol>::Machine {
        let opening = opened(if replication { &[("replication", "database")] } else { &[] });
        let login = Postgres::login(
            &opening,
            SignIn {
                user: "alice",
                database: "app",
                tls: BackendTls::Off,
                credential: Credential::None,
                seed: [0; 32],
                learned: None,
            },
        );
        let key = SessionKey { pid: 4711, secret: [0xab; 32] };
        Postgres::machine(
            opening,
            login,
            key,
            Limits { frame_bytes_max: 1 << 20, text_bytes_max: 64, ..Limits::default() },
        )
    }

    fn rule(operation: &Operation<'_>) -> bool {
        let dropped = operation.verb == Verb::Query && operation.text.head.starts_with(b"drop");
        !dropped && !operation.statement.starts_with(b"no")
    }

    /// Any bytes from a client, whole and cut.
    pub fn session_client(data: &[u8]) {
        check_cut(|| machine(data.len().is_multiple_of(2)), rule, &[(Side::Client, data)]);
    }

    /// Any bytes from a database behind a pipeline of every message, whole and cut.
    pub fn session_backend(data: &[u8]) {
        let pipeline = b"Q\0\0\0\x05\0P\0\0\0\x09n\0x\0\0\0\0B\0\0\0\x0d\0n\0\0\0\0\0\0\0D\0\0\0\x06P\0E\0\0\0\x09\0\0\0\0\0C\0\0\0\x06S\0S\0\0\0\x04\
            F\0\0\0\x0e\0\0\0\x01\0\0\0\0\0\0P\0\0\0\x0ano\0x\0\0\0S\0\0\0\x04";
        let ready: &[u8] = b"Z\0\0\0\x05I";
        let script: [(Side, &[u8]); 3] = [(Side::Backend, ready), (Side::Client, pipeline), (Side::Backend, data)];
        check_cut(|| machine(data.len().is_multiple_of(2)), rule, &script);
        let mut driver = Driver::new(machine(false), rule);
        driver.feed(Side::Backend, data);
        while driver.machine().take_unanswered().is_some() {}
    }

    /// A few hundred bytes that look like frames of the given types.
    pub fn frames(random: &mut Random, tags: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..random.below(12) {
            let body = random.bytes(24);
            bytes.push(tags[random.below(tags.len())]);
            let lie = if random.below(20) == 0 { random.below(64) } else { body.len() + 4 };
            bytes.extend_from_slice(&u32::try_from(lie).unwrap_or(0).to_be_bytes());
            bytes.extend(body.iter().map(|byte| if random.below(2) == 0 { 0 } else { *byte }));
        }
        bytes
    }

    use crate::Machine as _;
}

/// Runs `script` whole, byte by byte and at random. For fuzzing, where every cut would take too long.
fn check_cut<M: Machine>(fresh: impl Fn() -> M, ruler: Ruler, script: &[(Side, &[u8])]) {
    let whole = run(fresh(), ruler, script, |len| len);
    let mut random = Random(script.iter().map(|(_, bytes)| bytes.len() as u64).sum());
    for transcript in [run(fresh(), ruler, script, |_| 1), run(fresh(), ruler, script, |_| random.below(9) + 1)] {
        assert_eq!(whole.questions, transcript.questions);
        assert_eq!(whole.notes, transcript.notes);
        assert_eq!(whole.fault, transcript.fault);
        assert!(whole.to_client == transcript.to_client && whole.to_backend == transcript.to_backend);
    }
}

/// Reads a golden capture: lines `C: bytes` and `B: bytes` with `\xNN` escapes, and comments.
///
/// # Panics
/// When the text is not of that form.
#[must_use]
pub fn capture(text: &str) -> Vec<(Side, Vec<u8>)> {
    let line = |line: &str| {
        let (side, bytes) = match line.split_at(3) {
            ("C: ", bytes) => (Side::Client, bytes),
            ("B: ", bytes) => (Side::Backend, bytes),
            (mark, _) => unreachable!("direction mark {mark:?}"),
        };
        let mut pieces = bytes.split("\\x");
        let mut out = pieces.next().unwrap_or_default().as_bytes().to_vec();
        for piece in pieces {
            let (hex, rest) = piece.split_at(2);
            out.extend(u8::from_str_radix(hex, 16));
            out.extend_from_slice(rest.as_bytes());
        }
        (side, out)
    };
    text.lines().filter(|text| !text.starts_with('#') && !text.is_empty()).map(line).collect()
}

/// The bodies of the fuzz targets of Redis. Each takes any bytes and must not panic.
pub mod fuzz_redis {
    use std::sync::Arc;

    use super::{Driver, Limits, Opened, Opening, Operation, Protocol, SessionKey, Side, allow_all, check_cut};
    use crate::redis::{CommandTable, Redis};
    use crate::{BackendTls, Command, Credential, Login, LoginStep, Machine as _, SignIn};

    /// The front of a client connection; the first byte chooses the channel.
    pub fn opening(data: &[u8]) {
        let Some((&mode, input)) = data.split_first() else { return };
        let mut opening = Redis::opening(&[], [0; 32]);
        if mode & 1 != 0 {
            opening.offer_no_tls();
        }
        let tls = mode & 2 != 0;
        match opening.handle(input, tls, &mut Vec::new()) {
            Err(fault) => assert_eq!(opening.handle(input, tls, &mut Vec::new()).err(), Some(fault)),
            Ok(Opened::Need { need }) => {
                assert!(need > input.len() && need <= super::NEED_MAX, "asked for {need} bytes")
            }
            Ok(Opened::DirectTls) => assert!(!tls, "TLS in TLS"),
            Ok(Opened::Startup { len, .. }) => assert!(len == 0 && (tls || mode & 1 != 0), "a session without TLS"),
            Ok(other) => unreachable!("{other:?}"),
        }
    }

    /// A login; the first byte chooses the credential.
    pub fn login(data: &[u8]) {
        let Some((&mode, input)) = data.split_first() else { return };
        let credential = match mode % 3 {
            0 => Credential::None,
            1 => Credential::Password("secret".into()),
            _ => Credential::Passthrough,
        };
        let sign_in = SignIn {
            user: "alice",
            database: if mode & 128 == 0 { "" } else { "1" },
            tls: BackendTls::Off,
            credential,
            seed: [0; 32],
            learned: (mode & 64 != 0).then(|| Arc::new(CommandTable::default())),
        };
        let mut login = Redis::login(&Redis::opening(&[], [0; 32]), sign_in);
        let mut out = Vec::new();
        login.start(&mut out);
        let mut at = 0;
        while at < input.len() {
            let rest = &input[at..];
            match login.handle(rest, &mut out) {
                Err(error) => {
                    assert!(error.frame.is_empty());
                    assert_eq!(login.handle(rest, &mut out).err().map(|again| again.fault), Some(error.fault));
                    return;
                }
                Ok(LoginStep::Need { need }) => {
                    assert!(need > rest.len() && need <= super::NEED_MAX, "asked for {need} bytes");
                    return;
                }
                Ok(LoginStep::Consumed { len }) => at += len,
                Ok(LoginStep::Ready { len }) => {
                    assert!(len <= rest.len());
                    return;
                }
                Ok(LoginStep::StartTls { .. }) => unreachable!("TLS is up before the login"),
            }
        }
    }

    fn machine(credential: Credential) -> crate::redis::RedisMachine {
        let opening = Redis::opening(&[], [0; 32]);
        let learned = Some(Arc::new(CommandTable::default()));
        let (user, tls) = ("alice", BackendTls::Off);
        let sign_in = SignIn { user, database: "", tls, credential, seed: [0; 32], learned };
        let login = Redis::login(&opening, sign_in);
        let limits = Limits { frame_bytes_max: 1 << 20, text_bytes_max: 64, ..Limits::default() };
        Redis::machine(opening, login, SessionKey { pid: 4711, secret: [0xab; 32] }, limits)
    }

    /// Looks at all that a caller may look at, and refuses keys that begin with `no`.
    fn rule(operation: &Operation<'_>) -> bool {
        let Command::Redis(command) = operation.command else { unreachable!("every operation is a command") };
        assert!(command.values().count() <= command.arguments() as usize);
        let mut untold = false;
        let allowed = command.keys().all(|key| {
            assert!(!untold, "a key behind one that cannot be told");
            untold = key.is_err();
            key.is_ok_and(|key| !key.bytes.starts_with(b"no")) || untold
        });
        allowed && command.name() != "FLUSHALL"
    }

    /// Any bytes from a client, whole and cut.
    pub fn session_client(data: &[u8]) {
        check_cut(|| machine(Credential::None), rule, &[(Side::Client, data)]);
        check_cut(|| machine(Credential::Passthrough), allow_all, &[(Side::Client, data)]);
    }

    /// Any bytes from a server behind a pipeline of everything that changes how replies are read.
    pub fn session_backend(data: &[u8]) {
        let mut pipeline = Vec::new();
        let commands: [&[&[u8]]; 14] = [
            &[b"GET", b"a"],
            &[b"GET", b"no"],
            &[b"SUBSCRIBE", b"a", b"b"],
            &[b"UNSUBSCRIBE"],
            &[b"MULTI"],
            &[b"GET", b"a"],
            &[b"DISCARD"],
            &[b"HELLO", b"3"],
            &[b"CLIENT", b"REPLY", b"SKIP"],
            &[b"GET", b"a"],
            &[b"RESET"],
            &[b"SSUBSCRIBE", b"s"],
            &[b"MONITOR"],
            &[b"QUIT"],
        ];
        for command in commands {
            crate::redis::write_command(command, &mut pipeline);
        }
        let fresh = || machine(Credential::Password("secret".into()));
        let script: [(Side, &[u8]); 2] = [(Side::Client, &pipeline), (Side::Backend, data)];
        check_cut(fresh, rule, &script);
        let mut driver = Driver::new(fresh(), rule);
        driver.feed(Side::Client, &pipeline);
        driver.feed(Side::Backend, data);
        while driver.machine().take_unanswered().is_some() {}
    }
}
