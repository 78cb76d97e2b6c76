//! Texts that are shown in other people's terminals and logs, where some
//! characters are commands.

/// Whether a character commands a terminal, ends a line, or turns the order of
/// what follows around for good.
///
/// ```
/// use tipserve_api::printable::is_unprintable;
///
/// assert!("\u{1b}[2J".contains(is_unprintable));
/// assert!(!"حمار 🐼\u{200d}👩".contains(is_unprintable));
/// ```
pub fn is_unprintable(character: char) -> bool {
    let separator = matches!(character, '\u{2028}' | '\u{2029}');
    let overrides = matches!(character, '\u{202a}'..='\u{202e}');
    character.is_control() || separator || overrides
}

/// `text` cut to `limit` bytes, with unprintable characters escaped: it may
/// quote what a client sent.
///
/// ```
/// use tipserve_api::printable::printable;
///
/// assert_eq!(printable("a\nb\u{1b}", 200), "a\\nb\\u{1b}");
/// assert_eq!(printable("too long a name", 10), "too lon…");
/// ```
pub fn printable(text: &str, limit: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(limit));
    for character in text.chars() {
        let escaped = is_unprintable(character);
        let size = if escaped {
            character.escape_default().count()
        } else {
            character.len_utf8()
        };
        if shown.len() + size > limit.saturating_sub('…'.len_utf8()) {
            shown.push('…');
            return shown;
        }
        if escaped {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}
