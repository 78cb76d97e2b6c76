//! The publisher's signature: minisign's, of `bundle.toml`, which lists all
//! other files with their SHA-256.

use std::{fs, path::Path};

use minisign_verify::{PublicKey, Signature};

use super::PullError;

/// The file with the signature, next to `bundle.toml`.
pub(super) const FILE: &str = "bundle.toml.minisig";
/// Its largest size in bytes.
pub(super) const BYTES: u64 = 4096;

/// Reads a public key as `minisign` prints it ("RW…"), or from the file that it
/// writes.
///
/// # Errors
/// If it is neither.
pub(super) fn public_key(text: &str) -> Result<PublicKey, PullError> {
    let wrong = || PullError::PublicKey {
        given: text.to_owned(),
    };
    if let Ok(key) = PublicKey::from_base64(text.trim()) {
        return Ok(key);
    }
    let file = Path::new(text);
    if !file.is_file() {
        return Err(wrong());
    }
    let text = fs::read_to_string(file).map_err(PullError::disk(file))?;
    PublicKey::decode(&text).map_err(|_| wrong())
}

/// Checks that the holder of the key signed these bytes.
///
/// # Errors
/// [`PullError::Signature`].
pub(super) fn check(
    key: &PublicKey,
    signature: &[u8],
    signed: &[u8],
    what: &str,
) -> Result<(), PullError> {
    let wrong = |problem: String| PullError::Signature {
        what: what.to_owned(),
        problem,
    };
    let text = std::str::from_utf8(signature).map_err(|error| wrong(error.to_string()))?;
    let signature = Signature::decode(text).map_err(|error| wrong(error.to_string()))?;
    key.verify(signed, &signature, false)
        .map_err(|error| wrong(error.to_string()))
}
