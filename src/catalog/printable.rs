//! Names, ids and labels are shown in other people's terminals and logs: none
//! may hold a character that commands one, or that ends a line.

use tipserve_api::printable::is_unprintable;

/// Whether a text is one printable line.
///
/// # Errors
/// What it has that it must not, to be said after the text's name.
pub fn check(text: &str) -> Result<(), String> {
    check_but(text, |_| false)
}

/// Whether a text is printable, in lines.
///
/// # Errors
/// As [`check`].
pub fn check_lines(text: &str) -> Result<(), String> {
    check_but(text, |character| matches!(character, '\n' | '\t'))
}

fn check_but(text: &str, allowed: impl Fn(char) -> bool) -> Result<(), String> {
    let found = |&character: &char| is_unprintable(character) && !allowed(character);
    match text.chars().find(found) {
        None => Ok(()),
        Some(character) => Err(format!(
            "has the control character U+{:04X}",
            u32::from(character)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_found_and_scripts_are_not() {
        for good in ["", "red panda", "小熊猫", "حمار", "🐼\u{200d}👩", "n-1"] {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
        for bad in [
            "\u{1b}[2J",
            "a\rb",
            "a\nb",
            "\0",
            "\u{9b}2J",
            "\u{202e}gpj",
            "\u{2028}",
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        assert_eq!(check_lines("two\nlines\tand a tab"), Ok(()));
        assert_eq!(
            check_lines("a\u{1b}").expect_err("refused"),
            "has the control character U+001B"
        );
    }
}
