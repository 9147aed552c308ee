//! The fuzz bodies over their seeds and over random inputs, as plain tests.

use std::path::Path;

use crate::testing::{Random, fuzz};

fn exercise(target: &str, body: fn(&[u8]), random: fn(&mut Random) -> Vec<u8>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut seeds = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        body(&std::fs::read(entry.unwrap().path()).unwrap());
        seeds += 1;
    }
    assert!(seeds > 0, "no seeds in {}", folder.display());
    for seed in 0..2000 {
        body(&random(&mut Random(seed)));
    }
}

#[test]
fn openings_survive_their_seeds_and_random_bytes() {
    exercise("opening", fuzz::opening, |random| {
        let mut bytes = vec![u8::try_from(random.below(4)).unwrap_or(0), 0, 0, 0];
        let body = random.bytes(60);
        bytes.push(u8::try_from(body.len() + 8).unwrap_or(0));
        let codes: [u32; 5] = [196_608, 196_610, 80_877_102, 80_877_103, 80_877_104];
        bytes.extend_from_slice(&codes[random.below(codes.len())].to_be_bytes());
        bytes.extend(body);
        bytes
    });
}

#[test]
fn logins_survive_their_seeds_and_random_bytes() {
    exercise("login", fuzz::login, |random| {
        let mut bytes = random.bytes(1);
        if random.below(2) == 0 {
            bytes.push(b'S');
        }
        bytes.extend(fuzz::frames(random, b"RENvZ"));
        bytes
    });
}

#[test]
fn clients_survive_their_seeds_and_random_bytes() {
    exercise("session_client", fuzz::session_client, |random| fuzz::frames(random, b"QPBDECHSFdcfXpz"));
}

#[test]
fn databases_survive_their_seeds_and_random_bytes() {
    exercise("session_backend", fuzz::session_backend, |random| fuzz::frames(random, b"TDCEZ123ntsIGHWdcVNASK"));
}
