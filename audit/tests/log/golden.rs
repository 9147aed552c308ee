//! One line per event, byte for byte.
use ringgate_audit::{Event, Mode, NoParameters, Parameter, Statement, start};

use crate::support::{T0, facts, lines, options, query, stamp, statement};

/// The line without what differs from run to run.
fn plain(line: &str) -> String {
    let at = line.find("\"uid\":\"").unwrap() + 7;
    let uid = &line[at..at + 36];
    let parsed = uuid::Uuid::parse_str(uid).unwrap();
    assert_eq!(parsed.get_version_num(), 7, "{uid}");
    line.replace(uid, "U")
}

const SESSION: &str = concat!(
    r#""cluster_name":"gw","server_id":"gw-1","worker":0,"sid":"0192f3e1-aa00-7000-8000-000000000001","user":"al\"ice","#,
    r#""user_kind":"human","access_requests":["r-1"],"db_service":"my-postgres","db_protocol":"postgres","#,
    r#""db_uri":"postgres.internal:5432","db_user":"alice","db_name":"mydb","addr.remote":"10.0.3.7:51402""#
);

#[test]
fn every_event_has_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let (mut producers, control, handle) = start(options(dir.path(), Mode::Strict), 1, Vec::new()).unwrap();
    let p = &mut producers[0];
    let requests = ["r-1".to_owned()];
    let roles = ["dev".to_owned(), "ops".to_owned()];
    let mut about = facts("al\"ice");
    about.access_requests = &requests;
    about.roles = &roles;
    let slot = p.open_session(&about).unwrap();
    let values = [
        Parameter::Null,
        Parameter::Text(b"a\nb"),
        Parameter::Text(b"\xff"),
        Parameter::Binary(b"\x00\x01"),
        Parameter::Int(-7),
        Parameter::Float(1.5),
        Parameter::Bool(true),
        Parameter::TypeOnly(23),
        Parameter::Cut(70000),
        Parameter::Float(f64::NAN),
    ];
    let values = &values[..];
    let cut = Statement { text: b"select 'aa", full_bytes: 99, sha256: Some([0xab; 32]), query_type: "SELECT" };
    let secret = Statement { text: b"alter role a password 'hunter2'", full_bytes: 99, ..cut };
    let (one, unknown) = (&[Parameter::Text(b"user:1")][..], &[Parameter::Null][..]);
    let two = &[Parameter::Text(b"\xff"), Parameter::Cut(70000)][..];
    let ab = "ab".repeat(32);
    let table: Vec<(Event<'_>, &str, &str, String)> = vec![
        (
            Event::SessionStart { error: "", message: "", user_agent: "psql", backend_pid: 77, parameters: &[("DateStyle", "ISO")] },
            "db.session.start",
            "TDB00I",
            r#""success":true,"user_agent":"psql","postgres_pid":77,"roles":["dev","ops"],"cert_serial":"0a1b","startup_parameters":{"DateStyle":"ISO"}"#.into(),
        ),
        (
            Event::SessionStart { error: "role dev: db_users", message: "access denied", user_agent: "", backend_pid: 0, parameters: &[] },
            "db.session.start",
            "TDB00W",
            r#""success":false,"error":"role dev: db_users","message":"access denied","user_agent":"","roles":["dev","ops"],"cert_serial":"0a1b","startup_parameters":{}"#.into(),
        ),
        (
            query(b"select * from sample"),
            "db.session.query",
            "TDB02I",
            r#""success":true,"db_query":"select * from sample","db_query_parameters":[],"query_type":"SELECT","truncated":false"#.into(),
        ),
        (
            Event::Query { statement: statement(b"drop table x"), parameters: &NoParameters, error: "rule ddl" },
            "db.session.query.failed",
            "TDB02W",
            r#""success":false,"error":"rule ddl","db_query":"drop table x","db_query_parameters":[],"query_type":"SELECT","truncated":false"#.into(),
        ),
        (
            Event::Query { statement: cut, parameters: &NoParameters, error: "" },
            "db.session.query",
            "TDB02I",
            format!(r#""success":true,"db_query":"select 'aa","db_query_parameters":[],"query_type":"SELECT","truncated":true,"query_bytes":99,"query_sha256":"{ab}""#),
        ),
        (
            Event::Query { statement: secret, parameters: &NoParameters, error: "" },
            "db.session.query",
            "TDB02I",
            r#""success":true,"db_query":"alter role a password '***'","db_query_parameters":[],"query_type":"SELECT","truncated":true,"query_bytes":99,"masked":true"#.into(),
        ),
        (
            Event::Result { query_ei: 5, success: false, rows: None, duration_us: 9, code: b"42601", error: b"near \"hunter2\"", copy_bytes: 0, query_sha256: Some([1; 32]), skipped: false, warnings: 0 },
            "db.session.result",
            "TDB10I",
            r#""query_ei":5,"success":false,"duration_us":9,"error_code":"42601","error":"***","masked":true"#.into(),
        ),
        (
            Event::Result { query_ei: 2, success: true, rows: Some(10), duration_us: 812, code: b"", error: b"", copy_bytes: 0, query_sha256: None, skipped: false, warnings: 0 },
            "db.session.result",
            "TDB10I",
            r#""query_ei":2,"success":true,"rows":10,"duration_us":812"#.into(),
        ),
        (
            Event::Result { query_ei: 4, success: false, rows: Some(0), duration_us: 1, code: b"25P02", error: b"near \"x\"", copy_bytes: 5, query_sha256: Some([0xab; 32]), skipped: true, warnings: 0 },
            "db.session.result",
            "TDB10I",
            format!(r#""query_ei":4,"success":false,"rows":0,"duration_us":1,"error_code":"25P02","error":"near \"x\"","copy_bytes":5,"query_sha256":"{ab}","skipped":true"#),
        ),
        (
            Event::Query { statement: Statement { query_type: "", ..statement(b"\xff\xfe") }, parameters: &NoParameters, error: "" },
            "db.session.query",
            "TDB02I",
            r#""success":true,"db_query":"//4=","encoding":"base64","db_query_parameters":[],"truncated":false"#.into(),
        ),
        (
            Event::Command { name: b"GET", keys: &one, arguments: 1, argument_bytes: 6, values: &NoParameters, error: "" },
            "db.session.query",
            "TDB02I",
            r#""success":true,"db_query":"GET","keys":["user:1"],"arguments":1,"argument_bytes":6"#.into(),
        ),
        (
            Event::Command { name: b"EVAL", keys: &unknown, arguments: 3, argument_bytes: 70001, values: &two, error: "" },
            "db.session.query",
            "TDB02I",
            r#""success":true,"db_query":"EVAL","keys":[null],"arguments":3,"argument_bytes":70001,"db_query_parameters":["base64:/w==",{"cut_bytes":70000}]"#.into(),
        ),
        (
            Event::Command { name: b"CONFIG|SET", keys: &NoParameters, arguments: 2, argument_bytes: 14, values: &NoParameters, error: "role dev: db_commands" },
            "db.session.query.failed",
            "TDB02W",
            r#""success":false,"error":"role dev: db_commands","db_query":"CONFIG|SET","keys":[],"arguments":2,"argument_bytes":14"#.into(),
        ),
        (
            Event::Results { first_ei: 100, count: 1, duration_us: 41 },
            "db.session.result",
            "TDB10I",
            r#""query_ei":100,"success":true,"duration_us":41"#.into(),
        ),
        (
            Event::Results { first_ei: 100, count: 16, duration_us: 41 },
            "db.session.result",
            "TDB10I",
            r#""query_ei":100,"query_count":16,"success":true,"duration_us":41"#.into(),
        ),
        (
            Event::Parse { name: b"s1", statement: statement(b"select \x01\x7f\\\t") },
            "db.session.postgres.statements.parse",
            "TPG00I",
            r#""statement_name":"s1","query":"select \u0001\u007f\\\t","query_type":"SELECT","truncated":false"#.into(),
        ),
        (
            Event::Bind { name: b"s1", portal: b"", parameters: &values },
            "db.session.postgres.statements.bind",
            "TPG01I",
            r#""statement_name":"s1","portal_name":"","parameters":[null,"a\nb","base64:/w==","base64:AAE=",-7,1.5,true,{"type":23},{"cut_bytes":70000},"NaN"]"#.into(),
        ),
        (
            Event::Execute { portal: b"", statement: statement(b"select $1"), parameters: &values },
            "db.session.postgres.statements.execute",
            "TPG02I",
            r#""portal_name":"","db_query":"select $1","db_query_parameters":[null,"a\nb","base64:/w==","base64:AAE=",-7,1.5,true,{"type":23},{"cut_bytes":70000},"NaN"],"query_type":"SELECT","truncated":false"#.into(),
        ),
        (Event::Close { is_portal: false, name: b"s1" }, "db.session.postgres.statements.close", "TPG03I", r#""statement_name":"s1""#.into()),
        (Event::Close { is_portal: true, name: b"" }, "db.session.postgres.statements.close", "TPG03I", r#""portal_name":"""#.into()),
        (
            Event::FunctionCall { oid: 1598, arguments: &NoParameters, error: "" },
            "db.session.postgres.function",
            "TPG04I",
            r#""function_oid":1598,"function_args":[]"#.into(),
        ),
        (
            Event::FunctionCall { oid: 1598, arguments: &NoParameters, error: "refused" },
            "db.session.query.failed",
            "TDB02W",
            r#""success":false,"error":"refused","function_oid":1598,"function_args":[]"#.into(),
        ),
        (
            Event::Malformed { side: "client", rule: "length below 4", payload: &[0; 80] },
            "db.session.malformed_packet",
            "TDB06I",
            format!(r#""side":"client","rule":"length below 4","payload":"{}==""#, "A".repeat(86)),
        ),
        (Event::Cancel { addr: "1.2.3.4:5", matched: true }, "db.session.cancel", "TDB20I", r#""matched":true,"canceller":"1.2.3.4:5""#.into()),
        (Event::Terminated { actor: "admin", reason: "kill" }, "db.session.terminated", "TDB21I", r#""actor":"admin","reason":"kill""#.into()),
        (Event::ClientDisconnect { reason: "idle" }, "client.disconnect", "T3006I", r#""reason":"idle""#.into()),
        (Event::SessionRejected { reason: "max_sessions", maximum: 3 }, "session.rejected", "T1006W", r#""maximum":3,"reason":"max_sessions""#.into()),
        (
            Event::SessionEnd { reason: "client", start_us: T0 - 1_014_000, statements: 3, bytes_in: 4, bytes_out: 5 },
            "db.session.end",
            "TDB01I",
            r#""reason":"client","start_time":"2025-11-20T10:58:25.000Z","end_time":"2025-11-20T10:58:26.014Z","statements":3,"bytes_in":4,"bytes_out":5"#.into(),
        ),
    ];
    for (ei, (event, ..)) in table.iter().enumerate() {
        p.record(stamp(slot, ei as u32), event).unwrap();
        // A result finds its statement on disk already: both have a line.
        assert!(handle.flush());
    }
    p.close_session(slot);
    assert!(handle.flush());
    control.record(&Event::AuthFailed { addr: "1.2.3.4:5", protocol: "postgres", error: "no certificate" });
    control.record(&Event::Other { event: "role.created", code: "T9000I", members: "\"name\":\"dev\"" });
    control.record(&Event::Other { event: "server.ready", code: "TSV02I", members: "" });
    assert!(handle.flush());
    let found = lines(dir.path());
    assert_eq!(found.len(), table.len() + 3);
    for (ei, (_, name, code, fields)) in table.iter().enumerate() {
        let want = format!(
            r#"{{"v":1,"seq":{},"time":"2025-11-20T10:58:26.014Z","uid":"U","event":"{name}","code":"{code}","ei":{ei},{SESSION},{fields}}}"#,
            ei + 1
        );
        assert_eq!(plain(&found[ei]), want);
        serde_json::from_str::<serde_json::Value>(&found[ei]).unwrap();
    }
    for (i, rest) in [
        r#""event":"auth","code":"T3007W","ei":0,"cluster_name":"gw","server_id":"gw-1","addr.remote":"1.2.3.4:5","db_protocol":"postgres","success":false,"error":"no certificate"}"#,
        r#""event":"role.created","code":"T9000I","ei":0,"cluster_name":"gw","server_id":"gw-1","name":"dev"}"#,
        r#""event":"server.ready","code":"TSV02I","ei":0,"cluster_name":"gw","server_id":"gw-1"}"#,
    ]
    .iter()
    .enumerate()
    {
        assert!(found[table.len() + i].ends_with(rest), "{}", found[table.len() + i]);
    }
    let mut uids: Vec<&str> = found.iter().map(|l| &l[l.find("\"uid\":\"").unwrap() + 7..][..36]).collect();
    uids.sort_unstable();
    uids.dedup();
    assert_eq!(uids.len(), found.len());
    handle.shutdown();
}
