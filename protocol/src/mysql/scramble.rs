//! Proofs of a password, one per authentication plugin.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use ed25519_dalek::{Sha512, VerifyingKey, hazmat};

use super::greeting::NONCE;

/// Bytes of the nonce of `client_ed25519`.
pub(super) const ED25519_NONCE: usize = 32;

/// `mysql_native_password`: SHA1(password) XOR SHA1(nonce, SHA1(SHA1(password))). Empty for an empty one.
pub(super) fn native(password: &[u8], nonce: &[u8; NONCE]) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    let digest = |parts: &[&[u8]]| {
        let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
        parts.iter().for_each(|part| context.update(part));
        context.finish()
    };
    let once = digest(&[password]);
    let twice = digest(&[once.as_ref()]);
    xor(once.as_ref(), digest(&[nonce, twice.as_ref()]).as_ref())
}

/// `caching_sha2_password`: SHA256(password) XOR SHA256(SHA256(SHA256(password)), nonce). Empty for an
/// empty one.
pub(super) fn caching_sha2(password: &[u8], nonce: &[u8; NONCE]) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    let digest = |parts: &[&[u8]]| {
        let mut context = Context::new(&SHA256);
        parts.iter().for_each(|part| context.update(part));
        context.finish()
    };
    let once = digest(&[password]);
    let twice = digest(&[once.as_ref()]);
    xor(once.as_ref(), digest(&[twice.as_ref(), nonce]).as_ref())
}

/// `client_ed25519` of MariaDB: an Ed25519 signature of the nonce whose secret scalar and prefix are the
/// two halves of SHA512(password), where RFC 8032 would have a seed of 32 bytes.
pub(super) fn ed25519(password: &[u8], nonce: &[u8; ED25519_NONCE]) -> Vec<u8> {
    let mut context = Context::new(&aws_lc_rs::digest::SHA512);
    context.update(password);
    let hashed = context.finish();
    let Some(expanded) = hashed.as_ref().first_chunk::<64>() else { return Vec::new() };
    let key = hazmat::ExpandedSecretKey::from_bytes(expanded);
    let public = VerifyingKey::from(&key);
    hazmat::raw_sign::<Sha512>(&key, nonce, &public).to_bytes().to_vec()
}

fn xor(left: &[u8], right: &[u8]) -> Vec<u8> {
    left.iter().zip(right).map(|(left, right)| left ^ right).collect()
}
