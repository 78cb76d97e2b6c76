//! What a token looks like: how one is made, and which names and prefixes its
//! entry in a server's tokens file may have.

use sha2::{Digest as _, Sha256};

use crate::names::MAX_ID_LEN;

/// What tokens begin with, so that scanners for leaked secrets know them.
pub const MARK: &str = "tipserve_";
/// Random bytes of a token.
pub const RANDOM_BYTES: usize = 32;
/// Longest name of a token, bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// Whether a name is one that a log line can carry.
///
/// # Errors
/// The rule.
pub fn check_name(name: &str) -> Result<(), String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@');
    if (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(format!(
        "the name {name:?} must be 1 to {MAX_NAME_BYTES} of a-z, A-Z, 0-9, '-', '_', '.' and '@'"
    ))
}

/// Whether the ids of caches can begin so.
///
/// # Errors
/// The rule.
pub fn check_prefix(prefix: &str) -> Result<(), String> {
    let allowed =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
    if prefix.len() <= MAX_ID_LEN && prefix.bytes().all(allowed) {
        return Ok(());
    }
    Err(format!(
        "the prefix {prefix:?} must be of what ids of caches are: a-z, 0-9, '-', '_' and '.'"
    ))
}

/// A new token: the secret, and its hash as an entry has it.
///
/// # Errors
/// If the system gives no random bytes.
pub fn generate() -> Result<(String, String), rand::rand_core::OsError> {
    use rand::TryRngCore as _;
    let mut bytes = [0; RANDOM_BYTES];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes)?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let token = format!("{MARK}{digits}");
    let hash: String = Sha256::digest(token.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok((token, format!("sha256:{hash}")))
}
