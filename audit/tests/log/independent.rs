//! A second verifier, written from the format's description alone.
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

fn sha(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}

fn root(leaves: &[Vec<u8>]) -> Vec<u8> {
    match leaves.len() {
        0 => sha(b""),
        1 => sha(&[&[0], &leaves[0][..]].concat()),
        n => {
            let k = n.next_power_of_two() / 2;
            sha(&[&[1], &root(&leaves[..k])[..], &root(&leaves[k..])[..]].concat())
        }
    }
}

fn signed(note: &str, vkey: &str, leaves: &[Vec<u8>]) -> bool {
    let parts: Vec<&str> = vkey.trim().splitn(3, '+').collect();
    let key = STANDARD.decode(parts[2]).unwrap();
    let Some((body, signature)) = note.split_once("\n\n— ") else { return false };
    let body = format!("{body}\n");
    let (name, signature) = signature.trim_end().split_once(' ').unwrap();
    let Ok(signature) = STANDARD.decode(signature) else { return false };
    let lines: Vec<&str> = body.lines().collect();
    let size: usize = lines[1].parse().unwrap();
    name == parts[0]
        && lines[0] == name
        && UnparsedPublicKey::new(&ED25519, &key[1..]).verify(body.as_bytes(), &signature[4..]).is_ok()
        && leaves.len() >= size
        && STANDARD.encode(root(&leaves[..size])) == lines[2]
}

/// Whether the log is whole, up to a torn tail. Nothing of the crate under test is used.
pub(crate) fn whole(dir: &Path) -> bool {
    let vkey = std::fs::read_to_string(dir.join("keys/checkpoint.pub")).unwrap();
    let mut leaves: Vec<Vec<u8>> = Vec::new();
    let mut prev = vec![0u8; 32];
    let mut seq = 0u64;
    for (i, path) in crate::support::segments(dir).iter().enumerate() {
        if path.file_name().unwrap().to_str().unwrap() != format!("{:08}.jsonl", i + 1) {
            return false;
        }
        let mut covered: Vec<u8> = Vec::new();
        let mut events = 0;
        for line in std::fs::read(path).unwrap().split_inclusive(|b| *b == b'\n') {
            let Ok(value) = serde_json::from_slice::<Value>(line) else { continue };
            if value["event"] == "audit.batch" {
                let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
                if text("sha256") != STANDARD.encode(sha(&covered))
                    || text("prev") != STANDARD.encode(&prev)
                    || value["last"] != seq
                    || value["count"] != events
                {
                    return false;
                }
                prev = sha(line);
                leaves.push(prev.clone());
                covered.clear();
                events = 0;
                continue;
            }
            covered.extend_from_slice(line);
            if value["event"] == "audit.segment" {
                if value["prev"] != STANDARD.encode(&prev) {
                    return false;
                }
                continue;
            }
            seq += 1;
            events += 1;
            if value["seq"] != seq {
                return false;
            }
            if let Some(note) = value["checkpoint"].as_str()
                && !signed(note, &vkey, &leaves)
            {
                return false;
            }
        }
    }
    std::fs::read_to_string(dir.join("state")).is_ok_and(|note| signed(&note, &vkey, &leaves))
}
