//! Wire formats and the state machines that read them.
//!
//! Nothing here owns a socket, a clock, a thread or a runtime. A machine is handed bytes and answers
//! what may happen to them: pass them on, drop them, ask for a ruling, record an outcome, wait. The
//! caller moves the bytes. What a machine wants to say itself it appends to an [`Outbox`].
//!
//! Every protocol implements the same contract, [`machine`]: an [`Opening`] that reads a client until
//! it is known who wants what, a [`Login`] that signs in to the database with the gateway's own
//! credential, and a [`Machine`] that rules the frames in between. The framings it was judged against:
//!
//! | Framing | Head | Where the contract holds it |
//! |---|---|---|
//! | PostgreSQL | tag and length; the first message has no tag; the TLS answer is one byte | `Opening` and `Machine` are separate types |
//! | MySQL | 24-bit length and sequence, continued at the maximum; the server speaks first, with a version | `Protocol::opening` is given what logins [learned](Protocol::Learned), `Opening::start`, [`Step::Forward`] beyond the buffer |
//! | RESP | no total length: tokens, nested arrays | [`Step::Need`] counts bytes, `Machine` keeps what is left to read between calls |
//! | MongoDB | 16-byte head, replies matched by request id, not by order | `Ticket` travels through the machine, not through the pump |
//!
//! | Protocol | State |
//! |---|---|
//! | PostgreSQL 3.0 and 3.2 | [`postgres`] |
//! | MySQL 5.7 to 9, MariaDB 10.2 and later | [`mysql`] |
//! | Redis RESP2 and RESP3 | [`redis`] |
#![forbid(unsafe_code)]

pub mod fault;
pub mod machine;
pub mod mysql;
pub mod postgres;
pub mod redis;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod wire;

pub use fault::{Fault, FaultKind, Refusal, RefusalKind};
pub use machine::{
    Afterword, BackendTls, Class, Command, Credential, DirectTls, Heard, Limits, Login, LoginError, LoginStep, Machine,
    NEED_BYTES_MAX, Note, Opened, Opening, Operation, Outbox, Outcome, Parameters, Protocol, Resumed, Ruling,
    SessionKey, Side, SignIn, Startup, Step, Text, Ticket, Verb,
};
