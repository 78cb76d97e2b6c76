//! Text that came from somewhere else, made harmless for a terminal.
//!
//! A file's or a class's name may hold escape sequences, which command the
//! terminal; line breaks, which forge lines of a table; and marks that turn
//! the direction of writing, which hide what a name says.

use std::borrow::Cow;

use tipserve_api::printable::is_unprintable;

/// The text with its control characters escaped, except line breaks and tabs.
pub fn escaped(text: &str) -> Cow<'_, str> {
    escape(text, |c| is_harmful(c) && c != '\n' && c != '\t')
}

/// The same for what must stay on one line.
pub fn escaped_line(text: &str) -> Cow<'_, str> {
    escape(text, is_harmful)
}

fn escape(text: &str, harmful: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&harmful) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if harmful(c) {
            // \n, \r, \t, \u{1b}
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// Whether a terminal takes this character for something else than a letter of
/// the text: C0, C1, the separators of lines, and what turns the direction.
pub(crate) fn is_harmful(c: char) -> bool {
    let marks = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{feff}');
    let isolates = matches!(c, '\u{2066}'..='\u{2069}');
    is_unprintable(c) || marks || isolates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_command_the_terminal() {
        assert_eq!(escaped("a\x1b[2Jb\nc\u{9b}d"), "a\\u{1b}[2Jb\nc\\u{9b}d");
        assert_eq!(escaped("ünï 漢"), "ünï 漢");
    }

    #[test]
    fn names_cannot_forge_lines_or_turn_the_text() {
        assert_eq!(escaped_line("a\nb\tc\r"), "a\\nb\\tc\\r");
        assert_eq!(escaped_line("gpj.\u{202e}exe"), "gpj.\\u{202e}exe");
    }
}
