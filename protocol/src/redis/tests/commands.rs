//! The command table, keys and masked values.

use super::super::{Categories, builtin};
use super::{command_of, machine, pipeline};
use crate::{Machine, Outbox, Side, Step};

/// What the session asks about one command: name, whether it is known, keys (`?` where they cannot be told), values.
fn asked(command: &str) -> (String, bool, Vec<String>, Vec<String>) {
    let mut machine = machine();
    let sent = pipeline(&[command]);
    let mut out = Outbox::default();
    assert!(matches!(machine.handle(Side::Client, &sent, &mut out), Ok(Step::Note(_))));
    let step = machine.handle(Side::Client, &sent, &mut out);
    let Ok(Step::Ask(operation)) = step else { unreachable!("{step:?}") };
    let command = command_of(&operation);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let keys = command.keys().map(|key| key.map_or("?".to_owned(), |key| text(key.bytes))).collect();
    (command.name().to_owned(), command.is_known(), keys, command.values().map(text).collect())
}

#[test]
fn the_table_is_ordered_and_every_name_is_found() {
    for (index, pair) in builtin().windows(2).enumerate() {
        let order = |name: &str| name.replace('|', "\x01");
        assert!(order(pair[0].name) < order(pair[1].name), "{index}: {} {}", pair[0].name, pair[1].name);
    }
    for known in builtin() {
        let words = known.name.replace('|', " ").to_lowercase();
        let (name, is_known, ..) = asked(&words);
        assert_eq!((name.as_str(), is_known), (known.name, true));
    }
    assert!(builtin().len() > 400);
}

#[test]
fn names_nobody_knows_are_shown_in_upper_case() {
    assert_eq!(asked("nosuch a").0, "NOSUCH");
    assert!(!asked("nosuch a").1);
    let (name, known, ..) = asked("config nosuch");
    assert_eq!((name.as_str(), known), ("CONFIG|NOSUCH", false));
    assert_eq!(asked("ge\u{301}t a").0, "");
    assert_eq!(asked(&"x".repeat(65)).0, "");
    assert_eq!(asked("get\0 a").0, "");
}

#[test]
fn keys_are_found_where_the_server_finds_them() {
    for (command, keys) in [
        ("GET a", "a"),
        ("PING", ""),
        ("MSET a 1 b 2", "a b"),
        ("DEL a b c", "a b c"),
        ("BITOP AND d a b", "d a b"),
        ("BLPOP a b 0", "a b"),
        ("EVAL x 2 a b c", "a b"),
        ("EVAL x 0 a", ""),
        ("EVAL x 3 a b", "?"),
        ("EVAL x -1 a", "?"),
        ("EVAL x nan a", "?"),
        ("ZUNIONSTORE d 2 a b WEIGHTS 1 2", "d a b"),
        ("LMPOP 2 a b LEFT", "a b"),
        ("XREAD COUNT 1 BLOCK 0 STREAMS a b 0 0", "a b"),
        ("XREAD STREAMS streams 0", "streams"),
        ("XREADGROUP COUNT 1 GROUP streams c STREAMS secret >", "secret"),
        ("XREADGROUP GROUP g c BOGUS STREAMS a >", "?"),
        ("SORT a", "a"),
        ("SORT a STORE b store c", "a b c"),
        ("SORT a BY w_* GET #", "?"),
        ("SORT a BY nosort GET #", "a"),
        ("GEORADIUS a 1 2 3 km STORE b STOREDIST c STORE d", "a b d c"),
        ("MIGRATE h 1 k 0 10", "k"),
        ("OBJECT ENCODING a", "a"),
        ("MEMORY USAGE a", "a"),
        ("XGROUP CREATE a g 0", "a"),
        ("GET", "?"),
        ("NOSUCH a", "?"),
        ("SPUBLISH c m", ""),
        ("MSETEX 2 a 1 b 2 EX 5", "a b"),
    ] {
        assert_eq!(asked(command).2.join(" "), keys, "{command}");
    }
    // An empty key of MIGRATE stands for those behind KEYS.
    assert_eq!(asked("MIGRATE h 1  0 10 COPY KEYS a b").2, ["a", "b"]);
}

#[test]
fn secrets_are_masked() {
    for (command, values) in [
        ("AUTH pw", "***"),
        ("AUTH u pw", "u ***"),
        ("HELLO 3 AUTH u pw SETNAME n", "3 AUTH u *** SETNAME n"),
        ("ACL SETUSER u on >pw #hash ~k <pw !hash", "SETUSER u on *** *** ~k *** ***"),
        ("CONFIG SET maxmemory 1 requirepass pw", "SET maxmemory 1 requirepass ***"),
        ("CONFIG SET MasterAuth pw", "SET MasterAuth ***"),
        ("MIGRATE h 1 k 0 10 AUTH pw", "h 1 k 0 10 AUTH ***"),
        ("MIGRATE h 1 k 0 10 AUTH2 u pw", "h 1 k 0 10 AUTH2 *** ***"),
        ("SENTINEL SET m auth-pass pw quorum 2", "SET m auth-pass *** quorum 2"),
        ("SENTINEL SET m AUTH-USER u", "SET m AUTH-USER ***"),
        ("SENTINEL CONFIG SET sentinel-pass pw", "CONFIG SET sentinel-pass ***"),
        ("MODULE LOADEX /m.so CONFIG m.secret pw", "LOADEX /m.so *** *** ***"),
        ("NOBODY KNOWS this", "*** ***"),
        ("SET k v", "k v"),
    ] {
        assert_eq!(asked(command).3.join(" "), values, "{command}");
    }
}

#[test]
fn rights_and_categories_are_those_of_the_server() {
    let find = |name: &str| builtin().iter().find(|known| known.name == name).expect("a known command");
    let category = |word: &[u8]| Categories::named(word).expect("a category");
    assert!(find("GET").categories.contains(category(b"read")));
    assert!(find("FLUSHALL").categories.contains(category(b"dangerous")));
    assert!(find("EVAL").categories.contains(category(b"scripting")));
    assert!(find("BLPOP").categories.contains(category(b"blocking")));
    assert_eq!(find("MONITOR").right, Some("monitor"));
    assert_eq!(find("PSYNC").right, Some("replication"));
    assert_eq!(find("MIGRATE").right, Some("outbound"));
    assert_eq!(find("GET").right, None);
}
