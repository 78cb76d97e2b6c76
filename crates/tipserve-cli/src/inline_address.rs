//! Addresses that need no server: `file:///pets/a%20cat.jpg`, which stands for a path, and
//! `data:image/png;base64,…`, which is the picture itself.

use std::path::{Path, PathBuf};

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use percent_encoding::percent_decode_str;

/// Not everybody fills Base64 up to four characters.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// What follows `prefix`, whatever its case.
fn after<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// The path that a `file://` address of this machine stands for; none for anything else.
pub(crate) fn local_path(text: &str) -> Option<PathBuf> {
    let rest = after(text, "file://")?;
    let path = after(rest, "localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        return None;
    }
    let literal = Path::new(path);
    // Not everybody writes a space as %20.
    if literal.symlink_metadata().is_ok() {
        return Some(literal.to_owned());
    }
    let bytes: Vec<u8> = percent_decode_str(path).collect();
    Some(of_bytes(bytes))
}

#[cfg(unix)]
fn of_bytes(bytes: Vec<u8>) -> PathBuf {
    use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};
    OsString::from_vec(bytes).into()
}

#[cfg(not(unix))]
fn of_bytes(bytes: Vec<u8>) -> PathBuf {
    String::from_utf8_lossy(&bytes).into_owned().into()
}

/// Whether it is a picture itself.
pub(crate) fn holds_picture(text: &str) -> bool {
    after(text, "data:").is_some_and(|rest| rest.contains(','))
}

/// The bytes of a `data:` address.
///
/// # Errors
/// Its Base64 is damaged.
pub(crate) fn picture(text: &str) -> Result<Vec<u8>, String> {
    let rest = after(text, "data:").unwrap_or(text);
    let (head, data) = rest.split_once(',').unwrap_or(("", rest));
    let mut bytes: Vec<u8> = percent_decode_str(data).collect();
    let kind = head.len().checked_sub(";base64".len());
    if kind
        .and_then(|at| head.get(at..))
        .is_some_and(|end| end.eq_ignore_ascii_case(";base64"))
    {
        bytes.retain(|byte| !byte.is_ascii_whitespace());
        bytes = BASE64
            .decode(&bytes)
            .map_err(|error| format!("its Base64 is damaged: {error}"))?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_address_is_its_picture() {
        for text in [
            "data:image/png;base64,aGVsbG8=",
            "DATA:;BASE64,aGVs bG8",
            "data:,hello",
            "data:text/plain;charset=utf-8,h%65llo",
            "data:image/png;base64,aGVsbG8%3D",
        ] {
            assert!(holds_picture(text), "{text}");
            assert_eq!(picture(text).as_deref(), Ok(&b"hello"[..]), "{text}");
        }
        assert!(picture("data:;base64,!!!").is_err());
        for text in ["data:image/png", "database.png", "http://a/data:,", "a"] {
            assert!(!holds_picture(text), "{text}");
        }
    }

    #[test]
    fn a_file_address_is_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let literal = folder.path().join("a%20b.png");
        std::fs::write(&literal, "").unwrap();
        let address = format!("file://{}", literal.display());
        assert_eq!(local_path(&address), Some(literal));
        let spaced = folder.path().join("c d.png");
        for scheme in ["file://", "FILE://localhost"] {
            let address = format!("{scheme}{}/c%20d.png", folder.path().display());
            assert_eq!(local_path(&address), Some(spaced.clone()));
        }
        for text in ["file://host/a", "http://a/b", "/a/b", "file:a"] {
            assert_eq!(local_path(text), None, "{text}");
        }
    }
}
