//! A Redis session past its login, with a role's commands as a bit set and an audit log behind it.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use ringgate_audit::{Event, NoParameters, Parameter, Parameters};
use ringgate_protocol::redis::{CommandTable, Redis, RedisMachine, builtin};
use ringgate_protocol::{
    BackendTls, Command, Credential, Limits, Machine, Note, Opened, Opening, Operation, Outbox, Protocol, Resumed,
    Ruling, SessionKey, Side, SignIn, Step, Ticket,
};

use crate::log::Log;

/// A small command.
pub const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$5\r\nkey:1\r\n";
/// Its answer.
pub const ANSWER: &[u8] = b"$3\r\nxxx\r\n";

/// Which commands of the built-in table a role permits.
#[derive(Clone, Copy)]
pub struct Permitted([u64; 16]);

impl Permitted {
    /// Every one but those of the class `@dangerous`.
    pub fn but_dangerous() -> Permitted {
        let mut set = [0_u64; 16];
        for (index, known) in builtin().iter().enumerate() {
            let dangerous = known.categories.words().any(|word| word == "dangerous");
            if let Some(word) = set.get_mut(index / 64) {
                *word |= u64::from(!dangerous) << (index % 64);
            }
        }
        Permitted(set)
    }

    #[inline]
    fn has(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }
}

/// A session that parses, rules and records as the gateway's pump does, and sends nothing anywhere.
pub struct Session {
    machine: RedisMachine,
    out: Outbox,
    permitted: Permitted,
    log: Log,
    recorded: u64,
}

impl Session {
    /// Logged in; its log lies under `parent`.
    pub fn start(parent: &Path) -> Session {
        let mut opening = Redis::opening(&[], [0; 32]);
        opening.offer_no_tls();
        let opened = opening.handle(GET, false, &mut Vec::new()).expect("a well-formed command");
        assert!(matches!(opened, Opened::Startup { .. }));
        let sign_in = SignIn {
            user: "default",
            database: "",
            tls: BackendTls::Off,
            credential: Credential::None,
            seed: [0; 32],
            learned: Some(Arc::new(CommandTable::default())),
        };
        let login = Redis::login(&opening, sign_in);
        let key = SessionKey { pid: 1, secret: [7; 32] };
        let mut machine = Redis::machine(opening, login, key, Limits::default());
        let mut out = Outbox::default();
        machine.start(&mut out);
        Session { machine, out, permitted: Permitted::but_dangerous(), log: Log::start(parent), recorded: 0 }
    }

    /// Takes all of `input` through the machine: rules on what is asked, records it, and records what came of it.
    pub fn pass(&mut self, from: Side, mut input: &[u8]) {
        while !input.is_empty() {
            // Nothing is taken out of the answer by value: its moves would be measured too.
            match &self.machine.handle(from, input, &mut self.out) {
                Ok(Step::Forward { len }) => {
                    input = usize::try_from(*len).ok().and_then(|len| input.get(len..)).expect("whole frames");
                }
                Ok(Step::Ask(operation)) => {
                    let ei = self.recorded as u32;
                    self.recorded += 1;
                    assert!(judge(&self.permitted, operation), "a permitted command");
                    record(&mut self.log, operation);
                    if let Resumed::Forward { len } = self.machine.resume(Ruling::Allow(Ticket { ei, at_us: 0 })) {
                        input = usize::try_from(len).ok().and_then(|len| input.get(len..)).expect("whole frames");
                    }
                }
                Ok(Step::Note(Note::Successes { first, count })) => {
                    let results = Event::Results { first_ei: first.ei, count: *count, duration_us: 41 };
                    black_box(self.log.record(&results));
                }
                Ok(Step::Note(Note::Ready)) => {}
                other => panic!("did not pass: {other:?}"),
            }
        }
    }

    /// Waits until the log's ring has room for a thousand records.
    pub fn make_room(&mut self) {
        self.log.make_room();
    }

    /// Commands whose answer has not been seen.
    pub fn outstanding(&self) -> usize {
        self.machine.outstanding()
    }
}

#[inline]
fn judge(permitted: &Permitted, operation: &Operation<'_>) -> bool {
    let Command::Redis(command) = &operation.command else { return false };
    command.id().is_some_and(|id| permitted.has(usize::from(id.0)))
}

#[inline]
fn record(log: &mut Log, operation: &Operation<'_>) {
    let Command::Redis(command) = &operation.command else { return };
    let event = Event::Command {
        name: command.name().as_bytes(),
        keys: &Keys(command),
        arguments: command.arguments(),
        argument_bytes: command.argument_bytes(),
        values: &NoParameters,
        error: "",
    };
    black_box(log.record(&event));
}

/// The keys of a command, for the record.
struct Keys<'c, 'a>(&'c ringgate_protocol::redis::Command<'a>);

impl Parameters for Keys<'_, '_> {
    fn walk(&self, each: &mut dyn FnMut(Parameter<'_>)) {
        for key in self.0.keys() {
            each(key.map_or(Parameter::Null, |key| Parameter::Text(key.bytes)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_recorded_and_every_answer_settles_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut session = Session::start(dir.path());
        session.pass(Side::Client, &GET.repeat(100));
        assert_eq!(session.outstanding(), 100);
        session.pass(Side::Backend, &ANSWER.repeat(100));
        assert_eq!((session.outstanding(), session.recorded), (0, 100));
    }

    #[test]
    fn dangerous_commands_are_not_permitted() {
        let permitted = Permitted::but_dangerous();
        let place = |name: &str| builtin().iter().position(|known| known.name == name).expect("a known name");
        assert!(permitted.has(place("GET")) && !permitted.has(place("FLUSHALL")));
    }
}
