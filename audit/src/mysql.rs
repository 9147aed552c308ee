//! Lines of MySQL commands (access-model section 11.2).
use crate::encode::Cursor;
use crate::facts::Session;
use crate::fields::{Fields, key};
use crate::line::{Naming, fixed, statement};
use crate::text::Text;

/// Event and code of the command with this number.
pub(crate) fn naming(which: u8) -> Option<Naming<'static>> {
    Some(match which {
        0 => fixed!("db.session.mysql.statements.prepare", "TMY00I"),
        1 => fixed!("db.session.mysql.statements.execute", "TMY01I"),
        2 => fixed!("db.session.mysql.statements.send_long_data", "TMY02I"),
        3 => fixed!("db.session.mysql.statements.close", "TMY03I"),
        4 => fixed!("db.session.mysql.statements.reset", "TMY04I"),
        5 => fixed!("db.session.mysql.statements.fetch", "TMY05I"),
        6 => fixed!("db.session.mysql.statements.bulk_execute", "TMY06I"),
        7 => fixed!("db.session.mysql.init_db", "TMY07I"),
        8 => fixed!("db.session.mysql.create_db", "TMY08I"),
        9 => fixed!("db.session.mysql.drop_db", "TMY09I"),
        10 => fixed!("db.session.mysql.shut_down", "TMY10I"),
        11 => fixed!("db.session.mysql.process_kill", "TMY11I"),
        12 => fixed!("db.session.mysql.debug", "TMY12I"),
        13 => fixed!("db.session.mysql.refresh", "TMY13I"),
        14 => fixed!("db.session.mysql.change_user", "TMY14I"),
        20 => fixed!("db.session.mysql.replication", "TMY20I"),
        21 => fixed!("db.session.mysql.local_infile", "TMY21I"),
        _ => return None,
    })
}

/// What such a line says beside its name.
pub(crate) fn fields(f: &mut Fields<'_>, body: &mut Cursor<'_>, ei: u32, session: Option<&mut Session>) -> Option<()> {
    let which = body.u8()?;
    let (id, number, bytes) = (u64::from(body.u32()?), u64::from(body.u32()?), body.u64()?);
    if (1..=6).contains(&which) {
        f.number(key!("statement_id"), id);
    }
    match which {
        2 => {
            f.number(key!("parameter_id"), number);
            f.number(key!("data_size"), bytes);
        }
        5 => f.number(key!("rows_count"), number),
        11 => f.number(key!("process_id"), number),
        13 => f.number(key!("subcommand"), number),
        _ => {}
    }
    let text = Text::read(body)?;
    match which {
        0 => statement(f, &text, key!("query"), None, ei, session)?,
        1 | 5 | 6 => statement(f, &text, key!("db_query"), Some(body), ei, session)?,
        7..=9 | 14 => f.text(key!("schema_name"), text.shown()),
        21 => f.text(key!("file_name"), text.shown()),
        _ => {}
    }
    Some(())
}
