//! What a command asks for, as policy and audit see it.

use crate::Class;

/// A command of MySQL beside COM_QUERY, which is [`crate::Verb::Query`], and COM_CHANGE_USER, which is
/// [`crate::Verb::Authenticate`]: chooses the audit event. Names and texts are in [`crate::Operation::text`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MysqlVerb {
    /// COM_STMT_PREPARE (TMY00I).
    Prepare,
    /// COM_STMT_EXECUTE (TMY01I). The text is that of its prepare.
    Execute {
        /// Statement id.
        statement: u32,
    },
    /// COM_STMT_SEND_LONG_DATA (TMY02I). The database answers nothing.
    SendLongData {
        /// Statement id.
        statement: u32,
        /// Parameter, from 0.
        parameter: u16,
        /// Bytes of data, as far as the first packet says.
        bytes: u64,
    },
    /// COM_STMT_CLOSE (TMY03I). The database answers nothing.
    Close {
        /// Statement id.
        statement: u32,
    },
    /// COM_STMT_RESET (TMY04I).
    Reset {
        /// Statement id.
        statement: u32,
    },
    /// COM_STMT_FETCH (TMY05I).
    Fetch {
        /// Statement id.
        statement: u32,
        /// Rows asked for.
        rows: u32,
    },
    /// COM_STMT_BULK_EXECUTE of MariaDB (TMY06I).
    BulkExecute {
        /// Statement id.
        statement: u32,
    },
    /// COM_INIT_DB (TMY07I): the text is the name, as is [`crate::Operation::database`].
    InitDb,
    /// COM_CREATE_DB (TMY08I): the text is the name.
    CreateDb,
    /// COM_DROP_DB (TMY09I): the text is the name.
    DropDb,
    /// COM_SHUTDOWN (TMY10I).
    Shutdown,
    /// COM_PROCESS_KILL (TMY11I).
    ProcessKill {
        /// Connection id as the client named it. From 2^31 up it is one that we handed out.
        process: u32,
    },
    /// A COM_QUERY whose text is nothing but `KILL [QUERY|CONNECTION] id` with an id that we handed out
    /// (a TDB02I).
    KillText {
        /// Connection id as we handed it out.
        process: u32,
    },
    /// COM_DEBUG (TMY12I).
    Debug,
    /// COM_REFRESH (TMY13I).
    Refresh {
        /// What is to be refreshed, a set of bits.
        what: u8,
    },
    /// COM_FIELD_LIST. The text is the table.
    FieldList,
    /// COM_PROCESS_INFO.
    ProcessInfo,
    /// COM_STATISTICS.
    Statistics,
    /// COM_BINLOG_DUMP and COM_BINLOG_DUMP_GTID (TMY20I).
    BinlogDump,
    /// COM_REGISTER_SLAVE (TMY20I).
    RegisterReplica,
    /// The database asks the client for a file, in answer to its LOAD DATA LOCAL (TMY21I). The text is the
    /// file's name. Asked about on the database's side.
    LocalInfile,
    /// A command that is not served. Refused with 1047 whatever the ruling.
    Unknown {
        /// The command's code.
        code: u8,
    },
}

impl MysqlVerb {
    /// The class that policy judges it by (access-model 5.8).
    pub const fn class(self) -> Class {
        match self {
            MysqlVerb::Prepare
            | MysqlVerb::Execute { .. }
            | MysqlVerb::SendLongData { .. }
            | MysqlVerb::Close { .. }
            | MysqlVerb::Reset { .. }
            | MysqlVerb::Fetch { .. }
            | MysqlVerb::BulkExecute { .. } => Class::Prepared,
            MysqlVerb::CreateDb
            | MysqlVerb::DropDb
            | MysqlVerb::Shutdown
            | MysqlVerb::ProcessKill { .. }
            | MysqlVerb::Debug
            | MysqlVerb::Refresh { .. } => Class::Admin,
            MysqlVerb::BinlogDump | MysqlVerb::RegisterReplica => Class::Replication,
            MysqlVerb::LocalInfile => Class::LocalInfile,
            MysqlVerb::InitDb
            | MysqlVerb::KillText { .. }
            | MysqlVerb::FieldList
            | MysqlVerb::ProcessInfo
            | MysqlVerb::Statistics
            | MysqlVerb::Unknown { .. } => Class::Query,
        }
    }
}
