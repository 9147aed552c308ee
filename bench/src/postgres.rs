//! A PostgreSQL session past its sign-in, and the bytes of a prepared query.

use std::hint::black_box;

use ringgate_protocol::postgres::{Postgres, PostgresMachine};
use ringgate_protocol::{
    BackendTls, Credential, Limits, Machine, Opened, Opening, Outbox, Protocol, Ruling, SessionKey, Side, SignIn, Step,
    Ticket,
};

/// What `pgbench -S` prepares.
pub const TEXT: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = $1;";

/// A session that passes everything, as the pump would, and counts.
pub struct Session {
    machine: PostgresMachine,
    out: Outbox,
    ticket: Ticket,
}

/// The bytes of one execution of a prepared statement with one parameter and one row.
pub struct PreparedQuery {
    /// What the client sends: Bind, Execute, Sync.
    pub client: Vec<u8>,
    /// What the database answers: BindComplete, DataRow, CommandComplete, ReadyForQuery.
    pub backend: Vec<u8>,
}

/// A frame of type `tag`.
pub fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a short body");
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

/// A DataRow of one column that is `bytes` long on the wire, 11 at least.
pub fn data_row(bytes: usize) -> Vec<u8> {
    let value = vec![b'7'; bytes - 11];
    let length = u32::try_from(value.len()).expect("a short value");
    frame(b'D', &[&[0, 1], &length.to_be_bytes()[..], &value].concat())
}

impl PreparedQuery {
    /// With a Describe of the portal, as libpq sends one, or without.
    pub fn new(describe: bool) -> PreparedQuery {
        let bind = frame(b'B', b"\0P_0\0\0\0\0\x01\0\0\0\x045817\0\0");
        let describe_portal = frame(b'D', b"P\0");
        let row_description = frame(b'T', b"\0\x01abalance\0\0\0\x40\0\0\x03\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0");
        let execute = frame(b'E', b"\0\0\0\0\0");
        let row = frame(b'D', b"\0\x01\0\0\0\x05-1204");
        let ends = [frame(b'C', b"SELECT 1\0"), frame(b'Z', b"I")].concat();
        let of = |first: &[u8], described: Vec<u8>, second: &[u8], last: &[u8]| {
            [first, if describe { &described } else { &[] }, second, last].concat()
        };
        PreparedQuery {
            client: of(&bind, describe_portal, &execute, &frame(b'S', b"")),
            backend: of(&frame(b'2', b""), row_description, &row, &ends),
        }
    }
}

impl Session {
    /// Signed in, with [`TEXT`] prepared as `P_0`.
    pub fn new() -> Session {
        let startup = b"\0\0\0\x23\0\x03\0\0user\0alice\0database\0bench\0\0";
        let mut opening = Postgres::opening(&[], [0; 32]);
        opening.offer_no_tls();
        let opened = opening.handle(startup, false, &mut Vec::new()).expect("a well-formed startup");
        assert!(matches!(opened, Opened::Startup { .. }));
        let login = Postgres::login(
            &opening,
            SignIn {
                user: "alice",
                database: "bench",
                tls: BackendTls::Off,
                credential: Credential::None,
                seed: [0; 32],
                learned: None,
            },
        );
        let key = SessionKey { pid: 4711, secret: [7; 32] };
        let mut machine = Postgres::machine(opening, login, key, Limits::default());
        let mut out = Outbox::default();
        machine.start(&mut out);
        let mut session = Session { machine, out, ticket: Ticket::default() };
        session.pass(Side::Backend, &frame(b'Z', b"I"));
        let parse = frame(b'P', format!("P_0\0{TEXT}\0\0\0").as_bytes());
        session.pass(Side::Client, &[parse, frame(b'S', b"")].concat());
        session.pass(Side::Backend, &[frame(b'1', b""), frame(b'Z', b"I")].concat());
        session
    }

    /// A session whose database is in the middle of a result.
    pub fn in_rows() -> Session {
        let mut session = Session::new();
        session.pass(Side::Client, &frame(b'Q', b"TABLE t\0"));
        session.pass(Side::Backend, &frame(b'T', b"\0\x01n\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0"));
        session
    }

    /// Takes all of `input` through the machine, allows what is asked, and says how many steps it took.
    pub fn pass(&mut self, from: Side, mut input: &[u8]) -> u32 {
        let mut steps = 0;
        while !input.is_empty() {
            steps += 1;
            // Nothing is taken out of the answer by value: its moves would be measured too.
            let asked = match &self.machine.handle(from, input, &mut self.out) {
                Ok(Step::Forward { len }) => {
                    input = usize::try_from(*len).ok().and_then(|len| input.get(len..)).expect("whole frames");
                    continue;
                }
                Ok(Step::Ask(operation)) => {
                    black_box(operation);
                    true
                }
                Ok(Step::Note(note)) => {
                    black_box(note);
                    false
                }
                other => panic!("did not pass: {other:?}"),
            };
            if asked {
                self.ticket.ei = self.ticket.ei.wrapping_add(1);
                let _ = self.machine.resume(Ruling::Allow(self.ticket));
            }
        }
        steps
    }

    /// Takes a query and its answer through.
    pub fn query(&mut self, query: &PreparedQuery) -> u32 {
        self.pass(Side::Client, &query.client) + self.pass(Side::Backend, &query.backend)
    }

    /// Statements whose outcome has not been seen.
    pub fn outstanding(&self) -> usize {
        self.machine.outstanding()
    }
}

impl Default for Session {
    fn default() -> Session {
        Session::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_length_asked_for() {
        for bytes in [11, 16, 100, 1000] {
            assert_eq!(data_row(bytes).len(), bytes);
        }
    }

    #[test]
    fn a_prepared_query_is_asked_about_noted_and_settled() {
        for describe in [false, true] {
            let query = PreparedQuery::new(describe);
            let mut session = Session::new();
            // Ask and Forward of Bind and of Execute, Forward of Sync and of Describe.
            assert_eq!(session.pass(Side::Client, &query.client), 5 + u32::from(describe));
            assert_eq!(session.outstanding(), 1);
            // BindComplete to DataRow together; the outcome and CommandComplete; ReadyForQuery.
            assert_eq!(session.pass(Side::Backend, &query.backend), 4);
            assert_eq!(session.outstanding(), 0);
        }
    }

    #[test]
    fn a_buffer_of_rows_is_one_step() {
        assert_eq!(Session::in_rows().pass(Side::Backend, &data_row(100).repeat(300)), 1);
    }
}
