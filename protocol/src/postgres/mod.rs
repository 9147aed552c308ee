//! PostgreSQL, protocol 3.0 and 3.2.
//!
//! ```text
//! client                      gateway                          database
//!   | SSLRequest ---------------> |                               |
//!   | <------------------------ S |                               |
//!   | ======== TLS, client certificate ========                   |
//!   | StartupMessage -----------> |  [startup: who wants what]    |
//!   |                             | SSLRequest -----------------> |
//!   |                             | <-------------------------- S |
//!   |                             | ============ TLS ============ |
//!   |                             | StartupMessage (3.2) -------> |
//!   |                             | <--- NegotiateProtocolVersion |
//!   |                             | <-- Authentication..., SCRAM  |
//!   |                             | <----------- AuthenticationOk |
//!   | <- NegotiateProtocolVersion |  [machine: from here on]      |
//!   | <--------- AuthenticationOk |                               |
//!   | <--------------------------------------- ParameterStatus... |
//!   | <-- BackendKeyData (ours)   | <------------- BackendKeyData |
//!   | <-------------------------------------------- ReadyForQuery |
//!   | Query, Parse, Bind... ----> | [a ruling each] ------------> |
//!   | <------------------- RowDescription, DataRow..., ErrorResponse |
//!   | Terminate ----------------> | ----------------------------> |
//! ```
//!
//! Served: TLS by request and at once, simple, extended and function-call cycles, pipelining, COPY in all
//! modes, replication where the startup asked for it, notices and notifications, cancel requests.
//!
//! Refused: GSSAPI encryption (answered `N`), protocol versions other than 3, channel binding, password
//! messages after sign-in, and every message type not in the specification.
//!
//! ## What the audit can and cannot know
//! - A Query or Parse longer than [`Limits::text_bytes_max`] is ruled on by its prefix and streamed. Its
//!   last bytes are not seen before the first are sent: that the text ends with its NUL is then checked
//!   by the server alone. `full_bytes` of such a Parse counts to the end of the frame, as if it declared
//!   no parameter types.
//! - Prepared text is resolved by name. `PREPARE`, `DEALLOCATE` and `DISCARD` make names forgotten, as
//!   seen in the first word of a text and in command tags. The same inside a procedure is not seen.
//! - PostgreSQL keeps 63 bytes of a name. A longer one makes its first 63 bytes unknown, so that no text
//!   is ever put down to the wrong statement.

mod answering;
mod asking;
mod auth;
mod backend;
mod client;
mod error;
mod head;
mod machine;
mod prepared;
mod queue;
mod startup;
#[cfg(test)]
mod tests;

pub use auth::PostgresLogin;
pub use machine::PostgresMachine;
pub use startup::PostgresOpening;

use std::sync::Arc;

use crate::{DirectTls, Limits, Protocol, Refusal, SessionKey, SignIn};

/// The PostgreSQL protocol.
#[derive(Clone, Copy, Debug)]
pub struct Postgres;

impl Protocol for Postgres {
    const NAME: &'static str = "postgres";
    const PORT: u16 = 5432;
    const DIRECT_TLS: DirectTls = DirectTls::WithAlpn(b"postgresql");
    const TLS_REQUEST: &'static [u8] = &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
    type Opening = PostgresOpening;
    type Login = PostgresLogin;
    type Machine = PostgresMachine;
    type Learned = ();

    fn opening(_learned: &[Arc<()>], _seed: [u8; 32]) -> PostgresOpening {
        PostgresOpening::default()
    }

    /// The seed is not used: the SCRAM implementation draws its own nonce.
    fn login(opening: &PostgresOpening, sign_in: SignIn<'_, ()>) -> PostgresLogin {
        PostgresLogin::new(opening, sign_in.user, sign_in.database, sign_in.tls, sign_in.credential)
    }

    fn learned(_login: &PostgresLogin) -> Option<Arc<()>> {
        None
    }

    fn machine(opening: PostgresOpening, login: PostgresLogin, key: SessionKey, limits: Limits) -> PostgresMachine {
        drop(login);
        PostgresMachine::new(&opening, key, limits)
    }

    /// Spec: "Message Formats", CancelRequest. `secret` is the one that came with BackendKeyData.
    fn cancel(pid: u32, secret: &[u8], out: &mut Vec<u8>) {
        let len = u32::try_from(12 + secret.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&80_877_102u32.to_be_bytes());
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(secret);
    }

    fn refuse(_opening: &mut PostgresOpening, refusal: &Refusal<'_>, out: &mut Vec<u8>) {
        error::fatal(refusal, out);
    }
}
