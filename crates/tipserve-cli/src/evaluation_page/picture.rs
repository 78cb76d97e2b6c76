//! Pictures within the page.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Largest file that is put into the page.
const MOST_BYTES: u64 = 1 << 20;

/// An `img` element that holds the file; none for one that is too large, or of
/// a kind that browsers do not show. It is turned if its version turns it.
pub(super) fn embedded(path: &Path, turned: bool) -> Option<String> {
    if fs::metadata(path).ok()?.len() > MOST_BYTES {
        return None;
    }
    let bytes = fs::read(path).ok()?;
    let kind = kind(&bytes)?;
    let orientation = if turned { "from-image" } else { "none" };
    let data = STANDARD.encode(&bytes);
    Some(format!(
        "<img style=\"image-orientation:{orientation}\" alt=\"\" \
         src=\"data:image/{kind};base64,{data}\">"
    ))
}

fn kind(bytes: &[u8]) -> Option<&'static str> {
    let begins = |with: &[u8]| bytes.starts_with(with);
    match bytes {
        _ if begins(b"\xff\xd8\xff") => Some("jpeg"),
        _ if begins(b"\x89PNG\r\n\x1a\n") => Some("png"),
        _ if begins(b"GIF8") => Some("gif"),
        _ if begins(b"BM") => Some("bmp"),
        _ if begins(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") => Some("webp"),
        _ => None,
    }
}
