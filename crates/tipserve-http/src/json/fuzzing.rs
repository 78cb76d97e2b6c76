//! Entries for the fuzz targets in `fuzz/`. Compiled under `--cfg fuzzing`,
//! and in tests, so that they keep compiling.

// What must not happen ends the run.
#![allow(clippy::expect_used, clippy::indexing_slicing)]

use std::{fmt::Write as _, sync::LazyLock};

use prost_reflect::{DynamicMessage, MessageDescriptor};

use super::{Style, decimal::Decimal, float, numbers, reader::Reader, render, without_mark, write};
use crate::rules;

/// Most bytes of a message.
const LARGEST: usize = 1 << 20;

/// The requests of all methods that HTTP has, by name.
static REQUESTS: LazyLock<Vec<MessageDescriptor>> = LazyLock::new(|| {
    let pool = rules::pool(tipserve_api::DESCRIPTORS).expect("a pool");
    let routes = rules::routes(&pool).expect("routes");
    let mut requests: Vec<_> = routes.iter().map(|route| route.rpc.input.clone()).collect();
    requests.sort_by(|one, other| one.full_name().cmp(other.full_name()));
    requests.dedup();
    requests
});

/// What follows a number: the readers look at many bytes at once.
const TAILS: [&[u8]; 4] = [
    b", 0.12345678901234567890123456789",
    b"]                               ",
    b",-1.5e3,12345678901234567890123,9",
    b"/:;<=>?@ABCDFGHIJKLMNOPQRSTUVWXYZ",
];

/// Numbers, both ways: the first byte says which.
///
/// # Panics
/// If a number is read or written otherwise than the standard library has it.
pub fn number(bytes: &[u8]) {
    let Some((way, rest)) = bytes.split_first() else {
        return;
    };
    let tail = TAILS[usize::from(way >> 2) % TAILS.len()];
    match way % 4 {
        0 => check_number(rest, tail),
        1 => near_the_middle(rest, tail),
        2 => written_digits(rest, tail),
        _ => printed(rest),
    }
}

/// How long the number is that a text begins with, by the grammar of RFC 8259
/// alone; none if it is followed by what no number is.
fn length_of(text: &[u8]) -> Option<usize> {
    let digits = |from: usize| {
        let rest = text.get(from..).unwrap_or_default();
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (count > 0).then_some(from + count)
    };
    let start = usize::from(text.first() == Some(&b'-'));
    let mut end = digits(start)?;
    if text[start] == b'0' && end > start + 1 {
        return None;
    }
    if text.get(end) == Some(&b'.') {
        end = digits(end + 1)?;
    }
    if matches!(text.get(end), Some(b'e' | b'E')) {
        let signed = usize::from(matches!(text.get(end + 1), Some(b'-' | b'+')));
        end = digits(end + 1 + signed)?;
    }
    Some(end)
}

/// A number is the nearest float to its text, whatever follows it.
fn check_number(text: &[u8], tail: &[u8]) {
    let number = Decimal::parse(text);
    assert_eq!(number.map(|number| number.text.len()), length_of(text));
    let Some(number) = number else {
        assert_eq!(float::read(text), None);
        return;
    };
    let written = str::from_utf8(number.text).expect("digits");
    let wanted: f32 = written.parse().expect("a float");
    assert_eq!(number.to_f32().to_bits(), wanted.to_bits(), "{written}");
    let wanted = wanted
        .is_finite()
        .then_some((wanted.to_bits(), written.len()));
    let as_bits =
        |read: Option<(f32, usize)>| read.map(|(value, length)| (value.to_bits(), length));
    assert_eq!(as_bits(float::read(text)), wanted, "{written}");
    let mut followed = [0; 192];
    let length = written.len();
    if let Some(room) = followed.get_mut(..length + tail.len()) {
        room[..length].copy_from_slice(number.text);
        room[length..].copy_from_slice(tail);
        assert_eq!(as_bits(float::read(room)), wanted, "{written}");
    }
}

/// A number at or close to the middle between two floats, where rounding twice
/// goes wrong: the float's bits, how far from the middle, in which form, and
/// digits that follow.
fn near_the_middle(bytes: &[u8], tail: &[u8]) {
    let Some(([a, b, c, d, distance, form], digits)) = bytes.split_first_chunk() else {
        return;
    };
    let one = f32::from_bits(u32::from_le_bytes([*a, *b, *c, *d]) % 0x7f7f_ffff);
    let next = f32::from_bits(one.to_bits() + 1);
    let middle = f64::midpoint(one.into(), next.into());
    let near = middle
        .to_bits()
        .saturating_add_signed(i64::from(distance.cast_signed()));
    let near = f64::from_bits(near);
    let mut text = String::with_capacity(128);
    let _ = match form % 4 {
        0 => write!(text, "{near}"),
        1 => write!(text, "-{near:e}"),
        2 => write!(text, "{near:.20e}"),
        _ => write!(text, "{near:.12}"),
    };
    if form % 8 >= 4 && text.contains('.') && !text.contains('e') {
        text.extend(digits.iter().map(|digit| char::from(b'0' + digit % 10)));
    }
    check_number(text.as_bytes(), tail);
}

