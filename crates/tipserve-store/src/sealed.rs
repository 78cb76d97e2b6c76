//! Small JSON objects that carry their own checksum.
//!
//! Every manifest and state record is one JSON object whose last member is
//! `"checksum"`: 64 lower-case hex digits of the SHA-256 of all bytes before
//! the comma that precedes it. Any JSON reader can read the file; a careful one
//! checks it. This trailer stays as it is in every later format, so that damage
//! is told from novelty.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

use super::StoreError;

/// The newest format that this build writes and reads.
pub const FORMAT: u32 = 1;

/// Largest manifest or state record.
pub const MAX_JSON_BYTES: u64 = 256 << 20;

const BEFORE: &[u8] = b",\n  \"checksum\": \"";
const AFTER: &[u8] = b"\"\n}\n";
const DIGITS: usize = 64;

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // cannot fail on a String
        text
    })
}

/// Writes `value` (a struct with at least one field) with its checksum.
pub(crate) fn seal<T: Serialize>(what: &str, value: &T) -> Result<Bytes, StoreError> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|e| StoreError::invalid(what, e))?;
    // The closing brace and the line feed before it make room for the trailer.
    text.truncate(text.len().saturating_sub(2));
    let digest = hex(&Sha256::digest(&text));
    text.extend_from_slice(BEFORE);
    text.extend_from_slice(digest.as_bytes());
    text.extend_from_slice(AFTER);
    if text.len() as u64 > MAX_JSON_BYTES {
        return Err(StoreError::TooLarge {
            what: what.to_owned(),
            size: text.len() as u64,
            limit: MAX_JSON_BYTES,
        });
    }
    Ok(text.into())
}

fn checked(text: &[u8]) -> Result<(), &'static str> {
    let rest = text
        .strip_suffix(AFTER)
        .ok_or("it does not end in a checksum")?;
    let at = rest
        .len()
        .checked_sub(DIGITS)
        .ok_or("it does not end in a checksum")?;
    let (head, digest) = rest.split_at(at);
    let body = head
        .strip_suffix(BEFORE)
        .ok_or("it does not end in a checksum")?;
    if hex(&Sha256::digest(body)).as_bytes() == digest {
        Ok(())
    } else {
        Err("its checksum does not match its bytes")
    }
}

/// Reads what [`seal`] wrote; `what` is named in errors.
///
/// # Errors
/// [`StoreError::Damaged`] where the checksum or the shape is wrong,
/// [`StoreError::NewerFormat`] if it is whole but of a newer format.
pub(crate) fn unseal<T: DeserializeOwned>(
    what: &str,
    path: &str,
    text: &[u8],
) -> Result<T, StoreError> {
    let format = serde_json::from_slice::<FormatOnly>(text).map(|f| f.format);
    if let Err(reason) = checked(text) {
        // Someone who edits the format by hand should learn both things.
        let newer = match format {
            Ok(found) if found > FORMAT => {
                format!(" (and it claims format {found}, newer than {FORMAT})")
            }
            _ => String::new(),
        };
        return Err(StoreError::damaged(
            what,
            format!("{path}: {reason}{newer}"),
        ));
    }
    match format {
        Ok(found) if found > FORMAT => Err(StoreError::NewerFormat {
            what: what.to_owned(),
            found,
            supported: FORMAT,
        }),
        Ok(_) => serde_json::from_slice(text)
            .map_err(|e| StoreError::damaged(what, format!("{path}: {e}"))),
        Err(e) => Err(StoreError::damaged(what, format!("{path}: {e}"))),
    }
}
