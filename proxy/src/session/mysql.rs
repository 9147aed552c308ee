//! MySQL commands judged beyond their class, and the events they are recorded as.
//!
//! A session may name a database or a user again: COM_INIT_DB, COM_CHANGE_USER. The first is judged where names are
//! enforced; the second is never a change of the user, and its database is judged like the first's.

use ringgate_audit::event::{Event, MysqlCommand, Statement};
use ringgate_protocol::mysql::{MysqlVerb, Value};
use ringgate_protocol::{Operation, RefusalKind, Verb};

use super::authorize;
use super::parameters::Bound;
use crate::worker::{Control, Core};

/// A command refused whatever its class.
pub struct Refused {
    /// The class of the refusal.
    pub kind: RefusalKind,
    /// For the client.
    pub message: String,
    /// For the audit.
    pub detail: String,
}

/// Whether the command may name the user and the database that it does.
pub fn check(core: &Core, control: &Control, operation: &Operation<'_>, enforces_names: bool) -> Result<(), Refused> {
    if let Verb::Mysql(MysqlVerb::Unknown { code }) = operation.verb {
        return Err(Refused {
            kind: RefusalKind::Unsupported,
            message: "this command is not served through the gateway".to_owned(),
            detail: format!("command {code:#04x} is not in the table of commands"),
        });
    }
    let about = &control.about;
    if operation.verb == Verb::Authenticate && operation.user != about.db_user.as_bytes() {
        let user = String::from_utf8_lossy(operation.user);
        return Err(Refused {
            kind: RefusalKind::NotAuthorized,
            message: "access denied: the certificate is for another database user".to_owned(),
            detail: format!("the certificate is for database user {:?}, not {user:?}", about.db_user),
        });
    }
    if !enforces_names || operation.database.is_empty() {
        return Ok(());
    }
    let name = String::from_utf8_lossy(operation.database);
    let snapshot = core.policy.borrow().current().clone();
    authorize::permit_for(about, &snapshot, &about.db_user, &name).map(drop).map_err(|why| Refused {
        kind: RefusalKind::Denied,
        message: format!("access denied to database '{name}'"),
        detail: why,
    })
}

/// The database's own id of the connection that a KILL names by the id that we told its client. `None`: it goes to the
/// database as it is, which knows of no such connection.
pub fn killed(core: &Core, control: &Control, verb: Verb) -> Option<u32> {
    let (Verb::Mysql(MysqlVerb::KillText { process }) | Verb::Mysql(MysqlVerb::ProcessKill { process })) = verb else {
        return None;
    };
    core.plane.connection_of(process, &control.about.identity.user, &control.about.service)
}

/// Whether the command has a record at all: what only asks how the server is has none.
pub fn is_recorded(verb: MysqlVerb) -> bool {
    !matches!(verb, MysqlVerb::FieldList | MysqlVerb::ProcessInfo | MysqlVerb::Statistics)
}

/// Whether the command may change data or structure, as far as that does not hang on its text.
pub fn is_housekeeping(verb: MysqlVerb) -> bool {
    use MysqlVerb::{Close, Fetch, InitDb, Reset, SendLongData};
    matches!(verb, Close { .. } | Fetch { .. } | InitDb | Reset { .. } | SendLongData { .. })
}

/// What a command without a text is called in a record of its refusal.
pub fn name_of(verb: Verb) -> &'static [u8] {
    let Verb::Mysql(verb) = verb else { return b"" };
    match verb {
        MysqlVerb::SendLongData { .. } => b"COM_STMT_SEND_LONG_DATA",
        MysqlVerb::Execute { .. } => b"COM_STMT_EXECUTE",
        MysqlVerb::BulkExecute { .. } => b"COM_STMT_BULK_EXECUTE",
        MysqlVerb::Close { .. } => b"COM_STMT_CLOSE",
        MysqlVerb::Reset { .. } => b"COM_STMT_RESET",
        MysqlVerb::Fetch { .. } => b"COM_STMT_FETCH",
        MysqlVerb::Shutdown => b"COM_SHUTDOWN",
        MysqlVerb::ProcessKill { .. } => b"COM_PROCESS_KILL",
        MysqlVerb::Debug => b"COM_DEBUG",
        MysqlVerb::Refresh { .. } => b"COM_REFRESH",
        MysqlVerb::ProcessInfo => b"COM_PROCESS_INFO",
        MysqlVerb::Statistics => b"COM_STATISTICS",
        MysqlVerb::BinlogDump => b"COM_BINLOG_DUMP",
        MysqlVerb::RegisterReplica => b"COM_REGISTER_SLAVE",
        MysqlVerb::Unknown { .. } => b"(unknown command)",
        MysqlVerb::Prepare
        | MysqlVerb::InitDb
        | MysqlVerb::CreateDb
        | MysqlVerb::DropDb
        | MysqlVerb::KillText { .. }
        | MysqlVerb::FieldList
        | MysqlVerb::LocalInfile => b"",
    }
}

