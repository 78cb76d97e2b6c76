//! Errors quote what was sent, and what was sent may be long: what is quoted is
//! shortened, so that an error always fits into a client's limit on metadata
//! (8 KiB by default in gRPC, of which others take a part).

use std::borrow::Cow;

/// Most bytes of an error's message.
pub const MAX_MESSAGE_BYTES: usize = 480;
/// Most bytes of a field's path, and of each fact.
pub const MAX_FACT_BYTES: usize = 160;
/// Most facts.
pub const MAX_FACTS: usize = 8;

/// Stands for what was left out.
const GAP: &str = " […] ";

/// A text of at most `most` bytes: its beginning and its end, where the whole
/// is longer.
pub fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let kept = most.saturating_sub(GAP.len());
    let head = text.floor_char_boundary(kept * 2 / 3);
    let tail = text.ceil_char_boundary(text.len() - kept / 3);
    let (head, tail) = (text.get(..head), text.get(tail..));
    Cow::Owned([head.unwrap_or_default(), GAP, tail.unwrap_or_default()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_texts_stay_and_long_ones_keep_both_ends() {
        assert_eq!(shortened("short", 10), "short");
        let long = format!("{:?} is not a name: it has a slash", "é/".repeat(4000));
        for most in [60, 61, 62, 63, 200] {
            let short = shortened(&long, most);
            assert!(short.len() <= most, "{}", short.len());
            assert!(
                short.starts_with("\"é/") && short.ends_with("slash"),
                "{short}"
            );
        }
    }
}
