//! The one form that texts are kept and compared in.
//!
//! The same word has several forms in Unicode: macOS writes the `é` of a file's
//! name as two characters, Linux as one. So that names that look alike are
//! alike, whatever machine they came from, ids of examples, display names of
//! classes, prompts, templates, texts to embed and filters are taken in
//! normalization form C (NFC, <https://unicode.org/reports/tr15/>). Of versions
//! that an older tipserve made, display names are read so, too; their examples'
//! ids are shown as they were given, and found by every form.

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization as _, is_nfc_quick};

/// A text in NFC. Borrows what is so already.
///
/// ```
/// use tipserve_api::text::canonical;
///
/// assert_eq!(canonical("cafe\u{301}"), "café");
/// ```
pub fn canonical(text: &str) -> Cow<'_, str> {
    match is_nfc_quick(text.chars()) {
        IsNormalized::Yes => Cow::Borrowed(text),
        IsNormalized::No | IsNormalized::Maybe => Cow::Owned(text.nfc().collect()),
    }
}

/// The same of an owned text.
pub fn into_canonical(text: String) -> String {
    match canonical(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(composed) => composed,
    }
}
