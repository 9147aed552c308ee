//! MySQL and MariaDB, protocol 10 with the parts that 4.1 brought.
//!
//! ```text
//! client                      gateway                          database
//!   | <---------------- HandshakeV10 |  [startup: our greeting]      |
//!   | SSLRequest ------------------> |                               |
//!   | ========== TLS, client certificate ==========                  |
//!   | HandshakeResponse41 ---------> |  [who wants what]             |
//!   |                                | <--------------- HandshakeV10 |
//!   |                                | SSLRequest -----------------> |
//!   |                                | ============ TLS ============ |
//!   |                                | HandshakeResponse41 --------> |
//!   |                                | <- AuthSwitch, AuthMoreData.. |
//!   |                                | <------------------------- OK |
//!   | <- AuthSwitch or AuthMoreData  |  [machine: from here on]      |
//!   | <-------------------------- OK |                               |
//!   | COM_QUERY, COM_STMT_... -----> | [a ruling each] ------------> |
//!   | <---------------------- OK, ERR, results, definitions, rows... |
//!   | COM_QUIT --------------------> | ----------------------------> |
//! ```
//!
//! Served: every command of MySQL 5.7 to 9 and MariaDB 10.2 to 12 but those below; prepared statements with
//! cursors and long data, several statements and results, LOAD DATA LOCAL, replication as far as a replica
//! reads, MariaDB's bulk executes, progress reports and cached metadata, commands of any length.
//!
//! Refused: compression (not offered), COM_TABLE_DUMP, COM_CLONE and every code not in the table (1047),
//! authentication by the client beside its certificate, a COM_CHANGE_USER to another user (1045),
//! acknowledgements of semi-synchronous replicas.
//!
//! ## One command at a time
//! A client may send commands ahead; they wait until the one before is answered. See [`MysqlMachine`].
//!
//! ## What the audit can and cannot know
//! - A text longer than [`Limits::text_bytes_max`] is ruled on by its prefix and streamed. Of a command of
//!   16 MiB and more, `full_bytes` and the hash are those of its first packet.
//! - A statement prepared by text (`PREPARE name FROM`) is executed by text, and both are recorded so.
//! - Values of an execute are decoded where the types are known: from the execute itself, or from the one
//!   before it. Types that were forgotten (256 KiB per session) leave the values out.
//! - `USE x` and qualified names are text; only COM_INIT_DB, COM_CHANGE_USER and the sign-in name a database
//!   by themselves.
//! - After a COM_CHANGE_USER without a database the session stays in the one it was in: COM_RESET_CONNECTION,
//!   which carries it out, cannot leave it.

mod answering;
mod asking;
mod auth;
mod backend;
mod capability;
mod client;
mod error;
mod greeting;
mod head;
mod machine;
mod parameters;
mod prepared;
mod scramble;
mod startup;
#[cfg(test)]
mod tests;
mod verb;

pub use auth::MysqlLogin;
pub use greeting::MysqlServer;
pub use machine::MysqlMachine;
pub use parameters::{Bound, Value, Values};
pub use startup::MysqlOpening;
pub use verb::MysqlVerb;

use std::sync::Arc;

use crate::{DirectTls, Limits, Protocol, Refusal, SessionKey, SignIn};

/// The MySQL protocol, of MariaDB too.
#[derive(Clone, Copy, Debug)]
pub struct Mysql;

impl Protocol for Mysql {
    const NAME: &'static str = "mysql";
    const PORT: u16 = 3306;
    const TLS_REQUEST: &'static [u8] = &[];
    const TLS_FOLLOWS_AT_ONCE: bool = true;
    /// A client that begins with TLS has not seen the greeting. Nothing it sends is taken for TLS.
    const DIRECT_TLS: DirectTls = DirectTls::Never;
    type Opening = MysqlOpening;
    type Login = MysqlLogin;
    type Machine = MysqlMachine;
    type Learned = MysqlServer;

    /// Greets with what all of `learned` can do, and as what every server is while that is empty.
    fn opening(learned: &[Arc<MysqlServer>], seed: [u8; 32]) -> MysqlOpening {
        MysqlOpening::new(learned, &seed)
    }

    /// The seed is not used: nonces are the server's. Nor is what was learned: every server says it anew.
    fn login(opening: &MysqlOpening, sign_in: SignIn<'_, MysqlServer>) -> MysqlLogin {
        MysqlLogin::new(opening, sign_in.user, sign_in.database, sign_in.tls, sign_in.credential)
    }

    /// As soon as the greeting was read. To be kept even when the sign-in then failed for a capability that the
    /// database lacks: the next greeting leaves it out.
    fn learned(login: &MysqlLogin) -> Option<Arc<MysqlServer>> {
        login.server().map(|server| Arc::new(server.clone()))
    }

    fn told_id(opening: &MysqlOpening) -> Option<u32> {
        Some(opening.id())
    }

    /// `key` is not used: the connection id was told in the greeting.
    fn machine(opening: MysqlOpening, login: MysqlLogin, _key: SessionKey, limits: Limits) -> MysqlMachine {
        MysqlMachine::new(&opening, &login, limits)
    }

    /// Nothing: a statement is stopped by KILL, over a connection of its own.
    fn cancel(_pid: u32, _secret: &[u8], _out: &mut Vec<u8>) {}

    fn refuse(opening: &mut MysqlOpening, refusal: &Refusal<'_>, out: &mut Vec<u8>) {
        opening.refuse(refusal, out);
    }
}
