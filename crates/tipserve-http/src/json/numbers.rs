//! Lists of floating-point numbers, such as embeddings: thousands of digits in
//! a message. They go from the text to the wire format, and back, without
//! anything in between.

use prost::encoding::{WireType, encode_key};
use prost_reflect::{FieldDescriptor, Kind};

use super::{
    JsonError,
    decimal::Decimal,
    float,
    reader::{Reader, Value, is_space},
    scalar, wire,
};

/// Whether a field is a packed list of floating-point numbers.
pub fn are_packed(field: &FieldDescriptor) -> bool {
    field.is_list() && field.is_packed() && matches!(field.kind(), Kind::Float | Kind::Double)
}

/// Appends the list that is next in the text: numbers, or a string, base64 of
/// their little-endian bytes. False, and nothing is read or appended, if it is
/// neither: then reading it value by value finds what is wrong, and where.
///
/// # Errors
/// [`JsonError::TooLarge`] if `out` would grow over `limit`.
pub fn put(
    field: &FieldDescriptor,
    reader: &mut Reader<'_>,
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<bool, JsonError> {
    let before = out.len();
    let begun = reader.clone();
    let is_read = match (reader.peek(), field.kind()) {
        (Some(b'['), Kind::Float) => floats(field.number(), reader, limit, out)?,
        (Some(b'['), Kind::Double) => listed(field.number(), reader, limit, out, |text, out| {
            let number = Decimal::parse(text)?;
            let value = number.to_f64();
            out.extend_from_slice(&value.to_le_bytes());
            value.is_finite().then_some(number.text.len())
        })?,
        (Some(b'"'), kind) => encoded(field.number(), &kind, reader, out)?,
        _ => false,
    };
    if !is_read {
        out.truncate(before);
        *reader = begun;
    }
    Ok(is_read)
}

/// Appends the list of 32-bit floats that is next, as [`put`] does.
///
/// # Errors
/// See [`put`].
pub fn floats(
    number: u32,
    reader: &mut Reader<'_>,
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<bool, JsonError> {
    listed(number, reader, limit, out, |text, out| {
        let (value, length) = float::read(text)?;
        out.extend_from_slice(&value.to_le_bytes());
        Some(length)
    })
}

fn listed(
    number: u32,
    reader: &mut Reader<'_>,
    limit: usize,
    out: &mut Vec<u8>,
    append: impl Fn(&[u8], &mut Vec<u8>) -> Option<usize>,
) -> Result<bool, JsonError> {
    let text = reader.rest();
    encode_key(number, WireType::LengthDelimited, out);
    let mut end = None;
    wire::sized(out, |out| {
        end = elements(text, |text| {
            if out.len() > limit {
                return Err(JsonError::TooLarge(limit));
            }
            Ok(append(text, out))
        })?;
        Ok(())
    })?;
    reader.advance(end.unwrap_or_default());
    Ok(end.is_some())
}

/// How long the list is that the text begins with; none if it holds anything
/// that `take` does not take, which gives how long a number is.
fn elements(
    text: &[u8],
    mut take: impl FnMut(&[u8]) -> Result<Option<usize>, JsonError>,
) -> Result<Option<usize>, JsonError> {
    let length_before = |rest: &[u8]| text.len() - rest.len();
    let mut rest = trimmed(text.get(1..).unwrap_or_default());
    if let Some((b']', after)) = rest.split_first() {
        return Ok(Some(length_before(after)));
    }
    while let Some(length) = take(rest)? {
        rest = trimmed(rest.get(length..).unwrap_or_default());
        match rest.split_first() {
            Some((b',', after)) => rest = trimmed(after),
            Some((b']', after)) => return Ok(Some(length_before(after))),
            _ => break,
        }
    }
    Ok(None)
}

fn trimmed(mut text: &[u8]) -> &[u8] {
    while let Some((byte, after)) = text.split_first()
        && is_space(*byte)
    {
        text = after;
    }
    text
}

/// Numbers in base64 are in the wire format already: little-endian, one after
/// the other.
fn encoded(
    number: u32,
    kind: &Kind,
    reader: &mut Reader<'_>,
    out: &mut Vec<u8>,
) -> Result<bool, JsonError> {
    let Value::Text(text) = reader.value()? else {
        return Ok(false);
    };
    encode_key(number, WireType::LengthDelimited, out);
    let width = if *kind == Kind::Double { 8 } else { 4 };
    let length = scalar::base64(&text, out);
    Ok(length.is_some_and(|length| length % width == 0))
}

/// Appends 32-bit floats in the wire format as the elements of a list, each with
/// the fewest digits that read back to the same, as serde_json has them. False,
/// and nothing is appended, if one is not finite, which JSON has no number for, or
/// if the bytes are not whole.
pub fn render(packed: &[u8], out: &mut Vec<u8>) -> bool {
    /// Most are no longer, with their comma; none is longer than [`MOST`].
    const USUAL: usize = 14;
    const MOST: usize = 24;
    /// How many get their room at once.
    const BLOCK: usize = 64;
    let before = out.len();
    let (values, rest) = packed.as_chunks::<4>();
    if !rest.is_empty() {
        return false;
    }
    out.reserve(values.len() * USUAL);
    let mut digits = zmij::Buffer::new();
    for block in values.chunks(BLOCK) {
        let mut end = out.len();
        out.resize(end + block.len() * MOST, b',');
        for bytes in block {
            let value = f32::from_le_bytes(*bytes);
            let text = match value.is_finite() {
                true => digits.format_finite(value).as_bytes(),
                false => &[],
            };
            let room = out.get_mut(end..end + text.len());
            let Some(room) = room.filter(|room| !room.is_empty()) else {
                out.truncate(before);
                return false;
            };
            copy(text, room);
            end += text.len() + 1;
        }
        out.truncate(end);
    }
    // After the last there is none.
    out.truncate(out.len().max(before + 1) - 1);
    true
}

/// Copies a text to where there is as much room. Most have 8 to 16 bytes: two
/// copies of 8, which may overlap, cost no call.
fn copy(text: &[u8], room: &mut [u8]) {
    if text.len() <= 16
        && let (Some(first), Some(last)) = (text.first_chunk::<8>(), text.last_chunk::<8>())
        && let Some(place) = room.first_chunk_mut()
    {
        *place = *first;
        if let Some(place) = room.last_chunk_mut() {
            *place = *last;
        }
        return;
    }
    room.copy_from_slice(text);
}
