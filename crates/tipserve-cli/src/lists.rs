//! Lists that people keep in text files: one entry a line.

use std::{borrow::Cow, fs, path::Path};

use crate::{failure::Failure, files};

/// The text without the byte order mark that Windows editors put before it.
pub(crate) fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// A line's bytes without the byte order mark of UTF-8.
pub(crate) fn line_without_bom(line: &[u8]) -> &[u8] {
    line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
}

/// Reads a text file in UTF-8; `flag` says what named it.
pub(crate) fn read_text(path: &Path, flag: &str) -> Result<String, Failure> {
    files::existing(path, flag)?;
    let failed =
        |why: Cow<'_, str>| Failure::Input(format!("{flag} {}: {why}", files::readable(path)));
    let bytes = fs::read(path).map_err(|error| failed(error.to_string().into()))?;
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(failed("is in UTF-16; save it as UTF-8".into()));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        failed(format!("is not UTF-8 (at byte {at})").into())
    })?;
    let text = without_bom(&text);
    // Lines that end as on an old Mac.
    Ok(match text.contains('\n') {
        true => text.to_owned(),
        false => text.replace('\r', "\n"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_belongs_to_no_entry() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "\u{feff}a/1.jpg\r\nb\n").unwrap();
        assert_eq!(read_text(file.path(), "--x").unwrap(), "a/1.jpg\r\nb\n");
        fs::write(file.path(), "a\rb\r").unwrap();
        assert_eq!(read_text(file.path(), "--x").unwrap(), "a\nb\n");
        fs::write(file.path(), b"\xff\xfea\0\n\0").unwrap();
        let error = read_text(file.path(), "--x").unwrap_err().to_string();
        assert!(error.contains("UTF-16"), "{error}");
        fs::write(file.path(), b"ab\xff").unwrap();
        let error = read_text(file.path(), "--x").unwrap_err().to_string();
        assert!(error.contains("not UTF-8 (at byte 2)"), "{error}");
    }
}
