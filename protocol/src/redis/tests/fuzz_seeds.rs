//! The fuzz bodies over their seeds and over random inputs, as plain tests.

use std::path::Path;

use crate::testing::{Random, fuzz_redis};

fn exercise(target: &str, body: fn(&[u8]), pieces: &[&[u8]]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut seeds = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        body(&std::fs::read(entry.unwrap().path()).unwrap());
        seeds += 1;
    }
    assert!(seeds > 0, "no seeds in {}", folder.display());
    for seed in 0..1000 {
        let mut random = Random(seed);
        let mut bytes = random.bytes(1);
        for _ in 0..random.below(14) {
            bytes.extend_from_slice(pieces[random.below(pieces.len())]);
            if random.below(12) == 0 {
                bytes.extend(random.bytes(3));
            }
        }
        // Half of them without the byte that chooses a mode.
        body(&bytes[usize::from(seed % 2 == 0 && !bytes.is_empty())..]);
    }
}

const COMMANDS: &[&[u8]] = &[
    b"*1\r\n",
    b"*2\r\n",
    b"*3\r\n",
    b"*0\r\n",
    b"$3\r\nGET\r\n",
    b"$5\r\nMULTI\r\n",
    b"$4\r\nEXEC\r\n",
    b"$2\r\nno\r\n",
    b"$6\r\nCLIENT\r\n",
    b"$5\r\nREPLY\r\n",
    b"$3\r\nOFF\r\n",
    b"$2\r\nON\r\n",
    b"$5\r\nHELLO\r\n",
    b"$1\r\n3\r\n",
    b"$4\r\nAUTH\r\n",
    b"$5\r\nRESET\r\n",
    b"$9\r\nSUBSCRIBE\r\n",
    b"PING\r\n",
    b"set 'a\\'b' \"\\x41\"\r\n",
    b"$70000\r\n",
    b"$4\r\nQUIT\r\n",
    b"$4\r\nSORT\r\n",
    b"$5\r\nSTORE\r\n",
];
const REPLIES: &[&[u8]] = &[
    b"+OK\r\n",
    b"-ERR x\r\n",
    b":1\r\n",
    b"$-1\r\n",
    b"$1\r\nv\r\n",
    b"*-1\r\n",
    b"*2\r\n",
    b"%1\r\n",
    b">2\r\n",
    b"|1\r\n",
    b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
    b"*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n",
    b"+RESET\r\n",
    b"!3\r\nERR\r\n",
    b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n",
    b"_\r\n",
    b"+QUEUED\r\n",
    b"$70000\r\n",
    b"+17 [0 x]\r\n",
    b"$?\r\n",
];

#[test]
fn openings_survive_their_seeds_and_random_bytes() {
    exercise("redis_opening", fuzz_redis::opening, COMMANDS);
}

#[test]
fn logins_survive_their_seeds_and_random_bytes() {
    exercise("redis_login", fuzz_redis::login, REPLIES);
}

#[test]
fn clients_survive_their_seeds_and_random_bytes() {
    exercise("redis_session_client", fuzz_redis::session_client, COMMANDS);
}

#[test]
fn servers_survive_their_seeds_and_random_bytes() {
    exercise("redis_session_backend", fuzz_redis::session_backend, REPLIES);
}