/// A number of any digits: where the point is, the exponent, and the digits.
fn written_digits(bytes: &[u8], tail: &[u8]) {
    let Some(([form, point, power], digits)) = bytes.split_first_chunk() else {
        return;
    };
    let mut text = Vec::with_capacity(digits.len() + 8);
    if form & 1 != 0 {
        text.push(b'-');
    }
    for (at, digit) in digits.iter().enumerate() {
        if at > 0 && at == usize::from(point % 24) {
            text.push(b'.');
        }
        text.push(b'0' + digit % 10);
    }
    if form & 2 != 0 {
        text.push(if form & 4 != 0 { b'E' } else { b'e' });
        let mut exponent = String::new();
        let _ = write!(exponent, "{}", power.cast_signed());
        text.extend_from_slice(exponent.as_bytes());
    }
    check_number(&text, tail);
}

/// Floats are written with the fewest digits that read back to the same bits.
fn printed(packed: &[u8]) {
    let mut shown = vec![b'['];
    let is_shown = numbers::render(packed, &mut shown);
    let (values, rest) = packed.as_chunks::<4>();
    let values = || values.iter().copied().map(f32::from_le_bytes);
    assert_eq!(is_shown, rest.is_empty() && values().all(f32::is_finite));
    if !is_shown {
        assert_eq!(shown, b"[");
        return;
    }
    if packed.is_empty() {
        assert_eq!(shown, b"[");
    } else {
        let texts = shown[1..].split(|byte| *byte == b',');
        let mut count = 0;
        for (text, value) in texts.zip(values()) {
            assert_eq!(length_of(text), Some(text.len()));
            let text = str::from_utf8(text).expect("digits");
            let read: f32 = text.parse().expect("a float");
            assert_eq!(read.to_bits(), value.to_bits(), "{text}");
            count += 1;
        }
        assert_eq!(count, packed.len() / 4);
    }
    shown.push(b']');
    let mut reader = Reader::new(&shown);
    let mut wire = Vec::new();
    let is_read = numbers::floats(1, &mut reader, LARGEST, &mut wire);
    assert_eq!(is_read, Ok(true));
    assert!(wire.ends_with(packed) && reader.end().is_ok());
}

/// The first byte says which request the rest is the JSON of, and how it is
/// written: what is read can be decoded, written and read again to the same.
///
/// # Panics
/// If it is not.
pub fn request(bytes: &[u8]) {
    let Some(([which, style], json)) = bytes.split_first_chunk() else {
        return;
    };
    let message = &REQUESTS[usize::from(*which) % REQUESTS.len()];
    let style = [Style::Proto, Style::Packed, Style::Plain][usize::from(*style) % 3];
    let json = without_mark(json);
    let mut wire = Vec::with_capacity(json.len());
    if write::write(message, json, LARGEST, &mut wire).is_err() {
        return;
    }
    same_as_others_read(message, json, &wire);
    let mut shown = Vec::new();
    // Times and masks have values that JSON has no form for.
    if render(message, &wire, style, &mut shown).is_err() {
        return;
    }
    let mut again = Vec::new();
    let written = write::write(message, &shown, LARGEST, &mut again);
    assert_eq!(written, Ok(()), "{}", String::from_utf8_lossy(&shown));
    let mut shown_again = Vec::new();
    render(message, &again, style, &mut shown_again).expect("shown before");
    assert_eq!(
        String::from_utf8_lossy(&shown),
        String::from_utf8_lossy(&shown_again)
    );
}

/// That a text which was read is JSON to serde_json as well, and if prost-reflect
/// takes it for the message, then for the same one.
fn same_as_others_read(message: &MessageDescriptor, json: &[u8], wire: &[u8]) {
    let ours = DynamicMessage::decode(message.clone(), wire).expect("what is read decodes");
    if let Err(error) = serde_json::from_slice::<serde_json::Value>(json) {
        assert!(error.to_string().contains("out of range"), "{error}");
    }
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    if let Ok(theirs) = DynamicMessage::deserialize(message.clone(), &mut deserializer)
        && ours != theirs
    {
        // Not a number is equal to nothing.
        assert_eq!(
            serde_json::to_value(&ours).ok(),
            serde_json::to_value(&theirs).ok()
        );
    }
}