/// The event of a command.
pub fn event<'a>(verb: MysqlVerb, statement: Statement<'a>, bound: &'a Bound<'a>) -> Event<'a> {
    let command = match verb {
        MysqlVerb::Prepare => MysqlCommand::Prepare,
        MysqlVerb::Execute { statement } => MysqlCommand::Execute { statement },
        MysqlVerb::SendLongData { statement, parameter, bytes } => {
            MysqlCommand::SendLongData { statement, parameter, bytes }
        }
        MysqlVerb::Close { statement } => MysqlCommand::Close { statement },
        MysqlVerb::Reset { statement } => MysqlCommand::Reset { statement },
        MysqlVerb::Fetch { statement, rows } => MysqlCommand::Fetch { statement, rows },
        MysqlVerb::BulkExecute { statement } => MysqlCommand::BulkExecute { statement },
        MysqlVerb::InitDb => MysqlCommand::InitDb,
        MysqlVerb::CreateDb => MysqlCommand::CreateDb,
        MysqlVerb::DropDb => MysqlCommand::DropDb,
        MysqlVerb::Shutdown => MysqlCommand::ShutDown,
        MysqlVerb::ProcessKill { process } => MysqlCommand::ProcessKill { process },
        MysqlVerb::Debug => MysqlCommand::Debug,
        MysqlVerb::Refresh { what } => MysqlCommand::Refresh { what },
        MysqlVerb::BinlogDump | MysqlVerb::RegisterReplica => MysqlCommand::Replication,
        MysqlVerb::LocalInfile => MysqlCommand::LocalInfile,
        MysqlVerb::KillText { .. }
        | MysqlVerb::FieldList
        | MysqlVerb::ProcessInfo
        | MysqlVerb::Statistics
        | MysqlVerb::Unknown { .. } => return Event::Query { statement, parameters: bound, error: "" },
    };
    Event::Mysql { command, statement, parameters: bound }
}

/// The event of a COM_CHANGE_USER.
pub fn change_user<'a>(operation: &Operation<'a>, bound: &'a Bound<'a>) -> Event<'a> {
    let text = operation.database;
    let statement = Statement { text, full_bytes: text.len() as u64, sha256: None, query_type: "" };
    Event::Mysql { command: MysqlCommand::ChangeUser, statement, parameters: bound }
}

/// Walks the values of an execute.
pub fn walk(
    bound: &ringgate_protocol::mysql::Bound<'_>,
    value_bytes_max: usize,
    each: &mut dyn FnMut(ringgate_audit::event::Parameter<'_>),
) {
    use ringgate_audit::event::Parameter;
    for value in bound.values() {
        match value {
            Value::Null => each(Parameter::Null),
            Value::Int(number) => each(Parameter::Int(number)),
            Value::Float(number) => each(Parameter::Float(number)),
            Value::Text(bytes) | Value::Bytes(bytes) if bytes.len() > value_bytes_max => {
                each(Parameter::Cut(bytes.len() as u64));
            }
            Value::Text(bytes) => each(Parameter::Text(bytes)),
            Value::Bytes(bytes) => each(Parameter::Binary(bytes)),
            Value::Unsigned(number) => match i64::try_from(number) {
                Ok(number) => each(Parameter::Int(number)),
                Err(_) => spelled(value, each),
            },
            _ => spelled(value, each),
        }
    }
}

/// A value in the spelling of SQL, made in place.
fn spelled(value: Value<'_>, each: &mut dyn FnMut(ringgate_audit::event::Parameter<'_>)) {
    use std::io::Write as _;
    let mut room = [0u8; 64];
    let mut out = std::io::Cursor::new(&mut room[..]);
    // The longest is a TIME of 26 letters.
    if write!(out, "{value}").is_ok() {
        let len = usize::try_from(out.position()).unwrap_or(0);
        each(ringgate_audit::event::Parameter::Text(room.get(..len).unwrap_or_default()));
    }
}

/// The types of an execute's values, where values are not recorded.
pub fn walk_types(
    bound: &ringgate_protocol::mysql::Bound<'_>,
    each: &mut dyn FnMut(ringgate_audit::event::Parameter<'_>),
) {
    for kind in bound.types.chunks_exact(2) {
        each(ringgate_audit::event::Parameter::TypeOnly(u32::from(kind[0])));
    }
}

#[cfg(test)]
mod tests {
    use ringgate_audit::event::Parameter;

    use super::*;

    fn walked(bound: &ringgate_protocol::mysql::Bound<'_>) -> Vec<String> {
        let mut out = Vec::new();
        walk(bound, 4, &mut |value| {
            out.push(match value {
                Parameter::Text(text) => String::from_utf8_lossy(text).into_owned(),
                other => format!("{other:?}"),
            });
        });
        out
    }

    #[test]
    fn values_are_told_as_the_audit_has_them() {
        // LONG 7, unsigned BIGINT of the most, VARCHAR "hi", DATE, NULL, VARCHAR of five letters.
        let types = [3, 0, 8, 0x80, 253, 0, 10, 0, 3, 0, 253, 0];
        let mut values = vec![7, 0, 0, 0];
        values.extend([0xff; 8]);
        values.extend([2, b'h', b'i']);
        values.extend([4, 0xea, 7, 11, 20]);
        values.extend([5, b'h', b'e', b'l', b'l', b'o']);
        let bound = ringgate_protocol::mysql::Bound {
            count: 6,
            types: &types,
            nulls: &[0b1_0000],
            values: &values,
            ..Default::default()
        };
        let expected = ["Int(7)", "18446744073709551615", "hi", "2026-11-20", "Null", "Cut(5)"];
        assert_eq!(walked(&bound), expected);
    }

    #[test]
    fn a_value_that_ends_early_hides_those_behind_it() {
        let types = [3, 0, 3, 0];
        let bound = ringgate_protocol::mysql::Bound {
            count: 2,
            types: &types,
            nulls: &[0],
            values: &[1, 0, 0, 0, 2],
            cut: true,
            ..Default::default()
        };
        assert_eq!(walked(&bound), ["Int(1)"]);
    }
}
