//! The messages that JSON writes as a text: durations, times, field masks.

use prost::Message as _;
use prost_types::{Duration, FieldMask, Timestamp};

/// The wire format of a message that JSON writes as a text; none if `name`
/// is another message.
///
/// # Errors
/// What is expected instead.
pub fn from_text(name: &str, text: &str) -> Option<Result<Vec<u8>, String>> {
    Some(match name {
        "google.protobuf.Duration" => duration(text)
            .map(|value| value.encode_to_vec())
            .ok_or_else(|| "expected a duration in seconds, such as \"1.5s\"".to_owned()),
        "google.protobuf.Timestamp" => text
            .parse::<Timestamp>()
            .map(|value| value.encode_to_vec())
            .map_err(|_| "expected a time such as \"2026-01-31T12:00:00Z\"".to_owned()),
        "google.protobuf.FieldMask" => mask(text)
            .map(|value| value.encode_to_vec())
            .ok_or_else(|| "expected names of fields, such as \"latest.keyCount\"".to_owned()),
        _ => return None,
    })
}

/// A mask's paths; none if one would be another path once it is written in JSON
/// again, where each `_` stands for a capital letter.
fn mask(text: &str) -> Option<FieldMask> {
    let paths = text.split(',').filter(|path| !path.is_empty());
    let paths: Vec<_> = paths.map(snake_case).collect();
    let is_kept = |path: &String| {
        let mut after = path.split('_').skip(1);
        after.all(|rest| rest.starts_with(|letter: char| letter.is_ascii_lowercase()))
    };
    paths.iter().all(is_kept).then_some(FieldMask { paths })
}

fn duration(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?;
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let (sign, number) = match number.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, number),
    };
    let (seconds, fraction) = number.split_once('.').unwrap_or((number, ""));
    if seconds.is_empty() || !digits(seconds) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos: i32 = format!("{fraction:0<9}").parse().ok()?;
    let seconds: i64 = seconds.parse().ok().filter(|s| *s <= 315_576_000_000)?;
    Some(Duration {
        seconds: sign * seconds,
        nanos: sign as i32 * nanos,
    })
}

/// "latest.keyCount" is "latest.key_count" in a mask.
fn snake_case(path: &str) -> String {
    let mut made = String::with_capacity(path.len() + 4);
    for letter in path.chars() {
        if letter.is_ascii_uppercase() {
            made.push('_');
        }
        made.push(letter.to_ascii_lowercase());
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds, nanos) in [
            ("1.5s", 1, 500_000_000),
            ("0s", 0, 0),
            ("-2.000000001s", -2, -1),
            ("0.1s", 0, 100_000_000),
        ] {
            assert_eq!(duration(text), Some(Duration { seconds, nanos }), "{text}");
        }
        for bad in [
            "1",
            "s",
            "1.s5",
            "1.0000000001s",
            "1e3s",
            "999999999999s",
            "+1s",
            ".5s",
        ] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn masks_are_in_the_protos_names() {
        assert_eq!(snake_case("latest.keyCount"), "latest.key_count");
        assert_eq!(snake_case("*"), "*");
    }

    #[test]
    fn masks_are_read_if_they_can_be_written_again() {
        let paths = |text| mask(text).map(|mask| mask.paths);
        let both = ["name".to_owned(), "latest.key_count".to_owned()];
        assert_eq!(paths("name,latest.keyCount").as_deref(), Some(&both[..]));
        assert_eq!(paths("name,,latest.key_count").as_deref(), Some(&both[..]));
        assert_eq!(paths("").as_deref(), Some(&[][..]));
        for wrong in ["_", "name,_", "key_", "key__count", "key_1", "key_.count"] {
            assert_eq!(paths(wrong), None, "{wrong}");
        }
    }
}
