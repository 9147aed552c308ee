//! The fuzz bodies over their seeds and over random inputs, as plain tests.

use std::path::Path;

use crate::testing::{Random, fuzz_mysql};

fn exercise(target: &str, body: fn(&[u8]), random: fn(&mut Random) -> Vec<u8>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut seeds = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        body(&std::fs::read(entry.unwrap().path()).unwrap());
        seeds += 1;
    }
    assert!(seeds > 0, "no seeds in {}", folder.display());
    for seed in 0..1500 {
        body(&random(&mut Random(seed)));
    }
}

fn byte(random: &mut Random, below: usize) -> u8 {
    u8::try_from(random.below(below)).unwrap_or(0)
}

#[test]
fn openings_survive_their_seeds_and_random_bytes() {
    exercise("mysql_opening", fuzz_mysql::opening, |random| {
        let mut bytes = vec![byte(random, 4)];
        let mut body = vec![5, 0xa2, 0x3b, 0];
        body.extend([0; 28]);
        body.extend(random.bytes(60));
        bytes.extend(fuzz_mysql::packet(1, &body));
        bytes
    });
}

#[test]
fn logins_survive_their_seeds_and_random_bytes() {
    exercise("mysql_login", fuzz_mysql::login, |random| {
        let mut bytes = vec![byte(random, 9), byte(random, 2)];
        let first = 2 * bytes[1] + u8::from(bytes[0] >= 3);
        bytes.extend(fuzz_mysql::packets(random, first, true, &[0, 1, 0xfe, 0xff, 10]));
        bytes
    });
}

#[test]
fn clients_survive_their_seeds_and_random_bytes() {
    exercise("mysql_session_client", fuzz_mysql::session_client, |random| {
        let mut bytes = vec![byte(random, 4)];
        let marks = [3, 3, 3, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1c, 0x11, 2, 4, 0x0c, 0xfa, 1, 0x0e];
        bytes.extend(fuzz_mysql::packets(random, 0, false, &marks));
        bytes
    });
}

#[test]
fn databases_survive_their_seeds_and_random_bytes() {
    exercise("mysql_session_backend", fuzz_mysql::session_backend, |random| {
        let mut bytes = vec![byte(random, 4), byte(random, 8)];
        bytes.extend(fuzz_mysql::packets(random, 1, true, &[0, 0, 0xfe, 0xff, 0xfb, 1, 2, 3]));
        bytes
    });
}
